# SPDX-License-Identifier: AGPL-3.0-or-later
"""What ledgers promise each other under their peerings: the contract of a transfer, the round of a clearing.

Each is the payload of a `Statement` (`ecot_protocol.wire.statement`); its id says everything that was agreed.

- A transfer or a round (both are *deals*) is known by its *tid*: 16 bytes of the id of its statement. So a
  tid stands for one text, and nobody can show two texts under it.
- A deal names the ONE log that decides it. It names the agent key of every ledger that it binds, in an order that is
  its own: a transfer's path from payer to payee, a round's ledgers ascending. An agent's signature over the statement
  is that ledger's *promise*: given only once its part is reserved in a durable record.
- A transfer goes over 1 to 5 hops, from a ledger to a partner of it, each in the units and at the rate of the peering
  of the two. What an intermediate ledger takes beyond what it hands on is its fee.
- Members are named by commitments HMAC(salt, ledger + member): whoever isn't at an end learns nothing.
"""

from typing import Annotated, Final, NamedTuple

import msgspec

from ecot_protocol.domains.federation.clearing import Edge, find_flow_problem
from ecot_protocol.domains.federation.statements import DecisionPolicy, encode_terms, is_policy_sound
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.wire.encoding import Codec, Count, Hash, Id, Integer, Positive, UnitCode, Wire, WireArray
from ecot_protocol.wire.entry import commitment
from ecot_protocol.wire.keys import PublicKey, is_public_key
from ecot_protocol.wire.statement import Statement, decode_statement, statement_id

MAX_DEAL_SIZE_BYTES: Final = 16_384
"""Longest statement of a deal."""
MAX_HOPS: Final = 5
MAX_PATH: Final = MAX_HOPS + 1
PATH_WITNESSES_MIN: Final = 3
"""Witnesses of a deal that binds more than two ledgers, at least."""
MAX_EDGES: Final = 512
ABORT_WINDOW_MS: Final = 31 * 86_400_000
"""Latest possible earliest abort, after the earliest possible one."""
MAX_TIME_MS: Final = 2**48 - 1
"""Latest time that an id can hold."""
DECISION_OPEN_MS: Final = 400 * 86_400_000
"""For so long after its earliest abort a deal can be decided; then the memory of decisions may retire."""

DealBytes = Annotated[bytes, msgspec.Meta(max_length=MAX_DEAL_SIZE_BYTES)]
SignatureBytes = Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]
_HOPS: Final = msgspec.Meta(min_length=1, max_length=MAX_HOPS)
_PATH: Final = msgspec.Meta(min_length=2, max_length=MAX_PATH)


class Hop(Wire):
    """From a ledger of the path to the next one.

    Attributes:
        in_minor: what the second takes from its partner, in its own unit.
        out_minor: what the first moves towards its partner, in its own unit.
        peering: id of the peering statement between the two.
    """

    in_minor: Positive
    out_minor: Positive
    peering: Hash


class Contract(Wire):
    """A transfer over a path of partners.

    Attributes:
        agents: agent keys of the path's ledgers, in its order.
        decision: who decides; a ledger on the path or another.
        earliest_abort_ms: from then on a promise is refused and anybody on the path may ask for an abort; milliseconds
            since 1970.
        entry: id of the payer's entry, which makes the contract unique.
        hops: from each ledger of the path to the next.
        path: ledger ids, the payer's first, the payee's last, each once.
        payee, payer: commitments of the two members (`commit_member`).
        reverses: tid of an earlier transfer that this one gives back, as the payer says; nil: none.
        units: of the path's ledgers, in its order.
    """

    agents: Annotated[tuple[PublicKey, ...], _PATH]
    decision: DecisionPolicy
    earliest_abort_ms: Count
    entry: Id
    hops: Annotated[tuple[Hop, ...], _HOPS]
    path: Annotated[tuple[Hash, ...], _PATH]
    payee: Hash
    payer: Hash
    reverses: Id | None
    units: Annotated[tuple[UnitCode, ...], _PATH]

    @property
    def payer_amount_minor(self) -> int:
        """What the payer pays, in the unit of its ledger."""
        return self.hops[0].out_minor

    @property
    def payee_amount_minor(self) -> int:
        """What the payee gets, in the unit of its ledger."""
        return self.hops[-1].in_minor

    @property
    def payer_ledger(self) -> bytes:
        """The first of the path."""
        return self.path[0]

    @property
    def payee_ledger(self) -> bytes:
        """The last of the path."""
        return self.path[-1]

    def fee_minor(self, position: int) -> int:
        """Return what an intermediate ledger keeps, in its own unit."""
        return self.hops[position - 1].in_minor - self.hops[position].out_minor


class Draft(Wire):
    """A contract before anybody is named in it: what a quote offers, for the payer's client to complete and sign.

    Attributes are those of the contract.
    """

    agents: Annotated[tuple[PublicKey, ...], _PATH]
    decision: DecisionPolicy
    hops: Annotated[tuple[Hop, ...], _HOPS]
    path: Annotated[tuple[Hash, ...], _PATH]
    units: Annotated[tuple[UnitCode, ...], _PATH]


class Pseudonym(WireArray):
    """A member of the participant at `place`, under a name that holds for one round (`netting.pseudonym_of`)."""

    place: Count
    name: Id


class MemberEdge(WireArray):
    """What is cleared of an obligation; debtor and creditor are places among the round's pseudonyms, from 0."""

    debtor: Count
    creditor: Count
    obligation: Id
    flow_minor: Positive


class Round(Wire):
    """A clearing of what ledgers, and members of theirs, owe each other in one unit: nobody's net position changes.

    Attributes:
        agents: agent keys of the participants, in the order of the statement's ledgers.
        call: id of the call that it follows from (`netting`); nil: of none.
        decision: who decides.
        earliest_abort_ms: as in a contract.
        edges: debts between participants (their places in the statement's ledgers) and what of each is cleared.
        matched: hash of all debts of the call; nil without one.
        members: parts of obligations between members, ascending by obligation, each once.
        nonce: 16 bytes that tell two like rounds apart.
        potentials: empty, or one integer a participant: the proof that no flow clears more (`clearing.is_optimal`).
        pseudonyms: of the members, ascending, each once.
        unit: of all amounts.
    """

    agents: Annotated[tuple[PublicKey, ...], msgspec.Meta(min_length=1, max_length=64)]
    call: Id | None
    decision: DecisionPolicy
    earliest_abort_ms: Count
    edges: Annotated[tuple[Edge, ...], msgspec.Meta(max_length=MAX_EDGES)]
    matched: Hash | None
    members: Annotated[tuple[MemberEdge, ...], msgspec.Meta(max_length=MAX_EDGES)]
    nonce: Id
    potentials: Annotated[tuple[Integer, ...], msgspec.Meta(max_length=64)]
    pseudonyms: Annotated[tuple[Pseudonym, ...], msgspec.Meta(max_length=2 * MAX_EDGES)]
    unit: UnitCode


CONTRACT: Final = Codec(Contract)
DRAFT: Final = Codec(Draft)
ROUND: Final = Codec(Round)


class Deal(NamedTuple):
    """What holds for contracts and rounds alike.

    Attributes:
        tid: 16 bytes.
        ledgers: bound by it, in the order of its agents: a path, or ascending.
        decider: ledger whose log decides.
        earliest_abort_ms: milliseconds since 1970.
        terms: the contract or round.
    """

    tid: bytes
    ledgers: tuple[bytes, ...]
    decider: bytes
    earliest_abort_ms: int
    terms: Contract | Round

    @property
    def closes_at_ms(self) -> int:
        """When it can no longer be decided (unless a promise stands)."""
        return self.earliest_abort_ms + DECISION_OPEN_MS


def deal_id(raw: bytes) -> bytes:
    """Return the 16-byte tid of an encoded deal: of the hash, with version 8 of UUIDs, so that no entry has this id."""
    raw_id = statement_id(raw)[:16]
    return raw_id[:6] + bytes((0x80 | raw_id[6] & 0x0F, raw_id[7], 0x80 | raw_id[8] & 0x3F)) + raw_id[9:]


def commit_member(salt: bytes, ledger: bytes, member: bytes) -> bytes:
    """Return the commitment that stands for a member in a contract; `salt` is 32 random bytes used once."""
    return commitment(salt, ledger + member)


def encode_contract(contract: Contract) -> bytes:
    """Return the statement of a contract."""
    return encode_terms("transfer", contract, tuple(sorted(contract.path)))


def encode_round(terms: Round, ledgers: tuple[bytes, ...]) -> bytes:
    """Return the statement of a round between `ledgers` (ascending)."""
    return encode_terms("clearing", terms, ledgers)


def decode_deal(raw: bytes) -> Deal:
    """Read a contract or a round and check that it is sound in itself.

    Raises:
        RemoteProtocolError: ``deal_unsound``, or a code of `decode_statement`.
    """
    if len(raw) > MAX_DEAL_SIZE_BYTES:
        raise RemoteProtocolError("too_large", f"a deal has at most {MAX_DEAL_SIZE_BYTES} bytes")
    statement = decode_statement(raw)
    if statement.type == "transfer":
        contract = CONTRACT.decode(bytes(statement.payload))
        _refuse_unsound(_find_contract_problem(statement, contract))
        return Deal(deal_id(raw), contract.path, contract.decision.ledger, contract.earliest_abort_ms, contract)
    if statement.type != "clearing":
        raise RemoteProtocolError("deal_unsound", "type", field="type")
    terms = ROUND.decode(bytes(statement.payload))
    _refuse_unsound(_find_round_problem(statement, terms))
    return Deal(deal_id(raw), statement.ledgers, terms.decision.ledger, terms.earliest_abort_ms, terms)


def is_transfer(raw: bytes) -> bool:
    """Tell whether bytes that may be anything are the statement of a transfer, sound or not."""
    try:
        return decode_statement(raw).type == "transfer"
    except RemoteProtocolError:
        return False


def transfer_of(raw: bytes) -> tuple[Deal, Contract]:
    """Read the statement of a transfer.

    Raises:
        RemoteProtocolError: ``deal_unsound`` (it is a round), or a code of `decode_deal`.
    """
    deal = decode_deal(raw)
    if not isinstance(deal.terms, Contract):
        raise RemoteProtocolError("deal_unsound", "expected a transfer", field="type")
    return deal, deal.terms


def _refuse_unsound(problem: str | None) -> None:
    if problem is not None:
        raise RemoteProtocolError("deal_unsound", problem, field=problem)


def _find_contract_problem(statement: Statement, contract: Contract) -> str | None:
    length, policy = len(contract.path), contract.decision
    checks = (
        ("path", statement.ledgers == tuple(sorted(set(contract.path))) and len(statement.ledgers) == length),
        ("hops", len(contract.hops) == length - 1),
        ("units", len(contract.units) == length),
        ("agents", _are_agents_sound(contract.agents, length)),
        ("decision", is_policy_sound(policy)),
        ("decision", length == 2 or len(policy.witnesses) >= PATH_WITNESSES_MIN),
        ("fees", all(contract.fee_minor(position) >= 0 for position in range(1, len(contract.hops)))),
        ("earliest_abort_ms", contract.earliest_abort_ms <= MAX_TIME_MS),
    )
    return next((field for field, is_sound in checks if not is_sound), None)


def _are_agents_sound(agents: tuple[bytes, ...], length: int) -> bool:
    return len(agents) == len(set(agents)) == length and all(map(is_public_key, agents))


def _find_round_problem(statement: Statement, terms: Round) -> str | None:
    total = len(statement.ledgers)
    if not _are_agents_sound(terms.agents, total):
        return "agents"
    if not is_policy_sound(terms.decision):
        return "decision"
    if terms.earliest_abort_ms > MAX_TIME_MS:
        return "earliest_abort_ms"
    if terms.potentials and len(terms.potentials) != total:
        return "potentials"
    if (terms.call is None) != (terms.matched is None) or (terms.call is None and terms.members):
        return "call"
    if terms.members and terms.potentials:  # what is proved to be the most is then the whole round, not a deal of it
        return "potentials"
    touched = {place for edge in terms.edges if edge.flow_minor for place in (edge.debtor, edge.creditor)}
    touched |= {one.place for one in terms.pseudonyms}
    if touched != set(range(total)):
        return "idle"
    return find_flow_problem(terms.edges, total) or _find_members_problem(terms, total)


def _find_members_problem(terms: Round, total: int) -> str | None:
    names = [(one.place, one.name) for one in terms.pseudonyms]
    obligations = [one.obligation for one in terms.members]
    if names != sorted(set(names)) or any(place >= total for place, _ in names):
        return "pseudonyms"
    if obligations != sorted(set(obligations)):
        return "members"
    net = [0] * len(names)
    used = set()
    for edge in terms.members:
        if edge.debtor == edge.creditor or max(edge.debtor, edge.creditor) >= len(names):
            return "members"
        net[edge.debtor] += edge.flow_minor
        net[edge.creditor] -= edge.flow_minor
        used |= {edge.debtor, edge.creditor}
    if any(net):
        return "conservation"
    return None if len(used) == len(names) else "idle"
