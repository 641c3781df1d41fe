# SPDX-License-Identifier: AGPL-3.0-or-later
"""The tally: exact weights, nothing lost but what the rules say, and the same when done again from the records."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecot_protocol.domains.governance.roll import (
    college_of,
    count_electors,
    find_place,
    make_roll,
    members_of,
    roll_hash,
)
from ecot_protocol.domains.governance.tally import (
    AMENDMENT_OPTIONS,
    CONSENT_OPTIONS,
    CollegeCount,
    Terms,
    is_adopted,
    recount,
    tally,
)
from ecot_protocol.ledger.amounts import Rate

HALF = Rate(denominator=2, numerator=1)
NONE = Rate(denominator=1, numerator=0)
ALL = Rate(denominator=1, numerator=1)


def terms(**changes: object) -> Terms:
    values: dict[str, object] = {
        "kind": "single_choice",
        "majority": HALF,
        "options": ("for", "against", "abstain"),
        "quorum": NONE,
        "weighting": "colleges",
    }
    return Terms(**(values | changes))  # type: ignore[arg-type]


CONSENT = terms(kind="consent", options=CONSENT_OPTIONS, majority=NONE)


@st.composite
def college_counts(draw: st.DrawFn, option_count: int = 3) -> list[CollegeCount]:
    """Two to ten colleges whose weights sum to 10,000, with votes within their electors."""
    cuts = sorted(draw(st.sets(st.integers(1, 9_999), min_size=1, max_size=9)))
    weights = [right - left for left, right in zip([0, *cuts], [*cuts, 10_000], strict=True)]
    result = []
    for number, weight_bp in enumerate(weights):
        counts = tuple(draw(st.lists(st.integers(0, 300), min_size=option_count, max_size=option_count)))
        absent = draw(st.integers(0, 100))
        result.append(CollegeCount(f"c{number}", weight_bp, sum(counts) + absent, counts))
    return result


@given(college_counts())
def test_scores_sum_to_the_weight_of_the_colleges_that_voted(colleges: list[CollegeCount]) -> None:
    outcome = tally(terms(), colleges)
    voted = sum(one.weight_bp for one in colleges if one.counts[0] + one.counts[1])
    assert sum(outcome.scores) == Fraction(voted, 10_000)
    assert outcome.scores[2] == 0


@given(college_counts())
def test_each_score_is_the_sum_of_exact_fractions(colleges: list[CollegeCount]) -> None:
    expected = sum(
        (
            Fraction(one.weight_bp, 10_000) * Fraction(one.counts[0], one.counts[0] + one.counts[1])
            for one in colleges
            if one.counts[0] + one.counts[1]
        ),
        Fraction(0),
    )
    score = tally(terms(), colleges).scores[0]
    assert score == expected
    assert isinstance(score, Fraction)


@given(college_counts(), st.integers(2, 7))
def test_a_college_weighs_the_same_however_many_vote_in_it(colleges: list[CollegeCount], times: int) -> None:
    bigger = [
        CollegeCount(one.code, one.weight_bp, one.electors * times, tuple(count * times for count in one.counts))
        for one in colleges
    ]
    assert tally(terms(), bigger).scores == tally(terms(), colleges).scores


@given(college_counts())
def test_by_members_every_expressed_vote_counts_one(colleges: list[CollegeCount]) -> None:
    for_, against = (sum(one.counts[place] for one in colleges) for place in (0, 1))
    outcome = tally(terms(weighting="members"), colleges)
    assert outcome.scores[0] == (Fraction(for_, for_ + against) if for_ + against else 0)
    assert outcome.winner == ("for" if for_ > against else "against" if against > for_ else None)


@given(college_counts())
def test_no_option_wins_without_being_the_only_highest(colleges: list[CollegeCount]) -> None:
    outcome = tally(terms(majority=NONE), colleges)
    if outcome.winner is not None:
        place = terms().options.index(outcome.winner)
        assert all(outcome.scores[place] > score for other, score in enumerate(outcome.scores) if other != place)


def test_the_weight_of_a_silent_college_is_lost() -> None:
    loud, silent = CollegeCount("users", 5_000, 10, (10, 0, 0)), CollegeCount("workers", 5_000, 10, (0, 0, 4))
    outcome = tally(terms(), (loud, silent))
    assert outcome.scores[0] == Fraction(1, 2)
    assert outcome.winner is None, "half of the weight is not above a majority of one half"


def test_abstentions_count_for_the_quorum_and_not_as_votes() -> None:
    college = CollegeCount("users", 10_000, 10, (1, 0, 4))
    outcome = tally(terms(quorum=HALF), (college,))
    assert (outcome.cast, outcome.is_quorum_met, outcome.winner) == (5, True, "for")


def test_nothing_wins_below_the_quorum() -> None:
    college = CollegeCount("users", 10_000, 10, (4, 0, 0))
    outcome = tally(terms(quorum=HALF), (college,))
    assert (outcome.is_quorum_met, outcome.winner) == (False, None)


@given(college_counts(), st.integers(1, 100))
def test_a_quorum_is_met_by_those_who_took_part(colleges: list[CollegeCount], percentage: int) -> None:
    outcome = tally(terms(quorum=Rate(denominator=100, numerator=percentage)), colleges)
    assert outcome.is_quorum_met == (outcome.cast * 100 >= outcome.electors * percentage)


def test_a_quorum_is_not_met_by_those_who_could_have() -> None:
    empty = CollegeCount("users", 10_000, 10, (0, 0, 0))
    assert not tally(terms(quorum=Rate(denominator=100, numerator=1)), (empty,)).is_quorum_met


def test_nothing_wins_without_a_vote_even_with_no_quorum_and_no_majority() -> None:
    outcome = tally(terms(majority=NONE), (CollegeCount("users", 10_000, 10, (0, 0, 0)),))
    assert (outcome.is_quorum_met, outcome.winner) == (True, None)


def test_unanimity_reaches_a_majority_of_one() -> None:
    assert tally(terms(majority=ALL), (CollegeCount("users", 10_000, 2, (2, 0, 0)),)).winner == "for"
    assert tally(terms(majority=ALL), (CollegeCount("users", 10_000, 3, (2, 1, 0)),)).winner is None


def test_a_majority_must_be_passed_not_met() -> None:
    two_thirds = terms(majority=Rate(denominator=3, numerator=2))
    assert tally(two_thirds, (CollegeCount("users", 10_000, 3, (2, 1, 0)),)).winner is None
    assert tally(two_thirds, (CollegeCount("users", 10_000, 4, (3, 1, 0)),)).winner == "for"


@pytest.mark.parametrize(
    ("counts", "winner"),
    [((2, 0, 0), "agree"), ((1, 5, 0), "agree"), ((9, 0, 1), None), ((0, 5, 0), None), ((0, 0, 0), None)],
)
def test_a_consent_is_adopted_unless_somebody_objects(counts: tuple[int, ...], winner: str | None) -> None:
    assert tally(CONSENT, (CollegeCount("users", 10_000, 10, counts),)).winner == winner


def test_an_objection_of_a_college_without_weight_stands() -> None:
    colleges = (CollegeCount("users", 10_000, 9, (9, 0, 0)), CollegeCount("former", 0, 1, (0, 0, 1)))
    assert tally(CONSENT, colleges).winner is None


def test_an_amendment_is_adopted_by_its_first_option_alone() -> None:
    amendment = terms(options=AMENDMENT_OPTIONS)
    assert is_adopted(amendment, "for", is_amendment=True)
    assert not is_adopted(amendment, "against", is_amendment=True)
    assert is_adopted(terms(options=("red", "blue")), "blue", is_amendment=False)


MEMBER = st.binary(min_size=16, max_size=16)
ROLL = st.dictionaries(MEMBER, st.sampled_from(("users", "workers", "former")), min_size=1, max_size=30)
WEIGHTS = (("workers", 4_000), ("users", 6_000))


@given(ROLL, st.data())
def test_a_recount_gives_what_running_counts_gave(electors: dict[bytes, str], data: st.DataObject) -> None:
    votes = data.draw(
        st.lists(st.tuples(st.sampled_from(sorted(electors)), st.sampled_from(terms().options)), max_size=60)
    )
    roll = make_roll(electors.items(), [code for code, _ in WEIGHTS])
    counts = [[0] * 3 for _ in roll.colleges]
    last: dict[bytes, str] = {}
    for member, choice in votes:
        place = find_place(roll, member)
        assert place is not None
        if member in last:
            counts[place][terms().options.index(last[member])] -= 1
        counts[place][terms().options.index(choice)] += 1
        last[member] = choice
    weights = dict(WEIGHTS)
    running = [
        CollegeCount(code, weights.get(code, 0), electors_count, tuple(count))
        for code, electors_count, count in zip(roll.colleges, count_electors(roll), counts, strict=True)
    ]
    assert recount(terms(), WEIGHTS, electors, votes) == tally(terms(), running)


@given(ROLL, MEMBER)
def test_a_roll_finds_every_elector_and_nobody_else(electors: dict[bytes, str], stranger: bytes) -> None:
    roll = make_roll(electors.items(), ("users",))
    assert list(members_of(roll)) == sorted(electors)
    assert {member: college_of(roll, member) for member in electors} == electors
    assert college_of(roll, stranger) == electors.get(stranger)
    assert roll_hash(roll) == roll_hash(make_roll(reversed(electors.items()), ("users",)))
