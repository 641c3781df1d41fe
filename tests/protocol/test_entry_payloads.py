# SPDX-License-Identifier: AGPL-3.0-or-later
"""Every payload of the one table, and every row of the state: one form each, which comes back as it went."""

import msgpack
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from payload_strategies import values

from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.ledger.entry_type import AnyEntryType
from ecot_protocol.ledger.table import Table
from ecot_protocol.machine import ENTRY_TYPES
from ecot_protocol.state import State
from ecot_protocol.wire.encoding import Codec, assert_wire_type, encode
from ecot_protocol.wire.entry import BODY, ENTRY, RECORD
from ecot_protocol.wire.reply import REPLY
from ecot_protocol.wire.statement import STATEMENT

EACH_TYPE = pytest.mark.parametrize("entry_type", ENTRY_TYPES, ids=lambda one: f"{one.tag}-{one.rules}")
EACH_TABLE = pytest.mark.parametrize("table", list(State()._all_tables()), ids=lambda one: one.name)
EACH_FRAME = pytest.mark.parametrize("codec", [BODY, ENTRY, RECORD, REPLY, STATEMENT], ids=lambda one: one._name)
FEW = settings(
    max_examples=settings().max_examples // 6, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@EACH_TYPE
@FEW
@given(data=st.data())
def test_a_payload_comes_back_as_it_went(entry_type: AnyEntryType, data: st.DataObject) -> None:
    payload = data.draw(values(entry_type.payload))
    raw = entry_type.codec.encode(payload)
    assert entry_type.codec.decode(raw) == payload
    plain = msgpack.unpackb(raw, strict_map_key=False)
    assert msgpack.packb(plain, use_bin_type=True) == raw
    assert list(plain) == sorted(plain)


@EACH_TYPE
@FEW
@given(data=st.data())
def test_a_mutated_payload_is_refused_or_canonical(entry_type: AnyEntryType, data: st.DataObject) -> None:
    raw = bytearray(entry_type.codec.encode(data.draw(values(entry_type.payload))))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    assert_refused_or_canonical(entry_type.codec, bytes(raw))


@EACH_FRAME
@FEW
@given(data=st.data())
def test_a_frame_comes_back_as_it_went(codec: Codec[object], data: st.DataObject) -> None:
    value = data.draw(values(codec._decoder.type))
    raw = codec.encode(value)
    assert codec.encode(codec.decode(raw)) == raw
    place = data.draw(st.integers(0, len(raw) - 1))
    assert_refused_or_canonical(codec, raw[:place] + bytes((data.draw(st.integers(0, 255)),)) + raw[place + 1 :])


@EACH_TABLE
@FEW
@given(data=st.data())
def test_a_row_comes_back_as_it_went(table: Table[object, object], data: st.DataObject) -> None:
    key_codec, value_codec = table._key_codec, table._value_codec
    key, value = data.draw(values(key_codec._decoder.type)), data.draw(values(value_codec._decoder.type))
    assert key_codec.decode(encode(key)) == key
    assert value_codec.decode(encode(value)) == value


@EACH_TABLE
def test_a_row_has_one_form(table: Table[object, object]) -> None:
    assert_wire_type(table._key_codec._decoder.type)
    assert_wire_type(table._value_codec._decoder.type)


def test_tables_have_names_of_their_own() -> None:
    names = [table.name for table in State()._all_tables()]
    assert len(set(names)) == len(names)
    assert all(name.count(".") == 1 and "\n" not in name and name.isascii() for name in names)


@EACH_TYPE
def test_every_commitment_stands_where_the_machine_looks_for_it(entry_type: AnyEntryType) -> None:
    """A commitment inside a nested record would never be asked for its attachment."""
    found = dict(entry_type.attachments)
    for field in msgspec.structs.fields(entry_type.payload):
        classes = list(commitments(field.type, field.name))
        assert classes == ([found[field.name]] if field.name in found else []), field.name


def commitments(wire_type: object, name: str) -> list[str]:
    info = msgspec.inspect.type_info(wire_type)
    found: list[str] = []

    def visit(one: msgspec.inspect.Type) -> None:
        match one:
            case msgspec.inspect.Metadata(type=inner, extra=extra):
                if extra and "attachment" in extra:
                    found.append(extra["attachment"])
                visit(inner)
            case msgspec.inspect.UnionType(types=types):
                for inner in types:
                    visit(inner)
            case msgspec.inspect.VarTupleType(item_type=inner):
                visit(inner)
            case msgspec.inspect.TupleType(item_types=types):
                for inner in types:
                    visit(inner)
            case msgspec.inspect.StructType(fields=fields):
                for inner in fields:
                    visit(inner.type)
            case _:
                pass

    visit(info)
    return found


def assert_refused_or_canonical(codec: Codec[object], raw: bytes) -> None:
    try:
        value = codec.decode(raw)
    except RemoteProtocolError as error:
        if error.code not in {"malformed", "not_canonical"}:
            raise
        return
    assert codec.encode(value) == raw
