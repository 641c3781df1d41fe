# SPDX-License-Identifier: AGPL-3.0-or-later
"""Trade: transfers, limits, and the life of a trade with split tender and commission."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from ledger_kit import DAY_MS, Actor, LedgerKit, percent, seed, statutes

from ecot_protocol.domains.coop.acts import AmendStatutes
from ecot_protocol.domains.coop.statutes import TradeStatutes
from ecot_protocol.domains.membership.acts import Exclude, GrantMandate, Leave, NewPerson
from ecot_protocol.domains.membership.state import Mandate
from ecot_protocol.domains.trade.acts import (
    TRADE_TYPES,
    Accept,
    Confirm,
    Lapse,
    Propose,
    Refuse,
    Reverse,
    commission,
)
from ecot_protocol.domains.trade.facts import TradeAccepted, TradeConfirmed, TradeLapsed, TradeProposed, TradeReversed
from ecot_protocol.domains.trade.transfers import Pay, SetLimits
from ecot_protocol.ledger.accounts import AccountKey
from ecot_protocol.ledger.amounts import Rate
from ecot_protocol.ledger.entry_type import BOARD, COOPERATIVE
from ecot_protocol.ledger.facts import Fact, Posting
from ecot_protocol.machine import Applied
from ecot_protocol.wire.encoding import MAX_INTEGER
from ecot_protocol.wire.ids import object_id
from ecot_protocol.wire.keys import Signer

Refused = Callable[[LedgerKit], str]
NET_MINOR, VAT_MINOR, BARTER_MINOR, EURO_MINOR, COMMISSION_MINOR = 10_000, 2_000, 9_000, 3_000, 500


def trade_statutes(**changes: Any) -> TradeStatutes:
    base = statutes().trade
    assert base is not None
    return msgspec.structs.replace(base, **changes)


def amend(kit: LedgerKit, version: int, trade: TradeStatutes | None) -> None:
    payload = AmendStatutes(
        in_force_from_ms=kit.now, statutes=msgspec.structs.replace(kit.statutes, trade=trade), version=version
    )
    kit.must("coop.amend_statutes", payload, author=BOARD, signers=kit.board)


def pay(payee: Actor, amount_minor: int = 100, **changes: Any) -> Pay:
    base = Pay(amount_minor=amount_minor, memo=None, payee=payee.member, statutes_version=1, total_minor=amount_minor)
    return msgspec.structs.replace(base, **changes)


def proposal(kit: LedgerKit, buyer: Actor, **changes: Any) -> Propose:
    base = Propose(
        barter_minor=BARTER_MINOR,
        buyer=buyer.member,
        commission_minor=COMMISSION_MINOR,
        deliver_by_ms=kit.now + 20 * DAY_MS,
        euro_minor=EURO_MINOR,
        expires_at_ms=kit.now + 10 * DAY_MS,
        lines=None,
        memo=None,
        net_minor=NET_MINOR,
        statutes_version=1,
        vat_minor=VAT_MINOR,
    )
    return msgspec.structs.replace(base, **changes)


def propose(kit: LedgerKit, seller: Actor, buyer: Actor, **changes: Any) -> bytes:
    trade = kit.new_id()
    kit.must("trade.propose", proposal(kit, buyer, **changes), entry_id=trade, **kit.by(seller))
    return trade


def accept(trade: bytes, total_minor: int = BARTER_MINOR, version: int = 1) -> Accept:
    return Accept(statutes_version=version, total_minor=total_minor, trade=trade)


def accepted(kit: LedgerKit, seller: Actor, buyer: Actor, **changes: Any) -> bytes:
    trade = propose(kit, seller, buyer, **changes)
    version = changes.get("statutes_version", 1)
    kit.must("trade.accept", accept(trade, changes.get("barter_minor", BARTER_MINOR), version), **kit.by(buyer))
    return trade


def confirmed(kit: LedgerKit, seller: Actor, buyer: Actor, **changes: Any) -> bytes:
    trade = accepted(kit, seller, buyer, **changes)
    kit.must("trade.confirm", Confirm(trade=trade), **kit.by(buyer))
    return trade


def by_both(seller: Actor, buyer: Actor) -> dict[str, Any]:
    return {"author": seller.member, "signers": (seller.signer, buyer.signer)}


def reverse(trade: bytes, buyer: Actor) -> Reverse:
    return Reverse(buyer=buyer.member, reason=None, trade=trade)


def barter(kit: LedgerKit, actor: Actor) -> int:
    return kit.state.accounts.balance(AccountKey(actor.member, "BART", "barter"))


def own(kit: LedgerKit, unit: str = "BART") -> int:
    return kit.state.accounts.balance(AccountKey(COOPERATIVE, unit, "own"))


def only(facts: list[Fact], kind: type[Fact]) -> list[Any]:
    return [fact for fact in facts if type(fact) is kind]


def clerk_of(
    kit: LedgerKit,
    actor: Actor,
    scope: str = "trade",
    *,
    day_limit_minor: int | None = None,
    trade_limit_minor: int | None = None,
) -> Actor:
    """Give a new person a mandate for the member, and return it as an actor."""
    clerk, grant_id = Signer(seed("clerk")), kit.new_id()
    mandate = Mandate(
        day_limit_minor=day_limit_minor,
        from_ms=0,
        person=object_id(grant_id, 1),
        scopes=(scope,),
        trade_limit_minor=trade_limit_minor,
        until_ms=None,
    )
    grant = GrantMandate(mandate=mandate, new_person=NewPerson(handle="clerk", public_key=clerk.public_key))
    signers = (actor.signer, clerk)
    kit.must("membership.grant_mandate", grant, author=actor.member, signers=signers, entry_id=grant_id)
    return Actor("clerk", actor.member, mandate.person, clerk)


def test_a_transfer_moves_its_amount_and_nothing_else() -> None:
    kit = LedgerKit()
    ada, bob = kit.join("ada"), kit.join("bob")
    facts = kit.must("trade.pay", pay(bob, 1_234), **kit.by(ada))
    assert (barter(kit, ada), barter(kit, bob), own(kit)) == (-1_234, 1_234, 0)
    assert [(type(fact), fact.reason) for fact in only(facts, Posting)] == [(Posting, "transfer")]


def test_a_transfer_reaches_the_credit_limit_and_not_beyond() -> None:
    kit = LedgerKit()
    ada, bob = kit.join("ada"), kit.join("bob")
    kit.must("trade.pay", pay(bob, 500_000), **kit.by(ada))
    assert kit.refused("trade.pay", pay(bob, 1), **kit.by(ada)) == "credit_limit_exceeded"


def test_a_mandate_for_trade_pays_within_its_day_and_anew_on_the_next() -> None:
    kit = LedgerKit()
    ada, bob = kit.join("ada"), kit.join("bob")
    clerk = clerk_of(kit, ada, day_limit_minor=150)
    kit.must("trade.pay", pay(bob, 150), **kit.by(clerk))
    assert kit.refused("trade.pay", pay(bob, 1), **kit.by(clerk)) == "day_limit_exceeded"
    kit.now += DAY_MS
    kit.must("trade.pay", pay(bob, 150), **kit.by(clerk))


def test_a_mandate_for_something_else_does_not_pay() -> None:
    kit = LedgerKit()
    ada, bob = kit.join("ada"), kit.join("bob")
    clerk = clerk_of(kit, ada, scope="vote")
    assert kit.refused("trade.pay", pay(bob), **kit.by(clerk)) == "signature_missing"


def test_the_board_sets_limits_and_opens_a_missing_account() -> None:
    kit = LedgerKit(statutes(membership=msgspec.structs.replace(statutes().membership, accounts=())))
    ada, bob = kit.join("ada"), kit.join("bob")
    assert kit.refused("trade.pay", pay(bob), **kit.by(ada)) == "account_unknown"
    for actor in (ada, bob):
        limits = SetLimits(lower_minor=-200, member=actor.member, upper_minor=200)
        kit.must("trade.set_limits", limits, author=BOARD, signers=kit.board)
    kit.must("trade.pay", pay(bob, 200), **kit.by(ada))
    assert kit.refused("trade.pay", pay(bob, 1), **kit.by(ada)) == "credit_limit_exceeded"
    assert kit.refused("membership.leave", Leave(), **kit.by(ada)) == "account_not_settled"
    kit.must("trade.pay", pay(ada, 200), **kit.by(bob))
    kit.must("membership.leave", Leave(), **kit.by(ada))
    assert AccountKey(ada.member, "BART", "barter") not in kit.state.accounts.rows


def test_a_narrower_limit_refuses_more_debt_and_never_a_way_back() -> None:
    kit = LedgerKit()
    ada, bob = kit.join("ada"), kit.join("bob")
    kit.must("trade.pay", pay(bob, 1_000), **kit.by(ada))
    limits = SetLimits(lower_minor=-100, member=ada.member, upper_minor=None)
    kit.must("trade.set_limits", limits, author=BOARD, signers=kit.board)
    assert kit.refused("trade.pay", pay(bob, 1), **kit.by(ada)) == "credit_limit_exceeded"
    kit.must("trade.pay", pay(ada, 500), **kit.by(bob))
    assert barter(kit, ada) == -500


def test_the_life_of_a_trade() -> None:
    kit = LedgerKit()
    ada, bob = kit.join("ada"), kit.join("bob")
    trade = kit.new_id()
    proposed = kit.must("trade.propose", proposal(kit, bob), entry_id=trade, **kit.by(ada))
    assert [(fact.net_minor, fact.commission_minor) for fact in only(proposed, TradeProposed)] == [(NET_MINOR, 500)]
    assert kit.state.accounts.is_idle(AccountKey(bob.member, "BART", "barter"))
    taken = kit.must("trade.accept", accept(trade), **kit.by(bob))
    assert [fact.barter_minor for fact in only(taken, TradeAccepted)] == [BARTER_MINOR]
    account = kit.state.accounts.rows[AccountKey(bob.member, "BART", "barter")]
    assert (account.balance_minor, account.reserved_out_minor) == (0, BARTER_MINOR)
    done = kit.must("trade.confirm", Confirm(trade=trade), **kit.by(bob))
    assert [fact.reversible_until_ms for fact in only(done, TradeConfirmed)] == [kit.now + 60 * DAY_MS]
    assert (barter(kit, ada), barter(kit, bob), own(kit)) == (BARTER_MINOR - 500, -BARTER_MINOR, 500)
    assert {fact.cause for fact in only(done, Posting)} == {trade}
    assert not len(kit.state.accounts.reservations)


@pytest.mark.parametrize(
    ("base", "net_minor", "vat_minor", "rate", "expected_minor"),
    [
        ("net", 10_000, 2_000, percent(5), 500),
        ("gross", 10_000, 2_000, percent(5), 600),
        ("net", 10, 0, percent(5), 1),  # 0.5 goes up
        ("net", 9, 0, percent(5), 0),  # 0.45 goes down
        ("gross", 9, 1, percent(5), 1),
        ("net", 1, 0, percent(0), 0),
        ("net", MAX_INTEGER, 0, Rate(denominator=3, numerator=1), MAX_INTEGER // 3 + (MAX_INTEGER % 3 == 2)),
    ],
)
def test_commission_is_exact_and_rounded_half_up(
    base: Any, net_minor: int, vat_minor: int, rate: Rate, expected_minor: int
) -> None:
    assert (
        commission(trade_statutes(commission_base=base, commission_rate=rate), net_minor, vat_minor) == expected_minor
    )


def test_commission_in_euros_is_a_claim_on_the_seller() -> None:
    kit = LedgerKit(statutes(trade=trade_statutes(commission_unit="EUR")))
    ada, bob = kit.join("ada"), kit.join("bob")
    before = own(kit, "EUR")
    confirmed(kit, ada, bob)
    assert (barter(kit, ada), barter(kit, bob), own(kit)) == (BARTER_MINOR, -BARTER_MINOR, 0)
    assert kit.state.accounts.balance(AccountKey(ada.member, "EUR", "claims")) == -13_500 - 500
    assert own(kit, "EUR") - before == 500


def test_a_free_trade_has_one_leg() -> None:
    kit = LedgerKit(statutes(trade=trade_statutes(commission_rate=percent(0))))
    ada, bob = kit.join("ada"), kit.join("bob")
    confirmed(kit, ada, bob, commission_minor=0)
    assert (barter(kit, ada), own(kit)) == (BARTER_MINOR, 0)


def test_a_trade_keeps_the_statutes_of_its_proposal() -> None:
    kit = LedgerKit()
    ada, bob = kit.join("ada"), kit.join("bob")
    trade = propose(kit, ada, bob)
    kit.now += 1
    amend(kit, 2, trade_statutes(commission_rate=percent(50), commission_unit="EUR", reversal_window_ms=1_000))
    kit.must("trade.accept", accept(trade), **kit.by(bob))
    kit.must("trade.confirm", Confirm(trade=trade), **kit.by(bob))
    assert (own(kit), kit.state.trade.trades[trade].closes_at_ms) == (500, kit.now + 60 * DAY_MS)


def test_a_trade_goes_on_where_the_cooperative_stops_trading() -> None:
    kit = LedgerKit()
    ada, bob = kit.join("ada"), kit.join("bob")
    open_trade, offer = accepted(kit, ada, bob), propose(kit, ada, bob)
    kit.now += 1
    amend(kit, 2, None)
    assert kit.refused("trade.accept", accept(offer), **kit.by(bob)) == "trade_not_offered"
    kit.must("trade.confirm", Confirm(trade=open_trade), **kit.by(bob))
    kit.must("trade.reverse", reverse(open_trade, bob), **by_both(ada, bob))


@pytest.mark.parametrize("who", ["ada", "bob"])
def test_either_refuses_an_offer(who: str) -> None:
    kit = LedgerKit()
    actors = {name: kit.join(name) for name in ("ada", "bob")}
    trade = propose(kit, actors["ada"], actors["bob"])
    kit.must("trade.refuse", Refuse(trade=trade), **kit.by(actors[who]))
    assert trade not in kit.state.trade.trades


def test_a_seller_who_cannot_deliver_frees_what_was_reserved() -> None:
    kit = LedgerKit()
    ada, bob = kit.join("ada"), kit.join("bob")
    trade = accepted(kit, ada, bob)
    kit.must("trade.refuse", Refuse(trade=trade), **kit.by(ada))
    assert kit.state.accounts.is_idle(AccountKey(bob.member, "BART", "barter"))
    assert kit.refused("trade.confirm", Confirm(trade=trade), **kit.by(bob)) == "trade_unknown"


@pytest.mark.parametrize("who", ["ada", "bob", "node"])
def test_an_offer_lapses_at_its_own_instant(who: str) -> None:
    kit = LedgerKit()
    actors = {name: kit.join(name) for name in ("ada", "bob")}
    trade = propose(kit, actors["ada"], actors["bob"])
    options = {"author": None, "signers": (kit.agent,)} if who == "node" else kit.by(actors[who])
    kit.now += 10 * DAY_MS - 1
    assert kit.refused("trade.lapse", Lapse(trade=trade), **options) == "trade_not_over"
    kit.now += 1
    assert kit.refused("trade.accept", accept(trade), **kit.by(actors["bob"])) == "offer_over"
    facts = kit.must("trade.lapse", Lapse(trade=trade), **options)
    assert [fact.was_accepted for fact in only(facts, TradeLapsed)] == [False]


@pytest.mark.parametrize("who", ["ada", "bob"])
def test_an_undelivered_trade_is_given_up_by_either_party(who: str) -> None:
    kit = LedgerKit()
    actors = {name: kit.join(name) for name in ("ada", "bob")}
    trade = accepted(kit, actors["ada"], actors["bob"])
    kit.now += 20 * DAY_MS - 1
    assert kit.refused("trade.lapse", Lapse(trade=trade), **kit.by(actors[who])) == "trade_not_over"
    kit.now += 1
    facts = kit.must("trade.lapse", Lapse(trade=trade), **kit.by(actors[who]))
    assert [fact.was_accepted for fact in only(facts, TradeLapsed)] == [True]
    assert not len(kit.state.accounts.reservations)


def test_a_late_delivery_can_still_be_confirmed() -> None:
    kit = LedgerKit()
    ada, bob = kit.join("ada"), kit.join("bob")
    trade = accepted(kit, ada, bob)
    kit.now += 25 * DAY_MS
    kit.must("trade.confirm", Confirm(trade=trade), **kit.by(bob))
    assert barter(kit, bob) == -BARTER_MINOR


@pytest.mark.parametrize("unit", ["BART", "EUR"])
@pytest.mark.parametrize("by_board", [True, False])
def test_a_reversal_undoes_payment_and_commission(unit: str, by_board: bool) -> None:
    kit = LedgerKit(statutes(trade=trade_statutes(commission_unit=unit)))
    ada, bob = kit.join("ada"), kit.join("bob")
    before = {key: row.balance_minor for key, row in kit.state.accounts.rows.items()}
    trade = confirmed(kit, ada, bob)
    options: dict[str, Any] = {"author": BOARD, "signers": kit.board} if by_board else by_both(ada, bob)
    facts = kit.must("trade.reverse", reverse(trade, bob), **options)
    assert {key: row.balance_minor for key, row in kit.state.accounts.rows.items()} == before
    assert [fact.by for fact in only(facts, TradeReversed)] == [options["author"]]
    assert kit.refused("trade.reverse", reverse(trade, bob), **options) == "trade_unknown"


def test_one_person_mandated_by_both_signs_a_reversal_alone() -> None:
    kit = LedgerKit()
    ada, bob = kit.join("ada"), kit.join("bob")
    trade = confirmed(kit, ada, bob)
    mandate = Mandate(
        day_limit_minor=None,
        from_ms=0,
        person=bob.person,
        scopes=("trade",),
        trade_limit_minor=None,
        until_ms=None,
    )
    kit.must("membership.grant_mandate", GrantMandate(mandate=mandate, new_person=None), **kit.by(ada))
    kit.must("trade.reverse", reverse(trade, bob), author=ada.member, signers=(bob.signer,))


def test_confirmed_trades_retire_when_nothing_can_reverse_them() -> None:
    kit = LedgerKit()
    ada, bob = kit.join("ada"), kit.join("bob")
    old = [confirmed(kit, ada, bob) for _ in range(5)]
    kit.must("trade.reverse", reverse(old[1], bob), **by_both(ada, bob))
    kit.now += 60 * DAY_MS
    assert kit.refused("trade.reverse", reverse(old[0], bob), **by_both(ada, bob)) == "reversal_too_late"
    propose(kit, ada, bob)
    assert [trade in kit.state.trade.trades for trade in old] == [False, False, True, True, True]
    assert len(kit.state.trade.queue) == 3
    confirmed(kit, ada, bob)
    assert not any(trade in kit.state.trade.trades for trade in old)
    assert len(kit.state.trade.queue) == 1
    assert kit.replayed().digest() == kit.state.digest()


def test_only_the_parties_are_concerned() -> None:
    kit = LedgerKit()
    ada, bob = kit.join("ada"), kit.join("bob")
    trade = propose(kit, ada, bob)
    submission = kit.machine.admit(kit.entry("trade.accept", accept(trade), **kit.by(bob)), 1)
    applied = kit.machine.record(kit.state, submission, kit.now)
    assert isinstance(applied, Applied)
    assert set(applied.parties) == {ada.member, bob.member}


Pair = Callable[[LedgerKit, Actor, Actor], str]


def _with_two(attempt: Pair, **changes: Any) -> Refused:
    """Return an attempt in a cooperative with `changes` in its statutes and two members, ada and bob."""

    def run(_kit: LedgerKit) -> str:
        kit = LedgerKit(statutes(**changes))
        return attempt(kit, kit.join("ada"), kit.join("bob"))

    return run


def _pays(**changes: Any) -> Pair:
    return lambda kit, ada, bob: kit.refused("trade.pay", pay(bob, **changes), **kit.by(ada))


def _pay_over_upper(kit: LedgerKit, ada: Actor, bob: Actor) -> str:
    limits = SetLimits(lower_minor=0, member=bob.member, upper_minor=99)
    kit.must("trade.set_limits", limits, author=BOARD, signers=kit.board)
    return kit.refused("trade.pay", pay(bob, 100), **kit.by(ada))


def _pay_to_gone(kit: LedgerKit, ada: Actor, bob: Actor) -> str:
    kit.must("membership.leave", Leave(), **kit.by(bob))
    return kit.refused("trade.pay", pay(bob), **kit.by(ada))


def _pay_from_gone(kit: LedgerKit, ada: Actor, bob: Actor) -> str:
    kit.must("membership.exclude", Exclude(member=ada.member, reason=None), author=BOARD, signers=kit.board)
    return kit.refused("trade.pay", pay(bob), **kit.by(ada))


def _clerk_pays(**limits: Any) -> Pair:
    return lambda kit, ada, bob: kit.refused("trade.pay", pay(bob), **kit.by(clerk_of(kit, ada, **limits)))


def _limits(**changes: Any) -> Pair:
    def attempt(kit: LedgerKit, ada: Actor, _bob: Actor) -> str:
        base = SetLimits(lower_minor=0, member=ada.member, upper_minor=0)
        payload = msgspec.structs.replace(base, **changes)
        return kit.refused("trade.set_limits", payload, author=BOARD, signers=kit.board)

    return attempt


def _proposes(**changes: Any) -> Pair:
    return lambda kit, ada, bob: kit.refused("trade.propose", proposal(kit, bob, **changes), **kit.by(ada))


def _proposes_to_gone(kit: LedgerKit, ada: Actor, bob: Actor) -> str:
    kit.must("membership.leave", Leave(), **kit.by(bob))
    return kit.refused("trade.propose", proposal(kit, bob), **kit.by(ada))


def _proposes_times(expires_in_ms: int, deliver_in_ms: int) -> Pair:
    return lambda kit, ada, bob: _proposes(
        expires_at_ms=kit.now + expires_in_ms, deliver_by_ms=kit.now + deliver_in_ms
    )(kit, ada, bob)


def _accepts(by_seller: bool = False, **changes: Any) -> Pair:
    def attempt(kit: LedgerKit, ada: Actor, bob: Actor) -> str:
        trade = propose(kit, ada, bob)
        return kit.refused("trade.accept", accept(trade, **changes), **kit.by(ada if by_seller else bob))

    return attempt


def _accepts_unknown(kit: LedgerKit, _ada: Actor, bob: Actor) -> str:
    return kit.refused("trade.accept", accept(kit.new_id()), **kit.by(bob))


def _accepts_twice(kit: LedgerKit, ada: Actor, bob: Actor) -> str:
    return kit.refused("trade.accept", accept(accepted(kit, ada, bob)), **kit.by(bob))


def _accepts_after(days: int) -> Pair:
    def attempt(kit: LedgerKit, ada: Actor, bob: Actor) -> str:
        trade = propose(kit, ada, bob)
        kit.now += days * DAY_MS
        return kit.refused("trade.accept", accept(trade), **kit.by(bob))

    return attempt


def _accepts_when_trade_ended(kit: LedgerKit, ada: Actor, bob: Actor) -> str:
    trade = propose(kit, ada, bob)
    kit.now += 1
    amend(kit, 2, None)
    return kit.refused("trade.accept", accept(trade), **kit.by(bob))


def _accepts_of_gone(kit: LedgerKit, ada: Actor, bob: Actor) -> str:
    trade = propose(kit, ada, bob)
    kit.must("membership.leave", Leave(), **kit.by(ada))
    return kit.refused("trade.accept", accept(trade), **kit.by(bob))


def _clerk_accepts(**limits: Any) -> Pair:
    def attempt(kit: LedgerKit, ada: Actor, bob: Actor) -> str:
        clerk = clerk_of(kit, bob, **limits)
        return kit.refused("trade.accept", accept(propose(kit, ada, bob)), **kit.by(clerk))

    return attempt


def _accepts_within(buyer_lower: int, seller_upper: int) -> Pair:
    def attempt(kit: LedgerKit, ada: Actor, bob: Actor) -> str:
        trade = propose(kit, ada, bob)
        for member, lower, upper in ((bob.member, buyer_lower, None), (ada.member, None, seller_upper)):
            limits = SetLimits(lower_minor=lower, member=member, upper_minor=upper)
            kit.must("trade.set_limits", limits, author=BOARD, signers=kit.board)
        return kit.refused("trade.accept", accept(trade), **kit.by(bob))

    return attempt


def _accepts_without_account(kit: LedgerKit, ada: Actor, bob: Actor) -> str:
    return kit.refused("trade.accept", accept(propose(kit, ada, bob)), **kit.by(bob))


def _confirms(prepare: Callable[[LedgerKit, Actor, Actor], bytes], by_seller: bool = False) -> Pair:
    return lambda kit, ada, bob: kit.refused(
        "trade.confirm", Confirm(trade=prepare(kit, ada, bob)), **kit.by(ada if by_seller else bob)
    )


def _refuses(prepare: Callable[[LedgerKit, Actor, Actor], bytes], who: str) -> Pair:
    def attempt(kit: LedgerKit, ada: Actor, bob: Actor) -> str:
        trade = prepare(kit, ada, bob)
        actor = {"ada": ada, "bob": bob}.get(who) or kit.join(who)
        return kit.refused("trade.refuse", Refuse(trade=trade), **kit.by(actor))

    return attempt


def _lapses(prepare: Callable[[LedgerKit, Actor, Actor], bytes], who: str, days: int) -> Pair:
    def attempt(kit: LedgerKit, ada: Actor, bob: Actor) -> str:
        trade = prepare(kit, ada, bob)
        kit.now += days * DAY_MS
        options: dict[str, Any] = {"author": None, "signers": (kit.agent,)}
        if who != "node":
            options = kit.by({"ada": ada, "bob": bob}.get(who) or kit.join(who))
        return kit.refused("trade.lapse", Lapse(trade=trade), **options)

    return attempt


def _reverses(prepare: Callable[[LedgerKit, Actor, Actor], bytes], days: int = 0) -> Pair:
    def attempt(kit: LedgerKit, ada: Actor, bob: Actor) -> str:
        trade = prepare(kit, ada, bob)
        kit.now += days * DAY_MS
        return kit.refused("trade.reverse", reverse(trade, bob), **by_both(ada, bob))

    return attempt


def _reverses_alone(kit: LedgerKit, ada: Actor, bob: Actor) -> str:
    return kit.refused("trade.reverse", reverse(confirmed(kit, ada, bob), bob), **kit.by(ada))


def _reverses_of_others(kit: LedgerKit, ada: Actor, bob: Actor) -> str:
    trade, eve = confirmed(kit, ada, bob), kit.join("eve")
    return kit.refused("trade.reverse", reverse(trade, eve), **by_both(ada, eve))


def _reverses_after_spending(kit: LedgerKit, ada: Actor, bob: Actor) -> str:
    trade = confirmed(kit, ada, bob)
    kit.must("trade.pay", pay(kit.join("eve"), 500_001), **kit.by(ada))
    return kit.refused("trade.reverse", reverse(trade, bob), **by_both(ada, bob))


def _reverses_above_upper(kit: LedgerKit, ada: Actor, bob: Actor) -> str:
    trade = confirmed(kit, ada, bob)
    limits = SetLimits(lower_minor=None, member=bob.member, upper_minor=0)
    kit.must("trade.set_limits", limits, author=BOARD, signers=kit.board)
    kit.must("trade.pay", pay(bob, 9_000), **kit.by(kit.join("eve")))
    return kit.refused("trade.reverse", reverse(trade, bob), **by_both(ada, bob))


def _reverses_of_gone(kit: LedgerKit, ada: Actor, bob: Actor) -> str:
    trade = confirmed(kit, ada, bob)
    kit.must("trade.pay", pay(bob, BARTER_MINOR), **kit.by(kit.join("eve")))
    kit.must("membership.leave", Leave(), **kit.by(bob))
    return kit.refused("trade.reverse", reverse(trade, bob), author=BOARD, signers=kit.board)


def _clerk_reverses(**limits: Any) -> Pair:
    def attempt(kit: LedgerKit, ada: Actor, bob: Actor) -> str:
        trade, clerk = confirmed(kit, ada, bob), clerk_of(kit, ada, **limits)
        return kit.refused("trade.reverse", reverse(trade, bob), **by_both(clerk, bob))

    return attempt


def _no_trade(kit: LedgerKit, _ada: Actor, _bob: Actor) -> bytes:
    return kit.new_id()


NO_TRADE: dict[str, Any] = {"trade": None}
NO_ACCOUNTS = {"membership": msgspec.structs.replace(statutes().membership, accounts=())}
BIG = MAX_INTEGER // 2
TABLE: list[tuple[str, str, Refused]] = [
    ("trade.pay", "trade_not_offered", _with_two(_pays(), **NO_TRADE)),
    ("trade.pay", "statutes_version_mismatch", _with_two(_pays(statutes_version=2))),
    ("trade.pay", "total_mismatch", _with_two(_pays(total_minor=101))),
    ("trade.pay", "member_not_active", _with_two(_pay_to_gone)),
    ("trade.pay", "member_not_active", _with_two(_pay_from_gone)),
    ("trade.pay", "trade_limit_exceeded", _with_two(_clerk_pays(trade_limit_minor=99))),
    ("trade.pay", "day_limit_exceeded", _with_two(_clerk_pays(day_limit_minor=99))),
    ("trade.pay", "account_unknown", _with_two(_pays(), **NO_ACCOUNTS)),
    (
        "trade.pay",
        "account_repeated",
        _with_two(lambda kit, ada, _bob: kit.refused("trade.pay", pay(ada), **kit.by(ada))),
    ),
    ("trade.pay", "credit_limit_exceeded", _with_two(_pays(amount_minor=500_001, total_minor=500_001))),
    ("trade.pay", "upper_limit_exceeded", _with_two(_pay_over_upper)),
    ("trade.set_limits", "trade_not_offered", _with_two(_limits(), **NO_TRADE)),
    ("trade.set_limits", "member_not_active", _with_two(_limits(member=bytes(16)))),
    ("trade.set_limits", "limits_exclude_zero", _with_two(_limits(lower_minor=1))),
    ("trade.set_limits", "limits_exclude_zero", _with_two(_limits(upper_minor=-1))),
    ("trade.propose", "trade_not_offered", _with_two(_proposes(), **NO_TRADE)),
    ("trade.propose", "statutes_version_mismatch", _with_two(_proposes(statutes_version=2))),
    ("trade.propose", "member_not_active", _with_two(_proposes_to_gone)),
    (
        "trade.propose",
        "trade_with_oneself",
        _with_two(lambda kit, ada, _bob: kit.refused("trade.propose", proposal(kit, ada), **kit.by(ada))),
    ),
    ("trade.propose", "parts_not_total", _with_two(_proposes(euro_minor=EURO_MINOR - 1))),
    ("trade.propose", "commission_mismatch", _with_two(_proposes(commission_minor=499))),
    ("trade.propose", "offer_end_out_of_range", _with_two(_proposes_times(0, DAY_MS))),
    ("trade.propose", "offer_end_out_of_range", _with_two(_proposes_times(30 * DAY_MS + 1, 40 * DAY_MS))),
    ("trade.propose", "delivery_end_out_of_range", _with_two(_proposes_times(DAY_MS, DAY_MS - 1))),
    ("trade.propose", "delivery_end_out_of_range", _with_two(_proposes_times(DAY_MS, 90 * DAY_MS + 1))),
    ("trade.accept", "trade_unknown", _with_two(_accepts_unknown)),
    ("trade.accept", "trade_of_another", _with_two(_accepts(by_seller=True))),
    ("trade.accept", "trade_not_proposed", _with_two(_accepts_twice)),
    ("trade.accept", "offer_over", _with_two(_accepts_after(days=10))),
    ("trade.accept", "statutes_version_mismatch", _with_two(_accepts(version=2))),
    ("trade.accept", "total_mismatch", _with_two(_accepts(total_minor=BARTER_MINOR + 1))),
    ("trade.accept", "trade_not_offered", _with_two(_accepts_when_trade_ended)),
    ("trade.accept", "member_not_active", _with_two(_accepts_of_gone)),
    # The mandate's limits count the whole invoice, the euro part with it.
    (
        "trade.accept",
        "trade_limit_exceeded",
        _with_two(_clerk_accepts(trade_limit_minor=BARTER_MINOR + EURO_MINOR - 1)),
    ),
    ("trade.accept", "day_limit_exceeded", _with_two(_clerk_accepts(day_limit_minor=BARTER_MINOR + EURO_MINOR - 1))),
    ("trade.accept", "account_unknown", _with_two(_accepts_without_account, **NO_ACCOUNTS)),
    ("trade.accept", "credit_limit_exceeded", _with_two(_accepts_within(-BARTER_MINOR + 1, BIG))),
    ("trade.accept", "upper_limit_exceeded", _with_two(_accepts_within(-BIG, BARTER_MINOR - COMMISSION_MINOR - 1))),
    ("trade.confirm", "trade_unknown", _with_two(_confirms(_no_trade))),
    ("trade.confirm", "trade_of_another", _with_two(_confirms(accepted, by_seller=True))),
    ("trade.confirm", "trade_not_accepted", _with_two(_confirms(propose))),
    ("trade.confirm", "trade_not_accepted", _with_two(_confirms(confirmed))),
    ("trade.refuse", "trade_unknown", _with_two(_refuses(_no_trade, "ada"))),
    ("trade.refuse", "trade_of_another", _with_two(_refuses(propose, "eve"))),
    ("trade.refuse", "trade_binds", _with_two(_refuses(accepted, "bob"))),
    ("trade.refuse", "trade_binds", _with_two(_refuses(confirmed, "ada"))),
    ("trade.lapse", "trade_unknown", _with_two(_lapses(_no_trade, "node", 0))),
    ("trade.lapse", "trade_of_another", _with_two(_lapses(propose, "eve", 10))),
    ("trade.lapse", "trade_binds", _with_two(_lapses(accepted, "node", 20))),
    ("trade.lapse", "trade_binds", _with_two(_lapses(confirmed, "bob", 59))),
    ("trade.lapse", "trade_not_over", _with_two(_lapses(accepted, "bob", 10))),
    ("trade.reverse", "signature_missing", _with_two(_reverses_alone)),
    ("trade.reverse", "trade_unknown", _with_two(_reverses(_no_trade))),
    ("trade.reverse", "trade_of_another", _with_two(_reverses_of_others)),
    ("trade.reverse", "trade_not_confirmed", _with_two(_reverses(accepted))),
    ("trade.reverse", "reversal_too_late", _with_two(_reverses(confirmed, days=60))),
    ("trade.reverse", "trade_limit_exceeded", _with_two(_clerk_reverses(trade_limit_minor=BARTER_MINOR - 1))),
    ("trade.reverse", "day_limit_exceeded", _with_two(_clerk_reverses(day_limit_minor=BARTER_MINOR - 1))),
    ("trade.reverse", "account_unknown", _with_two(_reverses_of_gone)),
    ("trade.reverse", "credit_limit_exceeded", _with_two(_reverses_after_spending)),
    ("trade.reverse", "upper_limit_exceeded", _with_two(_reverses_above_upper)),
]


@pytest.mark.parametrize(("tag", "code", "attempt"), TABLE, ids=[f"{tag}-{code}" for tag, code, _ in TABLE])
def test_each_reason_refuses_and_changes_nothing(tag: str, code: str, attempt: Refused) -> None:
    assert attempt(LedgerKit()) == code


UNREACHABLE = {
    "trade.pay": {"unit_mismatch", "amount_out_of_range"},
    "trade.accept": {"unit_mismatch", "amount_out_of_range", "account_repeated"},
    "trade.reverse": {"unit_mismatch", "amount_out_of_range", "account_repeated"},
    "trade.propose": {"scale_mismatch"},
}
"""Reasons of the accounts that legs made by the rules can't meet; scales have a test of their own below."""


def test_every_declared_reason_has_a_row() -> None:
    declared = {
        (one.tag, code) for one in TRADE_TYPES for code in one.reasons if code not in UNREACHABLE.get(one.tag, ())
    }
    assert declared <= {(tag, code) for tag, code, _ in TABLE}


def test_units_of_different_scales_do_not_make_one_invoice() -> None:
    kit = LedgerKit()
    ada, bob = kit.join("ada"), kit.join("bob")
    founded = kit.state.coop.founded
    units = tuple(msgspec.structs.replace(unit, scale=0) if unit.code == "BART" else unit for unit in founded.units)
    kit.state.coop.profile[""] = msgspec.structs.replace(founded, units=units)
    assert kit.refused("trade.propose", proposal(kit, bob), **kit.by(ada)) == "scale_mismatch"
