# SPDX-License-Identifier: AGPL-3.0-or-later
"""The exclusive lock on a node's data folder: `flock` on a file in it.

The kernel gives the lock back when the process ends, however it ends. The file holds the process number, for the
message alone; it is never deleted, or two processes could each lock a file of that name.
"""

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Final

from ecot_node.store.errors import StoreInUse

LOCK_NAME: Final = "lock"
"""Name of the lock file in the data folder."""


class FolderLock:
    """Hold the lock of `folder` from construction to `release`.

    Raises:
        StoreInUse: another process holds it.
    """

    def __init__(self, folder: Path) -> None:
        self._descriptor: int | None = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._descriptor, 32).decode("ascii", "replace").strip()
            self.release()
            raise StoreInUse(str(folder), f"process {holder}" if holder else "") from None
        os.ftruncate(self._descriptor, 0)
        os.write(self._descriptor, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Give the lock back; a second call does nothing."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(descriptor)


def is_locked(folder: Path) -> bool:
    """Tell whether a process holds the lock of `folder` now."""
    try:
        FolderLock(folder).release()
    except StoreInUse:
        return True
    return False
