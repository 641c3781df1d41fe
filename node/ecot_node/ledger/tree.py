# SPDX-License-Identifier: AGPL-3.0-or-later
"""The log's tree: its edge in memory, its full tiles in the store, and proofs over both."""

from collections.abc import Callable
from typing import Final, Protocol, TypeVar

from ecot_protocol.wire.merkle import HASH_BYTES, TILE_HEIGHT, TileEdge, TileReader

T = TypeVar("T")
_MAX_TILES_PER_PROOF: Final = 64


class TileStore(Protocol):
    """Where full tiles are read."""

    async def tile(self, level: int, index: int) -> bytes | None:
        """Return a full tile (8,192 bytes), or None."""
        ...


class _TileMissing(Exception):
    def __init__(self, level: int, index: int) -> None:
        super().__init__(level, index)
        self.place = (level, index)


class _Reader:
    """Full tiles fetched so far, then the edge; what is missing is asked for by an exception."""

    def __init__(self, edge: TileEdge, tiles: dict[tuple[int, int], bytes]) -> None:
        self._edge, self._tiles = edge, tiles

    def tile(self, level: int, index: int, width: int) -> bytes:
        if index >= self._edge.size >> (level + 1) * TILE_HEIGHT:
            return self._edge.tile(level, index, width)
        if (level, index) not in self._tiles:
            raise _TileMissing(level, index)
        return self._tiles[level, index][: width * HASH_BYTES]


async def prove(store: TileStore, edge: TileEdge, compute: Callable[[TileReader], T]) -> T:
    """Run `compute`, a proof function of `ecot_protocol.wire.merkle`, fetching the tiles that it needs.

    Args:
        store: full tiles of the same tree.
        edge: partial tiles of the tree; not changed meanwhile (take `snapshot_edge` of a growing one).
        compute: pure; it is run again after each tile that it lacked.
    """
    tiles: dict[tuple[int, int], bytes] = {}
    for _ in range(_MAX_TILES_PER_PROOF):
        try:
            return compute(_Reader(edge, tiles))
        except _TileMissing as missing:
            place = missing.place
        tile = await store.tile(*place)
        assert tile is not None, f"the store lacks full tile {place}"
        tiles[place] = tile
    raise AssertionError("a proof asked for more tiles than a tree has levels")


def snapshot_edge(edge: TileEdge) -> TileEdge:
    """Return a copy of the edge that stays as it is while the log grows."""
    return TileEdge(edge.size, [edge.tiles().get(level, b"") for level in range(max(edge.tiles(), default=-1) + 1)])
