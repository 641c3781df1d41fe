# SPDX-License-Identifier: AGPL-3.0-or-later
"""Samples on a machine that may not be ours alone, and where processes may run.

A sample is taken when others use little of the machine, and taken again if others used more than `OTHERS_LIMIT_CORES`
during it. Others = what the machine was busy with (time stolen by the hypervisor included) less what this process and
its descendants used. Where no sample is quiet, the least disturbed one counts, and says so.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, TypeVar

T = TypeVar("T")

OTHERS_LIMIT_CORES: Final = 0.2
CALM_CORES: Final = 0.15
CALM_LOOK_S: Final = 0.3
CALM_TRIES: Final = 10
SAMPLE_TRIES: Final = 3
LATE_AFTER_S: Final = 13 * 60.0
"""From then on nothing is waited for or taken again, so that a whole run ends within 20 minutes on a busy machine."""
_STARTED: Final = time.monotonic()
_TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Sample(Generic[T]):
    """A measured value, and how many cores others used meanwhile."""

    value: T
    others_cores: float

    @property
    def is_quiet(self) -> bool:
        """Tell whether others were quiet enough."""
        return self.others_cores <= OTHERS_LIMIT_CORES


class Watch:
    """Tells what others use from its making on."""

    def __init__(self) -> None:
        self._busy_s, self._own_s, self._at = busy_s(), own_s(), time.perf_counter()

    def others_cores(self) -> float:
        """Return the mean number of cores that others used so far; never negative."""
        elapsed_s = max(time.perf_counter() - self._at, 1e-6)
        return max(0.0, (busy_s() - self._busy_s - (own_s() - self._own_s)) / elapsed_s)


def measure(action: Callable[[], T], *, tries: int = SAMPLE_TRIES) -> Sample[T]:
    """Run `action` until others left it alone, at most `tries` times; return the least disturbed run."""
    best: Sample[T] | None = None
    for _ in range(tries):
        if is_late() and best is not None:
            break
        wait_for_calm()
        watch = Watch()
        value = action()
        sample = Sample(value, watch.others_cores())
        if best is None or sample.others_cores < best.others_cores:
            best = sample
        if sample.is_quiet:
            break
    assert best is not None, "at least one try"
    return best


def is_late() -> bool:
    """Tell whether the run has taken so long that it must not wait any more."""
    return time.monotonic() - _STARTED > LATE_AFTER_S


def wait_for_calm() -> bool:
    """Wait, for seconds at most, until others use less than `CALM_CORES`; tell whether they do."""
    for _ in range(0 if is_late() else CALM_TRIES):
        watch = Watch()
        time.sleep(CALM_LOOK_S)
        if watch.others_cores() < CALM_CORES:
            return True
    return False


def busy_s() -> float:
    """Return how long all cores together have been busy or stolen, from /proc/stat."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) * _TICK_S


def own_s() -> float:
    """Return the CPU seconds of this process and its descendants, those that ended included."""
    return tree_cpu_s(os.getpid())


def tree_cpu_s(root: int) -> float:
    """Return the CPU seconds of a process and its descendants, those that it waited for included."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it ended while we looked
                continue
            parents[int(folder.name)] = int(fields[1])
            ticks[int(folder.name)] = sum(map(int, fields[11:15]))
    tree, grown = {root}, True
    while grown:
        found = {pid for pid, parent in parents.items() if parent in tree} - tree
        tree |= found
        grown = bool(found)
    return sum(ticks.get(pid, 0) for pid in tree) * _TICK_S


def thread_cpu_s(pid: int) -> dict[str, float]:
    """Return the CPU seconds of each thread of a process, by name; threads of one name are added up."""
    found: dict[str, float] = {}
    for folder in Path(f"/proc/{pid}/task").iterdir():
        name, _, rest = (folder / "stat").read_text().partition("(")[2].rpartition(")")
        found[name] = found.get(name, 0.0) + sum(map(int, rest.split()[11:13])) * _TICK_S
    return found


def cores() -> tuple[int, ...]:
    """Return the numbers of the cores that this process may use."""
    return tuple(sorted(os.sched_getaffinity(0)))


def on_cores(numbers: Sequence[int], *command: object) -> list[str]:
    """Return the command that runs `command` on those cores alone."""
    return ["taskset", "-c", ",".join(map(str, numbers)), *map(str, command)]
