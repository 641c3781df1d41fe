# SPDX-License-Identifier: AGPL-3.0-or-later
"""Solve a round of clearing: the most that can be cleared of what matched, by OR-tools, with the proof of it.

Every ledger of the round checks what is found here (`ecot_protocol.domains.federation.netting`), and nobody has to
trust, or to own, this solver.

>>> from ecot_protocol.domains.federation.netting import Matched, MatchedEdge, Vertex, is_most
>>> north, south, east = Vertex(0, b""), Vertex(1, b""), Vertex(2, b"")
>>> ring = ((north, south, 50), (south, east, 30), (east, north, 90))
>>> matched = Matched(tuple(MatchedEdge(debtor, creditor, b"", amount) for debtor, creditor, amount in ring), bytes(32))
>>> found = solve_round(matched)
>>> found.flows, is_most(matched, found)
((30, 30, 30), True)
"""

from collections import deque
from collections.abc import Sequence

from ecot_node.domains.federation.solver import ClearingFailed
from ecot_protocol.domains.federation.netting import Matched, Solution, vertices_of


def solve_round(matched: Matched) -> Solution:
    """Return a flow that clears the most, and potentials that prove it.

    Raises:
        ClearingFailed: the solver gave up.
    """
    from ortools.graph.python import min_cost_flow

    vertices = vertices_of(matched)
    place = {vertex: number for number, vertex in enumerate(vertices)}
    ends = [(place[edge.debtor], place[edge.creditor]) for edge in matched.edges]
    solver = min_cost_flow.SimpleMinCostFlow()
    for (debtor, creditor), edge in zip(ends, matched.edges, strict=True):
        # Each unit of debt that is cleared earns 1; a circulation has no supplies.
        solver.add_arc_with_capacity_and_unit_cost(debtor, creditor, edge.amount_minor, -1)
    status = solver.solve()
    if status != solver.OPTIMAL:
        raise ClearingFailed(f"min-cost flow: {status}")
    flows = tuple(int(solver.flow(arc)) for arc in range(len(ends)))
    return Solution(matched.hash, flows, find_potentials(len(vertices), ends, matched, flows))


def find_potentials(
    count: int, ends: Sequence[tuple[int, int]], matched: Matched, flows: Sequence[int]
) -> tuple[int, ...]:
    """Return shortest distances in the residual graph, from everywhere at once (Bellman-Ford with a queue).

    Args:
        count: of the vertices.
        ends: debtor and creditor of each debt, as places.
        matched: the debts.
        flows: what is cleared of each; as much as possible, or this would not end.
    """
    arcs: list[list[tuple[int, int]]] = [[] for _ in range(count)]
    for (debtor, creditor), edge, flow_minor in zip(ends, matched.edges, flows, strict=True):
        if flow_minor < edge.amount_minor:
            arcs[debtor].append((creditor, -1))
        if flow_minor:
            arcs[creditor].append((debtor, 1))
    distance = [0] * count
    waiting = deque(range(count))
    is_waiting = [True] * count
    while waiting:
        tail = waiting.popleft()
        is_waiting[tail] = False
        for head, cost in arcs[tail]:
            if distance[tail] + cost < distance[head]:
                distance[head] = distance[tail] + cost
                if distance[head] < -count:
                    raise ClearingFailed("the solver's flow is not the most")
                if not is_waiting[head]:
                    is_waiting[head] = True
                    waiting.append(head)
    return tuple(distance)
