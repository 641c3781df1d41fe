# SPDX-License-Identifier: AGPL-3.0-or-later
"""`.tlog-proof` files and trust policies: the examples of the specifications, quorums, forgeries, arbitrary bytes."""

import doctest
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecot_protocol.errors import LocalProtocolError, RemoteProtocolError
from ecot_protocol.wire import policy as policy_module
from ecot_protocol.wire import proof as proof_module
from ecot_protocol.wire.checkpoint import Checkpoint, sign_checkpoint
from ecot_protocol.wire.cosignature import Cosigner
from ecot_protocol.wire.lines import encode_base64
from ecot_protocol.wire.merkle import Frontier, GroupTree, leaf_hashes
from ecot_protocol.wire.note import NoteSigner
from ecot_protocol.wire.note_key import KeyType, vkey
from ecot_protocol.wire.policy import Policy, PolicyGroup, format_policy, is_satisfied, parse_policy
from ecot_protocol.wire.proof import TlogProof, verify_proof

ORIGIN = "coop.example/ecot"
LOG = NoteSigner(ORIGIN, bytes(32))
COSIGNERS = {name: Cosigner(f"{name}.example", bytes([n]) * 32) for n, name in enumerate(("X1", "X2", "X3", "Y1"), 1)}
LEAVES = [str(n).encode() for n in range(11)]
TREE = GroupTree(Frontier.empty(), leaf_hashes(LEAVES))
HEAD = Checkpoint(ORIGIN, TREE.size, TREE.root)
NOW = 1_790_000_000

# The example of tlog-policy.md with keys filled in, and with the comments, tabs and spaces that it allows.
EXAMPLE_POLICY = """log {log}

\twitness X1 {X1}  https://x1.example/witness
witness X2 {X2}
witness X3 {X3}\t
  # two of X
group X-witnesses 2 X1 X2 X3

witness Y1 {Y1}
witness Y2 {Y2}
witness Y3 {Y3}
group Y-witnesses any Y1 Y2 Y3

group X-and-Y all X-witnesses Y-witnesses
quorum X-and-Y
""".format(
    log=LOG.verifier.vkey,
    **{name: cosigner.verifier.vkey for name, cosigner in COSIGNERS.items()},
    Y2=vkey("Y2.example", b"\x0a" * 32, KeyType.COSIGNATURE),
    Y3=vkey("Y3.example", b"\x0b" * 32, KeyType.COSIGNATURE),
).encode()
POLICY = parse_policy(EXAMPLE_POLICY)
NO_QUORUM = parse_policy(b"quorum none\n")


def make_proof(index: int, cosigners: tuple[str, ...] = (), extra: bytes | None = None) -> TlogProof:
    note = sign_checkpoint(HEAD, LOG)
    note = note.with_signatures(COSIGNERS[name].cosign(note.text, NOW) for name in cosigners)
    return TlogProof(index, TREE.inclusion_proof(index), note.format(), extra)


def code_of(call: object, *arguments: object) -> str:
    with pytest.raises(RemoteProtocolError) as error:
        call(*arguments)  # type: ignore[operator]
    return error.value.code


@pytest.mark.parametrize("module", [policy_module, proof_module])
def test_examples_in_the_docstrings_run(module: object) -> None:
    result = doctest.testmod(module)  # type: ignore[arg-type]
    assert result.attempted > 0
    assert result.failed == 0


def test_every_leaf_has_a_proof_that_verifies_offline() -> None:
    for index, leaf in enumerate(LEAVES):
        raw = make_proof(index, ("X1", "X3", "Y1")).format()
        opened = verify_proof(leaf, raw, POLICY.log_keys, POLICY)
        assert opened.checkpoint == HEAD
        assert {found.cosigner.name for found in opened.cosignatures} == {"X1.example", "X3.example", "Y1.example"}


def test_proof_of_the_specification_is_read() -> None:
    """The example of tlog-proof.md; only its signature lines, which the page abbreviates, are ours."""
    note = sign_checkpoint(HEAD, LOG).format()
    hashes = (
        b"gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=\nB95lDa8R83lS8n0eG+o0buTxRKQTYFi//1U8anccXmA=\n"
        b"EKNzoDWG8LGC0Yp9o+sv3qllpMP9uHQ9B20KNL+Q1zs=\nRoopEkOdqkYqMB4MJXrbt/hMjOxsVn0IrWjpz1ZMMes=\n"
        b"AHCioX9nLjsrse6YhjRRmk1WUEirVOLLRoOQ6vfO5vk=\n"
    )
    head = b"c2sp.org/tlog-proof@v1\nextra YWdlLXYxLjIuMS1kYXJ3aW4tYXJtNjQudGFyLmd6kYXJ3aW4tYXJ\nindex 73894\n"
    raw = head + hashes + b"\n" + note
    proof = TlogProof.parse(raw)
    assert (proof.index, len(proof.hashes), proof.checkpoint) == (73_894, 5, note)
    assert proof.extra is not None
    assert proof.extra.startswith(b"age-v1.2.1-darwin-arm64.tar.gz")
    assert proof.format() == raw


def test_the_layout_of_a_proof() -> None:
    """Bytes that independent writers of this format produce: header, extra, index, hashes, empty line, checkpoint."""
    proof = make_proof(10, extra=b"extra information")
    lines = proof.format().decode().split("\n")
    assert lines[:3] == ["c2sp.org/tlog-proof@v1", "extra ZXh0cmEgaW5mb3JtYXRpb24=", "index 10"]
    assert lines[3:6] == [*(encode_base64(node) for node in TREE.inclusion_proof(10)), ""]
    assert TlogProof.parse(proof.format()) == proof
    single = GroupTree(Frontier.empty(), leaf_hashes([b"only"]))
    note = sign_checkpoint(Checkpoint(ORIGIN, 1, single.root), LOG).format()
    raw = TlogProof(0, (), note).format()
    assert raw == b"c2sp.org/tlog-proof@v1\nindex 0\n\n" + note
    assert verify_proof(b"only", raw, [LOG.verifier], NO_QUORUM).checkpoint.size == 1


def test_forged_proofs_are_refused() -> None:
    good = make_proof(4, ("X1", "X2", "Y1"))
    other_hashes = TlogProof(4, TREE.inclusion_proof(5), good.checkpoint)
    other_index = TlogProof(5, good.hashes, good.checkpoint)
    assert code_of(verify_proof, b"5", good, POLICY.log_keys, POLICY) == "proof_inclusion_wrong"
    assert code_of(verify_proof, b"4", other_hashes, POLICY.log_keys, POLICY) == "proof_inclusion_wrong"
    assert code_of(verify_proof, b"4", other_index, POLICY.log_keys, POLICY) == "proof_inclusion_wrong"
    assert code_of(verify_proof, b"4", good, [], POLICY) == "checkpoint_unsigned"
    stranger = NoteSigner(ORIGIN, b"\x07" * 32)
    assert code_of(verify_proof, b"4", good, [stranger.verifier], NO_QUORUM) == "note_unsigned"
    changed = TlogProof(4, good.hashes, good.checkpoint.replace(b"\n11\n", b"\n12\n"))
    assert code_of(verify_proof, b"4", changed, POLICY.log_keys, POLICY) == "note_signature_wrong"


def test_every_subset_of_witnesses_against_the_example_policy() -> None:
    for count in range(5):
        for names in combinations(COSIGNERS, count):
            proof = make_proof(0, names)
            if len(set(names) & {"X1", "X2", "X3"}) >= 2 and "Y1" in names:
                assert verify_proof(b"0", proof, POLICY.log_keys, POLICY).checkpoint == HEAD
            else:
                assert code_of(verify_proof, b"0", proof, POLICY.log_keys, POLICY) == "proof_quorum_missing"


def test_one_witness_signing_twice_counts_once() -> None:
    note = sign_checkpoint(HEAD, LOG)
    lines = [COSIGNERS["X1"].cosign(note.text, NOW + n) for n in range(3)]
    note = note.with_signatures([*lines, COSIGNERS["Y1"].cosign(note.text, NOW)])
    proof = TlogProof(0, TREE.inclusion_proof(0), note.format())
    assert code_of(verify_proof, b"0", proof, POLICY.log_keys, POLICY) == "proof_quorum_missing"


GOOD = make_proof(0).format()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\n\n",
        GOOD.replace(b"@v1", b"@v2"),
        GOOD.replace(b"index 0\n", b""),
        GOOD.replace(b"index 0", b"index 00"),
        GOOD.replace(b"index 0", b"index -1"),
        GOOD.replace(b"index 0", b"index  0"),
        GOOD.replace(b"index 0", b"Index 0"),
        GOOD.replace(b"index 0", b"index 9223372036854775807"),
        GOOD.replace(b"index 0", b"extra !\nindex 0"),
        GOOD.replace(b"index 0", b"extra QQ==\nextra QQ==\nindex 0"),
        GOOD.replace(b"index 0", b"extra " + b"A" * 36_864 + b"\nindex 0"),
        GOOD.replace(b"index 0\n", b"index 0\nAAAA\n"),
        GOOD.replace(b"index 0\n", b"index 0\n" + b"A" * 43 + b"=\n" + b"" + (b"A" * 43 + b"=\n") * 63),
        GOOD.replace(b"\nindex 0", b"\r\nindex 0"),
        GOOD.replace(b"index 0\n", "index 0\né\n".encode()),
    ],
)
def test_what_is_not_a_proof_is_refused(raw: bytes) -> None:
    assert code_of(TlogProof.parse, raw) == "proof_malformed"


def test_proof_without_a_note_is_refused() -> None:
    head, _, _ = GOOD.partition(b"\n\n")
    assert code_of(TlogProof.parse, head + b"\n\n") == "note_malformed"


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_as_proof(raw: bytes) -> None:
    for candidate in (raw, b"c2sp.org/tlog-proof@v1\nindex 0\n" + raw, raw + GOOD[10:]):
        with pytest.raises(RemoteProtocolError):
            verify_proof(b"0", candidate, [LOG.verifier], POLICY)


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_a_changed_byte_of_a_proof_is_noticed(place: int, change: int) -> None:
    changed = GOOD[:place] + bytes([GOOD[place] ^ change]) + GOOD[place + 1 :]
    with pytest.raises(RemoteProtocolError):
        verify_proof(b"0", changed, [LOG.verifier], NO_QUORUM)


def test_example_policy_is_read_and_written() -> None:
    assert [witness.name for witness in POLICY.witnesses] == ["X1", "X2", "X3", "Y1", "Y2", "Y3"]
    assert POLICY.witnesses[0].url == "https://x1.example/witness"
    assert [(group.name, group.threshold) for group in POLICY.groups] == [
        ("X-witnesses", 2),
        ("Y-witnesses", 1),
        ("X-and-Y", 2),
    ]
    assert POLICY.log_keys == (LOG.verifier,)
    assert parse_policy(format_policy(POLICY)) == POLICY


def test_quorum_of_one_witness_and_of_none() -> None:
    single = parse_policy(b"witness W %b\nquorum W\n" % COSIGNERS["X1"].verifier.vkey.encode())
    assert is_satisfied(single, ["W"])
    assert not is_satisfied(single, [])
    assert is_satisfied(NO_QUORUM, [])
    # A group cannot be claimed by name, nor does an unknown name count.
    assert not is_satisfied(POLICY, ["X-and-Y", "X-witnesses", "Y-witnesses", "Z"])


KEY = COSIGNERS["X1"].verifier.vkey
KEY_2 = COSIGNERS["X2"].verifier.vkey
TWO = f"witness A {KEY}\nwitness B {KEY_2}\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "quorum none",
        "quorum none\nquorum none\n",
        "quorum A\n",
        "quorum\n",
        "quorum none none\n",
        "unknown none\nquorum none\n",
        "quorum none\r\n",
        "quorum\u00a0none\n",
        "quorum none\x0b\n",
        "quorum none # comment\n",
        f"quorum A\nwitness A {KEY}\n",
        f"witness A {KEY}\nwitness A {KEY_2}\nquorum none\n",
        f"witness A {KEY}\nwitness B {KEY}\nquorum none\n",
        f"witness none {KEY}\nquorum none\n",
        f"witness A {KEY} url more\nquorum none\n",
        f"witness A {LOG.verifier.vkey}\nquorum none\n",
        f"log {KEY}\nquorum none\n",
        f"log {LOG.verifier.vkey}\nlog {LOG.verifier.vkey}\nquorum none\n",
        f"log {LOG.verifier.vkey}\nlog {vkey('other', LOG.verifier.public_key)}\nquorum none\n",
        f"log {KEY[:-3]}\nquorum none\n",
        TWO + "group G any\nquorum none\n",
        TWO + "group G 0 A B\nquorum none\n",
        TWO + "group G 3 A B\nquorum none\n",
        TWO + "group G 01 A B\nquorum none\n",
        TWO + "group G some A B\nquorum none\n",
        TWO + "group G any A A\nquorum none\n",
        TWO + "group G any A\ngroup H any A B\nquorum none\n",
        TWO + "group G any A G\nquorum none\n",
        TWO + "group G any A none\nquorum none\n",
        TWO + "group A any B\nquorum none\n",
        TWO + "group none any B\nquorum none\n",
        TWO + "group G any C\nquorum none\n",
    ],
)
def test_what_is_not_a_policy_is_refused(text: str) -> None:
    assert code_of(parse_policy, text.encode()) == "policy_malformed"


def test_error_of_a_policy_names_the_line() -> None:
    with pytest.raises(RemoteProtocolError) as error:
        parse_policy(TWO.encode() + b"# comment\ngroup G 3 A B\nquorum G\n")
    assert error.value.params == {"line": 4}


def test_names_are_octets() -> None:
    """A Kelvin sign is no K, and what is no UTF-8 is still a name."""
    raw = b"witness K %b\nwitness \xe2\x84\xaa %b\nwitness \xff %b\ngroup G all K \xe2\x84\xaa \xff\nquorum G\n"
    keys = tuple(cosigner.verifier.vkey.encode() for cosigner in list(COSIGNERS.values())[:3])
    policy = parse_policy(raw % keys)
    assert not is_satisfied(policy, ["K", "\u212a"])
    assert is_satisfied(policy, ["K", "\u212a", b"\xff".decode("utf-8", "surrogateescape")])
    assert parse_policy(format_policy(policy)) == policy
    bare = make_proof(0)
    assert code_of(verify_proof, b"0", bare, [LOG.verifier], policy) == "proof_quorum_missing"


def test_limits_of_a_policy() -> None:
    keys = [vkey("w.example", n.to_bytes(32, "big"), KeyType.COSIGNATURE) for n in range(129)]
    lines = [f"witness w{n} {key}\n" for n, key in enumerate(keys)]
    assert len(parse_policy("".join([*lines[:128], "quorum none\n"]).encode()).witnesses) == 128
    assert code_of(parse_policy, "".join([*lines, "quorum none\n"]).encode()) == "policy_malformed"
    assert code_of(parse_policy, b"#" * (1 << 20) + b"\n") == "policy_too_large"


WORDS = st.sampled_from(
    [
        "log",
        "witness",
        "group",
        "quorum",
        "none",
        "any",
        "all",
        "1",
        "2",
        "A",
        "B",
        "G",
        "#",
        KEY,
        KEY_2,
        "\t",
        "\n",
        "\xff",
    ]
)


@given(
    st.one_of(st.binary(max_size=200), st.lists(WORDS, max_size=40).map(lambda words: " ".join(words).encode() + b"\n"))
)
def test_any_bytes_are_a_policy_or_refused(raw: bytes) -> None:
    try:
        policy = parse_policy(raw)
    except RemoteProtocolError:
        return
    assert parse_policy(format_policy(policy)) == policy


def test_misuse_is_local() -> None:
    broken = [
        lambda: TlogProof(-1, (), GOOD).format(),
        lambda: TlogProof(0, (b"short",), GOOD).format(),
        lambda: TlogProof(0, (bytes(32),) * 64, GOOD).format(),
        lambda: TlogProof(0, (), GOOD, bytes(24_577)).format(),
        lambda: format_policy(Policy((), (), (), "nobody")),
        lambda: format_policy(Policy((), (), (PolicyGroup("two words", 1, ("x",)),), "none")),
    ]
    for misuse in broken:
        with pytest.raises(LocalProtocolError):
            misuse()
