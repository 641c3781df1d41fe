# SPDX-License-Identifier: AGPL-3.0-or-later
"""Facts of the federation."""

from ecot_protocol.ledger.facts import Fact


class PeeringRecorded(Fact):
    """Two cooperatives trade under this statement (its id, 32 bytes); `partner` is the other's ledger id."""

    partner: bytes
    domain: str
    sequence: int
    statement: bytes
    unit: str
    limit_minor: int
    partner_unit: str
    partner_limit_minor: int
    shared: tuple[str, ...]
    status: str


class PeeringEnded(Fact):
    """Nothing new is agreed with this partner; what is pending still resolves."""

    partner: bytes


class PeeringSuspended(Fact):
    """Nothing new is agreed with this partner until our board resumes; what is pending still resolves."""

    partner: bytes


class PeeringResumed(Fact):
    """Our board no longer suspends the peering with this partner."""

    partner: bytes


class TransferReserved(Fact):
    """A member's transfer to (`role` ``payer``) or from (``payee``) another ledger is promised here.

    `partner` is the ledger at the other end, `via` the ones in between, from the payer's on.
    """

    tid: bytes
    role: str
    member: bytes
    partner: bytes
    via: tuple[bytes, ...]
    unit: str
    amount_minor: int
    partner_unit: str
    partner_amount_minor: int
    earliest_abort_ms: int


class KeysFollowed(Fact):
    """Keys that a ledger has replaced count here from now on; `purposes` is empty for our own ledger's."""

    ledger: bytes
    purposes: tuple[str, ...]


class MirrorPromised(Fact):
    """Once posted, a deal moves our account of `partner` by `own_minor`, and the partner's account of us by
    `partner_minor`, each in its own unit; positive: whose account it is owes more.
    """

    tid: bytes
    partner: bytes
    own_minor: int
    partner_minor: int


class TransferForwarded(Fact):
    """A transfer between others is handed on: `amount_minor` from one partner to another, and the fee is ours."""

    tid: bytes
    source: bytes
    target: bytes
    unit: str
    amount_minor: int
    fee_minor: int
    earliest_abort_ms: int


class RoundAccepted(Fact):
    """Our part of a clearing is promised: amounts (minor units) by partner, positive if we owed them. `call`: the round
    that it follows from, or None.
    """

    tid: bytes
    unit: str
    cleared: tuple[tuple[bytes, int], ...]
    call: bytes | None


class DealDecided(Fact):
    """This ledger's log decided a deal, ``commit`` or ``abort``; it counts once the checkpoint is cosigned."""

    tid: bytes
    outcome: str


class DealResolved(Fact):
    """A deal's promise was posted (``commit``) or voided (``abort``) on its proven decision. `decider` is a ledger."""

    tid: bytes
    role: str
    outcome: str
    decider: bytes


class DealDoubtful(Fact):
    """The board gave up waiting for a decision: the member is free, a late decision settles on the doubtful account."""

    tid: bytes
    partner: bytes


class ObligationOffered(Fact):
    """A member offers for clearing what it owes (`is_debtor`), or is owed by, a member of `other_ledger`."""

    obligation: bytes
    is_debtor: bool
    member: bytes
    other_ledger: bytes
    unit: str
    amount_minor: int
    due_ms: int | None


class ObligationWithdrawn(Fact):
    """A member took back what it offered; `left_minor` was not cleared."""

    obligation: bytes
    is_debtor: bool
    left_minor: int


class ObligationCleared(Fact):
    """A round cleared a part of what a member owes, or is owed; `left_minor` is what is still owed."""

    obligation: bytes
    is_debtor: bool
    member: bytes
    unit: str
    cleared_minor: int
    left_minor: int


class RoundCommitted(Fact):
    """This ledger takes part in a round and committed to `count` leaves under a Merkle root of what it offers."""

    call: bytes
    unit: str
    ledgers: tuple[bytes, ...]
    decider: bytes
    count: int
    root: bytes
