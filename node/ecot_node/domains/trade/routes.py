# SPDX-License-Identifier: AGPL-3.0-or-later
"""Reads of trades: for the persons of the two parties, and for board and treasurer, who answer for reversals and
accounts. Lines and memo are attachments for the parties alone.
"""

from collections.abc import Sequence
from typing import Final, Literal

import sqlalchemy as sa

from ecot_node.domains.reading import Key, Row, fetch_page, may_read_member, parties_of, read_texts, refuse_unless
from ecot_node.domains.records.queries import touching, views_size
from ecot_node.domains.trade.views import trade_steps, trades
from ecot_node.http.callers import may_read
from ecot_node.http.errors import Problem
from ecot_node.http.fields import (
    Count,
    IdHex,
    JsonReply,
    Listing,
    Page,
    Positive,
    TimeMs,
    UnitCode,
    Waiting,
    parse_hex,
    show_hex,
)
from ecot_node.http.routes import AnyRoute, Request, Route

TradeStatus = Literal["accepted", "confirmed", "lapsed", "proposed", "refused", "reversed"]


class TradesParams(Page, kw_only=True):
    """Which trades: of a member (else of all the members that the caller acts for; for officers, of everybody)."""

    member: IdHex | None = None
    status: TradeStatus | None = None


class TradeParams(Waiting, kw_only=True):
    """A trade."""

    trade: IdHex


class TradeItem(JsonReply):
    """A trade.

    Attributes:
        barter_minor: part of the invoice paid in barter, in `unit`.
        euro_minor: part paid outside the ledger.
        net_minor: before VAT; net and VAT together are barter and euros together.
        commission_minor: what the seller owes for it, in `commission_unit`.
        expires_at_ms: when the offer ends.
        deliver_by_ms: from when either may give up what is not confirmed.
        reversible_until_ms: until when a confirmed trade can be reversed.
        index: record that proposed it.
    """

    trade: IdHex
    seller: IdHex
    buyer: IdHex
    unit: UnitCode
    barter_minor: Count
    euro_minor: Count
    net_minor: Count
    vat_minor: Count
    commission_minor: Count
    commission_unit: UnitCode
    expires_at_ms: TimeMs
    deliver_by_ms: TimeMs
    reversible_until_ms: TimeMs | None
    statutes_version: Positive
    status: TradeStatus
    index: Count


class StepReply(JsonReply):
    """A trade came to this status; `by` acted, None is the node."""

    status: TradeStatus
    at_ms: TimeMs
    by: IdHex | None
    index: Count


class TradeReply(JsonReply):
    """A trade with its history. `lines` and `memo` are for its parties, unless they were erased."""

    trade: TradeItem
    steps: tuple[StepReply, ...]
    lines: str | None
    memo: str | None
    index: Count


_TRADES: Final = sa.select(*trades.c)
_NEWEST_FIRST: Final = Key(trades.c.opened_idx, is_newest_first=True)


async def list_trades(request: Request[TradesParams, None]) -> Listing[TradeItem]:
    """List trades, newest first."""
    caller, params = request.signed_in, request.params
    member = parse_hex(params.member)
    refuse_unless(member is None or may_read_member(caller, member))
    query = _TRADES
    if member is not None:
        query = query.where(_of_members([member]))
    elif not caller.is_officer:
        query = query.where(_of_members([one.member for one in caller.members]))
    if params.status is not None:
        query = query.where(trades.c.status == params.status)
    async with request.context.views.connect() as connection:
        page = await fetch_page(connection, params, query, _NEWEST_FIRST)
    return Listing(items=tuple(map(_item, page.rows)), next=page.next, index=page.index)


def _of_members(members: Sequence[bytes]) -> sa.ColumnElement[bool]:
    return trades.c.opened_idx.in_(touching(members, only_parties=True))


def _item(row: Row) -> TradeItem:
    return TradeItem(
        trade=row.trade.hex(),
        seller=row.seller.hex(),
        buyer=row.buyer.hex(),
        unit=row.unit,
        barter_minor=row.barter_minor,
        euro_minor=row.euro_minor,
        net_minor=row.net_minor,
        vat_minor=row.vat_minor,
        commission_minor=row.commission_minor,
        commission_unit=row.commission_unit,
        expires_at_ms=row.expires_at_ms,
        deliver_by_ms=row.deliver_by_ms,
        reversible_until_ms=row.reversible_until_ms,
        statutes_version=row.statutes_version,
        status=row.status,
        index=row.opened_idx,
    )


async def get_trade(request: Request[TradeParams, None]) -> TradeReply:
    """Read a trade. Who may not read it is told that there is none: that it exists is not told either."""
    caller, trade = request.signed_in, bytes.fromhex(request.params.trade)
    of_trade = sa.select(trade_steps).where(trade_steps.c.trade == trade).order_by(trade_steps.c.idx)
    async with request.context.views.connect() as connection:
        row = (await connection.execute(_TRADES.where(trades.c.trade == trade))).one_or_none()
        if row is None or not may_read(caller, "parties", (row.seller, row.buyer)):
            raise Problem("not_found")
        steps = (await connection.execute(of_trade)).all()
        parties = await parties_of(connection, (row.opened_idx,))
        index = await views_size(connection)
    lines = await read_texts(request, parties, "lines")
    memo = await read_texts(request, parties, "memo")
    return TradeReply(
        trade=_item(row),
        steps=tuple(
            StepReply(status=step.status, at_ms=step.at_ms, by=show_hex(step.by), index=step.idx) for step in steps
        ),
        lines=lines.get(row.opened_idx),
        memo=memo.get(row.opened_idx),
        index=index,
    )


TRADE_ROUTES: Final[tuple[AnyRoute, ...]] = (
    Route(
        method="GET",
        path="/v1/trades",
        summary="List trades",
        tag="trades",
        handler=list_trades,
        params=TradesParams,
        response=Listing[TradeItem],
        errors=("cursor_malformed", "not_allowed"),
    ),
    Route(
        method="GET",
        path="/v1/trades/{trade}",
        summary="Read a trade",
        tag="trades",
        handler=get_trade,
        params=TradeParams,
        response=TradeReply,
        errors=("not_found",),
    ),
)
