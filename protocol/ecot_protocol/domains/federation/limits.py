# SPDX-License-Identifier: AGPL-3.0-or-later
"""The one way in which value is promised against partners' accounts, and the caps of the statutes on all of them.

A partner's own limit stands in its account (`ecot_protocol.ledger.accounts`). The caps look at all partners together,
each unit by itself:

- *export*: what partners may owe us. A cooperative that sells more than it buys ends with claims that its own members
  can't spend; ``federation.export_cap_minor`` of the statutes bounds it.
- *import*: what we may owe partners; ``federation.import_cap_minor``.

Both count what is promised as if it were posted, each partner at its worst, so that no order of resolutions exceeds
them. What brings a total nearer to its cap is never refused, be the cap lowered below what stands.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from ecot_protocol.domains.federation.state import FederationState, partner_account
from ecot_protocol.ledger.accounts import ACCOUNT_REASONS, AccountKey, Leg
from ecot_protocol.ledger.reasons import Reason

RESERVE_REASONS: Final = (*ACCOUNT_REASONS, "export_cap_exceeded", "import_cap_exceeded")
"""What `check_reserve` can answer, in this order."""


class PartnerTotals(NamedTuple):
    """What all partners together may owe us (`export_minor`) and we them (`import_minor`), promises counted."""

    export_minor: int
    import_minor: int


def check_reserve(state: FederationState, legs: Sequence[Leg], at: int) -> Reason | None:
    """Tell why the legs can't be promised together, or None; every promise of this domain passes here.

    Returns:
        One of `RESERVE_REASONS`.
    """
    return state.accounts.check_reserve(legs) or _check_caps(state, legs, at)


def partner_totals(state: FederationState, unit: str, legs: Sequence[Leg] = ()) -> PartnerTotals:
    """Sum up a unit over all partners, as if `legs` were promised too."""
    nets: dict[AccountKey, int] = {}
    for leg in legs:
        nets[leg.payer] = nets.get(leg.payer, 0) - leg.amount_minor
        nets[leg.payee] = nets.get(leg.payee, 0) + leg.amount_minor
    export_minor = import_minor = 0
    for ledger in state.federation.peers:
        key = partner_account(ledger, unit)
        account = state.accounts.rows.get(key)
        if account is not None:
            net_minor = nets.get(key, 0)
            lowest = account.balance_minor - account.reserved_out_minor + min(net_minor, 0)
            highest = account.balance_minor + account.reserved_in_minor + max(net_minor, 0)
            export_minor += max(-lowest, 0)
            import_minor += max(highest, 0)
    return PartnerTotals(export_minor, import_minor)


def _check_caps(state: FederationState, legs: Sequence[Leg], at: int) -> Reason | None:
    statutes = state.coop.statutes_at(at)[1].federation
    export_cap, import_cap = statutes.export_cap_minor, statutes.import_cap_minor
    if export_cap is None and import_cap is None:
        return None
    for unit in sorted({leg.payer.unit for leg in legs}):
        before, after = partner_totals(state, unit), partner_totals(state, unit, legs)
        if export_cap is not None and after.export_minor > max(export_cap, before.export_minor):
            return Reason.of("export_cap_exceeded", unit=unit)
        if import_cap is not None and after.import_minor > max(import_cap, before.import_minor):
            return Reason.of("import_cap_exceeded", unit=unit)
    return None
