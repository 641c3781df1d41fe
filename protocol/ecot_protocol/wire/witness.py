# SPDX-License-Identifier: AGPL-3.0-or-later
r"""The witness protocol: what `add-checkpoint` carries and how a witness decides.

    old 20852014
    PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=
    jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=
    5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=
    /6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=

    example.com/behind-the-sofa
    20852163
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

    — example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1My...

Rules, in the order in which they are judged:

- 400: the text of the checkpoint is longer than `MAX_TEXT_BYTES`: who would fork must not be able to make its
  checkpoints too long to be shown to others.
- 400: the body has not this form (`AddCheckpointRequest.parse` raises; at most 63 hashes and 64 KiB of checkpoint).
- 404: the witness knows no key for the origin. 403: none of the known keys has signed, or one of them falsely.
- 400: old size > new size. 409: old size is not the last one that the witness cosigned; the body says which is.
- 422: a wrong root for size 0, another root for the same size, or a proof that does not hold.
- Otherwise accept: the caller records the new head AND ONLY THEN cosigns and answers. Between reading the known head
  and recording the new one nothing else may touch this log: otherwise a slower request rolls the record back.
- Two checkpoints signed by a log for one size with two roots prove that it forked; `Refusal.is_fork_proof` says that
  both are to be kept.

>>> from ecot_protocol.wire.checkpoint import Checkpoint, sign_checkpoint
>>> from ecot_protocol.wire.merkle import Frontier, leaf_hashes
>>> from ecot_protocol.wire.note import NoteSigner
>>> log = NoteSigner("coop.example/ecot", bytes(32))
>>> root = Frontier.of(leaf_hashes([b"genesis"])).root()
>>> note = sign_checkpoint(Checkpoint("coop.example/ecot", 1, root), log)
>>> request = AddCheckpointRequest.parse(AddCheckpointRequest(0, (), note).format())
>>> decide(None, request, [log.verifier]).checkpoint.size
1
>>> decide((5, root), request, [log.verifier])
Refusal(code='old_size_stale', status=409, body=b'5\n', content_type='text/x.tlog.size', is_fork_proof=False)

Source: C2SP tlog-witness.md, "add-checkpoint".
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from ecot_protocol.errors import LocalProtocolError, RemoteProtocolError
from ecot_protocol.wire.checkpoint import Checkpoint, OpenedCheckpoint, open_checkpoint
from ecot_protocol.wire.lines import decode_hash, encode_base64, parse_decimal, parse_keyed_line
from ecot_protocol.wire.merkle_hash import EMPTY_ROOT, MAX_SIZE, are_hashes, verify_consistency
from ecot_protocol.wire.note import MAX_NOTE_BYTES, SignedNote
from ecot_protocol.wire.note_key import NoteVerifier

MAX_PROOF_HASHES: Final = 63
MAX_TEXT_BYTES: Final = 4_096
"""Of a checkpoint that we cosign: an origin of at most 1,024 bytes, a size, a root, and little else."""
SIZE_CONTENT_TYPE: Final = "text/x.tlog.size"
TEXT_CONTENT_TYPE: Final = "text/plain; charset=utf-8"
_MAX_HEAD_BYTES: Final = 4_096  # the size line and 63 hashes of 45 bytes
MAX_REQUEST_BYTES: Final = _MAX_HEAD_BYTES + MAX_NOTE_BYTES
_MALFORMED: Final = "add_checkpoint_malformed"


@dataclass(frozen=True, slots=True)
class AddCheckpointRequest:
    """The body of `POST <prefix>/add-checkpoint`.

    Attributes:
        old_size: size that the sender believes the witness to have cosigned last, 0 if none.
        proof: 0..63 x 32 bytes, consistency proof from `old_size`; empty if that is 0.
        note: the new checkpoint, not yet verified.
        checkpoint: what the note says, not yet verified.
    """

    old_size: int
    proof: tuple[bytes, ...]
    note: SignedNote
    checkpoint: Checkpoint = field(init=False)

    def __post_init__(self) -> None:
        if not 0 <= self.old_size <= MAX_SIZE or len(self.proof) > MAX_PROOF_HASHES or not are_hashes(self.proof):
            raise LocalProtocolError(f"expected a size and at most {MAX_PROOF_HASHES} hashes of 32 bytes")
        object.__setattr__(self, "checkpoint", Checkpoint.parse(self.note.text))

    def format(self) -> bytes:
        """Write the body."""
        lines = [f"old {self.old_size}", *map(encode_base64, self.proof), ""]
        return "".join(f"{line}\n" for line in lines).encode("ascii") + self.note.format()

    @classmethod
    def parse(cls, raw: bytes) -> "AddCheckpointRequest":
        """Read the body; a witness answers 400 to what raises here.

        Raises:
            RemoteProtocolError: `add_checkpoint_malformed`, `note_malformed`, `note_too_large`, `checkpoint_malformed`.
        """
        head, gap, checkpoint = raw.partition(b"\n\n")
        if not gap or len(head) > _MAX_HEAD_BYTES or not head.isascii():
            raise RemoteProtocolError(_MALFORMED, "expected lines of ASCII, an empty line and a checkpoint")
        first, *lines = head.decode("ascii").split("\n")
        if len(lines) > MAX_PROOF_HASHES:
            raise RemoteProtocolError(_MALFORMED, f"expected at most {MAX_PROOF_HASHES} hashes, got {len(lines)}")
        old_size = parse_decimal(parse_keyed_line(first, "old", _MALFORMED), _MALFORMED)
        proof = tuple(decode_hash(line, _MALFORMED) for line in lines)
        return cls(old_size, proof, SignedNote.parse(checkpoint))


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the witness does not cosign, and its answer.

    Attributes:
        code: `checkpoint_too_long`, `origin_unknown`, `signature_missing`, `old_size_too_large`, `old_size_stale`,
            `root_wrong`, `consistency_wrong`.
        status: HTTP status.
        body: of the answer.
        content_type: of the body.
        is_fork_proof: the known checkpoint and this one, both signed by the log, prove together that it forked.
    """

    code: str
    status: int
    body: bytes
    content_type: str = TEXT_CONTENT_TYPE
    is_fork_proof: bool = False


def decide(
    known: tuple[int, bytes] | None, request: AddCheckpointRequest, log_keys: Iterable[NoteVerifier]
) -> OpenedCheckpoint | Refusal:
    """Decide whether to cosign; reads and changes nothing else.

    Args:
        known: size and root (32 bytes) of the last checkpoint that we cosigned for `request.checkpoint.origin`, None if
            there is none.
        request: from the log, or from anyone.
        log_keys: keys that we trust for that origin, each named like it; none if we do not know the log.

    Returns:
        The new head of the log, to be recorded and then cosigned (`Cosigner.cosign(request.note.text, now)`), or why
        not.
    """
    new, old_size = request.checkpoint, request.old_size
    if len(request.note.text.encode()) > MAX_TEXT_BYTES:
        return _refuse("checkpoint_too_long", 400)
    trusted = [key for key in log_keys if key.name == new.origin]
    if not trusted:
        return _refuse("origin_unknown", 404)
    try:
        opened = open_checkpoint(request.note, trusted)
    except RemoteProtocolError:
        return _refuse("signature_missing", 403)
    known_size, known_root = known or (0, EMPTY_ROOT)
    if old_size > new.size:
        return _refuse("old_size_too_large", 400)
    if old_size != known_size:
        return Refusal("old_size_stale", 409, format_size(known_size), SIZE_CONTENT_TYPE)
    if new.size == 0 and new.root_hash != EMPTY_ROOT:
        return _refuse("root_wrong", 422)
    if new.size == known_size and new.root_hash != known_root:
        return _refuse("root_wrong", 422, is_fork_proof=True)
    if not verify_consistency(known_size, known_root, new.size, new.root_hash, request.proof):
        return _refuse("consistency_wrong", 422)
    return opened


def _refuse(code: str, status: int, *, is_fork_proof: bool = False) -> Refusal:
    return Refusal(code, status, f"{code}\n".encode("ascii"), is_fork_proof=is_fork_proof)


def format_size(size: int) -> bytes:
    """Write the body of a 409 answer: the size that the witness cosigned last."""
    return f"{size}\n".encode("ascii")


def parse_size(raw: bytes) -> int:
    """Read the body of a 409 answer of type `text/x.tlog.size`.

    Raises:
        RemoteProtocolError: `size_malformed`.
    """
    if not raw.endswith(b"\n") or not raw.isascii():
        raise RemoteProtocolError("size_malformed", "expected a decimal number and a newline")
    return parse_decimal(raw[:-1].decode("ascii"), "size_malformed")
