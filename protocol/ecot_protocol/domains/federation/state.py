# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the rules remember of other ledgers: the peerings, the deals that are promised here, the decisions made here.

Retirement:

- A peer stays: its sequence number must not be used again, and its account may hold a balance.
- A promised deal goes with its resolution.
- A decision is remembered until the deal closes (`Deal.closes_at_ms`, 400 days after its earliest abort) and its
  promise, if one stood here, is resolved. From its earliest abort on no promise of the deal can be recorded, from its
  closing on no decision without a promise: so nothing that was decided can be decided again. Decisions go in the order
  in which they were recorded, when a later one is recorded.
- A round that was resolved here is remembered until its earliest abort, from when it can't be accepted any more: or a
  repeated offer would clear it twice. (A transfer needs no such memory: its payer's entry has an id that was used, its
  payee's ledger remembers the decision.) These go in the order of their resolution, when a later round is accepted.
"""

from typing import Annotated, Final, Literal, Protocol

import msgspec

from ecot_protocol.domains.coop.state import CoopSlice
from ecot_protocol.domains.federation.statements import DecisionPolicy, Peering, PeeringStatus
from ecot_protocol.domains.membership.state import MembershipSlice
from ecot_protocol.domains.trade.state import BARTER
from ecot_protocol.ledger.accounts import AccountKey, Accounts
from ecot_protocol.ledger.table import Table
from ecot_protocol.wire.encoding import Count, Hash, Id, Wire

PARTNER: Final = "partner"
"""Purpose of the account of a partner ledger: positive if we owe it."""
DOUBTFUL: Final = "doubtful"
"""Purpose of the account that takes the member's place in a deal that was given up."""

Outcome = Literal["abort", "commit"]
Role = Literal["clearing", "payee", "payer"]


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
        partners: the other ledgers with whose accounts it deals, ascending.
        role: our side of it.
    """

    closes_at_ms: Count
    decision: DecisionPolicy
    earliest_abort_ms: Count
    index: Count
    is_doubtful: bool
    partners: Annotated[tuple[Hash, ...], msgspec.Meta(min_length=1, max_length=64)]
    role: Role


class Decided(Wire):
    """A decision of this ledger's log, recorded at `index`."""

    closes_at_ms: Count
    index: Count
    outcome: Outcome


class FederationSlice:
    """State of the domain."""

    __slots__ = ("decisions", "peers", "promises", "settled")

    def __init__(self) -> None:
        self.peers: Table[bytes, Peer] = Table("federation.peers", Hash, Peer)
        self.promises: Table[bytes, Promised] = Table("federation.promises", Id, Promised)
        self.decisions: Table[bytes, Decided] = Table("federation.decisions", Id, Decided)
        self.settled: Table[bytes, int] = Table("federation.settled", Id, Count)

    def tables(self) -> tuple[Table[object, object], ...]:
        """Return the tables that the state digest covers."""
        return (self.peers, self.promises, self.decisions, self.settled)  # type: ignore[return-value]

    def active_peer(self, ledger: bytes) -> Peer | None:
        """Return the peer with whom new deals can be made, if this ledger is one."""
        peer = self.peers.get(ledger)
        return peer if peer is not None and peer.status == "active" else None

    def linked_peer(self, ledger: bytes) -> Peer | None:
        """Return the peer that is still a witness of ours, be it suspended; None if the peering has ended."""
        peer = self.peers.get(ledger)
        return peer if peer is not None and peer.status != "ended" else None

    def forget_decisions(self, at: int) -> None:
        """Retire decisions from the oldest on, as long as each is closed and its promise gone."""
        over = []
        for tid, decided in self.decisions.items():
            if decided.closes_at_ms > at or tid in self.promises:
                break
            over.append(tid)
        for tid in over:
            del self.decisions[tid]

    def forget_settled(self, at: int) -> None:
        """Retire resolved rounds from the oldest on, as long as their earliest abort has passed."""
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


def member_account(member: bytes, unit: str) -> AccountKey:
    """Return the member's account for trade in a unit."""
    return AccountKey(member, unit, BARTER)
