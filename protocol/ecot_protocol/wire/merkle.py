# SPDX-License-Identifier: AGPL-3.0-or-later
"""The Merkle tree of the ledger (RFC 6962, SHA-256): everything in one place to import from.

- `merkle_hash`: the hashes and the verifiers; all that a client needs.
- `merkle_group`: `Frontier` and `GroupTree`: append without reading, proofs for what was just appended; the writer.
- `merkle_tiles`: roots and proofs of the whole tree from stored tiles, and the edge of partial tiles; the store.

Example, one leaf through all three:

>>> edge, before = TileEdge.empty(), Frontier.empty()
>>> tree = GroupTree(before, leaf_hashes([b"genesis", b"first entry"]))
>>> edge.append_group(tree)
[]
>>> inclusion_proof(edge, 1, 2) == tree.inclusion_proof(1)
True
>>> verify_inclusion(leaf_hash(b"first entry"), 1, 2, tree.inclusion_proof(1), tree.root)
True
"""

from ecot_protocol.wire.merkle_group import Frontier, GroupTree
from ecot_protocol.wire.merkle_hash import (
    EMPTY_ROOT,
    HASH_BYTES,
    MAX_SIZE,
    leaf_hash,
    leaf_hashes,
    node_hash,
    verify_consistency,
    verify_inclusion,
    verify_range,
)
from ecot_protocol.wire.merkle_tiles import (
    TILE_BYTES,
    TILE_HEIGHT,
    TILE_WIDTH,
    FullTile,
    TileEdge,
    TileReader,
    consistency_proof,
    frontier,
    inclusion_proof,
    range_proof,
    root,
)

__all__ = [
    "EMPTY_ROOT",
    "HASH_BYTES",
    "MAX_SIZE",
    "TILE_BYTES",
    "TILE_HEIGHT",
    "TILE_WIDTH",
    "Frontier",
    "FullTile",
    "GroupTree",
    "TileEdge",
    "TileReader",
    "consistency_proof",
    "frontier",
    "inclusion_proof",
    "leaf_hash",
    "leaf_hashes",
    "node_hash",
    "range_proof",
    "root",
    "verify_consistency",
    "verify_inclusion",
    "verify_range",
]
