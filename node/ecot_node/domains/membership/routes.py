# SPDX-License-Identifier: AGPL-3.0-or-later
"""Reads of membership: members, their accounts and statements."""

from typing import Final, Literal

import sqlalchemy as sa

from ecot_node.domains.membership.views import mandates, members
from ecot_node.domains.reading import (
    ROW_CURSOR,
    Key,
    Row,
    fetch_page,
    may_read_accounts,
    may_read_member,
    parties_of,
    read_texts,
    refuse_unless,
)
from ecot_node.domains.records.queries import Account, StatementLine, balance_before, statement_lines, views_size
from ecot_node.http.errors import Problem
from ecot_node.http.fields import (
    Count,
    IdHex,
    Integer,
    JsonReply,
    Listing,
    Page,
    TimeMs,
    UnitCode,
    Waiting,
    Word,
)
from ecot_node.http.paging import decode_cursor, encode_cursor, page_of
from ecot_node.http.routes import AnyRoute, Request, Route
from ecot_protocol.domains.membership.state import account_keys
from ecot_protocol.ledger.accounts import AccountKey
from ecot_protocol.ledger.entry_type import COOPERATIVE
from ecot_protocol.state import State
from ecot_protocol.wire.encoding import MAX_INTEGER

MemberStatus = Literal["admitted", "applied", "declined", "excluded", "lapsed", "left"]


class MembersParams(Page, kw_only=True):
    """Which members to list."""

    status: MemberStatus | None = None
    college: Word | None = None


class MemberParams(Waiting, kw_only=True):
    """A member."""

    member: IdHex


class StatementParams(Page, kw_only=True):
    """Which postings of which account of the member.

    Attributes:
        member: owner of the account; the treasurer may name the cooperative (organ ``cooperative``).
        unit: of the account.
        purpose: of the account.
        from_ms: from this instant on.
        to_ms: before this instant.
    """

    member: IdHex
    unit: UnitCode
    purpose: Word
    from_ms: TimeMs = 0
    to_ms: TimeMs = MAX_INTEGER


class MemberItem(JsonReply):
    """A member. `since_ms`: since when it has its status. `index`: record of its application."""

    member: IdHex
    handle: str
    kind: str
    college: str
    status: MemberStatus
    applied_at_ms: TimeMs
    since_ms: TimeMs
    index: Count


class MemberMandateReply(JsonReply):
    """A person may act for the member; None is no limit and no end."""

    person: IdHex
    scopes: tuple[str, ...]
    trade_limit_minor: Count | None
    day_limit_minor: Count | None
    from_ms: TimeMs
    until_ms: TimeMs | None


class MemberReply(JsonReply):
    """A member. What follows `since_ms` is for the member's persons and for the officers; None or empty for others.

    Attributes:
        fee_due_ms: when the next fee can be charged.
        identity: what the member said of itself when it applied, unless it was erased.
        mandates: who may act for it.
        applied_index: record of its application.
        index: how many records the views showed.
    """

    member: IdHex
    handle: str
    kind: str
    college: str
    status: MemberStatus
    applied_at_ms: TimeMs
    since_ms: TimeMs
    fee_due_ms: TimeMs | None
    identity: str | None
    mandates: tuple[MemberMandateReply, ...]
    applied_index: Count
    index: Count


class AccountReply(JsonReply):
    """An account as the state has it now; limits are None where there is none."""

    unit: UnitCode
    purpose: str
    balance_minor: Integer
    reserved_in_minor: Count
    reserved_out_minor: Count
    lower_minor: Integer | None
    upper_minor: Integer | None


class AccountsReply(JsonReply):
    """Every account of a member, as of `size` records."""

    items: tuple[AccountReply, ...]
    size: Count


class LineReply(JsonReply):
    """A posting as the owner of the account sees it.

    Attributes:
        index: record.
        at_ms: time of the record.
        amount_minor: negative if it went out.
        balance_minor: of the account after it.
        other: owner of the other account; `other_purpose` names which.
        cause: object that it belongs to.
        reason: what it was for.
    """

    index: Count
    at_ms: TimeMs
    amount_minor: Integer
    balance_minor: Integer
    other: IdHex
    other_purpose: str
    cause: IdHex
    reason: str


class StatementReply(JsonReply):
    """One page of a statement; `opening_minor` is the balance before its first line."""

    opening_minor: Integer
    items: tuple[LineReply, ...]
    next: str | None
    index: Count


_MEMBERS: Final = sa.select(*members.c)
_BY_APPLICATION: Final = Key(members.c.applied_idx)


async def list_members(request: Request[MembersParams, None]) -> Listing[MemberItem]:
    """List members in the order of their applications."""
    query = _MEMBERS
    if request.params.status is not None:
        query = query.where(members.c.status == request.params.status)
    if request.params.college is not None:
        query = query.where(members.c.college == request.params.college)
    async with request.context.views.connect() as connection:
        page = await fetch_page(connection, request.params, query, _BY_APPLICATION)
    return Listing(items=tuple(map(_item, page.rows)), next=page.next, index=page.index)


def _item(row: Row) -> MemberItem:
    return MemberItem(
        member=row.member.hex(),
        handle=row.handle,
        kind=row.kind,
        college=row.college,
        status=row.status,
        applied_at_ms=row.applied_at_ms,
        since_ms=row.since_ms,
        index=row.applied_idx,
    )


async def get_member(request: Request[MemberParams, None]) -> MemberReply:
    """Read a member."""
    caller, member = request.signed_in, bytes.fromhex(request.params.member)
    refuse_unless(caller.is_member or caller.acts_for(member))
    is_near = may_read_member(caller, member)
    async with request.context.views.connect() as connection:
        row = (await connection.execute(_MEMBERS.where(members.c.member == member))).one_or_none()
        if row is None:
            raise Problem("not_found")
        of_member = sa.select(mandates).where(mandates.c.member == member).order_by(mandates.c.person)
        mandated = (await connection.execute(of_member)).all() if is_near else ()
        parties = await parties_of(connection, (row.applied_idx,))
        index = await views_size(connection)
    identity = await read_texts(request, parties, "identity")
    return MemberReply(
        member=row.member.hex(),
        handle=row.handle,
        kind=row.kind,
        college=row.college,
        status=row.status,
        applied_at_ms=row.applied_at_ms,
        since_ms=row.since_ms,
        fee_due_ms=row.fee_due_ms if is_near else None,
        identity=identity.get(row.applied_idx) if is_near else None,
        mandates=tuple(map(_mandate, mandated)),
        applied_index=row.applied_idx,
        index=index,
    )


def _mandate(row: Row) -> MemberMandateReply:
    return MemberMandateReply(
        person=row.person.hex(),
        scopes=tuple(row.scopes.split(" ")),
        trade_limit_minor=row.trade_limit_minor,
        day_limit_minor=row.day_limit_minor,
        from_ms=row.from_ms,
        until_ms=row.until_ms,
    )


def _accounts_of(state: State, owner: bytes) -> AccountsReply | None:
    if owner == COOPERATIVE:
        keys = tuple(key for key in state.accounts.rows if key.owner == COOPERATIVE)
    elif owner in state.membership.members:
        keys = account_keys(state, owner)
    else:
        return None
    return AccountsReply(items=tuple(_account(state, key) for key in keys), size=state.size)


def _account(state: State, key: AccountKey) -> AccountReply:
    account = state.accounts.rows[key]
    return AccountReply(
        unit=key.unit,
        purpose=key.purpose,
        balance_minor=account.balance_minor,
        reserved_in_minor=account.reserved_in_minor,
        reserved_out_minor=account.reserved_out_minor,
        lower_minor=account.lower_minor,
        upper_minor=account.upper_minor,
    )


async def get_accounts(request: Request[MemberParams, None]) -> AccountsReply:
    """Read the accounts of a member now."""
    owner = bytes.fromhex(request.params.member)
    refuse_unless(may_read_member(request.signed_in, owner))
    found = await request.context.ledger.read(lambda state: _accounts_of(state, owner))
    if found is None:
        raise Problem("not_found")
    return found


async def get_statement(request: Request[StatementParams, None]) -> StatementReply:
    """Read the postings of an account with its running balance, oldest first."""
    params = request.params
    owner = bytes.fromhex(params.member)
    refuse_unless(may_read_accounts(request.signed_in, owner))
    cursor = decode_cursor(params.cursor, ROW_CURSOR)
    after = -1 if cursor is None else cursor[0]
    account = Account(owner, params.unit, params.purpose)
    async with request.context.views.connect() as connection:
        opening = await balance_before(connection, account, from_ms=params.from_ms, after=after)
        found = await statement_lines(
            connection, account, from_ms=params.from_ms, to_ms=params.to_ms, after=after, limit=params.limit + 1
        )
        index = await views_size(connection)
    lines, following, shown = page_of(found, params.limit, index=index, cursor_of=lambda line: encode_cursor(line.seq))
    return StatementReply(opening_minor=opening, items=_with_balance(lines, opening), next=following, index=shown)


def _with_balance(lines: tuple[StatementLine, ...], opening_minor: int) -> tuple[LineReply, ...]:
    replies, balance = [], opening_minor
    for line in lines:
        balance += line.amount_minor
        replies.append(
            LineReply(
                index=line.record_index,
                at_ms=line.at_ms,
                amount_minor=line.amount_minor,
                balance_minor=balance,
                other=line.other.hex(),
                other_purpose=line.other_purpose,
                cause=line.cause.hex(),
                reason=line.reason,
            )
        )
    return tuple(replies)


MEMBERSHIP_ROUTES: Final[tuple[AnyRoute, ...]] = (
    Route(
        method="GET",
        path="/v1/members",
        summary="List members",
        tag="members",
        access="members",
        handler=list_members,
        params=MembersParams,
        response=Listing[MemberItem],
        errors=("cursor_malformed",),
    ),
    Route(
        method="GET",
        path="/v1/members/{member}",
        summary="Read a member",
        tag="members",
        handler=get_member,
        params=MemberParams,
        response=MemberReply,
        errors=("not_allowed", "not_found"),
    ),
    Route(
        method="GET",
        path="/v1/members/{member}/accounts",
        summary="Read the accounts of a member now",
        tag="members",
        handler=get_accounts,
        params=MemberParams,
        response=AccountsReply,
        errors=("not_allowed", "not_found"),
    ),
    Route(
        method="GET",
        path="/v1/members/{member}/statement",
        summary="Read the postings of an account with its running balance",
        tag="members",
        handler=get_statement,
        params=StatementParams,
        response=StatementReply,
        errors=("cursor_malformed", "not_allowed"),
    ),
)
