# SPDX-License-Identifier: AGPL-3.0-or-later
"""Keys of signed notes: what a `vkey` names, and the message that each type of key signs.

A verifier key is one line, `<name>+<key id in hex>+<base64 of type byte and public key>`:

    sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8

Rules:

- key id = SHA-256(name || newline || type byte || public key)[:4]; a vkey with another id is refused.
- A name is not empty, has no Unicode space and no `+`; at most 1,024 bytes.
- Type 0x01, Ed25519: the signature is over the note's text.
- Type 0x04, Ed25519 cosignature: `timestamp (u64, big-endian) || signature`, over
  `cosignature/v1 newline "time " timestamp newline || text`.
- Type 0x06, ML-DSA-44 cosignature: `timestamp || signature` over the struct `cosigned_message`, which holds cosigner,
  origin, size and root and so needs the text to be a checkpoint. Where the installed `cryptography` has no ML-DSA,
  such a key is treated as unknown.
- A timestamp is at most 2**63 - 1.

>>> key = NoteVerifier.from_vkey("sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8")
>>> key.name, key.key_id.hex(), key.key_type.name
('sum.golang.org', '033de0ae', 'ED25519')
>>> vkey(key.name, key.public_key) == key.vkey
True

Source: C2SP signed-note.md, "Signatures"; tlog-cosignature.md, "Format".
"""

import struct
from dataclasses import dataclass, field
from enum import IntEnum
from hashlib import sha256
from typing import Final, Protocol

from nacl.exceptions import CryptoError
from nacl.signing import VerifyKey

from ecot_protocol.errors import LocalProtocolError, RemoteProtocolError
from ecot_protocol.wire.checkpoint_text import Checkpoint, is_clean
from ecot_protocol.wire.lines import decode_base64, encode_base64, shown

KEY_ID_BYTES: Final = 4
MAX_NAME_BYTES: Final = 1_024
MAX_TIMESTAMP: Final = 2**63 - 1
ED25519_SIGNATURE_BYTES: Final = 64
ML_DSA_44_SIGNATURE_BYTES: Final = 2_420
MAX_ML_DSA_NAME_BYTES: Final = 255
"""Longest name of a cosigner, and longest origin, in what an ML-DSA-44 cosigner signs."""
_MAX_VKEY_CHARACTERS: Final = 4_096
TIMESTAMP_BYTES: Final = 8
_TIMESTAMP: Final = struct.Struct(">Q")


class KeyType(IntEnum):
    """The signature types that we can verify."""

    ED25519 = 0x01
    COSIGNATURE = 0x04
    COSIGNATURE_ML_DSA_44 = 0x06


COSIGNER_TYPES: Final = frozenset({KeyType.COSIGNATURE, KeyType.COSIGNATURE_ML_DSA_44})
_PUBLIC_KEY_BYTES: Final = {KeyType.ED25519: 32, KeyType.COSIGNATURE: 32, KeyType.COSIGNATURE_ML_DSA_44: 1_312}


class _Key(Protocol):
    """A parsed public key."""

    def accepts(self, message: bytes, signature: bytes) -> bool: ...


def is_key_name(name: str) -> bool:
    """Tell whether this can be the name of a key: not empty, no space, no plus, no control character."""
    if not is_clean(name) or "+" in name or any(map(str.isspace, name)):
        return False
    return len(name.encode()) <= MAX_NAME_BYTES


def key_id(name: str, key_type: int, public_key: bytes) -> bytes:
    """Compute the id of a key, 4 bytes."""
    return sha256(name.encode() + b"\n" + bytes([key_type]) + public_key).digest()[:KEY_ID_BYTES]


def vkey(name: str, public_key: bytes, key_type: KeyType = KeyType.ED25519) -> str:
    """Write the verifier key of a name and a public key.

    Raises:
        LocalProtocolError: the name or the length of the key is not allowed.
    """
    return NoteVerifier(name, key_type, public_key).vkey


@dataclass(frozen=True, slots=True)
class NoteVerifier:
    """A public key with its name; parsed once, then used for any number of notes.

    Attributes:
        name: name of the key, for a log the origin.
        key_type: what it signs.
        public_key: 32 bytes (Ed25519) or 1,312 (ML-DSA-44).
        key_id: 4 bytes.
        is_supported: False for ML-DSA-44 where no library verifies it; then the key counts as unknown.

    Raises:
        LocalProtocolError: the name or the length of the key is not allowed.
    """

    name: str
    key_type: KeyType
    public_key: bytes = field(repr=False)
    key_id: bytes = field(init=False, compare=False)
    _key: _Key | None = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not is_key_name(self.name):
            raise LocalProtocolError(f"key name: {shown(self.name)}")
        if len(self.public_key) != _PUBLIC_KEY_BYTES[self.key_type]:
            expected = _PUBLIC_KEY_BYTES[self.key_type]
            raise LocalProtocolError(f"public key: expected {expected} bytes, got {len(self.public_key)}")
        object.__setattr__(self, "key_id", key_id(self.name, self.key_type, self.public_key))
        object.__setattr__(self, "_key", _parse_key(self.key_type, self.public_key))

    @classmethod
    def from_vkey(cls, text: str) -> "NoteVerifier":
        """Read a verifier key.

        Raises:
            RemoteProtocolError: `vkey_malformed`; `vkey_type_unknown` when its type is none of ours.
        """
        parts = text.split("+", 2) if len(text) <= _MAX_VKEY_CHARACTERS else []
        if len(parts) != 3 or not is_key_name(parts[0]):
            raise RemoteProtocolError("vkey_malformed", f"expected name+id+key, got {shown(text)}")
        name, hex_id, encoded = parts
        typed_key = decode_base64(encoded, "vkey_malformed")
        if not typed_key or typed_key[0] not in _PUBLIC_KEY_BYTES:
            raise RemoteProtocolError("vkey_type_unknown", f"key type {typed_key[:1].hex()} of {shown(name)}")
        try:
            verifier = cls(name, KeyType(typed_key[0]), typed_key[1:])
        except LocalProtocolError as error:
            raise RemoteProtocolError("vkey_malformed", str(error)) from None
        if verifier.key_id.hex() != hex_id:
            raise RemoteProtocolError("vkey_malformed", f"expected id {verifier.key_id.hex()}, got {shown(hex_id)}")
        return verifier

    @property
    def vkey(self) -> str:
        """The verifier key as text."""
        encoded = encode_base64(bytes([self.key_type]) + self.public_key)
        return f"{self.name}+{self.key_id.hex()}+{encoded}"

    @property
    def is_cosigner(self) -> bool:
        """Whether its signatures carry a timestamp."""
        return self.key_type in COSIGNER_TYPES

    @property
    def is_supported(self) -> bool:
        """Whether this machine can verify its signatures."""
        return self._key is not None

    def verify(self, text: str, signature: bytes) -> bool:
        """Tell whether `signature` (without key id) is this key's on a note of this text."""
        length = ML_DSA_44_SIGNATURE_BYTES if len(self.public_key) != 32 else ED25519_SIGNATURE_BYTES
        prefix = _TIMESTAMP.size if self.is_cosigner else 0
        if self._key is None or len(signature) != prefix + length:
            return False
        message = self._message(text, signature)
        return message is not None and self._key.accepts(message, signature[prefix:])

    def _message(self, text: str, signature: bytes) -> bytes | None:
        """Build what this type of key signs, or nothing if the note cannot be signed by it."""
        if self.key_type is KeyType.ED25519:
            return text.encode()
        timestamp = signature_timestamp(signature)
        if timestamp > MAX_TIMESTAMP:
            return None
        if self.key_type is KeyType.COSIGNATURE:
            return cosignature_message(text, timestamp)
        try:
            return subtree_message(self.name, Checkpoint.parse(text), timestamp)
        except (RemoteProtocolError, LocalProtocolError):
            return None


def signature_timestamp(signature: bytes) -> int:
    """Read the POSIX timestamp, in seconds, at the head of a cosignature of 8 bytes or more."""
    timestamp: int = _TIMESTAMP.unpack_from(signature)[0]
    return timestamp


def cosignature_message(text: str, timestamp_unix_s: int) -> bytes:
    """Build what an Ed25519 cosigner signs: two header lines and the text of the note."""
    return f"cosignature/v1\ntime {timestamp_unix_s}\n{text}".encode()


def subtree_message(cosigner: str, checkpoint: Checkpoint, timestamp_unix_s: int) -> bytes:
    """Build what an ML-DSA-44 cosigner signs for a checkpoint: `cosigned_message` with start 0 and end = size.

    Raises:
        LocalProtocolError: the cosigner's name or the origin is longer than 255 bytes.
    """
    names = []
    for name in (cosigner.encode(), checkpoint.origin.encode()):
        if not 1 <= len(name) <= MAX_ML_DSA_NAME_BYTES:
            raise LocalProtocolError(f"name of {len(name)} bytes: expected 1..{MAX_ML_DSA_NAME_BYTES}")
        names.append(bytes([len(name)]) + name)
    head = b"subtree/v1\n\x00" + names[0] + _TIMESTAMP.pack(timestamp_unix_s) + names[1]
    return head + struct.pack(">QQ", 0, checkpoint.size) + checkpoint.root_hash


def _parse_key(key_type: KeyType, public_key: bytes) -> _Key | None:
    return _parse_ml_dsa(public_key) if key_type is KeyType.COSIGNATURE_ML_DSA_44 else _Ed25519Key(public_key)


class _Ed25519Key:
    """A key of PyNaCl, which verifies twice as fast as `cryptography`."""

    __slots__ = ("_key",)

    def __init__(self, public_key: bytes) -> None:
        self._key = VerifyKey(public_key)

    def accepts(self, message: bytes, signature: bytes) -> bool:
        try:
            self._key.verify(message, signature)
        except CryptoError:
            return False
        return True


def _parse_ml_dsa(public_key: bytes) -> _Key | None:
    """Parse an ML-DSA-44 key, or answer nothing where the installed library or its OpenSSL cannot."""
    try:
        from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey
    except ImportError:
        return None
    try:
        key = MLDSA44PublicKey.from_public_bytes(public_key)
    except (UnsupportedAlgorithm, ValueError):
        return None

    class MlDsaKey:
        def accepts(self, message: bytes, signature: bytes) -> bool:
            try:
                key.verify(signature, message)
            except InvalidSignature:
                return False
            return True

    return MlDsaKey()
