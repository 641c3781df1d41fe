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
from typing import NoReturn, TypeVar

from ecot_protocol.errors import LocalProtocolError
from ecot_protocol.wire.encoding import Codec, Pair, encode

K = TypeVar("K")
V = TypeVar("V")

__all__ = ["Pair", "Table"]


class Table(dict[K, V]):
    """A dict of frozen values that tells what changed since the last digest.

    It is a dict rather than holds one, because a check reads a score of rows and a call of Python for each would cost
    more than the rule. Rows change by ``table[key] = value`` and ``del table[key]`` alone; keys come in the order of
    insertion, which replay and snapshots preserve.

    Args:
        name: ``<domain>.<plural>``, stable for ever.
        key_type: wire type of the keys.
        value_type: wire type of the values.
    """

    __slots__ = ("_changed", "_key_codec", "_value_codec", "name")

    def __init__(self, name: str, key_type: type[K], value_type: type[V]) -> None:
        super().__init__()
        self.name = name
        self._key_codec: Codec[K] = Codec(key_type)
        self._value_codec: Codec[V] = Codec(value_type)
        self._changed: set[K] = set()

    def __setitem__(self, key: K, value: V) -> None:
        dict.__setitem__(self, key, value)
        self._changed.add(key)

    def __delitem__(self, key: K) -> None:
        dict.__delitem__(self, key)
        self._changed.add(key)

    def _refuse(self, *_arguments: object, **_named: object) -> NoReturn:
        raise LocalProtocolError(f"{self.name}: this would change rows unseen by the digest")

    clear = pop = popitem = setdefault = update = __ior__ = _refuse

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
        value = self.get(key)
        return None if value is None else encode(value)

    def dump(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield every row as canonical bytes, in order, for a snapshot."""
        return ((encode(key), encode(value)) for key, value in self.items())

    def load(self, key: bytes, value: bytes) -> None:
        """Add one row of a snapshot."""
        self[self._key_codec.decode(key)] = self._value_codec.decode(value)
