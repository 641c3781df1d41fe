# SPDX-License-Identifier: AGPL-3.0-or-later
"""Find how much of the debts between ledgers can be cleared: a maximum circulation, by OR-tools.

What it finds is a proposal: every ledger checks it by `ecot_protocol.domains.federation.clearing`, and nobody has to
trust, or to own, this solver. Two solvers agree on the total and not on the flow.

Each connected component becomes a round of its own, so that one silent node spoils no other. A component too large for
one statement is taken apart into its cycles, a round each.

>>> north, south, east = b"n" * 32, b"s" * 32, b"e" * 32
>>> found = propose_flows([Debt(north, south, 50), Debt(south, east, 30), Debt(east, north, 90)])
>>> [(len(one.ledgers), sum(edge.flow_minor for edge in one.edges), one.potentials != ()) for one in found]
[(3, 90, True)]

Source: Fleischman and Dini 2021 (multilateral trade-credit set-off as a minimum-cost flow).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from ecot_protocol.domains.federation.clearing import Edge, components, cycles, find_flow_problem, find_potentials
from ecot_protocol.domains.federation.deals import MAX_EDGES
from ecot_protocol.errors import EcotError
from ecot_protocol.wire.encoding import MAX_INTEGER
from ecot_protocol.wire.statement import MAX_LEDGERS

MAX_DEBTS: Final = 1_000_000


class ClearingFailed(EcotError):
    """Report that the solver found no flow; its status is the argument."""


@dataclass(frozen=True, slots=True)
class Debt:
    """`debtor` owes `creditor` (ledger ids, 32 bytes) an amount from 1, in minor units of the round's unit."""

    debtor: bytes
    creditor: bytes
    amount_minor: int


@dataclass(frozen=True, slots=True)
class Proposal:
    """The flow of one round.

    Attributes:
        ledgers: participants, ascending.
        edges: debts between them and what is cleared of each; a good flow.
        potentials: proof that nothing more can be cleared among them; empty if the round is a part of something larger.
    """

    ledgers: tuple[bytes, ...]
    edges: tuple[Edge, ...]
    potentials: tuple[int, ...]


def propose_flows(debts: Sequence[Debt]) -> tuple[Proposal, ...]:
    """Return rounds that together clear as much debt as possible; none if nothing can be cleared.

    Args:
        debts: at most `MAX_DEBTS`; several between the same two ledgers are added up.

    Raises:
        ClearingFailed: the solver gave up, or the debts are too many.
    """
    ledgers, capacities = _number(debts)
    if not capacities:
        return ()
    flows = _solve(capacities)
    edges = [Edge(*pair, amount, flow) for (pair, amount), flow in zip(capacities.items(), flows, strict=True)]
    proposals: list[Proposal] = []
    for places in components(edges):
        inside = set(places)
        among = [edge for edge in edges if edge.debtor in inside and edge.creditor in inside]
        proposals += _rounds(ledgers, among, places)
    return tuple(proposals)


def _number(debts: Iterable[Debt]) -> tuple[tuple[bytes, ...], dict[tuple[int, int], int]]:
    sums: dict[tuple[bytes, bytes], int] = {}
    for debt in debts:
        pair = (debt.debtor, debt.creditor)
        sums[pair] = min(sums.get(pair, 0) + debt.amount_minor, MAX_INTEGER)
    if len(sums) > MAX_DEBTS:
        raise ClearingFailed(f"{len(sums)} debts: expected at most {MAX_DEBTS}")
    ledgers = tuple(sorted({ledger for pair in sums for ledger in pair}))
    place = {ledger: number for number, ledger in enumerate(ledgers)}
    numbered = {(place[debtor], place[creditor]): amount for (debtor, creditor), amount in sums.items()}
    return ledgers, dict(sorted(numbered.items()))


def _solve(capacities: dict[tuple[int, int], int]) -> list[int]:
    from ortools.graph.python import min_cost_flow

    solver = min_cost_flow.SimpleMinCostFlow()
    arcs = [
        # Each unit of debt that is cleared earns 1; a circulation has no supplies.
        solver.add_arc_with_capacity_and_unit_cost(debtor, creditor, amount, -1)
        for (debtor, creditor), amount in capacities.items()
    ]
    status = solver.solve()
    if status != solver.OPTIMAL:
        raise ClearingFailed(f"min-cost flow: {status}")
    return [int(solver.flow(arc)) for arc in arcs]


def _rounds(ledgers: Sequence[bytes], edges: Sequence[Edge], places: Sequence[int]) -> list[Proposal]:
    if len(places) <= MAX_LEDGERS and len(edges) <= MAX_EDGES:
        return [_proposal(ledgers, edges, places, is_whole=True)]
    amounts = {(edge.debtor, edge.creditor): edge.amount_minor for edge in edges}
    proposals = []
    for flow_minor, cycle in cycles(edges):
        steps = zip(cycle, (*cycle[1:], cycle[0]), strict=True)
        ring = [Edge(*pair, amounts[pair], flow_minor) for pair in steps]
        if len(cycle) <= MAX_LEDGERS:
            proposals.append(_proposal(ledgers, ring, sorted(cycle), is_whole=False))
    return proposals


def _proposal(ledgers: Sequence[bytes], edges: Sequence[Edge], places: Sequence[int], *, is_whole: bool) -> Proposal:
    new_place = {place: number for number, place in enumerate(places)}
    renumbered = sorted(
        (Edge(new_place[edge.debtor], new_place[edge.creditor], edge.amount_minor, edge.flow_minor) for edge in edges),
        key=lambda edge: (edge.debtor, edge.creditor),
    )
    problem = find_flow_problem(renumbered, len(places))
    assert problem is None, f"the solver's flow is wrong: {problem}"
    potentials = find_potentials(renumbered, len(places)) if is_whole else ()
    return Proposal(tuple(ledgers[place] for place in places), tuple(renumbered), potentials or ())
