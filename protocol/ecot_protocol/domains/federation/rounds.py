# SPDX-License-Identifier: AGPL-3.0-or-later
"""``federation.clear_accept``: this ledger promises its part of a clearing round.

The node may do so without asking the board where the peering says ``clearing`` and accepts the round's decider. What is
cleared is only debt that stands: nobody's net position changes, and no limit is touched from the wrong side. Once this
is recorded, the agent's signature over the round's statement may go to the decider.

A round has one unit. So it passes only through peerings whose two sides trade in that unit at 1 to 1.
"""

from typing import Final

from ecot_protocol.domains.federation import facts
from ecot_protocol.domains.federation.clearing import is_optimal
from ecot_protocol.domains.federation.deals import ABORT_WINDOW_MS, Deal, DealBytes, Round, decode_deal
from ecot_protocol.domains.federation.limits import RESERVE_REASONS, check_reserve
from ecot_protocol.domains.federation.proofs import proof_wrong
from ecot_protocol.domains.federation.state import FederationState, Promised, partner_account
from ecot_protocol.domains.federation.statements import Peering
from ecot_protocol.domains.federation.transfers import node_signs
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.ledger.accounts import Leg
from ecot_protocol.ledger.entry_type import Act, EntryType, Visibility
from ecot_protocol.ledger.facts import Fact
from ecot_protocol.ledger.reasons import Reason
from ecot_protocol.wire.encoding import Wire


class ClearAccept(Wire):
    """Payload of ``federation.clear_accept``: the statement of the round."""

    contract: DealBytes


def round_of(raw: bytes) -> tuple[Deal, Round]:
    """Read the statement of a round.

    Raises:
        RemoteProtocolError: ``deal_unsound`` (it is a transfer), or a code of `decode_deal`.
    """
    deal = decode_deal(raw)
    if not isinstance(deal.terms, Round):
        raise RemoteProtocolError("deal_unsound", "expected a round", field="type")
    return deal, deal.terms


def _evidence(payload: ClearAccept) -> Reason | None:
    try:
        _, terms = round_of(payload.contract)
    except RemoteProtocolError as error:
        return proof_wrong(error)
    if terms.potentials and not is_optimal(terms.edges, terms.potentials):
        return Reason.of("evidence_wrong", problem="certificate_wrong")
    return None


def cleared_of(ledger: bytes, deal: Deal, terms: Round) -> dict[bytes, int]:
    """Return partner -> what the round clears with it, positive if `ledger` owes it, in the order of the edges."""
    own = deal.ledgers.index(ledger)
    cleared: dict[bytes, int] = {}
    for edge in terms.edges:
        if edge.flow_minor and own in (edge.debtor, edge.creditor):
            other = deal.ledgers[edge.creditor if own == edge.debtor else edge.debtor]
            sign = 1 if own == edge.debtor else -1
            cleared[other] = cleared.get(other, 0) + sign * edge.flow_minor
    return {partner: amount for partner, amount in cleared.items() if amount}


def _check(state: FederationState, act: Act[ClearAccept], at: int) -> Reason | None:
    deal, terms = round_of(act.payload.contract)
    ledger, agent = state.coop.founded.ledger, state.coop.node_keys["agent"].public_key
    if ledger not in deal.ledgers or terms.agents[deal.ledgers.index(ledger)] != agent:
        return Reason.of("own_side_wrong", field="agent")
    if deal.tid in state.federation.decisions:
        return Reason.of("deal_decided", tid=deal.tid.hex())
    if deal.tid in state.federation.promises or deal.tid in state.federation.settled:
        return Reason.of("promise_repeated", tid=deal.tid.hex())
    cleared = cleared_of(ledger, deal, terms)
    for partner in cleared:
        reason = _check_powers(state, deal, terms, partner)
        if reason is not None:
            return reason
    if at >= terms.earliest_abort_ms:
        return Reason.of("promise_too_late", earliest_abort_ms=terms.earliest_abort_ms)
    if terms.earliest_abort_ms > at + ABORT_WINDOW_MS:
        return Reason.of("abort_time_out_of_range", last_ms=at + ABORT_WINDOW_MS)
    for partner, amount_minor in cleared.items():
        if not _is_owed(state, partner, terms.unit, amount_minor):
            return Reason.of("debt_too_small", partner=partner.hex(), amount_minor=abs(amount_minor))
    if not cleared:
        return Reason.of("round_not_ours")
    reason = state.federation.check_pending(cleared)
    return reason or check_reserve(state, _legs(terms.unit, cleared), at)


def _check_powers(state: FederationState, deal: Deal, terms: Round, partner: bytes) -> Reason | None:
    peer = state.federation.active_peer(partner)
    if peer is None:
        return Reason.of("peer_unknown", partner=partner.hex())
    peering = peer.peering
    if "clearing" not in peering.shared:
        return Reason.of("clearing_not_shared", partner=partner.hex())
    if peering.decider(terms.decision.ledger) != terms.decision:
        return Reason.of("decider_not_accepted", ledger=terms.decision.ledger.hex())
    if terms.agents[deal.ledgers.index(partner)] != peering.side_of(partner).agent:
        return Reason.of("agent_key_mismatch", partner=partner.hex())
    return None if _is_at_par(peering, terms.unit) else Reason.of("clearing_unit_wrong", unit=terms.unit)


def _is_at_par(peering: Peering, unit: str) -> bool:
    return peering.rate.numerator == peering.rate.denominator and all(side.unit == unit for side in peering.sides)


def _is_owed(state: FederationState, partner: bytes, unit: str, amount_minor: int) -> bool:
    """Tell whether the partner's account still has that much on that side, what is promised to leave it apart."""
    account = state.accounts.rows.get(partner_account(partner, unit))
    if account is None:
        return False
    if amount_minor > 0:
        return account.balance_minor - account.reserved_out_minor >= amount_minor
    return account.balance_minor + account.reserved_in_minor <= amount_minor


def _legs(unit: str, cleared: dict[bytes, int]) -> tuple[Leg, ...]:
    """Pair what we owe with what we are owed: from the accounts of creditors to those of debtors."""
    owing = [(partner, -amount) for partner, amount in cleared.items() if amount < 0]
    legs: list[Leg] = []
    for creditor, owed_minor in cleared.items():
        to_clear_minor = owed_minor
        while to_clear_minor > 0:
            debtor, to_match_minor = owing.pop()
            amount_minor = min(to_clear_minor, to_match_minor)
            legs.append(Leg(partner_account(creditor, unit), partner_account(debtor, unit), amount_minor, "clearing"))
            to_clear_minor -= amount_minor
            if to_match_minor > amount_minor:
                owing.append((debtor, to_match_minor - amount_minor))
    return tuple(legs)


def _effect(state: FederationState, act: Act[ClearAccept], at: int) -> list[Fact]:
    deal, terms = round_of(act.payload.contract)
    cleared = cleared_of(state.coop.founded.ledger, deal, terms)
    promised = Promised(
        closes_at_ms=deal.closes_at_ms,
        decision=terms.decision,
        earliest_abort_ms=deal.earliest_abort_ms,
        index=act.index,
        is_doubtful=False,
        partners=tuple(sorted(cleared)),
        role="clearing",
    )
    state.federation.promise(deal.tid, promised, at)
    accepted = facts.RoundAccepted(tid=deal.tid, unit=terms.unit, cleared=tuple(cleared.items()))
    mirrors = [
        facts.MirrorPromised(tid=deal.tid, partner=partner, own_minor=-amount, partner_minor=amount)
        for partner, amount in cleared.items()
    ]
    return [accepted, *mirrors, *state.accounts.reserve(deal.tid, _legs(terms.unit, cleared))]


CLEAR_ACCEPT: Final[EntryType[FederationState, ClearAccept]] = EntryType(
    tag="federation.clear_accept",
    payload=ClearAccept,
    visibility=Visibility.MEMBERS,
    signers=node_signs,
    check=_check,
    effect=_effect,
    evidence=_evidence,
    reasons=(
        "evidence_wrong",
        "own_side_wrong",
        "deal_decided",
        "promise_repeated",
        "peer_unknown",
        "clearing_not_shared",
        "decider_not_accepted",
        "agent_key_mismatch",
        "clearing_unit_wrong",
        "promise_too_late",
        "abort_time_out_of_range",
        "debt_too_small",
        "round_not_ours",
        "too_many_pending",
        *RESERVE_REASONS,
    ),
)
