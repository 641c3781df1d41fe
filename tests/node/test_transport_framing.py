# SPDX-License-Identifier: AGPL-3.0-or-later
"""The frames of the federation as bytes: what is written, what is refused, however it is cut."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecot_node.federation import framing
from ecot_node.federation.framing import (
    Batch,
    Credit,
    Frame,
    FrameDecoder,
    Goodbye,
    Hello,
    Ping,
    Pong,
    decode_hello,
    decode_payload,
    decode_varint,
    encode_batch,
    encode_frame,
    encode_varint,
)
from ecot_protocol.errors import LocalProtocolError, RemoteProtocolError

SPECIFICATION = Path(__file__).parents[2] / "docs/specification/federation-transport.md"

uint53 = st.integers(0, 2**53 - 1)
hellos = st.builds(
    Hello,
    protocol_version=st.integers(1, 65535),
    agent=st.text(max_size=framing.AGENT_CHARS_MAX),
    ledger_origin=st.text(max_size=framing.ORIGIN_CHARS_MAX),
    ledger_id=st.binary(min_size=32, max_size=32),
    frame_bytes_max=st.integers(framing.FRAME_BYTES_MIN, 2**53 - 1),
)
batches = st.lists(st.binary(max_size=300), min_size=1, max_size=40).map(lambda messages: Batch(tuple(messages)))
goodbyes = st.builds(
    Goodbye, code=st.from_regex(r"[a-z0-9_]{1,64}", fullmatch=True), text=st.text(max_size=framing.TEXT_CHARS_MAX)
)
credits_given = st.builds(Credit, message_count=uint53, size_bytes=uint53)
frames = st.one_of(hellos, batches, st.builds(Ping, uint53), st.builds(Pong, uint53), goodbyes, credits_given)


@st.composite
def chunked(draw: st.DrawFn, encoded: bytes) -> list[bytes]:
    cuts = sorted(draw(st.lists(st.integers(0, len(encoded)), max_size=12)))
    return [encoded[start:end] for start, end in zip([0, *cuts], [*cuts, len(encoded)], strict=True)]


def decode_all(decoder: FrameDecoder, chunks: list[bytes]) -> tuple[list[Frame], str | None]:
    """Decode chunks; answer the frames and the code of the fault that ended them."""
    decoded: list[Frame] = []
    for chunk in chunks:
        try:
            for frame in decoder.feed(chunk):
                decoded.append(frame)
        except RemoteProtocolError as error:
            return decoded, error.code
    return decoded, None


@given(st.integers(0, 2**28 - 1))
def test_varint_round_trips(value: int) -> None:
    encoded = encode_varint(value)
    assert decode_varint(encoded + b"\xff") == (value, len(encoded))


@pytest.mark.parametrize(
    ("encoded", "code"),
    [("8000", "varint_not_minimal"), ("ff8000", "varint_not_minimal"), ("ffffffff01", "varint_too_long")],
)
def test_varint_that_is_not_minimal_or_too_long_is_refused(encoded: str, code: str) -> None:
    with pytest.raises(RemoteProtocolError) as refused:
        decode_varint(bytes.fromhex(encoded))
    assert refused.value.code == code


@pytest.mark.parametrize("value", [-1, 2**28])
def test_varint_out_of_range_is_our_own_mistake(value: int) -> None:
    with pytest.raises(LocalProtocolError):
        encode_varint(value)


@given(st.lists(frames, max_size=6), st.data())
def test_frames_round_trip_however_they_are_chunked(sent: list[Frame], data: st.DataObject) -> None:
    encoded = b"".join(map(encode_frame, sent))
    decoder = FrameDecoder()
    assert decode_all(decoder, data.draw(chunked(encoded))) == (sent, None)
    assert decoder.pending_bytes == 0


@given(st.binary(max_size=200), st.data())
def test_arbitrary_bytes_give_the_same_answer_however_they_are_chunked(received: bytes, data: st.DataObject) -> None:
    whole = decode_all(FrameDecoder(), [received])
    assert decode_all(FrameDecoder(), data.draw(chunked(received))) == whole


@given(frames, st.data())
def test_a_damaged_frame_is_refused_or_is_another_canonical_frame(frame: Frame, data: st.DataObject) -> None:
    payload = bytearray(encode_frame(frame))
    position = data.draw(st.integers(0, len(payload) - 1))
    payload[position] ^= data.draw(st.integers(1, 255))
    decoded, _ = decode_all(FrameDecoder(), [bytes(payload)])
    assert b"".join(map(encode_frame, decoded)) == bytes(payload[: len(b"".join(map(encode_frame, decoded)))])


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        ("", "frame_malformed"),
        ("c0", "frame_malformed"),
        ("80", "frame_malformed"),
        ("90", "frame_malformed"),
        ("920600", "frame_malformed"),  # unknown kind
        ("9102", "frame_malformed"),  # ping without its nonce
        ("920290", "frame_malformed"),  # wrong type
        ("9202ff", "frame_malformed"),  # negative
        ("9202cf0020000000000000", "frame_malformed"),  # 2^53
        ("92020700", "frame_malformed"),  # trailing byte
        ("93020700", "frame_not_canonical"),  # surplus element
        ("9202cc07", "frame_not_canonical"),  # long form of 7
        ("dc00020207", "frame_not_canonical"),  # long form of the array
        ("920190", "frame_malformed"),  # batch without messages
        ("9201dd7fffffff", "frame_malformed"),  # array that claims 2^31 elements
        ("9201c67fffffff", "frame_malformed"),
        ("9304a0a0", "frame_malformed"),  # goodbye without a code
        ("9304a14ea0", "frame_malformed"),  # upper-case code
        ("920491" + "91" * 3000, "frame_malformed"),  # deep nesting
    ],
)
def test_payload_that_is_not_canonical_is_refused(payload: str, code: str) -> None:
    with pytest.raises(RemoteProtocolError) as refused:
        decode_payload(bytes.fromhex(payload))
    assert refused.value.code == code


def test_message_of_the_longest_size_passes_and_one_byte_more_does_not() -> None:
    longest = Batch((bytes(framing.MESSAGE_BYTES_MAX),))
    assert list(FrameDecoder().feed(encode_frame(longest))) == [longest]
    with pytest.raises(LocalProtocolError):
        encode_frame(Batch((bytes(framing.MESSAGE_BYTES_MAX + 1),)))


def test_batch_of_too_many_messages_is_refused() -> None:
    assert encode_frame(Batch((b"",) * framing.BATCH_MESSAGES_MAX))
    with pytest.raises(LocalProtocolError):
        encode_frame(Batch((b"",) * (framing.BATCH_MESSAGES_MAX + 1)))


def test_batch_encoders_agree() -> None:
    assert encode_batch((b"a", b"")) == encode_frame(Batch((b"a", b"")))


def test_too_long_frame_is_refused_before_its_bytes_arrive() -> None:
    header = encode_varint(framing.FRAME_BYTES_MAX + 1)
    assert decode_all(FrameDecoder(), [header]) == ([], "frame_too_long")


def test_decoder_that_has_raised_raises_for_ever() -> None:
    decoder = FrameDecoder()
    assert decode_all(decoder, [b"\x80\x00"]) == ([], "varint_not_minimal")
    assert decode_all(decoder, [encode_frame(Ping(1))]) == ([], "varint_not_minimal")


@pytest.mark.parametrize(
    "encoded",
    [
        b"",
        encode_frame(Ping(1)),
        encode_frame(Hello(1, "a", "o", bytes(32))) + b"\x00",
        encode_frame(Hello(1, "a", "o", bytes(32))) * 2,
        encode_frame(Hello(1, "a", "o", bytes(32)))[:-1],
    ],
)
def test_what_is_not_exactly_one_hello_is_refused(encoded: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_hello(encoded)


# --------------------------------------------------------------------------------------------- the specification's page


def _examples() -> list[tuple[str, str]]:
    """Return the (frame as Python, hex) rows of the page's table of examples."""
    return re.findall(
        r"^\| `([A-Z][a-z]+\(.*\))` \| `([0-9a-f ]+)` \|$", SPECIFICATION.read_text("utf-8"), re.MULTILINE
    )


def test_specification_shows_every_kind_of_frame() -> None:
    kinds = {shown.partition("(")[0] for shown, _ in _examples()}
    assert kinds == {"Hello", "Batch", "Ping", "Pong", "Goodbye", "Credit"}


@pytest.mark.parametrize(("shown", "encoded"), _examples())
def test_specification_examples_are_what_the_code_writes(shown: str, encoded: str) -> None:
    # The page's own text, from this repository: safe to evaluate.
    frame = eval(shown, {"__builtins__": {}, "bytes": bytes, "range": range, **vars(framing)})
    assert encode_frame(frame).hex() == encoded.replace(" ", "")
    assert list(FrameDecoder().feed(encode_frame(frame))) == [frame]


def _refused() -> list[tuple[str, str]]:
    """Return the (hex, code) rows of the page's table of what is refused."""
    return re.findall(r"^\| `([0-9a-f ]+)`[^|]*\| `([a-z_]+)` \|$", SPECIFICATION.read_text("utf-8"), re.MULTILINE)


@pytest.mark.parametrize(("encoded", "code"), _refused())
def test_specification_says_what_is_refused(encoded: str, code: str) -> None:
    with pytest.raises(RemoteProtocolError) as refused:
        list(FrameDecoder().feed(bytes.fromhex(encoded)))
    assert refused.value.code == code


@pytest.mark.parametrize(
    "name",
    [
        "FRAME_BYTES_MAX",
        "FRAME_BYTES_MIN",
        "MESSAGE_BYTES_MAX",
        "BATCH_MESSAGES_MAX",
        "WINDOW_MESSAGES",
        "WINDOW_BYTES",
        "HELLO_BYTES_MAX",
        "AGENT_CHARS_MAX",
        "ORIGIN_CHARS_MAX",
        "CODE_CHARS_MAX",
        "TEXT_CHARS_MAX",
    ],
)
def test_specification_states_each_limit(name: str) -> None:
    row = re.search(rf"^\| `{name}` \| ([0-9,]+) \|", SPECIFICATION.read_text("utf-8"), re.MULTILINE)
    assert row is not None
    assert int(row.group(1).replace(",", "")) == getattr(framing, name)
