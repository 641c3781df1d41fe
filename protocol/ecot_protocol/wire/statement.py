# SPDX-License-Identifier: AGPL-3.0-or-later
r"""Statements: what two or more cooperatives say together (a peering, a transfer contract, a clearing round, a merger).

A statement is canonical bytes with the sorted ids of the ``ledgers`` that it binds, signed by each over
``"ecot/statement/v1\n"`` + bytes. Each ledger records it in an entry of its own; a ledger knows foreign keys only
through what it has recorded.

>>> raw = STATEMENT.encode(Statement(ledgers=(bytes(32), b"\x01" * 32), payload=msgspec.Raw(b"\x80"), type="peering"))
>>> statement_id(raw).hex()[:16], decode_statement(raw).type
('82b3853642a81b6c', 'peering')
"""

from hashlib import sha256
from typing import Annotated, Final

import msgspec

from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.wire.encoding import Codec, Hash, Wire
from ecot_protocol.wire.entry import Signature
from ecot_protocol.wire.keys import Signer, is_signature_valid

STATEMENT_CONTEXT: Final = b"ecot/statement/v1\n"
MAX_STATEMENT_SIZE_BYTES: Final = 49_152
MAX_LEDGERS: Final = 64


class Statement(Wire):
    """What several ledgers agree on.

    Attributes:
        ledgers: ids of the ledgers it binds, ascending, each once.
        payload: canonical encoding of the statement type's payload.
        type: what it is, e.g. ``peering``.
    """

    ledgers: Annotated[tuple[Hash, ...], msgspec.Meta(min_length=1, max_length=MAX_LEDGERS)]
    payload: msgspec.Raw
    type: Annotated[str, msgspec.Meta(pattern=r"^[a-z_]{1,32}$(?!\n)")]


STATEMENT: Final = Codec(Statement)


def decode_statement(raw: bytes) -> Statement:
    """Decode a statement.

    Raises:
        RemoteProtocolError: ``too_large``, ``malformed``, ``not_canonical``, ``ledgers_not_sorted``.
    """
    if len(raw) > MAX_STATEMENT_SIZE_BYTES:
        raise RemoteProtocolError("too_large", f"a statement has at most {MAX_STATEMENT_SIZE_BYTES} bytes")
    statement = STATEMENT.decode(raw)
    if list(statement.ledgers) != sorted(set(statement.ledgers)):
        raise RemoteProtocolError("ledgers_not_sorted", "ledger ids ascend, each once")
    return statement


def statement_id(raw: bytes) -> bytes:
    """Return the 32-byte id of a statement."""
    return sha256(STATEMENT_CONTEXT + raw).digest()


def sign_statement(signer: Signer, raw: bytes) -> Signature:
    """Sign the encoded statement."""
    return Signature(signer.key_id, signer.sign(STATEMENT_CONTEXT + raw))


def is_statement_signed(public_key: bytes, raw: bytes, signature: bytes) -> bool:
    """Tell whether `signature` (64 bytes) is the key's (33 bytes) over the encoded statement."""
    return is_signature_valid(public_key, STATEMENT_CONTEXT + raw, signature)
