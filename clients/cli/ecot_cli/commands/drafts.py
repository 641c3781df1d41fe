# SPDX-License-Identifier: AGPL-3.0-or-later
"""``ecot draft``: entries that wait for several persons' signatures."""

from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

from ecot_cli.acting import show_done
from ecot_cli.amounts import format_instant
from ecot_cli.errors import UsageProblem
from ecot_cli.framework import Command, argument
from ecot_cli.run import Run
from ecot_client.entries import find_type, sign_entry
from ecot_client.errors import KeyProblem, ProofFailed
from ecot_client.models import DraftItem, DraftOutcome
from ecot_client.node import NodeClient
from ecot_client.reads import read_draft
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.wire.entry import BODY, Entry, commitment, decode_entry

DraftName = Annotated[str, argument("draft")]


async def list_drafts(run: Run) -> None:
    """List the drafts that the person may sign."""
    async with run.node() as node:
        found = [one async for one in node.drafts()]
    if run.out.json(found):
        return
    run.out.table(
        ("act", "signed>", "expires", "draft"),
        (
            (
                run.out.word("entry", one.type),
                _signed(one),
                format_instant(one.expires_at_ms, run.locale),
                one.hash,
            )
            for one in found
        ),
    )


def _signed(draft: DraftItem) -> str:
    return f"{sum(need.signed_count for need in draft.needs)}/{sum(need.threshold for need in draft.needs)}"


async def show(run: Run, draft: DraftName) -> None:
    """Show what a draft says, with its attachments: read it before signing."""
    async with run.node() as node:
        rules = (await node.info()).rules
        entry = _read_file(draft)
        if entry is None:
            entry = read_draft(await node.draft(draft))
    shown = describe(entry, rules)
    if not run.out.json(shown):
        run.out.say("draft", act=run.out.word("entry", str(shown["type"])))
        run.out.plain(msgspec.json.format(msgspec.json.encode(shown)).decode())


def describe(entry: Entry, rules: int) -> dict[str, Any]:
    """Return the content of an entry in plain values, bytes as hex; each attachment is checked to be the one signed.

    Raises:
        ProofFailed: ``draft_differs``: an attachment is not the one that the body commits to.
    """
    body = BODY.decode(entry.body)
    entry_type = find_type(body.type, rules)
    payload = entry_type.codec.decode(bytes(body.payload))
    contents = {commitment(one.salt, one.content): one.content for one in entry.attachments}
    attachments = {}
    for name, _ in entry_type.attachments:
        committed = getattr(payload, name)
        if committed is not None:
            if committed not in contents:
                raise ProofFailed("draft_differs", f"{name} is not the one that was signed")
            attachments[name] = contents[committed].decode("utf-8", "replace")
    return {
        "type": body.type,
        "id": body.id.hex(),
        "author": body.author.hex() if body.author else None,
        "expires_at_ms": body.expires_at,
        "payload": _plain(payload),
        "attachments": attachments,
        "signed_by": [one.key_id.hex() for one in entry.signatures],
    }


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, msgspec.Struct):
        return {name: _plain(one) for name, one in msgspec.structs.asdict(value).items()}
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return value


async def sign(run: Run, draft: DraftName) -> None:
    """Sign a draft: one of the node's, or a file such as a request to recover keys."""
    async with run.node() as node:
        if not node.signers:
            raise KeyProblem("key_needed")
        entry = _read_file(draft)
        if entry is not None:
            done = await _sign_file(node, entry)
        else:
            done = await node.sign_draft(draft, node.signers[0])
    show_done(run, done)


async def _sign_file(node: NodeClient, entry: Entry) -> DraftOutcome:
    ledger = BODY.decode(entry.body).ledger
    if ledger != await node.ledger_id():
        raise UsageProblem("draft_of_another_ledger", ledger=ledger.hex())
    return await node.leave_draft(sign_entry(entry, node.signers[0]))


def _read_file(name: str) -> Entry | None:
    """Return the entry in the file of this name; None if there is no such file."""
    path = Path(name)
    if not path.is_file():
        return None
    try:
        return decode_entry(path.read_bytes())
    except RemoteProtocolError as error:
        raise UsageProblem("draft_malformed", str(error), path=name) from None


DRAFT_COMMANDS: Final = (
    Command("draft list", list_drafts),
    Command("draft show", show),
    Command("draft sign", sign),
)
