# SPDX-License-Identifier: AGPL-3.0-or-later
"""``POST /v1/entries`` and hostile input: every bad byte has an answer, and none of them is 500."""

import asyncio
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import msgspec
import pytest
from http_kit import MSGPACK, NO_LIMITS, http_node, problem_of
from ledger_kit import LedgerKit, seed
from writer_kit import check_reply

from ecot_node.http.context import Rate
from ecot_node.http.routes import AnyRoute, Request, Route
from ecot_node.ledger.errors import Overloaded
from ecot_protocol.domains.membership.acts import Apply, NewPerson
from ecot_protocol.wire.encoding import encode
from ecot_protocol.wire.entry import Attachment, Entry
from ecot_protocol.wire.keys import Signer
from ecot_protocol.wire.reply import REPLY, Recorded, RecordedBefore, Refused


def application(kit: LedgerKit, name: str, attachments: tuple[Attachment, ...] = ()) -> Entry:
    signer = Signer(seed(name))
    apply = Apply(
        college="users", handle=name, identity=None, kind="firm", person=None,
        new_person=NewPerson(handle=f"{name}.owner", public_key=signer.public_key),
    )  # fmt: skip
    return kit.entry("membership.apply", apply, author=b"self", signers=(signer,), attachments=attachments)


async def test_a_batch_is_answered_in_order_with_one_proof() -> None:
    async with http_node() as node:
        entries = [application(node.kit, f"m{number}") for number in range(5)]
        reply = await node.send(*entries)
        assert [outcome.index for outcome in reply.outcomes if isinstance(outcome, Recorded)] == [1, 2, 3, 4, 5]
        check_reply(node.kit, entries, reply)
        again = await node.send(*entries)
        assert all(isinstance(outcome, RecordedBefore) for outcome in again.outcomes)
        check_reply(node.kit, entries, again)


async def test_an_entry_that_is_malformed_by_itself_is_refused_by_itself() -> None:
    async with http_node() as node:
        good = [application(node.kit, f"m{number}") for number in range(3)]
        short = encode(good[0])[:-1]
        parts: list[Any] = [
            msgspec.Raw(encode(good[0])),
            42,
            msgspec.Raw(encode(good[1])),
            [b"no body", [], []],
            [good[2].body, [[bytes(16), bytes(63)]], []],
            [good[2].body, list(good[2].signatures) * 2, []],
            msgspec.Raw(encode(good[2])),
        ]
        answer = await node.post_entries(msgspec.msgpack.encode(parts))
        assert answer.status == 200
        reply = REPLY.decode(await answer.read())
        kinds = [one.code if isinstance(one, Refused) else "recorded" for one in reply.outcomes]
        assert kinds == [
            "recorded", "malformed", "recorded", "malformed", "malformed", "signatures_not_sorted", "recorded",
        ]  # fmt: skip
        assert [one.index for one in reply.outcomes if isinstance(one, Recorded)] == [1, 2, 3]
        check_reply(node.kit, good, msgspec.structs.replace(
            reply, outcomes=tuple(one for one in reply.outcomes if isinstance(one, Recorded))
        ))  # fmt: skip
        assert await problem_of(await node.post_entries(b"\x91" + short), 400) == "entries_malformed"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "entries_malformed"),
        (b"\x90", 400, "entries_malformed"),  # no entry
        (b"\xdc\x00\x01\xc0", 400, "entries_malformed"),  # a long form
        (b"\x80", 400, "entries_malformed"),
        (b"\xdd\xff\xff\xff\xff", 400, "entries_malformed"),
        (b"\x91" * 100_000, 400, "entries_malformed"),
        (b"{}", 400, "entries_malformed"),
        (b"\x91\xc0\xc0", 400, "entries_malformed"),  # something after the end
        (b"\xdc\x03\xe9" + b"\xc0" * 1001, 413, "body_too_large"),
        (bytes(16 * 1024 * 1024 + 1), 413, "body_too_large"),
    ],
)
async def test_a_body_that_is_no_batch_is_a_problem(body: bytes, status: int, code: str) -> None:
    async with http_node() as node:
        assert await problem_of(await node.post_entries(body), status) == code
        assert node.writer.status().size == 1


async def test_an_entry_above_its_own_limit_is_refused_and_the_others_recorded() -> None:
    async with http_node() as node:
        heavy = application(node.kit, "heavy", tuple(Attachment("memo", bytes(32), bytes(65_536)) for _ in range(17)))
        reply = await node.send(heavy, application(node.kit, "light"))
        assert [one.code if isinstance(one, Refused) else "recorded" for one in reply.outcomes] == [
            "too_large", "recorded",
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("headers", "code", "status"),
    [
        ({"Content-Type": "application/json"}, "media_type_unknown", 415),
        ({"Content-Type": "application/msgpack", "Content-Encoding": "gzip"}, "media_type_unknown", 415),
        ({"Content-Type": ";;;"}, "media_type_unknown", 415),
        ({**MSGPACK, "Authorization": "Bearer x"}, "session_ended", 401),
        ({**MSGPACK, "Authorization": "Basic eDp5"}, "session_ended", 401),
        ({**MSGPACK, "Authorization": f"Bearer {'0' * 64}"}, "session_ended", 401),
    ],
)
async def test_headers_that_do_not_fit_are_a_problem(headers: dict[str, str], code: str, status: int) -> None:
    async with http_node() as node:
        answer = await node.client.post("/v1/entries", data=b"\x90", headers=headers)
        assert await problem_of(answer, status) == code


async def test_a_node_that_takes_no_entries_says_when_to_come_back() -> None:
    async with http_node() as node:
        node.writer.block("witness_ahead")
        answer = await node.post_entries(encode((application(node.kit, "ada"),)))
        assert await problem_of(answer, 503) == "not_writing"
        assert int(answer.headers["Retry-After"]) > 0
        assert (await answer.json())["params"] == {"why": "witness_ahead"}


async def test_an_overloaded_writer_is_a_problem_that_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(_entries: object) -> None:
        raise Overloaded

    async with http_node() as node:
        monkeypatch.setattr(node.writer, "submit", refuse)
        answer = await node.post_entries(encode((application(node.kit, "ada"),)))
        assert await problem_of(answer, 503) == "overloaded"
        assert answer.headers["Retry-After"] == "1"


# --- hostile input ------------------------------------------------------------------------------------------------

HOSTILE_PATHS = [
    "/v1/records/%00",
    "/v1/records/-1",
    "/v1/records/1e3",
    "/v1/records/05",
    "/v1/records/9999999999999999999999",
    "/v1/records/0%0a",
    "/v1/records/%F0%9F",
    "/v1/records/٣",
    "/v1/records?after=x",
    "/v1/records?limit=0",
    "/v1/records?limit=201",
    "/v1/records?cursor=%00",
    "/v1/records?cursor=AAAA",
    "/v1/records?cursor=kgfE",
    "/v1/records?cursor=xxxx&cursor=yyyy",
    "/v1/records?limit=1&limit=2",
    "/v1/records?nothing=1",
    "/v1/records?index=1",
    "/v1/records?type=Trade.Accept",
    "/v1/records?type=trade.accept%0a",
    "/v1/records?author=00",
    "/v1/records?wait_for=x",
    "/v1/records/0/proof?cosigned=maybe",
    f"/v1/drafts/{'g' * 64}/x",
    f"/witness/{'0' * 63}/checkpoint",
    f"/witness/{'0' * 63}%0a/checkpoint",
    "/docs/docs.html",
    "/docs/..%2f..%2fapp.py",
    "/v1/ledger?x=1",
    "/v1/consistency",
    "/v1/events?last_event_id=-1",
    "/log/tile/0/%ff",
    "/v1/records/0?wait_for=99999999",
]


@pytest.mark.parametrize("path", HOSTILE_PATHS)
async def test_a_hostile_path_is_a_problem_of_the_caller(path: str) -> None:
    async with http_node() as node:
        answer = await node.get(path)
        assert 400 <= answer.status < 500, await answer.text()
        assert await problem_of(answer, answer.status)


HOSTILE_BODIES = [
    b"", b"null", b"[]", b'"x"', b"{", b"\xff\xfe", b'{"key_id":null}', b'{"key_id":"%s"}' % (b"0" * 31),
    b'{"key_id":"%s"}' % (b"G" * 32), b'{"key_id":"%s\\u0000"}' % (b"0" * 31), b'{"key_id":"%s\\n"}' % (b"0" * 32),
    b'{"key_id":"%s","more":1}' % (b"0" * 32), b'{"key_id":"\\ud800"}', b"[" * 60_000, b'{"key_id":1e400}',
    b'{"key_id":' + b'{"a":' * 9_000,
]  # fmt: skip


@pytest.mark.parametrize("body", HOSTILE_BODIES)
async def test_a_hostile_body_is_a_problem_of_the_caller(body: bytes) -> None:
    async with http_node() as node:
        answer = await node.client.post(
            "/v1/sessions/challenge", data=body, headers={"Content-Type": "application/json"}
        )
        assert await problem_of(answer, 400) == "request_malformed"


@pytest.mark.parametrize(
    "body", [b"", b"old 0\n\n", b"old x\n\nx\n0\n=\n\n", b"\xff", b"old 0\n" + b"A\n" * 99, bytes(70_000)]
)
async def test_a_hostile_checkpoint_is_a_problem_of_the_caller(body: bytes) -> None:
    async with http_node() as node:
        answer = await node.client.post("/witness/add-checkpoint", data=body)
        assert answer.status in (400, 413)
        await problem_of(answer, answer.status)


async def test_a_body_without_a_length_is_read_up_to_the_limit_only() -> None:
    async with http_node() as node:

        async def endless() -> Any:
            for _ in range(4_000):
                yield bytes(65_536)

        answer = await node.client.post(
            "/v1/sessions/challenge", data=endless(), headers={"Content-Type": "application/json"}
        )
        assert await problem_of(answer, 413) == "body_too_large"


async def test_a_fault_of_ours_says_nothing_of_itself() -> None:
    async def fail(_request: Request[None, None]) -> None:
        raise RuntimeError("secret detail")

    routes: tuple[AnyRoute, ...] = (
        Route(method="GET", path="/v1/fault", summary="Fail", tag="test", access="public", handler=fail),
    )
    async with http_node(routes=routes) as node:
        answer = await node.get("/v1/fault")
        assert await problem_of(answer, 500) == "internal"
        assert "secret" not in await answer.text()


async def test_an_answer_that_takes_too_long_ends() -> None:
    async def hang(_request: Request[None, None]) -> None:
        await asyncio.Event().wait()

    routes: tuple[AnyRoute, ...] = (
        Route(method="GET", path="/v1/hang", summary="Hang", tag="test", access="public", handler=hang),
    )
    settings = replace(NO_LIMITS, answer_timeout_s=0.01)
    async with http_node(settings=settings, routes=routes) as node:
        assert await problem_of(await node.get("/v1/hang"), 503) == "answer_timeout"


# --- limits -------------------------------------------------------------------------------------------------------


async def test_a_client_over_its_rate_is_told_when_to_come_back() -> None:
    settings = replace(NO_LIMITS, address_rate=Rate(per_second=0.001, burst=3))
    async with http_node(settings=settings) as node:
        answers = [await node.get("/v1/ledger") for _ in range(4)]
        assert [one.status for one in answers[:3]] == [200, 200, 200]
        assert await problem_of(answers[3], 429) == "rate_limited"
        assert int(answers[3].headers["Retry-After"]) >= 1
        assert (await node.get("/healthz")).status == 200
        assert "ecot_http_limited_total 1.0" in await (await node.get("/metrics")).text()


async def test_a_forwarded_address_is_believed_from_our_proxy_alone() -> None:
    settings = replace(NO_LIMITS, address_rate=Rate(per_second=0.001, burst=1))
    async with http_node(settings=settings) as node:
        assert (await node.get("/v1/ledger", **{"X-Forwarded-For": "203.0.113.1"})).status == 200
        assert (await node.get("/v1/ledger", **{"X-Forwarded-For": "203.0.113.2"})).status == 429
    proxied = replace(
        NO_LIMITS, address_rate=Rate(per_second=0.001, burst=1), trusted_proxies=(ip_network("127.0.0.0/8"),)
    )
    async with http_node(settings=proxied) as node:
        assert (await node.get("/v1/ledger", **{"X-Forwarded-For": "203.0.113.1"})).status == 200
        assert (await node.get("/v1/ledger", **{"X-Forwarded-For": "203.0.113.2"})).status == 200
        assert (await node.get("/v1/ledger", **{"X-Forwarded-For": "6.6.6.6, 203.0.113.2"})).status == 429
        assert (await node.get("/metrics", **{"X-Forwarded-For": "203.0.113.9"})).status == 404


async def test_entries_are_counted_one_by_one() -> None:
    settings = replace(NO_LIMITS, entries_rate=Rate(per_second=0.001, burst=4))
    async with http_node(settings=settings) as node:
        assert len((await node.send(*(application(node.kit, f"m{one}") for one in range(3)))).outcomes) == 3
        answer = await node.post_entries(encode(tuple(application(node.kit, f"n{one}") for one in range(3))))
        assert await problem_of(answer, 429) == "rate_limited"
