# SPDX-License-Identifier: AGPL-3.0-or-later
"""Three cooperatives on this machine: `ecot demo`."""

import os
import sys
from pathlib import Path
from typing import Annotated, Final

from rich.console import Console

from ecot_cli.demo.checks import DemoFailed, Teller
from ecot_cli.demo.story import Demo
from ecot_cli.framework import Command, option
from ecot_cli.run import Run


async def demo(
    run: Run,
    once: Annotated[bool, option("--once/--stay", "demo_once", envvar="DEMO_ONCE")] = False,
    plays: Annotated[Path | None, option("--plays", "demo_plays", envvar="DEMO_PLAYS")] = None,
) -> None:
    """Start three nodes, let members trade, vote, share and federate, and check every claim.

    Raises:
        DemoFailed: a check did not hold.
    """
    console = Console(file=sys.stderr if run.options.is_json else sys.stdout, width=_width())
    teller = Teller(console, run.locale)
    chosen = plays if plays is not None and str(plays) != "" else None
    await Demo(teller, chosen).run(stays_up=not once)
    report = {"held": teller.held, "failed": teller.failed}
    run.out.json(report)
    if teller.failed:
        raise DemoFailed("demo_failed", count=len(teller.failed))


def _width() -> int | None:
    """Return how wide lines are where no terminal says it."""
    return None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", "100"))


DEMO_COMMANDS: Final = (Command("demo", demo),)
