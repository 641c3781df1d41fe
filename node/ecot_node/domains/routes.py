# SPDX-License-Identifier: AGPL-3.0-or-later
"""Every domain's reads, in one list for `bootstrap`. Each domain adds its `ROUTES` here."""

from typing import Final

from ecot_node.http.routes import AnyRoute

DOMAIN_ROUTES: Final[tuple[AnyRoute, ...]] = ()
