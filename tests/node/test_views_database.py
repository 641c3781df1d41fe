# SPDX-License-Identifier: AGPL-3.0-or-later
"""The follower: position, groups, rebuild and swap, restart, damaged and outdated files."""

import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa
from domain_kit import tell_story
from http_callers import caller_of
from ledger_kit import LedgerKit
from views_kit import recorded

from ecot_node.domains import registry, views_file
from ecot_node.domains.database import FILE_NAME, REBUILD_NAME, ViewsDatabase
from ecot_node.domains.membership.views import members
from ecot_node.domains.records.queries import ViewsRecordIndex, views_size
from ecot_node.domains.rows import DomainViews
from ecot_node.domains.royalty import views as royalty
from ecot_node.http.callers import may_read
from ecot_node.ledger.port import RecordedEntry
from ecot_protocol.domains.membership.acts import Leave
from ecot_protocol.domains.trade.transfers import Pay
from ecot_protocol.errors import LocalProtocolError
from ecot_protocol.ledger import facts as ledger_facts


def trading_kit(payments: int = 20) -> LedgerKit:
    kit = LedgerKit()
    actors = [kit.join(f"member{number}") for number in range(4)]
    for number in range(payments):
        payer, payee = actors[number % 4], actors[(number * 7 + 1) % 4]
        if payer != payee:
            pay = Pay(
                amount_minor=100 + number, memo=None, payee=payee.member, statutes_version=1, total_minor=100 + number
            )
            kit.must("trade.pay", pay, **kit.by(payer))
    kit.apply_for("waiting")
    gone = kit.join("gone")
    kit.must("membership.leave", Leave(), **kit.by(gone))
    return kit


def dump(path: Path) -> list[str]:
    with sqlite3.connect(path) as connection:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type='table' ORDER BY 1")]
        return [
            f"{table} {row}"
            for table in tables
            if table not in {"progress", "touches"}
            for row in sorted(connection.execute(f"SELECT * FROM {table}"), key=repr)
        ]


async def follow(views: ViewsDatabase, entries: list[RecordedEntry], group: int) -> None:
    for start in range(0, len(entries), group):
        await views.apply(entries[start : start + group])


async def test_position_counts_what_was_applied_and_survives_a_restart(tmp_path: Path) -> None:
    entries = recorded(trading_kit())
    views = ViewsDatabase(tmp_path)
    await views.open()
    assert await views.position() == 0
    await views.apply(entries[:5])
    await views.close()
    views = ViewsDatabase(tmp_path)
    await views.open()
    assert await views.position() == 5
    await views.apply(entries[5:])
    assert await views.position() == len(entries)
    async with views.connect() as connection:
        assert await views_size(connection) == len(entries)
    await views.close()


@pytest.mark.parametrize(("first", "last"), [(1, 3), (0, 0)])
async def test_records_that_do_not_follow_are_refused_and_change_nothing(tmp_path: Path, first: int, last: int) -> None:
    entries = recorded(trading_kit())
    views = ViewsDatabase(tmp_path)
    await views.open()
    if first == 0:
        await views.apply(entries[:1])
    with pytest.raises(LocalProtocolError):
        await views.apply(entries[first : last + 1])
    assert await views.position() == (0 if first else 1)
    await views.close()


async def test_one_group_and_many_groups_give_the_same_tables(tmp_path: Path) -> None:
    entries = recorded(tell_story().kit)
    dumps = []
    for group in (1, 7, len(entries)):
        folder = tmp_path / str(group)
        folder.mkdir()
        views = ViewsDatabase(folder)
        await views.open()
        await follow(views, entries, group)
        await views.close()
        dumps.append(dump(folder / FILE_NAME))
    assert dumps[0] == dumps[1] == dumps[2]
    filled = {line.split(" ", 1)[0] for line in dumps[0]}
    told = registry.DOMAINS[: registry.DOMAINS.index(royalty.VIEWS) + 1]  # federation, above, has tests of its own
    tables = {table.name for domain in told for table in domain.tables.sorted_tables}
    assert tables - filled == {"progress", "touches", "recoveries"}


async def test_rebuild_gives_what_following_gave_and_readers_keep_the_old_tables_until_the_swap(tmp_path: Path) -> None:
    entries = recorded(tell_story().kit)
    views = ViewsDatabase(tmp_path)
    await views.open()
    await follow(views, entries, 5)
    await views.reset()
    assert await views.position() == 0
    await views.apply(entries[:3])
    async with views.connect() as connection:
        assert await views_size(connection) == len(entries)
    await views.apply(entries[3:])
    await views.swap()
    assert await views.position() == len(entries)
    async with views.connect() as connection:
        assert await views_size(connection) == len(entries)
    assert not (tmp_path / REBUILD_NAME).exists()
    await views.close()
    rebuilt = dump(tmp_path / FILE_NAME)
    fresh = ViewsDatabase(tmp_path / "fresh")
    (tmp_path / "fresh").mkdir()
    await fresh.open()
    await fresh.apply(entries)
    await fresh.close()
    assert rebuilt == dump(tmp_path / "fresh" / FILE_NAME)


async def test_an_unfinished_rebuild_is_forgotten_at_the_next_start(tmp_path: Path) -> None:
    entries = recorded(trading_kit())
    views = ViewsDatabase(tmp_path)
    await views.open()
    await views.apply(entries)
    await views.reset()
    await views.apply(entries[:2])
    await views.close()
    views = ViewsDatabase(tmp_path)
    await views.open()
    assert await views.position() == len(entries)
    with pytest.raises(LocalProtocolError):
        await views.swap()
    await views.close()


async def test_a_damaged_file_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"not a database" * 1_000)
    views = ViewsDatabase(tmp_path)
    await views.open()
    assert await views.position() == 0
    await views.apply(recorded(trading_kit()))
    await views.close()


async def test_a_file_of_other_tables_is_begun_anew(tmp_path: Path) -> None:
    entries = recorded(trading_kit())
    views = ViewsDatabase(tmp_path)
    await views.open()
    await views.apply(entries)
    await views.close()
    metadata = sa.MetaData()
    sa.Table("added", metadata, sa.Column("one", sa.Integer, primary_key=True))
    views = ViewsDatabase(tmp_path, (*registry.DOMAINS, DomainViews(tables=metadata, projections={}, unshown={})))
    await views.open()
    assert await views.position() == 0
    await views.close()


async def test_a_group_that_fails_leaves_nothing_behind_and_can_be_applied_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = recorded(trading_kit())
    views = ViewsDatabase(tmp_path)
    await views.open()
    await views.apply(entries[:4])
    write = views_file._write

    def fail(*arguments: object) -> None:
        write(*arguments)  # type: ignore[arg-type]
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(views_file, "_write", fail)
    with pytest.raises(sqlite3.OperationalError):
        await views.apply(entries[4:])
    monkeypatch.setattr(views_file, "_write", write)
    assert await views.position() == 4
    await views.apply(entries[4:])
    async with views.connect() as connection:
        assert (await connection.execute(sa.select(sa.func.count()).select_from(members))).scalar_one() == 6
    await views.close()


async def test_readers_cannot_write_and_see_one_snapshot(tmp_path: Path) -> None:
    entries = recorded(trading_kit())
    views = ViewsDatabase(tmp_path)
    await views.open()
    await views.apply(entries[:4])
    async with views.connect() as connection:
        assert await views_size(connection) == 4
        await views.apply(entries[4:])
        assert await views_size(connection) == 4
        with pytest.raises(sa.exc.OperationalError):
            await connection.execute(sa.delete(members))
    async with views.connect() as connection:
        assert await views_size(connection) == len(entries)
    await views.close()


@pytest.mark.parametrize("batch", [1, 6, 10_000])
async def test_records_are_found_by_party_whether_indexed_or_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(views_file, "INDEX_BATCH", batch)
    kit = trading_kit()
    entries = recorded(kit)
    views = ViewsDatabase(tmp_path)
    await views.open()
    await follow(views, entries, 3)
    await views.close()
    await views.open()  # what waits for the index is found again after a restart
    payer = next(entry.author for entry in entries if entry.tag == "trade.pay")
    assert payer is not None
    found = await ViewsRecordIndex(views).visible(
        caller_of(members={payer: "left"}), after=-1, limit=1_000, tag=None, author=None
    )
    expected = [
        entry.index
        for entry in entries
        if entry.visibility == "public" or (entry.visibility == "parties" and payer in entry.parties)
    ]
    assert [one.index for one in found] == expected
    assert [one.parties for one in found] == [entries[index].parties for index in expected]
    await views.close()


@pytest.mark.parametrize("batch", [5, 10_000])
async def test_what_is_visible_is_what_the_rule_says_record_by_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(views_file, "INDEX_BATCH", batch)
    story = tell_story()
    entries = recorded(story.kit)
    views = ViewsDatabase(tmp_path)
    await views.open()
    await follow(views, entries, 4)
    index = ViewsRecordIndex(views)
    callers = [
        None,
        caller_of(),
        caller_of(members={story.ada.member: "admitted"}),
        caller_of(members={story.ada.member: "admitted", story.bob.member: "left"}),
        caller_of(members={story.zoe.member: "applied"}),
        caller_of(offices=("treasurer",)),
        caller_of(offices=("auditor",)),
    ]
    for caller in callers:
        for tag, author in ((None, None), ("trade.pay", None), (None, story.ada.member)):
            for after, limit in ((-1, 1_000), (3, 2), (20, 5)):
                found = await index.visible(caller, after=after, limit=limit, tag=tag, author=author)
                expected = [
                    entry.index
                    for entry in entries
                    if entry.index > after
                    and tag in (None, entry.tag)
                    and author in (None, entry.author)
                    and may_read(caller, entry.visibility, entry.parties)
                ]
                assert [one.index for one in found] == expected[:limit]
    await views.close()


def test_every_fact_of_the_rules_is_shown_or_says_why_not() -> None:
    import ecot_protocol.machine  # noqa: F401  imports every domain's facts

    def kinds(base: type[ledger_facts.Fact]) -> set[type[ledger_facts.Fact]]:
        below = base.__subclasses__()
        return set().union({base} if not below else set(), *(kinds(one) for one in below))

    shown = {kind for domain in registry.DOMAINS for kind in (*domain.projections, *domain.unshown)}
    missing = {f"{kind.__module__}.{kind.__name__}" for kind in kinds(ledger_facts.Fact) - shown}
    missing = {name for name in missing if name.startswith("ecot_protocol.") and ".federation." not in name}
    assert not missing
