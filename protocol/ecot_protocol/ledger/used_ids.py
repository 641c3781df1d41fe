# SPDX-License-Identifier: AGPL-3.0-or-later
"""Ids that can't be used again: each is remembered until nothing could carry it any more.

Ids are grouped by the day of their time bits. A day is forgotten once an id of it would be refused for its time anyway
(`ID_MAX_AGE_MS` before the record). The digest covers each day's count and a running hash, in the order of the records.

>>> used = UsedIds()
>>> used.add(bytes.fromhex("018bcfe5680070008000000000000000"))
>>> bytes.fromhex("018bcfe5680070008000000000000000") in used, len(used)
(True, 1)
>>> used.forget(before_ms=1_700_000_000_000 + 2 * DAY_MS), len(used)
(None, 0)
"""

from hashlib import sha256
from typing import Final

from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.ledger.table import Table
from ecot_protocol.wire.encoding import Count, Hash, Id, Wire
from ecot_protocol.wire.ids import time_ms

DAY_MS: Final = 86_400_000
ID_MAX_AGE_MS: Final = 31 * DAY_MS
"""How long before the record the time of an id may lie."""


class UsedDay(Wire):
    """Every id of one day: `ids` in the order of their records, `hash` runs over them."""

    hash: Hash
    ids: tuple[Id, ...]


class UsedIds:
    """The used ids of a ledger."""

    __slots__ = ("_changed", "_days", "_hashed", "_oldest", "table")

    def __init__(self) -> None:
        # The table is written from `_days` by `flush`, before a digest or a snapshot, not at every record; so is the
        # running hash.
        self.table: Table[int, UsedDay] = Table("log.used_ids", Count, UsedDay)
        self._days: dict[int, dict[bytes, None]] = {}
        self._hashed: dict[int, tuple[int, bytes]] = {}
        self._changed: set[int] = set()
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
        self._changed.add(day)

    def forget(self, before_ms: int) -> None:
        """Forget the days that ended before `before_ms` (milliseconds since 1970)."""
        oldest = before_ms // DAY_MS
        if oldest <= self._oldest:
            return
        self._oldest = oldest
        for day in [day for day in self._days if day < oldest]:
            del self._days[day]
            self._hashed.pop(day, None)
            self._changed.add(day)

    def flush(self) -> None:
        """Bring the table up to date."""
        for day in self._changed:
            if day in self._days:
                self.table[day] = self._row(day)
            elif day in self.table:
                del self.table[day]
        self._changed.clear()

    def _row(self, day: int) -> UsedDay:
        """Return a day's row, its hash run over the ids that came since the last time."""
        ids = tuple(self._days[day])
        count, running = self._hashed.get(day, (0, b""))
        for entry_id in ids[count:]:
            running = sha256(running + entry_id).digest()
        self._hashed[day] = (len(ids), running)
        return UsedDay(hash=running, ids=ids)

    def restore(self) -> None:
        """Rebuild from the table, after a snapshot was loaded into it.

        Raises:
            RemoteProtocolError: ``snapshot_unreadable``: a running hash does not fit its ids.
        """
        for day, row in self.table.items():
            running = b""
            for entry_id in row.ids:
                running = sha256(running + entry_id).digest()
            if running != row.hash:
                raise RemoteProtocolError("snapshot_unreadable", "the used ids were altered")
            self._days[day], self._hashed[day] = dict.fromkeys(row.ids), (len(row.ids), row.hash)
