# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a route works with: the ports that `bootstrap` joined, and the settings of the interface."""

from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

from ecot_node.http.port import HttpLedger, HttpStore, Peers, RecordIndex, ViewsReads
from ecot_node.store.forks import ForkBoard
from ecot_protocol.machine import Machine
from ecot_protocol.wire.cosignature import Cosigns

Network = IPv4Network | IPv6Network

LOOPBACK: Final[tuple[Network, ...]] = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A token bucket: `burst` requests at once, then `per_second`."""

    per_second: float
    burst: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """Limits of the interface. Every input has one.

    Attributes:
        trusted_proxies: networks whose ``X-Forwarded-For`` is believed; none by default.
        metrics_networks: who may read ``/metrics``; others are answered 404.
        max_connections: open at one time; one more is answered 503 and closed.
        max_streams: event streams open at one time.
        max_streams_each: of one session, or of one address without a session.
        address_rate: of one client address (IPv6: of its /64); None: no limit.
        session_rate: of one session; None: no limit.
        entries_rate: of entries, each counted as often as it has signatures to check, of one client address; None: no
            limit.
        strangers_rate: of keys unknown to the ledger that sign entries, such as applications, of one client address;
            None: no limit.
        draft_rate: of drafts that one person may leave, each counted by its size (`DRAFT_UNIT_BYTES`).
        proof_rate: of requests for proofs, each of which may add a seal to the log, of one person.
        bodies_bytes: of bodies received and not yet answered, in all.
        bodies_bytes_each: of one client address.
        entries_waiting_each: entries of one client address that wait for the writer.
        body_timeout_s: to receive a body.
        answer_timeout_s: to answer, bodies and event streams apart.
        heartbeat_s: between two comments on a silent event stream.
        session_ttl_ms: life of a session.
    """

    trusted_proxies: tuple[Network, ...] = ()
    metrics_networks: tuple[Network, ...] = LOOPBACK
    max_connections: int = 2_000
    max_streams: int = 500
    max_streams_each: int = 8
    address_rate: Rate | None = field(default_factory=lambda: Rate(per_second=50, burst=200))
    session_rate: Rate | None = field(default_factory=lambda: Rate(per_second=50, burst=200))
    entries_rate: Rate | None = field(default_factory=lambda: Rate(per_second=1_000, burst=20_000))
    strangers_rate: Rate | None = field(default_factory=lambda: Rate(per_second=1 / 30, burst=400))
    draft_rate: Rate = field(default_factory=lambda: Rate(per_second=1 / 60, burst=60))
    proof_rate: Rate = field(default_factory=lambda: Rate(per_second=1 / 30, burst=30))
    bodies_bytes: int = 256 * 1024 * 1024
    bodies_bytes_each: int = 64 * 1024 * 1024
    entries_waiting_each: int = 10_000
    body_timeout_s: float = 30
    answer_timeout_s: float = 60
    heartbeat_s: float = 15
    session_ttl_ms: int = 12 * 3_600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What `bootstrap` hands in.

    Attributes:
        ledger: state, submission, checkpoint.
        machine: the rules, to judge drafts.
        store: records, attachments, tiles, drafts, cosignatures.
        views: tables for lists and histories.
        records: the views' table of records.
        peers: whose logs we witness.
        cosigners: the keys with which the node cosigns, the Ed25519 one first; none: this node witnesses nobody.
        forks: proofs that a peer's log forked.
        clock_ms: milliseconds since 1970.
        settings: limits.
    """

    ledger: HttpLedger
    machine: Machine
    store: HttpStore
    views: ViewsReads
    records: RecordIndex
    peers: Peers
    cosigners: tuple[Cosigns, ...]
    forks: ForkBoard
    clock_ms: Callable[[], int]
    settings: HttpSettings = field(default_factory=HttpSettings)
