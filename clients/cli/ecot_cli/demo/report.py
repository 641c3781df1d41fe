# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the demo shows at its end: balances, shares, the vote, the revenue, the debts, the speed."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from babel.numbers import format_decimal
from rich.table import Table

from ecot_cli.demo.act_federation import Debts
from ecot_cli.demo.act_royalties import Shared
from ecot_cli.demo.cast import Coop
from ecot_cli.demo.checks import Teller

ROWS: Final = 6


@dataclass(frozen=True, kw_only=True)
class Tables:
    """What the steps found, for the tables: `speed` is kind of posting -> (entries, seconds)."""

    outcome: dict[str, Any]
    shared: Shared
    debts: Debts
    speed: Mapping[str, tuple[int, float]]


async def show(teller: Teller, coops: Mapping[str, Coop], tables: Tables, *, seconds: float) -> None:
    """Print the tables, then whether every check held."""
    console = teller.console
    console.print()
    for table in (
        await _balances(teller, coops["barter"]),
        await _shares(teller, coops["barter"]),
        _vote(teller, tables.outcome),
        *_revenue(teller, tables.shared),
        _debts(teller, coops, tables.debts),
        _speed(teller, tables.speed),
    ):
        console.print(table)
    if teller.failed:
        console.print(f"[bold red]{teller.text('some_failed', failed=len(teller.failed))}[/bold red]")
    else:
        told = teller.text("all_held", held=teller.held, seconds=_decimal(teller, round(seconds, 1)))
        console.print(f"[bold green]{told}[/bold green]")


def _decimal(teller: Teller, value: float) -> str:
    return format_decimal(value, locale=teller.locale)


def _money(teller: Teller, minor: int) -> str:
    return format_decimal(minor / 100, format="#,##0.00", locale=teller.locale)


def _table(teller: Teller, title: str, *columns: str, numbers: int) -> Table:
    """Return an empty table; its last `numbers` columns are right-aligned."""
    table = Table(title=teller.text(title), title_justify="left", title_style="bold")
    for place, column in enumerate(columns):
        justify = "right" if place >= len(columns) - numbers else "left"
        table.add_column(teller.text(column), justify=justify)  # type: ignore[arg-type]
    return table


async def _balances(teller: Teller, coop: Coop) -> Table:
    table = _table(teller, "table_balances", "col_member", "col_balance", "col_limit", numbers=2)
    for actor in coop.actors[:ROWS]:
        shown = await coop.get(f"/v1/members/{actor.member.hex()}/accounts")
        account = next(one for one in shown["items"] if one["purpose"] == "barter")
        table.add_row(actor.name, _money(teller, account["balance_minor"]), _money(teller, account["lower_minor"]))
    return table


async def _shares(teller: Teller, coop: Coop) -> Table:
    table = _table(teller, "table_shares", "col_number", "col_member", "col_shares", "col_price", numbers=2)
    names = {actor.member.hex(): actor.name for actor in coop.actors}
    shown = await coop.client.get("/v1/shares/movements", dict[str, Any], {"limit": ROWS})
    for one in shown["items"]:
        range_shown = str(one["first"]) if one["first"] == one["last"] else f"{one['first']}-{one['last']}"
        name = names.get(one["member"], "")
        table.add_row(str(one["movement"]), name, range_shown, _money(teller, one["price_minor"]))
    return table


def _vote(teller: Teller, outcome: dict[str, Any]) -> Table:
    columns = ("col_college", "col_weight", "col_for", "col_against", "col_abstain")
    table = _table(teller, "table_vote", *columns, numbers=4)
    for college in outcome["colleges"]:
        counts = [str(count) for count in college["counts"]]
        table.add_row(college["code"], f"{college['weight_bp'] / 100:g} %", *counts)
    scores = [Fraction(int(one["numerator"]), int(one["denominator"])) for one in outcome["scores"]]
    table.add_section()
    told = [f"{_decimal(teller, round(float(score) * 100, 2))} %" for score in scores]
    table.add_row(teller.text("col_weighted"), "", *told)
    return table


def _revenue(teller: Teller, shared: Shared) -> list[Table]:
    heads = _table(teller, "table_revenue", "col_head", "col_amount", numbers=1)
    for code, _, amount in shared.heads:
        heads.add_row(code, _money(teller, amount))
    heads.add_section()
    heads.add_row("", _money(teller, shared.revenue_minor))
    best = _table(teller, "table_best", "col_member", "col_works", "col_plays", "col_amount", numbers=3)
    for name, works, uses, amount in shared.best:
        best.add_row(name, str(works), _decimal(teller, uses), _money(teller, amount))
    return [heads, best]


def _debts(teller: Teller, coops: Mapping[str, Coop], debts: Debts) -> Table:
    table = _table(teller, "table_debts", "col_pair", "col_before", "col_after", numbers=2)
    for (debtor, creditor), amount in debts.before.items():
        if amount > 0:
            pair = f"{coops[debtor].title} → {coops[creditor].title}"
            left = max(debts.after[debtor, creditor], 0)
            table.add_row(pair, _money(teller, amount), _money(teller, left))
    return table


def _speed(teller: Teller, speed: Mapping[str, tuple[int, float]]) -> Table:
    table = _table(teller, "table_speed", "col_posting", "col_entries", "col_per_second", numbers=2)
    for kind, (count, seconds) in speed.items():
        table.add_row(teller.text(kind), _decimal(teller, count), _decimal(teller, round(count / seconds)))
    return table
