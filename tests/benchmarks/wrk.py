# SPDX-License-Identifier: AGPL-3.0-or-later
"""Load over HTTP by wrk, a program in C, so that the client costs little and is not ours."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import quiet

SCRIPT: Final = Path(__file__).with_name("load.lua")
HOW_TO_GET: Final = "wrk is missing: on Debian, run `apt-get install wrk`"
_UNITS_MS: Final = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}
_UNITS_S: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


class LoadFailed(Exception):
    """A run is worth nothing: errors, or too few bodies."""


@dataclass(frozen=True)
class Load:
    """What a run of wrk did: requests answered in `seconds`, and how long answers took."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float

    @property
    def per_s(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


def is_here() -> bool:
    """Tell whether the program is installed."""
    return shutil.which("wrk") is not None


def run(url: str, path: str, bodies: Path, *, connections: int, seconds: float, cores: Sequence[int]) -> Load:
    """Post the bodies of a file, each once.

    Args:
        url: of the server, without path.
        path: that the bodies are posted to.
        bodies: see `write_bodies`.
        connections: open at the same time, each with one request at a time.
        seconds: how long, whole seconds for wrk.
        cores: that wrk runs on.

    Raises:
        LoadFailed: an answer was not 2xx, or a socket failed.
    """
    options = ("-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--latency", "-s", SCRIPT)
    done = subprocess.run(
        quiet.on_cores(cores, "wrk", *options, url),
        env={**os.environ, "FILE": str(bodies), "UPATH": path},
        check=True,
        capture_output=True,
        text=True,
    )
    return parse(done.stdout)


def parse(text: str) -> Load:
    """Read what wrk printed.

    Raises:
        LoadFailed: see `run`.
    """
    for line in text.splitlines():
        if "Non-2xx" in line or "Socket errors" in line:
            raise LoadFailed(line.strip())
    total = re.search(r"(\d+) requests in ([\d.]+)(us|ms|s|m)", text)
    if total is None:
        raise LoadFailed(f"wrk said: {text.strip()}")
    return Load(
        int(total[1]), float(total[2]) * _UNITS_S[total[3]], _percentile_ms(text, "50"), _percentile_ms(text, "99")
    )


def _percentile_ms(text: str, percent: str) -> float:
    found = re.search(rf"{percent}%\s+([\d.]+)(us|ms|s|m)", text)
    return float(found[1]) * _UNITS_MS[found[2]] if found else float("nan")


def write_bodies(path: Path, bodies: Iterable[bytes]) -> int:
    """Write bodies for `load.lua`; return how many."""
    count = 0
    with path.open("wb") as file:
        for count, body in enumerate(bodies, start=1):  # noqa: B007 - the last count is the result
            file.write(len(body).to_bytes(4, "little"))
            file.write(body)
    return count


def scratch() -> "tempfile.TemporaryDirectory[str]":
    """Return a temporary folder for bodies and stores, on the disk that the build is on."""
    return tempfile.TemporaryDirectory(prefix="ecot-bench-")
