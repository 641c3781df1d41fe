# SPDX-License-Identifier: AGPL-3.0-or-later
"""The only place that chooses adapters: the store and the views."""

from pathlib import Path

from ecot_node.config import ConfigError, Settings
from ecot_node.domains.database import ViewsDatabase
from ecot_node.store.port import LogStore
from ecot_node.store.sqlite import SqliteStore


def make_store(folder: Path, settings: Settings) -> LogStore:
    """Return the store that the settings name, closed.

    Raises:
        ConfigError: PostgreSQL without a URL.
    """
    if settings.store.kind == "sqlite":
        return SqliteStore(folder)
    if not settings.store.url:
        raise ConfigError("store.url is empty: expected postgresql://...")
    from ecot_node.store.postgres import PostgresStore

    return PostgresStore(settings.store.url)


def make_views(folder: Path) -> ViewsDatabase:
    """Return the views of the node in `folder`, closed."""
    return ViewsDatabase(folder)
