# SPDX-License-Identifier: AGPL-3.0-or-later
"""Three nodes as processes: made, founded, served, killed, served again, verified, stopped.

The demo never imports the node: it types what an operator would type.
"""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp

from ecot_client.entries import sign_entry
from ecot_protocol.domains.coop.genesis import ledger_id
from ecot_protocol.errors import EcotError
from ecot_protocol.wire.entry import ENTRY, decode_entry
from ecot_protocol.wire.keys import Signer

START_TIMEOUT_S: Final = 30.0
STOP_TIMEOUT_S: Final = 15.0
POLL_INTERVAL_S: Final = 0.05
LOOPBACK: Final = "127.0.0.1"
ALL_FROM_ONE_ADDRESS: Final = {
    "ECOT_NODE_HTTP__ENTRIES_PER_MINUTE": "600000",
    "ECOT_NODE_HTTP__REQUESTS_PER_MINUTE": "60000",
}
"""Every member of the demo has the same address, so the limits of one client are raised."""


class NodeFailed(EcotError):
    """A node did not do what an operator asked of it; the message shows what it printed last."""


def free_port() -> int:
    """Return a TCP port of the loopback interface that nobody uses now."""
    with socket.socket() as one:
        one.bind((LOOPBACK, 0))
        port: int = one.getsockname()[1]
        return port


@dataclass
class NodeProcess:
    """One cooperative's node.

    Attributes:
        name: short name, also of its folder.
        folder: its data folder.
        http_port, libp2p_port: on loopback.
    """

    name: str
    folder: Path
    http_port: int = field(default_factory=free_port)
    libp2p_port: int = field(default_factory=free_port)
    _process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        """Where clients reach it."""
        return f"http://{LOOPBACK}:{self.http_port}"

    @property
    def libp2p_address(self) -> str:
        """Where partners reach it, without its peer id."""
        return f"/ip4/{LOOPBACK}/tcp/{self.libp2p_port}"

    @property
    def log_path(self) -> Path:
        """What the process prints."""
        return self.folder.with_suffix(".log")

    @property
    def ledger(self) -> bytes:
        """The ledger's id: the hash of the genesis, known before anybody has signed it."""
        return ledger_id(decode_entry((self.folder / "genesis.draft").read_bytes()).body)

    def init(self, *, title: str, domain: str, template: str, founders: dict[str, tuple[Signer, str]]) -> None:
        """Make the folder; the founders' public keys go in, never their keys.

        Args:
            title: name of the cooperative.
            domain: its internet domain.
            template: of statutes.
            founders: handle -> (key, offices separated by commas).
        """
        options = ["--name", title, "--domain", domain, "--template", template]
        options += ["--http-port", str(self.http_port), "--listen", self.libp2p_address]
        for handle, (signer, offices) in founders.items():
            options += ["--board", f"{handle}={signer.public_key.hex()}:{offices}"]
        self.run("init", str(self.folder), *options)

    def found(self, board: list[Signer]) -> None:
        """Let every board member sign the genesis, each on a copy, and put the copies together."""
        draft = self.folder / "genesis.draft"
        copies = []
        for number, signer in enumerate(board):
            copy = self.folder / f"genesis.{number}.signed"
            copy.write_bytes(ENTRY.encode(sign_entry(decode_entry(draft.read_bytes()), signer)))
            copies.append(str(copy))
        self.run("found", str(self.folder), *copies)

    def run(self, *arguments: str) -> str:
        """Run `ecot-node` to its end and return what it printed on standard output.

        Raises:
            NodeFailed: its exit code is not 0.
        """
        done = subprocess.run(
            [sys.executable, "-m", "ecot_node", *arguments], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise NodeFailed(f"ecot-node {arguments[0]}: exit {done.returncode}: {done.stderr[-2_000:]}")
        return done.stdout

    def add_partners(self, partners: list["NodeProcess"]) -> None:
        """Write where partners are found into node.toml, as an operator would."""
        path = self.folder / "node.toml"
        head, tail = path.read_text(encoding="utf-8").split("\n[log]\n")
        for partner in partners:
            head += f'\n[[federation.peers]]\nledger = "{partner.ledger.hex()}"\n'
            head += f"addresses = {json.dumps([partner.libp2p_address])}\nurl = {json.dumps(partner.url)}\n"
        path.write_text(f"{head}\n[log]\n{tail}", encoding="utf-8")

    async def start(self) -> None:
        """Serve, and wait until it is ready.

        Raises:
            NodeFailed: it ended, or is not ready in time.
        """
        self._process = self._spawn()
        await self._wait_until_ready()

    def _spawn(self) -> "subprocess.Popen[bytes]":
        environment = {**ALL_FROM_ONE_ADDRESS, "ECOT_NODE_LOG__LEVEL": "warning", **os.environ}
        with self.log_path.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "ecot_node", "serve", str(self.folder)],
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )

    async def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        async with aiohttp.ClientSession() as session:
            while time.monotonic() < deadline:
                if self._process is None or self._process.poll() is not None:
                    raise NodeFailed(f"{self.name} ended while it started: {self._tail()}")
                try:
                    async with session.get(f"{self.url}/readyz") as response:
                        if response.status == 200:
                            return
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(POLL_INTERVAL_S)
        raise NodeFailed(f"{self.name} was not ready in {START_TIMEOUT_S} s: {self._tail()}")

    def _tail(self) -> str:
        text = self.log_path.read_text(errors="replace") if self.log_path.exists() else ""
        return text[-2_000:]

    def kill(self) -> None:
        """End the process at once, as a power cut would (SIGKILL)."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(STOP_TIMEOUT_S)
            self._process = None

    def stop(self) -> None:
        """Ask it to stop and wait; kill it if it does not."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_TIMEOUT_S)
        self._process = None
