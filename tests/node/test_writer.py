# SPDX-License-Identifier: AGPL-3.0-or-later
"""The writer: groups, receipts, duplicates, failures, quarantine, seals, start."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from ledger_kit import DAY_MS, MACHINE, LedgerKit
from writer_kit import check_reply, entries_of, make_writer

from ecot_node.ledger.clock import RecordClock
from ecot_node.ledger.errors import NotWriting
from ecot_node.store.memory import MemoryDisk, MemoryStore
from ecot_node.store.sqlite import SqliteStore
from ecot_protocol.domains.membership.acts import LEAVE, Leave
from ecot_protocol.ledger.digest import position, verify_row
from ecot_protocol.machine import ENTRY_TYPES, Machine
from ecot_protocol.wire.encoding import encode
from ecot_protocol.wire.reply import Recorded, RecordedBefore, Refused


def kit_with_members(count: int = 3) -> LedgerKit:
    kit = LedgerKit()
    for number in range(count):
        kit.join(f"member{number}")
    return kit


async def test_every_caller_gets_a_proof_of_its_own_entries() -> None:
    kit = kit_with_members()
    entries = entries_of(kit)
    writer = make_writer(MemoryStore(), kit)
    await writer.start()
    for start in range(0, len(entries), 2):
        batch = entries[start : start + 2]
        check_reply(kit, batch, await writer.submit(batch))
    digest = await writer.read(lambda state: state.digest())
    assert digest == kit.state.digest()
    await writer.stop()


async def test_concurrent_callers_share_a_group_and_each_proof_holds() -> None:
    kit = kit_with_members()
    first, *rest = entries_of(kit)
    writer = make_writer(MemoryStore(), kit)
    await writer.start()
    await writer.submit([first])
    replies = await asyncio.gather(*(writer.submit([entry]) for entry in rest))
    for entry, reply in zip(rest, replies, strict=True):
        assert isinstance(reply.outcomes[0], Recorded)
        check_reply(kit, [entry], reply)
    await writer.stop()


async def test_the_same_body_again_answers_the_first_receipt() -> None:
    kit = kit_with_members()
    entries = entries_of(kit)
    writer = make_writer(MemoryStore(), kit)
    await writer.start()
    await writer.submit(entries)
    again = await writer.submit([entries[1], entries[1], entries[0]])
    assert [type(one) for one in again.outcomes] == [RecordedBefore] * 3
    check_reply(kit, [entries[1], entries[1], entries[0]], again)
    kit.now += 40 * DAY_MS
    late = await writer.submit([entries[1]])
    assert isinstance(late.outcomes[0], RecordedBefore)
    await writer.stop()


async def test_another_body_with_a_used_id_is_refused() -> None:
    kit = kit_with_members(1)
    entries = entries_of(kit)
    writer = make_writer(MemoryStore(), kit)
    await writer.start()
    await writer.submit(entries)
    ada = kit.join("other")
    clash = kit.entry("membership.leave", Leave(), **kit.by(ada), entry_id=ada.member)
    joined = entries_of(kit)[len(entries) :]
    await writer.submit(joined)
    reply = await writer.submit([clash])
    assert isinstance(reply.outcomes[0], Refused)
    assert reply.outcomes[0].code == "id_used"
    await writer.stop()


async def test_a_restart_replays_to_the_same_state(tmp_path: Path) -> None:
    kit = kit_with_members()
    writer = make_writer(SqliteStore(tmp_path), kit, snapshots=tmp_path / "snapshots")
    await writer.start()
    await writer.submit(entries_of(kit))
    await writer.seal()
    digest = await writer.read(lambda state: state.digest())
    await writer.stop()
    assert list((tmp_path / "snapshots").glob("*.state"))
    again = make_writer(SqliteStore(tmp_path), kit, snapshots=tmp_path / "snapshots")
    await again.start()
    assert await again.read(lambda state: state.digest()) == digest
    assert again.status().mode == "writing"
    await again.stop()


async def test_a_damaged_snapshot_is_passed_over(tmp_path: Path) -> None:
    kit = kit_with_members()
    writer = make_writer(SqliteStore(tmp_path), kit, snapshots=tmp_path / "snapshots")
    await writer.start()
    await writer.submit(entries_of(kit))
    await writer.seal()
    digest = await writer.read(lambda state: state.digest())
    await writer.stop()
    (snapshot,) = (tmp_path / "snapshots").glob("*.state")
    raw = bytearray(snapshot.read_bytes())
    raw[len(raw) // 2] ^= 1
    snapshot.write_bytes(raw)
    again = make_writer(SqliteStore(tmp_path), kit, snapshots=tmp_path / "snapshots")
    await again.start()
    assert await again.read(lambda state: state.digest()) == digest
    await again.stop()


async def test_a_failed_commit_tells_each_caller_what_the_store_holds() -> None:
    kit = kit_with_members()
    entries = entries_of(kit)
    store = MemoryStore()
    writer = make_writer(store, kit)
    await writer.start()
    await writer.submit(entries[:3])
    before = await writer.read(lambda state: state.digest())
    store.fail_next_write()
    reply = await writer.submit(entries[3:4])
    assert reply.outcomes == (Refused("not_recorded", ()),)
    assert await writer.read(lambda state: state.digest()) == before
    again = await writer.submit(entries[3:])
    check_reply(kit, entries[3:], again)
    assert await writer.read(lambda state: state.digest()) == kit.state.digest()
    await writer.stop()


async def test_an_effect_that_raises_is_quarantined_and_stops_nobody_twice() -> None:
    def break_down(_state: object, _act: object, _at: int) -> list[object]:
        _state.membership.members.take_changed()  # type: ignore[attr-defined]
        raise RuntimeError("broken effect")

    broken = replace(LEAVE, effect=break_down)
    machine = Machine(broken if one is LEAVE else one for one in ENTRY_TYPES)
    kit = kit_with_members()
    ada = kit.join("ada")
    entries = entries_of(kit)
    disk = MemoryDisk()
    writer = make_writer(MemoryStore(disk), kit, machine=machine)
    await writer.start()
    await writer.submit(entries)
    leave = kit.entry("membership.leave", Leave(), **kit.by(ada))
    reply = await writer.submit([leave])
    assert reply.outcomes == (Refused("quarantined", ()),)
    assert await writer.read(lambda state: state.digest()) == kit.state.digest()
    assert (await writer.submit([leave])).outcomes == (Refused("quarantined", ()),)
    await writer.stop()
    again = make_writer(MemoryStore(disk), kit, machine=machine)
    await again.start()
    assert (await again.submit([leave])).outcomes == (Refused("quarantined", ()),)
    await again.stop()


async def test_a_jump_of_the_clock_stops_the_writer() -> None:
    kit = kit_with_members()
    entries = entries_of(kit)
    writer = make_writer(MemoryStore(), kit)
    writer._clock_of = lambda newest: RecordClock(newest, wall=lambda: kit.now, monotonic=lambda: 0)
    await writer.start()
    await writer.submit(entries[:2])
    kit.now += 61_000
    with pytest.raises(NotWriting) as caught:
        await writer.submit(entries[2:3])
    assert caught.value.reason == "clock_jump"
    await writer.stop()


async def test_a_balance_is_proven_against_a_seal() -> None:
    kit = kit_with_members(1)
    writer = make_writer(MemoryStore(), kit)
    await writer.start()
    await writer.submit(entries_of(kit))
    (member,) = kit.state.membership.members
    key = encode(member)
    (proof,) = await writer.prove([("membership.members", key)])
    seal = await writer.read(lambda state: state.coop.seals[""])
    assert proof.value is not None
    assert proof.seal_index == seal.index
    assert verify_row(position("membership.members", key), proof.value, proof.siblings, seal.digest)
    assert not verify_row(position("membership.members", key), proof.value + b"\0", proof.siblings, seal.digest)
    await writer.stop()


async def test_what_waits_when_the_writer_stops_is_refused() -> None:
    kit = LedgerKit()
    writer = make_writer(MemoryStore(), kit, machine=MACHINE)
    await writer.start()
    await writer.stop()
    with pytest.raises(NotWriting):
        await writer.submit(entries_of(kit))
