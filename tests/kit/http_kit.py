# SPDX-License-Identifier: AGPL-3.0-or-later
"""A node's HTTP interface over a real writer on a store in memory, and clients that open sessions.

The record index and the peers are fakes: they belong to floors above and beside the one under test.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import msgspec
from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient, TestServer
from ledger_kit import LedgerKit, seed
from sqlalchemy.ext.asyncio import AsyncConnection
from writer_kit import entries_of

from ecot_node.http.app import SERVICES, make_app
from ecot_node.http.callers import Caller, may_read
from ecot_node.http.context import Context, HttpSettings
from ecot_node.http.entry_door import put_door
from ecot_node.http.port import RecordedMeta
from ecot_node.http.routes import AnyRoute
from ecot_node.http.services import Services
from ecot_node.http.sessions import SESSION_CONTEXT
from ecot_node.ledger.clock import RecordClock
from ecot_node.ledger.port import RecordedEntry
from ecot_node.ledger.writer import Writer, WriterKeys
from ecot_node.store.forks import ForkBoard
from ecot_node.store.memory import MemoryStore
from ecot_protocol.wire.cosignature import Cosigner, make_ml_dsa_cosigner
from ecot_protocol.wire.encoding import encode
from ecot_protocol.wire.entry import Entry
from ecot_protocol.wire.keys import Signer
from ecot_protocol.wire.note_key import NoteVerifier
from ecot_protocol.wire.reply import REPLY, Recorded, Reply

NO_LIMITS = HttpSettings(address_rate=None, session_rate=None, entries_rate=None, heartbeat_s=0.05)
MSGPACK = {"Content-Type": "application/msgpack"}


class ListedRecords:
    """A record index in a list; it also plays the views that the writer feeds."""

    def __init__(self) -> None:
        self.metas: list[RecordedMeta] = []

    async def position(self) -> int:
        return len(self.metas)

    async def apply(self, entries: Sequence[RecordedEntry]) -> None:
        for one in entries:
            assert one.index == len(self.metas)
            self.metas.append(
                RecordedMeta(
                    one.index, one.entry_id, one.received_at_ms, one.tag, one.author, one.visibility, one.parties
                )
            )

    async def reset(self) -> None:
        self.metas.clear()

    async def swap(self) -> None:
        return

    async def entry(self, index: int) -> RecordedMeta | None:
        return self.metas[index] if index < len(self.metas) else None

    async def visible(
        self, caller: Caller | None, *, after: int, limit: int, tag: str | None, author: bytes | None
    ) -> list[RecordedMeta]:
        found = (
            one
            for one in self.metas[after + 1 :]
            if may_read(caller, one.visibility, one.parties)
            and tag in (None, one.type)
            and author in (None, one.author)
        )
        return list(found)[:limit]


class KnownPeers:
    """Peers whose log keys a test gives."""

    def __init__(self) -> None:
        self.keys: dict[str, list[NoteVerifier]] = {}

    async def log_keys(self, origin: str) -> Sequence[NoteVerifier]:
        return self.keys.get(origin, [])

    async def origin_of(self, origin_hash: bytes) -> str | None:
        return next((origin for origin in self.keys if sha256(origin.encode()).digest() == origin_hash), None)


class NoViews:
    """Views that no route of this floor reads."""

    def connect(self) -> AbstractAsyncContextManager[AsyncConnection]:
        raise AssertionError("this floor reads no view")


@dataclass
class HttpNode:
    """A running application with its parts; `kit.now` is its clock."""

    kit: LedgerKit
    writer: Writer
    store: MemoryStore
    records: ListedRecords
    peers: KnownPeers
    services: Services
    client: "TestClient[Any, Any]"
    tokens: dict[bytes, str] = field(default_factory=dict)

    async def record(self, *entries: Entry) -> Reply:
        """Record entries that the kit built, and wait until they show."""
        reply = await self.writer.submit(entries)
        assert all(isinstance(one, Recorded) for one in reply.outcomes), reply.outcomes
        assert await self.writer.wait_for(self.writer.status().size - 1, 10)
        return reply

    async def catch_up(self) -> None:
        """Record what the kit recorded since the start."""
        await self.record(*entries_of(self.kit)[self.writer.status().size :])

    async def post_entries(self, body: bytes, **options: Any) -> ClientResponse:
        """Send bytes to ``/v1/entries``."""
        return await self.client.post("/v1/entries", data=body, headers=MSGPACK, **options)

    async def send(self, *entries: Entry) -> Reply:
        """Post entries and return the reply."""
        answer = await self.post_entries(encode(entries))
        assert answer.status == 200, await answer.text()
        return REPLY.decode(await answer.read())

    async def challenge(self, signer: Signer) -> bytes:
        """Ask for a challenge."""
        answer = await self.client.post("/v1/sessions/challenge", json={"key_id": signer.key_id.hex()})
        return bytes.fromhex((await answer.json())["challenge"])

    async def open(self, signer: Signer) -> ClientResponse:
        """Open a session and return the answer."""
        challenge = await self.challenge(signer)
        return await self.client.post("/v1/sessions", json=self.opening(signer, challenge))

    def opening(self, signer: Signer, challenge: bytes) -> dict[str, str]:
        """Return the body that opens a session."""
        assert self.kit.state.ledger is not None
        signature = signer.sign(SESSION_CONTEXT + self.kit.state.ledger + challenge)
        return {"key_id": signer.key_id.hex(), "challenge": challenge.hex(), "signature": signature.hex()}

    async def token(self, signer: Signer) -> str:
        """Return the token of an open session of the signer."""
        if signer.key_id not in self.tokens:
            answer = await self.open(signer)
            assert answer.status == 200, await answer.text()
            self.tokens[signer.key_id] = (await answer.json())["token"]
        return self.tokens[signer.key_id]

    async def get(self, path: str, signer: Signer | None = None, **headers: str) -> ClientResponse:
        """Read a path, with a session if a signer is given."""
        if signer is not None:
            headers["Authorization"] = f"Bearer {await self.token(signer)}"
        return await self.client.get(path, headers=headers)

    async def post(self, path: str, signer: Signer | None, **options: Any) -> ClientResponse:
        """Post to a path, with a session if a signer is given."""
        headers = dict(options.pop("headers", {}))
        if signer is not None:
            headers["Authorization"] = f"Bearer {await self.token(signer)}"
        return await self.client.post(path, headers=headers, **options)


async def problem_of(answer: ClientResponse, status: int) -> str:
    """Return the code of an answer that is a problem of that status."""
    text = await answer.text()
    assert answer.status == status, text
    assert answer.content_type == "application/problem+json"
    decoded = msgspec.json.decode(text)
    assert decoded["status"] == status
    assert decoded["title"] != f"reason.{decoded['code']}"
    return str(decoded["code"])


def _writer(store: MemoryStore, kit: LedgerKit, records: ListedRecords) -> Writer:
    def clock(newest: int) -> RecordClock:
        return RecordClock(newest, wall=lambda: kit.now, monotonic=lambda: kit.now)

    keys = WriterKeys(kit.agent, seed(kit.name + "log"), os.urandom)
    return Writer(store, kit.machine, keys, views=records, clock_of=clock)


@asynccontextmanager
async def http_node(
    kit: LedgerKit | None = None, *, settings: HttpSettings = NO_LIMITS, routes: Sequence[AnyRoute] = ()
) -> AsyncIterator[HttpNode]:
    """Run a node whose ledger holds what the kit recorded."""
    kit = kit or LedgerKit()
    store, records, peers = MemoryStore(), ListedRecords(), KnownPeers()
    writer = _writer(store, kit, records)
    await writer.start()
    context = Context(
        ledger=writer,
        machine=kit.machine,
        store=store,
        views=NoViews(),
        records=records,
        peers=peers,
        cosigners=tuple(
            one
            for one in (
                Cosigner(f"{kit.name}.example/witness", seed(kit.name + "cosigner")),
                make_ml_dsa_cosigner(f"{kit.name}.example/witness", seed(kit.name + "further cosigner")),
            )
            if one is not None
        ),
        forks=ForkBoard(store),
        clock_ms=lambda: kit.now,
        settings=settings,
    )
    app = make_app(context, routes)
    server = TestServer(app)
    client = TestClient(server)
    await client.start_server()
    assert server.runner is not None
    assert server.runner.server is not None
    put_door(server.runner.server, app, context)
    node = HttpNode(kit, writer, store, records, peers, app[SERVICES], client)
    try:
        await node.catch_up()
        yield node
    finally:
        await client.close()
        await writer.stop()
        await asyncio.sleep(0)
