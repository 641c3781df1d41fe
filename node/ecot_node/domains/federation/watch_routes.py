# SPDX-License-Identifier: AGPL-3.0-or-later
"""``GET /v1/watched``: the logs that this node compares with its partners, and what it knows of their honesty."""

from collections.abc import Callable
from typing import Literal

from ecot_node.http.fields import Count, HashHex, JsonReply, TimeMs
from ecot_node.http.routes import AnyRoute, Request, Route
from ecot_protocol.domains.federation.sightings import OpenQuestion, WatchedLog
from ecot_protocol.wire.checkpoint import Checkpoint
from ecot_protocol.wire.note import SignedNote


class OpenSightingReply(JsonReply):
    """Two checkpoints that the log has signed, the second of which nobody has shown yet to extend the first.

    That proves nothing by itself: the log's node may be out of reach.

    Attributes:
        source: the partner that told of one of them.
        since_ms: when the log's node was asked first.
        is_refused: it has answered, and its answer shows no growth.
        first_size: of the smaller one.
        second_size: of the larger one.
        first: the smaller one, a signed note.
        second: the larger one.
    """

    source: HashHex
    since_ms: TimeMs
    is_refused: bool
    first_size: Count
    second_size: Count
    first: str
    second: str


class WatchedReply(JsonReply):
    """A log that this node knows.

    Attributes:
        origin: of the log.
        ledger: of the partner whose log it is; None: a decider that is no partner.
        domain: of the partner.
        status: ``agrees``: nothing speaks against it; ``unproven``: see `open`; ``forked``: see `forks`.
        size: of its newest checkpoint that we know of; 0: none yet.
        sources: partners that told what they see of it.
        forks: ids of the proofs, at ``/v1/forks/{id}``.
        open: questions without an answer.
    """

    origin: str
    ledger: HashHex | None
    domain: str | None
    status: Literal["agrees", "forked", "unproven"]
    size: Count
    sources: tuple[HashHex, ...]
    forks: tuple[HashHex, ...]
    open: tuple[OpenSightingReply, ...]


class WatchedLogsReply(JsonReply):
    """Every log that this node knows, by origin."""

    items: tuple[WatchedReply, ...]


def _size(note: bytes) -> int:
    return Checkpoint.parse(SignedNote.parse(note).text).size


def _open(one: OpenQuestion) -> OpenSightingReply:
    return OpenSightingReply(
        source=one.source.hex(),
        since_ms=one.since_ms,
        is_refused=one.is_refused,
        first_size=_size(one.first),
        second_size=_size(one.second),
        first=one.first.decode(),
        second=one.second.decode(),
    )


def _watched(one: WatchedLog, domains: dict[bytes, str]) -> WatchedReply:
    ledger = one.log.ledger
    return WatchedReply(
        origin=one.log.origin,
        ledger=None if ledger is None else ledger.hex(),
        domain=None if ledger is None else domains.get(ledger),
        status=one.status,
        size=one.size,
        sources=tuple(source.hex() for source in one.sources),
        forks=one.forks,
        open=tuple(map(_open, one.open)),
    )


def watch_routes(watched: Callable[[], tuple[WatchedLog, ...]]) -> tuple[AnyRoute, ...]:
    """Return the routes of the watch.

    Args:
        watched: what is known of each log now.
    """

    async def list_watched(request: Request[None, None]) -> WatchedLogsReply:
        domains = await request.context.ledger.read(
            lambda state: {one: peer.peering.side_of(one).domain for one, peer in state.federation.peers.items()}
        )
        return WatchedLogsReply(items=tuple(_watched(one, domains) for one in watched()))

    return (
        Route(
            method="GET",
            path="/v1/watched",
            summary="List the logs that are compared with partners",
            tag="federation",
            access="members",
            handler=list_watched,
            response=WatchedLogsReply,
        ),
    )
