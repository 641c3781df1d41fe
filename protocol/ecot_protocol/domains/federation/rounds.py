# SPDX-License-Identifier: AGPL-3.0-or-later
"""``federation.clear_accept``: this ledger promises its part of a clearing round.

The node may do so without asking the board where the peering says ``clearing`` and accepts the round's decider. What is
cleared is only debt that stands: nobody's net position changes, and no limit is touched from the wrong side. Once this
is recorded, the agent's signature over the round's statement may go to the decider.

A round has one unit. So it passes only through peerings whose two sides trade in that unit at 1 to 1.
"""

from typing import Final, NamedTuple

from ecot_protocol.domains.federation import facts
from ecot_protocol.domains.federation.clearing import is_optimal
from ecot_protocol.domains.federation.deals import ABORT_WINDOW_MS, Deal, DealBytes, Round, decode_deal
from ecot_protocol.domains.federation.limits import RESERVE_REASONS, check_reserve
from ecot_protocol.domains.federation.obligations import find_hold_problem, hold_part, release_part, rows_of
from ecot_protocol.domains.federation.proofs import proof_wrong
from ecot_protocol.domains.federation.state import FederationState, Hold, Promised, partner_account
from ecot_protocol.domains.federation.statements import DecisionPolicy, Peering
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
    cleared, own = cleared_of(ledger, deal, terms), own_members(ledger, deal, terms)
    for partner in sorted({*cleared, *own.ledgers} - {ledger}):
        reason = _check_powers(state, deal, terms, partner, is_mirror=partner in cleared)
        if reason is not None:
            return reason
    if not accepts_policy(state, terms.decision):
        return Reason.of("decider_not_accepted", ledger=terms.decision.ledger.hex())
    if at >= terms.earliest_abort_ms:
        return Reason.of("promise_too_late", earliest_abort_ms=terms.earliest_abort_ms)
    if terms.earliest_abort_ms > at + ABORT_WINDOW_MS:
        return Reason.of("abort_time_out_of_range", last_ms=at + ABORT_WINDOW_MS)
    for partner, amount_minor in cleared.items():
        available = available_minor(state, partner, terms.unit)
        if not (0 < amount_minor <= available or available <= amount_minor < 0):
            return Reason.of("debt_too_small", partner=partner.hex(), amount_minor=abs(amount_minor))
    reason = _check_members(state, own, terms.unit)
    if reason is not None:
        return reason
    if not cleared:
        return None if own.holds else Reason.of("round_not_ours")
    reason = state.federation.check_pending(cleared)
    return reason or check_reserve(state, _legs(terms.unit, cleared), at)


class OwnMembers(NamedTuple):
    """What a round clears of obligations of our own members.

    Attributes:
        holds: the parts, of each side that is ours.
        names: for each, the pseudonym that stands for the member.
        others: for each, the ledger of the other side.
    """

    holds: tuple[Hold, ...]
    names: tuple[bytes, ...]
    others: tuple[bytes, ...]

    @property
    def ledgers(self) -> frozenset[bytes]:
        """The ledgers of the other sides."""
        return frozenset(self.others)


def own_members(ledger: bytes, deal: Deal, terms: Round) -> OwnMembers:
    """Return what a round clears of obligations of this ledger's members."""
    own = deal.ledgers.index(ledger)
    holds: list[Hold] = []
    names: list[bytes] = []
    others: list[bytes] = []
    for edge in terms.members:
        sides = (terms.pseudonyms[edge.debtor], terms.pseudonyms[edge.creditor])
        for side, other, is_debtor in ((sides[0], sides[1], True), (sides[1], sides[0], False)):
            if side.place == own:
                holds.append(Hold(amount_minor=edge.flow_minor, is_debtor=is_debtor, obligation=edge.obligation))
                names.append(side.name)
                others.append(deal.ledgers[other.place])
    return OwnMembers(tuple(holds), tuple(names), tuple(others))


def _check_members(state: FederationState, own: OwnMembers, unit: str) -> Reason | None:
    """Tell whether what is to be cleared stands, and each pseudonym is one member, whose claims and debts then fall by
    the same amount.
    """
    members: dict[bytes, bytes] = {}
    for hold, name, other in zip(own.holds, own.names, own.others, strict=True):
        reason = find_hold_problem(state.federation, hold, unit)
        if reason is not None:
            return reason
        row = rows_of(state.federation, is_debtor=hold.is_debtor)[hold.obligation]
        if row.other_ledger != other or members.setdefault(name, row.member) != row.member:
            return Reason.of("pseudonym_mismatch", obligation=hold.obligation.hex())
    return None


def accepts_policy(state: FederationState, policy: DecisionPolicy) -> bool:
    """Tell whether our board let the node clear under this very policy: by a peering that shares ``clearing``."""
    for ledger in state.federation.peers:
        peer = state.federation.active_peer(ledger)
        if peer is not None and "clearing" in peer.peering.shared and peer.peering.decider(policy.ledger) == policy:
            return True
    return False


def _check_powers(
    state: FederationState, deal: Deal, terms: Round, partner: bytes, *, is_mirror: bool
) -> Reason | None:
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
    if is_mirror and not is_at_par(peering, terms.unit):
        return Reason.of("clearing_unit_wrong", unit=terms.unit)
    return None


def is_at_par(peering: Peering, unit: str) -> bool:
    """Tell whether both sides trade in the unit, at 1 to 1."""
    return peering.rate.numerator == peering.rate.denominator and all(side.unit == unit for side in peering.sides)


def available_minor(state: FederationState, partner: bytes, unit: str) -> int:
    """Return what may be cleared with a partner, what is promised to leave its account apart: positive if we owe it."""
    account = state.accounts.rows.get(partner_account(partner, unit))
    if account is None:
        return 0
    owing = max(account.balance_minor - account.reserved_out_minor, 0)
    return owing or min(account.balance_minor + account.reserved_in_minor, 0)


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
    ledger = state.coop.founded.ledger
    cleared, own = cleared_of(ledger, deal, terms), own_members(ledger, deal, terms)
    promised = Promised(
        closes_at_ms=deal.closes_at_ms,
        decision=terms.decision,
        earliest_abort_ms=deal.earliest_abort_ms,
        index=act.index,
        is_doubtful=False,
        partners=tuple(sorted({*cleared, *own.ledgers} - {ledger})),
        role="clearing",
    )
    state.federation.promise(deal.tid, promised, at)
    for hold in own.holds:
        hold_part(state.federation, hold)
    if own.holds:
        state.federation.holds[deal.tid] = own.holds
    accepted = facts.RoundAccepted(tid=deal.tid, unit=terms.unit, cleared=tuple(cleared.items()), call=terms.call)
    mirrors = [
        facts.MirrorPromised(tid=deal.tid, partner=partner, own_minor=-amount, partner_minor=amount)
        for partner, amount in cleared.items()
    ]
    reserved = state.accounts.reserve(deal.tid, _legs(terms.unit, cleared)) if cleared else []
    return [accepted, *mirrors, *reserved]


def resolve_round(state: FederationState, tid: bytes, *, is_committed: bool) -> list[Fact]:
    """Clear, or release, what a round holds."""
    found: list[Fact] = []
    for hold in state.federation.holds.get(tid) or ():
        found += release_part(state.federation, hold, is_cleared=is_committed)
    if tid in state.federation.holds:
        del state.federation.holds[tid]
    if tid in state.accounts.reservations:
        found += state.accounts.post(tid) if is_committed else state.accounts.void(tid)
    return found


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
        "obligation_unknown",
        "pseudonym_mismatch",
        "round_not_ours",
        "too_many_pending",
        *RESERVE_REASONS,
    ),
)
