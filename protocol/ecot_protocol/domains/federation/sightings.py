# SPDX-License-Identifier: AGPL-3.0-or-later
"""Find a log that shows one history to one partner and another to the next.

Every node tells its partners, now and then, the newest checkpoint that it knows of each third log (`Seen`). Whoever
receives one of a log that it knows compares it with its own:

    same size, same root         ->  they agree
    same size, another root      ->  a fork, proven
    another size                 ->  the log's own node is asked for the growth from the smaller to the larger
      the growth leads from the smaller one   ->  they agree
      it leads to the larger one, but from another root at the smaller size   ->  a fork, proven (see `wire.fork`)
      no answer, or one that proves nothing   ->  an open question: no proof, but for the boards to look into

A log that has two heads can answer the second question with a proof against itself, or not answer it. In both cases it
is found out: nobody can bring an open question about an honest log but by keeping its node from answering.

Decision logs are compared like the others. Of those a witness keeps the leaves, so it needs no answer: whoever has seen
more of one computes by itself what its root was at the other's size, and has the proof.

Rules:

- A sighting counts by the signature of its log, under the key that our own peering with that log's cooperative names;
  never by who brought it. So nobody can accuse another; at worst an old checkpoint makes us ask once more.
- A proven fork is kept, and told to all partners; they check it for themselves.
- What one partner can make us remember is bounded: its newest sighting, and one open question, of each log we know.

Pure, as the courier: what happened goes in, `Output`s come out, the host carries them out in order.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Final, Literal

import msgspec

from ecot_protocol.domains.federation.sighting_messages import (
    MAX_SIGHTINGS,
    AskGrowth,
    ForkShown,
    Growth,
    Seen,
    Sighting,
)
from ecot_protocol.domains.federation.state import FederationState
from ecot_protocol.domains.federation.statements import DECISIONS_SUFFIX, LogKey
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.wire.checkpoint import Checkpoint, open_checkpoint
from ecot_protocol.wire.encoding import Codec, Count, Hash, WireArray
from ecot_protocol.wire.fork import ForkProof, fork_id, own_signature_only, prove_fork, verify_fork
from ecot_protocol.wire.merkle_hash import verify_consistency
from ecot_protocol.wire.note import SignedNote
from ecot_protocol.wire.note_key import NoteVerifier

SEEN_EVERY_MS: Final = 30_000
"""How often a partner is told what has changed."""
REPEAT_MS: Final = 300_000
"""How often it is told again what has not: a message may have been lost."""
ASK_FIRST_MS: Final = 2_000
ASK_MAX_MS: Final = 60_000
"""A question is asked again after the first, doubled up to the second."""
UNPROVEN_AFTER_MS: Final = 60_000
"""From then on a question without an answer is shown as an incident."""
MAX_AGREED: Final = 64
MAX_FORKS: Final = 8
"""Proofs kept of one log; one says all there is to say."""
MAX_RELAYED: Final = 2
"""Sightings of others that are passed on of a log that we don't witness ourselves."""
_UNKNOWN: Final = frozenset(("note_unsigned", "checkpoint_unsigned"))

LogStatus = Literal["agrees", "forked", "unproven"]


@dataclass(frozen=True, slots=True)
class KnownLog:
    """A log whose key we know.

    Attributes:
        origin: its name.
        key: that signs its checkpoints.
        ledger: of the partner that it is the log of, 32 bytes; None: a decider that is no partner of ours.
        is_decisions: it is a decision log.
    """

    origin: str
    key: NoteVerifier
    ledger: bytes | None
    is_decisions: bool = False


@dataclass(frozen=True, slots=True)
class Head:
    """A checkpoint that its log has signed; `note` bears no other signature."""

    size: int
    root: bytes
    note: bytes


class OpenQuestion(WireArray):
    """Two checkpoints of a log of which nobody has shown yet how the second grew from the first.

    Attributes:
        origin: of the log.
        source: ledger that brought one of them.
        first, second: signed, the smaller first.
        since_ms: when we asked first.
        is_refused: the log's node answered, and its answer proves nothing.
    """

    origin: str
    source: Hash
    first: bytes
    second: bytes
    since_ms: Count
    is_refused: bool


class OpenQuestions(WireArray):
    """What the host keeps over a restart."""

    items: Annotated[tuple[OpenQuestion, ...], msgspec.Meta(max_length=4_096)]


OPEN_QUESTIONS: Final = Codec(OpenQuestions)


@dataclass(frozen=True, slots=True)
class WatchedLog:
    """What is known of a log's honesty.

    Attributes:
        log: which.
        status: `unproven`: see `open`.
        size: of the newest checkpoint that we cosigned, or that others told; 0: none.
        sources: ledgers that told of it.
        forks: ids of the proofs.
        open: questions that have waited for `UNPROVEN_AFTER_MS`.
    """

    log: KnownLog
    status: LogStatus
    size: int
    sources: tuple[bytes, ...]
    forks: tuple[str, ...]
    open: tuple[OpenQuestion, ...]


@dataclass(frozen=True, slots=True)
class TellSighting:
    """Send a message to the node of a ledger; it may be lost."""

    ledger: bytes
    message: Sighting


@dataclass(frozen=True, slots=True)
class KeepForkProof:
    """Keep a proof for good, tell the operator and the members."""

    log: KnownLog
    proof: bytes


@dataclass(frozen=True, slots=True)
class AnswerGrowth:
    """Compute the root of our own log (or decision log) at the old size and the growth from there; send `Growth`."""

    ledger: bytes
    origin: str
    old_size: int
    new_size: int


@dataclass(frozen=True, slots=True)
class LookInKept:
    """Compute the same of a partner's decision log from the leaves that we keep of it: `Watch.looked`."""

    origin: str
    old_size: int
    new_size: int


@dataclass(frozen=True, slots=True)
class OwnLogShown:
    """Compare a checkpoint that our own log key has signed with our own log."""

    ledger: bytes
    checkpoint: bytes


WatchOutput = TellSighting | KeepForkProof | AnswerGrowth | LookInKept | OwnLogShown


def known_logs(state: FederationState) -> dict[str, KnownLog]:
    """Return the logs whose keys our ledger has recorded: of partners, and of deciders that peerings name.

    A partner's key is what the peering with that partner says, and nobody else's word. Of a decider that is no partner,
    all peerings that name it must name one key: else one partner could accuse another under a key of its own.
    """
    peers = state.federation.peers
    logs: dict[str, KnownLog] = {}
    for ledger, peer in peers.items():
        side = peer.peering.side_of(ledger)
        logs |= {one.origin: one for one in _both_logs(LogKey(origin=side.origin, public_key=side.log), ledger)}
    named: dict[str, set[LogKey]] = {}
    for peer in peers.values():
        for policy in peer.peering.deciders:
            named.setdefault(policy.log.origin, set()).add(policy.log)
    for origin, keys in named.items():
        if origin not in logs and origin != state.coop.founded.origin and len(keys) == 1:
            logs |= {one.origin: one for one in _both_logs(next(iter(keys)), None)}
    return logs


def _both_logs(key: LogKey, ledger: bytes | None) -> tuple[KnownLog, KnownLog]:
    log, decisions = key.verifier, key.decisions
    return KnownLog(log.name, log, ledger), KnownLog(decisions.name, decisions, ledger, is_decisions=True)


class _Pending(msgspec.Struct):
    """A question on its way."""

    first: Head
    second: Head
    since_ms: int
    is_refused: bool = False
    next_ms: int = 0
    wait_ms: int = ASK_FIRST_MS


class Watch:
    """Compare what partners see of the logs that we know.

    Args:
        state: returns our ledger's state as it is now; it is rebuilt now and then.
        forks: proofs that are kept already.
        questions: what was open when the host stopped.
    """

    def __init__(
        self,
        state: Callable[[], FederationState],
        forks: Iterable[bytes] = (),
        questions: OpenQuestions | None = None,
    ) -> None:
        self._state = state
        self._own: dict[str, Head] = {}
        self._seen: dict[str, dict[bytes, Head]] = {}
        self._agreed: dict[str, dict[tuple[int, bytes], None]] = {}
        self._pending: dict[tuple[str, bytes], _Pending] = {}
        self._forks: dict[str, dict[str, bytes]] = {}
        self._told: dict[bytes, dict[tuple[str, int, bytes], int]] = {}
        self._told_at_ms: dict[bytes, int] = {}
        for raw in forks:
            self._remember_fork(ForkProof.parse(raw).log_key.name, raw)
        for one in questions.items if questions is not None else ():
            self._resume(one)

    # --- what happened ----------------------------------------------------------------------------------------------

    def receive(self, sender: bytes, message: Sighting, now_ms: int) -> list[WatchOutput]:
        """Take a message of a partner's node.

        Args:
            sender: ledger id, as the transport proved it.
            message: decoded.
            now_ms: milliseconds since 1970.

        Raises:
            RemoteProtocolError: a signature or a proof is false; nothing of the message counts.
        """
        match message:
            case Seen():
                return [*self._take_seen(sender, message, now_ms)]
            case AskGrowth(origin, old_size, new_size):
                is_ours = origin in self._own_origins()
                return (
                    [AnswerGrowth(sender, origin, old_size, new_size)] if is_ours and 0 < old_size <= new_size else []
                )
            case Growth():
                return [*self._take_growth(sender, message)]
            case ForkShown(proof):
                return [*self._take_fork(sender, proof)]

    def witnessed(self, origin: str, note: bytes, now_ms: int) -> list[WatchOutput]:
        """Learn which checkpoint of a partner's log we cosigned last: it extends all that we cosigned before."""
        log = known_logs(self._state()).get(origin)
        if log is None:
            return []
        try:
            head = self._open(log, note)
        except RemoteProtocolError:  # cosigned under a key that was replaced since
            return []
        known = self._own.get(origin)
        if head is None or (known is not None and (known.size, known.root) == (head.size, head.root)):
            return []
        if known is None:
            self._agreed.pop(origin, None)  # they agreed with each other, not with us
        self._own[origin] = head
        outputs: list[WatchOutput] = []
        for source, seen in [*self._seen.get(origin, {}).items()]:
            outputs += self._compare(log, source, seen, now_ms)
        return outputs

    def looked(self, look: LookInKept, root: bytes | None, hashes: tuple[bytes, ...]) -> list[WatchOutput]:
        """Take the answer to a `LookInKept`; no `root`: not all leaves are kept, and the log's node is asked."""
        log = known_logs(self._state()).get(look.origin)
        if log is None or log.ledger is None:
            return []
        if root is None:
            return [TellSighting(log.ledger, AskGrowth(look.origin, look.old_size, look.new_size))]
        return [*self._take_growth(log.ledger, Growth(look.origin, look.old_size, look.new_size, root, hashes))]

    def _own_origins(self) -> tuple[str, str]:
        origin = self._state().coop.founded.origin
        return origin, origin + DECISIONS_SUFFIX

    def forked(self, raw: bytes) -> list[WatchOutput]:
        """Take a proof that the host found by itself.

        Raises:
            RemoteProtocolError: it proves nothing.
        """
        return [*self._take_fork(b"", raw)]

    def met(self, ledger: bytes) -> None:
        """Learn that a partner can be reached again: it is told everything anew."""
        self._told.pop(ledger, None)
        self._told_at_ms.pop(ledger, None)

    def tick(self, now_ms: int) -> list[WatchOutput]:
        """Ask and tell what is due; to be called about once a second."""
        logs = known_logs(self._state())
        self._forget(logs)
        outputs: list[WatchOutput] = [*self._ask(logs, now_ms)]
        for ledger in self._state().federation.peers:
            if now_ms - self._told_at_ms.get(ledger, now_ms - SEEN_EVERY_MS) >= SEEN_EVERY_MS:
                self._told_at_ms[ledger] = now_ms
                outputs += self._tell(logs, ledger, now_ms)
        return outputs

    # --- what is known ----------------------------------------------------------------------------------------------

    def logs(self, now_ms: int) -> tuple[WatchedLog, ...]:
        """Return what is known of each log, by origin."""
        logs = known_logs(self._state())
        return tuple(self._watched(logs[origin], now_ms) for origin in sorted(logs))

    def _watched(self, log: KnownLog, now_ms: int) -> WatchedLog:
        forks = tuple(self._forks.get(log.origin, ()))
        waiting = tuple(
            self._question(origin, source, one)
            for (origin, source), one in self._pending.items()
            if origin == log.origin and (one.is_refused or now_ms - one.since_ms >= UNPROVEN_AFTER_MS)
        )
        seen = self._seen.get(log.origin, {})
        newest = max((head.size for head in self._heads(log.origin)), default=0)
        status: LogStatus = "forked" if forks else "unproven" if waiting else "agrees"
        return WatchedLog(log, status, newest, tuple(sorted(seen)), forks, waiting)

    def open_questions(self) -> OpenQuestions:
        """Return what is not answered, for the host to keep."""
        items = (self._question(origin, source, one) for (origin, source), one in self._pending.items())
        return OpenQuestions(tuple(items))

    def _question(self, origin: str, source: bytes, one: _Pending) -> OpenQuestion:
        return OpenQuestion(origin, source, one.first.note, one.second.note, one.since_ms, one.is_refused)

    def _resume(self, one: OpenQuestion) -> None:
        heads = []
        for note in (one.first, one.second):
            said = Checkpoint.parse(SignedNote.parse(note).text)
            heads.append(Head(said.size, said.root_hash, note))
        self._pending[one.origin, one.source] = _Pending(heads[0], heads[1], one.since_ms, one.is_refused)

    def _heads(self, origin: str) -> Iterator[Head]:
        if origin in self._own:
            yield self._own[origin]
        yield from self._seen.get(origin, {}).values()

    def _forget(self, logs: dict[str, KnownLog]) -> None:
        """Let go of partners and logs that our ledger no longer knows; proofs stay."""
        peers = self._state().federation.peers
        for memory in (self._own, self._seen, self._agreed):
            for origin in memory.keys() - logs.keys():
                del memory[origin]
        for origin, source in [*self._pending]:
            if origin not in logs or source not in peers:
                del self._pending[origin, source]
        for ledger in self._told.keys() - set(peers):
            self.met(ledger)

    # --- sightings --------------------------------------------------------------------------------------------------

    def _open(self, log: KnownLog, raw: bytes) -> Head | None:
        """Open a checkpoint of this log; None if a key that we don't know has signed it, or it shows nothing."""
        note = SignedNote.parse(raw)
        try:
            opened = open_checkpoint(note, (log.key,))
        except RemoteProtocolError as error:
            if error.code in _UNKNOWN:
                return None
            raise
        head = opened.checkpoint
        return Head(head.size, head.root_hash, own_signature_only(note, log.key)) if head.size else None

    def _take_seen(self, sender: bytes, message: Seen, now_ms: int) -> Iterator[WatchOutput]:
        state = self._state()
        logs, own = known_logs(state), self._own_origins()
        found: list[tuple[KnownLog, Head]] = []
        for raw in message.checkpoints:
            origin = Checkpoint.parse(SignedNote.parse(raw).text).origin
            log = logs.get(origin)
            if origin in own:
                yield OwnLogShown(sender, raw)
            elif log is not None and log.ledger != sender:  # of its own log a partner tells by asking for cosignatures
                head = self._open(log, raw)
                found += [(log, head)] if head is not None else []
        for log, head in found:
            seen = self._seen.setdefault(log.origin, {})
            if sender not in seen or seen[sender].size <= head.size:
                seen[sender] = head
            yield from self._compare(log, sender, head, now_ms)

    def _compare(self, log: KnownLog, source: bytes, head: Head, now_ms: int) -> Iterator[WatchOutput]:
        """Compare a sighting with all others of its size, and ask how it and ours belong together."""
        for other in [*self._heads(log.origin)]:
            if other.size == head.size and other.root != head.root:
                yield from self._prove(log, other, head, head.root)
                return
        reference = self._reference(log, source)
        if reference is None or reference.size == head.size:
            self._agree(log.origin, head)
        elif (head.size, head.root) not in self._agreed.get(log.origin, {}) and log.ledger is not None:
            self._pending.setdefault((log.origin, source), _pair(reference, head, now_ms))
            yield from self._ask({log.origin: log}, now_ms)

    def _reference(self, log: KnownLog, source: bytes) -> Head | None:
        """Return what a sighting is compared with: what we cosigned, else what another has told."""
        if log.origin in self._own:
            return self._own[log.origin]
        others = (head for one, head in self._seen.get(log.origin, {}).items() if one != source)
        return next(others, None)

    def _agree(self, origin: str, head: Head) -> None:
        agreed = self._agreed.setdefault(origin, {})
        agreed[head.size, head.root] = None
        if len(agreed) > MAX_AGREED:
            del agreed[next(iter(agreed))]

    # --- questions --------------------------------------------------------------------------------------------------

    def _ask(self, logs: dict[str, KnownLog], now_ms: int) -> Iterator[WatchOutput]:
        for (origin, _), one in self._pending.items():
            log = logs.get(origin)
            if log is not None and log.ledger is not None and now_ms >= one.next_ms:
                one.next_ms = now_ms + one.wait_ms
                one.wait_ms = min(2 * one.wait_ms, ASK_MAX_MS)
                own = self._own.get(origin)
                if log.is_decisions and own is not None and own.size >= one.second.size:
                    yield LookInKept(origin, one.first.size, one.second.size)
                else:
                    yield TellSighting(log.ledger, AskGrowth(origin, one.first.size, one.second.size))

    def _take_growth(self, sender: bytes, message: Growth) -> Iterator[WatchOutput]:
        log = known_logs(self._state()).get(message.origin)
        if log is None or log.ledger != sender:
            return
        for (origin, source), one in [*self._pending.items()]:
            sizes = (one.first.size, one.second.size)
            if origin == log.origin and sizes == (message.old_size, message.new_size):
                yield from self._answered(log, source, one, message)

    def _answered(self, log: KnownLog, source: bytes, one: _Pending, answer: Growth) -> Iterator[WatchOutput]:
        first, second = one.first, one.second
        is_sound = answer.root is not None and verify_consistency(
            first.size, answer.root, second.size, second.root, answer.hashes
        )
        if answer.root is None or not is_sound:
            one.is_refused = True
        elif answer.root == first.root:
            del self._pending[log.origin, source]
            for head in (first, second):
                self._agree(log.origin, head)
        else:
            yield from self._prove(log, first, second, answer.root, answer.hashes)

    # --- forks ------------------------------------------------------------------------------------------------------

    def _prove(
        self, log: KnownLog, first: Head, second: Head, root: bytes, hashes: tuple[bytes, ...] = ()
    ) -> Iterator[WatchOutput]:
        notes = SignedNote.parse(first.note), SignedNote.parse(second.note)
        yield from self._found(log, prove_fork(*notes, log.key, root, hashes).format(), b"")

    def _take_fork(self, sender: bytes, raw: bytes) -> Iterator[WatchOutput]:
        proof, state = ForkProof.parse(raw), self._state()
        origin = proof.log_key.name
        if origin in self._own_origins():
            yield from (OwnLogShown(sender, note) for note in (proof.first, proof.second))
            return
        log = known_logs(state).get(origin)
        if log is not None:
            verify_fork(proof, (log.key,))
            yield from self._found(log, raw, sender)

    def _found(self, log: KnownLog, raw: bytes, sender: bytes) -> Iterator[WatchOutput]:
        for origin, source in [*self._pending]:
            if origin == log.origin:
                del self._pending[origin, source]
        if not self._remember_fork(log.origin, raw):
            return
        yield KeepForkProof(log, raw)
        for ledger in self._state().federation.peers:
            if ledger != sender:
                yield TellSighting(ledger, ForkShown(raw))

    def _remember_fork(self, origin: str, raw: bytes) -> bool:
        """Keep a proof; False if it is known, or says nothing new."""
        known = self._forks.setdefault(origin, {})
        if len(known) >= MAX_FORKS or fork_id(raw) in known:
            return False
        known[fork_id(raw)] = raw
        return True

    # --- telling ----------------------------------------------------------------------------------------------------

    def _tell(self, logs: dict[str, KnownLog], ledger: bytes, now_ms: int) -> Iterator[TellSighting]:
        told = self._told.setdefault(ledger, {})
        due = []
        current: set[tuple[str, int, bytes]] = set()
        for origin in sorted(logs):
            if logs[origin].ledger == ledger:
                continue
            for head in self._shown_of(origin, ledger):
                key = (origin, head.size, head.root)
                current.add(key)
                if now_ms - told.get(key, now_ms - REPEAT_MS) >= REPEAT_MS:
                    due.append((key, head))
        for key in told.keys() - current - {(origin, 0, b"") for origin in self._forks}:
            del told[key]
        for key, _ in due[:MAX_SIGHTINGS]:
            told[key] = now_ms
        if due:
            yield TellSighting(ledger, Seen(tuple(head.note for _, head in due[:MAX_SIGHTINGS])))
        yield from self._tell_forks(logs, ledger, now_ms)

    def _tell_forks(self, logs: dict[str, KnownLog], ledger: bytes, now_ms: int) -> Iterator[TellSighting]:
        """Tell one proof of each log that forked, its own cooperative included: its key may have been stolen."""
        told = self._told[ledger]
        for origin, proofs in self._forks.items():
            key = (origin, 0, b"")
            if origin in logs and proofs and now_ms - told.get(key, now_ms - REPEAT_MS) >= REPEAT_MS:
                told[key] = now_ms
                yield TellSighting(ledger, ForkShown(next(iter(proofs.values()))))

    def _shown_of(self, origin: str, ledger: bytes) -> list[Head]:
        """Return what a partner is told of a log: what we cosigned, else what others have told us."""
        if origin in self._own:
            return [self._own[origin]]
        seen = {(head.size, head.root): head for one, head in self._seen.get(origin, {}).items() if one != ledger}
        return sorted(seen.values(), key=lambda head: -head.size)[:MAX_RELAYED]


def _pair(one: Head, other: Head, now_ms: int) -> _Pending:
    first, second = sorted((one, other), key=lambda head: head.size)
    return _Pending(first, second, now_ms)


__all__ = [
    "OPEN_QUESTIONS", "AnswerGrowth", "Head", "KeepForkProof", "KnownLog", "LogStatus", "LookInKept", "OpenQuestion",
    "OpenQuestions", "OwnLogShown", "TellSighting", "Watch", "WatchOutput", "WatchedLog", "known_logs",
]  # fmt: skip
