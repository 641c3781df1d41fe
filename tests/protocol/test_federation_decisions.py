# SPDX-License-Identifier: AGPL-3.0-or-later
"""Decision logs: the tree, what a witness cosigns, what the state keeps of what has retired."""

import msgspec
import pytest
from federation_kit import FederatedKit, LogTree, decide_payload, peer, send
from hypothesis import given, settings
from hypothesis import strategies as st

from ecot_protocol.domains.federation.courier import Courier
from ecot_protocol.domains.federation.deals import DECISION_OPEN_MS, encode_contract
from ecot_protocol.domains.federation.decision_log import DecisionTree, Outcome, decision_hash, decision_leaf
from ecot_protocol.domains.federation.decision_witnessing import DecisionQuorum, KeptDecisions
from ecot_protocol.domains.federation.messages import (
    MAX_PUSHED_LEAVES,
    Ask,
    AskHead,
    Cosigned,
    Head,
    Message,
    Problem,
    PushDecisions,
    PushedLeaf,
    Stale,
    encode_message,
)
from ecot_protocol.domains.federation.outputs import Ahead, KeepFork, KeepLeaves, Output, ReadLeaves, Tell
from ecot_protocol.state import State
from ecot_protocol.wire.checkpoint import Checkpoint, sign_checkpoint
from ecot_protocol.wire.merkle import Frontier, verify_inclusion

Leaf = tuple[bytes, Outcome]


def leaves(count: int, start: int = 0) -> list[Leaf]:
    return [(number.to_bytes(16, "big"), "commit" if number % 3 else "abort") for number in range(start, start + count)]


def tree_of(given_leaves: list[Leaf]) -> LogTree:
    """The tree straight from the definition of RFC 6962."""
    tree = LogTree()
    tree.leaves = [decision_hash(tid, outcome) for tid, outcome in given_leaves]
    return tree


def test_a_leaf_is_the_tid_and_the_outcome() -> None:
    assert decision_leaf(bytes(16), "abort") == msgspec.msgpack.encode([bytes(16), 0])
    assert decision_leaf(bytes(16), "commit") == msgspec.msgpack.encode([bytes(16), 1])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 70), st.data())
def test_roots_and_proofs_are_those_of_the_definition(size: int, data: st.DataObject) -> None:
    gone = data.draw(st.integers(0, size - 1))
    every, defined = leaves(size), tree_of(leaves(size))
    tree = DecisionTree(Frontier.of(defined.leaves[:gone]))
    for tid, outcome in every[gone:]:
        tree.append(tid, outcome)
    assert tree.root(size) == defined.root(size)
    until = data.draw(st.integers(gone + 1, size))
    number = data.draw(st.integers(gone, until - 1))
    proof = tree.inclusion(number, until)
    assert proof == defined.inclusion(number, until)
    assert verify_inclusion(defined.leaves[number], number, until, proof, defined.root(until))
    assert tree.slice(number, until) == every[number:until]


class Desk:
    """The south's courier as a witness of the north's decision log."""

    def __init__(self) -> None:
        self.nord, self.sud = FederatedKit(name="nord"), FederatedKit(name="sud")
        self.ada, self.bob = self.nord.join("ada"), self.sud.join("bob")
        peer(self.nord, self.sud)
        self.kept: dict[str, KeptDecisions] = {}
        self.stored: list[Leaf] = []
        self.restart()

    @property
    def origin(self) -> str:
        return f"{self.nord.origin}/decisions"

    def restart(self) -> None:
        self.courier: Courier = self.sud.courier(kept_decisions=self.kept)
        self.courier.head(self.sud.head(), self.sud.now)

    def hear(self, message: Message) -> list[Output]:
        outputs = self.courier.receive(self.nord.ledger, encode_message(message), self.sud.now)
        for output in outputs:
            if isinstance(output, KeepLeaves):
                self.kept[output.origin] = KeptDecisions(output.frontier, output.checkpoint)
                self.stored += output.leaves
        return outputs

    def checkpoint(self, size: int, every: list[Leaf], signer: FederatedKit | None = None) -> bytes:
        shown = Checkpoint(self.origin, size, tree_of(every).root(size))
        return sign_checkpoint(shown, (signer or self.nord).decision_signer).format()

    def push(self, start: int, end: int, every: list[Leaf] | None = None) -> list[Output]:
        every = every or leaves(end)
        pushed = tuple(PushedLeaf(tid, int(outcome == "commit")) for tid, outcome in every[start:end])
        return self.hear(PushDecisions(start, (), pushed, self.checkpoint(end, every)))


@pytest.fixture
def desk() -> Desk:
    return Desk()


def told(outputs: list[Output]) -> list[Message]:
    return [output.message for output in outputs if isinstance(output, Tell)]


def test_leaves_are_kept_before_they_are_cosigned(desk: Desk) -> None:
    outputs = desk.push(0, 3)
    assert [type(output) for output in outputs] == [KeepLeaves, Tell]
    assert isinstance(told(outputs)[0], Cosigned)
    assert desk.stored == leaves(3)
    assert isinstance(told(desk.push(3, 5))[0], Cosigned)
    assert desk.stored == leaves(5)


def test_a_witness_goes_on_where_it_was_after_a_restart(desk: Desk) -> None:
    desk.push(0, 3)
    desk.restart()
    assert told(desk.push(0, 4)) == [Stale(desk.origin, 3)]
    assert isinstance(told(desk.push(3, 4))[0], Cosigned)
    assert desk.stored == leaves(4)


def test_the_same_checkpoint_is_cosigned_again_and_kept_once(desk: Desk) -> None:
    desk.push(0, 3)
    (message,) = told(desk.push(3, 3))
    assert isinstance(message, Cosigned)
    assert desk.stored == leaves(3)


def test_what_is_hidden_from_a_witness_is_not_cosigned(desk: Desk) -> None:
    every = leaves(4)
    pushed = tuple(PushedLeaf(tid, int(outcome == "commit")) for tid, outcome in every[:3])
    message = PushDecisions(0, (), pushed, desk.checkpoint(4, every))
    assert told(desk.hear(message)) == [Problem("root_wrong", None)]
    other = [*every[:2], (every[2][0], "abort" if every[2][1] == "commit" else "commit")]
    message = PushDecisions(0, (), pushed, desk.checkpoint(3, other))
    assert told(desk.hear(message)) == [Problem("root_wrong", None)]
    assert desk.stored == []


def test_a_second_leaf_of_a_deal_is_refused(desk: Desk) -> None:
    every: list[Leaf] = [(bytes(16), "commit"), (bytes(16), "abort")]
    assert told(desk.push(0, 2, every)) == [Problem("decision_repeated", None)]
    assert desk.stored == []


def test_two_histories_of_a_decision_log_are_kept_as_proof(desk: Desk) -> None:
    desk.push(0, 3)
    other: list[Leaf] = [*leaves(2), (b"x" * 16, "commit")]
    outputs = desk.push(3, 3, other)
    assert isinstance(outputs[0], KeepFork)
    assert told(outputs) == [Problem("root_wrong", None)]


def test_a_log_that_no_peering_names_is_not_cosigned(desk: Desk) -> None:
    every = leaves(1)
    shown = sign_checkpoint(
        Checkpoint(f"{desk.sud.origin}/decisions", 1, tree_of(every).root(1)), desk.sud.decision_signer
    )
    pushed = (PushedLeaf(every[0][0], 0),)
    assert told(desk.hear(PushDecisions(0, (), pushed, shown.format()))) == [Problem("origin_unknown", None)]
    main = sign_checkpoint(Checkpoint(desk.nord.origin, 1, tree_of(every).root(1)), desk.nord.log_signer)
    assert told(desk.hear(PushDecisions(0, (), pushed, main.format()))) == [Problem("origin_unknown", None)]


def test_a_new_witness_begins_with_what_is_still_remembered(desk: Desk) -> None:
    every = leaves(9)
    before = Frontier.of(tree_of(every[:6]).leaves)
    pushed = tuple(PushedLeaf(tid, int(outcome == "commit")) for tid, outcome in every[6:])
    message = PushDecisions(6, before.hashes, pushed, desk.checkpoint(9, every))
    assert isinstance(told(desk.hear(message))[0], Cosigned)
    assert told(desk.hear(PushDecisions(2, (), pushed, desk.checkpoint(9, every)))) == [Stale(desk.origin, 9)]


def test_a_witness_tells_and_judges_heads_of_decision_logs(desk: Desk) -> None:
    assert told(desk.hear(AskHead(desk.origin))) == [Head(desk.origin, None)]
    desk.push(0, 3)
    (head,) = told(desk.hear(AskHead(desk.origin)))
    assert isinstance(head, Head)
    assert head.checkpoint is not None
    own = f"{desk.sud.origin}/decisions"
    longer = sign_checkpoint(Checkpoint(own, 1, tree_of(leaves(1)).root(1)), desk.sud.decision_signer).format()
    assert desk.hear(Head(own, longer)) == [Ahead(longer)]


def decide(kit: FederatedKit, payer: Desk) -> None:
    terms = send(payer.sud, payer.bob, payer.nord, payer.ada.member, 10)
    kit.must("federation.decide", decide_payload(encode_contract(terms), "abort"), **kit.by_node())


def test_the_log_goes_on_where_decisions_have_retired(desk: Desk) -> None:
    for _ in range(5):
        decide(desk.nord, desk)
    desk.nord.now += DECISION_OPEN_MS + 200_000
    desk.sud.now += DECISION_OPEN_MS + 200_000
    decide(desk.nord, desk)
    decide(desk.nord, desk)
    federation = desk.nord.state.federation
    assert [row.number for row in federation.decisions.values()] == [5, 6]
    assert federation.decision_count() == 7
    courier = desk.nord.courier()
    courier.head(desk.nord.head(), desk.nord.now)
    defined, _ = desk.nord.decisions()
    assert courier.decisions.root(7) == defined.root(7)
    again = State.load(desk.nord.state.dump())
    assert again.federation.retired_decisions() == federation.retired_decisions()
    assert [row.number for row in again.federation.decisions.values()] == [5, 6]


def test_a_witness_far_behind_is_brought_up_from_the_hosts_leaves(desk: Desk) -> None:
    for _ in range(5):
        decide(desk.nord, desk)
    _, before = desk.nord.decisions()
    desk.nord.now += DECISION_OPEN_MS + 200_000
    desk.sud.now += DECISION_OPEN_MS + 200_000
    decide(desk.nord, desk)
    (tid,) = desk.nord.state.federation.decisions
    courier = desk.nord.courier()
    courier.head(desk.nord.head(), desk.nord.now)
    sud = desk.sud.ledger
    (first,) = told(courier.receive(sud, encode_message(Ask(tid)), desk.nord.now))
    assert isinstance(first, PushDecisions)
    assert first.start == 5
    outputs = courier.receive(sud, encode_message(Stale(desk.origin, 2)), desk.nord.now)
    assert outputs == [ReadLeaves(2, 5)]
    old = tuple((decision.tid, decision.outcome) for _, decision in before.values())
    defined, _ = desk.nord.decisions()
    (pushed,) = told(courier.leaves(ReadLeaves(2, 5), old[2:], defined.root(5)))
    assert isinstance(pushed, PushDecisions)
    assert (pushed.start, len(pushed.leaves)) == (2, 3)
    desk.kept[desk.origin] = KeptDecisions(Frontier.of(defined.leaves[:2]), b"")
    desk.restart()
    assert isinstance(told(desk.hear(pushed))[0], Cosigned)


def test_many_decisions_are_pushed_in_parts(desk: Desk) -> None:
    nord = desk.nord
    quorum = DecisionQuorum(nord.state, nord.witness, nord.cosigner, nord.decision_signer)
    every = leaves(MAX_PUSHED_LEAVES + 3)
    for tid, outcome in every:
        quorum.tree.append(tid, outcome)
    quorum.aim(nord.now)
    (first,) = told([*quorum.push({desk.sud.ledger})])
    (cosigned,) = told(desk.hear(first))
    assert isinstance(cosigned, Cosigned)
    assert cosigned.size == MAX_PUSHED_LEAVES
    quorum.cosigned(desk.sud.ledger, cosigned, {desk.sud.witness})
    assert quorum.cosigners == (nord.witness,)
    (second,) = told([*quorum.cosigned_part(desk.sud.ledger, cosigned)])
    (cosigned,) = told(desk.hear(second))
    assert isinstance(cosigned, Cosigned)
    quorum.cosigned(desk.sud.ledger, cosigned, {desk.sud.witness})
    assert set(quorum.cosigners) == {nord.witness, desk.sud.witness}
    assert desk.stored == every
