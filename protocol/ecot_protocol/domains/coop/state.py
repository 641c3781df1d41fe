# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the rules remember of the cooperative itself: its profile, statutes, persons, keys, offices, node keys, seals.

Persons and their keys stand here, on the lowest domain, because every entry is signed by persons; the acts that change
them are in `membership`. Retirement: a withdrawal goes with the person's next one, once the id it names is too old to
be recorded; nothing else retires, because any later signature may name an old key, and any open act an old version of
the statutes.
"""

from typing import Annotated, Final, Literal, Protocol

import msgspec

from ecot_protocol.domains.coop.statutes import Statutes
from ecot_protocol.ledger.accounts import AccountKey, Accounts
from ecot_protocol.ledger.entry_type import BOARD, COOPERATIVE, Need, SignerRule
from ecot_protocol.ledger.table import Table
from ecot_protocol.wire.encoding import Count, Handle, Hash, Id, KeyId, Positive, UnitCode, Wire, WireArray, Word
from ecot_protocol.wire.keys import (
    ML_DSA_44_KEY_SIZE_BYTES,
    PUBLIC_KEY_SIZE_BYTES,
    PublicKey,
    is_public_key,
    key_id,
)

CLAIMS: Final = "claims"
"""Purpose of an account that holds what the cooperative and a member owe each other in a unit."""
OWN: Final = "own"
"""Purpose of the cooperative's general account in a unit."""
BANK: Final = "bank"
"""Purpose of the account that mirrors what the treasurer attests: money that came in or went out."""
MAX_PERSONS_PER_OFFICE: Final = 64
MAX_WITHDRAWALS_PER_PERSON: Final = 64
"""Kept at one time, so that nobody fills the state with withdrawals of bodies that never were."""

NodeKeyPurpose = Literal["agent", "cosigner", "host", "log"]
ML_DSA_COSIGNER: Final = "cosigner_ml_dsa_44"
"""Purpose of the further cosigner key, which a node may lack and which no rule uses."""
NodePublicKey = Annotated[bytes, msgspec.Meta(min_length=PUBLIC_KEY_SIZE_BYTES, max_length=ML_DSA_44_KEY_SIZE_BYTES)]


class Unit(Wire):
    """A unit of account. `scale` is the number of decimals; `kind` tells what it counts."""

    code: UnitCode
    kind: Literal["barter", "currency", "hours"]
    scale: Annotated[int, msgspec.Meta(ge=0, le=6)]


class Profile(Wire):
    """Who the cooperative is. `origin` names its log for ever."""

    domain: str
    ledger: Hash
    name: str
    origin: str
    rules: Positive
    statutes_version: Positive
    units: tuple[Unit, ...]


class StatutesVersion(Wire):
    """One version of the statutes, numbered from 1, and from when it is in force."""

    in_force_from_ms: Count
    statutes: Statutes


class Person(Wire):
    """A human being who signs. `handle` is a pseudonym."""

    handle: Handle
    since_ms: Count


class Key(Wire):
    """A person's key. A recovery key can only manage keys and veto."""

    person: Id
    public_key: PublicKey
    purpose: Literal["daily", "recovery"]
    revoked_at_ms: Count | None


class Office(Wire):
    """Persons who act for the cooperative; `threshold` of them must sign."""

    persons: tuple[Id, ...]
    threshold: Positive


class NodeKey(Wire):
    """A key of the node, for one use."""

    public_key: NodePublicKey
    since_index: Count


class Withdrawal(WireArray):
    """The person's signature under the body with this SHA-256 no longer counts; from `over_ms` nothing can bear it."""

    body_hash: Hash
    over_ms: Count


class Seal(Wire):
    """The newest seal: the digest of the state of the first `size` records, recorded at `index`."""

    digest: Hash
    index: Count
    size: Count


class CoopSlice:
    """State of the domain."""

    __slots__ = (
        "handles",
        "keys",
        "node_keys",
        "offices",
        "person_keys",
        "persons",
        "profile",
        "seals",
        "statutes",
        "withdrawals",
    )

    def __init__(self) -> None:
        self.profile: Table[str, Profile] = Table("coop.profile", str, Profile)
        self.statutes: Table[int, StatutesVersion] = Table("coop.statutes", int, StatutesVersion)
        self.persons: Table[bytes, Person] = Table("coop.persons", bytes, Person)
        self.keys: Table[bytes, Key] = Table("coop.keys", bytes, Key)
        self.person_keys: Table[bytes, tuple[KeyId, ...]] = Table("coop.person_keys", bytes, tuple[KeyId, ...])
        self.handles: Table[str, Id] = Table("coop.handles", str, Id)
        self.offices: Table[str, Office] = Table("coop.offices", str, Office)
        self.node_keys: Table[str, NodeKey] = Table("coop.node_keys", str, NodeKey)
        self.withdrawals: Table[bytes, tuple[Withdrawal, ...]] = Table(
            "coop.withdrawals", bytes, tuple[Withdrawal, ...]
        )
        self.seals: Table[str, Seal] = Table("coop.seals", str, Seal)

    def tables(self) -> tuple[Table[object, object], ...]:
        """Return the tables that the state digest covers."""
        return (  # type: ignore[return-value]  # Table is invariant; the digest only reads
            self.profile,
            self.statutes,
            self.persons,
            self.keys,
            self.person_keys,
            self.handles,
            self.offices,
            self.node_keys,
            self.withdrawals,
            self.seals,
        )

    @property
    def founded(self) -> Profile:
        """The profile; there is one from the genesis on."""
        return self.profile[""]

    @property
    def node_keys_index(self) -> int:
        """The record that last set one of the node's keys."""
        return max((one.since_index for one in self.node_keys.values()), default=0)

    def statutes_at(self, at: int) -> tuple[int, Statutes]:
        """Return (version, statutes) in force at `at` (milliseconds since 1970)."""
        version = self.founded.statutes_version
        while version > 1 and self.statutes[version].in_force_from_ms > at:
            version -= 1
        return version, self.statutes[version].statutes

    def statutes_of(self, version: int) -> Statutes:
        """Return the statutes of a version that some act keeps."""
        return self.statutes[version].statutes

    def unit(self, code: str) -> Unit | None:
        """Return a declared unit."""
        return next((unit for unit in self.founded.units if unit.code == code), None)

    def office_rule(self, office: str) -> SignerRule:
        """Return the rule that the office must have signed; nobody can sign for an office that is not held."""
        held = self.offices.get(office)
        return (Need(held.threshold, frozenset(held.persons)),) if held else (Need(1, frozenset()),)

    def add_person(self, person: bytes, handle: str, at: int) -> None:
        """Enter a person; its handle is free."""
        self.persons[person] = Person(handle=handle, since_ms=at)
        self.person_keys[person] = ()
        self.handles[handle] = person

    def add_key(self, person: bytes, new_key: bytes, public_key: bytes, purpose: Literal["daily", "recovery"]) -> None:
        """Give a person a key that nobody has."""
        self.keys[new_key] = Key(person=person, public_key=public_key, purpose=purpose, revoked_at_ms=None)
        self.person_keys[person] = (*self.person_keys[person], new_key)

    def revoke_key(self, old_key: bytes, at: int) -> None:
        """End a key; it stays known, so that a signature with it is refused as revoked."""
        old = self.keys[old_key]
        self.keys[old_key] = Key(person=old.person, public_key=old.public_key, purpose=old.purpose, revoked_at_ms=at)
        self.person_keys[old.person] = tuple(one for one in self.person_keys[old.person] if one != old_key)

    def is_key_free(self, public_key: bytes) -> bool:
        """Tell whether a key can be given a use: of a form that we check, and nobody's, person's or node's."""
        return (
            is_public_key(public_key)
            and key_id(public_key) not in self.keys
            and all(one.public_key != public_key for one in self.node_keys.values())
        )

    def is_withdrawn(self, person: bytes, body_hash: bytes) -> bool:
        """Tell whether the person has taken back its signature under the body."""
        return any(one.body_hash == body_hash for one in self.withdrawals.get(person) or ())

    def put_statutes(self, statutes: Statutes, in_force_from_ms: int) -> int:
        """Add the next version of the statutes and return its number."""
        old = self.founded
        version = old.statutes_version + 1
        self.statutes[version] = StatutesVersion(in_force_from_ms=in_force_from_ms, statutes=statutes)
        self.profile[""] = msgspec.structs.replace(old, statutes_version=version)
        return version


class CoopState(Protocol):
    """What the acts of this domain read and change."""

    coop: CoopSlice
    accounts: Accounts


def recovery_principal(person: bytes) -> bytes:
    """Return the principal that a person's recovery key signs as."""
    return b"recovery/" + person


def own_account(unit: str, purpose: str = OWN) -> AccountKey:
    """Return an account of the cooperative itself."""
    return AccountKey(COOPERATIVE, unit, purpose)


def claims_account(owner: bytes, unit: str) -> AccountKey:
    """Return the account of what the cooperative and `owner` owe each other: negative if the owner owes."""
    return AccountKey(owner, unit, CLAIMS)


def board_signs(state: CoopState, author: bytes | None) -> SignerRule:
    """Return the rule of an act of the board; only the board is its author."""
    return state.coop.office_rule("board") if author == BOARD else (Need(1, frozenset()),)


__all__ = [
    "BANK", "CLAIMS", "MAX_PERSONS_PER_OFFICE", "MAX_WITHDRAWALS_PER_PERSON", "ML_DSA_COSIGNER", "OWN", "CoopSlice",
    "CoopState", "Key",
    "NodeKey", "NodeKeyPurpose", "Office", "Person", "Profile", "Seal", "StatutesVersion", "Unit", "Withdrawal", "Word",
    "board_signs", "claims_account", "own_account", "recovery_principal",
]  # fmt: skip
