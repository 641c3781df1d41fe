# SPDX-License-Identifier: AGPL-3.0-or-later
"""The federation service carries out whatever the courier asks for, when it begins anew too."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from ledger_kit import LedgerKit, seed

from ecot_node.federation import service
from ecot_node.federation.addresses import PartnerAddresses
from ecot_node.federation.port import PeerId, SendTimedOut
from ecot_node.federation.service import FederationService, FederationSigners, _PeerQueue
from ecot_node.ledger.errors import NotWriting
from ecot_node.store.forks import ForkBoard
from ecot_node.store.memory import MemoryStore
from ecot_protocol.domains.federation.messages import Ask, encode_message
from ecot_protocol.domains.federation.outputs import Append, Output
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.wire.cosignature import Cosigner
from ecot_protocol.wire.keys import Signer
from ecot_protocol.wire.note import NoteSigner
from ecot_protocol.wire.reply import Recorded, Reply

DECIDE = Append("commit", (bytes(16),), b"a body")


class CourierThatSaysAllAtOnce:
    """Asks for an entry with the first head that it is given, and, as the real one, never again."""

    def __init__(self, *_args: Any, **_options: Any) -> None:
        self._has_said = False

    def head(self, _note: bytes, _now_ms: int) -> list[Output]:
        outputs: list[Output] = [] if self._has_said else [DECIDE]
        self._has_said = True
        return outputs

    def receive(self, _sender: bytes, _raw: bytes, _now_ms: int) -> list[Output]:
        raise RemoteProtocolError("message_malformed")

    def recorded(self, _append: Append, _now_ms: int) -> list[Output]:
        return []


class FakeWriter:
    """Takes entries, or refuses to write for a while."""

    def __init__(self, refusals: int) -> None:
        self.state = LedgerKit().state
        self.log_key = None
        self.taken: list[bytes] = []
        self.has_taken = asyncio.Event()
        self._refusals = refusals

    async def submit(self, entries: Any) -> Reply:
        if self._refusals:
            self._refusals -= 1
            raise NotWriting("witness_unasked")
        self.taken += [entry.body for entry in entries]
        self.has_taken.set()
        return Reply((Recorded(1, 1),), 1, (), "")

    def wall_ms(self) -> int:
        return 1_790_000_000_000

    def checkpoint(self) -> bytes:
        return b""

    def subscribe(self, _listener: Any) -> Any:
        return lambda: None


class KeptNothing:
    """A store that has kept nothing of what was seen of others' logs."""

    async def meta_get(self, _name: str) -> None: ...

    async def meta_put(self, _name: str, _value: bytes) -> None: ...


class FakeTransport:
    """Connects nobody."""

    async def start(self, *_args: Any) -> None: ...

    async def stop(self) -> None: ...


def make_service(writer: FakeWriter, monkeypatch: pytest.MonkeyPatch) -> FederationService:
    monkeypatch.setattr(service, "Courier", CourierThatSaysAllAtOnce)
    monkeypatch.setattr(service, "APPEND_AGAIN_S", 0.01)
    parts: Any = (writer, KeptNothing(), FakeTransport(), SimpleNamespace())
    agent, cosigner = Signer(seed("agent")), Cosigner("courier.example", seed("cosigner"))
    decisions = NoteSigner("courier.example/decisions", seed("log"))
    signers = FederationSigners(agent, decisions, (cosigner,))
    board = ForkBoard(MemoryStore())
    return FederationService(*parts, board=board, signers=signers, addresses=PartnerAddresses(), hello=b"")


async def entries_taken(writer: FakeWriter) -> list[bytes]:
    async with asyncio.timeout(20):
        await writer.has_taken.wait()
    return writer.taken


async def test_what_waited_for_a_restart_is_recorded_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    writer = FakeWriter(refusals=0)
    federation = make_service(writer, monkeypatch)
    await federation.start()
    try:
        assert await entries_taken(writer) == [DECIDE.body]
    finally:
        await federation.stop()


async def test_an_entry_that_the_writer_would_not_take_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    writer = FakeWriter(refusals=3)
    federation = make_service(writer, monkeypatch)
    await federation.start()
    try:
        assert await entries_taken(writer) == [DECIDE.body]
    finally:
        await federation.stop()


class SlowTransport(FakeTransport):
    """Takes the first messages only once it is let go; fails some."""

    def __init__(self) -> None:
        self.may_go = asyncio.Event()
        self.all_sent = asyncio.Event()
        self.sent: list[bytes] = []

    async def send(self, peer_id: PeerId, message: bytes, *, timeout_s: float) -> None:
        self.sent.append(message)
        await self.may_go.wait()
        if message == encode_message(Ask(LAST)):
            self.all_sent.set()
        raise SendTimedOut(peer_id, timeout_s)


LAST = b"\xff" * 16


async def test_a_message_that_waits_already_is_sent_once_and_one_that_fails_stops_no_other() -> None:
    transport = SlowTransport()
    waiting: Any = transport
    queue = _PeerQueue(waiting, PeerId("peer"))
    ids = [number.to_bytes(16) for number in range(200)]
    for _ in range(3):
        for one in ids:
            queue.put(Ask(one))
    queue.put(Ask(LAST))
    transport.may_go.set()
    async with asyncio.timeout(20):
        await transport.all_sent.wait()
    queue.stop()
    assert transport.sent == [encode_message(Ask(one)) for one in (*ids, LAST)]
