# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a ledger checks of a transfer that passes it, and what it reserves for it.

A ledger judges only what is its own: the peerings with its two neighbours on the path, its units, its rate, its fee,
who decides. What others agree among themselves is theirs; nobody is bound by more than what its own ledger recorded.

- The payer's ledger reserves payer -> partner.
- A ledger in between reserves partner before -> partner after, and partner before -> its own account of fees, as one
  group: it can't post the one without the other, so it neither gains more nor loses anything.
- The payee's ledger reserves partner -> payee.
"""

from collections.abc import Sequence
from typing import Final

from ecot_protocol.domains.coop.statutes import FederationStatutes
from ecot_protocol.domains.federation.deals import ABORT_WINDOW_MS, Contract, Deal, SignatureBytes
from ecot_protocol.domains.federation.facts import MirrorPromised
from ecot_protocol.domains.federation.state import (
    FederationState,
    Promised,
    Role,
    member_account,
    partner_account,
    transit_account,
)
from ecot_protocol.ledger.accounts import Leg
from ecot_protocol.ledger.amounts import Rounding, share
from ecot_protocol.ledger.facts import Fact
from ecot_protocol.ledger.reasons import Reason
from ecot_protocol.wire.encoding import MAX_INTEGER
from ecot_protocol.wire.statement import is_statement_signed

CONTRACT_REASONS: Final = (
    "peer_unknown",
    "peering_superseded",
    "agent_key_mismatch",
    "decider_not_accepted",
    "contract_unit_wrong",
    "rate_mismatch",
    "own_side_wrong",
    "transit_not_shared",
    "transit_fee_too_small",
    "decider_not_reachable",
    "witnesses_too_few",
    "too_many_pending",
)
"""What `check_contract` can answer, in this order (hop by hop)."""
LATE_REASONS: Final = ("deal_decided", "promise_repeated", "promise_too_late", "abort_time_out_of_range")
"""What `check_open` can answer."""


def partners_of(contract: Contract, position: int) -> tuple[bytes, ...]:
    """Return the neighbours of a place on the path, in its order."""
    places = (position - 1, position + 1)
    return tuple(contract.path[place] for place in places if 0 <= place < len(contract.path))


def check_contract(state: FederationState, contract: Contract, position: int, at: int) -> Reason | None:
    """Tell why our ledger can't take this place on the path (see `CONTRACT_REASONS`), or None."""
    for hop in range(max(position - 1, 0), min(position + 1, len(contract.hops))):
        reason = _check_hop(state, contract, hop, position)
        if reason is not None:
            return reason
    if contract.agents[position] != state.coop.node_keys["agent"].public_key:
        return Reason.of("own_side_wrong", field="agent")
    statutes = state.coop.statutes_at(at)[1].federation
    reason = _check_transit(state, contract, position, statutes) or _check_decider(state, contract, statutes)
    return reason or state.federation.check_pending(partners_of(contract, position))


def _check_hop(state: FederationState, contract: Contract, hop_number: int, position: int) -> Reason | None:
    neighbour = hop_number if hop_number != position else hop_number + 1
    partner, hop = contract.path[neighbour], contract.hops[hop_number]
    peer = state.federation.active_peer(partner)
    if peer is None:
        return Reason.of("peer_unknown", partner=partner.hex())
    if hop.peering != peer.statement:
        return Reason.of("peering_superseded", partner=partner.hex())
    peering = peer.peering
    if contract.agents[neighbour] != peering.side_of(partner).agent:
        return Reason.of("agent_key_mismatch", partner=partner.hex())
    if peering.decider(contract.decision.ledger) != contract.decision:
        return Reason.of("decider_not_accepted", ledger=contract.decision.ledger.hex())
    payer, payee = (peering.side_of(contract.path[place]) for place in (hop_number, hop_number + 1))
    if contract.units[hop_number : hop_number + 2] != (payer.unit, payee.unit):
        return Reason.of("contract_unit_wrong", payer_unit=payer.unit, payee_unit=payee.unit)
    expected_minor = peering.payer_amount(payer.ledger, hop.in_minor)
    if hop.out_minor != expected_minor:
        return Reason.of("rate_mismatch", expected_minor=min(expected_minor, MAX_INTEGER))
    return None


def _check_transit(
    state: FederationState, contract: Contract, position: int, statutes: FederationStatutes
) -> Reason | None:
    if not 0 < position < len(contract.hops):
        return None
    for partner in partners_of(contract, position):
        if "transit" not in state.federation.peers[partner].peering.shared:
            return Reason.of("transit_not_shared", partner=partner.hex())
    least_minor = share(contract.hops[position].out_minor, statutes.transit_fee, Rounding.UP)
    if contract.fee_minor(position) < least_minor:
        return Reason.of("transit_fee_too_small", expected_minor=min(least_minor, MAX_INTEGER))
    return None


def _check_decider(state: FederationState, contract: Contract, statutes: FederationStatutes) -> Reason | None:
    decision = contract.decision
    if decision.ledger != state.coop.founded.ledger and state.federation.linked_peer(decision.ledger) is None:
        return Reason.of("decider_not_reachable", ledger=decision.ledger.hex())
    off_path = sum(witness.ledger not in contract.path for witness in decision.witnesses)
    if off_path < statutes.witnesses_off_path_min:
        return Reason.of("witnesses_too_few", minimum=statutes.witnesses_off_path_min)
    return None


def check_open(state: FederationState, deal: Deal, at: int) -> Reason | None:
    """Tell why a deal can't be promised any more, or not yet (see `LATE_REASONS`), or None."""
    if deal.tid in state.federation.decisions:
        return Reason.of("deal_decided", tid=deal.tid.hex())
    if deal.tid in state.federation.promises or deal.tid in state.federation.settled:
        return Reason.of("promise_repeated", tid=deal.tid.hex())
    if at >= deal.earliest_abort_ms:
        return Reason.of("promise_too_late", earliest_abort_ms=deal.earliest_abort_ms)
    if deal.earliest_abort_ms > at + 2 * ABORT_WINDOW_MS:  # the payer's own rules allow less
        return Reason.of("abort_time_out_of_range", last_ms=at + 2 * ABORT_WINDOW_MS)
    return None


def are_promises_good(contract: Contract, raw: bytes, promises: Sequence[SignatureBytes]) -> bool:
    """Tell whether these are the signatures of the first agents of the path over the statement, in its order."""
    agents = contract.agents[: len(promises)]
    return len(promises) <= len(contract.agents) and all(
        is_statement_signed(agent, raw, signature) for agent, signature in zip(agents, promises, strict=True)
    )


def payer_legs(payer: bytes, contract: Contract) -> tuple[Leg, ...]:
    """Return what the payer's ledger reserves."""
    unit = contract.units[0]
    partner = partner_account(contract.path[1], unit)
    return (Leg(member_account(payer, unit), partner, contract.payer_amount_minor, "transfer_out"),)


def transit_legs(contract: Contract, position: int) -> tuple[Leg, ...]:
    """Return what a ledger in between reserves."""
    unit = contract.units[position]
    before, after = (partner_account(partner, unit) for partner in partners_of(contract, position))
    handed_on = Leg(before, after, contract.hops[position].out_minor, "transit")
    fee_minor = contract.fee_minor(position)
    return (handed_on, Leg(before, transit_account(unit), fee_minor, "transit_fee")) if fee_minor else (handed_on,)


def payee_legs(payee: bytes, contract: Contract) -> tuple[Leg, ...]:
    """Return what the payee's ledger reserves."""
    unit = contract.units[-1]
    partner = partner_account(contract.path[-2], unit)
    return (Leg(partner, member_account(payee, unit), contract.payee_amount_minor, "transfer_in"),)


def mirror_facts(tid: bytes, contract: Contract, position: int) -> list[Fact]:
    """Return by how much a deal moves our accounts of our neighbours, and theirs of us."""
    found: list[Fact] = []
    if position > 0:
        hop = contract.hops[position - 1]
        before = contract.path[position - 1]
        found.append(MirrorPromised(tid=tid, partner=before, own_minor=-hop.in_minor, partner_minor=hop.out_minor))
    if position < len(contract.hops):
        hop = contract.hops[position]
        after = contract.path[position + 1]
        found.append(MirrorPromised(tid=tid, partner=after, own_minor=hop.out_minor, partner_minor=-hop.in_minor))
    return found


def promised_of(deal: Deal, contract: Contract, position: int, index: int) -> Promised:
    """Return what is remembered of our promise, made by the record at `index`."""
    return Promised(
        closes_at_ms=deal.closes_at_ms,
        decision=contract.decision,
        earliest_abort_ms=deal.earliest_abort_ms,
        index=index,
        is_doubtful=False,
        partners=partners_of(contract, position),
        role=_role(contract, position),
    )


def _role(contract: Contract, position: int) -> Role:
    if position == 0:
        return "payer"
    return "payee" if position == len(contract.hops) else "transit"


__all__ = [
    "CONTRACT_REASONS",
    "LATE_REASONS",
    "are_promises_good",
    "check_contract",
    "check_open",
    "mirror_facts",
    "partners_of",
    "payee_legs",
    "payer_legs",
    "promised_of",
    "transit_legs",
]
