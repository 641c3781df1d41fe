# SPDX-License-Identifier: AGPL-3.0-or-later
"""The libp2p host itself: TCP, Noise and Yamux alone, and an end to every connection.

What the library does with connections that this module works around, measured with 0.8.1:

- It keeps the task of an accepted connection, and its place among those that may be accepted, until the whole host
  stops: after `connections_max` connections, ended or not, nobody could connect any more. `release_ended` lets both go.
- It keeps connections of whoever likes, as long as they like: strangers could hold every place. `close_strangers`
  ends those of peers that we don't know.
"""

from __future__ import annotations

import contextlib
import ipaddress
import time
from collections.abc import Container, Iterable
from typing import Any, Final, cast

import trio
from libp2p import new_host
from libp2p.abc import IHost, INetConn
from libp2p.crypto.keys import KeyPair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.custom_types import TProtocol
from libp2p.network.config import ConnectionConfig
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_ID
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX_ID
from libp2p.stream_muxer.yamux.yamux import Yamux
from multiaddr import Multiaddr

CLOSE_TIMEOUT_S: Final = 1.0
STRANGER_AGE_MAX_S: Final = 15.0
"""For so long a peer that we don't know may stay connected: enough for identify, ping and a hello."""
OFFERED_MAX: Final = 4


def make_host(key_pair: KeyPair, addresses: Iterable[str], connections_max: int) -> IHost:
    """Return a host that is not running.

    Args:
        key_pair: its identity.
        addresses: where it listens.
        connections_max: how many connections it holds at one time.
    """
    # The library's own connecting and pruning is switched off: no peer is dialled but by us.
    config = ConnectionConfig(
        min_connections=0, low_watermark=0, high_watermark=connections_max, max_connections=connections_max
    )
    noise = NoiseTransport(key_pair, noise_privkey=create_noise_key_pair().private_key)
    host = new_host(
        key_pair=key_pair,
        listen_addrs=[Multiaddr(address) for address in addresses],
        sec_opt={NOISE_ID: noise},
        muxer_opt={TProtocol(YAMUX_ID): Yamux},
        connection_config=config,
        disable_identify_address_discovery=True,
    )
    release_ended(swarm_of(host))
    return host


def swarm_of(host: IHost) -> Swarm:
    """Return the network of a host under its own type."""
    return cast(Swarm, host.get_network())


def release_ended(swarm: Swarm) -> None:
    """Make the task of an accepted connection, which holds a place among them, end with the connection."""

    async def handle(stream: Any, address: Multiaddr, _failure: object) -> None:
        raw = RawConnection(stream, False)
        try:
            muxed = await swarm.upgrade_inbound_raw_conn(raw, address)
            await cast(Yamux, muxed).event_closed.wait()
        except Exception:  # noqa: BLE001 - whatever a stranger did wrong ends its connection and nothing else
            return
        finally:
            scope = trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_TIMEOUT_S)
            with scope, contextlib.suppress(Exception):
                await raw.close()

    setattr(swarm, "_do_handle_inbound_connection", handle)  # noqa: B010 - the library is pinned


async def close_connection(connection: INetConn) -> None:
    """Close a connection, within a second or so, cancelled or not."""
    scope = trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_TIMEOUT_S)
    with scope, contextlib.suppress(Exception):
        await connection.close()
    if scope.cancelled_caught:
        # Its goodbye could not be written. Closing a socket needs no wait, and the task that reads it ends the rest.
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 0.1), contextlib.suppress(Exception):
            await cast(Yamux, connection.muxed_conn).secured_conn.close()


async def close_strangers(host: IHost, known: Container[str]) -> None:
    """Close connections of peers that we don't know once they are `STRANGER_AGE_MAX_S` old."""
    oldest = time.time() - STRANGER_AGE_MAX_S
    async with trio.open_nursery() as nursery:
        for peer_id, connections in list(host.get_network().get_connections_map().items()):
            if str(peer_id) in known:
                continue
            for connection in list(connections):
                if getattr(connection, "_created_at") < oldest:  # noqa: B009 - the library is pinned
                    nursery.start_soon(close_connection, connection)


def offered_addresses(host: IHost, peer_id: str, connection: INetConn | None) -> tuple[str, ...]:
    """Return where a connected peer says that it listens, by its identify: at most `OFFERED_MAX` TCP addresses.

    An address is a guess of a partner, not ours. So that nobody can make us knock at doors of our own network, it
    must be as far away as the peer itself: public for a public peer, public or private for a private one.
    """
    if connection is None:
        return ()
    try:
        found = host.get_peerstore().addrs(ID.from_base58(peer_id))
        widest = _distance_of(connection.get_transport_addresses())
    except Exception:  # noqa: BLE001 - the library raises many types for what it does not know (any more)
        return ()
    offered = (str(one).partition("/p2p/")[0] for one in found if is_near(one, widest))
    return tuple(sorted(set(offered)))[:OFFERED_MAX]


def is_near(address: Multiaddr, widest: int) -> bool:
    """Tell whether a TCP address by IP is no closer to us than `widest`: 0 this machine, 1 our network, 2 the world."""
    protocols = [one.name for one in address.protocols() if one.name != "p2p"]
    if protocols not in (["ip4", "tcp"], ["ip6", "tcp"]):
        return False
    return _ip_distance(str(address.value_for_protocol(protocols[0]))) >= widest


def _distance_of(addresses: Iterable[Multiaddr]) -> int:
    """Return how far away a peer is; the world, if it is behind a relay."""
    for address in addresses:
        names = [one.name for one in address.protocols()]
        if "p2p-circuit" not in names and names and names[0] in {"ip4", "ip6"}:
            return _ip_distance(str(address.value_for_protocol(names[0])))
    return 2


def _ip_distance(text: str) -> int:
    ip = ipaddress.ip_address(text)
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if ip.is_loopback:
        return 0
    if ip.is_unspecified or ip.is_multicast or ip.is_link_local:
        return -1
    return 2 if ip.is_global else 1
