# SPDX-License-Identifier: AGPL-3.0-or-later
"""The faults that the store in memory makes on demand."""

import asyncio

import pytest

from ecot_node.store.errors import StoreFailed, StoreFull
from ecot_node.store.memory import MemoryDisk, MemoryStore
from ecot_node.store.port import CommitGroup, RecordRow


def group(index: int) -> CommitGroup:
    row = RecordRow(index, index.to_bytes(16, "big"), index, b"record", bytes(32))
    return CommitGroup(size=index + 1, records=[row], checkpoint=b"note %d" % (index + 1))


async def test_a_fault_fails_one_write_and_keeps_nothing_of_it() -> None:
    store = MemoryStore()
    await store.open(ledger=None)
    store.fail_next_write(StoreFull("no space"))
    with pytest.raises(StoreFull):
        await store.commit(group(0))
    with pytest.raises(StoreFailed, match="earlier write failed"):
        await store.commit(group(1))
    assert (await store.reopen()).size == 0
    await store.commit(group(0))


@pytest.mark.parametrize("keep", range(4))
async def test_a_crash_keeps_a_prefix_of_the_commits_on_their_way(keep: int) -> None:
    disk = MemoryDisk()
    store = MemoryStore(disk)
    await store.open(ledger=None)
    await store.commit(group(0))
    store.hold()
    waiting = [asyncio.ensure_future(store.commit(group(n))) for n in range(1, 4)]
    await asyncio.sleep(0)
    assert not any(one.done() for one in waiting)
    store.crash(keep=keep)
    await asyncio.wait(waiting)
    assert all(one.cancelled() for one in waiting)
    opened = await MemoryStore(disk).open(ledger=None)
    assert (opened.size, opened.checkpoint) == (1 + keep, b"note %d" % (1 + keep))


async def test_held_commits_are_released_in_order() -> None:
    store = MemoryStore()
    await store.open(ledger=None)
    store.hold()
    waiting = [asyncio.ensure_future(store.commit(group(n))) for n in range(3)]
    await asyncio.sleep(0)
    store.release(1)
    await waiting[0]
    assert [one.done() for one in waiting] == [True, False, False]
    assert len(await store.records(0, 9)) == 1
    store.release()
    await asyncio.gather(*waiting)
    assert len(await store.records(0, 9)) == 3
