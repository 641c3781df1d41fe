# SPDX-License-Identifier: AGPL-3.0-or-later
"""The records of a `LedgerKit` as the writer hands them to the views."""

from collections.abc import Iterator

from ledger_kit import MACHINE, LedgerKit

from ecot_node.ledger.port import RecordedEntry
from ecot_protocol.state import State
from ecot_protocol.wire.entry import BODY, decode_record


def recorded(kit: LedgerKit, start: int = 0) -> list[RecordedEntry]:
    """Return the kit's records from `start`, with their facts, by replaying them all."""
    return list(_replayed(kit))[start:]


def _replayed(kit: LedgerKit) -> Iterator[RecordedEntry]:
    state = State()
    for index, raw in enumerate(kit.records):
        record = decode_record(raw)
        body = BODY.decode(record.body)
        applied = MACHINE.replay(state, record, is_verified=True)
        entry_type = MACHINE.table.find(body.type, state.rules)
        assert entry_type is not None
        yield RecordedEntry(
            index,
            record.received_at_ms,
            body.id,
            body.type,
            body.author,
            entry_type.visibility.value,
            applied.parties,
            tuple(applied.facts),
        )
