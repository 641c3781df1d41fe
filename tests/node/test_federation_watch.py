# SPDX-License-Identifier: AGPL-3.0-or-later
"""A log with two writers between two honest nodes: real writers, stores and federation, over the in-memory transport.

The same keys run twice, each with a history of its own, as when an old backup is put back behind the guard's back. The
first run has its log cosigned in the east, the second in the west. The two have never met a lie: what each holds is
consistent. When they meet, both have the proof.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from federation_kit import FederatedKit, peer
from ledger_kit import seed
from writer_kit import entries_of, make_writer

from ecot_node.federation import service
from ecot_node.federation.addresses import PartnerAddresses
from ecot_node.federation.framing import Hello, encode_frame
from ecot_node.federation.guard import HistoryGuard
from ecot_node.federation.memory import MemoryNetwork, MemoryTransport
from ecot_node.federation.peer_ids import peer_id_of
from ecot_node.federation.port import PeerId
from ecot_node.federation.service import FederationService, FederationSigners
from ecot_node.federation.watching import QUESTIONS, Watching
from ecot_node.ledger.writer import Writer
from ecot_node.store.forks import ForkBoard
from ecot_node.store.memory import MemoryStore
from ecot_node.store.port import DecisionLeaf, DecisionLogState
from ecot_protocol.domains.federation import sightings
from ecot_protocol.domains.federation.decision_log import OUTCOMES, decision_hash
from ecot_protocol.domains.federation.sighting_messages import Seen, Sighting, encode_sighting
from ecot_protocol.domains.federation.statements import DECISIONS_SUFFIX
from ecot_protocol.wire.checkpoint import Checkpoint, sign_checkpoint
from ecot_protocol.wire.entry import Entry
from ecot_protocol.wire.fork import verify_fork
from ecot_protocol.wire.keys import Signer
from ecot_protocol.wire.merkle import Frontier
from ecot_protocol.wire.note import NoteSigner
from ecot_protocol.wire.reply import Recorded

TIMEOUT_S = 60
CLOCK_S = 0.02


class Address:
    """Where a partner is found."""

    def __init__(self, kit: FederatedKit, network: MemoryNetwork) -> None:
        self.ledger = kit.ledger.hex()
        self.addresses = (network.address_of(peer_of(kit)),)


def peer_of(kit: FederatedKit) -> PeerId:
    return PeerId(peer_id_of(Signer(seed(kit.name + "host")).public_key))


class Node:
    """A node without HTTP: writer, store, federation."""

    def __init__(self, kit: FederatedKit, writer: Writer, store: MemoryStore, board: ForkBoard) -> None:
        self.kit, self.writer, self.store, self.board = kit, writer, store, board
        self.federation: FederationService

    async def record(self, entries: list[Entry]) -> None:
        reply = await self.writer.submit(tuple(entries))
        assert all(isinstance(one, Recorded) for one in reply.outcomes)

    async def witnessed_size(self, origin: str) -> int:
        state = await self.store.witness_get(origin)
        return state.size if state is not None else 0


@asynccontextmanager
async def running(
    kit: FederatedKit, entries: list[Entry], partners: list[FederatedKit], network: MemoryNetwork, place: Path
) -> AsyncIterator[Node]:
    """Run a node whose ledger holds these entries."""
    store = MemoryStore()
    writer = make_writer(store, kit)
    await writer.start()
    board = ForkBoard(store)
    node = Node(kit, writer, store, board)
    await node.record(entries)
    guard = HistoryGuard(writer, store, {}, place / "restored")
    node.federation = FederationService(
        writer,
        store,
        MemoryTransport(network, peer_of(kit)),
        guard,
        board=board,
        signers=FederationSigners(
            kit.agent, NoteSigner(kit.origin + DECISIONS_SUFFIX, seed(kit.name + "log")), (kit.cosigner,)
        ),
        addresses=PartnerAddresses([Address(one, network) for one in partners]),
        hello=encode_frame(Hello(1, "test", kit.origin, kit.ledger)),
    )
    await node.federation.start()
    clock = asyncio.create_task(_let_time_pass(kit))
    try:
        yield node
    finally:
        clock.cancel()
        await node.federation.stop()
        await writer.stop()


async def _let_time_pass(kit: FederatedKit) -> None:
    """Move the clock of a node's writer, which is the kit's, with ours."""
    while True:
        await asyncio.sleep(CLOCK_S)
        kit.now += int(CLOCK_S * 1_000)


async def until(condition: object) -> None:
    """Wait until the condition (a coroutine function) is true."""
    async with asyncio.timeout(TIMEOUT_S):
        while not await condition():  # type: ignore[operator]  # noqa: ASYNC110 - stores have no events
            await asyncio.sleep(0.02)


class Cast:
    """Two honest cooperatives and one that runs twice; each is the partner of both others."""

    def __init__(self) -> None:
        self.east, self.west, self.liar = (FederatedKit(name=name) for name in ("east", "west", "liar"))
        for one, other in ((self.east, self.west), (self.east, self.liar), (self.west, self.liar)):
            peer(one, other)
        self.common = entries_of(self.liar)

    def history(self, name: str, count: int) -> list[Entry]:
        """Return further entries of the liar, that no other history has."""
        kit = FederatedKit(name="liar")
        assert kit.records[0] == self.liar.records[0]
        kit.now = self.liar.now
        for _ in range(100 * len(name)):  # ids that the common records have not used
            kit.new_id()
        for number in range(count):
            kit.join(f"{name}{number}")
        return entries_of(kit)[1:]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sightings, "SEEN_EVERY_MS", 200)
    monkeypatch.setattr(sightings, "UNPROVEN_AFTER_MS", 500)
    monkeypatch.setattr(service, "HEAD_PUSH_MS", 100)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("more", [0, 2])
async def test_a_log_with_two_histories_is_found_out_when_its_witnesses_meet(tmp_path: Path, more: int) -> None:
    cast, network = Cast(), MemoryNetwork()
    others = {"east": [cast.west, cast.liar], "west": [cast.east, cast.liar], "liar": [cast.east, cast.west]}
    async with running(cast.east, entries_of(cast.east), others["east"], network, tmp_path) as east:
        first = [*cast.common, *cast.history("first", 2)]
        async with running(cast.liar, first, others["liar"], network, tmp_path):
            await until(lambda: _is(east.witnessed_size(cast.liar.origin), len(first)))
        network.cut(peer_of(cast.east), peer_of(cast.liar))
        second = [*cast.common, *cast.history("second", 2 + more)]
        async with (
            running(cast.liar, second, others["liar"], network, tmp_path),
            running(cast.west, entries_of(cast.west), others["west"], network, tmp_path) as west,
        ):
            await until(lambda: _is(west.witnessed_size(cast.liar.origin), len(second)))
            for node in (east, west):
                await until(lambda node=node: _has_proof(node))
                for raw in node.board.proofs.values():
                    assert verify_fork(raw, [cast.liar.log.verifier]).origin == cast.liar.origin
                (watched,) = [one for one in node.federation.watched() if one.log.origin == cast.liar.origin]
                assert watched.status == "forked"
                again = ForkBoard(node.store)
                await again.load()
                assert {*again.proofs} == {*node.board.proofs}


@pytest.mark.usefixtures("quick")
async def test_a_log_that_is_gone_leaves_an_open_question_that_is_kept(tmp_path: Path) -> None:
    cast, network = Cast(), MemoryNetwork()
    others = {"east": [cast.west, cast.liar], "west": [cast.east, cast.liar], "liar": [cast.east, cast.west]}
    async with running(cast.east, entries_of(cast.east), others["east"], network, tmp_path) as east:
        first = [*cast.common, *cast.history("first", 1)]
        async with running(cast.liar, first, others["liar"], network, tmp_path):
            await until(lambda: _is(east.witnessed_size(cast.liar.origin), len(first)))
        network.cut(peer_of(cast.east), peer_of(cast.liar))
        network.cut(peer_of(cast.east), peer_of(cast.west))
        second = [*cast.common, *cast.history("second", 2)]
        async with running(cast.west, entries_of(cast.west), others["west"], network, tmp_path) as west:
            async with running(cast.liar, second, others["liar"], network, tmp_path):
                await until(lambda: _is(west.witnessed_size(cast.liar.origin), len(second)))
            network.heal(peer_of(cast.east), peer_of(cast.west))
            for node in (east, west):
                await until(lambda node=node: _is_unproven(node, cast.liar.origin))
                assert await node.store.meta_get(QUESTIONS)
                assert node.board.proofs == {}


@pytest.mark.usefixtures("quick")
async def test_an_honest_log_that_two_see_at_two_sizes_is_not_accused(tmp_path: Path) -> None:
    cast, network = Cast(), MemoryNetwork()
    others = {"east": [cast.west, cast.liar], "west": [cast.east, cast.liar], "liar": [cast.east, cast.west]}
    async with (
        running(cast.east, entries_of(cast.east), others["east"], network, tmp_path) as east,
        running(cast.west, entries_of(cast.west), others["west"], network, tmp_path) as west,
        running(cast.liar, cast.common, others["liar"], network, tmp_path) as honest,
    ):
        await until(lambda: _is(east.witnessed_size(cast.liar.origin), len(cast.common)))
        network.cut(peer_of(cast.east), peer_of(cast.liar))
        more = cast.history("honest", 2)
        await honest.record(more)
        size = len(cast.common) + len(more)
        await until(lambda: _is(west.witnessed_size(cast.liar.origin), size))
        await until(lambda: _has_seen(west, cast.liar.origin))
        await until(lambda: _has_seen(east, cast.liar.origin))
        network.heal(peer_of(cast.east), peer_of(cast.liar))
        await until(lambda: _is(east.witnessed_size(cast.liar.origin), size))
        for node in (east, west):
            await until(lambda node=node: _agrees(node, cast.liar.origin))
            assert node.board.proofs == {}


@pytest.mark.parametrize("seen", [3, 300, 600])
async def test_the_kept_leaves_of_a_decision_log_prove_that_it_forked(tmp_path: Path, seen: int) -> None:
    cast, network = Cast(), MemoryNetwork()
    origin, size = cast.liar.origin + DECISIONS_SUFFIX, 600
    signer = NoteSigner(origin, seed("liarlog"))
    leaves = [DecisionLeaf(number, number.to_bytes(16, "big"), number % 2) for number in range(size)]
    ours = Frontier.of([decision_hash(leaf.tid, OUTCOMES[leaf.outcome]) for leaf in leaves])
    theirs = Frontier.of([decision_hash(leaf.tid, OUTCOMES[1 - leaf.outcome]) for leaf in leaves[:seen]])
    kept, other = (sign_checkpoint(Checkpoint(origin, one.size, one.root()), signer) for one in (ours, theirs))
    async with running(cast.east, entries_of(cast.east), [], network, tmp_path) as east:
        state = DecisionLogState(size, b"".join(ours.hashes), kept.format())
        assert await east.store.decision_log_put(origin, old_size=None, state=state, leaves=leaves)
        watching = Watching(
            east.writer, east.store, east.board, HistoryGuard(east.writer, east.store, {}, tmp_path / "r"), _drop
        )
        await watching.start()
        await watching.tick()
        await watching.receive(cast.west.ledger, encode_sighting(Seen((other.format(),))))
        (raw,) = east.board.proofs.values()
        assert verify_fork(raw, [signer.verifier]).origin == origin


def _drop(_ledger: bytes, _message: Sighting) -> None:
    """Nobody is there to hear it."""


async def _is(size: object, expected: int) -> bool:
    return await size == expected  # type: ignore[misc]


async def _has_proof(node: Node) -> bool:
    return bool(node.board.proofs)


async def _is_unproven(node: Node, origin: str) -> bool:
    return [one.status for one in node.federation.watched() if one.log.origin == origin] == ["unproven"]


async def _has_seen(node: Node, origin: str) -> bool:
    return any(one.sources for one in node.federation.watched() if one.log.origin == origin)


async def _agrees(node: Node, origin: str) -> bool:
    found = [one for one in node.federation.watched() if one.log.origin == origin]
    return [one.status for one in found] == ["agrees"] and not node.federation._watching._watch.open_questions().items  # type: ignore[union-attr]
