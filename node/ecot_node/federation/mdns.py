# SPDX-License-Identifier: AGPL-3.0-or-later
"""Find partners on the local network, where the operator asks for it (libp2p's mDNS discovery).

- It finds addresses, and nothing else: a partner is whoever a recorded peering names, and a connection is secured and
  proven as any other. What is announced for other peer ids is dropped unread.
- Whoever is on the network can announce anything. So what is found is a guess (see `store.address_book`), is looked at
  twice a minute for each partner, and must be an address of the local network.
- We announce our peer id and addresses to everybody on the network: hence off by default.

Source: libp2p/specs, discovery/mdns.md: service ``_p2p._udp.local``, TXT ``dnsaddr=<multiaddr with /p2p/>``.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import secrets
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

import ifaddr
import structlog
from multiaddr import Multiaddr
from zeroconf import InterfaceChoice, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from ecot_node.federation.libp2p_swarm import is_near
from ecot_node.federation.multiaddrs import parse_address
from ecot_node.federation.peer_limits import Bucket, Pace
from ecot_node.federation.port import PeerId
from ecot_protocol.errors import LocalProtocolError

SERVICE: Final = "_p2p._udp.local."
KEY: Final = b"dnsaddr="
NAME_CHARS: Final = 32
"""The spec asks for a random name of 32 to 63 characters, which is not the peer id."""
ADDRESSES_MAX: Final = 8
"""Addresses that we announce, and that we read of one announcement."""
LOOKUPS_MAX: Final = 32
"""Announcements that are looked up at one time; further ones are left for the next."""
LOOKUP_TIMEOUT_MS: Final = 3_000
PACE: Final = Pace(per_second=1 / 30, burst=4)
"""How often what is found of one partner is handed on."""
LOCAL: Final = 1
"""An address of a private network; see `libp2p_swarm.is_near`."""
TEXT_BYTES_MAX: Final = 255

log = structlog.get_logger("ecot.federation")

Found = Callable[[PeerId, tuple[str, ...]], Awaitable[None]]
"""Take addresses of a peer that `is_wanted`."""


class LocalNetwork:
    """Announces this node on the local network and finds partners there.

    Args:
        peer_id: ours.
        addresses: at which we listen; those by name or through relays are left out.
        is_wanted: tells whether a peer is a partner.
        found: takes where a partner is.
        interfaces: IP addresses of the interfaces to use; None: all.
        nearest: 1: addresses of this machine are left out; 0: they are not, for tests on loopback.
    """

    def __init__(
        self,
        peer_id: PeerId,
        addresses: Sequence[str],
        *,
        is_wanted: Callable[[PeerId], bool],
        found: Found,
        interfaces: Sequence[str] | None = None,
        nearest: int = LOCAL,
    ) -> None:
        self._peer_id, self._is_wanted, self._found, self._nearest = peer_id, is_wanted, found, nearest
        self._addresses = tuple(addresses)
        self._interfaces = interfaces
        self._paces: dict[PeerId, Bucket] = {}
        self._lookups: set[asyncio.Task[None]] = set()
        self._zeroconf: AsyncZeroconf | None = None
        self._browser: AsyncServiceBrowser | None = None
        self._announcing: Awaitable[object] | None = None
        self.announced: tuple[str, ...] = ()

    async def start(self) -> None:
        """Announce and look around. Raises `OSError` where multicast is not possible."""
        chosen = InterfaceChoice.All if self._interfaces is None else list(self._interfaces)
        self._zeroconf = AsyncZeroconf(interfaces=chosen)
        ips = tuple(self._interfaces) if self._interfaces is not None else _own_ips()
        self.announced = announced_addresses(self._addresses, ips, self._peer_id, self._nearest)
        if self.announced:
            self._announcing = await self._zeroconf.async_register_service(self._service(ips))
        self._browser = AsyncServiceBrowser(self._zeroconf.zeroconf, SERVICE, handlers=[self._on_change])

    async def stop(self) -> None:
        """Take the announcement back and stop looking."""
        for lookup in self._lookups:
            lookup.cancel()
        await asyncio.gather(*self._lookups, return_exceptions=True)
        if self._browser is not None:
            await self._browser.async_cancel()
        if self._zeroconf is not None:
            await self._zeroconf.async_unregister_all_services()
            await self._zeroconf.async_close()

    def _service(self, ips: Sequence[str]) -> AsyncServiceInfo:
        name = secrets.token_hex(NAME_CHARS // 2)
        text = b"".join(bytes([len(KEY) + len(one)]) + KEY + one.encode() for one in self.announced)
        port = int(Multiaddr(self.announced[0]).value_for_protocol("tcp"))
        return AsyncServiceInfo(
            SERVICE, f"{name}.{SERVICE}", port=port, properties=text, server=f"{name}.local.", parsed_addresses=[*ips]
        )

    def _on_change(self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        if state_change is ServiceStateChange.Removed or len(self._lookups) >= LOOKUPS_MAX:
            return
        lookup = asyncio.create_task(self._look_up(zeroconf, service_type, name))
        self._lookups.add(lookup)
        lookup.add_done_callback(self._lookups.discard)

    async def _look_up(self, zeroconf: Zeroconf, service_type: str, name: str) -> None:
        info = AsyncServiceInfo(service_type, name)
        # The library raises many types for what others may have put on the network.
        with contextlib.suppress(Exception):
            if await info.async_request(zeroconf, LOOKUP_TIMEOUT_MS):
                await self.take(read_text(info.text or b""))

    async def take(self, announced: Iterable[str]) -> None:
        """Hand on what was announced for partners; everything else is dropped."""
        by_peer: dict[PeerId, list[str]] = {}
        for one in announced:
            peer_id = PeerId(one.rpartition("/p2p/")[2])
            if peer_id != self._peer_id and self._is_wanted(peer_id):
                with contextlib.suppress(LocalProtocolError, ValueError):
                    address = parse_address(one, peer_id)
                    if is_near(Multiaddr(address), self._nearest) and not is_near(Multiaddr(address), LOCAL + 1):
                        by_peer.setdefault(peer_id, []).append(address)
        now_s = asyncio.get_running_loop().time()
        for peer_id, addresses in by_peer.items():
            if self._paces.setdefault(peer_id, Bucket(PACE)).take(now_s):
                log.info("partner_nearby", peer_id=peer_id, addresses=addresses)
                await self._found(peer_id, tuple(dict.fromkeys(addresses)))


def read_text(text: bytes) -> tuple[str, ...]:
    """Return the addresses of a TXT record, `ADDRESSES_MAX` at most; what is no address is left out."""
    found: list[str] = []
    while text and len(found) < ADDRESSES_MAX:
        part, text = text[1 : 1 + text[0]], text[1 + text[0] :]
        if part.startswith(KEY):
            with contextlib.suppress(UnicodeDecodeError):
                found.append(part.removeprefix(KEY).decode("ascii"))
    return tuple(found)


def announced_addresses(listen: Sequence[str], ips: Sequence[str], peer_id: PeerId, nearest: int) -> tuple[str, ...]:
    """Return what to announce: local addresses at which we listen; ``0.0.0.0`` and ``::`` are all interfaces."""
    bare = [Multiaddr(one.partition("/p2p/")[0]) for one in listen]
    found: list[str] = []
    for address in bare:
        family = address.protocols()[0].name
        host, port = str(address.value_for_protocol(family)), address.value_for_protocol("tcp")
        wanted = [one for one in ips if (":" in one) == (family == "ip6")] if _is_any(host) else [host]
        found += [f"/{family}/{one}/tcp/{port}" for one in wanted]
    near = (one for one in dict.fromkeys(found) if is_near(Multiaddr(one), nearest))
    local = [f"{one}/p2p/{peer_id}" for one in near if not is_near(Multiaddr(one), LOCAL + 1)]
    return tuple(one for one in local if len(KEY) + len(one) <= TEXT_BYTES_MAX)[:ADDRESSES_MAX]


def _is_any(host: str) -> bool:
    return ipaddress.ip_address(host).is_unspecified


def _own_ips() -> tuple[str, ...]:
    """Return the IP addresses of this machine's interfaces."""
    ips = (ip.ip for adapter in ifaddr.get_adapters() for ip in adapter.ips)
    return tuple(ip if isinstance(ip, str) else str(ip[0]) for ip in ips)
