# SPDX-License-Identifier: AGPL-3.0-or-later
"""How nodes find one another: invitations and the address book, with real processes and the operator's commands."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from ledger_kit import seed
from node_kit import BOARD_KEY, Served, ledger_of, make_founded, must_run, run_node, serve, wall_ms
from test_transport_libp2p import Inbox, make, until

from ecot_client.entries import build_entry
from ecot_client.federation import decider_of, draft_peering, peered
from ecot_node.federation.framing import Hello, encode_frame
from ecot_node.federation.libp2p_host import Libp2pTransport
from ecot_node.federation.peer_ids import peer_id_of
from ecot_node.federation.port import PeerId
from ecot_node.ledger.node_keys import load_keys
from ecot_node.store.address_book import FILE_NAME
from ecot_protocol.domains.coop.genesis import log_origin
from ecot_protocol.domains.federation.invitation import InvitedUnit, read_invitation
from ecot_protocol.domains.federation.statements import Side
from ecot_protocol.ledger.entry_type import BOARD
from ecot_protocol.wire.keys import Signer
from ecot_protocol.wire.statement import sign_statement

LEDGER = b"P" * 32
KEYS = {name: Signer(seed(f"partner {name}")) for name in ("agent", "cosigner", "host", "log")}
HELLO = encode_frame(Hello(1, "partner", "partner.example/ecot/5050505050505050", LEDGER))
WRONG = "/ip4/127.0.0.1/tcp/1"


def peer_with_partner(node: Served) -> None:
    """Have the node's board record a peering with a ledger that only these tests know."""
    keys, ledger = load_keys(node.folder / "keys"), node.ledger
    common: dict[str, Any] = {"keys_index": 0, "limit_minor": 1_000, "unit": "BART"}
    ours = Side(
        **common,
        **{name: keys.public_key(name) for name in KEYS},
        cosigner_ml_dsa_44=keys.further_cosigner,
        domain="troc.example",
        ledger=ledger,
        origin=log_origin("troc.example", ledger),
    )
    other = Side(
        **common,
        **{name: one.public_key for name, one in KEYS.items()},
        cosigner_ml_dsa_44=None,
        domain="partner.example",
        ledger=LEDGER,
        origin="partner.example/ecot/5050505050505050",
    )
    statement = draft_peering(ours, other, tuple(decider_of(one, (ours, other), 2) for one in (ours, other)))
    payload = peered(statement, [sign_statement(one, statement) for one in (Signer(keys.seed("agent")), KEYS["agent"])])
    node.must_post(
        build_entry(ledger, "federation.peer", payload, author=BOARD, signers=(BOARD_KEY,), now_ms=wall_ms())
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_founded(tmp_path / "node", listen="/ip4/127.0.0.1/tcp/0")


@pytest.fixture
async def partner(folder: Path) -> AsyncIterator[Libp2pTransport]:
    """The partner's side: it knows the node, and waits to be dialled."""
    transport = make(seed("partner host"))
    await transport.start(Inbox().deliver, HELLO)
    transport.set_peer(PeerId(peer_id_of(load_keys(folder / "keys").public_key("host"))), [])
    yield transport
    await transport.stop()


def known(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what `peer list` says, by domain."""
    return {one["name"]: one for one in json.loads(must_run("peer", "list", str(folder), "--json").stdout)}


def age_ms(transport: Libp2pTransport, folder: Path) -> int | None:
    node = PeerId(peer_id_of(load_keys(folder / "keys").public_key("host")))
    return transport.status(node).last_contact_age_ms


async def test_an_address_needs_no_restart_and_outlives_one(folder: Path, partner: Libp2pTransport) -> None:
    address = partner.listen_addresses[0].partition("/p2p/")[0]
    assert "federation.peers" not in (folder / "node.toml").read_text("utf-8").replace("# [[federation.peers]]", "")
    with serve(folder) as node:
        await asyncio.to_thread(peer_with_partner, node)
        await asyncio.to_thread(must_run, "peer", "add", str(folder), LEDGER.hex(), WRONG)
        await asyncio.to_thread(must_run, "peer", "add", str(folder), LEDGER.hex(), address)
        await until(lambda: age_ms(partner, folder) is not None)
        for _ in range(200):
            listed = (await asyncio.to_thread(known, folder))["partner.example"]
            if listed["addresses"][0]["confirmed_at_ms"]:
                break
        assert listed["addresses"][0]["address"] == address
        assert [one["address"] for one in listed["addresses"] if one["confirmed_at_ms"]] == [address]
    await asyncio.to_thread(must_run, "peer", "remove", str(folder), "partner.example", WRONG)
    gone_ms = age_ms(partner, folder)
    assert gone_ms is not None
    with serve(folder):
        await until(lambda: (age_ms(partner, folder) or 0) < gone_ms)
        node_id = PeerId(peer_id_of(load_keys(folder / "keys").public_key("host")))
        await until(lambda: partner.status(node_id).is_connected)


async def test_an_invitation_leads_to_a_partner_once_there_is_a_peering(folder: Path, tmp_path: Path) -> None:
    with serve(folder):
        pass
    qr = tmp_path / "invitation.svg"
    options = ("--address", "/dns4/troc.example/tcp/8485", "--url", "https://troc.example", "--qr", str(qr))
    said = await asyncio.to_thread(must_run, "invite", str(folder), *options)
    text = said.stdout.strip()
    assert text.count("\n") == 0
    invitation = read_invitation(text)
    assert (invitation.ledger, invitation.domain) == (ledger_of(folder), "troc.example")
    assert invitation.host == load_keys(folder / "keys").public_key("host")
    assert invitation.units == (InvitedUnit("BART", 2),)
    assert qr.read_text("utf-8").startswith("<?xml")

    other = make_founded(tmp_path / "other")
    mail = tmp_path / "mail.txt"
    mail.write_text("\n".join(f"> {text[start : start + 70]}" for start in range(0, len(text), 70)), "utf-8")
    said = await asyncio.to_thread(must_run, "peer", "add", str(other), str(mail))
    assert invitation.ledger.hex() in said.stderr
    listed = known(other)["troc.example"]
    assert (listed["is_recorded"], listed["url"]) == (False, "https://troc.example")
    assert [one["address"] for one in listed["addresses"]] == ["/dns4/troc.example/tcp/8485"]


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A node that was served once and does not run."""
    folder = make_founded(tmp_path_factory.mktemp("idle") / "node", listen="/ip4/127.0.0.1/tcp/0")
    with serve(folder):
        return folder


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("peer", "add", "ECOT-INVITATION:AAAA"), "invitation_mistyped"),
        (("peer", "add", "nobody.example", WRONG), "config_error"),
        (("peer", "add", LEDGER.hex()), "config_error"),
        (("peer", "add", LEDGER.hex(), "/ip4/127.0.0.1/udp/1"), "config_error"),
        (("peer", "add", LEDGER.hex(), *(f"/ip4/127.0.0.1/tcp/{port}" for port in range(1, 10))), "store_limit"),
        (("peer", "remove", "nobody.example"), "config_error"),
        (("invite",), "config_error"),
        (("invite", "--days", "401", "--address", WRONG), "config_error"),
    ],
)
def test_what_an_operator_types_wrong_is_said(idle: Path, arguments: tuple[str, ...], code: str) -> None:
    command, rest = (arguments[:2], arguments[2:]) if arguments[0] == "peer" else (arguments[:1], arguments[1:])
    done = run_node(*command, str(idle), *rest)
    assert done.returncode != 0
    assert code in done.stderr


def test_a_node_that_looks_around_the_local_network_starts_and_stops(idle: Path) -> None:
    with serve(idle, ECOT_NODE_FEDERATION__MDNS="true") as node:
        assert node.ready()["mode"] == "writing"
    assert "Traceback" not in node.log()
    assert "mdns_not_possible" not in node.log()


def test_an_invitation_of_a_node_behind_nat_names_its_relay(idle: Path) -> None:
    relay = f"/dns4/relay.example/tcp/8485/p2p/{make(b'R' * 32).peer_id}"
    said = must_run("invite", str(idle), ECOT_NODE_FEDERATION__RELAYS=json.dumps([relay]))
    assert read_invitation(said.stdout).addresses == (relay + "/p2p-circuit",)


@pytest.mark.parametrize("relay", ["/dns4/relay.example/tcp/8485", "/ip4/192.0.2.1/udp/1/p2p/x", "relay.example"])
def test_a_relay_that_is_not_named_whole_stops_the_start(idle: Path, relay: str) -> None:
    done = run_node("serve", str(idle), ECOT_NODE_FEDERATION__RELAYS=json.dumps([relay]))
    assert done.returncode == 2
    assert "config_error" in done.stderr


def test_a_relay_serves_and_says_its_peer_id(idle: Path) -> None:
    with serve(idle, ECOT_NODE_FEDERATION__RELAY="true") as node:
        assert node.ready()["mode"] == "writing"
    status = json.loads(must_run("status", str(idle), "--json").stdout)
    assert status["peer_id"] == peer_id_of(load_keys(idle / "keys").public_key("host"))


def test_nobody_is_invited_before_the_ledger_is_founded(tmp_path: Path) -> None:
    done = run_node("invite", str(make_founded(tmp_path / "node")), "--address", WRONG)
    assert done.returncode == 2
    assert "config_error" in done.stderr


def test_a_malformed_address_in_the_settings_stops_the_start(idle: Path) -> None:
    peer = json.dumps([{"ledger": LEDGER.hex(), "addresses": ["/ip4/127.0.0.1/udp/1"]}])
    done = run_node("serve", str(idle), ECOT_NODE_FEDERATION__PEERS=peer)
    assert done.returncode == 2
    assert "udp" in done.stderr


def test_no_address_book_is_made_outside_a_node(tmp_path: Path) -> None:
    assert run_node("peer", "list", str(tmp_path)).returncode == 2
    assert not (tmp_path / FILE_NAME).exists()
