# SPDX-License-Identifier: AGPL-3.0-or-later
"""Listening: the application on a socket, with a limit on open connections."""

import asyncio
from collections.abc import Callable
from typing import Final

from aiohttp import web

KEEPALIVE_S: Final = 75.0
SHUTDOWN_S: Final = 10.0
MAX_LINE_BYTES: Final = 8_190
MAX_HEADER_BYTES: Final = 8_190
_FULL: Final = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class _Refusing(asyncio.Protocol):
    """Tells one connection too many to come back later."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(_FULL)
        transport.close()


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


async def listen(app: web.Application, host: str, port: int, *, max_connections: int) -> Listener:
    """Serve `app` on a TCP socket.

    Args:
        app: from `make_app`.
        host: address to bind, e.g. ``127.0.0.1``.
        port: 0 for any.
        max_connections: open at one time; one more is answered 503.

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
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_limited(runner.server, max_connections), host, port, backlog=1_024)
    return Listener(runner, server)


def _limited(server: web.Server, max_connections: int) -> Callable[[], asyncio.Protocol]:
    def accept() -> asyncio.Protocol:
        return _Refusing() if len(server.connections) >= max_connections else server()

    return accept
