# SPDX-License-Identifier: AGPL-3.0-or-later
"""The simulated disk under SQLite: a VFS, through `ctypes`, in the very SQLite library that `sqlite3` has loaded.

What was weighed: APSW lets a VFS be written in Python too, but its wheels carry an SQLite of their own, in which a VFS
is of no use to `sqlite3`. An extension in C would need a compiler where the tests run. A FUSE file system or an
`LD_PRELOAD` would bring processes and real time. `ctypes` finds the library's symbols through the module `_sqlite3`
itself, linked to it or built into it, so there can be no second copy. A callback costs two to three microseconds; a
commit of the store makes about sixty of them: 0.3 ms, less than its signatures take (see docs/reliability.md).

The product's store runs in WAL mode with several connections, so the VFS has shared memory (`xShm*`) with SQLite's
locks; they and it are gone after a death, as they are when a process or a machine ends. A busy lock is answered at
once: all connections live in one thread, and nobody could give it back meanwhile.

    sqlite3.connect(f"file:/{place}/log.db?vfs={VFS_NAME}", uri=True)

`place` is the name under which `mount` made a disk known.
"""

import _sqlite3
import ctypes
import functools
from collections.abc import Callable
from ctypes import CFUNCTYPE, POINTER, Structure, c_char_p, c_double, c_int, c_int64, c_void_p
from typing import Any, Final

from sim_disk import Disk, DiskFailed, File

VFS_NAME: Final = "ecot-sim"

OK, PERM, BUSY, NOTFOUND, CANTOPEN, FULL = 0, 3, 5, 12, 14, 13
IOERR_READ, IOERR_SHORT_READ, IOERR_WRITE, IOERR_FSYNC, IOERR_TRUNCATE, IOERR_DELETE = (
    10 | number << 8 for number in (1, 2, 3, 4, 6, 10)
)
IOERR: Final = 10
OPEN_DELETEONCLOSE, OPEN_CREATE = 0x8, 0x4
SHM_UNLOCK, SHM_LOCK, SHM_SHARED, SHM_EXCLUSIVE = 1, 2, 4, 8
SHM_LOCKS: Final = 8
NO_LOCK, SHARED, RESERVED, PENDING, EXCLUSIVE = range(5)
POWERSAFE_OVERWRITE: Final = 0x1000
"""As SQLite says of every Unix file system: a sector written in part leaves its other bytes alone."""
TEMPORARY: Final = "/temporary"

Handler = Callable[..., int]


class Methods(Structure):
    """`sqlite3_io_methods`, version 2."""

    _fields_ = [
        ("iVersion", c_int),
        ("xClose", CFUNCTYPE(c_int, c_void_p)),
        ("xRead", CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)),
        ("xWrite", CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)),
        ("xTruncate", CFUNCTYPE(c_int, c_void_p, c_int64)),
        ("xSync", CFUNCTYPE(c_int, c_void_p, c_int)),
        ("xFileSize", CFUNCTYPE(c_int, c_void_p, POINTER(c_int64))),
        ("xLock", CFUNCTYPE(c_int, c_void_p, c_int)),
        ("xUnlock", CFUNCTYPE(c_int, c_void_p, c_int)),
        ("xCheckReservedLock", CFUNCTYPE(c_int, c_void_p, POINTER(c_int))),
        ("xFileControl", CFUNCTYPE(c_int, c_void_p, c_int, c_void_p)),
        ("xSectorSize", CFUNCTYPE(c_int, c_void_p)),
        ("xDeviceCharacteristics", CFUNCTYPE(c_int, c_void_p)),
        ("xShmMap", CFUNCTYPE(c_int, c_void_p, c_int, c_int, c_int, POINTER(c_void_p))),
        ("xShmLock", CFUNCTYPE(c_int, c_void_p, c_int, c_int, c_int)),
        ("xShmBarrier", CFUNCTYPE(None, c_void_p)),
        ("xShmUnmap", CFUNCTYPE(c_int, c_void_p, c_int)),
    ]


class OpenFile(Structure):
    """`sqlite3_file`, and our number after it."""

    _fields_ = [("methods", c_void_p), ("number", c_int64)]


class Vfs(Structure):
    """`sqlite3_vfs`, version 1."""

    _fields_ = [
        ("iVersion", c_int),
        ("szOsFile", c_int),
        ("mxPathname", c_int),
        ("pNext", c_void_p),
        ("zName", c_char_p),
        ("pAppData", c_void_p),
        ("xOpen", CFUNCTYPE(c_int, c_void_p, c_char_p, c_void_p, c_int, POINTER(c_int))),
        ("xDelete", CFUNCTYPE(c_int, c_void_p, c_char_p, c_int)),
        ("xAccess", CFUNCTYPE(c_int, c_void_p, c_char_p, c_int, POINTER(c_int))),
        ("xFullPathname", CFUNCTYPE(c_int, c_void_p, c_char_p, c_int, c_void_p)),
        ("xDlOpen", c_void_p),
        ("xDlError", c_void_p),
        ("xDlSym", c_void_p),
        ("xDlClose", c_void_p),
        ("xRandomness", CFUNCTYPE(c_int, c_void_p, c_int, c_void_p)),
        ("xSleep", CFUNCTYPE(c_int, c_void_p, c_int)),
        ("xCurrentTime", CFUNCTYPE(c_int, c_void_p, POINTER(c_double))),
        ("xGetLastError", CFUNCTYPE(c_int, c_void_p, c_int, c_void_p)),
    ]


class Shared:
    """What the connections to one file share while they live: locks and shared memory."""

    def __init__(self) -> None:
        self.locks: dict[int, int] = {}
        self.regions: list[ctypes.Array[Any]] = []
        self.exclusive: list[int | None] = [None] * SHM_LOCKS
        self.sharers: list[set[int]] = [set() for _ in range(SHM_LOCKS)]
        self.mappers: set[int] = set()

    def release(self, number: int) -> None:
        """Forget a connection."""
        self.locks.pop(number, None)
        for slot in range(SHM_LOCKS):
            if self.exclusive[slot] == number:
                self.exclusive[slot] = None
            self.sharers[slot].discard(number)


class Handle:
    """An open file."""

    def __init__(self, number: int, mount: "Mount", name: str, file: File) -> None:
        self.number, self.mount, self.name, self.file = number, mount, name, file
        self.generation = mount.disk.generation
        self.is_temporary = False

    def require_alive(self) -> None:
        if self.generation != self.mount.disk.generation:
            raise DiskFailed("eio")

    @property
    def shared(self) -> Shared:
        return self.mount.shared.setdefault((self.generation, self.name), Shared())


class Mount:
    """A disk and what is shared by the connections to its files."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.shared: dict[tuple[int, str], Shared] = {}


MOUNTS: dict[str, Mount] = {}
HANDLES: dict[int, Handle] = {}
MISTAKES: list[BaseException] = []
"""Exceptions of this module itself, which SQLite can't be told of; the tests look that there are none."""
_last_number = 0
_kept: list[Any] = []


def mount(place: str, disk: Disk) -> None:
    """Make a disk known under `place`."""
    MOUNTS[place] = Mount(disk)


def unmount(place: str) -> None:
    """Forget a disk; what is open on it fails."""
    MOUNTS.pop(place).disk.generation += 1


def uri(place: str, name: str) -> str:
    """Return how SQLite is told of a file of a mounted disk."""
    return f"file:/{place}/{name}?vfs={VFS_NAME}&mode=rw"


def _number(pointer: int) -> int:
    return int(OpenFile.from_address(pointer).number)


def _handle(pointer: int) -> Handle:
    handle = HANDLES[_number(pointer)]
    handle.require_alive()
    return handle


def answering(code: int) -> Callable[[Handler], Handler]:
    """Turn a failing disk into SQLite's `code`; no exception may leave a callback."""

    def wrap(function: Handler) -> Handler:
        @functools.wraps(function)
        def call(*arguments: Any) -> int:
            try:
                return function(*arguments)
            except DiskFailed as error:
                return FULL if error.code == "enospc" else code
            except BaseException as error:  # noqa: BLE001  kept for the test; here it would be printed and forgotten
                MISTAKES.append(error)
                return code

        return call

    return wrap


def _find(path: bytes) -> tuple[Mount, str]:
    _, place, name = path.decode().split("/", 2)
    return MOUNTS[place], name


@answering(CANTOPEN)
def _open(_vfs: int, path: bytes | None, pointer: int, flags: int, flags_out: Any) -> int:
    global _last_number  # noqa: PLW0603
    OpenFile.from_address(pointer).methods = None
    if path is None:  # a temporary file of SQLite's own: nobody looks for it after a death
        at, name, file = Mount(Disk(_no_chance, 4096)), TEMPORARY, File()
    else:
        at, name = _find(path)
        if not at.disk.exists(name) and not flags & OPEN_CREATE:
            return CANTOPEN
        file = at.disk.make(name)
    _last_number += 1
    handle = Handle(_last_number, at, name, file)
    handle.is_temporary = path is None or bool(flags & OPEN_DELETEONCLOSE)
    HANDLES[_last_number] = handle
    opened = OpenFile.from_address(pointer)
    opened.methods, opened.number = ctypes.addressof(METHODS), _last_number
    if flags_out:
        flags_out[0] = flags
    return OK


@answering(IOERR)
def _close(pointer: int) -> int:
    handle = HANDLES.pop(_number(pointer))
    shared = handle.mount.shared.get((handle.generation, handle.name))
    if shared is not None:
        shared.release(handle.number)
    return OK


@answering(IOERR_READ)
def _read(pointer: int, buffer: int, size: int, offset: int) -> int:
    handle = _handle(pointer)
    data = handle.mount.disk.read(handle.name, handle.file, size, offset)
    ctypes.memmove(buffer, data, len(data))
    if len(data) < size:
        ctypes.memset(buffer + len(data), 0, size - len(data))
        return IOERR_SHORT_READ
    return OK


@answering(IOERR_WRITE)
def _write(pointer: int, buffer: int, size: int, offset: int) -> int:
    handle = _handle(pointer)
    handle.mount.disk.write(handle.name, handle.file, ctypes.string_at(buffer, size), offset)
    return OK


@answering(IOERR_TRUNCATE)
def _truncate(pointer: int, size: int) -> int:
    handle = _handle(pointer)
    handle.mount.disk.truncate(handle.name, handle.file, size)
    return OK


@answering(IOERR_FSYNC)
def _sync(pointer: int, _flags: int) -> int:
    handle = _handle(pointer)
    handle.mount.disk.sync(handle.name, handle.file)
    return OK


@answering(IOERR)
def _file_size(pointer: int, size: Any) -> int:
    size[0] = len(_handle(pointer).file.seen)
    return OK


@answering(IOERR)
def _lock(pointer: int, wanted: int) -> int:
    handle = _handle(pointer)
    locks = handle.shared.locks
    others = [level for number, level in locks.items() if number != handle.number]
    if wanted == SHARED and any(level >= PENDING for level in others):
        return BUSY
    if wanted >= RESERVED and any(level >= RESERVED for level in others):
        return BUSY
    if wanted == EXCLUSIVE and any(level >= SHARED for level in others):
        locks[handle.number] = max(locks.get(handle.number, NO_LOCK), PENDING)
        return BUSY
    locks[handle.number] = max(locks.get(handle.number, NO_LOCK), wanted)
    return OK


@answering(IOERR)
def _unlock(pointer: int, wanted: int) -> int:
    handle = HANDLES[_number(pointer)]
    if wanted == NO_LOCK:
        handle.shared.locks.pop(handle.number, None)
    else:
        handle.shared.locks[handle.number] = wanted
    return OK


@answering(IOERR)
def _check_reserved(pointer: int, answer: Any) -> int:
    answer[0] = any(level >= RESERVED for level in _handle(pointer).shared.locks.values())
    return OK


def _file_control(_pointer: int, _operation: int, _argument: int) -> int:
    return NOTFOUND


def _sector_size(pointer: int) -> int:
    return HANDLES[_number(pointer)].mount.disk.sector


def _characteristics(_pointer: int) -> int:
    return POWERSAFE_OVERWRITE


@answering(IOERR)
def _shm_map(pointer: int, region: int, size: int, may_grow: int, answer: Any) -> int:
    handle = _handle(pointer)
    shared = handle.shared
    shared.mappers.add(handle.number)
    answer[0] = None
    if region >= len(shared.regions) and not may_grow:
        return OK
    while region >= len(shared.regions):
        shared.regions.append(ctypes.create_string_buffer(size))
    answer[0] = ctypes.addressof(shared.regions[region])
    return OK


@answering(IOERR)
def _shm_lock(pointer: int, first: int, count: int, flags: int) -> int:
    handle = HANDLES[_number(pointer)] if flags & SHM_UNLOCK else _handle(pointer)
    shared, number, slots = handle.shared, handle.number, range(first, first + count)
    if flags & SHM_UNLOCK:
        for slot in slots:
            if flags & SHM_SHARED:
                shared.sharers[slot].discard(number)
            elif shared.exclusive[slot] == number:
                shared.exclusive[slot] = None
        return OK
    is_exclusive = bool(flags & SHM_EXCLUSIVE)
    for slot in slots:
        if shared.exclusive[slot] not in (None, number) or (is_exclusive and shared.sharers[slot] - {number}):
            return BUSY
    for slot in slots:
        if is_exclusive:
            shared.exclusive[slot] = number
        else:
            shared.sharers[slot].add(number)
    return OK


def _shm_barrier(_pointer: int) -> None:
    """One thread: nothing to do."""


@answering(IOERR)
def _shm_unmap(pointer: int, must_delete: int) -> int:
    handle = HANDLES[_number(pointer)]
    shared = handle.shared
    shared.mappers.discard(handle.number)
    for slot in range(SHM_LOCKS):
        shared.sharers[slot].discard(handle.number)
        if shared.exclusive[slot] == handle.number:
            shared.exclusive[slot] = None
    if must_delete and not shared.mappers:
        shared.regions.clear()
    return OK


@answering(IOERR_DELETE)
def _delete(_vfs: int, path: bytes, must_sync: int) -> int:
    at, name = _find(path)
    at.disk.delete(name, is_synced=bool(must_sync))
    return OK


@answering(IOERR)
def _access(_vfs: int, path: bytes, _flags: int, answer: Any) -> int:
    at, name = _find(path)
    answer[0] = at.disk.exists(name)
    return OK


@answering(CANTOPEN)
def _full_path(_vfs: int, path: bytes, size: int, target: int) -> int:
    if len(path) + 1 > size:
        return CANTOPEN
    ctypes.memmove(target, path + b"\0", len(path) + 1)
    return OK


@answering(IOERR)
def _randomness(_vfs: int, size: int, target: int) -> int:
    # Salts of the WAL: SQLite seeds its own generator with these bytes, once a process.
    ctypes.memset(target, 0x5A, size)
    return size


def _sleep(_vfs: int, microseconds: int) -> int:
    return microseconds


def _current_time(_vfs: int, answer: Any) -> int:
    answer[0] = 2_460_000.5
    return OK


def _last_error(_vfs: int, _size: int, _target: int) -> int:
    return 0


def _fill(structure: type[Structure], values: dict[str, Any]) -> Any:
    made = structure()
    for name, kind in structure._fields_:  # type: ignore[misc]
        if name in values:
            value = values[name]
            setattr(made, name, kind(value) if callable(value) else value)
    return made


class _NoChance:
    def choice(self, options: tuple[int, ...]) -> int:
        return options[0]


_no_chance: Any = _NoChance()
METHODS = _fill(
    Methods,
    {
        "iVersion": 2,
        "xClose": _close,
        "xRead": _read,
        "xWrite": _write,
        "xTruncate": _truncate,
        "xSync": _sync,
        "xFileSize": _file_size,
        "xLock": _lock,
        "xUnlock": _unlock,
        "xCheckReservedLock": _check_reserved,
        "xFileControl": _file_control,
        "xSectorSize": _sector_size,
        "xDeviceCharacteristics": _characteristics,
        "xShmMap": _shm_map,
        "xShmLock": _shm_lock,
        "xShmBarrier": _shm_barrier,
        "xShmUnmap": _shm_unmap,
    },
)
VFS = _fill(
    Vfs,
    {
        "iVersion": 1,
        "szOsFile": ctypes.sizeof(OpenFile),
        "mxPathname": 512,
        "zName": VFS_NAME.encode(),
        "xOpen": _open,
        "xDelete": _delete,
        "xAccess": _access,
        "xFullPathname": _full_path,
        "xRandomness": _randomness,
        "xSleep": _sleep,
        "xCurrentTime": _current_time,
        "xGetLastError": _last_error,
    },
)


def register() -> None:
    """Make the VFS known to SQLite, beside the others; again is nothing."""
    library = ctypes.CDLL(_sqlite3.__file__)
    library.sqlite3_vfs_register.argtypes = [c_void_p, c_int]
    library.sqlite3_vfs_find.restype = c_void_p
    library.sqlite3_vfs_find.argtypes = [c_char_p]
    if library.sqlite3_vfs_find(VFS_NAME.encode()) is None:
        code = library.sqlite3_vfs_register(ctypes.addressof(VFS), 0)
        assert code == OK, f"sqlite3_vfs_register answered {code}"


register()
