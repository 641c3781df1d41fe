# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a node's reply to posted entries is worth: each outcome is proven or is not believed.

- *Recorded*: the range proof must show all of these records, with the very bytes that we sent, at the places that the
  outcomes name, under a head that the log signed.
- *Recorded before*: its own inclusion proof must show it. Another signer of a common entry may have sent it with other
  signatures; then the record is fetched and proven.
- *Refused* and *unknown* prove nothing. A refused entry leaves the journal, an unknown one stays. An entry of which
  there is a receipt is never asked about again, so that no later answer can take it back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from ecot_client.errors import NotRecorded, ProofFailed
from ecot_client.receipts import Receipt, read_checkpoint, split_range_proof
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.wire.checkpoint import Checkpoint
from ecot_protocol.wire.entry import Entry, encode_record, leaf_data
from ecot_protocol.wire.merkle_hash import leaf_hash, verify_inclusion, verify_range
from ecot_protocol.wire.note_key import NoteVerifier
from ecot_protocol.wire.reply import REPLY, Outcome, ParamValue, Recorded, RecordedBefore, Refused, Reply, Unknown

NOT_FINAL: Final = frozenset(("not_recorded", "not_writing", "overloaded"))
"""Refusals by the state of the node, not by the rules: the same body may be sent again."""


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """The rules, or the node, refused an entry.

    Attributes:
        code: stable; its text is in the locale under ``reason.<code>``.
        params: ids (hex) and numbers of the text.
    """

    code: str
    params: dict[str, ParamValue]


class Uncertain(msgspec.Struct, frozen=True, kw_only=True):
    """The node can't tell whether the entry is recorded; it stays in the journal, and is safe to send again."""

    code: str


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Recorded before, but not with the signatures that we sent: the record is still to be fetched and proven."""

    index: int
    received_at_ms: int


PostResult = Receipt | Refusal | Uncertain
"""What a caller gets for an entry."""
Checked = PostResult | Elsewhere


def require_recorded(result: PostResult) -> Receipt:
    """Return the receipt.

    Raises:
        NotRecorded: with the code of the refusal.
    """
    match result:
        case Receipt():
            return result
        case Refusal(code=code, params=params):
            named = {name: value for name, value in params.items() if name not in ("code", "detail")}
            raise NotRecorded(code, str(params.get("detail", "")), **named)
        case Uncertain(code=code):
            raise NotRecorded(code)


def read_reply(raw: bytes, count: int) -> Reply:
    """Decode a reply to `count` entries.

    Raises:
        ProofFailed: ``reply_malformed``.
    """
    try:
        reply = REPLY.decode(raw)
    except RemoteProtocolError as error:
        raise ProofFailed("reply_malformed", str(error)) from None
    if len(reply.outcomes) != count:
        raise ProofFailed("reply_malformed", f"expected {count} outcomes, got {len(reply.outcomes)}")
    return reply


class ReplyCheck:
    """Checks one reply.

    Args:
        ledger: id, 32 bytes.
        verifier: of the log.
        entries: as sent, in order.
        reply: decoded.

    Attributes:
        head: what the reply's checkpoint says; None if it has none, which is fine where nothing is recorded.

    Raises:
        ProofFailed: ``reply_malformed``, ``inclusion_not_proven``, or the code of a bad checkpoint.
    """

    def __init__(self, ledger: bytes, verifier: NoteVerifier, entries: Sequence[Entry], reply: Reply) -> None:
        self._ledger = ledger
        self._verifier = verifier
        self._entries = entries
        self._reply = reply
        self.head: Checkpoint | None = read_checkpoint(reply.checkpoint, verifier) if reply.checkpoint else None

    def results(self) -> list[Checked]:
        """Return what each entry's outcome is worth, in order."""
        fresh = iter(self._fresh())
        return [
            next(fresh) if isinstance(outcome, Recorded) else self._other(entry, outcome)
            for entry, outcome in zip(self._entries, self._reply.outcomes, strict=True)
        ]

    def _fresh(self) -> list[Receipt]:
        pairs = [
            (entry, outcome)
            for entry, outcome in zip(self._entries, self._reply.outcomes, strict=True)
            if isinstance(outcome, Recorded)
        ]
        if not pairs:
            return []
        start, head, hashes = self._reply.start, self.head, self._reply.hashes
        if start is None or head is None:
            raise ProofFailed("reply_malformed", "something is recorded, and nothing is proven")
        if [outcome.index for _, outcome in pairs] != list(range(start, start + len(pairs))):
            raise ProofFailed("reply_malformed", "the places do not follow each other")
        records = [encode_record(outcome.received_at_ms, entry) for entry, outcome in pairs]
        leaves = [leaf_hash(leaf_data(record)) for record in records]
        if not verify_range(start, leaves, head.size, hashes, head.root_hash):
            raise ProofFailed("inclusion_not_proven", f"records from {start}", index=start, size=head.size)
        paths = split_range_proof(start, leaves, head.size, hashes)
        return [
            self._receipt(outcome.index, outcome.received_at_ms, record, path)
            for (_, outcome), record, path in zip(pairs, records, paths, strict=True)
        ]

    def _other(self, entry: Entry, outcome: Outcome) -> Checked:
        match outcome:
            case RecordedBefore(index=index, received_at_ms=at_ms, proof=proof):
                return self._before(entry, index, at_ms, proof)
            case Refused(code=code, params=params):
                return Refusal(code=code, params=dict(params))
            case Unknown(code=code):
                return Uncertain(code=code)
            case _:
                raise AssertionError("fresh records are taken elsewhere")

    def _before(self, entry: Entry, index: int, at_ms: int, proof: tuple[bytes, ...]) -> Receipt | Elsewhere:
        head = self.head
        if head is None:
            raise ProofFailed("reply_malformed", "something is recorded, and nothing is proven")
        record = encode_record(at_ms, entry)
        if verify_inclusion(leaf_hash(leaf_data(record)), index, head.size, proof, head.root_hash):
            return self._receipt(index, at_ms, record, proof)
        return Elsewhere(index, at_ms)

    def _receipt(self, index: int, at_ms: int, record: bytes, hashes: tuple[bytes, ...]) -> Receipt:
        return Receipt(
            ledger=self._ledger,
            log_vkey=self._verifier.vkey,
            index=index,
            received_at_ms=at_ms,
            record=record,
            hashes=hashes,
            checkpoint=self._reply.checkpoint,
        )
