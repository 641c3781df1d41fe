# SPDX-License-Identifier: AGPL-3.0-or-later
"""The one list of the domains' views. A domain adds its row here."""

from typing import Final

from ecot_node.domains.catalogue import views as catalogue
from ecot_node.domains.coop import views as coop
from ecot_node.domains.federation import views as federation
from ecot_node.domains.governance import views as governance
from ecot_node.domains.membership import views as membership
from ecot_node.domains.records import views as records
from ecot_node.domains.rows import DomainViews
from ecot_node.domains.royalty import views as royalty
from ecot_node.domains.shares import views as shares
from ecot_node.domains.trade import views as trade

DOMAINS: Final[tuple[DomainViews, ...]] = (
    records.VIEWS,
    coop.VIEWS,
    membership.VIEWS,
    shares.VIEWS,
    trade.VIEWS,
    governance.VIEWS,
    catalogue.VIEWS,
    royalty.VIEWS,
    federation.VIEWS,
)
"""From low to high, as the domains of the protocol."""
