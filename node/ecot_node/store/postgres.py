# SPDX-License-Identifier: AGPL-3.0-or-later
"""The store on PostgreSQL: for a ledger that has outgrown one machine (architecture §9).

- One connection writes and holds a session's advisory lock; a pool reads. COPY brings in records and attachments.
- All tables live in one schema of the database, so that several ledgers can share a server.
- The lock goes with its connection; a node that lost it finds at its next commit that the epoch is no longer its own.
- What was erased leaves the tables at once and their pages at the vacuum that follows. The server's WAL archive and
  its replicas keep it as long as they are configured to: the operating guide says so.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

import asyncpg
import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import create_async_engine

from ecot_node.store import schema
from ecot_node.store.errors import (
    StoreError,
    StoreFailed,
    StoreFenced,
    StoreFull,
    StoreInUse,
    StoreMisuse,
    StoreOtherLedger,
    StoreReadOnly,
    StoreTooNew,
)
from ecot_node.store.migrations import migrate
from ecot_node.store.port import CommitGroup, OpenedLog, check_group, edge_width
from ecot_node.store.sql_store import Rows, SqlStore, Statement, Value, edge_changes, side_statements

Result = TypeVar("Result")
_Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

READERS: Final = 8
"""Most connections that read at the same time."""
COMMAND_TIMEOUT_S: Final = 60.0
"""After this a statement has failed; a commit that waits for a lost synchronous replica ends here, outcome unknown."""
CLOSE_TIMEOUT_S: Final = 5.0
"""How long a connection may take to say goodbye before it is dropped."""
LOCK_ATTEMPTS: Final = 20
"""How often `reopen` asks for the lock, `LOCK_PAUSE_S` apart, while the server notices that our old session is gone."""
LOCK_PAUSE_S: Final = 0.1
NAME_MAX_BYTES: Final = 63
"""Longest name of a schema in PostgreSQL."""

_log = structlog.get_logger("ecot_node.store")


def _dollar(sql: str) -> str:
    return sql.replace("?", "$")


class PostgresStore(SqlStore):
    """The port on a schema of a PostgreSQL database.

    Args:
        dsn: ``postgresql://user@host/database``; a password belongs into a `.pgpass` file.
        schema_name: made if it is missing; at most `NAME_MAX_BYTES`, lower-case letters, digits and ``_``.
    """

    def __init__(self, dsn: str, *, schema_name: str = "ecot") -> None:
        super().__init__()
        if not schema_name.isidentifier() or schema_name.lower() != schema_name or len(schema_name) > NAME_MAX_BYTES:
            raise StoreMisuse(f"{schema_name!r} is not a plain name of a schema")
        self._dsn = dsn
        self._schema = schema_name
        self._writer: _Connection | None = None
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._turn = asyncio.Lock()
        self._broken: StoreError | None = None
        self._writes = False
        self._epoch = 0
        self._size = 0
        self._edge: Mapping[int, bytes] = {}

    # Life.

    async def open(self, *, ledger: bytes | None, read_only: bool = False) -> OpenedLog:
        if self._pool is not None:
            raise StoreMisuse("the store is open")
        try:
            if read_only:
                return await self._open_to_read(ledger)
            self._writes = True
            return await self._open_to_write(ledger, epoch=None, attempts=1)
        except BaseException:
            await self.close()
            raise

    async def _open_to_read(self, ledger: bytes | None) -> OpenedLog:
        connection = await self._connect()
        try:
            found = await self._schema_version(connection)
            if found < schema.SCHEMA_VERSION:
                raise StoreFailed(f"the store has schema {found}: start the node once, it migrates")
            opened = await _opened(connection)
        finally:
            await connection.close()
        _require_ledger(opened, ledger)
        await self._start_pool()
        return opened

    async def _open_to_write(self, ledger: bytes | None, *, epoch: int | None, attempts: int) -> OpenedLog:
        self._writer = await self._connect()
        await self._take_lock(self._writer, attempts)
        await self._prepare(self._writer)
        opened = await _translated(_take_over(self._writer, ledger, epoch))
        self._epoch, self._size, self._edge, self._broken = opened.epoch, opened.size, opened.edge, None
        await self._start_pool()
        return opened

    async def reopen(self) -> OpenedLog:
        if not self._writes:
            raise StoreMisuse("the store is not open for writing")
        async with self._turn:
            await self._disconnect()
            try:
                return await self._open_to_write(None, epoch=self._epoch, attempts=LOCK_ATTEMPTS)
            except BaseException:
                await self._disconnect()
                raise

    def failure(self) -> StoreError | None:
        return self._broken

    async def close(self) -> None:
        async with self._turn:
            await self._disconnect()
            self._writes = False

    async def _disconnect(self) -> None:
        pool, self._pool = self._pool, None
        writer, self._writer = self._writer, None
        if pool is not None:
            pool.terminate()
        if writer is not None:
            with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
                await writer.close(timeout=CLOSE_TIMEOUT_S)

    async def _connect(self) -> _Connection:
        settings = {"search_path": self._schema, "application_name": "ecot-node"}
        return await _translated(
            asyncpg.connect(self._dsn, server_settings=settings, command_timeout=COMMAND_TIMEOUT_S)
        )

    async def _start_pool(self) -> None:
        settings = {"search_path": self._schema, "default_transaction_read_only": "on"}
        self._pool = await _translated(
            asyncpg.create_pool(
                self._dsn,
                min_size=1,
                max_size=READERS,
                server_settings=settings,
                command_timeout=COMMAND_TIMEOUT_S,
            )
        )

    async def _take_lock(self, connection: _Connection, attempts: int) -> None:
        number = int.from_bytes(hashlib.sha256(f"ecot/{self._schema}".encode()).digest()[:8], "big", signed=True)
        for attempt in range(attempts):
            if await connection.fetchval("SELECT pg_try_advisory_lock($1)", number):
                return
            if attempt + 1 < attempts:
                await asyncio.sleep(LOCK_PAUSE_S)
        raise StoreInUse(f"schema {self._schema!r} of the database", "another session")

    async def _prepare(self, connection: _Connection) -> None:
        if await connection.fetchval("SHOW synchronous_commit") == "off":
            await connection.execute("SET synchronous_commit = on")  # acknowledged means durable, whatever the server's
        if await connection.fetchval("SHOW fsync") == "off":
            _log.warning("store_not_durable", setting="fsync", value="off")
        found = await self._schema_version(connection)
        if found < schema.SCHEMA_VERSION:
            await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {self._schema}")
            await self._migrate(found)

    async def _schema_version(self, connection: _Connection) -> int:
        if await connection.fetchval("SELECT to_regclass($1)", f"{self._schema}.alembic_version") is None:
            return 0
        found = int(await connection.fetchval(schema.VERSION_OF_STORE) or 0)
        if found > schema.SCHEMA_VERSION:
            raise StoreTooNew(found, schema.SCHEMA_VERSION)
        return found

    async def _migrate(self, found: int) -> None:
        async def connect() -> _Connection:
            return await self._connect()

        engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=sa.pool.NullPool)
        try:
            async with engine.begin() as connection:
                await connection.run_sync(lambda sync: migrate(sync, found=found, wanted=schema.SCHEMA_VERSION))
        except sa.exc.SQLAlchemyError as error:
            raise StoreFailed(f"migration: {error}") from error
        finally:
            await engine.dispose()

    # Writing.

    async def commit(self, group: CommitGroup) -> None:
        self._require_writer()
        check_group(group, size=self._size)
        fence = (self._epoch, self._size)
        changes = edge_changes(self._edge, group.edge) if group.records else {}
        if group.records:
            self._size, self._edge = group.size, group.edge
        await self._in_turn(lambda connection: _commit(connection, group, fence, changes))

    async def _write(self, *statements: Statement) -> list[int]:
        self._require_writer()
        # The epoch is read when the turn has come: a `reopen` that was waiting before us has raised it.
        return await self._in_turn(lambda connection: _execute(connection, self._epoch, statements))

    async def _scrub(self) -> None:
        await self._in_turn(lambda connection: connection.execute("VACUUM attachments"))

    async def _in_turn(self, work: Callable[[_Connection], Awaitable[Result]]) -> Result:
        # A task of its own: a caller that is cancelled must not break a transaction off in the middle.
        return await asyncio.shield(asyncio.ensure_future(self._work(work)))

    async def _work(self, work: Callable[[_Connection], Awaitable[Result]]) -> Result:
        async with self._turn:  # first come, first served
            if self._broken is not None:
                raise StoreFailed(f"an earlier write failed: {self._broken}")
            try:
                return await _translated(work(self._require_writer()))
            except StoreError as error:
                self._broken = error
                raise

    def _require_writer(self) -> _Connection:
        if self._writer is None:
            if self._pool is not None and not self._writes:
                raise StoreReadOnly("the store was opened for reading")
            raise StoreFailed("the store is closed")
        return self._writer

    # Reading.

    async def _fetch(self, sql: str, *values: Value) -> Rows:
        if self._pool is None:
            raise StoreFailed("the store is closed")
        rows: Rows = await _translated(self._pool.fetch(_dollar(sql), *values))
        return rows

    async def backup(self, path: Path) -> None:
        """Refuse: PostgreSQL has a better tool of its own.

        Raises:
            NotImplementedError: always; the message names the command.
        """
        raise NotImplementedError(
            f"not supported on PostgreSQL: use `pg_dump --format=custom --schema={self._schema} --file={path}`, "
            "or continuous archiving; after a restore, erase again what the list of erasures names"
        )


async def _translated(call: Awaitable[Result]) -> Result:
    """Await `call`; turn the errors of driver and network into the store's."""
    try:
        return await call
    except asyncpg.DiskFullError as error:
        raise StoreFull(str(error)) from error
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
        raise StoreFailed(f"{type(error).__name__}: {error}") from error


async def _opened(connection: _Connection) -> OpenedLog:
    ledger, size, note, epoch = await connection.fetchrow(schema.HEAD)
    edge = {level: hashes for level, hashes in await connection.fetch(schema.EDGES) if hashes}
    width = edge_width(size, 0)
    if width:
        rows = await connection.fetch(_dollar(schema.LEAF_HASHES), size - width, width)
        # Where records are missing it is too short, and whoever checks the tree names the first that is not there.
        edge[0] = b"".join(row[0] for row in rows)
    return OpenedLog(ledger=ledger, size=size, edge=dict(sorted(edge.items())), checkpoint=note, epoch=epoch)


def _require_ledger(opened: OpenedLog, ledger: bytes | None) -> None:
    if ledger is not None and opened.ledger is not None and ledger != opened.ledger:
        raise StoreOtherLedger(ledger, opened.ledger)


async def _take_over(connection: _Connection, ledger: bytes | None, epoch: int | None) -> OpenedLog:
    async with connection.transaction():
        await connection.execute("LOCK TABLE head IN EXCLUSIVE MODE")
        found = await _opened(connection)
        if epoch is not None and found.epoch != epoch:
            raise StoreFenced(epoch, found.epoch)
        _require_ledger(found, ledger)
        await connection.execute(_dollar(schema.HEAD_OPEN), ledger)
        return await _opened(connection)


def _changed(status: str) -> int:
    return int(status.rsplit(" ", 1)[-1])  # such as "UPDATE 1", "INSERT 0 1"


async def _commit(
    connection: _Connection, group: CommitGroup, fence: tuple[int, int], edges: Mapping[int, bytes]
) -> None:
    epoch, size = fence
    async with connection.transaction():
        advanced = await connection.execute(_dollar(schema.HEAD_ADVANCE), group.size, group.checkpoint, epoch, size)
        if _changed(advanced) != 1:
            raise await _lost(connection, epoch, size)
        if group.records:
            rows = [(r.index, r.entry_id, r.received_at_ms, r.record, r.leaf_hash) for r in group.records]
            await connection.copy_records_to_table("records", records=rows, columns=schema.RECORD_COLUMNS)
        if group.attachments:
            kept = [(a.index, a.position, a.class_name, a.salt, a.content) for a in group.attachments]
            await connection.copy_records_to_table("attachments", records=kept, columns=schema.ATTACHMENT_COLUMNS)
        for tile in group.tiles:
            await connection.execute(_dollar(schema.TILE_ADD), tile.level, tile.index, tile.hashes)
        for level, hashes in edges.items():
            await connection.execute(_dollar(schema.EDGE_PUT), level, hashes)
        for sql, values in side_statements(group):
            await connection.execute(_dollar(sql), *values)


async def _lost(connection: _Connection, epoch: int, size: int) -> StoreError:
    _, found_size, _, found_epoch = await connection.fetchrow(schema.HEAD)
    if found_epoch != epoch:
        return StoreFenced(epoch, found_epoch)
    return StoreFailed(f"the log has {found_size} records, expected {size}")


async def _execute(connection: _Connection, epoch: int, statements: tuple[Statement, ...]) -> list[int]:
    async with connection.transaction():
        # FOR UPDATE: whoever takes the ledger over waits for us, or we for them and then see their epoch.
        found = await connection.fetchval(f"{schema.EPOCH} FOR UPDATE")
        if found != epoch:
            raise StoreFenced(epoch, found)
        return [_changed(await connection.execute(_dollar(sql), *values)) for sql, values in statements]
