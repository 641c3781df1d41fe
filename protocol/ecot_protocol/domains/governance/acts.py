# SPDX-License-Identifier: AGPL-3.0-or-later
"""The acts of governance: open a poll, vote, close it, record the statutes that it adopted.

- The electorate is every active member at the record that opens the poll; late joiners have no vote in it, and who has
  left no longer votes.
- A vote can be changed until the poll closes. Therefore a poll is never closed early, even if everybody has voted.
- From `closes_at_ms` on no vote is taken, whether or not the closing is recorded.
- The closing and the adoption follow from the records, so the node, the board or any active member may send them.
"""

from collections.abc import Iterable
from typing import Any, Final, Literal

from ecot_protocol.domains.coop.acts import STATUTES_REASONS, adopt_statutes, check_statutes
from ecot_protocol.domains.coop.state import board_signs
from ecot_protocol.domains.coop.statutes import MAX_COLLEGES, GovernanceStatutes, Statutes
from ecot_protocol.domains.governance import facts
from ecot_protocol.domains.governance.roll import (
    MAX_ELECTORS,
    MAX_ROLL_COLLEGES,
    Roll,
    college_of,
    find_place,
    make_roll,
    members_of,
    roll_hash,
)
from ecot_protocol.domains.governance.state import (
    ADOPTION_WINDOW_MS,
    MAX_OPEN_POLLS,
    MAX_OPEN_POLLS_EACH,
    VOTE_SCOPE,
    Adoption,
    Amendment,
    GovernanceState,
    Poll,
    VoteKey,
)
from ecot_protocol.domains.governance.tally import (
    ABSTAIN,
    AMENDMENT_OPTIONS,
    CONSENT_OPTIONS,
    OBJECT,
    Options,
    Outcome,
    Terms,
    is_adopted,
    tally,
)
from ecot_protocol.domains.membership.state import member_signs
from ecot_protocol.ledger.amounts import Rate, is_proper
from ecot_protocol.ledger.attachments import QuestionCommitment, ReasonCommitment
from ecot_protocol.ledger.entry_type import BOARD, THE_NODE, Act, AnyEntryType, EntryType, SignerRule, Visibility
from ecot_protocol.ledger.facts import Fact
from ecot_protocol.ledger.reasons import Reason
from ecot_protocol.wire.encoding import Count, Id, Positive, Wire, Word


class OpenPoll(Wire):
    """Payload of ``governance.open_poll``, by a member or the board, as the statutes say.

    Attributes:
        amendment: statutes that the poll adopts; then it is a consent, or its options are for, against, abstain.
        closes_at_ms: from then on no vote is taken.
        kind: see `Terms`, as for `majority`, `options`, `quorum` and `weighting`.
        opens_at_ms: votes are taken from then on; a time that has passed means at once.
        question: commitment to the title and text.
        statutes_version: in force at the record.
    """

    amendment: Amendment | None
    closes_at_ms: Count
    kind: Literal["consent", "single_choice"]
    majority: Rate
    opens_at_ms: Count
    options: Options
    question: QuestionCommitment | None
    quorum: Rate
    statutes_version: Positive
    weighting: Literal["colleges", "members"]


class Vote(Wire):
    """Payload of ``governance.vote``: the author, an elector, takes a stance; an objection needs a reason."""

    choice: Word
    poll: Id
    reason: ReasonCommitment | None


class ClosePoll(Wire):
    """Payload of ``governance.close_poll``: the time is over; the outcome follows from the votes."""

    poll: Id


class AdoptStatutes(Wire):
    """Payload of ``governance.adopt_statutes``: records the statutes that a closed poll adopted."""

    poll: Id


def terms_of(payload: OpenPoll) -> Terms:
    """Return how the poll is counted."""
    return Terms(
        kind=payload.kind,
        majority=payload.majority,
        options=payload.options,
        quorum=payload.quorum,
        weighting=payload.weighting,
    )


def _board_or_member(state: GovernanceState, act: Act[Any], at: int) -> SignerRule:
    if act.author == BOARD:
        return board_signs(state, act.author)
    return member_signs(state, act.author, VOTE_SCOPE, at)


def _anyone(state: GovernanceState, act: Act[Any], at: int) -> SignerRule:
    return THE_NODE if act.author is None else _board_or_member(state, act, at)


def _check_author(state: GovernanceState, author: bytes | None) -> Reason | None:
    if author in (None, BOARD) or state.membership.is_active(author):
        return None
    return Reason.of("member_not_active", member=(author or b"").hex())


def _check_open(state: GovernanceState, act: Act[OpenPoll], at: int) -> Reason | None:
    version, statutes = state.coop.statutes_at(at)
    reason = _check_author(state, act.author)
    if reason is not None:
        return reason
    if act.author != BOARD and statutes.governance.polls_opened_by == "board":
        return Reason.of("board_opens_polls")
    if act.payload.statutes_version != version:
        return Reason.of("statutes_version_mismatch", expected=version)
    reason = _check_times(act.payload, statutes.governance, at) or _check_terms(act.payload)
    reason = reason or _check_amendment(state, act.payload, statutes.governance, at)
    return reason or _check_room(state, act.author) or _check_electorate(state)


def _check_times(payload: OpenPoll, rules: GovernanceStatutes, at: int) -> Reason | None:
    if payload.opens_at_ms > at + rules.poll_max_duration_ms:
        return Reason.of("poll_opens_too_late", latest_ms=at + rules.poll_max_duration_ms)
    open_ms = payload.closes_at_ms - max(payload.opens_at_ms, at)
    if not rules.poll_min_duration_ms <= open_ms <= rules.poll_max_duration_ms:
        return Reason.of(
            "poll_duration_out_of_range", minimum_ms=rules.poll_min_duration_ms, maximum_ms=rules.poll_max_duration_ms
        )
    return None


def _check_terms(payload: OpenPoll) -> Reason | None:
    options = payload.options
    choices = [option for option in options if option != ABSTAIN]
    if payload.kind == "consent":
        is_sound = options == CONSENT_OPTIONS
    elif payload.amendment is not None:
        is_sound = options == AMENDMENT_OPTIONS
    else:
        is_sound = len({*options}) == len(options) and len(choices) > 1
    if not is_sound:
        return Reason.of("options_unsound")
    if not is_proper(payload.quorum):
        return Reason.of("rate_not_proper", field="quorum")
    return None if is_proper(payload.majority) else Reason.of("rate_not_proper", field="majority")


def _check_amendment(state: GovernanceState, payload: OpenPoll, rules: GovernanceStatutes, at: int) -> Reason | None:
    amendment = payload.amendment
    if amendment is None:
        return None
    if rules.statutes_amended_by != "poll":
        return Reason.of("board_amends_statutes")
    if _is_less(payload.quorum, rules.statutes_quorum):
        return Reason.of("quorum_below_statutes", **_rate_params(rules.statutes_quorum))
    if _is_less(payload.majority, rules.statutes_majority):
        return Reason.of("majority_below_statutes", **_rate_params(rules.statutes_majority))
    return check_statutes(state, amendment.statutes, amendment.version, at + amendment.in_force_delay_ms, at)


def _is_less(left: Rate, right: Rate) -> bool:
    return left.numerator * right.denominator < right.numerator * left.denominator


def _rate_params(rate: Rate) -> dict[str, int]:
    return {"numerator": rate.numerator, "denominator": rate.denominator}


def _check_room(state: GovernanceState, author: bytes | None) -> Reason | None:
    polls = state.governance.polls
    if len(polls) >= MAX_OPEN_POLLS:
        return Reason.of("polls_full", maximum=MAX_OPEN_POLLS)
    if author != BOARD and sum(poll.author == author for poll in polls.values()) >= MAX_OPEN_POLLS_EACH:
        return Reason.of("own_polls_full", maximum=MAX_OPEN_POLLS_EACH)
    return None


def _check_electorate(state: GovernanceState) -> Reason | None:
    colleges = [member.college for member in state.membership.members.values() if member.status == "admitted"]
    if not colleges:
        return Reason.of("electorate_empty")
    # A roll numbers colleges in one byte; members may still be in some that the statutes no longer have.
    if len(colleges) > MAX_ELECTORS or len({*colleges}) > MAX_ROLL_COLLEGES - MAX_COLLEGES:
        return Reason.of("electorate_too_large", maximum=MAX_ELECTORS)
    return None


def _freeze(state: GovernanceState, statutes: Statutes) -> Roll:
    members: Iterable[tuple[bytes, str]] = (
        (member_id, member.college)
        for member_id, member in state.membership.members.items()
        if member.status == "admitted"
    )
    return make_roll(members, [college.code for college in statutes.colleges])


def _open(state: GovernanceState, act: Act[OpenPoll], at: int) -> list[Fact]:
    assert act.author is not None
    payload, governance = act.payload, state.governance
    _forget_adoptions(state, at)
    version, statutes = state.coop.statutes_at(at)
    roll = _freeze(state, statutes)
    name = roll_hash(roll)
    if name not in governance.rolls:
        governance.rolls[name] = roll
    weights = {college.code: college.weight_bp for college in statutes.colleges}
    governance.polls[act.id] = Poll(
        amendment=payload.amendment,
        author=act.author,
        closes_at_ms=payload.closes_at_ms,
        opens_at_ms=payload.opens_at_ms,
        roll=name,
        terms=terms_of(payload),
        weights_bp=tuple(weights.get(code, 0) for code in roll.colleges),
    )
    governance.counts[act.id] = ((0,) * len(payload.options),) * len(roll.colleges)
    return [
        facts.PollOpened(
            poll=act.id,
            author=act.author,
            terms=terms_of(payload),
            opens_at_ms=max(payload.opens_at_ms, at),
            closes_at_ms=payload.closes_at_ms,
            colleges=governance.college_counts(act.id),
            roll=name,
            statutes_version=version,
            statutes=payload.amendment.statutes if payload.amendment else None,
            has_question=payload.question is not None,
        )
    ]


def _vote_signers(state: GovernanceState, act: Act[Vote], at: int) -> SignerRule:
    return member_signs(state, act.author, VOTE_SCOPE, at)


def _check_vote(state: GovernanceState, act: Act[Vote], at: int) -> Reason | None:
    assert act.author is not None
    vote = act.payload
    reason = _check_author(state, act.author)
    if reason is not None:
        return reason
    poll = state.governance.polls.get(vote.poll)
    if poll is None:
        return Reason.of("poll_unknown", poll=vote.poll.hex())
    if find_place(state.governance.rolls[poll.roll], act.author) is None:
        return Reason.of("not_an_elector", member=act.author.hex())
    if at < poll.opens_at_ms:
        return Reason.of("poll_not_open", opens_at_ms=poll.opens_at_ms)
    if at >= poll.closes_at_ms:
        return Reason.of("poll_over", closed_at_ms=poll.closes_at_ms)
    if vote.choice not in poll.terms.options:
        return Reason.of("option_unknown", option=vote.choice)
    if poll.terms.kind == "consent" and vote.choice == OBJECT and vote.reason is None:
        return Reason.of("objection_needs_reason")
    return None


def _vote(state: GovernanceState, act: Act[Vote], _at: int) -> list[Fact]:
    assert act.author is not None
    governance, vote = state.governance, act.payload
    poll = governance.polls[vote.poll]
    roll = governance.rolls[poll.roll]
    key = VoteKey(vote.poll, act.author)
    previous = governance.votes.get(key)
    governance.votes[key] = vote.choice
    place = find_place(roll, act.author)
    assert place is not None
    counts = list(governance.counts[vote.poll])
    counts[place] = tuple(
        count + (option == vote.choice) - (option == previous)
        for option, count in zip(poll.terms.options, counts[place], strict=True)
    )
    governance.counts[vote.poll] = tuple(counts)
    college = college_of(roll, act.author)
    assert college is not None
    return [
        facts.StanceTaken(
            poll=vote.poll,
            member=act.author,
            college=college,
            choice=vote.choice,
            previous=previous,
            has_reason=vote.reason is not None,
        )
    ]


def _check_close(state: GovernanceState, act: Act[ClosePoll], at: int) -> Reason | None:
    reason = _check_author(state, act.author)
    if reason is not None:
        return reason
    poll = state.governance.polls.get(act.payload.poll)
    if poll is None:
        return Reason.of("poll_unknown", poll=act.payload.poll.hex())
    return Reason.of("poll_not_over", closes_at_ms=poll.closes_at_ms) if at < poll.closes_at_ms else None


def _close(state: GovernanceState, act: Act[ClosePoll], at: int) -> list[Fact]:
    governance, poll_id = state.governance, act.payload.poll
    _forget_adoptions(state, at)
    poll, colleges = governance.polls[poll_id], governance.college_counts(poll_id)
    outcome = tally(poll.terms, colleges)
    adopted = is_adopted(poll.terms, outcome.winner, is_amendment=poll.amendment is not None)
    until_ms = None
    if adopted and poll.amendment is not None:
        # From the deadline, not from this record: whoever closes late gains no time.
        until_ms = poll.closes_at_ms + ADOPTION_WINDOW_MS
        governance.adoptions[poll_id] = Adoption(amendment=poll.amendment, until_ms=until_ms)
    closed = facts.PollClosed(
        poll=poll_id,
        kind=poll.terms.kind,
        weighting=poll.terms.weighting,
        options=poll.terms.options,
        electors=outcome.electors,
        cast=outcome.cast,
        colleges=colleges,
        scores=_scores(poll.terms, outcome),
        is_quorum_met=outcome.is_quorum_met,
        winner=outcome.winner,
        is_adopted=adopted,
        adoptable_until_ms=until_ms,
    )
    _retire(state, poll_id)
    return [closed]


def _scores(terms: Terms, outcome: Outcome) -> tuple[facts.Score, ...]:
    return tuple(
        facts.Score(
            option=option,
            numerator=str(score.numerator),
            denominator=str(score.denominator),
            ppm=score.numerator * 1_000_000 // score.denominator,
        )
        for option, score in zip(terms.options, outcome.scores, strict=True)
    )


def _retire(state: GovernanceState, poll_id: bytes) -> None:
    governance = state.governance
    name = governance.polls[poll_id].roll
    for member in members_of(governance.rolls[name]):
        key = VoteKey(poll_id, member)
        if key in governance.votes:
            del governance.votes[key]
    del governance.counts[poll_id], governance.polls[poll_id]
    if all(poll.roll != name for poll in governance.polls.values()):
        del governance.rolls[name]


def _forget_adoptions(state: GovernanceState, at: int) -> None:
    for poll_id in [one for one, adoption in state.governance.adoptions.items() if adoption.until_ms <= at]:
        del state.governance.adoptions[poll_id]


def _check_adopt(state: GovernanceState, act: Act[AdoptStatutes], at: int) -> Reason | None:
    reason = _check_author(state, act.author)
    if reason is not None:
        return reason
    adoption = state.governance.adoptions.get(act.payload.poll)
    if adoption is None:
        return Reason.of("poll_adopted_nothing", poll=act.payload.poll.hex())
    if at >= adoption.until_ms:
        return Reason.of("adoption_too_late", until_ms=adoption.until_ms)
    if state.coop.statutes_at(at)[1].governance.statutes_amended_by != "poll":
        return Reason.of("board_amends_statutes")
    amendment = adoption.amendment
    return check_statutes(state, amendment.statutes, amendment.version, at + amendment.in_force_delay_ms, at)


def _adopt(state: GovernanceState, act: Act[AdoptStatutes], at: int) -> list[Fact]:
    amendment = state.governance.adoptions[act.payload.poll].amendment
    del state.governance.adoptions[act.payload.poll]
    return [adopt_statutes(state, amendment.statutes, at + amendment.in_force_delay_ms, act.payload.poll)]


OPEN_POLL: Final[EntryType[GovernanceState, OpenPoll]] = EntryType(
    tag="governance.open_poll",
    payload=OpenPoll,
    visibility=Visibility.MEMBERS,
    signers=_board_or_member,
    check=_check_open,
    effect=_open,
    reasons=(
        "member_not_active",
        "board_opens_polls",
        "statutes_version_mismatch",
        "poll_opens_too_late",
        "poll_duration_out_of_range",
        "options_unsound",
        "rate_not_proper",
        "board_amends_statutes",
        "quorum_below_statutes",
        "majority_below_statutes",
        "statutes_in_the_past",
        "statutes_unsound",
        "polls_full",
        "own_polls_full",
        "electorate_empty",
        "electorate_too_large",
    ),
)
VOTE: Final[EntryType[GovernanceState, Vote]] = EntryType(
    tag="governance.vote",
    payload=Vote,
    visibility=Visibility.MEMBERS,
    signers=_vote_signers,
    check=_check_vote,
    effect=_vote,
    reasons=(
        "member_not_active",
        "poll_unknown",
        "not_an_elector",
        "poll_not_open",
        "poll_over",
        "option_unknown",
        "objection_needs_reason",
    ),
)
CLOSE_POLL: Final[EntryType[GovernanceState, ClosePoll]] = EntryType(
    tag="governance.close_poll",
    payload=ClosePoll,
    visibility=Visibility.MEMBERS,
    signers=_anyone,
    check=_check_close,
    effect=_close,
    reasons=("member_not_active", "poll_unknown", "poll_not_over"),
)
ADOPT_STATUTES: Final[EntryType[GovernanceState, AdoptStatutes]] = EntryType(
    tag="governance.adopt_statutes",
    payload=AdoptStatutes,
    visibility=Visibility.MEMBERS,
    signers=_anyone,
    check=_check_adopt,
    effect=_adopt,
    reasons=(
        "member_not_active",
        "poll_adopted_nothing",
        "adoption_too_late",
        "board_amends_statutes",
        *STATUTES_REASONS,
    ),
)
GOVERNANCE_TYPES: Final[tuple[AnyEntryType, ...]] = (OPEN_POLL, VOTE, CLOSE_POLL, ADOPT_STATUTES)
