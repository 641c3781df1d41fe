# SPDX-License-Identifier: AGPL-3.0-or-later
"""``federation.decide`` and ``federation.resolve``: one decision in the decider's log, then post or void on its proof.

- The first decision of a deal in its decider's log is the decision; `check` refuses a second one.
- A deal is committed only with the signatures of the agents of all ledgers that it binds, each given once that ledger
  had reserved its part. Where the decider is the payee's ledger, the promise that it recorded holds them all but its
  own, and standing is enough. A decider that takes part commits only while its own promise stands.
- An abort of what is promised here, to a payee or in a round, waits for the deal's earliest abort. What isn't, can be
  aborted at once, because the memory of the decision keeps a late promise out.
- A ledger, the decider's own included, resolves only on a leaf of the decider's decision log (`decision_log`) under a
  checkpoint that this log has signed and the quorum of the deal's witnesses has cosigned.
"""

from typing import Annotated, Final

import msgspec

from ecot_protocol.domains.coop.state import board_signs
from ecot_protocol.domains.federation import facts
from ecot_protocol.domains.federation.deals import (
    ABORT_WINDOW_MS,
    Contract,
    Deal,
    DealBytes,
    SignatureBytes,
    decode_deal,
)
from ecot_protocol.domains.federation.decision_log import Outcome
from ecot_protocol.domains.federation.obligations import rows_of
from ecot_protocol.domains.federation.proofs import (
    CheckpointBytes,
    LeafProof,
    open_decisions,
    proof_wrong,
    require_decided,
)
from ecot_protocol.domains.federation.rounds import resolve_round
from ecot_protocol.domains.federation.state import Decided, FederationState, Promised
from ecot_protocol.domains.federation.statements import MAX_WITNESSES, DecisionPolicy, LogKey, Witness
from ecot_protocol.domains.federation.transfers import node_signs
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.ledger.entry_type import BOARD, Act, EntryType, SignerRule, Visibility
from ecot_protocol.ledger.facts import Fact
from ecot_protocol.ledger.reasons import Reason
from ecot_protocol.wire.encoding import Codec, Id, Wire
from ecot_protocol.wire.statement import is_statement_signed

MAX_RESOLUTIONS: Final = 64
DECIDE_TAG: Final = "federation.decide"


class Decide(Wire):
    """Payload of ``federation.decide``, by the node of the ledger that a deal names as its decider.

    Attributes:
        acceptances: signatures of the deal's agents over its statement, in its order, to commit it; empty to abort it,
            or where the decider has promised a transfer to a payee of its own.
        contract: statement of the deal; nil if its promise stands here and there are no acceptances.
        outcome: ``commit`` or ``abort``.
        tid: of the deal.
    """

    acceptances: Annotated[tuple[SignatureBytes, ...], msgspec.Meta(max_length=64)]
    contract: DealBytes | None
    outcome: Outcome
    tid: Id


class Resolve(Wire):
    """Payload of ``federation.resolve``: decisions of one log under one checkpoint, many deals at once.

    Attributes:
        checkpoint: of the decider's decision log, signed by `log`, cosigned by `cosigners`.
        cosigners: who must have cosigned it, ascending by name.
        decisions: leaves with their places, each of another deal.
        log: key of the decider's log.
    """

    checkpoint: CheckpointBytes
    cosigners: Annotated[tuple[Witness, ...], msgspec.Meta(max_length=MAX_WITNESSES)]
    decisions: Annotated[tuple[LeafProof, ...], msgspec.Meta(min_length=1, max_length=MAX_RESOLUTIONS)]
    log: LogKey


DECIDE_PAYLOAD: Final = Codec(Decide)


def _decide_evidence(payload: Decide) -> Reason | None:
    if payload.contract is None:
        return Reason.of("evidence_wrong", problem="deal_missing") if payload.acceptances else None
    try:
        deal = decode_deal(payload.contract)
    except RemoteProtocolError as error:
        return proof_wrong(error)
    if deal.tid != payload.tid:
        return Reason.of("evidence_wrong", problem="tid_wrong")
    agents = deal.terms.agents if payload.outcome == "commit" else ()
    if len(payload.acceptances) != len(agents):
        return Reason.of("evidence_wrong", problem="acceptances_incomplete")
    pairs = zip(agents, payload.acceptances, strict=True)
    if not all(is_statement_signed(agent, payload.contract, signature) for agent, signature in pairs):
        return Reason.of("evidence_wrong", problem="bad_signature")
    return None


def _check_decide(state: FederationState, act: Act[Decide], at: int) -> Reason | None:
    decide, ledger = act.payload, state.coop.founded.ledger
    promised = state.federation.promises.get(decide.tid)
    deal = None if decide.contract is None else decode_deal(decide.contract)
    if promised is None and deal is None:
        return Reason.of("promise_missing", tid=decide.tid.hex())
    decider = deal.decider if deal is not None else promised.decision.ledger if promised is not None else b""
    if decider != ledger:
        return Reason.of("decider_mismatch", decider=decider.hex())
    if decide.tid in state.federation.decisions:
        return Reason.of("deal_decided", tid=decide.tid.hex())
    if promised is None and deal is not None:
        return _check_unpromised(state, decide, deal, at)
    assert promised is not None
    if decide.outcome == "commit" and promised.role != "payee" and deal is None:
        return Reason.of("acceptances_missing", tid=decide.tid.hex())
    if decide.outcome == "abort" and promised.role in ("clearing", "payee") and at < promised.earliest_abort_ms:
        return Reason.of("abort_too_early", earliest_abort_ms=promised.earliest_abort_ms)
    return None


def _check_unpromised(state: FederationState, decide: Decide, deal: Deal, at: int) -> Reason | None:
    if isinstance(deal.terms, Contract):
        known = {state.coop.founded.ledger, *state.federation.peers}
        stranger = next((ledger for ledger in deal.ledgers if ledger not in known), None)
        if stranger is not None:
            return Reason.of("peer_unknown", partner=stranger.hex())
    if deal.earliest_abort_ms > at + 2 * ABORT_WINDOW_MS:  # it would be remembered for too long, and is in no hurry
        return Reason.of("abort_time_out_of_range", last_ms=at + 2 * ABORT_WINDOW_MS)
    if at >= deal.closes_at_ms:
        return Reason.of("deal_closed", closed_at_ms=deal.closes_at_ms)
    if decide.outcome == "commit" and state.coop.founded.ledger in deal.ledgers:
        return Reason.of("promise_missing", tid=decide.tid.hex())
    return None


def _decide(state: FederationState, act: Act[Decide], at: int) -> list[Fact]:
    decide = act.payload
    promised = state.federation.promises.get(decide.tid)
    if promised is not None:
        closes_at_ms = promised.closes_at_ms
    else:
        assert decide.contract is not None
        closes_at_ms = decode_deal(decide.contract).closes_at_ms
    state.federation.forget_decisions(at)
    number = state.federation.decision_count()
    state.federation.decisions[decide.tid] = Decided(
        closes_at_ms=closes_at_ms, index=act.index, number=number, outcome=decide.outcome
    )
    return [facts.DealDecided(tid=decide.tid, outcome=decide.outcome)]


def _resolve_signers(state: FederationState, act: Act[Resolve], at: int) -> SignerRule:
    return board_signs(state, act.author) if act.author == BOARD else node_signs(state, act, at)


def _resolve_evidence(payload: Resolve) -> Reason | None:
    names = [witness.name for witness in payload.cosigners]
    if names != sorted(set(names)):
        return Reason.of("evidence_wrong", problem="cosigners_not_sorted")
    try:
        opened = open_decisions(payload.checkpoint, payload.log, payload.cosigners)
        for decision in payload.decisions:
            require_decided(decision, opened)
    except RemoteProtocolError as error:
        return proof_wrong(error)
    good = {one.cosigner for one in opened.cosignatures}
    if any(witness.verifier not in good for witness in payload.cosigners):
        return Reason.of("evidence_wrong", problem="cosignature_wrong")
    tids = {decision.tid for decision in payload.decisions}
    return Reason.of("evidence_wrong", problem="decision_repeated") if len(tids) != len(payload.decisions) else None


def accepted_policies(state: FederationState, promised: Promised) -> tuple[DecisionPolicy, ...]:
    """Return the policies under which a deal's decision counts: the one agreed with it, and those of its decider in the
    peerings of now if they differ from it in keys alone.

    Another set of witnesses would be another quorum, which need not meet the first: one could see a commit, the other
    an abort.
    """
    agreed = promised.decision
    peers = [state.federation.peers.get(partner) for partner in promised.partners]
    newer = [peer.peering.decider(agreed.ledger) for peer in peers if peer is not None]
    return (agreed, *(policy for policy in newer if policy is not None and _is_rekeyed(agreed, policy)))


def _is_rekeyed(agreed: DecisionPolicy, policy: DecisionPolicy) -> bool:
    """Tell whether a policy has the witnesses of another, and asks for as many."""
    ledgers = [{witness.ledger for witness in one.witnesses} for one in (agreed, policy)]
    return ledgers[0] == ledgers[1] and policy.count == agreed.count


def is_quorum(policy: DecisionPolicy, log: LogKey, cosigners: tuple[Witness, ...]) -> bool:
    """Tell whether a checkpoint of this log, cosigned by these witnesses, counts under the policy."""
    return policy.log == log and len(set(policy.witnesses) & set(cosigners)) >= policy.count


def _check_resolve(state: FederationState, act: Act[Resolve], _at: int) -> Reason | None:
    resolve = act.payload
    for decision in resolve.decisions:
        tid = decision.tid
        promised = state.federation.promises.get(tid)
        if promised is None:
            return Reason.of("promise_missing", tid=tid.hex())
        if not any(is_quorum(one, resolve.log, resolve.cosigners) for one in accepted_policies(state, promised)):
            return Reason.of("quorum_missing", tid=tid.hex())
    return None


def _resolve(state: FederationState, act: Act[Resolve], _at: int) -> list[Fact]:
    result: list[Fact] = []
    for decision in act.payload.decisions:
        tid, outcome = decision.tid, decision.outcome
        promised = state.federation.settle(tid)
        resolved = facts.DealResolved(tid=tid, role=promised.role, outcome=outcome, decider=promised.decision.ledger)
        if promised.role == "clearing":
            moved = resolve_round(state, tid, is_committed=outcome == "commit")
        else:
            moved = state.accounts.post(tid) if outcome == "commit" else state.accounts.void(tid)
        result += [resolved, *moved]
    return result


def _decide_parties(state: FederationState, act: Act[Decide]) -> tuple[bytes, ...]:
    return _owners(state, act.payload.tid)


def _resolve_parties(state: FederationState, act: Act[Resolve]) -> tuple[bytes, ...]:
    tids = [decision.tid for decision in act.payload.decisions]
    return tuple(sorted({owner for tid in tids for owner in _owners(state, tid)}))


def _owners(state: FederationState, tid: bytes) -> tuple[bytes, ...]:
    reservation = state.accounts.reservations.get(tid)
    owners = {key.owner for leg in reservation.legs for key in (leg.payer, leg.payee)} if reservation else set()
    for hold in state.federation.holds.get(tid) or ():
        owners.add(rows_of(state.federation, is_debtor=hold.is_debtor)[hold.obligation].member)
    return tuple(sorted(owners))


DECIDE: Final[EntryType[FederationState, Decide]] = EntryType(
    tag=DECIDE_TAG,
    payload=Decide,
    visibility=Visibility.PARTIES,
    signers=node_signs,
    check=_check_decide,
    effect=_decide,
    evidence=_decide_evidence,
    reasons=(
        "evidence_wrong",
        "promise_missing",
        "decider_mismatch",
        "deal_decided",
        "peer_unknown",
        "abort_time_out_of_range",
        "deal_closed",
        "acceptances_missing",
        "abort_too_early",
    ),
    parties=_decide_parties,
)
RESOLVE: Final[EntryType[FederationState, Resolve]] = EntryType(
    tag="federation.resolve",
    payload=Resolve,
    visibility=Visibility.PARTIES,
    signers=_resolve_signers,
    check=_check_resolve,
    effect=_resolve,
    evidence=_resolve_evidence,
    reasons=("evidence_wrong", "promise_missing", "quorum_missing"),
    parties=_resolve_parties,
)
