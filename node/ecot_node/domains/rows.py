# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a group of records writes into the tables of the views, collected before anything is written.

A projection never touches the database. It says what it wants in two ways:

- `Rows.append`: a new row of a table, which can't be there yet. Rows of one table are inserted together, so this is
  for what is frequent.
- `Rows.change`: any statement, for what is rare or depends on what is there. Changes are made after all the appended
  rows of the group, in the order in which they were asked for.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from ecot_node.ledger.port import RecordedEntry
from ecot_protocol.ledger.facts import Fact

Value: TypeAlias = "int | str | bytes | None"
"""What a column holds."""

_DIALECT: Final = sqlite.dialect(paramstyle="qmark")


@dataclass(frozen=True, slots=True, eq=False)
class Append:
    """Inserts a row given as one value for each column of the table, in their order."""

    sql: str

    @classmethod
    def into(cls, table: sa.Table) -> "Append":
        """Prepare the insertion of rows into `table`."""
        places = ", ".join("?" * len(table.columns))
        return cls(f"INSERT INTO {table.name} VALUES ({places})")


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """A statement whose parameters are given by name, but for those that are always the same."""

    sql: str
    names: tuple[str, ...]
    constants: Mapping[str, Value]

    @classmethod
    def of(cls, statement: sa.UpdateBase) -> "Change":
        """Prepare a statement of SQLAlchemy Core; its parameters are `sa.bindparam`s."""
        compiled = statement.compile(dialect=_DIALECT)
        constants = {name: bind.value for name, bind in compiled.binds.items() if not bind.required}
        return cls(str(compiled), tuple(compiled.positiontup or ()), constants)

    @classmethod
    def put(cls, table: sa.Table) -> "Change":
        """Prepare the insertion of a row, or its replacement where the primary key exists; names are the columns'."""
        names = tuple(column.name for column in table.columns)
        places = ", ".join("?" * len(names))
        return cls(f"INSERT OR REPLACE INTO {table.name} VALUES ({places})", names, {})


class Rows:
    """What one group of records wants written."""

    __slots__ = ("appended", "changes")

    def __init__(self) -> None:
        self.appended: dict[Append, list[tuple[Value, ...]]] = {}
        self.changes: list[tuple[str, tuple[Value, ...]]] = []

    def of(self, append: Append) -> list[tuple[Value, ...]]:
        """Return the list that rows of a table are appended to, for a caller who has many."""
        rows = self.appended.get(append)
        if rows is None:
            rows = self.appended[append] = []
        return rows

    def append(self, append: Append, *values: Value) -> None:
        """Add a row to a table."""
        self.of(append).append(values)

    def change(self, change: Change, **values: Value) -> None:
        """Run a statement after all the appended rows."""
        known = {**change.constants, **values}
        self.changes.append((change.sql, tuple([known[name] for name in change.names])))


Projection: TypeAlias = Callable[[Any, RecordedEntry, Rows], None]
"""(fact, its record, rows): what a fact does to the tables. It reads no table: rows depend on facts alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainViews:
    """What a domain adds to the views.

    Attributes:
        tables: its tables.
        projections: kind of fact -> what it writes.
        unshown: kinds of facts that no table needs, and why; a test fails for a fact that is in neither.
    """

    tables: sa.MetaData
    projections: Mapping[type[Fact], Projection]
    unshown: Mapping[type[Fact], str]


def merge_projections(domains: Sequence[DomainViews]) -> dict[type[Fact], Projection]:
    """Return the projections of all domains; two domains may both show a fact, in the order of the domains."""
    merged: dict[type[Fact], Projection] = {}
    for domain in domains:
        for kind, projection in domain.projections.items():
            known = merged.get(kind)
            merged[kind] = projection if known is None else _both(known, projection)
    return merged


def _both(first: Projection, second: Projection) -> Projection:
    def project(fact: Fact, entry: RecordedEntry, rows: Rows) -> None:
        first(fact, entry, rows)
        second(fact, entry, rows)

    return project
