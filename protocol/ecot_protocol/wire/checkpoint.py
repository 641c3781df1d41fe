# SPDX-License-Identifier: AGPL-3.0-or-later
"""Checkpoints: the signed head of a log.

    example.com/behind-the-sofa
    20852163
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

    — example.com/behind-the-sofa
    Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOA...

Rules:

- A checkpoint counts when a key of the log itself has signed it; a cosigner's signature never stands in for that.
- The log's key is named like the origin. `open_checkpoint` insists on it ("SHOULD match the origin line"), so that a
  key of one log cannot sign for another.
- A log never signs two checkpoints that do not agree: this is the writer's duty, and what witnesses check.

>>> from ecot_protocol.wire.note import NoteSigner
>>> signer = NoteSigner("coop.example/ecot", bytes(32))
>>> raw = sign_checkpoint(Checkpoint("coop.example/ecot", 0, EMPTY_ROOT), signer).format()
>>> print(raw.decode()[:94])
coop.example/ecot
0
47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=
<BLANKLINE>
— coop.example/ecot cedf2ORU
>>> opened = open_checkpoint(raw, [signer.verifier])
>>> opened.checkpoint.size, opened.cosignatures
(0, ())

Source: C2SP tlog-checkpoint.md.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from ecot_protocol.errors import LocalProtocolError, RemoteProtocolError
from ecot_protocol.wire.checkpoint_text import Checkpoint
from ecot_protocol.wire.merkle_hash import EMPTY_ROOT
from ecot_protocol.wire.note import NoteSigner, OpenedNote, SignedNote, open_note
from ecot_protocol.wire.note_key import NoteVerifier, signature_timestamp

__all__ = ["EMPTY_ROOT", "Checkpoint", "Cosignature", "OpenedCheckpoint", "open_checkpoint", "sign_checkpoint"]


@dataclass(frozen=True, slots=True)
class Cosignature:
    """A verified cosignature: who, and when by the cosigner's own clock (POSIX seconds, 0 if it says no time)."""

    cosigner: NoteVerifier
    timestamp_unix_s: int


@dataclass(frozen=True, slots=True)
class OpenedCheckpoint:
    """A checkpoint signed by its log, with the good cosignatures of known witnesses.

    Attributes:
        checkpoint: what the log says.
        cosignatures: in the order of the lines; a witness may appear more than once.
        note: the note that it comes from.
    """

    checkpoint: Checkpoint
    cosignatures: tuple[Cosignature, ...]
    note: OpenedNote


def sign_checkpoint(checkpoint: Checkpoint, signer: NoteSigner) -> SignedNote:
    """Sign the head of a log with the log's key.

    Raises:
        LocalProtocolError: the key's name is not the origin.
    """
    if signer.verifier.name != checkpoint.origin:
        raise LocalProtocolError(f"key {signer.verifier.name}: expected {checkpoint.origin}")
    text = checkpoint.format()
    return SignedNote(text, (signer.sign(text),))


def open_checkpoint(
    raw: bytes | SignedNote, log_keys: Iterable[NoteVerifier], cosigners: Iterable[NoteVerifier] = ()
) -> OpenedCheckpoint:
    """Check a checkpoint against the keys of the logs that we accept and of the witnesses that we know.

    Args:
        raw: the note, as bytes or already read.
        log_keys: of one or several logs, each named like its origin; several of one log while it changes keys.
        cosigners: keys of witnesses, type 0x04 or 0x06; others are not taken for cosigners.

    Raises:
        RemoteProtocolError: those of `open_note`; `checkpoint_malformed`; `checkpoint_unsigned`: no accepted key that
        is
            named like the origin has signed it.
    """
    note = raw if isinstance(raw, SignedNote) else SignedNote.parse(raw)
    checkpoint = Checkpoint.parse(note.text)
    own_keys = {key for key in log_keys if key.name == checkpoint.origin}
    witness_keys = {key for key in cosigners if key.is_cosigner}
    opened = open_note(note, own_keys | witness_keys)
    if not any(key in own_keys for key, _ in opened.verified):
        raise RemoteProtocolError("checkpoint_unsigned", f"no accepted key of {checkpoint.origin} has signed")
    cosignatures = tuple(
        Cosignature(key, signature_timestamp(signature.signature))
        for key, signature in opened.verified
        if key in witness_keys
    )
    return OpenedCheckpoint(checkpoint, cosignatures, opened)
