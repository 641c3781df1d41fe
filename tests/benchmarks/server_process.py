# SPDX-License-Identifier: AGPL-3.0-or-later
"""A server as a process of its own, on chosen cores, known by its port."""

import contextlib
import http.client
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import quiet

START_TIMEOUT_S: Final = 300.0
STOP_TIMEOUT_S: Final = 60.0
_LOOK_S: Final = 0.01


def free_port() -> int:
    """Return a port that nobody listens on at the moment."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@contextlib.contextmanager
def running(
    command: Sequence[object], *, port: int, ready: str, cores: Sequence[int], env: Mapping[str, str], errors: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a server; yield it once it answers ``ready`` (a path) with 200; stop it.

    Raises:
        RuntimeError: it ended or did not answer in time; the message holds the end of what it said.
    """
    with errors.open("wb") as output:
        process = subprocess.Popen(
            quiet.on_cores(cores, *command),
            env=dict(env),
            stdout=output,
            stderr=output,
        )
        try:
            _wait(process, port, ready, errors)
            yield process
        finally:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, ready: str, errors: Path) -> None:
    started = time.monotonic()
    while time.monotonic() - started < START_TIMEOUT_S and process.poll() is None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if get(port, ready)[0] == 200:
                return
        time.sleep(_LOOK_S)
    raise RuntimeError(f"the server does not answer {ready}: {errors.read_text(errors='replace')[-2000:]}")


def get(port: int, path: str) -> tuple[int, bytes]:
    """Return (status, body) of a GET on this machine."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()
