# SPDX-License-Identifier: AGPL-3.0-or-later
"""Through a relay: circuit relay v2, for nodes behind NAT and those who want to reach them.

A node that nobody can dial keeps a connection to a relay and *reserves* there; whoever wants to reach it asks the relay
to *connect* the two. What then passes is a connection of its own, secured from end to end: the relay sees who speaks
with whom, how much and when, and nothing else. We take circuits from the relays that the operator named, and from
partners alone.

Source: libp2p/specs, relay/circuit-v2.md. How we serve as one: `libp2p_relay`.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterable
from typing import Any, Final, cast

import structlog
import trio
from libp2p.abc import IHost, INetStream
from libp2p.connection_types import ConnectionType
from libp2p.custom_types import TProtocol
from libp2p.io.abc import ReadWriteCloser
from libp2p.io.exceptions import IOException
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from libp2p.relay.circuit_v2.pb.circuit_pb2 import HopMessage, StopMessage
from libp2p.relay.circuit_v2.pb.circuit_pb2 import PeerId as CircuitPeer
from libp2p.relay.circuit_v2.protocol_buffer import StatusCode, to_proto_status
from libp2p.relay.circuit_v2.utils import read_delimited_msg, write_delimited_msg
from libp2p.stream_muxer.yamux.yamux import Yamux
from multiaddr import Multiaddr

from ecot_node.federation.libp2p_swarm import swarm_of
from ecot_node.federation.multiaddrs import CIRCUIT
from ecot_node.federation.port import TransportLimits

HOP: Final = TProtocol("/libp2p/circuit/relay/0.2.0/hop")
STOP: Final = TProtocol("/libp2p/circuit/relay/0.2.0/stop")
MESSAGE_TIMEOUT_S: Final = 10.0
WATCH_INTERVAL_S: Final = 1.0

IsPartner = Callable[[str], bool]

_log = structlog.get_logger(__name__)


class RelayRefused(Exception):
    """The relay, or the peer behind it, has said no.

    Attributes:
        code: lower-case name of the status, such as ``no_reservation``.
    """

    def __init__(self, status: int) -> None:
        self.code = StatusCode(status).name.lower() if status in {*StatusCode} else f"status_{status}"
        super().__init__(self.code)


def split_circuit(address: str) -> tuple[str, str]:
    """Return (address of the relay, its peer id) of ``<address>/p2p/<id>/p2p-circuit``; see `multiaddrs`."""
    bare, _, relay = address.removesuffix(CIRCUIT).rpartition("/p2p/")
    return bare, relay


class CircuitStream(ReadWriteCloser):
    """A stream through a relay, as the bytes of a connection of its own."""

    def __init__(self, stream: INetStream) -> None:
        self._stream = stream

    async def read(self, n: int | None = None) -> bytes:
        """Return what there is; nothing once the relay or the other end has ended the circuit."""
        try:
            return await self._stream.read(n)
        except Exception:  # noqa: BLE001 - the library raises many unrelated types for one thing
            return b""

    async def write(self, data: bytes) -> None:
        """Write; raises `IOException` once the circuit has ended."""
        try:
            await self._stream.write(data)
        except Exception as error:
            raise IOException("the circuit has ended") from error

    async def close(self) -> None:
        """End the circuit: a stream that is closed, and not reset, stays half open on both sides."""
        with contextlib.suppress(Exception):
            await self._stream.reset()

    def get_remote_address(self) -> tuple[str, int] | None:
        """The relay does not say where the other end is."""
        return None


def _circuit_connection(stream: INetStream, relay: ID, *, is_initiator: bool) -> RawConnection:
    address = Multiaddr(f"/p2p/{relay}{CIRCUIT}")
    return RawConnection(CircuitStream(stream), is_initiator, ConnectionType.RELAYED, [address])


async def connect_to_relay(host: IHost, address: str, relay: ID) -> None:
    """Connect to a relay unless we are connected. Raises what the library raises."""
    if not host.get_network().get_connections(relay):
        swarm_of(host).unblock_peer(relay)  # the library would refuse for a minute after a failure
        await host.connect(PeerInfo(relay, [Multiaddr(address)]))


async def dial_through(host: IHost, address: str, peer_id: ID) -> None:
    """Connect to a peer through a relay, end to end.

    Args:
        host: ours.
        address: ``<address of the relay>/p2p/<its id>/p2p-circuit``.
        peer_id: of the peer, which the secured connection proves.

    Raises:
        RelayRefused: the relay has no reservation of the peer, or won't serve us.
    """
    bare, relay_name = split_circuit(address)
    relay = ID.from_base58(relay_name)
    await connect_to_relay(host, bare, relay)
    stream = await host.new_stream(relay, [HOP])
    try:
        await write_delimited_msg(stream, HopMessage(type=HopMessage.CONNECT, peer=CircuitPeer(id=peer_id.to_bytes())))
        _check_status(await read_delimited_msg(stream, HopMessage))
        await host.upgrade_outbound_connection(_circuit_connection(stream, relay, is_initiator=True), peer_id)
    except BaseException:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 1.0), contextlib.suppress(Exception):
            await stream.reset()
        raise


async def reserve(host: IHost, relay: ID) -> float:
    """Reserve at a relay to which we are connected.

    Returns:
        For how many seconds.

    Raises:
        RelayRefused: it won't.
    """
    stream = await host.new_stream(relay, [HOP])
    try:
        await write_delimited_msg(stream, HopMessage(type=HopMessage.RESERVE))
        answer = await read_delimited_msg(stream, HopMessage)
        _check_status(answer)
        return max(0.0, answer.reservation.expire - time.time())
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 1.0), contextlib.suppress(Exception):
            await stream.reset()


def _check_status(message: Any) -> None:
    if message.type != HopMessage.STATUS or message.status != StatusCode.OK:
        raise RelayRefused(message.status)


class CircuitAcceptor:
    """Takes circuits that our relays bring.

    Args:
        host: ours.
        relays: peer ids of the relays that the operator named.
        is_partner: tells whether somebody may reach us.
    """

    def __init__(self, host: IHost, relays: frozenset[str], is_partner: IsPartner) -> None:
        self._host, self._relays, self._is_partner = host, relays, is_partner

    async def accept(self, stream: INetStream) -> None:
        """Handle a stream of the stop protocol; never raises."""
        try:
            await self._accept(stream)
        except Exception as error:  # noqa: BLE001 - whatever comes over the network ends this circuit alone
            _log.debug("circuit_failed", error=repr(error))
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1.0), contextlib.suppress(Exception):
                await stream.reset()

    async def _accept(self, stream: INetStream) -> None:
        relay = stream.muxed_conn.peer_id
        with trio.fail_after(MESSAGE_TIMEOUT_S):
            asked = await read_delimited_msg(stream, StopMessage)
        source = str(ID(asked.peer.id)) if asked.peer.id else ""
        is_welcome = str(relay) in self._relays and asked.type == StopMessage.CONNECT and self._is_partner(source)
        status = StatusCode.OK if is_welcome else StatusCode.PERMISSION_DENIED
        with trio.fail_after(MESSAGE_TIMEOUT_S):
            await write_delimited_msg(stream, StopMessage(type=StopMessage.STATUS, status=to_proto_status(status)))
        if not is_welcome:
            await trio.sleep(0.5)  # a reset could overtake the answer
            return
        raw = _circuit_connection(stream, relay, is_initiator=False)
        muxed = await self._host.upgrade_inbound_connection(raw, raw.get_transport_addresses()[0])
        await cast(Yamux, muxed).event_closed.wait()


class Reservations:
    """Keeps a node connected to its relays and reserved there.

    Args:
        host: ours.
        relays: ``<address>/p2p/<peer id>`` of each.
        limits: of dialling and of back-off.
        jitter: of the back-off.
    """

    def __init__(self, host: IHost, relays: Iterable[str], limits: TransportLimits, jitter: random.Random) -> None:
        self._host, self._limits, self._random = host, limits, jitter
        self._relays = [split_circuit(one + CIRCUIT) for one in relays]
        self.names = frozenset(name for _, name in self._relays)
        self.reserved: set[str] = set()

    async def run(self) -> None:
        """Keep all of them, until cancelled."""
        async with trio.open_nursery() as nursery:
            for bare, name in self._relays:
                nursery.start_soon(self._keep, bare, name)

    async def _keep(self, bare: str, name: str) -> None:
        relay, failure_count = ID.from_base58(name), 0
        while True:
            lasts_s = await self._reserve(bare, relay)
            failure_count = failure_count + 1 if lasts_s is None else 0
            if lasts_s is None:
                self.reserved.discard(name)
                await trio.sleep(self._limits.back_off_s(failure_count, self._random))
                continue
            self.reserved.add(name)
            # Renewed at half its time; a connection that is lost takes the way to us with it.
            with trio.move_on_after(lasts_s / 2):
                while self._host.get_network().get_connections(relay):  # noqa: ASYNC110 - the library has no event
                    await trio.sleep(WATCH_INTERVAL_S)
                self.reserved.discard(name)
            await trio.sleep(self._limits.back_off_s(1, self._random))

    async def _reserve(self, bare: str, relay: ID) -> float | None:
        try:
            with trio.fail_after(self._limits.dial_timeout_s):
                await connect_to_relay(self._host, bare, relay)
                return await reserve(self._host, relay)
        except Exception as error:  # noqa: BLE001 - the library raises many unrelated types for one thing
            _log.info("relay_not_reserved", relay=str(relay), error=str(error) or repr(error))
            return None
