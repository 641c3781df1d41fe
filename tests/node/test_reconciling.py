# SPDX-License-Identifier: AGPL-3.0-or-later
"""Partners' mirrors are reconciled over real tables: delays are none of it, a lie is an incident with its proofs."""

from collections import deque
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from federation_kit import FederatedKit, decide_payload, peer, promise_payload, resolve_payload, send
from views_kit import recorded

from ecot_node.domains.database import ViewsDatabase
from ecot_node.domains.federation.book import ViewsMirrorBook
from ecot_node.federation.incidents import EVIDENCE, IncidentUnknown
from ecot_node.federation.mirror_book import Held, MirrorBook, MovePage
from ecot_node.federation.reconciling import AGAIN_S, PATIENCE_S, Reconciler
from ecot_protocol.domains.federation.deals import deal_id, encode_contract
from ecot_protocol.domains.federation.messages import AskMirror, AskRecord, Message, MirrorShown, RecordShown
from ecot_protocol.domains.federation.mirrors import Asked, Claim, MirrorRow, Move, Settled, open_mirror, open_moves
from ecot_protocol.domains.federation.proofs import RecordProof, open_signed, require_included
from ecot_protocol.domains.federation.state import Peer
from ecot_protocol.domains.federation.statements import LogKey
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.ledger.amounts import Rate


class Meta:
    """Small values in memory."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    async def meta_get(self, key: str) -> bytes | None:
        return self.values.get(key)

    async def meta_put(self, key: str, value: bytes | None) -> None:
        if value is None:
            self.values.pop(key, None)
        else:
            assert len(value) <= 1024 * 1024
            self.values[key] = value


class Lies:
    """A book that says what its owner wants; by default the truth."""

    def __init__(self, true: MirrorBook) -> None:
        self.true = true
        self.held_of: Callable[[Held], Held] = lambda held: held
        self.moves_of: Callable[[MovePage], MovePage] = lambda page: page

    def __getattr__(self, name: str) -> Any:
        return getattr(self.true, name)

    async def held(self, partner: bytes, pending: Collection[bytes], since: int) -> Held:
        return self.held_of(await self.true.held(partner, pending, since))

    async def moves(self, partner: bytes, start: int) -> MovePage:
        return self.moves_of(await self.true.moves(partner, start))


class Side:
    """One cooperative: its ledger, its tables, its reconciler. Implements `LedgerReads`."""

    def __init__(self, kit: FederatedKit, views: ViewsDatabase, world: "World") -> None:
        self.kit, self._views, self._world = kit, views, world
        self.book = Lies(ViewsMirrorBook(views))  # type: ignore[arg-type]
        self.meta = Meta()
        self.reconciler = Reconciler(self, self.book, self.meta, kit.agent, self._tell, lambda: world.now_s)  # type: ignore[arg-type]

    def _tell(self, ledger: bytes, message: Message) -> None:
        self._world.wire.append((self.kit.ledger, ledger, message))

    async def follow(self) -> None:
        position = await self._views.position()
        new = recorded(self.kit, position)
        if new:
            await self._views.apply(new)

    def peer(self, ledger: bytes) -> Peer | None:
        return self.kit.state.federation.peers.get(ledger)

    def wall_ms(self) -> int:
        return self.kit.now

    def own_ledger(self) -> bytes:
        return self.kit.ledger

    def own_log(self) -> LogKey:
        return self.kit.log

    def own_keys_index(self) -> int:
        return 0

    def durable_size(self) -> int:
        return len(self.kit.records)

    def checkpoint(self) -> bytes:
        return self.kit.head()

    async def wait_for(self, index: int, timeout_s: float) -> bool:
        await self.follow()
        return True

    async def prove_record(self, index: int) -> RecordProof:
        return RecordProof(checkpoint=self.kit.head(), inclusion=self.kit.inclusion(index), log=self.kit.log)

    async def cosigned(self, origin: str) -> tuple[int, bytes | None]:
        other = next(one.kit for one in self._world.sides if one.kit.origin == origin)
        return len(other.records), other.head((self.kit,))


class World:
    """Two peered cooperatives, and what is on its way between their nodes."""

    def __init__(self, nord: FederatedKit, sud: FederatedKit) -> None:
        self.nord_kit, self.sud_kit = nord, sud
        self.ada, self.bob = nord.join("ada"), sud.join("bob")
        self.wire: deque[tuple[bytes, bytes, Message]] = deque()
        self.sides: list[Side] = []
        self.now_s = 1_000.0

    @property
    def nord(self) -> Side:
        return self.sides[0]

    @property
    def sud(self) -> Side:
        return self.sides[1]

    def promise(self, amount_minor: int) -> tuple[Any, int]:
        """Let the north's member pay the south's as far as the decision; return contract and its record."""
        terms = send(self.nord_kit, self.ada, self.sud_kit, self.bob.member, amount_minor)
        self.sud_kit.must(
            "federation.promise", promise_payload(self.nord_kit, terms, self.bob.member), **self.sud_kit.by_node()
        )
        payload = decide_payload(encode_contract(terms), "commit")
        self.sud_kit.must("federation.decide", payload, **self.sud_kit.by_node())
        return terms, len(self.sud_kit.records) - 1

    def resolve(self, kit: FederatedKit, index: int) -> None:
        payload = resolve_payload(self.sud_kit, [index], (self.nord_kit, self.sud_kit))
        kit.must("federation.resolve", payload, **kit.by_node())

    def pay(self, amount_minor: int) -> bytes:
        terms, index = self.promise(amount_minor)
        for kit in (self.nord_kit, self.sud_kit):
            self.resolve(kit, index)
        return deal_id(encode_contract(terms))

    async def run(self, *, lose: Callable[[Message], bool] = lambda _: False) -> None:
        """Deliver what is on its way until nothing is."""
        for _ in range(10_000):
            if not self.wire:
                return
            sender, receiver, message = self.wire.popleft()
            if not lose(message):
                side = next(one for one in self.sides if one.kit.ledger == receiver)
                await side.reconciler.take(sender, message)
        raise AssertionError("they never end")

    async def compare(self, **options: Any) -> None:
        """Let the north ask, after the pause between two comparisons."""
        self.now_s += AGAIN_S + PATIENCE_S
        for side in self.sides:
            await side.follow()
        await self.nord.reconciler.tick(self.sud_kit.ledger)
        await self.run(**options)

    @property
    def kind(self) -> str | None:
        return self.nord.reconciler.status(self.sud_kit.ledger).kind

    async def incidents(self) -> list[Any]:
        return [*(await self.nord.reconciler.incidents.all()).items()]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with _world(tmp_path) as made:
        yield made


class _world:
    def __init__(self, place: Path, **changes: Any) -> None:
        self._place, self._changes, self._stack = place, changes, AsyncExitStack()

    async def __aenter__(self) -> World:
        nord, sud = FederatedKit(name="nord"), FederatedKit(name="sud")
        made = World(nord, sud)
        peer(nord, sud, **self._changes)
        for kit in (nord, sud):
            folder = self._place / kit.name
            folder.mkdir()
            views = ViewsDatabase(folder)
            await views.open()
            self._stack.push_async_callback(views.close)
            made.sides.append(Side(kit, views, made))
        return made

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()


async def test_partners_who_posted_alike_agree(world: World) -> None:
    for amount in (100, 250):
        world.pay(amount)
    await world.compare()
    status = world.nord.reconciler.status(world.sud_kit.ledger)
    assert (status.kind, status.their_balance_minor, status.delayed_count) == ("agreed", -350, 0)
    assert await world.incidents() == []


async def test_a_deal_that_one_side_has_not_resolved_yet_is_a_delay(world: World) -> None:
    world.pay(100)
    _, index = world.promise(40)
    for kit in (world.nord_kit, world.sud_kit):
        world.resolve(kit, index)
        await world.compare()
        assert world.kind == "agreed"
        expected = 1 if kit is world.nord_kit else 0
        assert world.nord.reconciler.status(world.sud_kit.ledger).delayed_count == expected
    assert await world.incidents() == []


async def test_at_another_rate_each_mirror_is_in_its_own_unit(tmp_path: Path) -> None:
    rate = Rate(denominator=3, numerator=7)
    async with _world(tmp_path, rate=rate, limit_minor=10_000_000) as world:
        for amount in (1, 10, 333):
            world.pay(amount)
        await world.compare()
        status = world.nord.reconciler.status(world.sud_kit.ledger)
        assert (status.kind, status.their_balance_minor) == ("agreed", -344)


async def test_a_partner_that_lies_about_its_balance_is_an_incident_with_what_it_signed(world: World) -> None:
    world.pay(100)
    world.sud.book.held_of = lambda held: held._replace(balance_minor=held.balance_minor - 55)
    await world.compare()
    ((name, incident),) = await world.incidents()
    assert (incident.kind, incident.status) == ("mirror_differs", "open")
    assert (incident.expected_minor, incident.shown_minor, incident.difference_minor) == (-100, -155, -55)
    evidence = EVIDENCE.decode(EVIDENCE.encode(incident.evidence))
    claim = open_mirror(
        evidence.claim,
        evidence.claim_lists,
        evidence.claim_signature,
        agent=evidence.their_agent,
        speaker=world.sud_kit.ledger,
        hearer=world.nord_kit.ledger,
    )
    assert claim.mirror.balance_minor == -155
    page = open_moves(
        *evidence.moves[0], agent=evidence.their_agent, speaker=world.sud_kit.ledger, hearer=world.nord_kit.ledger
    )
    assert sum(move.amount_minor for move in page.moves) == -100, "its own records contradict its balance"
    assert len(name) == 32


async def test_a_deal_that_a_partner_leaves_out_is_named_with_our_record(world: World) -> None:
    world.pay(100)
    left_out = world.pay(70)
    _leave_out(world.sud, left_out, 70)
    await world.compare()
    ((_, incident),) = await world.incidents()
    (deal,) = incident.deals
    assert (deal.kind, deal.tid, deal.expected_minor, deal.shown_minor) == ("missing_there", left_out, -70, 0)
    (proof,) = incident.evidence.our_records
    assert require_included(proof.inclusion, open_signed(proof.checkpoint, proof.log)).type == "federation.resolve"


def _leave_out(side: Side, tid: bytes, amount_minor: int) -> None:
    def held(held: Held) -> Held:
        resolved = tuple(one for one in held.lists.resolved if one.tid != tid)
        lists = msgspec.structs.replace(held.lists, resolved=resolved)
        return held._replace(balance_minor=held.balance_minor + amount_minor, lists=lists)

    side.book.held_of = held
    side.book.moves_of = lambda page: page._replace(moves=tuple(one for one in page.moves if one.tid != tid))


async def test_a_deal_posted_at_another_amount_is_named_with_both_records(world: World) -> None:
    tid = world.pay(100)
    world.sud.book.held_of = lambda held: held._replace(balance_minor=held.balance_minor - 900)
    world.sud.book.moves_of = lambda page: page._replace(
        moves=tuple(Move(one.index, one.tid, -1_000) for one in page.moves)
    )
    await world.compare()
    ((_, incident),) = await world.incidents()
    (deal,) = incident.deals
    assert (deal.kind, deal.tid, deal.expected_minor, deal.shown_minor) == ("amount_differs", tid, -100, -1_000)
    (theirs,) = incident.evidence.their_records
    assert theirs.inclusion.index == deal.their_index


async def test_a_deal_said_to_be_voided_is_opposed(world: World) -> None:
    tid = world.pay(100)
    world.sud.book.held_of = lambda held: held._replace(
        balance_minor=0,
        lists=msgspec.structs.replace(held.lists, resolved=(Settled(tid, False),)),
    )
    await world.compare()
    ((_, incident),) = await world.incidents()
    assert incident.kind == "deal_opposed"


async def test_a_deal_that_nobody_here_promised_is_unheard_and_named(world: World) -> None:
    ghost = bytes(15) + b"g"
    world.sud.book.held_of = lambda held: held._replace(
        balance_minor=held.balance_minor - 9,
        lists=msgspec.structs.replace(held.lists, resolved=(Settled(ghost, True),)),
    )
    world.sud.book.moves_of = lambda page: page._replace(moves=(*page.moves, Move(page.size - 1, ghost, -9)))
    world.pay(10)
    await world.compare()
    ((_, incident),) = await world.incidents()
    assert incident.kind == "deal_unheard"
    assert [(one.kind, one.tid) for one in incident.deals] == [("missing_here", ghost)]


async def test_a_partner_that_shows_no_deals_has_an_incident_all_the_same(world: World) -> None:
    world.pay(100)
    world.sud.book.held_of = lambda held: held._replace(balance_minor=1)
    await world.compare(lose=lambda message: type(message).__name__ == "AskMoves")
    assert len(await world.incidents()) == 1
    world.now_s += PATIENCE_S
    await world.nord.reconciler.tick(world.sud_kit.ledger)
    ((_, incident),) = await world.incidents()
    assert incident.evidence.moves == ()
    assert incident.evidence.claim


async def test_trade_goes_on_and_an_incident_that_explains_itself_is_over(world: World) -> None:
    world.pay(100)
    world.sud.book.held_of = lambda held: held._replace(balance_minor=1)
    await world.compare()
    world.pay(5)
    world.sud.book.held_of = lambda held: held
    await world.compare()
    ((_, incident),) = await world.incidents()
    assert incident.status == "explained"


async def test_what_the_board_closed_does_not_come_back_and_something_else_does(world: World) -> None:
    incidents = world.nord.reconciler.incidents
    world.pay(100)
    world.sud.book.held_of = lambda held: held._replace(balance_minor=held.balance_minor - 1)
    await world.compare()
    ((name, _),) = await world.incidents()
    await incidents.note(name, "acknowledged", "we asked them", b"p" * 16)
    await world.compare()
    ((same, incident),) = await world.incidents()
    assert (same, incident.status, incident.note) == (name, "acknowledged", "we asked them")
    await incidents.note(name, "closed", "their clerk's error, written off", b"p" * 16)
    with pytest.raises(IncidentUnknown):
        await incidents.note(name, "closed", "again", b"p" * 16)
    await world.compare()
    assert [one.status for _, one in await world.incidents()] == ["closed"]
    world.sud.book.held_of = lambda held: held._replace(balance_minor=held.balance_minor - 2)
    await world.compare()
    assert [one.status for _, one in await world.incidents()] == ["closed", "open"]


async def test_a_partner_whose_word_changes_every_minute_fills_nothing(world: World) -> None:
    world.pay(100)
    for number in range(12):
        lie = number if number % 2 else 0
        world.sud.book.held_of = lambda held, lie=lie: held._replace(balance_minor=held.balance_minor - lie)  # type: ignore[misc]
        await world.compare()
    assert len(await world.incidents()) == 1


async def test_incidents_outlive_a_restart(world: World) -> None:
    world.pay(100)
    world.sud.book.held_of = lambda held: held._replace(balance_minor=1)
    await world.compare()
    before = await world.incidents()
    again = Reconciler(world.nord, world.nord.book, world.nord.meta, world.nord_kit.agent, lambda *_: None)  # type: ignore[arg-type]
    assert [*(await again.incidents.all()).items()] == before


async def test_an_answer_to_another_question_is_no_answer(world: World) -> None:
    world.pay(100)
    old: list[MirrorShown] = []
    await world.compare(lose=lambda message: isinstance(message, MirrorShown) and not old.append(message))
    assert world.kind is None
    world.pay(50)
    world.now_s += PATIENCE_S
    await world.nord.reconciler.tick(world.sud_kit.ledger)  # gives up, asks later
    world.now_s += AGAIN_S
    await world.nord.reconciler.tick(world.sud_kit.ledger)
    await world.nord.reconciler.take(world.sud_kit.ledger, old[0])  # replayed
    assert world.kind is None
    await world.run()
    assert world.kind == "agreed"
    assert await world.incidents() == []


async def test_a_mirror_signed_by_somebody_else_is_refused(world: World) -> None:
    world.pay(100)
    shown: list[MirrorShown] = []
    await world.compare(lose=lambda message: isinstance(message, MirrorShown) and not shown.append(message))
    forged = msgspec.structs.replace(shown[0], signature=bytes(64))
    with pytest.raises(RemoteProtocolError, match="bad_signature"):
        await world.nord.reconciler.take(world.sud_kit.ledger, forged)


async def test_only_records_of_deals_between_the_two_are_shown(world: World) -> None:
    world.pay(100)
    await world.compare()
    for index in range(len(world.sud_kit.records) + 3):
        await world.sud.reconciler.take(world.nord_kit.ledger, AskRecord(index))
    shown = [message.proof.inclusion.index for _, _, message in world.wire if isinstance(message, RecordShown)]
    assert shown == [len(world.sud_kit.records) - 1]
    world.wire.clear()
    await world.sud.reconciler.take(b"stranger" * 4, AskMirror((), 0, 0, 0, 0))
    assert not world.wire


async def test_the_book_answers_as_the_records_are(world: World) -> None:
    """Every size of the two logs: what the books say of each other agrees, delays apart."""
    book, partner = world.nord.book, world.sud_kit.ledger
    tids = [world.pay(amount) for amount in (10, 20, 30)]
    _, index = world.promise(40)
    for side in world.sides:
        await side.follow()
    held = await world.sud.book.held(world.nord_kit.ledger, (), 0)
    assert (held.balance_minor, held.reserved_out_minor) == (-60, 40)
    assert {one.tid for one in held.lists.resolved} == set(tids)
    waiting = await book.waiting(partner)
    assert len(waiting.pending) == 1
    mirror_claim = Claim(None, 0, dict.fromkeys(tids, "commit"))  # type: ignore[arg-type]
    compared = await book.compared(partner, mirror_claim, Asked(frozenset(waiting.pending), 0, waiting.size))
    assert compared.posted_minor == -60
    assert {row.status for row in compared.rows.values()} == {"commit", "pending"}
    assert isinstance(next(iter(compared.rows.values())), MirrorRow)
    page = await world.sud.book.moves(world.nord_kit.ledger, 0)
    assert [move.amount_minor for move in page.moves] == [-10, -20, -30]
    later = await world.sud.book.moves(world.nord_kit.ledger, page.moves[1].index)
    assert [move.tid for move in later.moves] == tids[1:]
    assert index > 0
