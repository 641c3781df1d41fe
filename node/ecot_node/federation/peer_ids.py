# SPDX-License-Identifier: AGPL-3.0-or-later
r"""libp2p peer ids from Ed25519 host keys, without libp2p.

A peer id is the identity multihash of the protobuf-encoded public key: ``00 24`` (identity, 36 bytes), ``08 01``
(key type Ed25519), ``12 20`` (32 bytes), key; shown in base58btc.

>>> peer_id_of(b"\x01" + bytes(32))
'12D3KooW9pNAk8aiBuGVQtWRdbkLmo5qVL3e2h5UxbN2Nz9ttwiw'

Source: libp2p/specs, peer-ids/peer-ids.md.
"""

from functools import lru_cache
from typing import Final

_ALPHABET: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_PREFIX: Final = bytes.fromhex("002408011220")


@lru_cache(maxsize=1_024)
def peer_id_of(public_key: bytes) -> str:
    """Return the peer id of a host key (33 bytes: algorithm number and Ed25519 key)."""
    raw = _PREFIX + public_key[1:]
    number = int.from_bytes(raw, "big")
    digits = ""
    while number:
        number, rest = divmod(number, 58)
        digits = _ALPHABET[rest] + digits
    zeros = len(raw) - len(raw.lstrip(b"\0"))
    return "1" * zeros + digits
