# SPDX-License-Identifier: AGPL-3.0-or-later
"""Proofs that a partner showed two histories of its log, within bounds: each costs the partner two signatures, and one
alone says all there is to say.

`ForkBoard` is where every part of a node finds them: the witness and the federation put them there, HTTP serves them.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Protocol

from ecot_node.store.port import ForkProof as StoredProof
from ecot_protocol.wire.fork import ForkProof, fork_id

MAX_FORKS_PER_ORIGIN: Final = 8
MAX_FORKS: Final = 256
"""Proofs of all logs together: a node has fewer partners."""


class ForkStore(Protocol):
    """Where proofs are kept."""

    async def fork_put(self, proof: StoredProof) -> None: ...

    async def forks(self) -> list[StoredProof]: ...


class ForkBoard:
    """The proofs that this node keeps.

    Args:
        store: open when `load` is called.
    """

    def __init__(self, store: ForkStore) -> None:
        self._store = store
        self._proofs: dict[str, bytes] = {}

    @property
    def proofs(self) -> Mapping[str, bytes]:
        """Id -> proof as `ecot_protocol.wire.fork` writes it, oldest first."""
        return MappingProxyType(self._proofs)

    async def load(self) -> None:
        """Take what the store keeps."""
        self._proofs = {fork_id(one.proof): one.proof for one in await self._store.forks() if one.proof}

    async def keep(self, raw: bytes) -> bool:
        """Keep a proof that was found good; False if it is kept already, or so many that one more says nothing new."""
        proof = ForkProof.parse(raw)
        origin = proof.log_key.name
        same = sum(ForkProof.parse(one).log_key.name == origin for one in self._proofs.values())
        if fork_id(raw) in self._proofs or same >= MAX_FORKS_PER_ORIGIN or len(self._proofs) >= MAX_FORKS:
            return False
        await self._store.fork_put(StoredProof(origin, proof.first, proof.second, raw))
        self._proofs[fork_id(raw)] = raw
        return True
