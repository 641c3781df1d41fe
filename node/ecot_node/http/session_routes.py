# SPDX-License-Identifier: AGPL-3.0-or-later
"""Open and end a session; who am I."""

from typing import Final, Literal

from ecot_node.http.callers import Caller
from ecot_node.http.errors import Problem
from ecot_node.http.fields import HashHex, IdHex, JsonBody, JsonReply, KeyIdHex, SignatureHex, TimeMs, TokenHex
from ecot_node.http.routes import AnyRoute, Request, Route
from ecot_node.http.sessions import SESSION_CONTEXT
from ecot_protocol.domains.coop.state import Key
from ecot_protocol.state import State
from ecot_protocol.wire.keys import is_signature_valid


class ChallengeBody(JsonBody):
    """For which key a session is to be opened."""

    key_id: KeyIdHex


class ChallengeReply(JsonReply):
    """32 bytes to sign, once, in time."""

    challenge: HashHex
    expires_at_ms: TimeMs


class OpenBody(JsonBody):
    r"""A signed challenge: `signature` over ``"ecot/session/v1\n"`` + ledger id (32 bytes) + challenge."""

    key_id: KeyIdHex
    challenge: HashHex
    signature: SignatureHex


class MandateReply(JsonReply):
    """A member that the person may act for now, and in which scopes."""

    member: IdHex
    handle: str
    status: Literal["admitted", "applied", "excluded", "left"]
    scopes: tuple[str, ...]


class SessionReply(JsonReply):
    """An open session. `token` goes into ``Authorization: Bearer <token>``."""

    token: TokenHex
    expires_at_ms: TimeMs
    person: IdHex
    members: tuple[MandateReply, ...]
    offices: tuple[str, ...]


class OwnKeyReply(JsonReply):
    """A key of the person, in force."""

    key_id: KeyIdHex
    purpose: Literal["daily", "recovery"]


class MeReply(JsonReply):
    """The person of this session, as the ledger knows it now."""

    person: IdHex
    handle: str
    key_id: KeyIdHex
    keys: tuple[OwnKeyReply, ...]
    members: tuple[MandateReply, ...]
    offices: tuple[str, ...]


def _mandates(caller: Caller) -> tuple[MandateReply, ...]:
    return tuple(
        MandateReply(member=one.member.hex(), handle=one.handle, status=one.status, scopes=one.scopes)
        for one in caller.members
    )


async def post_challenge(request: Request[None, ChallengeBody]) -> ChallengeReply:
    """Ask for a challenge. The answer is the same whether or not the key is known."""
    key_id = bytes.fromhex(request.body.key_id)
    challenge, expires_at_ms = request.services.sessions.challenge(key_id, request.context.clock_ms())
    return ChallengeReply(challenge=challenge.hex(), expires_at_ms=expires_at_ms)


async def post_session(request: Request[None, OpenBody]) -> SessionReply:
    """Open a session with a daily key. A challenge serves once and for 60 seconds."""
    key_id, challenge = bytes.fromhex(request.body.key_id), bytes.fromhex(request.body.challenge)
    sessions, now_ms = request.services.sessions, request.context.clock_ms()
    if not sessions.is_open_challenge(key_id, challenge, now_ms):
        raise Problem("challenge_refused")
    key, ledger_id = await request.context.ledger.read(lambda state: (state.coop.keys.get(key_id), state.ledger))
    if ledger_id is None or not _may_open(key):
        raise Problem("challenge_refused")
    assert key is not None
    message = SESSION_CONTEXT + ledger_id + challenge
    if not is_signature_valid(key.public_key, message, bytes.fromhex(request.body.signature)):
        raise Problem("challenge_refused")
    if not sessions.is_open_challenge(key_id, challenge, now_ms):  # another request may have used it meanwhile
        raise Problem("challenge_refused")
    token, session = sessions.open(key_id, key.person, challenge, now_ms)
    caller = await sessions.caller(token, request.context.ledger, now_ms)
    return SessionReply(
        token=token.hex(),
        expires_at_ms=session.expires_at_ms,
        person=caller.person.hex(),
        members=_mandates(caller),
        offices=caller.offices,
    )


def _may_open(key: Key | None) -> bool:
    """Tell whether a key opens sessions: a recovery key only manages keys."""
    return key is not None and key.revoked_at_ms is None and key.purpose == "daily"


async def delete_session(request: Request[None, None]) -> None:
    """End this session."""
    request.services.sessions.close(request.signed_in.session)


def _own(state: State, person: bytes) -> tuple[str, tuple[OwnKeyReply, ...]]:
    keys = (
        OwnKeyReply(key_id=key_id.hex(), purpose=state.coop.keys[key_id].purpose)
        for key_id in state.coop.person_keys[person]
    )
    return state.coop.persons[person].handle, tuple(keys)


async def get_me(request: Request[None, None]) -> MeReply:
    """Read who the session belongs to, and for whom the person acts now."""
    caller = request.signed_in
    handle, keys = await request.context.ledger.read(lambda state: _own(state, caller.person))
    return MeReply(
        person=caller.person.hex(),
        handle=handle,
        key_id=caller.key_id.hex(),
        keys=keys,
        members=_mandates(caller),
        offices=caller.offices,
    )


SESSION_ROUTES: Final[tuple[AnyRoute, ...]] = (
    Route(
        method="POST",
        path="/v1/sessions/challenge",
        summary="Ask for a challenge",
        tag="sessions",
        access="public",
        handler=post_challenge,
        body=ChallengeBody,
        response=ChallengeReply,
    ),
    Route(
        method="POST",
        path="/v1/sessions",
        summary="Open a session",
        tag="sessions",
        access="public",
        handler=post_session,
        body=OpenBody,
        response=SessionReply,
        errors=("challenge_refused", "overloaded"),
    ),
    Route(
        method="DELETE",
        path="/v1/sessions",
        summary="End this session",
        tag="sessions",
        handler=delete_session,
    ),
    Route(
        method="GET",
        path="/v1/me",
        summary="Read who this session belongs to",
        tag="sessions",
        handler=get_me,
        response=MeReply,
    ),
)
