# SPDX-License-Identifier: AGPL-3.0-or-later
"""The one list of the domains' read routes. A domain adds its list here."""

from typing import Final

from ecot_node.domains.catalogue.routes import CATALOGUE_ROUTES
from ecot_node.domains.coop.routes import COOP_ROUTES
from ecot_node.domains.governance.routes import GOVERNANCE_ROUTES
from ecot_node.domains.membership.routes import MEMBERSHIP_ROUTES
from ecot_node.domains.royalty.routes import ROYALTY_ROUTES
from ecot_node.domains.shares.routes import SHARES_ROUTES
from ecot_node.domains.trade.routes import TRADE_ROUTES
from ecot_node.http.routes import AnyRoute

DOMAIN_ROUTES: Final[tuple[AnyRoute, ...]] = (
    *COOP_ROUTES,
    *MEMBERSHIP_ROUTES,
    *SHARES_ROUTES,
    *TRADE_ROUTES,
    *GOVERNANCE_ROUTES,
    *CATALOGUE_ROUTES,
    *ROYALTY_ROUTES,
)
"""What `bootstrap` gives to `http.app.make_app`."""
