# SPDX-License-Identifier: AGPL-3.0-or-later
r"""The decision log: the second log of a ledger, which holds what its own log decided and nothing else.

- Its origin is the ledger's origin + ``/decisions``; the log's key signs its checkpoints, under that name.
- Leaf n is canonical MessagePack ``[tid, outcome]`` of the n-th ``federation.decide`` record, outcome 0 (abort) or 1
  (commit). So it is public, it follows from the ledger, and a proof in it is a few hundred bytes.
- A checkpoint is signed over durable records only.
- A decision *counts* once its leaf is included in a checkpoint that the quorum of the deal's witnesses has cosigned.
  Witnesses are given the leaves themselves, keep them, and refuse a second leaf for a tid: nothing that counts is
  hidden from them, and what a lost decider decided can be read from its witnesses.

`DecisionTree` is the tree over the leaves that the state remembers; of those before it only what proofs need.

>>> decision_leaf(bytes(16), "commit").hex()
'92c4100000000000000000000000000000000001'
"""

from collections.abc import Iterable, Sequence
from typing import Final, Literal

from ecot_protocol.errors import LocalProtocolError
from ecot_protocol.wire.encoding import encode
from ecot_protocol.wire.merkle_group import Frontier
from ecot_protocol.wire.merkle_hash import leaf_hash, node_hash

Outcome = Literal["abort", "commit"]
OUTCOMES: Final[tuple[Outcome, Outcome]] = ("abort", "commit")
LEAF_BYTES: Final = 20


def decision_leaf(tid: bytes, outcome: Outcome) -> bytes:
    """Return a leaf's data, 20 bytes."""
    return encode((tid, OUTCOMES.index(outcome)))


def decision_hash(tid: bytes, outcome: Outcome) -> bytes:
    """Return a leaf's hash."""
    return leaf_hash(decision_leaf(tid, outcome))


class DecisionTree:
    """The Merkle tree (RFC 6962) of a decision log, from some leaf on.

    Args:
        before: the frontier of the leaves that are gone.
    """

    __slots__ = ("_nodes", "leaves", "size", "start")

    def __init__(self, before: Frontier) -> None:
        self.start = self.size = before.size
        self.leaves: list[tuple[bytes, Outcome]] = []
        """Leaves from `start` on."""
        heights = [height for height in reversed(range(before.size.bit_length())) if before.size >> height & 1]
        self._nodes: dict[tuple[int, int], bytes] = {
            (height, (before.size >> height) - 1): node for height, node in zip(heights, before.hashes, strict=True)
        }

    def append(self, tid: bytes, outcome: Outcome) -> None:
        """Add a leaf."""
        self.leaves.append((tid, outcome))
        node, height, place = decision_hash(tid, outcome), 0, self.size
        self._nodes[0, place] = node
        while place & 1:
            node = node_hash(self._nodes[height, place - 1], node)
            height, place = height + 1, place >> 1
            self._nodes[height, place] = node
        self.size += 1

    def slice(self, start: int, end: int) -> Sequence[tuple[bytes, Outcome]]:
        """Return leaves; those before `self.start` are gone."""
        if start < self.start:
            raise LocalProtocolError(f"leaf {start}: the first is {self.start}")
        return self.leaves[start - self.start : end - self.start]

    def frontier(self, size: int) -> Frontier:
        """Return the frontier of the first `size` leaves, at least `start`."""
        heights = [height for height in reversed(range(size.bit_length())) if size >> height & 1]
        return Frontier(size, tuple(self._nodes[height, (size >> height) - 1] for height in heights))

    def root(self, size: int) -> bytes:
        """Return the root over the first `size` leaves."""
        return self.frontier(size).root()

    def inclusion(self, number: int, size: int) -> tuple[bytes, ...]:
        """Return the proof of leaf `number` in the tree of `size`, leaf's sibling first.

        A left sibling that lies wholly among the leaves that are gone is in their frontier, so it is known.
        """
        proof: list[bytes] = []
        start, end = 0, size
        while end - start > 1:
            half = 1 << (end - start - 1).bit_length() - 1
            if number < start + half:
                proof.append(self._hash(start + half, end))
                end = start + half
            else:
                proof.append(self._hash(start, start + half))
                start += half
        return tuple(reversed(proof))

    def _hash(self, start: int, end: int) -> bytes:
        count = end - start
        if count & (count - 1) == 0:
            return self._nodes[count.bit_length() - 1, start // count]
        half = 1 << (count - 1).bit_length() - 1
        return node_hash(self._hash(start, start + half), self._hash(start + half, end))


def grown_frontier(before: Frontier, leaves: Iterable[tuple[bytes, Outcome]]) -> Frontier:
    """Return the frontier after more leaves."""
    for tid, outcome in leaves:
        before = before.append(decision_hash(tid, outcome))
    return before
