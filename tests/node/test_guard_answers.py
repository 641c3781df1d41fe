# SPDX-License-Identifier: AGPL-3.0-or-later
"""A witness's answer is read whole, however it comes."""

import asyncio

import aiohttp
import pytest
from aiohttp import web

from ecot_node.federation.guard import MAX_NOTE_BYTES, ask_witness

NOTE = b"nord.example/ecot/0011223344556677\n7\nroot\n\n- signature\n"


@pytest.mark.parametrize(
    ("parts", "is_reached", "note"),
    [((NOTE[:9], NOTE[9:]), True, NOTE), ((bytes(MAX_NOTE_BYTES), b"more"), False, b"")],
    ids=["in two parts", "too long"],
)
async def test_an_answer_is_read_whole(parts: tuple[bytes, ...], is_reached: bool, note: bytes) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for part in parts:
            await response.write(part)
            await asyncio.sleep(0.05)
        return response

    app = web.Application()
    app.router.add_get("/{rest:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession() as session:
        found = await ask_witness(session, f"http://127.0.0.1:{runner.addresses[0][1]}", "nord.example/ecot/x")
    await runner.cleanup()
    assert (found.is_reached, found.note) == (is_reached, note)
