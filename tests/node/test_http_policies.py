# SPDX-License-Identifier: AGPL-3.0-or-later
"""Proofs under the policy of whoever asks: any later cosigned checkpoint will do, and nothing less than the quorum."""

from hashlib import sha256

import pytest
from http_kit import HttpNode, http_node, problem_of
from writer_kit import log_key

from ecot_node.http.record_routes import MAX_POLICY_BYTES
from ecot_protocol.wire.checkpoint import open_checkpoint
from ecot_protocol.wire.cosignature import Cosigner, make_ml_dsa_cosigner
from ecot_protocol.wire.entry import leaf_data
from ecot_protocol.wire.note import SignedNote
from ecot_protocol.wire.policy import parse_policy
from ecot_protocol.wire.proof import TlogProof, verify_proof

WITNESSES = {name: Cosigner(f"{name}.example", sha256(name.encode()).digest()) for name in ("east", "west", "far")}
TEXT = {"Content-Type": "text/plain"}


def policy(quorum: str) -> bytes:
    lines = [f"witness {name} {one.verifier.vkey}" for name, one in WITNESSES.items()]
    return "\n".join([*lines, "group two 2 east west far", f"quorum {quorum}", ""]).encode()


async def _grow(node: HttpNode, size: int) -> None:
    while len(node.kit.records) < size:
        node.kit.join(f"m{len(node.kit.records)}")
    await node.catch_up()


async def _cosign(node: HttpNode, *names: str) -> int:
    """Have the newest checkpoint cosigned; returns its size."""
    note = node.writer.checkpoint()
    size = open_checkpoint(note, [log_key(node.kit)]).checkpoint.size
    await node.store.checkpoint_keep(size, note)
    for name in names:
        line = WITNESSES[name].cosign(SignedNote.parse(note).text, node.kit.now // 1000)
        await node.store.cosignatures_put(size, f"{line.name}+{line.key_id.hex()}", line.format().encode())
    return size


async def _proof(node: HttpNode, index: int, asked: bytes) -> tuple[int, bytes]:
    answer = await node.client.post(f"/v1/records/{index}/proof", data=asked, headers=TEXT)
    return answer.status, await answer.read()


async def test_the_newest_checkpoint_that_the_policy_is_content_with_is_taken() -> None:
    async with http_node() as node:
        await _grow(node, 5)
        both = await _cosign(node, "east", "west")
        await _grow(node, 9)
        alone = await _cosign(node, "far")
        for quorum, size in (("two", both), ("far", alone), ("east", both)):
            status, raw = await _proof(node, 1, policy(quorum))
            assert status == 200
            opened = verify_proof(
                leaf_data(node.kit.records[1]), raw, [log_key(node.kit)], parse_policy(policy(quorum))
            )
            assert opened.checkpoint.size == size
            answer = await node.client.post("/v1/witnessed", data=policy(quorum), headers=TEXT)
            assert await answer.read() == TlogProof.parse(raw).checkpoint


async def test_what_the_policy_does_not_ask_for_is_left_out() -> None:
    only = f"witness east {WITNESSES['east'].verifier.vkey}\nquorum east\n".encode()
    async with http_node() as node:
        await _grow(node, 5)
        await _cosign(node, "east", "west", "far")
        _, raw = await _proof(node, 1, only)
        assert [line.name for line in SignedNote.parse(TlogProof.parse(raw).checkpoint).signatures][1:] == [
            "east.example"
        ]


async def test_a_policy_of_nobody_gets_the_nodes_own_checkpoint() -> None:
    async with http_node() as node:
        await _grow(node, 5)
        _, raw = await _proof(node, 4, b"quorum none\n")
        assert TlogProof.parse(raw).checkpoint == node.writer.checkpoint()


async def test_what_is_not_witnessed_enough_is_said_so() -> None:
    async with http_node() as node:
        await _grow(node, 5)
        await _cosign(node, "east")
        await _grow(node, 9)
        for index, quorum in ((1, "two"), (1, "west"), (5, "east"), (8, "east")):
            answer = await node.client.post(f"/v1/records/{index}/proof", data=policy(quorum), headers=TEXT)
            assert await problem_of(answer, 404) == "not_witnessed_yet"
        answer = await node.client.post("/v1/witnessed", data=policy("two"), headers=TEXT)
        assert await problem_of(answer, 404) == "not_witnessed_yet"
        answer = await node.client.post("/v1/records/99/proof", data=policy("east"), headers=TEXT)
        assert await problem_of(answer, 404) == "record_unknown"


@pytest.mark.parametrize("raw", [b"quorum nobody\n", b"\xff\x00", b"quorum none", b"", b"witness a b\nquorum a\n"])
async def test_what_is_no_policy_is_refused(raw: bytes) -> None:
    async with http_node() as node:
        await _grow(node, 2)
        answer = await node.client.post("/v1/records/1/proof", data=raw, headers=TEXT)
        assert await problem_of(answer, 400) == "request_malformed"


async def test_a_policy_has_a_limit() -> None:
    async with http_node() as node:
        answer = await node.client.post("/v1/witnessed", data=b"#" * (MAX_POLICY_BYTES + 1), headers=TEXT)
        assert await problem_of(answer, 413) == "body_too_large"


async def test_an_ml_dsa_cosignature_of_a_witness_s_further_key_is_given_to_who_asks_for_it() -> None:
    further = make_ml_dsa_cosigner("east.example", sha256(b"further").digest())
    if further is None:  # no witness here has such a key
        return
    asked = f"witness east {further.verifier.vkey}\nquorum east\n".encode()
    async with http_node() as node:
        await _grow(node, 5)
        size = await _cosign(node, "east")
        line = further.cosign(SignedNote.parse(node.writer.checkpoint()).text, node.kit.now // 1000)
        await node.store.cosignatures_put(size, f"{line.name}+{line.key_id.hex()}", line.format().encode())
        _, raw = await _proof(node, 1, asked)
        opened = verify_proof(leaf_data(node.kit.records[1]), raw, [log_key(node.kit)], parse_policy(asked))
        assert [one.cosigner for one in opened.cosignatures] == [further.verifier]


async def test_the_answer_about_growth_names_the_root_it_starts_from() -> None:
    async with http_node() as node:
        await _grow(node, 3)
        root = open_checkpoint(node.writer.checkpoint(), [log_key(node.kit)]).checkpoint.root_hash
        await _grow(node, 9)
        told = await (await node.get("/v1/consistency?old=3&new=9")).json()
        assert told["root"] == root.hex()
