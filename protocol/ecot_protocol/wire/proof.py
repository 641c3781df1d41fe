# SPDX-License-Identifier: AGPL-3.0-or-later
r"""`.tlog-proof` files: a receipt that anyone can check offline.

    c2sp.org/tlog-proof@v1
    extra ZWNvdA==
    index 73894
    gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=
    B95lDa8R83lS8n0eG+o0buTxRKQTYFi//1U8anccXmA=

    example.com/fancylog
    109482
    sFodV/vSp5O8n9a8QpW6PRY97tfOSW5bsc2Xl/EQi08=

    — example.com/fancylog hI2DJw...
    — witness1.example mJirIklj...

Rules:

- First line as above; `extra` only if there is extra data, which nothing authenticates; `index` in decimal; the
  inclusion proof, one base64 hash a line, from the leaf's sibling to the root's child, at most 63; an empty line; the
  checkpoint as the log wrote it.
- Limits: 24 KiB of extra data, 64 KiB of checkpoint.
- A proof holds when a known key of the log named by the origin has signed the checkpoint, the witnesses whose
  cosignatures are good make the quorum of the policy, and the leaf is in the tree.

>>> from ecot_protocol.wire.checkpoint import Checkpoint, sign_checkpoint
>>> from ecot_protocol.wire.merkle import Frontier, GroupTree, leaf_hashes
>>> from ecot_protocol.wire.note import NoteSigner
>>> from ecot_protocol.wire.policy import parse_policy
>>> signer = NoteSigner("coop.example/ecot", bytes(32))
>>> tree = GroupTree(Frontier.empty(), leaf_hashes([b"genesis", b"first entry"]))
>>> checkpoint = sign_checkpoint(Checkpoint("coop.example/ecot", tree.size, tree.root), signer).format()
>>> raw = TlogProof(1, tree.inclusion_proof(1), checkpoint).format()
>>> print(raw.decode()[:75])
c2sp.org/tlog-proof@v1
index 1
e16r6xu9SavY5QERWhhn3W6XmyRIOa3ytyegF+RFRQc=
>>> policy = parse_policy(b"quorum none\n")
>>> verify_proof(b"first entry", raw, [signer.verifier], policy).checkpoint.size
2
>>> verify_proof(b"other entry", raw, [signer.verifier], policy)
Traceback (most recent call last):
...
ecot_protocol.errors.RemoteProtocolError: proof_inclusion_wrong: entry 1 not shown in coop.example/ecot of size 2

Source: C2SP tlog-proof.md.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ecot_protocol.errors import LocalProtocolError, RemoteProtocolError
from ecot_protocol.wire.checkpoint import OpenedCheckpoint, open_checkpoint
from ecot_protocol.wire.lines import (
    decode_base64,
    decode_hash,
    encode_base64,
    parse_decimal,
    parse_keyed_line,
    shown,
)
from ecot_protocol.wire.merkle_hash import MAX_SIZE, are_hashes, leaf_hash, verify_inclusion
from ecot_protocol.wire.note import MAX_NOTE_BYTES, SignedNote
from ecot_protocol.wire.note_key import NoteVerifier
from ecot_protocol.wire.policy import Policy, is_satisfied

HEADER: Final = "c2sp.org/tlog-proof@v1"
MAX_PROOF_HASHES: Final = 63
MAX_EXTRA_BYTES: Final = 24_576
_MAX_HEAD_BYTES: Final = 40_960  # the lines above the checkpoint, with the longest extra data and proof
MAX_PROOF_BYTES: Final = _MAX_HEAD_BYTES + MAX_NOTE_BYTES
_MALFORMED: Final = "proof_malformed"


@dataclass(frozen=True, slots=True)
class TlogProof:
    """A proof as it is written; nothing in it may be believed before `verify_proof`.

    Attributes:
        index: of the entry, from 0.
        hashes: 0..63 x 32 bytes, the inclusion proof, leaf to root.
        checkpoint: the signed note, verbatim.
        extra: opaque and not authenticated, None if there is none.
    """

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes | None = None

    def format(self) -> bytes:
        """Write the file.

        Raises:
            LocalProtocolError: a field is too large or has the wrong form.
        """
        if not 0 <= self.index < MAX_SIZE or len(self.hashes) > MAX_PROOF_HASHES or not are_hashes(self.hashes):
            raise LocalProtocolError(f"expected an index and at most {MAX_PROOF_HASHES} hashes of 32 bytes")
        if self.extra is not None and len(self.extra) > MAX_EXTRA_BYTES:
            raise LocalProtocolError(f"extra of {len(self.extra)} bytes: expected at most {MAX_EXTRA_BYTES}")
        extra = [] if self.extra is None else [f"extra {encode_base64(self.extra)}"]
        lines = [HEADER, *extra, f"index {self.index}", *map(encode_base64, self.hashes), ""]
        return "".join(f"{line}\n" for line in lines).encode("ascii") + self.checkpoint

    @classmethod
    def parse(cls, raw: bytes) -> "TlogProof":
        """Read the file without verifying it.

        Raises:
            RemoteProtocolError: `proof_malformed`; `note_malformed`, `note_too_large` for its checkpoint.
        """
        head, gap, checkpoint = raw.partition(b"\n\n")
        if not gap or len(head) > _MAX_HEAD_BYTES or not head.isascii():
            raise RemoteProtocolError(_MALFORMED, "expected lines of ASCII, an empty line and a checkpoint")
        header, *lines = head.decode("ascii").split("\n")
        if header != HEADER:
            raise RemoteProtocolError(_MALFORMED, f"expected the first line {HEADER}")
        extra = None
        if lines and lines[0].startswith("extra "):
            extra = decode_base64(lines.pop(0).removeprefix("extra "), _MALFORMED)
            if len(extra) > MAX_EXTRA_BYTES:
                raise RemoteProtocolError(_MALFORMED, f"extra of {len(extra)} bytes")
        if not 1 <= len(lines) <= 1 + MAX_PROOF_HASHES:
            raise RemoteProtocolError(_MALFORMED, f"expected an index and at most {MAX_PROOF_HASHES} hashes")
        index = parse_decimal(parse_keyed_line(lines[0], "index", _MALFORMED), _MALFORMED, MAX_SIZE - 1)
        hashes = tuple(decode_hash(line, _MALFORMED) for line in lines[1:])
        SignedNote.parse(checkpoint)
        return cls(index, hashes, checkpoint, extra)


def verify_proof(
    leaf_data: bytes, proof: bytes | TlogProof, log_keys: Iterable[NoteVerifier], policy: Policy
) -> OpenedCheckpoint:
    """Check offline that an entry is in a log and that enough witnesses have seen it there.

    Args:
        leaf_data: what the log hashed into the leaf; in our logs the 32 bytes made from the record.
        proof: the file, as bytes or already read.
        log_keys: keys of the accepted logs, each named like its origin; `policy.log_keys` or narrower.
        policy: says which witnesses count and how many.

    Returns:
        The checkpoint with its good cosignatures. Their times are for the caller to judge.

    Raises:
        RemoteProtocolError: those of `TlogProof.parse` and `open_checkpoint`; `proof_quorum_missing`;
            `proof_inclusion_wrong`.
    """
    read = proof if isinstance(proof, TlogProof) else TlogProof.parse(proof)
    opened = open_checkpoint(read.checkpoint, log_keys, policy.witness_keys)
    names = policy.names_of(cosignature.cosigner for cosignature in opened.cosignatures)
    if not is_satisfied(policy, names):
        detail = f"quorum {shown(policy.quorum)} is not met by {sorted(names)}"
        raise RemoteProtocolError("proof_quorum_missing", detail, cosigners=sorted(names))
    head = opened.checkpoint
    if not verify_inclusion(leaf_hash(leaf_data), read.index, head.size, read.hashes, head.root_hash):
        detail = f"entry {read.index} not shown in {head.origin} of size {head.size}"
        raise RemoteProtocolError("proof_inclusion_wrong", detail, index=read.index, size=head.size)
    return opened
