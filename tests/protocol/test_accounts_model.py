# SPDX-License-Identifier: AGPL-3.0-or-later
"""Accounts against a small model on paper that shares no code with them: a list of promises, added up each time."""

from collections import Counter
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ecot_protocol.ledger.accounts import AccountKey, Accounts, Leg
from ecot_protocol.wire.encoding import MAX_INTEGER

NAMES = ("ada", "bob", "cleo", "own")
UNITS = ("BART", "EUR")


def key(name: str, unit: str) -> AccountKey:
    return AccountKey(name.encode().ljust(16), unit, "main")


@dataclass
class Paper:
    """What a bookkeeper would write: postings done, promises open, limits now."""

    done: list[tuple[str, str, str, int]] = field(default_factory=list)
    open: dict[int, list[tuple[str, str, str, int]]] = field(default_factory=dict)
    limits: dict[tuple[str, str], tuple[int | None, int | None]] = field(default_factory=dict)

    def nets(self, moves: list[tuple[str, str, str, int]]) -> Counter[tuple[str, str]]:
        sums: Counter[tuple[str, str]] = Counter()
        for payer, payee, unit, amount in moves:
            sums[payer, unit] -= amount
            sums[payee, unit] += amount
        return sums

    def balance(self, account: tuple[str, str]) -> int:
        return self.nets(self.done)[account]

    def promised(self, account: tuple[str, str], sign: int) -> int:
        return sum(max(sign * self.nets(group)[account], 0) for group in self.open.values())

    def refusal(self, moves: list[tuple[str, str, str, int]]) -> str | None:
        for payer, payee, unit, amount in moves:
            if (payer, unit) not in self.limits or (payee, unit) not in self.limits:
                return "account_unknown"
            if payer == payee:
                return "account_repeated"
            if not 1 <= amount <= MAX_INTEGER:
                return "amount_out_of_range"
        for account, net in self.nets(moves).items():
            lower, upper = self.limits[account]
            if net < 0 and lower is not None and self.balance(account) - self.promised(account, -1) + net < lower:
                return "credit_limit_exceeded"
            if net > 0 and upper is not None and self.balance(account) + self.promised(account, 1) + net > upper:
                return "upper_limit_exceeded"
        return None


amounts = st.integers(1, 60)
moves = st.lists(
    st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES), st.sampled_from(UNITS), amounts), min_size=1, max_size=4
)
bounds = st.none() | st.integers(0, 150)


def legs_of(group: list[tuple[str, str, str, int]]) -> tuple[Leg, ...]:
    return tuple(Leg(key(payer, unit), key(payee, unit), amount, "test") for payer, payee, unit, amount in group)


class AccountsMachine(RuleBasedStateMachine):
    """Random operations, each first asked for, then done if and only if the paper allows it too."""

    def __init__(self) -> None:
        super().__init__()
        self.accounts = Accounts()
        self.paper = Paper()
        self.last = 0

    @initialize()
    def begin(self) -> None:
        for name in NAMES[:3]:
            self.limit(name, "BART", 100, 100)
        self.limit("own", "BART", None, None)
        self.limit("ada", "EUR", None, 50)

    def limit(self, name: str, unit: str, lower: int | None, upper: int | None) -> None:
        floor = None if lower is None else -lower
        self.accounts.open(key(name, unit), lower_minor=floor, upper_minor=upper)
        self.paper.limits[name, unit] = (floor, upper)

    @rule(group=moves)
    def transfer(self, group: list[tuple[str, str, str, int]]) -> None:
        reason = self.accounts.check_transfer(legs_of(group))
        assert (reason.code if reason else None) == self.paper.refusal(group)
        if reason is None:
            self.accounts.transfer(bytes(16), legs_of(group))
            self.paper.done += group

    @rule(group=moves)
    def reserve(self, group: list[tuple[str, str, str, int]]) -> None:
        reason = self.accounts.check_reserve(legs_of(group))
        assert (reason.code if reason else None) == self.paper.refusal(group)
        if reason is None:
            self.last += 1
            self.accounts.reserve(self.last.to_bytes(16, "big"), legs_of(group))
            self.paper.open[self.last] = group

    @rule(data=st.data(), posts=st.booleans())
    def resolve(self, data: st.DataObject, posts: bool) -> None:
        if not self.paper.open:
            return
        number = data.draw(st.sampled_from(sorted(self.paper.open)))
        before = {account: self.paper.balance(account) for account in self.paper.limits}
        group = self.paper.open.pop(number)
        (self.accounts.post if posts else self.accounts.void)(number.to_bytes(16, "big"))
        if posts:
            self.paper.done += group
        assert number.to_bytes(16, "big") not in self.accounts.reservations
        assert posts or before == {account: self.paper.balance(account) for account in self.paper.limits}

    @rule(data=st.data())
    def split(self, data: st.DataObject) -> None:
        if not self.paper.open:
            return
        number = data.draw(st.sampled_from(sorted(self.paper.open)))
        first, second = [], []
        for payer, payee, unit, amount in self.paper.open[number]:
            part = data.draw(st.integers(0, amount))
            first += [(payer, payee, unit, part)] * (part > 0)
            second += [(payer, payee, unit, amount - part)] * (amount > part)
        groups = {self.last + place: group for place, group in enumerate((first, second), start=1) if group}
        parts = [(one.to_bytes(16, "big"), legs_of(group)) for one, group in groups.items()]
        if self.accounts.check_split(number.to_bytes(16, "big"), parts) is None:
            self.accounts.split(number.to_bytes(16, "big"), parts)
            del self.paper.open[number]
            self.paper.open |= groups
            self.last += 2

    @rule(data=st.data(), wrong=st.integers(1, 5))
    def split_that_is_not_exact(self, data: st.DataObject, wrong: int) -> None:
        if not self.paper.open:
            return
        number = data.draw(st.sampled_from(sorted(self.paper.open)))
        (payer, payee, unit, amount), *others = self.paper.open[number]
        group = [(payer, payee, unit, amount + wrong), *others]
        reason = self.accounts.check_split(number.to_bytes(16, "big"), [(b"w" * 16, legs_of(group))])
        assert reason is not None
        assert reason.code == "split_not_exact"

    @invariant()
    def every_unit_sums_to_zero(self) -> None:
        for unit in UNITS:
            assert sum(self.accounts.balance(key(name, unit)) for name in NAMES) == 0

    @invariant()
    def rows_are_what_the_paper_says(self) -> None:
        for (name, unit), (lower, upper) in self.paper.limits.items():
            row = self.accounts.rows[key(name, unit)]
            assert row.balance_minor == self.paper.balance((name, unit))
            assert row.reserved_out_minor == self.paper.promised((name, unit), -1)
            assert row.reserved_in_minor == self.paper.promised((name, unit), 1)
            assert (row.lower_minor, row.upper_minor) == (lower, upper)

    @invariant()
    def reservations_are_those_of_the_paper(self) -> None:
        assert set(self.accounts.reservations) == {one.to_bytes(16, "big") for one in self.paper.open}


class ChangingLimitsMachine(AccountsMachine):
    """Limits change at any time."""

    @rule(name=st.sampled_from(NAMES), unit=st.sampled_from(UNITS), lower=bounds, upper=bounds)
    def change_limits(self, name: str, unit: str, lower: int | None, upper: int | None) -> None:
        self.limit(name, unit, lower, upper)


class FixedLimitsMachine(AccountsMachine):
    """Limits stay as they are: then no sequence of operations takes a balance beyond one, however it is resolved."""

    @invariant()
    def no_account_is_or_can_come_beyond_a_limit(self) -> None:
        for (name, unit), (lower, upper) in self.paper.limits.items():
            row = self.accounts.rows[key(name, unit)]
            assert lower is None or row.balance_minor - row.reserved_out_minor >= lower
            assert upper is None or row.balance_minor + row.reserved_in_minor <= upper


TestAccountsBesideAModel = ChangingLimitsMachine.TestCase
TestAccountsBesideAModel.settings = settings(max_examples=60, stateful_step_count=40)
TestAccountsWithinTheirLimits = FixedLimitsMachine.TestCase
TestAccountsWithinTheirLimits.settings = settings(max_examples=60, stateful_step_count=40)
