# SPDX-License-Identifier: AGPL-3.0-or-later
"""Keys and signatures: RFC 8032's own vectors, and every way to pass a signature that is not one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecot_protocol.errors import LocalProtocolError
from ecot_protocol.wire.keys import Signer, is_public_key, is_signature_valid, key_id, public_key_of, sign

RFC_8032_7_1 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe"
        "24655141438e7a100b",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed2"
        "8dc027beceea1ec40a",
    ),
]
ORDER = 2**252 + 27742317777372353535851937790883648493


@pytest.mark.parametrize(("seed", "public", "message", "signature"), RFC_8032_7_1)
def test_the_examples_of_rfc_8032(seed: str, public: str, message: str, signature: str) -> None:
    public_key = b"\x01" + bytes.fromhex(public)
    assert public_key_of(bytes.fromhex(seed)) == public_key
    assert sign(bytes.fromhex(seed), bytes.fromhex(message)).hex() == signature
    assert is_signature_valid(public_key, bytes.fromhex(message), bytes.fromhex(signature))


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=200), st.integers(0, 63), st.integers(1, 255))
def test_no_other_signature_message_or_key_passes(seed: bytes, message: bytes, place: int, change: int) -> None:
    signer = Signer(seed)
    signature = signer.sign(message)
    assert signature == sign(seed, message)
    assert is_signature_valid(signer.public_key, message, signature)
    altered = signature[:place] + bytes((signature[place] ^ change,)) + signature[place + 1 :]
    assert not is_signature_valid(signer.public_key, message, altered)
    assert not is_signature_valid(signer.public_key, message + b"\x00", signature)
    other = Signer(bytes(31) + b"\x01" if seed != bytes(31) + b"\x01" else bytes(32))
    assert not is_signature_valid(other.public_key, message, signature)


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=50))
def test_a_signature_has_no_second_form(seed: bytes, message: bytes) -> None:
    """S + L verifies by the equation alone (RFC 8032, section 8.4)."""
    signature = sign(seed, message)
    scalar = int.from_bytes(signature[32:], "little") + ORDER
    if scalar < 2**256:
        assert not is_signature_valid(public_key_of(seed), message, signature[:32] + scalar.to_bytes(32, "little"))


@pytest.mark.parametrize(
    "point",
    [
        bytes(32),
        b"\x01" + bytes(31),
        bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
        bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
        bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
        bytes.fromhex("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
        b"\xff" * 32,
    ],
)
def test_a_key_of_small_order_or_of_another_form_verifies_nothing(point: bytes) -> None:
    """With such keys one signature is good for many messages."""
    for signature in (bytes(64), b"\x01" + bytes(63), point + bytes(32)):
        assert not is_signature_valid(b"\x01" + point, b"message", signature)


@given(st.binary(max_size=70), st.binary(max_size=70), st.binary(max_size=70))
def test_any_bytes_are_judged(public_key: bytes, message: bytes, signature: bytes) -> None:
    assert is_signature_valid(public_key, message, signature) is False


@pytest.mark.parametrize("public_key", [b"", bytes(33), b"\x02" + bytes(32), b"\x01" + bytes(31), b"\x01" + bytes(33)])
def test_what_is_no_key_of_these_rules(public_key: bytes) -> None:
    assert not is_public_key(public_key)


def test_a_key_id_covers_the_algorithm() -> None:
    public_key = public_key_of(bytes(32))
    assert len(key_id(public_key)) == 16
    assert key_id(public_key) != key_id(b"\x02" + public_key[1:])


def test_a_seed_of_another_size_is_our_own_error() -> None:
    with pytest.raises(LocalProtocolError):
        public_key_of(bytes(31))
