# SPDX-License-Identifier: AGPL-3.0-or-later
"""Rules about partners: the status of a peering, one board alone, caps over all partners."""

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from federation_kit import FederatedKit, contract, peer, peered, peering, send_payload
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_kit import statutes

import ecot_protocol.domains.federation as federation_folder
from ecot_protocol.domains.coop.acts import AmendStatutes
from ecot_protocol.domains.federation.limits import check_reserve, partner_totals
from ecot_protocol.domains.federation.peering import EndPeering, ResumePeering, SuspendPeering
from ecot_protocol.domains.federation.state import member_account, partner_account
from ecot_protocol.ledger.accounts import AccountKey, Leg


class Two:
    """Two peered cooperatives and a payer."""

    def __init__(self) -> None:
        self.nord, self.sud = FederatedKit(name="nord"), FederatedKit(name="sud")
        self.ada, self.bob = self.nord.join("ada"), self.sud.join("bob")
        peer(self.nord, self.sud)

    def board(self, tag: str, payload: Any) -> str | None:
        result = self.nord.send(tag, payload, **self.nord.by_board())
        return None if isinstance(result, list) else result.code

    def agree(self, **changes: Any) -> str | None:
        payload = peered(peering(self.nord, self.sud, **changes), (self.nord, self.sud))
        return self.board("federation.peer", payload)

    def try_to_send(self) -> str | None:
        entry_id = self.nord.new_id()
        terms = contract(self.nord, self.ada, self.sud, self.bob.member, 100, entry_id)
        payload = send_payload(self.nord, terms, self.bob.member)
        result = self.nord.send("federation.send", payload, entry_id=entry_id, **self.nord.by(self.ada))
        return None if isinstance(result, list) else result.code

    @property
    def status(self) -> str:
        return self.nord.state.federation.peers[self.sud.ledger].status


@pytest.fixture
def two() -> Two:
    return Two()


def test_our_board_alone_suspends_and_resumes(two: Two) -> None:
    partner = two.sud.ledger
    assert two.board("federation.resume_peering", ResumePeering(partner=partner)) == "peering_not_suspended"
    assert two.board("federation.suspend_peering", SuspendPeering(partner=partner)) is None
    assert (two.status, two.try_to_send()) == ("suspended", "peer_unknown")
    assert two.board("federation.suspend_peering", SuspendPeering(partner=partner)) == "peering_suspended"
    assert two.board("federation.resume_peering", ResumePeering(partner=partner)) is None
    assert (two.status, two.try_to_send()) == ("active", None)
    assert two.nord.replayed().digest() == two.nord.state.digest()


def test_a_suspended_partner_stays_a_witness(two: Two) -> None:
    two.board("federation.suspend_peering", SuspendPeering(partner=two.sud.ledger))
    assert two.nord.state.federation.linked_peer(two.sud.ledger) is not None
    two.board("federation.end_peering", EndPeering(partner=two.sud.ledger))
    assert two.nord.state.federation.linked_peer(two.sud.ledger) is None


def test_what_both_suspended_is_resumed_by_both(two: Two) -> None:
    assert two.agree(sequence=2, status="suspended") is None
    assert (two.status, two.try_to_send()) == ("suspended", "peer_unknown")
    assert two.board("federation.resume_peering", ResumePeering(partner=two.sud.ledger)) == "peering_not_suspended"
    assert two.agree(sequence=3) is None
    assert (two.status, two.try_to_send()) == ("active", None)


def test_a_new_statement_lifts_our_own_suspension(two: Two) -> None:
    two.board("federation.suspend_peering", SuspendPeering(partner=two.sud.ledger))
    assert two.agree(sequence=2) is None
    assert two.status == "active"


def test_an_end_that_both_signed_is_an_end(two: Two) -> None:
    assert two.agree(sequence=2, status="ended") is None
    assert two.nord.state.federation.peers[two.sud.ledger].ended_at_ms is not None
    for tag, payload in (
        ("federation.end_peering", EndPeering(partner=two.sud.ledger)),
        ("federation.suspend_peering", SuspendPeering(partner=two.sud.ledger)),
        ("federation.resume_peering", ResumePeering(partner=two.sud.ledger)),
    ):
        assert two.board(tag, payload) == "peer_unknown"
    assert two.agree(sequence=3) is None
    assert (two.status, two.try_to_send()) == ("active", None)


@pytest.mark.parametrize("status", ["active", "ended", "suspended"])
def test_an_old_statement_does_not_come_back(two: Two, status: str) -> None:
    assert two.agree(sequence=5) is None
    assert two.agree(sequence=4, status=status) == "peering_sequence_stale"
    assert two.agree(sequence=5, status=status) == "peering_sequence_stale"
    assert two.status == "active"


def test_a_statement_says_when_our_keys_were_set(two: Two) -> None:
    terms = peering(two.nord, two.sud, sequence=2)
    sides = tuple(msgspec.structs.replace(one, keys_index=7) for one in terms.sides)
    payload = peered(msgspec.structs.replace(terms, sides=sides), (two.nord, two.sud))
    result = two.nord.send("federation.peer", payload, **two.nord.by_board())
    assert not isinstance(result, list)
    assert dict(result.params)["field"] == "keys_index"


# --- caps ---------------------------------------------------------------------------------------------------------


def _cap(kit: FederatedKit, export_minor: int | None, import_minor: int | None) -> None:
    section = msgspec.structs.replace(
        statutes().federation, export_cap_minor=export_minor, import_cap_minor=import_minor
    )
    amend = AmendStatutes(
        in_force_from_ms=kit.now,
        statutes=statutes(federation=section),
        version=kit.state.coop.founded.statutes_version + 1,
    )
    kit.must("coop.amend_statutes", amend, **kit.by_board())


class Star:
    """A cooperative with three partners, and two members."""

    def __init__(self) -> None:
        self.hub = FederatedKit(name="hub")
        self.members = [self.hub.join(name).member for name in ("ada", "bob")]
        self.partners = [FederatedKit(name=name) for name in ("est", "nord", "sud")]
        for one in self.partners:
            terms = peering(self.hub, one, limit_minor=5_000)
            self.hub.must("federation.peer", peered(terms, (self.hub, one)), **self.hub.by_board())

    def account(self, place: int) -> AccountKey:
        """Of a partner (0 to 2) or a member (3, 4)."""
        if place < len(self.partners):
            return partner_account(self.partners[place].ledger, "BART")
        return member_account(self.members[place - len(self.partners)], "BART")

    def worst_minor(self) -> tuple[int, int]:
        """Return the largest export and import that any outcome of what is promised could bring, from the legs."""
        accounts, keys = self.hub.state.accounts, [self.account(place) for place in range(len(self.partners))]
        lowest = {key: accounts.balance(key) for key in keys}
        highest = dict(lowest)
        for reservation in accounts.reservations.values():
            for key in keys:
                net = sum((leg.payee == key) * leg.amount_minor for leg in reservation.legs)
                net -= sum((leg.payer == key) * leg.amount_minor for leg in reservation.legs)
                lowest[key] += min(net, 0)
                highest[key] += max(net, 0)
        return sum(max(-one, 0) for one in lowest.values()), sum(max(one, 0) for one in highest.values())


PLACES = st.integers(0, 4)
LEGS = st.lists(st.tuples(PLACES, PLACES, st.integers(1, 3_000)), min_size=1, max_size=3)
STEPS = st.lists(st.tuples(LEGS, st.sampled_from(["keep", "post", "void"])), min_size=1, max_size=25)
CAPS = st.one_of(st.none(), st.integers(0, 8_000))


@settings(max_examples=60, deadline=None)
@given(caps=st.tuples(CAPS, CAPS), steps=STEPS)
def test_no_sequence_of_promises_exceeds_a_cap(
    caps: tuple[int | None, int | None], steps: Sequence[tuple[Sequence[tuple[int, int, int]], str]]
) -> None:
    star = Star()
    _cap(star.hub, *caps)
    state, at = star.hub.state, star.hub.now
    refused = allowed = 0
    for number, (drawn, fate) in enumerate(steps):
        legs = tuple(Leg(star.account(a), star.account(b), amount, "transfer_out") for a, b, amount in drawn if a != b)
        if not legs:
            continue
        before = star.worst_minor()
        reason = check_reserve(state, legs, at)
        plain = state.accounts.check_reserve(legs)
        if reason is not None:
            refused += 1
            assert plain is not None or reason.code in ("export_cap_exceeded", "import_cap_exceeded")
            if plain is None:  # it would have been too much, and worse than before
                totals = partner_totals(state, "BART", legs)
                place = reason.code == "import_cap_exceeded"
                cap = caps[place]
                assert cap is not None
                assert totals[place] > max(cap, before[place])
            continue
        allowed += 1
        tid = number.to_bytes(16, "big")
        state.accounts.reserve(tid, legs)
        after = star.worst_minor()
        assert after == tuple(partner_totals(state, "BART"))
        for cap, old, new in zip(caps, before, after, strict=True):
            assert cap is None or new <= max(cap, old)
        if fate == "post":
            state.accounts.post(tid)
        elif fate == "void":
            state.accounts.void(tid)
        for old, new in zip(after, star.worst_minor(), strict=True):
            assert new <= old, "no resolution makes a total larger"
    assert refused + allowed <= len(steps)


def test_each_path_that_promises_against_partners_passes_the_one_choke_point() -> None:
    """Only `limits` asks the accounts whether legs may be reserved; whoever reserves has asked `limits`."""
    asking, reserving = set(), set()
    for path in Path(str(federation_folder.__path__[0])).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                if node.func.attr in ("check_reserve", "check_transfer", "check_split", "transfer", "split"):
                    asking.add(path.name)
                if node.func.attr == "reserve":
                    reserving.add(path.name)
    assert asking == {"limits.py"}
    for name in reserving - {"peering.py"}:  # give_up moves a promise that stands; partners' accounts keep theirs
        text = (Path(str(federation_folder.__path__[0])) / name).read_text(encoding="utf-8")
        assert "import RESERVE_REASONS, check_reserve" in text, name


def test_the_caps_bind_at_once_and_by_unit(two: Two) -> None:
    _cap(two.nord, None, 99)
    entry_id = two.nord.new_id()
    terms = contract(two.nord, two.ada, two.sud, two.bob.member, 100, entry_id)
    payload = send_payload(two.nord, terms, two.bob.member)
    assert (
        two.nord.refused("federation.send", payload, entry_id=entry_id, **two.nord.by(two.ada)) == "import_cap_exceeded"
    )
    _cap(two.nord, 0, 100)
    assert two.try_to_send() is None
    assert two.try_to_send() == "import_cap_exceeded"
    assert partner_totals(two.nord.state, "EUR") == (0, 0)
