# SPDX-License-Identifier: AGPL-3.0-or-later
"""Ids: 16 bytes, ordered by time on purpose (random unique keys make appends four times slower at 2 M rows).

- The id of an entry is a UUIDv7 (RFC 9562 §5.7) that the client makes and keeps before it sends.
- Every object has the id of the entry that made it.
- The n-th further object of one entry has that entry's 48 time bits and bits of SHA-256(id, n); its version is 8
  (RFC 9562 §5.8), so no entry can ever be given the id of such an object.
- Organs of the cooperative (its board, its treasurer) have fixed ids derived from their names.

>>> entry_id = uuid7(1_700_000_000_000, bytes(10))
>>> entry_id.hex()
'018bcfe5680070008000000000000000'
>>> time_ms(entry_id), is_uuid7(entry_id), is_uuid7(object_id(entry_id, 1))
(1700000000000, True, False)
"""

from hashlib import sha256
from typing import Final

from ecot_protocol.errors import LocalProtocolError

ID_SIZE_BYTES: Final = 16
RANDOM_SIZE_BYTES: Final = 10
_VERSION_7: Final = 0x70
_VERSION_8: Final = 0x80
_VARIANT: Final = 0x80


def uuid7(unix_ms: int, random: bytes) -> bytes:
    """Make the id of an entry.

    Args:
        unix_ms: the client's clock, milliseconds since 1970, 48 bits.
        random: 10 random bytes (6 of their bits are overwritten by version and variant).
    """
    if len(random) != RANDOM_SIZE_BYTES or not 0 <= unix_ms < 1 << 48:
        raise LocalProtocolError("uuid7 takes 48 bits of time and 10 random bytes")
    return _stamp(unix_ms.to_bytes(6, "big") + random, _VERSION_7)


def object_id(entry_id: bytes, number: int) -> bytes:
    """Return the id of the `number`-th further object (from 1) that the entry makes."""
    tail = sha256(entry_id + number.to_bytes(4, "big")).digest()[:RANDOM_SIZE_BYTES]
    return _stamp(entry_id[:6] + tail, _VERSION_8)


def organ_id(name: str) -> bytes:
    """Return the fixed id of an organ of the cooperative, e.g. ``"board"``; its time bits are zero."""
    return _stamp(bytes(6) + sha256(b"ecot/organ/v1\n" + name.encode("ascii")).digest()[:RANDOM_SIZE_BYTES], _VERSION_8)


def time_ms(any_id: bytes) -> int:
    """Return the 48 time bits of an id: milliseconds since 1970."""
    return int.from_bytes(any_id[:6], "big")


def is_uuid7(any_id: bytes) -> bool:
    """Tell whether the id has the form that a client gives an entry."""
    return len(any_id) == ID_SIZE_BYTES and any_id[6] & 0xF0 == _VERSION_7 and any_id[8] & 0xC0 == _VARIANT


def _stamp(raw: bytes, version: int) -> bytes:
    return raw[:6] + bytes((version | raw[6] & 0x0F, raw[7], _VARIANT | raw[8] & 0x3F)) + raw[9:]
