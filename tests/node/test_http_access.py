# SPDX-License-Identifier: AGPL-3.0-or-later
"""Who may open a session, and who may read what with it."""

import msgspec
import pytest
from http_callers import caller_of
from http_kit import HttpNode, http_node, problem_of
from ledger_kit import Actor, LedgerKit, seed

from ecot_node.http.callers import Caller, may_read, may_read_attachment
from ecot_protocol.domains.membership.acts import Exclude, GrantMandate, RevokeMandate
from ecot_protocol.domains.membership.keys import AddKey, RevokeKey
from ecot_protocol.domains.membership.state import Mandate
from ecot_protocol.domains.trade.acts import Propose
from ecot_protocol.ledger.accounts import AccountKey
from ecot_protocol.ledger.attachments import CLASSES
from ecot_protocol.ledger.digest import position, verify_row
from ecot_protocol.ledger.entry_type import BOARD, TREASURER
from ecot_protocol.wire.encoding import encode
from ecot_protocol.wire.entry import BODY, Attachment, commitment, decode_record
from ecot_protocol.wire.keys import Signer

BUYER, SELLER, OTHER = b"b" * 16, b"s" * 16, b"o" * 16
MEMBER = caller_of(members={OTHER: "admitted"})
PARTY = caller_of(members={BUYER: "admitted"})
APPLICANT = caller_of(members={OTHER: "applied"})
GONE_PARTY = caller_of(members={BUYER: "left"})
BOARD_MEMBER = caller_of(offices=("board",))
TREASURER_HOLDER = caller_of(offices=("treasurer",))
AUDITOR = caller_of(offices=("auditor",))
NOBODYS = caller_of()
ATTACHMENT_READERS = {
    "members": {MEMBER, PARTY, BOARD_MEMBER},
    "parties": {PARTY},
    "officers": {PARTY, BOARD_MEMBER},
}


@pytest.mark.parametrize(
    ("visibility", "readers"),
    [
        ("public", {None, MEMBER, PARTY, APPLICANT, GONE_PARTY, BOARD_MEMBER, TREASURER_HOLDER, AUDITOR, NOBODYS}),
        ("members", {MEMBER, PARTY, BOARD_MEMBER, TREASURER_HOLDER, AUDITOR}),
        ("parties", {PARTY, GONE_PARTY, BOARD_MEMBER, TREASURER_HOLDER}),
        ("auditors", {BOARD_MEMBER, AUDITOR}),
        ("of a later release", set()),
    ],
)
def test_each_visibility_has_its_readers(visibility: str, readers: set[Caller | None]) -> None:
    everybody = (None, MEMBER, PARTY, APPLICANT, GONE_PARTY, BOARD_MEMBER, TREASURER_HOLDER, AUDITOR, NOBODYS)
    assert {one for one in everybody if may_read(one, visibility, (BUYER, SELLER))} == readers


def test_an_office_reads_what_concerns_its_organ_and_a_person_what_concerns_itself() -> None:
    assert may_read(caller_of(offices=("treasurer",)), "parties", (TREASURER,))
    assert not may_read(AUDITOR, "parties", (TREASURER, BOARD))
    assert may_read(caller_of(person=OTHER), "parties", (OTHER,))


@pytest.mark.parametrize(
    ("class_name", "readers"),
    [
        (name, ATTACHMENT_READERS[one.readers])
        for name, one in CLASSES.items()
    ]
    + [("of_a_later_release", set())],
)  # fmt: skip
def test_each_class_of_attachment_has_its_readers(class_name: str, readers: set[Caller | None]) -> None:
    everybody = (None, MEMBER, PARTY, APPLICANT, BOARD_MEMBER)
    assert {one for one in everybody if may_read_attachment(one, class_name, (BUYER, SELLER))} == readers


async def _trade(node: HttpNode, seller: Actor, buyer: Actor) -> int:
    """Record a trade with a memo and return its index."""
    memo = Attachment("memo", bytes(32), b"ten hours of translation")
    payload = Propose(
        barter_minor=10_000, buyer=buyer.member, commission_minor=500, deliver_by_ms=node.kit.now + 10**9, euro_minor=0,
        expires_at_ms=node.kit.now + 10**8, lines=None, memo=commitment(memo.salt, memo.content), net_minor=10_000,
        statutes_version=1, vat_minor=0,
    )  # fmt: skip
    entry = node.kit.entry(
        "trade.propose", payload, author=seller.member, signers=(seller.signer,), attachments=(memo,)
    )
    reply = await node.record(entry)
    assert reply.start is not None
    return reply.start


async def test_a_trade_is_served_to_its_parties_and_officers_alone() -> None:
    kit = LedgerKit()
    ada, bert, cleo = kit.join("ada"), kit.join("bert"), kit.join("cleo")
    async with http_node(kit) as node:
        index = await _trade(node, ada, bert)
        path = f"/v1/records/{index}"
        for reader in (ada, bert):
            told = await (await node.get(path, reader.signer)).json()
            assert bytes.fromhex(told["attachments"][0]["content"]) == b"ten hours of translation"
            assert told["parties"] == [reader.member.hex()], "a party is told of itself alone"
        board = await (await node.get(path, kit.founders["denis"])).json()
        assert board["parties"] == [ada.member.hex(), bert.member.hex()]
        assert (board["type"], board["attachments"]) == ("trade.propose", [])
        for stranger in (cleo.signer, None):
            assert await problem_of(await node.get(path, stranger), 404) == "not_found"
        seen = {}
        for name, signer in (("ada", ada.signer), ("cleo", cleo.signer), ("nobody", None)):
            items = (await (await node.get("/v1/records?limit=200", signer)).json())["items"]
            seen[name] = [one["index"] for one in items]
        assert index in seen["ada"]
        assert index not in seen["cleo"] + seen["nobody"]
        assert 0 in seen["nobody"]


async def test_a_partner_node_opens_no_session() -> None:
    async with http_node() as node:
        for signer in (node.kit.agent, Signer(seed("coophost")), Signer(seed("somebody else"))):
            assert await problem_of(await node.open(signer), 401) == "challenge_refused"


async def test_a_session_says_for_whom_the_person_acts() -> None:
    kit = LedgerKit()
    ada = kit.join("ada")
    async with http_node(kit) as node:
        opened = await (await node.open(ada.signer)).json()
        me = await (await node.get("/v1/me", ada.signer)).json()
        mandate = {"member": ada.member.hex(), "handle": "ada", "status": "admitted", "scopes": ["owner"]}
        assert opened["members"] == me["members"] == [mandate]
        assert (me["person"], me["offices"]) == (ada.person.hex(), [])
        assert me["keys"] == [{"key_id": ada.signer.key_id.hex(), "purpose": "daily"}]
        claire = await (await node.get("/v1/me", kit.founders["claire"])).json()
        assert claire["offices"] == ["board", "treasurer"]


async def test_a_mandate_given_while_the_node_runs_shows_at_once_and_ends_at_once() -> None:
    kit = LedgerKit()
    ada, bert = kit.join("ada"), kit.join("bert")
    async with http_node(kit) as node:
        assert len((await (await node.get("/v1/me", bert.signer)).json())["members"]) == 1
        mandate = Mandate(
            day_limit_minor=None, from_ms=0, person=bert.person, scopes=("trade",), trade_limit_minor=None,
            until_ms=kit.now + 1_000,
        )  # fmt: skip
        kit.must("membership.grant_mandate", GrantMandate(mandate=mandate, new_person=None), **kit.by(ada))
        await node.catch_up()
        handles = [one["handle"] for one in (await (await node.get("/v1/me", bert.signer)).json())["members"]]
        assert sorted(handles) == ["ada", "bert"]
        kit.now += 1_000  # the mandate's end
        assert len((await (await node.get("/v1/me", bert.signer)).json())["members"]) == 1
        kit.must("membership.revoke_mandate", RevokeMandate(person=bert.person), **kit.by(ada))


async def test_a_removed_key_ends_its_session_at_once() -> None:
    kit = LedgerKit()
    ada = kit.join("ada")
    new = Signer(seed("ada's new key"))
    async with http_node(kit) as node:
        assert (await node.get("/v1/me", ada.signer)).status == 200
        kit.must(
            "membership.add_key", AddKey(public_key=new.public_key, purpose="daily"), author=ada.person,
            signers=(ada.signer, new),
        )  # fmt: skip
        kit.must("membership.revoke_key", RevokeKey(key_id=ada.signer.key_id), author=ada.person, signers=(new,))
        await node.catch_up()
        assert await problem_of(await node.get("/v1/me", ada.signer), 401) == "session_ended"
        assert await problem_of(await node.open(ada.signer), 401) == "challenge_refused"
        assert (await node.get("/v1/me", new)).status == 200


async def test_an_excluded_member_loses_what_members_read_at_once() -> None:
    kit = LedgerKit()
    ada = kit.join("ada")
    async with http_node(kit) as node:
        items = (await (await node.get("/v1/records?limit=200", ada.signer)).json())["items"]
        assert "members" in {one["visibility"] for one in items}
        kit.must("membership.exclude", Exclude(member=ada.member, reason=None), author=BOARD, signers=kit.board)
        await node.catch_up()
        items = (await (await node.get("/v1/records?limit=200", ada.signer)).json())["items"]
        assert {one["visibility"] for one in items} == {"public"}
        assert (await (await node.get("/v1/me", ada.signer)).json())["members"] == []


async def test_an_expired_or_closed_session_reads_nothing() -> None:
    kit = LedgerKit()
    async with http_node(kit) as node:
        emma, denis = kit.founders["emma"], kit.founders["denis"]
        token = await node.token(emma)
        answer = await node.client.delete("/v1/sessions", headers={"Authorization": f"Bearer {token}"})
        assert answer.status == 204
        assert await problem_of(await node.get("/v1/me", emma), 401) == "session_ended"
        await node.token(denis)
        kit.now += 12 * 3_600_000
        assert await problem_of(await node.get("/v1/me", denis), 401) == "session_ended"
        assert await problem_of(await node.get("/v1/me"), 401) == "session_missing"


async def test_a_challenge_opens_one_session_for_its_key_in_time() -> None:
    async with http_node() as node:
        claire, denis = node.kit.founders["claire"], node.kit.founders["denis"]
        challenge = await node.challenge(claire)
        for wrong in (
            node.opening(denis, challenge),
            node.opening(claire, bytes(32)),
            {**node.opening(claire, challenge), "signature": "00" * 64},
        ):
            assert await problem_of(await node.client.post("/v1/sessions", json=wrong), 401) == "challenge_refused"
        opening = node.opening(claire, challenge)
        assert (await node.client.post("/v1/sessions", json=opening)).status == 200
        assert await problem_of(await node.client.post("/v1/sessions", json=opening), 401) == "challenge_refused"
        late = node.opening(claire, await node.challenge(claire))
        node.kit.now += 60_000
        assert await problem_of(await node.client.post("/v1/sessions", json=late), 401) == "challenge_refused"


async def test_a_recovery_key_opens_no_session() -> None:
    kit = LedgerKit()
    ada = kit.join("ada")
    spare = Signer(seed("ada's spare key"))
    kit.must(
        "membership.add_key", AddKey(public_key=spare.public_key, purpose="recovery"), author=ada.person,
        signers=(ada.signer, spare),
    )  # fmt: skip
    async with http_node(kit) as node:
        assert await problem_of(await node.open(spare), 401) == "challenge_refused"


async def test_a_list_goes_on_where_the_page_before_ended() -> None:
    kit = LedgerKit()
    for number in range(7):
        kit.apply_for(f"m{number}")
    async with http_node(kit) as node:
        claire, path, seen = kit.founders["claire"], "/v1/records?limit=3", []
        for _ in range(4):
            page = await (await node.get(path, claire)).json()
            seen += [one["index"] for one in page["items"]]
            assert page["index"] == 8
            if page["next"] is None:
                break
            path = f"/v1/records?limit=3&cursor={page['next']}"
        assert seen == list(range(8))


async def test_a_member_proves_its_own_rows_and_nobody_elses() -> None:
    kit = LedgerKit()
    ada, bert = kit.join("ada"), kit.join("bert")
    async with http_node(kit) as node:
        key = encode(AccountKey(ada.member, "BART", "barter"))
        row = {"table": "accounts.rows", "key": key.hex()}
        told = await (await node.post("/v1/proofs", ada.signer, json={"rows": [row]})).json()
        proof = told["proofs"][0]
        seal = BODY.decode(decode_record(bytes.fromhex(told["seal"])).body)
        digest = msgspec.msgpack.decode(bytes(seal.payload))["digest"]
        siblings = [bytes.fromhex(one) for one in proof["siblings"]]
        place = position("accounts.rows", key)
        assert verify_row(place, bytes.fromhex(proof["value"]), siblings, digest)
        assert not verify_row(place, b"\x80", siblings, digest)
        assert told["seal_proof"].startswith("c2sp.org/tlog-proof@v1\n")
        berts = encode(AccountKey(bert.member, "BART", "barter")).hex()
        for other, code, status in (
            ({"table": "accounts.rows", "key": berts}, "not_allowed", 403),
            ({"table": "no.such_table", "key": key.hex()}, "not_allowed", 403),
            ({"table": "accounts.rows", "key": "c1"}, "request_malformed", 400),
            ({"table": "accounts.rows", "key": ""}, "request_malformed", 400),
        ):  # fmt: skip
            answer = await node.post("/v1/proofs", ada.signer, json={"rows": [other]})
            assert await problem_of(answer, status) == code
