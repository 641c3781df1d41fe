# SPDX-License-Identifier: AGPL-3.0-or-later
"""A person's keys: added by another of its keys, revoked, or replaced by the board after a delay in which any old key
can veto.

The author of all of these but the board's is the person.
"""

from typing import Any, Final, Literal

from ecot_protocol.domains.coop import facts as coop_facts
from ecot_protocol.domains.coop.state import board_signs, recovery_principal
from ecot_protocol.domains.membership import facts
from ecot_protocol.domains.membership.state import MembershipState, Recovery
from ecot_protocol.ledger.entry_type import NOBODY, Act, AnyEntryType, EntryType, Need, SignerRule, Visibility
from ecot_protocol.ledger.facts import Fact
from ecot_protocol.ledger.reasons import Reason
from ecot_protocol.wire.encoding import Id, KeyId, Wire
from ecot_protocol.wire.keys import PublicKey, key_id

MAX_KEYS_PER_PERSON: Final = 16


class AddKey(Wire):
    """Payload of ``membership.add_key``; the new key signs too, which proves that the person has it."""

    public_key: PublicKey
    purpose: Literal["daily", "recovery"]


class RevokeKey(Wire):
    """Payload of ``membership.revoke_key``; the last daily key can be revoked only by replacing it."""

    key_id: KeyId


class OpenRecovery(Wire):
    """Payload of ``membership.open_recovery``, by the board; the new key signs too.

    One that is due and was never completed is replaced: its new key may be lost as well.
    """

    person: Id
    public_key: PublicKey


class VetoRecovery(Wire):
    """Payload of ``membership.veto_recovery``: any key of the person, daily or recovery, stops it before its end."""


class CompleteRecovery(Wire):
    """Payload of ``membership.complete_recovery``: the delay is over; the new key replaces all others."""

    public_key: PublicKey


def _person_signs(state: MembershipState, author: bytes | None) -> SignerRule:
    if author is None or author not in state.coop.persons:
        return NOBODY
    return (Need(1, frozenset((author, recovery_principal(author)))),)


def _own(state: MembershipState, act: Act[Any], _at: int) -> SignerRule:
    return _person_signs(state, act.author)


def _add_signers(state: MembershipState, act: Act[AddKey], _at: int) -> SignerRule:
    return (*_person_signs(state, act.author), Need(1, frozenset((act.payload.public_key,))))


def _check_usable(state: MembershipState, public_key: bytes) -> Reason | None:
    return None if state.coop.is_key_free(public_key) else Reason.of("key_not_usable")


def _check_add(state: MembershipState, act: Act[AddKey], _at: int) -> Reason | None:
    assert act.author is not None
    if len(state.coop.person_keys[act.author]) >= MAX_KEYS_PER_PERSON:
        return Reason.of("keys_full", maximum=MAX_KEYS_PER_PERSON)
    return _check_usable(state, act.payload.public_key)


def _add(state: MembershipState, act: Act[AddKey], _at: int) -> list[Fact]:
    assert act.author is not None
    new_key = key_id(act.payload.public_key)
    state.coop.add_key(act.author, new_key, act.payload.public_key, act.payload.purpose)
    return [coop_facts.KeyAdded(person=act.author, key_id=new_key, purpose=act.payload.purpose)]


def _check_revoke(state: MembershipState, act: Act[RevokeKey], _at: int) -> Reason | None:
    assert act.author is not None
    active = state.coop.person_keys[act.author]
    if act.payload.key_id not in active:
        return Reason.of("key_not_active", key_id=act.payload.key_id.hex())
    left = [one for one in active if one != act.payload.key_id and state.coop.keys[one].purpose == "daily"]
    return None if left else Reason.of("last_key")


def _revoke(state: MembershipState, act: Act[RevokeKey], at: int) -> list[Fact]:
    assert act.author is not None
    state.coop.revoke_key(act.payload.key_id, at)
    return [coop_facts.KeyRevoked(person=act.author, key_id=act.payload.key_id)]


def _open_signers(state: MembershipState, act: Act[OpenRecovery], _at: int) -> SignerRule:
    return (*board_signs(state, act.author), Need(1, frozenset((act.payload.public_key,))))


def _check_open(state: MembershipState, act: Act[OpenRecovery], at: int) -> Reason | None:
    person = act.payload.person
    if person not in state.coop.persons:
        return Reason.of("person_unknown", person=person.hex())
    recovery = state.membership.recoveries.get(person)
    if recovery is not None and at < recovery.ends_at_ms:
        return Reason.of("recovery_open", person=person.hex())
    return _check_usable(state, act.payload.public_key)


def _open(state: MembershipState, act: Act[OpenRecovery], at: int) -> list[Fact]:
    recovery = act.payload
    ends_at = at + state.coop.statutes_at(at)[1].membership.recovery_delay_ms
    state.membership.recoveries[recovery.person] = Recovery(ends_at_ms=ends_at, public_key=recovery.public_key)
    new_key = key_id(recovery.public_key)
    return [facts.RecoveryOpened(person=recovery.person, key_id=new_key, ends_at_ms=ends_at)]


def _check_veto(state: MembershipState, act: Act[VetoRecovery], at: int) -> Reason | None:
    assert act.author is not None
    recovery = state.membership.recoveries.get(act.author)
    if recovery is None:
        return Reason.of("recovery_unknown", person=act.author.hex())
    return Reason.of("veto_too_late", ended_ms=recovery.ends_at_ms) if at >= recovery.ends_at_ms else None


def _veto(state: MembershipState, act: Act[VetoRecovery], _at: int) -> list[Fact]:
    assert act.author is not None
    del state.membership.recoveries[act.author]
    return [facts.RecoveryVetoed(person=act.author)]


def _complete_signers(_state: MembershipState, act: Act[CompleteRecovery], _at: int) -> SignerRule:
    return (Need(1, frozenset((act.payload.public_key,))),)


def _check_complete(state: MembershipState, act: Act[CompleteRecovery], at: int) -> Reason | None:
    recovery = state.membership.recoveries.get(act.author) if act.author is not None else None
    if recovery is None or recovery.public_key != act.payload.public_key:
        return Reason.of("recovery_unknown", person=(act.author or b"").hex())
    if at < recovery.ends_at_ms:
        return Reason.of("recovery_not_due", ends_at_ms=recovery.ends_at_ms)
    return _check_usable(state, recovery.public_key)


def _complete(state: MembershipState, act: Act[CompleteRecovery], at: int) -> list[Fact]:
    assert act.author is not None
    result: list[Fact] = []
    for old in state.coop.person_keys[act.author]:
        state.coop.revoke_key(old, at)
        result.append(coop_facts.KeyRevoked(person=act.author, key_id=old))
    new_key = key_id(act.payload.public_key)
    state.coop.add_key(act.author, new_key, act.payload.public_key, "daily")
    del state.membership.recoveries[act.author]
    result.append(coop_facts.KeyAdded(person=act.author, key_id=new_key, purpose="daily"))
    return [*result, facts.PersonRecovered(person=act.author, key_id=new_key)]


ADD_KEY: Final[EntryType[MembershipState, AddKey]] = EntryType(
    tag="membership.add_key",
    payload=AddKey,
    visibility=Visibility.MEMBERS,
    signers=_add_signers,
    check=_check_add,
    effect=_add,
    reasons=("keys_full", "key_not_usable"),
    introduces=lambda payload: (payload.public_key,),
)
REVOKE_KEY: Final[EntryType[MembershipState, RevokeKey]] = EntryType(
    tag="membership.revoke_key",
    payload=RevokeKey,
    visibility=Visibility.MEMBERS,
    signers=_own,
    check=_check_revoke,
    effect=_revoke,
    reasons=("key_not_active", "last_key"),
)
OPEN_RECOVERY: Final[EntryType[MembershipState, OpenRecovery]] = EntryType(
    tag="membership.open_recovery",
    payload=OpenRecovery,
    visibility=Visibility.MEMBERS,
    signers=_open_signers,
    check=_check_open,
    effect=_open,
    reasons=("person_unknown", "recovery_open", "key_not_usable"),
    introduces=lambda payload: (payload.public_key,),
    parties=lambda _state, act: (act.payload.person,),
)
VETO_RECOVERY: Final[EntryType[MembershipState, VetoRecovery]] = EntryType(
    tag="membership.veto_recovery",
    payload=VetoRecovery,
    visibility=Visibility.MEMBERS,
    signers=_own,
    check=_check_veto,
    effect=_veto,
    reasons=("recovery_unknown", "veto_too_late"),
)
COMPLETE_RECOVERY: Final[EntryType[MembershipState, CompleteRecovery]] = EntryType(
    tag="membership.complete_recovery",
    payload=CompleteRecovery,
    visibility=Visibility.MEMBERS,
    signers=_complete_signers,
    check=_check_complete,
    effect=_complete,
    reasons=("recovery_unknown", "recovery_not_due", "key_not_usable"),
    introduces=lambda payload: (payload.public_key,),
)
KEY_TYPES: Final[tuple[AnyEntryType, ...]] = (ADD_KEY, REVOKE_KEY, OPEN_RECOVERY, VETO_RECOVERY, COMPLETE_RECOVERY)
