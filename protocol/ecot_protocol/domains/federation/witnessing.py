# SPDX-License-Identifier: AGPL-3.0-or-later
"""The two ends of witnessing: cosigning the partners' logs, and collecting cosignatures for our own.

`WitnessDesk` decides by `ecot_protocol.wire.witness`: it cosigns only what extends the last checkpoint that it
cosigned, and says so only after that checkpoint is kept.

`Quorum` follows one checkpoint of our own log at a time, the target, until whoever waits for it has enough
cosignatures. Were it to follow the newest one, a busy log could run away from its witnesses for ever.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from ecot_protocol.domains.federation.messages import AskHead, Cosigned, Head, Problem, Push, Stale
from ecot_protocol.domains.federation.outputs import Ahead, Keep, KeepFork, Output, ReadGrowth, Tell
from ecot_protocol.domains.federation.state import FederationState
from ecot_protocol.domains.federation.statements import LogKey, Witness
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.wire.checkpoint import Checkpoint, open_checkpoint
from ecot_protocol.wire.cosignature import (
    Cosigner,
    Cosigns,
    cosign_with,
    cosignature_time,
    is_fresh,
    verify_cosignature,
)
from ecot_protocol.wire.note import NoteSignature, SignedNote, format_signatures, parse_signatures
from ecot_protocol.wire.note_key import NoteVerifier
from ecot_protocol.wire.witness import AddCheckpointRequest, Refusal, decide

FURTHER_EVERY_MS: Final = 1_000
"""How often a log is cosigned with more than our Ed25519 key: an ML-DSA-44 signature takes ten times as long to make
and 3,244 characters, and any later checkpoint that has one shows all records before it."""


class WitnessDesk:
    """Cosign partners' checkpoints.

    Args:
        state: of our own ledger; its peerings name the keys.
        cosigners: our cosigner keys, the Ed25519 one first.
        kept: origin -> the last checkpoint that we cosigned, as the host kept it (`Keep`).
    """

    def __init__(self, state: FederationState, cosigners: Sequence[Cosigns], kept: dict[str, bytes]) -> None:
        self._state = state
        self._cosigners = tuple(cosigners)
        self._further_at_ms: dict[str, int] = {}
        self._kept = dict(kept)

    def push(self, sender: bytes, message: Push, now_ms: int) -> Iterator[Output]:
        """Answer a checkpoint that somebody wants cosigned."""
        request = AddCheckpointRequest.parse(message.request)
        origin = request.checkpoint.origin
        kept = self._kept.get(origin)
        known = None if kept is None else Checkpoint.parse(SignedNote.parse(kept).text)
        keys = [log.verifier for log in logs_of(self._state, origin)]
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
        lines = cosign_with(self._cosigners_of(origin, now_ms), request.note.text, max(now_ms // 1000, 1))
        yield Tell(sender, Cosigned(origin, answer.checkpoint.size, format_signatures(lines)))

    def _cosigners_of(self, origin: str, now_ms: int) -> tuple[Cosigns, ...]:
        """Return the keys to cosign with: the large one now and then, for decisions do not wait for it."""
        if now_ms - self._further_at_ms.get(origin, -FURTHER_EVERY_MS) < FURTHER_EVERY_MS:
            return self._cosigners[:1]
        self._further_at_ms[origin] = now_ms
        return self._cosigners

    def head(self, origin: str) -> Head:
        """Answer what we cosigned last."""
        return Head(origin, self._kept.get(origin))


def logs_of(state: FederationState, origin: str) -> Iterator[LogKey]:
    """Yield the keys that our peerings name for the log of this origin."""
    for ledger, peer in state.federation.peers.items():
        side = peer.peering.side_of(ledger)
        if side.origin == origin:
            yield LogKey(origin=origin, public_key=side.log)


def require_fresh(lines: bytes, keys: Iterable[NoteVerifier], now_unix_s: int) -> None:
    """Refuse cosignatures that were not made just now: what we ask for is that a witness has seen nothing longer *yet*.

    A cosignature that says no time (ML-DSA-44 allows it) is not fresh either. Lines of other keys mean nothing to us.

    Args:
        lines: of signatures, each ended by a newline.
        keys: of witnesses.
        now_unix_s: our clock.

    Raises:
        RemoteProtocolError: ``cosignature_not_fresh``, or the lines are malformed.
    """
    known = {(key.name, key.key_id) for key in keys}
    for line in parse_signatures(lines):
        time = cosignature_time(line) if (line.name, line.key_id) in known else now_unix_s
        if not is_fresh(time, now_unix_s):
            detail = f"{line.name} at {time}, it is {now_unix_s}"
            raise RemoteProtocolError("cosignature_not_fresh", detail, name=line.name)


class CosignedTarget:
    """One checkpoint of a log of ours, and who has cosigned it.

    Args:
        own: who we are as a witness.
        cosigner: our cosigner key.
    """

    def __init__(self, own: Witness, cosigner: Cosigner) -> None:
        self._own = own
        self._cosigner = cosigner
        self._known_sizes: dict[bytes, int] = {}
        self._lines: dict[Witness, NoteSignature] = {}
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

    def _aim_at(self, note: SignedNote, size: int, now_ms: int) -> None:
        """Make a checkpoint the target, and cosign it ourselves."""
        self.target, self.target_size = note, size
        self._lines = {self._own: self._cosigner.cosign(note.text, max(now_ms // 1000, 1))}

    def _silent(self, ledgers: set[bytes]) -> list[bytes]:
        """Return which of these ledgers' witnesses have not cosigned the target."""
        return sorted(ledgers - {witness.ledger for witness in self._lines})

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


class Quorum(CosignedTarget):
    """Collect cosignatures for our own log's checkpoints."""

    def __init__(self, own: Witness, cosigner: Cosigner) -> None:
        super().__init__(own, cosigner)
        self._growths: dict[tuple[int, int], set[bytes]] = {}
        self.head: SignedNote | None = None
        self.head_size = 0
        """How much of our log is durable and signed."""

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
        self._aim_at(self.head, self.head_size, now_ms)

    def are_all_done(self, ledgers: set[bytes]) -> bool:
        """Tell whether all these witnesses have cosigned the target."""
        return not self._silent(ledgers)

    def push(self, ledgers: set[bytes]) -> Iterator[Output]:
        """Show the target to witnesses that have not cosigned it."""
        for ledger in self._silent(ledgers):
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


__all__ = ["CosignedTarget", "Quorum", "WitnessDesk", "logs_of", "require_fresh"]
