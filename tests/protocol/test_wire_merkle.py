# SPDX-License-Identifier: AGPL-3.0-or-later
"""The Merkle tree against the recursive definition of RFC 6962, its published vectors, and forged proofs."""

import doctest
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecot_protocol.errors import LocalProtocolError, RemoteProtocolError
from ecot_protocol.wire import merkle, merkle_group, merkle_hash, merkle_tiles
from ecot_protocol.wire.merkle import Frontier, GroupTree, TileEdge

# The leaves and roots that certificate-transparency-go and others test with.
RFC_6962_LEAVES = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
RFC_6962_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
LEAVES = merkle.leaf_hashes(str(n).encode() for n in range(700))


def split_of(count: int) -> int:
    """The largest power of two smaller than count."""
    return 1 << (count - 1).bit_length() - 1


def reference_root(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962 2.1, word for word, over leaf hashes."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = split_of(len(leaves))
    return sha256(b"\x01" + reference_root(leaves[:k]) + reference_root(leaves[k:])).digest()


def reference_path(index: int, leaves: list[bytes]) -> list[bytes]:
    """PATH of RFC 6962 2.1.1."""
    if len(leaves) == 1:
        return []
    k = split_of(len(leaves))
    if index < k:
        return [*reference_path(index, leaves[:k]), reference_root(leaves[k:])]
    return [*reference_path(index - k, leaves[k:]), reference_root(leaves[:k])]


def reference_proof(old: int, leaves: list[bytes], whole: bool = True) -> list[bytes]:
    """SUBPROOF of RFC 6962 2.1.2."""
    if old == len(leaves):
        return [] if whole else [reference_root(leaves)]
    k = split_of(len(leaves))
    if old <= k:
        return [*reference_proof(old, leaves[:k], whole), reference_root(leaves[k:])]
    return [*reference_proof(old - k, leaves[k:], False), reference_root(leaves[:k])]


class MemoryTiles:
    """The tiles of a tree of `size` leaves made by appending to an edge; counts what is read."""

    def __init__(self, size: int, group: int = 100) -> None:
        self.edge, self.full, self.reads = TileEdge.empty(), {}, []
        for at in range(0, size, group):
            for tile in self.edge.append_many(LEAVES[at : min(at + group, size)]):
                self.full[tile.level, tile.index] = tile.hashes

    def tile(self, level: int, index: int, width: int) -> bytes:
        self.reads.append((level, index))
        if (level, index) in self.full:
            return self.full[level, index][: width * 32]
        return self.edge.tile(level, index, width)


class LeafTiles:
    """The tiles of any tree, computed from all its leaves by the definition in tlog-tiles."""

    def __init__(self, leaves: list[bytes]) -> None:
        self.leaves = leaves

    def tile(self, level: int, index: int, width: int) -> bytes:
        span = 256**level
        starts = [(index * 256 + i) * span for i in range(width)]
        return b"".join(reference_root(self.leaves[start : start + span]) for start in starts)


def test_examples_in_the_docstrings_run() -> None:
    for module in (merkle, merkle_hash, merkle_group, merkle_tiles):
        result = doctest.testmod(module)
        assert result.attempted > 0
        assert result.failed == 0


def test_roots_equal_the_published_vectors() -> None:
    hashes = merkle.leaf_hashes(RFC_6962_LEAVES)
    assert merkle.EMPTY_ROOT.hex() == RFC_6962_ROOTS[0]
    for size, expected in enumerate(RFC_6962_ROOTS):
        assert Frontier.of(hashes[:size]).root().hex() == expected
        assert GroupTree(Frontier.empty(), hashes[:size]).root.hex() == expected
        assert merkle.root(LeafTiles(hashes[:size]), size).hex() == expected


def test_published_proofs() -> None:
    """The paths and proofs listed in the certificate-transparency tests for the tree of eight leaves."""
    hashes = merkle.leaf_hashes(RFC_6962_LEAVES)
    tree = GroupTree(Frontier.empty(), hashes)
    assert [h.hex() for h in tree.inclusion_proof(5)] == [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]
    assert [h.hex() for h in merkle.consistency_proof(LeafTiles(hashes), 6, 8)] == [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]


def test_small_trees_equal_the_recursive_definition() -> None:
    for size in range(1, 33):
        leaves = LEAVES[:size]
        tree, tiles = GroupTree(Frontier.empty(), leaves), LeafTiles(leaves)
        assert tree.root == merkle.root(tiles, size) == reference_root(leaves)
        for index in range(size):
            proof = tree.inclusion_proof(index)
            assert proof == merkle.inclusion_proof(tiles, index, size) == tuple(reference_path(index, leaves))
            assert merkle.verify_inclusion(leaves[index], index, size, proof, tree.root)
        for old in range(1, size + 1):
            proof = merkle.consistency_proof(tiles, old, size)
            assert proof == tuple(reference_proof(old, leaves))
            assert merkle.verify_consistency(old, reference_root(leaves[:old]), size, tree.root, proof)


def test_every_range_of_small_trees_is_proved() -> None:
    for size in range(1, 20):
        leaves = LEAVES[:size]
        tree, tiles = GroupTree(Frontier.empty(), leaves), LeafTiles(leaves)
        for start in range(size):
            for end in range(start + 1, size + 1):
                proof = tree.range_proof(start, end)
                assert proof == merkle.range_proof(tiles, start, end, size)
                assert merkle.verify_range(start, leaves[start:end], size, proof, tree.root)
            assert tree.range_proof(start, size) == Frontier.of(leaves[:start]).hashes


@given(before=st.integers(0, 300), count=st.integers(0, 300))
@settings(max_examples=60, deadline=None)
def test_a_group_on_a_frontier_equals_the_whole_tree(before: int, count: int) -> None:
    leaves = LEAVES[: before + count]
    frontier = Frontier.of(leaves[:before])
    tree = GroupTree(frontier, leaves[before:])
    assert tree.size == before + count
    assert tree.root == reference_root(leaves)
    assert tree.frontier == Frontier.of(leaves)
    for index in range(before, before + count, 17):
        proof = tree.inclusion_proof(index)
        assert proof == tuple(reference_path(index, leaves))
    if count:
        assert tree.range_proof(before, tree.size) == frontier.hashes
        whole = tree.range_proof(before, tree.size)
        assert merkle.verify_range(before, leaves[before:], tree.size, whole, tree.root)


def test_frontier_appends_one_by_one() -> None:
    frontier = Frontier.empty()
    assert frontier.root() == merkle.EMPTY_ROOT
    for size, leaf in enumerate(LEAVES[:70], start=1):
        frontier = frontier.append(leaf)
        assert frontier == Frontier.of(LEAVES[:size])
        assert frontier.root() == reference_root(LEAVES[:size])


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_proofs_from_stored_tiles(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 700))
    tiles = MemoryTiles(size, data.draw(st.sampled_from([1, 7, 100, 256, 700])))
    root = reference_root(LEAVES[:size])
    assert merkle.root(tiles, size) == root
    assert merkle.frontier(tiles, size) == Frontier.of(LEAVES[:size]) == tiles.edge.frontier()
    index = data.draw(st.integers(0, size - 1))
    assert merkle.inclusion_proof(tiles, index, size) == tuple(reference_path(index, LEAVES[:size]))
    old = data.draw(st.integers(1, size))
    assert merkle.consistency_proof(tiles, old, size) == tuple(reference_proof(old, LEAVES[:size]))
    end = data.draw(st.integers(index + 1, size))
    proof = merkle.range_proof(tiles, index, end, size)
    assert merkle.verify_range(index, LEAVES[index:end], size, proof, root)
    # An older tree is read from the same tiles at a smaller width.
    assert merkle.root(tiles, old) == reference_root(LEAVES[:old])


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_changed_proof_never_verifies(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, 40))
    leaves = LEAVES[:size]
    root, tiles = reference_root(leaves), LeafTiles(leaves)
    start = data.draw(st.integers(0, size - 1))
    end = data.draw(st.integers(start + 1, size))
    old = data.draw(st.integers(1, size - 1))
    old_root = reference_root(leaves[:old])
    proofs = {
        "inclusion": merkle.inclusion_proof(tiles, start, size),
        "consistency": merkle.consistency_proof(tiles, old, size),
        "range": merkle.range_proof(tiles, start, end, size),
    }
    for kind, proof in proofs.items():
        bad = list(proof)
        change = data.draw(st.sampled_from(["longer", "shorter", "flipped", "long hash"]))
        place = data.draw(st.integers(0, max(0, len(bad) - 1)))
        if change == "longer" or not bad:
            bad.insert(place, data.draw(st.sampled_from([bytes(32), *leaves])))
        elif change == "shorter":
            del bad[place]
        elif change == "flipped":
            bad[place] = bytes([bad[place][0] ^ 1]) + bad[place][1:]
        else:
            bad[place] += b"\x00"
        verdict = {
            "inclusion": lambda p: merkle.verify_inclusion(leaves[start], start, size, p, root),
            "consistency": lambda p: merkle.verify_consistency(old, old_root, size, root, p),
            "range": lambda p: merkle.verify_range(start, leaves[start:end], size, p, root),
        }[kind]
        assert verdict(proof)
        assert not verdict(tuple(bad))


def test_a_hash_too_many_or_too_few_at_either_end_is_refused() -> None:
    for size in range(2, 20):
        leaves = LEAVES[:size]
        root, tiles = reference_root(leaves), LeafTiles(leaves)
        for at in range(1, size):
            old_root = reference_root(leaves[:at])
            inclusion = merkle.inclusion_proof(tiles, at, size)
            consistency = merkle.consistency_proof(tiles, at, size)
            span = merkle.range_proof(tiles, at, size, size)
            for change in (lambda p: (*p, bytes(32)), lambda p: (bytes(32), *p), lambda p: p[1:], lambda p: p[:-1]):
                assert not merkle.verify_inclusion(leaves[at], at, size, change(inclusion), root)
                assert not merkle.verify_consistency(at, old_root, size, root, change(consistency))
                assert not merkle.verify_range(at, leaves[at:], size, change(span), root)


@given(
    numbers=st.tuples(*[st.one_of(st.integers(-5, 70), st.integers(-(2**65), 2**65))] * 2),
    proof=st.lists(st.one_of(st.binary(min_size=32, max_size=32), st.binary(max_size=40)), max_size=70),
    leaves=st.lists(st.binary(min_size=32, max_size=32), max_size=5),
)
def test_verifiers_answer_on_any_input(numbers: tuple[int, int], proof: list[bytes], leaves: list[bytes]) -> None:
    first, second = numbers
    assert merkle.verify_inclusion(bytes(32), first, second, proof, b"\x01" * 32) is False
    assert merkle.verify_consistency(first, bytes(32), second, b"\x01" * 32, proof) is False
    assert merkle.verify_range(first, leaves, second, proof, b"\x01" * 32) is False


def test_consistency_of_empty_and_equal_trees() -> None:
    root = reference_root(LEAVES[:3])
    assert merkle.verify_consistency(0, merkle.EMPTY_ROOT, 3, root, ())
    assert merkle.verify_consistency(0, merkle.EMPTY_ROOT, 0, merkle.EMPTY_ROOT, ())
    assert merkle.verify_consistency(3, root, 3, root, ())
    assert not merkle.verify_consistency(0, root, 3, root, ())
    assert not merkle.verify_consistency(0, merkle.EMPTY_ROOT, 3, root, (root,))
    assert not merkle.verify_consistency(0, root, 0, root, ())
    assert not merkle.verify_consistency(3, root, 3, LEAVES[0], ())
    assert not merkle.verify_consistency(3, root, 3, root, (root,))
    assert not merkle.verify_consistency(4, root, 3, root, ())


def test_leaf_cannot_pass_for_a_node() -> None:
    left, right = LEAVES[:2]
    assert merkle.leaf_hash(left + right) != merkle.node_hash(left, right)


def test_size_70000_has_the_tiles_that_the_specification_lists() -> None:
    edge, full = TileEdge.empty(), []
    leaf = LEAVES[0]
    for _ in range(7):
        full += edge.append_many([leaf] * 10_000)
    assert sum(tile.level == 0 for tile in full) == 273
    assert [tile.index for tile in full if tile.level == 1] == [0]
    assert {level: len(hashes) // 32 for level, hashes in edge.tiles().items()} == {0: 112, 1: 17, 2: 1}
    assert edge.size == 70_000
    assert edge.frontier() == Frontier.of([leaf] * 70_000)


def test_size_256_is_a_full_tile_and_a_partial_one_of_width_1() -> None:
    edge = TileEdge.empty()
    (tile,) = edge.append_many(LEAVES[:256])
    assert (tile.level, tile.index, tile.hashes) == (0, 0, b"".join(LEAVES[:256]))
    assert edge.tiles() == {1: reference_root(LEAVES[:256])}


@given(st.lists(st.integers(0, 300), max_size=8))
@settings(max_examples=40, deadline=None)
def test_edge_grows_alike_from_leaves_and_from_groups(counts: list[int]) -> None:
    plain, grouped, frontier = TileEdge.empty(), TileEdge.empty(), Frontier.empty()
    for count in counts:
        leaves = LEAVES[count : count + count]
        tree = GroupTree(frontier, leaves)
        assert plain.append_many(leaves) == grouped.append_group(tree)
        assert plain.tiles() == grouped.tiles()
        assert grouped.size == tree.size
        frontier = tree.frontier
        again = TileEdge.from_tiles(grouped.tiles())
        assert (again.size, again.tiles(), again.frontier()) == (grouped.size, grouped.tiles(), frontier)


def test_one_proof_reads_few_tiles() -> None:
    """In a tree of a million leaves a proof reads, at each of three levels, the leaf's tile and the right edge."""
    tiles = MemoryTiles(700)
    merkle.inclusion_proof(tiles, 3, 700)
    assert len(tiles.reads) == len(set(tiles.reads)) <= 4

    class Counting:
        reads = 0

        def tile(self, level: int, index: int, width: int) -> bytes:
            self.reads += 1
            return bytes(32 * width)

    counting = Counting()
    merkle.inclusion_proof(counting, 123_456, 1_000_000)
    assert counting.reads <= 6


def test_tile_of_wrong_length_is_refused() -> None:
    class Short:
        def tile(self, level: int, index: int, width: int) -> bytes:
            return bytes(32 * width - 1)

    with pytest.raises(RemoteProtocolError) as error:
        merkle.root(Short(), 5)
    assert error.value.code == "tile_length_wrong"


@pytest.mark.parametrize("tiles", [{0: b"x"}, {0: bytes(8192)}, {8: bytes(32)}, {-1: bytes(32)}])
def test_edge_from_damaged_tiles_is_refused(tiles: dict[int, bytes]) -> None:
    with pytest.raises(RemoteProtocolError):
        TileEdge.from_tiles(tiles)


def test_misuse_is_local() -> None:
    tree = GroupTree(Frontier.of(LEAVES[:3]), LEAVES[3:6])
    tiles = LeafTiles(LEAVES[:6])
    misuses = [
        lambda: Frontier(3, (LEAVES[0],)),
        lambda: Frontier(1, (b"short",)),
        lambda: Frontier(-1, ()),
        lambda: GroupTree(Frontier.empty(), [b"short"]),
        lambda: tree.inclusion_proof(2),
        lambda: tree.inclusion_proof(6),
        lambda: tree.range_proof(4, 4),
        lambda: merkle.inclusion_proof(tiles, 6, 6),
        lambda: merkle.consistency_proof(tiles, 7, 6),
        lambda: merkle.range_proof(tiles, 3, 7, 6),
        lambda: merkle.root(tiles, -1),
        lambda: TileEdge.empty().append_group(tree),
        lambda: TileEdge.empty().append_many([b"short"]),
        lambda: TileEdge.empty().tile(0, 0, 1),
    ]
    for misuse in misuses:
        with pytest.raises(LocalProtocolError):
            misuse()
