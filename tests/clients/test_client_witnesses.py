# SPDX-License-Identifier: AGPL-3.0-or-later
"""A record is witnessed when a partner's cosignature says so, and by nothing less."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fake_node import FakeNode
from federation_kit import FederatedKit, peer

from ecot_client.errors import ProofFailed
from ecot_client.node import NodeClient
from ecot_client.receipts import Receipt
from ecot_client.transport import Patience
from ecot_client.witnesses import find_witnesses
from ecot_protocol.domains.federation.statements import encode_peering
from ecot_protocol.wire.cosignature import Cosigner

QUICK = Patience(request_s=10, total_s=20, attempts=2, pause_s=0.01)


def _peers(nord: FederatedKit, sud: FederatedKit, statement: str) -> dict[str, Any]:
    shown = {
        "ledger": sud.ledger.hex(),
        "origin": sud.origin,
        "domain": "sud.example",
        "status": "active",
        "ended_at_ms": None,
        "statement": statement,
        "unit": "BART",
        "partner_unit": "BART",
        "limit_minor": 1,
        "partner_limit_minor": 1,
        "balance_minor": 0,
    }
    return {"items": [shown], "next": None, "index": nord.state.size}


class Shore:
    """A fake node with one partner, and a client of it."""

    def __init__(self, node: FakeNode, client: NodeClient, partner: FederatedKit, receipt: Receipt) -> None:
        self.node, self.client, self.partner, self.receipt = node, client, partner, receipt


@pytest.fixture
async def shore(tmp_path: Path) -> AsyncIterator[Shore]:
    nord, sud = FederatedKit(name="nord"), FederatedKit(name="sud")
    statement = encode_peering(peer(nord, sud)).hex()
    ada = nord.join("ada")
    async with FakeNode(nord) as node:
        node.reads["/v1/peers"] = lambda _: _peers(nord, sud, statement)
        async with NodeClient(node.url, tmp_path, (ada.signer,), clock_ms=lambda: nord.now, patience=QUICK) as client:
            receipt = await client.fetch_receipt(len(nord.records) - 1)
            yield Shore(node, client, sud, receipt)


async def test_a_partner_s_cosignature_witnesses_a_record(shore: Shore) -> None:
    shore.node.cosigners.append(shore.partner.cosigner)
    (seen,) = await find_witnesses(shore.client, shore.receipt)
    assert (seen.domain, seen.ledger, seen.size) == ("sud.example", shore.partner.ledger, len(shore.node.kit.records))
    assert seen.seen_at_unix_s == shore.node.kit.now // 1_000


async def test_without_a_cosignature_nobody_has_witnessed(shore: Shore) -> None:
    assert await find_witnesses(shore.client, shore.receipt) == ()


async def test_a_stranger_s_cosignature_witnesses_nothing(shore: Shore) -> None:
    shore.node.cosigners.append(Cosigner("stranger.example", bytes(32)))
    assert await find_witnesses(shore.client, shore.receipt) == ()


async def test_a_false_cosignature_in_a_partner_s_name_is_told(shore: Shore) -> None:
    shore.node.cosigners.append(shore.partner.cosigner)
    path = f"/v1/records/{shore.receipt.index}/proof"
    shore.node.lies[path] = lambda raw: raw.rstrip(b"\n")[:-8] + b"AAAAAAA=\n"
    with pytest.raises(ProofFailed):
        await find_witnesses(shore.client, shore.receipt)


async def test_a_proof_of_another_record_is_told(shore: Shore) -> None:
    shore.node.cosigners.append(shore.partner.cosigner)
    other = await shore.client.fetch_receipt(shore.receipt.index - 1)
    path = f"/v1/records/{shore.receipt.index}/proof"
    shore.node.lies[path] = lambda _: shore.node.proof(other.index)
    with pytest.raises(ProofFailed, match="proof_inclusion_wrong"):
        await find_witnesses(shore.client, shore.receipt)
