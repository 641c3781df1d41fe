# SPDX-License-Identifier: AGPL-3.0-or-later
"""Real `ecot-node` processes on loopback: made, founded, served, asked, stopped. Every wait has an end.

Only processes that this kit started are ever signalled.
"""

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from ledger_kit import Actor, seed

from ecot_client.entries import OWN_ID, build_entry, entry_id, sign_entry
from ecot_protocol.domains.membership.acts import Admit, Apply, AttestPayment, NewPerson
from ecot_protocol.ledger.entry_type import BOARD, TREASURER
from ecot_protocol.wire.entry import ENTRIES, ENTRY, Entry, decode_entry
from ecot_protocol.wire.ids import object_id
from ecot_protocol.wire.keys import Signer
from ecot_protocol.wire.reply import REPLY, Outcome, Recorded

COMMAND_TIMEOUT_S = 120
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 30
POLL_S = 0.05
BOARD_KEY = Signer(seed("node kit claire"))
"""The one founder of a test's cooperative: board and treasurer."""
_ADDRESS = re.compile(r"The node answers at http://127\.0\.0\.1:(\d+)\n")


def run_node(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `ecot-node` to its end, in English; `environment` is added to ours."""
    return subprocess.run(
        [sys.executable, "-m", "ecot_node", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=COMMAND_TIMEOUT_S,
        env=os.environ | {"LC_ALL": "C.UTF-8", "COLUMNS": "80"} | environment,
        stdin=subprocess.DEVNULL,
    )


def must_run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Like `run_node`, and fail the test unless it exits with 0."""
    done = run_node(*arguments, **environment)
    assert done.returncode == 0, f"ecot-node {arguments[0]}: exit {done.returncode}\n{done.stderr}"
    return done


def init_options(**changes: str) -> list[str]:
    """Return the options of a good `init`; `changes` replace some (`board`, `domain`, ...)."""
    options = {
        "name": "Troc de test",
        "domain": "troc.example",
        "board": f"claire={BOARD_KEY.public_key.hex()}:board,treasurer",
        "threshold": "1",
        "http-port": "0",
    } | {name.replace("_", "-"): value for name, value in changes.items()}
    return [part for name, value in options.items() for part in (f"--{name}", value)]


def make_founded(folder: Path, **changes: str) -> Path:
    """Make a node's folder whose genesis is signed; the first `serve` records it."""
    must_run("init", str(folder), *init_options(**changes))
    draft = folder / "genesis.draft"
    copy = folder.with_name(folder.name + ".signed")
    copy.write_bytes(ENTRY.encode(sign_entry(decode_entry(draft.read_bytes()), BOARD_KEY)))
    must_run("found", str(folder), str(copy))
    return folder


def copy_folder(folder: Path, target: Path) -> Path:
    """Copy a node's folder, as a snapshot of its disk would."""
    shutil.copytree(folder, target)
    return target


def ledger_of(folder: Path) -> bytes:
    """Return the ledger's id: the hash of the genesis body."""
    return sha256(decode_entry((folder / "genesis.draft").read_bytes()).body).digest()


def query(folder: Path, sql: str, *values: Any, file: str = "log.db") -> list[tuple[Any, ...]]:
    """Run one statement on a database of a node that does not run, and commit it."""
    with closing(sqlite3.connect(folder / file)) as connection, connection:
        return connection.execute(sql, values).fetchall()


@dataclass
class Served:
    """A node that runs; see `serve`."""

    folder: Path
    process: subprocess.Popen[bytes]
    log_path: Path
    url: str = ""
    ledger: bytes = b""
    actors: dict[str, Actor] = field(default_factory=dict)

    def log(self) -> str:
        """Return what the process said so far."""
        return self.log_path.read_text(errors="replace")

    def get(self, path: str) -> tuple[int, dict[str, Any]]:
        """Return status and JSON of a read."""
        return self._ask(urllib.request.Request(self.url + path))

    def ready(self) -> dict[str, Any]:
        """Return what /readyz says, whether ready or not."""
        return self.get("/readyz")[1]

    def post(self, *entries: Entry) -> tuple[Outcome, ...]:
        """Post entries and return their outcomes; fail unless the node took them."""
        body = ENTRIES.encode(entries)
        request = urllib.request.Request(
            self.url + "/v1/entries", data=body, headers={"Content-Type": "application/msgpack"}
        )
        with urllib.request.urlopen(request, timeout=COMMAND_TIMEOUT_S) as response:
            return REPLY.decode(response.read()).outcomes

    def post_problem(self, *entries: Entry) -> tuple[int, dict[str, Any]]:
        """Post entries that the node will not take; return status and problem."""
        headers = {"Content-Type": "application/msgpack"}
        request = urllib.request.Request(self.url + "/v1/entries", data=ENTRIES.encode(entries), headers=headers)
        return self._ask(request)

    def must_post(self, *entries: Entry) -> list[int]:
        """Post entries, fail unless each is recorded; return their indexes."""
        outcomes = self.post(*entries)
        assert all(isinstance(one, Recorded) for one in outcomes), outcomes
        return [one.index for one in outcomes if isinstance(one, Recorded)]

    @staticmethod
    def _ask(request: urllib.request.Request) -> tuple[int, dict[str, Any]]:
        try:
            with urllib.request.urlopen(request, timeout=COMMAND_TIMEOUT_S) as response:
                return response.status, json.loads(response.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())

    def wait_for(self, name: str, value: Any) -> dict[str, Any]:
        """Wait until /readyz answers `value` for `name`; fail after `START_TIMEOUT_S`."""
        for _ in range(int(START_TIMEOUT_S / POLL_S)):
            ready = self.ready()
            if ready.get(name) == value:
                return ready
            time.sleep(POLL_S)
        raise AssertionError(f"{name} did not become {value!r}: {self.ready()}\n{self.log()}")

    def kill(self) -> None:
        """End this node as a power cut would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(STOP_TIMEOUT_S)

    def stop(self) -> int:
        """Ask this node to stop and return its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(STOP_TIMEOUT_S)


@contextmanager
def serve(folder: Path, *options: str, **environment: str) -> Iterator[Served]:
    """Serve a folder until the block ends."""
    log_path = folder.with_name(f"{folder.name}.{time.monotonic_ns()}.log")
    with log_path.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "ecot_node", "serve", str(folder), *options],
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            env=os.environ | {"LC_ALL": "C.UTF-8"} | environment,
        )
    served = Served(folder, process, log_path, ledger=ledger_of(folder))
    try:
        served.url = _wait_for_address(served)
        yield served
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_TIMEOUT_S)


def _wait_for_address(served: Served) -> str:
    for _ in range(int(START_TIMEOUT_S / POLL_S)):
        found = _ADDRESS.search(served.log())
        if found:
            return f"http://127.0.0.1:{found[1]}"
        assert served.process.poll() is None, f"the node ended: exit {served.process.returncode}\n{served.log()}"
        time.sleep(POLL_S)
    raise AssertionError(f"the node did not serve in {START_TIMEOUT_S} s:\n{served.log()}")


def wall_ms() -> int:
    """Return the clock that the nodes of these tests have, milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def application(ledger: bytes, name: str, **contents: str) -> tuple[Entry, Actor]:
    """Return an application of a new firm with a new person; `contents` are attachments (`identity`)."""
    signer = Signer(seed("node kit " + name))
    apply = Apply(
        college="users",
        handle=name,
        identity=None,
        kind="firm",
        new_person=NewPerson(handle=f"{name}.owner", public_key=signer.public_key),
        person=None,
    )
    entry = build_entry(
        ledger,
        "membership.apply",
        apply,
        author=OWN_ID,
        signers=(signer,),
        now_ms=wall_ms(),
        contents=contents or {"identity": f"{name} SARL, 3 rue du Port"},
    )
    member = entry_id(entry)
    return entry, Actor(name, member, object_id(member, 1), signer)


def admission(ledger: bytes, actor: Actor) -> Entry:
    """Return the board's admission of a member."""
    payload = Admit(college="users", member=actor.member)
    return build_entry(ledger, "membership.admit", payload, author=BOARD, signers=(BOARD_KEY,), now_ms=wall_ms())


def payment(ledger: bytes, actor: Actor, amount_minor: int) -> Entry:
    """Return the treasurer's attestation that a member paid, with the bank's reference."""
    payload = AttestPayment(amount_minor=amount_minor, direction="in", member=actor.member, reference=None, unit="EUR")
    return build_entry(
        ledger,
        "membership.attest_payment",
        payload,
        author=TREASURER,
        signers=(BOARD_KEY,),
        now_ms=wall_ms(),
        contents={"reference": "virement 2026-114"},
    )


APPLY_INDEX, ADMIT_INDEX, PAYMENT_INDEX = 1, 2, 3
"""Where the acts of the first member stand in a ledger that `live` made."""
CROWD = 300
"""Further applications: more than a tile of the tree holds."""


def live(folder: Path) -> Path:
    """Make a node whose ledger has some history: one member who paid, `CROWD` who applied, at least one seal."""
    make_founded(folder)
    with serve(folder) as node:
        apply, ada = application(node.ledger, "ada")
        indexes = [node.must_post(one)[0] for one in (apply, admission(node.ledger, ada))]
        indexes += node.must_post(payment(node.ledger, ada, 13_500))
        assert indexes == [APPLY_INDEX, ADMIT_INDEX, PAYMENT_INDEX]
        node.must_post(*(application(node.ledger, f"firm{number}")[0] for number in range(CROWD)))
    with serve(folder, ECOT_NODE_LEDGER__SEAL_INTERVAL_S="1"):
        wait_for_snapshot(folder)
    return folder


def wait_for_snapshot(folder: Path) -> None:
    """Wait until the node has recorded a seal and written its snapshot; fail after `START_TIMEOUT_S`."""
    for _ in range(int(START_TIMEOUT_S / POLL_S)):
        if list((folder / "snapshots").glob("*.state")):
            return
        time.sleep(POLL_S)
    raise AssertionError("no snapshot was written")


class FakeWitness:
    """A partner that says which checkpoint of a log it saw last; answers 404 while it has none."""

    def __init__(self, port: int = 0) -> None:
        self.notes: dict[str, bytes] = {}
        self.asked = 0
        witness = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                witness.asked += 1
                note = witness.notes.get(self.path)
                self.send_response(200 if note is not None else 404)
                self.send_header("Content-Length", str(len(note or b"")))
                self.end_headers()
                self.wfile.write(note or b"")

            def log_message(self, *_args: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def keep(self, note: bytes) -> None:
        """Have seen this checkpoint last."""
        origin = note.split(b"\n", 1)[0]
        self.notes[f"/witness/{sha256(origin).hexdigest()}/checkpoint"] = note

    def close(self) -> None:
        """Go away: nobody answers at `url` any more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(STOP_TIMEOUT_S)


def newest_checkpoint(folder: Path) -> bytes:
    """Return the newest checkpoint note of a node that does not run, signed by its log key."""
    return bytes(query(folder, "SELECT note FROM head")[0][0])


def add_witness(folder: Path, url: str) -> None:
    """Write a partner with this address into node.toml, as an operator would."""
    path = folder / "node.toml"
    peer = f'\n[[federation.peers]]\nledger = "{"ab" * 32}"\nurl = "{url}"\n'
    path.write_text(path.read_text(encoding="utf-8") + peer, encoding="utf-8")
