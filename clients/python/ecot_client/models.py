# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a node answers as JSON: ids and hashes are lower-case hex, amounts minor units, times milliseconds since 1970.

Readers ignore fields that they don't know, so that a newer node can say more.
"""

import typing
from typing import Any, Generic, TypeVar

import msgspec

T = TypeVar("T")


@typing.dataclass_transform(frozen_default=True, kw_only_default=True)
class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Base of every answer."""


class Listing(Answer, Generic[T]):
    """One page; `index` is how many records the node's views showed."""

    items: tuple[T, ...]
    next: str | None = None
    index: int = 0


class UnitInfo(Answer):
    """A unit of account; `scale` is its number of decimals."""

    code: str
    kind: str
    scale: int


class LedgerInfo(Answer):
    """What the node says of its ledger; None where only a genesis says it and there is none yet."""

    ledger: str | None
    name: str | None
    domain: str | None
    origin: str | None
    size: int
    rules: int
    statutes_version: int | None
    mode: str
    units: tuple[UnitInfo, ...]
    log_vkey: str | None
    checkpoint: str
    time_ms: int
    reason: str | None = None
    node_keys: dict[str, str | None] = {}
    cosigner_vkey: str | None = None


class Mandated(Answer):
    """A member that the person may act for."""

    member: str
    handle: str
    status: str
    scopes: tuple[str, ...]


class Challenge(Answer):
    """32 bytes to sign."""

    challenge: str
    expires_at_ms: int


class SessionInfo(Answer):
    """An open session."""

    token: str
    expires_at_ms: int
    person: str
    members: tuple[Mandated, ...]
    offices: tuple[str, ...]


class OwnKey(Answer):
    """A key of the person, in force."""

    key_id: str
    purpose: str


class Me(Answer):
    """The person of the session."""

    person: str
    handle: str
    key_id: str
    keys: tuple[OwnKey, ...]
    members: tuple[Mandated, ...]
    offices: tuple[str, ...]


class AttachmentInfo(Answer):
    """An attachment that the caller may read; `class_` is its class."""

    salt: str
    content: str
    class_: str = msgspec.field(name="class")


class RecordItem(Answer):
    """A record in a list, without its bytes."""

    index: int
    entry_id: str
    received_at_ms: int
    type: str
    author: str | None
    visibility: str
    parties: tuple[str, ...]


class RecordInfo(RecordItem):
    """A record that the caller may read, with those attachments that are for the caller."""

    record: str
    attachments: tuple[AttachmentInfo, ...] = ()


class ConsistencyInfo(Answer):
    """A consistency proof."""

    old: int
    new: int
    hashes: tuple[str, ...]


class RowProof(Answer):
    """A row of the state, with the siblings that lead to a seal's digest, root to leaf."""

    table: str
    key: str
    value: str | None
    siblings: tuple[str, ...]
    seal_index: int


class RowProofs(Answer):
    """Proofs of rows against one seal: its record, and the ``.tlog-proof`` of that record."""

    proofs: tuple[RowProof, ...]
    seal: str
    seal_proof: str


class DraftSignature(Answer):
    """Who has signed a draft."""

    key_id: str
    person: str | None = None


class DraftNeed(Answer):
    """How many of whom must sign a draft."""

    threshold: int
    persons: tuple[str, ...] = ()


class DraftInfo(Answer):
    """An entry that waits for signatures. `hash` is the SHA-256 of its body."""

    hash: str
    type: str
    author: str | None = None
    entry: str = ""
    expires_at_ms: int = 0
    signatures: tuple[DraftSignature, ...] = ()
    needs: tuple[DraftNeed, ...] = ()
    status: str = "waiting"
    index: int | None = None
    code: str | None = None
    params: dict[str, Any] = {}
