# SPDX-License-Identifier: AGPL-3.0-or-later
"""Back a node up, and restore it from a backup so that it can't begin a second history."""

import shutil
from pathlib import Path

from ecot_node.config import FILE_NAME, GENESIS_DRAFT, KEYS_FOLDER, RESTORED_MARK, ConfigError, load_settings
from ecot_node.ledger.node_keys import load_keys
from ecot_node.store.address_book import FILE_NAME as ADDRESSES_FILE
from ecot_node.store.backup import Manifest, read_erasures, restore, write_backup

LOG_FILE = "log.db"
ERASURES_FILE = "erasures.jsonl"
"""List of erasures, kept beside the backups; see `ecot-node erase`."""


def backup_node(folder: Path, file: Path) -> Manifest:
    """Copy the log of the node in `folder`, which may run, into the new `file`.

    Raises:
        ConfigError: the node keeps its log in PostgreSQL, which has a tool of its own.
        StoreError: there is no log yet, or it can't be read.
        FileExistsError: `file` exists.
    """
    if load_settings(folder).store.kind != "sqlite":
        raise ConfigError("the log is in PostgreSQL: back up its schema `ecot` with pg_dump")
    return write_backup(folder / LOG_FILE, file)


def restore_node(backup: Path, folder: Path, keys: Path, erasures: Path | None) -> Manifest:
    """Unpack `backup` into `folder` with the keys and settings of `keys`, and mark it as restored.

    Args:
        backup: file of `ecot-node backup`.
        folder: new.
        keys: folder that holds ``keys/`` and ``node.toml``.
        erasures: what was erased since the backup; by default the list in `keys`.

    Raises:
        StoreError: the backup is damaged.
        FileExistsError: the folder is not empty.
        KeyProblem: the keys are missing.
        ConfigError: there is no node.toml beside them, no list where `erasures` says, or the backup was made before
            the ledger began.
    """
    load_keys(keys / KEYS_FOLDER)
    if not (keys / FILE_NAME).is_file():
        raise ConfigError(f"{keys / FILE_NAME} is missing: expected the settings beside the keys")
    if erasures is not None and not erasures.is_file():
        raise ConfigError(f"{erasures} is missing: expected a list of erasures")
    listed = erasures or keys / ERASURES_FILE
    manifest = restore(backup, folder, read_erasures(listed) if listed.is_file() else ())
    if manifest.size == 0:
        # The genesis would be recorded again, at another time: a second history of a ledger that may have begun.
        (folder / LOG_FILE).unlink()
        raise ConfigError(f"{backup} holds no record: expected a backup of a ledger that has begun")
    shutil.copytree(keys / KEYS_FOLDER, folder / KEYS_FOLDER)
    for name in (FILE_NAME, GENESIS_DRAFT, ERASURES_FILE, ADDRESSES_FILE):
        if (keys / name).is_file():
            shutil.copy2(keys / name, folder / name)
    (folder / RESTORED_MARK).write_text("every witness is asked before this node writes again\n", encoding="utf-8")
    return manifest
