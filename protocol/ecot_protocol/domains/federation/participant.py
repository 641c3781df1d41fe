# SPDX-License-Identifier: AGPL-3.0-or-later
"""The side of a courier that takes part in deals: promise our part, hand it on, ask until there is a decision.

    payer's ledger, ledger between  ->  Prepare to the next one until it has promised, then Ask the decider
    payee's ledger                  ->  Accepted, with all promises, to the decider until it has decided
    participant of a round          ->  Accepted to the decider until it knows, then Ask
    the earliest abort has passed   ->  AbortAsked, too
    a ledger further on refuses     ->  Refused, back to the payer's ledger, which asks for the abort at once
    a decision is shown             ->  resolve

Our agent's signature leaves only when the record that it speaks of is durable.
"""

from collections.abc import Iterator
from typing import Final

import msgspec

from ecot_protocol.domains.federation.deals import Contract, Deal, decode_deal, transfer_of
from ecot_protocol.domains.federation.decider import Decider
from ecot_protocol.domains.federation.decisions import Resolve, accepted_policies, is_quorum
from ecot_protocol.domains.federation.messages import (
    AbortAsked,
    Accepted,
    Ask,
    DecisionShown,
    Prepare,
    Problem,
    Promised,
    Refused,
)
from ecot_protocol.domains.federation.openings import open_opening
from ecot_protocol.domains.federation.outputs import Append, Output, ReadRecord, Tell
from ecot_protocol.domains.federation.proofs import LeafProof, body_of, open_decisions, require_decided
from ecot_protocol.domains.federation.rounds import CLEAR_ACCEPT, ClearAccept, round_of
from ecot_protocol.domains.federation.state import Promised as PromisedRow
from ecot_protocol.domains.federation.statements import LogKey, Witness
from ecot_protocol.domains.federation.transfers import (
    FORWARD,
    FORWARD_PAYLOAD,
    FORWARD_TAG,
    PROMISE,
    PROMISE_PAYLOAD,
    PROMISE_TAG,
    SEND_PAYLOAD,
    Forward,
    Promise,
)
from ecot_protocol.domains.federation.work import Work, remember
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.ledger.reasons import COMMON_REASONS
from ecot_protocol.wire.encoding import Codec

BATCH_MAX: Final = 16
"""Decisions resolved by one entry."""
_ACCEPT: Final = Codec(ClearAccept)


class _Shown(msgspec.Struct, frozen=True):
    """A decision that can be resolved on."""

    checkpoint: bytes
    cosigners: tuple[Witness, ...]
    log: LogKey


class Participant:
    """Take part in deals.

    Args:
        work: shared with the rest of the courier.

    Attributes:
        decider: our own; set once both are there.
        refusals: tid -> why a transfer of ours can't go through, and whose ledger said so.
    """

    decider: Decider

    def __init__(self, work: Work) -> None:
        self._work = work
        self._heard: set[bytes] = set()
        self._reads: dict[ReadRecord, set[bytes]] = {}
        self._ready: dict[bytes, tuple[_Shown, LeafProof]] = {}
        self._alone: set[bytes] = set()
        self.refusals: dict[bytes, Refused] = {}

    # --- what we are asked to promise -------------------------------------------------------------------------------

    def prepared(self, sender: bytes, message: Prepare, now_ms: int) -> Iterator[Output]:
        """Promise our part of a transfer, or refuse it.

        Raises:
            RemoteProtocolError: the contract is not sound.
        """
        deal, contract = transfer_of(message.contract)
        position = len(message.promises)
        if contract.path[position - 1 : position + 1] != (sender, self._work.ledger):
            yield Tell(sender, Problem("contract_mismatch", deal.tid))
        elif self._work.is_known(deal.tid) or deal.tid in self._work.under_way:
            yield from self._repeated(sender, deal, now_ms)
        else:
            remember(self._work.contracts, deal.tid, message.contract)
            yield from self._promise(sender, deal, message, now_ms)

    def _repeated(self, sender: bytes, deal: Deal, now_ms: int) -> Iterator[Output]:
        if deal.decider == self._work.ledger:
            yield from self.decider.asked(sender, deal.tid, now_ms)
            return
        promised = self._work.promised(deal.tid)
        # The one before us will not tell us again: so what we say must have come to stay.
        if promised is None or self._work.is_durable(promised):
            yield from () if deal.tid in self._work.under_way else (Tell(sender, Promised(deal.tid)),)

    def _promise(self, sender: bytes, deal: Deal, message: Prepare, now_ms: int) -> Iterator[Output]:
        assert isinstance(deal.terms, Contract)
        if len(message.promises) < len(deal.terms.hops):
            forward = Forward(contract=message.contract, opening=message.opening, promises=message.promises)
            reason = FORWARD.evidence(forward)
            if reason is None:
                yield self._work.append("forward", (deal.tid,), (FORWARD_TAG, forward), now_ms)
                return
        else:
            try:
                opening = open_opening(message.opening, self._work.agent)
            except RemoteProtocolError as error:
                yield from self._refuse(deal, message.contract, error.code, now_ms)
                return
            promise = Promise(
                contract=message.contract,
                memo=opening.memo_commitment,
                payee=opening.payee,
                payee_salt=opening.salt,
                promises=message.promises,
            )
            reason = PROMISE.evidence(promise)
            if reason is None:
                entry = (PROMISE_TAG, promise)
                yield self._work.append("promise", (deal.tid,), entry, now_ms, opening.attachments)
                return
        yield Tell(sender, Problem(reason.code, deal.tid))

    def offered(self, contract: bytes, now_ms: int) -> Iterator[Output]:
        """Take part in a round.

        Raises:
            RemoteProtocolError: it is not sound.
        """
        deal, _ = round_of(contract)
        if self._work.is_known(deal.tid) or deal.tid in self._work.under_way:
            return
        payload = ClearAccept(contract=contract)
        reason = CLEAR_ACCEPT.evidence(payload)
        if reason is not None:
            raise RemoteProtocolError(reason.code)
        remember(self._work.contracts, deal.tid, contract)
        yield self._work.append("accept", (deal.tid,), ("federation.clear_accept", payload), now_ms)

    def entry_refused(self, append: Append, code: str, now_ms: int) -> Iterator[Output]:
        """Go on after a refusal of an entry that we asked for."""
        for tid in append.tids:
            self._work.under_way.pop(tid, None)
            self._ready.pop(tid, None)
            if len(append.tids) > 1:
                self._alone.add(tid)
                continue
            contract = self._work.contracts.get(tid)
            is_ours = append.kind in ("accept", "forward", "promise") and code not in COMMON_REASONS
            if is_ours and contract is not None and not self._work.is_known(tid):
                yield from self._refuse(decode_deal(contract), contract, code, now_ms)

    def _refuse(self, deal: Deal, contract: bytes, code: str, now_ms: int) -> Iterator[Output]:
        """What can't be promised here is aborted here, if it is ours to decide; else the payer's ledger is told."""
        if isinstance(deal.terms, Contract):
            before = deal.ledgers[deal.ledgers.index(self._work.ledger) - 1]
            yield Tell(before, Refused(deal.tid, code, self._work.ledger))
        if deal.decider == self._work.ledger:
            yield self.decider.abort(deal.tid, contract, now_ms)

    def recorded(self, append: Append) -> Iterator[Output]:
        """Learn that an entry of ours is durable."""
        for tid in append.tids:
            self._work.under_way.pop(tid, None)
            self._ready.pop(tid, None)
            self._work.hurry(tid)
            promised = self._work.promised(tid)
            is_asked = append.kind in ("forward", "promise") and promised is not None
            if is_asked and promised is not None and promised.decision.ledger != self._work.ledger:
                yield Tell(promised.partners[0], Promised(tid))

    # --- what we are told -------------------------------------------------------------------------------------------

    def told_promised(self, sender: bytes, tid: bytes) -> None:
        """Learn that our part has arrived at the next ledger, or at the decider."""
        promised = self._work.promised(tid)
        if promised is not None and sender == _goes_to(promised):
            self._heard.add(tid)

    def told_unheard(self, sender: bytes, tid: bytes, now_ms: int) -> Iterator[Output]:
        """Learn that somebody needs to be told again."""
        promised = self._work.promised(tid)
        if promised is not None and sender == _goes_to(promised) and tid in self._heard:
            self._heard.discard(tid)
            self._work.hurry(tid)
            yield from self.look(tid, now_ms)

    def told_refused(self, sender: bytes, refused: Refused, now_ms: int) -> Iterator[Output]:
        """Learn that a transfer can't go through, from the ledger that we handed it to."""
        promised = self._work.promised(refused.tid)
        if promised is None or promised.role not in ("payer", "transit") or sender != promised.partners[-1]:
            return
        if refused.tid in self.refusals or refused.tid in self._work.state.federation.decisions:
            return
        if promised.role == "transit":
            yield Tell(promised.partners[0], refused)
        if not self._work.is_durable(promised) or refused.tid in self._work.under_way:
            return
        remember(self.refusals, refused.tid, refused)
        if promised.decision.ledger == self._work.ledger:
            yield self.decider.abort(refused.tid, None, now_ms)
        else:
            self._work.hurry(refused.tid)
            yield from self.look(refused.tid, now_ms)

    def shown(self, message: DecisionShown) -> None:
        """Take a decision if it counts for a deal that is promised here."""
        tid = message.decision.tid
        promised = self._work.promised(tid)
        if promised is None or tid in self._work.under_way or not self._work.is_durable(promised):
            return
        for policy in accepted_policies(self._work.state, promised):
            try:
                opened = open_decisions(message.checkpoint, policy.log, policy.witnesses)
                require_decided(message.decision, opened)
            except RemoteProtocolError:  # Another policy may name other keys.
                continue
            good = {one.cosigner for one in opened.cosignatures}
            cosigners = tuple(sorted((w for w in policy.witnesses if w.verifier in good), key=lambda w: w.name))
            if is_quorum(policy, policy.log, cosigners):
                self._ready[tid] = (_Shown(message.checkpoint, cosigners, policy.log), message.decision)
                return

    # --- each deal --------------------------------------------------------------------------------------------------

    def look(self, tid: bytes, now_ms: int) -> Iterator[Output]:
        """Do what is due for a deal that is promised here."""
        promised = self._work.promised(tid)
        if promised is None:
            self._forget(tid)
            yield from self.decider.show(tid, now_ms)
            return
        if not self._work.is_durable(promised) or tid in self._work.under_way or tid in self._ready:
            return
        if not self._work.is_due(tid, now_ms):
            return
        if promised.decision.ledger != self._work.ledger:
            yield from self._pursue(tid, promised, now_ms)
        elif tid in self._work.state.federation.decisions:
            yield from self.decider.show(tid, now_ms)
        else:
            yield from self.decider.lead(tid, promised, now_ms)
            if tid not in self._work.under_way and promised.role in ("payer", "transit") and tid not in self._heard:
                yield from self._read(tid, promised)

    def _pursue(self, tid: bytes, promised: PromisedRow, now_ms: int) -> Iterator[Output]:
        """Tell all that the next one needs until it says that it knows; then ask the decider."""
        if tid in self._heard and not self._wants_abort(tid, promised, now_ms):
            # The answer may have been given before a crash of the decider: it is asked whether it still knows.
            yield Tell(promised.decision.ledger, Ask(tid))
        else:
            yield from self._read(tid, promised)

    def _wants_abort(self, tid: bytes, promised: PromisedRow, now_ms: int) -> bool:
        if promised.role == "payee":
            return False
        is_hopeless = promised.role == "payer" and tid in self.refusals
        return is_hopeless or now_ms >= promised.earliest_abort_ms

    def _read(self, tid: bytes, promised: PromisedRow) -> Iterator[Output]:
        read = ReadRecord(promised.index)
        self._reads.setdefault(read, set()).add(tid)
        yield read

    def read(self, read: ReadRecord, record: bytes, now_ms: int) -> Iterator[Output]:
        """Go on with a record of ours that was read."""
        for tid in sorted(self._reads.pop(read, ())):
            promised = self._work.promised(tid)
            if promised is not None and promised.index == read.index:
                payload = bytes(body_of(record).payload)
                match promised.role:
                    case "clearing":
                        yield from self._tell_round(tid, promised, payload, now_ms)
                    case "payee":
                        promise = PROMISE_PAYLOAD.decode(payload)
                        promises = (*promise.promises, self._work.sign(promise.contract))
                        yield Tell(promised.decision.ledger, Accepted(promise.contract, promises))
                    case "payer" | "transit":
                        yield from self._hand_on(tid, promised, payload, now_ms)

    def _tell_round(self, tid: bytes, promised: PromisedRow, payload: bytes, now_ms: int) -> Iterator[Output]:
        contract = _ACCEPT.decode(payload).contract
        yield Tell(promised.decision.ledger, Accepted(contract, (self._work.sign(contract),)))
        if self._wants_abort(tid, promised, now_ms):
            yield Tell(promised.decision.ledger, AbortAsked(contract))

    def _hand_on(self, tid: bytes, promised: PromisedRow, payload: bytes, now_ms: int) -> Iterator[Output]:
        made = SEND_PAYLOAD.decode(payload) if promised.role == "payer" else FORWARD_PAYLOAD.decode(payload)
        if self._wants_abort(tid, promised, now_ms):
            yield Tell(promised.decision.ledger, AbortAsked(made.contract))
        else:
            before = made.promises if isinstance(made, Forward) else ()
            promises = (*before, self._work.sign(made.contract))
            yield Tell(promised.partners[-1], Prepare(made.contract, made.opening, promises))

    def _forget(self, tid: bytes) -> None:
        self._work.forget(tid)
        self.decider.forget(tid)
        self._ready.pop(tid, None)
        self._heard.discard(tid)
        self._alone.discard(tid)

    # --- resolutions ------------------------------------------------------------------------------------------------

    def settle(self, now_ms: int) -> Iterator[Output]:
        """Resolve all that is ready, deals under one checkpoint together."""
        batches: dict[object, list[bytes]] = {}
        for tid, (shown, _) in self._ready.items():
            if tid not in self._work.under_way:
                batches.setdefault((shown.checkpoint, shown.log, tid if tid in self._alone else None), []).append(tid)
        for tids in batches.values():
            for start in range(0, len(tids), BATCH_MAX):
                yield self._resolve(tids[start : start + BATCH_MAX], now_ms)

    def _resolve(self, tids: list[bytes], now_ms: int) -> Append:
        shown = self._ready[tids[0]][0]
        payload = Resolve(
            checkpoint=shown.checkpoint,
            cosigners=shown.cosigners,
            decisions=tuple(self._ready[tid][1] for tid in tids),
            log=shown.log,
        )
        return self._work.append("resolve", tuple(tids), ("federation.resolve", payload), now_ms)


def _goes_to(promised: PromisedRow) -> bytes:
    """Return who must know of our promise next: the next ledger of the path, or the decider."""
    return promised.partners[-1] if promised.role in ("payer", "transit") else promised.decision.ledger
