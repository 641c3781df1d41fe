# SPDX-License-Identifier: AGPL-3.0-or-later
"""Facts of the cooperative itself."""

from ecot_protocol.domains.coop.statutes import Statutes
from ecot_protocol.ledger.facts import Fact


class Founded(Fact):
    """The ledger began. `ledger` is its id (32 bytes), `origin` the name of its log."""

    ledger: bytes
    name: str
    domain: str
    origin: str


class PersonAdded(Fact):
    """A person can sign from now on."""

    person: bytes
    handle: str


class KeyAdded(Fact):
    """A person has a further key. `purpose` is ``daily`` or ``recovery``."""

    person: bytes
    key_id: bytes
    purpose: str


class KeyRevoked(Fact):
    """A key no longer signs."""

    person: bytes
    key_id: bytes


class OfficeHeld(Fact):
    """An office is held by these persons, of whom `threshold` must sign."""

    office: str
    persons: tuple[bytes, ...]
    threshold: int


class NodeKeyReplaced(Fact):
    """The node uses another key for this purpose; empty: none any more."""

    purpose: str
    public_key: bytes


class StatutesAdopted(Fact):
    """A version of the statutes was recorded. `by` is the poll that adopted it, or the board's organ id."""

    version: int
    in_force_from_ms: int
    statutes: Statutes
    by: bytes


class RulesRaised(Fact):
    """Entries are judged by these rules from the next record on."""

    rules: int


class SignatureWithdrawn(Fact):
    """A person's signature under the body with this hash no longer counts."""

    person: bytes
    body_hash: bytes


class Sealed(Fact):
    """The digest of the state of the first `size` records is in the log."""

    size: int
    digest: bytes
