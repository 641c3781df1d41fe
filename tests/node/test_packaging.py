# SPDX-License-Identifier: AGPL-3.0-or-later
"""What `packaging/` says is accepted by the tools that read it, as far as they are here."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGING = ROOT / "node/ecot_node/packaging"
UNIT = PACKAGING / "systemd/ecot-node.service"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed here")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    installed = "/opt/ecot/venv/bin/ecot-node"
    text = UNIT.read_text(encoding="utf-8")
    assert installed in text
    unit = tmp_path / UNIT.name
    # Only a command that exists is accepted; the documentation's place is not looked at.
    unit.write_text(text.replace(installed, sys.executable), encoding="utf-8")
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_does_not_restart_what_a_restart_cannot_mend() -> None:
    from ecot_node import terminal as command

    codes = f"{command.EXIT_USAGE} {command.EXIT_CORRUPT} {command.EXIT_IN_USE}"
    assert f"RestartPreventExitStatus={codes}\n" in UNIT.read_text(encoding="utf-8")


def test_what_the_container_copies_is_there() -> None:
    text = (PACKAGING / "container/Containerfile").read_text(encoding="utf-8")
    copied = [word for line in re.findall(r"^COPY (?!--)(.+)$", text, re.MULTILINE) for word in line.split()[:-1]]
    assert {"protocol", "node", "clients", "pyproject.toml", "requirements.lock"} <= set(copied)
    assert [name for name in copied if not (ROOT / name).exists()] == []
