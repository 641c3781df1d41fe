# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a client keeps of one ledger: the pin, the newest checkpoint, entries on their way, receipts.

- An entry is durable here before it is sent. After a crash or a lost reply the same bytes are sent again, and the node
  answers with the same place.
- The pin (ledger id, origin, log key) is written at the first contact. A node never changes it; only the log key is
  replaced, by one that the old key has handed over to (`following`).
- `newest` is the largest head that the log signed and that was shown to extend all that were kept before.

One SQLite file, ``journal.db``, mode 0600, in the client's state folder. Calls block for one durable write at most;
`NodeClient` makes them in a thread. Several programs may use one folder.
"""

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from ecot_client.entries import body_hash
from ecot_client.errors import JournalProblem
from ecot_client.receipts import Receipt
from ecot_protocol.wire.encoding import encode
from ecot_protocol.wire.entry import Entry, decode_entry

SCHEMA: Final = 1
BUSY_TIMEOUT_S: Final = 10.0
FORK_PREFIX: Final = "fork:"
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS kept (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pending (number INTEGER PRIMARY KEY, body_hash BLOB NOT NULL UNIQUE, entry BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS receipts (
    body_hash BLOB PRIMARY KEY, entry_id BLOB NOT NULL, idx INTEGER NOT NULL, receipt BLOB NOT NULL, entry BLOB
);
CREATE INDEX IF NOT EXISTS receipts_by_id ON receipts (entry_id);
CREATE INDEX IF NOT EXISTS receipts_by_index ON receipts (idx);
"""
_RECEIPT: Final = msgspec.msgpack.Decoder(Receipt)


class Pin(msgspec.Struct, frozen=True, array_like=True):
    """What the node said of its ledger at the first contact.

    Attributes:
        ledger: id, 32 bytes.
        origin: of the log.
        log_vkey: C2SP verifier key of the log.
        keys_index: record of the log up to which replaced keys of the node are known.
        former_vkeys: keys that signed the log before, oldest first.
    """

    ledger: bytes
    origin: str
    log_vkey: str
    keys_index: int = 0
    former_vkeys: tuple[str, ...] = ()


class Journal:
    """The journal in a folder, which is made if it is missing.

    Raises:
        JournalProblem: ``journal_unusable``, ``journal_version_unknown``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        with _told(folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = folder / "journal.db"
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            self._db = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")
            # FULL: an id that was sent and then forgotten in a power cut could be paid twice.
            self._db.execute("PRAGMA synchronous = FULL")
            self._prepare(path)

    def _prepare(self, path: Path) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA:
            raise JournalProblem("journal_version_unknown", path=str(path), version=version)
        if version < SCHEMA:
            self._db.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {SCHEMA}; COMMIT;")

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextlib.contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        with self._lock, _told(self.folder):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def _ask(self, question: str, *values: object) -> list[tuple[bytes, ...]]:
        with self._lock, _told(self.folder):
            return self._db.execute(question, values).fetchall()

    # --- the pin and the newest head --------------------------------------------------------------------------------

    def pin(self) -> Pin | None:
        """Return what was pinned, or None before the first contact."""
        value = self._kept("pin")
        return None if value is None else msgspec.msgpack.decode(value, type=Pin)

    def set_pin(self, pin: Pin) -> Pin:
        """Pin a ledger unless one is pinned already; return the one that is."""
        with self._change() as db:
            db.execute("INSERT INTO kept VALUES ('pin', ?) ON CONFLICT DO NOTHING", (msgspec.msgpack.encode(pin),))
        kept = self.pin()
        assert kept is not None
        return kept

    def follow(self, old: Pin, new: Pin, note: str) -> Pin:
        """Replace a pin whose log key was handed over, unless another program did; return the one that is kept.

        Args:
            old: the pin as it was read.
            new: as it shall be.
            note: the checkpoint that hands over, which both keys have signed; the newest from now on.
        """
        with self._change() as db:
            rows = db.execute("SELECT value FROM kept WHERE name = 'pin'").fetchall()
            kept = msgspec.msgpack.decode(rows[0][0], type=Pin)
            if kept != old:
                return kept
            db.execute("UPDATE kept SET value = ? WHERE name = 'pin'", (msgspec.msgpack.encode(new),))
            db.execute("INSERT OR REPLACE INTO kept VALUES ('newest', ?)", (note.encode(),))
        return new

    def newest(self) -> str | None:
        """Return the newest checkpoint that was found consistent, a signed note."""
        value = self._kept("newest")
        return None if value is None else value.decode()

    def set_newest(self, note: str) -> None:
        """Keep a checkpoint that extends the newest."""
        with self._change() as db:
            db.execute("INSERT OR REPLACE INTO kept VALUES ('newest', ?)", (note.encode(),))

    def _kept(self, name: str) -> bytes | None:
        rows = self._ask("SELECT value FROM kept WHERE name = ?", name)
        return rows[0][0] if rows else None

    # --- entries on their way ---------------------------------------------------------------------------------------

    def keep(self, entries: Sequence[Entry]) -> None:
        """Make entries durable before they are sent; one whose body is kept already stays as it was first kept."""
        rows = [(body_hash(entry), encode(entry)) for entry in entries]
        with self._change() as db:
            db.executemany("INSERT INTO pending (body_hash, entry) VALUES (?, ?) ON CONFLICT DO NOTHING", rows)

    def kept_entry(self, wanted: bytes) -> Entry | None:
        """Return the pending entry with this body hash as it was first kept, signatures included."""
        rows = self._ask("SELECT entry FROM pending WHERE body_hash = ?", wanted)
        return decode_entry(rows[0][0]) if rows else None

    def pending(self) -> tuple[Entry, ...]:
        """Return the entries of which no outcome is known, in the order in which they were kept."""
        return tuple(decode_entry(row[0]) for row in self._ask("SELECT entry FROM pending ORDER BY number"))

    def settle(self, recorded: Sequence[tuple[Entry, Receipt]], refused: Sequence[bytes] = ()) -> None:
        """Keep receipts, and forget the entries that are recorded or refused (by body hash), in one step."""
        rows = [
            (one.body_hash, one.entry_id, one.index, msgspec.msgpack.encode(one), encode(entry))
            for entry, one in recorded
        ]
        with self._change() as db:
            db.executemany("INSERT INTO receipts VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", rows)
            done = [(row[0],) for row in rows] + [(one,) for one in refused]
            db.executemany("DELETE FROM pending WHERE body_hash = ?", done)

    # --- receipts ---------------------------------------------------------------------------------------------------

    def receipt(self, wanted: bytes) -> Receipt | None:
        """Return the receipt of the body with this hash."""
        rows = self._ask("SELECT receipt FROM receipts WHERE body_hash = ?", wanted)
        return _RECEIPT.decode(rows[0][0]) if rows else None

    def receipt_of_entry(self, entry_id: bytes) -> Receipt | None:
        """Return the receipt of the entry with this id."""
        rows = self._ask("SELECT receipt FROM receipts WHERE entry_id = ?", entry_id)
        return _RECEIPT.decode(rows[0][0]) if rows else None

    def receipts(self) -> tuple[Receipt, ...]:
        """Return all receipts, oldest record first."""
        return tuple(_RECEIPT.decode(row[0]) for row in self._ask("SELECT receipt FROM receipts ORDER BY idx"))

    # --- forks ------------------------------------------------------------------------------------------------------

    def keep_fork(self, name: str, kept: bytes) -> None:
        """Keep a proof that a log forked; one that is kept stays as it is."""
        with self._change() as db:
            db.execute("INSERT INTO kept VALUES (?, ?) ON CONFLICT DO NOTHING", (FORK_PREFIX + name, kept))

    def forks(self) -> tuple[bytes, ...]:
        """Return what was kept of forks, by name."""
        question = "SELECT value FROM kept WHERE name >= ? AND name < ? ORDER BY name"
        return tuple(row[0] for row in self._ask(question, FORK_PREFIX, FORK_PREFIX + "g"))

    # --- evidence ---------------------------------------------------------------------------------------------------

    def save_evidence(self, name: str, content: bytes) -> Path:
        """Write a file of proof that the node broke its word, beside the journal."""
        path = self.folder / name
        with _told(self.folder):
            path.write_bytes(content)
        return path


@contextlib.contextmanager
def _told(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        raise JournalProblem("journal_unusable", str(error), path=str(folder)) from error
