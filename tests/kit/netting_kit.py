# SPDX-License-Identifier: AGPL-3.0-or-later
"""Rounds of clearing for tests: obligations between members, calls, and a solver of its own."""

from typing import Any

from federation_kit import FederatedKit, policy
from ledger_kit import Actor

from ecot_protocol.domains.federation.deals import commit_member
from ecot_protocol.domains.federation.netting import (
    Call,
    Matched,
    Solution,
    encode_call,
    vertices_of,
)
from ecot_protocol.domains.federation.obligations import Claim, Obligation, Owe, encode_obligation


def solve(matched: Matched) -> Solution:
    """Clear the most by cancelling negative cycles of the residual graph, one after the other (Klein 1967)."""
    vertices = vertices_of(matched)
    place = {vertex: number for number, vertex in enumerate(vertices)}
    ends = [(place[edge.debtor], place[edge.creditor]) for edge in matched.edges]
    flows = [0] * len(ends)
    while ends:
        potentials, cycle = _find_cycle(len(vertices), ends, [edge.amount_minor for edge in matched.edges], flows)
        if not cycle:
            return Solution(matched.hash, tuple(flows), tuple(potentials))
        amount = min(
            matched.edges[number].amount_minor - flows[number] if is_forward else flows[number]
            for number, is_forward in cycle
        )
        for number, is_forward in cycle:
            flows[number] += amount if is_forward else -amount
    return Solution(matched.hash, (), ())


def _find_cycle(
    count: int, ends: list[tuple[int, int]], capacities: list[int], flows: list[int]
) -> tuple[list[int], list[tuple[int, bool]]]:
    """Bellman-Ford from everywhere at once; return the distances, and a negative cycle if there is one."""
    arcs = [(debtor, creditor, -1, number, True) for number, (debtor, creditor) in enumerate(ends)
            if flows[number] < capacities[number]]  # fmt: skip
    arcs += [(creditor, debtor, 1, number, False) for number, (debtor, creditor) in enumerate(ends) if flows[number]]
    distance, reached = [0] * count, [None] * count  # type: ignore[var-annotated]
    changed = -1
    for _ in range(count):
        changed = -1
        for arc in arcs:
            tail, head, cost = arc[:3]
            if distance[tail] + cost < distance[head]:
                distance[head], reached[head], changed = distance[tail] + cost, arc, head
        if changed < 0:
            return distance, []
    at = changed
    for _ in range(count):
        at = reached[at][0]
    start, cycle = at, []
    while not cycle or at != start:
        arc = reached[at]
        cycle.append((arc[3], arc[4]))
        at = arc[0]
    return distance, cycle


def oblige(debtor_kit: FederatedKit, debtor: Actor, creditor_kit: FederatedKit, creditor: Actor, amount: int) -> bytes:
    """Let two members offer what one owes the other; return the statement."""
    entry_id = debtor_kit.new_id()
    salts = (entry_id * 2, entry_id[::-1] * 2)
    raw = encode_obligation(
        Obligation(
            amount_minor=amount,
            creditor=commit_member(salts[1], creditor_kit.ledger, creditor.member),
            creditor_ledger=creditor_kit.ledger,
            debtor=commit_member(salts[0], debtor_kit.ledger, debtor.member),
            debtor_ledger=debtor_kit.ledger,
            due_ms=None,
            entry=entry_id,
            invoice=None,
            unit="EUR",
        )
    )
    owe = Owe(memo=None, obligation=raw, salt=salts[0])
    debtor_kit.must("federation.owe", owe, entry_id=entry_id, **debtor_kit.by(debtor))
    creditor_kit.must("federation.claim", Claim(memo=None, obligation=raw, salt=salts[1]), **creditor_kit.by(creditor))
    return raw


def call_of(kits: list[FederatedKit], decider: FederatedKit, now_ms: int, **changes: Any) -> bytes:
    """Return the statement of a call to these ledgers."""
    ordered = sorted(kits, key=lambda kit: kit.ledger)
    fields: dict[str, Any] = {
        "agents": tuple(kit.agent.public_key for kit in ordered),
        "commit_by_ms": now_ms + 20_000,
        "decision": policy(decider, kits),
        "earliest_abort_ms": now_ms + 90_000,
        "nonce": now_ms.to_bytes(16, "big"),
        "propose_by_ms": now_ms + 60_000,
        "reveal_by_ms": now_ms + 40_000,
        "unit": "EUR",
    }
    return encode_call(Call(**(fields | changes)), tuple(kit.ledger for kit in ordered))
