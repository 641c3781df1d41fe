# SPDX-License-Identifier: AGPL-3.0-or-later
"""Reads and acts of the federation: transfers between ledgers, clearing rounds; partners are in `peer_routes`."""

import os
from collections.abc import Callable
from typing import Final, Literal, Protocol

import sqlalchemy as sa

from ecot_node.domains.federation.peer_routes import PeerLink, peer_routes
from ecot_node.domains.federation.quote_routes import KnowsRoutes, quote_routes
from ecot_node.domains.federation.solver import ClearingFailed, Debt, propose_flows
from ecot_node.domains.federation.views import clearing_parts, clearings, transfers, transits
from ecot_node.domains.federation.watch_routes import watch_routes
from ecot_node.domains.reading import Key, Row, fetch_page, may_read_member, refuse_unless
from ecot_node.federation.partners import PartnerDesk
from ecot_node.http.errors import Problem
from ecot_node.http.fields import (
    Count,
    HashHex,
    IdHex,
    Integer,
    JsonBody,
    JsonReply,
    Listing,
    Page,
    Positive,
    TimeMs,
    UnitCode,
    parse_hex,
)
from ecot_node.http.routes import AnyRoute, Request, Route
from ecot_node.ledger.next_keys import NextKeys
from ecot_protocol.domains.federation.deals import Round, deal_id, encode_round
from ecot_protocol.domains.federation.messages import Refused
from ecot_protocol.domains.federation.sightings import WatchedLog
from ecot_protocol.domains.federation.statements import DecisionPolicy
from ecot_protocol.state import State
from ecot_protocol.wire.keys import Signer

ROUND_LIFETIME_MS: Final = 60_000
"""From its proposal on, how long a round may be accepted before its abort may be asked for."""

TransferStatus = Literal["abort", "commit", "doubtful", "pending"]


class Federation(KnowsRoutes, PeerLink, Protocol):
    """What these routes need of the running federation."""

    async def propose(self, contract: bytes) -> None: ...

    def watched(self) -> tuple[WatchedLog, ...]: ...

    def refusal(self, tid: bytes) -> Refused | None: ...


class TransfersParams(Page, kw_only=True):
    """Which transfers: of a member (else of all the members that the caller acts for; for officers, of everybody)."""

    member: IdHex | None = None
    status: TransferStatus | None = None


class TransferReply(JsonReply):
    """A transfer to (`role` ``payer``) or from (``payee``) another ledger; `index` opened it.

    Attributes:
        partner: the ledger at the other end, with its unit and amount.
        via: the ledgers in between, from the payer's on.
        refusal: code of the reason why it can't go through, of the ledger `refused_by`; as far as this node was told
            since its start.
    """

    tid: IdHex
    role: Literal["payee", "payer"]
    member: IdHex
    partner: HashHex
    via: tuple[HashHex, ...]
    unit: UnitCode
    amount_minor: Count
    partner_unit: UnitCode
    partner_amount_minor: Count
    earliest_abort_ms: TimeMs
    at_ms: TimeMs
    status: TransferStatus
    resolved_index: Count | None
    refusal: str | None
    refused_by: HashHex | None
    index: Count


class TransitReply(JsonReply):
    """A transfer between others that this ledger hands on, from the partner `source` to the partner `target`."""

    tid: IdHex
    source: HashHex
    target: HashHex
    unit: UnitCode
    amount_minor: Count
    fee_minor: Count
    earliest_abort_ms: TimeMs
    at_ms: TimeMs
    status: TransferStatus
    resolved_index: Count | None
    index: Count


class ClearedReply(JsonReply):
    """What a round clears with a partner; positive if we owed it."""

    partner: HashHex
    amount_minor: Integer


class ClearingReply(JsonReply):
    """A clearing round that this ledger takes part in; `call`: the round of several deals that it follows from."""

    tid: IdHex
    unit: UnitCode
    call: IdHex | None
    at_ms: TimeMs
    status: TransferStatus
    cleared: tuple[ClearedReply, ...]
    resolved_index: Count | None
    index: Count


class DebtBody(JsonBody):
    """A debt between two ledgers that are partners of each other."""

    debtor: HashHex
    creditor: HashHex
    amount_minor: Positive


class ClearingBody(JsonBody):
    """Debts to be cleared in a unit; `decider` is the ledger whose log decides."""

    unit: UnitCode
    decider: HashHex
    debts: tuple[DebtBody, ...]


class ProposedReply(JsonReply):
    """Rounds that were offered to all who take part in them, and how much each clears in all."""

    tid: IdHex
    cleared_minor: Count


class ProposalsReply(JsonReply):
    """Rounds offered."""

    items: tuple[ProposedReply, ...]


_TRANSFERS: Final = sa.select(*transfers.c)
_TRANSFER_KEY: Final = Key(transfers.c.opened_idx, is_newest_first=True)
_TRANSIT_KEY: Final = Key(transits.c.opened_idx, is_newest_first=True)
_CLEARING_KEY: Final = Key(clearings.c.opened_idx, is_newest_first=True)


async def _list_transfers(
    request: Request[TransfersParams, None], refusal_of: Callable[[bytes], Refused | None]
) -> Listing[TransferReply]:
    caller, member = request.signed_in, parse_hex(request.params.member)
    refuse_unless(member is None or may_read_member(caller, member))
    query = _TRANSFERS
    if member is not None:
        query = query.where(transfers.c.member == member)
    elif not caller.is_officer:
        query = query.where(transfers.c.member.in_([one.member for one in caller.members]))
    if request.params.status is not None:
        query = query.where(transfers.c.status == request.params.status)
    async with request.context.views.connect() as connection:
        page = await fetch_page(connection, request.params, query, _TRANSFER_KEY)
    items = tuple(_transfer(row, refusal_of(row.tid)) for row in page.rows)
    return Listing(items=items, next=page.next, index=page.index)


def _transfer(row: Row, refused: Refused | None) -> TransferReply:
    return TransferReply(
        tid=row.tid.hex(),
        role=row.role,
        member=row.member.hex(),
        partner=row.partner.hex(),
        via=tuple(row.via[start : start + 32].hex() for start in range(0, len(row.via), 32)),
        unit=row.unit,
        amount_minor=row.amount_minor,
        partner_unit=row.partner_unit,
        partner_amount_minor=row.partner_amount_minor,
        earliest_abort_ms=row.earliest_abort_ms,
        at_ms=row.opened_at_ms,
        status=row.status,
        resolved_index=row.resolved_idx,
        refusal=None if refused is None else refused.code,
        refused_by=None if refused is None else refused.ledger.hex(),
        index=row.opened_idx,
    )


async def list_transits(request: Request[Page, None]) -> Listing[TransitReply]:
    """List transfers between others that were handed on here, newest first."""
    refuse_unless(request.signed_in.is_officer)
    async with request.context.views.connect() as connection:
        page = await fetch_page(connection, request.params, sa.select(*transits.c), _TRANSIT_KEY)
    return Listing(items=tuple(map(_transit, page.rows)), next=page.next, index=page.index)


def _transit(row: Row) -> TransitReply:
    return TransitReply(
        tid=row.tid.hex(),
        source=row.source.hex(),
        target=row.target.hex(),
        unit=row.unit,
        amount_minor=row.amount_minor,
        fee_minor=row.fee_minor,
        earliest_abort_ms=row.earliest_abort_ms,
        at_ms=row.opened_at_ms,
        status=row.status,
        resolved_index=row.resolved_idx,
        index=row.opened_idx,
    )


async def list_clearings(request: Request[Page, None]) -> Listing[ClearingReply]:
    """List clearing rounds, newest first."""
    async with request.context.views.connect() as connection:
        page = await fetch_page(connection, request.params, sa.select(*clearings.c), _CLEARING_KEY)
        tids = [row.tid for row in page.rows]
        found = await connection.execute(sa.select(*clearing_parts.c).where(clearing_parts.c.tid.in_(tids)))
        parts: dict[bytes, list[ClearedReply]] = {}
        for part in found:
            shown = ClearedReply(partner=part.partner.hex(), amount_minor=part.amount_minor)
            parts.setdefault(part.tid, []).append(shown)
    items = tuple(_clearing(row, tuple(parts.get(row.tid, ()))) for row in page.rows)
    return Listing(items=items, next=page.next, index=page.index)


def _clearing(row: Row, cleared: tuple[ClearedReply, ...]) -> ClearingReply:
    return ClearingReply(
        tid=row.tid.hex(),
        unit=row.unit,
        call=None if row.call is None else row.call.hex(),
        at_ms=row.opened_at_ms,
        status=row.status,
        cleared=cleared,
        resolved_index=row.resolved_idx,
        index=row.opened_idx,
    )


def federation_routes(
    federation: Federation | None,
    agent: Signer,
    desk: PartnerDesk | None = None,
    next_keys: NextKeys | None = None,
) -> tuple[AnyRoute, ...]:
    """Return the routes of a node.

    Args:
        federation: running; None if the node's federation is not enabled.
        agent: signs peerings.
        desk: for partners; None before the genesis.
        next_keys: coming keys of the node.
    """

    async def list_transfers(request: Request[TransfersParams, None]) -> Listing[TransferReply]:
        return await _list_transfers(request, lambda tid: federation.refusal(tid) if federation is not None else None)

    async def propose_clearing(request: Request[None, ClearingBody]) -> ProposalsReply:
        refuse_unless(request.signed_in.is_officer)
        if federation is None:
            raise Problem("federation_disabled")
        rounds = await request.context.ledger.read(
            lambda state: _rounds(state, request.body, request.context.clock_ms())
        )
        for raw, _ in rounds:
            await federation.propose(raw)
        items = tuple(ProposedReply(tid=deal_id(raw).hex(), cleared_minor=cleared) for raw, cleared in rounds)
        return ProposalsReply(items=items)

    return (
        *watch_routes(lambda: federation.watched() if federation is not None else ()),
        *quote_routes(federation),
        *peer_routes(federation, agent, desk, next_keys),
        Route(
            method="GET",
            path="/v1/transfers",
            summary="List transfers between ledgers",
            tag="federation",
            handler=list_transfers,
            params=TransfersParams,
            response=Listing[TransferReply],
            errors=("cursor_malformed", "not_allowed"),
        ),
        Route(
            method="GET",
            path="/v1/transits",
            summary="List transfers between others that are handed on here",
            tag="federation",
            handler=list_transits,
            params=Page,
            response=Listing[TransitReply],
            errors=("cursor_malformed", "not_allowed"),
        ),
        Route(
            method="GET",
            path="/v1/clearings",
            summary="List clearing rounds",
            tag="federation",
            access="members",
            handler=list_clearings,
            params=Page,
            response=Listing[ClearingReply],
            errors=("cursor_malformed",),
        ),
        Route(
            method="POST",
            path="/v1/clearings",
            summary="Propose to clear debts between partners",
            tag="federation",
            handler=propose_clearing,
            body=ClearingBody,
            response=ProposalsReply,
            errors=("not_allowed", "clearing_unsound", "federation_disabled"),
        ),
    )


def _rounds(state: State, body: ClearingBody, now_ms: int) -> list[tuple[bytes, int]]:
    """Solve, and build a statement for each round; every participant is a partner of ours, or ourselves."""
    debts = [Debt(bytes.fromhex(one.debtor), bytes.fromhex(one.creditor), one.amount_minor) for one in body.debts]
    decider = bytes.fromhex(body.decider)
    try:
        proposals = propose_flows(debts)
    except ClearingFailed as error:
        raise Problem("clearing_unsound", str(error)) from error
    rounds = []
    for proposal in proposals:
        terms = Round(
            agents=tuple(_agent_of(state, ledger) for ledger in proposal.ledgers),
            call=None,
            decision=_policy(state, decider),
            earliest_abort_ms=now_ms + ROUND_LIFETIME_MS,
            edges=proposal.edges,
            matched=None,
            members=(),
            nonce=os.urandom(16),
            potentials=proposal.potentials,
            pseudonyms=(),
            unit=body.unit,
        )
        rounds.append((encode_round(terms, proposal.ledgers), sum(edge.flow_minor for edge in proposal.edges)))
    return rounds


def _agent_of(state: State, ledger: bytes) -> bytes:
    if ledger == state.ledger:
        return state.coop.node_keys["agent"].public_key
    peer = state.federation.active_peer(ledger)
    if peer is None:
        raise Problem("clearing_unsound", f"{ledger.hex()} is not a partner")
    return peer.peering.side_of(ledger).agent


def _policy(state: State, decider: bytes) -> DecisionPolicy:
    for peer in state.federation.peers.values():
        policy = peer.peering.decider(decider) if peer.status == "active" else None
        if policy is not None:
            return policy
    raise Problem("clearing_unsound", f"no peering accepts {decider.hex()} as decider")
