# SPDX-License-Identifier: AGPL-3.0-or-later
"""How many entries a second this machine takes, through the client library, with receipts checked."""

import asyncio
import random
import time
from typing import Final

from ecot_cli.demo.act_members import payment
from ecot_cli.demo.cast import Coop
from ecot_client.posting import require_recorded
from ecot_protocol.wire.entry import Entry

ENTRY_COUNT: Final = 2_000
BATCH: Final = 250
CALLERS: Final = 4
SINGLE_COUNT: Final = 200


async def measure(coop: Coop) -> dict[str, tuple[int, float]]:
    """Return kind of posting -> (entries, seconds). Entries are signed before the clock starts."""
    batched = await _sign(coop, ENTRY_COUNT)
    singles = await _sign(coop, SINGLE_COUNT)
    found = {}
    started = time.perf_counter()
    batches = [batched[start : start + BATCH] for start in range(0, len(batched), BATCH)]
    await asyncio.gather(*(_post(coop, batches[number::CALLERS]) for number in range(CALLERS)))
    found["col_batches"] = (len(batched), time.perf_counter() - started)
    started = time.perf_counter()
    one_by_one = [[entry] for entry in singles]
    await asyncio.gather(*(_post(coop, one_by_one[number::CALLERS]) for number in range(CALLERS)))
    found["col_singles"] = (len(singles), time.perf_counter() - started)
    return found


async def _sign(coop: Coop, count: int) -> list[Entry]:
    draw = random.Random(count)
    entries = []
    for _ in range(count):
        payer, payee = draw.sample(coop.actors, 2)
        entries.append(await payment(coop, payer, payee.member, 1))
    return entries


async def _post(coop: Coop, batches: list[list[Entry]]) -> None:
    for batch in batches:
        for result in await coop.client.post(batch):
            require_recorded(result)
