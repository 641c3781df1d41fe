# SPDX-License-Identifier: AGPL-3.0-or-later
"""``federation.owe``, ``claim``, ``withdraw_obligation``: what members owe each other, offered for clearing.

An *obligation* is a debt between two members, of the same ledger or of two, that stands in no account: an unpaid
invoice. It is one statement. The debtor offers it for clearing in its ledger (`owe`), the creditor in its own
(`claim`); what only one of them says counts for nothing. Rounds then clear parts of it: nobody's net position changes,
and nobody gets another counterparty.

- A statement names the entry by which the debtor acknowledges it, so it can be acknowledged once.
- The two members are named by commitments; each side opens its own to its own ledger alone.
- What a round that is not decided yet would clear is *held*, and can't be withdrawn meanwhile.
- An obligation that is cleared in full, or withdrawn, is forgotten.
"""

from typing import Any, Final

import msgspec

from ecot_protocol.domains.federation import facts
from ecot_protocol.domains.federation.deals import DealBytes, commit_member, deal_id
from ecot_protocol.domains.federation.proofs import proof_wrong
from ecot_protocol.domains.federation.state import FederationSlice, FederationState, Hold, Offered
from ecot_protocol.domains.federation.statements import encode_terms
from ecot_protocol.domains.membership.state import member_signs
from ecot_protocol.domains.trade.state import TRADE
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.ledger.attachments import MemoCommitment
from ecot_protocol.ledger.entry_type import Act, EntryType, SignerRule, Visibility
from ecot_protocol.ledger.facts import Fact
from ecot_protocol.ledger.reasons import Reason
from ecot_protocol.ledger.table import Table
from ecot_protocol.wire.encoding import Codec, Count, Hash, Id, Positive, UnitCode, Wire
from ecot_protocol.wire.statement import decode_statement

MAX_OBLIGATIONS_EACH: Final = 1_000
"""Obligations that one member may offer at a time."""


class Obligation(Wire):
    """Payload of the statement: who owes whom how much.

    Attributes:
        amount_minor: in minor units of `unit`.
        creditor, debtor: commitments (`commit_member`).
        creditor_ledger, debtor_ledger: ids; may be the same.
        due_ms: when it is due, milliseconds since 1970; nil: at once.
        entry: id of the debtor's ``federation.owe``.
        invoice: commitment of the invoice that it stands for; nil: none.
        unit: of both ledgers.
    """

    amount_minor: Positive
    creditor: Hash
    creditor_ledger: Hash
    debtor: Hash
    debtor_ledger: Hash
    due_ms: Count | None
    entry: Id
    invoice: Hash | None
    unit: UnitCode


class Owe(Wire):
    """Payload of ``federation.owe``: the author owes this, and offers it for clearing; `salt` opens the debtor."""

    memo: MemoCommitment | None
    obligation: DealBytes
    salt: Hash


class Claim(Wire):
    """Payload of ``federation.claim``: the author is owed this, and offers it to clearing; `salt` opens its side."""

    memo: MemoCommitment | None
    obligation: DealBytes
    salt: Hash


class WithdrawObligation(Wire):
    """Payload of ``federation.withdraw_obligation``: the author takes back what it offered, in part cleared or not."""

    is_debtor: bool
    obligation: Id


OBLIGATION: Final = Codec(Obligation)


def encode_obligation(obligation: Obligation) -> bytes:
    """Return the statement of an obligation."""
    return encode_terms("obligation", obligation, tuple(sorted({obligation.debtor_ledger, obligation.creditor_ledger})))


def decode_obligation(raw: bytes) -> tuple[bytes, Obligation]:
    """Read the statement of an obligation; return its id (16 bytes) and what it says.

    Raises:
        RemoteProtocolError: ``obligation_unsound``, or a code of `decode_statement`.
    """
    statement = decode_statement(raw)
    if statement.type != "obligation":
        raise RemoteProtocolError("obligation_unsound", "type", field="type")
    obligation = OBLIGATION.decode(bytes(statement.payload))
    if statement.ledgers != tuple(sorted({obligation.debtor_ledger, obligation.creditor_ledger})):
        raise RemoteProtocolError("obligation_unsound", "ledgers", field="ledgers")
    if obligation.debtor == obligation.creditor:
        raise RemoteProtocolError("obligation_unsound", "creditor", field="creditor")
    return deal_id(raw), obligation


def rows_of(slice_: FederationSlice, *, is_debtor: bool) -> Table[bytes, Offered]:
    """Return the table of what members owe, or of what they are owed."""
    return slice_.owed if is_debtor else slice_.claimed


def _signers(state: FederationState, act: Act[Any], at: int) -> SignerRule:
    return member_signs(state, act.author, TRADE, at)


def _evidence(payload: Owe | Claim) -> Reason | None:
    try:
        decode_obligation(payload.obligation)
    except RemoteProtocolError as error:
        return proof_wrong(error)
    return None


def _check_offer(state: FederationState, act: Act[Any], *, is_debtor: bool) -> Reason | None:
    number, obligation = decode_obligation(act.payload.obligation)
    assert act.author is not None
    if not state.membership.is_active(act.author):
        return Reason.of("member_not_active", member=act.author.hex())
    ledger, own, holder = state.coop.founded.ledger, obligation.debtor, obligation.debtor_ledger
    if not is_debtor:
        own, holder = obligation.creditor, obligation.creditor_ledger
    is_named = holder == ledger and own == commit_member(act.payload.salt, ledger, act.author)
    if not is_named or (is_debtor and obligation.entry != act.id):
        return Reason.of("contract_mismatch")
    if state.coop.unit(obligation.unit) is None:
        return Reason.of("clearing_unit_wrong", unit=obligation.unit)
    if number in rows_of(state.federation, is_debtor=is_debtor):
        return Reason.of("obligation_known", obligation=number.hex())
    if (state.federation.offers.get(act.author) or 0) >= MAX_OBLIGATIONS_EACH:
        return Reason.of("obligations_too_many", limit=MAX_OBLIGATIONS_EACH)
    return None


def _check_owe(state: FederationState, act: Act[Owe], _at: int) -> Reason | None:
    return _check_offer(state, act, is_debtor=True)


def _check_claim(state: FederationState, act: Act[Claim], _at: int) -> Reason | None:
    return _check_offer(state, act, is_debtor=False)


def _offer(state: FederationState, act: Act[Any], *, is_debtor: bool) -> list[Fact]:
    number, obligation = decode_obligation(act.payload.obligation)
    assert act.author is not None
    other = obligation.creditor_ledger if is_debtor else obligation.debtor_ledger
    rows_of(state.federation, is_debtor=is_debtor)[number] = Offered(
        amount_minor=obligation.amount_minor,
        held_minor=0,
        member=act.author,
        other_ledger=other,
        unit=obligation.unit,
    )
    state.federation.offers[act.author] = (state.federation.offers.get(act.author) or 0) + 1
    offered = facts.ObligationOffered(
        obligation=number,
        is_debtor=is_debtor,
        member=act.author,
        other_ledger=other,
        unit=obligation.unit,
        amount_minor=obligation.amount_minor,
        due_ms=obligation.due_ms,
    )
    return [offered]


def _owe(state: FederationState, act: Act[Owe], _at: int) -> list[Fact]:
    return _offer(state, act, is_debtor=True)


def _claim(state: FederationState, act: Act[Claim], _at: int) -> list[Fact]:
    return _offer(state, act, is_debtor=False)


def _check_withdraw(state: FederationState, act: Act[WithdrawObligation], _at: int) -> Reason | None:
    row = rows_of(state.federation, is_debtor=act.payload.is_debtor).get(act.payload.obligation)
    if row is None or row.member != act.author:
        return Reason.of("obligation_unknown", obligation=act.payload.obligation.hex())
    if row.held_minor:
        return Reason.of("obligation_held", held_minor=row.held_minor)
    return None


def _withdraw(state: FederationState, act: Act[WithdrawObligation], _at: int) -> list[Fact]:
    number, is_debtor = act.payload.obligation, act.payload.is_debtor
    left_minor = rows_of(state.federation, is_debtor=is_debtor)[number].amount_minor
    _forget(state.federation, number, is_debtor=is_debtor)
    return [facts.ObligationWithdrawn(obligation=number, is_debtor=is_debtor, left_minor=left_minor)]


def _forget(slice_: FederationSlice, number: bytes, *, is_debtor: bool) -> None:
    rows = rows_of(slice_, is_debtor=is_debtor)
    member = rows[number].member
    del rows[number]
    left = (slice_.offers.get(member) or 0) - 1
    if left > 0:
        slice_.offers[member] = left
    else:
        del slice_.offers[member]


def find_hold_problem(slice_: FederationSlice, hold: Hold, unit: str) -> Reason | None:
    """Tell why a part of an obligation can't be held: ``obligation_unknown``, ``debt_too_small``."""
    row = rows_of(slice_, is_debtor=hold.is_debtor).get(hold.obligation)
    if row is None or row.unit != unit:
        return Reason.of("obligation_unknown", obligation=hold.obligation.hex())
    if row.amount_minor - row.held_minor < hold.amount_minor:
        return Reason.of("debt_too_small", partner=row.other_ledger.hex(), amount_minor=hold.amount_minor)
    return None


def hold_part(slice_: FederationSlice, hold: Hold) -> None:
    """Hold a part of an obligation; `find_hold_problem` found nothing."""
    rows = rows_of(slice_, is_debtor=hold.is_debtor)
    row = rows[hold.obligation]
    rows[hold.obligation] = msgspec.structs.replace(row, held_minor=row.held_minor + hold.amount_minor)


def release_part(slice_: FederationSlice, hold: Hold, *, is_cleared: bool) -> list[Fact]:
    """End a hold: the part is cleared, or is owed as before."""
    rows = rows_of(slice_, is_debtor=hold.is_debtor)
    row = rows[hold.obligation]
    cleared_minor = hold.amount_minor if is_cleared else 0
    left_minor = row.amount_minor - cleared_minor
    rows[hold.obligation] = msgspec.structs.replace(
        row, amount_minor=left_minor, held_minor=row.held_minor - hold.amount_minor
    )
    if not is_cleared:
        return []
    if left_minor == 0:
        _forget(slice_, hold.obligation, is_debtor=hold.is_debtor)
    cleared = facts.ObligationCleared(
        obligation=hold.obligation,
        is_debtor=hold.is_debtor,
        member=row.member,
        unit=row.unit,
        cleared_minor=cleared_minor,
        left_minor=left_minor,
    )
    return [cleared]


OFFER_REASONS: Final = (
    "evidence_wrong",
    "member_not_active",
    "contract_mismatch",
    "clearing_unit_wrong",
    "obligation_known",
    "obligations_too_many",
)
OWE: Final[EntryType[FederationState, Owe]] = EntryType(
    tag="federation.owe",
    payload=Owe,
    visibility=Visibility.PARTIES,
    signers=_signers,
    check=_check_owe,
    effect=_owe,
    evidence=_evidence,
    reasons=OFFER_REASONS,
)
CLAIM: Final[EntryType[FederationState, Claim]] = EntryType(
    tag="federation.claim",
    payload=Claim,
    visibility=Visibility.PARTIES,
    signers=_signers,
    check=_check_claim,
    effect=_claim,
    evidence=_evidence,
    reasons=OFFER_REASONS,
)
WITHDRAW_OBLIGATION: Final[EntryType[FederationState, WithdrawObligation]] = EntryType(
    tag="federation.withdraw_obligation",
    payload=WithdrawObligation,
    visibility=Visibility.PARTIES,
    signers=_signers,
    check=_check_withdraw,
    effect=_withdraw,
    reasons=("obligation_unknown", "obligation_held"),
)
