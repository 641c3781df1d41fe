# SPDX-License-Identifier: AGPL-3.0-or-later
"""Rules of the federation: peerings, transfers, decisions, resolutions."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from federation_kit import (
    FederatedKit,
    contract,
    decide_payload,
    peer,
    peered,
    peering,
    policy,
    promise_payload,
    promises_of,
    resolve_payload,
    send,
    send_payload,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_kit import DAY_MS, Actor

from ecot_protocol.domains.federation.deals import DECISION_OPEN_MS, Contract, deal_id, encode_contract
from ecot_protocol.domains.federation.peering import EndPeering, GiveUp
from ecot_protocol.domains.federation.state import DOUBTFUL, PARTNER, partner_account
from ecot_protocol.domains.federation.statements import Witness, decode_peering, encode_peering
from ecot_protocol.domains.federation.transfers import Promise
from ecot_protocol.domains.membership.acts import Exclude, GrantMandate
from ecot_protocol.domains.membership.state import Mandate
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.ledger.accounts import AccountKey
from ecot_protocol.ledger.amounts import Rate
from ecot_protocol.ledger.reasons import Reason
from ecot_protocol.wire.cosignature import Cosigner
from ecot_protocol.wire.keys import Signer
from ecot_protocol.wire.statement import sign_statement

AMOUNT = 1_000


class Pair:
    """Two peered cooperatives, a payer in the north, a payee in the south."""

    def __init__(self, third: FederatedKit | None = None, **changes: Any) -> None:
        self.nord, self.sud = FederatedKit(name="nord"), FederatedKit(name="sud")
        self.ada, self.bob = self.nord.join("ada"), self.sud.join("bob")
        if third is not None:
            changes["witnesses"] = (self.nord, self.sud, third)
        self.peering = peer(self.nord, self.sud, **changes)

    def send(self, amount_minor: int = AMOUNT) -> Contract:
        return send(self.nord, self.ada, self.sud, self.bob.member, amount_minor)

    def promise(self, terms: Contract) -> None:
        self.sud.must("federation.promise", promise_payload(self.nord, terms, self.bob.member), **self.sud.by_node())

    def decide(self, terms: Contract, outcome: str = "commit") -> int:
        payload = decide_payload(encode_contract(terms), outcome)
        self.sud.must("federation.decide", payload, **self.sud.by_node())
        return len(self.sud.records) - 1

    def resolve(self, kit: FederatedKit, index: int) -> None:
        payload = resolve_payload(self.sud, [index], (self.nord, self.sud))
        kit.must("federation.resolve", payload, **kit.by_node())

    def transfer(self, amount_minor: int = AMOUNT, outcome: str = "commit") -> Contract:
        terms = self.send(amount_minor)
        if outcome == "commit":
            self.promise(terms)
        index = self.decide(terms, outcome)
        self.resolve(self.nord, index)
        if outcome == "commit":
            self.resolve(self.sud, index)
        return terms

    def balances(self) -> tuple[int, int, int, int]:
        """Return payer, partner south in the north, partner north in the south, payee."""
        return (
            self.nord.state.accounts.balance(AccountKey(self.ada.member, "BART", "barter")),
            self.nord.state.accounts.balance(partner_account(self.sud.ledger, "BART")),
            self.sud.state.accounts.balance(partner_account(self.nord.ledger, "BART")),
            self.sud.state.accounts.balance(AccountKey(self.bob.member, "BART", "barter")),
        )

    def tick(self, milliseconds: int) -> None:
        self.nord.now += milliseconds
        self.sud.now += milliseconds


@pytest.fixture
def pair() -> Pair:
    return Pair()


def assert_sound(kit: FederatedKit) -> None:
    sums: dict[str, int] = {}
    for key, account in kit.state.accounts.rows.items():
        sums[key.unit] = sums.get(key.unit, 0) + account.balance_minor
    assert set(sums.values()) <= {0}
    assert kit.replayed().digest() == kit.state.digest()


def test_a_transfer_moves_the_amount_on_both_ledgers(pair: Pair) -> None:
    terms = pair.send()
    assert pair.balances() == (0, 0, 0, 0)
    pair.promise(terms)
    index = pair.decide(terms)
    assert pair.balances() == (0, 0, 0, 0)
    pair.resolve(pair.nord, index)
    pair.resolve(pair.sud, index)
    assert pair.balances() == (-AMOUNT, AMOUNT, -AMOUNT, AMOUNT)
    assert not len(pair.nord.state.federation.promises)
    for kit in (pair.nord, pair.sud):
        assert_sound(kit)


def test_an_aborted_transfer_moves_nothing(pair: Pair) -> None:
    terms = pair.send()
    pair.resolve(pair.nord, pair.decide(terms, "abort"))
    assert pair.balances() == (0, 0, 0, 0)
    assert not len(pair.nord.state.accounts.reservations)


def test_a_decided_abort_keeps_a_late_promise_out(pair: Pair) -> None:
    terms = pair.send()
    pair.decide(terms, "abort")
    payload = promise_payload(pair.nord, terms, pair.bob.member)
    assert pair.sud.refused("federation.promise", payload, **pair.sud.by_node()) == "deal_decided"


def test_the_first_decision_is_the_decision(pair: Pair) -> None:
    terms = pair.send()
    pair.promise(terms)
    pair.decide(terms)
    pair.tick(DAY_MS)
    for outcome in ("abort", "commit"):
        payload = decide_payload(encode_contract(terms), outcome)
        assert pair.sud.refused("federation.decide", payload, **pair.sud.by_node()) == "deal_decided"


def test_nothing_can_be_decided_again_when_the_memory_of_decisions_has_retired(pair: Pair) -> None:
    terms = pair.transfer()
    tid = deal_id(encode_contract(terms))
    pair.tick(DECISION_OPEN_MS + 200_000)
    later = pair.transfer()
    assert tid not in pair.sud.state.federation.decisions
    assert deal_id(encode_contract(later)) in pair.sud.state.federation.decisions
    raw, promises = encode_contract(terms), promises_of((pair.nord, pair.sud), terms)
    for payload in (
        decide_payload(raw, "abort"),
        decide_payload(raw, "commit", contract=raw, acceptances=promises),
    ):
        assert pair.sud.refused("federation.decide", payload, **pair.sud.by_node()) == "deal_closed"
    payload = promise_payload(pair.nord, terms, pair.bob.member)
    assert pair.sud.refused("federation.promise", payload, **pair.sud.by_node()) == "promise_too_late"


def test_a_decision_is_kept_as_long_as_its_promise_stands(pair: Pair) -> None:
    terms = pair.send()
    pair.promise(terms)
    pair.tick(DECISION_OPEN_MS + 200_000)
    index = pair.decide(terms)
    pair.tick(1_000)
    other = pair.send()
    pair.promise(other)
    pair.decide(other)
    payload = decide_payload(encode_contract(terms), "abort")
    assert pair.sud.refused("federation.decide", payload, **pair.sud.by_node()) == "deal_decided"
    pair.resolve(pair.nord, index)
    assert pair.balances()[0] == -AMOUNT


def test_rounding_goes_to_the_ledger_that_the_peering_names() -> None:
    for is_nord, expected in ((True, 66), (False, 67)):
        nord, sud = FederatedKit(name="nord"), FederatedKit(name="sud")
        rate = Rate(denominator=2, numerator=3) if nord.ledger < sud.ledger else Rate(denominator=3, numerator=2)
        terms = peering(nord, sud, rate=rate, rounding=(nord if is_nord else sud).ledger)
        assert terms.payer_amount(nord.ledger, 100) == expected


def test_a_partner_cannot_owe_beyond_its_limit(pair: Pair) -> None:
    first = pair.send(60_000)
    pair.promise(first)
    second_id = pair.nord.new_id()
    second = contract(pair.nord, pair.ada, pair.sud, pair.bob.member, 40_001, second_id)
    payload = send_payload(pair.nord, second, pair.bob.member)
    code = pair.nord.refused("federation.send", payload, entry_id=second_id, **pair.nord.by(pair.ada))
    assert code == "upper_limit_exceeded"


def test_the_creditor_guards_the_limit_in_its_own_unit() -> None:
    nord, sud = FederatedKit(name="nord"), FederatedKit(name="sud")
    ada, bob = nord.join("ada"), sud.join("bob")
    sides = tuple(sorted((nord.side(100_000), sud.side(500)), key=lambda side: side.ledger))
    peer(nord, sud, sides=sides)
    nord.must("federation.peer", peered(peering(nord, sud, sequence=2), (nord, sud)), **nord.by_board())
    terms = contract(nord, ada, sud, bob.member, 501, entry_id := nord.new_id())
    nord.must("federation.send", send_payload(nord, terms, bob.member), entry_id=entry_id, **nord.by(ada))
    sud.must("federation.peer", peered(peering(nord, sud, sequence=2), (nord, sud)), **sud.by_board())
    lower = peering(nord, sud, sequence=3, sides=sides)
    sud.must("federation.peer", peered(lower, (nord, sud)), **sud.by_board())
    payload = promise_payload(nord, terms, bob.member)
    assert sud.refused("federation.promise", payload, **sud.by_node()) == "peering_superseded"


# ------------------------------------------------------------------------------------------------ a row for each reason

Change = Callable[[Pair], Any]


def _own(pair: Pair, **changes: Any) -> Any:
    sides = tuple(
        msgspec.structs.replace(side, **changes) if side.ledger == pair.nord.ledger else side
        for side in pair.peering.sides
    )
    return peered(msgspec.structs.replace(pair.peering, sequence=2, sides=sides), (pair.nord, pair.sud))


def _unsigned(pair: Pair) -> Any:
    good = peered(peering(pair.nord, pair.sud, sequence=2), (pair.nord, pair.sud))
    first, second = good.signatures
    wrong = msgspec.structs.replace(first, signature=second.signature)
    return msgspec.structs.replace(good, signatures=(wrong, second))


def _stranger(pair: Pair) -> Any:
    est = FederatedKit(name="est")
    return peered(peering(est, pair.sud), (est, pair.sud))


def _look_alike(pair: Pair) -> Any:
    ouest = FederatedKit(name="ouest")
    false_id = pair.sud.ledger[:16] + bytes(16)
    side = msgspec.structs.replace(ouest.side(), ledger=false_id)
    sides = tuple(sorted((pair.nord.side(), side), key=lambda one: one.ledger))
    terms = peering(pair.nord, ouest, sides=sides, deciders=[policy(pair.nord, (pair.nord, ouest))])
    return peered(terms, (pair.nord, ouest))


def _other_unit(pair: Pair) -> Any:
    pair.transfer()
    return _own(pair, unit="EUR")


PEER_ROWS: list[tuple[str, Change]] = [
    ("evidence_wrong", _unsigned),
    ("own_side_wrong", _stranger),
    ("own_side_wrong", lambda pair: _own(pair, domain="other.example")),
    ("own_side_wrong", lambda pair: _own(pair, unit="XYZ")),
    (
        "peering_rules_unknown",
        lambda pair: peered(peering(pair.nord, pair.sud, sequence=2, rules=2), (pair.nord, pair.sud)),
    ),
    ("partner_id_taken", _look_alike),
    ("peering_sequence_stale", lambda pair: peered(pair.peering, (pair.nord, pair.sud))),
    ("partner_account_in_use", _other_unit),
]


@pytest.mark.parametrize(("code", "change"), PEER_ROWS)
def test_a_peering_is_refused(pair: Pair, code: str, change: Change) -> None:
    assert pair.nord.refused("federation.peer", change(pair), **pair.nord.by_board()) == code


@pytest.mark.parametrize(
    "changes",
    [
        {"rate": Rate(denominator=1, numerator=0)},
        {"rounding": bytes(32)},
        {"shared": ("market", "clearing")},
    ],
)
def test_a_peering_that_is_not_sound_is_malformed(pair: Pair, changes: dict[str, Any]) -> None:
    with pytest.raises(RemoteProtocolError, match="peering_unsound"):
        decode_peering(encode_peering(peering(pair.nord, pair.sud, **changes)))


def test_two_quorums_always_meet(pair: Pair) -> None:
    kits = [FederatedKit(name=name) for name in ("w1", "w2", "w3", "w4")]
    terms = peering(pair.nord, pair.sud, deciders=[policy(pair.nord, kits, count=2)])
    with pytest.raises(RemoteProtocolError, match="peering_unsound"):
        decode_peering(encode_peering(terms))


def _terms(pair: Pair, **changes: Any) -> Contract:
    return contract(
        pair.nord, pair.ada, pair.sud, pair.bob.member, AMOUNT, changes.pop("entry", pair.nord.new_id()), **changes
    )


def _ended(pair: Pair) -> tuple[Contract, dict[str, Any]]:
    terms = _terms(pair)
    pair.nord.must("federation.end_peering", EndPeering(partner=pair.sud.ledger), **pair.nord.by_board())
    return terms, {}


def _one_way(pair: Pair) -> tuple[Contract, dict[str, Any]]:
    terms = peering(pair.nord, pair.sud, sequence=2, deciders=[policy(pair.nord, (pair.nord, pair.sud))])
    pair.nord.must("federation.peer", peered(terms, (pair.nord, pair.sud)), **pair.nord.by_board())
    return _terms(pair, decision=policy(pair.sud, (pair.nord, pair.sud))), {}


_STRANGER = Signer(bytes(32)).public_key

SEND_ROWS: list[tuple[str, Callable[[Pair], tuple[Contract, dict[str, Any]]]]] = [
    ("evidence_wrong", lambda pair: (_terms(pair), {"contract": b"\x80"})),
    ("contract_mismatch", lambda pair: (_terms(pair), {"payer_salt": bytes(32)})),
    ("contract_mismatch", lambda pair: (_terms(pair, path=(bytes(32), pair.sud.ledger)), {})),
    ("peer_unknown", _ended),
    ("peering_superseded", lambda pair: (_terms(pair, hop={"peering": bytes(32)}), {})),
    ("decider_not_accepted", _one_way),
    ("contract_unit_wrong", lambda pair: (_terms(pair, units=("BART", "EUR")), {})),
    ("rate_mismatch", lambda pair: (_terms(pair, hop={"out_minor": AMOUNT - 1}), {})),
    ("statutes_version_mismatch", lambda pair: (_terms(pair), {"statutes_version": 2})),
    ("total_mismatch", lambda pair: (_terms(pair), {"total_minor": AMOUNT + 1})),
    ("agent_key_mismatch", lambda pair: (_terms(pair, agents=(pair.nord.agent.public_key, _STRANGER)), {})),
    ("own_side_wrong", lambda pair: (_terms(pair, agents=(_STRANGER, pair.sud.agent.public_key)), {})),
    ("abort_time_out_of_range", lambda pair: (_terms(pair, earliest_abort_ms=pair.nord.now + 59_999), {})),
    ("abort_time_out_of_range", lambda pair: (_terms(pair, earliest_abort_ms=pair.nord.now + 32 * DAY_MS), {})),
    (
        "credit_limit_exceeded",
        lambda pair: (_terms(pair, hop={"in_minor": 500_001, "out_minor": 500_001}), {}),
    ),
]


@pytest.mark.parametrize(("code", "change"), SEND_ROWS)
def test_a_sending_is_refused(pair: Pair, code: str, change: Callable[[Pair], tuple[Contract, dict[str, Any]]]) -> None:
    terms, changes = change(pair)
    payload = send_payload(pair.nord, terms, pair.bob.member, **changes)
    options = pair.nord.by(pair.ada) | {"entry_id": terms.entry}
    assert pair.nord.refused("federation.send", payload, **options) == code


def test_a_contract_belongs_to_one_entry(pair: Pair) -> None:
    terms = pair.send()
    payload = send_payload(pair.nord, terms, pair.bob.member)
    assert pair.nord.refused("federation.send", payload, **pair.nord.by(pair.ada)) == "contract_mismatch"


def test_only_the_members_person_can_send(pair: Pair) -> None:
    terms = _terms(pair)
    payload = send_payload(pair.nord, terms, pair.bob.member)
    eve = pair.nord.join("eve")
    options = {"author": pair.ada.member, "signers": (eve.signer,), "entry_id": terms.entry}
    assert pair.nord.refused("federation.send", payload, **options) == "signature_missing"


def test_a_mandate_limits_what_a_person_sends(pair: Pair) -> None:
    for limits, code in (
        ({"trade_limit_minor": AMOUNT - 1, "day_limit_minor": None}, "trade_limit_exceeded"),
        ({"trade_limit_minor": None, "day_limit_minor": AMOUNT - 1}, "day_limit_exceeded"),
    ):
        clerk = pair.nord.join(f"clerk{len(pair.nord.records)}")
        mandate = Mandate(from_ms=0, person=clerk.person, scopes=("trade",), until_ms=None, **limits)
        grant = GrantMandate(mandate=mandate, new_person=None)
        pair.nord.must("membership.grant_mandate", grant, **pair.nord.by(pair.ada))
        terms = _terms(pair)
        payload = send_payload(pair.nord, terms, pair.bob.member)
        options = {"author": pair.ada.member, "signers": (clerk.signer,), "entry_id": terms.entry}
        assert pair.nord.refused("federation.send", payload, **options) == code


def test_a_member_who_was_excluded_cannot_send(pair: Pair) -> None:
    terms = _terms(pair)
    pair.nord.must("membership.exclude", Exclude(member=pair.ada.member, reason=None), **pair.nord.by_board())
    payload = send_payload(pair.nord, terms, pair.bob.member)
    options = pair.nord.by(pair.ada) | {"entry_id": terms.entry}
    assert pair.nord.refused("federation.send", payload, **options) == "member_not_active"


def _promise(pair: Pair, **changes: Any) -> Promise:
    return msgspec.structs.replace(promise_payload(pair.nord, pair.send(), pair.bob.member), **changes)


def _false_agent(pair: Pair) -> Promise:
    """The payer's node promises with a key that the peering does not name."""
    terms = _terms(pair, agents=(_STRANGER, pair.sud.agent.public_key))
    raw = encode_contract(terms)
    promises = (sign_statement(Signer(bytes(32)), raw).signature,)
    return msgspec.structs.replace(promise_payload(pair.nord, terms, pair.bob.member), promises=promises)


def _repeated(pair: Pair) -> Promise:
    terms = pair.send()
    pair.promise(terms)
    return promise_payload(pair.nord, terms, pair.bob.member)


def _late(pair: Pair) -> Promise:
    good = _promise(pair)
    pair.tick(120_000)
    return good


def _gone(pair: Pair) -> Promise:
    stranger = bytes(16)
    terms = contract(pair.nord, pair.ada, pair.sud, stranger, AMOUNT, pair.nord.new_id())
    return promise_payload(pair.nord, terms, stranger)


def _far(pair: Pair) -> Promise:
    terms = _terms(pair, earliest_abort_ms=pair.nord.now + 30 * DAY_MS)
    payload = send_payload(pair.nord, terms, pair.bob.member)
    pair.nord.must("federation.send", payload, entry_id=terms.entry, **pair.nord.by(pair.ada))
    pair.sud.now -= 33 * DAY_MS
    return promise_payload(pair.nord, terms, pair.bob.member)


def _superseded(pair: Pair) -> Promise:
    good = _promise(pair)
    newer = peered(peering(pair.nord, pair.sud, sequence=2), (pair.nord, pair.sud))
    pair.sud.must("federation.peer", newer, **pair.sud.by_board())
    return good


def _parted(pair: Pair) -> Promise:
    good = _promise(pair)
    pair.sud.must("federation.end_peering", EndPeering(partner=pair.nord.ledger), **pair.sud.by_board())
    return good


PROMISE_ROWS: list[tuple[str, Callable[[Pair], Promise]]] = [
    ("evidence_wrong", lambda pair: _promise(pair, promises=(bytes(64),))),
    ("evidence_wrong", lambda pair: _promise(pair, promises=_promise(pair).promises * 2)),
    ("evidence_wrong", lambda pair: _promise(pair, contract=encode_contract(_terms(pair)))),
    ("contract_mismatch", lambda pair: _promise(pair, payee=bytes(16))),
    ("promise_repeated", _repeated),
    ("agent_key_mismatch", _false_agent),
    ("peer_unknown", _parted),
    ("peering_superseded", _superseded),
    ("promise_too_late", _late),
    ("abort_time_out_of_range", _far),
    ("member_not_active", _gone),
]


@pytest.mark.parametrize(("code", "change"), PROMISE_ROWS)
def test_a_promise_is_refused(pair: Pair, code: str, change: Callable[[Pair], Promise]) -> None:
    payload = change(pair)
    assert pair.sud.refused("federation.promise", payload, **pair.sud.by_node()) == code


def test_only_the_node_promises_and_decides(pair: Pair) -> None:
    payload = _promise(pair)
    assert pair.sud.refused("federation.promise", payload, **pair.sud.by_board()) == "signature_missing"
    decision = decide_payload(payload.contract, "abort")
    assert pair.sud.refused("federation.decide", decision, **pair.sud.by_board()) == "signature_missing"


def test_a_decision_is_refused(pair: Pair) -> None:
    terms = pair.send()
    raw = encode_contract(terms)
    node = pair.sud.by_node()
    assert pair.sud.refused("federation.decide", decide_payload(raw, "commit"), **node) == "promise_missing"
    alone = decide_payload(raw, "commit", contract=raw)
    assert pair.sud.refused("federation.decide", alone, **node) == "evidence_wrong"
    promised = decide_payload(raw, "commit", contract=raw, acceptances=promises_of((pair.nord, pair.sud), terms))
    assert pair.sud.refused("federation.decide", promised, **node) == "promise_missing"
    unknown = decide_payload(raw, "abort", contract=None)
    assert pair.sud.refused("federation.decide", unknown, **node) == "promise_missing"
    false_tid = decide_payload(raw, "abort", tid=bytes(16))
    assert pair.sud.refused("federation.decide", false_tid, **node) == "evidence_wrong"
    assert (
        pair.nord.refused("federation.decide", decide_payload(raw, "abort"), **pair.nord.by_node())
        == "decider_mismatch"
    )
    stranger = encode_contract(msgspec.structs.replace(terms, path=(bytes(32), pair.sud.ledger)))
    assert pair.sud.refused("federation.decide", decide_payload(stranger, "abort"), **node) == "peer_unknown"
    far = encode_contract(msgspec.structs.replace(terms, earliest_abort_ms=pair.sud.now + 63 * DAY_MS))
    assert pair.sud.refused("federation.decide", decide_payload(far, "abort"), **node) == "abort_time_out_of_range"
    pair.promise(terms)
    assert pair.sud.refused("federation.decide", decide_payload(raw, "abort"), **node) == "abort_too_early"
    pair.tick(120_000)
    pair.decide(terms, "abort")


def test_a_promise_survives_its_earliest_abort(pair: Pair) -> None:
    terms = pair.send()
    pair.promise(terms)
    pair.tick(DAY_MS)
    index = pair.decide(terms, "commit")
    pair.resolve(pair.nord, index)
    assert pair.balances()[:2] == (-AMOUNT, AMOUNT)


def test_a_resolution_is_refused(pair: Pair) -> None:
    terms = pair.send()
    pair.promise(terms)
    index = pair.decide(terms)
    both, node = (pair.nord, pair.sud), pair.nord.by_node()
    for cosigners in ((), (pair.nord,), (pair.sud,)):
        payload = resolve_payload(pair.sud, [index], cosigners)
        assert pair.nord.refused("federation.resolve", payload, **node) == "quorum_missing"
    alone = resolve_payload(pair.sud, [index], both, checkpoint=pair.sud.decision_head((pair.sud,)))
    assert pair.nord.refused("federation.resolve", alone, **node) == "evidence_wrong"
    twice = resolve_payload(pair.sud, [index, index], both)
    assert pair.nord.refused("federation.resolve", twice, **node) == "evidence_wrong"
    proof = pair.sud.decided(index)
    for wrong in ({"number": 1}, {"outcome": "abort"}, {"tid": bytes(16)}, {"hashes": (bytes(32),)}):
        other = resolve_payload(pair.sud, [index], both, decisions=(msgspec.structs.replace(proof, **wrong),))
        assert pair.nord.refused("federation.resolve", other, **node) == "evidence_wrong"
    main = resolve_payload(pair.sud, [index], both, checkpoint=pair.sud.head(both))
    assert pair.nord.refused("federation.resolve", main, **node) == "evidence_wrong"
    pair.resolve(pair.nord, index)
    again = resolve_payload(pair.sud, [index], both)
    assert pair.nord.refused("federation.resolve", again, **node) == "promise_missing"


def test_a_foreign_log_cannot_decide(pair: Pair) -> None:
    terms = pair.send()
    pair.promise(terms)
    est = FederatedKit(name="est")
    bob = est.join("bob")
    assert isinstance(bob, Actor)
    est.join("zoe")
    raw = encode_contract(terms)
    # A record of a decision can be copied into any log of one's own; it still says whose ledger it was made in.
    index = pair.decide(terms)
    est.records.append(pair.sud.records[index])
    payload = resolve_payload(est, [len(est.records) - 1], (pair.nord, pair.sud))
    assert pair.nord.refused("federation.resolve", payload, **pair.nord.by_node()) == "quorum_missing"
    assert deal_id(raw) in pair.nord.state.federation.promises


class Rekeyed(FederatedKit):
    """A witness with another cosigner key than before."""

    @property
    def witness(self) -> Witness:
        self.cosigner = Cosigner(self.origin, b"new cosigner key of this witness")
        return msgspec.structs.replace(
            super().witness, public_key=Signer(b"new cosigner key of this witness").public_key
        )


def test_a_replaced_key_of_a_witness_counts_once_the_peering_names_it() -> None:
    third = FederatedKit(name="third")
    pair = Pair(third=third)
    terms = pair.send()
    pair.promise(terms)
    index = pair.decide(terms)
    third = Rekeyed(name="third")
    witnesses = (pair.nord, pair.sud, third)
    newer = peering(pair.nord, pair.sud, sequence=2, deciders=[policy(pair.sud, witnesses)])
    payload = resolve_payload(pair.sud, [index], (pair.nord, third))
    assert pair.nord.refused("federation.resolve", payload, **pair.nord.by_node()) == "quorum_missing"
    pair.nord.must("federation.peer", peered(newer, (pair.nord, pair.sud)), **pair.nord.by_board())
    pair.nord.must("federation.resolve", payload, **pair.nord.by_node())


def test_other_witnesses_than_those_agreed_with_a_deal_never_count(pair: Pair) -> None:
    terms = pair.send()
    pair.promise(terms)
    index = pair.decide(terms)
    third = FederatedKit(name="third")
    newer = peering(pair.nord, pair.sud, sequence=2, deciders=[policy(pair.sud, (pair.nord, third))])
    pair.nord.must("federation.peer", peered(newer, (pair.nord, pair.sud)), **pair.nord.by_board())
    payload = resolve_payload(pair.sud, [index], (pair.nord, third))
    assert pair.nord.refused("federation.resolve", payload, **pair.nord.by_node()) == "quorum_missing"
    agreed = resolve_payload(pair.sud, [index], (pair.nord, pair.sud))
    pair.nord.must("federation.resolve", agreed, **pair.nord.by_node())


def test_the_board_can_free_a_member_after_the_peering_and_the_delay(pair: Pair) -> None:
    terms = pair.send()
    pair.promise(terms)
    index = pair.decide(terms)
    give_up, board = GiveUp(tid=deal_id(encode_contract(terms))), pair.nord.by_board()
    assert pair.nord.refused("federation.give_up", GiveUp(tid=bytes(16)), **board) == "promise_missing"
    assert pair.nord.refused("federation.give_up", give_up, **board) == "give_up_too_early"
    pair.nord.must("federation.end_peering", EndPeering(partner=pair.sud.ledger), **board)
    assert pair.nord.refused("federation.end_peering", EndPeering(partner=pair.sud.ledger), **board) == "peer_unknown"
    pair.tick(30 * DAY_MS - 1)
    assert pair.nord.refused("federation.give_up", give_up, **board) == "give_up_too_early"
    pair.tick(1)
    pair.nord.must("federation.give_up", give_up, **board)
    assert pair.nord.state.accounts.rows[AccountKey(pair.ada.member, "BART", "barter")].reserved_out_minor == 0
    pair.resolve(pair.nord, index)
    doubtful = partner_account(pair.sud.ledger, "BART", DOUBTFUL)
    assert pair.nord.state.accounts.balance(doubtful) == -AMOUNT
    assert pair.nord.state.accounts.balance(partner_account(pair.sud.ledger, "BART", PARTNER)) == AMOUNT
    assert pair.balances()[0] == 0
    assert_sound(pair.nord)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 3_000), st.sampled_from(["commit", "abort"])), max_size=4),
    st.tuples(st.integers(1, 50), st.integers(1, 50)),
)
def test_mirrors_agree_and_units_sum_to_zero_at_any_rate(
    transfers: list[tuple[int, str]], fraction: tuple[int, int]
) -> None:
    pair = Pair(rate=Rate(denominator=fraction[0], numerator=fraction[1]), limit_minor=10_000_000)
    payer_total = payee_total = 0
    for amount_minor, outcome in transfers:
        if not 0 < pair.peering.payer_amount(pair.nord.ledger, amount_minor) <= 100_000:
            continue
        terms = pair.transfer(amount_minor, outcome)
        if outcome == "commit":
            payer_total += terms.payer_amount_minor
            payee_total += terms.payee_amount_minor
    assert pair.balances() == (-payer_total, payer_total, -payee_total, payee_total)
    for kit in (pair.nord, pair.sud):
        assert_sound(kit)


def test_a_refusal_is_a_reason_and_no_error(pair: Pair) -> None:
    result = pair.nord.send("federation.end_peering", EndPeering(partner=bytes(32)), **pair.nord.by_board())
    assert isinstance(result, Reason)
