# SPDX-License-Identifier: AGPL-3.0-or-later
r"""The state digest: the root of a Merkle map over (table, key), rehashing what changed.

The map is a binary trie over 256-bit positions in which a subtree with one leaf is that leaf:

- position = SHA-256(``"ecot/state/key/v1\n"`` + table name + ``"\n"`` + key);
- leaf     = SHA-256(``0x00`` + position + SHA-256(value));
- an empty subtree is 32 zero bytes; a subtree with one leaf has the leaf's hash;
- any other subtree, over the next bit of the position: SHA-256(``0x01`` + left + right).

So the root depends on the rows alone, never on the order in which they came, and a path proves one row, or that there
is none. In memory the rows are 4,096 buckets by the first 12 bits, 64 bytes a row.

>>> state_map = StateMap()
>>> state_map.put(position("coop.offices", b"x"), b"value")
>>> state_map.root().hex()[:16]
'0c841199464f159f'
>>> proof = state_map.prove(position("coop.offices", b"x"))
>>> verify_row(position("coop.offices", b"x"), b"value", proof, state_map.root())
True
"""

from bisect import bisect_left
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

EMPTY: Final = bytes(32)
_BUCKET_BITS: Final = 12
_BUCKET_COUNT: Final = 1 << _BUCKET_BITS


def position(table: str, key: bytes) -> bytes:
    """Return the 32-byte place of a row: `table` is its name, `key` the canonical bytes of its key."""
    return sha256(b"ecot/state/key/v1\n" + table.encode("ascii") + b"\n" + key).digest()


def leaf(place: bytes, value: bytes) -> bytes:
    """Return the leaf hash of a row: `value` is its canonical bytes."""
    return _leaf(place, sha256(value).digest())


class StateMap:
    """The Merkle map of a whole state."""

    __slots__ = ("_buckets", "_changed", "_counts", "_hashes")

    def __init__(self) -> None:
        self._buckets: list[dict[bytes, bytes] | None] = [None] * _BUCKET_COUNT
        # Nodes of the perfect tree above the buckets, heap order: children of n are 2n and 2n + 1.
        self._hashes = [EMPTY] * (2 * _BUCKET_COUNT)
        self._counts = [0] * (2 * _BUCKET_COUNT)
        self._changed: set[int] = set()

    def put(self, place: bytes, value: bytes | None) -> None:
        """Set the row at `place` to `value`; None removes it."""
        number = int.from_bytes(place[:2], "big") >> 16 - _BUCKET_BITS
        bucket = self._buckets[number]
        if value is not None:
            if bucket is None:
                bucket = self._buckets[number] = {}
            bucket[place] = leaf(place, value)
        elif bucket is not None:
            bucket.pop(place, None)
        self._changed.add(number)

    def root(self) -> bytes:
        """Return the digest, 32 bytes."""
        parents = set()
        for number in self._changed:
            rows = sorted((self._buckets[number] or {}).items())
            node = _BUCKET_COUNT + number
            self._counts[node] = len(rows)
            self._hashes[node] = _subtree(rows, _BUCKET_BITS)
            parents.add(node >> 1)
        self._changed.clear()
        while parents:
            for node in parents:
                self._join(node)
            parents = {node >> 1 for node in parents if node > 1}
        return self._hashes[1]

    def prove(self, place: bytes) -> tuple[bytes, ...]:
        """Return the siblings from the root down to the row at `place`, or to the leaf or void found in its stead."""
        self.root()
        siblings: list[bytes] = []
        node = 1
        for depth in range(_BUCKET_BITS):
            if self._counts[node] < 2:
                return tuple(siblings)
            side = _bit(place, depth)
            siblings.append(self._hashes[2 * node + 1 - side])
            node = 2 * node + side
        rows = sorted((self._buckets[node - _BUCKET_COUNT] or {}).items())
        _prove(rows, place, _BUCKET_BITS, siblings)
        return tuple(siblings)

    def find_neighbour(self, place: bytes) -> bytes | None:
        """Return the place of the leaf found in the stead of a row that is not there; None for a void."""
        self.root()
        node = 1
        while node < _BUCKET_COUNT and self._counts[node] > 1:
            node = 2 * node + _bit(place, node.bit_length() - 1)
        while node < _BUCKET_COUNT and self._counts[node]:
            node = 2 * node + (0 if self._counts[2 * node] else 1)
        rows = sorted((self._buckets[node - _BUCKET_COUNT] or {}).items()) if node >= _BUCKET_COUNT else []
        found = _prove(rows, place, _BUCKET_BITS, [])
        return None if found == place else found

    def _join(self, node: int) -> None:
        left, right = 2 * node, 2 * node + 1
        self._counts[node] = self._counts[left] + self._counts[right]
        if self._counts[node] > 1:
            self._hashes[node] = _parent(self._hashes[left], self._hashes[right])
        else:
            self._hashes[node] = self._hashes[left] if self._counts[left] else self._hashes[right]


def verify_row(place: bytes, value: bytes, siblings: Sequence[bytes], root: bytes) -> bool:
    """Tell whether a state with digest `root` holds `value` at `place`.

    Args:
        place: 32 bytes, from `position`.
        value: canonical bytes of the row's value.
        siblings: n x 32 bytes, root to leaf, at most 256.
        root: 32 bytes.
    """
    return _is_root(leaf(place, value), place, siblings, root)


def verify_absence(place: bytes, neighbour: tuple[bytes, bytes] | None, siblings: Sequence[bytes], root: bytes) -> bool:
    """Tell whether a state with digest `root` holds nothing at `place`.

    Args:
        place: 32 bytes, from `position`.
        neighbour: (place, SHA-256 of the value) of the leaf found in its stead; None for an empty subtree.
        siblings: n x 32 bytes, root to leaf, at most 256.
        root: 32 bytes.
    """
    if neighbour is None:
        return _is_root(EMPTY, place, siblings, root)
    other, value_hash = neighbour
    if len(other) != len(place) or len(value_hash) != len(EMPTY) or other == place:
        return False
    # The leaf proves something about `place` only if it stands where `place` would stand.
    shares_path = len(siblings) <= 8 * len(place) and all(
        _bit(other, depth) == _bit(place, depth) for depth in range(len(siblings))
    )
    return shares_path and _is_root(_leaf(other, value_hash), place, siblings, root)


def _is_root(current: bytes, place: bytes, siblings: Sequence[bytes], root: bytes) -> bool:
    if len(siblings) > 8 * len(place) or any(len(sibling) != len(EMPTY) for sibling in siblings):
        return False
    for depth in range(len(siblings) - 1, -1, -1):
        pair = (current, siblings[depth]) if _bit(place, depth) == 0 else (siblings[depth], current)
        current = _parent(*pair)
    return current == root


def _leaf(place: bytes, value_hash: bytes) -> bytes:
    return sha256(b"\x00" + place + value_hash).digest()


def _bit(place: bytes, depth: int) -> int:
    return place[depth >> 3] >> (7 - (depth & 7)) & 1


def _parent(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


def _cut(rows: Sequence[tuple[bytes, bytes]], depth: int) -> int:
    """Return how many rows (sorted, equal in their first `depth` bits) have 0 as their next bit."""
    return bisect_left(rows, 1, key=lambda row: _bit(row[0], depth))


def _subtree(rows: Sequence[tuple[bytes, bytes]], depth: int) -> bytes:
    if not rows:
        return EMPTY
    if len(rows) == 1:
        return rows[0][1]
    cut = _cut(rows, depth)
    return _parent(_subtree(rows[:cut], depth + 1), _subtree(rows[cut:], depth + 1))


def _prove(rows: Sequence[tuple[bytes, bytes]], place: bytes, depth: int, siblings: list[bytes]) -> bytes | None:
    """Collect the siblings below `depth` and return the place of the leaf at the end, if there is one."""
    while len(rows) > 1:
        cut = _cut(rows, depth)
        near, far = (rows[:cut], rows[cut:]) if _bit(place, depth) == 0 else (rows[cut:], rows[:cut])
        siblings.append(_subtree(far, depth + 1))
        rows, depth = near, depth + 1
    return rows[0][0] if rows else None
