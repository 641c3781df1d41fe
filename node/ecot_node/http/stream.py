# SPDX-License-Identifier: AGPL-3.0-or-later
r"""``GET /v1/events``: server-sent events of what the caller may see.

    event: checkpoint
    data: {"size":42}

    id: 41
    event: recorded
    data: {"index":41,"type":"coop.seal"}

    event: fork
    data: {"id":"1f0c…"}

    : still here

- ``recorded`` carries the record's index as its id; a consumer that comes back with ``Last-Event-ID`` is first told
  what it missed, up to `MAX_REPLAY` records; where there are more it is told ``event: reset`` and reads lists anew.
- ``checkpoint`` tells the newest size, once for all groups that were waiting.
- ``fork`` tells of each proof that a log has two histories (`/v1/forks/{id}`): all that there are at the beginning of a
  stream, then each within a heartbeat of its finding.
- Who may see what is asked of the state again with each group and each heartbeat; a session that ended ends the stream.
- A consumer that reads too slowly is dropped; it can come back.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Final

import msgspec
from aiohttp import web

from ecot_node.http.callers import Caller, may_read
from ecot_node.http.errors import Problem
from ecot_node.http.events import Subscriber
from ecot_node.http.fields import Params
from ecot_node.http.routes import NOT_STORED, AnyRoute, Media, Request, Route
from ecot_node.ledger.port import RecordedEntry

MAX_REPLAY: Final = 10_000
REPLAY_PAGE: Final = 200
WRITE_TIMEOUT_S: Final = 20.0
EVENT_STREAM: Final = "text/event-stream"
HEARTBEAT: Final = b": still here\n\n"
RESET: Final = b"event: reset\ndata: {}\n\n"
_MAX_ID_DIGITS: Final = 16


class EventsParams(Params):
    """`last_event_id`: like the header ``Last-Event-ID``, for a first connection."""

    last_event_id: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)] | None = None


def write_recorded(index: int, tag: str) -> bytes:
    r"""Write the event of a record.

    >>> write_recorded(41, "coop.seal")
    b'id: 41\nevent: recorded\ndata: {"index":41,"type":"coop.seal"}\n\n'
    """
    text = msgspec.json.encode({"index": index, "type": tag}).decode()
    return f"id: {index}\nevent: recorded\ndata: {text}\n\n".encode()


def write_checkpoint(size: int) -> bytes:
    """Write the event of a checkpoint."""
    return f'event: checkpoint\ndata: {{"size":{size}}}\n\n'.encode()


def write_fork(name: str) -> bytes:
    r"""Write the event of a proof that a log forked.

    >>> write_fork("1f0c")
    b'event: fork\ndata: {"id":"1f0c"}\n\n'
    """
    return f'event: fork\ndata: {{"id":"{name}"}}\n\n'.encode()


class EventStream:
    """One open stream.

    Args:
        request: that asked for it.
        subscriber: its queue.
    """

    def __init__(self, request: Request[EventsParams, None], subscriber: Subscriber) -> None:
        self._request = request
        self._subscriber = subscriber
        self._caller: Caller | None = request.caller
        self._response = web.StreamResponse(headers={"Content-Type": EVENT_STREAM, "Cache-Control": NOT_STORED})
        self._told = -1
        self._told_forks: set[str] = set()

    async def run(self) -> web.StreamResponse:
        """Tell what was missed, then what comes, until the consumer or the session is gone."""
        status = self._request.context.ledger.status()
        last = _last_event_id(self._request)
        self._told = status.size - 1 if last is None else last
        await self._response.prepare(self._request.http)
        with suppress(ConnectionError, TimeoutError, Problem):
            await self._write(write_checkpoint(status.size) + self._tell_forks())
            if last is not None:
                await self._replay(status.size)
            await self._follow()
        return self._response

    async def _replay(self, size: int) -> None:
        """Tell the visible records between the last one told and `size`."""
        if size - self._told - 1 > MAX_REPLAY:
            self._told = size - 1
            await self._write(RESET)
            return
        context = self._request.context
        if self._told < size - 1:
            await context.ledger.wait_for(size - 1, self._request.context.settings.heartbeat_s)
        while self._told < size - 1:
            found = await context.records.visible(
                self._caller, after=self._told, limit=REPLAY_PAGE, tag=None, author=None
            )
            seen = [one for one in found if one.index < size]
            told = [one for one in seen if may_read(self._caller, one.visibility, one.parties)]
            await self._write(b"".join(write_recorded(one.index, one.type) for one in told))
            self._told = seen[-1].index if len(found) == REPLAY_PAGE and seen else size - 1

    async def _follow(self) -> None:
        heartbeat_s = self._request.context.settings.heartbeat_s
        while (group := await self._subscriber.next_group(heartbeat_s)) is not None:
            await self._check_session()
            await self._write(self._tell_forks() + (self._tell(group) if group else HEARTBEAT))

    def _tell(self, group: Sequence[RecordedEntry]) -> bytes:
        told = [
            write_recorded(one.index, one.tag)
            for one in group
            if one.index > self._told and may_read(self._caller, one.visibility, one.parties)
        ]
        self._told = max(self._told, group[-1].index)
        return write_checkpoint(group[-1].index + 1) + b"".join(told)

    def _tell_forks(self) -> bytes:
        untold = [one for one in self._request.context.forks.proofs if one not in self._told_forks]
        self._told_forks.update(untold)
        return b"".join(map(write_fork, untold))

    async def _check_session(self) -> None:
        if self._caller is None:
            return
        context = self._request.context
        self._caller = await self._request.services.sessions.resume(
            self._caller.session, context.ledger, context.clock_ms()
        )

    async def _write(self, text: bytes) -> None:
        if text:
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                await self._response.write(text)


def _last_event_id(request: Request[EventsParams, None]) -> int | None:
    header = request.http.headers.get("Last-Event-ID")
    if header is None:
        return request.params.last_event_id
    if not header.isascii() or not header.isdigit() or len(header) > _MAX_ID_DIGITS:
        raise Problem("request_malformed", "Last-Event-ID is not one of ours", field="Last-Event-ID")
    return int(header)


async def get_events(request: Request[EventsParams, None]) -> web.StreamResponse:
    """Follow what is recorded, as server-sent events."""
    client = request.caller.session if request.caller is not None else request.client
    subscriber = request.services.hub.open(client)
    try:
        return await EventStream(request, subscriber).run()
    finally:
        request.services.hub.close(subscriber)


STREAM_ROUTES: Final[tuple[AnyRoute, ...]] = (
    Route(
        method="GET",
        path="/v1/events",
        summary="Follow what is recorded",
        tag="records",
        access="public",
        handler=get_events,
        params=EventsParams,
        response=Media(EVENT_STREAM, "Server-sent events.", is_text=True),
        errors=("overloaded",),
        is_stream=True,
    ),
)
