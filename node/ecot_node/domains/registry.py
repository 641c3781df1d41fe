# SPDX-License-Identifier: AGPL-3.0-or-later
"""The one list of the domains' views. A domain adds its row here."""

from typing import Final

from ecot_node.domains.coop import views as coop
from ecot_node.domains.membership import views as membership
from ecot_node.domains.records import views as records
from ecot_node.domains.rows import DomainViews

DOMAINS: Final[tuple[DomainViews, ...]] = (
    records.VIEWS,
    coop.VIEWS,
    membership.VIEWS,
)
"""From low to high, as the domains of the protocol."""
