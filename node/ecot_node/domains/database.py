# SPDX-License-Identifier: AGPL-3.0-or-later
"""`views.db`: the tables that lists, history and search are read from, and how they follow the ledger.

- One thread writes, through the connection of a `ViewsFile`; readers have connections of their own, that can't write.
- A rebuild fills `views.new.db` while readers stay on the old file; `swap` puts it in the place of the old one. If the
  process ends in between, what is missing is made again from the log: the views hold nothing of their own.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import URL
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from ecot_node.domains.registry import DOMAINS
from ecot_node.domains.rows import DomainViews
from ecot_node.domains.views_file import ViewsFile, remove
from ecot_node.ledger.port import RecordedEntry
from ecot_protocol.errors import LocalProtocolError

FILE_NAME: Final = "views.db"
REBUILD_NAME: Final = "views.new.db"
READERS: Final = 3
"""Connections that read at the same time; the fourth reader waits."""
READ_WAIT_S: Final = 5.0

R = TypeVar("R")


class ViewsDatabase:
    """The `Views` of the ledger and the `ViewsReads` of the routes, on SQLite.

    Args:
        folder: the node's data folder.
        domains: whose tables it has; the release's own by default.
    """

    def __init__(self, folder: Path, domains: Sequence[DomainViews] = DOMAINS) -> None:
        self._path: Final = folder / FILE_NAME
        self._rebuild_path: Final = folder / REBUILD_NAME
        self._domains: Final = tuple(domains)
        self._thread: ThreadPoolExecutor | None = None
        self._shown: ViewsFile | None = None
        self._rebuilt: ViewsFile | None = None
        self._engine: AsyncEngine | None = None
        self._may_read = asyncio.Event()

    async def open(self) -> None:
        """Open the file, or begin a new one where there is none that this release can use.

        Raises:
            LocalProtocolError: it is open.
            sqlite3.Error: the folder can't be written.
        """
        if self._thread is not None:
            raise LocalProtocolError("the views are open")
        self._thread = ThreadPoolExecutor(1, "ecot-views-writer")
        remove(self._rebuild_path)
        self._shown = await self._in_thread(lambda: ViewsFile(self._path, self._domains))
        self._start_reading()

    async def close(self) -> None:
        """Finish the write on its way and close everything; a second call does nothing."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._may_read.clear()
        if self._engine is not None:
            await self._engine.dispose()
            self._engine = None
        loop = asyncio.get_running_loop()
        for one in (self._shown, self._rebuilt):
            if one is not None:
                await loop.run_in_executor(thread, one.close)
        self._shown = self._rebuilt = None
        await asyncio.to_thread(thread.shutdown)

    # The ledger's side.

    async def position(self) -> int:
        return self._written.size

    async def apply(self, entries: Sequence[RecordedEntry]) -> None:
        written = self._written
        await self._in_thread(lambda: written.apply(entries))

    async def reset(self) -> None:
        if self._rebuilt is not None:
            await self._in_thread(self._rebuilt.close)
            self._rebuilt = None
        self._rebuilt = await self._in_thread(self._begin_rebuild)

    def _begin_rebuild(self) -> ViewsFile:
        remove(self._rebuild_path)
        return ViewsFile(self._rebuild_path, self._domains)

    async def swap(self) -> None:
        """Put the rebuilt tables in the place of the old ones; readers wait meanwhile.

        Raises:
            LocalProtocolError: no rebuild was begun.
        """
        old, new, engine = self._shown, self._rebuilt, self._engine
        if old is None or new is None or engine is None:
            raise LocalProtocolError("no rebuild was begun")
        self._may_read.clear()
        await engine.dispose()
        self._shown = self._rebuilt = None
        self._shown = await self._in_thread(lambda: self._replace(old, new))
        self._start_reading()

    def _replace(self, old: ViewsFile, new: ViewsFile) -> ViewsFile:
        new.close()
        old.close()
        # The old one goes with its write-ahead log before the new one takes the name: a log that outlived its file
        # would be played into the next.
        remove(self._path)
        self._rebuild_path.rename(self._path)
        return ViewsFile(self._path, self._domains)

    @property
    def _written(self) -> ViewsFile:
        written = self._rebuilt or self._shown
        if written is None:
            raise LocalProtocolError("the views are not open")
        return written

    async def _in_thread(self, work: Callable[[], R]) -> R:
        if self._thread is None:
            raise LocalProtocolError("the views are not open")
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    # The readers' side.

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[AsyncConnection]:
        """Borrow a connection that can't write; all its statements see one snapshot.

        Raises:
            TimeoutError: no connection was free in time.
        """
        async with asyncio.timeout(READ_WAIT_S):
            await self._may_read.wait()
        engine = self._engine
        assert engine is not None
        async with engine.connect() as connection:
            yield connection

    def _start_reading(self) -> None:
        url = URL.create("sqlite+aiosqlite", database=f"file:{self._path}", query={"mode": "ro", "uri": "true"})
        self._engine = create_async_engine(
            url,
            connect_args={"isolation_level": None},
            pool_size=READERS,
            max_overflow=0,
            pool_timeout=READ_WAIT_S,
        )
        # SQLite's driver begins no transaction for a SELECT; without one, each statement has a snapshot of its own.
        sa.event.listen(self._engine.sync_engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
        sa.event.listen(self._engine.sync_engine, "connect", _only_read)
        self._may_read.set()


def _only_read(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA query_only=ON")
    cursor.close()
