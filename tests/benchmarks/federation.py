# SPDX-License-Identifier: AGPL-3.0-or-later
"""Transfers between ledgers: real nodes in processes of their own, peered over libp2p on loopback.

Five cooperatives in a chain; each is also a partner of the middle one, whose log decides paths of two hops and more.
A transfer is over when the payer's ledger has resolved it, on proof. Its local peer is the transfer between two members
of one ledger (`trade.pay`), posted by the same load generator: what two ledgers could record one after another.
"""

import asyncio
import itertools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Final

import aiohttp
import quiet
from chain_kit import Chain, make_chain, running, send_entry
from figures import Figures
from ledger_kit import Actor
from node_kit import wall_ms
from process_kit import Raised
from trio_kit import LOOPBACK, Coop, Link, Links, free_port

from ecot_client.entries import build_entry
from ecot_client.node import NodeClient
from ecot_node.federation.framing import PROTOCOL_VERSION, Hello, encode_frame
from ecot_node.federation.libp2p_host import Libp2pTransport
from ecot_node.federation.port import PeerId
from ecot_node.store.port import CommitGroup, RecordRow
from ecot_node.store.sqlite import SqliteStore
from ecot_protocol.domains.trade.transfers import Pay
from ecot_protocol.wire.entry import ENTRIES, Entry
from ecot_protocol.wire.merkle import Frontier, GroupTree, leaf_hash
from ecot_protocol.wire.reply import REPLY, Recorded

NAMES: Final = ("first", "second", "middle", "fourth", "last")
HUB: Final = "middle"
CHAIN: Final = tuple(itertools.pairwise(NAMES))
PATHS: Final = {1: NAMES[:2], 2: NAMES[:3], 4: NAMES}
IN_FLIGHT: Final = 64
HEADERS: Final = {"Content-Type": "application/msgpack"}
LOOK_S: Final = 0.002
PATIENCE_S: Final = 120.0


class Site:
    """Nodes that run, the proxies that count what goes over the wire, and a session of the payer."""

    def __init__(self, chain: Chain, nodes: dict[str, Raised], counted: "CountedLinks") -> None:
        self.chain, self.nodes, self.counted = chain, nodes, counted
        self.payer_coop: Coop = chain.coops[NAMES[0]]
        self.payer: Actor = self.payer_coop.actors[0]

    def payee(self, hops: int) -> Actor:
        return self.chain.coops[PATHS[hops][-1]].actors[0]

    def sends(self, hops: int, count: int) -> list[Entry]:
        """Sign transfers beforehand; each is of one minor unit, so that what is reserved counts those under way."""
        draft = self.chain.draft(PATHS[hops], 1)
        return [send_entry(self.chain, draft, self.payer, self.payee(hops)) for _ in range(count)]


class CountedLink(Link):
    """A link that counts the bytes it carries, both ways."""

    carried_bytes: int = 0

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while content := await reader.read(65_536):
            self.carried_bytes += len(content)
            writer.write(content)
            await writer.drain()
        writer.close()


class CountedLinks(Links):
    """All links together."""

    def __init__(self, links: list[CountedLink]) -> None:
        super().__init__(list[Link](links))
        self._counted = links

    def carried_bytes(self) -> int:
        return sum(link.carried_bytes for link in self._counted)


def measure_federation(figures: Figures, place: Path, *, seconds: float, rounds: int) -> None:
    """Measure all figures that begin with ``fed_``."""
    chain = make_chain(place / "chain", NAMES, CHAIN, hub=HUB)
    count = int(seconds * 150)
    with running(chain) as nodes:
        site = Site(chain, nodes, CountedLinks([]))
        asyncio.run(_settle(site))
        local = [quiet.measure(lambda: asyncio.run(_local(site, count)), tries=2) for _ in range(rounds)]
        figures.add("fed_local", "1/s", local, f"two ledgers, one after the other, {IN_FLIGHT} in flight")
        over = [quiet.measure(lambda: asyncio.run(_over_one_link(site, count)), tries=2) for _ in range(rounds)]
        figures.add("fed_transfers", "1/s", over, f"over one link, {IN_FLIGHT} in flight, until resolved by the payer")
        for hops in PATHS:
            sample = quiet.measure(lambda hops=hops: asyncio.run(_latencies(site, hops, max(20, count // 10))), tries=2)
            percentiles = quantiles(sample.value, n=100)
            for name, value in (("p50", percentiles[49]), ("p99", percentiles[98])):
                figures.add(
                    f"fed_{hops}_hops_{name}", "ms", [quiet.Sample(value, sample.others_cores)], "one at a time"
                )
    figures.add("fed_round_trip", "ms", [quiet.measure(lambda: asyncio.run(_round_trip()), tries=2)], "bare libp2p")
    commits = quiet.measure(lambda: asyncio.run(_group_commit(place / f"commit{time.monotonic_ns()}")), tries=2)
    figures.add("fed_group_commit", "ms", [commits], "of one record, SQLite, synchronous=FULL")
    floor = figures.value("fed_round_trip"), figures.value("fed_group_commit")
    assert floor[0] is not None
    assert floor[1] is not None
    figures.add_plain("fed_floor", "ms", floor[0] + 2 * floor[1], "one round trip and two group commits")
    figures.add_plain(
        "fed_bytes", "bytes", _bytes_of(place, count), "on the wire per transfer over one link, both ways"
    )


async def _settle(site: Site) -> None:
    """Wait until every path works: partners are connected, and have cosigned each other's logs."""
    async with aiohttp.ClientSession() as session:
        for hops in PATHS:
            await _pay_and_wait(site, session, site.sends(hops, 1)[0])


async def _post(session: aiohttp.ClientSession, url: str, entry: Entry) -> None:
    async with session.post(f"{url}/v1/entries", data=ENTRIES.encode((entry,)), headers=HEADERS) as answer:
        outcome = REPLY.decode(await answer.read()).outcomes[0]
    assert isinstance(outcome, Recorded), outcome


async def _in_flight(session: aiohttp.ClientSession, url: str, entries: Sequence[Entry]) -> float:
    """Post entries, so many at a time; return how many a second."""
    waiting: Iterator[Entry] = iter(entries)

    async def post_on() -> None:
        for entry in waiting:
            await _post(session, url, entry)

    started = time.perf_counter()
    await asyncio.gather(*(post_on() for _ in range(IN_FLIGHT)))
    return len(entries) / (time.perf_counter() - started)


async def _local(site: Site, count: int) -> float:
    """Return how many transfers a second two ledgers record that take turns: 1 / (1 / first + 1 / second)."""
    rates = []
    async with aiohttp.ClientSession() as session:
        for name in NAMES[:2]:
            coop = site.chain.coops[name]
            payer, payee = coop.actors[:2]
            pays = [_pay(coop.ledger, payer, payee) for _ in range(count)]
            rates.append(await _in_flight(session, coop.url, pays))
    return 1 / sum(1 / rate for rate in rates)


def _pay(ledger: bytes, payer: Actor, payee: Actor) -> Entry:
    payload = Pay(amount_minor=1, memo=None, payee=payee.member, statutes_version=1, total_minor=1)
    return build_entry(ledger, "trade.pay", payload, author=payer.member, signers=(payer.signer,), now_ms=wall_ms())


async def _over_one_link(site: Site, count: int) -> float:
    """Return how many transfers a second over one link are resolved, with so many under way at a time."""
    sends = site.sends(1, count)
    folder = site.payer_coop.folder.parent / f"client{time.monotonic_ns()}"
    async with (
        aiohttp.ClientSession() as session,
        NodeClient(site.payer_coop.url, folder, (site.payer.signer,)) as client,
    ):
        posted, started = 0, time.perf_counter()
        deadline = started + PATIENCE_S
        while True:
            under_way = await _reserved(site, client)
            assert time.perf_counter() < deadline, f"{under_way} of {posted} transfers are still under way"
            if posted == count and not under_way:
                return count / (time.perf_counter() - started)
            room = min(IN_FLIGHT - under_way, count - posted)
            if room > 0:
                batch = sends[posted : posted + room]
                await asyncio.gather(*(_post(session, site.payer_coop.url, one) for one in batch))
                posted += room
            else:
                await asyncio.sleep(LOOK_S)


async def _reserved(site: Site, client: NodeClient) -> int:
    accounts = await client.accounts(site.payer.member.hex())
    return sum(one.reserved_out_minor for one in accounts)


async def _latencies(site: Site, hops: int, count: int) -> list[float]:
    """Return milliseconds from posting a transfer to its resolution, one transfer at a time."""
    async with aiohttp.ClientSession() as session:
        return [1_000 * await _pay_and_wait(site, session, entry) for entry in site.sends(hops, count)]


async def _pay_and_wait(site: Site, session: aiohttp.ClientSession, entry: Entry) -> float:
    url = site.payer_coop.url
    size = await _log_size(session, url)
    started = time.perf_counter()
    await _post(session, url, entry)
    while await _log_size(session, url) < size + 2:  # the transfer, and its resolution
        assert time.perf_counter() < started + PATIENCE_S, "a transfer was not resolved"
        await asyncio.sleep(LOOK_S)
    return time.perf_counter() - started


async def _log_size(session: aiohttp.ClientSession, url: str) -> int:
    async with session.get(f"{url}/log/checkpoint") as answer:
        return int((await answer.read()).split(b"\n")[1])


async def _round_trip(count: int = 300) -> float:
    """Return the median milliseconds of a message there and one back between two of our libp2p hosts."""
    hosts = [Libp2pTransport(identity_seed=bytes([number]) * 32, listen_addresses=(f"/ip4/{LOOPBACK}/tcp/0",))
             for number in (1, 2)]  # fmt: skip
    back = asyncio.Event()

    async def echo(peer_id: PeerId, messages: tuple[bytes, ...]) -> None:
        for message in messages:
            await hosts[1].send(peer_id, message, timeout_s=10)

    async def take(_peer_id: PeerId, _messages: tuple[bytes, ...]) -> None:
        back.set()

    for number, (host, deliver) in enumerate(zip(hosts, (take, echo), strict=True)):
        hello = Hello(PROTOCOL_VERSION, "bench", f"bench{number}.example/ecot/0", bytes([number]) * 32)
        await host.start(deliver, encode_frame(hello))
    ids = [PeerId(host.listen_addresses[0].rsplit("/", 1)[1]) for host in hosts]
    hosts[1].set_peer(ids[0], hosts[0].listen_addresses)
    hosts[0].set_peer(ids[1], hosts[1].listen_addresses)
    times_ms = []
    try:
        for _ in range(count):
            back.clear()
            started = time.perf_counter()
            await hosts[0].send(ids[1], b"x" * 200, timeout_s=10)
            await asyncio.wait_for(back.wait(), 10)
            times_ms.append(1_000 * (time.perf_counter() - started))
    finally:
        for host in hosts:
            await host.stop()
    return median(times_ms[10:])


async def _group_commit(folder: Path, count: int = 200) -> float:
    """Return the median milliseconds of a durable commit of one record."""
    store = SqliteStore(folder)
    await store.open(ledger=bytes(32))
    frontier = Frontier.empty()
    times_ms = []
    for index in range(count):
        leaf = leaf_hash(index.to_bytes(32, "big"))
        tree = GroupTree(frontier, [leaf])
        frontier = tree.frontier
        row = RecordRow(index, index.to_bytes(16, "big"), wall_ms(), bytes(300), leaf)
        group = CommitGroup(size=index + 1, records=[row], attachments=[], tiles=[], checkpoint=b"bench")
        started = time.perf_counter()
        await store.commit(group)
        times_ms.append(1_000 * (time.perf_counter() - started))
    await store.close()
    return median(times_ms)


def _bytes_of(place: Path, count: int) -> float:
    """Return the bytes on the wire of one transfer, many under way: two nodes, every byte through a proxy of ours."""
    chain = make_chain(place / "counted", NAMES[:2], (), hub=NAMES[1])
    links = [CountedLink(free_port(), coop.libp2p_port) for coop in chain.coops.values()]
    for coop, link in zip(chain.coops.values(), links, strict=True):
        for other in chain.coops.values():
            path = other.folder / "node.toml"
            text = path.read_text(encoding="utf-8")
            partners = text.partition("\n[[federation.peers]]")
            moved = partners[2].replace(f"/tcp/{coop.libp2p_port}", f"/tcp/{link.port}")
            path.write_text(partners[0] + partners[1] + moved, encoding="utf-8")
    with CountedLinks(links) as counted, running(chain) as nodes:
        site = Site(chain, nodes, counted)

        async def run() -> float:
            async with aiohttp.ClientSession() as session:
                await _pay_and_wait(site, session, site.sends(1, 1)[0])
            before = counted.carried_bytes()
            await _over_one_link(site, count)
            return (counted.carried_bytes() - before) / count

        return asyncio.run(run())
