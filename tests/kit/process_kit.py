# SPDX-License-Identifier: AGPL-3.0-or-later
"""Node processes that are killed and served again many times: a nursery that forks them from one warm interpreter.

A start of `ecot-node` is mostly imports. The nursery imports once and then forks: each child is a process of its own,
runs the `serve` command as typed, and dies by the same signals; only the imports are not repeated.
"""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from ecot_protocol.wire.entry import ENTRIES, Entry
from ecot_protocol.wire.reply import REPLY, Recorded, Reply

START_TIMEOUT_S = 60.0
REQUEST_TIMEOUT_S = 20.0
POLL_S = 0.01
PATIENCE_S = 60.0
_ADDRESS = re.compile(rb"answers at http://127\.0\.0\.1:(\d+)\n")

_NURSERY = """
import json, os, signal, sys
import uvloop
import ecot_node.bootstrap.node, ecot_node.federation.libp2p_host
from ecot_node.__main__ import app

for line in sys.stdin:
    asked = json.loads(line)
    if asked["do"] == "serve":
        pid = os.fork()
        if pid == 0:
            log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0), os.dup2(log, 1), os.dup2(log, 2)
            os.environ.update(asked["environment"])
            app(["serve", asked["folder"], *asked["options"]])
        answer = pid
    else:
        os.kill(asked["pid"], asked["signal"])
        answer = os.waitstatus_to_exitcode(os.waitpid(asked["pid"], 0)[1])
    print(answer, flush=True)
"""


class Nursery:
    """Forks nodes; use it as a context manager. Children that still live at its end are killed."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _NURSERY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._alive: set[int] = set()

    def __enter__(self) -> "Nursery":
        return self

    def __exit__(self, *_: object) -> None:
        for pid in [*self._alive]:
            self.end(pid, signal.SIGKILL)
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(START_TIMEOUT_S)

    def serve(self, folder: Path, log: Path, *options: str, **environment: str) -> int:
        """Fork a node that serves `folder` and return its process id."""
        settings = {"LC_ALL": "C.UTF-8"} | environment
        pid = self._ask(do="serve", folder=str(folder), log=str(log), options=options, environment=settings)
        self._alive.add(pid)
        return pid

    def end(self, pid: int, with_signal: signal.Signals) -> int:
        """Send a signal to a node of ours, wait for its end, and return its exit code (negative: the signal)."""
        code = self._ask(do="end", pid=pid, signal=int(with_signal))
        self._alive.discard(pid)
        return code

    def _ask(self, **question: Any) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


class Raised:
    """One folder, served by a nursery again and again.

    Args:
        nursery: forks the processes.
        folder: of the node.
        environment: settings.
    """

    def __init__(self, nursery: Nursery, folder: Path, **environment: str) -> None:
        self._nursery, self.folder, self._environment = nursery, folder, environment
        self._pid: int | None = None
        self.log_path = folder.with_name(f"{folder.name}.log")

    def start(self, *options: str) -> None:
        """Begin to serve; the address is known later, see `address`."""
        self.log_path = self.folder.with_name(f"{self.folder.name}.{time.monotonic_ns()}.log")
        self._pid = self._nursery.serve(self.folder, self.log_path, *options, **self._environment)

    def find_address(self) -> str | None:
        """Return the URL of the running process; None while it does not serve yet."""
        found = _ADDRESS.search(self.log_path.read_bytes()) if self.log_path.exists() else None
        return f"http://127.0.0.1:{int(found[1])}" if found else None

    def address(self) -> str:
        """Wait until it serves, and return its URL; fail if it ends before."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            url = self.find_address()
            if url is not None:
                return url
            time.sleep(POLL_S)
        raise AssertionError(f"the node did not serve:\n{self.log()}")

    def log(self) -> str:
        """Return what the process said since its last start."""
        return self.log_path.read_text(errors="replace")

    def end(self, with_signal: signal.Signals = signal.SIGKILL) -> int:
        """End the process and return its exit code."""
        assert self._pid is not None
        pid, self._pid = self._pid, None
        return self._nursery.end(pid, with_signal)

    def freeze(self) -> None:
        """Stop the process where it stands: it answers nobody, and its connections stay open."""
        assert self._pid is not None
        os.kill(self._pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._pid is not None
        os.kill(self._pid, signal.SIGCONT)

    @property
    def is_alive(self) -> bool:
        """Tell whether a process was started and not ended."""
        return self._pid is not None

    # --- what it answers --------------------------------------------------------------------------------------------

    def ask(self, path: str, raw: bytes | None = None) -> bytes:
        """Return the answer to a request; raises `urllib.error.URLError`."""
        url = self.address() + path
        request = urllib.request.Request(url, data=raw, headers={"Content-Type": "application/msgpack"})
        with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT_S) as response:
            return bytes(response.read())

    def get(self, path: str) -> tuple[int, dict[str, Any]]:
        """Return status and JSON of a read."""
        return self._answer(path, None)

    def ready(self) -> dict[str, Any]:
        """Return what /readyz says, whether ready or not."""
        return self.get("/readyz")[1]

    def post(self, *entries: Entry) -> Reply:
        """Post entries; fail unless the node takes them."""
        return REPLY.decode(self.ask("/v1/entries", ENTRIES.encode(entries)))

    def must_post(self, *entries: Entry) -> Reply:
        """Post entries and fail unless each is recorded."""
        reply = self.post(*entries)
        assert all(isinstance(one, Recorded) for one in reply.outcomes), reply.outcomes
        return reply

    def problem(self, *entries: Entry) -> tuple[int, dict[str, Any]]:
        """Post entries that the node will not take; return status and problem."""
        return self._answer("/v1/entries", ENTRIES.encode(entries))

    def _answer(self, path: str, raw: bytes | None) -> tuple[int, dict[str, Any]]:
        try:
            return 200, json.loads(self.ask(path, raw))
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())

    def wait_for(self, name: str, value: Any) -> dict[str, Any]:
        """Wait until /readyz answers `value` for `name`."""
        for _ in self.patience():
            ready = self.ready()
            if ready.get(name) == value:
                return ready
        raise AssertionError(f"{name} did not become {value!r}: {self.ready()}\n{self.log()[-4_000:]}")

    def rows(self, sql: str, *values: Any, file: str = "log.db") -> list[tuple[Any, ...]]:
        """Read a database of the node while it runs."""
        place = f"{(self.folder / file).absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(place, uri=True)) as connection:
            return connection.execute(sql, values).fetchall()

    @staticmethod
    def patience(timeout_s: float = PATIENCE_S, pause_s: float = 0.05) -> Iterator[None]:
        """Yield until the time is over; a wait that ends by itself fails its test."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            yield
            time.sleep(pause_s)
