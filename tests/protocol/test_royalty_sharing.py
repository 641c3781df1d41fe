# SPDX-License-Identifier: AGPL-3.0-or-later
"""The sharing of revenue: sums exact to the cent in every case, the same in whatever order it is told."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st
from ledger_kit import percent, statutes

from ecot_protocol.domains.coop.statutes import RoyaltyHead
from ecot_protocol.domains.royalty.sharing import Sharing, share_revenue, split_heads
from ecot_protocol.ledger.amounts import Rate

PERIOD = b"p" * 16
ROYALTY = statutes().royalty
assert ROYALTY is not None
HEADS = ROYALTY.heads


def ident(kind: bytes, number: int) -> bytes:
    return kind + number.to_bytes(15, "big")


@st.composite
def heads_of(draw: st.DrawFn) -> tuple[RoyaltyHead, ...]:
    """One to six heads of any kind with rates of different denominators that sum to 1."""
    weights = draw(st.lists(st.integers(1, 50), min_size=1, max_size=6))
    kinds = draw(st.lists(st.sampled_from(("own", "reference", "use")), min_size=len(weights), max_size=len(weights)))
    rates = [Fraction(weight, sum(weights)) for weight in weights]
    return tuple(
        RoyaltyHead(
            code=f"head{number}",
            kind=kind,  # type: ignore[arg-type]
            rate=Rate(denominator=rate.denominator, numerator=rate.numerator),
        )
        for number, (kind, rate) in enumerate(zip(kinds, rates, strict=True))
    )


@st.composite
def catalogues(draw: st.DrawFn) -> tuple[dict[bytes, tuple[tuple[bytes, int], ...]], dict[bytes, int], list[bytes]]:
    """Works with splits, their use, and which of them are in the catalogue at the end."""
    works = {}
    for number in range(draw(st.integers(0, 12))):
        cuts = sorted(draw(st.sets(st.integers(1, 9_999), max_size=3)))
        shares = [right - left for left, right in zip([0, *cuts], [*cuts, 10_000], strict=True)]
        members = draw(st.permutations(range(6)))[: len(shares)]
        works[ident(b"w", number)] = tuple(
            (ident(b"m", member), share_bp) for member, share_bp in zip(members, shares, strict=True)
        )
    uses = {work: count for work in works if (count := draw(st.integers(0, 1_000)))}
    referenced = [work for work in works if draw(st.booleans())]
    return works, uses, referenced


REVENUE = st.one_of(st.integers(0, 100), st.integers(0, 10**9), st.just(2**53 - 1))


def paid(sharing: Sharing) -> int:
    return sum(sum(one.amounts_minor) for one in sharing.holders.values())


@given(REVENUE, heads_of(), catalogues())
def test_every_level_sums_to_the_cent(
    revenue: int, heads: tuple[RoyaltyHead, ...], catalogue: tuple[dict, dict, list]
) -> None:
    works, uses, referenced = catalogue
    sharing = share_revenue(PERIOD, revenue, heads, works, uses, referenced=referenced)
    assert sum(sharing.heads_minor.values()) == revenue
    assert sum(sharing.own_minor.values()) + paid(sharing) + sharing.carried_minor == revenue
    for head in sharing.shared_heads:
        shared = sum(line.amount_minor for line in sharing.lines if line.head == head)
        assert shared in (0, sharing.heads_minor[head])
    for line in sharing.lines:
        assert line.amount_minor == sum(part for _, part in line.parts) > 0
        assert [member for member, _ in line.parts] == [member for member, _ in works[line.work]]


@given(REVENUE, heads_of(), catalogues())
def test_each_share_is_within_a_cent_of_its_exact_part(
    revenue: int, heads: tuple[RoyaltyHead, ...], catalogue: tuple[dict, dict, list]
) -> None:
    works, uses, referenced = catalogue
    sharing = share_revenue(PERIOD, revenue, heads, works, uses, referenced=referenced)
    kinds = {head.code: head.kind for head in heads}
    for head in heads:
        assert abs(sharing.heads_minor[head.code] - Fraction(revenue * head.rate.numerator, head.rate.denominator)) < 1
    for line in sharing.lines:
        part = (
            Fraction(uses[line.work], sum(uses.values())) if kinds[line.head] == "use" else Fraction(1, len(referenced))
        )
        assert abs(line.amount_minor - sharing.heads_minor[line.head] * part) < 1
        for (_, amount), (_, share_bp) in zip(line.parts, works[line.work], strict=True):
            assert abs(amount - Fraction(line.amount_minor * share_bp, 10_000)) < 1


@given(st.integers(0, 10**6), catalogues(), st.randoms(use_true_random=False))
def test_order_changes_nothing(revenue: int, catalogue: tuple[dict, dict, list], random: object) -> None:
    works, uses, referenced = catalogue

    def shuffled(mapping: dict[bytes, object]) -> dict[bytes, object]:
        keys = list(mapping)
        random.shuffle(keys)  # type: ignore[attr-defined]
        return {key: mapping[key] for key in keys}

    again = share_revenue(
        PERIOD, revenue, HEADS, shuffled(works), shuffled(uses), referenced=list(shuffled(dict.fromkeys(referenced)))
    )  # type: ignore[arg-type]
    assert again == share_revenue(PERIOD, revenue, HEADS, works, uses, referenced=referenced)


def test_a_known_revenue_falls_on_the_heads_as_published() -> None:
    heads = split_heads(PERIOD, 123_457, HEADS)
    assert (heads["fixed"] + heads["research"], heads["variable"], heads["solidarity"], heads["internal"]) == (
        18_519 + 18_518,
        49_383,
        12_346,
        24_691,
    )


def test_a_use_head_without_use_is_carried_and_never_given_by_reference() -> None:
    one = ident(b"w", 1)
    sharing = share_revenue(PERIOD, 10_000, HEADS, {one: ((b"a" * 16, 10_000),)}, {}, referenced=[one])
    assert sharing.carried_minor == 4_000
    assert [(line.head, line.amount_minor) for line in sharing.lines] == [("fixed", 1_500)]


def test_without_a_work_only_the_cooperative_is_served() -> None:
    sharing = share_revenue(PERIOD, 10_000, HEADS, {}, {}, referenced=())
    assert (sharing.carried_minor, sum(sharing.own_minor.values()), sharing.holders) == (5_500, 4_500, {})


def test_a_withdrawn_work_earns_by_use_alone() -> None:
    kept, gone = ident(b"w", 1), ident(b"w", 2)
    works = {kept: ((b"a" * 16, 10_000),), gone: ((b"b" * 16, 10_000),)}
    sharing = share_revenue(PERIOD, 10_000, HEADS, works, {gone: 3}, referenced=[kept])
    assert sharing.holders[b"a" * 16].amounts_minor == (1_500, 0)
    assert sharing.holders[b"b" * 16].amounts_minor == (0, 4_000)


def test_the_odd_cents_do_not_fall_on_the_same_works_in_every_period() -> None:
    works = {ident(b"w", number): ((b"a" * 16, 10_000),) for number in range(50)}
    heads = (RoyaltyHead(code="fixed", kind="reference", rate=percent(100)),)
    lucky = {
        frozenset(line.work for line in share_revenue(period, 10, heads, works, {}, referenced=works).lines)
        for period in (b"1" * 16, b"2" * 16, b"3" * 16)
    }
    assert len(lucky) == 3
