# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the rules remember of members: the members, who may act for them, recoveries that wait for a veto.

Retirement: a recovery goes when it is completed or vetoed; spending of a past day goes with the next of the same
person. Members stay: a later act may name them, and their handles are never given to somebody else. An application that
nobody answered goes when it lapses, with its handle and its mandate: anybody can apply, so what strangers can make the
ledger remember has a bound. The person who applied stays, for it may act for others.
"""

from typing import Annotated, Final, Literal, NamedTuple, Protocol

import msgspec

from ecot_protocol.domains.coop.state import CoopSlice
from ecot_protocol.ledger.accounts import AccountKey, Accounts
from ecot_protocol.ledger.entry_type import NOBODY, Need, SignerRule
from ecot_protocol.ledger.reasons import Reason
from ecot_protocol.ledger.table import Table
from ecot_protocol.wire.encoding import Count, Handle, Id, UnitCode, Wire, Word
from ecot_protocol.wire.keys import PublicKey

DAY_MS = 86_400_000
MAX_APPLICATIONS: Final = 1_000
"""Applications that wait for the board at one time."""
MAX_APPLICATIONS_EACH: Final = 5
"""Of one person, so that no one takes the places of the others."""
APPLICATION_LIFETIME_MS: Final = 31 * DAY_MS
"""From then on an application that the board has not answered has lapsed; who wants to join applies again."""
OWNER = "owner"
"""Scope of a mandate that lets its person do everything for the member."""
Status = Literal["admitted", "applied", "excluded", "left"]
Kind = Literal["body", "firm", "person"]


class AccountName(NamedTuple):
    """An account of a member, apart from its owner."""

    unit: UnitCode
    purpose: Word


class Member(Wire):
    """A firm, body or person that takes part. `fee_due_ms` is when the next fee can be charged (None: never)."""

    accounts: tuple[AccountName, ...]
    college: Word
    fee_due_ms: Count | None
    handle: Handle
    kind: Kind
    since_ms: Count
    status: Status


class Mandate(Wire):
    """A person may act for a member, within scopes, limits and time. Amounts in minor units of the unit spent.

    Attributes:
        day_limit_minor: most that the person may spend for the member in a UTC day; None: no limit.
        from_ms: from when it holds.
        person: who.
        scopes: what for; ``owner`` is everything.
        trade_limit_minor: most of one trade or transfer; None: no limit.
        until_ms: until when it holds; None: without end.
    """

    day_limit_minor: Count | None
    from_ms: Count
    person: Id
    scopes: Annotated[tuple[Word, ...], msgspec.Meta(min_length=1, max_length=8)]
    trade_limit_minor: Count | None
    until_ms: Count | None


class Recovery(Wire):
    """The board gives a person who lost every key a new one, unless an old key vetoes before `ends_at_ms`."""

    ends_at_ms: Count
    public_key: PublicKey


class SpentKey(NamedTuple):
    """Whose spending for which member in which unit."""

    member: Id
    person: Id
    unit: UnitCode


class Spent(Wire):
    """What a person spent for a member on a UTC day (`day` counts from 1970)."""

    amount_minor: Count
    day: Count


class MembershipSlice:
    """State of the domain."""

    __slots__ = ("applications", "mandates", "members", "recoveries", "spent")

    def __init__(self) -> None:
        self.applications: Table[bytes, Count] = Table("membership.applications", bytes, Count)
        self.members: Table[bytes, Member] = Table("membership.members", bytes, Member)
        self.mandates: Table[bytes, tuple[Mandate, ...]] = Table("membership.mandates", bytes, tuple[Mandate, ...])
        self.recoveries: Table[bytes, Recovery] = Table("membership.recoveries", bytes, Recovery)
        self.spent: Table[SpentKey, Spent] = Table("membership.spent", SpentKey, Spent)

    def tables(self) -> tuple[Table[object, object], ...]:
        """Return the tables that the state digest covers."""
        return (self.applications, self.members, self.mandates, self.recoveries, self.spent)  # type: ignore[return-value]

    def lapsed_applications(self, at: int) -> list[bytes]:
        """Return the members-to-be whose applications are over, ascending (rows have no order in the digest)."""
        return sorted(member for member, lapses_ms in self.applications.items() if lapses_ms <= at)

    def is_active(self, member: bytes | None) -> bool:
        """Tell whether the id is that of an admitted member."""
        found = self.members.get(member) if member is not None else None
        return found is not None and found.status == "admitted"


class MembershipState(Protocol):
    """What the acts of this domain read and change."""

    coop: CoopSlice
    membership: MembershipSlice
    accounts: Accounts


def member_signs(state: MembershipState, member: bytes | None, scope: str, at: int) -> SignerRule:
    """Return the rule that one person mandated by the member for `scope` must have signed."""
    mandates = state.membership.mandates.get(member) if member is not None else None
    if not mandates:
        return NOBODY
    persons = frozenset(one.person for one in mandates if is_in_force(one, at) and {OWNER, scope} & {*one.scopes})
    return (Need(1, persons),)


def is_in_force(mandate: Mandate, at: int) -> bool:
    """Tell whether the mandate holds at `at`."""
    return mandate.from_ms <= at and (mandate.until_ms is None or at < mandate.until_ms)


def check_spending(
    state: MembershipState, member: bytes, signers: tuple[bytes, ...], unit: str, amount_minor: int, at: int
) -> Reason | None:
    """Tell whether the signing person's mandate allows the amount: ``trade_limit_exceeded``, ``day_limit_exceeded``."""
    for mandate in state.membership.mandates.get(member) or ():
        if mandate.person not in signers or not is_in_force(mandate, at):
            continue
        if mandate.trade_limit_minor is not None and amount_minor > mandate.trade_limit_minor:
            return Reason.of("trade_limit_exceeded", limit_minor=mandate.trade_limit_minor)
        if mandate.day_limit_minor is None:
            continue
        spent = state.membership.spent.get(SpentKey(member, mandate.person, unit))
        before = spent.amount_minor if spent and spent.day == at // DAY_MS else 0
        if before + amount_minor > mandate.day_limit_minor:
            return Reason.of("day_limit_exceeded", limit_minor=mandate.day_limit_minor, spent_minor=before)
    return None


SPENDING_REASONS = ("trade_limit_exceeded", "day_limit_exceeded")


def note_spending(
    state: MembershipState, member: bytes, signers: tuple[bytes, ...], unit: str, amount_minor: int, at: int
) -> None:
    """Count an amount against the day limits of the persons who signed; `check_spending` allowed it."""
    for mandate in state.membership.mandates.get(member) or ():
        if mandate.person in signers and mandate.day_limit_minor is not None:
            key = SpentKey(member, mandate.person, unit)
            spent = state.membership.spent.get(key)
            before = spent.amount_minor if spent and spent.day == at // DAY_MS else 0
            state.membership.spent[key] = Spent(amount_minor=before + amount_minor, day=at // DAY_MS)


def account_keys(state: MembershipState, member: bytes) -> tuple[AccountKey, ...]:
    """Return every account that the member was given on admission."""
    return tuple(AccountKey(member, name.unit, name.purpose) for name in state.membership.members[member].accounts)
