# SPDX-License-Identifier: AGPL-3.0-or-later
"""The schema of `log.db`, one Alembic migration a number, run by `open` under the exclusive lock."""

from pathlib import Path
from typing import Final

import structlog
from sqlalchemy import Connection

FOLDER: Final = Path(__file__).parent
_log = structlog.get_logger("ecot_node.store")


def migrate(connection: Connection, *, found: int, wanted: int) -> None:
    """Bring the store behind `connection` from schema `found` (0: empty) to `wanted`, in one transaction.

    Alembic is imported here: it costs a third of a second, and most starts need no migration.
    """
    from alembic import command
    from alembic.config import Config

    _log.info("store_migration_started", found=found, wanted=wanted)
    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, f"{wanted:04d}")
    _log.info("store_migration_done", found=found, wanted=wanted)
