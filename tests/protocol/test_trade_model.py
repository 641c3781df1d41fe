# SPDX-License-Identifier: AGPL-3.0-or-later
"""Random sequences of transfers and trades, beside a small model on paper that shares no code with the rules.

The model allows or refuses each step, and keeps balances as plain sums; any difference fails. After each step every
unit sums to zero, no account is beyond a limit that was not narrowed, and what is reserved is what open trades say.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_kit import DAY_MS, Actor, LedgerKit, statutes

from ecot_protocol.domains.coop.statutes import AccountDefault
from ecot_protocol.domains.trade.acts import Accept, Confirm, Lapse, Propose, Refuse, Reverse
from ecot_protocol.domains.trade.transfers import Pay, SetLimits
from ecot_protocol.ledger.accounts import AccountKey
from ecot_protocol.ledger.amounts import Rate
from ecot_protocol.ledger.entry_type import BOARD, COOPERATIVE
from ecot_protocol.ledger.facts import Fact
from ecot_protocol.ledger.reasons import Reason
from ecot_protocol.state import State
from ecot_protocol.wire.encoding import Wire

NAMES = ("ada", "bob", "eve")
LOWER, UPPER = -1_000, 1_500
OFFER_MS, DELIVERY_MS, WINDOW_MS = 10 * DAY_MS, 20 * DAY_MS, 30 * DAY_MS
HOUSE = 3
"""Place of the cooperative beside the three members."""
RIGHT_ONE = 9
"""Stands for the member whose turn it is."""


@dataclass
class Paper:
    """One trade, as two firms would note it."""

    seller: int
    buyer: int
    barter: int
    fee: int
    until: int
    deliver: int
    state: str = "offer"


@dataclass
class Model:
    """Balances in barter and what each owes in euros, with sheets of trades."""

    fee_in_barter: bool
    balance: list[int] = field(default_factory=lambda: [0] * 4)
    owed_euro: list[int] = field(default_factory=lambda: [0] * 3)
    low: list[int] = field(default_factory=lambda: [LOWER] * 3)
    high: list[int] = field(default_factory=lambda: [UPPER] * 3)
    papers: list[Paper] = field(default_factory=list)

    def effect(self, paper: Paper) -> list[int]:
        """What the trade brings each of the four, in barter."""
        change = [0] * 4
        change[paper.buyer] -= paper.barter
        change[paper.seller] += paper.barter
        if self.fee_in_barter:
            change[paper.seller] -= paper.fee
            change[HOUSE] += paper.fee
        return change

    def fits(self, change: list[int]) -> bool:
        """Tell whether each member can bear the change on top of all promises, each promise taken at its worst."""
        promised = [self.effect(paper) for paper in self.papers if paper.state == "taken"]
        for who in range(3):
            worst = self.balance[who] + change[who] + sum(min(one[who], 0) for one in promised)
            best = self.balance[who] + change[who] + sum(max(one[who], 0) for one in promised)
            if (change[who] < 0 and worst < self.low[who]) or (change[who] > 0 and best > self.high[who]):
                return False
        return True

    def move(self, paper: Paper, sign: int) -> None:
        for who, amount in enumerate(self.effect(paper)):
            self.balance[who] += sign * amount
        if not self.fee_in_barter:
            self.owed_euro[paper.seller] += sign * paper.fee


@dataclass
class Pairing:
    """The kit and the model, step by step."""

    kit: LedgerKit
    model: Model
    rate: Fraction
    base: str
    actors: list[Actor] = field(default_factory=list)
    trades: list[bytes] = field(default_factory=list)
    narrowed: bool = False

    def send(self, tag: str, payload: Wire, who: int, **options: Any) -> bool:
        result: list[Fact] | Reason = self.kit.send(tag, payload, **{**self.kit.by(self.actors[who]), **options})
        return isinstance(result, list)

    def pay(self, who: int, other: int, amount: int) -> None:
        change = [0] * 4
        change[who] -= amount
        change[other] += amount
        allowed = who != other and self.model.fits(change)
        payee = self.actors[other].member
        payload = Pay(amount_minor=amount, memo=None, payee=payee, statutes_version=1, total_minor=amount)
        assert self.send("trade.pay", payload, who) == allowed
        if allowed:
            self.model.balance = [old + new for old, new in zip(self.model.balance, change, strict=True)]

    def propose(self, who: int, other: int, amount: int) -> None:
        net, vat, euro = amount + 7, amount // 5, amount // 3 + 7
        exact = (net + vat if self.base == "gross" else net) * self.rate
        fee = int(exact + Fraction(1, 2))  # half up, for what is not negative
        barter = net + vat - euro
        until, deliver = self.kit.now + OFFER_MS, self.kit.now + DELIVERY_MS
        trade = self.kit.new_id()
        payload = Propose(
            barter_minor=barter,
            buyer=self.actors[other].member,
            commission_minor=fee,
            deliver_by_ms=deliver,
            euro_minor=euro,
            expires_at_ms=until,
            lines=None,
            memo=None,
            net_minor=net,
            statutes_version=1,
            vat_minor=vat,
        )
        assert self.send("trade.propose", payload, who, entry_id=trade) == (who != other)
        if who != other:
            self.model.papers.append(Paper(who, other, barter, fee, until, deliver))
            self.trades.append(trade)

    def on_trade(self, act: str, who: int, other: int, number: int) -> None:
        if not self.trades:
            return
        number = len(self.trades) - 1 - number % len(self.trades)
        paper, trade, now = self.model.papers[number], self.trades[number], self.kit.now
        if who == RIGHT_ONE:
            who = paper.buyer if act in ("accept", "confirm") else paper.seller
        if act == "accept":
            allowed = paper.state == "offer" and who == paper.buyer and now < paper.until
            allowed = allowed and self.model.fits(self.model.effect(paper))
            payload = Accept(statutes_version=1, total_minor=paper.barter, trade=trade)
            assert self.send("trade.accept", payload, who) == allowed
            paper.state = "taken" if allowed else paper.state
        elif act == "confirm":
            allowed = paper.state == "taken" and who == paper.buyer
            assert self.send("trade.confirm", Confirm(trade=trade), who) == allowed
            if allowed:
                paper.state, paper.until = "done", now + WINDOW_MS
                self.model.move(paper, 1)
        elif act == "refuse":
            may_refuse = {"offer": (paper.seller, paper.buyer), "taken": (paper.seller,)}.get(paper.state, ())
            assert self.send("trade.refuse", Refuse(trade=trade), who) == (who in may_refuse)
            paper.state = "gone" if who in may_refuse else paper.state
        elif act == "lapse":
            due = {"offer": paper.until, "taken": paper.deliver}.get(paper.state)
            allowed = who in (paper.seller, paper.buyer) and due is not None and now >= due
            assert self.send("trade.lapse", Lapse(trade=trade), who) == allowed
            paper.state = "gone" if allowed else paper.state
        else:
            self.reverse(paper, trade, who, by_board=other == 0)

    def reverse(self, paper: Paper, trade: bytes, who: int, *, by_board: bool) -> None:
        # Whoever is not the board signs as seller, with the trade's true buyer.
        pair = (self.actors[who].signer, self.actors[paper.buyer].signer)
        signers = tuple({one.key_id: one for one in pair}.values())
        options = {"author": BOARD, "signers": self.kit.board} if by_board else {"signers": signers}
        allowed = paper.state == "done" and self.kit.now < paper.until and (by_board or who == paper.seller)
        allowed = allowed and self.model.fits([-amount for amount in self.model.effect(paper)])
        payload = Reverse(buyer=self.actors[paper.buyer].member, reason=None, trade=trade)
        assert self.send("trade.reverse", payload, who, **options) == allowed
        if allowed:
            paper.state = "gone"
            self.model.move(paper, -1)

    def limit(self, who: int, amount: int) -> None:
        self.narrowed = True
        self.model.low[who], self.model.high[who] = -amount, 2 * amount
        limits = SetLimits(lower_minor=-amount, member=self.actors[who].member, upper_minor=2 * amount)
        assert self.send("trade.set_limits", limits, who, author=BOARD, signers=self.kit.board)

    def compare(self) -> None:
        rows = self.kit.state.accounts.rows
        for unit in ("BART", "EUR"):
            assert sum(row.balance_minor for key, row in rows.items() if key.unit == unit) == 0
        owners = [*(AccountKey(actor.member, "BART", "barter") for actor in self.actors)]
        owners.append(AccountKey(COOPERATIVE, "BART", "own"))
        assert [rows[key].balance_minor for key in owners] == self.model.balance
        claims = [rows[AccountKey(actor.member, "EUR", "claims")].balance_minor for actor in self.actors]
        assert claims == [-13_500 - owed for owed in self.model.owed_euro]
        taken = {self.trades[i] for i, paper in enumerate(self.model.papers) if paper.state == "taken"}
        assert set(self.kit.state.accounts.reservations) == taken
        if not self.narrowed:
            for key in owners[:3]:
                row = rows[key]
                assert row.balance_minor - row.reserved_out_minor >= LOWER
                assert row.balance_minor + row.reserved_in_minor <= UPPER

    def closed_for_good(self) -> Iterator[bytes]:
        return (self.trades[i] for i, paper in enumerate(self.model.papers) if paper.state == "gone")


MOVES = st.tuples(
    st.sampled_from(["pay", "propose", "deal", "done deal"]),
    st.integers(0, 2),
    st.sampled_from([1, 2, 0]),
    st.integers(1, 900),
)
"""Who, how many places further the other sits (0: oneself), how much; a deal is accepted, or confirmed, at once."""
TURNS = st.tuples(
    st.sampled_from(["reverse", "confirm", "accept", "lapse", "refuse"]),
    st.sampled_from([RIGHT_ONE, 0, 1, 2]),
    st.integers(0, 2),
    st.integers(0, 4),
)
"""Who, whether the board reverses (0), which trade counted from the newest."""
WAITS = st.tuples(st.sampled_from(["wait", "limit"]), st.integers(0, 2), st.just(0), st.integers(1, 15))
ACTS = st.one_of(MOVES, TURNS, TURNS, WAITS)
Act = tuple[str, int, int, int]


def _pairing(base: Any, unit: str, rate: Rate) -> Pairing:
    rules = statutes()
    assert rules.trade is not None
    account = AccountDefault(lower_minor=LOWER, purpose="barter", unit="BART", upper_minor=UPPER)
    kit = LedgerKit(
        statutes(
            membership=msgspec.structs.replace(rules.membership, accounts=(account,)),
            trade=msgspec.structs.replace(
                rules.trade,
                commission_base=base,
                commission_rate=rate,
                commission_unit=unit,
                delivery_max_duration_ms=DELIVERY_MS,
                offer_max_duration_ms=OFFER_MS,
                reversal_window_ms=WINDOW_MS,
            ),
        )
    )
    pairing = Pairing(kit, Model(fee_in_barter=unit == "BART"), Fraction(rate.numerator, rate.denominator), base)
    pairing.actors = [kit.join(name) for name in NAMES]
    return pairing


def _take(pairing: Pairing, step: Act) -> None:
    act, who, other, amount = step
    match act:
        case "pay":
            pairing.pay(who, (who + other) % 3, amount)
        case "propose":
            pairing.propose(who, (who + other) % 3, amount)
        case "deal" | "done deal":
            pairing.propose(who, (who + other) % 3, amount)
            pairing.on_trade("accept", RIGHT_ONE, 1, 0)
            if act == "done deal":
                pairing.on_trade("confirm", RIGHT_ONE, 1, 0)
        case "wait":
            pairing.kit.now += amount * DAY_MS
        case "limit":
            pairing.limit(who, 100 * amount)
        case _:
            pairing.on_trade(act, who, other, amount)


RATES = st.sampled_from(
    [Rate(denominator=1, numerator=0), Rate(denominator=20, numerator=1), Rate(denominator=1, numerator=1)]
)


@settings(max_examples=150)
@given(
    st.sampled_from(["net", "gross"]), st.sampled_from(["BART", "EUR"]), RATES, st.lists(ACTS, min_size=10, max_size=60)
)
def test_rules_and_paper_agree(base: str, unit: str, rate: Rate, steps: list[Act]) -> None:
    pairing = _pairing(base, unit, rate)
    for step in steps:
        _take(pairing, step)
        pairing.compare()
    state = pairing.kit.state
    assert not any(trade in state.trade.trades for trade in pairing.closed_for_good())
    assert pairing.kit.replayed().digest() == state.digest()
    assert State.load(state.dump()).digest() == state.digest()


@given(st.integers(0, 2), st.integers(1, 900), st.lists(st.sampled_from(["confirm", "refuse", "lapse"]), max_size=6))
def test_a_reservation_resolves_at_most_once(seller: int, amount: int, tries: list[str]) -> None:
    pairing = _pairing("net", "BART", Rate(denominator=20, numerator=1))
    buyer = (seller + 1) % 3
    pairing.propose(seller, buyer, amount)
    pairing.on_trade("accept", buyer, 1, 0)
    pairing.kit.now += DELIVERY_MS
    for act in tries:
        pairing.on_trade(act, seller if act == "refuse" else buyer, 1, 0)
        pairing.compare()
