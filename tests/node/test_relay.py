# SPDX-License-Identifier: AGPL-3.0-or-later
"""A node behind NAT is reached through a partner that relays: three hosts; the two ends never dial each other."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from libp2p.peer.id import ID
from libp2p.relay.circuit_v2.pb.circuit_pb2 import HopMessage, StopMessage
from libp2p.relay.circuit_v2.pb.circuit_pb2 import PeerId as CircuitPeer
from libp2p.relay.circuit_v2.utils import read_delimited_msg, write_delimited_msg
from test_transport_libp2p import HELLO, LIMITS, PATIENCE_S, Inbox, until
from test_transport_soak import Visitor

from ecot_node.federation.libp2p_circuits import HOP, STOP, RelayRefused, split_circuit
from ecot_node.federation.libp2p_host import Libp2pTransport
from ecot_node.federation.multiaddrs import CIRCUIT, find_problem, parse_address
from ecot_node.federation.port import PeerId, Relaying, RelayLimits
from ecot_protocol.errors import LocalProtocolError

LISTEN = "/ip4/127.0.0.1/tcp/0"


def make(seed: bytes, **relaying: Any) -> Libp2pTransport:
    return Libp2pTransport(
        identity_seed=seed * 32,
        listen_addresses=[LISTEN],
        limits=LIMITS,
        jitter_seed=5,
        relaying=Relaying(**relaying),
    )


class World:
    """A relay, a node behind NAT that reserves there, and partners that know its address through the relay alone."""

    def __init__(self, **limits: Any) -> None:
        self.relay = make(b"R", serves=RelayLimits(**limits))
        self.hidden = make(b"H")
        self.caller = make(b"C")
        self.inboxes = {name: Inbox() for name in ("relay", "hidden", "caller")}
        self.started: list[Libp2pTransport] = []

    async def start(self) -> None:
        await self.begin(self.relay, "relay")
        self.hidden = make(b"H", relays=(self.relay.listen_addresses[0],))
        await self.begin(self.hidden, "hidden")
        await self.begin(self.caller, "caller")
        for one in (self.hidden, self.caller):
            self.relay.set_peer(one.peer_id, [])
            one.set_peer(self.relay.peer_id, self.relay.listen_addresses)

    async def begin(self, transport: Libp2pTransport, name: str) -> None:
        await transport.start(self.inboxes[name].deliver, HELLO)
        self.started.append(transport)

    def introduce(self) -> None:
        """Let the two ends know each other: the caller by the relay's address, the hidden one by none at all."""
        self.hidden.set_peer(self.caller.peer_id, [])
        self.caller.set_peer(self.hidden.peer_id, [self.circuit])

    @property
    def circuit(self) -> str:
        return self.relay.listen_addresses[0] + CIRCUIT

    async def stop(self) -> None:
        for transport in reversed(self.started):
            await transport.stop()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    await world.start()
    yield world
    await world.stop()


async def test_two_nodes_trade_messages_through_a_relay(world: World) -> None:
    await until(lambda: world.hidden.circuit_addresses == (world.circuit,))
    world.introduce()
    await world.caller.send(world.hidden.peer_id, b"there", timeout_s=PATIENCE_S)
    await world.hidden.send(world.caller.peer_id, b"back", timeout_s=PATIENCE_S)
    await until(lambda: world.inboxes["hidden"].received == [b"there"])
    await until(lambda: world.inboxes["caller"].received == [b"back"])
    assert world.caller.status(world.hidden.peer_id).address == world.circuit
    assert world.relay.circuit_count == 1
    assert world.inboxes["relay"].received == []
    # Nobody told an address of its own: both know the relay alone, and say so.
    assert world.hidden.status(world.caller.peer_id).address is None


async def test_much_passes_through_a_relay_in_order(world: World) -> None:
    await until(lambda: bool(world.hidden.circuit_addresses))
    world.introduce()
    sent = [number.to_bytes(4, "big") * 4_096 for number in range(400)]
    for start in range(0, len(sent), 100):
        sends = (
            world.caller.send(world.hidden.peer_id, one, timeout_s=PATIENCE_S) for one in sent[start : start + 100]
        )
        await asyncio.gather(*sends)
    await until(lambda: len(world.inboxes["hidden"].received) == len(sent))
    assert world.inboxes["hidden"].received == sent


async def test_the_end_of_one_circuit_leaves_the_others(world: World) -> None:
    await until(lambda: bool(world.hidden.circuit_addresses))
    world.introduce()
    second, inbox = make(b"S"), Inbox()
    await second.start(inbox.deliver, HELLO)
    world.started.append(second)
    world.relay.set_peer(second.peer_id, [])
    second.set_peer(world.relay.peer_id, world.relay.listen_addresses)
    world.hidden.set_peer(second.peer_id, [])
    second.set_peer(world.hidden.peer_id, [world.circuit])
    await world.caller.send(world.hidden.peer_id, b"1", timeout_s=PATIENCE_S)
    await second.send(world.hidden.peer_id, b"2", timeout_s=PATIENCE_S)
    assert world.relay.circuit_count == 2
    errors = second.status(world.hidden.peer_id).error_count
    world.caller.remove_peer(world.hidden.peer_id)
    await until(lambda: world.relay.circuit_count == 1)
    await second.send(world.hidden.peer_id, b"3", timeout_s=PATIENCE_S)
    await until(lambda: b"3" in world.inboxes["hidden"].received)
    assert second.status(world.hidden.peer_id).error_count == errors


async def test_a_relay_that_went_away_is_used_again_when_it_is_back(world: World) -> None:
    await until(lambda: bool(world.hidden.circuit_addresses))
    world.introduce()
    await world.caller.send(world.hidden.peer_id, b"before", timeout_s=PATIENCE_S)
    await until(lambda: world.inboxes["hidden"].received == [b"before"])
    address = world.relay.listen_addresses[0].partition("/p2p/")[0]
    await world.relay.stop()
    world.started.remove(world.relay)
    await until(lambda: not world.hidden.circuit_addresses)
    await until(lambda: not world.caller.status(world.hidden.peer_id).is_connected)
    again = Libp2pTransport(
        identity_seed=b"R" * 32,
        listen_addresses=[address],
        limits=LIMITS,
        jitter_seed=5,
        relaying=Relaying(serves=RelayLimits()),
    )
    for one in (world.hidden, world.caller):
        again.set_peer(one.peer_id, [])
    world.relay = again
    await world.begin(again, "relay")
    await world.caller.send(world.hidden.peer_id, b"after", timeout_s=PATIENCE_S)
    await until(lambda: world.inboxes["hidden"].received == [b"before", b"after"])


async def test_a_relay_ends_a_circuit_that_has_had_its_bytes() -> None:
    world = World(circuit_mib=1)
    await world.start()
    try:
        await until(lambda: bool(world.hidden.circuit_addresses))
        world.introduce()
        await world.caller.send(world.hidden.peer_id, b"first", timeout_s=PATIENCE_S)
        before = world.caller.status(world.hidden.peer_id).error_count
        sends = (world.caller.send(world.hidden.peer_id, bytes(200_000), timeout_s=PATIENCE_S) for _ in range(10))
        await asyncio.gather(*sends, return_exceptions=True)
        await until(lambda: world.caller.status(world.hidden.peer_id).error_count > before)
        # Another circuit takes its place: what is bounded is one circuit, not the partner.
        await world.caller.send(world.hidden.peer_id, b"again", timeout_s=PATIENCE_S)
        await until(lambda: world.inboxes["hidden"].received[-1] == b"again")
    finally:
        await world.stop()


async def test_a_peer_that_has_not_reserved_is_not_reached(world: World) -> None:
    idle = make(b"I")
    await world.begin(idle, "relay")
    idle.set_peer(world.relay.peer_id, world.relay.listen_addresses)
    idle.set_peer(world.caller.peer_id, [])
    world.relay.set_peer(idle.peer_id, [])
    world.caller.set_peer(idle.peer_id, [world.circuit])
    await until(lambda: world.caller.status(idle.peer_id).error_count > 0)
    assert world.caller.status(idle.peer_id).last_error == "dial_failed"
    assert world.relay.circuit_count == 0


# ------------------------------------------------------------------------------------------------------- strangers


async def ask_relay(host: Any, relay: ID, message: Any) -> int:
    """Return the relay's status for a hop message."""
    stream = await host.new_stream(relay, [HOP])
    await write_delimited_msg(stream, message)
    return int((await read_delimited_msg(stream, HopMessage)).status)


def connect_to(peer: PeerId) -> HopMessage:
    return HopMessage(type=HopMessage.CONNECT, peer=CircuitPeer(id=ID.from_base58(peer).to_bytes()))


async def test_strangers_are_served_nothing(world: World) -> None:
    await until(lambda: bool(world.hidden.circuit_addresses))
    hidden = world.hidden.peer_id

    async def try_both(host: Any, relay: ID) -> list[int]:
        asked = (HopMessage(type=HopMessage.RESERVE), connect_to(hidden))
        return [await ask_relay(host, relay, one) for one in asked]

    address = world.relay.listen_addresses[0]
    assert await Visitor(b"x" * 32).visit(address, try_both) == [202, 202]  # PERMISSION_DENIED


async def test_nobody_reserves_in_the_name_of_another(world: World) -> None:
    """Whoever is named in the message, it is the one on the connection who has reserved."""
    partner, victim = Visitor(b"y" * 32), make(b"V").peer_id
    for one in (partner.peer_id, victim):
        world.relay.set_peer(one, [])

    async def reserve_for(host: Any, relay: ID) -> list[int]:
        named = HopMessage(type=HopMessage.RESERVE, peer=CircuitPeer(id=ID.from_base58(victim).to_bytes()))
        return [await ask_relay(host, relay, named), await ask_relay(host, relay, connect_to(victim))]

    assert await partner.visit(world.relay.listen_addresses[0], reserve_for) == [100, 204]  # OK, NO_RESERVATION


async def test_a_circuit_for_a_stranger_is_not_taken(world: World) -> None:
    """The relay knows the caller; the hidden node does not, and refuses."""
    await until(lambda: bool(world.hidden.circuit_addresses))
    world.caller.set_peer(world.hidden.peer_id, [world.circuit])
    await until(lambda: world.caller.status(world.hidden.peer_id).error_count > 1)
    assert not world.caller.status(world.hidden.peer_id).is_connected
    world.caller.remove_peer(world.hidden.peer_id)
    await until(lambda: world.relay.circuit_count == 0)


async def test_circuits_of_relays_that_nobody_named_are_not_taken(world: World) -> None:
    await until(lambda: bool(world.hidden.circuit_addresses))
    world.hidden.set_peer(world.caller.peer_id, [])
    caller = world.caller.peer_id

    async def pretend(host: Any, hidden: ID) -> int:
        stream = await host.new_stream(hidden, [STOP])
        source = CircuitPeer(id=ID.from_base58(caller).to_bytes())
        await write_delimited_msg(stream, StopMessage(type=StopMessage.CONNECT, peer=source))
        return int((await read_delimited_msg(stream, StopMessage)).status)

    assert await Visitor(b"z" * 32).visit(world.hidden.listen_addresses[0], pretend) == 202


async def test_a_relay_is_bounded() -> None:
    world = World(reservations_max=1, circuits_of_peer_max=0)
    await world.start()
    try:
        await until(lambda: bool(world.hidden.circuit_addresses))
        partner, hidden = Visitor(b"y" * 32), world.hidden.peer_id
        world.relay.set_peer(partner.peer_id, [])

        async def ask(host: Any, relay: ID) -> list[int]:
            asked = (HopMessage(type=HopMessage.RESERVE), connect_to(hidden), HopMessage(type=HopMessage.STATUS))
            return [await ask_relay(host, relay, one) for one in asked]

        said = await partner.visit(world.relay.listen_addresses[0], ask)
        assert said == [200, 201, 401]  # RESERVATION_REFUSED, RESOURCE_LIMIT_EXCEEDED, UNEXPECTED_MESSAGE
    finally:
        await world.stop()


async def test_rubbish_ends_its_own_stream_alone(world: World) -> None:
    await until(lambda: bool(world.hidden.circuit_addresses))
    world.introduce()
    await world.caller.send(world.hidden.peer_id, b"1", timeout_s=PATIENCE_S)

    async def write_rubbish(host: Any, relay: ID) -> None:
        for rubbish in (b"\xff" * 20, b"\x05hello", b"\x00"):
            stream = await host.new_stream(relay, [HOP])
            await stream.write(rubbish)
            with trio.move_on_after(5):
                try:
                    await stream.read(10)
                except Exception:  # noqa: BLE001 - any end of the stream will do
                    continue

    await Visitor(b"x" * 32).visit(world.relay.listen_addresses[0], write_rubbish)
    await world.caller.send(world.hidden.peer_id, b"2", timeout_s=PATIENCE_S)
    assert world.relay.circuit_count == 1


# ------------------------------------------------------------------------------------------------------- addresses

RELAY_ID = make(b"R").peer_id
OTHER_ID = make(b"O").peer_id


def test_addresses_through_a_relay() -> None:
    address = f"/dns4/relay.example/tcp/1/p2p/{RELAY_ID}{CIRCUIT}"
    assert parse_address(f"{address}/p2p/{OTHER_ID}", OTHER_ID) == address
    assert split_circuit(address) == ("/dns4/relay.example/tcp/1", RELAY_ID)
    assert str(RelayRefused(204)) == "no_reservation"


@pytest.mark.parametrize(
    "address",
    [
        CIRCUIT,
        f"/ip4/127.0.0.1/tcp/1{CIRCUIT}",
        f"/ip4/127.0.0.1/tcp/1/p2p/nobody{CIRCUIT}",
        f"/ip4/127.0.0.1/udp/1/p2p/{RELAY_ID}{CIRCUIT}",
        f"/ip4/127.0.0.1/tcp/1/p2p/{RELAY_ID}{CIRCUIT}/p2p/nobody",
        f"/ip4/127.0.0.1/tcp/1/p2p/{RELAY_ID}{CIRCUIT}{CIRCUIT}",
    ],
)
def test_malformed_addresses_through_a_relay_are_refused(address: str) -> None:
    assert find_problem(address) is not None
    with pytest.raises(LocalProtocolError):
        make(b"H", relays=(address.partition(CIRCUIT)[0] + "/x",))
