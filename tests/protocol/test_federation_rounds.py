# SPDX-License-Identifier: AGPL-3.0-or-later
"""Clearing: the pure algorithm, and the rules of accepting, deciding and resolving a round."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from federation_kit import FederatedKit, decide_payload, peer, peered, peering, policy, resolve_payload, send
from hypothesis import given
from hypothesis import strategies as st
from ledger_kit import DAY_MS

from ecot_protocol.domains.federation.clearing import (
    Edge,
    components,
    cycles,
    find_flow_problem,
    find_potentials,
    is_optimal,
)
from ecot_protocol.domains.federation.deals import Round, decode_deal, encode_contract, encode_round
from ecot_protocol.domains.federation.peering import EndPeering
from ecot_protocol.domains.federation.rounds import ClearAccept
from ecot_protocol.domains.federation.state import partner_account
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.wire.keys import Signer
from ecot_protocol.wire.statement import sign_statement

DEBT, CLEARED = 500, 300


class Ring:
    """Three peered cooperatives; each owes the next."""

    def __init__(self, **changes: Any) -> None:
        self.kits = [FederatedKit(name=name) for name in ("nord", "sud", "est")]
        members = [kit.join("ada") for kit in self.kits]
        deciders = [policy(kit, self.kits) for kit in self.kits]
        pairs = [(0, 1), (1, 2), (2, 0)]
        for first, second in pairs:
            peer(self.kits[first], self.kits[second], deciders=deciders, **changes)
        for first, second in pairs:
            self.pay(first, second, members)

    def pay(self, first: int, second: int, members: list[Any]) -> None:
        from federation_kit import promise_payload

        payer, payee = self.kits[first], self.kits[second]
        terms = send(payer, members[first], payee, members[second].member, DEBT)
        payee.must("federation.promise", promise_payload(payer, terms, members[second].member), **payee.by_node())
        payee.must("federation.decide", decide_payload(encode_contract(terms), "commit"), **payee.by_node())
        payload = resolve_payload(payee, [len(payee.records) - 1], self.kits[:2])
        for kit in (payer, payee):
            kit.must("federation.resolve", payload, **kit.by_node())

    @property
    def ledgers(self) -> tuple[bytes, ...]:
        return tuple(sorted(kit.ledger for kit in self.kits))

    def round(self, **changes: Any) -> bytes:
        place = {kit.ledger: self.ledgers.index(kit.ledger) for kit in self.kits}
        order = [place[kit.ledger] for kit in self.kits]
        edges = [Edge(order[i], order[(i + 1) % 3], DEBT, CLEARED) for i in range(3)]
        by_ledger = {kit.ledger: kit for kit in self.kits}
        fields: dict[str, Any] = {
            "agents": tuple(by_ledger[one].agent.public_key for one in self.ledgers),
            "decision": policy(self.kits[0], self.kits),
            "earliest_abort_ms": self.kits[0].now + 60_000,
            "edges": tuple(sorted(edges, key=lambda edge: edge.debtor)),
            "matched": None,
            "call": None,
            "members": (),
            "nonce": bytes(16),
            "potentials": (),
            "pseudonyms": (),
            "unit": "BART",
        }
        return encode_round(Round(**(fields | changes)), self.ledgers)

    def accept(self, raw: bytes) -> None:
        for kit in self.kits:
            kit.must("federation.clear_accept", ClearAccept(contract=raw), **kit.by_node())

    def acceptances(self, raw: bytes) -> tuple[bytes, ...]:
        by_ledger = {kit.ledger: kit for kit in self.kits}
        return tuple(sign_statement(by_ledger[one].agent, raw).signature for one in self.ledgers)

    def debts(self) -> list[tuple[int, int]]:
        """Return what each owes the next, on its own ledger and on the next one's."""
        found = []
        for place, kit in enumerate(self.kits):
            following = self.kits[(place + 1) % 3]
            found.append((
                kit.state.accounts.balance(partner_account(following.ledger, "BART")),
                -following.state.accounts.balance(partner_account(kit.ledger, "BART")),
            ))  # fmt: skip
        return found

    def decide(self, raw: bytes, outcome: str) -> None:
        decider = self.kits[0]
        acceptances = self.acceptances(raw) if outcome == "commit" else ()
        payload = decide_payload(raw, outcome, acceptances=acceptances)
        decider.must("federation.decide", payload, **decider.by_node())
        proof = resolve_payload(decider, [len(decider.records) - 1], self.kits[1:])
        for kit in self.kits:
            kit.must("federation.resolve", proof, **kit.by_node())


@pytest.fixture
def ring() -> Ring:
    return Ring()


def test_a_round_clears_the_same_debt_on_both_ledgers_of_each_pair(ring: Ring) -> None:
    raw = ring.round()
    ring.accept(raw)
    assert ring.debts() == [(DEBT, DEBT)] * 3
    ring.decide(raw, "commit")
    assert ring.debts() == [(DEBT - CLEARED, DEBT - CLEARED)] * 3
    for kit in ring.kits:
        assert kit.replayed().digest() == kit.state.digest()


def test_an_aborted_round_clears_nothing(ring: Ring) -> None:
    raw = ring.round()
    ring.accept(raw)
    for kit in ring.kits:
        kit.now += 60_000
    ring.decide(raw, "abort")
    assert ring.debts() == [(DEBT, DEBT)] * 3


def test_a_resolved_round_is_not_accepted_again(ring: Ring) -> None:
    raw = ring.round()
    ring.accept(raw)
    ring.decide(raw, "commit")
    last = ring.kits[2]
    assert last.refused("federation.clear_accept", ClearAccept(contract=raw), **last.by_node()) == "promise_repeated"
    last.now += 60_000
    assert last.refused("federation.clear_accept", ClearAccept(contract=raw), **last.by_node()) == "promise_repeated"
    other = ring.round(nonce=b"\x01" * 16, earliest_abort_ms=last.now + 1)
    assert last.refused("federation.clear_accept", ClearAccept(contract=other), **last.by_node()) == "debt_too_small"


def test_the_memory_of_a_resolved_round_retires(ring: Ring) -> None:
    small = tuple(msgspec.structs.replace(edge, flow_minor=100) for edge in decode_deal(ring.round()).terms.edges)  # type: ignore[union-attr]
    raw = ring.round(edges=small)
    ring.accept(raw)
    ring.decide(raw, "commit")
    for kit in ring.kits:
        kit.now += 60_000
    ring.accept(ring.round(edges=small, nonce=b"\x01" * 16))
    assert not len(ring.kits[1].state.federation.settled)
    kit = ring.kits[1]
    assert kit.refused("federation.clear_accept", ClearAccept(contract=raw), **kit.by_node()) == "promise_too_late"


Change = Callable[[Ring], bytes]


def _ended(ring: Ring) -> bytes:
    first, second = ring.kits[:2]
    first.must("federation.end_peering", EndPeering(partner=second.ledger), **first.by_board())
    return ring.round()


def _not_shared(ring: Ring) -> bytes:
    return _again(ring, shared=("market",))


def _other_rate(ring: Ring) -> bytes:
    from ecot_protocol.ledger.amounts import Rate

    return _again(ring, rate=Rate(denominator=1, numerator=2))


def _again(ring: Ring, **changes: Any) -> bytes:
    deciders = [policy(kit, ring.kits) for kit in ring.kits]
    terms = peering(ring.kits[0], ring.kits[1], sequence=2, deciders=deciders, **changes)
    first = ring.kits[0]
    first.must("federation.peer", peered(terms, ring.kits[:2]), **first.by_board())
    return ring.round()


def _agent(ring: Ring, place: int) -> bytes:
    deal = decode_deal(ring.round())
    assert isinstance(deal.terms, Round)
    agents = list(deal.terms.agents)
    agents[ring.ledgers.index(ring.kits[place].ledger)] = Signer(bytes(32)).public_key
    return ring.round(agents=tuple(agents))


def _twice(ring: Ring) -> bytes:
    raw = ring.round()
    first = ring.kits[0]
    first.must("federation.clear_accept", ClearAccept(contract=raw), **first.by_node())
    return raw


def _decided(ring: Ring) -> bytes:
    raw = ring.round()
    ring.kits[0].must("federation.decide", decide_payload(raw, "abort"), **ring.kits[0].by_node())
    return raw


def _too_much(ring: Ring) -> bytes:
    first = ring.kits[0]
    raw = ring.round()
    first.must("federation.clear_accept", ClearAccept(contract=raw), **first.by_node())
    return ring.round(nonce=b"\x01" * 16)


def _transfer(ring: Ring) -> bytes:
    from federation_kit import contract

    kits, member = ring.kits, ring.kits[0].join("zoe")
    return encode_contract(contract(kits[0], member, kits[1], bytes(16), 1, kits[0].new_id()))


ROWS: list[tuple[str, Change]] = [
    ("evidence_wrong", _transfer),
    ("evidence_wrong", lambda ring: ring.round(potentials=(0, 0, 0))),
    ("own_side_wrong", lambda ring: _agent(ring, 0)),
    ("deal_decided", _decided),
    ("promise_repeated", _twice),
    ("peer_unknown", _ended),
    ("clearing_not_shared", _not_shared),
    ("decider_not_accepted", lambda ring: ring.round(decision=policy(ring.kits[0], ring.kits[:2]))),
    ("agent_key_mismatch", lambda ring: _agent(ring, 1)),
    ("clearing_unit_wrong", _other_rate),
    ("clearing_unit_wrong", lambda ring: ring.round(unit="EUR")),
    ("promise_too_late", lambda ring: ring.round(earliest_abort_ms=ring.kits[0].now)),
    ("abort_time_out_of_range", lambda ring: ring.round(earliest_abort_ms=ring.kits[0].now + 32 * DAY_MS)),
    ("debt_too_small", _too_much),
]


@pytest.mark.parametrize(("code", "change"), ROWS)
def test_an_acceptance_is_refused(ring: Ring, code: str, change: Change) -> None:
    payload = ClearAccept(contract=change(ring))
    first = ring.kits[0]
    assert first.refused("federation.clear_accept", payload, **first.by_node()) == code


def test_only_the_node_accepts(ring: Ring) -> None:
    first, payload = ring.kits[0], ClearAccept(contract=ring.round())
    assert first.refused("federation.clear_accept", payload, **first.by_board()) == "signature_missing"


def test_a_round_is_committed_with_every_acceptance_only(ring: Ring) -> None:
    raw = ring.round()
    decider, node = ring.kits[0], ring.kits[0].by_node()
    good = ring.acceptances(raw)
    full = decide_payload(raw, "commit", acceptances=good)
    assert decider.refused("federation.decide", full, **node) == "promise_missing"
    ring.accept(raw)
    for wrong in ((), good[:2], (good[1], good[0], good[2])):
        payload = decide_payload(raw, "commit", acceptances=wrong)
        assert decider.refused("federation.decide", payload, **node) == "evidence_wrong"
    bare = decide_payload(raw, "commit", contract=None)
    assert decider.refused("federation.decide", bare, **node) == "acceptances_missing"
    assert decider.refused("federation.decide", decide_payload(raw, "abort"), **node) == "abort_too_early"
    other = ring.kits[1]
    assert other.refused("federation.decide", full, **other.by_node()) == "decider_mismatch"


# ----------------------------------------------------------------------------------------------------- the algorithm


@st.composite
def flows(draw: st.DrawFn) -> tuple[int, tuple[Edge, ...]]:
    """Draw debts and a good flow on them: a sum of cycles."""
    count = draw(st.integers(2, 6))
    flow: dict[tuple[int, int], int] = {}
    for _ in range(draw(st.integers(1, 4))):
        cycle = draw(st.permutations(range(count)))[: draw(st.integers(2, count))]
        amount = draw(st.integers(1, 100))
        for debtor, creditor in zip(cycle, (*cycle[1:], cycle[0]), strict=True):
            flow[debtor, creditor] = flow.get((debtor, creditor), 0) + amount
    extra = draw(st.dictionaries(st.sampled_from(sorted(flow)), st.integers(0, 50)))
    edges = tuple(Edge(*pair, amount + extra.get(pair, 0), amount) for pair, amount in sorted(flow.items()))
    return count, edges


@given(flows())
def test_a_sum_of_cycles_is_a_good_flow_and_comes_apart_again(drawn: tuple[int, tuple[Edge, ...]]) -> None:
    count, edges = drawn
    assert find_flow_problem(edges, count) is None
    again: dict[tuple[int, int], int] = {}
    for amount, cycle in cycles(edges):
        assert amount > 0
        assert len(set(cycle)) == len(cycle)
        for pair in zip(cycle, (*cycle[1:], cycle[0]), strict=True):
            again[pair] = again.get(pair, 0) + amount
    assert again == {(edge.debtor, edge.creditor): edge.flow_minor for edge in edges}
    parts = components(edges)
    assert sorted(place for part in parts for place in part) == sorted({edge.debtor for edge in edges})


@given(flows(), st.data())
def test_a_flow_that_is_changed_anywhere_is_found_out(drawn: tuple[int, tuple[Edge, ...]], data: st.DataObject) -> None:
    count, edges = drawn
    place = data.draw(st.integers(0, len(edges) - 1))
    change = data.draw(st.integers(-50, 50).filter(bool))
    edge = edges[place]
    flow_minor = edge.flow_minor + change
    if flow_minor < 0:
        return
    changed = (*edges[:place], msgspec.structs.replace(edge, flow_minor=flow_minor), *edges[place + 1 :])
    assert find_flow_problem(changed, count) in ("flow", "conservation")


@given(flows())
def test_a_certificate_is_found_for_the_best_flow_alone(drawn: tuple[int, tuple[Edge, ...]]) -> None:
    count, edges = drawn
    potentials = find_potentials(edges, count)
    if potentials is not None:
        assert is_optimal(edges, potentials)
    else:
        assert any(edge.flow_minor < edge.amount_minor for edge in edges)


@pytest.mark.parametrize(
    ("edges", "problem"),
    [
        ((Edge(1, 0, 5, 5), Edge(0, 1, 5, 5)), "edges"),
        ((Edge(0, 1, 5, 5), Edge(0, 1, 5, 5)), "edges"),
        ((Edge(0, 0, 5, 5), Edge(1, 1, 5, 5)), "edges"),
        ((Edge(0, 2, 5, 5), Edge(2, 0, 5, 5)), "edges"),
        ((Edge(0, 1, 5, 6), Edge(1, 0, 6, 6)), "flow"),
    ],
)
def test_a_flow_that_is_not_good_says_why(edges: tuple[Edge, ...], problem: str) -> None:
    assert find_flow_problem(edges, 2) == problem


def test_a_round_that_is_not_sound_is_malformed(ring: Ring) -> None:
    idle = tuple(msgspec.structs.replace(edge, flow_minor=0) for edge in decode_deal(ring.round()).terms.edges)  # type: ignore[union-attr]
    for changes in ({"agents": ring_agents(ring)[:2]}, {"potentials": (1,)}, {"edges": idle}, {"call": bytes(16)}):
        with pytest.raises(RemoteProtocolError, match="deal_unsound"):
            decode_deal(ring.round(**changes))


def ring_agents(ring: Ring) -> tuple[bytes, ...]:
    deal = decode_deal(ring.round())
    assert isinstance(deal.terms, Round)
    return deal.terms.agents
