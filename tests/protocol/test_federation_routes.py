# SPDX-License-Identifier: AGPL-3.0-or-later
"""Routes: what ledgers publish, who is believed, and the paths that are found."""

from typing import Any

import msgspec
import pytest
from federation_kit import FederatedKit, path_hops, peer, policy, send_over, send_payload
from ledger_kit import statutes

from ecot_protocol.domains.federation.courier import Courier
from ecot_protocol.domains.federation.deals import Contract, Draft, commit_member, encode_contract
from ecot_protocol.domains.federation.messages import Message, RoutesShown, encode_message
from ecot_protocol.domains.federation.outputs import Output, Tell
from ecot_protocol.domains.federation.router import EXPIRE_MS, LOOK_MS, REFRESH_MS
from ecot_protocol.domains.federation.routes import (
    MAX_BAND,
    Routes,
    band_of,
    decode_routes,
    encode_routes,
    find_drafts,
    ledger_named,
    may_fit,
    own_routes,
    policy_hash,
)
from ecot_protocol.domains.federation.transfers import Forward
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.ledger.amounts import Rate
from ecot_protocol.wire.keys import Signer
from ecot_protocol.wire.statement import sign_statement

AMOUNT = 10_000


class Map:
    """Five ledgers: a diamond a - (b | c) - d, and e behind d; c keeps 3 %, the others 1 %. A judge is known to all."""

    def __init__(self, *, limit_minor: int = 100_000, shared: tuple[str, ...] = ("market", "transit")) -> None:
        rules = statutes()
        dear = msgspec.structs.replace(rules.federation, transit_fee=Rate(denominator=100, numerator=3))
        self.kits = {name: FederatedKit(name=name) for name in ("aa", "bb", "dd", "ee")}
        self.kits["cc"] = FederatedKit(name="cc", statutes=msgspec.structs.replace(rules, federation=dear))
        self.members = {name: kit.join("ada") for name, kit in self.kits.items()}
        every = list(self.kits.values())
        self.policies = [policy(kit, every) for kit in every]
        for first, second in (("aa", "bb"), ("aa", "cc"), ("bb", "dd"), ("cc", "dd"), ("dd", "ee")):
            changes: dict[str, Any] = {"deciders": self.policies, "limit_minor": limit_minor, "shared": shared}
            peer(self.kits[first], self.kits[second], **changes)
        # The decider can be asked by everybody, and trades with nobody.
        self.judge = FederatedKit(name="juge")
        self.judge.join("ada")
        self.policies.append(policy(self.judge, every))
        for kit in every:
            peer(kit, self.judge, deciders=[self.policies[-1]], limit_minor=0, shared=())
        for first, second in (("aa", "bb"), ("aa", "cc"), ("bb", "dd"), ("cc", "dd"), ("dd", "ee")):
            changes = {"deciders": self.policies, "limit_minor": limit_minor, "shared": shared, "sequence": 2}
            peer(self.kits[first], self.kits[second], **changes)

    def routes(self) -> dict[bytes, Routes]:
        """Return what all but the first publish."""
        kits = [kit for name, kit in self.kits.items() if name != "aa"]
        return {kit.ledger: own_routes(kit.state, kit.now) for kit in kits}

    def drafts(self, target: str, amount_minor: int = AMOUNT) -> list[Draft]:
        return find_drafts(self.kits["aa"].state, self.routes(), self.kits[target].ledger, amount_minor)

    def names(self, draft: Draft) -> str:
        by_ledger = {kit.ledger: name for name, kit in self.kits.items()}
        return " ".join(by_ledger[ledger] for ledger in draft.path)


@pytest.fixture(scope="module")
def plan() -> Map:
    return Map()


def test_bands_tell_a_power_of_four() -> None:
    assert [band_of(room) for room in (-5, 0, 1, 3, 4, 15, 16, None)] == [-1, -1, 0, 0, 1, 1, 2, MAX_BAND]
    for room in (1, 5, 63, 64, 10**9):
        assert may_fit(room, band_of(room))
        assert not may_fit(4 * room + 3, band_of(room))


def test_the_cheapest_path_comes_first_with_every_fee(plan: Map) -> None:
    found = plan.drafts("ee")
    assert [plan.names(draft) for draft in found] == ["aa bb dd ee", "aa cc dd ee"]
    # 1 % for dd of 10,000, then 1 % or 3 % of 10,100.
    assert [draft.hops[0].out_minor for draft in found] == [10_201, 10_403]
    kits = [plan.kits[name] for name in ("aa", "bb", "dd", "ee")]
    assert list(found[0].hops) == path_hops(kits, AMOUNT)
    assert found[0].decision.ledger == plan.judge.ledger


def test_a_found_path_is_taken_by_every_ledger_of_it(plan: Map) -> None:
    draft = plan.drafts("ee")[1]
    payer, ada = plan.kits["aa"], plan.members["aa"]
    entry_id, salt = payer.new_id(), bytes(32)
    terms = Contract(
        agents=draft.agents,
        decision=draft.decision,
        earliest_abort_ms=payer.now + 120_000,
        entry=entry_id,
        hops=draft.hops,
        path=draft.path,
        payee=commit_member(salt, draft.path[-1], plan.members["ee"].member),
        payer=commit_member(salt, draft.path[0], ada.member),
        reverses=None,
        units=draft.units,
    )
    payload = send_payload(payer, terms, plan.members["ee"].member, payer_salt=salt)
    payer.must("federation.send", payload, entry_id=entry_id, **payer.by(ada))
    before: list[FederatedKit] = [payer]
    for name in ("cc", "dd"):
        kit = plan.kits[name]
        raw = encode_contract(terms)
        promises = tuple(sign_statement(one.agent, raw).signature for one in before)
        kit.must(
            "federation.forward", Forward(contract=raw, opening=payload.opening, promises=promises), **kit.by_node()
        )
        before.append(kit)


def test_a_partner_is_paid_directly(plan: Map) -> None:
    found = plan.drafts("bb")
    assert plan.names(found[0]) == "aa bb"
    assert found[0].hops[0].out_minor == AMOUNT
    assert plan.names(found[1]) == "aa cc dd bb"


def test_nothing_is_found_beyond_the_rooms(plan: Map) -> None:
    assert plan.drafts("ee", 4**9) == []
    assert plan.drafts("ee", 60_000) != []


def test_a_room_that_was_used_is_published_smaller() -> None:
    plan = Map(limit_minor=20_000)
    assert [plan.names(draft) for draft in plan.drafts("ee", 4_000)] == ["aa bb dd ee", "aa cc dd ee"]
    bb, dd = plan.kits["bb"], plan.kits["dd"]
    send_over([bb, dd], plan.members["bb"], plan.members["dd"].member, 19_900)
    assert [plan.names(draft) for draft in plan.drafts("ee", 4_000)] == ["aa cc dd ee"]


def test_who_does_not_share_transit_is_no_path() -> None:
    plan = Map(shared=("market",))
    assert plan.drafts("ee") == []
    assert plan.names(plan.drafts("bb")[0]) == "aa bb"


def test_destinations_have_names(plan: Map) -> None:
    state, routes = plan.kits["aa"].state, plan.routes().values()
    assert ledger_named(state, routes, "ee.example") == plan.kits["ee"].ledger
    assert ledger_named(state, routes, plan.kits["ee"].ledger.hex()) == plan.kits["ee"].ledger
    assert ledger_named(state, routes, plan.kits["bb"].origin) == plan.kits["bb"].ledger
    assert ledger_named(state, routes, "nobody.example") is None


def _changed(plan: Map, **changes: Any) -> bytes:
    return encode_routes(msgspec.structs.replace(own_routes(plan.kits["dd"].state, 1), **changes))


def _link(plan: Map, **changes: Any) -> bytes:
    first, *rest = own_routes(plan.kits["dd"].state, 1).links
    return _changed(plan, links=(msgspec.structs.replace(first, **changes), *rest))


def test_unsound_routes_are_refused(plan: Map) -> None:
    links = own_routes(plan.kits["dd"].state, 1).links
    for raw in (
        _changed(plan, links=links[::-1]),
        _changed(plan, links=(*links, links[-1])),
        _changed(plan, transit_fee=Rate(denominator=1, numerator=2)),
        _link(plan, ledger=plan.kits["dd"].ledger),
        _link(plan, agent=b"\x07" * 33),
        _link(plan, rounding=bytes(32)),
        _link(plan, rate=Rate(denominator=1, numerator=0)),
        _link(plan, deciders=(policy_hash(plan.policies[0]),) * 2),
    ):
        with pytest.raises(RemoteProtocolError, match="routes_unsound"):
            decode_routes(raw)


# --- the courier --------------------------------------------------------------------------------------------------


class Station:
    """The courier of the first ledger; partners show it routes."""

    def __init__(self, plan: Map, name: str = "aa") -> None:
        self.plan, self.kit = plan, plan.kits[name]
        self.now = max(kit.now for kit in plan.kits.values())
        self.courier: Courier = self.kit.courier()
        self.said = self.courier.head(self.kit.head(), self.now)

    def message(self, name: str, at_ms: int | None = None, signer: Signer | None = None, hops: int = 0) -> RoutesShown:
        kit = self.plan.kits[name]
        raw = encode_routes(own_routes(kit.state, self.now if at_ms is None else at_ms))
        return RoutesShown(raw, sign_statement(signer or kit.agent, raw).signature, hops)

    def hear(self, sender: str, message: RoutesShown) -> list[Output]:
        return self.courier.receive(self.plan.kits[sender].ledger, encode_message(message), self.now)

    def knows(self, name: str) -> bool:
        return self.plan.kits[name].ledger in self.courier.routes


def routes_told(outputs: list[Output], kit: FederatedKit) -> list[Message]:
    found = [output for output in outputs if isinstance(output, Tell) and isinstance(output.message, RoutesShown)]
    return [output.message for output in found if output.ledger == kit.ledger]


def test_routes_are_published_to_partners_that_share_transit(plan: Map) -> None:
    station = Station(plan)
    for name in ("bb", "cc"):
        assert routes_told(station.said, plan.kits[name])
    assert not routes_told(station.said, plan.judge)
    quiet = [
        output
        for delay in (1_000, LOOK_MS)
        for output in station.courier.tick(station.now + delay)
        if isinstance(output, Tell) and isinstance(output.message, RoutesShown)
    ]
    assert quiet == []
    later = station.courier.tick(station.now + REFRESH_MS + LOOK_MS)
    assert routes_told(later, plan.kits["bb"])


def test_nobody_speaks_for_another(plan: Map) -> None:
    station = Station(plan)
    station.hear("bb", station.message("bb", signer=plan.kits["cc"].agent))
    assert not station.knows("bb")
    # Of a stranger it is known who speaks for it once somebody whom we know has named its key.
    station.hear("bb", station.message("dd"))
    assert not station.knows("dd")
    station.hear("bb", station.message("bb"))
    station.hear("bb", station.message("dd", signer=Signer(bytes(32))))
    assert not station.knows("dd")
    station.hear("bb", station.message("dd"))
    assert station.knows("dd")


def test_routes_are_handed_on_but_not_back_and_not_for_ever(plan: Map) -> None:
    station = Station(plan)
    outputs = station.hear("bb", station.message("bb"))
    (onward,) = routes_told(outputs, plan.kits["cc"])
    assert isinstance(onward, RoutesShown)
    assert onward.hop_count == 1
    # Who shows its routes for the first time is told what we know, ours first.
    assert len(routes_told(outputs, plan.kits["bb"])) == 1
    assert station.hear("bb", station.message("bb")) == []
    far = station.hear("bb", station.message("dd", hops=5))
    assert station.knows("dd")
    assert not routes_told(far, plan.kits["cc"])


def test_old_routes_and_those_of_the_future_are_not_taken(plan: Map) -> None:
    station = Station(plan)
    for at_ms in (station.now - EXPIRE_MS, station.now + 3_600_000):
        station.hear("bb", station.message("bb", at_ms))
        assert not station.knows("bb")
    station.hear("bb", station.message("bb"))
    station.hear("bb", station.message("bb", station.now - 60_000))
    assert station.courier.routes[plan.kits["bb"].ledger].at_ms == station.now
    station.courier.tick(station.now + EXPIRE_MS)
    assert not station.knows("bb")
