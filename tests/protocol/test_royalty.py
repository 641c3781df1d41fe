# SPDX-License-Identifier: AGPL-3.0-or-later
"""Subscriptions, reports of use, and periods closed to the cent in a ledger."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_kit import DAY_MS, START_MS, Actor, LedgerKit, statutes

from ecot_protocol.domains.catalogue.acts import BatchWork, RegisterWork, RegisterWorks, WithdrawWork
from ecot_protocol.domains.catalogue.facts import WorkRegistered
from ecot_protocol.domains.catalogue.state import Holder
from ecot_protocol.domains.coop.acts import AmendStatutes
from ecot_protocol.domains.coop.state import claims_account, own_account
from ecot_protocol.domains.membership.acts import AttestPayment, Exclude, GrantMandate
from ecot_protocol.domains.membership.state import Mandate
from ecot_protocol.domains.royalty import facts, periods
from ecot_protocol.domains.royalty.acts import ReportUse, Subscribe
from ecot_protocol.domains.royalty.periods import MAX_PERIOD_AHEAD_MS, ClosePeriod, OpenPeriod, PayOut
from ecot_protocol.domains.royalty.sharing import share_revenue
from ecot_protocol.domains.royalty.state import MAX_USE_PER_ROW, UseCount, UseKey
from ecot_protocol.ledger.accounts import ACCOUNT_REASONS
from ecot_protocol.ledger.entry_type import BOARD, TREASURER
from ecot_protocol.ledger.facts import Fact, Posting
from ecot_protocol.machine import ENTRY_TYPES
from ecot_protocol.wire.encoding import MAX_INTEGER, Wire
from ecot_protocol.wire.entry import MAX_RECORD_SIZE_BYTES

UNKNOWN = b"?" * 16
QUARTER_MS = 90 * DAY_MS


def institution(kit: LedgerKit, name: str = "library") -> Actor:
    return kit.join(name, kind="body")


def subscription(**changes: Any) -> Subscribe:
    values: dict[str, Any] = {
        "from_ms": START_MS,
        "statutes_version": 1,
        "total_minor": 123_457,
        "unit": "EUR",
        "until_ms": None,
    }
    return Subscribe(**(values | changes))


def treasurer(kit: LedgerKit) -> dict[str, Any]:
    return {"author": TREASURER, "signers": kit.treasurer}


def open_period(kit: LedgerKit, code: str = "2026-q3") -> bytes:
    period = OpenPeriod(code=code, ends_ms=kit.now + QUARTER_MS, starts_ms=kit.now)
    (fact,) = kit.must("royalty.open_period", period, **treasurer(kit))
    assert isinstance(fact, facts.PeriodOpened)
    return fact.period


def register(kit: LedgerKit, holders: Sequence[tuple[Actor, int]]) -> bytes:
    payload = RegisterWork(
        holders=tuple(Holder(actor.member, share_bp) for actor, share_bp in holders),
        identifiers=(),
        kind="music",
        title=None,
    )
    options = {"author": holders[0][0].member, "signers": tuple(actor.signer for actor, _ in holders)}
    (fact,) = kit.must("catalogue.register_work", payload, **options)
    assert isinstance(fact, WorkRegistered)
    return fact.work


def report(period: bytes, library: Actor, counts: dict[bytes, int], part: int = 1) -> ReportUse:
    rows = tuple(UseCount(work, counts[work]) for work in sorted(counts))
    return ReportUse(counts=rows, institution=library.member, part=part, period=period)


def close(kit: LedgerKit, period: bytes, revenue_minor: int) -> list[Fact]:
    kit.now += QUARTER_MS
    payload = ClosePeriod(period=period, revenue_minor=revenue_minor, statutes_version=1)
    return kit.must("royalty.close_period", payload, **treasurer(kit))


def royalties(kit: LedgerKit, *actors: Actor) -> list[int]:
    """Return what each was credited since admission, whose entry fee is still owed."""
    return [kit.state.accounts.balance(claims_account(actor.member, "EUR")) + 13_500 for actor in actors]


def units_sum_to_zero(kit: LedgerKit) -> bool:
    sums: dict[str, int] = {}
    for key, account in kit.state.accounts.rows.items():
        sums[key.unit] = sums.get(key.unit, 0) + account.balance_minor
    return not any(sums.values())


# ------------------------------------------------------------------------------------------------- subscriptions


def test_a_subscription_is_a_claim_until_it_is_paid() -> None:
    kit = LedgerKit()
    library = institution(kit)
    result = kit.must("royalty.subscribe", subscription(), **kit.by(library))
    assert [type(fact).__name__ for fact in result] == ["LimitsChanged", "Subscribed", "Posting"]
    assert royalties(kit, library) == [-123_457]
    assert kit.state.accounts.balance(own_account("EUR", "subscriptions")) == 123_457
    paid = AttestPayment(
        amount_minor=13_500 + 123_457, direction="in", member=library.member, reference=None, unit="EUR"
    )
    kit.must("membership.attest_payment", paid, **treasurer(kit))
    assert royalties(kit, library) == [13_500]
    assert units_sum_to_zero(kit)


def test_a_subscription_counts_against_a_mandates_limit() -> None:
    kit = LedgerKit()
    library, ada = institution(kit), kit.join("ada")
    mandate = Mandate(
        day_limit_minor=200_000,
        from_ms=0,
        person=ada.person,
        scopes=("subscribe",),
        trade_limit_minor=150_000,
        until_ms=None,
    )
    kit.must("membership.grant_mandate", GrantMandate(mandate=mandate, new_person=None), **kit.by(library))
    by_ada = {"author": library.member, "signers": (ada.signer,)}
    assert kit.refused("royalty.subscribe", subscription(total_minor=150_001), **by_ada) == "trade_limit_exceeded"
    kit.must("royalty.subscribe", subscription(), **by_ada)
    assert kit.refused("royalty.subscribe", subscription(), **by_ada) == "day_limit_exceeded"


# ------------------------------------------------------------------------------------------------- use


@pytest.mark.parametrize("by", ["institution", "treasurer", "node"])
def test_use_is_reported_by_the_institution_the_treasurer_or_the_node(by: str) -> None:
    kit = LedgerKit()
    library, other, ada = institution(kit), institution(kit, "archive"), kit.join("ada")
    kit.must("royalty.subscribe", subscription(), **kit.by(library))
    work, period = register(kit, [(ada, 10_000)]), open_period(kit)
    payload = report(period, library, {work: 3})
    assert kit.refused("royalty.report_use", payload, **kit.by(other)) == "signature_missing"
    options = {"institution": kit.by(library), "treasurer": treasurer(kit)}
    kit.must("royalty.report_use", payload, **options.get(by, {"author": None, "signers": (kit.agent,)}))
    assert kit.state.royalty.uses_of(period) == {work: 3}


def test_a_report_of_two_thousand_rows_fits_a_record() -> None:
    kit = LedgerKit()
    library, ada = institution(kit), kit.join("ada")
    kit.must("royalty.subscribe", subscription(), **kit.by(library))
    works: list[bytes] = []
    batch = RegisterWorks(titles=None, works=(BatchWork(identifiers=(), kind="music"),) * 200)
    for _ in range(10):
        works += [fact.work for fact in kit.must("catalogue.register_works", batch, **kit.by(ada))]  # type: ignore[attr-defined]
    period = open_period(kit)
    kit.must("royalty.report_use", report(period, library, dict.fromkeys(works, MAX_USE_PER_ROW)), **kit.by(library))
    assert len(kit.records[-1]) < MAX_RECORD_SIZE_BYTES
    assert len(kit.state.royalty.uses) == 2_000


# ------------------------------------------------------------------------------------------------- closing


def culture(kit: LedgerKit) -> tuple[Actor, Actor, Actor, list[bytes], bytes]:
    """Return a library that subscribed, two authors, their three works and an open period."""
    library, ada, bob = institution(kit), kit.join("ada"), kit.join("bob")
    kit.must("royalty.subscribe", subscription(), **kit.by(library))
    works = [
        register(kit, [(ada, 10_000)]),
        register(kit, [(ada, 6_000), (bob, 4_000)]),
        register(kit, [(bob, 10_000)]),
    ]
    return library, ada, bob, works, open_period(kit)


def test_a_period_is_shared_and_posted_to_the_cent() -> None:
    kit = LedgerKit()
    library, ada, bob, works, period = culture(kit)
    use = report(period, library, {works[0]: 1, works[1]: 3})
    kit.must("royalty.report_use", use, **kit.by(library))
    result = close(kit, period, 123_457)
    closed = result[0]
    assert isinstance(closed, facts.PeriodClosed)
    assert sum(amount for _, _, amount in closed.heads) == 123_457
    assert (closed.carried_minor, closed.work_count, closed.use_count, closed.part_count) == (0, 3, 4, 1)
    own = [own_account("EUR", head) for head in ("solidarity", "internal", "research")]
    assert sum(royalties(kit, ada, bob)) + sum(map(kit.state.accounts.balance, own)) == 123_457
    for purpose in ("subscriptions", "royalties"):
        assert kit.state.accounts.balance(own_account("EUR", purpose)) == 0
    assert units_sum_to_zero(kit)


def test_a_statement_is_the_sum_of_its_lines_and_of_its_postings() -> None:
    kit = LedgerKit()
    library, ada, bob, works, period = culture(kit)
    kit.must("royalty.report_use", report(period, library, {works[1]: 7, works[2]: 2}), **kit.by(library))
    result = close(kit, period, 99_999)
    statements = {fact.holder: fact for fact in result if isinstance(fact, facts.RoyaltyStatement)}
    assert set(statements) == {ada.member, bob.member}
    for holder, statement in statements.items():
        lines = {head: 0 for head, _ in statement.amounts}
        for fact in result:
            if isinstance(fact, facts.WorkEarned):
                lines[fact.head] += dict(fact.parts).get(holder, 0)
        posted = sum(fact.amount_minor for fact in result if isinstance(fact, Posting) and fact.payee == holder)
        assert statement.amounts == tuple(lines.items())
        assert statement.total_minor == sum(lines.values()) == posted
    assert (statements[ada.member].work_count, statements[ada.member].use_count) == (2, 7)


def test_a_member_computes_the_sharing_again_from_facts() -> None:
    kit = LedgerKit()
    library, _, _, works, period = culture(kit)
    seen: list[Fact] = []
    for part, counts in enumerate(({works[0]: 5}, {works[0]: 1, works[2]: 9}), start=1):
        seen += kit.must("royalty.report_use", report(period, library, counts, part), **kit.by(library))
    result = close(kit, period, 100_000)
    uses: dict[bytes, int] = {}
    for fact in seen:
        assert isinstance(fact, facts.UseReported)
        for work, count in fact.counts:
            uses[work] = uses.get(work, 0) + count
    holders = {
        work: tuple((holder.member, holder.share_bp) for holder in kit.state.catalogue.works[work].holders)
        for work in works
    }
    rules = kit.statutes.royalty
    assert rules is not None
    sharing = share_revenue(period, 100_000, rules.heads, holders, uses, referenced=works)
    earned = [fact for fact in result if isinstance(fact, facts.WorkEarned)]
    assert [(one.work, one.head, one.amount_minor, one.parts) for one in earned] == [
        (one.work, one.head, one.amount_minor, one.parts) for one in sharing.lines
    ]


def test_a_closed_period_leaves_totals_and_nothing_else() -> None:
    kit = LedgerKit()
    library, _, _, works, period = culture(kit)
    kit.must("royalty.report_use", report(period, library, {works[0]: 5}), **kit.by(library))
    close(kit, period, 100_000)
    royalty = kit.state.royalty
    assert [len(table) for table in royalty.tables()] == [0, 1, 0, 0, 0, 1]
    assert royalty.codes["2026-q3"] == kit.now
    assert kit.replayed().digest() == kit.state.digest()


def test_what_could_not_be_shared_waits_for_the_next_period() -> None:
    kit = LedgerKit()
    library, ada, bob, works, period = culture(kit)
    closed = close(kit, period, 100_000)[0]
    assert isinstance(closed, facts.PeriodClosed)
    assert closed.carried_minor == 40_000
    assert kit.state.accounts.balance(own_account("EUR", "subscriptions")) == 23_457 + 40_000
    second = open_period(kit, "2026-q4")
    kit.must("royalty.report_use", report(second, library, {works[0]: 1}), **kit.by(library))
    close(kit, second, 63_457)
    assert kit.state.accounts.balance(own_account("EUR", "subscriptions")) == 0
    assert sum(royalties(kit, ada, bob)) > 0


def test_a_work_withdrawn_in_the_period_earns_for_its_use_then_goes() -> None:
    kit = LedgerKit()
    library, _, bob, works, period = culture(kit)
    kit.now += DAY_MS
    kit.must("catalogue.withdraw_work", WithdrawWork(reason=None, work=works[2]), **kit.by(bob))
    kit.must("royalty.report_use", report(period, library, {works[2]: 1}), **kit.by(library))
    result = close(kit, period, 100_000)
    earned = [(fact.head, fact.amount_minor) for fact in result if isinstance(fact, facts.WorkEarned)]
    assert [head for head, _ in earned] == ["fixed", "fixed", "variable"]
    assert works[2] not in kit.state.catalogue.works


def test_a_withdrawn_work_stays_while_a_period_can_pay_for_it() -> None:
    kit = LedgerKit()
    library, _, bob, works, first = culture(kit)
    kit.now += QUARTER_MS
    second = open_period(kit, "2026-q4")
    kit.now += DAY_MS
    kit.must("catalogue.withdraw_work", WithdrawWork(reason=None, work=works[2]), **kit.by(bob))
    payload = ClosePeriod(period=first, revenue_minor=10_000, statutes_version=1)
    kit.must("royalty.close_period", payload, **treasurer(kit))
    kit.must("royalty.report_use", report(second, library, {works[2]: 1}), **kit.by(library))
    close(kit, second, 10_000)
    assert works[2] not in kit.state.catalogue.works


def test_a_period_keeps_the_heads_of_its_opening() -> None:
    kit = LedgerKit()
    library, _, _, _, period = culture(kit)
    amended = AmendStatutes(in_force_from_ms=kit.now, statutes=statutes(royalty=None), version=2)
    kit.must("coop.amend_statutes", amended, author=BOARD, signers=kit.board)
    assert kit.refused("royalty.subscribe", subscription(), **kit.by(library)) == "royalty_not_in_statutes"
    assert isinstance(close(kit, period, 100_000)[0], facts.PeriodClosed)


def test_many_holders_are_paid_in_slices_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(periods, "PAYOUT_HOLDERS", 2)
    kit = LedgerKit()
    library = institution(kit)
    kit.must("royalty.subscribe", subscription(), **kit.by(library))
    actors = [kit.join(f"m{number}") for number in range(5)]
    for actor in actors:
        register(kit, [(actor, 10_000)])
    period = open_period(kit)
    closed = close(kit, period, 100_000)[0]
    assert isinstance(closed, facts.PeriodClosed)
    assert (closed.part_count, closed.holder_count) == (3, 5)
    assert royalties(kit, *actors) == [3_000, 3_000, 0, 0, 0]
    assert kit.state.accounts.balance(own_account("EUR", "royalties")) == 9_000
    kit.must("royalty.pay_out", PayOut(part=3, period=period), author=None, signers=(kit.agent,))
    kit.must("royalty.pay_out", PayOut(part=2, period=period), **kit.by(actors[2]))
    assert royalties(kit, *actors) == [3_000] * 5
    assert kit.state.accounts.balance(own_account("EUR", "royalties")) == 0
    again = PayOut(part=2, period=period)
    assert kit.refused("royalty.pay_out", again, **kit.by(actors[2])) == "payout_unknown"
    assert kit.replayed().digest() == kit.state.digest()


REPORTS = st.lists(st.dictionaries(st.integers(0, 2), st.integers(1, 500), min_size=1), min_size=1, max_size=6)


@settings(max_examples=15, deadline=None)
@given(REPORTS, st.integers(0, 123_457), st.data())
def test_the_order_of_reports_changes_nothing(
    reports: list[dict[int, int]], revenue_minor: int, data: st.DataObject
) -> None:
    outcomes = []
    for order in (range(len(reports)), data.draw(st.permutations(range(len(reports))))):
        kit = LedgerKit()
        library, ada, bob, works, period = culture(kit)
        for number in order:
            counts = {works[work]: count for work, count in reports[number].items()}
            kit.must("royalty.report_use", report(period, library, counts, number + 1), **kit.by(library))
            assert units_sum_to_zero(kit)
        result = close(kit, period, revenue_minor)
        assert units_sum_to_zero(kit)
        assert kit.replayed().digest() == kit.state.digest()
        outcomes.append((royalties(kit, ada, bob), [fact for fact in result if not isinstance(fact, Posting)]))
    assert outcomes[0] == outcomes[1]


# ------------------------------------------------------------------------------------------------- each reason

Case = Callable[[LedgerKit], tuple[str, Wire, dict[str, Any]]]
SUBSCRIBE, REPORT, OPEN = "royalty.subscribe", "royalty.report_use", "royalty.open_period"
CLOSE, PAY = "royalty.close_period", "royalty.pay_out"


def subscribing(kind: str = "body", **changes: Any) -> Case:
    return lambda kit: (SUBSCRIBE, subscription(**changes), kit.by(kit.join("library", kind=kind)))


def by_excluded(tag: str, payload: Wire) -> Case:
    def build(kit: LedgerKit) -> tuple[str, Wire, dict[str, Any]]:
        library = institution(kit)
        kit.must("membership.exclude", Exclude(member=library.member, reason=None), author=BOARD, signers=kit.board)
        return tag, payload, kit.by(library)

    return build


def reporting(kind: str) -> Case:
    def build(kit: LedgerKit) -> tuple[str, Wire, dict[str, Any]]:
        library, ada, _, works, period = culture(kit)
        by, payload = library, report(period, library, {works[0]: 1, works[1]: 1})
        if kind == "firm":
            by, payload = ada, report(period, ada, {works[0]: 1})
        elif kind == "excluded":
            kit.must("membership.exclude", Exclude(member=library.member, reason=None), author=BOARD, signers=kit.board)
        elif kind == "unsorted":
            payload = ReportUse(counts=payload.counts[::-1], institution=library.member, part=1, period=period)
        elif kind == "unknown period":
            payload = report(UNKNOWN, library, {works[0]: 1})
        elif kind == "unknown work":
            payload = report(period, library, {UNKNOWN: 1})
        elif kind == "unsubscribed":
            by = institution(kit, "archive")
            kit.must("royalty.subscribe", subscription(from_ms=START_MS - 2, until_ms=START_MS - 1), **kit.by(by))
            payload = report(period, by, {works[0]: 1})
        elif kind == "too much":
            kit.state.royalty.uses[UseKey(period, works[0])] = MAX_INTEGER
        else:
            kit.must(REPORT, payload, **kit.by(library))
        return REPORT, payload, kit.by(by)

    return build


def opening(code: str = "next", starts_ms: int = START_MS + QUARTER_MS, length_ms: int = 1) -> Case:
    def build(kit: LedgerKit) -> tuple[str, Wire, dict[str, Any]]:
        kit.now = START_MS
        open_period(kit)
        return OPEN, OpenPeriod(code=code, ends_ms=starts_ms + length_ms, starts_ms=starts_ms), treasurer(kit)

    return build


def closing(kind: str) -> Case:
    def build(kit: LedgerKit) -> tuple[str, Wire, dict[str, Any]]:
        *_, period = culture(kit)
        kit.now += QUARTER_MS - (kind == "early")
        payload = ClosePeriod(
            period=UNKNOWN if kind == "unknown" else period,
            revenue_minor=123_457 + (kind == "dear"),
            statutes_version=2 if kind == "version" else 1,
        )
        return CLOSE, payload, treasurer(kit)

    return build


PAYMENT = PayOut(part=2, period=UNKNOWN)
CASES: dict[tuple[str, str], Case] = {
    (SUBSCRIBE, "member_not_active"): by_excluded(SUBSCRIBE, subscription()),
    (SUBSCRIBE, "institution_needed"): subscribing("firm"),
    (SUBSCRIBE, "statutes_version_mismatch"): subscribing(statutes_version=2),
    (SUBSCRIBE, "royalty_unit_wrong"): subscribing(unit="BART"),
    (SUBSCRIBE, "subscription_empty"): subscribing(until_ms=START_MS),
    (SUBSCRIBE, "credit_limit_exceeded"): subscribing(total_minor=MAX_INTEGER),
    (REPORT, "institution_needed"): reporting("firm"),
    (REPORT, "member_not_active"): reporting("excluded"),
    (REPORT, "period_unknown"): reporting("unknown period"),
    (REPORT, "subscription_needed"): reporting("unsubscribed"),
    (REPORT, "report_repeated"): reporting("repeated"),
    (REPORT, "works_not_sorted"): reporting("unsorted"),
    (REPORT, "work_unknown"): reporting("unknown work"),
    (REPORT, "use_out_of_range"): reporting("too much"),
    (OPEN, "period_empty"): opening(length_ms=0),
    (OPEN, "period_ends_too_late"): opening(length_ms=MAX_PERIOD_AHEAD_MS),
    (OPEN, "period_code_taken"): opening(code="2026-q3"),
    (OPEN, "period_overlaps"): opening(starts_ms=START_MS + QUARTER_MS - 1),
    (CLOSE, "period_unknown"): closing("unknown"),
    (CLOSE, "period_not_over"): closing("early"),
    (CLOSE, "statutes_version_mismatch"): closing("version"),
    (CLOSE, "revenue_exceeds_subscriptions"): closing("dear"),
    (PAY, "member_not_active"): by_excluded(PAY, PAYMENT),
    (PAY, "payout_unknown"): lambda kit: (PAY, PAYMENT, kit.by(kit.join("ada"))),
}
# The mandate's limits and statutes without royalties are tested apart; of the reasons of accounts, a subscription can
# meet only the range of integers, since claims have no limits.
ELSEWHERE = {
    (SUBSCRIBE, "royalty_not_in_statutes"),
    (SUBSCRIBE, "trade_limit_exceeded"),
    (SUBSCRIBE, "day_limit_exceeded"),
    (OPEN, "royalty_not_in_statutes"),
    *((SUBSCRIBE, code) for code in ACCOUNT_REASONS if code != "credit_limit_exceeded"),
}


@pytest.mark.parametrize(("tag", "code"), CASES)
def test_each_reason(tag: str, code: str) -> None:
    kit = LedgerKit()
    case_tag, payload, options = CASES[tag, code](kit)
    assert case_tag == tag
    assert kit.refused(tag, payload, **options) == code


def test_every_reason_has_a_case() -> None:
    listed = {(one.tag, code) for one in ENTRY_TYPES if one.tag.startswith("royalty.") for code in one.reasons}
    assert listed == {*CASES} | ELSEWHERE


def test_a_cooperative_without_royalties_opens_no_period() -> None:
    kit = LedgerKit(statutes=statutes(royalty=None))
    period = OpenPeriod(code="2026-q3", ends_ms=2, starts_ms=1)
    assert kit.refused(OPEN, period, **treasurer(kit)) == "royalty_not_in_statutes"
    assert kit.refused(OPEN, period, author=BOARD, signers=kit.board) == "royalty_not_in_statutes"


def test_the_treasurer_alone_closes_a_period() -> None:
    kit = LedgerKit()
    *_, period = culture(kit)
    kit.now += QUARTER_MS
    payload = ClosePeriod(period=period, revenue_minor=1, statutes_version=1)
    assert kit.refused(CLOSE, payload, author=BOARD, signers=kit.board) == "signature_missing"
