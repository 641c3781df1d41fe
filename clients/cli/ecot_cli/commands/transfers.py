# SPDX-License-Identifier: AGPL-3.0-or-later
"""Transfers to members of other ledgers: what they cost over which path, sending, and what became of them.

``transfer send`` signs the whole cost. Where a ledger of the path refuses, it signs the next way that the node knows,
never above the cost that was agreed to.
"""

import asyncio
import time
from typing import Annotated, Final, NamedTuple

import msgspec

from ecot_cli.acting import record, show_done
from ecot_cli.amounts import format_amount, format_instant, parse_amount, scale_of
from ecot_cli.errors import UsageProblem
from ecot_cli.framework import Command, argument, option
from ecot_cli.run import Run, barter_unit, member_names, read_id
from ecot_cli.standing import standing_of
from ecot_client.errors import NotRecorded
from ecot_client.federation import ABORT_AFTER_MS, build_send_over, check_quote, draft_direct
from ecot_client.models import DestinationInfo, LedgerInfo, PeerInfo, QuoteInfo, TransferInfo
from ecot_client.node import NodeClient
from ecot_client.receipts import Receipt
from ecot_protocol.domains.federation.deals import Draft, deal_id
from ecot_protocol.domains.federation.statements import decode_peering
from ecot_protocol.ledger.amounts import Rounding, share
from ecot_protocol.wire.encoding import MAX_INTEGER

WAIT_S: Final = 60.0
"""How long a sending is watched before another way is tried; after that it goes on by itself."""
POLL_S: Final = 0.5

PartnerName = Annotated[str, argument("partner")]
Amount = Annotated[str, argument("amount")]


class _Plan(NamedTuple):
    """What is to be paid: what arrives, and what it may cost in our own unit."""

    payee_ledger: str
    payee_minor: int
    agreed_minor: int | None


async def find_peer(node: NodeClient, name: str) -> PeerInfo:
    """Return a partner by its domain, origin or id."""
    async for one in node.peers():
        if name in (one.domain, one.origin, one.ledger):
            return one
    raise UsageProblem("partner_not_found", partner=name)


async def _find_destination(node: NodeClient, name: str) -> DestinationInfo:
    async for one in node.destinations():
        if name in (one.domain, one.ledger):
            return one
    peer = await find_peer(node, name)
    return DestinationInfo(ledger=peer.ledger, domain=peer.domain, unit=peer.partner_unit, scale=None, is_partner=True)


def _scale_there(info: LedgerInfo, destination: DestinationInfo) -> int:
    """Return the decimals of the payee's unit; if its ledger publishes none, those of a unit of ours called alike."""
    return scale_of(info, destination.unit) if destination.scale is None else destination.scale


async def destinations(run: Run) -> None:
    """List the ledgers whose members can be paid."""
    async with run.node() as node:
        found = [one async for one in node.destinations()]
    if run.out.json(found):
        return
    run.out.table(
        ("partner", "unit", "id"),
        ((one.domain, one.unit, one.ledger) for one in found),
    )


async def quote(run: Run, partner: PartnerName, amount: Amount) -> None:
    """Show what it costs to bring an amount to a member of another ledger, and over which path."""
    async with run.node() as node:
        info, destination = await node.info(), await _find_destination(node, partner)
        payee_minor = parse_amount(amount, _scale_there(info, destination), run.locale)
        found = await node.quotes(destination.ledger, payee_minor)
        domains = {one.ledger: one.domain async for one in node.destinations()}
    if run.out.json(found):
        return
    run.out.table(
        ("path", "cost>"),
        (
            (_path(one, domains), format_amount(one.total_minor, scale_of(info, one.unit), one.unit, run.locale))
            for one in found.quotes
        ),
    )


def _path(found: QuoteInfo, domains: dict[str, str]) -> str:
    return " > ".join(domains.get(hop.ledger, hop.ledger[:8]) for hop in found.hops)


async def send(
    run: Run,
    partner: PartnerName,
    payee: Annotated[str, argument("foreign_payee")],
    amount: Amount,
    memo: Annotated[str | None, option("--memo", "memo")] = None,
    *,
    at_most: Annotated[str | None, option("--at-most", "at_most")] = None,
) -> None:
    """Pay a member of another ledger. Without --at-most, the amount is what leaves one's own account, at most; with it,
    the amount is what arrives.
    """
    async with run.node() as node:
        info = await node.info()
        destination = await _find_destination(node, partner)
        plan = await _plan(run, node, info, destination, (amount, at_most))
        drafts = await _drafts(run, node, info, destination, plan)
        receipt, draft = await _try_all(run, node, drafts, payee, memo)
    scale = scale_of(info, draft.units[0])
    cost = draft.hops[0].out_minor
    minors = {"amount_minor": cost, "partner_amount_minor": draft.hops[-1].in_minor}
    shown = format_amount(cost, scale, draft.units[0], run.locale)
    show_done(run, receipt, "sent", payee=payee, partner=destination.domain, amount=shown, **minors)


async def _plan(
    run: Run, node: NodeClient, info: LedgerInfo, destination: DestinationInfo, amounts: tuple[str, str | None]
) -> _Plan:
    amount, at_most = amounts
    if destination.is_partner and at_most is None:
        peer = await find_peer(node, destination.ledger)
        peering = decode_peering(bytes.fromhex(peer.statement))
        scale = scale_of(info, peer.unit)
        agreed_minor = parse_amount(amount, scale, run.locale)
        payee_minor = share(agreed_minor, peering.rate_to(bytes.fromhex(peer.ledger)), Rounding.DOWN)
        if not 0 < payee_minor <= MAX_INTEGER:
            raise UsageProblem("amount_malformed", amount=amount, decimals=scale)
        return _Plan(destination.ledger, payee_minor, agreed_minor)
    payee_minor = parse_amount(amount, _scale_there(info, destination), run.locale)
    most_minor = None if at_most is None else parse_amount(at_most, scale_of(info, barter_unit(info)), run.locale)
    return _Plan(destination.ledger, payee_minor, most_minor)


async def _drafts(
    run: Run, node: NodeClient, info: LedgerInfo, destination: DestinationInfo, plan: _Plan
) -> list[Draft]:
    """Return the ways within the cost that is agreed to, the cheapest first.

    Raises:
        UsageProblem: ``no_path``; ``cost_not_agreed``: with what the cheapest one costs.
    """
    ledger, payee_ledger = await node.ledger_id(), bytes.fromhex(plan.payee_ledger)
    quotes = (await node.quotes(plan.payee_ledger, plan.payee_minor)).quotes
    drafts = [check_quote(one, ledger, payee_ledger, plan.payee_minor) for one in quotes]
    if not drafts and destination.is_partner:  # our own ledger tells why it can't be
        peer = await find_peer(node, destination.ledger)
        peering, peering_id = decode_peering(bytes.fromhex(peer.statement)), bytes.fromhex(peer.statement_id)
        drafts = [draft_direct(peering, ledger, plan.payee_minor, peering_id)]
    if not drafts:
        raise UsageProblem("no_path", partner=destination.domain)
    agreed_minor = -1 if plan.agreed_minor is None else plan.agreed_minor
    affordable = [draft for draft in drafts if draft.hops[0].out_minor <= agreed_minor]
    if not affordable:
        unit = drafts[0].units[0]
        cost = format_amount(drafts[0].hops[0].out_minor, scale_of(info, unit), unit, run.locale)
        raise UsageProblem("cost_not_agreed", partner=destination.domain, cost=cost)
    return affordable


async def _try_all(
    run: Run, node: NodeClient, drafts: list[Draft], payee: str, memo: str | None
) -> tuple[Receipt, Draft]:
    """Send over the first way that nobody refuses; each is a new entry, signed anew."""
    mine, statutes = await run.member(node), await node.statutes()
    for place, draft in enumerate(drafts):
        entry_id, payload = build_send_over(
            draft,
            bytes.fromhex(mine.member),
            read_id(payee),
            now_ms=node.clock_ms(),
            statutes_version=statutes.version,
            memo=memo,
            abort_after_ms=max(ABORT_AFTER_MS, statutes.statutes.federation.transfer_abort_delay_ms),
        )
        is_last = place + 1 == len(drafts)
        try:
            receipt = await record(
                node,
                "federation.send",
                payload,
                author=bytes.fromhex(mine.member),
                entry_id=entry_id,
                contents={"memo": memo},
            )
        except NotRecorded as error:
            if is_last or error.code not in _OF_THE_PATH:
                raise
            run.out.note("way_refused", code=error.code)
            continue
        refused = None if is_last else await _watch(node, deal_id(payload.contract).hex(), mine.member)
        if refused is None:
            return receipt, draft
        run.out.note("way_refused", code=refused.refusal or refused.status)
    raise AssertionError("the last way is not left")


_OF_THE_PATH: Final = frozenset(("upper_limit_exceeded", "too_many_pending", "peer_unknown", "peering_superseded"))
"""Why our own ledger refuses one way and may let another pass."""


async def _watch(node: NodeClient, tid: str, member: str) -> TransferInfo | None:
    """Return a transfer that was refused on its way, once it is aborted; None if it is posted, or still under way."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        async for one in node.transfers(member=member):
            if one.tid == tid and one.status != "pending":
                return one if one.status == "abort" else None
            if one.tid == tid:
                break
        await asyncio.sleep(POLL_S)
    return None


async def list_transfers(run: Run, status: Annotated[str | None, option("--status", "status")] = None) -> None:
    """List transfers to and from partners, newest first."""
    async with run.node() as node:
        info = await node.info()
        found = [one async for one in node.transfers(status=status)]
        standing = await standing_of(run, node)
        domains = {one.ledger: one.domain async for one in node.destinations()}
        names = {} if run.options.is_json else await member_names(node)
    if run.out.json([{**msgspec.to_builtins(one), "standing": standing.of(_last_index(one))} for one in found]):
        return
    run.out.table(
        ("day", "status", "standing", "role", "member", "partner", "amount>", "id"),
        (
            (
                format_instant(one.at_ms, run.locale),
                run.out.word("transfer", one.status),
                standing.shown(run, _last_index(one)),
                run.out.word("role", one.role),
                names.get(one.member, one.member[:8]),
                domains.get(one.partner, one.partner[:8]),
                format_amount(one.amount_minor, scale_of(info, one.unit), one.unit, run.locale),
                one.tid,
            )
            for one in found
        ),
    )


def _last_index(transfer: TransferInfo) -> int:
    """Return the place of what a transfer stands by: its end, or as yet its beginning."""
    return transfer.resolved_index if transfer.resolved_index is not None else transfer.index


TRANSFER_COMMANDS: Final = (
    Command("transfer destinations", destinations),
    Command("transfer quote", quote),
    Command("transfer send", send),
    Command("transfer list", list_transfers),
)
