# SPDX-License-Identifier: AGPL-3.0-or-later
"""How much of each partner's messages is taken in, so that a hostile one can't make our ledger grow without end.

What is dropped is lost to nobody: whoever waits for something asks again, at a pace that doubles. The limits are far
above what partners who trade need, and the board ends a peering that is abused.

- Of all messages, `EVERY`.
- `Prepare`, `Accepted` and `AbortAsked` of a transfer that we don't know: at worst each ends in a decision that our log
  remembers.
- `Offer` and `Accepted` of a round that we don't know: at worst a promise or a decision.
- `RoutesShown`: each may be 48 KB with a signature.
- `AbortAsked` of a round that we don't know: each is a recorded abort, until the round's own end.

>>> bucket = Bucket(Pace(per_second=1, burst=2))
>>> [bucket.take(0.0) for _ in range(3)], bucket.take(1.0)
([True, True, False], True)
"""

from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Final

from ecot_protocol.domains.federation.deals import deal_id, is_transfer
from ecot_protocol.domains.federation.messages import AbortAsked, Accepted, Message, Offer, Prepare, RoutesShown
from ecot_protocol.domains.federation.netting_messages import CallShown


@dataclass(frozen=True, slots=True)
class Pace:
    """So many at once, then so many a second."""

    per_second: float
    burst: int


EVERY: Final = Pace(per_second=200, burst=4_000)
NEW_TRANSFERS: Final = Pace(per_second=10, burst=1_000)
NEW_ROUNDS: Final = Pace(per_second=0.1, burst=60)
ROUTES: Final = Pace(per_second=2, burst=600)
UNKNOWN_ABORTS: Final = Pace(per_second=1 / 60, burst=20)


class Bucket:
    """Counts against a pace.

    Args:
        pace: what is allowed.
    """

    __slots__ = ("_at_s", "_level", "_pace")

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._level = float(pace.burst)
        self._at_s: float | None = None

    def take(self, now_s: float) -> bool:
        """Count one; False if it is one too many.

        Args:
            now_s: of a clock that never goes back.
        """
        passed_s = 0.0 if self._at_s is None else now_s - self._at_s
        self._level = min(self._pace.burst, self._level + passed_s * self._pace.per_second)
        self._at_s = now_s
        if self._level < 1:
            return False
        self._level -= 1
        return True


class PeerLimits:
    """The limits of one partner.

    Args:
        monotonic_s: a clock that never goes back.
    """

    def __init__(self, monotonic_s: Callable[[], float]) -> None:
        self._monotonic_s = monotonic_s
        self._every = Bucket(EVERY)
        self._transfers = Bucket(NEW_TRANSFERS)
        self._rounds = Bucket(NEW_ROUNDS)
        self._routes = Bucket(ROUTES)
        self._aborts = Bucket(UNKNOWN_ABORTS)

    def allows(self, message: Message, *known: Container[bytes]) -> bool:
        """Count a message; False: it is to be dropped.

        Args:
            message: decoded.
            known: each holds ids of deals that our ledger knows.
        """
        now_s = self._monotonic_s()
        if not self._every.take(now_s):
            return False
        if isinstance(message, RoutesShown):
            return self._routes.take(now_s)
        bucket = self._bucket_of(message)
        if bucket is None:
            return True
        assert isinstance(message, Prepare | Offer | Accepted | AbortAsked | CallShown)
        tid = deal_id(message.call if isinstance(message, CallShown) else message.contract)
        return any(tid in deals for deals in known) or bucket.take(now_s)

    def _bucket_of(self, message: Message) -> Bucket | None:
        match message:
            case Prepare():
                return self._transfers
            case Accepted(contract) | AbortAsked(contract) if is_transfer(contract):
                return self._transfers
            case Offer() | Accepted() | CallShown():
                return self._rounds
            case AbortAsked():
                return self._aborts
            case _:
                return None
