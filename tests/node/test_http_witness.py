# SPDX-License-Identifier: AGPL-3.0-or-later
"""This node as a witness over HTTP: it cosigns what extends, records before it signs, and keeps proof of a fork."""

import asyncio
from hashlib import sha256

import pytest
from http_kit import HttpNode, http_node, problem_of

from ecot_node.store.errors import StoreFailed
from ecot_protocol.wire.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from ecot_protocol.wire.merkle import TileEdge, consistency_proof, leaf_hashes
from ecot_protocol.wire.note import NoteSigner, SignedNote, parse_signatures
from ecot_protocol.wire.note_key import NoteVerifier
from ecot_protocol.wire.witness import AddCheckpointRequest

ORIGIN = "peer.example/ecot/0011223344556677"


class PeerLog:
    """A peer's log of up to 255 leaves."""

    def __init__(self, name: str = "peer") -> None:
        self.signer = NoteSigner(ORIGIN, sha256(b"peer log").digest())
        self.leaves = leaf_hashes(f"{name} {number}".encode() for number in range(200))

    def _edge(self, size: int) -> TileEdge:
        edge = TileEdge.empty()
        edge.append_many(self.leaves[:size])
        return edge

    def request(self, old: int, new: int) -> bytes:
        """Return an add-checkpoint request."""
        edge = self._edge(new)
        note = sign_checkpoint(Checkpoint(ORIGIN, new, edge.frontier().root()), self.signer)
        return AddCheckpointRequest(old, consistency_proof(edge, old, new), note).format()


async def _add(node: HttpNode, request: bytes) -> tuple[int, bytes]:
    answer = await node.client.post("/witness/add-checkpoint", data=request)
    return answer.status, await answer.read()


async def test_a_checkpoint_that_extends_is_cosigned_and_recorded() -> None:
    peer = PeerLog()
    async with http_node() as node:
        node.peers.keys[ORIGIN] = [peer.signer.verifier]
        for old, new in ((0, 3), (3, 7), (7, 7)):
            request = peer.request(old, new)
            status, lines = await _add(node, request)
            assert status == 200
            note = AddCheckpointRequest.parse(request).note
            said = await (await node.get("/v1/ledger")).json()
            keys = [NoteVerifier.from_vkey(one) for one in said["cosigner_vkeys"]]
            assert said["cosigner_vkeys"][0] == said["cosigner_vkey"]
            opened = open_checkpoint(note.with_signatures(parse_signatures(lines)), [peer.signer.verifier], keys)
            assert [one.cosigner for one in opened.cosignatures] == keys
            assert {one.timestamp_unix_s for one in opened.cosignatures} == {node.kit.now // 1000}
            known = await node.store.witness_get(ORIGIN)
            assert known is not None
            assert known.size == new
        shown = await (await node.get(f"/witness/{sha256(ORIGIN.encode()).hexdigest()}/checkpoint")).read()
        assert len(SignedNote.parse(shown).signatures) == 1 + len(keys)


async def test_who_does_not_know_the_ml_dsa_key_takes_the_ed25519_cosignature() -> None:
    peer = PeerLog()
    async with http_node() as node:
        node.peers.keys[ORIGIN] = [peer.signer.verifier]
        request = peer.request(0, 3)
        _, lines = await _add(node, request)
        vkey = (await (await node.get("/v1/ledger")).json())["cosigner_vkey"]
        note = AddCheckpointRequest.parse(request).note.with_signatures(parse_signatures(lines))
        opened = open_checkpoint(note, [peer.signer.verifier], [NoteVerifier.from_vkey(vkey)])
        assert len(opened.cosignatures) == 1
        assert [one.key_id for one in opened.note.unknown] == [one.key_id for one in note.signatures[2:]]


async def test_what_does_not_extend_is_answered_as_the_specification_says() -> None:
    peer, other = PeerLog(), PeerLog("another history")
    async with http_node() as node:
        assert await _add(node, peer.request(0, 3)) == (404, b"origin_unknown\n")
        node.peers.keys[ORIGIN] = [NoteSigner(ORIGIN, bytes(32)).verifier]
        assert (await _add(node, peer.request(0, 3)))[0] == 403
        node.peers.keys[ORIGIN] = [peer.signer.verifier]
        assert (await _add(node, peer.request(0, 5)))[0] == 200
        assert await _add(node, peer.request(0, 7)) == (409, b"5\n")
        assert (await _add(node, other.request(5, 9)))[0] == 422
        assert await node.store.forks() == []
        answer = await node.get(f"/witness/{'0' * 64}/checkpoint")
        assert await problem_of(answer, 404) == "not_found"


async def test_a_fork_is_kept_as_proof_and_counted() -> None:
    peer, other = PeerLog(), PeerLog("another history")
    async with http_node() as node:
        node.peers.keys[ORIGIN] = [peer.signer.verifier]
        first, second = peer.request(0, 5), other.request(5, 5)
        assert (await _add(node, first))[0] == 200
        assert (await _add(node, second))[0] == 422
        (proof,) = await node.store.forks()
        assert proof.origin == ORIGIN
        roots = {
            open_checkpoint(note, [peer.signer.verifier]).checkpoint.root_hash
            for note in (proof.first_note, proof.second_note)
        }
        assert len(roots) == 2
        assert "ecot_witness_forks 1.0" in await (await node.get("/metrics")).text()


async def test_of_requests_at_one_time_none_rolls_the_record_back() -> None:
    peer = PeerLog()
    async with http_node() as node:
        node.peers.keys[ORIGIN] = [peer.signer.verifier]
        answers = await asyncio.gather(*(_add(node, peer.request(0, size)) for size in range(1, 9)))
        assert sorted(status for status, _ in answers) == [200] + [409] * 7
        known = await node.store.witness_get(ORIGIN)
        assert known is not None
        assert all(body == f"{known.size}\n".encode() for status, body in answers if status == 409)


async def test_what_could_not_be_recorded_is_not_cosigned(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object, **__: object) -> bool:
        raise StoreFailed("disk")

    peer = PeerLog()
    async with http_node() as node:
        node.peers.keys[ORIGIN] = [peer.signer.verifier]
        monkeypatch.setattr(node.store, "witness_put", fail)
        answer = await node.client.post("/witness/add-checkpoint", data=peer.request(0, 3))
        assert await problem_of(answer, 503) == "store_unavailable"
