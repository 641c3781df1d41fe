# SPDX-License-Identifier: AGPL-3.0-or-later
"""Verify the log again behind a running node: a start checks the tree and the rules, not every signature.

It is `ecot-node verify` in a process of its own, of the lowest priority, so that it takes nothing from the node.
"""

import asyncio
import os
import sys
from pathlib import Path
from typing import Final

import structlog

from ecot_node.ledger.writer import Writer

log = structlog.get_logger("ecot.verify")

EXIT_CORRUPT: Final = 3
NICENESS: Final = 19


async def verify_again(folder: Path, writer: Writer, after_s: float) -> None:
    """Wait, verify, and block the writer if the log is wrong.

    Args:
        folder: of the node.
        writer: of the node; blocked with ``log_corrupt``.
        after_s: seconds to wait first.
    """
    await asyncio.sleep(after_s)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "ecot_node", "verify", str(folder), "--workers", "0", "--json"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=lambda: os.nice(NICENESS),
    )
    try:
        _, told = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    if process.returncode == EXIT_CORRUPT:
        log.error("log_corrupt", told=told.decode(errors="replace").strip())
        writer.block("log_corrupt")
    elif process.returncode:
        log.warning("log_not_verified", told=told.decode(errors="replace").strip()[-500:])
    else:
        log.info("log_verified")
