# SPDX-License-Identifier: AGPL-3.0-or-later
"""The state digest against its definition, read naively: a trie in which a subtree with one leaf is that leaf."""

import random
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger_kit import LedgerKit

from ecot_protocol.ledger.digest import EMPTY, StateMap, leaf, position, verify_absence, verify_row
from ecot_protocol.wire.encoding import encode

# Places that share long prefixes, as 4,096 buckets of a random map rarely would.
places = st.builds(
    lambda head, tail: (bytes(head) + tail)[:32], st.sampled_from((b"", b"\xff", b"\x00" * 20, b"\xaa" * 31)),
    st.binary(min_size=32, max_size=32),
)  # fmt: skip
maps = st.dictionaries(places, st.binary(max_size=8), max_size=40)


def naive_root(rows: dict[bytes, bytes], depth: int = 0) -> bytes:
    """Return the digest by the definition in `docs/specification/ledger.md`."""
    if not rows:
        return bytes(32)
    if len(rows) == 1:
        ((place, value),) = rows.items()
        return sha256(b"\x00" + place + sha256(value).digest()).digest()
    sides: tuple[dict[bytes, bytes], dict[bytes, bytes]] = ({}, {})
    for place, value in rows.items():
        bits = "".join(f"{byte:08b}" for byte in place)
        sides[int(bits[depth])][place] = value
    return sha256(b"\x01" + naive_root(sides[0], depth + 1) + naive_root(sides[1], depth + 1)).digest()


def filled(rows: dict[bytes, bytes]) -> StateMap:
    state_map = StateMap()
    for place, value in rows.items():
        state_map.put(place, value)
    return state_map


@given(maps)
def test_the_root_is_that_of_the_definition(rows: dict[bytes, bytes]) -> None:
    assert filled(rows).root() == naive_root(rows)


@given(maps, st.randoms(use_true_random=False))
def test_the_root_depends_on_the_rows_alone(rows: dict[bytes, bytes], rng: random.Random) -> None:
    """Whatever came and went before, and in whatever order; with digests asked for in between."""
    state_map = StateMap()
    steps = [*rows.items()] * 2 + [(sha256(place).digest(), b"gone") for place in rows]
    rng.shuffle(steps)
    for place, value in steps:
        state_map.put(place, value)
        if rng.random() < 0.2:
            state_map.root()
    for place in rows:
        state_map.put(sha256(place).digest(), rows.get(sha256(place).digest()))
    assert state_map.root() == naive_root(rows)


@given(maps, places, st.binary(max_size=8))
def test_a_proof_holds_for_its_row_and_no_other(rows: dict[bytes, bytes], other: bytes, wrong: bytes) -> None:
    state_map = filled(rows)
    root = state_map.root()
    for place, value in rows.items():
        siblings = state_map.prove(place)
        assert verify_row(place, value, siblings, root)
        assert verify_row(place, wrong, siblings, root) == (wrong == value)
        assert not verify_row(place, value, siblings, sha256(root).digest())
        assert not verify_row(place, value, (*siblings, EMPTY), root)
        assert not siblings or not verify_row(place, value, siblings[:-1], root)
        assert other == place or not verify_row(other, value, siblings, root)


@given(maps, places)
def test_a_row_that_is_not_there_is_proven_absent(rows: dict[bytes, bytes], place: bytes) -> None:
    rows = {one: value for one, value in rows.items() if one != place}
    state_map = filled(rows)
    other = state_map.find_neighbour(place)
    neighbour = None if other is None else (other, sha256(rows[other]).digest())
    assert verify_absence(place, neighbour, state_map.prove(place), state_map.root())


@given(maps.filter(bool), st.data())
def test_a_row_that_is_there_is_never_proven_absent(rows: dict[bytes, bytes], data: st.DataObject) -> None:
    """Even by a prover that chooses any other row, or none, and cuts the path where it likes."""
    state_map = filled(rows)
    place = data.draw(st.sampled_from(sorted(rows)))
    siblings = state_map.prove(place)
    assert state_map.find_neighbour(place) is None
    liars = [None, *((one, sha256(value).digest()) for one, value in rows.items())]
    for neighbour in liars:
        for length in range(len(siblings) + 1):
            assert not verify_absence(place, neighbour, siblings[:length], state_map.root())


@pytest.mark.parametrize("siblings", [(b"",), (bytes(31),), (bytes(33),), (bytes(32),) * 257])
def test_siblings_of_another_form_prove_nothing(siblings: tuple[bytes, ...]) -> None:
    place = bytes(32)
    assert not verify_row(place, b"", siblings, bytes(32))
    assert not verify_absence(place, None, siblings, bytes(32))
    assert not verify_absence(place, (b"\x01" * 32, bytes(32)), siblings, bytes(32))


def test_a_neighbour_of_another_form_proves_nothing() -> None:
    root = leaf(b"\x01" * 32, b"")
    assert verify_absence(bytes(32), (b"\x01" * 32, sha256(b"").digest()), (), root)
    assert not verify_absence(bytes(32), (b"\x01" * 31, sha256(b"").digest()), (), root)
    assert not verify_absence(bytes(32), (b"\x01" * 32, b""), (), root)


def test_the_empty_state_has_a_digest_of_zeros() -> None:
    assert StateMap().root() == EMPTY == naive_root({})
    assert verify_absence(b"\x07" * 32, None, (), EMPTY)


def test_two_tables_never_share_a_place() -> None:
    assert len({position("a.b", b"c"), position("a.bc", b""), position("a", b"b\nc"), position("a.b", b"\nc")}) == 4


def test_a_member_proves_its_own_row_and_that_another_is_not_there() -> None:
    kit = LedgerKit()
    ada = kit.join("ada")
    digest = kit.state.digest()
    key = encode(ada.member)
    value, siblings = kit.state.prove("membership.members", key)
    assert value is not None
    assert verify_row(position("membership.members", key), value, siblings, digest)
    nobody = encode(bytes(16))
    assert kit.state.prove("membership.members", nobody)[0] is None
    neighbour, path = kit.state.prove_absence("membership.members", nobody)
    assert verify_absence(position("membership.members", nobody), neighbour, path, digest)
    assert not verify_absence(position("membership.members", key), neighbour, path, digest)
