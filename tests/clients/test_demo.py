# SPDX-License-Identifier: AGPL-3.0-or-later
"""`ecot demo` as `make demo` calls it: three real nodes, seven steps, every check held."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TIMEOUT_S = 170
COLUMNS = "played_at_unix_s,artist,artist_mbid,album,album_mbid,track,track_mbid"


@pytest.mark.timeout(TIMEOUT_S + 10)
def test_every_check_of_the_demo_holds(tmp_path: Path) -> None:
    plays = tmp_path / "plays.csv"
    rows = [f"{1_700_000_000 + 60 * number},artist {number % 7},,,,track {number % 11}," for number in range(2_000)]
    plays.write_text("\n".join([COLUMNS, *rows]) + "\n", encoding="utf-8")
    environment = os.environ | {"DEMO_ONCE": "1", "DEMO_PLAYS": str(plays), "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "ecot_cli", "demo", "--json", "--lang", "fr"],
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    report = json.loads(done.stdout)
    assert report == {"held": report["held"], "failed": []}
    assert report["held"] >= 36
