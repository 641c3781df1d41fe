# SPDX-License-Identifier: AGPL-3.0-or-later
"""Proofs that something is recorded in another ledger's log: raw records under a signed checkpoint.

`find_*_problem` functions are evidence: pure, under keys written in the proof itself. Whether these are the keys that a
peering names is for the checks.
"""

from typing import Annotated, Final

import msgspec

from ecot_protocol.domains.federation.decision_log import Outcome, decision_hash
from ecot_protocol.domains.federation.statements import LogKey, Witness
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.ledger.reasons import Reason
from ecot_protocol.wire.checkpoint import OpenedCheckpoint, open_checkpoint
from ecot_protocol.wire.encoding import Count, Hash, Id, Wire
from ecot_protocol.wire.entry import BODY, Body, decode_record, leaf_data
from ecot_protocol.wire.keys import is_public_key
from ecot_protocol.wire.merkle_hash import leaf_hash, verify_inclusion

MAX_PROVED_RECORD_BYTES: Final = 32_768
MAX_CHECKPOINT_BYTES: Final = 8_192

ProvedRecord = Annotated[bytes, msgspec.Meta(max_length=MAX_PROVED_RECORD_BYTES)]
CheckpointBytes = Annotated[bytes, msgspec.Meta(max_length=MAX_CHECKPOINT_BYTES)]
ProofHashes = Annotated[tuple[Hash, ...], msgspec.Meta(max_length=63)]


class Inclusion(Wire):
    """A raw record of a log and the proof of its place; which checkpoint it is against is said beside it."""

    hashes: ProofHashes
    index: Count
    record: ProvedRecord


class LeafProof(Wire):
    """A leaf of a decision log and the proof of its place; which checkpoint it is against is said beside it."""

    hashes: ProofHashes
    number: Count
    outcome: Outcome
    tid: Id


class RecordProof(Wire):
    """A raw record, shown by a checkpoint that its log has signed."""

    checkpoint: CheckpointBytes
    inclusion: Inclusion
    log: LogKey


def open_signed(checkpoint: bytes, log: LogKey, witnesses: tuple[Witness, ...] = ()) -> OpenedCheckpoint:
    """Open a checkpoint under keys that somebody wrote down.

    Raises:
        RemoteProtocolError: ``proof_key_wrong``, or a code of `open_checkpoint`.
    """
    keys = (log.public_key, *(witness.public_key for witness in witnesses))
    if not all(map(is_public_key, keys)):
        raise RemoteProtocolError("proof_key_wrong", "expected Ed25519 keys")
    return open_checkpoint(checkpoint, (log.verifier,), tuple(witness.verifier for witness in witnesses))


def require_included(inclusion: Inclusion, opened: OpenedCheckpoint) -> Body:
    """Check a record's place and return its body, decoded.

    Raises:
        RemoteProtocolError: ``proof_inclusion_wrong``, or a code of the record's form.
    """
    head = opened.checkpoint
    leaf = leaf_hash(leaf_data(inclusion.record))
    if not verify_inclusion(leaf, inclusion.index, head.size, inclusion.hashes, head.root_hash):
        raise RemoteProtocolError("proof_inclusion_wrong", f"record {inclusion.index}", index=inclusion.index)
    return body_of(inclusion.record)


def open_decisions(checkpoint: bytes, log: LogKey, witnesses: tuple[Witness, ...]) -> OpenedCheckpoint:
    """Open a checkpoint of a ledger's decision log under keys that somebody wrote down; `log` is the ledger's.

    Raises:
        RemoteProtocolError: ``proof_key_wrong``, or a code of `open_checkpoint`.
    """
    keys = (log.public_key, *(witness.public_key for witness in witnesses))
    if not all(map(is_public_key, keys)):
        raise RemoteProtocolError("proof_key_wrong", "expected Ed25519 keys")
    return open_checkpoint(checkpoint, (log.decisions,), tuple(witness.verifier for witness in witnesses))


def require_decided(proof: LeafProof, opened: OpenedCheckpoint) -> None:
    """Check the place of a leaf.

    Raises:
        RemoteProtocolError: ``proof_inclusion_wrong``.
    """
    head = opened.checkpoint
    leaf = decision_hash(proof.tid, proof.outcome)
    if not verify_inclusion(leaf, proof.number, head.size, proof.hashes, head.root_hash):
        raise RemoteProtocolError("proof_inclusion_wrong", f"decision {proof.number}", index=proof.number)


def body_of(record: bytes) -> Body:
    """Return the body of a raw record.

    Raises:
        RemoteProtocolError: a code of the record's form.
    """
    return BODY.decode(decode_record(record).body)


def proof_wrong(error: RemoteProtocolError) -> Reason:
    """Return the refusal for evidence that does not hold; `problem` is the code of what is wrong."""
    return Reason.of("evidence_wrong", problem=error.code)
