# SPDX-License-Identifier: AGPL-3.0-or-later
"""Tables of the federation: transfers to and from other ledgers, clearing rounds. Peers are read from the state."""

from typing import Final

import sqlalchemy as sa

from ecot_node.domains.rows import Append, Change, DomainViews, Rows
from ecot_node.ledger.port import RecordedEntry
from ecot_protocol.domains.federation import facts

METADATA: Final = sa.MetaData()

transfers = sa.Table(
    "transfers",
    METADATA,
    sa.Column("opened_idx", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("tid", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("member", sa.LargeBinary, nullable=False, index=True),
    sa.Column("partner", sa.LargeBinary, nullable=False),
    sa.Column("unit", sa.Text, nullable=False),
    sa.Column("amount_minor", sa.Integer, nullable=False),
    sa.Column("partner_unit", sa.Text, nullable=False),
    sa.Column("partner_amount_minor", sa.Integer, nullable=False),
    sa.Column("earliest_abort_ms", sa.Integer, nullable=False),
    sa.Column("opened_at_ms", sa.Integer, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("resolved_idx", sa.Integer),
)
"""`role`: ``payer`` or ``payee``; `status`: ``pending``, ``commit``, ``abort`` or ``doubtful``."""

clearings = sa.Table(
    "clearings",
    METADATA,
    sa.Column("opened_idx", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("tid", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("unit", sa.Text, nullable=False),
    sa.Column("opened_at_ms", sa.Integer, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("resolved_idx", sa.Integer),
)

clearing_parts = sa.Table(
    "clearing_parts",
    METADATA,
    sa.Column("tid", sa.LargeBinary, primary_key=True),
    sa.Column("partner", sa.LargeBinary, primary_key=True),
    sa.Column("amount_minor", sa.Integer, nullable=False),
    sqlite_with_rowid=False,
)
"""What a round clears with each partner; positive if we owed it."""

_APPEND_TRANSFER: Final = Append.into(transfers)
_APPEND_CLEARING: Final = Append.into(clearings)
_APPEND_PART: Final = Append.into(clearing_parts)


def _set_status(table: sa.Table) -> Change:
    return Change.of(
        sa.update(table)
        .where(table.c.tid == sa.bindparam("which"))
        .values(status=sa.bindparam("new_status"), resolved_idx=sa.bindparam("resolved"))
    )


_SET_TRANSFER: Final = _set_status(transfers)
_SET_CLEARING: Final = _set_status(clearings)


def _reserve(fact: facts.TransferReserved, entry: RecordedEntry, rows: Rows) -> None:
    rows.append(
        _APPEND_TRANSFER,
        entry.index,
        fact.tid,
        fact.role,
        fact.member,
        fact.partner,
        fact.unit,
        fact.amount_minor,
        fact.partner_unit,
        fact.partner_amount_minor,
        fact.earliest_abort_ms,
        entry.received_at_ms,
        "pending",
        None,
    )


def _accept(fact: facts.RoundAccepted, entry: RecordedEntry, rows: Rows) -> None:
    rows.append(_APPEND_CLEARING, entry.index, fact.tid, fact.unit, entry.received_at_ms, "pending", None)
    for partner, amount_minor in fact.cleared:
        rows.append(_APPEND_PART, fact.tid, partner, amount_minor)


def _resolve(fact: facts.DealResolved, entry: RecordedEntry, rows: Rows) -> None:
    change = _SET_CLEARING if fact.role == "clearing" else _SET_TRANSFER
    rows.change(change, which=fact.tid, new_status=fact.outcome, resolved=entry.index)


def _doubt(fact: facts.DealDoubtful, entry: RecordedEntry, rows: Rows) -> None:
    rows.change(_SET_TRANSFER, which=fact.tid, new_status="doubtful", resolved=entry.index)


VIEWS: Final = DomainViews(
    tables=METADATA,
    projections={
        facts.TransferReserved: _reserve,
        facts.RoundAccepted: _accept,
        facts.DealResolved: _resolve,
        facts.DealDoubtful: _doubt,
    },
    unshown={
        facts.PeeringRecorded: "peers are read from the state",
        facts.PeeringEnded: "peers are read from the state",
        facts.PeeringSuspended: "peers are read from the state",
        facts.PeeringResumed: "peers are read from the state",
        facts.DealDecided: "what counts for a member is the resolution",
    },
)
