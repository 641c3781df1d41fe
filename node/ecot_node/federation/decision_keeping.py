# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a node keeps of decision logs: partners' leaves, which it witnesses, and its own, which it publishes.

A partner's leaves are durable before their checkpoint is cosigned. Our own follow from the ledger; they are kept for
the tiles under ``/log/decisions``, and for witnesses that come later than the state remembers.
"""

from collections.abc import AsyncIterator, Iterable
from typing import Final

from ecot_node.ledger.writer import Writer
from ecot_node.store.port import DecisionLeaf, DecisionLogState, LogStore
from ecot_protocol.domains.federation.courier import Courier
from ecot_protocol.domains.federation.decision_log import OUTCOMES, Outcome, grown_frontier
from ecot_protocol.domains.federation.decision_witnessing import KeptDecisions
from ecot_protocol.domains.federation.decisions import DECIDE
from ecot_protocol.domains.federation.outputs import KeepLeaves, ReadLeaves
from ecot_protocol.domains.federation.proofs import body_of
from ecot_protocol.domains.federation.statements import DECISIONS_SUFFIX
from ecot_protocol.wire.merkle import HASH_BYTES, Frontier

BATCH: Final = 1_000


def frontier_of(state: DecisionLogState) -> Frontier:
    """Return the frontier of a kept decision log."""
    starts = range(0, len(state.frontier), HASH_BYTES)
    return Frontier(state.size, tuple(state.frontier[start : start + HASH_BYTES] for start in starts))


class DecisionKeeper:
    """Keeps leaves in the store.

    Args:
        writer: of our ledger.
        store: of the same node.
        origin: of our own decision log.
    """

    def __init__(self, writer: Writer, store: LogStore, origin: str) -> None:
        self._writer, self._store, self._origin = writer, store, origin
        self._own: DecisionLogState | None = None

    async def witnessed(self, origins: Iterable[str]) -> dict[str, KeptDecisions]:
        """Return what is kept of the decision logs of these ledgers."""
        found: dict[str, KeptDecisions] = {}
        for origin in origins:
            state = await self._store.decision_log(origin + DECISIONS_SUFFIX)
            if state is not None:
                found[origin + DECISIONS_SUFFIX] = KeptDecisions(frontier_of(state), state.note)
        return found

    async def keep(self, output: KeepLeaves) -> bool:
        """Keep a partner's leaves; False if a deal among them is decided already, or others came meanwhile."""
        known = await self._store.decision_log(output.origin)
        if (known.size if known is not None else output.before.size) != output.before.size:
            return False
        return await self._put(output.origin, known, output.leaves, output.frontier, output.checkpoint)

    async def _put(
        self,
        origin: str,
        known: DecisionLogState | None,
        leaves: Iterable[tuple[bytes, Outcome]],
        frontier: Frontier,
        note: bytes,
    ) -> bool:
        given = [*leaves]
        start = frontier.size - len(given)
        rows = [DecisionLeaf(start + n, tid, OUTCOMES.index(outcome)) for n, (tid, outcome) in enumerate(given)]
        state = DecisionLogState(frontier.size, b"".join(frontier.hashes), note)
        old_size = known.size if known is not None else None
        return await self._store.decision_log_put(origin, old_size=old_size, state=state, leaves=rows)

    async def keep_own(self, courier: Courier) -> None:
        """Keep what our log has decided, and the newest checkpoint of it that is shown to witnesses."""
        if self._own is None:
            self._own = await self._store.decision_log(self._origin) or DecisionLogState(0, b"", b"")
            if self._own.size < courier.decisions.start:
                await self._read_again(courier.decisions.start)
        target = courier.cosigned_decisions()
        note = self._own.note if target is None else target.format()
        start, size = self._own.size, courier.decisions.size
        for end in [*range(start + BATCH, size, BATCH), size]:
            if (end, note) != (self._own.size, self._own.note):
                leaves = courier.decisions.slice(self._own.size, end)
                await self._put_own(leaves, courier.decisions.frontier(end), note)

    async def _put_own(self, leaves: Iterable[tuple[bytes, Outcome]], frontier: Frontier, note: bytes) -> None:
        known = await self._store.decision_log(self._origin)
        assert await self._put(self._origin, known, leaves, frontier, note), "our own decisions are ours to keep"
        self._own = DecisionLogState(frontier.size, b"".join(frontier.hashes), note)

    async def _read_again(self, size: int) -> None:
        """Find the decisions of the first `size` leaves in the records, where the store lacks them."""
        assert self._own is not None
        frontier, number = frontier_of(self._own), 0
        leaves: list[tuple[bytes, Outcome]] = []
        async for leaf in self._decided():
            if number >= frontier.size:
                leaves.append(leaf)
            number += 1
            if number == size or len(leaves) == BATCH:
                frontier = grown_frontier(frontier, leaves)
                await self._put_own(leaves, frontier, self._own.note)
                leaves = []
            if number == size:
                return

    async def _decided(self) -> AsyncIterator[tuple[bytes, Outcome]]:
        async for rows in self._store.replay():
            for row in rows:
                body = body_of(row.record)
                if body.type == DECIDE.tag:
                    decide = DECIDE.codec.decode(bytes(body.payload))
                    yield decide.tid, decide.outcome

    async def read(self, read: ReadLeaves) -> tuple[tuple[tuple[bytes, Outcome], ...], bytes]:
        """Return leaves of our own decision log, and the root over all before `read.end`."""
        frontier, start = Frontier.empty(), 0
        wanted: list[tuple[bytes, Outcome]] = []
        while start < read.end:
            rows = await self._store.decision_leaves(self._origin, start, min(BATCH, read.end - start))
            assert rows, f"the store lacks decision {start}"
            leaves = [(row.tid, OUTCOMES[row.outcome]) for row in rows]
            frontier = grown_frontier(frontier, leaves)
            wanted += [leaf for n, leaf in enumerate(leaves, start) if n >= read.start]
            start += len(rows)
        return tuple(wanted), frontier.root()
