# SPDX-License-Identifier: AGPL-3.0-or-later
"""The part of a courier that publishes our routes and hands on those of others. All of it can be lost.

- Ours are looked at every 30 s and published to the partners that share ``transit`` when they changed, and at least
  every 10 minutes, so that who comes later learns of them.
- Another's are taken if they are newer, not from the future, and signed by an agent that we know: from a peering of
  ours, or from routes that we took. They are handed on to our partners, over at most 5 ledgers, and forgotten after
  an hour without newer ones.
- A partner whose routes come for the first time is told all that we know.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec

from ecot_protocol.domains.federation.deals import MAX_HOPS
from ecot_protocol.domains.federation.messages import RoutesShown
from ecot_protocol.domains.federation.outputs import Output, Tell
from ecot_protocol.domains.federation.routes import (
    Routes,
    are_routes_signed,
    decode_routes,
    encode_routes,
    own_routes,
)
from ecot_protocol.domains.federation.work import Work

LOOK_MS: Final = 30_000
REFRESH_MS: Final = 600_000
EXPIRE_MS: Final = 3_600_000
SKEW_MS: Final = 600_000
"""How far in the future another's clock may be."""
SPACING_MS: Final = 20_000
"""Routes that follow others of the same ledger sooner are not taken."""
MAX_ORIGINS: Final = 512
"""Ledgers whose routes are known; the oldest goes first."""


class _Known(NamedTuple):
    routes: Routes
    message: RoutesShown


class Router:
    """Publish and keep routes.

    Args:
        work: shared with the rest of the courier.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._known: dict[bytes, _Known] = {}
        self._own: _Known | None = None
        self._looked_at_ms = -LOOK_MS

    @property
    def known(self) -> dict[bytes, Routes]:
        """Ledger -> what it publishes, our own not among them."""
        return {ledger: one.routes for ledger, one in self._known.items()}

    def tick(self, now_ms: int) -> Iterator[Output]:
        """Publish ours if it is time; forget what is old."""
        if abs(now_ms - self._looked_at_ms) < LOOK_MS:
            return
        self._looked_at_ms = now_ms
        old = [ledger for ledger, one in self._known.items() if one.routes.at_ms + EXPIRE_MS <= now_ms]
        for ledger in old:
            del self._known[ledger]
        routes = own_routes(self._work.state, now_ms)
        if self._own is None and not routes.links:
            return
        if self._own is None or self._is_due(self._own.routes, routes):
            statement = encode_routes(routes)
            message = RoutesShown(statement, self._work.sign(statement), 0)
            self._own = _Known(routes, message)
            yield from (Tell(partner, message) for partner in self._partners())

    def _is_due(self, before: Routes, routes: Routes) -> bool:
        is_changed = msgspec.structs.replace(before, at_ms=routes.at_ms) != routes
        return routes.at_ms > before.at_ms and (is_changed or routes.at_ms - before.at_ms >= REFRESH_MS)

    def _partners(self) -> Iterator[bytes]:
        federation = self._work.state.federation
        for ledger in federation.peers:
            peer = federation.active_peer(ledger)
            if peer is not None and "transit" in peer.peering.shared:
                yield ledger

    def shown(self, sender: bytes, message: RoutesShown, now_ms: int) -> Iterator[Output]:
        """Take routes, and hand them on.

        Raises:
            RemoteProtocolError: they are not sound.
        """
        if sender not in set(self._partners()):
            return
        routes = decode_routes(message.statement)
        before = self._known.get(routes.ledger)
        if routes.ledger == self._work.ledger or not self._is_news(before, routes, now_ms):
            return
        if not any(are_routes_signed(message.statement, agent, message.signature) for agent in self._agents(routes)):
            return
        self._keep(_Known(routes, message))
        if message.hop_count < MAX_HOPS:
            onward = RoutesShown(message.statement, message.signature, message.hop_count + 1)
            yield from (Tell(one, onward) for one in self._partners() if one not in (sender, routes.ledger))
        if before is None and sender == routes.ledger:
            yield from self._tell_all(sender)

    def _is_news(self, before: _Known | None, routes: Routes, now_ms: int) -> bool:
        if not now_ms - EXPIRE_MS < routes.at_ms <= now_ms + SKEW_MS:
            return False
        return before is None or routes.at_ms >= before.routes.at_ms + SPACING_MS

    def _agents(self, routes: Routes) -> set[bytes]:
        """Return the keys that are said to be the agent's: by our own peering, or else by others' routes."""
        peer = self._work.state.federation.linked_peer(routes.ledger)
        if peer is not None:
            return {peer.peering.side_of(routes.ledger).agent}
        known = (link for one in self._known.values() for link in one.routes.links)
        return {link.agent for link in known if link.ledger == routes.ledger}

    def _keep(self, found: _Known) -> None:
        self._known[found.routes.ledger] = found
        if len(self._known) > MAX_ORIGINS:
            del self._known[min(self._known, key=lambda ledger: self._known[ledger].routes.at_ms)]

    def _tell_all(self, partner: bytes) -> Iterator[Output]:
        if self._own is not None:
            yield Tell(partner, self._own.message)
        for ledger, one in self._known.items():
            if ledger != partner and one.message.hop_count < MAX_HOPS:
                message = one.message
                yield Tell(partner, RoutesShown(message.statement, message.signature, message.hop_count + 1))
