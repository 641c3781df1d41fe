# SPDX-License-Identifier: AGPL-3.0-or-later
"""Tables that every record writes into: records, postings, and who has to do with which record.

These are on the hot path, and what costs there is a page of the file that is touched at random: its copy and its
checksum in the write-ahead log are dearer than the row (at groups of 30 records, two indexes on postings cost 22 µs a
record, the postings themselves 6). Hence:

- `records` and `postings` only grow at their end, and have no index that a frequent record would touch;
- the one index by member, `touches`, is filled in sorted batches. Records from `progress.indexed` on are not in it
  yet, and are found by looking at their `parties` and `owners`.

`parties` and `owners` are ids of 16 bytes, joined.
"""

from typing import Final

import sqlalchemy as sa

from ecot_node.domains.rows import Append, DomainViews
from ecot_protocol.domains.coop.facts import SignatureWithdrawn
from ecot_protocol.ledger.facts import Fact, LimitsChanged, Posting, ReservationClosed, Reserved

METADATA: Final = sa.MetaData()
ID_BYTES: Final = 16
POSTING_BITS: Final = 20
"""A posting's sequence is its record's index shifted left by this, plus its place among the record's postings, of which
there are far fewer (10,000 in a group)."""

progress = sa.Table(
    "progress",
    METADATA,
    sa.Column("one", sa.Integer, primary_key=True),
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("indexed", sa.Integer, nullable=False),
    sa.Column("tables", sa.Text, nullable=False),
)
"""One row: records shown, records that `touches` covers, fingerprint of the tables."""

records = sa.Table(
    "records",
    METADATA,
    sa.Column("idx", sa.Integer, primary_key=True),
    sa.Column("entry_id", sa.LargeBinary, nullable=False),
    sa.Column("received_at_ms", sa.Integer, nullable=False),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("author", sa.LargeBinary),
    sa.Column("visibility", sa.Text, nullable=False),
    sa.Column("parties", sa.LargeBinary, nullable=False),
    sa.Column("owners", sa.LargeBinary, nullable=False),
)
"""`owners`: whose accounts its postings move and who are not parties."""
sa.Index("records_open", records.c.idx, sqlite_where=records.c.visibility != "parties")
"""The few records that are not for their parties alone; a frequent record doesn't touch it."""

accounts = sa.Table(
    "accounts",
    METADATA,
    sa.Column("account", sa.Integer, primary_key=True),
    sa.Column("owner", sa.LargeBinary, nullable=False),
    sa.Column("unit", sa.Text, nullable=False),
    sa.Column("purpose", sa.Text, nullable=False),
    sa.UniqueConstraint("owner", "unit", "purpose"),
)
"""Every account that a posting named, numbered as they came."""

postings = sa.Table(
    "postings",
    METADATA,
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("payer", sa.Integer, nullable=False),
    sa.Column("payee", sa.Integer, nullable=False),
    sa.Column("amount_minor", sa.Integer, nullable=False),
    sa.Column("cause", sa.LargeBinary),
    sa.Column("reason", sa.Text, nullable=False),
)
"""`payer` and `payee` are numbers of accounts (each value of a row that is not a small integer costs 0.2 µs); `cause`
is NULL where it is the record's own entry."""

touches = sa.Table(
    "touches",
    METADATA,
    sa.Column("whom", sa.LargeBinary, primary_key=True),
    sa.Column("last_idx", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("as_party", sa.Text, nullable=False),
    sa.Column("as_owner", sa.Text, nullable=False),
    sqlite_with_rowid=False,
)
"""Records by member, person or organ, one row for each batch: JSON lists of indexes, ascending, up to `last_idx`;
`as_owner` are those where only an account of theirs moved. A row for each record cost twice as much."""

APPEND_RECORD: Final = Append.into(records)
APPEND_ACCOUNT: Final = Append.into(accounts)
APPEND_POSTING: Final = Append.into(postings)
APPEND_TOUCH: Final = Append.into(touches)

_UNSHOWN: Final[dict[type[Fact], str]] = {
    Posting: "the projector itself writes postings",
    Reserved: "what is reserved now is asked of the state; the trade or transfer shows what was promised",
    ReservationClosed: "as Reserved",
    LimitsChanged: "limits are asked of the state",
    SignatureWithdrawn: "the record says it all",
}

VIEWS: Final = DomainViews(tables=METADATA, projections={}, unshown=_UNSHOWN)
