# SPDX-License-Identifier: AGPL-3.0-or-later
"""Who asks, and what may be answered: the one place that decides who reads a record or an attachment.

| visibility | who |
|---|---|
| ``public`` | anybody |
| ``members`` | a person with a mandate of an admitted member, or who holds an office |
| ``parties`` | a person mandated by a party, a party itself, holders of an office concerned; board and treasurer |
| ``auditors`` | holders of the offices ``auditor`` and ``board`` |

A mandate of a member that was excluded gives nothing; one of a member that left gives what it is a party to.
What is not in the table is for nobody.

>>> may_read(None, "public", ()), may_read(None, "members", ())
(True, False)
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from ecot_protocol.domains.membership.state import Status, is_in_force
from ecot_protocol.ledger.attachments import CLASSES
from ecot_protocol.ledger.entry_type import COOPERATIVE
from ecot_protocol.state import State
from ecot_protocol.wire.ids import organ_id

OFFICERS: Final = frozenset(("board", "treasurer"))
"""Offices that answer for the accounts, so read what is between members."""
AUDITORS: Final = frozenset(("auditor", "board"))


@dataclass(frozen=True, slots=True)
class CallerMember:
    """A member that the caller has a mandate of, in force now."""

    member: bytes
    handle: str
    status: Status
    scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Caller:
    """A person with an open session, as the state sees it at this request.

    Attributes:
        session: hash of the token; names the session in tables of ours, never in logs.
        person: id.
        key_id: the key that opened the session.
        members: whose mandates the person has; excluded ones are left out.
        offices: held, in alphabetical order.
    """

    session: bytes
    person: bytes
    key_id: bytes
    members: tuple[CallerMember, ...]
    offices: tuple[str, ...]

    @property
    def is_member(self) -> bool:
        """Whether the person reads what is for members."""
        return bool(self.offices) or any(one.status == "admitted" for one in self.members)

    @property
    def is_officer(self) -> bool:
        """Whether the person is of the board or the treasurer."""
        return not OFFICERS.isdisjoint(self.offices)

    @property
    def party_ids(self) -> frozenset[bytes]:
        """Ids as which the person is a party: itself, its members, its offices; for officers the cooperative."""
        own = {self.person, *(one.member for one in self.members), *map(organ_id, self.offices)}
        return frozenset(own | {COOPERATIVE} if self.is_officer else own)

    def acts_for(self, member: bytes) -> bool:
        """Tell whether the person has a mandate of the member."""
        return any(one.member == member for one in self.members)


def readable_visibilities(caller: Caller | None) -> frozenset[str]:
    """Return the visibilities of which the caller reads every record, whoever its parties are."""
    readable = {"public"}
    if caller is not None:
        readable |= {"members"} if caller.is_member else set()
        readable |= {"parties"} if caller.is_officer else set()
        readable |= {"auditors"} if not AUDITORS.isdisjoint(caller.offices) else set()
    return frozenset(readable)


def may_read(caller: Caller | None, visibility: str, parties: Collection[bytes]) -> bool:
    """Tell whether the caller may read a record.

    Args:
        caller: None without a session.
        visibility: of the record's type.
        parties: members, persons and organs whom the record concerns.
    """
    if visibility in readable_visibilities(caller):
        return True
    return caller is not None and visibility == "parties" and not caller.party_ids.isdisjoint(parties)


def may_read_attachment(caller: Caller | None, class_name: str, parties: Collection[bytes]) -> bool:
    """Tell whether the caller, who may read the record, may also read its attachment of a class."""
    kept = CLASSES.get(class_name)
    if kept is None or caller is None:
        return False
    if not caller.party_ids.isdisjoint(parties):
        return True
    match kept.readers:
        case "members":
            return caller.is_member
        case "officers":
            return caller.is_officer
        case _:
            return False


def find_caller(
    state: State, session: bytes, key_id: bytes, *, mandating: Collection[bytes], now_ms: int
) -> Caller | None:
    """Return what the state says of the holder of a key now; None if the key is no daily key in force.

    Args:
        state: as of the last durable record.
        session: hash of the token.
        key_id: the key that opened the session.
        mandating: members that may have given the person a mandate; others are not looked at.
        now_ms: milliseconds since 1970.
    """
    key = state.coop.keys.get(key_id)
    if key is None or key.revoked_at_ms is not None or key.purpose != "daily":
        return None
    offices = tuple(sorted(name for name, office in state.coop.offices.items() if key.person in office.persons))
    found = (_mandated(state, member, key.person, now_ms) for member in sorted(mandating))
    return Caller(session, key.person, key_id, tuple(one for one in found if one is not None), offices)


def _mandated(state: State, member_id: bytes, person: bytes, now_ms: int) -> CallerMember | None:
    member = state.membership.members.get(member_id)
    if member is None or member.status == "excluded":
        return None
    for mandate in state.membership.mandates.get(member_id) or ():
        if mandate.person == person and is_in_force(mandate, now_ms):
            return CallerMember(member_id, member.handle, member.status, mandate.scopes)
    return None
