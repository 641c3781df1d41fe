# SPDX-License-Identifier: AGPL-3.0-or-later
"""The memory of a log: every head that it signs must extend the newest that this client has kept.

Two signed heads that do not agree are kept in a file. If they have one size, or the node's own answer leads to the
larger from another root than the smaller's, the file is a fork proof (`ecot_protocol.wire.fork`), for anybody who knows
the log's key. Otherwise the node has refused to show how its log grew, which convinces us, but nobody else; then the
file says what we saw:

    {"version": 1, "log_vkey": "…", "kept": "<note>", "shown": "<note>", "consistency": ["…"], "noticed_ms": 0}
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from ecot_client.errors import NodeProblem, NodeRewrotePast
from ecot_client.journal import Journal
from ecot_client.receipts import read_checkpoint
from ecot_protocol.errors import LocalProtocolError, RemoteProtocolError
from ecot_protocol.wire.checkpoint import Checkpoint
from ecot_protocol.wire.fork import fork_id, prove_fork
from ecot_protocol.wire.merkle_hash import verify_consistency
from ecot_protocol.wire.note import SignedNote
from ecot_protocol.wire.note_key import NoteVerifier

VERSION: Final = 1
FetchConsistency = Callable[[int, int], Awaitable[tuple[bytes, tuple[bytes, ...]]]]
"""(old size, new size) -> the root at the old size and the hashes that the node offers; both empty if it refuses."""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """Two heads of one log that do not agree; see the module."""

    version: int
    log_vkey: str
    kept: str
    shown: str
    consistency: tuple[str, ...]
    noticed_ms: int


@dataclass(frozen=True, slots=True)
class _Seen:
    note: str
    head: Checkpoint


class LogMemory:
    """What this client remembers of a log.

    Args:
        journal: where it is kept.
        verifier: of the log.
        fetch: asks the node for a consistency proof.
        clock_ms: milliseconds since 1970.
    """

    def __init__(
        self, journal: Journal, verifier: NoteVerifier, fetch: FetchConsistency, clock_ms: Callable[[], int]
    ) -> None:
        self._journal = journal
        self._verifier = verifier
        self._fetch = fetch
        self._clock_ms = clock_ms
        self._lock = asyncio.Lock()

    @property
    def verifier(self) -> NoteVerifier:
        """The key of the log."""
        return self._verifier

    async def observe(self, note: str) -> Checkpoint:
        """Take in a checkpoint, whatever answer it came with.

        Returns:
            The head, shown to agree with the newest kept; the larger of both is then the newest.

        Raises:
            ProofFailed: the log has not signed it.
            NodeRewrotePast: it contradicts what is kept.
            NodeUnreachable: the consistency proof can't be had; nothing is kept.
        """
        shown = _Seen(note, read_checkpoint(note, self._verifier))
        async with self._lock:
            kept = await asyncio.to_thread(self._kept)
            if kept is not None:
                await self._require_agreement(kept, shown)
            if kept is None or shown.head.size > kept.head.size:
                await asyncio.to_thread(self._journal.set_newest, note)
        return shown.head

    def _kept(self) -> _Seen | None:
        note = self._journal.newest()
        return None if note is None else _Seen(note, read_checkpoint(note, self._verifier))

    async def _require_agreement(self, kept: _Seen, shown: _Seen) -> None:
        old, new = sorted((kept.head, shown.head), key=lambda head: head.size)
        root, hashes = b"", ()  # type: tuple[bytes, tuple[bytes, ...]]
        if old.size != new.size:
            root, hashes = await self._fetch_or_none(old.size, new.size)
        if not verify_consistency(old.size, old.root_hash, new.size, new.root_hash, hashes):
            raise await self._accuse(kept, shown, root, hashes)

    async def _fetch_or_none(self, old_size: int, new_size: int) -> tuple[bytes, tuple[bytes, ...]]:
        try:
            return await self._fetch(old_size, new_size)
        except NodeProblem as problem:
            if problem.status >= 500 or problem.status == 429:
                raise
            # A node that signed both heads can prove that one extends the other; refusing to is an answer too.
            return b"", ()

    async def _accuse(self, kept: _Seen, shown: _Seen, root: bytes, hashes: tuple[bytes, ...]) -> NodeRewrotePast:
        first, second = sorted((kept, shown), key=lambda seen: seen.head.size)
        try:
            one, other = (SignedNote.parse(seen.note.encode()) for seen in (first, second))
            proof = prove_fork(one, other, self._verifier, root, hashes).format()
        except (RemoteProtocolError, LocalProtocolError):
            return await self._keep_evidence(kept, shown, hashes)
        name = f"{fork_id(proof)[:16]}.fork-proof"
        path = await asyncio.to_thread(self._journal.save_evidence, name, proof)
        return NodeRewrotePast(kept.note, shown.note, path)

    async def _keep_evidence(self, kept: _Seen, shown: _Seen, hashes: tuple[bytes, ...]) -> NodeRewrotePast:
        evidence = Evidence(
            version=VERSION,
            log_vkey=self._verifier.vkey,
            kept=kept.note,
            shown=shown.note,
            consistency=tuple(one.hex() for one in hashes),
            noticed_ms=self._clock_ms(),
        )
        name = f"evidence-{kept.head.size}-{shown.head.size}-{shown.head.root_hash[:4].hex()}.json"
        content = msgspec.json.format(msgspec.json.encode(evidence)) + b"\n"
        path = await asyncio.to_thread(self._journal.save_evidence, name, content)
        return NodeRewrotePast(kept.note, shown.note, path)
