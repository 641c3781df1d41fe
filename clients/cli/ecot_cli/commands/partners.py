# SPDX-License-Identifier: AGPL-3.0-or-later
"""Partners: who they are and how it stands with each, peerings between boards, incidents.

A peering goes from one board to the other through their nodes: ``peer propose``, and there ``peer accept`` or
``peer refuse``; once it is accepted there, ``peer accept`` records it here too. A change, a suspension or an end that
both sign takes the same way. Where no node can reach the other, a file does: ``peer propose --output``, ``peer sign``
on both sides, ``peer record`` on both sides.
"""

import asyncio
import tempfile
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Final, get_args

import msgspec

from ecot_cli.acting import record_for_office, show_done
from ecot_cli.amounts import format_amount, format_instant, parse_amount, scale_of
from ecot_cli.commands.governance import parse_rate
from ecot_cli.commands.transfers import PartnerName, find_peer
from ecot_cli.errors import UsageProblem
from ecot_cli.framework import Command, argument, option
from ecot_cli.picture import draw_federation
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
from ecot_client.models import IncidentInfo, LedgerInfo, PeerInfo, ProposalInfo
from ecot_client.node import NodeClient
from ecot_client.transport import Request
from ecot_protocol.domains.coop.acts import ReplaceNodeKey
from ecot_protocol.domains.federation.invitation import (
    MAX_TEXT_CHARS,
    check_open,
    is_invitation,
    read_invitation,
)
from ecot_protocol.domains.federation.peering import EndPeering, ResumePeering, SuspendPeering
from ecot_protocol.domains.federation.statements import (
    Peering,
    PeeringStatus,
    Shared,
    Side,
    decode_peering,
    encode_peering,
)
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.ledger.amounts import Rate
from ecot_protocol.wire.entry import Signature

PeeringPath = Annotated[Path, argument("peering_file")]
ProposalName = Annotated[str, argument("proposal")]
IncidentName = Annotated[str, argument("incident")]
Together = Annotated[bool, option("--together", "together")]
SharedNames = Annotated[list[str] | None, option("--share", "share")]
_NODES_NEEDED: Final = 2
"""Two nodes alone: a decision counts once both have cosigned the log that holds it."""
_MIN_PREFIX: Final = 6
"""Characters of an id that name it."""


async def peers(run: Run, graph: Annotated[Path | None, option("--graph", "graph")] = None) -> None:
    """List the partners: what is owed, how much more may be, and how the connection is; or draw them."""
    async with run.node() as node:
        info = await node.info()
        found = [one async for one in node.peers()]
    if graph is not None:
        graph.write_text(draw_federation(info, found, run.locale), encoding="utf-8")
    if run.out.json(found):
        return
    run.out.table(
        ("partner", "state", "balance>", "room_out>", "room_in>", "pending>", "last_contact>"),
        (
            (
                one.domain or one.origin,
                run.out.word("health", one.health),
                format_amount(one.balance_minor, scale_of(info, one.unit), one.unit, run.locale),
                _number(run, info, one, one.room_out_minor),
                _number(run, info, one, one.room_in_minor),
                one.pending_count or None,
                _age(run, one.last_contact_ms),
            )
            for one in found
        ),
    )
    if graph is not None:
        run.out.say("graph_written", path=str(graph))


def _number(run: Run, info: LedgerInfo, peer: PeerInfo, minor: int | None) -> str | None:
    """Write an amount without its unit, which stands beside it."""
    if minor is None:
        return None
    return format_amount(minor, scale_of(info, peer.unit), "", run.locale).strip()


def _age(run: Run, age_ms: int | None) -> str:
    if age_ms is None:
        return run.out.word("contact", "never")
    return run.out.text("contact.seconds", count=age_ms // 1000)


# --- proposing ----------------------------------------------------------------------------------------------------


async def propose(
    run: Run,
    partner_url: Annotated[str, argument("partner_url")],
    limit: Annotated[str, argument("peer_limit")],
    *,
    partner_limit: Annotated[str | None, option("--partner-limit", "partner_limit")] = None,
    rate: Annotated[str, option("--rate", "peer_rate")] = "1/1",
    unit: Annotated[str | None, option("--unit", "unit")] = None,
    partner_unit: Annotated[str | None, option("--partner-unit", "partner_unit")] = None,
    share: SharedNames = None,
    witness: Annotated[list[str] | None, option("--witness", "peer_witness")] = None,
    output: Annotated[Path | None, option("--output", "peering_output")] = None,
) -> None:
    """Propose a peering to the cooperative of another node, through both nodes; or write it to a file."""
    async with run.node() as node:
        info = await node.info()
        known = [one async for one in node.peers()]
        invited = await asyncio.to_thread(_read_invited, partner_url)
        theirs, url = invited or (await _ask_partner(run, partner_url), partner_url)
        units = (unit or barter_unit(info), partner_unit or barter_unit(theirs))
        scales = (scale_of(info, units[0]), scale_of(theirs, units[1]))
        limits = (
            parse_amount(limit, scales[0], run.locale),
            parse_amount(partner_limit or limit, scales[1], run.locale),
        )
        sides = [side_of(one, unit=units[n], limit_minor=limits[n]) for n, one in enumerate((info, theirs))]
        ours, other = sides
        if ours.ledger == other.ledger:
            raise UsageProblem("partner_is_us", url=partner_url)
        old = [decode_peering(bytes.fromhex(one.statement)) for one in known if one.ledger == theirs.ledger]
        witnesses = (ours, other, *(_side_of_partner(known, name) for name in witness or ()))
        statement = draft_peering(
            ours,
            other,
            tuple(decider_of(side, witnesses, len(witnesses) // 2 + 1) for side in sides),
            rate=minor_rate(rate, scales, is_ours_first=ours.ledger < other.ledger),
            sequence=max((one.sequence for one in old), default=0) + 1,
            shared=_shared(share),
        )
        if output is None:
            await _send_proposal(run, node, statement, url)
            return
    output.write_bytes(PEERING_FILE.encode(PeeringFile(signatures=(), statement=statement)))
    _show_file(run, output, decode_peering(statement), 0)


async def _send_proposal(run: Run, node: NodeClient, statement: bytes, url: str) -> None:
    asked = Request("POST", "/v1/peerings/proposals", json={"statement": statement.hex(), "url": url})
    sent = await node.send(asked, dict[str, str])
    if not _say_peering(run, decode_peering(statement), {"id": sent["id"], "status": "open"}):
        run.out.say("proposal_sent", id=sent["id"][:16])


def _side_of_partner(known: list[PeerInfo], name: str) -> Side:
    peer = _named(known, name)
    return decode_peering(bytes.fromhex(peer.statement)).side_of(bytes.fromhex(peer.ledger))


def _shared(names: list[str] | None) -> tuple[Shared, ...] | None:
    if names is None:
        return None
    allowed = get_args(Shared)
    for one in names:
        if one not in allowed:
            raise UsageProblem("share_unknown", name=one, known=", ".join(allowed))
    return tuple(sorted(set(names)))  # type: ignore[arg-type]  # all of them are allowed ones


def _read_invited(text: str) -> tuple[LedgerInfo, str] | None:
    """Return what an invitation, or a file of one, says of the other cooperative, and its node's address over HTTP."""
    path = Path(text)
    if not is_invitation(text):
        if "://" in text or not path.is_file():
            return None
        with path.open(encoding="utf-8", errors="replace") as file:
            text = file.read(MAX_TEXT_CHARS + 1)
    invitation = read_invitation(text)
    check_open(invitation, time.time_ns() // 1_000_000)
    return invited_info(invitation), invitation.url


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


async def change(
    run: Run,
    partner: PartnerName,
    *,
    limit: Annotated[str | None, option("--limit", "new_limit")] = None,
    partner_limit_minor: Annotated[int | None, option("--partner-limit-minor", "new_partner_limit")] = None,
    share: SharedNames = None,
) -> None:
    """Propose other limits, or to share something else, to a partner."""
    async with run.node() as node:
        found = await find_peer(node, partner)
        info = await node.info()
        own_limit = None if limit is None else parse_amount(limit, scale_of(info, found.unit), run.locale)
        terms = _next_terms(info, found)
        own, other = terms.side_of(bytes.fromhex(info.ledger or "")), terms.side_of(bytes.fromhex(found.ledger))
        changed = {
            own.ledger: own.limit_minor if own_limit is None else own_limit,
            other.ledger: other.limit_minor if partner_limit_minor is None else partner_limit_minor,
        }
        sides = tuple(msgspec.structs.replace(one, limit_minor=changed[one.ledger]) for one in terms.sides)
        shared = _shared(share)
        terms = msgspec.structs.replace(
            terms, sides=sides, shared=terms.shared if shared is None else shared, status="active"
        )
        await _send_proposal(run, node, encode_peering(terms), "")


def _next_terms(info: LedgerInfo, peer: PeerInfo) -> Peering:
    """Return the peering in force with the next number: keys are those of now, on both sides."""
    terms = decode_peering(bytes.fromhex(peer.statement))
    own = terms.side_of(bytes.fromhex(info.ledger or ""))
    now = side_of(info, unit=own.unit, limit_minor=own.limit_minor)
    sides = tuple(now if one.ledger == own.ledger else one for one in terms.sides)
    return msgspec.structs.replace(terms, sequence=terms.sequence + 1, sides=sides)


async def suspend(run: Run, partner: PartnerName, *, together: Together = False) -> None:
    """Suspend a peering, for the board: nothing new; what is under way still ends."""
    await _set_status(run, partner, "suspended", together=together)


async def resume(run: Run, partner: PartnerName, *, together: Together = False) -> None:
    """Resume a peering that our board has suspended; or propose to resume one that both have."""
    await _set_status(run, partner, "active", together=together)


async def end(run: Run, partner: PartnerName, *, together: Together = False) -> None:
    """End a peering, for the board: no new transfers; what is under way still ends."""
    await _set_status(run, partner, "ended", together=together)


async def _set_status(run: Run, partner: str, status: PeeringStatus, *, together: bool) -> None:
    async with run.node() as node:
        found = await find_peer(node, partner)
        if together:
            terms = msgspec.structs.replace(_next_terms(await node.info(), found), status=status)
            await _send_proposal(run, node, encode_peering(terms), "")
            return
        ledger = bytes.fromhex(found.ledger)
        tag, payload, said = {
            "active": ("federation.resume_peering", ResumePeering(partner=ledger), "peering_resumed"),
            "ended": ("federation.end_peering", EndPeering(partner=ledger), "peering_ended"),
            "suspended": ("federation.suspend_peering", SuspendPeering(partner=ledger), "peering_suspended"),
        }[status]
        done = await record_for_office(node, "board", tag, payload)
    show_done(run, done, said, partner=found.domain)


# --- proposals ----------------------------------------------------------------------------------------------------


async def list_proposals(run: Run) -> None:
    """List what boards propose to each other."""
    async with run.node() as node:
        found = await node.proposals()
    if run.out.json(found):
        return
    run.out.table(
        ("day", "state", "direction", "partner", "peering_status", "sequence>", "id"),
        (
            (
                format_instant(one.at_ms, run.locale),
                run.out.word("proposal", one.status),
                run.out.word("direction", "ours" if one.is_ours else "theirs"),
                one.domain,
                run.out.word("peer", one.peering_status),
                one.sequence,
                one.id[:16],
            )
            for one in found
        ),
    )


async def show(run: Run, target: Annotated[str, argument("peering_target")]) -> None:
    """Show what a peering says, in a file, as a proposal, or in force: read it before you sign."""
    path = Path(target)
    if await asyncio.to_thread(path.is_file):
        found, peering = _read(path)
        _show_file(run, path, peering, len(found.signatures))
        return
    async with run.node() as node:
        proposal = _find_proposal(await node.proposals(), target)
        if proposal is not None:
            peering = decode_peering(bytes.fromhex(proposal.statement))
            if not _say_peering(run, peering, msgspec.to_builtins(proposal)):
                run.out.say("proposal_is", status=run.out.word("proposal", proposal.status), id=proposal.id)
                if not proposal.is_known:
                    run.out.say("proposal_of_stranger", ledger=proposal.partner)
                if proposal.refusal:
                    run.out.say("proposal_refusal", note=proposal.refusal)
            return
        peer = await find_peer(node, target)
    _say_peering(run, decode_peering(bytes.fromhex(peer.statement)), {"statement_id": peer.statement_id})


def _find_proposal(known: Sequence[ProposalInfo], name: str) -> ProposalInfo | None:
    if len(name) < _MIN_PREFIX:
        return None
    found = [one for one in known if one.id.startswith(name)]
    return found[0] if len(found) == 1 else None


async def accept(run: Run, proposal: ProposalName) -> None:
    """Accept a proposal of another board, or record ours that was accepted there, for the board."""
    async with run.node() as node:
        found = await _need_proposal(node, proposal)
        signed = await node.send(Request("POST", f"/v1/proposals/{found.id}/acceptance"), dict[str, Any])
        signatures = [
            Signature(bytes.fromhex(one["key_id"]), bytes.fromhex(one["signature"])) for one in signed["signatures"]
        ]
        if signed["statement"] != found.statement:
            raise UsageProblem("proposal_changed", id=found.id)
        payload = peered(bytes.fromhex(found.statement), signatures)
        done = await record_for_office(node, "board", "federation.peer", payload)
    show_done(run, done, "peering_recorded")


async def refuse(
    run: Run, proposal: ProposalName, *, note: Annotated[str, option("--note", "refusal_note")] = ""
) -> None:
    """Refuse a proposal of another board, or take back ours."""
    async with run.node() as node:
        found = await _need_proposal(node, proposal)
        asked = Request("POST", f"/v1/proposals/{found.id}/refusal", json={"note": note})
        await node.order(asked)
    if not run.out.json({"id": found.id, "status": "refused"}):
        run.out.say("proposal_refused", partner=found.domain)


async def _need_proposal(node: NodeClient, name: str) -> ProposalInfo:
    found = _find_proposal(await node.proposals(), name)
    if found is None:
        raise UsageProblem("proposal_not_found", proposal=name)
    return found


# --- over a file --------------------------------------------------------------------------------------------------


def _read(path: Path) -> tuple[PeeringFile, Peering]:
    try:
        found = PEERING_FILE.decode(path.read_bytes())
        return found, decode_peering(found.statement)
    except RemoteProtocolError as error:
        raise UsageProblem("peering_malformed", str(error), path=str(path)) from None


def _show_file(run: Run, path: Path, peering: Peering, signature_count: int) -> None:
    if not _say_peering(run, peering, {"file": str(path), "signature_count": signature_count}):
        run.out.say("peering_file", path=str(path), count=signature_count)


def _say_peering(run: Run, peering: Peering, more: dict[str, Any]) -> bool:
    """Show what a peering says; tell whether as JSON. Limits are in minor units: only a side's own ledger knows its
    decimals.
    """
    first, second = peering.sides
    rounding = next(one.domain for one in peering.sides if one.ledger == peering.rounding)
    shown: dict[str, Any] = {
        **more,
        "sequence": peering.sequence,
        "peering_status": peering.status,
        "rate": f"{peering.rate.numerator}/{peering.rate.denominator}",
        "rounding": rounding,
        "shared": list(peering.shared),
        "sides": [
            {"domain": one.domain, "ledger": one.ledger.hex(), "unit": one.unit, "limit_minor": one.limit_minor}
            for one in peering.sides
        ],
        "deciders": [
            {
                "log": one.log.origin,
                "count": one.count,
                "witnesses": [witness.name for witness in one.witnesses],
            }
            for one in peering.deciders
        ],
    }
    if run.out.json(shown):
        return True
    run.out.table(
        ("partner", "unit", "limit_minor>", "id"),
        ((one.domain, one.unit, one.limit_minor, one.ledger.hex()) for one in peering.sides),
    )
    run.out.say("peering_rate", rate=shown["rate"], first=first.domain, second=second.domain)
    run.out.say("peering_rounding", domain=rounding)
    names = ", ".join(run.out.word("shared", one) for one in peering.shared)
    run.out.say("peering_shared", names=names, sequence=peering.sequence)
    for one in peering.deciders:
        witnesses = ", ".join(_domain(witness.name) for witness in one.witnesses)
        run.out.say("peering_decider", log=_domain(one.log.origin), count=one.count, witnesses=witnesses)
    if peering.status != "active":
        run.out.say("peering_status", status=run.out.word("peer", peering.status))
    return False


def _domain(origin: str) -> str:
    return origin.partition("/")[0]


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
    _show_file(run, file, peering, len(signatures))


async def record_peering(run: Run, file: PeeringPath) -> None:
    """Record a peering that both nodes have signed, for the board; each cooperative does so in its own ledger."""
    found, _ = _read(file)
    if len(found.signatures) != _NODES_NEEDED:
        raise UsageProblem("peering_unsigned", count=len(found.signatures))
    async with run.node() as node:
        payload = peered(found.statement, list(found.signatures))
        done = await record_for_office(node, "board", "federation.peer", payload)
    show_done(run, done, "peering_recorded")


def _named(known: list[PeerInfo], name: str) -> PeerInfo:
    for one in known:
        if name in (one.domain, one.origin, one.ledger) or (len(name) >= _MIN_PREFIX and one.ledger.startswith(name)):
            return one
    raise UsageProblem("partner_not_found", partner=name)


# --- incidents ----------------------------------------------------------------------------------------------------


async def list_incidents(run: Run) -> None:
    """List differences with partners that no delay explains."""
    async with run.node() as node:
        found = await node.incidents()
        domains = {one.ledger: one.domain async for one in node.peers()}
    if run.out.json(found):
        return
    run.out.table(
        ("day", "state", "partner", "kind", "difference_minor>", "unit", "deals>", "id"),
        (
            (
                format_instant(one.noticed_at_ms, run.locale),
                run.out.word("incident", one.status),
                domains.get(one.partner, one.partner[:16]),
                run.out.word("incident_kind", one.kind),
                one.difference_minor,
                one.unit,
                one.deal_count,
                one.id[:16],
            )
            for one in found
        ),
    )


async def show_incident(
    run: Run, incident: IncidentName, evidence: Annotated[Path | None, option("--evidence", "evidence")] = None
) -> None:
    """Show one of them: what was expected, what the partner says, and which deals differ."""
    async with run.node() as node:
        found = await _need_incident(node, incident)
        if evidence is not None:
            evidence.write_bytes(await node.evidence(found.id))
    if run.out.json(found):
        return
    run.out.say("incident_kind", kind=run.out.word("incident_kind", found.kind), partner=found.partner)
    run.out.say(
        "incident_amounts",
        expected=found.expected_minor,
        shown=found.shown_minor,
        difference=found.difference_minor,
        unit=found.unit,
    )
    if found.deals:
        run.out.table(
            ("difference", "expected_minor>", "shown_minor>", "id"),
            (
                (run.out.word("difference", one.kind), one.expected_minor, one.shown_minor, one.tid)
                for one in found.deals
            ),
        )
    if found.note:
        run.out.say("incident_note", status=run.out.word("incident", found.status), note=found.note)
    if evidence is not None:
        run.out.say("evidence_written", path=str(evidence))


async def acknowledge(run: Run, incident: IncidentName, note: Annotated[str, argument("incident_note")]) -> None:
    """Say that the board has seen an incident, and what it does about it."""
    await _note(run, incident, "acknowledged", note)


async def close(run: Run, incident: IncidentName, note: Annotated[str, argument("incident_note")]) -> None:
    """Close an incident, with the reason; the same difference does not open another one."""
    await _note(run, incident, "closed", note)


async def _note(run: Run, name: str, status: str, note: str) -> None:
    async with run.node() as node:
        found = await _need_incident(node, name)
        asked = Request("POST", f"/v1/incidents/{found.id}", json={"status": status, "note": note})
        changed = await node.send(asked, IncidentInfo)
    if not run.out.json(changed):
        run.out.say("incident_noted", status=run.out.word("incident", changed.status))


async def _need_incident(node: NodeClient, name: str) -> IncidentInfo:
    found = [one for one in await node.incidents() if len(name) >= _MIN_PREFIX and one.id.startswith(name)]
    if len(found) != 1:
        raise UsageProblem("incident_not_found", incident=name)
    return found[0]


# --- keys of the node ---------------------------------------------------------------------------------------------


async def replace_key(run: Run, purpose: Annotated[str, argument("key_purpose")]) -> None:
    """Replace a key of our node, for the board: the node makes the new one; partners and members' clients follow."""
    if purpose not in ("agent", "cosigner", "host", "log"):
        raise UsageProblem("purpose_unknown", purpose=purpose)
    async with run.node() as node:
        made = await node.send(Request("POST", "/v1/node-keys/next", json={"purpose": purpose}), dict[str, str])
        public_key = bytes.fromhex(made["public_key"])
        payload = ReplaceNodeKey(public_key=public_key, purpose=purpose)  # type: ignore[arg-type]
        done = await record_for_office(
            node, "board", "coop.replace_node_key", payload, countersign=lambda body: _sign_with_next(node, body)
        )
    show_done(run, done, "node_key_replaced", purpose=purpose)


async def _sign_with_next(node: NodeClient, body: bytes) -> Signature:
    """Have the node sign with the key that is to come, which it alone has."""
    signed = await node.send(Request("POST", "/v1/node-keys/signature", json={"body": body.hex()}), dict[str, str])
    return Signature(bytes.fromhex(signed["key_id"]), bytes.fromhex(signed["signature"]))


PARTNER_COMMANDS: Final = (
    Command("peers", peers),
    Command("peer propose", propose),
    Command("peer list", list_proposals),
    Command("peer show", show),
    Command("peer accept", accept),
    Command("peer refuse", refuse),
    Command("peer change", change),
    Command("peer suspend", suspend),
    Command("peer resume", resume),
    Command("peer end", end),
    Command("peer sign", sign),
    Command("peer record", record_peering),
    Command("incident list", list_incidents),
    Command("incident show", show_incident),
    Command("incident acknowledge", acknowledge),
    Command("incident close", close),
    Command("node-key replace", replace_key),
)
