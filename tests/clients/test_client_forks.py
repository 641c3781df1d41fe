# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a client believes when its node says that a log has two histories, and what it keeps when its own node has."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from fake_node import FakeNode
from federation_kit import FederatedKit, peer
from test_client_policies import QUICK, listed

from ecot_client.errors import NodeRewrotePast
from ecot_client.events import Event, follow_events
from ecot_client.forks import kept_forks, learn_fork, learn_forks
from ecot_client.journal import Journal
from ecot_client.memory import Evidence
from ecot_client.node import NodeClient
from ecot_protocol.wire.checkpoint import Checkpoint, sign_checkpoint
from ecot_protocol.wire.fork import fork_id, prove_fork, verify_fork
from ecot_protocol.wire.note import NoteSigner


def fork_of(signer: NoteSigner, number: int = 1) -> bytes:
    origin = signer.verifier.name
    notes = [sign_checkpoint(Checkpoint(origin, 7, root), signer) for root in (bytes(32), number.to_bytes(32, "big"))]
    return prove_fork(notes[0], notes[1], signer.verifier, b"").format()


@dataclass
class Shore:
    """A fake node with one partner, and a client of it."""

    node: FakeNode
    client: NodeClient
    partner: FederatedKit
    state: Path

    def tell(self, raw: bytes, name: str | None = None) -> None:
        self.node.forks[name or fork_id(raw)] = raw

    def kept(self) -> list[str]:
        journal = Journal(self.state)
        try:
            return [one.name for one in kept_forks(journal)]
        finally:
            journal.close()


@pytest.fixture
async def shore(tmp_path: Path) -> AsyncIterator[Shore]:
    nord, sud = FederatedKit(name="nord"), FederatedKit(name="sud")
    peer(nord, sud)
    ada = nord.join("ada")
    async with FakeNode(nord) as node:
        node.reads["/v1/peers"] = lambda _: listed(nord, [sud])
        async with NodeClient(node.url, tmp_path, (ada.signer,), clock_ms=lambda: nord.now, patience=QUICK) as client:
            yield Shore(node, client, sud, tmp_path)


async def test_a_proof_against_a_partner_is_fetched_checked_and_kept(shore: Shore) -> None:
    assert await learn_forks(shore.client) == ()
    raw = fork_of(shore.partner.log_signer)
    shore.tell(raw)
    (kept,) = await learn_forks(shore.client)
    assert (kept.name, kept.is_own, kept.proof) == ("sud.example", False, raw)
    assert kept.fork.origin == shore.partner.origin
    shore.node.forks.clear()  # the node may forget; the client does not
    assert [one.name for one in await learn_forks(shore.client)] == ["sud.example"]
    assert shore.kept() == ["sud.example"]


async def test_a_proof_against_the_node_s_own_log_counts_under_the_pinned_key(shore: Shore) -> None:
    shore.tell(fork_of(shore.node.signer))
    (kept,) = await learn_forks(shore.client)
    assert kept.is_own


async def test_a_node_that_slanders_is_not_believed(shore: Shore) -> None:
    invented = NoteSigner(shore.partner.origin, b"\x09" * 32)  # the partner's name, another key
    stranger = NoteSigner("far.example/ecot/0011223344556677", bytes(32))
    shore.tell(fork_of(invented))
    shore.tell(fork_of(stranger))
    shore.tell(fork_of(shore.partner.log_signer), "0" * 64)  # under another name
    shore.tell(b"no proof at all", fork_id(b"no proof at all"))
    shore.node.forks["../ledger"] = b""
    shore.node.forks["f" * 64] = b""
    assert await learn_forks(shore.client) == ()
    assert shore.kept() == []


async def test_the_stream_tells_a_proof_once_it_is_checked(shore: Shore) -> None:
    shore.tell(fork_of(NoteSigner(shore.partner.origin, b"\x09" * 32)))
    shore.tell(fork_of(shore.partner.log_signer))
    found: list[Event] = []
    async for event in follow_events(shore.client):
        found.append(event)
        if event.kind == "fork":
            break
    assert event.fork is not None
    assert event.fork.name == "sud.example"
    assert shore.kept() == ["sud.example"]


async def test_a_proof_that_the_node_does_not_have_is_no_error(shore: Shore) -> None:
    assert await learn_fork(shore.client, "a" * 64) is None


async def test_a_node_that_rewrites_its_past_with_another_is_proven_to_have_forked(shore: Shore) -> None:
    """It forgets its last records and writes others: asked how it grew, it answers from what it has now."""
    await shore.client.ledger()
    kit = shore.node.kit
    shore.node.forget(2)
    for name in ("eve", "max", "zoe"):
        kit.join(name)
    with pytest.raises(NodeRewrotePast) as raised:
        await shore.client.ledger()
    raw = raised.value.evidence.read_bytes()
    assert raised.value.evidence.suffix == ".fork-proof"
    found = verify_fork(raw, [shore.node.signer.verifier])
    assert found.first.size < found.second.size


async def test_a_node_that_will_not_show_how_its_log_grew_convinces_us_and_proves_nothing(shore: Shore) -> None:
    await shore.client.ledger()
    shore.node.lies["/v1/consistency"] = lambda raw: msgspec.json.encode(msgspec.json.decode(raw) | {"root": None})
    shore.node.forget(2)
    for name in ("eve", "max", "zoe"):
        shore.node.kit.join(name)
    with pytest.raises(NodeRewrotePast) as raised:
        await shore.client.ledger()
    evidence = msgspec.json.decode(raised.value.evidence.read_bytes(), type=Evidence)
    assert (evidence.kept, evidence.shown) == (raised.value.kept, raised.value.shown)
