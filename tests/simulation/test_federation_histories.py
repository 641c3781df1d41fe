# SPDX-License-Identifier: AGPL-3.0-or-later
"""Histories of a federation with loss, repetition, cuts, crashes and wrong clocks: no credit is lost or doubled."""

import pytest
from federation_world import CHAOS_MS, TimeoutNode, World

from ecot_protocol.errors import RemoteProtocolError

SEEDS = range(150)
BATCH = 10
ROUND_SEED = next(number for number in range(100) if World(number).count == 3 and World(number).is_at_par)
PATH_SEED = next(number for number in range(100) if World(number).count == 4)


@pytest.mark.parametrize("start", range(0, len(SEEDS), BATCH))
def test_every_history_ends_well(start: int) -> None:
    for number in SEEDS[start : start + BATCH]:
        live_through(number)


def live_through(number: int) -> None:
    try:
        World(number).run()
    except AssertionError as error:
        raise AssertionError(f"seed {number}: {error}") from error


def test_the_histories_are_not_empty() -> None:
    outcomes: list[str] = []
    refusals: set[tuple[str, str]] = set()
    for number in range(12):
        world = World(number).run()
        outcomes += [one[0] for one in world.outcomes().values()]
        refusals |= set(world.refusals)
    assert outcomes.count("commit") > 10
    assert outcomes.count("abort") > 5
    assert refusals


def test_own_clocks_lose_money() -> None:
    """The same simulator finds what time-outs break: so it can find what is broken."""
    found = 0
    for number in range(100):
        world = World(number, TimeoutNode, with_crashes=False)
        world.loss = 0.8  # what is said until it is too late must get lost now and then
        try:
            world.run()
        except (AssertionError, RemoteProtocolError) as error:  # its states have changed beside their logs
            found += "P2" in str(error)
    assert 0 < found < 100


def one_transfer() -> World:
    """A federation of two without bad luck, and one transfer."""
    world = World(1)
    world.count, world.loss, world.start_ms = 2, 0.0, world.now - CHAOS_MS
    world.pay()
    return world


@pytest.mark.parametrize("node", [0, 1])
def test_a_crash_at_any_event_loses_nothing(node: int) -> None:
    calm = one_transfer()
    calm.live()
    assert calm.lived > 10
    for event in range(calm.lived):
        world = one_transfer().live((event, node))
        assert {one[0] for one in world.outcomes().values()} <= {"commit", "abort"}
        assert len(world.outcomes()) <= 1


def one_path(decider: int) -> World:
    """A federation of four without bad luck, and a transfer from the first over the second to the third."""
    world = World(PATH_SEED)
    world.loss, world.start_ms = 0.0, world.now - CHAOS_MS
    nodes = list(world.nodes.values())
    world.pay_over(nodes[:3], nodes[2].member.member, 500, nodes[decider])
    return world


@pytest.mark.parametrize("decider", range(4))
def test_a_crash_at_any_event_of_a_path_loses_nothing(decider: int) -> None:
    crash_on_path(decider, 7)


@pytest.mark.long
@pytest.mark.parametrize("decider", range(4))
def test_a_crash_at_every_event_of_a_path_loses_nothing(decider: int) -> None:
    crash_on_path(decider, 1)


def crash_on_path(decider: int, stride: int) -> None:
    """Crash each node before every `stride`-th event of the transfer."""
    calm = one_path(decider).live()
    assert [*calm.outcomes().values()] == [["commit"] * 3]
    for event in range(0, calm.lived, stride):
        for node in range(4):
            world = one_path(decider).live((event, node))
            assert {one[0] for one in world.outcomes().values()} <= {"commit", "abort"}
            assert len(world.outcomes()) <= 1


def one_round() -> World:
    """A federation of three without bad luck: each owes the next; now a round clears it."""
    world = World(ROUND_SEED)
    world.loss, world.start_ms = 0.0, world.now - CHAOS_MS
    nodes = list(world.nodes.values())
    for payer, payee in zip(nodes, (*nodes[1:], nodes[0]), strict=True):
        world.pay_to(payer, payee, payee.member.member, 500)
    world.live()
    raw = world.find_round()
    assert raw is not None
    nodes[0].do(nodes[0].courier.propose(raw, nodes[0].now))
    return world


def crash_in_round(stride: int) -> list[str]:
    """Crash each node before every `stride`-th event of the round; return how the rounds ended."""
    calm = one_round()
    calm.live(until_quiet_from=calm.now + 3_000)
    assert calm.check_round() == "commit"
    ends = []
    for event in range(0, calm.lived, stride):
        for node in range(3):
            world = one_round().live((event, node))
            ends.append(world.check_round())
    return ends


def test_a_crash_in_a_round_clears_all_of_it_or_nothing() -> None:
    assert "commit" in crash_in_round(9)


@pytest.mark.long
def test_a_crash_at_any_event_of_a_round_clears_all_of_it_or_nothing() -> None:
    assert "commit" in crash_in_round(1)


@pytest.mark.long
def test_many_histories_end_well() -> None:
    for number in range(1_000, 5_000):
        live_through(number)
