# SPDX-License-Identifier: AGPL-3.0-or-later
"""Multiaddrs at which a node listens or is dialled: TCP by IP or name, or through a relay.

>>> str(parse_address("/dns4/troc.example/tcp/8485", None))
'/dns4/troc.example/tcp/8485'
>>> find_problem("/ip4/192.0.2.7/udp/8485")
'expected dns, dns4, dns6, ip4, ip6 and a TCP port'
"""

from __future__ import annotations

from typing import Final

from libp2p.peer.id import ID
from multiaddr import Multiaddr

from ecot_node.federation.port import PeerId
from ecot_protocol.errors import LocalProtocolError

KEY_SIZE_BYTES: Final = 32
# libp2p, peer-ids/peer-ids.md: the identity multihash (0x00, length) of the protobuf {type: Ed25519, key: 32 bytes}.
PEER_ID_PREFIX: Final = bytes.fromhex("002408011220")
LISTEN_HOSTS: Final = frozenset({"ip4", "ip6"})
DIAL_HOSTS: Final = LISTEN_HOSTS | {"dns", "dns4", "dns6"}
CIRCUIT: Final = "/p2p-circuit"


def check_peer_id(peer_id: str) -> None:
    """Check that a peer id is that of an Ed25519 key: the library takes any base58 for one.

    Raises:
        LocalProtocolError: it is not.
    """
    try:
        decoded = ID.from_base58(peer_id).to_bytes()
    except ValueError as error:
        raise LocalProtocolError(f"peer id {peer_id!r}: {error}") from error
    if len(decoded) != len(PEER_ID_PREFIX) + KEY_SIZE_BYTES or not decoded.startswith(PEER_ID_PREFIX):
        raise LocalProtocolError(f"peer id {peer_id!r} is not that of an Ed25519 key")


def parse_address(address: str, peer_id: PeerId | None, hosts: frozenset[str] = DIAL_HOSTS) -> str:
    """Check a multiaddr and cut the ``/p2p/`` at its end off, which must name the peer if we know it.

    Args:
        address: ``/<host>/<name>/tcp/<port>``, or that of a relay with its ``/p2p/<id>`` and ``/p2p-circuit`` behind.
        peer_id: whom it should lead to; None: anybody.
        hosts: what it may begin with; where names are not among them, it is an address to listen at, without a relay.

    Raises:
        LocalProtocolError: it is malformed, not TCP, or names another peer.
    """
    head, circuit, tail = address.partition(CIRCUIT)
    direct, _, named = head.partition("/p2p/")
    try:
        protocols = [protocol.name for protocol in Multiaddr(direct).protocols()]
    except ValueError as error:
        raise LocalProtocolError(f"address {address!r}: {error}") from error
    if len(protocols) != 2 or protocols[0] not in hosts or protocols[1] != "tcp":
        raise LocalProtocolError(f"address {address!r}: expected {', '.join(sorted(hosts))} and a TCP port")
    if circuit:
        if hosts is not DIAL_HOSTS:
            raise LocalProtocolError(f"address {address!r}: a relay is no place to listen at; name it under relays")
        check_peer_id(named)
        _check_named(address, tail.removeprefix("/p2p/"), peer_id)
        return head + circuit
    _check_named(address, named, peer_id)
    return direct


def _check_named(address: str, named: str, peer_id: PeerId | None) -> None:
    if named and peer_id is not None and named != peer_id:
        raise LocalProtocolError(f"address {address!r} names another peer than {peer_id}")
    if named:
        check_peer_id(named)


def find_problem(address: str) -> str | None:
    """Return what is wrong with an address to dial; None if nothing is."""
    try:
        parse_address(address, None)
    except LocalProtocolError as error:
        return str(error).partition(": ")[2] or str(error)
    return None
