# SPDX-License-Identifier: AGPL-3.0-or-later
"""`ecot-node verify` names the first wrong record, whatever was changed in a copy of the log, and however cleverly."""

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from node_kit import (
    APPLY_INDEX,
    CROWD,
    PAYMENT_INDEX,
    application,
    copy_folder,
    init_options,
    live,
    make_founded,
    must_run,
    query,
    run_node,
    serve,
)

from ecot_node.ledger.verify import verify_log
from ecot_node.store.sqlite import SqliteStore
from ecot_node.terminal import EXIT_CORRUPT, EXIT_PROBLEM
from ecot_protocol.machine import Machine
from ecot_protocol.wire.encoding import encode
from ecot_protocol.wire.entry import Record, Signature, decode_record, leaf_data
from ecot_protocol.wire.merkle import leaf_hash

CROWD_INDEX = PAYMENT_INDEX + 1
LAST_OF_CROWD = PAYMENT_INDEX + CROWD


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return live(tmp_path_factory.mktemp("lived") / "node")


@pytest.fixture
def folder(lived: Path, tmp_path: Path) -> Path:
    return copy_folder(lived, tmp_path / "node")


def found_wrong(folder: Path) -> tuple[int, str]:
    """Verify; fail unless it is found corrupt; return the index and code that it names."""
    done = run_node("verify", str(folder))
    assert done.returncode == EXIT_CORRUPT, f"exit {done.returncode}: {done.stderr}"
    words = done.stderr.split()
    assert words[0] == "Record", done.stderr
    return int(words[1]), words[words.index("wrong:") + 1]


def flipped(raw: bytes, at: int) -> bytes:
    """Return the bytes with one bit changed."""
    return raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]


def flip(folder: Path, table: str, column: str, where: str, at: int = 7) -> None:
    """Change one bit of one stored value."""
    raw = bytes(query(folder, f"SELECT {column} FROM {table} WHERE {where}")[0][0])
    query(folder, f"UPDATE {table} SET {column} = ? WHERE {where}", flipped(raw, at))


def rewrite_record(folder: Path, index: int, change: Callable[[Record], Record]) -> None:
    """Change a record and its leaf hash, as one who knows the format would."""
    raw = bytes(query(folder, "SELECT record FROM records WHERE idx = ?", index)[0][0])
    record = encode(change(decode_record(raw)))
    leaf = leaf_hash(leaf_data(record))
    query(folder, "UPDATE records SET record = ?, leaf_hash = ? WHERE idx = ?", record, leaf, index)


def test_verify_counts_what_it_checked(folder: Path) -> None:
    report = json.loads(must_run("verify", str(folder), "--json").stdout)
    size = query(folder, "SELECT size FROM head")[0][0]
    assert (report["size"], report["signatures"]) == (size, size)
    assert report["attachments"] == CROWD + 2
    assert report["seals"] == size - CROWD - 4


def test_workers_find_what_one_process_finds(folder: Path) -> None:
    alone = must_run("verify", str(folder), "--json", "--workers", "0").stdout
    assert must_run("verify", str(folder), "--json", "--workers", "2").stdout == alone


def test_verify_of_a_node_that_was_never_served_says_so(tmp_path: Path) -> None:
    node = make_founded(tmp_path / "node")
    done = run_node("verify", str(node))
    assert done.returncode == EXIT_PROBLEM
    assert "log.db" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (node / "log.db").exists()


def test_verify_of_a_log_without_records_holds(tmp_path: Path) -> None:
    node = tmp_path / "node"
    must_run("init", str(node), *init_options())
    with serve(node):
        pass  # the board has not signed: the log is made, and stays empty
    assert json.loads(must_run("verify", str(node), "--json").stdout)["size"] == 0


@pytest.mark.parametrize("index", [0, APPLY_INDEX, CROWD_INDEX + 255, LAST_OF_CROWD])
@pytest.mark.parametrize("column", ["record", "leaf_hash"])
def test_a_changed_bit_of_a_record_or_its_hash_is_named(folder: Path, column: str, index: int) -> None:
    flip(folder, "records", column, f"idx = {index}")
    assert found_wrong(folder) == (index, "leaf_mismatch")


def test_the_first_of_two_wrong_records_is_named(folder: Path) -> None:
    flip(folder, "records", "record", f"idx = {CROWD_INDEX + 9}")
    flip(folder, "records", "record", f"idx = {CROWD_INDEX + 3}")
    assert found_wrong(folder) == (CROWD_INDEX + 3, "leaf_mismatch")


def test_a_byte_changed_in_the_file_itself_is_named(folder: Path) -> None:
    record = bytes(query(folder, "SELECT record FROM records WHERE idx = ?", CROWD_INDEX)[0][0])
    path = folder / "log.db"
    raw = path.read_bytes()
    assert raw.count(record) == 1, "the record is stored once, in one piece"
    path.write_bytes(flipped(raw, raw.index(record) + 20))
    assert found_wrong(folder) == (CROWD_INDEX, "leaf_mismatch")


def test_a_forged_signature_with_a_matching_leaf_is_named(folder: Path) -> None:
    def forge(record: Record) -> Record:
        first, *others = record.signatures
        bad = Signature(first.key_id, flipped(first.signature, 3))
        return Record(record.received_at_ms, record.body, (bad, *others))

    rewrite_record(folder, APPLY_INDEX, forge)
    assert found_wrong(folder) == (APPLY_INDEX, "bad_signature")


def test_a_signature_that_was_taken_away_is_named(folder: Path) -> None:
    rewrite_record(folder, PAYMENT_INDEX, lambda record: Record(record.received_at_ms, record.body, ()))
    assert found_wrong(folder) == (PAYMENT_INDEX, "signature_missing")


def test_a_record_made_earlier_than_the_one_before_is_named(folder: Path) -> None:
    before = query(folder, "SELECT received_at_ms FROM records WHERE idx = ?", PAYMENT_INDEX - 1)[0][0] - 1
    rewrite_record(folder, PAYMENT_INDEX, lambda record: Record(before, record.body, record.signatures))
    query(folder, "UPDATE records SET received_at_ms = ? WHERE idx = ?", before, PAYMENT_INDEX)
    assert found_wrong(folder) == (PAYMENT_INDEX, "time_went_back")


def test_a_time_that_was_moved_without_breaking_a_rule_shows_in_the_root(folder: Path) -> None:
    size = query(folder, "SELECT size FROM head")[0][0]
    last = query(folder, "SELECT received_at_ms FROM records WHERE idx = ?", size - 1)[0][0] + 1
    rewrite_record(folder, size - 1, lambda record: Record(last, record.body, record.signatures))
    query(folder, "UPDATE records SET received_at_ms = ? WHERE idx = ?", last, size - 1)
    index, code = found_wrong(folder)
    assert (index, code) == (size - 1, "checkpoint_mismatch")


@pytest.mark.parametrize("column", ["entry_id", "received_at_ms"])
def test_what_stands_beside_a_record_must_be_the_records(folder: Path, column: str) -> None:
    value = b"\x01" * 16 if column == "entry_id" else 7
    query(folder, f"UPDATE records SET {column} = ? WHERE idx = ?", value, CROWD_INDEX)
    assert found_wrong(folder) == (CROWD_INDEX, "row_mismatch")


@pytest.mark.parametrize("column", ["content", "salt"])
def test_a_changed_attachment_is_named(folder: Path, column: str) -> None:
    flip(folder, "attachments", column, f"idx = {PAYMENT_INDEX}")
    assert found_wrong(folder) == (PAYMENT_INDEX, "attachment_mismatch")


def test_an_attachment_that_belongs_to_no_commitment_is_named(folder: Path) -> None:
    query(folder, "INSERT INTO attachments VALUES (?, 1, 'identity', ?, ?)", PAYMENT_INDEX, bytes(32), b"more")
    assert found_wrong(folder) == (PAYMENT_INDEX, "attachment_mismatch")


def test_a_record_that_is_gone_from_the_middle_is_named(folder: Path) -> None:
    query(folder, "DELETE FROM records WHERE idx = ?", CROWD_INDEX)
    assert found_wrong(folder) == (CROWD_INDEX, "record_missing")


def test_a_record_that_is_gone_from_the_end_is_named(folder: Path) -> None:
    size = query(folder, "SELECT size FROM head")[0][0]
    query(folder, "DELETE FROM records WHERE idx = ?", size - 1)
    assert found_wrong(folder) == (size - 1, "record_missing")


def test_a_log_cut_short_with_its_size_does_not_pass(folder: Path) -> None:
    size = query(folder, "SELECT size FROM head")[0][0]
    query(folder, "DELETE FROM records WHERE idx = ?", size - 1)
    query(folder, "UPDATE head SET size = ?", size - 1)
    assert found_wrong(folder) == (size - 2, "checkpoint_mismatch")


def test_a_changed_checkpoint_is_named(folder: Path) -> None:
    size = query(folder, "SELECT size FROM head")[0][0]
    note = bytes(query(folder, "SELECT note FROM head")[0][0])
    query(folder, "UPDATE head SET note = ?", note[:-3] + (b"AA=" if note[-5:-2] != b"AA=" else b"BB="))
    assert found_wrong(folder)[0] == size - 1


@pytest.mark.parametrize(("at", "index"), [(0, 0), (32 * 200 + 5, 200), (256 * 32 - 1, 255)])
def test_a_changed_tile_of_the_public_tree_is_named(folder: Path, at: int, index: int) -> None:
    flip(folder, "tiles", "hashes", "level = 0 AND idx = 0", at)
    assert found_wrong(folder) == (index, "tile_mismatch")


def test_a_changed_hash_on_the_edge_of_the_tree_is_named(folder: Path) -> None:
    flip(folder, "edges", "hashes", "level = 1")
    assert found_wrong(folder) == (0, "tile_mismatch")


def test_a_damaged_database_gives_a_message_and_no_traceback(folder: Path) -> None:
    path = folder / "log.db"
    raw = path.read_bytes()
    pages = len(raw) // 4096
    for page in range(0, pages, max(pages // 8, 1)):
        path.write_bytes(raw[: page * 4096] + b"\xaa" * 64 + raw[page * 4096 + 64 :])
        done = run_node("verify", str(folder))
        assert done.returncode in {0, EXIT_CORRUPT, EXIT_PROBLEM}, f"page {page}: {done.stderr}"
        assert "Traceback" not in done.stderr, f"page {page}: {done.stderr}"


async def test_records_that_come_in_while_it_verifies_are_left_aside(folder: Path) -> None:
    store = SqliteStore(folder)
    opened = await store.open(ledger=None, read_only=True)
    try:
        with serve(folder) as node:
            node.must_post(application(node.ledger, "meanwhile")[0])
            assert node.get("/v1/ledger")[1]["size"] > opened.size
        assert (await verify_log(store, opened, Machine())).size == opened.size
    finally:
        await store.close()


def test_a_node_that_runs_and_takes_entries_can_be_verified(folder: Path) -> None:
    with serve(folder) as node:
        stop = threading.Event()

        def keep_posting() -> None:
            for number in range(120):
                if stop.is_set():
                    return
                node.must_post(*(application(node.ledger, f"more{number}x{each}")[0] for each in range(5)))

        posting = threading.Thread(target=keep_posting)
        posting.start()
        try:
            reports = [json.loads(must_run("verify", str(folder), "--json").stdout) for _ in range(3)]
        finally:
            stop.set()
            posting.join(120)
    sizes = [report["size"] for report in reports]
    assert sizes == sorted(sizes)
    assert sizes[-1] > LAST_OF_CROWD
