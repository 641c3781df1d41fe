# SPDX-License-Identifier: AGPL-3.0-or-later
"""One run of libp2p under trio: TCP, Noise and Yamux alone.

The defaults of the library also offer plaintext and mplex; neither is ever passed here. What the library does that this
module and ``libp2p_host`` work around, all measured with 0.8.1:

- it never ends the task of an accepted connection: the thread is started anew when it counts too many tasks;
- it listens with SO_REUSEPORT, so that two nodes on one port would share its connections without an error;
- it refuses for a minute to dial a peer that could not be reached once, and tries one address only of those it knows;
- it dials known peers by itself when it has few connections;
- it breaks a stream that could not write for five seconds because its reader did not read: hence the credit frames;
- it runs no keepalive; a read or a dial may wait for ever; a write that is cancelled spoils the whole connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Iterable
from typing import Final, cast

import structlog
import trio
from libp2p import new_host
from libp2p.abc import IHost, INetStream
from libp2p.crypto.keys import KeyPair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.custom_types import TProtocol
from libp2p.network.config import ConnectionConfig
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_ID
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX_ID
from libp2p.stream_muxer.yamux.yamux import Yamux
from multiaddr import Multiaddr

from ecot_node.federation.framing import Hello
from ecot_node.federation.port import PROTOCOL_ID, PeerId, PeerStatus, TransportLimits
from ecot_node.federation.sending import SendQueue, Waiting, fail, succeed
from ecot_node.federation.sessions import FrameStream, IncomingSession, OutgoingSession, SessionEnded
from ecot_node.federation.thread_bridge import TrioThread
from ecot_protocol.errors import RemoteProtocolError

PEER_HANDSHAKES_MAX: Final = 4
WATCH_INTERVAL_S: Final = 1.0
CONNECTIONS_MAX: Final = 300

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
        )


class _PeerRun:
    """Hold what one run of libp2p keeps for a peer; of the trio thread alone."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.scope = trio.CancelScope()
        self.outgoing: OutgoingSession | None = None
        self.retry_now = trio.Event()
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
        self._libp2p = _make_host(key_pair, addresses)

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
        self._libp2p.set_stream_handler(TProtocol(PROTOCOL_ID), self._accept)
        listen = [Multiaddr(address) for address in self._wanted]
        async with self._libp2p.run(listen_addrs=listen):
            # The library would otherwise dial the peers of its store by itself. Nothing is in its store yet.
            await cast(Swarm, self._libp2p.get_network()).auto_connector.stop()
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
            thread.ready()
            await self._watch_tasks()
            nursery.cancel_scope.cancel()

    async def _watch_tasks(self) -> None:
        """Return when the run holds more tasks than it may: the library never ends those of accepted connections."""
        while True:
            self.task_count = trio.lowlevel.current_statistics().tasks_living
            if self.task_count > self._limits.host_tasks_max:
                return
            await trio.sleep(WATCH_INTERVAL_S)

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
            was_connected = await self._connect_once(run, failure_count)
            failure_count = 1 if was_connected else failure_count + 1
            await self._back_off(run, failure_count)

    async def _wait_until_dialable(self, run: _PeerRun) -> None:
        """Wait, while we know no address of the peer, until it calls us or an address is set."""
        connections_of = self._libp2p.get_network().get_connections
        while not run.peer.addresses and not connections_of(ID.from_base58(run.peer.peer_id)):
            run.retry_now = trio.Event()
            await run.retry_now.wait()

    async def _back_off(self, run: _PeerRun, failure_count: int) -> None:
        longest_s = min(self._limits.reconnect_max_s, self._limits.reconnect_first_s * 2 ** min(failure_count - 1, 30))
        delay_s = longest_s * self._random.uniform(0.5, 1.0)
        first_s = min(delay_s, self._limits.reconnect_first_s)
        run.retry_now = trio.Event()
        await trio.sleep(first_s)
        # A peer that has called us meanwhile is back: no need to wait to the end.
        with trio.move_on_after(delay_s - first_s):
            await run.retry_now.wait()

    async def _connect_once(self, run: _PeerRun, attempt: int) -> bool:
        """Open our stream and use it to its end.

        Returns:
            Whether the peer had answered our hello.
        """
        peer = run.peer
        was_connected = False
        stream: FrameStream | None = None
        goodbye: str | None = "stopping"
        spoilt = False
        try:
            stream = await self._open_stream(peer, attempt)
            session = self._make_session(peer, stream)
            peer.hello = await session.greet(self._hello)
            run.outgoing, peer.is_connected, was_connected = session, True, True
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
        return was_connected

    async def _open_stream(self, peer: Peer, attempt: int) -> FrameStream:
        peer_id = ID.from_base58(peer.peer_id)
        store = self._libp2p.get_peerstore()
        try:
            with trio.fail_after(self._limits.dial_timeout_s):
                # One address an attempt, in turn: the library would try the first of a kind only. Identify may have
                # added others, which nobody has vouched for.
                store.clear_addrs(peer_id)
                if peer.addresses:
                    address = Multiaddr(peer.addresses[attempt % len(peer.addresses)])
                    store.add_addrs(peer_id, [address], 3600)
                cast(Swarm, self._libp2p.get_network()).unblock_peer(peer_id)
                stream = await self._libp2p.new_stream(peer_id, [TProtocol(PROTOCOL_ID)])
        except trio.TooSlowError as error:
            raise SessionEnded("dial_timeout", is_connection_spoilt=True) from error
        except Exception as error:
            # The library raises many unrelated types here; all mean the same to us.
            _log.debug("federation_dial_failed", peer_id=peer.peer_id, error=repr(error))
            raise SessionEnded("dial_failed") from error
        return FrameStream(stream, self._limits, peer.touch)

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
        connections = list(self._libp2p.get_network().get_connections(ID.from_base58(peer_id)))
        for connection in connections:
            scope = trio.CancelScope(shield=True, deadline=trio.current_time() + 1.0)
            with scope, contextlib.suppress(Exception):
                await connection.close()
            if scope.cancelled_caught:
                # Its goodbye could not be written. Closing a socket needs no wait, and the task that reads it ends
                # the rest.
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 0.1), contextlib.suppress(Exception):
                    await cast(Yamux, connection.muxed_conn).secured_conn.close()

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
        if run.handshake_count >= PEER_HANDSHAKES_MAX:
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


def _make_host(key_pair: KeyPair, addresses: tuple[str, ...]) -> IHost:
    # The library's own connecting and pruning is switched off: no peer is dialled but by ``_keep_connected``.
    config = ConnectionConfig(
        min_connections=0, low_watermark=0, high_watermark=CONNECTIONS_MAX, max_connections=CONNECTIONS_MAX
    )
    noise = NoiseTransport(key_pair, noise_privkey=create_noise_key_pair().private_key)
    return new_host(
        key_pair=key_pair,
        listen_addrs=[Multiaddr(address) for address in addresses],
        sec_opt={NOISE_ID: noise},
        muxer_opt={TProtocol(YAMUX_ID): Yamux},
        connection_config=config,
        disable_identify_address_discovery=True,
    )
