# SPDX-License-Identifier: AGPL-3.0-or-later
"""Questions to the tables of every record: which a caller may read, which concern somebody, statements of accounts."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from ecot_node.domains.projector import split_ids
from ecot_node.domains.records.views import ID_BYTES, POSTING_BITS, accounts, postings, progress, records, touches
from ecot_node.http.callers import Caller, readable_visibilities
from ecot_node.http.port import RecordedMeta, ViewsReads

_COLUMNS: Final = (
    records.c.idx,
    records.c.entry_id,
    records.c.received_at_ms,
    records.c.type,
    records.c.author,
    records.c.visibility,
    records.c.parties,
)
_INDEXED: Final = sa.select(progress.c.indexed).scalar_subquery()


class ViewsRecordIndex:
    """The `RecordIndex` of the HTTP floor.

    Args:
        views: to read from.
    """

    def __init__(self, views: ViewsReads) -> None:
        self._views: Final = views

    async def entry(self, index: int) -> RecordedMeta | None:
        async with self._views.connect() as connection:
            row = (await connection.execute(sa.select(*_COLUMNS).where(records.c.idx == index))).one_or_none()
        return None if row is None else _meta(row)

    async def visible(
        self, caller: Caller | None, *, after: int, limit: int, tag: str | None, author: bytes | None
    ) -> list[RecordedMeta]:
        wanted: list[sa.ColumnElement[bool]] = [records.c.idx > after]
        if tag is not None:
            wanted.append(records.c.type == tag)
        if author is not None:
            wanted.append(records.c.author == author)
        parts = (part.where(*wanted).order_by(records.c.idx).limit(limit) for part in _visible(caller))
        found = sa.union_all(*(sa.select(part.subquery().c.idx) for part in parts))
        query = sa.select(*_COLUMNS).where(records.c.idx.in_(found))
        async with self._views.connect() as connection:
            rows = await connection.execute(query.order_by(records.c.idx).limit(limit))
            return [_meta(row) for row in rows]


def _meta(row: sa.Row[*tuple[Any, ...]]) -> RecordedMeta:
    return RecordedMeta(
        index=row.idx,
        entry_id=row.entry_id,
        received_at_ms=row.received_at_ms,
        type=row.type,
        author=row.author,
        visibility=row.visibility,
        parties=tuple(split_ids(row.parties)),
    )


def _visible(caller: Caller | None) -> Iterator[sa.Select[tuple[int]]]:
    """Yield queries for what the caller may read, apart: each then goes through an index of its own."""
    readable = readable_visibilities(caller)
    is_for_parties = records.c.visibility == "parties"
    # The condition of the partial index has to stand in the query word for word.
    is_open = sa.and_(
        records.c.visibility != sa.literal_column("'parties'"), records.c.visibility.in_(sorted(readable))
    )
    yield sa.select(records.c.idx).with_hint(records, "INDEXED BY records_open", "sqlite").where(is_open)
    if "parties" in readable:
        yield sa.select(records.c.idx).where(is_for_parties)
    elif caller is not None:
        own = touching(caller.party_ids, only_parties=True)
        yield sa.select(records.c.idx).where(is_for_parties, records.c.idx.in_(own))


def touching(whom: Collection[bytes], *, only_parties: bool) -> sa.CompoundSelect[int]:
    """Return the query for the indexes of the records that have to do with somebody.

    Args:
        whom: ids of members, persons or organs.
        only_parties: leave out records that only move an account of theirs.
    """
    ids = sorted(whom)
    batches = [_listed(touches.c.as_party, ids)]
    columns = [records.c.parties]
    if not only_parties:
        batches.append(_listed(touches.c.as_owner, ids))
        columns.append(records.c.owners)
    holds = sa.or_(sa.false(), *(_holds(column, one) for column in columns for one in ids))
    waiting = sa.select(records.c.idx).where(records.c.idx >= _INDEXED, holds)
    return sa.union(*batches, waiting)


def _listed(column: sa.Column[str], ids: Sequence[bytes]) -> sa.Select[tuple[int]]:
    items = sa.func.json_each(column).table_valued(sa.column("value", sa.Integer), name="item")
    return (
        sa.select(items.c.value.label("idx")).select_from(touches.join(items, sa.true())).where(touches.c.whom.in_(ids))
    )


def _holds(joined: sa.Column[bytes], wanted: bytes) -> sa.ColumnElement[bool]:
    """Tell whether joined ids hold one of them; across the border of two ids nothing counts."""
    place = sa.func.instr(joined, wanted)
    return sa.and_(place > 0, place % ID_BYTES == 1)


async def views_size(connection: AsyncConnection) -> int:
    """Return how many records this snapshot shows."""
    return int((await connection.execute(sa.select(progress.c.size))).scalar_one())


class Account(NamedTuple):
    """An account: owner, unit, purpose."""

    owner: bytes
    unit: str
    purpose: str


class StatementLine(NamedTuple):
    """One posting as the owner of the account sees it; `amount_minor` is negative if it went out."""

    seq: int
    at_ms: int
    amount_minor: int
    other: bytes
    other_purpose: str
    cause: bytes
    reason: str

    @property
    def record_index(self) -> int:
        """The record that posted it."""
        return self.seq >> POSTING_BITS


_payer, _payee = accounts.alias("payer"), accounts.alias("payee")


def _lines(account: Account) -> sa.Subquery:
    """Select the postings of an account, those that it pays and those that it is paid."""
    number = (
        sa.select(accounts.c.account)
        .where(
            accounts.c.owner == account.owner, accounts.c.unit == account.unit, accounts.c.purpose == account.purpose
        )
        .scalar_subquery()
    )
    mine = touching([account.owner], only_parties=False).subquery("mine")
    first = mine.c.idx * (1 << POSTING_BITS)
    is_paying = postings.c.payer == number
    return (
        sa.select(
            postings.c.seq,
            records.c.received_at_ms.label("at_ms"),
            sa.case((is_paying, -postings.c.amount_minor), else_=postings.c.amount_minor).label("amount_minor"),
            sa.case((is_paying, _payee.c.owner), else_=_payer.c.owner).label("other"),
            sa.case((is_paying, _payee.c.purpose), else_=_payer.c.purpose).label("other_purpose"),
            sa.func.coalesce(postings.c.cause, records.c.entry_id).label("cause"),
            postings.c.reason,
        )
        .select_from(mine)
        .join(postings, sa.and_(postings.c.seq >= first, postings.c.seq < first + (1 << POSTING_BITS)))
        .join(records, records.c.idx == mine.c.idx)
        .join(_payer, _payer.c.account == postings.c.payer)
        .join(_payee, _payee.c.account == postings.c.payee)
        .where(sa.or_(is_paying, postings.c.payee == number))
        .subquery("lines")
    )


async def balance_before(connection: AsyncConnection, account: Account, *, from_ms: int, after: int) -> int:
    """Return the sum of the account's postings before `from_ms`, and of those up to the sequence `after`."""
    lines = _lines(account)
    query = sa.select(sa.func.coalesce(sa.func.sum(lines.c.amount_minor), 0))
    query = query.where(sa.or_(lines.c.at_ms < from_ms, lines.c.seq <= after))
    return int((await connection.execute(query)).scalar_one())


async def statement_lines(
    connection: AsyncConnection, account: Account, *, from_ms: int, to_ms: int, after: int, limit: int
) -> list[StatementLine]:
    """Return postings of an account, oldest first.

    Args:
        connection: a snapshot.
        account: whose.
        from_ms: not before this instant.
        to_ms: before this instant.
        after: only sequences above this one; -1 is the beginning.
        limit: most lines.
    """
    lines = _lines(account)
    query = sa.select(lines).where(lines.c.at_ms >= from_ms, lines.c.at_ms < to_ms, lines.c.seq > after)
    rows = await connection.execute(query.order_by(lines.c.seq).limit(limit))
    return [StatementLine(*row) for row in rows]
