# SPDX-License-Identifier: AGPL-3.0-or-later
"""Partner ledgers: peerings, agreed by two boards over a file, and transfers to members of a partner.

A peering takes three steps. One board drafts it (``peer propose``); each board reads it and has its own node sign it
(``peer sign``, in the same file, which goes from one to the other); then each records it in its own ledger
(``peer record``).
"""

import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Final

from ecot_cli.acting import record_for_office, show_done
from ecot_cli.amounts import format_amount, parse_amount, scale_of
from ecot_cli.commands.governance import parse_rate
from ecot_cli.commands.transfers import TRANSFER_COMMANDS, find_peer
from ecot_cli.errors import UsageProblem
from ecot_cli.framework import Command, argument, option
from ecot_cli.run import Run, barter_unit
from ecot_client.federation import (
    PEERING_FILE,
    PeeringFile,
    decider_of,
    draft_peering,
    invited_info,
    peered,
    side_of,
)
from ecot_client.models import LedgerInfo
from ecot_client.node import NodeClient
from ecot_client.transport import Request
from ecot_protocol.domains.federation.invitation import (
    MAX_TEXT_CHARS,
    check_open,
    is_invitation,
    read_invitation,
)
from ecot_protocol.domains.federation.peering import EndPeering
from ecot_protocol.domains.federation.statements import Peering, decode_peering
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.ledger.amounts import Rate
from ecot_protocol.wire.entry import Signature

PeeringPath = Annotated[Path, argument("peering_file")]
PartnerName = Annotated[str, argument("partner")]
Memo = Annotated[str | None, option("--memo", "memo")]
_NODES_NEEDED: Final = 2
"""Two nodes alone: a decision counts once both have cosigned the log that holds it."""


async def peers(run: Run) -> None:
    """List the partner ledgers, and what is owed between them and us."""
    async with run.node() as node:
        info = await node.info()
        found = [one async for one in node.peers()]
    if run.out.json(found):
        return
    run.out.table(
        ("partner", "status", "balance>", "limit>", "id"),
        (
            (
                one.domain or one.origin,
                run.out.word("peer", one.status),
                format_amount(one.balance_minor, scale_of(info, one.unit), one.unit, run.locale),
                format_amount(one.limit_minor, scale_of(info, one.unit), one.unit, run.locale),
                one.ledger,
            )
            for one in found
        ),
    )


async def propose(
    run: Run,
    partner_url: Annotated[str, argument("partner_url")],
    limit: Annotated[str, argument("peer_limit")],
    *,
    partner_limit: Annotated[str | None, option("--partner-limit", "partner_limit")] = None,
    rate: Annotated[str, option("--rate", "peer_rate")] = "1/1",
    unit: Annotated[str | None, option("--unit", "unit")] = None,
    partner_unit: Annotated[str | None, option("--partner-unit", "partner_unit")] = None,
    output: Annotated[Path | None, option("--output", "peering_output")] = None,
) -> None:
    """Draft a peering with the cooperative of another node, in a file for both boards."""
    async with run.node() as node:
        info = await node.info()
        known = [one async for one in node.peers()]
    theirs = _read_invited(partner_url) or await _ask_partner(run, partner_url)
    units = (unit or barter_unit(info), partner_unit or barter_unit(theirs))
    scales = (scale_of(info, units[0]), scale_of(theirs, units[1]))
    limits = (parse_amount(limit, scales[0], run.locale), parse_amount(partner_limit or limit, scales[1], run.locale))
    sides = [side_of(one, unit=units[n], limit_minor=limits[n]) for n, one in enumerate((info, theirs))]
    ours, other = sides
    if ours.ledger == other.ledger:
        raise UsageProblem("partner_is_us", url=partner_url)
    old = [decode_peering(bytes.fromhex(one.statement)) for one in known if one.ledger == theirs.ledger]
    statement = draft_peering(
        ours,
        other,
        tuple(decider_of(side, (ours, other), _NODES_NEEDED) for side in sides),
        rate=minor_rate(rate, scales, is_ours_first=ours.ledger < other.ledger),
        sequence=max((one.sequence for one in old), default=0) + 1,
    )
    path = output or Path(f"{info.domain}-{theirs.domain}.peering")
    path.write_bytes(PEERING_FILE.encode(PeeringFile(signatures=(), statement=statement)))
    _show(run, path, decode_peering(statement), 0)


def _read_invited(text: str) -> LedgerInfo | None:
    """Return what an invitation, or a file of one, says of the other cooperative; None if it is neither."""
    path = Path(text)
    if not is_invitation(text):
        if "://" in text or not path.is_file():
            return None
        with path.open(encoding="utf-8", errors="replace") as file:
            text = file.read(MAX_TEXT_CHARS + 1)
    invitation = read_invitation(text)
    check_open(invitation, time.time_ns() // 1_000_000)
    return invited_info(invitation)


async def _ask_partner(run: Run, url: str) -> LedgerInfo:
    """Ask a node what it says of itself. Nothing of it is kept: what counts is what both boards then sign."""
    with tempfile.TemporaryDirectory(prefix="ecot-") as folder:
        async with NodeClient(url, Path(folder), [], locale=run.locale) as partner:
            return await partner.ledger()


def minor_rate(text: str, scales: tuple[int, int], *, is_ours_first: bool) -> Rate:
    """Return the rate of the statement: minor units of its second side for one of its first.

    Args:
        text: how many units of the partner's are given for one of ours.
        scales: decimals of our unit, and of the partner's.
        is_ours_first: whether our side is the first.
    """
    given = parse_rate(text)
    if not given.numerator:
        raise UsageProblem("rate_malformed", rate=text)
    minor = Fraction(given.numerator, given.denominator) * Fraction(10) ** (scales[1] - scales[0])
    fraction = minor if is_ours_first else 1 / minor
    return Rate(denominator=fraction.denominator, numerator=fraction.numerator)


def _read(path: Path) -> tuple[PeeringFile, Peering]:
    try:
        found = PEERING_FILE.decode(path.read_bytes())
        return found, decode_peering(found.statement)
    except RemoteProtocolError as error:
        raise UsageProblem("peering_malformed", str(error), path=str(path)) from None


def _show(run: Run, path: Path, peering: Peering, signature_count: int) -> None:
    """Show what a peering says. Limits are in minor units: only each side's own ledger knows its decimals."""
    shown: dict[str, Any] = {
        "file": str(path),
        "signature_count": signature_count,
        "sequence": peering.sequence,
        "rate": f"{peering.rate.numerator}/{peering.rate.denominator}",
        "shared": list(peering.shared),
        "sides": [
            {
                "domain": one.domain,
                "ledger": one.ledger.hex(),
                "unit": one.unit,
                "limit_minor": one.limit_minor,
            }
            for one in peering.sides
        ],
    }
    if run.out.json(shown):
        return
    run.out.table(
        ("partner", "unit", "limit_minor>", "id"),
        ((one.domain, one.unit, one.limit_minor, one.ledger.hex()) for one in peering.sides),
    )
    run.out.say("peering_rate", rate=shown["rate"], first=peering.sides[0].domain, second=peering.sides[1].domain)
    run.out.say("peering_file", path=str(path), count=signature_count)


async def show(run: Run, file: PeeringPath) -> None:
    """Show what a peering in a file says: read it before you sign."""
    found, peering = _read(file)
    _show(run, file, peering, len(found.signatures))


async def sign(run: Run, file: PeeringPath) -> None:
    """Have the node sign a peering, for a member of the board; the signature is added in the file."""
    found, peering = _read(file)
    async with run.node() as node:
        asked = Request("POST", "/v1/peerings/signature", json={"statement": found.statement.hex()})
        signed = await node.send(asked, dict[str, str])
    signature = Signature(bytes.fromhex(signed["key_id"]), bytes.fromhex(signed["signature"]))
    others = tuple(one for one in found.signatures if one.key_id != signature.key_id)
    signatures = tuple(sorted((*others, signature), key=lambda one: one.key_id))
    partial = file.with_name(file.name + ".new")
    partial.write_bytes(PEERING_FILE.encode(PeeringFile(signatures=signatures, statement=found.statement)))
    partial.replace(file)
    _show(run, file, peering, len(signatures))


async def record_peering(run: Run, file: PeeringPath) -> None:
    """Record a peering that both nodes have signed, for the board; each cooperative does so in its own ledger."""
    found, _ = _read(file)
    if len(found.signatures) != _NODES_NEEDED:
        raise UsageProblem("peering_unsigned", count=len(found.signatures))
    async with run.node() as node:
        payload = peered(found.statement, list(found.signatures))
        done = await record_for_office(node, "board", "federation.peer", payload)
    show_done(run, done, "peering_recorded")


async def end(run: Run, partner: PartnerName) -> None:
    """End a peering, for the board: no new transfers; what is under way still ends."""
    async with run.node() as node:
        found = await find_peer(node, partner)
        payload = EndPeering(partner=bytes.fromhex(found.ledger))
        done = await record_for_office(node, "board", "federation.end_peering", payload)
    show_done(run, done, "peering_ended", partner=found.domain)


FEDERATION_COMMANDS: Final = (
    Command("peers", peers),
    Command("peer propose", propose),
    Command("peer show", show),
    Command("peer sign", sign),
    Command("peer record", record_peering),
    Command("peer end", end),
    *TRANSFER_COMMANDS,
)
