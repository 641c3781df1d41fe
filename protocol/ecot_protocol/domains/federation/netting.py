# SPDX-License-Identifier: AGPL-3.0-or-later
"""A round of clearing before its deals: who is called, what each offers, what matches, what a flow clears of it.

    call -> each commits to what it offers -> each reveals -> match -> anybody solves -> the best verified flow wins
         -> one deal for each component (`deals.Round`), accepted and decided like any other

- An *offer* is a debt as ONE of its two ledgers sees it: between the ledgers themselves (their mirrors), or between
  two members (an obligation). It counts only if the other ledger offers the same; the lower amount counts. So what
  does not agree falls out by rule, not by judgement.
- Members go by pseudonyms that hold for one round: 16 bytes of HMAC(salt of the ledger's reveal, member).
- A ledger commits to the Merkle root of what it offers before it sees what others do; the salt is the first leaf.
- Everybody who has the call and the reveals finds the same edges, so the same hash of them, and from a flow the same
  deals, byte by byte: `split` is a function. Who solved, and how, does not matter.
- The best flow clears the most; of two that clear as much, the one whose hash is lower.

Source: Fleischman and Dini 2021; docs/specification/clearing-rounds.md.
"""

import hmac
from collections.abc import Mapping
from hashlib import sha256
from typing import Annotated, Final, NamedTuple

import msgspec

from ecot_protocol.domains.federation.clearing import Edge
from ecot_protocol.domains.federation.deals import (
    MAX_TIME_MS,
    MemberEdge,
    Pseudonym,
    Round,
    deal_id,
    encode_round,
)
from ecot_protocol.domains.federation.statements import DecisionPolicy, encode_terms, is_policy_sound
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.wire.encoding import (
    Codec,
    Count,
    Hash,
    Id,
    Integer,
    Positive,
    UnitCode,
    Wire,
    WireArray,
    encode,
)
from ecot_protocol.wire.keys import PublicKey, is_public_key
from ecot_protocol.wire.merkle_group import Frontier, GroupTree
from ecot_protocol.wire.merkle_hash import leaf_hashes
from ecot_protocol.wire.statement import decode_statement

MAX_MEMBER_OFFERS: Final = 2_048
"""Obligations that one ledger may reveal in one round: its largest."""
MAX_MATCHED: Final = 16_384
"""Debts of one round: the largest, if more match."""
MAX_ROUND_EDGES: Final = 120
"""Debts of one deal: its statement must fit."""
CALL_WINDOW_MS: Final = 86_400_000
"""Longest time from a call to the last of its deadlines."""


class Call(Wire):
    """Payload of the statement that opens a round between its ledgers.

    Attributes:
        agents: agent keys of the ledgers, in the order of the statement's ledgers.
        commit_by_ms, reveal_by_ms, propose_by_ms, earliest_abort_ms: deadlines, milliseconds since 1970, ascending.
        decision: who keeps the board of the round, and decides its deals.
        nonce: 16 bytes that tell two like calls apart.
        unit: of all amounts.
    """

    agents: Annotated[tuple[PublicKey, ...], msgspec.Meta(min_length=2, max_length=64)]
    commit_by_ms: Count
    decision: DecisionPolicy
    earliest_abort_ms: Count
    nonce: Id
    propose_by_ms: Count
    reveal_by_ms: Count
    unit: UnitCode


class Called(NamedTuple):
    """A call as read: its id (16 bytes), the ledgers ascending, what it says."""

    id: bytes
    ledgers: tuple[bytes, ...]
    terms: Call


class PartnerOffer(WireArray):
    """What one ledger of the call owes another, by their mirrors; places in the call's ledgers."""

    debtor: Count
    creditor: Count
    amount_minor: Positive


class MemberOffer(WireArray):
    """An obligation as one side sees it; `other` is the place of the other side's ledger."""

    obligation: Id
    is_debtor: bool
    other: Count
    pseudonym: Id
    amount_minor: Positive


class Reveal(WireArray):
    """What a ledger offers: between itself and partners, and of its members; ascending, each once."""

    salt: Hash
    partners: Annotated[tuple[PartnerOffer, ...], msgspec.Meta(max_length=126)]
    members: Annotated[tuple[MemberOffer, ...], msgspec.Meta(max_length=MAX_MEMBER_OFFERS)]


class Vertex(NamedTuple):
    """A party of the round: a ledger (pseudonym empty), or a member of one; `place` is its ledger's."""

    place: int
    pseudonym: bytes


class MatchedEdge(NamedTuple):
    """A debt that both ledgers offered; `obligation` is empty between the ledgers themselves."""

    debtor: Vertex
    creditor: Vertex
    obligation: bytes
    amount_minor: int


class Matched(NamedTuple):
    """What a round is about: debts in canonical order, and the hash of them under the call."""

    edges: tuple[MatchedEdge, ...]
    hash: bytes


class Solution(WireArray):
    """A flow on the matched debts: what is cleared of each, and one potential for each vertex, ascending, or none."""

    matched: Hash
    flows: Annotated[tuple[Count, ...], msgspec.Meta(max_length=MAX_MATCHED)]
    potentials: Annotated[tuple[Integer, ...], msgspec.Meta(max_length=2 * MAX_MATCHED)]


CALL: Final = Codec(Call)
REVEAL: Final = Codec(Reveal)
SOLUTION: Final = Codec(Solution)


def encode_call(call: Call, ledgers: tuple[bytes, ...]) -> bytes:
    """Return the statement of a call between `ledgers` (ascending)."""
    return encode_terms("clearing_call", call, ledgers)


def decode_call(raw: bytes) -> Called:
    """Read a call and check that it is sound in itself.

    Raises:
        RemoteProtocolError: ``call_unsound``, or a code of `decode_statement`.
    """
    statement = decode_statement(raw)
    if statement.type != "clearing_call":
        raise RemoteProtocolError("call_unsound", "type", field="type")
    call = CALL.decode(bytes(statement.payload))
    times = (call.commit_by_ms, call.reveal_by_ms, call.propose_by_ms, call.earliest_abort_ms)
    total = len(statement.ledgers)
    checks = (
        ("agents", len(call.agents) == len(set(call.agents)) == total and all(map(is_public_key, call.agents))),
        ("decision", is_policy_sound(call.decision)),
        ("times", list(times) == sorted(set(times)) and times[-1] <= MAX_TIME_MS),
        ("times", times[-1] - times[0] <= CALL_WINDOW_MS),
    )
    for field, is_sound in checks:
        if not is_sound:
            raise RemoteProtocolError("call_unsound", field, field=field)
    return Called(deal_id(raw), statement.ledgers, call)


def pseudonym_of(salt: bytes, member: bytes) -> bytes:
    """Return the member's name in a round."""
    return hmac.digest(salt, member, sha256)[:16]


def reveal_root(reveal: Reveal) -> bytes:
    """Return the Merkle root of the salt and the offers, to which a ledger commits; every member can be shown that its
    obligation was in it.
    """
    leaves = [encode(reveal.salt), *map(encode, reveal.partners), *map(encode, reveal.members)]
    return GroupTree(Frontier.empty(), leaf_hashes(leaves)).root


def decode_reveal(raw: bytes, place: int, total: int) -> Reveal:
    """Read what the ledger at `place` of `total` reveals, and check that it is sound in itself.

    Raises:
        RemoteProtocolError: ``reveal_unsound``, ``malformed``, ``not_canonical``.
    """
    reveal = REVEAL.decode(raw)
    pairs = [(one.debtor, one.creditor) for one in reveal.partners]
    names = [(one.obligation, one.is_debtor) for one in reveal.members]
    is_sound = (
        pairs == sorted(set(pairs))
        and names == sorted(set(names))
        and all(debtor != creditor and place in {debtor, creditor} for debtor, creditor in pairs)
        and all(max(pair) < total for pair in pairs)
        and all(one.other < total for one in reveal.members)
    )
    if not is_sound:
        raise RemoteProtocolError("reveal_unsound", f"ledger {place}")
    return reveal


def match(call: Called, reveals: Mapping[int, Reveal]) -> Matched:
    """Find the debts that both their ledgers offer.

    Args:
        call: the call.
        reveals: place -> what the ledger there revealed, sound, and as it had committed to.
    """
    edges = [*_match_partners(reveals), *_match_members(reveals)]
    if len(edges) > MAX_MATCHED:
        edges = sorted(edges, key=lambda edge: (-edge.amount_minor, edge))[:MAX_MATCHED]
    edges.sort()
    said = tuple((*edge.debtor, *edge.creditor, edge.obligation, edge.amount_minor) for edge in edges)
    return Matched(tuple(edges), sha256(b"ecot/netting/v1\n" + call.id + encode(said)).digest())


def _match_partners(reveals: Mapping[int, Reveal]) -> list[MatchedEdge]:
    said: dict[tuple[int, int], list[int]] = {}
    for reveal in reveals.values():
        for offer in reveal.partners:
            said.setdefault((offer.debtor, offer.creditor), []).append(offer.amount_minor)
    return [
        MatchedEdge(Vertex(debtor, b""), Vertex(creditor, b""), b"", min(amounts))
        for (debtor, creditor), amounts in said.items()
        if len(amounts) == 2
    ]


def _match_members(reveals: Mapping[int, Reveal]) -> list[MatchedEdge]:
    owed = {
        (one.obligation, place, one.other): one
        for place, reveal in reveals.items()
        for one in reveal.members
        if one.is_debtor
    }
    found: list[MatchedEdge] = []
    for place, reveal in reveals.items():
        for claim in reveal.members:
            debt = None if claim.is_debtor else owed.pop((claim.obligation, claim.other, place), None)
            if debt is None:
                continue
            debtor, creditor = Vertex(claim.other, debt.pseudonym), Vertex(place, claim.pseudonym)
            if debtor != creditor:
                found.append(
                    MatchedEdge(debtor, creditor, claim.obligation, min(debt.amount_minor, claim.amount_minor))
                )
    return found


def vertices_of(matched: Matched) -> tuple[Vertex, ...]:
    """Return the parties of the debts, ascending; potentials are in this order."""
    return tuple(sorted({vertex for edge in matched.edges for vertex in (edge.debtor, edge.creditor)}))


def find_solution_problem(matched: Matched, solution: Solution) -> str | None:
    """Return what is wrong with a flow, or None: ``matched``, ``flow``, ``conservation``, ``potentials``. Takes time in
    the number of debts.
    """
    if solution.matched != matched.hash or len(solution.flows) != len(matched.edges):
        return "matched"
    net: dict[Vertex, int] = {}
    for edge, flow_minor in zip(matched.edges, solution.flows, strict=True):
        if flow_minor > edge.amount_minor:
            return "flow"
        net[edge.debtor] = net.get(edge.debtor, 0) + flow_minor
        net[edge.creditor] = net.get(edge.creditor, 0) - flow_minor
    if any(net.values()):
        return "conservation"
    if solution.potentials and not is_most(matched, solution):
        return "potentials"
    return None


def is_most(matched: Matched, solution: Solution) -> bool:
    """Tell whether the potentials prove that no flow clears more (by complementary slackness: `clearing`)."""
    vertices = vertices_of(matched)
    if len(solution.potentials) != len(vertices):
        return False
    potential = dict(zip(vertices, solution.potentials, strict=True))
    for edge, flow_minor in zip(matched.edges, solution.flows, strict=True):
        slope = potential[edge.debtor] - potential[edge.creditor]
        if (flow_minor < edge.amount_minor and slope < 1) or (flow_minor > 0 and slope > 1):
            return False
    return True


def rank(solution: Solution) -> tuple[int, bytes]:
    """Return what a better solution has less of: the most cleared first, then the lowest hash of the flows."""
    return -sum(solution.flows), sha256(encode(solution.flows)).digest()


def split(call: Called, matched: Matched, solution: Solution) -> tuple[bytes, ...]:
    """Return the statements of the deals that carry a good flow out, one for each connected component of what is
    cleared; a component with too many debts for one statement is taken apart into cycles.

    A silent ledger spoils the deals that it is part of, and no other.
    """
    left = {number: flow for number, flow in enumerate(solution.flows) if flow}
    statements: list[bytes] = []
    for component in _components(matched, left):
        for part in _parts(matched, {number: left[number] for number in component}):
            statements.append(_deal(call, matched, part))
    return tuple(statements)


def _components(matched: Matched, flows: Mapping[int, int]) -> list[list[int]]:
    """Return the numbers of cleared debts, by component of the parties that they join."""
    root: dict[Vertex, Vertex] = {}

    def find(vertex: Vertex) -> Vertex:
        while root.setdefault(vertex, vertex) != vertex:
            root[vertex] = root[root[vertex]]
            vertex = root[vertex]
        return vertex

    for number in flows:
        first, second = sorted((find(matched.edges[number].debtor), find(matched.edges[number].creditor)))
        root[second] = first
    groups: dict[Vertex, list[int]] = {}
    for number in sorted(flows):
        groups.setdefault(find(matched.edges[number].debtor), []).append(number)
    return [groups[vertex] for vertex in sorted(groups)]


def _parts(matched: Matched, flows: dict[int, int]) -> list[dict[int, int]]:
    """Return flows that add up to these, each small enough for one deal."""
    ledgers = {vertex.place for number in flows for vertex in matched.edges[number][:2]}
    if len(flows) <= MAX_ROUND_EDGES and len(ledgers) <= MAX_LEDGERS_OF_DEAL:
        return [flows]
    parts: list[dict[int, int]] = []
    for cycle, amount_minor in _cycles(matched, dict(flows)):
        if len(cycle) > MAX_ROUND_EDGES:
            continue  # no statement can hold it; it stays owed, and the round says so
        if not parts or len(parts[-1].keys() | cycle) > MAX_ROUND_EDGES:
            parts.append({})
        for number in cycle:
            parts[-1][number] = parts[-1].get(number, 0) + amount_minor
    return parts


MAX_LEDGERS_OF_DEAL: Final = 64


def _cycles(matched: Matched, left: dict[int, int]) -> list[tuple[list[int], int]]:
    """Take a circulation apart into cycles of debts, lowest numbers first; at most one cycle a debt."""
    out: dict[Vertex, list[int]] = {}
    for number in sorted(left, reverse=True):
        out.setdefault(matched.edges[number].debtor, []).append(number)
    found: list[tuple[list[int], int]] = []
    for start in sorted(out):
        path: list[int] = []
        place: dict[Vertex, int] = {start: 0}
        at = start
        while True:
            while out[at] and not left[out[at][-1]]:
                out[at].pop()
            if not out[at]:
                break  # a circulation: only the start can run dry, with an empty path
            number = out[at][-1]
            path.append(number)
            at = matched.edges[number].creditor
            if at in place:
                cycle = path[place[at] :]
                amount_minor = min(left[one] for one in cycle)
                for one in cycle:
                    left[one] -= amount_minor
                found.append((cycle, amount_minor))
                for one in cycle:
                    place.pop(matched.edges[one].creditor, None)
                del path[len(path) - len(cycle) :]
                place[at] = len(path)
            else:
                place[at] = len(path)
    return found


def _deal(call: Called, matched: Matched, flows: Mapping[int, int]) -> bytes:
    edges = [(matched.edges[number], flow) for number, flow in sorted(flows.items())]
    places = sorted({vertex.place for edge, _ in edges for vertex in (edge.debtor, edge.creditor)})
    new_place = {place: number for number, place in enumerate(places)}
    members = sorted({v for edge, _ in edges for v in (edge.debtor, edge.creditor) if v.pseudonym})
    numbers = {vertex: number for number, vertex in enumerate(members)}
    terms = Round(
        agents=tuple(call.terms.agents[place] for place in places),
        call=call.id,
        decision=call.terms.decision,
        earliest_abort_ms=call.terms.earliest_abort_ms,
        edges=tuple(
            Edge(new_place[edge.debtor.place], new_place[edge.creditor.place], edge.amount_minor, flow)
            for edge, flow in edges
            if not edge.obligation
        ),
        matched=matched.hash,
        members=tuple(
            MemberEdge(numbers[edge.debtor], numbers[edge.creditor], edge.obligation, flow)
            for edge, flow in sorted(edges, key=lambda one: one[0].obligation)
            if edge.obligation
        ),
        nonce=call.terms.nonce,
        potentials=(),
        pseudonyms=tuple(Pseudonym(new_place[vertex.place], vertex.pseudonym) for vertex in members),
        unit=call.terms.unit,
    )
    return encode_round(terms, tuple(call.ledgers[place] for place in places))
