# SPDX-License-Identifier: AGPL-3.0-or-later
"""Server-sent events: what is told, to whom, from where, and when a stream ends."""

import asyncio
from dataclasses import replace
from typing import Any

import msgspec
from aiohttp import ClientResponse
from http_kit import NO_LIMITS, HttpNode, http_node, problem_of
from ledger_kit import LedgerKit, seed

from ecot_node.http.events import QUEUE_GROUPS, EventHub
from ecot_node.ledger.port import RecordedEntry
from ecot_protocol.domains.membership.keys import AddKey, RevokeKey
from ecot_protocol.wire.keys import Signer


async def _next(answer: ClientResponse) -> dict[str, Any]:
    """Return the next event as {event, id, data}, passing over comments."""
    event: dict[str, Any] = {}
    async with asyncio.timeout(20):
        while True:
            line = (await answer.content.readline()).decode()
            assert line, "the stream ended"
            if line == "\n" and event:
                return event
            name, _, value = line.rstrip("\n").partition(": ")
            if name in ("event", "id", "data"):
                event[name] = msgspec.json.decode(value) if name == "data" else value


async def _recorded(answer: ClientResponse, count: int) -> list[int]:
    """Return the indexes of the next `count` records told."""
    found: list[int] = []
    while len(found) < count:
        event = await _next(answer)
        if event["event"] == "recorded":
            assert event["id"] == str(event["data"]["index"])
            found.append(event["data"]["index"])
    return found


async def test_a_stream_tells_what_the_caller_may_see_and_nothing_else() -> None:
    kit = LedgerKit()
    ada = kit.join("ada")
    async with http_node(kit) as node:
        open_to_all = await node.get("/v1/events")
        members = await node.get("/v1/events", ada.signer)
        assert members.headers["Content-Type"] == "text/event-stream"
        assert (await _next(members))["data"] == {"size": 3}
        kit.join("bert")
        await node.catch_up()
        visible = [one.index for one in node.records.metas[3:] if one.visibility in ("public", "members")]
        assert visible
        assert await _recorded(members, len(visible)) == visible
        public = [one.index for one in node.records.metas[3:] if one.visibility == "public"]
        assert await _recorded(open_to_all, len(public)) == public
        for answer in (open_to_all, members):
            answer.close()


async def test_who_comes_back_is_told_what_was_missed_once() -> None:
    kit = LedgerKit()
    for number in range(5):
        kit.apply_for(f"m{number}")
    async with http_node(kit) as node:
        claire = kit.founders["claire"]
        answer = await node.get("/v1/events", claire, **{"Last-Event-ID": "2"})
        kit.apply_for("late")
        await node.catch_up()
        assert await _recorded(answer, 4) == [3, 4, 5, 6]
        answer.close()
        again = await node.get("/v1/events?last_event_id=5", claire)
        assert await _recorded(again, 1) == [6]
        again.close()
        for wrong in ("-1", "x", "9" * 17, "٣"):
            answer = await node.get("/v1/events", claire, **{"Last-Event-ID": wrong})
            assert await problem_of(answer, 400) == "request_malformed"


async def test_who_missed_very_much_is_told_to_begin_anew(monkeypatch: Any) -> None:
    monkeypatch.setattr("ecot_node.http.stream.MAX_REPLAY", 3)
    kit = LedgerKit()
    for number in range(5):
        kit.apply_for(f"m{number}")
    async with http_node(kit) as node:
        answer = await node.get("/v1/events?last_event_id=0")
        assert (await _next(answer))["event"] == "checkpoint"
        assert (await _next(answer))["event"] == "reset"
        answer.close()


async def test_a_silent_stream_says_that_it_is_there() -> None:
    async with http_node() as node:
        answer = await node.get("/v1/events")
        await _next(answer)
        async with asyncio.timeout(20):
            assert await answer.content.readline() == b": still here\n"
        answer.close()


async def test_a_stream_ends_with_its_session() -> None:
    kit = LedgerKit()
    ada = kit.join("ada")
    new = Signer(seed("ada's new key"))
    async with http_node(kit) as node:
        answer = await node.get("/v1/events", ada.signer)
        kit.must(
            "membership.add_key",
            AddKey(public_key=new.public_key, purpose="daily"),
            author=ada.person,
            signers=(ada.signer, new),
        )
        kit.must("membership.revoke_key", RevokeKey(key_id=ada.signer.key_id), author=ada.person, signers=(new,))
        await node.catch_up()
        async with asyncio.timeout(20):
            text = await answer.content.read()
        assert f"\nid: {node.writer.status().size - 1}\n" not in text.decode()
        await _until_no_stream(node)


async def _until_no_stream(node: HttpNode) -> None:
    async with asyncio.timeout(20):
        while len(node.services.hub):  # noqa: ASYNC110  the hub tells nobody when a stream is gone
            await asyncio.sleep(0.01)


async def test_streams_are_counted_for_each_client() -> None:
    async with http_node(settings=replace(NO_LIMITS, max_streams_each=2, max_streams=3)) as node:
        first, second = await node.get("/v1/events"), await node.get("/v1/events")
        assert await problem_of(await node.get("/v1/events"), 429) == "rate_limited"
        third = await node.get("/v1/events", node.kit.founders["claire"])
        assert third.status == 200
        answer = await node.get("/v1/events", node.kit.founders["denis"])
        assert await problem_of(answer, 503) == "overloaded"
        for one in (first, second, third):
            one.close()
        await _until_no_stream(node)
        assert (await node.get("/v1/events")).status == 200


async def test_a_consumer_that_does_not_keep_up_is_dropped() -> None:
    hub = EventHub(max_streams=2, max_each=2)
    slow, quick = hub.open("slow"), hub.open("quick")
    group = [RecordedEntry(0, 0, bytes(16), "coop.seal", None, "public", (), ())]
    for _ in range(QUEUE_GROUPS + 5):
        hub.publish(group)
        assert await quick.next_group(1) == group
    assert (slow.is_dropped, quick.is_dropped) == (True, False)
    told = 0
    while await slow.next_group(1) is not None:
        told += 1
    assert told == QUEUE_GROUPS


async def test_a_node_that_stops_ends_its_streams() -> None:
    async with http_node() as node:
        answer = await node.get("/v1/events")
        await _next(answer)
        node.services.hub.close_all()
        async with asyncio.timeout(20):
            await answer.content.read()
        assert await problem_of(await node.get("/v1/events"), 503) == "overloaded"
