# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the rules remember of shares: subscriptions not yet paid, who holds which numbers, the highest capital.

The price of shares runs through three accounts of the cooperative and the member's claims:

======================  ===========================================  =================================
entry                   posting                                      meaning
======================  ===========================================  =================================
``shares.subscribe``    claims of the member -> ``capital_called``   the member owes the price
``attest_payment``      ``bank`` -> claims                           the price came in
                        ``capital_called`` -> ``capital``            the shares are issued
``cancel_subscription`` ``capital_called`` -> claims                 nothing is owed any more
``shares.redeem``       ``capital`` -> claims                        the cooperative owes the price
======================  ===========================================  =================================

What is owed for a redemption is paid by ``membership.attest_payment`` with direction ``out``.

Retirement: a subscription goes when it is paid or cancelled; a member's holding goes when it is empty. The register of
movements is made from facts and is not kept here: no check reads it.
"""

from typing import Annotated, Final, Protocol

import msgspec

from ecot_protocol.domains.coop.state import CoopSlice
from ecot_protocol.domains.membership.state import MembershipSlice
from ecot_protocol.ledger.accounts import Accounts
from ecot_protocol.ledger.table import Table
from ecot_protocol.wire.encoding import Count, Id, Positive, UnitCode, Wire, WireArray

CAPITAL: Final = "capital"
"""Purpose of the cooperative's account of the capital that members have paid."""
CAPITAL_CALLED: Final = "capital_called"
"""Purpose of the cooperative's account of the capital that members have subscribed and not yet paid."""
MAX_LOTS: Final = 256
"""Ranges of numbers and open subscriptions that one member can have together."""


class Subscription(Wire):
    """A promise to buy `count` shares at `price_minor` each, in `unit`: both as the statutes said at its record."""

    count: Positive
    member: Id
    price_minor: Positive
    unit: UnitCode

    @property
    def total_minor(self) -> int:
        """The price of all."""
        return self.count * self.price_minor


class ShareRange(WireArray):
    """The shares numbered `first` to `last`, each issued at `price_minor` in `unit`."""

    first: Positive
    last: Positive
    price_minor: Positive
    unit: UnitCode

    @property
    def count(self) -> int:
        """How many shares."""
        return self.last - self.first + 1


class Holding(Wire):
    """What a member has: ranges in ascending order, and how many of its subscriptions wait for payment."""

    ranges: Annotated[tuple[ShareRange, ...], msgspec.Meta(max_length=MAX_LOTS)]
    subscription_count: Count


class Register(Wire):
    """Where the two numberings are: movements recorded, and share numbers given, ever."""

    movement_count: Count
    share_count: Count


NO_HOLDING: Final = Holding(ranges=(), subscription_count=0)


class SharesSlice:
    """State of the domain."""

    __slots__ = ("highest_capital", "holdings", "register", "subscriptions")

    def __init__(self) -> None:
        self.subscriptions: Table[bytes, Subscription] = Table("shares.subscriptions", bytes, Subscription)
        self.holdings: Table[bytes, Holding] = Table("shares.holdings", bytes, Holding)
        self.register: Table[str, Register] = Table("shares.register", str, Register)
        self.highest_capital: Table[str, Count] = Table("shares.highest_capital", str, Count)

    def tables(self) -> tuple[Table[object, object], ...]:
        """Return the tables that the state digest covers."""
        return (  # type: ignore[return-value]  # Table is invariant; the digest only reads
            self.subscriptions,
            self.holdings,
            self.register,
            self.highest_capital,
        )

    def holding_of(self, member: bytes) -> Holding:
        """Return what a member has; nothing, for one who never subscribed."""
        return self.holdings.get(member) or NO_HOLDING

    def share_count(self, member: bytes) -> int:
        """Return how many shares a member has."""
        return sum(one.count for one in self.holding_of(member).ranges)

    def put_holding(self, member: bytes, holding: Holding) -> None:
        """Set what a member has; an empty holding is not kept."""
        if holding != NO_HOLDING:
            self.holdings[member] = holding
        elif member in self.holdings:
            del self.holdings[member]

    def take_numbers(self, share_count: int) -> tuple[int, int]:
        """Return (movement number, first share number) for one movement that issues `share_count` shares, from 0."""
        old = self.register.get("") or Register(movement_count=0, share_count=0)
        self.register[""] = Register(movement_count=old.movement_count + 1, share_count=old.share_count + share_count)
        return old.movement_count + 1, old.share_count + 1


class SharesState(Protocol):
    """What the acts of this domain read and change."""

    coop: CoopSlice
    membership: MembershipSlice
    shares: SharesSlice
    accounts: Accounts


def add_range(ranges: tuple[ShareRange, ...], new: ShareRange) -> tuple[ShareRange, ...]:
    """Add the newest range; one that follows on from the last at the same price lengthens it.

    >>> add_range((ShareRange(1, 2, 100, "EUR"),), ShareRange(3, 3, 100, "EUR"))
    (ShareRange(first=1, last=3, price_minor=100, unit='EUR'),)
    """
    last = ranges[-1] if ranges else None
    if last and (last.last + 1, last.price_minor, last.unit) == (new.first, new.price_minor, new.unit):
        return (*ranges[:-1], ShareRange(last.first, new.last, new.price_minor, new.unit))
    return (*ranges, new)


def take_ranges(
    ranges: tuple[ShareRange, ...], count: int, unit: str
) -> tuple[tuple[ShareRange, ...], tuple[ShareRange, ...]]:
    """Return (taken, left): `count` shares of the unit, lowest numbers first; fewer if there are fewer.

    >>> take_ranges((ShareRange(1, 2, 100, "EUR"), ShareRange(7, 9, 100, "EUR")), 3, "EUR")[1]
    (ShareRange(first=8, last=9, price_minor=100, unit='EUR'),)
    """
    taken: list[ShareRange] = []
    left: list[ShareRange] = []
    for one in ranges:
        wanted = min(count, one.count) if one.unit == unit else 0
        count -= wanted
        if wanted:
            taken.append(ShareRange(one.first, one.first + wanted - 1, one.price_minor, unit))
        if wanted < one.count:
            left.append(ShareRange(one.first + wanted, one.last, one.price_minor, one.unit))
    return tuple(taken), tuple(left)
