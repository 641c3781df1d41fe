# SPDX-License-Identifier: AGPL-3.0-or-later
"""`docs/tutorial.md` is true: its shell blocks run in order, in one shell, and print what the page shows.

A ``sh`` block is run; a ``text`` block right after it is what it printed. In the page ``…`` stands for anything within
a line, and a line of its own for any lines. Runs of spaces count as one, and the rules of tables are left out, because
columns are as wide as what stands in them.
"""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"
PORTS = ("PORT", "PEER", "PORT_SUD", "PEER_SUD")
TIMEOUT_S = 900
MARK = "@@ end of block"
_FENCE = re.compile(r"^```(sh|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_RULE = re.compile(r"[━─╇┼\s]+")


@dataclass(frozen=True)
class Block:
    """A block that is run, with the line it stands at, and what the page says that it prints."""

    line: int
    script: str
    expected: str | None


def read_blocks(page: str) -> list[Block]:
    """Return the blocks of a page, in order.

    >>> read_blocks("```sh\\ntrue\\n```\\n```text\\nyes\\n```\\n")
    [Block(line=1, script='true\\n', expected='yes\\n')]
    """
    fences = list(_FENCE.finditer(page))
    blocks = []
    for number, fence in enumerate(fences):
        if fence[1] == "sh":
            after = fences[number + 1] if number + 1 < len(fences) else None
            shown = after[2] if after is not None and after[1] == "text" else None
            blocks.append(Block(page.count("\n", 0, fence.start()) + 1, fence[2], shown))
    return blocks


def lines_of(text: str) -> list[str]:
    """Return the lines of an output as they are compared."""
    return [" ".join(line.split()) for line in text.splitlines() if line.strip() and not _RULE.fullmatch(line)]


def is_as_shown(printed: str, expected: str) -> bool:
    """Tell whether a block printed what the page shows.

    >>> is_as_shown("a   1\\n ━━╇━ \\nb 2\\n", "a …\\n…\\n"), is_as_shown("a 1\\nb 2\\n", "a …\\n")
    (True, False)
    """
    pattern = ""
    for line in lines_of(expected):
        pattern += r"(?:[^\n]*\n)*" if line == "…" else re.escape(line).replace("…", r"[^\n]*") + r"\n"
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in lines_of(printed))) is not None


def free_ports(count: int) -> list[int]:
    """Return loopback ports that nobody uses now, each another."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def run_page(blocks: list[Block], folder: Path) -> tuple[int, list[str], bool]:
    """Run the blocks in one shell.

    Returns:
        Exit code, what each block that ended printed, and whether a process outlived the page (it is ended).
    """
    script = "set -eu\n" + "".join(f"{one.script}\necho '{MARK}'\n" for one in blocks)
    (folder / "script").write_text(script, encoding="utf-8")
    place = folder / "place"
    place.mkdir()
    ports = dict(zip(PORTS, map(str, free_ports(len(PORTS))), strict=True))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ECOT_", "DEMO_"))}
    output = folder / "output"
    with output.open("wb") as written:
        shell = subprocess.Popen(
            ["bash", str(folder / "script")],
            cwd=place,
            env={**kept, "HOME": str(place), "PATH": path, **ports},
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=written,
            start_new_session=True,
        )
        try:
            code = shell.wait(TIMEOUT_S)
        finally:
            survived = _end_group(shell)
    return code, output.read_text(encoding="utf-8").split(f"{MARK}\n"), survived


def _end_group(shell: "subprocess.Popen[bytes]") -> bool:
    """End what is left of the shell's process group; tell whether anything was."""
    try:
        os.killpg(shell.pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    shell.wait()
    return True


@pytest.mark.xdist_group("tutorial")
@pytest.mark.timeout(TIMEOUT_S + 60)
def test_the_tutorial_runs_and_prints_what_it_shows(tmp_path: Path) -> None:
    blocks = read_blocks(PAGE.read_text(encoding="utf-8"))
    code, printed, survived = run_page(blocks, tmp_path)
    for block, text in zip(blocks, printed, strict=False):
        if block.expected is not None and not is_as_shown(text, block.expected):
            pytest.fail(f"{PAGE.name}:{block.line} shows\n{block.expected}\nand printed\n{text}")
    log = "".join(one.read_text(errors="replace")[-3_000:] for one in (tmp_path / "place").glob("*.log"))
    assert code == 0, f"{PAGE.name}:{blocks[len(printed) - 1].line} ended with {code}:\n{printed[-1]}\n{log}"
    assert len(printed) == len(blocks) + 1
    assert not survived, "the tutorial left a process behind"
