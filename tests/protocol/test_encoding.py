# SPDX-License-Identifier: AGPL-3.0-or-later
"""Canonical MessagePack: one form for every value, and no byte string that could crash a decoder."""

from typing import Annotated, Any

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecot_protocol.errors import LocalProtocolError, RemoteProtocolError
from ecot_protocol.wire.encoding import (
    MAX_INTEGER,
    Codec,
    Count,
    Handle,
    Hash,
    Id,
    Integer,
    Pair,
    Positive,
    UnitCode,
    Wire,
    WireArray,
    Word,
    assert_wire_type,
    encode,
)


class Everything(Wire):
    """A record with every kind of value."""

    array: tuple[Integer, ...]
    boolean: bool
    maybe: bytes | None
    number: Integer
    pair: Pair
    text: str


class Row(WireArray):
    """A record that travels as an array."""

    number: Count
    text: str


EVERYTHING = Codec(Everything)
ROW = Codec(Row)
EXAMPLE = Everything(array=(1, -2), boolean=True, maybe=None, number=300, pair=Pair(left=1, right="é"), text="")

integers = st.integers(-MAX_INTEGER, MAX_INTEGER)
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
everything = st.builds(
    Everything,
    array=st.lists(integers, max_size=20).map(tuple),
    boolean=st.booleans(),
    maybe=st.none() | st.binary(max_size=300),
    number=integers,
    pair=st.builds(Pair, left=integers, right=texts),
    text=texts,
)


def decoded(codec: Codec[Any], raw: bytes) -> Any:
    """Return the value, or None if it is refused for its form; any other error fails the test."""
    try:
        return codec.decode(raw)
    except RemoteProtocolError as error:
        if error.code not in {"malformed", "not_canonical"}:
            raise
        return None


@given(everything)
def test_decode_is_the_inverse_of_encode(value: Everything) -> None:
    assert EVERYTHING.decode(EVERYTHING.encode(value)) == value


@given(everything)
def test_another_library_reads_and_writes_the_same_bytes(value: Everything) -> None:
    raw = EVERYTHING.encode(value)
    plain = msgpack.unpackb(raw, strict_map_key=False)
    assert list(plain) == sorted(plain)
    assert msgpack.packb(plain, use_bin_type=True) == raw


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_refused_or_canonical(raw: bytes) -> None:
    for codec in (EVERYTHING, ROW):
        value = decoded(codec, raw)
        assert value is None or codec.encode(value) == raw


@given(everything, st.data())
def test_mutated_encodings_are_refused_or_canonical(value: Everything, data: st.DataObject) -> None:
    raw = bytearray(EVERYTHING.encode(value))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(raw) - 1))
        match data.draw(st.sampled_from(("flip", "drop", "insert", "repeat"))):
            case "flip":
                raw[place] = data.draw(st.integers(0, 255))
            case "drop" if len(raw) > 1:
                del raw[place]
            case "insert":
                raw.insert(place, data.draw(st.integers(0, 255)))
            case _:
                raw[place:place] = raw[place : place + 8]
    again = decoded(EVERYTHING, bytes(raw))
    assert again is None or EVERYTHING.encode(again) == bytes(raw)


PAIR_KEYS = b"\xa4left\x01\xa5right\xa1x"


@pytest.mark.parametrize(
    ("name", "raw", "code"),
    [
        ("empty", b"", "malformed"),
        ("trailing_byte", b"\x82" + PAIR_KEYS + b"\x00", "malformed"),
        ("truncated", b"\x82" + PAIR_KEYS[:-1], "malformed"),
        ("unsorted_keys", b"\x82\xa5right\xa1x\xa4left\x01", "not_canonical"),
        ("duplicate_key", b"\x83\xa4left\x01" + PAIR_KEYS, "not_canonical"),
        ("unknown_key", b"\x83" + PAIR_KEYS + b"\xa4zero\x00", "malformed"),
        ("missing_key", b"\x81\xa4left\x01", "malformed"),
        ("long_integer", b"\x82\xa4left\xcc\x01\xa5right\xa1x", "not_canonical"),
        ("signed_form_of_a_positive_integer", b"\x82\xa4left\xd0\x01\xa5right\xa1x", "not_canonical"),
        ("long_string", b"\x82\xa4left\x01\xa5right\xd9\x01x", "not_canonical"),
        ("long_map", b"\xde\x00\x02" + PAIR_KEYS, "not_canonical"),
        ("long_key", b"\x82\xd9\x04left\x01\xa5right\xa1x", "not_canonical"),
        ("key_as_bytes", b"\x82\xc4\x04left\x01\xa5right\xa1x", "malformed"),
        ("float", b"\x82\xa4left\xca\x3f\x80\x00\x00\xa5right\xa1x", "malformed"),
        ("double", b"\x82\xa4left\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00\xa5right\xa1x", "malformed"),
        ("boolean_for_integer", b"\x82\xa4left\xc3\xa5right\xa1x", "malformed"),
        ("text_for_integer", b"\x82\xa4left\xa11\xa5right\xa1x", "malformed"),
        ("bytes_for_text", b"\x82\xa4left\x01\xa5right\xc4\x01x", "malformed"),
        ("integer_above", b"\x82\xa4left\xcf\x00\x20\x00\x00\x00\x00\x00\x00\xa5right\xa1x", "malformed"),
        ("integer_of_64_bits", b"\x82\xa4left\xcf" + b"\xff" * 8 + b"\xa5right\xa1x", "malformed"),
        ("integer_below", b"\x82\xa4left\xd3\xff\xe0\x00\x00\x00\x00\x00\x00\xa5right\xa1x", "malformed"),
        ("invalid_utf8", b"\x82\xa4left\x01\xa5right\xa1\xff", "malformed"),
        ("surrogate", b"\x82\xa4left\x01\xa5right\xa3\xed\xa0\x80", "malformed"),
        ("overlong_utf8", b"\x82\xa4left\x01\xa5right\xa2\xc0\x80", "malformed"),
        ("extension", b"\x82\xa4left\xd4\x01\x00\xa5right\xa1x", "malformed"),
        ("timestamp", b"\x82\xa4left\xd6\xff\x00\x00\x00\x00\xa5right\xa1x", "malformed"),
        ("reserved_byte", b"\x82\xa4left\xc1\xa5right\xa1x", "malformed"),
        ("array_for_map", b"\x92\x01\xa1x", "malformed"),
        ("huge_map", b"\xdf\xff\xff\xff\xff", "malformed"),
        ("huge_string", b"\x82\xa4left\x01\xa5right\xdb\xff\xff\xff\xff", "malformed"),
        ("deep", b"\x81" * 100_000, "malformed"),
    ],
)
def test_bytes_of_another_form_are_refused(name: str, raw: bytes, code: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        Codec(Pair).decode(raw)
    assert caught.value.code == code, name


@pytest.mark.parametrize("header", [b"\xdd\xff\xff\xff\xff", b"\xdc\xff\xff", b"\xdd\x7f\xff\xff\xff"])
def test_a_length_that_the_input_cannot_hold_is_refused(header: bytes) -> None:
    for codec in (Codec(tuple[Id, ...]), Codec(tuple[Row, ...]), ROW):
        with pytest.raises(RemoteProtocolError):
            codec.decode(header)


@pytest.mark.parametrize("size", [0, 31, 32, 255, 256, 65_535, 65_536])
def test_every_length_has_its_shortest_header(size: int) -> None:
    for value, codec in (
        (b"x" * size, Codec(bytes)),
        ("x" * size, Codec(str)),
        ((1,) * size, Codec(tuple[Count, ...])),
    ):
        raw = encode(value)
        assert raw == msgpack.packb(value, use_bin_type=True)
        assert codec.decode(raw) == value  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "number", [0, 127, 128, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, MAX_INTEGER, -1, -32, -33, -128, -129, -(2**31)]
)
def test_every_integer_has_its_shortest_form(number: int) -> None:
    assert encode(number) == msgpack.packb(number)
    assert Codec(Integer).decode(encode(number)) == number


@pytest.mark.parametrize(
    ("wire_type", "good", "bad"),
    [
        (Count, 0, -1),
        (Positive, 1, 0),
        (Integer, MAX_INTEGER, MAX_INTEGER + 1),
        (Id, bytes(16), bytes(15)),
        (Hash, bytes(32), bytes(33)),
        (Handle, "ada.l-1_x", "Ada"),
        (Handle, "ab", "a"),
        (Handle, "a" * 32, "a" * 33),
        (Word, "users", ""),
        (UnitCode, "EUR", "eur"),
        (UnitCode, "EU", "E"),
    ],
)
def test_named_types_have_limits(wire_type: type, good: object, bad: object) -> None:
    codec = Codec(wire_type)
    assert codec.decode(encode(good)) == good
    with pytest.raises(RemoteProtocolError):
        codec.decode(encode(bad))


@pytest.mark.parametrize(
    ("wire_type", "word"), [(Handle, "ada"), (Word, "users"), (UnitCode, "EUR")], ids=["handle", "word", "unit"]
)
@pytest.mark.parametrize("tail", ["\n", "\r", "\n\n", " ", "\x00", "\u2028"])
def test_a_word_carries_no_line_feed(wire_type: type, word: str, tail: str) -> None:
    with pytest.raises(RemoteProtocolError):
        Codec(wire_type).decode(encode(word + tail))


class Unsorted(Wire):
    right: Count
    left: Count


class Optional(Wire):
    left: Count = 0


class Loose(msgspec.Struct, frozen=True):
    left: Count


class Floating(Wire):
    left: float


class Mapping(Wire):
    left: dict[str, int]


class Inside(Wire):
    left: tuple[Floating, ...] | None


class Lined(Wire):
    left: Annotated[str, msgspec.Meta(pattern=r"^a$")]


@pytest.mark.parametrize("wire_type", [Unsorted, Optional, Loose, Floating, Mapping, Inside, Lined])
def test_a_type_with_two_forms_is_refused(wire_type: type) -> None:
    with pytest.raises(LocalProtocolError):
        assert_wire_type(wire_type)


def test_a_type_with_one_form_is_taken() -> None:
    assert_wire_type(Everything)
    assert_wire_type(tuple[Row, ...])
