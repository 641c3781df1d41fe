# SPDX-License-Identifier: AGPL-3.0-or-later
"""Signed notes and their keys against the specification's and Go's own examples, and against arbitrary bytes."""

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecot_protocol.errors import LocalProtocolError, RemoteProtocolError
from ecot_protocol.wire import lines, note, note_key
from ecot_protocol.wire.lines import decode_base64, encode_base64, parse_decimal
from ecot_protocol.wire.note import (
    KeyType,
    NoteSignature,
    NoteSigner,
    NoteVerifier,
    SignedNote,
    open_note,
    parse_signatures,
    sign_note,
    vkey,
)

# The example of Go's package golang.org/x/mod/sumdb/note.
NEUMANN_VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
NEUMANN_TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
NEUMANN_NOTE = (
    NEUMANN_TEXT + "\n— PeterNeumann "
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
).encode()
# The example at the head of signed-note.md.
QUASIMODO_NOTE = (
    (
        "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned è subito sera.\n\n"
        "— quasimodo.example/salvatore "
        "NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n"
    )
    .replace("/5QQ2i5", "/5QQ2i5")
    .encode()
)

SEED, NAME = bytes(range(32)), "coop.example/ecot/00"
SIGNER = NoteSigner(NAME, SEED)


def code_of(call: object, *arguments: object) -> str:
    with pytest.raises(RemoteProtocolError) as error:
        call(*arguments)  # type: ignore[operator]
    return error.value.code


@pytest.mark.parametrize("module", [lines, note_key, note])
def test_examples_in_the_docstrings_run(module: object) -> None:
    result = doctest.testmod(module)  # type: ignore[arg-type]
    assert result.attempted > 0
    assert result.failed == 0


def test_note_signed_by_go_opens() -> None:
    opened = open_note(NEUMANN_NOTE, [NoteVerifier.from_vkey(NEUMANN_VKEY)])
    assert opened.text == NEUMANN_TEXT
    assert [key.name for key, _ in opened.verified] == ["PeterNeumann"]
    assert opened.unknown == ()
    assert SignedNote.parse(NEUMANN_NOTE).format() == NEUMANN_NOTE


def test_note_of_the_specification_is_read() -> None:
    read = SignedNote.parse(QUASIMODO_NOTE)
    assert read.text.endswith("sole:\n\ned è subito sera.\n")
    (signature,) = read.signatures
    assert (signature.name, signature.key_id.hex()) == ("quasimodo.example/salvatore", "367ba04b")
    assert len(signature.signature) == 64
    assert read.format() == QUASIMODO_NOTE


@pytest.mark.parametrize("text", [NEUMANN_VKEY, "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"])
def test_vkey_round_trip(text: str) -> None:
    key = NoteVerifier.from_vkey(text)
    assert key.vkey == text == vkey(key.name, key.public_key)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "vkey_malformed"),
        ("name+033de0ae", "vkey_malformed"),
        (NEUMANN_VKEY.replace("c74f20a3", "c74f20a4"), "vkey_malformed"),
        (NEUMANN_VKEY.replace("c74f20a3", "C74F20A3"), "vkey_malformed"),
        (NEUMANN_VKEY.replace("PeterNeumann", "Peter Neumann"), "vkey_malformed"),
        (NEUMANN_VKEY.replace("PeterNeumann", "Peter\u2003Neumann"), "vkey_malformed"),
        (NEUMANN_VKEY.replace("PeterNeumann", ""), "vkey_malformed"),
        (NEUMANN_VKEY[:-1], "vkey_malformed"),
        (NEUMANN_VKEY + "\n", "vkey_malformed"),
        ("n" * 5000 + NEUMANN_VKEY, "vkey_malformed"),
        (f"name+00000000+{encode_base64(bytes([2]) + bytes(32))}", "vkey_type_unknown"),
        ("name+00000000+", "vkey_type_unknown"),
        (f"name+00000000+{encode_base64(bytes([1]) + bytes(31))}", "vkey_malformed"),
    ],
)
def test_wrong_vkey_is_refused(text: str, code: str) -> None:
    assert code_of(NoteVerifier.from_vkey, text) == code


def test_sign_and_open() -> None:
    raw = sign_note("entry\n\nwith an empty line\n", NAME, SEED).format()
    assert open_note(raw, [SIGNER.verifier]).text == "entry\n\nwith an empty line\n"


def test_unknown_keys_are_ignored_even_with_a_known_name_or_id() -> None:
    text = "text\n"
    good = SIGNER.sign(text)
    same_name = NoteSignature(NAME, b"\x00\x00\x00\x01", b"false")
    same_id = NoteSignature("other.example", good.key_id, b"false")
    opened = open_note(SignedNote(text, (same_name, good, same_id)), [SIGNER.verifier])
    assert opened.verified == ((SIGNER.verifier, good),)
    assert opened.unknown == (same_name, same_id)


def test_one_wrong_signature_of_a_known_key_refuses_the_note() -> None:
    other = NoteSigner("other.example", bytes(32))
    text = "text\n"
    wrong = NoteSignature("other.example", other.verifier.key_id, other.sign("other\n").signature)
    note_with_both = SignedNote(text, (SIGNER.sign(text), wrong))
    assert code_of(open_note, note_with_both, [SIGNER.verifier, other.verifier]) == "note_signature_wrong"
    assert open_note(note_with_both, [SIGNER.verifier]).unknown == (wrong,)


def test_note_without_known_signature_is_refused() -> None:
    raw = sign_note("text\n", NAME, SEED).format()
    assert code_of(open_note, raw, [NoteVerifier.from_vkey(NEUMANN_VKEY)]) == "note_unsigned"
    assert code_of(open_note, raw, []) == "note_unsigned"


def test_every_changed_byte_of_a_note_is_noticed() -> None:
    raw = sign_note("a text\n", NAME, SEED).format()
    for place in range(len(raw)):
        changed = raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]
        with pytest.raises(RemoteProtocolError):
            open_note(changed, [SIGNER.verifier])


LINE = SIGNER.sign("text\n").format()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"text\n",
        b"text\n\n",
        b"text\n" + LINE.encode(),
        b"\n" + LINE.encode(),
        b"text\n\n" + LINE.encode()[:-1],
        b"text\n\n" + LINE.encode() + b"\n",
        b"text\n\n" + LINE.replace("—", "-").encode(),
        b"text\n\n" + LINE.replace("— ", "—  ").encode(),
        b"text\n\n" + LINE.replace("=\n", "\n").encode(),
        b"text\n\n" + LINE.replace("\n", " \n").encode(),
        b"text\r\n\n" + LINE.encode(),
        b"te\x00xt\n\n" + LINE.encode(),
        b"te\tt\n\n" + LINE.encode(),
        b"te\xff\n\n" + LINE.encode(),
        b"te\xed\xa0\x80\n\n" + LINE.encode(),
        "text\n\n— name AAAAAA==\n".encode(),
        "text\n\n— na+me AAAAAAA=\n".encode(),
        "text\n\n— na\u00a0me AAAAAAA=\n".encode(),
        b"text\n\n" + LINE.encode() * 101,
    ],
)
def test_what_is_not_a_note_is_refused(raw: bytes) -> None:
    assert code_of(SignedNote.parse, raw) == "note_malformed"


def test_limits_of_a_note() -> None:
    assert len(SignedNote.parse(b"text\n\n" + LINE.encode() * 100).signatures) == 100
    line = LINE.encode()
    largest = b"x" * (65_536 - len(line) - 2) + b"\n\n" + line
    assert len(largest) == 65_536
    assert SignedNote.parse(largest).format() == largest
    assert code_of(SignedNote.parse, b"x" + largest) == "note_too_large"


@pytest.mark.parametrize(
    "broken",
    [
        SignedNote("no newline", (SIGNER.sign("no newline"),)),
        SignedNote("text\n", ()),
        SignedNote("te\x01xt\n", (SIGNER.sign("x\n"),)),
        SignedNote("te\ud800xt\n", (SIGNER.sign("x\n"),)),
        SignedNote("x" * 70_000 + "\n", (SIGNER.sign("x\n"),)),
    ],
)
def test_a_note_that_could_not_be_read_is_not_written(broken: SignedNote) -> None:
    with pytest.raises(LocalProtocolError):
        broken.format()


def test_misuse_is_local() -> None:
    misuses = [
        lambda: NoteSigner("a name", SEED),
        lambda: NoteSigner(NAME, b"short"),
        lambda: NoteVerifier(NAME, KeyType.ED25519, b"short"),
        lambda: NoteSignature("a+b", b"1234", b"x"),
        lambda: NoteSignature("ab", b"123", b"x"),
        lambda: NoteSignature("ab", b"1234", b""),
    ]
    for misuse in misuses:
        with pytest.raises(LocalProtocolError):
            misuse()


def test_two_keys_of_one_name_and_id_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(note_key, "key_id", lambda *_: b"same")
    keys = [NoteVerifier(NAME, KeyType.ED25519, bytes([n]) * 32) for n in (1, 2)]
    assert code_of(open_note, sign_note("text\n", NAME, SEED), keys) == "note_keys_ambiguous"


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    for read in (SignedNote.parse, parse_signatures):
        try:
            read(raw)
        except RemoteProtocolError:
            continue


@given(st.lists(st.sampled_from([*"\n\n— ab=", NAME, LINE, LINE.strip(), "\u2028", "\x7f"]), max_size=12).map("".join))
def test_any_text_like_a_note_is_read_back_as_written_or_refused(text: str) -> None:
    try:
        read = SignedNote.parse(text.encode())
    except RemoteProtocolError:
        return
    assert read.format() == text.encode()


@given(st.one_of(st.text(max_size=60), st.text(alphabet="+ab0=/A", max_size=60)))
def test_any_text_is_a_vkey_or_refused(text: str) -> None:
    with pytest.raises(RemoteProtocolError):
        NoteVerifier.from_vkey(text)


@given(st.binary(max_size=80))
def test_any_bytes_as_signature_do_not_verify(signature: bytes) -> None:
    for key_type in KeyType:
        public_key = bytes(1312) if key_type is KeyType.COSIGNATURE_ML_DSA_44 else SIGNER.verifier.public_key
        assert not NoteVerifier(NAME, key_type, public_key).verify("text\n", signature)


@given(st.text(max_size=25))
def test_base64_and_decimals_have_one_spelling(text: str) -> None:
    for read, write in ((decode_base64, encode_base64), (parse_decimal, str)):
        try:
            value = read(text, "wrong")
        except RemoteProtocolError:
            continue
        assert write(value) == text  # type: ignore[operator]


@pytest.mark.parametrize(
    "text", ["", "01", "+1", "-1", " 1", "1 ", "1\n", "1_0", "١", "9223372036854775808", "9" * 5000]
)
def test_wrong_decimal_is_refused(text: str) -> None:
    assert code_of(parse_decimal, text, "wrong") == "wrong"


@pytest.mark.parametrize("text", ["A", "AA", "AA=", "AB==", "AA==\n", " AA==", "AA==AA==", "A-_=", "é==="])
def test_wrong_base64_is_refused(text: str) -> None:
    assert code_of(decode_base64, text, "wrong") == "wrong"
