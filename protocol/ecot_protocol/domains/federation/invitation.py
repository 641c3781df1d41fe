# SPDX-License-Identifier: AGPL-3.0-or-later
r"""Invitations: what a cooperative's node says of itself to one that may become a partner, as one line of text.

- An invitation opens nothing by itself. It tells where a node is and which keys it has; what two cooperatives then
  agree, both boards sign and record.
- It is signed by the agent key that it names: whoever alters it is found out. Who made it is not proven by that:
  compare the ledger's id with what the other board says by another way.
- The text is upper-case base32 with a checksum, behind a prefix. It survives mail programs, which fold lines and quote
  them, and people, who write 0 for O, 1 for I and 8 for B. A QR code holds it in its alphanumeric mode.

>>> invitation = Invitation(
...     version=1, ledger=bytes(32), domain="troc.example", origin="troc.example/ecot/0000000000000000",
...     agent=Signer(bytes(32)).public_key, cosigner=bytes(33), cosigner_ml_dsa_44=None, host=bytes(33),
...     log=bytes(33), keys_index=0, units=(InvitedUnit("BART", 2),), addresses=("/dns4/troc.example/tcp/8485",),
...     url="", expires_at_ms=1_800_000_000_000, nonce=bytes(16))
>>> text = invite(invitation, Signer(bytes(32)))
>>> text[:40], len(text)
('ECOT-INVITATION:SLCQCJE7AHCCAAAAAAAAAAAA', 602)
>>> read_invitation("> " + text[:70] + "\n> " + text[70:].lower()) == invitation
True

Source: docs/specification/federation-invitation.md.
"""

import base64
import binascii
import re
from hashlib import sha256
from typing import Annotated, Final, Literal

import msgspec

from ecot_protocol.domains.federation.deals import SignatureBytes
from ecot_protocol.domains.federation.statements import KeyName
from ecot_protocol.errors import LocalProtocolError, RemoteProtocolError
from ecot_protocol.wire.encoding import Codec, Count, Hash, Id, UnitCode, WireArray, encode
from ecot_protocol.wire.keys import MlDsaKey, PublicKey, Signer, is_signature_valid

INVITATION_CONTEXT: Final = b"ecot/invitation/v1\n"
PREFIX: Final = "ECOT-INVITATION:"
MAX_BODY_SIZE_BYTES: Final = 2_560
"""A QR code holds the text of one of this size."""
MAX_TEXT_CHARS: Final = 16_384
"""Longest text that is looked at, with all that mail programs may have put around and into it."""
MAX_UNITS: Final = 16
MAX_ADDRESSES: Final = 8
CHECKSUM_SIZE_BYTES: Final = 4
_LOOKALIKES: Final = str.maketrans("018", "OIB")
_IN_BETWEEN: Final = re.compile(r"[\s>\u00ad\u200b\ufeff]+")
_ENCODED: Final = re.compile(r"[A-Z2-7]*")

Address = Annotated[str, msgspec.Meta(pattern=r"^/[!-~]{1,255}$(?!\n)")]
"""A multiaddr. Whether it can be dialled, the node says that dials it."""
Url = Annotated[str, msgspec.Meta(pattern=r"^(https?://[!-~]{1,248})?$(?!\n)")]


class InvitedUnit(WireArray):
    """A unit that the cooperative trades in, and its decimals."""

    code: UnitCode
    scale: Annotated[int, msgspec.Meta(ge=0, le=8)]


class Invitation(WireArray):
    """What a node says of itself to a partner to be.

    Attributes:
        version: 1.
        ledger, domain, origin: of the cooperative; as in the side of a peering.
        agent, cosigner, host, log: public keys of its node.
        cosigner_ml_dsa_44: a further key of its node as a witness; None if it has none.
        keys_index: of the record that last set one of these keys.
        units: that it trades in.
        addresses: multiaddrs at which its node listens, without ``/p2p/``; the host key names the peer.
        url: where its node answers over HTTP; empty if it does not say.
        expires_at_ms: from then on it is worth nothing.
        nonce: 16 random bytes, so that no two invitations are the same.
    """

    version: Literal[1]
    ledger: Hash
    domain: Annotated[str, msgspec.Meta(min_length=1, max_length=253, pattern=r"^[!-~]+$(?!\n)")]
    origin: KeyName
    agent: PublicKey
    cosigner: PublicKey
    cosigner_ml_dsa_44: MlDsaKey | None
    host: PublicKey
    log: PublicKey
    keys_index: Count
    units: Annotated[tuple[InvitedUnit, ...], msgspec.Meta(min_length=1, max_length=MAX_UNITS)]
    addresses: Annotated[tuple[Address, ...], msgspec.Meta(max_length=MAX_ADDRESSES)]
    url: Url
    expires_at_ms: Count
    nonce: Id


class SignedInvitation(WireArray):
    """The bytes of an invitation, and its agent's signature over ``INVITATION_CONTEXT`` + body."""

    body: Annotated[bytes, msgspec.Meta(max_length=MAX_BODY_SIZE_BYTES)]
    signature: SignatureBytes


_INVITATION: Final = Codec(Invitation)
_SIGNED: Final = Codec(SignedInvitation)


def invite(invitation: Invitation, agent: Signer) -> str:
    """Sign an invitation and return its text.

    Raises:
        LocalProtocolError: `agent` is not the key that it names, or it breaks a limit.
    """
    if agent.public_key != invitation.agent:
        raise LocalProtocolError("an invitation is signed by the agent that it names")
    body = encode(invitation)
    try:
        _INVITATION.decode(body)
    except RemoteProtocolError as error:
        raise LocalProtocolError(f"invitation which nobody would accept: {error}") from error
    if len(body) > MAX_BODY_SIZE_BYTES:
        raise LocalProtocolError(f"invitation of {len(body)} bytes, expected at most {MAX_BODY_SIZE_BYTES}")
    raw = encode(SignedInvitation(body, agent.sign(INVITATION_CONTEXT + body)))
    return PREFIX + base64.b32encode(raw + _checksum(raw)).decode("ascii").rstrip("=")


def is_invitation(text: str) -> bool:
    """Tell whether a text begins like an invitation."""
    return _IN_BETWEEN.sub("", text[:MAX_TEXT_CHARS]).upper().startswith(PREFIX)


def read_invitation(text: str) -> Invitation:
    """Read the text of an invitation and check its signature; whether it has expired, the caller compares.

    Raises:
        RemoteProtocolError: ``invitation_malformed``, ``invitation_mistyped`` (the checksum is another: a character is
            wrong or missing), ``bad_signature``, ``malformed``, ``not_canonical``.
    """
    raw = _read_text(text)
    signed = _SIGNED.decode(raw)
    invitation = _INVITATION.decode(signed.body)
    if not is_signature_valid(invitation.agent, INVITATION_CONTEXT + signed.body, signed.signature):
        raise RemoteProtocolError("bad_signature", "the invitation's agent has not signed it")
    return invitation


def check_open(invitation: Invitation, now_ms: int) -> None:
    """Check that an invitation has not expired.

    Raises:
        RemoteProtocolError: ``invitation_expired``.
    """
    if now_ms >= invitation.expires_at_ms:
        raise RemoteProtocolError("invitation_expired", f"at {invitation.expires_at_ms}")


def _read_text(text: str) -> bytes:
    if len(text) > MAX_TEXT_CHARS:
        raise RemoteProtocolError("invitation_malformed", f"more than {MAX_TEXT_CHARS} characters")
    joined = _IN_BETWEEN.sub("", text).upper()
    if not joined.startswith(PREFIX):
        raise RemoteProtocolError("invitation_malformed", f"expected {PREFIX}...")
    encoded = joined.removeprefix(PREFIX).rstrip("=").translate(_LOOKALIKES)
    if not _ENCODED.fullmatch(encoded):
        raise RemoteProtocolError("invitation_malformed", "expected letters and the digits 2 to 7")
    try:
        decoded = base64.b32decode(encoded + "=" * (-len(encoded) % 8))
    except binascii.Error as error:
        raise RemoteProtocolError("invitation_mistyped", "a character is missing") from error
    raw, checksum = decoded[:-CHECKSUM_SIZE_BYTES], decoded[-CHECKSUM_SIZE_BYTES:]
    if _checksum(raw) != checksum or base64.b32encode(decoded).decode("ascii").rstrip("=") != encoded:
        raise RemoteProtocolError("invitation_mistyped", "a character is wrong or missing")
    return raw


def _checksum(raw: bytes) -> bytes:
    return sha256(INVITATION_CONTEXT + raw).digest()[:CHECKSUM_SIZE_BYTES]
