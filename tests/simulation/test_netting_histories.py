# SPDX-License-Identifier: AGPL-3.0-or-later
"""Histories with whole rounds of clearing: whatever is lost, late or dead, nobody's net position changes."""

import pytest
from netting_world import NettingWorld

SEEDS = range(24)
BATCH = 4


def live_through(number: int) -> NettingWorld:
    world = NettingWorld(number)
    try:
        world.run()
    except AssertionError as error:
        raise AssertionError(f"seed {number}: {error}") from error
    return world


@pytest.mark.parametrize("start", range(0, len(SEEDS), BATCH))
def test_every_history_with_rounds_ends_well(start: int) -> None:
    for number in SEEDS[start : start + BATCH]:
        live_through(number)


def test_rounds_clear_members_debts_in_spite_of_it_all() -> None:
    worlds = [live_through(number) for number in range(100, 108)]
    assert sum(world.cleared for world in worlds) > 4


@pytest.mark.long
def test_many_histories_with_rounds_end_well() -> None:
    for number in range(10_000, 12_000):
        live_through(number)
