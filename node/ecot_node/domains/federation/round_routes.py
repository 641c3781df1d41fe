# SPDX-License-Identifier: AGPL-3.0-or-later
"""Reads and acts about rounds of clearing: what members offer, rounds that our ledger took part in, calling one."""

import os
from typing import Annotated, Final, Literal, Protocol

import msgspec
import sqlalchemy as sa

from ecot_node.domains.federation.views import obligations, rounds
from ecot_node.domains.reading import Key, Row, fetch_page, may_read_member, refuse_unless
from ecot_node.http.errors import Problem
from ecot_node.http.fields import (
    Count,
    HashHex,
    IdHex,
    JsonBody,
    JsonReply,
    Listing,
    Page,
    Params,
    TimeMs,
    UnitCode,
    parse_hex,
)
from ecot_node.http.routes import AnyRoute, Content, Media, Request, Route
from ecot_protocol.domains.federation.netting import CALL_WINDOW_MS, Call, decode_call, encode_call
from ecot_protocol.domains.federation.statements import DecisionPolicy
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.state import State
from ecot_protocol.wire.statement import MAX_LEDGERS

ROUND_TYPE: Final = "application/vnd.ecot.round"
MAX_PHASE_S: Final = CALL_WINDOW_MS // 4_000
ObligationStatus = Literal["cleared", "offered", "withdrawn"]
PhaseSeconds = Annotated[int, msgspec.Meta(ge=1, le=MAX_PHASE_S)]


class Rounds(Protocol):
    """What these routes need of the running federation."""

    def round(self, call: bytes) -> bytes | None: ...

    async def call(self, raw: bytes) -> None: ...


class ObligationsParams(Page):
    """Which obligations."""

    member: IdHex | None = None
    status: ObligationStatus | None = None


class ObligationReply(JsonReply):
    """What a member offered for clearing: a debt of its own (`is_debtor`), or one that it is owed.

    `other_ledger` is the ledger of the other side; `left_minor` is what is still owed.
    """

    obligation: IdHex
    is_debtor: bool
    member: IdHex
    other_ledger: HashHex
    unit: UnitCode
    amount_minor: Count
    left_minor: Count
    due_ms: TimeMs | None
    at_ms: TimeMs
    status: ObligationStatus
    index: Count


class RoundReply(JsonReply):
    """A round of clearing that our ledger committed to; `root` is the Merkle root of what it offered."""

    call: IdHex
    unit: UnitCode
    decider: HashHex
    ledgers: tuple[HashHex, ...]
    offer_count: Count
    root: HashHex
    at_ms: TimeMs
    index: Count


class RoundPath(Params):
    """Which round."""

    call: IdHex


class CallBody(JsonBody):
    """A call to a round of clearing.

    Attributes:
        unit: of all amounts.
        decider: ledger whose log decides, and keeps the board.
        ledgers: whom to call, ourselves apart; empty: every partner that shares clearing under this decider.
        phase_s: seconds to commit, and again to reveal, to propose, and to accept.
    """

    unit: UnitCode
    decider: HashHex
    ledgers: Annotated[tuple[HashHex, ...], msgspec.Meta(max_length=MAX_LEDGERS)]
    phase_s: PhaseSeconds


class CallReply(JsonReply):
    """The round that was called."""

    call: IdHex
    ledgers: tuple[HashHex, ...]


_OBLIGATION_KEY: Final = Key(obligations.c.opened_idx, is_newest_first=True)
_ROUND_KEY: Final = Key(rounds.c.opened_idx, is_newest_first=True)


async def list_obligations(request: Request[ObligationsParams, None]) -> Listing[ObligationReply]:
    """List what members offered for clearing, newest first; a member sees its own."""
    caller, member = request.signed_in, parse_hex(request.params.member)
    refuse_unless(member is None or may_read_member(caller, member))
    query = sa.select(*obligations.c)
    if member is not None:
        query = query.where(obligations.c.member == member)
    elif not caller.is_officer:
        query = query.where(obligations.c.member.in_([one.member for one in caller.members]))
    if request.params.status is not None:
        query = query.where(obligations.c.status == request.params.status)
    async with request.context.views.connect() as connection:
        page = await fetch_page(connection, request.params, query, _OBLIGATION_KEY)
    return Listing(items=tuple(map(_obligation, page.rows)), next=page.next, index=page.index)


def _obligation(row: Row) -> ObligationReply:
    return ObligationReply(
        obligation=row.obligation.hex(),
        is_debtor=bool(row.is_debtor),
        member=row.member.hex(),
        other_ledger=row.other_ledger.hex(),
        unit=row.unit,
        amount_minor=row.amount_minor,
        left_minor=row.left_minor,
        due_ms=row.due_ms,
        at_ms=row.opened_at_ms,
        status=row.status,
        index=row.opened_idx,
    )


async def list_rounds(request: Request[Page, None]) -> Listing[RoundReply]:
    """List rounds of clearing that our ledger committed to, newest first."""
    async with request.context.views.connect() as connection:
        page = await fetch_page(connection, request.params, sa.select(*rounds.c), _ROUND_KEY)
    return Listing(items=tuple(map(_round, page.rows)), next=page.next, index=page.index)


def _round(row: Row) -> RoundReply:
    return RoundReply(
        call=row.call.hex(),
        unit=row.unit,
        decider=row.decider.hex(),
        ledgers=tuple(row.ledgers[start : start + 32].hex() for start in range(0, len(row.ledgers), 32)),
        offer_count=row.offer_count,
        root=row.root.hex(),
        at_ms=row.opened_at_ms,
        index=row.opened_idx,
    )


def build_call(state: State, body: CallBody, now_ms: int, nonce: bytes) -> bytes:
    """Build the statement of a call from what our ledger knows of its partners.

    Raises:
        Problem: ``clearing_unsound``.
    """
    assert state.ledger is not None
    decider = bytes.fromhex(body.decider)
    wanted = {bytes.fromhex(one) for one in body.ledgers} - {state.ledger}
    agents = {state.ledger: state.coop.node_keys["agent"].public_key}
    policy: DecisionPolicy | None = None
    for ledger in sorted(wanted or state.federation.peers):
        peer = state.federation.active_peer(ledger)
        found = peer.peering.decider(decider) if peer is not None and "clearing" in peer.peering.shared else None
        if peer is not None and found is not None and (policy is None or found == policy):
            policy = found
            agents[ledger] = peer.peering.side_of(ledger).agent
        elif wanted:
            raise Problem("clearing_unsound", f"{ledger.hex()} does not clear with us under this decider")
    if policy is None or not 2 <= len(agents) <= MAX_LEDGERS:
        raise Problem("clearing_unsound", f"expected 2 to {MAX_LEDGERS} ledgers that clear under one policy")
    ledgers = tuple(sorted(agents))
    phase_ms = body.phase_s * 1_000
    call = Call(
        agents=tuple(agents[one] for one in ledgers),
        commit_by_ms=now_ms + phase_ms,
        decision=policy,
        earliest_abort_ms=now_ms + 4 * phase_ms,
        nonce=nonce,
        propose_by_ms=now_ms + 3 * phase_ms,
        reveal_by_ms=now_ms + 2 * phase_ms,
        unit=body.unit,
    )
    return encode_call(call, ledgers)


def round_routes(federation: Rounds | None) -> tuple[AnyRoute, ...]:
    """Return the routes of rounds.

    Args:
        federation: None where it is not enabled.
    """

    async def call_round(request: Request[None, CallBody]) -> CallReply:
        refuse_unless(request.signed_in.is_officer)
        if federation is None:
            raise Problem("federation_disabled")
        now_ms, nonce = request.context.clock_ms(), os.urandom(16)
        raw = await request.context.ledger.read(lambda state: build_call(state, request.body, now_ms, nonce))
        try:
            called = decode_call(raw)
            await federation.call(raw)
        except RemoteProtocolError as error:
            raise Problem("clearing_unsound", str(error)) from error
        return CallReply(call=called.id.hex(), ledgers=tuple(one.hex() for one in called.ledgers))

    async def show_round(request: Request[RoundPath, None]) -> Content:
        raw = federation.round(bytes.fromhex(request.params.call)) if federation is not None else None
        if raw is None:
            raise Problem("not_found")
        return Content(raw, ROUND_TYPE)

    return (
        Route(
            method="GET",
            path="/v1/obligations",
            summary="List what members offered for clearing",
            tag="federation",
            handler=list_obligations,
            params=ObligationsParams,
            response=Listing[ObligationReply],
            errors=("cursor_malformed", "not_allowed"),
        ),
        Route(
            method="GET",
            path="/v1/rounds",
            summary="List rounds of clearing",
            tag="federation",
            access="members",
            handler=list_rounds,
            params=Page,
            response=Listing[RoundReply],
            errors=("cursor_malformed",),
        ),
        Route(
            method="POST",
            path="/v1/rounds",
            summary="Call partners to a round of clearing",
            tag="federation",
            handler=call_round,
            body=CallBody,
            response=CallReply,
            errors=("not_allowed", "clearing_unsound", "federation_disabled"),
        ),
        Route(
            method="GET",
            path="/v1/rounds/{call}",
            summary="Fetch all that a round of clearing consisted of, to check it again",
            tag="federation",
            access="members",
            handler=show_round,
            params=RoundPath,
            response=Media(ROUND_TYPE, "A round as it was kept: call, roots, reveals, the solution that won."),
            errors=("not_found",),
        ),
    )
