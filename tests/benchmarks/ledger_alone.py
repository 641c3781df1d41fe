# SPDX-License-Identifier: AGPL-3.0-or-later
"""The ledger without HTTP: the writer alone, the lag of views, replay, start-up and proofs on a big log.

One log of `count` transfers is written first, by the writer itself, and serves all that follows.
"""

import asyncio
import gc
import multiprocessing
import os
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Final, TypeVar

import quiet
import uvloop
from figures import Figures
from population import Population, decode_all

from ecot_node.domains.database import ViewsDatabase
from ecot_node.ledger import boot
from ecot_node.ledger.signatures import verify_signatures
from ecot_node.ledger.tree import prove
from ecot_node.ledger.verify import Verified, verify_log
from ecot_node.ledger.writer import Writer
from ecot_node.store.sqlite import SqliteStore
from ecot_protocol.machine import Machine
from ecot_protocol.state import State
from ecot_protocol.wire.entry import Entry, leaf_data
from ecot_protocol.wire.merkle import inclusion_proof, leaf_hash, verify_inclusion

T = TypeVar("T")
WRITER_BATCH: Final = 100
WRITER_CALLERS: Final = 16
LAG_BATCH: Final = 100
LAG_CALLERS: Final = 4
LAG_LOOK_S: Final = 0.001
PROOFS: Final = 1_000
SNAPSHOTS: Final = "snapshots"


def run(work: Awaitable[T]) -> T:
    """Run a coroutine on the node's own kind of loop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)  # type: ignore[arg-type]


@asynccontextmanager
async def writing(writer: Writer) -> AsyncIterator[Writer]:
    """Start and stop a writer."""
    await writer.start()
    try:
        yield writer
    finally:
        await writer.stop()


def measure_writer(figures: Figures, people: Population, raw: list[bytes], scratch: Path) -> None:
    """Measure `writer_alone` (one core, signatures checked, SQLite, no views) and `writer_cpu`."""
    cpu_us: list[float] = []

    def once() -> float:
        folder = scratch / f"writer-{len(cpu_us)}"
        entries = decode_all(raw)
        used_s, rate = _on_core(lambda: run(_write(people, folder, entries)))
        cpu_us.append(used_s / len(entries) * 1e6)
        return rate

    samples = [quiet.measure(once) for _ in range(3)]
    figures.add("writer_alone", "1/s", samples, f"batches of {WRITER_BATCH}, {WRITER_CALLERS} callers, one core")
    figures.add_plain("writer_cpu", "µs", median(cpu_us), "CPU per entry, store thread included")


def _on_core(action: Callable[[], T]) -> tuple[float, T]:
    """Run on one core, without the collector's pauses for what the benchmark keeps; return (CPU seconds, result)."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, quiet.cores()[:1])
    gc.collect()
    gc.freeze()
    started = time.process_time()
    try:
        result = action()
    finally:
        used_s = time.process_time() - started
        gc.unfreeze()
        os.sched_setaffinity(0, allowed)
    return used_s, result


async def _write(people: Population, folder: Path, entries: Sequence[Entry]) -> float:
    people.make_folder(folder)
    await people.fill(folder)
    async with writing(people.make_writer(folder)) as writer:
        started = time.perf_counter()
        await _submit_all(writer, entries, WRITER_BATCH, WRITER_CALLERS)
        seconds = time.perf_counter() - started
        assert writer.status().size == people.base_size + len(entries), "every entry is recorded"
    return len(entries) / seconds


async def _submit_all(
    writer: Writer,
    entries: Sequence[Entry],
    batch: int,
    callers: int,
    on_reply: "Callable[[int], Awaitable[None]] | None" = None,
) -> None:
    starts = iter(range(0, len(entries), batch))

    async def call() -> None:
        for start in starts:
            reply = await writer.submit(entries[start : start + batch])
            if on_reply is not None and reply.start is not None:
                await on_reply(reply.start + len(reply.outcomes) - 1)

    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(call())


def measure_views_lag(figures: Figures, people: Population, raw: list[bytes], scratch: Path) -> None:
    """Measure `views_lag_p50` and `views_lag_p99`: from a receipt to the views showing its entry, under full load."""
    entries = decode_all(raw)
    sample = quiet.measure(lambda: run(_lag(people, scratch / f"lag-{time.time_ns()}", entries)))
    lags_ms = sample.value
    percentiles = quantiles(lags_ms, n=100)
    note = f"{LAG_CALLERS} callers, batches of {LAG_BATCH}, as fast as the writer takes them"
    figures.add("views_lag_p50", "ms", [quiet.Sample(percentiles[49], sample.others_cores)], note)
    figures.add("views_lag_p99", "ms", [quiet.Sample(percentiles[98], sample.others_cores)], note)


async def _lag(people: Population, folder: Path, entries: Sequence[Entry]) -> list[float]:
    people.make_folder(folder)
    await people.fill(folder)
    views = ViewsDatabase(folder)
    await views.open()
    lags_ms: list[float] = []
    receipts: deque[tuple[int, float]] = deque()
    async with writing(people.make_writer(folder, views=views)) as writer:

        async def replied(index: int) -> None:
            receipts.append((index, time.perf_counter()))

        async def look() -> None:
            # Not by asking to wait, which makes the views hurry: as a reader that comes by.
            while len(lags_ms) < len(entries) // LAG_BATCH:
                now, shown = time.perf_counter(), writer.status().views_size
                while receipts and receipts[0][0] < shown:
                    lags_ms.append((now - receipts.popleft()[1]) * 1000)
                await asyncio.sleep(LAG_LOOK_S)

        await asyncio.gather(_submit_all(writer, entries, LAG_BATCH, LAG_CALLERS, replied), look())
    await views.close()
    return lags_ms


async def write_big_log(people: Population, folder: Path, raw: list[bytes]) -> None:
    """Record all transfers, then a seal with its snapshot."""
    people.make_folder(folder)
    await people.fill(folder)
    async with writing(people.make_writer(folder, snapshots=folder / SNAPSHOTS)) as writer:
        for start in range(0, len(raw), 100_000):
            await _submit_all(writer, decode_all(raw[start : start + 100_000]), 1_000, 2)
        await writer.seal()
        assert writer.status().size == people.base_size + len(raw) + 1, "every entry and the seal are recorded"


def measure_replay(figures: Figures, folder: Path) -> None:
    """Measure `replay_unchecked`, `replay_verified` (entries a second) and `replay_verified_time`."""
    for name, is_checked, workers in (("replay_unchecked", False, 0), ("replay_verified", True, len(quiet.cores()))):
        sample = quiet.measure(partial(_run_verify, folder, is_checked, workers), tries=2)
        seconds, verified = sample.value
        figures.add(name, "1/s", [quiet.Sample(verified.size / seconds, sample.others_cores)], f"{workers} workers")
        if is_checked:
            assert verified.signatures >= verified.size, "each entry has a signature, and it was checked"
            figures.add(
                "replay_verified_time", "s", [quiet.Sample(seconds, sample.others_cores)], f"{verified.size:,} entries"
            )


def _run_verify(folder: Path, is_checked: bool, workers: int) -> tuple[float, Verified]:
    return run(_verify(folder, is_checked, workers))


async def _verify(folder: Path, is_checked: bool, workers: int) -> tuple[float, Verified]:
    started = time.perf_counter()
    # Forked before the store has threads: a worker that is spawned would first import this whole program.
    context = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(workers, mp_context=context) if workers else None
    if pool is not None:
        pool.submit(verify_signatures, ()).result()
    store = SqliteStore(folder)
    opened = await store.open(ledger=None, read_only=True)
    try:
        verified = await verify_log(store, opened, Machine(), workers=pool, are_signatures_checked=is_checked)
        return time.perf_counter() - started, verified
    finally:
        if pool is not None:
            pool.shutdown()
        await store.close()


async def balances(folder: Path) -> dict[bytes, int]:
    """Return the barter balance of each member, by replay."""
    store = SqliteStore(folder)
    await store.open(ledger=None, read_only=True)
    state = State()

    async def ignore(_entries: object) -> None:
        return

    await boot.replay(Machine(), store, state, ignore)
    await store.close()
    return {key.owner: row.balance_minor for key, row in state.accounts.rows.items() if key.purpose == "barter"}


def measure_start(figures: Figures, people: Population, folder: Path) -> None:
    """Measure `start_snapshot` and `start_replay`: a writer opens the big log with and without its snapshot."""
    for name, snapshots in (("start_snapshot", folder / SNAPSHOTS), ("start_replay", None)):
        sample = quiet.measure(partial(_run_start, people, folder, snapshots), tries=2)
        figures.add(name, "s", [sample], "the ledger alone: open, rebuild, compare root and checkpoint")


def _run_start(people: Population, folder: Path, snapshots: Path | None) -> float:
    return run(_start(people, folder, snapshots))


async def _start(people: Population, folder: Path, snapshots: Path | None) -> float:
    writer = people.make_writer(folder, snapshots=snapshots)
    started = time.perf_counter()
    async with writing(writer):
        return time.perf_counter() - started


def measure_proofs(figures: Figures, people: Population, folder: Path) -> None:
    """Measure `inclusion_proof_p50` and `inclusion_proof_p99` at random places of the big log."""
    sample = quiet.measure(lambda: run(_prove(people, folder)))
    percentiles = quantiles(sample.value, n=100)
    figures.add("inclusion_proof_p50", "ms", [quiet.Sample(percentiles[49], sample.others_cores)])
    figures.add("inclusion_proof_p99", "ms", [quiet.Sample(percentiles[98], sample.others_cores)])


async def _prove(people: Population, folder: Path) -> list[float]:
    times_ms = []
    source = random.Random(1)
    async with writing(people.make_writer(folder, snapshots=folder / SNAPSHOTS)) as writer:
        edge = writer.edge()
        store = writer._store
        root = edge.frontier().root()
        for index in (source.randrange(edge.size) for _ in range(PROOFS)):
            started = time.perf_counter()
            proof = await prove(store, edge, lambda reader, i=index: inclusion_proof(reader, i, edge.size))  # type: ignore[misc]
            times_ms.append((time.perf_counter() - started) * 1000)
            row = await store.record(index)
            assert row is not None
            assert verify_inclusion(leaf_hash(leaf_data(row.record)), index, edge.size, proof, root)
    return times_ms
