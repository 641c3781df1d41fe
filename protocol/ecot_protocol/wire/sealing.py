# SPDX-License-Identifier: AGPL-3.0-or-later
r"""Sealed boxes to an Ed25519 key: bytes that the holder of one key alone can read (libsodium ``crypto_box_seal``).

The recipient's Ed25519 key (RFC 8032) is taken to its Curve25519 form. The sender makes a key pair for this one box,
and keeps nothing of it: so it can't read the box again, and boxes don't tell who made them. Its seed is an argument,
since this package has no randomness; it MUST be 32 random bytes, used once.

>>> from ecot_protocol.wire.keys import public_key_of
>>> sealed = seal(public_key_of(bytes(32)), b"for you alone", b"\x07" * 32)
>>> len(sealed) - SEAL_OVERHEAD_BYTES, unseal(bytes(32), sealed)
(13, b'for you alone')

Source: libsodium, "Sealed boxes": ``ephemeral_pk || box(message, recipient_pk, ephemeral_sk,
nonce=blake2b(ephemeral_pk || recipient_pk))``.
"""

from hashlib import blake2b
from typing import Final

from nacl.bindings import (
    crypto_box,
    crypto_box_seal_open,
    crypto_box_SEALBYTES,
    crypto_box_seed_keypair,
    crypto_sign_ed25519_pk_to_curve25519,
    crypto_sign_ed25519_sk_to_curve25519,
    crypto_sign_seed_keypair,
)
from nacl.exceptions import CryptoError

from ecot_protocol.errors import LocalProtocolError, RemoteProtocolError
from ecot_protocol.wire.keys import is_public_key

SEAL_OVERHEAD_BYTES: Final = crypto_box_SEALBYTES
_NONCE_BYTES: Final = 24
_SEED_BYTES: Final = 32


def seal(public_key: bytes, message: bytes, ephemeral_seed: bytes) -> bytes:
    """Seal a message to the holder of a key.

    Args:
        public_key: 33 bytes, Ed25519.
        message: what to seal.
        ephemeral_seed: 32 random bytes, used once.

    Raises:
        LocalProtocolError: the key is none, or the seed has another length.
    """
    if not is_public_key(public_key) or len(ephemeral_seed) != _SEED_BYTES:
        raise LocalProtocolError("expected an Ed25519 key and a seed of 32 bytes")
    try:
        recipient = crypto_sign_ed25519_pk_to_curve25519(public_key[1:])
    except (CryptoError, RuntimeError) as error:
        raise LocalProtocolError("the key is no point of its curve") from error
    ephemeral, secret = crypto_box_seed_keypair(ephemeral_seed)
    nonce = blake2b(ephemeral + recipient, digest_size=_NONCE_BYTES).digest()
    return bytes(ephemeral + crypto_box(message, nonce, recipient, secret))


def unseal(seed: bytes, sealed: bytes) -> bytes:
    """Open a box that was sealed to the key of a 32-byte Ed25519 seed.

    Raises:
        RemoteProtocolError: ``box_wrong``: it was sealed to another key, or changed.
    """
    public_key, secret_key = crypto_sign_seed_keypair(seed)
    recipient = crypto_sign_ed25519_pk_to_curve25519(public_key)
    if len(sealed) < SEAL_OVERHEAD_BYTES:
        raise RemoteProtocolError("box_wrong", "too short for a sealed box")
    try:
        return bytes(crypto_box_seal_open(sealed, recipient, crypto_sign_ed25519_sk_to_curve25519(secret_key)))
    except (CryptoError, RuntimeError) as error:
        raise RemoteProtocolError("box_wrong", "not sealed to this key") from error
