# SPDX-License-Identifier: AGPL-3.0-or-later
"""Double-entry accounts: the only place where value lives, and the one choke point of every limit.

- An account is ``(owner, unit, purpose)`` with a balance in minor units, a lower and an upper limit (None: none).
- A leg moves a positive amount from a payer's account to a payee's in the same unit, so every unit sums to zero at
  every record, whatever happens.
- Legs come in groups, all or none. What counts for an account is the net of the group.
- A reservation promises a group. Limits are checked when value is reserved, counting what is reserved already; posting
  a reservation can then never break them. A reservation resolves at most once: post, void or split.
- A group that brings a balance nearer to its limits is never refused for them.

`check_*` functions read only and return a `Reason`; the others cannot fail once the check has passed.

>>> accounts = Accounts()
>>> shop, mill = AccountKey(b"s" * 16, "BART", "barter"), AccountKey(b"m" * 16, "BART", "barter")
>>> for key in (shop, mill):
...     _ = accounts.open(key, lower_minor=-100, upper_minor=100)
>>> legs = (Leg(shop, mill, 80, "transfer"),)
>>> accounts.check_reserve(legs) is None
True
>>> _ = accounts.reserve(b"r" * 16, legs)
>>> accounts.check_transfer((Leg(shop, mill, 30, "transfer"),)).code
'credit_limit_exceeded'
>>> facts = accounts.post(b"r" * 16)
>>> accounts.balance(shop), accounts.balance(mill)
(-80, 80)

Source: two-phase transfers as in TigerBeetle (docs/coding/two-phase-transfers.md).
"""

from collections.abc import Iterable, Sequence
from typing import Annotated, Final, NamedTuple

import msgspec

from ecot_protocol.errors import LocalProtocolError
from ecot_protocol.ledger.facts import Fact, LimitsChanged, Posting, ReservationClosed, Reserved
from ecot_protocol.ledger.reasons import Reason
from ecot_protocol.ledger.table import Table
from ecot_protocol.wire.encoding import MAX_INTEGER, Count, Id, Integer, Positive, UnitCode, Wire, WireArray, Word

MAX_LEGS: Final = 10_000
"""Legs of one group; a period's sharing is posted in several entries if it needs more."""

ACCOUNT_REASONS: Final = (
    "account_unknown",
    "account_repeated",
    "unit_mismatch",
    "amount_out_of_range",
    "credit_limit_exceeded",
    "upper_limit_exceeded",
)
"""What `check_reserve` and `check_transfer` can answer, in this order."""
RESERVATION_REASONS: Final = ("reservation_unknown",)


class AccountKey(NamedTuple):
    """Which account: owner is a member, the cooperative, a work, a partner ledger's id (16 bytes), ..."""

    owner: Id
    unit: UnitCode
    purpose: Word


class Account(Wire):
    """One account; all amounts in the unit's minor units, money owed to the owner positive.

    Attributes:
        balance_minor: what was posted.
        lower_minor: the balance may not fall below (a credit limit is negative); None: no limit.
        reserved_in_minor: promised to it and not yet posted, from 0.
        reserved_out_minor: promised by it and not yet posted, from 0.
        upper_minor: the balance may not rise above; None: no limit.
    """

    balance_minor: Integer
    lower_minor: Integer | None
    reserved_in_minor: Count
    reserved_out_minor: Count
    upper_minor: Integer | None


class Leg(WireArray):
    """`amount_minor` goes from `payer` to `payee`; `reason` says why (see `Posting.reason`)."""

    payer: AccountKey
    payee: AccountKey
    amount_minor: Positive
    reason: Word


class Reservation(Wire):
    """A group of legs promised together."""

    legs: Annotated[tuple[Leg, ...], msgspec.Meta(min_length=1, max_length=MAX_LEGS)]


class Accounts:
    """The accounts and reservations of one ledger."""

    __slots__ = ("reservations", "rows")

    def __init__(self) -> None:
        self.rows: Table[AccountKey, Account] = Table("accounts.rows", AccountKey, Account)
        self.reservations: Table[bytes, Reservation] = Table("accounts.reservations", bytes, Reservation)

    def tables(self) -> tuple[Table[AccountKey, Account], Table[bytes, Reservation]]:
        """Return the tables that the state digest covers."""
        return (self.rows, self.reservations)

    def balance(self, key: AccountKey) -> int:
        """Return the posted balance; 0 for an account that was never opened."""
        account = self.rows.get(key)
        return 0 if account is None else account.balance_minor

    def headroom_minor(self, key: AccountKey) -> int:
        """Return how much more an open account can be promised or paid, from 0."""
        account = self.rows[key]
        upper = MAX_INTEGER if account.upper_minor is None else account.upper_minor
        return max(min(upper - account.balance_minor, MAX_INTEGER) - account.reserved_in_minor, 0)

    def is_idle(self, key: AccountKey) -> bool:
        """Tell whether the account has neither balance nor reservations."""
        account = self.rows.get(key)
        return account is None or not (account.balance_minor or account.reserved_in_minor or account.reserved_out_minor)

    def open(self, key: AccountKey, *, lower_minor: int | None, upper_minor: int | None) -> Fact:
        """Open an account, or change the limits of one; what it holds or has promised stays as it is."""
        old = self.rows.get(key)
        self.rows[key] = Account(
            balance_minor=old.balance_minor if old else 0,
            lower_minor=lower_minor,
            reserved_in_minor=old.reserved_in_minor if old else 0,
            reserved_out_minor=old.reserved_out_minor if old else 0,
            upper_minor=upper_minor,
        )
        return LimitsChanged(
            owner=key.owner, purpose=key.purpose, unit=key.unit, lower_minor=lower_minor, upper_minor=upper_minor
        )

    def close(self, key: AccountKey) -> None:
        """Remove an idle account from the state (no later check reads it)."""
        if not self.is_idle(key):
            raise LocalProtocolError("only an idle account can be closed")
        if key in self.rows:
            del self.rows[key]

    def check_reserve(self, legs: Sequence[Leg]) -> Reason | None:
        """Tell why the legs can't be promised together, or None. See `ACCOUNT_REASONS`."""
        for leg in legs:
            reason = self._check_leg(leg)
            if reason is not None:
                return reason
        if len(legs) == 1:  # most groups by far; its nets are its amount
            payer, payee, amount_minor = legs[0].payer, legs[0].payee, legs[0].amount_minor
            return self._check_promise(payer, 0, amount_minor) or self._check_promise(payee, amount_minor, 0)
        for key, net_minor in _nets(legs).items():
            reason = self._check_net(key, net_minor)
            if reason is not None:
                return reason
        return None

    def check_transfer(self, legs: Sequence[Leg]) -> Reason | None:
        """Tell why the legs can't be posted at once, or None; the same rules as for a reservation."""
        return self.check_reserve(legs)

    def reserve(self, reservation_id: bytes, legs: Sequence[Leg]) -> list[Fact]:
        """Promise the legs under a new id."""
        if reservation_id in self.reservations:
            raise LocalProtocolError("the reservation exists")
        self.reservations[reservation_id] = Reservation(legs=tuple(legs))
        self._promise(legs, 1)
        return [_reserved(leg, reservation_id) for leg in legs]

    def transfer(self, cause: bytes, legs: Sequence[Leg]) -> list[Fact]:
        """Post the legs at once."""
        self._move(legs)
        return [_posting(leg, cause) for leg in legs]

    def post(self, reservation_id: bytes, *, cause: bytes | None = None) -> list[Fact]:
        """Resolve a reservation: its legs are posted and it is gone.

        Args:
            reservation_id: an open reservation.
            cause: what the postings belong to, if it is not the object with the reservation's id.
        """
        legs = self.reservations[reservation_id].legs
        del self.reservations[reservation_id]
        self._promise(legs, -1)
        self._move(legs)
        closed = ReservationClosed(reservation=reservation_id, outcome="posted")
        return [closed, *(_posting(leg, cause or reservation_id) for leg in legs)]

    def void(self, reservation_id: bytes) -> list[Fact]:
        """Resolve a reservation: nothing moves and it is gone."""
        legs = self.reservations[reservation_id].legs
        del self.reservations[reservation_id]
        self._promise(legs, -1)
        return [ReservationClosed(reservation=reservation_id, outcome="voided")]

    def check_split(self, reservation_id: bytes, parts: Sequence[tuple[bytes, Sequence[Leg]]]) -> Reason | None:
        """Tell why a reservation can't be replaced by `parts` (new id, legs), or None.

        The parts' legs must sum to the whole, pair of accounts by pair of accounts; and because limits count the net of
        each group, the parts are checked against them as if reserved anew.

        Returns:
            ``reservation_unknown``, ``split_not_exact``, or one of `ACCOUNT_REASONS`.
        """
        whole = self.reservations.get(reservation_id)
        if whole is None:
            return Reason.of("reservation_unknown", reservation=reservation_id.hex())
        if _totals(whole.legs) != _totals(leg for _, legs in parts for leg in legs):
            return Reason.of("split_not_exact", reservation=reservation_id.hex())
        before, after = _promised(whole.legs), _sum_promised(legs for _, legs in parts)
        for key, (in_minor, out_minor) in after.items():
            old_in, old_out = before.get(key, (0, 0))
            reason = self._check_promise(key, in_minor - old_in, out_minor - old_out)
            if reason is not None:
                return reason
        return None

    def split(self, reservation_id: bytes, parts: Sequence[tuple[bytes, Sequence[Leg]]]) -> list[Fact]:
        """Replace a reservation by several that sum to it."""
        whole = self.reservations[reservation_id]
        del self.reservations[reservation_id]
        self._promise(whole.legs, -1)
        facts: list[Fact] = [ReservationClosed(reservation=reservation_id, outcome="split")]
        for part_id, legs in parts:
            facts += self.reserve(part_id, legs)
        return facts

    def _check_leg(self, leg: Leg) -> Reason | None:
        payer, payee = leg.payer, leg.payee
        if payer not in self.rows:
            return _unknown_reason(payer)
        if payee not in self.rows:
            return _unknown_reason(payee)
        if payer == payee:
            return Reason.of("account_repeated", owner=payer.owner.hex())
        if payer.unit != payee.unit:
            return Reason.of("unit_mismatch", payer_unit=payer.unit, payee_unit=payee.unit)
        if not 0 < leg.amount_minor <= MAX_INTEGER:
            return Reason.of("amount_out_of_range", maximum_minor=MAX_INTEGER)
        return None

    def _check_net(self, key: AccountKey, net_minor: int) -> Reason | None:
        return self._check_promise(key, max(net_minor, 0), max(-net_minor, 0))

    def _check_promise(self, key: AccountKey, in_minor: int, out_minor: int) -> Reason | None:
        account = self.rows[key]
        lowest = account.balance_minor - account.reserved_out_minor - out_minor
        highest = account.balance_minor + account.reserved_in_minor + in_minor
        # Every amount of a row stays within ±MAX_INTEGER, sums of promises too, so that the row can always be encoded.
        if out_minor > 0 and (
            lowest < -MAX_INTEGER
            or account.reserved_out_minor + out_minor > MAX_INTEGER
            or (account.lower_minor is not None and lowest < account.lower_minor)
        ):
            return _limit_reason("credit_limit_exceeded", key, out_minor)
        if in_minor > 0 and (
            highest > MAX_INTEGER
            or account.reserved_in_minor + in_minor > MAX_INTEGER
            or (account.upper_minor is not None and highest > account.upper_minor)
        ):
            return _limit_reason("upper_limit_exceeded", key, in_minor)
        return None

    def _promise(self, legs: Sequence[Leg], sign: int) -> None:
        for key, (in_minor, out_minor) in _promised(legs).items():
            account = self.rows[key]
            self.rows[key] = Account(
                balance_minor=account.balance_minor,
                lower_minor=account.lower_minor,
                reserved_in_minor=account.reserved_in_minor + sign * in_minor,
                reserved_out_minor=account.reserved_out_minor + sign * out_minor,
                upper_minor=account.upper_minor,
            )

    def _move(self, legs: Sequence[Leg]) -> None:
        for key, net_minor in _nets(legs).items():
            account = self.rows[key]
            self.rows[key] = Account(
                balance_minor=account.balance_minor + net_minor,
                lower_minor=account.lower_minor,
                reserved_in_minor=account.reserved_in_minor,
                reserved_out_minor=account.reserved_out_minor,
                upper_minor=account.upper_minor,
            )


def _nets(legs: Iterable[Leg]) -> dict[AccountKey, int]:
    nets: dict[AccountKey, int] = {}
    for leg in legs:
        nets[leg.payer] = nets.get(leg.payer, 0) - leg.amount_minor
        nets[leg.payee] = nets.get(leg.payee, 0) + leg.amount_minor
    return nets


def _promised(legs: Iterable[Leg]) -> dict[AccountKey, tuple[int, int]]:
    """Return key -> (promised in, promised out), each from 0, of one group."""
    return {key: (max(net, 0), max(-net, 0)) for key, net in _nets(legs).items()}


def _sum_promised(groups: Iterable[Sequence[Leg]]) -> dict[AccountKey, tuple[int, int]]:
    sums: dict[AccountKey, tuple[int, int]] = {}
    for legs in groups:
        for key, (in_minor, out_minor) in _promised(legs).items():
            old_in, old_out = sums.get(key, (0, 0))
            sums[key] = (old_in + in_minor, old_out + out_minor)
    return sums


def _totals(legs: Iterable[Leg]) -> dict[tuple[AccountKey, AccountKey, str], int]:
    totals: dict[tuple[AccountKey, AccountKey, str], int] = {}
    for leg in legs:
        pair = (leg.payer, leg.payee, leg.reason)
        totals[pair] = totals.get(pair, 0) + leg.amount_minor
    return totals


def _unknown_reason(key: AccountKey) -> Reason:
    return Reason.of("account_unknown", owner=key.owner.hex(), unit=key.unit, purpose=key.purpose)


def _limit_reason(code: str, key: AccountKey, amount_minor: int) -> Reason:
    # Neither balance nor limit is told: the refusal may go to somebody who is not the account's owner.
    return Reason.of(code, owner=key.owner.hex(), unit=key.unit, amount_minor=amount_minor)


def _posting(leg: Leg, cause: bytes) -> Posting:
    return Posting(
        payer=leg.payer.owner,
        payer_purpose=leg.payer.purpose,
        payee=leg.payee.owner,
        payee_purpose=leg.payee.purpose,
        unit=leg.payer.unit,
        amount_minor=leg.amount_minor,
        cause=cause,
        reason=leg.reason,
    )


def _reserved(leg: Leg, cause: bytes) -> Reserved:
    return Reserved(
        payer=leg.payer.owner,
        payer_purpose=leg.payer.purpose,
        payee=leg.payee.owner,
        payee_purpose=leg.payee.purpose,
        unit=leg.payer.unit,
        amount_minor=leg.amount_minor,
        cause=cause,
        reason=leg.reason,
    )
