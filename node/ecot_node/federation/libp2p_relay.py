# SPDX-License-Identifier: AGPL-3.0-or-later
"""A relay between our partners: circuit relay v2.

We serve partners alone: both ends must be partners of ours. We dial nobody for others: whoever has reserved must be
connected. Reservations, circuits, bytes and idle time are bounded. What passes is secured from end to end.

The messages are those of the library. Its own relay is not used (0.8.1): it takes reservations in the name of others,
it serves everybody, and the end of one circuit to a peer ends the others.

Source: libp2p/specs, relay/circuit-v2.md. How a relay is used: `libp2p_circuits`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import structlog
import trio
from libp2p.abc import IHost, INetStream
from libp2p.peer.id import ID
from libp2p.relay.circuit_v2.pb.circuit_pb2 import HopMessage, Limit, Reservation, StopMessage
from libp2p.relay.circuit_v2.pb.circuit_pb2 import PeerId as CircuitPeer
from libp2p.relay.circuit_v2.protocol_buffer import StatusCode, to_proto_status
from libp2p.relay.circuit_v2.utils import read_delimited_msg, write_delimited_msg

from ecot_node.federation.libp2p_circuits import MESSAGE_TIMEOUT_S, STOP, IsPartner, RelayRefused
from ecot_node.federation.libp2p_swarm import close_connection
from ecot_node.federation.multiaddrs import CIRCUIT
from ecot_node.federation.port import RelayLimits

WRITE_TIMEOUT_S: Final = 10.0
CHUNK_BYTES: Final = 64 * 1024
IDLE_LOOKS: Final = 4
"""How often a circuit's idle time is looked at while it lasts."""

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Circuit:
    """What is left of one circuit: `budget_bytes` both ways together, None for no end; when it last carried any."""

    budget_bytes: int | None
    active_at_s: float

    def carry(self, size_bytes: int) -> bool:
        """Count bytes; False if they are too many."""
        self.active_at_s = trio.current_time()
        if self.budget_bytes is None:
            return True
        self.budget_bytes -= size_bytes
        return self.budget_bytes >= 0


class RelayServer:
    """Relays between partners.

    Args:
        host: ours.
        limits: of reservations and circuits.
        is_partner: tells whom we serve.
    """

    def __init__(self, host: IHost, limits: RelayLimits, is_partner: IsPartner) -> None:
        self._host, self._limits, self._is_partner = host, limits, is_partner
        self._reserved_until: dict[str, float] = {}
        self._ends: list[str] = []

    @property
    def circuit_count(self) -> int:
        """Circuits that stand."""
        return len(self._ends) // 2

    async def serve(self, stream: INetStream) -> None:
        """Handle a stream of the hop protocol; never raises."""
        try:
            await self._serve(stream)
        except Exception as error:  # noqa: BLE001 - whatever comes over the network ends this stream alone
            _log.debug("relay_failed", error=repr(error))
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1.0), contextlib.suppress(Exception):
                await stream.reset()

    async def _serve(self, stream: INetStream) -> None:
        source = str(stream.muxed_conn.peer_id)
        with trio.fail_after(MESSAGE_TIMEOUT_S):
            asked = await read_delimited_msg(stream, HopMessage)
        # The spec: a relay refuses what comes over a relay.
        if not self._is_partner(source) or _is_relayed(stream):
            await self._answer(stream, StatusCode.PERMISSION_DENIED)
        elif asked.type == HopMessage.RESERVE:
            await self._reserve(stream, source)
        elif asked.type == HopMessage.CONNECT:
            await self._connect(stream, source, ID(asked.peer.id))
        else:
            await self._answer(stream, StatusCode.UNEXPECTED_MESSAGE)

    async def _reserve(self, stream: INetStream, peer: str) -> None:
        self._forget_expired()
        if peer not in self._reserved_until and len(self._reserved_until) >= self._limits.reservations_max:
            await self._answer(stream, StatusCode.RESERVATION_REFUSED)
            return
        self._reserved_until[peer] = until = time.time() + self._limits.reservation_s
        _log.info("relay_reserved", peer_id=peer)
        await self._answer(stream, StatusCode.OK, Reservation(expire=int(until)))

    async def _connect(self, source_stream: INetStream, source: str, target: ID) -> None:
        problem = self._find_problem(source, target)
        if problem is not None:
            await self._answer(source_stream, problem)
            return
        ends = [source, str(target)]
        self._ends += ends
        try:
            async with self._reach(source_stream, source, target) as target_stream:
                if target_stream is not None:
                    await self._carry(source_stream, target_stream)
        finally:
            for one in ends:
                self._ends.remove(one)

    def _find_problem(self, source: str, target: ID) -> StatusCode | None:
        self._forget_expired()
        is_here = bool(self._host.get_network().get_connections(target))
        if not self._is_partner(str(target)) or str(target) not in self._reserved_until or not is_here:
            return StatusCode.NO_RESERVATION
        of_peer_max, all_max = self._limits.circuits_of_peer_max, self._limits.circuits_max
        if self.circuit_count >= all_max or max(map(self._ends.count, (source, str(target)))) >= of_peer_max:
            return StatusCode.RESOURCE_LIMIT_EXCEEDED
        return None

    @asynccontextmanager
    async def _reach(self, source_stream: INetStream, source: str, target: ID) -> AsyncIterator[INetStream | None]:
        """Open a stream to the target and tell the source; None if the target will not."""
        stream: INetStream | None = None
        try:
            with trio.fail_after(MESSAGE_TIMEOUT_S):
                stream = await self._host.new_stream(target, [STOP])
                asked = StopMessage(
                    type=StopMessage.CONNECT,
                    peer=CircuitPeer(id=ID.from_base58(source).to_bytes()),
                    limit=self._limit(),
                )
                await write_delimited_msg(stream, asked)
                answer = await read_delimited_msg(stream, StopMessage)
            if answer.type != StopMessage.STATUS or int(answer.status) != StatusCode.OK:
                raise RelayRefused(answer.status)
            await self._answer(source_stream, StatusCode.OK)
        except Exception as error:  # noqa: BLE001 - see `serve`
            _log.debug("relay_target_failed", error=repr(error))
            await self._answer(source_stream, StatusCode.CONNECTION_FAILED)
            yield None
        else:
            yield stream
        finally:
            if stream is not None:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 1.0), contextlib.suppress(Exception):
                    await stream.reset()

    async def _carry(self, one: INetStream, other: INetStream) -> None:
        """Carry bytes both ways until an end, a limit or idleness ends the circuit."""
        mib = self._limits.circuit_mib
        circuit = _Circuit(mib * 1024 * 1024 if mib else None, trio.current_time())

        async def until_end(work: Callable[[], Awaitable[None]]) -> None:
            await work()
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(until_end, lambda: self._copy(one, other, circuit))
            nursery.start_soon(until_end, lambda: self._copy(other, one, circuit))
            nursery.start_soon(until_end, lambda: self._watch_idle(circuit))

    async def _copy(self, source: INetStream, target: INetStream, circuit: _Circuit) -> None:
        with contextlib.suppress(Exception):  # either end may go at any time, in many ways
            while chunk := await source.read(CHUNK_BYTES):
                if not circuit.carry(len(chunk)):
                    return
                await self._write(target, chunk)

    async def _write(self, target: INetStream, chunk: bytes) -> None:
        # Not to be cancelled half-way: that would spoil the connection, on which a partner has streams of its own.
        scope = trio.CancelScope(shield=True, deadline=trio.current_time() + WRITE_TIMEOUT_S)
        with scope:
            await target.write(chunk)
        if scope.cancelled_caught:
            for connection in list(self._host.get_network().get_connections(target.muxed_conn.peer_id)):
                await close_connection(connection)

    async def _watch_idle(self, circuit: _Circuit) -> None:
        while trio.current_time() - circuit.active_at_s < self._limits.idle_s:  # noqa: ASYNC110 - time is what it waits for
            await trio.sleep(self._limits.idle_s / IDLE_LOOKS)

    async def _answer(self, stream: INetStream, status: StatusCode, reservation: Reservation | None = None) -> None:
        with trio.fail_after(MESSAGE_TIMEOUT_S):
            await write_delimited_msg(
                stream,
                HopMessage(
                    type=HopMessage.STATUS,
                    status=to_proto_status(status),
                    reservation=reservation,
                    limit=self._limit() if status is StatusCode.OK else None,
                ),
            )
        if status is not StatusCode.OK or reservation is not None:
            await trio.sleep(0.5)  # the stream ends now, and a reset could overtake the answer

    def _limit(self) -> Limit:
        return Limit(duration=0, data=self._limits.circuit_mib * 1024 * 1024)

    def _forget_expired(self) -> None:
        now = time.time()
        for peer in [one for one, until in self._reserved_until.items() if until <= now]:
            del self._reserved_until[peer]


def _is_relayed(stream: INetStream) -> bool:
    with contextlib.suppress(Exception):
        return any(CIRCUIT in str(one) for one in stream.muxed_conn.get_transport_addresses())
    return False
