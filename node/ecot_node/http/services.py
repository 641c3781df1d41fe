# SPDX-License-Identifier: AGPL-3.0-or-later
"""What one application keeps between requests; built by `app.make_app` from the settings."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from ecot_node.http.context import Context
from ecot_node.http.errors import Problem
from ecot_node.http.events import EventHub
from ecot_node.http.limits import Buckets, Holdings
from ecot_node.http.metrics import Metrics
from ecot_node.http.sessions import Sessions
from ecot_protocol.wire.encoding import MAX_INTEGER

MAX_LOCKS: Final = 4_096


class Locks:
    """A lock for each name (a log's origin, a draft), bounded: idle ones are forgotten."""

    def __init__(self) -> None:
        self._locks: OrderedDict[str | bytes, asyncio.Lock] = OrderedDict()

    def of(self, name: str | bytes) -> asyncio.Lock:
        """Return the lock of a name; take it before the next await."""
        lock = self._locks.setdefault(name, asyncio.Lock())
        self._locks.move_to_end(name)
        if len(self._locks) > MAX_LOCKS:
            for other in [one for one, held in self._locks.items() if one != name and not held.locked()]:
                del self._locks[other]
        return lock


class Lease:
    """What one request holds, until it is answered.

    Args:
        holdings: of all requests.
        client: whose request it is.
    """

    __slots__ = ("_client", "_held", "_holdings")

    def __init__(self, holdings: Holdings, client: str) -> None:
        self._holdings, self._client = holdings, client
        self._held = 0

    def take(self, amount: int) -> None:
        """Hold so much more.

        Raises:
            Problem: ``overloaded``: all requests, or those of this client, hold too much.
        """
        if not self._holdings.take(self._client, amount):
            raise Problem("overloaded", headers={"Retry-After": "1"})
        self._held += amount

    def end(self) -> None:
        """Give everything back."""
        if self._held:
            self._holdings.give_back(self._client, self._held)
            self._held = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Sessions, limits, event streams, metrics, locks, and the generated description of the interface.

    Attributes:
        openapi: language -> the OpenAPI document, as JSON; filled when the application is made.
    """

    sessions: Sessions
    addresses: Buckets | None
    callers: Buckets | None
    entries: Buckets | None
    strangers: Buckets | None
    drafts: Buckets
    proofs: Buckets
    bodies: Holdings
    waiting: Holdings
    hub: EventHub
    metrics: Metrics
    locks: Locks = field(default_factory=Locks)
    openapi: dict[str, bytes] = field(default_factory=dict)
    endings: list[Callable[[], None]] = field(default_factory=list)

    @contextmanager
    def lease(self, holdings: Holdings, client: str) -> Iterator[Lease]:
        """Hold what is taken from the lease until the block ends."""
        lease = Lease(holdings, client)
        try:
            yield lease
        finally:
            lease.end()

    def take(self, buckets: Buckets | None, client: str | bytes, cost: int = 1) -> None:
        """Count what a client asks against a limit (None: no limit).

        Raises:
            Problem: ``rate_limited``.
        """
        wait_s = buckets.wait_s(client, time.monotonic(), cost) if buckets is not None else 0.0
        if wait_s > 0:
            self.metrics.limited()
            after = int(wait_s) + 1
            raise Problem("rate_limited", headers={"Retry-After": str(after)}, retry_after_s=after)


def build_services(context: Context) -> Services:
    """Build what an application keeps."""
    settings = context.settings
    sessions = Sessions(ttl_ms=settings.session_ttl_ms)
    hub = EventHub(max_streams=settings.max_streams, max_each=settings.max_streams_each)
    return Services(
        sessions=sessions,
        addresses=Buckets(settings.address_rate) if settings.address_rate else None,
        callers=Buckets(settings.session_rate) if settings.session_rate else None,
        entries=Buckets(settings.entries_rate) if settings.entries_rate else None,
        strangers=Buckets(settings.strangers_rate) if settings.strangers_rate else None,
        drafts=Buckets(settings.draft_rate),
        proofs=Buckets(settings.proof_rate),
        bodies=Holdings(most=settings.bodies_bytes, most_each=settings.bodies_bytes_each),
        waiting=Holdings(most=MAX_INTEGER, most_each=settings.entries_waiting_each),
        hub=hub,
        metrics=Metrics(
            context.ledger.status, lambda: len(sessions), lambda: len(hub), lambda: len(context.forks.proofs)
        ),
    )
