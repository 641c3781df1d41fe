# SPDX-License-Identifier: AGPL-3.0-or-later
"""Tiles: where the hashes and entries of a log are served, and how entry bundles are written.

    tile/0/x001/x234/067          256 leaf hashes, from leaf 1,234,067 x 256
    tile/1/004.p/17               the first 17 hashes of a tile that is not full yet
    tile/entries/x001/x234/067    the 256 entries of the first path

Rules:

- Level 0..63; index in groups of three digits, all but the last preceded by `x`, no superfluous group; width 1..255
  after `.p/`, left out for a full tile of 256. One spelling for each tile: everything else is refused.
- In a tree of s entries the partial tile of level l is floor(s / 256**l) mod 256 wide; an empty one does not exist.
- An entry bundle is, for each entry, its length as u16 big-endian and its bytes; as many entries as the tile is wide.

>>> TilePath(0, 1_234_067).format()
'tile/0/x001/x234/067'
>>> parse_tile_path("tile/entries/000.p/112")
TilePath(level=None, index=0, width=112)
>>> [partial_width(level, 70_000) for level in range(4)]
[112, 17, 1, 0]
>>> decode_bundle(encode_bundle([b"one", b""]), 2)
(b'one', b'')

Source: C2SP tlog-tiles.md.
"""

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ecot_protocol.errors import LocalProtocolError, RemoteProtocolError
from ecot_protocol.wire.lines import shown
from ecot_protocol.wire.merkle_hash import MAX_SIZE
from ecot_protocol.wire.merkle_tiles import TILE_HEIGHT, TILE_WIDTH

MAX_LEVEL: Final = 63
MAX_INDEX: Final = MAX_SIZE // TILE_WIDTH
MAX_ENTRY_BYTES: Final = 65_535
MAX_BUNDLE_BYTES: Final = TILE_WIDTH * (2 + MAX_ENTRY_BYTES)
_LENGTH: Final = struct.Struct(">H")
_PATH: Final = re.compile(
    r"tile/(?P<level>entries|[1-9]?[0-9])/(?P<index>(?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/(?P<width>[1-9][0-9]{0,2}))?"
)


@dataclass(frozen=True, slots=True)
class TilePath:
    """The place of a tile or an entry bundle below a log's prefix.

    Attributes:
        level: 0..63 for a tile of hashes, None for an entry bundle.
        index: 0..2**55-1, index of the tile within its level.
        width: 1..256; 256 is a full tile.

    Raises:
        LocalProtocolError: a field is out of its range.
    """

    level: int | None
    index: int
    width: int = TILE_WIDTH

    def __post_init__(self) -> None:
        is_level = self.level is None or 0 <= self.level <= MAX_LEVEL
        if not is_level or not 0 <= self.index <= MAX_INDEX or not 1 <= self.width <= TILE_WIDTH:
            raise LocalProtocolError(f"no tile of level {self.level}, index {self.index}, width {self.width}")

    @property
    def is_partial(self) -> bool:
        """Whether it is narrower than 256."""
        return self.width < TILE_WIDTH

    def format(self) -> str:
        """Write the path, relative to the log's prefix, without a leading slash."""
        level = "entries" if self.level is None else self.level
        *upper, last = _groups(self.index)
        index = "".join(f"x{group:03}/" for group in upper) + f"{last:03}"
        return f"tile/{level}/{index}" + (f".p/{self.width}" if self.is_partial else "")

    def is_in(self, size: int) -> bool:
        """Tell whether a log of this size has, or once had, this tile at this width."""
        level = self.level or 0
        return (self.index * TILE_WIDTH + self.width) << level * TILE_HEIGHT <= size


def _groups(index: int) -> list[int]:
    """Split an index into groups of three decimal digits."""
    groups = [index % 1000]
    while index := index // 1000:
        groups.insert(0, index % 1000)
    return groups


def tile_path(level: int, index: int, width: int = TILE_WIDTH) -> str:
    """Write the path of a tile of hashes."""
    return TilePath(level, index, width).format()


def entries_path(index: int, width: int = TILE_WIDTH) -> str:
    """Write the path of an entry bundle."""
    return TilePath(None, index, width).format()


def parse_tile_path(path: str) -> TilePath:
    """Read a path relative to the log's prefix, without a leading slash.

    Raises:
        RemoteProtocolError: `tile_path_malformed`.
    """
    match = _PATH.fullmatch(path)
    if match is None:
        raise RemoteProtocolError("tile_path_malformed", f"expected tile/<level>/<index>, got {shown(path)}")
    level = None if match["level"] == "entries" else int(match["level"])
    index = int(match["index"].replace("x", "").replace("/", ""))
    try:
        tile = TilePath(level, index, int(match["width"] or TILE_WIDTH))
    except LocalProtocolError as error:
        raise RemoteProtocolError("tile_path_malformed", str(error)) from None
    if tile.format() != path:
        raise RemoteProtocolError("tile_path_malformed", f"expected {tile.format()}, got {shown(path)}")
    return tile


def partial_width(level: int, size: int) -> int:
    """Compute the width, 0..255, of the partial tile of a level in a tree of `size` entries; 0: there is none."""
    return (size >> level * TILE_HEIGHT) % TILE_WIDTH


def partial_tiles(size: int) -> tuple[TilePath, ...]:
    """List the partial tiles of hashes that a log must serve once it has published a checkpoint of `size`."""
    levels = range((size.bit_length() + TILE_HEIGHT - 1) // TILE_HEIGHT)
    return tuple(
        TilePath(level, size >> (level + 1) * TILE_HEIGHT, width)
        for level in levels
        if (width := partial_width(level, size))
    )


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    """Write an entry bundle of 1 to 256 entries of at most 65,535 bytes.

    Raises:
        LocalProtocolError: too few or too many entries, or one too long.
    """
    if not 1 <= len(entries) <= TILE_WIDTH or max(map(len, entries)) > MAX_ENTRY_BYTES:
        raise LocalProtocolError(f"{len(entries)} entries: expected 1..{TILE_WIDTH} of at most {MAX_ENTRY_BYTES} bytes")
    return b"".join(_LENGTH.pack(len(entry)) + entry for entry in entries)


def decode_bundle(raw: bytes, width: int) -> tuple[bytes, ...]:
    """Read an entry bundle of exactly `width` entries.

    Raises:
        RemoteProtocolError: `bundle_malformed`.
        LocalProtocolError: the width is not 1..256.
    """
    if not 1 <= width <= TILE_WIDTH:
        raise LocalProtocolError(f"bundle of width {width}: expected 1..{TILE_WIDTH}")
    entries: list[bytes] = []
    at = 0
    for _ in range(width):
        if at + _LENGTH.size > len(raw):
            raise RemoteProtocolError("bundle_malformed", f"expected {width} entries, got {len(entries)}")
        start = at + _LENGTH.size
        at = start + _LENGTH.unpack_from(raw, at)[0]
        entries.append(raw[start:at])
    if at != len(raw):
        raise RemoteProtocolError("bundle_malformed", f"expected {at} bytes, got {len(raw)}")
    return tuple(entries)
