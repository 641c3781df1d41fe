# SPDX-License-Identifier: AGPL-3.0-or-later
"""Live changes: what each open event stream still has to tell. `stream.py` writes them out.

The hub hears every durable group from the ledger and puts it into the queue of each stream. A queue is bounded: a
consumer that doesn't keep up is dropped, and finds what it missed by ``Last-Event-ID`` when it comes back.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Final

from ecot_node.http.errors import Problem
from ecot_node.ledger.port import RecordedEntry

QUEUE_GROUPS: Final = 256
"""Groups of records that wait for one consumer; one more and it is dropped."""


class Subscriber:
    """One open stream: groups that it has not told yet, ended by None."""

    __slots__ = ("_groups", "client", "is_dropped")

    def __init__(self, client: str | bytes) -> None:
        self.client = client
        self.is_dropped = False
        self._groups: asyncio.Queue[Sequence[RecordedEntry] | None] = asyncio.Queue(QUEUE_GROUPS + 1)

    def put(self, group: Sequence[RecordedEntry] | None) -> None:
        """Queue a group (None: the end), or drop the consumer."""
        if self.is_dropped:
            return
        if group is None or self._groups.qsize() >= QUEUE_GROUPS:
            self.is_dropped = True
            group = None
        self._groups.put_nowait(group)

    async def next_group(self, timeout_s: float) -> Sequence[RecordedEntry] | None:
        """Return the next group, an empty one if none came in time, or None at the end."""
        try:
            return await asyncio.wait_for(self._groups.get(), timeout_s)
        except TimeoutError:
            return ()


class EventHub:
    """All open streams of this process.

    Args:
        max_streams: at one time.
        max_each: of one client.
    """

    def __init__(self, *, max_streams: int, max_each: int) -> None:
        self._max_streams = max_streams
        self._max_each = max_each
        self._subscribers: set[Subscriber] = set()
        self._counts: Counter[str | bytes] = Counter()
        self._is_closing = False

    def __len__(self) -> int:
        return len(self._subscribers)

    def open(self, client: str | bytes) -> Subscriber:
        """Begin a stream; end it with `close`.

        Args:
            client: session or address that it counts for.

        Raises:
            Problem: ``rate_limited``, ``overloaded``.
        """
        if self._is_closing or len(self._subscribers) >= self._max_streams:
            raise Problem("overloaded", headers={"Retry-After": "30"})
        if self._counts[client] >= self._max_each:
            raise Problem("rate_limited", headers={"Retry-After": "30"}, retry_after_s=30)
        subscriber = Subscriber(client)
        self._subscribers.add(subscriber)
        self._counts[client] += 1
        return subscriber

    def close(self, subscriber: Subscriber) -> None:
        """End a stream."""
        if subscriber in self._subscribers:
            self._subscribers.remove(subscriber)
            self._counts[subscriber.client] -= 1
            if not self._counts[subscriber.client]:
                del self._counts[subscriber.client]

    def publish(self, group: Sequence[RecordedEntry]) -> None:
        """Tell every stream of a durable group; the ledger's listener."""
        for subscriber in self._subscribers:
            subscriber.put(group)

    def close_all(self) -> None:
        """Let every stream end: the node stops."""
        self._is_closing = True
        for subscriber in self._subscribers:
            subscriber.put(None)
