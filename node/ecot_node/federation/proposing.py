# SPDX-License-Identifier: AGPL-3.0-or-later
"""Proposals: peerings, and changes of them, on their way between two boards.

    our board proposes  ->  our agent signs    ->  the other node keeps it, and shows it to its board
    that board accepts  ->  its agent signs, it is recorded there
    the signature comes back  ->  our board records it too

- A proposal travels over libp2p to a partner, and over HTTP to a node whose address our board gave. It is sent again,
  ever more slowly, until it is answered; sending it again is asking what became of it.
- Nothing of a proposal binds anybody before a board has recorded it with both signatures.
- Strangers may propose, so there are limits: `MAX_STRANGERS` in all, one for each agent (a newer one takes its place),
  `LIFETIME_MS`, and a pace. When there is no room a new one is refused; what is there is not pushed out. Partners have
  room of their own.
- What is older than the peering in force is refused: an old statement never comes back.
"""

import time
from collections.abc import Callable
from typing import Annotated, Final, Literal, Protocol

import aiohttp
import msgspec
import structlog

from ecot_node.federation.notebook import MetaStore, Notes, NotesFull
from ecot_node.federation.peer_limits import Bucket, Pace
from ecot_protocol.domains.coop.genesis import log_origin
from ecot_protocol.domains.federation.messages import MAX_PROPOSAL_BYTES, Answered, Message, Propose
from ecot_protocol.domains.federation.peering import find_own_side_problem
from ecot_protocol.domains.federation.statements import Peering, Side, decode_peering
from ecot_protocol.errors import EcotError, RemoteProtocolError
from ecot_protocol.state import State
from ecot_protocol.wire.encoding import Codec, Count, Hash, Wire
from ecot_protocol.wire.entry import Signature
from ecot_protocol.wire.keys import Signer, key_id
from ecot_protocol.wire.statement import is_statement_signed, sign_statement, statement_id

log = structlog.get_logger("ecot.proposals")

MAX_STRANGERS: Final = 64
MAX_PROPOSALS: Final = 256
LIFETIME_MS: Final = 31 * 86_400_000
STRANGERS: Final = Pace(per_second=0.1, burst=20)
"""Proposals of strangers that are looked at."""
SEND_FIRST_S: Final = 2.0
SEND_MAX_S: Final = 300.0
HTTP_TIMEOUT_S: Final = 10.0
MAX_ANSWER_BYTES: Final = 16_384
MAX_REFUSAL_CHARS: Final = 500

ProposalStatus = Literal["accepted", "open", "recorded", "refused"]


class Proposal(Wire):
    """A proposal, made here (`is_ours`) or there.

    Attributes:
        at_ms: when it came, or was made.
        is_ours: our board proposes.
        partner: ledger id of the other side.
        refusal: why it was refused.
        signature: of the other side's agent; nil as long as it has not signed.
        statement: the peering.
        status: ``open``; ``accepted``: both agents have signed, it waits to be recorded here; ``recorded`` here;
            ``refused`` by the other board, or by ours.
        url: where the other node answers HTTP; empty if libp2p must do.
    """

    at_ms: Count
    is_ours: bool
    partner: Hash
    refusal: Annotated[str, msgspec.Meta(max_length=MAX_REFUSAL_CHARS)]
    signature: Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)] | None
    statement: Annotated[bytes, msgspec.Meta(max_length=MAX_PROPOSAL_BYTES)]
    status: ProposalStatus
    url: Annotated[str, msgspec.Meta(max_length=500)]

    @property
    def peering(self) -> Peering:
        """What is proposed."""
        return decode_peering(self.statement)


PROPOSAL: Final = Codec(Proposal)


class ProposalRefused(EcotError):
    """A proposal can't be taken.

    Attributes:
        code: stable.
        params: of its text.
    """

    def __init__(self, code: str, **params: str | int) -> None:
        super().__init__(code)
        self.code = code
        self.params = params


class AnswerReply(msgspec.Struct, frozen=True, kw_only=True):
    """What the other node answers over HTTP; unknown fields are ignored."""

    id: str
    signature: str | None = None
    refusal: str | None = None


class ProposalReads(Protocol):
    """What the proposals need of the running node."""

    @property
    def state(self) -> State: ...

    def is_connected(self, ledger: bytes) -> bool: ...

    def wall_ms(self) -> int: ...


class _Pace(msgspec.Struct):
    next_s: float = 0.0
    wait_s: float = SEND_FIRST_S


class Proposals:
    """All proposals of a node, by id (the statement's, hex).

    Args:
        node: of which.
        store: where they are kept.
        agent: signs.
        tell: sends a message to a partner, or drops it.
        monotonic_s: a clock that never goes back.
    """

    def __init__(
        self,
        node: ProposalReads,
        store: MetaStore,
        agent: Signer,
        tell: Callable[[bytes, Message], None],
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._node, self._agent, self._tell, self._monotonic_s = node, agent, tell, monotonic_s
        self._notes = Notes(store, "proposals", PROPOSAL, MAX_PROPOSALS)
        self._strangers = Bucket(STRANGERS)
        self._paces: dict[str, _Pace] = {}

    async def all(self) -> dict[str, Proposal]:
        """Return id -> proposal, oldest first."""
        return dict(await self._notes.all())

    async def get(self, name: str) -> Proposal | None:
        """Return a proposal."""
        found: Proposal | None = await self._notes.get(name)
        return found

    # --- what our board does ----------------------------------------------------------------------------------------

    async def propose(self, statement: bytes, url: str) -> str:
        """Sign a statement and begin to send it; return its id.

        Raises:
            RemoteProtocolError: it is not sound.
            ProposalRefused: ``own_side_wrong``, ``peering_sequence_stale``, ``agent_key_mismatch``,
                ``proposal_unreachable`` (not a partner, and no address), ``proposals_full``.
        """
        _, other = self._read(statement)
        if not url and self._node.state.federation.linked_peer(other.ledger) is None:
            raise ProposalRefused("proposal_unreachable")
        name = statement_id(statement).hex()
        known = await self.get(name)
        if known is None:
            proposal = _new(other, statement, self._node.wall_ms(), is_ours=True, url=url)
            await self._put(name, proposal)
        self._paces.pop(name, None)
        return name

    async def accept(self, name: str) -> tuple[Proposal, tuple[Signature, ...]]:
        """Sign a proposal of another board, or take ours that was countersigned; return both signatures.

        Raises:
            ProposalRefused: ``proposal_unknown``, ``proposal_waits`` (the other side has not signed), ``refused``.
        """
        proposal = await self._need(name)
        signature = proposal.signature
        if proposal.status == "refused":
            raise ProposalRefused("proposal_unknown")
        if signature is None:
            raise ProposalRefused("proposal_waits")
        self._read(proposal.statement)  # our keys, or the peering in force, may have changed since
        if proposal.status == "open":
            proposal = msgspec.structs.replace(proposal, status="accepted")
            await self._notes.put(name, proposal)
        other = proposal.peering.side_of(proposal.partner)
        theirs = Signature(key_id(other.agent), signature)
        both = sorted((theirs, sign_statement(self._agent, proposal.statement)), key=lambda one: one.key_id)
        return proposal, tuple(both)

    async def refuse(self, name: str, note: str) -> None:
        """Refuse a proposal of another board, or take ours back.

        Raises:
            ProposalRefused: ``proposal_unknown``, ``proposal_accepted`` (our agent's signature is out).
        """
        proposal = await self._need(name)
        if proposal.status == "accepted" and not proposal.is_ours:
            raise ProposalRefused("proposal_accepted")
        if proposal.is_ours:
            await self._notes.remove(name)
            return
        await self._notes.put(
            name, msgspec.structs.replace(proposal, status="refused", refusal=note[:MAX_REFUSAL_CHARS])
        )
        self._answer_partner(name, await self._need(name))

    async def _need(self, name: str) -> Proposal:
        proposal = await self.get(name)
        if proposal is None or proposal.status == "recorded":
            raise ProposalRefused("proposal_unknown")
        return proposal

    # --- what others send -------------------------------------------------------------------------------------------

    async def take(self, statement: bytes, signature: bytes, sender: bytes | None) -> Answered:
        """Take a proposal that came to us, and answer what became of it.

        Args:
            statement: of a peering.
            signature: of the proposer's agent.
            sender: the partner whose node brought it; None: anybody, over HTTP.

        Raises:
            RemoteProtocolError: it is not sound, or not signed.
            ProposalRefused: see `propose`; ``rate_limited``.
        """
        name = statement_id(statement).hex()
        known = await self.get(name)
        if known is not None:
            return _answer_of(name, known, self._agent)
        is_partner = sender is not None
        if not is_partner and not self._strangers.take(self._monotonic_s()):
            raise ProposalRefused("rate_limited")
        if len(statement) > MAX_PROPOSAL_BYTES:
            raise RemoteProtocolError("too_large", f"a proposal has at most {MAX_PROPOSAL_BYTES} bytes")
        peering, other = self._read(statement)
        if sender is not None and sender != other.ledger:
            raise RemoteProtocolError("peering_unsound", "of somebody else", field="sides")
        if not is_statement_signed(other.agent, statement, signature):
            raise RemoteProtocolError("bad_signature")
        proposal = _new(other, statement, self._node.wall_ms(), is_ours=False)
        await self._put(name, msgspec.structs.replace(proposal, signature=signature))
        log.info("proposal_came", id=name, domain=other.domain, sequence=peering.sequence)
        return Answered(bytes.fromhex(name), None, None)

    async def answered(self, sender: bytes, message: Answered) -> None:
        """Take what a partner's node says of a proposal of ours.

        Raises:
            RemoteProtocolError: ``bad_signature``.
        """
        proposal = await self.get(message.proposal.hex())
        if proposal is not None and proposal.partner == sender:
            await self._settle(message.proposal.hex(), proposal, message.signature, message.refusal)

    async def _settle(self, name: str, proposal: Proposal, signature: bytes | None, refusal: str | None) -> None:
        if not proposal.is_ours or proposal.status != "open":
            return
        if signature is not None:
            other = proposal.peering.side_of(proposal.partner)
            if not is_statement_signed(other.agent, proposal.statement, signature):
                raise RemoteProtocolError("bad_signature")
            await self._notes.put(name, msgspec.structs.replace(proposal, signature=signature, status="accepted"))
            log.info("proposal_accepted", id=name)
        elif refusal is not None:
            shown = refusal[:MAX_REFUSAL_CHARS]
            await self._notes.put(name, msgspec.structs.replace(proposal, status="refused", refusal=shown))
            log.info("proposal_refused", id=name)

    # --- in time ----------------------------------------------------------------------------------------------------

    async def tick(self, session: aiohttp.ClientSession) -> None:
        """Forget what is over, and send what is due; to be called about once a second."""
        now_s = self._monotonic_s()
        for name, proposal in (await self.all()).items():
            if await self._retire(name, proposal):
                continue
            if proposal.is_ours and proposal.status == "open" and self._is_due(name, now_s):
                await self._send(session, name, proposal)

    async def _retire(self, name: str, proposal: Proposal) -> bool:
        """Mark what was recorded, and forget what is older than what is in force, or too old."""
        peer = self._node.state.federation.peers.get(proposal.partner)
        if peer is not None and peer.statement.hex() == name:
            if proposal.status != "recorded":
                await self._notes.put(name, msgspec.structs.replace(proposal, status="recorded"))
                self._answer_partner(name, msgspec.structs.replace(proposal, status="recorded"))
            return True
        is_stale = peer is not None and proposal.peering.sequence <= peer.peering.sequence
        if is_stale or proposal.at_ms + LIFETIME_MS < self._node.wall_ms():
            await self._notes.remove(name)
            self._paces.pop(name, None)
            return True
        return False

    def _is_due(self, name: str, now_s: float) -> bool:
        pace = self._paces.setdefault(name, _Pace())
        if now_s < pace.next_s:
            return False
        pace.next_s = now_s + pace.wait_s
        pace.wait_s = min(2 * pace.wait_s, SEND_MAX_S)
        return True

    async def _send(self, session: aiohttp.ClientSession, name: str, proposal: Proposal) -> None:
        signature = sign_statement(self._agent, proposal.statement).signature
        if self._node.is_connected(proposal.partner):
            self._tell(proposal.partner, Propose(proposal.statement, signature))
        elif proposal.url:
            try:
                answer = await _post(session, proposal.url, proposal.statement, signature)
                if answer is not None and answer.id == name:
                    signed = bytes.fromhex(answer.signature) if answer.signature is not None else None
                    await self._settle(name, proposal, signed, answer.refusal)
            except (RemoteProtocolError, ValueError) as error:
                log.warning("proposal_answer_refused", id=name, error=str(error))

    def _answer_partner(self, name: str, proposal: Proposal) -> None:
        if not proposal.is_ours and self._node.is_connected(proposal.partner):
            self._tell(proposal.partner, _answer_of(name, proposal, self._agent))

    # --- small ------------------------------------------------------------------------------------------------------

    def _read(self, statement: bytes) -> tuple[Peering, Side]:
        """Read a statement that may come into force here, and return it with the other side."""
        peering = decode_peering(statement)
        state = self._node.state
        own = state.ledger
        if own is None or own not in (side.ledger for side in peering.sides):
            raise ProposalRefused("own_side_wrong", field="ledger")
        field = find_own_side_problem(state, peering.side_of(own))
        if field is not None:
            raise ProposalRefused("own_side_wrong", field=field)
        other = peering.other_side(own)
        if other.origin != log_origin(other.domain, other.ledger):
            raise RemoteProtocolError("peering_unsound", "origin", field="origin")
        peer = state.federation.peers.get(other.ledger)
        if peer is not None and peering.sequence <= peer.peering.sequence:
            raise ProposalRefused("peering_sequence_stale", newest=peer.peering.sequence)
        if peer is not None and peer.peering.side_of(other.ledger).agent != other.agent:
            raise ProposalRefused("agent_key_mismatch", partner=other.ledger.hex())
        return peering, other

    async def _put(self, name: str, proposal: Proposal) -> None:
        """Keep a new proposal; an older one to or from the same agent gives way to it.

        Of the same agent, not of the same ledger: anybody can claim to be a ledger that is no partner yet, and must not
        push out what the true one has proposed.
        """
        known = await self.all()
        agent = proposal.peering.side_of(proposal.partner).agent
        older = [
            one
            for one, found in known.items()
            if found.partner == proposal.partner
            and found.is_ours == proposal.is_ours
            and found.status != "recorded"
            and found.peering.side_of(found.partner).agent == agent
        ]
        for one in older:
            if known[one].status == "accepted" and not proposal.is_ours:
                continue  # our signature is out: what our board has signed stays to be seen
            await self._notes.remove(one)
        if not proposal.is_ours and self._is_stranger(proposal):
            strangers = [one for one in (await self.all()).values() if not one.is_ours and self._is_stranger(one)]
            if len(strangers) >= MAX_STRANGERS:
                raise ProposalRefused("proposals_full")
        try:
            await self._notes.put(name, proposal)
        except NotesFull:
            raise ProposalRefused("proposals_full") from None

    def _is_stranger(self, proposal: Proposal) -> bool:
        return proposal.partner not in self._node.state.federation.peers


def _new(other: Side, statement: bytes, at_ms: int, *, is_ours: bool, url: str = "") -> Proposal:
    return Proposal(
        at_ms=at_ms,
        is_ours=is_ours,
        partner=other.ledger,
        refusal="",
        signature=None,
        statement=statement,
        status="open",
        url=url,
    )


def _answer_of(name: str, proposal: Proposal, agent: Signer) -> Answered:
    is_signed = proposal.status in ("accepted", "recorded") and not proposal.is_ours
    signature = sign_statement(agent, proposal.statement).signature if is_signed else None
    return Answered(bytes.fromhex(name), signature, proposal.refusal if proposal.status == "refused" else None)


async def _post(session: aiohttp.ClientSession, url: str, statement: bytes, signature: bytes) -> AnswerReply | None:
    """Send a proposal over HTTP; None if the node was not reached or did not take it."""
    body = {"statement": statement.hex(), "signature": signature.hex()}
    timeout = aiohttp.ClientTimeout(HTTP_TIMEOUT_S)
    try:
        async with session.post(f"{url.rstrip('/')}/v1/proposals", json=body, timeout=timeout) as response:
            raw = bytearray()
            async for part in response.content.iter_any():
                raw += part
                if len(raw) > MAX_ANSWER_BYTES:
                    return None
            if response.status != 200:
                log.info(
                    "proposal_not_taken", url=url, status=response.status, answer=raw[:200].decode("utf-8", "replace")
                )
                return None
            return msgspec.json.decode(raw, type=AnswerReply)
    except (aiohttp.ClientError, TimeoutError, OSError, msgspec.MsgspecError, ValueError) as error:
        log.info("proposal_not_sent", url=url, error=str(error))
        return None


__all__ = ["PROPOSAL", "AnswerReply", "Proposal", "ProposalRefused", "Proposals"]
