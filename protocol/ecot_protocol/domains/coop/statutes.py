# SPDX-License-Identifier: AGPL-3.0-or-later
"""Statutes are data: fees, rates, limits, colleges, weights, quorums, powers, in one versioned payload.

Every section belongs to a domain, which reads it and no other. `FORCE` says for each field whether an act keeps the
version of the record that opened it (``at_start``), or whether a change binds at once (``at_once``: limits, powers,
suspensions). Durations are in milliseconds and at least a second.
"""

from collections.abc import Iterable
from typing import Annotated, Final, Literal

import msgspec

from ecot_protocol.ledger.amounts import Rate, is_proper
from ecot_protocol.wire.encoding import Count, Integer, Positive, UnitCode, Wire, Word

MINIMUM_DURATION_MS: Final = 1_000
WEIGHT_TOTAL_BP: Final = 10_000
MAX_COLLEGES: Final = 16
RESERVED_HEADS: Final = frozenset(("bank", "capital", "capital_called", "claims", "royalties", "subscriptions"))
"""Purposes of accounts that no head of a sharing can be named after: revenue is no capital."""

Duration = Annotated[int, msgspec.Meta(ge=MINIMUM_DURATION_MS, le=100 * 366 * 86_400_000)]
"""Milliseconds, from a second to a century."""


class College(Wire):
    """A college of voters: `weight_bp` of 10,000 of the votes of a poll by colleges."""

    code: Word
    weight_bp: Annotated[int, msgspec.Meta(ge=1, le=WEIGHT_TOTAL_BP)]


class AccountDefault(Wire):
    """An account that every member gets on admission; None is no limit."""

    lower_minor: Integer | None
    purpose: Word
    unit: UnitCode
    upper_minor: Integer | None


class FederationStatutes(Wire):
    """Trade with other ledgers.

    Attributes:
        doubtful_delay_ms: after a peering has ended, how long before the board may move a lost promise to the doubtful
            account.
        export_cap_minor: the most that all partners together may owe us, of each unit; None: no cap.
        import_cap_minor: the most that we may owe all partners together, of each unit; None: no cap.
        transfer_abort_delay_ms: after a contract's opening, how long before its abort may be asked for.
        transit_fee: share of what is handed on that the cooperative keeps, at least, of a transfer that it forwards;
            rounded up.
        witnesses_off_path_min: witnesses of a transfer that are no part of its path, at least. Those who gain nothing
            by a decision have no reason to help to show one partner a commit and another an abort.
    """

    doubtful_delay_ms: Duration
    export_cap_minor: Count | None
    import_cap_minor: Count | None
    transfer_abort_delay_ms: Duration
    transit_fee: Rate
    witnesses_off_path_min: Annotated[int, msgspec.Meta(ge=0, le=16)]


class GovernanceStatutes(Wire):
    """Polls.

    Attributes:
        statutes_amended_by: who amends the statutes: the board alone, or a poll that adopts them.
        statutes_majority: share of the weighted votes for, above which a poll adopts statutes.
        statutes_quorum: share of the electorate that must take part for it.
        poll_max_duration_ms: longest time a poll may stay open.
        poll_min_duration_ms: shortest.
        polls_opened_by: any member, or the board alone.
        weight_cap_bp: no college weighs more (French SCIC: 5,000).
        weight_floor_bp: no college weighs less (French SCIC: 1,000).
    """

    poll_max_duration_ms: Duration
    poll_min_duration_ms: Duration
    polls_opened_by: Literal["board", "member"]
    statutes_amended_by: Literal["board", "poll"]
    statutes_majority: Rate
    statutes_quorum: Rate
    weight_cap_bp: Annotated[int, msgspec.Meta(ge=1, le=WEIGHT_TOTAL_BP)]
    weight_floor_bp: Annotated[int, msgspec.Meta(ge=0, le=WEIGHT_TOTAL_BP)]


class MembershipStatutes(Wire):
    """Members.

    Attributes:
        accounts: what is opened on admission.
        entry_fee_minor: owed on admission, for the first period.
        fee_period_ms: how long a fee pays for.
        fee_unit: unit of both fees.
        recovery_delay_ms: how long a board's recovery of a person waits for a veto.
        yearly_fee_minor: owed for every later period.
    """

    accounts: Annotated[tuple[AccountDefault, ...], msgspec.Meta(max_length=16)]
    entry_fee_minor: Count
    fee_period_ms: Duration
    fee_unit: UnitCode
    recovery_delay_ms: Duration
    yearly_fee_minor: Count


class RoyaltyHead(Wire):
    """One head of the sharing of a period's revenue.

    Attributes:
        code: name of the head; the account's purpose for the cooperative's own heads.
        kind: ``reference`` (shared among works in the catalogue), ``use`` (among works by use), ``own`` (kept by the
            cooperative under that purpose).
        rate: share of the net revenue; the heads sum to 1.
    """

    code: Word
    kind: Literal["own", "reference", "use"]
    rate: Rate


class RoyaltyStatutes(Wire):
    """The sharing of a catalogue's revenue. A work without a use in a period takes part by reference alone."""

    heads: Annotated[tuple[RoyaltyHead, ...], msgspec.Meta(min_length=1, max_length=16)]
    unit: UnitCode


class SharesStatutes(Wire):
    """Shares.

    Attributes:
        capital_floor: redemptions may not bring the capital below this share of the highest capital ever reached.
        nominal_minor: price of a share.
        redemption_delay_ms: between a member's leaving and the redemption of its shares.
        subscription_min_count: shares of a first subscription, at least.
        unit: unit of the price.
    """

    capital_floor: Rate
    nominal_minor: Positive
    redemption_delay_ms: Duration
    subscription_min_count: Positive
    unit: UnitCode


class TradeStatutes(Wire):
    """Trade.

    Attributes:
        commission_base: ``net`` or ``gross`` (with VAT): what the rate is taken of, whatever part is paid in euros.
        commission_rate: share of the base, charged to the seller, rounded half up in minor units.
        commission_unit: unit it is charged in: the barter unit, or euros (then a claim).
        delivery_max_duration_ms: longest time from a proposal to the end of its delivery.
        offer_max_duration_ms: longest time that a proposal can stay open.
        reversal_window_ms: how long after its confirmation a trade can be reversed.
        unit: the barter unit.
    """

    commission_base: Literal["gross", "net"]
    commission_rate: Rate
    commission_unit: UnitCode
    delivery_max_duration_ms: Duration
    offer_max_duration_ms: Duration
    reversal_window_ms: Duration
    unit: UnitCode


class Statutes(Wire):
    """The whole of a cooperative's statutes that rules read.

    `trade` and `royalty` are nil in a cooperative that doesn't trade or has no catalogue.
    """

    colleges: Annotated[tuple[College, ...], msgspec.Meta(min_length=1, max_length=MAX_COLLEGES)]
    federation: FederationStatutes
    governance: GovernanceStatutes
    membership: MembershipStatutes
    royalty: RoyaltyStatutes | None
    shares: SharesStatutes
    trade: TradeStatutes | None


FORCE: Final[dict[str, Literal["at_start", "at_once"]]] = {
    "colleges": "at_start",
    "federation.doubtful_delay_ms": "at_once",
    "federation.export_cap_minor": "at_once",
    "federation.import_cap_minor": "at_once",
    "federation.transfer_abort_delay_ms": "at_start",
    "federation.transit_fee": "at_once",
    "federation.witnesses_off_path_min": "at_once",
    "governance.poll_max_duration_ms": "at_start",
    "governance.poll_min_duration_ms": "at_start",
    "governance.polls_opened_by": "at_once",
    "governance.statutes_amended_by": "at_once",
    "governance.statutes_majority": "at_start",
    "governance.statutes_quorum": "at_start",
    "governance.weight_cap_bp": "at_start",
    "governance.weight_floor_bp": "at_start",
    "membership.accounts": "at_start",
    "membership.entry_fee_minor": "at_start",
    "membership.fee_period_ms": "at_start",
    "membership.fee_unit": "at_start",
    "membership.recovery_delay_ms": "at_start",
    "membership.yearly_fee_minor": "at_start",
    "royalty.heads": "at_start",
    "royalty.unit": "at_start",
    "shares.capital_floor": "at_once",
    "shares.nominal_minor": "at_start",
    "shares.redemption_delay_ms": "at_start",
    "shares.subscription_min_count": "at_start",
    "shares.unit": "at_start",
    "trade.commission_base": "at_start",
    "trade.commission_rate": "at_start",
    "trade.commission_unit": "at_start",
    "trade.delivery_max_duration_ms": "at_start",
    "trade.offer_max_duration_ms": "at_start",
    "trade.reversal_window_ms": "at_start",
    "trade.unit": "at_start",
}
"""Section and field -> when an amendment binds. A test fails if a field is missing here."""


def find_statutes_problem(statutes: Statutes, units: Iterable[str]) -> str | None:
    """Return the name of the first field that contradicts another, or None.

    Args:
        statutes: of the right form.
        units: codes of the units that the cooperative declared.
    """
    known = set(units)
    checks = (
        ("colleges", _are_colleges_sound(statutes)),
        ("federation.transit_fee", is_proper(statutes.federation.transit_fee)),
        ("governance.statutes_majority", is_proper(statutes.governance.statutes_majority)),
        ("governance.statutes_quorum", is_proper(statutes.governance.statutes_quorum)),
        ("governance.poll_min_duration_ms", _is_poll_duration_sound(statutes.governance)),
        ("membership.fee_unit", statutes.membership.fee_unit in known),
        ("membership.accounts", _are_accounts_sound(statutes.membership, known)),
        ("royalty.heads", statutes.royalty is None or _are_heads_sound(statutes.royalty)),
        ("royalty.unit", statutes.royalty is None or statutes.royalty.unit in known),
        ("shares.capital_floor", is_proper(statutes.shares.capital_floor)),
        ("shares.unit", statutes.shares.unit in known),
        ("trade.unit", statutes.trade is None or statutes.trade.unit in known),
        ("trade.commission_unit", statutes.trade is None or statutes.trade.commission_unit in known),
        ("trade.commission_rate", statutes.trade is None or is_proper(statutes.trade.commission_rate)),
    )
    return next((field for field, is_sound in checks if not is_sound), None)


def _are_colleges_sound(statutes: Statutes) -> bool:
    codes = [college.code for college in statutes.colleges]
    weights = [college.weight_bp for college in statutes.colleges]
    if len(set(codes)) != len(codes) or sum(weights) != WEIGHT_TOTAL_BP:
        return False
    rules = statutes.governance
    return len(weights) == 1 or all(rules.weight_floor_bp <= weight <= rules.weight_cap_bp for weight in weights)


def _is_poll_duration_sound(rules: GovernanceStatutes) -> bool:
    return rules.poll_min_duration_ms <= rules.poll_max_duration_ms


def _are_accounts_sound(rules: MembershipStatutes, units: set[str]) -> bool:
    keys = {(account.unit, account.purpose) for account in rules.accounts}
    return len(keys) == len(rules.accounts) and all(
        account.unit in units
        and account.purpose != "claims"
        and (account.lower_minor is None or account.lower_minor <= 0)
        and (account.upper_minor is None or account.upper_minor >= 0)
        for account in rules.accounts
    )


def _are_heads_sound(rules: RoyaltyStatutes) -> bool:
    codes = {head.code for head in rules.heads}
    common = 1
    for head in rules.heads:
        common *= head.rate.denominator
    total = sum(head.rate.numerator * common // head.rate.denominator for head in rules.heads)
    return len(codes) == len(rules.heads) and total == common and not codes & RESERVED_HEADS
