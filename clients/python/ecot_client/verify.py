# SPDX-License-Identifier: AGPL-3.0-or-later
"""Check a node's whole log from outside, without its help.

- The head must be signed by the pinned key and extend the newest that this client has kept.
- The leaf data of all records (32 bytes each) is downloaded as entry bundles; the root computed from it must be the
  head's. The tiles of leaf hashes, from which others check, must say the same.
- Each receipt that this client keeps must be in it, at its place.
- Each record that the caller may read is fetched; its bytes must hash to the leaf at its place.

The rules are not replayed: that needs every record, which the node's own ``ecot-node verify`` has.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

from ecot_client.errors import NodeProblem, ProofFailed
from ecot_client.node import NodeClient
from ecot_client.receipts import read_checkpoint
from ecot_client.transport import Request
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.wire.entry import leaf_data
from ecot_protocol.wire.merkle import TILE_WIDTH, Frontier, GroupTree, leaf_hashes
from ecot_protocol.wire.tile import decode_bundle, entries_path, tile_path

AT_ONCE: Final = 8
_LEAF_BYTES: Final = 32
Progress = Callable[[str, int, int], None]
"""(what is checked: ``leaves`` or ``records``, how many are done, how many there are)."""


class LogCheck(msgspec.Struct, frozen=True, kw_only=True):
    """A log that was found good.

    Attributes:
        size: records.
        root: 32 bytes.
        receipt_count: kept receipts found in it.
        record_count: records read and found in it.
    """

    size: int
    root: bytes
    receipt_count: int
    record_count: int


async def verify_log(node: NodeClient, *, with_records: bool = True, progress: Progress | None = None) -> LogCheck:
    """Check the whole log; see the module.

    Raises:
        ProofFailed: ``bundle_wrong``, ``tile_wrong``, ``root_wrong``, ``receipt_not_in_log``, ``record_not_in_log``,
            with the first wrong `index` where there is one.
        NodeRewrotePast: the head contradicts what this client has kept.
    """
    await node.ledger()
    note = (await node.transport.ask(Request("GET", "/log/checkpoint"))).decode("utf-8", "replace")
    head = read_checkpoint(note, await node.verifier())
    tell = progress or _say_nothing
    leaves = await _read_leaves(node, head.size, tell)
    frontier = _grow(leaves, head.size)
    if frontier.root() != head.root_hash:
        raise ProofFailed("root_wrong", f"of {head.size} records", size=head.size)
    await node.observe(note)
    receipt_count = await _check_receipts(node, leaves, head.size)
    record_count = await _check_records(node, leaves, head.size, tell) if with_records else 0
    return LogCheck(size=head.size, root=head.root_hash, receipt_count=receipt_count, record_count=record_count)


def _say_nothing(_what: str, _done: int, _total: int) -> None:
    """Nobody wants to know how far it is."""


async def _read_leaves(node: NodeClient, size: int, tell: Progress) -> bytearray:
    leaves = bytearray()
    places = [(first // TILE_WIDTH, min(TILE_WIDTH, size - first)) for first in range(0, size, TILE_WIDTH)]
    for start in range(0, len(places), AT_ONCE):
        batch = places[start : start + AT_ONCE]
        for found in await asyncio.gather(*(_read_bundle(node, index, width) for index, width in batch)):
            leaves += found
        tell("leaves", len(leaves) // _LEAF_BYTES, size)
    return leaves


async def _read_bundle(node: NodeClient, index: int, width: int) -> bytes:
    bundle, tile = await asyncio.gather(
        node.transport.ask(Request("GET", f"/log/{entries_path(index, width)}")),
        node.transport.ask(Request("GET", f"/log/{tile_path(0, index, width)}")),
    )
    first = index * TILE_WIDTH
    try:
        found = decode_bundle(bundle, width)
    except RemoteProtocolError as error:
        raise ProofFailed("bundle_wrong", error.detail, index=first) from None
    for place, leaf in enumerate(found):
        if len(leaf) != _LEAF_BYTES:
            raise ProofFailed("bundle_wrong", f"a leaf has {_LEAF_BYTES} bytes", index=first + place)
    hashes = leaf_hashes(found)
    if b"".join(hashes) != tile:
        wrong = next((n for n, one in enumerate(hashes) if tile[32 * n : 32 * n + 32] != one), width)
        raise ProofFailed("tile_wrong", f"tile {index}", index=first + wrong)
    return b"".join(found)


def _grow(leaves: bytearray, size: int) -> Frontier:
    frontier = Frontier.empty()
    for first in range(0, size, TILE_WIDTH):
        group = [_leaf(leaves, index) for index in range(first, min(first + TILE_WIDTH, size))]
        frontier = GroupTree(frontier, leaf_hashes(group)).frontier
    return frontier


def _leaf(leaves: bytearray, index: int) -> bytes:
    return bytes(leaves[index * _LEAF_BYTES : (index + 1) * _LEAF_BYTES])


async def _check_receipts(node: NodeClient, leaves: bytearray, size: int) -> int:
    receipts = await asyncio.to_thread(node.journal.receipts)
    for receipt in receipts:
        if receipt.index >= size or leaf_data(receipt.record) != _leaf(leaves, receipt.index):
            raise ProofFailed("receipt_not_in_log", f"record {receipt.index}", index=receipt.index)
    return len(receipts)


async def _check_records(node: NodeClient, leaves: bytearray, size: int, tell: Progress) -> int:
    count = 0
    async for item in node.records():
        if item.index >= size:
            break
        try:
            shown = await node.record(item.index)
        except NodeProblem as problem:
            if problem.status != 404:
                raise
            raise ProofFailed("record_not_in_log", f"{problem}", index=item.index) from None
        try:
            record = bytes.fromhex(shown.record)
        except ValueError:
            record = b""
        if leaf_data(record) != _leaf(leaves, item.index):
            raise ProofFailed("record_not_in_log", f"record {item.index}", index=item.index)
        count += 1
        tell("records", item.index + 1, size)
    return count
