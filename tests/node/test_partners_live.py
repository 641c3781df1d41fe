# SPDX-License-Identifier: AGPL-3.0-or-later
"""Two real nodes: boards propose and accept over HTTP and libp2p, mirrors are compared, keys are replaced."""

from collections.abc import Iterator

import pytest
from duo_kit import Board, Duo, has_proposal, raised_duo, until
from ledger_kit import seed

from ecot_client.errors import NodeProblem
from ecot_client.receipts import verify_receipt
from ecot_protocol.domains.coop.acts import ReplaceNodeKey
from ecot_protocol.domains.federation.statements import decode_peering
from ecot_protocol.ledger.entry_type import BOARD
from ecot_protocol.wire.keys import Signer
from ecot_protocol.wire.statement import sign_statement

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("partners")]  # each test goes on where the one before ended


@pytest.fixture(scope="module")
def duo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Duo]:
    with raised_duo(tmp_path_factory.mktemp("duo")) as made:
        yield made


async def test_boards_that_never_met_become_partners_through_their_nodes(duo: Duo) -> None:
    await duo.peer()
    await until(lambda: _is_agreed(duo.ours))
    await until(lambda: _is_agreed(duo.theirs))
    ours, theirs = await duo.ours.peer(), await duo.theirs.peer()
    assert (ours.status, ours.health) == ("active", "good")
    assert (ours.room_in_minor, ours.room_out_minor) == (1_000_000, 1_000_000)
    assert ours.statement_id == theirs.statement_id


async def _is_agreed(board: Board) -> bool:
    peer = await board.peer()
    return peer.mirror is not None and peer.mirror.kind == "agreed"


async def test_a_change_goes_to_the_partner_over_libp2p_and_comes_back_signed(duo: Duo) -> None:
    name = await duo.theirs.propose(await duo.draft(sequence=2, limit_minor=500_000))
    await until(lambda: has_proposal(duo.ours, name, "open"))
    await duo.ours.accept(name)
    await until(lambda: has_proposal(duo.theirs, name, "accepted"))
    await duo.theirs.accept(name)
    assert [(await board.peer()).limit_minor for board in (duo.ours, duo.theirs)] == [500_000, 500_000]


async def test_what_a_board_refuses_is_told_to_the_other(duo: Duo) -> None:
    name = await duo.ours.propose(await duo.draft(sequence=9))
    await until(lambda: has_proposal(duo.theirs, name, "open"))
    await duo.theirs.ask("POST", f"/v1/proposals/{name}/refusal", {"note": "not before the assembly"})
    await until(lambda: has_proposal(duo.ours, name, "refused"))
    found = next(one for one in await duo.ours.proposals() if one.id == name)
    assert found.refusal == "not before the assembly"
    with pytest.raises(NodeProblem, match="proposal_unknown"):
        await duo.ours.accept(name)


async def test_an_old_statement_is_no_proposal_any_more(duo: Duo) -> None:
    with pytest.raises(NodeProblem, match="peering_sequence_stale"):
        await duo.ours.propose(await duo.draft(sequence=2))


async def test_a_stranger_s_proposal_needs_the_signature_of_its_agent(duo: Duo) -> None:
    statement = await duo.draft(sequence=50)
    forged = sign_statement(Signer(seed("somebody else")), statement).signature
    body = {"statement": statement.hex(), "signature": forged.hex()}
    with pytest.raises(NodeProblem, match="bad_signature"):
        await duo.theirs.ask("POST", "/v1/proposals", body)
    assert not any(one.sequence == 50 for one in await duo.theirs.proposals())


async def test_mirrors_agree_after_transfers(duo: Duo) -> None:
    before = (await duo.ours.peer()).balance_minor
    for _ in range(3):
        await duo.pay(1_234)

    async def is_posted() -> bool:
        return (await duo.ours.peer()).balance_minor == before + 3_702 == -(await duo.theirs.peer()).balance_minor

    await until(is_posted)
    duo.ours.node.end()
    duo.ours.node.start()  # a new contact: mirrors are compared at once
    duo.ours.node.address()

    async def is_compared() -> bool:
        peer = await duo.ours.peer()
        return peer.mirror is not None and peer.mirror.their_balance_minor == -before - 3_702

    await until(is_compared)
    assert (await duo.ours.peer()).mirror.kind == "agreed"  # type: ignore[union-attr]
    assert await duo.ours.ask("GET", "/v1/incidents") == {"items": []}


async def test_keys_are_replaced_and_everybody_follows(duo: Duo) -> None:
    """The log's key, then the agent's, then the libp2p key; a member's client was away all the time."""
    before = decode_peering(bytes.fromhex((await duo.theirs.peer()).statement)).side_of(duo.ours.coop.ledger)
    async with duo.ours.client("member") as member:
        old = await member.verifier()
        receipt = await member.fetch_receipt(0)
    for purpose in ("log", "agent", "host"):
        await duo.ours.replace_key(purpose)
        duo.ours.node.end()
        duo.ours.node.start()
        duo.ours.node.address()

    async def is_followed() -> bool:
        now = (await duo.theirs.peering()).side_of(duo.ours.coop.ledger)
        return all(getattr(now, purpose) != getattr(before, purpose) for purpose in ("log", "agent", "host"))

    await until(is_followed, 120)
    async with duo.ours.client("member") as member:
        info = await member.ledger()
        assert await member.verifier() != old
        pin = await member.pinned()
        assert pin.log_vkey == info.log_vkey
        assert pin.former_vkeys == (old.vkey,)
        verify_receipt(receipt, pin.log_vkey, pin.former_vkeys)
    balance = (await duo.ours.peer()).balance_minor
    await duo.pay(777)  # decided by their log, witnessed under our keys

    async def is_settled() -> bool:
        peer = await duo.ours.peer()
        return peer.pending_count == 0 and peer.balance_minor == balance + 777

    await until(is_settled, 120)
    await until(lambda: _is_agreed(duo.theirs), 120)
    assert await duo.theirs.ask("GET", "/v1/incidents") == {"items": []}


async def test_a_node_refuses_a_key_that_it_does_not_have(duo: Duo) -> None:
    stranger = Signer(seed("no node has it"))
    async with duo.theirs.client() as node:
        payload = ReplaceNodeKey(public_key=stranger.public_key, purpose="log")
        entry = await node.build("coop.replace_node_key", payload, author=BOARD, signers=[*node.signers, stranger])
        result = await node.post_one(entry)
    assert getattr(result, "code", None) == "node_key_not_at_hand"
