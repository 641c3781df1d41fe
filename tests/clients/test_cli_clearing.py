# SPDX-License-Identifier: AGPL-3.0-or-later
"""`ecot obligation` and `ecot round`: members of two cooperatives owe each other, and a round clears what it can."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from chain_kit import Chain, make_chain, running
from ledger_kit import seed
from test_cli_commands import Desk

PATIENCE_S = 90.0


@dataclass
class Site:
    """Two cooperatives whose nodes run, and the desks of a member of each and of a board."""

    chain: Chain
    ada: Desk
    bela: Desk
    board: Desk

    def member(self, coop: str) -> str:
        return self.chain.coops[coop].actors[0].member.hex()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    place = tmp_path_factory.mktemp("clearing")
    chain = make_chain(place / "chain", ("nord", "sud"), (), hub="sud", members=("ada",))
    nord, sud = chain.coops["nord"], chain.coops["sud"]
    with running(chain):
        yield Site(
            chain,
            Desk(place / "home", "ada", nord.url, seed("node kit nord-ada")),
            Desk(place / "home", "bela", sud.url, seed("node kit sud-ada")),
            Desk(place / "home", "board", nord.url, seed("node kit claire")),
        )


def refusal(desk: Desk, *words: str) -> str:
    """Return the code with which a command is refused."""
    said = desk.types(*words, "--json")
    assert said.exit_code
    return said.error


def oblige(site: Site, debtor: Desk, creditor: Desk, amount: str, file: Path) -> str:
    """Let one owe the other, both by their command lines; return the obligation's id."""
    of, partner = ("sud", "sud.example") if debtor is site.ada else ("nord", "nord.example")
    owed = debtor.does("obligation", "owe", site.member(of), amount, str(file), "--partner", partner)
    claimed = creditor.does("obligation", "claim", str(file))
    assert owed["obligation"] == claimed["obligation"]
    return str(owed["obligation"])


def test_a_round_clears_what_two_members_owe_each_other(site: Site, tmp_path: Path) -> None:
    first = oblige(site, site.ada, site.bela, "100", tmp_path / "first")
    second = oblige(site, site.bela, site.ada, "60.50", tmp_path / "second")
    called = site.board.does("round", "call", "sud.example", "--phase", "20")
    assert len(called["ledgers"]) == 2
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found = {one["obligation"]: one for one in site.ada.does("obligation", "list")}
        if found[first]["left_minor"] == 3_950:
            break
        assert time.monotonic() < deadline, found
        time.sleep(0.5)
    assert (found[first]["status"], found[first]["is_debtor"]) == ("offered", True)
    assert (found[second]["status"], found[second]["left_minor"], found[second]["is_debtor"]) == ("cleared", 0, False)
    checked = site.ada.does("round", "check", called["call"], "--output", str(tmp_path / "round"))
    assert (checked["matched"], checked["cleared_minor"], checked["is_proved_most"]) == (2, 12_100, True)
    assert (tmp_path / "round").read_bytes()
    (round_,) = site.bela.does("round", "list")
    assert (round_["call"], round_["offer_count"]) == (called["call"], 2)


def test_what_is_not_ours_to_offer_is_refused(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "file"
    owed = site.ada.does("obligation", "owe", site.member("sud"), "7", str(file), "--partner", "sud.example")
    again = ("obligation", "owe", site.member("sud"), "7", str(file), "--partner", "sud.example")
    assert refusal(site.ada, *again) == "file_exists"
    assert refusal(site.ada, "obligation", "claim", str(file)) == "contract_mismatch"
    (tmp_path / "noise").write_bytes(b"noise")
    assert refusal(site.bela, "obligation", "claim", str(tmp_path / "noise")) == "obligation_malformed"
    assert refusal(site.bela, "obligation", "withdraw", owed["obligation"]) == "obligation_unknown"
    site.ada.does("obligation", "withdraw", owed["obligation"])
    assert refusal(site.ada, "obligation", "withdraw", owed["obligation"]) == "obligation_unknown"
    assert refusal(site.ada, "round", "call", "sud.example") == "not_allowed"
    assert refusal(site.ada, "round", "check", "0" * 32) == "not_found"
