# SPDX-License-Identifier: AGPL-3.0-or-later
"""Keys that were replaced: ours shown to partners, theirs followed; see `ecot_protocol.domains.federation.keys`.

Whoever asks what we hold of a partner says which of its keys it knows, as a record of the partner's log. If there is a
newer one, the partner shows it: the records, under a checkpoint that the asker's witness can cosign. The asker checks
the growth, keeps the checkpoint as a witness does (durable before it counts), and records ``federation.follow_keys``.

A node whose libp2p key was replaced can't be reached under its old name: partners that know its HTTP address ask there.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec
import structlog

from ecot_node.ledger.handovers import Handover
from ecot_node.ledger.tree import prove
from ecot_node.store.forks import ForkBoard
from ecot_node.store.port import LogStore, WitnessState
from ecot_protocol.domains.federation.keys import FOLLOW_TAG, FollowKeys, KeyProof, are_own_keys_behind
from ecot_protocol.domains.federation.messages import MAX_FOLLOWED, KeysShown
from ecot_protocol.domains.federation.proofs import Inclusion
from ecot_protocol.domains.federation.statements import LogKey, Witness
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.state import State
from ecot_protocol.wire.checkpoint import Checkpoint
from ecot_protocol.wire.cosignature import Cosigner
from ecot_protocol.wire.fork import prove_fork
from ecot_protocol.wire.merkle import TileEdge, consistency_proof, inclusion_proof
from ecot_protocol.wire.note import SignedNote
from ecot_protocol.wire.reply import Recorded, RecordedBefore, Reply
from ecot_protocol.wire.witness import AddCheckpointRequest, Refusal, decide

_KEPT_LINES = 2
log = structlog.get_logger("ecot.keys")


class FollowingNode(Protocol):
    """What following keys needs of the writer."""

    @property
    def state(self) -> State: ...

    def checkpoint(self) -> bytes: ...

    def wall_ms(self) -> int: ...

    def edge(self) -> TileEdge: ...

    async def append_own(self, tag: str, payload: msgspec.Struct) -> Reply: ...

    async def handovers(self) -> Sequence[Handover]: ...


class KeyFollower:
    """Shows our keys and follows those of partners.

    Args:
        node: the writer.
        store: of the same node.
        cosigner: our cosigner key.
        forks: where proofs go that a log forked.
    """

    def __init__(self, node: FollowingNode, store: LogStore, cosigner: Cosigner, forks: ForkBoard) -> None:
        self._node, self._store, self._cosigner, self._forks = node, store, cosigner, forks

    async def follow_own(self) -> None:
        """Let our peerings name our own new keys, if they don't yet."""
        state = self._node.state
        if state.ledger is not None and are_own_keys_behind(state):
            reply = await self._node.append_own(FOLLOW_TAG, FollowKeys(ledger=state.ledger, proof=None))
            log.info("own_keys_followed", outcome=type(reply.outcomes[0]).__name__)

    async def show(self, keys_index: int, cosigned_size: int) -> KeysShown | None:
        """Show what was replaced since a record; None if nothing was, or it can't be shown.

        Args:
            keys_index: the record of ours up to which the asker knows our keys.
            cosigned_size: the size of our log that the asker cosigned last.
        """
        note, indexes = await self._next_step(keys_index)
        if note is None or not indexes:
            return None
        size = Checkpoint.parse(note.text).size
        if cosigned_size > size:
            return None
        edge = self._node.edge()
        records = tuple([await self._inclusion(edge, index, size) for index in indexes])
        hashes: tuple[bytes, ...] = ()
        if 0 < cosigned_size < size:
            hashes = await prove(self._store, edge, lambda reader: consistency_proof(reader, cosigned_size, size))
        return KeysShown(AddCheckpointRequest(cosigned_size, hashes, note).format(), records)

    async def _next_step(self, keys_index: int) -> tuple[SignedNote | None, list[int]]:
        """Return a checkpoint that the asker's key of our log opens, and the records in it that it lacks."""
        keys = self._node.state.coop.node_keys
        handover = next((one for one in await self._node.handovers() if one.index > keys_index), None)
        raw = self._node.checkpoint() if handover is None else handover.checkpoint
        if not raw:
            return None, []
        note = SignedNote.parse(raw)
        size = Checkpoint.parse(note.text).size
        indexes = {key.since_index for key in keys.values() if keys_index < key.since_index < size}
        if handover is not None:
            # Keys replaced after the handover are shown at the next step, under the new key.
            indexes = {one for one in indexes if one <= handover.index} | {handover.index}
        return note, sorted(indexes)[:MAX_FOLLOWED]

    async def _inclusion(self, edge: TileEdge, index: int, size: int) -> Inclusion:
        row = await self._store.record(index)
        assert row is not None, "keys are replaced by durable records"
        hashes = await prove(self._store, edge, lambda reader: inclusion_proof(reader, index, size))
        return Inclusion(hashes=hashes, index=index, record=row.record)

    async def take(self, partner: bytes, message: KeysShown) -> bool:
        """Follow a partner's keys, if it proves them; tell whether that was recorded.

        Raises:
            RemoteProtocolError: the request has not its form.
        """
        state = self._node.state
        peer = state.federation.peers.get(partner)
        if peer is None or state.ledger is None:
            return False
        side = peer.peering.side_of(partner)
        if message.records[0].index <= side.keys_index:
            return False
        asked = AddCheckpointRequest.parse(message.request)
        log_key = LogKey(origin=side.origin, public_key=side.log)
        cosigned = await self._cosign(asked, log_key)
        if cosigned is None:
            return False
        own = state.coop.founded
        proof = KeyProof(
            checkpoint=cosigned,
            cosigner=Witness(
                ledger=own.ledger, name=own.origin, public_key=state.coop.node_keys["cosigner"].public_key
            ),
            log=log_key,
            records=message.records,
        )
        reply = await self._node.append_own(FOLLOW_TAG, FollowKeys(ledger=partner, proof=proof))
        outcome = reply.outcomes[0]
        log.info("keys_followed", partner=partner.hex(), outcome=type(outcome).__name__)
        return isinstance(outcome, Recorded | RecordedBefore)

    async def _cosign(self, asked: AddCheckpointRequest, log_key: LogKey) -> bytes | None:
        """Cosign a checkpoint as a witness does; None if it does not extend what we saw."""
        if asked.checkpoint.origin != log_key.origin:
            return None
        known = await self._store.witness_get(log_key.origin)
        decision = decide((known.size, known.root) if known else None, asked, (log_key.verifier,))
        if isinstance(decision, Refusal):
            if decision.is_fork_proof and known is not None:
                await self._keep_fork(known, asked, log_key)
            log.info("keys_not_cosigned", origin=log_key.origin, code=decision.code)
            return None
        # Both keys' lines stay: the partner asks for this note after its change, and then knows its new key alone.
        lines = tuple(line for line in asked.note.signatures if line.name == log_key.origin)[:_KEPT_LINES]
        note = SignedNote(asked.note.text, lines).format()
        new = WitnessState(decision.checkpoint.size, decision.checkpoint.root_hash, note)
        if not await self._store.witness_put(log_key.origin, old_size=known.size if known else None, state=new):
            return None  # somebody else cosigned a later one meanwhile: it is shown again
        line = self._cosigner.cosign(asked.note.text, max(self._node.wall_ms() // 1000, 1))
        return asked.note.with_signatures((line,)).format()

    async def _keep_fork(self, known: WitnessState, asked: AddCheckpointRequest, log_key: LogKey) -> None:
        try:
            proof = prove_fork(SignedNote.parse(known.note), asked.note, log_key.verifier, b"")
        except RemoteProtocolError as error:
            log.error("fork_not_provable", origin=log_key.origin, code=error.code)
            return
        if await self._forks.keep(proof.format()):
            log.error("log_forked", origin=log_key.origin, size=asked.checkpoint.size)


__all__ = ["FollowingNode", "KeyFollower"]
