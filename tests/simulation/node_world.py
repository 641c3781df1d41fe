# SPDX-License-Identifier: AGPL-3.0-or-later
"""A federation of whole nodes in one thread, from one seed.

Real: the writer, the SQLite store and SQLite itself, boot (replay, tree, checkpoint, rollback guard), the courier and
the service that drives it, rules, keys, signatures, records, proofs, messages as bytes. Simulated: the disk under
SQLite (`sim_disk`), the network (`sim_network`), time and the loop (`sim_loop`), people and operators (here).

What can go wrong: messages lost, late, repeated, out of order; cuts; processes killed and power lost between any two
steps, and at any single operation of a disk; disks that fail, fill up, tear, and forget what they could not sync;
clocks that are wrong, and change how wrong they are; nodes that die for ever.

What must hold is P1 to P7 of docs/specification/federation.md, and of each node alone:

- what its writer has published, and so anything acknowledged, is in its log after every start, at its place (`D1`);
- it never shows two checkpoints of one size with two roots, nor any that its log does not hold in the end (`D2`);
- it comes back: no start finds the log damaged, none waits for a rollback that never was (`D3`).
"""

import asyncio
import functools
import hashlib
import itertools
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import sim_vfs
from federation_kit import FederatedKit, path_contract, policy, send_payload
from federation_world import NAMES, found_federation, open_kit
from ledger_kit import MACHINE, Actor, seed
from sim_disk import Disk
from sim_loop import Process, VirtualLoop, run, virtual_loop
from sim_network import Network, SimTransport
from sim_store import SimHost, make_store, seed_sqlite
from store_world import Faults, new_image

from ecot_node.federation.addresses import PartnerAddresses
from ecot_node.federation.framing import Hello, encode_frame
from ecot_node.federation.guard import UNASKED, HistoryGuard
from ecot_node.federation.peer_ids import peer_id_of
from ecot_node.federation.port import PeerId
from ecot_node.federation.service import FederationService, FederationSigners
from ecot_node.ledger.clock import RecordClock
from ecot_node.ledger.errors import LedgerCorrupt, NotWriting, Overloaded
from ecot_node.ledger.port import RecordedEntry
from ecot_node.ledger.writer import Writer, WriterKeys
from ecot_node.store.errors import StoreError
from ecot_node.store.forks import ForkBoard
from ecot_node.store.sqlite import SqliteStore
from ecot_protocol.domains.federation.clearing import Edge
from ecot_protocol.domains.federation.deals import Contract, Round, deal_id, encode_round
from ecot_protocol.domains.federation.facts import (
    DealDecided,
    DealResolved,
    RoundAccepted,
    TransferForwarded,
    TransferReserved,
)
from ecot_protocol.domains.federation.messages import (
    Accepted,
    DecisionShown,
    Prepare,
    Push,
    PushDecisions,
    decode_message,
)
from ecot_protocol.domains.federation.sighting_messages import (
    ForkShown,
    Seen,
    Sighting,
    decode_sighting,
    is_sighting,
)
from ecot_protocol.domains.federation.state import Promised, partner_account, transit_account
from ecot_protocol.domains.federation.statements import DECISIONS_SUFFIX
from ecot_protocol.state import State
from ecot_protocol.wire.checkpoint import Checkpoint
from ecot_protocol.wire.entry import Entry, decode_record
from ecot_protocol.wire.fork import ForkProof
from ecot_protocol.wire.note import NoteSigner, SignedNote
from ecot_protocol.wire.reply import Recorded, RecordedBefore, Refused
from ecot_protocol.wire.witness import AddCheckpointRequest

SKEW_MS = 3_000
CHAOS_S = 60.0
QUIET_S = 900.0
"""Longest time that a healed federation may take until nothing is pending."""
OPERATOR_S = (2.0, 8.0)
"""How long an operator takes to start a node again that stopped writing."""


class NoMark:
    """The file that a restore leaves; here there is none."""

    def __init__(self, is_there: bool = False) -> None:
        self.is_there = is_there

    def exists(self) -> bool:
        return self.is_there

    def unlink(self, *, missing_ok: bool) -> None:
        self.is_there = False


class Workload(Protocol):
    """What people do; a small port, for what they can do grows."""

    def act(self, world: "World") -> None:
        """Let somebody do something."""
        ...


class Payments:
    """Members pay members of other ledgers, over paths of any length, decided by any ledger."""

    def act(self, world: "World") -> None:
        chance = world.chance
        nodes = chance.sample(world.nodes, chance.randint(2, len(world.nodes)))
        member = nodes[-1].member.member if chance.random() < 0.85 else chance.randbytes(16)
        decider = nodes[-1] if chance.random() < 0.5 else chance.choice(world.nodes)
        amount_minor = chance.choice((7, 33, 333, 20_000, 60_000))
        if nodes[0].is_serving:
            world.count(f"paid over {len(nodes) - 1}")
            nodes[0].act(nodes[0].post(self.entry(world, nodes, member, amount_minor, decider)))

    def entry(
        self, world: "World", nodes: list["SimNode"], member: bytes, amount_minor: int, decider: "SimNode"
    ) -> Entry:
        kits = [node.kit_now() for node in nodes]
        payer = kits[0]
        entry_id = payer.new_id()
        abort_ms = payer.now + world.chance.randint(60_000, 75_000) + 15_000 * (len(nodes) - 2)
        changes = {"decider": decider.ledger, "earliest_abort_ms": abort_ms}
        terms = path_contract(kits, nodes[0].member, member, amount_minor, entry_id, **changes)
        payload = send_payload(payer, terms, member)
        world.contracts[deal_id(payload.contract)] = terms
        return payer.entry("federation.send", payload, entry_id=entry_id, **payer.by(nodes[0].member))


class Clearings:
    """Some node proposes a round over the first cycle of debts, if there is one."""

    def act(self, world: "World") -> None:
        proposer = world.pick()
        found = self.find(world)
        if found is not None and proposer.is_serving:
            world.count("rounds")
            proposer.act(proposer.service.propose(found))

    def find(self, world: "World") -> bytes | None:
        for steps in itertools.permutations(world.nodes, 3):
            pairs = tuple(zip(steps, (*steps[1:], steps[0]), strict=True))
            amount_minor = min(debtor.owes(creditor) for debtor, creditor in pairs)
            if amount_minor > 0 and world.is_at_par:
                return self.terms(world, pairs, amount_minor)
        return None

    def terms(self, world: "World", pairs: tuple[tuple["SimNode", "SimNode"], ...], amount_minor: int) -> bytes:
        ledgers = tuple(sorted(debtor.ledger for debtor, _ in pairs))
        by_ledger = {node.ledger: node for node in world.nodes}
        edges = [
            Edge(ledgers.index(debtor.ledger), ledgers.index(creditor.ledger), amount_minor, amount_minor)
            for debtor, creditor in pairs
        ]
        terms = Round(
            agents=tuple(by_ledger[one].kit.agent.public_key for one in ledgers),
            call=None,
            decision=policy(world.pick().kit, [node.kit for node in world.nodes]),
            earliest_abort_ms=world.wall_ms() + 45_000,
            edges=tuple(sorted(edges, key=lambda edge: (edge.debtor, edge.creditor))),
            matched=None,
            members=(),
            nonce=world.chance.randbytes(16),
            potentials=(),
            pseudonyms=(),
            unit="BART",
        )
        return encode_round(terms, ledgers)


def seen_by_all(method: Any) -> Any:
    """Let a failed assertion end the history, whoever catches it: a writer outlives its listeners' errors."""

    @functools.wraps(method)
    def call(self: Any, *args: Any) -> Any:
        try:
            return method(self, *args)
        except Exception as error:
            (self if isinstance(self, World) else self.world).failures.append(error)
            raise

    return call


class Watcher:
    """Views that a node keeps: they see what every start replays, and what every group does, through the real follower.

    Args:
        node: whose records they check.
    """

    def __init__(self, node: "SimNode") -> None:
        self.node, self.world, self.name = node, node.world, node.name
        self.size = node.first_size

    async def position(self) -> int:
        return self.size

    async def apply(self, entries: Sequence[RecordedEntry]) -> None:
        self.show(entries)

    @seen_by_all
    def show(self, entries: Sequence[RecordedEntry]) -> None:
        for one in entries:
            assert one.index == self.size, f"the views of {self.name} are shown {one.index} after {self.size}"
            self.node.publish(one)
            self.size += 1

    async def reset(self) -> None:
        self.refuse()

    @seen_by_all
    def refuse(self) -> None:
        raise AssertionError(f"D1: {self.name} has lost records that its views show")

    async def swap(self) -> None:
        """Nothing stands beside."""


class SimNode:
    """A cooperative's node: its machine, and the process on it, if there is one.

    Args:
        world: of which it is a part.
        kit: keys, and the records that it begins with.
        member: who pays and is paid.
        image: files of the disk that it begins with.
    """

    def __init__(self, world: "World", kit: FederatedKit, member: Actor, image: dict[str, bytes]) -> None:
        self.world, self.kit, self.member = world, kit, member
        self.name = kit.name
        self.ledger = kit.ledger
        self.peer_id = PeerId(peer_id_of(kit.side().host))
        self.place = f"{self.name}-{world.number}"
        self.chance = random.Random(f"{world.number} {self.name}")
        self.disk = Disk(random.Random(f"disk {world.number} {self.name}"))
        self.disk.load(image)
        sim_vfs.mount(self.place, self.disk)
        self.skew_ms = self.chance.randint(-SKEW_MS, SKEW_MS)
        self.is_dead_for_ever = False
        self.process: Process | None = None
        self.hosts: list[SimHost] = []
        self.published: list[tuple[bytes, bytes]] = []
        """(entry id, type) of each record that some process of this node has published, by index."""
        self.acknowledged: dict[bytes, int] = {}
        self.outcomes: dict[bytes, str] = {}
        self.promised: set[bytes] = set()
        self.decided: dict[bytes, str] = {}
        self.boots = 0
        self.drawn = 0
        self.first_size = len(kit.records)
        self.views = Watcher(self)

    # --- clocks and keys ---------------------------------------------------------------------------------------------

    def wall_ms(self) -> int:
        return self.world.wall_ms() + self.skew_ms

    def draw(self, count: int) -> bytes:
        return self.chance.randbytes(count)

    def kit_now(self) -> FederatedKit:
        """Return the kit with the node's clock and its state, or the last one that was seen, to build entries with."""
        if self.is_serving:
            self.kit.state = self.writer.state
        self.kit.now = max(self.wall_ms(), self.kit.state.received_at_ms)
        return self.kit

    def owes(self, other: "SimNode") -> int:
        return self.kit_now().state.accounts.balance(partner_account(other.ledger, "BART"))

    # --- life --------------------------------------------------------------------------------------------------------

    @property
    def is_up(self) -> bool:
        return self.process is not None and self.process.is_alive

    @property
    def is_serving(self) -> bool:
        return self.is_up and self.is_started

    def boot(self) -> None:
        """Start a process on what the disk holds."""
        assert not self.is_up
        self.boots += 1
        self.process = Process(self.place)
        self.is_started = False
        self.host = SimHost(self.place, self.chance, self.world.pragmas)
        self.host.slow_probability = self.world.slow_probability
        self.hosts.append(self.host)
        self.disk.on_power_lost = self.power_lost
        self.store: SqliteStore = self.world.store_of(self)
        keys = WriterKeys(self.kit.agent, seed(self.kit.name + "log"), self.draw)
        self.writer = Writer(self.store, MACHINE, keys, views=self.views, clock_of=self.clock)
        self.writer.subscribe(self.on_published)
        self.guard = HistoryGuard(self.writer, self.store, {}, self.world.mark_of(self))
        self.transport = SimTransport(self.world.network, self.peer_id, self.process)
        self.process.spawn(self.world.loop, self.start(), f"boot {self.name}")

    def clock(self, newest_ms: int) -> RecordClock:
        return RecordClock(newest_ms, wall=self.wall_ms, monotonic=lambda: int(self.world.loop.time() * 1000))

    async def start(self) -> None:
        """Do what a node does at its start, in its order."""
        try:
            await self.writer.start(ledger=self.ledger, blocked=UNASKED)
            self.check_after_replay()
            self.forks = ForkBoard(self.store)
            await self.forks.load()
            service = self.make_service()
            await self.guard.look()
            self.asking = asyncio.create_task(self.guard.hear_the_rest())
            await service.start()
        except (StoreError, OSError) as error:
            self.world.note(f"{self.name} not started: {type(error).__name__}")
            self.give_up()
            return
        except LedgerCorrupt as error:
            raise AssertionError(f"D3: {self.name} found its log damaged: {error}") from error
        self.service = service
        self.is_started = True
        self.world.note(f"{self.name} started with {self.writer.status().size}")

    def make_service(self) -> FederationService:
        log_key = self.writer.log_key
        assert log_key is not None
        return FederationService(
            self.writer,
            self.store,
            self.transport,
            self.guard,
            board=self.forks,
            signers=FederationSigners(
                self.kit.agent,
                NoteSigner(log_key.name + DECISIONS_SUFFIX, seed(self.kit.name + "log")),
                (self.kit.cosigner,),
            ),
            addresses=PartnerAddresses(),
            hello=encode_frame(Hello(1, "ecot/simulated", log_key.name, self.ledger)),
        )

    def check_after_replay(self) -> None:
        """D1: all that was published is there, at its place."""
        state = self.writer.state
        size = len(self.published) + self.first_size
        assert state.size >= size, f"D1: {self.name} published {size} records and has {state.size}"

    def give_up(self) -> None:
        """End the process in good order, as after a failed start; the operator tries again."""
        self.end()
        self.disk.kill()
        self.world.later(self.world.chance.uniform(*OPERATOR_S), self.boot_again)

    def end(self) -> None:
        if self.process is not None:
            self.process.end()
        self.world.network.started.pop(self.peer_id, None)

    def boot_again(self) -> None:
        if not self.is_up and not self.is_dead_for_ever:
            self.boot()

    def power_lost(self) -> None:
        """The disk has just lost its power, in the middle of something."""
        self.world.note(f"{self.name} lost its power at operation {self.disk.operations}")
        self.end()
        self.world.soon(self.after_power_loss)

    def after_power_loss(self) -> None:
        self.disk.plan = None
        self.disk.lose_power()
        self.world.later(self.chance.uniform(0.1, 15.0), self.boot_again)

    def die(self, *, with_power: bool, for_ever: bool = False) -> None:
        """End now, between two steps."""
        if not self.is_up:
            return
        self.world.note(f"{self.name} {'lost its power' if with_power else 'was killed'}")
        self.end()
        self.disk.plan = None
        if with_power:
            self.disk.lose_power()
        else:
            self.disk.kill()
        self.is_dead_for_ever = for_ever
        if not for_ever:
            self.world.later(self.chance.uniform(0.1, 15.0), self.boot_again)

    def look_after(self) -> None:
        """Be its operator: start it again if it has stopped writing."""
        if not self.is_serving or not self.world.is_honest(self):
            return
        status = self.writer.status()
        assert status.reason not in ("witness_ahead", "log_corrupt"), f"D3: {self.name} stopped: {status.reason}"
        if status.mode == "stopped":
            self.world.note(f"{self.name} is started again: {status.reason}")
            self.die(with_power=False)

    # --- what it publishes ------------------------------------------------------------------------------------------

    @seen_by_all
    def on_published(self, recorded: Sequence[RecordedEntry]) -> None:
        if not self.is_up:
            return
        for one in recorded:
            self.publish(one)
        self.world.check_sums(self)

    def publish(self, one: RecordedEntry) -> None:
        place = one.index - self.first_size
        known = (one.entry_id, one.tag.encode())
        self.world.note(f"{self.name} records {one.index} {one.tag} {one.entry_id.hex()}")
        if place < len(self.published):
            assert self.published[place] == known, f"D1: {self.name} has another record at {one.index}"
            return
        assert place == len(self.published), f"D1: {self.name} published {one.index} after {len(self.published)}"
        self.published.append(known)
        for fact in one.facts:
            if isinstance(fact, TransferReserved | TransferForwarded | RoundAccepted):
                self.promised.add(fact.tid)
            if isinstance(fact, DealDecided):
                self.decided[fact.tid] = fact.outcome
            if isinstance(fact, DealResolved):
                self.world.resolved(self, fact.tid, fact.outcome)

    async def post(self, entry: Entry) -> None:
        """Be the client: post an entry until it is answered."""
        try:
            reply = await self.writer.submit((entry,))
        except (NotWriting, Overloaded) as error:
            self.world.count(f"not_taken {error}")
            return
        outcome = reply.outcomes[0]
        self.world.count(f"answered {type(outcome).__name__}")
        if self.is_up and isinstance(outcome, Recorded | RecordedBefore):
            self.acknowledged[hashlib.sha256(entry.body).digest()] = outcome.index
        elif isinstance(outcome, Refused):
            self.world.count(f"refused {outcome.code}")

    def act(self, work: Any) -> None:
        """Let something be done in the node's process."""
        assert self.process is not None
        self.process.spawn(self.world.loop, work)

    def sweep(self) -> None:
        for host in self.hosts:
            host.sweep()
        sim_vfs.unmount(self.place)


class World:
    """A federation and its history; see the module.

    Args:
        number: the seed.
        payments, clearings: what people do.
        pragmas: see `SimHost`.
    """

    def __init__(
        self,
        number: int,
        *,
        payments: Workload | None = None,
        clearings: Workload | None = None,
        pragmas: tuple[str, ...] = (),
    ) -> None:
        self.number = number
        self.chance = random.Random(f"world {number}")
        self.payments, self.clearings = payments or Payments(), clearings or Clearings()
        self.pragmas = pragmas
        self.count_nodes = self.chance.choice((2, 2, 3, 3, 4))
        self.is_at_par = self.count_nodes > 2 or self.chance.random() < 0.5
        self.events: dict[str, int] = {}
        self.trace = hashlib.sha256()
        self.story: list[str] = []
        self.roots: dict[str, dict[int, bytes]] = {}
        self.contracts: dict[bytes, Contract] = {}
        self.resolutions: dict[bytes, dict[str, str]] = {}
        self.failures: list[BaseException] = []
        self.is_calm = False
        self.slow_probability = 0.01
        """That a piece of work of a disk takes up to three seconds."""

    # --- for nodes --------------------------------------------------------------------------------------------------

    def store_of(self, node: SimNode) -> SqliteStore:
        return make_store(node.host)

    def mark_of(self, node: SimNode) -> Path:
        mark: Any = NoMark()
        return mark  # type: ignore[no-any-return]

    def wall_ms(self) -> int:
        return self.start_ms + int(self.loop.time() * 1000)

    def others(self, node: SimNode) -> list[SimNode]:
        return [one for one in self.nodes if one is not node]

    def later(self, delay_s: float, action: Any) -> None:
        self.loop.call_later(delay_s, action, context=self.network.context)

    def soon(self, action: Any) -> None:
        self.loop.call_soon(action, context=self.network.context)

    def note(self, what: str) -> None:
        line = f"{self.loop.time():.4f} {what}"
        self.trace.update(line.encode())
        self.story.append(line)

    def count(self, what: str) -> None:
        self.events[what] = self.events.get(what, 0) + 1

    def is_honest(self, node: SimNode) -> bool:
        """Tell whether the invariants must hold for a node; here they must for all."""
        return node in self.nodes

    def resolved(self, node: SimNode, tid: bytes, outcome: str) -> None:
        ends = self.resolutions.setdefault(tid, {})
        assert node.name not in ends, f"P1: {node.name} resolved {tid.hex()} twice"
        ends[node.name] = outcome
        honest = {ends[one.name] for one in self.nodes if one.name in ends and self.is_honest(one)}
        assert len(honest) < 2, f"P2: {tid.hex()} ended as {ends}"
        self.count(f"resolved {outcome}")

    def check_sums(self, node: SimNode) -> None:
        """P1: every unit sums to zero."""
        sums: dict[str, int] = {}
        for key, account in node.writer.state.accounts.rows.items():
            sums[key.unit] = sums.get(key.unit, 0) + account.balance_minor
        assert not any(sums.values()), f"P1: {node.name} does not sum to zero: {sums}"

    # --- what is said -----------------------------------------------------------------------------------------------

    @seen_by_all
    def overhear(self, sender: PeerId, target: PeerId, raw: bytes) -> None:
        """Look at each message as it leaves."""
        self.trace.update(raw)
        node = self.node_of[sender]
        if is_sighting(raw):
            self.overhear_sighting(node, decode_sighting(raw))
            return
        match decode_message(raw):
            case Push(request):
                self.shown(node, AddCheckpointRequest.parse(request).note)
            case PushDecisions(leaves=leaves, checkpoint=note):
                self.shown(node, SignedNote.parse(note))
                for leaf in leaves:
                    self.check_decided(node, leaf.tid, "commit" if leaf.outcome else "abort")
            case DecisionShown(checkpoint=note, decision=decision):
                signed = SignedNote.parse(note)
                decider = self.owner_of(Checkpoint.parse(signed.text).origin)
                self.shown(decider, signed)
                self.check_decided(decider, decision.tid, decision.outcome)
            case Prepare(contract=deal) | Accepted(contract=deal):
                assert deal_id(deal) in node.promised, f"P5: {node.name} speaks of a promise before it is recorded"
            case _:
                pass

    def overhear_sighting(self, node: SimNode, message: Sighting) -> None:
        """P6: what is told of a log is what it has signed, and nobody honest is accused."""
        if isinstance(message, ForkShown):
            self.check_accused(node, ForkProof.parse(message.proof).log_key.name)
        if isinstance(message, Seen):
            self.count("sightings")
            for raw in message.checkpoints:
                note = SignedNote.parse(raw)
                self.shown(self.owner_of(Checkpoint.parse(note.text).origin), note)

    def owner_of(self, origin: str) -> SimNode:
        """Return whose log, or decision log, it is."""
        return self.by_origin[origin.removesuffix(DECISIONS_SUFFIX)]

    def check_accused(self, node: SimNode, origin: str) -> None:
        assert not self.is_honest(self.owner_of(origin)), f"P6: {node.name} accuses {origin}, which is honest"
        self.count("forks proven")

    @staticmethod
    def durable_size(node: SimNode) -> int:
        return node.first_size + len(node.published)

    def shown(self, node: SimNode, note: SignedNote) -> None:
        """D2: one history, and P5: no more than is published."""
        if not self.is_honest(node):
            return
        checkpoint = Checkpoint.parse(note.text)
        if checkpoint.origin not in (node.kit.origin, node.kit.origin + DECISIONS_SUFFIX):
            return
        roots = self.roots.setdefault(checkpoint.origin, {})
        known = roots.setdefault(checkpoint.size, checkpoint.root_hash)
        assert known == checkpoint.root_hash, f"D2: {node.name} shows two histories at {checkpoint.size}"
        most = self.durable_size(node) if checkpoint.origin == node.kit.origin else len(node.decided)
        assert checkpoint.size <= most, f"P5: {node.name} shows {checkpoint.size} of {most}"

    def check_decided(self, node: SimNode, tid: bytes, outcome: str) -> None:
        assert not self.is_honest(node) or node.decided.get(tid) == outcome, (
            f"P5: {node.name} shows a decision before it is recorded"
        )

    # --- the history ------------------------------------------------------------------------------------------------

    def run(self) -> "World":
        sim_vfs.MISTAKES.clear()
        records, members = found_federation(self.count_nodes, self.is_at_par)
        images = federation_images(self.count_nodes, self.is_at_par)
        seed_sqlite(self.number + 1)
        self.nodes: list[SimNode] = []
        try:
            with virtual_loop(self.chance) as loop:
                self.loop = loop
                self.network = Network(loop, random.Random(f"network {self.number}"))
                self.network.watch = self.overhear
                kits = [open_kit(name, raws) for name, raws in zip(NAMES, records, strict=False)]
                self.start_ms = max(kit.state.received_at_ms for kit in kits) + 10_000
                for kit, member, image in zip(kits, members, images, strict=True):
                    self.nodes.append(self.make_node(kit, member, image))
                self.node_of = {node.peer_id: node for node in self.nodes}
                self.by_origin = {node.kit.origin: node for node in self.nodes}
                run(loop, self.live())
        finally:
            for node in self.nodes:
                node.sweep()
            seed_sqlite(0)
        assert not sim_vfs.MISTAKES, sim_vfs.MISTAKES
        return self

    def make_node(self, kit: FederatedKit, member: Actor, image: dict[str, bytes]) -> SimNode:
        return SimNode(self, kit, member, image)

    async def live(self) -> None:
        for node in self.nodes:
            node.boot()
        self.plan()
        await self.until(CHAOS_S)
        self.calm()
        end_s = self.loop.time() + QUIET_S
        quiet = 0
        while quiet < 2:  # an operator may yet start a node again that has just stopped
            assert self.loop.time() < end_s, f"P7: {self.pending()} still pending"
            await self.until(self.loop.time() + 1.0)
            quiet = quiet + 1 if self.is_quiet() else 0
        await self.check_end()

    async def until(self, when_s: float) -> None:
        """Let time pass; the first failure of anything ends the history."""
        while self.loop.time() < when_s:
            await asyncio.sleep(min(0.25, max(when_s - self.loop.time(), 0.001)))
            for node in self.nodes:
                node.look_after()
            self.raise_failures()

    def raise_failures(self) -> None:
        if self.failures:
            raise self.failures[0]
        raised = [one["exception"] for one in self.loop.raised if one.get("exception") is not None]
        for error in (*self.loop.errors, *raised):
            if not self.is_expected(error):
                raise error
        self.loop.errors.clear()
        self.loop.raised.clear()

    @staticmethod
    def is_expected(error: BaseException) -> bool:
        return isinstance(error, StoreError | OSError | asyncio.CancelledError)

    def plan(self) -> None:
        """Lay out what people do and what goes wrong."""
        chance, network = self.chance, self.network
        network.loss = chance.choice((0.0, 0.1, 0.25, 0.4))
        network.repeat = 0.1
        network.delay_max_s = chance.choice((0.2, 3.0))
        for _ in range(chance.randint(3, 10)):
            self.later(chance.uniform(0.5, CHAOS_S - 5), self.pay)
        for _ in range(chance.randint(0, 8) if self.count_nodes > 2 else 0):
            self.later(chance.uniform(15.0, CHAOS_S), self.clear)
        for _ in range(chance.randint(0, 4)):
            self.later(chance.uniform(0, CHAOS_S), self.cut)
        for _ in range(chance.randint(0, 5)):
            self.later(chance.uniform(0.2, CHAOS_S), self.crash)
        for _ in range(chance.randint(0, 5)):
            self.later(chance.uniform(0.2, CHAOS_S), self.fault)
        for _ in range(chance.randint(0, 2)):
            self.later(chance.uniform(0.2, CHAOS_S), self.set_clock)
        if self.count_nodes > 2 and chance.random() < 0.25:
            self.later(chance.uniform(10.0, CHAOS_S), self.lose_one)

    def pick(self) -> SimNode:
        return self.chance.choice(self.nodes)

    def pay(self) -> None:
        self.payments.act(self)

    def clear(self) -> None:
        self.clearings.act(self)

    def cut(self) -> None:
        one, other = self.chance.sample(self.nodes, 2)
        self.network.cut(one.peer_id, other.peer_id, self.chance.uniform(1.0, 40.0))

    def crash(self) -> None:
        self.pick().die(with_power=self.chance.random() < 0.6)

    def fault(self) -> None:
        kind = self.chance.choice(("power", "power", "error", "full", "torn", "forget"))
        lasting = self.chance.choice((1, 1, 2, 20)) if kind != "power" else 1
        self.pick().disk.plan = Faults(self.chance.randint(1, 150), kind, lasting)

    def set_clock(self) -> None:
        self.pick().skew_ms = self.chance.randint(-SKEW_MS, SKEW_MS)

    def lose_one(self) -> None:
        self.note("a node dies for ever")
        self.pick().die(with_power=True, for_ever=True)

    def calm(self) -> None:
        """Heal everything."""
        self.is_calm = True
        self.network.loss = self.network.repeat = 0.0
        self.network.delay_max_s = 0.2
        self.network.cuts.clear()
        for node in self.nodes:
            node.disk.plan = None

    # --- the end ----------------------------------------------------------------------------------------------------

    def living(self) -> list[SimNode]:
        """Return the nodes that may be waited for."""
        return [node for node in self.nodes if not node.is_dead_for_ever]

    def pending(self) -> list[tuple[str, str]]:
        """Return what waits although its decider lives, and a quorum of the witnesses."""
        living = {node.ledger for node in self.living()}
        return [
            (node.name, row.role)
            for node in self.living()
            if node.is_serving
            for row in node.writer.state.federation.promises.values()
            if self.can_resolve(row, living)
        ]

    @staticmethod
    def can_resolve(row: Promised, living: set[bytes]) -> bool:
        witnesses = sum(one.ledger in living for one in row.decision.witnesses)
        return row.decision.ledger in living and witnesses >= row.decision.count

    def is_quiet(self) -> bool:
        return all(node.is_serving for node in self.living()) and not self.pending()

    async def check_end(self) -> None:
        for node in self.living():
            assert node.process is not None
            await node.process.spawn(self.loop, self.check_log(node))
        if any(node.is_dead_for_ever for node in self.nodes):
            return  # a deal whose decider is lost may be posted by nobody yet, and by some later
        for node in self.living():
            self.check_transit(node)
            for other in self.others(node):
                self.check_mirror(node, other)

    async def check_log(self, node: SimNode) -> None:
        """D1, D2, P4, P6: the log holds what it must, replays to the state, and nobody honest is accused."""
        for raw in node.forks.proofs.values():
            self.check_accused(node, ForkProof.parse(raw).log_key.name)
        assert node.service is not None
        for one in node.service.watched():
            if one.status == "forked":
                self.check_accused(node, one.log.origin)
        size, digest = await node.writer.read(lambda state: (state.size, state.digest()))
        rows = [row async for batch in node.store.replay() for row in batch][:size]
        state = State()
        for row in rows:
            MACHINE.replay(state, decode_record(row.record), is_verified=True)
        assert (state.size, state.digest()) == (size, digest), f"P4: {node.name} replays to another state"
        bodies = {hashlib.sha256(decode_record(row.record).body).digest(): row.index for row in rows}
        for body_hash, index in node.acknowledged.items():
            assert bodies.get(body_hash) == index, f"D1: {node.name} lost an acknowledged entry"
        node.kit.records = [row.record for row in rows]
        node.kit.grow()
        for size, root in self.roots.get(node.kit.origin, {}).items():
            assert node.kit.tree.root(size) == root, f"D2: {node.name} showed a history of {size} that is not its own"

    def check_mirror(self, first: SimNode, second: SimNode) -> None:
        """P2: each balance is the other's, or, where units differ, what was agreed deal by deal."""
        mine, theirs = first.owes(second), second.owes(first)
        if self.is_at_par:
            assert mine == -theirs, f"P2: the mirrors of {first.name} and {second.name} differ: {mine}, {theirs}"
        else:
            agreed = sum(agreed_minor(terms, first.ledger, second.ledger) for terms in self.committed(first))
            assert mine == agreed, f"P2: {first.name} owes {second.name} {mine}, agreed was {agreed}"

    def check_transit(self, node: SimNode) -> None:
        """P3: what passes a ledger leaves it with the fees that were agreed, and nothing else."""
        fees = 0
        for terms in self.committed(node):
            position = terms.path.index(node.ledger)
            fees += terms.fee_minor(position) if 0 < position < len(terms.hops) else 0
        kept = node.writer.state.accounts.balance(transit_account("BART"))
        assert kept == fees, f"P3: {node.name} kept {kept} of what passed it, agreed was {fees}"

    def committed(self, node: SimNode) -> list[Contract]:
        """Return the transfers that a ledger has posted."""
        ends = ((terms, self.resolutions.get(tid, {})) for tid, terms in self.contracts.items())
        return [terms for terms, by in ends if by.get(node.name) == "commit" and node.ledger in terms.path]

    @property
    def digest(self) -> str:
        """Return what two runs of one seed have in common: every message, event and byte written."""
        whole = self.trace.copy()
        for node in self.nodes:
            whole.update(node.disk.trace.digest())
        return whole.hexdigest()


_images: dict[tuple[int, bool], list[dict[str, bytes]]] = {}


def agreed_minor(terms: Contract, first: bytes, second: bytes) -> int:
    """Return what a transfer moves from the first ledger to the second, in the first's own unit."""
    total = 0
    for (source, target), hop in zip(itertools.pairwise(terms.path), terms.hops, strict=True):
        if (source, target) == (first, second):
            total += hop.out_minor
        elif (source, target) == (second, first):
            total -= hop.in_minor
    return total


def federation_images(count: int, is_at_par: bool) -> list[dict[str, bytes]]:
    """Return the disks of a founded federation, written once by the real writer and store."""
    if (count, is_at_par) not in _images:
        records, _ = found_federation(count, is_at_par)
        _images[count, is_at_par] = [
            _make_image(open_kit(name, raws)) for name, raws in zip(NAMES, records, strict=False)
        ]
    return _images[count, is_at_par]


def _make_image(kit: FederatedKit) -> dict[str, bytes]:
    disk = Disk(random.Random(0))
    disk.load(new_image(None))
    sim_vfs.mount("founding", disk)
    seed_sqlite(1)
    host = SimHost("founding", random.Random(0))
    now = [0]

    async def write() -> None:
        keys = WriterKeys(kit.agent, seed(kit.name + "log"), random.Random(0).randbytes)
        clock = lambda newest: RecordClock(newest, wall=lambda: now[0], monotonic=lambda: now[0])  # noqa: E731
        writer = Writer(make_store(host), MACHINE, keys, clock_of=clock)
        await writer.start()
        for raw in kit.records:
            record = decode_record(raw)
            now[0] = record.received_at_ms
            writer._clock = clock(now[0])
            reply = await writer.submit((Entry(record.body, record.signatures, ()),))
            assert isinstance(reply.outcomes[0], Recorded), reply.outcomes
        await writer.stop()

    with virtual_loop(random.Random(0)) as loop:
        run(loop, write())
    host.sweep()
    image = disk.image()
    sim_vfs.unmount("founding")
    return image


__all__ = ["Clearings", "Payments", "SimNode", "VirtualLoop", "Workload", "World"]
