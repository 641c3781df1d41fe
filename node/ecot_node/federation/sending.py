# SPDX-License-Identifier: AGPL-3.0-or-later
"""The messages that wait for one peer: bounded, in order, taken in batches.

Put on the asyncio loop, taken by whichever thread writes to the peer; a plain lock, never held while waiting, guards
the counts. A message that its caller has given up is removed at once, so that a caller who tries again and again at an
unreachable peer can't grow the queue.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from ecot_node.federation.framing import MESSAGE_BYTES_MAX
from ecot_node.federation.port import (
    MessageTooLarge,
    PeerId,
    PeerUnreachable,
    SendQueueFull,
    SendTimedOut,
    TransportLimits,
)


@dataclass(slots=True, eq=False)
class Waiting:
    """Hold one message and the future of its caller, which belongs to the asyncio loop."""

    number: int
    message: bytes
    written: asyncio.Future[None]


@dataclass(slots=True)
class SendQueue:
    """Keep the messages that wait for one peer.

    Attributes:
        peer_id: whom they are for.
        limits: of messages and bytes.
    """

    peer_id: PeerId
    limits: TransportLimits
    _waiting: dict[int, Waiting] = field(default_factory=dict)
    _size_bytes: int = 0
    _next_number: int = 0
    _is_writer_idle: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, message: bytes) -> tuple[Waiting, bool]:
        """Add a message behind the others.

        Returns:
            What waits, and whether the writer found the queue empty and must be woken.

        Raises:
            MessageTooLarge: above ``framing.MESSAGE_BYTES_MAX``.
            SendQueueFull: by count or by bytes.
        """
        if len(message) > MESSAGE_BYTES_MAX:
            raise MessageTooLarge(len(message), MESSAGE_BYTES_MAX)
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        with self._lock:
            is_full = len(self._waiting) >= self.limits.send_queue_messages_max
            if is_full or self._size_bytes + len(message) > self.limits.send_queue_bytes_max:
                raise SendQueueFull(self.peer_id, len(self._waiting))
            waiting = Waiting(self._next_number, message, written)
            self._next_number += 1
            self._waiting[waiting.number] = waiting
            self._size_bytes += len(message)
            must_wake, self._is_writer_idle = self._is_writer_idle, False
        return waiting, must_wake

    def take(self, *, message_count: int, size_bytes: int) -> list[Waiting]:
        """Take the oldest messages, in order, up to a count and a sum of bytes; none if the oldest alone is above it.

        An empty queue notes that the writer is idle: the next ``put`` asks for it to be woken.
        """
        batch: list[Waiting] = []
        with self._lock:
            for waiting in self._waiting.values():
                size_bytes -= len(waiting.message)
                if size_bytes < 0 or len(batch) >= message_count:
                    break
                batch.append(waiting)
            for waiting in batch:
                self._forget(waiting)
            self._is_writer_idle = not self._waiting and not batch
        return batch

    def discard(self, waiting: Waiting) -> None:
        """Remove a message whose caller has given up; ignored if it was taken."""
        with self._lock:
            if waiting.number in self._waiting:
                self._forget(waiting)

    def fail_all(self, code: str) -> None:
        """Fail whatever waits with ``PeerUnreachable(code)``. On the asyncio loop."""
        with self._lock:
            batch = list(self._waiting.values())
            self._waiting.clear()
            self._size_bytes = 0
        fail(batch, self.peer_id, code)

    async def wait_written(self, waiting: Waiting, timeout_s: float) -> None:
        """Wait until a message that was put has been written.

        Raises:
            SendTimedOut: it was not within the deadline.
            PeerUnreachable: the stream broke while it was written, or the peer was removed.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await waiting.written
        except TimeoutError as error:
            raise SendTimedOut(self.peer_id, timeout_s) from error
        finally:
            self.discard(waiting)

    def _forget(self, waiting: Waiting) -> None:
        del self._waiting[waiting.number]
        self._size_bytes -= len(waiting.message)


def succeed(batch: Sequence[Waiting]) -> None:
    """Tell the callers that their messages were written. On the asyncio loop."""
    for waiting in batch:
        if not waiting.written.done():
            waiting.written.set_result(None)


def fail(batch: Sequence[Waiting], peer_id: PeerId, code: str) -> None:
    """Tell the callers that their messages were perhaps not written. On the asyncio loop."""
    for waiting in batch:
        if not waiting.written.done():
            waiting.written.set_exception(PeerUnreachable(peer_id, code))
