# SPDX-License-Identifier: AGPL-3.0-or-later
"""`ecot peer`: two boards agree over a file, and what both have not signed is not recorded.

`test_tutorial` pays across such a peering.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ledger_kit import seed
from node_kit import make_founded, must_run, serve
from test_cli_commands import Desk

from ecot_cli.commands.partners import minor_rate
from ecot_cli.errors import UsageProblem
from ecot_client.federation import PEERING_FILE, PeeringFile
from ecot_protocol.domains.federation.statements import decode_peering
from ecot_protocol.ledger.amounts import Rate


@dataclass
class Boards:
    """The boards of two cooperatives at their desks, and a file between them."""

    ours: Desk
    theirs: Desk
    file: Path


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Desk, Desk]]:
    folder = tmp_path_factory.mktemp("peering")
    with serve(make_founded(folder / "one")) as one, serve(make_founded(folder / "two")) as two:
        claire = seed("node kit claire")
        yield Desk(folder / "home", "one", one.url, claire), Desk(folder / "home", "two", two.url, claire)


@pytest.fixture
def boards(nodes: tuple[Desk, Desk], tmp_path: Path) -> Boards:
    return Boards(*nodes, tmp_path / "file.peering")


def propose(boards: Boards, *options: str) -> None:
    boards.ours.does("peer", "propose", boards.theirs.url, "1000", "--output", str(boards.file), *options)


def test_two_boards_sign_record_and_end_a_peering(boards: Boards) -> None:
    propose(boards, "--partner-limit", "250.50")
    signed = [desk.does("peer", "sign", str(boards.file)) for desk in (boards.ours, boards.theirs)]
    assert [one["signature_count"] for one in signed] == [1, 2]
    again = boards.ours.does("peer", "sign", str(boards.file))
    assert again["signature_count"] == 2
    for desk in (boards.ours, boards.theirs):
        assert desk.does("peer", "record", str(boards.file))["status"] == "recorded"
    (ours,), (theirs,) = boards.ours.does("peers"), boards.theirs.does("peers")
    assert (ours["limit_minor"], ours["partner_limit_minor"]) == (100_000, 25_050)
    assert (theirs["limit_minor"], theirs["partner_limit_minor"]) == (25_050, 100_000)
    propose(boards)
    assert decode_peering(PEERING_FILE.decode(boards.file.read_bytes()).statement).sequence == 2
    assert boards.ours.does("peer", "end", ours["ledger"])["status"] == "recorded"
    assert [one["status"] for one in boards.ours.does("peers")] == ["ended"]


def test_a_peering_is_drafted_from_an_invitation(boards: Boards, tmp_path: Path, tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.getbasetemp() / "peering0/two"
    invitation = must_run("invite", str(folder), "--address", "/dns4/two.example/tcp/8485").stdout
    mail = tmp_path / "mail.txt"
    mail.write_text(
        "\n".join(f"> {invitation[start : start + 70]}" for start in range(0, len(invitation), 70)), "utf-8"
    )
    propose(boards)
    asked = decode_peering(PEERING_FILE.decode(boards.file.read_bytes()).statement)
    for given in (invitation.strip(), str(mail)):
        boards.ours.does("peer", "propose", given, "1000", "--output", str(boards.file))
        assert decode_peering(PEERING_FILE.decode(boards.file.read_bytes()).statement) == asked
    said = boards.ours.types("peer", "propose", invitation.strip()[:-9], "1000", "--json")
    assert said.error == "invitation_mistyped"


def test_a_peering_that_one_side_has_not_signed_is_not_recorded(boards: Boards) -> None:
    propose(boards)
    boards.ours.does("peer", "sign", str(boards.file))
    said = boards.ours.types("peer", "record", str(boards.file), "--json")
    assert (said.exit_code, said.error) == (2, "peering_unsigned")


def test_terms_changed_after_a_signature_are_refused(boards: Boards) -> None:
    propose(boards)
    for desk in (boards.ours, boards.theirs):
        desk.does("peer", "sign", str(boards.file))
    signed = PEERING_FILE.decode(boards.file.read_bytes())
    propose(boards, "--partner-limit", "999999")
    other = PEERING_FILE.decode(boards.file.read_bytes()).statement
    boards.file.write_bytes(PEERING_FILE.encode(PeeringFile(signatures=signed.signatures, statement=other)))
    said = boards.ours.types("peer", "record", str(boards.file), "--json")
    assert (said.exit_code, said.error) == (1, "evidence_wrong")


def test_what_a_file_says_is_shown_in_french(boards: Boards) -> None:
    propose(boards)
    shown = boards.theirs.types("peer", "show", str(boards.file), language="fr").out
    assert "limite (unités mineures)" in shown
    assert "avec 0 signature(s) sur deux" in shown


def test_a_node_is_no_partner_of_its_own(boards: Boards) -> None:
    said = boards.ours.types("peer", "propose", boards.ours.url, "10", "--json")
    assert (said.exit_code, said.error) == (2, "partner_is_us")


def test_other_files_and_other_partners_are_told_apart(boards: Boards) -> None:
    boards.file.write_bytes(b"hello")
    said = boards.ours.types("peer", "show", str(boards.file), "--json")
    assert (said.exit_code, said.error) == (2, "peering_malformed")
    said = boards.ours.types("peer", "end", "nobody.example", "--json")
    assert (said.exit_code, said.error) == (2, "partner_not_found")


@pytest.mark.parametrize(
    ("text", "scales", "is_ours_first", "rate"),
    [
        ("1/1", (2, 2), True, (1, 1)),
        ("3/2", (2, 2), True, (3, 2)),
        ("3/2", (2, 2), False, (2, 3)),
        ("1/1", (2, 0), True, (1, 100)),
        ("1/1", (2, 0), False, (100, 1)),
        ("50%", (0, 3), True, (500, 1)),
    ],
)
def test_a_rate_of_units_becomes_one_of_minor_units(
    text: str, scales: tuple[int, int], is_ours_first: bool, rate: tuple[int, int]
) -> None:
    expected = Rate(denominator=rate[1], numerator=rate[0])
    assert minor_rate(text, scales, is_ours_first=is_ours_first) == expected


def test_a_rate_of_nothing_is_refused() -> None:
    with pytest.raises(UsageProblem):
        minor_rate("0/3", (2, 2), is_ours_first=True)


def test_a_transfer_says_what_it_costs_before_it_is_signed(boards: Boards) -> None:
    propose(boards)
    for desk in (boards.ours, boards.theirs):
        desk.does("peer", "sign", str(boards.file))
    for desk in (boards.ours, boards.theirs):
        desk.does("peer", "record", str(boards.file))
    (found,) = boards.ours.does("transfer", "destinations")
    assert found["is_partner"]
    quotes = boards.ours.does("transfer", "quote", found["domain"], "12.50")
    assert [one["total_minor"] for one in quotes["quotes"]] == [1_250]
    assert [hop["fee_minor"] for hop in quotes["quotes"][0]["hops"]] == [0]
    payee = "00" * 16
    said = boards.ours.types("transfer", "send", found["domain"], payee, "12.50", "--at-most", "12.49", "--json")
    assert (said.exit_code, said.error) == (2, "cost_not_agreed")
    said = boards.ours.types("transfer", "quote", found["domain"], "9000", "--json")
    assert said.exit_code == 0
    assert boards.ours.does("transfer", "quote", found["domain"], "9000")["quotes"] == []
    said = boards.ours.types("transfer", "quote", "nobody.example", "1", "--json")
    assert (said.exit_code, said.error) == (2, "partner_not_found")
