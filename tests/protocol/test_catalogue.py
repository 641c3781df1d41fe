# SPDX-License-Identifier: AGPL-3.0-or-later
"""Works, their identifiers and splits; one behaviour each, and a row for each reason."""

from collections.abc import Callable
from typing import Any

import pytest
from ledger_kit import LedgerKit

from ecot_protocol.domains.catalogue import facts
from ecot_protocol.domains.catalogue.acts import BatchWork, ChangeSplits, RegisterWork, RegisterWorks, WithdrawWork
from ecot_protocol.domains.catalogue.identifiers import Identifier, is_identifier
from ecot_protocol.domains.catalogue.state import Holder
from ecot_protocol.domains.membership.acts import Exclude, GrantMandate
from ecot_protocol.domains.membership.state import Mandate
from ecot_protocol.ledger.entry_type import BOARD
from ecot_protocol.machine import ENTRY_TYPES
from ecot_protocol.wire.encoding import Wire, encode
from ecot_protocol.wire.entry import Attachment, commitment
from ecot_protocol.wire.ids import object_id

ISRC = Identifier("isrc", "FRZ039801212")
ISWC = Identifier("iswc", "T0345246801")
ISBN = Identifier("isbn", "9782070612758")
UNKNOWN = b"?" * 16


def work(*holders: tuple[bytes, int], identifiers: tuple[Identifier, ...] = ()) -> RegisterWork:
    return RegisterWork(
        holders=tuple(Holder(member, share_bp) for member, share_bp in holders),
        identifiers=identifiers,
        kind="music",
        title=None,
    )


def batch(*identifiers: Identifier) -> RegisterWorks:
    works = tuple(BatchWork(identifiers=(identifier,), kind="book") for identifier in identifiers)
    return RegisterWorks(titles=None, works=works)


def duo(kit: LedgerKit) -> tuple[Any, Any, bytes]:
    """Return two members and the work that they hold 60 to 40."""
    ada, bob = kit.join("ada"), kit.join("bob")
    register = work((ada.member, 6_000), (bob.member, 4_000), identifiers=(ISRC,))
    options = {"author": ada.member, "signers": (ada.signer, bob.signer)}
    (fact,) = kit.must("catalogue.register_work", register, **options)
    assert isinstance(fact, facts.WorkRegistered)
    return ada, bob, fact.work


@pytest.mark.parametrize(
    ("scheme", "value", "is_sound"),
    [
        ("isbn", "9782070612758", True),
        ("isbn", "9782070612759", False),
        ("isbn", "2070612759", False),
        ("ismn", "9790060115615", True),
        ("ismn", "9782070612758", False),
        ("ean", "4006381333931", True),
        ("ean", "4006381333932", False),
        ("isrc", "FRZ039801212", True),
        ("isrc", "FR-Z03-98-01212", False),
        ("isrc", "frz039801212", False),
        ("iswc", "T0345246801", True),
        ("iswc", "T0345246802", False),
        ("doi", "10.1000/182", False),
        ("isbn", "٩٧٨٢٠٧٠٦١٢٧٥٨", False),
    ],
)
def test_forms_and_check_digits_of_identifiers(scheme: str, value: str, is_sound: bool) -> None:
    assert is_identifier(scheme, value) is is_sound


def test_every_rights_holder_signs_a_split() -> None:
    kit = LedgerKit()
    ada, bob = kit.join("ada"), kit.join("bob")
    register = work((ada.member, 6_000), (bob.member, 4_000))
    assert kit.refused("catalogue.register_work", register, **kit.by(ada)) == "signature_missing"
    options = {"author": ada.member, "signers": (ada.signer, bob.signer)}
    (fact,) = kit.must("catalogue.register_work", register, **options)
    assert isinstance(fact, facts.WorkRegistered)
    assert fact.holders == ((ada.member, 6_000), (bob.member, 4_000))


def test_nobody_registers_a_work_for_others_alone() -> None:
    kit = LedgerKit()
    ada, bob = kit.join("ada"), kit.join("bob")
    options = {"author": ada.member, "signers": (ada.signer, bob.signer)}
    assert kit.refused("catalogue.register_work", work((bob.member, 10_000)), **options) == "signature_missing"


def test_a_person_who_acts_for_two_holders_signs_once() -> None:
    kit = LedgerKit()
    ada, bob = kit.join("ada"), kit.join("bob")
    mandate = Mandate(
        day_limit_minor=None,
        from_ms=0,
        person=ada.person,
        scopes=("catalogue",),
        trade_limit_minor=None,
        until_ms=None,
    )
    kit.must("membership.grant_mandate", GrantMandate(mandate=mandate, new_person=None), **kit.by(bob))
    kit.must("catalogue.register_work", work((ada.member, 5_000), (bob.member, 5_000)), **kit.by(ada))


def test_a_batch_has_ids_of_its_own_and_one_attachment_of_titles() -> None:
    kit = LedgerKit()
    ada = kit.join("ada")
    titles = Attachment("title", bytes(32), encode(("Un", "Deux")))
    payload = RegisterWorks(
        titles=commitment(titles.salt, titles.content),
        works=(BatchWork(identifiers=(ISBN,), kind="book"), BatchWork(identifiers=(), kind="game")),
    )
    entry_id = kit.new_id()
    result = kit.must("catalogue.register_works", payload, **kit.by(ada), entry_id=entry_id, attachments=(titles,))
    assert [(one.work, one.place, one.holders) for one in result if isinstance(one, facts.WorkRegistered)] == [
        (object_id(entry_id, 1), 0, ((ada.member, 10_000),)),
        (object_id(entry_id, 2), 1, ((ada.member, 10_000),)),
    ]


def test_two_hundred_works_fit_one_entry() -> None:
    kit = LedgerKit()
    ada = kit.join("ada")
    numbers = [f"FRZ0398{number:05d}" for number in range(200)]
    assert (
        len(kit.must("catalogue.register_works", batch(*(Identifier("isrc", one) for one in numbers)), **kit.by(ada)))
        == 200
    )
    assert len(kit.state.catalogue.works) == 200


def test_old_and_new_holders_sign_a_change_of_splits() -> None:
    kit = LedgerKit()
    ada, bob, work_id = duo(kit)
    eve = kit.join("eve")
    change = ChangeSplits(holders=(Holder(ada.member, 5_000), Holder(eve.member, 5_000)), work=work_id)
    for missing in (ada, bob, eve):
        signers = tuple(one.signer for one in (ada, bob, eve) if one is not missing)
        code = kit.refused("catalogue.change_splits", change, author=ada.member, signers=signers)
        assert code == "signature_missing"
    everybody = (ada.signer, bob.signer, eve.signer)
    kit.must("catalogue.change_splits", change, author=ada.member, signers=everybody)
    assert kit.state.catalogue.works[work_id].holders == change.holders


def test_a_holder_who_was_excluded_can_keep_a_share() -> None:
    kit = LedgerKit()
    ada, bob, work_id = duo(kit)
    kit.must("membership.exclude", Exclude(member=bob.member, reason=None), author=BOARD, signers=kit.board)
    change = ChangeSplits(holders=(Holder(ada.member, 9_000), Holder(bob.member, 1_000)), work=work_id)
    kit.must("catalogue.change_splits", change, author=ada.member, signers=(ada.signer, bob.signer))


@pytest.mark.parametrize("by", ["holders", "board"])
def test_a_work_is_withdrawn_by_its_holders_or_the_board(by: str) -> None:
    kit = LedgerKit()
    ada, bob, work_id = duo(kit)
    withdraw = WithdrawWork(reason=None, work=work_id)
    assert kit.refused("catalogue.withdraw_work", withdraw, **kit.by(ada)) == "signature_missing"
    options: dict[str, Any] = {"author": ada.member, "signers": (ada.signer, bob.signer)}
    kit.must("catalogue.withdraw_work", withdraw, **(options if by == "holders" else board_options(kit)))
    assert not kit.state.catalogue.is_active(work_id)
    kit.must("catalogue.register_works", batch(ISRC), **kit.by(ada))


def board_options(kit: LedgerKit) -> dict[str, Any]:
    return {"author": BOARD, "signers": kit.board}


def test_a_composition_can_have_many_recordings() -> None:
    kit = LedgerKit()
    ada = kit.join("ada")
    kit.must("catalogue.register_works", batch(ISWC, ISWC), **kit.by(ada))
    kit.must("catalogue.register_works", batch(ISWC), **kit.by(ada))


def test_replay_gives_the_same_digest() -> None:
    kit = LedgerKit()
    ada, bob, work_id = duo(kit)
    kit.must("catalogue.register_works", batch(ISBN), **kit.by(bob))
    withdraw = WithdrawWork(reason=None, work=work_id)
    kit.must("catalogue.withdraw_work", withdraw, author=bob.member, signers=(ada.signer, bob.signer))
    assert kit.replayed().digest() == kit.state.digest()


# ------------------------------------------------------------------------------------------------- each reason

Case = Callable[[LedgerKit], tuple[str, Wire, dict[str, Any]]]


def excluded(kit: LedgerKit) -> Any:
    ada = kit.join("ada")
    kit.must("membership.exclude", Exclude(member=ada.member, reason=None), author=BOARD, signers=kit.board)
    return ada


def by_excluded(tag: str) -> Case:
    def build(kit: LedgerKit) -> tuple[str, Wire, dict[str, Any]]:
        ada = excluded(kit)
        payload = work((ada.member, 10_000)) if tag == "catalogue.register_work" else batch(ISBN)
        return tag, payload, kit.by(ada)

    return build


def identified(tag: str, *identifiers: Identifier, taken: bool = False) -> Case:
    def build(kit: LedgerKit) -> tuple[str, Wire, dict[str, Any]]:
        ada = kit.join("ada")
        if taken:
            kit.must("catalogue.register_works", batch(*identifiers), **kit.by(ada))
        alone = work((ada.member, 10_000), identifiers=identifiers)
        return tag, alone if tag == "catalogue.register_work" else batch(*identifiers), kit.by(ada)

    return build


def split(*shares: int, repeated: bool = False) -> Case:
    def build(kit: LedgerKit) -> tuple[str, Wire, dict[str, Any]]:
        actors = [kit.join("ada"), kit.join("bob")]
        if repeated:
            actors[1] = actors[0]
        holders = tuple((actor.member, share_bp) for actor, share_bp in zip(actors, shares, strict=True))
        signers = tuple({actor.member: actor.signer for actor in actors}.values())
        return "catalogue.register_work", work(*holders), {"author": actors[0].member, "signers": signers}

    return build


def change(kind: str) -> Case:
    def build(kit: LedgerKit) -> tuple[str, Wire, dict[str, Any]]:
        ada, bob, work_id = duo(kit)
        signers = (ada.signer, bob.signer)
        holders = [Holder(ada.member, 5_000), Holder(bob.member, 5_000)]
        if kind == "repeated":
            holders[1] = holders[0]
        elif kind == "sum":
            holders[1] = Holder(bob.member, 4_999)
        elif kind == "newcomer":
            eve = kit.apply_for("eve")
            holders, signers = [Holder(eve.member, 10_000)], (*signers, eve.signer)
        elif kind == "withdrawn":
            withdraw = WithdrawWork(reason=None, work=work_id)
            kit.must("catalogue.withdraw_work", withdraw, author=BOARD, signers=kit.board)
        payload = ChangeSplits(holders=tuple(holders), work=work_id)
        author = holders[0].member
        return "catalogue.change_splits", payload, {"author": author, "signers": signers}

    return build


def withdrawn_unknown(kit: LedgerKit) -> tuple[str, Wire, dict[str, Any]]:
    return "catalogue.withdraw_work", WithdrawWork(reason=None, work=UNKNOWN), kit.by(kit.join("ada"))


BAD = Identifier("isbn", "9782070612759")
ONE, MANY = "catalogue.register_work", "catalogue.register_works"
CASES: dict[tuple[str, str], Case] = {
    (ONE, "member_not_active"): by_excluded(ONE),
    (ONE, "holder_repeated"): split(5_000, 5_000, repeated=True),
    (ONE, "shares_sum_wrong"): split(6_000, 5_000),
    (ONE, "identifier_malformed"): identified(ONE, BAD),
    (ONE, "identifier_taken"): identified(ONE, ISBN, taken=True),
    (ONE, "identifier_repeated"): identified(ONE, ISBN, ISBN),
    (MANY, "member_not_active"): by_excluded(MANY),
    (MANY, "identifier_malformed"): identified(MANY, BAD),
    (MANY, "identifier_taken"): identified(MANY, ISBN, taken=True),
    (MANY, "identifier_repeated"): identified(MANY, ISBN, ISBN),
    ("catalogue.change_splits", "work_unknown"): change("withdrawn"),
    ("catalogue.change_splits", "member_not_active"): change("newcomer"),
    ("catalogue.change_splits", "holder_repeated"): change("repeated"),
    ("catalogue.change_splits", "shares_sum_wrong"): change("sum"),
    ("catalogue.withdraw_work", "work_unknown"): withdrawn_unknown,
}


@pytest.mark.parametrize(("tag", "code"), CASES)
def test_each_reason(tag: str, code: str) -> None:
    kit = LedgerKit()
    case_tag, payload, options = CASES[tag, code](kit)
    assert case_tag == tag
    assert kit.refused(tag, payload, **options) == code


def test_every_reason_has_a_case() -> None:
    assert {(one.tag, code) for one in ENTRY_TYPES if one.tag.startswith("catalogue.") for code in one.reasons} == {
        *CASES
    }
