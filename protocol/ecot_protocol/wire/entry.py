# SPDX-License-Identifier: AGPL-3.0-or-later
r"""Entries as bytes: body, signatures, attachments; the record that the log keeps; its leaf.

- Entry, as sent: ``[body, signatures, attachments]``; the body is a byte string that holds a canonical map, so what was
  signed is never re-encoded.
- Body: map of ``author``, ``expires_at``, ``id``, ``ledger``, ``payload``, ``type``.
- Signature: ``[key_id, signature]`` over ``"ecot/entry/v1\n"`` + body; sorted by key id, each key once.
- Attachment: ``[class, salt, content]``; the payload holds HMAC-SHA-256(salt, content), never the content.
- Record: ``[received_at_ms, body, signatures]``, at most 65,535 bytes. Leaf data: SHA-256(``"ecot/record/v1\n"`` +
  record).

>>> seed = bytes(32)
>>> body = BODY.encode(Body(author=None, expires_at=2, id=bytes(16), ledger=bytes(32), payload=msgspec.Raw(b"\x80"),
...                         type="coop.seal"))
>>> entry = Entry(body, (sign_body(Signer(seed), body),), ())
>>> decode_entry(encode(entry)) == entry
True
>>> leaf_data(encode(Record(1, entry.body, entry.signatures))).hex()[:16]
'853b40687f5df691'
"""

import hmac
from collections.abc import Sequence
from hashlib import sha256
from itertools import pairwise
from typing import Annotated, Final

import msgspec

from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.wire.encoding import Codec, Count, Hash, Id, KeyId, Wire, WireArray, encode
from ecot_protocol.wire.keys import Signer

MAX_RECORD_SIZE_BYTES: Final = 65_535
"""An entry bundle of tlog-tiles gives the length in 16 bits."""
MAX_SIGNATURES: Final = 64
MAX_ATTACHMENTS: Final = 64
MAX_ATTACHMENT_SIZE_BYTES: Final = 65_536
MAX_ENTRY_SIZE_BYTES: Final = 1_048_576
MAX_ENTRIES_PER_BATCH: Final = 1_000
SALT_SIZE_BYTES: Final = 32
ENTRY_CONTEXT: Final = b"ecot/entry/v1\n"
RECORD_CONTEXT: Final = b"ecot/record/v1\n"
NO_LEDGER: Final = bytes(32)
"""What a genesis carries in place of the ledger id, which is the hash of its body."""

Tag = Annotated[str, msgspec.Meta(pattern=r"^[a-z_]{1,24}\.[a-z_]{1,32}$(?!\n)")]


class Body(Wire):
    """What is signed.

    Attributes:
        author: id of the member or organ acted for; None for the node itself.
        expires_at: milliseconds since 1970; from then on the entry can't be recorded.
        id: UUIDv7 of the entry.
        ledger: 32-byte ledger id; zeros in a genesis.
        payload: canonical encoding of the entry type's payload.
        type: the entry type's tag, e.g. ``trade.accept``.
    """

    author: Id | None
    expires_at: Count
    id: Id
    ledger: Hash
    payload: msgspec.Raw
    type: Tag


class Signature(WireArray):
    """One key's signature over ``ENTRY_CONTEXT + body``."""

    key_id: KeyId
    signature: Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]


class Attachment(WireArray):
    """Erasable content that the payload commits to. `class_name` tells its legal ground and who may read it."""

    class_name: Annotated[str, msgspec.Meta(pattern=r"^[a-z_]{1,24}$(?!\n)")]
    salt: Hash
    content: Annotated[bytes, msgspec.Meta(max_length=MAX_ATTACHMENT_SIZE_BYTES)]


class Entry(WireArray):
    """An entry as a client sends it."""

    body: Annotated[bytes, msgspec.Meta(max_length=MAX_RECORD_SIZE_BYTES)]
    signatures: Annotated[tuple[Signature, ...], msgspec.Meta(max_length=MAX_SIGNATURES)]
    attachments: Annotated[tuple[Attachment, ...], msgspec.Meta(max_length=MAX_ATTACHMENTS)]


class Record(WireArray):
    """What the log keeps of an entry: when the writer took it, what was signed, by whom."""

    received_at_ms: Count
    body: Annotated[bytes, msgspec.Meta(max_length=MAX_RECORD_SIZE_BYTES)]
    signatures: Annotated[tuple[Signature, ...], msgspec.Meta(max_length=MAX_SIGNATURES)]


BODY: Final = Codec(Body)
ENTRY: Final = Codec(Entry)
RECORD: Final = Codec(Record)
ENTRIES: Final = Codec(tuple[Entry, ...])


def decode_entry(raw: bytes) -> Entry:
    """Decode one entry as sent.

    Raises:
        RemoteProtocolError: ``too_large``, ``malformed``, ``not_canonical``, ``signatures_not_sorted``.
    """
    if len(raw) > MAX_ENTRY_SIZE_BYTES:
        raise RemoteProtocolError("too_large", f"an entry has at most {MAX_ENTRY_SIZE_BYTES} bytes")
    entry = ENTRY.decode(raw)
    require_sorted(entry.signatures)
    return entry


def decode_record(raw: bytes) -> Record:
    """Decode one record of a log.

    Raises:
        RemoteProtocolError: ``too_large``, ``malformed``, ``not_canonical``, ``signatures_not_sorted``.
    """
    if len(raw) > MAX_RECORD_SIZE_BYTES:
        raise RemoteProtocolError("too_large", f"a record has at most {MAX_RECORD_SIZE_BYTES} bytes")
    record = RECORD.decode(raw)
    require_sorted(record.signatures)
    return record


def require_sorted(signatures: Sequence[Signature]) -> None:
    """Raise ``signatures_not_sorted`` unless key ids ascend strictly (so each key signs once)."""
    for first, second in pairwise(signatures):
        if first.key_id >= second.key_id:
            raise RemoteProtocolError("signatures_not_sorted", "key ids ascend, each once")


def sign_body(signer: Signer, body: bytes) -> Signature:
    """Sign the encoded body."""
    return Signature(signer.key_id, signer.sign(ENTRY_CONTEXT + body))


def commitment(salt: bytes, content: bytes) -> bytes:
    """Return HMAC-SHA-256(salt, content), the 32 bytes that a payload holds of an attachment.

    Never a bare hash: names, prices and SIREN numbers can be guessed; the salt dies with the content.
    """
    return hmac.digest(salt, content, "sha256")


def leaf_data(record: bytes) -> bytes:
    """Return the 32 bytes of a record that the log's tree holds."""
    return sha256(RECORD_CONTEXT + record).digest()


def encode_record(received_at_ms: int, entry: Entry) -> bytes:
    """Return the record of an entry taken at `received_at_ms`."""
    return encode(Record(received_at_ms, entry.body, entry.signatures))
