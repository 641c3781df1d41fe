# SPDX-License-Identifier: AGPL-3.0-or-later
"""Snapshots: the state at a seal, in a file, so that a start need not replay the whole log.

A snapshot is trusted because its digest equals the seal's, which is in the log; an altered one is found out and passed
over. File: MessagePack stream of the header map, then ``[table, key, value]`` rows; name ``<size>.state``.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgpack
import msgspec

from ecot_protocol.errors import EcotError
from ecot_protocol.state import State
from ecot_protocol.wire.encoding import Count, Hash, Wire

SNAPSHOTS_KEPT: Final = 2
_READ_BYTES: Final = 1 << 20


class SnapshotHeader(Wire):
    """What a snapshot claims: it is the state of the first `size` records, sealed by the record at `seal_index`."""

    digest: Hash
    format: int
    ledger: Hash
    seal_index: Count
    size: Count


def write_snapshot(folder: Path, header: SnapshotHeader, rows: list[tuple[str, bytes, bytes]]) -> Path:
    """Write a snapshot beside the others, durably, and remove all but the newest `SNAPSHOTS_KEPT`.

    Args:
        folder: the node's snapshots.
        header: see `SnapshotHeader`.
        rows: `State.dump()` as of `header.size`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{header.size:016d}.state"
    partial = path.with_suffix(".partial")
    packer = msgpack.Packer()
    with partial.open("wb") as file:
        file.write(msgspec.msgpack.encode(header))
        for row in rows:
            file.write(packer.pack(row))
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    for old in list_snapshots(folder)[SNAPSHOTS_KEPT:]:
        old.unlink()
    return path


def list_snapshots(folder: Path) -> list[Path]:
    """Return the snapshots, newest first."""
    return sorted(folder.glob("*.state"), reverse=True) if folder.is_dir() else []


def read_snapshot(path: Path) -> tuple[SnapshotHeader, State] | None:
    """Read a snapshot; None if it is damaged or its digest is not what it claims."""
    try:
        with path.open("rb") as file:
            unpacker = msgpack.Unpacker(file, read_size=_READ_BYTES, max_buffer_size=1 << 28)
            header = msgspec.convert(unpacker.unpack(), SnapshotHeader)
            state = State.load(_rows(unpacker))
    except (
        EcotError,
        AssertionError,
        ValueError,
        OSError,
        msgspec.ValidationError,
        msgpack.exceptions.UnpackException,
    ):
        return None
    is_sound = (state.digest(), state.ledger, state.size) == (header.digest, header.ledger, header.size)
    return (header, state) if is_sound else None


def _rows(unpacker: msgpack.Unpacker) -> Iterator[tuple[str, bytes, bytes]]:
    yield from unpacker
