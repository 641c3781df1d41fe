# SPDX-License-Identifier: AGPL-3.0-or-later
"""The one writer of a ledger.

    submit -> admit (form) -> queue -> signatures -> [check, effect, leaf] for the group that waits -> one root, one
    checkpoint -> one durable transaction -> each caller's reply -> views and listeners

While one group is recorded, the workers check the signatures of the next.

Rules:

1. Nothing is acknowledged before the store says that it is durable; reads wait for a commit on its way.
2. Groups form by themselves: whatever arrived while the last commit was on its way.
3. A refused entry changes nothing. An effect that raises is quarantined by its body's hash; the state is rebuilt.
4. If a commit fails, the writer stops, the store is reopened, the state is rebuilt, and each waiting caller is told
   what the store then holds.
5. The writer never signs two checkpoints that do not agree: it signs only what it is about to commit, and after a
   failure continues from what the store holds.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import structlog

from ecot_node.ledger import boot
from ecot_node.ledger.admission import Admitted, admit, check_signatures
from ecot_node.ledger.clock import RecordClock
from ecot_node.ledger.errors import LedgerCorrupt, NotWriting, Overloaded
from ecot_node.ledger.follow import ViewFollower
from ecot_node.ledger.group import Group, Pending, build_group
from ecot_node.ledger.handovers import Handover, is_handover, keep_handover, read_handovers
from ecot_node.ledger.port import RecordedEntry, StateProof, Status, Views
from ecot_node.ledger.signatures import SignatureChecker
from ecot_node.ledger.snapshot import SnapshotHeader, write_snapshot
from ecot_node.ledger.tree import prove, snapshot_edge
from ecot_node.store.errors import StoreError, StoreFailed, StoreFull
from ecot_node.store.port import LogStore, OpenedLog, Quarantined
from ecot_protocol.domains.coop.acts import SEAL, ReplaceNodeKey, SealState
from ecot_protocol.machine import Machine
from ecot_protocol.state import State
from ecot_protocol.wire.encoding import encode
from ecot_protocol.wire.entry import BODY, Body, Entry, decode_record, sign_body
from ecot_protocol.wire.ids import uuid7
from ecot_protocol.wire.keys import Signer
from ecot_protocol.wire.merkle import Frontier, TileEdge, inclusion_proof
from ecot_protocol.wire.note import NoteSigner
from ecot_protocol.wire.note_key import KeyType, NoteVerifier
from ecot_protocol.wire.reply import Outcome, RecordedBefore, Refused, Reply, Unknown

R = TypeVar("R")
log = structlog.get_logger("ecot.ledger")

STORE_REASONS: Final = frozenset(("stopping", "store_failed", "store_full"))
"""Why a store that failed is not opened again by the writer itself."""
READ_ONLY_REASONS: Final = frozenset(("log_key_missing", "rules_unknown", "witness_ahead", "witness_unasked"))
QUEUE_LIMIT: Final = 20_000
"""Entries that may wait; one more is answered with `Overloaded`."""
GROUP_LIMIT: Final = 2_000
"""Entries of one commit, so that no caller waits for a very long one."""
MAYBE_RECORDED: Final = frozenset(("expired", "id_time_out_of_range", "id_used", "wrong_ledger"))
"""Refusals of an entry that may be in the log already (the last one: a genesis sent again)."""
LOOK_INTERVAL_S: Final = 1.0
"""How often a writer that has nothing to do looks whether its store failed somebody else."""
REOPEN_TRIES: Final = 5
REOPEN_PAUSE_S: Final = 0.2
SEAL_LIFETIME_MS: Final = 60_000
PROOF_PAUSE_S: Final = 1.0
"""Between two seals that members' proofs ask for: each is a record, and rehashes what changed."""


class WriterKeys(msgspec.Struct, frozen=True):
    """The node's keys that the writer signs with.

    Attributes:
        agent: signs the node's own entries.
        log_seed: 32 bytes; signs checkpoints under the log's origin.
        draw: returns that many random bytes, for entry ids.
        find_seed: (purpose, public key) -> the seed of a key of ours, be it in use or to come; None where it never
            changes.
    """

    agent: Signer
    log_seed: bytes
    draw: Callable[[int], bytes]
    find_seed: Callable[[str, bytes], bytes | None] | None = None


class Writer:
    """A ledger that takes entries; implements `ecot_node.ledger.port.Ledger`.

    Args:
        store: closed; `start` opens it.
        machine: the rules.
        keys: what it signs with.
        views: followed by facts; None for none.
        checker: of signatures, started.
        snapshots: folder of snapshots; None for none.
        clock_of: makes the record clock from the newest record's time.
        genesis: hash of the only genesis body that may found the ledger; None: any.
    """

    def __init__(
        self,
        store: LogStore,
        machine: Machine,
        keys: WriterKeys,
        *,
        views: Views | None = None,
        checker: SignatureChecker | None = None,
        snapshots: Path | None = None,
        clock_of: Callable[[int], RecordClock] = RecordClock,
        genesis: bytes | None = None,
    ) -> None:
        self._store, self._machine, self._keys = store, machine, keys
        self._checker = checker or SignatureChecker(0)
        self._snapshots = snapshots
        self._clock_of = clock_of
        self._genesis = genesis
        self._follower = ViewFollower(views)
        self._state = State()
        self._edge = TileEdge.empty()
        self._frontier = Frontier.empty()
        self._clock = clock_of(0)
        self._note_signer: NoteSigner | None = None
        self._checkpoint = b""
        self._queue: deque[Pending] = deque()
        self._waiting = 0
        self._wake = asyncio.Event()
        self._settled = asyncio.Event()
        self._settled.set()
        self._is_durable = True
        self._blocked: str | None = "stopping"
        self._witness_checkpoint = b""
        self._listeners: list[Callable[[Sequence[RecordedEntry]], None]] = []
        self._quarantine: set[bytes] = set()
        self._task: asyncio.Task[None] | None = None
        self._checking: asyncio.Task[list[Pending]] | None = None
        self._rows_to_prove: list[tuple[str, bytes]] = []
        self._proving: asyncio.Task[Sequence[StateProof]] | None = None
        self._proved_at_s = float("-inf")

    # --- life -------------------------------------------------------------------------------------------------------

    async def start(
        self, *, ledger: bytes | None = None, is_clock_confirmed: bool = False, blocked: str | None = None
    ) -> None:
        """Open the store, rebuild the state, check the tree, begin to write.

        Args:
            ledger: the ledger id that the store must hold; None before the genesis or to take what is there.
            is_clock_confirmed: an operator has looked at the clock.
            blocked: why nothing may be written yet; until `unblock`.

        Raises:
            StoreError: see `LogWrites.open`.
            LedgerCorrupt: what is stored does not verify.
        """
        opened = await self._store.open(ledger=ledger)
        self._quarantine = {one.entry_hash for one in await self._store.quarantine_list()}
        await self._load(opened)
        if is_clock_confirmed:
            self._clock.confirm()
        self._blocked = "clock_jump" if self._clock.has_jumped else blocked
        self._check_rules()
        await self._follower.start()
        self._task = asyncio.create_task(self._run(), name="writer")
        log.info("ledger_open", size=self._state.size, blocked=self._blocked)

    async def stop(self) -> None:
        """Finish the group at work, refuse what waits, close the store."""
        self._blocked = "stopping"
        self._wake.set()
        if self._task is not None:
            await self._task
        while self._queue:
            self._queue.popleft().fail(NotWriting("stopping"))
        await self._follower.stop()
        await self._store.close()

    async def _load(self, opened: OpenedLog, on_replayed: boot.OnReplayed | None = None) -> None:
        """Rebuild everything in memory from what the store holds.

        Args:
            opened: what that is.
            on_replayed: takes what is replayed; None, at a start: the views do.
        """
        if on_replayed is None:
            await self._follower.forget_beyond(opened.size)
        state = await boot.find_snapshot(self._store, self._snapshots, opened.size)
        if state is None or (on_replayed is None and not await self._follower.can_follow_from(state.size)):
            state = State()
        await boot.replay(self._machine, self._store, state, on_replayed or self._follower.replayed)
        if state.size != opened.size:
            raise LedgerCorrupt(state.size, "record_missing", f"the log has {opened.size} records")
        self._state = state
        self._take_log_key()
        self._edge = boot.check_tree(opened, [self.log_key] if self.log_key is not None else [])
        if opened.checkpoint is not None and is_handover(opened.checkpoint):
            await keep_handover(self._store, opened.checkpoint, state.coop.node_keys["log"].since_index)
        self._frontier = self._edge.frontier()
        self._checkpoint = opened.checkpoint or b""
        self._is_durable = True
        self._clock = self._clock_of(state.received_at_ms)

    def _take_log_key(self) -> None:
        """Take the key that the ledger names for its log. Without it nothing can be written, all can be read."""
        self._note_signer = self._find_note_signer()

    def _find_note_signer(self) -> NoteSigner | None:
        coop = self._state.coop
        profile = coop.profile.get("")
        if profile is None:
            return None
        signer = NoteSigner(profile.origin, self._keys.log_seed)
        named = coop.node_keys["log"].public_key
        if self._keys.find_seed is None or named[1:] == signer.verifier.public_key:
            return signer
        seed = self._keys.find_seed("log", named)
        return None if seed is None else NoteSigner(profile.origin, seed)

    def _check_rules(self) -> None:
        if self._note_signer is None and self._state.ledger is not None:
            self.block("log_key_missing")
        if self._state.rules > self._machine.table.highest_rules:
            self.block("rules_unknown")

    # --- the port ---------------------------------------------------------------------------------------------------

    async def submit(self, entries: Sequence[Entry]) -> Reply:
        """See `Ledger.submit`."""
        if self._blocked is not None:
            raise NotWriting(self._blocked)
        if self._waiting + len(entries) > QUEUE_LIMIT:
            raise Overloaded
        items = admit(self._machine, entries, self._state.rules)
        if self._state.ledger is None and self._genesis is not None:
            items = [self._only_our_genesis(one) for one in items]
        items = [self._only_keys_at_hand(one) for one in items]
        self._waiting += len(entries)
        pending = Pending(items, asyncio.get_running_loop().create_future())
        self._queue.append(pending)
        self._wake.set()
        return await pending.future

    def _only_our_genesis(self, one: Admitted | Refused) -> Admitted | Refused:
        """Before the genesis, whoever reaches the node could found a ledger of his own on it."""
        is_other = isinstance(one, Admitted) and one.submission.body_hash != self._genesis
        return Refused("genesis_not_ours", ()) if is_other else one

    def _only_keys_at_hand(self, one: Admitted | Refused) -> Admitted | Refused:
        """A key that the node does not have would lock it out of its own ledger, the log's for ever."""
        find_seed = self._keys.find_seed
        if find_seed is None or not isinstance(one, Admitted) or not isinstance(one.submission.payload, ReplaceNodeKey):
            return one
        replacement = one.submission.payload
        if find_seed(replacement.purpose, replacement.public_key) is not None:
            return one
        return Refused("node_key_not_at_hand", (("purpose", replacement.purpose),))

    def use_agent(self, agent: Signer) -> None:
        """Sign with another agent key from now on: the ledger names it since."""
        self._keys = msgspec.structs.replace(self._keys, agent=agent)

    async def handovers(self) -> Sequence[Handover]:
        """Return the checkpoints by which one key of our log handed over to the next, oldest first."""
        return await read_handovers(self._store)

    async def read(self, question: Callable[[State], R]) -> R:
        """See `Ledger.read`."""
        while not self._settled.is_set():
            await self._settled.wait()
        if not self._is_durable:
            raise StoreFailed("the state is ahead of the store, which failed: start the node again")
        return question(self._state)

    async def wait_for(self, index: int, timeout_s: float) -> bool:
        """See `Ledger.wait_for`."""
        return await self._follower.wait_for(index, timeout_s)

    async def prove(self, rows: Sequence[tuple[str, bytes]]) -> Sequence[StateProof]:
        """See `Ledger.prove`; whoever asks within `PROOF_PAUSE_S` of a seal shares the next one."""
        first = len(self._rows_to_prove)
        self._rows_to_prove += rows
        if self._proving is None:
            self._proving = asyncio.create_task(self._prove_together(), name="proofs")
        proofs = await asyncio.shield(self._proving)
        return proofs[first : first + len(rows)]

    async def _prove_together(self) -> Sequence[StateProof]:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(self._proved_at_s + PROOF_PAUSE_S - loop.time(), 0))
        rows, self._rows_to_prove, self._proving = tuple(self._rows_to_prove), [], None
        self._proved_at_s = loop.time()
        future: asyncio.Future[Sequence[StateProof]] = loop.create_future()
        await self.seal(rows, future)
        return await future

    def subscribe(self, listener: Callable[[Sequence[RecordedEntry]], None]) -> Callable[[], None]:
        """See `Ledger.subscribe`."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def status(self) -> Status:
        """See `Ledger.status`."""
        mode = "writing"
        if self._blocked is not None:
            mode = "read_only" if self._blocked in READ_ONLY_REASONS else "stopped"
        elif self._state.ledger is None:
            mode = "draft"
        return Status(
            mode=mode,
            reason=self._blocked,
            size=self._edge.size,
            views_size=self._follower.size,
            waiting=self._waiting,
            witness_checkpoint=self._witness_checkpoint.decode(errors="replace"),
        )

    def checkpoint(self) -> bytes:
        """See `Ledger.checkpoint`."""
        return self._checkpoint

    def edge(self) -> TileEdge:
        """Return a copy of the tree's edge as of the newest durable record, for proofs."""
        return snapshot_edge(self._edge)

    def block(self, reason: str, *, shown: bytes = b"") -> None:
        """Take no more entries until the node is started again.

        Args:
            reason: a code of `NotWriting`.
            shown: the checkpoint that a witness keeps and our log does not hold.
        """
        self._witness_checkpoint = shown or self._witness_checkpoint
        if self._blocked is None:
            log.error("ledger_blocked", reason=reason)
            self._blocked = reason

    def unblock(self, reason: str) -> None:
        """Begin to write, if `reason` is what held the writer back."""
        if self._blocked == reason:
            log.info("ledger_unblocked", reason=reason)
            self._blocked = None

    def is_known(self, entry: Entry) -> bool:
        """Tell whether a key of a person of the ledger stands under the entry, be its signature good or not."""
        keys = self._state.coop.keys
        return any(signature.key_id in keys for signature in entry.signatures)

    def wall_ms(self) -> int:
        """Return the node's wall clock, milliseconds since 1970."""
        return self._clock.wall_ms()

    @property
    def state(self) -> State:
        """The state as of the newest record, durable or not; another object once it was rebuilt. Read only."""
        return self._state

    @property
    def log_key(self) -> NoteVerifier | None:
        """The verifier of our own log; None before the genesis."""
        if self._note_signer is not None:
            return self._note_signer.verifier
        profile = self._state.coop.profile.get("")
        if profile is None:
            return None
        named = self._state.coop.node_keys["log"].public_key
        return NoteVerifier(profile.origin, KeyType.ED25519, named[1:])

    async def seal(
        self,
        rows: Sequence[tuple[str, bytes]] = (),
        proofs: "asyncio.Future[Sequence[StateProof]] | None" = None,
    ) -> Reply:
        """Record a seal of the state as it is when its turn comes, and prove `rows` against it."""
        if self._blocked is not None:
            raise NotWriting(self._blocked)
        if self._state.ledger is None:
            raise NotWriting("not_founded")
        pending = Pending([], asyncio.get_running_loop().create_future(), seal_rows=tuple(rows), proofs=proofs)
        self._waiting += 1
        self._queue.append(pending)
        self._wake.set()
        return await pending.future

    async def append_own(self, tag: str, payload: msgspec.Struct, *, lifetime_ms: int = SEAL_LIFETIME_MS) -> Reply:
        """Record an entry of the node itself, signed by its agent key."""
        return await self.submit((self.sign_own(tag, payload, lifetime_ms=lifetime_ms),))

    def sign_own(self, tag: str, payload: msgspec.Struct, *, lifetime_ms: int = SEAL_LIFETIME_MS) -> Entry:
        """Build an entry of the node itself: no author, the agent key's signature."""
        now = self._clock.next_ms()
        assert self._state.ledger is not None, "a node acts after the genesis"
        body = BODY.encode(
            Body(
                author=None,
                expires_at=now + lifetime_ms,
                id=uuid7(now, self._keys.draw(10)),
                ledger=self._state.ledger,
                payload=msgspec.Raw(encode(payload)),
                type=tag,
            )
        )
        return Entry(body, (sign_body(self._keys.agent, body),), ())

    # --- the loop ---------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            if not self._queue and self._checking is None:
                if self._blocked == "stopping":
                    return
                self._wake.clear()
                if not self._queue:
                    await self._wait()
                continue
            batch = await self._next()
            try:
                await self._write(batch)
            except Exception:  # every caller gets an answer, whatever broke; then the writer is stopped
                log.exception("writer_failed")
                self.block("store_failed")
                self._answer_unknown(batch)
            finally:
                self._settled.set()
                self._waiting -= sum(pending.count for pending in batch)
            await asyncio.sleep(0)  # let readers in between two groups

    async def _next(self) -> list[Pending]:
        """Return the next group, its signatures checked; the workers go on with the one after it."""
        if self._checking is None:
            batch = await self._check(self._take())
        else:
            batch = await self._checking
            self._checking = None
        if self._queue and self._checker.has_workers:
            self._checking = asyncio.create_task(self._check(self._take()), name="signatures")
        return batch

    async def _check(self, batch: list[Pending]) -> list[Pending]:
        """Check the signatures of a group; should that break, the group looks at each one by itself."""
        admitted = [one for pending in batch for one in pending.items if isinstance(one, Admitted)]
        try:
            await check_signatures(admitted, self._state, self._checker)
        except Exception:
            log.exception("signatures_unchecked")
        return batch

    async def _wait(self) -> None:
        """Wait for entries; meanwhile, mend a store in which a write failed that was not ours.

        Drafts, cosignatures, partners' checkpoints are written beside the groups. Where one of them failed, nothing can
        be written until the store is reopened, and a node that has nothing of its own to record would never find out.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_INTERVAL_S):
                await self._wake.wait()
        failure = self._store.failure()
        if failure is None or self._blocked in STORE_REASONS:
            return
        try:
            await self._recover([], failure)
        except Exception:  # as for a group: whatever broke, the writer is stopped, and says so
            log.exception("writer_failed")
            self.block("store_failed")

    def _take(self) -> list[Pending]:
        batch = [self._queue.popleft()]
        count = batch[0].count
        while self._queue and count + self._queue[0].count <= GROUP_LIMIT:
            batch.append(self._queue.popleft())
            count += batch[-1].count
        return batch

    async def _write(self, batch: list[Pending]) -> None:
        if self._blocked is not None or self._clock.has_jumped:
            self.block("clock_jump")
            for pending in batch:
                pending.fail(NotWriting(self._blocked or "clock_jump"))
            return
        self._settled.clear()
        self._is_durable = False
        group = Group(self._machine, self._state, self._clock.next_ms(), self._quarantine)
        try:
            for pending in batch:
                self._record(group, pending)
        except Exception as error:  # noqa: BLE001 - an effect broke its promise: see rule 3
            await self._quarantine_entry(group, error)
            await self._write(batch)
            return
        await self._finish(group, batch)

    def _record(self, group: Group, pending: Pending) -> None:
        if pending.seal_rows is not None:
            self._record_seal(group, pending)
            return
        pending.outcomes = [group.record(one) if isinstance(one, Admitted) else one for one in pending.items]

    def _record_seal(self, group: Group, pending: Pending) -> None:
        state, size = self._state, self._state.size
        digest = state.digest()
        index = size
        pending.state_proofs = []
        for table, key in pending.seal_rows or ():
            value, siblings = state.prove(table, key)
            proof = StateProof(table=table, key=key, value=value, siblings=siblings, seal_index=index)
            pending.state_proofs.append(proof)
        if self._snapshots is not None and not pending.seal_rows:
            header = SnapshotHeader(digest=digest, format=1, ledger=state.ledger or b"", seal_index=index, size=size)
            pending.snapshot = (header, list(state.dump()))
        entry = self.sign_own(SEAL.tag, SealState(digest=digest, size=size))
        submission = self._machine.admit(entry, state.rules)
        admitted = Admitted(submission, True)
        pending.items = [admitted]
        pending.outcomes = [group.record(admitted)]

    async def _finish(self, group: Group, batch: list[Pending]) -> None:
        lookups = await self._look_up(group, batch)
        if group.rows:
            if self._note_signer is None:  # with the genesis; expanding the key anew takes as long as signing
                self._take_log_key()
            assert self._note_signer is not None
            # If the group replaced the log's key, both sign: the old one hands over.
            signer = self._find_note_signer() if group.has_replaced_key else None
            is_handing_over = signer is not None and signer.verifier != self._note_signer.verifier
            signers = (self._note_signer, signer) if signer is not None and is_handing_over else (self._note_signer,)
            built = build_group(group, self._frontier, self._edge, signers)
            try:
                await self._store.commit(built.commit)
                if is_handing_over and built.commit.checkpoint is not None:
                    index = self._state.coop.node_keys["log"].since_index
                    await keep_handover(self._store, built.commit.checkpoint, index)
            except StoreError as error:
                await self._recover(batch, error)
                return
            self._note_signer = signer if group.has_replaced_key else self._note_signer
            self._frontier, self._edge = built.tree.frontier, built.edge
            self._checkpoint = built.commit.checkpoint or b""
            group.tree = built.tree
        self._is_durable = True
        self._settled.set()
        await self._answer(group, batch, lookups)
        self._publish(group.recorded)
        self._check_rules()

    async def _look_up(self, group: Group, batch: list[Pending]) -> dict[bytes, tuple[int, int]]:
        """Find entries that were refused for a used id or their age, but whose very body is in the log already."""
        found: dict[bytes, tuple[int, int]] = {}
        for pending in batch:
            for one, outcome in zip(pending.items, pending.outcomes, strict=True):
                if not isinstance(one, Admitted) or not isinstance(outcome, Refused):
                    continue
                if outcome.code in MAYBE_RECORDED:
                    body = one.submission.entry.body
                    here = group.find(one.submission.body.id, body)
                    stored = None if here else await self._store.find_entry(one.submission.body.id)
                    if here is not None:
                        found[body] = here
                    elif stored is not None and decode_record(stored.record).body == body:
                        found[body] = (stored.index, stored.received_at_ms)
        return found

    async def _answer(self, group: Group, batch: list[Pending], lookups: dict[bytes, tuple[int, int]]) -> None:
        checkpoint = self._checkpoint.decode()
        for pending in batch:
            if lookups:
                pending.outcomes = [
                    await self._outcome(one, outcome, lookups)
                    for one, outcome in zip(pending.items, pending.outcomes, strict=True)
                ]
            pending.resolve(group, checkpoint)
            if pending.snapshot is not None and self._snapshots is not None:
                await self._write_snapshot(self._snapshots, *pending.snapshot)

    @staticmethod
    async def _write_snapshot(folder: Path, header: SnapshotHeader, rows: list[tuple[str, bytes, bytes]]) -> None:
        try:
            await asyncio.to_thread(write_snapshot, folder, header, rows)
        except OSError as error:  # the next start replays more, that is all
            log.warning("snapshot_not_written", error=str(error))

    async def _outcome(
        self, one: Admitted | Refused, outcome: Outcome, lookups: dict[bytes, tuple[int, int]]
    ) -> Outcome:
        body = one.submission.entry.body if isinstance(one, Admitted) else b""
        if body not in lookups or not isinstance(outcome, Refused):
            return outcome
        index, received_at_ms = lookups[body]
        return await self._recorded_before(index, received_at_ms)

    async def _recorded_before(self, index: int, received_at_ms: int) -> RecordedBefore:
        edge = self.edge()
        proof = await prove(self._store, edge, lambda reader: inclusion_proof(reader, index, edge.size))
        return RecordedBefore(index, received_at_ms, proof)

    def _publish(self, recorded: list[RecordedEntry]) -> None:
        if not recorded:
            return
        self._follower.feed(recorded)
        for listener in tuple(self._listeners):
            listener(recorded)

    # --- when something breaks --------------------------------------------------------------------------------------

    async def _quarantine_entry(self, group: Group, error: Exception) -> None:
        """Remember the entry whose effect raised, and rebuild the state that it may have half changed."""
        culprit = group.at_work
        assert culprit is not None, "only a record can raise here"
        entry_hash = culprit.body_hash
        log.error("entry_quarantined", body_hash=entry_hash.hex(), type=culprit.body.type, error=repr(error))
        self._quarantine.add(entry_hash)
        await self._store.quarantine_put(Quarantined(entry_hash, culprit.entry.body, repr(error)))
        await self._rebuild()

    async def _rebuild(self) -> None:
        state = await boot.find_snapshot(self._store, self._snapshots, self._edge.size) or State()
        await boot.replay(self._machine, self._store, state, self._follower.ignore)
        self._state = state
        self._is_durable = True
        self._clock.follow(state.received_at_ms)

    async def _recover(self, batch: list[Pending], error: StoreError) -> None:
        """After a failed commit: reopen, rebuild, tell each caller what the store holds."""
        log.error("commit_failed" if batch else "store_write_failed", error=str(error))
        published, missed = self._edge.size, list[RecordedEntry]()

        async def keep_missed(entries: list[RecordedEntry]) -> None:
            # The views follow in their own time, behind what was published; here they may be in the same trouble.
            missed.extend(one for one in entries if one.index >= published)

        for attempt in range(REOPEN_TRIES):
            try:
                opened = await self._store.reopen()
            except StoreError:
                await asyncio.sleep(REOPEN_PAUSE_S * (attempt + 1))
                continue
            await self._load(opened, keep_missed)
            if isinstance(error, StoreFull):  # before the callers hear of it: the next one must not try in vain
                self.block("store_full")
            self._settled.set()
            await self._answer_recovered(batch)
            self._publish(missed)
            return
        self.block("store_full" if isinstance(error, StoreFull) else "store_failed")
        self._answer_unknown(batch)

    @staticmethod
    def _answer_unknown(batch: list[Pending]) -> None:
        """Nobody can tell whether these are recorded; who has an answer already keeps it."""
        for pending in batch:
            if pending.seal_rows is not None:
                pending.fail(NotWriting("store_failed"))
                continue
            pending.outcomes = [
                Unknown("outcome_unknown") if isinstance(one, Admitted) else one for one in pending.items
            ]
            pending.resolve(None, "")

    async def _answer_recovered(self, batch: list[Pending]) -> None:
        for pending in batch:
            pending.outcomes = [
                await self._recovered(one, before) for one, before in zip(pending.items, pending.outcomes, strict=True)
            ]
            pending.resolve(None, self._checkpoint.decode())

    async def _recovered(self, one: Admitted | Refused, before: Outcome) -> Outcome:
        if not isinstance(one, Admitted):
            return before
        stored = await self._store.find_entry(one.submission.body.id)
        if stored is None:
            return before if isinstance(before, Refused) else Refused("not_recorded", ())
        if decode_record(stored.record).body != one.submission.entry.body:
            return Refused("id_used", ())
        return await self._recorded_before(stored.index, stored.received_at_ms)
