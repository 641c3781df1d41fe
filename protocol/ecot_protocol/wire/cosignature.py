# SPDX-License-Identifier: AGPL-3.0-or-later
r"""Cosignatures: a witness states that a checkpoint extends all that it saw of this log before.

    example.com/behind-the-sofa
    20852163
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

    — example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1My...
    — witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0...

Rules:

- We make Ed25519 cosignatures (`cosignature/v1`, type 0x04) and verify these and ML-DSA-44 ones.
- A cosigner key serves for nothing else: the Ed25519 message does not name its cosigner.
- The time is an argument, in POSIX seconds. A time in the future is for the caller to refuse ("verifiers MAY reject").

>>> cosigner = Cosigner("witness.example/w1", bytes(32))
>>> text = "coop.example/ecot\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n"
>>> line = cosigner.cosign(text, 1_679_315_147)
>>> cosignature_time(line)
1679315147
>>> verify_cosignature(text, line, cosigner.verifier)
1679315147

Source: C2SP tlog-cosignature.md.
"""

from typing import Final

from nacl.signing import SigningKey

from ecot_protocol.errors import LocalProtocolError, RemoteProtocolError
from ecot_protocol.wire.checkpoint_text import Checkpoint
from ecot_protocol.wire.note import SEED_BYTES, NoteSignature
from ecot_protocol.wire.note_key import (
    MAX_TIMESTAMP,
    TIMESTAMP_BYTES,
    KeyType,
    NoteVerifier,
    cosignature_message,
    signature_timestamp,
)

MIN_TIMESTAMP: Final = 1
"""0 would say nothing about time; only ML-DSA-44 cosignatures of others may carry it."""


class Cosigner:
    """The Ed25519 key with which a node cosigns its partners' checkpoints, parsed once.

    Args:
        name: name of the witness.
        seed: 32 bytes, secret, used for nothing else.

    Attributes:
        verifier: its public half.

    Raises:
        LocalProtocolError: the name is not allowed or the seed has another length.
    """

    __slots__ = ("_key", "verifier")

    def __init__(self, name: str, seed: bytes) -> None:
        if len(seed) != SEED_BYTES:
            raise LocalProtocolError(f"seed of {len(seed)} bytes: expected {SEED_BYTES}")
        self._key = SigningKey(seed)
        self.verifier = NoteVerifier(name, KeyType.COSIGNATURE, bytes(self._key.verify_key))

    def cosign(self, text: str, timestamp_unix_s: int) -> NoteSignature:
        """Cosign the text of a checkpoint, which the caller has found consistent and recorded.

        Args:
            text: of the note, final newline included.
            timestamp_unix_s: now, 1..2**63-1.

        Raises:
            RemoteProtocolError: `checkpoint_malformed`.
            LocalProtocolError: the time is out of its range.
        """
        if not MIN_TIMESTAMP <= timestamp_unix_s <= MAX_TIMESTAMP:
            raise LocalProtocolError(f"time {timestamp_unix_s}: expected {MIN_TIMESTAMP}..{MAX_TIMESTAMP}")
        Checkpoint.parse(text)  # never put this key's name under anything else
        signed = self._key.sign(cosignature_message(text, timestamp_unix_s)).signature
        timestamp = timestamp_unix_s.to_bytes(TIMESTAMP_BYTES, "big")
        return NoteSignature(self.verifier.name, self.verifier.key_id, timestamp + signed)


def cosignature_time(signature: NoteSignature) -> int:
    """Read the time of a cosignature, in POSIX seconds; believe it only if the cosignature has been verified.

    Raises:
        RemoteProtocolError: `cosignature_malformed`.
    """
    if len(signature.signature) < TIMESTAMP_BYTES:
        raise RemoteProtocolError("cosignature_malformed", f"{len(signature.signature)} bytes hold no timestamp")
    return signature_timestamp(signature.signature)


def verify_cosignature(text: str, signature: NoteSignature, verifier: NoteVerifier) -> int:
    """Check one cosignature and return its time in POSIX seconds.

    Args:
        text: of the checkpoint, final newline included.
        signature: the line.
        verifier: of type 0x04 or 0x06.

    Raises:
        RemoteProtocolError: `cosignature_wrong`: of another key, on another text, or false.
        LocalProtocolError: the key is not a cosigner's.
    """
    if not verifier.is_cosigner:
        raise LocalProtocolError(f"{verifier.name} is not a cosigner's key")
    is_same_key = (signature.name, signature.key_id) == (verifier.name, verifier.key_id)
    if not is_same_key or not verifier.verify(text, signature.signature):
        detail = f"expected a cosignature of {verifier.name}+{verifier.key_id.hex()}"
        raise RemoteProtocolError("cosignature_wrong", detail, name=verifier.name)
    return signature_timestamp(signature.signature)
