# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the rules remember of governance: open polls, their rolls, votes and counts; statutes adopted and not recorded.

Retirement: a poll goes with its votes and counts when it is closed, its roll with the last poll that uses it. What
stays of a closed poll is an adoption, if it adopted statutes: it goes when they are recorded, or with the first poll
opened or closed after `ADOPTION_WINDOW_MS`.

Memory: a roll has 17 bytes an elector; a vote is one row (32-byte key, one word), held while the poll is open.
"""

from typing import Annotated, Final, NamedTuple, Protocol

import msgspec

from ecot_protocol.domains.coop.state import CoopSlice
from ecot_protocol.domains.coop.statutes import Statutes
from ecot_protocol.domains.governance.roll import Roll
from ecot_protocol.domains.governance.tally import CollegeCount, Terms
from ecot_protocol.domains.membership.state import MembershipSlice
from ecot_protocol.ledger.accounts import Accounts
from ecot_protocol.ledger.table import Table
from ecot_protocol.wire.encoding import Count, Hash, Id, Positive, Wire, Word

ADOPTION_WINDOW_MS: Final = 31 * 86_400_000
"""How long after a poll's closing the statutes that it adopted can still be recorded."""
MAX_OPEN_POLLS: Final = 1_000
MAX_OPEN_POLLS_EACH: Final = 20
"""Of one member, so that none takes the places of the others; the board has no such limit."""
VOTE_SCOPE: Final = "vote"
"""Scope of a mandate to open polls and to vote for a member."""


class Amendment(Wire):
    """Statutes that a poll adopts; in force `in_force_delay_ms` after they are recorded as `version`."""

    in_force_delay_ms: Annotated[int, msgspec.Meta(ge=0, le=100 * 366 * 86_400_000)]
    statutes: Statutes
    version: Positive


class Poll(Wire):
    """An open poll. `weights_bp` go with the colleges of the roll; a college that the statutes lack weighs 0."""

    amendment: Amendment | None
    author: Id
    closes_at_ms: Count
    opens_at_ms: Count
    roll: Hash
    terms: Terms
    weights_bp: tuple[Count, ...]


class Adoption(Wire):
    """A closed poll adopted statutes, which can be recorded until `until_ms`."""

    amendment: Amendment
    until_ms: Count


class VoteKey(NamedTuple):
    """Whose vote in which poll."""

    poll: Id
    member: Id


Counts = tuple[tuple[Count, ...], ...]
"""Votes by college of the roll, then by option of the poll."""


class GovernanceSlice:
    """State of the domain."""

    __slots__ = ("adoptions", "counts", "polls", "rolls", "votes")

    def __init__(self) -> None:
        self.polls: Table[bytes, Poll] = Table("governance.polls", bytes, Poll)
        self.rolls: Table[bytes, Roll] = Table("governance.rolls", bytes, Roll)
        self.votes: Table[VoteKey, Word] = Table("governance.votes", VoteKey, Word)
        self.counts: Table[bytes, Counts] = Table("governance.counts", bytes, Counts)
        self.adoptions: Table[bytes, Adoption] = Table("governance.adoptions", bytes, Adoption)

    def tables(self) -> tuple[Table[object, object], ...]:
        """Return the tables that the state digest covers."""
        return (self.polls, self.rolls, self.votes, self.counts, self.adoptions)  # type: ignore[return-value]

    def college_counts(self, poll_id: bytes) -> tuple[CollegeCount, ...]:
        """Return the counts of an open poll so far, as `tally` takes them."""
        poll, counts = self.polls[poll_id], self.counts[poll_id]
        roll = self.rolls[poll.roll]
        return tuple(
            CollegeCount(code, weight_bp, roll.numbers.count(place), counts[place])
            for place, (code, weight_bp) in enumerate(zip(roll.colleges, poll.weights_bp, strict=True))
        )


class GovernanceState(Protocol):
    """What the acts of this domain read and change."""

    coop: CoopSlice
    membership: MembershipSlice
    accounts: Accounts
    governance: GovernanceSlice
