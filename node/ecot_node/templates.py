# SPDX-License-Identifier: AGPL-3.0-or-later
"""Starting points for `ecot-node init`: units and statutes of the three kinds of cooperative, and node.toml.

They are meant to be read and changed: the founders sign what the genesis says, not a template's name.
"""

from typing import Final

from ecot_protocol.domains.coop.state import Unit
from ecot_protocol.domains.coop.statutes import (
    AccountDefault,
    College,
    FederationStatutes,
    GovernanceStatutes,
    MembershipStatutes,
    RoyaltyHead,
    RoyaltyStatutes,
    SharesStatutes,
    Statutes,
    TradeStatutes,
)
from ecot_protocol.ledger.amounts import Rate

DAY_MS: Final = 86_400_000
YEAR_MS: Final = 365 * DAY_MS
BARTER: Final = "BART"
EURO: Final = Unit(code="EUR", kind="currency", scale=2)


def _percent(numerator: int) -> Rate:
    return Rate(denominator=100, numerator=numerator)


def units() -> tuple[Unit, ...]:
    """Return the units of every template: a barter unit (1 = 1 EUR) and the euro."""
    return (Unit(code=BARTER, kind="barter", scale=2), EURO)


_FEDERATION: Final = FederationStatutes(
    doubtful_delay_ms=30 * DAY_MS,
    export_cap_minor=None,
    import_cap_minor=None,
    transfer_abort_delay_ms=60_000,
    transit_fee=Rate(denominator=100, numerator=1),
    witnesses_off_path_min=0,
)
_GOVERNANCE: Final = GovernanceStatutes(
    poll_max_duration_ms=60 * DAY_MS,
    poll_min_duration_ms=1_000,
    polls_opened_by="member",
    statutes_amended_by="poll",
    statutes_majority=Rate(denominator=2, numerator=1),
    statutes_quorum=_percent(10),
    weight_cap_bp=5_000,
    weight_floor_bp=1_000,
)
_SHARES: Final = SharesStatutes(
    capital_floor=Rate(denominator=4, numerator=1),
    nominal_minor=10_000,
    redemption_delay_ms=180 * DAY_MS,
    subscription_min_count=1,
    unit="EUR",
)
_THREE_COLLEGES: Final = (
    College(code="users", weight_bp=5_000),
    College(code="workers", weight_bp=3_000),
    College(code="partners", weight_bp=2_000),
)


def _membership(entry_fee_minor: int, yearly_fee_minor: int, credit_minor: int) -> MembershipStatutes:
    return MembershipStatutes(
        accounts=(
            AccountDefault(lower_minor=-credit_minor, purpose="barter", unit=BARTER, upper_minor=4 * credit_minor),
        ),
        entry_fee_minor=entry_fee_minor,
        fee_period_ms=YEAR_MS,
        fee_unit="EUR",
        recovery_delay_ms=3 * DAY_MS,
        yearly_fee_minor=yearly_fee_minor,
    )


def _trade() -> TradeStatutes:
    return TradeStatutes(
        commission_base="net",
        commission_rate=_percent(5),
        commission_unit=BARTER,
        delivery_max_duration_ms=90 * DAY_MS,
        offer_max_duration_ms=30 * DAY_MS,
        reversal_window_ms=90 * DAY_MS,
        unit=BARTER,
    )


def barter_network() -> Statutes:
    """Statutes of a barter network: 235 EUR a year, of which 100 EUR buys a share in the first; 5 % commission."""
    return Statutes(
        colleges=_THREE_COLLEGES,
        federation=_FEDERATION,
        governance=_GOVERNANCE,
        membership=_membership(13_500, 23_500, 500_000),
        royalty=None,
        shares=_SHARES,
        trade=_trade(),
    )


def culture_cooperative() -> Statutes:
    """Statutes of a culture cooperative: 15 % by reference, 40 % by use, 10 % solidarity, 20 % internal, 15 % R&D."""
    heads = (
        RoyaltyHead(code="fixed", kind="reference", rate=_percent(15)),
        RoyaltyHead(code="variable", kind="use", rate=_percent(40)),
        RoyaltyHead(code="solidarity", kind="own", rate=_percent(10)),
        RoyaltyHead(code="internal", kind="own", rate=_percent(20)),
        RoyaltyHead(code="research", kind="own", rate=_percent(15)),
    )
    return Statutes(
        colleges=_THREE_COLLEGES,
        federation=_FEDERATION,
        governance=_GOVERNANCE,
        membership=_membership(0, 0, 200_000),
        royalty=RoyaltyStatutes(heads=heads, unit="EUR"),
        shares=_SHARES,
        trade=_trade(),
    )


def collective() -> Statutes:
    """Statutes of a collective of freelancers: one college, one member one vote."""
    return Statutes(
        colleges=(College(code="members", weight_bp=10_000),),
        federation=_FEDERATION,
        governance=_GOVERNANCE,
        membership=_membership(2_000, 2_000, 300_000),
        royalty=None,
        shares=_SHARES,
        trade=_trade(),
    )


STATUTES: Final = {"barter": barter_network, "collective": collective, "culture": culture_cooperative}
"""Template name -> statutes."""

_SETTINGS: Final = """\
# Settings of an Écot node. Every setting is described in docs/operating/settings.md.
# Each can be overridden by an environment variable: ECOT_NODE_HTTP__PORT=8080 sets http.port.

[http]
# Where members' clients reach the node. Put a TLS proxy (Caddy, nginx) in front of it.
host = "{http_host}"
port = {http_port}
# Networks of proxies whose X-Forwarded-For header is believed.
trusted_proxies = []

[ledger]
# A digest of the state is recorded at least this often.
seal_interval_s = 3600
# Processes that check signatures; 0 checks them in the server itself.
signature_workers = {workers}
# So many seconds after a start, the whole log is verified again with low priority; 0: never.
verify_after_start_s = 60

[store]
# "sqlite" keeps the log in this folder; "postgres" in the database that url names.
kind = "sqlite"
url = ""

[federation]
enabled = {federation}
# libp2p addresses to listen on.
listen = ["{libp2p_listen}"]
# Where partners are found; what they may do stands in the ledger.
# [[federation.peers]]
# ledger = "64 hexadecimal digits"
# addresses = ["/ip4/192.0.2.1/tcp/8485"]
# url = "https://node.partner.example"

[log]
format = "console"
level = "info"
"""


def settings_text(*, http_host: str, http_port: int, libp2p_listen: str, is_federated: bool, workers: int) -> str:
    """Return the commented node.toml of a new node."""
    return _SETTINGS.format(
        http_host=http_host,
        http_port=http_port,
        libp2p_listen=libp2p_listen,
        federation="true" if is_federated else "false",
        workers=workers,
    )
