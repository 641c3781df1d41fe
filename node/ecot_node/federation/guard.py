# SPDX-License-Identifier: AGPL-3.0-or-later
"""The guard against a second history: before it writes, a node asks its witnesses how far they saw its log.

If one saw more than the store holds, an old backup was restored: the node then serves reads only, shows both
checkpoints, and takes no entry until the missing records are back or the operator starts a successor ledger.

After an ordinary start the guard waits `ASK_TIMEOUT_S` and goes on with the answers that it has. After a `restore` it
goes on only when every witness has answered, because then being behind is likely.
"""

import asyncio
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

import aiohttp
import msgspec
import structlog

from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.wire.checkpoint import open_checkpoint
from ecot_protocol.wire.note import NoteVerifier

log = structlog.get_logger("ecot.guard")

ASK_TIMEOUT_S: Final = 3.0
ASK_AGAIN_S: Final = 2.0
MAX_NOTE_BYTES: Final = 65_536


class WitnessAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a witness says of our log.

    Attributes:
        url: whom we asked.
        is_reached: False if it did not answer.
        size: of the newest checkpoint of ours that it keeps; 0 for none.
        note: that checkpoint.
    """

    url: str
    is_reached: bool
    size: int
    note: bytes


async def ask_witness(session: aiohttp.ClientSession, url: str, log_key: NoteVerifier) -> WitnessAnswer:
    """Ask a witness for the newest checkpoint of our log that it cosigned (C2SP tlog-witness, read side)."""
    unreached = WitnessAnswer(url=url, is_reached=False, size=0, note=b"")
    path = f"{url.rstrip('/')}/witness/{sha256(log_key.name.encode()).hexdigest()}/checkpoint"
    try:
        async with session.get(path, timeout=aiohttp.ClientTimeout(ASK_TIMEOUT_S)) as response:
            if response.status == 404:  # it knows no checkpoint of ours, or does not witness us yet
                return WitnessAnswer(url=url, is_reached=True, size=0, note=b"")
            if response.status != 200:
                return unreached
            note = await response.content.read(MAX_NOTE_BYTES)
    except (aiohttp.ClientError, TimeoutError, OSError):
        return unreached
    try:
        checkpoint = open_checkpoint(note, [log_key]).checkpoint
    except RemoteProtocolError as error:
        # Not signed by us: the witness proves nothing, whatever it claims.
        log.warning("witness_answer_refused", url=url, code=error.code)
        return WitnessAnswer(url=url, is_reached=True, size=0, note=b"")
    return WitnessAnswer(url=url, is_reached=True, size=checkpoint.size, note=note)


async def ask_witnesses(urls: Sequence[str], log_key: NoteVerifier) -> list[WitnessAnswer]:
    """Ask every witness at once."""
    async with aiohttp.ClientSession() as session:
        return list(await asyncio.gather(*(ask_witness(session, url, log_key) for url in urls)))


def find_ahead(answers: Sequence[WitnessAnswer], size: int) -> WitnessAnswer | None:
    """Return the witness that saw most of our log beyond `size`, or None."""
    ahead = [answer for answer in answers if answer.size > size]
    return max(ahead, key=lambda answer: answer.size, default=None)
