# SPDX-License-Identifier: AGPL-3.0-or-later
"""Tables, and the ids that can't be used again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.ledger.table import Pair, Table
from ecot_protocol.ledger.used_ids import DAY_MS, ID_MAX_AGE_MS, PART_SIZE, UsedIds, UsedPart
from ecot_protocol.state import State
from ecot_protocol.wire.ids import uuid7

ONE, TWO = Pair(left=1, right=""), Pair(left=2, right="")


def table() -> Table[str, Pair]:
    return Table("test.pairs", str, Pair)


def test_a_table_tells_what_changed_since_it_was_last_asked() -> None:
    rows = table()
    rows["a"] = ONE
    rows["b"] = ONE
    del rows["b"]
    assert rows.take_changed() == {"a", "b"}
    assert rows.take_changed() == set()
    rows["a"] = TWO
    assert rows.take_changed() == {"a"}
    assert (rows.encode_value("a"), rows.encode_value("b")) == (b"\x82\xa4left\x02\xa5right\xa0", None)


@given(st.dictionaries(st.text(st.characters(exclude_categories=("Cs",)), max_size=5), st.integers(0, 99)))
def test_a_table_is_loaded_as_it_was_dumped(values: dict[str, int]) -> None:
    rows, again = table(), table()
    for key, left in values.items():
        rows[key] = Pair(left=left, right="")
    for key, value in rows.dump():
        again.load(key, value)
    assert list(again.items()) == list(rows.items())
    assert again.take_changed() == set(values)


@pytest.mark.parametrize(
    ("key", "value"), [(b"", b""), (b"\xa1a", b"\x80"), (b"\xd9\x01a", b"\x82\xa4left\x02\xa5right\xa0")]
)
def test_a_row_of_another_form_is_not_loaded(key: bytes, value: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        table().load(key, value)


ids = st.builds(uuid7, st.integers(0, 60 * DAY_MS), st.binary(min_size=10, max_size=10))


@given(st.lists(ids, max_size=30), st.integers(0, 100 * DAY_MS))
def test_an_id_is_forgotten_only_when_it_would_be_refused_for_its_age(entry_ids: list[bytes], at: int) -> None:
    used = UsedIds()
    for one in entry_ids:
        used.add(one)
    used.forget(at - ID_MAX_AGE_MS)
    for one in entry_ids:
        is_recordable = int.from_bytes(one[:6], "big") >= at - ID_MAX_AGE_MS
        assert one in used or not is_recordable
        if at - ID_MAX_AGE_MS >= DAY_MS and int.from_bytes(one[:6], "big") < at - ID_MAX_AGE_MS - DAY_MS:
            assert one not in used


@given(st.lists(ids, max_size=20, unique=True), st.integers(0, 100 * DAY_MS))
def test_used_ids_are_restored_from_their_rows(entry_ids: list[bytes], at: int) -> None:
    state = State()
    for one in entry_ids:
        state.used_ids.add(one)
    state.used_ids.forget(at)
    again = State.load(state.dump())
    assert again.digest() == state.digest()
    assert len(again.used_ids) == len(state.used_ids)
    assert all((one in again.used_ids) == (one in state.used_ids) for one in entry_ids)
    for used in (state.used_ids, again.used_ids):
        used.forget(at + 40 * DAY_MS)
        used.add(uuid7(at + 50 * DAY_MS, bytes(10)))
    assert again.digest() == state.digest()


def test_the_order_of_ids_is_part_of_the_digest() -> None:
    first, second = uuid7(1, bytes(10)), uuid7(2, bytes(10))
    digests = set()
    for pair in ((first, second), (second, first)):
        state = State()
        for one in pair:
            state.used_ids.add(one)
        digests.add(state.digest())
    assert len(digests) == 2


def test_used_ids_fill_one_row_after_the_other() -> None:
    used = UsedIds()
    for number in range(PART_SIZE + 2):
        used.add(uuid7(1, number.to_bytes(10, "big")))
        if number in (5, PART_SIZE):
            used.flush()
    used.flush()
    assert [len(used.table[UsedPart(0, number)].ids) for number in (0, 1)] == [PART_SIZE, 2]
    changed = used.table.take_changed()
    assert len(changed) == 2
    used.add(uuid7(1, b"\xff" * 10))
    used.flush()
    assert used.table.take_changed() == {UsedPart(0, 1)}, "a full row is not rehashed"


def test_used_ids_with_a_missing_row_are_refused() -> None:
    used = UsedIds()
    for number in range(PART_SIZE + 1):
        used.add(uuid7(1, number.to_bytes(10, "big")))
    used.flush()
    del used.table[UsedPart(0, 0)]
    with pytest.raises(RemoteProtocolError):
        used.restore()
