# SPDX-License-Identifier: AGPL-3.0-or-later
r"""Fork proofs: that a log has signed two histories, for anybody to check offline.

    ecot/fork-proof@v1
    log troc.example/ecot/0123456789abcdef+5a9e6bd1+AW3/PSJ...
    root 47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=
    PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=

    troc.example/ecot/0123456789abcdef
    5
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

    — troc.example/ecot/0123456789abcdef Az3grl...

    troc.example/ecot/0123456789abcdef
    9
    sFodV/vSp5O8n9a8QpW6PRY97tfOSW5bsc2Xl/EQi08=

    — troc.example/ecot/0123456789abcdef hI2DJw...

What proves it: both checkpoints are signed by the log. The hashes are an RFC 6962 consistency proof that leads from
`root` at the first size to the second checkpoint's root: so under the second checkpoint the first leaves had the root
`root`. But under the first checkpoint, they had another one. (Finding such hashes for a log that never forked would be
finding a collision of SHA-256; that the log did not sign `root` or the hashes does not matter.)

Rules:

- Two checkpoints of one size prove it alone: `root` is the second one's, and there are no hashes.
- The first size is at least 1 and not above the second; of one size, the lesser root comes first.
- The `log` line says under which key to look, and is believed by nobody who does not know that key from elsewhere.
- Checkpoints carry the log's own signature only, so that one fork has one proof.
- That no consistency proof is *shown* for two checkpoints proves nothing to a third person.
- Limits: 8,192 bytes a checkpoint, 63 hashes, 24,576 bytes in all.

>>> from ecot_protocol.wire.checkpoint import Checkpoint, sign_checkpoint
>>> from ecot_protocol.wire.merkle import Frontier, leaf_hashes
>>> from ecot_protocol.wire.note import NoteSigner
>>> log = NoteSigner("coop.example/ecot", bytes(32))
>>> roots = [Frontier.of(leaf_hashes([leaf])).root() for leaf in (b"one past", b"another")]
>>> notes = [sign_checkpoint(Checkpoint("coop.example/ecot", 1, root), log) for root in roots]
>>> raw = prove_fork(notes[0], notes[1], log.verifier, roots[1]).format()
>>> verify_fork(raw, [log.verifier]).origin
'coop.example/ecot'
>>> verify_fork(raw, [NoteSigner("coop.example/ecot", bytes(31) + b"1").verifier])
Traceback (most recent call last):
...
ecot_protocol.errors.RemoteProtocolError: note_unsigned: none of 1 known keys has signed
"""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from ecot_protocol.errors import LocalProtocolError, RemoteProtocolError
from ecot_protocol.wire.checkpoint import Checkpoint, open_checkpoint
from ecot_protocol.wire.lines import decode_hash, encode_base64, parse_keyed_line
from ecot_protocol.wire.merkle_hash import are_hashes, verify_consistency
from ecot_protocol.wire.note import SignedNote
from ecot_protocol.wire.note_key import NoteVerifier

HEADER: Final = "ecot/fork-proof@v1"
MAX_PROOF_HASHES: Final = 63
MAX_CHECKPOINT_BYTES: Final = 8_192
MAX_FORK_BYTES: Final = 24_576
_MALFORMED: Final = "fork_malformed"
_PARTS: Final = 5


@dataclass(frozen=True, slots=True)
class Fork:
    """A log that was proven to have forked.

    Attributes:
        log_key: which signed both.
        first, second: what it said.
        root: of the first leaves under the second checkpoint, 32 bytes.
    """

    log_key: NoteVerifier
    first: Checkpoint
    second: Checkpoint
    root: bytes

    @property
    def origin(self) -> str:
        """Which log."""
        return self.first.origin


@dataclass(frozen=True, slots=True)
class ForkProof:
    """A proof as it is written; nothing in it may be believed before `verify_fork`.

    Attributes:
        log_vkey: under which key to look.
        root: 32 bytes.
        hashes: 0..63 x 32 bytes.
        first, second: signed checkpoints, as notes.
    """

    log_vkey: str
    root: bytes
    hashes: tuple[bytes, ...]
    first: bytes
    second: bytes

    def format(self) -> bytes:
        """Write the file.

        Raises:
            LocalProtocolError: it would not be read as it was meant.
        """
        if not are_hashes((self.root, *self.hashes)):
            raise LocalProtocolError("expected hashes of 32 bytes")
        lines = [HEADER, f"log {self.log_vkey}", f"root {encode_base64(self.root)}", *map(encode_base64, self.hashes)]
        raw = "".join(f"{line}\n" for line in (*lines, "")).encode() + self.first + b"\n" + self.second
        try:
            if ForkProof.parse(raw) == self:
                return raw
        except RemoteProtocolError as error:
            raise LocalProtocolError(str(error)) from None
        raise LocalProtocolError("the proof would not be read as it was meant")

    @classmethod
    def parse(cls, raw: bytes) -> "ForkProof":
        """Read the file without verifying it.

        Raises:
            RemoteProtocolError: `fork_malformed`; `note_malformed`, `vkey_malformed`, `vkey_type_unknown`.
        """
        parts = raw.split(b"\n\n", _PARTS)
        if len(raw) > MAX_FORK_BYTES or len(parts) != _PARTS:
            raise RemoteProtocolError(_MALFORMED, f"expected at most {MAX_FORK_BYTES} bytes in {_PARTS} parts")
        try:
            header, log, root, *hashes = parts[0].decode().split("\n")
        except (UnicodeDecodeError, ValueError):
            raise RemoteProtocolError(_MALFORMED, "expected lines that say log and root") from None
        if header != HEADER or len(hashes) > MAX_PROOF_HASHES:
            raise RemoteProtocolError(_MALFORMED, f"expected {HEADER} and at most {MAX_PROOF_HASHES} hashes")
        first, second = (b"%s\n\n%s\n" % (parts[1], parts[2]), b"%s\n\n%s" % (parts[3], parts[4]))
        for note in (first, second):
            if len(note) > MAX_CHECKPOINT_BYTES:
                raise RemoteProtocolError(_MALFORMED, f"a checkpoint has at most {MAX_CHECKPOINT_BYTES} bytes")
            SignedNote.parse(note)
        log_vkey = parse_keyed_line(log, "log", _MALFORMED)
        NoteVerifier.from_vkey(log_vkey)
        return cls(
            log_vkey,
            decode_hash(parse_keyed_line(root, "root", _MALFORMED), _MALFORMED),
            tuple(decode_hash(line, _MALFORMED) for line in hashes),
            first,
            second,
        )

    @property
    def log_key(self) -> NoteVerifier:
        """The key that the proof itself names: to be compared with one that is known."""
        return NoteVerifier.from_vkey(self.log_vkey)


def fork_id(raw: bytes) -> str:
    """Return the name of a proof: SHA-256 of the file, in hex."""
    return sha256(raw).hexdigest()


def verify_fork(proof: bytes | ForkProof, log_keys: Iterable[NoteVerifier]) -> Fork:
    """Check offline that a log signed two histories.

    Args:
        proof: the file, as bytes or already read.
        log_keys: keys that we know to be those of logs, each named like its origin.

    Raises:
        RemoteProtocolError: those of `ForkProof.parse` and `open_checkpoint`; `fork_not_proven`: the two do agree, or
            nothing shows that they don't.
    """
    read = proof if isinstance(proof, ForkProof) else ForkProof.parse(proof)
    keys = tuple(log_keys)
    opened = [open_checkpoint(note, keys) for note in (read.first, read.second)]
    first, second = (one.checkpoint for one in opened)
    signers = [{key for key, _ in one.note.verified if key.name == first.origin} for one in opened]
    common = signers[0] & signers[1]
    is_shown = (
        bool(common)
        and first.origin == second.origin
        and 1 <= first.size <= second.size
        and (first.size < second.size or first.root_hash < second.root_hash)
        and read.root != first.root_hash
        and verify_consistency(first.size, read.root, second.size, second.root_hash, read.hashes)
    )
    if not is_shown:
        raise RemoteProtocolError("fork_not_proven", f"sizes {first.size} and {second.size} of {first.origin}")
    return Fork(min(common, key=lambda key: key.key_id), first, second, read.root)


def prove_fork(
    first: SignedNote, second: SignedNote, log_key: NoteVerifier, root: bytes, hashes: tuple[bytes, ...] = ()
) -> ForkProof:
    """Put a proof together; of two checkpoints of one size, either may come first.

    Args:
        first: signed by the log.
        second: likewise, and not smaller.
        log_key: which signed them.
        root: what a consistency proof from it to the second checkpoint starts from; ignored if the sizes are equal.
        hashes: that consistency proof.

    Raises:
        RemoteProtocolError: as `verify_fork`: it would prove nothing.
    """
    heads = [(Checkpoint.parse(note.text), note) for note in (first, second)]
    if heads[0][0].size == heads[1][0].size:
        heads.sort(key=lambda pair: pair[0].root_hash)
        root, hashes = heads[1][0].root_hash, ()
    notes = [own_signature_only(note, log_key) for _, note in heads]
    proof = ForkProof(log_key.vkey, root, hashes, *notes)
    verify_fork(proof, (log_key,))
    return proof


def own_signature_only(note: SignedNote, log_key: NoteVerifier) -> bytes:
    """Return a checkpoint with the signature of its log alone.

    Raises:
        RemoteProtocolError: `checkpoint_unsigned`: there is none.
    """
    lines = [line for line in note.signatures if (line.name, line.key_id) == (log_key.name, log_key.key_id)]
    if not lines:
        raise RemoteProtocolError("checkpoint_unsigned", f"no accepted key of {log_key.name} has signed")
    return SignedNote(note.text, (lines[0],)).format()
