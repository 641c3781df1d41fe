# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the rules remember of royalties: open periods, use reported in them, sums still to be paid out.

Retirement: the use and the reports of a period go when it is closed (what stays of use is in the facts of the closing,
one total a work); a slice of sums due goes when it is paid out. Of a closed period, code and end stay, for neither can
be taken again. Who has subscribed stays: a later report may be of any period that is open.
"""

from typing import Annotated, Final, NamedTuple, Protocol

import msgspec

from ecot_protocol.domains.catalogue.state import CatalogueSlice
from ecot_protocol.domains.coop.state import CoopSlice
from ecot_protocol.domains.membership.state import MembershipSlice
from ecot_protocol.ledger.accounts import Accounts
from ecot_protocol.ledger.table import Table
from ecot_protocol.wire.encoding import Count, Id, Positive, UnitCode, Wire, WireArray, Word

SUBSCRIPTIONS: Final = "subscriptions"
"""Purpose of the cooperative's account of subscription revenue that has not been shared."""
ROYALTIES: Final = "royalties"
"""Purpose of the cooperative's account of what closed periods owe to rights-holders and has not been paid out."""
USE_SCOPE: Final = "use"
"""Scope of a mandate to report use for an institution."""
SUBSCRIBE_SCOPE: Final = "subscribe"
"""Scope of a mandate to subscribe for an institution."""
MAX_ROWS_PER_REPORT: Final = 2_000
MAX_USE_PER_ROW: Final = 1_000_000_000
"""Most use of one work in one report, so that nobody can fill a work's total and shut out what others report."""
PAYOUT_HOLDERS: Final = 500
"""Rights-holders paid by one entry: with 16 heads, 8,000 of the 10,000 legs of a group."""


class UseCount(WireArray):
    """Use of a work: `count` is from 1."""

    work: Id
    count: Annotated[int, msgspec.Meta(ge=1, le=MAX_USE_PER_ROW)]


UseCounts = Annotated[tuple[UseCount, ...], msgspec.Meta(min_length=1, max_length=MAX_ROWS_PER_REPORT)]


class Period(Wire):
    """An open period, from `starts_ms` to before `ends_ms`, shared by the heads of `statutes_version`."""

    code: Word
    ends_ms: Count
    starts_ms: Count
    statutes_version: Positive


class UseKey(NamedTuple):
    """A work in a period."""

    period: Id
    work: Id


class ReportKey(NamedTuple):
    """A part of an institution's report on a period."""

    period: Id
    institution: Id
    part: Positive


class Subscribed(Wire):
    """From when until when an institution has subscribed, all its subscriptions together (None: without end)."""

    from_ms: Count
    until_ms: Count | None


class DueKey(NamedTuple):
    """A slice of the sums due for a closed period; slices are numbered from 1."""

    period: Id
    part: Positive


class DueRow(WireArray):
    """What is due to a rights-holder under each shared head of the period."""

    holder: Id
    amounts_minor: tuple[Count, ...]


class Due(Wire):
    """A slice of the sums due. `heads` are codes and `kinds` their kinds, in the order of the amounts."""

    heads: tuple[Word, ...]
    kinds: tuple[Word, ...]
    rows: tuple[DueRow, ...]
    unit: UnitCode


class RoyaltySlice:
    """State of the domain."""

    __slots__ = ("codes", "due", "periods", "reports", "subscribers", "uses")

    def __init__(self) -> None:
        self.periods: Table[bytes, Period] = Table("royalty.periods", bytes, Period)
        self.codes: Table[str, Count] = Table("royalty.codes", str, Count)
        self.uses: Table[UseKey, Count] = Table("royalty.uses", UseKey, Count)
        self.reports: Table[ReportKey, Count] = Table("royalty.reports", ReportKey, Count)
        self.due: Table[DueKey, Due] = Table("royalty.due", DueKey, Due)
        self.subscribers: Table[bytes, Subscribed] = Table("royalty.subscribers", Id, Subscribed)

    def tables(self) -> tuple[Table[object, object], ...]:
        """Return the tables that the state digest covers."""
        return (self.periods, self.codes, self.uses, self.reports, self.due, self.subscribers)  # type: ignore[return-value]

    def uses_of(self, period: bytes) -> dict[bytes, int]:
        """Return work -> use reported in an open period so far."""
        return {key.work: count for key, count in self.uses.items() if key.period == period}

    def subscribe(self, institution: bytes, from_ms: int, until_ms: int | None) -> None:
        """Widen what an institution has subscribed to."""
        old = self.subscribers.get(institution)
        if old is not None:
            from_ms = min(from_ms, old.from_ms)
            until_ms = None if until_ms is None or old.until_ms is None else max(until_ms, old.until_ms)
        self.subscribers[institution] = Subscribed(from_ms=from_ms, until_ms=until_ms)

    def is_subscriber(self, institution: bytes, period: Period) -> bool:
        """Tell whether an institution has subscribed to some of the period."""
        span = self.subscribers.get(institution)
        if span is None or span.from_ms >= period.ends_ms:
            return False
        return span.until_ms is None or span.until_ms > period.starts_ms

    def retire(self, period: bytes) -> None:
        """Forget a period that was closed, with its use and reports."""
        for use in [key for key in self.uses if key.period == period]:
            del self.uses[use]
        for report in [key for key in self.reports if key.period == period]:
            del self.reports[report]
        del self.periods[period]


class RoyaltyState(Protocol):
    """What the acts of this domain read and change."""

    coop: CoopSlice
    membership: MembershipSlice
    accounts: Accounts
    catalogue: CatalogueSlice
    royalty: RoyaltySlice
