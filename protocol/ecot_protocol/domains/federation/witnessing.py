# SPDX-License-Identifier: AGPL-3.0-or-later
"""The two ends of witnessing: cosigning the partners' logs, and collecting cosignatures for our own.

`WitnessDesk` decides by `ecot_protocol.wire.witness`: it cosigns only what extends the last checkpoint that it
cosigned, and says so only after that checkpoint is kept.

`Quorum` follows one checkpoint of our own log at a time, the target, until whoever waits for it has enough
cosignatures. Were it to follow the newest one, a busy log could run away from its witnesses for ever.
"""

from collections.abc import Iterator

from ecot_protocol.domains.federation.messages import AskHead, Cosigned, Head, Problem, Push, Stale
from ecot_protocol.domains.federation.outputs import Ahead, Keep, KeepFork, Output, ReadGrowth, Tell
from ecot_protocol.domains.federation.state import FederationState
from ecot_protocol.domains.federation.statements import LogKey, Witness
from ecot_protocol.wire.checkpoint import Checkpoint, open_checkpoint
from ecot_protocol.wire.cosignature import Cosigner, verify_cosignature
from ecot_protocol.wire.note import NoteSignature, SignedNote, format_signatures, parse_signatures
from ecot_protocol.wire.witness import AddCheckpointRequest, Refusal, decide


class WitnessDesk:
    """Cosign partners' checkpoints.

    Args:
        state: of our own ledger; its peerings name the keys.
        cosigner: our cosigner key.
        kept: origin -> the last checkpoint that we cosigned, as the host kept it (`Keep`).
    """

    def __init__(self, state: FederationState, cosigner: Cosigner, kept: dict[str, bytes]) -> None:
        self._state = state
        self._cosigner = cosigner
        self._kept = dict(kept)

    def push(self, sender: bytes, message: Push, now_ms: int) -> Iterator[Output]:
        """Answer a checkpoint that somebody wants cosigned."""
        request = AddCheckpointRequest.parse(message.request)
        origin = request.checkpoint.origin
        kept = self._kept.get(origin)
        known = None if kept is None else Checkpoint.parse(SignedNote.parse(kept).text)
        keys = [log.verifier for log in self._logs(origin)]
        answer = decide(None if known is None else (known.size, known.root_hash), request, keys)
        if isinstance(answer, Refusal):
            if answer.is_fork_proof and kept is not None:
                yield KeepFork(origin, kept, request.note.format())
            if answer.status == 409:
                yield Tell(sender, Stale(origin, known.size if known else 0))
            else:
                yield Tell(sender, Problem(answer.code, None))
            return
        self._kept[origin] = request.note.format()
        yield Keep(origin, self._kept[origin])
        line = self._cosigner.cosign(request.note.text, max(now_ms // 1000, 1))
        yield Tell(sender, Cosigned(origin, answer.checkpoint.size, format_signatures((line,))))

    def head(self, origin: str) -> Head:
        """Answer what we cosigned last."""
        return Head(origin, self._kept.get(origin))

    def _logs(self, origin: str) -> Iterator[LogKey]:
        for ledger, peer in self._state.federation.peers.items():
            side = peer.peering.side_of(ledger)
            if side.origin == origin:
                yield LogKey(origin=origin, public_key=side.log)


class Quorum:
    """Collect cosignatures for our own log's checkpoints.

    Args:
        own: who we are as a witness.
        cosigner: our cosigner key.
    """

    def __init__(self, own: Witness, cosigner: Cosigner) -> None:
        self._own = own
        self._cosigner = cosigner
        self._known_sizes: dict[bytes, int] = {}
        self._lines: dict[Witness, NoteSignature] = {}
        self._growths: dict[tuple[int, int], set[bytes]] = {}
        self.head: SignedNote | None = None
        self.head_size = 0
        """How much of our log is durable and signed."""
        self.target: SignedNote | None = None
        self.target_size = 0
        """The size of the checkpoint for which cosignatures are collected."""

    @property
    def cosigners(self) -> tuple[Witness, ...]:
        """Who has cosigned the target, ascending by name."""
        return tuple(sorted(self._lines, key=lambda witness: witness.name))

    def checkpoint(self, cosigners: tuple[Witness, ...]) -> bytes:
        """Return the target with the lines of these cosigners."""
        assert self.target is not None
        return self.target.with_signatures(self._lines[one] for one in cosigners).format()

    def take_head(self, note: SignedNote) -> None:
        """Take the newest checkpoint that our log has signed."""
        size = Checkpoint.parse(note.text).size
        if size >= self.head_size:
            self.head, self.head_size = note, size

    def aim(self, now_ms: int) -> None:
        """Make the newest checkpoint the target, and cosign it ourselves."""
        assert self.head is not None
        if self.target is not None and self.target.text == self.head.text:
            return
        self.target, self.target_size = self.head, self.head_size
        line = self._cosigner.cosign(self.head.text, max(now_ms // 1000, 1))
        self._lines = {self._own: line}

    def push(self, ledgers: set[bytes]) -> Iterator[Output]:
        """Show the target to witnesses that have not cosigned it."""
        done = {witness.ledger for witness in self._lines}
        for ledger in sorted(ledgers - done):
            yield from self._push_from(ledger, self._known_sizes.get(ledger, 0))

    def _push_from(self, ledger: bytes, old_size: int) -> Iterator[Output]:
        if old_size in (0, self.target_size):
            yield self._request(ledger, old_size, ())
        elif old_size < self.target_size:
            self._growths.setdefault((old_size, self.target_size), set()).add(ledger)
            yield ReadGrowth(old_size, self.target_size)

    def grown(self, old_size: int, new_size: int, hashes: tuple[bytes, ...]) -> Iterator[Output]:
        """Take a consistency proof that was asked for."""
        ledgers = self._growths.pop((old_size, new_size), set())
        if new_size == self.target_size:
            yield from (self._request(ledger, old_size, hashes) for ledger in sorted(ledgers))

    def _request(self, ledger: bytes, old_size: int, hashes: tuple[bytes, ...]) -> Tell:
        assert self.target is not None
        return Tell(ledger, Push(AddCheckpointRequest(old_size, hashes, self.target).format()))

    def stale(self, sender: bytes, size: int, now_ms: int) -> Iterator[Output]:
        """Learn how much a witness has seen; go on from there."""
        if self.head is None or self.target is None:
            return
        if size > self.head_size:
            yield Tell(sender, AskHead(Checkpoint.parse(self.head.text).origin))
            return
        self._known_sizes[sender] = size
        if size > self.target_size and self.head_size > self.target_size:
            self.aim(now_ms)
        if size <= self.target_size:
            yield from self._push_from(sender, size)

    def cosigned(self, sender: bytes, message: Cosigned, witnesses: set[Witness]) -> None:
        """Take cosignatures.

        Raises:
            RemoteProtocolError: a line isn't good.
        """
        self._known_sizes[sender] = max(message.size, self._known_sizes.get(sender, 0))
        if self.target is None or message.size != self.target_size:
            return
        for line in parse_signatures(message.lines):
            for witness in witnesses:
                verifier = witness.verifier
                if (verifier.name, verifier.key_id) == (line.name, line.key_id):
                    verify_cosignature(self.target.text, line, verifier)
                    self._lines[witness] = line

    def judge_head(self, note: bytes, log: LogKey) -> Iterator[Output]:
        """Compare what a witness holds of our own log with our log.

        Raises:
            RemoteProtocolError: we did not sign it.
        """
        shown = open_checkpoint(note, (log.verifier,)).checkpoint
        if shown.size > self.head_size:
            yield Ahead(note)
        elif self.head is not None and shown.size == self.head_size:
            own = Checkpoint.parse(self.head.text)
            yield from () if shown.root_hash == own.root_hash else (Ahead(note),)


__all__ = ["Quorum", "WitnessDesk"]
