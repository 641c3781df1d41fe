# SPDX-License-Identifier: AGPL-3.0-or-later
"""A session with a node: opened by signing a challenge, opened again when it ends, never written to disk."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from ecot_client.errors import KeyProblem, NodeProblem
from ecot_client.models import Challenge, SessionInfo
from ecot_client.transport import Request, Transport
from ecot_protocol.wire.keys import Signer

T = TypeVar("T")
SESSION_CONTEXT: Final = b"ecot/session/v1\n"
_ENDED: Final = frozenset(("session_ended", "session_missing"))


class Sessions:
    """The one session of a client.

    Args:
        transport: to the node.
        signer: a daily key; None: no session can be opened.
        ledger: asks for the pinned ledger id, which the signature binds, so that no other node can use it.
    """

    def __init__(self, transport: Transport, signer: Signer | None, ledger: Callable[[], Awaitable[bytes]]) -> None:
        self._transport = transport
        self._signer = signer
        self._ledger = ledger
        self._lock = asyncio.Lock()
        self._session: SessionInfo | None = None

    @property
    def is_possible(self) -> bool:
        """Whether there is a key to open a session with."""
        return self._signer is not None

    async def open(self) -> SessionInfo:
        """Return the open session, opening one if need be.

        Raises:
            KeyProblem: ``key_needed``.
            NodeProblem: ``challenge_refused``: the key is not, or no longer, one of this ledger.
        """
        if self._signer is None:
            raise KeyProblem("key_needed")
        async with self._lock:
            if self._session is None:
                self._session = await self._open(self._signer)
            return self._session

    async def _open(self, signer: Signer) -> SessionInfo:
        key_id = signer.key_id.hex()
        ledger = await self._ledger()
        asked = Request("POST", "/v1/sessions/challenge", json={"key_id": key_id})
        challenge = (await self._transport.ask_json(asked, Challenge)).challenge
        signature = signer.sign(SESSION_CONTEXT + ledger + bytes.fromhex(challenge))
        body = {"key_id": key_id, "challenge": challenge, "signature": signature.hex()}
        # A challenge serves once, so this is not sent again: after a lost reply the next call asks for another.
        answer = Request("POST", "/v1/sessions", json=body, is_repeatable=False)
        return await self._transport.ask_json(answer, SessionInfo)

    async def close(self) -> None:
        """End the session, if one is open."""
        session, self._session = self._session, None
        if session is not None:
            await self._transport.ask(Request("DELETE", "/v1/sessions", is_repeatable=False), session.token)

    async def with_token(self, call: Callable[[str | None], Awaitable[T]]) -> T:
        """Call with a token (or None without a key); once more with a new session if the node has ended this one."""
        if not self.is_possible:
            return await call(None)
        session = await self.open()
        try:
            return await call(session.token)
        except NodeProblem as problem:
            if problem.code not in _ENDED:
                raise
        if self._session is session:
            self._session = None
        return await call((await self.open()).token)
