# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the SQL stores share: every call of the port except its life, `commit` and `backup`.

An adapter gives two primitives: `_fetch` (one read) and `_write` (statements in one fenced, durable transaction).
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, TypeAlias

from ecot_node.store import schema
from ecot_node.store.errors import StoreLimit, StoreMisuse
from ecot_node.store.port import (
    DRAFT_MAX_BYTES,
    DRAFT_MAX_COUNT,
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
    OutboxMessage,
    Quarantined,
    QueuedMessage,
    RecordRow,
    StoredEntry,
    WitnessState,
    check_decision_leaves,
    check_messages,
)

Value: TypeAlias = int | str | bytes | None
Statement: TypeAlias = tuple[str, tuple[Value, ...]]
Rows: TypeAlias = Sequence[Sequence[Any]]  # columns come from the database: typed where each row becomes a record


def edge_changes(old: Mapping[int, bytes], new: Mapping[int, bytes]) -> dict[int, bytes]:
    """Return the levels above 0 to write: an edge of level n changes once in 256**n records, so most commits none.

    >>> edge_changes({0: b"a", 1: b"b", 2: b"c"}, {0: b"x", 1: b"y"})
    {1: b'y', 2: b''}
    """
    levels = sorted(level for level in {*old, *new} if level > 0)
    return {level: new.get(level, b"") for level in levels if old.get(level, b"") != new.get(level, b"")}


def side_statements(group: CommitGroup) -> list[Statement]:
    """Return the statements of a group beside its records, attachments and tree: messages and small values."""
    statements: list[Statement] = [(schema.OUTBOX_ADD, (m.peer, m.key, m.payload)) for m in group.outbox_add]
    statements += [(schema.OUTBOX_REMOVE, (sequence,)) for sequence in group.outbox_remove]
    statements += [(schema.INBOX_ADD, (m.peer, m.key, m.seen_at_ms)) for m in group.inbox_add]
    return statements + [_meta_statement(key, value) for key, value in group.meta.items()]


def _meta_statement(key: str, value: bytes | None) -> Statement:
    return (schema.META_DELETE, (key,)) if value is None else (schema.META_PUT, (key, value))


class SqlStore:
    """The port over `_fetch` and `_write`."""

    def __init__(self) -> None:
        self._draft_lock = asyncio.Lock()

    async def _fetch(self, sql: str, *values: Value) -> Rows:
        """Run one read and return all its rows."""
        raise NotImplementedError

    async def _write(self, *statements: Statement) -> list[int]:
        """Run statements in one fenced, durable transaction; return the rows that each changed."""
        raise NotImplementedError

    async def _scrub(self) -> None:
        """After an erasure: drop what the database still keeps of deleted rows, as far as it can."""
        raise NotImplementedError

    # The log.

    async def records(self, start: int, limit: int) -> list[RecordRow]:
        rows = await self._fetch(schema.RECORDS_FROM, start, min(limit, READ_MAX_ROWS))
        return [RecordRow(*row) for row in rows]

    async def replay(self, start: int = 0, *, batch: int = REPLAY_BATCH) -> AsyncIterator[list[RecordRow]]:
        # One short read a batch, instead of one cursor: a read that stays open for minutes would keep SQLite's WAL
        # from being checkpointed, and PostgreSQL from vacuuming.
        while rows := await self.records(start, batch):
            yield rows
            start = rows[-1].index + 1

    async def record(self, index: int) -> RecordRow | None:
        rows = await self._fetch(schema.RECORD_AT, index)
        return RecordRow(*rows[0]) if rows else None

    async def find_entry(self, entry_id: bytes) -> StoredEntry | None:
        rows = await self._fetch(schema.ENTRY_BY_ID, entry_id)
        return StoredEntry(*rows[0]) if rows else None

    async def tile(self, level: int, index: int) -> bytes | None:
        rows = await self._fetch(schema.TILE, level, index)
        return rows[0][0] if rows else None

    async def leaf_hashes(self, start: int, count: int) -> bytes:
        return b"".join([row[0] for row in await self._fetch(schema.LEAF_HASHES, start, count)])

    async def attachments(self, index: int) -> list[AttachmentRow]:
        return await self.attachments_many(index, 1)

    async def attachments_many(self, start: int, limit: int) -> list[AttachmentRow]:
        end = start + min(limit, READ_MAX_ROWS)
        return [AttachmentRow(*row) for row in await self._fetch(schema.ATTACHMENTS_BETWEEN, start, end)]

    async def erase_attachments(self, index: int, positions: Sequence[int], *, erased_at_ms: int, ground: str) -> int:
        chosen = sorted(set(positions))
        erase: list[Statement] = [(schema.ATTACHMENT_ERASE, (index, position)) for position in chosen]
        remember: list[Statement] = [(schema.ERASURE_ADD, (index, p, erased_at_ms, ground)) for p in chosen]
        counts = await self._write(*erase, *remember)
        await self._scrub()
        return sum(counts[: len(erase)])

    async def erasures(self) -> list[Erasure]:
        return [Erasure(*row) for row in await self._fetch(schema.ERASURES)]

    # Checkpoints, witness.

    async def checkpoint(self, size: int | None = None) -> Checkpoint | None:
        if size is None:
            rows = await self._fetch(schema.CHECKPOINT_NEWEST)
        else:
            rows = await self._fetch(schema.CHECKPOINT_OF_SIZE, size)
        return Checkpoint(*rows[0]) if rows else None

    async def checkpoint_keep(self, size: int, note: bytes) -> None:
        await self._write((schema.CHECKPOINT_KEEP, (size, note)))

    async def checkpoints_forget(self, below_size: int) -> int:
        counts = await self._write(
            (schema.COSIGNATURES_FORGET, (below_size,)), (schema.CHECKPOINTS_FORGET, (below_size,))
        )
        return counts[1]

    async def cosignatures_put(self, size: int, witness_name: str, line: bytes) -> None:
        counts = await self._write(
            (schema.CHECKPOINT_KEEP_HEAD, (size,)), (schema.COSIGNATURE_PUT, (size, witness_name, line))
        )
        if not counts[1]:
            raise StoreMisuse(f"no checkpoint of size {size} is kept: call checkpoint_keep before it leaves the house")

    async def cosignatures(self, size: int) -> tuple[Cosignature, ...]:
        return tuple(Cosignature(*row) for row in await self._fetch(schema.COSIGNATURES, size))

    async def newest_cosigned(self, at_least: int = 1) -> CosignedCheckpoint | None:
        rows = await self._fetch(schema.COSIGNED_NEWEST, at_least)
        if not rows:
            return None
        size, note = rows[0]
        return CosignedCheckpoint(size=size, note=note, cosignatures=await self.cosignatures(size))

    async def cosigned(self, above: int, limit: int) -> list[CosignedCheckpoint]:
        found: dict[int, tuple[bytes, list[Cosignature]]] = {}
        for size, note, witness, line in await self._fetch(schema.COSIGNED, above, min(limit, READ_MAX_ROWS)):
            found.setdefault(size, (note, []))[1].append(Cosignature(witness, line))
        return [
            CosignedCheckpoint(size=size, note=note, cosignatures=tuple(lines)) for size, (note, lines) in found.items()
        ]

    async def witness_get(self, origin: str) -> WitnessState | None:
        rows = await self._fetch(schema.WITNESSED, origin)
        return WitnessState(*rows[0]) if rows else None

    async def witness_put(self, origin: str, *, old_size: int | None, state: WitnessState) -> bool:
        values = (origin, state.size, state.root, state.note)
        if old_size is None:
            counts = await self._write((schema.WITNESSED_ADD, values))
        else:
            counts = await self._write((schema.WITNESSED_SWAP, (*values, old_size)))
        return counts[0] == 1

    async def decision_log(self, origin: str) -> DecisionLogState | None:
        rows = await self._fetch(schema.DECISION_LOG, origin)
        return DecisionLogState(*rows[0]) if rows else None

    async def decision_log_put(
        self, origin: str, *, old_size: int | None, state: DecisionLogState, leaves: Sequence[DecisionLeaf]
    ) -> bool:
        check_decision_leaves(state, leaves)
        for leaf in leaves:  # the swap below sees to it that none comes in between
            if await self.decision_leaf(origin, leaf.tid) is not None:
                return False
        values: tuple[Value, ...] = (origin, state.size, state.frontier, state.note)
        if old_size is None:
            first: Statement = (schema.DECISION_LOG_ADD, values)
        else:
            first = (schema.DECISION_LOG_SWAP, (*values, old_size))
        counts = await self._write(
            first,
            *[
                (schema.DECISION_LEAF_ADD, (origin, one.number, one.tid, one.outcome, state.size, state.frontier))
                for one in leaves
            ],
        )
        return counts[0] == 1

    async def decision_leaves(self, origin: str, start: int, limit: int) -> list[DecisionLeaf]:
        rows = await self._fetch(schema.DECISION_LEAVES, origin, start, min(limit, READ_MAX_ROWS))
        return [DecisionLeaf(*row) for row in rows]

    async def decision_leaf(self, origin: str, tid: bytes) -> DecisionLeaf | None:
        rows = await self._fetch(schema.DECISION_LEAF_OF, origin, tid)
        return DecisionLeaf(*rows[0]) if rows else None

    async def fork_put(self, proof: ForkProof) -> None:
        parts = (proof.first_note, proof.second_note, proof.proof)
        digest = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).digest()
        await self._write((schema.FORK_ADD, (digest, proof.origin, *parts)))

    async def forks(self) -> list[ForkProof]:
        return [ForkProof(*row) for row in await self._fetch(schema.FORKS)]

    # Messages.

    async def outbox(self, limit: int, after: int = OUTBOX_NO_AFTER, *, peer: str | None = None) -> list[QueuedMessage]:
        count = min(limit, READ_MAX_ROWS)
        if peer is None:
            rows = await self._fetch(schema.OUTBOX, after, count)
        else:
            rows = await self._fetch(schema.OUTBOX_OF_PEER, after, count, peer)
        return [QueuedMessage(*row) for row in rows]

    async def outbox_add(self, messages: Sequence[OutboxMessage]) -> None:
        check_messages(messages)
        await self._write(*[(schema.OUTBOX_ADD, (m.peer, m.key, m.payload)) for m in messages])

    async def outbox_remove(self, sequences: Sequence[int]) -> None:
        await self._write(*[(schema.OUTBOX_REMOVE, (sequence,)) for sequence in sequences])

    async def seen(self, peer: str, key: bytes) -> bool:
        return bool(await self._fetch(schema.INBOX_SEEN, peer, key))

    async def inbox_forget(self, before_ms: int) -> int:
        return (await self._write((schema.INBOX_FORGET, (before_ms,))))[0]

    async def meta_get(self, key: str) -> bytes | None:
        rows = await self._fetch(schema.META, key)
        return rows[0][0] if rows else None

    async def meta_put(self, key: str, value: bytes | None) -> None:
        if value is not None and len(value) > META_MAX_BYTES:
            raise StoreLimit("meta_bytes", META_MAX_BYTES)
        await self._write(_meta_statement(key, value))

    # Outside the log.

    async def draft_put(self, draft: Draft) -> None:
        if len(draft.content) > DRAFT_MAX_BYTES:
            raise StoreLimit("draft_bytes", DRAFT_MAX_BYTES)
        async with self._draft_lock:  # or two callers would both take the last free place
            if (await self._fetch(schema.DRAFTS_OTHER_COUNT, draft.draft_id))[0][0] >= DRAFT_MAX_COUNT:
                raise StoreLimit("draft_count", DRAFT_MAX_COUNT)
            await self._write((schema.DRAFT_PUT, (draft.draft_id, draft.expires_at_ms, draft.content)))

    async def draft_get(self, draft_id: bytes) -> Draft | None:
        rows = await self._fetch(schema.DRAFT, draft_id)
        return Draft(*rows[0]) if rows else None

    async def draft_list(self, limit: int, after: bytes = b"") -> list[Draft]:
        rows = await self._fetch(schema.DRAFTS_AFTER, after, min(limit, READ_MAX_ROWS))
        return [Draft(*row) for row in rows]

    async def draft_delete(self, draft_id: bytes) -> bool:
        return (await self._write((schema.DRAFT_DELETE, (draft_id,))))[0] == 1

    async def drafts_expire(self, now_ms: int) -> int:
        return (await self._write((schema.DRAFTS_EXPIRE, (now_ms,))))[0]

    async def quarantine_put(self, entry: Quarantined) -> None:
        await self._write((schema.QUARANTINE_ADD, (entry.entry_hash, entry.body, entry.error)))

    async def quarantined(self, entry_hash: bytes) -> Quarantined | None:
        rows = await self._fetch(schema.QUARANTINED, entry_hash)
        return Quarantined(*rows[0]) if rows else None

    async def quarantine_list(self) -> list[Quarantined]:
        return [Quarantined(*row) for row in await self._fetch(schema.QUARANTINE)]
