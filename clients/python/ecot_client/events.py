# SPDX-License-Identifier: AGPL-3.0-or-later
"""Live changes: the node's server-sent events, with what was missed told again after a break.

A proof that a log has two histories is fetched, checked and kept before it is told of, and not told of if it proves
nothing. Any other event says that something is there to be read, and nothing that would have to be believed.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import msgspec

from ecot_client.errors import NodeUnreachable
from ecot_client.forks import KeptFork, learn_fork
from ecot_client.node import NodeClient
from ecot_client.transport import Request

_PAUSE_S: Final = 1.0
MAX_PAUSES: Final = 20
MAX_FORKS: Final = 1_024
"""Proofs that one stream may tell of."""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something happened.

    Attributes:
        kind: ``checkpoint`` (`size` records are durable), ``recorded`` (record `index` of `type`), ``fork`` (a log has
            two histories: see `fork`), or ``reset``: too much was missed, read the lists anew.
        fork: the proof, checked and kept.
        id: what a stream that comes back goes on after.
    """

    kind: str
    id: str | None
    index: int | None
    type: str | None
    size: int | None
    fork: KeptFork | None = None
    told: str | None = None
    """Id of a proof, as the node told it."""


class _Told(msgspec.Struct):
    id: str | None = None
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
    known: dict[str, KeptFork | None] = {}
    failures = 0
    while True:
        token = (await node.sessions.open()).token if node.sessions.is_possible else None
        try:
            async for event in _read(node, token, last_id):
                failures = 0
                last_id = event.id or last_id
                checked = await _checked(node, event, known)
                if checked is not None:
                    yield checked
        except NodeUnreachable:
            failures += 1
            if failures >= MAX_PAUSES:
                raise
        await asyncio.sleep(_PAUSE_S)


async def _checked(node: NodeClient, event: Event, known: dict[str, KeptFork | None]) -> Event | None:
    """Return the event, a fork with its proof; None if that proves nothing, or was told before."""
    if event.kind != "fork":
        return event
    name = event.told or ""
    if name in known or len(known) >= MAX_FORKS:
        return None
    known[name] = await learn_fork(node, name)
    return msgspec.structs.replace(event, fork=known[name]) if known[name] is not None else None


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
    return Event(
        kind=fields["event"], id=fields.get("id"), index=told.index, type=told.type, size=told.size, told=told.id
    )
