# SPDX-License-Identifier: AGPL-3.0-or-later
"""The courier: brings every deal of this ledger to its end, through loss, repetition, crashes and wrong clocks.

Pure: `receive`, `tick`, `head`, `recorded`, `refused`, `proved`, `grown` take what happened and return `Output`s. It
keeps nothing that it could not lose. What there is to do is read from the ledger's own state: a promise there is a
question that must be answered, so the state is the outbox, and "what was promised is sent again after any crash" needs
no second store. Only the last checkpoint cosigned of each partner's log (`Keep`) is kept beside the ledger.

For each deal promised here:

    we decide, not decided     ->  append `decide` commit (a round: once all have accepted; abort after its time)
    we decide, decided         ->  collect cosignatures for a checkpoint that shows it -> append `resolve`
    another decides            ->  Prepare or Accepted until the decider knows it, then Ask, until a decision is shown
    a decision is shown        ->  append `resolve`

Rules:

- It acts on what is durable only: on records below the size of the newest checkpoint that the log has signed (`head`).
  Nothing leaves before it is recorded.
- Its clock decides when to ask again and when to ask for an abort, never what becomes of a deal.
- One entry a deal is under way at a time; if the host loses one, it starts a new courier, as after a crash.
"""

from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Final, TypeVar

import msgspec

from ecot_protocol.domains.federation.decisions import (
    DECIDE_TAG,
    Decide,
    Resolve,
    accepted_policies,
    is_quorum,
    read_decision,
)
from ecot_protocol.domains.federation.messages import (
    AbortAsked,
    Accepted,
    Ask,
    AskHead,
    Cosigned,
    DecisionShown,
    Head,
    Message,
    Offer,
    PartnerMessage,
    Prepare,
    Problem,
    Promised,
    Push,
    Stale,
    Unheard,
    decode_message,
)
from ecot_protocol.domains.federation.outputs import Append, AppendKind, Output, ReadGrowth, ReadRecord, Tell
from ecot_protocol.domains.federation.proofs import Inclusion, RecordProof, body_of, open_signed
from ecot_protocol.domains.federation.rounds import CLEAR_ACCEPT, ClearAccept, round_of
from ecot_protocol.domains.federation.state import FederationState
from ecot_protocol.domains.federation.state import Promised as PromisedRow
from ecot_protocol.domains.federation.statements import DecisionPolicy, LogKey, Witness, decode_deal
from ecot_protocol.domains.federation.transfers import PROMISE, SEND_PAYLOAD, Promise, transfer_of
from ecot_protocol.domains.federation.witnessing import Quorum, WitnessDesk, require_fresh
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.ledger.reasons import COMMON_REASONS
from ecot_protocol.wire.cosignature import Cosigner, Cosigns
from ecot_protocol.wire.encoding import Codec, Wire, encode
from ecot_protocol.wire.entry import BODY, Body
from ecot_protocol.wire.ids import uuid7
from ecot_protocol.wire.keys import Signer
from ecot_protocol.wire.note import SignedNote
from ecot_protocol.wire.statement import is_statement_signed, sign_statement

RESEND_FIRST_MS: Final = 1_000
RESEND_MAX_MS: Final = 60_000
ENTRY_LIFETIME_MS: Final = 600_000
HEAD_PUSH_MS: Final = 60_000
"""How often the newest checkpoint is shown to every partner, if nothing waits for it and the host says nothing else."""
BATCH_MAX: Final = 16
"""Decisions resolved by one entry."""
_ACCEPT: Final = Codec(ClearAccept)


MAX_REMEMBERED: Final = 1_000
"""Contracts, and rounds, that are held while not promised here; the oldest is forgotten and asked for again."""
T = TypeVar("T")


def _remember(memory: dict[bytes, T], tid: bytes, value: T) -> None:
    memory[tid] = value
    if len(memory) > MAX_REMEMBERED:
        del memory[next(iter(memory))]


class _Pace(msgspec.Struct):
    """When a deal is looked at again: the wait doubles each time."""

    next_ms: int = 0
    wait_ms: int = RESEND_FIRST_MS


class _Round(msgspec.Struct):
    """What the decider has collected for a round."""

    contract: bytes
    signatures: dict[bytes, bytes]


class _Shown(msgspec.Struct, frozen=True):
    """A decision that can be resolved on."""

    checkpoint: bytes
    cosigners: tuple[Witness, ...]
    log: LogKey


class Courier:
    """Drive the deals of one ledger.

    Args:
        state: of the ledger, read only; as of the last record, durable or not.
        agent: signs acceptances of rounds (the host signs entries).
        cosigner: our cosigner key, named like our log.
        kept: origin -> checkpoint, what `Keep` asked the host to keep.
        further_cosigners: our ML-DSA-44 cosigner key, if we have one; partners' logs alone are cosigned with it.
        head_push_ms: how often partners are shown the newest checkpoint, so that every record is witnessed soon.
    """

    def __init__(
        self,
        state: FederationState,
        agent: Signer,
        cosigner: Cosigner,
        kept: dict[str, bytes] | None = None,
        *,
        further_cosigners: Sequence[Cosigns] = (),
        head_push_ms: int = HEAD_PUSH_MS,
    ) -> None:
        profile = state.coop.founded
        self._state = state
        self._agent = agent
        self._ledger = profile.ledger
        self._origin = profile.origin
        own_key = state.coop.node_keys["cosigner"].public_key
        self._quorum = Quorum(Witness(ledger=profile.ledger, name=profile.origin, public_key=own_key), cosigner)
        self._desk = WitnessDesk(state, (cosigner, *further_cosigners), kept or {})
        self._under_way: dict[bytes, AppendKind] = {}
        self._paces: dict[bytes, _Pace] = {}
        self._heard: set[bytes] = set()
        self._askers: dict[bytes, set[bytes]] = {}
        self._rounds: dict[bytes, _Round] = {}
        self._contracts: dict[bytes, bytes] = {}
        self._reads: dict[ReadRecord, dict[bytes, bytes]] = {}
        self._ready: dict[bytes, tuple[_Shown, Inclusion]] = {}
        self._alone: set[bytes] = set()
        self._pushed_at_ms = 0
        self._head_push_ms = head_push_ms
        self._entry_count = 0

    # ------------------------------------------------------------------------------------------------ what happened

    def receive(self, sender: bytes, raw: bytes, now_ms: int) -> list[Output]:
        """Take a message of a peer's node.

        Args:
            sender: the peer's ledger id (32 bytes), as the transport proved it.
            raw: encoded message.
            now_ms: milliseconds since 1970, by our clock.

        Raises:
            RemoteProtocolError: the message is malformed; it is dropped and nothing changes.
        """
        message = decode_message(raw)
        if sender not in self._state.federation.peers:
            return []
        outputs: list[Output] = []
        try:
            for output in self._take(sender, message, now_ms):
                outputs.append(output)
        except RemoteProtocolError as error:
            outputs.append(Tell(sender, Problem(error.code, None)))
        return [*outputs, *self._settle(now_ms)]

    def tick(self, now_ms: int) -> list[Output]:
        """Look at everything that is due; to be called about once a second."""
        outputs: list[Output] = []
        for tid in [*self._state.federation.promises]:
            outputs += self._look(tid, now_ms)
        for tid in [*self._askers]:
            if tid not in self._state.federation.promises and self._is_due(tid, now_ms):
                outputs += self._show(tid, now_ms)
        outputs += self._settle(now_ms)
        if now_ms - self._pushed_at_ms >= self._head_push_ms and self._quorum.head is not None:
            outputs += self._push_head(now_ms)
        return outputs

    def head(self, note: bytes, now_ms: int) -> list[Output]:
        """Take the newest checkpoint that our log has signed; all below its size is durable."""
        self._quorum.take_head(SignedNote.parse(note))
        return self.tick(now_ms)

    def reconnected(self, now_ms: int) -> list[Output]:
        """Learn that a partner can be reached again: whatever waits is asked at once."""
        self._paces.clear()
        return self.tick(now_ms)

    def recorded(self, append: Append, now_ms: int) -> list[Output]:
        """Learn that an entry of ours is durable; `head` has been told of it before."""
        for tid in append.tids:
            self._under_way.pop(tid, None)
            self._ready.pop(tid, None)
            self._hurry(tid)
        return [output for tid in append.tids for output in self._look(tid, now_ms)] + self._settle(now_ms)

    def refused(self, append: Append, code: str, now_ms: int) -> list[Output]:
        """Learn that an entry of ours was refused, and why."""
        outputs: list[Output] = []
        for tid in append.tids:
            self._under_way.pop(tid, None)
            self._ready.pop(tid, None)
            if len(append.tids) > 1:
                self._alone.add(tid)
            elif append.kind in ("accept", "promise") and code not in COMMON_REASONS:
                outputs += self._refused_promise(tid, append.kind, now_ms)
        return outputs + self._settle(now_ms)

    def proved(self, read: ReadRecord, inclusion: Inclusion, now_ms: int) -> list[Output]:
        """Take the answer to a `ReadRecord`."""
        outputs: list[Output] = []
        for tid, checkpoint in self._reads.pop(read, {}).items():
            outputs += self._use(tid, inclusion, checkpoint, now_ms)
        return outputs + self._settle(now_ms)

    def grown(self, read: ReadGrowth, hashes: tuple[bytes, ...]) -> list[Output]:
        """Take the answer to a `ReadGrowth`."""
        return [*self._quorum.grown(read.old_size, read.new_size, hashes)]

    def propose(self, contract: bytes, now_ms: int) -> list[Output]:
        """Offer a round to all who take part in it, ourselves included.

        Raises:
            RemoteProtocolError: it isn't sound.
        """
        deal, _ = round_of(contract)
        offers: list[Output] = [Tell(one, Offer(contract)) for one in deal.ledgers if one != self._ledger]
        return [*offers, *(self._offered(contract, now_ms) if self._ledger in deal.ledgers else ())]

    def cosigned_target(self) -> SignedNote | None:
        """Return the checkpoint of our own log that is being cosigned, with the cosignatures that were found good."""
        target = self._quorum.target
        return None if target is None else SignedNote.parse(self._quorum.checkpoint(self._quorum.cosigners))

    # --------------------------------------------------------------------------------------------------- each message

    def _take(self, sender: bytes, message: Message, now_ms: int) -> Iterator[Output]:
        if isinstance(message, PartnerMessage):  # not about a deal: the host has other ears for these
            return
        match message:
            case Prepare():
                yield from self._prepared(sender, message, now_ms)
            case Ask(tid):
                yield from self._asked(sender, tid, now_ms)
            case Promised(tid):
                if tid in self._state.federation.promises:
                    self._heard.add(tid)
            case Unheard(tid):
                self._heard.discard(tid)
                self._hurry(tid)
                yield from self._look(tid, now_ms)
            case DecisionShown():
                self._shown(message)
            case Push() | Cosigned() | Stale() | AskHead() | Head():
                yield from self._take_of_log(sender, message, now_ms)
            case Problem():
                pass
            case _:
                yield from self._take_of_round(sender, message, now_ms)

    def _take_of_round(self, sender: bytes, message: Offer | Accepted | AbortAsked, now_ms: int) -> Iterator[Output]:
        match message:
            case Offer(contract):
                yield from self._offered(contract, now_ms)
            case Accepted(contract, signature):
                yield from self._accepted(sender, contract, signature, now_ms)
            case AbortAsked(contract):
                yield from self._abort_asked(sender, contract, now_ms)

    def _take_of_log(
        self, sender: bytes, message: Push | Cosigned | Stale | AskHead | Head, now_ms: int
    ) -> Iterator[Output]:
        match message:
            case Push():
                yield from self._desk.push(sender, message, now_ms)
            case Cosigned():
                if message.origin == self._origin:
                    witnesses = self._witnesses()
                    require_fresh(message.lines, (one.verifier for one in witnesses), now_ms // 1000)
                    self._quorum.cosigned(sender, message, witnesses)
                    yield from self._show_all(now_ms)
            case Stale(origin, size):
                if origin == self._origin:
                    yield from self._quorum.stale(sender, size, now_ms)
            case AskHead(origin):
                yield Tell(sender, self._desk.head(origin))
            case Head(origin, checkpoint):
                if origin == self._origin and checkpoint is not None:
                    yield from self._quorum.judge_head(checkpoint, self._own_log())

    def _prepared(self, sender: bytes, message: Prepare, now_ms: int) -> Iterator[Output]:
        deal, contract = transfer_of(message.contract)
        if contract.payer_ledger != sender or contract.payee_ledger != self._ledger:
            yield Tell(sender, Problem("contract_mismatch", deal.tid))
            return
        if self._is_known(deal.tid) or deal.tid in self._under_way:
            yield from self._asked(sender, deal.tid, now_ms)
            return
        payload = Promise(contract=message.contract, payee=message.payee, sent=message.sent)
        reason = PROMISE.evidence(payload)
        if reason is not None:
            yield Tell(sender, Problem(reason.code, deal.tid))
            return
        _remember(self._contracts, deal.tid, message.contract)
        yield self._append("promise", deal.tid, "federation.promise", payload, now_ms)

    def _asked(self, sender: bytes, tid: bytes, now_ms: int) -> Iterator[Output]:
        if tid in self._state.federation.decisions:
            self._askers.setdefault(tid, set()).add(sender)
            yield from self._show(tid, now_ms)
        elif self._needs_acceptance(sender, tid):
            yield Tell(sender, Unheard(tid))
        elif self._is_known(tid) or tid in self._under_way or tid in self._rounds:
            yield Tell(sender, Promised(tid))
        else:
            yield Tell(sender, Unheard(tid))

    def _needs_acceptance(self, sender: bytes, tid: bytes) -> bool:
        """Tell whether this is a round for which we lack (perhaps since a crash) the sender's acceptance."""
        promised = self._state.federation.promises.get(tid)
        collected = self._rounds.get(tid)
        is_round = collected is not None or (promised is not None and promised.role == "clearing")
        return is_round and (collected is None or sender not in collected.signatures)

    def _offered(self, contract: bytes, now_ms: int) -> Iterator[Output]:
        deal, _ = round_of(contract)
        if self._is_known(deal.tid) or deal.tid in self._under_way:
            return
        payload = ClearAccept(contract=contract)
        reason = CLEAR_ACCEPT.evidence(payload)
        if reason is not None:
            raise RemoteProtocolError(reason.code)
        _remember(self._contracts, deal.tid, contract)
        yield self._append("accept", deal.tid, "federation.clear_accept", payload, now_ms)

    def _accepted(self, sender: bytes, contract: bytes, signature: bytes, now_ms: int) -> Iterator[Output]:
        deal, terms = round_of(contract)
        if deal.decider != self._ledger or sender not in deal.ledgers:
            return
        agent = terms.agents[deal.ledgers.index(sender)]
        if not is_statement_signed(agent, contract, signature):
            raise RemoteProtocolError("bad_signature")
        if deal.tid in self._state.federation.decisions:
            yield from self._asked(sender, deal.tid, now_ms)
            return
        if deal.tid not in self._rounds:
            _remember(self._rounds, deal.tid, _Round(contract, {}))
        self._rounds[deal.tid].signatures[sender] = signature
        yield Tell(sender, Promised(deal.tid))
        if deal.tid in self._state.federation.promises:
            self._hurry(deal.tid)
            yield from self._look(deal.tid, now_ms)
        elif self._ledger in deal.ledgers:
            yield from self._offered(contract, now_ms)
        else:
            yield from self._commit_round(deal.tid, now_ms)

    def _abort_asked(self, sender: bytes, contract: bytes, now_ms: int) -> Iterator[Output]:
        deal, _ = round_of(contract)
        if deal.decider != self._ledger or sender not in deal.ledgers:
            return
        tid = deal.tid
        if tid in self._state.federation.decisions:
            yield from self._asked(sender, tid, now_ms)
        elif tid not in self._under_way and now_ms >= deal.earliest_abort_ms:
            payload = Decide(acceptances=(), contract=contract, outcome="abort", tid=tid)
            yield self._append("abort", tid, DECIDE_TAG, payload, now_ms)

    # ------------------------------------------------------------------------------------------------------ each deal

    def _look(self, tid: bytes, now_ms: int) -> Iterator[Output]:
        promised = self._state.federation.promises.get(tid)
        if promised is None:
            self._forget(tid)
            if self._askers.get(tid):
                yield from self._show(tid, now_ms)
            return
        if promised.index >= self._quorum.head_size or tid in self._under_way or tid in self._ready:
            return
        if not self._is_due(tid, now_ms):
            return
        if promised.decision.ledger != self._ledger:
            yield from self._pursue(tid, promised, now_ms)
        elif tid in self._state.federation.decisions:
            yield from self._show(tid, now_ms)
        elif promised.role == "payee":
            payload = Decide(acceptances=(), contract=None, outcome="commit", tid=tid)
            yield self._append("commit", tid, DECIDE_TAG, payload, now_ms)
        else:
            yield from self._lead_round(tid, promised, now_ms)

    def _pursue(self, tid: bytes, promised: PromisedRow, now_ms: int) -> Iterator[Output]:
        """Ask the decider, telling it all it needs until it says that it knows the deal."""
        is_late = promised.role == "clearing" and now_ms >= promised.earliest_abort_ms
        if tid in self._heard and not is_late:
            # The answer may have been given before a crash of the decider: it is asked whether it still knows.
            yield Tell(promised.decision.ledger, Ask(tid))
        else:
            assert self._quorum.head is not None
            read = ReadRecord(promised.index, self._quorum.head_size)
            yield from self._read(tid, read, self._quorum.head.format())

    def _lead_round(self, tid: bytes, promised: PromisedRow, now_ms: int) -> Iterator[Output]:
        if now_ms >= promised.earliest_abort_ms:
            payload = Decide(acceptances=(), contract=None, outcome="abort", tid=tid)
            yield self._append("abort", tid, DECIDE_TAG, payload, now_ms)
        elif tid in self._rounds:
            yield from self._commit_round(tid, now_ms)

    def _commit_round(self, tid: bytes, now_ms: int) -> Iterator[Output]:
        collected = self._rounds[tid]
        deal, _ = round_of(collected.contract)
        if self._ledger in deal.ledgers:
            collected.signatures[self._ledger] = sign_statement(self._agent, collected.contract).signature
        if tid in self._under_way or any(one not in collected.signatures for one in deal.ledgers):
            return
        acceptances = tuple(collected.signatures[one] for one in deal.ledgers)
        payload = Decide(acceptances=acceptances, contract=collected.contract, outcome="commit", tid=tid)
        yield self._append("commit", tid, DECIDE_TAG, payload, now_ms)

    def _refused_promise(self, tid: bytes, kind: AppendKind, now_ms: int) -> Iterator[Output]:
        """What can't be promised here is aborted here, if it is ours to decide; the memory keeps a late promise out."""
        contract = self._contracts.get(tid)
        if contract is None or self._is_known(tid):
            yield from self._look(tid, now_ms)
            return
        deal = decode_deal(contract)
        if deal.decider == self._ledger:
            payload = Decide(acceptances=(), contract=contract, outcome="abort", tid=tid)
            yield self._append("abort", tid, DECIDE_TAG, payload, now_ms)

    def _shown(self, message: DecisionShown) -> None:
        """Take a decision if it counts for a deal that is promised here."""
        tid = read_decision(message.inclusion.record).tid
        promised = self._state.federation.promises.get(tid)
        if promised is None or tid in self._under_way or promised.index >= self._quorum.head_size:
            return
        for policy in accepted_policies(self._state, promised):
            try:
                opened = open_signed(message.checkpoint, policy.log, policy.witnesses)
            except RemoteProtocolError:  # Another policy may name other keys.
                continue
            good = {one.cosigner for one in opened.cosignatures}
            cosigners = tuple(sorted((w for w in policy.witnesses if w.verifier in good), key=lambda w: w.name))
            if is_quorum(policy, policy.log, cosigners):
                self._ready[tid] = (_Shown(message.checkpoint, cosigners, policy.log), message.inclusion)
                return

    def _settle(self, now_ms: int) -> list[Output]:
        """Resolve all that is ready, deals under one checkpoint together."""
        batches: dict[object, list[bytes]] = {}
        for tid, (shown, _) in self._ready.items():
            if tid not in self._under_way:
                batches.setdefault((shown.checkpoint, shown.log, tid if tid in self._alone else None), []).append(tid)
        outputs: list[Output] = []
        for tids in batches.values():
            outputs += [
                self._resolve(tids[start : start + BATCH_MAX], now_ms) for start in range(0, len(tids), BATCH_MAX)
            ]
        return outputs

    def _resolve(self, tids: list[bytes], now_ms: int) -> Append:
        shown = self._ready[tids[0]][0]
        payload = Resolve(
            checkpoint=shown.checkpoint,
            cosigners=shown.cosigners,
            decisions=tuple(self._ready[tid][1] for tid in tids),
            log=shown.log,
        )
        for tid in tids:
            self._under_way[tid] = "resolve"
        return Append("resolve", tuple(tids), self._body(tids[0], "federation.resolve", payload, now_ms))

    # ------------------------------------------------------------------------------- decisions of ours, and who waits

    def _show_all(self, now_ms: int) -> Iterator[Output]:
        for tid in [*self._waiting()]:
            yield from self._show(tid, now_ms)

    def _waiting(self) -> Iterator[bytes]:
        """Yield deals decided here that are not resolved here, or that somebody asked for."""
        decisions = self._state.federation.decisions
        yield from (tid for tid in self._state.federation.promises if tid in decisions)
        yield from (tid for tid in self._askers if tid not in self._state.federation.promises)

    def _show(self, tid: bytes, now_ms: int) -> Iterator[Output]:
        """Bring a decision of our log to whoever waits for it, or work on its cosignatures."""
        decided = self._state.federation.decisions.get(tid)
        if decided is None or decided.index >= self._quorum.head_size:
            return
        policies, log = self._own_policies(tid), self._own_log()
        is_enough = any(is_quorum(policy, log, self._quorum.cosigners) for policy in policies)
        if is_enough and decided.index < self._quorum.target_size:
            checkpoint = self._quorum.checkpoint(self._quorum.cosigners)
            yield from self._read(tid, ReadRecord(decided.index, self._quorum.target_size), checkpoint)
            return
        if decided.index >= self._quorum.target_size and not self._is_target_needed():
            self._quorum.aim(now_ms)
        yield from self._quorum.push({one.ledger for policy in policies for one in policy.witnesses})

    def _is_target_needed(self) -> bool:
        """Tell whether a deal that waits is shown by the present target, whose cosignatures are not complete."""
        size, log = self._quorum.target_size, self._own_log()
        for tid in self._waiting():
            decided = self._state.federation.decisions.get(tid)
            if decided is not None and decided.index < size:
                policies = self._own_policies(tid)
                if not any(is_quorum(one, log, self._quorum.cosigners) for one in policies):
                    return True
        return False

    def _own_policies(self, tid: bytes) -> tuple[DecisionPolicy, ...]:
        promised = self._state.federation.promises.get(tid)
        found = [] if promised is None else [*accepted_policies(self._state, promised)]
        for asker in sorted(self._askers.get(tid, ())):
            peer = self._state.federation.peers.get(asker)
            policy = None if peer is None else peer.peering.decider(self._ledger)
            if policy is not None and policy not in found:
                found.append(policy)
        return tuple(found)

    def _use(self, tid: bytes, inclusion: Inclusion, checkpoint: bytes, now_ms: int) -> Iterator[Output]:
        """Go on with a record of ours that was read for a deal."""
        decided = self._state.federation.decisions.get(tid)
        if decided is not None and decided.index == inclusion.index:
            yield from self._use_decision(tid, inclusion, checkpoint)
            return
        promised = self._state.federation.promises.get(tid)
        if promised is None or promised.index != inclusion.index:
            return
        payload = bytes(body_of(inclusion.record).payload)
        decider = promised.decision.ledger
        if promised.role == "payer":
            send = SEND_PAYLOAD.decode(payload)
            sent = RecordProof(checkpoint=checkpoint, inclusion=inclusion, log=self._own_log())
            yield Tell(decider, Prepare(send.contract, send.payee, sent))
        elif promised.role == "clearing":
            contract = _ACCEPT.decode(payload).contract
            yield Tell(decider, Accepted(contract, sign_statement(self._agent, contract).signature))
            if now_ms >= promised.earliest_abort_ms:
                yield Tell(decider, AbortAsked(contract))

    def _use_decision(self, tid: bytes, inclusion: Inclusion, checkpoint: bytes) -> Iterator[Output]:
        for asker in sorted(self._askers.pop(tid, set())):
            yield Tell(asker, DecisionShown(checkpoint, inclusion))
        promised = self._state.federation.promises.get(tid)
        if promised is None or tid in self._under_way:
            return
        for partner in promised.partners:
            yield Tell(partner, DecisionShown(checkpoint, inclusion))
        self._shown(DecisionShown(checkpoint, inclusion))

    def _push_head(self, now_ms: int) -> Iterator[Output]:
        """Show the newest checkpoint to every partner, unless somebody waits for the target."""
        self._pushed_at_ms = now_ms
        if not self._is_target_needed():
            self._quorum.aim(now_ms)
        peers = self._state.federation.peers
        yield from self._quorum.push({one for one in peers if self._state.federation.linked_peer(one) is not None})

    # --------------------------------------------------------------------------------------------------------- small

    def _is_known(self, tid: bytes) -> bool:
        return tid in self._state.federation.promises or tid in self._state.federation.decisions

    def _is_due(self, tid: bytes, now_ms: int) -> bool:
        pace = self._paces.setdefault(tid, _Pace())
        if now_ms < pace.next_ms:
            return False
        pace.next_ms = now_ms + pace.wait_ms
        pace.wait_ms = min(2 * pace.wait_ms, RESEND_MAX_MS)
        return True

    def _hurry(self, tid: bytes) -> None:
        self._paces.pop(tid, None)

    def _forget(self, tid: bytes) -> None:
        for memory in (self._paces, self._rounds, self._contracts, self._ready):
            memory.pop(tid, None)
        self._heard.discard(tid)
        self._alone.discard(tid)

    def _read(self, tid: bytes, read: ReadRecord, checkpoint: bytes) -> Iterator[Output]:
        """Ask for a record, to be shown under this checkpoint: by the time of the answer there may be newer ones."""
        self._reads.setdefault(read, {})[tid] = checkpoint
        yield read

    def _own_log(self) -> LogKey:
        return LogKey(origin=self._origin, public_key=self._state.coop.node_keys["log"].public_key)

    def _witnesses(self) -> set[Witness]:
        """Return every witness that may count for our log: of the peerings, and of deals agreed under older ones."""
        found: set[Witness] = set()
        for peer in self._state.federation.peers.values():
            policy = peer.peering.decider(self._ledger)
            found |= set(policy.witnesses) if policy is not None else set()
        for promised in self._state.federation.promises.values():
            if promised.decision.ledger == self._ledger:
                found |= set(promised.decision.witnesses)
        return found

    def _append(self, kind: AppendKind, tid: bytes, tag: str, payload: Wire, now_ms: int) -> Append:
        self._under_way[tid] = kind
        return Append(kind, (tid,), self._body(tid, tag, payload, now_ms))

    def _body(self, tid: bytes, tag: str, payload: Wire, now_ms: int) -> bytes:
        """Build an unsigned body. Its id needs no randomness: it is the node's own, and says what the entry is for."""
        self._entry_count += 1
        seed = sha256(b"ecot/courier/v1\n" + tid + encode((tag, now_ms, self._entry_count))).digest()
        return BODY.encode(
            Body(
                author=None,
                expires_at=now_ms + ENTRY_LIFETIME_MS,
                id=uuid7(now_ms, seed[:10]),
                ledger=self._ledger,
                payload=msgspec.Raw(encode(payload)),
                type=tag,
            )
        )
