# SPDX-License-Identifier: AGPL-3.0-or-later
"""The courier: brings every deal of this ledger to its end, through loss, repetition, crashes and wrong clocks.

Pure: `receive`, `tick`, `head`, `recorded`, `refused`, `proved`, `grown` take what happened and return `Output`s. It
keeps nothing that it could not lose. What there is to do is read from the ledger's own state: a promise there is a
question that must be answered, so the state is the outbox, and "what was promised is sent again after any crash" needs
no second store. Only the last checkpoint cosigned of each partner's log (`Keep`) is kept beside the ledger.

Its parts: `Participant` promises, hands on and asks; `Decider` decides and shows; `WitnessDesk` cosigns for partners,
`Quorum` collects cosignatures for our own log.

Rules:

- It acts on what is durable only: on records below the size of the newest checkpoint that the log has signed (`head`).
  Nothing leaves before it is recorded.
- Its clock decides when to ask again and when to ask for an abort, never what becomes of a deal.
- One entry a deal is under way at a time; if the host loses one, it starts a new courier, as after a crash.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Final

from ecot_protocol.domains.federation.caller import Boards, Caller
from ecot_protocol.domains.federation.decider import Decider
from ecot_protocol.domains.federation.decision_log import DecisionTree, Outcome
from ecot_protocol.domains.federation.decision_witnessing import DecisionDesk, DecisionQuorum, KeptDecisions
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
    PushDecisions,
    Refused,
    RoutesShown,
    Stale,
    Unheard,
    decode_message,
)
from ecot_protocol.domains.federation.netting import Solution, decode_call
from ecot_protocol.domains.federation.netting_messages import (
    AskBest,
    AskBoard,
    AskReveal,
    Board,
    CallShown,
    Committed,
    Revealed,
    Solved,
)
from ecot_protocol.domains.federation.outputs import Append, Output, ReadGrowth, ReadLeaves, ReadRecord, Tell
from ecot_protocol.domains.federation.participant import Participant
from ecot_protocol.domains.federation.rounds import round_of
from ecot_protocol.domains.federation.router import Router
from ecot_protocol.domains.federation.routes import Routes
from ecot_protocol.domains.federation.state import FederationState
from ecot_protocol.domains.federation.statements import DECISIONS_SUFFIX, Witness
from ecot_protocol.domains.federation.witnessing import Quorum, WitnessDesk, require_fresh
from ecot_protocol.domains.federation.work import Work
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.wire.cosignature import Cosigner, Cosigns
from ecot_protocol.wire.keys import Signer
from ecot_protocol.wire.note import NoteSigner, SignedNote

HEAD_PUSH_MS: Final = 60_000
"""How often the newest checkpoint is shown to every partner, if nothing waits for it and the host says nothing else."""


AIM_AGAIN: Final = 5
"""After so many pushes partners that have not cosigned a checkpoint are shown a newer one."""


class Courier:
    """Drive the deals of one ledger.

    Args:
        state: of the ledger, read only; as of the last record, durable or not.
        agent: signs promises, and opens what is sealed to us (the host signs entries).
        cosigner: our cosigner key, named like our log.
        decisions: the key of our log, named like our decision log.
        kept: origin -> checkpoint, what `Keep` asked the host to keep.
        kept_decisions: origin of a decision log -> what `KeepLeaves` asked the host to keep.
        further_cosigners: our ML-DSA-44 cosigner key, if we have one; partners' logs alone are cosigned with it.
        head_push_ms: how often partners are shown the newest checkpoint, so that every record is witnessed soon.
    """

    def __init__(
        self,
        state: FederationState,
        agent: Signer,
        cosigner: Cosigner,
        decisions: NoteSigner,
        kept: dict[str, bytes] | None = None,
        *,
        kept_decisions: dict[str, KeptDecisions] | None = None,
        further_cosigners: Sequence[Cosigns] = (),
        head_push_ms: int = HEAD_PUSH_MS,
    ) -> None:
        profile = state.coop.founded
        self._state = state
        self._origin = profile.origin
        own_key = state.coop.node_keys["cosigner"].public_key
        own = Witness(ledger=profile.ledger, name=profile.origin, public_key=own_key)
        self._quorum = Quorum(own, cosigner)
        self._desk = WitnessDesk(state, (cosigner, *further_cosigners), kept or {})
        self._work = Work(state, agent)
        self._participant = Participant(self._work)
        self._decision_desk = DecisionDesk(state, cosigner, kept_decisions or {})
        self._decisions = DecisionQuorum(state, own, cosigner, decisions)
        self._decider = Decider(self._work, self._decisions, self._participant.offered, self._participant.shown)
        self._participant.decider = self._decider
        self._router = Router(self._work)
        self._boards, self._caller = Boards(self._work), Caller(self._work)
        self._pushed_at_ms = self._aimed_at_ms = 0
        self._head_push_ms = head_push_ms

    # --- what happened ----------------------------------------------------------------------------------------------

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
        return [*outputs, *self._participant.settle(now_ms)]

    def tick(self, now_ms: int) -> list[Output]:
        """Look at everything that is due; to be called about once a second."""
        outputs: list[Output] = []
        for tid in [*self._state.federation.promises]:
            outputs += self._participant.look(tid, now_ms)
        outputs += self._decider.tick(now_ms)
        outputs += self._router.tick(now_ms)
        outputs += self._to_ourselves([*self._boards.tick(now_ms), *self._caller.tick(now_ms)], now_ms)
        outputs += self._participant.settle(now_ms)
        if now_ms - self._pushed_at_ms >= self._head_push_ms and self._quorum.head is not None:
            outputs += self._push_head(now_ms)
        return outputs

    def head(self, note: bytes, now_ms: int) -> list[Output]:
        """Take the newest checkpoint that our log has signed; all below its size is durable."""
        self._quorum.take_head(SignedNote.parse(note))
        self._work.durable_size = self._quorum.head_size
        self._decisions.follow(self._work.durable_size)
        return self.tick(now_ms)

    def reconnected(self, now_ms: int) -> list[Output]:
        """Learn that a partner can be reached again: whatever waits is asked at once."""
        self._work.hurry()
        return self.tick(now_ms)

    def recorded(self, append: Append, now_ms: int) -> list[Output]:
        """Learn that an entry of ours is durable; `head` has been told of it before."""
        outputs = [*self._participant.recorded(append)]
        if append.kind == "commit_offers":
            return [*outputs, *self._to_ourselves([*self._caller.recorded(append, now_ms)], now_ms)]
        for tid in append.tids:
            if append.kind in ("abort", "commit"):
                self._decider.decided(tid)
            outputs += self._participant.look(tid, now_ms)
        return [*outputs, *self._participant.settle(now_ms)]

    def refused(self, append: Append, code: str, now_ms: int) -> list[Output]:
        """Learn that an entry of ours was refused, and why."""
        if append.kind == "commit_offers":
            self._caller.refused(append)
        return [*self._participant.entry_refused(append, code, now_ms), *self._participant.settle(now_ms)]

    def read(self, read: ReadRecord, record: bytes, now_ms: int) -> list[Output]:
        """Take the answer to a `ReadRecord`: the raw record."""
        return [*self._participant.read(read, record, now_ms), *self._participant.settle(now_ms)]

    def leaves(self, read: ReadLeaves, leaves: tuple[tuple[bytes, Outcome], ...], root: bytes) -> list[Output]:
        """Take the answer to a `ReadLeaves`: the leaves, and the root over all before `read.end`."""
        return [*self._decisions.leaves(read, leaves, root)]

    def grown(self, read: ReadGrowth, hashes: tuple[bytes, ...]) -> list[Output]:
        """Take the answer to a `ReadGrowth`."""
        return [*self._quorum.grown(read.old_size, read.new_size, hashes)]

    def propose(self, contract: bytes, now_ms: int) -> list[Output]:
        """Offer a round to all who take part in it, ourselves included.

        Raises:
            RemoteProtocolError: it isn't sound.
        """
        deal, _ = round_of(contract)
        offers: list[Output] = [Tell(one, Offer(contract)) for one in deal.ledgers if one != self._work.ledger]
        is_ours = self._work.ledger in deal.ledgers
        return [*offers, *(self._participant.offered(contract, now_ms) if is_ours else ())]

    def call(self, raw: bytes, now_ms: int) -> list[Output]:
        """Call ledgers, ourselves perhaps among them, to a round of clearing: `raw` is the statement of the call.

        Raises:
            RemoteProtocolError: it isn't sound, or we decide it and may not.
        """
        board = decode_call(raw).terms.decision.ledger
        return self._to_ourselves([Tell(board, CallShown(raw))], now_ms)

    def solved(self, call: bytes, solution: Solution, now_ms: int) -> list[Output]:
        """Take the answer to a `Solve`; one that is wrong is dropped."""
        try:
            return self._to_ourselves([*self._caller.found(call, solution, now_ms)], now_ms)
        except RemoteProtocolError:
            return []

    def _to_ourselves(self, outputs: list[Output], now_ms: int) -> list[Output]:
        """Take what is meant for ourselves, when we keep the board of a round that we are called to."""
        rest: list[Output] = []
        for output in outputs:
            if isinstance(output, Tell) and output.ledger == self._work.ledger:
                with contextlib.suppress(RemoteProtocolError):  # we stay out of a round that we may not take part in
                    rest += self._to_ourselves(
                        [*self._take_of_netting(self._work.ledger, output.message, now_ms)], now_ms
                    )
            else:
                rest.append(output)
        return rest

    def cosigned_target(self) -> SignedNote | None:
        """Return the checkpoint of our own log that is being cosigned, with the cosignatures that were found good."""
        target = self._quorum.target
        return None if target is None else SignedNote.parse(self._quorum.checkpoint(self._quorum.cosigners))

    @property
    def routes(self) -> dict[bytes, Routes]:
        """Ledger -> what it lets know for those who look for a path."""
        return self._router.known

    @property
    def decisions(self) -> DecisionTree:
        """Our decision log, as far as it is durable."""
        return self._decisions.tree

    def cosigned_decisions(self) -> SignedNote | None:
        """Return the checkpoint of our decision log that is being cosigned, with the cosignatures so far."""
        target = self._decisions.target
        return None if target is None else SignedNote.parse(self._decisions.checkpoint(self._decisions.cosigners))

    def refusal(self, tid: bytes) -> Refused | None:
        """Return why a transfer of ours can't go through, as far as we were told since we started."""
        return self._participant.refusals.get(tid)

    # --- each message -----------------------------------------------------------------------------------------------

    def _take(self, sender: bytes, message: Message, now_ms: int) -> Iterator[Output]:
        if isinstance(message, PartnerMessage):  # not about a deal: the host has other ears for these
            return
        match message:
            case Prepare():
                yield from self._participant.prepared(sender, message, now_ms)
            case Ask(tid):
                yield from self._decider.asked(sender, tid, now_ms)
            case Promised(tid):
                self._participant.told_promised(sender, tid)
            case Unheard(tid):
                yield from self._participant.told_unheard(sender, tid, now_ms)
            case DecisionShown():
                self._participant.shown(message)
            case Refused():
                yield from self._participant.told_refused(sender, message, now_ms)
            case Offer(contract):
                if round_of(contract)[1].call is None:  # those of a call follow from it, and are not offered
                    yield from self._participant.offered(contract, now_ms)
            case Accepted(contract, promises):
                yield from self._decider.accepted(sender, contract, promises, now_ms)
            case AbortAsked(contract):
                yield from self._decider.abort_asked(sender, contract, now_ms)
            case _:
                yield from self._take_other(sender, message, now_ms)

    def _take_other(self, sender: bytes, message: Message, now_ms: int) -> Iterator[Output]:
        match message:
            case Push():
                yield from self._desk.push(sender, message, now_ms)
            case PushDecisions():
                yield from self._decision_desk.push(sender, message, now_ms)
            case AskHead(origin):
                desk = self._decision_desk if origin.endswith(DECISIONS_SUFFIX) else self._desk
                yield Tell(sender, desk.head(origin))
            case RoutesShown():
                yield from self._router.shown(sender, message, now_ms)
            case Cosigned() | Stale() | Head():
                yield from self._take_of_log(sender, message, now_ms)
            case _:
                yield from self._to_ourselves([*self._take_of_netting(sender, message, now_ms)], now_ms)

    def _take_of_netting(self, sender: bytes, message: Message, now_ms: int) -> Iterator[Output]:
        match message:
            case CallShown(call):
                if decode_call(call).terms.decision.ledger == self._work.ledger:
                    yield from self._boards.open(sender, call, now_ms)
                yield from self._caller.called(sender, call, now_ms)
            case Committed():
                yield from self._boards.committed(sender, message, now_ms)
            case AskBoard(call):
                yield from self._boards.asked(sender, call, now_ms)
            case AskReveal():
                yield from self._boards.asked_reveal(sender, message)
            case AskBest(call):
                yield from self._boards.asked_best(sender, call)
            case Board():
                yield from self._caller.shown(sender, message, now_ms)
            case Revealed():
                yield from self._boards.revealed(sender, message, now_ms)
                yield from self._caller.revealed(sender, message, now_ms)
            case Solved():
                yield from self._boards.solved(sender, message, now_ms)
                yield from self._caller.best(sender, message)
                yield from self._accept_expected(now_ms)
            case _:
                pass

    def _accept_expected(self, now_ms: int) -> Iterator[Output]:
        """Take part in the deals that follow from a round that we checked."""
        for raw in self._caller.take_expected():
            if self._work.ledger in round_of(raw)[0].ledgers:
                yield from self._participant.offered(raw, now_ms)

    def _take_of_log(self, sender: bytes, message: Cosigned | Stale | Head, now_ms: int) -> Iterator[Output]:
        """Take what is said of our own logs."""
        if message.origin not in (self._origin, self._decisions.origin):
            return
        quorum = self._quorum if message.origin == self._origin else self._decisions
        match message:
            case Cosigned():
                witnesses = self._decider.witnesses()
                require_fresh(message.lines, (one.verifier for one in witnesses), now_ms // 1000)
                quorum.cosigned(sender, message, witnesses)
                if quorum is self._decisions:
                    yield from self._decisions.cosigned_part(sender, message)
                    yield from self._decider.show_all(now_ms)
            case Stale(_, size):
                yield from quorum.stale(sender, size, now_ms)
            case Head(_, checkpoint):
                if checkpoint is not None:
                    yield from quorum.judge_head(checkpoint, self._work.own_log)

    def _push_head(self, now_ms: int) -> Iterator[Output]:
        """Show the newest checkpoint to every partner, once they have all cosigned the last one or had the time."""
        federation = self._state.federation
        linked = {one for one in federation.peers if federation.linked_peer(one) is not None}
        self._pushed_at_ms = now_ms
        if self._quorum.are_all_done(linked) or now_ms - self._aimed_at_ms >= AIM_AGAIN * self._head_push_ms:
            self._quorum.aim(now_ms)
            self._aimed_at_ms = now_ms
        yield from self._quorum.push(linked)
