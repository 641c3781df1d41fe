# SPDX-License-Identifier: AGPL-3.0-or-later
"""Amounts and instants as people of a language write them; inside they are minor units and milliseconds since 1970.

>>> parse_amount("1 234,5", 2, "fr"), parse_amount("1,234.50", 2, "en"), parse_amount("1234.50", 2, "fr")
(123450, 123450, 123450)
>>> format_amount(-123450, 2, "BART", "en")
'-1,234.50 BART'
"""

import datetime as dt
import re
from decimal import Decimal
from typing import Final

from babel.dates import format_datetime
from babel.numbers import NumberFormatError, format_decimal, parse_decimal

from ecot_cli.errors import UsageProblem
from ecot_client.models import LedgerInfo
from ecot_protocol.wire.encoding import MAX_INTEGER

DAY_MS: Final = 86_400_000
_PLAIN: Final = re.compile(r"[0-9]+(\.[0-9]+)?")
_WRITTEN: Final = re.compile(r"[0-9.,'\u2019\s\u00a0\u202f]+")
_SPACES: Final = re.compile(r"[\s\u00a0\u202f]")


def parse_amount(text: str, scale: int, locale: str) -> int:
    """Read an amount from 0 in minor units.

    A point before the decimals is taken in every language where it does not group thousands.

    Raises:
        UsageProblem: ``amount_malformed``: no number, negative, too large, or with more decimals than the unit has.
    """
    problem = UsageProblem("amount_malformed", amount=text, decimals=scale)
    if not _WRITTEN.fullmatch(text):  # `Decimal` would take an exponent, and digits of other scripts
        raise problem
    compact = _SPACES.sub("", text)
    try:
        value = Decimal(compact) if _PLAIN.fullmatch(compact) else parse_decimal(_grouped(text), locale, strict=True)
    except (NumberFormatError, ArithmeticError):
        raise problem from None
    minor = value.scaleb(scale)
    if not minor.is_finite() or minor != minor.to_integral_value() or not 0 <= minor <= MAX_INTEGER:
        raise problem
    return int(minor)


def _grouped(text: str) -> str:
    """French groups with a narrow no-break space, which no keyboard has."""
    return _SPACES.sub("\u202f", text.strip())


def format_amount(minor: int, scale: int, unit: str, locale: str) -> str:
    """Write an amount with its unit."""
    pattern = "#,##0" + ("." + "0" * scale if scale else "")
    number = format_decimal(Decimal(minor).scaleb(-scale), format=pattern, locale=locale)
    return f"{number}\u00a0{'€' if unit == 'EUR' else unit}" if locale == "fr" else f"{number} {unit}"


def scale_of(info: LedgerInfo, unit: str) -> int:
    """Return the number of decimals of a unit.

    Raises:
        UsageProblem: ``unit_unknown``.
    """
    for one in info.units:
        if one.code == unit:
            return one.scale
    raise UsageProblem("unit_unknown", unit=unit, known=", ".join(one.code for one in info.units))


def format_instant(unix_ms: int, locale: str) -> str:
    """Write an instant in this machine's time zone, to the minute."""
    local = dt.datetime.fromtimestamp(unix_ms / 1000, tz=dt.UTC).astimezone()
    return format_datetime(local, "short", tzinfo=local.tzinfo, locale=locale)


def parse_day(text: str) -> int:
    """Read ``YYYY-MM-DD`` (or a full ISO instant) in this machine's time zone.

    Raises:
        UsageProblem: ``day_malformed``.
    """
    try:
        instant = dt.datetime.fromisoformat(text)
    except ValueError:
        raise UsageProblem("day_malformed", day=text) from None
    return int((instant if instant.tzinfo else instant.astimezone()).timestamp() * 1000)
