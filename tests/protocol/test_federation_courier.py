# SPDX-License-Identifier: AGPL-3.0-or-later
"""The courier against partners that lie, and hosts that lose."""

import msgspec
import pytest
from federation_kit import FederatedKit, LogTree, decide_payload, peer, prepare_message, promise_payload, send
from ledger_kit import Actor

from ecot_protocol.domains.federation.deals import Contract, encode_contract, transfer_of
from ecot_protocol.domains.federation.messages import (
    Ask,
    AskHead,
    Cosigned,
    DecisionShown,
    Head,
    Message,
    Prepare,
    Problem,
    Push,
    Refused,
    Stale,
    Unheard,
    decode_message,
    encode_message,
)
from ecot_protocol.domains.federation.outputs import Ahead, Append, Keep, KeepFork, Output, ReadRecord, Tell
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.wire.checkpoint import Checkpoint, sign_checkpoint
from ecot_protocol.wire.witness import AddCheckpointRequest


class Desk:
    """The south's courier, to which the north speaks."""

    def __init__(self) -> None:
        self.nord, self.sud = FederatedKit(name="nord"), FederatedKit(name="sud")
        self.ada: Actor = self.nord.join("ada")
        self.nord.join("eva")
        self.bob: Actor = self.sud.join("bob")
        peer(self.nord, self.sud)
        self.kept: dict[str, bytes] = {}
        self.restart()

    def restart(self) -> None:
        self.courier = self.sud.courier(kept=self.kept)
        self.courier.head(self.sud.head(), self.sud.now)

    def hear(self, message: Message, sender: bytes | None = None) -> list[Output]:
        outputs = self.courier.receive(sender or self.nord.ledger, encode_message(message), self.sud.now)
        for output in outputs:
            if isinstance(output, Keep):
                self.kept[output.origin] = output.checkpoint
        return outputs

    def push(self, note_of: FederatedKit, size: int, tree: LogTree, old_size: int = 0) -> list[Output]:
        note = sign_checkpoint(Checkpoint(note_of.origin, size, tree.root(size)), note_of.log_signer)
        return self.hear(Push(AddCheckpointRequest(old_size, tree.consistency(old_size, size), note).format()))


@pytest.fixture
def desk() -> Desk:
    return Desk()


def told(outputs: list[Output]) -> list[Message]:
    return [output.message for output in outputs if isinstance(output, Tell)]


def test_a_checkpoint_is_kept_before_it_is_cosigned(desk: Desk) -> None:
    desk.nord.grow()
    outputs = desk.push(desk.nord, 5, desk.nord.tree)
    assert [type(output) for output in outputs] == [Keep, Tell]
    (message,) = told(outputs)
    assert isinstance(message, Cosigned)
    assert message.size == 5


def test_a_witness_never_goes_back_even_after_a_restart(desk: Desk) -> None:
    desk.nord.grow()
    desk.push(desk.nord, 5, desk.nord.tree)
    desk.restart()
    assert told(desk.push(desk.nord, 4, desk.nord.tree)) == [Stale(desk.nord.origin, 5)]
    assert isinstance(told(desk.push(desk.nord, 6, desk.nord.tree, old_size=5))[0], Cosigned)


def test_two_histories_of_one_log_are_kept_as_proof(desk: Desk) -> None:
    desk.nord.grow()
    desk.push(desk.nord, 5, desk.nord.tree)
    other = LogTree()
    for number in range(5):
        other.append(bytes([number]))
    outputs = desk.push(desk.nord, 5, other, old_size=5)
    assert isinstance(outputs[0], KeepFork)
    assert outputs[0].first != outputs[0].second
    assert told(outputs) == [Problem("root_wrong", None)]


def test_a_log_that_no_peering_names_is_not_cosigned(desk: Desk) -> None:
    est = FederatedKit(name="est")
    est.grow()
    assert told(desk.push(est, 1, est.tree)) == [Problem("origin_unknown", None)]


def test_a_witness_that_holds_more_of_our_log_than_we_stops_us(desk: Desk) -> None:
    size = len(desk.sud.records)
    assert desk.hear(Head(desk.sud.origin, desk.sud.head())) == []
    longer = LogTree()
    for number in range(size + 1):
        longer.append(bytes([number]))
    note = sign_checkpoint(Checkpoint(desk.sud.origin, size + 1, longer.root(size + 1)), desk.sud.log_signer)
    assert desk.hear(Head(desk.sud.origin, note.format())) == [Ahead(note.format())]
    fork = sign_checkpoint(Checkpoint(desk.sud.origin, size, longer.root(size)), desk.sud.log_signer)
    assert desk.hear(Head(desk.sud.origin, fork.format())) == [Ahead(fork.format())]
    false = sign_checkpoint(Checkpoint(desk.nord.origin, size + 1, longer.root(size + 1)), desk.nord.log_signer)
    assert isinstance(told(desk.hear(Head(desk.sud.origin, false.format())))[0], Problem)


def test_a_witness_tells_its_last_checkpoint(desk: Desk) -> None:
    assert told(desk.hear(AskHead(desk.nord.origin))) == [Head(desk.nord.origin, None)]
    desk.nord.grow()
    desk.push(desk.nord, 5, desk.nord.tree)
    (message,) = told(desk.hear(AskHead(desk.nord.origin)))
    assert isinstance(message, Head)
    assert message.checkpoint == desk.kept[desk.nord.origin]


def test_strangers_are_not_answered(desk: Desk) -> None:
    assert desk.hear(Ask(bytes(16)), sender=bytes(32)) == []


def test_who_asks_for_what_was_never_heard_is_told_so(desk: Desk) -> None:
    assert told(desk.hear(Ask(bytes(16)))) == [Unheard(bytes(16))]


def test_a_malformed_message_is_refused() -> None:
    for raw in (b"", b"\xc0", b"\x92\x02\x00", b"\xdc\x00\x02\x02\xc4\x10" + bytes(16), bytes(300_000)):
        with pytest.raises(RemoteProtocolError):
            decode_message(raw)


def _prepare(desk: Desk) -> Prepare:
    terms = send(desk.nord, desk.ada, desk.sud, desk.bob.member, 100)
    return prepare_message((desk.nord,), terms, desk.bob.member)


def test_a_message_said_twice_makes_one_entry(desk: Desk) -> None:
    message = _prepare(desk)
    outputs = [*desk.hear(message), *desk.hear(message)]
    assert [output.kind for output in outputs if isinstance(output, Append)] == ["promise"]


def test_a_false_proof_makes_no_entry(desk: Desk) -> None:
    good = _prepare(desk)
    message = msgspec.structs.replace(good, promises=(bytes(64),))
    outputs = desk.hear(message)
    assert not [output for output in outputs if isinstance(output, Append)]
    assert isinstance(told(outputs)[0], Problem)


def test_what_cannot_be_promised_is_aborted_at_once(desk: Desk) -> None:
    (append,) = [output for output in desk.hear(_prepare(desk)) if isinstance(output, Append)]
    told_why, abort = desk.courier.refused(append, "member_not_active", desk.sud.now)
    assert isinstance(abort, Append)
    assert abort.kind == "abort"
    assert isinstance(told_why, Tell)
    assert isinstance(told_why.message, Refused)


def test_an_entry_refused_for_its_form_aborts_nothing(desk: Desk) -> None:
    (append,) = [output for output in desk.hear(_prepare(desk)) if isinstance(output, Append)]
    assert desk.courier.refused(append, "expired", desk.sud.now) == []


def test_nothing_is_done_about_what_is_not_durable(desk: Desk) -> None:
    message = _prepare(desk)
    payload = promise_payload(desk.nord, _terms(message), desk.bob.member)
    desk.sud.must("federation.promise", payload, **desk.sud.by_node())
    assert desk.courier.tick(desk.sud.now) == []
    outputs = desk.courier.head(desk.sud.head(), desk.sud.now)
    assert [output.kind for output in outputs if isinstance(output, Append)] == ["commit"]


def _terms(message: Prepare) -> Contract:
    return transfer_of(message.contract)[1]


def test_a_decision_without_its_quorum_makes_no_entry(desk: Desk) -> None:
    terms = send(desk.sud, desk.bob, desk.nord, desk.ada.member, 100)
    desk.courier.head(desk.sud.head(), desk.sud.now)
    decision = decide_payload(encode_contract(terms), "abort")
    desk.nord.must("federation.decide", decision, **desk.nord.by_node())
    proof = desk.nord.decided(len(desk.nord.records) - 1)
    assert desk.hear(DecisionShown(desk.nord.decision_head((desk.nord,)), proof)) == []
    (append,) = desk.hear(DecisionShown(desk.nord.decision_head((desk.nord, desk.sud)), proof))
    assert isinstance(append, Append)
    assert append.kind == "resolve"


def test_what_is_promised_is_said_again_after_a_crash(desk: Desk) -> None:
    send(desk.sud, desk.bob, desk.nord, desk.ada.member, 100)
    for _ in range(2):
        desk.restart()
        desk.sud.now += 1_000
        outputs = desk.courier.tick(desk.sud.now)
        reads = [output for output in outputs if isinstance(output, ReadRecord)]
        assert len(reads) == 1
        answered = desk.courier.read(reads[0], desk.sud.records[reads[0].index], desk.sud.now)
        assert [type(message) for message in told(answered)] == [Prepare]
