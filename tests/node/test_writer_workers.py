# SPDX-License-Identifier: AGPL-3.0-or-later
"""Signatures checked by workers: in order, ahead of the group at work, and whatever becomes of the workers."""

import asyncio
import os
import signal

from ledger_kit import LedgerKit
from writer_kit import check_reply, entries_of, make_writer

from ecot_node.ledger.signatures import WORTH_A_WORKER, SignatureChecker, verify_signatures
from ecot_node.store.memory import MemoryStore
from ecot_protocol.wire.entry import Entry, Signature
from ecot_protocol.wire.keys import Signer
from ecot_protocol.wire.reply import Recorded, Refused

MANY = 3 * WORTH_A_WORKER


def _forged(entry: Entry) -> Entry:
    (first, *others) = entry.signatures
    return Entry(entry.body, (Signature(first.key_id, bytes(64)), *others), entry.attachments)


async def test_groups_checked_ahead_are_recorded_in_order_and_forgeries_refused() -> None:
    kit = LedgerKit()
    for number in range(60):
        kit.join(f"member{number}")
    first, *rest = entries_of(kit)
    forged = {7, 8, len(rest) - 1}
    posted = [_forged(one) if number in forged else one for number, one in enumerate(rest)]
    checker = SignatureChecker(2)
    checker.start()
    writer = make_writer(MemoryStore(), kit, checker=checker)
    await writer.start()
    try:
        await writer.submit([first])
        size = len(posted) // 2
        parts = [posted[:size], posted[size:]]
        replies = await asyncio.gather(*map(writer.submit, parts))
        outcomes = [outcome for reply in replies for outcome in reply.outcomes]
        refused = {number for number, one in enumerate(outcomes) if isinstance(one, Refused)}
        assert forged <= refused
        assert {one.code for number, one in enumerate(outcomes) if number in forged and isinstance(one, Refused)} == {
            "bad_signature"
        }
        indexes = [one.index for one in outcomes if isinstance(one, Recorded)]
        assert indexes == list(range(1, len(indexes) + 1))
        for part, reply in zip(parts, replies, strict=True):
            check_reply(kit, part, reply)
    finally:
        await writer.stop()
        checker.stop()


async def test_a_killed_worker_costs_no_entry() -> None:
    signer = Signer(bytes(32))
    good = (signer.public_key, b"message", signer.sign(b"message"))
    bad = (signer.public_key, b"another", good[2])
    items = [good, bad] * (MANY // 2)
    checker = SignatureChecker(2)
    checker.start()
    try:
        await checker.warm_up()
        assert checker._pool is not None
        for pid in list(checker._pool._processes):
            os.kill(pid, signal.SIGKILL)
        assert await checker.check(items) == verify_signatures(items)
        assert await checker.check(items) == verify_signatures(items)  # by new workers
        assert checker.has_workers
    finally:
        checker.stop()
