# SPDX-License-Identifier: AGPL-3.0-or-later
"""The rules as one machine: the table of entry types, admission, refusal, application, replay.

The life of an entry here, each step pure:

1. `Machine.admit(entry)`: form. The body decodes, its payload decodes, attachments match their commitments.
2. `Submission.find_bad_evidence()` and `Submission.find_bad_signature(keys)`: the proofs in the payload hold, and every
   signature is good under the public key of its id. No state is needed: a key id is the hash of the key.
3. `Machine.record(state, submission, at)`: the machine's own reasons in the order of `COMMON_REASONS`, then the type's;
   if there is none, the effect, which returns facts. `Machine.refuse` only asks.

`Machine.replay` does all of it for a record of a log, whose attachments may be gone.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import sha256
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import msgspec

from ecot_protocol.domains.catalogue.acts import CATALOGUE_TYPES
from ecot_protocol.domains.coop import acts as coop_acts
from ecot_protocol.domains.coop.genesis import GENESIS
from ecot_protocol.domains.coop.state import recovery_principal
from ecot_protocol.domains.federation.acts import FEDERATION_TYPES
from ecot_protocol.domains.governance.acts import GOVERNANCE_TYPES
from ecot_protocol.domains.membership.acts import MEMBERSHIP_TYPES
from ecot_protocol.domains.royalty.acts import ROYALTY_TYPES
from ecot_protocol.domains.shares.acts import SHARES_TYPES
from ecot_protocol.domains.trade.acts import TRADE_TYPES
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.ledger.entry_type import NODE, Act, AnyEntryType, SignerRule, TypeTable
from ecot_protocol.ledger.facts import Fact
from ecot_protocol.ledger.reasons import COMMON_REASONS, Reason
from ecot_protocol.ledger.used_ids import ID_MAX_AGE_MS
from ecot_protocol.state import State
from ecot_protocol.wire.entry import (
    BODY,
    ENTRY_CONTEXT,
    MAX_RECORD_SIZE_BYTES,
    NO_LEDGER,
    Attachment,
    Body,
    Entry,
    Record,
    Signature,
    commitment,
)
from ecot_protocol.wire.ids import is_uuid7, time_ms
from ecot_protocol.wire.keys import is_signature_valid, key_id

ENTRY_TYPES: Final[tuple[AnyEntryType, ...]] = (
    GENESIS,
    coop_acts.APPOINT,
    coop_acts.AMEND_STATUTES,
    coop_acts.REPLACE_NODE_KEY,
    coop_acts.NAME_COSIGNER,
    coop_acts.RAISE_RULES,
    coop_acts.WITHDRAW,
    coop_acts.SEAL,
    *MEMBERSHIP_TYPES,
    *SHARES_TYPES,
    *TRADE_TYPES,
    *GOVERNANCE_TYPES,
    *CATALOGUE_TYPES,
    *ROYALTY_TYPES,
    *FEDERATION_TYPES,
)
"""The one table of entry types."""

ID_MAX_AHEAD_MS: Final = 10 * 60_000
LIFETIME_MAX_MS: Final = 31 * 86_400_000
GENESIS_TAG: Final = "coop.genesis"
_NO_KEYS: Final[Mapping[bytes, bytes]] = MappingProxyType({})
_RECORD_OVERHEAD_BYTES: Final = 32
_SIGNATURE_SIZE_BYTES: Final = 88


class Submission(msgspec.Struct, frozen=True, gc=False):
    """A well-formed entry, before signatures and state are looked at.

    Attributes:
        entry: as received; its body is what was signed.
        body: decoded.
        entry_type: the type's version that decoded the payload.
        payload: decoded.
        introduced: key id -> public key (33 bytes) that the payload brings.
        body_hash: SHA-256 of the body; the ledger id, if it is a genesis.
    """

    entry: Entry
    body: Body
    entry_type: AnyEntryType
    payload: Any
    introduced: Mapping[bytes, bytes]
    body_hash: bytes

    def find_bad_evidence(self) -> Reason | None:
        """Check the heavy proofs that the payload carries; like signatures, they need no state."""
        reason: Reason | None = self.entry_type.evidence(self.payload)
        return reason

    def resolve_keys(self, public_key_of: Callable[[bytes], bytes | None]) -> Iterator[tuple[Signature, bytes | None]]:
        """Yield each signature with the public key of its id: one that the payload brings, or else a known one.

        Args:
            public_key_of: key id -> public key known to the ledger, revoked or not.
        """
        for signature in self.entry.signatures:
            yield signature, self.introduced.get(signature.key_id) or public_key_of(signature.key_id)

    def find_bad_signature(self, public_key_of: Callable[[bytes], bytes | None]) -> Reason | None:
        """Check every signature.

        Args:
            public_key_of: key id -> public key known to the ledger, revoked or not.

        Returns:
            ``key_unknown``, ``bad_signature`` or None.
        """
        message = ENTRY_CONTEXT + self.entry.body
        for signature, public_key in self.resolve_keys(public_key_of):
            if public_key is None:
                return Reason.of("key_unknown", key_id=signature.key_id.hex())
            if not is_signature_valid(public_key, message, signature.signature):
                return Reason.of("bad_signature", key_id=signature.key_id.hex())
        return None


class Applied(NamedTuple):
    """What a record did: facts in order, and the members and organs whom it concerns."""

    facts: list[Fact]
    parties: tuple[bytes, ...]


class Machine:
    """The rules of one release.

    Args:
        entry_types: the table; the release's own by default.
    """

    def __init__(self, entry_types: Iterable[AnyEntryType] = ENTRY_TYPES) -> None:
        self.table: Final = TypeTable(tuple(entry_types))

    def admit(self, entry: Entry, rules: int) -> Submission:
        """Check the form of an entry that a client sent, attachments included.

        Args:
            entry: decoded by `decode_entry`.
            rules: number in force (`State.rules`).

        Raises:
            RemoteProtocolError: ``malformed``, ``not_canonical``, ``type_unknown``, ``too_large``,
                ``attachment_missing``, ``attachment_unexpected``.
        """
        submission = self._read(entry, rules)
        size = len(entry.body) + _SIGNATURE_SIZE_BYTES * len(entry.signatures) + _RECORD_OVERHEAD_BYTES
        if size > MAX_RECORD_SIZE_BYTES:
            raise RemoteProtocolError("too_large", f"a record has at most {MAX_RECORD_SIZE_BYTES} bytes")
        _require_attachments(submission.entry_type, submission.payload, entry.attachments)
        return submission

    def admit_record(self, record: Record, rules: int) -> Submission:
        """Check the form of a record of a log; its attachments may have been erased.

        Raises:
            RemoteProtocolError: as `admit`, but for attachments.
        """
        return self._read(Entry(record.body, record.signatures, ()), rules)

    def _read(self, entry: Entry, rules: int) -> Submission:
        body = BODY.decode(entry.body)
        entry_type = self.table.find(body.type, rules)
        if entry_type is None:
            raise RemoteProtocolError("type_unknown", f"{body.type} under rules {rules}", type=body.type)
        payload = entry_type.codec.decode(bytes(body.payload))
        brought = entry_type.introduces(payload)
        introduced = {key_id(public_key): public_key for public_key in brought} if brought else _NO_KEYS
        return Submission(entry, body, entry_type, payload, introduced, sha256(entry.body).digest())

    def refuse(self, state: State, submission: Submission, at: int) -> Reason | None:
        """Tell why the entry can't be recorded now, or None. Reads only.

        Args:
            state: as of the last record.
            submission: admitted under `state.rules`, its signatures good.
            at: milliseconds since 1970; not before `state.received_at_ms`.
        """
        judged = self._judge(state, submission, at)
        return judged if isinstance(judged, Reason) else None

    def refuse_signers(self, state: State, submission: Submission, at: int) -> Reason | None:
        """Tell why the entry can't be recorded now, as far as its body and its signers tell; cheap, and reads only.

        A node asks it before it looks at evidence: whoever may not sign makes nobody check heavy proofs.
        """
        reason = _refuse_body(state, submission.body, at)
        if reason is not None:
            return reason
        principals, reason = _principals(state, submission)
        if reason is not None:
            return reason
        act = _act(state, submission, principals)
        return _refuse_signers(submission.entry_type.signers(state, act, at), principals)

    def record(self, state: State, submission: Submission, at: int) -> Applied | Reason:
        """Record the entry in the state, or tell why not; a refusal changes nothing.

        Args:
            state: as of the last record; changed in place.
            submission: admitted under `state.rules`, its signatures good.
            at: the record's time, milliseconds since 1970.
        """
        judged = self._judge(state, submission, at)
        if isinstance(judged, Reason):
            return judged
        entry_type = submission.entry_type
        parties: tuple[bytes, ...] = entry_type.parties(state, judged)
        facts: list[Fact] = entry_type.effect(state, judged, at)
        state.used_ids.add(submission.body.id)
        state.used_ids.forget(at - ID_MAX_AGE_MS)
        state.size += 1
        state.received_at_ms = at
        return Applied(facts, parties)

    def signer_rule(self, state: State, submission: Submission, at: int) -> SignerRule:
        """Return who must sign the entry, judged now; for drafts that wait for signatures."""
        rule: SignerRule = submission.entry_type.signers(state, _act(state, submission, {}), at)
        return rule

    def principal(self, state: State, submission: Submission, key_id: bytes) -> bytes | Reason:
        """Return whom a signature with the key would stand for under this entry, or why it can't count."""
        principal, reason = _principal(state, submission, key_id)
        return principal if reason is None else reason

    def _judge(self, state: State, submission: Submission, at: int) -> Act[Any] | Reason:
        reason = _refuse_body(state, submission.body, at)
        if reason is not None:
            return reason
        principals, reason = _principals(state, submission)
        if reason is not None:
            return reason
        entry_type = submission.entry_type
        act = _act(state, submission, principals)
        reason = _refuse_signers(entry_type.signers(state, act, at), principals) or entry_type.check(state, act, at)
        if reason is not None:
            assert reason.code in entry_type.reasons or reason.code in COMMON_REASONS, (
                f"{entry_type.tag} does not list {reason}"
            )
            return reason
        return act

    def replay(self, state: State, record: Record, *, is_verified: bool = False) -> Applied:
        """Apply one record of a log again.

        Args:
            state: as of the record before.
            record: decoded by `decode_record`.
            is_verified: its evidence and signatures were checked elsewhere.

        Raises:
            RemoteProtocolError: ``record_refused``: the record could not have been written by these rules; or a code of
                `admit_record`.
        """
        submission = self.admit_record(record, state.rules)
        reason = None
        if not is_verified:
            reason = submission.find_bad_evidence() or submission.find_bad_signature(public_keys(state))
        if reason is None and record.received_at_ms < state.received_at_ms:
            reason = Reason.of("time_went_back", at_ms=record.received_at_ms)
        result = reason or self.record(state, submission, record.received_at_ms)
        if isinstance(result, Reason):
            raise RemoteProtocolError(
                "record_refused", f"index {state.size}: {result}", index=state.size, reason=result
            )
        return result


def public_keys(state: State) -> Callable[[bytes], bytes | None]:
    """Return a look-up of every public key that the ledger knows, by key id."""
    keys, node_keys = state.coop.keys, state.coop.node_keys

    def find(wanted: bytes) -> bytes | None:
        key = keys.get(wanted)
        if key is not None:
            return key.public_key
        agent = node_keys.get("agent")
        return agent.public_key if agent is not None and key_id(agent.public_key) == wanted else None

    return find


def _refuse_body(state: State, body: Body, at: int) -> Reason | None:
    if body.type == GENESIS_TAG:
        if state.ledger is not None or body.ledger != NO_LEDGER:
            return Reason.of("wrong_ledger", ledger=body.ledger.hex())
    elif state.ledger is None:
        return Reason.of("ledger_not_founded")
    elif body.ledger != state.ledger:
        return Reason.of("wrong_ledger", ledger=body.ledger.hex())
    if not is_uuid7(body.id):
        return Reason.of("id_malformed")
    id_time = time_ms(body.id)
    if not at - ID_MAX_AGE_MS <= id_time <= at + ID_MAX_AHEAD_MS:
        return Reason.of("id_time_out_of_range", id_ms=id_time, at_ms=at)
    if body.expires_at <= at:
        return Reason.of("expired", expires_at_ms=body.expires_at, at_ms=at)
    if body.expires_at > id_time + LIFETIME_MAX_MS:
        return Reason.of("expiry_too_late", latest_ms=id_time + LIFETIME_MAX_MS)
    if body.id in state.used_ids:
        return Reason.of("id_used")
    return None


def _principals(state: State, submission: Submission) -> tuple[dict[bytes, Signature], Reason | None]:
    """Resolve each signature to whom it stands for: a person, the node, or a key that the payload brings."""
    principals: dict[bytes, Signature] = {}
    for signature in submission.entry.signatures:
        principal, reason = _principal(state, submission, signature.key_id)
        if reason is None and principal in principals:
            reason = Reason.of("signature_not_needed", key_id=signature.key_id.hex())
        if reason is not None:
            return {}, reason
        principals[principal] = signature
    return principals, None


def _principal(state: State, submission: Submission, wanted: bytes) -> tuple[bytes, Reason | None]:
    key = state.coop.keys.get(wanted)
    introduced = submission.introduced.get(wanted)
    if key is None and introduced is not None:
        return introduced, None
    if key is not None and introduced is not None:
        return b"", Reason.of("key_not_usable", key_id=wanted.hex())
    if key is None:
        agent = state.coop.node_keys.get("agent")
        if agent is not None and key_id(agent.public_key) == wanted:
            return NODE, None
        return b"", Reason.of("key_unknown", key_id=wanted.hex())
    if key.revoked_at_ms is not None:
        return b"", Reason.of("key_revoked", key_id=wanted.hex())
    if state.coop.is_withdrawn(key.person, submission.body_hash):
        return b"", Reason.of("signature_withdrawn", person=key.person.hex())
    return (key.person if key.purpose == "daily" else recovery_principal(key.person)), None


def _refuse_signers(rule: SignerRule, principals: Mapping[bytes, Signature]) -> Reason | None:
    needed = 0
    useful: set[bytes] = set()
    for need in rule:
        matched = need.principals & principals.keys()
        if len(matched) < need.threshold:
            return Reason.of("signature_missing", needed=need.threshold, present=len(matched))
        needed += need.threshold
        useful |= matched
    if len(principals) > needed or len(useful) < len(principals):
        return Reason.of("signature_not_needed", needed=needed, present=len(principals))
    return None


def _act(state: State, submission: Submission, principals: Mapping[bytes, Signature]) -> Act[Any]:
    signers = tuple(sorted(one for one in principals if one in state.coop.persons))
    return Act(
        submission.body.id, submission.body.author, submission.payload, signers, state.size, submission.body_hash
    )


def _require_attachments(entry_type: AnyEntryType, payload: Any, attachments: tuple[Attachment, ...]) -> None:
    wanted = [
        (class_name, value)
        for field, class_name in entry_type.attachments
        if (value := getattr(payload, field)) is not None
    ]
    if not wanted and not attachments:  # as for nearly every transfer
        return
    given = [(one.class_name, commitment(one.salt, one.content)) for one in attachments]
    for index, one in enumerate(wanted):
        if index >= len(given) or given[index] != one:
            raise RemoteProtocolError("attachment_missing", f"{entry_type.tag} commits to a {one[0]}")
    if len(given) > len(wanted):
        raise RemoteProtocolError("attachment_unexpected", f"{entry_type.tag} has {len(wanted)} commitments")


__all__ = ["COMMON_REASONS", "ENTRY_TYPES", "Applied", "Machine", "Submission", "public_keys"]
