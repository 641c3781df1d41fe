# SPDX-License-Identifier: AGPL-3.0-or-later
"""Reads and acts about partners: peerings and their proposals, mirrors and incidents, keys of the node.

A peering is signed by both nodes' agent keys before the boards record it. A board proposes it through its own node
(``POST /v1/peerings/proposals``), which brings it to the other one (``POST /v1/proposals``, or libp2p); there the board
accepts or refuses. ``POST /v1/peerings/signature`` gives this node's signature to a statement that came as a file.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final, Literal, Protocol, TypeVar

import msgspec

from ecot_node.domains.reading import refuse_unless
from ecot_node.federation.incidents import EVIDENCE, Incident, IncidentUnknown
from ecot_node.federation.partners import PartnerDesk
from ecot_node.federation.port import PeerStatus
from ecot_node.federation.proposing import Proposal, ProposalRefused
from ecot_node.federation.reconciling import NOT_YET, MirrorStatus
from ecot_node.http.errors import Problem
from ecot_node.http.fields import (
    BytesHex,
    Count,
    HashHex,
    IdHex,
    Integer,
    JsonBody,
    JsonReply,
    KeyIdHex,
    Listing,
    Page,
    Params,
    Positive,
    SignatureHex,
    TimeMs,
    UnitCode,
)
from ecot_node.http.routes import AnyRoute, Content, Media, Request, Route
from ecot_node.ledger.next_keys import NextKeys
from ecot_protocol.domains.coop.acts import REPLACE_NODE_KEY, ReplaceNodeKey
from ecot_protocol.domains.federation.messages import encode_message
from ecot_protocol.domains.federation.peering import find_own_side_problem
from ecot_protocol.domains.federation.state import Peer, partner_account
from ecot_protocol.domains.federation.statements import decode_peering, encode_peering
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.state import State
from ecot_protocol.wire.encoding import Codec
from ecot_protocol.wire.entry import BODY, sign_body
from ecot_protocol.wire.keys import Signer
from ecot_protocol.wire.statement import sign_statement

T = TypeVar("T")
MSGPACK: Final = "application/msgpack"
Purpose = Literal["agent", "cosigner", "host", "log"]
Health = Literal["differs", "ended", "good", "suspended", "unknown", "unreachable", "unwitnessed"]
LAG_MAX: Final = 1_000
"""Records that a partner may be behind in cosigning our log, before it is shown as not witnessing."""
Text = Annotated[str, msgspec.Meta(max_length=2_000)]
Refusal = Annotated[str, msgspec.Meta(max_length=500)]
Url = Annotated[str, msgspec.Meta(max_length=500, pattern=r"^(?:https?://[!-~]{1,490})?$")]


class PeerLink(Protocol):
    """What these routes need of the running federation."""

    def status(self, ledger: bytes) -> PeerStatus | None: ...

    def witnessed_size(self, ledger: bytes) -> int | None: ...


class MirrorReply(JsonReply):
    """How our mirror of a partner and its mirror of us compared last.

    Attributes:
        kind: ``agreed``; ``differs``: see the incidents; ``unclear``: it is tried again; None: not compared yet.
        at_ms: when.
        their_balance_minor: what the partner says that its account of us holds, in its unit.
        delayed_count: deals resolved on one side only, so far.
    """

    kind: Literal["agreed", "differs", "unclear"] | None
    at_ms: TimeMs | None
    their_balance_minor: Integer | None
    delayed_count: Count


class PeerReply(JsonReply):
    """A partner.

    Attributes:
        ledger: its id.
        status: ``active``; ``suspended``, by both or by us alone: nothing new; or ``ended``.
        ended_at_ms: when the peering ended; None while it is in force.
        suspended_at_ms: when we alone suspended it.
        sequence: of the peering.
        statement: the peering in force (hex of canonical bytes): as both signed it, with the keys replaced since.
        statement_id: of what both signed.
        shared: what the two show each other.
        unit: our unit of the account; `partner_unit` is the other's.
        limit_minor: the most that we let it owe us, in our unit; `partner_limit_minor` the same from its side.
        balance_minor: positive if we owe it.
        pending_out_minor: what deals that wait for their decision may add to what we owe it; `pending_in_minor` to what
            it owes us.
        pending_count: how many deals wait.
        room_out_minor: how much more may go from us to it, by the limits and what is promised.
        room_in_minor: how much more may come to us from it.
        health: ``good``; ``differs``: an incident stands; ``unreachable``; ``unwitnessed``: reached, and behind in
            cosigning our log; ``unknown``: the federation does not run here; ``suspended``, ``ended``.
        is_connected: over libp2p, now.
        last_contact_ms: milliseconds since anything was heard; None: never.
        rtt_ms: of the last heartbeat.
        queued: messages that wait for it.
        last_error: code of the last fault of the connection.
        cosigned_size: of its log, that we cosigned last.
        witnessed_size: of our log, that it cosigned last, since the node started.
        mirror: how the two mirrors compared.
        incident_count: incidents that stand.
    """

    ledger: HashHex
    origin: str
    domain: str
    status: Literal["active", "ended", "suspended"]
    ended_at_ms: TimeMs | None
    suspended_at_ms: TimeMs | None
    sequence: Positive
    statement: BytesHex
    statement_id: HashHex
    shared: tuple[str, ...]
    unit: UnitCode
    partner_unit: UnitCode
    limit_minor: Count
    partner_limit_minor: Count
    balance_minor: Integer
    pending_out_minor: Count
    pending_in_minor: Count
    pending_count: Count
    room_out_minor: Count | None
    room_in_minor: Count | None
    health: Health
    is_connected: bool
    last_contact_ms: Count | None
    rtt_ms: Count | None
    queued: Count
    last_error: str | None
    cosigned_size: Count | None
    witnessed_size: Count | None
    mirror: MirrorReply
    incident_count: Count


class PeeringBody(JsonBody):
    """A peering statement to be signed by the node (hex of canonical bytes)."""

    statement: BytesHex


class SignatureReply(JsonReply):
    """The signature of a key of the node."""

    key_id: KeyIdHex
    signature: SignatureHex


class ProposeBody(JsonBody):
    """A peering to be signed and brought to the other node; `url` is where that answers HTTP, empty for a partner."""

    statement: BytesHex
    url: Url = ""


class ProposalBody(JsonBody):
    """A peering that another node's board proposes, and the signature of its agent."""

    statement: BytesHex
    signature: SignatureHex


class ProposalParams(Params):
    """Which proposal."""

    proposal: HashHex


class AnswerReply(JsonReply):
    """What became of a proposal: nothing yet, our agent's signature, or why it was refused."""

    id: HashHex
    signature: SignatureHex | None
    refusal: str | None


class ProposalReply(JsonReply):
    """A proposal.

    Attributes:
        id: of the statement.
        is_ours: our board proposes it.
        partner: ledger id of the other side.
        domain: of the other side, as the statement says.
        is_known: whether it is a partner.
        sequence, peering_status: of the statement.
        statement: hex of canonical bytes.
        status: ``open``; ``accepted``: both agents have signed, it waits to be recorded; ``recorded``; ``refused``.
        refusal: why.
        url: where the other node is sought.
        at_ms: when it came or was made.
    """

    id: HashHex
    is_ours: bool
    partner: HashHex
    domain: str
    is_known: bool
    sequence: Positive
    peering_status: Literal["active", "ended", "suspended"]
    statement: BytesHex
    status: Literal["accepted", "open", "recorded", "refused"]
    refusal: str
    url: str
    at_ms: TimeMs


class ProposalsReply(JsonReply):
    """All proposals, oldest first."""

    items: tuple[ProposalReply, ...]


class ProposalIdReply(JsonReply):
    """A proposal that is on its way."""

    id: HashHex


class AcceptedReply(JsonReply):
    """A proposal with both agents' signatures, to be recorded by ``federation.peer``."""

    statement: BytesHex
    signatures: tuple[SignatureReply, ...]


class RefusalBody(JsonBody):
    """Why a proposal is refused: shown to the other board."""

    note: Refusal = ""


class NamedDealReply(JsonReply):
    """A deal that the two ledgers don't post alike; amounts move the partner's mirror, in its unit."""

    tid: IdHex
    kind: Literal["amount_differs", "missing_here", "missing_there", "opposed"]
    expected_minor: Integer
    shown_minor: Integer
    their_index: Count | None


class IncidentReply(JsonReply):
    """A difference between two mirrors that no delay explains.

    Attributes:
        id: of the incident.
        partner: ledger id.
        kind: ``mirror_differs``: the balance; ``deal_opposed``: a deal posted on one side, voided on the other;
            ``deal_unheard``: posted there, never promised here.
        status: ``open``, ``acknowledged``, ``closed`` (by the board), ``explained`` (the mirrors agree again).
        unit: the partner's, of all amounts.
        expected_minor: what its mirror should hold; `shown_minor` what it says; `difference_minor` what lies between.
        deals: those that differ, the first 64 of `deal_count`.
        note: of whoever acknowledged or closed it, `noted_by`.
        noticed_at_ms: first; `seen_at_ms`: last.
    """

    id: IdHex
    partner: HashHex
    kind: Literal["deal_opposed", "deal_unheard", "mirror_differs"]
    status: Literal["acknowledged", "closed", "explained", "open"]
    unit: UnitCode
    expected_minor: Integer
    shown_minor: Integer
    difference_minor: Integer
    deal_count: Count
    deals: tuple[NamedDealReply, ...]
    note: str
    noted_by: IdHex | None
    noticed_at_ms: TimeMs
    seen_at_ms: TimeMs


class IncidentsReply(JsonReply):
    """All incidents, oldest first."""

    items: tuple[IncidentReply, ...]


class IncidentParams(Params):
    """Which incident."""

    incident: IdHex


class IncidentBody(JsonBody):
    """What the board says of an incident."""

    status: Literal["acknowledged", "closed"]
    note: Text


class KeysParams(Params):
    """What the asker knows: the record up to which it knows our keys, and the size of our log that it saw last."""

    keys_index: Count
    cosigned_size: Count


class NextKeyBody(JsonBody):
    """Which key is to be replaced."""

    purpose: Purpose


class NextKeyReply(JsonReply):
    """The coming key (algorithm byte and key)."""

    public_key: BytesHex


class KeyBody(JsonBody):
    """The body of a ``coop.replace_node_key`` (hex), to be signed by the coming key."""

    body: BytesHex


_REPLACEMENT: Final[Codec[ReplaceNodeKey]] = Codec(ReplaceNodeKey)
_KEYS: Final = Media(MSGPACK, "A message *keys shown* of the federation protocol.")
_EVIDENCE: Final = Media(MSGPACK, "Evidence: canonical MessagePack, see the specification of the federation.")


def _reply(state: State, ledger: bytes, peer: Peer, link: "_Link", incident_count: int) -> PeerReply:
    own = state.coop.founded.ledger
    peering, status, mirror = peer.peering, link.status, link.mirror
    side, other = peering.side_of(own), peering.other_side(own)
    account = state.accounts.rows[partner_account(ledger, side.unit)]
    lowest = account.balance_minor - account.reserved_out_minor
    highest = account.balance_minor + account.reserved_in_minor
    age = status.last_contact_age_ms if status is not None else None
    rtt = status.rtt_ms if status is not None else None
    return PeerReply(
        ledger=ledger.hex(),
        origin=other.origin,
        domain=other.domain,
        status=peer.status,
        ended_at_ms=peer.ended_at_ms,
        suspended_at_ms=peer.suspended_at_ms,
        sequence=peering.sequence,
        statement=encode_peering(peering).hex(),
        statement_id=peer.statement.hex(),
        shared=peering.shared,
        unit=side.unit,
        partner_unit=other.unit,
        limit_minor=side.limit_minor,
        partner_limit_minor=other.limit_minor,
        balance_minor=account.balance_minor,
        pending_out_minor=account.reserved_in_minor,
        pending_in_minor=account.reserved_out_minor,
        pending_count=sum(ledger in one.partners for one in state.federation.promises.values()),
        room_out_minor=None if account.upper_minor is None else max(account.upper_minor - highest, 0),
        room_in_minor=None if account.lower_minor is None else max(lowest - account.lower_minor, 0),
        health=_health(peer, link, incident_count, state.size),
        is_connected=status is not None and status.is_connected,
        last_contact_ms=None if age is None else int(age),
        rtt_ms=None if rtt is None else int(rtt),
        queued=status.queued_count if status is not None else 0,
        last_error=status.last_error if status is not None else None,
        cosigned_size=link.cosigned_size,
        witnessed_size=link.witnessed_size,
        mirror=MirrorReply(
            kind=mirror.kind,  # type: ignore[arg-type]  # the three that a comparison can give
            at_ms=mirror.at_ms,
            their_balance_minor=mirror.their_balance_minor,
            delayed_count=mirror.delayed_count,
        ),
        incident_count=incident_count,
    )


class _Link(msgspec.Struct, frozen=True):
    """How it stands with a partner beside the ledger."""

    status: PeerStatus | None
    mirror: MirrorStatus
    cosigned_size: int | None
    witnessed_size: int | None


def _health(peer: Peer, link: _Link, incident_count: int, size: int) -> Health:
    if peer.status != "active":
        return peer.status
    if incident_count:
        return "differs"
    if link.status is None:
        return "unknown"
    if not link.status.is_connected:
        return "unreachable"
    return "good" if size - (link.witnessed_size or 0) <= LAG_MAX else "unwitnessed"


def _proposal(name: str, one: Proposal, known: frozenset[bytes]) -> ProposalReply:
    peering = one.peering
    return ProposalReply(
        id=name,
        is_ours=one.is_ours,
        partner=one.partner.hex(),
        domain=peering.side_of(one.partner).domain,
        is_known=one.partner in known,
        sequence=peering.sequence,
        peering_status=peering.status,
        statement=one.statement.hex(),
        status=one.status,
        refusal=one.refusal,
        url=one.url,
        at_ms=one.at_ms,
    )


def _incident(name: str, one: Incident) -> IncidentReply:
    return IncidentReply(
        id=name,
        partner=one.partner.hex(),
        kind=one.kind,
        status=one.status,
        unit=one.unit,
        expected_minor=one.expected_minor,
        shown_minor=one.shown_minor,
        difference_minor=one.difference_minor,
        deal_count=one.deal_count,
        deals=tuple(
            NamedDealReply(
                tid=deal.tid.hex(),
                kind=deal.kind,
                expected_minor=deal.expected_minor,
                shown_minor=deal.shown_minor,
                their_index=deal.their_index,
            )
            for deal in one.deals
        ),
        note=one.note,
        noted_by=None if one.noted_by is None else one.noted_by.hex(),
        noticed_at_ms=one.noticed_at_ms,
        seen_at_ms=one.seen_at_ms,
    )


def _peering_problem(state: State, raw: bytes) -> str | None:
    try:
        peering = decode_peering(raw)
    except RemoteProtocolError as error:
        return str(error.params.get("field", error.code))
    own = state.ledger
    if own is None or own not in (side.ledger for side in peering.sides):
        return "ledger"
    return find_own_side_problem(state, peering.side_of(own))


def _refuse_unless_board(request: Request[Any, Any]) -> None:
    refuse_unless("board" in request.signed_in.offices)


class PeerHandlers:
    """The handlers of the routes about partners.

    Args:
        link: the running federation; None if it is not enabled.
        agent: signs peerings.
        desk: of the node; None before the genesis.
        next_keys: coming keys of the node.
    """

    def __init__(
        self, link: PeerLink | None, agent: Signer, desk: PartnerDesk | None, next_keys: NextKeys | None
    ) -> None:
        self._link, self._agent, self._desk, self._next_keys = link, agent, desk, next_keys

    @property
    def desk(self) -> PartnerDesk:
        """The desk of a node that has a ledger."""
        if self._desk is None:
            raise Problem("federation_disabled")
        return self._desk

    async def list_peers(self, request: Request[Page, None]) -> Listing[PeerReply]:
        """List partners, with what is owed, how much more may be, and how the connection is."""
        known: dict[bytes, Peer] = await request.context.ledger.read(lambda state: dict(state.federation.peers.items()))
        own = await request.context.ledger.read(lambda state: state.ledger)
        incidents = await self._desk.reconciler.incidents.all() if self._desk is not None else {}
        standing = [one.partner for one in incidents.values() if one.is_standing]
        links = {
            ledger: await self._link_of(ledger, peer.peering.side_of(ledger).origin) for ledger, peer in known.items()
        }

        def ask(state: State) -> Listing[PeerReply]:
            items = tuple(
                _reply(state, ledger, peer, links[ledger], standing.count(ledger))
                for ledger, peer in state.federation.peers.items()
                if ledger in links
            )
            return Listing(items=items if own is not None else (), next=None, index=state.size)

        return await request.context.ledger.read(ask)

    async def _link_of(self, ledger: bytes, origin: str) -> _Link:
        cosigned = await self._desk.cosigned(origin) if self._desk is not None else (0, None)
        return _Link(
            self._link.status(ledger) if self._link is not None else None,
            self._desk.mirror(ledger) if self._desk is not None else NOT_YET,
            cosigned[0] if cosigned[1] is not None else None,
            self._link.witnessed_size(ledger) if self._link is not None else None,
        )

    async def sign_peering(self, request: Request[None, PeeringBody]) -> SignatureReply:
        """Sign a peering that came as a file; `problem` names what is wrong with our own side."""
        _refuse_unless_board(request)
        raw = bytes.fromhex(request.body.statement)
        problem = await request.context.ledger.read(lambda state: _peering_problem(state, raw))
        if problem is not None:
            raise Problem("peering_unsound", field=problem)
        signed = sign_statement(self._agent, raw)
        return SignatureReply(key_id=signed.key_id.hex(), signature=signed.signature.hex())

    # --- proposals --------------------------------------------------------------------------------------------------

    async def list_proposals(self, request: Request[None, None]) -> ProposalsReply:
        """List what boards propose to each other, oldest first."""
        refuse_unless(request.signed_in.is_officer)
        known = await request.context.ledger.read(lambda state: frozenset(state.federation.peers))
        found = await self.desk.proposals.all()
        return ProposalsReply(items=tuple(_proposal(name, one, known) for name, one in found.items()))

    async def propose(self, request: Request[None, ProposeBody]) -> ProposalIdReply:
        """Sign a peering and bring it to the other node, again and again, until that answers."""
        _refuse_unless_board(request)
        raw = bytes.fromhex(request.body.statement)
        return ProposalIdReply(id=await _told(self.desk.proposals.propose, raw, request.body.url))

    async def take_proposal(self, request: Request[None, ProposalBody]) -> AnswerReply:
        """Take a proposal of another board for ours to see; the same one again asks what became of it."""
        body = request.body
        answer = await _told(
            self.desk.proposals.take, bytes.fromhex(body.statement), bytes.fromhex(body.signature), None
        )
        signature = None if answer.signature is None else answer.signature.hex()
        return AnswerReply(id=answer.proposal.hex(), signature=signature, refusal=answer.refusal)

    async def accept_proposal(self, request: Request[ProposalParams, None]) -> AcceptedReply:
        """Sign what another board proposes, or take ours that was signed there; then it can be recorded."""
        _refuse_unless_board(request)
        proposal, signatures = await _told(self.desk.proposals.accept, request.params.proposal)
        return AcceptedReply(
            statement=proposal.statement.hex(),
            signatures=tuple(
                SignatureReply(key_id=one.key_id.hex(), signature=one.signature.hex()) for one in signatures
            ),
        )

    async def refuse_proposal(self, request: Request[ProposalParams, RefusalBody]) -> None:
        """Refuse what another board proposes, or take back what ours does."""
        _refuse_unless_board(request)
        await _told(self.desk.proposals.refuse, request.params.proposal, request.body.note)

    # --- incidents --------------------------------------------------------------------------------------------------

    async def list_incidents(self, request: Request[None, None]) -> IncidentsReply:
        """List differences between mirrors that no delay explains, oldest first."""
        refuse_unless(request.signed_in.is_officer)
        found = await self.desk.reconciler.incidents.all()
        return IncidentsReply(items=tuple(_incident(name, one) for name, one in found.items()))

    async def read_evidence(self, request: Request[IncidentParams, None]) -> Content:
        """Read what proves an incident: what the partner signed, records and checkpoints of both ledgers."""
        refuse_unless(request.signed_in.is_officer)
        found = (await self.desk.reconciler.incidents.all()).get(request.params.incident)
        if found is None:
            raise Problem("incident_unknown")
        return Content(EVIDENCE.encode(found.evidence), MSGPACK)

    async def note_incident(self, request: Request[IncidentParams, IncidentBody]) -> IncidentReply:
        """Acknowledge or close an incident, with a note."""
        _refuse_unless_board(request)
        body, name = request.body, request.params.incident
        try:
            person = request.signed_in.person
            found = await self.desk.reconciler.incidents.note(name, body.status, body.note, person)
        except IncidentUnknown:
            raise Problem("incident_unknown") from None
        return _incident(name, found)

    # --- keys of the node -------------------------------------------------------------------------------------------

    async def show_keys(self, request: Request[KeysParams, None]) -> Content:
        """Show which keys of this node were replaced since a record, with the proof; 404 if none was."""
        shown = await self.desk.follower.show(request.params.keys_index, request.params.cosigned_size)
        if shown is None:
            raise Problem("not_found")
        return Content(encode_message(shown), MSGPACK)

    async def make_next_key(self, request: Request[None, NextKeyBody]) -> NextKeyReply:
        """Make the key that is to replace one of the node, or say which one was made."""
        _refuse_unless_board(request)
        return NextKeyReply(public_key=self._coming(request.body.purpose).public_key.hex())

    async def sign_with_next_key(self, request: Request[None, KeyBody]) -> SignatureReply:
        """Sign a ``coop.replace_node_key`` with the coming key that it names; nothing else is signed."""
        _refuse_unless_board(request)
        raw = bytes.fromhex(request.body.body)
        body = BODY.decode(raw)
        if body.type != REPLACE_NODE_KEY.tag:
            raise Problem("node_key_wrong")
        replacement = _REPLACEMENT.decode(bytes(body.payload))
        if replacement.purpose not in ("agent", "cosigner", "host", "log"):
            raise Problem("node_key_wrong")
        signer = self._coming(replacement.purpose)
        if signer.public_key != replacement.public_key:
            raise Problem("node_key_wrong")
        signed = sign_body(signer, raw)
        return SignatureReply(key_id=signed.key_id.hex(), signature=signed.signature.hex())

    def _coming(self, purpose: str) -> Signer:
        if self._next_keys is None:
            raise Problem("federation_disabled")
        return self._next_keys.make(purpose)


async def _told(call: Callable[..., Awaitable[T]], *values: object) -> T:
    """Call, and answer with a problem where the proposals refuse."""
    try:
        return await call(*values)
    except ProposalRefused as error:
        raise _problem_of(error) from None


def _problem_of(error: ProposalRefused) -> Problem:
    problem = Problem(error.code)
    problem.params = dict(error.params)
    return problem


_OF_PROPOSALS: Final = ("own_side_wrong", "peering_sequence_stale", "agent_key_mismatch", "federation_disabled")


def peer_routes(
    link: PeerLink | None, agent: Signer, desk: PartnerDesk | None, next_keys: NextKeys | None
) -> tuple[AnyRoute, ...]:
    """Return the routes about partners; see `PeerHandlers`."""
    handlers = PeerHandlers(link, agent, desk, next_keys)
    return (
        Route(
            method="GET",
            path="/v1/peers",
            summary="List partners",
            tag="federation",
            access="members",
            handler=handlers.list_peers,
            params=Page,
            response=Listing[PeerReply],
        ),
        Route(
            method="POST",
            path="/v1/peerings/signature",
            summary="Sign a peering with the node's agent key",
            tag="federation",
            handler=handlers.sign_peering,
            body=PeeringBody,
            response=SignatureReply,
            errors=("not_allowed", "peering_unsound"),
        ),
        Route(
            method="POST",
            path="/v1/peerings/proposals",
            summary="Propose a peering to another cooperative",
            tag="federation",
            handler=handlers.propose,
            body=ProposeBody,
            response=ProposalIdReply,
            errors=("not_allowed", "proposal_unreachable", "proposals_full", *_OF_PROPOSALS),
        ),
        Route(
            method="GET",
            path="/v1/proposals",
            summary="List proposals of peerings",
            tag="federation",
            handler=handlers.list_proposals,
            response=ProposalsReply,
            errors=("not_allowed", "federation_disabled"),
        ),
        Route(
            method="POST",
            path="/v1/proposals",
            summary="Take a proposal of another cooperative",
            tag="federation",
            access="public",
            handler=handlers.take_proposal,
            body=ProposalBody,
            response=AnswerReply,
            errors=("proposals_full", *_OF_PROPOSALS),
        ),
        Route(
            method="POST",
            path="/v1/proposals/{proposal}/acceptance",
            summary="Accept a proposal",
            tag="federation",
            handler=handlers.accept_proposal,
            params=ProposalParams,
            response=AcceptedReply,
            errors=("not_allowed", "proposal_unknown", "proposal_waits", *_OF_PROPOSALS),
        ),
        Route(
            method="POST",
            path="/v1/proposals/{proposal}/refusal",
            summary="Refuse a proposal, or take it back",
            tag="federation",
            handler=handlers.refuse_proposal,
            params=ProposalParams,
            body=RefusalBody,
            errors=("not_allowed", "proposal_unknown", "proposal_accepted", "federation_disabled"),
        ),
        Route(
            method="GET",
            path="/v1/incidents",
            summary="List incidents with partners",
            tag="federation",
            handler=handlers.list_incidents,
            response=IncidentsReply,
            errors=("not_allowed", "federation_disabled"),
        ),
        Route(
            method="GET",
            path="/v1/incidents/{incident}/evidence",
            summary="Read what proves an incident",
            tag="federation",
            handler=handlers.read_evidence,
            params=IncidentParams,
            response=_EVIDENCE,
            errors=("not_allowed", "incident_unknown", "federation_disabled"),
        ),
        Route(
            method="POST",
            path="/v1/incidents/{incident}",
            summary="Acknowledge or close an incident",
            tag="federation",
            handler=handlers.note_incident,
            params=IncidentParams,
            body=IncidentBody,
            response=IncidentReply,
            errors=("not_allowed", "incident_unknown", "federation_disabled"),
        ),
        Route(
            method="GET",
            path="/v1/ledger/keys",
            summary="Show which keys of the node were replaced",
            tag="node",
            access="public",
            handler=handlers.show_keys,
            params=KeysParams,
            response=_KEYS,
            errors=("not_found", "federation_disabled"),
        ),
        Route(
            method="POST",
            path="/v1/node-keys/next",
            summary="Make the key that is to replace one of the node",
            tag="node",
            handler=handlers.make_next_key,
            body=NextKeyBody,
            response=NextKeyReply,
            errors=("not_allowed", "federation_disabled"),
        ),
        Route(
            method="POST",
            path="/v1/node-keys/signature",
            summary="Sign the replacement of a node's key with the new key",
            tag="node",
            handler=handlers.sign_with_next_key,
            body=KeyBody,
            response=SignatureReply,
            errors=("not_allowed", "node_key_wrong", "federation_disabled"),
        ),
    )
