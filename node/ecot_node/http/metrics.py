# SPDX-License-Identifier: AGPL-3.0-or-later
"""What an operator watches, in the format of Prometheus. No label holds an id, a name or an address."""

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from ecot_node.ledger.port import Status

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
UNKNOWN_ROUTE: Final = "none"


class Metrics:
    """The registry of one application.

    Args:
        status: of the ledger.
        session_count: open sessions.
        stream_count: open event streams.
        fork_count: proofs that a peer's log forked.
    """

    def __init__(
        self,
        status: Callable[[], Status],
        session_count: Callable[[], int],
        stream_count: Callable[[], int],
        fork_count: Callable[[], int],
    ) -> None:
        self._registry = CollectorRegistry()
        self._answers = Counter("ecot_http_answers", "Answers.", ("method", "route", "status"), registry=self._registry)
        self._seconds = Histogram(
            "ecot_http_answer_seconds", "Time to answer.", ("method", "route"), buckets=SECONDS, registry=self._registry
        )
        self._limited = Counter("ecot_http_limited", "Requests over a rate limit.", registry=self._registry)
        self._children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._gauge("ecot_ledger_records", "Durable records.", lambda: status().size)
        self._gauge("ecot_ledger_waiting", "Entries that wait for the writer.", lambda: status().waiting)
        self._gauge("ecot_views_behind", "Records that the views lack.", lambda: status().size - status().views_size)
        self._gauge("ecot_ledger_writing", "1 if entries are taken.", lambda: int(status().mode == "writing"))
        self._gauge("ecot_witness_forks", "Proofs that a peer's log forked.", fork_count)
        self._gauge("ecot_http_sessions", "Open sessions.", session_count)
        self._gauge("ecot_http_streams", "Open event streams.", stream_count)

    def _gauge(self, name: str, help_text: str, read: Callable[[], int]) -> None:
        Gauge(name, help_text, registry=self._registry).set_function(read)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answer.

        Args:
            method: known ones only, so that a client can't make series.
            route: the path's template.
            status: of the answer.
            seconds: taken.
        """
        key = (method, route, status)
        children = self._children.get(key)
        if children is None:
            children = (self._answers.labels(method, route, str(status)), self._seconds.labels(method, route))
            self._children[key] = children
        children[0].inc()
        children[1].observe(seconds)

    def limited(self) -> None:
        """Count a request over a rate limit."""
        self._limited.inc()

    def render(self) -> bytes:
        """Write all of it."""
        return generate_latest(self._registry)
