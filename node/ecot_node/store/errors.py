# SPDX-License-Identifier: AGPL-3.0-or-later
"""What can go wrong with a store, in one branch of the tree of errors.

| error | what the caller does |
|---|---|
| `StoreInUse` | tells the operator which process holds the ledger, and ends |
| `StoreTooNew` | asks for a newer release; the store was not touched |
| `StoreOtherLedger` | tells the operator that this is the store of another ledger |
| `StoreFenced` | another process took the ledger over: stops for good, never reopens |
| `StoreFull` | stops taking entries, asks for disk space, then `reopen` |
| `StoreFailed` | outcome unknown: `reopen`, and believe what the store then holds |
| `StoreReadOnly`, `StoreLimit`, `StoreMisuse` | the call was refused before anything was written |
"""

from ecot_protocol.errors import EcotError


class StoreError(EcotError):
    """Root of the errors of a store."""


class StoreInUse(StoreError):
    """Another process holds the exclusive lock of this ledger.

    Args:
        place: folder or database, for the message.
        holder: what is known of the other process, such as ``"process 4711"``; may be empty.
    """

    def __init__(self, place: str, holder: str = "") -> None:
        by = f" by {holder}" if holder else ""
        super().__init__(f"{place} is in use{by}; one ledger has one running node")
        self.place = place
        self.holder = holder


class StoreTooNew(StoreError):
    """The store was written by a newer release, with a schema that this one does not know."""

    def __init__(self, found: int, known: int) -> None:
        super().__init__(f"the store has schema {found}, this release knows up to {known}: install a newer release")
        self.found = found
        self.known = known


class StoreOtherLedger(StoreError):
    """The store holds another ledger than the one that was asked for."""

    def __init__(self, expected: bytes, found: bytes) -> None:
        super().__init__(f"the store holds ledger {found.hex()}, expected {expected.hex()}")
        self.expected = expected
        self.found = found


class StoreFenced(StoreError):
    """Another process has opened the ledger under a higher epoch; nothing was written.

    Args:
        ours: the epoch that this process opened.
        found: the epoch that the store holds now.
    """

    def __init__(self, ours: int, found: int) -> None:
        super().__init__(f"the ledger was taken over: our epoch is {ours}, the store's is {found}")
        self.ours = ours
        self.found = found


class StoreFailed(StoreError):
    """A write failed and its outcome is unknown until `reopen`; every later write fails likewise until then."""


class StoreFull(StoreFailed):
    """The disk (or the quota) is full; nothing of the write was kept."""


class StoreReadOnly(StoreError):
    """A write was asked of a store that was opened for reading."""


class StoreLimit(StoreError):
    """A stated limit on size or count would be exceeded; nothing was written.

    Args:
        what: name of the limit, such as ``"draft_bytes"``.
        limit: the limit itself.
    """

    def __init__(self, what: str, limit: int) -> None:
        super().__init__(f"{what} is limited to {limit}")
        self.what = what
        self.limit = limit


class StoreMisuse(StoreError):
    """Our own code broke the contract of the port (a gap in the indexes, a tile of the wrong length, ...)."""
