# SPDX-License-Identifier: AGPL-3.0-or-later
"""Exact amounts: shares of a rate, and splits that sum to the whole."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecot_protocol.errors import LocalProtocolError
from ecot_protocol.ledger.amounts import Rate, Rounding, is_proper, share, split
from ecot_protocol.wire.encoding import MAX_INTEGER

amounts = st.integers(0, MAX_INTEGER)
weights = st.dictionaries(st.binary(min_size=16, max_size=16), st.integers(0, MAX_INTEGER), min_size=1, max_size=30)
rates = st.builds(Rate, denominator=st.integers(1, MAX_INTEGER), numerator=amounts)


@given(amounts, weights)
def test_a_split_sums_exactly_and_nobody_is_off_by_a_unit(amount: int, shares: dict[bytes, int]) -> None:
    total = sum(shares.values())
    if total == 0:
        return
    parts = split(amount, shares)
    assert sum(parts.values()) == amount
    assert list(parts) == list(shares)
    for holder, weight in shares.items():
        assert abs(parts[holder] - Fraction(amount * weight, total)) < 1
        assert weight or not parts[holder]


@given(amounts, weights, st.randoms(use_true_random=False))
def test_a_split_does_not_depend_on_the_order(amount: int, shares: dict[bytes, int], rng: object) -> None:
    if sum(shares.values()) == 0:
        return
    shuffled = sorted(shares.items())
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    assert split(amount, dict(shuffled)) == split(amount, shares)


def test_a_larger_weight_never_gets_less() -> None:
    parts = split(100, {bytes((n,)) * 16: n for n in range(1, 14)})
    assert list(parts.values()) == sorted(parts.values())


@pytest.mark.parametrize(
    ("amount", "shares"), [(-1, {b"a": 1}), (1, {b"a": 0}), (1, {}), (1, {b"a": -1, b"b": 3}), (0, {b"a": -1})]
)
def test_a_split_of_nothing_sensible_is_our_own_error(amount: int, shares: dict[bytes, int]) -> None:
    with pytest.raises(LocalProtocolError):
        split(amount, shares)


def test_nothing_is_split_into_nothing() -> None:
    assert split(0, {}) == {}
    assert split(0, {b"a": 0, b"b": 2}) == {b"a": 0, b"b": 0}


@given(amounts, rates)
def test_a_share_is_rounded_as_it_says(amount: int, rate: Rate) -> None:
    exact = Fraction(amount * rate.numerator, rate.denominator)
    down, up = share(amount, rate, Rounding.DOWN), share(amount, rate, Rounding.UP)
    assert down <= exact <= up
    assert up - down == (0 if exact.denominator == 1 else 1)
    assert share(amount, rate, Rounding.HALF_UP) == (exact + Fraction(1, 2)).__floor__()
    assert not is_proper(rate) or up <= amount


def test_a_share_of_a_negative_amount_is_our_own_error() -> None:
    with pytest.raises(LocalProtocolError):
        share(-1, Rate(denominator=1, numerator=1), Rounding.DOWN)
