# SPDX-License-Identifier: AGPL-3.0-or-later
"""A federation in one process: whole ledgers and couriers over a bad network, from one seed.

Real: rules, state, records, Merkle trees, keys, signatures, checkpoints, messages as bytes. Simulated: time, clocks
(each node's own, up to 3 s wrong), network (loss, repetition, reordering, cuts), disk (an entry is durable some time
after it changed the state; a crash keeps a prefix of what was not), reads (answered late). A history is a function of
its seed.

The invariants are P1 to P7 of docs/specification/federation.md; `World.check` looks at them after every event.
"""

import heapq
import itertools
import random
from collections.abc import Callable
from functools import cache

from federation_kit import FederatedKit, path_contract, peer, policy, send_payload
from ledger_kit import MACHINE, Actor

from ecot_protocol.domains.federation.clearing import Edge
from ecot_protocol.domains.federation.deals import Contract, Round, encode_round, transfer_of
from ecot_protocol.domains.federation.decision_log import OUTCOMES
from ecot_protocol.domains.federation.decision_witnessing import KeptDecisions
from ecot_protocol.domains.federation.facts import DealResolved
from ecot_protocol.domains.federation.messages import (
    Accepted,
    DecisionShown,
    Prepare,
    Promised,
    PushDecisions,
    decode_message,
    encode_message,
)
from ecot_protocol.domains.federation.outputs import Append, Keep, KeepLeaves, Output, ReadGrowth, ReadRecord, Tell
from ecot_protocol.domains.federation.proofs import body_of
from ecot_protocol.domains.federation.state import partner_account, transit_account
from ecot_protocol.domains.federation.transfers import SEND_PAYLOAD
from ecot_protocol.ledger.amounts import Rate
from ecot_protocol.ledger.facts import Fact
from ecot_protocol.ledger.reasons import Reason
from ecot_protocol.state import State
from ecot_protocol.wire.entry import Entry, decode_record, sign_body

TICK_MS = 1_000
SKEW_MS = 3_000
CHAOS_MS = 120_000
QUIET_MS = 900_000
"""Longest time that a healed federation may take until nothing is pending."""
NAMES = ("nord", "sud", "est", "ouest", "mer", "mont")


class Node:
    """A cooperative's node: its ledger, its disk, its courier, its clock."""

    def __init__(self, world: "World", kit: FederatedKit, member: Actor, skew_ms: int) -> None:
        self.world = world
        self.kit = kit
        self.member = member
        self.skew_ms = skew_ms
        self.kept: dict[str, bytes] = {}
        self.kept_decisions: dict[str, KeptDecisions] = {}
        self.kept_leaves: dict[str, dict[bytes, str]] = {}
        self.durable = len(kit.records)
        self.waiting: list[tuple[list[Fact], Append | None]] = []
        self.is_up = True
        self.epoch = 0
        self.outcomes: dict[bytes, str] = {}
        self.start()

    @property
    def ledger(self) -> bytes:
        return self.kit.ledger

    @property
    def now(self) -> int:
        return self.world.now + self.skew_ms

    def start(self) -> None:
        self.courier = self.kit.courier(kept=self.kept, kept_decisions=self.kept_decisions)
        self.do(self.courier.head(self.kit.head(), self.now))

    def crash(self) -> None:
        """Lose the state, the courier and a suffix of what was not durable."""
        self.is_up = False
        self.epoch += 1
        survived = self.world.random.randint(self.durable, len(self.kit.records))
        for facts, _ in self.waiting[: survived - self.durable]:
            self.note(facts)
        self.kit.records = self.kit.records[:survived]
        self.kit.tree.leaves = []
        self.kit.tree._known = {}
        self.durable, self.waiting = survived, []

    def restart(self) -> None:
        self.kit.state = replay(self.kit.records)
        self.is_up = True
        self.start()

    def submit(self, entry: Entry, append: Append | None = None) -> Reason | None:
        """Apply an entry; it is durable later."""
        self.kit.now = max(self.now, self.kit.state.received_at_ms)
        result = self.kit.submit(entry)
        if isinstance(result, Reason):
            return result
        self.waiting.append((result, append))
        self.later(self.world.random.randint(1, 40), self.sync)
        return None

    def sync(self) -> None:
        """Make what waits durable; tell the courier in the order that it is promised."""
        if not self.waiting:
            return
        group, self.waiting = self.waiting, []
        self.durable = len(self.kit.records)
        for facts, _ in group:
            self.note(facts)
        self.do(self.courier.head(self.kit.head(), self.now))
        for _, append in group:
            if append is not None:
                self.do(self.courier.recorded(append, self.now))

    def note(self, facts: list[Fact]) -> None:
        for fact in facts:
            if isinstance(fact, DealResolved):
                assert fact.tid not in self.outcomes, "P1: a deal was resolved twice"
                self.outcomes[fact.tid] = fact.outcome

    def later(self, delay_ms: int, action: Callable[[], None]) -> None:
        """Do something unless the node crashes before."""
        epoch = self.epoch
        self.world.at(delay_ms, lambda: action() if self.is_up and self.epoch == epoch else None)

    def tick(self) -> None:
        if self.is_up:
            self.do(self.courier.tick(self.now))

    def receive(self, sender: bytes, raw: bytes) -> None:
        if self.is_up:
            self.do(self.courier.receive(sender, raw, self.now))

    def do(self, outputs: list[Output]) -> None:
        for output in outputs:
            self.do_one(output)

    def do_one(self, output: Output) -> None:
        match output:
            case Tell():
                self.check_write_ahead(output)
                self.world.carry(self.ledger, output)
            case Append():
                entry = Entry(output.body, (sign_body(self.kit.agent, output.body),), ())
                reason = self.submit(entry, output)
                if reason is not None:
                    code = reason.code
                    self.world.refusals.append((output.kind, code))
                    self.later(1, lambda: self.do(self.courier.refused(output, code, self.now)))
            case ReadRecord():
                self.later(self.world.random.randint(1, 30), lambda: self.answer(output))
            case ReadGrowth():
                hashes = self.kit.tree.consistency(output.old_size, output.new_size)
                self.later(self.world.random.randint(1, 30), lambda: self.do(self.courier.grown(output, hashes)))
            case Keep():
                self.kept[output.origin] = output.checkpoint
            case KeepLeaves():
                self.keep_leaves(output)
            case _:
                raise AssertionError(f"an honest federation has no {output}")

    def answer(self, read: ReadRecord) -> None:
        self.do(self.courier.read(read, self.kit.records[read.index], self.now))

    def keep_leaves(self, kept: KeepLeaves) -> None:
        leaves = self.kept_leaves.setdefault(kept.origin, {})
        assert len(leaves) == kept.before.size, "leaves do not follow each other"
        assert not leaves.keys() & {tid for tid, _ in kept.leaves}, "P2: a deal was decided twice"
        leaves.update(kept.leaves)
        self.kept_decisions[kept.origin] = KeptDecisions(kept.frontier, kept.checkpoint)

    def check_write_ahead(self, tell: Tell) -> None:
        match tell.message:
            case Prepare(contract=raw) | Accepted(contract=raw):
                assert any(raw in record for record in self.kit.records[: self.durable]), "P5: sent before recorded"
            case DecisionShown(decision=shown):
                self.check_durable(shown.tid, shown.outcome)
            case PushDecisions(leaves=leaves):
                for leaf in leaves:
                    self.check_durable(leaf.tid, OUTCOMES[leaf.outcome])
            case _:
                pass

    def check_durable(self, tid: bytes, outcome: str) -> None:
        decided = self.kit.state.federation.decisions[tid]
        assert (decided.outcome, decided.index < self.durable) == (outcome, True), "P5: shown before durable"


class World:
    """A federation and its history.

    Args:
        seed_number: of the history.
        node_class: what runs in each node.
        with_crashes: whether nodes crash.
    """

    def __init__(self, seed_number: int, node_class: type[Node] = Node, *, with_crashes: bool = True) -> None:
        self.random = random.Random(seed_number)
        self.count = self.random.choice((2, 2, 3, 3, 4, 4, 6))
        self.is_at_par = self.random.random() < (0.7 if self.count > 2 else 0.5)
        self.with_crashes = with_crashes
        self.events: list[tuple[int, int, Callable[[], None]]] = []
        self.event_count = 0
        self.cuts: dict[frozenset[bytes], int] = {}
        self.loss = self.random.choice((0.0, 0.1, 0.25, 0.4))
        self.refusals: list[tuple[str, str]] = []
        self.sent = 0
        self.lived = 0
        records, members = self.found()
        kits = [open_kit(name, raws) for name, raws in zip(NAMES, records, strict=False)]
        self.now = max(kit.state.received_at_ms for kit in kits) + 10_000
        self.start_ms = self.now
        self.founded = {kit.ledger: kit for kit in (open_kit(*one) for one in zip(NAMES, records, strict=False))}
        """Ledgers as they began: their peerings are known to everybody, be their node down."""
        self.nodes: dict[bytes, Node] = {}
        for kit, member in zip(kits, members, strict=True):
            node = node_class(self, kit, member, self.random.randint(-SKEW_MS, SKEW_MS))
            self.nodes[node.ledger] = node
            self.every(TICK_MS, node.tick)

    def found(self) -> tuple[tuple[tuple[bytes, ...], ...], tuple[Actor, ...]]:
        """Return the records of the ledgers as they begin, and a member of each."""
        return found_federation(self.count, self.is_at_par)

    def at(self, delay_ms: int, action: Callable[[], None]) -> None:
        self.event_count += 1
        heapq.heappush(self.events, (self.now + delay_ms, self.event_count, action))

    def every(self, period_ms: int, action: Callable[[], None]) -> None:
        def again() -> None:
            action()
            self.at(period_ms, again)

        self.at(self.random.randint(1, period_ms), again)

    @property
    def is_chaos(self) -> bool:
        return self.now < self.start_ms + CHAOS_MS

    def carry(self, sender: bytes, tell: Tell) -> None:
        """Bring a message, or not, or twice."""
        raw = encode_message(tell.message)
        copies = 1
        if self.is_chaos:
            is_cut = self.cuts.get(frozenset((sender, tell.ledger)), 0) > self.now
            lost = is_cut or self.random.random() < self.loss
            copies = 0 if lost else 2 if self.random.random() < 0.1 else 1
        for _ in range(copies):
            delay_ms = self.random.randint(5, 3_000 if self.is_chaos else 200)
            self.at(delay_ms, lambda: self.nodes[tell.ledger].receive(sender, raw))

    def plan(self) -> None:
        """Lay out what people do and what goes wrong."""
        for _ in range(self.random.randint(3, 10) if self.count == 2 else self.random.randint(8, 24)):
            self.at(self.random.randint(0, CHAOS_MS - 20_000), self.pay)
        for _ in range(self.random.randint(0, 4)):
            self.at(self.random.randint(0, CHAOS_MS), self.cut)
        for _ in range(self.random.randint(0, 4) if self.with_crashes else 0):
            self.at(self.random.randint(0, CHAOS_MS), self.crash)
        if self.count > 2 and self.is_at_par:
            for _ in range(6):
                self.at(self.random.randint(20_000, CHAOS_MS), self.clear)

    def pay(self) -> None:
        """Pay over a path of any length, whose decider is any ledger, mostly the payee's."""
        nodes = self.random.sample(list(self.nodes.values()), self.random.randint(2, self.count))
        payee = nodes[-1]
        member = payee.member.member if self.random.random() < 0.85 else self.random.randbytes(16)
        decider = payee if self.random.random() < 0.4 else self.random.choice(list(self.nodes.values()))
        self.pay_over(nodes, member, self.random.choice((7, 33, 333, 20_000, 60_000)), decider)

    def pay_to(self, payer: Node, payee: Node, member: bytes, amount_minor: int) -> None:
        """Let the payer's member pay somebody in a partner ledger, whose log decides."""
        self.pay_over([payer, payee], member, amount_minor, payee)

    def pay_over(self, nodes: list[Node], member: bytes, amount_minor: int, decider: Node) -> None:
        """Let the first node's member send an amount over a path, if its node is up."""
        payer = nodes[0]
        if not payer.is_up:
            return
        kit = payer.kit
        kit.now = max(payer.now, kit.state.received_at_ms)
        entry_id = kit.new_id()
        abort_ms = kit.now + self.random.randint(60_000, 90_000) + 15_000 * (len(nodes) - 2)
        changes = {"decider": decider.ledger, "earliest_abort_ms": abort_ms}
        kits = [node.kit if node.is_up else self.founded[node.ledger] for node in nodes]
        terms = path_contract(kits, payer.member, member, amount_minor, entry_id, **changes)
        payload = send_payload(kit, terms, member)
        entry = kit.entry("federation.send", payload, entry_id=entry_id, **kit.by(payer.member))
        if payer.submit(entry) is None:
            self.sent += 1

    def cut(self) -> None:
        pair = frozenset(self.random.sample(list(self.nodes), 2))
        self.cuts[pair] = self.now + self.random.randint(1_000, 40_000)

    def crash(self) -> None:
        node = self.random.choice(list(self.nodes.values()))
        if node.is_up:
            node.crash()
            self.at(self.random.randint(100, 15_000), node.restart)

    def clear(self) -> None:
        """Let some node propose a round over the first cycle of debts, if there is one."""
        raw = self.find_round()
        proposer = self.random.choice(list(self.nodes.values()))
        if raw is not None and proposer.is_up:
            proposer.do(proposer.courier.propose(raw, proposer.now))

    def owed(self, debtor: Node, creditor: Node) -> int:
        return debtor.kit.state.accounts.balance(partner_account(creditor.ledger, "BART"))

    def find_round(self) -> bytes | None:
        nodes = list(self.nodes.values())
        for first in nodes:
            for second in nodes:
                for third in nodes:
                    if len({first.ledger, second.ledger, third.ledger}) < 3:
                        continue
                    steps = ((first, second), (second, third), (third, first))
                    amount_minor = min(self.owed(debtor, creditor) for debtor, creditor in steps)
                    if amount_minor > 0:
                        return self.make_round(steps, amount_minor)
        return None

    def make_round(self, steps: tuple[tuple[Node, Node], ...], amount_minor: int) -> bytes:
        ledgers = tuple(sorted(debtor.ledger for debtor, _ in steps))
        edges = [
            Edge(ledgers.index(debtor.ledger), ledgers.index(creditor.ledger), amount_minor, amount_minor)
            for debtor, creditor in steps
        ]
        decider = self.random.choice(list(self.nodes.values()))
        terms = Round(
            agents=tuple(self.nodes[one].kit.agent.public_key for one in ledgers),
            call=None,
            decision=policy(decider.kit, [node.kit for node in self.nodes.values()]),
            earliest_abort_ms=self.now + 45_000,
            edges=tuple(sorted(edges, key=lambda edge: (edge.debtor, edge.creditor))),
            matched=None,
            members=(),
            nonce=self.random.randbytes(16),
            potentials=(),
            pseudonyms=(),
            unit="BART",
        )
        return encode_round(terms, ledgers)

    # ------------------------------------------------------------------------------------------------- the invariants

    def check(self) -> None:
        """P1 and P2 for what is durable."""
        for tid, outcomes in self.outcomes().items():
            assert len(set(outcomes)) == 1, f"P2: {tid.hex()} ended as {outcomes}"

    def outcomes(self) -> dict[bytes, list[str]]:
        found: dict[bytes, list[str]] = {}
        for node in self.nodes.values():
            for tid, outcome in node.outcomes.items():
                found.setdefault(tid, []).append(outcome)
        return found

    def check_sums(self) -> None:
        """P1: every unit of every ledger sums to zero."""
        for node in self.nodes.values():
            sums: dict[str, int] = {}
            for key, account in node.kit.state.accounts.rows.items():
                sums[key.unit] = sums.get(key.unit, 0) + account.balance_minor
            assert set(sums.values()) <= {0}, "P1: a unit does not sum to zero"

    def is_quiet(self) -> bool:
        return all(
            node.is_up and not node.waiting and not len(node.kit.state.federation.promises)
            for node in self.nodes.values()
        )

    def run(self) -> "World":
        """Live through the chaos, then until nothing is pending."""
        self.plan()
        return self.live()

    def live(self, crash_at: tuple[int, int] | None = None, until_quiet_from: int = 0) -> "World":
        """Live until nothing is pending; `crash_at` is (count of events before it, which node)."""
        self.lived = 0
        until_quiet_from = max(until_quiet_from, self.now + 3_000 if crash_at is not None else 0)
        while self.events:
            if crash_at is not None and self.lived == crash_at[0]:
                node = list(self.nodes.values())[crash_at[1]]
                node.crash()
                self.at(2_000, node.restart)
            self.lived += 1
            self.now, _, action = heapq.heappop(self.events)
            action()
            self.check()
            self.check_sums()
            if not self.is_chaos and self.now >= until_quiet_from and self.is_quiet():
                break
            assert self.now < self.start_ms + CHAOS_MS + QUIET_MS, f"P7: {self.pending()} still pending"
        self.check_end()
        return self

    def pending(self) -> list[tuple[str, str]]:
        return [(node.kit.name, row.role) for node in self.nodes.values()
                for row in node.kit.state.federation.promises.values()]  # fmt: skip

    def check_end(self) -> None:
        nodes = list(self.nodes.values())
        for node in nodes:
            assert not len(node.kit.state.accounts.reservations)
            assert not len(node.kit.state.federation.pending)
            self.check_transit(node)
            assert replay(node.kit.records).digest() == node.kit.state.digest(), "P4: replay differs"
        for first in nodes:
            for second in nodes:
                if first is not second:
                    self.check_mirror(first, second)

    def check_round(self) -> str:
        """Return how the one round of the history ended: the same everywhere, or (``none``) nobody promised it."""
        rounds = {
            tid: {node.outcomes.get(tid) for node in self.nodes.values()}
            for tid, outcomes in self.outcomes().items()
            if len(outcomes) > 2
        }
        assert len(rounds) <= 1
        ends = next(iter(rounds.values()), {"none"})
        assert len(ends) == 1, f"a round ended as {ends}"
        return str(next(iter(ends)))

    def check_mirror(self, first: Node, second: Node) -> None:
        """The balance of each is what the contracts that both posted say, in its own unit."""
        mine = first.kit.state.accounts.balance(partner_account(second.ledger, "BART"))
        theirs = second.kit.state.accounts.balance(partner_account(first.ledger, "BART"))
        if self.is_at_par:
            assert mine == -theirs, "P2: the mirror balances differ"
            return
        agreed = sum(agreed_minor(terms, first, second) for terms in self.committed(first))
        assert mine == agreed, "P2: the balance is not what was agreed"

    def check_transit(self, node: Node) -> None:
        """P3: what passes a ledger leaves it with its fees, and nobody with more or less."""
        fees = 0
        for terms in self.committed(node):
            position = terms.path.index(node.ledger) if node.ledger in terms.path else 0
            if 0 < position < len(terms.hops):
                fee_minor = terms.fee_minor(position)
                assert fee_minor * 100 >= terms.hops[position].out_minor, "P3: less than the statutes ask for"
                fees += fee_minor
        assert node.kit.state.accounts.balance(transit_account("BART")) == fees, "P3: not the fees that were agreed"

    def committed(self, node: Node) -> list[Contract]:
        """Return the transfers that a ledger has posted."""
        every = [pair for one in self.nodes.values() for pair in _contracts(one)]
        return [terms for tid, terms in every if node.outcomes.get(tid) == "commit"]


def agreed_minor(terms: Contract, first: Node, second: Node) -> int:
    """Return what a transfer moves from the first to the second, in the first's own unit."""
    total = 0
    for (source, target), hop in zip(itertools.pairwise(terms.path), terms.hops, strict=True):
        if (source, target) == (first.ledger, second.ledger):
            total += hop.out_minor
        elif (source, target) == (second.ledger, first.ledger):
            total -= hop.in_minor
    return total


def _contracts(node: Node) -> list[tuple[bytes, Contract]]:
    found = []
    for record in node.kit.records:
        body = body_of(record)
        if body.type == "federation.send":
            deal, terms = transfer_of(SEND_PAYLOAD.decode(bytes(body.payload)).contract)
            found.append((deal.tid, terms))
    return found


def replay(records: list[bytes]) -> State:
    """Return the state of records whose signatures were checked before."""
    state = State()
    for record in records:
        MACHINE.replay(state, decode_record(record), is_verified=True)
    return state


@cache
def found_federation(count: int, is_at_par: bool) -> tuple[tuple[tuple[bytes, ...], ...], tuple[Actor, ...]]:
    """Found cooperatives that all peer with each other; returns their records and a member of each."""
    kits = [FederatedKit(name=name) for name in NAMES[:count]]
    members = tuple(kit.join("ada") for kit in kits)
    witnesses = tuple(kits)
    deciders = [policy(kit, witnesses) for kit in kits]
    for number, first in enumerate(kits):
        for second in kits[number + 1 :]:
            rate = Rate(denominator=1, numerator=1) if is_at_par else Rate(denominator=7, numerator=22)
            peer(first, second, deciders=deciders, rate=rate)
    return tuple(tuple(kit.records) for kit in kits), members


def open_kit(name: str, records: tuple[bytes, ...]) -> FederatedKit:
    """Return a kit whose ledger is the one of these records."""
    kit = FederatedKit(name=name)
    kit.records = list(records)
    kit.state = replay(kit.records)
    kit.signers = {}
    return kit


class TimeoutNode(Node):
    """What the design rejects: the payee posts when it promises and says so until the end; the payer posts when it
    hears of it, or gives up at the earliest abort by its own clock."""

    def start(self) -> None:
        self.posted: dict[bytes, bytes] = {}
        super().start()

    def tick(self) -> None:
        super().tick()
        for tid, row in [*self.kit.state.federation.promises.items()]:
            if row.role == "payee":
                self.end(tid, "commit")
            elif self.now >= row.earliest_abort_ms:
                self.end(tid, "abort")
        for tid, partner in self.posted.items():
            self.world.carry(self.ledger, Tell(partner, Promised(tid)))

    def receive(self, sender: bytes, raw: bytes) -> None:
        message = decode_message(raw)
        if not isinstance(message, Promised):
            super().receive(sender, raw)
        elif message.tid in self.kit.state.federation.promises:
            self.end(message.tid, "commit")

    def do_one(self, output: Output) -> None:
        is_promised = isinstance(output, Tell) and isinstance(output.message, Promised)
        is_decision = isinstance(output, Append) and output.kind in ("abort", "commit")
        if not is_promised and not is_decision:
            super().do_one(output)

    def end(self, tid: bytes, outcome: str) -> None:
        state = self.kit.state
        row = state.federation.settle(tid)
        if outcome == "commit" and row.role != "payer":
            self.posted[tid] = row.partners[0]
        _ = state.accounts.post(tid) if outcome == "commit" else state.accounts.void(tid)
        self.outcomes[tid] = outcome


__all__ = ["NAMES", "Node", "TimeoutNode", "World", "open_kit"]
