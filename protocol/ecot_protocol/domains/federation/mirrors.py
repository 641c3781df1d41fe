# SPDX-License-Identifier: AGPL-3.0-or-later
"""Mirrors: what two partners keep of each other, compared by record.

Each of two partners keeps an account of the other, in its own unit (`state.partner_account`). Every deal moves both, by
amounts that its statement says: so each ledger knows, deal by deal, what the other's account must hold. It asks

    AskMirror{pending: deals that wait here, since, size}  ->  Mirror{balance, pending and resolved there, size}

and compares (`compare`). What is said is signed by the agent, and can be shown to others.

The two logs are never read at one instant, so some difference is in order, and told apart from a real one deal by deal:
posted here and still waiting there, or the other way round. What is left over is a difference that no delay explains.
Then the posted deals are read from there, page by page, and the ones that differ are named (`find_differences`).

Nothing is refused, and nothing corrected, because of a difference: boards do that. The link goes on.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated, Final, Literal, NamedTuple

import msgspec

from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.wire.encoding import Codec, Count, Hash, Id, Integer, UnitCode, Wire, WireArray, encode
from ecot_protocol.wire.statement import STATEMENT, Statement, decode_statement, is_statement_signed

MAX_LISTED: Final = 4_096
"""Deals of one list of a mirror: no more can be pending with a partner."""
MAX_MOVES: Final = 1_024
"""Deals of one page."""
MIRROR_TYPE: Final = "mirror"
MOVES_TYPE: Final = "moves"

Status = Literal["abort", "commit", "pending"]
Tids = Annotated[tuple[Id, ...], msgspec.Meta(max_length=MAX_LISTED)]


class Settled(WireArray):
    """A deal that is resolved there."""

    tid: Id
    is_posted: bool


class MirrorLists(Wire):
    """What waits with the partner, and what is resolved.

    Attributes:
        pending: deals that are promised and not resolved there.
        recent_from: all that was resolved in records from this index on is in `resolved`.
        resolved: these, and every deal that was asked for and is resolved.
    """

    pending: Tids
    recent_from: Count
    resolved: Annotated[tuple[Settled, ...], msgspec.Meta(max_length=2 * MAX_LISTED)]


class Mirror(Wire):
    """Payload of the statement ``mirror``: what a ledger says of its account of a partner.

    Attributes:
        balance_minor: posted; positive if the speaker owes the partner.
        ledger: who says it.
        lists: SHA-256 of the encoded `MirrorLists` that go with it.
        reserved_in_minor, reserved_out_minor: promised.
        size: records of its log that this is the state of.
        unit: of the speaker's account.
    """

    balance_minor: Integer
    ledger: Hash
    lists: Hash
    reserved_in_minor: Count
    reserved_out_minor: Count
    size: Count
    unit: UnitCode


class Move(WireArray):
    """A deal that was posted to the mirror, by a record at `index`."""

    index: Count
    tid: Id
    amount_minor: Integer


class Moves(Wire):
    """Payload of the statement ``moves``: deals posted to the speaker's account of a partner, as recorded.

    Attributes:
        ledger: who says it.
        more_from: index from which there are more; nil: these are all up to `size`.
        moves: one page.
        size: records of its log.
        start: index from which the page was asked for.
    """

    ledger: Hash
    more_from: Count | None
    moves: Annotated[tuple[Move, ...], msgspec.Meta(max_length=MAX_MOVES)]
    size: Count
    start: Count


MIRROR: Final = Codec(Mirror)
MIRROR_LISTS: Final = Codec(MirrorLists)
MOVES: Final = Codec(Moves)


def encode_mirror(mirror: Mirror | Moves, partner: bytes) -> bytes:
    """Return the statement, to be signed by the speaker's agent."""
    kind = MIRROR_TYPE if isinstance(mirror, Mirror) else MOVES_TYPE
    ledgers = tuple(sorted((mirror.ledger, partner)))
    return STATEMENT.encode(Statement(ledgers=ledgers, payload=msgspec.Raw(encode(mirror)), type=kind))


def lists_hash(raw: bytes) -> bytes:
    """Return the hash by which a mirror names its lists."""
    return sha256(raw).digest()


def open_mirror(raw: bytes, lists: bytes, signature: bytes, *, agent: bytes, speaker: bytes, hearer: bytes) -> "Claim":
    """Read what a partner says of its mirror.

    Args:
        raw: statement.
        lists: encoded `MirrorLists`.
        signature: 64 bytes, of the agent.
        agent: key of the speaker's agent, 33 bytes.
        speaker: ledger id of who says it.
        hearer: ledger id of the partner.

    Raises:
        RemoteProtocolError: ``bad_signature``, ``mirror_unsound``, or a code of the form.
    """
    mirror = MIRROR.decode(_open(raw, MIRROR_TYPE, signature, agent, (speaker, hearer)))
    if mirror.ledger != speaker or mirror.lists != lists_hash(lists):
        raise RemoteProtocolError("mirror_unsound", "of another ledger, or with other lists")
    read = MIRROR_LISTS.decode(lists)
    statuses: dict[bytes, Status] = dict.fromkeys(read.pending, "pending")
    for one in read.resolved:
        statuses[one.tid] = "commit" if one.is_posted else "abort"
    if len(statuses) != len(read.pending) + len(read.resolved):
        raise RemoteProtocolError("mirror_unsound", "a deal is listed twice")
    return Claim(mirror, read.recent_from, statuses)


def open_moves(raw: bytes, signature: bytes, *, agent: bytes, speaker: bytes, hearer: bytes) -> Moves:
    """Read a page of posted deals.

    Raises:
        RemoteProtocolError: ``bad_signature``, ``mirror_unsound``, or a code of the form.
    """
    page = MOVES.decode(_open(raw, MOVES_TYPE, signature, agent, (speaker, hearer)))
    indexes = [move.index for move in page.moves]
    is_ascending = indexes == sorted(indexes) and (not indexes or page.start <= indexes[0])
    # A page that leads nowhere would be asked for without end.
    leads_on = page.more_from is None or page.more_from > max(indexes, default=page.start)
    if page.ledger != speaker or not is_ascending or not leads_on:
        raise RemoteProtocolError("mirror_unsound", "a page out of order")
    return page


def _open(raw: bytes, kind: str, signature: bytes, agent: bytes, ledgers: tuple[bytes, bytes]) -> bytes:
    statement = decode_statement(raw)
    if statement.type != kind or statement.ledgers != tuple(sorted(ledgers)):
        raise RemoteProtocolError("mirror_unsound", "between others, or of another type")
    if not is_statement_signed(agent, raw, signature):
        raise RemoteProtocolError("bad_signature")
    return bytes(statement.payload)


# --- comparing ----------------------------------------------------------------------------------------------------


class Claim(NamedTuple):
    """What a partner says, read: its mirror, from which record on its list of resolutions is whole, tid -> status."""

    mirror: Mirror
    recent_from: int
    statuses: Mapping[bytes, Status]


class Asked(NamedTuple):
    """What a partner was asked.

    Attributes:
        pending: deals that waited here.
        since: the size that its log had at least, as we knew.
        size: of our log.
    """

    pending: frozenset[bytes]
    since: int
    size: int


class MirrorRow(NamedTuple):
    """A deal with the partner, as our ledger has it.

    Attributes:
        tid: of the deal.
        partner_minor: by how much it moves the partner's mirror of us, in the partner's unit.
        opened_index: of the record that promised it here.
        status: here.
    """

    tid: bytes
    partner_minor: int
    opened_index: int
    status: Status


@dataclass(frozen=True, slots=True)
class Verdict:
    """How two mirrors compare.

    Attributes:
        kind: ``agreed``; ``unclear`` (ask again: too much happened between question and answer); ``differs``.
        expected_minor: what the partner's mirror should hold by our records, delays allowed for; its unit.
        difference_minor: what it holds beyond that.
        delayed: deals resolved on one side only, so far.
        opposed: deals that are posted on one side and voided on the other.
        unheard: deals that are posted there, and that our ledger has never promised.
    """

    kind: Literal["agreed", "differs", "unclear"]
    expected_minor: int
    difference_minor: int
    delayed: tuple[bytes, ...] = ()
    opposed: tuple[bytes, ...] = ()
    unheard: tuple[bytes, ...] = ()


def compare(posted_minor: int, rows: Mapping[bytes, MirrorRow], claim: Claim, asked: Asked) -> Verdict:
    """Compare a partner's mirror with our records.

    Args:
        posted_minor: sum of `partner_minor` over all deals that are posted here.
        rows: tid -> deal, of all that the claim names, all that wait here, and all promised here since `asked.size`.
        claim: what the partner says.
        asked: what it was asked.
    """
    expected_minor, unclear_count = posted_minor, 0
    delayed: list[bytes] = []
    opposed: list[bytes] = []
    for tid, row in rows.items():
        there = claim.statuses.get(tid)
        if there is None and _is_unclear(row, claim, asked):
            unclear_count += 1
        elif {row.status, there} == {"abort", "commit"}:
            opposed.append(tid)
        elif row.status == "commit" and (there == "pending" or _is_absent(row, there, asked)):
            expected_minor -= row.partner_minor
            delayed.append(tid)
        elif row.status == "pending" and there == "commit":
            expected_minor += row.partner_minor
            delayed.append(tid)
    unheard = tuple(tid for tid, status in claim.statuses.items() if status == "commit" and tid not in rows)
    difference_minor = claim.mirror.balance_minor - expected_minor
    is_different = bool(difference_minor or opposed or unheard)
    kind: Literal["agreed", "differs", "unclear"] = "differs" if is_different else "agreed"
    if unclear_count and not opposed and not unheard:
        kind = "unclear"
    return Verdict(kind, expected_minor, difference_minor, tuple(delayed), tuple(opposed), unheard)


def _is_absent(row: MirrorRow, there: Status | None, asked: Asked) -> bool:
    """Tell whether a deal that the answer doesn't name can't be in its balance: it was asked for, or is newer."""
    return there is None and (row.tid in asked.pending or row.opened_index >= asked.size)


def _is_unclear(row: MirrorRow, claim: Claim, asked: Asked) -> bool:
    """Tell whether the deal may have been resolved there while the question was under way, and fallen off the list."""
    return row.tid not in asked.pending and row.opened_index >= asked.size and claim.recent_from > asked.since


DifferenceKind = Literal["amount_differs", "missing_here", "missing_there", "opposed"]


class Difference(NamedTuple):
    """A deal that the two ledgers don't post alike.

    Attributes:
        kind: ``missing_there``: posted here, and there neither posted nor waiting; ``missing_here``: posted there, and
            not known here; ``opposed``: posted there, voided here; ``amount_differs``.
        tid: of the deal.
        expected_minor: by how much it should have moved the partner's mirror, by our records; 0 for ``missing_here``.
        shown_minor: by how much the partner says that it moved.
        their_index: of the partner's record; None if it shows none.
    """

    kind: DifferenceKind
    tid: bytes
    expected_minor: int
    shown_minor: int
    their_index: int | None


def find_differences(
    ours: Mapping[bytes, MirrorRow], theirs: Iterable[Move], *, waiting: frozenset[bytes]
) -> tuple[Difference, ...]:
    """Name the deals that differ.

    Args:
        ours: tid -> deal, of all that `theirs` names and all that was posted here since both last agreed.
        theirs: what the partner says was posted there since then.
        waiting: deals that wait there, or were posted there before both last agreed.
    """
    found: list[Difference] = []
    shown: set[bytes] = set()
    for move in theirs:
        shown.add(move.tid)
        row = ours.get(move.tid)
        if row is None:
            found.append(Difference("missing_here", move.tid, 0, move.amount_minor, move.index))
        elif row.status == "abort":
            found.append(Difference("opposed", move.tid, 0, move.amount_minor, move.index))
        elif row.partner_minor != move.amount_minor:
            found.append(Difference("amount_differs", move.tid, row.partner_minor, move.amount_minor, move.index))
    for tid, row in ours.items():
        if row.status == "commit" and tid not in shown and tid not in waiting:
            found.append(Difference("missing_there", tid, row.partner_minor, 0, None))
    return tuple(found)
