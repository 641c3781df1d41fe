# SPDX-License-Identifier: AGPL-3.0-or-later
"""The sharing of a period's revenue: pure, exact to the last minor unit, and the same in whatever order it is told.

Every step is a split by largest remainder (`ledger.amounts.split`), whose ties fall by a hash of the period with the
id of the head, work or holder, so that no one is favoured in every period:

1. the revenue among the heads, by their rates;
2. a head of kind ``reference`` equally among the works of the catalogue; one of kind ``use`` among works in proportion
   to their use; one of kind ``own`` goes to the cooperative's account of that name;
3. what a work got of a head, among its holders by their shares.

What can't be shared stays where it was, with the subscriptions, for a later period: a ``use`` head if nothing was
used, a ``reference`` head if there is no work. It is never given by reference instead: by the statutes, a work that
was not used takes part by reference alone.

>>> heads = (RoyaltyHead(code="fixed", kind="reference", rate=Rate(denominator=4, numerator=1)),
...          RoyaltyHead(code="variable", kind="use", rate=Rate(denominator=4, numerator=3)))
>>> one, two, ada = b"1" * 16, b"2" * 16, b"a" * 16
>>> sharing = share_revenue(b"p" * 16, 1_000, heads, {one: ((ada, 10_000),), two: ((ada, 10_000),)}, {one: 1, two: 2},
...                         referenced=(one, two))
>>> [(line.head, line.amount_minor) for line in sharing.lines]
[('fixed', 125), ('fixed', 125), ('variable', 250), ('variable', 500)]
>>> sharing.holders[ada].amounts_minor, sharing.carried_minor
((250, 750), 0)
"""

from collections.abc import Collection, Mapping, Sequence
from math import lcm

import msgspec

from ecot_protocol.domains.coop.statutes import RoyaltyHead
from ecot_protocol.ledger.amounts import Rate, split

__all__ = ["HolderTotals", "Line", "Rate", "RoyaltyHead", "Sharing", "share_revenue", "split_heads"]

Split = tuple[tuple[bytes, int], ...]
"""(member, share in basis points) of each rights-holder of a work."""


class Line(msgspec.Struct, frozen=True, gc=False):
    """What a work earned under a head (from 1), and how much of it each holder gets (from 0; they sum to it)."""

    work: bytes
    head: str
    amount_minor: int
    parts: tuple[tuple[bytes, int], ...]


class HolderTotals(msgspec.Struct, frozen=True):
    """What a rights-holder gets.

    Attributes:
        amounts_minor: under each shared head, in the order of `Sharing.shared_heads`.
        work_count: works that the holder has a share of and that took part.
        use_count: use of these works.
    """

    amounts_minor: tuple[int, ...]
    work_count: int
    use_count: int


class Sharing(msgspec.Struct, frozen=True):
    """A period's revenue, shared. `carried_minor` + own + holders' amounts = the revenue.

    Attributes:
        heads_minor: head -> its part of the revenue.
        shared_heads: codes of the heads that go to works.
        own_minor: head -> what the cooperative keeps under its name.
        carried_minor: what nobody could be given.
        lines: by head in the order of the statutes, then by work in ascending order.
        holders: member -> totals, in ascending order of members.
    """

    heads_minor: dict[str, int]
    shared_heads: tuple[str, ...]
    own_minor: dict[str, int]
    carried_minor: int
    lines: tuple[Line, ...]
    holders: dict[bytes, HolderTotals]


def split_heads(period: bytes, revenue_minor: int, heads: Sequence[RoyaltyHead]) -> dict[str, int]:
    """Split the revenue among the heads, whose rates sum to 1."""
    common = lcm(*(head.rate.denominator for head in heads))
    weights = {
        period + head.code.encode("ascii"): head.rate.numerator * (common // head.rate.denominator) for head in heads
    }
    return {key[len(period) :].decode("ascii"): part for key, part in split(revenue_minor, weights).items()}


def share_revenue(
    period: bytes,
    revenue_minor: int,
    heads: Sequence[RoyaltyHead],
    works: Mapping[bytes, Split],
    uses: Mapping[bytes, int],
    *,
    referenced: Collection[bytes],
) -> Sharing:
    """Share a period's revenue; linear in the works but for sorting.

    Args:
        period: its id, 16 bytes.
        revenue_minor: from 0.
        heads: of the statutes in force when the period was opened.
        works: work -> its holders when the period is closed; every work of `uses` and of `referenced` is in it.
        uses: work -> use in the period, from 0, all institutions together.
        referenced: works that were in the catalogue at the period's end, each once.
    """
    heads_minor = split_heads(period, revenue_minor, heads)
    carried_minor = 0
    lines: list[Line] = []
    bases = {"reference": dict.fromkeys(sorted(referenced), 1), "use": {work: uses[work] for work in sorted(uses)}}
    for head in heads:
        if head.kind == "own":
            continue
        if any(bases[head.kind].values()):
            lines += _share_head(period, head.code, heads_minor[head.code], bases[head.kind], works)
        else:
            carried_minor += heads_minor[head.code]
    shared = tuple(head.code for head in heads if head.kind != "own")
    return Sharing(
        heads_minor=heads_minor,
        shared_heads=shared,
        own_minor={head.code: heads_minor[head.code] for head in heads if head.kind == "own"},
        carried_minor=carried_minor,
        lines=tuple(lines),
        holders=_total(shared, lines, works, uses, {*referenced} | {work for work, count in uses.items() if count}),
    )


def _share_head(
    period: bytes, head: str, amount_minor: int, weights: Mapping[bytes, int], works: Mapping[bytes, Split]
) -> list[Line]:
    # The head is part of the tie's hash too: whoever gets the odd cent of one head is not bound to get the other's.
    salt = period + head.encode("ascii")
    amounts = split(amount_minor, {salt + work: weight for work, weight in weights.items()})
    return [
        Line(work, head, amount, _share_work(salt, work, amount, works[work]))
        for work, amount in zip(weights, amounts.values(), strict=True)
        if amount
    ]


def _share_work(salt: bytes, work: bytes, amount_minor: int, holders: Split) -> tuple[tuple[bytes, int], ...]:
    if len(holders) == 1:
        return ((holders[0][0], amount_minor),)
    parts = split(amount_minor, {salt + work + member: share_bp for member, share_bp in holders})
    return tuple((member, part) for (member, _), part in zip(holders, parts.values(), strict=True))


def _total(
    shared: Sequence[str],
    lines: Sequence[Line],
    works: Mapping[bytes, Split],
    uses: Mapping[bytes, int],
    taking_part: Collection[bytes],
) -> dict[bytes, HolderTotals]:
    amounts: dict[bytes, list[int]] = {}
    counts: dict[bytes, list[int]] = {}
    for work in taking_part:
        for member, _ in works[work]:
            count = counts.setdefault(member, [0, 0])
            count[0] += 1
            count[1] += uses.get(work, 0)
    places = {head: place for place, head in enumerate(shared)}
    for line in lines:
        for member, part in line.parts:
            amounts.setdefault(member, [0] * len(shared))[places[line.head]] += part
    return {
        member: HolderTotals(tuple(amounts.get(member, [0] * len(shared))), *counts[member])
        for member in sorted(counts)
    }
