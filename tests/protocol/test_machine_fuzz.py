# SPDX-License-Identifier: AGPL-3.0-or-later
"""Coverage-guided fuzzing, bounded: see `fuzz_decoders.py`."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("fuzz_decoders.py")


@pytest.mark.parametrize("runs", [20_000, pytest.param(1_000_000, marks=pytest.mark.long)])
def test_no_bytes_crash_a_decoder(runs: int, tmp_path: Path) -> None:
    """A fixed seed and a fixed number of runs: the same inputs each time."""
    pytest.importorskip("atheris", reason="atheris has no build for this platform")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    subprocess.run([sys.executable, PROGRAM, "--write-corpus", corpus], check=True, timeout=120)
    done = subprocess.run(
        [sys.executable, PROGRAM, f"-runs={runs}", "-seed=7", "-max_len=4096", "-rss_limit_mb=2048", corpus],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=550,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4_000:]
    assert f"Done {runs} runs" in done.stderr
