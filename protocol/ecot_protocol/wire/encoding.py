# SPDX-License-Identifier: AGPL-3.0-or-later
"""Canonical MessagePack: the one form that every signed or hashed value has.

Rules (docs/specification/wire.md, §1):

- nil, booleans, integers, UTF-8 strings, byte strings, arrays and maps; no floats, no extension types;
- the shortest encoding of every value;
- map keys are ASCII strings in ascending byte order, each once; every declared field is there, none is unknown;
- every integer lies within ±(2^53 - 1), so that a browser reads it exactly.

Decoding is by type (msgspec). Because msgspec alone lets duplicate keys and long forms pass, a value is accepted only
if encoding it again gives the same bytes.

>>> codec = Codec(Pair)
>>> raw = codec.encode(Pair(left=1, right="x"))
>>> raw.hex()
'82a46c65667401a57269676874a178'
>>> codec.decode(raw) == Pair(left=1, right="x")
True
>>> codec.decode(bytes.fromhex("82a46c656674cc01a57269676874a178"))  # 1 in two bytes
Traceback (most recent call last):
    ...
ecot_protocol.errors.RemoteProtocolError: not_canonical: Pair
"""

import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any, Final, Generic, TypeVar, Union

import msgspec

from ecot_protocol.errors import LocalProtocolError, RemoteProtocolError

MAX_INTEGER: Final = 2**53 - 1
"""Largest magnitude of any integer on the wire (exact in an IEEE double, so in JavaScript)."""

Integer = Annotated[int, msgspec.Meta(ge=-MAX_INTEGER, le=MAX_INTEGER)]
"""Any integer on the wire."""
Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_INTEGER)]
"""An integer from 0: counts, sizes, times in milliseconds."""
Positive = Annotated[int, msgspec.Meta(ge=1, le=MAX_INTEGER)]
"""An integer from 1: amounts in minor units, share counts."""
Id = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
"""16 bytes: the id of an entry or of the object it made."""
KeyId = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
"""16 bytes: see `ecot_protocol.wire.keys.key_id`."""
Hash = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
"""32 bytes: SHA-256 or HMAC-SHA-256."""
# Python lets ``$`` match before a last line feed, which would let a handle or a log's domain carry one into a signed
# note; ``(?!\n)`` forbids it and reads the same in a browser (ECMA 262), unlike ``\Z``.
Handle = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9._-]{1,31}$(?!\n)")]
"""A pseudonym chosen by its owner: the only personal word in the log."""
Word = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9_.-]{0,31}$(?!\n)")]
"""A lower-case code that statutes or the specification define: a college, a scope, an option."""
UnitCode = Annotated[str, msgspec.Meta(pattern=r"^[A-Z][A-Z0-9]{1,7}$(?!\n)")]
"""A unit of account, e.g. ``EUR``."""


@typing.dataclass_transform(frozen_default=True, kw_only_default=True)
class Wire(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """Base of every record that crosses a wire as a map. Fields are declared in ascending byte order, none optional."""


@typing.dataclass_transform(frozen_default=True)
class WireArray(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """Base of every record that crosses a wire as an array of fixed length."""


class Pair(Wire):
    """Two values; the example of this module's documentation."""

    left: Integer
    right: str


T = TypeVar("T")
_encoder: Final = msgspec.msgpack.Encoder()


def encode(value: object) -> bytes:
    """Encode a wire record (or plain integers, strings, bytes, tuples) canonically.

    Plain dicts keep their insertion order, so they do not belong on the wire.
    """
    return _encoder.encode(value)


class Codec(Generic[T]):
    """Strict two-way codec for one wire type.

    Args:
        wire_type: a `Wire` or `WireArray` type, or a tuple type of them.
    """

    __slots__ = ("_decoder", "_name")

    def __init__(self, wire_type: type[T]) -> None:
        self._decoder: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(wire_type, strict=True)
        self._name = getattr(wire_type, "__name__", str(wire_type))

    def encode(self, value: T) -> bytes:
        """Encode `value`; the inverse of `decode`."""
        return _encoder.encode(value)

    def decode(self, raw: bytes) -> T:
        """Decode `raw`, refusing whatever is not the canonical encoding of a value of the type.

        Raises:
            RemoteProtocolError: ``malformed`` (not of the type) or ``not_canonical``.
        """
        try:
            value = self._decoder.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError) as error:
            raise RemoteProtocolError("malformed", f"{self._name}: {error}") from error
        if _encoder.encode(value) != raw:
            raise RemoteProtocolError("not_canonical", self._name)
        return value


def assert_wire_type(wire_type: object) -> None:
    """Refuse a type that could have two encodings: unsorted or optional fields, floats, dicts, sets.

    Called for every payload when the table of entry types is built.

    Raises:
        LocalProtocolError: with the path of the offending field.
    """
    for path, problem in _problems(wire_type, getattr(wire_type, "__name__", str(wire_type)), frozenset()):
        raise LocalProtocolError(f"{path}: {problem}")


def _problems(wire_type: Any, path: str, above: frozenset[Any]) -> Iterator[tuple[str, str]]:
    origin = typing.get_origin(wire_type)
    if wire_type in above or wire_type is Ellipsis:
        return
    if origin is Annotated:
        yield from _pattern_problems(wire_type.__metadata__, path)
    if origin is Annotated or origin in (tuple, Union, types.UnionType, typing.Literal):
        inner = () if origin is typing.Literal else typing.get_args(wire_type)
        for argument in inner[:1] if origin is Annotated else inner:
            yield from _problems(argument, path, above)
    elif isinstance(wire_type, type) and issubclass(wire_type, msgspec.Struct):
        yield from _struct_problems(wire_type, path, above | {wire_type})
    elif isinstance(wire_type, type) and issubclass(wire_type, tuple) and hasattr(wire_type, "_fields"):
        for name, inner_type in typing.get_type_hints(wire_type, include_extras=True).items():
            yield from _problems(inner_type, f"{path}.{name}", above | {wire_type})
    elif wire_type not in (int, str, bytes, bool, type(None), msgspec.Raw):
        yield path, f"{wire_type!r} has no canonical form"


def _pattern_problems(metadata: tuple[Any, ...], path: str) -> Iterator[tuple[str, str]]:
    for meta in metadata:
        pattern = meta.pattern if isinstance(meta, msgspec.Meta) else None
        if pattern is not None and pattern.endswith("$"):
            yield path, f"{pattern} lets a last line feed pass: end it with $(?!\\n)"


def _struct_problems(wire_type: type[msgspec.Struct], path: str, above: frozenset[Any]) -> Iterator[tuple[str, str]]:
    fields = msgspec.structs.fields(wire_type)
    names = [field.encode_name for field in fields]
    if not wire_type.__struct_config__.array_like and names != sorted(names):
        yield path, f"fields are not in ascending order: {names}"
    if not wire_type.__struct_config__.forbid_unknown_fields:
        yield path, "unknown fields are not forbidden"
    for field in fields:
        if not field.required:
            yield f"{path}.{field.name}", "has a default, so it could be left out"
        yield from _problems(field.type, f"{path}.{field.name}", above)
