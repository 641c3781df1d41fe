# SPDX-License-Identifier: AGPL-3.0-or-later
"""The solver's proposals are good, and clear the most."""

import random

import pytest

from ecot_node.domains.federation import solver
from ecot_node.domains.federation.solver import Debt, propose_flows
from ecot_protocol.domains.federation.clearing import find_flow_problem, is_optimal


def ledger(number: int) -> bytes:
    return number.to_bytes(32, "big")


def random_debts(seed: int, ledger_count: int, debt_count: int) -> list[Debt]:
    chance = random.Random(seed)
    pairs = [chance.sample(range(ledger_count), 2) for _ in range(debt_count)]
    return [Debt(ledger(debtor), ledger(creditor), chance.randint(1, 10_000)) for debtor, creditor in pairs]


@pytest.mark.parametrize("seed", range(10))
def test_each_round_is_good_and_proves_that_nothing_more_can_be_cleared(seed: int) -> None:
    proposals = propose_flows(random_debts(seed, 20, 60))
    assert proposals
    for proposal in proposals:
        assert find_flow_problem(proposal.edges, len(proposal.ledgers)) is None
        assert is_optimal(proposal.edges, proposal.potentials)
        assert list(proposal.ledgers) == sorted(proposal.ledgers)


def test_debts_without_a_cycle_clear_nothing() -> None:
    assert propose_flows([Debt(ledger(1), ledger(2), 5), Debt(ledger(2), ledger(3), 5)]) == ()
    assert propose_flows([]) == ()


def test_separate_rings_are_separate_rounds() -> None:
    pairs = [(1, 2), (2, 1), (3, 4), (4, 3)]
    proposals = propose_flows([Debt(ledger(debtor), ledger(creditor), 5) for debtor, creditor in pairs])
    assert [proposal.ledgers for proposal in proposals] == [(ledger(1), ledger(2)), (ledger(3), ledger(4))]


def test_a_component_too_large_for_a_statement_becomes_cycles(monkeypatch: pytest.MonkeyPatch) -> None:
    debts = random_debts(1, 20, 60)
    whole = sum(edge.flow_minor for one in propose_flows(debts) for edge in one.edges)
    monkeypatch.setattr(solver, "MAX_EDGES", 20)
    parts = propose_flows(debts)
    assert sum(edge.flow_minor for one in parts for edge in one.edges) == whole
    for proposal in parts:
        assert find_flow_problem(proposal.edges, len(proposal.ledgers)) is None
        assert not proposal.potentials or is_optimal(proposal.edges, proposal.potentials)


def test_several_debts_of_a_pair_add_up() -> None:
    debts = [Debt(ledger(1), ledger(2), 5), Debt(ledger(1), ledger(2), 6), Debt(ledger(2), ledger(1), 20)]
    (proposal,) = propose_flows(debts)
    assert sum(edge.flow_minor for edge in proposal.edges) == 22
