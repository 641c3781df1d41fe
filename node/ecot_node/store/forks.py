# SPDX-License-Identifier: AGPL-3.0-or-later
"""Proofs that a partner showed two histories of its log, within bounds: each costs the partner two signatures, and one
alone says all there is to say.
"""

from typing import Final, Protocol

from ecot_node.store.port import ForkProof

MAX_FORKS_PER_ORIGIN: Final = 8


class ForkStore(Protocol):
    """Where proofs are kept."""

    async def fork_put(self, proof: ForkProof) -> None: ...

    async def forks(self) -> list[ForkProof]: ...


async def keep_fork(store: ForkStore, proof: ForkProof) -> bool:
    """Keep a proof; False if so many of its origin are kept that one more says nothing new."""
    if sum(one.origin == proof.origin for one in await store.forks()) >= MAX_FORKS_PER_ORIGIN:
        return False
    await store.fork_put(proof)
    return True
