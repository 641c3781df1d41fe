# SPDX-License-Identifier: AGPL-3.0-or-later
"""A real writer on a store, driven by the entries of a `LedgerKit`."""

import os
from pathlib import Path

from ledger_kit import LedgerKit, seed

from ecot_node.ledger.clock import RecordClock
from ecot_node.ledger.signatures import SignatureChecker
from ecot_node.ledger.writer import Writer, WriterKeys
from ecot_node.store.port import LogStore
from ecot_protocol.machine import Machine
from ecot_protocol.wire.checkpoint import open_checkpoint
from ecot_protocol.wire.entry import Entry, Record, decode_record, encode, leaf_data
from ecot_protocol.wire.merkle import leaf_hash, verify_inclusion, verify_range
from ecot_protocol.wire.note import NoteSigner, NoteVerifier
from ecot_protocol.wire.reply import Recorded, RecordedBefore, Reply


def make_writer(
    store: LogStore,
    kit: LedgerKit,
    *,
    snapshots: Path | None = None,
    machine: Machine | None = None,
    checker: SignatureChecker | None = None,
) -> Writer:
    """Return a writer that has the kit's node keys and clock."""
    keys = WriterKeys(kit.agent, seed(kit.name + "log"), os.urandom)
    return Writer(
        store,
        machine or kit.machine,
        keys,
        checker=checker,
        snapshots=snapshots,
        clock_of=lambda newest: RecordClock(newest, wall=lambda: kit.now, monotonic=lambda: kit.now),
    )


def log_key(kit: LedgerKit) -> NoteVerifier:
    """Return the verifier of the kit's log."""
    return NoteSigner(kit.state.coop.founded.origin, seed(kit.name + "log")).verifier


def entries_of(kit: LedgerKit) -> list[Entry]:
    """Return what was posted to make the kit's records (without attachments)."""
    records = [decode_record(record) for record in kit.records]
    return [Entry(record.body, record.signatures, ()) for record in records]


def check_reply(kit: LedgerKit, entries: list[Entry], reply: Reply) -> None:
    """Fail unless the reply proves every outcome that it claims."""
    checkpoint = open_checkpoint(reply.checkpoint.encode(), [log_key(kit)]).checkpoint
    leaves = []
    for entry, outcome in zip(entries, reply.outcomes, strict=True):
        if isinstance(outcome, Recorded | RecordedBefore):
            record = encode(Record(outcome.received_at_ms, entry.body, entry.signatures))
            leaf = leaf_hash(leaf_data(record))
            if isinstance(outcome, Recorded):
                leaves.append(leaf)
            else:
                assert verify_inclusion(leaf, outcome.index, checkpoint.size, outcome.proof, checkpoint.root_hash)
    if leaves:
        assert reply.start is not None
        assert verify_range(reply.start, leaves, checkpoint.size, reply.hashes, checkpoint.root_hash)
