# SPDX-License-Identifier: AGPL-3.0-or-later
"""One run of a trio program in a thread of its own, seen from asyncio.

A thread of its own and not trio's guest mode: a handler that blocks the asyncio loop for two seconds then delays the
answers to a peer's heartbeat by less than 0.1 s, where guest mode delays them by the two seconds.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import trio

T = TypeVar("T")


class TrioThread:
    """Run ``main`` under trio in a thread. To be made on the asyncio loop; one run each.

    Args:
        main: the trio program; calls ``ready`` once it has started.
        name: of the thread.
    """

    def __init__(self, main: Callable[[TrioThread], Awaitable[None]], name: str) -> None:
        self._main = main
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[BaseException | None] = self._loop.create_future()
        self._token: trio.lowlevel.TrioToken | None = None
        self._scope = trio.CancelScope()

    async def start(self) -> None:
        """Start the thread and wait until the program is ready.

        Raises:
            Exception: whatever the program raised before.
        """
        threading.Thread(target=self._target, name=self._name, daemon=True).start()
        await self._ready

    def ready(self) -> None:
        """Tell asyncio that the program has started. From trio."""
        self.to_asyncio(_resolve, self._ready, None)

    async def ended(self) -> BaseException | None:
        """Wait for the end of the program; answers what it raised. From asyncio."""
        return await asyncio.shield(self._ended)

    def cancel(self) -> None:
        """Cancel the program. From asyncio."""
        self.to_trio(self._scope.cancel)

    def to_trio(self, call: Callable[..., object], *arguments: object) -> None:
        """Call a plain function soon in the thread; nothing happens if it has ended. From any thread."""
        if self._token is None:
            return
        try:
            self._token.run_sync_soon(call, *arguments)
        except trio.RunFinishedError:
            return

    def to_asyncio(self, call: Callable[..., object], *arguments: object) -> None:
        """Call a plain function soon on the asyncio loop; nothing happens if that is closed. From any thread."""
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:
            return

    async def await_asyncio(self, call: Callable[[], asyncio.Future[T]]) -> T:
        """Start something on the asyncio loop and wait for its end, cancelled or not. From trio.

        Raises:
            Exception: what it raised; ``asyncio.CancelledError`` if it was cancelled there.
        """
        done = trio.Event()
        started: list[asyncio.Future[T]] = []

        def start() -> None:
            started.append(call())
            started[0].add_done_callback(lambda _: self.to_trio(done.set))

        self.to_asyncio(start)
        with trio.CancelScope(shield=True):
            await done.wait()
        return started[0].result()

    def _target(self) -> None:
        error: BaseException | None = None
        try:
            trio.run(self._run)
        except BaseException as raised:  # noqa: BLE001 - handed to asyncio, which decides
            error = raised
        self.to_asyncio(self._end, error)

    async def _run(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        with self._scope:
            await self._main(self)

    def _end(self, error: BaseException | None) -> None:
        if not self._ready.done():
            self._ready.set_exception(
                error if isinstance(error, Exception) else RuntimeError("ended before it was ready")
            )
        _resolve(self._ended, error)


def _resolve(future: asyncio.Future[Any], result: object) -> None:
    if not future.done():
        future.set_result(result)
