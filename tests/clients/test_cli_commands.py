# SPDX-License-Identifier: AGPL-3.0-or-later
"""`ecot` against a real node: what members, board and treasurer type, and what they read."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ledger_kit import seed
from node_kit import BOARD_KEY, Served, make_founded, serve
from typer.testing import CliRunner

from ecot_cli.app import make_app
from ecot_client.key_file import LIGHT, KeyFile, StoredKey
from ecot_client.node import NodeClient
from ecot_client.posting import require_recorded
from ecot_protocol.domains.catalogue.acts import RegisterWork
from ecot_protocol.domains.catalogue.identifiers import Identifier
from ecot_protocol.domains.catalogue.state import Holder
from ecot_protocol.domains.royalty.acts import Subscribe
from ecot_protocol.wire.keys import Signer

PASSPHRASE = "correct horse battery staple"
SECOND_KEY = Signer(seed("cli denis"))
POLL_DAYS = "0.00003"
POLL_S = 3.0

APPS = {language: make_app(language) for language in ("en", "fr")}


class Said:
    """What a command answered."""

    def __init__(self, result: Any) -> None:
        self.exit_code: int = result.exit_code
        self.out: str = result.stdout
        self.err: str = result.stderr

    @property
    def json(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The code of the error on stderr, with --json."""
        return str(json.loads(self.err.splitlines()[-1])["error"]["code"])


class Desk:
    """Somebody with a profile of their own, at a terminal."""

    def __init__(self, home: Path, name: str, url: str, *seeds: bytes) -> None:
        self.home, self.name, self.url = home, name, url
        keys = KeyFile.create(home / name / "keys", PASSPHRASE, cost=LIGHT)
        for number, one in enumerate(seeds):
            keys.add(StoredKey(label=f"key{number}", made_at_ms=0, purpose="daily", seed=one))

    def types(self, *words: str, language: str = "en") -> Said:
        """Run a command."""
        environment = {
            "ECOT_HOME": str(self.home),
            "ECOT_PROFILE": self.name,
            "ECOT_NODE": self.url,
            "ECOT_PASSPHRASE": PASSPHRASE,
            "COLUMNS": "200",
        }
        return Said(CliRunner().invoke(APPS[language], list(words), env=environment))

    def does(self, *words: str) -> Any:
        """Run a command with --json, fail unless it exits with 0, and return what it answered."""
        said = self.types(*words, "--json")
        assert said.exit_code == 0, f"{words}: exit {said.exit_code}: {said.err}{said.out}"
        return said.json


class Town:
    """A node, its founder, and members who joined with `ecot`."""

    def __init__(self, node: Served, home: Path, founders: dict[str, bytes]) -> None:
        self.node, self.home = node, home
        self.founders = {name: Desk(home, name, node.url, one) for name, one in founders.items()}

    def joins(self, name: str, college: str = "users", kind: str = "firm") -> Desk:
        """Let a member join and be admitted by the first founder."""
        desk = Desk(self.home, name, self.node.url, seed(f"cli {name}"))
        desk.does("join", name, "--college", college, "--kind", kind)
        self.claire.does("admit", name)
        return desk

    @property
    def claire(self) -> Desk:
        """Board and treasurer."""
        return self.founders["claire"]


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    folder = tmp_path_factory.mktemp("town")
    with serve(make_founded(folder / "node", template="culture"), ECOT_NODE_LEDGER__SEAL_INTERVAL_S="1") as node:
        yield Town(node, folder / "home", {"claire": seed("node kit claire")})


@pytest.fixture(scope="module")
def ada(town: Town) -> Desk:
    return town.joins("ada")


@pytest.fixture(scope="module")
def bob(town: Town) -> Desk:
    return town.joins("bob", "workers", "person")


def test_a_member_joins_and_knows_who_it_is(ada: Desk) -> None:
    me = ada.does("whoami")["me"]
    assert [(one["handle"], one["status"], one["scopes"]) for one in me["members"]] == [("ada", "admitted", ["owner"])]
    assert me["handle"] == "ada.owner"


def test_whoami_speaks_french(ada: Desk) -> None:
    said = ada.types("whoami", language="fr")
    assert "ada.owner chez Troc de test" in said.out
    assert "admis" in said.out


def test_members_are_listed(ada: Desk, bob: Desk) -> None:
    listed = {one["handle"]: (one["kind"], one["college"], one["status"]) for one in ada.does("members")}
    assert listed["ada"] == ("firm", "users", "admitted")
    assert listed["bob"] == ("person", "workers", "admitted")
    assert "entreprise" in bob.types("members", language="fr").out


def test_a_payment_moves_the_balances(ada: Desk, bob: Desk) -> None:
    before = _balance(ada), _balance(bob)
    done = ada.does("pay", "bob", "12.50", "--memo", "merci")
    assert (done["status"], done["amount_minor"]) == ("recorded", 1_250)
    assert (_balance(ada) - before[0], _balance(bob) - before[1]) == (-1_250, 1_250)


def _balance(desk: Desk, purpose: str = "barter") -> int:
    unit = "BART" if purpose == "barter" else "EUR"
    (account,) = [one for one in desk.does("balance") if (one["purpose"], one["unit"]) == (purpose, unit)]
    return int(account["balance_minor"])


def test_an_amount_is_read_as_the_language_writes_it(ada: Desk, bob: Desk) -> None:
    assert bob
    said = ada.types("pay", "bob", "1 000,25", language="fr")
    assert said.exit_code == 0
    assert "1\u202f000,25\u00a0BART payés à bob" in said.out


def test_a_statement_runs_from_the_opening_to_the_balance(ada: Desk, bob: Desk) -> None:
    ada.does("pay", "bob", "1")
    found = ada.does("statement")
    assert found["opening_minor"] + sum(one["amount_minor"] for one in found["lines"]) == _balance(ada)
    assert "bob" in ada.types("statement").out
    assert bob.does("statement", "--to", "2000-01-01")["lines"] == []


def test_a_balance_is_proven_by_a_seal(ada: Desk) -> None:
    balance = _balance(ada)
    for _ in range(40):
        proven = ada.types("balance", "--prove", "--json")
        if proven.exit_code == 0:
            shown = {one["purpose"]: one["account"]["balance_minor"] for one in proven.json}
            if shown["barter"] == balance:
                return
        time.sleep(0.25)
    raise AssertionError(f"no seal proved {balance}: {proven.out}{proven.err}")


def test_a_trade_is_proposed_accepted_and_confirmed(ada: Desk, bob: Desk, tmp_path: Path) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_text("3 chaises")
    words = ("bob", "100", "--vat", "20", "--euro", "60", "--lines", str(lines), "--memo", "livraison mardi")
    trade = ada.does("trade", "propose", *words)["id"]
    before = _balance(ada), _balance(bob)
    bob.does("trade", "accept", trade)
    assert [one["status"] for one in bob.does("trade", "list") if one["trade"] == trade] == ["accepted"]
    bob.does("trade", "confirm", trade)
    assert (_balance(ada) - before[0], _balance(bob) - before[1]) == (6_000 - 500, -6_000)
    assert "confirmé" in bob.types("trade", "list", "--status", "confirmed", language="fr").out


def test_an_offer_is_refused(ada: Desk, bob: Desk) -> None:
    trade = ada.does("trade", "propose", "bob", "10")["id"]
    bob.does("trade", "refuse", trade)
    said = bob.types("trade", "accept", trade, "--json")
    assert (said.exit_code, said.error) == (1, "trade_unknown")


def test_shares_are_subscribed_paid_and_numbered(town: Town, ada: Desk) -> None:
    subscription = ada.does("shares", "subscribe", "3")["id"]
    town.claire.does("attest", "shares", subscription, "--reference", "virement 17")
    held = ada.does("shares", "show")
    assert held["share_count"] == 3
    assert [(one["first"], one["last"]) for one in held["ranges"]] == [(1, 3)]
    assert [one["kind"] for one in ada.does("shares", "register")] == ["issue"]
    assert "émission" in ada.types("shares", "register", language="fr").out
    assert "Parts détenues\u202f: 3" in ada.types("shares", "show", language="fr").out


def test_a_payment_is_attested_for_a_member(town: Town, bob: Desk) -> None:
    before = _balance(bob, "claims")
    town.claire.does("attest", "payment", "bob", "35", "--reference", "chèque 4")
    assert _balance(bob, "claims") - before == 3_500


def test_a_poll_is_opened_answered_and_closed(ada: Desk, bob: Desk) -> None:
    poll = ada.does("poll", "open", "Acheter le four ?", "--days", POLL_DAYS)["id"]
    ada.does("vote", poll, "agree")
    bob.does("vote", poll, "abstain", "--reason", "pas d'avis")
    assert [one["question"] for one in bob.does("poll", "list") if one["poll"] == poll] == ["Acheter le four ?"]
    time.sleep(POLL_S)
    bob.does("poll", "close", poll)
    shown = bob.does("poll", "show", poll)
    assert (shown["poll"]["outcome"]["winner"], shown["poll"]["outcome"]["cast"]) == ("agree", 2)
    assert {(one["choice"], one["reason"]) for one in shown["stances"]} == {("agree", None), ("abstain", "pas d'avis")}
    assert "Résultat\u202f: d'accord. 2 participants" in bob.types("poll", "show", poll, language="fr").out


def test_statutes_are_shown_amended_by_a_poll_and_adopted(ada: Desk, bob: Desk, tmp_path: Path) -> None:
    version = ada.does("statutes", "show")["version"]
    path = tmp_path / "statutes.json"
    ada.does("statutes", "show", "--output", str(path))
    statutes = json.loads(path.read_text())
    statutes["membership"]["yearly_fee_minor"] = 4_200
    path.write_text(json.dumps(statutes))
    poll = ada.does("statutes", "amend", str(path), "--question", "Cotisation à 42 € ?", "--days", POLL_DAYS)["id"]
    ada.does("vote", poll, "for")
    bob.does("vote", poll, "for")
    time.sleep(POLL_S)
    assert ada.does("poll", "close", poll)["is_adopted"]
    found = bob.does("statutes", "show", "--version", str(version + 1))
    assert found["statutes"]["membership"]["yearly_fee_minor"] == 4_200


def test_keys_are_added_and_revoked(town: Town) -> None:
    carol = town.joins("carol")
    added = carol.does("key", "add", "laptop")
    carol.does("key", "add", "safe", "--recovery")
    assert [one["purpose"] for one in carol.does("key", "show")] == ["daily", "daily", "recovery"]
    carol.does("key", "revoke", "key0", "--key", "laptop")
    assert carol.types("whoami", "--json").exit_code == 1
    assert carol.does("whoami", "--key", "laptop")["me"]["key_id"] == added["key_id"]


def test_a_recovery_is_asked_for_signed_by_the_board_and_vetoed(town: Town, tmp_path: Path) -> None:
    dora = town.joins("dora")
    dora.does("key", "add", "safe", "--recovery")
    person = dora.does("whoami")["me"]["person"]
    finder = Desk(town.home, "finder", town.node.url)
    request = tmp_path / "request.ecot"
    finder.does("key", "recover", person, "--output", str(request))
    shown = town.claire.does("draft", "show", str(request))
    assert (shown["type"], shown["payload"]["person"]) == ("membership.open_recovery", person)
    assert town.claire.does("draft", "sign", str(request))["status"] == "recorded"
    said = finder.types("key", "recover", person, "--complete", "--json")
    assert (said.exit_code, said.error) == (1, "recovery_not_due")
    assert dora.does("key", "veto", "--key", "safe", "--person", person)["status"] == "recorded"


def test_receipts_are_kept_saved_and_verified(ada: Desk, bob: Desk, tmp_path: Path) -> None:
    ada.does("pay", "bob", "2")
    assert {tuple(one["witnesses"]) for one in ada.does("receipts", "--witnessed")} == {()}
    assert "personne encore" in ada.types("receipts", "--witnessed", language="fr").out
    kept = ada.does("receipts", "--save", str(tmp_path / "receipts"))
    files = sorted((tmp_path / "receipts").iterdir())
    assert len(files) == len(kept) > 0
    checked = ada.does("verify", str(files[-1]))
    assert checked["is_log_key_known"]
    assert "Bon\u202f:" in bob.types("verify", str(files[-1]), language="fr").out
    stranger = Desk(tmp_path / "elsewhere", "stranger", "http://127.0.0.1:1")
    assert not stranger.does("verify", str(files[-1]))["is_log_key_known"]
    text = json.loads(files[-1].read_text())
    text["record"] = text["record"][:-2] + ("00" if text["record"][-2:] != "00" else "01")
    files[-1].write_text(json.dumps(text))
    said = ada.types("verify", str(files[-1]), "--json")
    assert said.exit_code == 4
    assert said.out == ""


def test_the_whole_log_is_verified(ada: Desk) -> None:
    checked = ada.does("verify", "--log")
    assert checked["size"] > checked["receipt_count"] > 0
    assert 0 < checked["record_count"] <= checked["size"]


def test_a_member_leaves_only_once_its_account_is_settled(town: Town) -> None:
    eve = town.joins("eve")
    assert eve.does("leave")["status"] == "recorded"
    assert [one["status"] for one in town.claire.does("members", "--status", "left") if one["handle"] == "eve"] == [
        "left"
    ]


def test_a_member_is_excluded_with_a_reason(town: Town) -> None:
    town.joins("fay")
    assert town.claire.does("exclude", "fay", "--reason", "fausse facture")["status"] == "recorded"


async def _catalogue(town: Town, name: str, state: Path) -> tuple[str, str]:
    """Let a member register a work and the library subscribe; return (member, work)."""
    async with NodeClient(town.node.url, state / "artist", (Signer(seed(f"cli {name}")),)) as artist:
        member = bytes.fromhex((await artist.me()).members[0].member)
        work = RegisterWork(
            holders=(Holder(member, 10_000),),
            identifiers=(Identifier("isrc", "FRZ039101231"),),
            kind="music",
            title=None,
        )
        entry = await artist.build("catalogue.register_work", work, author=member, contents={"title": "Valse"})
        registered = require_recorded(await artist.post_one(entry))
    async with NodeClient(town.node.url, state / "library", (Signer(seed("cli library")),)) as library:
        institution = bytes.fromhex((await library.me()).members[0].member)
        subscribe = Subscribe(
            from_ms=0,
            statutes_version=(await library.statutes()).version,
            total_minor=100_000,
            unit="EUR",
            until_ms=None,
        )
        require_recorded(
            await library.post_one(await library.build("royalty.subscribe", subscribe, author=institution))
        )
    return member.hex(), registered.entry_id.hex()


async def test_use_is_imported_and_a_period_is_closed(town: Town, tmp_path: Path) -> None:
    artist = _in_thread(lambda: town.joins("gil", kind="person"))
    library = _in_thread(lambda: town.joins("library", kind="body"))
    member, work = await _catalogue(town, "gil", tmp_path)
    assert [one["title"] for one in _does(library, "works") if one["work"] == work] == ["Valse"]
    claire = town.claire
    _does(claire, "period", "open", "2026-10", "2026-10-01", "2026-11-01")
    plays = tmp_path / "plays.csv"
    plays.write_text("work,count,where\nisrc:FRZ039101231,3,salle\n" + f"{work},2,prêt\n", encoding="utf-8")
    imported = _does(library, "use", "import", str(plays), "--period", "2026-10")
    assert imported == {"parts": 1, "work_count": 1, "use_count": 5}
    closed = _does(claire, "period", "close", "2026-10", "1000")
    assert closed["status"] == "recorded"
    # 40 % by use. It was not in the catalogue at the end of that month, so it takes no part by reference.
    assert (await _claims(town, "gil", tmp_path, member)) == 40_000
    assert "close" in _in_thread(lambda: artist.types("period", "list", language="fr")).out


def _does(desk: Desk, *words: str) -> Any:
    return _in_thread(lambda: desk.does(*words))


def _in_thread(call: Any) -> Any:
    """Run a command from within an async test: it brings its own event loop."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as threads:
        return threads.submit(call).result(120)


async def _claims(town: Town, name: str, state: Path, member: str) -> int:
    async with NodeClient(town.node.url, state / "again", (Signer(seed(f"cli {name}")),)) as artist:
        accounts = await artist.accounts(member)
        return sum(one.balance_minor for one in accounts if one.purpose == "claims" and one.unit == "EUR")


def test_peers_are_listed(ada: Desk) -> None:
    assert ada.does("peers") == []
    assert "Rien à afficher" in ada.types("peers", language="fr").out


# --- an organ of which two must sign --------------------------------------------------------------------------------


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Town]:
    board = f"claire={BOARD_KEY.public_key.hex()}:board,treasurer"
    folder = tmp_path / "node"
    with serve(_found_by_two(folder, board)) as node:
        founders = {"claire": seed("node kit claire"), "denis": seed("cli denis")}
        yield Town(node, tmp_path / "home", founders)


def _found_by_two(folder: Path, board: str) -> Path:
    from node_kit import init_options, must_run

    from ecot_client.entries import sign_entry
    from ecot_protocol.wire.entry import ENTRY, decode_entry

    options = init_options(board=board, threshold="2")
    must_run("init", str(folder), *options, "--board", f"denis={SECOND_KEY.public_key.hex()}:board")
    copy = folder.with_name("signed")
    entry = decode_entry((folder / "genesis.draft").read_bytes())
    copy.write_bytes(ENTRY.encode(sign_entry(sign_entry(entry, BOARD_KEY), SECOND_KEY)))
    must_run("found", str(folder), str(copy))
    return folder


def test_what_two_must_sign_waits_as_a_draft(pair: Town) -> None:
    claire, denis = pair.founders["claire"], pair.founders["denis"]
    ada = Desk(pair.home, "ada", pair.node.url, seed("cli ada"))
    ada.does("join", "ada", "--college", "users")
    left = claire.does("admit", "ada")
    assert (left["status"], left["missing_count"]) == ("waiting", 1)
    (waiting,) = denis.does("draft", "list")
    assert (waiting["type"], waiting["is_signed_by_me"]) == ("membership.admit", False)
    assert "1/2" in denis.types("draft", "list", language="fr").out
    shown = denis.does("draft", "show", left["draft"])
    assert shown["payload"]["college"] == "users"
    assert denis.does("draft", "sign", left["draft"])["status"] == "recorded"
    assert ada.does("whoami")["me"]["members"][0]["status"] == "admitted"
    assert denis.does("draft", "list") == []
    said = ada.types("exclude", "ada", "--json")
    assert (said.exit_code, said.error) == (5, "office_not_held")


def test_keys_of_two_persons_at_hand_need_no_draft(pair: Town) -> None:
    both = Desk(pair.home, "both", pair.node.url, seed("node kit claire"), seed("cli denis"))
    ada = Desk(pair.home, "ada", pair.node.url, seed("cli ada"))
    ada.does("join", "ada", "--college", "users")
    assert both.does("admit", "ada")["status"] == "recorded"
