# SPDX-License-Identifier: AGPL-3.0-or-later
"""Listening: connections are limited, logs hold nothing personal, sessions and limits stay within their tables."""

import asyncio
from contextlib import suppress
from ipaddress import ip_network
from typing import Any

import pytest
from aiohttp import web
from http_kit import http_node
from structlog.testing import capture_logs

from ecot_node.http import limits, server, sessions
from ecot_node.http.context import LOOPBACK, Rate
from ecot_node.http.decode import negotiate_locale
from ecot_node.http.limits import Buckets, client_of, is_client_within
from ecot_node.http.server import listen
from ecot_node.http.services import MAX_LOCKS, Locks
from ecot_node.http.sessions import Sessions


async def _hello(_request: web.Request) -> web.Response:
    return web.Response(text="hello")


async def _ask(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: node\r\n\r\n")
    return reader, writer, await reader.readline()


async def test_one_connection_too_many_is_told_to_come_back() -> None:
    app = web.Application()
    app.router.add_get("/", _hello)
    listener = await listen(app, "127.0.0.1", 0, max_connections=2)
    try:
        open_ones = [await _ask(listener.port) for _ in range(2)]
        assert [line for _, _, line in open_ones] == [b"HTTP/1.1 200 OK\r\n"] * 2
        reader, writer, line = await _ask(listener.port)
        assert line == b"HTTP/1.1 503 Service Unavailable\r\n"
        assert b"Retry-After" in await reader.read()
        for one in (writer, *(each for _, each, _ in open_ones)):
            one.close()
            await one.wait_closed()
        async with asyncio.timeout(20):
            while (await _ask(listener.port))[2] != b"HTTP/1.1 200 OK\r\n":  # noqa: ASYNC110  no event tells
                await asyncio.sleep(0.01)
    finally:
        await listener.stop()


async def test_the_access_log_holds_no_id_token_address_or_body() -> None:
    async with http_node() as node:
        claire = node.kit.founders["claire"]
        token = await node.token(claire)
        with capture_logs() as logs:
            await node.get(f"/v1/drafts/{'ab' * 32}?x=secret", claire)
            await node.get("/v1/me", claire)
        assert [one["route"] for one in logs] == ["/v1/drafts/{hash}", "/v1/me"]
        assert {key for one in logs for key in one} == {
            "event", "log_level", "method", "milliseconds", "request_id", "route", "status",
        }  # fmt: skip
        text = str(logs)
        for secret in (token, "ab" * 32, "secret", "127.0.0.1", claire.key_id.hex()):
            assert secret not in text


def _draw() -> Any:
    numbers = iter(range(1, 10**6))
    return lambda count: next(numbers).to_bytes(count, "big")


def _open(book: Sessions, key: bytes, now_ms: int = 0) -> bytes:
    challenge, _ = book.challenge(key, now_ms)
    return book.open(key, key, challenge, now_ms)[0]


def test_a_key_has_a_bounded_number_of_sessions_and_so_has_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MAX_SESSIONS", 20)
    book = Sessions(secret=bytes(32), draw=_draw(), ttl_ms=1_000)
    for _ in range(sessions.MAX_SESSIONS_PER_KEY + 3):
        _open(book, b"k" * 16)
    assert len(book) == sessions.MAX_SESSIONS_PER_KEY
    for number in range(30):
        _open(book, number.to_bytes(16, "big"))
    assert len(book) == 20


def test_used_challenges_are_forgotten_when_they_could_no_longer_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MAX_USED_CHALLENGES", 3)
    book = Sessions(secret=bytes(32), draw=_draw(), ttl_ms=1_000)
    for _ in range(3):
        _open(book, b"k" * 16)
    with pytest.raises(Exception, match="overloaded"):
        _open(book, b"k" * 16)
    _open(book, b"k" * 16, now_ms=sessions.CHALLENGE_LIFE_MS)


def test_the_table_of_clients_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_BUCKETS", 10)
    buckets = Buckets(Rate(per_second=1, burst=1))
    for number in range(50):
        assert buckets.wait_s(str(number), 0.0) == 0
    assert len(buckets) == 10
    assert buckets.wait_s("49", 0.0) > 0


def test_a_batch_above_a_full_bucket_is_taken_once_and_owed() -> None:
    buckets = Buckets(Rate(per_second=1, burst=10))
    assert buckets.wait_s("ada", 0.0, cost=25) == 0
    assert buckets.wait_s("ada", 10.0, cost=1) == 6.0
    assert buckets.wait_s("ada", 16.0, cost=1) == 0


@pytest.mark.parametrize("header", ["", ",", "x", "10.0.0.1, , ", "a" * 10_000, ", ".join(["10.0.0.1"] * 1_000)])
def test_a_strange_forwarding_header_names_the_connection(header: str) -> None:
    client = client_of("10.0.0.9", [header], [ip_network("10.0.0.0/8")])
    assert client.startswith("10.0.0.")


def test_a_client_of_this_machine_is_within_loopback() -> None:
    for remote in ("127.0.0.1", "::1", "::ffff:127.0.0.1", None):
        assert is_client_within(client_of(remote, [], ()), LOOPBACK)
    for remote in ("8.8.8.8", "2001:db8::1", "::ffff:8.8.8.8"):
        assert not is_client_within(client_of(remote, [], ()), LOOPBACK)


@pytest.mark.parametrize("header", ["fr;q=x", ";;;", "fr" * 9_000, "*;q=1", "en;q=0", "fr;q=0"])
def test_a_strange_language_header_gives_english(header: str) -> None:
    assert negotiate_locale(header) == "en"


async def test_locks_are_forgotten_when_nobody_holds_them() -> None:
    locks = Locks()
    async with locks.of("held"):
        for number in range(MAX_LOCKS + 10):
            locks.of(str(number))
        assert locks.of("held").locked()


async def _closes(reader: asyncio.StreamReader) -> bool:
    async with asyncio.timeout(20):
        return await reader.read() == b""


@pytest.mark.parametrize(
    "sent", [b"", b"\r\n\r\n", b"GET / HTTP/1.1\r\nHost: node\r\n"], ids=["nothing", "blank", "half"]
)
async def test_a_connection_without_a_request_is_closed(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "FIRST_REQUEST_S", 0.05)
    app = web.Application()
    app.router.add_get("/", _hello)
    listener = await listen(app, "127.0.0.1", 0, max_connections=1)
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(sent)
        with suppress(ConnectionError):
            assert await _closes(reader)
        writer.close()
        _, writer, line = await _ask(listener.port)
        assert line == b"HTTP/1.1 200 OK\r\n", "its place is free again"
        writer.close()
    finally:
        await listener.stop()


async def test_a_connection_that_asked_once_may_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "FIRST_REQUEST_S", 0.05)
    app = web.Application()
    app.router.add_get("/", _hello)
    listener = await listen(app, "127.0.0.1", 0, max_connections=1)
    try:
        reader, writer, _ = await _ask(listener.port)
        while (await reader.readline()) != b"\r\n":
            pass
        assert await reader.readexactly(5) == b"hello"
        await asyncio.sleep(0.2)
        writer.write(b"GET / HTTP/1.1\r\nHost: node\r\n\r\n")
        assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
        writer.close()
    finally:
        await listener.stop()


async def test_one_address_holds_a_quarter_of_the_connections() -> None:
    app = web.Application()
    app.router.add_get("/", _hello)
    listener = await listen(app, "127.0.0.1", 0, max_connections=4, trusted=())
    try:
        first = await _ask(listener.port)
        second = await _ask(listener.port)
        assert [first[2], second[2]] == [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 503 Service Unavailable\r\n"]
        for one in (first, second):
            one[1].close()
    finally:
        await listener.stop()
