# SPDX-License-Identifier: AGPL-3.0-or-later
"""A client against a node: what it sends, what it believes, what it keeps."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from fake_node import FakeNode
from ledger_kit import LedgerKit

from ecot_client.entries import body_hash
from ecot_client.errors import (
    ClientError,
    LedgerChanged,
    NodeProblem,
    NodeRewrotePast,
    NodeUnreachable,
    NotRecorded,
    ProofFailed,
)
from ecot_client.node import NodeClient
from ecot_client.posting import Refusal, Uncertain, require_recorded
from ecot_client.receipts import Receipt, parse_receipt, verify_receipt
from ecot_client.transport import Patience
from ecot_protocol.domains.trade.transfers import Pay
from ecot_protocol.wire.checkpoint import Checkpoint
from ecot_protocol.wire.entry import Entry, commitment
from ecot_protocol.wire.fork import verify_fork
from ecot_protocol.wire.keys import Signer
from ecot_protocol.wire.note import SignedNote
from ecot_protocol.wire.reply import REPLY, Recorded, RecordedBefore, Refused, Unknown

QUICK = Patience(request_s=10, total_s=20, attempts=3, pause_s=0.01)


@asynccontextmanager
async def client_of(node: FakeNode, folder: Path, *signers: Signer) -> AsyncIterator[NodeClient]:
    async with NodeClient(node.url, folder, signers, clock_ms=lambda: node.kit.now, patience=QUICK) as client:
        yield client


class Shop:
    """Two members of a ledger behind a fake node."""

    def __init__(self, node: FakeNode) -> None:
        self.node = node
        self.ada = node.kit.join("ada")
        self.bob = node.kit.join("bob")

    async def pay(self, client: NodeClient, amount: int = 100, memo: str | None = None) -> Entry:
        payload = Pay(amount_minor=amount, memo=None, payee=self.bob.member, statutes_version=1, total_minor=amount)
        return await client.build("trade.pay", payload, author=self.ada.member, contents={"memo": memo})


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    async with FakeNode() as node:
        yield Shop(node)


async def test_a_payment_is_recorded_and_its_receipt_verifies_offline(shop: Shop, tmp_path: Path) -> None:
    async with client_of(shop.node, tmp_path, shop.ada.signer) as client:
        receipt = require_recorded(await client.post_one(await shop.pay(client)))
    again = parse_receipt(receipt.format())
    assert again == receipt
    assert verify_receipt(again, shop.node.signer.verifier.vkey).size == len(shop.node.kit.records)


async def test_a_receipt_with_one_changed_byte_proves_nothing(shop: Shop, tmp_path: Path) -> None:
    async with client_of(shop.node, tmp_path, shop.ada.signer) as client:
        receipt = require_recorded(await client.post_one(await shop.pay(client)))
    record = receipt.record[:-1] + bytes([receipt.record[-1] ^ 1])
    with pytest.raises(ProofFailed, match="inclusion_not_proven"):
        verify_receipt(msgspec.structs.replace(receipt, record=record))


async def test_a_receipt_of_another_log_is_not_taken(shop: Shop, tmp_path: Path) -> None:
    async with client_of(shop.node, tmp_path, shop.ada.signer) as client:
        receipt = require_recorded(await client.post_one(await shop.pay(client)))
    other = FakeNode(LedgerKit(name="other")).signer.verifier.vkey
    with pytest.raises(ProofFailed, match="log_key_differs"):
        verify_receipt(receipt, other)


async def test_each_entry_of_a_batch_has_a_receipt_of_its_own(shop: Shop, tmp_path: Path) -> None:
    async with client_of(shop.node, tmp_path, shop.ada.signer) as client:
        entries = [await shop.pay(client, amount) for amount in range(1, 8)]
        entries.insert(3, await shop.pay(client, 10**12))
        results = await client.post(entries)
    assert isinstance(results[3], Refusal)
    assert results[3].code == "credit_limit_exceeded"
    receipts = [one for one in results if isinstance(one, Receipt)]
    assert [verify_receipt(one).size for one in receipts] == [len(shop.node.kit.records)] * 7


async def test_attachments_are_salted_and_committed_to(shop: Shop, tmp_path: Path) -> None:
    async with client_of(shop.node, tmp_path, shop.ada.signer) as client:
        first, second = [await shop.pay(client, memo="merci") for _ in range(2)]
        require_recorded(await client.post_one(first))
    (attachment,) = first.attachments
    assert attachment.content == b"merci"
    assert attachment.salt != second.attachments[0].salt
    assert commitment(attachment.salt, attachment.content) in first.body


async def test_a_refusal_leaves_the_journal(shop: Shop, tmp_path: Path) -> None:
    async with client_of(shop.node, tmp_path, shop.ada.signer) as client:
        refused = await client.post_one(await shop.pay(client, 10**12))
        assert client.journal.pending() == ()
    with pytest.raises(NotRecorded, match="credit_limit_exceeded"):
        require_recorded(refused)


async def test_after_a_lost_reply_the_same_bytes_are_sent_and_the_same_place_is_answered(
    shop: Shop, tmp_path: Path
) -> None:
    shop.node.drops = 1
    async with client_of(shop.node, tmp_path, shop.ada.signer) as client:
        before = len(shop.node.kit.records)
        receipt = require_recorded(await client.post_one(await shop.pay(client)))
    assert len(shop.node.posts) == 2
    assert shop.node.posts[0] == shop.node.posts[1]
    assert receipt.index == before
    assert len(shop.node.kit.records) == before + 1


async def test_a_client_that_died_finds_out_what_became_of_its_entry(shop: Shop, tmp_path: Path) -> None:
    shop.node.drops = QUICK.attempts
    async with client_of(shop.node, tmp_path, shop.ada.signer) as client:
        entry = await shop.pay(client)
        with pytest.raises(NodeUnreachable):
            await client.post_one(entry)
        assert client.journal.pending() == (entry,)
    async with client_of(shop.node, tmp_path, shop.ada.signer) as client:
        ((kept, result),) = await client.resend_pending()
        assert kept == entry
        assert client.journal.receipt(body_hash(entry)) == require_recorded(result)
        assert client.journal.pending() == ()


async def test_an_entry_with_a_receipt_is_not_sent_again(shop: Shop, tmp_path: Path) -> None:
    async with client_of(shop.node, tmp_path, shop.ada.signer) as client:
        entry = await shop.pay(client)
        first = await client.post_one(entry)
        shop.node.lies["/v1/entries"] = _outcome(lambda _: Refused("id_used", ()))
        assert await client.post_one(entry) == first
    assert len(shop.node.posts) == 1


async def test_an_unknown_outcome_is_asked_again_until_it_is_known(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ecot_client.node._SEND_AGAIN_S", 0)
    answers = [Unknown("outcome_unknown"), Unknown("outcome_unknown")]
    shop.node.lies["/v1/entries"] = _outcome(lambda true: answers.pop() if answers else true)
    async with client_of(shop.node, tmp_path, shop.ada.signer) as client:
        assert isinstance(await client.post_one(await shop.pay(client)), Receipt)
    assert len(shop.node.posts) == 3


async def test_an_outcome_that_stays_unknown_stays_in_the_journal(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ecot_client.node._SEND_AGAIN_S", 0)
    shop.node.lies["/v1/entries"] = _outcome(lambda _: Unknown("outcome_unknown"))
    async with client_of(shop.node, tmp_path, shop.ada.signer) as client:
        entry = await shop.pay(client)
        assert await client.post_one(entry) == Uncertain(code="outcome_unknown")
        assert client.journal.pending() == (entry,)


def _outcome(change: Callable[[object], object]) -> Callable[[bytes], bytes]:
    """Change the one outcome of a reply."""

    def lie(raw: bytes) -> bytes:
        reply = REPLY.decode(raw)
        return REPLY.encode(msgspec.structs.replace(reply, outcomes=(change(reply.outcomes[0]),)))

    return lie


def _reply(**changes: object) -> Callable[[bytes], bytes]:
    return lambda raw: REPLY.encode(msgspec.structs.replace(REPLY.decode(raw), **changes))


def _shift(outcome: object) -> object:
    assert isinstance(outcome, Recorded)
    return Recorded(outcome.index, outcome.received_at_ms + 1)


LIES = {
    "another time": (_outcome(_shift), "inclusion_not_proven"),
    "another place": (_outcome(lambda _: Recorded(0, 1)), "reply_malformed"),
    "no proof": (_reply(hashes=()), "inclusion_not_proven"),
    "a wrong proof": (_reply(hashes=(bytes(32), bytes(32))), "inclusion_not_proven"),
    "no start": (_reply(start=None), "reply_malformed"),
    "no checkpoint": (_reply(checkpoint=""), "reply_malformed"),
    "an unsigned checkpoint": (_reply(checkpoint="coop.example/ecot\n1\n" + "A" * 43 + "=\n\n"), "note_malformed"),
    "no outcome": (_reply(outcomes=()), "reply_malformed"),
    "not a reply": (lambda _: b"\xc0", "reply_malformed"),
    "recorded before, unproven": (_outcome(lambda _: RecordedBefore(0, 1, ())), "inclusion_not_proven"),
}


@pytest.mark.parametrize("name", LIES)
async def test_a_lying_outcome_is_not_believed(name: str, shop: Shop, tmp_path: Path) -> None:
    lie, code = LIES[name]
    shop.node.lies["/v1/entries"] = lie
    async with client_of(shop.node, tmp_path, shop.ada.signer) as client:
        entry = await shop.pay(client)
        with pytest.raises(ProofFailed) as raised:
            await client.post_one(entry)
        assert raised.value.code == code
        assert client.journal.receipt(body_hash(entry)) is None
        assert client.journal.pending() == (entry,)


async def test_a_checkpoint_by_another_key_is_refused(shop: Shop, tmp_path: Path) -> None:
    other = FakeNode(LedgerKit(name="other"))
    shop.node.lies["/v1/entries"] = _reply(checkpoint=other.checkpoint())
    async with client_of(shop.node, tmp_path, shop.ada.signer) as client:
        with pytest.raises(ProofFailed, match="note_unsigned"):
            await client.post_one(await shop.pay(client))


async def test_another_ledger_at_the_same_address_is_refused(shop: Shop, tmp_path: Path) -> None:
    async with client_of(shop.node, tmp_path) as client:
        await client.ledger()
    async with FakeNode(LedgerKit(name="other")) as other, client_of(other, tmp_path) as client:
        with pytest.raises(LedgerChanged, match="ledger_changed"):
            await client.ledger()


async def test_another_log_key_is_refused(shop: Shop, tmp_path: Path) -> None:
    async with client_of(shop.node, tmp_path) as client:
        info = await client.ledger()
        other = FakeNode(LedgerKit(name="other")).signer.verifier.vkey
        changed = msgspec.json.encode(msgspec.structs.replace(info, log_vkey=other))
        shop.node.lies["/v1/ledger"] = lambda _: changed
        with pytest.raises(LedgerChanged, match="log_key_changed"):
            await client.ledger()


async def test_a_first_contact_needs_the_genesis_of_the_ledger(shop: Shop, tmp_path: Path) -> None:
    other = LedgerKit(name="other").records[0]
    true = shop.node.kit.records[0].hex().encode()
    shop.node.lies["/v1/records/0"] = lambda raw: raw.replace(true, other.hex().encode())
    async with client_of(shop.node, tmp_path) as client:
        with pytest.raises(ProofFailed, match="ledger_id_not_proven"):
            await client.ledger()
        assert client.journal.pin() is None


async def test_a_log_that_lost_records_and_goes_on_is_told_with_both_heads(shop: Shop, tmp_path: Path) -> None:
    async with client_of(shop.node, tmp_path, shop.ada.signer) as client:
        require_recorded(await client.post_one(await shop.pay(client, 100)))
        kept = client.journal.newest()
        shop.node.forget(1)
        with pytest.raises(NodeRewrotePast) as raised:
            await client.post([await shop.pay(client, amount) for amount in (1, 2, 3)])
        assert client.journal.newest() == kept
    found = verify_fork(raised.value.evidence.read_bytes(), [shop.node.signer.verifier])
    assert {found.first.size, found.second.size} == {
        Checkpoint.parse(SignedNote.parse(note.encode()).text).size for note in (kept or "", raised.value.shown)
    }
    assert raised.value.kept == kept


async def test_two_heads_of_one_size_are_a_rewritten_past(shop: Shop, tmp_path: Path) -> None:
    async with client_of(shop.node, tmp_path) as client:
        await client.ledger()
        size = len(shop.node.kit.records)
        forged = shop.node.sign(Checkpoint(shop.node.signer.verifier.name, size, bytes(32)))
        with pytest.raises(NodeRewrotePast):
            await client.observe(forged)


async def test_a_shorter_log_that_the_kept_one_extends_is_only_old(shop: Shop, tmp_path: Path) -> None:
    old = shop.node.checkpoint()
    async with client_of(shop.node, tmp_path, shop.ada.signer) as client:
        require_recorded(await client.post_one(await shop.pay(client)))
        newest = client.journal.newest()
        await client.observe(old)
        assert client.journal.newest() == newest


async def test_an_entry_that_a_cosigner_sent_is_found_in_the_log(shop: Shop, tmp_path: Path) -> None:
    kit = shop.node.kit
    async with client_of(shop.node, tmp_path, *kit.founders.values()) as client:
        from ecot_protocol.domains.membership.acts import Exclude
        from ecot_protocol.ledger.entry_type import BOARD

        payload = Exclude(member=shop.bob.member, reason=None)
        names = list(kit.founders.values())
        mine = await client.build("membership.exclude", payload, author=BOARD, signers=names[:2])
        theirs = await client.build(
            "membership.exclude", payload, author=BOARD, signers=names[1:], entry_id=_id_of(mine)
        )
        assert theirs.body == mine.body
        assert isinstance(kit.submit(theirs), list)
        receipt = require_recorded(await client.post_one(mine))
        assert receipt.index == len(kit.records) - 1
        assert verify_receipt(receipt).size == len(kit.records)


def _id_of(entry: Entry) -> bytes:
    from ecot_client.entries import entry_id

    return entry_id(entry)


async def test_a_session_is_opened_again_when_the_node_forgot_it(shop: Shop, tmp_path: Path) -> None:
    async with client_of(shop.node, tmp_path, shop.ada.signer) as client:
        assert (await client.me()).members[0].member == shop.ada.member.hex()
        shop.node.tokens.clear()
        assert (await client.me()).handle == "ada.owner"


async def test_a_key_that_the_ledger_does_not_know_opens_no_session(shop: Shop, tmp_path: Path) -> None:
    async with client_of(shop.node, tmp_path, Signer(bytes(32))) as client:
        with pytest.raises(NodeProblem, match="challenge_refused"):
            await client.me()


async def test_a_node_that_is_not_there_is_told_as_unreachable(tmp_path: Path) -> None:
    async with NodeClient("http://127.0.0.1:1", tmp_path, patience=QUICK) as client:
        with pytest.raises(ClientError) as raised:
            await client.ledger()
    assert isinstance(raised.value, NodeUnreachable)
