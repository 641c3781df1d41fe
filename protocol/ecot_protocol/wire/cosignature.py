# SPDX-License-Identifier: AGPL-3.0-or-later
r"""Cosignatures: a witness states that a checkpoint extends all that it saw of this log before.

    example.com/behind-the-sofa
    20852163
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

    — example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1My...
    — witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0...

Rules:

- We make and verify Ed25519 cosignatures (`cosignature/v1`, type 0x04) and, where the installed `cryptography` and its
  OpenSSL offer it, ML-DSA-44 ones (`subtree/v1`, type 0x06, of the whole tree). What decides over value counts Ed25519
  cosignatures alone, because every node must come to the same verdict.
- A cosigner key serves for nothing else: the Ed25519 message does not name its cosigner.
- The time is an argument, in POSIX seconds. A time more than `FRESH_S` in the future is of no cosignature that we
  believe ("verifiers MAY reject"); where a cosignature was just asked for, neither is one that is older (`is_fresh`).
- ML-DSA-44 signatures are hedged: the same text gives another signature each time. Nothing here depends on which.

>>> cosigner = Cosigner("witness.example/w1", bytes(32))
>>> text = "coop.example/ecot\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n"
>>> line = cosigner.cosign(text, 1_679_315_147)
>>> cosignature_time(line)
1679315147
>>> verify_cosignature(text, line, cosigner.verifier)
1679315147

Source: C2SP tlog-cosignature.md.
"""

from collections.abc import Iterable
from typing import Final, Protocol

from nacl.signing import SigningKey

from ecot_protocol.errors import LocalProtocolError, RemoteProtocolError
from ecot_protocol.wire.checkpoint_text import Checkpoint
from ecot_protocol.wire.keys import ML_DSA_44
from ecot_protocol.wire.note import SEED_BYTES, NoteSignature
from ecot_protocol.wire.note_key import (
    MAX_ML_DSA_NAME_BYTES,
    MAX_TIMESTAMP,
    TIMESTAMP_BYTES,
    KeyType,
    NoteVerifier,
    cosignature_message,
    signature_timestamp,
    subtree_message,
)

MIN_TIMESTAMP: Final = 1
"""0 would say nothing about time; only ML-DSA-44 cosignatures of others may carry it."""
FRESH_S: Final = 600
"""How far the time of a cosignature that was asked for just now may lie from our clock, either way."""


class Cosigns(Protocol):
    """A key that cosigns, of either type."""

    @property
    def verifier(self) -> NoteVerifier: ...

    def cosign(self, text: str, timestamp_unix_s: int) -> NoteSignature: ...


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
        _require_time(timestamp_unix_s)
        Checkpoint.parse(text)  # never put this key's name under anything else
        signed = self._key.sign(cosignature_message(text, timestamp_unix_s)).signature
        return _line(self.verifier, timestamp_unix_s, signed)


class MlDsaCosigner:
    """The ML-DSA-44 key with which a node cosigns beside its Ed25519 key, parsed once; see `make_ml_dsa_cosigner`.

    Attributes:
        verifier: its public half.
    """

    __slots__ = ("_key", "verifier")

    def __init__(self, name: str, key: "_MlDsaPrivateKey") -> None:
        self._key = key
        self.verifier = NoteVerifier(name, KeyType.COSIGNATURE_ML_DSA_44, key.public_key().public_bytes_raw())

    def cosign(self, text: str, timestamp_unix_s: int) -> NoteSignature:
        """Cosign as `Cosigner.cosign` does.

        Raises:
            RemoteProtocolError: `checkpoint_malformed`; `origin_too_long`: the format has room for 255 bytes.
            LocalProtocolError: the time is out of its range.
        """
        _require_time(timestamp_unix_s)
        checkpoint = Checkpoint.parse(text)
        if not can_be_cosigned_by_ml_dsa(checkpoint.origin):
            raise RemoteProtocolError("origin_too_long", "an ML-DSA-44 cosignature names at most 255 bytes")
        signed = self._key.sign(subtree_message(self.verifier.name, checkpoint, timestamp_unix_s))
        return _line(self.verifier, timestamp_unix_s, signed)


class _MlDsaPublicKey(Protocol):
    def public_bytes_raw(self) -> bytes: ...


class _MlDsaPrivateKey(Protocol):
    """What we use of the private key of `cryptography`."""

    def public_key(self) -> _MlDsaPublicKey: ...

    def sign(self, data: bytes) -> bytes: ...


def can_be_cosigned_by_ml_dsa(name: str) -> bool:
    """Tell whether an origin, or the name of a cosigner, has room in the message that ML-DSA-44 signs."""
    return len(name.encode()) <= MAX_ML_DSA_NAME_BYTES


def make_ml_dsa_cosigner(name: str, seed: bytes) -> MlDsaCosigner | None:
    """Make an ML-DSA-44 cosigner; None where no library at hand signs with such keys, or the name is too long for it.

    Args:
        name: of the witness.
        seed: 32 bytes (FIPS 204 `xi`), secret, used for nothing else.

    Raises:
        LocalProtocolError: the seed has another length.
    """
    if len(seed) != SEED_BYTES:
        raise LocalProtocolError(f"seed of {len(seed)} bytes: expected {SEED_BYTES}")
    key = _load_ml_dsa(seed)
    return MlDsaCosigner(name, key) if key is not None and can_be_cosigned_by_ml_dsa(name) else None


def ml_dsa_public_key(seed: bytes) -> bytes | None:
    """Return the public key of a seed as the ledger names it, algorithm byte first; None where it can't be computed."""
    key = _load_ml_dsa(seed)
    return None if key is None else bytes((ML_DSA_44,)) + key.public_key().public_bytes_raw()


def _load_ml_dsa(seed: bytes) -> _MlDsaPrivateKey | None:
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
    except ImportError:  # an older release than 47 has no such module
        return None
    try:
        return MLDSA44PrivateKey.from_seed_bytes(seed)
    except UnsupportedAlgorithm:
        return None


def cosign_with(cosigners: Iterable[Cosigns], text: str, timestamp_unix_s: int) -> tuple[NoteSignature, ...]:
    """Cosign a checkpoint with every key that can: an origin may be too long for ML-DSA-44.

    Raises:
        RemoteProtocolError: `checkpoint_malformed`.
        LocalProtocolError: the time is out of its range.
    """
    origin = Checkpoint.parse(text).origin
    able = (
        one
        for one in cosigners
        if one.verifier.key_type is not KeyType.COSIGNATURE_ML_DSA_44 or can_be_cosigned_by_ml_dsa(origin)
    )
    return tuple(one.cosign(text, timestamp_unix_s) for one in able)


def _require_time(timestamp_unix_s: int) -> None:
    if not MIN_TIMESTAMP <= timestamp_unix_s <= MAX_TIMESTAMP:
        raise LocalProtocolError(f"time {timestamp_unix_s}: expected {MIN_TIMESTAMP}..{MAX_TIMESTAMP}")


def _line(verifier: NoteVerifier, timestamp_unix_s: int, signed: bytes) -> NoteSignature:
    timestamp = timestamp_unix_s.to_bytes(TIMESTAMP_BYTES, "big")
    return NoteSignature(verifier.name, verifier.key_id, timestamp + signed)


def is_fresh(timestamp_unix_s: int, now_unix_s: int) -> bool:
    """Tell whether a cosignature that was just asked for was made just now, by a clock near ours."""
    return abs(timestamp_unix_s - now_unix_s) <= FRESH_S


def is_from_the_future(timestamp_unix_s: int, now_unix_s: int) -> bool:
    """Tell whether a cosignature claims a time that has not come, clocks being what they are."""
    return timestamp_unix_s > now_unix_s + FRESH_S


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
