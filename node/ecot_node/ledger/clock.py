# SPDX-License-Identifier: AGPL-3.0-or-later
"""The writer's clock: milliseconds that never go back, and a stop when the machine's clock jumps.

The wall clock is compared with the monotonic one since the start (or since an operator confirmed): where they part by
`JUMP_LIMIT_MS`, somebody set the clock, or the machine slept, and no deadline may be judged until an operator has
looked. Slow corrections (NTP slewing) move both clocks alike.
"""

import time
from collections.abc import Callable
from typing import Final

JUMP_LIMIT_MS: Final = 60_000


def wall_ms() -> int:
    """Return the wall clock in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def monotonic_ms() -> int:
    """Return a clock that nobody can set, in milliseconds from an unknown beginning."""
    return time.monotonic_ns() // 1_000_000


class RecordClock:
    """Times for records.

    Args:
        newest_ms: time of the newest record.
        wall: reads the wall clock, milliseconds since 1970.
        monotonic: reads the monotonic clock, milliseconds.
    """

    def __init__(
        self, newest_ms: int, wall: Callable[[], int] = wall_ms, monotonic: Callable[[], int] = monotonic_ms
    ) -> None:
        self._newest_ms = newest_ms
        self._wall, self._monotonic = wall, monotonic
        self._offset_ms = wall() - monotonic()
        self._is_confirmed = wall() + JUMP_LIMIT_MS >= newest_ms

    @property
    def has_jumped(self) -> bool:
        """Tell whether the clock can't be trusted until `confirm`."""
        parted_ms = abs(self._wall() - self._monotonic() - self._offset_ms)
        if parted_ms >= JUMP_LIMIT_MS:
            self._is_confirmed = False
        return not self._is_confirmed

    def confirm(self) -> None:
        """Take the wall clock as right from now on: an operator has looked."""
        self._offset_ms = self._wall() - self._monotonic()
        self._is_confirmed = True

    def wall_ms(self) -> int:
        """Return the wall clock, milliseconds since 1970; it may go back."""
        return self._wall()

    def next_ms(self) -> int:
        """Return the time for the next record: now, but never before the newest."""
        self._newest_ms = max(self._newest_ms, self._wall())
        return self._newest_ms

    def follow(self, newest_ms: int) -> None:
        """Continue after a record of this time (the state was rebuilt)."""
        self._newest_ms = newest_ms
