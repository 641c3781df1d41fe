# SPDX-License-Identifier: AGPL-3.0-or-later
"""Ids: version and variant, time bits, and no way for an entry to be given the id of an object or an organ."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecot_protocol.errors import LocalProtocolError
from ecot_protocol.wire.ids import is_uuid7, object_id, organ_id, time_ms, uuid7

times = st.integers(0, 2**48 - 1)
randoms = st.binary(min_size=10, max_size=10)


@given(times, randoms)
def test_an_entry_id_is_a_uuid_version_7(unix_ms: int, random: bytes) -> None:
    entry_id = uuid7(unix_ms, random)
    known = uuid.UUID(bytes=entry_id)
    assert (known.version, known.variant) == (7, uuid.RFC_4122)
    assert is_uuid7(entry_id)
    assert time_ms(entry_id) == unix_ms


@given(times, randoms, st.integers(1, 10_000))
def test_an_object_id_is_a_uuid_version_8_of_the_same_time(unix_ms: int, random: bytes, number: int) -> None:
    entry_id = uuid7(unix_ms, random)
    further = object_id(entry_id, number)
    assert uuid.UUID(bytes=further).version == 8
    assert not is_uuid7(further)
    assert time_ms(further) == unix_ms
    assert further != object_id(entry_id, number + 1)


@given(st.lists(times, min_size=2, max_size=5), randoms)
def test_ids_sort_by_time(moments: list[int], random: bytes) -> None:
    assert sorted(uuid7(one, random) for one in moments) == [uuid7(one, random) for one in sorted(moments)]


def test_organs_have_ids_of_their_own_before_all_time() -> None:
    organs = [organ_id(name) for name in ("board", "treasurer", "cooperative", "node")]
    assert len(set(organs)) == 4
    assert all(time_ms(one) == 0 and not is_uuid7(one) for one in organs)


@given(st.binary(max_size=40))
def test_any_bytes_are_told_apart(raw: bytes) -> None:
    assert is_uuid7(raw) == (len(raw) == 16 and raw[6] >> 4 == 7 and raw[8] >> 6 == 2)


@pytest.mark.parametrize(("unix_ms", "random"), [(-1, bytes(10)), (2**48, bytes(10)), (0, bytes(9)), (0, bytes(11))])
def test_what_is_no_time_or_no_random_is_our_own_error(unix_ms: int, random: bytes) -> None:
    with pytest.raises(LocalProtocolError):
        uuid7(unix_ms, random)
