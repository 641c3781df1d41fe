# SPDX-License-Identifier: AGPL-3.0-or-later
"""Check the test vectors without Écot's code: hashlib, PyNaCl and msgpack only.

``python tests/conformance/verify_vectors.py [FOLDER]`` prints a line for each file and exits 1 at the first wrong one.
Written to be read: whoever writes another node or client in another language can follow it line by line. The pages of
docs/specification/ that it follows are named beside each function. It applies no rules: those are checked by replaying
``log.json`` and comparing ``state_digest`` after each record.
"""

import base64
import hmac
import json
import sys
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgpack
from nacl.bindings import crypto_sign_open
from nacl.exceptions import BadSignatureError, CryptoError

MAX_INTEGER = 2**53 - 1


def bytes_of(text: str) -> bytes:
    return bytes.fromhex(text)


# wire.md §1: canonical MessagePack ---------------------------------------------------------------------------------


def decode_canonical(raw: bytes) -> Any:
    """Decode, and insist on the one form: encoding again gives the same bytes, keys ascend, integers fit."""
    value = msgpack.unpackb(raw, raw=False, strict_map_key=True, object_pairs_hook=_ascending, max_ext_len=0)
    _require_plain(value)
    require(msgpack.packb(value, use_bin_type=True) == raw, "not canonical")
    return value


def _ascending(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    require(all(isinstance(key, str) and key.isascii() for key in keys), "a key is not an ASCII string")
    require(all(first < second for first, second in pairwise(keys)), "keys do not ascend")
    return dict(pairs)


def _require_plain(value: Any) -> None:
    match value:
        case bool() | None | str() | bytes():
            return
        case int():
            require(abs(value) <= MAX_INTEGER, "an integer beyond 2^53-1")
        case list():
            for one in value:
                _require_plain(one)
        case dict():
            for one in value.values():
                _require_plain(one)
        case _:
            require(False, f"a value of type {type(value).__name__}")


def is_pair(raw: bytes) -> bool:
    """Tell whether the bytes are the canonical form of ``{left: integer, right: text}``."""
    try:
        value = decode_canonical(raw)
    except (Wrong, ValueError, msgpack.UnpackException):
        return False
    return (
        isinstance(value, dict)
        and list(value) == ["left", "right"]
        and type(value["left"]) is int
        and isinstance(value["right"], str)
    )


# wire.md §2, §3: ids, keys, signatures -----------------------------------------------------------------------------


def uuid(head: bytes, tail: bytes, version: int) -> bytes:
    raw = bytearray(head + tail)
    raw[6] = raw[6] & 0x0F | version << 4
    raw[8] = raw[8] & 0x3F | 0x80
    return bytes(raw)


def object_id(entry_id: bytes, number: int) -> bytes:
    return uuid(entry_id[:6], sha256(entry_id + number.to_bytes(4, "big")).digest()[:10], 8)


def organ_id(name: str) -> bytes:
    return uuid(bytes(6), sha256(b"ecot/organ/v1\n" + name.encode()).digest()[:10], 8)


def key_id(public_key: bytes) -> bytes:
    return sha256(b"ecot/key/v1\n" + public_key).digest()[:16]


def is_signed(public_key: bytes, message: bytes, signature: bytes) -> bool:
    if len(public_key) != 33 or public_key[0] != 1 or len(signature) != 64:
        return False
    try:
        crypto_sign_open(signature + message, public_key[1:])
    except (BadSignatureError, CryptoError):
        return False
    return True


# wire.md §5: the tree of RFC 6962, verified as RFC 9162 says ------------------------------------------------------


def leaf_hash(data: bytes) -> bytes:
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


def tree_root(hashes: list[bytes]) -> bytes:
    """Return the root over leaf hashes: pairs from the left, a last one without partner moves up."""
    if not hashes:
        return sha256(b"").digest()
    while len(hashes) > 1:
        pairs = [node_hash(hashes[place], hashes[place + 1]) for place in range(0, len(hashes) - 1, 2)]
        hashes = pairs + (hashes[-1:] if len(hashes) % 2 else [])
    return hashes[0]


def is_included(index: int, size: int, leaf: bytes, proof: list[bytes], root: bytes) -> bool:
    """RFC 9162, section 2.1.3.2."""
    if index >= size:
        return False
    fn, sn, r = index, size - 1, leaf
    for p in proof:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            r = node_hash(p, r)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            r = node_hash(r, p)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and r == root


def is_consistent(old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: list[bytes]) -> bool:
    """RFC 9162, section 2.1.4.2."""
    if old_size == new_size:
        return not proof and old_root == new_root
    path = [old_root, *proof] if old_size & (old_size - 1) == 0 else list(proof)
    if not path:
        return False
    fn, sn = old_size - 1, new_size - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    fr = sr = path[0]
    for c in path[1:]:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            fr, sr = node_hash(c, fr), node_hash(c, sr)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = node_hash(sr, c)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and fr == old_root and sr == new_root


def range_root(start: int, end: int, size: int, leaves: list[bytes], proof: list[bytes]) -> bytes:
    """Return the root that the leaves [start, end) and the subtrees beside them lead to."""
    beside = iter(proof)

    def root(low: int, high: int) -> bytes:
        if high <= start or low >= end:
            return next(beside)
        if high - low == 1:
            return leaves[low - start]
        cut = low + (1 << (high - low - 1).bit_length() - 1)
        left = root(low, cut)
        return node_hash(left, root(cut, high))

    found = root(0, size)
    require(next(beside, None) is None, "a hash too many")
    return found


# The files ---------------------------------------------------------------------------------------------------------


class Wrong(Exception):
    """A vector does not hold."""


def require(holds: bool, what: str) -> None:
    if not holds:
        raise Wrong(what)


def check_encoding(vectors: dict[str, Any]) -> None:
    for case in vectors["canonical"]:
        value = bytes_of(case["bin"]) if "bin" in case else case["value"]
        require(decode_canonical(bytes_of(case["bytes"])) == value, f"{case}")
        require(msgpack.packb(value, use_bin_type=True) == bytes_of(case["bytes"]), f"{case}")
    require(is_pair(bytes_of(vectors["pair"])), "pair")
    for case in vectors["pair_refused"]:
        require(not is_pair(bytes_of(case["bytes"])), case["why"])


def check_ids(vectors: dict[str, Any]) -> None:
    for case in vectors["entries"]:
        entry_id = uuid(case["unix_ms"].to_bytes(6, "big"), bytes_of(case["random"]), 7)
        require(entry_id.hex() == case["id"], case["id"])
        for number, further in case["objects"].items():
            require(object_id(entry_id, int(number)).hex() == further, further)
    for name, organ in vectors["organs"].items():
        require(organ_id(name).hex() == organ, name)


def check_keys(vectors: dict[str, Any]) -> None:
    for case in vectors["good"]:
        public_key = bytes_of(case["public_key"])
        require(key_id(public_key).hex() == case["key_id"], "key id")
        require(is_signed(public_key, bytes_of(case["message"]), bytes_of(case["signature"])), "signature")
    for case in vectors["bad"]:
        public_key, message, signature = (bytes_of(case[name]) for name in ("public_key", "message", "signature"))
        require(not is_signed(public_key, message, signature), case["why"])


def check_statements(vectors: dict[str, Any]) -> None:
    for case in vectors["statements"]:
        raw = bytes_of(case["bytes"])
        statement = decode_canonical(raw)
        require(list(statement) == ["ledgers", "payload", "type"], "fields")
        require(statement["ledgers"] == sorted(set(statement["ledgers"])), "ledgers ascend")
        require(sha256(b"ecot/statement/v1\n" + raw).hexdigest() == case["id"], "id")
        for one in case["signatures"]:
            message = b"ecot/statement/v1\n" + raw
            require(key_id(bytes_of(one["public_key"])).hex() == one["key_id"], "key id")
            require(is_signed(bytes_of(one["public_key"]), message, bytes_of(one["signature"])), "signature")


def check_body(raw: bytes) -> dict[str, Any]:
    body: dict[str, Any] = decode_canonical(raw)
    require(list(body) == ["author", "expires_at", "id", "ledger", "payload", "type"], "fields of the body")
    require(len(body["id"]) == 16 and body["id"][6] >> 4 == 7 and body["id"][8] >> 6 == 2, "the id is a UUIDv7")
    require(body["author"] is None or len(body["author"]) == 16, "author")
    return body


def public_keys(value: Any) -> dict[bytes, bytes]:
    """Return key id -> every public key that a payload brings, wherever it stands in it."""
    match value:
        case bytes() if len(value) == 33 and value[0] == 1:
            return {key_id(value): value}
        case list():
            return {name: key for one in value for name, key in public_keys(one).items()}
        case dict():
            return public_keys(list(value.values()))
        case _:
            return {}


def check_signatures(raw: bytes, signatures: list[list[bytes]], keys: dict[bytes, bytes]) -> None:
    names = [name for name, _ in signatures]
    require(names == sorted(set(names)), "signatures ascend, each key once")
    for name, signature in signatures:
        require(name in keys, "a key that no earlier record brought")
        require(is_signed(keys[name], b"ecot/entry/v1\n" + raw, signature), "signature")


def check_entries(vectors: dict[str, Any]) -> None:
    keys: dict[bytes, bytes] = {}
    for case in vectors["entries"]:
        raw, signatures, attachments = decode_canonical(bytes_of(case["entry"]))
        body = check_body(raw)
        require(body["type"] == case["type"], "type")
        keys |= public_keys(body["payload"])
        check_signatures(raw, signatures, keys)
        held = [value for value in body["payload"].values() if isinstance(value, bytes) and len(value) == 32]
        for _class_name, salt, content in attachments:
            require(hmac.digest(salt, content, "sha256") in held, "commitment")


def check_log(vectors: dict[str, Any]) -> None:
    keys: dict[bytes, bytes] = {}
    hashes: list[bytes] = []
    latest = 0
    ids = set()
    for index, case in enumerate(vectors["records"]):
        raw = bytes_of(case["record"])
        received_at_ms, body_raw, signatures = decode_canonical(raw)
        body = check_body(body_raw)
        require(received_at_ms >= latest, "time goes back")
        latest = received_at_ms
        ledger = bytes(32) if index == 0 else bytes_of(vectors["ledger"])
        require(body["ledger"] == ledger, "ledger")
        require(index > 0 or sha256(body_raw).hexdigest() == vectors["ledger"], "ledger id")
        require(body["id"] not in ids, "an id twice")
        ids.add(body["id"])
        keys |= public_keys(body["payload"])
        check_signatures(body_raw, signatures, keys)
        leaf = sha256(b"ecot/record/v1\n" + raw).digest()
        require(leaf.hex() == case["leaf_data"], "leaf data")
        hashes.append(leaf_hash(leaf))
        require(tree_root(hashes).hex() == case["root"], "root")
    origin = f"/ecot/{vectors['ledger'][:16]}"
    require(vectors["origin"].endswith(origin), "origin")


def check_federation(vectors: dict[str, Any]) -> None:
    """Check the logs of ledgers that trade with each other: every record, and the decision log that follows from them
    (federation.md, wire.md).
    """
    for one in vectors["ledgers"]:
        hashes = []
        cases = []
        for raw in map(bytes_of, one["records"]):
            leaf = sha256(b"ecot/record/v1\n" + raw).digest()
            hashes.append(leaf_hash(leaf))
            cases.append({"record": raw.hex(), "leaf_data": leaf.hex(), "root": tree_root(hashes).hex()})
        require(cases[-1]["root"] == one["root"], "root")
        check_log({**one, "records": cases})
        bodies = [decode_canonical(decode_canonical(bytes_of(raw))[1]) for raw in one["records"]]
        decided = [body["payload"] for body in bodies if body["type"] == "federation.decide"]
        leaves = [msgpack.packb([each["tid"], int(each["outcome"] == "commit")]) for each in decided]
        require([leaf.hex() for leaf in leaves] == one["decisions"], "decisions")
        require(len({each["tid"] for each in decided}) == len(decided), "a deal is decided once")
        require(tree_root([leaf_hash(leaf) for leaf in leaves]).hex() == one["decisions_root"], "root of decisions")


def check_proofs(vectors: dict[str, Any]) -> None:
    leaves = [leaf_hash(bytes_of(one)) for one in vectors["leaf_data"]]
    for case in vectors["inclusion"]:
        proof, root = [bytes_of(one) for one in case["proof"]], bytes_of(case["root"])
        index, size = case["index"], case["size"]
        require(tree_root(leaves[:size]) == root, "root")
        require(is_included(index, size, leaves[index], proof, root), "inclusion")
        require(not is_included(index, size, leaves[index], [*proof, bytes(32)], root), "a hash too many")
        require(not is_included(index, size, leaf_hash(b""), proof, root), "another leaf")
    for case in vectors["consistency"]:
        sizes = (case["old_size"], bytes_of(case["old_root"]), case["new_size"], bytes_of(case["new_root"]))
        proof = [bytes_of(one) for one in case["proof"]]
        require(is_consistent(*sizes, proof), "consistency")
        require(not is_consistent(*sizes, [*proof, bytes(32)]), "a hash too many")
        require(not is_consistent(sizes[0], bytes(32), *sizes[2:], proof), "another old root")
    for case in vectors["range"]:
        start, end, size = case["start"], case["end"], case["size"]
        proof = [bytes_of(one) for one in case["proof"]]
        require(range_root(start, end, size, leaves[start:end], proof).hex() == case["root"], "range")


# ledger.md §6: the state digest ------------------------------------------------------------------------------------


def position(table: str, key: bytes) -> bytes:
    return sha256(b"ecot/state/key/v1\n" + table.encode() + b"\n" + key).digest()


def bit(place: bytes, depth: int) -> int:
    return place[depth // 8] >> (7 - depth % 8) & 1


def trie_root(rows: dict[bytes, bytes], depth: int = 0) -> bytes:
    """`rows` is position -> SHA-256 of the value."""
    if not rows:
        return bytes(32)
    if len(rows) == 1:
        ((place, value_hash),) = rows.items()
        return sha256(b"\x00" + place + value_hash).digest()
    sides: list[dict[bytes, bytes]] = [{}, {}]
    for place, value_hash in rows.items():
        sides[bit(place, depth)][place] = value_hash
    return sha256(b"\x01" + trie_root(sides[0], depth + 1) + trie_root(sides[1], depth + 1)).digest()


def climb(end: bytes, place: bytes, siblings: list[bytes]) -> bytes:
    for depth in range(len(siblings) - 1, -1, -1):
        pair = (siblings[depth], end) if bit(place, depth) else (end, siblings[depth])
        end = sha256(b"\x01" + pair[0] + pair[1]).digest()
    return end


def check_digest(vectors: dict[str, Any]) -> None:
    rows = {}
    for row in vectors["rows"]:
        place = position(row["table"], bytes_of(row["key"]))
        require(place.hex() == row["position"], "position")
        rows[place] = sha256(bytes_of(row["value"])).digest()
    root = bytes_of(vectors["digest"])
    require(trie_root(rows) == root, "digest")
    for case in vectors["present"]:
        place = position(case["table"], bytes_of(case["key"]))
        end = sha256(b"\x00" + place + sha256(bytes_of(case["value"])).digest()).digest()
        require(climb(end, place, [bytes_of(one) for one in case["siblings"]]) == root, "present")
    for case in vectors["absent"]:
        place, siblings = position(case["table"], bytes_of(case["key"])), [bytes_of(one) for one in case["siblings"]]
        end = bytes(32)
        if case["neighbour"]:
            other = bytes_of(case["neighbour"]["position"])
            require(other != place, "the neighbour is the row")
            shared = all(bit(other, depth) == bit(place, depth) for depth in range(len(siblings)))
            require(shared, "the neighbour stands elsewhere")
            end = sha256(b"\x00" + other + bytes_of(case["neighbour"]["value_hash"])).digest()
        require(climb(end, place, siblings) == root, "absent")


# C2SP: notes, checkpoints, cosignatures, proof files, tiles --------------------------------------------------------


def read_vkey(vkey: str) -> tuple[str, bytes, int, bytes]:
    name, number, encoded = vkey.split("+", 2)
    raw = base64.b64decode(encoded, validate=True)
    require(sha256(name.encode() + b"\n" + raw).digest()[:4].hex() == number, "vkey")
    return name, bytes_of(number), raw[0], raw[1:]


def open_note(note: str, vkeys: list[str]) -> tuple[str, set[str]]:
    """Return the text and the names whose signatures hold."""
    text, _, lines = note.rpartition("\n\n")
    text += "\n"
    signed = set()
    for line in lines.splitlines():
        dash, name, encoded = line.split(" ")
        require(dash == "\u2014", "signature line")
        raw = base64.b64decode(encoded, validate=True)
        for known, number, kind, public_key in map(read_vkey, vkeys):
            if known != name or number != raw[:4]:
                continue
            message, signature = text, raw[4:]
            if kind == 4:  # a cosignature: 8 bytes of time, then the signature
                time = int.from_bytes(signature[:8], "big")
                message, signature = f"cosignature/v1\ntime {time}\n{text}", signature[8:]
            require(is_signed(b"\x01" + public_key, message.encode(), signature), f"signature of {name}")
            signed.add(name)
    return text, signed


def check_checkpoints(vectors: dict[str, Any]) -> None:
    keys = [vectors["log_vkey"], vectors["witness_vkey"]]
    names = [key.split("+")[0] for key in keys]
    text, signed = open_note(vectors["checkpoint"], keys)
    require(signed == {names[0]}, "the log signs")
    require(open_note(vectors["cosigned"], keys) == (text, set(names)), "the witness cosigns")
    origin, size, root_64 = text.splitlines()
    root = base64.b64decode(root_64)
    require(origin == names[0], "origin")
    raw_tile = base64.b64decode(vectors["tile"])
    hashes = [raw_tile[place : place + 32] for place in range(0, len(raw_tile), 32)]
    require(len(hashes) == int(size) and tree_root(hashes) == root, "tile")
    bundle, entries = base64.b64decode(vectors["entries"]), []
    while bundle:
        length = int.from_bytes(bundle[:2], "big")
        entries.append(bundle[2 : 2 + length])
        bundle = bundle[2 + length :]
    require([leaf_hash(one) for one in entries] == hashes, "entry bundle")
    for path, kind in ((vectors["tile_path"], "0/"), (vectors["entries_path"], "entries/")):
        require(path == f"tile/{kind}000.p/{size}", "path")
    head, _, note = vectors["tlog_proof"].partition("\n\n")
    version, index, *proof = head.splitlines()
    require(version == "c2sp.org/tlog-proof@v1" and index == f"index {vectors['tlog_proof_index']}", "proof file")
    require(note == vectors["cosigned"], "checkpoint of the proof file")
    number = vectors["tlog_proof_index"]
    path = [base64.b64decode(one) for one in proof]
    require(is_included(number, int(size), hashes[number], path, root), "inclusion")


CHECKS = {
    "checkpoints.json": check_checkpoints,
    "digest.json": check_digest,
    "encoding.json": check_encoding,
    "entries.json": check_entries,
    "federation.json": check_federation,
    "ids.json": check_ids,
    "keys.json": check_keys,
    "log.json": check_log,
    "proofs.json": check_proofs,
    "statements.json": check_statements,
}


def main(folder: Path) -> int:
    for name, check in CHECKS.items():
        try:
            check(json.loads((folder / name).read_text(encoding="utf-8")))
        except (Wrong, ValueError, KeyError, msgpack.UnpackException) as error:
            print(f"{name}: WRONG: {error!r}")
            return 1
        print(f"{name}: good")
    return 0


if __name__ == "__main__":
    default = Path(__file__).resolve().parents[1] / "vectors"
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else default))
