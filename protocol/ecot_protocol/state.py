# SPDX-License-Identifier: AGPL-3.0-or-later
"""The whole state of a ledger: what any future check can read, and no more.

The same records give the same state, hence the same `digest`, on every node. A state is built by
`ecot_protocol.machine` alone.
"""

from collections.abc import Iterator
from hashlib import sha256
from typing import Any

from ecot_protocol.domains.catalogue.state import CatalogueSlice
from ecot_protocol.domains.coop.state import CoopSlice
from ecot_protocol.domains.federation.state import FederationSlice
from ecot_protocol.domains.governance.state import GovernanceSlice
from ecot_protocol.domains.membership.state import MembershipSlice
from ecot_protocol.domains.royalty.state import RoyaltySlice
from ecot_protocol.domains.shares.state import SharesSlice
from ecot_protocol.domains.trade.state import TradeSlice
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.ledger.accounts import Accounts
from ecot_protocol.ledger.digest import StateMap, position
from ecot_protocol.ledger.table import Table
from ecot_protocol.ledger.used_ids import UsedIds
from ecot_protocol.wire.encoding import Count, Wire


class Head(Wire):
    """How far the state is: records applied, and when the newest was taken."""

    received_at_ms: Count
    size: Count


class State:
    """All slices, one attribute each."""

    __slots__ = (
        "_map",
        "_tables",
        "accounts",
        "catalogue",
        "coop",
        "federation",
        "governance",
        "head",
        "membership",
        "received_at_ms",
        "royalty",
        "shares",
        "size",
        "trade",
        "used_ids",
    )

    def __init__(self) -> None:
        self.size = 0
        self.received_at_ms = 0
        self.head: Table[str, Head] = Table("log.head", str, Head)
        self.used_ids = UsedIds()
        self.accounts = Accounts()
        self.coop = CoopSlice()
        self.membership = MembershipSlice()
        self.shares = SharesSlice()
        self.trade = TradeSlice()
        self.governance = GovernanceSlice()
        self.catalogue = CatalogueSlice()
        self.royalty = RoyaltySlice()
        self.federation = FederationSlice()
        self._map = StateMap()
        self._tables = {table.name: table for table in self._all_tables()}

    def _all_tables(self) -> Iterator[Table[Any, Any]]:
        yield self.head
        yield self.used_ids.table
        for part in (
            self.accounts,
            self.coop,
            self.membership,
            self.shares,
            self.trade,
            self.governance,
            self.catalogue,
            self.royalty,
            self.federation,
        ):
            yield from part.tables()

    @property
    def ledger(self) -> bytes | None:
        """The ledger id (32 bytes); None before the genesis."""
        profile = self.coop.profile.get("")
        return profile.ledger if profile else None

    @property
    def rules(self) -> int:
        """The number of the rules in force for the next record."""
        profile = self.coop.profile.get("")
        return profile.rules if profile else 1

    def digest(self) -> bytes:
        """Return the state digest (32 bytes): see `ecot_protocol.ledger.digest`."""
        self.flush()
        return self._map.root()

    def flush(self) -> None:
        """Rehash what changed since the last digest."""
        self.used_ids.flush()
        if self.size:
            self.head[""] = Head(received_at_ms=self.received_at_ms, size=self.size)
        for table in self._tables.values():
            for key in table.take_changed():
                self._map.put(position(table.name, table.encode_key(key)), table.encode_value(key))

    def prove(self, table: str, key: bytes) -> tuple[bytes | None, tuple[bytes, ...]]:
        """Return (value, siblings) of a row for `verify_row`: its owner's proof against a seal.

        Args:
            table: a table's name.
            key: canonical bytes of the key.
        """
        rows = self._tables[table]
        self.flush()
        siblings = self._map.prove(position(table, key))
        return rows.encode_value(rows.decode_key(key)), siblings

    def prove_absence(self, table: str, key: bytes) -> tuple[tuple[bytes, bytes] | None, tuple[bytes, ...]]:
        """Return (neighbour, siblings) for `verify_absence`. Looks at every row, so it is for rare questions.

        Args:
            table: a table's name.
            key: canonical bytes of a key that has no row.
        """
        self.flush()
        place = position(table, key)
        other = self._map.find_neighbour(place)
        rows = ((position(name, other_key), value) for name, other_key, value in self.dump()) if other else ()
        found = next((value for row_place, value in rows if row_place == other), None)
        neighbour = None if other is None or found is None else (other, sha256(found).digest())
        return neighbour, self._map.prove(place)

    def find_table(self, name: str) -> Table[Any, Any] | None:
        """Return a table by its name, to look at a row whose key came from outside; None if there is none."""
        return self._tables.get(name)

    def dump(self) -> Iterator[tuple[str, bytes, bytes]]:
        """Yield (table, key, value) of every row, for a snapshot."""
        self.flush()
        for name, table in self._tables.items():
            for key, value in table.dump():
                yield name, key, value

    @classmethod
    def load(cls, rows: Iterator[tuple[str, bytes, bytes]]) -> "State":
        """Build a state from a snapshot; the caller compares its digest with a seal before trusting it.

        Raises:
            RemoteProtocolError: ``snapshot_unreadable``.
        """
        state = cls()
        for name, key, value in rows:
            table = state._tables.get(name)
            if table is None:
                raise RemoteProtocolError("snapshot_unreadable", f"unknown table {name}")
            table.load(key, value)
        state.used_ids.restore()
        head = state.head.get("")
        state.size, state.received_at_ms = (head.size, head.received_at_ms) if head else (0, 0)
        return state
