# SPDX-License-Identifier: AGPL-3.0-or-later
"""Brings views up to date behind the writer, which never waits for them.

Views that are behind the log at a start are fed from its replay. Where a snapshot would skip records that the views
lack, the log is replayed from the beginning.
"""

import asyncio
import contextlib
from typing import Final

import structlog

from ecot_node.ledger.port import RecordedEntry, Views

log = structlog.get_logger("ecot.views")

MAX_GROUP: Final = 2_000
PAUSE_S: Final = 0.03
"""Between two transactions of the views while nobody waits for them: under load one then takes what ten would."""
RETRY_PAUSE_S: Final = 1.0


class ViewFollower:
    """Feeds views in order.

    Args:
        views: None for none; `size` then stays 0 and nobody waits.
    """

    def __init__(self, views: Views | None) -> None:
        self._views = views
        self._waiting: list[RecordedEntry] = []
        self._wake = asyncio.Event()
        self._hurry = asyncio.Event()
        self._waiter_count = 0
        self._moved = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None
        self._is_stopping = False
        self._position: int | None = None
        self.size = 0

    async def forget_beyond(self, size: int) -> None:
        """Begin the views anew if they show more than the log's `size` records: an older log was put back."""
        if self._views is None or await self._views.position() <= size:
            return
        log.warning("views_ahead", views_size=await self._views.position(), size=size)
        await self._views.reset()
        await self._views.swap()

    async def can_follow_from(self, size: int) -> bool:
        """Tell whether a replay that begins at `size` would give the views all that they lack."""
        if self._views is None:
            return True
        self.size = self._position = await self._views.position()
        return self.size >= size

    async def replayed(self, entries: list[RecordedEntry]) -> None:
        """Take a batch of a replay; what the views show already is left out."""
        if self._views is None:
            return
        if self._position is None:
            self.size = self._position = await self._views.position()
        new = [entry for entry in entries if entry.index >= self.size]
        if new:
            await self._views.apply(new)
            self.size = new[-1].index + 1

    async def ignore(self, entries: list[RecordedEntry]) -> None:
        """Take a batch of a replay that only rebuilds the state."""

    async def start(self) -> None:
        """Begin to follow."""
        if self._views is not None:
            self._task = asyncio.create_task(self._run(), name="views")

    async def stop(self) -> None:
        """Show what waits, then end."""
        self._is_stopping = True
        self._wake.set()
        self._hurry.set()
        if self._task is not None:
            await self._task

    def feed(self, entries: list[RecordedEntry]) -> None:
        """Queue a durable group."""
        if self._views is not None:
            self._waiting += entries
            self._wake.set()
            if len(self._waiting) >= MAX_GROUP:
                self._hurry.set()

    async def wait_for(self, index: int, timeout_s: float) -> bool:
        """Wait until the views show the record at `index`."""
        self._waiter_count += 1
        self._hurry.set()
        try:
            async with asyncio.timeout(timeout_s), self._moved:
                await self._moved.wait_for(lambda: self.size > index)
        except TimeoutError:
            return False
        finally:
            self._waiter_count -= 1
        return True

    async def _run(self) -> None:
        while True:
            if not self._waiting:
                if self._is_stopping:
                    return
                self._wake.clear()
                await self._wake.wait()
                continue
            group, self._waiting = self._waiting[:MAX_GROUP], self._waiting[MAX_GROUP:]
            await self._apply(group)
            await self._pause()

    async def _pause(self) -> None:
        """Let records gather, unless somebody waits for them or there are enough."""
        if self._waiter_count or self._is_stopping or len(self._waiting) >= MAX_GROUP:
            return
        self._hurry.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._hurry.wait(), PAUSE_S)

    async def _apply(self, group: list[RecordedEntry]) -> None:
        assert self._views is not None
        try:
            await self._views.apply(group)
        except Exception:  # views can be rebuilt; the ledger goes on, and readers see how far they are
            log.exception("views_failed", first_index=group[0].index)
            self._waiting = group + self._waiting
            if self._is_stopping:
                self._waiting.clear()
            await asyncio.sleep(0 if self._is_stopping else RETRY_PAUSE_S)
            return
        self.size = group[-1].index + 1
        async with self._moved:
            self._moved.notify_all()
