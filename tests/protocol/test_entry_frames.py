# SPDX-License-Identifier: AGPL-3.0-or-later
"""Entries, records, statements and replies as bytes: limits, order of signatures, attachments."""

from hashlib import sha256

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_kit import LedgerKit, seed
from story_kit import attachment, tell

from ecot_protocol.domains.membership.acts import Exclude
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.ledger.entry_type import BOARD
from ecot_protocol.wire.encoding import encode
from ecot_protocol.wire.entry import (
    ENTRY,
    MAX_ATTACHMENT_SIZE_BYTES,
    MAX_ENTRY_SIZE_BYTES,
    MAX_RECORD_SIZE_BYTES,
    MAX_SIGNATURES,
    Attachment,
    Entry,
    Record,
    Signature,
    commitment,
    decode_entry,
    decode_record,
    encode_record,
    leaf_data,
)
from ecot_protocol.wire.keys import Signer, is_signature_valid, public_key_of
from ecot_protocol.wire.reply import MAX_PROOF_HASHES, REPLY, Recorded, RecordedBefore, Refused, Reply, Unknown
from ecot_protocol.wire.statement import (
    MAX_STATEMENT_SIZE_BYTES,
    STATEMENT,
    Statement,
    decode_statement,
    is_statement_signed,
    sign_statement,
    statement_id,
)

SIGNATURE = Signature(bytes(16), bytes(64))


def code_of(decode: object, raw: bytes) -> str:
    with pytest.raises(RemoteProtocolError) as caught:
        decode(raw)  # type: ignore[operator]
    return caught.value.code


@pytest.mark.parametrize("decode", [decode_entry, decode_record, decode_statement])
@settings(max_examples=300)
@given(raw=st.binary(max_size=300))
def test_any_bytes_are_decoded_or_refused(decode: object, raw: bytes) -> None:
    try:
        value = decode(raw)  # type: ignore[operator]
    except RemoteProtocolError:
        return
    assert encode(value) == raw


@settings(max_examples=150)
@given(st.data())
def test_mutated_entries_are_decoded_or_refused(data: st.DataObject) -> None:
    sent = SENT
    raw = bytearray(encode(data.draw(st.sampled_from(sent))))
    for _ in range(data.draw(st.integers(1, 5))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        entry = decode_entry(bytes(raw))
        KIT.machine.admit(entry, 1)
    except RemoteProtocolError:
        return
    assert encode(entry) == bytes(raw)


KIT = tell()
SENT = KIT.sent


@pytest.mark.parametrize(
    ("signatures", "is_sorted"),
    [
        ((), True),
        ((SIGNATURE,), True),
        ((SIGNATURE, SIGNATURE), False),
        ((SIGNATURE, Signature(b"\x01" * 16, bytes(64))), True),
        ((Signature(b"\x01" * 16, bytes(64)), SIGNATURE), False),
    ],
)
def test_signatures_are_sorted_and_each_key_signs_once(signatures: tuple[Signature, ...], is_sorted: bool) -> None:
    for raw, decode in (
        (encode(Entry(b"", signatures, ())), decode_entry),
        (encode(Record(0, b"", signatures)), decode_record),
    ):
        if is_sorted:
            assert decode(raw).signatures == signatures  # type: ignore[operator]
        else:
            assert code_of(decode, raw) == "signatures_not_sorted"


def test_sizes_have_limits() -> None:
    assert code_of(decode_entry, bytes(MAX_ENTRY_SIZE_BYTES + 1)) == "too_large"
    assert code_of(decode_record, bytes(MAX_RECORD_SIZE_BYTES + 1)) == "too_large"
    assert code_of(decode_statement, bytes(MAX_STATEMENT_SIZE_BYTES + 1)) == "too_large"
    many = tuple(Signature(number.to_bytes(16, "big"), bytes(64)) for number in range(MAX_SIGNATURES + 1))
    assert code_of(decode_entry, encode(Entry(b"", many, ()))) == "malformed"
    large = Attachment("memo", bytes(32), bytes(MAX_ATTACHMENT_SIZE_BYTES + 1))
    assert code_of(decode_entry, encode(Entry(b"", (), (large,)))) == "malformed"
    assert code_of(decode_entry, encode(Entry(bytes(MAX_RECORD_SIZE_BYTES + 1), (), ()))) == "malformed"


def test_an_entry_whose_record_would_be_too_large_is_refused_at_admission() -> None:
    kit = LedgerKit()
    entry = kit.entry("membership.exclude", Exclude(member=bytes(16), reason=None), author=BOARD, signers=())
    room = MAX_RECORD_SIZE_BYTES - len(encode_record(kit.now, entry))
    assert room > 0
    signatures = tuple(Signature(number.to_bytes(16, "big"), bytes(64)) for number in range(MAX_SIGNATURES))
    kit.machine.admit(Entry(entry.body, signatures, ()), 1)
    padded = Entry(entry.body + bytes(room), signatures, ())
    assert code_of(lambda _raw: kit.machine.admit(padded, 1), b"") in {"malformed", "too_large"}


def test_what_is_admitted_always_fits_a_record() -> None:
    for entry in SENT:
        assert len(encode_record(2**48, entry)) <= len(entry.body) + 88 * len(entry.signatures) + 32


def test_a_leaf_is_a_hash_of_the_record_in_its_own_context() -> None:
    assert leaf_data(b"x") == sha256(b"ecot/record/v1\nx").digest()
    assert leaf_data(b"x") != sha256(b"x").digest()


# Attachments -------------------------------------------------------------------------------------------------------


def exclude(kit: LedgerKit, *attachments: Attachment, reason: bytes | None) -> Entry:
    payload = Exclude(member=bytes(16), reason=reason)
    return kit.entry("membership.exclude", payload, author=BOARD, signers=kit.board, attachments=attachments)


def admission(kit: LedgerKit, entry: Entry) -> str:
    return code_of(lambda _raw: kit.machine.admit(entry, 1), b"")


def test_an_attachment_is_asked_for_and_must_be_the_right_one() -> None:
    kit = LedgerKit()
    hmac, right = attachment("reason", "did not pay")
    kit.machine.admit(exclude(kit, right, reason=hmac), 1)
    kit.machine.admit(exclude(kit, reason=None), 1)
    assert admission(kit, exclude(kit, reason=hmac)) == "attachment_missing"
    assert admission(kit, exclude(kit, right, reason=None)) == "attachment_unexpected"
    assert admission(kit, exclude(kit, right, right, reason=hmac)) == "attachment_unexpected"
    for wrong in (
        msgspec.structs.replace(right, content=b"did pay"),
        msgspec.structs.replace(right, salt=bytes(32)),
        msgspec.structs.replace(right, class_name="memo"),
    ):
        assert admission(kit, exclude(kit, wrong, reason=hmac)) == "attachment_missing"


def test_a_record_of_erased_attachments_is_the_same_record() -> None:
    for entry in SENT:
        erased = Entry(entry.body, entry.signatures, ())
        assert encode_record(1, entry) == encode_record(1, erased)


@given(st.binary(max_size=64), st.binary(max_size=64))
def test_a_commitment_without_its_salt_says_nothing(first: bytes, second: bytes) -> None:
    salt = seed("salt")
    assert (commitment(salt, first) == commitment(salt, second)) == (first == second)
    assert commitment(salt, first) != sha256(first).digest()
    assert commitment(salt, first) != commitment(seed("other salt"), first)


# Statements --------------------------------------------------------------------------------------------------------


def statement(*ledgers: bytes, kind: str = "peering") -> bytes:
    return STATEMENT.encode(Statement(ledgers=ledgers, payload=msgspec.Raw(b"\x80"), type=kind))


def test_the_ledgers_of_a_statement_ascend() -> None:
    first, second = bytes(32), b"\x01" * 32
    assert decode_statement(statement(first, second)).ledgers == (first, second)
    for wrong in ((second, first), (first, first)):
        assert code_of(decode_statement, statement(*wrong)) == "ledgers_not_sorted"
    assert code_of(decode_statement, statement()) == "malformed"
    assert code_of(decode_statement, statement(first, kind="peering\n")) == "malformed"


def test_a_signature_of_a_statement_is_none_of_an_entry() -> None:
    signer, raw = Signer(bytes(32)), statement(bytes(32))
    signature = sign_statement(signer, raw).signature
    assert is_statement_signed(signer.public_key, raw, signature)
    assert not is_signature_valid(signer.public_key, b"ecot/entry/v1\n" + raw, signature)
    assert not is_statement_signed(public_key_of(b"\x01" * 32), raw, signature)
    assert statement_id(raw) != sha256(raw).digest()


# Replies -----------------------------------------------------------------------------------------------------------


def test_a_reply_has_one_form_for_each_outcome() -> None:
    reply = Reply(
        (
            Recorded(0, 1),
            RecordedBefore(1, 2, (bytes(32),)),
            Refused("expired", (("at_ms", 1), ("why", "late"))),
            Unknown("outcome_unknown"),
        ),
        0,
        (),
        "note",
    )
    raw = REPLY.encode(reply)
    assert REPLY.decode(raw) == reply
    for kind, width in enumerate((3, 4, 3, 2)):
        assert encode(reply.outcomes[kind])[:2] == bytes((0x90 | width, kind))


@pytest.mark.parametrize(
    "raw",
    [
        b"\x94\x91\x93\x04\x00\x01\xc0\x90\xa0",  # an outcome that there is not
        b"\x94\x91\x92\x00\x00\xc0\x90\xa0",  # too short
        b"\x94\x91\x94\x00\x00\x01\x02\xc0\x90\xa0",  # too long
        b"\x94\x90\xff\x90\xa0",  # a negative index
    ],
)
def test_a_reply_of_another_form_is_refused(raw: bytes) -> None:
    assert code_of(REPLY.decode, raw) == "malformed"


def test_a_proof_has_a_limit() -> None:
    too_long = Reply((), None, (bytes(32),) * (MAX_PROOF_HASHES + 1), "")
    assert code_of(REPLY.decode, REPLY.encode(too_long)) == "malformed"
    assert ENTRY.decode(encode(SENT[0])) == SENT[0]
