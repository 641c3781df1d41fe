# SPDX-License-Identifier: AGPL-3.0-or-later
"""Keys that a node's own ledger replaced are followed by its partners, on proof, and by nothing less."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from federation_kit import FederatedKit, peer, peering, policy
from ledger_kit import seed

from ecot_protocol.domains.coop.acts import NameCosigner, ReplaceNodeKey
from ecot_protocol.domains.federation.keys import FollowKeys, KeyProof, are_own_keys_behind
from ecot_protocol.domains.federation.statements import Peering, decode_peering, encode_peering
from ecot_protocol.wire.checkpoint import Checkpoint, sign_checkpoint
from ecot_protocol.wire.keys import Signer
from ecot_protocol.wire.note import NoteSigner

PURPOSES = ("agent", "cosigner", "host", "log")


class World:
    """North and south are peered; a third one is a witness of both. The south replaces keys; the north follows."""

    def __init__(self) -> None:
        self.nord, self.sud, self.est = (FederatedKit(name=name) for name in ("nord", "sud", "est"))
        everybody = (self.nord, self.sud, self.est)
        deciders = [policy(one, everybody) for one in everybody]
        peer(self.nord, self.sud, deciders=deciders)
        peer(self.nord, self.est, deciders=deciders)

    def replace(self, purpose: str, name: str = "new") -> int:
        key = Signer(seed(f"{name} {purpose}"))
        payload = ReplaceNodeKey(public_key=key.public_key, purpose=purpose)  # type: ignore[arg-type]
        board = self.sud.by_board()
        self.sud.must("coop.replace_node_key", payload, author=board["author"], signers=(*board["signers"], key))
        return len(self.sud.records) - 1

    def proof(self, *indexes: int, **changes: Any) -> FollowKeys:
        fields: dict[str, Any] = {
            "checkpoint": self.sud.head((self.nord,)),
            "cosigner": self.nord.witness,
            "log": self.sud.log,
            "records": tuple(self.sud.inclusion(index) for index in indexes),
        }
        return FollowKeys(ledger=changes.pop("ledger", self.sud.ledger), proof=KeyProof(**(fields | changes)))

    def follow(self, payload: FollowKeys) -> str | None:
        result = self.nord.send("federation.follow_keys", payload, **self.nord.by_node())
        return None if isinstance(result, list) else result.code

    def peering(self, kit: FederatedKit | None = None) -> Peering:
        return self.nord.state.federation.peers[(kit or self.sud).ledger].peering


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize("purpose", PURPOSES)
def test_a_replaced_key_counts_wherever_the_ledger_is_named(world: World, purpose: str) -> None:
    statement = world.nord.state.federation.peers[world.sud.ledger].statement
    index = world.replace(purpose)
    assert world.follow(world.proof(index)) is None
    new = Signer(seed(f"new {purpose}")).public_key
    side = world.peering().side_of(world.sud.ledger)
    assert getattr(side, purpose) == new
    assert side.keys_index == index
    for kit in (world.sud, world.est):  # the other partner names the south as a decider and a witness
        for decider in world.peering(kit).deciders:
            witness = next(one for one in decider.witnesses if one.ledger == world.sud.ledger)
            assert (witness.public_key == new) == (purpose == "cosigner")
            assert (decider.log.public_key == new) == (purpose == "log" and decider.ledger == world.sud.ledger)
        decode_peering(encode_peering(world.peering(kit)))
    assert world.nord.state.federation.peers[world.sud.ledger].statement == statement
    assert world.nord.replayed().digest() == world.nord.state.digest()


def test_a_further_cosigner_is_followed_and_given_up(world: World) -> None:
    for public_key in (b"\x03" + bytes(1_312), None):
        payload = NameCosigner(public_key=public_key)
        world.sud.must("coop.name_cosigner", payload, **world.sud.by_board())
        index = len(world.sud.records) - 1
        assert world.follow(world.proof(index)) is None
        side = world.peering().side_of(world.sud.ledger)
        assert (side.cosigner_ml_dsa_44, side.keys_index) == (public_key, index)


def test_our_own_further_cosigner_is_followed(world: World) -> None:
    payload = NameCosigner(public_key=b"\x03" + bytes(1_312))
    world.nord.must("coop.name_cosigner", payload, **world.nord.by_board())
    assert world.follow(FollowKeys(ledger=world.nord.ledger, proof=None)) is None
    assert world.peering().side_of(world.nord.ledger).cosigner_ml_dsa_44 == payload.public_key
    assert not are_own_keys_behind(world.nord.state)


def test_several_keys_are_followed_at_once_and_the_last_of_each_counts(world: World) -> None:
    indexes = [world.replace("agent", "first"), world.replace("host"), world.replace("agent", "second")]
    assert world.follow(world.proof(*indexes)) is None
    side = world.peering().side_of(world.sud.ledger)
    assert side.agent == Signer(seed("second agent")).public_key
    assert side.host == Signer(seed("new host")).public_key


def test_an_older_replacement_never_comes_back(world: World) -> None:
    first, second = world.replace("agent", "first"), world.replace("agent", "second")
    assert world.follow(world.proof(second)) is None
    for index in (first, second):
        assert world.follow(world.proof(index)) == "keys_known"


def test_a_peering_that_names_newer_keys_keeps_older_records_out(world: World) -> None:
    index = world.replace("agent", "first")
    later = world.replace("agent", "second")
    terms = peering(world.nord, world.sud, sequence=2)
    sides = tuple(
        msgspec.structs.replace(one, agent=Signer(seed("second agent")).public_key)
        if one.ledger == world.sud.ledger
        else one
        for one in terms.sides
    )
    assert {one.keys_index for one in sides} == {0, later}
    row = world.nord.state.federation.peers[world.sud.ledger]
    world.nord.state.federation.peers[world.sud.ledger] = msgspec.structs.replace(
        row, peering=msgspec.structs.replace(terms, sides=sides)
    )
    assert world.follow(world.proof(index)) == "keys_known"


def test_a_log_hands_over_and_then_only_the_new_key_counts(world: World) -> None:
    index = world.replace("log")
    handover = world.proof(index)
    assert world.follow(handover) is None
    later = world.replace("agent")
    assert world.follow(world.proof(later)) == "log_key_mismatch"
    new = NoteSigner(world.sud.origin, seed("new log"))
    size = len(world.sud.records)
    note = sign_checkpoint(Checkpoint(world.sud.origin, size, world.sud.tree.root(size)), new)
    cosigned = note.with_signatures((world.nord.cosigner.cosign(note.text, world.nord.now // 1000),)).format()
    log = msgspec.structs.replace(world.sud.log, public_key=Signer(seed("new log")).public_key)
    assert world.follow(world.proof(later, checkpoint=cosigned, log=log)) is None


def _stolen(world: World) -> FollowKeys:
    """Somebody who has the log's key signs another log: our node has not cosigned it."""
    world.replace("agent", "thief")
    return world.proof(len(world.sud.records) - 1, checkpoint=world.sud.head())


def _other_type(world: World) -> FollowKeys:
    world.replace("agent")
    return world.proof(0)


def _not_there(world: World) -> FollowKeys:
    index = world.replace("agent")
    right = world.sud.inclusion(index)
    return world.proof(index, records=(msgspec.structs.replace(right, hashes=(*right.hashes[:-1], bytes(32))),))


def _twice(world: World) -> FollowKeys:
    index = world.replace("agent")
    return world.proof(index, index)


def _by_another_witness(world: World) -> FollowKeys:
    index = world.replace("agent")
    return world.proof(index, checkpoint=world.sud.head((world.est,)), cosigner=world.est.witness)


def _of_another_ledger(world: World) -> FollowKeys:
    """The south's record, as if it were the east's."""
    index = world.replace("agent")
    return world.proof(index, ledger=world.est.ledger)


def _of_a_stranger(world: World) -> FollowKeys:
    west = FederatedKit(name="west")
    world.sud = west
    return world.proof(world.replace("agent"))


def _collides(world: World) -> FollowKeys:
    """The south takes the east's cosigner key: one cosignature would count as two."""
    key = Signer(seed("estcosigner"))
    board = world.sud.by_board()
    payload = ReplaceNodeKey(public_key=key.public_key, purpose="cosigner")
    world.sud.must("coop.replace_node_key", payload, author=board["author"], signers=(*board["signers"], key))
    return world.proof(len(world.sud.records) - 1)


@pytest.mark.parametrize(
    ("code", "make"),
    [
        ("evidence_wrong", _stolen),
        ("evidence_wrong", _other_type),
        ("evidence_wrong", _not_there),
        ("evidence_wrong", _twice),
        ("own_side_wrong", _by_another_witness),
        ("evidence_wrong", _of_another_ledger),
        ("peer_unknown", _of_a_stranger),
        ("keys_collide", _collides),
    ],
)
def test_what_proves_nothing_is_refused(world: World, code: str, make: Callable[[World], FollowKeys]) -> None:
    before = dict(world.nord.state.federation.peers.items())
    assert world.follow(make(world)) == code
    assert dict(world.nord.state.federation.peers.items()) == before


def test_a_key_that_is_not_recorded_by_the_node_is_nobody_s_to_follow(world: World) -> None:
    index = world.replace("agent")
    result = world.nord.send("federation.follow_keys", world.proof(index), **world.nord.by_board())
    assert not isinstance(result, list)
    assert result.code == "signature_missing"


def test_a_ledger_follows_its_own_keys(world: World) -> None:
    own = FollowKeys(ledger=world.nord.ledger, proof=None)
    assert world.follow(own) == "keys_known"
    key, board = Signer(seed("new nord log")), world.nord.by_board()
    payload = ReplaceNodeKey(public_key=key.public_key, purpose="log")
    world.nord.must("coop.replace_node_key", payload, author=board["author"], signers=(*board["signers"], key))
    assert are_own_keys_behind(world.nord.state)
    assert world.follow(FollowKeys(ledger=world.sud.ledger, proof=None)) == "evidence_wrong"
    assert world.follow(own) is None
    assert not are_own_keys_behind(world.nord.state)
    for kit in (world.sud, world.est):
        peering_now = world.peering(kit)
        assert peering_now.side_of(world.nord.ledger).log == key.public_key
        decider = peering_now.decider(world.nord.ledger)
        assert decider is not None
        assert decider.log.public_key == key.public_key
