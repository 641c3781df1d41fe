# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a transfer to another ledger would cost, over which path: before anything is signed or reserved.

The node finds paths in what partners publish; the payer's client checks the draft, names the two members and signs. A
quote promises nothing: rooms are known in bands only, and any ledger of the path may refuse.
"""

from collections.abc import Mapping
from typing import Annotated, Protocol

import msgspec

from ecot_node.http.errors import Problem
from ecot_node.http.fields import BytesHex, Count, HashHex, JsonBody, JsonReply, Listing, Page, Positive, UnitCode
from ecot_node.http.routes import AnyRoute, Request, Route
from ecot_protocol.domains.federation.deals import DRAFT, Draft
from ecot_protocol.domains.federation.routes import Routes, find_drafts, ledger_named, own_links
from ecot_protocol.state import State


class KnowsRoutes(Protocol):
    """What these routes need of the running federation."""

    def routes(self) -> Mapping[bytes, Routes]: ...


class QuoteBody(JsonBody):
    """Who is to be paid, and how much is to arrive.

    Attributes:
        payee_ledger: id (hex), domain or origin of the payee's ledger.
        amount_minor: what the payee gets, in minor units of its ledger's unit.
    """

    payee_ledger: Annotated[str, msgspec.Meta(min_length=1, max_length=300)]
    amount_minor: Positive


class QuoteHop(JsonReply):
    """A hop to `ledger`, which takes in `in_minor` in its own `unit` and keeps `fee_minor` of it."""

    ledger: HashHex
    unit: UnitCode
    in_minor: Count
    fee_minor: Count


class QuoteReply(JsonReply):
    """A way to pay.

    Attributes:
        draft: canonical bytes, for the client to complete.
        total_minor: the whole cost, in our own `unit`.
        decider: the ledger whose log decides.
        hops: from ours to the payee's.
    """

    draft: BytesHex
    total_minor: Count
    unit: UnitCode
    decider: HashHex
    hops: tuple[QuoteHop, ...]


class QuotesReply(JsonReply):
    """Ways to pay, the cheapest first; none if no path is known that may have the room."""

    payee_ledger: HashHex
    quotes: tuple[QuoteReply, ...]


class DestinationReply(JsonReply):
    """A ledger whose members can be paid: a partner, or one that partners of partners forward to.

    Attributes:
        scale: decimals of its unit; None if it publishes nothing.
    """

    ledger: HashHex
    domain: str
    unit: UnitCode
    scale: Count | None
    is_partner: bool


def quote_routes(federation: KnowsRoutes | None) -> tuple[AnyRoute, ...]:
    """Return the routes of a node.

    Args:
        federation: running; None if it is not enabled: then partners alone are found.
    """

    def known() -> Mapping[bytes, Routes]:
        return federation.routes() if federation is not None else {}

    async def list_destinations(request: Request[Page, None]) -> Listing[DestinationReply]:
        routes = known()

        def ask(state: State) -> Listing[DestinationReply]:
            return Listing(items=_destinations(state, routes), next=None, index=state.size)

        return await request.context.ledger.read(ask)

    async def quote(request: Request[None, QuoteBody]) -> QuotesReply:
        routes, body = known(), request.body

        def ask(state: State) -> QuotesReply | None:
            payee_ledger = ledger_named(state, routes.values(), body.payee_ledger)
            if payee_ledger is None or state.ledger is None:
                return None
            drafts = find_drafts(state, routes, payee_ledger, body.amount_minor)
            return QuotesReply(payee_ledger=payee_ledger.hex(), quotes=tuple(map(_quote, drafts)))

        found = await request.context.ledger.read(ask)
        if found is None:
            raise Problem("not_found")
        return found

    return (
        Route(
            method="GET",
            path="/v1/destinations",
            summary="List ledgers whose members can be paid",
            tag="federation",
            access="members",
            handler=list_destinations,
            params=Page,
            response=Listing[DestinationReply],
        ),
        Route(
            method="POST",
            path="/v1/transfers/quote",
            summary="Ask what a transfer to another ledger would cost",
            tag="federation",
            access="members",
            handler=quote,
            body=QuoteBody,
            response=QuotesReply,
            errors=("not_found",),
        ),
    )


def _destinations(state: State, routes: Mapping[bytes, Routes]) -> tuple[DestinationReply, ...]:
    if state.ledger is None:
        return ()
    scales = {one.ledger: one.links[0].scale for one in routes.values() if one.links}
    own = own_links(state)
    found = {link.ledger: (link, True) for link in own}
    for one in routes.values():
        for link in one.links:
            if link.ledger != state.ledger:
                found.setdefault(link.ledger, (link, False))
    return tuple(
        DestinationReply(
            ledger=ledger.hex(),
            domain=link.domain,
            unit=link.partner_unit,
            scale=scales.get(ledger),
            is_partner=is_partner,
        )
        for ledger, (link, is_partner) in sorted(found.items())
    )


def _quote(draft: Draft) -> QuoteReply:
    hops = []
    for place, hop in enumerate(draft.hops, 1):
        out_minor = draft.hops[place].out_minor if place < len(draft.hops) else hop.in_minor
        ledger, unit = draft.path[place].hex(), draft.units[place]
        hops.append(QuoteHop(ledger=ledger, unit=unit, in_minor=hop.in_minor, fee_minor=hop.in_minor - out_minor))
    return QuoteReply(
        draft=DRAFT.encode(draft).hex(),
        total_minor=draft.hops[0].out_minor,
        unit=draft.units[0],
        decider=draft.decision.ledger.hex(),
        hops=tuple(hops),
    )
