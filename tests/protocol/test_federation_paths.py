# SPDX-License-Identifier: AGPL-3.0-or-later
"""Transfers over paths: what each ledger checks, what it reserves, and what it hands on."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from federation_kit import (
    FederatedKit,
    decide_payload,
    forward_payload,
    opening_of,
    path_contract,
    path_hops,
    peer,
    policy,
    prepare_message,
    promise_payload,
    promises_of,
    resolve_payload,
    send_over,
    send_payload,
)
from ledger_kit import DAY_MS, statutes
from nacl.public import SealedBox
from nacl.signing import SigningKey

from ecot_protocol.domains.federation.deals import (
    MAX_HOPS,
    Contract,
    deal_id,
    decode_deal,
    encode_contract,
)
from ecot_protocol.domains.federation.messages import (
    AbortAsked,
    Accepted,
    Message,
    Prepare,
    Promised,
    Refused,
    Unheard,
    encode_message,
)
from ecot_protocol.domains.federation.openings import Opening, open_opening, seal_opening
from ecot_protocol.domains.federation.outputs import Append, Output, ReadRecord, Tell
from ecot_protocol.domains.federation.peering import EndPeering, GiveUp
from ecot_protocol.domains.federation.state import DOUBTFUL, partner_account, transit_account
from ecot_protocol.domains.federation.transfers import Forward
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.wire.entry import Entry, sign_body
from ecot_protocol.wire.keys import Signer
from ecot_protocol.wire.statement import sign_statement

AMOUNT = 10_000
FEE = 100
"""1 % of what the middle hands on."""


class Path:
    """Four partners: a payer in the north, a payee in the south, the middle between them, and the east that decides."""

    def __init__(self, **changes: Any) -> None:
        names = ("nord", "mid", "sud", "est")
        self.kits = [FederatedKit(name=name) for name in names]
        self.nord, self.mid, self.sud, self.est = self.kits
        self.ada, self.bob = self.nord.join("ada"), self.sud.join("bob")
        deciders = [policy(kit, self.kits) for kit in self.kits]
        for number, first in enumerate(self.kits):
            for second in self.kits[number + 1 :]:
                peer(first, second, deciders=deciders, **changes)

    @property
    def path(self) -> list[FederatedKit]:
        return [self.nord, self.mid, self.sud]

    def terms(self, **changes: Any) -> Contract:
        entry_id = changes.pop("entry", self.nord.new_id())
        return path_contract(self.path, self.ada, self.bob.member, AMOUNT, entry_id, **changes)

    def send(self, **changes: Any) -> Contract:
        return send_over(self.path, self.ada, self.bob.member, AMOUNT, **changes)

    def forward(self, terms: Contract) -> None:
        payload = forward_payload([self.nord], terms, self.bob.member)
        self.mid.must("federation.forward", payload, **self.mid.by_node())

    def promise(self, terms: Contract) -> None:
        payload = promise_payload(self.nord, terms, self.bob.member, self.mid)
        self.sud.must("federation.promise", payload, **self.sud.by_node())

    def balances(self, kit: FederatedKit) -> dict[str, int]:
        """Return what the middle owes each neighbour, and has earned."""
        accounts = kit.state.accounts
        return {
            "nord": accounts.balance(partner_account(self.nord.ledger, "BART")),
            "sud": accounts.balance(partner_account(self.sud.ledger, "BART")),
            "fees": accounts.balance(transit_account("BART")),
        }


@pytest.fixture
def path() -> Path:
    return Path()


def test_the_payer_pays_every_fee_and_the_middle_gains_its_own_alone(path: Path) -> None:
    terms = path.send(decider=path.est.ledger)
    assert terms.payer_amount_minor == AMOUNT + FEE
    path.forward(terms)
    path.promise(terms)
    raw = encode_contract(terms)
    commit = decide_payload(raw, "commit", acceptances=promises_of(path.path, terms))
    path.est.must("federation.decide", commit, **path.est.by_node())
    index = len(path.est.records) - 1
    for kit in path.path:
        kit.must("federation.resolve", resolve_payload(path.est, [index], path.kits), **kit.by_node())
        assert kit.replayed().digest() == kit.state.digest()
    assert path.balances(path.mid) == {"nord": -AMOUNT - FEE, "sud": AMOUNT, "fees": FEE}
    assert path.nord.state.accounts.balance(partner_account(path.mid.ledger, "BART")) == AMOUNT + FEE
    assert path.sud.state.accounts.balance(partner_account(path.mid.ledger, "BART")) == -AMOUNT


def test_an_abort_leaves_nothing_reserved_anywhere(path: Path) -> None:
    terms = path.send(decider=path.est.ledger)
    path.forward(terms)
    path.est.must("federation.decide", decide_payload(encode_contract(terms), "abort"), **path.est.by_node())
    index = len(path.est.records) - 1
    for kit in (path.nord, path.mid):
        kit.must("federation.resolve", resolve_payload(path.est, [index], path.kits), **kit.by_node())
        assert not len(kit.state.accounts.reservations)
        assert not len(kit.state.federation.pending)
    assert path.balances(path.mid) == {"nord": 0, "sud": 0, "fees": 0}


def test_only_all_promises_commit(path: Path) -> None:
    terms = path.send(decider=path.est.ledger)
    raw, good = encode_contract(terms), promises_of(path.path, terms)
    node = path.est.by_node()
    for wrong in ((), good[:2], (good[0], good[0], good[2]), (*good, good[0])):
        payload = decide_payload(raw, "commit", acceptances=wrong)
        assert path.est.refused("federation.decide", payload, **node) == "evidence_wrong"
    assert path.est.refused("federation.decide", decide_payload(raw, "commit"), **node) == "promise_missing"


def test_a_ledger_on_the_path_decides_only_with_its_own_promise(path: Path) -> None:
    terms = path.send(decider=path.mid.ledger)
    raw, good = encode_contract(terms), promises_of(path.path, terms)
    node, commit = path.mid.by_node(), decide_payload(raw, "commit", acceptances=good)
    assert path.mid.refused("federation.decide", commit, **node) == "promise_missing"
    path.forward(terms)
    bare = decide_payload(raw, "commit")
    assert path.mid.refused("federation.decide", bare, **node) == "acceptances_missing"
    path.mid.must("federation.decide", commit, **node)


def test_what_was_forwarded_and_resolved_is_not_forwarded_again(path: Path) -> None:
    terms = path.send(decider=path.est.ledger)
    path.forward(terms)
    path.est.must("federation.decide", decide_payload(encode_contract(terms), "abort"), **path.est.by_node())
    resolution = resolve_payload(path.est, [len(path.est.records) - 1], path.kits)
    path.mid.must("federation.resolve", resolution, **path.mid.by_node())
    again = forward_payload([path.nord], terms, path.bob.member)
    assert path.mid.refused("federation.forward", again, **path.mid.by_node()) == "promise_repeated"
    path.mid.now += DAY_MS
    assert path.mid.refused("federation.forward", again, **path.mid.by_node()) == "promise_repeated"
    other = path.send(decider=path.est.ledger, earliest_abort_ms=path.nord.now + 2 * DAY_MS)
    path.forward(other)
    assert path.mid.refused("federation.forward", again, **path.mid.by_node()) == "promise_too_late"
    assert deal_id(encode_contract(terms)) not in path.mid.state.federation.settled


def _changed(path: Path, number: int, **changes: Any) -> Contract:
    """Change one hop of a contract; the sum of a hop is another's business."""
    terms = path.terms()
    hops = [*terms.hops]
    hops[number] = msgspec.structs.replace(hops[number], **changes)
    return msgspec.structs.replace(terms, hops=tuple(hops))


def _stranger(path: Path) -> Contract:
    foreign = FederatedKit(name="fern")
    return path.terms(decision=policy(foreign, path.kits))


def _agents(path: Path, place: int) -> Contract:
    agents = [kit.agent.public_key for kit in path.path]
    agents[place] = Signer(bytes(32)).public_key
    return path.terms(agents=tuple(agents))


def _forwarded(path: Path, terms: Contract) -> Forward:
    payload = forward_payload([path.nord], terms, path.bob.member)
    if terms.agents[0] != path.nord.agent.public_key:
        promises = (sign_statement(Signer(bytes(32)), encode_contract(terms)).signature,)
        payload = msgspec.structs.replace(payload, promises=promises)
    return payload


FORWARD_ROWS: list[tuple[str, Callable[[Path], Contract]]] = [
    ("agent_key_mismatch", lambda path: _agents(path, 0)),
    ("own_side_wrong", lambda path: _agents(path, 1)),
    ("agent_key_mismatch", lambda path: _agents(path, 2)),
    ("peering_superseded", lambda path: _changed(path, 0, peering=bytes(32))),
    ("peering_superseded", lambda path: _changed(path, 1, peering=bytes(32))),
    ("rate_mismatch", lambda path: _changed(path, 0, out_minor=1)),
    ("rate_mismatch", lambda path: _changed(path, 1, in_minor=AMOUNT + 1)),
    ("transit_fee_too_small", lambda path: _changed(path, 0, in_minor=AMOUNT + FEE - 1, out_minor=AMOUNT + FEE - 1)),
    ("contract_unit_wrong", lambda path: path.terms(units=("BART", "EUR", "BART"))),
    ("decider_not_accepted", _stranger),
    ("promise_too_late", lambda path: path.terms(earliest_abort_ms=path.nord.now)),
    ("abort_time_out_of_range", lambda path: path.terms(earliest_abort_ms=path.nord.now + 63 * DAY_MS)),
    ("credit_limit_exceeded", lambda path: path_contract(
        path.path, path.ada, path.bob.member, 99_900, path.nord.new_id())),
]  # fmt: skip


@pytest.mark.parametrize(("code", "change"), FORWARD_ROWS)
def test_a_forwarding_is_refused(path: Path, code: str, change: Callable[[Path], Contract]) -> None:
    payload = _forwarded(path, change(path))
    assert path.mid.refused("federation.forward", payload, **path.mid.by_node()) == code


def test_a_false_promise_is_not_forwarded(path: Path) -> None:
    good = forward_payload([path.nord], path.terms(), path.bob.member)
    for promises in ((bytes(64),), good.promises * 2):
        wrong = msgspec.structs.replace(good, promises=promises)
        assert path.mid.refused("federation.forward", wrong, **path.mid.by_node()) == "evidence_wrong"
    assert path.sud.refused("federation.forward", good, **path.sud.by_node()) == "contract_mismatch"


def test_transit_must_be_shared_with_both_partners() -> None:
    path = Path(shared=("clearing", "market"))
    payload = forward_payload([path.nord], path.terms(), path.bob.member)
    assert path.mid.refused("federation.forward", payload, **path.mid.by_node()) == "transit_not_shared"


def test_a_decider_that_is_no_partner_is_refused() -> None:
    path = Path()
    far = FederatedKit(name="fern")
    far.join("zoe")
    deciders = [policy(kit, (*path.kits, far)) for kit in (*path.kits, far)]
    for first, second in ((path.nord, path.mid), (path.mid, path.sud)):
        peer(first, second, deciders=deciders, sequence=2)
    terms = path.terms(decider=far.ledger)
    payload = send_payload(path.nord, terms, path.bob.member)
    options = path.nord.by(path.ada) | {"entry_id": terms.entry}
    assert path.nord.refused("federation.send", payload, **options) == "decider_not_reachable"


def test_the_statutes_ask_for_witnesses_off_the_path() -> None:
    rules = statutes()
    strict = msgspec.structs.replace(rules.federation, witnesses_off_path_min=2)
    nord = FederatedKit(name="nord", statutes=msgspec.structs.replace(rules, federation=strict))
    sud, est = FederatedKit(name="sud"), FederatedKit(name="est")
    ada, bob = nord.join("ada"), sud.join("bob")
    peer(nord, sud, witnesses=(nord, sud, est))
    terms = path_contract((nord, sud), ada, bob.member, 100, nord.new_id())
    options = nord.by(ada) | {"entry_id": terms.entry}
    assert nord.refused("federation.send", send_payload(nord, terms, bob.member), **options) == "witnesses_too_few"


def _unsound(path_: Path, **changes: Any) -> bytes:
    return encode_contract(msgspec.structs.replace(path_.terms(), **changes))


@pytest.mark.parametrize(
    ("field", "make"),
    [
        ("path", lambda path: _unsound(path, path=(path.nord.ledger, path.mid.ledger, path.nord.ledger))),
        ("hops", lambda path: _unsound(path, hops=path.terms().hops[:1])),
        ("units", lambda path: _unsound(path, units=("BART", "BART"))),
        ("agents", lambda path: _unsound(path, agents=path.terms().agents[:2])),
        ("agents", lambda path: _unsound(path, agents=(path.terms().agents[0],) * 3)),
        ("decision", lambda path: _unsound(path, decision=policy(path.sud, (path.nord, path.sud)))),
        ("fees", lambda path: encode_contract(_changed(path, 0, in_minor=AMOUNT - 1))),
        ("earliest_abort_ms", lambda path: _unsound(path, earliest_abort_ms=2**48)),
    ],
)
def test_an_unsound_contract_is_refused(path: Path, field: str, make: Callable[[Path], bytes]) -> None:
    with pytest.raises(RemoteProtocolError) as found:
        decode_deal(make(path))
    assert found.value.code in ("deal_unsound", "ledgers_not_sorted")
    assert found.value.params.get("field", "path") == field


def test_a_path_has_at_most_five_hops(path: Path) -> None:
    terms = path.terms()
    ledgers = tuple(bytes([number]) * 32 for number in range(MAX_HOPS + 2))
    agents = tuple(Signer(ledger).public_key for ledger in ledgers)
    hops, units = (terms.hops[0],) * (MAX_HOPS + 1), ("BART",) * len(ledgers)
    long = msgspec.structs.replace(terms, path=ledgers, agents=agents, hops=hops, units=units)
    with pytest.raises(RemoteProtocolError, match="malformed"):
        decode_deal(encode_contract(long))
    short = msgspec.structs.replace(long, path=ledgers[1:], agents=agents[1:], hops=hops[1:], units=units[1:])
    assert len(decode_deal(encode_contract(short)).ledgers) == MAX_HOPS + 1


def test_the_opening_is_read_by_the_payees_ledger_alone() -> None:
    seed = bytes(range(32))
    opening = Opening(memo=b"pour le pain", memo_salt=bytes(32), payee=bytes(16), salt=bytes(32))
    sealed = seal_opening(opening, Signer(seed).public_key, b"\x01" * 32)
    assert open_opening(sealed, Signer(seed)) == opening
    # Another implementation of sealed boxes reads it too.
    assert SealedBox(SigningKey(seed).to_curve25519_private_key()).decrypt(sealed) == msgspec.msgpack.encode(opening)
    for wrong in (sealed[:-1], sealed[:20], bytes(len(sealed)), b""):
        with pytest.raises(RemoteProtocolError, match="box_wrong"):
            open_opening(wrong, Signer(seed))
    with pytest.raises(RemoteProtocolError, match="box_wrong"):
        open_opening(sealed, Signer(bytes(32)))


def test_a_ledger_between_can_give_up_what_a_lost_partner_owes_it(path: Path) -> None:
    terms = path.send(decider=path.est.ledger)
    path.forward(terms)
    tid = deal_id(encode_contract(terms))
    board = path.mid.by_board()
    path.mid.must("federation.end_peering", EndPeering(partner=path.sud.ledger), **board)
    assert path.mid.refused("federation.give_up", GiveUp(tid=tid), **board) == "give_up_too_early"
    path.mid.now += 30 * DAY_MS
    path.mid.must("federation.give_up", GiveUp(tid=tid), **board)
    rows = path.mid.state.accounts.rows
    assert rows[partner_account(path.sud.ledger, "BART")].reserved_in_minor == 0
    assert rows[partner_account(path.sud.ledger, "BART", DOUBTFUL)].reserved_in_minor == AMOUNT
    assert rows[partner_account(path.nord.ledger, "BART")].reserved_out_minor == AMOUNT + FEE


# ---------------------------------------------------------------------------------------------------------- the courier


class Station:
    """The courier of one ledger, to which its partners speak."""

    def __init__(self, kit: FederatedKit) -> None:
        self.kit = kit
        self.courier = kit.courier()
        self.courier.head(kit.head(), kit.now)

    def hear(self, sender: FederatedKit, message: Message) -> list[Output]:
        return self.courier.receive(sender.ledger, encode_message(message), self.kit.now)

    def record(self, append: Append) -> list[Output]:
        """Let the host record what the courier asks for."""
        result = self.kit.submit(Entry(append.body, (sign_body(self.kit.agent, append.body),), append.attachments))
        assert isinstance(result, list), result
        return [
            *self.courier.head(self.kit.head(), self.kit.now),
            *self.courier.recorded(append, self.kit.now),
        ]

    def read(self, outputs: list[Output]) -> list[Output]:
        found: list[Output] = []
        for output in outputs:
            if isinstance(output, ReadRecord):
                found += self.courier.read(output, self.kit.records[output.index], self.kit.now)
        return found


def told(outputs: list[Output], kit: FederatedKit) -> list[Message]:
    return [output.message for output in outputs if isinstance(output, Tell) and output.ledger == kit.ledger]


def appended(outputs: list[Output]) -> Append:
    (append,) = [output for output in outputs if isinstance(output, Append)]
    return append


def test_the_middle_hands_on_what_it_has_recorded_and_tells_the_one_before(path: Path) -> None:
    terms = path.send(decider=path.est.ledger)
    station = Station(path.mid)
    outputs = station.hear(path.nord, prepare_message([path.nord], terms, path.bob.member))
    assert told(outputs, path.sud) == told(outputs, path.nord) == []
    outputs = station.record(appended(outputs))
    assert told(outputs, path.nord) == [Promised(deal_id(encode_contract(terms)))]
    (prepare,) = told(station.read(outputs), path.sud)
    assert isinstance(prepare, Prepare)
    assert prepare.promises == promises_of([path.nord, path.mid], terms)
    assert prepare.opening == opening_of(terms, path.bob.member)


def test_the_payees_node_brings_all_promises_to_the_decider(path: Path) -> None:
    terms = path.send(decider=path.est.ledger)
    path.forward(terms)
    station = Station(path.sud)
    before = [path.nord, path.mid]
    outputs = station.hear(path.mid, prepare_message(before, terms, path.bob.member))
    outputs = station.read(station.record(appended(outputs)))
    assert told(outputs, path.est) == [Accepted(encode_contract(terms), promises_of(path.path, terms))]


def test_a_memo_comes_to_the_payee_as_an_attachment(path: Path) -> None:
    terms = path.send(decider=path.est.ledger)
    station = Station(path.sud)
    prepare = prepare_message([path.nord, path.mid], terms, path.bob.member)
    opening = opening_of(terms, path.bob.member, b"facture 12")
    append = appended(station.hear(path.mid, msgspec.structs.replace(prepare, opening=opening)))
    assert [one.content for one in append.attachments] == [b"facture 12"]
    station.record(append)


def test_what_the_payees_node_cannot_open_goes_back_as_refused(path: Path) -> None:
    terms = path.send(decider=path.est.ledger)
    prepare = msgspec.structs.replace(prepare_message([path.nord, path.mid], terms, path.bob.member), opening=b"x")
    outputs = Station(path.sud).hear(path.mid, prepare)
    assert told(outputs, path.mid) == [Refused(deal_id(encode_contract(terms)), "box_wrong", path.sud.ledger)]


def test_a_refusal_goes_back_and_the_payers_node_asks_for_the_abort_at_once(path: Path) -> None:
    terms = path.send(decider=path.est.ledger)
    path.forward(terms)
    refused = Refused(deal_id(encode_contract(terms)), "member_not_active", path.sud.ledger)
    middle, payer, decider = Station(path.mid), Station(path.nord), Station(path.est)
    assert told(middle.hear(path.est, refused), path.nord) == []
    assert told(middle.hear(path.sud, refused), path.nord) == [refused]
    outputs = payer.read(payer.hear(path.mid, refused))
    assert told(outputs, path.est) == [AbortAsked(encode_contract(terms))]
    assert payer.courier.refusal(refused.tid) == refused
    assert appended(decider.hear(path.nord, AbortAsked(encode_contract(terms)))).kind == "abort"


def test_nobody_but_the_payers_ledger_can_have_a_transfer_aborted_early(path: Path) -> None:
    terms = path.send(decider=path.est.ledger)
    decider = Station(path.est)
    asked = AbortAsked(encode_contract(terms))
    for other in (path.mid, path.sud):
        assert not [one for one in decider.hear(other, asked) if isinstance(one, Append)]
    path.est.now = terms.earliest_abort_ms
    assert appended(decider.hear(path.mid, asked)).kind == "abort"


def test_an_answer_of_the_decider_does_not_make_a_node_say_it_all_again_at_once(path: Path) -> None:
    terms = path.send(decider=path.est.ledger)
    tid = deal_id(encode_contract(terms))
    payer = Station(path.nord)
    payer.hear(path.mid, Promised(tid))
    assert payer.hear(path.est, Unheard(tid)) == []


def test_promises_that_do_not_hold_commit_nothing(path: Path) -> None:
    terms = path.send(decider=path.est.ledger)
    good = promises_of(path.path, terms)
    decider = Station(path.est)
    for wrong in (good[:2], (good[0], good[2], good[1]), (bytes(64),) * 3):
        outputs = decider.hear(path.sud, Accepted(encode_contract(terms), wrong))
        assert not [one for one in outputs if isinstance(one, Append)]
    assert appended(decider.hear(path.sud, Accepted(encode_contract(terms), good))).kind == "commit"


def test_the_hops_follow_from_what_the_payee_gets(path: Path) -> None:
    hops = path_hops(path.path, AMOUNT)
    assert [(hop.out_minor, hop.in_minor) for hop in hops] == [(AMOUNT + FEE,) * 2, (AMOUNT,) * 2]
