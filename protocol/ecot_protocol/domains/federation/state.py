# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the rules remember of other ledgers: the peerings, the deals that are promised here, the decisions made here.

Retirement:

- A peer stays: its sequence number must not be used again, and its account may hold a balance.
- A promised deal goes with its resolution.
- A decision is remembered until the deal closes (`Deal.closes_at_ms`, 400 days after its earliest abort) and its
  promise, if one stood here, is resolved. From its earliest abort on no promise of the deal can be recorded, from its
  closing on no decision without a promise: so nothing that was decided can be decided again. Decisions go in the order
  in which they were recorded, when a later one is recorded; what stays of them is the frontier of the decision log.
- An obligation goes when it is cleared in full or withdrawn; a call when its earliest abort has passed.
- A round that was resolved here is remembered until its earliest abort, from when it can't be accepted any more: or a
  repeated offer would clear it twice. The same holds for a transfer that was forwarded here, or promised to a payee
  while another ledger decides: the signatures that a decider has seen would commit it again. (The payer's ledger needs
  no such memory: its entry has an id that was used.) These go in the order of their resolution, when a later deal is
  promised.
- How many promises stand with each partner is counted; a row goes with the last of them.
"""

from collections.abc import Iterable
from typing import Annotated, Final, Literal, Protocol

import msgspec

from ecot_protocol.domains.coop.state import CoopSlice, own_account
from ecot_protocol.domains.federation.decision_log import Outcome, grown_frontier
from ecot_protocol.domains.federation.statements import DecisionPolicy, Peering, PeeringStatus
from ecot_protocol.domains.membership.state import MembershipSlice
from ecot_protocol.domains.trade.state import BARTER
from ecot_protocol.ledger.accounts import AccountKey, Accounts
from ecot_protocol.ledger.reasons import Reason
from ecot_protocol.ledger.table import Table
from ecot_protocol.wire.encoding import Count, Hash, Id, Positive, UnitCode, Wire
from ecot_protocol.wire.merkle_group import Frontier

PARTNER: Final = "partner"
"""Purpose of the account of a partner ledger: positive if we owe it."""
DOUBTFUL: Final = "doubtful"
"""Purpose of the account that takes the member's place in a deal that was given up."""

Role = Literal["clearing", "payee", "payer", "transit"]
MAX_PENDING: Final = 4_096
"""Promises that may stand unresolved with one partner; more are refused, whatever their amounts."""
TRANSIT: Final = "transit"
"""Purpose of the cooperative's account that takes the fees of transfers that it forwards."""


class Peer(Wire):
    """The peering in force with a ledger, or the last one if it has ended.

    Attributes:
        ended_at_ms: when the peering was ended, by both or by our board alone.
        peering: as both signed it, with the keys that were replaced since on either side.
        statement: id of what both signed.
        suspended_at_ms: when our board alone suspended it.
    """

    ended_at_ms: Count | None
    peering: Peering
    statement: Hash
    suspended_at_ms: Count | None

    @property
    def status(self) -> PeeringStatus:
        """Whether anything new may be agreed with it."""
        if self.ended_at_ms is not None:
            return "ended"
        return "suspended" if self.suspended_at_ms is not None else self.peering.status


class Promised(Wire):
    """A deal that has a reservation here, under its tid.

    Attributes:
        closes_at_ms, earliest_abort_ms: of the deal.
        decision: whose decision counts, as agreed when the deal was recorded.
        index: of the record that made the promise.
        is_doubtful: the board gave it up; the reservation is on the doubtful account.
        partners: the other ledgers with whose accounts it deals: of a transfer in the order of its path, of a round
            ascending.
        role: our side of it.
    """

    closes_at_ms: Count
    decision: DecisionPolicy
    earliest_abort_ms: Count
    index: Count
    is_doubtful: bool
    partners: Annotated[tuple[Hash, ...], msgspec.Meta(max_length=64)]
    role: Role


class Decided(Wire):
    """A decision of this ledger, recorded at `index`: leaf `number` of its decision log."""

    closes_at_ms: Count
    index: Count
    number: Count
    outcome: Outcome


class RetiredDecisions(Wire):
    """The decision log before the decisions that are remembered: how many, and the frontier's hashes."""

    count: Count
    hashes: Annotated[tuple[Hash, ...], msgspec.Meta(max_length=53)]


class Offered(Wire):
    """What a member offered for clearing of what it owes, or is owed (`obligations`).

    Attributes:
        amount_minor: what is still owed.
        held_minor: of it, in rounds that are accepted and not decided.
        member: the debtor or the creditor, of this ledger.
        other_ledger: of the other member; may be this one.
        unit: of the amounts.
    """

    amount_minor: Count
    held_minor: Count
    member: Id
    other_ledger: Hash
    unit: UnitCode


class Hold(Wire):
    """A part of an obligation that a round not decided yet would clear; of what a member owes, or is owed."""

    amount_minor: Positive
    is_debtor: bool
    obligation: Id


class FederationSlice:
    """State of the domain."""

    __slots__ = (
        "calls",
        "claimed",
        "decisions",
        "decisions_before",
        "holds",
        "offers",
        "owed",
        "peers",
        "pending",
        "promises",
        "settled",
    )

    def __init__(self) -> None:
        self.peers: Table[bytes, Peer] = Table("federation.peers", Hash, Peer)
        self.promises: Table[bytes, Promised] = Table("federation.promises", Id, Promised)
        self.pending: Table[bytes, int] = Table("federation.pending", Hash, Count)
        self.decisions: Table[bytes, Decided] = Table("federation.decisions", Id, Decided)
        self.decisions_before: Table[str, RetiredDecisions] = Table(
            "federation.decisions_before", str, RetiredDecisions
        )
        self.settled: Table[bytes, int] = Table("federation.settled", Id, Count)
        self.owed: Table[bytes, Offered] = Table("federation.owed", Id, Offered)
        self.claimed: Table[bytes, Offered] = Table("federation.claimed", Id, Offered)
        self.offers: Table[bytes, int] = Table("federation.offers", Id, Count)
        self.holds: Table[bytes, tuple[Hold, ...]] = Table("federation.holds", Id, tuple[Hold, ...])
        self.calls: Table[bytes, int] = Table("federation.calls", Id, Count)

    def tables(self) -> tuple[Table[object, object], ...]:
        """Return the tables that the state digest covers."""
        deals = (self.peers, self.promises, self.pending, self.decisions, self.decisions_before, self.settled)
        rounds = (self.owed, self.claimed, self.offers, self.holds, self.calls)
        return (*deals, *rounds)  # type: ignore[return-value]

    def active_peer(self, ledger: bytes) -> Peer | None:
        """Return the peer with whom new deals can be made, if this ledger is one."""
        peer = self.peers.get(ledger)
        return peer if peer is not None and peer.status == "active" else None

    def linked_peer(self, ledger: bytes) -> Peer | None:
        """Return the peer that is still a witness of ours, be it suspended; None if the peering has ended."""
        peer = self.peers.get(ledger)
        return peer if peer is not None and peer.status != "ended" else None

    def check_pending(self, partners: Iterable[bytes]) -> Reason | None:
        """Refuse one more promise with a partner that has too many: ``too_many_pending``."""
        for partner in partners:
            if self.pending.get(partner, 0) >= MAX_PENDING:
                return Reason.of("too_many_pending", partner=partner.hex(), maximum=MAX_PENDING)
        return None

    def promise(self, tid: bytes, promised: Promised, at: int) -> None:
        """Remember a promise, and forget rounds and transfers that nobody can repeat any more."""
        self._forget_settled(at)
        self.promises[tid] = promised
        for partner in promised.partners:
            self.pending[partner] = self.pending.get(partner, 0) + 1

    def settle(self, tid: bytes) -> Promised:
        """Forget a promise that is resolved; remember its deal as long as it could be promised again."""
        promised = self.promises[tid]
        del self.promises[tid]
        for partner in promised.partners:
            left = self.pending[partner] - 1
            if left:
                self.pending[partner] = left
            else:
                del self.pending[partner]
        if promised.role != "payer" and tid not in self.decisions:
            self.settled[tid] = promised.earliest_abort_ms
        return promised

    def forget_decisions(self, at: int) -> None:
        """Retire decisions from the oldest on, as long as each is closed and its promise gone."""
        over = []
        for tid, decided in self.decisions.items():
            if decided.closes_at_ms > at or tid in self.promises:
                break
            over.append(tid)
        if over:
            before = grown_frontier(self.retired_decisions(), ((tid, self.decisions[tid].outcome) for tid in over))
            self.decisions_before[""] = RetiredDecisions(count=before.size, hashes=before.hashes)
        for tid in over:
            del self.decisions[tid]

    def forget_calls(self, at: int) -> None:
        """Retire calls from the oldest on, as long as their time is over: nobody can commit to them again."""
        over = []
        for call, until_ms in self.calls.items():
            if until_ms > at:
                break
            over.append(call)
        for call in over:
            del self.calls[call]

    def retired_decisions(self) -> Frontier:
        """Return the frontier of the decision log before the decisions that are remembered."""
        row = self.decisions_before.get("")
        return Frontier.empty() if row is None else Frontier(row.count, row.hashes)

    def decision_count(self) -> int:
        """Return the size of the decision log."""
        row = self.decisions_before.get("")
        return len(self.decisions) + (0 if row is None else row.count)

    def _forget_settled(self, at: int) -> None:
        """Retire resolved deals from the oldest on, as long as their earliest abort has passed."""
        over = []
        for tid, earliest_abort_ms in self.settled.items():
            if earliest_abort_ms > at:
                break
            over.append(tid)
        for tid in over:
            del self.settled[tid]


class FederationState(Protocol):
    """What the acts of this domain read and change."""

    coop: CoopSlice
    membership: MembershipSlice
    accounts: Accounts
    federation: FederationSlice


def partner_account(ledger: bytes, unit: str, purpose: str = PARTNER) -> AccountKey:
    """Return the account of a partner ledger (32 bytes); its owner is the first half of the id."""
    return AccountKey(ledger[:16], unit, purpose)


def transit_account(unit: str) -> AccountKey:
    """Return the cooperative's account for fees of what it forwards."""
    return own_account(unit, TRANSIT)


def member_account(member: bytes, unit: str) -> AccountKey:
    """Return the member's account for trade in a unit."""
    return AccountKey(member, unit, BARTER)
