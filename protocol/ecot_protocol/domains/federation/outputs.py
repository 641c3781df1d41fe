# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a courier asks of its host. The host carries them out in order, and nothing before what precedes it is done.

- `Keep` and `KeepFork` are durable before the next output is looked at: a witness that forgets what it cosigned could
  cosign another history.
- `Tell` may be lost, repeated, reordered.
- `Append` is signed by the agent and given to the writer; the host reports `recorded` once it is durable, or `refused`.
- `ReadRecord` and `ReadGrowth` are answered by `Courier.proved` and `Courier.grown`, or not at all (it asks again).
- `Ahead` stops the writer: a witness holds a checkpoint of our own log that is longer than our log.
"""

from dataclasses import dataclass
from typing import Literal

from ecot_protocol.domains.federation.messages import Message
from ecot_protocol.domains.federation.netting import Matched
from ecot_protocol.wire.entry import Attachment

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
    """Read the record at `index` of our own log, with its inclusion proof in the tree of `size`."""

    index: int
    size: int


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


Output = Ahead | Append | Keep | KeepFork | KeepRound | Solve | ReadGrowth | ReadRecord | Tell
