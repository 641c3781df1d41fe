# SPDX-License-Identifier: AGPL-3.0-or-later
r"""Receipts: what proves to anybody, offline, that an entry is in a log.

A receipt is a record, its place, and the inclusion proof in a tree whose head the log signed. As a file:

    {"version": 1, "ledger": "…", "log_vkey": "…", "record": "…", "proof": "c2sp.org/tlog-proof@v1\nindex 7\n…"}

``record`` and ``ledger`` are hex; ``proof`` is a ``.tlog-proof`` file as it stands, for other programs.

One answer to many entries shares one range proof; `split_range_proof` makes an inclusion proof of it for each.
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

import msgspec

from ecot_client.errors import ProofFailed
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.wire.checkpoint import Checkpoint, open_checkpoint
from ecot_protocol.wire.entry import BODY, Body, decode_record, leaf_data
from ecot_protocol.wire.merkle_hash import hash_pairs, leaf_hash, verify_inclusion
from ecot_protocol.wire.note_key import NoteVerifier
from ecot_protocol.wire.proof import TlogProof

VERSION: Final = 1
MAX_RECEIPT_BYTES: Final = 1 << 20


class Receipt(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Proof that an entry is recorded.

    Attributes:
        ledger: 32 bytes.
        log_vkey: key of the log that signed the checkpoint.
        index: of the record.
        received_at_ms: when the writer took it, milliseconds since 1970.
        record: as the log has it.
        hashes: n x 32 bytes, inclusion proof, leaf to root.
        checkpoint: the signed note.
    """

    ledger: bytes
    log_vkey: str
    index: int
    received_at_ms: int
    record: bytes
    hashes: tuple[bytes, ...]
    checkpoint: str

    @property
    def body(self) -> Body:
        """What was signed."""
        return BODY.decode(decode_record(self.record).body)

    @property
    def entry_id(self) -> bytes:
        """Id of the entry, and of the object that it made."""
        return self.body.id

    @property
    def body_hash(self) -> bytes:
        """SHA-256 of what was signed."""
        return sha256(decode_record(self.record).body).digest()

    @property
    def proof_file(self) -> bytes:
        """The inclusion proof as a ``.tlog-proof`` file."""
        return TlogProof(self.index, self.hashes, self.checkpoint.encode()).format()

    def format(self) -> bytes:
        """Write the receipt as a file."""
        shown = _ReceiptFile(
            version=VERSION,
            ledger=self.ledger.hex(),
            log_vkey=self.log_vkey,
            record=self.record.hex(),
            proof=self.proof_file.decode(),
        )
        return msgspec.json.format(msgspec.json.encode(shown)) + b"\n"


class _ReceiptFile(msgspec.Struct, frozen=True, kw_only=True):
    version: int
    ledger: str
    log_vkey: str
    record: str
    proof: str


def parse_receipt(raw: bytes) -> Receipt:
    """Read a receipt file without verifying it.

    Raises:
        ProofFailed: ``receipt_malformed``.
    """
    try:
        if len(raw) > MAX_RECEIPT_BYTES:
            raise ProofFailed("receipt_malformed", f"at most {MAX_RECEIPT_BYTES} bytes")
        shown = msgspec.json.decode(raw, type=_ReceiptFile)
        if shown.version != VERSION:
            raise ProofFailed("receipt_malformed", f"version {shown.version}")
        proof = TlogProof.parse(shown.proof.encode())
        record = bytes.fromhex(shown.record)
        return Receipt(
            ledger=bytes.fromhex(shown.ledger),
            log_vkey=shown.log_vkey,
            index=proof.index,
            received_at_ms=decode_record(record).received_at_ms,
            record=record,
            hashes=proof.hashes,
            checkpoint=proof.checkpoint.decode(),
        )
    except (ValueError, msgspec.MsgspecError, RemoteProtocolError) as error:
        raise ProofFailed("receipt_malformed", str(error)) from None


def verify_receipt(receipt: Receipt, log_vkey: str | None = None, former_vkeys: Sequence[str] = ()) -> Checkpoint:
    """Check a receipt offline.

    Args:
        receipt: kept or received.
        log_vkey: the log's key, known from elsewhere; None believes the receipt's own, which then proves no more than
            that its parts agree.
        former_vkeys: keys that signed the log before that one, each known to have handed over to the next.

    Returns:
        The head under which the record is proven.

    Raises:
        ProofFailed: ``log_key_differs``, ``receipt_of_another_ledger``, ``inclusion_not_proven``, or the code of what
            is wrong with the checkpoint.
    """
    if log_vkey is not None and receipt.log_vkey not in (log_vkey, *former_vkeys):
        raise ProofFailed("log_key_differs", f"expected {log_vkey}, got {receipt.log_vkey}")
    try:
        verifier = NoteVerifier.from_vkey(receipt.log_vkey)
        body = receipt.body
    except RemoteProtocolError as error:
        raise ProofFailed(error.code, error.detail) from None
    # A genesis carries no ledger id: its own hash is the id.
    if (body.ledger if body.type != "coop.genesis" else receipt.body_hash) != receipt.ledger:
        raise ProofFailed("receipt_of_another_ledger", body.ledger.hex())
    head = read_checkpoint(receipt.checkpoint, verifier)
    require_inclusion(receipt.record, receipt.index, receipt.hashes, head)
    return head


def read_checkpoint(note: str, verifier: NoteVerifier) -> Checkpoint:
    """Open a checkpoint that this log must have signed.

    Raises:
        ProofFailed: with the code of `open_checkpoint`.
    """
    try:
        return open_checkpoint(note.encode(), (verifier,)).checkpoint
    except RemoteProtocolError as error:
        raise ProofFailed(error.code, error.detail) from None
    except UnicodeEncodeError as error:
        raise ProofFailed("note_malformed", str(error)) from None


def require_inclusion(record: bytes, index: int, hashes: Sequence[bytes], head: Checkpoint) -> None:
    """Raise `ProofFailed` ``inclusion_not_proven`` unless the record is leaf `index` of the tree."""
    if not verify_inclusion(leaf_hash(leaf_data(record)), index, head.size, hashes, head.root_hash):
        raise ProofFailed("inclusion_not_proven", f"record {index} of {head.size}", index=index, size=head.size)


def split_range_proof(
    start: int, leaf_hashes: Sequence[bytes], size: int, proof: Sequence[bytes]
) -> list[tuple[bytes, ...]]:
    """Make the inclusion proof of each leaf out of a range proof that `verify_range` has accepted.

    Args:
        start: index of the first leaf.
        leaf_hashes: 1 or more x 32 bytes.
        size: leaves of the whole tree.
        proof: n x 32 bytes, see `ecot_protocol.wire.merkle_hash.verify_range`.

    Returns:
        For each leaf its proof, leaf to root.

    >>> from ecot_protocol.wire.merkle import Frontier, GroupTree
    >>> tree = GroupTree(Frontier.of([bytes([n]) * 32 for n in range(5)]), [bytes([n]) * 32 for n in range(5, 9)])
    >>> leaves = [bytes([n]) * 32 for n in range(6, 8)]
    >>> split = split_range_proof(6, leaves, 9, tree.range_proof(6, 8))
    >>> split == [tree.inclusion_proof(6), tree.inclusion_proof(7)]
    True
    """
    left_count = start.bit_count()
    lefts, rights = list(proof[:left_count]), list(reversed(proof[left_count:]))
    nodes, first, last, tree_last = list(leaf_hashes), start, start + len(leaf_hashes) - 1, size - 1
    paths: list[list[bytes]] = [[] for _ in leaf_hashes]
    height = 0
    while tree_last:
        if first & 1:
            nodes.insert(0, lefts.pop())
            first -= 1
        if not last & 1 and last < tree_last:
            nodes.append(rights.pop())
        for number, path in enumerate(paths):
            sibling = ((start + number) >> height ^ 1) - first
            if sibling < len(nodes):
                path.append(nodes[sibling])
        nodes = hash_pairs(nodes)
        first, last, tree_last, height = first >> 1, last >> 1, tree_last >> 1, height + 1
    return [tuple(path) for path in paths]
