# SPDX-License-Identifier: AGPL-3.0-or-later
"""The short way of ``POST /v1/entries`` answers what the long way answers, and takes no request that isn't plain."""

import asyncio
from collections.abc import Mapping

import pytest
from aiohttp import ClientResponse
from http_kit import HttpNode, http_node
from ledger_kit import LedgerKit, seed

from ecot_node.http.context import HttpSettings, Rate
from ecot_node.http.entry_door import MAX_BODY_BYTES, EntryDoor, _Patience
from ecot_protocol.domains.membership.acts import Apply, NewPerson
from ecot_protocol.wire.encoding import encode
from ecot_protocol.wire.entry import Entry
from ecot_protocol.wire.keys import Signer
from ecot_protocol.wire.reply import REPLY, Recorded, RecordedBefore

PLAIN = {"Content-Type": "application/msgpack"}
LONG = {**PLAIN, "Expect": "100-continue"}
"""What makes the same request go the long way."""
VARYING = {"content-length", "date", "x-request-id"}


def application(kit: LedgerKit, name: str) -> Entry:
    signer = Signer(seed(kit.name + name))
    person = NewPerson(handle=f"{name}.owner", public_key=signer.public_key)
    apply = Apply(college="users", handle=name, identity=None, kind="firm", new_person=person, person=None)
    return kit.entry("membership.apply", apply, author=b"self", signers=(signer,))


async def _post(node: HttpNode, body: bytes, headers: Mapping[str, str]) -> ClientResponse:
    return await node.client.post("/v1/entries", data=body, headers=headers)


def _told(answer: ClientResponse) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.lower() not in VARYING}


@pytest.fixture
def doors(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which way each request went: ``short`` or ``long``."""
    ways: list[str] = []
    call, record = EntryDoor.__call__, EntryDoor._record

    async def enter(self: EntryDoor, http: object) -> object:
        ways.append("long")
        return await call(self, http)  # type: ignore[arg-type]

    async def go(self: EntryDoor, http: object) -> bytes:
        ways[-1] = "short"
        return await record(self, http)  # type: ignore[arg-type]

    monkeypatch.setattr(EntryDoor, "__call__", enter)
    monkeypatch.setattr(EntryDoor, "_record", go)
    return ways


async def test_both_ways_record_and_answer_alike(doors: list[str]) -> None:
    async with http_node() as node:
        body = encode((application(node.kit, "zoe"),))
        first = await _post(node, body, PLAIN)
        again = await _post(node, body, LONG)
        assert doors == ["short", "long"]
        assert (first.status, again.status) == (200, 200)
        recorded = REPLY.decode(await first.read()).outcomes[0]
        before = REPLY.decode(await again.read()).outcomes[0]
        assert isinstance(recorded, Recorded)
        assert isinstance(before, RecordedBefore)
        assert before.index == recorded.index
        assert _told(first) == _told(again)
        assert first.headers["X-Request-Id"] != again.headers["X-Request-Id"]


@pytest.mark.parametrize("body", [b"\xc1", b"\x90", encode((1, 2)), encode(tuple(range(1_001)))])
async def test_both_ways_refuse_alike(doors: list[str], body: bytes) -> None:
    async with http_node() as node:
        short, long = [await _post(node, body, {**headers, "Accept-Language": "fr"}) for headers in (PLAIN, LONG)]
        assert doors == ["short", "long"]
        assert short.status == long.status
        if short.status == 200:
            assert REPLY.decode(await short.read()).outcomes == REPLY.decode(await long.read()).outcomes
        else:
            assert await short.json() == await long.json()
        assert _told(short) == _told(long)


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "application/json"},
        {**PLAIN, "Content-Encoding": "gzip"},
        {**PLAIN, "Authorization": "Bearer nonsense"},
        {**PLAIN, "Connection": "close"},
        {},
    ],
)
async def test_what_is_not_plain_goes_the_long_way(doors: list[str], headers: dict[str, str]) -> None:
    async with http_node() as node:
        await _post(node, b"\x90", headers)
        await _post(node, b"x" * (MAX_BODY_BYTES + 1), PLAIN)
        await node.client.get("/v1/entries")
        await node.client.post("/v1/entries?x=1", data=b"\x90", headers=PLAIN)
        assert doors == ["long"] * 4


async def test_the_limits_hold_on_the_short_way(doors: list[str]) -> None:
    few = HttpSettings(address_rate=Rate(per_second=0.001, burst=2), session_rate=None, entries_rate=None)
    async with http_node(settings=few) as node:
        statuses = [(await _post(node, b"\x90", PLAIN)).status for _ in range(3)]
        assert doors == ["short"] * 3
        assert statuses == [400, 400, 429]
        assert not len(node.services.bodies)


async def test_an_answer_that_takes_too_long_is_given_up() -> None:
    async def never() -> bytes:
        await asyncio.Event().wait()
        return b""

    async def soon() -> bytes:
        await asyncio.sleep(0)
        return b"done"

    patience = _Patience(0.05)
    async with asyncio.timeout(30):
        waits = [asyncio.create_task(patience.wait_for(never())) for _ in range(3)]
        results = await asyncio.gather(*waits, patience.wait_for(soon()), return_exceptions=True)
    assert [type(one) for one in results[:3]] == [TimeoutError] * 3
    assert results[3] == b"done"
    assert not patience._since


async def test_a_client_that_leaves_is_no_timeout() -> None:
    async def never() -> bytes:
        await asyncio.Event().wait()
        return b""

    wait = asyncio.create_task(_Patience(30).wait_for(never()))
    await asyncio.sleep(0)
    wait.cancel()
    with pytest.raises(asyncio.CancelledError):
        await wait
