# SPDX-License-Identifier: AGPL-3.0-or-later
r"""Public keys, key ids and signatures.

A public key on the wire is one algorithm byte and the raw key: ``01`` + 32 bytes for Ed25519 (RFC 8032), ``03`` + 1,312
bytes for ML-DSA-44 (FIPS 204), which serves for cosignatures alone and signs no entry. Number 2 (ECDSA P-256) is
reserved. A key id is the first 16 bytes of
SHA-256(``"ecot/key/v1\n"`` + public key). Signing is deterministic, so it belongs to this pure package; making a seed
is the client's affair.

>>> public_key = public_key_of(bytes(32))
>>> len(public_key), key_id(public_key).hex()
(33, '0ccd3a554f13c9e265f4ee6ad7ff65d5')
>>> is_signature_valid(public_key, b"text", sign(bytes(32), b"text"))
True
>>> is_signature_valid(public_key, b"texts", sign(bytes(32), b"text"))
False
"""

from hashlib import sha256
from typing import Annotated, Final

import msgspec
from nacl.bindings import crypto_sign, crypto_sign_BYTES, crypto_sign_open, crypto_sign_seed_keypair
from nacl.exceptions import BadSignatureError

from ecot_protocol.errors import LocalProtocolError

ED25519: Final = 1
ML_DSA_44: Final = 3
SEED_SIZE_BYTES: Final = 32
SIGNATURE_SIZE_BYTES: Final = 64
PUBLIC_KEY_SIZE_BYTES: Final = 33
ML_DSA_44_KEY_SIZE_BYTES: Final = 1_313

PublicKey = Annotated[bytes, msgspec.Meta(min_length=33, max_length=33)]
"""33 bytes: algorithm number and raw public key."""
MlDsaKey = Annotated[bytes, msgspec.Meta(min_length=ML_DSA_44_KEY_SIZE_BYTES, max_length=ML_DSA_44_KEY_SIZE_BYTES)]
"""1,313 bytes: the algorithm number 3 and the raw key, which the rules never use: not every machine can."""

_ED25519_PREFIX: Final = bytes((ED25519,))


def key_id(public_key: bytes) -> bytes:
    """Return the 16-byte id of a public key (33 bytes)."""
    return sha256(b"ecot/key/v1\n" + public_key).digest()[:16]


def is_public_key(public_key: bytes) -> bool:
    """Tell whether the bytes have the form of a key that this version can check."""
    return len(public_key) == PUBLIC_KEY_SIZE_BYTES and public_key[0] == ED25519


def is_ml_dsa_key(public_key: bytes) -> bool:
    """Tell whether the bytes have the form of an ML-DSA-44 key. Every bit string of this length is one (FIPS 204)."""
    return len(public_key) == ML_DSA_44_KEY_SIZE_BYTES and public_key[0] == ML_DSA_44


def public_key_of(seed: bytes) -> bytes:
    """Return the 33-byte public key of a 32-byte Ed25519 seed."""
    if len(seed) != SEED_SIZE_BYTES:
        raise LocalProtocolError("an Ed25519 seed has 32 bytes")
    return _ED25519_PREFIX + crypto_sign_seed_keypair(seed)[0]


def sign(seed: bytes, message: bytes) -> bytes:
    """Sign `message` with a 32-byte Ed25519 seed; 64 bytes."""
    return crypto_sign(message, crypto_sign_seed_keypair(seed)[1])[:crypto_sign_BYTES]


class Signer:
    """A seed whose secret key was expanded once; faster than `sign` for many messages."""

    __slots__ = ("_secret", "key_id", "public_key")

    def __init__(self, seed: bytes) -> None:
        self.public_key = public_key_of(seed)
        self.key_id = key_id(self.public_key)
        self._secret = crypto_sign_seed_keypair(seed)[1]

    def sign(self, message: bytes) -> bytes:
        """Sign `message`; 64 bytes."""
        return crypto_sign(message, self._secret)[:crypto_sign_BYTES]

    @property
    def seed(self) -> bytes:
        """The 32-byte seed (a secret): it also opens what was sealed to the key."""
        return self._secret[:SEED_SIZE_BYTES]


def is_signature_valid(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Tell whether `signature` (64 bytes) is the key's over `message`.

    libsodium refuses a scalar that is not reduced and public keys of small order, so a signature has no second form.
    """
    if len(signature) != SIGNATURE_SIZE_BYTES or not is_public_key(public_key):
        return False
    try:
        crypto_sign_open(signature + message, public_key[1:])
    except BadSignatureError:
        return False
    return True
