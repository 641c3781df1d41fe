# SPDX-License-Identifier: AGPL-3.0-or-later
"""The witness: the request of tlog-witness.md, a row for each answer, and a history of honest and dishonest growth."""

import doctest

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecot_protocol.errors import LocalProtocolError, RemoteProtocolError
from ecot_protocol.wire import witness
from ecot_protocol.wire.checkpoint import Checkpoint, OpenedCheckpoint, open_checkpoint, sign_checkpoint
from ecot_protocol.wire.cosignature import Cosigner
from ecot_protocol.wire.merkle import EMPTY_ROOT, Frontier, TileEdge, consistency_proof, leaf_hashes
from ecot_protocol.wire.note import NoteSigner, SignedNote, format_signatures, parse_signatures
from ecot_protocol.wire.witness import AddCheckpointRequest, Refusal, decide, format_size, parse_size

# The example request of tlog-witness.md.
EXAMPLE = """old 20852014
PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=
jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=
5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=
/6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=

example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
— example.com/behind-the-sofa opLqBQsREYCgu6xQkYQwJr9fo45a62DN9EdmHXnZdXNqlcVGlCum2Wks+49/V6267UEjw6QUXTS5Rovnzv++qbSzm9Q=
""".encode()  # noqa: E501
# The example answer of the same page.
EXAMPLE_ANSWER = """— witness.example/w1 CMp+6LWBU0anHGH5aNDTJkH/gj79sG+T6+iP2ThYN5krrDJbR1HDnucjL39QsZTSvVjyQLrdk3DXDqI5G2HgLatVs0pWh6Up69HVOw==
— witness.example/w1 I7rEps0pvK2UqkS2gSpVUDhrhVtQV9lgF6pRrWAvjJHjyWpW7VcE3SiOlVlbQNt64vWhO+DlkL0+UfzuOBMh9ChdMkP1vi/lCAsmlw==
— witness.example/w2 AWui8Sk55XjYLOijihBjhqEH6nS1ndDymE0a+6idX7pLcnoB+dhnz0854aLZgrrKbYKA7nC3HNJhm/kWl7oJlqU3rXXvpysAdyP3wQ==
""".encode()  # noqa: E501

ORIGIN = "coop.example/ecot"
LOG = NoteSigner(ORIGIN, bytes(32))
LEAVES = leaf_hashes(str(n).encode() for n in range(200))


class Edge:
    """A log of fewer than 256 entries, whose every tile is partial."""

    def __init__(self, leaves: list[bytes]) -> None:
        self.edge = TileEdge.empty()
        self.edge.append_many(leaves)

    def tile(self, level: int, index: int, width: int) -> bytes:
        return self.edge.tile(level, index, width)


def root_at(size: int, leaves: list[bytes] = LEAVES) -> bytes:
    return Frontier.of(leaves[:size]).root()


def request(
    old: int, new: int, *, proof: tuple[bytes, ...] | None = None, root: bytes | None = None
) -> AddCheckpointRequest:
    if proof is None:
        proof = consistency_proof(Edge(LEAVES[:new]), old, new)
    return AddCheckpointRequest(old, proof, sign_checkpoint(Checkpoint(ORIGIN, new, root or root_at(new)), LOG))


def test_examples_in_the_docstrings_run() -> None:
    result = doctest.testmod(witness)
    assert result.attempted > 0
    assert result.failed == 0


def test_request_of_the_specification_is_read_and_written_back() -> None:
    read = AddCheckpointRequest.parse(EXAMPLE)
    assert (read.old_size, len(read.proof)) == (20_852_014, 4)
    assert (read.checkpoint.origin, read.checkpoint.size) == ("example.com/behind-the-sofa", 20_852_163)
    assert len(read.note.signatures) == 2
    assert read.format() == EXAMPLE


def test_answer_of_the_specification_is_read_and_written_back() -> None:
    lines = parse_signatures(EXAMPLE_ANSWER)
    assert [line.name for line in lines] == ["witness.example/w1", "witness.example/w1", "witness.example/w2"]
    assert {len(line.signature) for line in lines} == {72}
    assert format_signatures(lines) == EXAMPLE_ANSWER


@pytest.mark.parametrize(
    ("known", "asked", "code", "status"),
    [
        (None, request(9, 5, proof=()), "old_size_too_large", 400),
        ((9, root_at(9)), request(9, 5, proof=()), "old_size_too_large", 400),
        (None, request(5, 9), "old_size_stale", 409),
        ((7, root_at(7)), request(5, 9), "old_size_stale", 409),
        ((7, root_at(7)), request(0, 9), "old_size_stale", 409),
        ((9, root_at(9)), request(7, 9), "old_size_stale", 409),
        (None, request(0, 0, root=bytes(32)), "root_wrong", 422),
        ((7, root_at(7)), request(7, 7, root=bytes(32)), "root_wrong", 422),
        (None, request(0, 9, proof=(bytes(32),)), "consistency_wrong", 422),
        ((7, root_at(7)), request(7, 7, proof=(bytes(32),)), "consistency_wrong", 422),
        ((7, root_at(7)), request(7, 9, proof=()), "consistency_wrong", 422),
        ((7, root_at(7)), request(7, 9, root=bytes(32)), "consistency_wrong", 422),
        ((7, bytes(32)), request(7, 9), "consistency_wrong", 422),
    ],
)
def test_refusals(known: tuple[int, bytes] | None, asked: AddCheckpointRequest, code: str, status: int) -> None:
    answer = decide(known, asked, [LOG.verifier])
    assert isinstance(answer, Refusal)
    assert (answer.code, answer.status) == (code, status)


def test_stale_size_is_answered_with_the_size_that_the_witness_has() -> None:
    answer = decide((7, root_at(7)), request(0, 9), [LOG.verifier])
    assert isinstance(answer, Refusal)
    assert (answer.body, answer.content_type) == (b"7\n", "text/x.tlog.size")
    assert parse_size(answer.body) == 7
    first = decide(None, request(5, 9), [LOG.verifier])
    assert isinstance(first, Refusal)
    assert first.body == b"0\n"


def test_unknown_log_and_missing_signature() -> None:
    other = NoteSigner("other.example", b"\x01" * 32)
    rotated = NoteSigner(ORIGIN, b"\x02" * 32)
    asked = request(0, 5)
    for keys, status in (([], 404), ([other.verifier], 404), ([rotated.verifier], 403)):
        answer = decide(None, asked, keys)
        assert isinstance(answer, Refusal)
        assert answer.status == status
    assert isinstance(decide(None, asked, [rotated.verifier, LOG.verifier]), OpenedCheckpoint)


def test_false_signature_is_refused_before_anything_else() -> None:
    honest = request(5, 9)
    text = Checkpoint(ORIGIN, 3, bytes(32)).format()
    forged = AddCheckpointRequest(5, (), SignedNote(text, honest.note.signatures))
    answer = decide((7, root_at(7)), forged, [LOG.verifier])
    assert isinstance(answer, Refusal)
    assert answer.status == 403


def test_a_checkpoint_that_is_too_long_to_be_shown_is_not_cosigned() -> None:
    for extensions, code in ((("x" * 2_000,), None), (("x" * 2_000, "y" * 2_000, "z" * 200), "checkpoint_too_long")):
        note = sign_checkpoint(Checkpoint(ORIGIN, 1, root_at(1), extensions), LOG)
        answer = decide(None, AddCheckpointRequest(0, (), note), [LOG.verifier])
        assert (answer.code if isinstance(answer, Refusal) else None) == code


def test_only_two_roots_for_one_size_prove_a_fork() -> None:
    fork = decide((7, root_at(7)), request(7, 7, root=bytes(32)), [LOG.verifier])
    no_proof = decide((7, root_at(7)), request(7, 9, proof=()), [LOG.verifier])
    assert isinstance(fork, Refusal)
    assert isinstance(no_proof, Refusal)
    assert (fork.is_fork_proof, no_proof.is_fork_proof) == (True, False)


def test_accepted_checkpoint_is_cosigned() -> None:
    asked = AddCheckpointRequest.parse(request(7, 9).format())
    accepted = decide((7, root_at(7)), asked, [LOG.verifier])
    assert isinstance(accepted, OpenedCheckpoint)
    cosigner = Cosigner("witness.example/w1", b"\x03" * 32)
    answer = format_signatures([cosigner.cosign(accepted.note.text, 1_790_000_000)])
    note = asked.note.with_signatures(parse_signatures(answer))
    opened = open_checkpoint(note.format(), [LOG.verifier], [cosigner.verifier])
    assert [found.timestamp_unix_s for found in opened.cosignatures] == [1_790_000_000]


def test_same_checkpoint_again_is_accepted() -> None:
    assert isinstance(decide((7, root_at(7)), request(7, 7), [LOG.verifier]), OpenedCheckpoint)
    assert isinstance(decide(None, request(0, 0), [LOG.verifier]), OpenedCheckpoint)
    assert isinstance(decide((0, EMPTY_ROOT), request(0, 4), [LOG.verifier]), OpenedCheckpoint)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_witness_follows_growth_and_never_a_rewritten_past(data: st.DataObject) -> None:
    sizes = sorted(data.draw(st.sets(st.integers(1, 200), min_size=2, max_size=6)))
    known: tuple[int, bytes] | None = None
    for size in sizes:
        old = known[0] if known else 0
        accepted = decide(known, request(old, size), [LOG.verifier])
        assert isinstance(accepted, OpenedCheckpoint)
        known = (accepted.checkpoint.size, accepted.checkpoint.root_hash)
    assert known is not None
    old = sizes[-2]
    place = data.draw(st.integers(0, old - 1))
    past = [*LEAVES[:place], LEAVES[place + 1], *LEAVES[place + 1 :]]
    new = sizes[-1]
    rewritten = consistency_proof(Edge(past[:new]), old, new)
    forged = request(old, new, proof=rewritten, root=root_at(new, past))
    answer = decide((old, root_at(old)), forged, [LOG.verifier])
    assert isinstance(answer, Refusal)
    assert answer.status == 422


GOOD = request(5, 9).format()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        GOOD.replace(b"old 5\n", b""),
        GOOD.replace(b"old 5", b"old 05"),
        GOOD.replace(b"old 5", b"old -5"),
        GOOD.replace(b"old 5", b"old  5"),
        GOOD.replace(b"old 5", b"old 5 "),
        GOOD.replace(b"old 5", b"old 9223372036854775808"),
        GOOD.replace(b"old 5", b"Old 5"),
        GOOD.replace(b"old 5\n", b"old 5\nAAAA\n"),
        GOOD.replace(b"old 5\n", b"old 5\n" + (b"A" * 43 + b"=\n") * 64),
        GOOD.replace(b"old 5\n", b"old 5\r\n"),
    ],
)
def test_what_is_not_a_request_is_refused(raw: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as error:
        AddCheckpointRequest.parse(raw)
    assert error.value.code == "add_checkpoint_malformed"


def test_63_hashes_are_read() -> None:
    raw = GOOD.partition(b"\n\n")[2]
    body = b"old 5\n" + (b"A" * 43 + b"=\n") * 63 + b"\n" + raw
    assert len(AddCheckpointRequest.parse(body).proof) == 63


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_refused(raw: bytes) -> None:
    for candidate in (
        raw,
        b"old 0\n\n" + raw,
        raw + GOOD,
        b"old 0\n\n" + raw + b"\n\n" + LOG.sign("x\n").format().encode(),
    ):
        try:
            read = AddCheckpointRequest.parse(candidate)
        except RemoteProtocolError:
            continue
        assert read.format() == candidate
        assert isinstance(decide(None, read, [LOG.verifier]), Refusal)


@given(st.binary(max_size=30))
def test_any_bytes_are_a_size_or_refused(raw: bytes) -> None:
    try:
        size = parse_size(raw)
    except RemoteProtocolError as error:
        assert str(error).startswith("size_malformed")  # noqa: PT017
    else:
        assert format_size(size) == raw


def test_misuse_is_local() -> None:
    note = sign_checkpoint(Checkpoint(ORIGIN, 1, root_at(1)), LOG)
    for old, proof in ((-1, ()), (0, (b"short",)), (0, (bytes(32),) * 64)):
        with pytest.raises(LocalProtocolError):
            AddCheckpointRequest(old, proof, note)
