# SPDX-License-Identifier: AGPL-3.0-or-later
"""What must hold after every record of a whole ledger's life, and for whatever is thrown at it then."""

import json
import os
import random
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledger_kit import MACHINE
from payload_strategies import values
from story_kit import StoryKit, tell, told_tags

from ecot_protocol.domains.coop.acts import Appoint
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.ledger.entry_type import BOARD, COOPERATIVE, NODE, TREASURER, Act, AnyEntryType
from ecot_protocol.ledger.facts import Fact, Posting, ReservationClosed, Reserved
from ecot_protocol.ledger.reasons import COMMON_REASONS, Reason
from ecot_protocol.machine import ENTRY_TYPES, public_keys
from ecot_protocol.state import State
from ecot_protocol.wire.entry import BODY, Entry, Record, decode_record, encode_record

KIT = str(Path(__file__).parents[1] / "kit")


@dataclass
class Told:
    """The story with what was seen after each record."""

    kit: StoryKit
    digests: list[bytes] = field(default_factory=list)
    facts: list[list[Fact]] = field(default_factory=list)
    sums: list[Counter[str]] = field(default_factory=list)


@cache
def told() -> Told:
    digests: list[bytes] = []
    facts: list[list[Fact]] = []
    sums: list[Counter[str]] = []

    def listen(kit: StoryKit, _entry: Entry, new: list[Fact]) -> None:
        digests.append(kit.state.digest())
        facts.append(new)
        total: Counter[str] = Counter()
        for key, account in kit.state.accounts.rows.items():
            total[key.unit] += account.balance_minor
        sums.append(total)

    return Told(tell(listen), digests, facts, sums)


def records() -> list[Record]:
    return [decode_record(raw) for raw in told().kit.records]


def test_the_story_tells_every_entry_type() -> None:
    assert {BODY.decode(entry.body).type for entry in told().kit.sent} == told_tags()


def test_every_unit_sums_to_zero_after_every_record() -> None:
    assert all(not any(sums.values()) for sums in told().sums)
    assert len(told().sums[-1]) > 1


def test_replay_gives_the_digest_of_every_record() -> None:
    """Without a single attachment: records hold none."""
    state = State()
    for record, digest, facts in zip(records(), told().digests, told().facts, strict=True):
        applied = MACHINE.replay(state, record)
        assert state.digest() == digest
        assert applied.facts == facts


def test_replay_by_verified_records_ends_alike() -> None:
    state = State()
    for record in records():
        MACHINE.replay(state, record, is_verified=True)
    assert state.digest() == told().digests[-1]


PROGRAM = """
import sys
from hashlib import sha256
from story_kit import tell
running = sha256()
def listen(kit, entry, facts):
    running.update(kit.state.digest() + repr(facts).encode() + kit.records[-1])
tell(listen)
print(running.hexdigest())
"""


def test_two_hash_seeds_give_the_same_ledger() -> None:
    outputs = set()
    for hash_seed in ("1", "4242"):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join((KIT, *sys.path))},
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        outputs.add(done.stdout)
    running = sha256()
    for digest, facts, record in zip(told().digests, told().facts, told().kit.records, strict=True):
        running.update(digest + repr(facts).encode() + record)
    assert outputs == {running.hexdigest() + "\n"}


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_snapshot_goes_on_like_the_ledger_whatever_the_order_of_its_rows(shuffled: bool) -> None:
    """The digest does not cover the order of rows, so no rule may depend on it."""
    rng, state = random.Random(7), State()
    for index, (record, digest, facts) in enumerate(zip(records(), told().digests, told().facts, strict=True)):
        applied = MACHINE.replay(state, record, is_verified=True)
        assert (state.digest(), applied.facts) == (digest, facts), index
        rows = list(state.dump())
        if shuffled:
            rng.shuffle(rows)
        state = State.load(iter(rows))
        assert state.digest() == digest


def test_a_reservation_resolves_at_most_once() -> None:
    opened: Counter[bytes] = Counter()
    closed: Counter[bytes] = Counter()
    for facts in told().facts:
        for name in {fact.cause for fact in facts if isinstance(fact, Reserved)}:
            opened[name] += 1
        for fact in facts:
            if isinstance(fact, ReservationClosed):
                closed[fact.reservation] += 1
                assert opened[fact.reservation] == 1
    assert opened
    assert max(closed.values()) == max(opened.values()) == 1


def test_postings_alone_give_the_balances() -> None:
    balances: Counter[tuple[bytes, str, str]] = Counter()
    for facts in told().facts:
        for fact in facts:
            if isinstance(fact, Posting):
                balances[fact.payer, fact.unit, fact.payer_purpose] -= fact.amount_minor
                balances[fact.payee, fact.unit, fact.payee_purpose] += fact.amount_minor
    rows = told().kit.state.accounts.rows.items()
    held = {(key.owner, key.unit, key.purpose): one.balance_minor for key, one in rows if one.balance_minor}
    assert held == {key: amount for key, amount in balances.items() if amount}


def test_every_record_sent_again_is_refused_and_changes_nothing() -> None:
    state = State()
    for record in records():
        MACHINE.replay(state, record, is_verified=True)
        digest = state.digest()
        with pytest.raises(RemoteProtocolError):
            MACHINE.replay(state, record, is_verified=True)
        assert state.digest() == digest


def test_records_in_another_order_never_replay_to_the_same_log() -> None:
    state = State()
    first, second, *_ = records()
    with pytest.raises(RemoteProtocolError) as caught:
        MACHINE.replay(state, second)
    assert caught.value.code == "record_refused"
    MACHINE.replay(state, first)
    back = Record(first.received_at_ms - 1, second.body, second.signatures)
    with pytest.raises(RemoteProtocolError, match="time_went_back"):
        MACHINE.replay(state, back)


@settings(max_examples=settings().max_examples)
@given(st.data())
def test_one_altered_byte_of_a_record_is_found(data: st.DataObject) -> None:
    """By its form, its signature or the rules; or, the time of the record alone, by its leaf."""
    index = data.draw(st.integers(1, len(records()) - 1))
    raw = bytearray(told().kit.records[index])
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= data.draw(st.integers(1, 255))
    state = state_before(index)
    try:
        altered = decode_record(bytes(raw))
        MACHINE.replay(state, altered)
    except RemoteProtocolError:
        return
    original = records()[index]
    assert (altered.body, altered.signatures) == (original.body, original.signatures)
    assert altered.received_at_ms != original.received_at_ms


@cache
def snapshots() -> list[list[tuple[str, bytes, bytes]]]:
    state, result = State(), [[]]
    for record in records():
        MACHINE.replay(state, record, is_verified=True)
        result.append(list(state.dump()))
    return result


def state_before(index: int) -> State:
    return State.load(iter(snapshots()[index]))


# ------------------------------------------------------------------------------------ whatever is thrown at the rules

IDS = 40
HOSTILE = settings(
    max_examples=settings().max_examples // 3, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def existing_ids(state: State) -> tuple[bytes, ...]:
    """Return ids of every kind that the state knows, so that hostile payloads meet real objects."""
    found: list[bytes] = [BOARD, TREASURER, COOPERATIVE, NODE, bytes(16)]
    for table in state._all_tables():
        for key in list(table)[:IDS]:
            parts = key if isinstance(key, tuple) else (key,)
            found += [part for part in parts if isinstance(part, bytes) and len(part) == 16]
    return tuple(dict.fromkeys(found))


@pytest.mark.parametrize("entry_type", ENTRY_TYPES, ids=lambda one: f"{one.tag}-{one.rules}")
@settings(
    max_examples=settings().max_examples // 3, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(data=st.data())
def test_whatever_is_asked_is_judged_and_what_is_recorded_keeps_the_sums(
    entry_type: AnyEntryType, data: st.DataObject
) -> None:
    """Any well-formed payload, by any author whom somebody can sign for: a listed reason, or facts; never an error."""
    index = data.draw(st.sampled_from(range(5, len(snapshots()) - 1, 4)))
    state = state_before(0 if entry_type.tag == "coop.genesis" else index)
    ids = existing_ids(state)
    payload = data.draw(values(entry_type.payload, ids))
    if entry_type.evidence(payload) is not None:
        return
    own = told().kit.new_id()
    at = state.received_at_ms + data.draw(st.sampled_from((0, 1_000, 86_400_000, 400 * 86_400_000)))
    author = data.draw(st.sampled_from((None, own, *ids)))
    persons = tuple(sorted(state.coop.persons))[:2]
    act = Act(own, author, payload, persons, state.size, sha256(own).digest())
    before = state.digest()
    rule = entry_type.signers(state, act, at)
    if any(len(need.principals) < need.threshold for need in rule):
        return  # Nobody could sign it.
    reason = entry_type.check(state, act, at)
    assert state.digest() == before
    if reason is not None:
        assert reason.code in {*entry_type.reasons, *COMMON_REASONS}
        return
    entry_type.parties(state, act)
    entry_type.effect(state, act, at)
    sums: Counter[str] = Counter()
    for key, account in state.accounts.rows.items():
        sums[key.unit] += account.balance_minor
    assert not any(sums.values())
    after = state.digest()
    assert State.load(state.dump()).digest() == after


def test_signatures_of_one_entry_are_worth_nothing_under_another() -> None:
    """Each signature of the story, moved to each other kind of entry of the same ledger."""
    kit = told().kit
    keys = public_keys(kit.state)
    for first, second in zip(kit.sent[20:40], kit.sent[21:41], strict=True):
        submission = kit.machine.admit_record(Record(0, first.body, second.signatures), 1)
        known = [one for one in second.signatures if keys(one.key_id)]
        reason = submission.find_bad_signature(keys)
        assert isinstance(reason, Reason)
        assert reason.code in (
            {"bad_signature"} if len(known) == len(second.signatures) else {"bad_signature", "key_unknown"}
        )


def test_a_body_is_recorded_once_whatever_signatures_come_with_it() -> None:
    """The same body signed by other members of the board would be another record of the same act."""
    kit = StoryKit(name="twice")
    payload = Appoint(office="secretary", persons=(kit.persons["emma"],), threshold=1)
    entry_id = kit.new_id()
    first = kit.entry("coop.appoint", payload, entry_id=entry_id, author=BOARD, signers=kit.board)
    others = (kit.founders["denis"], kit.founders["emma"])
    second = kit.entry("coop.appoint", payload, entry_id=entry_id, author=BOARD, signers=others)
    assert first.body == second.body
    assert isinstance(kit.submit(first), list)
    again = kit.submit(second)
    assert isinstance(again, Reason)
    assert again.code == "id_used"


def test_facts_and_records_can_be_written_down() -> None:
    for facts, entry in zip(told().facts, told().kit.sent, strict=True):
        json.dumps([msgspec.to_builtins(fact) for fact in facts])
        assert len(encode_record(told().kit.now, entry)) <= 65_535
