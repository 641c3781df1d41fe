# SPDX-License-Identifier: AGPL-3.0-or-later
"""Facts of trade. A direct transfer has no fact but its `Posting`, with the reason ``transfer``."""

from ecot_protocol.ledger.facts import Fact


class TradeFact(Fact):
    """What every fact of a trade says: who, and how much. Its postings and reservations have the trade as cause.

    Attributes:
        trade: its id.
        seller: member who delivers, and who bears the commission.
        buyer: member who pays.
        unit: the barter unit.
        barter_minor: part of the invoice paid in barter.
        euro_minor: part of the invoice that the buyer pays to the seller outside the ledger.
        commission_minor: what the seller owes the cooperative, in `commission_unit`.
    """

    trade: bytes
    seller: bytes
    buyer: bytes
    unit: str
    barter_minor: int
    euro_minor: int
    commission_minor: int
    commission_unit: str


class TradeProposed(TradeFact):
    """The seller offers a trade until `expires_at_ms`, to be delivered until `deliver_by_ms`; nothing is reserved."""

    net_minor: int
    vat_minor: int
    expires_at_ms: int
    deliver_by_ms: int
    statutes_version: int


class TradeAccepted(TradeFact):
    """The buyer takes the offer: barter part and commission are reserved until the end of delivery."""

    deliver_by_ms: int


class TradeConfirmed(TradeFact):
    """The buyer has what it bought: what was reserved is posted. It can be reversed until `reversible_until_ms`."""

    reversible_until_ms: int


class TradeRefused(TradeFact):
    """One of the two (`by`) doesn't want the trade; what was reserved is free again."""

    by: bytes


class TradeLapsed(TradeFact):
    """Nobody accepted in time, or nobody confirmed a delivery in time (`was_accepted`); nothing is reserved."""

    was_accepted: bool


class TradeReversed(TradeFact):
    """A confirmed trade was undone by opposite postings; `by` is the seller (with the buyer), or the board."""

    by: bytes
