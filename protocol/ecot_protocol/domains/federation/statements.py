# SPDX-License-Identifier: AGPL-3.0-or-later
"""What two cooperatives sign together: the peering, with the logs whose decisions both accept.

It is the payload of a `Statement` (`ecot_protocol.wire.statement`); its id says everything that was agreed. What is
agreed under peerings, transfers and rounds, is in `ecot_protocol.domains.federation.deals`.

- A decision policy names ONE log, with its key, the witnesses and how many of them must have cosigned the checkpoint
  that shows a decision. Any two quorums meet, so that two histories of a log cannot both have one.
- The two amounts of a hop follow from each other: ``payer = payee x rate``, rounded in favour of the ledger that the
  peering names as the owner of the rounding.
"""

from typing import Annotated, Final, Literal

import msgspec

from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.ledger.amounts import Rate, Rounding, share
from ecot_protocol.wire.encoding import Codec, Count, Hash, Positive, UnitCode, Wire, encode
from ecot_protocol.wire.keys import MlDsaKey, PublicKey, is_ml_dsa_key, is_public_key
from ecot_protocol.wire.note_key import KeyType, NoteVerifier
from ecot_protocol.wire.statement import STATEMENT, Statement, decode_statement

FEDERATION_RULES: Final = 1
"""The number of the rules of this page; a peering names it."""
DECISIONS_SUFFIX: Final = "/decisions"
"""What the origin of a ledger's decision log has more than its own."""
MAX_WITNESSES: Final = 16
MAX_DECIDERS: Final = 16

KeyName = Annotated[str, msgspec.Meta(pattern=r"^[!-*,-~]{1,300}$(?!\n)")]
"""The name of a key on signed notes: printable ASCII without space and plus."""
Shared = Literal["catalogue", "clearing", "directory", "guide", "market", "transit"]
PeeringStatus = Literal["active", "ended", "suspended"]


class LogKey(Wire):
    """The key that signs a log's checkpoints, and the log's name."""

    origin: KeyName
    public_key: PublicKey

    @property
    def verifier(self) -> NoteVerifier:
        """The key as notes use it."""
        return NoteVerifier(self.origin, KeyType.ED25519, self.public_key[1:])

    @property
    def decisions(self) -> NoteVerifier:
        """The same key for the ledger's decision log (`ecot_protocol.domains.federation.decision_log`)."""
        return NoteVerifier(self.origin + DECISIONS_SUFFIX, KeyType.ED25519, self.public_key[1:])


class Witness(Wire):
    """A node that cosigns: its ledger, the name and the key of its cosignatures."""

    ledger: Hash
    name: KeyName
    public_key: PublicKey

    @property
    def verifier(self) -> NoteVerifier:
        """The key as notes use it."""
        return NoteVerifier(self.name, KeyType.COSIGNATURE, self.public_key[1:])


class DecisionPolicy(Wire):
    """Who decides, and when its decision counts: `count` of `witnesses` have cosigned a checkpoint that shows it."""

    count: Positive
    ledger: Hash
    log: LogKey
    witnesses: Annotated[tuple[Witness, ...], msgspec.Meta(min_length=2, max_length=MAX_WITNESSES)]


class Side(Wire):
    """One cooperative of a peering.

    Attributes:
        agent, cosigner, host, log: the public keys of its node.
        cosigner_ml_dsa_44: a further key of its node as a witness, nil if it has none; no decision counts by it.
        domain, origin: as in its genesis.
        keys_index: of the record of its ledger that last set one of these keys; 0 for those of its genesis. A key
            that is replaced later is followed by the proof of a later record, and by no earlier one.
        ledger: its ledger id.
        limit_minor: the most that its ledger lets the other owe it, in `unit`.
        unit: the unit of its own that it trades in.
    """

    agent: PublicKey
    cosigner: PublicKey
    cosigner_ml_dsa_44: MlDsaKey | None
    domain: Annotated[str, msgspec.Meta(min_length=1, max_length=253)]
    host: PublicKey
    keys_index: Count
    ledger: Hash
    limit_minor: Count
    log: PublicKey
    origin: KeyName
    unit: UnitCode

    @property
    def cosigners(self) -> tuple[NoteVerifier, ...]:
        """The keys of its node as a witness, named like its log; the one that decisions count by is the first."""
        first = NoteVerifier(self.origin, KeyType.COSIGNATURE, self.cosigner[1:])
        if self.cosigner_ml_dsa_44 is None:
            return (first,)
        return first, NoteVerifier(self.origin, KeyType.COSIGNATURE_ML_DSA_44, self.cosigner_ml_dsa_44[1:])


class Peering(Wire):
    """Two cooperatives trade.

    Attributes:
        deciders: the logs whose decisions both accept, ascending by ledger, each once.
        rate: minor units of the second side's unit for one minor unit of the first side's.
        rounding: ledger in whose favour a conversion is rounded.
        rules: `FEDERATION_RULES`.
        sequence: from 1; a higher one replaces the peering.
        shared: what the two show each other, ascending. ``clearing`` is a power: the nodes may accept rounds of
            clearing for this peering, under its deciders, without asking their boards again. ``transit`` is another:
            they may forward transfers from and to this partner, for the fee of their statutes. ``directory``: they
            show each other their members.
        sides: ascending by ledger.
        status: ``active``; ``suspended``: nothing new until another statement; ``ended``.
    """

    deciders: Annotated[tuple[DecisionPolicy, ...], msgspec.Meta(min_length=1, max_length=MAX_DECIDERS)]
    rate: Rate
    rounding: Hash
    rules: Positive
    sequence: Positive
    shared: Annotated[tuple[Shared, ...], msgspec.Meta(max_length=6)]
    sides: tuple[Side, Side]
    status: PeeringStatus

    def side_of(self, ledger: bytes) -> Side:
        """Return the side of one of the two ledgers."""
        return self.sides[0] if self.sides[0].ledger == ledger else self.sides[1]

    def other_side(self, ledger: bytes) -> Side:
        """Return the side that is not this ledger's."""
        return self.sides[1] if self.sides[0].ledger == ledger else self.sides[0]

    def decider(self, ledger: bytes) -> DecisionPolicy | None:
        """Return the policy for decisions of this ledger's log, if both accept any."""
        return next((one for one in self.deciders if one.ledger == ledger), None)

    def payer_amount(self, payer_ledger: bytes, payee_amount_minor: int) -> int:
        """Return what the payer's ledger moves for an amount that the payee's moves, each in its own minor units."""
        rounding = Rounding.DOWN if self.rounding == payer_ledger else Rounding.UP
        return share(payee_amount_minor, self.rate_to(payer_ledger), rounding)

    def rate_to(self, ledger: bytes) -> Rate:
        """Return how many minor units of this ledger's unit stand for one of the other's."""
        if ledger == self.sides[1].ledger:
            return self.rate
        return Rate(denominator=self.rate.numerator, numerator=self.rate.denominator)


PEERING: Final = Codec(Peering)


def encode_peering(peering: Peering) -> bytes:
    """Return the statement of a peering, to be signed by both agents."""
    return encode_terms("peering", peering, tuple(side.ledger for side in peering.sides))


def encode_terms(kind: str, payload: Wire, ledgers: tuple[bytes, ...]) -> bytes:
    """Return the statement that binds `ledgers` (ascending) to a payload."""
    return STATEMENT.encode(Statement(ledgers=ledgers, payload=msgspec.Raw(encode(payload)), type=kind))


def decode_peering(raw: bytes) -> Peering:
    """Read a peering and check that it is sound in itself.

    Raises:
        RemoteProtocolError: ``peering_unsound``, or a code of `decode_statement`.
    """
    statement = decode_statement(raw)
    if statement.type != "peering":
        raise RemoteProtocolError("peering_unsound", "type", field="type")
    peering = PEERING.decode(bytes(statement.payload))
    problem = _find_peering_problem(statement, peering)
    if problem is not None:
        raise RemoteProtocolError("peering_unsound", problem, field=problem)
    return peering


def _find_peering_problem(statement: Statement, peering: Peering) -> str | None:
    if statement.ledgers != tuple(side.ledger for side in peering.sides):
        return "sides"
    return find_terms_problem(peering)


def find_terms_problem(peering: Peering) -> str | None:
    """Return the first field of a peering that contradicts the rest, or None."""
    first, second = peering.sides
    keys = [key for side in peering.sides for key in (side.agent, side.cosigner, side.host, side.log)]
    ledgers = [policy.ledger for policy in peering.deciders]
    checks = (
        ("keys", len(set(keys)) == len(keys) and all(map(is_public_key, keys))),
        ("keys", _are_ml_dsa_keys_sound(first.cosigner_ml_dsa_44, second.cosigner_ml_dsa_44)),
        ("origin", first.origin != second.origin),
        ("rate", peering.rate.numerator > 0),
        ("rounding", peering.rounding in (first.ledger, second.ledger)),
        ("shared", list(peering.shared) == sorted(set(peering.shared))),
        ("deciders", ledgers == sorted(set(ledgers))),
        ("deciders", all(map(is_policy_sound, peering.deciders))),
        ("deciders", all(_is_own_log(policy, side) for policy in peering.deciders for side in peering.sides)),
        ("witnesses", all(_are_own_witnesses(policy, side) for policy in peering.deciders for side in peering.sides)),
    )
    return next((field for field, is_sound in checks if not is_sound), None)


def _are_ml_dsa_keys_sound(first: bytes | None, second: bytes | None) -> bool:
    given = [one for one in (first, second) if one is not None]
    return len(set(given)) == len(given) and all(map(is_ml_dsa_key, given))


def _is_own_log(policy: DecisionPolicy, side: Side) -> bool:
    return policy.ledger != side.ledger or (policy.log.origin, policy.log.public_key) == (side.origin, side.log)


def _are_own_witnesses(policy: DecisionPolicy, side: Side) -> bool:
    named = [witness for witness in policy.witnesses if witness.ledger == side.ledger]
    return all((one.name, one.public_key) == (side.origin, side.cosigner) for one in named)


def is_policy_sound(policy: DecisionPolicy) -> bool:
    """Tell whether keys are usable and distinct, and any two quorums have a witness in common."""
    keys = {one.public_key for one in policy.witnesses} | {policy.log.public_key}
    names = {one.name for one in policy.witnesses}
    total = len(policy.witnesses)
    is_each_once = (
        len(keys) == total + 1 and len(names) == total and len({one.ledger for one in policy.witnesses}) == total
    )
    return is_each_once and all(map(is_public_key, keys)) and policy.count <= total < 2 * policy.count
