# SPDX-License-Identifier: AGPL-3.0-or-later
"""The routes of this floor: what every cooperative's node has, whatever its domains."""

from typing import Final

from ecot_node.http.draft_routes import DRAFT_ROUTES
from ecot_node.http.entry_routes import ENTRY_ROUTES
from ecot_node.http.fork_routes import FORK_ROUTES
from ecot_node.http.log_routes import LOG_ROUTES
from ecot_node.http.node_routes import NODE_ROUTES
from ecot_node.http.proof_routes import PROOF_ROUTES
from ecot_node.http.record_routes import RECORD_ROUTES
from ecot_node.http.routes import AnyRoute
from ecot_node.http.session_routes import SESSION_ROUTES
from ecot_node.http.stream import STREAM_ROUTES
from ecot_node.http.witness_routes import WITNESS_ROUTES

FLOOR_ROUTES: Final[tuple[AnyRoute, ...]] = (
    *NODE_ROUTES,
    *ENTRY_ROUTES,
    *SESSION_ROUTES,
    *RECORD_ROUTES,
    *PROOF_ROUTES,
    *DRAFT_ROUTES,
    *STREAM_ROUTES,
    *LOG_ROUTES,
    *WITNESS_ROUTES,
    *FORK_ROUTES,
)
