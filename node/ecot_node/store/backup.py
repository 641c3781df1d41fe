# SPDX-License-Identifier: AGPL-3.0-or-later
"""Backups of a SQLite store: one file, a zstd-compressed tar of `manifest.json` and `log.db`.

```
manifest.json   {"format": "ecot/backup/v1", "ledger": "9f2c…", "size": 70000, "root": "51ab…",
                 "epoch": 12, "files": {"log.db": {"bytes": 41943040, "sha256": "77e0…"}}}
log.db          a consistent copy, as of one commit
```

An erasure made after a backup must hold in the restored store too. The operator keeps the list of erasures beside the
backups (`write_erasures`, one JSON object a line, ids only); `restore` applies it.
"""

import base64
import binascii
import hashlib
import json
import os
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Final

import msgspec
import zstandard

from ecot_node.store import schema
from ecot_node.store.errors import StoreError, StoreFailed
from ecot_node.store.port import Erasure

FORMAT: Final = "ecot/backup/v1"
"""First word of the manifest; another form gets another."""
LEVEL: Final = 3
"""Compression level of zstd: records are mostly hashes and signatures, so a higher one gains next to nothing."""
MANIFEST_MAX_BYTES: Final = 64 * 1024
"""Longest manifest that `restore` reads."""
_CHUNK: Final = 1024 * 1024
_LOG: Final = "log.db"


class BackupDamaged(StoreError):
    """The file is not a backup, or not the one that was written."""


class FileDigest(msgspec.Struct, frozen=True, kw_only=True):
    """Length and SHA-256 (hex) of a file in the backup."""

    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup holds. `ledger` and `root` are hex; null for an unbound or empty log."""

    format: str
    ledger: str | None
    size: int
    root: str | None
    epoch: int
    files: dict[str, FileDigest]


def write_backup(log: Path, path: Path) -> Manifest:
    """Copy the log at `log`, which may be in use, into the new file `path`.

    The file appears under its name only when it is whole and on disk.

    Raises:
        FileExistsError: `path` exists.
        StoreFailed: the log is not there, or can't be read.
    """
    if path.exists():
        raise FileExistsError(f"{path} exists; a backup is never overwritten")
    with tempfile.TemporaryDirectory(prefix=".backup-", dir=path.parent) as folder:
        copy, packed = Path(folder) / _LOG, Path(folder) / "packed"
        _copy_database(log, copy)
        manifest = _manifest_of(copy)
        _pack(packed, manifest, copy)
        _put_in_place(packed, path)
    _sync_folder(path.parent)
    return manifest


def restore(path: Path, folder: Path, erasures: Iterable[Erasure] = ()) -> Manifest:
    """Unpack a backup into `folder`, check it, and erase again what was erased since.

    Args:
        path: the backup.
        folder: where the node shall live; must be missing or empty.
        erasures: of the operator's list; those that the backup knows already change nothing.

    Raises:
        FileExistsError: `folder` is not empty.
        BackupDamaged: the file is not a whole backup.
    """
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty; restore into a new folder")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    unpacked = folder / f"{_LOG}.restoring"
    try:
        manifest = _unpack(path, unpacked)
        _apply_erasures(unpacked, list(erasures))
        os.replace(unpacked, folder / _LOG)
    finally:
        unpacked.unlink(missing_ok=True)
    _sync_folder(folder)
    return manifest


def write_erasures(path: Path, erasures: Sequence[Erasure]) -> None:
    """Write the list of erasures, one JSON object a line, replacing the old list at once."""
    fresh = path.with_name(f".{path.name}.new")
    with fresh.open("wb") as file:
        file.write(b"".join(msgspec.json.encode(erasure) + b"\n" for erasure in erasures))
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)
    _sync_folder(path.parent)


def read_erasures(path: Path) -> list[Erasure]:
    """Read a list that `write_erasures` wrote.

    Raises:
        BackupDamaged: a line is not an erasure.
    """
    try:
        return [msgspec.json.decode(line, type=Erasure) for line in path.read_bytes().splitlines()]
    except msgspec.MsgspecError as error:
        raise BackupDamaged(f"{path}: {error}") from error


def root_of_note(note: bytes) -> bytes:
    r"""Return the root hash of a checkpoint note: its third line, in base64 (C2SP tlog-checkpoint).

    >>> root_of_note(b"example.org/log\n1\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\n").hex()[:4]
    '0000'
    """
    try:
        return base64.b64decode(note.split(b"\n")[2], validate=True)
    except (IndexError, binascii.Error) as error:
        raise BackupDamaged("the newest checkpoint is not a checkpoint note") from error


def _copy_database(log: Path, copy: Path) -> None:
    if not log.is_file():
        raise StoreFailed(f"{log} does not exist")
    source, target = sqlite3.connect(f"{log.absolute().as_uri()}?mode=rw", uri=True), sqlite3.connect(copy)
    try:
        source.backup(target)  # in one step: a copy in several starts anew at every commit
        target.execute("PRAGMA journal_mode = DELETE")  # one file, nothing left in a WAL
    except sqlite3.Error as error:
        raise StoreFailed(f"{log}: {error}") from error
    finally:
        source.close()
        target.close()


def _put_in_place(packed: Path, path: Path) -> None:
    try:
        os.link(packed, path)  # unlike a rename, fails if another file has taken the name meanwhile
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links, as USB sticks have
        os.rename(packed, path)


def _manifest_of(copy: Path) -> Manifest:
    connection = sqlite3.connect(copy)
    try:
        ledger, size, note, epoch = connection.execute(schema.HEAD).fetchone()
    finally:
        connection.close()
    digest = FileDigest(bytes=copy.stat().st_size, sha256=_sha256(copy))
    return Manifest(
        format=FORMAT,
        ledger=ledger.hex() if ledger else None,
        size=size,
        root=root_of_note(note).hex() if note else None,
        epoch=epoch,
        files={_LOG: digest},
    )


def _pack(packed: Path, manifest: Manifest, copy: Path) -> None:
    described = packed.with_name("manifest.json")
    described.write_text(json.dumps(msgspec.to_builtins(manifest), indent=2) + "\n")
    descriptor = os.open(packed, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        with (
            zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).stream_writer(file, closefd=False) as writer,
            tarfile.open(fileobj=writer, mode="w|") as tar,
        ):
            tar.add(described, "manifest.json")
            tar.add(copy, _LOG)
        file.flush()
        os.fsync(file.fileno())


def _unpack(path: Path, target: Path) -> Manifest:
    try:
        with (
            path.open("rb") as file,
            zstandard.ZstdDecompressor().stream_reader(file) as reader,
            tarfile.open(fileobj=reader, mode="r|") as tar,
        ):
            manifest = _read_manifest(_member(tar, "manifest.json"))
            _write_checked(_member(tar, _LOG), target, manifest.files[_LOG])
            return manifest
    except (tarfile.TarError, zstandard.ZstdError, msgspec.MsgspecError, EOFError, KeyError) as error:
        raise BackupDamaged(f"{path}: {error}") from error


def _member(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    found = tar.next()
    content = tar.extractfile(found) if found is not None and found.name == name and found.isfile() else None
    if content is None:
        raise BackupDamaged(f"expected {name}, found {found.name if found else 'the end'}")
    return content


def _read_manifest(content: IO[bytes]) -> Manifest:
    manifest = msgspec.json.decode(content.read(MANIFEST_MAX_BYTES), type=Manifest)
    if manifest.format != FORMAT:
        raise BackupDamaged(f"the backup has form {manifest.format!r}, expected {FORMAT!r}")
    return manifest


def _write_checked(content: IO[bytes], target: Path, expected: FileDigest) -> None:
    digest, count = hashlib.sha256(), 0
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        while chunk := content.read(_CHUNK):
            digest.update(chunk)
            count += len(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    if (count, digest.hexdigest()) != (expected.bytes, expected.sha256):
        raise BackupDamaged(f"{target.name}: length or SHA-256 differs from the manifest")


def _apply_erasures(log: Path, erasures: list[Erasure]) -> None:
    connection = sqlite3.connect(log, isolation_level=None)
    try:
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(schema.ATTACHMENT_ERASE, [(e.index, e.position) for e in erasures])
        connection.executemany(schema.ERASURE_ADD, [(e.index, e.position, e.erased_at_ms, e.ground) for e in erasures])
        connection.execute("COMMIT")
    finally:
        connection.close()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
