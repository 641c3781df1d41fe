# SPDX-License-Identifier: AGPL-3.0-or-later
"""The acts of royalties: subscriptions of institutions, reports of use.

- A subscription is a claim: it is posted from the institution's claims to the cooperative's subscriptions when it is
  recorded, and cleared when the treasurer attests the payment (``membership.attest_payment``).
- Use is reported in parts, each once, by the institution, the treasurer or the node; the order in which parts come
  changes nothing. Of an institution that is no longer a member, the treasurer or the node reports what is still to be
  reported: it pays for nothing any more, so its own word moves no money.
"""

from itertools import pairwise
from typing import Any, Final

from ecot_protocol.domains.coop.state import claims_account, own_account
from ecot_protocol.domains.membership.state import (
    SPENDING_REASONS,
    check_spending,
    member_signs,
    note_spending,
)
from ecot_protocol.domains.royalty import facts
from ecot_protocol.domains.royalty.periods import PERIOD_TYPES
from ecot_protocol.domains.royalty.state import (
    SUBSCRIBE_SCOPE,
    SUBSCRIPTIONS,
    USE_SCOPE,
    ReportKey,
    RoyaltyState,
    UseCounts,
    UseKey,
)
from ecot_protocol.ledger.accounts import ACCOUNT_REASONS, Leg
from ecot_protocol.ledger.entry_type import (
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
from ecot_protocol.wire.encoding import MAX_INTEGER, Count, Id, Positive, UnitCode, Wire


class Subscribe(Wire):
    """Payload of ``royalty.subscribe``: the author, an institution, subscribes and owes `total_minor`.

    Attributes:
        from_ms: when the subscription begins.
        statutes_version: in force at the record.
        total_minor: the whole price, in `unit`, the unit of the statutes' royalties.
        until_ms: when it ends; None: without end.
    """

    from_ms: Count
    statutes_version: Positive
    total_minor: Positive
    unit: UnitCode
    until_ms: Count | None


class ReportUse(Wire):
    """Payload of ``royalty.report_use``: part `part` of an institution's use; works ascend, each once in a part."""

    counts: UseCounts
    institution: Id
    part: Positive
    period: Id


def _check_institution(state: RoyaltyState, institution: bytes) -> Reason | None:
    member = state.membership.members.get(institution)
    known = member is not None and member.kind == "body" and member.status != "applied"
    return None if known else Reason.of("institution_needed", member=institution.hex())


def _subscribe_signers(state: RoyaltyState, act: Act[Subscribe], at: int) -> SignerRule:
    return member_signs(state, act.author, SUBSCRIBE_SCOPE, at)


def _check_subscribe(state: RoyaltyState, act: Act[Subscribe], at: int) -> Reason | None:
    assert act.author is not None
    subscribe, author = act.payload, act.author
    version, statutes = state.coop.statutes_at(at)
    if not state.membership.is_active(author):
        return Reason.of("member_not_active", member=author.hex())
    reason = _check_institution(state, author)
    if reason is not None:
        return reason
    if statutes.royalty is None:
        return Reason.of("royalty_not_in_statutes")
    if subscribe.statutes_version != version:
        return Reason.of("statutes_version_mismatch", expected=version)
    if subscribe.unit != statutes.royalty.unit:
        return Reason.of("royalty_unit_wrong", expected=statutes.royalty.unit)
    if subscribe.until_ms is not None and subscribe.until_ms <= subscribe.from_ms:
        return Reason.of("subscription_empty")
    reason = check_spending(state, author, act.signers, subscribe.unit, subscribe.total_minor, at)
    return reason or state.accounts.check_transfer((_subscription_leg(state, act),))


def _subscription_leg(state: RoyaltyState, act: Act[Subscribe]) -> Leg:
    """The leg, to the cooperative's general account while that of subscriptions has not been opened."""
    assert act.author is not None
    unit = act.payload.unit
    payee = own_account(unit, SUBSCRIPTIONS)
    if payee not in state.accounts.rows:
        payee = own_account(unit)
    return Leg(claims_account(act.author, unit), payee, act.payload.total_minor, "subscription")


def _subscribe(state: RoyaltyState, act: Act[Subscribe], at: int) -> list[Fact]:
    assert act.author is not None
    subscribe = act.payload
    result: list[Fact] = []
    account = own_account(subscribe.unit, SUBSCRIPTIONS)
    if account not in state.accounts.rows:
        result.append(state.accounts.open(account, lower_minor=0, upper_minor=None))
    note_spending(state, act.author, act.signers, subscribe.unit, subscribe.total_minor, at)
    state.royalty.subscribe(act.author, subscribe.from_ms, subscribe.until_ms)
    result.append(
        facts.Subscribed(
            subscription=act.id,
            institution=act.author,
            from_ms=subscribe.from_ms,
            until_ms=subscribe.until_ms,
            total_minor=subscribe.total_minor,
            unit=subscribe.unit,
        )
    )
    return result + state.accounts.transfer(act.id, (_subscription_leg(state, act),))


def _report_signers(state: RoyaltyState, act: Act[ReportUse], at: int) -> SignerRule:
    if act.author is None:
        return THE_NODE
    if act.author == TREASURER:
        return state.coop.office_rule("treasurer")
    if act.author != act.payload.institution:
        return NOBODY
    return member_signs(state, act.author, USE_SCOPE, at)


def _check_report(state: RoyaltyState, act: Act[ReportUse], _at: int) -> Reason | None:
    report = act.payload
    reason = _check_institution(state, report.institution)
    if reason is not None:
        return reason
    if act.author == report.institution and not state.membership.is_active(report.institution):
        return Reason.of("member_not_active", member=report.institution.hex())
    period = state.royalty.periods.get(report.period)
    if period is None:
        return Reason.of("period_unknown", period=report.period.hex())
    # The revenue is the subscribers'; who pays nothing does not steer it.
    if not state.royalty.is_subscriber(report.institution, period):
        return Reason.of("subscription_needed", institution=report.institution.hex())
    if ReportKey(report.period, report.institution, report.part) in state.royalty.reports:
        return Reason.of("report_repeated", part=report.part)
    return _check_counts(state, report)


def _check_counts(state: RoyaltyState, report: ReportUse) -> Reason | None:
    works = [one.work for one in report.counts]
    if any(first >= second for first, second in pairwise(works)):
        return Reason.of("works_not_sorted")
    for work, count in ((one.work, one.count) for one in report.counts):
        # A work withdrawn during the period still earns what it was used before.
        if work not in state.catalogue.works:
            return Reason.of("work_unknown", work=work.hex())
        if (state.royalty.uses.get(UseKey(report.period, work)) or 0) + count > MAX_INTEGER:
            return Reason.of("use_out_of_range", work=work.hex())
    return None


def _report(state: RoyaltyState, act: Act[ReportUse], _at: int) -> list[Fact]:
    report, royalty = act.payload, state.royalty
    royalty.reports[ReportKey(report.period, report.institution, report.part)] = act.index
    for one in report.counts:
        key = UseKey(report.period, one.work)
        royalty.uses[key] = (royalty.uses.get(key) or 0) + one.count
    counts = tuple((one.work, one.count) for one in report.counts)
    return [facts.UseReported(period=report.period, institution=report.institution, part=report.part, counts=counts)]


def _report_parties(_state: RoyaltyState, act: Act[Any]) -> tuple[bytes, ...]:
    institution: bytes = act.payload.institution
    return (institution,)


SUBSCRIBE: Final[EntryType[RoyaltyState, Subscribe]] = EntryType(
    tag="royalty.subscribe",
    payload=Subscribe,
    visibility=Visibility.PARTIES,
    signers=_subscribe_signers,
    check=_check_subscribe,
    effect=_subscribe,
    reasons=(
        "member_not_active",
        "institution_needed",
        "royalty_not_in_statutes",
        "statutes_version_mismatch",
        "royalty_unit_wrong",
        "subscription_empty",
        *SPENDING_REASONS,
        *ACCOUNT_REASONS,
    ),
)
REPORT_USE: Final[EntryType[RoyaltyState, ReportUse]] = EntryType(
    tag="royalty.report_use",
    payload=ReportUse,
    visibility=Visibility.MEMBERS,
    signers=_report_signers,
    check=_check_report,
    effect=_report,
    reasons=(
        "institution_needed",
        "member_not_active",
        "period_unknown",
        "subscription_needed",
        "report_repeated",
        "works_not_sorted",
        "work_unknown",
        "use_out_of_range",
    ),
    parties=_report_parties,
)
ROYALTY_TYPES: Final[tuple[AnyEntryType, ...]] = (SUBSCRIBE, REPORT_USE, *PERIOD_TYPES)
