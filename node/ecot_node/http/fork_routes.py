# SPDX-License-Identifier: AGPL-3.0-or-later
"""``/v1/forks``: proofs that a log has signed two histories. Public: whoever trusts that log is concerned.

A proof is a file that anybody checks offline; what this node says of it need not be believed.
"""

from typing import Final

from ecot_node.http.errors import Problem
from ecot_node.http.fields import Count, HashHex, JsonReply, Params
from ecot_node.http.log_routes import TEXT
from ecot_node.http.routes import IMMUTABLE, AnyRoute, Content, Media, Request, Route
from ecot_protocol.wire.checkpoint import Checkpoint
from ecot_protocol.wire.fork import ForkProof
from ecot_protocol.wire.note import SignedNote


class ForkParams(Params):
    """`fork`: id of the proof."""

    fork: HashHex


class ForkReply(JsonReply):
    """A proof that a log forked.

    Attributes:
        id: SHA-256 of the file.
        origin: of the log.
        log_vkey: the key that signed both histories; compare it with what you know of that log.
        first_size: of the checkpoint of one history.
        second_size: of the checkpoint of the other.
    """

    id: HashHex
    origin: str
    log_vkey: str
    first_size: Count
    second_size: Count


class ForksReply(JsonReply):
    """All proofs that this node keeps, oldest first; at most 8 of one log and 256 in all."""

    items: tuple[ForkReply, ...]


async def list_forks(request: Request[None, None]) -> ForksReply:
    """List the logs that were found to have two histories."""
    return ForksReply(items=tuple(_reply(name, raw) for name, raw in request.context.forks.proofs.items()))


def _reply(name: str, raw: bytes) -> ForkReply:
    proof = ForkProof.parse(raw)
    sizes = [Checkpoint.parse(SignedNote.parse(note).text).size for note in (proof.first, proof.second)]
    return ForkReply(
        id=name, origin=proof.log_key.name, log_vkey=proof.log_vkey, first_size=sizes[0], second_size=sizes[1]
    )


async def get_fork(request: Request[ForkParams, None]) -> Content:
    """Read a fork proof (`docs/specification/witness.md`): anybody can check it offline."""
    raw = request.context.forks.proofs.get(request.params.fork)
    if raw is None:
        raise Problem("not_found")
    return Content(raw, TEXT, headers={"Cache-Control": IMMUTABLE})


FORK_ROUTES: Final[tuple[AnyRoute, ...]] = (
    Route(
        method="GET",
        path="/v1/forks",
        summary="List proofs that a log forked",
        tag="witness",
        access="public",
        handler=list_forks,
        response=ForksReply,
    ),
    Route(
        method="GET",
        path="/v1/forks/{fork}",
        summary="Read a proof that a log forked",
        tag="witness",
        access="public",
        handler=get_fork,
        params=ForkParams,
        response=Media("text/plain", "A fork proof.", is_text=True),
        errors=("not_found",),
    ),
)
