# SPDX-License-Identifier: AGPL-3.0-or-later
"""Where a process spends its CPU, by py-spy: samples of its stacks, put together by the part of the house at work.

The totals are those of /proc, by thread; py-spy only says how to share them out. A sample belongs to the innermost
frame that is of a known part.
"""

import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

RATE_PER_S: Final = 200
MAIN: Final = "MainThread"
PARTS: Final = (
    ("structlog", "access log"),
    ("prometheus_client", "metrics"),
    ("nacl/", "signatures"),
    ("ecot_protocol/wire/keys", "signatures"),
    ("ecot_protocol/wire/", "form, hashes, tree"),
    ("ecot_protocol/", "rules"),
    ("ecot_node/domains/", "views"),
    ("ecot_node/store/", "store"),
    ("ecot_node/ledger/", "writer"),
    ("ecot_node/http/", "http: ours"),
    ("aiohttp/", "http: aiohttp"),
    ("asyncio/", "loop"),
)
"""Part of a file's path -> where; the first that fits."""


@contextmanager
def watching(pid: int, seconds: float) -> Iterator["Counter[tuple[str, str]]"]:
    """Sample a process for so long; what is yielded is filled at the end: (thread, part) -> samples."""
    stacks: Counter[tuple[str, str]] = Counter()
    program = shutil.which("py-spy") or str(Path(sys.executable).with_name("py-spy"))
    if not Path(program).exists():
        yield stacks
        return
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "stacks"
        command = [program, "record", "-p", str(pid), "-d", str(max(1, round(seconds) - 1)), "-r", str(RATE_PER_S)]
        options = ["-t", "--full-filenames", "--nonblocking", "-f", "raw", "-o", str(output)]
        spy = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        yield stacks
        spy.wait()
        if output.exists():
            stacks.update(_read(output.read_text(errors="replace")))


def _read(text: str) -> "Counter[tuple[str, str]]":
    """Read py-spy's raw form: frames from the thread inwards, joined by ``;``, and how often."""
    found: Counter[tuple[str, str]] = Counter()
    for line in text.splitlines():
        joined, _, count = line.rpartition(" ")
        frames = joined.split(";")
        found[_thread(frames[0]), _part(frames)] += int(count)
    return found


def _thread(frame: str) -> str:
    return MAIN if MAIN in frame else frame.rpartition(": ")[2].strip() or frame


def _part(frames: list[str]) -> str:
    for frame in reversed(frames):
        for fragment, part in PARTS:
            if fragment in frame:
                return part
    return "rest"


def share_out(stacks: "Counter[tuple[str, str]]", *, main_us: float, others_us: float) -> dict[str, float]:
    """Share out the CPU of the main thread by part, and that of the others by thread."""
    shares: dict[str, float] = {}
    main = Counter({part: count for (thread, part), count in stacks.items() if thread == MAIN})
    others: Counter[str] = Counter()
    for (thread, _), count in stacks.items():
        if thread != MAIN:
            others[thread.rstrip("0123456789_-")] += count
    for part, count in main.most_common():
        shares[part] = main_us * count / main.total()
    for thread, count in others.most_common():
        shares[f"thread {thread}"] = others_us * count / others.total()
    return shares
