# SPDX-License-Identifier: AGPL-3.0-or-later
"""Step 3: a consent poll, and a vote weighted by colleges that amends the statutes; a member counts again."""

import asyncio
from typing import Any, Final

import msgspec

from ecot_cli.demo.cast import Actor, Coop
from ecot_cli.demo.checks import Teller
from ecot_protocol.domains.governance.acts import AdoptStatutes, ClosePoll, OpenPoll, Vote, terms_of
from ecot_protocol.domains.governance.state import Amendment
from ecot_protocol.domains.governance.tally import AMENDMENT_OPTIONS, CONSENT_OPTIONS, recount
from ecot_protocol.ledger.amounts import Rate
from ecot_protocol.machine import ENTRY_TYPES
from ecot_protocol.wire.entry import BODY, decode_record

OPEN_MS: Final = 4_000
OUTCOME_TRIES: Final = 50
OUTCOME_PAUSE_S: Final = 0.1
ANYBODY: Final = Rate(denominator=1, numerator=0)
TENTH: Final = Rate(denominator=10, numerator=1)
HALF: Final = Rate(denominator=2, numerator=1)
NEW_FEE_MINOR: Final = 2_500


async def consent(coop: Coop, teller: Teller) -> None:
    """The collective tests whether anybody objects: one does, so nothing is adopted."""
    poll = await _open(coop, "Ouvrir un second lieu de travail ?", coop.actors[0], colleges=False)
    voters = coop.actors[:18]
    entries = [await _vote(coop, poll, one, "agree") for one in voters[:-2]]
    entries.append(await _vote(coop, poll, voters[-2], "abstain"))
    entries.append(await _vote(coop, poll, voters[-1], "object", "Le loyer dépasse notre budget."))
    await coop.must(entries)
    outcome = await _close(coop, poll)
    teller.check("consent_blocked", not outcome["is_adopted"], cast=outcome["cast"], electors=outcome["electors"])


async def amend(coop: Coop, teller: Teller) -> dict[str, Any]:
    """Three colleges vote on a lower yearly fee; the outcome amends the statutes.

    Returns:
        The outcome, for the tables.
    """
    old = coop.statutes
    statutes = msgspec.structs.replace(
        old, membership=msgspec.structs.replace(old.membership, yearly_fee_minor=NEW_FEE_MINOR)
    )
    amendment = Amendment(in_force_delay_ms=0, statutes=statutes, version=coop.statutes_version + 1)
    poll = await _open(coop, "Cotisation annuelle à 25 EUR ?", coop.actors[0], colleges=True, amendment=amendment)
    entries = []
    for number, voter in enumerate(coop.actors):
        choice = "against" if number % 5 == 4 else "abstain" if number % 11 == 10 else "for"
        entries.append(await _vote(coop, poll, voter, choice))
    changed = await _vote(coop, poll, coop.actors[3], "for")  # a stance can be changed until the end
    await coop.must([*entries, changed])
    outcome = await _close(coop, poll)
    teller.check("vote_passed", outcome["is_adopted"], winner=outcome["winner"])
    late = await _vote(coop, poll, coop.actors[7], "for")
    teller.check_equal("refused", await coop.refusal(late), "poll_unknown", reason="poll_unknown")
    await coop.act("governance.adopt_statutes", AdoptStatutes(poll=poll), **coop.as_board)
    coop.statutes, coop.statutes_version = statutes, coop.statutes_version + 1
    path = f"/v1/statutes/{coop.statutes_version}"
    in_force = await coop.get(path)
    fee = in_force["statutes"]["membership"]["yearly_fee_minor"]
    teller.check_equal("statutes_amended", fee, NEW_FEE_MINOR, version=coop.statutes_version)
    await _recount(coop, poll, outcome, teller)
    return outcome


async def _open(
    coop: Coop, question: str, author: Actor, *, colleges: bool, amendment: Amendment | None = None
) -> bytes:
    now = coop.client.clock_ms()
    payload = OpenPoll(
        amendment=amendment,
        closes_at_ms=now + OPEN_MS,
        kind="single_choice" if amendment else "consent",
        majority=HALF if amendment else ANYBODY,
        opens_at_ms=now,
        options=AMENDMENT_OPTIONS if amendment else CONSENT_OPTIONS,
        question=None,
        quorum=TENTH,
        statutes_version=coop.statutes_version,
        weighting="colleges" if colleges else "members",
    )
    receipt = await coop.act("governance.open_poll", payload, **author.signs, contents={"question": question})
    return receipt.entry_id


async def _vote(coop: Coop, poll: bytes, voter: Actor, choice: str, reason: str | None = None) -> Any:
    contents = {"reason": reason} if reason else {}
    return await coop.build(
        "governance.vote", Vote(choice=choice, poll=poll, reason=None), **voter.signs, contents=contents
    )


async def _close(coop: Coop, poll: bytes) -> dict[str, Any]:
    """Wait for the poll's end and return its outcome; whoever is first records it, the node or the board."""
    shown = await coop.get(f"/v1/polls/{poll.hex()}")
    await coop.wait_until(shown["closes_at_ms"])
    await coop.post([await coop.build("governance.close_poll", ClosePoll(poll=poll), **coop.as_board)])
    for _ in range(OUTCOME_TRIES):
        outcome: dict[str, Any] | None = (await coop.get(f"/v1/polls/{poll.hex()}"))["outcome"]
        if outcome is not None:
            return outcome
        await asyncio.sleep(OUTCOME_PAUSE_S)
    raise TimeoutError(f"poll {poll.hex()} has no outcome")


async def _recount(coop: Coop, poll: bytes, outcome: dict[str, Any], teller: Teller) -> None:
    """Count again from the records alone: who was a member when it was opened, and how each voted last."""
    payloads = {one.tag: one for one in ENTRY_TYPES}
    roll: dict[bytes, str] = {}
    votes: list[tuple[bytes, str]] = []
    terms = None
    async for item in coop.client.records():
        if item.type not in ("membership.admit", "governance.open_poll", "governance.vote"):
            continue
        receipt = await coop.client.fetch_receipt(item.index)
        body = BODY.decode(decode_record(receipt.record).body)
        payload = payloads[item.type].codec.decode(bytes(body.payload))
        if item.type == "membership.admit" and terms is None:
            roll[payload.member] = payload.college
        elif body.id == poll:
            terms = terms_of(payload)
        elif item.type == "governance.vote" and payload.poll == poll:
            assert body.author is not None
            votes.append((body.author, payload.choice))
    assert terms is not None, "the poll's record is there"
    weights = [(one.code, one.weight_bp) for one in coop.statutes.colleges]
    counted = recount(terms, weights, roll, votes)
    shown = [(one["numerator"], one["denominator"]) for one in outcome["scores"]]
    mine = [(str(one.numerator), str(one.denominator)) for one in counted.scores]
    teller.check("recounted", (mine, counted.winner) == (shown, outcome["winner"]), votes=len(votes))
