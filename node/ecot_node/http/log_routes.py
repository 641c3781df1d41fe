# SPDX-License-Identifier: AGPL-3.0-or-later
"""The public logs, as C2SP tlog-tiles lays them out: the ledger's under ``/log``, which holds hashes only, and its
decision log under ``/log/decisions``, which holds ids of deals and what became of them.
"""

from typing import Annotated, Final

import msgspec

from ecot_node.http.decision_tiles import published_decisions, read_decisions_tile
from ecot_node.http.errors import Problem
from ecot_node.http.fields import Params
from ecot_node.http.routes import IMMUTABLE, AnyRoute, Content, Media, Request, Route
from ecot_node.http.tree import published, read_tile
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.wire.tile import parse_tile_path

TEXT: Final = "text/plain; charset=utf-8"
BYTES: Final = "application/octet-stream"


class TileParams(Params):
    """`tile`: ``<level>/<index>`` or ``entries/<index>``, with ``.p/<width>`` for a partial one."""

    tile: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-z./]{3,64}$", max_length=64)]


async def get_checkpoint(request: Request[None, None]) -> Content:
    """Read the newest durable checkpoint, a signed note."""
    return Content(published(request.context).note, TEXT, headers={"Cache-Control": "no-cache"})


async def get_tile(request: Request[TileParams, None]) -> Content:
    """Read a tile of hashes or an entry bundle (the 32 bytes of leaf data of each record). Neither ever changes."""
    try:
        path = parse_tile_path(f"tile/{request.params.tile}")
    except RemoteProtocolError:
        raise Problem("not_found") from None
    return Content(await read_tile(request.context, path), BYTES, headers={"Cache-Control": IMMUTABLE})


async def get_decisions_checkpoint(request: Request[None, None]) -> Content:
    """Read the newest checkpoint of the decision log that was shown to witnesses, with the cosignatures that it has."""
    head = await published_decisions(request.context)
    return Content(head.note, TEXT, headers={"Cache-Control": "no-cache"})


async def get_decisions_tile(request: Request[TileParams, None]) -> Content:
    """Read a tile of the decision log, or an entry bundle (MessagePack ``[tid, outcome]``; 0 is abort, 1 commit)."""
    try:
        path = parse_tile_path(f"tile/{request.params.tile}")
    except RemoteProtocolError:
        raise Problem("not_found") from None
    return Content(await read_decisions_tile(request.context, path), BYTES, headers={"Cache-Control": IMMUTABLE})


LOG_ROUTES: Final[tuple[AnyRoute, ...]] = (
    Route(
        method="GET",
        path="/log/checkpoint",
        summary="Read the checkpoint of the log",
        tag="log",
        access="public",
        handler=get_checkpoint,
        response=Media("text/plain", "A signed note.", is_text=True),
        errors=("not_found",),
    ),
    Route(
        method="GET",
        path="/log/tile/{tile:.+}",
        summary="Read a tile of the log",
        tag="log",
        access="public",
        handler=get_tile,
        params=TileParams,
        response=Media(BYTES, "Hashes, or an entry bundle."),
        errors=("not_found",),
    ),
    Route(
        method="GET",
        path="/log/decisions/checkpoint",
        summary="Read the checkpoint of the decision log",
        tag="log",
        access="public",
        handler=get_decisions_checkpoint,
        response=Media("text/plain", "A signed note.", is_text=True),
        errors=("not_found",),
    ),
    Route(
        method="GET",
        path="/log/decisions/tile/{tile:.+}",
        summary="Read a tile of the decision log",
        tag="log",
        access="public",
        handler=get_decisions_tile,
        params=TileParams,
        response=Media(BYTES, "Hashes, or an entry bundle."),
        errors=("not_found",),
    ),
)
