# SPDX-License-Identifier: AGPL-3.0-or-later
"""`ecot-node` as an operator meets it: real processes, exit codes, and what they say when something is wrong."""

import json
import os
import subprocess
import urllib.error
from collections.abc import Iterator
from pathlib import Path

import pytest
from node_kit import (
    ADMIT_INDEX,
    APPLY_INDEX,
    BOARD_KEY,
    PAYMENT_INDEX,
    application,
    copy_folder,
    init_options,
    ledger_of,
    live,
    make_founded,
    must_run,
    query,
    run_node,
    serve,
)

from ecot_node.store import schema
from ecot_node.store.backup import BackupDamaged
from ecot_node.store.errors import StoreError
from ecot_node.terminal import _CAMEL, EXIT_IN_USE, EXIT_PROBLEM, EXIT_USAGE, shown
from ecot_protocol.locale import translate
from ecot_protocol.wire.cosignature import ml_dsa_public_key

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return live(tmp_path_factory.mktemp("lived") / "node")


@pytest.fixture
def folder(lived: Path, tmp_path: Path) -> Path:
    """A node of its own for a test, with history; it does not run."""
    return copy_folder(lived, tmp_path / "node")


def words(done: subprocess.CompletedProcess[str]) -> str:
    """Return what was said, whatever the width of the terminal, and fail on a traceback."""
    assert "Traceback" not in done.stderr, done.stderr
    return " ".join(done.stderr.split())


# --- init -----------------------------------------------------------------------------------------------------------


def test_init_makes_keys_that_nobody_else_can_read(tmp_path: Path) -> None:
    must_run("init", str(tmp_path / "node"), *init_options())
    keys = sorted((tmp_path / "node" / "keys").iterdir())
    further = ["cosigner_ml_dsa_44.seed"] if ml_dsa_public_key(bytes(32)) is not None else []
    assert [key.name for key in keys] == ["agent.seed", "cosigner.seed", *further, "host.seed", "log.seed"]
    assert {key.stat().st_mode & 0o777 for key in keys} == {0o600}


def test_init_refuses_a_folder_that_holds_something(tmp_path: Path) -> None:
    (tmp_path / "photos.txt").write_text("mine")
    done = run_node("init", str(tmp_path), *init_options())
    assert (done.returncode, [one.name for one in tmp_path.iterdir()]) == (EXIT_USAGE, ["photos.txt"])
    assert "is not empty" in words(done)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("board", "claire", "expected HANDLE=PUBLIC_KEY"),
        ("board", f"claire={'00' * 33}", "expected HANDLE=PUBLIC_KEY"),
        ("board", f"claire=01{'zz' * 32}", "expected HANDLE=PUBLIC_KEY"),
        ("board", f"={BOARD_KEY.public_key.hex()}", "expected HANDLE=PUBLIC_KEY"),
        ("board", f"claire={BOARD_KEY.public_key.hex()}:treasurer", "expected 1..0"),
        ("threshold", "2", "expected 1..1"),
        ("threshold", "0", "expected 1..1"),
        ("template", "bakery", "expected one of barter, collective, culture"),
        ("statutes", "/nowhere/statutes.json", "/nowhere/statutes.json"),
        ("domain", "not a domain", "domain"),
        ("domain", "", "domain"),
    ],
)
def test_init_says_which_option_is_wrong_and_makes_nothing(tmp_path: Path, option: str, value: str, said: str) -> None:
    done = run_node("init", str(tmp_path / "node"), *init_options(**{option: value}))
    assert (done.returncode, (tmp_path / "node").exists()) == (EXIT_USAGE, False), done.stderr
    assert said in words(done)


def test_init_refuses_two_founders_of_one_name(tmp_path: Path) -> None:
    board = f"claire={BOARD_KEY.public_key.hex()}"
    done = run_node("init", str(tmp_path / "node"), *init_options(), "--board", board)
    assert (done.returncode, (tmp_path / "node").exists()) == (EXIT_USAGE, False), done.stderr


def test_a_node_speaks_french_to_a_french_operator(tmp_path: Path) -> None:
    done = must_run("init", str(tmp_path / "node"), *init_options(), LC_ALL="fr_FR.UTF-8")
    assert "La genèse attend les signatures du conseil" in words(done)


# --- found ----------------------------------------------------------------------------------------------------------


def test_found_refuses_a_copy_of_another_draft(tmp_path: Path) -> None:
    node = make_founded(tmp_path / "node")
    make_founded(tmp_path / "other", domain="other.example")
    before = (node / "genesis.draft").read_bytes()
    done = run_node("found", str(node), str(tmp_path / "other.signed"))
    assert (done.returncode, (node / "genesis.draft").read_bytes()) == (EXIT_USAGE, before)
    assert "another draft" in words(done)


def test_found_refuses_a_file_that_is_no_draft(tmp_path: Path) -> None:
    node = make_founded(tmp_path / "node")
    (tmp_path / "letter").write_text("Dear board")
    done = run_node("found", str(node), str(tmp_path / "letter"))
    assert done.returncode == EXIT_PROBLEM
    words(done)


def test_a_node_waits_as_a_draft_until_the_board_has_signed(tmp_path: Path) -> None:
    must_run("init", str(tmp_path / "node"), *init_options())
    with serve(tmp_path / "node") as node:
        assert node.ready()["mode"] == "draft"
        assert node.get("/v1/ledger")[1]["size"] == 0


def test_the_genesis_is_recorded_by_the_first_serve_after_found(tmp_path: Path) -> None:
    with serve(make_founded(tmp_path / "node")) as node:
        ledger = node.get("/v1/ledger")[1]
    assert (ledger["ledger"], ledger["size"], ledger["mode"]) == (node.ledger.hex(), 1, "writing")


# --- serve ----------------------------------------------------------------------------------------------------------


def test_a_node_that_is_told_to_stop_exits_with_zero(folder: Path) -> None:
    with serve(folder) as node:
        assert node.stop() == 0


def test_a_second_node_in_a_folder_says_who_holds_it(folder: Path) -> None:
    with serve(folder) as node:
        done = run_node("serve", str(folder))
        assert done.returncode == EXIT_IN_USE
        assert f"in use by process {node.process.pid}" in words(done)
        assert node.ready()["mode"] == "writing"


@pytest.mark.parametrize("command", [("rebuild-views",), ("erase", str(APPLY_INDEX))])
def test_what_writes_is_refused_while_the_node_runs(folder: Path, command: tuple[str, ...]) -> None:
    with serve(folder):
        done = run_node(command[0], str(folder), *command[1:])
    assert (done.returncode, "is in use" in words(done)) == (EXIT_IN_USE, True)


def test_serve_names_the_key_that_is_missing(folder: Path) -> None:
    (folder / "keys" / "log.seed").unlink()
    done = run_node("serve", str(folder))
    assert done.returncode == EXIT_PROBLEM
    assert "key_missing" in words(done)
    assert "keys/log.seed" in words(done)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_serve_refuses_a_key_that_others_can_read(folder: Path, mode: int) -> None:
    (folder / "keys" / "agent.seed").chmod(mode)
    done = run_node("serve", str(folder))
    assert done.returncode == EXIT_PROBLEM
    assert "key_readable_by_others" in words(done)
    assert "chmod 600" in words(done)


def test_serve_refuses_a_key_that_is_cut_short(folder: Path) -> None:
    (folder / "keys" / "agent.seed").write_text("abcd\n")
    done = run_node("serve", str(folder))
    assert (done.returncode, "key_malformed" in words(done)) == (EXIT_PROBLEM, True)


def test_serve_refuses_a_store_of_a_newer_schema_and_leaves_it_alone(folder: Path) -> None:
    query(folder, "UPDATE alembic_version SET version_num = ?", f"{schema.SCHEMA_VERSION + 1:04d}")
    before = query(folder, "SELECT epoch, size FROM head")
    done = run_node("serve", str(folder))
    assert done.returncode == EXIT_PROBLEM
    assert "install a newer release" in words(done)
    assert query(folder, "SELECT epoch, size FROM head") == before


def test_serve_refuses_the_log_of_another_ledger(folder: Path, tmp_path: Path) -> None:
    other = make_founded(tmp_path / "other", domain="other.example")
    (other / "log.db").write_bytes((folder / "log.db").read_bytes())
    done = run_node("serve", str(other))
    assert done.returncode == EXIT_PROBLEM
    assert ledger_of(folder).hex() in words(done)
    assert ledger_of(other).hex() in words(done)


def test_serve_says_that_its_port_is_taken(folder: Path, tmp_path: Path) -> None:
    with serve(folder) as node:
        port = node.url.rpartition(":")[2]
        done = run_node("serve", str(make_founded(tmp_path / "other")), ECOT_NODE_HTTP__PORT=port)
    assert done.returncode == EXIT_PROBLEM
    assert "address already in use" in words(done)


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("ECOT_NODE_HTTP__PORT", "70000", "http.port"),
        ("ECOT_NODE_LEDGER__SEAL_INTERVAL_S", "0", "ledger.seal_interval_s"),
        ("ECOT_NODE_STORE__KIND", "oracle", "store.kind"),
        ("ECOT_NODE_STORE__KIND", "postgres", "store.url"),
        ("ECOT_NODE_HTTP__COLOUR", "blue", "http.colour"),
        ("ECOT_NODE_HTTP__TRUSTED_PROXIES", '["not a network"]', "trusted_proxies"),
    ],
)
def test_serve_names_the_setting_that_is_wrong(folder: Path, variable: str, value: str, said: str) -> None:
    done = run_node("serve", str(folder), **{variable: value})
    assert done.returncode == EXIT_USAGE, done.stderr
    assert said in words(done)


def test_serve_names_the_line_of_node_toml_that_is_wrong(folder: Path) -> None:
    (folder / "node.toml").write_text("[http\nport = 1\n")
    done = run_node("serve", str(folder))
    assert done.returncode == EXIT_USAGE
    assert "line 1" in words(done)


@pytest.mark.parametrize("command", ["serve", "verify", "status", "rebuild-views"])
def test_a_folder_without_a_node_is_told_to_init_first(tmp_path: Path, command: str) -> None:
    done = run_node(command, str(tmp_path))
    assert done.returncode == EXIT_USAGE
    assert "ecot-node init" in words(done)
    assert list(tmp_path.iterdir()) == []


def test_entries_per_minute_of_the_settings_limit_one_address(folder: Path) -> None:
    with serve(folder, ECOT_NODE_HTTP__ENTRIES_PER_MINUTE="1") as node:
        node.must_post(application(node.ledger, "first")[0])
        status, problem = node.post_problem(application(node.ledger, "second")[0])
    assert (status, problem["code"]) == (429, "rate_limited")


# --- status, views --------------------------------------------------------------------------------------------------


def test_status_tells_whether_the_node_runs(folder: Path) -> None:
    with serve(folder):
        running = json.loads(must_run("status", str(folder), "--json").stdout)
    stopped = json.loads(must_run("status", str(folder), "--json").stdout)
    assert (running["running"], stopped["running"]) == (True, False)
    assert running["ledger"] == ledger_of(folder).hex()
    assert running["size"] == query(folder, "SELECT size FROM head")[0][0]


def test_status_prints_the_checkpoint_as_it_is_signed(folder: Path) -> None:
    note = bytes(query(folder, "SELECT note FROM head")[0][0]).decode()
    assert note in must_run("status", str(folder)).stdout


def dump_views(folder: Path) -> list[tuple[object, ...]]:
    """Return every row of every table of the views."""
    tables = [row[0] for row in query(folder, "SELECT name FROM sqlite_master WHERE type = 'table'", file="views.db")]
    rows = []
    for table in sorted(tables):
        rows += [(table, *map(str, row)) for row in query(folder, f'SELECT * FROM "{table}"', file="views.db")]
    return sorted(rows)


def test_views_that_are_rebuilt_hold_the_same_rows(folder: Path) -> None:
    with serve(folder):
        pass  # views that the node filled itself, up to the last record
    before = dump_views(folder)
    must_run("rebuild-views", str(folder))
    assert any(row[0] == "members" for row in before)
    assert dump_views(folder) == before


def test_views_that_were_lost_are_made_again_by_the_next_start(folder: Path) -> None:
    before = dump_views(folder)
    for path in folder.glob("views.db*"):
        path.unlink()
    size = query(folder, "SELECT size FROM head")[0][0]
    with serve(folder) as node:
        node.wait_for("views_size", size)
    assert [row for row in dump_views(folder) if row[0] == "members"] == [row for row in before if row[0] == "members"]


# --- erase ----------------------------------------------------------------------------------------------------------


def test_a_log_still_verifies_after_an_erasure(folder: Path) -> None:
    before = json.loads(must_run("verify", str(folder), "--json").stdout)
    must_run("erase", str(folder), str(APPLY_INDEX))
    after = json.loads(must_run("verify", str(folder), "--json").stdout)
    assert (after["root"], after["digest"]) == (before["root"], before["digest"])
    assert after["attachments"] == before["attachments"] - 1


def test_what_was_erased_is_nowhere_in_the_folder(folder: Path) -> None:
    secret = b"ada SARL, 3 rue du Port"
    assert any(secret in path.read_bytes() for path in folder.rglob("*") if path.is_file())
    must_run("erase", str(folder), str(APPLY_INDEX))
    assert [path.name for path in folder.rglob("*") if path.is_file() and secret in path.read_bytes()] == []


def test_erase_refuses_what_the_law_asks_to_keep(folder: Path) -> None:
    done = run_node("erase", str(folder), str(PAYMENT_INDEX))
    assert done.returncode == EXIT_USAGE
    assert "kept for accounting" in words(done)
    assert query(folder, "SELECT count(*) FROM attachments WHERE idx = ?", PAYMENT_INDEX) == [(1,)]


def test_erase_does_what_it_refused_when_it_is_forced(folder: Path) -> None:
    must_run("erase", str(folder), str(PAYMENT_INDEX), "--force")
    assert query(folder, "SELECT count(*) FROM attachments WHERE idx = ?", PAYMENT_INDEX) == [(0,)]


def test_erase_lists_what_it_erased_for_the_backups(folder: Path) -> None:
    must_run("erase", str(folder), str(APPLY_INDEX), "--ground", "request")
    lines = (folder / "erasures.jsonl").read_text().splitlines()
    listed = [json.loads(line) for line in lines]
    assert [(one["index"], one["position"], one["ground"]) for one in listed] == [(APPLY_INDEX, 0, "request")]


def test_erase_says_that_a_record_does_not_exist(folder: Path) -> None:
    done = run_node("erase", str(folder), "999999")
    assert (done.returncode, "does not exist" in words(done)) == (EXIT_USAGE, True)


def test_erasing_a_record_without_attachments_erases_nothing(folder: Path) -> None:
    done = must_run("erase", str(folder), str(ADMIT_INDEX))
    assert words(done).startswith("0 attachment")


# --- a full disk ----------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB, which only root may mount."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a small file system can't be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_stops_the_node_and_loses_nothing_acknowledged(small_disk: Path) -> None:
    folder = make_founded(small_disk / "node")
    acknowledged: set[int] = set()
    with serve(folder, ECOT_NODE_LOG__LEVEL="warning") as node:
        ballast = small_disk / "ballast"
        left = os.statvfs(small_disk)
        with ballast.open("wb") as file:
            file.write(bytes(left.f_bavail * left.f_frsize - 600_000))
        for number in range(40):
            entries = [application(node.ledger, f"a{number}x{each}")[0] for each in range(50)]
            if node.ready().get("mode") != "writing":
                break
            try:
                outcomes = node.post(*entries)
            except urllib.error.HTTPError as error:  # the disk was full between the two questions
                assert error.code == 503  # noqa: PT017
                break
            acknowledged |= {one.index for one in outcomes if hasattr(one, "index")}
        status, problem = node.post_problem(application(node.ledger, "late")[0])
        assert (status, problem["code"], problem["params"]["why"]) == (503, "not_writing", "store_full")
        assert node.get("/readyz")[0] == 503
        ballast.unlink()
    assert acknowledged
    with serve(folder) as node:
        assert node.get("/v1/ledger")[1]["size"] >= max(acknowledged) + 1
        node.must_post(application(node.ledger, "after")[0])
    must_run("verify", str(folder))


def test_every_error_of_a_store_has_its_text_in_both_languages() -> None:
    def below(kind: type[Exception]) -> list[type[Exception]]:
        return [one for sub in kind.__subclasses__() for one in (sub, *below(sub))]

    kinds = [one for one in below(StoreError) if one.__module__.startswith("ecot_node")]
    assert BackupDamaged in kinds
    for kind in kinds:
        code = _CAMEL.sub("_", kind.__name__).lower()
        texts = {translate(f"node.error_{code}", language) for language in ("fr", "en")}
        assert len(texts) == 2, code
        assert f"`{code}`" in (REPOSITORY / "docs/operating/README.md").read_text(), code


def test_the_status_is_told_in_the_operators_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "fr_FR.UTF-8")
    assert [shown(one) for one in (True, False, None, [], ["nord", "sud"], 7)] == [
        "oui", "non", "aucun", "aucun", "nord, sud", "7",
    ]  # fmt: skip
