# SPDX-License-Identifier: AGPL-3.0-or-later
"""Two cooperatives with real node processes that know each other's addresses, and are not partners yet."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node_kit import BOARD_KEY, admission, application, make_founded
from process_kit import Nursery, Raised
from trio_kit import LOOPBACK, SETTINGS, Coop, free_port

from ecot_client.entries import add_signature
from ecot_client.federation import build_send_over, decider_of, draft_direct, draft_peering, peered, side_of
from ecot_client.models import PeerInfo, ProposalInfo
from ecot_client.node import NodeClient
from ecot_client.posting import require_recorded
from ecot_client.receipts import Receipt
from ecot_client.transport import Request
from ecot_protocol.domains.coop.acts import ReplaceNodeKey
from ecot_protocol.domains.federation.statements import Peering, decode_peering
from ecot_protocol.ledger.entry_type import BOARD
from ecot_protocol.wire.encoding import Wire
from ecot_protocol.wire.entry import Signature

NAMES = ("rives", "scene")
UNIT = "BART"
LIMIT_MINOR = 1_000_000
WAIT_S = 60.0


@dataclass
class Board:
    """The board of one cooperative, with its node.

    Attributes:
        coop: folder, ports, members.
        node: its process.
        home: state of the board's client.
    """

    coop: Coop
    node: Raised
    home: Path

    def client(self, home: str = "board") -> NodeClient:
        return NodeClient(self.coop.url, self.home / home, [BOARD_KEY])

    async def record(self, tag: str, payload: Wire, *countersigned: Signature) -> Receipt:
        async with self.client() as node:
            entry = await node.build(tag, payload, author=BOARD)
            for one in countersigned:
                entry = add_signature(entry, one)
            return require_recorded(await node.post_one(entry))

    async def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        async with self.client() as node:
            raw = await node.order(Request(method, path, json=body))  # type: ignore[arg-type]
            return json.loads(raw) if raw else None

    async def peer(self) -> PeerInfo:
        async with self.client() as node:
            (found,) = [one async for one in node.peers()]
            return found

    async def peering(self) -> Peering:
        return decode_peering(bytes.fromhex((await self.peer()).statement))

    async def proposals(self) -> tuple[ProposalInfo, ...]:
        async with self.client() as node:
            return await node.proposals()

    async def propose(self, statement: bytes, url: str = "") -> str:
        sent = await self.ask("POST", "/v1/peerings/proposals", {"statement": statement.hex(), "url": url})
        return str(sent["id"])

    async def accept(self, proposal: str) -> Receipt:
        signed = await self.ask("POST", f"/v1/proposals/{proposal}/acceptance")
        signatures = [Signature(*(bytes.fromhex(one[name]) for name in ("key_id", "signature")))
                      for one in signed["signatures"]]  # fmt: skip
        return await self.record("federation.peer", peered(bytes.fromhex(signed["statement"]), signatures))

    async def replace_key(self, purpose: str) -> Receipt:
        made = await self.ask("POST", "/v1/node-keys/next", {"purpose": purpose})
        payload = ReplaceNodeKey(public_key=bytes.fromhex(made["public_key"]), purpose=purpose)  # type: ignore[arg-type]
        async with self.client() as node:
            entry = await node.build("coop.replace_node_key", payload, author=BOARD)
            signed = await node.send(
                Request("POST", "/v1/node-keys/signature", json={"body": entry.body.hex()}), dict[str, str]
            )
            signature = Signature(bytes.fromhex(signed["key_id"]), bytes.fromhex(signed["signature"]))
            return require_recorded(await node.post_one(add_signature(entry, signature)))


@dataclass
class Duo:
    """Both boards."""

    ours: Board
    theirs: Board

    async def draft(self, *, sequence: int = 1, limit_minor: int = LIMIT_MINOR, **changes: Any) -> bytes:
        """Return the statement of a peering between the two, unsigned."""
        sides = []
        for board in (self.ours, self.theirs):
            async with board.client() as node:
                sides.append(side_of(await node.ledger(), unit=UNIT, limit_minor=limit_minor))
        deciders = tuple(decider_of(one, tuple(sides), 2) for one in sides)
        return draft_peering(sides[0], sides[1], deciders, sequence=sequence, **changes)

    async def peer(self) -> None:
        """Become partners by a proposal."""
        name = await self.ours.propose(await self.draft(), self.theirs.coop.url)
        await until(lambda: has_proposal(self.theirs, name, "open"))
        await self.theirs.accept(name)
        await until(lambda: has_proposal(self.ours, name, "accepted"))
        await self.ours.accept(name)

    async def pay(self, amount_minor: int) -> str:
        """Let our member pay theirs; return the transfer's id."""
        payer, payee = self.ours.coop.actors[0], self.theirs.coop.actors[0]
        peer = await self.ours.peer()
        async with NodeClient(self.ours.coop.url, self.ours.home / payer.name, [payer.signer]) as node:
            draft = draft_direct(
                await self.ours.peering(), await node.ledger_id(), amount_minor, bytes.fromhex(peer.statement_id)
            )
            entry_id, payload = build_send_over(
                draft, payer.member, payee.member, now_ms=node.clock_ms(), statutes_version=1
            )
            entry = await node.build("federation.send", payload, author=payer.member, entry_id=entry_id)
            receipt = require_recorded(await node.post_one(entry))
            (found,) = [one async for one in node.transfers(wait_for=receipt.index)][:1]
            return found.tid


async def has_proposal(board: Board, name: str, status: str) -> bool:
    """Tell whether a board sees a proposal with this status."""
    return any(one.id == name and one.status == status for one in await board.proposals())


async def until(question: Callable[[], Awaitable[object]], timeout_s: float = WAIT_S) -> None:
    """Wait until the answer is true; fail if it never is."""
    async with asyncio.timeout(timeout_s):
        while not await question():  # noqa: ASYNC110 - what is waited for happens in another process
            await asyncio.sleep(0.2)


@contextmanager
def raised_duo(place: Path) -> Iterator[Duo]:
    """Found two cooperatives with a member each and run their nodes until the block ends."""
    coops = {name: Coop(name, place / name, free_port(), free_port()) for name in NAMES}
    for coop in coops.values():
        make_founded(
            coop.folder,
            domain=f"{coop.name}.example",
            http_port=str(coop.http_port),
            listen=f"/ip4/{LOOPBACK}/tcp/{coop.libp2p_port}",
        )
    for name, other in zip(NAMES, reversed(NAMES), strict=True):
        _write_partner(coops[name], coops[other])
    with ExitStack() as stack:
        nursery = stack.enter_context(Nursery())
        boards = {}
        for name, coop in coops.items():
            node = Raised(nursery, coop.folder, **SETTINGS)
            node.start()
            boards[name] = Board(coop, node, place / f"{name}-home")
        for name, board in boards.items():
            board.node.address()
            entry, actor = application(board.coop.ledger, f"{name}-ada")
            board.node.must_post(entry, admission(board.coop.ledger, actor))
            board.coop.actors.append(actor)
        yield Duo(*boards.values())


def _write_partner(coop: Coop, other: Coop) -> None:
    path = coop.folder / "node.toml"
    head, tail = path.read_text(encoding="utf-8").split("\n[log]\n")
    address = f"/ip4/{LOOPBACK}/tcp/{other.libp2p_port}"
    head += f'\n[[federation.peers]]\nledger = "{other.ledger.hex()}"\n'
    head += f'addresses = {json.dumps([address])}\nurl = "{other.url}"\n'
    path.write_text(f"{head}\n[log]\n{tail}", encoding="utf-8")
