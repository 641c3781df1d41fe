# SPDX-License-Identifier: AGPL-3.0-or-later
"""The life of a cooperative, the same in every run, in which (almost) every entry type is recorded.

`tests/vectors/make_vectors.py` writes it down as the recorded log of the vectors; property tests replay it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import msgspec
from ledger_kit import DAY_MS, Actor, LedgerKit, percent, seed, statutes

from ecot_protocol.domains.catalogue.acts import BatchWork, ChangeSplits, RegisterWork, RegisterWorks, WithdrawWork
from ecot_protocol.domains.catalogue.identifiers import Identifier
from ecot_protocol.domains.catalogue.state import Holder
from ecot_protocol.domains.coop.acts import (
    AmendStatutes,
    Appoint,
    NameCosigner,
    RaiseRules,
    ReplaceNodeKey,
    SealState,
    Withdraw,
)
from ecot_protocol.domains.coop.statutes import Statutes
from ecot_protocol.domains.governance.acts import AdoptStatutes, ClosePoll, OpenPoll, Vote
from ecot_protocol.domains.governance.state import Amendment
from ecot_protocol.domains.membership.acts import (
    AttestPayment,
    ChargeFee,
    Decline,
    Exclude,
    GrantMandate,
    Leave,
    NewPerson,
    RevokeMandate,
)
from ecot_protocol.domains.membership.keys import AddKey, CompleteRecovery, OpenRecovery, RevokeKey, VetoRecovery
from ecot_protocol.domains.membership.state import Mandate
from ecot_protocol.domains.royalty.acts import ReportUse
from ecot_protocol.domains.royalty.acts import Subscribe as SubscribeToCatalogue
from ecot_protocol.domains.royalty.periods import ClosePeriod, OpenPeriod
from ecot_protocol.domains.royalty.state import UseCount
from ecot_protocol.domains.shares.acts import AttestSharePayment, CancelSubscription, Redeem, Subscribe
from ecot_protocol.domains.trade.acts import Accept, Confirm, Lapse, Propose, Refuse, Reverse
from ecot_protocol.domains.trade.transfers import Pay, SetLimits
from ecot_protocol.ledger.accounts import AccountKey
from ecot_protocol.ledger.entry_type import BOARD, TREASURER
from ecot_protocol.ledger.facts import Fact
from ecot_protocol.ledger.reasons import Reason
from ecot_protocol.machine import ENTRY_TYPES
from ecot_protocol.wire.encoding import Wire
from ecot_protocol.wire.entry import BODY, Attachment, Entry, commitment
from ecot_protocol.wire.ids import object_id
from ecot_protocol.wire.keys import ML_DSA_44, Signer

UNTOLD = frozenset(("royalty.pay_out",))
"""Needs a period with more holders than one entry pays."""


def told_tags() -> frozenset[str]:
    """Return the tags that the story records: all but `UNTOLD` and those of federation, which need a second ledger."""
    return frozenset(one.tag for one in ENTRY_TYPES if not one.tag.startswith("federation.")) - UNTOLD


def attachment(class_name: str, text: str) -> tuple[bytes, Attachment]:
    """Return (commitment, attachment) with a salt that the text determines: for tests alone."""
    salt = seed(f"salt of {text}")
    return commitment(salt, text.encode()), Attachment(class_name, salt, text.encode())


@dataclass
class StoryKit(LedgerKit):
    """A ledger that keeps what was sent; two seconds pass with every record."""

    name: str = "story"
    sent: list[Entry] = field(default_factory=list)
    listener: Callable[["StoryKit", Entry, list[Fact]], None] | None = None

    def submit(self, entry: Entry) -> list[Fact] | Reason:
        result = super().submit(entry)
        if isinstance(result, list):
            self.sent.append(entry)
            if self.listener:
                self.listener(self, entry, result)
            self.now += 2_000
        return result

    def do(self, tag: str, payload: Wire, **options: Any) -> bytes:
        """Record an entry and return its id."""
        entry_id: bytes = options.pop("entry_id", None) or self.new_id()
        self.must(tag, payload, entry_id=entry_id, **options)
        return entry_id

    @property
    def as_board(self) -> dict[str, Any]:
        return {"author": BOARD, "signers": self.board}

    @property
    def as_treasurer(self) -> dict[str, Any]:
        return {"author": TREASURER, "signers": self.treasurer}

    @property
    def as_node(self) -> dict[str, Any]:
        return {"author": None, "signers": (self.agent,)}

    def seal(self) -> None:
        """Let the node seal the state."""
        self.do("coop.seal", SealState(digest=self.state.digest(), size=self.state.size), **self.as_node)


@dataclass(frozen=True)
class Cast:
    """Who takes part."""

    ada: Actor
    bob: Actor
    cleo: Actor
    dora: Actor
    library: Actor


def tell(listener: Callable[[StoryKit, Entry, list[Fact]], None] | None = None) -> StoryKit:
    """Record the whole story.

    Args:
        listener: called after every record with the kit, the entry and its facts.
    """
    kit = StoryKit(listener=listener)
    cast = Cast(
        ada=kit.join("ada"),
        bob=kit.join("bob"),
        cleo=kit.join("cleo", "workers", "person"),
        dora=kit.join("dora", "partners", "person"),
        library=kit.join("library", "partners", "body"),
    )
    for chapter in (_persons, _offices, _shares, _trade, _polls, _catalogue, _years, _farewell):
        chapter(kit, cast)
    return kit


def _persons(kit: StoryKit, cast: Cast) -> None:
    clerk, grant_id = Signer(seed("story clerk")), kit.new_id()
    mandate = Mandate(
        day_limit_minor=50_000,
        from_ms=0,
        person=object_id(grant_id, 1),
        scopes=("trade",),
        trade_limit_minor=20_000,
        until_ms=kit.now + 300 * DAY_MS,
    )
    grant = GrantMandate(mandate=mandate, new_person=NewPerson(handle="clerk", public_key=clerk.public_key))
    by_bob = {"author": cast.bob.member, "signers": (cast.bob.signer, clerk)}
    kit.do("membership.grant_mandate", grant, entry_id=grant_id, **by_bob)
    kit.do("membership.revoke_mandate", RevokeMandate(person=mandate.person), **kit.by(cast.bob))
    ada, recovery, second = cast.ada.person, Signer(seed("ada's recovery key")), Signer(seed("ada's second key"))
    add = AddKey(public_key=recovery.public_key, purpose="recovery")
    kit.do("membership.add_key", add, author=ada, signers=(cast.ada.signer, recovery))
    add = AddKey(public_key=second.public_key, purpose="daily")
    kit.do("membership.add_key", add, author=ada, signers=(recovery, second))
    kit.do("membership.revoke_key", RevokeKey(key_id=second.key_id), author=ada, signers=(cast.ada.signer,))
    thief = Signer(seed("a thief's key"))
    kit.do(
        "membership.open_recovery",
        OpenRecovery(person=ada, public_key=thief.public_key),
        author=BOARD,
        signers=(*kit.board, thief),
    )
    kit.do("membership.veto_recovery", VetoRecovery(), author=ada, signers=(recovery,))
    dora, new = cast.dora.person, Signer(seed("dora's new key"))
    payload = OpenRecovery(person=dora, public_key=new.public_key)
    kit.do("membership.open_recovery", payload, author=BOARD, signers=(*kit.board, new))
    kit.now += 3 * DAY_MS
    done = CompleteRecovery(public_key=new.public_key)
    kit.do("membership.complete_recovery", done, author=dora, signers=(new,))


def _offices(kit: StoryKit, _cast: Cast) -> None:
    secretary = Appoint(office="secretary", persons=(kit.persons["emma"],), threshold=1)
    kit.do("coop.appoint", secretary, **kit.as_board)
    waiting = kit.entry("coop.appoint", Appoint(office="secretary", persons=(), threshold=1), **kit.as_board)
    body = BODY.decode(waiting.body)
    withdraw = Withdraw(body_hash=sha256(waiting.body).digest(), entry_id=body.id)
    kit.do("coop.withdraw", withdraw, author=kit.persons["denis"], signers=(kit.founders["denis"],))
    agent = Signer(seed("story's second agent"))
    replacement = ReplaceNodeKey(public_key=agent.public_key, purpose="agent")
    kit.do("coop.replace_node_key", replacement, author=BOARD, signers=(*kit.board, agent))
    kit.agent = agent
    further = NameCosigner(public_key=bytes((ML_DSA_44,)) + seed("story's ML-DSA-44 key") * 41)
    kit.do("coop.name_cosigner", further, **kit.as_board)
    kit.seal()


def _shares(kit: StoryKit, cast: Cast) -> None:
    first = kit.do("shares.subscribe", Subscribe(count=2, statutes_version=1, total_minor=20_000), **kit.by(cast.ada))
    reference, proof = attachment("payment", "bank statement 1")
    attest = AttestSharePayment(reference=reference, subscription=first)
    kit.do("shares.attest_payment", attest, attachments=(proof,), **kit.as_treasurer)
    mistake = kit.do("shares.subscribe", Subscribe(count=1, statutes_version=1, total_minor=10_000), **kit.by(cast.ada))
    kit.do("shares.cancel_subscription", CancelSubscription(subscription=mistake), **kit.by(cast.ada))
    third = kit.do("shares.subscribe", Subscribe(count=8, statutes_version=1, total_minor=80_000), **kit.by(cast.bob))
    attest = AttestSharePayment(reference=None, subscription=third)
    kit.do("shares.attest_payment", attest, **kit.as_treasurer)
    fee = AttestPayment(amount_minor=13_500, direction="in", member=cast.ada.member, reference=None, unit="EUR")
    kit.do("membership.attest_payment", fee, **kit.as_treasurer)


def _propose(kit: StoryKit, cast: Cast) -> bytes:
    lines, attached = attachment("lines", "20 chairs")
    payload = Propose(
        barter_minor=9_000,
        buyer=cast.bob.member,
        commission_minor=500,
        deliver_by_ms=kit.now + 20 * DAY_MS,
        euro_minor=3_000,
        expires_at_ms=kit.now + 10 * DAY_MS,
        lines=lines,
        memo=None,
        net_minor=10_000,
        statutes_version=1,
        vat_minor=2_000,
    )
    return kit.do("trade.propose", payload, attachments=(attached,), **kit.by(cast.ada))


def _accept(kit: StoryKit, cast: Cast) -> bytes:
    trade = _propose(kit, cast)
    kit.do("trade.accept", Accept(statutes_version=1, total_minor=9_000, trade=trade), **kit.by(cast.bob))
    return trade


def _trade(kit: StoryKit, cast: Cast) -> None:
    limits = SetLimits(lower_minor=-200_000, member=cast.bob.member, upper_minor=None)
    kit.do("trade.set_limits", limits, **kit.as_board)
    pay = Pay(amount_minor=1_234, memo=None, payee=cast.bob.member, statutes_version=1, total_minor=1_234)
    kit.do("trade.pay", pay, **kit.by(cast.ada))
    kit.do("trade.confirm", Confirm(trade=_accept(kit, cast)), **kit.by(cast.bob))
    reversed_trade = _accept(kit, cast)
    kit.do("trade.confirm", Confirm(trade=reversed_trade), **kit.by(cast.bob))
    reverse = Reverse(buyer=cast.bob.member, reason=None, trade=reversed_trade)
    kit.do("trade.reverse", reverse, author=cast.ada.member, signers=(cast.ada.signer, cast.bob.signer))
    kit.do("trade.refuse", Refuse(trade=_propose(kit, cast)), **kit.by(cast.bob))
    late, promised = _propose(kit, cast), _accept(kit, cast)
    kit.now += 11 * DAY_MS
    kit.do("trade.lapse", Lapse(trade=late), **kit.as_node)
    kit.now += 10 * DAY_MS
    kit.do("trade.lapse", Lapse(trade=promised), **kit.by(cast.ada))


def by_poll() -> Statutes:
    """Return the statutes that the story's board adopts: from then on, polls amend them."""
    return statutes(governance=msgspec.structs.replace(statutes().governance, statutes_amended_by="poll"))


def _polls(kit: StoryKit, cast: Cast) -> None:
    amend = AmendStatutes(in_force_from_ms=kit.now, statutes=by_poll(), version=2)
    kit.do("coop.amend_statutes", amend, **kit.as_board)
    question, attached = attachment("question", "Shall the yearly fee fall?")
    lower = msgspec.structs.replace(by_poll().membership, yearly_fee_minor=20_000)
    adopted = msgspec.structs.replace(by_poll(), membership=lower)
    poll = OpenPoll(
        amendment=Amendment(in_force_delay_ms=DAY_MS, statutes=adopted, version=3),
        closes_at_ms=kit.now + 7 * DAY_MS,
        kind="single_choice",
        majority=percent(50),
        opens_at_ms=kit.now,
        options=("for", "against", "abstain"),
        question=question,
        quorum=percent(20),
        statutes_version=2,
        weighting="colleges",
    )
    poll_id = kit.do("governance.open_poll", poll, attachments=(attached,), **kit.by(cast.ada))
    why, reason = attachment("reason", "It is fair.")
    votes = ((cast.ada, "against"), (cast.ada, "for"), (cast.bob, "against"), (cast.cleo, "for"))
    for actor, choice in votes:
        vote = Vote(choice=choice, poll=poll_id, reason=why)
        kit.do("governance.vote", vote, attachments=(reason,), **kit.by(actor))
    kit.now += 7 * DAY_MS
    kit.do("governance.close_poll", ClosePoll(poll=poll_id), **kit.as_node)
    kit.do("governance.adopt_statutes", AdoptStatutes(poll=poll_id), **kit.by(cast.cleo))
    kit.now += 2 * DAY_MS
    kit.seal()


def _catalogue(kit: StoryKit, cast: Cast) -> None:
    title, attached = attachment("title", "Chanson d'hiver")
    song = RegisterWork(
        holders=(Holder(cast.ada.member, 6_000), Holder(cast.cleo.member, 4_000)),
        identifiers=(Identifier("isrc", "FRX012600001"),),
        kind="music",
        title=title,
    )
    both = {"author": cast.ada.member, "signers": (cast.ada.signer, cast.cleo.signer)}
    work = kit.do("catalogue.register_work", song, attachments=(attached,), **both)
    batch = RegisterWorks(titles=None, works=(BatchWork(identifiers=(), kind="music"),) * 2)
    batch_id = kit.do("catalogue.register_works", batch, **kit.by(cast.cleo))
    change = ChangeSplits(holders=(Holder(cast.ada.member, 5_000), Holder(cast.cleo.member, 5_000)), work=work)
    kit.do("catalogue.change_splits", change, **both)
    start = kit.now
    subscribe = SubscribeToCatalogue(
        from_ms=start, statutes_version=3, total_minor=100_001, unit="EUR", until_ms=start + 365 * DAY_MS
    )
    kit.do("royalty.subscribe", subscribe, **kit.by(cast.library))
    quarter = OpenPeriod(code="2026-q4", ends_ms=start + 90 * DAY_MS, starts_ms=start)
    period = kit.do("royalty.open_period", quarter, **kit.as_treasurer)
    counts = {work: 7, object_id(batch_id, 1): 2}
    rows = tuple(UseCount(one, counts[one]) for one in sorted(counts))
    report = ReportUse(counts=rows, institution=cast.library.member, part=1, period=period)
    kit.do("royalty.report_use", report, **kit.by(cast.library))
    kit.do("catalogue.withdraw_work", WithdrawWork(reason=None, work=object_id(batch_id, 2)), **kit.by(cast.cleo))
    kit.now = start + 90 * DAY_MS
    close = ClosePeriod(period=period, revenue_minor=100_001, statutes_version=3)
    kit.do("royalty.close_period", close, **kit.as_treasurer)


def _years(kit: StoryKit, cast: Cast) -> None:
    kit.now += 366 * DAY_MS
    kit.do("membership.charge_fee", ChargeFee(member=cast.bob.member), **kit.as_node)
    kit.do("membership.charge_fee", ChargeFee(member=cast.ada.member), **kit.as_treasurer)
    kit.seal()


def _farewell(kit: StoryKit, cast: Cast) -> None:
    why, attached = attachment("reason", "Never came.")
    exclude = Exclude(member=cast.dora.member, reason=why)
    kit.do("membership.exclude", exclude, attachments=(attached,), **kit.as_board)
    stranger = kit.apply_for("stranger")
    kit.do("membership.decline", Decline(member=stranger.member, reason=None), **kit.as_board)
    owed = kit.state.accounts.balance(AccountKey(cast.ada.member, "BART", "barter"))
    payer, payee = (cast.ada, cast.bob) if owed > 0 else (cast.bob, cast.ada)
    back = Pay(amount_minor=abs(owed), memo=None, payee=payee.member, statutes_version=3, total_minor=abs(owed))
    kit.do("trade.pay", back, **kit.by(payer))
    kit.do("membership.leave", Leave(), **kit.by(cast.ada))
    kit.now += 30 * DAY_MS
    redeem = Redeem(count=2, member=cast.ada.member, total_minor=20_000, unit="EUR")
    kit.do("shares.redeem", redeem, **kit.as_treasurer)
    kit.seal()
    kit.do("coop.raise_rules", RaiseRules(rules=2), **kit.as_board)
