# SPDX-License-Identifier: AGPL-3.0-or-later
"""Erase what may be erased: attachments, by record, with the legal answer of their class."""

from pathlib import Path

from ecot_node.config import ConfigError
from ecot_node.ledger.clock import wall_ms
from ecot_node.restoring import ERASURES_FILE
from ecot_node.store.backup import write_erasures
from ecot_node.store.port import AttachmentRow, LogReads, RecordRow
from ecot_protocol.ledger.attachments import CLASSES

DAY_MS = 86_400_000


async def erase_attachments(
    store: LogReads, folder: Path, index: int, positions: list[int] | None, ground: str, *, is_forced: bool
) -> int:
    """Delete contents and salts of a record's attachments and list the erasure beside the backups.

    Args:
        store: open for writing (the node does not run meanwhile).
        folder: of the node.
        index: record.
        positions: of its attachments; None: all.
        ground: why, for the list.
        is_forced: although the class asks to keep them.

    Returns:
        How many were there to erase.

    Raises:
        ConfigError: there is no such record, or the law asks to keep one of them.
    """
    record = await store.record(index)
    if record is None:
        raise ConfigError(f"record {index} does not exist")
    chosen = [one for one in await store.attachments(index) if positions is None or one.position in positions]
    if not is_forced:
        for one in chosen:
            _require_erasable(record, one)
    count = await store.erase_attachments(
        index, [one.position for one in chosen], erased_at_ms=wall_ms(), ground=ground
    )
    write_erasures(folder / ERASURES_FILE, await store.erasures())
    return count


def _require_erasable(record: RecordRow, attachment: AttachmentRow) -> None:
    rules = CLASSES.get(attachment.class_name)
    if rules is None or rules.is_erasable_early or rules.kept_days is None:
        return
    until_ms = record.received_at_ms + rules.kept_days * DAY_MS
    if wall_ms() < until_ms:
        days = (until_ms - wall_ms()) // DAY_MS
        raise ConfigError(f"{attachment.class_name}: kept for {rules.ground}, {days} days more; --force overrides")
