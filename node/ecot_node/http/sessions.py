# SPDX-License-Identifier: AGPL-3.0-or-later
r"""Sessions: a person proves to hold a daily key, and gets a token to read with. Nothing is written with a session.

1. ``POST /v1/sessions/challenge``: 32 bytes = expiry (8, ms) + draw (8) + HMAC-SHA-256 of key id, expiry and draw under
   a secret of this process (16). Nothing is stored for it, so asking for challenges fills no table and can't push out
   somebody else's.
2. ``POST /v1/sessions``: a signature over ``"ecot/session/v1\n"`` + ledger id + challenge. A challenge whose signature
   is good is remembered until it expires: it opens one session.
3. The token is 32 random bytes; memory holds its SHA-256 alone. A restart ends every session.
4. Each request asks the state again (`Sessions.caller`): a revoked key ends the session there and then.

>>> sessions = Sessions(secret=bytes(32), draw=lambda count: bytes(count), ttl_ms=1_000)
>>> challenge, expires_at_ms = sessions.challenge(b"k" * 16, 5_000)
>>> len(challenge), expires_at_ms
(32, 65000)
>>> sessions.is_open_challenge(b"k" * 16, challenge, 64_999), sessions.is_open_challenge(b"l" * 16, challenge, 64_999)
(True, False)
"""

import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from ecot_node.http.callers import Caller, find_caller
from ecot_node.http.errors import Problem
from ecot_node.ledger.port import Ledger, RecordedEntry
from ecot_protocol.domains.membership.facts import MandateGranted, MemberApplied
from ecot_protocol.state import State

SESSION_CONTEXT: Final = b"ecot/session/v1\n"
CHALLENGE_BYTES: Final = 32
CHALLENGE_LIFE_MS: Final = 60_000
TOKEN_BYTES: Final = 32
MAX_USED_CHALLENGES: Final = 10_000
MAX_SESSIONS: Final = 50_000
MAX_SESSIONS_PER_KEY: Final = 16
_TIME_BYTES: Final = 8
_DRAW_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Session:
    """An open session: which key opened it, until when it lives (milliseconds since 1970)."""

    key_id: bytes
    person: bytes
    expires_at_ms: int


class Mandating:
    """person -> members that ever gave it a mandate since this start: where `find_caller` looks.

    A superset by design: the state says whether the mandate still holds. Without it each request would look at the
    mandates of every member.
    """

    def __init__(self) -> None:
        self._members: dict[bytes, set[bytes]] = {}

    def scan(self, state: State) -> None:
        """Take every mandate of the state."""
        for member, mandates in state.membership.mandates.items():
            for mandate in mandates:
                self._members.setdefault(mandate.person, set()).add(member)

    def follow(self, entries: Sequence[RecordedEntry]) -> None:
        """Take the mandates that these records gave."""
        for entry in entries:
            for fact in entry.facts:
                if isinstance(fact, MandateGranted | MemberApplied):
                    self._members.setdefault(fact.person, set()).add(fact.member)

    def of(self, person: bytes) -> frozenset[bytes]:
        """Return the members to look at."""
        return frozenset(self._members.get(person, ()))


class Sessions:
    """Challenges and sessions of this process, all bounded.

    Args:
        secret: 32 bytes under which challenges are made; never leaves the process.
        draw: returns that many random bytes.
        ttl_ms: life of a session.
    """

    def __init__(
        self,
        *,
        secret: bytes | None = None,
        draw: Callable[[int], bytes] = secrets.token_bytes,
        ttl_ms: int,
    ) -> None:
        self._secret = secret or secrets.token_bytes(32)
        self._draw = draw
        self._ttl_ms = ttl_ms
        self._used: OrderedDict[bytes, int] = OrderedDict()
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()
        self._by_key: dict[bytes, list[bytes]] = {}
        self.mandating = Mandating()

    def __len__(self) -> int:
        return len(self._sessions)

    def challenge(self, key_id: bytes, now_ms: int) -> tuple[bytes, int]:
        """Return (challenge, until when it can be used)."""
        expires_at_ms = now_ms + CHALLENGE_LIFE_MS
        head = expires_at_ms.to_bytes(_TIME_BYTES, "big") + self._draw(_DRAW_BYTES)
        return head + self._seal(key_id, head), expires_at_ms

    def _seal(self, key_id: bytes, head: bytes) -> bytes:
        return hmac.digest(self._secret, key_id + head, "sha256")[: CHALLENGE_BYTES - len(head)]

    def is_open_challenge(self, key_id: bytes, challenge: bytes, now_ms: int) -> bool:
        """Tell whether the challenge is ours, for this key, neither used nor expired."""
        head, seal = challenge[: _TIME_BYTES + _DRAW_BYTES], challenge[_TIME_BYTES + _DRAW_BYTES :]
        if not hmac.compare_digest(seal, self._seal(key_id, head)):
            return False
        return now_ms < int.from_bytes(head[:_TIME_BYTES], "big") and challenge not in self._used

    def open(self, key_id: bytes, person: bytes, challenge: bytes, now_ms: int) -> tuple[bytes, Session]:
        """Use up a challenge whose signature is good, and return (token, session).

        Raises:
            Problem: ``overloaded``: too many sessions were opened within a minute.
        """
        while self._used and next(iter(self._used.values())) <= now_ms:
            self._used.popitem(last=False)
        if len(self._used) >= MAX_USED_CHALLENGES:
            raise Problem("overloaded", headers={"Retry-After": "60"})
        self._used[challenge] = int.from_bytes(challenge[:_TIME_BYTES], "big")
        token = self._draw(TOKEN_BYTES)
        session = Session(key_id, person, now_ms + self._ttl_ms)
        self._keep(sha256(token).digest(), session)
        return token, session

    def _keep(self, name: bytes, session: Session) -> None:
        others = self._by_key.setdefault(session.key_id, [])
        while len(others) >= MAX_SESSIONS_PER_KEY:
            self.close(others[0])
            others = self._by_key.setdefault(session.key_id, [])
        while len(self._sessions) >= MAX_SESSIONS:
            self.close(next(iter(self._sessions)))
        self._sessions[name] = session
        self._by_key.setdefault(session.key_id, []).append(name)

    def close(self, name: bytes) -> None:
        """End a session by the hash of its token; one that is not there is ended already."""
        session = self._sessions.pop(name, None)
        if session is None:
            return
        names = self._by_key[session.key_id]
        names.remove(name)
        if not names:
            del self._by_key[session.key_id]

    async def caller(self, token: bytes, ledger: Ledger, now_ms: int) -> Caller:
        """Return who holds the token, as the state says now.

        Raises:
            Problem: ``session_ended``: unknown, expired, or its key is no longer in force.
        """
        return await self.resume(sha256(token).digest(), ledger, now_ms)

    async def resume(self, name: bytes, ledger: Ledger, now_ms: int) -> Caller:
        """Like `caller`, by the hash of the token: what a long answer asks again."""
        session = self._sessions.get(name)
        if session is None or now_ms >= session.expires_at_ms:
            self.close(name)
            raise Problem("session_ended")
        mandating = self.mandating.of(session.person)
        caller = await ledger.read(
            lambda state: find_caller(state, name, session.key_id, mandating=mandating, now_ms=now_ms)
        )
        if caller is None:
            self.close(name)
            raise Problem("session_ended")
        return caller
