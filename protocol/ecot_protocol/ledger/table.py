# SPDX-License-Identifier: AGPL-3.0-or-later
"""Tables: the only containers of state. A table remembers which keys changed, so that a digest rehashes only those.

Keys and values are canonical wire values; values are frozen and replaced, never changed in place. The name of a table
and the encodings of its keys and values are part of the state digest, hence of the rules.

>>> table = Table("coop.offices", str, Pair)
>>> table["board"] = Pair(left=1, right="x")
>>> table["board"].left, len(table), table.take_changed()
(1, 1, {'board'})
"""

from collections.abc import Iterator
from typing import Generic, TypeVar

from ecot_protocol.wire.encoding import Codec, Pair, encode

K = TypeVar("K")
V = TypeVar("V")

__all__ = ["Pair", "Table"]


class Table(Generic[K, V]):
    """A dict of frozen values that tells what changed since the last digest.

    Args:
        name: ``<domain>.<plural>``, stable for ever.
        key_type: wire type of the keys.
        value_type: wire type of the values.
    """

    __slots__ = ("_changed", "_key_codec", "_rows", "_value_codec", "name")

    def __init__(self, name: str, key_type: type[K], value_type: type[V]) -> None:
        self.name = name
        self._key_codec: Codec[K] = Codec(key_type)
        self._value_codec: Codec[V] = Codec(value_type)
        self._rows: dict[K, V] = {}
        self._changed: set[K] = set()

    def __getitem__(self, key: K) -> V:
        return self._rows[key]

    def __setitem__(self, key: K, value: V) -> None:
        self._rows[key] = value
        self._changed.add(key)

    def __delitem__(self, key: K) -> None:
        del self._rows[key]
        self._changed.add(key)

    def __contains__(self, key: object) -> bool:
        return key in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[K]:
        """Keys in the order of insertion, which replay and snapshots preserve."""
        return iter(self._rows)

    def get(self, key: K) -> V | None:
        """Return the value, or None."""
        return self._rows.get(key)

    def items(self) -> Iterator[tuple[K, V]]:
        """Return keys and values in the order of insertion."""
        return iter(self._rows.items())

    def values(self) -> Iterator[V]:
        """Return values in the order of insertion."""
        return iter(self._rows.values())

    def take_changed(self) -> set[K]:
        """Return the keys changed since the last call, and forget them."""
        changed, self._changed = self._changed, set()
        return changed

    def encode_key(self, key: K) -> bytes:
        """Return the canonical bytes of a key."""
        return encode(key)

    def decode_key(self, raw: bytes) -> K:
        """Return the key whose canonical bytes are `raw`."""
        return self._key_codec.decode(raw)

    def encode_value(self, key: K) -> bytes | None:
        """Return the canonical bytes of the value at `key`, or None if there is none now."""
        value = self._rows.get(key)
        return None if value is None else encode(value)

    def dump(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield every row as canonical bytes, in order, for a snapshot."""
        return ((encode(key), encode(value)) for key, value in self._rows.items())

    def load(self, key: bytes, value: bytes) -> None:
        """Add one row of a snapshot."""
        self[self._key_codec.decode(key)] = self._value_codec.decode(value)
