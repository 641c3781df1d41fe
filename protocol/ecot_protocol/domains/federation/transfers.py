# SPDX-License-Identifier: AGPL-3.0-or-later
"""``federation.send``, ``federation.forward`` and ``federation.promise``: the parts of a transfer over a path.

The payer's ledger reserves first. Then, from partner to partner, each ledger reserves its own part on the promises of
all before it: the signatures of their agents over the contract, each given once that ledger's part was durable. None
gives its promise up by a clock: all wait for the decision of the one log that the contract names.
"""

from typing import Annotated, Any, Final

import msgspec

from ecot_protocol.domains.federation import facts
from ecot_protocol.domains.federation.deals import (
    ABORT_WINDOW_MS,
    MAX_HOPS,
    Contract,
    DealBytes,
    SignatureBytes,
    commit_member,
    transfer_of,
)
from ecot_protocol.domains.federation.limits import RESERVE_REASONS, check_reserve
from ecot_protocol.domains.federation.openings import Sealed
from ecot_protocol.domains.federation.paths import (
    CONTRACT_REASONS,
    LATE_REASONS,
    are_promises_good,
    check_contract,
    check_open,
    mirror_facts,
    partners_of,
    payee_legs,
    payer_legs,
    promised_of,
    transit_legs,
)
from ecot_protocol.domains.federation.proofs import proof_wrong
from ecot_protocol.domains.federation.state import FederationState
from ecot_protocol.domains.membership.state import SPENDING_REASONS, check_spending, member_signs, note_spending
from ecot_protocol.domains.trade.state import TRADE
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.ledger.attachments import MemoCommitment
from ecot_protocol.ledger.entry_type import NOBODY, THE_NODE, Act, EntryType, SignerRule, Visibility
from ecot_protocol.ledger.facts import Fact
from ecot_protocol.ledger.reasons import Reason
from ecot_protocol.wire.encoding import Codec, Hash, Id, Positive, Wire
from ecot_protocol.wire.ids import time_ms

SEND_TAG: Final = "federation.send"
FORWARD_TAG: Final = "federation.forward"
PROMISE_TAG: Final = "federation.promise"


class Send(Wire):
    """Payload of ``federation.send``: the author, a member, pays somebody in another ledger.

    Attributes:
        contract: statement of the transfer; it names this entry's id.
        memo: what it is for, kept here.
        opening: who is paid, sealed to the agent of the payee's ledger (`openings.Opening`).
        payer_salt: opens the commitment that stands for the author.
        statutes_version, total_minor: what the author saw; the total is in the own unit, every fee included.
    """

    contract: DealBytes
    memo: MemoCommitment | None
    opening: Sealed
    payer_salt: Hash
    statutes_version: Positive
    total_minor: Positive


class Forward(Wire):
    """Payload of ``federation.forward``: the node hands a transfer on from one partner to the next.

    Attributes:
        contract: statement of the transfer.
        opening: as it came.
        promises: signatures of the agents before ours on the path, in its order.
    """

    contract: DealBytes
    opening: Sealed
    promises: Annotated[tuple[SignatureBytes, ...], msgspec.Meta(min_length=1, max_length=MAX_HOPS - 1)]


class Promise(Wire):
    """Payload of ``federation.promise``: the node promises a member what all ledgers before ours have promised.

    Attributes:
        contract: statement of the transfer.
        memo: what it is for, as the payer says.
        payee, payee_salt: open the contract's commitment.
        promises: signatures of the agents before ours on the path, in its order.
    """

    contract: DealBytes
    memo: MemoCommitment | None
    payee: Id
    payee_salt: Hash
    promises: Annotated[tuple[SignatureBytes, ...], msgspec.Meta(min_length=1, max_length=MAX_HOPS)]


SEND_PAYLOAD: Final = Codec(Send)
FORWARD_PAYLOAD: Final = Codec(Forward)
PROMISE_PAYLOAD: Final = Codec(Promise)


def node_signs(_state: FederationState, act: Act[Any], _at: int) -> SignerRule:
    """Return the rule of an act of the node itself."""
    return THE_NODE if act.author is None else NOBODY


# ---------------------------------------------------------------------------------------------------------------- send


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
    ):
        return Reason.of("contract_mismatch")
    reason = check_contract(state, contract, 0, at) or _check_cost(state, act, contract, at)
    if reason is not None:
        return reason
    reason = check_spending(state, act.author, act.signers, contract.units[0], contract.payer_amount_minor, at)
    return reason or check_reserve(state, payer_legs(act.author, contract), at)


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


def _send(state: FederationState, act: Act[Send], at: int) -> list[Fact]:
    deal, contract = transfer_of(act.payload.contract)
    assert act.author is not None
    state.federation.promise(deal.tid, promised_of(deal, contract, 0, act.index), at)
    note_spending(state, act.author, act.signers, contract.units[0], contract.payer_amount_minor, at)
    reserved = facts.TransferReserved(
        tid=deal.tid,
        role="payer",
        member=act.author,
        partner=contract.payee_ledger,
        via=contract.path[1:-1],
        unit=contract.units[0],
        amount_minor=contract.payer_amount_minor,
        partner_unit=contract.units[-1],
        partner_amount_minor=contract.payee_amount_minor,
        earliest_abort_ms=contract.earliest_abort_ms,
    )
    mirrors = mirror_facts(deal.tid, contract, 0)
    return [reserved, *mirrors, *state.accounts.reserve(deal.tid, payer_legs(act.author, contract))]


# ------------------------------------------------------------------------------------------------- forward and promise


def _next_evidence(payload: Forward | Promise) -> Reason | None:
    try:
        _, contract = transfer_of(payload.contract)
    except RemoteProtocolError as error:
        return proof_wrong(error)
    is_last = len(payload.promises) == len(contract.hops)
    if is_last != isinstance(payload, Promise) or len(payload.promises) > len(contract.hops):
        return Reason.of("evidence_wrong", problem="promises_incomplete")
    if not are_promises_good(contract, payload.contract, payload.promises):
        return Reason.of("evidence_wrong", problem="bad_signature")
    return None


def _check_forward(state: FederationState, act: Act[Forward], at: int) -> Reason | None:
    deal, contract = transfer_of(act.payload.contract)
    position = len(act.payload.promises)
    if contract.path[position] != state.coop.founded.ledger:
        return Reason.of("contract_mismatch")
    reason = check_open(state, deal, at) or check_contract(state, contract, position, at)
    return reason or check_reserve(state, transit_legs(contract, position), at)


def _forward(state: FederationState, act: Act[Forward], at: int) -> list[Fact]:
    deal, contract = transfer_of(act.payload.contract)
    position = len(act.payload.promises)
    state.federation.promise(deal.tid, promised_of(deal, contract, position, act.index), at)
    before, after = partners_of(contract, position)
    forwarded = facts.TransferForwarded(
        tid=deal.tid,
        source=before,
        target=after,
        unit=contract.units[position],
        amount_minor=contract.hops[position].out_minor,
        fee_minor=contract.fee_minor(position),
        earliest_abort_ms=contract.earliest_abort_ms,
    )
    mirrors = mirror_facts(deal.tid, contract, position)
    return [forwarded, *mirrors, *state.accounts.reserve(deal.tid, transit_legs(contract, position))]


def _check_promise(state: FederationState, act: Act[Promise], at: int) -> Reason | None:
    promise, (deal, contract) = act.payload, transfer_of(act.payload.contract)
    ledger = state.coop.founded.ledger
    if contract.payee_ledger != ledger or contract.payee != commit_member(promise.payee_salt, ledger, promise.payee):
        return Reason.of("contract_mismatch")
    reason = check_open(state, deal, at) or check_contract(state, contract, len(promise.promises), at)
    if reason is not None:
        return reason
    if not state.membership.is_active(promise.payee):
        return Reason.of("member_not_active", member=promise.payee.hex())
    return check_reserve(state, payee_legs(promise.payee, contract), at)


def _promise(state: FederationState, act: Act[Promise], at: int) -> list[Fact]:
    deal, contract = transfer_of(act.payload.contract)
    position = len(contract.hops)
    state.federation.promise(deal.tid, promised_of(deal, contract, position, act.index), at)
    reserved = facts.TransferReserved(
        tid=deal.tid,
        role="payee",
        member=act.payload.payee,
        partner=contract.payer_ledger,
        via=contract.path[1:-1],
        unit=contract.units[-1],
        amount_minor=contract.payee_amount_minor,
        partner_unit=contract.units[0],
        partner_amount_minor=contract.payer_amount_minor,
        earliest_abort_ms=contract.earliest_abort_ms,
    )
    mirrors = mirror_facts(deal.tid, contract, position)
    return [reserved, *mirrors, *state.accounts.reserve(deal.tid, payee_legs(act.payload.payee, contract))]


def _send_parties(_state: FederationState, act: Act[Send]) -> tuple[bytes, ...]:
    _, contract = transfer_of(act.payload.contract)
    return (*(() if act.author is None else (act.author,)), contract.path[1][:16])


def _forward_parties(_state: FederationState, act: Act[Forward]) -> tuple[bytes, ...]:
    _, contract = transfer_of(act.payload.contract)
    return tuple(partner[:16] for partner in partners_of(contract, len(act.payload.promises)))


def _promise_parties(_state: FederationState, act: Act[Promise]) -> tuple[bytes, ...]:
    _, contract = transfer_of(act.payload.contract)
    return (act.payload.payee, contract.path[-2][:16])


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
FORWARD: Final[EntryType[FederationState, Forward]] = EntryType(
    tag=FORWARD_TAG,
    payload=Forward,
    visibility=Visibility.PARTIES,
    signers=node_signs,
    check=_check_forward,
    effect=_forward,
    evidence=_next_evidence,
    reasons=("evidence_wrong", "contract_mismatch", *LATE_REASONS, *CONTRACT_REASONS, *RESERVE_REASONS),
    parties=_forward_parties,
)
PROMISE: Final[EntryType[FederationState, Promise]] = EntryType(
    tag=PROMISE_TAG,
    payload=Promise,
    visibility=Visibility.PARTIES,
    signers=node_signs,
    check=_check_promise,
    effect=_promise,
    evidence=_next_evidence,
    reasons=(
        "evidence_wrong",
        "contract_mismatch",
        *LATE_REASONS,
        *CONTRACT_REASONS,
        "member_not_active",
        *RESERVE_REASONS,
    ),
    parties=_promise_parties,
)
