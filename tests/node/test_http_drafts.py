# SPDX-License-Identifier: AGPL-3.0-or-later
"""Drafts wait for signatures, are seen by those who may sign, and are recorded by the node itself."""

from typing import Any

from http_kit import MSGPACK, HttpNode, http_node, problem_of
from ledger_kit import DAY_MS, Actor, LedgerKit, seed

from ecot_protocol.domains.coop.acts import Appoint
from ecot_protocol.domains.membership.acts import Admit, Exclude, GrantMandate, NewPerson
from ecot_protocol.domains.membership.state import Mandate
from ecot_protocol.ledger.entry_type import BOARD
from ecot_protocol.wire.encoding import encode
from ecot_protocol.wire.entry import Attachment, Entry, commitment, decode_entry, sign_body
from ecot_protocol.wire.ids import object_id
from ecot_protocol.wire.keys import Signer


def admission(kit: LedgerKit, actor: Actor, *signers: Signer) -> Entry:
    """Return an act of the board, of whom two must sign, with these signatures."""
    return kit.entry("membership.admit", Admit(college="users", member=actor.member), author=BOARD, signers=signers)


async def leave(node: HttpNode, signer: Signer | None, entry: Entry) -> Any:
    return await node.post("/v1/drafts", signer, data=encode(entry), headers=MSGPACK)


async def sign(node: HttpNode, draft: str, body: bytes, signer: Signer) -> Any:
    signature = sign_body(signer, body)
    given = {"key_id": signature.key_id.hex(), "signature": signature.signature.hex()}
    return await node.client.post(f"/v1/drafts/{draft}/signatures", json=given)


async def test_a_draft_is_recorded_as_soon_as_enough_have_signed() -> None:
    kit = LedgerKit()
    ada = kit.apply_for("ada")
    claire, denis, emma = kit.founders.values()
    async with http_node(kit) as node:
        entry = admission(kit, ada)
        told = await (await leave(node, claire, entry)).json()
        assert (told["status"], told["missing_count"]) == ("waiting", 2)
        told = await (await sign(node, told["hash"], entry.body, claire)).json()
        assert (told["status"], told["missing_count"]) == ("waiting", 1)
        listed = (await (await node.get("/v1/drafts", denis)).json())["items"]
        assert [(one["hash"], one["is_signed_by_me"], one["type"]) for one in listed] == [
            (told["hash"], False, "membership.admit")
        ]
        shown = await (await node.get(f"/v1/drafts/{told['hash']}", denis)).json()
        assert decode_entry(bytes.fromhex(shown["entry"])).body == entry.body
        assert shown["needs"][0]["signed"] == [kit.persons["claire"].hex()]
        done = await (await sign(node, told["hash"], entry.body, emma)).json()
        assert (done["status"], done["index"]) == ("recorded", 2)
        status = await node.writer.read(lambda state: state.membership.members[ada.member].status)
        assert status == "admitted"
        assert await problem_of(await node.get(f"/v1/drafts/{told['hash']}", denis), 404) == "not_found"


async def test_a_draft_shows_to_its_possible_signers_alone() -> None:
    kit = LedgerKit()
    ada, bert = kit.apply_for("ada"), kit.join("bert")
    claire = kit.founders["claire"]
    async with http_node(kit) as node:
        entry = admission(kit, ada, claire)
        assert await problem_of(await leave(node, bert.signer, entry), 403) == "not_allowed"
        assert await problem_of(await leave(node, None, entry), 401) == "session_missing"
        told = await (await leave(node, claire, entry)).json()
        assert await problem_of(await node.get(f"/v1/drafts/{told['hash']}", bert.signer), 404) == "not_found"
        assert (await (await node.get("/v1/drafts", bert.signer)).json())["items"] == []
        assert await problem_of(await sign(node, told["hash"], entry.body, bert.signer), 409) == "draft_refused"
        assert await problem_of(await sign(node, told["hash"], entry.body + b"x", kit.founders["denis"]), 409)


async def test_signatures_of_two_who_left_the_same_draft_come_together() -> None:
    kit = LedgerKit()
    ada = kit.apply_for("ada")
    claire, denis, _ = kit.founders.values()
    async with http_node(kit) as node:
        entry = admission(kit, ada, claire)
        assert (await (await leave(node, claire, entry)).json())["status"] == "waiting"
        other = Entry(entry.body, (sign_body(denis, entry.body),), ())
        assert (await (await leave(node, denis, other)).json())["status"] == "recorded"


async def test_a_key_that_the_entry_brings_signs_without_a_session() -> None:
    kit = LedgerKit()
    ada = kit.join("ada")
    new = Signer(seed("a new person's key"))
    entry_id = kit.new_id()
    mandate = Mandate(
        day_limit_minor=None, from_ms=0, person=object_id(entry_id, 1), scopes=("trade",), trade_limit_minor=None,
        until_ms=None,
    )  # fmt: skip
    grant = GrantMandate(mandate=mandate, new_person=NewPerson(handle="nina", public_key=new.public_key))
    async with http_node(kit) as node:
        entry = kit.entry(
            "membership.grant_mandate", grant, author=ada.member, signers=(ada.signer,), entry_id=entry_id
        )
        told = await (await leave(node, ada.signer, entry)).json()
        assert told["status"] == "waiting"
        assert (await (await sign(node, told["hash"], entry.body, new)).json())["status"] == "recorded"
        me = await (await node.get("/v1/me", new)).json()
        assert [one["member"] for one in me["members"]] == [ada.member.hex()]


async def test_a_signature_of_one_who_left_the_board_no_longer_counts() -> None:
    kit = LedgerKit()
    ada = kit.apply_for("ada")
    claire, denis, emma = kit.founders.values()
    async with http_node(kit) as node:
        entry = admission(kit, ada, emma)
        told = await (await leave(node, claire, entry)).json()
        persons = tuple(sorted((kit.persons["claire"], kit.persons["denis"])))
        kit.must("coop.appoint", Appoint(office="board", persons=persons, threshold=2), author=BOARD, signers=kit.board)
        await node.catch_up()
        told = await (await sign(node, told["hash"], entry.body, claire)).json()
        assert (told["status"], told["missing_count"]) == ("waiting", 1)
        assert await problem_of(await node.get(f"/v1/drafts/{told['hash']}", emma), 404) == "not_found"
        assert (await (await sign(node, told["hash"], entry.body, denis)).json())["status"] == "recorded"


async def test_a_refused_draft_stays_and_is_tried_again() -> None:
    kit = LedgerKit()
    ada = kit.apply_for("ada")
    claire, denis, _ = kit.founders.values()
    async with http_node(kit) as node:
        early = kit.entry(
            "membership.exclude", Exclude(member=ada.member, reason=None), author=BOARD, signers=(claire, denis)
        )
        told = await (await leave(node, claire, early)).json()
        assert (told["status"], told["code"]) == ("refused", "member_not_active")
        kit.must("membership.admit", Admit(college="users", member=ada.member), author=BOARD, signers=kit.board)
        await node.catch_up()
        again = await (await sign(node, told["hash"], early.body, denis)).json()
        assert again["status"] == "recorded"


async def test_an_expired_or_foreign_draft_is_refused_and_forgotten() -> None:
    kit = LedgerKit()
    ada = kit.apply_for("ada")
    claire = kit.founders["claire"]
    async with http_node(kit) as node:
        payload = Admit(college="users", member=ada.member)
        foreign = kit.entry("membership.admit", payload, author=BOARD, signers=(), ledger=bytes(31) + b"\1")
        endless = kit.entry("membership.admit", payload, author=BOARD, signers=(), expires_in_ms=32 * DAY_MS)
        for wrong in (foreign, endless):
            assert await problem_of(await leave(node, claire, wrong), 409) == "draft_refused"
        told = await (await leave(node, claire, admission(kit, ada, claire))).json()
        kit.now += DAY_MS
        node.tokens.clear()
        assert await problem_of(await node.get(f"/v1/drafts/{told['hash']}", claire), 404) == "not_found"
        assert await node.store.drafts_expire(kit.now) == 1


async def test_a_draft_keeps_the_attachments_that_its_signers_must_read() -> None:
    kit = LedgerKit()
    ada = kit.join("ada")
    claire, denis, _ = kit.founders.values()
    why = Attachment("reason", bytes(32), b"did not pay")
    async with http_node(kit) as node:
        payload = Exclude(member=ada.member, reason=commitment(why.salt, why.content))
        entry = kit.entry("membership.exclude", payload, author=BOARD, signers=(claire,), attachments=(why,))
        told = await (await leave(node, claire, entry)).json()
        shown = await (await node.get(f"/v1/drafts/{told['hash']}", denis)).json()
        assert decode_entry(bytes.fromhex(shown["entry"])).attachments == (why,)
        bare = Entry(entry.body, entry.signatures, ())
        assert await problem_of(await leave(node, claire, bare), 400) == "attachment_missing"
