# SPDX-License-Identifier: AGPL-3.0-or-later
"""Where partners are found: `addresses.db` in the data folder, on SQLite whichever store holds the log.

It is shared by the node that runs and by `ecot-node peer`, which needs no restart: each sees what the other commits.

- An address is *confirmed* once it was dialled and the partner's host key answered there. Only that counts as good.
- What a partner says of itself, or a network nearby, is a guess until then: it replaces older guesses alone, is dialled
  after everything else, and never makes room by pushing out what was confirmed or what an operator wrote.
- Every list is bounded; the limits are below.
- What is kept for a ledger that never becomes a partner goes when its invitation expires.
"""

import sqlite3
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Final, NamedTuple

from ecot_node.store.errors import StoreFailed, StoreLimit, StoreTooNew

FILE_NAME: Final = "addresses.db"
SCHEMA_VERSION: Final = 1
WRITTEN_MAX: Final = 8
"""Addresses of one partner that an operator wrote, and as many again that an invitation named."""
CONFIRMED_MAX: Final = 8
"""Confirmed addresses of one partner that nobody wrote."""
GUESSES_MAX: Final = 4
"""Addresses of one partner that it said of itself and that nobody has confirmed."""
PARTNERS_MAX: Final = 2_000
STRANGERS_MAX: Final = 64
"""Ledgers that are no partners (yet)."""
ADDRESS_CHARS_MAX: Final = 512
BUSY_TIMEOUT_S: Final = 5.0

_SCHEMA: Final = """
CREATE TABLE partners (
    ledger BLOB PRIMARY KEY,
    name TEXT NOT NULL,
    url TEXT NOT NULL,
    is_recorded INTEGER NOT NULL,
    expires_at_ms INTEGER
) STRICT;
CREATE TABLE addresses (
    ledger BLOB NOT NULL REFERENCES partners (ledger) ON DELETE CASCADE,
    address TEXT NOT NULL,
    source TEXT NOT NULL,
    added_at_ms INTEGER NOT NULL,
    confirmed_at_ms INTEGER,
    PRIMARY KEY (ledger, address)
) STRICT;
PRAGMA user_version = 1;
"""


class Source(StrEnum):
    """Say where an address comes from; the trusted ones first."""

    OPERATOR = "operator"
    SETTINGS = "settings"
    INVITATION = "invitation"
    PARTNER = "partner"
    NETWORK = "network"


GUESSED: Final = frozenset((Source.PARTNER, Source.NETWORK))
"""What is nobody's word but the partner's own, or that of whoever is on the same network."""


class KnownAddress(NamedTuple):
    """An address of a partner.

    Attributes:
        address: multiaddr without the partner's ``/p2p/``.
        source: who said so first.
        added_at_ms: when.
        confirmed_at_ms: when the partner last answered there; None if it never did.
    """

    address: str
    source: Source
    added_at_ms: int
    confirmed_at_ms: int | None


class KnownPartner(NamedTuple):
    """A partner, or one that may become one.

    Attributes:
        name: its domain, for people.
        url: where its node answers over HTTP; empty if unknown.
        is_recorded: whether our ledger holds a peering with it.
        expires_at_ms: when the invitation goes that named it; None if it stays.
        addresses: in the order in which they are dialled.
    """

    name: str
    url: str
    is_recorded: bool
    expires_at_ms: int | None
    addresses: tuple[KnownAddress, ...]


class AddressBook:
    """The address book in a data folder; each method is one short transaction, from any thread.

    Args:
        folder: the node's data folder.

    Raises:
        StoreFailed: the file can't be opened.
        StoreTooNew: it is of a later release.
    """

    def __init__(self, folder: Path) -> None:
        self._lock = threading.Lock()
        try:
            self._connection = sqlite3.connect(
                folder / FILE_NAME, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
            self._connection.execute("PRAGMA foreign_keys = ON")
            with self._transaction() as connection:
                version = connection.execute("PRAGMA user_version").fetchone()[0]
                if version > SCHEMA_VERSION:
                    raise StoreTooNew(version, SCHEMA_VERSION)
                if not version:
                    for statement in _SCHEMA.split(";\n"):
                        connection.execute(statement)
        except sqlite3.Error as error:
            raise StoreFailed(f"{folder / FILE_NAME}: {error}") from error

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def version(self) -> tuple[int, int]:
        """Return a value that changes when the book does, by us or by another process. Cheap."""
        with self._lock:
            seen = self._connection.execute("PRAGMA data_version").fetchone()[0]
            return seen, self._connection.total_changes

    def partners(self) -> dict[bytes, KnownPartner]:
        """Return what is known, by ledger id."""
        with self._lock:
            rows = self._connection.execute("SELECT ledger, name, url, is_recorded, expires_at_ms FROM partners")
            known = rows.fetchall()
            found = self._connection.execute(
                "SELECT ledger, address, source, added_at_ms, confirmed_at_ms FROM addresses"
            ).fetchall()
        addresses: dict[bytes, list[KnownAddress]] = {}
        for ledger, address, source, added, confirmed in found:
            addresses.setdefault(ledger, []).append(KnownAddress(address, Source(source), added, confirmed))
        return {
            ledger: KnownPartner(name, url, bool(recorded), expires, order_addresses(addresses.get(ledger, ())))
            for ledger, name, url, recorded, expires in known
        }

    def know(self, ledger: bytes, *, name: str, is_recorded: bool) -> None:
        """Keep a ledger by its name; a recorded partner stays until it is removed.

        Raises:
            StoreLimit: too many partners, or too many ledgers that are none.
        """
        with self._transaction() as connection:
            self._make_room(connection, ledger, is_recorded=is_recorded)
            connection.execute(
                "INSERT INTO partners VALUES (?, ?, '', ?, NULL) ON CONFLICT (ledger) DO UPDATE SET name = "
                "CASE excluded.name WHEN '' THEN name ELSE excluded.name END, "
                "is_recorded = max(is_recorded, excluded.is_recorded), "
                "expires_at_ms = CASE excluded.is_recorded WHEN 1 THEN NULL ELSE expires_at_ms END",
                (ledger, name, is_recorded),
            )

    def write(self, ledger: bytes, addresses: Sequence[str], *, at_ms: int) -> None:
        """Add addresses that an operator writes, for a ledger that is known.

        Raises:
            StoreLimit: more than `WRITTEN_MAX` with those there are.
        """
        with self._transaction() as connection:
            for address in addresses:
                connection.execute(
                    "INSERT INTO addresses VALUES (?, ?, ?, ?, NULL) "
                    "ON CONFLICT (ledger, address) DO UPDATE SET source = excluded.source",
                    (ledger, _checked(address), Source.OPERATOR, at_ms),
                )
            self._check_count(connection, ledger, Source.OPERATOR)

    def invite(
        self, ledger: bytes, addresses: Sequence[str], *, name: str, url: str, expires_at_ms: int, at_ms: int
    ) -> None:
        """Keep what an invitation says, instead of what an older one said; what was confirmed stays.

        Raises:
            StoreLimit: too many partners or addresses.
        """
        with self._transaction() as connection:
            self._make_room(connection, ledger, is_recorded=False)
            connection.execute(
                "INSERT INTO partners VALUES (?, ?, ?, 0, ?) ON CONFLICT (ledger) DO UPDATE SET "
                "name = CASE is_recorded WHEN 1 THEN name ELSE excluded.name END, "
                "url = CASE WHEN excluded.url = '' THEN url ELSE excluded.url END, "
                "expires_at_ms = CASE is_recorded WHEN 1 THEN NULL ELSE excluded.expires_at_ms END",
                (ledger, name, url, expires_at_ms),
            )
            self._replace(connection, ledger, Source.INVITATION, addresses, at_ms)
            self._check_count(connection, ledger, Source.INVITATION)

    def guess(self, ledger: bytes, addresses: Sequence[str], source: Source, *, at_ms: int) -> None:
        """Keep what a partner says of itself, or the network of it, instead of what it said before.

        Nothing else is touched; what is beyond `GUESSES_MAX` is left out.
        """
        assert source in GUESSED
        with self._transaction() as connection:
            if connection.execute("SELECT 1 FROM partners WHERE ledger = ?", (ledger,)).fetchone():
                self._replace(connection, ledger, source, addresses[:GUESSES_MAX], at_ms)

    def confirm(self, ledger: bytes, address: str, source: Source, *, at_ms: int) -> None:
        """Keep an address at which the partner has answered; of those that nobody wrote, the oldest makes room."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO addresses VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT (ledger, address) DO UPDATE SET confirmed_at_ms = excluded.confirmed_at_ms",
                (ledger, _checked(address), source, at_ms, at_ms),
            )
            connection.execute(
                "DELETE FROM addresses WHERE ledger = ?1 AND address IN (SELECT address FROM addresses WHERE "
                "ledger = ?1 AND source <> 'operator' AND confirmed_at_ms IS NOT NULL "
                "ORDER BY confirmed_at_ms DESC, address LIMIT -1 OFFSET ?2)",
                (ledger, CONFIRMED_MAX),
            )

    def remove(self, ledger: bytes, address: str | None = None) -> int:
        """Forget an address, or all of a partner with its name; return how many addresses went."""
        with self._transaction() as connection:
            where, values = (
                ("ledger = ?", (ledger,)) if address is None else ("ledger = ? AND address = ?", (ledger, address))
            )
            count = connection.execute(f"DELETE FROM addresses WHERE {where}", values).rowcount
            if address is None:
                connection.execute("DELETE FROM partners WHERE ledger = ?", (ledger,))
            return count

    def tidy(self, recorded: Collection[bytes], *, at_ms: int) -> None:
        """Forget invitations that have expired; mark which ledgers are partners.

        Args:
            recorded: ledgers with which ours has a peering.
            at_ms: now.
        """
        with self._transaction() as connection:
            connection.execute("UPDATE partners SET is_recorded = 0")
            connection.executemany(
                "UPDATE partners SET is_recorded = 1, expires_at_ms = NULL WHERE ledger = ?",
                [(one,) for one in recorded],
            )
            connection.execute("DELETE FROM partners WHERE is_recorded = 0 AND expires_at_ms <= ?", (at_ms,))

    # --- inside a transaction ---------------------------------------------------------------------------------------

    def _replace(
        self, connection: sqlite3.Connection, ledger: bytes, source: Source, addresses: Iterable[str], at_ms: int
    ) -> None:
        connection.execute(
            "DELETE FROM addresses WHERE ledger = ? AND source = ? AND confirmed_at_ms IS NULL", (ledger, source)
        )
        connection.executemany(
            "INSERT INTO addresses VALUES (?, ?, ?, ?, NULL) ON CONFLICT (ledger, address) DO NOTHING",
            [(ledger, _checked(one), source, at_ms) for one in addresses],
        )

    def _check_count(self, connection: sqlite3.Connection, ledger: bytes, source: Source) -> None:
        counted = connection.execute(
            "SELECT count(*) FROM addresses WHERE ledger = ? AND source = ?", (ledger, source)
        ).fetchone()[0]
        if counted > WRITTEN_MAX + (CONFIRMED_MAX if source is not Source.OPERATOR else 0):
            raise StoreLimit("partner_addresses", WRITTEN_MAX)

    def _make_room(self, connection: sqlite3.Connection, ledger: bytes, *, is_recorded: bool) -> None:
        if connection.execute("SELECT 1 FROM partners WHERE ledger = ?", (ledger,)).fetchone():
            return
        limit = PARTNERS_MAX if is_recorded else STRANGERS_MAX
        counted = connection.execute("SELECT count(*) FROM partners WHERE is_recorded = ?", (is_recorded,)).fetchone()[
            0
        ]
        if counted >= limit:
            raise StoreLimit("known_partners" if is_recorded else "known_strangers", limit)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self._connection
                except BaseException:
                    self._connection.execute("ROLLBACK")
                    raise
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                raise StoreFailed(f"{FILE_NAME}: {error}") from error


def order_addresses(addresses: Iterable[KnownAddress]) -> tuple[KnownAddress, ...]:
    """Return addresses in the order in which they are dialled: the last confirmed, then by who said so."""
    ranks = {source: rank for rank, source in enumerate(Source)}
    return tuple(sorted(addresses, key=lambda one: (-(one.confirmed_at_ms or 0), ranks[one.source], one.address)))


def _checked(address: str) -> str:
    if not 0 < len(address) <= ADDRESS_CHARS_MAX:
        raise StoreLimit("address_chars", ADDRESS_CHARS_MAX)
    return address
