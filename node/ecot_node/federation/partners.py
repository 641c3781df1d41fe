# SPDX-License-Identifier: AGPL-3.0-or-later
"""The desk for partners: what there is to say about a partnership itself rather than about a deal.

Mirrors are compared (`reconciling`), keys that were replaced are shown and followed (`following`), proposals go to and
fro between boards (`proposing`). All of it may be lost and is said again; nothing of it holds up a deal.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Final

import aiohttp
import structlog

from ecot_node.federation.following import KeyFollower
from ecot_node.federation.mirror_book import MirrorBook
from ecot_node.federation.peer_limits import Bucket, Pace
from ecot_node.federation.proposing import ProposalRefused, Proposals
from ecot_node.federation.reconciling import MirrorStatus, Reconciler
from ecot_node.ledger.errors import NotWriting, Overloaded
from ecot_node.ledger.tree import prove
from ecot_node.ledger.writer import Writer
from ecot_node.store.errors import StoreError
from ecot_node.store.forks import ForkBoard
from ecot_node.store.port import LogStore
from ecot_protocol.domains.federation.messages import (
    Answered,
    AskMirror,
    KeysShown,
    Message,
    PartnerMessage,
    Propose,
    decode_message,
)
from ecot_protocol.domains.federation.proofs import Inclusion, RecordProof
from ecot_protocol.domains.federation.state import Peer
from ecot_protocol.domains.federation.statements import LogKey
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.state import State
from ecot_protocol.wire.checkpoint import Checkpoint
from ecot_protocol.wire.cosignature import Cosigner
from ecot_protocol.wire.keys import Signer
from ecot_protocol.wire.merkle import inclusion_proof
from ecot_protocol.wire.note import SignedNote

log = structlog.get_logger("ecot.partners")

TICK_S: Final = 1.0
OWN_KEYS_AGAIN_S: Final = 10.0
KEYS_OVER_HTTP_S: Final = 60.0
"""How often a partner that is not connected is asked over HTTP whether it has new keys."""
HTTP_TIMEOUT_S: Final = 10.0
MAX_KEYS_BYTES: Final = 300_000
MAX_HEARD: Final = 64
"""Messages of one partner that wait for their turn."""
OF_PARTNERS: Final = Pace(per_second=2, burst=240)
"""Messages about the partnership that are taken from one partner."""


class PartnerDesk:
    """The desk of one node.

    Args:
        writer: started, and past its genesis.
        store: of the same node.
        book: what our ledger posted with each partner.
        agent: signs what we say.
        cosigner: cosigns checkpoints that show replaced keys.
        forks: where proofs go that a log forked.
        urls: ledger id (hex) of a partner -> where it answers HTTP.
    """

    def __init__(
        self,
        writer: Writer,
        store: LogStore,
        book: MirrorBook,
        *,
        agent: Signer,
        cosigner: Cosigner,
        forks: ForkBoard,
        urls: Mapping[str, str],
    ) -> None:
        self._writer, self._store, self._urls = writer, store, urls
        self._tell: Callable[[bytes, Message], None] = lambda _ledger, _message: None
        self._is_connected: Callable[[bytes], bool] = lambda _ledger: False
        self.reconciler = Reconciler(self, book, store, agent, self.tell)
        self.follower = KeyFollower(writer, store, cosigner, forks)
        self.proposals = Proposals(self, store, agent, self.tell)
        self._limits: dict[bytes, Bucket] = {}
        self._own_keys_due_s = 0.0
        self._keys_due_s: dict[bytes, float] = {}
        self._task: asyncio.Task[None] | None = None
        self._heard: dict[bytes, asyncio.Queue[PartnerMessage]] = {}
        self._ears: set[asyncio.Task[None]] = set()

    def attach(self, tell: Callable[[bytes, Message], None], is_connected: Callable[[bytes], bool]) -> None:
        """Learn how partners are reached; without this, over HTTP alone."""
        self._tell, self._is_connected = tell, is_connected

    async def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name="partners")

    async def stop(self) -> None:
        """Stop; what was under way is begun again at the next start."""
        tasks = [*self._ears, *filter(None, (self._task,))]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def tell(self, ledger: bytes, message: Message) -> None:
        """Send a message to a partner, or drop it."""
        self._tell(ledger, message)

    def mirror(self, ledger: bytes) -> MirrorStatus:
        """Return how the last comparison with a partner went."""
        return self.reconciler.status(ledger)

    def reconnected(self, ledger: bytes) -> None:
        """Compare with a partner at every contact."""
        self.reconciler.reconnected(ledger)

    # --- what comes in ----------------------------------------------------------------------------------------------

    def hear(self, sender: bytes, message: PartnerMessage) -> None:
        """Take a message of a partner's node, in its turn; what it floods us with is dropped.

        The partner's deals don't wait for it: an answer may have to wait for the tables.
        """
        if not self._limits.setdefault(sender, Bucket(OF_PARTNERS)).take(time.monotonic()):
            return
        queue = self._heard.get(sender)
        if queue is None:
            queue = self._heard[sender] = asyncio.Queue(MAX_HEARD)
            self._ears.add(asyncio.create_task(self._listen(sender, queue), name="partner"))
        if not queue.full():
            queue.put_nowait(message)

    async def _listen(self, sender: bytes, queue: "asyncio.Queue[PartnerMessage]") -> None:
        while True:
            message = await queue.get()
            try:
                await self._take(sender, message)
            except RemoteProtocolError as error:
                log.warning("message_refused", partner=sender.hex(), code=error.code)
            except (NotWriting, Overloaded, StoreError, TimeoutError) as error:
                log.debug("message_dropped", partner=sender.hex(), error=str(error))
            except Exception:  # whatever broke, the next message is heard
                log.exception("message_failed", partner=sender.hex())

    async def _take(self, sender: bytes, message: PartnerMessage) -> None:
        match message:
            case Propose(statement, signature):
                with contextlib.suppress(ProposalRefused):
                    self.tell(sender, await self.proposals.take(statement, signature, sender))
            case Answered():
                await self.proposals.answered(sender, message)
            case KeysShown():
                await self._follow(sender, message)
            case AskMirror():
                await self._show_keys(sender, message)  # first: our new agent may sign what follows
                await self.reconciler.take(sender, message)
            case _:
                await self.reconciler.take(sender, message)

    async def _show_keys(self, sender: bytes, message: AskMirror) -> None:
        if message.keys_index < self.own_keys_index():
            shown = await self.follower.show(message.keys_index, message.cosigned_size)
            if shown is not None:
                self.tell(sender, shown)

    async def _follow(self, sender: bytes, message: KeysShown) -> None:
        await self.follower.take(sender, message)
        self.reconciler.reconnected(sender)  # there may be more of them; and mirrors are still to be compared

    # --- in time ----------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        async with aiohttp.ClientSession() as session:
            while True:
                await asyncio.sleep(TICK_S)
                try:
                    await self._tick(session)
                except (NotWriting, Overloaded, StoreError) as error:
                    log.debug("partners_wait", reason=str(error))
                except Exception:  # whatever broke, the next tick begins anew; deals don't wait for it
                    log.exception("partners_failed")

    async def _tick(self, session: aiohttp.ClientSession) -> None:
        now_s = time.monotonic()
        if now_s >= self._own_keys_due_s:
            self._own_keys_due_s = now_s + OWN_KEYS_AGAIN_S
            await self.follower.follow_own()
        await self.proposals.tick(session)
        for ledger in [*self.state.federation.peers]:
            if self.is_connected(ledger):
                await self.reconciler.tick(ledger)
            elif now_s >= self._keys_due_s.get(ledger, 0.0) and self._urls.get(ledger.hex()):
                self._keys_due_s[ledger] = now_s + KEYS_OVER_HTTP_S
                await self._ask_keys(session, ledger)

    async def _ask_keys(self, session: aiohttp.ClientSession, ledger: bytes) -> None:
        """Ask over HTTP: a node whose libp2p key was replaced is a stranger there."""
        peer = self.peer(ledger)
        if peer is None:
            return
        side = peer.peering.side_of(ledger)
        cosigned_size, _ = await self.cosigned(side.origin)
        url = f"{self._urls[ledger.hex()].rstrip('/')}/v1/ledger/keys"
        query = {"keys_index": side.keys_index, "cosigned_size": cosigned_size}
        try:
            timeout = aiohttp.ClientTimeout(HTTP_TIMEOUT_S)
            async with session.get(url, params=query, timeout=timeout) as response:
                if response.status != 200:
                    return
                raw = bytearray()
                async for part in response.content.iter_any():
                    raw += part
                    if len(raw) > MAX_KEYS_BYTES:
                        return
            message = decode_message(bytes(raw))
            if isinstance(message, KeysShown):
                await self.follower.take(ledger, message)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            log.debug("keys_not_asked", partner=ledger.hex(), error=str(error))
        except RemoteProtocolError as error:
            log.warning("keys_refused", partner=ledger.hex(), code=error.code)

    # --- what the parts need of the node ----------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """Of the newest record."""
        return self._writer.state

    def wall_ms(self) -> int:
        """Return the node's clock."""
        return self._writer.wall_ms()

    def is_connected(self, ledger: bytes) -> bool:
        """Tell whether messages reach a partner now."""
        return self._is_connected(ledger)

    def peer(self, ledger: bytes) -> Peer | None:
        """Return a partner, as the ledger knows it."""
        return self.state.federation.peers.get(ledger)

    def own_ledger(self) -> bytes:
        """Return our ledger's id."""
        return self.state.coop.founded.ledger

    def own_log(self) -> LogKey:
        """Return our log and its key."""
        coop = self.state.coop
        return LogKey(origin=coop.founded.origin, public_key=coop.node_keys["log"].public_key)

    def own_keys_index(self) -> int:
        """Return the record that last set one of our node's keys."""
        return self.state.coop.node_keys_index

    def durable_size(self) -> int:
        """Return how many records are durable."""
        return self._writer.status().size

    def checkpoint(self) -> bytes:
        """Return our newest checkpoint."""
        return self._writer.checkpoint()

    async def wait_for(self, index: int, timeout_s: float) -> bool:
        """Wait until the views show a record."""
        return index < 0 or await self._writer.wait_for(index, timeout_s)

    async def prove_record(self, index: int) -> RecordProof:
        """Show a record of ours under the newest checkpoint."""
        checkpoint, edge = self._writer.checkpoint(), self._writer.edge()
        size = Checkpoint.parse(SignedNote.parse(checkpoint).text).size
        row = await self._store.record(index)
        assert row is not None, "only durable records are shown"
        hashes = await prove(self._store, edge, lambda reader: inclusion_proof(reader, index, size))
        inclusion = Inclusion(hashes=hashes, index=index, record=row.record)
        return RecordProof(checkpoint=checkpoint, inclusion=inclusion, log=self.own_log())

    async def cosigned(self, origin: str) -> tuple[int, bytes | None]:
        """Return the size and the note of what we cosigned last of a partner's log."""
        known = await self._store.witness_get(origin)
        return (0, None) if known is None else (known.size, known.note)
