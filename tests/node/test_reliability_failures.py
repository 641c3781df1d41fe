# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a node does when its disk fails it: nobody is told what does not hold, and nothing stops that need not."""

import asyncio
from pathlib import Path

import pytest
from ledger_kit import LedgerKit
from node_kit import application, make_founded, query, serve
from writer_kit import check_reply, entries_of, make_writer

from ecot_node.http.errors import headers_of
from ecot_node.ledger import writer as writer_module
from ecot_node.ledger.errors import NotWriting
from ecot_node.store.errors import StoreError, StoreFailed, StoreFull
from ecot_node.store.memory import MemoryStore
from ecot_node.store.port import OpenedLog
from ecot_protocol.wire.reply import Unknown


class LostStore(MemoryStore):
    """A store that can't be opened again once a write has failed: the disk is gone."""

    is_lost = False

    async def reopen(self) -> OpenedLog:
        if self.is_lost:
            raise StoreFailed("no such device")
        return await super().reopen()


@pytest.fixture
def kit() -> LedgerKit:
    kit = LedgerKit()
    for number in range(3):
        kit.join(f"member{number}")
    return kit


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "REOPEN_PAUSE_S", 0.0)


async def test_a_snapshot_that_cannot_be_written_stops_nobody(kit: LedgerKit, tmp_path: Path) -> None:
    place = tmp_path / "snapshots"
    place.write_text("not a folder")
    entries = entries_of(kit)
    writer = make_writer(MemoryStore(), kit, snapshots=place)
    await writer.start()
    await writer.submit(entries[:3])
    _, reply = await asyncio.gather(writer.seal(), writer.submit(entries[3:]))
    check_reply(kit, entries[3:], reply)
    assert writer.status().mode == "writing"
    await writer.seal()
    await writer.stop()


@pytest.mark.parametrize(
    ("error", "reason"), [(StoreFailed("EIO"), "store_failed"), (StoreFull("ENOSPC"), "store_full")]
)
async def test_what_did_not_become_durable_is_never_read(kit: LedgerKit, error: StoreError, reason: str) -> None:
    entries = entries_of(kit)
    store = LostStore()
    writer = make_writer(store, kit)
    await writer.start()
    await writer.submit(entries[:3])
    before = await writer.read(lambda state: state.size)
    store.fail_next_write(error)
    store.is_lost = True
    reply = await writer.submit(entries[3:])
    assert reply.outcomes == tuple(Unknown("outcome_unknown") for _ in entries[3:])
    assert writer.status().reason == reason
    with pytest.raises(StoreError):
        await writer.read(lambda state: state.size)
    assert writer.status().size == before
    with pytest.raises(NotWriting, match=reason):
        await writer.submit(entries[3:])
    store.is_lost = False
    await writer.stop()


def test_views_that_know_more_than_the_log_are_made_anew(tmp_path: Path) -> None:
    """An old log.db was put back alone; what the newer records did must not stay in the lists."""
    folder = make_founded(tmp_path / "node")
    with serve(folder) as node:
        node.must_post(application(node.ledger, "ada")[0])
    old = (folder / "log.db").read_bytes()
    with serve(folder) as node:
        node.must_post(*(application(node.ledger, f"later{number}")[0] for number in range(3)))
        node.wait_for("views_size", node.ready()["size"])
    for path in folder.glob("log.db*"):
        path.unlink()
    (folder / "log.db").write_bytes(old)
    with serve(folder) as node:
        node.must_post(application(node.ledger, "bela")[0])
        node.wait_for("views_size", node.ready()["size"])
    handles = {row[0] for row in query(folder, "SELECT handle FROM members", file="views.db")}
    assert handles == {"ada", "bela"}


@pytest.mark.parametrize(("reason", "wait_s"), [("witness_unasked", "1"), ("stopping", "1"), ("store_full", "30")])
def test_callers_are_asked_back_when_it_may_be_over(reason: str, wait_s: str) -> None:
    assert headers_of(NotWriting(reason))["Retry-After"] == wait_s
