# SPDX-License-Identifier: AGPL-3.0-or-later
"""Policies that follow from peerings, and what a proof file proves under one."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fake_node import FakeNode
from federation_kit import FederatedKit, peer

from ecot_client.checks import RECORD_CONTEXT, check_proof, fetch_proof, fetch_witnessed, is_proof
from ecot_client.errors import ProofFailed
from ecot_client.node import NodeClient
from ecot_client.policies import derive_policy, partner_policy, read_policy
from ecot_client.transport import Patience
from ecot_protocol.domains.federation.statements import encode_peering
from ecot_protocol.wire.cosignature import FRESH_S, Cosigner, make_ml_dsa_cosigner
from ecot_protocol.wire.note import SignedNote
from ecot_protocol.wire.policy import Policy, format_policy, parse_policy
from ecot_protocol.wire.proof import TlogProof

QUICK = Patience(request_s=10, total_s=20, attempts=2, pause_s=0.01)


def listed(own: FederatedKit, others: list[FederatedKit], status: str = "active") -> dict[str, Any]:
    items = [
        {
            "ledger": one.ledger.hex(),
            "origin": one.origin,
            "domain": f"{one.name}.example",
            "status": status,
            "ended_at_ms": None,
            "statement": encode_peering(own.state.federation.peers[one.ledger].peering).hex(),
            "unit": "BART",
            "partner_unit": "BART",
            "limit_minor": 1,
            "partner_limit_minor": 1,
            "balance_minor": 0,
        }
        for one in others
    ]
    return {"items": items, "next": None, "index": own.state.size}


@dataclass
class Shore:
    """A fake node with two partners, and a client of it."""

    node: FakeNode
    client: NodeClient
    partners: list[FederatedKit]

    @property
    def index(self) -> int:
        return len(self.node.kit.records) - 1

    @property
    def now_s(self) -> int:
        return self.node.kit.now // 1_000


@pytest.fixture
async def shore(tmp_path: Path) -> AsyncIterator[Shore]:
    nord, sud, est = (FederatedKit(name=name) for name in ("nord", "sud", "est"))
    for other in (sud, est):
        peer(nord, other)
    ada = nord.join("ada")
    async with FakeNode(nord) as node:
        node.reads["/v1/peers"] = lambda _: listed(nord, [sud, est])
        async with NodeClient(node.url, tmp_path, (ada.signer,), clock_ms=lambda: nord.now, patience=QUICK) as client:
            yield Shore(node, client, [sud, est])


# --- policies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "quorum", "threshold"), [(0, "none", 0), (1, "w0.example", 0), (2, "partners", 2),
    (3, "partners", 2), (4, "partners", 3)])  # fmt: skip
def test_more_than_half_of_the_partners_are_asked_for(count: int, quorum: str, threshold: int) -> None:
    own, kits = FederatedKit(name="nord"), [FederatedKit(name=f"w{number}") for number in range(count)]
    policy = derive_policy(own.log.verifier, [kit.side() for kit in kits])
    assert policy.quorum == quorum
    assert [group.threshold for group in policy.groups] == ([threshold] if threshold else [])
    assert parse_policy(format_policy(policy)) == policy
    assert policy.log_keys == (own.log.verifier,)


def test_a_partner_with_two_keys_counts_once() -> None:
    own, kits = FederatedKit(name="nord"), [FederatedKit(name="sud"), FederatedKit(name="est")]
    sides = [msgspec.structs.replace(kit.side(), cosigner_ml_dsa_44=b"\x03" + bytes(1_312)) for kit in kits[:1]]
    policy = derive_policy(own.log.verifier, [*sides, kits[1].side()])
    assert [group.name for group in policy.groups] == ["sud.example", "partners"]
    assert policy.groups[0].members == ("sud.example/1", "sud.example/2")
    assert policy.groups[1].members == ("sud.example", "est.example")
    assert parse_policy(format_policy(policy)) == policy


def test_partners_of_one_domain_are_told_apart() -> None:
    own, kits = FederatedKit(name="nord"), [FederatedKit(name="sud"), FederatedKit(name="est")]
    sides = [msgspec.structs.replace(kit.side(), domain="same.example") for kit in kits]
    taken = [msgspec.structs.replace(kits[0].side(), domain="partners")]
    assert len({one.name for one in derive_policy(own.log.verifier, sides).witnesses}) == 2
    policy = derive_policy(own.log.verifier, [*taken, kits[1].side()])
    assert parse_policy(format_policy(policy)) == policy


async def test_the_policy_follows_from_the_peerings_that_have_not_ended(shore: Shore) -> None:
    policy = await partner_policy(shore.client)
    assert {one.key for one in policy.witnesses} == {kit.witness.verifier for kit in shore.partners}
    shore.node.reads["/v1/peers"] = lambda _: listed(shore.node.kit, shore.partners, "ended")  # type: ignore[arg-type]
    assert (await partner_policy(shore.client)).quorum == "none"


def test_what_is_no_policy_is_told() -> None:
    with pytest.raises(ProofFailed, match="policy_malformed"):
        read_policy(b"quorum nobody\n")


# --- proofs -----------------------------------------------------------------------------------------------------------


async def test_witnessed_by_whom_and_when(shore: Shore) -> None:
    shore.node.cosigners += [kit.cosigner for kit in shore.partners]
    policy = await partner_policy(shore.client)
    fetched = await fetch_proof(shore.client, shore.index, policy)
    assert is_proof(fetched.raw)
    check = check_proof(fetched.raw, policy, (), now_unix_s=shore.now_s)
    assert check == fetched.check
    assert (check.head.outcome, check.index, check.entry_type) == ("witnessed", shore.index, "membership.admit")
    assert {(one.name, one.at_unix_s) for one in check.head.witnesses} == {
        (f"{kit.name}.example", shore.now_s) for kit in shore.partners
    }
    head = await fetch_witnessed(shore.client, policy)
    assert head is not None
    assert (head.outcome, head.size) == ("witnessed", shore.index + 1)


async def test_too_few_witnesses_are_not_enough(shore: Shore) -> None:
    shore.node.cosigners.append(shore.partners[0].cosigner)
    policy = await partner_policy(shore.client)
    check = (await fetch_proof(shore.client, shore.index, policy)).check
    assert (check.head.outcome, check.head.missing) == ("not_enough", (f"{shore.partners[1].name}.example",))
    head = await fetch_witnessed(shore.client, policy)
    assert head is not None
    assert head.outcome == "not_enough"


async def test_a_policy_of_nobody_says_recorded_and_never_witnessed(shore: Shore) -> None:
    shore.node.cosigners += [kit.cosigner for kit in shore.partners]
    policy = parse_policy(b"quorum none\n")
    assert (await fetch_proof(shore.client, shore.index, policy)).check.head.outcome == "recorded"


async def test_nobody_has_cosigned_yet(shore: Shore) -> None:
    assert await fetch_witnessed(shore.client, await partner_policy(shore.client)) is None


async def test_a_cosignature_of_tomorrow_counts_for_nothing(shore: Shore) -> None:
    shore.node.cosigners += [kit.cosigner for kit in shore.partners]
    policy = await partner_policy(shore.client)
    raw = (await fetch_proof(shore.client, shore.index, policy)).raw
    early = check_proof(raw, policy, (), now_unix_s=shore.now_s - FRESH_S - 1)
    assert (early.head.outcome, early.head.witnesses) == ("not_enough", ())
    years_later = check_proof(raw, policy, (), now_unix_s=shore.now_s + 20 * 31_557_600)
    assert years_later.head.outcome == "witnessed"


async def test_an_ml_dsa_cosignature_alone_can_be_enough(shore: Shore) -> None:
    further = make_ml_dsa_cosigner("sud.example", bytes(32))
    if further is None:  # this machine can't verify one: its key is as good as unknown
        return
    shore.node.cosigners.append(further)  # type: ignore[arg-type]
    policy = parse_policy(f"witness sud {further.verifier.vkey}\nquorum sud\n".encode())
    assert (await fetch_proof(shore.client, shore.index, policy)).check.head.outcome == "witnessed"


def forged(raw: bytes, **changes: Any) -> bytes:
    proof = TlogProof.parse(raw)
    fields = {"index": proof.index, "hashes": proof.hashes, "checkpoint": proof.checkpoint, "extra": proof.extra}
    return TlogProof(**(fields | changes)).format()


async def test_what_is_forged_is_told(shore: Shore) -> None:
    shore.node.cosigners += [kit.cosigner for kit in shore.partners]
    policy = await partner_policy(shore.client)
    raw = (await fetch_proof(shore.client, shore.index, policy)).raw
    proof = TlogProof.parse(raw)
    assert proof.extra is not None
    note = SignedNote.parse(proof.checkpoint)
    stranger = FederatedKit(name="far")
    other = RECORD_CONTEXT + stranger.records[0]
    cosigned_falsely = note.with_signatures([])
    line = cosigned_falsely.signatures[1]
    false = SignedNote(note.text, (note.signatures[0], type(line)(line.name, line.key_id, line.signature[:-1] + b"\0")))
    cases: list[tuple[bytes, str]] = [
        (forged(raw, extra=proof.extra[:-1] + bytes([proof.extra[-1] ^ 1])), "proof_inclusion_wrong"),
        (forged(raw, extra=other), "proof_inclusion_wrong"),
        (forged(raw, index=proof.index - 1), "proof_inclusion_wrong"),
        (forged(raw, hashes=proof.hashes[:-1]), "proof_inclusion_wrong"),
        (forged(raw, extra=None), "record_needed"),
        (forged(raw, extra=b"hello"), "record_needed"),
        (forged(raw, checkpoint=stranger.head()), "note_unsigned"),
        (forged(raw, checkpoint=proof.checkpoint.replace(b"\n5\n", b"\n6\n", 1)), "note_signature_wrong"),
        (forged(raw, checkpoint=false.format()), "note_signature_wrong"),
        (b"c2sp.org/tlog-proof@v1\n", "proof_malformed"),
    ]
    for changed, code in cases:
        if changed == raw:
            continue
        with pytest.raises(ProofFailed) as raised:
            check_proof(changed, policy, (), now_unix_s=shore.now_s)
        assert raised.value.code == code


async def test_an_entry_of_another_ledger_in_a_log_we_know_is_told(shore: Shore) -> None:
    """Whoever has the log's key could put a foreign record under its name: the record says of which ledger it is."""
    policy = Policy((), (), (), "none")
    far = FederatedKit(name="far")
    far.join("eva")
    kit = shore.node.kit
    kit.records[-1] = far.records[-1]
    proof = TlogProof.parse(shore.node.proof(shore.index))
    raw = forged(proof.format(), extra=RECORD_CONTEXT + far.records[-1])
    with pytest.raises(ProofFailed, match="proof_of_another_ledger"):
        check_proof(raw, policy, (shore.node.signer.verifier,), now_unix_s=shore.now_s)


async def test_a_record_without_room_in_the_file_stands_beside_it(shore: Shore) -> None:
    record = shore.node.kit.records[shore.index]
    raw = shore.node.proof(shore.index)
    keys = (shore.node.signer.verifier,)
    check = check_proof(raw, parse_policy(b"quorum none\n"), keys, now_unix_s=shore.now_s, record=record)
    assert check.index == shore.index
    other = shore.node.kit.records[0]
    with pytest.raises(ProofFailed, match="proof_inclusion_wrong"):
        check_proof(raw, parse_policy(b"quorum none\n"), keys, now_unix_s=shore.now_s, record=other)


async def test_a_proof_of_another_entry_than_asked_for_is_told(shore: Shore) -> None:
    shore.node.lies[f"/v1/records/{shore.index}/proof"] = lambda _: shore.node.proof(shore.index - 1)
    shore.node.cosigners.append(Cosigner("far.example", bytes(32)))
    with pytest.raises(ProofFailed, match="inclusion_not_proven"):
        await fetch_proof(shore.client, shore.index, parse_policy(b"quorum none\n"))
