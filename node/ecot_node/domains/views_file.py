# SPDX-License-Identifier: AGPL-3.0-or-later
"""One SQLite file of views and the connection that writes it; used by one thread at a time.

- WAL with ``synchronous=NORMAL``: no fsync for a group. What a power failure loses is made again from the log.
- A file whose tables are not those of this release, or that can't be read, is thrown away and begun anew.
"""

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final

from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from ecot_node.domains.projector import Projector, Touches, split_ids
from ecot_node.domains.records.views import APPEND_TOUCH
from ecot_node.domains.rows import DomainViews, Rows
from ecot_node.ledger.port import RecordedEntry
from ecot_protocol.errors import LocalProtocolError

INDEX_BATCH: Final = 8_192
"""Touches in one sorted batch: few enough that the records which wait for it are looked through in a millisecond or
two, many enough that a page of the index takes several of them at once."""
_PRAGMAS: Final = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=NORMAL",
    "PRAGMA cache_size=-65536",
    "PRAGMA wal_autocheckpoint=4000",
    "PRAGMA temp_store=MEMORY",
)


class ViewsFile:
    """The tables in `path`, opened for writing.

    Args:
        path: made if it is missing.
        domains: whose tables and projections.
    """

    def __init__(self, path: Path, domains: Sequence[DomainViews]) -> None:
        self.path: Final = path
        self._projector: Final = Projector(domains)
        self._ddl: Final = _ddl(domains)
        self._waiting = Touches()
        self.size = 0
        try:
            self._open()
        except sqlite3.DatabaseError:  # damaged, or not a database
            self._begin_anew()

    def _open(self) -> None:
        if not self.path.exists():
            self._begin_anew()
            return
        self._connection = _connect(self.path)
        fingerprint = _fingerprint(self._ddl)
        row = self._connection.execute("SELECT size, tables FROM progress").fetchone()
        if row is None or row[1] != fingerprint:
            self._begin_anew()
            return
        self.size = row[0]
        self._load()

    def _load(self) -> None:
        """Read back what is kept in memory of the tables."""
        self._waiting = _load_waiting(self._connection)
        named = self._connection.execute("SELECT owner, unit, purpose, account FROM accounts")
        self._projector.accounts = {(owner, unit, purpose): number for owner, unit, purpose, number in named}

    def _begin_anew(self) -> None:
        with contextlib.suppress(AttributeError):
            self._connection.close()
        remove(self.path)
        self._connection = _connect(self.path)
        with _transaction(self._connection):
            for statement in self._ddl:
                self._connection.execute(statement)
            self._connection.execute("INSERT INTO progress VALUES (0, 0, 0, ?)", (_fingerprint(self._ddl),))
        self.size = 0
        self._load()

    def apply(self, entries: Sequence[RecordedEntry]) -> None:
        """Write what the records do, in one transaction; if it raises, nothing was written.

        Raises:
            LocalProtocolError: they don't continue what is there.
            sqlite3.Error: the file can't be written.
        """
        if not entries:
            return
        self._require_next(entries)
        size = entries[-1].index + 1
        try:
            rows = self._projector.project(entries, self._waiting)
            is_index_due = self._waiting.count >= INDEX_BATCH
            with _transaction(self._connection):
                _write(self._connection, rows)
                if is_index_due:
                    self._connection.executemany(APPEND_TOUCH.sql, self._waiting.rows())
                    self._connection.execute("UPDATE progress SET indexed = ?", (size,))
                self._connection.execute("UPDATE progress SET size = ?", (size,))
        except BaseException:
            self._load()
            raise
        self.size = size
        if is_index_due:
            self._waiting = Touches()

    def _require_next(self, entries: Sequence[RecordedEntry]) -> None:
        if entries[0].index != self.size or entries[-1].index != self.size + len(entries) - 1:
            raise LocalProtocolError(f"records from {entries[0].index}, expected {self.size} and contiguous")

    def close(self) -> None:
        """Close the connection, with everything in the one file."""
        with contextlib.suppress(sqlite3.Error):  # a reader is still there: the write-ahead log stays, which is fine
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._connection.close()


def remove(path: Path) -> None:
    """Delete a database with its side files; the main file first, so that none is ever opened without its log."""
    for name in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
        name.unlink(missing_ok=True)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=512)
    try:
        for pragma in _PRAGMAS:
            connection.execute(pragma)
    except sqlite3.Error:
        connection.close()
        raise
    path.chmod(0o600)
    return connection


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit at the end, roll back on any error."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _write(connection: sqlite3.Connection, rows: Rows) -> None:
    for append, values in rows.appended.items():
        connection.executemany(append.sql, values)
    for sql, parameters in rows.changes:
        connection.execute(sql, parameters)


def _load_waiting(connection: sqlite3.Connection) -> Touches:
    waiting = Touches()
    for index, parties, owners in connection.execute(
        "SELECT idx, parties, owners FROM records WHERE idx >= (SELECT indexed FROM progress) ORDER BY idx"
    ):
        waiting.add(index, split_ids(parties), split_ids(owners))
    return waiting


def _ddl(domains: Sequence[DomainViews]) -> list[str]:
    dialect = sqlite.dialect()
    statements: list[str] = []
    for domain in domains:
        for table in domain.tables.sorted_tables:
            statements.append(str(CreateTable(table).compile(dialect=dialect)))
            indexes = sorted(table.indexes, key=lambda index: str(index.name))
            statements += [str(CreateIndex(index).compile(dialect=dialect)) for index in indexes]
    return statements


def _fingerprint(ddl: Sequence[str]) -> str:
    return sha256("\n".join(ddl).encode()).hexdigest()


__all__ = ["INDEX_BATCH", "ViewsFile", "remove"]
