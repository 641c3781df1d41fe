# SPDX-License-Identifier: AGPL-3.0-or-later
"""Facts of the catalogue."""

from ecot_protocol.ledger.facts import Fact


class WorkRegistered(Fact):
    """A work is in the catalogue.

    Attributes:
        work: its id.
        kind: ``book``, ``comic``, ``game`` or ``music``.
        identifiers: (scheme, value) pairs.
        holders: (member, share in basis points) pairs; they sum to 10,000.
        place: its place in the batch that registered it, from 0 (the place of its title in the batch's attachment);
            None if it was registered alone.
    """

    work: bytes
    kind: str
    identifiers: tuple[tuple[str, str], ...]
    holders: tuple[tuple[bytes, int], ...]
    place: int | None


class SplitsChanged(Fact):
    """A work's rights-holders agreed to other shares: (member, share in basis points) pairs."""

    work: bytes
    holders: tuple[tuple[bytes, int], ...]


class WorkWithdrawn(Fact):
    """A work is no longer in the catalogue; `by` is one of its rights-holders, or the board."""

    work: bytes
    by: bytes
