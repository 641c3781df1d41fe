# SPDX-License-Identifier: AGPL-3.0-or-later
"""What every transport keeps, checked on the in-memory twin and on libp2p alike."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest

from ecot_node.federation.framing import MESSAGE_BYTES_MAX, Hello, encode_frame
from ecot_node.federation.libp2p_host import Libp2pTransport
from ecot_node.federation.memory import Conditions, MemoryNetwork, MemoryTransport
from ecot_node.federation.port import (
    MessageTooLarge,
    PeerId,
    PeerUnreachable,
    SendQueueFull,
    SendTimedOut,
    Transport,
    TransportError,
    TransportLimits,
    UnknownPeer,
)
from ecot_protocol.errors import EcotError, LocalProtocolError, RemoteProtocolError

LIMITS = TransportLimits(
    send_queue_messages_max=2500,
    reconnect_first_s=0.1,
    reconnect_max_s=0.4,
    heartbeat_interval_s=0.3,
    heartbeat_timeout_s=2.0,
    dial_timeout_s=1.5,
)
PATIENCE_S = 10.0


def hello_of(name: str) -> bytes:
    return encode_frame(Hello(1, f"test-{name}", f"{name}.example/ecot/00", name.encode().ljust(32, b".")))


@dataclass
class Node:
    """A transport and what it has received."""

    name: str
    transport: Transport
    received: list[bytes] = field(default_factory=list)
    call_sizes: list[int] = field(default_factory=list)
    senders: set[PeerId] = field(default_factory=set)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    error: Exception | None = None

    async def deliver(self, peer_id: PeerId, messages: tuple[bytes, ...]) -> None:
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.received.extend(messages)
        self.call_sizes.append(len(messages))
        self.senders.add(peer_id)

    async def start(self) -> None:
        self.gate.set()
        await self.transport.start(self.deliver, hello_of(self.name))

    async def send(self, other: "Node", message: bytes, timeout_s: float = PATIENCE_S) -> None:
        await self.transport.send(other.transport.peer_id, message, timeout_s=timeout_s)

    def knows(self, other: "Node", addresses: tuple[str, ...] | None = None) -> None:
        given = other.transport.listen_addresses if addresses is None else addresses
        self.transport.set_peer(other.transport.peer_id, given)


class World:
    """Make nodes of one kind of transport; the same name gives the same id, and the same address once it has one."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.network = MemoryNetwork(seed=7)
        self.nodes: list[Node] = []
        self._addresses: dict[str, str] = {}

    def make(self, name: str, limits: TransportLimits = LIMITS) -> Node:
        node = Node(name, self._transport(name, limits))
        self.nodes.append(node)
        return node

    def _transport(self, name: str, limits: TransportLimits) -> Transport:
        if self.kind == "memory":
            return MemoryTransport(self.network, PeerId(name), limits=limits)
        seed = name.encode().ljust(32, b"-")
        address = self._addresses.get(name, "/ip4/127.0.0.1/tcp/0")
        return Libp2pTransport(identity_seed=seed, listen_addresses=[address], limits=limits, jitter_seed=1)

    async def started(self, name: str, limits: TransportLimits = LIMITS) -> Node:
        node = self.make(name, limits)
        await node.start()
        self._addresses[name] = node.transport.listen_addresses[0].partition("/p2p/")[0]
        return node

    async def pair(self, limits: TransportLimits = LIMITS) -> tuple[Node, Node]:
        """Return two started nodes that know each other."""
        alice, bob = await self.started("alice", limits), await self.started("bob", limits)
        alice.knows(bob)
        bob.knows(alice)
        return alice, bob


@pytest.fixture(params=["memory", "libp2p"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    made = World(request.param)
    yield made
    for node in made.nodes:
        node.gate.set()
        await node.transport.stop()


async def until(condition: Callable[[], bool]) -> None:
    """Wait, within bounds, for what other tasks or threads bring about."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in another thread
            await asyncio.sleep(0.01)


async def outcomes(*sends: asyncio.Future[None]) -> list[BaseException | None]:
    return await asyncio.gather(*sends, return_exceptions=True)


async def test_messages_arrive_both_ways(world: World) -> None:
    alice, bob = await world.pair()
    await alice.send(bob, b"to bob")
    await bob.send(alice, b"")
    await until(lambda: bob.received == [b"to bob"] and alice.received == [b""])
    assert (alice.senders, bob.senders) == ({bob.transport.peer_id}, {alice.transport.peer_id})


async def test_two_thousand_messages_arrive_in_order_and_in_batches(world: World) -> None:
    alice, bob = await world.pair()
    messages = [b"%d" % number for number in range(2000)]
    await asyncio.gather(*(alice.send(bob, message) for message in messages))
    await until(lambda: len(bob.received) >= len(messages))
    assert bob.received == messages
    assert len(bob.call_sizes) < len(messages) / 10


async def test_longest_messages_arrive_whole(world: World) -> None:
    alice, bob = await world.pair()
    messages = [bytes([number]) * MESSAGE_BYTES_MAX for number in range(8)]
    await asyncio.gather(*(alice.send(bob, message) for message in messages))
    await until(lambda: len(bob.received) == len(messages))
    assert bob.received == messages


async def test_status_tells_of_a_peer_that_answers(world: World) -> None:
    alice, bob = await world.pair()
    await alice.send(bob, b"x")
    status = alice.transport.status(bob.transport.peer_id)
    assert status.is_connected
    assert status.hello is not None
    assert status.hello.agent == "test-bob"
    assert status.queued_count == 0
    assert status.last_contact_age_ms is not None


async def test_send_to_unknown_peer_is_refused(world: World) -> None:
    alice, bob = await world.started("alice"), await world.started("bob")
    with pytest.raises(UnknownPeer):
        await alice.send(bob, b"x")
    with pytest.raises(UnknownPeer):
        alice.transport.status(bob.transport.peer_id)


async def test_unknown_peer_is_not_heard(world: World) -> None:
    alice, bob = await world.started("alice"), await world.started("bob")
    alice.knows(bob)
    with pytest.raises(PeerUnreachable) as refused:
        await alice.send(bob, b"x", timeout_s=0.8)
    assert refused.value.code == "unknown_peer"
    assert bob.received == []


async def test_peer_that_becomes_known_is_heard(world: World) -> None:
    alice, bob = await world.started("alice"), await world.started("bob")
    alice.knows(bob)
    with pytest.raises(PeerUnreachable):
        await alice.send(bob, b"too early", timeout_s=0.4)
    bob.knows(alice)
    await alice.send(bob, b"welcome")
    await until(lambda: bob.received == [b"welcome"])


async def test_peer_without_address_is_reached_once_it_calls(world: World) -> None:
    alice, bob = await world.started("alice"), await world.started("bob")
    bob.knows(alice, addresses=())
    with pytest.raises(PeerUnreachable):
        await bob.send(alice, b"no way", timeout_s=0.3)
    alice.knows(bob)
    await bob.send(alice, b"now")
    await until(lambda: alice.received == [b"now"])


async def test_removed_peer_is_neither_heard_nor_sent_to(world: World) -> None:
    alice, bob = await world.pair()
    await alice.send(bob, b"before")
    await until(lambda: bob.received == [b"before"])
    bob.transport.remove_peer(alice.transport.peer_id)
    with pytest.raises(UnknownPeer):
        await bob.send(alice, b"x")
    await until(lambda: not alice.transport.status(bob.transport.peer_id).is_connected)
    with pytest.raises(PeerUnreachable):
        await alice.send(bob, b"after", timeout_s=0.5)
    assert bob.received == [b"before"]


async def test_removing_a_peer_fails_what_waits_for_it(world: World) -> None:
    alice, bob = world.make("alice"), await world.started("bob")
    await alice.start()
    alice.knows(bob)  # bob doesn't know alice, so that this waits
    waiting = asyncio.ensure_future(alice.send(bob, b"x"))
    await asyncio.sleep(0.05)
    alice.transport.remove_peer(bob.transport.peer_id)
    (outcome,) = await outcomes(waiting)
    assert isinstance(outcome, PeerUnreachable)
    assert outcome.code == "peer_removed"


async def test_message_that_is_too_large_is_refused(world: World) -> None:
    alice, bob = await world.pair()
    with pytest.raises(MessageTooLarge):
        await alice.send(bob, bytes(MESSAGE_BYTES_MAX + 1))
    await alice.send(bob, b"next")
    await until(lambda: bob.received == [b"next"])


async def test_queue_takes_no_more_than_its_count(world: World) -> None:
    alice, bob = await world.started("alice", TransportLimits(send_queue_messages_max=3)), await world.started("bob")
    alice.knows(bob)
    results = await outcomes(*(asyncio.ensure_future(alice.send(bob, b"x", timeout_s=0.4)) for _ in range(5)))
    assert [type(result) for result in results] == [PeerUnreachable] * 3 + [SendQueueFull] * 2
    assert alice.transport.status(bob.transport.peer_id).queued_count == 0


async def test_queue_takes_no_more_than_its_bytes(world: World) -> None:
    alice, bob = await world.started("alice", TransportLimits(send_queue_bytes_max=10)), await world.started("bob")
    alice.knows(bob)
    sizes = [6, 6, 4]
    sends = (asyncio.ensure_future(alice.send(bob, bytes(size), timeout_s=0.4)) for size in sizes)
    results = await outcomes(*sends)
    assert [type(result) for result in results] == [PeerUnreachable, SendQueueFull, PeerUnreachable]


async def test_slow_receiver_holds_the_sender_back_and_loses_nothing(world: World) -> None:
    alice, bob = await world.pair()
    bob.gate.clear()
    messages = [b"%d" % number + bytes(100_000) for number in range(80)]  # twice the window of bytes
    sends = [asyncio.ensure_future(alice.send(bob, message)) for message in messages]
    await asyncio.sleep(0.7)
    assert not all(send.done() for send in sends)
    bob.gate.set()
    assert await outcomes(*sends) == [None] * len(sends)
    await until(lambda: len(bob.received) == len(messages))
    assert bob.received == messages
    assert alice.transport.status(bob.transport.peer_id).error_count == 0


async def test_receiver_that_takes_nothing_makes_sends_time_out(world: World) -> None:
    alice, bob = await world.pair()
    await alice.send(bob, b"first")
    bob.gate.clear()
    sends = [asyncio.ensure_future(alice.send(bob, bytes(250_000), timeout_s=1.0)) for _ in range(40)]
    failed = [result for result in await outcomes(*sends) if result is not None]
    assert failed
    assert {type(result) for result in failed} == {SendTimedOut}
    assert alice.transport.status(bob.transport.peer_id).queued_count == 0


async def test_delivery_that_fails_is_counted_and_traffic_resumes(world: World) -> None:
    alice, bob = await world.pair()
    bob.error = EcotError("the layer above is not ready")
    await alice.send(bob, b"lost")
    await until(lambda: bob.transport.status(alice.transport.peer_id).error_count > 0)
    bob.error = None
    await until(lambda: alice.transport.status(bob.transport.peer_id).last_error == "delivery_failed")
    await alice.send(bob, b"kept")
    await until(lambda: bob.received == [b"kept"])


async def test_peer_restarts_on_its_address_and_traffic_resumes(world: World) -> None:
    alice, bob = await world.pair()
    await alice.send(bob, b"first")
    await until(lambda: bob.received == [b"first"])
    address = bob.transport.listen_addresses
    await bob.transport.stop()
    await until(lambda: not alice.transport.status(bob.transport.peer_id).is_connected)
    with pytest.raises(PeerUnreachable):
        await alice.send(bob, b"down", timeout_s=0.3)
    again = await world.started("bob")
    assert again.transport.listen_addresses == address
    again.knows(alice)
    await alice.send(again, b"second")
    await again.send(alice, b"third")
    await until(lambda: again.received == [b"second"] and alice.received == [b"third"])


async def test_peer_that_stops_while_we_send_leaves_a_prefix(world: World) -> None:
    alice, bob = await world.pair()
    await alice.send(bob, b"0")
    sends = [asyncio.ensure_future(alice.send(bob, b"%d" % number, timeout_s=1.0)) for number in range(1, 2000)]
    await asyncio.sleep(0)
    await bob.transport.stop()
    results = await outcomes(*sends)
    assert {type(result) for result in results} <= {type(None), PeerUnreachable, SendTimedOut}
    assert bob.received == [b"%d" % number for number in range(len(bob.received))]


async def test_messages_sent_while_the_peer_is_away_arrive_in_order(world: World) -> None:
    alice, bob = await world.pair()
    await alice.send(bob, b"0")
    await bob.transport.stop()
    await until(lambda: not alice.transport.status(bob.transport.peer_id).is_connected)
    sends = [asyncio.ensure_future(alice.send(bob, b"%d" % number)) for number in range(1, 50)]
    again = await world.started("bob")
    again.knows(alice)
    assert await outcomes(*sends) == [None] * len(sends)
    await until(lambda: len(again.received) == len(sends))
    assert again.received == [b"%d" % number for number in range(1, 50)]


async def test_stop_fails_what_waits_and_leaves_no_task(world: World) -> None:
    alice, bob = await world.started("alice"), await world.started("bob")
    alice.knows(bob)
    bob.knows(alice, addresses=())
    bob.transport.remove_peer(alice.transport.peer_id)
    waiting = asyncio.ensure_future(alice.send(bob, b"x"))
    await asyncio.sleep(0.05)
    async with asyncio.timeout(5):
        await alice.transport.stop()
        await bob.transport.stop()
        await bob.transport.stop()
    (outcome,) = await outcomes(waiting)
    assert isinstance(outcome, PeerUnreachable)
    assert outcome.code == "stopped"
    assert alice.transport.listen_addresses == ()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    with pytest.raises(PeerUnreachable):
        await alice.send(bob, b"x")


async def test_stop_cancels_a_delivery_that_hangs(world: World) -> None:
    alice, bob = await world.pair()
    bob.gate.clear()
    await alice.send(bob, b"x")
    await asyncio.sleep(0.1)
    async with asyncio.timeout(5):
        await bob.transport.stop()
    assert bob.received == []


async def test_transport_can_be_started_once(world: World) -> None:
    alice = await world.started("alice")
    with pytest.raises(TransportError):
        await alice.start()


async def test_address_in_use_is_refused(world: World) -> None:
    await world.started("alice")
    with pytest.raises(TransportError):
        await world.make("alice").start()


async def test_hello_that_is_none_is_refused(world: World) -> None:
    alice = world.make("alice")
    with pytest.raises(RemoteProtocolError):
        await alice.transport.start(alice.deliver, b"hello")
    assert alice.transport.listen_addresses == ()


async def test_peer_addresses_are_checked(world: World) -> None:
    alice, bob = world.make("alice"), world.make("bob")
    with pytest.raises(LocalProtocolError):
        alice.transport.set_peer(alice.transport.peer_id, ())
    for address in ("nonsense", f"/ip4/127.0.0.1/tcp/1/p2p/{alice.transport.peer_id}", "/ip4/127.0.0.1/udp/1"):
        with pytest.raises(LocalProtocolError):
            alice.transport.set_peer(bob.transport.peer_id, (address,))


async def test_address_that_becomes_known_is_dialled(world: World) -> None:
    alice, bob = await world.started("alice"), await world.started("bob")
    bob.knows(alice, addresses=())
    alice.knows(bob, addresses=())
    with pytest.raises(PeerUnreachable):
        await alice.send(bob, b"no way", timeout_s=0.2)
    alice.knows(bob)
    await alice.send(bob, b"now")
    await until(lambda: bob.received == [b"now"])


# ------------------------------------------------------------------------------------------------ the twin's own tricks


async def test_cut_network_refuses_and_heals() -> None:
    world = World("memory")
    alice, bob = await world.pair()
    await alice.send(bob, b"before")
    world.network.cut(PeerId("alice"), PeerId("bob"))
    await until(lambda: not alice.transport.status(PeerId("bob")).is_connected)
    with pytest.raises(PeerUnreachable):
        await alice.send(bob, b"during", timeout_s=0.1)
    world.network.heal(PeerId("alice"), PeerId("bob"))
    await alice.send(bob, b"after")
    await until(lambda: bob.received[-1:] == [b"after"])
    assert bob.received == [b"before", b"after"]
    for node in world.nodes:
        await node.transport.stop()


async def _history(seed: int) -> list[bytes]:
    """Send a hundred single batches over a bad network; answer what arrived."""
    world = World("memory")
    bad = Conditions(delay_min_s=0.0, delay_max_s=0.002, loss_probability=0.2, repeat_probability=0.2)
    world.network = MemoryNetwork(seed=seed, conditions=bad)
    alice, bob = await world.pair()
    for number in range(100):
        await alice.send(bob, b"%d" % number)
    await asyncio.sleep(0.1)
    for node in world.nodes:
        await node.transport.stop()
    return bob.received


async def test_bad_network_loses_and_repeats_but_keeps_order_and_follows_its_seed() -> None:
    received = await _history(1)
    numbers = [int(message) for message in received]
    assert numbers == sorted(numbers)
    assert len(set(numbers)) < 100
    assert len(numbers) > len(set(numbers))
    assert received == await _history(1)
    assert received != await _history(2)
