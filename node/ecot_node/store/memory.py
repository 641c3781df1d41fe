# SPDX-License-Identifier: AGPL-3.0-or-later
"""The store in memory, for the simulator and for fast tests, with faults on demand.

`MemoryDisk` is what survives a crash; `MemoryStore` is the process that has it open. Its rules are those of the SQL
stores, and the same contract tests run over it.

>>> import asyncio
>>> async def crash() -> int:
...     disk = MemoryDisk()
...     store = MemoryStore(disk)
...     _ = await store.open(ledger=None)
...     store.hold()  # from here on, commits wait as if the disk were slow
...     rows = [RecordRow(i, bytes([i]) * 16, i, b"record", bytes(32)) for i in range(2)]
...     for row in rows:
...         _ = asyncio.ensure_future(store.commit(CommitGroup(size=row.index + 1, records=[row], checkpoint=b"note")))
...     await asyncio.sleep(0)
...     store.crash(keep=1)
...     return (await MemoryStore(disk).open(ledger=None)).size
>>> asyncio.run(crash())
1
"""

import asyncio
import bisect
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from ecot_node.store.errors import (
    StoreError,
    StoreFailed,
    StoreFenced,
    StoreInUse,
    StoreLimit,
    StoreMisuse,
    StoreOtherLedger,
    StoreReadOnly,
)
from ecot_node.store.port import (
    DRAFT_MAX_BYTES,
    DRAFT_MAX_COUNT,
    HASH_BYTES,
    META_MAX_BYTES,
    OUTBOX_NO_AFTER,
    READ_MAX_ROWS,
    REPLAY_BATCH,
    AttachmentRow,
    Checkpoint,
    CommitGroup,
    Cosignature,
    CosignedCheckpoint,
    DecisionLeaf,
    DecisionLogState,
    Draft,
    Erasure,
    ForkProof,
    InboxMark,
    OpenedLog,
    OutboxMessage,
    Quarantined,
    QueuedMessage,
    RecordRow,
    StoredEntry,
    TileRow,
    WitnessState,
    check_decision_leaves,
    check_group,
    check_messages,
    edge_width,
)

Result = TypeVar("Result")


class MemoryDisk:
    """What is durable, and who has it open."""

    def __init__(self) -> None:
        self.holder: MemoryStore | None = None
        self.ledger: bytes | None = None
        self.epoch = 0
        self.note: bytes | None = None
        self.records: list[RecordRow] = []
        self.index_of_entry: dict[bytes, int] = {}
        self.attachments: dict[tuple[int, int], AttachmentRow] = {}
        self.erasures: dict[tuple[int, int], Erasure] = {}
        self.tiles: dict[tuple[int, int], TileRow] = {}
        self.edge: dict[int, bytes] = {}
        self.checkpoints: dict[int, bytes] = {}
        self.cosignatures: dict[int, dict[str, bytes]] = {}
        self.witnessed: dict[str, WitnessState] = {}
        self.decision_logs: dict[str, DecisionLogState] = {}
        self.decision_leaves: dict[str, dict[bytes, DecisionLeaf]] = {}
        self.forks: list[ForkProof] = []
        self.outbox: dict[int, QueuedMessage] = {}
        self.next_sequence = 1
        self.inbox: dict[tuple[str, bytes], int] = {}
        self.meta: dict[str, bytes] = {}
        self.drafts: dict[bytes, Draft] = {}
        self.quarantine: dict[bytes, Quarantined] = {}

    def opened(self) -> OpenedLog:
        """Say what the disk holds."""
        size = len(self.records)
        edge = {level: hashes for level, hashes in sorted(self.edge.items()) if level and hashes}
        width = edge_width(size, 0)
        if width:
            edge = {0: b"".join(row.leaf_hash for row in self.records[size - width :]), **edge}
        return OpenedLog(ledger=self.ledger, size=size, edge=edge, checkpoint=self.note, epoch=self.epoch)

    def require_new(self, group: CommitGroup) -> None:
        """Refuse what a unique key of the tables would: before anything is changed."""
        ids = [row.entry_id for row in group.records]
        slots = [(row.index, row.position) for row in group.attachments]
        tiles = [(tile.level, tile.index) for tile in group.tiles]
        for fresh, known in ((ids, self.index_of_entry), (slots, self.attachments), (tiles, self.tiles)):
            if len(set(fresh)) != len(fresh) or any(key in known for key in fresh):
                raise StoreFailed("a key is used twice")

    def apply(self, group: CommitGroup) -> None:
        """Add a group that `require_new` has let through."""
        for row in group.records:
            self.index_of_entry[row.entry_id] = row.index
        self.records.extend(group.records)
        self.attachments.update({(row.index, row.position): row for row in group.attachments})
        self.tiles.update({(tile.level, tile.index): tile for tile in group.tiles})
        if group.records:
            self.note, self.edge = group.checkpoint, dict(group.edge)
        self.promise(group.outbox_add)
        for sequence in group.outbox_remove:
            self.outbox.pop(sequence, None)
        self.mark(group.inbox_add)
        for key, value in group.meta.items():
            self.set_meta(key, value)

    def promise(self, messages: Sequence[OutboxMessage]) -> None:
        """Queue the messages that are not queued yet."""
        queued = {(message.peer, message.key) for message in self.outbox.values()}
        for message in messages:
            if (message.peer, message.key) in queued:
                continue
            queued.add((message.peer, message.key))
            sequence, self.next_sequence = self.next_sequence, self.next_sequence + 1
            self.outbox[sequence] = QueuedMessage(sequence, message.peer, message.key, message.payload)

    def mark(self, marks: Sequence[InboxMark]) -> None:
        """Remember messages acted on; the first mark stays."""
        for mark in marks:
            self.inbox.setdefault((mark.peer, mark.key), mark.seen_at_ms)

    def set_meta(self, key: str, value: bytes | None) -> None:
        """Set or delete a small value."""
        if value is None:
            self.meta.pop(key, None)
        else:
            self.meta[key] = value


class _Waiting(msgspec.Struct):
    """A commit that was submitted and is not durable yet."""

    group: CommitGroup
    epoch: int
    done: "asyncio.Future[None]"


class MemoryStore:
    """The port on a `MemoryDisk`, with faults."""

    def __init__(self, disk: MemoryDisk | None = None) -> None:
        self.disk = disk or MemoryDisk()
        self._state = "closed"  # closed, reading, writing
        self._broken: StoreError | None = None
        self._fault: StoreError | None = None
        self._held = False
        self._waiting: list[_Waiting] = []
        self._epoch = 0
        self._size = 0

    # Faults.

    def fail_next_write(self, error: StoreError | None = None) -> None:
        """Let the next write fail with `error` (`StoreFailed` by default), keeping nothing of it."""
        self._fault = error or StoreFailed("a fault that was asked for")

    def hold(self) -> None:
        """From now on commits wait, in order, until `release` or `crash`; other writes are not held."""
        self._held = True

    def release(self, count: int | None = None) -> None:
        """Make the oldest `count` waiting commits durable and answer them; None: all, and hold no longer."""
        if count is None:
            self._held = False
        taken, self._waiting = self._waiting[:count], self._waiting[len(self._waiting[:count]) :]
        for waiting in taken:
            self._finish(waiting)

    def crash(self, keep: int = 0) -> None:
        """End this process: the oldest `keep` waiting commits are durable, nobody hears of any of them."""
        waiting, self._waiting = self._waiting, []
        for one in waiting[:keep]:
            with contextlib.suppress(StoreError):
                self._apply(one.group, one.epoch)
        for one in waiting:
            one.done.cancel()
        self._state, self._held = "closed", False
        self._unlock()

    # Life.

    async def open(self, *, ledger: bytes | None, read_only: bool = False) -> OpenedLog:
        if self._state != "closed":
            raise StoreMisuse("the store is open")
        found = self.disk.ledger
        if not read_only and self.disk.holder is not None:
            raise StoreInUse("the memory disk", "another store")
        if ledger is not None and found is not None and ledger != found:
            raise StoreOtherLedger(ledger, found)
        if read_only:
            self._state = "reading"
            return self.disk.opened()
        self.disk.ledger = found if found is not None else ledger
        self.disk.holder = self
        return self._begin()

    def _begin(self) -> OpenedLog:
        self.disk.epoch += 1
        opened = self.disk.opened()
        self._state, self._epoch, self._size, self._broken = "writing", opened.epoch, opened.size, None
        return opened

    async def reopen(self) -> OpenedLog:
        if self._state != "writing":
            raise StoreMisuse("the store is not open for writing")
        self.release()
        if self.disk.epoch != self._epoch:
            raise StoreFenced(self._epoch, self.disk.epoch)
        return self._begin()

    def failure(self) -> StoreError | None:
        return self._broken

    async def close(self) -> None:
        self.release()
        self._state = "closed"
        self._unlock()

    def _unlock(self) -> None:
        if self.disk.holder is self:
            self.disk.holder = None

    # Writing.

    async def commit(self, group: CommitGroup) -> None:
        self._require_writable()
        check_group(group, size=self._size)
        self._size = group.size
        waiting = _Waiting(group, self._epoch, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if not self._held:
            self.release()
        await waiting.done

    def _finish(self, waiting: _Waiting) -> None:
        try:
            self._apply(waiting.group, waiting.epoch)
        except StoreError as error:
            if not waiting.done.done():
                waiting.done.set_exception(error)
        else:
            if not waiting.done.done():
                waiting.done.set_result(None)

    def _apply(self, group: CommitGroup, epoch: int) -> None:
        def write() -> None:
            self.disk.require_new(group)
            self.disk.apply(group)

        self._write(write, epoch)

    def _write(self, work: Callable[[], Result], epoch: int | None = None) -> Result:
        self._require_writable()
        try:
            if self._broken is not None:
                raise StoreFailed(f"an earlier write failed: {self._broken}")
            fault, self._fault = self._fault, None
            if fault is not None:
                raise fault
            if self.disk.epoch != (epoch or self._epoch):
                raise StoreFenced(epoch or self._epoch, self.disk.epoch)
            return work()
        except StoreError as error:
            self._broken = self._broken or error
            raise

    def _require_writable(self) -> None:
        if self._state == "reading":
            raise StoreReadOnly("the store was opened for reading")
        if self._state == "closed":
            raise StoreFailed("the store is closed")

    def _read(self) -> MemoryDisk:
        if self._state == "closed":
            raise StoreFailed("the store is closed")
        return self.disk

    # The log.

    async def records(self, start: int, limit: int) -> list[RecordRow]:
        return self._read().records[start : start + min(limit, READ_MAX_ROWS)]

    async def replay(self, start: int = 0, *, batch: int = REPLAY_BATCH) -> AsyncIterator[list[RecordRow]]:
        while rows := await self.records(start, batch):
            yield rows
            start += len(rows)

    async def record(self, index: int) -> RecordRow | None:
        rows = await self.records(index, 1)
        return rows[0] if rows else None

    async def find_entry(self, entry_id: bytes) -> StoredEntry | None:
        index = self._read().index_of_entry.get(entry_id)
        if index is None:
            return None
        row = self.disk.records[index]
        return StoredEntry(index, row.received_at_ms, row.record)

    async def tile(self, level: int, index: int) -> bytes | None:
        tile = self._read().tiles.get((level, index))
        return tile.hashes if tile else None

    async def leaf_hashes(self, start: int, count: int) -> bytes:
        joined = b"".join(row.leaf_hash for row in self._read().records[start : start + count])
        assert len(joined) % HASH_BYTES == 0
        return joined

    async def attachments(self, index: int) -> list[AttachmentRow]:
        return await self.attachments_many(index, 1)

    async def attachments_many(self, start: int, limit: int) -> list[AttachmentRow]:
        end = start + min(limit, READ_MAX_ROWS)
        return [row for key, row in sorted(self._read().attachments.items()) if start <= key[0] < end]

    async def erase_attachments(self, index: int, positions: Sequence[int], *, erased_at_ms: int, ground: str) -> int:
        def write() -> int:
            slots = [(index, position) for position in sorted(set(positions))]
            for slot in slots:
                self.disk.erasures.setdefault(slot, Erasure(*slot, erased_at_ms, ground))
            return sum(self.disk.attachments.pop(slot, None) is not None for slot in slots)

        return self._write(write)

    async def erasures(self) -> list[Erasure]:
        return [erasure for _, erasure in sorted(self._read().erasures.items())]

    async def backup(self, path: Path) -> None:
        """Refuse: there is nothing that would outlive the process.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("not supported in memory: copy the MemoryDisk")

    # Checkpoints, witness.

    async def checkpoint(self, size: int | None = None) -> Checkpoint | None:
        disk = self._read()
        newest = len(disk.records)
        if size is None or size == newest:
            return Checkpoint(newest, disk.note) if disk.note is not None else None
        note = disk.checkpoints.get(size)
        return Checkpoint(size, note) if note is not None else None

    async def checkpoint_keep(self, size: int, note: bytes) -> None:
        self._write(lambda: self.disk.checkpoints.setdefault(size, note))

    async def checkpoints_forget(self, below_size: int) -> int:
        def write() -> int:
            old = [size for size in self.disk.checkpoints if size < below_size]
            for size in old:
                del self.disk.checkpoints[size]
                self.disk.cosignatures.pop(size, None)
            return len(old)

        return self._write(write)

    async def cosignatures_put(self, size: int, witness_name: str, line: bytes) -> None:
        def write() -> bool:
            note = self.disk.note if size == len(self.disk.records) else None
            if note is not None:
                self.disk.checkpoints.setdefault(size, note)
            if size not in self.disk.checkpoints:
                return False
            self.disk.cosignatures.setdefault(size, {})[witness_name] = line
            return True

        if not self._write(write):
            raise StoreMisuse(f"no checkpoint of size {size} is kept: call checkpoint_keep before it leaves the house")

    async def cosignatures(self, size: int) -> tuple[Cosignature, ...]:
        return tuple(Cosignature(*item) for item in sorted(self._read().cosignatures.get(size, {}).items()))

    async def newest_cosigned(self, at_least: int = 1) -> CosignedCheckpoint | None:
        lines = self._read().cosignatures
        sizes = [size for size, found in lines.items() if len(found) >= at_least]
        if not sizes:
            return None
        size = max(sizes)
        return CosignedCheckpoint(
            size=size, note=self.disk.checkpoints[size], cosignatures=await self.cosignatures(size)
        )

    async def cosigned(self, above: int, limit: int) -> list[CosignedCheckpoint]:
        lines = self._read().cosignatures
        sizes = sorted((size for size, found in lines.items() if found and size > above), reverse=True)
        return [
            CosignedCheckpoint(size=size, note=self.disk.checkpoints[size], cosignatures=await self.cosignatures(size))
            for size in sizes[:limit]
        ]

    async def witness_get(self, origin: str) -> WitnessState | None:
        return self._read().witnessed.get(origin)

    async def witness_put(self, origin: str, *, old_size: int | None, state: WitnessState) -> bool:
        def write() -> bool:
            known = self.disk.witnessed.get(origin)
            if (known.size if known else None) != old_size:
                return False
            self.disk.witnessed[origin] = state
            return True

        return self._write(write)

    async def decision_log(self, origin: str) -> DecisionLogState | None:
        return self._read().decision_logs.get(origin)

    async def decision_log_put(
        self, origin: str, *, old_size: int | None, state: DecisionLogState, leaves: Sequence[DecisionLeaf]
    ) -> bool:
        check_decision_leaves(state, leaves)

        def write() -> bool:
            known = self.disk.decision_logs.get(origin)
            kept = self.disk.decision_leaves.setdefault(origin, {})
            if (known.size if known else None) != old_size or any(leaf.tid in kept for leaf in leaves):
                return False
            self.disk.decision_logs[origin] = state
            kept.update((leaf.tid, leaf) for leaf in leaves)
            return True

        return self._write(write)

    async def decision_leaves(self, origin: str, start: int, limit: int) -> list[DecisionLeaf]:
        kept = self._read().decision_leaves.get(origin, {})
        found = [leaf for leaf in kept.values() if leaf.number >= start]
        return sorted(found, key=lambda leaf: leaf.number)[: min(limit, READ_MAX_ROWS)]

    async def decision_leaf(self, origin: str, tid: bytes) -> DecisionLeaf | None:
        return self._read().decision_leaves.get(origin, {}).get(tid)

    async def fork_put(self, proof: ForkProof) -> None:
        self._write(lambda: None if proof in self.disk.forks else self.disk.forks.append(proof))

    async def forks(self) -> list[ForkProof]:
        return list(self._read().forks)

    # Messages.

    async def outbox(self, limit: int, after: int = OUTBOX_NO_AFTER, *, peer: str | None = None) -> list[QueuedMessage]:
        queued = [m for m in self._read().outbox.values() if m.sequence > after and peer in {None, m.peer}]
        return queued[: min(limit, READ_MAX_ROWS)]

    async def outbox_add(self, messages: Sequence[OutboxMessage]) -> None:
        check_messages(messages)
        self._write(lambda: self.disk.promise(messages))

    async def outbox_remove(self, sequences: Sequence[int]) -> None:
        self._write(lambda: [self.disk.outbox.pop(sequence, None) for sequence in sequences])

    async def seen(self, peer: str, key: bytes) -> bool:
        return (peer, key) in self._read().inbox

    async def inbox_forget(self, before_ms: int) -> int:
        return self._write(lambda: _drop(self.disk.inbox, lambda _key, seen_at_ms: seen_at_ms < before_ms))

    async def meta_get(self, key: str) -> bytes | None:
        return self._read().meta.get(key)

    async def meta_put(self, key: str, value: bytes | None) -> None:
        if value is not None and len(value) > META_MAX_BYTES:
            raise StoreLimit("meta_bytes", META_MAX_BYTES)
        self._write(lambda: self.disk.set_meta(key, value))

    # Outside the log.

    async def draft_put(self, draft: Draft) -> None:
        if len(draft.content) > DRAFT_MAX_BYTES:
            raise StoreLimit("draft_bytes", DRAFT_MAX_BYTES)
        if len({*self.disk.drafts, draft.draft_id}) > DRAFT_MAX_COUNT:
            raise StoreLimit("draft_count", DRAFT_MAX_COUNT)
        self._write(lambda: self.disk.drafts.update({draft.draft_id: draft}))

    async def draft_get(self, draft_id: bytes) -> Draft | None:
        return self._read().drafts.get(draft_id)

    async def draft_list(self, limit: int, after: bytes = b"") -> list[Draft]:
        ids = sorted(self._read().drafts)
        first = bisect.bisect_right(ids, after)
        return [self.disk.drafts[one] for one in ids[first : first + min(limit, READ_MAX_ROWS)]]

    async def draft_delete(self, draft_id: bytes) -> bool:
        return self._write(lambda: self.disk.drafts.pop(draft_id, None) is not None)

    async def drafts_expire(self, now_ms: int) -> int:
        return self._write(lambda: _drop(self.disk.drafts, lambda _key, draft: draft.expires_at_ms <= now_ms))

    async def quarantine_put(self, entry: Quarantined) -> None:
        self._write(lambda: self.disk.quarantine.setdefault(entry.entry_hash, entry))

    async def quarantined(self, entry_hash: bytes) -> Quarantined | None:
        return self._read().quarantine.get(entry_hash)

    async def quarantine_list(self) -> list[Quarantined]:
        return list(self._read().quarantine.values())


Key = TypeVar("Key")
Kept = TypeVar("Kept")


def _drop(kept: dict[Key, Kept], is_old: Callable[[Key, Kept], bool]) -> int:
    old = [key for key, value in kept.items() if is_old(key, value)]
    for key in old:
        del kept[key]
    return len(old)
