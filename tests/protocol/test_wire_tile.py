# SPDX-License-Identifier: AGPL-3.0-or-later
"""Tile paths and entry bundles: the examples of tlog-tiles.md, one spelling for each tile, and arbitrary bytes."""

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecot_protocol.errors import LocalProtocolError, RemoteProtocolError
from ecot_protocol.wire import tile
from ecot_protocol.wire.tile import (
    TilePath,
    decode_bundle,
    encode_bundle,
    entries_path,
    parse_tile_path,
    partial_tiles,
    partial_width,
    tile_path,
)

TILE_PATHS = st.builds(
    TilePath,
    st.one_of(st.none(), st.integers(0, 63)),
    st.one_of(st.integers(0, 2000), st.integers(0, tile.MAX_INDEX)),
    st.integers(1, 256),
)


def test_examples_in_the_docstrings_run() -> None:
    result = doctest.testmod(tile)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (tile_path(0, 0), "tile/0/000"),
        (tile_path(0, 999), "tile/0/999"),
        (tile_path(0, 1000), "tile/0/x001/000"),
        (tile_path(0, 1_234_067), "tile/0/x001/x234/067"),  # the example of the specification
        (tile_path(1, 4, 17), "tile/1/004.p/17"),
        (tile_path(63, 0, 255), "tile/63/000.p/255"),
        (entries_path(1_234_067, 1), "tile/entries/x001/x234/067.p/1"),
    ],
)
def test_paths(path: str, expected: str) -> None:
    assert path == expected
    assert parse_tile_path(path).format() == path


@given(TILE_PATHS)
def test_every_path_is_read_back(path: TilePath) -> None:
    assert parse_tile_path(path.format()) == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/tile/0/000",
        "tile/0/000/",
        "tile/0/000\n",
        "tile/00/000",
        "tile/01/000",
        "tile/64/000",
        "tile/-1/000",
        "tile/0/0",
        "tile/0/0000",
        "tile/0/001/000",
        "tile/0/x000/067",
        "tile/0/x001",
        "tile/0/000.p/0",
        "tile/0/000.p/01",
        "tile/0/000.p/256",
        "tile/0/000.p/999",
        "tile/0/000.p/",
        "tile/Entries/000",
        "tile/0/" + "x999/" * 6 + "999",
        "tile/0/" + "x001/" * 60 + "000",
        "tile/0/٠٠٠",
        "tile/0/../../etc/passwd",
    ],
)
def test_other_spellings_are_refused(path: str) -> None:
    with pytest.raises(RemoteProtocolError) as error:
        parse_tile_path(path)
    assert error.value.code == "tile_path_malformed"


@given(st.one_of(st.text(max_size=40), st.text(alphabet="0129xp./tilenrs", max_size=30).map(lambda t: "tile/0/" + t)))
def test_any_text_is_a_path_or_refused(path: str) -> None:
    try:
        read = parse_tile_path(path)
    except RemoteProtocolError:
        return
    assert read.format() == path


def test_partial_widths_of_size_70000() -> None:
    """273 full level 0 tiles, a partial one of 112; one full level 1 tile, a partial one of 17; a level 2 tile of 1."""
    assert [partial_width(level, 70_000) for level in range(4)] == [112, 17, 1, 0]
    expected = ["tile/0/273.p/112", "tile/1/001.p/17", "tile/2/000.p/1"]
    assert [path.format() for path in partial_tiles(70_000)] == expected


def test_partial_tiles_of_size_256_and_0() -> None:
    assert [path.format() for path in partial_tiles(256)] == ["tile/1/000.p/1"]
    assert partial_tiles(0) == ()


@given(st.integers(0, 2**63 - 1))
def test_partial_tiles_are_in_their_tree_and_no_wider_ones_are(size: int) -> None:
    paths = partial_tiles(size)
    assert sum(path.width << 8 * (path.level or 0) for path in paths) == size
    for path in paths:
        assert path.is_in(size)
        assert not TilePath(path.level, path.index, path.width + 1).is_in(size)


def test_bundle_is_lengths_and_entries() -> None:
    assert encode_bundle([b"ab", b"", b"c"]) == b"\x00\x02ab\x00\x00\x00\x01c"


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=256))
def test_bundle_is_read_back(entries: list[bytes]) -> None:
    raw = encode_bundle(entries)
    assert decode_bundle(raw, len(entries)) == tuple(entries)
    for damaged, width in ((raw[:-1], len(entries)), (raw + b"\x00", len(entries)), (raw + raw, len(entries))):
        with pytest.raises(RemoteProtocolError):
            decode_bundle(damaged, width)


def test_longest_entry() -> None:
    entry = bytes(65_535)
    assert decode_bundle(encode_bundle([entry]), 1) == (entry,)
    with pytest.raises(LocalProtocolError):
        encode_bundle([entry + b"x"])


@given(st.binary(max_size=300), st.integers(1, 256))
def test_any_bytes_are_a_bundle_or_refused(raw: bytes, width: int) -> None:
    try:
        entries = decode_bundle(raw, width)
    except RemoteProtocolError as error:
        assert str(error).startswith("bundle_malformed")  # noqa: PT017
    else:
        assert encode_bundle(entries) == raw


def test_misuse_is_local() -> None:
    misuses = [
        lambda: TilePath(64, 0),
        lambda: TilePath(0, -1),
        lambda: TilePath(0, 0, 257),
        lambda: encode_bundle([]),
        lambda: encode_bundle([b""] * 257),
        lambda: decode_bundle(b"", 0),
    ]
    for misuse in misuses:
        with pytest.raises(LocalProtocolError):
            misuse()
