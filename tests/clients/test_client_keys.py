# SPDX-License-Identifier: AGPL-3.0-or-later
"""The key file: what it keeps, and what it refuses."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from ecot_client.errors import KeyProblem
from ecot_client.key_file import LIGHT, KeyFile

PASSPHRASE = "correct horse battery staple"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "profile" / "keys.json"


def test_keys_are_there_again_after_opening(path: Path) -> None:
    keys = KeyFile.create(path, PASSPHRASE, cost=LIGHT)
    daily, recovery = keys.make("phone", "daily", now_ms=1), keys.make("safe", "recovery", now_ms=2)
    again = KeyFile.open(path, PASSPHRASE)
    assert again.keys == (daily, recovery)
    assert [one.key_id for one in again.signers()] == [daily.signer.key_id]
    assert [one.key_id for one in again.signers("recovery")] == [recovery.signer.key_id]


def test_two_keys_never_share_a_seed(path: Path) -> None:
    keys = KeyFile.create(path, PASSPHRASE, cost=LIGHT)
    assert keys.make("one", "daily", now_ms=1).seed != keys.make("two", "daily", now_ms=1).seed


def test_the_file_is_for_its_owner_alone_also_after_a_change(path: Path) -> None:
    keys = KeyFile.create(path, PASSPHRASE, cost=LIGHT)
    keys.make("phone", "daily", now_ms=1)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_the_file_shows_neither_seed_nor_label(path: Path) -> None:
    key = KeyFile.create(path, PASSPHRASE, cost=LIGHT).make("telephone", "daily", now_ms=1)
    raw = path.read_bytes()
    assert key.seed not in raw
    assert key.seed.hex().encode() not in raw
    assert b"telephone" not in raw


def test_a_seed_is_not_printed(path: Path) -> None:
    key = KeyFile.create(path, PASSPHRASE, cost=LIGHT).make("phone", "daily", now_ms=1)
    assert repr(key) == str(key) == "StoredKey('phone', 'daily')"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601])
def test_a_file_that_others_can_reach_is_refused(path: Path, mode: int) -> None:
    KeyFile.create(path, PASSPHRASE, cost=LIGHT)
    path.chmod(mode)
    with pytest.raises(KeyProblem, match="key_file_readable_by_others"):
        KeyFile.open(path, PASSPHRASE)


def test_another_passphrase_opens_nothing(path: Path) -> None:
    KeyFile.create(path, PASSPHRASE, cost=LIGHT)
    with pytest.raises(KeyProblem, match="passphrase_wrong"):
        KeyFile.open(path, PASSPHRASE + "!")


def test_a_missing_file_is_told_as_missing(path: Path) -> None:
    with pytest.raises(KeyProblem, match="key_file_missing"):
        KeyFile.open(path, PASSPHRASE)


def test_an_existing_file_is_never_overwritten(path: Path) -> None:
    key = KeyFile.create(path, PASSPHRASE, cost=LIGHT).make("phone", "daily", now_ms=1)
    with pytest.raises(KeyProblem, match="key_file_exists"):
        KeyFile.create(path, "another", cost=LIGHT)
    assert KeyFile.open(path, PASSPHRASE).keys == (key,)


def test_a_label_stands_for_one_key(path: Path) -> None:
    keys = KeyFile.create(path, PASSPHRASE, cost=LIGHT)
    keys.make("phone", "daily", now_ms=1)
    with pytest.raises(KeyProblem, match="key_label_taken"):
        keys.make("phone", "recovery", now_ms=2)


def test_a_key_is_found_by_label_or_by_the_beginning_of_its_id(path: Path) -> None:
    keys = KeyFile.create(path, PASSPHRASE, cost=LIGHT)
    key = keys.make("phone", "daily", now_ms=1)
    assert keys.find("phone") == keys.find(key.signer.key_id.hex()[:8]) == key
    with pytest.raises(KeyProblem, match="key_not_found"):
        keys.find(key.signer.key_id.hex()[:7])


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"version": 2}, "key_file_version_unknown"),
    ({"kdf": "scrypt"}, "key_file_version_unknown"),
    ({"memory_bytes": 1 << 40}, "key_file_malformed"),
    ({"operations": 0}, "key_file_malformed"),
    ({"operations": 2}, "passphrase_wrong"),
    ({"salt": "AAAA"}, "key_file_malformed"),
    ({"sealed": "AAAA"}, "passphrase_wrong"),
    ({"sealed": 7}, "key_file_malformed"),
    ({"more": 1}, "key_file_malformed"),
]


@pytest.mark.parametrize(("change", "code"), CHANGES)
def test_a_changed_file_is_refused(path: Path, change: dict[str, Any], code: str) -> None:
    KeyFile.create(path, PASSPHRASE, cost=LIGHT)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(KeyProblem) as raised:
        KeyFile.open(path, PASSPHRASE)
    assert raised.value.code == code
