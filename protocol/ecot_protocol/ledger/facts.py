# SPDX-License-Identifier: AGPL-3.0-or-later
"""Facts: what an entry did. Views, documents, exports and notices are made from them and from nothing else.

A fact is a frozen record; its field names are the vocabulary of the exports. Facts that move value are `Posting`s;
domains add their own (``domains/<domain>/facts.py``).
"""

import typing

import msgspec


@typing.dataclass_transform(frozen_default=True, kw_only_default=True)
class Fact(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Base of every fact."""


class Posting(Fact):
    """Value moved from one account to another, in one unit.

    Attributes:
        payer: owner of the account debited; `payer_purpose` names which of its accounts.
        payee: owner of the account credited.
        unit: code of the unit.
        amount_minor: from 1, in the unit's minor units.
        cause: id of the object that the posting belongs to (a trade, a share, a period, ...).
        reason: what it was for, e.g. ``commission``; texts are in the locale under ``posting.<reason>``.
    """

    payer: bytes
    payer_purpose: str
    payee: bytes
    payee_purpose: str
    unit: str
    amount_minor: int
    cause: bytes
    reason: str


class Reserved(Fact):
    """Value promised and not yet moved; same fields as `Posting`."""

    payer: bytes
    payer_purpose: str
    payee: bytes
    payee_purpose: str
    unit: str
    amount_minor: int
    cause: bytes
    reason: str


class ReservationClosed(Fact):
    """A reservation was posted (its postings are facts of their own), voided or split."""

    reservation: bytes
    outcome: str


class LimitsChanged(Fact):
    """An account was opened or its limits changed; None is no limit."""

    owner: bytes
    purpose: str
    unit: str
    lower_minor: int | None
    upper_minor: int | None
