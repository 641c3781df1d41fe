# SPDX-License-Identifier: AGPL-3.0-or-later
"""Identifiers of works in the world outside: their forms, and whether one belongs to a single work.

The check digits are computed here rather than by a library, because a rule that a new release of a library could change
would let a recorded entry be refused on replay.

- ``ean`` (GTIN-13), ``isbn`` (13 digits, from 978 or 979), ``ismn`` (13 digits, from 9790): EAN-13 check digit;
- ``isrc`` (ISO 3901, without hyphens): country (2 letters), registrant (3 letters or digits), year and number
  (7 digits);
- ``iswc`` (ISO 15707, without dots): ``T`` and 10 digits. It names a composition, of which there can be many
  recordings, so it alone may stand with several works.

>>> is_identifier("isbn", "9782070612758"), is_identifier("isbn", "9782070612759"), is_identifier("iswc", "T0345246801")
(True, False, True)
"""

import re
from typing import Annotated, Final, Literal, NamedTuple

import msgspec

Scheme = Literal["ean", "isbn", "ismn", "isrc", "iswc"]
SHARED_SCHEMES: Final = frozenset(("iswc",))
"""Schemes whose identifiers can stand with several works."""

_FORMS: Final = {
    "ean": re.compile(r"[0-9]{13}"),
    "isbn": re.compile(r"97[89][0-9]{10}"),
    "ismn": re.compile(r"9790[0-9]{9}"),
    "isrc": re.compile(r"[A-Z]{2}[A-Z0-9]{3}[0-9]{7}"),
    "iswc": re.compile(r"T[0-9]{10}"),
}


class Identifier(NamedTuple):
    """An identifier: scheme and value, in capitals, without separators."""

    scheme: Scheme
    value: Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Z]{1,32}$(?!\n)")]


def is_identifier(scheme: str, value: str) -> bool:
    """Tell whether the value has the scheme's form and, where there is one, its check digit."""
    form = _FORMS.get(scheme)
    if form is None or form.fullmatch(value) is None:
        return False
    if scheme == "isrc":
        return True
    return _is_iswc_sound(value) if scheme == "iswc" else _is_ean_sound(value)


def _is_ean_sound(value: str) -> bool:
    """Source: GS1 General Specifications, section 7.9 (weights 1 and 3 in turn, sum divisible by 10)."""
    return sum(int(digit) * (3 if place % 2 else 1) for place, digit in enumerate(value)) % 10 == 0


def _is_iswc_sound(value: str) -> bool:
    """Source: ISO 15707 (1 + sum of the n-th digit times n + check digit is divisible by 10)."""
    weighted = sum(number * int(digit) for number, digit in enumerate(value[1:10], start=1))
    return (1 + weighted + int(value[10])) % 10 == 0
