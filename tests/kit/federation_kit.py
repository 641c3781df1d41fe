# SPDX-License-Identifier: AGPL-3.0-or-later
"""Cooperatives in memory that federate, for tests: `FederatedKit` is a `LedgerKit` whose log has a tree and keys.

>>> nord, sud = FederatedKit(name="nord"), FederatedKit(name="sud")
>>> peer(nord, sud).sequence
1
>>> nord.state.federation.peers[sud.ledger].peering.side_of(nord.ledger).unit
'BART'
"""

import itertools
from collections.abc import Sequence
from typing import Any

import msgspec
from ledger_kit import DAY_MS, Actor, LedgerKit, seed

from ecot_protocol.domains.federation.courier import Courier
from ecot_protocol.domains.federation.deals import Contract, Hop, commit_member, deal_id, encode_contract
from ecot_protocol.domains.federation.decisions import DECIDE, Decide, Resolve
from ecot_protocol.domains.federation.messages import Prepare
from ecot_protocol.domains.federation.openings import Opening, seal_opening
from ecot_protocol.domains.federation.peering import Peered
from ecot_protocol.domains.federation.proofs import Inclusion, LeafProof, body_of
from ecot_protocol.domains.federation.rounds import ClearAccept
from ecot_protocol.domains.federation.statements import DecisionPolicy, LogKey, Peering, Side, Witness, encode_peering
from ecot_protocol.domains.federation.transfers import Forward, Promise, Send
from ecot_protocol.ledger.amounts import Rate, Rounding, share
from ecot_protocol.ledger.entry_type import BOARD
from ecot_protocol.ledger.facts import Fact
from ecot_protocol.ledger.reasons import Reason
from ecot_protocol.wire.checkpoint import Checkpoint, sign_checkpoint
from ecot_protocol.wire.cosignature import Cosigner
from ecot_protocol.wire.entry import Entry, leaf_data
from ecot_protocol.wire.keys import Signer
from ecot_protocol.wire.merkle_hash import EMPTY_ROOT, leaf_hash, node_hash
from ecot_protocol.wire.note import NoteSigner, SignedNote
from ecot_protocol.wire.statement import sign_statement, statement_id


class LogTree:
    """The Merkle tree of a log, straight from the definition of RFC 6962 2.1, with what was hashed kept."""

    def __init__(self) -> None:
        self.leaves: list[bytes] = []
        self._known: dict[tuple[int, int], bytes] = {}

    def append(self, record: bytes) -> None:
        self.leaves.append(leaf_hash(leaf_data(record)))

    def root(self, size: int) -> bytes:
        return self._hash(0, size) if size else EMPTY_ROOT

    def _hash(self, start: int, end: int) -> bytes:
        if end - start == 1:
            return self.leaves[start]
        if (start, end) not in self._known:
            middle = start + _half(end - start)
            self._known[start, end] = node_hash(self._hash(start, middle), self._hash(middle, end))
        return self._known[start, end]

    def inclusion(self, index: int, size: int) -> tuple[bytes, ...]:
        return tuple(self._path(index, 0, size))

    def _path(self, index: int, start: int, end: int) -> list[bytes]:
        if end - start == 1:
            return []
        middle = start + _half(end - start)
        if index < middle:
            return [*self._path(index, start, middle), self._hash(middle, end)]
        return [*self._path(index, middle, end), self._hash(start, middle)]

    def consistency(self, old: int, new: int) -> tuple[bytes, ...]:
        return tuple(self._subproof(old, 0, new, True)) if 0 < old < new else ()

    def _subproof(self, old: int, start: int, end: int, is_whole: bool) -> list[bytes]:
        if old == end - start:
            return [] if is_whole else [self._hash(start, end)]
        half = _half(end - start)
        if old <= half:
            return [*self._subproof(old, start, start + half, is_whole), self._hash(start + half, end)]
        return [*self._subproof(old - half, start + half, end, False), self._hash(start, start + half)]


def _half(count: int) -> int:
    """Return the largest power of two smaller than `count`."""
    return 1 << (count - 1).bit_length() - 1


class FederatedKit(LedgerKit):
    """A ledger whose evidence is checked at admission, with its tree, log key and cosigner."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.tree = LogTree()
        self.log_signer = NoteSigner(self.origin, seed(self.name + "log"))
        self.decision_signer = NoteSigner(self.origin + "/decisions", seed(self.name + "log"))
        self.cosigner = Cosigner(self.origin, seed(self.name + "cosigner"))

    @property
    def ledger(self) -> bytes:
        return self.state.coop.founded.ledger

    @property
    def origin(self) -> str:
        return self.state.coop.founded.origin

    @property
    def log(self) -> LogKey:
        return LogKey(origin=self.origin, public_key=Signer(seed(self.name + "log")).public_key)

    @property
    def witness(self) -> Witness:
        return Witness(ledger=self.ledger, name=self.origin, public_key=Signer(seed(self.name + "cosigner")).public_key)

    def submit(self, entry: Entry) -> list[Fact] | Reason:
        submission = self.machine.admit(entry, self.state.rules)
        reason = submission.entry_type.evidence(submission.payload)
        return reason if reason is not None else super().submit(entry)

    def side(self, limit_minor: int = 100_000, unit: str = "BART") -> Side:
        return Side(
            agent=self.agent.public_key,
            cosigner=self.witness.public_key,
            cosigner_ml_dsa_44=self.further_cosigner,
            domain=f"{self.name}.example",
            host=Signer(seed(self.name + "host")).public_key,
            keys_index=self.state.coop.node_keys_index,
            ledger=self.ledger,
            limit_minor=limit_minor,
            log=self.log.public_key,
            origin=self.origin,
            unit=unit,
        )

    def head(self, cosigners: Sequence["FederatedKit"] = ()) -> bytes:
        """Return a checkpoint of the whole log, cosigned by others."""
        self.grow()
        size = len(self.records)
        note: SignedNote = sign_checkpoint(Checkpoint(self.origin, size, self.tree.root(size)), self.log_signer)
        return note.with_signatures(one.cosigner.cosign(note.text, self.now // 1000) for one in cosigners).format()

    def decisions(self) -> tuple[LogTree, dict[int, tuple[int, Decide]]]:
        """Return the tree of the decision log, and index of the record -> (number, decision), read from the records."""
        tree, found = LogTree(), {}
        for index, record in enumerate(self.records):
            body = body_of(record)
            if body.type == "federation.decide":
                decide = DECIDE.codec.decode(bytes(body.payload))
                found[index] = (len(tree.leaves), decide)
                tree.leaves.append(leaf_hash(msgspec.msgpack.encode([decide.tid, int(decide.outcome == "commit")])))
        return tree, found

    def decision_head(self, cosigners: Sequence["FederatedKit"] = ()) -> bytes:
        """Return a checkpoint of the whole decision log, cosigned by others."""
        tree, _ = self.decisions()
        size = len(tree.leaves)
        note = sign_checkpoint(Checkpoint(f"{self.origin}/decisions", size, tree.root(size)), self.decision_signer)
        return note.with_signatures(one.cosigner.cosign(note.text, self.now // 1000) for one in cosigners).format()

    def decided(self, index: int) -> LeafProof:
        """Show the decision of the record at an index in the whole decision log."""
        tree, found = self.decisions()
        number, decide = found[index]
        hashes = tree.inclusion(number, len(tree.leaves))
        return LeafProof(hashes=hashes, number=number, outcome=decide.outcome, tid=decide.tid)

    def courier(self, **options: Any) -> Courier:
        """Return a courier of this ledger that knows of nothing but its state."""
        return Courier(self.state, self.agent, self.cosigner, self.decision_signer, **options)

    def grow(self) -> None:
        """Bring the tree up to the records."""
        for record in self.records[len(self.tree.leaves) :]:
            self.tree.append(record)

    def inclusion(self, index: int) -> Inclusion:
        """Show a record in the whole log."""
        self.grow()
        return Inclusion(hashes=self.tree.inclusion(index, len(self.records)), index=index, record=self.records[index])

    def by_node(self) -> dict[str, Any]:
        return {"author": None, "signers": (self.agent,)}

    def by_board(self) -> dict[str, Any]:
        return {"author": BOARD, "signers": self.board}


def policy(decider: FederatedKit, witnesses: Sequence[FederatedKit], count: int | None = None) -> DecisionPolicy:
    """Return a decider with its witnesses; all of two, or a majority of more."""
    total = len(witnesses)
    return DecisionPolicy(
        count=count or (total if total == 2 else total // 2 + 1),
        ledger=decider.ledger,
        log=decider.log,
        witnesses=tuple(one.witness for one in witnesses),
    )


def peering(first: FederatedKit, second: FederatedKit, **changes: Any) -> Peering:
    """Return a peering of two ledgers at 1 to 1; `witnesses` and `limit_minor` or any field may be changed."""
    witnesses = changes.pop("witnesses", (first, second))
    limit_minor = changes.pop("limit_minor", 100_000)
    deciders = changes.pop("deciders", None) or [policy(one, witnesses) for one in (first, second)]
    fields: dict[str, Any] = {
        "deciders": tuple(sorted(deciders, key=lambda one: one.ledger)),
        "rate": Rate(denominator=1, numerator=1),
        "rounding": first.ledger,
        "rules": 1,
        "sequence": 1,
        "shared": ("clearing", "market", "transit"),
        "status": "active",
        "sides": tuple(sorted((one.side(limit_minor) for one in (first, second)), key=lambda side: side.ledger)),
    }
    return Peering(**(fields | changes))


def peered(terms: Peering, kits: Sequence[FederatedKit]) -> Peered:
    """Return the payload that records a peering, signed by both agents."""
    raw = encode_peering(terms)
    signatures = sorted((sign_statement(kit.agent, raw) for kit in kits), key=lambda one: one.key_id)
    return Peered(signatures=tuple(signatures), statement=raw)


def peer(first: FederatedKit, second: FederatedKit, **changes: Any) -> Peering:
    """Record a peering in both ledgers."""
    terms = peering(first, second, **changes)
    for kit in (first, second):
        kit.must("federation.peer", peered(terms, (first, second)), **kit.by_board())
    return terms


def contract(
    payer: FederatedKit,
    author: Actor,
    payee: FederatedKit,
    member: bytes,
    amount_minor: int,
    entry_id: bytes,
    **changes: Any,
) -> Contract:
    """Return a contract under the peering that both have; `amount_minor` is what the payee gets."""
    return path_contract((payer, payee), author, member, amount_minor, entry_id, **changes)


def path_contract(
    kits: Sequence[FederatedKit], author: Actor, member: bytes, amount_minor: int, entry_id: bytes, **changes: Any
) -> Contract:
    """Return a contract over a path, with the fees that its ledgers ask for; `decider` may be another than the payee's.

    `hop` changes fields of the first hop, `decider` is the ledger that decides.
    """
    payer, payee = kits[0], kits[-1]
    row = payer.state.federation.peers[kits[1].ledger]
    decision = row.peering.decider(changes.pop("decider", payee.ledger)) or row.peering.deciders[0]
    salt = seed("salt" + entry_id.hex())
    hops = path_hops(kits, amount_minor)
    hops[0] = msgspec.structs.replace(hops[0], **changes.pop("hop", {}))
    peerings = [one.state.federation.peers[two.ledger].peering for one, two in itertools.pairwise(kits)]
    fields: dict[str, Any] = {
        "agents": tuple(kit.agent.public_key for kit in kits),
        "decision": decision,
        "earliest_abort_ms": payer.now + 120_000,
        "entry": entry_id,
        "hops": tuple(hops),
        "path": tuple(kit.ledger for kit in kits),
        "payee": commit_member(salt, payee.ledger, member),
        "payer": commit_member(salt, payer.ledger, author.member),
        "reverses": None,
        "units": (
            peerings[0].side_of(payer.ledger).unit,
            *(terms.side_of(kit.ledger).unit for terms, kit in zip(peerings, kits[1:], strict=True)),
        ),
    }
    return Contract(**(fields | changes))


def path_hops(kits: Sequence[FederatedKit], amount_minor: int) -> list[Hop]:
    """Return the hops of a path, each at its peering's rate, with the least fee in between."""
    hops: list[Hop] = []
    for source, target in reversed([*itertools.pairwise(kits)]):
        row = source.state.federation.peers[target.ledger]
        out_minor = row.peering.payer_amount(source.ledger, amount_minor)
        hops.append(Hop(in_minor=amount_minor, out_minor=out_minor, peering=row.statement))
        fee = source.state.coop.statutes_at(source.now)[1].federation.transit_fee
        amount_minor = out_minor + share(out_minor, fee, Rounding.UP)
    return hops[::-1]


def opening_of(terms: Contract, member: bytes, memo: bytes | None = None) -> bytes:
    """Return the sealed opening of a contract of this kit."""
    salt = seed("salt" + terms.entry.hex())
    opening = Opening(memo=memo, memo_salt=seed("memo" + terms.entry.hex()), payee=member, salt=salt)
    return seal_opening(opening, terms.agents[-1], seed("ephemeral" + terms.entry.hex()))


def send_payload(payer: FederatedKit, terms: Contract, member: bytes, **changes: Any) -> Send:
    """Return the payer's payload for a contract."""
    fields: dict[str, Any] = {
        "contract": encode_contract(terms),
        "memo": None,
        "opening": opening_of(terms, member),
        "payer_salt": seed("salt" + terms.entry.hex()),
        "statutes_version": payer.state.coop.statutes_at(payer.now)[0],
        "total_minor": terms.payer_amount_minor,
    }
    return Send(**(fields | changes))


def send(payer: FederatedKit, author: Actor, payee: FederatedKit, member: bytes, amount_minor: int) -> Contract:
    """Record a payer's entry; returns the contract."""
    return send_over((payer, payee), author, member, amount_minor)


def send_over(
    kits: Sequence[FederatedKit], author: Actor, member: bytes, amount_minor: int, **changes: Any
) -> Contract:
    """Record a payer's entry for a transfer over a path; returns the contract."""
    payer = kits[0]
    entry_id = payer.new_id()
    terms = path_contract(kits, author, member, amount_minor, entry_id, **changes)
    payer.must("federation.send", send_payload(payer, terms, member), entry_id=entry_id, **payer.by(author))
    return terms


def promises_of(kits: Sequence[FederatedKit], terms: Contract) -> tuple[bytes, ...]:
    """Return the signatures of these ledgers' agents over a contract."""
    return tuple(sign_statement(kit.agent, encode_contract(terms)).signature for kit in kits)


def forward_payload(before: Sequence[FederatedKit], terms: Contract, member: bytes) -> Forward:
    """Return the payload of a ledger in between, with the promises of all before it."""
    opening, promises = opening_of(terms, member), promises_of(before, terms)
    return Forward(contract=encode_contract(terms), opening=opening, promises=promises)


def promise_payload(payer: FederatedKit, terms: Contract, member: bytes, *others: FederatedKit) -> Promise:
    """Return the payee's payload, with the promises of the payer's ledger and of the `others` between."""
    return Promise(
        contract=encode_contract(terms),
        memo=None,
        payee=member,
        payee_salt=seed("salt" + terms.entry.hex()),
        promises=promises_of((payer, *others), terms),
    )


def prepare_message(before: Sequence[FederatedKit], terms: Contract, member: bytes) -> Prepare:
    """Return what the next ledger of a path is told."""
    return Prepare(encode_contract(terms), opening_of(terms, member), promises_of(before, terms))


def decide_payload(raw: bytes, outcome: str, **changes: Any) -> Decide:
    """Return a decision of the deal with these bytes; it is shown to abort, or with acceptances."""
    shown = raw if outcome == "abort" or "acceptances" in changes else None
    fields: dict[str, Any] = {"acceptances": (), "contract": shown, "outcome": outcome, "tid": deal_id(raw)}
    return Decide(**(fields | changes))


def resolve_payload(
    decider: FederatedKit, indexes: Sequence[int], cosigners: Sequence[FederatedKit], **changes: Any
) -> Resolve:
    """Return the resolution of the decisions at these places of the decider's log."""
    fields: dict[str, Any] = {
        "checkpoint": decider.decision_head(cosigners),
        "cosigners": tuple(sorted((one.witness for one in cosigners), key=lambda one: one.name)),
        "decisions": tuple(decider.decided(index) for index in indexes),
        "log": decider.log,
    }
    return Resolve(**(fields | changes))


__all__ = [
    "DAY_MS", "ClearAccept", "FederatedKit", "LogTree", "contract", "decide_payload", "forward_payload", "opening_of",
    "path_contract", "path_hops", "peer", "peered", "peering", "policy", "prepare_message", "promise_payload",
    "promises_of", "resolve_payload", "send", "send_over", "send_payload", "statement_id",
]  # fmt: skip
