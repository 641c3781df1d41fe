# SPDX-License-Identifier: AGPL-3.0-or-later
"""Hash and check the Merkle tree of RFC 6962 with SHA-256.

Rules:

- The hash of an empty tree is SHA-256(""), of a leaf SHA-256(0x00 || data), of a node SHA-256(0x01 || left || right).
- At every level the nodes pair from the left; a last node without a partner moves up unchanged. This gives the same
  tree as RFC 6962's "largest power of two smaller than n" and can be computed level by level.
- A verifier answers `True` or `False`, never raises, and refuses a proof with a hash too few or too many.
- A tree has at most 2**63 - 1 leaves (the C2SP formats count in signed 64 bits), so a proof has at most 63 hashes, a
  range proof at most 126.

Example:

>>> a, b, c = (leaf_hash(data) for data in (b"a", b"b", b"c"))
>>> root = node_hash(node_hash(a, b), c)
>>> verify_inclusion(a, 0, 3, (b, c), root)
True
>>> verify_inclusion(a, 1, 3, (b, c), root)
False
>>> verify_consistency(2, node_hash(a, b), 3, root, (c,))
True
>>> verify_range(1, (b, c), 3, (a,), root)
True

Source: RFC 6962 2.1 (the tree), RFC 9162 2.1.3.2 and 2.1.4.2 (the verifications).
"""

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Final

HASH_BYTES: Final = 32
MAX_SIZE: Final = 2**63 - 1
"""Largest count of leaves in a tree."""

EMPTY_ROOT: Final = sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    """Hash the data of one leaf: SHA-256(0x00 || data), 32 bytes."""
    return sha256(b"\x00" + data).digest()


def leaf_hashes(leaves: Iterable[bytes]) -> list[bytes]:
    """Hash the data of many leaves, in order."""
    return [sha256(b"\x00" + data).digest() for data in leaves]


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash two subtrees into their parent: SHA-256(0x01 || left || right), 32 bytes."""
    return sha256(b"\x01" + left + right).digest()


def hash_pairs(nodes: Sequence[bytes]) -> list[bytes]:
    """Hash the level above `nodes`, whose first has an even index; a last node without partner moves up unchanged."""
    lefts = iter(nodes)
    # One comprehension over the pairs and no call of node_hash: this line is the cost of every appended leaf.
    above = [sha256(b"\x01" + left + right).digest() for left, right in zip(lefts, lefts, strict=False)]
    if len(nodes) & 1:
        above.append(nodes[-1])
    return above


def subtree_root(nodes: Sequence[bytes]) -> bytes:
    """Compute the root over one or more nodes of the same level, the first of which begins a subtree."""
    while len(nodes) > 1:
        nodes = hash_pairs(nodes)
    return nodes[0]


def fold_subtrees(subtrees: Sequence[bytes]) -> bytes:
    """Compute the root over complete subtrees of falling size (one or more, largest first)."""
    root = subtrees[-1]
    for left in reversed(subtrees[:-1]):
        root = node_hash(left, root)
    return root


def are_hashes(hashes: Iterable[bytes]) -> bool:
    """Tell whether all of them are 32 bytes long."""
    return set(map(len, hashes)) <= {HASH_BYTES}


def verify_inclusion(leaf_hash: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Tell whether `proof` shows that `leaf_hash` is leaf `index` of the tree of `size` leaves and this `root`.

    Args:
        leaf_hash: 32 bytes, the hash of the leaf (not its data).
        index: from 0.
        size: count of leaves, 1..2**63-1.
        proof: n x 32 bytes, from the leaf's sibling up to the root's child.
        root: 32 bytes.

    Source: RFC 9162 2.1.3.2.
    """
    if not 0 <= index < size <= MAX_SIZE or not are_hashes((leaf_hash, root, *proof)):
        return False
    node, last, step = leaf_hash, size - 1, 0
    while last:
        if index & 1 or index < last:  # else it is a last node without partner and moves up
            if step == len(proof):
                return False
            sibling = proof[step]
            node = node_hash(sibling, node) if index & 1 else node_hash(node, sibling)
            step += 1
        index >>= 1
        last >>= 1
    return step == len(proof) and node == root


def verify_consistency(old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Tell whether `proof` shows that the tree of `new_size` leaves begins with the tree of `old_size` leaves.

    Every tree extends the empty one, whose proof is empty and whose root is `EMPTY_ROOT`. Two trees of one size agree
    if their roots are equal and the proof is empty.

    Args:
        old_size: 0..new_size.
        old_root: 32 bytes.
        new_size: 0..2**63-1.
        new_root: 32 bytes.
        proof: n x 32 bytes, in the order of RFC 6962 2.1.2.

    Source: RFC 9162 2.1.4.2.
    """
    if not 0 <= old_size <= new_size <= MAX_SIZE or not are_hashes((old_root, new_root, *proof)):
        return False
    if old_size == new_size:
        return not proof and old_root == new_root and (old_size > 0 or old_root == EMPTY_ROOT)
    if old_size == 0:
        return not proof and old_root == EMPTY_ROOT
    hashes = list(proof)
    if old_size & (old_size - 1) == 0:  # the old tree is itself a node of the new one, which the sender leaves out
        hashes.insert(0, old_root)
    if not hashes:
        return False
    return _replay_consistency(old_size - 1, new_size - 1, hashes) == (old_root, new_root)


def _replay_consistency(old_last: int, new_last: int, hashes: list[bytes]) -> tuple[bytes, bytes] | None:
    """Compute the two roots that the hashes lead to, or nothing if there are too few or too many of them."""
    while old_last & 1:
        old_last >>= 1
        new_last >>= 1
    old = new = hashes[0]
    step = 1
    while new_last:
        if old_last & 1 or old_last < new_last:
            if step == len(hashes):
                return None
            sibling = hashes[step]
            step += 1
            if old_last & 1:
                old, new = node_hash(sibling, old), node_hash(sibling, new)
            else:
                new = node_hash(new, sibling)
        old_last >>= 1
        new_last >>= 1
    return (old, new) if step == len(hashes) else None


def verify_range(start: int, leaf_hashes: Sequence[bytes], size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Tell whether `proof` shows that `leaf_hashes` are the leaves `start`, `start + 1`, ... of the tree.

    A range proof for [start, end) is: first the hashes of the maximal complete subtrees left of `start`, largest
    first (the decomposition of [0, start) by the bits of `start`), then the hashes of the maximal subtrees right of
    `end`, from left to right. The very last one may be the incomplete right edge of the tree, as in an inclusion
    proof. A range that ends at the tree's end therefore carries only the hashes of the frontier before `start`; the
    range of the whole tree carries none.

    Args:
        start: index of the first leaf, from 0.
        leaf_hashes: 1 or more x 32 bytes.
        size: count of leaves of the whole tree, at most 2**63-1.
        proof: n x 32 bytes as above.
        root: 32 bytes.
    """
    last = start + len(leaf_hashes) - 1
    if not 0 <= start <= last < size <= MAX_SIZE or not are_hashes((root, *proof)) or not are_hashes(leaf_hashes):
        return False
    left_count = start.bit_count()
    if len(proof) < left_count:
        return False
    lefts, rights = list(proof[:left_count]), list(reversed(proof[left_count:]))
    nodes, tree_last = list(leaf_hashes), size - 1
    while tree_last:
        if start & 1:
            nodes.insert(0, lefts.pop())
        if not last & 1 and last < tree_last:
            if not rights:
                return False
            nodes.append(rights.pop())
        nodes = hash_pairs(nodes)
        start >>= 1
        last >>= 1
        tree_last >>= 1
    return not lefts and not rights and nodes == [root]
