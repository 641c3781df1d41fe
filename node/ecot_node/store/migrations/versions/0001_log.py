# SPDX-License-Identifier: AGPL-3.0-or-later
"""Schema 1: the log, its tree, its checkpoints, messages, drafts.

Tables with small rows that are found by a whole key of several columns have no rowid in SQLite (one B-tree instead of
two). `records` keeps its integer key: it is the rowid, and an append then only ever touches the last page.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")  # only INTEGER is SQLite's rowid
BYTES = sa.LargeBinary()


def _log() -> None:
    op.create_table(
        "head",
        sa.Column("one", sa.Integer, sa.CheckConstraint("one = 1"), primary_key=True, autoincrement=False),
        sa.Column("ledger", BYTES),
        sa.Column("epoch", WHOLE, nullable=False),
        sa.Column("size", WHOLE, nullable=False),
        sa.Column("note", BYTES),
    )
    op.execute("INSERT INTO head (one, epoch, size) VALUES (1, 0, 0)")
    op.create_table(
        "records",
        sa.Column("idx", WHOLE, primary_key=True, autoincrement=False),
        sa.Column("entry_id", BYTES, nullable=False),
        sa.Column("received_at_ms", WHOLE, nullable=False),
        sa.Column("leaf_hash", BYTES, nullable=False),
        sa.Column("record", BYTES, nullable=False),
    )
    op.create_index("records_entry_id", "records", ["entry_id"], unique=True)
    op.create_table(
        "attachments",
        sa.Column("idx", WHOLE, primary_key=True, autoincrement=False),
        sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("class", sa.Text, nullable=False),
        sa.Column("salt", BYTES, nullable=False),
        sa.Column("content", BYTES, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "erasures",
        sa.Column("idx", WHOLE, primary_key=True, autoincrement=False),
        sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("erased_at_ms", WHOLE, nullable=False),
        sa.Column("ground", sa.Text, nullable=False),
        sqlite_with_rowid=False,
    )


def _tree() -> None:
    op.create_table(
        "tiles",
        sa.Column("level", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("idx", WHOLE, primary_key=True, autoincrement=False),
        sa.Column("hashes", BYTES, nullable=False),
    )
    op.create_table(
        "edges",
        sa.Column("level", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("hashes", BYTES, nullable=False),
    )
    op.create_table(
        "checkpoints",
        sa.Column("size", WHOLE, primary_key=True, autoincrement=False),
        sa.Column("note", BYTES, nullable=False),
    )
    op.create_table(
        "cosignatures",
        sa.Column("size", WHOLE, primary_key=True, autoincrement=False),
        sa.Column("witness", sa.Text, primary_key=True),
        sa.Column("line", BYTES, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "witnessed",
        sa.Column("origin", sa.Text, primary_key=True),
        sa.Column("size", WHOLE, nullable=False),
        sa.Column("root", BYTES, nullable=False),
        sa.Column("note", BYTES, nullable=False),
    )
    op.create_table(
        "decision_logs",
        sa.Column("origin", sa.Text, primary_key=True),
        sa.Column("size", WHOLE, nullable=False),
        sa.Column("frontier", BYTES, nullable=False),
        sa.Column("note", BYTES, nullable=False),
    )
    op.create_table(
        "decision_leaves",
        sa.Column("origin", sa.Text, primary_key=True),
        sa.Column("number", WHOLE, primary_key=True, autoincrement=False),
        sa.Column("tid", BYTES, nullable=False),
        sa.Column("outcome", sa.Integer, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("decision_leaves_tid", "decision_leaves", ["origin", "tid"], unique=True)
    op.create_table(
        "forks",
        sa.Column("sequence", WHOLE, sa.Identity(), primary_key=True, autoincrement=True),
        sa.Column("digest", BYTES, nullable=False, unique=True),
        sa.Column("origin", sa.Text, nullable=False),
        sa.Column("first_note", BYTES, nullable=False),
        sa.Column("second_note", BYTES, nullable=False),
        sa.Column("proof", BYTES, nullable=False),
    )


def _messages() -> None:
    op.create_table(
        "outbox",
        sa.Column("sequence", WHOLE, sa.Identity(), primary_key=True, autoincrement=True),
        sa.Column("peer", sa.Text, nullable=False),
        sa.Column("key", BYTES, nullable=False),
        sa.Column("payload", BYTES, nullable=False),
        sa.UniqueConstraint("peer", "key"),
        sqlite_autoincrement=True,  # a sequence is never used again, so a late acknowledgement deletes nothing new
    )
    op.create_table(
        "inbox",
        sa.Column("peer", sa.Text, primary_key=True),
        sa.Column("key", BYTES, primary_key=True),
        sa.Column("seen_at_ms", WHOLE, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "meta",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("value", BYTES, nullable=False),
    )


def _outside_the_log() -> None:
    op.create_table(
        "drafts",
        sa.Column("draft_id", BYTES, primary_key=True),
        sa.Column("expires_at_ms", WHOLE, nullable=False),
        sa.Column("content", BYTES, nullable=False),
    )
    op.create_index("drafts_expires_at_ms", "drafts", ["expires_at_ms"])
    op.create_table(
        "quarantine",
        sa.Column("sequence", WHOLE, sa.Identity(), primary_key=True, autoincrement=True),
        sa.Column("entry_hash", BYTES, nullable=False, unique=True),
        sa.Column("body", BYTES, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
    )


def upgrade() -> None:
    """Make every table of schema 1."""
    _log()
    _tree()
    _messages()
    _outside_the_log()


def downgrade() -> None:
    """Refuse: a log is never taken back to an older schema; restore a backup instead."""
    raise NotImplementedError("there is nothing before schema 1")
