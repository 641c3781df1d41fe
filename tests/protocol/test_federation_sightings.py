# SPDX-License-Identifier: AGPL-3.0-or-later
"""The watch over other logs: real ledgers with one that forks, and partners that lie about it."""

import msgspec
import pytest
from federation_kit import FederatedKit, LogTree, peer
from ledger_kit import seed

from ecot_protocol.domains.federation.sighting_messages import (
    MAX_SIGHTINGS,
    AskGrowth,
    ForkShown,
    Growth,
    Seen,
    Sighting,
    decode_sighting,
    encode_sighting,
    is_sighting,
)
from ecot_protocol.domains.federation.sightings import (
    ASK_FIRST_MS,
    MAX_AGREED,
    MAX_FORKS,
    OPEN_QUESTIONS,
    REPEAT_MS,
    SEEN_EVERY_MS,
    UNPROVEN_AFTER_MS,
    AnswerGrowth,
    KeepForkProof,
    LookInKept,
    OwnLogShown,
    TellSighting,
    Watch,
    WatchedLog,
    WatchOutput,
    known_logs,
)
from ecot_protocol.domains.federation.statements import DECISIONS_SUFFIX
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.wire.checkpoint import Checkpoint, sign_checkpoint
from ecot_protocol.wire.fork import prove_fork, verify_fork
from ecot_protocol.wire.note import NoteSigner, SignedNote


class Forger:
    """The writer of a log that has two histories: what it says depends on whom it talks to."""

    def __init__(self, kit: FederatedKit, same: int, size: int) -> None:
        kit.grow()
        self.kit = kit
        self.trees = {name: LogTree() for name in ("east", "west")}
        for name, tree in self.trees.items():
            for number in range(size):
                tree.append(kit.records[number] if number < same else f"{name} {number}".encode())

    def head(self, side: str, size: int) -> bytes:
        root = self.trees[side].root(size)
        return sign_checkpoint(Checkpoint(self.kit.origin, size, root), self.kit.log_signer).format()

    def growth(self, side: str, asked: AskGrowth) -> Growth:
        tree = self.trees[side]
        old, new = asked.old_size, asked.new_size
        return Growth(self.kit.origin, old, new, tree.root(old), tree.consistency(old, new))


class World:
    """Three cooperatives, each the partner of both others, and a watch in each of two; the third forks."""

    def __init__(self, same: int = 3, size: int = 40) -> None:
        self.east, self.west, self.liar = (FederatedKit(name=name) for name in ("east", "west", "liar"))
        for one, other in ((self.east, self.west), (self.east, self.liar), (self.west, self.liar)):
            peer(one, other)
        self.forger = Forger(self.liar, same, size)
        self.now = self.east.now
        self.watches = {"east": Watch(lambda: self.east.state), "west": Watch(lambda: self.west.state)}
        self.kept: dict[str, list[bytes]] = {"east": [], "west": []}
        self.asked: dict[str, list[AskGrowth]] = {"east": [], "west": []}
        self.is_answering = True

    @property
    def kits(self) -> dict[str, FederatedKit]:
        return {"east": self.east, "west": self.west}

    def cosigned(self, side: str, size: int) -> None:
        """The forger has shown a partner a head of the history that is for it."""
        self.carry(side, self.watches[side].witnessed(self.liar.origin, self.forger.head(side, size), self.now))

    def carry(self, side: str, outputs: list[WatchOutput]) -> None:
        """Carry out what a watch asks for, messages through their encoding."""
        for output in outputs:
            match output:
                case KeepForkProof(_, proof):
                    self.kept[side].append(proof)
                case TellSighting(ledger, message):
                    self.deliver(side, ledger, decode_sighting(encode_sighting(message)))
                case _:
                    raise AssertionError(output)

    def deliver(self, side: str, ledger: bytes, message: Sighting) -> None:
        if ledger == self.liar.ledger:
            if isinstance(message, AskGrowth):
                self.asked[side].append(message)
                if self.is_answering:
                    answer = self.forger.growth(side, message)
                    self.carry(side, self.watches[side].receive(ledger, answer, self.now))
            return
        other = "west" if side == "east" else "east"
        self.carry(other, self.watches[other].receive(self.kits[side].ledger, message, self.now))

    def exchange(self) -> None:
        """Let the time of an exchange pass."""
        self.now += SEEN_EVERY_MS
        for side, watch in self.watches.items():
            self.carry(side, watch.tick(self.now))

    def watched(self, side: str) -> WatchedLog:
        return next(one for one in self.watches[side].logs(self.now) if one.log.origin == self.liar.origin)


def proven(world: World) -> None:
    """Both have a proof that a third person believes who knows nothing but the log's key."""
    for side, proofs in world.kept.items():
        assert proofs, side
        for raw in proofs:
            assert verify_fork(raw, [world.liar.log.verifier]).origin == world.liar.origin
        assert world.watched(side).status == "forked"


def test_two_heads_of_one_size_are_found_out_at_the_next_exchange() -> None:
    world = World()
    world.cosigned("east", 9)
    world.cosigned("west", 9)
    assert [world.watched(side).status for side in world.kits] == ["agrees", "agrees"]
    world.exchange()
    proven(world)
    assert world.kept["east"] == world.kept["west"]


@pytest.mark.parametrize(("east", "west"), [(9, 12), (12, 9), (8, 16), (16, 8), (33, 34), (4, 40)])
def test_two_heads_of_two_sizes_are_proven_by_the_log_s_own_answer(east: int, west: int) -> None:
    world = World()
    world.cosigned("east", east)
    world.cosigned("west", west)
    world.exchange()
    proven(world)


def test_a_log_that_does_not_answer_is_an_open_question_and_no_proof() -> None:
    world = World()
    world.is_answering = False
    world.cosigned("east", 9)
    world.cosigned("west", 12)
    world.exchange()
    assert world.watched("east").status == "agrees"  # it was asked just now
    world.now += UNPROVEN_AFTER_MS
    watched = world.watched("east")
    assert (watched.status, watched.forks) == ("unproven", ())
    (question,) = watched.open
    assert (question.source, question.is_refused) == (world.west.ledger, False)
    assert world.kept == {"east": [], "west": []}
    world.is_answering = True
    world.exchange()
    proven(world)


def test_a_log_that_answers_nonsense_is_an_open_question_at_once() -> None:
    world = World()
    world.is_answering = False
    world.cosigned("east", 9)
    world.cosigned("west", 12)
    world.exchange()
    watch = world.watches["east"]
    for answer in (
        Growth(world.liar.origin, 9, 12, None, ()),
        Growth(world.liar.origin, 9, 12, bytes(32), ()),
        world.forger.growth("east", AskGrowth("", 9, 12)),
    ):
        assert watch.receive(world.liar.ledger, answer, world.now) == []
        assert world.watched("east").open[0].is_refused


def test_an_honest_log_proves_its_growth_and_nothing_is_open() -> None:
    world = World()
    world.forger.trees["west"] = world.forger.trees["east"]
    for side, size in (("east", 5), ("west", 9), ("east", 12), ("west", 16), ("east", 16)):
        world.cosigned(side, size)
        world.exchange()
        assert world.watched(side).status == "agrees"
        assert world.watches[side].open_questions().items == ()
    assert world.kept == {"east": [], "west": []}


def test_nothing_is_asked_twice_of_what_was_proven() -> None:
    world = World()
    world.forger.trees["west"] = world.forger.trees["east"]
    world.cosigned("east", 5)
    world.cosigned("west", 9)
    world.exchange()
    count = len(world.asked["east"])
    assert count > 0
    for _ in range(5):
        world.now += REPEAT_MS
        world.exchange()
    assert len(world.asked["east"]) == count


def test_a_proof_is_told_to_all_partners_and_to_a_new_one() -> None:
    world = World()
    world.cosigned("east", 9)
    note = world.forger.head("west", 9)
    outputs = world.watches["east"].receive(world.west.ledger, Seen((note,)), world.now)
    assert isinstance(outputs[0], KeepForkProof)
    told = [one.ledger for one in outputs if isinstance(one, TellSighting) and isinstance(one.message, ForkShown)]
    assert {*told} == {world.west.ledger, world.liar.ledger}
    again = Watch(lambda: world.east.state, [outputs[0].proof])
    told = [one.ledger for one in again.tick(world.now) if isinstance(one.message, ForkShown)]  # type: ignore[union-attr]
    assert {*told} == {world.west.ledger, world.liar.ledger}
    assert again.tick(world.now + SEEN_EVERY_MS) == []


# --- partners that lie ------------------------------------------------------------------------------------------------


def test_a_forged_sighting_accuses_nobody() -> None:
    world = World()
    world.cosigned("east", 9)
    stranger = NoteSigner(world.liar.origin, bytes(32))
    forged = sign_checkpoint(Checkpoint(world.liar.origin, 9, bytes(32)), stranger).format()
    watch = world.watches["east"]
    assert watch.receive(world.west.ledger, Seen((forged,)), world.now) == []
    true = SignedNote.parse(world.forger.head("west", 9))
    altered = SignedNote(true.text.replace("\n9\n", "\n8\n"), true.signatures).format()
    with pytest.raises(RemoteProtocolError, match="note_signature_wrong"):
        watch.receive(world.west.ledger, Seen((altered,)), world.now)
    assert world.watched("east").status == "agrees"
    assert watch.open_questions().items == ()


def test_of_a_message_with_one_false_signature_nothing_counts() -> None:
    world = World()
    world.cosigned("east", 9)
    true = SignedNote.parse(world.forger.head("west", 9))
    altered = SignedNote(true.text.replace("\n9\n", "\n8\n"), true.signatures).format()
    with pytest.raises(RemoteProtocolError):
        world.watches["east"].receive(world.west.ledger, Seen((true.format(), altered)), world.now)
    assert world.watched("east").sources == ()


def test_a_false_accusation_is_refused() -> None:
    world = World()
    stranger = NoteSigner(world.liar.origin, bytes(32))
    notes = [sign_checkpoint(Checkpoint(world.liar.origin, 5, root), stranger) for root in (bytes(32), b"\x01" * 32)]
    invented = prove_fork(*notes, stranger.verifier, b"").format()
    with pytest.raises(RemoteProtocolError, match="note_unsigned"):
        world.watches["east"].receive(world.west.ledger, ForkShown(invented), world.now)
    assert world.watched("east").status == "agrees"


def test_a_peering_that_names_another_key_of_our_partner_s_log_accuses_nobody() -> None:
    """A partner may name any key as a decider's; of a partner's own log, that partner's peering alone counts."""
    world = World()
    assert known_logs(world.east.state)[world.liar.origin].key == world.liar.log.verifier
    row = world.east.state.federation.peers[world.west.ledger]
    policy = row.peering.deciders[0]
    false = msgspec.structs.replace(policy.log, origin=world.liar.origin)
    changed = msgspec.structs.replace(row.peering, deciders=(msgspec.structs.replace(policy, log=false),))
    world.east.state.federation.peers[world.west.ledger] = msgspec.structs.replace(row, peering=changed)
    assert known_logs(world.east.state)[world.liar.origin].key == world.liar.log.verifier


def test_a_stranger_named_under_two_keys_is_not_known() -> None:
    world = World()
    keys = (world.east.log.public_key, world.west.log.public_key)
    for ledger, key in zip((world.west.ledger, world.liar.ledger), keys, strict=True):
        row = world.east.state.federation.peers[ledger]
        policy = row.peering.deciders[0]
        log = msgspec.structs.replace(policy.log, origin="far.example/ecot", public_key=key)
        changed = msgspec.structs.replace(row.peering, deciders=(msgspec.structs.replace(policy, log=log),))
        world.east.state.federation.peers[ledger] = msgspec.structs.replace(row, peering=changed)
        is_known = "far.example/ecot" in known_logs(world.east.state)
        assert is_known is (ledger == world.west.ledger)


def test_stale_and_replayed_sightings_ask_once_each_and_prove_nothing() -> None:
    world = World()
    world.forger.trees["west"] = world.forger.trees["east"]
    world.cosigned("east", 20)
    watch = world.watches["east"]
    for _ in range(3):
        for size in (5, 9, 5, 20, 9):
            world.carry("east", watch.receive(world.west.ledger, Seen((world.forger.head("west", size),)), world.now))
    assert [one.old_size for one in world.asked["east"]] == [5, 9]
    assert world.watched("east").status == "agrees"


def test_a_flood_of_sightings_fills_no_memory_and_asks_one_question() -> None:
    world = World(size=200)
    world.is_answering = False
    world.cosigned("east", 1)
    watch = world.watches["east"]
    for size in range(2, 200):
        world.carry("east", watch.receive(world.west.ledger, Seen((world.forger.head("west", size),)), world.now))
    assert len(watch.open_questions().items) == 1
    assert len(world.asked["east"]) == 1
    assert world.watched("east").size == 199
    world.is_answering = True
    world.forger.trees["east"] = world.forger.trees["west"]
    for size in range(2, 200):
        world.now += ASK_FIRST_MS
        world.carry("east", watch.tick(world.now))
        world.carry("east", watch.receive(world.west.ledger, Seen((world.forger.head("west", size),)), world.now))
    assert len(watch._agreed[world.liar.origin]) <= MAX_AGREED


def test_a_log_that_forks_for_ever_is_kept_eight_times() -> None:
    world = World()
    world.cosigned("east", 9)
    watch = world.watches["east"]
    for number in range(MAX_FORKS + 5):
        root = number.to_bytes(32, "big")
        note = sign_checkpoint(Checkpoint(world.liar.origin, 9, root), world.liar.log_signer).format()
        world.carry("east", watch.receive(world.west.ledger, Seen((note,)), world.now))
    assert len(world.kept["east"]) == MAX_FORKS


def test_an_answer_of_somebody_else_counts_for_nothing() -> None:
    world = World()
    world.is_answering = False
    world.cosigned("east", 9)
    world.cosigned("west", 12)
    world.exchange()
    answer = world.forger.growth("west", AskGrowth("", 9, 12))
    watch = world.watches["east"]
    assert watch.receive(world.west.ledger, answer, world.now) == []
    assert watch.receive(world.liar.ledger, msgspec.structs.replace(answer, new_size=13), world.now) == []
    assert len(watch.open_questions().items) == 1
    assert isinstance(watch.receive(world.liar.ledger, answer, world.now)[0], KeepForkProof)


def test_of_its_own_log_a_partner_is_not_believed_here() -> None:
    """It has its log cosigned for that; and of ours, what it shows is for the guard."""
    world = World()
    watch = world.watches["east"]
    note = world.forger.head("west", 9)
    assert watch.receive(world.liar.ledger, Seen((note,)), world.now) == []
    ours = world.east.head()
    assert watch.receive(world.west.ledger, Seen((ours,)), world.now) == [OwnLogShown(world.west.ledger, ours)]
    unknown = FederatedKit(name="far").head()
    assert watch.receive(world.west.ledger, Seen((unknown,)), world.now) == []


def test_a_proof_against_our_own_log_goes_to_the_guard() -> None:
    world = World()
    notes = [
        sign_checkpoint(Checkpoint(world.east.origin, 2, root), world.east.log_signer)
        for root in (bytes(32), b"\x01" * 32)
    ]
    proof = prove_fork(*notes, world.east.log.verifier, b"")
    outputs = world.watches["east"].receive(world.west.ledger, ForkShown(proof.format()), world.now)
    assert outputs == [OwnLogShown(world.west.ledger, one) for one in (proof.first, proof.second)]


def test_growth_is_answered_of_our_own_log_alone() -> None:
    world = World()
    watch = world.watches["east"]
    assert watch.receive(world.west.ledger, AskGrowth(world.east.origin, 1, 2), world.now) == [
        AnswerGrowth(world.west.ledger, world.east.origin, 1, 2)
    ]
    for asked in (
        AskGrowth(world.liar.origin, 1, 2),
        AskGrowth(world.east.origin, 0, 2),
        AskGrowth(world.east.origin, 3, 2),
    ):
        assert watch.receive(world.west.ledger, asked, world.now) == []


# --- what is told and kept --------------------------------------------------------------------------------------------


def test_what_changed_is_told_soon_and_what_did_not_now_and_then() -> None:
    world = World()
    watch = world.watches["east"]
    world.cosigned("east", 9)

    def told_at(after_ms: int) -> list[Sighting]:
        world.now += after_ms
        outputs = watch.tick(world.now)
        assert all(isinstance(one, TellSighting) and one.ledger == world.west.ledger for one in outputs)
        return [one.message for one in outputs]  # type: ignore[union-attr]

    assert told_at(0) == [Seen((world.forger.head("east", 9),))]
    assert told_at(SEEN_EVERY_MS) == []
    world.cosigned("east", 12)
    assert told_at(SEEN_EVERY_MS // 2) == []
    assert told_at(SEEN_EVERY_MS // 2) == [Seen((world.forger.head("east", 12),))]
    assert told_at(REPEAT_MS) == [Seen((world.forger.head("east", 12),))]
    watch.met(world.west.ledger)
    assert told_at(0) == [Seen((world.forger.head("east", 12),))]


def test_an_open_question_outlives_a_restart() -> None:
    world = World()
    world.is_answering = False
    world.cosigned("east", 9)
    world.cosigned("west", 12)
    world.exchange()
    kept = OPEN_QUESTIONS.encode(world.watches["east"].open_questions())
    world.watches["east"] = Watch(lambda: world.east.state, (), OPEN_QUESTIONS.decode(kept))
    world.now += UNPROVEN_AFTER_MS
    assert world.watched("east").status == "unproven"
    world.is_answering = True
    world.exchange()
    proven(world)


def test_a_partner_that_is_gone_is_forgotten_but_not_the_proof() -> None:
    world = World()
    world.cosigned("east", 9)
    world.cosigned("west", 9)
    world.exchange()
    del world.east.state.federation.peers[world.liar.ledger]
    assert all(one.log.ledger != world.liar.ledger for one in world.watches["east"].logs(world.now))
    world.watches["east"].tick(world.now)
    assert world.watches["east"].open_questions().items == ()


def test_messages_are_told_apart_and_bounded() -> None:
    message = Seen((b"x",) * MAX_SIGHTINGS)
    raw = encode_sighting(message)
    assert is_sighting(raw)
    assert decode_sighting(raw) == message
    for wrong in (
        encode_sighting(Seen((b"x",) * (MAX_SIGHTINGS + 1))),
        encode_sighting(Seen(())),
        raw + b"x",
        b"\x92\x27",
    ):
        with pytest.raises(RemoteProtocolError):
            decode_sighting(wrong)
    with pytest.raises(RemoteProtocolError, match="too_large"):
        decode_sighting(bytes(200_000))
    assert not is_sighting(b"\x92")


# --- decision logs ----------------------------------------------------------------------------------------------------


def decisions_of(kit: FederatedKit, tree: LogTree, size: int) -> bytes:
    origin = kit.origin + DECISIONS_SUFFIX
    signer = NoteSigner(origin, seed(kit.name + "log"))
    return sign_checkpoint(Checkpoint(origin, size, tree.root(size)), signer).format()


@pytest.mark.parametrize(("own_size", "seen_size"), [(9, 9), (12, 9), (16, 8)])
def test_of_a_decision_log_the_kept_leaves_alone_prove_the_fork(own_size: int, seen_size: int) -> None:
    world = World()
    watch, origin = world.watches["east"], world.liar.origin + DECISIONS_SUFFIX
    kept, other = world.forger.trees["east"], world.forger.trees["west"]
    assert watch.witnessed(origin, decisions_of(world.liar, kept, own_size), world.now) == []
    outputs = watch.receive(world.west.ledger, Seen((decisions_of(world.liar, other, seen_size),)), world.now)
    if own_size != seen_size:
        assert outputs == [LookInKept(origin, seen_size, own_size)]
        outputs = watch.looked(outputs[0], kept.root(seen_size), kept.consistency(seen_size, own_size))
    assert isinstance(outputs[0], KeepForkProof)
    assert verify_fork(outputs[0].proof, [world.liar.log.decisions]).origin == origin


def test_of_a_decision_log_that_grew_the_kept_leaves_agree() -> None:
    world = World()
    watch, origin = world.watches["east"], world.liar.origin + DECISIONS_SUFFIX
    kept = world.forger.trees["east"]
    watch.witnessed(origin, decisions_of(world.liar, kept, 12), world.now)
    (look,) = watch.receive(world.west.ledger, Seen((decisions_of(world.liar, kept, 9),)), world.now)
    assert isinstance(look, LookInKept)
    assert watch.looked(look, kept.root(9), kept.consistency(9, 12)) == []
    assert watch.open_questions().items == ()


def test_where_leaves_are_missing_or_fewer_the_log_s_node_is_asked() -> None:
    world = World()
    watch, origin = world.watches["east"], world.liar.origin + DECISIONS_SUFFIX
    kept = world.forger.trees["east"]
    watch.witnessed(origin, decisions_of(world.liar, kept, 12), world.now)
    asked = TellSighting(world.liar.ledger, AskGrowth(origin, 12, 16))
    assert watch.receive(world.west.ledger, Seen((decisions_of(world.liar, kept, 16),)), world.now) == [asked]
    other = World()
    watch = other.watches["east"]
    watch.witnessed(origin, decisions_of(other.liar, kept, 12), other.now)
    (look,) = watch.receive(other.west.ledger, Seen((decisions_of(other.liar, kept, 9),)), other.now)
    assert isinstance(look, LookInKept)
    assert watch.looked(look, None, ()) == [TellSighting(other.liar.ledger, AskGrowth(origin, 9, 12))]
    assert not watch.open_questions().items[0].is_refused
