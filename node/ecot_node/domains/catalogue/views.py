# SPDX-License-Identifier: AGPL-3.0-or-later
"""Tables of the catalogue: works, and who holds the rights. Titles are attachments, read from the store when asked for.

A work's sequence is its record's index shifted left by `PLACE_BITS`, plus its place in the batch that registered it.
"""

from typing import Final

import msgspec
import sqlalchemy as sa

from ecot_node.domains.rows import Append, Change, DomainViews, Rows
from ecot_node.ledger.port import RecordedEntry
from ecot_protocol.domains.catalogue import facts

METADATA: Final = sa.MetaData()
PLACE_BITS: Final = 20

works = sa.Table(
    "works",
    METADATA,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("work", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("identifiers", sa.Text, nullable=False),
    sa.Column("place", sa.Integer),
    sa.Column("since_ms", sa.Integer, nullable=False),
    sa.Column("withdrawn_at_ms", sa.Integer),
    sa.Column("withdrawn_by", sa.LargeBinary),
)
"""`identifiers`: JSON list of [scheme, value]; `place` in the batch, NULL if it was registered alone."""

work_holders = sa.Table(
    "work_holders",
    METADATA,
    sa.Column("work", sa.LargeBinary, primary_key=True),
    sa.Column("member", sa.LargeBinary, primary_key=True),
    sa.Column("share_bp", sa.Integer, nullable=False),
    sqlite_with_rowid=False,
)
sa.Index("work_holders_by_member", work_holders.c.member)

_APPEND_WORK: Final = Append.into(works)
_APPEND_HOLDER: Final = Append.into(work_holders)
_PUT_HOLDER: Final = Change.put(work_holders)
_END_HOLDERS: Final = Change.of(sa.delete(work_holders).where(work_holders.c.work == sa.bindparam("which")))
_WITHDRAW: Final = Change.of(
    sa.update(works)
    .where(works.c.work == sa.bindparam("which"))
    .values(withdrawn_at_ms=sa.bindparam("at_ms"), withdrawn_by=sa.bindparam("who"))
)


def _register(fact: facts.WorkRegistered, entry: RecordedEntry, rows: Rows) -> None:
    seq = entry.index << PLACE_BITS | (fact.place or 0)
    identifiers = msgspec.json.encode(fact.identifiers).decode()
    row = (seq, fact.work, fact.kind, identifiers, fact.place, entry.received_at_ms, None, None)
    rows.append(_APPEND_WORK, *row)
    for member, share_bp in fact.holders:
        rows.append(_APPEND_HOLDER, fact.work, member, share_bp)


def _change_splits(fact: facts.SplitsChanged, _entry: RecordedEntry, rows: Rows) -> None:
    rows.change(_END_HOLDERS, which=fact.work)
    for member, share_bp in fact.holders:
        rows.change(_PUT_HOLDER, work=fact.work, member=member, share_bp=share_bp)


def _withdraw(fact: facts.WorkWithdrawn, entry: RecordedEntry, rows: Rows) -> None:
    rows.change(_WITHDRAW, which=fact.work, at_ms=entry.received_at_ms, who=fact.by)


VIEWS: Final = DomainViews(
    tables=METADATA,
    projections={
        facts.WorkRegistered: _register,
        facts.SplitsChanged: _change_splits,
        facts.WorkWithdrawn: _withdraw,
    },
    unshown={},
)
