# SPDX-License-Identifier: AGPL-3.0-or-later
"""The whole node over HTTP: `ecot-node serve` as a process of its own, entries posted by wrk.

Each sample begins with a fresh copy of a folder that holds the founding and the members, so that the same signed
entries serve them all. A sample counts only if the node's checkpoint says that all that was answered is recorded.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final

import population
import quiet
import server_process
import spying
import wrk
from figures import Figures
from population import Population

PATH: Final = "/v1/entries"
BATCH: Final = 100
TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")
SPY_S: Final = 4


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One figure: who posts what to a node on which cores.

    Attributes:
        name: of the figure.
        batch: entries of a request.
        connections: that post at the same time.
        server_cores: of the node.
        load_cores: of wrk.
        workers: processes of the node that check signatures.
    """

    name: str
    batch: int
    connections: int
    server_cores: tuple[int, ...]
    load_cores: tuple[int, ...]
    workers: int


def plans() -> tuple[Plan, ...]:
    """Return what is measured: the node on one core and wrk on another, then both on all cores."""
    cores = quiet.cores()
    one = partial(Plan, server_cores=cores[:1], load_cores=cores[-1:], workers=0)
    both = partial(Plan, server_cores=cores, load_cores=cores)
    return (
        one(name="single_c1", batch=1, connections=1),
        one(name="single_c64", batch=1, connections=64),
        one(name="single_c256", batch=1, connections=256),
        one(name="batch_c8", batch=BATCH, connections=8),
        both(name="single_c64_2_cores", batch=1, connections=64, workers=0),
        both(name="batch_c8_2_cores", batch=BATCH, connections=8, workers=2),
    )


@dataclass
class Runs:
    """What the samples of a plan gave, besides their rate."""

    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)


class Bodies:
    """Requests of one entry and of `BATCH`, made of the same signed entries."""

    def __init__(self, folder: Path, entries: list[bytes]) -> None:
        self.paths = {1: folder / "singles", BATCH: folder / "batches"}
        self.counts = {
            1: wrk.write_bodies(self.paths[1], population.as_singles(entries)),
            BATCH: wrk.write_bodies(self.paths[BATCH], population.as_batches(entries, BATCH)),
        }


def measure_http(
    figures: Figures, people: Population, founded: Path, bodies: Bodies, seconds: float, rounds: int
) -> None:
    """Measure every plan: entries a second, latencies, CPU of the node; and where the CPU goes on one core."""
    for plan in plans():
        runs = Runs()
        try:
            once = partial(_run, plan, people, founded, bodies, seconds, runs)
            samples = [quiet.measure(once) for _ in range(rounds)]
        except (RuntimeError, wrk.LoadFailed) as error:
            figures.skip(plan.name, str(error))
            continue
        figures.add(plan.name, "1/s", samples, f"{plan.batch} a request, {plan.connections} connections")
        figures.add_plain(f"{plan.name}_p50", "ms", median(runs.p50_ms))
        figures.add_plain(f"{plan.name}_p99", "ms", median(runs.p99_ms))
        figures.add_plain(f"{plan.name}_cpu", "µs", median(runs.cpu_us), "CPU of the node per entry")
        if plan.name in ("single_c64", "batch_c8"):
            breakdown = _break_down(plan, founded, bodies, seconds)
            if breakdown:
                figures.breakdowns[f"{plan.name}_breakdown"] = breakdown


def _run(plan: Plan, people: Population, founded: Path, bodies: Bodies, seconds: float, runs: Runs) -> float:
    with node(founded, plan.server_cores, plan.workers) as (process, port):
        cpu_before_s = quiet.tree_cpu_s(process.pid)
        load = _post(plan, port, bodies, seconds)
        cpu_s = quiet.tree_cpu_s(process.pid) - cpu_before_s
        recorded = log_size(port) - people.base_size
    if recorded < load.requests * plan.batch:
        raise wrk.LoadFailed(f"{load.requests * plan.batch} entries answered, {recorded} recorded")
    if load.requests >= bodies.counts[plan.batch]:
        raise wrk.LoadFailed("too few bodies were signed")
    runs.p50_ms.append(load.p50_ms)
    runs.p99_ms.append(load.p99_ms)
    runs.cpu_us.append(cpu_s / recorded * 1e6)
    return load.per_s * plan.batch


def _post(plan: Plan, port: int, bodies: Bodies, seconds: float) -> wrk.Load:
    url = f"http://127.0.0.1:{port}"
    return wrk.run(
        url, PATH, bodies.paths[plan.batch], connections=plan.connections, seconds=seconds, cores=plan.load_cores
    )


def _break_down(plan: Plan, founded: Path, bodies: Bodies, seconds: float) -> dict[str, float]:
    """Return where the CPU of a plan goes, µs per entry, as py-spy sees it in a run of its own."""
    with node(founded, plan.server_cores, plan.workers) as (process, port):
        size, cpu_s, main_s = log_size(port), quiet.tree_cpu_s(process.pid), _main_thread_s(process.pid)
        with spying.watching(process.pid, seconds) as stacks:
            _post(plan, port, bodies, seconds)
        count = log_size(port) - size
        cpu_s, main_s = quiet.tree_cpu_s(process.pid) - cpu_s, _main_thread_s(process.pid) - main_s
    return spying.share_out(stacks, main_us=main_s / count * 1e6, others_us=(cpu_s - main_s) / count * 1e6)


def _main_thread_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/task/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) * TICK_S


@contextmanager
def node(founded: Path, cores: Sequence[int], workers: int) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    """Run a node on a copy of a founded folder; yield its process and its port."""
    port = server_process.free_port()
    folder = founded.with_name(f"node-{time.time_ns()}")
    shutil.copytree(founded, folder)
    environment = {
        **os.environ,
        "ECOT_NODE_HTTP__PORT": str(port),
        "ECOT_NODE_LEDGER__SIGNATURE_WORKERS": str(workers),
    }
    command = (sys.executable, "-m", "ecot_node", "serve", folder)
    try:
        with server_process.running(
            command, port=port, ready="/readyz", cores=cores, env=environment, errors=folder.with_suffix(".log")
        ) as process:
            yield process, port
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def log_size(port: int) -> int:
    """Return how many records the node's own checkpoint covers."""
    status, note = server_process.get(port, "/log/checkpoint")
    assert status == 200, f"the checkpoint answers {status}"
    return int(note.split(b"\n")[1])


def measure_start(figures: Figures, big: Path, count: int) -> None:
    """Measure `start_node`: from the start of the process to an answer, with a big log and its snapshot and views."""

    def once() -> float:
        started = time.perf_counter()
        with node_in_place(big):
            return time.perf_counter() - started

    node_in_place_first = quiet.measure(once, tries=1)  # brings the views up to the log
    figures.add("start_node_first", "s", [node_in_place_first], f"{count:,} entries, views rebuilt")
    figures.add("start_node", "s", [quiet.measure(once)], f"{count:,} entries, snapshot and views are there")


@contextmanager
def node_in_place(folder: Path) -> Iterator[None]:
    """Run a node on a folder itself."""
    port = server_process.free_port()
    environment = {**os.environ, "ECOT_NODE_HTTP__PORT": str(port)}
    command = (sys.executable, "-m", "ecot_node", "serve", folder)
    errors = folder.with_suffix(".log")
    with server_process.running(
        command, port=port, ready="/readyz", cores=quiet.cores(), env=environment, errors=errors
    ):
        yield
