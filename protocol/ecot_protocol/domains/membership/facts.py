# SPDX-License-Identifier: AGPL-3.0-or-later
"""Facts of membership."""

from ecot_protocol.ledger.facts import Fact


class MemberApplied(Fact):
    """Somebody asks to become a member."""

    member: bytes
    handle: str
    kind: str
    college: str
    person: bytes


class MemberAdmitted(Fact):
    """A member takes part from now on, in this college."""

    member: bytes
    college: str
    fee_due_ms: int


class MemberGone(Fact):
    """A member left or was excluded, or an application was declined or lapsed (`status`)."""

    member: bytes
    status: str


class MandateGranted(Fact):
    """A person may act for a member."""

    member: bytes
    person: bytes
    scopes: tuple[str, ...]
    trade_limit_minor: int | None
    day_limit_minor: int | None
    from_ms: int
    until_ms: int | None


class MandateRevoked(Fact):
    """A person may no longer act for a member."""

    member: bytes
    person: bytes


class FeeCharged(Fact):
    """A member owes a fee (a posting goes with it); the next is due at `next_due_ms`."""

    member: bytes
    amount_minor: int
    unit: str
    next_due_ms: int


class PaymentAttested(Fact):
    """The treasurer attests that money moved: ``in`` from the member, or ``out`` to it."""

    member: bytes
    direction: str
    amount_minor: int
    unit: str


class RecoveryOpened(Fact):
    """The board wants to give a person a new key; any old key can veto until `ends_at_ms`."""

    person: bytes
    key_id: bytes
    ends_at_ms: int


class RecoveryVetoed(Fact):
    """An old key stopped a recovery."""

    person: bytes


class PersonRecovered(Fact):
    """A person has one new key, and no other."""

    person: bytes
    key_id: bytes
