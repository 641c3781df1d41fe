# SPDX-License-Identifier: AGPL-3.0-or-later
"""Compute roots and proofs of the whole tree from its stored tiles, and keep the tiles of its right edge.

Rules:

- A tile holds up to 256 hashes of one tile level l, that is of subtrees of 256**l leaves; its width is how many.
- Only what is asked for is read: one call reads each tile once, at the width that the tree's size gives it.
- A tile of another length than its width says is refused; that its hashes are right shows only in the proof or root.

Example:

>>> from ecot_protocol.wire.merkle_hash import leaf_hashes, verify_inclusion
>>> leaves = leaf_hashes(str(n).encode() for n in range(300))
>>> edge = TileEdge.empty()
>>> [(tile.level, tile.index, len(tile.hashes)) for tile in edge.append_many(leaves)]
[(0, 0, 8192)]
>>> edge.size, len(edge.tile(0, 1, 44)), len(edge.tile(1, 0, 1))
(300, 1408, 32)
>>> class Memory:
...     def tile(self, level: int, index: int, width: int) -> bytes:
...         return b"".join(leaves[:256]) if (level, index) == (0, 0) else edge.tile(level, index, width)
>>> verify_inclusion(leaves[7], 7, 300, inclusion_proof(Memory(), 7, 300), root(Memory(), 300))
True

Source: C2SP tlog-tiles.md, "Merkle Tree" and "Partial Tiles"; RFC 6962 2.1.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from ecot_protocol.errors import LocalProtocolError, RemoteProtocolError
from ecot_protocol.wire.merkle_group import Frontier, GroupTree
from ecot_protocol.wire.merkle_hash import EMPTY_ROOT, HASH_BYTES, MAX_SIZE, are_hashes, fold_subtrees, subtree_root

TILE_HEIGHT: Final = 8
TILE_WIDTH: Final = 256
TILE_BYTES: Final = TILE_WIDTH * HASH_BYTES
MAX_TILE_LEVEL: Final = 7
"""Highest tile level of a tree of at most 2**63 - 1 leaves."""


class TileReader(Protocol):
    """Where the tiles of one log are: a store, a folder, a partner's log already fetched."""

    def tile(self, level: int, index: int, width: int) -> bytes:
        """Return the first `width` (1..256) hashes of tile `index` of tile level `level`: width x 32 bytes."""


class _Nodes:
    """The nodes of one tree, computed from its tiles; each tile is read once."""

    def __init__(self, reader: TileReader, size: int) -> None:
        if not 0 <= size <= MAX_SIZE:
            raise LocalProtocolError(f"tree size {size}: expected 0..{MAX_SIZE}")
        self.size = size
        self._reader = reader
        self._tiles: dict[tuple[int, int], bytes] = {}

    def width(self, height: int) -> int:
        """Count the nodes of this height, the incomplete last one included."""
        return self.size + (1 << height) - 1 >> height

    def node(self, height: int, index: int) -> bytes:
        """Compute the node of this height and index, which may be the incomplete last one of its level."""
        if index + 1 << height <= self.size:
            return self._complete(height, index)
        rest = self.size - (index << height)
        return fold_subtrees(self.subtrees(index << height, rest))

    def subtrees(self, start: int, count: int) -> list[bytes]:
        """Compute the complete subtrees, largest first, of the `count` leaves from `start`, where a subtree begins."""
        hashes = []
        for height in reversed(range(count.bit_length())):
            if count >> height & 1:
                hashes.append(self._complete(height, start >> height))
                start += 1 << height
        return hashes

    def _complete(self, height: int, index: int) -> bytes:
        """Compute the complete subtree of 2**height leaves at this index from the one tile that spans it."""
        level, inner = divmod(height, TILE_HEIGHT)
        first = index << inner
        tile = self._tile(level, first // TILE_WIDTH)
        place = first % TILE_WIDTH
        return subtree_root(_split(tile[place * HASH_BYTES : (place + (1 << inner)) * HASH_BYTES]))

    def _tile(self, level: int, index: int) -> bytes:
        key = (level, index)
        if key not in self._tiles:
            width = min(TILE_WIDTH, (self.size >> level * TILE_HEIGHT) - index * TILE_WIDTH)
            hashes = self._reader.tile(level, index, width)
            if len(hashes) != width * HASH_BYTES:
                detail = f"expected {width * HASH_BYTES} bytes, got {len(hashes)}"
                raise RemoteProtocolError("tile_length_wrong", detail, level=level, index=index, width=width)
            self._tiles[key] = hashes
        return self._tiles[key]


def _split(hashes: bytes) -> list[bytes]:
    return [hashes[at : at + HASH_BYTES] for at in range(0, len(hashes), HASH_BYTES)]


def root(reader: TileReader, size: int) -> bytes:
    """Compute the root of the tree's first `size` leaves, 32 bytes.

    Raises:
        RemoteProtocolError: `tile_length_wrong`. (So do all functions here that read tiles.)
        LocalProtocolError: the size or an index is out of its range.
    """
    return _Nodes(reader, size).node(size.bit_length(), 0) if size else EMPTY_ROOT


def frontier(reader: TileReader, size: int) -> Frontier:
    """Compute the frontier of the tree's first `size` leaves."""
    return Frontier(size, tuple(_Nodes(reader, size).subtrees(0, size)))


def inclusion_proof(reader: TileReader, index: int, size: int) -> tuple[bytes, ...]:
    """Compute the proof that leaf `index` is in the tree of `size` leaves: n x 32 bytes, leaf to root.

    Source: RFC 6962 2.1.1.
    """
    if not 0 <= index < size:
        raise LocalProtocolError(f"leaf {index}: expected 0..{size - 1}")
    return tuple(_path(_Nodes(reader, size), 0, index))


def consistency_proof(reader: TileReader, old_size: int, new_size: int) -> tuple[bytes, ...]:
    """Compute the proof that the tree of `new_size` leaves begins with that of `old_size`: n x 32 bytes.

    It is empty when either size is 0 or they are equal.

    Source: RFC 6962 2.1.2.
    """
    if not 0 <= old_size <= new_size:
        raise LocalProtocolError(f"old size {old_size}: expected 0..{new_size}")
    if old_size in (0, new_size):
        return ()
    nodes = _Nodes(reader, new_size)
    height = (old_size & -old_size).bit_length() - 1
    index = (old_size >> height) - 1  # the last complete subtree of the old tree, the smallest of its frontier
    first = [nodes.node(height, index)] if index else []
    return (*first, *_path(nodes, height, index))


def _path(nodes: _Nodes, height: int, index: int) -> list[bytes]:
    """Compute the siblings on the way from a node up to the root."""
    siblings = []
    while (width := nodes.width(height)) > 1:
        if index ^ 1 < width:
            siblings.append(nodes.node(height, index ^ 1))
        height += 1
        index >>= 1
    return siblings


def range_proof(reader: TileReader, start: int, end: int, size: int) -> tuple[bytes, ...]:
    """Compute the proof for the leaves [start, end) of the tree of `size` leaves, as `verify_range` defines it."""
    if not 0 <= start < end <= size:
        raise LocalProtocolError(f"range [{start}, {end}): expected within [0, {size})")
    nodes = _Nodes(reader, size)
    lefts = nodes.subtrees(0, start)
    rights, height = [], 0
    while end < nodes.width(height):
        if end & 1:
            rights.append(nodes.node(height, end))
        end = end + 1 >> 1
        height += 1
    return (*lefts, *rights)


@dataclass(frozen=True, slots=True)
class FullTile:
    """A tile that has just become full, to be stored for ever.

    Attributes:
        level: tile level, 0..7.
        index: index of the tile within its level.
        hashes: 8,192 bytes, 256 hashes.
    """

    level: int
    index: int
    hashes: bytes


class TileEdge:
    """The partial tiles at the right edge of a tree, one at most for each tile level, kept in memory.

    The store keeps every full tile; the rest of the tree is this edge. It is written back from `tiles()` and read
    again by `from_tiles`, or rebuilt from the leaf hashes since the last full tile and the full tiles.
    """

    __slots__ = ("_edges", "size")

    def __init__(self, size: int, edges: list[bytes]) -> None:
        self.size = size
        self._edges = edges

    @classmethod
    def empty(cls) -> "TileEdge":
        """Make the edge of the tree without leaves."""
        return cls(0, [])

    @classmethod
    def from_tiles(cls, tiles: Mapping[int, bytes]) -> "TileEdge":
        """Make the edge from the partial tile of each level; levels without one are left out or empty.

        The size of the tree follows: level l contributes its width x 256**l.

        Raises:
            RemoteProtocolError: `tile_level_wrong`, `tile_length_wrong`: what was stored is not an edge.
        """
        edges = [b""] * (max(tiles, default=-1) + 1)
        for level, hashes in tiles.items():
            if not 0 <= level <= MAX_TILE_LEVEL:
                raise RemoteProtocolError("tile_level_wrong", f"expected 0..{MAX_TILE_LEVEL}, got {level}", level=level)
            if len(hashes) % HASH_BYTES or len(hashes) >= TILE_BYTES:
                raise RemoteProtocolError("tile_length_wrong", f"partial tile of {len(hashes)} bytes", level=level)
            edges[level] = bytes(hashes)
        size = sum(len(edge) // HASH_BYTES << level * TILE_HEIGHT for level, edge in enumerate(edges))
        return cls(size, edges)

    def append_many(self, leaf_hashes: Sequence[bytes]) -> list[FullTile]:
        """Append leaf hashes (n x 32 bytes) and return the tiles of all levels that this completed, lower levels first.

        Where the same leaves have gone through a `GroupTree`, `append_group` does it without hashing again.
        """
        if not are_hashes(leaf_hashes):
            raise LocalProtocolError(f"leaf hashes: expected {HASH_BYTES} bytes each")
        level_hashes: Sequence[bytes] = leaf_hashes

        def grown(level: int, completed: list[FullTile]) -> Sequence[bytes]:
            return level_hashes if level == 0 else [subtree_root(_split(tile.hashes)) for tile in completed]

        return self._append(len(leaf_hashes), grown)

    def append_group(self, tree: GroupTree) -> list[FullTile]:
        """Append the leaves of a `GroupTree` that starts at this edge's size; returns as `append_many`, hashes nothing.

        Raises:
            LocalProtocolError: the group starts at another size.
        """
        if tree.start != self.size:
            raise LocalProtocolError(f"group starts at {tree.start}: expected {self.size}")
        return self._append(tree.size - tree.start, lambda level, _: tree.new_nodes(level * TILE_HEIGHT))

    def _append(self, count: int, grown: Callable[[int, list[FullTile]], Sequence[bytes]]) -> list[FullTile]:
        """Grow level after level for as long as the one below completed a tile."""
        full: list[FullTile] = []
        completed: list[FullTile] = []
        level = 0
        while completed or level == 0:
            if level == len(self._edges):
                self._edges.append(b"")
            first_index = self.size >> (level + 1) * TILE_HEIGHT
            hashes = self._edges[level] + b"".join(grown(level, completed))
            whole = len(hashes) - len(hashes) % TILE_BYTES
            completed = [
                FullTile(level, first_index + at // TILE_BYTES, hashes[at : at + TILE_BYTES])
                for at in range(0, whole, TILE_BYTES)
            ]
            self._edges[level] = hashes[whole:]
            full += completed
            level += 1
        self.size += count
        return full

    def tile(self, level: int, index: int, width: int) -> bytes:
        """Return the first `width` hashes of an edge tile: width x 32 bytes.

        Raises:
            LocalProtocolError: this tile is not on the edge, or not so wide.
        """
        edge = self._edges[level] if 0 <= level < len(self._edges) else b""
        if index != self.size >> (level + 1) * TILE_HEIGHT or not 0 < width * HASH_BYTES <= len(edge):
            raise LocalProtocolError(f"tile {level}/{index} of width {width} is not on the edge of size {self.size}")
        return edge[: width * HASH_BYTES]

    def tiles(self) -> dict[int, bytes]:
        """Return the partial tile of each level that has one, as `from_tiles` takes it."""
        return {level: edge for level, edge in enumerate(self._edges) if edge}

    def frontier(self) -> Frontier:
        """Compute the frontier of the tree from its edge alone."""
        hashes: list[bytes] = []
        for edge in reversed(self._edges):
            nodes, start = _split(edge), 0
            for inner in reversed(range(TILE_HEIGHT)):
                if len(nodes) >> inner & 1:
                    hashes.append(subtree_root(nodes[start : start + (1 << inner)]))
                    start += 1 << inner
        return Frontier(self.size, tuple(hashes))
