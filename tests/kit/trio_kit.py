# SPDX-License-Identifier: AGPL-3.0-or-later
"""Three cooperatives with real node processes, peered over libp2p on loopback, every link through a proxy of ours.

`Link` is a small TCP proxy between a node and a partner that it dials: it can delay, cut and refuse. A trio is made
once (`make_trio`) and copied for each test (`Trio.copy`); ports are in the settings, so one copy runs at a time.
"""

import asyncio
import contextlib
import itertools
import json
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ledger_kit import Actor
from node_kit import BOARD_KEY, admission, application, ledger_of, make_founded, wall_ms
from process_kit import Nursery, Raised

from ecot_client.entries import build_entry
from ecot_client.federation import decider_of, draft_peering, peered
from ecot_node.ledger.node_keys import NodeKeys, load_keys
from ecot_protocol.domains.coop.genesis import log_origin
from ecot_protocol.domains.federation.statements import Peering, Side, decode_peering
from ecot_protocol.ledger.entry_type import BOARD
from ecot_protocol.wire.keys import Signer
from ecot_protocol.wire.statement import sign_statement

LOOPBACK = "127.0.0.1"
NAMES = ("rives", "scene", "port")
MEMBERS = ("ada", "bela")
UNIT = "BART"
LIMIT_MINOR = 10_000_000
CHUNK_BYTES = 65_536
SETTINGS = {
    "ECOT_NODE_HTTP__REQUESTS_PER_MINUTE": "10000000",
    "ECOT_NODE_LOG__LEVEL": "info",
}


def free_port() -> int:
    """Return a TCP port of the loopback interface that nobody uses now."""
    with socket.socket() as one:
        one.bind((LOOPBACK, 0))
        port: int = one.getsockname()[1]
        return port


@dataclass
class Link:
    """A TCP proxy from `port` to `target`, in the event loop of `Links`."""

    port: int
    target: int
    is_cut: bool = False
    delay_s: float = 0.0
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Join one connection to the target, both ways, until an end closes or the link is cut."""
        if self.is_cut:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(LOOPBACK, self.target)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, far_writer}
        self._writers |= ends
        try:
            await asyncio.gather(self._copy(reader, far_writer), self._copy(far_reader, writer))
        except OSError:
            pass
        finally:
            self._writers -= ends
            for one in ends:
                one.transport.abort()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while content := await reader.read(CHUNK_BYTES):
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            writer.write(content)
            await writer.drain()
        writer.close()

    def reset(self) -> None:
        """Break the connections there are (RST)."""
        for writer in [*self._writers]:
            writer.transport.abort()


class Links:
    """Proxies in a thread of their own; use as a context manager."""

    def __init__(self, links: list[Link]) -> None:
        self._links = links
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._servers: list[asyncio.Server] = []

    def __enter__(self) -> "Links":
        self._thread.start()
        for link in self._links:
            opening = asyncio.start_server(link.carry, LOOPBACK, link.port)
            self._servers.append(asyncio.run_coroutine_threadsafe(opening, self._loop).result())
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def cut(self, link: Link) -> None:
        """Break the link and refuse new connections."""
        link.is_cut = True
        self._loop.call_soon_threadsafe(link.reset)

    def heal(self, link: Link) -> None:
        """Let connections through again, at once."""
        link.is_cut, link.delay_s = False, 0.0

    def reset(self, link: Link) -> None:
        """Break the connections of a link once."""
        self._loop.call_soon_threadsafe(link.reset)


@dataclass
class Coop:
    """One cooperative of a trio.

    Attributes:
        folder: of its node.
        http_port, libp2p_port: where its node listens.
        actors: its members.
    """

    name: str
    folder: Path
    http_port: int
    libp2p_port: int
    actors: list[Actor] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.http_port}"

    @property
    def ledger(self) -> bytes:
        return ledger_of(self.folder)

    @property
    def keys(self) -> NodeKeys:
        return load_keys(self.folder / "keys")

    def side(self) -> Side:
        """Return this cooperative's side of a peering."""
        keys, domain = self.keys, f"{self.name}.example"
        return Side(
            agent=keys.public_key("agent"),
            cosigner=keys.public_key("cosigner"),
            cosigner_ml_dsa_44=keys.further_cosigner,
            domain=domain,
            host=keys.public_key("host"),
            keys_index=0,
            ledger=self.ledger,
            limit_minor=LIMIT_MINOR,
            log=keys.public_key("log"),
            origin=log_origin(domain, self.ledger),
            unit=UNIT,
        )


@dataclass
class Trio:
    """Three cooperatives, peered with each other; their nodes do not run.

    Attributes:
        coops: by name.
        links: (who dials, whom) -> proxy.
        peerings: the two names, in the order of `NAMES` -> what both signed.
    """

    coops: dict[str, Coop]
    links: dict[tuple[str, str], Link]
    peerings: dict[frozenset[str], Peering] = field(default_factory=dict)

    def copy(self, place: Path) -> "Trio":
        """Copy the folders; ports, keys and ledgers stay the same."""
        coops = {}
        for name, coop in self.coops.items():
            shutil.copytree(coop.folder, place / name)
            coops[name] = Coop(name, place / name, coop.http_port, coop.libp2p_port, coop.actors)
        links = {pair: Link(link.port, link.target) for pair, link in self.links.items()}
        return Trio(coops, links, self.peerings)


def make_trio(place: Path) -> Trio:
    """Make, found and peer three cooperatives with two members each, and stop their nodes."""
    coops = {name: Coop(name, place / name, free_port(), free_port()) for name in NAMES}
    for coop in coops.values():
        make_founded(
            coop.folder,
            domain=f"{coop.name}.example",
            http_port=str(coop.http_port),
            listen=f"/ip4/{LOOPBACK}/tcp/{coop.libp2p_port}",
        )
    links = {(one, two): Link(free_port(), coops[two].libp2p_port) for one, two in itertools.permutations(NAMES, 2)}
    trio = Trio(coops, links)
    for name in NAMES:
        _write_partners(trio, name)
    with running(trio) as nodes:
        for name, coop in coops.items():
            for member in MEMBERS:
                entry, actor = application(coop.ledger, f"{name}-{member}")
                nodes[name].must_post(entry, admission(coop.ledger, actor))
                coop.actors.append(actor)
        for pair in itertools.combinations(NAMES, 2):
            _peer(trio, nodes, *pair)
        for name in NAMES:
            wait_for_witnesses(nodes[name])
    return trio


def _write_partners(trio: Trio, name: str) -> None:
    path = trio.coops[name].folder / "node.toml"
    head, tail = path.read_text(encoding="utf-8").split("\n[log]\n")
    for other in NAMES:
        if other != name:
            coop = trio.coops[other]
            address = f"/ip4/{LOOPBACK}/tcp/{trio.links[name, other].port}"
            head += f'\n[[federation.peers]]\nledger = "{coop.ledger.hex()}"\n'
            head += f'addresses = {json.dumps([address])}\nurl = "{coop.url}"\n'
    path.write_text(f"{head}\n[log]\n{tail}", encoding="utf-8")


def _peer(trio: Trio, nodes: dict[str, Raised], first: str, second: str) -> None:
    sides = {name: coop.side() for name, coop in trio.coops.items()}
    everybody = tuple(sides.values())
    statement = draft_peering(sides[first], sides[second], tuple(decider_of(one, everybody, 2) for one in everybody))
    names = (first, second)
    signatures = [sign_statement(Signer(trio.coops[name].keys.seed("agent")), statement) for name in names]
    for name in names:
        ledger = trio.coops[name].ledger
        payload = peered(statement, signatures)
        signers = (BOARD_KEY,)
        entry = build_entry(ledger, "federation.peer", payload, author=BOARD, signers=signers, now_ms=wall_ms())
        nodes[name].must_post(entry)
    trio.peerings[frozenset(names)] = decode_peering(statement)


def wait_for_witnesses(node: Raised, count: int = 2) -> None:
    """Wait until that many partners have cosigned the newest checkpoint of a node that runs."""
    for _ in node.patience():
        cosigned = node.rows(
            "SELECT count(DISTINCT substr(witness, 1, instr(witness, '+'))) FROM cosignatures "
            "JOIN head ON cosignatures.size = head.size",
        )
        if cosigned[0][0] >= count:
            return
    raise AssertionError(f"the newest checkpoint was not cosigned\n{node.log()[-4_000:]}")


@contextmanager
def running(trio: Trio, **environment: str) -> Iterator[dict[str, Raised]]:
    """Run the three nodes, and the links between them, until the block ends; name -> process."""
    with running_with_links(trio, **environment) as (nodes, _):
        yield nodes


@contextmanager
def running_with_links(trio: Trio, **environment: str) -> Iterator[tuple[dict[str, Raised], Links]]:
    """Like `running`, with the links to break."""
    with contextlib.ExitStack() as stack:
        links = stack.enter_context(Links([*trio.links.values()]))
        nursery = stack.enter_context(Nursery())
        nodes = {name: Raised(nursery, coop.folder, **SETTINGS | environment) for name, coop in trio.coops.items()}
        for node in nodes.values():
            node.start()
        for node in nodes.values():
            node.address()
        yield nodes, links
