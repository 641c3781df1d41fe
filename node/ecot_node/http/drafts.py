# SPDX-License-Identifier: AGPL-3.0-or-later
"""Drafts: entries that several persons must sign wait in the node until enough have, outside log and state.

A draft is named by the SHA-256 of its body. What is kept is the entry with the signatures so far. Who may sign is asked
of the rules anew each time: a signature whose key was revoked or whose person left the organ no longer counts and is
left out. A signature is its own permission: whoever brings a good one of a person who must sign may add it, without a
session, as the person whose first key the entry brings has none yet.

A draft whose entry is refused for another reason than its signatures stays, and is tried again with the next one.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from ecot_node.http.callers import Caller
from ecot_node.http.context import Context
from ecot_node.http.errors import Problem
from ecot_node.store.port import DRAFT_MAX_BYTES, Draft
from ecot_protocol.domains.coop.state import recovery_principal
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.ledger.entry_type import NODE, Need, SignerRule
from ecot_protocol.ledger.reasons import Reason
from ecot_protocol.machine import Submission, public_keys
from ecot_protocol.state import State
from ecot_protocol.wire.encoding import encode
from ecot_protocol.wire.entry import ENTRY_CONTEXT, MAX_SIGNATURES, Entry, Signature, decode_entry
from ecot_protocol.wire.ids import is_uuid7, time_ms
from ecot_protocol.wire.keys import is_signature_valid
from ecot_protocol.wire.reply import Outcome, Recorded, RecordedBefore

LIFETIME_MAX_MS: Final = 31 * 86_400_000
"""An entry's `expires_at` is at most that long after the time in its id (`ecot_protocol.machine`)."""


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A draft as the rules see it now.

    Attributes:
        draft_id: SHA-256 of the body.
        submission: the entry with the signatures that count.
        rule: who must sign.
        present: principals that have signed.
    """

    draft_id: bytes
    submission: Submission
    rule: SignerRule
    present: frozenset[bytes]

    @property
    def is_complete(self) -> bool:
        """Whether enough persons have signed."""
        return all(len(need.principals & self.present) >= need.threshold for need in self.rule)

    @property
    def open_needs(self) -> tuple[Need, ...]:
        """What is still missing."""
        return tuple(need for need in self.rule if len(need.principals & self.present) < need.threshold)

    def is_for(self, caller: Caller) -> bool:
        """Tell whether the caller is a possible signer."""
        own = {caller.person, recovery_principal(caller.person)}
        return any(not own.isdisjoint(need.principals) for need in self.rule)


def read_entry(raw: bytes) -> Entry:
    """Decode the bytes of a draft as posted.

    Raises:
        Problem: ``body_too_large``.
        RemoteProtocolError: not an entry.
    """
    if len(raw) > DRAFT_MAX_BYTES:
        raise Problem("body_too_large", limit_bytes=DRAFT_MAX_BYTES)
    return decode_entry(raw)


async def judge(context: Context, entry: Entry) -> Standing:
    """Judge an entry by the state as it is now, leaving out signatures that don't count.

    Raises:
        RemoteProtocolError: the form of the entry.
        Problem: ``draft_refused``: of another ledger, expired, or nobody can sign it.
    """
    now_ms = context.clock_ms()
    return await context.ledger.read(lambda state: _judge(context, state, entry, now_ms))


def _judge(context: Context, state: State, entry: Entry, now_ms: int) -> Standing:
    submission = context.machine.admit(entry, state.rules)
    body = submission.body
    if body.ledger != state.ledger:
        raise Problem("draft_refused", "of another ledger", why="wrong_ledger")
    if not is_uuid7(body.id) or not now_ms < body.expires_at <= time_ms(body.id) + LIFETIME_MAX_MS:
        raise Problem("draft_refused", "its time is over, or too long", why="expired")
    rule = context.machine.signer_rule(state, submission, now_ms)
    present: dict[bytes, Signature] = {}
    for signature in entry.signatures:
        principal = _principal_of(context, state, submission, signature)
        if principal is not None and _is_useful(rule, present, principal):
            present[principal] = signature
    kept = tuple(sorted(present.values(), key=lambda one: one.key_id))
    submission = msgspec.structs.replace(submission, entry=Entry(entry.body, kept, entry.attachments))
    return Standing(draft_id=submission.body_hash, submission=submission, rule=rule, present=frozenset(present))


def _principal_of(context: Context, state: State, submission: Submission, signature: Signature) -> bytes | None:
    """Return for whom a signature counts; None if it is false or its key is not in force."""
    principal = context.machine.principal(state, submission, signature.key_id)
    if isinstance(principal, Reason):
        return None
    public_key = submission.introduced.get(signature.key_id) or public_keys(state)(signature.key_id)
    message = ENTRY_CONTEXT + submission.entry.body
    if public_key is None or not is_signature_valid(public_key, message, signature.signature):
        return None
    return principal


def _is_useful(rule: SignerRule, present: Iterable[bytes], principal: bytes) -> bool:
    """Tell whether one more signature is needed: the rules refuse one that isn't."""
    signed = frozenset(present)
    return principal not in signed and any(
        principal in need.principals and len(need.principals & signed) < need.threshold for need in rule
    )


async def begin(context: Context, entry: Entry, caller: Caller) -> Standing:
    """Judge a draft that the caller wants to leave.

    Raises:
        Problem: ``not_allowed``: the caller is no possible signer; ``draft_refused``.
    """
    standing = await judge(context, entry)
    if not any(need.principals - {NODE} for need in standing.rule) or not standing.is_for(caller):
        raise Problem("not_allowed")
    if len(standing.present) != len(entry.signatures):
        raise Problem("draft_refused", "a signature is false or not needed", why="signature_not_needed")
    return standing


def add_signature(entry: Entry, signature: Signature) -> Entry:
    """Return the entry with one more signature; one of the same key is replaced.

    Raises:
        Problem: ``draft_refused``: too many.
    """
    others = [one for one in entry.signatures if one.key_id != signature.key_id]
    if len(others) >= MAX_SIGNATURES:
        raise Problem("draft_refused", f"at most {MAX_SIGNATURES} signatures", why="signature_not_needed")
    return Entry(entry.body, tuple(sorted((*others, signature), key=lambda one: one.key_id)), entry.attachments)


async def keep(context: Context, standing: Standing) -> None:
    """Store a draft with the signatures that count."""
    content = encode(standing.submission.entry)
    if len(content) > DRAFT_MAX_BYTES:
        raise Problem("body_too_large", limit_bytes=DRAFT_MAX_BYTES)
    await context.store.drafts_expire(context.clock_ms())
    await context.store.draft_put(Draft(standing.draft_id, standing.submission.body.expires_at, content))


async def load(context: Context, draft_id: bytes) -> Standing:
    """Return a draft as the rules see it now.

    Raises:
        Problem: ``not_found``: there is none, it expired, or the rules no longer take it.
    """
    draft = await context.store.draft_get(draft_id)
    standing = await try_judge(context, draft) if draft is not None else None
    if standing is None:
        raise Problem("not_found")
    return standing


async def try_judge(context: Context, draft: Draft) -> Standing | None:
    """Judge a stored draft; None if the rules no longer take it."""
    try:
        return await judge(context, decode_entry(draft.content))
    except (Problem, RemoteProtocolError):
        return None


async def settle(context: Context, standing: Standing) -> Outcome | None:
    """Submit a draft that enough have signed; forget it once it is recorded. None: it still waits.

    Raises:
        Overloaded, NotWriting: nothing was taken; the draft stays.
    """
    if not standing.is_complete:
        return None
    reply = await context.ledger.submit((standing.submission.entry,))
    outcome = reply.outcomes[0]
    if isinstance(outcome, Recorded | RecordedBefore):
        await context.store.draft_delete(standing.draft_id)
    return outcome
