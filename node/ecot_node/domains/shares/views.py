# SPDX-License-Identifier: AGPL-3.0-or-later
"""Tables of shares: subscriptions, the register of movements, and what each member holds by it."""

from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from ecot_node.domains.rows import Append, Change, DomainViews, Rows
from ecot_node.ledger.port import RecordedEntry
from ecot_protocol.domains.shares import facts

METADATA: Final = sa.MetaData()

share_subscriptions = sa.Table(
    "share_subscriptions",
    METADATA,
    sa.Column("idx", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("subscription", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("member", sa.LargeBinary, nullable=False),
    sa.Column("share_count", sa.Integer, nullable=False),
    sa.Column("price_minor", sa.Integer, nullable=False),
    sa.Column("unit", sa.Text, nullable=False),
    sa.Column("subscribed_at_ms", sa.Integer, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("status_at_ms", sa.Integer, nullable=False),
)
"""`status`: ``subscribed``, ``issued`` or ``cancelled``."""
sa.Index("share_subscriptions_by_member", share_subscriptions.c.member, share_subscriptions.c.idx)

share_movements = sa.Table(
    "share_movements",
    METADATA,
    sa.Column("movement", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("idx", sa.Integer, nullable=False),
    sa.Column("at_ms", sa.Integer, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("member", sa.LargeBinary, nullable=False),
    sa.Column("first", sa.Integer, nullable=False),
    sa.Column("last", sa.Integer, nullable=False),
    sa.Column("price_minor", sa.Integer, nullable=False),
    sa.Column("unit", sa.Text, nullable=False),
    sa.Column("subscription", sa.LargeBinary),
)
"""The register. `kind`: ``issue`` or ``redemption``."""
sa.Index("share_movements_by_member", share_movements.c.member, share_movements.c.movement)

share_holdings = sa.Table(
    "share_holdings",
    METADATA,
    sa.Column("holding", sa.Integer, primary_key=True),
    sa.Column("member", sa.LargeBinary, nullable=False),
    sa.Column("unit", sa.Text, nullable=False),
    sa.Column("share_count", sa.Integer, nullable=False),
    sa.Column("capital_minor", sa.Integer, nullable=False),
    sa.UniqueConstraint("member", "unit"),
)
"""A row stays, with zeros, when the shares are gone."""

_APPEND_SUBSCRIPTION: Final = Append.into(share_subscriptions)
_APPEND_MOVEMENT: Final = Append.into(share_movements)
_SET_STATUS: Final = Change.of(
    sa.update(share_subscriptions)
    .where(share_subscriptions.c.subscription == sa.bindparam("which"))
    .values(status=sa.bindparam("new_status"), status_at_ms=sa.bindparam("at_ms"))
)
_new_holding = insert(share_holdings).values(
    member=sa.bindparam("whose"),
    unit=sa.bindparam("in_unit"),
    share_count=sa.bindparam("count"),
    capital_minor=sa.bindparam("capital"),
)
_ADD_HOLDING: Final = Change.of(
    _new_holding.on_conflict_do_update(
        index_elements=["member", "unit"],
        set_={
            "share_count": share_holdings.c.share_count + _new_holding.excluded.share_count,
            "capital_minor": share_holdings.c.capital_minor + _new_holding.excluded.capital_minor,
        },
    )
)


def _subscribe(fact: facts.SharesSubscribed, entry: RecordedEntry, rows: Rows) -> None:
    at_ms = entry.received_at_ms
    row = (entry.index, fact.subscription, fact.member, fact.count, fact.price_minor, fact.unit)
    rows.append(_APPEND_SUBSCRIPTION, *row, at_ms, "subscribed", at_ms)


def _cancel(fact: facts.SubscriptionCancelled, entry: RecordedEntry, rows: Rows) -> None:
    rows.change(_SET_STATUS, which=fact.subscription, new_status="cancelled", at_ms=entry.received_at_ms)


def _issue(fact: facts.SharesIssued, entry: RecordedEntry, rows: Rows) -> None:
    rows.change(_SET_STATUS, which=fact.subscription, new_status="issued", at_ms=entry.received_at_ms)
    _move(fact, entry, rows, kind="issue", sign=1, subscription=fact.subscription)


def _redeem(fact: facts.SharesRedeemed, entry: RecordedEntry, rows: Rows) -> None:
    _move(fact, entry, rows, kind="redemption", sign=-1, subscription=None)


def _move(
    fact: facts.SharesIssued | facts.SharesRedeemed,
    entry: RecordedEntry,
    rows: Rows,
    *,
    kind: str,
    sign: int,
    subscription: bytes | None,
) -> None:
    numbers = (fact.first, fact.last, fact.price_minor, fact.unit)
    row = (fact.movement, entry.index, entry.received_at_ms, kind, fact.member)
    rows.append(_APPEND_MOVEMENT, *row, *numbers, subscription)
    count = sign * (fact.last - fact.first + 1)
    rows.change(_ADD_HOLDING, whose=fact.member, in_unit=fact.unit, count=count, capital=count * fact.price_minor)


VIEWS: Final = DomainViews(
    tables=METADATA,
    projections={
        facts.SharesSubscribed: _subscribe,
        facts.SubscriptionCancelled: _cancel,
        facts.SharesIssued: _issue,
        facts.SharesRedeemed: _redeem,
    },
    unshown={},
)
