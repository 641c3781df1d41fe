# SPDX-License-Identifier: AGPL-3.0-or-later
"""Rounds of clearing as they were, one file each, so that anybody of the cooperative can check them again.

They hold pseudonyms, amounts and signatures, and no name. What they prove is bound by the ledger: it records the call,
the root of what it offered, and each deal with the hash of all debts. So they need no place in the log, and a lost one
costs nothing but the check of that round.
"""

import os
from pathlib import Path
from typing import Final

FOLDER: Final = "rounds"
MAX_KEPT: Final = 10_000
"""The oldest are deleted beyond it."""
_SUFFIX: Final = ".round"


class KeptRounds:
    """The files of one node.

    Args:
        folder: data folder of the node.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER

    def keep(self, call: bytes, raw: bytes) -> None:
        """Keep a round, whole or not at all.

        Raises:
            OSError: it can't be written.
        """
        self._folder.mkdir(mode=0o700, exist_ok=True)
        path = self._path(call)
        partial = path.with_suffix(".new")
        with partial.open("wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        self._delete_oldest()

    def _delete_oldest(self) -> None:
        paths = [*self._folder.glob(f"*{_SUFFIX}")]
        if len(paths) > MAX_KEPT:
            min(paths, key=lambda path: path.stat().st_mtime_ns).unlink()

    def read(self, call: bytes) -> bytes | None:
        """Return a round as it was kept, or None."""
        path = self._path(call)
        return path.read_bytes() if path.is_file() else None

    def _path(self, call: bytes) -> Path:
        return self._folder / f"{call.hex()}{_SUFFIX}"
