# SPDX-License-Identifier: AGPL-3.0-or-later
"""Members of three cooperatives pay each other while nodes die and freeze, and links are cut, reset and slow.

Afterwards nothing is pending, every transfer ended the same on both sides, the accounts of every two ledgers mirror
each other, and every ledger verifies. The members' clients noticed delays, and nothing else.
"""

import asyncio
import itertools
import json
import random
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from ledger_kit import Actor
from node_kit import must_run
from process_kit import Raised
from trio_kit import NAMES, UNIT, Coop, Link, Links, Trio, make_trio, running_with_links

from ecot_client.federation import build_send
from ecot_client.node import NodeClient
from ecot_client.posting import require_recorded
from ecot_client.transport import Patience
from ecot_node.ledger import boot
from ecot_node.store.sqlite import SqliteStore
from ecot_protocol.domains.federation.deals import deal_id
from ecot_protocol.domains.federation.state import partner_account
from ecot_protocol.machine import Machine
from ecot_protocol.state import State

PATIENCE = Patience(request_s=15.0, total_s=120.0, attempts=1_000, pause_s=0.1)
SETTLE_TIMEOUT_S = 120.0
Fault = Callable[[], Awaitable[None]]


class Storm:
    """Faults, one after the other; each is over before the next begins, but for what it left behind.

    Args:
        trio: whose links it breaks.
        nodes: which it kills and freezes; all run.
        links: the proxies.
        draw: chooses.
    """

    def __init__(self, trio: Trio, nodes: dict[str, Raised], links: Links, draw: random.Random) -> None:
        self._trio, self._nodes, self._links, self._draw = trio, nodes, links, draw
        self.kills = self.faults = 0

    async def blow(self, duration_s: float) -> None:
        """Let faults happen for so long, then heal everything."""
        faults: tuple[Fault, ...] = (self._kill, self._kill, self._freeze, self._cut, self._reset, self._slow)
        end = time.monotonic() + duration_s
        while time.monotonic() < end:
            await self._draw.choice(faults)()
            self.faults += 1
            await asyncio.sleep(self._draw.uniform(0.1, 0.8))
        for link in self._trio.links.values():
            self._links.heal(link)

    def _link(self) -> Link:
        return self._draw.choice([*self._trio.links.values()])

    async def _kill(self) -> None:
        node = self._draw.choice([*self._nodes.values()])
        assert node.end() == -signal.SIGKILL
        await asyncio.sleep(self._draw.uniform(0, 1))
        node.start()
        self.kills += 1
        if self._draw.randrange(3):  # else the next fault may meet it while it starts
            await asyncio.to_thread(node.address)

    async def _freeze(self) -> None:
        node = self._draw.choice([*self._nodes.values()])
        node.freeze()
        await asyncio.sleep(self._draw.uniform(0.2, 2))
        node.thaw()

    async def _cut(self) -> None:
        link = self._link()
        self._links.cut(link)
        await asyncio.sleep(self._draw.uniform(0.2, 2))
        self._links.heal(link)

    async def _reset(self) -> None:
        self._links.reset(self._link())

    async def _slow(self) -> None:
        self._link().delay_s = self._draw.uniform(0.01, 0.3)


class Member:
    """A member who pays members of the other cooperatives, one transfer at a time."""

    def __init__(self, trio: Trio, coop: Coop, actor: Actor, client: NodeClient, draw: random.Random) -> None:
        self._trio, self._coop, self._actor, self._client, self._draw = trio, coop, actor, client, draw
        self.sent: set[bytes] = set()

    async def pay_until(self, end: float) -> None:
        """Pay somebody again and again; every payment must be recorded, whatever happens meanwhile."""
        while time.monotonic() < end:
            other = self._draw.choice([one for one in self._trio.coops.values() if one is not self._coop])
            payee = self._draw.choice(other.actors)
            peering = self._trio.peerings[frozenset((self._coop.name, other.name))]
            entry_id, send = build_send(
                peering,
                self._coop.ledger,
                self._actor.member,
                payee.member,
                self._draw.randrange(100, 2_000),
                now_ms=self._client.clock_ms(),
                statutes_version=1,
            )
            entry = await self._client.build(
                "federation.send", send, author=self._actor.member, signers=(self._actor.signer,), entry_id=entry_id
            )
            require_recorded(await self._client.post_one(entry))
            self.sent.add(deal_id(send.contract))
            await asyncio.sleep(self._draw.uniform(0.02, 0.3))


@pytest.fixture
def trio(tmp_path: Path) -> Trio:
    return make_trio(tmp_path)


async def members_of(trio: Trio, stack: AsyncExitStack, place: Path) -> list[Member]:
    members = []
    everybody = [(coop, actor) for coop in trio.coops.values() for actor in coop.actors]
    for number, (coop, actor) in enumerate(everybody):
        client = NodeClient(coop.url, place / f"client{number}", (actor.signer,), patience=PATIENCE)
        await stack.enter_async_context(client)
        members.append(Member(trio, coop, actor, client, random.Random(number)))
    return members


def transfers(node: Raised) -> dict[bytes, str]:
    """Return what each transfer became, by the node's lists."""
    return dict(node.rows("SELECT tid, status FROM transfers", file="views.db"))


async def wait_until_settled(nodes: dict[str, Raised], sent: int) -> None:
    """Wait until every transfer has ended everywhere."""
    deadline = time.monotonic() + SETTLE_TIMEOUT_S
    while time.monotonic() < deadline:
        shown = [transfers(node) for node in nodes.values()]
        if len(set().union(*shown)) == sent and not any("pending" in one.values() for one in shown):
            return
        await asyncio.sleep(0.2)
    counts = {name: [*transfers(node).values()].count("pending") for name, node in nodes.items()}
    logs = "\n".join(f"--- {name}\n{node.log()[-3_000:]}" for name, node in nodes.items())
    raise AssertionError(f"pending: {counts} of {sent}\n{logs}")


async def replayed(folder: Path) -> State:
    """Return the state that the records of a stopped node give."""
    store = SqliteStore(folder)
    await store.open(ledger=None, read_only=True)
    try:
        state = State()

        async def ignore(_entries: object) -> None: ...

        await boot.replay(Machine(), store, state, ignore)
        return state
    finally:
        await store.close()


@pytest.mark.parametrize(
    ("storm_s", "seed"), [(25.0, 1), *(pytest.param(120.0, seed, marks=pytest.mark.long) for seed in (2, 3))]
)
async def test_a_storm_over_three_nodes_leaves_every_ledger_in_agreement(
    trio: Trio, tmp_path: Path, storm_s: float, seed: int
) -> None:
    with running_with_links(trio) as (nodes, links):
        async with AsyncExitStack() as stack:
            members = await members_of(trio, stack, tmp_path)
            storm = Storm(trio, nodes, links, random.Random(seed))
            end = time.monotonic() + storm_s
            await asyncio.gather(storm.blow(storm_s), *(one.pay_until(end) for one in members))
        sent = set().union(*(one.sent for one in members))
        assert storm.kills >= 2
        assert len(sent) >= 20
        await wait_until_settled(nodes, len(sent))
        ends = [transfers(node) for node in nodes.values()]
        for node in nodes.values():
            assert node.end(signal.SIGTERM) == 0
    for tid in sent:
        assert len({one[tid] for one in ends if tid in one}) == 1
    assert {status for one in ends for status in one.values()} <= {"abort", "commit"}
    await require_agreement(trio)


async def require_agreement(trio: Trio) -> None:
    """No promise is left, accounts mirror each other, and every ledger verifies."""
    states = {name: await replayed(coop.folder) for name, coop in trio.coops.items()}
    ledgers = {name: coop.ledger for name, coop in trio.coops.items()}
    for first, second in itertools.combinations(NAMES, 2):
        pair = ((first, second), (second, first))
        accounts = [states[one].accounts.rows[partner_account(ledgers[other], UNIT)] for one, other in pair]
        assert accounts[0].balance_minor == -accounts[1].balance_minor
        assert [one.reserved_in_minor + one.reserved_out_minor for one in accounts] == [0, 0]
    assert all(not state.federation.promises for state in states.values())
    for name, coop in trio.coops.items():
        report = json.loads(must_run("verify", str(coop.folder), "--json").stdout)
        assert report["digest"] == states[name].digest().hex()
