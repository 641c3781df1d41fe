# SPDX-License-Identifier: AGPL-3.0-or-later
"""The product's SQLite store on a simulated disk: its code and SQLite's are real, its files and threads are not.

What the writer's thread and the readers' do is done in turns of the virtual clock, in the order that the real ones
keep, each after a while: so anything may happen between a commit's submission and its answer.
"""

import _sqlite3
import asyncio
import contextlib
import ctypes
import random
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import sim_vfs
from sim_disk import Disk, DiskFailed
from sim_loop import PROCESS

from ecot_node.store.errors import StoreInUse
from ecot_node.store.sqlite import SqliteStore
from ecot_node.store.sqlite_host import BUSY_TIMEOUT_S, SqliteHost
from ecot_node.store.writer_thread import WriterThread, _answer

T = TypeVar("T")
PRNG_SEED = 28
"""`SQLITE_TESTCTRL_PRNG_SEED`."""


def seed_sqlite(number: int) -> None:
    """Let SQLite draw the same salts again; 0: the system's chance."""
    ctypes.CDLL(_sqlite3.__file__).sqlite3_test_control(PRNG_SEED, ctypes.c_int(number & 0x7FFFFFFF), None)


class SimLock:
    """A lock that goes with its process."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        holders: Any = disk.__dict__.setdefault("lock_holders", set())
        if disk.generation in holders:
            raise StoreInUse("the simulated disk", "another store")
        self._holders, self._generation = holders, disk.generation
        holders.add(disk.generation)

    def release(self) -> None:
        self._holders.discard(self._generation)


class SimHost(SqliteHost):
    """A simulated machine.

    Args:
        place: name under which its disk is mounted.
        chance: of how long things take.
        pragmas: run on each connection that can write, after the store's own; to try a store that is set up wrongly.
    """

    def __init__(self, place: str, chance: random.Random, pragmas: tuple[str, ...] = ()) -> None:
        self.place, self.chance, self.pragmas = place, chance, pragmas
        self.disk = sim_vfs.MOUNTS[place].disk
        self.connections: list[sqlite3.Connection] = []
        self.slow_probability = 0.01

    def delay_s(self) -> float:
        """Return how long the next piece of work takes."""
        if self.chance.random() < self.slow_probability:
            return self.chance.uniform(0.1, 3.0)
        return self.chance.uniform(0.0001, 0.01)

    def lock(self, folder: Path) -> SimLock:
        return SimLock(self.disk)

    def exists(self, path: Path) -> bool:
        return self.disk.exists(path.name)

    def make(self, path: Path) -> None:
        try:
            self.disk.make(path.name)
        except DiskFailed as error:
            raise OSError(error.code) from error

    def uri(self, path: Path) -> str:
        return sim_vfs.uri(self.place, path.name)

    def connect(self, path: Path) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.uri(path), uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        self.connections.append(connection)
        return connection

    async def run(self, work: Callable[[], T]) -> T:
        await asyncio.sleep(self.delay_s())
        return work()

    def write_through(self, connection: sqlite3.Connection) -> "SimWriter":
        for pragma in self.pragmas:
            connection.execute(pragma)
        return SimWriter(connection, self)

    async def open_reader(self, path: Path) -> "SimReader":
        await asyncio.sleep(self.delay_s())
        connection = self.connect(path)
        connection.execute("PRAGMA query_only = ON")
        return SimReader(connection, self)

    def sweep(self) -> None:
        """Close what nobody will ever use again."""
        for connection in self.connections:
            with contextlib.suppress(sqlite3.Error):
                connection.close()
        self.connections.clear()


class SimWriter(WriterThread):
    """The owner of the connection that writes; a turn of the clock instead of a thread."""

    def __init__(self, connection: sqlite3.Connection, host: SimHost) -> None:
        self._connection, self._host = connection, host
        self._loop = asyncio.get_running_loop()
        self._turns: deque[tuple[Callable[[sqlite3.Connection], Any], asyncio.Future[Any]]] = deque()
        self._broken = None
        self._is_busy = False
        self._idle: list[asyncio.Future[None]] = []

    def submit(self, work: Callable[[sqlite3.Connection], T]) -> "asyncio.Future[T]":
        future: asyncio.Future[T] = self._loop.create_future()
        self._turns.append((work, future))
        if not self._is_busy:
            self._is_busy = True
            self._loop.call_later(self._host.delay_s(), self._turn)
        return future

    def _turn(self) -> None:
        work, future = self._turns.popleft()
        result, error = self._do(work)
        process = PROCESS.get(None)
        if process is not None and not process.is_alive:
            return  # the power went while this was done: nobody hears of it
        _answer(future, result, error)
        if self._turns:
            self._loop.call_later(self._host.delay_s(), self._turn)
            return
        self._is_busy = False
        for waiting in self._idle:
            if not waiting.done():
                waiting.set_result(None)

    async def stop(self) -> None:
        while self._is_busy:
            waiting: asyncio.Future[None] = self._loop.create_future()
            self._idle.append(waiting)
            await waiting
        self._connection.close()


class SimReader:
    """A connection that reads; the answer comes a little later."""

    def __init__(self, connection: sqlite3.Connection, host: SimHost) -> None:
        self._connection, self._host = connection, host

    async def execute_fetchall(self, sql: str, parameters: Iterable[Any] | None = None) -> Iterable[Any]:
        await asyncio.sleep(self._host.delay_s() / 4)
        rows = self._connection.execute(sql, tuple(parameters or ())).fetchall()
        await asyncio.sleep(0)
        return rows

    async def close(self) -> None:
        await asyncio.sleep(0)
        self._connection.close()


def make_store(host: SimHost) -> SqliteStore:
    """Return the product's store on a simulated machine, closed."""
    return SqliteStore(Path("/") / host.place, host)
