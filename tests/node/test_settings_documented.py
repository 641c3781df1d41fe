# SPDX-License-Identifier: AGPL-3.0-or-later
"""The operating guide tells every setting, reason to take no entries, and exit code, as the code has them."""

import json
import re
import tomllib
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ecot_node import terminal as command
from ecot_node.config import PeerSettings, Settings
from ecot_node.ledger.errors import NotWriting
from ecot_node.templates import settings_text
from ecot_protocol.locale import available_locales, load_catalogue

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs/operating/README.md").read_text(encoding="utf-8")
SETTINGS_PAGE = (ROOT / "docs/operating/settings.md").read_text(encoding="utf-8")


def list_settings(model: type[BaseModel] = Settings, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield (name, field) of every setting that holds a value, those of a partner as ``federation.peers[].x``."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from list_settings(inner, f"{prefix}{name}.")
            continue
        yield f"{prefix}{name}", field
        if inner == tuple[PeerSettings, ...]:
            yield from list_settings(PeerSettings, f"{prefix}{name}[].")


def rows() -> dict[str, list[str]]:
    """Return the cells of the tables of the settings page by setting."""
    lines = (line.strip("|").split("|") for line in SETTINGS_PAGE.splitlines() if line.startswith("| `"))
    return {cells[0].strip(" `"): [cell.strip() for cell in cells[1:]] for cells in lines}


def told_range(field: FieldInfo) -> str | None:
    """Return how the range of a number or a choice is written; None: told in words."""
    bounds = {name: getattr(rule, name) for rule in field.metadata for name in ("ge", "le") if hasattr(rule, name)}
    if bounds:
        return f"{bounds['ge']} to {bounds['le']}"
    if typing.get_origin(field.annotation) is typing.Literal:
        return ", ".join(f"`{one}`" for one in typing.get_args(field.annotation))
    return None


FIELDS = dict(list_settings())


def test_every_setting_is_told_and_nothing_else() -> None:
    assert len(FIELDS) > 10
    assert sorted(rows()) == sorted(FIELDS)


@pytest.mark.parametrize("name", FIELDS)
def test_a_setting_is_told_as_it_is(name: str) -> None:
    variable, default, told, what = rows()[name]
    field = FIELDS[name]
    if "[]" not in name:
        assert variable == "`ECOT_NODE_" + name.upper().replace(".", "__") + "`"
    expected = "none" if field.is_required() else f"`{json.dumps(field.default)}`"
    assert default == expected
    assert told_range(field) in {None, told}
    assert what.endswith(".")


def test_the_file_that_init_writes_holds_only_settings() -> None:
    text = settings_text(
        http_host="127.0.0.1", http_port=1, libp2p_listen="/ip4/127.0.0.1/tcp/2", is_federated=True, workers=0
    )
    named = {f"{section}.{name}" for section, values in tomllib.loads(text).items() for name in values}
    assert named <= set(FIELDS)
    assert Settings(**tomllib.loads(text)).http.port == 1


def reasons_in_code() -> set[str]:
    """Return every reason that the node's code gives for taking no entries, or names as one."""
    named = set(re.findall(r"``(\w+)``", NotWriting.__doc__ or ""))
    calls = re.compile(r"(?:NotWriting|\.block|\.unblock)\(\s*\"(\w+)\"")
    for path in (ROOT / "node/ecot_node").rglob("*.py"):
        named |= set(calls.findall(path.read_text(encoding="utf-8")))
    return named


def table_keys(heading: str) -> set[str]:
    """Return the first column of the table under a heading of the guide."""
    section = GUIDE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))


def test_every_reason_to_take_no_entries_is_told_and_nothing_else() -> None:
    assert "witness_ahead" in reasons_in_code()
    assert table_keys("When the node takes no entries") == reasons_in_code()


@pytest.mark.parametrize("language", available_locales())
def test_every_reason_to_take_no_entries_has_a_text(language: str) -> None:
    assert [one for one in reasons_in_code() if f"reason.{one}" not in load_catalogue(language)] == []


def test_every_exit_code_is_told_and_nothing_else() -> None:
    codes = {str(value) for name, value in vars(command).items() if name.startswith("EXIT_")}
    assert {key for key in table_keys("Exit codes") if key.isdigit()} == codes | {"0"}
