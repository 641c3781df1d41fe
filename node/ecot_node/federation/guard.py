# SPDX-License-Identifier: AGPL-3.0-or-later
"""The guard against a second history: what partners saw of our log must be what we have of it.

A partner keeps the newest checkpoint of our log that it cosigned, signed by our own log key. If our log does not hold
all that this checkpoint shows, in the same order, then an old backup was put back; and if we wrote meanwhile, there
are two histories already. Either way the node then serves reads only, shows both checkpoints, and takes no entry until
the missing records are back or the operator starts a successor ledger. It remembers this across restarts.

- At a start, whoever has an address is asked (over HTTP) before anything is written. An ordinary start waits
  `ASK_TIMEOUT_S` and goes on with the answers that it has; who was silent is asked again until it has answered once.
- After a `restore`, being behind is likely: nothing is written until every partner has answered, be it over libp2p.
- Whenever a partner shows such a checkpoint over libp2p, on connecting or instead of a cosignature, it is judged too.
"""

import asyncio
from collections.abc import Collection, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Final

import aiohttp
import msgspec
import structlog

from ecot_node.ledger.tree import prove
from ecot_node.ledger.writer import Writer
from ecot_node.store.errors import StoreError
from ecot_node.store.port import LogStore
from ecot_protocol.domains.federation.decision_log import DecisionTree
from ecot_protocol.domains.federation.statements import DECISIONS_SUFFIX
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.wire.checkpoint import Checkpoint, open_checkpoint
from ecot_protocol.wire.merkle import consistency_proof, verify_consistency
from ecot_protocol.wire.note_key import KeyType, NoteVerifier

log = structlog.get_logger("ecot.guard")

ASK_TIMEOUT_S: Final = 3.0
ASK_AGAIN_S: Final = 2.0
MAX_NOTE_BYTES: Final = 65_536
UNASKED: Final = "witness_unasked"
AHEAD: Final = "witness_ahead"
KEPT: Final = "witness_ahead"
"""Name under which the store keeps the checkpoint that our log does not hold."""


class WitnessAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a witness says of our log.

    Attributes:
        url: whom we asked.
        is_reached: False if it did not answer.
        note: the newest checkpoint of ours that it keeps; empty for none.
    """

    url: str
    is_reached: bool
    note: bytes = b""


async def ask_witness(session: aiohttp.ClientSession, url: str, origin: str) -> WitnessAnswer:
    """Ask a witness for the newest checkpoint of our log that it cosigned (C2SP tlog-witness, read side)."""
    unreached = WitnessAnswer(url=url, is_reached=False)
    path = f"{url.rstrip('/')}/witness/{sha256(origin.encode()).hexdigest()}/checkpoint"
    try:
        async with session.get(path, timeout=aiohttp.ClientTimeout(ASK_TIMEOUT_S)) as response:
            if response.status == 404:  # it knows no checkpoint of ours, or does not witness us yet
                return WitnessAnswer(url=url, is_reached=True)
            if response.status != 200:
                return unreached
            note = await _read_whole(response)
            return WitnessAnswer(url=url, is_reached=True, note=note) if note is not None else unreached
    except (aiohttp.ClientError, TimeoutError, OSError):
        return unreached


async def _read_whole(response: aiohttp.ClientResponse) -> bytes | None:
    """Return the answer; None if it is too long. A note cut short would be taken for one that proves nothing."""
    note = bytearray()
    async for part in response.content.iter_any():
        note += part
        if len(note) > MAX_NOTE_BYTES:
            return None
    return bytes(note)


def _decisions_key(log_key: NoteVerifier) -> NoteVerifier:
    return NoteVerifier(log_key.name + DECISIONS_SUFFIX, KeyType.ED25519, log_key.public_key)


class HistoryGuard:
    """Holds the writer back while a partner knows more, or something else, of our log than we do.

    Args:
        writer: started, blocked with `UNASKED`.
        store: of the same node.
        urls: ledger id (hex) of a partner -> where it is asked over HTTP.
        mark: file that `restore` leaves; removed once every partner has answered.
    """

    def __init__(self, writer: Writer, store: LogStore, urls: Mapping[str, str], mark: Path) -> None:
        self._writer, self._store, self._urls, self._mark = writer, store, urls, mark
        self._heard: set[str] = set()
        self._was_restored = mark.exists()

    @property
    def must_hear_everybody(self) -> bool:
        """Tell whether nothing may be written before every partner has answered."""
        return self._was_restored

    async def look(self) -> None:
        """Compare with what was remembered, ask once, and let the writer begin if nothing speaks against it."""
        kept = await self._store.meta_get(KEPT)
        if kept is not None and not await self.judge(kept, "remembered"):
            return
        if kept is not None:
            await self._store.meta_put(KEPT, None)  # the missing records are back
        await self._ask()
        self._go_on()

    async def hear_the_rest(self) -> None:
        """Ask again whoever has not answered yet, until each has answered once or one of them stops the writer."""
        while self._writer.status().reason != AHEAD and (missing := self._missing()):
            if self.must_hear_everybody:
                log.warning("witness_unreached", partners=sorted(missing))
            await asyncio.sleep(ASK_AGAIN_S)
            await self._ask()
            self._go_on()

    async def heard(self, ledger: str, note: bytes | None) -> None:
        """Take what a partner showed of our log over libp2p.

        Args:
            ledger: the partner's id, hex.
            note: the newest checkpoint of ours that it cosigned; None if there is none.
        """
        if note is None or await self.judge(note, ledger):
            self._heard.add(ledger)
            self._go_on()

    async def judge(self, note: bytes, source: str) -> bool:
        """Return whether our log holds what a checkpoint of ours shows; if not, block the writer for good.

        A note that our log's key has not signed proves nothing, whatever its bearer claims, and passes.
        """
        log_key = self._writer.log_key
        try:
            shown = open_checkpoint(note, [] if log_key is None else [log_key, _decisions_key(log_key)]).checkpoint
        except RemoteProtocolError as error:
            log.warning("witness_answer_refused", partner=source, code=error.code)
            return True
        if await self._holds(shown):
            return True
        if self._writer.status().reason == AHEAD:  # known, and told
            return False
        own = self._writer.checkpoint()
        log.error("witness_ahead", partner=source, shown=note.decode(errors="replace"), own=own.decode())
        self._writer.unblock(UNASKED)  # the newer reason takes its place
        self._writer.block(AHEAD, shown=note)
        try:
            await self._store.meta_put(KEPT, note)
        except StoreError as error:  # the writer is stopped all the same, until the next start
            log.error("witness_ahead_not_kept", error=str(error))
        return False

    async def _holds(self, shown: Checkpoint) -> bool:
        if shown.origin.endswith(DECISIONS_SUFFIX):
            return self._holds_decisions(shown)
        edge = self._writer.edge()
        if shown.size > edge.size:
            return False
        if shown.size == 0:
            return True
        root = edge.frontier().root()
        if shown.size == edge.size:
            return shown.root_hash == root
        hashes = await prove(self._store, edge, lambda reader: consistency_proof(reader, shown.size, edge.size))
        return verify_consistency(shown.size, shown.root_hash, edge.size, root, hashes)

    def _holds_decisions(self, shown: Checkpoint) -> bool:
        """Tell whether our decision log, which follows from our log, holds what a checkpoint of it shows."""
        federation = self._writer.state.federation
        if shown.size > federation.decision_count():
            return False
        tree = DecisionTree(federation.retired_decisions())
        for tid, decided in federation.decisions.items():
            tree.append(tid, decided.outcome)
        return shown.size < tree.start or tree.root(shown.size) == shown.root_hash

    async def _ask(self) -> None:
        log_key = self._writer.log_key
        silent = {ledger: url for ledger, url in self._urls.items() if ledger not in self._heard}
        if log_key is None or not silent:
            return
        async with aiohttp.ClientSession() as session:
            answers = await asyncio.gather(*(ask_witness(session, url, log_key.name) for url in silent.values()))
        for ledger, answer in zip(silent, answers, strict=True):
            if answer.is_reached and (not answer.note or await self.judge(answer.note, answer.url)):
                self._heard.add(ledger)

    def _missing(self) -> Collection[str]:
        """Return who has not answered: after a restore, every partner that the ledger knows counts."""
        federation = self._writer.state.federation
        known = {ledger.hex() for ledger in federation.peers if federation.linked_peer(ledger) is not None}
        return ({*self._urls, *known} if self.must_hear_everybody else {*self._urls}) - self._heard

    def _go_on(self) -> None:
        """Let the writer begin, unless somebody must still be heard; what blocks it for another reason stays."""
        if self._writer.status().reason == AHEAD or (self.must_hear_everybody and self._missing()):
            return
        self._mark.unlink(missing_ok=True)
        self._was_restored = False
        self._writer.unblock(UNASKED)
