# SPDX-License-Identifier: AGPL-3.0-or-later
"""Append to the Merkle tree without reading it: the frontier, and one group of leaves on top of it.

Rules:

- A frontier is all that appending needs: one hash for every 1 bit of the size, that of a complete subtree, largest
  first.
- A group of g leaves costs about g hashes, whatever the size of the tree; after that, each proof for a leaf of the
  group is a few look-ups, with no hash and no read of the store. This is the writer's hot path.
- Both take the *hashes* of leaves (`leaf_hash(data)`), never their data.

Example:

>>> from ecot_protocol.wire.merkle_hash import leaf_hashes, verify_inclusion, verify_range
>>> before = Frontier.of(leaf_hashes([b"a", b"b", b"c"]))
>>> group = leaf_hashes([b"d", b"e", b"f", b"g"])
>>> tree = GroupTree(before, group)
>>> tree.size
7
>>> verify_inclusion(group[1], 4, 7, tree.inclusion_proof(4), tree.root)
True
>>> verify_range(3, group, 7, tree.range_proof(3, 7), tree.root)
True
>>> tree.range_proof(3, 7) == before.hashes
True
>>> tree.frontier.root() == tree.root
True

Source: RFC 6962 2.1.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ecot_protocol.errors import LocalProtocolError
from ecot_protocol.wire.merkle_hash import (
    EMPTY_ROOT,
    HASH_BYTES,
    MAX_SIZE,
    are_hashes,
    fold_subtrees,
    hash_pairs,
    node_hash,
)


@dataclass(frozen=True, slots=True)
class Frontier:
    """The right edge of a tree: its size and the hashes of its maximal complete subtrees.

    Attributes:
        size: count of leaves.
        hashes: n x 32 bytes, largest subtree first; n is the number of 1 bits in `size`.

    Raises:
        LocalProtocolError: the number or the length of the hashes does not fit the size.
    """

    size: int
    hashes: tuple[bytes, ...]

    def __post_init__(self) -> None:
        if not 0 <= self.size <= MAX_SIZE:
            raise LocalProtocolError(f"frontier of size {self.size}: expected 0..{MAX_SIZE}")
        if len(self.hashes) != self.size.bit_count() or not are_hashes(self.hashes):
            expected = f"{self.size.bit_count()} hashes of {HASH_BYTES} bytes"
            raise LocalProtocolError(f"frontier of size {self.size}: expected {expected}, got {len(self.hashes)}")

    @classmethod
    def empty(cls) -> "Frontier":
        """Make the frontier of the tree without leaves."""
        return cls(0, ())

    @classmethod
    def of(cls, leaf_hashes: Iterable[bytes]) -> "Frontier":
        """Make the frontier of the tree over these leaf hashes."""
        return GroupTree(cls.empty(), tuple(leaf_hashes)).frontier

    def root(self) -> bytes:
        """Compute the root of the tree, 32 bytes."""
        return fold_subtrees(self.hashes) if self.hashes else EMPTY_ROOT

    def append(self, leaf_hash: bytes) -> "Frontier":
        """Make the frontier after one more leaf; O(log size) hashes, amortised one."""
        hashes, node, size = list(self.hashes), leaf_hash, self.size
        while size & 1:
            node = node_hash(hashes.pop(), node)
            size >>= 1
        return Frontier(self.size + 1, (*hashes, node))


class GroupTree:
    """The part of the tree that changes when a group of leaves is appended: level arrays over the right edge.

    Level h holds the nodes of height h from an even index `_bases[h]` to the end of the tree. The only nodes left of
    the group that it ever needs are those of the frontier.

    Args:
        frontier: the tree before the group.
        leaf_hashes: 0 or more x 32 bytes: the hashes of the appended leaves (not their data).

    Attributes:
        start: size before, which is the index of the group's first leaf.
        size: size after.
        root: root after, 32 bytes.
        frontier: frontier after.

    Raises:
        LocalProtocolError: a leaf hash is not 32 bytes long, or the tree would grow too large.
    """

    __slots__ = ("_bases", "_levels", "frontier", "root", "size", "start")

    def __init__(self, frontier: Frontier, leaf_hashes: Sequence[bytes]) -> None:
        if not are_hashes(leaf_hashes):
            raise LocalProtocolError(f"leaf hashes: expected {HASH_BYTES} bytes each")
        self.start = frontier.size
        self.size = frontier.size + len(leaf_hashes)
        self._bases: list[int] = []
        self._levels: list[Sequence[bytes]] = []
        if leaf_hashes:
            self._grow(frontier, leaf_hashes)
            self.root = self._levels[-1][0]
            self.frontier = self._edge()
        else:
            self.root = frontier.root()
            self.frontier = frontier

    def _grow(self, frontier: Frontier, leaf_hashes: Sequence[bytes]) -> None:
        """Compute every level up to the root."""
        lefts, base, nodes = list(frontier.hashes), frontier.size, list(leaf_hashes)
        while True:
            if base & 1:  # bit h of the size before is set: the frontier has a subtree of height h, our left partner
                nodes.insert(0, lefts.pop())
                base -= 1
            self._bases.append(base)
            self._levels.append(nodes)
            if base == 0 and len(nodes) == 1:
                return
            nodes = hash_pairs(nodes)
            base >>= 1

    def _edge(self) -> Frontier:
        """Pick the complete subtrees of the tree after the group: node (size >> h) - 1 for every bit h of the size."""
        size = self.size
        heights = (height for height in reversed(range(size.bit_length())) if size >> height & 1)
        return Frontier(
            size, tuple(self._levels[height][(size >> height) - 1 - self._bases[height]] for height in heights)
        )

    def inclusion_proof(self, index: int) -> tuple[bytes, ...]:
        """Look up the proof that a leaf of the group is in the tree after the group.

        Args:
            index: in the whole tree, `start` <= index < `size`.

        Returns:
            n x 32 bytes, from the leaf's sibling up to the root's child (RFC 6962 2.1.1).

        Raises:
            LocalProtocolError: the index is outside the group.
        """
        self._check_range(index, index + 1)
        proof = []
        for base, nodes in zip(self._bases, self._levels, strict=True):
            place = (index ^ 1) - base
            if place < len(nodes):
                proof.append(nodes[place])
            index >>= 1
        return tuple(proof)

    def range_proof(self, start: int, end: int) -> tuple[bytes, ...]:
        """Look up the proof for the leaves [start, end) of the group, as `verify_range` defines it.

        Raises:
            LocalProtocolError: the range is empty or not within the group.
        """
        self._check_range(start, end)
        lefts, rights = [], []
        for base, nodes in zip(self._bases, self._levels, strict=True):
            if start & 1:
                lefts.append(nodes[start - 1 - base])
            if end & 1 and end - base < len(nodes):
                rights.append(nodes[end - base])
            start >>= 1
            end = end + 1 >> 1
        return (*reversed(lefts), *rights)

    def _check_range(self, start: int, end: int) -> None:
        if not self.start <= start < end <= self.size:
            raise LocalProtocolError(f"range [{start}, {end}): expected within [{self.start}, {self.size})")

    def new_nodes(self, height: int) -> Sequence[bytes]:
        """Return the complete subtrees of 2**height leaves that this group completed, from left to right.

        The tiles of level l gain `new_nodes(8 * l)`.
        """
        first, end = self.start >> height, self.size >> height
        if first == end:
            return ()
        base = self._bases[height]
        return self._levels[height][first - base : end - base]
