# SPDX-License-Identifier: AGPL-3.0-or-later
"""The roll of a poll: who may vote and in which college, frozen when the poll is opened.

A roll takes 17 bytes a member (100,000 members: 1.7 MB), and polls opened while the register did not change share one,
for it is kept under its hash. A member who joins later has no vote in the poll; one who leaves stays on the roll, so
that the quorum keeps its base.

>>> roll = make_roll([(b"b" * 16, "users"), (b"a" * 16, "workers")], order=("workers", "users"))
>>> roll.colleges, roll.size, college_of(roll, b"b" * 16), college_of(roll, b"c" * 16)
(('workers', 'users'), 2, 'users', None)
"""

from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from typing import Final

from ecot_protocol.wire.encoding import Wire, Word, encode
from ecot_protocol.wire.ids import ID_SIZE_BYTES

MAX_ELECTORS: Final = 100_000
"""Members of one roll: 1.7 MB of state."""
MAX_ROLL_COLLEGES: Final = 256


class Roll(Wire):
    """Electors in ascending order of their ids.

    Attributes:
        colleges: codes; a member's college is given by its place here, at most `MAX_ROLL_COLLEGES`.
        members: n x 16 bytes, ascending.
        numbers: n x 1 byte: the place of each member's college.
    """

    colleges: tuple[Word, ...]
    members: bytes
    numbers: bytes

    @property
    def size(self) -> int:
        """How many electors there are."""
        return len(self.numbers)


def make_roll(electors: Iterable[tuple[bytes, str]], order: Sequence[str]) -> Roll:
    """Freeze the electors.

    Args:
        electors: (member, college), in any order; a client takes them from the records before the poll's.
        order: the statutes' colleges; a college that they no longer have comes after them, in alphabetical order.
    """
    rows = sorted(electors)
    others = sorted({college for _, college in rows} - {*order})
    colleges = (*order, *others)
    places = {college: place for place, college in enumerate(colleges)}
    return Roll(
        colleges=colleges,
        members=b"".join(member for member, _ in rows),
        numbers=bytes(places[college] for _, college in rows),
    )


def roll_hash(roll: Roll) -> bytes:
    """Return the 32 bytes that name the roll in the poll's fact."""
    return sha256(b"ecot/roll/v1\n" + encode(roll)).digest()


def find_place(roll: Roll, member: bytes) -> int | None:
    """Return the place of the member's college in `roll.colleges`, or None if the member has no vote."""
    low, high = 0, roll.size
    while low < high:
        middle = (low + high) // 2
        if _member_at(roll, middle) < member:
            low = middle + 1
        else:
            high = middle
    return roll.numbers[low] if low < roll.size and _member_at(roll, low) == member else None


def college_of(roll: Roll, member: bytes) -> str | None:
    """Return the member's college, or None if the member has no vote."""
    place = find_place(roll, member)
    return None if place is None else roll.colleges[place]


def count_electors(roll: Roll) -> tuple[int, ...]:
    """Return how many electors each college has, in the order of `roll.colleges`."""
    return tuple(roll.numbers.count(place) for place in range(len(roll.colleges)))


def members_of(roll: Roll) -> Iterator[bytes]:
    """Yield the electors in ascending order."""
    return (_member_at(roll, number) for number in range(roll.size))


def _member_at(roll: Roll, number: int) -> bytes:
    return roll.members[number * ID_SIZE_BYTES : (number + 1) * ID_SIZE_BYTES]
