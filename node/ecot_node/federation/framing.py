# SPDX-License-Identifier: AGPL-3.0-or-later
"""The frames on a federation stream, as bytes. Pure: no IO, clock or threads.

- A frame is an unsigned varint (the length of what follows, 1 to 4 bytes, minimal) and a canonical msgpack array.
- The first element of the array is the kind; a kind never changes its meaning.
- Whatever is not canonical, unknown, too long or too short is refused, and ends the stream.

>>> encode_frame(Ping(7)).hex()
'03920207'
>>> list(FrameDecoder().feed(bytes.fromhex("03920207")))
[Ping(nonce=7)]

Source: docs/specification/federation-transport.md; the varint is that of multiformats/unsigned-varint, cut to 4 bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from ecot_protocol.errors import LocalProtocolError, RemoteProtocolError

PROTOCOL_VERSION: Final = 1
FRAME_BYTES_MAX: Final = 1024 * 1024
"""Longest msgpack part of a frame, in bytes."""
FRAME_BYTES_MIN: Final = 320 * 1024
"""Smallest ``frame_bytes_max`` a hello may state: the longest message always fits in a batch of one."""
MESSAGE_BYTES_MAX: Final = 256 * 1024
BATCH_MESSAGES_MAX: Final = 1024
AGENT_CHARS_MAX: Final = 128
ORIGIN_CHARS_MAX: Final = 300
CODE_CHARS_MAX: Final = 64
TEXT_CHARS_MAX: Final = 256
LEDGER_ID_BYTES: Final = 32
WINDOW_MESSAGES: Final = 2048
"""Messages that a sender may have written beyond the last credit."""
WINDOW_BYTES: Final = 4 * 1024 * 1024
"""Sum of their lengths, in bytes."""
HELLO_BYTES_MAX: Final = 4096
"""Longest msgpack part accepted before a hello: an unknown peer can make us hold no more."""
VARINT_BYTES_MAX: Final = 4
_INTEGER_MAX: Final = 2**53 - 1

Uint53 = Annotated[int, Meta(ge=0, le=_INTEGER_MAX)]
Message = Annotated[bytes, Meta(max_length=MESSAGE_BYTES_MAX)]


class Hello(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """Open a stream; the first frame each way.

    Attributes:
        protocol_version: 1.
        agent: name and version of the software, for people; at most 128 characters.
        ledger_origin: origin line of the sender's log, at most 300 characters.
        ledger_id: 32 bytes.
        frame_bytes_max: the longest frame that the sender of this hello accepts, without its varint.
    """

    protocol_version: Annotated[int, Meta(ge=1, le=65535)]
    agent: Annotated[str, Meta(max_length=AGENT_CHARS_MAX)]
    ledger_origin: Annotated[str, Meta(max_length=ORIGIN_CHARS_MAX)]
    ledger_id: Annotated[bytes, Meta(min_length=LEDGER_ID_BYTES, max_length=LEDGER_ID_BYTES)]
    frame_bytes_max: Annotated[int, Meta(ge=FRAME_BYTES_MIN, le=_INTEGER_MAX)] = FRAME_BYTES_MAX


class Batch(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Carry 1 to 1,024 messages of the layer above, in order; only from the side that opened the stream."""

    messages: Annotated[tuple[Message, ...], Meta(min_length=1, max_length=BATCH_MESSAGES_MAX)]


class Ping(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Ask for a pong with the same nonce, at once; only from the side that opened the stream."""

    nonce: Uint53


class Pong(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Answer a ping; only from the side that accepted the stream."""

    nonce: Uint53


class Goodbye(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """Say why the stream ends, as its last frame.

    Attributes:
        code: stable lower-case identifier, at most 64 characters.
        text: for the operator of the peer, at most 256 characters.
    """

    code: Annotated[str, Meta(min_length=1, max_length=CODE_CHARS_MAX, pattern=r"^[a-z0-9_]+$")]
    text: Annotated[str, Meta(max_length=TEXT_CHARS_MAX)] = ""


class Credit(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """Tell how much of this stream was handed to the layer above; only from the side that accepted the stream.

    It is flow control and no acknowledgement: what was handed over may not be durable yet.

    Attributes:
        message_count: of the batches since the stream was opened.
        size_bytes: sum of these messages' lengths.
    """

    message_count: Uint53
    size_bytes: Uint53


Frame = Hello | Batch | Ping | Pong | Goodbye | Credit

_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Frame)


def encode_varint(value: int) -> bytes:
    """Encode 0 to 2^28 - 1 as an unsigned varint of 1 to 4 bytes, low groups first.

    Raises:
        LocalProtocolError: the value is out of range.
    """
    if not 0 <= value < 1 << (7 * VARINT_BYTES_MAX):
        raise LocalProtocolError(f"varint of {value}, expected 0 to {(1 << 28) - 1}")
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def decode_varint(encoded: bytes | bytearray) -> tuple[int, int] | None:
    """Decode the varint at the start of some bytes.

    Returns:
        (value, count of bytes that it takes), or None if more bytes are needed.

    Raises:
        RemoteProtocolError: ``varint_too_long`` (more than 4 bytes), ``varint_not_minimal``.
    """
    value = 0
    for position, byte in enumerate(encoded[:VARINT_BYTES_MAX]):
        value |= (byte & 0x7F) << (7 * position)
        if byte < 0x80:
            if byte == 0 and position > 0:
                raise RemoteProtocolError("varint_not_minimal", "last group of the length is zero")
            return value, position + 1
    if len(encoded) >= VARINT_BYTES_MAX:
        raise RemoteProtocolError("varint_too_long", f"length of more than {VARINT_BYTES_MAX} bytes")
    return None


def encode_frame(frame: Frame) -> bytes:
    """Encode a frame with its length; never more than ``FRAME_BYTES_MAX`` after the varint.

    Raises:
        LocalProtocolError: the frame breaks a limit of its kind, or is too long.
    """
    payload = _encoder.encode(frame)
    if len(payload) > FRAME_BYTES_MAX:
        raise LocalProtocolError(f"frame of {len(payload)} bytes, expected at most {FRAME_BYTES_MAX}")
    try:
        decode_payload(payload)
    except RemoteProtocolError as error:
        raise LocalProtocolError(f"frame which no peer would accept: {error}") from error
    return encode_varint(len(payload)) + payload


def encode_batch(messages: tuple[bytes, ...]) -> bytes:
    """Encode a batch whose limits the caller has kept; unlike ``encode_frame`` it doesn't read its work again."""
    payload = _encoder.encode(Batch(messages))
    assert len(payload) <= FRAME_BYTES_MAX
    assert 0 < len(messages) <= BATCH_MESSAGES_MAX
    return encode_varint(len(payload)) + payload


def decode_payload(payload: bytes) -> Frame:
    """Decode the msgpack part of one frame.

    Raises:
        RemoteProtocolError: ``frame_malformed`` (not msgpack, unknown kind, wrong type, limit broken),
            ``frame_not_canonical`` (other bytes than ours for the same frame).
    """
    try:
        frame: Frame = _decoder.decode(payload)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise RemoteProtocolError("frame_malformed", str(error)) from error
    # msgspec alone lets long forms and surplus fields pass.
    if _encoder.encode(frame) != payload:
        raise RemoteProtocolError("frame_not_canonical", "msgpack is not in its shortest form")
    return frame


def decode_hello(encoded: bytes) -> Hello:
    """Decode bytes that are exactly one hello frame.

    Raises:
        RemoteProtocolError: ``hello_expected``, or what ``FrameDecoder`` raises.
    """
    decoder = FrameDecoder(frame_bytes_max=HELLO_BYTES_MAX)
    frames = list(decoder.feed(encoded))
    if len(frames) != 1 or not isinstance(frames[0], Hello) or decoder.pending_bytes:
        raise RemoteProtocolError("hello_expected", "expected one hello frame and nothing else")
    return frames[0]


class FrameDecoder:
    """Cut a stream of bytes into frames, however the bytes are chunked.

    Once it has raised, it raises the same error at each further use: a stream that broke the framing can't be trusted
    to find its next frame.
    """

    def __init__(self, *, frame_bytes_max: int = FRAME_BYTES_MAX) -> None:
        self.frame_bytes_max = frame_bytes_max
        self._buffer = bytearray()
        self._error: RemoteProtocolError | None = None

    @property
    def pending_bytes(self) -> int:
        """Count of bytes held of a frame that is not complete, in bytes."""
        return len(self._buffer)

    def feed(self, received: bytes) -> Iterator[Frame]:
        """Take bytes and iterate over the frames that they complete.

        The bytes are taken at once, the frames are decoded while iterating, so that a change of ``frame_bytes_max``
        after a hello holds for the frame behind it.

        Raises:
            RemoteProtocolError: while iterating, after the frames before the fault: ``frame_too_long``, and what
                ``decode_varint`` and ``decode_payload`` raise.
        """
        self._buffer += received
        return self._frames()

    def _frames(self) -> Iterator[Frame]:
        while True:
            if self._error is not None:
                raise self._error
            try:
                frame = self._next_frame()
            except RemoteProtocolError as error:
                self._error = error
                self._buffer.clear()
                raise
            if frame is None:
                return
            yield frame

    def _next_frame(self) -> Frame | None:
        header = decode_varint(self._buffer)
        if header is None:
            return None
        length, start = header
        if length > self.frame_bytes_max:
            # Refused on sight of the length: the peer can't make us hold the frame.
            raise RemoteProtocolError("frame_too_long", f"{length} bytes, expected at most {self.frame_bytes_max}")
        if len(self._buffer) < start + length:
            return None
        payload = bytes(memoryview(self._buffer)[start : start + length])
        del self._buffer[: start + length]
        return decode_payload(payload)
