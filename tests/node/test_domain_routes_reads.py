# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the read routes of the domains answer: against the state, page by page, with erased attachments."""

import re
from pathlib import Path
from typing import Any

import pytest
from domain_kit import Story, domain_node, tell_story
from http_kit import HttpNode, problem_of
from ledger_kit import DAY_MS, Actor

from ecot_node.domains import views_file
from ecot_node.domains.routes import DOMAIN_ROUTES
from ecot_protocol.domains.coop.acts import AmendStatutes
from ecot_protocol.ledger.accounts import AccountKey
from ecot_protocol.ledger.entry_type import BOARD, COOPERATIVE
from ecot_protocol.wire.keys import Signer


async def read(node: HttpNode, path: str, signer: Signer) -> Any:
    answer = await node.get(path, signer)
    assert answer.status == 200, await answer.text()
    return await answer.json()


async def pages(node: HttpNode, path: str, signer: Signer, limit: int) -> list[Any]:
    """Read a whole list, page by page; fail if it has no end."""
    found: list[Any] = []
    cursor, joint = "", "&" if "?" in path else "?"
    for _ in range(200):
        page = await read(node, f"{path}{joint}limit={limit}{cursor}", signer)
        assert len(page["items"]) <= limit
        found += page["items"]
        if page["next"] is None:
            return found
        cursor = f"&cursor={page['next']}"
    raise AssertionError("the list has no end")


@pytest.mark.parametrize("batch", [4, 10_000])
async def test_a_statement_runs_to_the_balance_of_the_state_whatever_the_size_of_its_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(views_file, "INDEX_BATCH", batch)
    story = tell_story()
    async with domain_node(story, tmp_path) as node:
        checked = 0
        for actor in (story.ada, story.bob):
            accounts = (await read(node, f"/v1/members/{actor.member.hex()}/accounts", actor.signer))["items"]
            for account in accounts:
                path = f"/v1/members/{actor.member.hex()}/statement?unit={account['unit']}&purpose={account['purpose']}"
                whole = await pages(node, path, actor.signer, 200)
                for limit in (1, 3):
                    assert await pages(node, path, actor.signer, limit) == whole
                assert sum(line["amount_minor"] for line in whole) == account["balance_minor"]
                assert (whole[-1]["balance_minor"] if whole else 0) == account["balance_minor"]
                checked += len(whole)
        assert checked > 20


async def test_the_accounts_are_those_of_the_state(tmp_path: Path) -> None:
    story = tell_story()
    async with domain_node(story, tmp_path) as node:
        items = (await read(node, f"/v1/members/{story.bob.member.hex()}/accounts", story.bob.signer))["items"]
        barter = next(one for one in items if one["purpose"] == "barter")
        row = story.kit.state.accounts.rows[AccountKey(story.bob.member, "BART", "barter")]
        assert barter["balance_minor"] == row.balance_minor != 0
        assert (barter["lower_minor"], barter["upper_minor"]) == (row.lower_minor, row.upper_minor)


async def test_a_statement_of_a_span_begins_with_what_was_before(tmp_path: Path) -> None:
    story = tell_story()
    async with domain_node(story, tmp_path) as node:
        path = f"/v1/members/{story.ada.member.hex()}/statement?unit=BART&purpose=barter"
        whole = await read(node, path, story.ada.signer)
        middle = whole["items"][3]
        span = await read(node, f"{path}&from_ms={middle['at_ms']}&to_ms={middle['at_ms'] + 1}", story.ada.signer)
        assert whole["opening_minor"] == 0
        assert span["opening_minor"] == whole["items"][2]["balance_minor"]
        assert span["items"] == [middle]


async def test_the_treasurer_reads_the_statement_of_the_cooperative(tmp_path: Path) -> None:
    story = tell_story()
    async with domain_node(story, tmp_path) as node:
        path = f"/v1/members/{COOPERATIVE.hex()}/statement?unit=BART&purpose=own"
        lines = await pages(node, path, story.treasurer, 2)
        own = story.kit.state.accounts.balance(AccountKey(COOPERATIVE, "BART", "own"))
        assert lines[-1]["balance_minor"] == own == 500
        accounts = await read(node, f"/v1/members/{COOPERATIVE.hex()}/accounts", story.treasurer)
        assert ("BART", "own", 500) in [(a["unit"], a["purpose"], a["balance_minor"]) for a in accounts["items"]]


LISTS = [
    "/v1/members",
    "/v1/shares/movements",
    "/v1/shares/holdings",
    "/v1/trades",
    "/v1/polls",
    "/v1/polls/{poll}/stances",
    "/v1/works",
    "/v1/subscriptions",
    "/v1/periods",
    "/v1/periods/{period}/statements/{ada}",
    "/v1/records",
]


@pytest.mark.parametrize("path", LISTS)
async def test_pages_of_one_join_to_the_whole_list_and_bad_cursors_are_refused(tmp_path: Path, path: str) -> None:
    story = tell_story()
    path = path.format(poll=story.poll.hex(), period=story.period.hex(), ada=story.ada.member.hex())
    async with domain_node(story, tmp_path) as node:
        whole = await pages(node, path, story.treasurer, 200)
        assert whole
        assert await pages(node, path, story.treasurer, 1) == whole
        for cursor in ("x", "kP__", "kcQA", "kc__________8"):
            answer = await node.get(f"{path}?cursor={cursor}", story.treasurer)
            assert answer.status in {200, 400}, await answer.text()
            if answer.status == 400:
                assert await problem_of(answer, 400) == "cursor_malformed"


async def test_what_is_added_meanwhile_neither_repeats_nor_hides_a_row(tmp_path: Path) -> None:
    story = tell_story()
    async with domain_node(story, tmp_path) as node:
        first = await read(node, "/v1/trades?limit=1", story.ada.signer)
        kit = story.kit
        known = len(kit.posted)
        kit.join("late")
        for _, entry in kit.posted[known:]:
            await node.record(entry)
        second = await read(node, f"/v1/trades?limit=1&cursor={first['next']}", story.ada.signer)
        assert [one["trade"] for one in first["items"] + second["items"]] == [story.offer.hex(), story.trade.hex()]
        members = await pages(node, "/v1/members", story.ada.signer, 2)
        assert [one["handle"] for one in members] == ["ada", "bob", "eve", "library", "finn", "zoe", "late"]


async def test_lists_can_be_narrowed(tmp_path: Path) -> None:
    story = tell_story()
    ada = story.ada
    async with domain_node(story, tmp_path) as node:
        assert [one["handle"] for one in await pages(node, "/v1/members?status=applied", ada.signer, 9)] == ["zoe"]
        assert [one["handle"] for one in await pages(node, "/v1/members?status=excluded", ada.signer, 9)] == ["finn"]
        assert [one["trade"] for one in await pages(node, "/v1/trades?status=proposed", ada.signer, 9)] == [
            story.offer.hex()
        ]
        assert [one["title"] for one in await pages(node, "/v1/works?kind=comic", ada.signer, 9)] == ["Second"]
        held = await pages(node, f"/v1/works?holder={ada.member.hex()}", ada.signer, 9)
        assert [one["work"] for one in held] == [story.works[0].hex()]
        assert await pages(node, "/v1/polls?status=open", ada.signer, 9) == []


async def test_a_trade_tells_its_history_and_what_was_agreed(tmp_path: Path) -> None:
    story = tell_story()
    async with domain_node(story, tmp_path) as node:
        trade = await read(node, f"/v1/trades/{story.trade.hex()}", story.bob.signer)
        assert [step["status"] for step in trade["steps"]] == ["proposed", "accepted", "confirmed"]
        assert [step["by"] for step in trade["steps"]] == [
            one.member.hex() for one in (story.ada, story.bob, story.bob)
        ]
        told = trade["trade"]
        assert (told["status"], told["barter_minor"], told["euro_minor"]) == ("confirmed", 6_000, 6_000)
        assert told["net_minor"] + told["vat_minor"] == told["barter_minor"] + told["euro_minor"]
        assert told["reversible_until_ms"] is not None
        assert trade["lines"] == "20 loaves"
        assert trade["memo"] is None


async def test_an_erased_attachment_is_gone_from_every_answer(tmp_path: Path) -> None:
    story = tell_story()
    async with domain_node(story, tmp_path) as node:
        for index in range(node.writer.status().size):
            positions = [row.position for row in await node.store.attachments(index)]
            await node.store.erase_attachments(index, positions, erased_at_ms=1, ground="contract")
        ada = story.ada.signer
        assert (await read(node, f"/v1/trades/{story.trade.hex()}", ada))["lines"] is None
        assert (await read(node, f"/v1/polls/{story.poll.hex()}", ada))["question"] is None
        assert {one["title"] for one in await pages(node, "/v1/works", ada, 9)} == {None}
        assert (await read(node, f"/v1/members/{story.ada.member.hex()}", ada))["identity"] is None


async def test_shares_are_those_of_the_register(tmp_path: Path) -> None:
    story = tell_story()
    async with domain_node(story, tmp_path) as node:
        eve = story.eve.signer
        (movement,) = await pages(node, "/v1/shares/movements", eve, 9)
        assert (movement["kind"], movement["first"], movement["last"]) == ("issue", 1, 3)
        (holding,) = await pages(node, "/v1/shares/holdings", eve, 9)
        assert (holding["member"], holding["share_count"], holding["capital_minor"]) == (
            story.ada.member.hex(),
            3,
            30_000,
        )
        shares = await read(node, f"/v1/members/{story.ada.member.hex()}/shares", eve)
        assert shares["share_count"] == story.kit.state.shares.share_count(story.ada.member) == 3
        waiting = await read(node, f"/v1/members/{story.bob.member.hex()}/shares", eve)
        assert [one["status"] for one in waiting["subscriptions"]] == ["subscribed"]


async def test_a_poll_tells_question_stances_and_outcome(tmp_path: Path) -> None:
    story = tell_story()
    async with domain_node(story, tmp_path) as node:
        eve = story.eve.signer
        poll = await read(node, f"/v1/polls/{story.poll.hex()}", eve)
        assert poll["question"] == "Shall we bake on Sundays?"
        assert (poll["status"], poll["outcome"]["winner"], poll["outcome"]["cast"]) == ("closed", "agree", 3)
        stances = await pages(node, f"/v1/polls/{story.poll.hex()}/stances", eve, 2)
        assert {one["member"]: one["choice"] for one in stances} == {
            actor.member.hex(): "agree" for actor in (story.ada, story.bob, story.eve)
        }


async def test_a_rights_holders_statement_sums_exactly_and_says_why(tmp_path: Path) -> None:
    story = tell_story()
    async with domain_node(story, tmp_path) as node:
        shared = (await read(node, f"/v1/periods/{story.period.hex()}", story.eve.signer))["shared"]
        assert sum(head["amount_minor"] for head in shared["heads"]) == shared["revenue_minor"] == 100_003
        to_holders = 0
        for actor in (story.ada, story.bob):
            path = f"/v1/periods/{story.period.hex()}/statements/{actor.member.hex()}"
            told = await read(node, path, actor.signer)
            lines = await pages(node, path, actor.signer, 1)
            assert sum(line["amount_minor"] for line in lines) == told["total_minor"]
            assert sum(one["amount_minor"] for one in told["amounts"]) == told["total_minor"]
            assert {line["work"] for line in lines} <= {work.hex() for work in story.works}
            to_holders += told["total_minor"]
        of_works = sum(head["amount_minor"] for head in shared["heads"] if head["kind"] != "own")
        assert to_holders == of_works - shared["carried_minor"]


async def test_the_cooperative_tells_its_statutes_offices_and_persons(tmp_path: Path) -> None:
    story = tell_story()
    async with domain_node(story, tmp_path) as node:
        eve = story.eve.signer
        told = await read(node, "/v1/statutes/1", eve)
        assert told["statutes"]["shares"]["nominal_minor"] == 10_000
        in_force = await read(node, "/v1/statutes", eve)
        assert (in_force["version"], in_force["newest_version"]) == (1, 1)
        assert in_force["statutes"] == told["statutes"]
        offices = {one["office"]: one for one in (await read(node, "/v1/offices", eve))["items"]}
        assert offices["board"]["threshold"] == 2
        assert offices["treasurer"]["persons"] == [story.kit.persons["claire"].hex()]
        person = await read(node, f"/v1/persons/{story.ada.person.hex()}", eve)
        assert [key["key_id"] for key in person["keys"]] == [story.ada.signer.key_id.hex()]
        assert await problem_of(await node.get("/v1/statutes/2", eve), 404) == "not_found"
        assert await problem_of(await node.get(f"/v1/persons/{'0' * 32}", eve), 404) == "not_found"


async def test_statutes_that_take_force_later_are_not_those_in_force(tmp_path: Path) -> None:
    story = tell_story()
    kit = story.kit
    later = AmendStatutes(in_force_from_ms=kit.now + DAY_MS, statutes=kit.statutes, version=2)
    kit.must("coop.amend_statutes", later, author=BOARD, signers=kit.board)
    async with domain_node(story, tmp_path) as node:
        told = await read(node, "/v1/statutes", story.eve.signer)
        assert (told["version"], told["newest_version"]) == (1, 2)
        kit.now += DAY_MS
        node.tokens.clear()
        assert (await read(node, "/v1/statutes", story.eve.signer))["version"] == 2


# ------------------------------------------------------------------------------------------------------------- access

EVERYBODY = {"ada", "bob", "eve", "zoe", "finn", "treasurer", "board"}
MEMBERS = EVERYBODY - {"zoe", "finn"}
ACCESS = [
    ("/v1/members", MEMBERS),
    ("/v1/members/{ada}", MEMBERS),
    ("/v1/members/{zoe}", MEMBERS | {"zoe"}),
    ("/v1/members/{ada}/accounts", {"ada", "treasurer", "board"}),
    ("/v1/members/{ada}/statement?unit=BART&purpose=barter", {"ada", "treasurer"}),
    ("/v1/members/{ada}/shares", MEMBERS),
    ("/v1/statutes", MEMBERS),
    ("/v1/statutes/{version}", MEMBERS),
    ("/v1/offices", MEMBERS),
    ("/v1/persons/{ada_person}", MEMBERS),
    ("/v1/shares/movements", MEMBERS),
    ("/v1/shares/holdings", MEMBERS),
    ("/v1/trades?member={ada}", {"ada", "treasurer", "board"}),
    ("/v1/trades/{trade}", {"ada", "bob", "treasurer", "board"}),
    ("/v1/polls", MEMBERS),
    ("/v1/polls/{poll}", MEMBERS),
    ("/v1/polls/{poll}/stances", MEMBERS),
    ("/v1/works", MEMBERS),
    ("/v1/works/{work}", MEMBERS),
    ("/v1/subscriptions?institution={library}", {"treasurer", "board"}),
    ("/v1/periods", MEMBERS),
    ("/v1/periods/{period}", MEMBERS),
    ("/v1/periods/{period}/statements/{ada}", {"ada", "treasurer"}),
]


def test_every_read_route_of_these_domains_is_in_the_table() -> None:
    def shape(path: str) -> str:
        return re.sub(r"\{[^}]*\}", "*", path.partition("?")[0])

    tags = {"coop", "members", "shares", "trades", "polls", "catalogue", "royalties"}
    assert {shape(route.path) for route in DOMAIN_ROUTES if route.tag in tags} == {shape(path) for path, _ in ACCESS}


def signers_of(story: Story) -> dict[str, Signer]:
    actors: list[Actor] = [story.ada, story.bob, story.eve, story.zoe, story.finn]
    return {actor.name: actor.signer for actor in actors} | {"treasurer": story.treasurer, "board": story.board}


@pytest.mark.parametrize(("path", "allowed"), ACCESS, ids=[path for path, _ in ACCESS])
async def test_who_may_read(tmp_path: Path, path: str, allowed: set[str]) -> None:
    story = tell_story()
    path = path.format(
        ada=story.ada.member.hex(),
        zoe=story.zoe.member.hex(),
        library=story.library.member.hex(),
        ada_person=story.ada.person.hex(),
        trade=story.trade.hex(),
        poll=story.poll.hex(),
        work=story.works[0].hex(),
        period=story.period.hex(),
        version=1,
    )
    async with domain_node(story, tmp_path) as node:
        assert await problem_of(await node.get(path), 401) == "session_missing"
        for name, signer in signers_of(story).items():
            answer = await node.get(path, signer)
            expected = {200} if name in allowed else {403, 404}
            assert answer.status in expected, f"{name}: {await answer.text()}"


async def test_lists_of_what_is_between_members_hold_only_ones_own(tmp_path: Path) -> None:
    story = tell_story()
    async with domain_node(story, tmp_path) as node:
        counts = {
            name: (
                len(await pages(node, "/v1/trades", signer, 9)),
                len(await pages(node, "/v1/subscriptions", signer, 9)),
            )
            for name, signer in signers_of(story).items()
        }
        assert counts == {
            "ada": (2, 0),
            "bob": (2, 0),
            "eve": (0, 0),
            "zoe": (0, 0),
            "finn": (0, 0),
            "treasurer": (2, 1),
            "board": (2, 1),
        }


async def test_only_the_parties_read_lines_and_only_the_near_read_identity(tmp_path: Path) -> None:
    story = tell_story()
    async with domain_node(story, tmp_path) as node:
        assert (await read(node, f"/v1/trades/{story.trade.hex()}", story.board))["lines"] is None
        path = f"/v1/members/{story.ada.member.hex()}"
        told = {name: await node.get(path, signer) for name, signer in signers_of(story).items()}
        identities = {name: (await answer.json()).get("identity") for name, answer in told.items()}
        who = {name for name, identity in identities.items() if identity is not None}
        assert who == {"ada", "treasurer", "board"}
        assert identities["ada"] == "Ada Bakery, 1 rue du Four"
        assert (await read(node, path, story.bob.signer))["mandates"] == []
