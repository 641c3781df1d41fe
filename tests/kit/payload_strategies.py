# SPDX-License-Identifier: AGPL-3.0-or-later
"""Hypothesis strategies for any wire type, made from the type itself: a new entry type is tested from its first day."""

from typing import Any

import msgspec
from hypothesis import strategies as st

from ecot_protocol.wire.encoding import MAX_INTEGER

MAX_ITEMS = 3
MAX_TEXT = 20


def values(wire_type: Any, ids: tuple[bytes, ...] = ()) -> st.SearchStrategy[Any]:
    """Return a strategy of values of a payload, a record or any other wire type.

    Args:
        wire_type: what `Codec` takes.
        ids: 16 bytes each; ids and key ids are drawn from these too.
    """
    return _values(msgspec.inspect.type_info(wire_type), ids)


def _values(info: msgspec.inspect.Type, ids: tuple[bytes, ...]) -> st.SearchStrategy[Any]:  # noqa: PLR0912
    match info:
        case msgspec.inspect.Metadata(type=inner):
            return _values(inner, ids)
        case msgspec.inspect.NoneType():
            return st.none()
        case msgspec.inspect.BoolType():
            return st.booleans()
        case msgspec.inspect.IntType(ge=low, le=high):
            return st.integers(-MAX_INTEGER if low is None else low, MAX_INTEGER if high is None else high)
        case msgspec.inspect.BytesType(min_length=16, max_length=16) if ids:
            return st.sampled_from(ids) | st.binary(min_size=16, max_size=16)
        case msgspec.inspect.BytesType(min_length=low, max_length=high):
            return st.binary(min_size=low or 0, max_size=min((low or 0) + 64, 2**16 if high is None else high))
        case msgspec.inspect.StrType(pattern=str(pattern)):
            return st.from_regex(pattern, fullmatch=True)
        case msgspec.inspect.StrType(min_length=low):
            return st.text(st.characters(exclude_categories=("Cs",)), min_size=low or 0, max_size=(low or 0) + MAX_TEXT)
        case msgspec.inspect.LiteralType(values=choices):
            return st.sampled_from(choices)
        case msgspec.inspect.UnionType(types=types):
            return st.one_of([_values(one, ids) for one in types])
        case msgspec.inspect.VarTupleType(item_type=item, min_length=low, max_length=high):
            most = min((low or 0) + MAX_ITEMS, MAX_INTEGER if high is None else high)
            return st.lists(_values(item, ids), min_size=low or 0, max_size=most).map(tuple)
        case msgspec.inspect.TupleType(item_types=items):
            return st.tuples(*(_values(one, ids) for one in items))
        case (
            msgspec.inspect.StructType(cls=cls, fields=fields) | msgspec.inspect.NamedTupleType(cls=cls, fields=fields)
        ):
            given = st.fixed_dictionaries({field.name: _values(field.type, ids) for field in fields})
            return given.map(lambda by_name: cls(**by_name))
        case msgspec.inspect.RawType():
            return st.just(msgspec.Raw(b"\x80"))
    raise AssertionError(f"no strategy for {info}")
