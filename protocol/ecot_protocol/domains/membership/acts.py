# SPDX-License-Identifier: AGPL-3.0-or-later
"""The acts of membership: apply, admit, leave, exclude; fees and their payment; mandates."""

from typing import Any, Final, Literal

import msgspec

from ecot_protocol.domains.coop import facts as coop_facts
from ecot_protocol.domains.coop.state import BANK, CLAIMS, board_signs, claims_account, own_account
from ecot_protocol.domains.coop.statutes import Statutes
from ecot_protocol.domains.membership import facts
from ecot_protocol.domains.membership.keys import KEY_TYPES
from ecot_protocol.domains.membership.state import (
    APPLICATION_LIFETIME_MS,
    MAX_APPLICATIONS,
    MAX_APPLICATIONS_EACH,
    OWNER,
    AccountName,
    Kind,
    Mandate,
    Member,
    MembershipState,
    account_keys,
    member_signs,
)
from ecot_protocol.ledger.accounts import ACCOUNT_REASONS, AccountKey, Leg
from ecot_protocol.ledger.attachments import IdentityCommitment, PaymentCommitment, ReasonCommitment
from ecot_protocol.ledger.entry_type import (
    NOBODY,
    THE_NODE,
    TREASURER,
    Act,
    AnyEntryType,
    EntryType,
    Need,
    SignerRule,
    Visibility,
)
from ecot_protocol.ledger.facts import Fact
from ecot_protocol.ledger.reasons import Reason
from ecot_protocol.wire.encoding import Handle, Id, Positive, UnitCode, Wire, Word
from ecot_protocol.wire.ids import object_id
from ecot_protocol.wire.keys import PublicKey, key_id

MAX_MANDATES: Final = 64


class NewPerson(Wire):
    """Somebody who did not sign in this ledger before, and a first key."""

    handle: Handle
    public_key: PublicKey


class Apply(Wire):
    """Payload of ``membership.apply``; the author is the member-to-be: the entry's own id.

    Exactly one of `new_person` and `person` is given: who applies, and will be the member's owner. A new person has the
    first further id of the entry.
    """

    college: Word
    handle: Handle
    identity: IdentityCommitment | None
    kind: Kind
    new_person: NewPerson | None
    person: Id | None


class Admit(Wire):
    """Payload of ``membership.admit``, by the board: the member enters `college` and owes the entry fee."""

    college: Word
    member: Id


class Decline(Wire):
    """Payload of ``membership.decline``, by the board: the application is refused, and its handle is free again."""

    member: Id
    reason: ReasonCommitment | None


class Leave(Wire):
    """Payload of ``membership.leave``: the author, a member, leaves."""


class Exclude(Wire):
    """Payload of ``membership.exclude``, by the board."""

    member: Id
    reason: ReasonCommitment | None


class ChargeFee(Wire):
    """Payload of ``membership.charge_fee``: the next period's fee is due. Sent by the node or by the treasurer."""

    member: Id


class AttestPayment(Wire):
    """Payload of ``membership.attest_payment``, by the treasurer: money came ``in`` from a member or went ``out``."""

    amount_minor: Positive
    direction: Literal["in", "out"]
    member: Id
    reference: PaymentCommitment | None
    unit: UnitCode


class GrantMandate(Wire):
    """Payload of ``membership.grant_mandate``: the author, a member, lets a person act for it; replaces an older one.

    `new_person` brings a person who did not sign here before; `mandate.person` is then the entry's first further id.
    """

    mandate: Mandate
    new_person: NewPerson | None


class RevokeMandate(Wire):
    """Payload of ``membership.revoke_mandate``."""

    person: Id


def _introduced(payload: Apply | GrantMandate) -> tuple[bytes, ...]:
    return () if payload.new_person is None else (payload.new_person.public_key,)


def check_new_person(state: MembershipState, entry_id: bytes, new_person: NewPerson | None) -> Reason | None:
    """Tell why an entry's person can't be entered: ``id_used``, ``handle_taken``, ``key_not_usable``."""
    if new_person is None:
        return None
    # Two entry ids whose further ids are equal cost 2^37 hashes: the second must not take the first one's person.
    if object_id(entry_id, 1) in state.coop.persons:
        return Reason.of("id_used")
    if new_person.handle in state.coop.handles:
        return Reason.of("handle_taken", handle=new_person.handle)
    return None if state.coop.is_key_free(new_person.public_key) else Reason.of("key_not_usable")


def _enter_person(state: MembershipState, person: bytes, new_person: NewPerson, at: int) -> list[Fact]:
    new_key = key_id(new_person.public_key)
    state.coop.add_person(person, new_person.handle, at)
    state.coop.add_key(person, new_key, new_person.public_key, "daily")
    return [
        coop_facts.PersonAdded(person=person, handle=new_person.handle),
        coop_facts.KeyAdded(person=person, key_id=new_key, purpose="daily"),
    ]


def _apply_signers(_state: MembershipState, act: Act[Apply], _at: int) -> SignerRule:
    apply = act.payload
    if act.author != act.id or (apply.new_person is None) == (apply.person is None):
        return NOBODY
    who = apply.person if apply.new_person is None else apply.new_person.public_key
    return (Need(1, frozenset((who,))),) if who is not None else NOBODY


def _check_apply(state: MembershipState, act: Act[Apply], at: int) -> Reason | None:
    apply = act.payload
    reason = check_new_person(state, act.id, apply.new_person)
    if reason is not None:
        return reason
    is_own_handle = apply.new_person is not None and apply.new_person.handle == apply.handle
    if apply.handle in state.coop.handles or is_own_handle:
        return Reason.of("handle_taken", handle=apply.handle)
    return _check_college(state, apply.college, at) or _check_room(state, apply.person, at)


def _check_room(state: MembershipState, person: bytes | None, at: int) -> Reason | None:
    """A stranger needs nobody's leave to apply, so without a bound anybody could fill every node's memory."""
    waiting = len(state.membership.applications)
    if waiting >= MAX_APPLICATIONS and waiting - len(state.membership.lapsed_applications(at)) >= MAX_APPLICATIONS:
        return Reason.of("applications_full", maximum=MAX_APPLICATIONS)
    if person is None:
        return None
    own = sum(
        lapses_ms > at and state.membership.mandates[member][0].person == person
        for member, lapses_ms in state.membership.applications.items()
    )
    return Reason.of("own_applications_full", maximum=MAX_APPLICATIONS_EACH) if own >= MAX_APPLICATIONS_EACH else None


def _check_college(state: MembershipState, college: str, at: int) -> Reason | None:
    _, statutes = state.coop.statutes_at(at)
    known = any(one.code == college for one in statutes.colleges)
    return None if known else Reason.of("college_unknown", college=college)


def _apply(state: MembershipState, act: Act[Apply], at: int) -> list[Fact]:
    apply, member = act.payload, act.id
    result = [fact for lapsed in state.membership.lapsed_applications(at) for fact in _drop(state, lapsed, "lapsed")]
    person = apply.person
    if apply.new_person is not None:
        person = object_id(act.id, 1)
        result += _enter_person(state, person, apply.new_person, at)
    assert person is not None
    state.coop.handles[apply.handle] = member
    state.membership.applications[member] = at + APPLICATION_LIFETIME_MS
    state.membership.members[member] = Member(
        accounts=(),
        college=apply.college,
        fee_due_ms=None,
        handle=apply.handle,
        kind=apply.kind,
        since_ms=at,
        status="applied",
    )
    mandate = Mandate(
        day_limit_minor=None, from_ms=0, person=person, scopes=(OWNER,), trade_limit_minor=None, until_ms=None
    )
    state.membership.mandates[member] = (mandate,)
    result.append(
        facts.MemberApplied(member=member, handle=apply.handle, kind=apply.kind, college=apply.college, person=person)
    )
    return [*result, _granted(member, mandate)]


def _drop(state: MembershipState, member: bytes, status: Literal["declined", "lapsed"]) -> list[Fact]:
    """Forget an application: nothing else names a member that was never admitted."""
    result: list[Fact] = [
        facts.MandateRevoked(member=member, person=one.person) for one in state.membership.mandates[member]
    ]
    del state.coop.handles[state.membership.members[member].handle]
    del state.membership.applications[member], state.membership.mandates[member], state.membership.members[member]
    return [*result, facts.MemberGone(member=member, status=status)]


def _granted(member: bytes, mandate: Mandate) -> Fact:
    return facts.MandateGranted(member=member, **msgspec.structs.asdict(mandate))


def _board(state: MembershipState, act: Act[Any], _at: int) -> SignerRule:
    return board_signs(state, act.author)


def _check_admit(state: MembershipState, act: Act[Admit], at: int) -> Reason | None:
    reason = _check_applied(state, act.payload.member, at) or _check_college(state, act.payload.college, at)
    return reason or _check_entry_fee(state, act.payload.member, at)


def _check_applied(state: MembershipState, member: bytes, at: int) -> Reason | None:
    lapses_ms = state.membership.applications.get(member)
    if lapses_ms is None:
        return Reason.of("member_not_applied", member=member.hex())
    return Reason.of("application_lapsed", lapsed_ms=lapses_ms) if at >= lapses_ms else None


def _check_entry_fee(state: MembershipState, member: bytes, at: int) -> Reason | None:
    rules = state.coop.statutes_at(at)[1].membership
    own = own_account(rules.fee_unit)
    # The member's own account opens with the admission: what may be too full is the cooperative's.
    if rules.entry_fee_minor and state.accounts.headroom_minor(own) < rules.entry_fee_minor:
        return Reason.of(
            "upper_limit_exceeded", owner=own.owner.hex(), unit=own.unit, amount_minor=rules.entry_fee_minor
        )
    return None


def _admit(state: MembershipState, act: Act[Admit], at: int) -> list[Fact]:
    member_id, college = act.payload.member, act.payload.college
    _, statutes = state.coop.statutes_at(at)
    rules = statutes.membership
    defaults = {AccountName(one.unit, one.purpose): (one.lower_minor, one.upper_minor) for one in rules.accounts}
    defaults |= {AccountName(unit, CLAIMS): (None, None) for unit in _claim_units(statutes)}
    due = at + rules.fee_period_ms
    del state.membership.applications[member_id]
    state.membership.members[member_id] = msgspec.structs.replace(
        state.membership.members[member_id],
        accounts=tuple(defaults),
        college=college,
        fee_due_ms=due,
        status="admitted",
    )
    result: list[Fact] = [facts.MemberAdmitted(member=member_id, college=college, fee_due_ms=due)]
    for name, (lower, upper) in defaults.items():
        key = AccountKey(member_id, name.unit, name.purpose)
        result.append(state.accounts.open(key, lower_minor=lower, upper_minor=upper))
    return result + _charge(state, member_id, rules.entry_fee_minor, rules.fee_unit, due, act.id)


def _claim_units(statutes: Statutes) -> list[str]:
    units = {statutes.membership.fee_unit, statutes.shares.unit}
    units |= {statutes.trade.commission_unit} if statutes.trade else set()
    units |= {statutes.royalty.unit} if statutes.royalty else set()
    return sorted(units)


def _charge(state: MembershipState, member: bytes, amount: int, unit: str, next_due: int, cause: bytes) -> list[Fact]:
    if amount == 0:
        return []
    leg = Leg(claims_account(member, unit), own_account(unit), amount, "fee")
    charged = facts.FeeCharged(member=member, amount_minor=amount, unit=unit, next_due_ms=next_due)
    return [charged, *state.accounts.transfer(cause, (leg,))]


def _check_decline(state: MembershipState, act: Act[Decline], at: int) -> Reason | None:
    return _check_applied(state, act.payload.member, at)


def _decline(state: MembershipState, act: Act[Decline], _at: int) -> list[Fact]:
    return _drop(state, act.payload.member, "declined")


def _leave_signers(state: MembershipState, act: Act[Leave], at: int) -> SignerRule:
    return member_signs(state, act.author, OWNER, at)


def _check_leave(state: MembershipState, act: Act[Leave], _at: int) -> Reason | None:
    assert act.author is not None
    if not state.membership.is_active(act.author):
        return Reason.of("member_not_active", member=act.author.hex())
    for key in account_keys(state, act.author):
        if key.purpose != CLAIMS and not state.accounts.is_idle(key):
            return Reason.of("account_not_settled", unit=key.unit, balance_minor=state.accounts.balance(key))
    return None


def _leave(state: MembershipState, act: Act[Leave], at: int) -> list[Fact]:
    assert act.author is not None
    return _go(state, act.author, "left", at)


def _check_exclude(state: MembershipState, act: Act[Exclude], _at: int) -> Reason | None:
    member = act.payload.member
    return None if state.membership.is_active(member) else Reason.of("member_not_active", member=member.hex())


def _exclude(state: MembershipState, act: Act[Exclude], at: int) -> list[Fact]:
    return _go(state, act.payload.member, "excluded", at)


def _go(state: MembershipState, member: bytes, status: Literal["excluded", "left"], at: int) -> list[Fact]:
    kept = []
    for key in account_keys(state, member):
        if key.purpose != CLAIMS and state.accounts.is_idle(key):
            state.accounts.close(key)
        else:
            kept.append(AccountName(key.unit, key.purpose))
    state.membership.members[member] = msgspec.structs.replace(
        state.membership.members[member], accounts=tuple(kept), fee_due_ms=None, since_ms=at, status=status
    )
    return [facts.MemberGone(member=member, status=status)]


def _treasurer_or_node(state: MembershipState, act: Act[ChargeFee], _at: int) -> SignerRule:
    if act.author is None:
        return THE_NODE
    return state.coop.office_rule("treasurer") if act.author == TREASURER else NOBODY


def _check_fee(state: MembershipState, act: Act[ChargeFee], at: int) -> Reason | None:
    member = state.membership.members.get(act.payload.member)
    if member is None or member.status != "admitted" or member.fee_due_ms is None:
        return Reason.of("member_not_active", member=act.payload.member.hex())
    if at < member.fee_due_ms:
        return Reason.of("fee_not_due", due_ms=member.fee_due_ms)
    return state.accounts.check_transfer(_fee_legs(state, act.payload.member, at))


def _fee_legs(state: MembershipState, member: bytes, at: int) -> tuple[Leg, ...]:
    rules = state.coop.statutes_at(at)[1].membership
    if rules.yearly_fee_minor == 0:
        return ()
    return (Leg(claims_account(member, rules.fee_unit), own_account(rules.fee_unit), rules.yearly_fee_minor, "fee"),)


def _charge_fee(state: MembershipState, act: Act[ChargeFee], at: int) -> list[Fact]:
    member_id = act.payload.member
    rules = state.coop.statutes_at(at)[1].membership
    member = state.membership.members[member_id]
    assert member.fee_due_ms is not None
    due = member.fee_due_ms + rules.fee_period_ms
    state.membership.members[member_id] = msgspec.structs.replace(member, fee_due_ms=due)
    return _charge(state, member_id, rules.yearly_fee_minor, rules.fee_unit, due, act.id)


def treasurer_signs(state: MembershipState, act: Act[Any], _at: int) -> SignerRule:
    """Return the rule of an act of the treasurer."""
    return state.coop.office_rule("treasurer") if act.author == TREASURER else NOBODY


def _payment_leg(payment: AttestPayment) -> Leg:
    bank, claims = own_account(payment.unit, BANK), claims_account(payment.member, payment.unit)
    if payment.direction == "in":
        return Leg(bank, claims, payment.amount_minor, "payment")
    return Leg(claims, bank, payment.amount_minor, "payment")


def _check_payment(state: MembershipState, act: Act[AttestPayment], _at: int) -> Reason | None:
    payment = act.payload
    if payment.member not in state.membership.members:
        return Reason.of("member_unknown", member=payment.member.hex())
    claim = state.accounts.balance(claims_account(payment.member, payment.unit))
    if payment.direction == "out" and payment.amount_minor > claim:
        return Reason.of("payment_exceeds_claim", claim_minor=claim)
    return state.accounts.check_transfer((_payment_leg(payment),))


def _attest_payment(state: MembershipState, act: Act[AttestPayment], _at: int) -> list[Fact]:
    payment = act.payload
    attested = facts.PaymentAttested(
        member=payment.member, direction=payment.direction, amount_minor=payment.amount_minor, unit=payment.unit
    )
    return [attested, *state.accounts.transfer(act.id, (_payment_leg(payment),))]


def _concerned(_state: MembershipState, act: Act[Any]) -> tuple[bytes, ...]:
    return (act.payload.member,) if act.author is None else (act.author, act.payload.member)


def _grant_signers(state: MembershipState, act: Act[GrantMandate], at: int) -> SignerRule:
    rule = member_signs(state, act.author, OWNER, at)
    new_person = act.payload.new_person
    return rule if new_person is None else (*rule, Need(1, frozenset((new_person.public_key,))))


def _check_grant(state: MembershipState, act: Act[GrantMandate], _at: int) -> Reason | None:
    assert act.author is not None
    grant = act.payload
    if not state.membership.is_active(act.author):
        return Reason.of("member_not_active", member=act.author.hex())
    if grant.new_person is not None and grant.mandate.person != object_id(act.id, 1):
        return Reason.of("person_unknown", person=grant.mandate.person.hex())
    if grant.new_person is None and grant.mandate.person not in state.coop.persons:
        return Reason.of("person_unknown", person=grant.mandate.person.hex())
    reason = check_new_person(state, act.id, grant.new_person)
    if reason is not None:
        return reason
    others = [one for one in state.membership.mandates[act.author] if one.person != grant.mandate.person]
    if len(others) >= MAX_MANDATES:
        return Reason.of("mandates_full", maximum=MAX_MANDATES)
    return _check_owner_left((*others, grant.mandate))


def _check_owner_left(mandates: tuple[Mandate, ...]) -> Reason | None:
    """A member keeps a person who can do everything without limit or end, else nobody could ever mend its mandates."""
    owners = [one for one in mandates if OWNER in one.scopes and one.until_ms is None and one.from_ms == 0]
    return None if owners else Reason.of("owner_needed")


def _grant(state: MembershipState, act: Act[GrantMandate], at: int) -> list[Fact]:
    assert act.author is not None
    grant = act.payload
    result = _enter_person(state, grant.mandate.person, grant.new_person, at) if grant.new_person else []
    others = tuple(one for one in state.membership.mandates[act.author] if one.person != grant.mandate.person)
    state.membership.mandates[act.author] = (*others, grant.mandate)
    return [*result, _granted(act.author, grant.mandate)]


def _revoke_signers(state: MembershipState, act: Act[RevokeMandate], at: int) -> SignerRule:
    return member_signs(state, act.author, OWNER, at)


def _check_revoke(state: MembershipState, act: Act[RevokeMandate], _at: int) -> Reason | None:
    assert act.author is not None
    mandates = state.membership.mandates[act.author]
    others = tuple(one for one in mandates if one.person != act.payload.person)
    if len(others) == len(mandates):
        return Reason.of("mandate_unknown", person=act.payload.person.hex())
    return _check_owner_left(others)


def _revoke(state: MembershipState, act: Act[RevokeMandate], _at: int) -> list[Fact]:
    assert act.author is not None
    person = act.payload.person
    mandates = state.membership.mandates[act.author]
    state.membership.mandates[act.author] = tuple(one for one in mandates if one.person != person)
    return [facts.MandateRevoked(member=act.author, person=person)]


APPLY: Final[EntryType[MembershipState, Apply]] = EntryType(
    tag="membership.apply",
    payload=Apply,
    visibility=Visibility.MEMBERS,
    signers=_apply_signers,
    check=_check_apply,
    effect=_apply,
    reasons=("handle_taken", "key_not_usable", "college_unknown", "applications_full", "own_applications_full"),
    introduces=_introduced,
)
ADMIT: Final[EntryType[MembershipState, Admit]] = EntryType(
    tag="membership.admit",
    payload=Admit,
    visibility=Visibility.MEMBERS,
    signers=_board,
    check=_check_admit,
    effect=_admit,
    reasons=("member_not_applied", "application_lapsed", "college_unknown", "upper_limit_exceeded"),
    parties=_concerned,
)
DECLINE: Final[EntryType[MembershipState, Decline]] = EntryType(
    tag="membership.decline",
    payload=Decline,
    visibility=Visibility.MEMBERS,
    signers=_board,
    check=_check_decline,
    effect=_decline,
    reasons=("member_not_applied", "application_lapsed"),
    parties=_concerned,
)
LEAVE: Final[EntryType[MembershipState, Leave]] = EntryType(
    tag="membership.leave",
    payload=Leave,
    visibility=Visibility.MEMBERS,
    signers=_leave_signers,
    check=_check_leave,
    effect=_leave,
    reasons=("member_not_active", "account_not_settled"),
)
EXCLUDE: Final[EntryType[MembershipState, Exclude]] = EntryType(
    tag="membership.exclude",
    payload=Exclude,
    visibility=Visibility.MEMBERS,
    signers=_board,
    check=_check_exclude,
    effect=_exclude,
    reasons=("member_not_active",),
    parties=_concerned,
)
CHARGE_FEE: Final[EntryType[MembershipState, ChargeFee]] = EntryType(
    tag="membership.charge_fee",
    payload=ChargeFee,
    visibility=Visibility.PARTIES,
    signers=_treasurer_or_node,
    check=_check_fee,
    effect=_charge_fee,
    reasons=("member_not_active", "fee_not_due", *ACCOUNT_REASONS),
    parties=_concerned,
)
ATTEST_PAYMENT: Final[EntryType[MembershipState, AttestPayment]] = EntryType(
    tag="membership.attest_payment",
    payload=AttestPayment,
    visibility=Visibility.PARTIES,
    signers=treasurer_signs,
    check=_check_payment,
    effect=_attest_payment,
    reasons=("member_unknown", "payment_exceeds_claim", *ACCOUNT_REASONS),
    parties=_concerned,
)
GRANT_MANDATE: Final[EntryType[MembershipState, GrantMandate]] = EntryType(
    tag="membership.grant_mandate",
    payload=GrantMandate,
    visibility=Visibility.PARTIES,
    signers=_grant_signers,
    check=_check_grant,
    effect=_grant,
    reasons=("member_not_active", "person_unknown", "handle_taken", "key_not_usable", "mandates_full", "owner_needed"),
    introduces=_introduced,
)
REVOKE_MANDATE: Final[EntryType[MembershipState, RevokeMandate]] = EntryType(
    tag="membership.revoke_mandate",
    payload=RevokeMandate,
    visibility=Visibility.PARTIES,
    signers=_revoke_signers,
    check=_check_revoke,
    effect=_revoke,
    reasons=("mandate_unknown", "owner_needed"),
)
MEMBERSHIP_TYPES: Final[tuple[AnyEntryType, ...]] = (
    APPLY,
    ADMIT,
    DECLINE,
    LEAVE,
    EXCLUDE,
    CHARGE_FEE,
    ATTEST_PAYMENT,
    GRANT_MANDATE,
    REVOKE_MANDATE,
    *KEY_TYPES,
)
