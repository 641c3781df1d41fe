# SPDX-License-Identifier: AGPL-3.0-or-later
"""The transport port: moving opaque messages between this node and its peers.

Rules that every transport keeps:

- Only peers made known by ``set_peer`` are dialled or heard; a stream of an unknown peer is read to its hello at most.
- What arrives from a peer over one stream arrives in the order in which it was sent. There may be gaps (a send that
  failed) and, after a failed send that the caller repeats, repeated messages: the layer above acknowledges, asks again
  and drops what it has already seen.
- ``send`` returns when the message has been *written*, which says nothing about the peer. Acknowledgements are messages
  of the layer above.
- A send that failed after its batch began to be written has an unknown outcome: the message may still arrive.
- Every queue is bounded, every wait has a deadline, and nothing is read from a peer faster than ``deliver`` takes it.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, NewType, Protocol

from ecot_node.federation.framing import Hello
from ecot_protocol.errors import EcotError

PeerId = NewType("PeerId", str)
"""A libp2p peer id in its base58btc text form, e.g. ``12D3KooW...``."""

Deliver = Callable[[PeerId, tuple[bytes, ...]], Awaitable[None]]
"""Take messages of one peer, in order.

For one peer, calls come one after the other; while one has not returned, at most ``framing.WINDOW_MESSAGES`` more
messages are accepted from that peer. What it raises is counted as an error and resets the peer's stream; the peer then
connects again."""

PROTOCOL_ID: Final = "/ecot/federation/1.0.0"
"""The stream protocol: one stream of it per peer and direction."""


class TransportError(EcotError):
    """Report that the transport could not do what was asked."""


class PeerUnreachable(TransportError):
    """Report that the message was not written to the peer's stream: no stream within the deadline, or it broke.

    Attributes:
        peer_id: the peer.
        code: stable lower-case code of the last failure (``not_connected``, ``stream_broken``, ``peer_removed``,
            ``stopped``, or the code of the peer's goodbye).
    """

    def __init__(self, peer_id: PeerId, code: str) -> None:
        super().__init__(f"peer {peer_id} is unreachable: {code}")
        self.peer_id = peer_id
        self.code = code


class UnknownPeer(PeerUnreachable):
    """Report a send to a peer which ``set_peer`` has not made known."""

    def __init__(self, peer_id: PeerId) -> None:
        super().__init__(peer_id, "unknown_peer")


class SendTimedOut(TransportError):
    """Report that the peer is connected but did not take the message within the deadline; its outcome is unknown."""

    def __init__(self, peer_id: PeerId, timeout_s: float) -> None:
        super().__init__(f"peer {peer_id} took no message within {timeout_s} s")
        self.peer_id = peer_id
        self.timeout_s = timeout_s


class SendQueueFull(TransportError):
    """Report that too many messages, or bytes, already wait for the peer; the message was not queued."""

    def __init__(self, peer_id: PeerId, queued_count: int) -> None:
        super().__init__(f"{queued_count} messages already wait for peer {peer_id}")
        self.peer_id = peer_id
        self.queued_count = queued_count


class MessageTooLarge(TransportError):
    """Report a message above ``message_bytes_max``; it was not queued."""

    def __init__(self, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(f"message of {size_bytes} bytes, expected at most {limit_bytes}")
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportLimits:
    """Hold every bound of a transport. The defaults are those of the specification.

    Attributes:
        batch_messages_max: messages that one batch frame sent by us carries.
        batch_bytes_max: sum of the messages of one batch frame sent by us, in bytes, unless it carries only one.
        send_queue_messages_max: messages waiting for one peer.
        send_queue_bytes_max: their sum, in bytes.
        unknown_streams_max: streams of unknown peers whose hello is being read, all together.
        dial_timeout_s: for dialling, securing and opening a stream.
        hello_timeout_s: from the opening of a stream to the other side's hello.
        heartbeat_interval_s: between two pings on our outgoing stream.
        heartbeat_timeout_s: without any frame of the peer, after which its stream is reset.
        write_timeout_s: for one frame to be taken by the stream.
        reconnect_first_s: the first back-off after a failure; doubled each time, with jitter in [half, whole].
        reconnect_max_s: the longest back-off.
        stop_timeout_s: for ``stop`` to end in good order; then it ends all the same.
        stable_after_s: a connection that ends sooner counts as a failure, and the back-off goes on growing.
        host_tasks_max: tasks of the libp2p thread above which it is started anew.
        connections_max: connections at one time, of peers and strangers together.
    """

    batch_messages_max: int = 512
    batch_bytes_max: int = 512 * 1024
    send_queue_messages_max: int = 4096
    send_queue_bytes_max: int = 16 * 1024 * 1024
    unknown_streams_max: int = 16
    dial_timeout_s: float = 10.0
    hello_timeout_s: float = 5.0
    heartbeat_interval_s: float = 5.0
    heartbeat_timeout_s: float = 20.0
    write_timeout_s: float = 60.0
    reconnect_first_s: float = 0.5
    reconnect_max_s: float = 60.0
    stop_timeout_s: float = 4.0
    stable_after_s: float = 30.0
    host_tasks_max: int = 2000
    connections_max: int = 300

    def back_off_s(self, failure_count: int, jitter: random.Random) -> float:
        """Return how long to wait after so many failures in a row, from 1."""
        longest_s = min(self.reconnect_max_s, self.reconnect_first_s * 2.0 ** min(failure_count - 1, 30))
        return longest_s * jitter.uniform(0.5, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayLimits:
    """Hold the bounds of a node that relays between its partners.

    Attributes:
        circuit_mib: bytes of one circuit, both ways, in MiB; 0: all they like.
        circuits_max: circuits at one time.
        circuits_of_peer_max: those that begin or end at one partner.
        reservations_max: partners that can be reached through us.
        reservation_s: how long a reservation lasts.
        idle_s: a circuit that carries nothing for so long is ended; heartbeats are much more frequent.
    """

    circuit_mib: int = 1_024
    circuits_max: int = 64
    circuits_of_peer_max: int = 16
    reservations_max: int = 64
    reservation_s: float = 3_600.0
    idle_s: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Relaying:
    """Say what a node has to do with relays.

    Attributes:
        relays: ``<address>/p2p/<peer id>`` of those at which it reserves, so that it is reached through them.
        serves: within these limits it is one for its partners; None: it is none.
    """

    relays: tuple[str, ...] = ()
    serves: RelayLimits | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerStatus:
    """Say how it stands with a peer.

    Attributes:
        is_connected: our outgoing stream is open and the peer has answered its hello.
        last_contact_age_ms: since any frame of the peer on any stream, by the monotonic clock; None if there was none.
        queued_count: messages that wait to be written.
        rtt_ms: of the last heartbeat; None before the first.
        error_count: failed dials, broken streams and breaches of the framing since the peer was made known.
        last_error: code of the last of them; None if there was none.
        hello: what the peer last said of itself on our stream; not verified by the transport, except that the peer id
            is the one the secure channel proved.
        address: at which we last dialled the peer and it answered; None if we never did.
        offered: where the peer says that it listens: a guess that nobody has confirmed.
    """

    is_connected: bool
    last_contact_age_ms: int | None
    queued_count: int
    rtt_ms: float | None
    error_count: int
    last_error: str | None
    hello: Hello | None
    address: str | None = None
    offered: tuple[str, ...] = ()


class Transport(Protocol):
    """Carry messages between this node and the peers it knows. To be used from one asyncio loop only."""

    @property
    def peer_id(self) -> PeerId:
        """Our own id; known before ``start``."""
        ...

    @property
    def listen_addresses(self) -> tuple[str, ...]:
        """Multiaddrs at which we listen, each ending in ``/p2p/<peer id>``; empty unless started."""
        ...

    async def start(self, deliver: Deliver, hello: bytes) -> None:
        """Listen, and connect to the peers known so far.

        Args:
            deliver: takes the messages of peers, on the loop that called ``start``.
            hello: our hello as a whole frame, ``framing.encode_frame(Hello(...))``.

        Raises:
            TransportError: the address can't be bound, or the transport is already started.
            RemoteProtocolError: ``hello`` isn't one hello frame.
        """
        ...

    async def stop(self) -> None:
        """Fail what waits, say goodbye, close everything. Ends within ``stop_timeout_s``; may be called twice."""
        ...

    def set_peer(self, peer_id: PeerId, addresses: Sequence[str]) -> None:
        """Make a peer known, or replace its addresses; it may speak to us at once.

        Args:
            peer_id: of the peer; not ours.
            addresses: multiaddrs, with or without ``/p2p/``; none if it can only call us, and then nothing can be sent
                until it is connected.

        Raises:
            LocalProtocolError: the id or an address is malformed, or names another peer.
        """
        ...

    def remove_peer(self, peer_id: PeerId) -> None:
        """Forget a peer: fail what waits for it, reset its streams, refuse it from now on. Unknown ids are ignored."""
        ...

    async def send(self, peer_id: PeerId, message: bytes, *, timeout_s: float) -> None:
        """Write a message to our stream to the peer, after those already waiting, batched with them.

        Args:
            peer_id: a known peer.
            message: 0 to ``message_bytes_max`` bytes, opaque.
            timeout_s: how long to wait for a stream and for the write.

        Raises:
            UnknownPeer: ``set_peer`` has not been called for it.
            MessageTooLarge: nothing was queued.
            SendQueueFull: nothing was queued.
            PeerUnreachable: no stream within the deadline, or it broke while the message was written.
            SendTimedOut: the peer is connected and did not take the message within the deadline.
        """
        ...

    def status(self, peer_id: PeerId) -> PeerStatus:
        """Say how it stands with a known peer.

        Raises:
            UnknownPeer: ``set_peer`` has not been called for it.
        """
        ...
