# SPDX-License-Identifier: AGPL-3.0-or-later
"""The transport over libp2p, on the asyncio side.

libp2p itself runs under trio in a thread of its own (``libp2p_run``), which this module starts, watches and restarts.
Only ``bootstrap`` imports it: libp2p takes a second and 60 MB to import.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import Sequence
from typing import Final

import structlog
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from ecot_node.federation.framing import decode_hello
from ecot_node.federation.libp2p_run import Host, Peer
from ecot_node.federation.multiaddrs import CIRCUIT, LISTEN_HOSTS, check_peer_id, parse_address
from ecot_node.federation.port import (
    Deliver,
    PeerId,
    PeerStatus,
    PeerUnreachable,
    Relaying,
    SendTimedOut,
    TransportError,
    TransportLimits,
    UnknownPeer,
)
from ecot_protocol.errors import LocalProtocolError

SEED_BYTES: Final = 32
HOST_RESTART_S: Final = 1.0

_log = structlog.get_logger(__name__)


class Libp2pTransport:
    """Carry messages over libp2p; see ``port.Transport``.

    Args:
        identity_seed: 32 bytes, the Ed25519 seed of the node's libp2p key.
        listen_addresses: multiaddrs such as ``/ip4/0.0.0.0/tcp/4001``; port 0 takes a free one, and keeps it.
        limits: see ``TransportLimits``.
        jitter_seed: of the back-off; None takes one from the system.
        relaying: relays that we use, and whether we are one.
    """

    def __init__(
        self,
        *,
        identity_seed: bytes,
        listen_addresses: Sequence[str],
        limits: TransportLimits | None = None,
        jitter_seed: int | None = None,
        relaying: Relaying | None = None,
    ) -> None:
        if len(identity_seed) != SEED_BYTES:
            raise LocalProtocolError(f"seed of {len(identity_seed)} bytes, expected {SEED_BYTES}")
        self._key_pair = create_new_key_pair(identity_seed)
        self._peer_id = PeerId(str(ID.from_pubkey(self._key_pair.public_key)))
        self._wanted_addresses = tuple(parse_address(address, None, LISTEN_HOSTS) for address in listen_addresses)
        self._bound_addresses: tuple[str, ...] = ()
        self._relaying = relaying or Relaying()
        for relay in self._relaying.relays:
            parse_address(relay + CIRCUIT, None)
        self._limits = limits or TransportLimits()
        self._random = random.Random(jitter_seed)
        self._peers: dict[PeerId, Peer] = {}
        self._deliver: Deliver | None = None
        self._hello = b""
        self._host: Host | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._deliveries: set[asyncio.Task[None]] = set()
        self._restart_count = 0

    @property
    def peer_id(self) -> PeerId:
        """See ``port.Transport``."""
        return self._peer_id

    @property
    def listen_addresses(self) -> tuple[str, ...]:
        """See ``port.Transport``."""
        return self._bound_addresses if self._supervisor else ()

    @property
    def circuit_addresses(self) -> tuple[str, ...]:
        """Where we are reached through relays at which we have reserved, without our own ``/p2p/``."""
        reserved = self._host.reservations.reserved if self._host is not None else set()
        return tuple(one + CIRCUIT for one in self._relaying.relays if one.rpartition("/p2p/")[2] in reserved)

    @property
    def circuit_count(self) -> int:
        """Circuits that we relay for others now."""
        relay = self._host.relay if self._host is not None else None
        return relay.circuit_count if relay is not None else 0

    @property
    def restart_count(self) -> int:
        """Count of the times that the libp2p thread was started anew."""
        return self._restart_count

    async def start(self, deliver: Deliver, hello: bytes) -> None:
        """See ``port.Transport``."""
        if self._supervisor is not None:
            raise TransportError("the transport is already started")
        decode_hello(hello)
        self._deliver, self._hello = deliver, hello
        host = await self._start_host(self._wanted_addresses)
        self._bound_addresses = host.listen_addresses
        self._supervisor = asyncio.create_task(self._supervise(host), name="federation-transport")

    async def stop(self) -> None:
        """See ``port.Transport``."""
        if self._supervisor is None:
            return
        supervisor, self._supervisor = self._supervisor, None
        for peer in self._peers.values():
            peer.queue.fail_all("stopped")
        for delivery in self._deliveries:
            delivery.cancel()
        host, self._host = self._host, None
        supervisor.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await supervisor
        if host is not None:
            await self._stop_host(host)
        for peer in self._peers.values():
            peer.is_connected = False

    def set_peer(self, peer_id: PeerId, addresses: Sequence[str]) -> None:
        """See ``port.Transport``."""
        if peer_id == self._peer_id:
            raise LocalProtocolError("a node is no peer of itself")
        check_peer_id(peer_id)
        parsed = tuple(parse_address(address, peer_id) for address in addresses)
        known = self._peers.get(peer_id)
        if known is not None:
            known.addresses = parsed
            if self._host is not None:
                self._host.retry(peer_id)
            return
        self._peers[peer_id] = peer = Peer(peer_id, parsed, self._limits)
        if self._host is not None:
            self._host.add_peer(peer)

    def remove_peer(self, peer_id: PeerId) -> None:
        """See ``port.Transport``."""
        peer = self._peers.pop(peer_id, None)
        if peer is None:
            return
        peer.is_removed = True
        peer.queue.fail_all("peer_removed")
        if self._host is not None:
            self._host.remove_peer(peer)

    async def send(self, peer_id: PeerId, message: bytes, *, timeout_s: float) -> None:
        """See ``port.Transport``."""
        peer = self._known(peer_id)
        if self._supervisor is None:
            raise PeerUnreachable(peer_id, "stopped")
        waiting, must_wake = peer.queue.put(message)
        if must_wake and self._host is not None:
            self._host.wake(peer_id)
        try:
            await peer.queue.wait_written(waiting, timeout_s)
        except SendTimedOut:
            if peer.is_connected:
                raise
            raise PeerUnreachable(peer_id, peer.last_error or "not_connected") from None

    def status(self, peer_id: PeerId) -> PeerStatus:
        """See ``port.Transport``."""
        return self._known(peer_id).status()

    def _known(self, peer_id: PeerId) -> Peer:
        peer = self._peers.get(peer_id)
        if peer is None:
            raise UnknownPeer(peer_id)
        return peer

    async def _start_host(self, addresses: tuple[str, ...]) -> Host:
        for address in addresses:
            _check_port_is_free(address)
        host = Host(
            key_pair=self._key_pair,
            addresses=addresses,
            limits=self._limits,
            hello=self._hello,
            jitter=random.Random(self._random.random()),
            peers=self._peers.values(),
            start_delivery=self._start_delivery,
            relaying=self._relaying,
        )
        try:
            await host.thread.start()
        except OSError as error:
            raise TransportError(f"can't listen on {', '.join(addresses)}: {error}") from error
        self._host = host
        return host

    async def _stop_host(self, host: Host) -> None:
        host.thread.cancel()
        try:
            async with asyncio.timeout(self._limits.stop_timeout_s):
                await host.thread.ended()
        except TimeoutError:
            # A daemon thread: what it still holds ends with the process.
            _log.warning("federation_thread_did_not_end", timeout_s=self._limits.stop_timeout_s)

    async def _supervise(self, host: Host) -> None:
        """Start libp2p anew, at the same addresses, whenever its run has ended."""
        while True:
            error = await host.thread.ended()
            self._restart_count += 1
            _log.warning("federation_thread_restarts", error=repr(error), task_count=host.task_count)
            for peer in self._peers.values():
                peer.is_connected = False
            while True:
                try:
                    host = await self._start_host(self._bound_addresses)
                    break
                except TransportError as refused:
                    _log.warning("federation_thread_start_failed", error=str(refused))
                    await asyncio.sleep(HOST_RESTART_S)

    def _start_delivery(self, peer_id: PeerId, messages: tuple[bytes, ...]) -> asyncio.Task[None]:
        """Hand messages to the layer above. On the asyncio loop."""
        assert self._deliver is not None
        delivery = asyncio.ensure_future(self._deliver(peer_id, messages))
        assert isinstance(delivery, asyncio.Task)
        self._deliveries.add(delivery)
        delivery.add_done_callback(self._deliveries.discard)
        if self._supervisor is None:
            delivery.cancel()
        return delivery


def _check_port_is_free(address: str) -> None:
    """Refuse a port at which another process listens; libp2p would share it silently.

    Raises:
        TransportError: the address is in use or can't be bound.
    """
    bare = Multiaddr(address)
    family = socket.AF_INET6 if "ip6" in [protocol.name for protocol in bare.protocols()] else socket.AF_INET
    host = bare.value_for_protocol("ip6" if family == socket.AF_INET6 else "ip4")
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(bare.value_for_protocol("tcp"))))
        except OSError as error:
            raise TransportError(f"can't listen on {address}: {error}") from error
