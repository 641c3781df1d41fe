# SPDX-License-Identifier: AGPL-3.0-or-later
"""The acts after the genesis: offices, statutes by the board, node keys, rules, seals, withdrawals."""

from typing import Annotated, Any, Final, Protocol

import msgspec

from ecot_protocol.domains.coop import facts
from ecot_protocol.domains.coop.state import (
    MAX_PERSONS_PER_OFFICE,
    MAX_WITHDRAWALS_PER_PERSON,
    ML_DSA_COSIGNER,
    CoopState,
    NodeKey,
    NodeKeyPurpose,
    Office,
    Seal,
    Withdrawal,
    board_signs,
)
from ecot_protocol.domains.coop.statutes import Statutes, find_statutes_problem
from ecot_protocol.ledger.entry_type import BOARD, NOBODY, THE_NODE, Act, EntryType, Need, SignerRule, Visibility
from ecot_protocol.ledger.facts import Fact
from ecot_protocol.ledger.reasons import Reason
from ecot_protocol.ledger.used_ids import ID_MAX_AGE_MS
from ecot_protocol.wire.encoding import Count, Hash, Id, Positive, Wire, Word
from ecot_protocol.wire.ids import time_ms
from ecot_protocol.wire.keys import MlDsaKey, PublicKey, is_ml_dsa_key


class Appoint(Wire):
    """Payload of ``coop.appoint``: these persons hold the office from now on; an empty list ends it."""

    office: Word
    persons: Annotated[tuple[Id, ...], msgspec.Meta(max_length=MAX_PERSONS_PER_OFFICE)]
    threshold: Positive


class AmendStatutes(Wire):
    """Payload of ``coop.amend_statutes``: the board adopts the whole next version of the statutes."""

    in_force_from_ms: Count
    statutes: Statutes
    version: Positive


class ReplaceNodeKey(Wire):
    """Payload of ``coop.replace_node_key``; the new key signs too, which proves that the node has it."""

    public_key: PublicKey
    purpose: NodeKeyPurpose


class NameCosigner(Wire):
    """Payload of ``coop.name_cosigner``: the ML-DSA-44 key with which the node cosigns beside its Ed25519 key, or nil.

    The key can't sign entries, and need not: a cosignature of it names its cosigner, so whoever names another's key
    gains nothing.
    """

    public_key: MlDsaKey | None


class RaiseRules(Wire):
    """Payload of ``coop.raise_rules``: entries after this record are judged by these rules."""

    rules: Positive


class Withdraw(Wire):
    """Payload of ``coop.withdraw``: the author, a person, takes back a signature under a body that isn't recorded.

    `body_hash` is the SHA-256 of the body, `entry_id` the id in it: it tells until when the withdrawal is kept. (A body
    may have been signed long before the time of its id, so the day of the withdrawal can't tell.)
    """

    body_hash: Hash
    entry_id: Id


class SealState(Wire):
    """Payload of ``coop.seal``: the state digest of the `size` records before this one."""

    digest: Hash
    size: Count


def _board(state: CoopState, act: Act[Any], _at: int) -> SignerRule:
    return board_signs(state, act.author)


def _check_appoint(state: CoopState, act: Act[Appoint], _at: int) -> Reason | None:
    appoint = act.payload
    for person in appoint.persons:
        if person not in state.coop.persons:
            return Reason.of("person_unknown", person=person.hex())
    if list(appoint.persons) != sorted(set(appoint.persons)):
        return Reason.of("persons_not_sorted")
    if appoint.office == "board" and not appoint.persons:
        return Reason.of("board_needed")
    if appoint.persons and appoint.threshold > len(appoint.persons):
        return Reason.of("office_threshold_impossible")
    return None


def _appoint(state: CoopState, act: Act[Appoint], _at: int) -> list[Fact]:
    appoint = act.payload
    if appoint.persons:
        state.coop.offices[appoint.office] = Office(persons=appoint.persons, threshold=appoint.threshold)
    elif appoint.office in state.coop.offices:
        del state.coop.offices[appoint.office]
    return [facts.OfficeHeld(office=appoint.office, persons=appoint.persons, threshold=appoint.threshold)]


def check_statutes(state: CoopState, statutes: Statutes, version: int, in_force_from_ms: int, at: int) -> Reason | None:
    """Tell why a next version of the statutes can't be recorded, or None.

    Returns:
        ``statutes_version_mismatch``, ``statutes_in_the_past`` (a version never takes force before its record; one that
        takes force before a version that was adopted earlier replaces it), ``statutes_unsound``.
    """
    newest = state.coop.founded.statutes_version
    if version != newest + 1:
        return Reason.of("statutes_version_mismatch", expected=newest + 1)
    if in_force_from_ms < at:
        return Reason.of("statutes_in_the_past", at_ms=at)
    problem = find_statutes_problem(statutes, (unit.code for unit in state.coop.founded.units))
    return Reason.of("statutes_unsound", field=problem) if problem else None


STATUTES_REASONS: Final = ("statutes_version_mismatch", "statutes_in_the_past", "statutes_unsound")


def adopt_statutes(state: CoopState, statutes: Statutes, in_force_from_ms: int, by: bytes) -> Fact:
    """Record the next version of the statutes; `by` is the poll or the board that adopted it."""
    version = state.coop.put_statutes(statutes, in_force_from_ms)
    return facts.StatutesAdopted(version=version, in_force_from_ms=in_force_from_ms, statutes=statutes, by=by)


def _check_amend(state: CoopState, act: Act[AmendStatutes], at: int) -> Reason | None:
    if state.coop.statutes_at(at)[1].governance.statutes_amended_by != "board":
        return Reason.of("poll_required")
    amend = act.payload
    return check_statutes(state, amend.statutes, amend.version, amend.in_force_from_ms, at)


def _amend(state: CoopState, act: Act[AmendStatutes], _at: int) -> list[Fact]:
    return [adopt_statutes(state, act.payload.statutes, act.payload.in_force_from_ms, BOARD)]


def _node_key_signers(state: CoopState, act: Act[ReplaceNodeKey], _at: int) -> SignerRule:
    return (*board_signs(state, act.author), Need(1, frozenset((act.payload.public_key,))))


def _check_node_key(state: CoopState, act: Act[ReplaceNodeKey], _at: int) -> Reason | None:
    return None if state.coop.is_key_free(act.payload.public_key) else Reason.of("key_not_usable")


def _replace_node_key(state: CoopState, act: Act[ReplaceNodeKey], _at: int) -> list[Fact]:
    replacement = act.payload
    state.coop.node_keys[replacement.purpose] = NodeKey(public_key=replacement.public_key, since_index=act.index)
    return [facts.NodeKeyReplaced(purpose=replacement.purpose, public_key=replacement.public_key)]


def _check_cosigner(state: CoopState, act: Act[NameCosigner], _at: int) -> Reason | None:
    public_key = act.payload.public_key
    named = state.coop.node_keys.get(ML_DSA_COSIGNER)
    if public_key == (named.public_key if named is not None else None):
        return Reason.of("key_not_usable")
    return None if public_key is None or is_ml_dsa_key(public_key) else Reason.of("key_not_usable")


def _name_cosigner(state: CoopState, act: Act[NameCosigner], _at: int) -> list[Fact]:
    public_key = act.payload.public_key
    if public_key is None:
        del state.coop.node_keys[ML_DSA_COSIGNER]
    else:
        state.coop.node_keys[ML_DSA_COSIGNER] = NodeKey(public_key=public_key, since_index=act.index)
    return [facts.NodeKeyReplaced(purpose=ML_DSA_COSIGNER, public_key=public_key or b"")]


def _check_rules(state: CoopState, act: Act[RaiseRules], _at: int) -> Reason | None:
    expected = state.coop.founded.rules + 1
    return None if act.payload.rules == expected else Reason.of("rules_number_mismatch", expected=expected)


def _raise_rules(state: CoopState, act: Act[RaiseRules], _at: int) -> list[Fact]:
    state.coop.profile[""] = msgspec.structs.replace(state.coop.founded, rules=act.payload.rules)
    return [facts.RulesRaised(rules=act.payload.rules)]


def _withdraw_signers(state: CoopState, act: Act[Withdraw], _at: int) -> SignerRule:
    author = act.author
    return (Need(1, frozenset((author,))),) if author is not None and author in state.coop.persons else NOBODY


def _withdrawals_at(state: CoopState, person: bytes, at: int) -> tuple[Withdrawal, ...]:
    """Return those of the person that a body could still meet."""
    return tuple(one for one in state.coop.withdrawals.get(person) or () if at < one.over_ms)


def _over_ms(entry_id: bytes) -> int:
    """Return from when an entry with the id is refused for its age."""
    return time_ms(entry_id) + ID_MAX_AGE_MS + 1


def _check_withdraw(state: CoopState, act: Act[Withdraw], at: int) -> Reason | None:
    assert act.author is not None
    if _over_ms(act.payload.entry_id) <= at:
        return Reason.of("signature_lapsed")
    if state.coop.is_withdrawn(act.author, act.payload.body_hash):
        return Reason.of("withdrawn_before")
    if len(_withdrawals_at(state, act.author, at)) >= MAX_WITHDRAWALS_PER_PERSON:
        return Reason.of("withdrawals_full", maximum=MAX_WITHDRAWALS_PER_PERSON)
    return None


def _withdraw(state: CoopState, act: Act[Withdraw], at: int) -> list[Fact]:
    assert act.author is not None
    kept = _withdrawals_at(state, act.author, at)
    state.coop.withdrawals[act.author] = (*kept, Withdrawal(act.payload.body_hash, _over_ms(act.payload.entry_id)))
    return [facts.SignatureWithdrawn(person=act.author, body_hash=act.payload.body_hash)]


class SealableState(CoopState, Protocol):
    """A state that knows its own digest."""

    @property
    def size(self) -> int: ...

    def digest(self) -> bytes: ...


def _seal_signers(_state: SealableState, act: Act[SealState], _at: int) -> SignerRule:
    return THE_NODE if act.author is None else NOBODY


def _check_seal(state: SealableState, act: Act[SealState], _at: int) -> Reason | None:
    if act.payload.size != state.size:
        return Reason.of("seal_size_mismatch", expected=state.size)
    return None if act.payload.digest == state.digest() else Reason.of("seal_digest_mismatch")


def _seal(state: SealableState, act: Act[SealState], _at: int) -> list[Fact]:
    state.coop.seals[""] = Seal(digest=act.payload.digest, index=act.index, size=act.payload.size)
    return [facts.Sealed(size=act.payload.size, digest=act.payload.digest)]


APPOINT: Final[EntryType[CoopState, Appoint]] = EntryType(
    tag="coop.appoint",
    payload=Appoint,
    visibility=Visibility.MEMBERS,
    signers=_board,
    check=_check_appoint,
    effect=_appoint,
    reasons=("person_unknown", "persons_not_sorted", "board_needed", "office_threshold_impossible"),
)
AMEND_STATUTES: Final[EntryType[CoopState, AmendStatutes]] = EntryType(
    tag="coop.amend_statutes",
    payload=AmendStatutes,
    visibility=Visibility.MEMBERS,
    signers=_board,
    check=_check_amend,
    effect=_amend,
    reasons=("poll_required", *STATUTES_REASONS),
)
REPLACE_NODE_KEY: Final[EntryType[CoopState, ReplaceNodeKey]] = EntryType(
    tag="coop.replace_node_key",
    payload=ReplaceNodeKey,
    visibility=Visibility.PUBLIC,
    signers=_node_key_signers,
    check=_check_node_key,
    effect=_replace_node_key,
    reasons=("key_not_usable",),
    introduces=lambda payload: (payload.public_key,),
)
NAME_COSIGNER: Final[EntryType[CoopState, NameCosigner]] = EntryType(
    tag="coop.name_cosigner",
    payload=NameCosigner,
    visibility=Visibility.PUBLIC,
    signers=_board,
    check=_check_cosigner,
    effect=_name_cosigner,
    reasons=("key_not_usable",),
)
RAISE_RULES: Final[EntryType[CoopState, RaiseRules]] = EntryType(
    tag="coop.raise_rules",
    payload=RaiseRules,
    visibility=Visibility.PUBLIC,
    signers=_board,
    check=_check_rules,
    effect=_raise_rules,
    reasons=("rules_number_mismatch",),
)
WITHDRAW: Final[EntryType[CoopState, Withdraw]] = EntryType(
    tag="coop.withdraw",
    payload=Withdraw,
    visibility=Visibility.PARTIES,
    signers=_withdraw_signers,
    check=_check_withdraw,
    effect=_withdraw,
    reasons=("signature_lapsed", "withdrawn_before", "withdrawals_full"),
)
SEAL: Final[EntryType[SealableState, SealState]] = EntryType(
    tag="coop.seal",
    payload=SealState,
    visibility=Visibility.PUBLIC,
    signers=_seal_signers,
    check=_check_seal,
    effect=_seal,
    reasons=("seal_size_mismatch", "seal_digest_mismatch"),
)
