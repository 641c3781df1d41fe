# SPDX-License-Identifier: AGPL-3.0-or-later
"""Reads of governance: polls, stances, outcomes. All of it is for members."""

from typing import Final, Literal

import msgspec
import sqlalchemy as sa

from ecot_node.domains.governance.views import polls, stances
from ecot_node.domains.reading import Key, Row, fetch_page, parties_of, read_texts
from ecot_node.domains.records.queries import views_size
from ecot_node.http.errors import Problem
from ecot_node.http.fields import Count, HashHex, IdHex, JsonReply, Listing, Page, Positive, TimeMs, Waiting
from ecot_node.http.routes import AnyRoute, Request, Route
from ecot_protocol.domains.coop.statutes import Statutes
from ecot_protocol.domains.governance.facts import PollClosed, PollOpened
from ecot_protocol.domains.governance.tally import CollegeCount, Terms

PollStatus = Literal["closed", "open"]


class PollsParams(Page, kw_only=True):
    """Which polls."""

    status: PollStatus | None = None


class PollParams(Waiting, kw_only=True):
    """A poll."""

    poll: IdHex


class StancesParams(Page, kw_only=True):
    """Stances of a poll."""

    poll: IdHex


class CollegeReply(JsonReply):
    """Votes of a college, in the order of the poll's options; `weight_bp` of 10,000."""

    code: str
    weight_bp: Count
    electors: Count
    counts: tuple[Count, ...]


class ScoreReply(JsonReply):
    """The exact score of an option: numerator and denominator in decimal digits; `ppm`: in millionths, rounded down."""

    option: str
    numerator: str
    denominator: str
    ppm: Count


class PollOutcomeReply(JsonReply):
    """What came out of a poll; `winner` is None if no option won."""

    electors: Count
    cast: Count
    colleges: tuple[CollegeReply, ...]
    scores: tuple[ScoreReply, ...]
    is_quorum_met: bool
    winner: str | None
    is_adopted: bool
    adoptable_until_ms: TimeMs | None
    index: Count


class PollItem(JsonReply):
    """A poll in a list. `status` is ``closed`` once its outcome is recorded; votes end at `closes_at_ms`."""

    poll: IdHex
    author: IdHex
    question: str | None
    kind: str
    options: tuple[str, ...]
    opens_at_ms: TimeMs
    closes_at_ms: TimeMs
    status: PollStatus
    winner: str | None
    index: Count


class PollReply(JsonReply):
    """A poll.

    Attributes:
        question: title and text; None if there is none or it was erased.
        terms: how it is counted.
        colleges: electors by college, when it was opened.
        roll: hash of the frozen electorate.
        statutes_version: in force then.
        statutes: those that it would adopt.
        outcome: None while it is open.
        opened_index: record that opened it.
        index: how many records the views showed.
    """

    poll: IdHex
    author: IdHex
    question: str | None
    terms: Terms
    opens_at_ms: TimeMs
    closes_at_ms: TimeMs
    status: PollStatus
    colleges: tuple[CollegeReply, ...]
    roll: HashHex
    statutes_version: Positive
    statutes: Statutes | None
    outcome: PollOutcomeReply | None
    opened_index: Count
    index: Count


class StanceReply(JsonReply):
    """A member's newest stance; `reason` is None if it gave none or it was erased."""

    member: IdHex
    college: str
    choice: str
    reason: str | None
    at_ms: TimeMs
    index: Count


_POLLS: Final = sa.select(*polls.c)
_NEWEST_FIRST: Final = Key(polls.c.opened_idx, is_newest_first=True)
_BY_MEMBER: Final = Key(stances.c.member, is_bytes=True)
_OPENED: Final = msgspec.json.Decoder(PollOpened)
_CLOSED: Final = msgspec.json.Decoder(PollClosed)


async def list_polls(request: Request[PollsParams, None]) -> Listing[PollItem]:
    """List polls, newest first."""
    query = _POLLS
    if request.params.status is not None:
        query = query.where(polls.c.status == request.params.status)
    async with request.context.views.connect() as connection:
        page = await fetch_page(connection, request.params, query, _NEWEST_FIRST)
        parties = await parties_of(connection, [row.opened_idx for row in page.rows])
    questions = await read_texts(request, parties, "question")
    items = tuple(_item(row, questions.get(row.opened_idx)) for row in page.rows)
    return Listing(items=items, next=page.next, index=page.index)


def _item(row: Row, question: str | None) -> PollItem:
    opened = _OPENED.decode(row.opened)
    return PollItem(
        poll=opened.poll.hex(),
        author=opened.author.hex(),
        question=question,
        kind=opened.terms.kind,
        options=opened.terms.options,
        opens_at_ms=row.opens_at_ms,
        closes_at_ms=row.closes_at_ms,
        status=row.status,
        winner=None if row.closed is None else _CLOSED.decode(row.closed).winner,
        index=row.opened_idx,
    )


async def get_poll(request: Request[PollParams, None]) -> PollReply:
    """Read a poll."""
    async with request.context.views.connect() as connection:
        query = _POLLS.where(polls.c.poll == bytes.fromhex(request.params.poll))
        row = (await connection.execute(query)).one_or_none()
        if row is None:
            raise Problem("not_found")
        parties = await parties_of(connection, (row.opened_idx,))
        index = await views_size(connection)
    questions = await read_texts(request, parties, "question")
    opened: PollOpened = _OPENED.decode(row.opened)
    return PollReply(
        poll=opened.poll.hex(),
        author=opened.author.hex(),
        question=questions.get(row.opened_idx),
        terms=opened.terms,
        opens_at_ms=row.opens_at_ms,
        closes_at_ms=row.closes_at_ms,
        status=row.status,
        colleges=tuple(map(_college, opened.colleges)),
        roll=opened.roll.hex(),
        statutes_version=opened.statutes_version,
        statutes=opened.statutes,
        outcome=None if row.closed is None else _outcome(_CLOSED.decode(row.closed), row.closed_idx),
        opened_index=row.opened_idx,
        index=index,
    )


def _college(college: CollegeCount) -> CollegeReply:
    return CollegeReply(
        code=college.code, weight_bp=college.weight_bp, electors=college.electors, counts=college.counts
    )


def _outcome(closed: PollClosed, index: int) -> PollOutcomeReply:
    return PollOutcomeReply(
        electors=closed.electors,
        cast=closed.cast,
        colleges=tuple(map(_college, closed.colleges)),
        scores=tuple(
            ScoreReply(option=one.option, numerator=one.numerator, denominator=one.denominator, ppm=one.ppm)
            for one in closed.scores
        ),
        is_quorum_met=closed.is_quorum_met,
        winner=closed.winner,
        is_adopted=closed.is_adopted,
        adoptable_until_ms=closed.adoptable_until_ms,
        index=index,
    )


async def list_stances(request: Request[StancesParams, None]) -> Listing[StanceReply]:
    """List the newest stance of each member in a poll, by member's id."""
    columns = (column for column in stances.c if column.name not in {"poll", "member"})
    query = sa.select(stances.c.member, *columns).where(stances.c.poll == bytes.fromhex(request.params.poll))
    async with request.context.views.connect() as connection:
        page = await fetch_page(connection, request.params, query, _BY_MEMBER)
        parties = await parties_of(connection, [row.idx for row in page.rows if row.has_reason])
    reasons = await read_texts(request, parties, "reason")
    items = tuple(_stance(row, reasons.get(row.idx)) for row in page.rows)
    return Listing(items=items, next=page.next, index=page.index)


def _stance(row: Row, reason: str | None) -> StanceReply:
    return StanceReply(
        member=row.member.hex(), college=row.college, choice=row.choice, reason=reason, at_ms=row.at_ms, index=row.idx
    )


GOVERNANCE_ROUTES: Final[tuple[AnyRoute, ...]] = (
    Route(
        method="GET",
        path="/v1/polls",
        summary="List polls",
        tag="polls",
        access="members",
        handler=list_polls,
        params=PollsParams,
        response=Listing[PollItem],
        errors=("cursor_malformed",),
    ),
    Route(
        method="GET",
        path="/v1/polls/{poll}",
        summary="Read a poll and its outcome",
        tag="polls",
        access="members",
        handler=get_poll,
        params=PollParams,
        response=PollReply,
        errors=("not_found",),
    ),
    Route(
        method="GET",
        path="/v1/polls/{poll}/stances",
        summary="List the stances in a poll",
        tag="polls",
        access="members",
        handler=list_stances,
        params=StancesParams,
        response=Listing[StanceReply],
        errors=("cursor_malformed",),
    ),
)
