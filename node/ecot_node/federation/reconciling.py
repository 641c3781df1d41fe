# SPDX-License-Identifier: AGPL-3.0-or-later
"""The reconciler: asks partners what their mirrors hold, compares by record, and names what no delay explains.

For each partner, one thing after the other:

    ask -> compare -> agreed: keep the mark; ask again after `AGAIN_S`, or at the next contact
                      unclear: ask again soon
                      differs: read the deals that were posted there since the mark, page by page; ask for the records
                               of those that differ; write the incident

Every step may be lost: whatever is not answered within `PATIENCE_S` is begun anew with the question. A partner that
does not show its deals has an incident all the same, with what it signed.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Final, Protocol

import msgspec
import structlog

from ecot_node.federation.incidents import (
    MAX_NAMED,
    MAX_PROOFS,
    Evidence,
    Incident,
    IncidentKind,
    Incidents,
    NamedDeal,
    fingerprint_of,
)
from ecot_node.federation.mirror_book import MirrorBook
from ecot_node.federation.notebook import MetaStore, Notes
from ecot_protocol.domains.federation.decisions import RESOLVE
from ecot_protocol.domains.federation.messages import (
    AskMirror,
    AskMoves,
    AskRecord,
    Message,
    MirrorShown,
    MovesShown,
    RecordShown,
)
from ecot_protocol.domains.federation.mirrors import (
    MAX_LISTED,
    MIRROR_LISTS,
    Asked,
    Claim,
    Difference,
    Mirror,
    Move,
    Moves,
    Verdict,
    compare,
    encode_mirror,
    find_differences,
    lists_hash,
    open_mirror,
    open_moves,
)
from ecot_protocol.domains.federation.proofs import RecordProof, open_signed, require_included
from ecot_protocol.domains.federation.state import Peer
from ecot_protocol.domains.federation.statements import LogKey, Side
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.wire.encoding import Codec, Count, Id, Wire
from ecot_protocol.wire.keys import Signer
from ecot_protocol.wire.statement import sign_statement

log = structlog.get_logger("ecot.mirrors")

AGAIN_S: Final = 60.0
"""Between two comparisons with a partner that stays connected."""
SOON_S: Final = 2.0
"""Before an unclear comparison is tried again."""
PATIENCE_S: Final = 15.0
VIEWS_WAIT_S: Final = 10.0
MAX_PAGES: Final = 64
"""Pages of posted deals that are read to name a difference; what lies beyond is counted by the balance alone."""
MAX_KEPT_PAGES: Final = 4
"""Pages that an incident keeps."""


class Mark(Wire):
    """Where both mirrors agreed last.

    Attributes:
        delayed: deals that were resolved on one side only.
        our_size, their_size: of the two logs.
    """

    delayed: Annotated[tuple[Id, ...], msgspec.Meta(max_length=MAX_LISTED)]
    our_size: Count
    their_size: Count


MARK: Final = Codec(Mark)


class MirrorStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How the last comparison went.

    Attributes:
        kind: ``agreed``, ``differs``, ``unclear``; None before the first.
        at_ms: when.
        their_balance_minor: what the partner said, in its unit.
        delayed_count: deals resolved on one side only.
        size: of the partner's log, as it said.
    """

    kind: str | None
    at_ms: int | None
    their_balance_minor: int | None
    delayed_count: int
    size: int | None


NOT_YET: Final = MirrorStatus(kind=None, at_ms=None, their_balance_minor=None, delayed_count=0, size=None)


class LedgerReads(Protocol):
    """What the reconciler needs of the running node."""

    def peer(self, ledger: bytes) -> Peer | None: ...

    def wall_ms(self) -> int: ...

    def own_ledger(self) -> bytes: ...

    def own_log(self) -> LogKey: ...

    def durable_size(self) -> int: ...

    def checkpoint(self) -> bytes: ...

    def own_keys_index(self) -> int: ...

    async def wait_for(self, index: int, timeout_s: float) -> bool: ...

    async def prove_record(self, index: int) -> RecordProof: ...

    async def cosigned(self, origin: str) -> tuple[int, bytes | None]: ...


@dataclass
class _Hunt:
    """A difference that is being named."""

    claim: Claim
    asked: Asked
    shown: MirrorShown
    verdict: Verdict
    mark: Mark | None
    moves: list[Move] = field(default_factory=list)
    pages: list[tuple[bytes, bytes]] = field(default_factory=list)
    page_count: int = 0
    awaited: int | None = 0
    differences: tuple[Difference, ...] = ()
    records: dict[int, RecordProof] = field(default_factory=dict)
    wanted: tuple[int, ...] = ()


@dataclass
class _Talk:
    """Where the talk with one partner is."""

    due_s: float = 0.0
    asked: Asked | None = None
    asked_s: float = 0.0
    hunt: _Hunt | None = None
    their_size: int = 0
    status: MirrorStatus = NOT_YET


class Reconciler:
    """Compares mirrors with every partner.

    Args:
        ledger: of the running node.
        book: what our ledger posted.
        store: where marks and incidents are kept.
        agent: signs what we say.
        tell: sends a message to a partner, or drops it.
        monotonic_s: a clock that never goes back.
    """

    def __init__(
        self,
        ledger: LedgerReads,
        book: MirrorBook,
        store: MetaStore,
        agent: Signer,
        tell: Callable[[bytes, Message], None],
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger, self._book, self._agent, self._tell = ledger, book, agent, tell
        self._monotonic_s = monotonic_s
        self.incidents = Incidents(store)
        self._marks = Notes(store, "marks", MARK)
        self._talks: dict[bytes, _Talk] = {}

    def status(self, partner: bytes) -> MirrorStatus:
        """Return how the last comparison with a partner went."""
        talk = self._talks.get(partner)
        return NOT_YET if talk is None else talk.status

    def reconnected(self, partner: bytes) -> None:
        """Compare at once."""
        self._talk(partner).due_s = 0.0

    async def tick(self, partner: bytes) -> None:
        """Do what is due with a partner that is connected; to be called about once a second."""
        talk, now_s = self._talk(partner), self._monotonic_s()
        if talk.asked is not None or talk.hunt is not None:
            if now_s - talk.asked_s < PATIENCE_S:
                return
            if talk.hunt is not None:
                await self._write(partner, talk.hunt)
            talk.asked = talk.hunt = None
            talk.due_s = now_s + AGAIN_S
        if now_s >= talk.due_s:
            await self._ask(partner, talk, now_s)

    async def take(self, sender: bytes, message: Message) -> None:
        """Take a message about mirrors.

        Raises:
            RemoteProtocolError: what it says is not sound, or not signed.
        """
        match message:
            case AskMirror():
                await self._answer(sender, message)
            case MirrorShown():
                await self._judge(sender, message)
            case AskMoves():
                await self._show_moves(sender, message)
            case MovesShown():
                await self._take_moves(sender, message)
            case AskRecord():
                await self._show_record(sender, message)
            case RecordShown():
                await self._take_record(sender, message)
            case _:
                pass

    # --- what we say ------------------------------------------------------------------------------------------------

    async def _answer(self, sender: bytes, message: AskMirror) -> None:
        peer = self._ledger.peer(sender)
        # As of an older record the answer would lack what the asker rightly takes for resolved here by now.
        if peer is None or not await self._is_caught_up():
            return
        held = await self._book.held(sender, message.pending, message.since)
        lists = MIRROR_LISTS.encode(held.lists)
        mirror = Mirror(
            balance_minor=held.balance_minor,
            ledger=self._ledger.own_ledger(),
            lists=lists_hash(lists),
            reserved_in_minor=held.reserved_in_minor,
            reserved_out_minor=held.reserved_out_minor,
            size=held.size,
            unit=peer.peering.side_of(self._ledger.own_ledger()).unit,
        )
        raw = encode_mirror(mirror, sender)
        self._tell(sender, MirrorShown(raw, lists, sign_statement(self._agent, raw).signature, message.size))

    async def _show_moves(self, sender: bytes, message: AskMoves) -> None:
        if self._ledger.peer(sender) is None or not await self._is_caught_up():
            return
        page = await self._book.moves(sender, message.start)
        own = self._ledger.own_ledger()
        moves = Moves(ledger=own, more_from=page.more_from, moves=page.moves, size=page.size, start=message.start)
        raw = encode_mirror(moves, sender)
        self._tell(sender, MovesShown(raw, sign_statement(self._agent, raw).signature))

    async def _show_record(self, sender: bytes, message: AskRecord) -> None:
        """Show a record that resolved a deal with the sender, and no other."""
        if await self._book.is_resolution(sender, message.index):
            self._tell(sender, RecordShown(await self._ledger.prove_record(message.index)))

    # --- what they say ----------------------------------------------------------------------------------------------

    async def _ask(self, partner: bytes, talk: _Talk, now_s: float) -> None:
        peer = self._ledger.peer(partner)
        if peer is None:
            return
        talk.due_s = now_s + SOON_S
        if not await self._is_caught_up():
            return
        waiting = await self._book.waiting(partner)
        side = peer.peering.side_of(partner)
        cosigned_size, _ = await self._ledger.cosigned(side.origin)
        talk.due_s = now_s + AGAIN_S
        if len(waiting.pending) > MAX_LISTED:
            log.info("mirror_waits", partner=partner.hex(), reason="too many deals wait")
            return
        asked = Asked(frozenset(waiting.pending), max(talk.their_size, cosigned_size), waiting.size)
        talk.asked, talk.asked_s = asked, now_s
        self._tell(
            partner,
            AskMirror(waiting.pending, asked.since, asked.size, side.keys_index, cosigned_size),
        )

    async def _judge(self, sender: bytes, message: MirrorShown) -> None:
        peer, talk = self._ledger.peer(sender), self._talk(sender)
        asked = talk.asked
        if peer is None or asked is None or message.asked_size != asked.size:
            return  # of an older question, or of none
        claim = self._open_claim(sender, peer.peering.side_of(sender), message)
        talk.asked = None
        # Our own part of what they resolved is durable by now; the tables may lag behind.
        if not await self._is_caught_up():
            talk.due_s = self._monotonic_s() + SOON_S
            return
        compared = await self._book.compared(sender, claim, asked)
        verdict = compare(compared.posted_minor, compared.rows, claim, asked)
        talk.their_size = max(talk.their_size, claim.mirror.size)
        talk.status = MirrorStatus(
            kind=verdict.kind,
            at_ms=self._ledger.wall_ms(),
            their_balance_minor=claim.mirror.balance_minor,
            delayed_count=len(verdict.delayed),
            size=claim.mirror.size,
        )
        if verdict.kind == "unclear":
            talk.due_s = self._monotonic_s() + SOON_S
        elif verdict.kind == "agreed":
            await self._agree(sender, claim, verdict, compared.size)
        else:
            await self._begin_hunt(sender, talk, _Hunt(claim, asked, message, verdict, await self._mark(sender)))

    async def _is_caught_up(self) -> bool:
        """Wait until the tables show all that is durable now; False if they don't in time."""
        return await self._ledger.wait_for(self._ledger.durable_size() - 1, VIEWS_WAIT_S)

    def _open_claim(self, sender: bytes, side: Side, message: MirrorShown) -> Claim:
        claim = open_mirror(
            message.statement,
            message.lists,
            message.signature,
            agent=side.agent,
            speaker=sender,
            hearer=self._ledger.own_ledger(),
        )
        if claim.mirror.unit != side.unit:
            raise RemoteProtocolError("mirror_unsound", f"in {claim.mirror.unit}, expected {side.unit}")
        return claim

    async def _agree(self, sender: bytes, claim: Claim, verdict: Verdict, our_size: int) -> None:
        await self.incidents.explain(sender, self._ledger.wall_ms())
        mark = Mark(delayed=verdict.delayed[:MAX_LISTED], our_size=our_size, their_size=claim.mirror.size)
        await self._marks.put(sender.hex(), mark)

    async def _mark(self, sender: bytes) -> Mark | None:
        mark: Mark | None = await self._marks.get(sender.hex())
        return mark

    # --- naming a difference ----------------------------------------------------------------------------------------

    async def _begin_hunt(self, sender: bytes, talk: _Talk, hunt: _Hunt) -> None:
        if await self.incidents.is_named(sender, _fingerprint(sender, hunt.verdict)):
            return
        log.warning("mirror_differs", partner=sender.hex(), difference_minor=hunt.verdict.difference_minor)
        talk.hunt, talk.asked_s = hunt, self._monotonic_s()
        hunt.awaited = 0 if hunt.mark is None else hunt.mark.their_size
        await self._write(sender, hunt)
        self._tell(sender, AskMoves(hunt.awaited))

    async def _take_moves(self, sender: bytes, message: MovesShown) -> None:
        peer, talk = self._ledger.peer(sender), self._talk(sender)
        hunt = talk.hunt
        if peer is None or hunt is None or hunt.awaited is None:
            return
        side = peer.peering.side_of(sender)
        page = open_moves(
            message.statement, message.signature, agent=side.agent, speaker=sender, hearer=self._ledger.own_ledger()
        )
        if page.start != hunt.awaited:
            return
        talk.asked_s = self._monotonic_s()
        hunt.moves += page.moves
        hunt.page_count += 1
        hunt.pages = [*hunt.pages, (message.statement, message.signature)][-MAX_KEPT_PAGES:]
        hunt.awaited = page.more_from if hunt.page_count < MAX_PAGES else None
        if hunt.awaited is not None:
            self._tell(sender, AskMoves(hunt.awaited))
            return
        await self._name(sender, talk, hunt)

    async def _name(self, sender: bytes, talk: _Talk, hunt: _Hunt) -> None:
        await self._is_caught_up()
        start = 0 if hunt.mark is None else hunt.mark.our_size
        found = await self._book.posted(sender, start, [move.tid for move in hunt.moves])
        shown = {move.tid for move in hunt.moves}
        ours = {tid: row for tid, row in found.items() if tid in shown or row.opened_index < hunt.asked.size}
        there = hunt.claim.statuses
        absent = {tid for tid in hunt.asked.pending if there.get(tid) is None}
        waiting = frozenset(tid for tid, status in there.items() if status == "pending") | absent
        carried = frozenset() if hunt.mark is None else frozenset(hunt.mark.delayed)
        hunt.differences = find_differences(ours, hunt.moves, waiting=waiting | carried)
        indexes = [one.their_index for one in hunt.differences if one.their_index is not None]
        hunt.wanted = tuple(sorted(set(indexes))[:MAX_PROOFS])
        if not hunt.wanted:
            await self._finish(sender, talk, hunt)
        for index in hunt.wanted:
            self._tell(sender, AskRecord(index))

    async def _take_record(self, sender: bytes, message: RecordShown) -> None:
        peer, talk = self._ledger.peer(sender), self._talk(sender)
        hunt, proof = talk.hunt, message.proof
        if peer is None or hunt is None or proof.inclusion.index not in hunt.wanted:
            return
        side = peer.peering.side_of(sender)
        if (proof.log.origin, proof.log.public_key) != (side.origin, side.log):
            raise RemoteProtocolError("proof_key_wrong", "of another log")
        body = require_included(proof.inclusion, open_signed(proof.checkpoint, proof.log))
        if body.type != RESOLVE.tag:
            raise RemoteProtocolError("decision_wrong", body.type)
        hunt.records[proof.inclusion.index] = proof
        if len(hunt.records) == len(hunt.wanted):
            await self._finish(sender, talk, hunt)

    async def _finish(self, sender: bytes, talk: _Talk, hunt: _Hunt) -> None:
        talk.hunt = None
        talk.due_s = self._monotonic_s() + AGAIN_S
        await self._write(sender, hunt)

    async def _write(self, sender: bytes, hunt: _Hunt) -> None:
        """Write the incident with what is known by now."""
        peer = self._ledger.peer(sender)
        if peer is None:
            return
        verdict, mirror, side = hunt.verdict, hunt.claim.mirror, peer.peering.side_of(sender)
        tids = [*verdict.opposed, *verdict.unheard, *(one.tid for one in hunt.differences)]
        kind = _kind(verdict)
        _, their_checkpoint = await self._ledger.cosigned(side.origin)
        evidence = Evidence(
            claim=hunt.shown.statement,
            claim_lists=hunt.shown.lists,
            claim_signature=hunt.shown.signature,
            moves=tuple(hunt.pages),
            our_checkpoint=self._ledger.checkpoint(),
            our_records=await self._own_records(sender, tids),
            their_agent=side.agent,
            their_checkpoint=their_checkpoint,
            their_records=tuple(hunt.records.values()),
        )
        now_ms = self._ledger.wall_ms()
        incident = Incident(
            deal_count=len(hunt.differences),
            deals=tuple(map(_named, hunt.differences[:MAX_NAMED])),
            difference_minor=verdict.difference_minor,
            evidence=evidence,
            expected_minor=verdict.expected_minor,
            fingerprint=_fingerprint(sender, verdict),
            kind=kind,
            note="",
            noted_by=None,
            noticed_at_ms=now_ms,
            partner=sender,
            seen_at_ms=now_ms,
            shown_minor=mirror.balance_minor,
            status="open",
            unit=mirror.unit,
        )
        name = await self.incidents.notice(incident)
        if name is not None:
            log.error("incident", id=name, kind=kind, partner=sender.hex(), deal_count=incident.deal_count)

    async def _own_records(self, sender: bytes, tids: list[bytes]) -> tuple[RecordProof, ...]:
        found = await self._book.resolutions(sender, tids[: 2 * MAX_PROOFS])
        indexes = sorted(set(found.values()))[:MAX_PROOFS]
        return tuple([await self._ledger.prove_record(index) for index in indexes])

    def _talk(self, partner: bytes) -> _Talk:
        return self._talks.setdefault(partner, _Talk())


def _kind(verdict: Verdict) -> IncidentKind:
    if verdict.opposed:
        return "deal_opposed"
    return "deal_unheard" if verdict.unheard else "mirror_differs"


def _fingerprint(partner: bytes, verdict: Verdict) -> bytes:
    tids = (*verdict.opposed, *verdict.unheard)
    return fingerprint_of(partner, _kind(verdict), verdict.difference_minor, tids)


def _named(one: Difference) -> NamedDeal:
    return NamedDeal(
        expected_minor=one.expected_minor,
        kind=one.kind,
        shown_minor=one.shown_minor,
        their_index=one.their_index,
        tid=one.tid,
    )
