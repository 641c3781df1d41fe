# SPDX-License-Identifier: AGPL-3.0-or-later
"""Tables of governance: polls with their terms and outcome, and the stance of each member.

Questions and reasons are attachments, read from the store when they are asked for.
"""

from typing import Final

import msgspec
import sqlalchemy as sa

from ecot_node.domains.rows import Append, Change, DomainViews, Rows
from ecot_node.ledger.port import RecordedEntry
from ecot_protocol.domains.governance import facts

METADATA: Final = sa.MetaData()

polls = sa.Table(
    "polls",
    METADATA,
    sa.Column("opened_idx", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("poll", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("opens_at_ms", sa.Integer, nullable=False),
    sa.Column("closes_at_ms", sa.Integer, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("closed_idx", sa.Integer),
    sa.Column("opened", sa.Text, nullable=False),
    sa.Column("closed", sa.Text),
)
"""`opened` and `closed` are the JSON of the facts `PollOpened` and `PollClosed`; `status` is ``open`` or ``closed``."""

stances = sa.Table(
    "stances",
    METADATA,
    sa.Column("poll", sa.LargeBinary, primary_key=True),
    sa.Column("member", sa.LargeBinary, primary_key=True),
    sa.Column("idx", sa.Integer, nullable=False),
    sa.Column("at_ms", sa.Integer, nullable=False),
    sa.Column("college", sa.Text, nullable=False),
    sa.Column("choice", sa.Text, nullable=False),
    sa.Column("has_reason", sa.Integer, nullable=False),
    sqlite_with_rowid=False,
)
"""A member's newest stance; `idx` is its record."""

_APPEND_POLL: Final = Append.into(polls)
_PUT_STANCE: Final = Change.put(stances)
_CLOSE: Final = Change.of(
    sa.update(polls)
    .where(polls.c.poll == sa.bindparam("which"))
    .values(status="closed", closed_idx=sa.bindparam("at_idx"), closed=sa.bindparam("outcome"))
)


def _open(fact: facts.PollOpened, entry: RecordedEntry, rows: Rows) -> None:
    opened = msgspec.json.encode(fact).decode()
    row = (entry.index, fact.poll, fact.opens_at_ms, fact.closes_at_ms, "open", None, opened, None)
    rows.append(_APPEND_POLL, *row)


def _take_stance(fact: facts.StanceTaken, entry: RecordedEntry, rows: Rows) -> None:
    rows.change(
        _PUT_STANCE,
        poll=fact.poll,
        member=fact.member,
        idx=entry.index,
        at_ms=entry.received_at_ms,
        college=fact.college,
        choice=fact.choice,
        has_reason=int(fact.has_reason),
    )


def _close(fact: facts.PollClosed, entry: RecordedEntry, rows: Rows) -> None:
    rows.change(_CLOSE, which=fact.poll, at_idx=entry.index, outcome=msgspec.json.encode(fact).decode())


VIEWS: Final = DomainViews(
    tables=METADATA,
    projections={facts.PollOpened: _open, facts.StanceTaken: _take_stance, facts.PollClosed: _close},
    unshown={},
)
