# SPDX-License-Identifier: AGPL-3.0-or-later
"""An old backup that is put back never leads to a second history: real nodes whose partners cosigned what it lacks."""

import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from node_kit import must_run, wall_ms
from process_kit import Raised
from trio_kit import NAMES, Coop, Trio, make_trio, running, wait_for_witnesses

from ecot_client.entries import build_entry
from ecot_protocol.domains.trade.transfers import Pay
from ecot_protocol.wire.checkpoint import Checkpoint, open_checkpoint
from ecot_protocol.wire.entry import Entry
from ecot_protocol.wire.note import NoteSigner, SignedNote

LOST = 3
"""Records that are cosigned and that the old copy lacks."""
OURS, PARTNERS = NAMES[0], NAMES[1:]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Trio:
    return make_trio(tmp_path_factory.mktemp("trio"))


@pytest.fixture
def trio(made: Trio, tmp_path: Path) -> Trio:
    return made.copy(tmp_path)


def payment(coop: Coop, amount_minor: int = 100) -> Entry:
    payer, payee = coop.actors
    pay = Pay(amount_minor=amount_minor, memo=None, payee=payee.member, statutes_version=1, total_minor=amount_minor)
    return build_entry(coop.ledger, "trade.pay", pay, author=payer.member, signers=(payer.signer,), now_ms=wall_ms())


def size_of(note: str) -> int:
    return Checkpoint.parse(SignedNote.parse(note.encode()).text).size


def post_witnessed(coop: Coop, node: Raised, count: int = LOST) -> int:
    """Record entries, wait until both partners have cosigned them, and return the log's size."""
    node.must_post(*(payment(coop) for _ in range(count)))
    wait_for_witnesses(node)
    size: int = node.ready()["size"]
    return size


def put_old_backup_back(trio: Trio, node: Raised) -> int:
    """Back up, record more that partners cosign, stop, restore into a new folder; return the size that was lost."""
    coop = trio.coops[OURS]
    backup, restored = coop.folder.with_name("backup"), coop.folder.with_name("restored")
    must_run("backup", str(coop.folder), str(backup))
    size = post_witnessed(coop, node)
    assert node.end(signal.SIGTERM) == 0
    must_run("restore", str(backup), str(restored), "--keys", str(coop.folder))
    node.folder = restored
    return size


def put_old_copy_back(trio: Trio, node: Raised) -> int:
    """The same with a plain copy of the folder's disk, which carries no mark."""
    coop = trio.coops[OURS]
    old = coop.folder.with_name("old")
    node.end(signal.SIGTERM)
    shutil.copytree(coop.folder, old)
    node.start()
    size = post_witnessed(coop, node)
    assert node.end(signal.SIGTERM) == 0
    node.folder = old
    return size


def require_read_only(coop: Coop, node: Raised, lost_size: int) -> None:
    """The node shows both checkpoints, answers reads, and refuses entries with a clear code."""
    ready = node.wait_for("reason", "witness_ahead")
    assert ready["mode"] == "read_only"
    assert size_of(ready["checkpoint"]) == ready["size"]
    assert size_of(ready["witness_checkpoint"]) == lost_size
    status, ledger = node.get("/v1/ledger")
    assert (status, ledger["witness_checkpoint"]) == (200, ready["witness_checkpoint"])
    status, problem = node.problem(payment(coop))
    assert (status, problem["code"], problem["params"]) == (503, "not_writing", {"why": "witness_ahead"})
    assert node.ready()["size"] == ready["size"]


@pytest.mark.parametrize("put_back", [put_old_backup_back, put_old_copy_back])
def test_an_old_log_is_read_only_while_partners_know_more(trio: Trio, put_back: Callable[[Trio, Raised], int]) -> None:
    coop = trio.coops[OURS]
    with running(trio) as nodes:
        ours = nodes[OURS]
        lost_size = put_back(trio, ours)
        ours.start()
        require_read_only(coop, ours, lost_size)
        ours.end(signal.SIGTERM)
        for name in PARTNERS:
            nodes[name].end()
        ours.start()  # nobody is there to ask, and the answer is remembered
        require_read_only(coop, ours, lost_size)


def test_a_restored_log_waits_for_partners_that_are_down_and_is_then_found_old(trio: Trio) -> None:
    with running(trio) as nodes:
        ours = nodes[OURS]
        lost_size = put_old_backup_back(trio, ours)
        for name in PARTNERS:
            nodes[name].end()
        ours.start()
        assert (ours.ready()["mode"], ours.ready()["reason"]) == ("read_only", "witness_unasked")
        assert ours.problem(payment(trio.coops[OURS]))[1]["params"] == {"why": "witness_unasked"}
        nodes[PARTNERS[0]].start()
        require_read_only(trio.coops[OURS], ours, lost_size)


def test_a_restored_log_that_lacks_nothing_goes_on_once_all_partners_have_said_so(trio: Trio) -> None:
    coop = trio.coops[OURS]
    with running(trio) as nodes:
        ours = nodes[OURS]
        post_witnessed(coop, ours)
        must_run("backup", str(coop.folder), str(coop.folder.with_name("backup")))
        for node in nodes.values():
            node.end()
        restored = coop.folder.with_name("restored")
        must_run("restore", str(coop.folder.with_name("backup")), str(restored), "--keys", str(coop.folder))
        ours.folder = restored
        ours.start()
        nodes[PARTNERS[0]].start()
        nodes[PARTNERS[0]].address()
        for _ in range(10):  # the one that has answered is not enough
            assert ours.ready()["reason"] == "witness_unasked"
            time.sleep(0.2)
        assert ours.problem(payment(coop))[1]["params"] == {"why": "witness_unasked"}
        nodes[PARTNERS[1]].start()
        ours.wait_for("mode", "writing")
        ours.must_post(payment(coop))


@pytest.mark.parametrize(
    ("way", "written"), [("http", LOST + 2), ("libp2p", 1), ("libp2p", LOST), ("libp2p", LOST + 2)]
)
def test_an_old_copy_that_wrote_alone_stops_as_soon_as_a_partner_is_back(trio: Trio, way: str, written: int) -> None:
    """With fewer, as many and more records than were lost."""
    coop = trio.coops[OURS]
    with running(trio) as nodes:
        ours = nodes[OURS]
        lost_size = put_old_copy_back(trio, ours)
        for name in PARTNERS:
            nodes[name].end()
        if way == "libp2p":
            forget_urls(ours.folder)
        ours.start()
        ours.wait_for("mode", "writing")
        ours.must_post(*(payment(coop, 7) for _ in range(written)))
        nodes[PARTNERS[0]].start()
        require_read_only(coop, ours, lost_size)


def forget_urls(folder: Path) -> None:
    path = folder / "node.toml"
    lines = [line for line in path.read_text().splitlines() if not line.startswith('url = "http')]
    path.write_text("\n".join(lines) + "\n")


def test_a_partner_that_is_shown_two_histories_keeps_the_proof(trio: Trio) -> None:
    coop = trio.coops[OURS]
    with running(trio) as nodes:
        ours, partner = nodes[OURS], nodes[PARTNERS[0]]
        lost_size = put_old_copy_back(trio, ours)
        for name in PARTNERS:
            nodes[name].end()
        ours.start()
        ours.must_post(*(payment(coop, 7) for _ in range(LOST)))
        partner.start()
        require_read_only(coop, ours, lost_size)
        for _ in partner.patience():
            forks = partner.rows("SELECT origin, first_note, second_note FROM forks")
            if forks:
                break
    (origin, first, second) = forks[0]
    key = NoteSigner(coop.side().origin, coop.keys.seed("log")).verifier
    notes = [open_checkpoint(bytes(one), [key]).checkpoint for one in (first, second)]
    assert origin == key.name
    assert [one.size for one in notes] == [lost_size, lost_size]
    assert notes[0].root_hash != notes[1].root_hash
