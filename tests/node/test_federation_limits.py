# SPDX-License-Identifier: AGPL-3.0-or-later
"""A hostile partner makes our ledger grow no faster than its limits say, and others' deals go on."""

from collections.abc import Callable

import pytest

from ecot_node.federation.peer_limits import EVERY, NEW_ROUNDS, NEW_TRANSFERS, UNKNOWN_ABORTS, Pace, PeerLimits
from ecot_node.store.forks import MAX_FORKS_PER_ORIGIN, ForkBoard
from ecot_node.store.memory import MemoryDisk, MemoryStore
from ecot_protocol.domains.federation.deals import deal_id
from ecot_protocol.domains.federation.messages import AbortAsked, Accepted, Ask, Message, Offer, Prepare
from ecot_protocol.wire.checkpoint import Checkpoint, sign_checkpoint
from ecot_protocol.wire.fork import prove_fork
from ecot_protocol.wire.note import NoteSigner


def contract(number: int) -> bytes:
    return b"contract " + number.to_bytes(4, "big")


def prepare(number: int) -> Message:
    return Prepare(contract(number), b"", (bytes(64),))


def accepted(number: int) -> Message:
    return Accepted(contract(number), (bytes(64),))


def offer(number: int) -> Message:
    return Offer(contract(number))


def abort_asked(number: int) -> Message:
    return AbortAsked(contract(number))


@pytest.mark.parametrize(
    ("make", "pace"),
    [(prepare, NEW_TRANSFERS), (offer, NEW_ROUNDS), (accepted, NEW_ROUNDS), (abort_asked, UNKNOWN_ABORTS)],
)
def test_invented_deals_are_limited_and_known_ones_are_not(make: Callable[[int], Message], pace: Pace) -> None:
    now = 0.0
    limits = PeerLimits(lambda: now)
    taken = sum(limits.allows(make(number), {}, {}) for number in range(pace.burst + 50))
    assert taken == pace.burst
    known = {deal_id(contract(7)): None}
    assert limits.allows(make(7), {}, known)
    now = 1.01 / pace.per_second
    assert limits.allows(make(9_999), {}, {})
    assert not limits.allows(make(9_998), {}, {})


def test_all_messages_of_a_partner_together_are_limited() -> None:
    limits = PeerLimits(lambda: 0.0)
    assert sum(limits.allows(Ask(bytes(16)), {}, {}) for _ in range(EVERY.burst + 50)) == EVERY.burst


def fork_of(origin: str, number: int) -> bytes:
    """Return a proof that a log forked, another one for each number."""
    signer = NoteSigner(origin, bytes(32))
    roots = (bytes(32), number.to_bytes(32, "big"))
    notes = [sign_checkpoint(Checkpoint(origin, 1, root), signer) for root in roots]
    return prove_fork(*notes, signer.verifier, bytes(32)).format()


async def test_a_partner_that_forks_again_and_again_fills_no_store() -> None:
    store = MemoryStore(MemoryDisk())
    await store.open(ledger=None)
    board = ForkBoard(store)
    for number in range(MAX_FORKS_PER_ORIGIN + 3):
        assert await board.keep(fork_of("nord.example", number + 1)) is (number < MAX_FORKS_PER_ORIGIN)
    assert await board.keep(fork_of("sud.example", 1))
    assert not await board.keep(fork_of("sud.example", 1))
    assert len(await store.forks()) == MAX_FORKS_PER_ORIGIN + 1
    again = ForkBoard(store)
    await again.load()
    assert again.proofs == board.proofs
    await store.close()
