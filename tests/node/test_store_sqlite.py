# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the SQLite store alone does: files, full disks, backups."""

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ecot_node.store.backup import BackupDamaged, read_erasures, restore, write_erasures
from ecot_node.store.errors import StoreFailed, StoreFull, StoreInUse
from ecot_node.store.folder_lock import LOCK_NAME, FolderLock
from ecot_node.store.port import AttachmentRow, CommitGroup, Erasure, RecordRow, edge_width
from ecot_node.store.sqlite import FILE_NAME, SqliteStore

LEDGER = b"\x0c" * 32
NOTE = b"example.org/ecot/0c0c0c0c0c0c0c0c\n%d\nBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n\n"
ROOT = b"\x07" * 32
SECRET = b"Mme Dupont, 3 rue des Lilas"


def group(start: int, count: int, size_bytes: int = 10, **more: object) -> CommitGroup:
    end = start + count
    rows = [
        RecordRow(i, b"id" + i.to_bytes(14, "big"), i, os.urandom(size_bytes), bytes(32)) for i in range(start, end)
    ]
    edge = {1: bytes(32 * edge_width(end, 1))}
    return CommitGroup(size=end, records=rows, edge=edge, checkpoint=NOTE % end, **more)  # type: ignore[arg-type]


async def opened(folder: Path) -> SqliteStore:
    store = SqliteStore(folder)
    await store.open(ledger=LEDGER)
    return store


def files_hold(folder: Path, secret: bytes) -> bool:
    return any(secret in file.read_bytes() for file in folder.iterdir() if file.is_file())


def names_in(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


async def test_the_log_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    store = await opened(tmp_path / "node")
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "node").iterdir()}
    await store.close()
    assert stat.S_IMODE((tmp_path / "node").stat().st_mode) == 0o700
    assert FILE_NAME in modes
    assert set(modes.values()) == {0o600}


async def test_commits_are_synced(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    writer = store._require_writer()
    pragmas = {
        name: (await writer.submit(lambda c, name=name: c.execute(f"PRAGMA {name}").fetchone()))[0]  # type: ignore[misc]
        for name in ("journal_mode", "synchronous", "secure_delete")
    }
    await store.close()
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "secure_delete": 1}  # 2: FULL


def test_the_lock_message_names_the_process_and_the_lock_ends_with_it(tmp_path: Path) -> None:
    code = (
        f"import sys, time; sys.path[:0] = {sys.path!r}\n"
        "from pathlib import Path; from ecot_node.store.folder_lock import FolderLock\n"
        f"lock = FolderLock(Path({str(tmp_path)!r})); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        with pytest.raises(StoreInUse, match=f"process {child.pid};"):
            FolderLock(tmp_path)
        child.kill()
    FolderLock(tmp_path).release()
    assert (tmp_path / LOCK_NAME).exists()


async def test_a_full_disk_keeps_nothing_and_goes_on_after_reopen(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await store.commit(group(0, 10))

    def fill(connection: sqlite3.Connection) -> None:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages + 20}")

    await store._require_writer().submit(fill)
    with pytest.raises(StoreFull):
        await store.commit(group(10, 50, size_bytes=60_000, attachments=[AttachmentRow(10, 0, "c", b"s", b"x")]))
    with pytest.raises(StoreFailed):
        await store.commit(group(60, 1))
    assert (await store.reopen()).size == 10
    assert await store.attachments_many(0, 99) == []
    await store.commit(group(10, 50, size_bytes=60_000))
    assert (await store.reopen()).size == 60
    await store.close()


async def test_what_is_erased_is_in_no_file(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await store.commit(group(0, 1, attachments=[AttachmentRow(0, 0, "name", b"s" * 32, SECRET)]))
    assert files_hold(tmp_path, SECRET)
    await store.erase_attachments(0, [0], erased_at_ms=1, ground="request")
    assert not files_hold(tmp_path, SECRET)
    await store.close()


async def test_reading_a_folder_without_log_makes_none(tmp_path: Path) -> None:
    with pytest.raises(StoreFailed, match="does not exist"):
        await SqliteStore(tmp_path).open(ledger=None, read_only=True)
    assert names_in(tmp_path) == []


async def test_a_log_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"not a database, but long enough to be taken for one" * 100)
    with pytest.raises(StoreFailed, match="NOTADB"):
        await SqliteStore(tmp_path).open(ledger=None)
    FolderLock(tmp_path).release()  # the refused store gave the lock back


async def test_a_migration_that_fails_leaves_nothing_of_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from alembic.operations import Operations

    make = Operations.create_table

    def fail_at_drafts(self: Operations, name: str, *columns: object, **more: object) -> object:
        if name == "drafts":
            raise sqlite3.OperationalError("asked for")
        return make(self, name, *columns, **more)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr("alembic.op.create_table", lambda *a, **k: fail_at_drafts(_operations(), *a, **k))
        with pytest.raises(StoreFailed):
            await SqliteStore(tmp_path).open(ledger=LEDGER)
    connection = sqlite3.connect(tmp_path / FILE_NAME)
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == []
    connection.close()
    await (await opened(tmp_path)).close()


def _operations() -> object:
    from alembic import op

    return op._proxy  # type: ignore[attr-defined]


# Backups.


async def test_a_backup_made_under_load_is_one_commit_and_restores(tmp_path: Path) -> None:
    store = await opened(tmp_path / "node")
    await store.commit(group(0, 200, size_bytes=5_000))
    copying = asyncio.ensure_future(store.backup(tmp_path / "backup"))
    size = 200
    while not copying.done():
        await store.commit(group(size, 20))
        size += 20
    await copying
    await store.close()
    manifest = restore(tmp_path / "backup", tmp_path / "new")
    assert (manifest.ledger, manifest.root) == (LEDGER.hex(), ROOT.hex())
    assert 200 <= manifest.size <= size
    again = SqliteStore(tmp_path / "new")
    found = await again.open(ledger=LEDGER)
    assert (found.size, found.checkpoint) == (manifest.size, NOTE % manifest.size)
    assert len(await again.records(0, 9_999)) == manifest.size
    await again.close()
    assert names_in(tmp_path) == ["backup", "new", "node"]


async def test_restore_erases_what_was_erased_after_the_backup(tmp_path: Path) -> None:
    store = await opened(tmp_path / "node")
    rows = [AttachmentRow(0, position, "name", b"s" * 32, SECRET + b"%d" % position) for position in range(3)]
    await store.commit(group(0, 1, attachments=rows))
    await store.erase_attachments(0, [0], erased_at_ms=1, ground="before")
    await store.backup(tmp_path / "backup")
    await store.erase_attachments(0, [1], erased_at_ms=2, ground="after")
    write_erasures(tmp_path / "erasures", await store.erasures())
    await store.close()
    restore(tmp_path / "backup", tmp_path / "new", read_erasures(tmp_path / "erasures"))
    assert not files_hold(tmp_path / "new", SECRET + b"1")
    again = await opened(tmp_path / "new")
    assert await again.attachments(0) == [rows[2]]
    assert await again.erasures() == [Erasure(0, 0, 1, "before"), Erasure(0, 1, 2, "after")]
    await again.close()


async def test_a_backup_of_an_empty_log_restores(tmp_path: Path) -> None:
    store = await opened(tmp_path / "node")
    await store.backup(tmp_path / "backup")
    await store.close()
    manifest = restore(tmp_path / "backup", tmp_path / "new")
    assert (manifest.size, manifest.root) == (0, None)


async def test_neither_backup_nor_restore_overwrites(tmp_path: Path) -> None:
    store = await opened(tmp_path / "node")
    await store.backup(tmp_path / "backup")
    before = (tmp_path / "backup").read_bytes()
    with pytest.raises(FileExistsError):
        await store.backup(tmp_path / "backup")
    await store.close()
    with pytest.raises(FileExistsError):
        restore(tmp_path / "backup", tmp_path / "node")
    assert (tmp_path / "backup").read_bytes() == before


@pytest.mark.parametrize("damage", ["cut", "changed", "other file", "empty"])
async def test_a_damaged_backup_is_refused_and_leaves_no_log(tmp_path: Path, damage: str) -> None:
    store = await opened(tmp_path / "node")
    await store.commit(group(0, 50, size_bytes=2_000))
    await store.backup(tmp_path / "backup")
    await store.close()
    whole = bytearray((tmp_path / "backup").read_bytes())
    match damage:
        case "cut":
            whole = whole[: len(whole) // 2]
        case "changed":
            whole[len(whole) // 2] ^= 1
        case "other file":
            whole = bytearray(b"PK\x03\x04 something else")
        case "empty":
            whole = bytearray()
    (tmp_path / "backup").write_bytes(whole)
    with pytest.raises(BackupDamaged):
        restore(tmp_path / "backup", tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []
