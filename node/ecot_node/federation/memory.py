# SPDX-License-Identifier: AGPL-3.0-or-later
"""The in-memory twin of the libp2p transport, for tests and simulations on one asyncio loop.

It keeps the rules of ``port.Transport`` with the same queue, batches and frames, and adds what a real network does at
its worst: delay, loss and repetition of whole batches, cuts. All chance comes from the seed, separately for each
direction of each pair, so that a history can be played again. Time passes through the loop's clock alone: under a
virtual clock it runs as fast as the machine allows.

>>> network = MemoryNetwork(seed=1)
>>> transport = MemoryTransport(network, PeerId("barter"))
>>> transport.peer_id
'barter'
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass

from ecot_node.federation import framing
from ecot_node.federation.framing import Batch, FrameDecoder, Hello, decode_hello, encode_batch
from ecot_node.federation.port import (
    Deliver,
    PeerId,
    PeerStatus,
    PeerUnreachable,
    SendTimedOut,
    TransportError,
    TransportLimits,
    UnknownPeer,
)
from ecot_node.federation.sending import SendQueue, Waiting, fail, succeed
from ecot_protocol.errors import LocalProtocolError

_FRAMES_IN_FLIGHT = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """Say how the network treats batches.

    Attributes:
        delay_min_s, delay_max_s: each batch takes a time between them; order is kept all the same.
        loss_probability: that a batch vanishes although its send succeeded.
        repeat_probability: that a batch arrives twice in a row.
    """

    delay_min_s: float = 0.0
    delay_max_s: float = 0.0
    loss_probability: float = 0.0
    repeat_probability: float = 0.0


class MemoryNetwork:
    """Join the memory transports of one loop.

    Args:
        seed: of all chance.
        conditions: at the start; may be replaced at any time.
    """

    def __init__(self, *, seed: int = 0, conditions: Conditions | None = None) -> None:
        self.conditions = conditions or Conditions()
        self._seed = seed
        self._started: dict[PeerId, MemoryTransport] = {}
        self._cuts: set[frozenset[PeerId]] = set()
        self._changed = asyncio.Event()

    def cut(self, one: PeerId, other: PeerId) -> None:
        """Break the streams between two peers, with all that is in flight, and let none be opened."""
        self._cuts.add(frozenset((one, other)))
        self.notify_change()

    def heal(self, one: PeerId, other: PeerId) -> None:
        """Let two peers connect again."""
        self._cuts.discard(frozenset((one, other)))
        self.notify_change()

    def address_of(self, peer_id: PeerId) -> str:
        """Return the only address of a peer here, which stays the same when it starts again."""
        return f"/memory/{peer_id}/p2p/{peer_id}"

    def random_of(self, source: PeerId, target: PeerId) -> random.Random:
        """Return the chance of one direction of one pair."""
        return random.Random(f"{self._seed} {source} {target}")

    def join(self, transport: MemoryTransport) -> None:
        """Make a transport reachable.

        Raises:
            TransportError: another one of that id is started.
        """
        if transport.peer_id in self._started:
            raise TransportError(f"address of {transport.peer_id} is in use")
        self._started[transport.peer_id] = transport
        self.notify_change()

    def leave(self, transport: MemoryTransport) -> None:
        """Make a transport unreachable and break its streams."""
        self._started.pop(transport.peer_id, None)
        self.notify_change()

    def reach(self, source: MemoryTransport, peer_id: PeerId) -> tuple[MemoryTransport | None, str]:
        """Answer the started transport of a peer if ``source`` may have a stream to it, otherwise why not."""
        target = self._started.get(peer_id)
        is_cut = frozenset((source.peer_id, peer_id)) in self._cuts
        if target is None or is_cut or self._started.get(source.peer_id) is not source:
            return None, "dial_failed"
        if not target.knows(source.peer_id):
            return None, "unknown_peer"
        return target, ""

    def notify_change(self) -> None:
        """Make everybody look again at what it can reach."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def wait_change(self) -> None:
        """Wait until something about reachability changes."""
        await self._changed.wait()


class _Link:
    """Carry what one transport sends to one peer: the twin of the outgoing stream and its reconnections."""

    def __init__(self, owner: MemoryTransport, peer_id: PeerId, addresses: tuple[str, ...]) -> None:
        self.owner = owner
        self.peer_id = peer_id
        self.addresses = addresses
        self.queue = SendQueue(peer_id, owner.limits)
        self.is_connected = False
        self.hello: Hello | None = None
        self.last_contact_s: float | None = None
        self.error_count = 0
        self.last_error: str | None = None
        self.delivering = asyncio.Lock()
        self._random = owner.network.random_of(owner.peer_id, peer_id)
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"memory-link-{self.owner.peer_id}-{self.peer_id}")

    async def stop(self) -> None:
        task, self._task = self._task, None
        self.is_connected = False
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    def wake(self) -> None:
        self._wake.set()

    def count_error(self, code: str) -> None:
        self.error_count += 1
        self.last_error = code

    def touch(self) -> None:
        self.last_contact_s = asyncio.get_running_loop().time()

    async def _run(self) -> None:
        network = self.owner.network
        while True:
            target, code = network.reach(self.owner, self.peer_id)
            if target is None or not self._can_dial():
                self.last_error = code or "dial_failed"
                await network.wait_change()
                continue
            self.hello, self.is_connected = target.hello, True
            self.touch()
            target.touch(self.owner.peer_id)
            network.notify_change()
            code = await self._use(target)
            self.is_connected = False
            self.count_error(code)
            await asyncio.sleep(self.owner.limits.reconnect_first_s)

    def _can_dial(self) -> bool:
        target_link = self.owner.network.reach(self.owner, self.peer_id)[0]
        is_called = target_link is not None and target_link.is_linked_to(self.owner.peer_id)
        whole = self.owner.network.address_of(self.peer_id)
        return is_called or not {whole, whole.partition("/p2p/")[0]}.isdisjoint(self.addresses)

    async def _use(self, target: MemoryTransport) -> str:
        """Send to a reachable peer until it is not, or a delivery failed.

        Returns:
            Why the link broke.
        """
        in_flight: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_FRAMES_IN_FLIGHT)
        writing = asyncio.create_task(self._write(in_flight))
        carrying = asyncio.create_task(self._carry(in_flight, target))
        watching = asyncio.create_task(self._watch(target))
        tasks = {writing, carrying, watching}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            # A task that ends by an exception here is a mistake of this module: let it be seen.
            return next(iter(done)).result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _watch(self, target: MemoryTransport) -> str:
        while True:
            reached, code = self.owner.network.reach(self.owner, self.peer_id)
            if reached is not target:
                return code or "stream_broken"
            await self.owner.network.wait_change()

    async def _write(self, in_flight: asyncio.Queue[tuple[float, bytes]]) -> str:
        while True:
            self._wake.clear()
            limits = self.owner.limits
            size_bytes = max(limits.batch_bytes_max, framing.MESSAGE_BYTES_MAX)
            batch = self.queue.take(message_count=limits.batch_messages_max, size_bytes=size_bytes)
            if batch:
                await self._write_batch(batch, in_flight)
            else:
                await self._wake.wait()

    async def _write_batch(self, batch: list[Waiting], in_flight: asyncio.Queue[tuple[float, bytes]]) -> None:
        conditions = self.owner.network.conditions
        due_s = asyncio.get_running_loop().time() + self._random.uniform(conditions.delay_min_s, conditions.delay_max_s)
        is_lost = self._random.random() < conditions.loss_probability
        copy_count = 0 if is_lost else 1 + (self._random.random() < conditions.repeat_probability)
        encoded = encode_batch(tuple(waiting.message for waiting in batch))
        try:
            for _ in range(copy_count):
                await in_flight.put((due_s, encoded))
        except asyncio.CancelledError:
            fail(batch, self.peer_id, "stream_broken")
            raise
        succeed(batch)

    async def _carry(self, in_flight: asyncio.Queue[tuple[float, bytes]], target: MemoryTransport) -> str:
        decoder = FrameDecoder()
        while True:
            due_s, encoded = await in_flight.get()
            delay_s = due_s - asyncio.get_running_loop().time()
            if delay_s > 0:
                await asyncio.sleep(delay_s)
            for frame in decoder.feed(encoded):
                assert isinstance(frame, Batch)
                if not await target.take(self.owner.peer_id, frame.messages):
                    return "delivery_failed"
            self.touch()


class MemoryTransport:
    """Carry messages over a ``MemoryNetwork``; see ``port.Transport``.

    Args:
        network: where the peers are.
        peer_id: ours; any text.
        limits: see ``TransportLimits``; its time-outs of streams have no meaning here.
    """

    def __init__(self, network: MemoryNetwork, peer_id: PeerId, *, limits: TransportLimits | None = None) -> None:
        self.network = network
        self.limits = limits or TransportLimits()
        self.hello: Hello | None = None
        self._peer_id = peer_id
        self._links: dict[PeerId, _Link] = {}
        self._deliver: Deliver | None = None
        self._deliveries: set[asyncio.Task[bool]] = set()
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def peer_id(self) -> PeerId:
        """See ``port.Transport``."""
        return self._peer_id

    @property
    def listen_addresses(self) -> tuple[str, ...]:
        """See ``port.Transport``."""
        return (self.network.address_of(self._peer_id),) if self._deliver else ()

    async def start(self, deliver: Deliver, hello: bytes) -> None:
        """See ``port.Transport``."""
        if self._deliver is not None:
            raise TransportError("the transport is already started")
        self.hello = decode_hello(hello)
        self.network.join(self)
        self._deliver = deliver
        for link in self._links.values():
            link.start()

    async def stop(self) -> None:
        """See ``port.Transport``."""
        if self._deliver is None:
            return
        self._deliver = None
        self.network.leave(self)
        for delivery in self._deliveries:
            delivery.cancel()
        for link in self._links.values():
            link.queue.fail_all("stopped")
            await link.stop()
        if self._closing:
            await asyncio.wait(self._closing)

    def set_peer(self, peer_id: PeerId, addresses: Sequence[str]) -> None:
        """See ``port.Transport``."""
        if peer_id == self._peer_id:
            raise LocalProtocolError("a node is no peer of itself")
        for address in addresses:
            named = address.rpartition("/p2p/")[2] if "/p2p/" in address else peer_id
            if not address.startswith("/memory/") or named != peer_id:
                raise LocalProtocolError(f"address {address!r}: expected /memory/<name>[/p2p/{peer_id}]")
        if peer_id in self._links:
            self._links[peer_id].addresses = tuple(addresses)
        else:
            self._links[peer_id] = link = _Link(self, peer_id, tuple(addresses))
            if self._deliver is not None:
                link.start()
        self.network.notify_change()

    def remove_peer(self, peer_id: PeerId) -> None:
        """See ``port.Transport``."""
        link = self._links.pop(peer_id, None)
        if link is None:
            return
        link.queue.fail_all("peer_removed")
        closing = asyncio.ensure_future(link.stop())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        self.network.notify_change()

    async def send(self, peer_id: PeerId, message: bytes, *, timeout_s: float) -> None:
        """See ``port.Transport``."""
        link = self._known(peer_id)
        if self._deliver is None:
            raise PeerUnreachable(peer_id, "stopped")
        waiting, must_wake = link.queue.put(message)
        if must_wake:
            link.wake()
        try:
            await link.queue.wait_written(waiting, timeout_s)
        except SendTimedOut:
            if link.is_connected:
                raise
            raise PeerUnreachable(peer_id, link.last_error or "not_connected") from None

    def status(self, peer_id: PeerId) -> PeerStatus:
        """See ``port.Transport``; the round trip is always unknown."""
        link = self._known(peer_id)
        now_s = asyncio.get_running_loop().time()
        age_ms = None if link.last_contact_s is None else int((now_s - link.last_contact_s) * 1000)
        return PeerStatus(
            is_connected=link.is_connected,
            last_contact_age_ms=age_ms,
            queued_count=len(link.queue),
            rtt_ms=None,
            error_count=link.error_count,
            last_error=link.last_error,
            hello=link.hello,
        )

    def knows(self, peer_id: PeerId) -> bool:
        """Say whether a peer may speak to us. For the network."""
        return peer_id in self._links

    def is_linked_to(self, peer_id: PeerId) -> bool:
        """Say whether our stream to a peer is open. For the network."""
        return peer_id in self._links and self._links[peer_id].is_connected

    def touch(self, peer_id: PeerId) -> None:
        """Note that a peer was heard. For the links."""
        if peer_id in self._links:
            self._links[peer_id].touch()

    async def take(self, peer_id: PeerId, messages: tuple[bytes, ...]) -> bool:
        """Deliver messages of a peer; answers whether that went well. For the links."""
        link = self._links.get(peer_id)
        if link is None or self._deliver is None:
            return False
        link.touch()
        delivery = asyncio.ensure_future(self._deliver_one(link, messages))
        self._deliveries.add(delivery)
        delivery.add_done_callback(self._deliveries.discard)
        # Shielded: a delivery that has begun is not cancelled because its stream broke.
        try:
            return await asyncio.shield(delivery)
        except asyncio.CancelledError:
            if delivery.cancelled():
                return False
            raise

    async def _deliver_one(self, link: _Link, messages: tuple[bytes, ...]) -> bool:
        async with link.delivering:
            if self._deliver is None:
                return False
            try:
                await self._deliver(link.peer_id, messages)
            except Exception:  # noqa: BLE001 - counted, as the port says
                link.count_error("delivery_failed")
                return False
            return True

    def _known(self, peer_id: PeerId) -> _Link:
        link = self._links.get(peer_id)
        if link is None:
            raise UnknownPeer(peer_id)
        return link
