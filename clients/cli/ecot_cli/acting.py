# SPDX-License-Identifier: AGPL-3.0-or-later
"""Record an entry for a member, or for an organ that several persons sign for.

An organ's entry is posted at once where enough of its persons' keys are at hand; else it waits in the node's drafts,
signed by those that are, until the others sign (`ecot draft sign`).
"""

from collections.abc import Awaitable, Callable
from typing import Any

from ecot_cli.errors import UsageProblem
from ecot_cli.run import Run
from ecot_client.entries import add_signature
from ecot_client.errors import KeyProblem
from ecot_client.models import DraftOutcome
from ecot_client.node import NodeClient
from ecot_client.posting import require_recorded
from ecot_client.receipts import Receipt
from ecot_protocol.ledger.entry_type import BOARD, TREASURER
from ecot_protocol.wire.encoding import Wire
from ecot_protocol.wire.entry import Signature
from ecot_protocol.wire.keys import Signer

Countersign = Callable[[bytes], Awaitable[Signature]]
"""Body of an entry -> a signature under it."""
_OFFICES = {"board": BOARD, "treasurer": TREASURER}


async def record(node: NodeClient, tag: str, payload: Wire, *, author: bytes | None, **options: Any) -> Receipt:
    """Record an entry that one person signs; see `NodeClient.build` for the options.

    Raises:
        NotRecorded: refused, with the reason.
    """
    return require_recorded(await node.post_one(await node.build(tag, payload, author=author, **options)))


async def record_for_office(
    node: NodeClient, office: str, tag: str, payload: Wire, *, countersign: Countersign | None = None, **options: Any
) -> Receipt | DraftOutcome:
    """Record an entry of an organ, or leave it as a draft.

    Args:
        node: of the ledger.
        office: ``board`` or ``treasurer``.
        tag: of the entry type.
        payload: of the type.
        countersign: gives the signature of a key that the payload itself brings.
        options: see `NodeClient.build`.

    Raises:
        KeyProblem: ``office_not_held``: no key at hand is of a person of the organ.
        NotRecorded: refused, with the reason.
    """
    threshold, holders = await _holders(node, office)
    if not holders:
        raise KeyProblem("office_not_held", office=office)
    entry = await node.build(tag, payload, author=_OFFICES[office], signers=holders[:threshold], **options)
    if countersign is not None:
        entry = add_signature(entry, await countersign(entry.body))
    if len(holders) >= threshold:
        return require_recorded(await node.post_one(entry))
    return await node.leave_draft(entry)


async def _holders(node: NodeClient, office: str) -> tuple[int, list[Signer]]:
    """Return how many persons of the organ must sign, and one key at hand of each of them that there is."""
    held = next((one for one in await node.offices() if one.office == office), None)
    if held is None:
        raise UsageProblem("office_vacant", office=office)
    at_hand = {signer.key_id.hex(): signer for signer in node.signers}
    found: list[Signer] = []
    for person in held.persons:
        keys = (await node.person(person)).keys
        mine = [at_hand[key.key_id] for key in keys if key.key_id in at_hand and key.revoked_at_ms is None]
        found += mine[:1]
    return held.threshold, found


def show_done(run: Run, done: Receipt | DraftOutcome, said: str = "recorded", **more: object) -> None:
    """Tell what became of an entry.

    Args:
        run: of the command.
        done: a receipt, or a draft.
        said: text for a recorded entry, ``cli.say.<said>``.
        more: further fields of the JSON document, and parameters of the text.
    """
    if isinstance(done, Receipt):
        shown = {
            "status": "recorded",
            "id": done.entry_id.hex(),
            "index": done.index,
            "received_at_ms": done.received_at_ms,
            "standing": "recorded",
            **more,
        }
        if not run.out.json(shown):
            run.out.say(said, **shown)
            run.out.say("standing_of_act")
        return
    if not run.out.json({**_plain(done), **more}):
        run.out.say(
            f"draft_{done.status}", hash=done.hash, missing=done.missing_count, index=done.index, code=done.code
        )


def _plain(done: DraftOutcome) -> dict[str, object]:
    return {
        "status": done.status,
        "draft": done.hash,
        "index": done.index,
        "code": done.code,
        "missing_count": done.missing_count,
    }
