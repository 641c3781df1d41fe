# SPDX-License-Identifier: AGPL-3.0-or-later
"""Fork proofs: what proves that a log signed two histories, and what does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecot_protocol.errors import LocalProtocolError, RemoteProtocolError
from ecot_protocol.wire.checkpoint import Checkpoint, sign_checkpoint
from ecot_protocol.wire.cosignature import Cosigner
from ecot_protocol.wire.fork import MAX_FORK_BYTES, ForkProof, fork_id, prove_fork, verify_fork
from ecot_protocol.wire.merkle import TileEdge, consistency_proof, leaf_hashes, root
from ecot_protocol.wire.note import NoteSigner, SignedNote

ORIGIN = "coop.example/ecot/0011223344556677"
LOG = NoteSigner(ORIGIN, bytes(32))


def history(name: str, same: int, size: int) -> TileEdge:
    """Return a tree whose first `same` leaves are everybody's and whose others are its own."""
    edge = TileEdge.empty()
    edge.append_many(leaf_hashes(f"{'all' if n < same else name} {n}".encode() for n in range(size)))
    return edge


def signed(edge: TileEdge, size: int, signer: NoteSigner = LOG) -> SignedNote:
    return sign_checkpoint(Checkpoint(ORIGIN, size, root(edge, size)), signer)


def proof_of(same: int, first_size: int, second_size: int) -> ForkProof:
    one, other = history("one", same, 200), history("other", same, 200)
    return prove_fork(
        signed(one, first_size),
        signed(other, second_size),
        LOG.verifier,
        root(other, first_size),
        consistency_proof(other, first_size, second_size),
    )


def code_of(proof: ForkProof | bytes, signer: NoteSigner = LOG) -> str:
    with pytest.raises(RemoteProtocolError) as error:
        verify_fork(proof, [signer.verifier])
    return error.value.code


@given(st.data())
def test_any_two_heads_of_two_histories_prove_the_fork(data: st.DataObject) -> None:
    same = data.draw(st.integers(0, 60))
    first_size = data.draw(st.integers(same + 1, 80))
    second_size = data.draw(st.integers(first_size, 120))
    raw = proof_of(same, first_size, second_size).format()
    fork = verify_fork(raw, [LOG.verifier])
    assert (fork.origin, fork.first.size, fork.second.size) == (ORIGIN, first_size, second_size)
    assert fork.log_key == LOG.verifier
    assert ForkProof.parse(raw).format() == raw


@given(st.integers(1, 60), st.integers(0, 60), st.integers(0, 20))
def test_two_heads_of_one_history_prove_nothing(first_size: int, more: int, other_size: int) -> None:
    edge = history("one", 0, 200)
    notes = signed(edge, first_size), signed(edge, first_size + more)
    honest = root(edge, first_size), consistency_proof(edge, first_size, first_size + more)
    for claimed, hashes in (honest, (root(edge, other_size), honest[1]), (bytes(32), honest[1]), (bytes(32), ())):
        with pytest.raises(RemoteProtocolError, match="fork_not_proven"):
            prove_fork(*notes, LOG.verifier, claimed, hashes)


def test_of_one_size_the_order_is_fixed_and_so_is_the_name() -> None:
    one, other = signed(history("one", 0, 5), 5), signed(history("other", 0, 5), 5)
    proofs = [prove_fork(*pair, LOG.verifier, b"").format() for pair in ((one, other), (other, one))]
    assert proofs[0] == proofs[1]
    assert len({fork_id(raw) for raw in proofs}) == 1
    read = ForkProof.parse(proofs[0])
    turned = ForkProof(
        read.log_vkey, Checkpoint.parse(SignedNote.parse(read.first).text).root_hash, (), read.second, read.first
    )
    assert code_of(turned) == "fork_not_proven"


def test_cosignatures_are_left_out_so_that_one_fork_has_one_proof() -> None:
    one, other = signed(history("one", 0, 5), 5), signed(history("other", 0, 5), 5)
    witness = Cosigner("witness.example", b"\x01" * 32)
    cosigned = one.with_signatures([witness.cosign(one.text, 1_790_000_000)])
    assert prove_fork(cosigned, other, LOG.verifier, b"") == prove_fork(one, other, LOG.verifier, b"")


def test_a_key_that_is_not_the_log_s_accuses_nobody() -> None:
    stranger = NoteSigner(ORIGIN, b"\x07" * 32)
    one, other = history("one", 0, 9), history("other", 0, 9)
    forged = prove_fork(signed(one, 5, stranger), signed(other, 5, stranger), stranger.verifier, b"")
    assert code_of(forged) == "note_unsigned"
    half = prove_fork(signed(one, 5), signed(other, 5), LOG.verifier, b"")
    mixed = ForkProof(half.log_vkey, half.root, half.hashes, half.first, signed(other, 5, stranger).format())
    assert code_of(mixed) == "note_unsigned"


def test_a_proof_whose_bytes_were_changed_proves_nothing() -> None:
    proof = proof_of(3, 6, 9)
    raw = proof.format()
    assert code_of(raw.replace(b"\n6\n", b"\n7\n", 1)) == "note_signature_wrong"
    assert (
        code_of(ForkProof(proof.log_vkey, proof.root, proof.hashes[:-1], proof.first, proof.second))
        == "fork_not_proven"
    )
    assert code_of(ForkProof(proof.log_vkey, proof.root, proof.hashes, proof.second, proof.first)) == "fork_not_proven"
    empty = sign_checkpoint(Checkpoint(ORIGIN, 0, bytes(32)), LOG).format()
    assert code_of(ForkProof(proof.log_vkey, bytes(32), (), empty, proof.second)) == "fork_not_proven"


def test_two_logs_are_no_fork_of_one() -> None:
    other = NoteSigner("other.example/ecot", bytes(32))
    note = sign_checkpoint(Checkpoint("other.example/ecot", 5, bytes(32)), other).format()
    first = signed(history("one", 0, 5), 5).format()
    with pytest.raises(RemoteProtocolError, match="fork_not_proven"):
        verify_fork(ForkProof(LOG.verifier.vkey, bytes(32), (), first, note), [LOG.verifier, other.verifier])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda raw: raw.replace(b"@v1", b"@v2"),
        lambda raw: raw.replace(b"root ", b"Root "),
        lambda raw: raw.replace(b"log ", b"key "),
        lambda raw: raw.replace(b"\n\n", b"\n", 1),
        lambda raw: raw + b"\n\nmore",
        lambda raw: raw[:-1],
        lambda raw: raw + b"x" * MAX_FORK_BYTES,
        lambda raw: b"",
        lambda raw: raw.replace(b"log " + ORIGIN.encode(), b"log x"),
        lambda raw: b"\xff" + raw,
        lambda raw: raw.replace(b"\n\n", b"\n" + b"A" * 43 + b"=" + (b"\n" + b"A" * 43 + b"=") * 63 + b"\n\n", 1),
    ],
)
def test_what_has_not_the_form_is_refused(spoil: object) -> None:
    raw = proof_of(3, 6, 9).format()
    with pytest.raises(RemoteProtocolError) as error:
        ForkProof.parse(spoil(raw))  # type: ignore[operator]
    assert error.value.code in ("fork_malformed", "note_malformed", "vkey_malformed")


@given(st.binary(max_size=400))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        ForkProof.parse(raw)


def test_what_could_not_be_read_again_is_not_written() -> None:
    proof = proof_of(3, 6, 9)
    for wrong in (
        ForkProof(proof.log_vkey, b"short", (), proof.first, proof.second),
        ForkProof(proof.log_vkey, proof.root, (), b"x", proof.second),
        ForkProof(proof.log_vkey, proof.root, (bytes(32),) * 64, proof.first, proof.second),
    ):
        with pytest.raises(LocalProtocolError):
            wrong.format()
