# SPDX-License-Identifier: AGPL-3.0-or-later
"""The only place that chooses adapters: the store, the views, the transport."""

from pathlib import Path

from ecot_node.config import ConfigError, FederationSettings, Settings
from ecot_node.domains.database import ViewsDatabase
from ecot_node.federation.port import Relaying, RelayLimits, Transport
from ecot_node.store.port import LogStore
from ecot_node.store.sqlite import SqliteStore
from ecot_protocol.errors import LocalProtocolError


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


def make_transport(identity_seed: bytes, settings: FederationSettings) -> Transport:
    """Return the transport to partners, not started. libp2p is loaded here and nowhere else.

    Args:
        identity_seed: 32 bytes, the node's host key.
        settings: where it listens, its relays, and whether it is one.

    Raises:
        ConfigError: an address is malformed.
    """
    from ecot_node.federation.libp2p_host import Libp2pTransport

    serves = RelayLimits(circuit_mib=settings.relay_circuit_mib) if settings.relay else None
    try:
        return Libp2pTransport(
            identity_seed=identity_seed,
            listen_addresses=settings.listen,
            relaying=Relaying(relays=settings.relays, serves=serves),
        )
    except LocalProtocolError as error:
        raise ConfigError(f"federation: {error}") from error
