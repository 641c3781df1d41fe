# SPDX-License-Identifier: AGPL-3.0-or-later
"""Every text exists in every language, with the same parameters."""

import ast
import importlib
import pkgutil
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po

import ecot_client
import ecot_node
import ecot_protocol
from ecot_protocol import domains
from ecot_protocol.ledger.accounts import ACCOUNT_REASONS, RESERVATION_REASONS
from ecot_protocol.ledger.entry_type import EntryType
from ecot_protocol.ledger.reasons import COMMON_REASONS
from ecot_protocol.locale import available_locales, choose_locale, load_catalogue, translate

PACKAGES = [Path(str(package.__file__)).parent for package in (ecot_protocol, ecot_node, ecot_client)]
LOCALE = PACKAGES[0] / "locale"
PARAMETER = re.compile(r"\{([a-z][a-z0-9_]*)\}")
OTHER_LANGUAGES = [language for language in available_locales() if language != "en"]


def read_catalogues(language: str) -> dict[str, Catalog]:
    catalogues = {}
    for path in sorted((LOCALE / language).glob("*.po")):
        with path.open("rb") as file:
            catalogues[path.stem] = read_po(file, abort_invalid=True)
    return catalogues


def list_texts(language: str) -> list[tuple[str, str, str]]:
    """Return (catalogue, key, text) of each message, the header apart."""
    return [
        (name, str(message.id), str(message.string))
        for name, catalogue in read_catalogues(language).items()
        for message in catalogue
        if message.id
    ]


def list_codes_raised() -> set[str]:
    """Return each literal code given to a `RemoteProtocolError` anywhere in the house."""
    calls = (
        node
        for package in PACKAGES
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "RemoteProtocolError"
    )
    return {str(arg.value) for call in calls for arg in call.args[:1] if isinstance(arg, ast.Constant)}


def list_entry_types() -> list[EntryType[Any, Any]]:
    """Return the entry types that stand in the modules of the domains."""
    modules = (
        importlib.import_module(module.name)
        for module in pkgutil.walk_packages(domains.__path__, f"{domains.__name__}.")
    )
    return [value for module in modules for value in vars(module).values() if isinstance(value, EntryType)]


def test_french_and_english_are_there() -> None:
    assert available_locales() == ("en", "fr")


@pytest.mark.parametrize("language", OTHER_LANGUAGES)
def test_each_language_has_the_same_keys_in_the_same_catalogues(language: str) -> None:
    there = {(name, key) for name, key, _ in list_texts(language)}
    english = {(name, key) for name, key, _ in list_texts("en")}
    assert sorted(english - there) == []
    assert sorted(there - english) == []


@pytest.mark.parametrize("language", OTHER_LANGUAGES)
def test_a_text_has_the_same_parameters_in_each_language(language: str) -> None:
    english = {key: text for _, key, text in list_texts("en")}
    differing = [
        key
        for _, key, text in list_texts(language)
        if set(PARAMETER.findall(text)) != set(PARAMETER.findall(english.get(key, "")))
    ]
    assert differing == []


@pytest.mark.parametrize("language", available_locales())
def test_every_text_is_filled_and_fuzzy_nowhere(language: str) -> None:
    empty = [key for _, key, text in list_texts(language) if not text.strip()]
    fuzzy = [str(entry.id) for each in read_catalogues(language).values() for entry in each if entry.id and entry.fuzzy]
    assert (empty, fuzzy) == ([], [])


@pytest.mark.parametrize("language", available_locales())
def test_braces_hold_parameter_names_and_nothing_else(language: str) -> None:
    stray = [key for _, key, text in list_texts(language) if re.search(r"[{}]", PARAMETER.sub("", text))]
    assert stray == []


@pytest.mark.parametrize("language", available_locales())
def test_no_key_stands_in_two_catalogues(language: str) -> None:
    counts = Counter(key for _, key, _ in list_texts(language))
    # Within one file gettext itself merges a repeated key, so files are also read as lines.
    lines = Counter(
        line
        for path in (LOCALE / language).glob("*.po")
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.startswith('msgid "') and line != 'msgid ""'
    )
    assert [key for key, count in (counts + lines).items() if count > 1] == []


@pytest.mark.parametrize("language", available_locales())
def test_every_code_that_is_raised_has_a_text(language: str) -> None:
    codes = list_codes_raised()
    assert "not_canonical" in codes
    assert sorted(code for code in codes if f"reason.{code}" not in load_catalogue(language)) == []


@pytest.mark.parametrize("language", available_locales())
def test_every_reason_that_is_declared_has_a_text(language: str) -> None:
    declared = {code for entry_type in list_entry_types() for code in entry_type.reasons}
    declared |= {*COMMON_REASONS, *ACCOUNT_REASONS, *RESERVATION_REASONS}
    assert sorted(code for code in declared if f"reason.{code}" not in load_catalogue(language)) == []


@pytest.mark.parametrize("language", available_locales())
def test_every_entry_type_has_a_text(language: str) -> None:
    tags = {entry_type.tag for entry_type in list_entry_types()}
    assert "coop.amend_statutes" in tags
    assert sorted(tag for tag in tags if f"entry.{tag}" not in load_catalogue(language)) == []


def test_a_key_without_text_answers_itself() -> None:
    assert translate("reason.never_heard_of", "fr") == "reason.never_heard_of"


def test_a_parameter_that_is_not_given_stays_as_written() -> None:
    assert "{level}" in translate("reason.tile_level_wrong", "fr", width=1)


def test_a_value_that_looks_like_a_parameter_is_not_filled_again() -> None:
    assert translate("reason.tile_level_wrong", "en", level="{level}") == "No tile has level {level}."


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [("fr_FR.UTF-8", "fr"), ("fr-BE", "fr"), ("FR", "fr"), ("en_GB", "en"), ("C", "en"), ("de_DE", "en"), ("", "en")],
)
def test_locale_is_chosen_by_language(wanted: str, chosen: str) -> None:
    assert choose_locale(wanted) == chosen
