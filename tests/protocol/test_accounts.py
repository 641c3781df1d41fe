# SPDX-License-Identifier: AGPL-3.0-or-later
"""Accounts: each reason, and what must never be refused."""

import pytest

from ecot_protocol.errors import LocalProtocolError
from ecot_protocol.ledger.accounts import ACCOUNT_REASONS, AccountKey, Accounts, Leg
from ecot_protocol.wire.encoding import MAX_INTEGER

ADA, BOB, EUROS = (AccountKey(bytes((n,)) * 16, unit, "main") for n, unit in ((1, "BART"), (2, "BART"), (3, "EUR")))
NEW = AccountKey(b"n" * 16, "BART", "main")
ONE = b"1" * 16


def accounts(lower: int | None = -100, upper: int | None = 100) -> Accounts:
    result = Accounts()
    for account in (ADA, BOB, EUROS):
        result.open(account, lower_minor=lower, upper_minor=upper)
    return result


def leg(payer: AccountKey = ADA, payee: AccountKey = BOB, amount: int = 1) -> Leg:
    return Leg(payer, payee, amount, "test")


REFUSED = [
    ("account_unknown", (leg(payer=NEW),)),
    ("account_unknown", (leg(payee=NEW),)),
    ("account_repeated", (leg(payee=ADA),)),
    ("unit_mismatch", (leg(payee=EUROS),)),
    ("amount_out_of_range", (leg(amount=0),)),
    ("amount_out_of_range", (leg(amount=-1),)),
    ("amount_out_of_range", (leg(amount=MAX_INTEGER + 1),)),
    ("credit_limit_exceeded", (leg(amount=101),)),
    ("credit_limit_exceeded", (leg(amount=60), leg(amount=41))),
]


@pytest.mark.parametrize(("code", "legs"), REFUSED)
def test_legs_are_refused(code: str, legs: tuple[Leg, ...]) -> None:
    for check in (accounts().check_reserve, accounts().check_transfer):
        reason = check(legs)
        assert reason is not None
        assert reason.code == code


def test_the_payee_may_be_full() -> None:
    full = accounts(lower=None)
    reason = full.check_transfer((leg(amount=101),))
    assert reason is not None
    assert reason.code == "upper_limit_exceeded"


def test_every_reason_is_met() -> None:
    assert {code for code, _ in REFUSED} | {"upper_limit_exceeded"} == set(ACCOUNT_REASONS)


def test_a_group_counts_by_its_net() -> None:
    there_and_back = (leg(amount=1_000), leg(payer=BOB, payee=ADA, amount=950))
    assert accounts().check_transfer(there_and_back) is None


def test_what_brings_a_balance_nearer_to_its_limits_is_never_refused() -> None:
    book = accounts()
    book.transfer(ONE, (leg(amount=100),))
    for account in (ADA, BOB):
        book.open(account, lower_minor=-10, upper_minor=10)
    assert book.balance(ADA) == -100
    assert book.check_transfer((leg(payer=BOB, payee=ADA, amount=5),)) is None
    assert book.check_transfer((leg(amount=1),)) is not None


def test_a_promise_is_kept_though_the_limits_changed() -> None:
    book = accounts()
    book.reserve(ONE, (leg(amount=100),))
    for account in (ADA, BOB):
        book.open(account, lower_minor=0, upper_minor=0)
    book.post(ONE)
    assert (book.balance(ADA), book.balance(BOB)) == (-100, 100)


@pytest.mark.parametrize("resolve", ["post", "void"])
def test_a_reservation_resolves_once(resolve: str) -> None:
    book = accounts()
    book.reserve(ONE, (leg(amount=100),))
    getattr(book, resolve)(ONE)
    for again in (book.post, book.void):
        with pytest.raises(KeyError):
            again(ONE)
    reason = book.check_split(ONE, [])
    assert reason is not None
    assert reason.code == "reservation_unknown"


def test_a_reservation_id_is_never_taken_twice() -> None:
    book = accounts()
    book.reserve(ONE, (leg(),))
    with pytest.raises(LocalProtocolError):
        book.reserve(ONE, (leg(),))


def test_a_split_that_loosens_a_net_is_checked_against_the_limits() -> None:
    """Apart, the two legs promise more of each account than they do together."""
    book = accounts()
    book.reserve(ONE, (leg(amount=1_000), leg(payer=BOB, payee=ADA, amount=1_000)))
    parts = [(b"2" * 16, (leg(amount=1_000),)), (b"3" * 16, (leg(payer=BOB, payee=ADA, amount=1_000),))]
    reason = book.check_split(ONE, parts)
    assert reason is not None
    assert reason.code == "credit_limit_exceeded"


def test_only_an_idle_account_is_closed() -> None:
    book = accounts()
    book.reserve(ONE, (leg(),))
    with pytest.raises(LocalProtocolError):
        book.close(ADA)
    book.void(ONE)
    book.close(ADA)
    assert ADA not in book.rows
    assert book.is_idle(ADA)
    assert book.balance(ADA) == 0


def test_a_refusal_tells_nobody_the_balance_or_limit_of_another() -> None:
    reason = accounts().check_transfer((leg(amount=101),))
    assert reason is not None
    assert {name for name, _ in reason.params} == {"owner", "unit", "amount_minor"}
