# SPDX-License-Identifier: AGPL-3.0-or-later
"""Members, their persons, keys and mandates; one behaviour each."""

import pytest
from ledger_kit import LedgerKit, seed
from msgspec import structs

from ecot_protocol.domains.membership import acts
from ecot_protocol.domains.membership.acts import Admit, Apply, AttestPayment, ChargeFee, Decline, Leave, NewPerson
from ecot_protocol.domains.membership.keys import AddKey, CompleteRecovery, OpenRecovery, RevokeKey, VetoRecovery
from ecot_protocol.domains.membership.state import APPLICATION_LIFETIME_MS
from ecot_protocol.ledger.accounts import AccountKey
from ecot_protocol.ledger.entry_type import BOARD, TREASURER
from ecot_protocol.wire.keys import Signer


def test_admission_charges_the_entry_fee_and_opens_accounts() -> None:
    kit = LedgerKit()
    ada = kit.join("ada")
    assert kit.state.accounts.balance(AccountKey(ada.member, "EUR", "claims")) == -13_500
    assert kit.state.accounts.rows[AccountKey(ada.member, "BART", "barter")].lower_minor == -500_000


def test_one_board_member_alone_admits_nobody() -> None:
    kit = LedgerKit()
    ada = kit.apply_for("ada")
    admit = Admit(college="users", member=ada.member)
    assert kit.refused("membership.admit", admit, author=BOARD, signers=kit.board[:1]) == "signature_missing"


def test_three_signatures_where_two_are_needed_are_refused() -> None:
    kit = LedgerKit()
    ada = kit.apply_for("ada")
    everybody = tuple(kit.founders.values())
    admit = Admit(college="users", member=ada.member)
    assert kit.refused("membership.admit", admit, author=BOARD, signers=everybody) == "signature_not_needed"


def test_a_payment_clears_the_claim() -> None:
    kit = LedgerKit()
    ada = kit.join("ada")
    payment = AttestPayment(amount_minor=13_500, direction="in", member=ada.member, reference=None, unit="EUR")
    kit.must("membership.attest_payment", payment, author=TREASURER, signers=kit.treasurer)
    assert kit.state.accounts.balance(AccountKey(ada.member, "EUR", "claims")) == 0


def test_the_yearly_fee_waits_for_its_day() -> None:
    kit = LedgerKit()
    ada = kit.join("ada")
    fee = ChargeFee(member=ada.member)
    assert kit.refused("membership.charge_fee", fee, author=None, signers=(kit.agent,)) == "fee_not_due"
    kit.now += kit.statutes.membership.fee_period_ms
    kit.must("membership.charge_fee", fee, author=None, signers=(kit.agent,))
    assert kit.state.accounts.balance(AccountKey(ada.member, "EUR", "claims")) == -13_500 - 23_500
    assert kit.refused("membership.charge_fee", fee, author=None, signers=(kit.agent,)) == "fee_not_due"


def test_a_revoked_key_signs_nothing() -> None:
    kit = LedgerKit()
    ada = kit.join("ada")
    phone = Signer(seed("phone"))
    add = AddKey(public_key=phone.public_key, purpose="daily")
    kit.must("membership.add_key", add, author=ada.person, signers=(ada.signer, phone))
    kit.must("membership.revoke_key", RevokeKey(key_id=ada.signer.key_id), author=ada.person, signers=(phone,))
    assert kit.refused("membership.leave", Leave(), **kit.by(ada)) == "key_revoked"
    last = RevokeKey(key_id=phone.key_id)
    assert kit.refused("membership.revoke_key", last, author=ada.person, signers=(phone,)) == "last_key"


def test_recovery_waits_and_replaces_every_key() -> None:
    kit = LedgerKit()
    ada = kit.join("ada")
    new = Signer(seed("new"))
    kit.must(
        "membership.open_recovery",
        OpenRecovery(person=ada.person, public_key=new.public_key),
        author=BOARD,
        signers=(*kit.board, new),
    )
    complete = CompleteRecovery(public_key=new.public_key)
    code = kit.refused("membership.complete_recovery", complete, author=ada.person, signers=(new,))
    assert code == "recovery_not_due"
    kit.now += kit.statutes.membership.recovery_delay_ms
    veto = kit.refused("membership.veto_recovery", VetoRecovery(), author=ada.person, signers=(ada.signer,))
    assert veto == "veto_too_late"
    kit.must("membership.complete_recovery", complete, author=ada.person, signers=(new,))
    assert kit.state.coop.person_keys[ada.person] == (new.key_id,)


def test_a_recovery_key_vetoes_but_does_not_trade() -> None:
    kit = LedgerKit()
    ada = kit.join("ada")
    card, new = Signer(seed("card")), Signer(seed("new"))
    add = AddKey(public_key=card.public_key, purpose="recovery")
    kit.must("membership.add_key", add, author=ada.person, signers=(ada.signer, card))
    assert kit.refused("membership.leave", Leave(), author=ada.member, signers=(card,)) == "signature_missing"
    opened = OpenRecovery(person=ada.person, public_key=new.public_key)
    kit.must("membership.open_recovery", opened, author=BOARD, signers=(*kit.board, new))
    kit.must("membership.veto_recovery", VetoRecovery(), author=ada.person, signers=(card,))
    assert ada.person not in kit.state.membership.recoveries


def test_replay_gives_the_same_digest() -> None:
    kit = LedgerKit()
    for name in ("ada", "bob", "eve"):
        kit.join(name)
    assert kit.replayed().digest() == kit.state.digest()


def test_a_declined_application_leaves_nothing_behind() -> None:
    kit = LedgerKit()
    ada = kit.apply_for("ada")
    kit.must("membership.decline", Decline(member=ada.member, reason=None), author=BOARD, signers=kit.board)
    state = kit.state.membership
    assert not {ada.member} & (state.members.keys() | state.mandates.keys() | state.applications.keys())
    admit = Admit(college="users", member=ada.member)
    assert kit.refused("membership.admit", admit, author=BOARD, signers=kit.board) == "member_not_applied"
    assert kit.state.coop.handles.get("ada") is None


def test_strangers_fill_no_more_than_the_waiting_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acts, "MAX_APPLICATIONS", 2)
    kit = LedgerKit()
    kit.apply_for("ada")
    kit.apply_for("bob")
    assert refused_applicant(kit, "eve") == "applications_full"


def refused_applicant(kit: LedgerKit, name: str) -> str:
    signer = Signer(seed(name))
    new_person = NewPerson(handle=f"{name}.owner", public_key=signer.public_key)
    apply = Apply(college="users", handle=name, identity=None, kind="firm", new_person=new_person, person=None)
    return kit.refused("membership.apply", apply, author=b"self", signers=(signer,))


def test_one_person_does_not_take_every_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acts, "MAX_APPLICATIONS_EACH", 2)
    kit = LedgerKit()
    ada = kit.apply_for("ada")
    apply = Apply(college="users", handle="ada.two", identity=None, kind="firm", new_person=None, person=ada.person)
    kit.must("membership.apply", apply, author=b"self", signers=(ada.signer,))
    third = structs.replace(apply, handle="ada.three")
    by_ada = {"author": b"self", "signers": (ada.signer,)}
    assert kit.refused("membership.apply", third, **by_ada) == "own_applications_full"
    kit.must("membership.admit", Admit(college="users", member=ada.member), author=BOARD, signers=kit.board)
    kit.must("membership.apply", third, **by_ada)


def test_an_application_without_an_answer_lapses_and_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acts, "MAX_APPLICATIONS", 2)
    kit = LedgerKit()
    ada, bob = kit.apply_for("ada"), kit.apply_for("bob")
    kit.must("membership.admit", Admit(college="users", member=bob.member), author=BOARD, signers=kit.board)
    kit.now += APPLICATION_LIFETIME_MS - 1
    kit.apply_for("eve")
    assert refused_applicant(kit, "mallory") == "applications_full"
    kit.now += 1
    admit = Admit(college="users", member=ada.member)
    assert kit.refused("membership.admit", admit, author=BOARD, signers=kit.board) == "application_lapsed"
    kit.apply_for("mallory")
    assert kit.state.membership.members.keys() >= {bob.member}
    assert ada.member not in kit.state.membership.members
    assert kit.replayed().digest() == kit.state.digest()
