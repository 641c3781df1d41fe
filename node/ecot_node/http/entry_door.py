# SPDX-License-Identifier: AGPL-3.0-or-later
"""The short way of ``POST /v1/entries``: plain requests, which are nearly all, are answered ahead of the application.

A request goes this way if its body came whole with its headers, of the right type, without a session and without
anything else that an answer could depend on. It meets the same limits, is counted by the same metrics and gets the
same answer as by the route `entry_routes`, to which every other request, and every request that fails here before
anything was taken, is left. What is saved is aiohttp's routing, middlewares, signals and the composing of headers: a
third of the CPU of an entry that comes alone (docs/benchmarks.md).
"""

import asyncio
import itertools
import secrets
import time
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from typing import Final

from aiohttp import HttpVersion11, hdrs, web

from ecot_node.http.app import SECURITY_HEADERS, SERVER_NAME, SERVICES, answer_error, note_answer
from ecot_node.http.context import Context
from ecot_node.http.entry_routes import MSGPACK, PATH, record_entries
from ecot_node.http.limits import client_of
from ecot_node.http.services import Lease, Services

MAX_BODY_BYTES: Final = 262_144
"""A longer body goes the long way."""
MAX_UNSENT_BYTES: Final = 65_536
"""A client that does not read its answers goes the long way, which waits for it."""
LOOKS: Final = 16
"""So often, within the time limit of an answer, it is looked at who has waited for too long."""
Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class EntryDoor:
    """Answers plain posts of entries; leaves all else to the application.

    Args:
        inner: what answers every other request: the application's own handler.
        context: the ports.
        services: of the application.
    """

    def __init__(self, inner: Answer, context: Context, services: Services) -> None:
        self._inner, self._context, self._services = inner, context, services
        self._prefix, self._numbers = secrets.token_hex(4), itertools.count()
        self._head = _fixed_head()
        self._date, self._date_at_s = "", 0
        self._patience = _Patience(context.settings.answer_timeout_s)

    async def __call__(self, http: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        if http.raw_path != PATH or not _is_plain(http):
            return await self._inner(http)
        started = time.perf_counter()
        request_id = f"{self._prefix}{next(self._numbers) & 0xFFFFFFFF:08x}"
        try:
            body = await self._record(http)
        except Exception as error:  # noqa: BLE001 - every error has its answer, as in the application
            response: web.StreamResponse = await answer_error(http, error, request_id)
        else:
            response = _Written(self._compose(body, request_id))
        note_answer(self._services, request_id, "POST", PATH, response.status, time.perf_counter() - started)
        return response

    async def _record(self, http: web.BaseRequest) -> bytes:
        services, settings = self._services, self._context.settings
        client = client_of(http.remote, http.headers.getall(hdrs.X_FORWARDED_FOR, ()), settings.trusted_proxies)
        services.take(services.addresses, client)
        held = Lease(services.bodies, client)
        try:
            body = http.content.read_nowait()
            held.take(len(body))
            return await self._patience.wait_for(record_entries(self._context.ledger, services, client, body))
        finally:
            held.end()

    def _compose(self, body: bytes, request_id: str) -> bytes:
        now_s = int(time.time())
        if now_s != self._date_at_s:
            self._date, self._date_at_s = formatdate(now_s, usegmt=True), now_s
        head = f"{self._head}Content-Length: {len(body)}\r\nDate: {self._date}\r\nX-Request-Id: {request_id}\r\n\r\n"
        return head.encode() + body


class _Patience:
    """A time limit for many waits alike: one look at the oldest now and then, instead of a timer for each.

    Args:
        limit_s: until a wait is ended, at the first look after it.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._since: dict[asyncio.Task[object], float] = {}
        self._ended: set[asyncio.Task[object]] = set()
        self._is_looking = False

    async def wait_for(self, work: Awaitable[bytes]) -> bytes:
        """Await some work in the current task, which does no other meanwhile.

        Raises:
            TimeoutError: it took too long.
        """
        task = asyncio.current_task()
        assert task is not None
        self._since[task] = time.monotonic()
        if not self._is_looking:
            self._look()
        try:
            return await work
        except asyncio.CancelledError:
            if task in self._ended and task.uncancel() == 0:
                raise TimeoutError from None
            raise
        finally:
            del self._since[task]
            self._ended.discard(task)

    def _look(self) -> None:
        before = time.monotonic() - self._limit_s
        for task, since in self._since.items():  # the oldest first
            if since > before:
                break
            if task not in self._ended:
                self._ended.add(task)
                task.cancel()
        self._is_looking = bool(self._since)
        if self._is_looking:
            asyncio.get_running_loop().call_later(self._limit_s / LOOKS, self._look)


class _Written(web.StreamResponse):
    """An answer that is composed already: its bytes go to the connection as they are."""

    def __init__(self, raw: bytes) -> None:
        super().__init__()
        self._raw = raw
        self._keep_alive = True

    async def prepare(self, request: web.BaseRequest) -> None:  # nothing is left to compose
        """Write it."""
        if request.transport is None:
            raise ConnectionResetError
        request.transport.write(self._raw)

    async def write_eof(self, data: bytes = b"") -> None:
        """Do nothing: all is written."""


def _is_plain(http: web.BaseRequest) -> bool:
    headers, transport = http.headers, http.transport
    return (
        http.method == hdrs.METH_POST
        and headers.get(hdrs.CONTENT_TYPE) == MSGPACK
        and http.content.is_eof()
        and http.version == HttpVersion11
        and http.keep_alive
        and 0 < (http.content_length or 0) <= MAX_BODY_BYTES
        and _NOT_PLAIN.isdisjoint(headers)
        and transport is not None
        and transport.get_write_buffer_size() <= MAX_UNSENT_BYTES
    )


_NOT_PLAIN: Final = frozenset((hdrs.AUTHORIZATION, hdrs.CONTENT_ENCODING, hdrs.EXPECT, hdrs.UPGRADE))


def _fixed_head() -> str:
    headers = (("Content-Type", MSGPACK), *SECURITY_HEADERS, ("Server", SERVER_NAME))
    return "HTTP/1.1 200 OK\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers)


def put_door(server: web.Server, app: web.Application, context: Context) -> None:
    """Let an application's server answer plain posts of entries the short way.

    Args:
        server: of the application's runner, set up; connections that are open already keep the long way.
        app: from `make_app`.
        context: the one it was made with.
    """
    server.request_handler = EntryDoor(server.request_handler, context, app[SERVICES])
