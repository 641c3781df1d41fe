# SPDX-License-Identifier: AGPL-3.0-or-later
"""The federation of a running node: the courier of the protocol, with the writer, the store and a transport.

The courier is pure and keeps nothing that it could not lose; this service carries out what it asks for, in order:

- `Tell`: to a bounded queue for each partner; a message may be lost, the courier asks again.
- `Append`: signed by the agent, given to the writer; the newest checkpoint is told before the outcome.
- `Keep`: compare-and-swap in the store, durable before the next output. If somebody else cosigned a later checkpoint
  of that log meanwhile (over HTTP), what follows is not sent, and the courier starts anew from the store.
- `ReadRecord`, `ReadGrowth`: records and proofs from the store.
- `Ahead`: the guard judges, and blocks the writer; a second history never goes on.

On connecting, and whenever a partner will not cosign, it is asked what it last saw of our log (see `guard`).

When the writer rebuilt its state, the courier starts anew.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, NamedTuple

import structlog

from ecot_node.federation.addresses import PartnerAddresses
from ecot_node.federation.decision_keeping import DecisionKeeper
from ecot_node.federation.guard import HistoryGuard
from ecot_node.federation.kept_rounds import KeptRounds
from ecot_node.federation.partners import PartnerDesk
from ecot_node.federation.peer_ids import peer_id_of
from ecot_node.federation.peer_limits import PeerLimits
from ecot_node.federation.port import PeerId, PeerStatus, Transport
from ecot_node.federation.watching import Watching
from ecot_node.ledger.errors import NotWriting, Overloaded
from ecot_node.ledger.port import RecordedEntry
from ecot_node.ledger.tree import prove
from ecot_node.ledger.writer import Writer
from ecot_node.store.errors import StoreError
from ecot_node.store.forks import ForkBoard
from ecot_node.store.port import LogStore, WitnessState
from ecot_protocol.domains.federation import messages
from ecot_protocol.domains.federation.courier import Courier
from ecot_protocol.domains.federation.messages import (
    AskHead,
    Cosigned,
    Head,
    Message,
    PartnerMessage,
    Problem,
    Push,
    decode_message,
    encode_message,
)
from ecot_protocol.domains.federation.netting import Matched, Solution
from ecot_protocol.domains.federation.outputs import (
    Ahead,
    Append,
    Keep,
    KeepFork,
    KeepLeaves,
    KeepRound,
    Output,
    ReadGrowth,
    ReadLeaves,
    ReadRecord,
    Solve,
    Tell,
)
from ecot_protocol.domains.federation.routes import Routes
from ecot_protocol.domains.federation.sighting_messages import Sighting, encode_sighting, is_sighting
from ecot_protocol.domains.federation.sightings import WatchedLog
from ecot_protocol.errors import EcotError, RemoteProtocolError
from ecot_protocol.state import State
from ecot_protocol.wire.checkpoint import Checkpoint
from ecot_protocol.wire.cosignature import Cosigner, Cosigns, cosignature_time, is_fresh
from ecot_protocol.wire.entry import Entry, sign_body
from ecot_protocol.wire.keys import Signer
from ecot_protocol.wire.merkle import consistency_proof
from ecot_protocol.wire.note import NoteSignature, NoteSigner, SignedNote, parse_signatures
from ecot_protocol.wire.note_key import NoteVerifier
from ecot_protocol.wire.reply import Recorded, RecordedBefore, Refused
from ecot_protocol.wire.witness import AddCheckpointRequest

log = structlog.get_logger("ecot.federation")

TICK_S: Final = 0.25
SEND_TIMEOUT_S: Final = 10.0
HEAD_PUSH_MS: Final = 2_000
"""So soon at the latest is a record shown to witnesses."""
APPEND_AGAIN_S: Final = 1.0
"""Until an entry is tried again that the writer would not take."""
SEND_BATCH: Final = 64
"""Messages that are handed to the transport at once, which writes them together."""
KEEP_OWN_S: Final = 1.0
"""How often what our log decided is kept for the tiles of the decision log."""
QUEUE_MAX: Final = 2_048
"""Messages that wait for one partner; the oldest are dropped, the courier asks again."""
DISAGREES: Final = frozenset(("consistency_wrong", "root_wrong"))
"""Why a witness does not cosign what does not extend the checkpoint of ours that it keeps."""


@dataclass(frozen=True, slots=True)
class Netting:
    """What rounds of clearing need of the node.

    Attributes:
        solve: finds what can be cleared; called in a thread.
        kept: where rounds are kept.
    """

    solve: Callable[[Matched], Solution]
    kept: KeptRounds


class FederationSigners(NamedTuple):
    """The keys that the federation signs with.

    Attributes:
        agent: signs the node's entries and promises.
        decisions: the log's key, named like the decision log.
        cosigners: cosign partners' checkpoints, named like our log; decisions count by the first.
    """

    agent: Signer
    decisions: NoteSigner
    cosigners: tuple[Cosigner, *tuple[Cosigns, ...]]


class FederationService:
    """Drives the courier of one node.

    Args:
        writer: started, and past its genesis.
        store: of the same node, open.
        transport: not started.
        guard: judges what partners saw of our log.
        board: where proofs are kept that a log forked.
        signers: the node's keys.
        addresses: where partners are found.
        hello: the first frame on every stream.
        netting: solves rounds of clearing and keeps them; None: this node lets others solve, and keeps none.
    """

    def __init__(  # noqa: PLR0913 - it joins the parts of a node
        self,
        writer: Writer,
        store: LogStore,
        transport: Transport,
        guard: HistoryGuard,
        *,
        board: ForkBoard,
        signers: FederationSigners,
        addresses: PartnerAddresses,
        hello: bytes,
        netting: Netting | None = None,
    ) -> None:
        self._netting = netting
        self._writer, self._store, self._transport, self._guard = writer, store, transport, guard
        self._agent, self._decisions, self._cosigners = signers
        self._hello = hello
        self._keeper = DecisionKeeper(writer, store, self._decisions.verifier.name)
        self._addresses = addresses
        self._dialled: dict[PeerId, tuple[str, ...]] = {}
        self._ledger_of: dict[PeerId, bytes] = {}
        self._queues: dict[bytes, _PeerQueue] = {}
        self._limits: dict[bytes, PeerLimits] = {}
        self._kept_sizes: dict[str, int] = {}
        self._pushed_size = 0
        self._kept_own_at_s = 0.0
        self._courier: Courier | None = None
        self._state: State | None = None
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ticker: asyncio.Task[None] | None = None
        self._unsubscribe: Callable[[], None] = lambda: None
        self._moved = asyncio.Event()
        self._connected: dict[PeerId, None] = {}
        self._watching = Watching(writer, store, board, guard, self._put)
        self._desk: PartnerDesk | None = None
        self._witnessed: dict[bytes, int] = {}

    def serve(self, desk: PartnerDesk) -> None:
        """Carry what the desk says to partners, and give it what they say of a partnership rather than of a deal."""
        self._desk = desk
        desk.attach(self._put, self._is_connected)

    async def start(self) -> None:
        """Open the transport and begin."""
        await self._watching.start()
        self._unsubscribe = self._writer.subscribe(self._on_recorded)
        await self._transport.start(self._deliver, self._hello)
        self._ticker = asyncio.create_task(self._run(), name="courier")

    async def stop(self) -> None:
        """Stop; whatever was under way is begun again at the next start."""
        self._unsubscribe()
        if self._ticker is not None:
            self._ticker.cancel()
        for task in self._tasks:
            task.cancel()
        for queue in self._queues.values():
            queue.stop()
        await asyncio.gather(*self._tasks, *filter(None, (self._ticker,)), return_exceptions=True)
        await self._transport.stop()

    @property
    def listen_addresses(self) -> tuple[str, ...]:
        """Where partners reach this node, each with its peer id."""
        return self._transport.listen_addresses

    def watched(self) -> tuple[WatchedLog, ...]:
        """Return what is known of each log that partners may see too."""
        return self._watching.logs()

    def status(self, ledger: bytes) -> PeerStatus | None:
        """Return how the connection with a partner is; None if it is not a partner."""
        peer_id = next((one for one, found in self._ledger_of.items() if found == ledger), None)
        return self._transport.status(peer_id) if peer_id is not None else None

    def is_partner(self, peer_id: PeerId) -> bool:
        """Tell whether a peer id is that of a recorded partner."""
        return peer_id in self._ledger_of

    async def seen_nearby(self, peer_id: PeerId, addresses: Sequence[str]) -> None:
        """Take where a partner seems to be on the local network."""
        ledger = self._ledger_of.get(peer_id)
        if ledger is not None:
            await self._addresses.seen(ledger, addresses)

    def routes(self) -> dict[bytes, Routes]:
        """Return what other ledgers let know for those who look for a path."""
        return self._courier.routes if self._courier is not None else {}

    def refusal(self, tid: bytes) -> messages.Refused | None:
        """Return why a transfer of ours can't go through, as far as we were told."""
        return self._courier.refusal(tid) if self._courier is not None else None

    def witnessed_size(self, ledger: bytes) -> int | None:
        """Return the size of our log that a partner cosigned last, since the start."""
        return self._witnessed.get(ledger)

    async def propose(self, contract: bytes) -> None:
        """Offer a clearing round to all who take part in it.

        Raises:
            RemoteProtocolError: it is not sound.
        """
        await self._with_courier(lambda courier: courier.propose(contract, self._writer.wall_ms()))

    def round(self, call: bytes) -> bytes | None:
        """Return a round of clearing as it was kept, or None."""
        return None if self._netting is None else self._netting.kept.read(call)

    async def call(self, raw: bytes) -> None:
        """Call ledgers to a round of clearing.

        Raises:
            RemoteProtocolError: the call is not sound, or we are to decide it and may not.
        """
        await self._with_courier(lambda courier: courier.call(raw, self._writer.wall_ms()))

    # --- what happens -----------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._moved.wait(), TICK_S)
            self._moved.clear()
            try:
                await self._know_peers()
                await self._with_courier(self._tell_head)
                reconnected = self._find_reconnected()
                for peer_id in reconnected:
                    self._ask_head(self._ledger_of[peer_id])
                    self._watching.met(self._ledger_of[peer_id])
                    if self._desk is not None:
                        self._desk.reconnected(self._ledger_of[peer_id])
                await self._watching.tick()
                if reconnected:
                    await self._with_courier(lambda courier: courier.reconnected(self._writer.wall_ms()))
                await self._keep_own_decisions()
            except StoreError as error:
                log.warning("courier_waits", error=str(error))
            except Exception:  # whatever broke, the courier begins anew at the next tick; nothing is lost by it
                log.exception("courier_failed")

    async def _keep_own_decisions(self) -> None:
        now_s = asyncio.get_running_loop().time()
        if self._courier is not None and now_s - self._kept_own_at_s >= KEEP_OWN_S:
            self._kept_own_at_s = now_s
            await self._keeper.keep_own(self._courier)

    def _find_reconnected(self) -> list[PeerId]:
        """Return the partners that can be reached now and could not be at the last look."""
        before = self._connected
        self._connected = {one: None for one in self._ledger_of if self._transport.status(one).is_connected}
        for peer_id in before:
            if peer_id not in self._connected:
                self._addresses.lost(self._ledger_of.get(peer_id, b""))
        return [one for one in self._connected if one not in before]

    def _ask_head(self, ledger: bytes) -> None:
        """Ask a partner for the newest checkpoint of our log that it cosigned."""
        queue, log_key = self._queues.get(ledger), self._writer.log_key
        if queue is not None and log_key is not None:
            queue.put(AskHead(log_key.name))
            queue.put(AskHead(self._decisions.verifier.name))

    def _is_connected(self, ledger: bytes) -> bool:
        status = self.status(ledger)
        return status is not None and status.is_connected

    def _tell_head(self, courier: Courier) -> list[Output]:
        return courier.head(self._writer.checkpoint(), self._writer.wall_ms())

    def _on_recorded(self, _recorded: Sequence[RecordedEntry]) -> None:
        self._moved.set()

    async def _know_peers(self) -> None:
        """Let the transport know the partners that the ledger knows, and where they are found."""
        state = self._writer.state
        assert state.ledger is not None
        peers = dict(state.federation.peers)
        found = {ledger: PeerId(peer_id_of(one.peering.side_of(ledger).host)) for ledger, one in peers.items()}
        is_new = {ledger for ledger, peer_id in found.items() if self._ledger_of.get(peer_id) != ledger}
        if is_new:
            await self._addresses.know({ledger: one.peering.side_of(ledger).domain for ledger, one in peers.items()})
        is_changed = self._addresses.has_changed()
        for ledger, peer_id in found.items():
            if ledger in is_new:
                for replaced in [one for one, known in self._ledger_of.items() if known == ledger]:
                    self._transport.remove_peer(replaced)  # its node has another libp2p key since
                    self._dialled.pop(replaced, None)
                    self._queues.pop(ledger).stop()
                self._ledger_of = {one: known for one, known in self._ledger_of.items() if known != ledger}
                self._ledger_of[peer_id] = ledger
                self._queues[ledger] = _PeerQueue(self._transport, peer_id)
            if ledger in is_new or is_changed:
                self._set_addresses(ledger, peer_id)
            if peer_id in self._connected:
                await self._addresses.heard(ledger, self._transport.status(peer_id))

    def _set_addresses(self, ledger: bytes, peer_id: PeerId) -> None:
        addresses = self._addresses.of(ledger)
        if self._dialled.get(peer_id) != addresses:
            self._dialled[peer_id] = addresses
            self._transport.set_peer(peer_id, addresses)

    async def _deliver(self, peer_id: PeerId, messages: tuple[bytes, ...]) -> None:
        ledger = self._ledger_of.get(peer_id)
        if ledger is None:
            return
        limits = self._limits.setdefault(ledger, PeerLimits(asyncio.get_running_loop().time))
        for raw in messages:
            try:
                if is_sighting(raw):
                    await self._watching.receive(ledger, raw)
                    continue
                message = decode_message(raw)
                if isinstance(message, PartnerMessage):
                    if self._desk is not None:
                        self._desk.hear(ledger, message)
                    continue
                deals = self._writer.state.federation
                if not limits.allows(message, deals.promises, deals.decisions, deals.calls):
                    continue  # the partner asks again; a line in the log for each would be one more thing to flood
                await self._with_courier(lambda courier, raw=raw: courier.receive(ledger, raw, self._writer.wall_ms()))  # type: ignore[misc]
                await self._take_of_our_log(ledger, message)
            except RemoteProtocolError as error:
                log.warning("message_refused", partner=ledger.hex(), code=error.code)
            except (StoreError, OSError) as error:
                log.warning("message_dropped", partner=ledger.hex(), error=str(error))

    async def _take_of_our_log(self, ledger: bytes, message: Message) -> None:
        """Take what a partner says of our own log."""
        match message:
            case Cosigned(origin) if self._writer.log_key is not None and origin == self._writer.log_key.name:
                if await self._keep_cosignatures(ledger, message):
                    self._witnessed[ledger] = max(message.size, self._witnessed.get(ledger, 0))
            case Head(origin, note) if self._writer.log_key is not None and origin == self._writer.log_key.name:
                await self._guard.heard(ledger.hex(), note)
            case Problem(code) if code in DISAGREES:
                self._ask_head(ledger)

    async def _keep_cosignatures(self, ledger: bytes, message: Cosigned) -> bool:
        """Keep a partner's cosignatures of our own log, which the courier has found good; tell whether any was."""
        if self._courier is None:
            return False
        shown = self._courier.cosigned_target()
        if shown is None or Checkpoint.parse(shown.text).size != message.size:
            return False
        kept = False
        good = {(line.name, line.key_id) for line in shown.signatures}
        further = {(key.name, key.key_id): key for key in self._further_keys(ledger)}
        now_s = self._writer.wall_ms() // 1000
        for line in parse_signatures(message.lines):
            key = further.get((line.name, line.key_id))
            if (line.name, line.key_id) in good or (key is not None and _is_good(shown.text, line, key, now_s)):
                name = f"{line.name}+{line.key_id.hex()}"
                await self._store.cosignatures_put(message.size, name, line.format().encode())
                kept = True
        return kept

    def _further_keys(self, ledger: bytes) -> tuple[NoteVerifier, ...]:
        """Return the keys of a partner as a witness that no decision counts by; none that this machine can't use."""
        peer = self._writer.state.federation.peers.get(ledger)
        keys = () if peer is None else peer.peering.side_of(ledger).cosigners[1:]
        return tuple(key for key in keys if key.is_supported)

    # --- what the courier asks for ----------------------------------------------------------------------------------

    async def _with_courier(self, ask: Callable[[Courier], list[Output]]) -> None:
        async with self._lock:
            if self._courier is None or self._state is not self._writer.state:
                await self._restart_courier()
            assert self._courier is not None
            try:
                outputs = ask(self._courier)
            except RemoteProtocolError:  # of a message: nothing has changed
                raise
            except Exception:
                self._courier = None
                raise
            await self._carry_out(outputs)

    async def _carry_out(self, outputs: Sequence[Output]) -> None:
        """Do what the courier asks for, all of it: what it has said once, it believes done.

        Where many deals wait for the same thing, it asks once for each; once is enough.
        """
        waiting = deque(dict.fromkeys(outputs))
        try:
            while waiting:
                await self._do(waiting.popleft(), waiting)
        except Exception:
            self._courier = None
            raise

    async def _restart_courier(self) -> None:
        """Begin anew from the ledger and from what is kept, as after a crash, with what there is to do at once."""
        self._state = state = self._writer.state
        assert state.ledger is not None
        kept: dict[str, bytes] = {}
        origins = [peer.peering.side_of(ledger).origin for ledger, peer in state.federation.peers.items()]
        for origin in origins:
            witnessed = await self._store.witness_get(origin)
            if witnessed is not None:
                kept[origin] = witnessed.note
                self._kept_sizes[origin] = witnessed.size
        self._courier = Courier(
            state,
            self._agent,
            self._cosigners[0],
            self._decisions,
            kept,
            kept_decisions=await self._keeper.witnessed(origins),
            further_cosigners=self._cosigners[1:],
            head_push_ms=HEAD_PUSH_MS,
        )
        await self._carry_out(self._courier.head(self._writer.checkpoint(), self._writer.wall_ms()))

    async def _do(self, output: Output, rest: deque[Output]) -> None:
        match output:
            case Tell():
                await self._tell(output)
            case Append():
                self._spawn(self._append(output))
            case ReadRecord():
                self._spawn(self._read_record(output))
            case ReadGrowth():
                self._spawn(self._read_growth(output))
            case Keep():
                if not await self._keep(output):
                    rest.clear()  # a later checkpoint was cosigned elsewhere: nothing may be said of this one
                    self._courier = None
            case Solve():
                self._spawn(self._find(output))
            case KeepRound():
                await self._keep_round(output)
            case KeepLeaves():
                await self._keep_leaves(output, rest)
            case ReadLeaves():
                self._spawn(self._read_leaves(output))
            case KeepFork():
                await self._watching.found(output.origin, output.first, output.second)
            case Ahead():
                await self._guard.judge(output.checkpoint, "courier")

    async def _find(self, question: Solve) -> None:
        if self._netting is None:
            return
        try:
            found = await asyncio.to_thread(self._netting.solve, question.matched)
        except EcotError as error:
            log.warning("round_unsolved", call=question.call.hex(), error=str(error))
            return
        await self._with_courier(lambda courier: courier.solved(question.call, found, self._writer.wall_ms()))

    async def _keep_round(self, kept: KeepRound) -> None:
        try:
            if self._netting is not None:
                await asyncio.to_thread(self._netting.kept.keep, kept.call, kept.raw)
        except OSError as error:  # only the check of this round is lost
            log.warning("round_not_kept", call=kept.call.hex(), error=str(error))

    async def _keep_leaves(self, output: KeepLeaves, rest: deque[Output]) -> None:
        if not await self._keeper.keep(output):
            log.error("decisions_refused", origin=output.origin)
            rest.clear()  # a deal was decided twice: nothing of it is cosigned
            self._courier = None

    async def _tell(self, tell: Tell) -> None:
        if isinstance(tell.message, Push):
            await self._keep_own(AddCheckpointRequest.parse(tell.message.request))
        self._put(tell.ledger, tell.message)

    def _put(self, ledger: bytes, message: Message | Sighting) -> None:
        queue = self._queues.get(ledger)
        if queue is not None:
            queue.put(message)

    async def _keep_own(self, push: AddCheckpointRequest) -> None:
        """Keep a checkpoint of ours before it leaves; it is pushed to several partners, and kept once."""
        size = push.checkpoint.size
        if size != self._pushed_size:
            await self._store.checkpoint_keep(size, self._own_note(push.note))
            self._pushed_size = size

    def _own_note(self, note: SignedNote) -> bytes:
        """Return our checkpoint without cosignatures, as the store keeps it.

        Where two keys of our log signed, the newer one's stays. Our cosigner key has the same name, and another id.
        """
        log_key = self._writer.log_key
        newest = [line for line in note.signatures if log_key is not None and line.key_id == log_key.key_id]
        own = [line for line in note.signatures if line.name == Checkpoint.parse(note.text).origin]
        return SignedNote(note.text, tuple(newest or own)[:1]).format()

    async def _keep(self, keep: Keep) -> bool:
        checkpoint = Checkpoint.parse(SignedNote.parse(keep.checkpoint).text)
        kept = await self._store.witness_put(
            keep.origin,
            old_size=self._kept_sizes.get(keep.origin),
            state=WitnessState(checkpoint.size, checkpoint.root_hash, keep.checkpoint),
        )
        if kept:
            self._kept_sizes[keep.origin] = checkpoint.size
        return kept

    def _spawn(self, work: "asyncio.coroutines.Coroutine[object, object, None]") -> None:  # type: ignore[name-defined]
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _append(self, append: Append) -> None:
        try:
            await self._append_once(append)
        except Exception:
            # Whatever broke, the courier must not wait for an answer that never comes.
            log.exception("append_failed", kind=append.kind)
            self._courier = None

    async def _append_once(self, append: Append) -> None:
        entry = Entry(append.body, (sign_body(self._agent, append.body),), append.attachments)
        courier = self._courier
        try:
            reply = await self._writer.submit((entry,))
        except (NotWriting, Overloaded) as error:
            log.info("append_waits", kind=append.kind, reason=str(error))
            await asyncio.sleep(APPEND_AGAIN_S)
            self._courier = None if self._courier is courier else self._courier
            return
        outcome = reply.outcomes[0]
        if courier is not self._courier or courier is None:
            return  # the courier began anew meanwhile and finds the outcome in the state
        if isinstance(outcome, Recorded | RecordedBefore):
            note = self._writer.checkpoint()
            now_ms = self._writer.wall_ms()
            await self._with_courier(lambda one: [*one.head(note, now_ms), *one.recorded(append, now_ms)])
        elif isinstance(outcome, Refused):
            code = outcome.code
            log.info("append_refused", kind=append.kind, code=code)
            await self._with_courier(lambda one: one.refused(append, code, self._writer.wall_ms()))
        else:
            self._courier = None

    async def _read_record(self, read: ReadRecord) -> None:
        row = await self._store.record(read.index)
        assert row is not None, "the courier asks for durable records"
        record = row.record
        await self._with_courier(lambda courier: courier.read(read, record, self._writer.wall_ms()))

    async def _read_leaves(self, read: ReadLeaves) -> None:
        leaves, root = await self._keeper.read(read)
        await self._with_courier(lambda courier: courier.leaves(read, leaves, root))

    async def _read_growth(self, read: ReadGrowth) -> None:
        hashes = await prove(
            self._store, self._writer.edge(), lambda reader: consistency_proof(reader, read.old_size, read.new_size)
        )
        await self._with_courier(lambda courier: courier.grown(read, hashes))


def _is_good(text: str, line: NoteSignature, key: NoteVerifier, now_s: int) -> bool:
    """Tell whether a cosignature that no decision waits for holds, and was made just now."""
    return key.verify(text, line.signature) and is_fresh(cosignature_time(line), now_s)


class _PeerQueue:
    """Messages on their way to one partner, sent in order; what can't be sent in time is dropped.

    A message that waits already is not queued twice: after an outage there are a thousand deals to ask about, and the
    partner would otherwise be busy with old questions when new ones come.
    """

    def __init__(self, transport: Transport, peer_id: PeerId) -> None:
        self._transport, self._peer_id = transport, peer_id
        self._waiting: dict[Message | Sighting, None] = {}
        self._wake = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name="peer-queue")

    def put(self, message: Message | Sighting) -> None:
        """Queue a message; the oldest one goes if the queue is full."""
        self._waiting[message] = None
        if len(self._waiting) > QUEUE_MAX:
            del self._waiting[next(iter(self._waiting))]
        self._wake.set()

    def stop(self) -> None:
        """Drop what waits."""
        self._task.cancel()

    async def _run(self) -> None:
        while True:
            if not self._waiting:
                self._wake.clear()
                await self._wake.wait()
            batch = list(islice(self._waiting, SEND_BATCH))
            for message in batch:
                del self._waiting[message]
            await asyncio.gather(*map(self._send, batch))

    async def _send(self, message: Message | Sighting) -> None:
        raw = encode_sighting(message) if isinstance(message, Sighting) else encode_message(message)
        try:
            await self._transport.send(self._peer_id, raw, timeout_s=SEND_TIMEOUT_S)
        except EcotError as error:
            log.debug("message_dropped", peer=self._peer_id, error=str(error))
