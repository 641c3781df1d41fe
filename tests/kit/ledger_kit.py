# SPDX-License-Identifier: AGPL-3.0-or-later
"""A cooperative in memory, for tests of rules: `LedgerKit` founds a ledger and records entries with chosen signers.

>>> kit = LedgerKit()
>>> ada = kit.join("ada")
>>> kit.state.membership.members[ada.member].status
'admitted'
"""

import itertools
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import msgspec

from ecot_protocol.domains.coop.genesis import Founder, Genesis, NodeKeys, Threshold
from ecot_protocol.domains.coop.state import Unit
from ecot_protocol.domains.coop.statutes import (
    AccountDefault,
    College,
    FederationStatutes,
    GovernanceStatutes,
    MembershipStatutes,
    RoyaltyHead,
    RoyaltyStatutes,
    SharesStatutes,
    Statutes,
    TradeStatutes,
)
from ecot_protocol.domains.membership.acts import Admit, Apply, NewPerson
from ecot_protocol.ledger.amounts import Rate
from ecot_protocol.ledger.entry_type import BOARD
from ecot_protocol.ledger.facts import Fact
from ecot_protocol.ledger.reasons import Reason
from ecot_protocol.machine import Machine, Submission, public_keys
from ecot_protocol.state import State
from ecot_protocol.wire.encoding import Wire, encode
from ecot_protocol.wire.entry import (
    BODY,
    NO_LEDGER,
    Attachment,
    Body,
    Entry,
    decode_record,
    encode_record,
    sign_body,
)
from ecot_protocol.wire.ids import object_id, uuid7
from ecot_protocol.wire.keys import Signer

DAY_MS = 86_400_000
START_MS = 1_790_000_000_000
MACHINE = Machine()


def seed(name: str) -> bytes:
    """Return a fixed 32-byte seed for a name."""
    return sha256(b"test seed " + name.encode()).digest()


def percent(numerator: int) -> Rate:
    """Return a rate in percent."""
    return Rate(denominator=100, numerator=numerator)


def statutes(**changes: Any) -> Statutes:
    """Return plausible statutes of a cooperative that trades and has a catalogue; `changes` replace whole sections."""
    base = Statutes(
        colleges=(
            College(code="users", weight_bp=5_000),
            College(code="workers", weight_bp=3_000),
            College(code="partners", weight_bp=2_000),
        ),
        federation=FederationStatutes(
            doubtful_delay_ms=30 * DAY_MS,
            export_cap_minor=None,
            import_cap_minor=None,
            transfer_abort_delay_ms=60_000,
            transit_fee=percent(1),
            witnesses_off_path_min=0,
        ),
        governance=GovernanceStatutes(
            poll_max_duration_ms=60 * DAY_MS,
            poll_min_duration_ms=1_000,
            polls_opened_by="member",
            statutes_amended_by="board",
            statutes_majority=Rate(denominator=2, numerator=1),
            statutes_quorum=percent(10),
            weight_cap_bp=5_000,
            weight_floor_bp=1_000,
        ),
        membership=MembershipStatutes(
            accounts=(AccountDefault(lower_minor=-500_000, purpose="barter", unit="BART", upper_minor=1_000_000),),
            entry_fee_minor=13_500,
            fee_period_ms=365 * DAY_MS,
            fee_unit="EUR",
            recovery_delay_ms=3 * DAY_MS,
            yearly_fee_minor=23_500,
        ),
        royalty=RoyaltyStatutes(
            heads=(
                RoyaltyHead(code="fixed", kind="reference", rate=percent(15)),
                RoyaltyHead(code="variable", kind="use", rate=percent(40)),
                RoyaltyHead(code="solidarity", kind="own", rate=percent(10)),
                RoyaltyHead(code="internal", kind="own", rate=percent(20)),
                RoyaltyHead(code="research", kind="own", rate=percent(15)),
            ),
            unit="EUR",
        ),
        shares=SharesStatutes(
            capital_floor=Rate(denominator=4, numerator=1),
            nominal_minor=10_000,
            redemption_delay_ms=30 * DAY_MS,
            subscription_min_count=1,
            unit="EUR",
        ),
        trade=TradeStatutes(
            commission_base="net",
            commission_rate=percent(5),
            commission_unit="BART",
            delivery_max_duration_ms=90 * DAY_MS,
            offer_max_duration_ms=30 * DAY_MS,
            reversal_window_ms=60 * DAY_MS,
            unit="BART",
        ),
    )
    return msgspec.structs.replace(base, **changes)


@dataclass(frozen=True)
class Actor:
    """A member and its one person, with its key."""

    name: str
    member: bytes
    person: bytes
    signer: Signer


@dataclass
class LedgerKit:
    """A ledger with three founders (``claire``, ``denis``, ``emma``: the board, two of whom sign; ``claire`` is also
    treasurer) and a clock that the test moves (`now`, milliseconds)."""

    statutes: Statutes = field(default_factory=statutes)
    name: str = "coop"
    now: int = START_MS
    state: State = field(default_factory=State)
    records: list[bytes] = field(default_factory=list)
    machine: Machine = MACHINE
    further_cosigner: bytes | None = None

    def __post_init__(self) -> None:
        self._numbers = itertools.count(1)
        self.founders = {name: Signer(seed(self.name + name)) for name in ("claire", "denis", "emma")}
        self.agent = Signer(seed(self.name + "agent"))
        self.signers: dict[bytes, Signer] = {}
        self.facts = self._found()

    def _found(self) -> list[Fact]:
        genesis = Genesis(
            domain=f"{self.name}.example",
            founders=tuple(
                Founder(
                    handle=name,
                    offices=("board", "treasurer") if name == "claire" else ("board",),
                    public_key=signer.public_key,
                )
                for name, signer in self.founders.items()
            ),
            name=self.name,
            node_keys=NodeKeys(
                agent=self.agent.public_key,
                cosigner=Signer(seed(self.name + "cosigner")).public_key,
                cosigner_ml_dsa_44=self.further_cosigner,
                host=Signer(seed(self.name + "host")).public_key,
                log=Signer(seed(self.name + "log")).public_key,
            ),
            predecessors=(),
            rules=1,
            statutes=self.statutes,
            thresholds=(Threshold(count=2, office="board"), Threshold(count=1, office="treasurer")),
            units=(Unit(code="BART", kind="barter", scale=2), Unit(code="EUR", kind="currency", scale=2)),
        )
        facts = self.must("coop.genesis", genesis, author=BOARD, signers=tuple(self.founders.values()))
        first = decode_record(self.records[0])
        genesis_id = BODY.decode(first.body).id
        self.persons = {name: object_id(genesis_id, number) for number, name in enumerate(self.founders, start=1)}
        return facts

    @property
    def board(self) -> tuple[Signer, Signer]:
        """Two founders: enough to act as the board."""
        return self.founders["claire"], self.founders["denis"]

    @property
    def treasurer(self) -> tuple[Signer]:
        """The treasurer."""
        return (self.founders["claire"],)

    def new_id(self) -> bytes:
        """Return the next entry id; every one differs."""
        return uuid7(self.now, next(self._numbers).to_bytes(10, "big"))

    def entry(
        self,
        tag: str,
        payload: Wire,
        *,
        author: bytes | None,
        signers: tuple[Signer, ...],
        entry_id: bytes | None = None,
        attachments: tuple[Attachment, ...] = (),
        expires_in_ms: int = DAY_MS,
        ledger: bytes | None = None,
    ) -> Entry:
        """Build and sign an entry. An author given as ``b"self"`` is the entry's own id."""
        new_id = entry_id or self.new_id()
        body = BODY.encode(
            Body(
                author=new_id if author == b"self" else author,
                expires_at=self.now + expires_in_ms,
                id=new_id,
                ledger=ledger or self.state.ledger or NO_LEDGER,
                payload=msgspec.Raw(encode(payload)),
                type=tag,
            )
        )
        signatures = sorted((sign_body(signer, body) for signer in signers), key=lambda one: one.key_id)
        return Entry(body, tuple(signatures), attachments)

    def submit(self, entry: Entry) -> list[Fact] | Reason:
        """Admit, check and apply an entry as a node does; a refusal changes nothing."""
        submission: Submission = self.machine.admit(entry, self.state.rules)
        reason = submission.find_bad_evidence() or submission.find_bad_signature(public_keys(self.state))
        result = reason or self.machine.record(self.state, submission, self.now)
        if isinstance(result, Reason):
            return result
        self.records.append(encode_record(self.now, entry))
        return result.facts

    def send(self, tag: str, payload: Wire, **options: Any) -> list[Fact] | Reason:
        """Build, sign and submit; see `entry` for the options."""
        return self.submit(self.entry(tag, payload, **options))

    def must(self, tag: str, payload: Wire, **options: Any) -> list[Fact]:
        """Like `send`, and fail the test if it is refused."""
        result = self.send(tag, payload, **options)
        assert isinstance(result, list), f"{tag} was refused: {result}"
        return result

    def refused(self, tag: str, payload: Wire, **options: Any) -> str:
        """Like `send`, and return the code of the refusal; fail if it is recorded, or if the digest changed."""
        before = self.state.digest()
        result = self.send(tag, payload, **options)
        assert isinstance(result, Reason), f"{tag} was recorded: {result}"
        assert self.state.digest() == before, "a refused entry changed the state"
        return result.code

    def apply_for(self, name: str, college: str = "users", kind: str = "firm") -> Actor:
        """Let a new person apply with a new member called `name`."""
        signer = Signer(seed(self.name + name))
        apply = Apply(
            college=college,
            handle=name,
            identity=None,
            kind=kind,  # type: ignore[arg-type]
            new_person=NewPerson(handle=f"{name}.owner", public_key=signer.public_key),
            person=None,
        )
        member = self.new_id()
        self.must("membership.apply", apply, author=b"self", signers=(signer,), entry_id=member)
        return Actor(name, member, object_id(member, 1), signer)

    def join(self, name: str, college: str = "users", kind: str = "firm") -> Actor:
        """Let a new member apply and be admitted."""
        actor = self.apply_for(name, college, kind)
        self.must("membership.admit", Admit(college=college, member=actor.member), author=BOARD, signers=self.board)
        return actor

    def by(self, actor: Actor) -> dict[str, Any]:
        """Return the options of an entry that the actor's person signs for its member."""
        return {"author": actor.member, "signers": (actor.signer,)}

    def replayed(self) -> State:
        """Return a fresh state from the records so far."""
        state = State()
        for record in self.records:
            self.machine.replay(state, decode_record(record))
        return state
