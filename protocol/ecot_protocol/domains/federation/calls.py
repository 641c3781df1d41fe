# SPDX-License-Identifier: AGPL-3.0-or-later
"""``federation.clear_commit``: this ledger takes part in a round of clearing, and commits to what it offers.

The entry holds the call and a Merkle root, so that nobody can change what it offers once others have shown theirs, and
every member can check afterwards that its obligation was in it.
"""

from typing import Final

from ecot_protocol.domains.federation import facts
from ecot_protocol.domains.federation.deals import ABORT_WINDOW_MS, DealBytes
from ecot_protocol.domains.federation.netting import (
    MAX_MEMBER_OFFERS,
    Call,
    Called,
    MemberOffer,
    PartnerOffer,
    Reveal,
    decode_call,
    pseudonym_of,
)
from ecot_protocol.domains.federation.proofs import proof_wrong
from ecot_protocol.domains.federation.rounds import accepts_policy, available_minor, is_at_par
from ecot_protocol.domains.federation.state import FederationState
from ecot_protocol.domains.federation.transfers import node_signs
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.ledger.entry_type import Act, EntryType, Visibility
from ecot_protocol.ledger.facts import Fact
from ecot_protocol.ledger.reasons import Reason
from ecot_protocol.wire.encoding import Hash, Positive, Wire

MAX_CALLS: Final = 64
"""Rounds that a ledger may have committed to and whose time is not over."""


class ClearCommit(Wire):
    """Payload of ``federation.clear_commit``.

    Attributes:
        call: its statement.
        count: leaves under the root, the salt's included.
        root: of what is offered (`netting.reveal_root`).
    """

    call: DealBytes
    count: Positive
    root: Hash


def find_call_problem(state: FederationState, called: Called, at: int) -> Reason | None:
    """Tell why this ledger takes no part in a round, or None."""
    ledger, terms = state.coop.founded.ledger, called.terms
    agent = state.coop.node_keys["agent"].public_key
    if ledger not in called.ledgers or terms.agents[called.ledgers.index(ledger)] != agent:
        return Reason.of("own_side_wrong", field="agent")
    if state.coop.unit(terms.unit) is None:
        return Reason.of("clearing_unit_wrong", unit=terms.unit)
    if not accepts_policy(state, terms.decision):
        return Reason.of("decider_not_accepted", ledger=terms.decision.ledger.hex())
    if called.id in state.federation.calls:
        return Reason.of("promise_repeated", tid=called.id.hex())
    if at >= terms.commit_by_ms:
        return Reason.of("promise_too_late", earliest_abort_ms=terms.commit_by_ms)
    if terms.earliest_abort_ms > at + ABORT_WINDOW_MS:
        return Reason.of("abort_time_out_of_range", last_ms=at + ABORT_WINDOW_MS)
    if sum(1 for until_ms in state.federation.calls.values() if until_ms > at) >= MAX_CALLS:
        return Reason.of("too_many_calls", maximum=MAX_CALLS)
    return None


def offers_of(state: FederationState, called: Called, salt: bytes) -> Reveal:
    """Return what this ledger offers in a round, by its state: what is free of its mirrors, and of what its members
    offered; of these the largest, if they are too many.
    """
    return Reveal(salt, _partner_offers(state, called), _member_offers(state, called, salt))


def _partner_offers(state: FederationState, called: Called) -> tuple[PartnerOffer, ...]:
    own, terms = called.ledgers.index(state.coop.founded.ledger), called.terms
    found: list[PartnerOffer] = []
    for place, ledger in enumerate(called.ledgers):
        if place == own or not _may_clear(state, ledger, terms, is_mirror=True):
            continue
        amount_minor = available_minor(state, ledger, terms.unit)
        if amount_minor > 0:
            found.append(PartnerOffer(own, place, amount_minor))
        elif amount_minor < 0:
            found.append(PartnerOffer(place, own, -amount_minor))
    return tuple(sorted(found, key=lambda one: (one.debtor, one.creditor)))


def _may_clear(state: FederationState, ledger: bytes, terms: Call, *, is_mirror: bool) -> bool:
    peer = state.federation.active_peer(ledger)
    if peer is None or "clearing" not in peer.peering.shared:
        return False
    is_accepted = peer.peering.decider(terms.decision.ledger) == terms.decision
    return is_accepted and (not is_mirror or is_at_par(peer.peering, terms.unit))


def _member_offers(state: FederationState, called: Called, salt: bytes) -> tuple[MemberOffer, ...]:
    ledger, unit = state.coop.founded.ledger, called.terms.unit
    places = {
        one: place
        for place, one in enumerate(called.ledgers)
        if one == ledger or _may_clear(state, one, called.terms, is_mirror=False)
    }
    found = [
        MemberOffer(number, is_debtor, places[row.other_ledger], pseudonym_of(salt, row.member), free_minor)
        for is_debtor, rows in ((True, state.federation.owed), (False, state.federation.claimed))
        for number, row in rows.items()
        if row.unit == unit and row.other_ledger in places and (free_minor := row.amount_minor - row.held_minor) > 0
    ]
    largest = sorted(found, key=lambda one: (-one.amount_minor, one.obligation, one.is_debtor))[:MAX_MEMBER_OFFERS]
    return tuple(sorted(largest, key=lambda one: (one.obligation, one.is_debtor)))


def _evidence(payload: ClearCommit) -> Reason | None:
    try:
        decode_call(payload.call)
    except RemoteProtocolError as error:
        return proof_wrong(error)
    return None


def _check(state: FederationState, act: Act[ClearCommit], at: int) -> Reason | None:
    return find_call_problem(state, decode_call(act.payload.call), at)


def _effect(state: FederationState, act: Act[ClearCommit], at: int) -> list[Fact]:
    called = decode_call(act.payload.call)
    state.federation.forget_calls(at)
    state.federation.calls[called.id] = called.terms.earliest_abort_ms
    committed = facts.RoundCommitted(
        call=called.id,
        unit=called.terms.unit,
        ledgers=called.ledgers,
        decider=called.terms.decision.ledger,
        count=act.payload.count,
        root=act.payload.root,
    )
    return [committed]


CLEAR_COMMIT: Final[EntryType[FederationState, ClearCommit]] = EntryType(
    tag="federation.clear_commit",
    payload=ClearCommit,
    visibility=Visibility.MEMBERS,
    signers=node_signs,
    check=_check,
    effect=_effect,
    evidence=_evidence,
    reasons=(
        "evidence_wrong",
        "own_side_wrong",
        "clearing_unit_wrong",
        "decider_not_accepted",
        "promise_repeated",
        "promise_too_late",
        "abort_time_out_of_range",
        "too_many_calls",
    ),
)
