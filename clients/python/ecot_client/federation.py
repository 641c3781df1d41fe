# SPDX-License-Identifier: AGPL-3.0-or-later
"""What members and boards say to other ledgers: peerings, and transfers over them."""

import os
from typing import Annotated, Final

import msgspec

from ecot_client.entries import new_entry_id
from ecot_client.errors import ProofFailed
from ecot_client.models import LedgerInfo, QuoteInfo, UnitInfo
from ecot_protocol.domains.coop.state import ML_DSA_COSIGNER
from ecot_protocol.domains.federation.deals import DRAFT, Contract, Draft, Hop, commit_member, encode_contract
from ecot_protocol.domains.federation.invitation import Invitation
from ecot_protocol.domains.federation.openings import Opening, seal_opening
from ecot_protocol.domains.federation.peering import Peered
from ecot_protocol.domains.federation.statements import (
    FEDERATION_RULES,
    DecisionPolicy,
    LogKey,
    Peering,
    PeeringStatus,
    Shared,
    Side,
    Witness,
    encode_peering,
)
from ecot_protocol.domains.federation.transfers import Send
from ecot_protocol.errors import LocalProtocolError, RemoteProtocolError
from ecot_protocol.ledger.amounts import Rate
from ecot_protocol.wire.encoding import Codec, Wire
from ecot_protocol.wire.entry import SALT_SIZE_BYTES, Signature
from ecot_protocol.wire.statement import MAX_STATEMENT_SIZE_BYTES, statement_id

PAR: Final = Rate(denominator=1, numerator=1)
_QUOTE: Final = "/v1/transfers/quote"
SHARED_ALL: Final[tuple[Shared, ...]] = ("catalogue", "clearing", "directory", "guide", "market", "transit")
ABORT_AFTER_MS: Final = 120_000
"""From when on the abort of a transfer may be asked for, unless the statutes ask for more."""


def witness_of(side: Side) -> Witness:
    """Return a cooperative's node as a witness; its cosignatures are named like its log."""
    return Witness(ledger=side.ledger, name=side.origin, public_key=side.cosigner)


def decider_of(side: Side, witnesses: tuple[Side, ...], count: int) -> DecisionPolicy:
    """Return the policy for decisions of a side's log.

    Args:
        side: whose log decides.
        witnesses: whose cosignatures count, the side itself among them.
        count: how many of them make a decision count.
    """
    chosen = tuple(sorted((witness_of(one) for one in witnesses), key=lambda one: one.name))
    return DecisionPolicy(
        count=count, ledger=side.ledger, log=LogKey(origin=side.origin, public_key=side.log), witnesses=chosen
    )


def draft_peering(
    first: Side,
    second: Side,
    deciders: tuple[DecisionPolicy, ...],
    *,
    rate: Rate = PAR,
    sequence: int = 1,
    shared: tuple[Shared, ...] | None = None,
    status: PeeringStatus = "active",
) -> bytes:
    """Return the statement of a peering, for both nodes' agents to sign.

    Args:
        first: one side; the rounding is in its favour.
        second: the other.
        deciders: logs whose decisions both accept.
        rate: minor units of the unit of the side with the higher ledger id for one of the other's.
        sequence: higher than that of an older peering of the two.
        shared: what the two show each other, ascending; None: everything.
        status: to suspend or to end a peering together.
    """
    sides = (first, second) if first.ledger < second.ledger else (second, first)
    return encode_peering(
        Peering(
            deciders=tuple(sorted(deciders, key=lambda one: one.ledger)),
            rate=rate,
            rounding=first.ledger,
            rules=FEDERATION_RULES,
            sequence=sequence,
            shared=SHARED_ALL if shared is None else shared,
            sides=sides,
            status=status,
        )
    )


class PeeringFile(Wire):
    """A peering on its way between two boards: the statement, and the agents' signatures that it has so far."""

    signatures: Annotated[tuple[Signature, ...], msgspec.Meta(max_length=2)]
    statement: Annotated[bytes, msgspec.Meta(max_length=MAX_STATEMENT_SIZE_BYTES)]


PEERING_FILE: Final = Codec(PeeringFile)


def side_of(info: LedgerInfo, *, unit: str, limit_minor: int) -> Side:
    """Return a cooperative's side of a peering from what its node says of itself.

    Args:
        info: of the node.
        unit: of the cooperative's own that it trades in.
        limit_minor: the most that it lets the other owe it, in `unit`.

    Raises:
        ProofFailed: ``answer_malformed``: the ledger is not founded, or the node does not name its keys.
    """
    try:
        keys = {purpose: bytes.fromhex(one or "") for purpose, one in info.node_keys.items()}
        return Side(
            agent=keys["agent"],
            cosigner=keys["cosigner"],
            cosigner_ml_dsa_44=keys.get(ML_DSA_COSIGNER) or None,
            domain=info.domain or "",
            host=keys["host"],
            keys_index=info.node_keys_index,
            ledger=bytes.fromhex(info.ledger or ""),
            limit_minor=limit_minor,
            log=keys["log"],
            origin=info.origin or "",
            unit=unit,
        )
    except (KeyError, ValueError) as error:
        raise ProofFailed("answer_malformed", str(error), path="/v1/ledger") from None


def invited_info(invitation: Invitation) -> LedgerInfo:
    """Return what an invitation says of a cooperative, as if its node had been asked."""
    purposes = {
        "agent": invitation.agent,
        "cosigner": invitation.cosigner,
        ML_DSA_COSIGNER: invitation.cosigner_ml_dsa_44 or b"",
        "host": invitation.host,
        "log": invitation.log,
    }
    return LedgerInfo(
        ledger=invitation.ledger.hex(),
        name=None,
        domain=invitation.domain,
        origin=invitation.origin,
        size=0,
        rules=0,
        statutes_version=None,
        mode="",
        units=tuple(UnitInfo(code=one.code, kind="barter", scale=one.scale) for one in invitation.units),
        log_vkey=None,
        checkpoint="",
        time_ms=0,
        node_keys={purpose: key.hex() for purpose, key in purposes.items()},
        node_keys_index=invitation.keys_index,
    )


def peered(statement: bytes, signatures: list[Signature]) -> Peered:
    """Return the payload of ``federation.peer``."""
    return Peered(signatures=tuple(sorted(signatures, key=lambda one: one.key_id)), statement=statement)


def build_send(
    peering: Peering,
    payer_ledger: bytes,
    payer: bytes,
    payee: bytes,
    payee_amount_minor: int,
    *,
    now_ms: int,
    statutes_version: int,
    abort_after_ms: int = ABORT_AFTER_MS,
) -> tuple[bytes, Send]:
    """Return the id and the payload of ``federation.send``: the payer sees its whole cost as `total_minor`.

    Args:
        peering: in force between the two ledgers.
        payer_ledger: our ledger's id.
        payer: our member.
        payee: a member of the partner's ledger.
        payee_amount_minor: what it shall receive, in its own unit.
        now_ms: the clock.
        statutes_version: in force here.
        abort_after_ms: at least what the statutes ask for.
    """
    draft = draft_direct(peering, payer_ledger, payee_amount_minor)
    return build_send_over(
        draft,
        payer,
        payee,
        now_ms=now_ms,
        statutes_version=statutes_version,
        abort_after_ms=abort_after_ms,
    )


def draft_direct(
    peering: Peering, payer_ledger: bytes, payee_amount_minor: int, peering_id: bytes | None = None
) -> Draft:
    """Return a transfer to a partner's member, before anybody is named; the partner's log decides.

    Args:
        peering: in force between the two ledgers.
        payer_ledger: our ledger's id.
        payee_amount_minor: what is to arrive, in the partner's unit.
        peering_id: id of what both signed, if a key was replaced since.

    Raises:
        LocalProtocolError: the peering does not accept the partner's decisions.
    """
    payer, payee = peering.side_of(payer_ledger), peering.other_side(payer_ledger)
    decision = peering.decider(payee.ledger)
    if decision is None:
        raise LocalProtocolError("the peering accepts no decisions of the payee's ledger")
    hop = Hop(
        in_minor=payee_amount_minor,
        out_minor=peering.payer_amount(payer_ledger, payee_amount_minor),
        peering=peering_id or statement_id(encode_peering(peering)),
    )
    return Draft(
        agents=(payer.agent, payee.agent),
        decision=decision,
        hops=(hop,),
        path=(payer.ledger, payee.ledger),
        units=(payer.unit, payee.unit),
    )


def check_quote(found: QuoteInfo, payer_ledger: bytes, payee_ledger: bytes, payee_amount_minor: int) -> Draft:
    """Return the draft of a quote, if it is what was asked for and costs what it says.

    Raises:
        ProofFailed: ``answer_malformed``: it is not.
    """
    try:
        draft = DRAFT.decode(bytes.fromhex(found.draft))
    except (ValueError, RemoteProtocolError) as error:
        raise ProofFailed("answer_malformed", str(error), path=_QUOTE) from None
    ends = (draft.path[0], draft.path[-1], draft.hops[-1].in_minor, draft.hops[0].out_minor)
    if ends != (payer_ledger, payee_ledger, payee_amount_minor, found.total_minor):
        raise ProofFailed("answer_malformed", "another transfer, or another cost", path=_QUOTE)
    return draft


def build_send_over(
    draft: Draft,
    payer: bytes,
    payee: bytes,
    *,
    now_ms: int,
    statutes_version: int,
    memo: str | None = None,
    reverses: bytes | None = None,
    abort_after_ms: int = ABORT_AFTER_MS,
) -> tuple[bytes, Send]:
    """Return the id and the payload of ``federation.send`` for a drafted transfer; its cost is `total_minor`.

    Args:
        draft: direct, or of a quote that was checked.
        payer: our member.
        payee: a member of the path's last ledger.
        now_ms: the clock.
        statutes_version: in force here.
        memo: what the payee's ledger is told, sealed to it.
        reverses: tid of an earlier transfer that this one gives back.
        abort_after_ms: at least what the statutes ask for.
    """
    entry_id = new_entry_id(now_ms)
    payer_salt, payee_salt = os.urandom(SALT_SIZE_BYTES), os.urandom(SALT_SIZE_BYTES)
    contract = Contract(
        agents=draft.agents,
        decision=draft.decision,
        earliest_abort_ms=now_ms + abort_after_ms,
        entry=entry_id,
        hops=draft.hops,
        path=draft.path,
        payee=commit_member(payee_salt, draft.path[-1], payee),
        payer=commit_member(payer_salt, draft.path[0], payer),
        reverses=reverses,
        units=draft.units,
    )
    told = None if memo is None else memo.encode()
    opening = Opening(memo=told, memo_salt=os.urandom(SALT_SIZE_BYTES), payee=payee, salt=payee_salt)
    send = Send(
        contract=encode_contract(contract),
        memo=None,
        opening=seal_opening(opening, draft.agents[-1], os.urandom(SALT_SIZE_BYTES)),
        payer_salt=payer_salt,
        statutes_version=statutes_version,
        total_minor=contract.payer_amount_minor,
    )
    return entry_id, send
