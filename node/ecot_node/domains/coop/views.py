# SPDX-License-Identifier: AGPL-3.0-or-later
"""Tables of the cooperative itself: versions of the statutes, offices, persons, keys."""

from typing import Final

import msgspec
import sqlalchemy as sa

from ecot_node.domains.rows import Change, DomainViews, Rows
from ecot_node.ledger.port import RecordedEntry
from ecot_protocol.domains.coop import facts

METADATA: Final = sa.MetaData()

statutes = sa.Table(
    "statutes",
    METADATA,
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("in_force_from_ms", sa.Integer, nullable=False),
    sa.Column("adopted_by", sa.LargeBinary, nullable=False),
    sa.Column("recorded_idx", sa.Integer, nullable=False),
    sa.Column("recorded_at_ms", sa.Integer, nullable=False),
    sa.Column("statutes", sa.Text, nullable=False),
)
"""`statutes` is the JSON of the wire type."""

offices = sa.Table(
    "offices",
    METADATA,
    sa.Column("office", sa.Text, primary_key=True),
    sa.Column("persons", sa.LargeBinary, nullable=False),
    sa.Column("threshold", sa.Integer, nullable=False),
    sa.Column("since_ms", sa.Integer, nullable=False),
)
"""`persons`: ids of 16 bytes, joined."""

persons = sa.Table(
    "persons",
    METADATA,
    sa.Column("person", sa.LargeBinary, primary_key=True),
    sa.Column("handle", sa.Text, nullable=False),
    sa.Column("since_ms", sa.Integer, nullable=False),
    sqlite_with_rowid=False,
)

person_keys = sa.Table(
    "person_keys",
    METADATA,
    sa.Column("person", sa.LargeBinary, primary_key=True),
    sa.Column("key_id", sa.LargeBinary, primary_key=True),
    sa.Column("purpose", sa.Text, nullable=False),
    sa.Column("since_ms", sa.Integer, nullable=False),
    sa.Column("revoked_at_ms", sa.Integer),
    sqlite_with_rowid=False,
)

_PUT_STATUTES: Final = Change.put(statutes)
_PUT_OFFICE: Final = Change.put(offices)
_END_OFFICE: Final = Change.of(sa.delete(offices).where(offices.c.office == sa.bindparam("office")))
_PUT_PERSON: Final = Change.put(persons)
_PUT_KEY: Final = Change.put(person_keys)
_REVOKE_KEY: Final = Change.of(
    sa.update(person_keys)
    .where(person_keys.c.person == sa.bindparam("whose"), person_keys.c.key_id == sa.bindparam("which"))
    .values(revoked_at_ms=sa.bindparam("at_ms"))
)


def _adopt_statutes(fact: facts.StatutesAdopted, entry: RecordedEntry, rows: Rows) -> None:
    rows.change(
        _PUT_STATUTES,
        version=fact.version,
        in_force_from_ms=fact.in_force_from_ms,
        adopted_by=fact.by,
        recorded_idx=entry.index,
        recorded_at_ms=entry.received_at_ms,
        statutes=msgspec.json.encode(fact.statutes).decode(),
    )


def _hold_office(fact: facts.OfficeHeld, entry: RecordedEntry, rows: Rows) -> None:
    if not fact.persons:
        rows.change(_END_OFFICE, office=fact.office)
        return
    rows.change(
        _PUT_OFFICE,
        office=fact.office,
        persons=b"".join(fact.persons),
        threshold=fact.threshold,
        since_ms=entry.received_at_ms,
    )


def _add_person(fact: facts.PersonAdded, entry: RecordedEntry, rows: Rows) -> None:
    rows.change(_PUT_PERSON, person=fact.person, handle=fact.handle, since_ms=entry.received_at_ms)


def _add_key(fact: facts.KeyAdded, entry: RecordedEntry, rows: Rows) -> None:
    rows.change(
        _PUT_KEY,
        person=fact.person,
        key_id=fact.key_id,
        purpose=fact.purpose,
        since_ms=entry.received_at_ms,
        revoked_at_ms=None,
    )


def _revoke_key(fact: facts.KeyRevoked, entry: RecordedEntry, rows: Rows) -> None:
    rows.change(_REVOKE_KEY, whose=fact.person, which=fact.key_id, at_ms=entry.received_at_ms)


VIEWS: Final = DomainViews(
    tables=METADATA,
    projections={
        facts.StatutesAdopted: _adopt_statutes,
        facts.OfficeHeld: _hold_office,
        facts.PersonAdded: _add_person,
        facts.KeyAdded: _add_key,
        facts.KeyRevoked: _revoke_key,
    },
    unshown={
        facts.Founded: "the profile is asked of the state",
        facts.NodeKeyReplaced: "the node's keys are asked of the state",
        facts.RulesRaised: "the number in force is asked of the state",
        facts.Sealed: "the newest seal is asked of the state; older ones are records",
    },
)
