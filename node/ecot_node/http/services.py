# SPDX-License-Identifier: AGPL-3.0-or-later
"""What one application keeps between requests; built by `app.make_app` from the settings."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from ecot_node.http.context import Context
from ecot_node.http.errors import Problem
from ecot_node.http.events import EventHub
from ecot_node.http.limits import Buckets
from ecot_node.http.metrics import Metrics
from ecot_node.http.sessions import Sessions

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
    drafts: Buckets
    hub: EventHub
    metrics: Metrics
    locks: Locks = field(default_factory=Locks)
    openapi: dict[str, bytes] = field(default_factory=dict)
    endings: list[Callable[[], None]] = field(default_factory=list)

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
        drafts=Buckets(settings.draft_rate),
        hub=hub,
        metrics=Metrics(context.ledger.status, lambda: len(sessions), lambda: len(hub)),
    )
