# SPDX-License-Identifier: AGPL-3.0-or-later
"""Reads of royalties: subscriptions, periods, and the statement that tells a rights-holder why it gets what it gets.

Periods are for members; a subscription and a statement are for the persons of the member they concern, and for board
and treasurer (a statement: for the treasurer).
"""

from typing import Final, Literal

import msgspec
import sqlalchemy as sa

from ecot_node.domains.reading import Key, Row, fetch_page, may_read_accounts, may_read_member, refuse_unless
from ecot_node.domains.records.queries import views_size
from ecot_node.domains.royalty.views import (
    holder_earnings,
    periods,
    royalty_statements,
    subscriptions,
    use_reports,
    work_earnings,
)
from ecot_node.http.errors import Problem
from ecot_node.http.fields import Count, IdHex, JsonReply, Listing, Page, Positive, TimeMs, UnitCode, Waiting, parse_hex
from ecot_node.http.paging import decode_cursor, encode_cursor, page_of
from ecot_node.http.routes import AnyRoute, Request, Route
from ecot_protocol.domains.royalty.facts import PeriodClosed

PeriodStatus = Literal["closed", "open"]


class SubscriptionsParams(Page, kw_only=True):
    """Whose subscriptions (else of all the members that the caller acts for; for officers, of everybody)."""

    institution: IdHex | None = None


class PeriodsParams(Page, kw_only=True):
    """Which periods."""

    status: PeriodStatus | None = None


class PeriodParams(Waiting, kw_only=True):
    """A period."""

    period: IdHex


class HolderParams(Page, kw_only=True):
    """What a rights-holder earned in a period."""

    period: IdHex
    member: IdHex


class SubscriptionReply(JsonReply):
    """An institution's subscription to the catalogue; `until_ms` None is without end."""

    subscription: IdHex
    institution: IdHex
    from_ms: TimeMs
    until_ms: TimeMs | None
    total_minor: Count
    unit: UnitCode
    at_ms: TimeMs
    index: Count


class HeadReply(JsonReply):
    """What a head got of a period's revenue."""

    head: str
    kind: str
    amount_minor: Count


class SharedReply(JsonReply):
    """How a period's revenue was shared; the heads and what was carried sum to the revenue."""

    revenue_minor: Count
    unit: UnitCode
    heads: tuple[HeadReply, ...]
    carried_minor: Count
    work_count: Count
    use_count: Count
    holder_count: Count
    part_count: Count
    paid_part_count: Count
    index: Count


class PeriodItem(JsonReply):
    """A period. Use can be reported while it is ``open``."""

    period: IdHex
    code: str
    starts_ms: TimeMs
    ends_ms: TimeMs
    statutes_version: Positive
    status: PeriodStatus
    index: Count


class PeriodReply(JsonReply):
    """A period, opened by the record `opened_index`.

    Attributes:
        report_count: reports of use so far.
        reported_use_count: use in them.
        shared: None while it is open.
        index: how many records the views showed.
    """

    period: IdHex
    code: str
    starts_ms: TimeMs
    ends_ms: TimeMs
    statutes_version: Positive
    status: PeriodStatus
    report_count: Count
    reported_use_count: Count
    shared: SharedReply | None
    opened_index: Count
    index: Count


class AmountReply(JsonReply):
    """A sum under a head."""

    head: str
    amount_minor: Count


class EarningReply(JsonReply):
    """What a holder got for a work under a head: its part of `work_amount_minor`, which the work earned by its use."""

    work: IdHex
    head: str
    amount_minor: Count
    work_amount_minor: Count
    work_use_count: Count


class HolderStatementReply(JsonReply):
    """What a rights-holder gets for a period, and, page by page, why."""

    period: IdHex
    holder: IdHex
    total_minor: Count
    unit: UnitCode
    amounts: tuple[AmountReply, ...]
    work_count: Count
    use_count: Count
    items: tuple[EarningReply, ...]
    next: str | None
    index: Count


_SUBSCRIPTIONS: Final = sa.select(*subscriptions.c)
_SUBSCRIPTION_KEY: Final = Key(subscriptions.c.idx, is_newest_first=True)
_PERIODS: Final = sa.select(*periods.c)
_PERIOD_KEY: Final = Key(periods.c.opened_idx, is_newest_first=True)
_CLOSED: Final = msgspec.json.Decoder(PeriodClosed)
_AMOUNTS: Final = msgspec.json.Decoder(tuple[tuple[str, int], ...])


async def list_subscriptions(request: Request[SubscriptionsParams, None]) -> Listing[SubscriptionReply]:
    """List subscriptions, newest first."""
    caller, query = request.signed_in, _SUBSCRIPTIONS
    institution = parse_hex(request.params.institution)
    refuse_unless(institution is None or may_read_member(caller, institution))
    if institution is not None:
        query = query.where(subscriptions.c.institution == institution)
    elif not caller.is_officer:
        query = query.where(subscriptions.c.institution.in_([one.member for one in caller.members]))
    async with request.context.views.connect() as connection:
        page = await fetch_page(connection, request.params, query, _SUBSCRIPTION_KEY)
    return Listing(items=tuple(map(_subscription, page.rows)), next=page.next, index=page.index)


def _subscription(row: Row) -> SubscriptionReply:
    return SubscriptionReply(
        subscription=row.subscription.hex(),
        institution=row.institution.hex(),
        from_ms=row.from_ms,
        until_ms=row.until_ms,
        total_minor=row.total_minor,
        unit=row.unit,
        at_ms=row.at_ms,
        index=row.idx,
    )


async def list_periods(request: Request[PeriodsParams, None]) -> Listing[PeriodItem]:
    """List periods, newest first."""
    query = _PERIODS
    if request.params.status is not None:
        query = query.where(periods.c.status == request.params.status)
    async with request.context.views.connect() as connection:
        page = await fetch_page(connection, request.params, query, _PERIOD_KEY)
    return Listing(items=tuple(map(_period, page.rows)), next=page.next, index=page.index)


def _period(row: Row) -> PeriodItem:
    return PeriodItem(
        period=row.period.hex(),
        code=row.code,
        starts_ms=row.starts_ms,
        ends_ms=row.ends_ms,
        statutes_version=row.statutes_version,
        status=row.status,
        index=row.opened_idx,
    )


async def get_period(request: Request[PeriodParams, None]) -> PeriodReply:
    """Read a period and how its revenue was shared."""
    period = bytes.fromhex(request.params.period)
    reported = sa.select(
        sa.func.count().label("reports"), sa.func.coalesce(sa.func.sum(use_reports.c.use_count), 0).label("uses")
    ).where(use_reports.c.period == period)
    async with request.context.views.connect() as connection:
        row = (await connection.execute(_PERIODS.where(periods.c.period == period))).one_or_none()
        if row is None:
            raise Problem("not_found")
        totals = (await connection.execute(reported)).one()
        index = await views_size(connection)
    return PeriodReply(
        period=row.period.hex(),
        code=row.code,
        starts_ms=row.starts_ms,
        ends_ms=row.ends_ms,
        statutes_version=row.statutes_version,
        status=row.status,
        report_count=totals.reports,
        reported_use_count=totals.uses,
        shared=None if row.closed is None else _shared(row),
        opened_index=row.opened_idx,
        index=index,
    )


def _shared(row: Row) -> SharedReply:
    closed = _CLOSED.decode(row.closed)
    return SharedReply(
        revenue_minor=closed.revenue_minor,
        unit=closed.unit,
        heads=tuple(HeadReply(head=head, kind=kind, amount_minor=amount) for head, kind, amount in closed.heads),
        carried_minor=closed.carried_minor,
        work_count=closed.work_count,
        use_count=closed.use_count,
        holder_count=closed.holder_count,
        part_count=closed.part_count,
        paid_part_count=row.paid_parts,
        index=row.closed_idx,
    )


async def get_holder_statement(request: Request[HolderParams, None]) -> HolderStatementReply:
    """Read what a rights-holder gets for a period, work by work."""
    params = request.params
    period, holder = bytes.fromhex(params.period), bytes.fromhex(params.member)
    refuse_unless(may_read_accounts(request.signed_in, holder))
    of_holder = sa.select(royalty_statements).where(
        royalty_statements.c.period == period, royalty_statements.c.holder == holder
    )
    async with request.context.views.connect() as connection:
        row = (await connection.execute(of_holder)).one_or_none()
        if row is None:
            raise Problem("not_found")
        found = (await connection.execute(_earnings(period, holder, params.cursor, params.limit + 1))).all()
        index = await views_size(connection)
    lines, following, shown = page_of(
        found, params.limit, index=index, cursor_of=lambda line: encode_cursor(line.work, line.head)
    )
    return HolderStatementReply(
        period=params.period,
        holder=params.member,
        total_minor=row.total_minor,
        unit=row.unit,
        amounts=tuple(AmountReply(head=head, amount_minor=amount) for head, amount in _AMOUNTS.decode(row.amounts)),
        work_count=row.work_count,
        use_count=row.use_count,
        items=tuple(map(_earning, lines)),
        next=following,
        index=shown,
    )


def _earnings(
    period: bytes, holder: bytes, cursor: str | None, limit: int
) -> sa.Select[tuple[bytes, str, int, int, int]]:
    parts = holder_earnings.c
    same = sa.and_(
        work_earnings.c.period == parts.period,
        work_earnings.c.work == parts.work,
        work_earnings.c.head == parts.head,
    )
    query = (
        sa.select(
            parts.work,
            parts.head,
            parts.amount_minor,
            work_earnings.c.amount_minor.label("work_amount_minor"),
            work_earnings.c.use_count,
        )
        .join(work_earnings, same)
        .where(parts.period == period, parts.holder == holder)
    )
    after = decode_cursor(cursor, tuple[bytes, str])
    if after is not None:
        query = query.where(sa.tuple_(parts.work, parts.head) > sa.tuple_(*after))
    return query.order_by(parts.work, parts.head).limit(limit)


def _earning(row: Row) -> EarningReply:
    return EarningReply(
        work=row.work.hex(),
        head=row.head,
        amount_minor=row.amount_minor,
        work_amount_minor=row.work_amount_minor,
        work_use_count=row.use_count,
    )


ROYALTY_ROUTES: Final[tuple[AnyRoute, ...]] = (
    Route(
        method="GET",
        path="/v1/subscriptions",
        summary="List subscriptions to the catalogue",
        tag="royalties",
        handler=list_subscriptions,
        params=SubscriptionsParams,
        response=Listing[SubscriptionReply],
        errors=("cursor_malformed", "not_allowed"),
    ),
    Route(
        method="GET",
        path="/v1/periods",
        summary="List periods of royalties",
        tag="royalties",
        access="members",
        handler=list_periods,
        params=PeriodsParams,
        response=Listing[PeriodItem],
        errors=("cursor_malformed",),
    ),
    Route(
        method="GET",
        path="/v1/periods/{period}",
        summary="Read a period and how its revenue was shared",
        tag="royalties",
        access="members",
        handler=get_period,
        params=PeriodParams,
        response=PeriodReply,
        errors=("not_found",),
    ),
    Route(
        method="GET",
        path="/v1/periods/{period}/statements/{member}",
        summary="Read what a rights-holder gets for a period, and why",
        tag="royalties",
        handler=get_holder_statement,
        params=HolderParams,
        response=HolderStatementReply,
        errors=("cursor_malformed", "not_allowed", "not_found"),
    ),
)
