# SPDX-License-Identifier: AGPL-3.0-or-later
"""The only place that chooses adapters: the store, the views, the transport."""

from collections.abc import Sequence
from pathlib import Path

from ecot_node.config import ConfigError, Settings
from ecot_node.domains.database import ViewsDatabase
from ecot_node.federation.port import Transport
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


def make_transport(identity_seed: bytes, listen: Sequence[str]) -> Transport:
    """Return the transport to partners, not started. libp2p is loaded here and nowhere else.

    Args:
        identity_seed: 32 bytes, the node's host key.
        listen: multiaddresses.
    """
    from ecot_node.federation.libp2p_host import Libp2pTransport

    return Libp2pTransport(identity_seed=identity_seed, listen_addresses=tuple(listen))
