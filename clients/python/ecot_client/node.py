# SPDX-License-Identifier: AGPL-3.0-or-later
"""`NodeClient`: one node, one ledger, one person's keys.

    async with NodeClient("https://troc.example", Path("state"), signers=keys.signers()) as node:
        entry = await node.build("trade.pay", payload, author=member, contents={"memo": "merci"})
        receipt = require_recorded(await node.post_one(entry))

- The first contact pins the ledger, once its genesis is shown to have the ledger's id. From then on another ledger is
  an error, and so is another log key, unless the old one has handed over to it (`following`).
- Every checkpoint that comes with whatever answer must extend the newest kept one.
- An entry is in the journal before it leaves. `resend_pending` finds out what became of those without an outcome.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, TypeVar

from ecot_client.entries import body_hash, build_entry
from ecot_client.errors import LedgerChanged, NodeProblem, ProofFailed
from ecot_client.following import MAX_STEPS, read_step
from ecot_client.journal import Journal, Pin
from ecot_client.memory import LogMemory
from ecot_client.models import ConsistencyInfo, LedgerInfo, RecordInfo
from ecot_client.posting import (
    NOT_FINAL,
    Checked,
    Elsewhere,
    PostResult,
    Refusal,
    ReplyCheck,
    Uncertain,
    read_reply,
)
from ecot_client.reads import Reads
from ecot_client.receipts import Receipt, read_checkpoint, require_inclusion
from ecot_client.sessions import Sessions
from ecot_client.transport import Patience, Request, Transport
from ecot_protocol.domains.coop.genesis import ledger_id, log_origin
from ecot_protocol.errors import LocalProtocolError, RemoteProtocolError
from ecot_protocol.wire.checkpoint import Checkpoint
from ecot_protocol.wire.encoding import Wire, encode
from ecot_protocol.wire.entry import MAX_ENTRIES_PER_BATCH, Entry, decode_record
from ecot_protocol.wire.keys import Signer
from ecot_protocol.wire.note_key import NoteVerifier
from ecot_protocol.wire.proof import TlogProof

T = TypeVar("T")
MOST_ATTEMPTS: Final = 4
"""How often an entry is sent again whose outcome the node can't tell."""
_SEND_AGAIN_S: Final = 0.5


def system_clock_ms() -> int:
    """Return the time, milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class NodeClient(Reads):
    """One node. Use it as an async context manager; calls may run at the same time.

    Args:
        url: address of the node.
        state_dir: folder of this client's state with this ledger; made if missing.
        signers: keys at hand; the first opens sessions, and signs where nothing else is said.
        locale: language of the node's texts.
        clock_ms: milliseconds since 1970.
        patience: deadlines and repetitions.
    """

    def __init__(
        self,
        url: str,
        state_dir: Path,
        signers: Iterable[Signer] = (),
        *,
        locale: str = "en",
        clock_ms: Callable[[], int] = system_clock_ms,
        patience: Patience | None = None,
    ) -> None:
        self.signers = tuple(signers)
        self.journal = Journal(state_dir)
        self.transport = Transport(url, locale=locale, patience=patience)
        self.clock_ms = clock_ms
        self.sessions = Sessions(self.transport, next(iter(self.signers), None), self.ledger_id)
        self._info: LedgerInfo | None = None
        self._memory: LogMemory | None = None
        self._pinning = asyncio.Lock()

    async def __aenter__(self) -> "NodeClient":
        await self.transport.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.transport.__aexit__(*exc)
        self.journal.close()

    async def _with_token(self, call: Callable[[str | None], Awaitable[T]]) -> T:
        return await self.sessions.with_token(call)

    # --- the ledger -------------------------------------------------------------------------------------------------

    async def ledger(self) -> LedgerInfo:
        """Ask the node what its ledger is, and check it against what was pinned.

        Raises:
            LedgerChanged: ``ledger_changed``, ``log_key_changed``.
            ProofFailed: ``ledger_not_founded``, ``ledger_id_not_proven``; see `LogMemory.observe`.
        """
        info = await self.transport.ask_json(Request("GET", "/v1/ledger"), LedgerInfo)
        pin = await self._pin(info)
        await (await self._memory_of(pin)).observe(info.checkpoint)
        self._info = info
        return info

    async def _memory_of(self, pin: Pin) -> LogMemory:
        async with self._pinning:
            verifier = NoteVerifier.from_vkey(pin.log_vkey)
            if self._memory is None or self._memory.verifier != verifier:
                self._memory = LogMemory(self.journal, verifier, self._consistency, self.clock_ms)
            return self._memory

    async def _pin(self, info: LedgerInfo) -> Pin:
        if info.ledger is None or info.origin is None or info.log_vkey is None:
            raise ProofFailed("ledger_not_founded")
        said = Pin(bytes.fromhex(info.ledger), info.origin, info.log_vkey, info.node_keys_index)
        pin = await asyncio.to_thread(self.journal.pin)
        if pin is None:
            await self._require_genesis(said, info.domain or "")
            pin = await asyncio.to_thread(self.journal.set_pin, said)
        if said.ledger != pin.ledger or said.origin != pin.origin:
            raise LedgerChanged("ledger_changed", f"{self.transport.url}", pinned=pin.origin, shown=said.origin)
        return pin if said.log_vkey == pin.log_vkey else await self._follow(pin, said)

    async def _follow(self, pin: Pin, said: Pin) -> Pin:
        """Follow from one log key to the next, as far as each hands over; see `following`."""
        for _ in range(MAX_STEPS):
            newest = await asyncio.to_thread(self.journal.newest)
            size = 0 if newest is None else read_checkpoint(newest, NoteVerifier.from_vkey(pin.log_vkey)).size
            query = {"keys_index": pin.keys_index, "cosigned_size": size}
            try:
                raw = await self.transport.ask(Request("GET", "/v1/ledger/keys", query=query))
            except NodeProblem as problem:
                if problem.status != HTTPStatus.NOT_FOUND:
                    raise
                break
            followed, note = read_step(raw, pin)
            head = await (await self._memory_of(pin)).observe(note)
            if head.size < size:  # the old key has signed beyond what it handed over
                break
            pin = await asyncio.to_thread(self.journal.follow, pin, followed, note)
            if said.log_vkey == pin.log_vkey:
                return pin
        raise LedgerChanged("log_key_changed", f"{said.log_vkey}", pinned=pin.log_vkey, shown=said.log_vkey)

    async def _require_genesis(self, said: Pin, domain: str) -> None:
        """The id of a ledger is the hash of its genesis, and its log is named after both."""
        genesis = await self.transport.ask_json(Request("GET", "/v1/records/0"), RecordInfo)
        try:
            proven = ledger_id(decode_record(bytes.fromhex(genesis.record)).body)
            is_named = NoteVerifier.from_vkey(said.log_vkey).name == said.origin == log_origin(domain, said.ledger)
        except (RemoteProtocolError, ValueError) as error:
            raise ProofFailed("ledger_id_not_proven", str(error)) from None
        if proven != said.ledger or not is_named:
            raise ProofFailed("ledger_id_not_proven", f"{said.origin}: the genesis has another id or name")

    async def info(self) -> LedgerInfo:
        """Return what the node last said of its ledger, asking it once."""
        return self._info or await self.ledger()

    async def ledger_id(self) -> bytes:
        """Return the pinned id of the ledger, 32 bytes."""
        return (await self.pinned()).ledger

    async def pinned(self) -> Pin:
        """Return the pin, made at the first contact."""
        pin = await asyncio.to_thread(self.journal.pin)
        if pin is None:
            await self.ledger()
            pin = await asyncio.to_thread(self.journal.pin)
        assert pin is not None, "the first contact pins"
        return pin

    async def verifier(self) -> NoteVerifier:
        """Return the key of the log."""
        return NoteVerifier.from_vkey((await self.pinned()).log_vkey)

    async def observe(self, note: str) -> Checkpoint:
        """Take in a checkpoint; see `LogMemory.observe`."""
        if self._memory is None:
            await self.ledger()
        try:
            return await (await self._memory_of(await self.pinned())).observe(note)
        except ProofFailed:
            if not await self._has_new_key():
                raise
            return await (await self._memory_of(await self.pinned())).observe(note)

    async def _has_new_key(self) -> bool:
        """Ask the node for its ledger anew; tell whether its log key was replaced, and followed."""
        before = await self.verifier()
        await self.ledger()
        return await self.verifier() != before

    async def _consistency(self, old_size: int, new_size: int) -> tuple[bytes, tuple[bytes, ...]]:
        asked = Request("GET", "/v1/consistency", query={"old": old_size, "new": new_size})
        found = await self.transport.ask_json(asked, ConsistencyInfo)
        try:
            return bytes.fromhex(found.root or ""), tuple(bytes.fromhex(one) for one in found.hashes)
        except ValueError:
            return b"", ()  # proves nothing, and is judged as such

    # --- writing ----------------------------------------------------------------------------------------------------

    async def build(
        self, tag: str, payload: Wire, *, author: bytes | None, signers: Iterable[Signer] | None = None, **options: Any
    ) -> Entry:
        """Build and sign an entry for this ledger; see `ecot_client.entries.build_entry` for the options.

        Args:
            tag: of the entry type.
            payload: of the type.
            author: member, person or organ acted for.
            signers: the first key at hand by default.
            options: `contents`, `entry_id`, `lifetime_ms`.
        """
        info = await self.info()
        chosen = self.signers[:1] if signers is None else signers
        pin = await self.pinned()
        return build_entry(
            pin.ledger, tag, payload, author=author, signers=chosen, now_ms=self.clock_ms(), rules=info.rules, **options
        )

    async def post_one(self, entry: Entry) -> PostResult:
        """Post one entry; see `post`."""
        return (await self.post((entry,)))[0]

    async def post(self, entries: Sequence[Entry]) -> list[PostResult]:
        """Post 1 to 1,000 entries, each recorded or refused by itself, in order.

        They are kept in the journal first. If this raises, nothing is known of them and they stay there: post them
        again, or `resend_pending`.

        Returns:
            For each a `Receipt`, checked and kept; a `Refusal`; or `Uncertain`, after several attempts.

        Raises:
            ProofFailed: the node claims what it doesn't prove.
            NodeUnreachable, NodeProblem: no answer, or one about the whole post.
        """
        if not 1 <= len(entries) <= MAX_ENTRIES_PER_BATCH:
            raise LocalProtocolError(f"expected 1..{MAX_ENTRIES_PER_BATCH} entries, got {len(entries)}")
        results = await asyncio.to_thread(self._kept_receipts, entries)
        await asyncio.to_thread(self.journal.keep, [entry for entry in entries if body_hash(entry) not in results])
        for attempt in range(MOST_ATTEMPTS):
            waiting = [entry for entry in entries if not _is_final(results.get(body_hash(entry)))]
            if not waiting:
                break
            await asyncio.sleep(_SEND_AGAIN_S * attempt)
            results |= await self._post_once(waiting)
        return [results[body_hash(entry)] for entry in entries]

    def _kept_receipts(self, entries: Sequence[Entry]) -> dict[bytes, PostResult]:
        found = ((body_hash(entry), self.journal.receipt(body_hash(entry))) for entry in entries)
        return {key: receipt for key, receipt in found if receipt is not None}

    def _as_kept(self, entries: Sequence[Entry]) -> list[Entry]:
        """Return the bytes that were first kept: a repetition with other signatures would be another record."""
        kept = ((entry, self.journal.kept_entry(body_hash(entry))) for entry in entries)
        return [entry if first is None else first for entry, first in kept]

    async def _post_once(self, entries: Sequence[Entry]) -> dict[bytes, PostResult]:
        pin, verifier = await self.pinned(), await self.verifier()
        sent = await asyncio.to_thread(self._as_kept, entries)
        raw = await self.transport.ask(Request("POST", "/v1/entries", msgpack=encode(tuple(sent))))
        reply = read_reply(raw, len(sent))
        try:
            check = ReplyCheck(pin.ledger, verifier, sent, reply)
            checked = check.results()
        except ProofFailed:
            if not await self._has_new_key():
                raise
            return await self._post_once(entries)  # the same bytes: the node answers with the same places
        if check.head is not None:
            await self.observe(reply.checkpoint)
        results = [await self._settled(entry, one) for entry, one in zip(sent, checked, strict=True)]
        recorded = [(entry, one) for entry, one in zip(sent, results, strict=True) if isinstance(one, Receipt)]
        refused = [
            body_hash(entry)
            for entry, one in zip(sent, results, strict=True)
            if isinstance(one, Refusal) and one.code not in NOT_FINAL
        ]
        await asyncio.to_thread(self.journal.settle, recorded, refused)
        return {body_hash(entry): one for entry, one in zip(sent, results, strict=True)}

    async def _settled(self, entry: Entry, result: Checked) -> PostResult:
        if not isinstance(result, Elsewhere):
            return result
        receipt = await self.fetch_receipt(result.index)
        if receipt.body_hash != body_hash(entry):
            raise ProofFailed("inclusion_not_proven", f"record {result.index} is another", index=result.index)
        return receipt

    async def resend_pending(self) -> list[tuple[Entry, PostResult]]:
        """Send again every entry whose outcome is not known, the same bytes; return what became of each."""
        pending = await asyncio.to_thread(self.journal.pending)
        results: list[tuple[Entry, PostResult]] = []
        for start in range(0, len(pending), MAX_ENTRIES_PER_BATCH):
            batch = pending[start : start + MAX_ENTRIES_PER_BATCH]
            results += zip(batch, await self.post(batch), strict=True)
        return results

    # --- proofs -----------------------------------------------------------------------------------------------------

    async def fetch_receipt(self, index: int) -> Receipt:
        """Fetch a record that the caller may read, with its proof, and check both.

        Raises:
            ProofFailed: ``inclusion_not_proven``, ``receipt_malformed``, or what is wrong with the checkpoint.
        """
        shown = await self.record(index)
        asked = Request("GET", f"/v1/records/{index}/proof", query={"cosigned": "no"})
        raw = await self.transport.ask(asked)
        try:
            record = bytes.fromhex(shown.record)
            received_at_ms = decode_record(record).received_at_ms
            proof = TlogProof.parse(raw)
            note = proof.checkpoint.decode()
        except (RemoteProtocolError, ValueError) as error:
            raise ProofFailed("receipt_malformed", str(error)) from None
        if proof.index != index:
            raise ProofFailed("inclusion_not_proven", f"asked for {index}, got {proof.index}", index=index)
        await self.observe(note)
        pin, verifier = await self.pinned(), await self.verifier()  # a new key is known by now
        require_inclusion(record, index, proof.hashes, read_checkpoint(note, verifier))
        return Receipt(
            ledger=pin.ledger,
            log_vkey=pin.log_vkey,
            index=index,
            received_at_ms=received_at_ms,
            record=record,
            hashes=proof.hashes,
            checkpoint=note,
        )

    async def witnessed(self, index: int) -> bytes | None:
        """Return the ``.tlog-proof`` of a record under a head that a witness has cosigned; None if there is none yet.

        Its cosignatures are for the caller to judge by a policy: `ecot_protocol.wire.proof.verify_proof`.
        """
        try:
            return await self.transport.ask(Request("GET", f"/v1/records/{index}/proof", query={"cosigned": "yes"}))
        except NodeProblem as problem:
            if problem.code == "not_witnessed_yet":
                return None
            raise


def _is_final(result: PostResult | None) -> bool:
    if isinstance(result, Refusal):
        return result.code not in NOT_FINAL
    return result is not None and not isinstance(result, Uncertain)
