# SPDX-License-Identifier: AGPL-3.0-or-later
"""Steps 1 and 2: members join, shares are issued; firms trade, and what breaks a rule is refused."""

import random
from collections.abc import Mapping
from typing import Final

import msgspec

from ecot_cli.demo.cast import Actor, Coop, new_signer
from ecot_cli.demo.checks import Teller
from ecot_protocol.domains.coop.statutes import Statutes
from ecot_protocol.domains.trade.acts import Accept, Confirm, Propose, commission
from ecot_protocol.domains.trade.transfers import Pay
from ecot_protocol.wire.entry import Entry

FIRM_COUNT: Final = 60
FREELANCER_COUNT: Final = 25
ARTIST_COUNT: Final = 30
LIBRARY_COUNT: Final = 3
TRADE_COUNT: Final = 60
PAYMENT_COUNT: Final = 120
HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
VAT_PERCENT: Final = 20
COLLEGES: Final = ("users", "workers", "partners")
TRADES: Final = ("menuiserie", "imprimerie", "traiteur", "garage", "compta", "fleuriste", "serrurerie", "web")


class StatutesAnswer(msgspec.Struct, frozen=True):
    """The statutes in force, as the node shows them."""

    version: int
    statutes: Statutes


async def join_everybody(coops: Mapping[str, Coop], teller: Teller) -> None:
    """60 firms, 25 freelancers, 30 artists and 3 libraries join; fees and shares are paid and issued."""
    barter, culture, collective = coops["barter"], coops["culture"], coops["collective"]
    firms = [
        (f"{TRADES[number % len(TRADES)]}-{number + 1:02}", "firm", COLLEGES[number % 3])
        for number in range(FIRM_COUNT)
    ]
    people = [(f"independant-{number + 1:02}", "person", "members") for number in range(FREELANCER_COUNT)]
    artists = [
        (f"artiste-{number + 1:02}", "person", "partners" if number % 5 == 0 else "workers")
        for number in range(ARTIST_COUNT)
    ]
    libraries = [(f"mediatheque-{number + 1}", "body", "users") for number in range(LIBRARY_COUNT)]
    for coop, names in ((barter, firms), (collective, people), (culture, artists + libraries)):
        joined = await coop.join(names)
        await coop.pay_entry(joined, coop.statutes.membership.entry_fee_minor)
        teller.tell("joined", title=coop.title, count=len(joined))
    for coop, expected in (
        (barter, FIRM_COUNT),
        (collective, FREELANCER_COUNT),
        (culture, ARTIST_COUNT + LIBRARY_COUNT),
    ):
        movements = [one async for one in coop.pages("/v1/shares/movements")]
        issued = sum(one["last"] - one["first"] + 1 for one in movements if one["kind"] == "issue")
        teller.check_equal("shares_issued", issued, expected, title=coop.title)


async def trade(coop: Coop, teller: Teller) -> None:
    """Trades with a part in euros and commission, transfers, and seven refusals."""
    confirmed = await _trade_with_invoices(coop)
    entries = await _payments(coop)
    paid = await coop.must(entries)
    teller.tell("traded", trades=confirmed, payments=len(paid))
    await _refusals(coop, entries[0], teller)


async def _trade_with_invoices(coop: Coop) -> int:
    draw = random.Random(2)
    rules = coop.statutes.trade
    assert rules is not None
    proposals: list[tuple[Entry, Actor, int]] = []
    for _ in range(TRADE_COUNT):
        seller, buyer = draw.sample(coop.actors, 2)
        net = draw.randrange(5_000, 60_000)
        vat = net * VAT_PERCENT // 100
        now = coop.client.clock_ms()
        propose = Propose(
            barter_minor=net,
            buyer=buyer.member,
            commission_minor=commission(rules, net, vat),
            deliver_by_ms=now + 20 * DAY_MS,
            euro_minor=vat,
            expires_at_ms=now + 5 * DAY_MS,
            lines=None,
            memo=None,
            net_minor=net,
            statutes_version=coop.statutes_version,
            vat_minor=vat,
        )
        lines = f'[{{"text": "{seller.name}", "net_minor": {net}}}]'
        entry = await coop.build("trade.propose", propose, **seller.signs, contents={"lines": lines})
        proposals.append((entry, buyer, net))
    receipts = await coop.must([entry for entry, _, _ in proposals])
    accepted = [
        await coop.build(
            "trade.accept",
            Accept(statutes_version=coop.statutes_version, total_minor=net, trade=receipt.entry_id),
            **buyer.signs,
        )
        for receipt, (_, buyer, net) in zip(receipts, proposals, strict=True)
    ]
    await coop.must(accepted)
    confirmed = [
        await coop.build("trade.confirm", Confirm(trade=receipt.entry_id), **buyer.signs)
        for receipt, (_, buyer, _) in zip(receipts, proposals, strict=True)
    ]
    return len(await coop.must(confirmed))


async def payment(coop: Coop, payer: Actor, payee: bytes, amount_minor: int, **options: object) -> Entry:
    """Build a transfer between two members."""
    pay = Pay(
        amount_minor=amount_minor,
        memo=None,
        payee=payee,
        statutes_version=coop.statutes_version,
        total_minor=amount_minor,
    )
    return await coop.build("trade.pay", pay, **{**payer.signs, **options})


async def _payments(coop: Coop) -> list[Entry]:
    draw = random.Random(3)
    entries = []
    for _ in range(PAYMENT_COUNT):
        payer, payee = draw.sample(coop.actors, 2)
        entries.append(await payment(coop, payer, payee.member, draw.randrange(100, 5_000)))
    return entries


async def _refusals(coop: Coop, recorded: Entry, teller: Teller) -> None:
    ada, bea = coop.actors[:2]
    stranger = new_signer()
    used_id = recorded.body
    cases: list[tuple[str, Entry]] = [
        ("credit_limit_exceeded", await payment(coop, ada, bea.member, 90_000_000)),
        ("expired", await payment(coop, ada, bea.member, 100, lifetime_ms=-1)),
        ("signature_missing", await payment(coop, ada, bea.member, 100, signers=(bea.signer,))),
        ("key_unknown", await payment(coop, ada, bea.member, 100, signers=(stranger,))),
        ("id_used", await payment(coop, ada, bea.member, 100, entry_id=coop.id_of(used_id))),
        ("wrong_ledger", await coop.foreign_entry("trade.pay", ada, bea.member)),
        ("total_mismatch", await coop.underpaid(ada, bea.member)),
    ]
    for expected, entry in cases:
        teller.check_equal("refused", await coop.refusal(entry), expected, reason=expected)
