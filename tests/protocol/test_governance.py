# SPDX-License-Identifier: AGPL-3.0-or-later
"""Polls in a ledger: who opens, who votes, until when, what comes out, and statutes adopted by it."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from ledger_kit import DAY_MS, Actor, LedgerKit, percent, statutes

from ecot_protocol.domains.coop.acts import AmendStatutes
from ecot_protocol.domains.coop.facts import StatutesAdopted
from ecot_protocol.domains.coop.statutes import College, Statutes
from ecot_protocol.domains.governance import acts, facts
from ecot_protocol.domains.governance.acts import AdoptStatutes, ClosePoll, OpenPoll, Vote
from ecot_protocol.domains.governance.roll import make_roll, roll_hash
from ecot_protocol.domains.governance.state import ADOPTION_WINDOW_MS, Amendment
from ecot_protocol.domains.governance.tally import AMENDMENT_OPTIONS, CONSENT_OPTIONS, recount
from ecot_protocol.domains.membership.acts import Exclude, Leave
from ecot_protocol.ledger.accounts import AccountKey
from ecot_protocol.ledger.amounts import Rate
from ecot_protocol.ledger.entry_type import BOARD
from ecot_protocol.machine import ENTRY_TYPES
from ecot_protocol.wire.encoding import Wire
from ecot_protocol.wire.entry import Attachment, commitment

SALT = bytes(32)
WHY = Attachment("reason", SALT, b"trop cher")
UNKNOWN = b"?" * 16


def by_poll(**changes: Any) -> Statutes:
    """Statutes that a poll amends."""
    base = statutes()
    return msgspec.structs.replace(
        base, governance=msgspec.structs.replace(base.governance, statutes_amended_by="poll", **changes)
    )


def poll(kit: LedgerKit, **changes: Any) -> OpenPoll:
    """A consent of a day, by members, that any change may alter."""
    values: dict[str, Any] = {
        "amendment": None,
        "closes_at_ms": kit.now + DAY_MS,
        "kind": "consent",
        "majority": percent(0),
        "opens_at_ms": 0,
        "options": CONSENT_OPTIONS,
        "question": None,
        "quorum": percent(0),
        "statutes_version": 1,
        "weighting": "members",
    }
    return OpenPoll(**(values | changes))


def amending(kit: LedgerKit, new: Statutes | None = None, **changes: Any) -> OpenPoll:
    """A poll that adopts statutes, two days after they are recorded."""
    amendment = Amendment(in_force_delay_ms=2 * DAY_MS, statutes=new or by_poll(), version=2)
    values: dict[str, Any] = {
        "amendment": amendment,
        "kind": "single_choice",
        "majority": percent(50),
        "options": AMENDMENT_OPTIONS,
        "quorum": percent(10),
        "weighting": "colleges",
    }
    return poll(kit, **(values | changes))


def open_poll(kit: LedgerKit, payload: OpenPoll, actor: Actor) -> bytes:
    """Record the poll and return its id."""
    (opened,) = kit.must("governance.open_poll", payload, **kit.by(actor))
    assert isinstance(opened, facts.PollOpened)
    return opened.poll


def vote(kit: LedgerKit, actor: Actor, poll_id: bytes, choice: str) -> None:
    kit.must("governance.vote", Vote(choice=choice, poll=poll_id, reason=None), **kit.by(actor))


def close(kit: LedgerKit, poll_id: bytes) -> facts.PollClosed:
    """Let a day pass and close the poll as the node does."""
    kit.now += DAY_MS
    (closed,) = kit.must("governance.close_poll", ClosePoll(poll=poll_id), author=None, signers=(kit.agent,))
    assert isinstance(closed, facts.PollClosed)
    return closed


def adopted(kit: LedgerKit, actor: Actor) -> bytes:
    """Let a poll adopt statutes; return its id."""
    poll_id = open_poll(kit, amending(kit, weighting="members"), actor)
    vote(kit, actor, poll_id, "for")
    assert close(kit, poll_id).is_adopted
    return poll_id


# ------------------------------------------------------------------------------------------------- what comes out


def test_colleges_weigh_what_the_statutes_say() -> None:
    kit = LedgerKit()
    users = [kit.join(f"user{number}") for number in range(3)]
    worker, partner = kit.join("worker", "workers"), kit.join("partner", "partners")
    poll_id = open_poll(
        kit,
        poll(kit, kind="single_choice", options=("red", "blue"), weighting="colleges", majority=percent(50)),
        worker,
    )
    for actor, choice in zip([*users, worker, partner], ("red", "red", "blue", "blue", "blue"), strict=True):
        vote(kit, actor, poll_id, choice)
    closed = close(kit, poll_id)
    red, blue = closed.scores
    assert (red.numerator, red.denominator, red.ppm) == ("1", "3", 333_333)  # 5,000 x 2/3 of 10,000
    assert (blue.numerator, blue.denominator) == ("2", "3")
    assert (closed.winner, closed.is_adopted, closed.cast, closed.electors) == ("blue", True, 5, 5)
    assert [(one.code, one.electors, one.counts) for one in closed.colleges] == [
        ("users", 3, (2, 1)),
        ("workers", 1, (0, 1)),
        ("partners", 1, (0, 1)),
    ]


def test_the_last_vote_stands() -> None:
    kit = LedgerKit()
    ada = kit.join("ada")
    poll_id = open_poll(kit, poll(kit), ada)
    vote(kit, ada, poll_id, "agree")
    objection = Vote(choice="object", poll=poll_id, reason=commitment(SALT, WHY.content))
    (stance,) = kit.must("governance.vote", objection, **kit.by(ada), attachments=(WHY,))
    assert isinstance(stance, facts.StanceTaken)
    assert (stance.previous, stance.choice, stance.has_reason) == ("agree", "object", True)
    assert not close(kit, poll_id).is_adopted


def test_a_member_recounts_a_poll_from_facts_alone() -> None:
    kit = LedgerKit()
    actors = [kit.join(f"m{number}", ("users", "workers", "partners")[number % 3]) for number in range(7)]
    (opened,) = kit.must("governance.open_poll", poll(kit, weighting="colleges"), **kit.by(actors[0]))
    assert isinstance(opened, facts.PollOpened)
    stances: list[facts.StanceTaken] = []
    for number, actor in enumerate([*actors, actors[1]]):
        choice = Vote(choice=("agree", "abstain")[number % 2], poll=opened.poll, reason=None)
        stances += kit.must("governance.vote", choice, **kit.by(actor))  # type: ignore[arg-type]
    closed = close(kit, opened.poll)
    colleges = {actor.member: ("users", "workers", "partners")[number % 3] for number, actor in enumerate(actors)}
    weights = [(one.code, one.weight_bp) for one in opened.colleges]
    assert roll_hash(make_roll(colleges.items(), [code for code, _ in weights])) == opened.roll
    outcome = recount(opened.terms, weights, colleges, [(one.member, one.choice) for one in stances])
    assert [(str(s.numerator), str(s.denominator)) for s in outcome.scores] == [
        (s.numerator, s.denominator) for s in closed.scores
    ]
    assert (outcome.winner, outcome.cast, outcome.electors) == (closed.winner, closed.cast, closed.electors)


def test_the_electorate_is_frozen_at_the_opening() -> None:
    kit = LedgerKit()
    ada, bob = kit.join("ada"), kit.join("bob")
    poll_id = open_poll(kit, poll(kit, quorum=percent(50)), ada)
    late = kit.join("late")
    agree = Vote(choice="agree", poll=poll_id, reason=None)
    assert kit.refused("governance.vote", agree, **kit.by(late)) == "not_an_elector"
    kit.must("membership.exclude", Exclude(member=bob.member, reason=None), author=BOARD, signers=kit.board)
    assert kit.refused("governance.vote", agree, **kit.by(bob)) == "member_not_active"
    vote(kit, ada, poll_id, "agree")
    closed = close(kit, poll_id)
    assert (closed.electors, closed.cast, closed.is_adopted) == (2, 1, True)


def test_a_college_that_the_statutes_dropped_votes_without_weight() -> None:
    kit = LedgerKit()
    ada, eve = kit.join("ada"), kit.join("eve", "partners")
    halves = (College(code="users", weight_bp=5_000), College(code="workers", weight_bp=5_000))
    amend = statutes(colleges=halves)
    amended = AmendStatutes(in_force_from_ms=kit.now, statutes=amend, version=2)
    kit.must("coop.amend_statutes", amended, author=BOARD, signers=kit.board)
    (opened,) = kit.must("governance.open_poll", poll(kit, statutes_version=2, weighting="colleges"), **kit.by(ada))
    assert isinstance(opened, facts.PollOpened)
    assert [(one.code, one.weight_bp) for one in opened.colleges] == [
        ("users", 5_000),
        ("workers", 5_000),
        ("partners", 0),
    ]
    vote(kit, eve, opened.poll, "agree")
    closed = close(kit, opened.poll)
    assert (closed.scores[0].numerator, closed.winner, closed.cast) == ("0", None, 1)


def test_a_deadline_binds_before_its_closing_is_recorded() -> None:
    kit = LedgerKit()
    ada = kit.join("ada")
    poll_id = open_poll(kit, poll(kit), ada)
    kit.now += DAY_MS - 1
    vote(kit, ada, poll_id, "agree")
    kit.now += 1
    abstain = Vote(choice="abstain", poll=poll_id, reason=None)
    assert kit.refused("governance.vote", abstain, **kit.by(ada)) == "poll_over"
    kit.must("governance.close_poll", ClosePoll(poll=poll_id), **kit.by(ada))


def test_a_closed_poll_leaves_nothing_in_the_state() -> None:
    kit = LedgerKit()
    ada = kit.join("ada")
    first, second = open_poll(kit, poll(kit), ada), open_poll(kit, poll(kit), ada)
    assert len(kit.state.governance.rolls) == 1, "polls of one register share a roll"
    vote(kit, ada, first, "agree")
    close(kit, first)
    assert len(kit.state.governance.rolls) == 1
    close(kit, second)
    assert [len(table) for table in kit.state.governance.tables()] == [0] * 5


def test_polls_move_no_value_and_replay_gives_the_same_digest() -> None:
    kit = LedgerKit(statutes=by_poll())
    ada = kit.join("ada")
    before = kit.state.accounts.balance(AccountKey(ada.member, "EUR", "claims"))
    poll_id = adopted(kit, ada)
    kit.must("governance.adopt_statutes", AdoptStatutes(poll=poll_id), author=None, signers=(kit.agent,))
    open_poll(kit, poll(kit), ada)
    assert kit.state.accounts.balance(AccountKey(ada.member, "EUR", "claims")) == before
    assert kit.replayed().digest() == kit.state.digest()


# ------------------------------------------------------------------------------------------------- statutes


def test_a_poll_adopts_statutes() -> None:
    kit = LedgerKit(statutes=by_poll())
    ada = kit.join("ada")
    new = by_poll(polls_opened_by="board")
    poll_id = open_poll(kit, amending(kit, new, weighting="members"), ada)
    vote(kit, ada, poll_id, "for")
    close(kit, poll_id)
    (fact,) = kit.must("governance.adopt_statutes", AdoptStatutes(poll=poll_id), **kit.by(ada))
    assert isinstance(fact, StatutesAdopted)
    assert (fact.version, fact.by, fact.in_force_from_ms) == (2, poll_id, kit.now + 2 * DAY_MS)
    assert kit.state.coop.statutes_at(kit.now)[0] == 1
    assert kit.state.coop.statutes_at(kit.now + 2 * DAY_MS) == (2, new)


def test_statutes_that_were_voted_down_are_not_adopted() -> None:
    kit = LedgerKit(statutes=by_poll())
    ada = kit.join("ada")
    poll_id = open_poll(kit, amending(kit, weighting="members"), ada)
    vote(kit, ada, poll_id, "against")
    closed = close(kit, poll_id)
    assert (closed.winner, closed.is_adopted) == ("against", False)
    adopt = AdoptStatutes(poll=poll_id)
    assert kit.refused("governance.adopt_statutes", adopt, **kit.by(ada)) == "poll_adopted_nothing"


def test_of_two_polls_on_the_same_version_one_is_recorded() -> None:
    kit = LedgerKit(statutes=by_poll())
    ada = kit.join("ada")
    first, second = (open_poll(kit, amending(kit, weighting="members"), ada) for _ in range(2))
    for poll_id in (first, second):
        vote(kit, ada, poll_id, "for")
    close(kit, first)
    close(kit, second)
    kit.must("governance.adopt_statutes", AdoptStatutes(poll=second), **kit.by(ada))
    code = kit.refused("governance.adopt_statutes", AdoptStatutes(poll=first), **kit.by(ada))
    assert code == "statutes_version_mismatch"


def test_an_adoption_that_was_not_recorded_goes() -> None:
    kit = LedgerKit(statutes=by_poll())
    ada = kit.join("ada")
    poll_id = adopted(kit, ada)
    kit.now += ADOPTION_WINDOW_MS
    adopt = AdoptStatutes(poll=poll_id)
    assert kit.refused("governance.adopt_statutes", adopt, **kit.by(ada)) == "adoption_too_late"
    open_poll(kit, poll(kit), ada)
    assert len(kit.state.governance.adoptions) == 0


# ------------------------------------------------------------------------------------------------- each reason

Case = Callable[[], tuple[LedgerKit, str, Wire, dict[str, Any]]]


def opening(change: Callable[[LedgerKit], dict[str, Any]], **statutes_changes: Any) -> Case:
    """A case: a member opens a poll with these changes."""

    def build() -> tuple[LedgerKit, str, Wire, dict[str, Any]]:
        kit = LedgerKit(statutes=statutes(**statutes_changes))
        return kit, "governance.open_poll", poll(kit, **change(kit)), kit.by(kit.join("ada"))

    return build


def opening_amendment(by: str, **changes: Any) -> Case:
    def build() -> tuple[LedgerKit, str, Wire, dict[str, Any]]:
        kit = LedgerKit(statutes=by_poll() if by == "poll" else statutes())
        return kit, "governance.open_poll", amending(kit, **changes), kit.by(kit.join("ada"))

    return build


def opened_by_one_who_left() -> tuple[LedgerKit, str, Wire, dict[str, Any]]:
    kit = LedgerKit()
    ada = kit.join("ada")
    kit.must("membership.leave", Leave(), **kit.by(ada))
    return kit, "governance.open_poll", poll(kit), kit.by(ada)


def opened_without_members() -> tuple[LedgerKit, str, Wire, dict[str, Any]]:
    kit = LedgerKit()
    return kit, "governance.open_poll", poll(kit), {"author": BOARD, "signers": kit.board}


def opened_by_member_against_statutes() -> tuple[LedgerKit, str, Wire, dict[str, Any]]:
    base = statutes()
    rules = msgspec.structs.replace(base.governance, polls_opened_by="board")
    kit = LedgerKit(statutes=statutes(governance=rules))
    return kit, "governance.open_poll", poll(kit), kit.by(kit.join("ada"))


def voting(choice: str = "agree", wait_ms: int = 0, unknown: bool = False, **changes: Any) -> Case:
    """A case: an elector votes after `wait_ms`."""

    def build() -> tuple[LedgerKit, str, Wire, dict[str, Any]]:
        kit = LedgerKit()
        ada = kit.join("ada")
        poll_id = open_poll(kit, poll(kit, **changes), ada)
        kit.now += wait_ms
        return (
            kit,
            "governance.vote",
            Vote(choice=choice, poll=UNKNOWN if unknown else poll_id, reason=None),
            kit.by(ada),
        )

    return build


def voted_by(who: str) -> Case:
    def build() -> tuple[LedgerKit, str, Wire, dict[str, Any]]:
        kit = LedgerKit()
        ada, bob = kit.join("ada"), kit.join("bob")
        poll_id = open_poll(kit, poll(kit), ada)
        if who == "left":
            kit.must("membership.leave", Leave(), **kit.by(bob))
        else:
            bob = kit.join("late")
        return kit, "governance.vote", Vote(choice="agree", poll=poll_id, reason=None), kit.by(bob)

    return build


def ending(tag: str, payload: Callable[[bytes], Wire], *, left: bool = False, wait_ms: int = 0) -> Case:
    """A case: a member closes a poll, or adopts its statutes."""

    def build() -> tuple[LedgerKit, str, Wire, dict[str, Any]]:
        kit = LedgerKit(statutes=by_poll())
        ada = kit.join("ada")
        poll_id = adopted(kit, ada) if tag == "governance.adopt_statutes" else open_poll(kit, poll(kit), ada)
        kit.now += wait_ms
        if left:
            kit.must("membership.leave", Leave(), **kit.by(ada))
        return kit, tag, payload(poll_id), kit.by(ada)

    return build


def adopted_by_two_polls() -> tuple[LedgerKit, str, Wire, dict[str, Any]]:
    kit = LedgerKit(statutes=by_poll())
    ada = kit.join("ada")
    first, second = adopted(kit, ada), adopted(kit, ada)
    kit.must("governance.adopt_statutes", AdoptStatutes(poll=first), **kit.by(ada))
    return kit, "governance.adopt_statutes", AdoptStatutes(poll=second), kit.by(ada)


def adopted_after_the_board_took_it_back() -> tuple[LedgerKit, str, Wire, dict[str, Any]]:
    kit = LedgerKit(statutes=by_poll())
    ada = kit.join("ada")
    to_board = Amendment(in_force_delay_ms=0, statutes=statutes(), version=2)
    first = open_poll(kit, amending(kit, weighting="members", amendment=to_board), ada)
    second = open_poll(kit, amending(kit, weighting="members"), ada)
    for poll_id in (first, second):
        vote(kit, ada, poll_id, "for")
    close(kit, first)
    close(kit, second)
    kit.must("governance.adopt_statutes", AdoptStatutes(poll=first), **kit.by(ada))
    return kit, "governance.adopt_statutes", AdoptStatutes(poll=second), kit.by(ada)


UNSOUND = msgspec.structs.replace(by_poll(), colleges=(College(code="users", weight_bp=1),))

BROKEN = Amendment(in_force_delay_ms=0, statutes=UNSOUND, version=2)

CASES: dict[tuple[str, str], Case] = {
    ("governance.open_poll", "member_not_active"): opened_by_one_who_left,
    ("governance.open_poll", "board_opens_polls"): opened_by_member_against_statutes,
    ("governance.open_poll", "statutes_version_mismatch"): opening(lambda _kit: {"statutes_version": 2}),
    ("governance.open_poll", "poll_opens_too_late"): opening(
        lambda kit: {"opens_at_ms": kit.now + 60 * DAY_MS + 1, "closes_at_ms": kit.now + 61 * DAY_MS}
    ),
    ("governance.open_poll", "poll_duration_out_of_range"): opening(lambda kit: {"closes_at_ms": kit.now + 999}),
    ("governance.open_poll", "options_unsound"): opening(lambda _kit: {"options": ("agree", "object")}),
    ("governance.open_poll", "rate_not_proper"): opening(lambda _kit: {"quorum": Rate(denominator=1, numerator=2)}),
    ("governance.open_poll", "board_amends_statutes"): opening_amendment("board"),
    ("governance.open_poll", "quorum_below_statutes"): opening_amendment("poll", quorum=percent(9)),
    ("governance.open_poll", "majority_below_statutes"): opening_amendment("poll", majority=percent(49)),
    ("governance.open_poll", "statutes_unsound"): opening_amendment("poll", amendment=BROKEN),
    ("governance.open_poll", "electorate_empty"): opened_without_members,
    ("governance.vote", "member_not_active"): voted_by("left"),
    ("governance.vote", "poll_unknown"): voting(unknown=True),
    ("governance.vote", "not_an_elector"): voted_by("late"),
    ("governance.vote", "poll_not_open"): voting(opens_at_ms=1_790_000_000_001),
    ("governance.vote", "poll_over"): voting(wait_ms=DAY_MS),
    ("governance.vote", "option_unknown"): voting("blue"),
    ("governance.vote", "objection_needs_reason"): voting("object"),
    ("governance.close_poll", "member_not_active"): ending(
        "governance.close_poll", lambda poll_id: ClosePoll(poll=poll_id), left=True
    ),
    ("governance.close_poll", "poll_unknown"): ending("governance.close_poll", lambda _id: ClosePoll(poll=UNKNOWN)),
    ("governance.close_poll", "poll_not_over"): ending(
        "governance.close_poll", lambda poll_id: ClosePoll(poll=poll_id), wait_ms=DAY_MS - 1
    ),
    ("governance.adopt_statutes", "member_not_active"): ending(
        "governance.adopt_statutes", lambda poll_id: AdoptStatutes(poll=poll_id), left=True
    ),
    ("governance.adopt_statutes", "poll_adopted_nothing"): ending(
        "governance.adopt_statutes", lambda _id: AdoptStatutes(poll=UNKNOWN)
    ),
    ("governance.adopt_statutes", "adoption_too_late"): ending(
        "governance.adopt_statutes", lambda poll_id: AdoptStatutes(poll=poll_id), wait_ms=ADOPTION_WINDOW_MS
    ),
    ("governance.adopt_statutes", "board_amends_statutes"): adopted_after_the_board_took_it_back,
    ("governance.adopt_statutes", "statutes_version_mismatch"): adopted_by_two_polls,
}
# Not made here: `statutes_in_the_past` needs a version recorded for later (see below); `statutes_unsound` at the
# adoption would need units that can't be taken back; the two limits of size are tested apart.
ELSEWHERE = {
    ("governance.open_poll", "statutes_in_the_past"),
    ("governance.open_poll", "polls_full"),
    ("governance.open_poll", "own_polls_full"),
    ("governance.open_poll", "electorate_too_large"),
    ("governance.adopt_statutes", "statutes_in_the_past"),
    ("governance.adopt_statutes", "statutes_unsound"),
}


@pytest.mark.parametrize(("tag", "code"), CASES)
def test_each_reason(tag: str, code: str) -> None:
    kit, case_tag, payload, options = CASES[tag, code]()
    assert case_tag == tag
    assert kit.refused(tag, payload, **options) == code


def test_every_reason_has_a_case() -> None:
    listed = {(one.tag, code) for one in ENTRY_TYPES if one.tag.startswith("governance.") for code in one.reasons}
    assert listed == {*CASES} | ELSEWHERE


def test_statutes_may_take_force_before_those_recorded_for_later() -> None:
    kit = LedgerKit(statutes=by_poll())
    ada = kit.join("ada")
    kit.must("governance.adopt_statutes", AdoptStatutes(poll=adopted(kit, ada)), **kit.by(ada))
    early = Amendment(in_force_delay_ms=0, statutes=by_poll(), version=3)
    kit.must("governance.open_poll", amending(kit, amendment=early), **kit.by(ada))


def test_the_limits_of_size_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    kit = LedgerKit()
    ada = kit.join("ada")
    kit.join("bob")
    open_poll(kit, poll(kit), ada)
    monkeypatch.setattr(acts, "MAX_ELECTORS", 1)
    assert kit.refused("governance.open_poll", poll(kit), **kit.by(ada)) == "electorate_too_large"
    monkeypatch.setattr(acts, "MAX_OPEN_POLLS", 1)
    assert kit.refused("governance.open_poll", poll(kit), **kit.by(ada)) == "polls_full"


def test_one_member_does_not_take_every_place_for_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acts, "MAX_OPEN_POLLS_EACH", 2)
    kit = LedgerKit()
    ada, bob = kit.join("ada"), kit.join("bob")
    first = open_poll(kit, poll(kit), ada)
    open_poll(kit, poll(kit), ada)
    assert kit.refused("governance.open_poll", poll(kit), **kit.by(ada)) == "own_polls_full"
    open_poll(kit, poll(kit), bob)
    kit.now = kit.state.governance.polls[first].closes_at_ms
    kit.must("governance.close_poll", ClosePoll(poll=first), **kit.by(bob))
    open_poll(kit, poll(kit), ada)


def test_nobody_votes_for_another_member() -> None:
    kit = LedgerKit()
    ada, bob = kit.join("ada"), kit.join("bob")
    poll_id = open_poll(kit, poll(kit), ada)
    agree = Vote(choice="agree", poll=poll_id, reason=None)
    assert kit.refused("governance.vote", agree, author=ada.member, signers=(bob.signer,)) == "signature_missing"
