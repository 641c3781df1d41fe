# SPDX-License-Identifier: AGPL-3.0-or-later
"""Bytes of memory that the state takes: for a member, an open reservation, a closed trade, a used id.

The records are made first; then a fresh state replays them while `tracemalloc` counts what it keeps, its Merkle map
included. A closed trade is counted while it can still be reversed, and again when its time is over.
"""

import gc
import random
import tracemalloc
from typing import Final

import msgspec
from figures import Figures
from ledger_kit import DAY_MS, Actor, LedgerKit, statutes

from ecot_protocol.domains.coop.statutes import AccountDefault
from ecot_protocol.domains.trade.acts import Accept, Confirm, Propose
from ecot_protocol.domains.trade.transfers import Pay
from ecot_protocol.state import State
from ecot_protocol.wire.entry import decode_record

WIDE_MINOR: Final = 10**12


def measure_memory(figures: Figures, count: int) -> None:
    """Measure `memory_per_member`, `..._reservation`, `..._closed_trade` and `..._transfer`, over `count` of each."""
    kit, marks = _make_records(count)
    state, position, found = State(), 0, {}
    gc.collect()
    tracemalloc.start()
    for name, end in marks.items():
        before = _traced()
        for record in kit.records[position:end]:
            kit.machine.replay(state, decode_record(record), is_verified=True)
        position = end
        state.digest()
        found[name] = (_traced() - before) / count
    tracemalloc.stop()
    figures.add_plain("memory_per_member", "bytes", found["members"], "member, person, key, accounts, mandate")
    figures.add_plain(
        "memory_per_reservation", "bytes", found["open"], "an accepted trade, its reservation, two used ids"
    )
    closed = found["open"] + found["closed"]
    figures.add_plain("memory_per_closed_trade", "bytes", closed, "can still be reversed; three used ids")
    figures.add_plain("memory_per_transfer", "bytes", found["transfers"], "a used id, for a month")


def _traced() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def _make_records(count: int) -> tuple[LedgerKit, dict[str, int]]:
    """Return a cooperative's records and where each kind of them ends."""
    wide = AccountDefault(lower_minor=-WIDE_MINOR, purpose="barter", unit="BART", upper_minor=WIDE_MINOR)
    usual = statutes()
    kit = LedgerKit(
        statutes=msgspec.structs.replace(usual, membership=msgspec.structs.replace(usual.membership, accounts=(wide,)))
    )
    marks = {"start": len(kit.records)}
    actors = [kit.join(f"m{number:05d}") for number in range(count)]
    marks["members"] = len(kit.records)
    source = random.Random(1)
    pairs = [tuple(source.sample(actors, 2)) for _ in range(count)]
    trades = [_open_trade(kit, seller, buyer) for seller, buyer in pairs]
    marks["open"] = len(kit.records)
    for (_, buyer), trade in zip(pairs, trades, strict=True):
        kit.must("trade.confirm", Confirm(trade=trade), **kit.by(buyer))
    marks["closed"] = len(kit.records)
    for payer, payee in pairs:
        pay = Pay(amount_minor=5, memo=None, payee=payee.member, statutes_version=1, total_minor=5)
        kit.must("trade.pay", pay, **kit.by(payer))
    marks["transfers"] = len(kit.records)
    return kit, marks


def _open_trade(kit: LedgerKit, seller: Actor, buyer: Actor) -> bytes:
    trade = kit.new_id()
    propose = Propose(
        barter_minor=1_200,
        buyer=buyer.member,
        commission_minor=50,
        deliver_by_ms=kit.now + 20 * DAY_MS,
        euro_minor=0,
        expires_at_ms=kit.now + DAY_MS,
        lines=None,
        memo=None,
        net_minor=1_000,
        statutes_version=1,
        vat_minor=200,
    )
    kit.must("trade.propose", propose, entry_id=trade, **kit.by(seller))
    kit.must("trade.accept", Accept(statutes_version=1, total_minor=1_200, trade=trade), **kit.by(buyer))
    return trade
