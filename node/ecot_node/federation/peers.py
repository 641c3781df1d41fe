# SPDX-License-Identifier: AGPL-3.0-or-later
"""Whose logs this node witnesses: those of its peers, with the keys that the ledger has recorded."""

from collections.abc import Sequence
from hashlib import sha256

from ecot_node.ledger.port import Ledger
from ecot_protocol.domains.federation.statements import Side
from ecot_protocol.state import State
from ecot_protocol.wire.note_key import KeyType, NoteVerifier


class LedgerPeers:
    """Peers as the state knows them; an ended peering is witnessed on, so that its last deals can still be decided."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def log_keys(self, origin: str) -> Sequence[NoteVerifier]:
        """Return the keys that we trust for a log's origin; none if it is not a peer's."""
        sides = await self._ledger.read(_sides)
        return [NoteVerifier(one.origin, KeyType.ED25519, one.log[1:]) for one in sides if one.origin == origin]

    async def origin_of(self, origin_hash: bytes) -> str | None:
        """Return the peer's origin whose SHA-256 (of its UTF-8) this is."""
        sides = await self._ledger.read(_sides)
        return next((one.origin for one in sides if sha256(one.origin.encode()).digest() == origin_hash), None)


def _sides(state: State) -> list[Side]:
    own = state.ledger
    return [] if own is None else [peer.peering.other_side(own) for peer in state.federation.peers.values()]
