# SPDX-License-Identifier: AGPL-3.0-or-later
"""Shares: what a member holds, the register, subscribing."""

from typing import Annotated, Final

from ecot_cli.acting import record, show_done
from ecot_cli.amounts import format_amount, format_instant, scale_of
from ecot_cli.framework import Command, argument, option
from ecot_cli.run import Run, find_member, member_names
from ecot_protocol.domains.shares.acts import Subscribe


async def show(run: Run, member: Annotated[str | None, option("--member", "member")] = None) -> None:
    """Show the shares of a member, by number, and its subscriptions."""
    async with run.node() as node:
        info = await node.info()
        owner = await find_member(node, member) if member else (await run.member(node)).member
        found = await node.member_shares(owner)
    if run.out.json(found):
        return
    run.out.say("shares_held", count=found.share_count)
    ranges = (
        (one.first, one.last, format_amount(one.price_minor, scale_of(info, one.unit), one.unit, run.locale))
        for one in found.ranges
    )
    run.out.table(("first>", "last>", "price>"), ranges)
    if found.subscriptions:
        run.out.table(
            ("subscription", "count>", "status", "since"),
            (
                (
                    one.subscription,
                    one.share_count,
                    run.out.word("subscription", one.status),
                    format_instant(one.status_at_ms, run.locale),
                )
                for one in found.subscriptions
            ),
        )


async def register(run: Run) -> None:
    """Show the register of shares: every movement, in order."""
    async with run.node() as node:
        info = await node.info()
        found = [one async for one in node.share_movements()]
        names = {} if run.options.is_json else await member_names(node)
    if run.out.json(found):
        return
    run.out.table(
        ("movement>", "day", "kind", "member", "first>", "last>", "price>"),
        (
            (
                one.movement,
                format_instant(one.at_ms, run.locale),
                run.out.word("movement", one.kind),
                names.get(one.member, one.member[:8]),
                one.first,
                one.last,
                format_amount(one.price_minor, scale_of(info, one.unit), one.unit, run.locale),
            )
            for one in found
        ),
    )


async def subscribe(run: Run, count: Annotated[int, argument("share_count", min=1)]) -> None:
    """Subscribe to shares at the price of the statutes; they are issued once the treasurer has the money."""
    async with run.node() as node:
        found = await node.statutes()
        rules = found.statutes.shares
        total_minor = count * rules.nominal_minor
        payload = Subscribe(count=count, statutes_version=found.version, total_minor=total_minor)
        mine = await run.member(node)
        receipt = await record(node, "shares.subscribe", payload, author=bytes.fromhex(mine.member))
        shown = format_amount(total_minor, scale_of(await node.info(), rules.unit), rules.unit, run.locale)
    show_done(run, receipt, "subscribed", count=count, amount=shown)


SHARES_COMMANDS: Final = (
    Command("shares show", show),
    Command("shares register", register),
    Command("shares subscribe", subscribe),
)
