# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the rules remember of trades, and the life of one:

============  =============================  ==========  ======================================================
status        entry                          by          then
============  =============================  ==========  ======================================================
(none)        ``trade.propose``              seller      ``proposed``; nothing is reserved
``proposed``  ``trade.accept``               buyer       ``accepted``; barter part and commission are reserved
              ``trade.refuse``               either      gone
              ``trade.lapse``                either,     gone; from `expires_at_ms` on
                                             the node
``accepted``  ``trade.confirm``              buyer       ``confirmed``; what is reserved is posted
              ``trade.refuse``               seller      gone; what was reserved is free
              ``trade.lapse``                either      gone, freed; from `deliver_by_ms` on
``confirmed`` ``trade.reverse``              both, or    gone; opposite postings; before `reversible_until_ms`
                                             the board
============  =============================  ==========  ======================================================

Deadlines bind at their own instant: from `expires_at_ms` on an acceptance is refused, from `reversible_until_ms` on a
reversal. `deliver_by_ms` is the instant from which either party may give up a trade that is not confirmed; a buyer who
is content may still confirm, as long as nobody has.

Retirement: a proposed or accepted trade goes with the entry that closes it. A confirmed one waits in a queue, in the
order of confirmations, for the end of its reversal window; each proposal and each confirmation removes up to
`RETIRED_AT_ONCE` trades from the head of the queue that are over. A window shorter than that of a trade ahead of it is
removed late, which no check can see: the deadline binds all the same. Each proposal brings at most one trade to the
queue, so the queue never grows while there are trades that are over and proposals come.
"""

from typing import Final, Literal, Protocol

import msgspec

from ecot_protocol.domains.coop.state import CLAIMS, CoopSlice, own_account
from ecot_protocol.domains.membership.state import MembershipSlice
from ecot_protocol.ledger.accounts import AccountKey, Accounts, Leg
from ecot_protocol.ledger.table import Table
from ecot_protocol.wire.encoding import Count, Id, Positive, UnitCode, Wire

BARTER: Final = "barter"
"""Purpose of the account that a member trades with; the statutes open it on admission."""
TRADE: Final = "trade"
"""Scope of a mandate that lets its person transfer, and take part in trades, for the member."""
RETIRED_AT_ONCE: Final = 2


class Trade(Wire):
    """A trade that some entry can still change. Amounts in minor units of `unit`, the commission in its own unit.

    Attributes:
        closes_at_ms: the next instant that its status knows: end of the offer, of delivery, of the reversal window.
        deliver_by_ms: end of delivery.
        statutes_version: in force at the proposal; holds for the whole trade.
    """

    barter_minor: Positive
    buyer: Id
    closes_at_ms: Count
    commission_minor: Count
    commission_unit: UnitCode
    deliver_by_ms: Count
    euro_minor: Count
    seller: Id
    status: Literal["accepted", "confirmed", "proposed"]
    statutes_version: Positive
    unit: UnitCode


class QueueEnds(Wire):
    """Confirmed trades have the places from `first` to `next` - 1 in the queue."""

    first: Count
    next: Count


class TradeSlice:
    """State of the domain."""

    __slots__ = ("queue", "queue_ends", "trades")

    def __init__(self) -> None:
        self.trades: Table[bytes, Trade] = Table("trade.trades", bytes, Trade)
        self.queue: Table[int, bytes] = Table("trade.queue", Count, Id)
        self.queue_ends: Table[str, QueueEnds] = Table("trade.queue_ends", str, QueueEnds)

    def tables(self) -> tuple[Table[object, object], ...]:
        """Return the tables that the state digest covers."""
        return (self.trades, self.queue, self.queue_ends)  # type: ignore[return-value]

    def enqueue(self, trade_id: bytes) -> None:
        """Let a trade that was just confirmed wait for its retirement."""
        ends = self.queue_ends.get("") or QueueEnds(first=0, next=0)
        self.queue[ends.next] = trade_id
        self.queue_ends[""] = QueueEnds(first=ends.first, next=ends.next + 1)

    def retire(self, at: int) -> None:
        """Forget up to `RETIRED_AT_ONCE` trades that can't be reversed any more; see the module."""
        ends = self.queue_ends.get("")
        if ends is None:
            return
        first = ends.first
        while first < min(ends.next, ends.first + RETIRED_AT_ONCE):
            trade_id = self.queue[first]
            trade = self.trades.get(trade_id)
            if trade is not None and at < trade.closes_at_ms:
                break
            if trade is not None:
                del self.trades[trade_id]
            del self.queue[first]
            first += 1
        if first != ends.first:
            self.queue_ends[""] = QueueEnds(first=first, next=ends.next)


class TradeState(Protocol):
    """What the acts of this domain read and change."""

    coop: CoopSlice
    membership: MembershipSlice
    trade: TradeSlice
    accounts: Accounts


def barter_account(member: bytes, unit: str) -> AccountKey:
    """Return the account that a member trades with."""
    return AccountKey(member, unit, BARTER)


def with_status(trade: Trade, status: Literal["accepted", "confirmed", "proposed"], closes_at_ms: int) -> Trade:
    """Return the trade in its next status."""
    return msgspec.structs.replace(trade, status=status, closes_at_ms=closes_at_ms)


def trade_legs(trade: Trade) -> tuple[Leg, ...]:
    """Return the legs of a trade: the barter part, and the commission, in barter or as a claim in another unit."""
    seller = barter_account(trade.seller, trade.unit)
    payment = Leg(barter_account(trade.buyer, trade.unit), seller, trade.barter_minor, "trade")
    if trade.commission_minor == 0:
        return (payment,)
    if trade.commission_unit != trade.unit:
        seller = AccountKey(trade.seller, trade.commission_unit, CLAIMS)
    return payment, Leg(seller, own_account(trade.commission_unit), trade.commission_minor, "commission")


def reversal_legs(trade: Trade) -> tuple[Leg, ...]:
    """Return the legs that undo `trade_legs`."""
    return tuple(Leg(leg.payee, leg.payer, leg.amount_minor, f"{leg.reason}_reversal") for leg in trade_legs(trade))
