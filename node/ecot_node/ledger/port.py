# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the floors above ask of the ledger, and what the ledger asks of the views.

The writer is the only one who changes the state. Everybody else reads through `Ledger.read`, which answers as of the
last durable record, or from views, which follow.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import msgspec

from ecot_protocol.ledger.facts import Fact
from ecot_protocol.state import State
from ecot_protocol.wire.entry import Entry
from ecot_protocol.wire.reply import Reply

R = TypeVar("R")


class RecordedEntry(msgspec.Struct, frozen=True, gc=False):
    """One durable record and what it did.

    Attributes:
        index: place in the log.
        received_at_ms: the record's time.
        entry_id: 16 bytes.
        tag: entry type.
        author: member, person or organ acted for; None for the node.
        visibility: `Visibility` value of the type.
        parties: members, persons and organs whom it concerns.
        facts: in order.
    """

    index: int
    received_at_ms: int
    entry_id: bytes
    tag: str
    author: bytes | None
    visibility: str
    parties: tuple[bytes, ...]
    facts: tuple[Fact, ...]


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """How the ledger is.

    Attributes:
        mode: ``writing``; ``read_only`` (a witness saw records that we lack, or must be asked
            first, or this release lacks rules); ``stopped`` (the store failed or the clock jumped); ``draft`` (no
            genesis yet).
        reason: stable code that explains a mode other than ``writing``.
        size: durable records.
        views_size: records that the views show.
        waiting: entries in the writer's queue.
        witness_checkpoint: the checkpoint of ours that a witness keeps and our log does not hold (``witness_ahead``),
            a signed note; empty if there is none.
    """

    mode: str
    reason: str | None
    size: int
    views_size: int
    waiting: int
    witness_checkpoint: str = ""


class StateProof(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the state and its path to a recorded seal.

    Attributes:
        table: name of the table.
        key: canonical bytes of the key.
        value: canonical bytes of the value; None if there is no such row.
        siblings: hashes from the root to the leaf.
        seal_index: record of the ``coop.seal`` whose digest is the root.
    """

    table: str
    key: bytes
    value: bytes | None
    siblings: tuple[bytes, ...]
    seal_index: int


class Views(Protocol):
    """The follower of facts, as the ledger knows it."""

    async def position(self) -> int:
        """Return how many records the views show."""
        ...

    async def apply(self, entries: Sequence[RecordedEntry]) -> None:
        """Show these records too: contiguous, the first at `position`; one transaction."""
        ...

    async def reset(self) -> None:
        """Begin an empty set of tables beside the present one, for a rebuild."""
        ...

    async def swap(self) -> None:
        """Put the rebuilt tables in the place of the old ones."""
        ...


class Ledger(Protocol):
    """What routes, jobs and federation use."""

    async def submit(self, entries: Sequence[Entry]) -> Reply:
        """Record entries, each on its own, in order; returns when their outcome is durable.

        Raises:
            Overloaded: the queue is full; nothing was taken.
            NotWriting: the ledger takes no entries now; `Status.reason` says why.
        """
        ...

    async def read(self, question: Callable[[State], R]) -> R:
        """Ask the state as of the last durable record. `question` reads only, keeps no reference, and is quick."""
        ...

    async def wait_for(self, index: int, timeout_s: float) -> bool:
        """Wait until the views show the record at `index`; False if they don't in time."""
        ...

    async def prove(self, rows: Sequence[tuple[str, bytes]]) -> Sequence[StateProof]:
        """Prove rows (table, key) against the newest seal, recording one first if the state moved on."""
        ...

    def subscribe(self, listener: Callable[[Sequence[RecordedEntry]], None]) -> Callable[[], None]:
        """Call `listener` with each durable group, in the event loop; returns how to end it."""
        ...

    def status(self) -> Status:
        """Return how the ledger is."""
        ...

    def checkpoint(self) -> bytes:
        """Return the newest durable checkpoint, a signed note; empty before the genesis."""
        ...
