# SPDX-License-Identifier: AGPL-3.0-or-later
"""Every fact, posting and legal ground has a text: exports and statements are made of them."""

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ecot_protocol import domains
from ecot_protocol.ledger.attachments import CLASSES
from ecot_protocol.ledger.facts import Fact
from ecot_protocol.locale import available_locales, load_catalogue


def list_facts(base: type[Fact] = Fact) -> Iterator[type[Fact]]:
    """Yield the facts of the ledger and of each domain; those that only lend their fields to others apart."""
    for module in pkgutil.walk_packages(domains.__path__, f"{domains.__name__}."):
        importlib.import_module(module.name)
    for fact in base.__subclasses__():
        if fact.__subclasses__():
            yield from list_facts(fact)
        elif fact.__module__.startswith("ecot_protocol."):
            yield fact


def list_posting_reasons() -> set[str]:
    """Return each literal that stands last in a `Leg(payer, payee, amount_minor, reason)` of a domain."""
    calls = (
        node
        for path in Path(domains.__path__[0]).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Leg"
    )
    last = (call.args[3] for call in calls if len(call.args) == 4)
    return {str(one.value) for one in last if isinstance(one, ast.Constant)}


@pytest.mark.parametrize("language", available_locales())
def test_every_fact_has_a_text(language: str) -> None:
    names = {fact.__name__ for fact in list_facts()}
    assert {"MemberAdmitted", "Posting", "Sealed"} <= names
    assert sorted(name for name in names if f"fact.{name}" not in load_catalogue(language)) == []


@pytest.mark.parametrize("language", available_locales())
def test_every_posting_has_a_text(language: str) -> None:
    reasons = list_posting_reasons()
    assert {"fee", "payment"} <= reasons
    assert sorted(one for one in reasons if f"posting.{one}" not in load_catalogue(language)) == []


@pytest.mark.parametrize("language", available_locales())
def test_every_legal_ground_has_a_text(language: str) -> None:
    grounds = {rules.ground for rules in CLASSES.values()}
    assert sorted(one for one in grounds if f"ground.{one}" not in load_catalogue(language)) == []
