# SPDX-License-Identifier: AGPL-3.0-or-later
"""Exact amounts: integers in minor units, rates as integer fractions, splits that sum to the whole.

>>> share(10_000, Rate(denominator=100, numerator=5), Rounding.DOWN)
500
>>> split(100, {b"a": 1, b"b": 1, b"c": 1})[b"a"] + split(100, {b"a": 1, b"b": 1, b"c": 1})[b"b"] <= 67
True
>>> sum(split(100, {b"a": 1, b"b": 1, b"c": 1}).values())
100
"""

from collections.abc import Mapping
from enum import Enum
from hashlib import sha256
from typing import Final

from ecot_protocol.errors import LocalProtocolError
from ecot_protocol.wire.encoding import MAX_INTEGER, Count, Positive, Wire

MAX_AMOUNT_MINOR: Final = MAX_INTEGER
MAX_RATE_DENOMINATOR: Final = 1_000_000_000


class Rate(Wire):
    """An exact fraction ``numerator / denominator``, e.g. 5 % = 5/100."""

    denominator: Positive
    numerator: Count


class Rounding(Enum):
    """Who keeps what a division leaves over; every caller names it."""

    DOWN = "down"
    HALF_UP = "half_up"
    UP = "up"


def share(amount_minor: int, rate: Rate, rounding: Rounding) -> int:
    """Return `rate` of a non-negative amount, in whole minor units; the product is computed unbounded."""
    if amount_minor < 0:
        raise LocalProtocolError("a share is taken of an amount from 0")
    product = amount_minor * rate.numerator
    if rounding is Rounding.DOWN:
        return product // rate.denominator
    if rounding is Rounding.UP:
        return -(-product // rate.denominator)
    return (2 * product + rate.denominator) // (2 * rate.denominator)


def is_proper(rate: Rate) -> bool:
    """Tell whether the rate lies between 0 and 1."""
    return rate.numerator <= rate.denominator


def split(amount_minor: int, weights: Mapping[bytes, int]) -> dict[bytes, int]:
    """Split an amount exactly in proportion to integer weights, by largest remainder.

    Ties go to the lowest SHA-256 of the holder's id, so that every node splits alike. Whoever makes ids until one has a
    low hash can win ties: at most one minor unit a split.

    Args:
        amount_minor: from 0.
        weights: stable id of the holder -> weight from 0; their sum is positive unless the amount is 0.

    Returns:
        id -> amount, in the order of `weights`; sums to `amount_minor`.

    Source: Hamilton's method (largest remainder).
    """
    total = sum(weights.values())
    if amount_minor < 0 or any(weight < 0 for weight in weights.values()) or (total == 0 and amount_minor > 0):
        raise LocalProtocolError("a split needs an amount from 0 and weights with a positive sum")
    if amount_minor == 0:
        return dict.fromkeys(weights, 0)
    parts = {holder: amount_minor * weight // total for holder, weight in weights.items()}
    left = amount_minor - sum(parts.values())
    by_remainder = sorted(weights, key=lambda holder: (-(amount_minor * weights[holder] % total), _tie(holder)))
    for holder in by_remainder[:left]:
        parts[holder] += 1
    return parts


def _tie(holder: bytes) -> bytes:
    return sha256(b"ecot/tie/v1\n" + holder).digest()
