# SPDX-License-Identifier: AGPL-3.0-or-later
"""What members are told of logs with two histories: proofs, fetched from the node, checked here, kept for good.

- The node says which proofs it keeps with what it says of its ledger, and on the stream of events.
- A proof counts under the log key that this client pinned, or that the peering with that partner names; else it is not
  kept. So a node can't make its members believe anything about a cooperative that is none of its partners.
- What is kept is warned of for ever; a board may explain it, but it did happen.
"""

import asyncio
import re
from typing import Final

import msgspec

from ecot_client.errors import NodeProblem, ProofFailed
from ecot_client.journal import Journal
from ecot_client.node import NodeClient
from ecot_client.policies import find_partners
from ecot_client.transport import Request
from ecot_protocol.domains.federation.statements import DECISIONS_SUFFIX
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.wire.fork import HEADER, Fork, ForkProof, fork_id, verify_fork
from ecot_protocol.wire.note_key import NoteVerifier

_ID: Final = re.compile(r"[0-9a-f]{64}")
MAX_FETCHED: Final = 16
"""New proofs that are fetched at one time; a node has hardly ever one."""


class KeptFork(msgspec.Struct, frozen=True, array_like=True):
    """A proof that this client keeps.

    Attributes:
        id: SHA-256 of the file, hex.
        proof: the file.
        name: domain of the partner, or the origin of the node's own log.
        is_own: it is the log of this very node.
        noticed_ms: when it was fetched.
    """

    id: str
    proof: bytes
    name: str
    is_own: bool
    noticed_ms: int

    @property
    def fork(self) -> Fork:
        """What it proves, under the key that it names (which was compared with a known one before it was kept)."""
        read = ForkProof.parse(self.proof)
        return verify_fork(read, (read.log_key,))


def is_fork_proof(raw: bytes) -> bool:
    """Tell whether a file is a fork proof, by its first line."""
    return raw.startswith(HEADER.encode() + b"\n")


def kept_forks(journal: Journal) -> tuple[KeptFork, ...]:
    """Return the proofs that this client keeps, oldest first."""
    return tuple(msgspec.msgpack.decode(raw, type=KeptFork) for raw in journal.forks())


async def learn_forks(node: NodeClient) -> tuple[KeptFork, ...]:
    """Ask the node which proofs it keeps, check those that are new, and return all that are kept here."""
    info = await node.ledger()
    kept = await asyncio.to_thread(kept_forks, node.journal)
    unknown = [one for one in info.forks if one not in {fork.id for fork in kept}]
    for name in unknown[:MAX_FETCHED]:
        await learn_fork(node, name)
    return await asyncio.to_thread(kept_forks, node.journal) if unknown else kept


async def learn_fork(node: NodeClient, name: str) -> KeptFork | None:
    """Fetch one proof; None if it proves nothing about a log whose key we know.

    Args:
        node: that keeps it.
        name: its id.
    """
    if not _ID.fullmatch(name):
        return None
    try:
        raw = await node.transport.ask(Request("GET", f"/v1/forks/{name}"))
        if fork_id(raw) != name:
            return None
        found = await _known_log(node, ForkProof.parse(raw).log_key.name)
        if found is None:
            return None
        who, key, is_own = found
        verify_fork(raw, (key,))
    except (NodeProblem, RemoteProtocolError, ProofFailed):  # a node that slanders, or has lost it: it proves nothing
        return None
    kept = KeptFork(id=name, proof=raw, name=who, is_own=is_own, noticed_ms=node.clock_ms())
    await asyncio.to_thread(node.journal.keep_fork, name, msgspec.msgpack.encode(kept))
    return kept


async def _known_log(node: NodeClient, origin: str) -> tuple[str, NoteVerifier, bool] | None:
    own = await node.verifier()
    if origin.removesuffix(DECISIONS_SUFFIX) == own.name:
        return origin, NoteVerifier(origin, own.key_type, own.public_key), True
    for partner in await find_partners(node):
        if partner.side.origin == origin.removesuffix(DECISIONS_SUFFIX):
            key = partner.log_key  # the decision log has the same key, under a name of its own
            return partner.side.domain, NoteVerifier(origin, key.key_type, key.public_key), False
    return None
