# SPDX-License-Identifier: AGPL-3.0-or-later
"""Another implementation federates with ours: js-libp2p, and the framing written from the specification's page alone.

The JavaScript is in `js-libp2p/`; it shares no code with ours, and is told nothing that the page does not say.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from js_kit import JsHost
from node_kit import BOARD_KEY, Served, ledger_of, make_founded, serve, wall_ms
from trio_kit import free_port

from ecot_client.entries import build_entry
from ecot_client.federation import decider_of, draft_peering, peered
from ecot_node.federation import framing
from ecot_node.federation.framing import Batch, Credit, Hello, Ping, Pong, encode_frame
from ecot_node.federation.libp2p_host import Libp2pTransport
from ecot_node.federation.peer_ids import peer_id_of
from ecot_node.federation.port import PROTOCOL_ID, PeerId, TransportLimits
from ecot_node.ledger.node_keys import load_keys
from ecot_protocol.domains.coop.genesis import log_origin
from ecot_protocol.domains.federation.messages import AskHead, Head, Message, decode_message, encode_message
from ecot_protocol.domains.federation.statements import Side
from ecot_protocol.ledger.entry_type import BOARD
from ecot_protocol.wire.keys import Signer
from ecot_protocol.wire.statement import sign_statement

pytestmark = pytest.mark.xdist_group("js-libp2p")

PAGE = Path(__file__).parents[2] / "docs/specification/federation-transport.md"
PATIENCE_S = 30.0
THEIR_SEED, THEIR_LEDGER, THEIR_ORIGIN = b"j" * 32, b"J" * 32, "js.example/ecot/4a4a4a4a4a4a4a4a"
OUR_HELLO = Hello(1, "ecot-test", "ours.example/ecot/4f4f4f4f4f4f4f4f", b"O" * 32)
THEIR_HELLO = Hello(1, "ecot-conformance-js/1", THEIR_ORIGIN, THEIR_LEDGER)
LIMITS = TransportLimits(reconnect_first_s=0.1, reconnect_max_s=0.4, heartbeat_interval_s=0.5)


class Inbox:
    """Keeps what arrives."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.arrived = asyncio.Event()

    async def deliver(self, _peer_id: PeerId, messages: tuple[bytes, ...]) -> None:
        self.received.extend(messages)
        self.arrived.set()

    async def wait_for(self, count: int) -> list[bytes]:
        async with asyncio.timeout(PATIENCE_S):
            while len(self.received) < count:
                self.arrived.clear()
                await self.arrived.wait()
        return self.received


@pytest.fixture
async def inbox() -> Inbox:
    return Inbox()


@pytest.fixture
async def ours(inbox: Inbox) -> AsyncIterator[Libp2pTransport]:
    listen = ["/ip4/127.0.0.1/tcp/0"]
    transport = Libp2pTransport(identity_seed=b"o" * 32, listen_addresses=listen, limits=LIMITS, jitter_seed=1)
    await transport.start(inbox.deliver, encode_frame(OUR_HELLO))
    yield transport
    await transport.stop()


@pytest.fixture
async def theirs() -> AsyncIterator[JsHost]:
    host = await JsHost.start(THEIR_SEED, THEIR_LEDGER, THEIR_ORIGIN)
    yield host
    await host.stop()


async def until_connected(ours: Libp2pTransport, peer_id: PeerId) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not ours.status(peer_id).is_connected:  # noqa: ASYNC110 - it happens in another thread
            await asyncio.sleep(0.01)


# ------------------------------------------------------------------------------------------------------- below (§1)


async def test_js_dials_us_identifies_us_and_pings(ours: Libp2pTransport, theirs: JsHost) -> None:
    address = ours.listen_addresses[0]
    found = await theirs.ask("identify", address=address)
    assert found["peer"] == ours.peer_id
    assert "py-libp2p" in found["agent"]
    assert PROTOCOL_ID in found["protocols"]
    assert (await theirs.ask("ping", address=address))["rttMs"] >= 0


async def test_peer_id_of_a_seed_is_the_same_in_both(ours: Libp2pTransport, theirs: JsHost) -> None:
    twin = Libp2pTransport(identity_seed=THEIR_SEED, listen_addresses=[])
    assert twin.peer_id == theirs.peer_id


# ---------------------------------------------------------------------------------------------- streams (§2, §5, §6)


async def test_js_opens_a_stream_and_sends(ours: Libp2pTransport, theirs: JsHost, inbox: Inbox) -> None:
    ours.set_peer(PeerId(theirs.peer_id), [])
    address = ours.listen_addresses[0]
    opened = await theirs.ask("open", address=address)
    assert opened["hello"] == [*_fields(OUR_HELLO)]

    await theirs.ask("beat")
    await theirs.wait_for("pong", nonce=1)
    await theirs.ask("send", messages=[b"one", b"", b"three"])
    assert await inbox.wait_for(3) == [b"one", b"", b"three"]
    await theirs.wait_for("credit", count=3, bytes=8)


async def test_we_dial_js_and_send(ours: Libp2pTransport, theirs: JsHost) -> None:
    peer_id = PeerId(theirs.peer_id)
    await theirs.ask("know", peer=ours.peer_id)
    ours.set_peer(peer_id, theirs.addresses)
    await until_connected(ours, peer_id)
    assert ours.status(peer_id).hello == THEIR_HELLO
    heard = await theirs.wait_for("hello", peer=ours.peer_id)
    assert heard["fields"] == [*_fields(OUR_HELLO)]

    sent = [bytes([number]) * number for number in range(50)]
    await asyncio.gather(*(ours.send(peer_id, one, timeout_s=PATIENCE_S) for one in sent))
    assert await theirs.wait_for_messages(50) == sent
    await theirs.wait_for("ping", nonce=2)
    assert ours.status(peer_id).rtt_ms is not None
    assert ours.status(peer_id).error_count == 0


async def test_both_directions_at_once_beyond_the_window(ours: Libp2pTransport, theirs: JsHost, inbox: Inbox) -> None:
    """More than `WINDOW_MESSAGES` and `WINDOW_BYTES` each way: neither ends unless the other gives credit."""
    peer_id = PeerId(theirs.peer_id)
    await theirs.ask("know", peer=ours.peer_id)
    ours.set_peer(peer_id, theirs.addresses)
    await until_connected(ours, peer_id)
    await theirs.ask("open", address=ours.listen_addresses[0])
    count = framing.WINDOW_MESSAGES + 500
    sent = [number.to_bytes(4, "big") * 512 for number in range(count)]
    assert sum(map(len, sent)) > framing.WINDOW_BYTES

    async def they_send() -> None:
        for first in range(0, count, 200):
            await theirs.ask("send", messages=sent[first : first + 200])

    async def we_send() -> None:
        for first in range(0, count, 500):
            await asyncio.gather(*(ours.send(peer_id, one, timeout_s=PATIENCE_S) for one in sent[first : first + 500]))

    await asyncio.gather(they_send(), we_send())
    assert await theirs.wait_for_messages(count) == sent
    assert await inbox.wait_for(count) == sent


async def test_longest_message_passes_both_ways(ours: Libp2pTransport, theirs: JsHost, inbox: Inbox) -> None:
    peer_id = PeerId(theirs.peer_id)
    await theirs.ask("know", peer=ours.peer_id)
    ours.set_peer(peer_id, theirs.addresses)
    longest = bytes(range(256)) * (framing.MESSAGE_BYTES_MAX // 256)
    await ours.send(peer_id, longest, timeout_s=PATIENCE_S)
    assert await theirs.wait_for_messages(1) == [longest]
    await theirs.ask("open", address=ours.listen_addresses[0])
    await theirs.ask("send", messages=[longest])
    assert await inbox.wait_for(1) == [longest]


async def test_we_refuse_a_stranger(ours: Libp2pTransport, theirs: JsHost) -> None:
    assert (await theirs.ask("open", address=ours.listen_addresses[0]))["code"] == "unknown_peer"


async def test_js_refuses_a_stranger(ours: Libp2pTransport, theirs: JsHost) -> None:
    peer_id = PeerId(theirs.peer_id)
    ours.set_peer(peer_id, theirs.addresses)
    async with asyncio.timeout(PATIENCE_S):
        while ours.status(peer_id).last_error != "unknown_peer":  # noqa: ASYNC110 - it happens in another thread
            await asyncio.sleep(0.01)
    await theirs.ask("know", peer=ours.peer_id)
    await until_connected(ours, peer_id)


async def test_goodbye_of_either_side_ends_the_stream_and_we_open_another(
    ours: Libp2pTransport, theirs: JsHost
) -> None:
    peer_id = PeerId(theirs.peer_id)
    await theirs.ask("know", peer=ours.peer_id)
    ours.set_peer(peer_id, theirs.addresses)
    await until_connected(ours, peer_id)
    await theirs.ask("goodbye", side="acceptor", code="stopping")
    async with asyncio.timeout(PATIENCE_S):
        while ours.status(peer_id).last_error != "stopping":  # noqa: ASYNC110 - it happens in another thread
            await asyncio.sleep(0.01)
    await until_connected(ours, peer_id)

    await theirs.ask("open", address=ours.listen_addresses[0])
    ours.remove_peer(peer_id)
    assert (await theirs.ask("ended"))["code"] == "unknown_peer"


async def test_newer_stream_replaces_the_older(ours: Libp2pTransport, theirs: JsHost, inbox: Inbox) -> None:
    ours.set_peer(PeerId(theirs.peer_id), [])
    address = ours.listen_addresses[0]
    await theirs.ask("open", address=address)
    await theirs.ask("send", messages=[b"older"])
    older = asyncio.ensure_future(theirs.ask("ended"))
    await inbox.wait_for(1)
    await theirs.ask("open", address=address)
    assert (await older)["code"] == "stream_replaced"
    await theirs.ask("send", messages=[b"newer"])
    assert await inbox.wait_for(2) == [b"older", b"newer"]


FAULTS = [
    (bytes.fromhex("8000"), "varint_not_minimal"),
    (bytes.fromhex("ffffffff01"), "varint_too_long"),
    (bytes.fromhex("818040"), "frame_too_long"),
    (bytes.fromhex("049202cc07"), "frame_not_canonical"),
    (bytes.fromhex("0493020700"), "frame_not_canonical"),
    (bytes.fromhex("03920600"), "frame_malformed"),
    (encode_frame(Pong(1)), "frame_unexpected"),
    (encode_frame(Credit(0, 0)), "frame_unexpected"),
    (encode_frame(OUR_HELLO), "frame_unexpected"),
]


async def test_js_is_told_what_it_did_wrong(ours: Libp2pTransport, theirs: JsHost) -> None:
    await theirs.ask("know", peer=ours.peer_id)
    ours.set_peer(PeerId(theirs.peer_id), [])
    for written, code in FAULTS:
        await theirs.ask("open", address=ours.listen_addresses[0])
        assert (await theirs.ask("write", bytes=written))["code"] == code
        assert ours.status(PeerId(theirs.peer_id)).last_error == code


async def test_hello_of_another_version_is_refused(ours: Libp2pTransport, theirs: JsHost) -> None:
    ours.set_peer(PeerId(theirs.peer_id), [])
    newer = [0, 2, *_fields(OUR_HELLO)[1:]]
    assert (await theirs.ask("open", address=ours.listen_addresses[0], hello=newer))["code"] == "version_unknown"


# ----------------------------------------------------------------------------------------------------- a whole node


def peer_with_js(folder: Path, node: Served, theirs: JsHost) -> None:
    """Have the node's board record a peering with the ledger that the js-libp2p host stands for."""
    keys, ledger = load_keys(folder / "keys"), ledger_of(folder)
    ours = Side(
        agent=keys.public_key("agent"),
        cosigner=keys.public_key("cosigner"),
        cosigner_ml_dsa_44=keys.further_cosigner,
        domain="troc.example",
        host=keys.public_key("host"),
        keys_index=0,
        ledger=ledger,
        limit_minor=1_000,
        log=keys.public_key("log"),
        origin=log_origin("troc.example", ledger),
        unit="BART",
    )
    signers = {name: Signer(name.encode().ljust(32, b".")) for name in ("agent", "cosigner", "log")}
    other = Side(
        host=Signer(THEIR_SEED).public_key,
        cosigner_ml_dsa_44=None,
        domain="js.example",
        keys_index=0,
        ledger=THEIR_LEDGER,
        limit_minor=1_000,
        origin=THEIR_ORIGIN,
        unit="BART",
        **{name: one.public_key for name, one in signers.items()},
    )
    deciders = tuple(decider_of(one, (ours, other), 2) for one in (ours, other))
    statement = draft_peering(ours, other, deciders)
    agents = (Signer(keys.seed("agent")), signers["agent"])
    payload = peered(statement, [sign_statement(agent, statement) for agent in agents])
    entry = build_entry(ledger, "federation.peer", payload, author=BOARD, signers=(BOARD_KEY,), now_ms=wall_ms())
    node.must_post(entry)
    assert theirs.peer_id == peer_id_of(other.host)


async def until_told(theirs: JsHost, message: Message) -> None:
    count = 0
    while message not in map(decode_message, theirs.messages()[count:]):
        count = len(theirs.messages())
        await theirs.wait_for_messages(count + 1)


async def test_js_is_a_partner_of_a_running_node(theirs: JsHost, tmp_path: Path) -> None:
    """The node dials it and asks for the head of its log; js asks the node for its own, and is answered."""
    folder, port = tmp_path / "node", free_port()
    make_founded(folder, listen=f"/ip4/127.0.0.1/tcp/{port}")
    settings = folder / "node.toml"
    partner = f'\n[[federation.peers]]\nledger = "{THEIR_LEDGER.hex()}"\naddresses = {json.dumps(theirs.addresses)}\n'
    settings.write_text(settings.read_text("utf-8").replace("\n[log]\n", f"{partner}\n[log]\n"), "utf-8")
    our_peer_id = peer_id_of(load_keys(folder / "keys").public_key("host"))
    await theirs.ask("know", peer=our_peer_id)
    with serve(folder) as node:
        peer_with_js(folder, node, theirs)
        heard = await theirs.wait_for("hello", peer=our_peer_id)
        our_origin = log_origin("troc.example", ledger_of(folder))
        assert heard["fields"][2:4] == [our_origin, ledger_of(folder)]
        await until_told(theirs, AskHead(our_origin))

        opened = await theirs.ask("open", address=f"/ip4/127.0.0.1/tcp/{port}/p2p/{our_peer_id}")
        assert opened["hello"][2:4] == [our_origin, ledger_of(folder)]
        await theirs.ask("send", messages=[encode_message(AskHead(THEIR_ORIGIN))])
        await theirs.wait_for("credit", count=1)
        await until_told(theirs, Head(THEIR_ORIGIN, None))


# ------------------------------------------------------------------------------------------------------ frames (§3)


async def test_js_reads_the_examples_of_the_page_as_we_do(theirs: JsHost) -> None:
    rows = re.findall(r"^\| `([A-Z][a-z]+\(.*\))` \| `([0-9a-f ]+)` \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert len(rows) >= 8
    for shown, encoded in rows:
        # The page's own text, from this repository: safe to evaluate.
        frame = eval(shown, vars(framing) | {"bytes": bytes, "range": range})
        answer = await theirs.ask("frame", bytes=bytes.fromhex(encoded))
        assert answer["bytes"] == encode_frame(frame) == bytes.fromhex(encoded)
        assert answer["frame"][1:] == [*_fields(frame)]


async def test_js_refuses_what_the_page_refuses(theirs: JsHost) -> None:
    rows = re.findall(r"^\| `([0-9a-f ]+)`[^|]*\| `([a-z_]+)` \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert len(rows) >= 6
    for encoded, code in rows:
        assert (await theirs.ask("frame", bytes=bytes.fromhex(encoded)))["code"] == code


def _fields(frame: Hello | Batch | Ping | Any) -> tuple[Any, ...]:
    fields = tuple(getattr(frame, name) for name in frame.__struct_fields__)
    return tuple([*one] if isinstance(one, tuple) else one for one in fields)
