# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a node remembers of its partners beside the ledger: proposals, incidents, marks of agreement, handovers of keys.

Each note is a value of its own under ``partners/<kind>/<name>`` in the store, so that it is in every backup. A kind has
a limit of its own; whoever writes sees to it, and `put` refuses what exceeds it.
"""

from typing import Any, Final, Protocol, TypeVar

import msgspec

from ecot_protocol.wire.encoding import Codec, encode

T = TypeVar("T")
MAX_NOTES: Final = 256
"""Notes of one kind."""


class MetaStore(Protocol):
    """Where small values are kept durably."""

    async def meta_get(self, key: str) -> bytes | None: ...

    async def meta_put(self, key: str, value: bytes | None) -> None: ...


class NotesFull(Exception):
    """There are as many notes of this kind as there may be."""


_NAMES: Final[Codec[tuple[str, ...]]] = Codec(tuple[str, ...])


class Notes:
    """Notes of one kind, kept in memory too.

    Args:
        store: where they are durable.
        kind: lower-case word.
        codec: of one note.
        maximum: how many there may be.
    """

    def __init__(self, store: MetaStore, kind: str, codec: "Codec[Any]", maximum: int = MAX_NOTES) -> None:
        self._store, self._codec, self._maximum = store, codec, maximum
        self._prefix = f"partners/{kind}"
        self._notes: dict[str, Any] | None = None

    async def all(self) -> dict[str, Any]:
        """Return name -> note, in the order in which they were first put."""
        if self._notes is None:
            raw = await self._store.meta_get(self._prefix)
            found = {}
            for name in _NAMES.decode(raw) if raw is not None else ():
                note = await self._store.meta_get(f"{self._prefix}/{name}")
                if note is not None:
                    found[name] = self._codec.decode(note)
            self._notes = found
        return self._notes

    async def get(self, name: str) -> Any | None:
        """Return a note."""
        return (await self.all()).get(name)

    async def put(self, name: str, note: msgspec.Struct) -> None:
        """Add or replace a note.

        Raises:
            NotesFull: it is one too many.
        """
        notes = await self.all()
        if name not in notes:
            if len(notes) >= self._maximum:
                raise NotesFull(self._prefix)
            # The name first: a name without a note is skipped, a note without a name would be there for ever.
            await self._store.meta_put(self._prefix, encode((*notes, name)))
        await self._store.meta_put(f"{self._prefix}/{name}", self._codec.encode(note))
        notes[name] = note

    async def remove(self, name: str) -> None:
        """Forget a note."""
        notes = await self.all()
        if name in notes:
            del notes[name]
            await self._store.meta_put(f"{self._prefix}/{name}", None)
            await self._store.meta_put(self._prefix, encode(tuple(notes)))


__all__ = ["MAX_NOTES", "MetaStore", "Notes", "NotesFull"]
