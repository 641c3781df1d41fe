# SPDX-License-Identifier: AGPL-3.0-or-later
"""Rounds before their deals: obligations offered, commitments, reveals, what matches, which flow wins, its deals."""

import random
from typing import Any

import msgspec
import pytest
from federation_kit import FederatedKit, peer, policy
from hypothesis import given
from hypothesis import strategies as st
from ledger_kit import Actor, seed
from netting_kit import call_of, oblige, solve

from ecot_protocol.domains.federation.caller import MAX_OPEN_EACH, MAX_SOLUTIONS_EACH, Boards, root_statement
from ecot_protocol.domains.federation.calls import ClearCommit, offers_of
from ecot_protocol.domains.federation.deals import deal_id, decode_deal, encode_round
from ecot_protocol.domains.federation.netting import (
    REVEAL,
    SOLUTION,
    MemberOffer,
    PartnerOffer,
    Reveal,
    Solution,
    Vertex,
    decode_call,
    decode_reveal,
    find_solution_problem,
    is_most,
    match,
    rank,
    reveal_root,
    split,
)
from ecot_protocol.domains.federation.netting_messages import Committed, Revealed, Solved
from ecot_protocol.domains.federation.obligations import (
    MAX_OBLIGATIONS_EACH,
    Claim,
    Owe,
    WithdrawObligation,
    decode_obligation,
    encode_obligation,
)
from ecot_protocol.domains.federation.rounds import ClearAccept, resolve_round
from ecot_protocol.domains.federation.work import Work
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.wire.keys import Signer


class Three:
    """Three peered cooperatives with a member each; each member owes the next one's 100, 80, 60 euros."""

    def __init__(self) -> None:
        self.kits = [FederatedKit(name=name) for name in ("nord", "sud", "est")]
        self.members = [kit.join("ada") for kit in self.kits]
        deciders = [policy(kit, self.kits) for kit in self.kits]
        for first, second in ((0, 1), (1, 2), (2, 0)):
            peer(self.kits[first], self.kits[second], deciders=deciders)
        self.statements = [
            oblige(self.kits[i], self.members[i], self.kits[j], self.members[j], amount)
            for i, j, amount in ((0, 1, 100), (1, 2, 80), (2, 0, 60))
        ]
        self.call = call_of(self.kits, self.kits[0], self.kits[0].now)
        self.called = decode_call(self.call)

    def reveals(self) -> dict[int, Reveal]:
        return {
            self.called.ledgers.index(kit.ledger): offers_of(kit.state, self.called, bytes([number]) * 32)
            for number, kit in enumerate(self.kits)
        }

    def deals(self) -> tuple[bytes, ...]:
        matched = match(self.called, self.reveals())
        return split(self.called, matched, solve(matched))

    def owed(self, number: int) -> tuple[int, int]:
        """Return what is owed, and of it held, on the debtor's side of an obligation; nothing once it is forgotten."""
        row = self.kits[number].state.federation.owed.get(deal_id(self.statements[number]))
        return (0, 0) if row is None else (row.amount_minor, row.held_minor)


@pytest.fixture(scope="module")
def built() -> Three:
    return Three()


@pytest.fixture
def three() -> Three:
    return Three()


def test_what_members_owe_each_other_is_cleared_on_all_three_ledgers(three: Three) -> None:
    (raw,) = three.deals()
    tid = decode_deal(raw).tid
    for kit in three.kits:
        kit.must("federation.clear_accept", ClearAccept(contract=raw), **kit.by_node())
        assert tid in kit.state.federation.promises
    assert [three.owed(number) for number in range(3)] == [(100, 60), (80, 60), (60, 60)]
    for kit in three.kits:
        kit.state.federation.settle(tid)
        cleared = resolve_round(kit.state, tid, is_committed=True)
        assert len(cleared) == 2
    assert [three.owed(number) for number in range(3)] == [(40, 0), (20, 0), (0, 0)]
    assert not any(len(kit.state.federation.holds) for kit in three.kits)


def test_an_aborted_round_leaves_everything_owed(three: Three) -> None:
    (raw,) = three.deals()
    kit = three.kits[0]
    before = kit.state.federation.owed.get(deal_id(three.statements[0]))
    kit.must("federation.clear_accept", ClearAccept(contract=raw), **kit.by_node())
    kit.state.federation.settle(decode_deal(raw).tid)
    assert resolve_round(kit.state, decode_deal(raw).tid, is_committed=False) == []
    assert kit.state.federation.owed.get(deal_id(three.statements[0])) == before


def test_an_obligation_counts_only_if_both_sides_offer_it(three: Three) -> None:
    creditor, member = three.kits[1], three.members[1]
    withdraw = WithdrawObligation(is_debtor=False, obligation=deal_id(three.statements[0]))
    creditor.must("federation.withdraw_obligation", withdraw, **creditor.by(member))
    assert len(match(three.called, three.reveals()).edges) == 2
    assert three.deals() == ()


def test_what_a_round_holds_cannot_be_withdrawn(three: Three) -> None:
    (raw,) = three.deals()
    kit, member = three.kits[0], three.members[0]
    kit.must("federation.clear_accept", ClearAccept(contract=raw), **kit.by_node())
    withdraw = WithdrawObligation(is_debtor=True, obligation=deal_id(three.statements[0]))
    assert kit.refused("federation.withdraw_obligation", withdraw, **kit.by(member)) == "obligation_held"
    stranger = kit.join("zoe")
    assert kit.refused("federation.withdraw_obligation", withdraw, **kit.by(stranger)) == "obligation_unknown"


def _obligation(kit: FederatedKit, raw: bytes, **changes: Any) -> bytes:
    return encode_obligation(msgspec.structs.replace(decode_obligation(raw)[1], **changes))


def test_offers_are_refused_for_a_reason(three: Three) -> None:
    kit, member = three.kits[0], three.members[0]
    raw = three.statements[0]
    known = decode_obligation(raw)[1]
    owe = Owe(memo=None, obligation=raw, salt=known.entry * 2)
    assert kit.refused("federation.owe", owe, **kit.by(member)) == "contract_mismatch"  # it names the entry's id
    entry_id = kit.new_id()
    for changes, code in (
        ({"unit": "XYZ", "entry": entry_id}, "clearing_unit_wrong"),
        ({"debtor": bytes(32), "entry": entry_id}, "contract_mismatch"),
        ({"debtor_ledger": three.kits[1].ledger, "entry": entry_id}, "contract_mismatch"),
    ):
        bad = Owe(memo=None, obligation=_obligation(kit, raw, **changes), salt=known.entry * 2)
        assert kit.refused("federation.owe", bad, entry_id=entry_id, **kit.by(member)) == code
    claim = Claim(memo=None, obligation=raw, salt=known.entry[::-1] * 2)
    creditor = three.kits[1]
    assert creditor.refused("federation.claim", claim, **creditor.by(three.members[1])) == "obligation_known"
    assert creditor.refused("federation.claim", claim, **creditor.by(creditor.join("bob"))) == "contract_mismatch"


def test_a_member_offers_a_bounded_number(three: Three) -> None:
    kit, member = three.kits[0], three.members[0]
    kit.state.federation.offers[member.member] = MAX_OBLIGATIONS_EACH
    with pytest.raises(AssertionError, match="obligations_too_many"):
        oblige(kit, member, three.kits[1], three.members[1], 5)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda terms: {"members": terms.members[:-1]}, "deal_unsound"),
        (lambda terms: {"pseudonyms": terms.pseudonyms[::-1]}, "deal_unsound"),
        (lambda terms: {"matched": None}, "deal_unsound"),
        (lambda terms: {"call": None, "matched": None}, "deal_unsound"),
    ],
)
def test_a_deal_that_is_not_sound_is_refused(built: Three, change: Any, code: str) -> None:
    (raw,) = built.deals()
    deal = decode_deal(raw)
    bad = encode_round(msgspec.structs.replace(deal.terms, **change(deal.terms)), deal.ledgers)
    with pytest.raises(RemoteProtocolError) as error:
        decode_deal(bad)
    assert error.value.code == code


def test_a_deal_beyond_what_is_owed_is_refused(three: Three) -> None:
    (raw,) = three.deals()
    deal = decode_deal(raw)
    kit = three.kits[2]
    members = tuple(msgspec.structs.replace(edge, flow_minor=61) for edge in deal.terms.members)
    more = encode_round(msgspec.structs.replace(deal.terms, members=members), deal.ledgers)
    assert kit.refused("federation.clear_accept", ClearAccept(contract=more), **kit.by_node()) == "debt_too_small"


def test_a_pseudonym_that_joins_two_members_is_refused(three: Three) -> None:
    """Else a lying round could pay one member's debt with another's claim."""
    nord, sud = three.kits[0], three.kits[1]
    bob = nord.join("bob")
    oblige(nord, bob, sud, three.members[1], 60)
    matched = match(three.called, three.reveals())
    (raw,) = three.deals()
    deal = decode_deal(raw)
    other = next(
        edge for edge in matched.edges
        if edge.obligation and edge.obligation not in {one.obligation for one in deal.terms.members}
    )  # fmt: skip
    mine = deal_id(three.statements[0])
    swapped = (
        msgspec.structs.replace(edge, obligation=other.obligation) if edge.obligation == mine else edge
        for edge in deal.terms.members
    )
    members = sorted(swapped, key=lambda edge: edge.obligation)
    bad = encode_round(msgspec.structs.replace(deal.terms, members=tuple(members)), deal.ledgers)
    assert nord.refused("federation.clear_accept", ClearAccept(contract=bad), **nord.by_node()) == "pseudonym_mismatch"


def test_a_ledger_commits_once_and_in_time(three: Three) -> None:
    kit = three.kits[1]
    reveal = three.reveals()[three.called.ledgers.index(kit.ledger)]
    payload = ClearCommit(call=three.call, count=3, root=reveal_root(reveal))
    kit.must("federation.clear_commit", payload, **kit.by_node())
    assert kit.refused("federation.clear_commit", payload, **kit.by_node()) == "promise_repeated"
    late = call_of(three.kits, three.kits[0], kit.now - 30_000)
    late_payload = ClearCommit(call=late, count=3, root=bytes(32))
    assert kit.refused("federation.clear_commit", late_payload, **kit.by_node()) == "promise_too_late"
    agents = tuple(Signer(seed(f"stranger{number}")).public_key for number in range(3))
    foreign = ClearCommit(call=call_of(three.kits, kit, kit.now, agents=agents), count=1, root=bytes(32))
    assert kit.refused("federation.clear_commit", foreign, **kit.by_node()) == "own_side_wrong"


def test_pseudonyms_tell_nothing_across_rounds(built: Three) -> None:
    kit = built.kits[0]
    first, second = (offers_of(kit.state, built.called, salt * 32) for salt in (b"a", b"b"))
    assert not {one.pseudonym for one in first.members} & {one.pseudonym for one in second.members}
    assert len({one.pseudonym for one in first.members}) == 1
    assert reveal_root(first) != reveal_root(second)


@pytest.mark.parametrize(
    "reveal",
    [
        Reveal(bytes(32), (PartnerOffer(1, 2, 5),), ()),  # not of the ledger at place 0
        Reveal(bytes(32), (PartnerOffer(0, 3, 5),), ()),  # beyond the call
        Reveal(bytes(32), (PartnerOffer(0, 2, 5), PartnerOffer(0, 1, 5)), ()),  # out of order
        Reveal(bytes(32), (), (MemberOffer(bytes(16), True, 1, bytes(16), 5),) * 2),  # twice
        Reveal(bytes(32), (), (MemberOffer(bytes(16), True, 3, bytes(16), 5),)),
    ],
)
def test_a_reveal_that_is_not_sound_is_refused(reveal: Reveal) -> None:
    with pytest.raises(RemoteProtocolError) as error:
        decode_reveal(REVEAL.encode(reveal), 0, 3)
    assert error.value.code == "reveal_unsound"


def _random_reveals(number: int, ledgers: int) -> dict[int, Reveal]:
    """Some debts between ledgers and between members; a part of them only one side offers, or for less."""
    draw = random.Random(number)
    partners: dict[int, list[PartnerOffer]] = {place: [] for place in range(ledgers)}
    members: dict[int, list[MemberOffer]] = {place: [] for place in range(ledgers)}
    for first in range(ledgers):
        for second in range(ledgers):
            if first != second and draw.random() < 0.5:
                for place in (first, second):
                    if draw.random() < 0.9:
                        partners[place].append(PartnerOffer(first, second, draw.randint(1, 50)))
    for turn in range(draw.randint(0, 40)):
        debtor, creditor = draw.randrange(ledgers), draw.randrange(ledgers)
        names = [bytes([draw.randrange(4)]) * 16 for _ in range(2)]
        obligation = turn.to_bytes(16, "big")
        if draw.random() < 0.9:
            members[debtor].append(MemberOffer(obligation, True, creditor, names[0], draw.randint(1, 50)))
        if draw.random() < 0.9:
            members[creditor].append(MemberOffer(obligation, False, debtor, names[1], draw.randint(1, 50)))
    return {
        place: Reveal(
            bytes([place]) * 32,
            tuple(sorted(partners[place], key=lambda one: (one.debtor, one.creditor))),
            tuple(sorted(members[place], key=lambda one: (one.obligation, one.is_debtor))),
        )
        for place in range(ledgers)
    }


@given(st.integers(0, 2**32))
def test_the_deals_carry_out_the_flow_and_no_more(built: Three, number: int) -> None:
    matched = match(built.called, _random_reveals(number, 3))
    solution = solve(matched)
    assert find_solution_problem(matched, solution) is None
    assert is_most(matched, solution)
    deals = split(built.called, matched, solution)
    assert deals == split(built.called, matched, solution)
    cleared = 0
    for raw in deals:
        deal = decode_deal(raw)  # each is sound in itself
        cleared += sum(edge.flow_minor for edge in deal.terms.edges)
        cleared += sum(edge.flow_minor for edge in deal.terms.members)
    assert cleared == sum(solution.flows)


@given(st.integers(0, 2**32))
def test_nobody_gets_a_better_flow_past_the_certificate(built: Three, number: int) -> None:
    matched = match(built.called, _random_reveals(number, 3))
    best = solve(matched)
    draw = random.Random(number)
    for _ in range(5):
        worse = Solution(matched.hash, tuple(max(flow - draw.randint(0, 1), 0) for flow in best.flows), best.potentials)
        if worse.flows != best.flows:
            assert find_solution_problem(matched, worse) in {"conservation", "potentials"}
    assert find_solution_problem(matched, Solution(bytes(32), best.flows, ())) == "matched"
    if best.flows:
        more = (matched.edges[0].amount_minor + 1, *best.flows[1:])
        assert find_solution_problem(matched, Solution(matched.hash, more, ())) == "flow"
    nothing = Solution(matched.hash, (0,) * len(matched.edges), ())
    assert find_solution_problem(matched, nothing) is None
    assert (rank(best) < rank(nothing)) == (sum(best.flows) > 0)


def test_the_lower_amount_of_the_two_sides_counts(built: Three) -> None:
    reveals = {
        0: Reveal(bytes(32), (PartnerOffer(0, 1, 9),), ()),
        1: Reveal(bytes(32), (PartnerOffer(0, 1, 7),), ()),
        2: Reveal(bytes(32), (), ()),
    }
    (edge,) = match(built.called, reveals).edges
    assert (edge.debtor, edge.creditor, edge.amount_minor) == (Vertex(0, b""), Vertex(1, b""), 7)


def test_a_member_can_owe_another_of_the_same_ledger(three: Three) -> None:
    kit = three.kits[0]
    bob: Actor = kit.join("bob")
    oblige(kit, three.members[0], kit, bob, 30)
    oblige(kit, bob, kit, three.members[0], 50)
    matched = match(three.called, three.reveals())
    solution = solve(matched)
    assert sum(solution.flows) == 3 * 60 + 2 * 30
    for raw in split(three.called, matched, solution):
        if kit.ledger in decode_deal(raw).ledgers:
            kit.must("federation.clear_accept", ClearAccept(contract=raw), **kit.by_node())


class Post:
    """The boards that three ledgers' nodes can keep."""

    def __init__(self, three: Three) -> None:
        self.now = three.kits[0].now
        self.works = {kit.ledger: Work(kit.state, kit.agent) for kit in three.kits}
        self.boards = {ledger: Boards(work) for ledger, work in self.works.items()}


def test_one_partner_opens_a_bounded_number_of_rounds(three: Three) -> None:
    post = Post(three)
    decider, partner = three.kits[0].ledger, three.kits[1].ledger
    boards = post.boards[decider]
    for number in range(MAX_OPEN_EACH):
        raw = call_of(three.kits, three.kits[0], post.now, nonce=bytes([number]) * 16)
        assert [*boards.open(partner, raw, post.now)]
    one_more = call_of(three.kits, three.kits[0], post.now, nonce=b"m" * 16)
    with pytest.raises(RemoteProtocolError) as error:
        [*boards.open(partner, one_more, post.now)]
    assert error.value.code == "too_many_calls"
    assert [*boards.open(three.kits[2].ledger, one_more, post.now)]  # another partner still can


def test_a_board_looks_at_few_solutions_of_one_ledger(three: Three) -> None:
    """Each costs time in the number of debts: a partner must not keep the board busy for nothing."""
    post = Post(three)
    boards, ledger = post.boards[three.kits[0].ledger], three.kits[1].ledger
    [*boards.open(ledger, three.call, post.now)]
    for kit in three.kits:
        reveal = three.reveals()[three.called.ledgers.index(kit.ledger)]
        root = reveal_root(reveal)
        signature = post.works[kit.ledger].sign(root_statement(kit.ledger, three.called.id, root))
        [*boards.committed(kit.ledger, Committed(three.called.id, root, signature), post.now)]
    for place, reveal in three.reveals().items():
        [
            *boards.revealed(
                three.called.ledgers[place], Revealed(three.called.id, place, REVEAL.encode(reveal)), post.now
            )
        ]
    wrong = Solved(three.called.id, SOLUTION.encode(Solution(bytes(32), (), ())))
    for _ in range(MAX_SOLUTIONS_EACH):
        with pytest.raises(RemoteProtocolError, match="solution_unsound"):
            [*boards.solved(ledger, wrong, post.now)]
    assert [*boards.solved(ledger, wrong, post.now)]  # told how the round stands, and not looked at
