# SPDX-License-Identifier: AGPL-3.0-or-later
"""``coop.genesis``: the first record of a ledger. The ledger id is the SHA-256 of its body.

Its author is the board, which exists by it: every founder who holds the office ``board`` signs, with the key that the
payload brings. The n-th founder's person has the n-th further id of the entry, the cooperative has the entry's own.
"""

from hashlib import sha256
from typing import Annotated, Final

import msgspec

from ecot_protocol.domains.coop import facts
from ecot_protocol.domains.coop.state import (
    BANK,
    MAX_PERSONS_PER_OFFICE,
    OWN,
    CoopState,
    NodeKey,
    Office,
    Profile,
    StatutesVersion,
    Unit,
    own_account,
)
from ecot_protocol.domains.coop.statutes import Statutes, find_statutes_problem
from ecot_protocol.ledger.entry_type import BOARD, NOBODY, Act, EntryType, Need, SignerRule, Visibility
from ecot_protocol.ledger.facts import Fact
from ecot_protocol.ledger.reasons import Reason
from ecot_protocol.wire.encoding import Count, Handle, Hash, Positive, Wire, Word
from ecot_protocol.wire.ids import object_id
from ecot_protocol.wire.keys import MlDsaKey, PublicKey, is_ml_dsa_key, is_public_key, key_id

Domain = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)+$(?!\n)", max_length=253
    ),
]


class Founder(Wire):
    """A person of the first hour, with one key and the offices held."""

    handle: Handle
    offices: Annotated[tuple[Word, ...], msgspec.Meta(max_length=8)]
    public_key: PublicKey


class Threshold(Wire):
    """How many holders of an office must sign together."""

    count: Positive
    office: Word


class NodeKeys(Wire):
    """The node's first keys, each for one use; `cosigner_ml_dsa_44` is nil where the node's machine can't use one."""

    agent: PublicKey
    cosigner: PublicKey
    cosigner_ml_dsa_44: MlDsaKey | None
    host: PublicKey
    log: PublicKey


class Predecessor(Wire):
    """The last state of a ledger that this one continues."""

    digest: Hash
    ledger: Hash
    root: Hash
    size: Count


class Genesis(Wire):
    """Payload. `thresholds` names every office that a founder holds, ``board`` among them."""

    domain: Domain
    founders: Annotated[tuple[Founder, ...], msgspec.Meta(min_length=1, max_length=MAX_PERSONS_PER_OFFICE)]
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    node_keys: NodeKeys
    predecessors: Annotated[tuple[Predecessor, ...], msgspec.Meta(max_length=16)]
    rules: Positive
    statutes: Statutes
    thresholds: Annotated[tuple[Threshold, ...], msgspec.Meta(min_length=1, max_length=16)]
    units: Annotated[tuple[Unit, ...], msgspec.Meta(min_length=1, max_length=16)]


def log_origin(domain: str, ledger: bytes) -> str:
    """Return the name of a log, for ever: domain at genesis, ``/ecot/``, 16 hex digits of the ledger id.

    >>> log_origin("troc.example", bytes(32))
    'troc.example/ecot/0000000000000000'
    """
    return f"{domain}/ecot/{ledger[:8].hex()}"


def ledger_id(genesis_body: bytes) -> bytes:
    """Return the 32-byte id of the ledger that a genesis body founds."""
    return sha256(genesis_body).digest()


def _signers(_state: CoopState, act: Act[Genesis], _at: int) -> SignerRule:
    if act.author != BOARD:
        return NOBODY
    board = frozenset(founder.public_key for founder in act.payload.founders if "board" in founder.offices)
    return (Need(max(len(board), 1), board),)


def _check(_state: CoopState, act: Act[Genesis], _at: int) -> Reason | None:
    genesis = act.payload
    keys = [founder.public_key for founder in genesis.founders]
    named = genesis.node_keys
    node_keys = [named.agent, named.cosigner, named.host, named.log]
    if len({*keys, *node_keys}) != len(keys) + len(node_keys) or not all(map(is_public_key, keys + node_keys)):
        return Reason.of("key_not_usable")
    if named.cosigner_ml_dsa_44 is not None and not is_ml_dsa_key(named.cosigner_ml_dsa_44):
        return Reason.of("key_not_usable")
    if len({founder.handle for founder in genesis.founders}) != len(keys):
        return Reason.of("handle_taken")
    if len({unit.code for unit in genesis.units}) != len(genesis.units):
        return Reason.of("unit_repeated")
    if not _are_offices_sound(genesis):
        return Reason.of("office_threshold_impossible")
    problem = find_statutes_problem(genesis.statutes, (unit.code for unit in genesis.units))
    return Reason.of("statutes_unsound", field=problem) if problem else None


def _are_offices_sound(genesis: Genesis) -> bool:
    held = _holders(genesis)
    thresholds = {one.office: one.count for one in genesis.thresholds}
    return (
        "board" in held
        and set(held) == set(thresholds)
        and len(thresholds) == len(genesis.thresholds)
        and all(len(set(holders)) == len(holders) >= thresholds[office] for office, holders in held.items())
    )


def _holders(genesis: Genesis) -> dict[str, list[int]]:
    held: dict[str, list[int]] = {}
    for number, founder in enumerate(genesis.founders, start=1):
        for office in founder.offices:
            held.setdefault(office, []).append(number)
    return held


def _effect(state: CoopState, act: Act[Genesis], at: int) -> list[Fact]:
    genesis, coop = act.payload, state.coop
    ledger = act.body_hash
    origin = log_origin(genesis.domain, ledger)
    coop.profile[""] = Profile(
        domain=genesis.domain,
        ledger=ledger,
        name=genesis.name,
        origin=origin,
        rules=genesis.rules,
        statutes_version=1,
        units=genesis.units,
    )
    coop.statutes[1] = StatutesVersion(in_force_from_ms=at, statutes=genesis.statutes)
    result: list[Fact] = [facts.Founded(ledger=ledger, name=genesis.name, domain=genesis.domain, origin=origin)]
    result.append(facts.StatutesAdopted(version=1, in_force_from_ms=at, statutes=genesis.statutes, by=BOARD))
    result += _add_founders(state, act, at)
    for purpose, public_key in msgspec.structs.asdict(genesis.node_keys).items():
        if public_key is None:
            continue
        coop.node_keys[purpose] = NodeKey(public_key=public_key, since_index=act.index)
        result.append(facts.NodeKeyReplaced(purpose=purpose, public_key=public_key))
    for unit in genesis.units:
        for account_purpose in (OWN, BANK):
            result.append(
                state.accounts.open(own_account(unit.code, account_purpose), lower_minor=None, upper_minor=None)
            )
    return result


def _add_founders(state: CoopState, act: Act[Genesis], at: int) -> list[Fact]:
    result: list[Fact] = []
    for number, founder in enumerate(act.payload.founders, start=1):
        person = object_id(act.id, number)
        state.coop.add_person(person, founder.handle, at)
        state.coop.add_key(person, key_id(founder.public_key), founder.public_key, "daily")
        result.append(facts.PersonAdded(person=person, handle=founder.handle))
        result.append(facts.KeyAdded(person=person, key_id=key_id(founder.public_key), purpose="daily"))
    counts = {one.office: one.count for one in act.payload.thresholds}
    for office, numbers in _holders(act.payload).items():
        persons = tuple(sorted(object_id(act.id, number) for number in numbers))
        state.coop.offices[office] = Office(persons=persons, threshold=counts[office])
        result.append(facts.OfficeHeld(office=office, persons=persons, threshold=counts[office]))
    return result


GENESIS: Final[EntryType[CoopState, Genesis]] = EntryType(
    tag="coop.genesis",
    payload=Genesis,
    visibility=Visibility.PUBLIC,
    signers=_signers,
    check=_check,
    effect=_effect,
    reasons=("key_not_usable", "handle_taken", "unit_repeated", "office_threshold_impossible", "statutes_unsound"),
    introduces=lambda genesis: tuple(founder.public_key for founder in genesis.founders),
)
