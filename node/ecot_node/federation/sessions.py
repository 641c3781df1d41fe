# SPDX-License-Identifier: AGPL-3.0-or-later
"""What happens on a federation stream, from its hello to its end; under trio, in the thread of libp2p.

- ``FrameStream`` puts frames on a stream and takes them off, with deadlines.
- ``OutgoingSession`` is our side of a stream that we opened: hello, batches within the peer's credit, heartbeat.
- ``IncomingSession`` is our side of a stream that a peer opened: hello, messages to ``deliver``, credit, pongs.

Every end of a session is a ``SessionEnded`` with a stable code. Nothing here knows libp2p: a stream is anything with
``read``, ``write`` and ``reset``.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, Protocol

import trio

from ecot_node.federation import framing
from ecot_node.federation.framing import Batch, Credit, Frame, FrameDecoder, Goodbye, Hello, Ping, Pong
from ecot_node.federation.port import TransportLimits
from ecot_node.federation.sending import SendQueue, Waiting
from ecot_protocol.errors import RemoteProtocolError

READ_BYTES: Final = 64 * 1024
RESET_TIMEOUT_S: Final = 1.0
GOODBYE_WAIT_S: Final = 0.5


class SessionEnded(Exception):
    """End a session.

    Attributes:
        code: stable lower-case code.
        is_connection_spoilt: bytes of a frame may be half written, or the peer is silent: the connection must go too.
    """

    def __init__(self, code: str, *, is_connection_spoilt: bool = False) -> None:
        super().__init__(code)
        self.code = code
        self.is_connection_spoilt = is_connection_spoilt


async def run_until_end(*tasks: Callable[[], Awaitable[None]]) -> None:
    """Run endless tasks until one ends the session, and raise its end alone, out of any exception group.

    Raises:
        SessionEnded, RemoteProtocolError: of the first task that raised one.
    """
    ends: list[SessionEnded | RemoteProtocolError] = []

    async def guard(task: Callable[[], Awaitable[None]]) -> None:
        try:
            await task()
        except (SessionEnded, RemoteProtocolError) as end:
            ends.append(end)
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for task in tasks:
            nursery.start_soon(guard, task)
    raise ends[0]


class ByteStream(Protocol):
    """Say what a session needs of a libp2p stream."""

    async def read(self, n: int | None = None) -> bytes: ...

    async def write(self, data: bytes) -> None: ...

    async def reset(self) -> None: ...


class FrameStream:
    """Read and write frames on a stream.

    Args:
        stream: the bytes.
        limits: its ``write_timeout_s``.
        on_contact: called at each frame received.
    """

    def __init__(self, stream: ByteStream, limits: TransportLimits, on_contact: Callable[[], None]) -> None:
        self._stream = stream
        self._limits = limits
        self._on_contact = on_contact
        # Before its hello a peer can make us hold little.
        self._decoder = FrameDecoder(frame_bytes_max=framing.HELLO_BYTES_MAX)
        self._frames: Iterator[Frame] = iter(())
        self._lock = trio.Lock()
        self.is_write_broken = False
        self.last_contact_s = trio.current_time()

    async def write(self, encoded: bytes) -> None:
        """Write one encoded frame, whole and not interleaved with others.

        Raises:
            SessionEnded: ``stream_broken``, ``write_timeout``.
        """
        async with self._lock:
            # A write that is cancelled half-way leaves half a Noise message on the connection, which nothing mends.
            self.is_write_broken = True
            try:
                with trio.fail_after(self._limits.write_timeout_s):
                    await self._stream.write(encoded)
            except trio.TooSlowError as error:
                raise SessionEnded("write_timeout", is_connection_spoilt=True) from error
            except Exception as error:
                # libp2p raises a dozen unrelated types here; which one says nothing that we need.
                self.is_write_broken = False
                raise SessionEnded("stream_broken") from error
            self.is_write_broken = False

    async def receive(self) -> Frame:
        """Wait for the next frame.

        Raises:
            SessionEnded: ``stream_broken``, ``stream_closed``, or the code of the peer's goodbye.
            RemoteProtocolError: the framing is broken.
        """
        while True:
            frame = next(self._frames, None)
            if frame is not None:
                break
            try:
                received = await self._stream.read(READ_BYTES)
            except Exception as error:
                raise SessionEnded("stream_broken") from error
            if not received:
                raise SessionEnded("stream_closed")
            self._frames = self._decoder.feed(received)
        self.last_contact_s = trio.current_time()
        self._on_contact()
        if isinstance(frame, Goodbye):
            raise SessionEnded(frame.code)
        return frame

    async def receive_hello(self) -> Hello:
        """Wait for the first frame, which must be a hello; from then on, longer frames are accepted.

        Raises:
            SessionEnded: ``hello_timeout``, and what ``receive`` raises.
            RemoteProtocolError: ``hello_expected``, ``version_unknown``, or the framing is broken.
        """
        try:
            with trio.fail_after(self._limits.hello_timeout_s):
                frame = await self.receive()
        except trio.TooSlowError as error:
            raise SessionEnded("hello_timeout") from error
        if not isinstance(frame, Hello):
            raise RemoteProtocolError("hello_expected", f"got {type(frame).__name__}")
        if frame.protocol_version != framing.PROTOCOL_VERSION:
            raise RemoteProtocolError("version_unknown", f"{frame.protocol_version}, expected 1")
        self._decoder.frame_bytes_max = framing.FRAME_BYTES_MAX
        return frame

    async def watch_contact(self) -> None:
        """End the session when the peer has sent no frame for ``heartbeat_timeout_s``.

        A stopped process keeps its connections open: only a frame shows that it lives.

        Raises:
            SessionEnded: ``heartbeat_timeout``.
        """
        while True:
            deadline_s = self.last_contact_s + self._limits.heartbeat_timeout_s
            if deadline_s <= trio.current_time():
                raise SessionEnded("heartbeat_timeout", is_connection_spoilt=True)
            await trio.sleep_until(deadline_s)

    async def end(self, code: str | None) -> None:
        """Say goodbye if a code is given and the stream can still write, then reset it; even cancelled, in a second.

        ``reset`` and never ``close``: the latter leaves the stream half open on both sides.
        """
        with trio.CancelScope(shield=True, deadline=trio.current_time() + RESET_TIMEOUT_S):
            if code is not None and not self.is_write_broken:
                with contextlib.suppress(SessionEnded):
                    await self.write(framing.encode_frame(Goodbye(code)))
                    await self._wait_for_end()
            with contextlib.suppress(Exception):  # a stream that can't be reset is gone already
                await self._stream.reset()

    async def _wait_for_end(self) -> None:
        """Wait a little for the peer to end the stream: a reset may overtake the goodbye and make it unread."""
        with trio.move_on_after(GOODBYE_WAIT_S), contextlib.suppress(Exception):
            while await self._stream.read(READ_BYTES):
                pass


class OutgoingSession:
    """Run our side of a stream that we opened.

    Args:
        stream: the frames.
        queue: messages for the peer.
        limits: of batches and heartbeat.
        on_written: takes each batch that was written.
        on_failed: takes a batch whose outcome is unknown.
        on_rtt: takes the round trip of each heartbeat, in seconds.
    """

    def __init__(
        self,
        stream: FrameStream,
        queue: SendQueue,
        limits: TransportLimits,
        *,
        on_written: Callable[[list[Waiting]], None],
        on_failed: Callable[[list[Waiting]], None],
        on_rtt: Callable[[float], None],
    ) -> None:
        self._stream = stream
        self._queue = queue
        self._limits = limits
        self._on_written = on_written
        self._on_failed = on_failed
        self._on_rtt = on_rtt
        self._frame_bytes_max = framing.FRAME_BYTES_MAX
        self._sent = Credit(0, 0)
        self._credit = Credit(0, 0)
        self._ping: tuple[int, float] | None = None
        self._wake = trio.Event()

    def wake(self) -> None:
        """Make the writer look again at the queue and the credit."""
        self._wake.set()

    async def greet(self, hello: bytes) -> Hello:
        """Exchange hellos, ours first.

        Raises:
            SessionEnded: what ``FrameStream`` raises; the code of the peer's goodbye if it refuses us.
            RemoteProtocolError: the peer's first frame is no good.
        """
        await self._stream.write(hello)
        answer = await self._stream.receive_hello()
        self._frame_bytes_max = min(framing.FRAME_BYTES_MAX, answer.frame_bytes_max)
        return answer

    async def run(self) -> None:
        """Write what the queue holds until the session ends.

        Raises:
            SessionEnded, RemoteProtocolError: the first of its tasks to end.
        """
        await run_until_end(self._read, self._write, self._heartbeat, self._stream.watch_contact)

    async def _read(self) -> None:
        while True:
            match await self._stream.receive():
                case Pong(nonce):
                    self._take_pong(nonce)
                case Credit() as credit:
                    self._take_credit(credit)
                case frame:
                    raise RemoteProtocolError("frame_unexpected", type(frame).__name__)

    def _take_pong(self, nonce: int) -> None:
        if self._ping is None or nonce != self._ping[0]:
            raise RemoteProtocolError("pong_unexpected", f"nonce {nonce}")
        self._on_rtt(trio.current_time() - self._ping[1])
        self._ping = None

    def _take_credit(self, credit: Credit) -> None:
        count_is_sound = self._credit.message_count <= credit.message_count <= self._sent.message_count
        size_is_sound = self._credit.size_bytes <= credit.size_bytes <= self._sent.size_bytes
        if not (count_is_sound and size_is_sound):
            raise RemoteProtocolError("credit_impossible", f"{credit}, sent {self._sent}")
        self._credit = credit
        self.wake()

    async def _write(self) -> None:
        while True:
            self._wake = wake = trio.Event()
            batch = self._take_batch()
            if batch:
                await self._write_batch(batch)
            else:
                await wake.wait()

    def _take_batch(self) -> list[Waiting]:
        window_count = framing.WINDOW_MESSAGES - (self._sent.message_count - self._credit.message_count)
        window_bytes = framing.WINDOW_BYTES - (self._sent.size_bytes - self._credit.size_bytes)
        count = min(self._limits.batch_messages_max, window_count, framing.BATCH_MESSAGES_MAX)
        # Five bytes of msgpack header for each message, and eight for the frame.
        frame_bytes = self._frame_bytes_max - 5 * count - 8
        size_bytes = min(max(self._limits.batch_bytes_max, framing.MESSAGE_BYTES_MAX), frame_bytes, window_bytes)
        return self._queue.take(message_count=count, size_bytes=size_bytes)

    async def _write_batch(self, batch: list[Waiting]) -> None:
        messages = tuple(waiting.message for waiting in batch)
        size_bytes = sum(map(len, messages))
        # Counted before it is written: the credit for it may arrive before the write returns.
        self._sent = Credit(self._sent.message_count + len(messages), self._sent.size_bytes + size_bytes)
        try:
            await self._stream.write(framing.encode_batch(messages))
        except BaseException:
            self._on_failed(batch)
            raise
        self._on_written(batch)

    async def _heartbeat(self) -> None:
        nonce = 0
        while True:
            if self._ping is None:
                nonce += 1
                self._ping = (nonce, trio.current_time())
                await self._stream.write(framing.encode_frame(Ping(nonce)))
            await trio.sleep(self._limits.heartbeat_interval_s)


class IncomingSession:
    """Run our side of a stream that a known peer opened, after its hello was read.

    Args:
        stream: the frames.
        deliver: takes messages, one call after the other; ends the session by raising ``SessionEnded``.
    """

    def __init__(self, stream: FrameStream, deliver: Callable[[tuple[bytes, ...]], Awaitable[None]]) -> None:
        self._stream = stream
        self._deliver = deliver
        self._inbox: deque[bytes] = deque()
        self._read_so_far = Credit(0, 0)
        self._delivered = Credit(0, 0)
        self._wake = trio.Event()
        self._is_delivery_broken = False

    async def run(self) -> None:
        """Read, deliver, give credit, answer pings, until the session ends.

        What was read is delivered even if the stream has ended meanwhile, since its sender was told that it was
        written; and a delivery that has begun is waited for, so that the peer's next stream can't overtake it.

        Raises:
            SessionEnded, RemoteProtocolError: the first of its tasks to end.
        """
        try:
            await run_until_end(self._read, self._deliver_and_credit, self._stream.watch_contact)
        finally:
            with trio.CancelScope(shield=True):
                while self._inbox and not self._is_delivery_broken:
                    await self._deliver_some()

    async def _read(self) -> None:
        while True:
            match await self._stream.receive():
                case Batch(messages):
                    self._take_messages(messages)
                case Ping(nonce):
                    # Answered here, whatever the backlog: a slow node is not a dead one.
                    await self._stream.write(framing.encode_frame(Pong(nonce)))
                case frame:
                    raise RemoteProtocolError("frame_unexpected", type(frame).__name__)

    def _take_messages(self, messages: tuple[bytes, ...]) -> None:
        count = self._read_so_far.message_count + len(messages)
        size_bytes = self._read_so_far.size_bytes + sum(map(len, messages))
        count_is_sound = count - self._delivered.message_count <= framing.WINDOW_MESSAGES
        if not (count_is_sound and size_bytes - self._delivered.size_bytes <= framing.WINDOW_BYTES):
            raise RemoteProtocolError(
                "window_exceeded", f"{count} messages, {size_bytes} bytes since {self._delivered}"
            )
        self._read_so_far = Credit(count, size_bytes)
        self._inbox.extend(messages)
        self._wake.set()

    async def _deliver_and_credit(self) -> None:
        while True:
            if self._inbox:
                with trio.CancelScope(shield=True):
                    await self._deliver_some()
                await self._stream.write(framing.encode_frame(self._delivered))
            else:
                self._wake = trio.Event()
                await self._wake.wait()

    async def _deliver_some(self) -> None:
        messages = tuple(self._inbox.popleft() for _ in range(min(len(self._inbox), framing.BATCH_MESSAGES_MAX)))
        self._is_delivery_broken = True
        await self._deliver(messages)
        self._is_delivery_broken = False
        size_bytes = self._delivered.size_bytes + sum(map(len, messages))
        self._delivered = Credit(self._delivered.message_count + len(messages), size_bytes)
