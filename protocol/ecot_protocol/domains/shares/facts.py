# SPDX-License-Identifier: AGPL-3.0-or-later
"""Facts of shares. `SharesIssued` and `SharesRedeemed`, in order, are the register of movements of shares."""

from ecot_protocol.ledger.facts import Fact


class SharesSubscribed(Fact):
    """A member promised to buy shares and owes `total_minor` (a posting goes with it); it has none of them yet."""

    subscription: bytes
    member: bytes
    count: int
    price_minor: int
    total_minor: int
    unit: str


class SubscriptionCancelled(Fact):
    """An unpaid subscription is off, by the member or by the treasurer (`by`); nothing is owed for it any more."""

    subscription: bytes
    member: bytes
    count: int
    total_minor: int
    unit: str
    by: bytes


class SharesIssued(Fact):
    """Movement number `movement`, from 1 without holes: the member has the shares numbered `first` to `last`.

    `price_minor` is the price of one share, all paid.
    """

    movement: int
    member: bytes
    subscription: bytes
    first: int
    last: int
    price_minor: int
    unit: str


class SharesRedeemed(Fact):
    """Movement number `movement`: the cooperative took back `first` to `last`; these numbers are never given again."""

    movement: int
    member: bytes
    first: int
    last: int
    price_minor: int
    unit: str
