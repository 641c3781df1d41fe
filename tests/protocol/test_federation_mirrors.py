# SPDX-License-Identifier: AGPL-3.0-or-later
"""Mirrors are compared by record: delays are told from differences, whatever happens between question and answer."""

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from ledger_kit import seed

from ecot_protocol.domains.federation.mirrors import (
    MIRROR_LISTS,
    Asked,
    Claim,
    Difference,
    Mirror,
    MirrorLists,
    MirrorRow,
    Move,
    Moves,
    Settled,
    compare,
    encode_mirror,
    find_differences,
    lists_hash,
    open_mirror,
    open_moves,
)
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.wire.encoding import encode
from ecot_protocol.wire.keys import Signer

HERE, THERE = b"h" * 32, b"t" * 32
AGENT = Signer(seed("agent"))
NEVER = 10**6


def _tid(number: int) -> bytes:
    return number.to_bytes(16, "big")


def _claim(balance_minor: int = 0, *, recent_from: int = 0, size: int = 10, **statuses: Any) -> Claim:
    mirror = Mirror(
        balance_minor=balance_minor,
        ledger=THERE,
        lists=bytes(32),
        reserved_in_minor=0,
        reserved_out_minor=0,
        size=size,
        unit="BART",
    )
    return Claim(mirror, recent_from, {_tid(int(name[1:])): status for name, status in statuses.items()})


def _rows(**statuses: str) -> dict[bytes, MirrorRow]:
    """Deals of 10 that were promised here by record 1, or, named ``n…``, after the question, by record 9."""
    rows: dict[bytes, MirrorRow] = {}
    for name, status in statuses.items():
        tid = _tid(int(name[1:]))
        rows[tid] = MirrorRow(tid, 10, 9 if name[0] == "n" else 1, status)  # type: ignore[arg-type]
    return rows


def _asked(*numbers: int, since: int = 0) -> Asked:
    return Asked(frozenset(map(_tid, numbers)), since, 5)


@pytest.mark.parametrize(
    ("posted_minor", "rows", "claim", "asked", "kind", "difference_minor"),
    [
        (0, {}, _claim(0), _asked(), "agreed", 0),
        (10, _rows(d1="commit"), _claim(10), _asked(), "agreed", 0),
        (10, _rows(d1="commit"), _claim(0, d1="pending"), _asked(), "agreed", 0),
        (10, _rows(d1="commit"), _claim(10, d1="commit"), _asked(1), "agreed", 0),
        (0, _rows(d1="pending"), _claim(10, d1="commit"), _asked(1), "agreed", 0),
        (0, _rows(d1="pending"), _claim(0, d1="abort"), _asked(1), "agreed", 0),
        (0, _rows(d1="pending"), _claim(0, d1="pending"), _asked(1), "agreed", 0),
        (0, _rows(d1="pending"), _claim(0), _asked(1), "agreed", 0),  # not promised there yet
        (10, _rows(d1="commit"), _claim(0), _asked(1), "agreed", 0),  # promised and posted there after the answer
        (10, _rows(n1="commit"), _claim(0), _asked(), "agreed", 0),  # promised here after the question
        (10, _rows(n1="commit"), _claim(0, recent_from=3), _asked(since=2), "unclear", -10),
        (10, _rows(n1="commit"), _claim(10, n1="commit", recent_from=3), _asked(since=2), "agreed", 0),
        (0, {}, _claim(0, d1="pending"), _asked(), "agreed", 0),  # promised there alone
        (0, {}, _claim(0, d1="abort"), _asked(), "agreed", 0),
        (10, _rows(d1="commit"), _claim(11), _asked(), "differs", 1),
        (10, _rows(d1="commit"), _claim(0), _asked(), "differs", -10),
        (10, _rows(d1="commit"), _claim(0, d1="abort"), _asked(), "differs", -10),
        (0, _rows(d1="abort"), _claim(10, d1="commit"), _asked(), "differs", 10),
        (0, _rows(d1="abort"), _claim(0, d1="commit"), _asked(), "differs", 0),
        (0, {}, _claim(0, d1="commit"), _asked(), "differs", 0),  # posted there, never promised here
        (0, _rows(d1="pending"), _claim(7, d1="commit"), _asked(1), "differs", -3),
    ],
)
def test_a_difference_is_told_from_a_delay(
    posted_minor: int, rows: dict[bytes, MirrorRow], claim: Claim, asked: Asked, kind: str, difference_minor: int
) -> None:
    verdict = compare(posted_minor, rows, claim, asked)
    if kind != "unclear":
        assert verdict.difference_minor == difference_minor
    assert verdict.kind == kind


@dataclass
class History:
    """A deal between two ledgers, the times (which are the indexes) of its records on each."""

    number: int
    amount: int
    opened_here: int
    opened_there: int
    resolved_here: int
    resolved_there: int
    is_commit: bool


@st.composite
def histories(draw: st.DrawFn) -> list[History]:
    found = []
    for number in range(draw(st.integers(0, 12))):
        start = draw(st.integers(0, 100))
        gaps = [draw(st.integers(1, 25)) for _ in range(4)]
        first, second = start, start + gaps[0]
        decided = second + gaps[1]
        is_commit, is_ours_first = draw(st.booleans()), draw(st.booleans())
        is_second_asleep = not is_commit and draw(st.booleans())
        opened = (first, NEVER if is_second_asleep else second)
        resolved = (decided + gaps[2], NEVER if is_second_asleep else decided + gaps[3])
        here, there = (0, 1) if is_ours_first else (1, 0)
        found.append(
            History(
                number,
                draw(st.integers(-50, 50).filter(bool)),
                opened[here],
                opened[there],
                resolved[here],
                resolved[there],
                is_commit,
            )
        )
    return found


def _status(opened: int, resolved: int, now: int, *, is_commit: bool) -> Any:
    if opened >= now:
        return None
    return "pending" if resolved >= now else "commit" if is_commit else "abort"


def _here(deal: History, now: int) -> Any:
    return _status(deal.opened_here, deal.resolved_here, now, is_commit=deal.is_commit)


def _there(deal: History, now: int) -> Any:
    return _status(deal.opened_there, deal.resolved_there, now, is_commit=deal.is_commit)


def _answer(deals: list[History], asked: Asked, now: int, most: int) -> Claim:
    """What an honest partner answers at `now`; it lists at most so many late resolutions."""
    statuses = {_tid(one.number): _there(one, now) for one in deals}
    late = sorted((one for one in deals if one.resolved_there < now), key=lambda one: -one.resolved_there)
    recent_from = max(asked.since, late[most].resolved_there + 1) if len(late) > most else asked.since
    listed = {
        tid: status
        for one in deals
        if (status := statuses[tid := _tid(one.number)]) is not None
        and (status == "pending" or tid in asked.pending or recent_from <= one.resolved_there < now)
    }
    balance = sum(one.amount for one in deals if _there(one, now) == "commit")
    mirror = _claim(balance, size=now).mirror
    return Claim(mirror, recent_from, listed)


def _judge(deals: list[History], times: tuple[int, int, int], known: int, most: int, lie_minor: int = 0) -> Any:
    asking, answering, judging = sorted(times)
    pending = frozenset(_tid(one.number) for one in deals if _here(one, asking) == "pending")
    asked = Asked(pending, min(known, asking), asking)
    claim = _answer(deals, asked, answering, most)
    if lie_minor:
        mirror = _claim(claim.mirror.balance_minor + lie_minor, size=answering).mirror
        claim = Claim(mirror, claim.recent_from, claim.statuses)
    posted_minor = sum(one.amount for one in deals if _here(one, judging) == "commit")
    rows = {
        _tid(one.number): MirrorRow(_tid(one.number), one.amount, one.opened_here, status)
        for one in deals
        if (status := _here(one, judging)) is not None
    }
    return compare(posted_minor, rows, claim, asked)


TIMES = st.tuples(st.integers(0, 220), st.integers(0, 220), st.integers(0, 220))


@settings(max_examples=400, deadline=None)
@given(histories(), TIMES, st.integers(0, 220), st.integers(0, 12))
def test_honest_partners_never_differ(deals: list[History], times: tuple[int, int, int], known: int, most: int) -> None:
    verdict = _judge(deals, times, known, most)
    assert verdict.kind in ("agreed", "unclear")
    if most == 12:  # its list is whole
        assert verdict.kind == "agreed"


@settings(max_examples=400, deadline=None)
@given(histories(), TIMES, st.integers(0, 220), st.integers(-20, 20).filter(bool))
def test_a_wrong_balance_is_never_taken_for_a_delay(
    deals: list[History], times: tuple[int, int, int], known: int, lie_minor: int
) -> None:
    verdict = _judge(deals, times, known, 12, lie_minor)
    assert verdict.kind == "differs"
    assert verdict.difference_minor == lie_minor


@settings(max_examples=200, deadline=None)
@given(histories(), TIMES, st.data())
def test_a_deal_that_one_side_posted_and_the_other_voided_is_found(
    deals: list[History], times: tuple[int, int, int], data: st.DataObject
) -> None:
    asking, answering, judging = sorted(times)
    done = [one for one in deals if one.is_commit and one.resolved_there < answering and one.resolved_here < judging]
    assume(done)
    deal = data.draw(st.sampled_from(done))
    pending = frozenset(_tid(one.number) for one in deals if _here(one, asking) == "pending")
    asked = Asked(pending, 0, asking)
    claim = _answer(deals, asked, answering, 12)
    statuses = {**claim.statuses, _tid(deal.number): "abort"}
    mirror = _claim(claim.mirror.balance_minor - deal.amount, size=answering).mirror
    posted_minor = sum(one.amount for one in deals if _here(one, judging) == "commit")
    rows = {
        _tid(one.number): MirrorRow(_tid(one.number), one.amount, one.opened_here, status)
        for one in deals
        if (status := _here(one, judging)) is not None
    }
    verdict = compare(posted_minor, rows, Claim(mirror, 0, statuses), asked)  # type: ignore[arg-type]
    assert verdict.opposed == (_tid(deal.number),)
    assert verdict.kind == "differs"


def test_deals_that_differ_are_named() -> None:
    ours = _rows(d1="commit", d2="commit", d3="abort", d4="commit", d5="pending", d6="commit")
    theirs = [
        Move(3, _tid(1), 10),
        Move(4, _tid(2), 12),
        Move(6, _tid(3), 10),
        Move(7, _tid(5), 10),
        Move(8, _tid(9), 4),
    ]
    assert find_differences(ours, theirs, waiting=frozenset({_tid(6)})) == (
        Difference("amount_differs", _tid(2), 10, 12, 4),
        Difference("opposed", _tid(3), 0, 10, 6),
        Difference("missing_here", _tid(9), 0, 4, 8),
        Difference("missing_there", _tid(4), 10, 0, None),
    )


# --- what is said, signed -----------------------------------------------------------------------------------------


def _said(**changes: Any) -> dict[str, Any]:
    lists = MIRROR_LISTS.encode(MirrorLists(pending=(_tid(1),), recent_from=0, resolved=(Settled(_tid(2), True),)))
    fields: dict[str, Any] = {
        "balance_minor": 5,
        "ledger": THERE,
        "lists": lists_hash(lists),
        "reserved_in_minor": 0,
        "reserved_out_minor": 3,
        "size": 9,
        "unit": "BART",
    }
    raw = encode_mirror(Mirror(**(fields | changes)), HERE)
    return {"raw": raw, "lists": lists, "signature": _sign(raw)}


def _sign(raw: bytes) -> bytes:
    from ecot_protocol.wire.statement import sign_statement

    return sign_statement(AGENT, raw).signature


def _open(said: dict[str, Any], **changes: Any) -> Claim:
    fields: dict[str, Any] = {"agent": AGENT.public_key, "speaker": THERE, "hearer": HERE}
    return open_mirror(**(said | fields | changes))


def test_a_mirror_is_read_as_it_was_said() -> None:
    claim = _open(_said())
    assert (claim.mirror.balance_minor, claim.statuses) == (5, {_tid(1): "pending", _tid(2): "commit"})


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("bad_signature", {"signature": bytes(64)}),
        ("bad_signature", {"agent": Signer(seed("other")).public_key}),
        ("mirror_unsound", {"speaker": HERE, "hearer": THERE}),
        ("mirror_unsound", {"hearer": b"x" * 32}),
        ("mirror_unsound", {"lists": encode(MirrorLists(pending=(), recent_from=0, resolved=()))}),
    ],
)
def test_a_mirror_that_somebody_else_said_is_refused(code: str, changes: dict[str, Any]) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        _open(_said(), **changes)
    assert caught.value.code == code


def test_a_deal_is_listed_once() -> None:
    lists = MIRROR_LISTS.encode(MirrorLists(pending=(_tid(1),), recent_from=0, resolved=(Settled(_tid(1), True),)))
    said = _said(lists=lists_hash(lists)) | {"lists": lists}
    with pytest.raises(RemoteProtocolError, match="mirror_unsound"):
        _open(said)


@pytest.mark.parametrize(
    ("moves", "more_from", "start"),
    [
        ((Move(5, _tid(1), 1), Move(4, _tid(2), 1)), None, 0),
        ((Move(5, _tid(1), 1),), 5, 0),
        ((), 3, 3),
        ((Move(2, _tid(1), 1),), None, 3),
    ],
)
def test_pages_that_go_back_or_nowhere_are_refused(moves: Any, more_from: int | None, start: int) -> None:
    page = Moves(ledger=THERE, more_from=more_from, moves=moves, size=9, start=start)
    raw = encode_mirror(page, HERE)
    with pytest.raises(RemoteProtocolError, match="mirror_unsound"):
        open_moves(raw, _sign(raw), agent=AGENT.public_key, speaker=THERE, hearer=HERE)


def test_a_page_is_read_as_it_was_said() -> None:
    page = Moves(ledger=THERE, more_from=6, moves=(Move(5, _tid(1), -7),), size=9, start=2)
    raw = encode_mirror(page, HERE)
    assert open_moves(raw, _sign(raw), agent=AGENT.public_key, speaker=THERE, hearer=HERE) == page
