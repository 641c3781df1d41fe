# SPDX-License-Identifier: AGPL-3.0-or-later
"""Backup and restore of real nodes: what was recorded comes back, what was erased does not, and no second history."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from node_kit import (
    APPLY_INDEX,
    FakeWitness,
    add_witness,
    application,
    copy_folder,
    init_options,
    live,
    make_founded,
    must_run,
    newest_checkpoint,
    query,
    run_node,
    serve,
)

from ecot_node.terminal import EXIT_PROBLEM, EXIT_USAGE

SECRET = b"ada SARL, 3 rue du Port"


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return live(tmp_path_factory.mktemp("lived") / "node")


@pytest.fixture
def folder(lived: Path, tmp_path: Path) -> Path:
    return copy_folder(lived, tmp_path / "node")


@pytest.fixture
def witness() -> Iterator[FakeWitness]:
    fake = FakeWitness()
    yield fake
    fake.close()


def restore(backup: Path, target: Path, keys: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return must_run("restore", str(backup), str(target), "--keys", str(keys), *options)


def post_one_more(folder: Path, name: str) -> bytes:
    """Let one more application be recorded; return the newest checkpoint."""
    with serve(folder) as node:
        node.must_post(application(node.ledger, name)[0])
    return newest_checkpoint(folder)


def test_a_backup_of_a_running_node_restores_to_the_same_ledger(folder: Path, tmp_path: Path) -> None:
    with serve(folder) as node:
        must_run("backup", str(folder), str(tmp_path / "backup"))
        assert node.ready()["mode"] == "writing"
    restore(tmp_path / "backup", tmp_path / "again", folder)
    expected = must_run("verify", str(folder), "--json").stdout
    assert must_run("verify", str(tmp_path / "again"), "--json").stdout == expected


def test_a_restored_node_writes_on_when_no_witness_saw_more(folder: Path, tmp_path: Path, witness: FakeWitness) -> None:
    add_witness(folder, witness.url)
    witness.keep(newest_checkpoint(folder))
    must_run("backup", str(folder), str(tmp_path / "backup"))
    restore(tmp_path / "backup", tmp_path / "again", folder)
    with serve(tmp_path / "again") as node:
        node.wait_for("mode", "writing")
        node.must_post(application(node.ledger, "after")[0])
    assert witness.asked > 0
    assert not (tmp_path / "again" / "restored").exists()


def test_a_restored_old_backup_serves_reads_only(folder: Path, tmp_path: Path, witness: FakeWitness) -> None:
    add_witness(folder, witness.url)
    must_run("backup", str(folder), str(tmp_path / "backup"))
    size = query(folder, "SELECT size FROM head")[0][0]
    witness.keep(post_one_more(folder, "later"))
    restore(tmp_path / "backup", tmp_path / "again", folder)
    with serve(tmp_path / "again") as node:
        assert node.wait_for("reason", "witness_ahead")["mode"] == "read_only"
        status, problem = node.post_problem(application(node.ledger, "second.history")[0])
        assert (status, problem["code"], problem["params"]) == (503, "not_writing", {"why": "witness_ahead"})
        assert node.get("/v1/ledger")[1]["size"] == size
    assert newest_checkpoint(tmp_path / "again").split(b"\n")[1] == str(size).encode()


def test_the_guard_stays_after_another_start_even_if_the_witness_is_gone(folder: Path, tmp_path: Path) -> None:
    witness = FakeWitness()
    add_witness(folder, witness.url)
    must_run("backup", str(folder), str(tmp_path / "backup"))
    witness.keep(post_one_more(folder, "later"))
    restore(tmp_path / "backup", tmp_path / "again", folder)
    with serve(tmp_path / "again") as node:
        node.wait_for("reason", "witness_ahead")
    witness.close()
    with serve(tmp_path / "again") as node:
        node.wait_for("reason", "witness_ahead")


def test_a_second_history_that_was_begun_is_found_out(folder: Path, tmp_path: Path, witness: FakeWitness) -> None:
    other = copy_folder(folder, tmp_path / "other")
    witness.keep(post_one_more(folder, "first.history"))
    for number in range(2):
        post_one_more(other, f"second.history{number}")
    add_witness(other, witness.url)
    with serve(other) as node:
        node.wait_for("reason", "witness_ahead")


def test_a_node_is_whole_again_once_the_missing_records_are_back(
    folder: Path, tmp_path: Path, witness: FakeWitness
) -> None:
    add_witness(folder, witness.url)
    must_run("backup", str(folder), str(tmp_path / "old"))
    witness.keep(post_one_more(folder, "later"))
    must_run("backup", str(folder), str(tmp_path / "new"))
    restore(tmp_path / "new", tmp_path / "again", folder)
    with serve(tmp_path / "again") as node:
        node.wait_for("mode", "writing")


def test_a_restored_node_waits_for_a_witness_that_is_away(folder: Path, tmp_path: Path) -> None:
    away = FakeWitness()
    port = int(away.url.rpartition(":")[2])
    away.close()
    add_witness(folder, away.url)
    must_run("backup", str(folder), str(tmp_path / "backup"))
    restore(tmp_path / "backup", tmp_path / "again", folder)
    with serve(tmp_path / "again") as node:
        ready = node.ready()
        assert (ready["mode"], ready["reason"]) == ("read_only", "witness_unasked")
        assert node.post_problem(application(node.ledger, "early")[0])[1]["params"] == {"why": "witness_unasked"}
        back = FakeWitness(port)
        try:
            node.wait_for("mode", "writing")
        finally:
            back.close()


def test_an_ordinary_start_does_not_wait_for_a_witness_that_is_away(folder: Path) -> None:
    away = FakeWitness()
    away.close()
    add_witness(folder, away.url)
    with serve(folder) as node:
        node.wait_for("mode", "writing")


def test_an_old_disk_put_back_without_restore_is_found_out_too(
    folder: Path, tmp_path: Path, witness: FakeWitness
) -> None:
    add_witness(folder, witness.url)
    old = copy_folder(folder, tmp_path / "old")
    witness.keep(post_one_more(folder, "later"))
    with serve(old) as node:
        node.wait_for("reason", "witness_ahead")


def test_a_witness_that_shows_a_checkpoint_which_we_did_not_sign_proves_nothing(
    folder: Path, witness: FakeWitness
) -> None:
    add_witness(folder, witness.url)
    note = newest_checkpoint(folder)
    size = note.split(b"\n")[1]
    witness.keep(note.replace(b"\n" + size + b"\n", b"\n999999\n", 1))
    with serve(folder) as node:
        node.wait_for("mode", "writing")
        assert "witness_answer_refused" in node.log()


def test_restore_applies_the_list_of_erasures(folder: Path, tmp_path: Path) -> None:
    must_run("backup", str(folder), str(tmp_path / "backup"))
    must_run("erase", str(folder), str(APPLY_INDEX))
    restore(tmp_path / "backup", tmp_path / "again", folder)
    assert [one.name for one in (tmp_path / "again").rglob("*") if one.is_file() and SECRET in one.read_bytes()] == []
    assert json.loads(must_run("status", str(tmp_path / "again"), "--json").stdout)["erasures"] == 1


def test_restore_takes_a_list_of_erasures_from_beside_the_backups(folder: Path, tmp_path: Path) -> None:
    must_run("backup", str(folder), str(tmp_path / "backup"))
    must_run("erase", str(folder), str(APPLY_INDEX))
    (folder / "erasures.jsonl").rename(tmp_path / "list.jsonl")
    restore(tmp_path / "backup", tmp_path / "again", folder, "--erasures", str(tmp_path / "list.jsonl"))
    assert query(tmp_path / "again", "SELECT count(*) FROM attachments WHERE idx = ?", APPLY_INDEX) == [(0,)]


def test_a_list_of_erasures_that_is_named_must_be_there(folder: Path, tmp_path: Path) -> None:
    must_run("backup", str(folder), str(tmp_path / "backup"))
    options = ["--keys", str(folder), "--erasures", str(tmp_path / "nowhere.jsonl")]
    done = run_node("restore", str(tmp_path / "backup"), str(tmp_path / "again"), *options)
    assert (done.returncode, (tmp_path / "again").exists()) == (EXIT_USAGE, False), done.stderr


def test_keys_of_a_restored_node_stay_readable_by_their_owner_alone(folder: Path, tmp_path: Path) -> None:
    must_run("backup", str(folder), str(tmp_path / "backup"))
    restore(tmp_path / "backup", tmp_path / "again", folder)
    assert {key.stat().st_mode & 0o777 for key in (tmp_path / "again" / "keys").iterdir()} == {0o600}
    assert (tmp_path / "again" / "keys").stat().st_mode & 0o777 == 0o700


def test_a_backup_never_takes_the_place_of_a_file(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "backup").write_text("older")
    done = run_node("backup", str(folder), str(tmp_path / "backup"))
    assert (done.returncode, (tmp_path / "backup").read_text()) == (EXIT_PROBLEM, "older")


def test_a_backup_is_readable_by_its_owner_alone(folder: Path, tmp_path: Path) -> None:
    must_run("backup", str(folder), str(tmp_path / "backup"))
    assert (tmp_path / "backup").stat().st_mode & 0o777 == 0o600


def test_a_backup_of_a_node_that_was_never_served_says_so(tmp_path: Path) -> None:
    node = make_founded(tmp_path / "node")
    done = run_node("backup", str(node), str(tmp_path / "backup"))
    assert done.returncode == EXIT_PROBLEM
    assert "log.db" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "backup").exists()


def test_a_backup_of_a_ledger_that_has_not_begun_is_not_restored(tmp_path: Path) -> None:
    node = tmp_path / "node"
    must_run("init", str(node), *init_options())
    with serve(node):
        pass
    must_run("backup", str(node), str(tmp_path / "backup"))
    done = run_node("restore", str(tmp_path / "backup"), str(tmp_path / "again"), "--keys", str(node))
    assert (done.returncode, "holds no record" in done.stderr) == (EXIT_USAGE, True)
    assert not (tmp_path / "again" / "log.db").exists()


def test_postgresql_is_backed_up_with_its_own_tool(folder: Path, tmp_path: Path) -> None:
    environment = {"ECOT_NODE_STORE__KIND": "postgres", "ECOT_NODE_STORE__URL": "postgresql://nobody@127.0.0.1:1/none"}
    done = run_node("backup", str(folder), str(tmp_path / "backup"), **environment)
    assert (done.returncode, "pg_dump" in done.stderr) == (EXIT_USAGE, True), done.stderr


@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "other"])
def test_a_damaged_backup_is_not_restored(folder: Path, tmp_path: Path, damage: str) -> None:
    backup = tmp_path / "backup"
    must_run("backup", str(folder), str(backup))
    raw = backup.read_bytes()
    middle = len(raw) // 2
    damaged = {
        "cut": raw[:middle],
        "bit": raw[:middle] + bytes([raw[middle] ^ 1]) + raw[middle + 1 :],
        "empty": b"",
        "other": b"a letter to the board",
    }
    backup.write_bytes(damaged[damage])
    done = run_node("restore", str(backup), str(tmp_path / "again"), "--keys", str(folder))
    assert done.returncode == EXIT_PROBLEM
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "again" / "log.db").exists()


def test_a_backup_is_not_unpacked_over_a_node(folder: Path, tmp_path: Path) -> None:
    must_run("backup", str(folder), str(tmp_path / "backup"))
    before = query(folder, "SELECT size FROM head")
    done = run_node("restore", str(tmp_path / "backup"), str(folder), "--keys", str(folder))
    assert (done.returncode, query(folder, "SELECT size FROM head")) == (EXIT_PROBLEM, before)


def test_restore_wants_the_keys_before_it_makes_anything(folder: Path, tmp_path: Path) -> None:
    must_run("backup", str(folder), str(tmp_path / "backup"))
    done = run_node("restore", str(tmp_path / "backup"), str(tmp_path / "again"), "--keys", str(tmp_path / "nowhere"))
    assert (done.returncode, "key_missing" in done.stderr) == (EXIT_PROBLEM, True)
    assert not (tmp_path / "again").exists()
