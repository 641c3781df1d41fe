# SPDX-License-Identifier: AGPL-3.0-or-later
"""Real nodes: a transfer over a partner between, quoted, sent, refused; and the decision log that it leaves."""

import asyncio
import contextlib
import signal
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from test_reliability_federation import PATIENCE, require_agreement
from trio_kit import Coop, Trio, make_trio, running

from ecot_client.federation import build_send_over, check_quote
from ecot_client.models import TransferInfo
from ecot_client.node import NodeClient
from ecot_client.posting import require_recorded
from ecot_protocol.domains.federation.deals import deal_id
from ecot_protocol.domains.federation.statements import DECISIONS_SUFFIX
from ecot_protocol.wire.checkpoint import Checkpoint
from ecot_protocol.wire.merkle import Frontier, leaf_hashes
from ecot_protocol.wire.note import SignedNote

AMOUNT = 10_000
WAIT_S = 60.0


async def quoted_over_one_between(client: NodeClient, payee: Coop) -> tuple[bytes, int]:
    """Wait until the node knows a path over another ledger; return its draft and cost."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        found = await client.quotes(f"{payee.name}.example", AMOUNT)
        assert found.payee_ledger == payee.ledger.hex()
        assert found.quotes[0].total_minor == AMOUNT
        if len(found.quotes) > 1:
            quote = found.quotes[1]
            assert [hop.fee_minor for hop in quote.hops] == [quote.total_minor - AMOUNT, 0]
            return bytes.fromhex(quote.draft), quote.total_minor
        await asyncio.sleep(0.2)
    raise AssertionError("no path over a partner was found")


async def send(client: NodeClient, payer: Coop, payee: Coop, member: bytes) -> bytes:
    """Pay over the longer path; return the deal's id."""
    await quoted_over_one_between(client, payee)
    quote = (await client.quotes(payee.ledger.hex(), AMOUNT)).quotes[1]
    draft = check_quote(quote, payer.ledger, payee.ledger, AMOUNT)
    actor = payer.actors[0]
    entry_id, payload = build_send_over(
        draft, actor.member, member, now_ms=client.clock_ms(), statutes_version=1, memo="facture 7"
    )
    entry = await client.build(
        "federation.send", payload, author=actor.member, signers=(actor.signer,), entry_id=entry_id
    )
    require_recorded(await client.post_one(entry))
    return deal_id(payload.contract)


async def ended(client: NodeClient, tid: bytes) -> TransferInfo:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        async for one in client.transfers():
            if one.tid == tid.hex() and one.status != "pending":
                return one
        await asyncio.sleep(0.2)
    raise AssertionError("the transfer did not end")


def leaves_of(url: str) -> dict[bytes, int]:
    """Read a whole decision log over HTTP, and compare its leaves with its checkpoint."""
    with urlopen(f"{url}/log/decisions/checkpoint") as answer:
        note = SignedNote.parse(answer.read())
    shown = Checkpoint.parse(note.text)
    assert shown.origin.endswith(DECISIONS_SUFFIX)
    assert shown.size < 256
    with urlopen(f"{url}/log/decisions/tile/entries/000.p/{shown.size}") as answer:
        bundle = answer.read()
    leaves, place = [], 0
    while place < len(bundle):
        length = int.from_bytes(bundle[place : place + 2], "big")
        leaves.append(bundle[place + 2 : place + 2 + length])
        place += 2 + length
    hashes = leaf_hashes(leaves)
    assert Frontier.of(hashes).root() == shown.root_hash
    with urlopen(f"{url}/log/decisions/tile/0/000.p/{shown.size}") as answer:
        assert answer.read() == b"".join(hashes)
    return {leaf[3:19]: leaf[19] for leaf in leaves}


@pytest.fixture
def trio(tmp_path: Path) -> Trio:
    return make_trio(tmp_path)


async def test_a_member_is_paid_over_a_partner_between(trio: Trio, tmp_path: Path) -> None:
    payer, payee = trio.coops["rives"], trio.coops["port"]
    with running(trio) as nodes:
        async with NodeClient(payer.url, tmp_path / "client", (payer.actors[0].signer,), patience=PATIENCE) as client:
            tid = await send(client, payer, payee, payee.actors[0].member)
            sent = await ended(client, tid)
            stranger = await send(client, payer, payee, bytes(16))
            refused = await ended(client, stranger)
        assert (sent.status, sent.via) == ("commit", (trio.coops["scene"].ledger.hex(),))
        assert (sent.amount_minor, sent.partner_amount_minor) == (AMOUNT + AMOUNT // 100, AMOUNT)
        assert (refused.status, refused.refusal) == ("abort", "member_not_active")
        assert refused.refused_by == payee.ledger.hex()
        for node in nodes.values():
            for _ in node.patience():
                pending = [table for table in ("transfers", "transits") if _is_pending(node, table)]
                if not pending:
                    break
            assert not pending
        between = nodes["scene"].rows(
            "SELECT tid, status, fee_minor FROM transits ORDER BY opened_idx", file="views.db"
        )
        assert [(tid, "commit", AMOUNT // 100), (stranger, "abort", AMOUNT // 100)] == between
        memo = nodes["port"].rows("SELECT content FROM attachments WHERE class = 'memo'")
        assert memo == [(b"facture 7",)]
        outcomes: dict[bytes, int] = {}
        for _ in nodes["port"].patience():  # the published log follows within a second or two
            with contextlib.suppress(HTTPError):  # nothing is published yet
                outcomes = leaves_of(payee.url)
            if stranger in outcomes:
                break
        assert (outcomes[tid], outcomes[stranger]) == (1, 0)
        for node in nodes.values():
            assert node.end(signal.SIGTERM) == 0
    await require_agreement(trio)


def _is_pending(node: object, table: str) -> bool:
    rows = node.rows(f"SELECT 1 FROM {table} WHERE status = 'pending'", file="views.db")  # type: ignore[attr-defined]
    return bool(rows)
