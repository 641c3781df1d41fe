# SPDX-License-Identifier: AGPL-3.0-or-later
"""The store on SQLite: `log.db` in the data folder, for a ledger on one machine.

- WAL with ``synchronous=FULL``: a commit returns after `fdatasync`. At groups of 100 that costs a tenth of the speed.
- One thread owns the connection that writes (`writer_thread`); reads go through a few `aiosqlite` connections.
- Files, threads and the lock are asked of a `SqliteHost`.
- Opening writes what the WAL holds into the database and empties it, before anything is read. After a sync that failed,
  Linux takes the pages for clean: a WAL that the next process reads from the system's cache may have a hole on disk, no
  later sync mends it, and at a power loss SQLite would drop, without a word, every commit behind the hole.
- ``secure_delete``: what is deleted is overwritten with zeros; after an erasure the WAL is emptied too.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Final

import sqlalchemy as sa
import structlog

from ecot_node.store import backup, schema
from ecot_node.store.errors import (
    StoreError,
    StoreFailed,
    StoreFenced,
    StoreMisuse,
    StoreOtherLedger,
    StoreReadOnly,
    StoreTooNew,
)
from ecot_node.store.migrations import migrate
from ecot_node.store.port import CommitGroup, OpenedLog, check_group, edge_width
from ecot_node.store.sql_store import Rows, SqlStore, Statement, Value, edge_changes, side_statements
from ecot_node.store.sqlite_host import Lock, Reader, SqliteHost, Writes
from ecot_node.store.writer_thread import store_error

FILE_NAME: Final = "log.db"
"""Name of the log's file in the data folder."""
READERS: Final = 3
"""Connections that read at the same time."""

_log = structlog.get_logger("ecot_node.store")


class SqliteStore(SqlStore):
    """The port on `folder`/log.db.

    Args:
        folder: the node's data folder; made with mode 0700 if it is missing.
        host: the machine; None for the one that this is.
    """

    def __init__(self, folder: Path, host: SqliteHost | None = None) -> None:
        super().__init__()
        self._folder = folder
        self._path = folder / FILE_NAME
        self._host = host or SqliteHost()
        self._lock: Lock | None = None
        self._writer: Writes | None = None
        self._readers: list[Reader] = []
        self._free: asyncio.LifoQueue[Reader] = asyncio.LifoQueue()
        self._epoch = 0
        self._size = 0  # of the last group submitted, which may not be durable yet
        self._edge: Mapping[int, bytes] = {}

    # Life.

    async def open(self, *, ledger: bytes | None, read_only: bool = False) -> OpenedLog:
        if self._readers:
            raise StoreMisuse("the store is open")
        try:
            return await (self._open_to_read(ledger) if read_only else self._open_to_write(ledger))
        except BaseException:
            await self.close()
            raise

    async def _open_to_read(self, ledger: bytes | None) -> OpenedLog:
        if not self._host.exists(self._path):
            raise StoreFailed(f"{self._path} does not exist")
        connection = await self._host.run(lambda: _connect(self._host, self._path))
        try:
            _require_schema(connection)
            opened = _opened(connection)
        except sqlite3.Error as error:
            raise store_error(error) from error
        finally:
            connection.close()
        _require_ledger(opened, ledger)
        await self._start_readers()
        return opened

    async def _open_to_write(self, ledger: bytes | None) -> OpenedLog:
        self._lock = self._host.lock(self._folder)
        return await self._begin(ledger, None)

    async def _begin(self, ledger: bytes | None, epoch: int | None) -> OpenedLog:
        writer = self._host.write_through(await self._host.run(lambda: _prepare(self._host, self._path)))
        try:
            opened = await writer.submit(lambda connection: _take_over(connection, ledger, epoch))
        except BaseException:
            await writer.stop()
            raise
        # Only now: a small write that came in before would carry the old epoch, and be taken for a fenced one.
        self._epoch, self._size, self._edge, self._writer = opened.epoch, opened.size, opened.edge, writer
        await self._start_readers()
        return opened

    async def reopen(self) -> OpenedLog:
        if self._lock is None:
            raise StoreMisuse("the store is not open for writing")
        await self._disconnect()
        try:
            return await self._begin(None, self._epoch)
        except BaseException:
            await self._disconnect()
            raise

    def failure(self) -> StoreError | None:
        return self._writer.failure if self._writer is not None else None

    async def close(self) -> None:
        await self._disconnect()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    async def _disconnect(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            await writer.stop()
        readers, self._readers, self._free = self._readers, [], asyncio.LifoQueue()
        for reader in readers:
            await reader.close()

    async def _start_readers(self) -> None:
        for _ in range(READERS):
            try:
                reader = await self._host.open_reader(self._path)
            except sqlite3.Error as error:
                raise store_error(error) from error
            self._readers.append(reader)
            self._free.put_nowait(reader)

    # Writing.

    async def commit(self, group: CommitGroup) -> None:
        writer = self._require_writer()
        check_group(group, size=self._size)
        size, epoch, changes = self._size, self._epoch, edge_changes(self._edge, group.edge) if group.records else {}
        if group.records:
            self._size, self._edge = group.size, group.edge
        await writer.submit(lambda connection: _commit(connection, group, (epoch, size), changes))

    async def _write(self, *statements: Statement) -> list[int]:
        epoch = self._epoch
        return await self._require_writer().submit(lambda connection: _execute(connection, epoch, statements))

    async def _scrub(self) -> None:
        await self._require_writer().submit(_empty_wal)

    def _require_writer(self) -> Writes:
        if self._writer is None:
            if self._lock is None and self._readers:
                raise StoreReadOnly("the store was opened for reading")
            raise StoreFailed("the store is closed")
        return self._writer

    # Reading.

    async def _fetch(self, sql: str, *values: Value) -> Rows:
        try:
            async with self._reader() as reader:
                return list(await reader.execute_fetchall(sql, values))
        except sqlite3.Error as error:
            raise store_error(error) from error

    @contextlib.asynccontextmanager
    async def _reader(self) -> AsyncIterator[Reader]:
        if not self._readers:
            raise StoreFailed("the store is closed")
        free = self._free
        reader = await free.get()
        try:
            yield reader
        finally:
            free.put_nowait(reader)

    async def backup(self, path: Path) -> None:
        """Write a backup file (see `store.backup` for its form) while the store goes on."""
        if not self._readers:
            raise StoreFailed("the store is closed")
        await asyncio.to_thread(backup.write_backup, self._path, path)


# What runs on the writer's thread.


def _connect(host: SqliteHost, path: Path) -> sqlite3.Connection:
    try:
        return host.connect(path)
    except sqlite3.Error as error:
        raise store_error(error) from error


def _prepare(host: SqliteHost, path: Path) -> sqlite3.Connection:
    """Connect for writing, with the schema brought up to date."""
    host.make(path)
    connection = _connect(host, path)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA fullfsync = ON")  # macOS: fsync alone stops at the drive's cache there
        connection.execute("PRAGMA secure_delete = ON")
        _empty_wal(connection)  # see the module: what an earlier process could not sync must not be built upon
        found = _schema_version(connection)
        if found < schema.SCHEMA_VERSION:
            _migrate(host, path, found)
    except sqlite3.Error as error:
        connection.close()
        raise store_error(error) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _schema_version(connection: sqlite3.Connection) -> int:
    """Return the store's schema number, 0 if it is empty.

    Raises:
        StoreTooNew.
    """
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone():
        return 0
    row = connection.execute(schema.VERSION_OF_STORE).fetchone()
    found = int(row[0]) if row else 0
    if found > schema.SCHEMA_VERSION:
        raise StoreTooNew(found, schema.SCHEMA_VERSION)
    return found


def _require_schema(connection: sqlite3.Connection) -> None:
    found = _schema_version(connection)
    if found < schema.SCHEMA_VERSION:
        raise StoreFailed(f"the store has schema {found}: start the node once, it migrates to {schema.SCHEMA_VERSION}")


def _migrate(host: SqliteHost, path: Path, found: int) -> None:
    engine = sa.create_engine("sqlite://", creator=lambda: _connect(host, path), poolclass=sa.pool.NullPool)
    # Python's sqlite3 opens no transaction before DDL; without this, half a migration could stay.
    sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    with engine.begin() as connection:
        migrate(connection, found=found, wanted=schema.SCHEMA_VERSION)


def _opened(connection: sqlite3.Connection) -> OpenedLog:
    ledger, size, note, epoch = connection.execute(schema.HEAD).fetchone()
    edge = {level: hashes for level, hashes in connection.execute(schema.EDGES) if hashes}
    width = edge_width(size, 0)
    if width:
        # Where records are missing it is too short, and whoever checks the tree names the first that is not there.
        edge[0] = b"".join(row[0] for row in connection.execute(schema.LEAF_HASHES, (size - width, width)))
    return OpenedLog(ledger=ledger, size=size, edge=dict(sorted(edge.items())), checkpoint=note, epoch=epoch)


def _require_ledger(opened: OpenedLog, ledger: bytes | None) -> None:
    if ledger is not None and opened.ledger is not None and ledger != opened.ledger:
        raise StoreOtherLedger(ledger, opened.ledger)


def _take_over(connection: sqlite3.Connection, ledger: bytes | None, epoch: int | None) -> OpenedLog:
    """Raise the epoch (which must still be `epoch`, if given), and say what the store holds."""
    with _transaction(connection):
        found = _opened(connection)
        if epoch is not None and found.epoch != epoch:
            raise StoreFenced(epoch, found.epoch)
        _require_ledger(found, ledger)
        connection.execute(schema.HEAD_OPEN, (ledger,))
        return _opened(connection)


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _commit(
    connection: sqlite3.Connection, group: CommitGroup, fence: tuple[int, int], edges: Mapping[int, bytes]
) -> None:
    epoch, size = fence
    with _transaction(connection):
        if connection.execute(schema.HEAD_ADVANCE, (group.size, group.checkpoint, epoch, size)).rowcount != 1:
            raise _lost(connection, epoch, size)
        connection.executemany(
            schema.RECORD_ADD, [(r.index, r.entry_id, r.received_at_ms, r.record, r.leaf_hash) for r in group.records]
        )
        if group.attachments:
            connection.executemany(
                schema.ATTACHMENT_ADD,
                [(a.index, a.position, a.class_name, a.salt, a.content) for a in group.attachments],
            )
        for tile in group.tiles:
            connection.execute(schema.TILE_ADD, (tile.level, tile.index, tile.hashes))
        for level, hashes in edges.items():
            connection.execute(schema.EDGE_PUT, (level, hashes))
        for sql, values in side_statements(group):
            connection.execute(sql, values)


def _empty_wal(connection: sqlite3.Connection) -> None:
    # All rows must be fetched, or the statement stays open and the next commit is refused.
    ((busy, _, _),) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    if busy:
        _log.warning("store_wal_not_emptied", why="a long read, such as a backup; the next checkpoint overwrites it")


def _lost(connection: sqlite3.Connection, epoch: int, size: int) -> StoreError:
    _, found_size, _, found_epoch = connection.execute(schema.HEAD).fetchone()
    if found_epoch != epoch:
        return StoreFenced(epoch, found_epoch)
    return StoreFailed(f"the log has {found_size} records, expected {size}")


def _execute(connection: sqlite3.Connection, epoch: int, statements: tuple[Statement, ...]) -> list[int]:
    with _transaction(connection):
        (found,) = connection.execute(schema.EPOCH).fetchone()
        if found != epoch:
            raise StoreFenced(epoch, found)
        return [connection.execute(sql, values).rowcount for sql, values in statements]
