# SPDX-License-Identifier: AGPL-3.0-or-later
"""The two ends of witnessing a decision log: cosigning partners' logs, and collecting cosignatures for our own.

A witness is given the leaves, not a proof: it computes the root itself, keeps every leaf before it answers, and refuses
a second leaf for a tid. So whoever has its quorum has shown its witnesses everything that counts.

`DecisionQuorum` follows one checkpoint at a time, as `witnessing.Quorum` does.
"""

from collections.abc import Iterator
from typing import NamedTuple

from ecot_protocol.domains.federation.decision_log import OUTCOMES, DecisionTree, Outcome, grown_frontier
from ecot_protocol.domains.federation.messages import (
    MAX_PUSHED_LEAVES,
    AskHead,
    Cosigned,
    Head,
    Problem,
    PushDecisions,
    PushedLeaf,
    Stale,
)
from ecot_protocol.domains.federation.outputs import Ahead, KeepFork, KeepLeaves, Output, ReadLeaves, Tell
from ecot_protocol.domains.federation.proofs import LeafProof
from ecot_protocol.domains.federation.state import FederationState
from ecot_protocol.domains.federation.statements import DECISIONS_SUFFIX, LogKey, Witness
from ecot_protocol.domains.federation.witnessing import CosignedTarget, logs_of
from ecot_protocol.wire.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from ecot_protocol.wire.cosignature import Cosigner
from ecot_protocol.wire.merkle_group import Frontier
from ecot_protocol.wire.note import NoteSigner, SignedNote, format_signatures


class KeptDecisions(NamedTuple):
    """What a witness keeps of a decision log beside its leaves: its frontier, and the checkpoint cosigned last."""

    frontier: Frontier
    checkpoint: bytes


class DecisionDesk:
    """Cosign partners' decision logs.

    Args:
        state: of our own ledger; its peerings name the keys.
        cosigner: our cosigner key.
        kept: origin -> what the host kept (`KeepLeaves`).
    """

    def __init__(self, state: FederationState, cosigner: Cosigner, kept: dict[str, KeptDecisions]) -> None:
        self._state = state
        self._cosigner = cosigner
        self._kept = dict(kept)

    def push(self, sender: bytes, message: PushDecisions, now_ms: int) -> Iterator[Output]:
        """Answer decisions that somebody wants cosigned.

        Raises:
            RemoteProtocolError: the checkpoint is not signed by a log that we know.
        """
        note = SignedNote.parse(message.checkpoint)
        origin = Checkpoint.parse(note.text).origin
        keys = [log.decisions for log in logs_of(self._state, origin.removesuffix(DECISIONS_SUFFIX))]
        if not origin.endswith(DECISIONS_SUFFIX) or not keys:
            yield Tell(sender, Problem("origin_unknown", None))
            return
        shown = open_checkpoint(note, keys).checkpoint
        kept = self._kept.get(origin)
        if kept is not None and shown.size == kept.frontier.size and shown.root_hash != kept.frontier.root():
            yield KeepFork(origin, kept.checkpoint, note.format())
            yield Tell(sender, Problem("root_wrong", None))
        elif kept is not None and message.start != kept.frontier.size:
            yield Tell(sender, Stale(origin, kept.frontier.size))
        else:
            yield from self._extend(sender, message, shown, now_ms)

    def _extend(self, sender: bytes, message: PushDecisions, shown: Checkpoint, now_ms: int) -> Iterator[Output]:
        note, origin = SignedNote.parse(message.checkpoint), shown.origin
        kept = self._kept.get(origin)
        if kept is None and len(message.before) != message.start.bit_count():
            yield Tell(sender, Stale(origin, 0))
            return
        leaves = [(leaf.tid, OUTCOMES[leaf.outcome]) for leaf in message.leaves]
        if len({tid for tid, _ in leaves}) != len(leaves):
            yield Tell(sender, Problem("decision_repeated", None))
            return
        known = kept.frontier if kept is not None else Frontier(message.start, message.before)
        grown = grown_frontier(known, leaves)
        if (grown.size, grown.root()) != (shown.size, shown.root_hash):
            yield Tell(sender, Problem("root_wrong", None))
            return
        bare = SignedNote(note.text, note.signatures[:16]).format()
        if kept is None or leaves:
            self._kept[origin] = KeptDecisions(grown, bare)
            yield KeepLeaves(origin, known, tuple(leaves), grown, bare)
        line = self._cosigner.cosign(note.text, max(now_ms // 1000, 1))
        yield Tell(sender, Cosigned(origin, shown.size, format_signatures((line,))))

    def head(self, origin: str) -> Head:
        """Answer what we cosigned last."""
        kept = self._kept.get(origin)
        return Head(origin, None if kept is None else kept.checkpoint)


class DecisionQuorum(CosignedTarget):
    """Collect cosignatures for our own decision log's checkpoints.

    Args:
        state: of the ledger.
        own: who we are as a witness.
        cosigner: our cosigner key.
        signer: the log's key, named like the decision log.
    """

    def __init__(self, state: FederationState, own: Witness, cosigner: Cosigner, signer: NoteSigner) -> None:
        super().__init__(own, cosigner)
        self._state = state
        self._signer = signer
        self._reads: dict[ReadLeaves, set[bytes]] = {}
        self.origin = signer.verifier.name
        self.tree = DecisionTree(state.federation.retired_decisions())

    def follow(self, durable_size: int) -> None:
        """Take in the decisions that are durable."""
        new: list[tuple[bytes, Outcome]] = []
        decisions = self._state.federation.decisions
        for tid in reversed(decisions):
            decided = decisions[tid]
            if decided.number < self.tree.size:
                break
            if decided.index < durable_size:
                new.append((tid, decided.outcome))
        for tid, outcome in reversed(new):
            self.tree.append(tid, outcome)

    def aim(self, now_ms: int) -> None:
        """Make the newest checkpoint the target."""
        if self.target is None or self.target_size != self.tree.size:
            self._aim_at(self._sign(self.tree.size), self.tree.size, now_ms)

    def _sign(self, size: int) -> SignedNote:
        return sign_checkpoint(Checkpoint(self.origin, size, self.tree.root(size)), self._signer)

    def prove(self, tid: bytes) -> LeafProof:
        """Return the proof of a decision against the target, which holds it."""
        decided = self._state.federation.decisions[tid]
        hashes = self.tree.inclusion(decided.number, self.target_size)
        return LeafProof(hashes=hashes, number=decided.number, outcome=decided.outcome, tid=tid)

    def push(self, ledgers: set[bytes]) -> Iterator[Output]:
        """Show the target to witnesses that have not cosigned it."""
        for ledger in self._silent(ledgers):
            yield from self._push_from(ledger, self._known_sizes.get(ledger, 0))

    def _push_from(self, ledger: bytes, start: int) -> Iterator[Output]:
        if start == 0 and self.tree.start > 0:  # it has seen nothing: what nobody can ask for any more is left out
            start = self.tree.start
        if start < self.tree.start:
            read = ReadLeaves(start, min(self.tree.start, start + MAX_PUSHED_LEAVES))
            self._reads.setdefault(read, set()).add(ledger)
            yield read
        elif start <= self.target_size:
            end = min(self.target_size, start + MAX_PUSHED_LEAVES)
            yield self._request(ledger, start, tuple(self.tree.slice(start, end)))

    def leaves(self, read: ReadLeaves, leaves: tuple[tuple[bytes, Outcome], ...], root: bytes) -> Iterator[Output]:
        """Take leaves that are no longer remembered, and the root over all up to them."""
        note = sign_checkpoint(Checkpoint(self.origin, read.end, root), self._signer)
        pushed = tuple(PushedLeaf(tid, OUTCOMES.index(outcome)) for tid, outcome in leaves)
        for ledger in sorted(self._reads.pop(read, ())):
            yield Tell(ledger, PushDecisions(read.start, (), pushed, note.format()))

    def _request(self, ledger: bytes, start: int, leaves: tuple[tuple[bytes, Outcome], ...]) -> Tell:
        end = start + len(leaves)
        assert self.target is not None
        note = self.target if end == self.target_size else self._sign(end)
        before = self.tree.frontier(start).hashes if start == self.tree.start else ()
        pushed = tuple(PushedLeaf(tid, OUTCOMES.index(outcome)) for tid, outcome in leaves)
        return Tell(ledger, PushDecisions(start, before, pushed, note.format()))

    def stale(self, sender: bytes, size: int, now_ms: int) -> Iterator[Output]:
        """Learn how much a witness has seen; go on from there."""
        if size > self.tree.size:
            yield Tell(sender, AskHead(self.origin))
            return
        self._known_sizes[sender] = size
        if self.target is None or size > self.target_size:
            self.aim(now_ms)
        yield from self._push_from(sender, size)

    def cosigned_part(self, sender: bytes, message: Cosigned) -> Iterator[Output]:
        """Go on with a witness that has cosigned a part of the target."""
        if self.target is not None and message.size < self.target_size:
            yield from self._push_from(sender, message.size)

    def judge_head(self, note: bytes, log: LogKey) -> Iterator[Output]:
        """Compare what a witness holds of our decision log with our log.

        Raises:
            RemoteProtocolError: we did not sign it.
        """
        shown = open_checkpoint(note, (log.decisions,)).checkpoint
        is_known = self.tree.start <= shown.size <= self.tree.size
        if shown.size > self.tree.size or (is_known and self.tree.root(shown.size) != shown.root_hash):
            yield Ahead(note)
