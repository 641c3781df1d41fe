# SPDX-License-Identifier: AGPL-3.0-or-later
"""The boards' acts about partners, and ``federation.give_up``: a lost promise.

- ``federation.peer`` records a statement that both cooperatives signed: a peering, any change of it, its suspension and
  its end. Each of the two records it; a higher sequence replaces the one before.
- ``federation.suspend_peering``, ``federation.resume_peering`` and ``federation.end_peering`` need no consent of the
  other. A peering that both have suspended is resumed by a statement of both.
"""

from collections.abc import Callable
from typing import Annotated, Any, Final

import msgspec

from ecot_protocol.domains.coop.state import ML_DSA_COSIGNER, board_signs
from ecot_protocol.domains.federation import facts
from ecot_protocol.domains.federation.proofs import proof_wrong
from ecot_protocol.domains.federation.state import (
    DOUBTFUL,
    FederationState,
    Peer,
    Promised,
    partner_account,
    transit_account,
)
from ecot_protocol.domains.federation.statements import FEDERATION_RULES, Peering, Side, decode_peering
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.ledger.accounts import AccountKey, Leg
from ecot_protocol.ledger.amounts import Rounding, share
from ecot_protocol.ledger.entry_type import Act, EntryType, SignerRule, Visibility
from ecot_protocol.ledger.facts import Fact
from ecot_protocol.ledger.reasons import Reason
from ecot_protocol.wire.encoding import MAX_INTEGER, Hash, Id, Wire
from ecot_protocol.wire.entry import Signature
from ecot_protocol.wire.keys import key_id
from ecot_protocol.wire.statement import MAX_STATEMENT_SIZE_BYTES, is_statement_signed, statement_id


class Peered(Wire):
    """Payload of ``federation.peer``: a peering statement with both agents' signatures, ascending by key id."""

    signatures: Annotated[tuple[Signature, ...], msgspec.Meta(min_length=2, max_length=2)]
    statement: Annotated[bytes, msgspec.Meta(max_length=MAX_STATEMENT_SIZE_BYTES)]


class EndPeering(Wire):
    """Payload of ``federation.end_peering``: no new deals with this ledger."""

    partner: Hash


class SuspendPeering(Wire):
    """Payload of ``federation.suspend_peering``: no new deals with this ledger until we resume."""

    partner: Hash


class ResumePeering(Wire):
    """Payload of ``federation.resume_peering``: deals with this ledger again, as far as both have agreed."""

    partner: Hash


class GiveUp(Wire):
    """Payload of ``federation.give_up``: after the peering's end and the statutes' delay, the board frees the member
    from a promise whose decision doesn't come; a late decision settles against the doubtful account.
    """

    tid: Id


def _board(state: FederationState, act: Act[Any], _at: int) -> SignerRule:
    return board_signs(state, act.author)


def _peering_evidence(payload: Peered) -> Reason | None:
    try:
        peering = decode_peering(payload.statement)
    except RemoteProtocolError as error:
        return proof_wrong(error)
    signed = {signature.key_id: signature.signature for signature in payload.signatures}
    if [one.key_id for one in payload.signatures] != sorted(signed):
        return Reason.of("evidence_wrong", problem="signatures_not_sorted")
    for side in peering.sides:
        signature = signed.get(key_id(side.agent))
        if signature is None or not is_statement_signed(side.agent, payload.statement, signature):
            return Reason.of("evidence_wrong", problem="bad_signature")
    return None


def _check_peer(state: FederationState, act: Act[Peered], _at: int) -> Reason | None:
    peering = decode_peering(act.payload.statement)
    ledger = state.coop.founded.ledger
    if ledger not in (side.ledger for side in peering.sides):
        return Reason.of("own_side_wrong", field="ledger")
    own, other = peering.side_of(ledger), peering.other_side(ledger)
    field = find_own_side_problem(state, own)
    if field is not None:
        return Reason.of("own_side_wrong", field=field)
    if peering.rules != FEDERATION_RULES:
        return Reason.of("peering_rules_unknown", rules=peering.rules)
    if any(one[:16] == other.ledger[:16] and one != other.ledger for one in state.federation.peers):
        return Reason.of("partner_id_taken", partner=other.ledger.hex())
    old = state.federation.peers.get(other.ledger)
    if old is None:
        return None
    if peering.sequence <= old.peering.sequence:
        return Reason.of("peering_sequence_stale", newest=old.peering.sequence)
    account = partner_account(other.ledger, old.peering.side_of(ledger).unit)
    if account.unit != own.unit and not state.accounts.is_idle(account):
        return Reason.of("partner_account_in_use", unit=account.unit)
    return None


def find_own_side_problem(state: FederationState, own: Side) -> str | None:
    """Return the first field of our own side that is not what our ledger says of us, or None."""
    profile, node_keys = state.coop.founded, state.coop.node_keys
    further = node_keys.get(ML_DSA_COSIGNER)
    said = {"agent": own.agent, "cosigner": own.cosigner, "host": own.host, "log": own.log}
    checks = (
        ("domain", own.domain == profile.domain),
        ("origin", own.origin == profile.origin),
        *((purpose, node_keys[purpose].public_key == public_key) for purpose, public_key in said.items()),
        ("keys_index", own.keys_index == state.coop.node_keys_index),
        (ML_DSA_COSIGNER, own.cosigner_ml_dsa_44 == (further.public_key if further is not None else None)),
        ("unit", state.coop.unit(own.unit) is not None),
    )
    return next((field for field, is_right in checks if not is_right), None)


def _peer(state: FederationState, act: Act[Peered], at: int) -> list[Fact]:
    peering = decode_peering(act.payload.statement)
    ledger = state.coop.founded.ledger
    own, other = peering.side_of(ledger), peering.other_side(ledger)
    statement = statement_id(act.payload.statement)
    state.federation.peers[other.ledger] = Peer(
        ended_at_ms=at if peering.status == "ended" else None,
        peering=peering,
        statement=statement,
        suspended_at_ms=None,
    )
    recorded = facts.PeeringRecorded(
        partner=other.ledger,
        domain=other.domain,
        sequence=peering.sequence,
        statement=statement,
        unit=own.unit,
        limit_minor=own.limit_minor,
        partner_unit=other.unit,
        partner_limit_minor=other.limit_minor,
        shared=peering.shared,
        status=peering.status,
    )
    return [recorded, *_open_accounts(state, peering)]


def _open_accounts(state: FederationState, peering: Peering) -> list[Fact]:
    ledger = state.coop.founded.ledger
    own, other = peering.side_of(ledger), peering.other_side(ledger)
    # What we may owe is the other's to guard, in its own unit; here it only spares us promises that it would refuse.
    upper_minor = min(share(other.limit_minor, peering.rate_to(ledger), Rounding.UP), MAX_INTEGER)
    partner = partner_account(other.ledger, own.unit)
    doubtful = partner_account(other.ledger, own.unit, DOUBTFUL)
    opened = [
        state.accounts.open(partner, lower_minor=-own.limit_minor, upper_minor=upper_minor),
        state.accounts.open(doubtful, lower_minor=None, upper_minor=None),
    ]
    transit = transit_account(own.unit)
    if transit not in state.accounts.rows:
        opened.append(state.accounts.open(transit, lower_minor=None, upper_minor=None))
    return opened


def _check_end(state: FederationState, act: Act[EndPeering], _at: int) -> Reason | None:
    return _check_linked(state, act.payload.partner)


def _check_linked(state: FederationState, partner: bytes) -> Reason | None:
    return None if state.federation.linked_peer(partner) else Reason.of("peer_unknown", partner=partner.hex())


def _check_suspend(state: FederationState, act: Act[SuspendPeering], _at: int) -> Reason | None:
    partner = act.payload.partner
    reason = _check_linked(state, partner)
    if reason is None and state.federation.peers[partner].suspended_at_ms is not None:
        return Reason.of("peering_suspended", partner=partner.hex())
    return reason


def _suspend(state: FederationState, act: Act[SuspendPeering], at: int) -> list[Fact]:
    partner = act.payload.partner
    state.federation.peers[partner] = msgspec.structs.replace(state.federation.peers[partner], suspended_at_ms=at)
    return [facts.PeeringSuspended(partner=partner)]


def _check_resume(state: FederationState, act: Act[ResumePeering], _at: int) -> Reason | None:
    partner = act.payload.partner
    reason = _check_linked(state, partner)
    if reason is None and state.federation.peers[partner].suspended_at_ms is None:
        return Reason.of("peering_not_suspended", partner=partner.hex())
    return reason


def _resume(state: FederationState, act: Act[ResumePeering], _at: int) -> list[Fact]:
    partner = act.payload.partner
    state.federation.peers[partner] = msgspec.structs.replace(state.federation.peers[partner], suspended_at_ms=None)
    return [facts.PeeringResumed(partner=partner)]


def _end(state: FederationState, act: Act[EndPeering], at: int) -> list[Fact]:
    partner = act.payload.partner
    peer = state.federation.peers[partner]
    state.federation.peers[partner] = msgspec.structs.replace(peer, ended_at_ms=at)
    return [facts.PeeringEnded(partner=partner)]


def _check_give_up(state: FederationState, act: Act[GiveUp], at: int) -> Reason | None:
    promised = state.federation.promises.get(act.payload.tid)
    if promised is None or promised.role == "clearing" or promised.is_doubtful:
        return Reason.of("promise_missing", tid=act.payload.tid.hex())
    delay_ms = state.coop.statutes_at(at)[1].federation.doubtful_delay_ms
    if not _lost_partners(state, promised, at):
        return Reason.of("give_up_too_early", delay_ms=delay_ms)
    return None


def _lost_partners(state: FederationState, promised: Promised, at: int) -> list[bytes]:
    """Return the partners of a transfer whose peering ended long enough ago."""
    delay_ms = state.coop.statutes_at(at)[1].federation.doubtful_delay_ms
    ended = [(partner, state.federation.peers[partner].ended_at_ms) for partner in promised.partners]
    return [partner for partner, ended_at_ms in ended if ended_at_ms is not None and at >= ended_at_ms + delay_ms]


def _give_up(state: FederationState, act: Act[GiveUp], at: int) -> list[Fact]:
    tid = act.payload.tid
    promised = state.federation.promises[tid]
    lost = _lost_partners(state, promised, at)
    replaced = _doubtful_members(lost[0]) if promised.role != "transit" else _doubtful_partners(lost)
    legs = [
        Leg(replaced(leg.payer), replaced(leg.payee), leg.amount_minor, leg.reason)
        for leg in state.accounts.reservations[tid].legs
    ]
    state.federation.promises[tid] = msgspec.structs.replace(promised, is_doubtful=True)
    # Each account promises what it did before or less, and the doubtful ones have no limits.
    moved = [*state.accounts.void(tid), *state.accounts.reserve(tid, legs)]
    return [*moved, facts.DealDoubtful(tid=tid, partner=lost[0])]


def _doubtful_members(partner: bytes) -> Callable[[AccountKey], AccountKey]:
    """At an end of the path the member is freed: the doubtful account takes its place, the partner's stays."""
    return lambda key: key if key.owner == partner[:16] else partner_account(partner, key.unit, DOUBTFUL)


def _doubtful_partners(lost: list[bytes]) -> Callable[[AccountKey], AccountKey]:
    """In between, what goes to or comes from a lost partner is doubtful; the other partner's account stays as it is,
    for its ledger has promised the same.
    """
    owners = {partner[:16]: partner for partner in lost}
    return lambda key: partner_account(owners[key.owner], key.unit, DOUBTFUL) if key.owner in owners else key


def _parties_of_promise(state: FederationState, act: Act[GiveUp]) -> tuple[bytes, ...]:
    reservation = state.accounts.reservations.get(act.payload.tid)
    owners = {key.owner for leg in reservation.legs for key in (leg.payer, leg.payee)} if reservation else set()
    return tuple(sorted(owners))


PEER: Final[EntryType[FederationState, Peered]] = EntryType(
    tag="federation.peer",
    payload=Peered,
    visibility=Visibility.MEMBERS,
    signers=_board,
    check=_check_peer,
    effect=_peer,
    evidence=_peering_evidence,
    reasons=(
        "evidence_wrong",
        "own_side_wrong",
        "peering_rules_unknown",
        "partner_id_taken",
        "peering_sequence_stale",
        "partner_account_in_use",
    ),
)
END_PEERING: Final[EntryType[FederationState, EndPeering]] = EntryType(
    tag="federation.end_peering",
    payload=EndPeering,
    visibility=Visibility.MEMBERS,
    signers=_board,
    check=_check_end,
    effect=_end,
    reasons=("peer_unknown",),
)
SUSPEND_PEERING: Final[EntryType[FederationState, SuspendPeering]] = EntryType(
    tag="federation.suspend_peering",
    payload=SuspendPeering,
    visibility=Visibility.MEMBERS,
    signers=_board,
    check=_check_suspend,
    effect=_suspend,
    reasons=("peer_unknown", "peering_suspended"),
)
RESUME_PEERING: Final[EntryType[FederationState, ResumePeering]] = EntryType(
    tag="federation.resume_peering",
    payload=ResumePeering,
    visibility=Visibility.MEMBERS,
    signers=_board,
    check=_check_resume,
    effect=_resume,
    reasons=("peer_unknown", "peering_not_suspended"),
)
GIVE_UP: Final[EntryType[FederationState, GiveUp]] = EntryType(
    tag="federation.give_up",
    payload=GiveUp,
    visibility=Visibility.PARTIES,
    signers=_board,
    check=_check_give_up,
    effect=_give_up,
    reasons=("promise_missing", "give_up_too_early"),
    parties=_parties_of_promise,
)
