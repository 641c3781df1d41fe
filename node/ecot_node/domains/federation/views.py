# SPDX-License-Identifier: AGPL-3.0-or-later
"""Tables of the federation: transfers to and from other ledgers, transfers between others, clearing rounds, partners'
mirrors deal by deal, peerings. Peers themselves are read from the state.
"""

from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

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
    sa.Column("via", sa.LargeBinary, nullable=False),
    sa.Column("unit", sa.Text, nullable=False),
    sa.Column("amount_minor", sa.Integer, nullable=False),
    sa.Column("partner_unit", sa.Text, nullable=False),
    sa.Column("partner_amount_minor", sa.Integer, nullable=False),
    sa.Column("earliest_abort_ms", sa.Integer, nullable=False),
    sa.Column("opened_at_ms", sa.Integer, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("resolved_idx", sa.Integer),
)
"""`role`: ``payer`` or ``payee``; `partner`: the ledger at the other end; `via`: 32 bytes for each in between.

`status`: ``pending``, ``commit``, ``abort`` or ``doubtful``.
"""

transits = sa.Table(
    "transits",
    METADATA,
    sa.Column("opened_idx", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("tid", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("source", sa.LargeBinary, nullable=False),
    sa.Column("target", sa.LargeBinary, nullable=False),
    sa.Column("unit", sa.Text, nullable=False),
    sa.Column("amount_minor", sa.Integer, nullable=False),
    sa.Column("fee_minor", sa.Integer, nullable=False),
    sa.Column("earliest_abort_ms", sa.Integer, nullable=False),
    sa.Column("opened_at_ms", sa.Integer, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("resolved_idx", sa.Integer),
)
"""Transfers between others that our ledger handed on, from the partner `source` to the partner `target`."""

clearings = sa.Table(
    "clearings",
    METADATA,
    sa.Column("opened_idx", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("tid", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("unit", sa.Text, nullable=False),
    sa.Column("call", sa.LargeBinary),
    sa.Column("opened_at_ms", sa.Integer, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("resolved_idx", sa.Integer),
)
"""`call`: the round that the deal follows from."""

clearing_parts = sa.Table(
    "clearing_parts",
    METADATA,
    sa.Column("tid", sa.LargeBinary, primary_key=True),
    sa.Column("partner", sa.LargeBinary, primary_key=True),
    sa.Column("amount_minor", sa.Integer, nullable=False),
    sqlite_with_rowid=False,
)
"""What a round clears with each partner; positive if we owed it."""

mirror_moves = sa.Table(
    "mirror_moves",
    METADATA,
    sa.Column("tid", sa.LargeBinary, primary_key=True),
    sa.Column("partner", sa.LargeBinary, primary_key=True),
    sa.Column("own_minor", sa.Integer, nullable=False),
    sa.Column("partner_minor", sa.Integer, nullable=False),
    sa.Column("opened_idx", sa.Integer, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("resolved_idx", sa.Integer),
    sa.Column("resolved_at_ms", sa.Integer),
    sa.Index("mirror_moves_resolved", "partner", "resolved_idx"),
    sa.Index("mirror_moves_opened", "partner", "opened_idx"),
    sqlite_with_rowid=False,
)
"""By how much each deal moves our account of a partner (`own_minor`) and the partner's of us; `status`: ``pending``,
``commit``, ``abort``. A deal that was given up is pending: the partner's account still promises it.
"""

mirrors = sa.Table(
    "mirrors",
    METADATA,
    sa.Column("partner", sa.LargeBinary, primary_key=True),
    sa.Column("own_minor", sa.Integer, nullable=False),
    sa.Column("partner_minor", sa.Integer, nullable=False),
    sqlite_with_rowid=False,
)
"""Sums of what was posted."""

obligations = sa.Table(
    "obligations",
    METADATA,
    sa.Column("opened_idx", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("obligation", sa.LargeBinary, nullable=False, index=True),
    sa.Column("is_debtor", sa.Boolean, nullable=False),
    sa.Column("member", sa.LargeBinary, nullable=False, index=True),
    sa.Column("other_ledger", sa.LargeBinary, nullable=False),
    sa.Column("unit", sa.Text, nullable=False),
    sa.Column("amount_minor", sa.Integer, nullable=False),
    sa.Column("left_minor", sa.Integer, nullable=False),
    sa.Column("due_ms", sa.Integer),
    sa.Column("opened_at_ms", sa.Integer, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
)
"""What members offered for clearing. `status`: ``offered``, ``cleared`` (in full) or ``withdrawn``."""

rounds = sa.Table(
    "rounds",
    METADATA,
    sa.Column("opened_idx", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("call", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("unit", sa.Text, nullable=False),
    sa.Column("decider", sa.LargeBinary, nullable=False),
    sa.Column("ledgers", sa.LargeBinary, nullable=False),
    sa.Column("offer_count", sa.Integer, nullable=False),
    sa.Column("root", sa.LargeBinary, nullable=False),
    sa.Column("opened_at_ms", sa.Integer, nullable=False),
)
"""Rounds that our ledger committed to; `ledgers`: 32 bytes each."""

_APPEND_OBLIGATION: Final = Append.into(obligations)
_APPEND_ROUND: Final = Append.into(rounds)
_SET_OBLIGATION: Final = Change.of(
    sa.update(obligations)
    .where(
        obligations.c.obligation == sa.bindparam("which"),
        obligations.c.is_debtor == sa.bindparam("side"),
        obligations.c.status == "offered",
    )
    .values(left_minor=sa.bindparam("left"), status=sa.bindparam("new_status"))
)
_APPEND_MOVE: Final = Append.into(mirror_moves)
_OPEN_MIRROR: Final = Change.of(
    sqlite_insert(mirrors).values(partner=sa.bindparam("which"), own_minor=0, partner_minor=0).on_conflict_do_nothing()
)
_SETTLE_MOVES: Final = Change.of(
    sa.update(mirror_moves)
    .where(mirror_moves.c.tid == sa.bindparam("which"))
    .values(
        status=sa.bindparam("new_status"), resolved_idx=sa.bindparam("resolved"), resolved_at_ms=sa.bindparam("at_ms")
    )
)


def _moved(column: str) -> sa.ScalarSelect[int]:
    moves = mirror_moves.alias()
    return (
        sa.select(moves.c[column])
        .where(moves.c.tid == sa.bindparam("which"), moves.c.partner == mirrors.c.partner)
        .scalar_subquery()
    )


_ADD_UP: Final = Change.of(
    sa.update(mirrors)
    .where(mirrors.c.partner.in_(sa.select(mirror_moves.c.partner).where(mirror_moves.c.tid == sa.bindparam("which"))))
    .values(
        own_minor=mirrors.c.own_minor + _moved("own_minor"),
        partner_minor=mirrors.c.partner_minor + _moved("partner_minor"),
    )
)
_APPEND_TRANSFER: Final = Append.into(transfers)
_APPEND_TRANSIT: Final = Append.into(transits)
_APPEND_CLEARING: Final = Append.into(clearings)
_APPEND_PART: Final = Append.into(clearing_parts)


def _set_status(table: sa.Table) -> Change:
    return Change.of(
        sa.update(table)
        .where(table.c.tid == sa.bindparam("which"))
        .values(status=sa.bindparam("new_status"), resolved_idx=sa.bindparam("resolved"))
    )


_SET_TRANSFER: Final = _set_status(transfers)
_SET_TRANSIT: Final = _set_status(transits)
_SET_CLEARING: Final = _set_status(clearings)
_SET_BY_ROLE: Final = {
    "clearing": _SET_CLEARING,
    "payee": _SET_TRANSFER,
    "payer": _SET_TRANSFER,
    "transit": _SET_TRANSIT,
}


def _reserve(fact: facts.TransferReserved, entry: RecordedEntry, rows: Rows) -> None:
    rows.append(
        _APPEND_TRANSFER,
        entry.index,
        fact.tid,
        fact.role,
        fact.member,
        fact.partner,
        b"".join(fact.via),
        fact.unit,
        fact.amount_minor,
        fact.partner_unit,
        fact.partner_amount_minor,
        fact.earliest_abort_ms,
        entry.received_at_ms,
        "pending",
        None,
    )


def _forward(fact: facts.TransferForwarded, entry: RecordedEntry, rows: Rows) -> None:
    rows.append(
        _APPEND_TRANSIT,
        entry.index,
        fact.tid,
        fact.source,
        fact.target,
        fact.unit,
        fact.amount_minor,
        fact.fee_minor,
        fact.earliest_abort_ms,
        entry.received_at_ms,
        "pending",
        None,
    )


def _accept(fact: facts.RoundAccepted, entry: RecordedEntry, rows: Rows) -> None:
    rows.append(_APPEND_CLEARING, entry.index, fact.tid, fact.unit, fact.call, entry.received_at_ms, "pending", None)
    for partner, amount_minor in fact.cleared:
        rows.append(_APPEND_PART, fact.tid, partner, amount_minor)


def _offer(fact: facts.ObligationOffered, entry: RecordedEntry, rows: Rows) -> None:
    rows.append(
        _APPEND_OBLIGATION,
        entry.index,
        fact.obligation,
        fact.is_debtor,
        fact.member,
        fact.other_ledger,
        fact.unit,
        fact.amount_minor,
        fact.amount_minor,
        fact.due_ms,
        entry.received_at_ms,
        "offered",
    )


def _clear(fact: facts.ObligationCleared, _entry: RecordedEntry, rows: Rows) -> None:
    status = "offered" if fact.left_minor else "cleared"
    rows.change(_SET_OBLIGATION, which=fact.obligation, side=fact.is_debtor, left=fact.left_minor, new_status=status)


def _withdraw(fact: facts.ObligationWithdrawn, _entry: RecordedEntry, rows: Rows) -> None:
    rows.change(
        _SET_OBLIGATION, which=fact.obligation, side=fact.is_debtor, left=fact.left_minor, new_status="withdrawn"
    )


def _commit(fact: facts.RoundCommitted, entry: RecordedEntry, rows: Rows) -> None:
    rows.append(
        _APPEND_ROUND,
        entry.index,
        fact.call,
        fact.unit,
        fact.decider,
        b"".join(fact.ledgers),
        fact.count - 1,
        fact.root,
        entry.received_at_ms,
    )


def _promise_mirror(fact: facts.MirrorPromised, entry: RecordedEntry, rows: Rows) -> None:
    rows.append(
        _APPEND_MOVE,
        fact.tid,
        fact.partner,
        fact.own_minor,
        fact.partner_minor,
        entry.index,
        "pending",
        None,
        None,
    )
    rows.change(_OPEN_MIRROR, which=fact.partner)


def _resolve(fact: facts.DealResolved, entry: RecordedEntry, rows: Rows) -> None:
    rows.change(
        _SETTLE_MOVES, which=fact.tid, new_status=fact.outcome, resolved=entry.index, at_ms=entry.received_at_ms
    )
    if fact.outcome == "commit":
        rows.change(_ADD_UP, which=fact.tid)
    rows.change(_SET_BY_ROLE[fact.role], which=fact.tid, new_status=fact.outcome, resolved=entry.index)


def _doubt(fact: facts.DealDoubtful, entry: RecordedEntry, rows: Rows) -> None:
    for change in (_SET_TRANSFER, _SET_TRANSIT):  # it is in one of the two
        rows.change(change, which=fact.tid, new_status="doubtful", resolved=entry.index)


VIEWS: Final = DomainViews(
    tables=METADATA,
    projections={
        facts.TransferReserved: _reserve,
        facts.MirrorPromised: _promise_mirror,
        facts.TransferForwarded: _forward,
        facts.RoundAccepted: _accept,
        facts.RoundCommitted: _commit,
        facts.ObligationOffered: _offer,
        facts.ObligationCleared: _clear,
        facts.ObligationWithdrawn: _withdraw,
        facts.DealResolved: _resolve,
        facts.DealDoubtful: _doubt,
    },
    unshown={
        facts.PeeringRecorded: "peers are read from the state",
        facts.PeeringEnded: "peers are read from the state",
        facts.PeeringSuspended: "peers are read from the state",
        facts.PeeringResumed: "peers are read from the state",
        facts.KeysFollowed: "peers are read from the state",
        facts.DealDecided: "what counts for a member is the resolution",
    },
)
