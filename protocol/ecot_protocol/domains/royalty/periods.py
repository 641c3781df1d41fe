# SPDX-License-Identifier: AGPL-3.0-or-later
"""Periods of royalties: opened, closed with the sharing of their revenue, paid out.

- Periods do not overlap and follow one another. Their heads are those of the statutes in force when they are opened.
- A period ends at most two years after it is opened: one that ended in a century, by mistake or malice, would leave no
  time for another.
- A work takes part by reference if it was in the catalogue at the period's end. Its earnings go to those who hold its
  rights when the period is closed: a change of splits before that was signed by all whom it concerns.
- The closing computes everything. It takes the revenue from the subscriptions: each of the cooperative's own heads to
  the account of its name, the rest to the account ``royalties``, from which the holders are credited in slices of
  `PAYOUT_HOLDERS`, one posting for each holder and head. The closing pays the first slice itself; each other is a
  ``royalty.pay_out``, in any order. So one entry is enough for most cooperatives, and no group of legs is too long.
"""

from typing import Any, Final

from ecot_protocol.domains.coop.state import board_signs, claims_account, own_account
from ecot_protocol.domains.coop.statutes import RoyaltyStatutes
from ecot_protocol.domains.membership.state import member_signs
from ecot_protocol.domains.royalty import facts
from ecot_protocol.domains.royalty.sharing import Sharing, share_revenue
from ecot_protocol.domains.royalty.state import (
    PAYOUT_HOLDERS,
    ROYALTIES,
    SUBSCRIPTIONS,
    USE_SCOPE,
    Due,
    DueKey,
    DueRow,
    Period,
    RoyaltyState,
)
from ecot_protocol.ledger.accounts import AccountKey, Leg
from ecot_protocol.ledger.entry_type import (
    BOARD,
    NOBODY,
    THE_NODE,
    TREASURER,
    Act,
    AnyEntryType,
    EntryType,
    SignerRule,
    Visibility,
)
from ecot_protocol.ledger.facts import Fact
from ecot_protocol.ledger.reasons import Reason
from ecot_protocol.wire.encoding import Count, Id, Positive, Wire, Word

MAX_PERIOD_AHEAD_MS: Final = 2 * 366 * 86_400_000
"""From the opening of a period to its end, at most."""


class OpenPeriod(Wire):
    """Payload of ``royalty.open_period``, by the board or the treasurer: from `starts_ms` to before `ends_ms`."""

    code: Word
    ends_ms: Count
    starts_ms: Count


class ClosePeriod(Wire):
    """Payload of ``royalty.close_period``, by the treasurer: shares `revenue_minor` of the subscriptions.

    `statutes_version` is that of the period.
    """

    period: Id
    revenue_minor: Count
    statutes_version: Positive


class PayOut(Wire):
    """Payload of ``royalty.pay_out``: credits a slice of the holders; `part` from 2."""

    part: Positive
    period: Id


def _officers(state: RoyaltyState, author: bytes | None) -> SignerRule:
    if author == TREASURER:
        return state.coop.office_rule("treasurer")
    return board_signs(state, author)


def _open_signers(state: RoyaltyState, act: Act[OpenPeriod], _at: int) -> SignerRule:
    return _officers(state, act.author)


def _check_open(state: RoyaltyState, act: Act[OpenPeriod], at: int) -> Reason | None:
    period = act.payload
    if state.coop.statutes_at(at)[1].royalty is None:
        return Reason.of("royalty_not_in_statutes")
    if period.ends_ms <= period.starts_ms:
        return Reason.of("period_empty")
    if period.ends_ms > at + MAX_PERIOD_AHEAD_MS:
        return Reason.of("period_ends_too_late", latest_ms=at + MAX_PERIOD_AHEAD_MS)
    if period.code in state.royalty.codes:
        return Reason.of("period_code_taken", period_code=period.code)
    newest_end_ms = max(state.royalty.codes.values(), default=0)
    if period.starts_ms < newest_end_ms:
        return Reason.of("period_overlaps", earliest_ms=newest_end_ms)
    return None


def _open(state: RoyaltyState, act: Act[OpenPeriod], at: int) -> list[Fact]:
    period = act.payload
    version, _ = state.coop.statutes_at(at)
    state.royalty.periods[act.id] = Period(
        code=period.code, ends_ms=period.ends_ms, starts_ms=period.starts_ms, statutes_version=version
    )
    state.royalty.codes[period.code] = period.ends_ms
    return [
        facts.PeriodOpened(
            period=act.id,
            code=period.code,
            starts_ms=period.starts_ms,
            ends_ms=period.ends_ms,
            statutes_version=version,
        )
    ]


def _close_signers(state: RoyaltyState, act: Act[ClosePeriod], _at: int) -> SignerRule:
    return state.coop.office_rule("treasurer") if act.author == TREASURER else NOBODY


def _check_close(state: RoyaltyState, act: Act[ClosePeriod], at: int) -> Reason | None:
    close = act.payload
    period = state.royalty.periods.get(close.period)
    if period is None:
        return Reason.of("period_unknown", period=close.period.hex())
    if at < period.ends_ms:
        return Reason.of("period_not_over", ends_ms=period.ends_ms)
    if close.statutes_version != period.statutes_version:
        return Reason.of("statutes_version_mismatch", expected=period.statutes_version)
    available_minor = state.accounts.balance(own_account(_rules(state, period).unit, SUBSCRIPTIONS))
    if close.revenue_minor > available_minor:
        return Reason.of("revenue_exceeds_subscriptions", available_minor=available_minor)
    return None


def _rules(state: RoyaltyState, period: Period) -> RoyaltyStatutes:
    rules = state.coop.statutes_of(period.statutes_version).royalty
    assert rules is not None, "a period is opened under statutes that have royalties"
    return rules


def _close(state: RoyaltyState, act: Act[ClosePeriod], _at: int) -> list[Fact]:
    period_id = act.payload.period
    period = state.royalty.periods[period_id]
    rules, uses = _rules(state, period), state.royalty.uses_of(period_id)
    referenced = _referenced(state, period)
    works = {
        work: tuple((holder.member, holder.share_bp) for holder in state.catalogue.works[work].holders)
        for work in {*referenced, *uses}
    }
    sharing = share_revenue(period_id, act.payload.revenue_minor, rules.heads, works, uses, referenced=referenced)
    slices = _slice(sharing, rules)
    result: list[Fact] = [
        facts.PeriodClosed(
            period=period_id,
            code=period.code,
            revenue_minor=act.payload.revenue_minor,
            unit=rules.unit,
            heads=tuple((head.code, head.kind, sharing.heads_minor[head.code]) for head in rules.heads),
            carried_minor=sharing.carried_minor,
            work_count=len(referenced),
            use_count=sum(uses.values()),
            holder_count=sum(len(one.rows) for one in slices),
            part_count=len(slices),
        )
    ]
    result += _explain(period_id, rules.unit, sharing, uses)
    result += _set_aside(state, period_id, rules, sharing)
    for part, due in enumerate(slices, start=1):
        state.royalty.due[DueKey(period_id, part)] = due
    if slices:
        result += _pay(state, DueKey(period_id, 1))
    _retire(state, period_id, period)
    return result


def _referenced(state: RoyaltyState, period: Period) -> list[bytes]:
    end = period.ends_ms
    return [
        work_id
        for work_id, work in state.catalogue.works.items()
        if work.since_ms < end and (work.withdrawn_ms is None or work.withdrawn_ms >= end)
    ]


def _slice(sharing: Sharing, rules: RoyaltyStatutes) -> list[Due]:
    kinds = {head.code: head.kind for head in rules.heads}
    rows = [DueRow(holder, one.amounts_minor) for holder, one in sharing.holders.items() if any(one.amounts_minor)]
    return [
        Due(
            heads=sharing.shared_heads,
            kinds=tuple(kinds[head] for head in sharing.shared_heads),
            rows=tuple(rows[start : start + PAYOUT_HOLDERS]),
            unit=rules.unit,
        )
        for start in range(0, len(rows), PAYOUT_HOLDERS)
    ]


def _explain(period: bytes, unit: str, sharing: Sharing, uses: dict[bytes, int]) -> list[Fact]:
    earned: list[Fact] = [
        facts.WorkEarned(
            period=period,
            work=line.work,
            head=line.head,
            use_count=uses.get(line.work, 0),
            amount_minor=line.amount_minor,
            unit=unit,
            parts=line.parts,
        )
        for line in sharing.lines
    ]
    statements: list[Fact] = [
        facts.RoyaltyStatement(
            period=period,
            holder=holder,
            amounts=tuple(zip(sharing.shared_heads, one.amounts_minor, strict=True)),
            total_minor=sum(one.amounts_minor),
            unit=unit,
            work_count=one.work_count,
            use_count=one.use_count,
        )
        for holder, one in sharing.holders.items()
    ]
    return earned + statements


def _set_aside(state: RoyaltyState, period: bytes, rules: RoyaltyStatutes, sharing: Sharing) -> list[Fact]:
    """Take the revenue from the subscriptions: own heads to their accounts, the holders' whole to ``royalties``."""
    source = own_account(rules.unit, SUBSCRIPTIONS)
    to_holders = sum(sum(one.amounts_minor) for one in sharing.holders.values())
    wanted = [(own_account(rules.unit, head), amount, "royalty_own") for head, amount in sharing.own_minor.items()]
    wanted.append((own_account(rules.unit, ROYALTIES), to_holders, "royalty_due"))
    legs = tuple(Leg(source, payee, amount, reason) for payee, amount, reason in wanted if amount)
    result = [fact for leg in legs for fact in _ensure_open(state, leg.payee)]
    return result + state.accounts.transfer(period, legs)


def _ensure_open(state: RoyaltyState, key: AccountKey) -> list[Fact]:
    """Open an account without limits, unless it is there: a member admitted under older statutes may lack this unit."""
    return [] if key in state.accounts.rows else [state.accounts.open(key, lower_minor=None, upper_minor=None)]


def _pay(state: RoyaltyState, key: DueKey) -> list[Fact]:
    due = state.royalty.due[key]
    del state.royalty.due[key]
    source = own_account(due.unit, ROYALTIES)
    result: list[Fact] = []
    legs: list[Leg] = []
    for row in due.rows:
        payee = claims_account(row.holder, due.unit)
        result += _ensure_open(state, payee)
        legs += [
            Leg(source, payee, amount, f"royalty_{kind}")
            for kind, amount in zip(due.kinds, row.amounts_minor, strict=True)
            if amount
        ]
    total = sum(leg.amount_minor for leg in legs)
    result.append(
        facts.RoyaltiesPaidOut(
            period=key.period, part=key.part, holder_count=len(due.rows), total_minor=total, unit=due.unit
        )
    )
    return result + state.accounts.transfer(key.period, legs)


def _retire(state: RoyaltyState, period_id: bytes, period: Period) -> None:
    state.royalty.retire(period_id)
    # A later period starts at or after the newest end: a work withdrawn before the first start left earns in none.
    horizon_ms = min((one.starts_ms for one in state.royalty.periods.values()), default=period.ends_ms)
    state.catalogue.retire(horizon_ms)


def _pay_signers(state: RoyaltyState, act: Act[PayOut], at: int) -> SignerRule:
    if act.author is None:
        return THE_NODE
    if act.author in (BOARD, TREASURER):
        return _officers(state, act.author)
    return member_signs(state, act.author, USE_SCOPE, at)


def _check_pay(state: RoyaltyState, act: Act[PayOut], _at: int) -> Reason | None:
    if act.author not in (None, BOARD, TREASURER) and not state.membership.is_active(act.author):
        return Reason.of("member_not_active", member=(act.author or b"").hex())
    known = DueKey(act.payload.period, act.payload.part) in state.royalty.due
    return None if known else Reason.of("payout_unknown", period=act.payload.period.hex(), part=act.payload.part)


def _pay_out(state: RoyaltyState, act: Act[PayOut], _at: int) -> list[Fact]:
    return _pay(state, DueKey(act.payload.period, act.payload.part))


def _pay_parties(state: RoyaltyState, act: Act[Any]) -> tuple[bytes, ...]:
    due = state.royalty.due.get(DueKey(act.payload.period, act.payload.part))
    return () if due is None else tuple(row.holder for row in due.rows)


OPEN_PERIOD: Final[EntryType[RoyaltyState, OpenPeriod]] = EntryType(
    tag="royalty.open_period",
    payload=OpenPeriod,
    visibility=Visibility.MEMBERS,
    signers=_open_signers,
    check=_check_open,
    effect=_open,
    reasons=("royalty_not_in_statutes", "period_empty", "period_ends_too_late", "period_code_taken", "period_overlaps"),
)
CLOSE_PERIOD: Final[EntryType[RoyaltyState, ClosePeriod]] = EntryType(
    tag="royalty.close_period",
    payload=ClosePeriod,
    visibility=Visibility.MEMBERS,
    signers=_close_signers,
    check=_check_close,
    effect=_close,
    reasons=("period_unknown", "period_not_over", "statutes_version_mismatch", "revenue_exceeds_subscriptions"),
)
PAY_OUT: Final[EntryType[RoyaltyState, PayOut]] = EntryType(
    tag="royalty.pay_out",
    payload=PayOut,
    visibility=Visibility.MEMBERS,
    signers=_pay_signers,
    check=_check_pay,
    effect=_pay_out,
    reasons=("member_not_active", "payout_unknown"),
    parties=_pay_parties,
)
PERIOD_TYPES: Final[tuple[AnyEntryType, ...]] = (OPEN_PERIOD, CLOSE_PERIOD, PAY_OUT)
