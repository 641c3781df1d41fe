# SPDX-License-Identifier: AGPL-3.0-or-later
"""From the store to a state: the newest snapshot that equals a seal, then replay, every leaf hashed again."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final, Protocol

from ecot_node.ledger.errors import LedgerCorrupt
from ecot_node.ledger.port import RecordedEntry
from ecot_node.ledger.snapshot import SnapshotHeader, list_snapshots, read_snapshot
from ecot_node.store.port import OpenedLog, RecordRow
from ecot_protocol.domains.coop.acts import SEAL, SealState
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.ledger.entry_type import AnyEntryType
from ecot_protocol.machine import Applied, Machine
from ecot_protocol.state import State
from ecot_protocol.wire.checkpoint import open_checkpoint
from ecot_protocol.wire.entry import BODY, Body, decode_record, leaf_data
from ecot_protocol.wire.merkle import TileEdge, leaf_hash
from ecot_protocol.wire.note import NoteVerifier

REPLAY_BATCH: Final = 1_000


class RecordReader(Protocol):
    """What replay needs of a store."""

    async def record(self, index: int) -> RecordRow | None: ...

    def replay(self, start: int = 0, *, batch: int = REPLAY_BATCH) -> AsyncIterator[list[RecordRow]]: ...


OnReplayed = Callable[[list[RecordedEntry]], Awaitable[None]]


def check_tree(opened: OpenedLog, log_keys: list[NoteVerifier]) -> TileEdge:
    """Return the tree's edge, whose root must be that of the stored checkpoint.

    Raises:
        LedgerCorrupt: ``tree_size_mismatch``, ``checkpoint_missing``, ``checkpoint_mismatch``, or a code of
            `open_checkpoint`.
    """
    edge = TileEdge.from_tiles(opened.edge)
    if edge.size != opened.size:
        raise LedgerCorrupt(min(edge.size, opened.size), "tree_size_mismatch", f"tree {edge.size}, log {opened.size}")
    if opened.size == 0:
        return edge
    if opened.checkpoint is None:
        raise LedgerCorrupt(opened.size - 1, "checkpoint_missing")
    try:
        checkpoint = open_checkpoint(opened.checkpoint, log_keys).checkpoint
    except RemoteProtocolError as error:
        raise LedgerCorrupt(opened.size - 1, error.code, error.detail) from error
    if (checkpoint.size, checkpoint.root_hash) != (opened.size, edge.frontier().root()):
        raise LedgerCorrupt(opened.size - 1, "checkpoint_mismatch", "the tree has another root than the checkpoint")
    return edge


async def find_snapshot(reader: RecordReader, folder: Path | None, size: int) -> State | None:
    """Return the state of the newest snapshot whose seal is in the log; None: replay from the beginning."""
    for path in list_snapshots(folder) if folder is not None else ():
        read = read_snapshot(path)
        if read is not None and read[0].seal_index < size and await _is_sealed(reader, read[0]):
            return read[1]
    return None


async def _is_sealed(reader: RecordReader, header: SnapshotHeader) -> bool:
    row = await reader.record(header.seal_index)
    if row is None:
        return False
    try:
        body = BODY.decode(decode_record(row.record).body)
        if body.type != SEAL.tag or body.ledger != header.ledger:
            return False
        seal: SealState = SEAL.codec.decode(bytes(body.payload))
    except RemoteProtocolError:
        return False
    return (seal.size, seal.digest) == (header.size, header.digest)


async def replay(machine: Machine, reader: RecordReader, state: State, on_replayed: OnReplayed) -> None:
    """Apply the log's records from `state.size` on. Signatures are not checked here: `verify` does it.

    Args:
        machine: the rules.
        reader: the log.
        state: continued in place.
        on_replayed: given what each batch did, in order.

    Raises:
        LedgerCorrupt: a stored leaf hash is not its record's, or a record breaks the rules.
    """
    async for batch in reader.replay(state.size):
        recorded = [_replay_row(machine, state, row) for row in batch]
        await on_replayed(recorded)


def _replay_row(machine: Machine, state: State, row: RecordRow) -> RecordedEntry:
    if row.index != state.size:
        raise LedgerCorrupt(state.size, "record_missing", f"found {row.index}")
    if leaf_hash(leaf_data(row.record)) != row.leaf_hash:
        raise LedgerCorrupt(row.index, "leaf_mismatch")
    try:
        record = decode_record(row.record)
        body = BODY.decode(record.body)
        entry_type = machine.table.find(body.type, state.rules)
        applied = machine.replay(state, record, is_verified=True)
    except RemoteProtocolError as error:
        raise LedgerCorrupt(row.index, error.code, error.detail) from error
    assert entry_type is not None, "replay accepted a type that the table lacks"
    return recorded_entry(row.index, record.received_at_ms, body, entry_type, applied)


def recorded_entry(
    index: int, received_at_ms: int, body: Body, entry_type: AnyEntryType, applied: Applied
) -> RecordedEntry:
    """Return what a record did, for views and listeners."""
    return RecordedEntry(
        index,
        received_at_ms,
        body.id,
        body.type,
        body.author,
        entry_type.visibility.value,
        applied.parties,
        tuple(applied.facts),
    )
