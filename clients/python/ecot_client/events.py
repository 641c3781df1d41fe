# SPDX-License-Identifier: AGPL-3.0-or-later
"""Live changes: the node's server-sent events, with what was missed told again after a break.

An event says that something is there to be read, and nothing that would have to be believed.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import msgspec

from ecot_client.errors import NodeUnreachable
from ecot_client.node import NodeClient
from ecot_client.transport import Request

_PAUSE_S: Final = 1.0
MAX_PAUSES: Final = 20


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something happened.

    Attributes:
        kind: ``checkpoint`` (`size` records are durable), ``recorded`` (record `index` of `type`), or ``reset``: too
            much was missed, read the lists anew.
        id: what a stream that comes back goes on after.
    """

    kind: str
    id: str | None
    index: int | None
    type: str | None
    size: int | None


class _Told(msgspec.Struct):
    index: int | None = None
    type: str | None = None
    size: int | None = None


async def follow_events(node: NodeClient, *, after: int | None = None) -> AsyncIterator[Event]:
    """Yield events as they come, for as long as the caller wants; a broken connection is opened again.

    Args:
        node: whose events.
        after: index of the last record known; what came since is told first. None: only what is new.

    Raises:
        NodeUnreachable: after `MAX_PAUSES` attempts in a row without any event.
        NodeProblem: the node's error, e.g. too many streams.
    """
    last_id = None if after is None else str(after)
    failures = 0
    while True:
        token = (await node.sessions.open()).token if node.sessions.is_possible else None
        try:
            async for event in _read(node, token, last_id):
                failures = 0
                last_id = event.id or last_id
                yield event
        except NodeUnreachable:
            failures += 1
            if failures >= MAX_PAUSES:
                raise
        await asyncio.sleep(_PAUSE_S)


async def _read(node: NodeClient, token: str | None, last_id: str | None) -> AsyncIterator[Event]:
    fields: dict[str, str] = {}
    async for line in node.transport.stream_lines(Request("GET", "/v1/events"), token, last_id):
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
            continue
        if "event" in fields:
            yield _event(fields)
        fields = {}


def _event(fields: dict[str, str]) -> Event:
    try:
        told = msgspec.json.decode(fields.get("data", "{}"), type=_Told)
    except msgspec.MsgspecError:
        told = _Told()
    return Event(kind=fields["event"], id=fields.get("id"), index=told.index, type=told.type, size=told.size)
