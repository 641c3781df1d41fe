# SPDX-License-Identifier: AGPL-3.0-or-later
"""Listening for the demo: a file of real plays, or generated ones of the same form.

Columns: ``played_at_unix_s, artist, artist_mbid, album, album_mbid, track, track_mbid``. Only counts per work leave
the library: nobody's listening does.
"""

import csv
import gzip
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PLAYS_MAX: Final = 2_000_000
GENERATED_COUNT: Final = 20_000
REPEATED_WITHIN_S: Final = 30
"""The same track again within so many seconds counts once (COUNTER's double-click rule)."""

Play = tuple[int, str, str]
"""When (POSIX seconds), artist, track."""


def read_plays(path: Path) -> Iterator[Play]:
    """Yield the plays of a CSV file, plain or gzipped, by time.

    Raises:
        ValueError: a column is missing or a time is not a number.
    """
    with (
        gzip.open(path, "rt", encoding="utf-8", newline="")
        if path.suffix == ".gz"
        else path.open(encoding="utf-8", newline="") as file
    ):
        for number, row in enumerate(csv.DictReader(file)):
            if number >= PLAYS_MAX:
                raise ValueError(f"{path}: more than {PLAYS_MAX} plays")
            yield int(row["played_at_unix_s"]), row["artist"], row["track"]


def generate_plays(artist_count: int, seed: int = 1) -> Iterator[Play]:
    """Yield plays as a library's listeners might make them: few works much, most works little."""
    draw = random.Random(seed)
    at = 1_750_000_000
    for _ in range(GENERATED_COUNT):
        artist = min(int(draw.paretovariate(0.7)) - 1, artist_count * 4) % artist_count
        track = min(int(draw.paretovariate(1.1)) - 1, 11)
        at += draw.randrange(20, 400)
        yield at, f"artist {artist + 1}", f"track {track + 1}"


def count_plays(plays: Iterator[Play]) -> Counter[tuple[str, str]]:
    """Return (artist, track) -> plays, repeated clicks once."""
    counts: Counter[tuple[str, str]] = Counter()
    newest: dict[tuple[str, str], int] = {}
    for at, artist, track in plays:
        work = (artist, track)
        if at - newest.get(work, -REPEATED_WITHIN_S) >= REPEATED_WITHIN_S:
            counts[work] += 1
        newest[work] = at
    return counts
