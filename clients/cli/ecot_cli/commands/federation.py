# SPDX-License-Identifier: AGPL-3.0-or-later
"""Partner ledgers."""

from typing import Final

from ecot_cli.amounts import format_amount, scale_of
from ecot_cli.framework import Command
from ecot_cli.run import Run
from ecot_client.models import LedgerInfo


async def peers(run: Run) -> None:
    """List the partner ledgers, and what is owed between them and us."""
    async with run.node() as node:
        info = await node.info()
        found = [one async for one in node.peers()]
    if run.out.json(found):
        return
    run.out.table(
        ("partner", "status", "balance>", "limit>", "id"),
        (
            (
                one.domain or one.origin,
                run.out.word("peer", one.status),
                _shown(run, info, one.balance_minor, one.unit),
                _shown(run, info, one.limit_minor, one.unit),
                one.ledger,
            )
            for one in found
        ),
    )


def _shown(run: Run, info: LedgerInfo, minor: int | None, unit: str | None) -> str | None:
    if minor is None or unit is None:
        return None
    return format_amount(minor, scale_of(info, unit), unit, run.locale)


FEDERATION_COMMANDS: Final = (Command("peers", peers),)
