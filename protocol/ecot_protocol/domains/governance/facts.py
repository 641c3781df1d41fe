# SPDX-License-Identifier: AGPL-3.0-or-later
"""Facts of governance."""

import msgspec

from ecot_protocol.domains.coop.statutes import Statutes
from ecot_protocol.domains.governance.tally import CollegeCount, Terms
from ecot_protocol.ledger.facts import Fact


class PollOpened(Fact):
    """A poll can be voted in from `opens_at_ms` on. `roll` is the hash of its frozen electorate.

    `statutes` are those that it would adopt, `statutes_version` those in force, under which it runs.
    """

    poll: bytes
    author: bytes
    terms: Terms
    opens_at_ms: int
    closes_at_ms: int
    colleges: tuple[CollegeCount, ...]
    roll: bytes
    statutes_version: int
    statutes: Statutes | None
    has_question: bool


class StanceTaken(Fact):
    """A member voted, or changed its vote (`previous` is the one replaced)."""

    poll: bytes
    member: bytes
    college: str
    choice: str
    previous: str | None
    has_reason: bool


class Score(msgspec.Struct, frozen=True, gc=False):
    """The exact score of an option, from 0 to 1.

    Numerator and denominator are decimal digits, because their exact values can pass 2^53; `ppm` is the score in
    millionths, rounded down, to show.
    """

    option: str
    numerator: str
    denominator: str
    ppm: int


class PollClosed(Fact):
    """A poll's outcome: counts of each college, then weighted scores; `winner` is None if no option won."""

    poll: bytes
    kind: str
    weighting: str
    options: tuple[str, ...]
    electors: int
    cast: int
    colleges: tuple[CollegeCount, ...]
    scores: tuple[Score, ...]
    is_quorum_met: bool
    winner: str | None
    is_adopted: bool
    adoptable_until_ms: int | None
