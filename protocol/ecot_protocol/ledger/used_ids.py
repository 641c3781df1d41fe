# SPDX-License-Identifier: AGPL-3.0-or-later
"""Ids that can't be used again: each is remembered until nothing could carry it any more.

Ids are grouped by the day of their time bits. A day is forgotten once an id of it would be refused for its time anyway
(`ID_MAX_AGE_MS` before the record). The digest covers the ids in rows of `PART_SIZE`, in the order of their records.

>>> used = UsedIds()
>>> used.add(bytes.fromhex("018bcfe5680070008000000000000000"))
>>> bytes.fromhex("018bcfe5680070008000000000000000") in used, len(used)
(True, 1)
>>> used.forget(before_ms=1_700_000_000_000 + 2 * DAY_MS), len(used)
(None, 0)
"""

import itertools
from typing import Annotated, Final, NamedTuple

import msgspec

from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.ledger.table import Table
from ecot_protocol.wire.encoding import Count, Id, Wire
from ecot_protocol.wire.ids import time_ms

DAY_MS: Final = 86_400_000
ID_MAX_AGE_MS: Final = 31 * DAY_MS
"""How long before the record the time of an id may lie."""


PART_SIZE: Final = 1_024
"""Ids of one row of the table, so that a seal rehashes the newest few and not a whole day's."""


class UsedPart(NamedTuple):
    """Key of a row: ids of a day (counted from 1970), in rows of `PART_SIZE` numbered from 0."""

    day: Count
    number: Count


class UsedIdRow(Wire):
    """Ids of a part, in the order of their records."""

    ids: Annotated[tuple[Id, ...], msgspec.Meta(max_length=PART_SIZE)]


class UsedIds:
    """The used ids of a ledger."""

    __slots__ = ("_days", "_flushed", "_gone", "_oldest", "table")

    def __init__(self) -> None:
        # The table is written from `_days` by `flush`, before a digest or a snapshot, not at every record.
        self.table: Table[UsedPart, UsedIdRow] = Table("log.used_ids", UsedPart, UsedIdRow)
        self._days: dict[int, dict[bytes, None]] = {}
        self._flushed: dict[int, int] = {}
        self._gone: list[int] = []
        self._oldest = 0

    def __contains__(self, entry_id: bytes) -> bool:
        return entry_id in self._days.get(time_ms(entry_id) // DAY_MS, ())

    def __len__(self) -> int:
        return sum(map(len, self._days.values()))

    def add(self, entry_id: bytes) -> None:
        """Remember an id."""
        day = time_ms(entry_id) // DAY_MS
        ids = self._days.get(day)
        if ids is None:
            ids = self._days[day] = {}
        ids[entry_id] = None

    def forget(self, before_ms: int) -> None:
        """Forget the days that ended before `before_ms` (milliseconds since 1970)."""
        oldest = before_ms // DAY_MS
        if oldest <= self._oldest:
            return
        self._oldest = oldest
        for day in [day for day in self._days if day < oldest]:
            del self._days[day]
            self._gone.append(day)

    def flush(self) -> None:
        """Bring the table up to date."""
        for day in self._gone:
            for number in range(_part_count(self._flushed.pop(day, 0))):
                del self.table[UsedPart(day, number)]
        self._gone.clear()
        for day, ids in self._days.items():
            self._flush_day(day, ids)

    def _flush_day(self, day: int, ids: dict[bytes, None]) -> None:
        flushed = self._flushed.get(day, 0)
        if flushed == len(ids):
            return
        first = flushed // PART_SIZE
        new = tuple(itertools.islice(ids, first * PART_SIZE, None))
        for number in range(first, _part_count(len(ids))):
            start = (number - first) * PART_SIZE
            self.table[UsedPart(day, number)] = UsedIdRow(ids=new[start : start + PART_SIZE])
        self._flushed[day] = len(ids)

    def restore(self) -> None:
        """Rebuild from the table, after a snapshot was loaded into it.

        Raises:
            RemoteProtocolError: ``snapshot_unreadable``: a part is missing, or not full though another follows.
        """
        for part in sorted(self.table):
            ids = self._days.setdefault(part.day, {})
            if len(ids) != part.number * PART_SIZE:
                raise RemoteProtocolError("snapshot_unreadable", "the used ids were altered")
            ids.update(dict.fromkeys(self.table[part].ids))
        self._flushed = {day: len(ids) for day, ids in self._days.items()}


def _part_count(count: int) -> int:
    return -(-count // PART_SIZE)
