# SPDX-License-Identifier: AGPL-3.0-or-later
"""Partners on the local network: found if they are partners, whatever else is announced."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from test_transport_libp2p import HELLO, PATIENCE_S, Inbox, make, until
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

from ecot_node.federation.addresses import PartnerAddresses
from ecot_node.federation.mdns import ADDRESSES_MAX, KEY, PACE, SERVICE, LocalNetwork, announced_addresses, read_text
from ecot_node.federation.port import PeerId
from ecot_node.store.address_book import AddressBook, Source

pytestmark = pytest.mark.xdist_group("mdns")

LOOPBACK = "127.0.0.1"
# Of this process alone: whoever else runs these tests on this machine is heard on the same loopback.
SEEDS = [os.urandom(32) for _ in range(5)]
OURS, PARTNER, STRANGER = (make(one).peer_id for one in SEEDS[:3])
LEDGER = b"L" * 32


class Network:
    """Nodes on the loopback interface, and what each finds."""

    def __init__(self) -> None:
        self.found: dict[PeerId, list[tuple[PeerId, tuple[str, ...]]]] = {}
        self.nodes: list[LocalNetwork] = []

    async def add(
        self, peer_id: PeerId, listen: str, is_wanted: Callable[[PeerId], bool] = lambda _peer: False
    ) -> LocalNetwork:
        found = self.found.setdefault(peer_id, [])

        async def take(peer: PeerId, addresses: tuple[str, ...]) -> None:
            found.append((peer, addresses))

        node = LocalNetwork(peer_id, [listen], is_wanted=is_wanted, found=take, interfaces=[LOOPBACK], nearest=0)
        self.nodes.append(node)
        await node.start()
        return node


@pytest.fixture
async def network() -> AsyncIterator[Network]:
    network = Network()
    yield network
    for node in network.nodes:
        await node.stop()


async def test_a_partner_is_found_and_a_stranger_is_not(network: Network) -> None:
    await network.add(STRANGER, "/ip4/0.0.0.0/tcp/4003")
    await network.add(PARTNER, "/ip4/0.0.0.0/tcp/4002")
    await network.add(OURS, "/ip4/0.0.0.0/tcp/4001", lambda peer: peer == PARTNER)
    await until(lambda: bool(network.found[OURS]))
    assert network.found == {OURS: [(PARTNER, ("/ip4/127.0.0.1/tcp/4002",))], PARTNER: [], STRANGER: []}


async def test_a_partner_that_comes_later_is_found(network: Network) -> None:
    await network.add(OURS, "/ip4/0.0.0.0/tcp/4001", lambda peer: peer == PARTNER)
    await asyncio.sleep(0.2)
    assert network.found[OURS] == []
    await network.add(PARTNER, "/ip4/0.0.0.0/tcp/4002")
    await until(lambda: bool(network.found[OURS]))


async def test_rubbish_on_the_network_stops_nothing(network: Network) -> None:
    hostile = AsyncZeroconf(interfaces=[LOOPBACK])
    texts = [
        b"",
        b"\xff" + KEY + b"/ip4",
        bytes([len(KEY) + 2]) + KEY + b"\xff\xfe",
        bytes([len(KEY) + 5]) + KEY + b"/p2p/",
        b"".join(
            bytes([len(KEY) + len(one)]) + KEY + one for one in [f"/ip4/1.2.3.4/tcp/1/p2p/{PARTNER}".encode()] * 3
        ),
    ]
    try:
        for number, text in enumerate(texts):
            name = f"hostile{number}-{OURS[-8:]}.{SERVICE}"
            info = AsyncServiceInfo(SERVICE, name, port=1, properties=text, parsed_addresses=[LOOPBACK])
            await hostile.async_register_service(info)
        await network.add(OURS, "/ip4/0.0.0.0/tcp/4001", lambda peer: peer == PARTNER)
        await network.add(PARTNER, "/ip4/0.0.0.0/tcp/4002")
        await until(lambda: bool(network.found[OURS]))
    finally:
        await hostile.async_unregister_all_services()
        await hostile.async_close()
    assert network.found[OURS] == [(PARTNER, ("/ip4/127.0.0.1/tcp/4002",))]


@pytest.mark.parametrize(
    "address",
    [
        f"/ip4/9.9.9.9/tcp/1/p2p/{PARTNER}",
        f"/ip4/127.0.0.1/tcp/1/p2p/{PARTNER}",
        f"/ip4/169.254.169.254/tcp/80/p2p/{PARTNER}",
        f"/ip4/224.0.0.1/tcp/1/p2p/{PARTNER}",
        f"/dns4/router.lan/tcp/80/p2p/{PARTNER}",
        f"/ip4/10.0.0.1/udp/1/p2p/{PARTNER}",
        f"/ip4/10.0.0.1/tcp/1/p2p/{STRANGER}",
        f"/ip4/10.0.0.1/tcp/1/p2p/{OURS}",
        "/ip4/10.0.0.1/tcp/1",
    ],
    ids=["public", "loopback", "link_local", "multicast", "name", "udp", "stranger", "ours", "nobody"],
)
async def test_only_local_addresses_of_partners_are_handed_on(address: str) -> None:
    found: list[object] = []

    async def take(*one: object) -> None:
        found.append(one)

    nearby = LocalNetwork(OURS, [], is_wanted=lambda peer: peer in {PARTNER, OURS}, found=take)
    await nearby.take([address])
    assert found == []
    await nearby.take([f"/ip4/10.0.0.1/tcp/1/p2p/{PARTNER}"])
    assert found == [(PARTNER, ("/ip4/10.0.0.1/tcp/1",))]


async def test_whoever_announces_all_the_time_is_not_heard_all_the_time() -> None:
    found: list[object] = []

    async def take(*one: object) -> None:
        found.append(one)

    nearby = LocalNetwork(OURS, [], is_wanted=lambda _peer: True, found=take)
    for port in range(1, 100):
        await nearby.take([f"/ip4/10.0.0.1/tcp/{port}/p2p/{PARTNER}"])
    assert len(found) == PACE.burst


def test_what_is_announced_is_local_and_bounded() -> None:
    ips = ("127.0.0.1", "10.0.0.7", "9.9.9.9", "fd00::7", "fe80::1", *(f"10.1.0.{n}" for n in range(20)))
    announced = announced_addresses(["/ip4/0.0.0.0/tcp/1", "/ip6/::/tcp/2"], ips, OURS, 1)
    assert announced[0] == f"/ip4/10.0.0.7/tcp/1/p2p/{OURS}"
    assert len(announced) == ADDRESSES_MAX
    assert announced_addresses(["/ip6/::/tcp/2"], ips, OURS, 1) == (f"/ip6/fd00::7/tcp/2/p2p/{OURS}",)
    assert announced_addresses(["/ip4/9.9.9.9/tcp/2"], ips, OURS, 1) == ()
    assert len(read_text(b"".join(bytes([len(KEY) + 1]) + KEY + b"/" for _ in range(99)))) == ADDRESSES_MAX


async def test_a_partner_found_nearby_is_dialled(network: Network, tmp_path: Path) -> None:
    """From the announcement over the address book to a stream that carries a message."""
    ours, friend = make(SEEDS[3]), make(SEEDS[4])
    inbox = Inbox()
    await ours.start(Inbox().deliver, HELLO)
    await friend.start(inbox.deliver, HELLO)
    book = AddressBook(tmp_path)
    book.know(LEDGER, name="friend.example", is_recorded=True)
    addresses = PartnerAddresses((), book)
    ours.set_peer(friend.peer_id, [])
    friend.set_peer(ours.peer_id, [])

    async def found(peer_id: PeerId, seen: tuple[str, ...]) -> None:
        await addresses.seen(LEDGER, seen)
        assert addresses.has_changed()
        ours.set_peer(peer_id, addresses.of(LEDGER))

    nearby = LocalNetwork(
        ours.peer_id,
        ours.listen_addresses,
        is_wanted=lambda peer: peer == friend.peer_id,
        found=found,
        interfaces=[LOOPBACK],
        nearest=0,
    )
    try:
        await network.add(friend.peer_id, friend.listen_addresses[0])
        await nearby.start()
        await ours.send(friend.peer_id, b"found", timeout_s=PATIENCE_S)
        await until(lambda: inbox.received == [b"found"])
        (known,) = book.partners()[LEDGER].addresses
        assert known.source is Source.NETWORK
    finally:
        await nearby.stop()
        await ours.stop()
        await friend.stop()
        book.close()
