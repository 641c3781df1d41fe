# SPDX-License-Identifier: AGPL-3.0-or-later
"""The watch over other logs, of a running node: `ecot_protocol.domains.federation.sightings` with store and transport.

- What partners tell is bounded before it is judged: see `WATCH_PACE`.
- A proven fork is durable before anybody is told.
- Open questions are kept over a restart, so that a node cannot wait its partners out.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from ecot_node.federation.guard import HistoryGuard
from ecot_node.federation.peer_limits import Bucket, Pace
from ecot_node.ledger.tree import prove
from ecot_node.ledger.writer import Writer
from ecot_node.store.forks import ForkBoard
from ecot_node.store.port import LogStore
from ecot_protocol.domains.federation.sighting_messages import Growth, Sighting, decode_sighting
from ecot_protocol.domains.federation.sightings import (
    OPEN_QUESTIONS,
    AnswerGrowth,
    KeepForkProof,
    KnownLog,
    OwnLogShown,
    TellSighting,
    Watch,
    WatchedLog,
    WatchOutput,
    known_logs,
)
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.wire.fork import fork_id, prove_fork
from ecot_protocol.wire.merkle import TileReader, consistency_proof, root
from ecot_protocol.wire.note import SignedNote

log = structlog.get_logger("ecot.watch")

WATCH_PACE: Final = Pace(per_second=0.5, burst=60)
"""Messages of one partner about other logs; each costs us at most 16 signatures or one proof."""
TICK_S: Final = 1.0
QUESTIONS: Final = "open_sightings"
"""Name under which the store keeps the open questions."""


class Watching:
    """Compare what partners see of other logs, and keep what is found.

    Args:
        writer: of this node.
        store: open.
        board: where proofs are kept.
        guard: judges what is shown of our own log.
        send: hands a message for a ledger to the transport.
    """

    def __init__(
        self,
        writer: Writer,
        store: LogStore,
        board: ForkBoard,
        guard: HistoryGuard,
        send: Callable[[bytes, Sighting], None],
    ) -> None:
        self._writer, self._store, self._board, self._guard, self._send = writer, store, board, guard, send
        self._watch: Watch | None = None
        self._paces: dict[bytes, Bucket] = {}
        self._ticked_s = -TICK_S
        self._known_forks: set[str] = set()
        self._kept_questions = b""

    async def start(self) -> None:
        """Begin with what is kept."""
        kept = await self._store.meta_get(QUESTIONS)
        self._kept_questions = kept or b""
        self._known_forks = {*self._board.proofs}
        questions = OPEN_QUESTIONS.decode(kept) if kept is not None else None
        self._watch = Watch(lambda: self._writer.state, self._board.proofs.values(), questions)

    def logs(self) -> tuple[WatchedLog, ...]:
        """Return what is known of each log."""
        return self._watch.logs(self._writer.wall_ms()) if self._watch is not None else ()

    def met(self, ledger: bytes) -> None:
        """Learn that a partner can be reached again."""
        if self._watch is not None:
            self._watch.met(ledger)

    async def receive(self, ledger: bytes, raw: bytes) -> None:
        """Take a message of a partner; one over its pace is dropped.

        Raises:
            RemoteProtocolError: malformed, or false.
        """
        pace = self._paces.setdefault(ledger, Bucket(WATCH_PACE))
        if self._watch is None or not pace.take(asyncio.get_running_loop().time()):
            return
        await self._carry_out(self._watch.receive(ledger, decode_sighting(raw), self._writer.wall_ms()))

    async def tick(self) -> None:
        """Ask and tell what is due; cheap if called more often than once a second."""
        now_s = asyncio.get_running_loop().time()
        if self._watch is None or now_s - self._ticked_s < TICK_S:
            return
        self._ticked_s = now_s
        for known in known_logs(self._writer.state).values():
            await self._look_at(known)
        for number, proof in [*self._board.proofs.items()]:
            if number not in self._known_forks:  # found by the witness over HTTP
                self._known_forks.add(number)
                await self._carry_out(self._watch.forked(proof))
        await self._carry_out(self._watch.tick(self._writer.wall_ms()))
        await self._keep_questions()

    async def found(self, origin: str, first: bytes, second: bytes) -> None:
        """Take two checkpoints of one size that a log signed."""
        known = known_logs(self._writer.state).get(origin)
        if known is None or self._watch is None:
            return
        try:
            proof = prove_fork(SignedNote.parse(first), SignedNote.parse(second), known.key, b"")
        except RemoteProtocolError as error:  # under a key that was replaced since: the witness refuses, no more
            log.error("fork_not_provable", origin=origin, code=error.code)
            return
        await self._carry_out(self._watch.forked(proof.format()))

    async def _look_at(self, known: KnownLog) -> None:
        """Let the watch know what was cosigned, over libp2p or HTTP."""
        assert self._watch is not None
        witnessed = await self._store.witness_get(known.origin)
        if witnessed is not None:
            await self._carry_out(self._watch.witnessed(known.origin, witnessed.note, self._writer.wall_ms()))

    async def _keep_questions(self) -> None:
        assert self._watch is not None
        questions = OPEN_QUESTIONS.encode(self._watch.open_questions())
        if questions != self._kept_questions:
            await self._store.meta_put(QUESTIONS, questions)
            self._kept_questions = questions

    async def _carry_out(self, outputs: list[WatchOutput]) -> None:
        for output in outputs:
            match output:
                case TellSighting(ledger, message):
                    self._send(ledger, message)
                case KeepForkProof(known, proof):
                    self._known_forks.add(fork_id(proof))
                    if await self._board.keep(proof):
                        log.error("log_forked", origin=known.origin, proof=fork_id(proof))
                case AnswerGrowth():
                    await self._answer(output)
                case OwnLogShown(ledger, checkpoint):
                    await self._guard.judge(checkpoint, ledger.hex())

    async def _answer(self, asked: AnswerGrowth) -> None:
        """Prove that our log grew; say so if it is not so long."""
        edge, log_key = self._writer.edge(), self._writer.log_key
        if log_key is None:
            return
        old, new = asked.old_size, asked.new_size
        if new > edge.size:
            self._send(asked.ledger, Growth(log_key.name, old, new, None, ()))
            return

        def compute(reader: TileReader) -> tuple[bytes, tuple[bytes, ...]]:
            return root(reader, old), consistency_proof(reader, old, new)

        found, hashes = await prove(self._store, edge, compute)
        self._send(asked.ledger, Growth(log_key.name, old, new, found, hashes))
