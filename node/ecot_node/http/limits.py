# SPDX-License-Identifier: AGPL-3.0-or-later
"""Limits on how much one client may ask: token buckets in one bounded table, what it may hold at one time, and who a
client is.

>>> buckets = Buckets(Rate(per_second=1, burst=2))
>>> [buckets.wait_s("ada", 0.0) for _ in range(3)]
[0.0, 0.0, 1.0]
>>> buckets.wait_s("ada", 1.0)
0.0
"""

import ipaddress
from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from ecot_node.http.context import Network, Rate

MAX_BUCKETS: Final = 65_536
"""Clients remembered; the one unseen for longest is forgotten, so it begins with a full bucket."""
MAX_FORWARDED: Final = 32
"""Addresses of ``X-Forwarded-For`` that are looked at, from the right."""
LOCAL: Final = "local"
"""The client of a Unix socket."""


class Buckets:
    """A token bucket for each client.

    Args:
        rate: of each.
    """

    __slots__ = ("_burst", "_levels", "_per_second")

    def __init__(self, rate: Rate) -> None:
        self._per_second = rate.per_second
        self._burst = float(rate.burst)
        self._levels: OrderedDict[str | bytes, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._levels)

    def wait_s(self, client: str | bytes, now_s: float, cost: int = 1) -> float:
        """Take tokens; return 0, or in how many seconds there will be enough (then nothing was taken).

        Args:
            client: who asks.
            now_s: of a clock that never goes back.
            cost: tokens; more than a full bucket holds are asked of a full one, which then owes the rest.
        """
        level, since = self._levels.get(client, (self._burst, now_s))
        level = min(self._burst, level + (now_s - since) * self._per_second)
        needed = min(cost, self._burst)
        waits = level < needed
        self._levels[client] = (level if waits else level - cost, now_s)
        self._levels.move_to_end(client)
        if len(self._levels) > MAX_BUCKETS:
            self._levels.popitem(last=False)
        return (needed - level) / self._per_second if waits else 0.0


class Holdings:
    """How much of something limited, in all and by each client, is held at this moment.

    >>> held = Holdings(most=100, most_each=60)
    >>> held.take("ada", 60), held.take("ada", 1), held.take("bob", 41), held.take("bob", 40)
    (True, False, False, True)
    >>> held.give_back("ada", 60)
    >>> held.take("bob", 20), len(held)
    (True, 1)

    Args:
        most: in all.
        most_each: by one client.
    """

    __slots__ = ("_by_client", "_most", "_most_each", "_total")

    def __init__(self, *, most: int, most_each: int) -> None:
        self._most, self._most_each = most, most_each
        self._total = 0
        self._by_client: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._by_client)

    def take(self, client: str, amount: int) -> bool:
        """Hold so much more; False if that is too much, and then nothing changes."""
        held = self._by_client.get(client, 0) + amount
        if held > self._most_each or self._total + amount > self._most:
            return False
        self._by_client[client] = held
        self._total += amount
        return True

    def give_back(self, client: str, amount: int) -> None:
        """Hold so much less."""
        left = self._by_client.get(client, 0) - amount
        self._total -= amount
        if left > 0:
            self._by_client[client] = left
        else:
            self._by_client.pop(client, None)


def client_of(remote: str | None, forwarded: Sequence[str], trusted: Sequence[Network]) -> str:
    """Return the client that limits count: its address, or the /64 of an IPv6 one.

    Args:
        remote: address of the connection; None for a Unix socket.
        forwarded: values of ``X-Forwarded-For``, in order; believed only from `trusted`, from the right, because a
            client may write anything to the left of what the proxy adds.
        trusted: networks of our proxies.

    >>> trusted = [ipaddress.ip_network("10.0.0.0/8")]
    >>> client_of("10.0.0.1", ["6.6.6.6, 9.9.9.9, 10.0.0.7"], trusted)
    '9.9.9.9'
    >>> client_of("8.8.8.8", ["9.9.9.9"], trusted), client_of("2001:db8::1", [], trusted)
    ('8.8.8.8', '2001:db8::/64')
    """
    if not (trusted and forwarded):
        return _client_of_address(remote or "")
    address = _parse(remote or "")
    if address is None:
        return LOCAL
    if trusted and forwarded:
        for hop in ",".join(forwarded).rsplit(",", MAX_FORWARDED)[::-1]:
            if not is_within(address, trusted):
                break
            previous = _parse(hop.strip())
            if previous is None:
                break
            address = previous
    return _name(address)


@lru_cache(MAX_BUCKETS)
def _client_of_address(remote: str) -> str:
    address = _parse(remote)
    return LOCAL if address is None else _name(address)


def _name(address: "Address") -> str:
    if address.version == 6:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def is_within(address: Address, networks: Sequence[Network]) -> bool:
    """Tell whether the address is of one of the networks."""
    return any(address.version == network.version and address in network for network in networks)


def is_client_within(client: str, networks: Sequence[Network]) -> bool:
    """Tell whether a client, as `client_of` names it, is of one of the networks."""
    address = _parse(client.partition("/")[0])
    return client == LOCAL or (address is not None and is_within(_last(client, address), networks))


def _last(client: str, address: Address) -> Address:
    """Return ::1 for its /64, which `client_of` made of it and which holds nobody else."""
    return ipaddress.IPv6Address("::1") if client == "::/64" else address


def _parse(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
