# SPDX-License-Identifier: AGPL-3.0-or-later
"""Reads of shares: the register of movements, holdings, subscriptions of a member."""

from typing import Final, Literal

import sqlalchemy as sa

from ecot_node.domains.reading import Key, Row, fetch_page
from ecot_node.domains.records.queries import views_size
from ecot_node.domains.shares.views import share_holdings, share_movements, share_subscriptions
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
from ecot_protocol.domains.shares.state import ShareRange
from ecot_protocol.state import State


class MovementsParams(Page, kw_only=True):
    """Whose movements; everybody's if not given."""

    member: IdHex | None = None


class SharesParams(Waiting, kw_only=True):
    """A member."""

    member: IdHex


class MovementReply(JsonReply):
    """A movement of the register: shares numbered `first` to `last` went to the member, or back from it."""

    movement: Positive
    kind: Literal["issue", "redemption"]
    member: IdHex
    first: Positive
    last: Positive
    price_minor: Count
    unit: UnitCode
    subscription: IdHex | None
    at_ms: TimeMs
    index: Count


class HoldingReply(JsonReply):
    """What a member holds: how many shares, and the capital that they are, in `unit`."""

    member: IdHex
    unit: UnitCode
    share_count: Positive
    capital_minor: Count


class RangeReply(JsonReply):
    """Shares numbered `first` to `last`, each at `price_minor`."""

    first: Positive
    last: Positive
    price_minor: Count
    unit: UnitCode


class ShareSubscriptionReply(JsonReply):
    """A promise to buy shares, and what came of it."""

    subscription: IdHex
    share_count: Positive
    price_minor: Count
    unit: UnitCode
    status: Literal["cancelled", "issued", "subscribed"]
    subscribed_at_ms: TimeMs
    status_at_ms: TimeMs


class MemberSharesReply(JsonReply):
    """The shares of a member now, and its 200 newest subscriptions, newest first."""

    share_count: Count
    ranges: tuple[RangeReply, ...]
    subscriptions: tuple[ShareSubscriptionReply, ...]
    index: Count


_MAX_SUBSCRIPTIONS: Final = 200
_BY_MOVEMENT: Final = Key(share_movements.c.movement)
_BY_HOLDING: Final = Key(share_holdings.c.holding)


async def list_movements(request: Request[MovementsParams, None]) -> Listing[MovementReply]:
    """List the register of movements, oldest first."""
    query = sa.select(*share_movements.c)
    member = parse_hex(request.params.member)
    if member is not None:
        query = query.where(share_movements.c.member == member)
    async with request.context.views.connect() as connection:
        page = await fetch_page(connection, request.params, query, _BY_MOVEMENT)
    return Listing(items=tuple(map(_movement, page.rows)), next=page.next, index=page.index)


def _movement(row: Row) -> MovementReply:
    return MovementReply(
        movement=row.movement,
        kind=row.kind,
        member=row.member.hex(),
        first=row.first,
        last=row.last,
        price_minor=row.price_minor,
        unit=row.unit,
        subscription=show_hex(row.subscription),
        at_ms=row.at_ms,
        index=row.idx,
    )


async def list_holdings(request: Request[Page, None]) -> Listing[HoldingReply]:
    """List who holds shares, in the order in which they first had any; one row for each unit."""
    query = sa.select(*share_holdings.c).where(share_holdings.c.share_count > 0)
    async with request.context.views.connect() as connection:
        page = await fetch_page(connection, request.params, query, _BY_HOLDING)
    return Listing(items=tuple(map(_holding, page.rows)), next=page.next, index=page.index)


def _holding(row: Row) -> HoldingReply:
    return HoldingReply(
        member=row.member.hex(), unit=row.unit, share_count=row.share_count, capital_minor=row.capital_minor
    )


def _ranges_of(state: State, member: bytes) -> tuple[ShareRange, ...]:
    return state.shares.holding_of(member).ranges


async def get_member_shares(request: Request[SharesParams, None]) -> MemberSharesReply:
    """Read the shares of a member."""
    member = bytes.fromhex(request.params.member)
    ranges = await request.context.ledger.read(lambda state: _ranges_of(state, member))
    query = sa.select(share_subscriptions).where(share_subscriptions.c.member == member)
    query = query.order_by(share_subscriptions.c.idx.desc()).limit(_MAX_SUBSCRIPTIONS)
    async with request.context.views.connect() as connection:
        rows = (await connection.execute(query)).all()
        index = await views_size(connection)
    return MemberSharesReply(
        share_count=sum(one.count for one in ranges),
        ranges=tuple(
            RangeReply(first=one.first, last=one.last, price_minor=one.price_minor, unit=one.unit) for one in ranges
        ),
        subscriptions=tuple(map(_subscription, rows)),
        index=index,
    )


def _subscription(row: Row) -> ShareSubscriptionReply:
    return ShareSubscriptionReply(
        subscription=row.subscription.hex(),
        share_count=row.share_count,
        price_minor=row.price_minor,
        unit=row.unit,
        status=row.status,
        subscribed_at_ms=row.subscribed_at_ms,
        status_at_ms=row.status_at_ms,
    )


SHARES_ROUTES: Final[tuple[AnyRoute, ...]] = (
    Route(
        method="GET",
        path="/v1/shares/movements",
        summary="List the register of movements of shares",
        tag="shares",
        access="members",
        handler=list_movements,
        params=MovementsParams,
        response=Listing[MovementReply],
        errors=("cursor_malformed",),
    ),
    Route(
        method="GET",
        path="/v1/shares/holdings",
        summary="List who holds shares",
        tag="shares",
        access="members",
        handler=list_holdings,
        params=Page,
        response=Listing[HoldingReply],
        errors=("cursor_malformed",),
    ),
    Route(
        method="GET",
        path="/v1/members/{member}/shares",
        summary="Read the shares of a member",
        tag="shares",
        access="members",
        handler=get_member_shares,
        params=SharesParams,
        response=MemberSharesReply,
    ),
)
