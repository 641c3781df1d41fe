# SPDX-License-Identifier: AGPL-3.0-or-later
"""The picture of the federation: well formed, within its page, nothing on top of something else, safe with any name."""

import itertools
from xml.etree import ElementTree

import pytest
from federation_kit import FederatedKit, peering
from hypothesis import given, settings
from hypothesis import strategies as st

from ecot_cli.picture import CARD_HEIGHT, CARD_WIDTH, draw_federation
from ecot_client.models import LedgerInfo, PeerInfo, UnitInfo
from ecot_protocol.domains.federation.statements import encode_peering

SVG = "{http://www.w3.org/2000/svg}"
OWN = FederatedKit(name="troc")
OTHERS = [FederatedKit(name=f"coop{number}") for number in range(14)]
FAR = [FederatedKit(name=name) for name in ("colline", "lointain")]
INFO = LedgerInfo(
    ledger=OWN.ledger.hex(),
    name="Troc des Collines",
    domain="troc.example",
    origin=OWN.origin,
    size=10,
    rules=1,
    statutes_version=1,
    mode="writing",
    units=(UnitInfo(code="BART", kind="barter", scale=2),),
    log_vkey=None,
    checkpoint="",
    time_ms=1_790_000_000_000,
)


def partner(number: int, balance_minor: int = 0, health: str = "good", domain: str = "") -> PeerInfo:
    kit = OTHERS[number]
    witnesses = (OWN, kit, FAR[number % 2]) if number % 3 == 0 else (OWN, kit)
    return PeerInfo(
        ledger=kit.ledger.hex(),
        origin=kit.origin,
        domain=domain or f"{kit.name}.example",
        status="suspended" if health == "suspended" else "active",
        ended_at_ms=None,
        statement=encode_peering(peering(OWN, kit, witnesses=witnesses)).hex(),
        unit="BART",
        partner_unit="BART",
        limit_minor=1_000_000,
        partner_limit_minor=1_000_000,
        balance_minor=balance_minor,
        room_out_minor=1_000_000 - balance_minor,
        room_in_minor=1_000_000 + balance_minor,
        health=health,
        incident_count=int(health == "differs"),
    )


def rectangles(root: ElementTree.Element) -> list[tuple[float, float, float, float]]:
    """Return the cards: x, y, width, height."""
    found = []
    for one in root.iter(f"{SVG}rect"):
        width, height = float(one.attrib["width"]), float(one.attrib["height"])
        if (width, height) == (CARD_WIDTH, CARD_HEIGHT):
            found.append((float(one.attrib["x"]), float(one.attrib["y"]), width, height))
    return found


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 9, 14])
def test_cards_stand_apart_within_the_page(count: int) -> None:
    root = ElementTree.fromstring(draw_federation(INFO, [partner(number) for number in range(count)], "fr"))
    cards = rectangles(root)
    assert len(cards) == count + 1
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for x, y, dx, dy in cards:
        assert 0 <= x <= width - dx
        assert 0 <= y <= height - dy
    for one, two in itertools.combinations(cards, 2):
        apart_x, apart_y = abs(one[0] - two[0]) >= CARD_WIDTH, abs(one[1] - two[1]) >= CARD_HEIGHT
        assert apart_x or apart_y


def test_what_is_owed_points_to_whom_it_is_owed() -> None:
    peers = [partner(1, 50_000), partner(2, -20_000), partner(4)]
    root = ElementTree.fromstring(draw_federation(INFO, peers, "en"))
    arrows = [one for one in root.iter(f"{SVG}line") if "marker-end" in one.attrib]
    assert len(arrows) == 2 + 2  # two of the legend
    said = "".join(root.itertext())
    assert "we owe 500.00 BART" in said
    assert "owes us 200.00 BART" in said
    assert "owed to us 200.00 BART" in said


def test_who_is_known_of_theirs_is_shown() -> None:
    said = "".join(ElementTree.fromstring(draw_federation(INFO, [partner(0), partner(3)], "en")).itertext())
    assert "colline.example" in said
    assert "lointain.example" in said
    alone = "".join(ElementTree.fromstring(draw_federation(INFO, [partner(1)], "en")).itertext())
    assert "colline" not in alone


@pytest.mark.parametrize(("locale", "text"), [("fr", "en désaccord"), ("en", "in disagreement")])
def test_health_is_said_in_words(locale: str, text: str) -> None:
    assert text in draw_federation(INFO, [partner(1, health="differs")], locale)


@settings(max_examples=60, deadline=None)
@given(st.text(min_size=1, max_size=80))
def test_any_name_makes_a_picture_and_nothing_else(name: str) -> None:
    root = ElementTree.fromstring(draw_federation(INFO, [partner(1, 5, domain=name)], "en"))
    assert not list(root.iter(f"{SVG}script"))
    assert len(rectangles(root)) == 2
