# SPDX-License-Identifier: AGPL-3.0-or-later
"""Entry types: one value each, in one file of its domain, named in the one table of `ecot_protocol.machine`.

The order in which a node asks:

1. form (`payload`, attachments) and signatures, away from the state, with `evidence` for heavy proofs;
2. `signers`: which persons must have signed, judged at the record;
3. `check(state, act, at)`: the first reason wins, rights before rules; it changes nothing;
4. `effect(state, act, at)`: changes the state in place, cannot fail once `check` has passed, and returns facts.

A released payload, check or effect is never edited: a change is a new entry type under a higher rules number.
"""

import typing
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, Generic, NamedTuple, TypeVar

import msgspec

from ecot_protocol.errors import LocalProtocolError
from ecot_protocol.ledger.facts import Fact
from ecot_protocol.ledger.reasons import Reason
from ecot_protocol.wire.encoding import Codec, Wire, assert_wire_type
from ecot_protocol.wire.ids import organ_id

P = TypeVar("P", bound=Wire)
S = TypeVar("S")

BOARD: Final = organ_id("board")
"""Author of what the board decides."""
TREASURER: Final = organ_id("treasurer")
"""Author of what the treasurer attests."""
COOPERATIVE: Final = organ_id("cooperative")
"""Owner of the cooperative's own accounts."""
NODE: Final = organ_id("node")
"""The principal that the node's agent key signs as; it is never an author (the author of such an entry is None)."""


class Visibility(Enum):
    """Who may be served a record of the type."""

    PUBLIC = "public"
    MEMBERS = "members"
    PARTIES = "parties"
    AUDITORS = "auditors"


class Need(NamedTuple):
    """At least `threshold` of `principals` must have signed.

    A principal is a person's id (16 bytes), `NODE`, or a public key that the payload itself brings (33 bytes).
    """

    threshold: int
    principals: frozenset[bytes]


SignerRule = tuple[Need, ...]
"""All needs must be met, by no more signatures than they ask for together."""

NOBODY: Final[SignerRule] = (Need(1, frozenset()),)
"""A rule that no signature can meet."""
THE_NODE: Final[SignerRule] = (Need(1, frozenset((NODE,))),)


class Act(msgspec.Struct, Generic[P], frozen=True, gc=False):
    """A well-formed entry, as rules see it.

    Attributes:
        id: the entry's id, and the id of the object it makes.
        author: member or organ acted for; None for the node.
        payload: the decoded payload.
        signers: ids of the persons who signed, ascending (without the node and without keys it introduces).
        index: the place the record will have in the log.
        body_hash: SHA-256 of the body.
    """

    id: bytes
    author: bytes | None
    payload: P
    signers: tuple[bytes, ...]
    index: int
    body_hash: bytes


def _no_keys(_payload: Any) -> tuple[bytes, ...]:
    return ()


def _author_alone(_state: Any, act: Act[Any]) -> tuple[bytes, ...]:
    return () if act.author is None else (act.author,)


def _no_evidence(_payload: Any) -> Reason | None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryType(Generic[S, P]):
    """One kind of entry.

    Attributes:
        tag: wire name, never changed or reused.
        rules: number of the rules from which on this version holds.
        payload: its wire type.
        visibility: who may be served its record.
        signers: (state, act, at) -> who must have signed; reads the author and the payload.
        check: (state, act, at) -> the first reason against it.
        effect: (state, act, at) -> facts; changes the state.
        reasons: codes that `check` can answer, in order of precedence.
        introduces: payload -> public keys (33 bytes) that it brings and that sign it.
        parties: (state, act) -> members and organs whom the record concerns; read before `effect`.
        evidence: payload -> reason; heavy proofs, without state.
        attachments: payload field -> attachment class, found from the payload's type.
    """

    tag: str
    rules: int = 1
    payload: type[P]
    visibility: Visibility
    signers: Callable[[S, Act[P], int], SignerRule]
    check: Callable[[S, Act[P], int], Reason | None]
    effect: Callable[[S, Act[P], int], list[Fact]]
    reasons: tuple[str, ...]
    introduces: Callable[[P], tuple[bytes, ...]] = _no_keys
    parties: Callable[[S, Act[P]], tuple[bytes, ...]] = _author_alone
    evidence: Callable[[P], Reason | None] = _no_evidence
    codec: Codec[P] = field(init=False)
    attachments: tuple[tuple[str, str], ...] = field(init=False)

    @property
    def has_evidence(self) -> bool:
        """Whether there are heavy proofs to check."""
        return self.evidence is not _no_evidence

    def __post_init__(self) -> None:
        assert_wire_type(self.payload)
        object.__setattr__(self, "codec", Codec(self.payload))
        object.__setattr__(self, "attachments", tuple(_attachment_fields(self.payload)))


def _attachment_fields(payload: type[Wire]) -> Iterable[tuple[str, str]]:
    for name, hint in typing.get_type_hints(payload, include_extras=True).items():
        for choice in (hint, *typing.get_args(hint)):
            for meta in getattr(choice, "__metadata__", ()):
                if isinstance(meta, msgspec.Meta) and "attachment" in (meta.extra or {}):
                    yield name, str((meta.extra or {})["attachment"])


AnyEntryType = EntryType[Any, Any]


class TypeTable:
    """The entry types in force under each rules number.

    Args:
        entry_types: every version of every type; (tag, rules) is unique.
    """

    def __init__(self, entry_types: Sequence[AnyEntryType]) -> None:
        self.all: Final = tuple(entry_types)
        self.highest_rules: Final = max(entry_type.rules for entry_type in entry_types)
        if len({(entry_type.tag, entry_type.rules) for entry_type in entry_types}) != len(entry_types):
            raise LocalProtocolError("an entry type is listed twice")
        self._by_rules: Final = {
            rules: {
                entry_type.tag: entry_type
                for entry_type in sorted(entry_types, key=lambda one: one.rules)
                if entry_type.rules <= rules
            }
            for rules in range(1, self.highest_rules + 1)
        }

    def find(self, tag: str, rules: int) -> AnyEntryType | None:
        """Return the version of `tag` in force under `rules`; None if there is none, or if we lack these rules."""
        return self._by_rules.get(rules, {}).get(tag)

    def under(self, rules: int) -> dict[str, AnyEntryType]:
        """Return tag -> entry type in force under `rules`."""
        return self._by_rules[rules]
