# SPDX-License-Identifier: AGPL-3.0-or-later
"""Make the test vectors, the same in every run: ``python tests/vectors/make_vectors.py``.

Another implementation checks itself with the JSON files beside this one (README.md says what is in them). Proofs and
roots are made here by the recursive definitions of RFC 6962, not by the library, which is tested against them. A vector
that was released is never edited: a later format gets a file of its own.
"""

import base64
import json
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "kit"), str(ROOT / "tests" / "simulation"), str(ROOT / "protocol")]

import msgspec  # noqa: E402
from calm_federation import live_calmly  # noqa: E402
from ledger_kit import seed  # noqa: E402
from story_kit import StoryKit, tell  # noqa: E402

from ecot_protocol.ledger.digest import StateMap, position  # noqa: E402
from ecot_protocol.ledger.facts import Fact  # noqa: E402
from ecot_protocol.wire.checkpoint import Checkpoint, sign_checkpoint  # noqa: E402
from ecot_protocol.wire.cosignature import Cosigner  # noqa: E402
from ecot_protocol.wire.encoding import encode  # noqa: E402
from ecot_protocol.wire.entry import BODY, Entry, leaf_data  # noqa: E402
from ecot_protocol.wire.ids import object_id, organ_id, uuid7  # noqa: E402
from ecot_protocol.wire.keys import Signer, key_id, public_key_of, sign  # noqa: E402
from ecot_protocol.wire.note import NoteSigner  # noqa: E402
from ecot_protocol.wire.proof import TlogProof  # noqa: E402
from ecot_protocol.wire.statement import STATEMENT, Statement, sign_statement, statement_id  # noqa: E402
from ecot_protocol.wire.tile import encode_bundle, entries_path, tile_path  # noqa: E402

HERE: Final = Path(__file__).resolve().parent
COSIGNED_AT_UNIX_S: Final = 1_790_000_000


# RFC 6962, section 2.1, as written ---------------------------------------------------------------------------------


def _leaf_hash(data: bytes) -> bytes:
    return sha256(b"\x00" + data).digest()


def _split_at(size: int) -> int:
    """Return the largest power of two smaller than `size`."""
    return 1 << (size - 1).bit_length() - 1


def tree_root(leaves: list[bytes]) -> bytes:
    """Return MTH(D[n]); `leaves` is leaf data."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return _leaf_hash(leaves[0])
    cut = _split_at(len(leaves))
    return sha256(b"\x01" + tree_root(leaves[:cut]) + tree_root(leaves[cut:])).digest()


def inclusion(index: int, leaves: list[bytes]) -> list[bytes]:
    """Return PATH(m, D[n])."""
    if len(leaves) <= 1:
        return []
    cut = _split_at(len(leaves))
    if index < cut:
        return [*inclusion(index, leaves[:cut]), tree_root(leaves[cut:])]
    return [*inclusion(index - cut, leaves[cut:]), tree_root(leaves[:cut])]


def consistency(old_size: int, leaves: list[bytes]) -> list[bytes]:
    """Return PROOF(m, D[n])."""
    return _subproof(old_size, leaves, is_complete=True) if 0 < old_size < len(leaves) else []


def _subproof(old_size: int, leaves: list[bytes], *, is_complete: bool) -> list[bytes]:
    if old_size == len(leaves):
        return [] if is_complete else [tree_root(leaves)]
    cut = _split_at(len(leaves))
    if old_size <= cut:
        return [*_subproof(old_size, leaves[:cut], is_complete=is_complete), tree_root(leaves[cut:])]
    return [*_subproof(old_size - cut, leaves[cut:], is_complete=False), tree_root(leaves[:cut])]


def range_proof(start: int, end: int, leaves: list[bytes]) -> list[bytes]:
    """Return the roots of the maximal subtrees beside [start, end), from left to right."""
    if end <= 0 or start >= len(leaves):
        return [tree_root(leaves)]
    if start <= 0 and end >= len(leaves):
        return []
    cut = _split_at(len(leaves))
    return [*range_proof(start, end, leaves[:cut]), *range_proof(start - cut, end - cut, leaves[cut:])]


# The files -----------------------------------------------------------------------------------------------------------


def _hex(hashes: list[bytes]) -> list[str]:
    return [one.hex() for one in hashes]


def make_encoding() -> dict[str, Any]:
    """Canonical values, and bytes of the type ``{left: integer, right: text}`` that must be refused."""
    numbers = (
        0,
        127,
        128,
        255,
        256,
        65_535,
        65_536,
        2**32 - 1,
        2**32,
        2**53 - 1,
        -1,
        -32,
        -33,
        -128,
        -129,
        -(2**53 - 1),
    )
    values = [*numbers, "", "é", "x" * 31, "x" * 32, "x" * 256, True, False, None]
    keys = "a46c65667401a57269676874a178"
    return {
        "canonical": [
            *({"value": one, "bytes": encode(one).hex()} for one in values),
            *(
                {"bin": one.hex(), "bytes": encode(one).hex()}
                for one in (b"", b"\x00" * 16, b"\x01" * 255, b"\x02" * 256)
            ),
            *({"value": one, "bytes": encode(one).hex()} for one in ([], [1] * 15, [1] * 16)),
        ],
        "pair_refused": [
            {"why": why, "bytes": raw}
            for why, raw in (
                ("unsorted keys", "82a57269676874a178a46c65667401"),
                ("duplicate key", "83a46c65667401" + keys),
                ("unknown key", "83" + keys + "a47a65726f00"),
                ("missing key", "81a46c65667401"),
                ("long integer", "82a46c656674cc01a57269676874a178"),
                ("signed form of a positive integer", "82a46c656674d001a57269676874a178"),
                ("long string", "82a46c65667401a57269676874d90178"),
                ("long map", "de0002" + keys),
                ("key as bin", "82c4046c65667401a57269676874a178"),
                ("float", "82a46c656674ca3f800000a57269676874a178"),
                ("extension", "82a46c656674d40100a57269676874a178"),
                ("bin for text", "82a46c65667401a57269676874c40178"),
                ("integer above 2^53-1", "82a46c656674cf0020000000000000a57269676874a178"),
                ("invalid UTF-8", "82a46c65667401a57269676874a1ff"),
                ("surrogate", "82a46c65667401a57269676874a3eda080"),
                ("trailing byte", "82" + keys + "00"),
                ("truncated", "82" + keys[:-2]),
                ("empty", ""),
            )
        ],
        "pair": "82" + keys,
    }


def make_ids() -> dict[str, Any]:
    """Ids of entries, of further objects and of organs."""
    cases = [(0, bytes(10)), (1_700_000_000_000, bytes(range(10))), (2**48 - 1, b"\xff" * 10)]
    entries = []
    for unix_ms, random in cases:
        entry_id = uuid7(unix_ms, random)
        objects = {str(number): object_id(entry_id, number).hex() for number in (1, 2, 255, 256, 70_000)}
        entries.append({"unix_ms": unix_ms, "random": random.hex(), "id": entry_id.hex(), "objects": objects})
    organs = {name: organ_id(name).hex() for name in ("board", "cooperative", "node", "treasurer")}
    return {"entries": entries, "organs": organs}


def make_keys() -> dict[str, Any]:
    """Keys, key ids and signatures, good and bad."""
    good, bad = [], []
    for name in ("claire", "denis"):
        secret, message = seed(name), b"message of " + name.encode()
        public_key, signature = public_key_of(secret), sign(secret, message)
        case = {"public_key": public_key.hex(), "message": message.hex(), "signature": signature.hex()}
        good.append({"seed": secret.hex(), "key_id": key_id(public_key).hex(), **case})
        scalar = int.from_bytes(signature[32:], "little") + 2**252 + 27742317777372353535851937790883648493
        unreduced = signature[:32] + scalar.to_bytes(32, "little")
        bad.append({"why": "scalar not reduced", **case, "signature": unreduced.hex()})
        bad.append({"why": "another message", **case, "message": (message + b".").hex()})
    for why, point in (("zero", bytes(32)), ("neutral element", b"\x01" + bytes(31))):
        case = {"message": b"any".hex(), "signature": (b"\x01" + bytes(63)).hex()}
        bad.append({"why": f"key of small order: {why}", "public_key": (b"\x01" + point).hex(), **case})
    return {"good": good, "bad": bad}


def make_statements() -> dict[str, Any]:
    """A statement of two ledgers, with a signature of each."""
    payload = msgspec.Raw(encode({"note": "of a type that no rule reads", "number": 1}))
    raw = STATEMENT.encode(Statement(ledgers=(bytes(32), b"\x01" * 32), payload=payload, type="example"))
    signers = sorted((Signer(seed(name)) for name in ("claire", "denis")), key=lambda one: one.key_id)
    signatures = [
        {
            "public_key": one.public_key.hex(),
            "key_id": one.key_id.hex(),
            "signature": sign_statement(one, raw).signature.hex(),
        }
        for one in signers
    ]
    return {"statements": [{"bytes": raw.hex(), "id": statement_id(raw).hex(), "signatures": signatures}]}


def make_digest() -> dict[str, Any]:
    """Rows, the digest, and proofs of presence and absence."""
    state_map, rows = StateMap(), []
    for number in range(20):
        table, key, value = f"test.table{number % 3}", encode(f"key{number}"), encode(number)
        place = position(table, key)
        state_map.put(place, value)
        rows.append({"table": table, "key": key.hex(), "value": value.hex(), "position": place.hex()})
    values = {row["position"]: bytes.fromhex(row["value"]) for row in rows}
    absent = []
    for number in range(20, 26):
        key = encode(f"key{number}")
        place = position("test.table0", key)
        other = state_map.find_neighbour(place)
        neighbour = other and {"position": other.hex(), "value_hash": sha256(values[other.hex()]).hexdigest()}
        siblings = _hex(list(state_map.prove(place)))
        absent.append({"table": "test.table0", "key": key.hex(), "neighbour": neighbour, "siblings": siblings})
    present = [
        {"table": row["table"], "key": row["key"], "value": row["value"],
         "siblings": _hex(list(state_map.prove(bytes.fromhex(row["position"]))))}
        for row in rows[:6]
    ]  # fmt: skip
    return {"rows": rows, "digest": state_map.root().hex(), "present": present, "absent": absent}


class Log:
    """The story, written down."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        self.leaves: list[bytes] = []
        self.entries: list[dict[str, Any]] = []
        self.kit = tell(self._hear)
        self.origin = self.kit.state.coop.founded.origin

    def _hear(self, kit: StoryKit, entry: Entry, facts: list[Fact]) -> None:
        record = kit.records[-1]
        self.leaves.append(leaf_data(record))
        self.records.append(
            {
                "type": BODY.decode(entry.body).type,
                "record": record.hex(),
                "leaf_data": self.leaves[-1].hex(),
                "root": tree_root(self.leaves).hex(),
                "state_digest": kit.state.digest().hex(),
                "facts": [type(fact).__name__ for fact in facts],
            }
        )
        self.entries.append({"type": self.records[-1]["type"], "entry": encode(entry).hex()})

    def make_log(self) -> dict[str, Any]:
        ledger = self.kit.state.ledger
        assert ledger is not None
        return {"ledger": ledger.hex(), "origin": self.origin, "rules": 1, "records": self.records}

    def make_proofs(self) -> dict[str, Any]:
        leaves, size = self.leaves, len(self.leaves)
        sizes = [1, 2, 3, 5, 8, 13, 40, size]
        pairs = [(index, one) for one in sizes for index in sorted({0, one // 2, one - 1})]
        steps = [(old, new) for new in sizes for old in sizes if old <= new]
        ranges = [(0, size, size), (3, 9, size), (size - 1, size, size), (0, 1, 5), (4, 5, 5), (16, 32, size)]
        return {
            "leaf_data": _hex(leaves),
            "inclusion": [
                {"index": index, "size": one, "root": tree_root(leaves[:one]).hex(),
                 "proof": _hex(inclusion(index, leaves[:one]))}
                for index, one in pairs
            ],
            "consistency": [
                {"old_size": old, "old_root": tree_root(leaves[:old]).hex(), "new_size": new,
                 "new_root": tree_root(leaves[:new]).hex(), "proof": _hex(consistency(old, leaves[:new]))}
                for old, new in steps
            ],
            "range": [
                {"start": start, "end": end, "size": one, "root": tree_root(leaves[:one]).hex(),
                 "proof": _hex(range_proof(start, end, leaves[:one]))}
                for start, end, one in ranges
            ],
        }  # fmt: skip

    def make_checkpoints(self) -> dict[str, Any]:
        """Checkpoints of the log, cosigned; a proof file; the bundle and the level 0 tile of all leaves."""
        signer, witness = NoteSigner(self.origin, seed("storylog")), Cosigner("witness.example", seed("witness"))
        size, index = len(self.leaves), 12
        note = sign_checkpoint(Checkpoint(self.origin, size, tree_root(self.leaves)), signer)
        cosigned = note.with_signatures([witness.cosign(note.text, COSIGNED_AT_UNIX_S)])
        proof = TlogProof(index, tuple(inclusion(index, self.leaves)), cosigned.format())
        return {
            "log_vkey": signer.verifier.vkey,
            "witness_vkey": witness.verifier.vkey,
            "checkpoint": note.format().decode(),
            "cosigned": cosigned.format().decode(),
            "cosigned_at_unix_s": COSIGNED_AT_UNIX_S,
            "tlog_proof": proof.format().decode(),
            "tlog_proof_index": index,
            "tile_path": tile_path(0, 0, size),
            "tile": base64.b64encode(b"".join(map(_leaf_hash, self.leaves))).decode(),
            "entries_path": entries_path(0, size),
            "entries": base64.b64encode(encode_bundle(self.leaves)).decode(),
        }


def make_federation() -> dict[str, Any]:
    """The logs of four ledgers that trade with each other, whole, and their decision logs."""
    ledgers = []
    for kit in live_calmly():
        leaves = [leaf_data(record) for record in kit.records]
        decided = [body for body in map(_body_of, kit.records) if body["type"] == "federation.decide"]
        decisions = [encode((one["payload"]["tid"], int(one["payload"]["outcome"] == "commit"))) for one in decided]
        ledgers.append(
            {
                "ledger": kit.ledger.hex(),
                "origin": kit.origin,
                "rules": 1,
                "records": [one.hex() for one in kit.records],
                "root": tree_root(leaves).hex(),
                "state_digest": kit.state.digest().hex(),
                "decisions": _hex(decisions),
                "decisions_root": tree_root(decisions).hex(),
            }
        )
    return {"ledgers": ledgers}


def _body_of(record: bytes) -> dict[str, Any]:
    body: dict[str, Any] = msgspec.msgpack.decode(msgspec.msgpack.decode(record)[1])
    return body


def make_vectors() -> dict[str, dict[str, Any]]:
    """Return file name -> contents."""
    log = Log()
    return {
        "checkpoints.json": log.make_checkpoints(),
        "digest.json": make_digest(),
        "encoding.json": make_encoding(),
        "entries.json": {"entries": log.entries},
        "federation.json": make_federation(),
        "ids.json": make_ids(),
        "keys.json": make_keys(),
        "log.json": log.make_log(),
        "proofs.json": log.make_proofs(),
        "statements.json": make_statements(),
    }


def main() -> None:
    """Write the files."""
    for name, contents in make_vectors().items():
        (HERE / name).write_text(json.dumps(contents, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
