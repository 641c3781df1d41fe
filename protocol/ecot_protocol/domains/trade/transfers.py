# SPDX-License-Identifier: AGPL-3.0-or-later
"""Direct transfers and the limits of barter accounts.

`trade.pay` is the most frequent entry of all: its check and effect read the statutes, the two members, the mandate and
the two accounts once each, and make nothing that they do not need. A direct transfer bears no commission, so its total
is its amount; it carries both, so that a statute that adds one later (under higher rules) can't change what an old
client means.
"""

from typing import Final

import msgspec

from ecot_protocol.domains.coop.state import board_signs
from ecot_protocol.domains.membership.state import (
    SPENDING_REASONS,
    AccountName,
    check_spending,
    member_signs,
    note_spending,
)
from ecot_protocol.domains.trade.state import BARTER, TRADE, TradeState, barter_account
from ecot_protocol.ledger.accounts import ACCOUNT_REASONS, Leg
from ecot_protocol.ledger.attachments import MemoCommitment
from ecot_protocol.ledger.entry_type import Act, AnyEntryType, EntryType, SignerRule, Visibility
from ecot_protocol.ledger.facts import Fact
from ecot_protocol.ledger.reasons import Reason
from ecot_protocol.wire.encoding import Id, Integer, Positive, Wire


class Pay(Wire):
    """Payload of ``trade.pay``: the author pays `payee` in the barter unit; `total_minor` is what it costs, in all."""

    amount_minor: Positive
    memo: MemoCommitment | None
    payee: Id
    statutes_version: Positive
    total_minor: Positive


class SetLimits(Wire):
    """Payload of ``trade.set_limits``, by the board: limits of a member's barter account, from 0 down and up.

    A member admitted before the cooperative traded gets its account by this entry. None is no limit.
    """

    lower_minor: Integer | None
    member: Id
    upper_minor: Integer | None


def _pay_signers(state: TradeState, act: Act[Pay], at: int) -> SignerRule:
    return member_signs(state, act.author, TRADE, at)


def _check_pay(state: TradeState, act: Act[Pay], at: int) -> Reason | None:
    payer, pay = act.author, act.payload
    assert payer is not None
    version, statutes = state.coop.statutes_at(at)
    if statutes.trade is None:
        return Reason.of("trade_not_offered")
    if pay.statutes_version != version:
        return Reason.of("statutes_version_mismatch", expected=version)
    if pay.total_minor != pay.amount_minor:
        return Reason.of("total_mismatch", expected_minor=pay.amount_minor)
    members = state.membership
    if not members.is_active(payer):
        return Reason.of("member_not_active", member=payer.hex())
    if not members.is_active(pay.payee):
        return Reason.of("member_not_active", member=pay.payee.hex())
    unit = statutes.trade.unit
    reason = check_spending(state, payer, act.signers, unit, pay.amount_minor, at)
    return reason or state.accounts.check_transfer((_pay_leg(payer, pay, unit),))


def _pay_leg(payer: bytes, pay: Pay, unit: str) -> Leg:
    return Leg(barter_account(payer, unit), barter_account(pay.payee, unit), pay.amount_minor, "transfer")


def _pay(state: TradeState, act: Act[Pay], at: int) -> list[Fact]:
    payer, pay = act.author, act.payload
    rules = state.coop.statutes_at(at)[1].trade
    assert payer is not None
    assert rules is not None
    note_spending(state, payer, act.signers, rules.unit, pay.amount_minor, at)
    return state.accounts.transfer(act.id, (_pay_leg(payer, pay, rules.unit),))


def _pay_parties(_state: TradeState, act: Act[Pay]) -> tuple[bytes, ...]:
    assert act.author is not None
    return (act.author, act.payload.payee)


def _limits_signers(state: TradeState, act: Act[SetLimits], _at: int) -> SignerRule:
    return board_signs(state, act.author)


def _check_limits(state: TradeState, act: Act[SetLimits], at: int) -> Reason | None:
    limits = act.payload
    if state.coop.statutes_at(at)[1].trade is None:
        return Reason.of("trade_not_offered")
    if not state.membership.is_active(limits.member):
        return Reason.of("member_not_active", member=limits.member.hex())
    lower, upper = limits.lower_minor, limits.upper_minor
    if (lower is not None and lower > 0) or (upper is not None and upper < 0):
        return Reason.of("limits_exclude_zero")
    return None


def _set_limits(state: TradeState, act: Act[SetLimits], at: int) -> list[Fact]:
    limits = act.payload
    rules = state.coop.statutes_at(at)[1].trade
    assert rules is not None
    member, name = state.membership.members[limits.member], AccountName(rules.unit, BARTER)
    if name not in member.accounts:
        # An account that the member's going will close has to be among its own.
        state.membership.members[limits.member] = msgspec.structs.replace(member, accounts=(*member.accounts, name))
    key = barter_account(limits.member, rules.unit)
    return [state.accounts.open(key, lower_minor=limits.lower_minor, upper_minor=limits.upper_minor)]


def _limits_parties(_state: TradeState, act: Act[SetLimits]) -> tuple[bytes, ...]:
    assert act.author is not None
    return (act.author, act.payload.member)


PAY: Final[EntryType[TradeState, Pay]] = EntryType(
    tag="trade.pay",
    payload=Pay,
    visibility=Visibility.PARTIES,
    signers=_pay_signers,
    check=_check_pay,
    effect=_pay,
    reasons=(
        "trade_not_offered",
        "statutes_version_mismatch",
        "total_mismatch",
        "member_not_active",
        *SPENDING_REASONS,
        *ACCOUNT_REASONS,
    ),
    parties=_pay_parties,
)
SET_LIMITS: Final[EntryType[TradeState, SetLimits]] = EntryType(
    tag="trade.set_limits",
    payload=SetLimits,
    visibility=Visibility.PARTIES,
    signers=_limits_signers,
    check=_check_limits,
    effect=_set_limits,
    reasons=("trade_not_offered", "member_not_active", "limits_exclude_zero"),
    parties=_limits_parties,
)
TRANSFER_TYPES: Final[tuple[AnyEntryType, ...]] = (PAY, SET_LIMITS)
