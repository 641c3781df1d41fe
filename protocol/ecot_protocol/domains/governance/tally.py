# SPDX-License-Identifier: AGPL-3.0-or-later
"""The tally: pure and exact, so that any member can do it again from the records, or by hand.

- The votes are counted in each college, then weighted: college c has the weight w_c (of 10,000), n_c expressed votes
  of which v_co for option o; the score of o is the sum over c of w_c / 10,000 x v_co / n_c, as a fraction.
- In a poll by members there are no weights: the score of o is its votes divided by all expressed votes.
- An abstention takes part: it counts for the quorum. It is not an expressed vote.
- A college in which nobody expressed a vote has n_c = 0: its weight is lost. It goes to no other college, which could
  give one of them more than the law's cap, and no option gets it, so the majority is of the whole 10,000.
- The quorum is a share of the electors on the roll, by head, whatever their college.
- An option wins if the quorum is met and its score alone is the highest and above the majority. A unanimous score (1)
  is above every majority, for else a majority of 1 could never be reached.
- A consent is adopted if ``agree`` wins and no objection stands, in whatever college.

>>> terms = Terms(kind="single_choice", majority=Rate(denominator=2, numerator=1), options=("for", "against"),
...               quorum=Rate(denominator=10, numerator=1), weighting="colleges")
>>> outcome = tally(terms, (CollegeCount("users", 6_000, 9, (1, 2)), CollegeCount("workers", 4_000, 2, (2, 0))))
>>> outcome.scores, outcome.winner
((Fraction(3, 5), Fraction(2, 5)), 'for')
"""

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Annotated, Final, Literal

import msgspec

from ecot_protocol.domains.coop.statutes import WEIGHT_TOTAL_BP
from ecot_protocol.ledger.amounts import Rate
from ecot_protocol.wire.encoding import Wire, Word

AGREE: Final = "agree"
OBJECT: Final = "object"
ABSTAIN: Final = "abstain"
"""A vote for this option is an abstention in every poll."""
CONSENT_OPTIONS: Final = (AGREE, ABSTAIN, OBJECT)
AMENDMENT_OPTIONS: Final = ("for", "against", ABSTAIN)
"""Options of a single choice that adopts statutes; the first adopts."""
MAX_OPTIONS: Final = 32

Options = Annotated[tuple[Word, ...], msgspec.Meta(min_length=2, max_length=MAX_OPTIONS)]


class Terms(Wire):
    """How a poll is counted.

    Attributes:
        kind: ``consent`` (options agree, abstain, object) or ``single_choice``.
        majority: share of the weighted votes above which an option wins.
        options: what can be voted for, in the order shown.
        quorum: share of the electors who must take part.
        weighting: by ``members`` (each counts one) or by ``colleges``.
    """

    kind: Literal["consent", "single_choice"]
    majority: Rate
    options: Options
    quorum: Rate
    weighting: Literal["colleges", "members"]


class CollegeCount(msgspec.Struct, frozen=True, gc=False):
    """Votes of one college: `counts` in the order of the poll's options; `electors` are those on the roll."""

    code: str
    weight_bp: int
    electors: int
    counts: tuple[int, ...]


class Outcome(msgspec.Struct, frozen=True):
    """What came out.

    Attributes:
        electors: members on the roll.
        cast: those who took part, abstentions included.
        scores: of each option, from 0 to 1, in the order of the options.
        is_quorum_met: whether enough took part.
        winner: the option that won, or None.
    """

    electors: int
    cast: int
    scores: tuple[Fraction, ...]
    is_quorum_met: bool
    winner: str | None


def tally(terms: Terms, colleges: Sequence[CollegeCount]) -> Outcome:
    """Count a poll; see the module's rules."""
    electors = sum(college.electors for college in colleges)
    cast = sum(sum(college.counts) for college in colleges)
    scores = _scores(terms, colleges)
    is_quorum_met = cast * terms.quorum.denominator >= electors * terms.quorum.numerator
    winner = _winner(terms, scores) if is_quorum_met else None
    if terms.kind == "consent" and (winner != AGREE or _has_objection(terms, colleges)):
        winner = None
    return Outcome(electors, cast, scores, is_quorum_met, winner)


def recount(
    terms: Terms,
    weights: Sequence[tuple[str, int]],
    roll: Mapping[bytes, str],
    votes: Iterable[tuple[bytes, str]],
) -> Outcome:
    """Do a tally again from the records alone.

    Args:
        terms: from the poll's record.
        weights: (college, weight of 10,000) of the statutes in force then, in their order.
        roll: member -> college of every active member at the poll's record.
        votes: (member, option) of each vote recorded, in the order of the records; a member's last one stands.
    """
    stances = {member: choice for member, choice in votes if member in roll}
    codes = [code for code, _ in weights]
    codes += sorted({*roll.values()} - {*codes})
    weight_of = dict(weights)
    counts = {code: dict.fromkeys(terms.options, 0) for code in codes}
    electors = dict.fromkeys(codes, 0)
    for college in roll.values():
        electors[college] += 1
    for member, choice in stances.items():
        counts[roll[member]][choice] += 1
    return tally(
        terms,
        [CollegeCount(code, weight_of.get(code, 0), electors[code], tuple(counts[code].values())) for code in codes],
    )


def is_adopted(terms: Terms, winner: str | None, *, is_amendment: bool) -> bool:
    """Tell whether the poll says yes: a single choice among free options does as soon as one of them wins."""
    if terms.kind == "single_choice" and is_amendment:
        return winner == AMENDMENT_OPTIONS[0]
    return winner is not None


def _expressed(terms: Terms, counts: Sequence[int]) -> int:
    return sum(count for option, count in zip(terms.options, counts, strict=True) if option != ABSTAIN)


def _scores(terms: Terms, colleges: Sequence[CollegeCount]) -> tuple[Fraction, ...]:
    groups = [(college.weight_bp, college.counts) for college in colleges]
    if terms.weighting == "members":
        together = tuple(map(sum, zip(*(college.counts for college in colleges), strict=True)))
        groups = [(WEIGHT_TOTAL_BP, together)] if together else []
    scores = [Fraction(0)] * len(terms.options)
    for weight_bp, counts in groups:
        expressed = _expressed(terms, counts)
        for place, option in enumerate(terms.options):
            if expressed and option != ABSTAIN:
                scores[place] += Fraction(weight_bp * counts[place], WEIGHT_TOTAL_BP * expressed)
    return tuple(scores)


def _winner(terms: Terms, scores: Sequence[Fraction]) -> str | None:
    highest = max(scores)
    majority = Fraction(terms.majority.numerator, terms.majority.denominator)
    if list(scores).count(highest) > 1 or not (highest > majority or highest == 1):
        return None
    return terms.options[list(scores).index(highest)]


def _has_objection(terms: Terms, colleges: Sequence[CollegeCount]) -> bool:
    place = terms.options.index(OBJECT)
    return any(college.counts[place] for college in colleges)
