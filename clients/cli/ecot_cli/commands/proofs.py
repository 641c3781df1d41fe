# SPDX-License-Identifier: AGPL-3.0-or-later
"""Receipts kept, and what can be verified: a receipt offline, or the node's whole log from outside."""

from pathlib import Path
from typing import Annotated, Final

from rich.console import Console
from rich.progress import Progress

from ecot_cli.amounts import format_instant
from ecot_cli.errors import UsageProblem
from ecot_cli.framework import Command, argument, option
from ecot_cli.run import Run
from ecot_client.journal import Journal
from ecot_client.node import NodeClient
from ecot_client.receipts import Receipt, parse_receipt, verify_receipt
from ecot_client.verify import LogCheck, verify_log


async def receipts(run: Run, folder: Annotated[Path | None, option("--save", "receipts_folder")] = None) -> None:
    """List the receipts that are kept, or write them as files that anybody can verify."""
    journal = Journal(run.profile.state_dir)
    try:
        kept = journal.receipts()
    finally:
        journal.close()
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        for one in kept:
            (folder / f"{one.index}-{one.entry_id.hex()}.receipt").write_bytes(one.format())
    shown_all = [_shown(one) for one in kept]
    if run.out.json(shown_all):
        return
    rows = (
        (
            one.index,
            format_instant(one.received_at_ms, run.locale),
            run.out.word("entry", one.body.type),
            one.entry_id.hex(),
        )
        for one in kept
    )
    run.out.table(("index>", "day", "act", "id"), rows)


def _shown(receipt: Receipt) -> dict[str, object]:
    return {
        "index": receipt.index,
        "received_at_ms": receipt.received_at_ms,
        "type": receipt.body.type,
        "id": receipt.entry_id.hex(),
        "ledger": receipt.ledger.hex(),
    }


async def verify(
    run: Run,
    file: Annotated[Path | None, argument("receipt_file")] = None,
    is_log: Annotated[bool, option("--log", "verify_log")] = False,
    log_vkey: Annotated[str | None, option("--log-key", "log_key")] = None,
) -> None:
    """Verify a receipt offline, or with ``--log`` the whole log of the node."""
    if is_log == (file is not None):
        raise UsageProblem("verify_what")
    if file is not None:
        _verify_file(run, file, log_vkey)
        return
    needs_keys = run.profile.keys_path.exists()
    async with run.node(needs_keys=needs_keys) as node:
        check = await _verify_log(run, node)
    shown = {
        "size": check.size,
        "root": check.root.hex(),
        "receipt_count": check.receipt_count,
        "record_count": check.record_count,
    }
    if not run.out.json(shown):
        run.out.say("log_good", size=check.size, receipts=check.receipt_count, records=check.record_count)


def _verify_file(run: Run, file: Path, log_vkey: str | None) -> None:
    receipt = parse_receipt(file.read_bytes())
    known = log_vkey or _pinned_key(run)
    head = verify_receipt(receipt, known)
    shown = {**_shown(receipt), "size": head.size, "origin": head.origin, "is_log_key_known": known is not None}
    if run.out.json(shown):
        return
    day = format_instant(receipt.received_at_ms, run.locale)
    run.out.say("receipt_good", index=receipt.index, size=head.size, origin=head.origin, day=day)
    if known is None:
        run.out.say("log_key_not_known", log_key=receipt.log_vkey)


def _pinned_key(run: Run) -> str | None:
    """Return the log key that this profile pinned; verifying a file makes no profile."""
    if not (run.profile.state_dir / "journal.db").exists():
        return None
    journal = Journal(run.profile.state_dir)
    try:
        pin = journal.pin()
    finally:
        journal.close()
    return pin.log_vkey if pin is not None else None


async def _verify_log(run: Run, node: NodeClient) -> LogCheck:
    with Progress(console=Console(stderr=True), disable=run.options.is_json, transient=True) as bar:
        tasks = {what: bar.add_task(run.out.text(f"say.checking_{what}"), total=None) for what in ("leaves", "records")}
        return await verify_log(
            node, progress=lambda what, done, total: bar.update(tasks[what], completed=done, total=total)
        )


PROOF_COMMANDS: Final = (
    Command("receipts", receipts),
    Command("verify", verify),
)
