# SPDX-License-Identifier: AGPL-3.0-or-later
"""The examples in the specification are run, and its lists are those of the code."""

import doctest
import re
from pathlib import Path

import pytest

from ecot_protocol.domains.coop.statutes import FORCE
from ecot_protocol.ledger.reasons import COMMON_REASONS

PAGES = Path(__file__).parents[2] / "docs" / "specification"


@pytest.mark.parametrize("name", ["wire.md", "ledger.md"])
def test_the_examples_of_a_page_hold(name: str) -> None:
    failed, tried = doctest.testfile(str(PAGES / name), module_relative=False, encoding="utf-8")
    assert tried > 3
    assert failed == 0


def section(name: str, heading: str) -> str:
    text = (PAGES / name).read_text(encoding="utf-8")
    return re.split(r"^## ", text.split(f"## {heading}\n")[1], maxsplit=1, flags=re.MULTILINE)[0]


def test_the_common_reasons_stand_in_their_order() -> None:
    told = re.findall(r"^\| `([a-z_]+)` \|", section("ledger.md", "2. Common reasons"), re.MULTILINE)
    assert told == [code for code in COMMON_REASONS if code != "type_unknown"]


def test_the_fields_that_bind_at_once_are_listed() -> None:
    listed = re.search(r"- at once: (.*?);\n", section("ledger.md", "4. Time"), re.DOTALL)
    assert listed is not None
    assert re.findall(r"`([a-z_.]+)`", listed[1]) == [field for field, force in FORCE.items() if force == "at_once"]
