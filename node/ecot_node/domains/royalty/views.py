# SPDX-License-Identifier: AGPL-3.0-or-later
"""Tables of royalties: subscriptions, periods, reports of use (totals only), statements of holders, earnings of works.

What an institution used, work by work, is not copied here: of a closed period only totals are to stay.
"""

from typing import Final

import msgspec
import sqlalchemy as sa

from ecot_node.domains.rows import Append, Change, DomainViews, Rows
from ecot_node.ledger.port import RecordedEntry
from ecot_protocol.domains.royalty import facts

METADATA: Final = sa.MetaData()

subscriptions = sa.Table(
    "subscriptions",
    METADATA,
    sa.Column("idx", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("subscription", sa.LargeBinary, nullable=False),
    sa.Column("institution", sa.LargeBinary, nullable=False),
    sa.Column("at_ms", sa.Integer, nullable=False),
    sa.Column("from_ms", sa.Integer, nullable=False),
    sa.Column("until_ms", sa.Integer),
    sa.Column("total_minor", sa.Integer, nullable=False),
    sa.Column("unit", sa.Text, nullable=False),
)
sa.Index("subscriptions_by_institution", subscriptions.c.institution, subscriptions.c.idx)

periods = sa.Table(
    "periods",
    METADATA,
    sa.Column("opened_idx", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("period", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("code", sa.Text, nullable=False),
    sa.Column("starts_ms", sa.Integer, nullable=False),
    sa.Column("ends_ms", sa.Integer, nullable=False),
    sa.Column("statutes_version", sa.Integer, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("closed_idx", sa.Integer),
    sa.Column("closed", sa.Text),
    sa.Column("paid_parts", sa.Integer, nullable=False),
)
"""`status`: ``open`` or ``closed``; `closed` is the JSON of the fact `PeriodClosed`; `paid_parts`: slices paid out."""

use_reports = sa.Table(
    "use_reports",
    METADATA,
    sa.Column("idx", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("period", sa.LargeBinary, nullable=False),
    sa.Column("institution", sa.LargeBinary, nullable=False),
    sa.Column("part", sa.Integer, nullable=False),
    sa.Column("work_count", sa.Integer, nullable=False),
    sa.Column("use_count", sa.Integer, nullable=False),
    sa.Column("at_ms", sa.Integer, nullable=False),
)
sa.Index("use_reports_by_period", use_reports.c.period, use_reports.c.idx)

royalty_statements = sa.Table(
    "royalty_statements",
    METADATA,
    sa.Column("period", sa.LargeBinary, primary_key=True),
    sa.Column("holder", sa.LargeBinary, primary_key=True),
    sa.Column("amounts", sa.Text, nullable=False),
    sa.Column("total_minor", sa.Integer, nullable=False),
    sa.Column("unit", sa.Text, nullable=False),
    sa.Column("work_count", sa.Integer, nullable=False),
    sa.Column("use_count", sa.Integer, nullable=False),
    sqlite_with_rowid=False,
)
"""`amounts`: JSON list of [head, amount]."""

work_earnings = sa.Table(
    "work_earnings",
    METADATA,
    sa.Column("period", sa.LargeBinary, primary_key=True),
    sa.Column("work", sa.LargeBinary, primary_key=True),
    sa.Column("head", sa.Text, primary_key=True),
    sa.Column("use_count", sa.Integer, nullable=False),
    sa.Column("amount_minor", sa.Integer, nullable=False),
    sa.Column("unit", sa.Text, nullable=False),
    sqlite_with_rowid=False,
)

holder_earnings = sa.Table(
    "holder_earnings",
    METADATA,
    sa.Column("period", sa.LargeBinary, primary_key=True),
    sa.Column("holder", sa.LargeBinary, primary_key=True),
    sa.Column("work", sa.LargeBinary, primary_key=True),
    sa.Column("head", sa.Text, primary_key=True),
    sa.Column("amount_minor", sa.Integer, nullable=False),
    sqlite_with_rowid=False,
)
"""A holder's part of what a work earned."""

_APPEND_SUBSCRIPTION: Final = Append.into(subscriptions)
_APPEND_PERIOD: Final = Append.into(periods)
_APPEND_REPORT: Final = Append.into(use_reports)
_APPEND_STATEMENT: Final = Append.into(royalty_statements)
_APPEND_EARNING: Final = Append.into(work_earnings)
_APPEND_PART: Final = Append.into(holder_earnings)
_CLOSE: Final = Change.of(
    sa.update(periods)
    .where(periods.c.period == sa.bindparam("which"))
    .values(status="closed", closed_idx=sa.bindparam("at_idx"), closed=sa.bindparam("outcome"))
)
_PAY_OUT: Final = Change.of(
    sa.update(periods).where(periods.c.period == sa.bindparam("which")).values(paid_parts=periods.c.paid_parts + 1)
)


def _subscribe(fact: facts.Subscribed, entry: RecordedEntry, rows: Rows) -> None:
    row = (entry.index, fact.subscription, fact.institution, entry.received_at_ms, fact.from_ms, fact.until_ms)
    rows.append(_APPEND_SUBSCRIPTION, *row, fact.total_minor, fact.unit)


def _open_period(fact: facts.PeriodOpened, entry: RecordedEntry, rows: Rows) -> None:
    row = (entry.index, fact.period, fact.code, fact.starts_ms, fact.ends_ms, fact.statutes_version)
    rows.append(_APPEND_PERIOD, *row, "open", None, None, 0)


def _report(fact: facts.UseReported, entry: RecordedEntry, rows: Rows) -> None:
    uses = sum(count for _, count in fact.counts)
    row = (entry.index, fact.period, fact.institution, fact.part, len(fact.counts), uses, entry.received_at_ms)
    rows.append(_APPEND_REPORT, *row)


def _close_period(fact: facts.PeriodClosed, entry: RecordedEntry, rows: Rows) -> None:
    rows.change(_CLOSE, which=fact.period, at_idx=entry.index, outcome=msgspec.json.encode(fact).decode())


def _state(fact: facts.RoyaltyStatement, _entry: RecordedEntry, rows: Rows) -> None:
    amounts = msgspec.json.encode(fact.amounts).decode()
    row = (fact.period, fact.holder, amounts, fact.total_minor, fact.unit, fact.work_count, fact.use_count)
    rows.append(_APPEND_STATEMENT, *row)


def _earn(fact: facts.WorkEarned, _entry: RecordedEntry, rows: Rows) -> None:
    rows.append(_APPEND_EARNING, fact.period, fact.work, fact.head, fact.use_count, fact.amount_minor, fact.unit)
    for holder, amount_minor in fact.parts:
        rows.append(_APPEND_PART, fact.period, holder, fact.work, fact.head, amount_minor)


def _pay_out(fact: facts.RoyaltiesPaidOut, _entry: RecordedEntry, rows: Rows) -> None:
    rows.change(_PAY_OUT, which=fact.period)


VIEWS: Final = DomainViews(
    tables=METADATA,
    projections={
        facts.Subscribed: _subscribe,
        facts.PeriodOpened: _open_period,
        facts.UseReported: _report,
        facts.PeriodClosed: _close_period,
        facts.RoyaltyStatement: _state,
        facts.WorkEarned: _earn,
        facts.RoyaltiesPaidOut: _pay_out,
    },
    unshown={},
)
