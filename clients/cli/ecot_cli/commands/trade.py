# SPDX-License-Identifier: AGPL-3.0-or-later
"""Accounts and trade: balance, statement, direct transfers, trades with a barter and a euro part."""

from pathlib import Path
from typing import Annotated, Final

from ecot_cli.acting import record, show_done
from ecot_cli.amounts import DAY_MS, format_amount, format_instant, parse_amount, parse_day, scale_of
from ecot_cli.errors import UsageProblem
from ecot_cli.framework import Command, argument, option
from ecot_cli.run import Run, barter_unit, find_member, member_names, read_id
from ecot_cli.standing import standing_of
from ecot_client.models import LedgerInfo
from ecot_client.node import NodeClient
from ecot_client.proofs import ProvenBalance, prove_balances
from ecot_client.receipts import Receipt
from ecot_protocol.domains.coop.statutes import TradeStatutes
from ecot_protocol.domains.trade.acts import Accept, Confirm, Propose, Refuse, commission
from ecot_protocol.domains.trade.transfers import Pay
from ecot_protocol.ledger.entry_type import COOPERATIVE
from ecot_protocol.wire.encoding import Wire

Memo = Annotated[str | None, option("--memo", "memo")]
TradeId = Annotated[str, argument("trade")]
Amount = Annotated[str, argument("amount")]


async def balance(
    run: Run,
    member: Annotated[str | None, option("--member", "member")] = None,
    is_proven: Annotated[bool, option("--prove", "prove")] = False,
) -> None:
    """Show accounts: balance, what is promised, limits; with ``--prove``, as the newest seal proves them."""
    async with run.node() as node:
        info = await node.info()
        owner = await find_member(node, member) if member else (await run.member(node)).member
        accounts = await node.accounts(owner)
        if is_proven:
            names = [(one.unit, one.purpose) for one in accounts]
            _show_proven(run, info, await prove_balances(node, bytes.fromhex(owner), names))
            return
    if run.out.json(accounts):
        return
    rows = []
    for one in accounts:
        scale = scale_of(info, one.unit)
        amounts = (
            one.balance_minor,
            one.reserved_out_minor,
            one.reserved_in_minor,
            one.lower_minor,
            one.upper_minor,
        )
        rows.append((run.out.word("account", one.purpose), *(_shown(run, minor, scale, one.unit) for minor in amounts)))
    run.out.table(("account", "balance>", "promised_out>", "promised_in>", "lower>", "upper>"), rows)


def _shown(run: Run, minor: int | None, scale: int, unit: str) -> str:
    return "" if minor is None else format_amount(minor, scale, unit, run.locale)


def _show_proven(run: Run, info: LedgerInfo, proven: tuple[ProvenBalance, ...]) -> None:
    shown = [
        {
            "unit": one.unit,
            "purpose": one.purpose,
            "account": one.account,
            "seal_index": one.proof.seal_index,
            "size": one.proof.size,
            "sealed_at_ms": one.proof.sealed_at_ms,
        }
        for one in proven
    ]
    if run.out.json(shown):
        return
    run.out.table(
        ("account", "balance>", "lower>", "upper>", "sealed"),
        (
            (
                run.out.word("account", one.purpose),
                *(
                    _shown(run, minor, scale_of(info, one.unit), one.unit)
                    for minor in (one.account.balance_minor, one.account.lower_minor, one.account.upper_minor)
                ),
                format_instant(one.proof.sealed_at_ms, run.locale),
            )
            for one in proven
        ),
    )
    if proven:
        run.out.say("proven", index=proven[0].proof.seal_index, size=proven[0].proof.size)


async def statement(
    run: Run,
    unit: Annotated[str | None, option("--unit", "unit")] = None,
    purpose: Annotated[str, option("--purpose", "purpose")] = "barter",
    since: Annotated[str | None, option("--from", "from_day")] = None,
    until: Annotated[str | None, option("--to", "to_day")] = None,
) -> None:
    """Show every posting of an account with the balance after it."""
    async with run.node() as node:
        info, mine = await node.info(), await run.member(node)
        code = unit or barter_unit(info)
        limits = {"from_ms": parse_day(since) if since else None, "to_ms": parse_day(until) if until else None}
        found = await node.statement(mine.member, unit=code, purpose=purpose, **limits)
        standing = await standing_of(run, node)
        names = {} if run.options.is_json else await member_names(node)
    if run.out.json({"opening_minor": found.opening_minor, "lines": standing.told(found.lines)}):
        return
    scale = scale_of(info, code)
    rows = (
        (
            format_instant(one.at_ms, run.locale),
            run.out.word("posting", one.reason),
            _other_party(run, one.other, names),
            format_amount(one.amount_minor, scale, code, run.locale),
            format_amount(one.balance_minor, scale, code, run.locale),
            standing.shown(run, one.index),
        )
        for one in found.lines
    )
    run.out.say("opening", amount=format_amount(found.opening_minor, scale, code, run.locale))
    run.out.table(("day", "reason", "other", "amount>", "balance>", "standing"), rows)


def _other_party(run: Run, owner: str, names: dict[str, str]) -> str:
    if owner == COOPERATIVE.hex():
        return run.out.text("say.the_cooperative")
    return names.get(owner, owner[:8])


async def _trading(node: NodeClient) -> tuple[int, TradeStatutes, int]:
    """Return the version of the statutes, their trade section, and the decimals of the barter unit."""
    found = await node.statutes()
    if found.statutes.trade is None:
        raise UsageProblem("no_trade")
    return found.version, found.statutes.trade, scale_of(await node.info(), found.statutes.trade.unit)


async def pay(run: Run, payee: Annotated[str, argument("payee")], amount: Amount, memo: Memo = None) -> None:
    """Pay a member in the barter unit."""
    async with run.node() as node:
        version, rules, scale = await _trading(node)
        minor = parse_amount(amount, scale, run.locale)
        if not minor:
            raise UsageProblem("amount_malformed", amount=amount, decimals=scale)
        payload = Pay(
            amount_minor=minor,
            memo=None,
            payee=bytes.fromhex(await find_member(node, payee)),
            statutes_version=version,
            total_minor=minor,
        )
        mine = await run.member(node)
        contents = {"memo": memo}
        receipt = await record(node, "trade.pay", payload, author=bytes.fromhex(mine.member), contents=contents)
    shown = format_amount(minor, scale, rules.unit, run.locale)
    show_done(run, receipt, "paid", payee=payee, amount=shown, amount_minor=minor)


async def propose(
    run: Run,
    buyer: Annotated[str, argument("buyer")],
    net: Annotated[str, argument("net")],
    *,
    vat: Annotated[str, option("--vat", "vat")] = "0",
    euro: Annotated[str, option("--euro", "euro")] = "0",
    offer_days: Annotated[int, option("--offer-days", "offer_days", min=1)] = 7,
    deliver_days: Annotated[int, option("--deliver-days", "deliver_days", min=1)] = 30,
    lines: Annotated[Path | None, option("--lines", "lines")] = None,
    memo: Memo = None,
) -> None:
    """Propose a trade, as the seller; what is not paid in euros is paid in barter."""
    async with run.node() as node:
        version, rules, scale = await _trading(node)
        net_minor, vat_minor, euro_minor = (parse_amount(text, scale, run.locale) for text in (net, vat, euro))
        barter_minor = net_minor + vat_minor - euro_minor
        if barter_minor <= 0:
            raise UsageProblem("barter_part_needed")
        now = node.clock_ms()
        payload = Propose(
            barter_minor=barter_minor,
            buyer=bytes.fromhex(await find_member(node, buyer)),
            commission_minor=commission(rules, net_minor, vat_minor),
            deliver_by_ms=now + deliver_days * DAY_MS,
            euro_minor=euro_minor,
            expires_at_ms=now + offer_days * DAY_MS,
            lines=None,
            memo=None,
            net_minor=net_minor,
            statutes_version=version,
            vat_minor=vat_minor,
        )
        mine = await run.member(node)
        contents = {"lines": lines.read_bytes() if lines else None, "memo": memo}
        receipt = await record(node, "trade.propose", payload, author=bytes.fromhex(mine.member), contents=contents)
    shown = format_amount(barter_minor, scale, rules.unit, run.locale)
    fee = format_amount(payload.commission_minor, scale, rules.commission_unit, run.locale)
    show_done(run, receipt, "proposed", buyer=buyer, amount=shown, commission=fee)


async def accept(run: Run, trade: TradeId) -> None:
    """Accept a trade, as the buyer: its barter part is promised."""
    async with run.node() as node:
        offered = (await node.trade(trade)).trade
        info = await node.info()
        payload = Accept(
            statutes_version=offered.statutes_version, total_minor=offered.barter_minor, trade=read_id(trade)
        )
        receipt = await _act(run, node, "trade.accept", payload)
    scale = scale_of(info, offered.unit)
    shown = format_amount(offered.barter_minor, scale, offered.unit, run.locale)
    show_done(run, receipt, "accepted", amount=shown, trade=trade)


async def _act(run: Run, node: NodeClient, tag: str, payload: Wire) -> Receipt:
    mine = await run.member(node)
    return await record(node, tag, payload, author=bytes.fromhex(mine.member))


async def confirm(run: Run, trade: TradeId) -> None:
    """Confirm the delivery, as the buyer: what was promised is paid."""
    async with run.node() as node:
        receipt = await _act(run, node, "trade.confirm", Confirm(trade=read_id(trade)))
    show_done(run, receipt, "confirmed", trade=trade)


async def refuse(run: Run, trade: TradeId) -> None:
    """Refuse an offer, or give up a sale that can't be delivered."""
    async with run.node() as node:
        receipt = await _act(run, node, "trade.refuse", Refuse(trade=read_id(trade)))
    show_done(run, receipt, "trade_refused", trade=trade)


async def list_trades(run: Run, status: Annotated[str | None, option("--status", "status")] = None) -> None:
    """List the trades of the member."""
    async with run.node() as node:
        info, mine = await node.info(), await run.member(node)
        found = [one async for one in node.trades(member=mine.member, status=status)]
        standing = await standing_of(run, node)
        names = {} if run.options.is_json else await member_names(node)
    if run.out.json(standing.told(found)):
        return
    run.out.table(
        ("status", "standing", "seller", "buyer", "barter>", "euro>", "commission>", "id"),
        (
            (
                run.out.word("trade", one.status),
                standing.shown(run, one.index),
                names.get(one.seller, one.seller[:8]),
                names.get(one.buyer, one.buyer[:8]),
                format_amount(one.barter_minor, scale_of(info, one.unit), one.unit, run.locale),
                format_amount(one.euro_minor, scale_of(info, one.unit), "EUR", run.locale),
                format_amount(
                    one.commission_minor, scale_of(info, one.commission_unit), one.commission_unit, run.locale
                ),
                one.trade,
            )
            for one in found
        ),
    )


TRADE_COMMANDS: Final = (
    Command("balance", balance),
    Command("statement", statement),
    Command("pay", pay),
    Command("trade propose", propose),
    Command("trade accept", accept),
    Command("trade confirm", confirm),
    Command("trade refuse", refuse),
    Command("trade list", list_trades),
)
