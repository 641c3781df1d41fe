# SPDX-License-Identifier: AGPL-3.0-or-later
"""The acts of shares: subscribe, cancel; payment and issue; redemption.

A subscription is paid whole, never in parts, and a member has its shares from the record that attests the payment.
Price and unit are those of the statutes at the subscription's record; shares are taken back at the price at which they
were issued, lowest numbers first.
"""

from typing import Any, Final

from ecot_protocol.domains.coop.state import BANK, claims_account, own_account
from ecot_protocol.domains.membership import facts as membership_facts
from ecot_protocol.domains.membership.acts import treasurer_signs
from ecot_protocol.domains.membership.state import (
    OWNER,
    SPENDING_REASONS,
    check_spending,
    member_signs,
    note_spending,
)
from ecot_protocol.domains.shares import facts
from ecot_protocol.domains.shares.state import (
    CAPITAL,
    CAPITAL_CALLED,
    MAX_LOTS,
    Holding,
    ShareRange,
    SharesState,
    Subscription,
    add_range,
    take_ranges,
)
from ecot_protocol.ledger.accounts import ACCOUNT_REASONS, Leg
from ecot_protocol.ledger.attachments import PaymentCommitment
from ecot_protocol.ledger.entry_type import TREASURER, Act, AnyEntryType, EntryType, SignerRule, Visibility
from ecot_protocol.ledger.facts import Fact
from ecot_protocol.ledger.reasons import Reason
from ecot_protocol.wire.encoding import Id, Positive, UnitCode, Wire


class Subscribe(Wire):
    """Payload of ``shares.subscribe``: the author, a member, buys `count` shares for `total_minor` in all."""

    count: Positive
    statutes_version: Positive
    total_minor: Positive


class CancelSubscription(Wire):
    """Payload of ``shares.cancel_subscription``, by the member or by the treasurer, while it is unpaid."""

    subscription: Id


class AttestSharePayment(Wire):
    """Payload of ``shares.attest_payment``, by the treasurer: the price came in, and the shares are issued."""

    reference: PaymentCommitment | None
    subscription: Id


class Redeem(Wire):
    """Payload of ``shares.redeem``, by the treasurer: `count` shares of one who left are taken back.

    `total_minor` is what they were issued for, in `unit`.
    """

    count: Positive
    member: Id
    total_minor: Positive
    unit: UnitCode


def _subscribe_signers(state: SharesState, act: Act[Subscribe], at: int) -> SignerRule:
    return member_signs(state, act.author, OWNER, at)


def _check_subscribe(state: SharesState, act: Act[Subscribe], at: int) -> Reason | None:
    member, subscribe = act.author, act.payload
    assert member is not None
    if not state.membership.is_active(member):
        return Reason.of("member_not_active", member=member.hex())
    version, statutes = state.coop.statutes_at(at)
    if subscribe.statutes_version != version:
        return Reason.of("statutes_version_mismatch", expected=version)
    rules, holding = statutes.shares, state.shares.holding_of(member)
    # Counted on what is issued: else a first subscription could be cancelled behind a small second one.
    if not holding.ranges and subscribe.count < rules.subscription_min_count:
        return Reason.of("subscription_too_small", minimum=rules.subscription_min_count)
    total_minor = subscribe.count * rules.nominal_minor
    if subscribe.total_minor != total_minor:
        return Reason.of("total_mismatch", expected_minor=total_minor)
    if len(holding.ranges) + holding.subscription_count >= MAX_LOTS:
        return Reason.of("subscriptions_full", maximum=MAX_LOTS)
    reason = check_spending(state, member, act.signers, rules.unit, total_minor, at)
    return reason or state.accounts.check_transfer((_call_leg(state, member, total_minor, rules.unit),))


def _call_leg(state: SharesState, member: bytes, total_minor: int, unit: str) -> Leg:
    called = own_account(unit, CAPITAL_CALLED)
    if called not in state.accounts.rows:
        # Only while the very first subscription of the unit is checked: the effect opens the account. Until then the
        # unit's general account, there from the genesis and without limits too, answers for it.
        called = own_account(unit)
    return Leg(claims_account(member, unit), called, total_minor, "share_call")


def _subscribe(state: SharesState, act: Act[Subscribe], at: int) -> list[Fact]:
    member, count = act.author, act.payload.count
    assert member is not None
    rules = state.coop.statutes_at(at)[1].shares
    subscription = Subscription(count=count, member=member, price_minor=rules.nominal_minor, unit=rules.unit)
    total_minor = subscription.total_minor
    state.shares.subscriptions[act.id] = subscription
    _count_subscriptions(state, member, 1)
    note_spending(state, member, act.signers, rules.unit, total_minor, at)
    subscribed = facts.SharesSubscribed(
        subscription=act.id,
        member=member,
        count=count,
        price_minor=rules.nominal_minor,
        total_minor=total_minor,
        unit=rules.unit,
    )
    opened = _open_capital(state, rules.unit)
    leg = _call_leg(state, member, total_minor, rules.unit)
    return [subscribed, *opened, *state.accounts.transfer(act.id, (leg,))]


def _open_capital(state: SharesState, unit: str) -> list[Fact]:
    keys = (own_account(unit, CAPITAL_CALLED), own_account(unit, CAPITAL))
    missing = [key for key in keys if key not in state.accounts.rows]
    return [state.accounts.open(key, lower_minor=None, upper_minor=None) for key in missing]


def _count_subscriptions(state: SharesState, member: bytes, change: int) -> None:
    old = state.shares.holding_of(member)
    new = Holding(ranges=old.ranges, subscription_count=old.subscription_count + change)
    state.shares.put_holding(member, new)


def _cancel_signers(state: SharesState, act: Act[CancelSubscription], at: int) -> SignerRule:
    if act.author == TREASURER:
        return treasurer_signs(state, act, at)
    return member_signs(state, act.author, OWNER, at)


def _check_cancel(state: SharesState, act: Act[CancelSubscription], _at: int) -> Reason | None:
    subscription = state.shares.subscriptions.get(act.payload.subscription)
    if subscription is None:
        return Reason.of("subscription_unknown", subscription=act.payload.subscription.hex())
    if act.author not in (TREASURER, subscription.member):
        return Reason.of("subscription_of_another")
    return state.accounts.check_transfer((_cancel_leg(subscription),))


def _cancel_leg(subscription: Subscription) -> Leg:
    called = own_account(subscription.unit, CAPITAL_CALLED)
    claims = claims_account(subscription.member, subscription.unit)
    return Leg(called, claims, subscription.total_minor, "share_call_cancelled")


def _cancel(state: SharesState, act: Act[CancelSubscription], _at: int) -> list[Fact]:
    assert act.author is not None
    subscription_id = act.payload.subscription
    subscription = state.shares.subscriptions[subscription_id]
    del state.shares.subscriptions[subscription_id]
    _count_subscriptions(state, subscription.member, -1)
    cancelled = facts.SubscriptionCancelled(
        subscription=subscription_id,
        member=subscription.member,
        count=subscription.count,
        total_minor=subscription.total_minor,
        unit=subscription.unit,
        by=act.author,
    )
    return [cancelled, *state.accounts.transfer(subscription_id, (_cancel_leg(subscription),))]


def _check_payment(state: SharesState, act: Act[AttestSharePayment], _at: int) -> Reason | None:
    subscription = state.shares.subscriptions.get(act.payload.subscription)
    if subscription is None:
        return Reason.of("subscription_unknown", subscription=act.payload.subscription.hex())
    if not state.membership.is_active(subscription.member):
        return Reason.of("member_not_active", member=subscription.member.hex())
    return state.accounts.check_transfer(_issue_legs(subscription))


def _issue_legs(subscription: Subscription) -> tuple[Leg, Leg]:
    unit, total_minor = subscription.unit, subscription.total_minor
    claims = claims_account(subscription.member, unit)
    return (
        Leg(own_account(unit, BANK), claims, total_minor, "share_payment"),
        Leg(own_account(unit, CAPITAL_CALLED), own_account(unit, CAPITAL), total_minor, "share_issue"),
    )


def _attest_payment(state: SharesState, act: Act[AttestSharePayment], _at: int) -> list[Fact]:
    subscription_id = act.payload.subscription
    subscription = state.shares.subscriptions[subscription_id]
    member, unit, total_minor = subscription.member, subscription.unit, subscription.total_minor
    del state.shares.subscriptions[subscription_id]
    attested = membership_facts.PaymentAttested(member=member, direction="in", amount_minor=total_minor, unit=unit)
    issued = _issue(state, subscription_id, subscription)
    postings = state.accounts.transfer(subscription_id, _issue_legs(subscription))
    capital_minor = state.accounts.balance(own_account(unit, CAPITAL))
    if capital_minor > (state.shares.highest_capital.get(unit) or 0):
        state.shares.highest_capital[unit] = capital_minor
    return [attested, issued, *postings]


def _issue(state: SharesState, subscription_id: bytes, subscription: Subscription) -> Fact:
    member, count = subscription.member, subscription.count
    movement, first = state.shares.take_numbers(count)
    new = ShareRange(first, first + count - 1, subscription.price_minor, subscription.unit)
    old = state.shares.holding_of(member)
    state.shares.put_holding(
        member, Holding(ranges=add_range(old.ranges, new), subscription_count=old.subscription_count - 1)
    )
    return facts.SharesIssued(
        movement=movement,
        member=member,
        subscription=subscription_id,
        first=new.first,
        last=new.last,
        price_minor=new.price_minor,
        unit=new.unit,
    )


def _check_redeem(state: SharesState, act: Act[Redeem], at: int) -> Reason | None:
    redeem = act.payload
    member = state.membership.members.get(redeem.member)
    if member is None or member.status not in ("excluded", "left"):
        return Reason.of("member_not_gone", member=redeem.member.hex())
    # The delay keeps the statutes of the member's going (`at_start`); `since_ms` is when it went.
    delay_ms = state.coop.statutes_at(member.since_ms)[1].shares.redemption_delay_ms
    if at < member.since_ms + delay_ms:
        return Reason.of("redemption_not_due", due_ms=member.since_ms + delay_ms)
    taken, _ = take_ranges(state.shares.holding_of(redeem.member).ranges, redeem.count, redeem.unit)
    held = sum(one.count for one in taken)
    if held < redeem.count:
        return Reason.of("shares_not_held", held=held)
    total_minor = _price(taken)
    if redeem.total_minor != total_minor:
        return Reason.of("total_mismatch", expected_minor=total_minor)
    return _check_floor(state, total_minor, redeem.unit, at) or state.accounts.check_transfer(_redeem_legs(act, taken))


def _price(ranges: tuple[ShareRange, ...]) -> int:
    return sum(one.count * one.price_minor for one in ranges)


def _check_floor(state: SharesState, total_minor: int, unit: str, at: int) -> Reason | None:
    """Hold the law's floor: "un quart ... du capital le plus élevé atteint" (law 47-1775 art. 13), or the statutes'."""
    floor = state.coop.statutes_at(at)[1].shares.capital_floor
    highest_minor = state.shares.highest_capital.get(unit) or 0
    left_minor = state.accounts.balance(own_account(unit, CAPITAL)) - total_minor
    if left_minor * floor.denominator < highest_minor * floor.numerator:
        return Reason.of("capital_floor_reached", highest_minor=highest_minor, left_minor=left_minor)
    return None


def _redeem_legs(act: Act[Redeem], taken: tuple[ShareRange, ...]) -> tuple[Leg, ...]:
    unit = act.payload.unit
    capital, claims = own_account(unit, CAPITAL), claims_account(act.payload.member, unit)
    return (Leg(capital, claims, _price(taken), "share_redemption"),)


def _redeem(state: SharesState, act: Act[Redeem], _at: int) -> list[Fact]:
    member, unit = act.payload.member, act.payload.unit
    old = state.shares.holding_of(member)
    taken, left = take_ranges(old.ranges, act.payload.count, unit)
    state.shares.put_holding(member, Holding(ranges=left, subscription_count=old.subscription_count))
    result: list[Fact] = []
    for one in taken:
        movement, _ = state.shares.take_numbers(0)
        result.append(
            facts.SharesRedeemed(
                movement=movement,
                member=member,
                first=one.first,
                last=one.last,
                price_minor=one.price_minor,
                unit=unit,
            )
        )
    return [*result, *state.accounts.transfer(act.id, _redeem_legs(act, taken))]


def _subscription_parties(state: SharesState, act: Act[Any]) -> tuple[bytes, ...]:
    assert act.author is not None
    member = state.shares.subscriptions[act.payload.subscription].member
    return (member,) if act.author == member else (act.author, member)


def _redeem_parties(_state: SharesState, act: Act[Redeem]) -> tuple[bytes, ...]:
    return (TREASURER, act.payload.member)


SUBSCRIBE: Final[EntryType[SharesState, Subscribe]] = EntryType(
    tag="shares.subscribe",
    payload=Subscribe,
    visibility=Visibility.MEMBERS,
    signers=_subscribe_signers,
    check=_check_subscribe,
    effect=_subscribe,
    reasons=(
        "member_not_active",
        "statutes_version_mismatch",
        "subscription_too_small",
        "total_mismatch",
        "subscriptions_full",
        *SPENDING_REASONS,
        *ACCOUNT_REASONS,
    ),
)
CANCEL_SUBSCRIPTION: Final[EntryType[SharesState, CancelSubscription]] = EntryType(
    tag="shares.cancel_subscription",
    payload=CancelSubscription,
    visibility=Visibility.MEMBERS,
    signers=_cancel_signers,
    check=_check_cancel,
    effect=_cancel,
    reasons=("subscription_unknown", "subscription_of_another", *ACCOUNT_REASONS),
    parties=_subscription_parties,
)
ATTEST_SHARE_PAYMENT: Final[EntryType[SharesState, AttestSharePayment]] = EntryType(
    tag="shares.attest_payment",
    payload=AttestSharePayment,
    visibility=Visibility.MEMBERS,
    signers=treasurer_signs,
    check=_check_payment,
    effect=_attest_payment,
    reasons=("subscription_unknown", "member_not_active", *ACCOUNT_REASONS),
    parties=_subscription_parties,
)
REDEEM: Final[EntryType[SharesState, Redeem]] = EntryType(
    tag="shares.redeem",
    payload=Redeem,
    visibility=Visibility.MEMBERS,
    signers=treasurer_signs,
    check=_check_redeem,
    effect=_redeem,
    reasons=(
        "member_not_gone",
        "redemption_not_due",
        "shares_not_held",
        "total_mismatch",
        "capital_floor_reached",
        *ACCOUNT_REASONS,
    ),
    parties=_redeem_parties,
)
SHARES_TYPES: Final[tuple[AnyEntryType, ...]] = (SUBSCRIBE, CANCEL_SUBSCRIPTION, ATTEST_SHARE_PAYMENT, REDEEM)
