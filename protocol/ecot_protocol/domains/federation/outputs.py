# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a courier asks of its host. The host carries them out in order, and nothing before what precedes it is done.

- `Keep`, `KeepLeaves` and `KeepFork` are durable before the next output is looked at: a witness that forgets what it
  cosigned could cosign another history. Where the host can't keep something, it drops what comes after.
- `Tell` may be lost, repeated, reordered.
- `Append` is signed by the agent and given to the writer; the host reports `recorded` once it is durable, or `refused`.
- `ReadRecord`, `ReadGrowth` and `ReadLeaves` are answered by `Courier.read`, `Courier.grown` and `Courier.leaves`, or
  not at all (it asks again).
- `Ahead` stops the writer: a witness holds a checkpoint of our own log that is longer than our log.
"""

from dataclasses import dataclass
from typing import Literal

from ecot_protocol.domains.federation.decision_log import Outcome
from ecot_protocol.domains.federation.messages import Message
from ecot_protocol.domains.federation.netting import Matched
from ecot_protocol.wire.entry import Attachment
from ecot_protocol.wire.merkle_group import Frontier

AppendKind = Literal["abort", "accept", "commit", "commit_offers", "forward", "promise", "resolve"]


@dataclass(frozen=True, slots=True)
class Tell:
    """Send a message to the node of a ledger (32 bytes)."""

    ledger: bytes
    message: Message


@dataclass(frozen=True, slots=True)
class Append:
    """Record an entry of the node: `body` is encoded and unsigned. `tids` are the deals that it is about."""

    kind: AppendKind
    tids: tuple[bytes, ...]
    body: bytes
    attachments: tuple[Attachment, ...] = ()


@dataclass(frozen=True, slots=True)
class ReadRecord:
    """Read the record at `index` of our own log."""

    index: int


@dataclass(frozen=True, slots=True)
class ReadLeaves:
    """Read decisions of our own decision log that the state no longer remembers, and the root over all before `end`."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class ReadGrowth:
    """Compute the consistency proof of our own log between two sizes."""

    old_size: int
    new_size: int


@dataclass(frozen=True, slots=True)
class Keep:
    """Keep the checkpoint (a signed note) as the last one of this log that we cosigned; replaces the one before."""

    origin: str
    checkpoint: bytes


@dataclass(frozen=True, slots=True)
class KeepLeaves:
    """Keep leaves of a partner's decision log that come after the frontier `before`, the frontier after them, and the
    checkpoint that we are about to cosign. Nothing of it if a tid among them is kept already.
    """

    origin: str
    before: Frontier
    leaves: tuple[tuple[bytes, Outcome], ...]
    frontier: Frontier
    checkpoint: bytes


@dataclass(frozen=True, slots=True)
class KeepFork:
    """Keep two checkpoints that a log signed and that don't agree, and tell the operator."""

    origin: str
    first: bytes
    second: bytes


@dataclass(frozen=True, slots=True)
class Solve:
    """Find a flow that clears as much as possible of the debts of a round; answered by `Courier.solved`, or not."""

    call: bytes
    matched: Matched


@dataclass(frozen=True, slots=True)
class KeepRound:
    """Keep all that a round consisted of, so that it can be checked again (`caller.read_round`)."""

    call: bytes
    raw: bytes


@dataclass(frozen=True, slots=True)
class Ahead:
    """Stop writing: this checkpoint of our own log, shown by a witness, is longer than our log or of another one."""

    checkpoint: bytes


Output = Ahead | Append | Keep | KeepFork | KeepLeaves | KeepRound | ReadGrowth | ReadLeaves | ReadRecord | Solve | Tell
