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
from ecot_protocol.domains.federation.decision_log import OUTCOMES, decision_hash
from ecot_protocol.domains.federation.sighting_messages import Growth, Sighting, decode_sighting
from ecot_protocol.domains.federation.sightings import (
    OPEN_QUESTIONS,
    AnswerGrowth,
    KeepForkProof,
    KnownLog,
    LookInKept,
    OwnLogShown,
    TellSighting,
    Watch,
    WatchedLog,
    WatchOutput,
    known_logs,
)
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.wire.fork import fork_id, prove_fork
from ecot_protocol.wire.merkle import TILE_WIDTH, consistency_proof, root
from ecot_protocol.wire.merkle_hash import subtree_root
from ecot_protocol.wire.note import SignedNote

log = structlog.get_logger("ecot.watch")

WATCH_PACE: Final = Pace(per_second=0.5, burst=60)
"""Messages of one partner about other logs; each costs us at most 16 signatures or one proof."""
TICK_S: Final = 1.0
MAX_LEAVES_HASHED: Final = 200_000
"""Decisions that are hashed at one time to answer one question; a longer log stays an open question."""
LEAVES_AT_ONCE: Final = 1_000
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
        of = self._store.decision_log if known.is_decisions else self._store.witness_get
        witnessed = await of(known.origin)
        if witnessed is not None and witnessed.note:
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
                case LookInKept(origin, old, new):
                    assert self._watch is not None
                    found = await self._kept_growth(origin, old, new)
                    await self._carry_out(self._watch.looked(output, *(found or (None, ()))))
                case OwnLogShown(ledger, checkpoint):
                    await self._guard.judge(checkpoint, ledger.hex())

    async def _answer(self, asked: AnswerGrowth) -> None:
        """Prove that our log grew; say so if it is not so long."""
        edge, log_key = self._writer.edge(), self._writer.log_key
        if log_key is None:
            return
        old, new = asked.old_size, asked.new_size
        found: tuple[bytes, tuple[bytes, ...]] | None = None
        if asked.origin != log_key.name:
            found = await self._kept_growth(asked.origin, old, new)
        elif new <= edge.size:
            found = await prove(
                self._store, edge, lambda reader: (root(reader, old), consistency_proof(reader, old, new))
            )
        first, hashes = found or (None, ())
        self._send(asked.ledger, Growth(asked.origin, old, new, first, hashes))

    async def _kept_growth(self, origin: str, old: int, new: int) -> tuple[bytes, tuple[bytes, ...]] | None:
        """Compute the root of a decision log at `old`, and the growth to `new`; None if not all leaves are kept."""
        if new > MAX_LEAVES_HASHED:
            return None
        hashes: list[bytes] = []
        while len(hashes) < new:
            rows = await self._store.decision_leaves(origin, len(hashes), min(LEAVES_AT_ONCE, new - len(hashes)))
            if not rows or rows[0].number != len(hashes):
                return None
            hashes += [decision_hash(row.tid, OUTCOMES[row.outcome]) for row in rows]
        leaves = _Leaves(hashes)
        return root(leaves, old), consistency_proof(leaves, old, new)


class _Leaves:
    """Tiles over leaf hashes in memory, computed when they are asked for."""

    def __init__(self, hashes: list[bytes]) -> None:
        self._hashes = hashes

    def tile(self, level: int, index: int, width: int) -> bytes:
        """Return `width` hashes of a tile."""
        span = TILE_WIDTH**level
        first = index * TILE_WIDTH * span
        starts = range(first, first + width * span, span)
        return b"".join(subtree_root(self._hashes[start : start + span]) for start in starts)
