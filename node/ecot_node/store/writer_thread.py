# SPDX-License-Identifier: AGPL-3.0-or-later
"""A thread that owns the one SQLite connection that writes.

Works are done in the order in which they were submitted. `aiosqlite` does the same with more steps for each statement:
0.68 of this one's commits at groups of one record, 0.85 at groups of a hundred (measured), which is why it only reads.

The first write that fails breaks the thread: whatever is submitted afterwards fails likewise, so that no later group
can become durable on top of a hole.
"""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

from ecot_node.store.errors import StoreError, StoreFailed, StoreFull

Result = TypeVar("Result")
_Work: TypeAlias = tuple[Callable[[sqlite3.Connection], Any], "asyncio.Future[Any]"]


def store_error(error: sqlite3.Error) -> StoreFailed:
    """Translate SQLite's error; only a full disk has a name of its own."""
    full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    return (StoreFull if full else StoreFailed)(f"{getattr(error, 'sqlite_errorname', 'sqlite')}: {error}")


class WriterThread:
    """Owns `connection` from now on.

    Args:
        connection: opened with ``check_same_thread=False`` and ``isolation_level=None``.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._works: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._broken: StoreError | None = None
        self._thread = threading.Thread(target=self._run, name="ecot-store-writer", daemon=True)
        self._thread.start()

    @property
    def failure(self) -> StoreError | None:
        """What the first write that failed ended with; None if none did."""
        return self._broken

    def submit(self, work: Callable[[sqlite3.Connection], Result]) -> "asyncio.Future[Result]":
        """Queue `work`; the future gets its result, or the `StoreError` that it ended with."""
        future: asyncio.Future[Result] = self._loop.create_future()
        self._works.put((work, future))
        return future

    async def stop(self) -> None:
        """Finish what was submitted, close the connection, end the thread."""
        self._works.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        while (item := self._works.get()) is not None:
            work, future = item
            result, error = self._do(work)
            try:
                self._loop.call_soon_threadsafe(_answer, future, result, error)
            except RuntimeError:  # the loop is closed: nobody is left to hear it
                break
        self._connection.close()

    def _do(self, work: Callable[[sqlite3.Connection], Any]) -> tuple[Any, BaseException | None]:
        if self._broken is not None:
            return None, StoreFailed(f"an earlier write failed: {self._broken}")
        try:
            return work(self._connection), None
        except sqlite3.Error as error:
            self._broken = store_error(error)
        except StoreError as error:
            self._broken = error
        except Exception as error:  # noqa: BLE001  whatever it was, the caller must hear it and nothing may follow
            self._broken = StoreFailed(repr(error))
        return None, self._broken


def _answer(future: "asyncio.Future[Any]", result: object, error: BaseException | None) -> None:
    if future.done():  # the caller was cancelled; the write was made all the same
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
