# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a node answers as JSON: ids and hashes are lower-case hex, amounts minor units, times milliseconds since 1970.

Readers ignore fields that they don't know, so that a newer node can say more.
"""

import typing
from typing import Generic, TypeVar

import msgspec

from ecot_protocol.domains.coop.statutes import Statutes
from ecot_protocol.domains.governance.tally import Terms

T = TypeVar("T")


@typing.dataclass_transform(frozen_default=True, kw_only_default=True)
class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Base of every answer."""


class Listing(Answer, Generic[T]):
    """One page; `index` is how many records the node's views showed."""

    items: tuple[T, ...]
    next: str | None = None
    index: int = 0


class UnitInfo(Answer):
    """A unit of account; `scale` is its number of decimals."""

    code: str
    kind: str
    scale: int


class LedgerInfo(Answer):
    """What the node says of its ledger; None where only a genesis says it and there is none yet."""

    ledger: str | None
    name: str | None
    domain: str | None
    origin: str | None
    size: int
    rules: int
    statutes_version: int | None
    mode: str
    units: tuple[UnitInfo, ...]
    log_vkey: str | None
    checkpoint: str
    time_ms: int
    reason: str | None = None
    node_keys: dict[str, str | None] = {}
    node_keys_index: int = 0
    cosigner_vkey: str | None = None
    forks: tuple[str, ...] = ()


class Mandated(Answer):
    """A member that the person may act for."""

    member: str
    handle: str
    status: str
    scopes: tuple[str, ...]


class Challenge(Answer):
    """32 bytes to sign."""

    challenge: str
    expires_at_ms: int


class SessionInfo(Answer):
    """An open session."""

    token: str
    expires_at_ms: int
    person: str
    members: tuple[Mandated, ...]
    offices: tuple[str, ...]


class OwnKey(Answer):
    """A key of the person, in force."""

    key_id: str
    purpose: str


class Me(Answer):
    """The person of the session."""

    person: str
    handle: str
    key_id: str
    keys: tuple[OwnKey, ...]
    members: tuple[Mandated, ...]
    offices: tuple[str, ...]


class AttachmentInfo(Answer):
    """An attachment that the caller may read; `class_` is its class."""

    salt: str
    content: str
    class_: str = msgspec.field(name="class")


class RecordItem(Answer):
    """A record in a list, without its bytes."""

    index: int
    entry_id: str
    received_at_ms: int
    type: str
    author: str | None
    visibility: str
    parties: tuple[str, ...]


class RecordInfo(RecordItem, kw_only=True):
    """A record that the caller may read, with those attachments that are for the caller."""

    record: str
    attachments: tuple[AttachmentInfo, ...] = ()


class ConsistencyInfo(Answer):
    """A consistency proof, and the root at the old size that the node leads it from."""

    old: int
    new: int
    hashes: tuple[str, ...]
    root: str | None = None


class OpenSighting(Answer):
    """Two checkpoints of a log of which nobody has shown how the second grew from the first; no proof of anything."""

    source: str
    since_ms: int
    is_refused: bool
    first_size: int
    second_size: int
    first: str
    second: str


class WatchedLog(Answer):
    """A log that the node compares with its partners: ``agrees``, ``unproven`` (see `open`), ``forked``."""

    origin: str
    ledger: str | None
    domain: str | None
    status: str
    size: int
    sources: tuple[str, ...]
    forks: tuple[str, ...]
    open: tuple[OpenSighting, ...]


class WatchedLogs(Answer):
    """Every log that the node knows."""

    items: tuple[WatchedLog, ...]


class RowProof(Answer):
    """A row of the state, with the siblings that lead to a seal's digest, root to leaf."""

    table: str
    key: str
    value: str | None
    siblings: tuple[str, ...]
    seal_index: int


class RowProofs(Answer):
    """Proofs of rows against one seal: its record, and the ``.tlog-proof`` of that record."""

    proofs: tuple[RowProof, ...]
    seal: str
    seal_proof: str


class DraftNeed(Answer):
    """At least `threshold` of these persons (and keys that the entry brings) must sign a draft."""

    threshold: int
    persons: tuple[str, ...] = ()
    key_count: int = 0
    signed: tuple[str, ...] = ()
    signed_count: int = 0


class DraftItem(Answer):
    """An entry that waits for signatures. `hash` is the SHA-256 of its body."""

    hash: str
    type: str
    author: str | None
    expires_at_ms: int
    needs: tuple[DraftNeed, ...] = ()
    is_complete: bool = False
    is_signed_by_me: bool = False


class DraftInfo(DraftItem, kw_only=True):
    """A draft with its entry (hex of msgpack): what is to be read before it is signed."""

    entry: str


class DraftOutcome(Answer):
    """What became of a draft: ``waiting``, ``recorded``, ``refused`` (it stays), ``unknown``."""

    hash: str
    status: str
    index: int | None = None
    received_at_ms: int | None = None
    code: str | None = None
    params: dict[str, int | str] = {}
    missing_count: int = 0


class StatutesInfo(Answer):
    """One version of the statutes."""

    version: int
    in_force_from_ms: int
    adopted_by: str
    index: int
    recorded_at_ms: int
    statutes: Statutes


class OfficeInfo(Answer):
    """An office: `threshold` of `persons` act for it together."""

    office: str
    persons: tuple[str, ...]
    threshold: int
    since_ms: int


class Offices(Answer):
    """Every office that is held."""

    items: tuple[OfficeInfo, ...]
    index: int


class PersonKey(Answer):
    """A key of a person; it no longer signs once `revoked_at_ms` is set."""

    key_id: str
    purpose: str
    since_ms: int
    revoked_at_ms: int | None


class RecoveryInfo(Answer):
    """The board wants to give the person another key; any old one can veto until `ends_at_ms`."""

    key_id: str
    opened_at_ms: int
    ends_at_ms: int


class PersonInfo(Answer):
    """A person who can sign."""

    person: str
    handle: str
    since_ms: int
    keys: tuple[PersonKey, ...]
    recovery: RecoveryInfo | None = None


class MemberItem(Answer):
    """A member in a list."""

    member: str
    handle: str
    kind: str
    college: str
    status: str
    applied_at_ms: int
    since_ms: int


class MandateInfo(Answer):
    """A person may act for the member; None is no limit and no end."""

    person: str
    scopes: tuple[str, ...]
    trade_limit_minor: int | None
    day_limit_minor: int | None
    from_ms: int
    until_ms: int | None


class MemberInfo(MemberItem, kw_only=True):
    """A member; the rest is for its own persons and the officers."""

    fee_due_ms: int | None = None
    identity: str | None = None
    mandates: tuple[MandateInfo, ...] = ()


class AccountInfo(Answer):
    """An account as the state has it; limits are None where there is none."""

    unit: str
    purpose: str
    balance_minor: int
    reserved_in_minor: int
    reserved_out_minor: int
    lower_minor: int | None
    upper_minor: int | None


class Accounts(Answer):
    """Every account of a member, as of `size` records."""

    items: tuple[AccountInfo, ...]
    size: int


class StatementLine(Answer):
    """A posting as the owner of the account sees it; `amount_minor` is negative if it went out."""

    index: int
    at_ms: int
    amount_minor: int
    balance_minor: int
    other: str
    other_purpose: str
    cause: str
    reason: str


class StatementPage(Answer):
    """One page of a statement."""

    opening_minor: int
    items: tuple[StatementLine, ...]
    next: str | None
    index: int


class ShareMovement(Answer):
    """A movement of the register of shares."""

    movement: int
    kind: str
    member: str
    first: int
    last: int
    price_minor: int
    unit: str
    subscription: str | None
    at_ms: int
    index: int


class ShareHolding(Answer):
    """What a member holds."""

    member: str
    unit: str
    share_count: int
    capital_minor: int


class ShareRange(Answer):
    """Shares numbered `first` to `last`."""

    first: int
    last: int
    price_minor: int
    unit: str


class ShareSubscription(Answer):
    """A promise to buy shares."""

    subscription: str
    share_count: int
    price_minor: int
    unit: str
    status: str
    subscribed_at_ms: int
    status_at_ms: int


class MemberShares(Answer):
    """The shares of a member now."""

    share_count: int
    ranges: tuple[ShareRange, ...]
    subscriptions: tuple[ShareSubscription, ...]
    index: int = 0


class TradeItem(Answer):
    """A trade."""

    trade: str
    seller: str
    buyer: str
    unit: str
    barter_minor: int
    euro_minor: int
    net_minor: int
    vat_minor: int
    commission_minor: int
    commission_unit: str
    expires_at_ms: int
    deliver_by_ms: int
    reversible_until_ms: int | None
    statutes_version: int
    status: str
    index: int


class TradeStep(Answer):
    """A trade came to a status."""

    status: str
    at_ms: int
    by: str | None
    index: int


class TradeInfo(Answer):
    """A trade with its history."""

    trade: TradeItem
    steps: tuple[TradeStep, ...] = ()
    lines: str | None = None
    memo: str | None = None


class PollItem(Answer):
    """A poll in a list."""

    poll: str
    author: str
    question: str | None
    kind: str
    options: tuple[str, ...]
    opens_at_ms: int
    closes_at_ms: int
    status: str
    winner: str | None
    index: int


class PollCollege(Answer):
    """Votes of a college, in the order of the poll's options."""

    code: str
    weight_bp: int
    electors: int
    counts: tuple[int, ...]


class PollScore(Answer):
    """The exact score of an option."""

    option: str
    numerator: str
    denominator: str
    ppm: int


class PollOutcome(Answer):
    """What came out of a poll."""

    electors: int
    cast: int
    colleges: tuple[PollCollege, ...]
    scores: tuple[PollScore, ...]
    is_quorum_met: bool
    winner: str | None
    is_adopted: bool
    adoptable_until_ms: int | None
    index: int


class PollInfo(Answer):
    """A poll."""

    poll: str
    author: str
    question: str | None
    terms: Terms
    opens_at_ms: int
    closes_at_ms: int
    status: str
    colleges: tuple[PollCollege, ...]
    roll: str
    statutes_version: int
    statutes: Statutes | None
    outcome: PollOutcome | None
    opened_index: int


class Stance(Answer):
    """A member's newest stance in a poll."""

    member: str
    college: str
    choice: str
    reason: str | None
    at_ms: int
    index: int


class WorkHolder(Answer):
    """A rights-holder and its share, in basis points."""

    member: str
    share_bp: int


class WorkIdentifier(Answer):
    """An identifier of a work, e.g. ``isrc``."""

    scheme: str
    value: str


class WorkInfo(Answer):
    """A work of the catalogue."""

    work: str
    kind: str
    since_ms: int = 0
    title: str | None = None
    identifiers: tuple[WorkIdentifier, ...] = ()
    holders: tuple[WorkHolder, ...] = ()
    withdrawn_at_ms: int | None = None


class SubscriptionInfo(Answer):
    """An institution's subscription; `until_ms` None is without end."""

    subscription: str
    institution: str
    from_ms: int
    until_ms: int | None
    total_minor: int
    unit: str
    at_ms: int
    index: int


class PeriodItem(Answer):
    """A period of royalties in a list."""

    period: str
    code: str
    starts_ms: int
    ends_ms: int
    statutes_version: int
    status: str


class PeriodHead(Answer):
    """What a head got of a period's revenue."""

    head: str
    kind: str
    amount_minor: int


class PeriodShared(Answer):
    """How a period's revenue was shared."""

    revenue_minor: int
    unit: str
    heads: tuple[PeriodHead, ...]
    carried_minor: int
    work_count: int
    use_count: int
    holder_count: int
    part_count: int
    paid_part_count: int
    index: int


class PeriodInfo(PeriodItem):
    """A period of royalties; `shared` is None while it is open."""

    report_count: int
    reported_use_count: int
    shared: PeriodShared | None


class RoyaltyAmount(Answer):
    """A sum under a head."""

    head: str
    amount_minor: int


class RoyaltyEarning(Answer):
    """What a holder got for a work under a head."""

    work: str
    head: str
    amount_minor: int
    work_amount_minor: int
    work_use_count: int


class RoyaltyStatementInfo(Answer):
    """What a holder earned in a period, and the first page of why."""

    period: str
    holder: str
    total_minor: int
    unit: str
    amounts: tuple[RoyaltyAmount, ...]
    work_count: int
    use_count: int
    items: tuple[RoyaltyEarning, ...] = ()
    next: str | None = None


class MirrorInfo(Answer):
    """How our mirror of a partner and its mirror of us compared last."""

    kind: str | None
    at_ms: int | None
    their_balance_minor: int | None
    delayed_count: int


class PeerInfo(Answer):
    """A partner ledger; `balance_minor` is positive if we owe it, in our unit."""

    ledger: str
    origin: str
    domain: str
    status: str
    ended_at_ms: int | None
    statement: str
    unit: str
    partner_unit: str
    limit_minor: int
    partner_limit_minor: int
    balance_minor: int
    room_out_minor: int | None = None
    room_in_minor: int | None = None
    is_connected: bool = False
    queued: int = 0
    suspended_at_ms: int | None = None
    sequence: int = 0
    statement_id: str = ""
    shared: tuple[str, ...] = ()
    pending_out_minor: int = 0
    pending_in_minor: int = 0
    pending_count: int = 0
    health: str = "unknown"
    last_contact_ms: int | None = None
    rtt_ms: int | None = None
    last_error: str | None = None
    cosigned_size: int | None = None
    witnessed_size: int | None = None
    mirror: MirrorInfo | None = None
    incident_count: int = 0


class ProposalInfo(Answer):
    """A peering, or a change of one, that a board proposes to another; `is_ours`: our board."""

    id: str
    is_ours: bool
    partner: str
    domain: str
    is_known: bool
    sequence: int
    peering_status: str
    statement: str
    status: str
    refusal: str
    url: str
    at_ms: int


class Proposals(Answer):
    """All proposals, oldest first."""

    items: tuple[ProposalInfo, ...]


class NamedDeal(Answer):
    """A deal that two ledgers don't post alike; amounts move the partner's mirror."""

    tid: str
    kind: str
    expected_minor: int
    shown_minor: int
    their_index: int | None


class IncidentInfo(Answer):
    """A difference between our records and a partner's mirror of us, in the partner's unit."""

    id: str
    partner: str
    kind: str
    status: str
    unit: str
    expected_minor: int
    shown_minor: int
    difference_minor: int
    deal_count: int
    deals: tuple[NamedDeal, ...]
    note: str
    noted_by: str | None
    noticed_at_ms: int
    seen_at_ms: int


class Incidents(Answer):
    """All incidents, oldest first."""

    items: tuple[IncidentInfo, ...]


class ObligationInfo(Answer):
    """What a member offered for clearing: a debt of its own (`is_debtor`), or one that it is owed."""

    obligation: str
    is_debtor: bool
    member: str
    other_ledger: str
    unit: str
    amount_minor: int
    left_minor: int
    due_ms: int | None
    at_ms: int
    status: str
    index: int


class RoundInfo(Answer):
    """A round of clearing that the ledger committed to."""

    call: str
    unit: str
    decider: str
    ledgers: tuple[str, ...]
    offer_count: int
    root: str
    at_ms: int
    index: int


class CallInfo(Answer):
    """A round that was called."""

    call: str
    ledgers: tuple[str, ...]


class QuoteHop(Answer):
    """One hop of a quote: what its `ledger` takes in, in its own `unit`, and what of it that ledger keeps."""

    ledger: str
    unit: str
    in_minor: int
    fee_minor: int


class QuoteInfo(Answer):
    """A way to pay a member of another ledger: the whole cost in our own unit, and the draft to complete."""

    draft: str
    total_minor: int
    unit: str
    decider: str
    hops: tuple[QuoteHop, ...]


class QuotesInfo(Answer):
    """Ways to pay, the cheapest first."""

    payee_ledger: str
    quotes: tuple[QuoteInfo, ...]


class DestinationInfo(Answer):
    """A ledger whose members can be paid; `scale` is None if it publishes nothing of its unit."""

    ledger: str
    domain: str
    unit: str
    scale: int | None
    is_partner: bool


class TransferInfo(Answer):
    """A transfer to (`role` ``payer``) or from (``payee``) another ledger."""

    tid: str
    role: str
    member: str
    partner: str
    via: tuple[str, ...]
    unit: str
    amount_minor: int
    partner_unit: str
    partner_amount_minor: int
    earliest_abort_ms: int
    at_ms: int
    status: str
    resolved_index: int | None
    refusal: str | None
    refused_by: str | None
    index: int
