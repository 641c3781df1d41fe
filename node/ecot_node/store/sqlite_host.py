# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a SQLite store needs of the machine that it runs on: a folder with a lock, connections, and who does the work.

`SqliteHost` is the machine as it is: files of the operating system, threads. The simulator has another one, whose disk
loses power and whose threads are turns of a virtual clock, so that what it tries is the store itself.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import aiosqlite

from ecot_node.store.errors import StoreError
from ecot_node.store.folder_lock import FolderLock
from ecot_node.store.writer_thread import WriterThread

BUSY_TIMEOUT_S: Final = 5.0
"""How long a statement waits for another connection's lock (a checkpoint of the WAL, never another writer)."""

Result = TypeVar("Result")


class Lock(Protocol):
    """An exclusive lock that is held."""

    def release(self) -> None:
        """Give it back; a second call does nothing."""
        ...


class Writes(Protocol):
    """Who owns the connection that writes: see `WriterThread`, whose rules are the port's."""

    @property
    def failure(self) -> StoreError | None:
        """What the first write that failed ended with; None if none did."""
        ...

    def submit(self, work: Callable[[sqlite3.Connection], Result]) -> "asyncio.Future[Result]":
        """Do `work` after what was submitted before."""
        ...

    async def stop(self) -> None:
        """Finish what was submitted and close the connection."""
        ...


class Reader(Protocol):
    """A connection that reads."""

    async def execute_fetchall(self, sql: str, parameters: Iterable[Any] | None = None) -> Iterable[Any]:
        """Run one statement and return its rows."""
        ...

    async def close(self) -> None:
        """Close the connection."""
        ...


class SqliteHost:
    """The machine as it is."""

    def lock(self, folder: Path) -> Lock:
        """Make the data folder if it is missing, and take its lock.

        Raises:
            StoreInUse: another process holds it.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return FolderLock(folder)

    def exists(self, path: Path) -> bool:
        """Tell whether there is a file."""
        return path.exists()

    def make(self, path: Path) -> None:
        """Make an empty file for its owner alone, if there is none."""
        path.touch(mode=0o600)

    def uri(self, path: Path) -> str:
        """Return how SQLite is told of a file that is there."""
        # Not mode=ro: a reader of a WAL must be able to make its shared memory; `query_only` forbids the rest.
        return f"{path.absolute().as_uri()}?mode=rw"

    def connect(self, path: Path) -> sqlite3.Connection:
        """Open a connection that may be used by any one thread at a time.

        Raises:
            sqlite3.Error.
        """
        return sqlite3.connect(
            self.uri(path), uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )

    async def run(self, work: Callable[[], Result]) -> Result:
        """Do what may take a while, beside the loop."""
        return await asyncio.to_thread(work)

    def write_through(self, connection: sqlite3.Connection) -> Writes:
        """Hand the connection that writes over to its owner."""
        return WriterThread(connection)

    async def open_reader(self, path: Path) -> Reader:
        """Open a connection that can't write."""
        reader = aiosqlite.connect(self.uri(path), uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        # A thread that only reads must not keep a process alive that ends without `close` (as SQLAlchemy does).
        reader._thread.daemon = True  # noqa: SLF001
        opened = await reader
        try:
            await opened.execute("PRAGMA query_only = ON")
        except sqlite3.Error:
            await opened.close()
            raise
        return opened
