# SPDX-License-Identifier: AGPL-3.0-or-later
"""Steps 5 and 6: peerings, transfers across ledgers with a node killed amid them, debts cleared in one round."""

import asyncio
import itertools
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ecot_cli.demo.cast import Coop
from ecot_cli.demo.checks import Teller
from ecot_client.federation import build_send, decider_of, draft_peering, peered, side_of
from ecot_client.transport import Request
from ecot_protocol.domains.federation.statements import Peering, decode_peering
from ecot_protocol.wire.entry import Signature

LIMIT_MINOR: Final = 5_000_000
TRANSFERS_EACH_WAY: Final = 6
RESOLVE_TIMEOUT_S: Final = 60.0
POLL_S: Final = 0.2
UNIT: Final = "BART"


@dataclass
class Debts:
    """Balances between nodes, minor units: (debtor, creditor) -> before and after clearing."""

    before: dict[tuple[str, str], int]
    after: dict[tuple[str, str], int]


async def peer_everybody(coops: Mapping[str, Coop], teller: Teller) -> None:
    """Every two cooperatives sign a peering and record it, each in its own ledger; all three witness decisions."""
    infos = {name: await coop.client.ledger() for name, coop in coops.items()}
    sides = {name: side_of(info, unit=UNIT, limit_minor=LIMIT_MINOR) for name, info in infos.items()}
    for first, second in itertools.combinations(coops, 2):
        everybody = tuple(sides.values())
        deciders = tuple(decider_of(side, everybody, 2) for side in everybody)
        statement = draft_peering(sides[first], sides[second], deciders)
        signatures = [await _agent_signature(coops[name], statement) for name in (first, second)]
        for name in (first, second):
            await coops[name].act("federation.peer", peered(statement, signatures), **coops[name].as_board)
        teller.tell("peered", first=coops[first].title, second=coops[second].title)


async def _agent_signature(coop: Coop, statement: bytes) -> Signature:
    asked = Request("POST", "/v1/peerings/signature", json={"statement": statement.hex()})
    signed = await coop.client.send(asked, dict[str, str])
    return Signature(bytes.fromhex(signed["key_id"]), bytes.fromhex(signed["signature"]))


async def peerings_of(coop: Coop) -> dict[bytes, Peering]:
    """Return ledger -> peering, as the node shows them."""
    shown = await coop.get("/v1/peers")
    return {bytes.fromhex(one["ledger"]): decode_peering(bytes.fromhex(one["statement"])) for one in shown["items"]}


async def trade_across(coops: Mapping[str, Coop], teller: Teller) -> None:
    """Members pay members of the other networks; one node dies in the middle and comes back."""
    await peer_everybody(coops, teller)
    half = TRANSFERS_EACH_WAY // 2
    count = await _send(coops, half, seed=5)
    victim = coops["culture"]
    victim.node.kill()
    # Whoever is still up goes on paying members of the network whose node is down.
    alive = {name: coop for name, coop in coops.items() if coop is not victim}
    count += await _send(coops, TRANSFERS_EACH_WAY - half, seed=6, payers=alive)
    await victim.node.start()
    teller.tell("killed", title=victim.title)
    pending = await _wait_until_resolved(coops)
    teller.check("transfers_ended", not pending, count=count)
    ends: dict[str, list[str]] = {}
    for coop in coops.values():
        async for one in coop.pages("/v1/transfers"):
            ends.setdefault(one["tid"], []).append(one["status"])
    # One that was aborted before the payee's ledger promised anything is known on one side alone.
    agreed = all(found in (["commit", "commit"], ["abort", "abort"], ["abort"]) for found in ends.values())
    teller.check("transfers_agree", len(ends) == count and agreed)
    await check_mirrors(coops, teller)


async def _send(coops: Mapping[str, Coop], each: int, *, seed: int, payers: Mapping[str, Coop] | None = None) -> int:
    draw = random.Random(seed)
    count = 0
    for name, coop in (payers or coops).items():
        peerings = await peerings_of(coop)
        ledger = await coop.client.ledger_id()
        entries = []
        for other in (one for one in coops if one != name):
            partner = await _ledger_of(coops[other])
            # More goes one way round than the other, so that there are debts to clear.
            amount = 30_000 if (name, other) in _ROUND else 8_000
            for _ in range(each):
                payer, payee = draw.choice(coop.actors), draw.choice(coops[other].actors)
                entry_id, send = build_send(
                    peerings[partner],
                    ledger,
                    payer.member,
                    payee.member,
                    amount + draw.randrange(500),
                    now_ms=coop.client.clock_ms(),
                    statutes_version=coop.statutes_version,
                )
                entries.append(await coop.build("federation.send", send, **payer.signs, entry_id=entry_id))
        count += len(await coop.must(entries))
    return count


_ROUND: Final = frozenset((("barter", "culture"), ("culture", "collective"), ("collective", "barter")))


async def _ledger_of(coop: Coop) -> bytes:
    return (await coop.client.pinned()).ledger


async def _wait_until_resolved(coops: Mapping[str, Coop]) -> int:
    deadline = time.monotonic() + RESOLVE_TIMEOUT_S
    while True:
        pending = 0
        for coop in coops.values():
            async for _ in coop.pages("/v1/transfers", status="pending"):
                pending += 1
        if not pending or time.monotonic() > deadline:
            return pending
        await asyncio.sleep(POLL_S)


async def balances(coops: Mapping[str, Coop]) -> dict[tuple[str, str], int]:
    """Return (name, name of the partner) -> what the first owes the second, by the first's ledger."""
    names = {(await _ledger_of(coop)).hex(): name for name, coop in coops.items()}
    found = {}
    for name, coop in coops.items():
        shown = await coop.get("/v1/peers")
        for one in shown["items"]:
            found[name, names[one["ledger"]]] = one["balance_minor"]
    return found


async def check_mirrors(coops: Mapping[str, Coop], teller: Teller) -> None:
    """The two accounts of every pair are each other's opposite."""
    found = await balances(coops)
    for first, second in itertools.combinations(coops, 2):
        mine, theirs = found[first, second], found[second, first]
        titles = {"first": coops[first].title, "second": coops[second].title}
        teller.check("mirrors_equal", mine == -theirs, found=mine, **titles)


async def clear(coops: Mapping[str, Coop], teller: Teller) -> Debts:
    """One round nets what the three nodes owe each other; nobody's net position moves."""
    before = await balances(coops)
    ledgers = {name: await _ledger_of(coop) for name, coop in coops.items()}
    debts = [
        {"debtor": ledgers[debtor].hex(), "creditor": ledgers[creditor].hex(), "amount_minor": amount}
        for (debtor, creditor), amount in before.items()
        if amount > 0
    ]
    proposer = coops["barter"]
    body = {"unit": UNIT, "decider": ledgers["barter"].hex(), "debts": debts}
    offered = await proposer.client.send(Request("POST", "/v1/clearings", json=body), dict[str, Any])
    cleared = sum(one["cleared_minor"] for one in offered["items"])
    await _wait_until_cleared(coops, [one["tid"] for one in offered["items"]])
    after = await balances(coops)
    debt = sum(amount for amount in before.values() if amount > 0)
    left = sum(amount for amount in after.values() if amount > 0)
    teller.check("cleared", cleared > 0 and debt - left == cleared, found=debt - left)
    for name, coop in coops.items():
        net = [sum(amount for (one, _), amount in when.items() if one == name) for when in (before, after)]
        teller.check("net_unchanged", net[0] == net[1], title=coop.title)
    return Debts(before, after)


async def _wait_until_cleared(coops: Mapping[str, Coop], tids: list[str]) -> None:
    deadline = time.monotonic() + RESOLVE_TIMEOUT_S
    while time.monotonic() < deadline:
        ended = 0
        for coop in coops.values():
            async for one in coop.pages("/v1/clearings"):
                ended += one["tid"] in tids and one["status"] != "pending"
        if ended == len(tids) * len(coops):
            return
        await asyncio.sleep(POLL_S)
