# SPDX-License-Identifier: AGPL-3.0-or-later
"""With which keys a courier cosigns, and which times of cosignatures it believes."""

import pytest
from federation_kit import FederatedKit, LogTree, peer

from ecot_protocol.domains.federation.messages import Cosigned, Problem, Push, encode_message
from ecot_protocol.domains.federation.outputs import Output, Tell
from ecot_protocol.domains.federation.witnessing import FURTHER_EVERY_MS
from ecot_protocol.wire.checkpoint import Checkpoint, sign_checkpoint
from ecot_protocol.wire.cosignature import FRESH_S, Cosigns, make_ml_dsa_cosigner, verify_cosignature
from ecot_protocol.wire.note import SignedNote, format_signatures, parse_signatures
from ecot_protocol.wire.witness import AddCheckpointRequest

COSIGNATURE_BYTES = 72


class Pair:
    """Two cooperatives with a courier in the south."""

    def __init__(self, further: tuple[Cosigns, ...] = ()) -> None:
        self.nord, self.sud = FederatedKit(name="nord"), FederatedKit(name="sud")
        self.nord.join("ada")
        self.nord.join("eva")
        self.sud.join("bob")
        peer(self.nord, self.sud)
        self.courier = self.sud.courier(further_cosigners=further)
        self.courier.head(self.sud.head(), self.sud.now)

    def hear(self, message: Push | Cosigned) -> list[Output]:
        return self.courier.receive(self.nord.ledger, encode_message(message), self.sud.now)

    def push(self, old_size: int, size: int, tree: LogTree) -> tuple[SignedNote, Cosigned]:
        """Show a checkpoint of the north's log; returns it and the answer."""
        note = sign_checkpoint(Checkpoint(self.nord.origin, size, tree.root(size)), self.nord.log_signer)
        outputs = self.hear(Push(AddCheckpointRequest(old_size, tree.consistency(old_size, size), note).format()))
        (answer,) = (one.message for one in outputs if isinstance(one, Tell))
        assert isinstance(answer, Cosigned)
        return note, answer


def test_the_further_key_cosigns_once_in_a_while() -> None:
    further = make_ml_dsa_cosigner("sud.example/further", bytes(32))
    if further is None:  # nothing here signs with such keys: the node has the one key that it always has
        return
    pair = Pair((further,))
    pair.nord.grow()
    note, answer = pair.push(0, 3, pair.nord.tree)
    first, second = parse_signatures(answer.lines)
    assert verify_cosignature(note.text, first, pair.sud.cosigner.verifier) == pair.sud.now // 1000
    assert verify_cosignature(note.text, second, further.verifier) == pair.sud.now // 1000
    _, answer = pair.push(3, 4, pair.nord.tree)
    assert len(parse_signatures(answer.lines)) == 1
    pair.sud.now += FURTHER_EVERY_MS
    _, answer = pair.push(4, 5, pair.nord.tree)
    assert len(parse_signatures(answer.lines)) == 2


@pytest.mark.parametrize("late_s", [FRESH_S + 1, -FRESH_S - 1])
def test_a_cosignature_that_was_not_made_just_now_does_not_count(late_s: int) -> None:
    pair = Pair()
    pair.courier.tick(pair.sud.now + 60_000)
    target = pair.courier.cosigned_target()
    assert target is not None
    size = Checkpoint.parse(target.text).size
    for seconds, count in ((late_s, 1), (0, 2)):
        line = pair.nord.cosigner.cosign(target.text, pair.sud.now // 1000 + seconds)
        outputs = pair.hear(Cosigned(pair.sud.origin, size, format_signatures((line,))))
        problems = [one.message for one in outputs if isinstance(one, Tell) and isinstance(one.message, Problem)]
        assert problems == ([Problem("cosignature_not_fresh", None)] if seconds else [])
        shown = pair.courier.cosigned_target()
        assert shown is not None
        assert sum(len(one.signature) == COSIGNATURE_BYTES for one in shown.signatures) == count


def test_an_old_line_of_a_stranger_is_ignored() -> None:
    pair = Pair()
    pair.courier.tick(pair.sud.now + 60_000)
    target = pair.courier.cosigned_target()
    assert target is not None
    stranger = FederatedKit(name="est").cosigner.cosign(target.text, 1)
    good = pair.nord.cosigner.cosign(target.text, pair.sud.now // 1000)
    size = Checkpoint.parse(target.text).size
    assert pair.hear(Cosigned(pair.sud.origin, size, format_signatures((stranger, good)))) == []
    shown = pair.courier.cosigned_target()
    assert shown is not None
    assert good in shown.signatures
    assert stranger not in shown.signatures
