# SPDX-License-Identifier: AGPL-3.0-or-later
"""The `MirrorBook` over the views."""

from collections.abc import Collection
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from ecot_node.domains.federation.views import mirror_moves, mirrors
from ecot_node.domains.records.queries import views_size
from ecot_node.federation.mirror_book import Compared, Held, MovePage, Waiting
from ecot_node.http.port import ViewsReads
from ecot_protocol.domains.federation.mirrors import (
    MAX_LISTED,
    MAX_MOVES,
    Asked,
    Claim,
    MirrorLists,
    MirrorRow,
    Move,
    Settled,
)

_m: Final = mirror_moves.c
_IDS_AT_ONCE: Final = 500
"""SQLite takes so many parameters at ease."""
_ROW: Final = (_m.tid, _m.partner_minor, _m.opened_idx, _m.status)
MAX_POSTED: Final = 65_536
"""Deals read at once to name a difference."""


class ViewsMirrorBook:
    """What was posted with each partner, from the table of mirrors' moves.

    Args:
        views: to read from.
    """

    def __init__(self, views: ViewsReads) -> None:
        self._views: Final = views

    async def waiting(self, partner: bytes) -> Waiting:
        async with self._views.connect() as connection:
            return Waiting(await views_size(connection), await _pending(connection, partner))

    async def held(self, partner: bytes, pending: Collection[bytes], since: int) -> Held:
        async with self._views.connect() as connection:
            waits = await _pending(connection, partner)
            recent = (
                await connection.execute(
                    sa.select(_m.tid, _m.resolved_idx, _m.status)
                    .where(_m.partner == partner, _m.resolved_idx >= since)
                    .order_by(_m.resolved_idx.desc())
                    .limit(MAX_LISTED + 1)
                )
            ).all()
            recent_from = since
            if len(recent) > MAX_LISTED:  # records resolve many deals: the last one of the list may be cut through
                recent_from = recent[-1].resolved_idx + 1
                recent = [one for one in recent if one.resolved_idx >= recent_from]
            settled = {one.tid: one.status == "commit" for one in recent}
            for row in await _rows(connection, partner, pending):
                if row.status != "pending":
                    settled[row.tid] = row.status == "commit"
            lists = MirrorLists(
                pending=waits[:MAX_LISTED],
                recent_from=recent_from,
                resolved=tuple(Settled(tid, is_posted) for tid, is_posted in settled.items()),
            )
            size = await views_size(connection)
            balance = await _sum(connection, partner, mirrors.c.own_minor)
            reserved = await _reserved(connection, partner)
        return Held(size, balance, *reserved, lists)

    async def compared(self, partner: bytes, claim: Claim, asked: Asked) -> Compared:
        async with self._views.connect() as connection:
            rows = {
                **_by_tid(await _rows(connection, partner, claim.statuses)),
                **_by_tid(await _rows(connection, partner, asked.pending)),
                **_by_tid(await _query(connection, partner, _m.opened_idx >= asked.size)),
                **_by_tid(await _query(connection, partner, _m.status == "pending")),
            }
            return Compared(
                await views_size(connection), await _sum(connection, partner, mirrors.c.partner_minor), rows
            )

    async def moves(self, partner: bytes, start: int) -> MovePage:
        query = (
            sa.select(_m.resolved_idx, _m.tid, _m.own_minor)
            .where(_m.partner == partner, _m.resolved_idx >= start, _m.status == "commit")
            .order_by(_m.resolved_idx, _m.tid)
            .limit(MAX_MOVES + 1)
        )
        async with self._views.connect() as connection:
            found = (await connection.execute(query)).all()
            size = await views_size(connection)
        more_from = None
        if len(found) > MAX_MOVES:  # never through the middle of a record, so that the next page begins at one
            more_from = found[-1].resolved_idx
            found = [one for one in found if one.resolved_idx < more_from]
        return MovePage(size, tuple(Move(one.resolved_idx, one.tid, one.own_minor) for one in found), more_from)

    async def posted(self, partner: bytes, start: int, tids: Collection[bytes]) -> dict[bytes, MirrorRow]:
        async with self._views.connect() as connection:
            late = await _query(connection, partner, _m.resolved_idx >= start, _m.status == "commit")
            return {**_by_tid(late), **_by_tid(await _rows(connection, partner, tids))}

    async def resolutions(self, partner: bytes, tids: Collection[bytes]) -> dict[bytes, int]:
        query = sa.select(_m.tid, _m.resolved_idx).where(
            _m.partner == partner, _m.tid.in_(list(tids)[:_IDS_AT_ONCE]), _m.resolved_idx.is_not(None)
        )
        async with self._views.connect() as connection:
            return {one.tid: one.resolved_idx for one in await connection.execute(query)}

    async def is_resolution(self, partner: bytes, index: int) -> bool:
        query = sa.select(_m.tid).where(_m.partner == partner, _m.resolved_idx == index).limit(1)
        async with self._views.connect() as connection:
            return (await connection.execute(query)).first() is not None


async def _pending(connection: AsyncConnection, partner: bytes) -> tuple[bytes, ...]:
    query = sa.select(_m.tid).where(_m.partner == partner, _m.resolved_idx.is_(None)).limit(MAX_LISTED + 1)
    return tuple((await connection.execute(query)).scalars())


async def _sum(connection: AsyncConnection, partner: bytes, column: sa.Column[int]) -> int:
    found = await connection.execute(sa.select(column).where(mirrors.c.partner == partner))
    return found.scalar_one_or_none() or 0


async def _reserved(connection: AsyncConnection, partner: bytes) -> tuple[int, int]:
    """Return what waits to come to the account, and what waits to leave it."""
    own = _m.own_minor
    query = sa.select(
        sa.func.coalesce(sa.func.sum(sa.case((own > 0, own), else_=0)), 0),
        sa.func.coalesce(sa.func.sum(sa.case((own < 0, -own), else_=0)), 0),
    ).where(_m.partner == partner, _m.resolved_idx.is_(None))
    row = (await connection.execute(query)).one()
    return int(row[0]), int(row[1])


async def _rows(connection: AsyncConnection, partner: bytes, tids: Collection[bytes]) -> list[Any]:
    wanted, found = list(tids), list[Any]()
    for start in range(0, len(wanted), _IDS_AT_ONCE):
        found += await _query(connection, partner, _m.tid.in_(wanted[start : start + _IDS_AT_ONCE]))
    return found


async def _query(connection: AsyncConnection, partner: bytes, *conditions: sa.ColumnElement[bool]) -> list[Any]:
    query = sa.select(*_ROW).where(_m.partner == partner, *conditions).limit(MAX_POSTED)
    return [*(await connection.execute(query)).all()]


def _by_tid(rows: list[Any]) -> dict[bytes, MirrorRow]:
    return {row.tid: MirrorRow(row.tid, row.partner_minor, row.opened_idx, row.status) for row in rows}
