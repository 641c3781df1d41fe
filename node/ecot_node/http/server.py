# SPDX-License-Identifier: AGPL-3.0-or-later
"""Listening: the application on a socket, with limits on open connections.

- So many in all, and of one address at most a quarter of them; one more is told to come back later.
- A connection whose first request has not come after `FIRST_REQUEST_S` is closed: aiohttp lets it wait for ever, and a
  single machine that only opens connections would keep everybody else out. Between two requests aiohttp's own
  keep-alive sets the limit, and within one the time for its body.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, cast

from aiohttp import web

from ecot_node.http.context import LOOPBACK, Network
from ecot_node.http.limits import client_of, is_client_within

KEEPALIVE_S: Final = 75.0
SHUTDOWN_S: Final = 10.0
FIRST_REQUEST_S: Final = 20.0
SHARE_OF_ONE: Final = 4
"""One address holds at most a quarter of the connections."""
MAX_LINE_BYTES: Final = 8_190
MAX_HEADER_BYTES: Final = 8_190
_FULL: Final = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class _Doors:
    """Counts the open connections, in all and by address.

    Args:
        server: what answers requests.
        most: open at one time.
        trusted: networks whose addresses are not counted one by one: our proxies, this machine.
    """

    def __init__(self, server: web.Server, most: int, trusted: Sequence[Network]) -> None:
        self.server = server
        self._most, self._trusted = most, trusted
        self._by_client: Counter[str] = Counter()

    def enter(self, client: str) -> bool:
        """Count a connection in; False if there is no room."""
        is_counted = not is_client_within(client, self._trusted)
        if self._by_client.total() >= self._most:
            return False
        if is_counted and self._by_client[client] >= max(self._most // SHARE_OF_ONE, 1):
            return False
        self._by_client[client] += 1
        return True

    def leave(self, client: str) -> None:
        """Count a connection out."""
        self._by_client[client] -= 1
        if not self._by_client[client]:
            del self._by_client[client]


class _Connection(asyncio.Protocol):
    """Stands between a socket and aiohttp, which it tells all; see the module for what it refuses."""

    __slots__ = ("_client", "_doors", "_handler", "_head", "_timer")

    def __init__(self, doors: _Doors) -> None:
        self._doors = doors
        self._client = ""
        self._head: bytes | None = b""
        self._handler: asyncio.Protocol | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit from it
        peer = transport.get_extra_info("peername")
        self._client = client_of(peer[0] if isinstance(peer, tuple) else None, (), ())
        if not self._doors.enter(self._client):
            transport.write(_FULL)
            transport.close()
            return
        self._handler = self._doors.server()
        self._handler.connection_made(transport)
        self._timer = asyncio.get_running_loop().call_later(FIRST_REQUEST_S, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._handler is not None:
            self._doors.leave(self._client)
            self._stop_timer()
            self._handler.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._head is not None:
            self._look_for_request(data)
        if self._handler is not None:
            self._handler.data_received(data)

    def eof_received(self) -> bool | None:
        return None if self._handler is None else self._handler.eof_received()

    def pause_writing(self) -> None:
        if self._handler is not None:
            self._handler.pause_writing()

    def resume_writing(self) -> None:
        if self._handler is not None:
            self._handler.resume_writing()

    def _look_for_request(self, data: bytes) -> None:
        """Stop the clock at the end of the first request's headers; empty lines before it, which aiohttp skips, count
        for nothing. Only the last bytes are kept.
        """
        head = (self._head or b"") + data
        head = head if self._head else head.lstrip(b"\r\n")
        if b"\r\n\r\n" in head:
            self._head = None
            self._stop_timer()
        else:
            self._head = head[-3:]

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Listener:
    """A running server.

    Args:
        runner: set up.
        server: bound.
    """

    def __init__(self, runner: web.AppRunner, server: asyncio.Server) -> None:
        self._runner = runner
        self._server = server

    @property
    def port(self) -> int:
        """The TCP port that it listens on."""
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        """Take no more connections, end event streams, finish the requests at work."""
        self._server.close()
        await self._runner.cleanup()


async def listen(
    app: web.Application,
    host: str,
    port: int,
    *,
    max_connections: int,
    trusted: Sequence[Network] = LOOPBACK,
    prepare: Callable[[web.Server], None] | None = None,
) -> Listener:
    """Serve `app` on a TCP socket.

    Args:
        app: from `make_app`.
        host: address to bind, e.g. ``127.0.0.1``.
        port: 0 for any.
        max_connections: open at one time; one more is answered 503.
        trusted: networks that may hold all of them: our proxies, this machine.
        prepare: is given the server before it listens (see `entry_door.put_door`).

    Raises:
        OSError: the address can't be bound.
    """
    runner = web.AppRunner(
        app,
        access_log=None,
        handle_signals=False,
        keepalive_timeout=KEEPALIVE_S,
        shutdown_timeout=SHUTDOWN_S,
        auto_decompress=False,
        max_line_size=MAX_LINE_BYTES,
        max_field_size=MAX_HEADER_BYTES,
    )
    await runner.setup()
    assert runner.server is not None
    if prepare is not None:
        prepare(runner.server)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_limited(runner.server, max_connections, trusted), host, port, backlog=1_024)
    return Listener(runner, server)


def _limited(server: web.Server, most: int, trusted: Sequence[Network]) -> Callable[[], asyncio.Protocol]:
    doors = _Doors(server, most, trusted)
    return lambda: _Connection(doors)
