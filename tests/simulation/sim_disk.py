# SPDX-License-Identifier: AGPL-3.0-or-later
"""A disk in memory that does what disks do at their worst, from one seed.

A `Disk` holds files. What is written is seen at once (the operating system's cache), and is on the platter only after
a sync of that file. There are two ways to die:

- `kill()`: the process ends; the operating system lives on, and what it caches stays and may still reach the platter.
- `lose_power()`: of what was not synced, each sector (512 or 4,096 bytes) is there or not, whatever was written before
  or after it; a file that grew has zeros where a sector is missing. A name made or removed without a sync of its folder
  may have been made or removed, or not.

A `Fault` hits one operation: an error that changed nothing, a write that was done in part, a full disk, a read that
fails, a sync that fails and *forgets* (as Linux does: what it could not write is taken for clean, and no later sync
writes it), a lost power. `rot()` flips bits of what is on the platter.

Whoever has the disk open does so under a `generation`; after a death every operation of an older one fails and changes
nothing, so that code which has not noticed its death yet can do no harm.
"""

import hashlib
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

SECTORS: Final = (512, 4096)
MUTATING: Final = frozenset(("delete", "make", "sync", "truncate", "write"))


class DiskFailed(Exception):
    """The operation failed: ``eio`` or ``enospc``."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True)
class Fault:
    """What happens to one operation.

    Attributes:
        kind: ``error``, ``full``, ``torn`` (a write done in part), ``forget`` (of a sync), ``power``.
    """

    kind: str


@dataclass
class Change:
    """A write (`data`), or a new length (`size`), that is not on the platter yet."""

    offset: int
    data: bytes | None = None


@dataclass
class File:
    """One file: as the operating system shows it, and as it is on the platter.

    Attributes:
        seen: the content that reads return.
        kept: the content on the platter.
        pending: what leads from `kept` to `seen`, in order, but for what a failed sync forgot.
        is_named: its name is on the platter.
    """

    seen: bytearray = field(default_factory=bytearray)
    kept: bytearray = field(default_factory=bytearray)
    pending: list[Change] = field(default_factory=list)
    is_named: bool = False

    def write(self, offset: int, data: bytes) -> None:
        put(self.seen, offset, data)
        self.pending.append(Change(offset, data))

    def truncate(self, size: int) -> None:
        resize(self.seen, size)
        self.pending.append(Change(size))

    def sync(self) -> None:
        for change in self.pending:
            apply(self.kept, change)
        self.pending.clear()


def put(content: bytearray, offset: int, data: bytes) -> None:
    """Write into a content that grows if it must; a hole is zeros."""
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


def resize(content: bytearray, size: int) -> None:
    """Cut a content, or fill it up with zeros."""
    if size < len(content):
        del content[size:]
    else:
        content.extend(bytes(size - len(content)))


def apply(content: bytearray, change: Change) -> None:
    """Make a change."""
    if change.data is None:
        resize(content, change.offset)
    else:
        put(content, change.offset, change.data)


class Disk:
    """The files of one machine.

    Args:
        chance: of what survives.
        sector: 512 or 4,096; None: chance says which.
    """

    def __init__(self, chance: random.Random, sector: int | None = None) -> None:
        self.chance = chance
        self.sector = sector or chance.choice(SECTORS)
        self.files: dict[str, File] = {}
        self.removed: dict[str, File] = {}
        self.generation = 0
        self.has_power = True
        self.operations = 0
        self.changes = 0
        self.trace = hashlib.sha256()
        self.plan: Callable[[Disk, str, str], Fault | None] | None = None
        self.on_power_lost: Callable[[], None] = lambda: None

    # ------------------------------------------------------------------------------------------- what a process does

    def happen(self, operation: str, name: str) -> Fault | None:
        """Count an operation; return what goes wrong with it.

        Raises:
            DiskFailed: the power is gone, or the fault is an error.
        """
        if not self.has_power:
            raise DiskFailed("eio")
        self.operations += 1
        self.trace.update(f"{operation} {name};".encode())
        self.changes += operation in MUTATING
        fault = self.plan(self, operation, name) if self.plan is not None else None
        if fault is None:
            return None
        if fault.kind in ("error", "full"):
            raise DiskFailed("eio" if fault.kind == "error" else "enospc")
        return fault

    def exists(self, name: str) -> bool:
        return name in self.files

    def make(self, name: str) -> File:
        """Return a file, new if there is none."""
        if name not in self.files:
            self.end_at(self.happen("make", name))
            self.files[name] = File()
            self.removed.pop(name, None)
        return self.files[name]

    def read(self, name: str, file: File, size: int, offset: int) -> bytes:
        self.end_at(self.happen("read", name))
        return bytes(file.seen[offset : offset + size])

    def write(self, name: str, file: File, data: bytes, offset: int) -> None:
        fault = self.happen("write", name)
        if fault is None:
            self.trace.update(data)
            file.write(offset, data)
            return
        file.write(offset, data[: self.chance.randrange(len(data) + 1)])
        self.end_at(fault)
        raise DiskFailed("eio")

    def truncate(self, name: str, file: File, size: int) -> None:
        self.end_at(self.happen("truncate", name))
        file.truncate(size)

    def sync(self, name: str, file: File) -> None:
        """Bring a file to the platter, with its name (SQLite syncs the folder of a file that it made)."""
        fault = self.happen("sync", name)
        if fault is not None:
            if fault.kind == "forget":
                self.forget(file)
                raise DiskFailed("eio")
            self.end_at(fault)
        file.sync()
        file.is_named = True

    def forget(self, file: File) -> None:
        """Let a sync fail as it does on Linux: some of what was pending is written, nothing of it pends any more."""
        for change in self.survivors(file.pending):
            apply(file.kept, change)
        file.pending.clear()

    def delete(self, name: str, *, is_synced: bool) -> None:
        self.end_at(self.happen("delete", name))
        file = self.files.pop(name, None)
        if file is not None and file.is_named and not is_synced:
            self.removed[name] = file

    def end_at(self, fault: Fault | None) -> None:
        """Lose the power here, if that is the fault: what was to be done is in doubt."""
        if fault is not None and fault.kind == "power":
            self.has_power = False
            self.on_power_lost()
            raise DiskFailed("eio")

    # ------------------------------------------------------------------------------------------------------- to die

    def kill(self) -> None:
        """End the processes; the operating system goes on."""
        self.generation += 1
        self.has_power = True
        for file in self.files.values():
            if self.chance.random() < 0.3:  # it was going to write it anyway
                file.sync()

    def lose_power(self) -> None:
        """Leave what a power loss leaves."""
        self.generation += 1
        self.has_power = True
        for name, file in self.removed.items():
            if name not in self.files and self.chance.random() < 0.5:
                self.files[name] = file
        self.removed.clear()
        for name, file in [*self.files.items()]:
            if not file.is_named and self.chance.random() < 0.5:
                del self.files[name]
                continue
            for change in self.survivors(file.pending):
                apply(file.kept, change)
            self.files[name] = File(bytearray(file.kept), file.kept, [], True)

    def survivors(self, pending: Iterable[Change]) -> list[Change]:
        """Return what of unsynced changes reached the platter."""
        how = self.chance.random()
        changes = [*pending]
        if how < 0.15 or not changes:
            return []
        if how < 0.3:
            return changes
        if how < 0.55:  # in order, and the last one torn
            last = self.chance.randrange(len(changes))
            return [*changes[:last], *self.torn(changes[last])]
        return [part for change in changes for part in self.torn(change)]

    def torn(self, change: Change) -> list[Change]:
        """Return the sectors of a change that survived."""
        if change.data is None:
            return [change] if self.chance.random() < 0.5 else []
        share = self.chance.choice((0.2, 0.5, 0.9))
        parts, start = [], change.offset
        while start < change.offset + len(change.data):
            end = min((start // self.sector + 1) * self.sector, change.offset + len(change.data))
            if self.chance.random() < share:
                parts.append(Change(start, change.data[start - change.offset : end - change.offset]))
            start = end
        return parts

    def rot(self, name: str, count: int = 1) -> list[int]:
        """Flip bits on the platter, while nobody has the disk open; returns where."""
        file = self.files[name]
        places = [self.chance.randrange(len(file.kept)) for _ in range(count)] if file.kept else []
        for place in places:
            bit = 1 << self.chance.randrange(8)
            file.kept[place] ^= bit
            if place < len(file.seen):
                file.seen[place] ^= bit
        return places

    def image(self) -> dict[str, bytes]:
        """Return the content of the files, as a copy of the machine would hold them."""
        return {name: bytes(file.seen) for name, file in sorted(self.files.items())}

    def load(self, image: dict[str, bytes]) -> None:
        """Begin with these files, all of them on the platter."""
        for name, content in image.items():
            self.files[name] = File(bytearray(content), bytearray(content), [], True)
