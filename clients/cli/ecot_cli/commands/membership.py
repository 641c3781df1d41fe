# SPDX-License-Identifier: AGPL-3.0-or-later
"""Membership: join, admit, exclude, leave; who I am, who the others are; payments that the treasurer attests."""

from typing import Annotated, Final, Literal

from ecot_cli.acting import record, record_for_office, show_done
from ecot_cli.amounts import format_amount, format_instant, parse_amount, scale_of
from ecot_cli.errors import UsageProblem
from ecot_cli.framework import Command, argument, option
from ecot_cli.run import Run, find_member, read_id
from ecot_client.entries import OWN_ID
from ecot_client.errors import KeyProblem, NodeProblem
from ecot_client.node import NodeClient
from ecot_protocol.domains.membership.acts import Admit, Apply, AttestPayment, Exclude, Leave, NewPerson
from ecot_protocol.domains.shares.acts import AttestSharePayment

Reason = Annotated[str | None, option("--reason", "reason")]
MemberName = Annotated[str, argument("member")]


async def join(
    run: Run,
    handle: Annotated[str, argument("handle")],
    college: Annotated[str | None, option("--college", "college")] = None,
    kind: Annotated[str, option("--kind", "kind")] = "person",
    owner: Annotated[str | None, option("--owner", "owner_handle")] = None,
    identity: Annotated[str | None, option("--identity", "identity")] = None,
) -> None:
    """Apply for membership, with the first key of the file; the board admits."""
    if kind not in ("body", "firm", "person"):
        raise UsageProblem("kind_unknown", kind=kind)
    async with run.node() as node:
        if not node.signers:
            raise KeyProblem("key_needed")
        signer = node.signers[0]
        person = await _known_person(node)
        new_person = None
        if person is None:
            new_person = NewPerson(handle=owner or f"{handle}.owner"[:32], public_key=signer.public_key)
        apply = Apply(
            college=college or (await _first_college(node)),
            handle=handle,
            identity=None,
            kind=_kind(kind),
            new_person=new_person,
            person=person,
        )
        receipt = await record(node, "membership.apply", apply, author=OWN_ID, contents={"identity": identity})
    settings = run.profile.settings()
    settings.node, settings.member = run.url(), settings.member or receipt.entry_id.hex()
    run.profile.save(settings)
    show_done(run, receipt, "applied", handle=handle)


def _kind(kind: str) -> Literal["body", "firm", "person"]:
    match kind:
        case "body" | "firm":
            return kind
        case _:
            return "person"


async def _known_person(node: NodeClient) -> bytes | None:
    """Return the person of the key, if the ledger knows it."""
    try:
        return bytes.fromhex((await node.me()).person)
    except NodeProblem as problem:
        if problem.code == "challenge_refused":
            return None
        raise


async def _first_college(node: NodeClient) -> str:
    try:
        colleges = (await node.statutes()).statutes.colleges
    except NodeProblem as problem:
        if problem.status not in (401, 403):
            raise
        raise UsageProblem("college_needed") from None
    if len(colleges) != 1:
        raise UsageProblem("college_needed")
    return colleges[0].code


async def whoami(run: Run) -> None:
    """Show the person of the key, the members acted for and the offices held."""
    async with run.node() as node:
        info, me = await node.info(), await node.me()
    if run.out.json({"ledger": info.ledger, "name": info.name, "me": me}):
        return
    run.out.say("whoami", handle=me.handle, person=me.person, name=info.name, key_id=me.key_id)
    if me.offices:
        run.out.say("offices", offices=", ".join(run.out.word("office", one) for one in me.offices))
    if not me.members:
        run.out.say("no_member")
        return
    run.out.table(
        ("member", "status", "scopes", "id"),
        (
            (
                one.handle,
                run.out.word("status", one.status),
                ", ".join(run.out.word("scope", scope) for scope in one.scopes),
                one.member,
            )
            for one in me.members
        ),
    )


async def members(
    run: Run,
    status: Annotated[str | None, option("--status", "status")] = None,
    college: Annotated[str | None, option("--college", "college")] = None,
) -> None:
    """List members."""
    async with run.node() as node:
        found = [one async for one in node.members(status=status, college=college)]
    if run.out.json(found):
        return
    run.out.table(
        ("member", "kind", "college", "status", "since", "id"),
        (
            (
                one.handle,
                run.out.word("kind", one.kind),
                one.college,
                run.out.word("status", one.status),
                format_instant(one.since_ms, run.locale),
                one.member,
            )
            for one in found
        ),
    )


async def admit(
    run: Run, member: MemberName, college: Annotated[str | None, option("--college", "college")] = None
) -> None:
    """Admit a member, for the board."""
    async with run.node() as node:
        member_id = await find_member(node, member)
        chosen = college or (await node.member(member_id)).college
        payload = Admit(college=chosen, member=bytes.fromhex(member_id))
        done = await record_for_office(node, "board", "membership.admit", payload)
    show_done(run, done, "admitted", member=member)


async def exclude(run: Run, member: MemberName, reason: Reason = None) -> None:
    """Exclude a member, for the board."""
    async with run.node() as node:
        payload = Exclude(member=bytes.fromhex(await find_member(node, member)), reason=None)
        done = await record_for_office(node, "board", "membership.exclude", payload, contents={"reason": reason})
    show_done(run, done, "excluded", member=member)


async def leave(run: Run) -> None:
    """Leave the cooperative."""
    async with run.node() as node:
        mine = await run.member(node)
        receipt = await record(node, "membership.leave", Leave(), author=bytes.fromhex(mine.member))
    show_done(run, receipt, "left", member=mine.handle)


async def attest_payment(
    run: Run,
    member: MemberName,
    amount: Annotated[str, argument("amount")],
    is_out: Annotated[bool, option("--out", "payment_out")] = False,
    unit: Annotated[str, option("--unit", "unit")] = "EUR",
    reference: Annotated[str | None, option("--reference", "reference")] = None,
) -> None:
    """Attest that money came in from a member, or went out to it, for the treasurer."""
    async with run.node() as node:
        scale = scale_of(await node.info(), unit)
        payload = AttestPayment(
            amount_minor=parse_amount(amount, scale, run.locale),
            direction="out" if is_out else "in",
            member=bytes.fromhex(await find_member(node, member)),
            reference=None,
            unit=unit,
        )
        contents = {"reference": reference}
        done = await record_for_office(node, "treasurer", "membership.attest_payment", payload, contents=contents)
    shown = format_amount(payload.amount_minor, scale, unit, run.locale)
    show_done(run, done, "payment_attested", member=member, amount=shown)


async def attest_shares(
    run: Run,
    subscription: Annotated[str, argument("subscription")],
    reference: Annotated[str | None, option("--reference", "reference")] = None,
) -> None:
    """Attest that the price of subscribed shares came in: they are issued."""
    async with run.node() as node:
        payload = AttestSharePayment(reference=None, subscription=read_id(subscription))
        contents = {"reference": reference}
        done = await record_for_office(node, "treasurer", "shares.attest_payment", payload, contents=contents)
    show_done(run, done, "shares_issued", subscription=subscription)


MEMBERSHIP_COMMANDS: Final = (
    Command("join", join),
    Command("whoami", whoami),
    Command("members", members),
    Command("admit", admit),
    Command("exclude", exclude),
    Command("leave", leave),
    Command("attest payment", attest_payment),
    Command("attest shares", attest_shares),
)
