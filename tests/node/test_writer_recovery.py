# SPDX-License-Identifier: AGPL-3.0-or-later
"""The writer after a failed commit, when the views are in trouble too: a full disk stops both at once."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from ledger_kit import LedgerKit, seed
from writer_kit import entries_of

from ecot_node.ledger import follow
from ecot_node.ledger import writer as writer_module
from ecot_node.ledger.clock import RecordClock
from ecot_node.ledger.errors import NotWriting
from ecot_node.ledger.port import RecordedEntry
from ecot_node.ledger.writer import Writer, WriterKeys
from ecot_node.store.errors import StoreFailed, StoreFull
from ecot_node.store.memory import MemoryStore
from ecot_node.store.port import CommitGroup
from ecot_protocol.wire.encoding import encode
from ecot_protocol.wire.entry import Entry
from ecot_protocol.wire.reply import Recorded, RecordedBefore, Refused, Unknown


class FakeViews:
    """Views that remember what they were shown, as strictly as the real ones, and can be out of order."""

    def __init__(self) -> None:
        self.shown: list[int] = []
        self.is_broken = False

    async def position(self) -> int:
        return len(self.shown)

    async def apply(self, entries: Sequence[RecordedEntry]) -> None:
        await asyncio.sleep(0)
        if self.is_broken:
            raise OSError("the disk of the views is full")
        assert [one.index for one in entries] == list(range(len(self.shown), len(self.shown) + len(entries)))
        self.shown += [one.index for one in entries]

    async def reset(self) -> None:
        self.shown = []

    async def swap(self) -> None:
        """Nothing stands beside."""


class ForgetfulStore(MemoryStore):
    """A store whose next commit is durable although it says that it failed."""

    def __init__(self) -> None:
        super().__init__()
        self.forgets = False

    async def commit(self, group: CommitGroup) -> None:
        await super().commit(group)
        if self.forgets:
            self.forgets = False
            self.fail_next_write(StoreFailed("the answer was lost"))
            await super().meta_put("any", b"")


@pytest.fixture
def kit() -> LedgerKit:
    kit = LedgerKit()
    for number in range(6):
        kit.join(f"member{number}")
    return kit


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "RETRY_PAUSE_S", 0.001)


def make(kit: LedgerKit, store: MemoryStore, views: FakeViews, snapshots: Path | None = None) -> Writer:
    return Writer(
        store,
        kit.machine,
        WriterKeys(kit.agent, seed(kit.name + "log"), os.urandom),
        views=views,
        snapshots=snapshots,
        clock_of=lambda newest: RecordClock(newest, wall=lambda: kit.now, monotonic=lambda: kit.now),
    )


async def shows_all(writer: Writer) -> bool:
    return await writer.wait_for(writer.status().size - 1, 30)


async def record(writer: Writer, entries: list[Entry]) -> None:
    reply = await writer.submit(entries)
    assert all(isinstance(one, Recorded) for one in reply.outcomes), reply.outcomes


async def test_a_full_disk_is_told_as_such_although_the_views_fail_too(kit: LedgerKit) -> None:
    entries, store, views = entries_of(kit), MemoryStore(), FakeViews()
    writer = make(kit, store, views)
    await writer.start()
    await record(writer, entries[:3])
    assert await shows_all(writer)
    views.is_broken = True
    await record(writer, entries[3:5])
    store.fail_next_write(StoreFull("no space left"))
    reply = await writer.submit(entries[5:6])
    assert reply.outcomes == (Refused("not_recorded", ()),)
    assert writer.status().reason == "store_full"
    await writer.stop()


async def test_views_that_were_behind_a_failed_commit_catch_up_once(kit: LedgerKit) -> None:
    entries, store, views = entries_of(kit), MemoryStore(), FakeViews()
    writer = make(kit, store, views)
    await writer.start()
    views.is_broken = True
    await record(writer, entries[:4])
    store.fail_next_write()
    await writer.submit(entries[4:5])
    await record(writer, entries[4:])
    views.is_broken = False
    assert await shows_all(writer)
    assert views.shown == list(range(len(entries)))
    await writer.stop()


async def test_views_show_a_commit_that_was_durable_although_it_failed(kit: LedgerKit) -> None:
    entries, store, views = entries_of(kit), ForgetfulStore(), FakeViews()
    writer = make(kit, store, views)
    await writer.start()
    await record(writer, entries[:4])
    store.forgets = True
    reply = await writer.submit(entries[4:6])
    assert [type(one) for one in reply.outcomes] == [RecordedBefore, RecordedBefore]
    await record(writer, entries[6:])
    assert await shows_all(writer)
    assert views.shown == list(range(len(entries)))
    await writer.stop()


async def test_a_row_is_not_proven_against_a_seal_that_was_not_recorded(kit: LedgerKit) -> None:
    store = MemoryStore()
    writer = make(kit, store, FakeViews())
    await writer.start()
    await record(writer, entries_of(kit))
    member = next(iter(kit.state.membership.members))
    store.fail_next_write()
    with pytest.raises(NotWriting):
        await writer.prove([("membership.members", encode(member))])
    proofs = await writer.prove([("membership.members", encode(member))])
    assert proofs[0].seal_index == writer.status().size - 1
    await writer.stop()


async def test_an_entry_is_not_said_to_be_refused_when_nobody_can_tell(kit: LedgerKit) -> None:
    entries, store = entries_of(kit), MemoryStore()
    writer = make(kit, store, FakeViews())
    await writer.start()

    async def fail_after(group: CommitGroup) -> None:
        await MemoryStore.commit(store, group)
        raise RuntimeError("a fault of ours, after the commit")

    store.commit = fail_after  # type: ignore[method-assign]
    reply = await writer.submit(entries[:1])
    assert reply.outcomes == (Unknown("outcome_unknown"),)
    assert writer.status().reason == "store_failed"
    await writer.stop()


async def test_a_snapshot_beyond_the_views_is_not_begun_from(kit: LedgerKit, tmp_path: Path) -> None:
    entries, store, views = entries_of(kit), MemoryStore(), FakeViews()
    writer = make(kit, store, views, tmp_path)
    await writer.start()
    views.is_broken = True
    await record(writer, entries[:6])
    await writer.seal()
    store.fail_next_write()
    await writer.submit(entries[6:7])
    views.is_broken = False
    await record(writer, entries[6:])
    assert await shows_all(writer)
    assert views.shown == list(range(len(entries) + 1))
    await writer.stop()


@pytest.mark.parametrize("is_full", [False, True])
async def test_a_store_in_which_a_small_write_failed_is_mended_without_an_entry(
    kit: LedgerKit, monkeypatch: pytest.MonkeyPatch, is_full: bool
) -> None:
    monkeypatch.setattr(writer_module, "LOOK_INTERVAL_S", 0.001)
    entries, store, views = entries_of(kit), MemoryStore(), FakeViews()
    writer = make(kit, store, views)
    await writer.start()
    await record(writer, entries[:3])
    store.fail_next_write(StoreFull("no space left") if is_full else None)
    with pytest.raises(StoreFailed):
        await store.meta_put("cosigned", b"a partner's checkpoint")
    async with asyncio.timeout(20):
        while store.failure() is not None:  # noqa: ASYNC110  the store tells nobody that it is well again
            await asyncio.sleep(0)
    await store.meta_put("cosigned", b"a partner's checkpoint")
    assert await writer.read(lambda state: state.size) == 3
    if is_full:  # an operator must make room
        assert writer.status().reason == "store_full"
    else:
        await record(writer, entries[3:])
    await writer.stop()
