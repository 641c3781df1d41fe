# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the HTTP floor asks of the floors beside and above it; `bootstrap` hands it in."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from ecot_node.http.callers import Caller
from ecot_node.ledger.port import Ledger
from ecot_node.store.port import CheckpointStore, DraftStore, LogReads
from ecot_protocol.wire.entry import Entry
from ecot_protocol.wire.merkle import TileEdge
from ecot_protocol.wire.note_key import NoteVerifier


class RecordedMeta(msgspec.Struct, frozen=True, gc=False):
    """What the views know of a record.

    Attributes:
        index: place in the log.
        entry_id: 16 bytes.
        received_at_ms: milliseconds since 1970.
        type: entry type.
        author: member, person or organ acted for; None for the node.
        visibility: of its type, when it was recorded.
        parties: members, persons and organs whom it concerns.
    """

    index: int
    entry_id: bytes
    received_at_ms: int
    type: str
    author: bytes | None
    visibility: str
    parties: tuple[bytes, ...]


class RecordIndex(Protocol):
    """The views' table of records."""

    async def entry(self, index: int) -> RecordedMeta | None:
        """Return one record, whoever may read it; None if the views don't show it yet."""
        ...

    async def visible(
        self, caller: Caller | None, *, after: int, limit: int, tag: str | None, author: bytes | None
    ) -> list[RecordedMeta]:
        """Return up to `limit` records that the caller may read, ascending.

        Args:
            caller: see `callers.readable_visibilities` and `Caller.party_ids`.
            after: only indexes above this one; -1 is the beginning.
            limit: 1..1000.
            tag: only this entry type.
            author: only this author.
        """
        ...


class ViewsReads(Protocol):
    """The views as routes read them."""

    def connect(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """Borrow a connection for reading; one snapshot as long as it is held."""
        ...


class Peers(Protocol):
    """The logs that we witness: those of the peers."""

    async def log_keys(self, origin: str) -> Sequence[NoteVerifier]:
        """Return the keys that we trust for a log's origin; none if it is not a peer's."""
        ...

    async def origin_of(self, origin_hash: bytes) -> str | None:
        """Return the peer's origin whose SHA-256 (of its UTF-8) this is."""
        ...


class HttpLedger(Ledger, Protocol):
    """The ledger, with the edge of its tree for proofs and partial tiles."""

    def edge(self) -> TileEdge:
        """Return a copy of the tree's edge as of the newest durable record."""
        ...

    def is_known(self, entry: Entry) -> bool:
        """Tell whether a person of the ledger may have signed the entry; asked before anything is waited for."""
        ...


class HttpStore(LogReads, CheckpointStore, DraftStore, Protocol):
    """The part of the store that routes use."""
