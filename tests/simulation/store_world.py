# SPDX-License-Identifier: AGPL-3.0-or-later
"""Histories of the SQLite store alone: groups are appended, small values written, the process and the machine die.

The model is the store in memory, to which the same writes are made one after the other. After each death, and after
each reopening, the store must hold what the model held after some number of writes: at least those that were
acknowledged, at most those that were asked for, none of them in part and none out of order.
"""

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable
from typing import Any

import sim_vfs
from sim_disk import Disk, Fault
from sim_loop import Process, run, virtual_loop
from sim_store import SimHost, make_store, seed_sqlite

from ecot_node.ledger.boot import check_tree
from ecot_node.store.errors import StoreError
from ecot_node.store.memory import MemoryStore
from ecot_node.store.port import (
    AttachmentRow,
    CommitGroup,
    ForkProof,
    InboxMark,
    LogStore,
    OpenedLog,
    OutboxMessage,
    Quarantined,
    RecordRow,
    TileRow,
    WitnessState,
)
from ecot_node.store.sqlite import SqliteStore
from ecot_protocol.wire.checkpoint import Checkpoint, sign_checkpoint
from ecot_protocol.wire.entry import leaf_data
from ecot_protocol.wire.merkle import GroupTree, TileEdge, leaf_hash
from ecot_protocol.wire.note import NoteSigner

LEDGER = b"\x0c" * 32
ORIGIN = "store.example/ecot/0c0c0c0c0c0c0c0c"
LOG_KEY = NoteSigner(ORIGIN, bytes(range(32)))
KEYS = ("alpha", "beta", "gamma")
KEPT_SIZES = (1_000_001, 1_000_002, 1_000_003)
"""Of checkpoints that are kept; larger than any log here, so that what is seen is what was kept."""
Write = Callable[[LogStore], Awaitable[object]]


class Model:
    """What the store must hold: the writes so far, and a store in memory that has done them."""

    def __init__(self) -> None:
        self.writes: list[Write] = []
        self.dumps: list[str] = []
        self.acknowledged = 0

    async def begin(self) -> None:
        self.store = MemoryStore()
        await self.store.open(ledger=LEDGER)
        self.dumps, self.sizes = [await dump(self.store)], [0]

    async def add(self, write: Write) -> None:
        await write(self.store)
        self.writes.append(write)
        self.dumps.append(await dump(self.store))
        self.sizes.append(len(self.store.disk.records))

    async def settle(self, found: str) -> int:
        """Take the store for what it holds; returns how many writes that is.

        Raises:
            AssertionError: it holds what it must not.
        """
        if found == self.dumps[-1]:
            self.acknowledged = len(self.writes)
            return self.acknowledged
        possible = [count for count, one in enumerate(self.dumps) if one == found]
        assert possible, "the store holds what no number of whole writes leaves"
        count = possible[-1]
        assert count >= self.acknowledged, f"{self.acknowledged} writes were acknowledged, {count} are left"
        writes, self.writes = self.writes[:count], []
        await self.begin()
        for write in writes:
            await self.add(write)
        self.acknowledged = count
        return count


async def dump(store: LogStore) -> str:
    """Return a digest of all that the port shows, but for epochs and sequence numbers."""
    records = [row async for batch in store.replay() for row in batch]
    size = len(records)
    newest = await store.checkpoint()
    tiles = [await store.tile(level, 0) for level in (0, 1)]
    held: list[Any] = [
        records,
        await store.attachments_many(0, size),
        await store.erasures(),
        tiles,
        newest,
        [await store.checkpoint(one) for one in KEPT_SIZES],
        [await store.witness_get(key) for key in KEYS],
        await store.forks(),
        [(one.peer, one.key, one.payload) for one in await store.outbox(10_000)],
        [await store.seen(key, key.encode()) for key in KEYS],
        [await store.meta_get(key) for key in KEYS],
        await store.quarantine_list(),
    ]
    return hashlib.sha256(repr(held).encode()).hexdigest()


FITS = {
    "error": ("delete", "make", "read", "sync", "truncate", "write"),
    "full": ("make", "truncate", "write"),
    "torn": ("write",),
    "forget": ("sync",),
    "power": ("delete", "make", "sync", "truncate", "write"),
}
"""Which operations a fault can hit."""


class Faults:
    """One fault, at the operation that it was planned for, of the kinds that fit.

    Args:
        at: operations until then.
        kind: see `Fault`.
        operation: what it hits; None: whatever comes first.
    """

    def __init__(self, at: int, kind: str, lasting: int = 1) -> None:
        self.at, self.kind, self.lasting = at, kind, lasting

    def __call__(self, disk: Disk, operation: str, name: str) -> Fault | None:
        self.at -= 1
        if self.at > 0 or self.lasting <= 0 or operation not in FITS[self.kind]:
            return None
        self.lasting -= 1
        return Fault(self.kind)


class StoreWorld:
    """One history.

    Args:
        seed_number: of the history.
        pragmas: see `SimHost`.
        early_answers: take a write for acknowledged as soon as it is asked for.
    """

    def __init__(self, seed_number: int, pragmas: tuple[str, ...] = (), early_answers: bool = False) -> None:
        self.seed_number = seed_number
        self.chance = random.Random(f"store {seed_number}")
        self.disk = Disk(random.Random(f"disk {seed_number}"))
        self.place = f"store-{seed_number}"
        self.pragmas = pragmas
        self.early_answers = early_answers
        self.model = Model()
        self.edge = TileEdge.empty()
        self.size = 0
        self.trace = hashlib.sha256()
        self.events: dict[str, int] = {}

    def run(self) -> "StoreWorld":
        sim_vfs.MISTAKES.clear()
        sim_vfs.mount(self.place, self.disk)
        self.disk.load(new_image())
        seed_sqlite(self.seed_number + 1)
        try:
            with virtual_loop(self.chance) as loop:
                self.loop = loop
                run(loop, self.live())
        finally:
            self.host.sweep()
            sim_vfs.unmount(self.place)
            seed_sqlite(0)
        assert not sim_vfs.MISTAKES, sim_vfs.MISTAKES
        return self

    def count(self, what: str) -> None:
        self.events[what] = self.events.get(what, 0) + 1
        self.trace.update(f"{what} {self.loop.time():.6f} {self.disk.operations}".encode())

    async def live(self) -> None:
        await self.model.begin()
        for _ in range(self.chance.randint(2, 5)):
            await self.one_life()
            self.host.sweep()
        self.disk.plan = None
        process, store = self.boot()
        await process.spawn(self.loop, self.open(store))
        await self.look(store)
        await process.spawn(self.loop, store.close())

    def boot(self) -> tuple[Process, SqliteStore]:
        self.process = Process(self.place)
        self.host = SimHost(self.place, self.chance, self.pragmas)
        self.disk.on_power_lost = self.process.end
        return self.process, make_store(self.host)

    async def one_life(self) -> None:
        """Boot, write, and die."""
        process, store = self.boot()
        kind = self.chance.choice(("power", "power", "power", "error", "error", "full", "torn", "forget", "none"))
        if kind != "none":
            lasting = self.chance.choice((1, 1, 1, 2, 5, 30)) if kind != "power" else 1
            self.disk.plan = Faults(self.chance.randint(1, 220), kind, lasting)
        life = process.spawn(self.loop, self.work(store), "life")
        await self.until_end(process, life)
        self.disk.plan = None
        if not process.is_alive:
            self.count("power_lost")
            self.disk.lose_power()
        elif life.exception() is not None:
            raise life.exception()  # type: ignore[misc]
        elif self.chance.random() < 0.5:
            self.count("killed")
            process.end()
            self.disk.kill()
        elif self.chance.random() < 0.5:
            process.end()
            self.count("power_lost_idle")
            self.disk.lose_power()
        else:
            self.count("closed")
            await process.spawn(self.loop, store.close())

    async def until_end(self, process: Process, life: "asyncio.Task[None]") -> None:
        if self.chance.random() < 0.3:  # it ends between two steps, with writes on their way
            end_s = self.loop.time() + self.chance.uniform(0.0, 0.6)
            self.loop.call_at(end_s, process.end)
        while process.is_alive and not life.done():  # noqa: ASYNC110  the end of a process tells nobody
            await asyncio.sleep(0.01)

    async def open(self, store: SqliteStore) -> None:
        opened = await store.open(ledger=LEDGER)
        await self.take(store, opened)

    async def take(self, store: SqliteStore, opened: OpenedLog) -> None:
        """Compare what was opened with the model, and go on from there."""
        count = await self.model.settle(await dump(store))
        self.edge = check_tree(opened, [LOG_KEY.verifier])
        self.size = opened.size
        records = self.model.store.disk.records
        assert self.edge.size == len(records)
        self.count(f"opened {count} {opened.size}")

    async def look(self, store: SqliteStore) -> None:
        assert await dump(store) == self.model.dumps[-1]

    async def work(self, store: SqliteStore) -> None:
        try:
            await self.open(store)
        except (StoreError, OSError) as error:
            self.count(f"not_opened {type(error).__name__}")
            await store.close()
            return
        for _ in range(self.chance.randint(1, 8)):
            answers = [await self.start_write(store) for _ in range(self.chance.choice((1, 1, 2, 5)))]
            if self.chance.random() < 0.3:
                await self.read(store)
            if not await self.hear(answers) and not await self.reopen(store):
                await store.close()
                return

    async def start_write(self, store: SqliteStore) -> "asyncio.Task[None]":
        """Ask for a write; the answer is a task, which is numbered as the model counts."""
        write = self.choose()
        await self.model.add(write)
        number = len(self.model.writes)

        async def answered() -> None:
            await write(store)
            self.model.acknowledged = max(self.model.acknowledged, number)

        if self.early_answers:
            self.model.acknowledged = max(self.model.acknowledged, number)
        task = asyncio.ensure_future(answered())
        await asyncio.sleep(0)  # the order of the writes is that of the calls
        await asyncio.sleep(0)
        return task

    async def hear(self, answers: list["asyncio.Task[None]"]) -> bool:
        results = await asyncio.gather(*answers, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                assert isinstance(result, StoreError), f"a write raised {result!r}"
                self.count(f"failed {type(result).__name__}")
        return not any(results)

    async def reopen(self, store: SqliteStore) -> bool:
        for _ in range(5):
            await asyncio.sleep(0.2)
            try:
                opened = await store.reopen()
                await self.take(store, opened)
            except (StoreError, OSError) as error:
                self.count(f"not_reopened {type(error).__name__}")
                continue
            self.count("reopened")
            return True
        return False

    async def read(self, store: SqliteStore) -> None:
        """A read sees whole groups that were asked for, and all that were acknowledged before it began."""
        before = self.model.acknowledged
        try:
            note = await store.checkpoint()
        except StoreError:
            return
        size = note.size if note is not None else 0
        assert size in self.model.sizes[before:], f"a read saw {size} records"

    @property
    def digest(self) -> str:
        """Return what two runs of one seed have in common: every event, and every byte written."""
        return hashlib.sha256(self.trace.digest() + self.disk.trace.digest()).hexdigest()

    # ------------------------------------------------------------------------------------------------- what is written

    def choose(self) -> Write:
        if self.chance.random() < 0.6:
            return self.group()
        key, value = self.chance.choice(KEYS), self.chance.randbytes(self.chance.choice((8, 40, 3_000)))
        match self.chance.randrange(6):
            case 0:
                return lambda store: store.meta_put(key, value)
            case 1:
                return lambda store: store.outbox_add([OutboxMessage(key, value[:8], value)])
            case 2:
                return lambda store: store.fork_put(ForkProof(key, value, value[:4], b""))
            case 3:
                return lambda store: store.quarantine_put(Quarantined(value[:8] * 4, value, key))
            case 4:
                size = self.chance.choice(KEPT_SIZES)
                note = b"note %d" % size
                return lambda store: store.checkpoint_keep(size, note)
            case _:
                return self.witness(key)

    def witness(self, key: str) -> Write:
        found = self.model.store.disk.witnessed.get(key)
        old = found.size if found is not None else None
        state = WitnessState((old or 0) + self.chance.randint(1, 9), self.chance.randbytes(32), b"note")
        return lambda store: store.witness_put(key, old_size=old, state=state)

    def group(self) -> Write:
        """Return the next group: records with their tree, as the writer makes them."""
        count = self.chance.choice((1, 1, 2, 3, 10, 60))
        start, end = self.size, self.size + count
        records = [self.chance.randbytes(self.chance.choice((60, 300, 300, 5_000))) for _ in range(count)]
        leaves = [leaf_hash(leaf_data(one)) for one in records]
        tree = GroupTree(self.edge.frontier(), leaves)
        full = self.edge.append_group(tree)
        checkpoint = sign_checkpoint(Checkpoint(ORIGIN, end, tree.root), LOG_KEY)
        rows = [
            RecordRow(start + i, self.chance.randbytes(16), start + i, one, leaf)
            for i, (one, leaf) in enumerate(zip(records, leaves, strict=True))
        ]
        key = self.chance.choice(KEYS)
        group = CommitGroup(
            size=end,
            records=rows,
            attachments=[AttachmentRow(start, 0, "memo", bytes(32), records[0][:20])],
            tiles=[TileRow(one.level, one.index, one.hashes) for one in full],
            edge=dict(self.edge.tiles()),
            checkpoint=checkpoint.format(),
            outbox_add=[OutboxMessage(key, rows[0].entry_id, b"told")],
            inbox_add=[InboxMark(key, key.encode(), start)],
        )
        self.size = end
        return lambda store: store.commit(group)


_images: dict[bytes | None, dict[str, bytes]] = {}


def new_image(ledger: bytes | None = LEDGER) -> dict[str, bytes]:
    """Return the files of an empty store, made once by the store itself."""
    if ledger not in _images:
        _images[ledger] = _make_image(ledger)
    return _images[ledger]


def _make_image(ledger: bytes | None) -> dict[str, bytes]:
    disk = Disk(random.Random(0))
    sim_vfs.mount("new", disk)
    host = SimHost("new", random.Random(0))
    seed_sqlite(1)

    async def make() -> None:
        store = make_store(host)
        await store.open(ledger=ledger)
        await store.close()

    with virtual_loop(random.Random(0)) as loop:
        run(loop, make())
    host.sweep()
    image = disk.image()
    sim_vfs.unmount("new")
    return image
