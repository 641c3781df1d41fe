# SPDX-License-Identifier: AGPL-3.0-or-later
"""Polls and votes; statutes, shown and amended."""

import re
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from ecot_cli.acting import record, record_for_office, show_done
from ecot_cli.amounts import DAY_MS, format_instant, parse_day
from ecot_cli.errors import UsageProblem
from ecot_cli.framework import Command, argument, option
from ecot_cli.run import Run, member_names, read_id
from ecot_cli.standing import standing_of
from ecot_client.errors import NotRecorded
from ecot_client.models import DraftOutcome, PollInfo, StatutesInfo
from ecot_client.node import NodeClient
from ecot_client.receipts import Receipt
from ecot_protocol.domains.coop.acts import AmendStatutes
from ecot_protocol.domains.coop.statutes import Statutes
from ecot_protocol.domains.governance.acts import AdoptStatutes, ClosePoll, OpenPoll, Vote
from ecot_protocol.domains.governance.state import Amendment
from ecot_protocol.domains.governance.tally import AMENDMENT_OPTIONS, CONSENT_OPTIONS
from ecot_protocol.ledger.amounts import Rate
from ecot_protocol.wire.encoding import Wire

PollId = Annotated[str, argument("poll")]
IsBoard = Annotated[bool, option("--board", "for_board")]
_RATE: Final = re.compile(r"(\d{1,9})\s*(?:%|/\s*(\d{1,9}))")
_FROM_NOW_MS: Final = 60_000
"""A version of the statutes takes force after its record, never before."""


def parse_rate(text: str) -> Rate:
    """Read ``1/2`` or ``50%``.

    Raises:
        UsageProblem: ``rate_malformed``.

    >>> parse_rate("2/3").denominator, parse_rate("10 %").numerator
    (3, 10)
    """
    found = _RATE.fullmatch(text.strip().replace("\u202f", " "))
    if found is None or found[2] == "0":
        raise UsageProblem("rate_malformed", rate=text)
    return Rate(denominator=int(found[2] or 100), numerator=int(found[1]))


async def open_poll(
    run: Run,
    question: Annotated[str, argument("question")],
    *,
    kind: Annotated[str, option("--kind", "poll_kind")] = "consent",
    choices: Annotated[list[str] | None, option("--option", "poll_option")] = None,
    days: Annotated[float, option("--days", "poll_days", min=0)] = 7,
    quorum: Annotated[str, option("--quorum", "quorum")] = "10%",
    majority: Annotated[str, option("--majority", "majority")] = "1/2",
    weighting: Annotated[str, option("--weighting", "weighting")] = "members",
    is_board: IsBoard = False,
) -> None:
    """Open a poll among all members of this moment."""
    async with run.node() as node:
        found = await node.statutes()
        now = node.clock_ms()
        payload = OpenPoll(
            amendment=None,
            closes_at_ms=now + int(days * DAY_MS),
            kind=_poll_kind(kind),
            majority=parse_rate(majority),
            opens_at_ms=now,
            options=CONSENT_OPTIONS if kind == "consent" else tuple(choices or ()),
            question=None,
            quorum=parse_rate(quorum),
            statutes_version=found.version,
            weighting=_weighting(weighting),
        )
        done = await _open(run, node, payload, question, is_board=is_board)
    show_done(run, done, "poll_opened", closes=format_instant(payload.closes_at_ms, run.locale))


def _poll_kind(kind: str) -> Literal["consent", "single_choice"]:
    match kind:
        case "consent":
            return "consent"
        case "single_choice" | "single-choice":
            return "single_choice"
        case _:
            raise UsageProblem("poll_kind_unknown", kind=kind)


def _weighting(weighting: str) -> Literal["colleges", "members"]:
    match weighting:
        case "colleges":
            return "colleges"
        case "members":
            return "members"
        case _:
            raise UsageProblem("weighting_unknown", weighting=weighting)


async def _open(
    run: Run, node: NodeClient, payload: OpenPoll, question: str | None, *, is_board: bool
) -> Receipt | DraftOutcome:
    contents = {"question": question}
    if is_board:
        return await record_for_office(node, "board", "governance.open_poll", payload, contents=contents)
    return await _as_member(run, node, "governance.open_poll", payload, contents)


async def _as_member(
    run: Run, node: NodeClient, tag: str, payload: Wire, contents: dict[str, str | None] | None = None
) -> Receipt:
    mine = await run.member(node)
    return await record(node, tag, payload, author=bytes.fromhex(mine.member), contents=contents)


async def list_polls(run: Run, status: Annotated[str | None, option("--status", "status")] = None) -> None:
    """List polls."""
    async with run.node() as node:
        found = [one async for one in node.polls(status=status)]
        standing = await standing_of(run, node)
    if run.out.json(standing.told(found)):
        return
    run.out.table(
        ("question", "kind", "status", "standing", "closes", "outcome", "id"),
        (
            (
                one.question,
                run.out.word("poll_kind", one.kind),
                run.out.word("poll", one.status),
                standing.shown(run, one.index),
                format_instant(one.closes_at_ms, run.locale),
                run.out.word("choice", one.winner) if one.winner else None,
                one.poll,
            )
            for one in found
        ),
    )


async def show_poll(run: Run, poll: PollId) -> None:
    """Show a poll: its stances, and its outcome once it is closed."""
    async with run.node() as node:
        found = await node.poll(poll)
        stances = [one async for one in node.stances(poll)]
        standing = await standing_of(run, node)
        names = {} if run.options.is_json else await member_names(node)
    if run.out.json({"poll": found, "stances": standing.told(stances)}):
        return
    run.out.say(
        "poll",
        question=found.question or found.poll,
        status=run.out.word("poll", found.status),
        closes=format_instant(found.closes_at_ms, run.locale),
    )
    rows = (
        (
            names.get(one.member, one.member[:8]),
            one.college,
            run.out.word("choice", one.choice),
            standing.shown(run, one.index),
            one.reason,
        )
        for one in stances
    )
    run.out.table(("member", "college", "choice", "standing", "reason"), rows)
    _show_outcome(run, found)


def _show_outcome(run: Run, found: PollInfo) -> None:
    outcome = found.outcome
    if outcome is None:
        return
    run.out.table(
        ("choice", "score>"),
        ((run.out.word("choice", one.option), f"{one.numerator}/{one.denominator}") for one in outcome.scores),
    )
    run.out.say(
        "poll_outcome",
        winner=run.out.word("choice", outcome.winner) if outcome.winner else run.out.text("say.no_winner"),
        cast=outcome.cast,
        electors=outcome.electors,
    )


async def close_poll(run: Run, poll: PollId, is_board: IsBoard = False) -> None:
    """Record the outcome of a poll whose time is over, and the statutes that it adopted.

    Nodes do this by themselves; whoever comes second finds it done.
    """
    async with run.node() as node:
        found = await node.poll(poll)
        if found.outcome is None:
            done = await _close(run, node, poll, is_board=is_board)
            if isinstance(done, DraftOutcome):
                show_done(run, done)
                return
            found = await node.poll(poll, wait_for=(await node.ledger()).size - 1)
        outcome = found.outcome
        adopted = outcome is not None and outcome.is_adopted and found.statutes is not None
        if adopted:
            await _adopt(run, node, poll, is_board=is_board)
    shown = {"status": found.status, "poll": poll, "outcome": outcome, "is_adopted": adopted}
    if not run.out.json(shown):
        _show_outcome(run, found)
        run.out.say("poll_closed_adopted" if adopted else "poll_closed")


async def _close(run: Run, node: NodeClient, poll: str, *, is_board: bool) -> Receipt | DraftOutcome | None:
    """Record the outcome; None if somebody else has just done so."""
    try:
        return await _send(run, node, "governance.close_poll", ClosePoll(poll=read_id(poll)), is_board=is_board)
    except NotRecorded as refused:
        if refused.code == "poll_unknown":
            return None
        raise


async def _adopt(run: Run, node: NodeClient, poll: str, *, is_board: bool) -> None:
    """Record the statutes that the poll adopted, unless they are recorded."""
    try:
        await _send(run, node, "governance.adopt_statutes", AdoptStatutes(poll=read_id(poll)), is_board=is_board)
    except NotRecorded as refused:
        if refused.code != "poll_adopted_nothing":
            raise


async def _send(run: Run, node: NodeClient, tag: str, payload: Wire, *, is_board: bool) -> Receipt | DraftOutcome:
    if is_board:
        return await record_for_office(node, "board", tag, payload)
    return await _as_member(run, node, tag, payload)


async def vote(
    run: Run,
    poll: PollId,
    choice: Annotated[str, argument("choice")],
    reason: Annotated[str | None, option("--reason", "reason")] = None,
) -> None:
    """Take a stance in a poll, or change it; an objection needs a reason."""
    async with run.node() as node:
        payload = Vote(choice=choice, poll=read_id(poll), reason=None)
        receipt = await _as_member(run, node, "governance.vote", payload, {"reason": reason})
    show_done(run, receipt, "voted", choice=run.out.word("choice", choice))


async def show_statutes(
    run: Run,
    version: Annotated[int | None, option("--version", "version", min=1)] = None,
    output: Annotated[Path | None, option("--output", "statutes_output")] = None,
) -> None:
    """Show the statutes, or write them to a file that can be edited and proposed again."""
    async with run.node() as node:
        found = await node.statutes(version)
    text = msgspec.json.format(msgspec.json.encode(found.statutes)).decode()
    if output is not None:
        output.write_text(text + "\n", encoding="utf-8")
    if run.out.json(found):
        return
    run.out.say("statutes", version=found.version, since=format_instant(found.in_force_from_ms, run.locale))
    if output is None:
        run.out.plain(text)


async def amend_statutes(
    run: Run,
    file: Annotated[Path, argument("statutes_file")],
    in_force: Annotated[str | None, option("--in-force", "in_force")] = None,
    question: Annotated[str | None, option("--question", "question")] = None,
    days: Annotated[float, option("--days", "poll_days", min=0)] = 14,
    is_board: IsBoard = False,
) -> None:
    """Amend the statutes from a file: by the board, or by a poll where the statutes ask for one."""
    statutes = _read_statutes(file)
    async with run.node() as node:
        found = await node.statutes()
        newest = (await node.info()).statutes_version or found.version
        now = node.clock_ms()
        from_ms = parse_day(in_force) if in_force else now + _FROM_NOW_MS
        if found.statutes.governance.statutes_amended_by == "board":
            payload = AmendStatutes(in_force_from_ms=from_ms, statutes=statutes, version=newest + 1)
            done = await record_for_office(node, "board", "coop.amend_statutes", payload)
        else:
            amendment = Amendment(
                in_force_delay_ms=max(from_ms - now, 0) if in_force else 0, statutes=statutes, version=newest + 1
            )
            poll = _amendment_poll(found, amendment, now, now + int(days * DAY_MS))
            done = await _open(run, node, poll, question, is_board=is_board)
    show_done(run, done, "statutes_amended", version=newest + 1)


def _read_statutes(file: Path) -> Statutes:
    try:
        return msgspec.json.decode(file.read_bytes(), type=Statutes)
    except msgspec.MsgspecError as error:
        raise UsageProblem("statutes_malformed", str(error), path=str(file), why=str(error)) from None


def _amendment_poll(found: StatutesInfo, amendment: Amendment, opens_at_ms: int, closes_at_ms: int) -> OpenPoll:
    rules = found.statutes.governance
    return OpenPoll(
        amendment=amendment,
        closes_at_ms=closes_at_ms,
        kind="single_choice",
        majority=rules.statutes_majority,
        opens_at_ms=opens_at_ms,
        options=AMENDMENT_OPTIONS,
        question=None,
        quorum=rules.statutes_quorum,
        statutes_version=found.version,
        weighting="colleges",
    )


GOVERNANCE_COMMANDS: Final = (
    Command("poll open", open_poll),
    Command("poll list", list_polls),
    Command("poll show", show_poll),
    Command("poll close", close_poll),
    Command("vote", vote),
    Command("statutes show", show_statutes),
    Command("statutes amend", amend_statutes),
)
