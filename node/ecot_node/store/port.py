# SPDX-License-Identifier: AGPL-3.0-or-later
"""The port to a ledger's durable bytes: what the writer, replay, witness and federation ask of a store.

Rules:

1. `open` takes the exclusive lock and raises the fencing epoch; every write checks that the epoch is still ours.
2. `commit` is one transaction: all of a group or nothing, and durable when it returns.
3. After a failed write, every further write raises `StoreFailed` until `reopen` has answered what the store holds.
4. Commits may be started one after the other without waiting; they are made in the order of the calls.
5. Reads see the last durable commit, never one that is on its way.
6. Of the checkpoints, the store keeps the newest, and those that left the house: `checkpoint_keep` is called *before*
   a note is sent to a witness or a partner. The others are never needed again: a proof is made against any later one.
7. The store hashes nothing and verifies nothing: bytes in, the same bytes out.

>>> group = CommitGroup(size=1, records=(RecordRow(0, bytes(16), 1, b"record", bytes(32)),), checkpoint=b"note")
>>> check_group(group, size=0)
>>> check_group(group, size=7)
Traceback (most recent call last):
...
ecot_node.store.errors.StoreMisuse: first index 0, expected 7
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final, Protocol

import msgspec

from ecot_node.store.errors import StoreError, StoreLimit, StoreMisuse

HASH_BYTES: Final = 32
"""Length of every hash, salt and ledger id."""
ENTRY_ID_BYTES: Final = 16
"""Length of an entry's UUIDv7."""
TILE_WIDTH: Final = 256
"""Hashes in a full tile (C2SP tlog-tiles, height 8)."""
TILE_BYTES: Final = TILE_WIDTH * HASH_BYTES
"""Length of a full tile."""
RECORD_MAX_BYTES: Final = 65_535
"""Longest record (architecture §3)."""
GROUP_MAX_RECORDS: Final = 20_000
"""Most records in one commit."""
READ_MAX_ROWS: Final = 10_000
"""Most rows that one read answers; a larger `limit` is lowered to it, except for `leaf_hashes`."""
REPLAY_BATCH: Final = 1_000
"""Records in one batch of `replay`."""
DRAFT_MAX_BYTES: Final = 256 * 1024
"""Longest draft: body, signatures and attachments."""
DRAFT_MAX_COUNT: Final = 10_000
"""Most drafts waiting at one time."""
META_MAX_BYTES: Final = 1024 * 1024
"""Longest value under a `meta` key."""
MESSAGE_MAX_BYTES: Final = 8 * 1024 * 1024
"""Longest payload of an outbox message."""
OUTBOX_NO_AFTER: Final = 0
"""The `after` that reads the outbox from its beginning; sequences start at 1."""


class RecordRow(msgspec.Struct, frozen=True, gc=False):
    """One record of the log, as stored.

    Args:
        index: place in the log, from 0.
        entry_id: 16 bytes, unique in the log.
        received_at_ms: Unix time in milliseconds, as in the record.
        record: at most `RECORD_MAX_BYTES`.
        leaf_hash: 32 bytes, the RFC 6962 leaf hash as it stands in a level-0 tile.
    """

    index: int
    entry_id: bytes
    received_at_ms: int
    record: bytes
    leaf_hash: bytes


class AttachmentRow(msgspec.Struct, frozen=True, gc=False):
    """One attachment of an entry: erasable, outside the record.

    Args:
        index: of the entry's record.
        position: place among the entry's attachments, from 0.
        class_name: says the legal ground and how long it is kept.
        salt: 32 bytes.
        content: what is erasable.
    """

    index: int
    position: int
    class_name: str
    salt: bytes
    content: bytes


class TileRow(msgspec.Struct, frozen=True, gc=False):
    """A full tile: 256 x 32 bytes, left to right; level 0 holds leaf hashes."""

    level: int
    index: int
    hashes: bytes


class OutboxMessage(msgspec.Struct, frozen=True, gc=False):
    """A message that is promised to a peer; `key` says what it is, so that it is queued once."""

    peer: str
    key: bytes
    payload: bytes


class QueuedMessage(msgspec.Struct, frozen=True, gc=False):
    """An outbox message with the sequence number that the store gave it."""

    sequence: int
    peer: str
    key: bytes
    payload: bytes


class InboxMark(msgspec.Struct, frozen=True, gc=False):
    """The memory that message `key` of `peer` was acted on at `seen_at_ms`."""

    peer: str
    key: bytes
    seen_at_ms: int


class CommitGroup(msgspec.Struct, frozen=True, kw_only=True):
    """What one transaction makes durable.

    Args:
        size: of the log after this commit.
        records: contiguous, the first at the store's size; may be empty (then `checkpoint` is None).
        attachments: of these records.
        tiles: those that these records complete.
        edge: level -> hashes of the incomplete tile there, for the whole tree after this commit; a level that is
            absent or empty has none. Level 0 is kept with the records and may be left out.
        checkpoint: the signed note for `size`.
        outbox_add: messages to promise; one that is queued already (same peer and key) is left as it is.
        outbox_remove: sequence numbers of messages that arrived.
        inbox_add: messages acted on; one that is marked already is left as it is.
        meta: key -> value, None to delete.
    """

    size: int
    records: Sequence[RecordRow] = ()
    attachments: Sequence[AttachmentRow] = ()
    tiles: Sequence[TileRow] = ()
    edge: Mapping[int, bytes] = MappingProxyType({})
    checkpoint: bytes | None = None
    outbox_add: Sequence[OutboxMessage] = ()
    outbox_remove: Sequence[int] = ()
    inbox_add: Sequence[InboxMark] = ()
    meta: Mapping[str, bytes | None] = MappingProxyType({})


class OpenedLog(msgspec.Struct, frozen=True, kw_only=True):
    """What the store holds when it has been opened.

    Args:
        ledger: 32 bytes, or None if it is not bound yet.
        size: records in the log.
        edge: level -> hashes of the incomplete tile, level 0 included; empty tiles are left out.
        checkpoint: the note for `size`, or None if the log is empty.
        epoch: ours from now on (the stored one if opened for reading).
    """

    ledger: bytes | None
    size: int
    edge: Mapping[int, bytes]
    checkpoint: bytes | None
    epoch: int


class StoredEntry(msgspec.Struct, frozen=True, gc=False):
    """Where an entry stands in the log."""

    index: int
    received_at_ms: int
    record: bytes


class Checkpoint(msgspec.Struct, frozen=True, gc=False):
    """A checkpoint of our own log: the signed note for `size`, without cosignatures."""

    size: int
    note: bytes


class Cosignature(msgspec.Struct, frozen=True, gc=False):
    """A witness's signature line under our checkpoint; `witness_name` is its key's, ``<name>+<key id in hex>``."""

    witness_name: str
    line: bytes


class CosignedCheckpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint with the cosignatures that came back, sorted by the witness's name."""

    size: int
    note: bytes
    cosignatures: tuple[Cosignature, ...]


class WitnessState(msgspec.Struct, frozen=True, gc=False):
    """The newest checkpoint of a partner's log that we have cosigned."""

    size: int
    root: bytes
    note: bytes


class ForkProof(msgspec.Struct, frozen=True, gc=False):
    """Two checkpoints of one origin that do not agree, with the proof that was given (may be empty)."""

    origin: str
    first_note: bytes
    second_note: bytes
    proof: bytes


class Draft(msgspec.Struct, frozen=True, gc=False):
    """An entry that waits for signatures, outside the log. `content` is at most `DRAFT_MAX_BYTES`."""

    draft_id: bytes
    expires_at_ms: int
    content: bytes


class Erasure(msgspec.Struct, frozen=True, gc=False):
    """The memory that an attachment was erased: what `restore` does again."""

    index: int
    position: int
    erased_at_ms: int
    ground: str


class Quarantined(msgspec.Struct, frozen=True, gc=False):
    """A body whose effect raised: kept for the report, refused for ever by its hash."""

    entry_hash: bytes
    body: bytes
    error: str


class LogWrites(Protocol):
    """The life of a store and the group that the writer commits."""

    async def open(self, *, ledger: bytes | None, read_only: bool = False) -> OpenedLog:
        """Lock the ledger, migrate its schema if it is older, raise the epoch, and say what is there.

        Args:
            ledger: 32 bytes that the store must be bound to (an unbound one is bound to it); None takes what is there.
            read_only: no lock, no migration, no new epoch; every write raises `StoreReadOnly`.

        Raises:
            StoreInUse, StoreTooNew, StoreOtherLedger, StoreFailed.
        """
        ...

    async def reopen(self) -> OpenedLog:
        """After a failed write: connect anew under a new epoch, keeping the lock, and say what is there.

        Raises:
            StoreFenced: another process took the ledger over meanwhile.
            StoreInUse: as `open`, where the lock went with the connection.
            StoreFailed: it can't be reached; may be tried again.
        """
        ...

    def failure(self) -> StoreError | None:
        """Return the error after which every write fails until `reopen`; None if writes are taken."""
        ...

    async def close(self) -> None:
        """Wait for the writes on their way, close, give the lock back; a second call does nothing."""
        ...

    async def commit(self, group: CommitGroup) -> None:
        """Make `group` durable, all or nothing.

        Raises:
            StoreFenced: nothing was written, nothing ever will be.
            StoreFull: nothing was written; `reopen` when there is space.
            StoreFailed: `reopen` says whether it was written.
            StoreMisuse: the group does not follow the log, or is malformed.
        """
        ...


class LogReads(Protocol):
    """The log, its attachments and its tree."""

    async def records(self, start: int, limit: int) -> list[RecordRow]:
        """Return up to `limit` records from index `start`, ascending."""
        ...

    def replay(self, start: int = 0, *, batch: int = REPLAY_BATCH) -> AsyncIterator[list[RecordRow]]:
        """Yield the log from `start` to the end that it has when it is reached, in batches."""
        ...

    async def record(self, index: int) -> RecordRow | None:
        """Return one record."""
        ...

    async def find_entry(self, entry_id: bytes) -> StoredEntry | None:
        """Find the record of an entry by its id."""
        ...

    async def tile(self, level: int, index: int) -> bytes | None:
        """Return a full tile (`TILE_BYTES`), or None if it is not full yet."""
        ...

    async def leaf_hashes(self, start: int, count: int) -> bytes:
        """Return up to `count` leaf hashes from `start`, 32 bytes each, joined."""
        ...

    async def attachments(self, index: int) -> list[AttachmentRow]:
        """Return what is left of a record's attachments, by position."""
        ...

    async def attachments_many(self, start: int, limit: int) -> list[AttachmentRow]:
        """Return the attachments of the records `start` up to `start + limit`, by index and position."""
        ...

    async def erase_attachments(self, index: int, positions: Sequence[int], *, erased_at_ms: int, ground: str) -> int:
        """Delete salts and contents, list the erasure, and return how many were there to delete."""
        ...

    async def erasures(self) -> list[Erasure]:
        """Return every erasure, by index and position."""
        ...

    async def backup(self, path: Path) -> None:
        """Write a consistent copy of the open store into one new file, while it goes on.

        Raises:
            FileExistsError: `path` exists.
            NotImplementedError: the store has a backup tool of its own; the message names it.
        """
        ...


class DecisionLogState(msgspec.Struct, frozen=True, gc=False):
    """A ledger's decision log, ours or a partner's, as far as it is kept.

    Args:
        size: leaves before its end, kept or not.
        frontier: the hashes of its maximal complete subtrees, largest first, 32 bytes each.
        note: the checkpoint that we cosigned last; empty for our own log.
    """

    size: int
    frontier: bytes
    note: bytes


class DecisionLeaf(msgspec.Struct, frozen=True, gc=False):
    """A leaf of a decision log: `outcome` is 0 (abort) or 1 (commit)."""

    number: int
    tid: bytes
    outcome: int


class CheckpointStore(Protocol):
    """Our own checkpoints and their cosignatures, partners' checkpoints, forks."""

    async def checkpoint(self, size: int | None = None) -> Checkpoint | None:
        """Return the newest checkpoint, or the kept one for `size`."""
        ...

    async def checkpoint_keep(self, size: int, note: bytes) -> None:
        """Keep a checkpoint beyond the next commit; called before it leaves the house. Idempotent."""
        ...

    async def checkpoints_forget(self, below_size: int) -> int:
        """Delete kept checkpoints under `below_size`, with their cosignatures; return how many."""
        ...

    async def cosignatures_put(self, size: int, witness_name: str, line: bytes) -> None:
        """Add or replace a witness's line.

        Raises:
            StoreMisuse: no checkpoint is kept for `size`.
        """
        ...

    async def cosignatures(self, size: int) -> tuple[Cosignature, ...]:
        """Return the lines under the checkpoint for `size`, by witness name."""
        ...

    async def newest_cosigned(self, at_least: int = 1) -> CosignedCheckpoint | None:
        """Return the largest checkpoint that has `at_least` cosignatures."""
        ...

    async def cosigned(self, above: int, limit: int) -> list[CosignedCheckpoint]:
        """Return up to `limit` checkpoints of more than `above` records that have a cosignature, the largest first."""
        ...

    async def witness_get(self, origin: str) -> WitnessState | None:
        """Return the newest checkpoint of `origin` that we cosigned."""
        ...

    async def witness_put(self, origin: str, *, old_size: int | None, state: WitnessState) -> bool:
        """Replace it if its size is still `old_size` (None: there is none); durable before True is returned."""
        ...

    async def decision_log(self, origin: str) -> DecisionLogState | None:
        """Return what is kept of a decision log."""
        ...

    async def decision_log_put(
        self, origin: str, *, old_size: int | None, state: DecisionLogState, leaves: Sequence[DecisionLeaf]
    ) -> bool:
        """Keep leaves that follow each other up to the new size, if the old size still is `old_size` (None: nothing is
        kept yet) and no leaf of these tids is kept; all of it, durable before True is returned, or nothing.
        """
        ...

    async def decision_leaves(self, origin: str, start: int, limit: int) -> list[DecisionLeaf]:
        """Return up to `limit` kept leaves from number `start` on, in order."""
        ...

    async def decision_leaf(self, origin: str, tid: bytes) -> DecisionLeaf | None:
        """Return the leaf of a deal."""
        ...

    async def fork_put(self, proof: ForkProof) -> None:
        """Keep a proof that `origin` signed two histories; the same proof twice is kept once."""
        ...

    async def forks(self) -> list[ForkProof]:
        """Return every fork proof, oldest first."""
        ...


class MessageStore(Protocol):
    """Outbox, inbox, and small values."""

    async def outbox(self, limit: int, after: int = OUTBOX_NO_AFTER, *, peer: str | None = None) -> list[QueuedMessage]:
        """Return up to `limit` promised messages after sequence `after`, oldest first."""
        ...

    async def outbox_add(self, messages: Sequence[OutboxMessage]) -> None:
        """Promise messages that belong to no commit."""
        ...

    async def outbox_remove(self, sequences: Sequence[int]) -> None:
        """Forget messages that arrived."""
        ...

    async def seen(self, peer: str, key: bytes) -> bool:
        """Return whether this message was acted on."""
        ...

    async def inbox_forget(self, before_ms: int) -> int:
        """Forget the marks made before an instant; return how many."""
        ...

    async def meta_get(self, key: str) -> bytes | None:
        """Return a small value."""
        ...

    async def meta_put(self, key: str, value: bytes | None) -> None:
        """Set a small value durably (None deletes it).

        Raises:
            StoreLimit: longer than `META_MAX_BYTES`.
        """
        ...


class DraftStore(Protocol):
    """Drafts and quarantine, outside the log."""

    async def draft_put(self, draft: Draft) -> None:
        """Add or replace a draft.

        Raises:
            StoreLimit: too long, or too many.
        """
        ...

    async def draft_get(self, draft_id: bytes) -> Draft | None:
        """Return a draft, expired or not."""
        ...

    async def draft_list(self, limit: int, after: bytes = b"") -> list[Draft]:
        """Return up to `limit` drafts whose id is greater than `after`, by id."""
        ...

    async def draft_delete(self, draft_id: bytes) -> bool:
        """Delete a draft; return whether it was there."""
        ...

    async def drafts_expire(self, now_ms: int) -> int:
        """Delete the drafts whose `expires_at_ms` is at or before `now_ms`; return how many."""
        ...

    async def quarantine_put(self, entry: Quarantined) -> None:
        """Remember an entry whose effect raised; the first report is kept."""
        ...

    async def quarantined(self, entry_hash: bytes) -> Quarantined | None:
        """Return the report on an entry, if there is one."""
        ...

    async def quarantine_list(self) -> list[Quarantined]:
        """Return every report, oldest first."""
        ...


class LogStore(LogWrites, LogReads, CheckpointStore, MessageStore, DraftStore, Protocol):
    """The whole port. Code that needs a part asks for that part."""


def check_group(group: CommitGroup, *, size: int) -> None:
    """Refuse a group that does not continue a log of `size` records.

    Raises:
        StoreMisuse: says the first thing that is wrong.
        StoreLimit: more than `GROUP_MAX_RECORDS`, or a value over its limit.
    """
    if len(group.records) > GROUP_MAX_RECORDS:
        raise StoreLimit("group_records", GROUP_MAX_RECORDS)
    if group.size != size + len(group.records):
        first = group.records[0].index if group.records else size
        if first != size:
            raise StoreMisuse(f"first index {first}, expected {size}")
        raise StoreMisuse(f"size {group.size}, expected {size + len(group.records)}")
    if bool(group.records) != (group.checkpoint is not None):
        raise StoreMisuse("a group has a checkpoint if and only if it has records")
    _check_records(group.records, size)
    _check_tree(group)
    check_messages(group.outbox_add)
    if any(value is not None and len(value) > META_MAX_BYTES for value in group.meta.values()):
        raise StoreLimit("meta_bytes", META_MAX_BYTES)


def _check_records(records: Sequence[RecordRow], size: int) -> None:
    for expected, row in enumerate(records, size):
        if row.index != expected:
            raise StoreMisuse(f"index {row.index}, expected {expected}")
        if len(row.entry_id) != ENTRY_ID_BYTES or len(row.leaf_hash) != HASH_BYTES:
            raise StoreMisuse(f"record {expected}: entry id or leaf hash of the wrong length")
        if len(row.record) > RECORD_MAX_BYTES:
            raise StoreLimit("record_bytes", RECORD_MAX_BYTES)


def _check_tree(group: CommitGroup) -> None:
    for tile in group.tiles:
        if len(tile.hashes) != TILE_BYTES:
            raise StoreMisuse(f"tile {tile.level}/{tile.index}: {len(tile.hashes)} bytes, expected {TILE_BYTES}")
    if not group.records:
        return
    level = 0
    while group.size >> (8 * (level := level + 1)):
        found, expected = len(group.edge.get(level, b"")), edge_width(group.size, level) * HASH_BYTES
        if found != expected:
            raise StoreMisuse(f"edge of level {level}: {found} bytes, expected {expected}")


def check_messages(messages: Sequence[OutboxMessage]) -> None:
    """Refuse a payload over `MESSAGE_MAX_BYTES`.

    Raises:
        StoreLimit.
    """
    if any(len(message.payload) > MESSAGE_MAX_BYTES for message in messages):
        raise StoreLimit("message_bytes", MESSAGE_MAX_BYTES)


def check_decision_leaves(state: DecisionLogState, leaves: Sequence[DecisionLeaf]) -> None:
    """Refuse leaves that do not follow each other up to the new size, or repeat a tid.

    Raises:
        StoreMisuse: says what is wrong.
    """
    numbers = [leaf.number for leaf in leaves]
    if numbers != [*range(state.size - len(leaves), state.size)] or len({leaf.tid for leaf in leaves}) != len(leaves):
        raise StoreMisuse(f"expected {len(leaves)} leaves of different deals up to {state.size}")
    if len(state.frontier) != state.size.bit_count() * HASH_BYTES:
        raise StoreMisuse(f"expected {state.size.bit_count()} hashes")


def edge_width(size: int, level: int) -> int:
    """Return how many hashes the incomplete tile of `level` holds in a log of `size` records.

    >>> edge_width(70_000, 0), edge_width(70_000, 1), edge_width(70_000, 2)
    (112, 17, 1)
    """
    return (size >> (8 * level)) % TILE_WIDTH
