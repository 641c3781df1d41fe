# SPDX-License-Identifier: AGPL-3.0-or-later
"""Texts, exit codes and documentation of `ecot`: nothing is missing, in either language."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import ecot_cli
import ecot_client
from ecot_cli.__main__ import find_locale
from ecot_cli.amounts import format_amount, parse_amount, parse_day
from ecot_cli.app import COMMANDS, make_app
from ecot_cli.commands.catalogue import read_use
from ecot_cli.commands.governance import parse_rate
from ecot_cli.errors import ExitCode, UsageProblem, exit_code_of
from ecot_client.errors import (
    ClientError,
    JournalProblem,
    KeyProblem,
    LedgerChanged,
    NodeProblem,
    NodeRewrotePast,
    NodeUnreachable,
    NotRecorded,
    ProofFailed,
)
from ecot_client.key_file import LIGHT, KeyFile
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.locale import load_catalogue

CLI = Path(ecot_cli.__file__).parent
CLIENT = Path(ecot_client.__file__).parent
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "command-line.md"
SOURCES = [*CLI.glob("*.py"), *(CLI / "commands").glob("*.py"), *CLIENT.glob("*.py")]
ERRORS = {
    "UsageProblem",
    "KeyProblem",
    "JournalProblem",
    "NodeUnreachable",
    "NotRecorded",
    "ProofFailed",
    "LedgerChanged",
}
CODES_OF_TABLES = {
    "account": ["barter", "claims"],
    "choice": ["abstain", "against", "agree", "for", "object"],
    "kind": ["body", "firm", "person"],
    "movement": ["issue", "redemption"],
    "office": ["board", "treasurer"],
    "peer": ["active", "ended", "suspended"],
    "health": ["differs", "ended", "good", "suspended", "unknown", "unreachable", "unwitnessed"],
    "contact": ["never"],
    "proposal": ["accepted", "open", "recorded", "refused"],
    "direction": ["ours", "theirs"],
    "incident": ["acknowledged", "closed", "explained", "open"],
    "incident_kind": ["deal_opposed", "deal_unheard", "mirror_differs"],
    "difference": ["amount_differs", "missing_here", "missing_there", "opposed"],
    "shared": ["catalogue", "clearing", "directory", "guide", "market", "transit"],
    "period": ["closed", "open"],
    "poll": ["closed", "open"],
    "poll_kind": ["consent", "single_choice"],
    "purpose": ["daily", "recovery"],
    "say": [
        "checking_leaves",
        "checking_records",
        "draft_recorded",
        "draft_refused",
        "draft_unknown",
        "draft_waiting",
        "the_cooperative",
    ],
    "picture": [
        "as_of",
        "incidents",
        "legend_known",
        "legend_they_owe",
        "legend_we_owe",
        "no_limit",
        "nobody",
        "nothing_owed",
        "partner_said",
        "room_in",
        "room_out",
        "they_owe",
        "title",
        "total_owed",
        "total_owing",
        "we_owe",
    ],
    "role": ["payee", "payer"],
    "scope": ["catalogue", "owner", "subscribe", "trade", "use", "vote"],
    "status": ["admitted", "applied", "excluded", "left"],
    "subscription": ["cancelled", "issued", "subscribed"],
    "trade": ["accepted", "confirmed", "lapsed", "proposed", "refused", "reversed"],
    "transfer": ["abort", "commit", "doubtful", "pending"],
    "work_kind": ["book", "comic", "game", "music"],
}


def calls() -> list[tuple[str, ast.Call]]:
    """Return (name of what is called, call) of every call in the clients' code."""
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                found.append((ast.unparse(node.func).rsplit(".", maxsplit=1)[-1], node))
    return found


def words_in(*nodes: ast.AST) -> set[str]:
    """Return the literal strings within; parts of f-strings are no keys."""
    skipped = {
        id(part) for node in nodes for one in ast.walk(node) if isinstance(one, ast.JoinedStr) for part in ast.walk(one)
    }
    return {
        one.value
        for node in nodes
        for one in ast.walk(node)
        if isinstance(one, ast.Constant) and isinstance(one.value, str) and id(one) not in skipped
    }


def columns_assigned() -> list[ast.AST]:
    """Return the values of every variable called `columns`: tables whose columns are chosen."""
    return [
        node.value
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "columns"
    ]


def keys_used() -> set[str]:
    """Return every key of ``cli.`` that the code asks for by a literal name."""
    keys = {"cli.help.ecot", *(command.help_key for command in COMMANDS)}
    keys |= {"cli.help." + command.path.split(" ")[0] for command in COMMANDS}
    keys |= {f"cli.{group}.{code}" for group, codes in CODES_OF_TABLES.items() for code in codes}
    keys |= {f"cli.column.{word.rstrip('>')}" for value in columns_assigned() for word in words_in(value)}
    for name, call in calls():
        if name == "argument" and call.args:
            keys |= {f"cli.option.{word}" for word in words_in(call.args[0])}
        elif name == "option" and len(call.args) > 1:
            keys |= {f"cli.option.{word}" for word in words_in(call.args[1])}
        elif name == "table":
            keys |= {f"cli.column.{word.rstrip('>')}" for word in words_in(call.args[0])}
        elif name in ("say", "note"):
            keys |= {f"cli.say.{word}" for word in words_in(call.args[0])}
        elif name == "show_done" and len(call.args) > 2:
            keys |= {f"cli.say.{word}" for word in words_in(call.args[2])}
    return keys


@pytest.mark.parametrize("language", ["en", "fr"])
def test_every_text_of_the_commands_is_there(language: str) -> None:
    used = keys_used()
    assert len(used) > 200
    texts = load_catalogue(language)
    demo = {key for key in used if ".demo" in key}
    assert sorted(key for key in used - demo if key not in texts) == []


@pytest.mark.parametrize("language", ["en", "fr"])
def test_every_error_of_the_clients_has_a_text(language: str) -> None:
    texts = load_catalogue(language)
    codes = {
        str(call.args[0].value)
        for name, call in calls()
        if name in ERRORS and call.args and isinstance(call.args[0], ast.Constant)
    }
    assert {"passphrase_wrong", "ledger_changed", "amount_malformed"} <= codes
    codes.add("node_rewrote_past")
    assert sorted(one for one in codes if f"cli.error.{one}" not in texts and f"reason.{one}" not in texts) == []


def test_french_is_not_english() -> None:
    english, french = load_catalogue("en"), load_catalogue("fr")
    same_by_right = {"cli.column.commission", "cli.column.day", "cli.column.question", "cli.column.score"}
    same_by_right |= {"cli.shared.catalogue", "cli.shared.guide", "cli.shared.transit"}
    copied = {key for key in keys_used() if english.get(key) == french.get(key)} - same_by_right
    assert copied <= {"cli.column.euro"}


def test_french_has_its_own_spaces() -> None:
    wrong = [
        key for key, text in load_catalogue("fr").items() if key.startswith("cli.") and re.search(r" [;:!?]", text)
    ]
    assert wrong == []


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.path)
def test_every_command_is_documented_and_takes_json(command: object) -> None:
    path = str(getattr(command, "path"))  # noqa: B009
    assert f"`ecot {path}" in PAGE.read_text(encoding="utf-8")
    shown = CliRunner().invoke(make_app("fr"), [*path.split(" "), "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    assert "--json" in shown.output
    assert "cli." not in shown.output, "a text is missing"


def test_every_exit_code_is_documented() -> None:
    rows = re.findall(r"^\| (\d+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert [int(row) for row in rows] == [int(code) for code in ExitCode]


def _problem(status: int) -> NodeProblem:
    problem = NodeProblem("not_writing")
    problem.status = status
    return problem


ENDS = [
    (NotRecorded("credit_limit_exceeded"), ExitCode.REFUSED),
    (NotRecorded("outcome_unknown"), ExitCode.UNREACHABLE),
    (_problem(403), ExitCode.REFUSED),
    (_problem(503), ExitCode.UNREACHABLE),
    (_problem(429), ExitCode.UNREACHABLE),
    (UsageProblem("amount_malformed"), ExitCode.USAGE),
    (NodeUnreachable("node_unreachable"), ExitCode.UNREACHABLE),
    (ProofFailed("root_wrong"), ExitCode.PROOF_FAILED),
    (LedgerChanged("ledger_changed"), ExitCode.PROOF_FAILED),
    (NodeRewrotePast("", "", Path("evidence.json")), ExitCode.PROOF_FAILED),
    (RemoteProtocolError("note_malformed"), ExitCode.PROOF_FAILED),
    (KeyProblem("passphrase_wrong"), ExitCode.KEY_PROBLEM),
    (JournalProblem("journal_unusable"), ExitCode.STATE_PROBLEM),
    (OSError(), ExitCode.STATE_PROBLEM),
    (KeyboardInterrupt(), ExitCode.INTERRUPTED),
]


@pytest.mark.parametrize(("error", "code"), ENDS, ids=lambda one: repr(one)[:40])
def test_an_error_leads_to_its_exit_code(error: BaseException, code: ExitCode) -> None:
    assert exit_code_of(error) is code


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    keys = KeyFile.create(tmp_path / "default" / "keys", "secret", cost=LIGHT)
    keys.make("phone", "daily", now_ms=1)
    return {
        "ECOT_HOME": str(tmp_path),
        "ECOT_PASSPHRASE": "secret",
        "COLUMNS": "200",
        "ECOT_NODE": "http://127.0.0.1:1",
    }


FAILURES = [
    (["whoami", "--passphrase-file", "/nowhere"], {}, 6, None),
    (["whoami"], {"ECOT_PASSPHRASE": "wrong"}, 5, "passphrase_wrong"),
    (["whoami", "--profile", "other"], {}, 5, "key_file_missing"),
    (["whoami", "--key", "tablet"], {}, 5, "key_not_found"),
    (["whoami", "--profile", "../up"], {}, 2, "profile_name_malformed"),
    (["verify"], {}, 2, "verify_what"),
    (["verify", "/nowhere.receipt"], {}, 6, None),
    (["key", "new", "phone"], {}, 5, "key_label_taken"),
    (["join", "ada", "--kind", "cat"], {}, 2, "kind_unknown"),
]


@pytest.mark.parametrize(("words", "environment", "code", "error"), FAILURES)
def test_a_failing_command_says_why_in_json(
    words: list[str], environment: dict[str, str], code: int, error: str | None, home: dict[str, str]
) -> None:
    result = CliRunner().invoke(make_app("fr"), [*words, "--json"], env=home | environment)
    assert (result.exit_code, result.stdout) == (code, "")
    told = json.loads(result.stderr.splitlines()[-1])["error"]
    assert error is None or told["code"] == error
    assert told["title"]


def test_an_error_is_told_in_the_language_that_was_asked_for(home: dict[str, str]) -> None:
    wrong = home | {"ECOT_PASSPHRASE": "wrong"}
    english = CliRunner().invoke(make_app("en"), ["key", "show"], env=wrong).stderr
    french = CliRunner().invoke(make_app("en"), ["key", "show", "--lang", "fr"], env=wrong).stderr
    assert "does not open" in english
    assert "n'ouvre pas" in french
    assert english.rstrip().endswith("[passphrase_wrong]")


def test_without_a_node_the_usage_is_told(home: dict[str, str]) -> None:
    del home["ECOT_NODE"]
    result = CliRunner().invoke(make_app("en"), ["whoami", "--json"], env=home)
    assert (result.exit_code, json.loads(result.stderr)["error"]["code"]) == (2, "node_needed")


def test_a_key_is_made_and_shown_without_its_seed(tmp_path: Path) -> None:
    environment = {"ECOT_HOME": str(tmp_path), "ECOT_PASSPHRASE": "secret", "COLUMNS": "200"}
    made = CliRunner().invoke(make_app("fr"), ["key", "new", "phone", "--json"], env=environment)
    assert made.exit_code == 0, made.stderr
    shown = CliRunner().invoke(make_app("fr"), ["key", "show", "--json"], env=environment)
    assert json.loads(shown.stdout) == [json.loads(made.stdout)]
    key = KeyFile.open(tmp_path / "default" / "keys", "secret").keys[0]
    assert key.signer.key_id.hex() in shown.stdout
    assert key.seed.hex() not in shown.stdout
    assert "courante" in CliRunner().invoke(make_app("fr"), ["key", "show"], env=environment).stdout


def test_the_program_runs_by_its_name_and_an_unknown_command_is_usage() -> None:
    shown, wrong = (
        subprocess.run(
            [sys.executable, "-m", "ecot_cli", word],
            capture_output=True,
            text=True,
            env=os.environ | {"LC_ALL": "fr_FR.UTF-8", "COLUMNS": "200"},
            check=False,
            timeout=60,
        )
        for word in ("--help", "dance")
    )
    assert shown.returncode == 0
    assert "Payer un membre" in shown.stdout
    assert wrong.returncode == 2


@pytest.mark.parametrize(
    ("words", "environment", "locale"),
    [
        (["pay", "--lang", "fr"], {"LANG": "en_GB"}, "fr"),
        (["pay", "--lang=en"], {"LANG": "fr_FR"}, "en"),
        ([], {"LANG": "fr_BE.UTF-8"}, "fr"),
        ([], {"LC_ALL": "C", "LANG": "fr_FR"}, "en"),
        ([], {"LC_ALL": "", "LC_MESSAGES": "fr", "LANG": "en"}, "fr"),
        (["--lang"], {}, "en"),
    ],
)
def test_the_language_is_found(words: list[str], environment: dict[str, str], locale: str) -> None:
    assert find_locale(words, environment) == locale


AMOUNTS = [
    ("12", 2, "fr", 1_200),
    ("12,5", 2, "fr", 1_250),
    ("12.50", 2, "fr", 1_250),
    ("1 234,50", 2, "fr", 123_450),
    ("1\u202f234,50", 2, "fr", 123_450),
    ("1\u00a0234", 2, "fr", 123_400),
    ("1,234.50", 2, "en", 123_450),
    ("3", 0, "en", 3),
    ("0.000001", 6, "en", 1),
]


@pytest.mark.parametrize(("text", "scale", "locale", "minor"), AMOUNTS)
def test_an_amount_is_read(text: str, scale: int, locale: str, minor: int) -> None:
    assert parse_amount(text, scale, locale) == minor


@pytest.mark.parametrize(
    ("text", "scale", "locale"),
    [
        ("", 2, "fr"),
        ("-1", 2, "fr"),
        ("1,234", 2, "fr"),
        ("1.2.3", 2, "en"),
        ("12,5", 2, "en"),
        ("0.5", 0, "en"),
        ("1e9", 2, "en"),
        ("NaN", 2, "en"),
        ("٣", 2, "en"),
        ("+3", 2, "en"),
        ("99999999999999999999", 2, "en"),
        ("douze", 2, "fr"),
    ],
)
def test_what_is_no_amount_is_refused(text: str, scale: int, locale: str) -> None:
    with pytest.raises(UsageProblem, match="amount_malformed"):
        parse_amount(text, scale, locale)


def test_an_amount_is_written_as_the_language_does() -> None:
    assert format_amount(-123_456, 2, "EUR", "fr") == "-1\u202f234,56\u00a0€"
    assert format_amount(123_456, 2, "BART", "en") == "1,234.56 BART"
    assert format_amount(7, 0, "HOURS", "en") == "7 HOURS"


@pytest.mark.parametrize("rate", ["", "1/0", "half", "0.5", "1/2/3", "50"])
def test_what_is_no_rate_is_refused(rate: str) -> None:
    with pytest.raises(UsageProblem, match="rate_malformed"):
        parse_rate(rate)


def test_what_is_no_day_is_refused() -> None:
    assert parse_day("1970-01-02T00:00:00+00:00") == 86_400_000
    with pytest.raises(UsageProblem, match="day_malformed"):
        parse_day("2 mars")


def test_a_file_of_use_adds_up_rows(tmp_path: Path) -> None:
    path = tmp_path / "use.csv"
    path.write_text("\ufeffcount,work\n2,isrc:FRZ039101231\n3,isrc:FRZ039101231\n1,AB\n", encoding="utf-8")
    assert read_use(path) == {"isrc:FRZ039101231": 5, "ab": 1}


@pytest.mark.parametrize("row", ["isrc:X,-1", "isrc:X,1.5", ",3", "isrc:X,many"])
def test_a_malformed_row_of_use_is_named_by_its_line(row: str, tmp_path: Path) -> None:
    path = tmp_path / "use.csv"
    path.write_text(f"work,count\nisrc:Y,1\n{row}\n", encoding="utf-8")
    with pytest.raises(UsageProblem) as raised:
        read_use(path)
    assert (raised.value.code, raised.value.params["line"]) == ("use_file_malformed", 3)


def test_errors_are_one_tree() -> None:
    assert all(
        issubclass(one, ClientError) for one in (UsageProblem, KeyProblem, ProofFailed, NotRecorded, NodeProblem)
    )
