# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a client can prove: its own balance against a seal, and that the whole log is what the node signed."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fake_node import FakeNode
from ledger_kit import LedgerKit

from ecot_client.errors import ProofFailed
from ecot_client.events import follow_events
from ecot_client.node import NodeClient
from ecot_client.posting import require_recorded
from ecot_client.proofs import prove_balances
from ecot_client.transport import Patience
from ecot_client.verify import verify_log
from ecot_protocol.domains.membership.keys import VetoRecovery
from ecot_protocol.domains.trade.transfers import Pay
from ecot_protocol.wire.merkle import EMPTY_ROOT

QUICK = Patience(request_s=10, total_s=20, attempts=2, pause_s=0.01)
ACCOUNTS = (("BART", "barter"), ("EUR", "claims"))


@pytest.fixture
async def node() -> AsyncIterator[FakeNode]:
    async with FakeNode() as running:
        yield running


@pytest.fixture
async def client(node: FakeNode, tmp_path: Path) -> AsyncIterator[NodeClient]:
    ada, bob = node.kit.join("ada"), node.kit.join("bob")
    async with NodeClient(
        node.url, tmp_path, (ada.signer,), clock_ms=lambda: node.kit.now, patience=QUICK
    ) as connected:
        payload = Pay(amount_minor=1_250, memo=None, payee=bob.member, statutes_version=1, total_minor=1_250)
        entry = await connected.build("trade.pay", payload, author=ada.member)
        require_recorded(await connected.post_one(entry))
        yield connected


async def _ada(client: NodeClient) -> bytes:
    return bytes.fromhex((await client.me()).members[0].member)


async def test_a_balance_is_proven_against_a_seal(node: FakeNode, client: NodeClient) -> None:
    size = node.kit.state.size
    seal = node.seal()
    barter, claims = await prove_balances(client, await _ada(client), ACCOUNTS)
    assert (barter.account.balance_minor, barter.account.lower_minor) == (-1_250, -500_000)
    assert claims.account.balance_minor == -13_500
    assert (barter.proof.size, barter.proof.seal_index) == (size, seal)


async def test_the_seal_tells_the_balance_of_its_own_time(node: FakeNode, client: NodeClient) -> None:
    node.seal()
    bob = next(one for one, row in node.kit.state.membership.members.items() if row.handle == "bob")
    payload = Pay(amount_minor=1, memo=None, payee=bob, statutes_version=1, total_minor=1)
    ada = await _ada(client)
    require_recorded(await client.post_one(await client.build("trade.pay", payload, author=ada)))
    (barter,) = await prove_balances(client, ada, ACCOUNTS[:1])
    assert barter.account.balance_minor == -1_250


def _changed(change: Callable[[dict[str, Any]], None]) -> Callable[[bytes], bytes]:
    def lie(raw: bytes) -> bytes:
        found = msgspec.json.decode(raw)
        change(found)
        return msgspec.json.encode(found)

    return lie


def _set(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda found: found["proofs"][0].update({name: value})


def _flip(found: dict[str, Any]) -> None:
    row = found["proofs"][0]
    row["value"] = row["value"].replace("fb1e", "fb1f", 1) if "fb1e" in row["value"] else "00" + row["value"][2:]


def _change_seal(found: dict[str, Any]) -> None:
    last = "01" if found["seal"].endswith("00") else "00"
    found["seal"] = found["seal"][:-2] + last


LIES = {
    "another value": (_flip, "row_not_proven"),
    "no row": (_set("value", None), "row_missing"),
    "no siblings": (_set("siblings", []), "row_not_proven"),
    "another key": (_set("key", "93"), "row_not_proven"),
    "another table": (_set("table", "shares.holdings"), "row_not_proven"),
    "another seal": (_set("seal_index", 0), "row_not_proven"),
    "not hex": (_set("value", "zz"), "seal_not_proven"),
    "too few rows": (lambda found: found["proofs"].clear(), "row_not_proven"),
    "a changed seal": (_change_seal, "seal_not_proven"),
    "no proof of the seal": (lambda found: found.update(seal_proof="c2sp.org/tlog-proof@v1\n"), "seal_not_proven"),
}


@pytest.mark.parametrize("name", LIES)
async def test_a_false_proof_of_a_balance_is_refused(name: str, node: FakeNode, client: NodeClient) -> None:
    change, code = LIES[name]
    node.seal()
    node.lies["/v1/proofs"] = _changed(change)
    with pytest.raises(ProofFailed) as raised:
        await prove_balances(client, await _ada(client), ACCOUNTS)
    assert raised.value.code == code


async def test_a_record_that_is_no_seal_proves_no_state(node: FakeNode, client: NodeClient) -> None:
    node.seal()
    index = 1
    record, proof = node.kit.records[index].hex(), node.proof(index).decode()
    node.lies["/v1/proofs"] = _changed(lambda found: found.update(seal=record, seal_proof=proof))
    with pytest.raises(ProofFailed, match="seal_not_proven"):
        await prove_balances(client, await _ada(client), ACCOUNTS)


async def test_the_whole_log_is_checked(client: NodeClient, node: FakeNode) -> None:
    told: list[tuple[str, int, int]] = []
    size = len(node.kit.records)
    check = await verify_log(client, progress=lambda *step: told.append(step))
    assert (check.size, check.root) == (size, node.tree().root)
    assert (check.receipt_count, check.record_count) == (1, size)
    assert told[0] == ("leaves", size, size)
    assert told[-1] == ("records", size, size)


async def test_a_log_of_many_tiles_is_checked(node: FakeNode, client: NodeClient) -> None:
    record = node.kit.records[-1]
    for number in range(600):  # the tree does not ask what it holds
        node.kit.records.append(record + bytes([number % 256]))
    check = await verify_log(client, with_records=False)
    assert check.root == node.tree().root != EMPTY_ROOT


async def test_a_changed_record_is_named_by_its_index(node: FakeNode, client: NodeClient) -> None:
    true = node.kit.records[2].hex().encode()
    node.lies["/v1/records/2"] = lambda raw: raw.replace(true, true[:-2] + b"00")
    with pytest.raises(ProofFailed) as raised:
        await verify_log(client)
    assert (raised.value.code, raised.value.params["index"]) == ("record_not_in_log", 2)


async def test_a_changed_tile_is_named_by_its_first_wrong_leaf(node: FakeNode, client: NodeClient) -> None:
    size = len(node.kit.records)
    node.lies[f"/log/tile/0/000.p/{size}"] = lambda raw: raw[:96] + bytes(32) + raw[128:]
    with pytest.raises(ProofFailed) as raised:
        await verify_log(client)
    assert (raised.value.code, raised.value.params["index"]) == ("tile_wrong", 3)


async def test_leaves_that_do_not_make_the_signed_root_are_refused(node: FakeNode, client: NodeClient) -> None:
    signed = node.checkpoint().encode()
    node.kit.records[1] = LedgerKit(name="other").records[0]
    node.lies["/log/checkpoint"] = lambda _: signed
    node.lies["/v1/ledger"] = _changed(lambda found: found.update(checkpoint=signed.decode()))
    with pytest.raises(ProofFailed, match="root_wrong"):
        await verify_log(client)


async def test_a_kept_receipt_must_be_in_the_log(node: FakeNode, client: NodeClient) -> None:
    (receipt,) = client.journal.receipts()
    other = msgspec.structs.replace(receipt, index=receipt.index - 1, record=node.kit.records[0])
    entry = await client.build("membership.veto_recovery", VetoRecovery(), author=bytes(16))
    client.journal.settle([(entry, other)])
    with pytest.raises(ProofFailed) as raised:
        await verify_log(client)
    assert (raised.value.code, raised.value.params["index"]) == ("receipt_not_in_log", receipt.index - 1)


async def test_events_go_on_after_a_break_where_they_stopped(
    node: FakeNode, client: NodeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ecot_client.events._PAUSE_S", 0)
    size = len(node.kit.records)
    told = []
    async for event in follow_events(client, after=size - 2):
        told.append((event.kind, event.index))
        if event.kind == "recorded" and event.index == size - 1:
            node.kit.join("eve")
        if event.index == size + 1:
            break
    recorded = [index for kind, index in told if kind == "recorded"]
    assert recorded == [size - 1, size, size + 1]
