# SPDX-License-Identifier: AGPL-3.0-or-later
"""The network between simulated nodes: each message alone is late, lost, repeated, out of order; pairs are cut.

It keeps the port's rules for the receiver (only known partners, one delivery of a peer at a time) and none of the
favours of a stream: the courier needs no order. What a node that died had sent may still arrive.
"""

import contextvars
import random
from collections import deque
from collections.abc import Callable, Sequence

from sim_loop import Process, VirtualLoop

from ecot_node.federation.framing import Hello, decode_hello
from ecot_node.federation.port import Deliver, PeerId, PeerStatus, PeerUnreachable, UnknownPeer

Hook = Callable[[PeerId, PeerId, bytes], "Sequence[tuple[PeerId, bytes]]"]
"""(sender, target, message) -> what goes on its way instead."""


class Network:
    """All pairs of nodes.

    Args:
        loop: whose time passes.
        chance: of everything.
    """

    def __init__(self, loop: VirtualLoop, chance: random.Random) -> None:
        self.loop, self.chance = loop, chance
        self.context = contextvars.copy_context()  # of nobody: what was sent arrives, whoever died
        self.loss = 0.0
        self.repeat = 0.0
        self.delay_max_s = 0.2
        self.started: dict[PeerId, SimTransport] = {}
        self.cuts: dict[frozenset[PeerId], float] = {}
        self.hook: Hook | None = None
        self.watch: Callable[[PeerId, PeerId, bytes], None] = lambda _sender, _target, _message: None
        self.sent = 0

    def cut(self, one: PeerId, other: PeerId, duration_s: float) -> None:
        """Let nothing pass between two for a while."""
        self.cuts[frozenset((one, other))] = self.loop.time() + duration_s

    def is_cut(self, one: PeerId, other: PeerId) -> bool:
        return self.cuts.get(frozenset((one, other)), 0.0) > self.loop.time()

    def carry(self, sender: PeerId, target: PeerId, message: bytes) -> None:
        """Send a message on its way."""
        self.watch(sender, target, message)
        for real_target, real_message in self.hook(sender, target, message) if self.hook else ((target, message),):
            self.carry_one(sender, real_target, real_message)

    def carry_one(self, sender: PeerId, target: PeerId, message: bytes) -> None:
        self.sent += 1
        if self.is_cut(sender, target) or self.chance.random() < self.loss:
            return
        for _ in range(2 if self.chance.random() < self.repeat else 1):
            delay_s = self.chance.uniform(0.005, self.delay_max_s)
            self.loop.call_later(delay_s, self.arrive, sender, target, message, context=self.context)

    def arrive(self, sender: PeerId, target: PeerId, message: bytes) -> None:
        transport = self.started.get(target)
        if transport is not None:
            transport.take(sender, message)


class SimTransport:
    """The port of one node.

    Args:
        network: where it speaks.
        peer_id: of the node.
        process: that lives and dies with the node.
    """

    def __init__(self, network: Network, peer_id: PeerId, process: Process) -> None:
        self.network, self.peer_id, self.process = network, peer_id, process
        self.known: dict[PeerId, tuple[str, ...]] = {}
        self.hello: Hello | None = None
        self._deliver: Deliver | None = None
        self._arrived: dict[PeerId, deque[bytes]] = {}

    @property
    def listen_addresses(self) -> tuple[str, ...]:
        return (f"/simulated/{self.peer_id}",)

    async def start(self, deliver: Deliver, hello: bytes) -> None:
        self.hello = decode_hello(hello)
        self._deliver = deliver
        self.network.started[self.peer_id] = self

    async def stop(self) -> None:
        self._deliver = None
        if self.network.started.get(self.peer_id) is self:
            del self.network.started[self.peer_id]

    def set_peer(self, peer_id: PeerId, addresses: Sequence[str]) -> None:
        self.known[peer_id] = tuple(addresses)

    def remove_peer(self, peer_id: PeerId) -> None:
        self.known.pop(peer_id, None)

    async def send(self, peer_id: PeerId, message: bytes, *, timeout_s: float) -> None:
        if peer_id not in self.known:
            raise UnknownPeer(peer_id)
        if not self._is_linked(peer_id) and self.network.chance.random() < 0.5:
            raise PeerUnreachable(peer_id, "not_connected")
        if self.process.is_alive:
            self.network.carry(self.peer_id, peer_id, message)

    def status(self, peer_id: PeerId) -> PeerStatus:
        is_linked = self._is_linked(peer_id)
        other = self.network.started.get(peer_id)
        return PeerStatus(
            is_connected=is_linked,
            last_contact_age_ms=None,
            queued_count=0,
            rtt_ms=None,
            error_count=0,
            last_error=None if is_linked else "not_connected",
            hello=other.hello if is_linked and other is not None else None,
        )

    def _is_linked(self, peer_id: PeerId) -> bool:
        other = self.network.started.get(peer_id)
        return (
            other is not None
            and other.process.is_alive
            and self.peer_id in other.known
            and not self.network.is_cut(self.peer_id, peer_id)
        )

    def take(self, sender: PeerId, message: bytes) -> None:
        """Receive: one delivery a peer at a time, in this node's own process."""
        if sender not in self.known or self._deliver is None or not self.process.is_alive:
            return
        arrived = self._arrived.get(sender)
        if arrived is not None:
            arrived.append(message)
            return
        self._arrived[sender] = deque([message])
        self.process.spawn(self.network.loop, self._hand_over(sender), "deliveries")

    async def _hand_over(self, sender: PeerId) -> None:
        arrived = self._arrived[sender]
        try:
            while arrived and self._deliver is not None:
                count = self.network.chance.randint(1, len(arrived))
                await self._deliver(sender, tuple(arrived.popleft() for _ in range(count)))
        finally:
            del self._arrived[sender]
