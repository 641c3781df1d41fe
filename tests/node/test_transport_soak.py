# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a transport must bear for months: strangers, peers that come and go, streams that nobody ends."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import trio
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import info_from_p2p_addr
from multiaddr import Multiaddr
from test_transport_libp2p import HELLO, PATIENCE_S, Inbox, Stranger, make, until

from ecot_node.federation import libp2p_swarm
from ecot_node.federation.framing import FrameDecoder, Goodbye, Hello, encode_frame
from ecot_node.federation.libp2p_host import Libp2pTransport
from ecot_node.federation.libp2p_run import PEER_STREAMS
from ecot_node.federation.libp2p_swarm import is_near
from ecot_node.federation.port import PROTOCOL_ID, TransportLimits

FEW: Any = {"connections_max": 6}


def limits(**changes: Any) -> TransportLimits:
    return TransportLimits(
        reconnect_first_s=0.1,
        reconnect_max_s=0.4,
        heartbeat_interval_s=0.2,
        heartbeat_timeout_s=2.0,
        hello_timeout_s=1.0,
        dial_timeout_s=3.0,
        **changes,
    )


@pytest.fixture
async def few() -> AsyncIterator[Libp2pTransport]:
    """A transport that holds six connections."""
    transport = make(limits=limits(**FEW))
    await transport.start(Inbox().deliver, HELLO)
    yield transport
    await transport.stop()


class Visitor(Stranger):
    """A host that connects, does something, and leaves."""

    async def visit(self, address: str, during: Callable[[Any, ID], Any]) -> Any:
        return await asyncio.to_thread(trio.run, self._visit, address, during)

    async def _visit(self, address: str, during: Callable[[Any, ID], Any]) -> Any:
        host = self._host()
        with trio.fail_after(PATIENCE_S):
            async with host.run(listen_addrs=[]):
                await host.connect(info_from_p2p_addr(Multiaddr(address)))
                peer_id = ID.from_base58(address.rpartition("/p2p/")[2])
                try:
                    return await during(host, peer_id)
                finally:
                    await host.get_network().close_peer(peer_id)


async def leave_at_once(_host: Any, _peer_id: ID) -> None:
    """Be connected, and nothing more."""


async def test_connections_that_ended_hold_no_place(few: Libp2pTransport) -> None:
    """The library alone would refuse everybody after the sixth connection, for as long as it runs."""
    address = few.listen_addresses[0]
    for number in range(3 * FEW["connections_max"]):
        await Visitor(bytes([number]) * 32).visit(address, leave_at_once)
    friend = make(b"f" * 32)
    await friend.start(Inbox().deliver, HELLO)
    try:
        few.set_peer(friend.peer_id, [])
        friend.set_peer(few.peer_id, few.listen_addresses)
        await friend.send(few.peer_id, b"still there", timeout_s=PATIENCE_S)
    finally:
        await friend.stop()
    assert few.restart_count == 0


async def test_tasks_do_not_grow_with_connections(few: Libp2pTransport) -> None:
    address = few.listen_addresses[0]
    await Visitor(b"v" * 32).visit(address, leave_at_once)
    assert few._host is not None
    host = few._host
    counts = []
    for _ in range(2):
        await asyncio.sleep(2.5)  # the count is taken once a second
        counts.append(host.task_count)
        for number in range(8):
            await Visitor(bytes([number]) * 32).visit(address, leave_at_once)
    assert counts[1] <= counts[0] + 2


async def test_strangers_cannot_hold_every_place(few: Libp2pTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libp2p_swarm, "STRANGER_AGE_MAX_S", 1.0)
    address = few.listen_addresses[0]

    async def stay(host: Any, peer_id: ID) -> bool:
        with trio.move_on_after(PATIENCE_S):
            while host.get_network().get_connections(peer_id):  # noqa: ASYNC110 - the library has no event for it
                await trio.sleep(0.05)
            return True
        return False

    staying = [Visitor(bytes([number]) * 32).visit(address, stay) for number in range(FEW["connections_max"])]
    assert await asyncio.gather(*staying) == [True] * FEW["connections_max"]


async def test_stream_that_says_nothing_is_ended(few: Libp2pTransport) -> None:
    async def open_and_wait(host: Any, peer_id: ID) -> list[Any]:
        stream = await host.new_stream(peer_id, [TProtocol(PROTOCOL_ID)])
        decoder = FrameDecoder()
        with trio.move_on_after(PATIENCE_S):
            while True:
                chunk = await stream.read(4096)
                if frames := list(decoder.feed(chunk)):
                    return frames
        return []

    visitors = [Visitor(bytes([number]) * 32) for number in range(4)]
    few.set_peer(visitors[0].peer_id, [])
    said = await asyncio.gather(*(one.visit(few.listen_addresses[0], open_and_wait) for one in visitors))
    assert said == [[Goodbye("hello_timeout")]] * 4


async def test_peer_that_opens_streams_without_end_is_told_to_wait(few: Libp2pTransport) -> None:
    async def open_many(host: Any, peer_id: ID) -> list[Any]:
        last: list[Any] = []
        for _ in range(PEER_STREAMS.burst + 5):
            stream = await host.new_stream(peer_id, [TProtocol(PROTOCOL_ID)])
            await stream.write(HELLO)
            last = list(FrameDecoder().feed(await stream.read(4096)))
            if not isinstance(last[0], Hello):
                break
            await stream.reset()
        return last

    visitor = Visitor(b"v" * 32)
    few.set_peer(visitor.peer_id, [])
    assert await visitor.visit(few.listen_addresses[0], open_many) == [Goodbye("too_many_streams")]


async def test_back_off_grows_for_a_peer_that_comes_and_goes() -> None:
    """It takes our hello and ends the stream, again and again: no better than one that is not there."""
    ours = make(limits=limits(stable_after_s=30.0))
    fast = make(b"x" * 32, limits=limits(stable_after_s=0.0))
    await ours.start(Inbox().deliver, HELLO)
    await fast.start(Inbox().deliver, HELLO)
    delays: dict[str, list[float]] = {"ours": [], "fast": []}
    try:
        for name, transport in (("ours", ours), ("fast", fast)):
            transport._host._back_off = recording(transport, delays[name])  # type: ignore[union-attr, method-assign]
        flapping = Flapping()
        task = asyncio.create_task(asyncio.to_thread(trio.run, flapping.run))
        await until(lambda: bool(flapping.address))
        for transport in (ours, fast):
            transport.set_peer(flapping.peer_id, [flapping.address])
        await until(lambda: len(delays["ours"]) >= 6 and len(delays["fast"]) >= 6)
        flapping.stop()
        await task
    finally:
        await ours.stop()
        await fast.stop()
    assert delays["ours"][:6] == [1, 2, 3, 4, 5, 6]
    assert delays["fast"][:6] == [1, 1, 1, 1, 1, 1]


def recording(transport: Libp2pTransport, delays: list[float]) -> Any:
    """Note how many failures in a row each back-off is for."""
    host = transport._host
    assert host is not None
    back_off = host._back_off

    async def noting(run: Any, failure_count: int) -> None:
        delays.append(failure_count)
        await back_off(run, failure_count)

    return noting


class Flapping(Stranger):
    """A host that answers each hello and then resets the stream."""

    def __init__(self) -> None:
        super().__init__(b"F" * 32)
        self.address = ""
        self._stop = False

    def stop(self) -> None:
        self._stop = True

    async def run(self) -> None:
        host = self._host()

        async def answer_and_go(stream: Any) -> None:
            await stream.read(4096)
            await stream.write(encode_frame(Hello(1, "flapping", "flapping.example/ecot/00", bytes(32))))
            await trio.sleep(0.05)
            await stream.reset()

        host.set_stream_handler(TProtocol(PROTOCOL_ID), answer_and_go)
        async with host.run(listen_addrs=[Multiaddr("/ip4/127.0.0.1/tcp/0")]):
            self.address = str(host.get_transport_addrs()[0])
            with trio.move_on_after(PATIENCE_S):
                while not self._stop:  # noqa: ASYNC110 - set by another thread
                    await trio.sleep(0.05)


# ----------------------------------------------------------------------------------------------- where peers are found


async def test_good_address_is_tried_first_again_after_wrong_ones() -> None:
    ours, friend = make(), make(b"f" * 32)
    await ours.start(Inbox().deliver, HELLO)
    await friend.start(Inbox().deliver, HELLO)
    good = friend.listen_addresses[0].partition("/p2p/")[0]
    wrong = [f"/ip4/127.0.0.1/tcp/{port}" for port in (1, 2)]
    try:
        friend.set_peer(ours.peer_id, [])
        ours.set_peer(friend.peer_id, [*wrong, good])
        await ours.send(friend.peer_id, b"1", timeout_s=PATIENCE_S)
        assert ours.status(friend.peer_id).address == good
        errors = ours.status(friend.peer_id).error_count
        assert errors >= len(wrong)
        friend.remove_peer(ours.peer_id)
        await until(lambda: not ours.status(friend.peer_id).is_connected)
        friend.set_peer(ours.peer_id, [])
        await ours.send(friend.peer_id, b"2", timeout_s=PATIENCE_S)
        assert ours.status(friend.peer_id).address == good
    finally:
        await ours.stop()
        await friend.stop()


async def test_somebody_else_at_a_peers_address_is_not_the_peer() -> None:
    ours, impostor = make(), make(b"i" * 32)
    await ours.start(Inbox().deliver, HELLO)
    await impostor.start(Inbox().deliver, HELLO)
    wanted = make(b"w" * 32).peer_id
    try:
        impostor.set_peer(ours.peer_id, [])
        ours.set_peer(wanted, [impostor.listen_addresses[0].partition("/p2p/")[0]])
        await until(lambda: ours.status(wanted).error_count > 1)
        assert ours.status(wanted).address is None
        assert not ours.status(wanted).is_connected
    finally:
        await ours.stop()
        await impostor.stop()


async def test_where_a_peer_listens_is_learned_from_its_call_alone() -> None:
    ours, friend = make(), make(b"f" * 32)
    await ours.start(Inbox().deliver, HELLO)
    await friend.start(Inbox().deliver, HELLO)
    try:
        ours.set_peer(friend.peer_id, [])
        friend.set_peer(ours.peer_id, ours.listen_addresses)
        listens = friend.listen_addresses[0].partition("/p2p/")[0]
        await until(lambda: listens in ours.status(friend.peer_id).offered)
        assert ours.status(friend.peer_id).address is None
    finally:
        await ours.stop()
        await friend.stop()


@pytest.mark.parametrize(
    ("address", "nearest"),
    [
        ("/ip4/127.0.0.1/tcp/1", 0),
        ("/ip6/::1/tcp/1", 0),
        ("/ip6/::ffff:127.0.0.1/tcp/1", 0),
        ("/ip4/10.0.0.1/tcp/1", 1),
        ("/ip4/192.168.1.1/tcp/1", 1),
        ("/ip6/fd00::1/tcp/1", 1),
        ("/ip4/9.9.9.9/tcp/1", 2),
        ("/ip4/169.254.169.254/tcp/80", -1),
        ("/ip6/fe80::1/tcp/1", -1),
        ("/ip4/0.0.0.0/tcp/1", -1),
        ("/ip4/224.0.0.1/tcp/1", -1),
        ("/dns4/localhost/tcp/1", -1),
        ("/ip4/9.9.9.9/udp/1", -1),
    ],
)
def test_a_peer_cannot_send_us_to_doors_nearer_than_itself(address: str, nearest: int) -> None:
    assert [widest for widest in (0, 1, 2) if is_near(Multiaddr(address), widest)] == list(range(nearest + 1))
