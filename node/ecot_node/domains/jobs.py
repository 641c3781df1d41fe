# SPDX-License-Identifier: AGPL-3.0-or-later
"""What is due: entries that the node records by itself, because their time has come.

A deadline binds at its own instant whether or not these entries are recorded; they only close what is open. Each
proves by itself that it is due, so a wrong clock here can do no harm.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Final

import msgspec

from ecot_protocol.domains.governance.acts import ClosePoll
from ecot_protocol.domains.membership.acts import ChargeFee
from ecot_protocol.domains.royalty.periods import PayOut
from ecot_protocol.domains.trade.acts import Lapse
from ecot_protocol.state import State

DUE_AT_ONCE: Final = 200
"""Most entries recorded in one round; the rest follow in the next."""

DueEntry = tuple[str, msgspec.Struct]
"""Tag and payload."""


def due_entries(state: State, at: int) -> list[DueEntry]:
    """Return what is due at `at` (milliseconds since 1970); linear in members, open polls and trades.

    Args:
        state: as of the newest durable record.
        at: not after the time that the writer will give the records.
    """
    if state.ledger is None:
        return []
    return list(islice(_due(state, at), DUE_AT_ONCE))


def _due(state: State, at: int) -> Iterator[DueEntry]:
    for member_id, member in state.membership.members.items():
        if member.status == "admitted" and member.fee_due_ms is not None and member.fee_due_ms <= at:
            yield "membership.charge_fee", ChargeFee(member=member_id)
    for poll_id, poll in state.governance.polls.items():
        if poll.closes_at_ms <= at:
            yield "governance.close_poll", ClosePoll(poll=poll_id)
    for trade_id, trade in state.trade.trades.items():
        if trade.status == "proposed" and trade.closes_at_ms <= at:
            yield "trade.lapse", Lapse(trade=trade_id)
    for due in state.royalty.due:
        yield "royalty.pay_out", PayOut(part=due.part, period=due.period)
