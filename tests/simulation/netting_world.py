# SPDX-License-Identifier: AGPL-3.0-or-later
"""The simulated federation with whole rounds of clearing: calls, commitments, reveals, solutions, and their deals.

Members owe each other across the ledgers; nodes call rounds while the network is bad and nodes crash. Invariants beside
those of `federation_world`: no member's net position ever changes; both sides of an obligation end with one amount;
nothing stays held; whoever kept a round can check it, and finds the same deals as everybody else.
"""

from functools import cache

from federation_kit import FederatedKit, peer, policy
from federation_world import CHAOS_MS, NAMES, Node, World
from ledger_kit import Actor
from netting_kit import call_of, oblige, solve

from ecot_protocol.domains.federation.caller import read_round
from ecot_protocol.domains.federation.facts import ObligationCleared
from ecot_protocol.domains.federation.outputs import KeepRound, Output, Solve
from ecot_protocol.ledger.facts import Fact

RINGS = ((100, 80, 60, 90), (7, 300, 40, 40), (1, 1, 1, 1))


class NettingNode(Node):
    """A node that solves what it is asked to, some time later."""

    def start(self) -> None:
        self.rounds: dict[bytes, bytes] = getattr(self, "rounds", {})
        super().start()

    def do_one(self, output: Output) -> None:
        match output:
            case Solve():
                answer = solve(output.matched)
                delay_ms = self.world.random.randint(1, 3_000)
                self.later(delay_ms, lambda: self.do(self.courier.solved(output.call, answer, self.now)))
            case KeepRound():
                self.rounds[output.call] = output.raw
            case _:
                super().do_one(output)

    def note(self, facts: list[Fact]) -> None:
        super().note(facts)
        world = self.world
        assert isinstance(world, NettingWorld)
        world.cleared += sum(1 for fact in facts if isinstance(fact, ObligationCleared))


class NettingWorld(World):
    """A federation of three or four whose members owe each other in rings."""

    nodes: dict[bytes, Node]

    def __init__(self, seed_number: int, *, with_crashes: bool = True) -> None:
        self.cleared = 0
        super().__init__(seed_number, NettingNode, with_crashes=with_crashes)
        self.nets = {ledger: nets_of(node) for ledger, node in self.nodes.items()}

    def found(self) -> tuple[tuple[tuple[bytes, ...], ...], tuple[Actor, ...]]:
        self.count, self.is_at_par = self.random.choice((3, 4)), True
        return found_debtors(self.count)

    def plan(self) -> None:
        super().plan()
        for _ in range(4):
            self.at(self.random.randint(0, CHAOS_MS - 60_000), self.call)

    def call(self) -> None:
        """Let some node call some others to a round of clearing."""
        nodes = list(self.nodes.values())
        called = self.random.sample(nodes, self.random.randint(3, len(nodes)))
        caller, decider = self.random.choice(called), self.random.choice(nodes)
        unit = self.random.choice(("EUR", "EUR", "BART"))
        decision = policy(decider.kit, [node.kit for node in nodes])
        raw = call_of(
            [node.kit for node in called],
            decider.kit,
            self.now,
            decision=decision,
            nonce=self.random.randbytes(16),
            unit=unit,
        )
        if caller.is_up:
            caller.do(caller.courier.call(raw, caller.now))

    def check(self) -> None:
        super().check()
        for ledger, node in self.nodes.items():
            assert nets_of(node) == self.nets[ledger], "P3: a member's net position changed"

    def check_end(self) -> None:
        super().check_end()
        owed, claimed = {}, {}
        deals: dict[bytes, tuple[bytes, ...]] = {}
        for node in self.nodes.values():
            assert not len(node.kit.state.federation.holds)
            for rows, found in ((node.kit.state.federation.owed, owed), (node.kit.state.federation.claimed, claimed)):
                found.update({number: row.amount_minor for number, row in rows.items()})
            assert isinstance(node, NettingNode)
            for call, raw in node.rounds.items():
                assert deals.setdefault(call, read_round(raw).deals) == read_round(raw).deals, "a round of two minds"
        assert owed == claimed, "P2: the two sides of an obligation differ"


def nets_of(node: Node) -> dict[bytes, int]:
    """Return member -> what it is owed less what it owes."""
    nets: dict[bytes, int] = {}
    federation = node.kit.state.federation
    for sign, rows in ((-1, federation.owed), (1, federation.claimed)):
        for _, row in rows.items():
            nets[row.member] = nets.get(row.member, 0) + sign * row.amount_minor
    return {member: net for member, net in nets.items() if net}


@cache
def found_debtors(count: int) -> tuple[tuple[tuple[bytes, ...], ...], tuple[Actor, ...]]:
    """Found cooperatives that all peer, with two members each who owe in rings, within a ledger and across."""
    kits = [FederatedKit(name=name) for name in NAMES[:count]]
    members = [kit.join("ada") for kit in kits]
    others = [kit.join("bob") for kit in kits]
    deciders = [policy(kit, kits) for kit in kits]
    for number, first in enumerate(kits):
        for second in kits[number + 1 :]:
            peer(first, second, deciders=deciders)
    for ring in RINGS:
        for number, amount in zip(range(count), ring, strict=False):
            other = (number + 1) % count
            oblige(kits[number], members[number], kits[other], members[other], amount)
    for number, kit in enumerate(kits):
        oblige(kit, members[number], kit, others[number], 30 + number)
        oblige(kit, others[number], kit, members[number], 20)
    return tuple(tuple(kit.records) for kit in kits), tuple(members)
