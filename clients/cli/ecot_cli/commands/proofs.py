# SPDX-License-Identifier: AGPL-3.0-or-later
"""Receipts kept, and what can be verified: a receipt offline, or the node's whole log from outside."""

from pathlib import Path
from typing import Annotated, Final

from rich.console import Console
from rich.progress import Progress

from ecot_cli.amounts import format_instant
from ecot_cli.commands.witnessing import PolicyFile, verify_fork_file, verify_proof_file
from ecot_cli.errors import UsageProblem
from ecot_cli.framework import Command, argument, option
from ecot_cli.run import Run
from ecot_client.checks import is_proof
from ecot_client.errors import ProofFailed
from ecot_client.forks import is_fork_proof
from ecot_client.journal import Journal, Pin
from ecot_client.node import NodeClient
from ecot_client.receipts import Receipt, parse_receipt, verify_receipt
from ecot_client.verify import LogCheck, verify_log
from ecot_client.witnesses import find_witnesses
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.wire.note_key import NoteVerifier


async def receipts(
    run: Run,
    folder: Annotated[Path | None, option("--save", "receipts_folder")] = None,
    is_witnessed: Annotated[bool, option("--witnessed", "witnessed")] = False,
) -> None:
    """List the receipts that are kept, or write them as files that anybody can verify."""
    kept = _kept(run)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        for one in kept:
            (folder / f"{one.index}-{one.entry_id.hex()}.receipt").write_bytes(one.format())
    witnesses = await _find_witnesses(run, kept) if is_witnessed else {}
    shown = [_shown(one) | {"witnesses": witnesses[one.index]} if is_witnessed else _shown(one) for one in kept]
    if run.out.json(shown):
        return
    columns = ("index>", "day", "act", "id", "witnesses") if is_witnessed else ("index>", "day", "act", "id")
    run.out.table(columns, (_row(run, one, witnesses.get(one.index)) for one in kept))


def _kept(run: Run) -> tuple[Receipt, ...]:
    journal = Journal(run.profile.state_dir)
    try:
        return journal.receipts()
    finally:
        journal.close()


async def _find_witnesses(run: Run, kept: tuple[Receipt, ...]) -> dict[int, tuple[str, ...]]:
    """Return index -> domains of the partners that have witnessed the record."""
    async with run.node() as node:
        return {one.index: tuple(each.domain for each in await find_witnesses(node, one)) for one in kept}


def _row(run: Run, receipt: Receipt, witnesses: tuple[str, ...] | None) -> tuple[object, ...]:
    day = format_instant(receipt.received_at_ms, run.locale)
    row = (receipt.index, day, run.out.word("entry", receipt.body.type), receipt.entry_id.hex())
    return row if witnesses is None else (*row, ", ".join(witnesses) or run.out.text("say.not_witnessed"))


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
    policy_file: PolicyFile = None,
) -> None:
    """Verify a receipt, a proof or a fork proof offline, or with ``--log`` the whole log of the node."""
    if is_log == (file is not None):
        raise UsageProblem("verify_what")
    if file is not None:
        _verify_file(run, file, log_vkey, policy_file)
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


def _verify_file(run: Run, file: Path, log_vkey: str | None, policy_file: Path | None) -> None:
    raw = file.read_bytes()
    if is_fork_proof(raw):
        verify_fork_file(run, raw, read_keys(log_vkey))
        return
    pin = None if log_vkey is not None else _pinned(run)
    known = log_vkey if pin is None else pin.log_vkey
    former = () if pin is None else pin.former_vkeys
    if is_proof(raw):
        verify_proof_file(run, file, raw, policy_file, read_keys(known, *former))
        return
    receipt = parse_receipt(raw)
    head = verify_receipt(receipt, known, former)
    what = {"outcome": "recorded", "size": head.size, "origin": head.origin, "is_log_key_known": known is not None}
    shown = {**_shown(receipt), **what}
    if run.out.json(shown):
        return
    day = format_instant(receipt.received_at_ms, run.locale)
    run.out.say("receipt_good", index=receipt.index, size=head.size, origin=head.origin, day=day)
    if known is None:
        run.out.say("log_key_not_known", log_key=receipt.log_vkey)


def read_keys(*vkeys: str | None) -> tuple[NoteVerifier, ...]:
    """Read keys of logs; what is None is left out.

    Raises:
        ProofFailed: ``vkey_malformed``, ``vkey_type_unknown``.
    """
    try:
        return tuple(NoteVerifier.from_vkey(one) for one in vkeys if one is not None)
    except RemoteProtocolError as error:
        raise ProofFailed(error.code, error.detail) from None


def _pinned(run: Run) -> Pin | None:
    """Return what this profile pinned; verifying a file makes no profile."""
    if not (run.profile.state_dir / "journal.db").exists():
        return None
    journal = Journal(run.profile.state_dir)
    try:
        return journal.pin()
    finally:
        journal.close()


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
