# SPDX-License-Identifier: AGPL-3.0-or-later
"""Who is paid: what opens the payee's commitment, sealed to the payee's ledger, so that nobody on the way learns it.

The payer's client makes it. It is recorded in the payer's ledger as it is sealed, handed on from ledger to ledger, and
opened by the agent key of the last one.
"""

from typing import Annotated, Final

import msgspec

from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.wire.encoding import Codec, Hash, Id, Wire
from ecot_protocol.wire.entry import Attachment, commitment
from ecot_protocol.wire.keys import Signer
from ecot_protocol.wire.sealing import seal, unseal

MAX_MEMO_BYTES: Final = 1_024
MAX_OPENING_BYTES: Final = 2_048

Sealed = Annotated[bytes, msgspec.Meta(max_length=MAX_OPENING_BYTES)]


class Opening(Wire):
    """What the payee's node is told.

    Attributes:
        memo: what it is for, UTF-8; nil: nothing. It becomes an attachment of the payee's record, under `memo_salt`.
        memo_salt: 32 random bytes, used once.
        payee: the member.
        salt: opens the contract's commitment.
    """

    memo: Annotated[bytes, msgspec.Meta(max_length=MAX_MEMO_BYTES)] | None
    memo_salt: Hash
    payee: Id
    salt: Hash

    @property
    def attachments(self) -> tuple[Attachment, ...]:
        """The attachments of the payee's record."""
        return () if self.memo is None else (Attachment("memo", self.memo_salt, self.memo),)

    @property
    def memo_commitment(self) -> bytes | None:
        """What the payee's record holds of the memo."""
        return None if self.memo is None else commitment(self.memo_salt, self.memo)


_OPENING: Final = Codec(Opening)


def seal_opening(opening: Opening, agent: bytes, ephemeral_seed: bytes) -> bytes:
    """Seal an opening to the agent of the payee's ledger (33 bytes)."""
    return seal(agent, _OPENING.encode(opening), ephemeral_seed)


def open_opening(sealed: bytes, agent: Signer) -> Opening:
    """Read what was sealed to our agent.

    Raises:
        RemoteProtocolError: ``box_wrong``, ``malformed``, ``not_canonical``.
    """
    opening = _OPENING.decode(unseal(agent.seed, sealed))
    if opening.memo is not None:
        _require_text(opening.memo)
    return opening


def _require_text(memo: bytes) -> None:
    try:
        memo.decode()
    except UnicodeDecodeError as error:
        raise RemoteProtocolError("malformed", "the memo is no UTF-8") from error
