# SPDX-License-Identifier: AGPL-3.0-or-later
"""What somebody who means harm, or who made a mistake, could try against the ledger's own rules."""

import msgspec
import pytest
from ledger_kit import DAY_MS, START_MS, Actor, LedgerKit, seed, statutes

from ecot_protocol.domains.coop.acts import (
    AmendStatutes,
    Appoint,
    NameCosigner,
    RaiseRules,
    ReplaceNodeKey,
    SealState,
    Withdraw,
)
from ecot_protocol.domains.coop.genesis import Domain
from ecot_protocol.domains.coop.state import BANK, MAX_WITHDRAWALS_PER_PERSON, ML_DSA_COSIGNER, OWN, own_account
from ecot_protocol.domains.membership.acts import Admit, Apply, GrantMandate, NewPerson
from ecot_protocol.domains.membership.keys import AddKey, CompleteRecovery, OpenRecovery, RevokeKey, VetoRecovery
from ecot_protocol.domains.membership.state import Mandate
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.ledger.accounts import Leg
from ecot_protocol.ledger.entry_type import BOARD
from ecot_protocol.ledger.reasons import Reason
from ecot_protocol.machine import ID_MAX_AGE_MS
from ecot_protocol.state import State
from ecot_protocol.wire.encoding import MAX_INTEGER, Codec, encode
from ecot_protocol.wire.entry import decode_record
from ecot_protocol.wire.ids import object_id, uuid7
from ecot_protocol.wire.keys import ED25519, ML_DSA_44, Signer, key_id


def signer(name: str) -> Signer:
    return Signer(seed(name))


@pytest.mark.parametrize(
    "domain", ["troc.example\n", "troc", "-a.example", "a..example", "Troc.example", "troc.example/"]
)
def test_a_domain_that_would_break_the_lines_of_a_checkpoint_is_refused(domain: str) -> None:
    with pytest.raises(RemoteProtocolError):
        Codec(Domain).decode(encode(domain))


# Keys --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("purpose", ["agent", "cosigner", "host", "log"])
def test_a_person_cannot_take_a_key_of_the_node(purpose: str) -> None:
    kit = LedgerKit()
    node_key = signer(kit.name + purpose)
    claire = kit.founders["claire"]
    payload = AddKey(public_key=node_key.public_key, purpose="daily")
    signers = (claire, node_key)
    assert kit.refused("membership.add_key", payload, author=kit.persons["claire"], signers=signers) == "key_not_usable"


def test_the_node_cannot_take_the_key_of_a_person_nor_one_of_its_own() -> None:
    kit = LedgerKit()
    for taken in (kit.founders["emma"], kit.agent, signer(kit.name + "log")):
        payload = ReplaceNodeKey(public_key=taken.public_key, purpose="agent")
        code = kit.refused("coop.replace_node_key", payload, author=BOARD, signers=(*kit.board, taken))
        assert code == "key_not_usable"


def test_a_further_cosigner_key_is_named_once_and_taken_back() -> None:
    kit = LedgerKit()
    key = bytes((ML_DSA_44,)) + bytes(1_312)
    for wrong in (None, bytes((ED25519,)) + bytes(1_312)):
        refused = kit.refused("coop.name_cosigner", NameCosigner(public_key=wrong), author=BOARD, signers=kit.board)
        assert refused == "key_not_usable"
    kit.must("coop.name_cosigner", NameCosigner(public_key=key), author=BOARD, signers=kit.board)
    assert kit.state.coop.node_keys[ML_DSA_COSIGNER].public_key == key
    again = kit.refused("coop.name_cosigner", NameCosigner(public_key=key), author=BOARD, signers=kit.board)
    assert again == "key_not_usable"
    kit.must("coop.name_cosigner", NameCosigner(public_key=None), author=BOARD, signers=kit.board)
    assert ML_DSA_COSIGNER not in kit.state.coop.node_keys


def test_a_replaced_agent_seals_no_more() -> None:
    kit = LedgerKit()
    new = signer("new agent")
    payload = ReplaceNodeKey(public_key=new.public_key, purpose="agent")
    kit.must("coop.replace_node_key", payload, author=BOARD, signers=(*kit.board, new))
    seal = SealState(digest=kit.state.digest(), size=kit.state.size)
    assert kit.refused("coop.seal", seal, author=None, signers=(kit.agent,)) == "key_unknown"
    kit.must("coop.seal", seal, author=None, signers=(new,))


def test_a_new_key_must_sign_itself_in() -> None:
    kit = LedgerKit()
    payload = AddKey(public_key=signer("of somebody else").public_key, purpose="daily")
    code = kit.refused("membership.add_key", payload, author=kit.persons["claire"], signers=(kit.founders["claire"],))
    assert code == "signature_missing"


def test_a_revoked_key_never_comes_back() -> None:
    kit = LedgerKit()
    claire, new = kit.founders["claire"], signer("second")
    by = {"author": kit.persons["claire"]}
    kit.must("membership.add_key", AddKey(public_key=new.public_key, purpose="daily"), signers=(claire, new), **by)
    kit.must("membership.revoke_key", RevokeKey(key_id=claire.key_id), signers=(new,), **by)
    again = AddKey(public_key=claire.public_key, purpose="daily")
    assert kit.refused("membership.add_key", again, signers=(new, claire), **by) == "key_not_usable"
    thief = Apply(
        college="users", handle="thief", identity=None, kind="person",
        new_person=NewPerson(handle="thief.owner", public_key=claire.public_key), person=None,
    )  # fmt: skip
    assert kit.refused("membership.apply", thief, author=b"self", signers=(claire,)) == "key_not_usable"


def test_somebody_elses_key_cannot_be_revoked() -> None:
    kit = LedgerKit()
    payload = RevokeKey(key_id=kit.founders["denis"].key_id)
    code = kit.refused(
        "membership.revoke_key", payload, author=kit.persons["claire"], signers=(kit.founders["claire"],)
    )
    assert code == "key_not_active"


def open_recovery(kit: LedgerKit, person: bytes, new: Signer) -> list[object] | Reason:
    payload = OpenRecovery(person=person, public_key=new.public_key)
    return kit.send("membership.open_recovery", payload, author=BOARD, signers=(*kit.board, new))


def complete_recovery(kit: LedgerKit, person: bytes, new: Signer) -> list[object] | Reason:
    payload = CompleteRecovery(public_key=new.public_key)
    return kit.send("membership.complete_recovery", payload, author=person, signers=(new,))


def test_a_recovery_whose_new_key_is_lost_can_be_opened_anew() -> None:
    kit = LedgerKit()
    emma, lost, found = kit.persons["emma"], signer("lost"), signer("found")
    assert isinstance(open_recovery(kit, emma, lost), list)
    early = open_recovery(kit, emma, found)
    assert isinstance(early, Reason)
    assert early.code == "recovery_open"
    kit.now += kit.statutes.membership.recovery_delay_ms
    assert isinstance(open_recovery(kit, emma, found), list)
    refused = complete_recovery(kit, emma, lost)
    assert isinstance(refused, Reason)
    assert refused.code == "recovery_unknown"
    kit.now += kit.statutes.membership.recovery_delay_ms
    assert isinstance(complete_recovery(kit, emma, found), list)
    assert kit.state.coop.person_keys[emma] == (found.key_id,)


def test_a_recovery_key_can_veto_but_not_after_the_end() -> None:
    kit = LedgerKit()
    emma, recovery, new = kit.persons["emma"], signer("emma's recovery"), signer("new")
    add = AddKey(public_key=recovery.public_key, purpose="recovery")
    kit.must("membership.add_key", add, author=emma, signers=(kit.founders["emma"], recovery))
    open_recovery(kit, emma, new)
    kit.now += kit.statutes.membership.recovery_delay_ms
    late = {"author": emma, "signers": (recovery,)}
    assert kit.refused("membership.veto_recovery", VetoRecovery(), **late) == "veto_too_late"
    kit.now -= 1
    kit.must("membership.veto_recovery", VetoRecovery(), **late)
    kit.now += 1
    gone = complete_recovery(kit, emma, new)
    assert isinstance(gone, Reason)
    assert gone.code == "recovery_unknown"


def test_a_recovery_cannot_be_completed_for_somebody_else() -> None:
    kit = LedgerKit()
    new = signer("new")
    open_recovery(kit, kit.persons["emma"], new)
    kit.now += kit.statutes.membership.recovery_delay_ms
    for person in (kit.persons["denis"], None, BOARD):
        result = kit.send(
            "membership.complete_recovery", CompleteRecovery(public_key=new.public_key), author=person, signers=(new,)
        )
        assert isinstance(result, Reason)
        assert result.code == "recovery_unknown"


def test_two_entries_whose_further_ids_are_equal_never_share_a_person(monkeypatch: pytest.MonkeyPatch) -> None:
    kit = LedgerKit()
    victim = kit.join("ada")
    monkeypatch.setattr("ecot_protocol.domains.membership.acts.object_id", lambda _entry, _number: victim.person)
    new = signer("second")
    apply = Apply(
        college="users", handle="second", identity=None, kind="person",
        new_person=NewPerson(handle="second.owner", public_key=new.public_key), person=None,
    )  # fmt: skip
    assert kit.refused("membership.apply", apply, author=b"self", signers=(new,)) == "id_used"
    mandate = Mandate(
        day_limit_minor=None, from_ms=0, person=victim.person, scopes=("owner",), trade_limit_minor=None, until_ms=None
    )
    grant = GrantMandate(mandate=mandate, new_person=NewPerson(handle="third.owner", public_key=new.public_key))
    options = {"author": victim.member, "signers": (victim.signer, new)}
    assert kit.refused("membership.grant_mandate", grant, **options) == "id_used"


# Authors -----------------------------------------------------------------------------------------------------------


def test_an_applicant_is_its_own_entry_and_nothing_else() -> None:
    kit = LedgerKit()
    new = signer("ada")
    apply = Apply(
        college="users", handle="ada", identity=None, kind="firm",
        new_person=NewPerson(handle="ada.owner", public_key=new.public_key), person=None,
    )  # fmt: skip
    for author in (None, BOARD, kit.persons["claire"], uuid7(kit.now, bytes(10))):
        assert kit.refused("membership.apply", apply, author=author, signers=(new,)) == "signature_missing"
    both = msgspec.structs.replace(apply, person=kit.persons["claire"])
    neither = msgspec.structs.replace(apply, new_person=None)
    for payload, who in ((both, new), (neither, kit.founders["claire"])):
        assert kit.refused("membership.apply", payload, author=b"self", signers=(who,)) == "signature_missing"


def test_an_applicant_cannot_speak_for_somebody_who_did_not_sign() -> None:
    kit = LedgerKit()
    apply = Apply(
        college="users", handle="ada", identity=None, kind="firm", new_person=None, person=kit.persons["claire"]
    )
    code = kit.refused("membership.apply", apply, author=b"self", signers=(kit.founders["denis"],))
    assert code == "signature_missing"


def test_a_mandate_of_one_member_is_none_of_another() -> None:
    kit = LedgerKit()
    ada, bob = kit.join("ada"), kit.join("bob")
    forged = Actor("bob", bob.member, ada.person, ada.signer)
    grant = GrantMandate(
        mandate=Mandate(
            day_limit_minor=None, from_ms=0, person=ada.person, scopes=("owner",), trade_limit_minor=None, until_ms=None
        ),
        new_person=None,
    )
    assert kit.refused("membership.grant_mandate", grant, **kit.by(forged)) == "signature_missing"


# Withdrawals -------------------------------------------------------------------------------------------------------


def test_a_withdrawal_holds_as_long_as_the_body_could_be_recorded() -> None:
    """A body may be signed long before the time of its id."""
    kit = LedgerKit()
    far = kit.now + 100 * DAY_MS
    later = uuid7(far, bytes(10))
    appoint = Appoint(office="treasurer", persons=(), threshold=1)
    lifetime_ms = far - kit.now + 30 * DAY_MS
    waiting = kit.entry(
        "coop.appoint", appoint, author=BOARD, signers=kit.board, entry_id=later, expires_in_ms=lifetime_ms
    )
    submission = kit.machine.admit(waiting, 1)
    denis = {"author": kit.persons["denis"], "signers": (kit.founders["denis"],)}
    kit.must("coop.withdraw", Withdraw(body_hash=submission.body_hash, entry_id=later), **denis)
    kit.now = far
    other = uuid7(kit.now, bytes(9) + b"\x01")
    kit.must("coop.withdraw", Withdraw(body_hash=bytes(32), entry_id=other), **denis)
    result = kit.submit(waiting)
    assert isinstance(result, Reason)
    assert result.code == "signature_withdrawn"


def test_withdrawals_retire_and_are_bounded() -> None:
    kit = LedgerKit()
    person = kit.persons["denis"]
    by = {"author": person, "signers": (kit.founders["denis"],)}
    for number in range(MAX_WITHDRAWALS_PER_PERSON):
        kit.must(
            "coop.withdraw", Withdraw(body_hash=number.to_bytes(32, "big"), entry_id=uuid7(kit.now, bytes(10))), **by
        )
    more = Withdraw(body_hash=b"\xff" * 32, entry_id=uuid7(kit.now, bytes(10)))
    assert kit.refused("coop.withdraw", more, **by) == "withdrawals_full"
    again = Withdraw(body_hash=bytes(32), entry_id=more.entry_id)
    assert kit.refused("coop.withdraw", again, **by) == "withdrawn_before"
    kit.now += ID_MAX_AGE_MS + 1
    assert kit.refused("coop.withdraw", more, **by) == "signature_lapsed"
    kit.must("coop.withdraw", Withdraw(body_hash=b"\xff" * 32, entry_id=uuid7(kit.now, bytes(10))), **by)
    assert len(kit.state.coop.withdrawals[person]) == 1


def test_one_persons_withdrawal_leaves_the_others_free_to_sign() -> None:
    kit = LedgerKit()
    appoint = Appoint(office="treasurer", persons=(), threshold=1)
    entry_id = kit.new_id()
    waiting = kit.entry("coop.appoint", appoint, author=BOARD, signers=kit.board, entry_id=entry_id)
    body_hash = kit.machine.admit(waiting, 1).body_hash
    payload = Withdraw(body_hash=body_hash, entry_id=entry_id)
    kit.must("coop.withdraw", payload, author=kit.persons["denis"], signers=(kit.founders["denis"],))
    others = (kit.founders["claire"], kit.founders["emma"])
    same_body = kit.entry("coop.appoint", appoint, author=BOARD, signers=others, entry_id=entry_id)
    assert same_body.body == waiting.body
    assert isinstance(kit.submit(same_body), list)


# Statutes ----------------------------------------------------------------------------------------------------------


def amend(kit: LedgerKit, version: int, in_force_from_ms: int, fee_minor: int) -> list[object] | Reason:
    changed = statutes(membership=msgspec.structs.replace(kit.statutes.membership, yearly_fee_minor=fee_minor))
    payload = AmendStatutes(in_force_from_ms=in_force_from_ms, statutes=changed, version=version)
    return kit.send("coop.amend_statutes", payload, author=BOARD, signers=kit.board)


def fee(kit: LedgerKit, at: int) -> int:
    return kit.state.coop.statutes_at(at)[1].membership.yearly_fee_minor


def test_statutes_that_take_force_in_a_far_future_do_not_block_the_next() -> None:
    kit = LedgerKit()
    assert isinstance(amend(kit, 2, MAX_INTEGER, 1), list)
    assert isinstance(amend(kit, 3, kit.now + DAY_MS, 2), list)
    assert (fee(kit, kit.now), fee(kit, kit.now + DAY_MS), fee(kit, MAX_INTEGER)) == (23_500, 2, 2)


def test_statutes_take_force_at_their_instant() -> None:
    kit = LedgerKit()
    assert isinstance(amend(kit, 2, kit.now + DAY_MS, 1), list)
    assert isinstance(amend(kit, 3, kit.now + 2 * DAY_MS, 2), list)
    start = kit.now
    assert [fee(kit, start + offset) for offset in (0, DAY_MS - 1, DAY_MS, 2 * DAY_MS - 1, 2 * DAY_MS)] == [
        23_500, 23_500, 1, 1, 2,
    ]  # fmt: skip
    past = amend(kit, 4, kit.now - 1, 3)
    assert isinstance(past, Reason)
    assert past.code == "statutes_in_the_past"


# Amounts -----------------------------------------------------------------------------------------------------------


def test_an_entry_fee_that_overflows_the_cooperatives_account_admits_nobody() -> None:
    rules = statutes().membership
    kit = LedgerKit(statutes=statutes(membership=msgspec.structs.replace(rules, entry_fee_minor=MAX_INTEGER)))
    kit.join("ada")
    bob = kit.apply_for("bob")
    payload = Admit(college="users", member=bob.member)
    assert kit.refused("membership.admit", payload, author=BOARD, signers=kit.board) == "upper_limit_exceeded"
    assert kit.state.accounts.balance(own_account("EUR")) == MAX_INTEGER
    assert State.load(kit.state.dump()).digest() == kit.state.digest()


def test_promises_to_an_account_deep_in_debt_stay_within_the_integers() -> None:
    kit = LedgerKit()
    own, bank = own_account("EUR", OWN), own_account("EUR", BANK)
    accounts = kit.state.accounts
    accounts.transfer(bytes(16), (Leg(own, bank, MAX_INTEGER, "test"),))
    assert accounts.check_reserve((Leg(bank, own, MAX_INTEGER, "test"),)) is None
    accounts.reserve(b"1" * 16, (Leg(bank, own, MAX_INTEGER, "test"),))
    refused = accounts.check_reserve((Leg(bank, own, 1, "test"),))
    assert refused is not None
    assert State.load(kit.state.dump()).accounts.rows[own] == accounts.rows[own]


# Rules numbers and seals -------------------------------------------------------------------------------------------


def test_rules_go_up_by_one() -> None:
    kit = LedgerKit()
    for number in (1, 3, MAX_INTEGER):
        code = kit.refused("coop.raise_rules", RaiseRules(rules=number), author=BOARD, signers=kit.board)
        assert code == "rules_number_mismatch"


def test_a_seal_is_of_the_state_before_it() -> None:
    kit = LedgerKit()
    right = SealState(digest=kit.state.digest(), size=kit.state.size)
    by = {"author": None, "signers": (kit.agent,)}
    assert kit.refused("coop.seal", SealState(digest=bytes(32), size=right.size), **by) == "seal_digest_mismatch"
    assert kit.refused("coop.seal", SealState(digest=right.digest, size=right.size + 1), **by) == "seal_size_mismatch"
    kit.must("coop.seal", right, **by)
    assert kit.refused("coop.seal", right, **by) == "seal_size_mismatch"
    assert kit.state.coop.seals[""].digest == right.digest


def test_an_altered_snapshot_is_found_out() -> None:
    kit = LedgerKit()
    rows = list(kit.state.dump())
    altered = [(table, key, value[:-1] + bytes((value[-1] ^ 1,))) if table == "log.used_ids" else (table, key, value)
               for table, key, value in rows]  # fmt: skip
    assert State.load(iter(altered)).digest() != kit.state.digest()
    with pytest.raises(RemoteProtocolError):
        State.load(iter([("nothing.here", b"", b"")]))
    assert State.load(iter(rows)).digest() == kit.state.digest()


def test_what_lapses_does_not_depend_on_the_order_of_rows_in_a_snapshot() -> None:
    kit = LedgerKit()
    for name in ("ada", "bob", "cleo"):
        kit.apply_for(name)
    shuffled = State.load(iter(list(kit.state.dump())[::-1]))
    kit.now += 32 * DAY_MS
    before = len(kit.records)
    kit.apply_for("dora")
    (record,) = kit.records[before:]
    facts = [kit.machine.replay(state, decode_record(record)).facts for state in (kit_before(kit), shuffled)]
    assert facts[0] == facts[1]
    assert shuffled.digest() == kit.state.digest()


def kit_before(kit: LedgerKit) -> State:
    """Return the state before the last record, replayed."""
    state = State()
    for record in kit.records[:-1]:
        kit.machine.replay(state, decode_record(record))
    return state


def test_ids_of_persons_come_from_the_entry_that_made_them() -> None:
    kit = LedgerKit()
    ada = kit.join("ada")
    assert ada.person == object_id(ada.member, 1)
    assert kit.state.coop.keys[key_id(ada.signer.public_key)].person == ada.person
    assert kit.now == START_MS
