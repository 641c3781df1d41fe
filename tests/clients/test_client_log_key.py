# SPDX-License-Identifier: AGPL-3.0-or-later
"""A log key that is replaced is followed on proof: the old key hands over, and nobody else does."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fake_node import FakeNode, Tiles
from ledger_kit import seed
from test_client_posting import Shop, client_of

from ecot_client.errors import LedgerChanged, NodeRewrotePast, ProofFailed
from ecot_client.journal import Journal, Pin
from ecot_client.posting import require_recorded
from ecot_client.receipts import verify_receipt
from ecot_protocol.domains.coop.acts import ReplaceNodeKey
from ecot_protocol.domains.federation.messages import KeysShown, encode_message
from ecot_protocol.domains.federation.proofs import Inclusion
from ecot_protocol.ledger.entry_type import BOARD
from ecot_protocol.wire.keys import Signer
from ecot_protocol.wire.merkle import consistency_proof
from ecot_protocol.wire.note import NoteSigner, SignedNote
from ecot_protocol.wire.witness import AddCheckpointRequest


class Rotating(Shop):
    """A shop whose node replaces the key of its log, and shows how."""

    def __init__(self, node: FakeNode) -> None:
        super().__init__(node)
        self.handovers: list[tuple[int, SignedNote]] = []
        node.reads["/v1/ledger/keys"] = self._keys

    def replace(self, name: str = "new log") -> None:
        """Let the board replace the log's key; both keys sign the head that shows it."""
        key, kit = Signer(seed(name)), self.node.kit
        payload = ReplaceNodeKey(public_key=key.public_key, purpose="log")
        kit.must("coop.replace_node_key", payload, author=BOARD, signers=(*kit.board, key))
        old, new = self.node.signer, NoteSigner(self.node.signer.verifier.name, seed(name))
        note = SignedNote.parse(self.node.checkpoint().encode())
        self.node.signer = new
        self.handovers.append((len(kit.records) - 1, note.with_signatures((new.sign(note.text),))))
        assert old.verifier != new.verifier

    def shown(self, number: int, old_size: int, **changes: Any) -> bytes:
        index, note = self.handovers[number]
        size = index + 1
        hashes = consistency_proof(Tiles(self.node.leaves), old_size, size) if 0 < old_size < size else ()
        request = AddCheckpointRequest(old_size, tuple(hashes), changes.pop("note", note)).format()
        tree = self.node.tree_of(size)
        records = (Inclusion(hashes=tree.inclusion_proof(index), index=index, record=self.node.kit.records[index]),)
        return encode_message(KeysShown(request, changes.pop("records", records)))

    def _keys(self, request: Any) -> Any:
        known, size = int(request.query["keys_index"]), int(request.query["cosigned_size"])
        number = next((place for place, (index, _) in enumerate(self.handovers) if index > known), None)
        return None if number is None else self.shown(number, size)


@pytest.fixture
async def shop() -> AsyncIterator[Rotating]:
    async with FakeNode() as node:
        yield Rotating(node)


async def test_a_client_that_was_away_follows_from_key_to_key(shop: Rotating, tmp_path: Path) -> None:
    async with client_of(shop.node, tmp_path, shop.ada.signer) as client:
        receipt = require_recorded(await client.post_one(await shop.pay(client)))
        first = (await client.pinned()).log_vkey
    for name in ("second log", "third log"):
        shop.node.kit.join(name.replace(" ", ""))
        shop.replace(name)
    async with client_of(shop.node, tmp_path, shop.ada.signer) as client:
        require_recorded(await client.post_one(await shop.pay(client)))
        pin = await client.pinned()
        assert pin.log_vkey == shop.node.signer.verifier.vkey
        assert pin.former_vkeys[0] == first
        assert len(pin.former_vkeys) == 2
        verify_receipt(receipt, pin.log_vkey, pin.former_vkeys)
        with pytest.raises(ProofFailed, match="log_key_differs"):
            verify_receipt(receipt, pin.log_vkey)


async def test_a_client_at_work_goes_on_under_the_new_key(shop: Rotating, tmp_path: Path) -> None:
    async with client_of(shop.node, tmp_path, shop.ada.signer) as client:
        require_recorded(await client.post_one(await shop.pay(client)))
        shop.replace()
        receipt = require_recorded(await client.post_one(await shop.pay(client)))
        assert receipt.log_vkey == shop.node.signer.verifier.vkey
        assert (await client.fetch_receipt(receipt.index)).index == receipt.index


async def test_two_programs_with_one_folder_both_go_on(shop: Rotating, tmp_path: Path) -> None:
    async with (
        client_of(shop.node, tmp_path, shop.ada.signer) as one,
        client_of(shop.node, tmp_path, shop.ada.signer) as two,
    ):
        await one.ledger()
        await two.ledger()
        shop.replace()
        for client in (one, two, one):
            require_recorded(await client.post_one(await shop.pay(client)))


def _unproven(shop: Rotating) -> None:
    """The node names a new key and proves nothing."""
    shop.node.reads["/v1/ledger/keys"] = lambda _: None


def _not_by_the_old_key(shop: Rotating) -> None:
    """Somebody else signs the head that hands over."""
    index, note = shop.handovers[0]
    thief = NoteSigner(shop.node.signer.verifier.name, seed("thief"))
    forged = SignedNote(note.text, (thief.sign(note.text), shop.node.signer.sign(note.text)))
    shop.handovers[0] = (index, forged)


def _not_by_the_new_key(shop: Rotating) -> None:
    index, note = shop.handovers[0]
    shop.handovers[0] = (index, SignedNote(note.text, note.signatures[:1]))


def _another_record(shop: Rotating) -> None:
    """The record that is shown replaces nothing."""
    _, note = shop.handovers[0]
    proof = shop.node.tree_of(shop.handovers[0][0] + 1).inclusion_proof(0)
    records = (Inclusion(hashes=proof, index=0, record=shop.node.kit.records[0]),)
    shown = shop.shown(0, 0, records=records, note=note)
    shop.node.reads["/v1/ledger/keys"] = lambda _: shown


def _noise(shop: Rotating) -> None:
    shop.node.reads["/v1/ledger/keys"] = lambda _: b"\x80"


@pytest.mark.parametrize(
    "lie", [_unproven, _not_by_the_old_key, _not_by_the_new_key, _another_record, _noise], ids=lambda lie: lie.__name__
)
async def test_a_key_without_its_proof_is_refused(
    shop: Rotating, tmp_path: Path, lie: Callable[[Rotating], None]
) -> None:
    async with client_of(shop.node, tmp_path, shop.ada.signer) as client:
        require_recorded(await client.post_one(await shop.pay(client)))
        pin = await client.pinned()
        shop.replace()
        lie(shop)
        with pytest.raises(LedgerChanged, match="log_key_changed"):
            await client.ledger()
        assert await client.pinned() == pin


async def test_a_handover_from_another_past_is_told_with_both_heads(shop: Rotating, tmp_path: Path) -> None:
    async with client_of(shop.node, tmp_path, shop.ada.signer) as client:
        require_recorded(await client.post_one(await shop.pay(client, 1)))
        pin = await client.pinned()
        shop.node.forget(1)
        shop.node.kit.join("somebody")
        shop.replace()
        with pytest.raises(NodeRewrotePast):
            await client.ledger()
        assert await client.pinned() == pin


def test_a_pin_of_an_older_release_is_followed_too(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    old = (b"l" * 32, "origin", "vkey")
    with journal._change() as db:
        db.execute("INSERT INTO kept VALUES ('pin', ?)", (msgspec.msgpack.encode(old),))
    pin = journal.pin()
    assert pin == Pin(*old)
    newer = Pin(b"l" * 32, "origin", "newer", 7, ("vkey",))
    assert journal.follow(pin, newer, "note") == newer == journal.pin()
    assert journal.follow(pin, Pin(*old), "note") == newer, "another program was first"
    journal.close()
