# SPDX-License-Identifier: AGPL-3.0-or-later
"""A group on its way to the log: what was recorded in memory, and the one transaction that makes it durable."""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from ecot_node.ledger.admission import Admitted
from ecot_node.ledger.boot import recorded_entry
from ecot_node.ledger.errors import NotWriting
from ecot_node.ledger.port import RecordedEntry, StateProof
from ecot_node.ledger.snapshot import SnapshotHeader
from ecot_node.ledger.tree import snapshot_edge
from ecot_node.store.port import AttachmentRow, CommitGroup, RecordRow, TileRow
from ecot_protocol.domains.coop.acts import ReplaceNodeKey
from ecot_protocol.ledger.reasons import Reason
from ecot_protocol.machine import Machine, Submission, public_keys
from ecot_protocol.state import State
from ecot_protocol.wire.checkpoint import Checkpoint, sign_checkpoint
from ecot_protocol.wire.entry import encode_record, leaf_data
from ecot_protocol.wire.merkle import Frontier, GroupTree, TileEdge, leaf_hash
from ecot_protocol.wire.note import NoteSigner
from ecot_protocol.wire.reply import Outcome, Recorded, RecordedBefore, Refused, Reply


class Pending:
    """One caller's entries, from submission to reply."""

    __slots__ = ("count", "future", "items", "outcomes", "proofs", "seal_rows", "snapshot", "state_proofs")

    def __init__(
        self,
        items: list[Admitted | Refused],
        future: "asyncio.Future[Reply]",
        *,
        seal_rows: Sequence[tuple[str, bytes]] | None = None,
        proofs: "asyncio.Future[Sequence[StateProof]] | None" = None,
    ) -> None:
        self.items = items
        self.future = future
        self.count = max(len(items), 1)
        self.outcomes: list[Outcome] = []
        self.seal_rows = seal_rows
        self.proofs = proofs
        self.state_proofs: list[StateProof] = []
        self.snapshot: tuple[SnapshotHeader, list[tuple[str, bytes, bytes]]] | None = None

    def fail(self, error: Exception) -> None:
        """Answer with an error; nothing was recorded for this caller."""
        for future in (self.future, self.proofs):
            if future is not None and not future.done():
                future.set_exception(error)

    def resolve(self, group: "Group | None", checkpoint: str) -> None:
        """Answer with the outcomes; those recorded now are proven by one range of the group's tree."""
        indexes = [one.index for one in self.outcomes if isinstance(one, Recorded)]
        hashes: tuple[bytes, ...] = ()
        if indexes and group is not None and group.tree is not None:
            hashes = group.tree.range_proof(indexes[0], indexes[-1] + 1)
        if not self.future.done():
            start = indexes[0] if indexes else None
            self.future.set_result(Reply(tuple(self.outcomes), start, hashes, checkpoint))
        if self.proofs is not None and not self.proofs.done():
            if all(isinstance(one, Recorded | RecordedBefore) for one in self.outcomes):
                self.proofs.set_result(self.state_proofs)
            else:  # the seal is not in the log: there is nothing to prove against
                self.proofs.set_exception(NotWriting("store_failed"))


class Group:
    """Records entries in memory, one after the other, at one time.

    Args:
        machine: the rules.
        state: changed in place.
        at: time of every record of the group, milliseconds since 1970.
        quarantine: hashes of bodies that are refused.
    """

    __slots__ = (
        "_at",
        "_bodies",
        "_machine",
        "_quarantine",
        "_state",
        "at_work",
        "attachments",
        "has_replaced_key",
        "leaves",
        "recorded",
        "rows",
        "tree",
    )

    def __init__(self, machine: Machine, state: State, at: int, quarantine: set[bytes]) -> None:
        self._machine, self._state, self._at, self._quarantine = machine, state, at, quarantine
        self.rows: list[RecordRow] = []
        self.leaves: list[bytes] = []
        self.attachments: list[AttachmentRow] = []
        self.recorded: list[RecordedEntry] = []
        self.tree: GroupTree | None = None
        self.at_work: Submission | None = None
        self.has_replaced_key = False
        self._bodies: dict[bytes, tuple[bytes, int]] = {}

    def record(self, admitted: Admitted) -> Outcome:
        """Judge an entry and, if nothing speaks against it, record it in the state."""
        submission = admitted.submission
        if submission.body_hash in self._quarantine:
            return Refused("quarantined", ())
        if admitted.are_signatures_good is not True:
            reason = submission.find_bad_signature(public_keys(self._state))
            if reason is not None:
                return Refused(reason.code, reason.params)
        index = self._state.size
        self.at_work = submission
        result = self._find_bad_evidence(submission) or self._machine.record(self._state, submission, self._at)
        if isinstance(result, Reason):
            return Refused(result.code, result.params)
        entry, body = submission.entry, submission.body
        self.has_replaced_key |= isinstance(submission.payload, ReplaceNodeKey)
        record = encode_record(self._at, entry)
        leaf = leaf_hash(leaf_data(record))
        self.rows.append(RecordRow(index, body.id, self._at, record, leaf))
        self.leaves.append(leaf)
        self._bodies[body.id] = (entry.body, index)
        for position, one in enumerate(entry.attachments):
            self.attachments.append(AttachmentRow(index, position, one.class_name, one.salt, one.content))
        self.recorded.append(recorded_entry(index, self._at, body, submission.entry_type, result))
        return Recorded(index, self._at)

    def _find_bad_evidence(self, submission: Submission) -> Reason | None:
        if not submission.entry_type.has_evidence:
            return None
        reason = self._machine.refuse_signers(self._state, submission, self._at)
        return reason or submission.find_bad_evidence()

    def find(self, entry_id: bytes, body: bytes) -> tuple[int, int] | None:
        """Return (index, received_at_ms) of a body that this very group recorded."""
        found = self._bodies.get(entry_id)
        return (found[1], self._at) if found is not None and found[0] == body else None


class BuiltGroup(NamedTuple):
    """A group with its tree and its transaction; `edge` is the tree's edge once it is durable."""

    commit: CommitGroup
    tree: GroupTree
    edge: TileEdge


def build_group(group: Group, frontier: Frontier, edge: TileEdge, signers: Sequence[NoteSigner]) -> BuiltGroup:
    """Compute the new tree and sign its checkpoint.

    Args:
        group: with at least one record.
        frontier: of the tree before.
        edge: of the tree before; not changed.
        signers: the log's key, named like its origin; and the next one, if the group replaced it.
    """
    tree = GroupTree(frontier, group.leaves)
    grown = snapshot_edge(edge)
    full = grown.append_group(tree)
    checkpoint = sign_checkpoint(Checkpoint(signers[0].verifier.name, tree.size, tree.root), signers[0])
    checkpoint = checkpoint.with_signatures(one.sign(checkpoint.text) for one in signers[1:])
    commit = CommitGroup(
        size=tree.size,
        records=group.rows,
        attachments=group.attachments,
        tiles=[TileRow(one.level, one.index, one.hashes) for one in full],
        edge=grown.tiles(),
        checkpoint=checkpoint.format(),
    )
    return BuiltGroup(commit, tree, grown)
