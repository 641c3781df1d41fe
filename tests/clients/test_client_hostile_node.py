# SPDX-License-Identifier: AGPL-3.0-or-later
"""Whatever bytes a node answers, the client ends in an error of its own."""

from collections.abc import AsyncIterator

import msgspec
import pytest
import pytest_asyncio
from aiohttp import web

from ecot_cli.output import show_text
from ecot_client.errors import ClientError
from ecot_client.transport import Patience, Request, Transport

DEEP = b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
ANSWERS: dict[str, tuple[int, bytes, dict[str, str]]] = {
    "deep": (200, DEEP, {}),
    "deep_problem": (400, DEEP, {}),
    "parameter_named_self": (400, b'{"code":"x","params":{"self":1,"key":2,"detail":3}}', {}),
    "pause_of_two_squared": (503, b"{}", {"Retry-After": "²"}),
    "endless_pause": (400, b"{}", {"Retry-After": "9" * 400}),
    "no_utf8": (200, b'{"size":"\xff\xfe"}', {}),
    "huge_number": (200, b'{"size":' + b"9" * 5_000 + b"}", {}),
    "redirect": (302, b"", {"Location": "http://127.0.0.1:1/"}),
    "not_gzip": (200, b"{}", {"Content-Encoding": "gzip"}),
}


class Answer(msgspec.Struct):
    size: int


@pytest_asyncio.fixture
async def transport() -> AsyncIterator[Transport]:
    async def answer(request: web.Request) -> web.Response:
        status, body, headers = ANSWERS[request.match_info["name"]]
        return web.Response(status=status, body=body, headers=headers)

    app = web.Application()
    app.router.add_get("/{name}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with Transport(url, patience=Patience(attempts=1)) as transport:
        yield transport
    await runner.cleanup()


@pytest.mark.parametrize("name", ANSWERS)
async def test_a_strange_answer_is_an_error_of_the_client(transport: Transport, name: str) -> None:
    with pytest.raises(ClientError):
        await transport.ask_json(Request("GET", f"/{name}"), Answer)


def test_somebody_elses_text_does_not_command_the_terminal() -> None:
    shown = show_text("Ada\x1b]0;owned\x07\x9b2J\r\u202etxt.exe [bold]")
    assert not {"\x1b", "\x07", "\x9b", "\r", "\u202e"} & {*shown}
    assert "\\[bold]" in shown
