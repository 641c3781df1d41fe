# SPDX-License-Identifier: AGPL-3.0-or-later
"""Verify a stored log offline: every byte's form, hash, signature, rule, seal, attachment, and the tree over all, whose
stored tiles must be those that the records give: proofs and the public log are made from them.

Reads the store and nothing else; trusts nothing but the genesis (whose hash is the ledger id). Signatures are checked
by worker processes while this one replays the rules. The first wrong index is reported.
"""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Final

import msgspec

from ecot_node.ledger.errors import LedgerCorrupt
from ecot_node.ledger.signatures import SignedItem, verify_signatures
from ecot_node.store.port import AttachmentRow, LogReads, OpenedLog, RecordRow
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.ledger.reasons import Reason
from ecot_protocol.machine import Machine, Submission, public_keys
from ecot_protocol.state import State
from ecot_protocol.wire.checkpoint import open_checkpoint
from ecot_protocol.wire.entry import ENTRY_CONTEXT, commitment, decode_record, leaf_data
from ecot_protocol.wire.merkle import (
    HASH_BYTES,
    TILE_HEIGHT,
    TILE_WIDTH,
    Frontier,
    FullTile,
    GroupTree,
    TileEdge,
    leaf_hash,
)
from ecot_protocol.wire.note import NoteVerifier
from ecot_protocol.wire.note_key import KeyType

BATCH: Final = 1_000
IN_FLIGHT: Final = 8
"""Batches of signatures that may wait for the workers."""


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for the whole log.

    Attributes:
        ledger: its id.
        origin: its name.
        size: records.
        root: of the tree.
        digest: of the state.
        signatures: how many were checked.
        attachments: how many were compared with their commitments (erased ones are not there to compare).
        seals: how many state digests were compared.
    """

    ledger: bytes
    origin: str
    size: int
    root: bytes
    digest: bytes
    signatures: int
    attachments: int
    seals: int


class _Signatures:
    """Checks batches of signatures in order, here or in workers, and remembers the first wrong record."""

    def __init__(self, workers: ProcessPoolExecutor | None) -> None:
        self._workers = workers
        self._waiting: deque[tuple[Future[bytes], list[int]]] = deque()
        self.count = 0

    def add(self, items: list[SignedItem], indexes: list[int]) -> None:
        self.count += len(items)
        if self._workers is None:
            self._require(verify_signatures(items), indexes)
            return
        self._waiting.append((self._workers.submit(verify_signatures, items), indexes))
        while len(self._waiting) > IN_FLIGHT:
            self._take()

    def finish(self) -> None:
        while self._waiting:
            self._take()

    def _take(self) -> None:
        future, indexes = self._waiting.popleft()
        self._require(future.result(), indexes)

    @staticmethod
    def _require(good: bytes, indexes: list[int]) -> None:
        if 0 in good:
            raise LedgerCorrupt(indexes[good.index(0)], "bad_signature")


async def verify_log(
    reader: LogReads,
    opened: OpenedLog,
    machine: Machine,
    *,
    workers: ProcessPoolExecutor | None = None,
    are_signatures_checked: bool = True,
    on_progress: Callable[[int], None] = lambda _count: None,
) -> Verified:
    """Verify everything.

    Args:
        reader: the store.
        opened: what it says it holds; records that come in meanwhile are left aside.
        machine: the rules.
        workers: processes for signatures; None checks them here.
        are_signatures_checked: False replays rules and hashes alone (for measurements and quick looks).
        on_progress: called with the count of records done so far.

    Raises:
        LedgerCorrupt: the first wrong index and why.
    """
    state, frontier, edge = State(), Frontier.empty(), TileEdge.empty()
    signatures = _Signatures(workers)
    attachment_count = seal_count = 0
    async for batch in reader.replay(0, batch=BATCH):
        attachments = await _attachments(reader, batch)
        items: list[SignedItem] = []
        indexes: list[int] = []
        leaves: list[bytes] = []
        for row in batch[: opened.size - state.size]:
            submission, leaf = _apply(machine, state, row, items if are_signatures_checked else None)
            leaves.append(leaf)
            indexes.extend([row.index] * (len(items) - len(indexes)))
            attachment_count += _check_attachments(submission, row.index, attachments.get(row.index, ()))
            seal_count += submission.body.type == "coop.seal"
        tree = GroupTree(frontier, leaves)
        frontier = tree.frontier
        signatures.add(items, indexes)
        await _check_tiles(reader, edge.append_group(tree))
        on_progress(state.size)
        if state.size == opened.size:
            break
    signatures.finish()
    _check_checkpoint(opened, state, frontier)
    _check_edge(opened, edge)
    profile = state.coop.profile.get("")
    return Verified(
        ledger=state.ledger or b"",
        origin=profile.origin if profile else "",
        size=state.size,
        root=frontier.root(),
        digest=state.digest(),
        signatures=signatures.count,
        attachments=attachment_count,
        seals=seal_count,
    )


def _apply(machine: Machine, state: State, row: RecordRow, items: list[SignedItem] | None) -> tuple[Submission, bytes]:
    if row.index != state.size:
        raise LedgerCorrupt(state.size, "record_missing", f"found {row.index}")
    leaf = leaf_hash(leaf_data(row.record))
    if leaf != row.leaf_hash:
        raise LedgerCorrupt(row.index, "leaf_mismatch", "the record is not the one that the tree holds")
    try:
        record = decode_record(row.record)
        submission = machine.admit_record(record, state.rules)
    except RemoteProtocolError as error:
        raise LedgerCorrupt(row.index, error.code, error.detail) from error
    if (record.received_at_ms, submission.body.id) != (row.received_at_ms, row.entry_id):
        raise LedgerCorrupt(row.index, "row_mismatch", "time or id beside the record differ from the record's")
    if record.received_at_ms < state.received_at_ms:
        raise LedgerCorrupt(row.index, "time_went_back")
    if items is not None:
        evidence = submission.find_bad_evidence()
        if evidence is not None:
            raise LedgerCorrupt(row.index, evidence.code, str(evidence.params))
        _collect(submission, state, row.index, items)
    result = machine.record(state, submission, record.received_at_ms)
    if isinstance(result, Reason):
        raise LedgerCorrupt(row.index, result.code, str(result.params))
    return submission, leaf


def _collect(submission: Submission, state: State, index: int, items: list[SignedItem]) -> None:
    message = ENTRY_CONTEXT + submission.entry.body
    for signature, public_key in submission.resolve_keys(public_keys(state)):
        if public_key is None:
            raise LedgerCorrupt(index, "key_unknown", signature.key_id.hex())
        items.append((public_key, message, signature.signature))


async def _attachments(reader: LogReads, batch: list[RecordRow]) -> dict[int, list[AttachmentRow]]:
    found: dict[int, list[AttachmentRow]] = {}
    for one in await reader.attachments_many(batch[0].index, len(batch)):
        found.setdefault(one.index, []).append(one)
    return found


def _check_attachments(submission: Submission, index: int, attachments: "list[AttachmentRow] | tuple[()]") -> int:
    if not attachments:
        return 0
    committed = [
        (class_name, value)
        for field, class_name in submission.entry_type.attachments
        if (value := getattr(submission.payload, field)) is not None
    ]
    for one in attachments:
        expected = committed[one.position] if one.position < len(committed) else None
        if expected != (one.class_name, commitment(one.salt, one.content)):
            raise LedgerCorrupt(index, "attachment_mismatch", f"position {one.position}")
    return len(attachments)


async def _check_tiles(reader: LogReads, full: list[FullTile]) -> None:
    for one in full:
        stored = await reader.tile(one.level, one.index)
        if stored != one.hashes:
            raise _tile_mismatch(one.level, one.index, one.hashes, stored or b"")


def _check_edge(opened: OpenedLog, edge: TileEdge) -> None:
    expected = edge.tiles()
    for level in sorted({*expected, *opened.edge}):
        hashes, stored = expected.get(level, b""), opened.edge.get(level, b"")
        if stored != hashes:
            raise _tile_mismatch(level, edge.size >> (level + 1) * TILE_HEIGHT, hashes, stored)


def _tile_mismatch(level: int, index: int, expected: bytes, stored: bytes) -> LedgerCorrupt:
    """Return the error for a wrong tile; it names the first record under the first hash that differs."""
    places = range(0, max(len(expected), len(stored)), HASH_BYTES)
    differing = (at for at in places if expected[at : at + HASH_BYTES] != stored[at : at + HASH_BYTES])
    place = index * TILE_WIDTH + next(differing, 0) // HASH_BYTES
    return LedgerCorrupt(place << level * TILE_HEIGHT, "tile_mismatch", f"level {level}, tile {index}")


def _check_checkpoint(opened: OpenedLog, state: State, frontier: Frontier) -> None:
    if state.size != opened.size:
        raise LedgerCorrupt(state.size, "record_missing", f"the log says {opened.size}")
    if opened.size == 0:
        return
    if opened.checkpoint is None:
        raise LedgerCorrupt(opened.size - 1, "checkpoint_missing")
    log_key = state.coop.node_keys["log"].public_key
    verifier = NoteVerifier(state.coop.founded.origin, KeyType.ED25519, log_key[1:])
    try:
        checkpoint = open_checkpoint(opened.checkpoint, [verifier]).checkpoint
    except RemoteProtocolError as error:
        raise LedgerCorrupt(opened.size - 1, error.code, error.detail) from error
    if (checkpoint.size, checkpoint.root_hash) != (state.size, frontier.root()):
        raise LedgerCorrupt(opened.size - 1, "checkpoint_mismatch", "the records give another root")


__all__ = ["Verified", "verify_log"]
