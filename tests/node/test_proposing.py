# SPDX-License-Identifier: AGPL-3.0-or-later
"""Proposals of peerings: what strangers may send, what partners may, and what is never taken."""

from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgspec
import pytest
from federation_kit import FederatedKit, peer, peered, peering
from ledger_kit import DAY_MS, seed
from test_reconciling import Meta

from ecot_node.federation.proposing import LIFETIME_MS, MAX_STRANGERS, STRANGERS, ProposalRefused, Proposals
from ecot_protocol.domains.federation.messages import MAX_PROPOSAL_BYTES, Answered, Message, Propose
from ecot_protocol.domains.federation.statements import Peering, encode_peering
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.state import State
from ecot_protocol.wire.keys import Signer
from ecot_protocol.wire.statement import is_statement_signed, sign_statement, statement_id


@dataclass
class Desk:
    """A node with its proposals; messages to partners are kept."""

    kit: FederatedKit
    now_s: float = 1_000.0
    told: list[tuple[bytes, Message]] = field(default_factory=list)
    connected: set[bytes] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.meta = Meta()
        self.proposals = self.restarted()

    def restarted(self) -> Proposals:
        return Proposals(self, self.meta, self.kit.agent, lambda *one: self.told.append(one), lambda: self.now_s)

    @property
    def state(self) -> State:
        return self.kit.state

    def is_connected(self, ledger: bytes) -> bool:
        return ledger in self.connected

    def wall_ms(self) -> int:
        return self.kit.now

    async def take(self, terms: Peering, signer: Signer, sender: bytes | None = None) -> Answered:
        raw = encode_peering(terms)
        self.now_s += 1 / STRANGERS.per_second  # nobody is in a hurry
        return await self.proposals.take(raw, sign_statement(signer, raw).signature, sender)

    async def tick(self) -> None:
        async with aiohttp.ClientSession() as session:
            await self.proposals.tick(session)

    async def refused(self, terms: Peering, signer: Signer, sender: bytes | None = None) -> str:
        with pytest.raises((ProposalRefused, RemoteProtocolError)) as caught:
            await self.take(terms, signer, sender)
        return str(caught.value.code)  # type: ignore[union-attr]


@pytest.fixture
def desk() -> Desk:
    return Desk(FederatedKit(name="nord"))


@pytest.fixture
def sud() -> FederatedKit:
    return FederatedKit(name="sud")


def _claimed(desk: Desk, other: FederatedKit, **changes: Any) -> tuple[Peering, Signer]:
    """Return a peering that somebody proposes who has keys of his own and claims to be `other`."""
    signer = Signer(seed(f"agent of {changes}"))
    terms = peering(desk.kit, other, sequence=changes.pop("sequence", 1))
    sides = tuple(
        msgspec.structs.replace(one, agent=signer.public_key, **changes) if one.ledger == other.ledger else one
        for one in terms.sides
    )
    return msgspec.structs.replace(terms, sides=sides), signer


async def test_a_proposal_is_kept_until_the_board_speaks_and_asked_again_tells_how_it_stands(
    desk: Desk, sud: FederatedKit
) -> None:
    terms = peering(sud, desk.kit)
    name = statement_id(encode_peering(terms))
    assert await desk.take(terms, sud.agent) == Answered(name, None, None)
    again = desk.restarted()
    assert [(one.status, one.is_ours) for one in (await again.all()).values()] == [("open", False)]
    proposal, signatures = await desk.proposals.accept(name.hex())
    desk.kit.must("federation.peer", peered(terms, (desk.kit, sud)), **desk.kit.by_board())
    assert len(signatures) == 2
    answer = await desk.take(terms, sud.agent)
    assert answer.signature is not None
    assert is_statement_signed(desk.kit.agent.public_key, proposal.statement, answer.signature)
    await desk.tick()
    assert [one.status for one in (await desk.proposals.all()).values()] == ["recorded"]
    assert (await desk.take(terms, sud.agent)).signature == answer.signature


async def test_a_refusal_tells_why(desk: Desk, sud: FederatedKit) -> None:
    terms = peering(sud, desk.kit)
    name = statement_id(encode_peering(terms)).hex()
    await desk.take(terms, sud.agent)
    await desk.proposals.refuse(name, "no" * 400)
    assert (await desk.take(terms, sud.agent)).refusal == "no" * 250
    with pytest.raises(ProposalRefused):
        await desk.proposals.accept(name)


async def test_strangers_fill_their_room_and_no_more_and_push_nobody_out(desk: Desk, sud: FederatedKit) -> None:
    true = peering(sud, desk.kit)
    await desk.take(true, sud.agent)
    for number in range(MAX_STRANGERS - 1):
        stranger = FederatedKit(name=f"stranger{number}")
        await desk.take(peering(stranger, desk.kit), stranger.agent)
    assert len(await desk.proposals.all()) == MAX_STRANGERS
    late = FederatedKit(name="late")
    assert await desk.refused(peering(late, desk.kit), late.agent) == "proposals_full"
    assert statement_id(encode_peering(true)).hex() in await desk.proposals.all()
    newer = msgspec.structs.replace(true, sequence=2)  # of the same agent: it takes the old one's place
    await desk.take(newer, sud.agent)
    assert len(await desk.proposals.all()) == MAX_STRANGERS


async def test_whoever_claims_to_be_another_ledger_does_not_push_out_what_that_one_proposed(
    desk: Desk, sud: FederatedKit
) -> None:
    true = peering(sud, desk.kit)
    await desk.take(true, sud.agent)
    false, signer = _claimed(desk, sud, limit_minor=1, sequence=8)
    await desk.take(false, signer)
    assert len(await desk.proposals.all()) == 2


async def test_strangers_are_looked_at_at_a_pace(desk: Desk, sud: FederatedKit) -> None:
    raw = encode_peering(peering(sud, desk.kit))
    for _ in range(STRANGERS.burst):
        with pytest.raises(RemoteProtocolError, match="bad_signature"):
            await desk.proposals.take(raw, bytes(64), None)
    with pytest.raises(ProposalRefused, match="rate_limited"):
        await desk.proposals.take(raw, sign_statement(sud.agent, raw).signature, None)


async def test_what_is_not_as_our_ledger_says_or_not_signed_is_never_kept(desk: Desk, sud: FederatedKit) -> None:
    terms = peering(sud, desk.kit)
    own = terms.side_of(desk.kit.ledger)

    def changed(**fields: Any) -> Peering:
        sides = tuple(msgspec.structs.replace(one, **fields) if one == own else one for one in terms.sides)
        return msgspec.structs.replace(terms, sides=sides)

    est = FederatedKit(name="est")
    wrong_origin, signer = _claimed(desk, sud, domain="other.example")
    rows = [
        ("own_side_wrong", changed(host=Signer(seed("x")).public_key), sud.agent),
        ("own_side_wrong", changed(unit="EURO"), sud.agent),
        ("own_side_wrong", peering(sud, est), sud.agent),
        ("peering_unsound", wrong_origin, signer),
        ("bad_signature", terms, est.agent),
    ]
    for code, peering_terms, key in rows:
        assert await desk.refused(peering_terms, key) == code
    with pytest.raises(RemoteProtocolError, match="too_large"):
        await desk.proposals.take(bytes(MAX_PROPOSAL_BYTES + 1), bytes(64), None)
    assert await desk.proposals.all() == {}


async def test_a_partner_proposes_for_itself_alone_with_its_own_key_and_nothing_old(
    desk: Desk, sud: FederatedKit
) -> None:
    peer(desk.kit, sud, sequence=3)
    est = FederatedKit(name="est")
    assert await desk.refused(peering(sud, desk.kit, sequence=3), sud.agent, sud.ledger) == "peering_sequence_stale"
    assert await desk.refused(peering(est, desk.kit), est.agent, sud.ledger) == "peering_unsound"
    usurped, signer = _claimed(desk, sud, sequence=9)
    assert await desk.refused(usurped, signer, sud.ledger) == "agent_key_mismatch"
    assert await desk.refused(usurped, signer) == "agent_key_mismatch"
    for sequence in range(4, 40):  # a flood of new ones: the last one stays
        await desk.take(peering(sud, desk.kit, sequence=sequence), sud.agent, sud.ledger)
    assert [one.peering.sequence for one in (await desk.proposals.all()).values()] == [39]


async def test_what_our_board_signed_stays_to_be_seen(desk: Desk, sud: FederatedKit) -> None:
    peer(desk.kit, sud)
    first = peering(sud, desk.kit, sequence=2)
    await desk.take(first, sud.agent, sud.ledger)
    await desk.proposals.accept(statement_id(encode_peering(first)).hex())
    await desk.take(peering(sud, desk.kit, sequence=3), sud.agent, sud.ledger)
    assert [one.status for one in (await desk.proposals.all()).values()] == ["accepted", "open"]
    with pytest.raises(ProposalRefused, match="proposal_accepted"):
        await desk.proposals.refuse(statement_id(encode_peering(first)).hex(), "")


async def test_ours_is_sent_again_ever_more_slowly_and_taken_when_it_comes_back_signed(
    desk: Desk, sud: FederatedKit
) -> None:
    peer(desk.kit, sud)
    desk.connected.add(sud.ledger)
    raw = encode_peering(peering(desk.kit, sud, sequence=2))
    name = await desk.proposals.propose(raw, "")
    for _ in range(30):
        desk.now_s += 1
        await desk.tick()
    sent = [message for _, message in desk.told if isinstance(message, Propose)]
    assert 3 <= len(sent) <= 6
    answer = Answered(bytes.fromhex(name), sign_statement(sud.agent, raw).signature, None)
    forged = Answered(bytes.fromhex(name), bytes(64), None)
    with pytest.raises(RemoteProtocolError, match="bad_signature"):
        await desk.proposals.answered(sud.ledger, forged)
    await desk.proposals.answered(b"x" * 32, answer)
    with pytest.raises(ProposalRefused, match="proposal_waits"):
        await desk.proposals.accept(name)
    await desk.proposals.answered(sud.ledger, answer)
    _, signatures = await desk.proposals.accept(name)
    desk.kit.must("federation.peer", peered(peering(desk.kit, sud, sequence=2), (desk.kit, sud)), **desk.kit.by_board())
    assert len(signatures) == 2


async def test_what_is_older_than_the_peering_in_force_or_too_old_is_forgotten(desk: Desk, sud: FederatedKit) -> None:
    await desk.take(peering(sud, desk.kit, sequence=2), sud.agent)
    peer(desk.kit, sud, sequence=5)
    await desk.tick()
    assert await desk.proposals.all() == {}
    await desk.take(peering(sud, desk.kit, sequence=6), sud.agent, sud.ledger)
    desk.kit.now += LIFETIME_MS - DAY_MS
    await desk.tick()
    assert len(await desk.proposals.all()) == 1
    desk.kit.now += DAY_MS + 1
    await desk.tick()
    assert await desk.proposals.all() == {}


async def test_a_stranger_is_proposed_to_at_an_address(desk: Desk, sud: FederatedKit) -> None:
    with pytest.raises(ProposalRefused, match="proposal_unreachable"):
        await desk.proposals.propose(encode_peering(peering(desk.kit, sud)), "")
