# SPDX-License-Identifier: AGPL-3.0-or-later
"""An asyncio loop on a virtual clock, and processes in it that can end between any two steps.

- Time stands still while something is ready and then jumps to the next timer; nothing ever sleeps.
- One thread: what asks for an executor is done at once, and answered a little later.
- A `Process` is a context: each callback and task begun in it belongs to it. Once it has `end`ed, none of its callbacks
  runs any more, be it in the middle of a `finally`: as when the power goes. Its tasks are thrown away with the loop.

Two runs of one seed take the same steps: nothing here depends on addresses, hashes or the real time.
"""

import asyncio
import contextlib
import contextvars
import gc
import heapq
import random
import warnings
from asyncio import events
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

T = TypeVar("T")
PROCESS: Final[contextvars.ContextVar["Process"]] = contextvars.ContextVar("PROCESS")
STEPS_MAX: Final = 5_000_000
"""Steps of one history; more of them never end."""


class NeverEnds(AssertionError):
    """A history does not come to its end."""


class Process:
    """What ends together."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_alive = True
        self.context = contextvars.copy_context()
        self.context.run(PROCESS.set, self)

    def end(self) -> None:
        """Let no step of it run any more."""
        self.is_alive = False

    def spawn(self, loop: "VirtualLoop", work: Any, name: str | None = None) -> "asyncio.Task[Any]":
        """Begin a task of this process."""
        return loop.create_task(work, name=name, context=self.context)


class VirtualLoop(asyncio.BaseEventLoop):
    """See the module.

    Args:
        chance: of how long executors take.
    """

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self._chance = chance
        self._now_s = 0.0
        self.steps = 0
        self.after_step: Callable[[], None] | None = None
        self.raised: list[dict[str, Any]] = []
        self.errors: list[BaseException] = []
        """What tasks ended with, whether anybody looked or not."""
        self.begun: list[asyncio.Task[Any]] = []
        self.set_exception_handler(lambda _, context: self.raised.append(context))
        self.set_task_factory(self._make_task)

    def _make_task(self, loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> "asyncio.Task[Any]":
        task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, **options)
        task.add_done_callback(self._keep_error)
        self.begun.append(task)
        if len(self.begun) > 2_000:
            self.begun = [one for one in self.begun if not one.done()]
        return task

    def _keep_error(self, task: "asyncio.Task[Any]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.errors.append(error)

    def time(self) -> float:
        return self._now_s

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> "asyncio.Future[T]":
        future: asyncio.Future[T] = self.create_future()
        self.call_later(self._chance.choice((0.0, 0.0005, 0.004)), self._execute, future, func, args)
        return future

    @staticmethod
    def _execute(future: "asyncio.Future[Any]", func: Callable[..., Any], args: tuple[Any, ...]) -> None:
        if future.done():
            return
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001  it belongs to whoever asked
            future.set_exception(error)

    def _process_events(self, event_list: Any) -> None:
        """Nobody but the virtual clock brings events."""

    def _write_to_self(self) -> None:
        """Nobody sleeps."""

    def _run_once(self) -> None:
        ready, scheduled = self._ready, self._scheduled  # type: ignore[attr-defined]
        if not ready:
            if not scheduled:
                raise NeverEnds("nothing will ever happen any more")
            timer = heapq.heappop(scheduled)
            timer._scheduled = False
            if timer._cancelled:
                return
            self._now_s = max(self._now_s, timer._when)
            ready.append(timer)
        for _ in range(len(ready)):
            handle = ready.popleft()
            process = None if handle._cancelled else handle._context.get(PROCESS)
            if handle._cancelled or (process is not None and not process.is_alive):
                continue
            self.steps += 1
            handle._run()
            if self.after_step is not None:
                self.after_step()
        if self.steps > STEPS_MAX:
            raise NeverEnds(f"{self.steps} steps and no end")

    def sweep(self) -> None:
        """End what is left: the tasks of processes that ended, unseen and unheard, and then the others."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for task in self.begun:
                if not task.done():
                    task._log_destroy_pending = False  # type: ignore[attr-defined]
                    with contextlib.suppress(BaseException):
                        task.get_coro().close()  # type: ignore[union-attr]
            self.begun.clear()
            self.close()


@contextlib.contextmanager
def virtual_loop(chance: random.Random) -> Iterator[VirtualLoop]:
    """Give a loop that is swept at the end. Garbage is collected between histories alone."""
    gc.disable()
    loop = VirtualLoop(chance)
    try:
        yield loop
    finally:
        loop.sweep()
        gc.enable()


def run(loop: VirtualLoop, work: Any) -> Any:
    """Run a coroutine to its end."""
    before = events._get_running_loop()
    events._set_running_loop(None)
    try:
        return loop.run_until_complete(work)
    finally:
        events._set_running_loop(before)
