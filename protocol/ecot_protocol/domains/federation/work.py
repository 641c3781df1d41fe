# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the parts of a courier share: the ledger's state, what is under way, and when a deal is looked at again.

All of it can be lost: it is found again in the state, or told again by those who wait.
"""

from hashlib import sha256
from typing import Final, TypeVar

import msgspec

from ecot_protocol.domains.federation.outputs import Append, AppendKind
from ecot_protocol.domains.federation.state import FederationState, Promised
from ecot_protocol.domains.federation.statements import LogKey
from ecot_protocol.wire.encoding import Wire, encode
from ecot_protocol.wire.entry import BODY, Attachment, Body
from ecot_protocol.wire.ids import uuid7
from ecot_protocol.wire.keys import Signer
from ecot_protocol.wire.statement import sign_statement

RESEND_FIRST_MS: Final = 1_000
RESEND_MAX_MS: Final = 60_000
ENTRY_LIFETIME_MS: Final = 600_000
MAX_REMEMBERED: Final = 1_000
"""Contracts, and rounds, that are held while not promised here; the oldest is forgotten and asked for again."""
T = TypeVar("T")


def remember(memory: dict[bytes, T], tid: bytes, value: T) -> None:
    """Put into a memory of bounded size."""
    memory[tid] = value
    if len(memory) > MAX_REMEMBERED:
        del memory[next(iter(memory))]


class _Pace(msgspec.Struct):
    """When a deal is looked at again: the wait doubles each time."""

    next_ms: int = 0
    wait_ms: int = RESEND_FIRST_MS


class Work:
    """The shared part of a courier.

    Args:
        state: of the ledger, read only; as of the last record, durable or not.
        agent: signs promises, opens what is sealed to us.

    Attributes:
        durable_size: records below it are durable, and under a checkpoint that the log has signed.
        under_way: tid -> the entry that the host was asked to record.
        contracts: tid -> statement of a deal that we heard of.
    """

    def __init__(self, state: FederationState, agent: Signer) -> None:
        profile = state.coop.founded
        self.state = state
        self.agent = agent
        self.ledger = profile.ledger
        self.origin = profile.origin
        self.durable_size = 0
        self.under_way: dict[bytes, AppendKind] = {}
        self.contracts: dict[bytes, bytes] = {}
        self._paces: dict[bytes, _Pace] = {}
        self._entry_count = 0

    @property
    def own_log(self) -> LogKey:
        """The key of our log."""
        return LogKey(origin=self.origin, public_key=self.state.coop.node_keys["log"].public_key)

    def promised(self, tid: bytes) -> Promised | None:
        """Return our promise of a deal, durable or not."""
        return self.state.federation.promises.get(tid)

    def is_durable(self, promised: Promised) -> bool:
        """Tell whether a promise may be spoken of."""
        return promised.index < self.durable_size

    def is_known(self, tid: bytes) -> bool:
        """Tell whether the ledger has the deal, promised, decided or settled."""
        federation = self.state.federation
        return tid in federation.promises or tid in federation.decisions or tid in federation.settled

    def is_due(self, tid: bytes, now_ms: int) -> bool:
        """Tell whether a deal is to be looked at, and set when it is again."""
        pace = self._paces.setdefault(tid, _Pace())
        if now_ms < pace.next_ms:
            return False
        pace.next_ms = now_ms + pace.wait_ms
        pace.wait_ms = min(2 * pace.wait_ms, RESEND_MAX_MS)
        return True

    def hurry(self, tid: bytes | None = None) -> None:
        """Look at a deal at the next occasion, or at all of them."""
        if tid is None:
            self._paces.clear()
        else:
            self._paces.pop(tid, None)

    def forget(self, tid: bytes) -> None:
        """Forget what is not in the ledger."""
        self._paces.pop(tid, None)
        self.contracts.pop(tid, None)

    def sign(self, contract: bytes) -> bytes:
        """Return our agent's signature over the statement of a deal."""
        return sign_statement(self.agent, contract).signature

    def append(
        self,
        kind: AppendKind,
        tids: tuple[bytes, ...],
        payload: tuple[str, Wire],
        now_ms: int,
        attachments: tuple[Attachment, ...] = (),
    ) -> Append:
        """Ask for an entry of the node about these deals; `payload` is its tag and its value."""
        for tid in tids:
            self.under_way[tid] = kind
        return Append(kind, tids, self._body(tids[0], *payload, now_ms), attachments)

    def _body(self, tid: bytes, tag: str, payload: Wire, now_ms: int) -> bytes:
        """Build an unsigned body. Its id needs no randomness: it is the node's own, and says what the entry is for."""
        self._entry_count += 1
        seed = sha256(b"ecot/courier/v1\n" + tid + encode((tag, now_ms, self._entry_count))).digest()
        return BODY.encode(
            Body(
                author=None,
                expires_at=now_ms + ENTRY_LIFETIME_MS,
                id=uuid7(now_ms, seed[:10]),
                ledger=self.ledger,
                payload=msgspec.Raw(encode(payload)),
                type=tag,
            )
        )
