# SPDX-License-Identifier: AGPL-3.0-or-later
"""Signature checks: in place when few wait, in worker processes when many do.

Never a thread call for each signature: it costs more than it gains (see docs/benchmarks.md). A worker gets a list of
``(public key, message, signature)`` and answers one byte each.
"""

import asyncio
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from typing import Final

import structlog

from ecot_protocol.wire.keys import is_signature_valid

log = structlog.get_logger("ecot.ledger")

SignedItem = tuple[bytes, bytes, bytes]
"""Public key (33 bytes), message, signature (64 bytes)."""
WORTH_A_WORKER: Final = 48
"""Fewer signatures than this are checked in place: handing them over would take as long."""


def verify_signatures(items: Sequence[SignedItem]) -> bytes:
    """Check signatures; one byte each, 1 if good."""
    return bytes(is_signature_valid(*item) for item in items)


def make_pool(worker_count: int) -> ProcessPoolExecutor:
    """Return processes for `verify_signatures`. They are forked by a server of their own: this process has threads."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ecot_node.ledger.signatures"])
    return ProcessPoolExecutor(worker_count, mp_context=context)


class SignatureChecker:
    """Checks lists of signatures.

    Args:
        worker_count: processes to use; 0 checks everything in place.
    """

    def __init__(self, worker_count: int) -> None:
        self._worker_count = worker_count
        self._pool: ProcessPoolExecutor | None = None

    def start(self) -> None:
        """Start the workers."""
        if self._worker_count:
            self._pool = make_pool(self._worker_count)

    async def warm_up(self) -> None:
        """Wait until every worker has answered once."""
        if self._pool is not None:
            loop = asyncio.get_running_loop()
            calls = (loop.run_in_executor(self._pool, verify_signatures, ()) for _ in range(self._worker_count))
            await asyncio.gather(*calls)

    def stop(self) -> None:
        """End the workers."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    @property
    def has_workers(self) -> bool:
        """Whether there are any."""
        return self._pool is not None

    def is_worth_a_worker(self, count: int) -> bool:
        """Tell whether so many signatures go to the workers."""
        return self._pool is not None and count >= WORTH_A_WORKER

    async def check(self, items: Sequence[SignedItem]) -> bytes:
        """Check signatures; one byte each, 1 if good."""
        pool = self._pool
        if pool is None or len(items) < WORTH_A_WORKER:
            return verify_signatures(items)
        loop = asyncio.get_running_loop()
        size = -(-len(items) // self._worker_count)
        parts = [items[start : start + size] for start in range(0, len(items), size)]
        try:
            return b"".join(
                await asyncio.gather(*(loop.run_in_executor(pool, verify_signatures, part) for part in parts))
            )
        except BrokenExecutor:  # a worker was killed, perhaps for want of memory: what waits must not suffer for it
            log.warning("signature_worker_lost")
            if self._pool is pool:
                pool.shutdown(wait=False, cancel_futures=True)
                self._pool = make_pool(self._worker_count)
            return verify_signatures(items)
