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
from ecot_protocol.domains.coop.genesis import GENESIS
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.wire.encoding import encode
from ecot_protocol.wire.entry import BODY, NO_LEDGER, Entry, commitment, decode_entry

GENESIS_RULES: Final = 1
"""A genesis comes before any ledger that could say its rules number: its own form has the first."""
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
    entry = _read_file(draft)
    if entry is not None and _is_genesis(entry):
        rules = GENESIS_RULES
    else:
        async with run.node() as node:
            rules = (await node.info()).rules
            entry = entry or read_draft(await node.draft(draft))
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
    """Sign a draft: one of the node's, or a file such as a genesis or a request to recover keys."""
    entry = _read_file(draft)
    if entry is not None and _is_genesis(entry):
        _sign_genesis(run, Path(draft), entry)
        return
    async with run.node() as node:
        if not node.signers:
            raise KeyProblem("key_needed")
        if entry is not None:
            done = await _sign_file(node, entry)
        else:
            done = await node.sign_draft(draft, node.signers[0])
    show_done(run, done)


def _is_genesis(entry: Entry) -> bool:
    return BODY.decode(entry.body).ledger == NO_LEDGER


def _sign_genesis(run: Run, path: Path, entry: Entry) -> None:
    """Add a founder's signature to the draft of a genesis, in its file: there is no ledger yet to send it to.

    Raises:
        KeyProblem: ``key_needed``; ``key_not_of_a_founder``: the draft names none of the keys in the file.
    """
    if not run.signers:
        raise KeyProblem("key_needed")
    genesis = GENESIS.codec.decode(bytes(BODY.decode(entry.body).payload))
    founders = {one.public_key for one in genesis.founders}
    signer = next((one for one in run.signers if one.public_key in founders), None)
    if signer is None:
        raise KeyProblem("key_not_of_a_founder", path=str(path))
    signed = sign_entry(entry, signer)
    partial = path.with_name(path.name + ".new")
    partial.write_bytes(encode(signed))
    partial.replace(path)
    shown = {"status": "signed", "file": str(path), "name": genesis.name, "signature_count": len(signed.signatures)}
    if not run.out.json(shown):
        run.out.say("genesis_signed", path=str(path), name=genesis.name, count=len(signed.signatures))


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
