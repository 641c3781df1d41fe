# SPDX-License-Identifier: AGPL-3.0-or-later
"""Checkpoints and cosignatures: the examples of the specifications, and what must be refused."""

import doctest
import struct
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecot_protocol.errors import LocalProtocolError, RemoteProtocolError
from ecot_protocol.wire import checkpoint, checkpoint_text, cosignature
from ecot_protocol.wire.checkpoint import EMPTY_ROOT, Checkpoint, open_checkpoint, sign_checkpoint
from ecot_protocol.wire.cosignature import (
    Cosigner,
    cosign_with,
    cosignature_time,
    is_fresh,
    is_from_the_future,
    make_ml_dsa_cosigner,
    ml_dsa_public_key,
    verify_cosignature,
)
from ecot_protocol.wire.note import NoteSignature, NoteSigner, SignedNote
from ecot_protocol.wire.note_key import KeyType, NoteVerifier, cosignature_message, subtree_message

# The example at the head of tlog-cosignature.md; its first four lines and the empty one are that of tlog-checkpoint.md.
SOFA_TEXT = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
SOFA_NOTE = (
    SOFA_TEXT + "\n"
    "— example.com/behind-the-sofa "
    "Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
    "— witness.example.com/w1 "
    "jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n"
).encode()

LOG = NoteSigner("coop.example/ecot", bytes(32))
WITNESS = Cosigner("witness.example/w1", b"\x01" * 32)
HEAD = Checkpoint("coop.example/ecot", 7, bytes(range(32)))
NOTE = sign_checkpoint(HEAD, LOG)
NOW = 1_790_000_000


def code_of(call: object, *arguments: object) -> str:
    with pytest.raises(RemoteProtocolError) as error:
        call(*arguments)  # type: ignore[operator]
    return error.value.code


@pytest.mark.parametrize("module", [checkpoint_text, checkpoint, cosignature])
def test_examples_in_the_docstrings_run(module: object) -> None:
    result = doctest.testmod(module)  # type: ignore[arg-type]
    assert result.attempted > 0
    assert result.failed == 0


def test_checkpoint_of_the_specification_is_read_and_written_back() -> None:
    note = SignedNote.parse(SOFA_NOTE)
    head = Checkpoint.parse(note.text)
    assert (head.origin, head.size, head.extensions) == ("example.com/behind-the-sofa", 20_852_163, ())
    assert head.root_hash.hex().startswith("0ac5186a91863e8e")
    assert head.format() == SOFA_TEXT
    assert note.format() == SOFA_NOTE


def test_cosignature_of_the_specification_has_the_time_of_its_message() -> None:
    log_line, witness_line = SignedNote.parse(SOFA_NOTE).signatures
    assert (len(log_line.signature), len(witness_line.signature)) == (64, 72)
    assert cosignature_time(witness_line) == 1_679_315_147
    # The signed message that the specification prints.
    assert cosignature_message(SOFA_TEXT, 1_679_315_147) == (
        b"cosignature/v1\ntime 1679315147\nexample.com/behind-the-sofa\n20852163\n"
        b"CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n\n",
        "origin\n1\n",
        SOFA_TEXT[:-1],
        SOFA_TEXT + "\n",
        SOFA_TEXT.replace("example.com/behind-the-sofa", ""),
        SOFA_TEXT.replace("example.com/behind-the-sofa", "o" * 1025),
        SOFA_TEXT.replace("20852163", "020852163"),
        SOFA_TEXT.replace("20852163", "-1"),
        SOFA_TEXT.replace("20852163", "9223372036854775808"),
        SOFA_TEXT.replace("20852163", "２"),
        SOFA_TEXT.replace("CsUY", ""),
        SOFA_TEXT.replace("q2I=", "q2J="),
        SOFA_TEXT + "extension\n" * 65,
    ],
)
def test_what_is_not_a_checkpoint_is_refused(text: str) -> None:
    assert code_of(Checkpoint.parse, text) == "checkpoint_malformed"


def test_extension_lines_are_kept() -> None:
    text = SOFA_TEXT + "one more line\n"
    head = Checkpoint.parse(text)
    assert head.extensions == ("one more line",)
    assert head.format() == text


@given(st.text(max_size=150))
def test_any_text_is_a_checkpoint_or_refused(text: str) -> None:
    for candidate in (text, f"{text}\n1\n{SOFA_TEXT.split()[2]}\n", SOFA_TEXT + text):
        try:
            head = Checkpoint.parse(candidate)
        except RemoteProtocolError:
            continue
        assert head.format() == candidate


@given(st.binary(max_size=150))
def test_any_bytes_are_refused_as_signed_checkpoint(raw: bytes) -> None:
    for candidate in (raw, NOTE.format() + raw + b"\n", raw + NOTE.format()[1:]):
        with pytest.raises(RemoteProtocolError):
            open_checkpoint(candidate, [LOG.verifier])


def test_signed_checkpoint_opens() -> None:
    opened = open_checkpoint(NOTE.format(), [LOG.verifier])
    assert opened.checkpoint == HEAD
    assert opened.cosignatures == ()


def test_key_of_another_log_does_not_sign() -> None:
    """Both keys are accepted, but each for its own origin."""
    other = NoteSigner("other.example/ecot", b"\x02" * 32)
    text = HEAD.format()
    forged = SignedNote(text, (other.sign(text),))
    assert code_of(open_checkpoint, forged, [LOG.verifier, other.verifier]) == "note_unsigned"
    with pytest.raises(LocalProtocolError):
        sign_checkpoint(HEAD, other)


def test_a_cosigner_alone_does_not_stand_in_for_the_log() -> None:
    text = HEAD.format()
    only_witness = SignedNote(text, (WITNESS.cosign(text, NOW),))
    assert code_of(open_checkpoint, only_witness, [LOG.verifier], [WITNESS.verifier]) == "checkpoint_unsigned"


def test_cosignatures_are_returned_with_their_time() -> None:
    note = NOTE.with_signatures([WITNESS.cosign(NOTE.text, NOW), WITNESS.cosign(NOTE.text, NOW + 5)])
    opened = open_checkpoint(note.format(), [LOG.verifier], [WITNESS.verifier])
    times = [(found.cosigner, found.timestamp_unix_s) for found in opened.cosignatures]
    assert times == [(WITNESS.verifier, NOW), (WITNESS.verifier, NOW + 5)]
    assert len(note.with_signatures(note.signatures).signatures) == 3
    assert open_checkpoint(note, [LOG.verifier]).cosignatures == ()


def test_verified_cosignature_tells_its_time() -> None:
    line = WITNESS.cosign(NOTE.text, NOW)
    assert verify_cosignature(NOTE.text, line, WITNESS.verifier) == NOW


def test_false_cosignatures_are_refused() -> None:
    line = WITNESS.cosign(NOTE.text, NOW)
    other = Cosigner("witness.example/w2", b"\x03" * 32)
    later = NoteSignature(line.name, line.key_id, struct.pack(">Q", NOW + 1) + line.signature[8:])
    plain = NoteSignature(line.name, line.key_id, line.signature[8:])
    huge_time = NoteSignature(line.name, line.key_id, b"\xff" * 8 + line.signature[8:])
    for false in (other.cosign(NOTE.text, NOW), later, plain, huge_time):
        assert code_of(verify_cosignature, NOTE.text, false, WITNESS.verifier) == "cosignature_wrong"
    assert code_of(verify_cosignature, SOFA_TEXT, line, WITNESS.verifier) == "cosignature_wrong"
    assert code_of(cosignature_time, NoteSignature("n", b"1234", b"short")) == "cosignature_malformed"


def test_a_cosigner_signs_checkpoints_only_and_within_time() -> None:
    assert code_of(WITNESS.cosign, "any other text\n", NOW) == "checkpoint_malformed"
    for time in (0, -1, 2**63):
        with pytest.raises(LocalProtocolError):
            WITNESS.cosign(NOTE.text, time)
    with pytest.raises(LocalProtocolError):
        verify_cosignature(NOTE.text, LOG.sign(NOTE.text), LOG.verifier)


def test_signature_of_one_type_is_none_of_another() -> None:
    """The same Ed25519 key as log and as cosigner gives different ids and different messages."""
    log, cosigner = NoteSigner("n.example", bytes(32)), Cosigner("n.example", bytes(32))
    assert log.verifier.key_id != cosigner.verifier.key_id
    assert not cosigner.verifier.verify(NOTE.text, bytes(8) + log.sign(NOTE.text).signature)
    assert not log.verifier.verify(NOTE.text, cosigner.cosign(NOTE.text, NOW).signature[8:])


def test_ml_dsa_message_is_the_struct_of_the_specification() -> None:
    message = subtree_message("w.example", HEAD, NOW)
    assert message == (
        b"subtree/v1\n\x00"
        + b"\x09w.example"
        + NOW.to_bytes(8, "big")
        + b"\x11coop.example/ecot"
        + bytes(8)
        + (7).to_bytes(8, "big")
        + bytes(range(32))
    )


def test_an_ml_dsa_cosigner_needs_a_library_and_a_short_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LocalProtocolError):
        make_ml_dsa_cosigner("pq.example", b"short")
    assert make_ml_dsa_cosigner("n" * 256, bytes(32)) is None
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric.mldsa", None)
    assert make_ml_dsa_cosigner("pq.example", bytes(32)) is None
    assert ml_dsa_public_key(bytes(32)) is None


def test_with_both_keys_a_long_origin_is_cosigned_with_ed25519_alone() -> None:
    cosigner = make_ml_dsa_cosigner("pq.example", bytes(32))
    cosigners = (WITNESS,) if cosigner is None else (WITNESS, cosigner)
    long = Checkpoint("o" * 256, 0, EMPTY_ROOT).format()
    assert [one.key_id for one in cosign_with(cosigners, long, NOW)] == [WITNESS.verifier.key_id]
    lines = cosign_with(cosigners, NOTE.text, NOW)
    assert [one.key_id for one in lines] == [one.verifier.key_id for one in cosigners]
    if cosigner is not None:
        assert code_of(cosigner.cosign, long, NOW) == "origin_too_long"
        assert code_of(cosigner.cosign, "any other text\n", NOW) == "checkpoint_malformed"
        with pytest.raises(LocalProtocolError):
            cosigner.cosign(NOTE.text, 0)


@pytest.mark.parametrize(
    ("seconds", "fresh", "future"),
    [(0, True, False), (600, True, False), (-600, True, False), (601, False, True), (-601, False, False)],
)
def test_ten_minutes_either_way_are_fresh(seconds: int, fresh: bool, future: bool) -> None:
    assert is_fresh(NOW + seconds, NOW) is fresh
    assert is_from_the_future(NOW + seconds, NOW) is future


def test_ml_dsa_cosignature_verifies_or_the_key_is_unknown() -> None:
    cosigner = make_ml_dsa_cosigner("pq.example", bytes(32))
    if cosigner is None:  # no library here can: then nobody's key is supported
        assert not NoteVerifier("pq.example", KeyType.COSIGNATURE_ML_DSA_44, bytes(1312)).is_supported
        return
    key = cosigner.verifier
    assert key.is_supported
    assert NoteVerifier.from_vkey(key.vkey) == key
    assert ml_dsa_public_key(bytes(32)) == b"\x03" + key.public_key
    line = cosigner.cosign(NOTE.text, NOW)
    signed = line.signature
    assert verify_cosignature(NOTE.text, line, key) == NOW
    opened = open_checkpoint(NOTE.with_signatures([line]), [LOG.verifier], [key])
    assert [found.timestamp_unix_s for found in opened.cosignatures] == [NOW]
    false = NoteSignature("pq.example", key.key_id, struct.pack(">Q", NOW + 1) + signed[8:])
    assert code_of(verify_cosignature, NOTE.text, false, key) == "cosignature_wrong"
    assert not key.verify("not a checkpoint\n", signed)


def test_ml_dsa_key_that_no_library_verifies_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ecot_protocol.wire.note_key._parse_ml_dsa", lambda _: None)
    key = NoteVerifier("pq.example", KeyType.COSIGNATURE_ML_DSA_44, bytes(1312))
    line = NoteSignature("pq.example", key.key_id, bytes(8 + 2420))
    opened = open_checkpoint(NOTE.with_signatures([line]), [LOG.verifier], [key])
    assert not key.is_supported
    assert opened.note.unknown == (line,)


def test_misuse_is_local() -> None:
    for fields in (
        ("", 0, bytes(32)),
        ("a\nb", 0, bytes(32)),
        ("o", -1, bytes(32)),
        ("o", 0, b""),
        ("\ud800", 0, bytes(32)),
    ):
        with pytest.raises(LocalProtocolError):
            Checkpoint(*fields)
    with pytest.raises(LocalProtocolError):
        Checkpoint("o", 0, bytes(32), ("",))
