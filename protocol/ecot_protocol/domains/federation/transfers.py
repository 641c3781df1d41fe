# SPDX-License-Identifier: AGPL-3.0-or-later
"""``federation.send`` and ``federation.promise``: the two halves of a transfer between two peered ledgers.

The payer's ledger reserves first (member -> partner). On the proof of that record the payee's ledger reserves too
(partner -> member). Neither gives its promise up by a clock: both wait for the decision of the payee's log.
"""

from typing import Any, Final

from ecot_protocol.domains.federation import facts
from ecot_protocol.domains.federation.limits import RESERVE_REASONS, check_reserve
from ecot_protocol.domains.federation.proofs import RecordProof, body_of, open_signed, proof_wrong, require_included
from ecot_protocol.domains.federation.state import (
    FederationState,
    Peer,
    Promised,
    member_account,
    partner_account,
)
from ecot_protocol.domains.federation.statements import (
    ABORT_WINDOW_MS,
    Contract,
    Deal,
    DealBytes,
    commit_member,
    deal_id,
    decode_deal,
)
from ecot_protocol.domains.membership.state import SPENDING_REASONS, check_spending, member_signs, note_spending
from ecot_protocol.domains.trade.state import TRADE
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.ledger.accounts import Leg
from ecot_protocol.ledger.attachments import MemoCommitment
from ecot_protocol.ledger.entry_type import NOBODY, THE_NODE, Act, EntryType, SignerRule, Visibility
from ecot_protocol.ledger.facts import Fact
from ecot_protocol.ledger.reasons import Reason
from ecot_protocol.wire.encoding import MAX_INTEGER, Codec, Hash, Id, Positive, Wire
from ecot_protocol.wire.ids import time_ms

SEND_TAG: Final = "federation.send"


class Send(Wire):
    """Payload of ``federation.send``: the author, a member, pays somebody in another ledger.

    Attributes:
        contract: statement of the transfer; it names this entry's id.
        memo: what it is for, kept here.
        payee, payee_salt: open the contract's commitment for the payee's node.
        payer_salt: opens the one that stands for the author.
        statutes_version, total_minor: what the author saw; the total is in the own unit, fees included.
    """

    contract: DealBytes
    memo: MemoCommitment | None
    payee: Id
    payee_salt: Hash
    payer_salt: Hash
    statutes_version: Positive
    total_minor: Positive


class Promise(Wire):
    """Payload of ``federation.promise``: the node promises a member what the payer's ledger has reserved.

    Attributes:
        contract: statement of the transfer.
        payee: the member; `sent` holds the salt.
        sent: proof of the payer's ``federation.send`` in its log.
    """

    contract: DealBytes
    payee: Id
    sent: RecordProof


SEND_PAYLOAD: Final = Codec(Send)

CONTRACT_REASONS: Final = (
    "peer_unknown",
    "peering_superseded",
    "decider_not_accepted",
    "contract_unit_wrong",
    "rate_mismatch",
)


def transfer_of(raw: bytes) -> tuple[Deal, Contract]:
    """Read the statement of a transfer.

    Raises:
        RemoteProtocolError: ``deal_unsound`` (it is a round), or a code of `decode_deal`.
    """
    deal = decode_deal(raw)
    if not isinstance(deal.terms, Contract):
        raise RemoteProtocolError("deal_unsound", "expected a transfer", field="type")
    return deal, deal.terms


def _send_signers(state: FederationState, act: Act[Send], at: int) -> SignerRule:
    return member_signs(state, act.author, TRADE, at)


def _send_evidence(payload: Send) -> Reason | None:
    try:
        transfer_of(payload.contract)
    except RemoteProtocolError as error:
        return proof_wrong(error)
    return None


def _check_send(state: FederationState, act: Act[Send], at: int) -> Reason | None:
    send, (_, contract) = act.payload, transfer_of(act.payload.contract)
    assert act.author is not None
    if not state.membership.is_active(act.author):
        return Reason.of("member_not_active", member=act.author.hex())
    ledger = state.coop.founded.ledger
    if (
        contract.entry != act.id
        or contract.payer_ledger != ledger
        or contract.payer != commit_member(send.payer_salt, ledger, act.author)
        or contract.payee != commit_member(send.payee_salt, contract.payee_ledger, send.payee)
    ):
        return Reason.of("contract_mismatch")
    reason = _check_contract(state, contract, contract.payee_ledger) or _check_cost(state, act, contract, at)
    if reason is not None:
        return reason
    reason = check_spending(state, act.author, act.signers, contract.payer_unit, contract.payer_amount_minor, at)
    return reason or check_reserve(state, _payer_legs(act.author, contract), at)


def _check_cost(state: FederationState, act: Act[Send], contract: Contract, at: int) -> Reason | None:
    version, statutes = state.coop.statutes_at(at)
    if act.payload.statutes_version != version:
        return Reason.of("statutes_version_mismatch", expected=version)
    if act.payload.total_minor != contract.payer_amount_minor:
        return Reason.of("total_mismatch", expected_minor=contract.payer_amount_minor)
    first_ms = time_ms(act.id) + statutes.federation.transfer_abort_delay_ms
    if not max(first_ms, at + 1) <= contract.earliest_abort_ms <= first_ms + ABORT_WINDOW_MS:
        return Reason.of("abort_time_out_of_range", first_ms=first_ms, last_ms=first_ms + ABORT_WINDOW_MS)
    return None


def _check_contract(state: FederationState, contract: Contract, partner: bytes) -> Reason | None:
    """Tell why a contract doesn't rest on the peering with `partner` (see `CONTRACT_REASONS`), or None."""
    peer = state.federation.active_peer(partner)
    if peer is None:
        return Reason.of("peer_unknown", partner=partner.hex())
    if contract.peering != peer.statement:
        return Reason.of("peering_superseded", partner=partner.hex())
    peering = peer.peering
    if peering.decider(contract.payee_ledger) is None:
        return Reason.of("decider_not_accepted", ledger=contract.payee_ledger.hex())
    payer, payee = peering.side_of(contract.payer_ledger), peering.side_of(contract.payee_ledger)
    if (contract.payer_unit, contract.payee_unit) != (payer.unit, payee.unit):
        return Reason.of("contract_unit_wrong", payer_unit=payer.unit, payee_unit=payee.unit)
    expected_minor = peering.payer_amount(contract.payer_ledger, contract.payee_amount_minor)
    if contract.payer_amount_minor != expected_minor:
        return Reason.of("rate_mismatch", expected_minor=min(expected_minor, MAX_INTEGER))
    return None


def _payer_legs(payer: bytes, contract: Contract) -> tuple[Leg, ...]:
    account = member_account(payer, contract.payer_unit)
    partner = partner_account(contract.payee_ledger, contract.payer_unit)
    return (Leg(account, partner, contract.payer_amount_minor, "transfer_out"),)


def _payee_legs(payee: bytes, contract: Contract) -> tuple[Leg, ...]:
    account = member_account(payee, contract.payee_unit)
    partner = partner_account(contract.payer_ledger, contract.payee_unit)
    return (Leg(partner, account, contract.payee_amount_minor, "transfer_in"),)


def _send(state: FederationState, act: Act[Send], at: int) -> list[Fact]:
    deal, contract = transfer_of(act.payload.contract)
    assert act.author is not None
    peer = state.federation.peers[contract.payee_ledger]
    state.federation.promises[deal.tid] = _promised(act, deal, peer, contract.payee_ledger)
    note_spending(state, act.author, act.signers, contract.payer_unit, contract.payer_amount_minor, at)
    reserved = facts.TransferReserved(
        tid=deal.tid,
        role="payer",
        member=act.author,
        partner=contract.payee_ledger,
        unit=contract.payer_unit,
        amount_minor=contract.payer_amount_minor,
        partner_unit=contract.payee_unit,
        partner_amount_minor=contract.payee_amount_minor,
        earliest_abort_ms=contract.earliest_abort_ms,
    )
    mirror = facts.MirrorPromised(
        tid=deal.tid,
        partner=contract.payee_ledger,
        own_minor=contract.payer_amount_minor,
        partner_minor=-contract.payee_amount_minor,
    )
    return [reserved, mirror, *state.accounts.reserve(deal.tid, _payer_legs(act.author, contract))]


def _promised(act: Act[Send] | Act[Promise], deal: Deal, peer: Peer, partner: bytes) -> Promised:
    decision = peer.peering.decider(deal.decider)
    assert decision is not None
    return Promised(
        closes_at_ms=deal.closes_at_ms,
        decision=decision,
        earliest_abort_ms=deal.earliest_abort_ms,
        index=act.index,
        is_doubtful=False,
        partners=(partner,),
        role="payer" if isinstance(act.payload, Send) else "payee",
    )


def node_signs(_state: FederationState, act: Act[Any], _at: int) -> SignerRule:
    """Return the rule of an act of the node itself."""
    return THE_NODE if act.author is None else NOBODY


def _promise_evidence(payload: Promise) -> Reason | None:
    try:
        deal, contract = transfer_of(payload.contract)
        opened = open_signed(payload.sent.checkpoint, payload.sent.log)
        body = require_included(payload.sent.inclusion, opened)
        send = SEND_PAYLOAD.decode(bytes(body.payload)) if body.type == SEND_TAG else None
    except RemoteProtocolError as error:
        return proof_wrong(error)
    is_sent = send is not None and send.contract == payload.contract
    is_there = (body.ledger, body.id) == (contract.payer_ledger, contract.entry)
    return (
        None if is_sent and is_there else Reason.of("evidence_wrong", problem="contract_mismatch", tid=deal.tid.hex())
    )


def _check_promise(state: FederationState, act: Act[Promise], at: int) -> Reason | None:
    promise, (deal, contract) = act.payload, transfer_of(act.payload.contract)
    ledger = state.coop.founded.ledger
    salt = SEND_PAYLOAD.decode(bytes(body_of(promise.sent.inclusion.record).payload)).payee_salt
    if contract.payee_ledger != ledger or contract.payee != commit_member(salt, ledger, promise.payee):
        return Reason.of("contract_mismatch")
    if deal.tid in state.federation.decisions:
        return Reason.of("deal_decided", tid=deal.tid.hex())
    if deal.tid in state.federation.promises:
        return Reason.of("promise_repeated", tid=deal.tid.hex())
    reason = _check_contract(state, contract, contract.payer_ledger)
    if reason is not None:
        return reason
    payer = state.federation.peers[contract.payer_ledger].peering.side_of(contract.payer_ledger)
    log = promise.sent.log
    if (log.origin, log.public_key) != (payer.origin, payer.log):
        return Reason.of("log_key_mismatch", origin=payer.origin)
    if at >= contract.earliest_abort_ms:
        return Reason.of("promise_too_late", earliest_abort_ms=contract.earliest_abort_ms)
    if contract.earliest_abort_ms > at + 2 * ABORT_WINDOW_MS:  # the payer's own rules allow less
        return Reason.of("abort_time_out_of_range", last_ms=at + 2 * ABORT_WINDOW_MS)
    if not state.membership.is_active(promise.payee):
        return Reason.of("member_not_active", member=promise.payee.hex())
    return check_reserve(state, _payee_legs(promise.payee, contract), at)


def _promise(state: FederationState, act: Act[Promise], _at: int) -> list[Fact]:
    deal, contract = transfer_of(act.payload.contract)
    peer = state.federation.peers[contract.payer_ledger]
    state.federation.promises[deal.tid] = _promised(act, deal, peer, contract.payer_ledger)
    reserved = facts.TransferReserved(
        tid=deal.tid,
        role="payee",
        member=act.payload.payee,
        partner=contract.payer_ledger,
        unit=contract.payee_unit,
        amount_minor=contract.payee_amount_minor,
        partner_unit=contract.payer_unit,
        partner_amount_minor=contract.payer_amount_minor,
        earliest_abort_ms=contract.earliest_abort_ms,
    )
    mirror = facts.MirrorPromised(
        tid=deal.tid,
        partner=contract.payer_ledger,
        own_minor=-contract.payee_amount_minor,
        partner_minor=contract.payer_amount_minor,
    )
    return [reserved, mirror, *state.accounts.reserve(deal.tid, _payee_legs(act.payload.payee, contract))]


def _send_parties(_state: FederationState, act: Act[Send]) -> tuple[bytes, ...]:
    _, contract = transfer_of(act.payload.contract)
    return (*(() if act.author is None else (act.author,)), contract.payee_ledger[:16])


def _promise_parties(_state: FederationState, act: Act[Promise]) -> tuple[bytes, ...]:
    _, contract = transfer_of(act.payload.contract)
    return (act.payload.payee, contract.payer_ledger[:16])


__all__ = [
    "CONTRACT_REASONS",
    "PROMISE",
    "SEND",
    "SEND_PAYLOAD",
    "Promise",
    "Send",
    "deal_id",
    "node_signs",
    "transfer_of",
]

SEND: Final[EntryType[FederationState, Send]] = EntryType(
    tag=SEND_TAG,
    payload=Send,
    visibility=Visibility.PARTIES,
    signers=_send_signers,
    check=_check_send,
    effect=_send,
    evidence=_send_evidence,
    reasons=(
        "evidence_wrong",
        "member_not_active",
        "contract_mismatch",
        *CONTRACT_REASONS,
        "statutes_version_mismatch",
        "total_mismatch",
        "abort_time_out_of_range",
        *SPENDING_REASONS,
        *RESERVE_REASONS,
    ),
    parties=_send_parties,
)
PROMISE: Final[EntryType[FederationState, Promise]] = EntryType(
    tag="federation.promise",
    payload=Promise,
    visibility=Visibility.PARTIES,
    signers=node_signs,
    check=_check_promise,
    effect=_promise,
    evidence=_promise_evidence,
    reasons=(
        "evidence_wrong",
        "contract_mismatch",
        "deal_decided",
        "promise_repeated",
        *CONTRACT_REASONS,
        "log_key_mismatch",
        "promise_too_late",
        "abort_time_out_of_range",
        "member_not_active",
        *RESERVE_REASONS,
    ),
    parties=_promise_parties,
)
