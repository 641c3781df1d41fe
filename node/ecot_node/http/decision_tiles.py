# SPDX-License-Identifier: AGPL-3.0-or-later
"""Tiles of our decision log, computed from its leaves as they are kept."""

from collections.abc import AsyncIterator
from typing import Final

from ecot_node.http.context import Context
from ecot_node.http.errors import Problem
from ecot_node.http.tree import Head
from ecot_protocol.domains.federation.decision_log import OUTCOMES, decision_hash, decision_leaf
from ecot_protocol.domains.federation.statements import DECISIONS_SUFFIX
from ecot_protocol.wire.checkpoint import Checkpoint
from ecot_protocol.wire.merkle import TILE_HEIGHT, TILE_WIDTH, Frontier, GroupTree
from ecot_protocol.wire.note import SignedNote
from ecot_protocol.wire.tile import TilePath, encode_bundle

_BATCH: Final = 4_096


async def published_decisions(context: Context) -> Head:
    """Return the checkpoint of our decision log that was kept last.

    Raises:
        Problem: ``not_found``: nothing was decided here yet, or shown to nobody.
    """
    origin = await _origin(context)
    state = await context.store.decision_log(origin) if origin is not None else None
    if state is None or not state.note:
        raise Problem("not_found")
    return Head(Checkpoint.parse(SignedNote.parse(state.note).text).size, state.note)


async def _origin(context: Context) -> str | None:
    profile = await context.ledger.read(lambda state: state.coop.profile.get(""))
    return None if profile is None else profile.origin + DECISIONS_SUFFIX


async def read_decisions_tile(context: Context, path: TilePath) -> bytes:
    """Return a tile or an entry bundle of our decision log.

    Raises:
        Problem: ``not_found``: the published log has no such tile.
    """
    head = await published_decisions(context)
    if not path.is_in(head.size):
        raise Problem("not_found")
    span = 1 << (path.level or 0) * TILE_HEIGHT
    start = path.index * TILE_WIDTH * span
    if path.level is None:
        leaves = [leaf async for leaf in _leaves(context, start, start + path.width)]
        return encode_bundle([decision_leaf(tid, OUTCOMES[outcome]) for tid, outcome in leaves])
    hashes: list[bytes] = []
    subtree: list[bytes] = []
    async for tid, outcome in _leaves(context, start, start + path.width * span):
        subtree.append(decision_hash(tid, OUTCOMES[outcome]))
        if len(subtree) == span:
            hashes.append(GroupTree(Frontier.empty(), subtree).root)
            subtree = []
    return b"".join(hashes)


async def _leaves(context: Context, start: int, end: int) -> AsyncIterator[tuple[bytes, int]]:
    origin = await _origin(context)
    assert origin is not None, "there is a published decision log"
    while start < end:
        rows = await context.store.decision_leaves(origin, start, min(_BATCH, end - start))
        assert rows, f"the store lacks decision {start}"
        for row in rows:
            yield row.tid, row.outcome
        start += len(rows)
