# SPDX-License-Identifier: AGPL-3.0-or-later
"""A cooperative with something in every table, behind HTTP: `tell_story` records it, `domain_node` serves it.

Ada sells to Bob; Eve is a member and a party to nothing; Zoe has applied; Finn was excluded.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
from aiohttp.test_utils import TestClient, TestServer
from http_kit import NO_LIMITS, HttpNode, KnownPeers, _writer
from ledger_kit import DAY_MS, Actor, LedgerKit, percent

from ecot_node.domains.database import ViewsDatabase
from ecot_node.domains.federation.routes import federation_routes
from ecot_node.domains.records.queries import ViewsRecordIndex
from ecot_node.domains.routes import DOMAIN_ROUTES
from ecot_node.http.app import SERVICES, make_app
from ecot_node.http.context import Context
from ecot_node.store.forks import ForkBoard
from ecot_node.store.memory import MemoryStore
from ecot_protocol.domains.catalogue.acts import BatchWork, RegisterWork, RegisterWorks
from ecot_protocol.domains.catalogue.state import Holder
from ecot_protocol.domains.governance.acts import ClosePoll, OpenPoll, Vote
from ecot_protocol.domains.governance.tally import CONSENT_OPTIONS
from ecot_protocol.domains.membership.acts import Admit, Apply, AttestPayment, Exclude, NewPerson
from ecot_protocol.domains.royalty.acts import ReportUse, Subscribe
from ecot_protocol.domains.royalty.periods import ClosePeriod, OpenPeriod
from ecot_protocol.domains.royalty.state import UseCount
from ecot_protocol.domains.shares.acts import AttestSharePayment
from ecot_protocol.domains.shares.acts import Subscribe as SubscribeShares
from ecot_protocol.domains.trade.acts import Accept, Confirm, Propose
from ecot_protocol.domains.trade.transfers import Pay
from ecot_protocol.ledger.entry_type import BOARD, TREASURER
from ecot_protocol.ledger.facts import Fact
from ecot_protocol.ledger.reasons import Reason
from ecot_protocol.wire.entry import Attachment, Entry, commitment
from ecot_protocol.wire.ids import object_id
from ecot_protocol.wire.keys import Signer


@dataclass
class StoryKit(LedgerKit):
    """A `LedgerKit` that keeps what was posted, attachments included, and when."""

    posted: list[tuple[int, Entry]] = field(default_factory=list)

    def submit(self, entry: Entry) -> list[Fact] | Reason:
        result = super().submit(entry)
        if not isinstance(result, Reason):
            self.posted.append((self.now, entry))
        return result


def attachment(class_name: str, content: str | bytes) -> Attachment:
    """Return an attachment with a fixed salt."""
    raw = content.encode() if isinstance(content, str) else content
    return Attachment(class_name, sha256(raw).digest(), raw)


def commit(one: Attachment) -> bytes:
    """Return what a payload holds of an attachment."""
    return commitment(one.salt, one.content)


@dataclass
class Story:
    """Ids of what happened."""

    kit: StoryKit
    ada: Actor
    bob: Actor
    eve: Actor
    zoe: Actor
    finn: Actor
    library: Actor
    trade: bytes = b""
    offer: bytes = b""
    poll: bytes = b""
    works: tuple[bytes, ...] = ()
    period: bytes = b""

    @property
    def treasurer(self) -> Signer:
        return self.kit.founders["claire"]

    @property
    def board(self) -> Signer:
        """Of the board, and not the treasurer."""
        return self.kit.founders["emma"]


def tell_story() -> Story:
    """Record something of every kind."""
    kit = StoryKit()
    ada = _join_with_identity(kit, "ada", "Ada Bakery, 1 rue du Four")
    bob, eve, library = kit.join("bob"), kit.join("eve"), kit.join("library", kind="body")
    finn = kit.join("finn")
    kit.must("membership.exclude", Exclude(member=finn.member, reason=None), author=BOARD, signers=kit.board)
    story = Story(kit, ada, bob, eve, kit.apply_for("zoe"), finn, library)
    _pay(story)
    _buy_shares(story)
    _trade(story)
    _vote(story)
    _register(story)
    _share_revenue(story)
    return story


def _join_with_identity(kit: StoryKit, name: str, identity: str) -> Actor:
    told = attachment("identity", identity)
    signer, member = Signer(sha256(name.encode()).digest()), kit.new_id()
    apply = Apply(
        college="users",
        handle=name,
        identity=commit(told),
        kind="firm",
        new_person=NewPerson(handle=f"{name}.owner", public_key=signer.public_key),
        person=None,
    )
    kit.must("membership.apply", apply, author=b"self", signers=(signer,), entry_id=member, attachments=(told,))
    kit.must("membership.admit", Admit(college="users", member=member), author=BOARD, signers=kit.board)
    return Actor(name, member, object_id(member, 1), signer)


def treasurer(kit: LedgerKit) -> dict[str, Any]:
    return {"author": TREASURER, "signers": kit.treasurer}


def _pay(story: Story) -> None:
    kit = story.kit
    for number, (payer, payee) in enumerate([(story.ada, story.bob), (story.bob, story.ada)] * 5):
        kit.now += 1_000
        amount = 100 + number
        pay = Pay(amount_minor=amount, memo=None, payee=payee.member, statutes_version=1, total_minor=amount)
        kit.must("trade.pay", pay, **kit.by(payer))
    paid = AttestPayment(amount_minor=13_500, direction="in", member=story.ada.member, reference=None, unit="EUR")
    kit.must("membership.attest_payment", paid, **treasurer(kit))


def _buy_shares(story: Story) -> None:
    kit, wanted = story.kit, story.kit.new_id()
    subscribe = SubscribeShares(count=3, statutes_version=1, total_minor=30_000)
    kit.must("shares.subscribe", subscribe, entry_id=wanted, **kit.by(story.ada))
    kit.must("shares.attest_payment", AttestSharePayment(reference=None, subscription=wanted), **treasurer(kit))
    subscribe = SubscribeShares(count=1, statutes_version=1, total_minor=10_000)
    kit.must("shares.subscribe", subscribe, **kit.by(story.bob))


def _trade(story: Story) -> None:
    kit, lines = story.kit, attachment("lines", "20 loaves")
    story.trade, story.offer = kit.new_id(), kit.new_id()
    propose = Propose(
        barter_minor=6_000,
        buyer=story.bob.member,
        commission_minor=500,
        deliver_by_ms=kit.now + 20 * DAY_MS,
        euro_minor=6_000,
        expires_at_ms=kit.now + 10 * DAY_MS,
        lines=commit(lines),
        memo=None,
        net_minor=10_000,
        statutes_version=1,
        vat_minor=2_000,
    )
    by_seller = kit.by(story.ada)
    kit.must("trade.propose", propose, entry_id=story.trade, attachments=(lines,), **by_seller)
    accept = Accept(statutes_version=1, total_minor=6_000, trade=story.trade)
    kit.must("trade.accept", accept, **kit.by(story.bob))
    kit.must("trade.confirm", Confirm(trade=story.trade), **kit.by(story.bob))
    kit.must("trade.propose", propose, entry_id=story.offer, attachments=(lines,), **by_seller)


def _vote(story: Story) -> None:
    kit, question = story.kit, attachment("question", "Shall we bake on Sundays?")
    story.poll = kit.new_id()
    poll = OpenPoll(
        amendment=None,
        closes_at_ms=kit.now + DAY_MS,
        kind="consent",
        majority=percent(0),
        opens_at_ms=0,
        options=CONSENT_OPTIONS,
        question=commit(question),
        quorum=percent(0),
        statutes_version=1,
        weighting="members",
    )
    kit.must("governance.open_poll", poll, entry_id=story.poll, attachments=(question,), **kit.by(story.ada))
    for actor, choice in ((story.ada, "abstain"), (story.bob, "agree"), (story.eve, "agree"), (story.ada, "agree")):
        kit.must("governance.vote", Vote(choice=choice, poll=story.poll, reason=None), **kit.by(actor))
    kit.now += DAY_MS
    kit.must("governance.close_poll", ClosePoll(poll=story.poll), **kit.by(story.ada))


def _register(story: Story) -> None:
    kit, title = story.kit, attachment("title", "Fournil")
    titles = attachment("title", msgspec.msgpack.encode(["Premier", "Second"]))
    alone, batch = kit.new_id(), kit.new_id()
    holders = (Holder(story.ada.member, 7_000), Holder(story.bob.member, 3_000))
    work = RegisterWork(holders=holders, identifiers=(), kind="music", title=commit(title))
    both = {"author": story.ada.member, "signers": (story.ada.signer, story.bob.signer)}
    kit.must("catalogue.register_work", work, entry_id=alone, attachments=(title,), **both)
    works = RegisterWorks(
        titles=commit(titles), works=(BatchWork(identifiers=(), kind="book"), BatchWork(identifiers=(), kind="comic"))
    )
    kit.must("catalogue.register_works", works, entry_id=batch, attachments=(titles,), **kit.by(story.bob))
    story.works = (alone, object_id(batch, 1), object_id(batch, 2))


def _share_revenue(story: Story) -> None:
    kit = story.kit
    subscribe = Subscribe(from_ms=kit.now, statutes_version=1, total_minor=123_457, unit="EUR", until_ms=None)
    kit.must("royalty.subscribe", subscribe, **kit.by(story.library))
    story.period = kit.new_id()
    period = OpenPeriod(code="2026-q3", ends_ms=kit.now + 90 * DAY_MS, starts_ms=kit.now)
    kit.must("royalty.open_period", period, entry_id=story.period, **treasurer(kit))
    counts = tuple(UseCount(work, 10 + place) for place, work in enumerate(sorted(story.works)))
    use = ReportUse(counts=counts, institution=story.library.member, part=1, period=story.period)
    kit.must("royalty.report_use", use, **kit.by(story.library))
    kit.now += 90 * DAY_MS
    close = ClosePeriod(period=story.period, revenue_minor=100_003, statutes_version=1)
    kit.must("royalty.close_period", close, **treasurer(kit))


@asynccontextmanager
async def domain_node(story: Story, folder: Path) -> AsyncIterator[HttpNode]:
    """Serve what the story's kit recorded, attachments included."""
    kit, store, views = story.kit, MemoryStore(), ViewsDatabase(folder)
    await views.open()
    writer = _writer(store, kit, views)  # type: ignore[arg-type]
    await writer.start()
    context = Context(
        ledger=writer,
        machine=kit.machine,
        store=store,
        views=views,
        records=ViewsRecordIndex(views),
        peers=KnownPeers(),
        cosigners=(),
        forks=ForkBoard(store),
        clock_ms=lambda: kit.now,
        settings=NO_LIMITS,
    )
    app = make_app(context, (*DOMAIN_ROUTES, *federation_routes(None, kit.agent)))
    client = TestClient(TestServer(app))
    await client.start_server()
    node = HttpNode(kit, writer, store, context.records, context.peers, app[SERVICES], client)  # type: ignore[arg-type]
    try:
        end = kit.now
        for at_ms, entry in tuple(kit.posted):
            kit.now = at_ms
            await node.record(entry)
        kit.now = end
        yield node
    finally:
        await client.close()
        await writer.stop()
        await views.close()
