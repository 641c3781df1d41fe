# SPDX-License-Identifier: AGPL-3.0-or-later
"""Invitations: what survives a mail, what is noticed, what is refused."""

import base64
from hashlib import sha256
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger_kit import seed

from ecot_protocol.domains.federation.invitation import (
    INVITATION_CONTEXT,
    MAX_BODY_SIZE_BYTES,
    MAX_TEXT_CHARS,
    PREFIX,
    Invitation,
    InvitedUnit,
    SignedInvitation,
    check_open,
    invite,
    is_invitation,
    read_invitation,
)
from ecot_protocol.errors import LocalProtocolError, RemoteProtocolError
from ecot_protocol.wire.encoding import assert_wire_type, encode
from ecot_protocol.wire.keys import Signer

AGENT = Signer(seed("invitation agent"))
EXPIRES_AT_MS = 1_800_000_000_000
QR_ALPHANUMERIC_MAX = 4_296
"""Characters of the largest symbol (ISO/IEC 18004, version 40, level L)."""


def invitation(**changes: Any) -> Invitation:
    fields: dict[str, Any] = {
        "version": 1,
        "ledger": sha256(b"ledger").digest(),
        "domain": "troc.example",
        "origin": "troc.example/ecot/0011223344556677",
        "agent": AGENT.public_key,
        "cosigner": Signer(seed("invitation cosigner")).public_key,
        "cosigner_ml_dsa_44": None,
        "host": Signer(seed("invitation host")).public_key,
        "log": Signer(seed("invitation log")).public_key,
        "keys_index": 3,
        "units": (InvitedUnit("BART", 2), InvitedUnit("HOUR", 0)),
        "addresses": ("/dns4/troc.example/tcp/8485", "/ip6/2001:db8::1/tcp/8485"),
        "url": "https://troc.example",
        "expires_at_ms": EXPIRES_AT_MS,
        "nonce": bytes(range(16)),
    }
    return Invitation(**fields | changes)


TEXT = invite(invitation(), AGENT)


def as_text(raw: bytes) -> str:
    """Write bytes as an invitation, checksum and all."""
    checksum = sha256(INVITATION_CONTEXT + raw).digest()[:4]
    return PREFIX + base64.b32encode(raw + checksum).decode().rstrip("=")


def signed(body: bytes, signer: Signer = AGENT) -> str:
    return as_text(encode(SignedInvitation(body, signer.sign(INVITATION_CONTEXT + body))))


def refusal(text: str) -> str:
    with pytest.raises(RemoteProtocolError) as refused:
        read_invitation(text)
    return refused.value.code


def test_form_has_no_second_encoding() -> None:
    assert_wire_type(Invitation)
    assert_wire_type(SignedInvitation)


def test_text_is_one_line_of_the_characters_of_a_qr_codes_alphanumeric_mode() -> None:
    assert set(TEXT) <= set("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:")
    assert len(TEXT) < 1_000
    assert read_invitation(TEXT) == invitation()


MAILED = [
    TEXT.lower(),
    "  " + TEXT + "\r\n",
    "\n".join(f"> > {TEXT[start : start + 60]}" for start in range(0, len(TEXT), 60)),
    "\u00ad\u200b".join(TEXT),
    PREFIX + TEXT.removeprefix(PREFIX).replace("O", "0").replace("I", "1").replace("B", "8"),
    TEXT + "===",
]


def test_the_longest_fits_in_a_qr_code() -> None:
    longest = invitation(
        cosigner_ml_dsa_44=b"\x03" + bytes(1_312),
        domain="d" * 253,
        addresses=tuple(f"/ip6/2001:db8::{number}/tcp/8485" for number in range(8)),
    )
    text = invite(longest, AGENT)
    assert len(text) <= QR_ALPHANUMERIC_MAX
    assert read_invitation(text) == longest
    assert len(PREFIX) + (MAX_BODY_SIZE_BYTES + 80) * 8 / 5 <= QR_ALPHANUMERIC_MAX


@pytest.mark.parametrize("text", MAILED, ids=["lower", "blank", "quoted", "soft", "lookalikes", "padded"])
def test_what_mail_programs_and_people_do_to_it_is_undone(text: str) -> None:
    assert is_invitation(text)
    assert read_invitation(text) == invitation()


@given(st.integers(len(PREFIX), len(TEXT) - 1), st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"))
def test_a_wrong_character_is_noticed(place: int, character: str) -> None:
    text = TEXT[:place] + character + TEXT[place + 1 :]
    if text == TEXT:
        assert read_invitation(text) == invitation()
    else:
        assert refusal(text) == "invitation_mistyped"


@pytest.mark.parametrize("cut", [1, 2, 7, 8, 100, len(TEXT) - len(PREFIX)])
def test_a_text_that_is_cut_short_is_noticed(cut: int) -> None:
    assert refusal(TEXT[:-cut]) == "invitation_mistyped"


@pytest.mark.parametrize(
    "text", ["", "hello", "HTTPS://TROC.EXAMPLE", PREFIX + "é", PREFIX + "A.B", "A" * MAX_TEXT_CHARS + "A"]
)
def test_other_texts_are_told_apart(text: str) -> None:
    assert refusal(text) == "invitation_malformed"


def test_altered_content_is_refused_although_its_checksum_is_right() -> None:
    signature = AGENT.sign(INVITATION_CONTEXT + encode(invitation()))
    forged = encode(invitation(addresses=("/ip4/192.0.2.66/tcp/1",)))
    assert refusal(as_text(encode(SignedInvitation(forged, signature)))) == "bad_signature"


def test_an_invitation_for_the_keys_of_another_agent_is_refused() -> None:
    body = encode(invitation(agent=Signer(seed("somebody")).public_key))
    assert refusal(signed(body)) == "bad_signature"
    with pytest.raises(LocalProtocolError):
        invite(invitation(agent=Signer(seed("somebody")).public_key), AGENT)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"version": 2}, "malformed"),
        ({"units": ()}, "malformed"),
        ({"units": (InvitedUnit("BART", 9),)}, "malformed"),
        ({"addresses": ("/ip4/192.0.2.1/tcp/1",) * 9}, "malformed"),
        ({"addresses": ("no multiaddr",)}, "malformed"),
        ({"addresses": ("/ip4/192.0.2.1\n/tcp/1",)}, "malformed"),
        ({"url": "javascript:alert(1)"}, "malformed"),
        ({"domain": "a b"}, "malformed"),
        ({"domain": "a\x1b[31m"}, "malformed"),
        ({"nonce": b"short"}, "malformed"),
        ({"ledger": bytes(31)}, "malformed"),
    ],
)
def test_limits_hold_for_readers_and_writers(changes: dict[str, Any], code: str) -> None:
    wrong = invitation(**changes)
    assert refusal(signed(encode(wrong))) == code
    with pytest.raises(LocalProtocolError):
        invite(wrong, AGENT)


def test_bytes_of_another_form_are_refused() -> None:
    fields = msgspec.msgpack.decode(encode(invitation()))
    assert refusal(signed(encode([*fields, 0]))) in {"malformed", "not_canonical"}
    assert refusal(signed(bytes(MAX_BODY_SIZE_BYTES + 1))) == "malformed"
    assert refusal(as_text(b"")) == "malformed"


def test_an_invitation_is_open_until_its_instant() -> None:
    check_open(invitation(), EXPIRES_AT_MS - 1)
    with pytest.raises(RemoteProtocolError, match="invitation_expired"):
        check_open(invitation(), EXPIRES_AT_MS)


@given(st.text(max_size=200))
def test_whatever_is_typed_is_refused_by_a_code(text: str) -> None:
    assert refusal(PREFIX + text) in {"invitation_malformed", "invitation_mistyped", "malformed"}
