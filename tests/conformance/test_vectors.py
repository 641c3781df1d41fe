# SPDX-License-Identifier: AGPL-3.0-or-later
"""The vectors hold for the library and for a verifier that shares no code with it; an altered one is found by both."""

import ast
import importlib.util
import json
import re
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.ledger.digest import position, verify_absence, verify_row
from ecot_protocol.machine import Machine
from ecot_protocol.state import State
from ecot_protocol.wire.checkpoint import open_checkpoint
from ecot_protocol.wire.encoding import Codec, Pair
from ecot_protocol.wire.entry import BODY, decode_entry, decode_record, leaf_data
from ecot_protocol.wire.keys import is_signature_valid, key_id, public_key_of, sign
from ecot_protocol.wire.merkle import leaf_hash, verify_consistency, verify_inclusion, verify_range
from ecot_protocol.wire.note import NoteVerifier
from ecot_protocol.wire.policy import parse_policy
from ecot_protocol.wire.proof import verify_proof
from ecot_protocol.wire.statement import decode_statement, is_statement_signed, statement_id

TESTS = Path(__file__).resolve().parents[1]
FOLDER = TESTS / "vectors"


def module_at(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


@cache
def read(name: str) -> Any:
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def unhex(values: list[str]) -> tuple[bytes, ...]:
    return tuple(bytes.fromhex(one) for one in values)


VERIFIER = module_at(TESTS / "conformance" / "verify_vectors.py")


def test_the_files_are_what_the_code_makes() -> None:
    made = module_at(FOLDER / "make_vectors.py").make_vectors()
    assert set(made) == {path.name for path in FOLDER.glob("*.json")} == set(VERIFIER.CHECKS)
    for name, contents in made.items():
        assert json.loads(json.dumps(contents)) == read(name), f"{name}: run tests/vectors/make_vectors.py"


def test_the_recorded_log_replays_to_its_digests() -> None:
    machine, state, log = Machine(), State(), read("log.json")
    for case in log["records"]:
        raw = bytes.fromhex(case["record"])
        applied = machine.replay(state, decode_record(raw))
        assert leaf_data(raw).hex() == case["leaf_data"]
        assert state.digest().hex() == case["state_digest"]
        assert [type(fact).__name__ for fact in applied.facts] == case["facts"]
    assert (state.ledger or b"").hex() == log["ledger"]
    assert state.coop.founded.origin == log["origin"]


def test_the_logs_of_the_federation_replay_to_their_digests() -> None:
    machine, tags = Machine(), set()
    for one in read("federation.json")["ledgers"]:
        state = State()
        for raw in unhex(one["records"]):
            machine.replay(state, decode_record(raw))
            tags.add(BODY.decode(decode_record(raw).body).type)
        assert state.digest().hex() == one["state_digest"]
        assert (state.ledger or b"").hex() == one["ledger"]
    acts = ("peer", "send", "forward", "promise", "decide", "resolve", "owe", "claim", "clear_commit", "clear_accept")
    assert {f"federation.{act}" for act in acts} <= tags


def test_the_entries_are_those_of_the_log() -> None:
    machine = Machine()
    for case, record in zip(read("entries.json")["entries"], read("log.json")["records"], strict=True):
        entry = decode_entry(bytes.fromhex(case["entry"]))
        machine.admit(entry, 1)
        assert decode_record(bytes.fromhex(record["record"])).body == entry.body


def test_encodings_are_refused() -> None:
    vectors = read("encoding.json")
    assert Codec(Pair).decode(bytes.fromhex(vectors["pair"])) == Pair(left=1, right="x")
    for case in vectors["pair_refused"]:
        with pytest.raises(RemoteProtocolError):
            Codec(Pair).decode(bytes.fromhex(case["bytes"]))


def test_keys_and_signatures() -> None:
    for case in read("keys.json")["good"]:
        seed, public_key, message, signature = unhex(
            [case[name] for name in ("seed", "public_key", "message", "signature")]
        )
        assert (public_key_of(seed), sign(seed, message)) == (public_key, signature)
        assert key_id(public_key).hex() == case["key_id"]
        assert is_signature_valid(public_key, message, signature)
    for case in read("keys.json")["bad"]:
        assert not is_signature_valid(*unhex([case[name] for name in ("public_key", "message", "signature")])), case[
            "why"
        ]


def test_proofs_of_the_tree() -> None:
    vectors = read("proofs.json")
    leaves = [leaf_hash(one) for one in unhex(vectors["leaf_data"])]
    for case in vectors["inclusion"]:
        index, size, root = case["index"], case["size"], bytes.fromhex(case["root"])
        assert verify_inclusion(leaves[index], index, size, unhex(case["proof"]), root)
    for case in vectors["consistency"]:
        old, new = bytes.fromhex(case["old_root"]), bytes.fromhex(case["new_root"])
        assert verify_consistency(case["old_size"], old, case["new_size"], new, unhex(case["proof"]))
    for case in vectors["range"]:
        taken = leaves[case["start"] : case["end"]]
        assert verify_range(case["start"], taken, case["size"], unhex(case["proof"]), bytes.fromhex(case["root"]))


def test_proofs_of_the_state() -> None:
    vectors = read("digest.json")
    root = bytes.fromhex(vectors["digest"])
    for case in vectors["present"]:
        key, value = unhex([case["key"], case["value"]])
        assert verify_row(position(case["table"], key), value, unhex(case["siblings"]), root)
    for case in vectors["absent"]:
        other = case["neighbour"]
        neighbour = other and tuple(unhex([other["position"], other["value_hash"]]))
        place = position(case["table"], bytes.fromhex(case["key"]))
        assert verify_absence(place, neighbour, unhex(case["siblings"]), root)


def test_checkpoints_and_the_proof_file() -> None:
    vectors, log = read("checkpoints.json"), read("log.json")
    verifier = NoteVerifier.from_vkey(vectors["log_vkey"])
    witness = NoteVerifier.from_vkey(vectors["witness_vkey"])
    opened = open_checkpoint(vectors["cosigned"].encode(), [verifier], [witness])
    assert opened.checkpoint.root_hash.hex() == log["records"][-1]["root"]
    assert [one.timestamp_unix_s for one in opened.cosignatures] == [vectors["cosigned_at_unix_s"]]
    policy = parse_policy(f"witness w {vectors['witness_vkey']}\nquorum w\n".encode())
    leaf = bytes.fromhex(log["records"][vectors["tlog_proof_index"]]["leaf_data"])
    assert verify_proof(leaf, vectors["tlog_proof"].encode(), [verifier], policy).checkpoint == opened.checkpoint


def test_statements() -> None:
    for case in read("statements.json")["statements"]:
        raw = bytes.fromhex(case["bytes"])
        decode_statement(raw)
        assert statement_id(raw).hex() == case["id"]
        for one in case["signatures"]:
            assert is_statement_signed(*unhex([one["public_key"]]), raw, *unhex([one["signature"]]))


# The verifier --------------------------------------------------------------------------------------------------------


def test_the_verifier_shares_no_code_with_the_library() -> None:
    tree = ast.parse((TESTS / "conformance" / "verify_vectors.py").read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    allowed = {"base64", "hashlib", "hmac", "itertools", "json", "msgpack", "nacl", "pathlib", "sys", "typing"}
    assert {name.partition(".")[0] for name in imported} <= allowed


def test_the_verifier_finds_the_vectors_good(capsys: pytest.CaptureFixture[str]) -> None:
    assert VERIFIER.main(FOLDER) == 0
    assert capsys.readouterr().out.count(": good") == len(VERIFIER.CHECKS)


ALTERATIONS = [
    (name, field)
    for name, fields in {
        "checkpoints.json": ("checkpoint", "cosigned", "tlog_proof", "tile", "entries"),
        "digest.json": ("digest", "siblings", "value_hash", "value"),
        "encoding.json": ("bytes",),
        "entries.json": ("entry",),
        "federation.json": ("records", "root", "ledger", "decisions", "decisions_root"),
        "ids.json": ("id", "board", "70000"),
        "keys.json": ("key_id", "signature"),
        "log.json": ("record", "leaf_data", "root", "ledger"),
        "proofs.json": ("root", "proof", "old_root"),
        "statements.json": ("bytes", "id", "signature"),
    }.items()
    for field in fields
]


@pytest.mark.parametrize(("name", "field"), ALTERATIONS, ids=lambda one: one)
def test_the_verifier_finds_one_altered_character(name: str, field: str) -> None:
    contents = json.loads(json.dumps(read(name)))
    assert alter_first(contents, field)
    with pytest.raises((VERIFIER.Wrong, ValueError, VERIFIER.msgpack.UnpackException)):
        VERIFIER.CHECKS[name](contents)


def alter_first(contents: Any, field: str) -> bool:
    """Change one character in the middle of the first value of that name; of a list of hashes, in its first."""
    for holder, key in find(contents, field):
        inner = holder[key] if isinstance(holder[key], list) else None
        value = inner[0] if inner else holder[key]
        if not isinstance(value, str):
            continue
        middle = next(place for place in range(len(value) // 2, len(value)) if re.match(r"[0-9a-zA-Z]", value[place]))
        altered = value[:middle] + ("0" if value[middle] != "0" else "1") + value[middle + 1 :]
        if inner:
            inner[0] = altered
        else:
            holder[key] = altered
        return True
    return False


def find(contents: Any, field: str) -> Any:
    if isinstance(contents, dict):
        for key, value in contents.items():
            if key == field:
                yield contents, key
            yield from find(value, field)
    elif isinstance(contents, list):
        for one in contents:
            yield from find(one, field)
