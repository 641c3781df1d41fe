# SPDX-License-Identifier: AGPL-3.0-or-later
"""The SQLite store on a disk that tears, loses and forgets: what was acknowledged is there, what is there is whole."""

import os
import random
import subprocess
import sys
import time

import pytest
import sim_vfs
from found_seeds import found_seeds
from sim_disk import Disk, Fault
from sim_loop import Process, run, virtual_loop
from sim_store import SimHost, make_store
from store_world import LEDGER, StoreWorld, new_image

from ecot_node.store import sqlite
from ecot_node.store.errors import StoreError

SEEDS = range(10_000, 10_400)
BATCH = 40
LONG_S = 1_200
"""Time of the long test; as many histories as fit, at most `LONG_COUNT`."""
LONG_COUNT = 100_000


def live_through(number: int) -> StoreWorld:
    try:
        return StoreWorld(number).run()
    except BaseException as error:
        error.add_note(f"store history of seed {number}")
        raise


@pytest.mark.parametrize("start", range(SEEDS.start, SEEDS.stop, BATCH))
def test_every_history_keeps_what_was_acknowledged(start: int) -> None:
    for number in range(start, start + BATCH):
        live_through(number)


@pytest.mark.parametrize("number", found_seeds("store"))
def test_a_history_that_found_something_ends_well(number: int) -> None:
    live_through(number)


def test_the_histories_are_not_empty() -> None:
    events: dict[str, int] = {}
    for number in range(40):
        for what, count in live_through(number).events.items():
            kind = what.split()[0]
            events[kind] = events.get(kind, 0) + count
    for kind in ("power_lost", "power_lost_idle", "killed", "closed", "failed", "reopened", "not_opened"):
        assert events.get(kind, 0) > 4, (kind, events)


def test_a_seed_is_a_history_to_the_last_byte() -> None:
    digests = [live_through(number).digest for number in range(5)]
    assert len(set(digests)) == 5
    program = "from store_world import StoreWorld\nfor number in range(5): print(StoreWorld(number).run().digest)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "77"}
    ran = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert [line for line in ran.stdout.split() if len(line) == 64] == digests


def failures(count: int, **options: object) -> int:
    """Return how many histories of a store that is wrong are found out."""
    found = 0
    for number in range(count):
        try:
            StoreWorld(number, **options).run()  # type: ignore[arg-type]
        except (AssertionError, StoreError) as error:
            found += "acknowledged" in str(error) or "whole writes" in str(error) or isinstance(error, StoreError)
    return found


@pytest.mark.parametrize("pragma", ["PRAGMA synchronous = OFF", "PRAGMA synchronous = NORMAL"])
def test_a_store_that_does_not_sync_is_found_out(pragma: str) -> None:
    assert failures(12, pragmas=(pragma,)) > 2


def test_a_store_that_answers_before_it_has_committed_is_found_out() -> None:
    assert failures(12, early_answers=True) > 2


# ------------------------------------------------------------------------------------ what was found, one by one


class TwoLives:
    """A store on a simulated disk, for two processes one after the other."""

    def __init__(self) -> None:
        self.disk = Disk(random.Random(1), 512)
        sim_vfs.mount("lives", self.disk)
        self.disk.load(new_image())

    def live(self, *meta: str, then: str, syncs_fail: bool = False) -> str:
        """Open, put values, and end: ``kill`` or ``lose_power``; returns what came of it."""
        host = SimHost("lives", random.Random(2))
        process = Process("lives")

        async def work() -> str:
            store = make_store(host)
            try:
                await store.open(ledger=LEDGER)
                for key in meta:
                    await store.meta_put(key, key.encode())
            except StoreError as error:
                await store.close()
                return type(error).__name__
            return " ".join([key for key in ("one", "two", "three") if await store.meta_get(key)])

        if syncs_fail:
            self.disk.plan = lambda _disk, operation, _name: Fault("forget") if operation == "sync" else None
        with virtual_loop(random.Random(3)) as loop:
            task = process.spawn(loop, work())
            told = run(loop, task)
            process.end()
        self.disk.plan = None
        host.slow_probability = 0
        getattr(self.disk, then)()
        host.sweep()
        return str(told)


def lives_with_failed_syncs() -> str:
    """One process whose syncs fail, as Linux fails them; one that goes on; a power loss; and what is left."""
    try:
        lives = TwoLives()
        lives.live("one", then="kill")
        lives.live("two", then="kill", syncs_fail=True)
        assert "three" in lives.live("three", then="lose_power")
        return lives.live(then="kill")
    finally:
        sim_vfs.unmount("lives")


def test_syncs_that_failed_in_an_earlier_process_lose_nothing_of_a_later_one() -> None:
    assert "three" in lives_with_failed_syncs()


def test_a_store_that_goes_on_with_the_wal_that_it_finds_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "_empty_wal", lambda _connection: None)
    assert "three" not in lives_with_failed_syncs()


@pytest.mark.long
def test_many_histories_keep_what_was_acknowledged(capsys: pytest.CaptureFixture[str]) -> None:
    end, count = time.monotonic() + LONG_S, 0
    while count < LONG_COUNT and time.monotonic() < end:
        live_through(1_000_000 + count)
        count += 1
    with capsys.disabled():
        print(f"\n{count} histories of the store")
    assert count > 1_000
