# SPDX-License-Identifier: AGPL-3.0-or-later
"""The port of the reconciler: what this ledger posted with each partner, deal by deal, as of one record."""

from collections.abc import Collection
from typing import NamedTuple, Protocol

from ecot_protocol.domains.federation.mirrors import Asked, Claim, MirrorLists, MirrorRow, Move


class Waiting(NamedTuple):
    """Deals that wait for their decision with a partner, as of `size` records."""

    size: int
    pending: tuple[bytes, ...]


class Held(NamedTuple):
    """What our account of a partner holds, as of `size` records."""

    size: int
    balance_minor: int
    reserved_in_minor: int
    reserved_out_minor: int
    lists: MirrorLists


class Compared(NamedTuple):
    """What our records say of the partner's account of us: see `mirrors.compare`."""

    size: int
    posted_minor: int
    rows: dict[bytes, MirrorRow]


class MovePage(NamedTuple):
    """Deals posted to our account of a partner, in the order of their records; `more_from` is None at the end."""

    size: int
    moves: tuple[Move, ...]
    more_from: int | None


class MirrorBook(Protocol):
    """Deals with partners, by record. `partner` is a ledger id, 32 bytes."""

    async def waiting(self, partner: bytes) -> Waiting:
        """Return what waits; at most one more than can be listed."""
        ...

    async def held(self, partner: bytes, pending: Collection[bytes], since: int) -> Held:
        """Answer a partner's question: the deals it asks for, and what was resolved from `since` on."""
        ...

    async def compared(self, partner: bytes, claim: Claim, asked: Asked) -> Compared:
        """Return what `mirrors.compare` needs to judge a claim."""
        ...

    async def moves(self, partner: bytes, start: int) -> MovePage:
        """Return a page of what was posted by records from `start` on."""
        ...

    async def posted(self, partner: bytes, start: int, tids: Collection[bytes]) -> dict[bytes, MirrorRow]:
        """Return the deals that were posted by records from `start` on, and those with these ids."""
        ...

    async def resolutions(self, partner: bytes, tids: Collection[bytes]) -> dict[bytes, int]:
        """Return tid -> index of the record that resolved it."""
        ...

    async def is_resolution(self, partner: bytes, index: int) -> bool:
        """Tell whether the record at `index` resolved a deal with the partner."""
        ...


__all__ = ["Compared", "Held", "MirrorBook", "MovePage", "Waiting"]
