# SPDX-License-Identifier: AGPL-3.0-or-later
"""What couriers say to each other: canonical arrays whose first element is the kind.

Every message can be sent again, and be lost: each is a question or a proof, and none is an order. A message counts by
what it proves, never by who brought it; the sender matters only for where an answer goes.

>>> decode_message(encode_message(Ask(bytes(16)))) == Ask(bytes(16))
True
"""

from typing import Annotated, Final

import msgspec

from ecot_protocol.domains.federation.deals import MAX_HOPS, MAX_PATH, DealBytes, SignatureBytes
from ecot_protocol.domains.federation.mirrors import Tids
from ecot_protocol.domains.federation.netting_messages import NettingMessage
from ecot_protocol.domains.federation.openings import Sealed
from ecot_protocol.domains.federation.proofs import CheckpointBytes, Inclusion, LeafProof, RecordProof
from ecot_protocol.domains.federation.statements import KeyName
from ecot_protocol.errors import LocalProtocolError, RemoteProtocolError
from ecot_protocol.wire.encoding import Codec, Count, Hash, Id, WireArray
from ecot_protocol.wire.statement import MAX_STATEMENT_SIZE_BYTES

MAX_MESSAGE_SIZE_BYTES: Final = 262_144
MAX_MIRROR_LISTS_BYTES: Final = 240_000
MAX_PROPOSAL_BYTES: Final = 16_384
"""Longest peering that is proposed to another node."""
MAX_PUSHED_LEAVES: Final = 4_096
"""Decisions of one message to a witness."""
MAX_FOLLOWED: Final = 8
"""Records of one message about keys that were replaced."""
Code = Annotated[str, msgspec.Meta(pattern=r"^[a-z_]{1,64}$(?!\n)")]


class PushedLeaf(WireArray):
    """A decision: outcome 0 (abort) or 1 (commit)."""

    tid: Id
    outcome: Annotated[int, msgspec.Meta(ge=0, le=1)]


class Prepare(msgspec.Struct, frozen=True, array_like=True, tag=1, forbid_unknown_fields=True, gc=False):
    """To the next ledger of a path: this is reserved with all before you; promise your part, or refuse it.

    `opening` is sealed to the last ledger; `promises` are the signatures of the agents before the receiver's.
    """

    contract: DealBytes
    opening: Sealed
    promises: Annotated[tuple[SignatureBytes, ...], msgspec.Meta(min_length=1, max_length=MAX_HOPS)]


class Ask(msgspec.Struct, frozen=True, array_like=True, tag=2, forbid_unknown_fields=True, gc=False):
    """To the decider: what became of it?"""

    tid: Id


class Promised(msgspec.Struct, frozen=True, array_like=True, tag=3, forbid_unknown_fields=True, gc=False):
    """The decider, or the next ledger of the path: known here, not decided yet; asking the decider is enough now."""

    tid: Id


class Unheard(msgspec.Struct, frozen=True, array_like=True, tag=4, forbid_unknown_fields=True, gc=False):
    """The decider: neither promised nor decided here; say it all again."""

    tid: Id


class DecisionShown(msgspec.Struct, frozen=True, array_like=True, tag=5, forbid_unknown_fields=True, gc=False):
    """A decision under a cosigned checkpoint of the decider's decision log."""

    checkpoint: CheckpointBytes
    decision: LeafProof


class Offer(msgspec.Struct, frozen=True, array_like=True, tag=6, forbid_unknown_fields=True, gc=False):
    """Anybody to a participant: take part in this round."""

    contract: DealBytes


class Accepted(msgspec.Struct, frozen=True, array_like=True, tag=7, forbid_unknown_fields=True, gc=False):
    """To the decider: promises of a deal. Of a round the sender's own; of a transfer all, in the order of its path."""

    contract: DealBytes
    promises: Annotated[tuple[SignatureBytes, ...], msgspec.Meta(min_length=1, max_length=MAX_PATH)]


class AbortAsked(msgspec.Struct, frozen=True, array_like=True, tag=8, forbid_unknown_fields=True, gc=False):
    """To the decider: end this deal, for its earliest abort has passed; or, from the payer's ledger, earlier."""

    contract: DealBytes


class Push(msgspec.Struct, frozen=True, array_like=True, tag=9, forbid_unknown_fields=True, gc=False):
    """A log to a witness: the body of `add-checkpoint` (C2SP tlog-witness)."""

    request: Annotated[bytes, msgspec.Meta(max_length=16_384)]


class Cosigned(msgspec.Struct, frozen=True, array_like=True, tag=10, forbid_unknown_fields=True, gc=False):
    """A witness to the log: cosignature lines for the checkpoint of this size."""

    origin: KeyName
    size: Count
    lines: Annotated[bytes, msgspec.Meta(max_length=4_096)]


class Stale(msgspec.Struct, frozen=True, array_like=True, tag=11, forbid_unknown_fields=True, gc=False):
    """A witness to the log: the last size that it cosigned; push from there."""

    origin: KeyName
    size: Count


class AskHead(msgspec.Struct, frozen=True, array_like=True, tag=12, forbid_unknown_fields=True, gc=False):
    """To a witness: the last checkpoint of this log that it cosigned."""

    origin: KeyName


class Head(msgspec.Struct, frozen=True, array_like=True, tag=13, forbid_unknown_fields=True, gc=False):
    """A witness: the last checkpoint that it cosigned; nil if there is none."""

    origin: KeyName
    checkpoint: CheckpointBytes | None


class Problem(msgspec.Struct, frozen=True, array_like=True, tag=14, forbid_unknown_fields=True, gc=False):
    """Why a message was of no use, for the operator of the other side; nothing follows from it."""

    code: Code
    tid: Id | None


class Refused(msgspec.Struct, frozen=True, array_like=True, tag=15, forbid_unknown_fields=True, gc=False):
    """To the ledger before on a path: `ledger` will not take part, and why. Advice: what is promised stays promised."""

    tid: Id
    code: Code
    ledger: Hash


class PushDecisions(msgspec.Struct, frozen=True, array_like=True, tag=16, forbid_unknown_fields=True, gc=False):
    """A ledger to a witness: the leaves of its decision log from `start` on, up to the size of the checkpoint.

    `before` is empty, or the frontier of the leaves before `start`, for a witness that has seen nothing yet.
    """

    start: Count
    before: Annotated[tuple[Hash, ...], msgspec.Meta(max_length=53)]
    leaves: Annotated[tuple[PushedLeaf, ...], msgspec.Meta(max_length=MAX_PUSHED_LEAVES)]
    checkpoint: CheckpointBytes


class RoutesShown(msgspec.Struct, frozen=True, array_like=True, tag=17, forbid_unknown_fields=True, gc=False):
    """What a ledger publishes for those who look for a path (statement ``routes``), signed by its agent.

    `hop_count` is the number of ledgers that have handed it on.
    """

    statement: Annotated[bytes, msgspec.Meta(max_length=MAX_STATEMENT_SIZE_BYTES)]
    signature: SignatureBytes
    hop_count: Annotated[int, msgspec.Meta(ge=0, le=MAX_HOPS)]


class MirrorShown(msgspec.Struct, frozen=True, array_like=True, tag=40, forbid_unknown_fields=True, gc=False):
    """What the account of the addressee holds here: the statement ``mirror``, its lists, the agent's signature."""

    statement: Annotated[bytes, msgspec.Meta(max_length=1_024)]
    lists: Annotated[bytes, msgspec.Meta(max_length=MAX_MIRROR_LISTS_BYTES)]
    signature: SignatureBytes
    asked_size: Count


class AskMirror(msgspec.Struct, frozen=True, array_like=True, tag=41, forbid_unknown_fields=True, gc=False):
    """What does your account of us hold? With the deals that wait here, the size that your log had at least, and ours.

    `keys_index` and `cosigned_size` say of your log which record of it last set one of the keys that we know, and what
    we cosigned last; whoever has replaced a key since shows it.
    """

    pending: Tids
    since: Count
    size: Count
    keys_index: Count
    cosigned_size: Count


class AskMoves(msgspec.Struct, frozen=True, array_like=True, tag=42, forbid_unknown_fields=True, gc=False):
    """Which deals were posted to your account of us, by records from this index on?"""

    start: Count


class MovesShown(msgspec.Struct, frozen=True, array_like=True, tag=43, forbid_unknown_fields=True, gc=False):
    """One page of them: the statement ``moves``, and the agent's signature."""

    statement: Annotated[bytes, msgspec.Meta(max_length=MAX_STATEMENT_SIZE_BYTES)]
    signature: SignatureBytes


class AskRecord(msgspec.Struct, frozen=True, array_like=True, tag=44, forbid_unknown_fields=True, gc=False):
    """Show the record of your log that resolved a deal between us."""

    index: Count


class RecordShown(msgspec.Struct, frozen=True, array_like=True, tag=45, forbid_unknown_fields=True, gc=False):
    """A record that was asked for, under the newest checkpoint."""

    proof: RecordProof


class Propose(msgspec.Struct, frozen=True, array_like=True, tag=46, forbid_unknown_fields=True, gc=False):
    """A peering, or a change of it, that our board proposes, signed by our agent; again until it is answered."""

    statement: Annotated[bytes, msgspec.Meta(max_length=MAX_PROPOSAL_BYTES)]
    signature: SignatureBytes


class Answered(msgspec.Struct, frozen=True, array_like=True, tag=47, forbid_unknown_fields=True, gc=False):
    """What became of a proposal: nothing yet (both nil), accepted (the agent's signature), or refused, and why."""

    proposal: Hash
    signature: SignatureBytes | None
    refusal: Annotated[str, msgspec.Meta(max_length=500)] | None


class KeysShown(msgspec.Struct, frozen=True, array_like=True, tag=48, forbid_unknown_fields=True, gc=False):
    """Keys of our node were replaced: the records, and `add-checkpoint` (its body) for the checkpoint with them."""

    request: Annotated[bytes, msgspec.Meta(max_length=16_384)]
    records: Annotated[tuple[Inclusion, ...], msgspec.Meta(min_length=1, max_length=MAX_FOLLOWED)]


Message = (
    Prepare
    | Ask
    | Promised
    | Unheard
    | DecisionShown
    | Offer
    | Accepted
    | AbortAsked
    | Push
    | Cosigned
    | Stale
    | AskHead
    | Head
    | Problem
    | Refused
    | PushDecisions
    | RoutesShown
    | MirrorShown
    | AskMirror
    | AskMoves
    | MovesShown
    | AskRecord
    | RecordShown
    | Propose
    | Answered
    | KeysShown
    | NettingMessage
)
PartnerMessage = (
    MirrorShown | AskMirror | AskMoves | MovesShown | AskRecord | RecordShown | Propose | Answered | KeysShown
)
"""About the partnership itself rather than a deal: not for the courier."""

_codec: Final[Codec[Message]] = Codec(Message)  # type: ignore[arg-type]


def encode_message(message: Message) -> bytes:
    """Encode a message.

    Raises:
        LocalProtocolError: it is too large.
    """
    raw = _codec.encode(message)
    if len(raw) > MAX_MESSAGE_SIZE_BYTES:
        raise LocalProtocolError(f"message of {len(raw)} bytes: expected at most {MAX_MESSAGE_SIZE_BYTES}")
    return raw


def decode_message(raw: bytes) -> Message:
    """Decode a message.

    Raises:
        RemoteProtocolError: ``too_large``, ``malformed``, ``not_canonical``.
    """
    if len(raw) > MAX_MESSAGE_SIZE_BYTES:
        raise RemoteProtocolError("too_large", f"a message has at most {MAX_MESSAGE_SIZE_BYTES} bytes")
    return _codec.decode(raw)
