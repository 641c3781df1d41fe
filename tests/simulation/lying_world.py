# SPDX-License-Identifier: AGPL-3.0-or-later
"""Federations with one partner that lies: what it says is replaced on its way; its keys sign what it likes.

Its node is otherwise as the others', so that it knows what there is to know. It repeats old messages, its own and those
that it was sent; damages them; turns decisions round, in the record that it shows; signs checkpoints with other roots,
other sizes; gives stale cosignatures, cosignatures of another time, and of what it has not seen; asks for aborts out of
turn; floods; and says nothing.

The others must keep P1 to P7 among themselves, and owe and be owed no more than the limits that they gave it.
"""

import random
from collections import deque
from collections.abc import Sequence
from typing import Final

import msgspec
from ledger_kit import seed
from node_world import SimNode, World

from ecot_node.federation.port import PeerId
from ecot_protocol.domains.federation.decision_log import OUTCOMES, DecisionTree
from ecot_protocol.domains.federation.messages import (
    AbortAsked,
    Accepted,
    Ask,
    Cosigned,
    DecisionShown,
    Head,
    Message,
    Offer,
    Prepare,
    Push,
    PushDecisions,
    PushedLeaf,
    Stale,
    Unheard,
    decode_message,
    encode_message,
)
from ecot_protocol.domains.federation.sighting_messages import is_sighting
from ecot_protocol.domains.federation.state import partner_account
from ecot_protocol.domains.federation.statements import DECISIONS_SUFFIX
from ecot_protocol.wire.checkpoint import Checkpoint, sign_checkpoint
from ecot_protocol.wire.merkle_group import Frontier
from ecot_protocol.wire.note import NoteSigner, SignedNote, format_signatures
from ecot_protocol.wire.witness import AddCheckpointRequest

REMEMBERED: Final = 200
FLOOD: Final = 300
DAY_S: Final = 86_400
Sent = tuple[PeerId, bytes]


class Liar:
    """What a lying partner says instead of what its node says.

    Args:
        world: in which it lies.
        node: its own.
    """

    def __init__(self, world: World, node: SimNode) -> None:
        self.world, self.node = world, node
        self.chance = random.Random(f"liar {world.number}")
        self.known: deque[bytes] = deque(maxlen=REMEMBERED)
        self.log_key = NoteSigner(node.kit.origin, seed(node.kit.name + "log"))
        self.leaves: dict[int, PushedLeaf] = {}
        self.decisions_key = NoteSigner(node.kit.origin + DECISIONS_SUFFIX, seed(node.kit.name + "log"))

    def __call__(self, sender: PeerId, target: PeerId, raw: bytes) -> Sequence[Sent]:
        if sender != self.node.peer_id:
            if target == self.node.peer_id:
                self.known.append(raw)
            return ((target, raw),)
        self.known.append(raw)
        if is_sighting(raw):
            return ((target, self.damage(raw) if self.chance.random() < 0.3 else raw),)
        self.remember(decode_message(raw))
        if self.world.is_calm or self.chance.random() < 0.5:
            return ((target, raw),)
        return self.lie(target, raw)

    def remember(self, message: Message) -> None:
        """Keep what its own log decided."""
        if isinstance(message, PushDecisions):
            self.leaves |= dict(enumerate(message.leaves, message.start))

    def lie(self, target: PeerId, raw: bytes) -> Sequence[Sent]:
        others = [node.peer_id for node in self.world.others(self.node)]
        kind = self.chance.choice(("silence", "replay", "damage", "forge", "forge", "forge", "unasked", "flood"))
        self.world.count(f"lie {kind}")
        match kind:
            case "silence":
                return ()
            case "replay":
                return ((target, raw), *((self.chance.choice(others), self.pick()) for _ in range(5)))
            case "damage":
                return ((target, self.damage(raw)), (target, raw))
            case "unasked":
                return ((target, raw), (self.chance.choice(others), encode_message(self.unasked())))
            case "flood" if self.chance.random() < 0.1:
                return tuple((target, self.pick()) for _ in range(FLOOD))
            case _:
                return ((target, encode_message(self.forge(decode_message(raw)))),)

    def pick(self) -> bytes:
        return self.chance.choice(self.known)

    def damage(self, raw: bytes) -> bytes:
        damaged = bytearray(raw)
        for _ in range(self.chance.randint(1, 3)):
            damaged[self.chance.randrange(len(damaged))] ^= 1 << self.chance.randrange(8)
        return bytes(damaged)

    def unasked(self) -> Message:
        """Return a question or a claim about a deal of which it has heard."""
        deals = [message.contract for message in self.messages() if isinstance(message, Prepare | Accepted | Offer)]
        if not deals:
            return Ask(self.chance.randbytes(16))
        contract = self.chance.choice(deals)
        return self.chance.choice((AbortAsked(contract), Offer(contract), Unheard(self.chance.randbytes(16))))

    def messages(self) -> list[Message]:
        found = []
        for raw in self.known:
            if not is_sighting(raw):
                found.append(decode_message(raw))
        return found

    def forge(self, message: Message) -> Message:
        """Return a message of the same kind that is not true."""
        match message:
            case DecisionShown(checkpoint=note, decision=decision):
                if self.chance.random() < 0.5:
                    turned = "abort" if decision.outcome == "commit" else "commit"
                    return DecisionShown(note, msgspec.structs.replace(decision, outcome=turned))
                return DecisionShown(self.checkpoint(note), decision)
            case PushDecisions(start, before, leaves, note):
                if all(number in self.leaves for number in range(start)) and self.chance.random() < 0.5:
                    turned_leaves = tuple(PushedLeaf(leaf.tid, 1 - leaf.outcome) for leaf in leaves)
                    return PushDecisions(start, before, turned_leaves, self.second_history(start, turned_leaves))
                return PushDecisions(start, before, leaves, self.checkpoint(note))
            case Push(request):
                return self.push(AddCheckpointRequest.parse(request))
            case Cosigned(origin, size, _):
                return self.cosigned(origin, size)
            case Stale(origin, size):
                return Stale(origin, max(0, size + self.chance.randint(-3, 3)))
            case Head(origin, note) if note is not None:
                return Head(origin, self.checkpoint(note))
            case _:
                return message

    def second_history(self, start: int, leaves: tuple[PushedLeaf, ...]) -> bytes:
        """Return a good checkpoint of a decision log in which the last decisions are turned round."""
        tree = DecisionTree(Frontier.empty())
        for leaf in (*(self.leaves[number] for number in range(start)), *leaves):
            tree.append(leaf.tid, OUTCOMES[leaf.outcome])
        checkpoint = Checkpoint(self.decisions_key.verifier.name, tree.size, tree.root(tree.size))
        return sign_checkpoint(checkpoint, self.decisions_key).format()

    def checkpoint(self, note: bytes) -> bytes:
        """Return a checkpoint of another size or root: signed by its own log's key, whatever log it is of."""
        shown = Checkpoint.parse(SignedNote.parse(note).text)
        size = max(1, shown.size + self.chance.randint(-2, 2))
        root = shown.root_hash if self.chance.random() < 0.3 else self.chance.randbytes(32)
        key = self.decisions_key if shown.origin.endswith(DECISIONS_SUFFIX) else self.log_key
        return sign_checkpoint(Checkpoint(key.verifier.name, size, root), key).format()

    def push(self, request: AddCheckpointRequest) -> Message:
        note = SignedNote.parse(self.checkpoint(request.note.format()))
        return Push(AddCheckpointRequest(request.old_size, request.proof, note).format())

    def cosigned(self, origin: str, size: int) -> Message:
        """Return its cosignature of something else, or of another time."""
        old = [one for one in self.messages() if isinstance(one, Push)]
        texts = [AddCheckpointRequest.parse(one.request).note.text for one in old]
        text = self.chance.choice(texts) if texts else ""
        if not text:
            return Stale(origin, size)
        now_s = self.world.wall_ms() // 1000
        at_s = self.chance.choice((now_s, now_s - DAY_S, now_s + DAY_S, 1))
        return Cosigned(origin, size, format_signatures((self.node.kit.cosigner.cosign(text, at_s),)))


class LyingWorld(World):
    """A federation one of whose nodes is a liar; it neither dies nor is waited for."""

    def make_liar(self) -> None:
        self.liar = self.chance.choice(self.nodes)
        self.network.hook = Liar(self, self.liar)

    def plan(self) -> None:
        self.make_liar()
        super().plan()

    def lose_one(self) -> None: ...

    def is_honest(self, node: SimNode) -> bool:
        return node is not self.liar

    def check_mirror(self, first: SimNode, second: SimNode) -> None:
        """What the liar's log has not decided may be posted on one side so far; all else agrees."""
        if self.is_honest(second) and not any(len(one.writer.state.federation.promises) for one in (first, second)):
            super().check_mirror(first, second)

    def check_sums(self, node: SimNode) -> None:
        """P1, and the bound of the damage: nobody owes the liar, or is owed by it, more than it was granted."""
        super().check_sums(node)
        if self.is_honest(node):
            account = node.writer.state.accounts.rows[partner_account(self.liar.ledger, "BART")]
            assert account.lower_minor is not None
            assert account.upper_minor is not None
            assert account.lower_minor <= account.balance_minor <= account.upper_minor, f"L1: {node.name} and the liar"

    def living(self) -> list[SimNode]:
        return [node for node in super().living() if self.is_honest(node)]
