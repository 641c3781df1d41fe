# SPDX-License-Identifier: AGPL-3.0-or-later
"""What only libp2p can show: other processes that die or stop, peers that break the framing, a thread started anew."""

import asyncio
import os
import signal
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.security.insecure.transport import PLAINTEXT_PROTOCOL_ID, InsecureTransport
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_ID
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX_ID
from libp2p.stream_muxer.yamux.yamux import Yamux
from multiaddr import Multiaddr

from ecot_node.federation import framing
from ecot_node.federation.framing import Batch, Credit, FrameDecoder, Goodbye, Hello, Ping, Pong, encode_frame
from ecot_node.federation.libp2p_host import Libp2pTransport
from ecot_node.federation.port import PROTOCOL_ID, PeerId, PeerUnreachable, TransportLimits
from ecot_protocol.errors import LocalProtocolError, RemoteProtocolError

LIMITS = TransportLimits(
    reconnect_first_s=0.1,
    reconnect_max_s=0.4,
    heartbeat_interval_s=0.2,
    heartbeat_timeout_s=1.0,
    hello_timeout_s=1.0,
    dial_timeout_s=2.0,
)
HELLO = encode_frame(Hello(1, "test", "test.example/ecot/00", bytes(32)))
PATIENCE_S = 20.0

OTHER_PROCESS = """
    import asyncio, sys
    from ecot_node.federation.framing import Hello, encode_frame
    from ecot_node.federation.libp2p_host import Libp2pTransport
    from ecot_node.federation.port import TransportLimits

    async def main():
        listen, friend, friend_address = sys.argv[1:]
        limits = TransportLimits(reconnect_first_s=0.1, reconnect_max_s=0.4, heartbeat_interval_s=0.2,
            heartbeat_timeout_s=1.0, hello_timeout_s=1.0, dial_timeout_s=2.0)
        transport = Libp2pTransport(identity_seed=b"o" * 32, listen_addresses=[listen], limits=limits, jitter_seed=3)

        async def echo(peer_id, messages):
            for message in messages:
                await transport.send(peer_id, b"echo " + message, timeout_s=10)

        hello = encode_frame(Hello(1, "other", "other.example/ecot/00", bytes(32)))
        await transport.start(echo, hello)
        transport.set_peer(friend, [friend_address])
        print(transport.listen_addresses[0], flush=True)
        await asyncio.sleep(120)

    asyncio.run(main())
"""


class Inbox:
    """Keep what arrives."""

    def __init__(self) -> None:
        self.received: list[bytes] = []

    async def deliver(self, peer_id: PeerId, messages: tuple[bytes, ...]) -> None:
        self.received.extend(messages)


class Other:
    """Another process with a transport that echoes."""

    def __init__(self, process: asyncio.subprocess.Process, address: str) -> None:
        self.process = process
        self.address = address
        self.peer_id = PeerId(address.rpartition("/p2p/")[2])

    @classmethod
    async def start(cls, friend: Libp2pTransport, listen: str = "/ip4/127.0.0.1/tcp/0") -> "Other":
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", textwrap.dedent(OTHER_PROCESS), listen),
            *(friend.peer_id, friend.listen_addresses[0]),
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            line = await process.stdout.readline()
        return cls(process, line.decode().strip())

    async def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


async def until(condition: Callable[[], bool]) -> None:
    """Wait, within bounds, for what other threads and processes bring about."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - it happens in another thread
            await asyncio.sleep(0.01)


def make(seed: bytes = b"s" * 32, limits: TransportLimits = LIMITS, listen: str | None = None) -> Libp2pTransport:
    addresses = [listen or "/ip4/127.0.0.1/tcp/0"]
    return Libp2pTransport(identity_seed=seed, listen_addresses=addresses, limits=limits, jitter_seed=5)


@pytest.fixture
async def inbox() -> Inbox:
    return Inbox()


@pytest.fixture
async def ours(inbox: Inbox) -> AsyncIterator[Libp2pTransport]:
    transport = make()
    await transport.start(inbox.deliver, HELLO)
    yield transport
    await transport.stop()


# -------------------------------------------------------------------------------------------------------- identity


def test_peer_id_is_that_of_the_seed() -> None:
    assert make(b"a" * 32).peer_id == make(b"a" * 32).peer_id != make(b"b" * 32).peer_id
    # The libp2p peer ids page: an Ed25519 id is the identity multihash of the key, base58btc "12D3KooW...".
    assert make(b"a" * 32).peer_id.startswith("12D3KooW")


def test_seed_of_another_length_is_refused() -> None:
    with pytest.raises(LocalProtocolError):
        make(b"short")


@pytest.mark.parametrize(
    "address",
    ["", "x", "/ip4/300.1.1.1/tcp/1", "/ip4/127.0.0.1/tcp/99999", "/ip4/127.0.0.1", "/dns4/coop.example/tcp/1"],
)
def test_address_to_listen_at_must_be_an_ip_and_a_tcp_port(address: str) -> None:
    with pytest.raises(LocalProtocolError):
        make(listen=address or "/")


@pytest.mark.parametrize("peer_id", ["", "0OIl", "12D3KooW", "not base58", "Qm" + "1" * 44])
def test_peer_id_that_is_malformed_is_refused(peer_id: str) -> None:
    with pytest.raises(LocalProtocolError):
        make().set_peer(PeerId(peer_id), [])


# --------------------------------------------------------------------------------------------- processes that go away


async def test_killed_process_fails_sends_and_traffic_resumes_when_it_is_back(
    ours: Libp2pTransport, inbox: Inbox
) -> None:
    other = await Other.start(ours)
    ours.set_peer(other.peer_id, [other.address])
    await ours.send(other.peer_id, b"1", timeout_s=PATIENCE_S)
    await until(lambda: inbox.received == [b"echo 1"])

    sends = [asyncio.ensure_future(ours.send(other.peer_id, bytes(20_000), timeout_s=1.5)) for _ in range(2000)]
    await asyncio.sleep(0.02)
    other.process.send_signal(signal.SIGKILL)
    results = await asyncio.gather(*sends, return_exceptions=True)
    assert any(isinstance(result, PeerUnreachable) for result in results)
    assert not ours.status(other.peer_id).is_connected
    await other.kill()

    inbox.received.clear()
    again = await Other.start(ours, listen=other.address.partition("/p2p/")[0])
    try:
        assert again.address == other.address
        await ours.send(again.peer_id, b"2", timeout_s=PATIENCE_S)
        await until(lambda: inbox.received == [b"echo 2"])
    finally:
        await again.kill()


async def test_stopped_process_is_noticed_by_the_heartbeat(ours: Libp2pTransport, inbox: Inbox) -> None:
    other = await Other.start(ours)
    try:
        ours.set_peer(other.peer_id, [other.address])
        await ours.send(other.peer_id, b"1", timeout_s=PATIENCE_S)
        await until(lambda: ours.status(other.peer_id).rtt_ms is not None)

        other.process.send_signal(signal.SIGSTOP)
        await until(lambda: not ours.status(other.peer_id).is_connected)
        assert ours.status(other.peer_id).last_error in {"heartbeat_timeout", "dial_timeout", "dial_failed"}
        with pytest.raises(PeerUnreachable):
            await ours.send(other.peer_id, b"2", timeout_s=0.5)

        other.process.send_signal(signal.SIGCONT)
        await ours.send(other.peer_id, b"3", timeout_s=PATIENCE_S)
        await until(lambda: b"echo 3" in inbox.received)
        assert b"echo 2" not in inbox.received
    finally:
        await other.kill()


async def test_blocked_asyncio_loop_does_not_stop_the_heartbeat(ours: Libp2pTransport) -> None:
    other = await Other.start(ours)
    try:
        ours.set_peer(other.peer_id, [other.address])
        await ours.send(other.peer_id, b"1", timeout_s=PATIENCE_S)
        error_count = ours.status(other.peer_id).error_count
        time.sleep(1.5 * LIMITS.heartbeat_timeout_s)  # noqa: ASYNC251 - the very thing that is tested
        await ours.send(other.peer_id, b"2", timeout_s=PATIENCE_S)
        assert ours.status(other.peer_id).error_count == error_count
    finally:
        await other.kill()


# -------------------------------------------------------------------------------------------- the thread started anew


async def test_thread_is_started_anew_when_its_tasks_pile_up(inbox: Inbox) -> None:
    ours = make(limits=TransportLimits(reconnect_first_s=0.1, host_tasks_max=60))
    await ours.start(inbox.deliver, HELLO)
    friend = make(b"f" * 32)
    await friend.start(Inbox().deliver, HELLO)
    ours.set_peer(friend.peer_id, friend.listen_addresses)
    friend.set_peer(ours.peer_id, ours.listen_addresses)
    address = ours.listen_addresses
    try:
        await friend.send(ours.peer_id, b"before", timeout_s=PATIENCE_S)
        port = int(Multiaddr(address[0]).value_for_protocol("tcp"))
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(60)]
        await until(lambda: ours.restart_count > 0)
        for _, writer in held:
            writer.close()
        await friend.send(ours.peer_id, b"after", timeout_s=PATIENCE_S)
        await until(lambda: inbox.received == [b"before", b"after"])
        assert ours.listen_addresses == address
    finally:
        await ours.stop()
        await friend.stop()


# --------------------------------------------------------------------------------------------------- hostile peers


class Stranger:
    """A plain libp2p host that sends bytes of its own choice, under trio in a worker thread."""

    def __init__(self, seed: bytes, *, security: str = "noise") -> None:
        self.key_pair = create_new_key_pair(seed)
        self.peer_id = PeerId(str(ID.from_pubkey(self.key_pair.public_key)))
        self.security = security

    async def talk(self, address: str, chunks: list[bytes]) -> list[Any]:
        """Open a stream, send chunks, and answer the frames that come back until it ends or is silent for a second."""
        return await asyncio.to_thread(trio.run, self._talk, address, chunks)

    def _host(self) -> Any:
        if self.security == "noise":
            noise = NoiseTransport(self.key_pair, noise_privkey=create_noise_key_pair().private_key)
            offered: dict[Any, Any] = {NOISE_ID: noise}
        else:
            offered = {PLAINTEXT_PROTOCOL_ID: InsecureTransport(self.key_pair)}
        return new_host(key_pair=self.key_pair, sec_opt=offered, muxer_opt={TProtocol(YAMUX_ID): Yamux})

    async def _talk(self, address: str, chunks: list[bytes]) -> list[Any]:
        host = self._host()
        received: list[Any] = []
        with trio.fail_after(PATIENCE_S):
            async with host.run(listen_addrs=[]):
                await host.connect(info_from_p2p_addr(Multiaddr(address)))
                peer_id = ID.from_base58(address.rpartition("/p2p/")[2])
                stream = await host.new_stream(peer_id, [TProtocol(PROTOCOL_ID)])
                for chunk in chunks:
                    await stream.write(chunk)
                await self._listen(stream, received)
                await host.get_network().close_peer(peer_id)
        return received

    async def _listen(self, stream: Any, received: list[Any]) -> None:
        decoder = FrameDecoder()
        with trio.move_on_after(1.2):
            while True:
                try:
                    chunk = await stream.read(65536)
                except Exception:  # noqa: BLE001 - any end of the stream will do
                    return
                received.extend(decoder.feed(chunk))


FAULTS: list[tuple[list[bytes], str]] = [
    ([encode_frame(Ping(1))], "hello_expected"),
    ([b"\x80\x00"], "varint_not_minimal"),
    ([framing.encode_varint(framing.HELLO_BYTES_MAX + 1)], "frame_too_long"),
    ([encode_frame(Hello(2, "t", "o", bytes(32)))], "version_unknown"),
    ([HELLO, framing.encode_varint(framing.FRAME_BYTES_MAX + 1)], "frame_too_long"),
    ([HELLO, bytes.fromhex("049202cc07")], "frame_not_canonical"),
    ([HELLO, bytes.fromhex("03920600")], "frame_malformed"),
    ([HELLO, encode_frame(Pong(1))], "frame_unexpected"),
    ([HELLO, encode_frame(Credit(0, 0))], "frame_unexpected"),
    ([HELLO, HELLO], "frame_unexpected"),
]


async def test_peers_that_break_the_framing_are_told_so_reset_and_counted(ours: Libp2pTransport) -> None:
    strangers = [Stranger(bytes([number]) * 32) for number in range(len(FAULTS))]
    for stranger in strangers:
        ours.set_peer(stranger.peer_id, [])
    address = ours.listen_addresses[0]
    # Each has a second to read its answer in: all at once, so that the test takes one second and not ten.
    answers = await asyncio.gather(
        *(stranger.talk(address, chunks) for stranger, (chunks, _) in zip(strangers, FAULTS, strict=True))
    )
    assert [answer[-1] for answer in answers] == [Goodbye(code) for _, code in FAULTS]
    assert all(ours.status(stranger.peer_id).error_count > 0 for stranger in strangers)


async def test_messages_before_a_fault_are_delivered(ours: Libp2pTransport, inbox: Inbox) -> None:
    stranger = Stranger(b"h" * 32)
    ours.set_peer(stranger.peer_id, [])
    chunks = [HELLO + encode_frame(Batch((b"good",))) + b"\x80\x00"]
    received = await stranger.talk(ours.listen_addresses[0], chunks)
    assert received[-1] == Goodbye("varint_not_minimal")
    assert inbox.received == [b"good"]


async def test_pings_are_answered_and_messages_credited(ours: Libp2pTransport) -> None:
    stranger = Stranger(b"h" * 32)
    ours.set_peer(stranger.peer_id, [])
    sent = [HELLO, encode_frame(Ping(41)), encode_frame(Batch((b"one", b"three")))]
    received = await stranger.talk(ours.listen_addresses[0], sent)
    assert isinstance(received[0], Hello)
    assert Pong(41) in received
    assert Credit(2, 8) in received


async def test_peer_that_ignores_the_window_is_reset() -> None:
    taken: list[bytes] = []
    gate = asyncio.Event()

    async def never(peer_id: PeerId, messages: tuple[bytes, ...]) -> None:
        await gate.wait()
        taken.extend(messages)

    ours = make()
    await ours.start(never, HELLO)
    try:
        stranger = Stranger(b"h" * 32)
        ours.set_peer(stranger.peer_id, [])
        flood = [encode_frame(Batch((b"x",) * 1000)) for _ in range(4)]
        talking = asyncio.ensure_future(stranger.talk(ours.listen_addresses[0], [HELLO, *flood]))
        await asyncio.sleep(0.5)
        gate.set()
        received = await talking
        assert received[-1] == Goodbye("window_exceeded")
        assert taken == [b"x"] * 2000
    finally:
        await ours.stop()


async def test_silent_peer_is_reset(ours: Libp2pTransport) -> None:
    stranger = Stranger(b"h" * 32)
    ours.set_peer(stranger.peer_id, [])
    received = await stranger.talk(ours.listen_addresses[0], [])
    assert received == [Goodbye("hello_timeout")]


async def test_unknown_peer_gets_no_hello(ours: Libp2pTransport, inbox: Inbox) -> None:
    received = await Stranger(b"u" * 32).talk(ours.listen_addresses[0], [HELLO + encode_frame(Batch((b"x",)))])
    assert received == [Goodbye("unknown_peer")]
    assert inbox.received == []


async def test_plaintext_is_not_spoken(ours: Libp2pTransport) -> None:
    stranger = Stranger(b"u" * 32, security="plaintext")
    ours.set_peer(stranger.peer_id, [])
    with pytest.raises(BaseException) as refused:  # noqa: PT011 - whatever the library raises
        await stranger.talk(ours.listen_addresses[0], [HELLO])
    assert not isinstance(refused.value, AssertionError | RemoteProtocolError)
    assert ours.status(stranger.peer_id).last_contact_age_ms is None


def test_nothing_but_bootstrap_needs_libp2p() -> None:
    """The port, the frames and the twin are importable where libp2p is not installed."""
    script = (
        "import sys; sys.modules['libp2p'] = sys.modules['trio'] = None\n"
        "import ecot_node.federation.port, ecot_node.federation.framing, ecot_node.federation.memory"
    )
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", script]) == 0
