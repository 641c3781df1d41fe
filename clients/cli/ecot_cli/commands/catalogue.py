# SPDX-License-Identifier: AGPL-3.0-or-later
"""The catalogue, its use, and the periods in which it is paid for.

A file of use is CSV (UTF-8, with a header, perhaps gzipped). Columns, in any order; others are ignored:

    work    id of the work in hex, or an identifier as scheme:value (isrc:FRZ039101231, isbn:9782070360246)
    count   how often it was used; rows of one work are added up; 1 if the column is missing
"""

import csv
import gzip
import io
from collections import Counter
from pathlib import Path
from typing import Annotated, Final

from ecot_cli.acting import record, record_for_office, show_done
from ecot_cli.amounts import format_amount, format_instant, parse_amount, parse_day, scale_of
from ecot_cli.errors import UsageProblem
from ecot_cli.framework import Command, argument, option
from ecot_cli.run import Run, find_member, member_names
from ecot_client.models import DraftOutcome, PeriodItem
from ecot_client.node import NodeClient
from ecot_client.receipts import Receipt
from ecot_protocol.domains.royalty.acts import ReportUse
from ecot_protocol.domains.royalty.periods import ClosePeriod, OpenPeriod, PayOut
from ecot_protocol.domains.royalty.state import MAX_ROWS_PER_REPORT, UseCount

MAX_FILE_BYTES: Final = 256 << 20
PeriodCode = Annotated[str, argument("period")]


async def works(run: Run) -> None:
    """List the works of the catalogue."""
    async with run.node() as node:
        found = [one async for one in node.works()]
        names = {} if run.options.is_json else await member_names(node)
    if run.out.json(found):
        return
    run.out.table(
        ("title", "kind", "identifiers", "holders", "id"),
        (
            (
                one.title,
                run.out.word("work_kind", one.kind),
                " ".join(f"{each.scheme}:{each.value}" for each in one.identifiers),
                ", ".join(
                    f"{names.get(each.member, each.member[:8])} {each.share_bp / 100:g} %" for each in one.holders
                ),
                one.work,
            )
            for one in found
        ),
    )


async def import_use(
    run: Run,
    file: Annotated[Path, argument("use_file")],
    period: Annotated[str, option("--period", "period")],
    institution: Annotated[str | None, option("--institution", "institution")] = None,
    first_part: Annotated[int, option("--first-part", "first_part", min=1)] = 1,
) -> None:
    """Report an institution's use of works in a period, from a file."""
    rows = read_use(file)
    async with run.node() as node:
        found = await _find_period(node, period)
        target = await find_member(node, institution) if institution else (await run.member(node)).member
        counts = await _resolve(node, rows)
        receipts = [
            await _report(
                node,
                ReportUse(
                    counts=tuple(UseCount(*one) for one in counts[start : start + MAX_ROWS_PER_REPORT]),
                    institution=bytes.fromhex(target),
                    part=part,
                    period=bytes.fromhex(found.period),
                ),
            )
            for part, start in enumerate(range(0, len(counts), MAX_ROWS_PER_REPORT), start=first_part)
        ]
    total = sum(count for _, count in counts)
    shown = {"parts": len(receipts), "work_count": len(counts), "use_count": total}
    if not run.out.json(shown):
        run.out.say("use_imported", works=len(counts), uses=total, parts=len(receipts))


async def _report(node: NodeClient, payload: ReportUse) -> Receipt | DraftOutcome:
    """Send a part: for the institution by a person that it mandated, else for the treasurer."""
    mine = {one.member for one in (await node.me()).members}
    if payload.institution.hex() in mine:
        return await record(node, "royalty.report_use", payload, author=payload.institution)
    return await record_for_office(node, "treasurer", "royalty.report_use", payload)


def read_use(file: Path) -> Counter[str]:
    """Read a file of use; see the module.

    Raises:
        UsageProblem: ``use_file_malformed`` with the line; ``use_file_too_large``.
    """
    uses: Counter[str] = Counter()
    reader = csv.DictReader(io.StringIO(_read_text(file), newline=""))
    for line, row in enumerate(reader, start=2):
        work, count = (row.get("work") or "").strip(), (row.get("count") or "1").strip()
        if not work or not count.isascii() or not count.isdigit() or len(count) > 15:
            raise UsageProblem("use_file_malformed", path=str(file), line=line)
        uses[work.lower() if ":" not in work else work] += int(count)
    return +uses


def _read_text(file: Path) -> str:
    with file.open("rb") as raw:
        start = raw.read(2)
        raw.seek(0)
        opened = gzip.GzipFile(fileobj=raw) if start == b"\x1f\x8b" else raw
        content = opened.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise UsageProblem("use_file_too_large", path=str(file), limit_bytes=MAX_FILE_BYTES)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageProblem("use_file_malformed", path=str(file), line=1) from None


async def _resolve(node: NodeClient, uses: Counter[str]) -> list[tuple[bytes, int]]:
    """Return (work id, count) ascending, as a report needs them."""
    known: dict[str, str] = {}
    if any(":" in name for name in uses):
        async for work in node.works():
            known |= {f"{one.scheme}:{one.value}": work.work for one in work.identifiers}
    totals: Counter[bytes] = Counter()
    for name, count in uses.items():
        totals[_work_id(name, known)] += count
    return sorted(totals.items())


def _work_id(name: str, known: dict[str, str]) -> bytes:
    try:
        raw = bytes.fromhex(known.get(name, name))
    except ValueError:
        raw = b""
    if len(raw) != 16:
        raise UsageProblem("work_unknown", work=name)
    return raw


async def _find_period(node: NodeClient, code: str) -> PeriodItem:
    async for one in node.periods():
        if code in (one.code, one.period):
            return one
    raise UsageProblem("period_not_found", period=code)


async def list_periods(run: Run) -> None:
    """List the periods of royalties."""
    async with run.node() as node:
        found = [one async for one in node.periods()]
    if run.out.json(found):
        return
    rows = (
        (
            one.code,
            format_instant(one.starts_ms, run.locale),
            format_instant(one.ends_ms, run.locale),
            run.out.word("period", one.status),
            one.period,
        )
        for one in found
    )
    run.out.table(("period", "from", "until", "status", "id"), rows)


async def open_period(
    run: Run,
    code: PeriodCode,
    starts: Annotated[str, argument("period_from")],
    ends: Annotated[str, argument("period_to")],
) -> None:
    """Open a period, for the treasurer."""
    async with run.node() as node:
        payload = OpenPeriod(code=code, ends_ms=parse_day(ends), starts_ms=parse_day(starts))
        done = await record_for_office(node, "treasurer", "royalty.open_period", payload)
    show_done(run, done, "period_opened", period=code)


async def close_period(run: Run, code: PeriodCode, revenue: Annotated[str, argument("revenue")]) -> None:
    """Close a period and share its revenue, for the treasurer."""
    async with run.node() as node:
        found = await _find_period(node, code)
        rules = (await node.statutes(found.statutes_version)).statutes.royalty
        if rules is None:
            raise UsageProblem("no_royalties")
        scale = scale_of(await node.info(), rules.unit)
        payload = ClosePeriod(
            period=bytes.fromhex(found.period),
            revenue_minor=parse_amount(revenue, scale, run.locale),
            statutes_version=found.statutes_version,
        )
        done = await record_for_office(node, "treasurer", "royalty.close_period", payload)
        parts = await _pay_out(node, found.period, done.index) if isinstance(done, Receipt) else 0
    shown = format_amount(payload.revenue_minor, scale, rules.unit, run.locale)
    show_done(run, done, "period_closed", period=code, amount=shown, parts=parts)


async def _pay_out(node: NodeClient, period: str, closed_index: int) -> int:
    """Pay out the slices that the closing itself did not; return how many slices there are."""
    shared = (await node.period(period, wait_for=closed_index)).shared
    count = shared.part_count if shared is not None else 0
    for part in range(2, count + 1):
        payload = PayOut(part=part, period=bytes.fromhex(period))
        await record_for_office(node, "treasurer", "royalty.pay_out", payload)
    return count


CATALOGUE_COMMANDS: Final = (
    Command("works", works),
    Command("use import", import_use),
    Command("period list", list_periods),
    Command("period open", open_period),
    Command("period close", close_period),
)
