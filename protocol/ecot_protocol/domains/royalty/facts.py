# SPDX-License-Identifier: AGPL-3.0-or-later
"""Facts of royalties."""

from ecot_protocol.ledger.facts import Fact


class Subscribed(Fact):
    """An institution subscribed to the catalogue and owes `total_minor` (a posting goes with it)."""

    subscription: bytes
    institution: bytes
    from_ms: int
    until_ms: int | None
    total_minor: int
    unit: str


class PeriodOpened(Fact):
    """Use can be reported for a period; its revenue will be shared by the heads of `statutes_version`."""

    period: bytes
    code: str
    starts_ms: int
    ends_ms: int
    statutes_version: int


class UseReported(Fact):
    """A part of an institution's use in a period: (work, count) pairs in ascending order of works."""

    period: bytes
    institution: bytes
    part: int
    counts: tuple[tuple[bytes, int], ...]


class PeriodClosed(Fact):
    """A period's revenue was shared.

    Attributes:
        period: its id; `code` is its name.
        revenue_minor: taken from the subscriptions, all heads together; in `unit`.
        heads: (code, kind, amount) of each head; they sum to the revenue.
        carried_minor: what could not be shared (no use, or no work) and stayed with the subscriptions.
        work_count: works in the catalogue at the period's end.
        use_count: use of all works.
        holder_count: rights-holders who get something.
        part_count: slices that their sums are paid out in; the first with the closing.
    """

    period: bytes
    code: str
    revenue_minor: int
    unit: str
    heads: tuple[tuple[str, str, int], ...]
    carried_minor: int
    work_count: int
    use_count: int
    holder_count: int
    part_count: int


class WorkEarned(Fact):
    """What a work earned under a head in a period, by its use there, and what each holder gets of it."""

    period: bytes
    work: bytes
    head: str
    use_count: int
    amount_minor: int
    unit: str
    parts: tuple[tuple[bytes, int], ...]


class RoyaltyStatement(Fact):
    """What a rights-holder gets for a period: (head, amount) pairs, each the sum of its parts in `WorkEarned`."""

    period: bytes
    holder: bytes
    amounts: tuple[tuple[str, int], ...]
    total_minor: int
    unit: str
    work_count: int
    use_count: int


class RoyaltiesPaidOut(Fact):
    """A slice of a period's royalties is credited to its holders (postings go with it)."""

    period: bytes
    part: int
    holder_count: int
    total_minor: int
    unit: str
