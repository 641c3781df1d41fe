# SPDX-License-Identifier: AGPL-3.0-or-later
"""Federations of whole nodes on disks, networks and clocks that fail: no credit is lost, no record undone."""

import asyncio
import os
import subprocess
import sys
import time

import pytest
from federation_kit import FederatedKit
from found_seeds import found_seeds
from ledger_kit import Actor
from lying_world import LyingWorld
from node_world import CHAOS_S, SimNode, World

from ecot_node.federation.port import PeerId
from ecot_node.federation.service import FederationService
from ecot_node.store.port import CommitGroup
from ecot_node.store.sqlite import SqliteStore
from ecot_protocol.domains.federation.messages import Promised, decode_message, encode_message
from ecot_protocol.domains.federation.outputs import Append
from ecot_protocol.domains.federation.sighting_messages import is_sighting

SEEDS = range(10_000, 10_300)
LYING_SEEDS = range(10_000, 10_060)
BATCH = 10
LONG_S = 3_000
"""Time of the long test; as many histories as fit, at most `LONG_COUNT`."""
LONG_COUNT = 100_000


def live_through(number: int, make: type[World] = World) -> World:
    world = make(number)
    try:
        return world.run()
    except BaseException as error:
        error.add_note(f"federation of whole nodes, seed {number}; its last events:\n" + "\n".join(world.story[-15:]))
        raise


@pytest.mark.parametrize("start", range(SEEDS.start, SEEDS.stop, BATCH))
def test_every_history_ends_well(start: int) -> None:
    for number in range(start, start + BATCH):
        live_through(number)


@pytest.mark.long  # seeds 10008 and 10030 fail: a restart in the middle, see docs/reliability.md
@pytest.mark.parametrize("start", range(LYING_SEEDS.start, LYING_SEEDS.stop, BATCH))
def test_a_lying_partner_harms_nobody_beyond_its_limits(start: int) -> None:
    for number in range(start, start + BATCH):
        live_through(number, LyingWorld)


def test_the_liar_lies() -> None:
    events: dict[str, int] = {}
    for number in range(6):
        for what, count in live_through(number, LyingWorld).events.items():
            events[what] = events.get(what, 0) + count
    for kind in ("silence", "replay", "damage", "forge", "unasked", "flood"):
        assert events[f"lie {kind}"] > 5, events
    assert events["forks proven"] > 5
    assert events["resolved commit"] > 10


@pytest.mark.parametrize("number", found_seeds("nodes"))
def test_a_history_that_found_something_ends_well(number: int) -> None:
    live_through(number)


def test_the_histories_are_not_empty() -> None:
    events: dict[str, int] = {}
    told = ""
    for number in range(25):
        world = live_through(number)
        told += "\n".join(world.story)
        for what, count in world.events.items():
            events[what] = events.get(what, 0) + count
    assert events["resolved commit"] > 50
    assert events["resolved abort"] > 5
    assert events["paid over 2"] > 5
    assert events["rounds"] > 0
    for what in ("lost its power at operation", "was killed", "dies for ever", "is started again", "not started"):
        assert what in told, what


def test_a_seed_is_a_history_to_the_last_byte() -> None:
    digests = [live_through(number).digest for number in range(3)]
    assert len(set(digests)) == 3
    program = "from node_world import World\nfor number in range(3): print(World(number).run().digest)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "77"}
    ran = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert [line for line in ran.stdout.split() if len(line) == 64] == digests


# ------------------------------------------------------------------------------------ what is wrong is found out


def found_out(make: type[World], count: int, *codes: str) -> int:
    """Return how many histories of a federation that is built wrongly break one of these invariants."""
    found = 0
    for number in range(count):
        try:
            make(number).run()
        except AssertionError as error:
            found += str(error).startswith(codes)
    return found


class UnsyncedWorld(World):
    """Nodes whose stores trust the operating system."""

    def __init__(self, number: int) -> None:
        super().__init__(number, pragmas=("PRAGMA synchronous = OFF",))


def test_nodes_that_do_not_sync_are_found_out() -> None:
    assert found_out(UnsyncedWorld, 20, "D", "P") > 1


class HastyStore(SqliteStore):
    """Says that a group is durable as soon as it was asked for."""

    async def commit(self, group: CommitGroup) -> None:
        writer = self._require_writer()
        submit = writer.submit
        try:
            writer.submit = lambda work: _done(submit(work))  # type: ignore[method-assign, assignment]
            await super().commit(group)
        finally:
            writer.submit = submit  # type: ignore[method-assign]


async def _done(future: object) -> None:
    future.add_done_callback(lambda one: one.cancelled() or one.exception())  # type: ignore[attr-defined]


class HastyWorld(World):
    """Nodes that acknowledge before they have committed, on slow disks."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.slow_probability = 0.5

    def store_of(self, node: SimNode) -> SqliteStore:
        return HastyStore(super().store_of(node)._folder, node.host)


def test_nodes_that_acknowledge_before_they_commit_are_found_out() -> None:
    assert found_out(HastyWorld, 20, "D", "P", "the courier asks for durable records") > 10


class TimeoutNode(SimNode):
    """What the design rejects: the payee's ledger posts when it has promised and says so; the payer's posts when it
    hears of it, or gives up at the earliest abort by its own clock."""

    def make_service(self) -> FederationService:
        made = super().make_service()
        append = made._append

        async def append_all_but_decisions(output: Append) -> None:
            if output.kind not in ("abort", "commit"):
                await append(output)

        made._append = append_all_but_decisions  # type: ignore[method-assign]
        take = self.transport.take

        def hear(sender: PeerId, raw: bytes) -> None:
            message = None if is_sighting(raw) else decode_message(raw)
            if isinstance(message, Promised) and message.tid in self.writer.state.federation.promises:
                self.conclude(message.tid, "commit")
            take(sender, raw)

        self.transport.take = hear  # type: ignore[method-assign]
        asyncio.get_running_loop().call_later(1.0, self.look_at_the_clock)
        return made

    def look_at_the_clock(self) -> None:
        for tid, row in [*self.writer.state.federation.promises.items()]:
            if row.role == "payee":
                self.conclude(tid, "commit")
                self.network_tell(row.partners[0], tid)
            elif self.wall_ms() >= row.earliest_abort_ms:
                self.conclude(tid, "abort")
        asyncio.get_running_loop().call_later(1.0, self.look_at_the_clock)

    def network_tell(self, ledger: bytes, tid: bytes) -> None:
        (target,) = (one for one in self.world.nodes if one.ledger == ledger)
        for _ in range(3):
            self.world.network.carry(self.peer_id, target.peer_id, encode_message(Promised(tid)))

    def conclude(self, tid: bytes, outcome: str) -> None:
        if tid not in self.outcomes:
            self.outcomes[tid] = outcome
            try:
                self.world.resolved(self, tid, outcome)
            except AssertionError as error:
                self.world.failures.append(error)


class TimeoutWorld(World):
    """A federation whose nodes decide by their clocks, without crashes and faults."""

    def make_node(self, kit: FederatedKit, member: Actor, image: dict[str, bytes]) -> SimNode:
        return TimeoutNode(self, kit, member, image)

    def plan(self) -> None:
        for _ in range(8):
            self.later(self.chance.uniform(0.5, CHAOS_S), self.pay)
        for _ in range(3):
            self.later(self.chance.uniform(0.5, CHAOS_S), self.cut_for_long)

    def cut_for_long(self) -> None:
        one, other = self.chance.sample(self.nodes, 2)
        self.network.cut(one.peer_id, other.peer_id, self.chance.uniform(50.0, 120.0))

    async def live(self) -> None:
        for node in self.nodes:
            node.boot()
        self.plan()
        await self.until(3 * CHAOS_S)


def test_nodes_that_decide_by_their_clocks_are_found_out() -> None:
    assert found_out(TimeoutWorld, 30, "P2") > 0


@pytest.mark.long
def test_many_histories_end_well(capsys: pytest.CaptureFixture[str]) -> None:
    end, count = time.monotonic() + LONG_S, 0
    while count < LONG_COUNT and time.monotonic() < end:
        live_through(1_000_000 + count, LyingWorld if count % 4 == 3 else World)
        count += 1
    with capsys.disabled():
        print(f"\n{count} histories of whole nodes")
    assert count > 100
