# SPDX-License-Identifier: AGPL-3.0-or-later
"""One run of libp2p under trio: TCP, Noise and Yamux alone.

The defaults of the library also offer plaintext and mplex; neither is ever passed here. What the library does that this
module, ``libp2p_swarm`` and ``libp2p_host`` work around, all measured with 0.8.1:

- it never ends the task of an accepted connection (``libp2p_swarm`` does; should tasks pile up all the same, the thread
  is started anew);
- it listens with SO_REUSEPORT, so that two nodes on one port would share its connections without an error;
- it refuses for a minute to dial a peer that could not be reached once, and tries one address only of those it knows;
- it dials known peers by itself when it has few connections;
- it breaks a stream that could not write for five seconds because its reader did not read: hence the credit frames;
- it runs no keepalive; a read or a dial may wait for ever; a write that is cancelled spoils the whole connection.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable
from typing import Final

import structlog
import trio
from libp2p.abc import INetConn, INetStream
from libp2p.crypto.keys import KeyPair
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from ecot_node.federation.framing import Hello
from ecot_node.federation.libp2p_circuits import HOP, STOP, CircuitAcceptor, Reservations, dial_through, split_circuit
from ecot_node.federation.libp2p_relay import RelayServer
from ecot_node.federation.libp2p_swarm import (
    close_connection,
    close_strangers,
    make_host,
    offered_addresses,
    swarm_of,
)
from ecot_node.federation.multiaddrs import CIRCUIT
from ecot_node.federation.peer_limits import Bucket, Pace
from ecot_node.federation.port import PROTOCOL_ID, PeerId, PeerStatus, Relaying, TransportLimits
from ecot_node.federation.sending import SendQueue, Waiting, fail, succeed
from ecot_node.federation.sessions import FrameStream, IncomingSession, OutgoingSession, SessionEnded
from ecot_node.federation.thread_bridge import TrioThread
from ecot_protocol.errors import RemoteProtocolError

PEER_HANDSHAKES_MAX: Final = 4
WATCH_INTERVAL_S: Final = 1.0
PEER_STREAMS: Final = Pace(per_second=0.5, burst=30)
"""Streams that one peer opens, and how often its call cuts our back-off short."""

StartDelivery = Callable[[PeerId, tuple[bytes, ...]], asyncio.Task[None]]

_log = structlog.get_logger(__name__)


class Peer:
    """Hold what we know of one peer. Its plain fields are written by the trio thread and read by asyncio."""

    def __init__(self, peer_id: PeerId, addresses: tuple[str, ...], limits: TransportLimits) -> None:
        self.peer_id = peer_id
        self.addresses = addresses
        self.queue = SendQueue(peer_id, limits)
        self.is_removed = False
        self.is_connected = False
        self.last_contact_s: float | None = None
        self.rtt_s: float | None = None
        self.error_count = 0
        self.last_error: str | None = None
        self.hello: Hello | None = None
        self.address: str | None = None
        self.offered: tuple[str, ...] = ()

    def touch(self) -> None:
        self.last_contact_s = time.monotonic()

    def set_rtt(self, rtt_s: float) -> None:
        self.rtt_s = rtt_s

    def count_error(self, code: str) -> None:
        self.error_count += 1
        self.last_error = code

    def status(self) -> PeerStatus:
        age_s = None if self.last_contact_s is None else time.monotonic() - self.last_contact_s
        return PeerStatus(
            is_connected=self.is_connected,
            last_contact_age_ms=None if age_s is None else int(age_s * 1000),
            queued_count=len(self.queue),
            rtt_ms=None if self.rtt_s is None else self.rtt_s * 1000,
            error_count=self.error_count,
            last_error=self.last_error,
            hello=self.hello,
            address=self.address,
            offered=self.offered,
        )


class _PeerRun:
    """Hold what one run of libp2p keeps for a peer; of the trio thread alone."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.scope = trio.CancelScope()
        self.outgoing: OutgoingSession | None = None
        self.retry_now = trio.Event()
        self.dial_count = 0
        self.stream_paces = Bucket(PEER_STREAMS)
        self.handshake_count = 0
        self.incoming_scope: trio.CancelScope | None = None
        self.incoming_lock = trio.Lock()


class Host:
    """Run libp2p once, from its start to its end. The methods that asyncio calls say so."""

    def __init__(
        self,
        *,
        key_pair: KeyPair,
        addresses: tuple[str, ...],
        limits: TransportLimits,
        hello: bytes,
        jitter: random.Random,
        peers: Iterable[Peer],
        start_delivery: StartDelivery,
        relaying: Relaying,
    ) -> None:
        self._limits = limits
        self._hello = hello
        self._wanted = addresses
        self._random = jitter
        self._start_delivery = start_delivery
        self._runs: dict[PeerId, _PeerRun] = {}
        self._unknown_stream_count = 0
        self._nursery: trio.Nursery | None = None
        self._first_peers = tuple(peers)
        self.listen_addresses: tuple[str, ...] = ()
        self.task_count = 0
        self.thread = TrioThread(self._main, "federation")
        self._libp2p = make_host(key_pair, addresses, limits.connections_max)
        self.reservations = Reservations(self._libp2p, relaying.relays, limits, jitter)
        self.relay = RelayServer(self._libp2p, relaying.serves, self._is_peer) if relaying.serves is not None else None

    def add_peer(self, peer: Peer) -> None:
        """Begin to speak with a peer. From asyncio."""
        self.thread.to_trio(self._add_peer, peer)

    def remove_peer(self, peer: Peer) -> None:
        """End all with a peer. From asyncio."""
        self.thread.to_trio(self._remove_peer, peer)

    def wake(self, peer_id: PeerId) -> None:
        """Tell that something waits for a peer. From asyncio."""
        self.thread.to_trio(self._wake, peer_id)

    def retry(self, peer_id: PeerId) -> None:
        """Cut the back-off of a peer short, since its addresses have changed. From asyncio."""
        self.thread.to_trio(self._retry, peer_id)

    async def _main(self, thread: TrioThread) -> None:
        self._set_handlers()
        listen = [Multiaddr(address) for address in self._wanted]
        async with self._libp2p.run(listen_addrs=listen):
            # The library would otherwise dial the peers of its store by itself. Nothing is in its store yet.
            await swarm_of(self._libp2p).auto_connector.stop()
            bound = self._libp2p.get_transport_addrs()
            if len(bound) < len(listen):
                raise OSError("the address is in use or not ours")
            self.listen_addresses = tuple(f"{address}/p2p/{self._libp2p.get_id()}" for address in bound)
            try:
                await self._run_streams(thread)
            finally:
                # Sockets that the thread leaves open would stay open with the process.
                await self._close_all_connections()

    async def _run_streams(self, thread: TrioThread) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for peer in self._first_peers:
                self._add_peer(peer)
            nursery.start_soon(self.reservations.run)
            thread.ready()
            await self._watch()
            nursery.cancel_scope.cancel()

    async def _watch(self) -> None:
        """Send strangers away, note what peers offer; return when the run holds more tasks than it may."""
        while True:
            self.task_count = trio.lowlevel.current_statistics().tasks_living
            if self.task_count > self._limits.host_tasks_max:
                return
            await close_strangers(self._libp2p, self._expected())
            for peer_id, run in self._runs.items():
                if run.peer.is_connected:
                    run.peer.offered = offered_addresses(self._libp2p, peer_id, self._connection_of(peer_id))
            await trio.sleep(WATCH_INTERVAL_S)

    def _set_handlers(self) -> None:
        self._libp2p.set_stream_handler(TProtocol(PROTOCOL_ID), self._accept)
        if self.relay is not None:
            self._libp2p.set_stream_handler(HOP, self.relay.serve)
        if self.reservations.names:
            acceptor = CircuitAcceptor(self._libp2p, self.reservations.names, self._is_peer)
            self._libp2p.set_stream_handler(STOP, acceptor.accept)

    def _is_peer(self, peer_id: str) -> bool:
        return PeerId(peer_id) in self._runs

    def _expected(self) -> set[str]:
        """Return whose connections stay: partners, and relays that we use, our own or those of a partner."""
        used = {split_circuit(one)[1] for run in self._runs.values() for one in run.peer.addresses if CIRCUIT in one}
        return {*self._runs, *self.reservations.names, *used}

    def _connection_of(self, peer_id: PeerId) -> INetConn | None:
        return next(iter(self._libp2p.get_network().get_connections(ID.from_base58(peer_id))), None)

    def _add_peer(self, peer: Peer) -> None:
        if peer.is_removed or peer.peer_id in self._runs or self._nursery is None:
            return
        self._runs[peer.peer_id] = run = _PeerRun(peer)
        self._nursery.start_soon(self._keep_connected, run)

    def _remove_peer(self, peer: Peer) -> None:
        run = self._runs.pop(peer.peer_id, None)
        if run is None:
            return
        run.scope.cancel()
        if run.incoming_scope is not None:
            run.incoming_scope.cancel()

    def _retry(self, peer_id: PeerId) -> None:
        if peer_id in self._runs:
            self._runs[peer_id].retry_now.set()

    def _wake(self, peer_id: PeerId) -> None:
        run = self._runs.get(peer_id)
        if run is not None and run.outgoing is not None:
            run.outgoing.wake()

    # ------------------------------------------------------------------------------------- the stream that we open

    async def _keep_connected(self, run: _PeerRun) -> None:
        """Keep one stream to the peer open until it is removed; then close the connection."""
        with run.scope:
            await self._reconnect(run)
        await self._close_connections(run.peer.peer_id)

    async def _reconnect(self, run: _PeerRun) -> None:
        """Connect to the peer again and again, with back-off, until cancelled."""
        failure_count = 0
        while True:
            await self._wait_until_dialable(run)
            began_s = trio.current_time()
            await self._connect_once(run)
            # A peer that is there and gone again, again and again, is no better than one that is not there.
            was_stable = trio.current_time() - began_s >= self._limits.stable_after_s
            failure_count = 1 if was_stable else failure_count + 1
            await self._back_off(run, failure_count)

    async def _wait_until_dialable(self, run: _PeerRun) -> None:
        """Wait, while we know no address of the peer, until it calls us or an address is set."""
        while not run.peer.addresses and self._connection_of(run.peer.peer_id) is None:
            run.retry_now = trio.Event()
            await run.retry_now.wait()

    async def _back_off(self, run: _PeerRun, failure_count: int) -> None:
        delay_s = self._limits.back_off_s(failure_count, self._random)
        first_s = min(delay_s, self._limits.reconnect_first_s)
        run.retry_now = trio.Event()
        await trio.sleep(first_s)
        # A peer that has called us meanwhile is back: no need to wait to the end.
        with trio.move_on_after(delay_s - first_s):
            await run.retry_now.wait()

    async def _connect_once(self, run: _PeerRun) -> None:
        """Open our stream and use it to its end."""
        peer = run.peer
        stream: FrameStream | None = None
        goodbye: str | None = "stopping"
        spoilt = False
        try:
            stream, address = await self._open_stream(run)
            session = self._make_session(peer, stream)
            peer.hello = await session.greet(self._hello)
            run.outgoing, peer.is_connected = session, True
            # The next attempt begins where this one succeeded.
            peer.address, run.dial_count = address or peer.address, 0
            await session.run()
        except SessionEnded as end:
            peer.count_error(end.code)
            goodbye, spoilt = None, end.is_connection_spoilt
        except RemoteProtocolError as error:
            peer.count_error(error.code)
            goodbye = error.code
        finally:
            run.outgoing, peer.is_connected = None, False
            if stream is not None:
                await stream.end(goodbye)
            if spoilt or (stream is not None and stream.is_write_broken):
                await self._close_connections(peer.peer_id)

    def _next_address(self, run: _PeerRun) -> str | None:
        """Return the address whose turn it is, where the peer last answered first; None if we know none."""
        known = sorted(run.peer.addresses, key=lambda one: one != run.peer.address)
        run.dial_count += 1
        return known[(run.dial_count - 1) % len(known)] if known else None

    async def _open_stream(self, run: _PeerRun) -> tuple[FrameStream, str | None]:
        """Open our stream; answer the address that was dialled for it, None if there was a connection already."""
        peer, peer_id = run.peer, ID.from_base58(run.peer.peer_id)
        store = self._libp2p.get_peerstore()
        address = self._next_address(run) if self._connection_of(peer.peer_id) is None else None
        try:
            with trio.fail_after(self._limits.dial_timeout_s):
                # One address an attempt, in turn: the library would try the first of a kind only. Identify may have
                # added others, which nobody has vouched for.
                swarm_of(self._libp2p).unblock_peer(peer_id)
                if address is not None:
                    store.clear_addrs(peer_id)
                if address is not None and CIRCUIT in address:
                    await dial_through(self._libp2p, address, peer_id)
                elif address is not None:
                    store.add_addrs(peer_id, [Multiaddr(address)], 3600)
                stream = await self._libp2p.new_stream(peer_id, [TProtocol(PROTOCOL_ID)])
        except trio.TooSlowError as error:
            raise SessionEnded("dial_timeout", is_connection_spoilt=True) from error
        except Exception as error:
            # The library raises many unrelated types here; all mean the same to us.
            _log.debug("federation_dial_failed", peer_id=peer.peer_id, error=repr(error))
            raise SessionEnded("dial_failed") from error
        is_dialled = address is not None and stream.muxed_conn.is_initiator
        return FrameStream(stream, self._limits, peer.touch), address if is_dialled else None

    def _make_session(self, peer: Peer, stream: FrameStream) -> OutgoingSession:
        def on_written(batch: list[Waiting]) -> None:
            self.thread.to_asyncio(succeed, batch)

        def on_failed(batch: list[Waiting]) -> None:
            self.thread.to_asyncio(fail, batch, peer.peer_id, "stream_broken")

        return OutgoingSession(
            stream, peer.queue, self._limits, on_written=on_written, on_failed=on_failed, on_rtt=peer.set_rtt
        )

    async def _close_connections(self, peer_id: PeerId) -> None:
        """Close all connections with a peer, within a second or two, cancelled or not."""
        for connection in list(self._libp2p.get_network().get_connections(ID.from_base58(peer_id))):
            await close_connection(connection)

    async def _close_all_connections(self) -> None:
        async with trio.open_nursery() as nursery:
            for peer_id in list(self._libp2p.get_network().get_connections_map()):
                nursery.start_soon(self._close_connections, PeerId(str(peer_id)))

    # ----------------------------------------------------------------------------------- the streams that peers open

    async def _accept(self, libp2p_stream: INetStream) -> None:
        """Handle a stream that somebody opened. Must not raise: libp2p would end the connection's other streams."""
        peer_id = PeerId(str(libp2p_stream.muxed_conn.peer_id))
        run = self._runs.get(peer_id)
        stream = FrameStream(libp2p_stream, self._limits, run.peer.touch if run else _ignore)
        goodbye: str | None = "stopping"
        try:
            await (self._accept_unknown(stream) if run is None else self._accept_peer(run, stream))
        except SessionEnded as end:
            goodbye = end.code
        except RemoteProtocolError as error:
            goodbye = error.code
            _log.warning("federation_peer_broke_framing", peer_id=peer_id, code=error.code, detail=error.detail)
            if run is not None:
                run.peer.count_error(error.code)
        finally:
            await stream.end(goodbye)
            if stream.is_write_broken:
                await self._close_connections(peer_id)

    async def _accept_unknown(self, stream: FrameStream) -> None:
        if self._unknown_stream_count >= self._limits.unknown_streams_max:
            raise SessionEnded("too_many_streams")
        self._unknown_stream_count += 1
        try:
            await stream.receive_hello()
        finally:
            self._unknown_stream_count -= 1
        raise SessionEnded("unknown_peer")

    async def _accept_peer(self, run: _PeerRun, stream: FrameStream) -> None:
        if run.handshake_count >= PEER_HANDSHAKES_MAX or not run.stream_paces.take(trio.current_time()):
            raise SessionEnded("too_many_streams")
        with trio.CancelScope() as scope:
            run.handshake_count += 1
            try:
                await stream.receive_hello()
                # The newest stream holds: the older one may be of a process that is gone.
                if run.incoming_scope is not None:
                    run.incoming_scope.cancel()
                run.incoming_scope = scope
                await run.incoming_lock.acquire()
            finally:
                run.handshake_count -= 1
            try:
                await stream.write(self._hello)
                run.retry_now.set()
                await IncomingSession(stream, lambda messages: self._deliver(run.peer, messages)).run()
            finally:
                run.incoming_lock.release()
        raise SessionEnded("stream_replaced" if run.peer.peer_id in self._runs else "unknown_peer")

    async def _deliver(self, peer: Peer, messages: tuple[bytes, ...]) -> None:
        try:
            await self.thread.await_asyncio(lambda: self._start_delivery(peer.peer_id, messages))
        except asyncio.CancelledError as error:
            raise SessionEnded("stopping") from error
        except Exception as error:
            _log.exception("federation_delivery_failed", peer_id=peer.peer_id)
            peer.count_error("delivery_failed")
            raise SessionEnded("delivery_failed") from error


def _ignore() -> None:
    return
