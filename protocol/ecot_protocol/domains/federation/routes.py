# SPDX-License-Identifier: AGPL-3.0-or-later
"""What ledgers let each other know so that a path can be found: rooms in bands, fees, deciders. Never balances.

A ledger that forwards transfers publishes the statement ``routes``, which binds itself alone: for each partner with
whom it shares ``transit`` the terms of their peering and the room left in each direction, as a power of 4 of the minor
unit.
It is signed by its agent and handed on from partner to partner.

Nobody can speak for another: a statement counts under the agent key that a peering of ours names, or one that another
ledger's routes, which count, name for it. What is false in it costs its author no more than a refused transfer: each
ledger of a path checks its own part anyway, and the payer signs the whole cost before anything is reserved.

`find_drafts` finds the cheapest paths of at most 5 hops, from the payee's amount backwards, with every fee.

>>> band_of(0), band_of(1), band_of(15), band_of(16), band_of(None) == MAX_BAND
(-1, 0, 1, 2, True)
>>> may_fit(15, 1), may_fit(16, 1)
(True, False)
"""

from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from typing import Annotated, Final, NamedTuple

import msgspec

from ecot_protocol.domains.federation.deals import MAX_HOPS, PATH_WITNESSES_MIN, Draft, Hop
from ecot_protocol.domains.federation.state import FederationState, partner_account
from ecot_protocol.domains.federation.statements import (
    MAX_DECIDERS,
    DecisionPolicy,
    KeyName,
    Peering,
    encode_terms,
)
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.ledger.amounts import Rate, Rounding, is_proper, share
from ecot_protocol.wire.encoding import MAX_INTEGER, Codec, Count, Hash, UnitCode, Wire, encode
from ecot_protocol.wire.keys import PublicKey, is_public_key
from ecot_protocol.wire.statement import decode_statement, is_statement_signed

ROUTES_TYPE: Final = "routes"
MAX_ROUTES_BYTES: Final = 49_152
MAX_LINKS: Final = 64
MAX_BAND: Final = 26
"""4**26 is more than any amount."""
MAX_DRAFTS: Final = 3
CANDIDATES: Final = 6
"""Ways kept to each ledger for each number of hops; more would only find dearer ones."""


class Link(Wire):
    """A partner to whom and from whom a ledger forwards.

    Attributes:
        agent: key of the partner's agent.
        deciders: SHA-256 of each encoded policy of the peering whose decider the ledger can ask, ascending.
        domain: of the partner.
        ledger: the partner.
        partner_unit, unit: of the two sides.
        peering: id of the statement.
        rate: minor units of the partner's unit for one of the ledger's.
        room_in_band, room_out_band: the ledger can take from the partner, and hand on to it, at least 4**band more, and
            less than 4**(band+1); -1: nothing.
        rounding: ledger in whose favour conversions are rounded.
        scale: decimals of the ledger's own unit.
    """

    agent: PublicKey
    deciders: Annotated[tuple[Hash, ...], msgspec.Meta(max_length=MAX_DECIDERS)]
    domain: Annotated[str, msgspec.Meta(min_length=1, max_length=253)]
    ledger: Hash
    partner_unit: UnitCode
    peering: Hash
    rate: Rate
    room_in_band: Annotated[int, msgspec.Meta(ge=-1, le=MAX_BAND)]
    room_out_band: Annotated[int, msgspec.Meta(ge=-1, le=MAX_BAND)]
    rounding: Hash
    scale: Annotated[int, msgspec.Meta(ge=0, le=6)]
    unit: UnitCode


class Routes(Wire):
    """Payload of the statement ``routes``.

    Attributes:
        at_ms: when it was made; a later one replaces it.
        ledger: who says it.
        links: partners, ascending by ledger.
        origin: of its log.
        transit_fee: of its statutes.
        witnesses_off_path_min: of its statutes.
    """

    at_ms: Count
    ledger: Hash
    links: Annotated[tuple[Link, ...], msgspec.Meta(max_length=MAX_LINKS)]
    origin: KeyName
    transit_fee: Rate
    witnesses_off_path_min: Annotated[int, msgspec.Meta(ge=0, le=16)]


ROUTES: Final = Codec(Routes)


def band_of(room_minor: int | None) -> int:
    """Return the largest power of 4 in a room; -1 for none, `MAX_BAND` without a limit."""
    if room_minor is None:
        return MAX_BAND
    return -1 if room_minor <= 0 else (room_minor.bit_length() - 1) // 2


def may_fit(amount_minor: int, band: int) -> bool:
    """Tell whether an amount can be within the room of a band; whether it is, only the ledger itself knows."""
    return band >= 0 and amount_minor < 4 ** (band + 1)


def policy_hash(policy: DecisionPolicy) -> bytes:
    """Return the hash by which routes name a policy."""
    return sha256(encode(policy)).digest()


def encode_routes(routes: Routes) -> bytes:
    """Return the statement, to be signed by the agent."""
    return encode_terms(ROUTES_TYPE, routes, (routes.ledger,))


def decode_routes(raw: bytes) -> Routes:
    """Read routes and check that they are sound in themselves.

    Raises:
        RemoteProtocolError: ``routes_unsound``, or a code of the form.
    """
    statement = decode_statement(raw)
    if statement.type != ROUTES_TYPE:
        raise RemoteProtocolError("routes_unsound", "type", field="type")
    routes = ROUTES.decode(bytes(statement.payload))
    ledgers = [link.ledger for link in routes.links]
    checks = (
        ("ledger", statement.ledgers == (routes.ledger,)),
        ("links", ledgers == sorted(set(ledgers)) and routes.ledger not in ledgers),
        ("agent", all(is_public_key(link.agent) for link in routes.links)),
        ("rate", all(link.rate.numerator > 0 for link in routes.links) and is_proper(routes.transit_fee)),
        ("rounding", all(link.rounding in (routes.ledger, link.ledger) for link in routes.links)),
        ("deciders", all(list(link.deciders) == sorted(set(link.deciders)) for link in routes.links)),
    )
    problem = next((field for field, is_sound in checks if not is_sound), None)
    if problem is not None:
        raise RemoteProtocolError("routes_unsound", problem, field=problem)
    return routes


def are_routes_signed(raw: bytes, agent: bytes, signature: bytes) -> bool:
    """Tell whether the signature is the agent's."""
    return is_statement_signed(agent, raw, signature)


# --- our own --------------------------------------------------------------------------------------------------------


def own_routes(state: FederationState, at_ms: int) -> Routes:
    """Return what our ledger publishes: the partners with whom it shares ``transit``, up to `MAX_LINKS`."""
    profile = state.coop.founded
    statutes = state.coop.statutes_at(at_ms)[1].federation
    links = [link for link in own_links(state) if _is_transit(state, link.ledger)]
    return Routes(
        at_ms=at_ms,
        ledger=profile.ledger,
        links=tuple(links[:MAX_LINKS]),
        origin=profile.origin,
        transit_fee=statutes.transit_fee,
        witnesses_off_path_min=statutes.witnesses_off_path_min,
    )


def _is_transit(state: FederationState, partner: bytes) -> bool:
    peer = state.federation.active_peer(partner)
    return peer is not None and "transit" in peer.peering.shared


def own_links(state: FederationState) -> list[Link]:
    """Return every partner with whom deals can be made, as routes show partners, ascending by ledger."""
    found = []
    for ledger in sorted(state.federation.peers):
        peer = state.federation.active_peer(ledger)
        if peer is not None:
            found.append(_link(state, ledger, peer.peering, peer.statement))
    return found


def _link(state: FederationState, ledger: bytes, peering: Peering, statement: bytes) -> Link:
    own = state.coop.founded.ledger
    side, other = peering.side_of(own), peering.side_of(ledger)
    account = state.accounts.rows[partner_account(ledger, side.unit)]
    lowest = account.balance_minor - account.reserved_out_minor
    highest = account.balance_minor + account.reserved_in_minor
    room_in = None if account.lower_minor is None else lowest - account.lower_minor
    room_out = None if account.upper_minor is None else account.upper_minor - highest
    unit = state.coop.unit(side.unit)
    asked = [one for one in peering.deciders if one.ledger == own or state.federation.linked_peer(one.ledger)]
    return Link(
        agent=other.agent,
        deciders=tuple(sorted(map(policy_hash, asked))),
        domain=other.domain,
        ledger=ledger,
        partner_unit=other.unit,
        peering=statement,
        rate=peering.rate_to(ledger),
        room_in_band=band_of(room_in),
        room_out_band=band_of(room_out),
        rounding=peering.rounding,
        scale=unit.scale if unit is not None else 0,
        unit=side.unit,
    )


def own_policies(state: FederationState) -> dict[bytes, DecisionPolicy]:
    """Return hash -> every policy that a peering of ours in force holds."""
    peers = [state.federation.active_peer(ledger) for ledger in state.federation.peers]
    return {policy_hash(one): one for peer in peers if peer is not None for one in peer.peering.deciders}


# --- finding a path -------------------------------------------------------------------------------------------------


class _Way(NamedTuple):
    """A way from a ledger to the payee's: what its first ledger must take in, or the payer pays, to bring the amount.

    Attributes:
        need_minor: in the unit of the first ledger's link.
        hops: each with the link it is over, nearest first.
        ledgers: of the way, the first one's first.
    """

    need_minor: int
    hops: tuple[tuple[Hop, Link], ...]
    ledgers: tuple[bytes, ...]


def find_drafts(
    state: FederationState, known: Mapping[bytes, Routes], payee_ledger: bytes, payee_amount_minor: int
) -> list[Draft]:
    """Return up to `MAX_DRAFTS` transfers to a ledger, the cheapest for the payer first, nobody named in them.

    Args:
        state: of our ledger, the payer's.
        known: ledger -> what it publishes.
        payee_ledger: id.
        payee_amount_minor: what is to arrive, in the payee's unit.
    """
    own, agent = state.coop.founded.ledger, state.coop.node_keys["agent"].public_key
    links = {link.ledger: link for link in own_links(state)}
    found: dict[tuple[bytes, ...], tuple[int, Draft]] = {}
    for name, policy in own_policies(state).items():
        for way in _ways(own, links, known, payee_ledger, payee_amount_minor, policy, name):
            draft = _draft(way, agent, policy)
            cost = draft.hops[0].out_minor
            if way.ledgers not in found or _rank(found[way.ledgers][1], cost) > _rank(draft, cost):
                found[way.ledgers] = (cost, draft)
    cheapest = sorted(found.values(), key=lambda one: (one[0], len(one[1].path), one[1].path))
    return [draft for _, draft in cheapest[:MAX_DRAFTS]]


def _rank(draft: Draft, cost: int) -> tuple[int, bool]:
    """Of one path the payee's ledger decides rather than another: its promise alone is enough to commit."""
    return cost, draft.decision.ledger != draft.path[-1]


def _draft(way: _Way, agent: bytes, policy: DecisionPolicy) -> Draft:
    links = [link for _, link in way.hops]
    return Draft(
        agents=(agent, *(link.agent for link in links)),
        decision=policy,
        hops=tuple(hop for hop, _ in way.hops),
        path=way.ledgers,
        units=(links[0].unit, *(link.partner_unit for link in links)),
    )


def _ways(
    own: bytes,
    links: Mapping[bytes, Link],
    known: Mapping[bytes, Routes],
    payee_ledger: bytes,
    amount_minor: int,
    policy: DecisionPolicy,
    name: bytes,
) -> Iterator[_Way]:
    """Yield the ways from us to the payee's ledger, found from there backwards, hop by hop, the best ones kept."""
    edges = _edges_to(own, links, known, name)
    layer = {payee_ledger: [_Way(amount_minor, (), (payee_ledger,))]}
    for _ in range(MAX_HOPS):
        grown: dict[bytes, list[_Way]] = {}
        for target, ways in layer.items():
            for source, link in edges.get(target, ()):
                for way in ways:
                    longer = _prepend(source, link, way, known.get(source) if source != own else None)
                    if longer is not None:
                        grown.setdefault(source, []).append(longer)
        for way in grown.pop(own, ()):
            if _is_taken(way, known, policy, name):
                yield way
        layer = {ledger: sorted(ways, key=lambda way: way.need_minor)[:CANDIDATES] for ledger, ways in grown.items()}


def _edges_to(
    own: bytes, links: Mapping[bytes, Link], known: Mapping[bytes, Routes], name: bytes
) -> dict[bytes, list[tuple[bytes, Link]]]:
    """Return target -> (source, link from the source) over peerings that hold the policy of this name."""
    edges: dict[bytes, list[tuple[bytes, Link]]] = {}
    for link in links.values():
        if name in link.deciders:
            edges.setdefault(link.ledger, []).append((own, link))
    for ledger, routes in known.items():
        for link in routes.links if ledger != own else ():
            if name in link.deciders and link.ledger != own:
                edges.setdefault(link.ledger, []).append((ledger, link))
    return edges


def _prepend(source: bytes, link: Link, way: _Way, routes: Routes | None) -> _Way | None:
    """Return the way with one more hop before it, or None if it doesn't fit; `routes` are None if the source is us."""
    if source in way.ledgers or not _continues(link, way):
        return None
    reverse = Rate(denominator=link.rate.numerator, numerator=link.rate.denominator)
    rounding = Rounding.DOWN if link.rounding == source else Rounding.UP
    out_minor = share(way.need_minor, reverse, rounding)
    if not 0 < out_minor <= MAX_INTEGER or not may_fit(out_minor, link.room_out_band):
        return None
    hop = Hop(in_minor=way.need_minor, out_minor=out_minor, peering=link.peering)
    fee_minor = 0 if routes is None else share(out_minor, routes.transit_fee, Rounding.UP)
    need_minor = out_minor + fee_minor
    if need_minor > MAX_INTEGER:
        return None
    return _Way(need_minor, ((hop, link), *way.hops), (source, *way.ledgers))


def _continues(link: Link, way: _Way) -> bool:
    """Tell whether the ledger that the link leads to hands on in the unit in which it takes."""
    return not way.hops or link.partner_unit == way.hops[0][1].unit


def _is_taken(way: _Way, known: Mapping[bytes, Routes], policy: DecisionPolicy, name: bytes) -> bool:
    """Tell whether the ledgers after us take this way: from the one before, under this policy. The last one may have
    published nothing; then it is asked.
    """
    if len(way.ledgers) > 2 and len(policy.witnesses) < PATH_WITNESSES_MIN:
        return False
    off_path = sum(witness.ledger not in way.ledgers for witness in policy.witnesses)
    for place in range(1, len(way.ledgers)):
        routes = known.get(way.ledgers[place])
        if routes is None:
            continue
        before = next((one for one in routes.links if one.ledger == way.ledgers[place - 1]), None)
        came = way.hops[place - 1][0].in_minor
        if before is None or name not in before.deciders or off_path < routes.witnesses_off_path_min:
            return place == len(way.hops) and before is None
        if not may_fit(came, before.room_in_band):
            return False
    return True


def ledger_named(state: FederationState, known: Iterable[Routes], name: str) -> bytes | None:
    """Return the ledger with this id (hex), domain or origin among our partners and those that routes name."""
    for ledger, peer in state.federation.peers.items():
        side = peer.peering.side_of(ledger)
        if name in (side.domain, side.origin, ledger.hex()):
            return ledger
    links = (link for routes in known for link in routes.links)
    return next((link.ledger for link in links if name in (link.domain, link.ledger.hex())), None)
