# SPDX-License-Identifier: AGPL-3.0-or-later
"""Tables of trades. A direct transfer is a posting and has no row here.

The trades of a member are found through the index of records (`records.queries.touching`), since opening one concerns
both its parties: no index of this table is touched at random.
"""

from typing import Final

import sqlalchemy as sa

from ecot_node.domains.rows import Append, Change, DomainViews, Projection, Rows
from ecot_node.ledger.port import RecordedEntry
from ecot_protocol.domains.trade import facts

METADATA: Final = sa.MetaData()

trades = sa.Table(
    "trades",
    METADATA,
    sa.Column("opened_idx", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("trade", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("seller", sa.LargeBinary, nullable=False),
    sa.Column("buyer", sa.LargeBinary, nullable=False),
    sa.Column("unit", sa.Text, nullable=False),
    sa.Column("barter_minor", sa.Integer, nullable=False),
    sa.Column("euro_minor", sa.Integer, nullable=False),
    sa.Column("net_minor", sa.Integer, nullable=False),
    sa.Column("vat_minor", sa.Integer, nullable=False),
    sa.Column("commission_minor", sa.Integer, nullable=False),
    sa.Column("commission_unit", sa.Text, nullable=False),
    sa.Column("expires_at_ms", sa.Integer, nullable=False),
    sa.Column("deliver_by_ms", sa.Integer, nullable=False),
    sa.Column("reversible_until_ms", sa.Integer),
    sa.Column("statutes_version", sa.Integer, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
)
"""`status`: ``proposed``, ``accepted``, ``confirmed``, ``refused``, ``lapsed`` or ``reversed``."""

trade_steps = sa.Table(
    "trade_steps",
    METADATA,
    sa.Column("trade", sa.LargeBinary, primary_key=True),
    sa.Column("idx", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("at_ms", sa.Integer, nullable=False),
    sa.Column("by", sa.LargeBinary),
    sqlite_with_rowid=False,
)
"""How a trade came to its status; `by` is the author of the entry, NULL for the node."""

_APPEND_TRADE: Final = Append.into(trades)
_APPEND_STEP: Final = Append.into(trade_steps)
_SET_STATUS: Final = Change.of(
    sa.update(trades)
    .where(trades.c.trade == sa.bindparam("which"))
    .values(
        status=sa.bindparam("new_status"),
        deliver_by_ms=sa.func.coalesce(sa.bindparam("deliver_by"), trades.c.deliver_by_ms),
        reversible_until_ms=sa.func.coalesce(sa.bindparam("reversible_until"), trades.c.reversible_until_ms),
    )
)


def _propose(fact: facts.TradeProposed, entry: RecordedEntry, rows: Rows) -> None:
    rows.append(
        _APPEND_TRADE,
        entry.index,
        fact.trade,
        fact.seller,
        fact.buyer,
        fact.unit,
        fact.barter_minor,
        fact.euro_minor,
        fact.net_minor,
        fact.vat_minor,
        fact.commission_minor,
        fact.commission_unit,
        fact.expires_at_ms,
        fact.deliver_by_ms,
        None,
        fact.statutes_version,
        "proposed",
    )
    _add_step(fact, entry, rows, "proposed")


def _add_step(fact: facts.TradeFact, entry: RecordedEntry, rows: Rows, status: str) -> None:
    rows.append(_APPEND_STEP, fact.trade, entry.index, status, entry.received_at_ms, entry.author)


def _accept(fact: facts.TradeAccepted, entry: RecordedEntry, rows: Rows) -> None:
    _set_status(fact, entry, rows, "accepted", deliver_by=fact.deliver_by_ms)


def _confirm(fact: facts.TradeConfirmed, entry: RecordedEntry, rows: Rows) -> None:
    _set_status(fact, entry, rows, "confirmed", reversible_until=fact.reversible_until_ms)


def _ends_as(status: str) -> Projection:
    def project(fact: facts.TradeFact, entry: RecordedEntry, rows: Rows) -> None:
        _set_status(fact, entry, rows, status)

    return project


def _set_status(
    fact: facts.TradeFact,
    entry: RecordedEntry,
    rows: Rows,
    status: str,
    *,
    deliver_by: int | None = None,
    reversible_until: int | None = None,
) -> None:
    rows.change(
        _SET_STATUS,
        which=fact.trade,
        new_status=status,
        deliver_by=deliver_by,
        reversible_until=reversible_until,
    )
    _add_step(fact, entry, rows, status)


VIEWS: Final = DomainViews(
    tables=METADATA,
    projections={
        facts.TradeProposed: _propose,
        facts.TradeAccepted: _accept,
        facts.TradeConfirmed: _confirm,
        facts.TradeRefused: _ends_as("refused"),
        facts.TradeLapsed: _ends_as("lapsed"),
        facts.TradeReversed: _ends_as("reversed"),
    },
    unshown={},
)
