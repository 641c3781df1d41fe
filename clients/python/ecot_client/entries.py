# SPDX-License-Identifier: AGPL-3.0-or-later
"""Build and sign entries.

An entry's id is made here, once; `ecot_client.journal` keeps the entry before it is sent, so that whatever happens the
same body is sent again and is recorded once.

>>> from ecot_protocol.domains.membership.keys import VetoRecovery
>>> from ecot_protocol.wire.keys import Signer
>>> person = new_entry_id(1_790_000_000_000)
>>> entry = build_entry(bytes(32), "membership.veto_recovery", VetoRecovery(), author=person,
...                     signers=(Signer(bytes(32)),), now_ms=1_790_000_000_000)
>>> len(entry.signatures), BODY.decode(entry.body).author == person
(1, True)
"""

import os
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any, Final

import msgspec

from ecot_protocol.errors import LocalProtocolError
from ecot_protocol.ledger.entry_type import AnyEntryType, TypeTable
from ecot_protocol.machine import ENTRY_TYPES
from ecot_protocol.wire.encoding import Wire, encode
from ecot_protocol.wire.entry import BODY, SALT_SIZE_BYTES, Attachment, Body, Entry, Signature, commitment, sign_body
from ecot_protocol.wire.ids import RANDOM_SIZE_BYTES, uuid7
from ecot_protocol.wire.keys import Signer

OWN_ID: Final = b"own id"
"""As author: the entry's own id, as ``membership.apply`` asks for."""
LIFETIME_MS: Final = 86_400_000
"""How long an entry can be recorded, unless the caller says otherwise: a day."""
_TYPES: Final = TypeTable(ENTRY_TYPES)


def new_entry_id(now_ms: int) -> bytes:
    """Make the id of an entry from the clock (milliseconds since 1970) and the system's randomness."""
    return uuid7(now_ms, os.urandom(RANDOM_SIZE_BYTES))


def find_type(tag: str, rules: int = 1) -> AnyEntryType:
    """Return the entry type in force under a rules number.

    Raises:
        LocalProtocolError: this release has no such type.
    """
    entry_type = _TYPES.find(tag, rules)
    if entry_type is None:
        raise LocalProtocolError(f"no entry type {tag} under rules {rules}")
    return entry_type


def build_entry(
    ledger: bytes,
    tag: str,
    payload: Wire,
    *,
    author: bytes | None,
    signers: Iterable[Signer] = (),
    now_ms: int,
    **options: Any,
) -> Entry:
    """Build an entry and sign it.

    Args:
        ledger: 32 bytes.
        tag: of the entry type.
        payload: of the type; fields that commit to an attachment in `contents` are filled in here.
        author: member, person or organ acted for; `OWN_ID`; None for the node.
        signers: who sign now; others can sign later (`add_signature`).
        now_ms: the clock, milliseconds since 1970.
        options: `contents`: payload field -> content of its attachment (text or bytes); `entry_id`: made before, for a
            payload that names it; `lifetime_ms`; `rules`: number in force.

    Raises:
        LocalProtocolError: the payload is not of the type, or a content has no field.
    """
    entry_id = options.get("entry_id") or new_entry_id(now_ms)
    entry_type = find_type(tag, options.get("rules", 1))
    if not isinstance(payload, entry_type.payload):
        raise LocalProtocolError(f"{tag} takes {entry_type.payload.__name__}, not {type(payload).__name__}")
    payload, attachments = _commit(entry_type, payload, options.get("contents") or {})
    body = BODY.encode(
        Body(
            author=entry_id if author == OWN_ID else author,
            expires_at=now_ms + options.get("lifetime_ms", LIFETIME_MS),
            id=entry_id,
            ledger=ledger,
            payload=msgspec.Raw(encode(payload)),
            type=tag,
        )
    )
    return _with_signatures(Entry(body, (), attachments), (sign_body(signer, body) for signer in signers))


def _commit(
    entry_type: AnyEntryType, payload: Wire, contents: Mapping[str, str | bytes | None]
) -> tuple[Wire, tuple[Attachment, ...]]:
    given = {name: _as_bytes(content) for name, content in contents.items() if content is not None}
    if not given.keys() <= dict(entry_type.attachments).keys():
        raise LocalProtocolError(f"{entry_type.tag} has no attachments {sorted(given)}")
    attachments, commitments = [], {}
    for name, class_name in entry_type.attachments:
        if name in given:
            salt = os.urandom(SALT_SIZE_BYTES)
            attachments.append(Attachment(class_name, salt, given[name]))
            commitments[name] = commitment(salt, given[name])
    return msgspec.structs.replace(payload, **commitments), tuple(attachments)


def _as_bytes(content: str | bytes) -> bytes:
    return content.encode() if isinstance(content, str) else content


def add_signature(entry: Entry, signature: Signature) -> Entry:
    """Return the entry with one more signature; one by the same key is replaced."""
    return _with_signatures(entry, (signature,))


def sign_entry(entry: Entry, signer: Signer) -> Entry:
    """Return the entry, signed by one more key."""
    return add_signature(entry, sign_body(signer, entry.body))


def _with_signatures(entry: Entry, signatures: Iterable[Signature]) -> Entry:
    by_key = {one.key_id: one for one in (*entry.signatures, *signatures)}
    return Entry(entry.body, tuple(by_key[key] for key in sorted(by_key)), entry.attachments)


def body_hash(entry: Entry) -> bytes:
    """Return the SHA-256 of the body: what a draft, a withdrawal and the journal name an entry by."""
    return sha256(entry.body).digest()


def entry_id(entry: Entry) -> bytes:
    """Return the id of the entry, and of the object that it makes."""
    return BODY.decode(entry.body).id
