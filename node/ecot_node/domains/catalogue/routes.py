# SPDX-License-Identifier: AGPL-3.0-or-later
"""Reads of the catalogue: works and their rights-holders, for members."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from ecot_node.domains.catalogue.views import PLACE_BITS, work_holders, works
from ecot_node.domains.reading import Key, Row, fetch_page, parties_of, read_attachments
from ecot_node.http.errors import Problem
from ecot_node.http.fields import Count, IdHex, JsonReply, Listing, Page, Positive, TimeMs, Waiting, parse_hex, show_hex
from ecot_node.http.routes import AnyRoute, Request, Route

WorkKind = Literal["book", "comic", "game", "music"]


class WorksParams(Page, kw_only=True):
    """Which works; those that were withdrawn only with ``withdrawn=true``."""

    kind: WorkKind | None = None
    holder: IdHex | None = None
    withdrawn: bool = False


class WorkParams(Waiting, kw_only=True):
    """A work."""

    work: IdHex


class IdentifierReply(JsonReply):
    """A number by which a work is known elsewhere, e.g. an ISRC."""

    scheme: str
    value: str


class HolderReply(JsonReply):
    """A rights-holder and its share, of 10,000."""

    member: IdHex
    share_bp: Positive


class WorkReply(JsonReply):
    """A work. `title` is None if none was given or it was erased; `index` is the record that registered it."""

    work: IdHex
    title: str | None
    kind: WorkKind
    identifiers: tuple[IdentifierReply, ...]
    holders: tuple[HolderReply, ...]
    since_ms: TimeMs
    withdrawn_at_ms: TimeMs | None
    withdrawn_by: IdHex | None
    index: Count


_WORKS: Final = sa.select(*works.c)
_IN_ORDER: Final = Key(works.c.seq)
_IDENTIFIERS: Final = msgspec.json.Decoder(tuple[tuple[str, str], ...])
_TITLES: Final = msgspec.msgpack.Decoder(tuple[str, ...])


async def list_works(request: Request[WorksParams, None]) -> Listing[WorkReply]:
    """List works in the order of their registration."""
    params, query = request.params, _WORKS
    if params.kind is not None:
        query = query.where(works.c.kind == params.kind)
    holder = parse_hex(params.holder)
    if holder is not None:
        held = sa.select(work_holders.c.work).where(work_holders.c.member == holder)
        query = query.where(works.c.work.in_(held))
    if not params.withdrawn:
        query = query.where(works.c.withdrawn_at_ms.is_(None))
    async with request.context.views.connect() as connection:
        page = await fetch_page(connection, params, query, _IN_ORDER)
        holders, parties = await _surroundings(connection, page.rows)
    titles = await read_titles(request, page.rows, parties)
    items = tuple(_work(row, titles.get(row.work), holders.get(row.work, [])) for row in page.rows)
    return Listing(items=items, next=page.next, index=page.index)


async def get_work(request: Request[WorkParams, None]) -> WorkReply:
    """Read a work."""
    async with request.context.views.connect() as connection:
        query = _WORKS.where(works.c.work == bytes.fromhex(request.params.work))
        row = (await connection.execute(query)).one_or_none()
        if row is None:
            raise Problem("not_found")
        holders, parties = await _surroundings(connection, (row,))
    titles = await read_titles(request, (row,), parties)
    return _work(row, titles.get(row.work), holders.get(row.work, []))


async def _surroundings(
    connection: AsyncConnection, rows: Sequence[Row]
) -> tuple[dict[bytes, list[HolderReply]], dict[int, list[bytes]]]:
    """Return the holders of each work and the parties of each record that registered one."""
    query = sa.select(work_holders).where(work_holders.c.work.in_([row.work for row in rows]))
    holders: dict[bytes, list[HolderReply]] = {}
    for row in await connection.execute(query.order_by(work_holders.c.work, work_holders.c.member)):
        holders.setdefault(row.work, []).append(HolderReply(member=row.member.hex(), share_bp=row.share_bp))
    return holders, await parties_of(connection, {row.seq >> PLACE_BITS for row in rows})


async def read_titles(
    request: Request[Any, Any], rows: Sequence[Row], parties: Mapping[int, Sequence[bytes]]
) -> dict[bytes, str]:
    """Return work -> title, of those that are left; a batch has its titles in one attachment."""
    contents = await read_attachments(request.context.store, request.caller, parties, "title")
    titles: dict[bytes, str] = {}
    for row in rows:
        content = contents.get(row.seq >> PLACE_BITS)
        title = None if content is None else _title_at(content, row.place)
        if title is not None:
            titles[row.work] = title
    return titles


def _title_at(content: bytes, place: int | None) -> str | None:
    if place is None:
        return content.decode("utf-8", "replace")
    try:
        titles = _TITLES.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError):  # no rule reads an attachment, so it may hold anything
        return None
    return titles[place] if place < len(titles) else None


def _work(row: Row, title: str | None, holders: Sequence[HolderReply]) -> WorkReply:
    return WorkReply(
        work=row.work.hex(),
        title=title,
        kind=row.kind,
        identifiers=tuple(
            IdentifierReply(scheme=scheme, value=value) for scheme, value in _IDENTIFIERS.decode(row.identifiers)
        ),
        holders=tuple(holders),
        since_ms=row.since_ms,
        withdrawn_at_ms=row.withdrawn_at_ms,
        withdrawn_by=show_hex(row.withdrawn_by),
        index=row.seq >> PLACE_BITS,
    )


CATALOGUE_ROUTES: Final[tuple[AnyRoute, ...]] = (
    Route(
        method="GET",
        path="/v1/works",
        summary="List works",
        tag="catalogue",
        access="members",
        handler=list_works,
        params=WorksParams,
        response=Listing[WorkReply],
        errors=("cursor_malformed",),
    ),
    Route(
        method="GET",
        path="/v1/works/{work}",
        summary="Read a work",
        tag="catalogue",
        access="members",
        handler=get_work,
        params=WorkParams,
        response=WorkReply,
        errors=("not_found",),
    ),
)
