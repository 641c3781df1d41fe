# SPDX-License-Identifier: AGPL-3.0-or-later
"""A row for each reason that the machine gives to any entry type, in its order of precedence."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from ledger_kit import DAY_MS, LedgerKit, seed

from ecot_protocol.domains.coop.acts import Appoint, SealState, Withdraw
from ecot_protocol.domains.membership.acts import AttestPayment, Leave
from ecot_protocol.domains.membership.keys import AddKey, RevokeKey
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.ledger.entry_type import BOARD, NODE, TREASURER
from ecot_protocol.ledger.reasons import COMMON_REASONS, Reason
from ecot_protocol.machine import ID_MAX_AGE_MS, ID_MAX_AHEAD_MS, LIFETIME_MAX_MS
from ecot_protocol.state import State
from ecot_protocol.wire.entry import BODY, Entry, decode_record
from ecot_protocol.wire.ids import object_id, organ_id, uuid7
from ecot_protocol.wire.keys import Signer

TEN = bytes(range(10))


def withdraw(kit: LedgerKit) -> Withdraw:
    """Return a withdrawal of something that will never come: an entry without preconditions."""
    return Withdraw(body_hash=bytes(32), entry_id=uuid7(kit.now, TEN))


def send(kit: LedgerKit, **options: Any) -> Reason | list[Any]:
    """Send a withdrawal by Claire, with changes."""
    options = {"author": kit.persons["claire"], "signers": (kit.founders["claire"],)} | options
    return kit.send("coop.withdraw", withdraw(kit), **options)


def wrong_ledger(kit: LedgerKit) -> Any:
    return send(kit, ledger=bytes(31) + b"\x01")


def genesis_body_for_another_type(kit: LedgerKit) -> Any:
    return send(kit, ledger=bytes(32))


def not_founded(kit: LedgerKit) -> Any:
    entry = kit.entry("coop.withdraw", withdraw(kit), author=kit.persons["claire"], signers=())
    fresh = State()
    return kit.machine.refuse(fresh, kit.machine.admit(entry, 1), kit.now)


def id_of_another_version(kit: LedgerKit) -> Any:
    return send(kit, entry_id=object_id(uuid7(kit.now, TEN), 1))


def organ_id_as_id(kit: LedgerKit) -> Any:
    return send(kit, entry_id=organ_id("board"))


def id_too_old(kit: LedgerKit) -> Any:
    return send(kit, entry_id=uuid7(kit.now - ID_MAX_AGE_MS - 1, TEN))


def id_too_far_ahead(kit: LedgerKit) -> Any:
    return send(kit, entry_id=uuid7(kit.now + ID_MAX_AHEAD_MS + 1, TEN))


def expired(kit: LedgerKit) -> Any:
    return send(kit, expires_in_ms=0)


def expiry_too_late(kit: LedgerKit) -> Any:
    return send(kit, expires_in_ms=LIFETIME_MAX_MS + 1)


def id_used(kit: LedgerKit) -> Any:
    entry_id = kit.new_id()
    assert isinstance(send(kit, entry_id=entry_id), list)
    return send(kit, entry_id=entry_id, expires_in_ms=DAY_MS // 2)


def same_entry_twice(kit: LedgerKit) -> Any:
    entry = kit.entry("coop.withdraw", withdraw(kit), author=kit.persons["claire"], signers=(kit.founders["claire"],))
    assert isinstance(kit.submit(entry), list)
    return kit.submit(entry)


def introduced_key_is_known(kit: LedgerKit) -> Any:
    denis = kit.founders["denis"]
    payload = AddKey(public_key=denis.public_key, purpose="daily")
    return kit.send(
        "membership.add_key", payload, author=kit.persons["claire"], signers=(kit.founders["claire"], denis)
    )


def key_unknown(kit: LedgerKit) -> Any:
    return kit_refuses(kit, Signer(seed("nobody")))


def other_node_key(kit: LedgerKit) -> Any:
    return kit_refuses(kit, Signer(seed(kit.name + "log")))


def kit_refuses(kit: LedgerKit, signer: Signer) -> Reason | None:
    """Ask the machine alone, which must not rely on the signature check to have met the unknown key."""
    entry = kit.entry("coop.withdraw", withdraw(kit), author=kit.persons["claire"], signers=(signer,))
    return kit.machine.refuse(kit.state, kit.machine.admit(entry, 1), kit.now)


def key_revoked(kit: LedgerKit) -> Any:
    claire, new = kit.founders["claire"], Signer(seed("claire's second"))
    by = {"author": kit.persons["claire"]}
    kit.must("membership.add_key", AddKey(public_key=new.public_key, purpose="daily"), signers=(claire, new), **by)
    kit.must("membership.revoke_key", RevokeKey(key_id=claire.key_id), signers=(new,), **by)
    return send(kit)


def signature_withdrawn(kit: LedgerKit) -> Any:
    appoint = Appoint(office="treasurer", persons=(), threshold=1)
    waiting = kit.entry("coop.appoint", appoint, author=BOARD, signers=kit.board)
    submission = kit.machine.admit(waiting, 1)
    payload = Withdraw(body_hash=submission.body_hash, entry_id=submission.body.id)
    kit.must("coop.withdraw", payload, author=kit.persons["denis"], signers=(kit.founders["denis"],))
    return kit.submit(waiting)


def no_signature(kit: LedgerKit) -> Any:
    return send(kit, signers=())


def one_of_two(kit: LedgerKit) -> Any:
    appoint = Appoint(office="treasurer", persons=(), threshold=1)
    return kit.send("coop.appoint", appoint, author=BOARD, signers=kit.board[:1])


def somebody_else(kit: LedgerKit) -> Any:
    return send(kit, signers=(kit.founders["denis"],))


def board_member_for_a_member(kit: LedgerKit) -> Any:
    ada = kit.join("ada")
    return kit.send("membership.leave", Leave(), author=ada.member, signers=(kit.founders["claire"],))


def member_for_the_board(kit: LedgerKit) -> Any:
    ada = kit.join("ada")
    appoint = Appoint(office="treasurer", persons=(ada.person,), threshold=1)
    return kit.send("coop.appoint", appoint, author=BOARD, signers=(ada.signer, kit.founders["claire"]))


def person_as_the_board(kit: LedgerKit) -> Any:
    appoint = Appoint(office="treasurer", persons=(), threshold=1)
    return kit.send("coop.appoint", appoint, author=kit.persons["claire"], signers=kit.board)


def nobody_as_the_board(kit: LedgerKit) -> Any:
    appoint = Appoint(office="treasurer", persons=(), threshold=1)
    return kit.send("coop.appoint", appoint, author=None, signers=kit.board)


def treasurer_without_being_author(kit: LedgerKit) -> Any:
    ada = kit.join("ada")
    payload = AttestPayment(amount_minor=1, direction="in", member=ada.member, reference=None, unit="EUR")
    return kit.send("membership.attest_payment", payload, author=BOARD, signers=kit.treasurer)


def treasurer_by_another(kit: LedgerKit) -> Any:
    ada = kit.join("ada")
    payload = AttestPayment(amount_minor=1, direction="in", member=ada.member, reference=None, unit="EUR")
    return kit.send("membership.attest_payment", payload, author=TREASURER, signers=(kit.founders["denis"],))


def node_named_as_author(kit: LedgerKit) -> Any:
    payload = SealState(digest=kit.state.digest(), size=kit.state.size)
    return kit.send("coop.seal", payload, author=NODE, signers=(kit.agent,))


def person_seals(kit: LedgerKit) -> Any:
    payload = SealState(digest=kit.state.digest(), size=kit.state.size)
    return kit.send("coop.seal", payload, author=None, signers=(kit.founders["claire"],))


def one_person_with_two_keys(kit: LedgerKit) -> Any:
    second = Signer(seed("denis's second"))
    denis = kit.founders["denis"]
    payload = AddKey(public_key=second.public_key, purpose="daily")
    kit.must("membership.add_key", payload, author=kit.persons["denis"], signers=(denis, second))
    appoint = Appoint(office="treasurer", persons=(), threshold=1)
    return kit.send("coop.appoint", appoint, author=BOARD, signers=(denis, second))


def recovery_key_for_the_board(kit: LedgerKit) -> Any:
    recovery = Signer(seed("denis's recovery"))
    denis = kit.founders["denis"]
    payload = AddKey(public_key=recovery.public_key, purpose="recovery")
    kit.must("membership.add_key", payload, author=kit.persons["denis"], signers=(denis, recovery))
    appoint = Appoint(office="treasurer", persons=(), threshold=1)
    return kit.send("coop.appoint", appoint, author=BOARD, signers=(kit.founders["claire"], recovery))


def three_of_two(kit: LedgerKit) -> Any:
    appoint = Appoint(office="treasurer", persons=(), threshold=1)
    return kit.send("coop.appoint", appoint, author=BOARD, signers=tuple(kit.founders.values()))


def bystander(kit: LedgerKit) -> Any:
    return send(kit, signers=(kit.founders["claire"], kit.founders["denis"]))


def node_beside(kit: LedgerKit) -> Any:
    return send(kit, signers=(kit.founders["claire"], kit.agent))


CASES: list[tuple[Callable[[LedgerKit], Any], str]] = [
    (wrong_ledger, "wrong_ledger"),
    (genesis_body_for_another_type, "wrong_ledger"),
    (not_founded, "ledger_not_founded"),
    (id_of_another_version, "id_malformed"),
    (organ_id_as_id, "id_malformed"),
    (id_too_old, "id_time_out_of_range"),
    (id_too_far_ahead, "id_time_out_of_range"),
    (expired, "expired"),
    (expiry_too_late, "expiry_too_late"),
    (id_used, "id_used"),
    (same_entry_twice, "id_used"),
    (introduced_key_is_known, "key_not_usable"),
    (key_unknown, "key_unknown"),
    (other_node_key, "key_unknown"),
    (key_revoked, "key_revoked"),
    (signature_withdrawn, "signature_withdrawn"),
    (no_signature, "signature_missing"),
    (one_of_two, "signature_missing"),
    (somebody_else, "signature_missing"),
    (board_member_for_a_member, "signature_missing"),
    (member_for_the_board, "signature_missing"),
    (person_as_the_board, "signature_missing"),
    (nobody_as_the_board, "signature_missing"),
    (treasurer_without_being_author, "signature_missing"),
    (treasurer_by_another, "signature_missing"),
    (node_named_as_author, "signature_missing"),
    (person_seals, "signature_missing"),
    (recovery_key_for_the_board, "signature_missing"),
    (one_person_with_two_keys, "signature_not_needed"),
    (three_of_two, "signature_not_needed"),
    (bystander, "signature_not_needed"),
    (node_beside, "signature_not_needed"),
]


@pytest.mark.parametrize(("act", "code"), CASES, ids=[act.__name__ for act, _ in CASES])
def test_the_machine_refuses(act: Callable[[LedgerKit], Any], code: str) -> None:
    reason = act(LedgerKit())
    assert isinstance(reason, Reason), "it was recorded"
    assert reason.code == code


def test_every_common_reason_has_a_row() -> None:
    from_admission = {"type_unknown", "bad_signature"}
    # A ledger is closed by a merger, which no type of these rules records.
    assert set(COMMON_REASONS) - {code for _, code in CASES} - from_admission == {"ledger_closed"}


def test_the_first_reason_in_order_wins() -> None:
    kit = LedgerKit()
    old = uuid7(kit.now - ID_MAX_AGE_MS - 1, TEN)
    for changes, code in [
        ({"ledger": bytes(31) + b"\x01", "entry_id": organ_id("board"), "expires_in_ms": 0}, "wrong_ledger"),
        ({"entry_id": organ_id("board"), "expires_in_ms": 0, "signers": ()}, "id_malformed"),
        ({"entry_id": old, "expires_in_ms": 0, "signers": ()}, "id_time_out_of_range"),
        ({"expires_in_ms": 0, "signers": ()}, "expired"),
        ({"expires_in_ms": LIFETIME_MAX_MS + 1, "signers": ()}, "expiry_too_late"),
    ]:
        reason = send(kit, **changes)
        assert isinstance(reason, Reason)
        assert reason.code == code


@pytest.mark.parametrize("age_ms", [-ID_MAX_AHEAD_MS, 0, 1, ID_MAX_AGE_MS - 1])
def test_an_id_as_old_or_as_far_ahead_as_allowed_is_recorded(age_ms: int) -> None:
    kit = LedgerKit()
    assert isinstance(send(kit, entry_id=uuid7(kit.now - age_ms, TEN), expires_in_ms=1), list)


def test_a_lifetime_as_long_as_allowed_is_recorded() -> None:
    assert isinstance(send(LedgerKit(), expires_in_ms=LIFETIME_MAX_MS), list)


def test_a_signature_of_another_body_is_bad() -> None:
    kit = LedgerKit()
    first = kit.entry("coop.withdraw", withdraw(kit), author=kit.persons["claire"], signers=(kit.founders["claire"],))
    second = kit.entry("coop.withdraw", withdraw(kit), author=kit.persons["claire"], signers=(kit.founders["claire"],))
    result = kit.submit(Entry(first.body, second.signatures, ()))
    assert isinstance(result, Reason)
    assert result.code == "bad_signature"


def test_an_unknown_type_is_refused_at_admission() -> None:
    kit = LedgerKit()
    entry = kit.entry("coop.nothing", withdraw(kit), author=None, signers=())
    with pytest.raises(RemoteProtocolError) as caught:
        kit.machine.admit(entry, 1)
    assert caught.value.code == "type_unknown"


def test_no_entry_is_admitted_under_rules_that_we_lack() -> None:
    kit = LedgerKit()
    entry = kit.entry("coop.withdraw", withdraw(kit), author=None, signers=())
    with pytest.raises(RemoteProtocolError) as caught:
        kit.machine.admit(entry, kit.machine.table.highest_rules + 1)
    assert caught.value.code == "type_unknown"


def test_an_entry_of_one_ledger_is_refused_by_another() -> None:
    first, second = LedgerKit(), LedgerKit(name="other")
    entry = first.entry(
        "coop.withdraw", withdraw(first), author=first.persons["claire"], signers=(first.founders["claire"],)
    )
    reason = second.machine.refuse(second.state, second.machine.admit(entry, 1), second.now)
    assert reason is not None
    assert reason.code == "wrong_ledger"


def test_a_second_genesis_is_refused() -> None:
    kit, other = LedgerKit(), LedgerKit(name="other")
    record = decode_record(other.records[0])
    submission = kit.machine.admit_record(record, 1)
    before = kit.state.digest()
    result = kit.machine.record(kit.state, submission, kit.now)
    assert isinstance(result, Reason)
    assert result.code == "wrong_ledger"
    assert kit.state.digest() == before


def test_a_payload_that_is_not_canonical_is_refused() -> None:
    kit = LedgerKit()
    entry = kit.entry("coop.withdraw", withdraw(kit), author=None, signers=())
    body = BODY.decode(entry.body)
    raw = bytes(body.payload)
    long_map = b"\xde\x00\x02" + raw[1:]
    forged = BODY.encode(msgspec.structs.replace(body, payload=msgspec.Raw(long_map)))
    with pytest.raises(RemoteProtocolError) as caught:
        kit.machine.admit(Entry(forged, (), ()), 1)
    assert caught.value.code == "not_canonical"
