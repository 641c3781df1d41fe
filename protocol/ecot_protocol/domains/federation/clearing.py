# SPDX-License-Identifier: AGPL-3.0-or-later
"""Clearing: check a proposed flow of mutual debts in one pass; take it apart into cycles; prove that it is the most.

An edge is a debt between two participants, ``debtor -> creditor``, and the part of it (`flow_minor`) that a round
clears. A flow is good if nothing is cleared beyond a debt and if each participant gets rid of as much debt as it gives
up in claims: then nobody's net position changes. Who found the flow, and how, does not matter: it is checked.

A flow clears the most possible if there are potentials ``p`` (one integer a participant) with, for each edge u -> v:
``p[u] - p[v] >= 1`` where the debt isn't cleared in full, and ``p[u] - p[v] <= 1`` where anything of it is cleared
(complementary slackness of the maximum circulation, each unit cleared counting 1).

>>> triangle = (Edge(0, 1, 50, 30), Edge(1, 2, 30, 30), Edge(2, 0, 90, 30))
>>> find_flow_problem(triangle, 3) is None, cycles(triangle)
(True, ((30, (0, 1, 2)),))
>>> is_optimal(triangle, (1, 0, 2)), is_optimal(triangle, (0, 0, 0))
(True, False)
>>> is_optimal(triangle, find_potentials(triangle, 3))
True
>>> find_flow_problem((Edge(0, 1, 50, 30), Edge(1, 0, 30, 29)), 2)
'conservation'

Source: Fleischman and Dini 2021 (multilateral trade-credit set-off); Ahuja, Magnanti, Orlin, *Network Flows*, 9.3.
"""

import itertools
from collections.abc import Sequence

from ecot_protocol.wire.encoding import Count, Positive, WireArray


class Edge(WireArray):
    """A debt of `amount_minor` and the part of it that is cleared; debtor and creditor are places, from 0."""

    debtor: Count
    creditor: Count
    amount_minor: Positive
    flow_minor: Count


def find_flow_problem(edges: Sequence[Edge], participant_count: int) -> str | None:
    """Return what is wrong with a flow, or None: ``edges`` (order, places), ``flow`` (beyond a debt), ``conservation``.
    Takes time in the number of edges.
    """
    pairs = [(edge.debtor, edge.creditor) for edge in edges]
    if any(first >= second for first, second in itertools.pairwise(pairs)):
        return "edges"
    if any(debtor == creditor or max(debtor, creditor) >= participant_count for debtor, creditor in pairs):
        return "edges"
    if any(edge.flow_minor > edge.amount_minor for edge in edges):
        return "flow"
    out, into = [0] * participant_count, [0] * participant_count
    for edge in edges:
        out[edge.debtor] += edge.flow_minor
        into[edge.creditor] += edge.flow_minor
    return "conservation" if out != into else None


def is_optimal(edges: Sequence[Edge], potentials: Sequence[int]) -> bool:
    """Tell whether the potentials prove that no flow on these debts clears more than this one."""
    for edge in edges:
        slope = potentials[edge.debtor] - potentials[edge.creditor]
        if (edge.flow_minor < edge.amount_minor and slope < 1) or (edge.flow_minor > 0 and slope > 1):
            return False
    return True


def find_potentials(edges: Sequence[Edge], participant_count: int) -> tuple[int, ...] | None:
    """Return potentials for `is_optimal`, or None if the flow doesn't clear the most.

    Bellman-Ford on the residual graph; participants x edges steps at the worst, for proposers and tests.
    """
    # `is_optimal` asks p[creditor] <= p[debtor] - 1 for a residual debt and p[debtor] <= p[creditor] + 1 for a cleared
    # one: shortest paths from everywhere at once.
    arcs = [(one.debtor, one.creditor, -1) for one in edges if one.flow_minor < one.amount_minor]
    arcs += [(one.creditor, one.debtor, 1) for one in edges if one.flow_minor > 0]
    potentials = [0] * participant_count
    for _ in range(participant_count + 1):
        is_settled = True
        for tail, head, cost in arcs:
            if potentials[tail] + cost < potentials[head]:
                potentials[head] = potentials[tail] + cost
                is_settled = False
        if is_settled:
            return tuple(potentials)
    return None


def cycles(edges: Sequence[Edge]) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """Take a good flow apart into (amount, participants in the order of the debts), at most one cycle an edge."""
    left: dict[int, dict[int, int]] = {}
    for edge in edges:
        if edge.flow_minor:
            left.setdefault(edge.debtor, {})[edge.creditor] = edge.flow_minor
    found: list[tuple[int, tuple[int, ...]]] = []
    while left:
        found.append(_take_cycle(left))
    return tuple(found)


def _take_cycle(left: dict[int, dict[int, int]]) -> tuple[int, tuple[int, ...]]:
    """Walk along lowest creditors until a participant comes again; take that cycle out of what is left."""
    path = [min(left)]
    while True:
        following = min(left[path[-1]])
        if following in path:
            break
        path.append(following)
    cycle = path[path.index(following) :]
    steps = list(zip(cycle, (*cycle[1:], cycle[0]), strict=True))
    amount_minor = min(left[debtor][creditor] for debtor, creditor in steps)
    for debtor, creditor in steps:
        left[debtor][creditor] -= amount_minor
        if not left[debtor][creditor]:
            del left[debtor][creditor]
        if not left[debtor]:
            del left[debtor]
    return amount_minor, tuple(cycle)


def components(edges: Sequence[Edge]) -> tuple[tuple[int, ...], ...]:
    """Return the participants of each connected component of the cleared debts, so that each can be a round alone."""
    root: dict[int, int] = {}

    def find(place: int) -> int:
        while root.setdefault(place, place) != place:
            root[place] = root[root[place]]
            place = root[place]
        return place

    for edge in edges:
        if edge.flow_minor:
            first, second = sorted((find(edge.debtor), find(edge.creditor)))
            root[second] = first
    groups: dict[int, list[int]] = {}
    for place in sorted(root):
        groups.setdefault(find(place), []).append(place)
    return tuple(tuple(group) for group in groups.values())
