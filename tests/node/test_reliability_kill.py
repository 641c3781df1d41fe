# SPDX-License-Identifier: AGPL-3.0-or-later
"""A node that is killed at any instant loses no acknowledged entry and keeps no half of one.

Several clients post at once while the process is killed (SIGKILL) at random moments, amid starts too. After each
restart the log is compared with what the clients were told; what they were told nothing of is sent again.
"""

import http.client
import json
import random
import signal
import sqlite3
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pytest
from ledger_kit import Actor
from node_kit import admission, application, ledger_of, make_founded, must_run, serve, wall_ms
from process_kit import Nursery, Raised

from ecot_client.entries import build_entry
from ecot_protocol.domains.trade.transfers import PAY, Pay
from ecot_protocol.wire.checkpoint import Checkpoint, open_checkpoint
from ecot_protocol.wire.entry import BODY, ENTRIES, Entry, commitment, decode_record, encode_record, leaf_data
from ecot_protocol.wire.merkle import leaf_hash, verify_inclusion, verify_range
from ecot_protocol.wire.merkle_hash import verify_consistency
from ecot_protocol.wire.note import NoteVerifier
from ecot_protocol.wire.reply import REPLY, Recorded, RecordedBefore, Reply

KILLS = 60
STOPS = 5
STOP_LIMIT_S = 10.0
"""What an operator, and systemd, are promised."""
MEMBERS = ("ada", "bela", "cleo", "dora")
BATCH = 25
REQUEST_TIMEOUT_S = 20
LONGEST_LIFE_S = 0.4
CHECKPOINTS_COMPARED = 4
"""Old checkpoints, of each life, whose consistency with the newest is proven."""
SETTINGS = {
    "ECOT_NODE_HTTP__REQUESTS_PER_MINUTE": "10000000",
    "ECOT_NODE_HTTP__ENTRIES_PER_MINUTE": "100000000",
    "ECOT_NODE_LEDGER__SEAL_INTERVAL_S": "1",
    "ECOT_NODE_LOG__LEVEL": "warning",
}


class Answered(NamedTuple):
    """What one post was answered with."""

    entries: tuple[Entry, ...]
    reply: Reply


class Found(NamedTuple):
    """A record of the log."""

    place: int
    received_at_ms: int
    record: bytes


def ask(url: str, raw: bytes | None = None) -> bytes:
    request = urllib.request.Request(url, data=raw, headers={"Content-Type": "application/msgpack"})
    with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT_S) as response:
        return bytes(response.read())


def post(url: str, entries: Sequence[Entry]) -> Reply:
    return REPLY.decode(ask(url + "/v1/entries", ENTRIES.encode(tuple(entries))))


@dataclass
class Payers:
    """Members who pay each other from several threads, singly and in batches.

    Attributes:
        answered: posts and their replies.
        unanswered: posts of which nobody knows what became of them.
    """

    ledger: bytes
    actors: list[Actor]
    answered: list[Answered] = field(default_factory=list)
    unanswered: list[tuple[Entry, ...]] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)
    _is_over: threading.Event = field(default_factory=threading.Event)

    def payment(self, draw: random.Random) -> Entry:
        """Build a transfer; every other one has a memo, an attachment."""
        payer, payee = draw.sample(self.actors, 2)
        amount = draw.randrange(1, 100)
        pay = Pay(amount_minor=amount, memo=None, payee=payee.member, statutes_version=1, total_minor=amount)
        contents = {"memo": f"facture {draw.randrange(10**6)}"} if draw.randrange(2) else {}
        return build_entry(
            self.ledger,
            "trade.pay",
            pay,
            author=payer.member,
            signers=(payer.signer,),
            now_ms=wall_ms(),
            contents=contents,
        )

    def begin(self, node: Raised, seed: int) -> None:
        """Post from four threads until `end`, or until the node answers no more."""
        self._is_over.clear()
        self._threads = [
            threading.Thread(target=self._post, args=(node, random.Random(seed * 10 + number), size))
            for number, size in enumerate((1, 1, BATCH, 3))
        ]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Wait for the threads."""
        self._is_over.set()
        for thread in self._threads:
            thread.join(3 * REQUEST_TIMEOUT_S)
            assert not thread.is_alive()

    def _post(self, node: Raised, draw: random.Random, size: int) -> None:
        while not self._is_over.is_set():
            url = node.find_address()
            if url is None:
                time.sleep(0.005)
                continue
            entries = tuple(self.payment(draw) for _ in range(size))
            try:
                reply = post(url, entries)
            except urllib.error.HTTPError as problem:
                problem.close()  # not ready yet; whatever it was, the same bodies must be good later
                self.unanswered.append(entries)
            except (OSError, http.client.HTTPException):
                self.unanswered.append(entries)
                return
            else:
                self.answered.append(Answered(entries, reply))


def log_rows(folder: Path, sql: str, *values: int) -> Iterator[tuple[object, ...]]:
    """Read the log of a node that runs."""
    with closing(sqlite3.connect(f"{(folder / 'log.db').as_uri()}?mode=ro", uri=True)) as connection:
        yield from connection.execute(sql, values).fetchall()


def records_from(folder: Path, start: int) -> dict[bytes, Found]:
    """Return the records from `start` on by body; fail if one is there by half."""
    found: dict[bytes, Found] = {}
    attachments: dict[object, list[tuple[object, ...]]] = {}
    for index, *rest in log_rows(folder, "SELECT idx, salt, content FROM attachments WHERE idx >= ?", start):
        attachments.setdefault(index, []).append(tuple(rest))
    for index, at_ms, raw in log_rows(
        folder, "SELECT idx, received_at_ms, record FROM records WHERE idx >= ? ORDER BY idx", start
    ):
        assert isinstance(index, int)
        assert isinstance(at_ms, int)
        assert isinstance(raw, bytes)
        assert index == start + len(found), "a record is missing"
        record = decode_record(raw)
        body = BODY.decode(record.body)
        if body.type == "trade.pay":
            memo = PAY.codec.decode(bytes(body.payload)).memo
            has = [commitment(salt, content) for salt, content in attachments.pop(index, [])]  # type: ignore[arg-type]
            assert has == ([] if memo is None else [memo]), f"record {index} has another half"
        found[record.body] = Found(index, at_ms, raw)
    assert set(attachments) <= {one.place for one in found.values()}, "attachments without a record"
    return found


class Witness:
    """What the clients know: checks each reply, and later that the node still says the same."""

    def __init__(self, ledger: bytes, verifier: NoteVerifier) -> None:
        self.ledger, self.verifier = ledger, verifier
        self.acknowledged: dict[bytes, Found] = {}

    def head(self, note: bytes) -> Checkpoint:
        return open_checkpoint(note, [self.verifier]).checkpoint

    def take(self, answered: Answered) -> Checkpoint | None:
        """Verify a reply's proofs and remember what it acknowledges; None if it acknowledges nothing."""
        outcomes, start = answered.reply.outcomes, answered.reply.start
        is_recorded = [isinstance(one, Recorded | RecordedBefore) for one in outcomes]
        if not any(is_recorded):
            return None
        head = self.head(answered.reply.checkpoint.encode())
        fresh = []
        for entry, outcome in zip(answered.entries, outcomes, strict=True):
            assert isinstance(outcome, Recorded | RecordedBefore), outcome
            record = encode_record(outcome.received_at_ms, entry)
            leaf = leaf_hash(leaf_data(record))
            if isinstance(outcome, Recorded):
                fresh.append(leaf)
            else:
                assert verify_inclusion(leaf, outcome.index, head.size, outcome.proof, head.root_hash)
            known = self.acknowledged.setdefault(entry.body, Found(outcome.index, outcome.received_at_ms, record))
            assert known == Found(outcome.index, outcome.received_at_ms, record)
        if fresh:
            assert start is not None
            assert verify_range(start, fresh, head.size, answered.reply.hashes, head.root_hash)
        return head

    def require_extended(self, url: str, old: Checkpoint) -> None:
        """The node's newest checkpoint extends this one, and so every receipt under it holds."""
        new = self.head(ask(url + "/log/checkpoint"))
        shown = json.loads(ask(f"{url}/v1/consistency?old={old.size}&new={new.size}"))
        hashes = [bytes.fromhex(one) for one in shown["hashes"]]
        assert verify_consistency(old.size, old.root_hash, new.size, new.root_hash, hashes)


@pytest.fixture
def cooperative(tmp_path: Path) -> tuple[Path, list[Actor], NoteVerifier]:
    """A founded node with members who can pay each other; it does not run."""
    folder = make_founded(tmp_path / "node")
    with serve(folder) as node:
        actors = []
        for name in MEMBERS:
            entry, actor = application(node.ledger, name)
            node.must_post(entry, admission(node.ledger, actor))
            actors.append(actor)
        vkey = node.get("/v1/ledger")[1]["log_vkey"]
    return folder, actors, NoteVerifier.from_vkey(vkey)


def test_sixty_kills_under_load_lose_nothing_that_was_acknowledged(
    cooperative: tuple[Path, list[Actor], NoteVerifier],
) -> None:
    folder, actors, verifier = cooperative
    draw = random.Random(20_260)
    witness = Witness(ledger_of(folder), verifier)
    payers = Payers(witness.ledger, actors)
    lives_with_load = checked = 0
    with Nursery() as nursery:
        node = Raised(nursery, folder, **SETTINGS)
        for number in range(KILLS):
            node.start()
            if number % 4:
                checked = check_life(witness, payers, node, checked)
            # Every fourth is killed wherever its start has come to, perhaps amid its first answers.
            payers.begin(node, number)
            time.sleep(draw.uniform(0, LONGEST_LIFE_S))
            assert node.end() == -signal.SIGKILL
            payers.end()
            lives_with_load += bool(payers.answered)
        node.start()
        checked = check_life(witness, payers, node, checked)
        wait_for_seal(folder, checked)
        node.end()
        node.start()  # from a snapshot
        checked = check_life(witness, payers, node, 0)
        wait_for_seal(folder, checked)
        assert node.end(signal.SIGTERM) == 0
    report = json.loads(must_run("verify", str(folder), "--json").stdout)
    assert report["seals"] > 1  # each is a digest of the living state, which the replay reached too
    assert report["size"] > max(one.place for one in witness.acknowledged.values())
    assert lives_with_load >= KILLS // 2


def test_a_node_that_is_told_to_stop_under_load_answers_what_it_took_and_stops_soon(
    cooperative: tuple[Path, list[Actor], NoteVerifier],
) -> None:
    folder, actors, verifier = cooperative
    witness = Witness(ledger_of(folder), verifier)
    payers = Payers(witness.ledger, actors)
    checked = 0
    with Nursery() as nursery:
        node = Raised(nursery, folder, **SETTINGS)
        for number in range(STOPS):
            node.start()
            checked = check_life(witness, payers, node, checked)
            payers.begin(node, number)
            time.sleep(LONGEST_LIFE_S)
            asked = time.monotonic()
            assert node.end(signal.SIGTERM) == 0
            assert time.monotonic() - asked < STOP_LIMIT_S
            payers.end()
            assert payers.answered
            assert "Traceback" not in node.log()
        node.start()
        check_life(witness, payers, node, 0)
    must_run("verify", str(folder))


def check_life(witness: Witness, payers: Payers, node: Raised, start: int) -> int:
    """Compare the log of the restarted node with what was acknowledged before; return how far it was compared."""
    url = node.address()
    heads = [head for one in payers.answered if (head := witness.take(one)) is not None]
    found = records_from(node.folder, start)
    for body, told in witness.acknowledged.items():
        if told.place >= start:
            assert found.get(body) == told, f"record {told.place} was acknowledged"
    for old in heads[-CHECKPOINTS_COMPARED:]:
        witness.require_extended(url, old)
    payers.answered.clear()
    for entries in payers.unanswered:
        reply = post(url, entries)
        for entry, outcome in zip(entries, reply.outcomes, strict=True):
            before = found.get(entry.body)
            is_before = isinstance(outcome, RecordedBefore)
            assert is_before == (before is not None), "sent again, it must be recorded once"
        assert witness.take(Answered(entries, reply)) is not None
    payers.unanswered.clear()
    return start + len(found)


def wait_for_seal(folder: Path, start: int) -> None:
    """Wait until the running node has sealed its state: the digest that a later replay must reach."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        types = [BODY.decode(decode_record(raw).body).type for raw in records_of(folder, start)]
        if "coop.seal" in types:
            return
        time.sleep(0.1)
    raise AssertionError("the state was not sealed")


def records_of(folder: Path, start: int) -> list[bytes]:
    rows = log_rows(folder, "SELECT record FROM records WHERE idx >= ?", start)
    return [raw for (raw,) in rows if isinstance(raw, bytes)]
