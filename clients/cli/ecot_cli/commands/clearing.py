# SPDX-License-Identifier: AGPL-3.0-or-later
"""Clearing: what a member owes another, or is owed, offered to rounds; calling a round, and checking one afterwards.

An obligation takes two steps: the debtor offers it (``obligation owe``), which writes a file for the creditor, who
offers it too (``obligation claim``). What only one of them offers counts for nothing.
"""

from pathlib import Path
from typing import Annotated, Any, Final

from ecot_cli.acting import record, show_done
from ecot_cli.amounts import format_amount, format_instant, parse_amount, scale_of
from ecot_cli.errors import UsageProblem
from ecot_cli.framework import Command, argument, option
from ecot_cli.run import Run, read_id
from ecot_client.clearing import OBLIGATION_FILE, build_claim, build_owe
from ecot_client.models import CallInfo, PeerInfo
from ecot_client.node import NodeClient
from ecot_client.transport import Request
from ecot_protocol.domains.federation.caller import read_round
from ecot_protocol.domains.federation.deals import deal_id
from ecot_protocol.domains.federation.obligations import WithdrawObligation
from ecot_protocol.errors import RemoteProtocolError

DAY_MS: Final = 86_400_000


async def owe(
    run: Run,
    creditor: Annotated[str, argument("creditor")],
    amount: Annotated[str, argument("amount")],
    output: Annotated[Path, argument("obligation_output")],
    *,
    partner: Annotated[str | None, option("--partner", "creditor_partner")] = None,
    unit: Annotated[str, option("--unit", "unit")] = "EUR",
    days: Annotated[int | None, option("--due", "due_days", min=0, max=3_650)] = None,
) -> None:
    """Offer what one owes for clearing, and write the file with which the creditor offers it too."""
    if output.exists():
        raise UsageProblem("file_exists", path=str(output))
    async with run.node() as node:
        info, mine, ledger = await node.info(), await run.member(node), await node.ledger_id()
        other = ledger if partner is None else bytes.fromhex((await _find_peer(node, partner)).ledger)
        now_ms = node.clock_ms()
        entry_id, payload, file = build_owe(
            debtor=(ledger, bytes.fromhex(mine.member)),
            creditor=(other, read_id(creditor)),
            amount_minor=parse_amount(amount, scale_of(info, unit), run.locale),
            unit=unit,
            now_ms=now_ms,
            due_ms=None if days is None else now_ms + days * DAY_MS,
        )
        output.write_bytes(OBLIGATION_FILE.encode(file))
        done = await record(node, "federation.owe", payload, author=bytes.fromhex(mine.member), entry_id=entry_id)
    number = deal_id(file.statement).hex()
    show_done(run, done, "obligation_owed", obligation=number, path=str(output))


async def claim(run: Run, file: Annotated[Path, argument("obligation_file")]) -> None:
    """Offer what one is owed for clearing, from the debtor's file."""
    try:
        obligation, payload = build_claim(OBLIGATION_FILE.decode(file.read_bytes()))
    except (RemoteProtocolError, FileNotFoundError) as error:
        raise UsageProblem("obligation_malformed", str(error), path=str(file)) from None
    async with run.node() as node:
        info, mine = await node.info(), await run.member(node)
        shown = format_amount(obligation.amount_minor, scale_of(info, obligation.unit), obligation.unit, run.locale)
        done = await record(node, "federation.claim", payload, author=bytes.fromhex(mine.member))
    show_done(run, done, "obligation_claimed", obligation=deal_id(payload.obligation).hex(), amount=shown)


async def withdraw(
    run: Run,
    obligation: Annotated[str, argument("obligation")],
    *,
    is_claim: Annotated[bool, option("--claimed", "obligation_claimed")] = False,
) -> None:
    """Take an obligation back: no later round clears any more of it."""
    async with run.node() as node:
        mine = await run.member(node)
        payload = WithdrawObligation(is_debtor=not is_claim, obligation=read_id(obligation))
        done = await record(node, "federation.withdraw_obligation", payload, author=bytes.fromhex(mine.member))
    show_done(run, done, "obligation_withdrawn", obligation=obligation)


async def list_obligations(run: Run, status: Annotated[str | None, option("--status", "status")] = None) -> None:
    """List what one offered for clearing, newest first."""
    async with run.node() as node:
        info = await node.info()
        found = [one async for one in node.obligations(status=status)]
        domains = {one.ledger: one.domain async for one in node.peers()}
    if run.out.json(found):
        return
    run.out.table(
        ("day", "status", "side", "partner", "amount>", "left>", "id"),
        (
            (
                format_instant(one.at_ms, run.locale),
                run.out.word("obligation", one.status),
                run.out.word("side", "owed" if one.is_debtor else "claimed"),
                domains.get(one.other_ledger, ""),
                format_amount(one.amount_minor, scale_of(info, one.unit), one.unit, run.locale),
                format_amount(one.left_minor, scale_of(info, one.unit), one.unit, run.locale),
                one.obligation,
            )
            for one in found
        ),
    )


async def call(
    run: Run,
    decider: Annotated[str, argument("round_decider")],
    *,
    unit: Annotated[str, option("--unit", "unit")] = "EUR",
    phase_s: Annotated[int, option("--phase", "round_phase", min=1, max=21_600)] = 60,
) -> None:
    """Call the partners to a round of clearing, for an officer; the decider's node keeps its board."""
    async with run.node() as node:
        ledger = (await node.ledger_id()).hex()
        if decider not in ("us", "nous"):
            ledger = (await _find_peer(node, decider)).ledger
        body: dict[str, Any] = {"unit": unit, "decider": ledger, "ledgers": [], "phase_s": phase_s}
        called = await node.send(Request("POST", "/v1/rounds", json=body), CallInfo)
    if not run.out.json(called):
        run.out.say("round_called", call=called.call, count=len(called.ledgers))


async def list_rounds(run: Run) -> None:
    """List the rounds of clearing that the cooperative took part in, newest first."""
    async with run.node() as node:
        found = [one async for one in node.rounds()]
    if run.out.json(found):
        return
    run.out.table(
        ("day", "unit", "ledgers>", "offers>", "id"),
        (
            (format_instant(one.at_ms, run.locale), one.unit, len(one.ledgers), one.offer_count, one.call)
            for one in found
        ),
    )


async def check(
    run: Run,
    round_id: Annotated[str, argument("round")],
    *,
    output: Annotated[Path | None, option("--output", "round_output")] = None,
) -> None:
    """Check a round again from what the node kept of it: roots, reveals, what matched, the flow and its deals."""
    async with run.node() as node:
        info = await node.info()
        raw = await node.kept_round(round_id)
    try:
        checked = read_round(raw)
    except RemoteProtocolError as error:
        raise UsageProblem("round_unsound", str(error), round=round_id) from None
    if checked.called.id.hex() != round_id:
        raise UsageProblem("round_unsound", "another round", round=round_id)
    if output is not None:
        output.write_bytes(raw)
    offered = sum(edge.amount_minor for edge in checked.matched.edges)
    cleared = sum(checked.solution.flows)
    shown = {
        "call": round_id,
        "ledgers": len(checked.called.ledgers),
        "matched": len(checked.matched.edges),
        "matched_minor": offered,
        "cleared_minor": cleared,
        "is_proved_most": bool(checked.solution.potentials),
        "deals": [deal_id(one).hex() for one in checked.deals],
    }
    if run.out.json(shown):
        return
    unit = checked.called.terms.unit
    scale = scale_of(info, unit)
    run.out.say(
        "round_checked",
        ledgers=shown["ledgers"],
        matched=shown["matched"],
        offered=format_amount(offered, scale, unit, run.locale),
        cleared=format_amount(cleared, scale, unit, run.locale),
        deals=len(checked.deals),
    )
    run.out.say("round_most" if checked.solution.potentials else "round_not_proved")


async def _find_peer(node: NodeClient, name: str) -> PeerInfo:
    async for one in node.peers():
        if name in (one.domain, one.origin, one.ledger):
            return one
    raise UsageProblem("partner_not_found", partner=name)


CLEARING_COMMANDS: Final = (
    Command("obligation owe", owe),
    Command("obligation claim", claim),
    Command("obligation withdraw", withdraw),
    Command("obligation list", list_obligations),
    Command("round call", call),
    Command("round list", list_rounds),
    Command("round check", check),
)
