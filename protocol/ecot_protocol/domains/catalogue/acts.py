# SPDX-License-Identifier: AGPL-3.0-or-later
"""The acts of the catalogue: register works, change their splits, withdraw them.

- A split is one body that every rights-holder signs, by one mandated person each; the author is one of them. A person
  who is mandated by two of them signs once.
- A change of splits is signed by the old and the new rights-holders. An old one may have left the cooperative; a new
  one is a member.
- A work is withdrawn by all its rights-holders, or by the board (a claim on the rights, an unlawful content).
- An identifier that names a single work stands with one work at a time, so that nothing is paid twice.
"""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Final

import msgspec

from ecot_protocol.domains.catalogue import facts
from ecot_protocol.domains.catalogue.identifiers import SHARED_SCHEMES, Identifier, is_identifier
from ecot_protocol.domains.catalogue.state import (
    CATALOGUE_SCOPE,
    SHARE_TOTAL_BP,
    CatalogueState,
    Holder,
    Holders,
    Identifiers,
    Kind,
    Work,
)
from ecot_protocol.domains.coop.state import board_signs
from ecot_protocol.domains.membership.state import member_signs
from ecot_protocol.ledger.attachments import ReasonCommitment, TitleCommitment
from ecot_protocol.ledger.entry_type import BOARD, NOBODY, Act, AnyEntryType, EntryType, SignerRule, Visibility
from ecot_protocol.ledger.facts import Fact
from ecot_protocol.ledger.reasons import Reason
from ecot_protocol.wire.encoding import Id, Wire
from ecot_protocol.wire.ids import object_id

MAX_WORKS_PER_BATCH: Final = 200


class RegisterWork(Wire):
    """Payload of ``catalogue.register_work``; the work has the entry's id. Shares sum to 10,000."""

    holders: Holders
    identifiers: Identifiers
    kind: Kind
    title: TitleCommitment | None


class BatchWork(Wire):
    """One work of a batch."""

    identifiers: Identifiers
    kind: Kind


class RegisterWorks(Wire):
    """Payload of ``catalogue.register_works``: many works whose only rights-holder is the author.

    The n-th work (from 1) has the n-th further id of the entry. `titles` commits to one attachment, a MessagePack array
    of their titles in the same order.
    """

    titles: TitleCommitment | None
    works: Annotated[tuple[BatchWork, ...], msgspec.Meta(min_length=1, max_length=MAX_WORKS_PER_BATCH)]


class ChangeSplits(Wire):
    """Payload of ``catalogue.change_splits``: the new holders of a work."""

    holders: Holders
    work: Id


class WithdrawWork(Wire):
    """Payload of ``catalogue.withdraw_work``."""

    reason: ReasonCommitment | None
    work: Id


def _all_sign(state: CatalogueState, author: bytes | None, members: Iterable[bytes], at: int) -> SignerRule:
    everyone = list(dict.fromkeys(members))
    if author not in everyone:
        return NOBODY
    return tuple(need for member in everyone for need in member_signs(state, member, CATALOGUE_SCOPE, at))


def _check_holders(state: CatalogueState, holders: Sequence[Holder], known: frozenset[bytes]) -> Reason | None:
    """Tell why these can't be the holders of a work; those in `known` need not be members any more."""
    members = [holder.member for holder in holders]
    for member in members:
        if member not in known and not state.membership.is_active(member):
            return Reason.of("member_not_active", member=member.hex())
    if len({*members}) != len(members):
        return Reason.of("holder_repeated")
    total = sum(holder.share_bp for holder in holders)
    return (
        None if total == SHARE_TOTAL_BP else Reason.of("shares_sum_wrong", total_bp=total, expected_bp=SHARE_TOTAL_BP)
    )


def _check_identifiers(state: CatalogueState, identifiers: Sequence[Identifier]) -> Reason | None:
    for identifier in identifiers:
        if not is_identifier(identifier.scheme, identifier.value):
            return Reason.of("identifier_malformed", scheme=identifier.scheme, value=identifier.value)
        if identifier.scheme not in SHARED_SCHEMES and identifier in state.catalogue.identifiers:
            return Reason.of("identifier_taken", scheme=identifier.scheme, value=identifier.value)
    unique = [identifier for identifier in identifiers if identifier.scheme not in SHARED_SCHEMES]
    return None if len({*unique}) == len(unique) else Reason.of("identifier_repeated")


def _enter(
    state: CatalogueState,
    work_id: bytes,
    work: RegisterWork | BatchWork,
    holders: tuple[Holder, ...],
    at: int,
    *,
    place: int | None,
) -> Fact:
    state.catalogue.works[work_id] = Work(
        holders=holders, identifiers=work.identifiers, kind=work.kind, since_ms=at, withdrawn_ms=None
    )
    for identifier in work.identifiers:
        if identifier.scheme not in SHARED_SCHEMES:
            state.catalogue.identifiers[identifier] = work_id
    return facts.WorkRegistered(
        work=work_id,
        kind=work.kind,
        identifiers=tuple((one.scheme, one.value) for one in work.identifiers),
        holders=_pairs(holders),
        place=place,
    )


def _pairs(holders: Iterable[Holder]) -> tuple[tuple[bytes, int], ...]:
    return tuple((holder.member, holder.share_bp) for holder in holders)


def _register_signers(state: CatalogueState, act: Act[RegisterWork], at: int) -> SignerRule:
    return _all_sign(state, act.author, (holder.member for holder in act.payload.holders), at)


def _check_register(state: CatalogueState, act: Act[RegisterWork], _at: int) -> Reason | None:
    reason = _check_holders(state, act.payload.holders, frozenset())
    return reason or _check_identifiers(state, act.payload.identifiers)


def _register(state: CatalogueState, act: Act[RegisterWork], at: int) -> list[Fact]:
    return [_enter(state, act.id, act.payload, act.payload.holders, at, place=None)]


def _register_parties(_state: CatalogueState, act: Act[RegisterWork]) -> tuple[bytes, ...]:
    return tuple(holder.member for holder in act.payload.holders)


def _batch_signers(state: CatalogueState, act: Act[RegisterWorks], at: int) -> SignerRule:
    return member_signs(state, act.author, CATALOGUE_SCOPE, at)


def _check_batch(state: CatalogueState, act: Act[RegisterWorks], _at: int) -> Reason | None:
    assert act.author is not None
    if not state.membership.is_active(act.author):
        return Reason.of("member_not_active", member=act.author.hex())
    return _check_identifiers(state, [one for work in act.payload.works for one in work.identifiers])


def _register_batch(state: CatalogueState, act: Act[RegisterWorks], at: int) -> list[Fact]:
    assert act.author is not None
    holders = (Holder(act.author, SHARE_TOTAL_BP),)
    return [
        _enter(state, object_id(act.id, place + 1), work, holders, at, place=place)
        for place, work in enumerate(act.payload.works)
    ]


def _work_holders(state: CatalogueState, work_id: bytes) -> tuple[bytes, ...]:
    work = state.catalogue.works.get(work_id)
    return () if work is None else tuple(holder.member for holder in work.holders)


def _change_members(state: CatalogueState, act: Act[ChangeSplits]) -> tuple[bytes, ...]:
    new = (holder.member for holder in act.payload.holders)
    return tuple(dict.fromkeys((*_work_holders(state, act.payload.work), *new)))


def _change_signers(state: CatalogueState, act: Act[ChangeSplits], at: int) -> SignerRule:
    return _all_sign(state, act.author, _change_members(state, act), at)


def _check_change(state: CatalogueState, act: Act[ChangeSplits], _at: int) -> Reason | None:
    if not state.catalogue.is_active(act.payload.work):
        return Reason.of("work_unknown", work=act.payload.work.hex())
    return _check_holders(state, act.payload.holders, frozenset(_work_holders(state, act.payload.work)))


def _change(state: CatalogueState, act: Act[ChangeSplits], _at: int) -> list[Fact]:
    change = act.payload
    state.catalogue.works[change.work] = msgspec.structs.replace(
        state.catalogue.works[change.work], holders=change.holders
    )
    return [facts.SplitsChanged(work=change.work, holders=_pairs(change.holders))]


def _withdraw_signers(state: CatalogueState, act: Act[WithdrawWork], at: int) -> SignerRule:
    if act.author == BOARD:
        return board_signs(state, act.author)
    holders = _work_holders(state, act.payload.work)
    # Of an unknown work a member is told so, rather than that signatures are missing.
    return _all_sign(state, act.author, holders or ((act.author,) if act.author else ()), at)


def _check_withdraw(state: CatalogueState, act: Act[WithdrawWork], _at: int) -> Reason | None:
    known = state.catalogue.is_active(act.payload.work)
    return None if known else Reason.of("work_unknown", work=act.payload.work.hex())


def _withdraw(state: CatalogueState, act: Act[WithdrawWork], at: int) -> list[Fact]:
    assert act.author is not None
    work_id = act.payload.work
    work = state.catalogue.works[work_id]
    state.catalogue.works[work_id] = msgspec.structs.replace(work, withdrawn_ms=at)
    for identifier in work.identifiers:
        if identifier.scheme not in SHARED_SCHEMES:
            del state.catalogue.identifiers[identifier]
    return [facts.WorkWithdrawn(work=work_id, by=act.author)]


def _withdraw_parties(state: CatalogueState, act: Act[Any]) -> tuple[bytes, ...]:
    return tuple(dict.fromkeys((act.author or b"", *_work_holders(state, act.payload.work))))


HOLDER_REASONS: Final = ("member_not_active", "holder_repeated", "shares_sum_wrong")
IDENTIFIER_REASONS: Final = ("identifier_malformed", "identifier_taken", "identifier_repeated")

REGISTER_WORK: Final[EntryType[CatalogueState, RegisterWork]] = EntryType(
    tag="catalogue.register_work",
    payload=RegisterWork,
    visibility=Visibility.MEMBERS,
    signers=_register_signers,
    check=_check_register,
    effect=_register,
    reasons=(*HOLDER_REASONS, *IDENTIFIER_REASONS),
    parties=_register_parties,
)
REGISTER_WORKS: Final[EntryType[CatalogueState, RegisterWorks]] = EntryType(
    tag="catalogue.register_works",
    payload=RegisterWorks,
    visibility=Visibility.MEMBERS,
    signers=_batch_signers,
    check=_check_batch,
    effect=_register_batch,
    reasons=("member_not_active", *IDENTIFIER_REASONS),
)
CHANGE_SPLITS: Final[EntryType[CatalogueState, ChangeSplits]] = EntryType(
    tag="catalogue.change_splits",
    payload=ChangeSplits,
    visibility=Visibility.MEMBERS,
    signers=_change_signers,
    check=_check_change,
    effect=_change,
    reasons=("work_unknown", *HOLDER_REASONS),
    parties=_change_members,
)
WITHDRAW_WORK: Final[EntryType[CatalogueState, WithdrawWork]] = EntryType(
    tag="catalogue.withdraw_work",
    payload=WithdrawWork,
    visibility=Visibility.MEMBERS,
    signers=_withdraw_signers,
    check=_check_withdraw,
    effect=_withdraw,
    reasons=("work_unknown",),
    parties=_withdraw_parties,
)
CATALOGUE_TYPES: Final[tuple[AnyEntryType, ...]] = (REGISTER_WORK, REGISTER_WORKS, CHANGE_SPLITS, WITHDRAW_WORK)
