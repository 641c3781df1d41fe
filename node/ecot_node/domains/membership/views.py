# SPDX-License-Identifier: AGPL-3.0-or-later
"""Tables of membership: members, mandates, recoveries that wait, fees and payments.

Names and contacts are attachments of the record `applied_idx`, read from the store when they are asked for: a copy
here would outlive their erasure.
"""

from typing import Final

import sqlalchemy as sa

from ecot_node.domains.rows import Append, Change, DomainViews, Rows
from ecot_node.ledger.port import RecordedEntry
from ecot_protocol.domains.membership import facts

METADATA: Final = sa.MetaData()

members = sa.Table(
    "members",
    METADATA,
    sa.Column("applied_idx", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("member", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("handle", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("college", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("applied_at_ms", sa.Integer, nullable=False),
    sa.Column("since_ms", sa.Integer, nullable=False),
    sa.Column("fee_due_ms", sa.Integer),
)
"""`since_ms`: since when it has its status."""

mandates = sa.Table(
    "mandates",
    METADATA,
    sa.Column("member", sa.LargeBinary, primary_key=True),
    sa.Column("person", sa.LargeBinary, primary_key=True),
    sa.Column("scopes", sa.Text, nullable=False),
    sa.Column("trade_limit_minor", sa.Integer),
    sa.Column("day_limit_minor", sa.Integer),
    sa.Column("from_ms", sa.Integer, nullable=False),
    sa.Column("until_ms", sa.Integer),
    sqlite_with_rowid=False,
)
"""`scopes`: separated by spaces. A revoked mandate is gone."""
sa.Index("mandates_by_person", mandates.c.person)

payments = sa.Table(
    "payments",
    METADATA,
    sa.Column("idx", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("member", sa.LargeBinary, nullable=False),
    sa.Column("direction", sa.Text, nullable=False),
    sa.Column("amount_minor", sa.Integer, nullable=False),
    sa.Column("unit", sa.Text, nullable=False),
    sa.Column("at_ms", sa.Integer, nullable=False),
)
sa.Index("payments_by_member", payments.c.member, payments.c.idx)

recoveries = sa.Table(
    "recoveries",
    METADATA,
    sa.Column("person", sa.LargeBinary, primary_key=True),
    sa.Column("key_id", sa.LargeBinary, nullable=False),
    sa.Column("opened_at_ms", sa.Integer, nullable=False),
    sa.Column("ends_at_ms", sa.Integer, nullable=False),
)

_APPEND_MEMBER: Final = Append.into(members)
_APPEND_PAYMENT: Final = Append.into(payments)
_PUT_MANDATE: Final = Change.put(mandates)
_PUT_RECOVERY: Final = Change.put(recoveries)
_END_RECOVERY: Final = Change.of(sa.delete(recoveries).where(recoveries.c.person == sa.bindparam("whose")))
_END_MANDATE: Final = Change.of(
    sa.delete(mandates).where(mandates.c.member == sa.bindparam("which"), mandates.c.person == sa.bindparam("whose"))
)
_ADMIT: Final = Change.of(
    sa.update(members)
    .where(members.c.member == sa.bindparam("which"))
    .values(
        college=sa.bindparam("new_college"),
        status="admitted",
        since_ms=sa.bindparam("at_ms"),
        fee_due_ms=sa.bindparam("due_ms"),
    )
)
_GO: Final = Change.of(
    sa.update(members)
    .where(members.c.member == sa.bindparam("which"))
    .values(status=sa.bindparam("new_status"), since_ms=sa.bindparam("at_ms"), fee_due_ms=sa.null())
)
_SET_FEE_DUE: Final = Change.of(
    sa.update(members).where(members.c.member == sa.bindparam("which")).values(fee_due_ms=sa.bindparam("due_ms"))
)


def _apply(fact: facts.MemberApplied, entry: RecordedEntry, rows: Rows) -> None:
    at_ms = entry.received_at_ms
    row = (entry.index, fact.member, fact.handle, fact.kind, fact.college, "applied", at_ms, at_ms, None)
    rows.append(_APPEND_MEMBER, *row)


def _admit(fact: facts.MemberAdmitted, entry: RecordedEntry, rows: Rows) -> None:
    rows.change(_ADMIT, which=fact.member, new_college=fact.college, at_ms=entry.received_at_ms, due_ms=fact.fee_due_ms)


def _go(fact: facts.MemberGone, entry: RecordedEntry, rows: Rows) -> None:
    rows.change(_GO, which=fact.member, new_status=fact.status, at_ms=entry.received_at_ms)


def _charge_fee(fact: facts.FeeCharged, _entry: RecordedEntry, rows: Rows) -> None:
    rows.change(_SET_FEE_DUE, which=fact.member, due_ms=fact.next_due_ms)


def _attest(fact: facts.PaymentAttested, entry: RecordedEntry, rows: Rows) -> None:
    row = (entry.index, fact.member, fact.direction, fact.amount_minor, fact.unit, entry.received_at_ms)
    rows.append(_APPEND_PAYMENT, *row)


def _grant(fact: facts.MandateGranted, _entry: RecordedEntry, rows: Rows) -> None:
    rows.change(
        _PUT_MANDATE,
        member=fact.member,
        person=fact.person,
        scopes=" ".join(fact.scopes),
        trade_limit_minor=fact.trade_limit_minor,
        day_limit_minor=fact.day_limit_minor,
        from_ms=fact.from_ms,
        until_ms=fact.until_ms,
    )


def _revoke(fact: facts.MandateRevoked, _entry: RecordedEntry, rows: Rows) -> None:
    rows.change(_END_MANDATE, which=fact.member, whose=fact.person)


def _open_recovery(fact: facts.RecoveryOpened, entry: RecordedEntry, rows: Rows) -> None:
    rows.change(
        _PUT_RECOVERY,
        person=fact.person,
        key_id=fact.key_id,
        opened_at_ms=entry.received_at_ms,
        ends_at_ms=fact.ends_at_ms,
    )


def _end_recovery(fact: facts.RecoveryVetoed | facts.PersonRecovered, _entry: RecordedEntry, rows: Rows) -> None:
    rows.change(_END_RECOVERY, whose=fact.person)


VIEWS: Final = DomainViews(
    tables=METADATA,
    projections={
        facts.MemberApplied: _apply,
        facts.MemberAdmitted: _admit,
        facts.MemberGone: _go,
        facts.FeeCharged: _charge_fee,
        facts.PaymentAttested: _attest,
        facts.MandateGranted: _grant,
        facts.MandateRevoked: _revoke,
        facts.RecoveryOpened: _open_recovery,
        facts.RecoveryVetoed: _end_recovery,
        facts.PersonRecovered: _end_recovery,
    },
    unshown={},
)
