# SPDX-License-Identifier: AGPL-3.0-or-later
"""A js-libp2p host of its own process that speaks the federation transport: tests/conformance/js-libp2p/host.mjs."""

import asyncio
import itertools
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "tests/conformance/js-libp2p"
PATIENCE_S = 30.0
LINE_BYTES_MAX = 4 * 1024 * 1024
NODE_MAJOR_MIN = 20


def install() -> str:
    """Install what package-lock.json names unless it is there, and return the path of Node.js."""
    installed, lock = FOLDER / "node_modules/.package-lock.json", FOLDER / "package-lock.json"
    if not installed.is_file() or installed.stat().st_mtime < lock.stat().st_mtime:
        setup = subprocess.run([ROOT / "tools/setup-js"], capture_output=True, text=True, timeout=300, check=False)
        assert setup.returncode == 0, setup.stdout + setup.stderr
    program = shutil.which("node")
    assert program is not None, "Node.js is missing: `tools/setup-js` says how to get it"
    return program


def to_json(value: Any) -> Any:
    """Return bytes as the host writes them."""
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    raise TypeError(f"{type(value).__name__} has no JSON here")


def from_json(value: dict[str, Any]) -> Any:
    """Return the bytes that an object stands for, or the object."""
    return bytes.fromhex(value["hex"]) if value.keys() == {"hex"} else value


class JsHost:
    """One host; made by `start`, ended by `stop`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.events: list[dict[str, Any]] = []
        self._changed = asyncio.Event()
        self._reading = asyncio.create_task(self._read())
        self.peer_id = ""
        self.addresses: list[str] = []

    @classmethod
    async def start(cls, seed: bytes, ledger: bytes, origin: str) -> "JsHost":
        """Start a process and its libp2p host, which listens at a free port of loopback."""
        process = await asyncio.create_subprocess_exec(
            *(install(), str(FOLDER / "host.mjs")),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LINE_BYTES_MAX,
        )
        host = cls(process)
        started = await host.ask("start", seed=seed, ledger=ledger, origin=origin)
        host.peer_id, host.addresses = started["peer"], started["addresses"]
        return host

    async def ask(self, question: str, **parameters: Any) -> dict[str, Any]:
        """Return the answer to a question; fail if it is an error without a code of the specification."""
        number = next(self._numbers)
        self._answers[number] = answer = asyncio.get_running_loop().create_future()
        assert self._process.stdin is not None
        line = json.dumps({"id": number, "ask": question, **parameters}, default=to_json)
        self._process.stdin.write(line.encode() + b"\n")
        async with asyncio.timeout(PATIENCE_S):
            found = await answer
        assert "error" not in found or found.get("code"), found["error"]
        return found

    async def wait_for(self, event: str, **fields: Any) -> dict[str, Any]:
        """Wait for an event with these fields, now or in the past, and return it."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                wanted = {"event": event, **fields}.items()
                found = next((one for one in self.events if wanted <= {**one, "messages": None}.items()), None)
                if found is not None:
                    return found
                self._changed.clear()
                await self._changed.wait()

    def messages(self) -> list[bytes]:
        """Return all messages that the acceptor has read so far."""
        return [message for one in self.events for message in one.get("messages", ())]

    async def wait_for_messages(self, count: int) -> list[bytes]:
        """Wait until at least so many messages have been read, and return them."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.messages()) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.messages()

    async def stop(self) -> None:
        """End the process."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        await asyncio.gather(self._reading, return_exceptions=True)

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            said = json.loads(line, object_hook=from_json)
            if "id" in said:
                self._answers.pop(said.pop("id")).set_result(said)
            else:
                self.events.append(said)
                self._changed.set()
        for waiting in self._answers.values():
            waiting.set_exception(ConnectionError("the js-libp2p host ended"))
