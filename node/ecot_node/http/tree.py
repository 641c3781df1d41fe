# SPDX-License-Identifier: AGPL-3.0-or-later
"""Tiles and proofs of our own log, at its newest published checkpoint or below."""

from dataclasses import dataclass
from typing import Final

from ecot_node.http.context import Context
from ecot_node.http.errors import Problem
from ecot_node.ledger.tree import prove
from ecot_node.store.port import CosignedCheckpoint
from ecot_protocol.wire.checkpoint import Checkpoint
from ecot_protocol.wire.entry import leaf_data
from ecot_protocol.wire.merkle import (
    HASH_BYTES,
    TILE_HEIGHT,
    TILE_WIDTH,
    TileReader,
    consistency_proof,
    inclusion_proof,
    root,
)
from ecot_protocol.wire.note import NoteSignature, SignedNote
from ecot_protocol.wire.policy import NO_QUORUM, Policy, is_satisfied
from ecot_protocol.wire.proof import TlogProof
from ecot_protocol.wire.tile import TilePath, encode_bundle

MAX_LOOKED_AT: Final = 32
"""Cosigned checkpoints that are held against a policy: who asks for more than any of them has waits for the next."""


@dataclass(frozen=True, slots=True)
class Head:
    """A checkpoint of our log: its size and the note, cosignatures included."""

    size: int
    note: bytes


def published(context: Context) -> Head:
    """Return the newest durable checkpoint.

    Raises:
        Problem: ``not_found``: there is no genesis yet.
    """
    note = context.ledger.checkpoint()
    if not note:
        raise Problem("not_found")
    return Head(Checkpoint.parse(SignedNote.parse(note).text).size, note)


async def cosigned(context: Context, index: int) -> Head:
    """Return the newest checkpoint that a witness cosigned and that covers a record.

    Raises:
        Problem: ``not_witnessed_yet``.
    """
    found = await context.store.newest_cosigned()
    if found is None or found.size <= index:
        raise Problem("not_witnessed_yet", index=index)
    return Head(found.size, _join(found))


async def cosigned_for(context: Context, policy: Policy, above: int) -> Head:
    """Return the newest checkpoint of more than `above` records that a policy is content with.

    It bears the cosignatures of the policy's witnesses and no others; each was checked when it was stored.

    Raises:
        Problem: ``not_witnessed_yet``.
    """
    head = published(context)
    if policy.quorum == NO_QUORUM:
        return head
    names = {(witness.key.name, witness.key.key_id): witness.name for witness in policy.witnesses}
    for found in await context.store.cosigned(above, MAX_LOOKED_AT):
        lines = _lines(found)
        wanted = [line for line in lines if (line.name, line.key_id) in names]
        if is_satisfied(policy, (names[line.name, line.key_id] for line in wanted)):
            return Head(found.size, SignedNote.parse(found.note).with_signatures(wanted).format())
    raise Problem("not_witnessed_yet", index=above)


def _lines(checkpoint: CosignedCheckpoint) -> list[NoteSignature]:
    return [NoteSignature.parse(one.line.decode().removesuffix("\n")) for one in checkpoint.cosignatures]


def _join(checkpoint: CosignedCheckpoint) -> bytes:
    return SignedNote.parse(checkpoint.note).with_signatures(_lines(checkpoint)).format()


async def prove_record(context: Context, index: int, head: Head) -> bytes:
    """Return the `.tlog-proof` of a record that `head` covers."""
    edge = context.ledger.edge()
    hashes = await prove(context.store, edge, lambda reader: inclusion_proof(reader, index, head.size))
    return TlogProof(index, hashes, head.note).format()


async def prove_growth(context: Context, old_size: int, new_size: int) -> tuple[bytes, tuple[bytes, ...]]:
    """Return our root at `old_size`, and the proof that the log of `new_size` extends it; both are published."""

    def compute(reader: TileReader) -> tuple[bytes, tuple[bytes, ...]]:
        return root(reader, old_size), consistency_proof(reader, old_size, new_size)

    return await prove(context.store, context.ledger.edge(), compute)


async def read_tile(context: Context, path: TilePath) -> bytes:
    """Return a tile or an entry bundle.

    Raises:
        Problem: ``not_found``: the published log has no such tile.
    """
    if context.ledger.checkpoint() == b"" or not path.is_in(published(context).size):
        raise Problem("not_found")
    if path.level is None:
        return await _bundle(context, path)
    edge = context.ledger.edge()
    if path.index >= edge.size >> (path.level + 1) * TILE_HEIGHT:
        return edge.tile(path.level, path.index, path.width)
    tile = await context.store.tile(path.level, path.index)
    assert tile is not None, f"the store lacks {path.format()}"
    return tile[: path.width * HASH_BYTES]


async def _bundle(context: Context, path: TilePath) -> bytes:
    rows = await context.store.records(path.index * TILE_WIDTH, path.width)
    assert len(rows) == path.width, f"the store lacks records of {path.format()}"
    return encode_bundle([leaf_data(row.record) for row in rows])
