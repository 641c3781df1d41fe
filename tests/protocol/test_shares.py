# SPDX-License-Identifier: AGPL-3.0-or-later
"""Shares: subscriptions, payment and issue, the register, redemption, the capital floor."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_kit import DAY_MS, Actor, LedgerKit, percent, seed, statutes

from ecot_protocol.domains.coop.acts import AmendStatutes
from ecot_protocol.domains.membership.acts import AttestPayment, Exclude, GrantMandate, Leave, NewPerson
from ecot_protocol.domains.membership.state import Mandate
from ecot_protocol.domains.shares.acts import (
    SHARES_TYPES,
    AttestSharePayment,
    CancelSubscription,
    Redeem,
    Subscribe,
)
from ecot_protocol.domains.shares.facts import SharesIssued, SharesRedeemed
from ecot_protocol.domains.shares.state import MAX_LOTS, Holding, ShareRange
from ecot_protocol.ledger.accounts import AccountKey
from ecot_protocol.ledger.entry_type import BOARD, COOPERATIVE, TREASURER
from ecot_protocol.ledger.facts import Fact
from ecot_protocol.ledger.reasons import Reason
from ecot_protocol.wire.ids import object_id
from ecot_protocol.wire.keys import Signer

NOMINAL_MINOR = 10_000
FLOORLESS = statutes(shares=msgspec.structs.replace(statutes().shares, capital_floor=percent(0)))
Refused = Callable[[LedgerKit], str]


def subscribe(kit: LedgerKit, actor: Actor, count: int, *, price_minor: int = NOMINAL_MINOR, version: int = 1) -> bytes:
    """Record a subscription and return its id."""
    subscription = kit.new_id()
    payload = Subscribe(count=count, statutes_version=version, total_minor=count * price_minor)
    kit.must("shares.subscribe", payload, entry_id=subscription, **kit.by(actor))
    return subscription


def attest(kit: LedgerKit, subscription: bytes) -> list[Fact]:
    payload = AttestSharePayment(reference=None, subscription=subscription)
    return kit.must("shares.attest_payment", payload, author=TREASURER, signers=kit.treasurer)


def buy(kit: LedgerKit, actor: Actor, count: int) -> list[Fact]:
    return attest(kit, subscribe(kit, actor, count))


def leave(kit: LedgerKit, actor: Actor) -> None:
    kit.must("membership.leave", Leave(), **kit.by(actor))


def redeem(kit: LedgerKit, actor: Actor, count: int, total_minor: int | None = None) -> list[Fact] | Reason:
    payload = Redeem(
        count=count,
        member=actor.member,
        total_minor=count * NOMINAL_MINOR if total_minor is None else total_minor,
        unit="EUR",
    )
    return kit.send("shares.redeem", payload, author=TREASURER, signers=kit.treasurer)


def refused_redeem(kit: LedgerKit, actor: Actor, count: int, total_minor: int | None = None) -> str:
    before = kit.state.digest()
    reason = redeem(kit, actor, count, total_minor)
    assert isinstance(reason, Reason)
    assert kit.state.digest() == before
    return reason.code


def own(kit: LedgerKit, purpose: str) -> int:
    return kit.state.accounts.balance(AccountKey(COOPERATIVE, "EUR", purpose))


def claims(kit: LedgerKit, actor: Actor) -> int:
    return kit.state.accounts.balance(AccountKey(actor.member, "EUR", "claims"))


def only(facts: list[Fact], kind: type[Fact]) -> list[Any]:
    return [fact for fact in facts if type(fact) is kind]


def amend(kit: LedgerKit, version: int, **changes: Any) -> None:
    """Let the board change the statutes' section on shares at once."""
    new = msgspec.structs.replace(kit.statutes, shares=msgspec.structs.replace(kit.statutes.shares, **changes))
    payload = AmendStatutes(in_force_from_ms=kit.now, statutes=new, version=version)
    kit.must("coop.amend_statutes", payload, author=BOARD, signers=kit.board)


def test_a_subscription_is_owed_and_gives_no_share_yet() -> None:
    kit = LedgerKit()
    ada = kit.join("ada")
    subscribe(kit, ada, 3)
    assert claims(kit, ada) == -13_500 - 3 * NOMINAL_MINOR
    assert (own(kit, "capital_called"), own(kit, "capital")) == (3 * NOMINAL_MINOR, 0)
    assert kit.state.shares.share_count(ada.member) == 0


def test_payment_issues_numbered_shares_in_the_same_entry() -> None:
    kit = LedgerKit()
    ada = kit.join("ada")
    subscription = subscribe(kit, ada, 3)
    issued = only(attest(kit, subscription), SharesIssued)
    assert issued == [
        SharesIssued(
            movement=1, member=ada.member, subscription=subscription, first=1, last=3, price_minor=10_000, unit="EUR"
        )
    ]
    assert claims(kit, ada) == -13_500
    assert (own(kit, "capital_called"), own(kit, "capital"), own(kit, "bank")) == (0, 30_000, -30_000)
    assert kit.state.shares.share_count(ada.member) == 3
    assert subscription not in kit.state.shares.subscriptions


def test_numbers_follow_the_order_of_payments() -> None:
    kit = LedgerKit()
    ada, bob = kit.join("ada"), kit.join("bob")
    first, second = subscribe(kit, ada, 2), subscribe(kit, bob, 1)
    attest(kit, second)
    attest(kit, first)
    buy(kit, ada, 4)
    assert kit.state.shares.holding_of(bob.member).ranges == (ShareRange(1, 1, 10_000, "EUR"),)
    assert kit.state.shares.holding_of(ada.member).ranges == (ShareRange(2, 7, 10_000, "EUR"),)


def test_the_price_is_that_of_the_subscriptions_record() -> None:
    kit = LedgerKit()
    ada = kit.join("ada")
    old = subscribe(kit, ada, 1)
    amend(kit, 2, nominal_minor=20_000)
    new = subscribe(kit, ada, 1, price_minor=20_000, version=2)
    attest(kit, old)
    attest(kit, new)
    assert kit.state.shares.holding_of(ada.member).ranges == (
        ShareRange(1, 1, 10_000, "EUR"),
        ShareRange(2, 2, 20_000, "EUR"),
    )
    assert own(kit, "capital") == 30_000


@pytest.mark.parametrize("by_member", [True, False])
def test_an_unpaid_subscription_can_be_cancelled(by_member: bool) -> None:
    kit = LedgerKit()
    ada = kit.join("ada")
    cancel = CancelSubscription(subscription=subscribe(kit, ada, 2))
    options = kit.by(ada) if by_member else {"author": TREASURER, "signers": kit.treasurer}
    kit.must("shares.cancel_subscription", cancel, **options)
    assert (claims(kit, ada), own(kit, "capital_called")) == (-13_500, 0)
    assert ada.member not in kit.state.shares.holdings


def test_shares_are_redeemed_after_the_delay_and_paid_out() -> None:
    kit = LedgerKit(FLOORLESS)
    ada = kit.join("ada")
    buy(kit, ada, 3)
    leave(kit, ada)
    kit.now += 30 * DAY_MS
    result = redeem(kit, ada, 3)
    assert isinstance(result, list)
    assert only(result, SharesRedeemed) == [
        SharesRedeemed(movement=2, member=ada.member, first=1, last=3, price_minor=10_000, unit="EUR")
    ]
    assert (own(kit, "capital"), claims(kit, ada)) == (0, 30_000 - 13_500)
    assert ada.member not in kit.state.shares.holdings
    out = AttestPayment(amount_minor=16_500, direction="out", member=ada.member, reference=None, unit="EUR")
    kit.must("membership.attest_payment", out, author=TREASURER, signers=kit.treasurer)
    assert claims(kit, ada) == 0


def test_an_excluded_member_gets_its_shares_back_too() -> None:
    kit = LedgerKit(FLOORLESS)
    ada = kit.join("ada")
    buy(kit, ada, 1)
    kit.must("membership.exclude", Exclude(member=ada.member, reason=None), author=BOARD, signers=kit.board)
    kit.now += 30 * DAY_MS
    assert isinstance(redeem(kit, ada, 1), list)


def test_redemption_takes_lowest_numbers_first_one_movement_a_range() -> None:
    kit = LedgerKit(FLOORLESS)
    ada, bob = kit.join("ada"), kit.join("bob")
    for actor, count in ((ada, 2), (bob, 1), (ada, 3)):
        buy(kit, actor, count)
    leave(kit, ada)
    kit.now += 30 * DAY_MS
    result = redeem(kit, ada, 4)
    assert isinstance(result, list)
    assert [(one.movement, one.first, one.last) for one in only(result, SharesRedeemed)] == [(4, 1, 2), (5, 4, 5)]
    assert kit.state.shares.holding_of(ada.member).ranges == (ShareRange(6, 6, 10_000, "EUR"),)


def test_a_redeemed_number_is_never_given_again() -> None:
    kit = LedgerKit(FLOORLESS)
    ada, bob = kit.join("ada"), kit.join("bob")
    buy(kit, ada, 2)
    leave(kit, ada)
    kit.now += 30 * DAY_MS
    redeem(kit, ada, 2)
    issued = only(buy(kit, bob, 1), SharesIssued)
    assert [(one.movement, one.first, one.last) for one in issued] == [(3, 3, 3)]


def test_the_floor_counts_the_highest_capital_ever_reached() -> None:
    kit = LedgerKit()
    ada, bob = kit.join("ada"), kit.join("bob")
    buy(kit, ada, 6)
    buy(kit, bob, 2)
    leave(kit, ada)
    leave(kit, bob)
    kit.now += 30 * DAY_MS
    assert isinstance(redeem(kit, ada, 4), list)
    # 8 shares once, 4 now: two more may go, to a quart of the highest; a floor of the present capital would let three.
    assert refused_redeem(kit, ada, 3) == "shares_not_held"
    assert isinstance(redeem(kit, ada, 2), list)
    assert refused_redeem(kit, bob, 1) == "capital_floor_reached"


def test_the_delay_is_that_of_the_members_going_and_the_floor_that_of_now() -> None:
    kit = LedgerKit()
    ada = kit.join("ada")
    buy(kit, ada, 1)
    leave(kit, ada)
    kit.now += 1
    amend(kit, 2, redemption_delay_ms=300 * DAY_MS, capital_floor=percent(0))
    kit.now += 30 * DAY_MS - 2
    assert refused_redeem(kit, ada, 1) == "redemption_not_due"
    kit.now += 1
    assert isinstance(redeem(kit, ada, 1), list)


def test_a_first_subscription_cannot_be_avoided_by_cancelling_it() -> None:
    minimum = statutes(shares=msgspec.structs.replace(statutes().shares, subscription_min_count=5))
    kit = LedgerKit(minimum)
    ada = kit.join("ada")
    first = subscribe(kit, ada, 5)
    small = Subscribe(count=1, statutes_version=1, total_minor=NOMINAL_MINOR)
    assert kit.refused("shares.subscribe", small, **kit.by(ada)) == "subscription_too_small"
    attest(kit, first)
    subscribe(kit, ada, 1)


def _buyer(count: int = 1, total_minor: int = NOMINAL_MINOR, version: int = 1) -> Refused:
    def attempt(kit: LedgerKit) -> str:
        payload = Subscribe(count=count, statutes_version=version, total_minor=total_minor)
        return kit.refused("shares.subscribe", payload, **kit.by(kit.join("ada")))

    return attempt


def _below_minimum(kit: LedgerKit) -> str:
    amend(kit, 2, subscription_min_count=2)
    return _buyer(version=2)(kit)


def _stranger_subscribes(kit: LedgerKit) -> str:
    ada, bob = kit.join("ada"), kit.join("bob")
    payload = Subscribe(count=1, statutes_version=1, total_minor=NOMINAL_MINOR)
    return kit.refused("shares.subscribe", payload, author=ada.member, signers=(bob.signer,))


def _applicant(kit: LedgerKit) -> str:
    payload = Subscribe(count=1, statutes_version=1, total_minor=NOMINAL_MINOR)
    return kit.refused("shares.subscribe", payload, **kit.by(kit.apply_for("ada")))


def _too_many_lots(kit: LedgerKit) -> str:
    ada = kit.join("ada")
    kit.state.shares.put_holding(ada.member, Holding(ranges=(), subscription_count=MAX_LOTS))
    payload = Subscribe(count=1, statutes_version=1, total_minor=NOMINAL_MINOR)
    return kit.refused("shares.subscribe", payload, **kit.by(ada))


def _limited_owner(trade_limit_minor: int | None, day_limit_minor: int | None) -> Refused:
    def attempt(kit: LedgerKit) -> str:
        ada, clerk = kit.join("ada"), Signer(seed("clerk"))
        grant_id = kit.new_id()
        mandate = Mandate(
            day_limit_minor=day_limit_minor,
            from_ms=0,
            person=object_id(grant_id, 1),
            scopes=("owner",),
            trade_limit_minor=trade_limit_minor,
            until_ms=None,
        )
        new = NewPerson(handle="clerk", public_key=clerk.public_key)
        grant = GrantMandate(mandate=mandate, new_person=new)
        signers = (ada.signer, clerk)
        kit.must("membership.grant_mandate", grant, author=ada.member, signers=signers, entry_id=grant_id)
        small = Subscribe(count=1, statutes_version=1, total_minor=NOMINAL_MINOR)
        kit.must("shares.subscribe", small, author=ada.member, signers=(clerk,))
        large = Subscribe(count=2, statutes_version=1, total_minor=2 * NOMINAL_MINOR)
        return kit.refused("shares.subscribe", large, author=ada.member, signers=(clerk,))

    return attempt


def _beyond_any_amount(kit: LedgerKit) -> str:
    huge = 2**53 - 10_000
    payload = Subscribe(count=huge // NOMINAL_MINOR, statutes_version=1, total_minor=huge - huge % NOMINAL_MINOR)
    return kit.refused("shares.subscribe", payload, **kit.by(kit.join("ada")))


def _no_claims_account(_kit: LedgerKit) -> str:
    kit = LedgerKit(statutes(trade=None))
    ada = kit.join("ada")
    amend(kit, 2, unit="BART")
    payload = Subscribe(count=1, statutes_version=2, total_minor=NOMINAL_MINOR)
    return kit.refused("shares.subscribe", payload, **kit.by(ada))


def _by_clerk_of_another(kit: LedgerKit) -> str:
    cancel = CancelSubscription(subscription=subscribe(kit, kit.join("ada"), 1))
    return kit.refused("shares.cancel_subscription", cancel, **kit.by(kit.join("bob")))


def _cancel_paid(kit: LedgerKit) -> str:
    ada = kit.join("ada")
    subscription = subscribe(kit, ada, 1)
    attest(kit, subscription)
    return kit.refused("shares.cancel_subscription", CancelSubscription(subscription=subscription), **kit.by(ada))


def _attest_twice(kit: LedgerKit) -> str:
    subscription = subscribe(kit, kit.join("ada"), 1)
    attest(kit, subscription)
    payload = AttestSharePayment(reference=None, subscription=subscription)
    return kit.refused("shares.attest_payment", payload, author=TREASURER, signers=kit.treasurer)


def _attest_by_member(kit: LedgerKit) -> str:
    ada = kit.join("ada")
    payload = AttestSharePayment(reference=None, subscription=subscribe(kit, ada, 1))
    return kit.refused("shares.attest_payment", payload, **kit.by(ada))


def _attest_for_gone(kit: LedgerKit) -> str:
    ada = kit.join("ada")
    subscription = subscribe(kit, ada, 1)
    leave(kit, ada)
    payload = AttestSharePayment(reference=None, subscription=subscription)
    return kit.refused("shares.attest_payment", payload, author=TREASURER, signers=kit.treasurer)


def _redeem_of(*, gone: bool, days: int, count: int, total_minor: int | None = None) -> Refused:
    def attempt(kit: LedgerKit) -> str:
        ada = kit.join("ada")
        buy(kit, ada, 2)
        if gone:
            leave(kit, ada)
        kit.now += days * DAY_MS
        return refused_redeem(kit, ada, count, total_minor)

    return attempt


REASONS: list[tuple[str, str, Refused]] = [
    ("shares.subscribe", "member_not_active", _applicant),
    ("shares.subscribe", "statutes_version_mismatch", _buyer(version=2)),
    ("shares.subscribe", "subscription_too_small", _below_minimum),
    ("shares.subscribe", "total_mismatch", _buyer(total_minor=NOMINAL_MINOR + 1)),
    ("shares.subscribe", "subscriptions_full", _too_many_lots),
    ("shares.subscribe", "trade_limit_exceeded", _limited_owner(NOMINAL_MINOR, None)),
    ("shares.subscribe", "day_limit_exceeded", _limited_owner(None, 2 * NOMINAL_MINOR)),
    ("shares.subscribe", "account_unknown", _no_claims_account),
    ("shares.subscribe", "credit_limit_exceeded", _beyond_any_amount),
    ("shares.subscribe", "signature_missing", _stranger_subscribes),
    ("shares.cancel_subscription", "subscription_unknown", _cancel_paid),
    ("shares.cancel_subscription", "subscription_of_another", _by_clerk_of_another),
    ("shares.attest_payment", "signature_missing", _attest_by_member),
    ("shares.attest_payment", "subscription_unknown", _attest_twice),
    ("shares.attest_payment", "member_not_active", _attest_for_gone),
    ("shares.redeem", "member_not_gone", _redeem_of(gone=False, days=40, count=1)),
    ("shares.redeem", "redemption_not_due", _redeem_of(gone=True, days=29, count=1)),
    ("shares.redeem", "shares_not_held", _redeem_of(gone=True, days=30, count=3)),
    ("shares.redeem", "total_mismatch", _redeem_of(gone=True, days=30, count=1, total_minor=1)),
    ("shares.redeem", "capital_floor_reached", _redeem_of(gone=True, days=30, count=2)),
]


@pytest.mark.parametrize(("tag", "code", "attempt"), REASONS, ids=[f"{tag}-{code}" for tag, code, _ in REASONS])
def test_each_reason_refuses_and_changes_nothing(tag: str, code: str, attempt: Refused) -> None:
    assert attempt(LedgerKit()) == code


UNREACHABLE = {"account_repeated", "unit_mismatch", "amount_out_of_range", "upper_limit_exceeded"}
"""Reasons of the accounts that these types can't meet: their legs are made by the rules, and have no upper limit."""
UNREACHABLE_HERE = {
    "shares.subscribe": UNREACHABLE,
    **dict.fromkeys(
        ("shares.cancel_subscription", "shares.attest_payment", "shares.redeem"),
        UNREACHABLE | {"account_unknown", "credit_limit_exceeded"},
    ),
}


def test_every_declared_reason_has_a_row() -> None:
    tested = {(tag, code) for tag, code, _ in REASONS}
    declared = {
        (one.tag, code) for one in SHARES_TYPES for code in one.reasons if code not in UNREACHABLE_HERE[one.tag]
    }
    assert declared <= tested


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["subscribe", "attest", "cancel", "leave", "redeem", "wait"]),
        st.integers(0, 2),
        st.integers(1, 5),
    ),
    max_size=25,
)


class Model:
    """Shares as a cooperative would keep them on paper: lists of numbers, a till, a wall of unpaid slips."""

    def __init__(self) -> None:
        self.unpaid: list[tuple[int, int, bytes]] = []
        self.numbers: dict[int, list[int]] = {0: [], 1: [], 2: []}
        self.gone: dict[int, int] = {}
        self.owed = dict.fromkeys(range(3), -13_500)
        self.given, self.capital, self.highest = 0, 0, 0

    def issue(self, slip: tuple[int, int, bytes]) -> None:
        who, count, _ = slip
        self.unpaid.remove(slip)
        self.numbers[who] += range(self.given + 1, self.given + count + 1)
        self.given += count
        self.capital += count * NOMINAL_MINOR
        self.highest = max(self.highest, self.capital)
        self.owed[who] += count * NOMINAL_MINOR

    def may_redeem(self, who: int, count: int, now: int) -> bool:
        left = self.capital - count * NOMINAL_MINOR
        return (
            who in self.gone
            and now >= self.gone[who] + 30 * DAY_MS
            and len(self.numbers[who]) >= count
            and 4 * left >= self.highest
        )


def _step(kit: LedgerKit, model: Model, actors: list[Actor], step: tuple[str, int, int]) -> list[Fact] | Reason:
    """Take one step on both; fails if one allows what the other refuses."""
    act, who, count = step
    actor = actors[who]
    slip = next((one for one in model.unpaid if one[0] == who), None)
    result: list[Fact] | Reason
    if act == "subscribe":
        new = kit.new_id()
        payload = Subscribe(count=count, statutes_version=1, total_minor=count * NOMINAL_MINOR)
        result = kit.send("shares.subscribe", payload, entry_id=new, **kit.by(actor))
        allowed = who not in model.gone
        if allowed:
            model.unpaid.append((who, count, new))
            model.owed[who] -= count * NOMINAL_MINOR
    elif act in ("attest", "cancel"):
        treasurer: dict[str, Any] = {"author": TREASURER, "signers": kit.treasurer}
        wanted = slip[2] if slip else bytes(16)
        if act == "attest":
            result = kit.send(
                "shares.attest_payment", AttestSharePayment(reference=None, subscription=wanted), **treasurer
            )
        else:
            result = kit.send("shares.cancel_subscription", CancelSubscription(subscription=wanted), **treasurer)
        allowed = slip is not None and (act == "cancel" or who not in model.gone)
        if allowed and slip and act == "attest":
            model.issue(slip)
        elif allowed and slip:
            model.unpaid.remove(slip)
            model.owed[who] += slip[1] * NOMINAL_MINOR
    elif act == "leave":
        result = kit.send("membership.leave", Leave(), **kit.by(actor))
        allowed = who not in model.gone
        if allowed:
            model.gone[who] = kit.now
    elif act == "redeem":
        result = redeem(kit, actor, count)
        allowed = model.may_redeem(who, count, kit.now)
        if allowed:
            model.numbers[who] = model.numbers[who][count:]
            model.capital -= count * NOMINAL_MINOR
            model.owed[who] += count * NOMINAL_MINOR
    else:
        kit.now += count * 10 * DAY_MS
        return []
    assert isinstance(result, list) == allowed, (step, result)
    return result


@settings(max_examples=60)
@given(STEPS)
def test_random_sequences_agree_with_a_paper_model(steps: list[tuple[str, int, int]]) -> None:
    kit, model = LedgerKit(), Model()
    actors = [kit.join(name) for name in ("ada", "bob", "eve")]
    movements: list[int] = []
    for step in steps:
        result = _step(kit, model, actors, step)
        movements += (
            [one.movement for one in result if isinstance(one, SharesIssued | SharesRedeemed)]
            if isinstance(result, list)
            else []
        )
        assert sum(row.balance_minor for key, row in kit.state.accounts.rows.items() if key.unit == "EUR") == 0
    for who, actor in enumerate(actors):
        held = [n for one in kit.state.shares.holding_of(actor.member).ranges for n in range(one.first, one.last + 1)]
        assert held == model.numbers[who]
        assert claims(kit, actor) == model.owed[who]
    assert own(kit, "capital") == model.capital
    assert movements == list(range(1, len(movements) + 1))
    assert kit.replayed().digest() == kit.state.digest()
