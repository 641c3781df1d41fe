# SPDX-License-Identifier: AGPL-3.0-or-later
"""Settings of a node: `node.toml` in its folder, overridden by the environment (`ECOT_NODE_HTTP__PORT=8080`).

Every setting is documented in docs/operating/settings.md; a test fails if one is missing there.
"""

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from ecot_protocol.errors import EcotError

FILE_NAME: Final = "node.toml"
KEYS_FOLDER: Final = "keys"
SNAPSHOTS_FOLDER: Final = "snapshots"
GENESIS_DRAFT: Final = "genesis.draft"
RESTORED_MARK: Final = "restored"
"""File that `restore` leaves: the next start waits for every witness before it writes."""

Port = Annotated[int, Field(ge=0, le=65_535)]


class ConfigError(EcotError):
    """A setting is missing or wrong; the message says which and what was expected."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class HttpSettings(_Section):
    """The HTTP server."""

    host: str = "127.0.0.1"
    port: Port = 8484
    trusted_proxies: tuple[str, ...] = ()
    max_connections: Annotated[int, Field(ge=1, le=100_000)] = 1_000
    requests_per_minute: Annotated[int, Field(ge=1, le=10_000_000)] = 6_000
    entries_per_minute: Annotated[int, Field(ge=1, le=100_000_000)] = 60_000


class LedgerSettings(_Section):
    """The ledger.

    `signature_workers` processes check signatures (0: in place). `verify_after_start_s` seconds after a start the whole
    log is verified again in a process of low priority (0: never).
    """

    seal_interval_s: Annotated[int, Field(ge=1, le=86_400)] = 3_600
    signature_workers: Annotated[int, Field(ge=0, le=64)] = 0
    verify_after_start_s: Annotated[int, Field(ge=0, le=86_400)] = 60


class StoreSettings(_Section):
    """Where the log is kept. `url` is for PostgreSQL only."""

    kind: Literal["sqlite", "postgres"] = "sqlite"
    url: str = ""


class PeerSettings(_Section):
    """Where a partner is found. What it may do stands in the ledger, never here."""

    ledger: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    addresses: tuple[str, ...] = ()
    url: str = ""


class FederationSettings(_Section):
    """The connection to partner nodes over libp2p. `announce` is where partners reach the node from outside.

    `relay` lets the node serve as a relay for its partners; `relays`, with their ``/p2p/``, are those it uses.
    """

    enabled: bool = False
    listen: tuple[str, ...] = ("/ip4/0.0.0.0/tcp/8485",)
    announce: Annotated[tuple[str, ...], Field(max_length=8)] = ()
    mdns: bool = False
    relay: bool = False
    relay_circuit_mib: Annotated[int, Field(ge=0, le=1_000_000)] = 1_024
    relays: Annotated[tuple[str, ...], Field(max_length=3)] = ()
    peers: tuple[PeerSettings, ...] = ()


class LogSettings(_Section):
    """What the node says of itself on standard error."""

    format: Literal["console", "json"] = "console"
    level: Literal["debug", "info", "warning", "error"] = "info"


class Settings(BaseSettings):
    """All settings of a node."""

    model_config = SettingsConfigDict(env_prefix="ECOT_NODE_", env_nested_delimiter="__", extra="forbid", frozen=True)

    http: HttpSettings = HttpSettings()
    ledger: LedgerSettings = LedgerSettings()
    store: StoreSettings = StoreSettings()
    federation: FederationSettings = FederationSettings()
    log: LogSettings = LogSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the environment first, then the file that `load_settings` names."""
        return (init_settings, env_settings, TomlConfigSettingsSource(settings_cls))


def load_settings(folder: Path) -> Settings:
    """Read the settings of the node in `folder`.

    Raises:
        ConfigError: there is no node.toml, or a setting is unknown or out of its range.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        raise ConfigError(f"{path} is missing: run `ecot-node init {folder}` first")
    bound = type("_Bound", (Settings,), {"model_config": SettingsConfigDict(toml_file=path)})
    try:
        settings = bound()
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error
    assert isinstance(settings, Settings)
    return settings
