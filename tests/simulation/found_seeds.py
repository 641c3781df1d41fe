# SPDX-License-Identifier: AGPL-3.0-or-later
"""Reads `found_seeds.txt`."""

from pathlib import Path


def found_seeds(world: str) -> list[int]:
    """Return the seeds of one world's histories that once found something."""
    lines = (Path(__file__).parent / "found_seeds.txt").read_text().splitlines()
    rows = [line.partition("#")[0].split() for line in lines]
    return [int(row[1]) for row in rows if row and row[0] == world]
