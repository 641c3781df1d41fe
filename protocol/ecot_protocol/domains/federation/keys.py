# SPDX-License-Identifier: AGPL-3.0-or-later
"""``federation.follow_keys``: keys of a node that were replaced in its own ledger count from then on here too.

A cooperative replaces a key of its node by ``coop.replace_node_key``, which its board and the new key have signed. Its
partners follow without a new peering, on this proof:

- the records of the replacements, in the log of that ledger,
- under a checkpoint that the log signed with the key that we know, and that our own node has cosigned: so it extends
  all that our node saw of that log, and nobody who stole a key can show us another past.

The checkpoint of the record that replaces the *log's* key is signed by both keys, the old one and the new one: the old
one hands over. A log whose key was lost before can't do that; then both cooperatives sign a new peering.

Records count in the order of the log: `Side.keys_index` says up to where the keys of a side are known, and no earlier
replacement can be shown again. The keys change wherever the ledger is named: as a side, as a decider, as a witness, in
every peering. What was signed stays what it was: `Peer.statement` is its id.

A ledger follows its own keys by the same entry, without a proof: its state says which they are.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, NamedTuple

import msgspec

from ecot_protocol.domains.coop.acts import NAME_COSIGNER, REPLACE_NODE_KEY, NameCosigner, ReplaceNodeKey
from ecot_protocol.domains.coop.state import ML_DSA_COSIGNER
from ecot_protocol.domains.federation import facts
from ecot_protocol.domains.federation.messages import MAX_FOLLOWED
from ecot_protocol.domains.federation.proofs import (
    CheckpointBytes,
    Inclusion,
    body_of,
    open_signed,
    proof_wrong,
    require_included,
)
from ecot_protocol.domains.federation.state import FederationState
from ecot_protocol.domains.federation.statements import (
    DecisionPolicy,
    LogKey,
    Peering,
    Side,
    Witness,
    find_terms_problem,
)
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.ledger.entry_type import NOBODY, THE_NODE, Act, EntryType, SignerRule, Visibility
from ecot_protocol.ledger.facts import Fact
from ecot_protocol.ledger.reasons import Reason
from ecot_protocol.wire.encoding import Codec, Hash, Wire

FOLLOW_TAG: Final = "federation.follow_keys"


class KeyProof(Wire):
    """Records of another log that replaced keys.

    Attributes:
        checkpoint: signed by `log`, cosigned by `cosigner`.
        cosigner: our own node as a witness.
        log: of the ledger whose keys were replaced, with the key that signed it before these records.
        records: of ``coop.replace_node_key``, in the order of the log.
    """

    checkpoint: CheckpointBytes
    cosigner: Witness
    log: LogKey
    records: Annotated[tuple[Inclusion, ...], msgspec.Meta(min_length=1, max_length=MAX_FOLLOWED)]


class FollowKeys(Wire):
    """Payload of ``federation.follow_keys``, by the node: a ledger's new keys; `proof` is nil for our own."""

    ledger: Hash
    proof: KeyProof | None


class Replacement(NamedTuple):
    """What a record says of a key of its node; `public_key` is None for a further cosigner that the node gave up."""

    purpose: str
    public_key: bytes | None


_REPLACED: Final[Codec[ReplaceNodeKey]] = Codec(ReplaceNodeKey)
_COSIGNER: Final[Codec[NameCosigner]] = Codec(NameCosigner)


def read_replacement(record: bytes, ledger: bytes) -> Replacement:
    """Read the raw record of a replacement: ``coop.replace_node_key`` or ``coop.name_cosigner``.

    Raises:
        RemoteProtocolError: ``replacement_wrong``, or a code of the record's form.
    """
    body = body_of(record)
    if body.ledger == ledger and body.type == REPLACE_NODE_KEY.tag:
        replaced = _REPLACED.decode(bytes(body.payload))
        return Replacement(replaced.purpose, replaced.public_key)
    if body.ledger == ledger and body.type == NAME_COSIGNER.tag:
        return Replacement(ML_DSA_COSIGNER, _COSIGNER.decode(bytes(body.payload)).public_key)
    raise RemoteProtocolError("replacement_wrong", body.type)


def replaced_keys(records: Iterable[Inclusion], ledger: bytes) -> dict[str, bytes | None]:
    """Return purpose -> newest key."""
    replaced: dict[str, bytes | None] = {}
    for one in records:
        read = read_replacement(one.record, ledger)
        replaced[read.purpose] = read.public_key
    return replaced


def _evidence(payload: FollowKeys) -> Reason | None:
    proof = payload.proof
    if proof is None:
        return None
    indexes = [one.index for one in proof.records]
    if indexes != sorted(set(indexes)):
        return Reason.of("evidence_wrong", problem="records_not_sorted")
    try:
        opened = open_signed(proof.checkpoint, proof.log, (proof.cosigner,))
        for one in proof.records:
            require_included(one, opened)
            read_replacement(one.record, payload.ledger)
    except RemoteProtocolError as error:
        return proof_wrong(error)
    if proof.cosigner.verifier not in {one.cosigner for one in opened.cosignatures}:
        return Reason.of("evidence_wrong", problem="cosignature_wrong")
    return None


def _signers(_state: FederationState, act: Act[Any], _at: int) -> SignerRule:
    return THE_NODE if act.author is None else NOBODY


def _check(state: FederationState, act: Act[FollowKeys], _at: int) -> Reason | None:
    ledger, proof = act.payload.ledger, act.payload.proof
    reason = _check_own(state, ledger) if proof is None else _check_partner(state, ledger, proof)
    if reason is not None:
        return reason
    for peering in _followed(state, act.payload).values():
        problem = find_terms_problem(peering)
        if problem is not None:
            return Reason.of("keys_collide", field=problem)
    return None


def _check_own(state: FederationState, ledger: bytes) -> Reason | None:
    if ledger != state.coop.founded.ledger:
        return Reason.of("evidence_wrong", problem="proof_missing")
    return None if are_own_keys_behind(state) else Reason.of("keys_known")


def are_own_keys_behind(state: FederationState) -> bool:
    """Tell whether a peering still has an older key of our own node."""
    ledger, index = state.coop.founded.ledger, state.coop.node_keys_index
    return any(peer.peering.side_of(ledger).keys_index < index for peer in state.federation.peers.values())


def _check_partner(state: FederationState, ledger: bytes, proof: KeyProof) -> Reason | None:
    peer = state.federation.peers.get(ledger)
    if peer is None:
        return Reason.of("peer_unknown", partner=ledger.hex())
    side = peer.peering.side_of(ledger)
    if (proof.log.origin, proof.log.public_key) != (side.origin, side.log):
        return Reason.of("log_key_mismatch", origin=side.origin)
    own = state.coop.founded
    if (proof.cosigner.name, proof.cosigner.public_key) != (own.origin, state.coop.node_keys["cosigner"].public_key):
        return Reason.of("own_side_wrong", field="cosigner")
    return None if proof.records[0].index > side.keys_index else Reason.of("keys_known")


def _followed(state: FederationState, payload: FollowKeys) -> dict[bytes, Peering]:
    """Return partner -> its peering with the new keys, where it changes."""
    ledger, proof = payload.ledger, payload.proof
    if proof is None:
        keys: dict[str, bytes | None] = {purpose: key.public_key for purpose, key in state.coop.node_keys.items()}
        keys.setdefault(ML_DSA_COSIGNER, None)
        index = state.coop.node_keys_index
    else:
        keys, index = replaced_keys(proof.records, ledger), proof.records[-1].index
    changed = {
        partner: with_keys(peer.peering, ledger, keys, index) for partner, peer in state.federation.peers.items()
    }
    return {one: new for one, new in changed.items() if new != state.federation.peers[one].peering}


def with_keys(peering: Peering, ledger: bytes, keys: Mapping[str, bytes | None], index: int) -> Peering:
    """Return the peering with new keys of a ledger.

    Args:
        peering: of whomever; the ledger may be a side of it, a decider, a witness.
        ledger: whose keys.
        keys: purpose -> key.
        index: of the record that set the last of them.
    """
    sides = (_side_with(peering.sides[0], ledger, keys, index), _side_with(peering.sides[1], ledger, keys, index))
    deciders = tuple(_policy_with(policy, ledger, keys) for policy in peering.deciders)
    return msgspec.structs.replace(peering, deciders=deciders, sides=sides)


def _side_with(side: Side, ledger: bytes, keys: Mapping[str, bytes | None], index: int) -> Side:
    if side.ledger != ledger:
        return side
    named = {purpose: key for purpose, key in keys.items() if purpose in Side.__struct_fields__}
    return msgspec.structs.replace(side, keys_index=max(side.keys_index, index), **named)


def _policy_with(policy: DecisionPolicy, ledger: bytes, keys: Mapping[str, bytes | None]) -> DecisionPolicy:
    log = policy.log
    if policy.ledger == ledger and "log" in keys:
        log = msgspec.structs.replace(log, public_key=keys["log"])
    return msgspec.structs.replace(policy, log=log, witnesses=_witnesses_with(policy.witnesses, ledger, keys))


def _witnesses_with(
    witnesses: tuple[Witness, ...], ledger: bytes, keys: Mapping[str, bytes | None]
) -> tuple[Witness, ...]:
    if "cosigner" not in keys:
        return witnesses
    return tuple(
        msgspec.structs.replace(one, public_key=keys["cosigner"]) if one.ledger == ledger else one for one in witnesses
    )


def _effect(state: FederationState, act: Act[FollowKeys], _at: int) -> list[Fact]:
    for partner, peering in _followed(state, act.payload).items():
        peer = state.federation.peers[partner]
        state.federation.peers[partner] = msgspec.structs.replace(peer, peering=peering)
    ledger, proof = act.payload.ledger, act.payload.proof
    purposes = () if proof is None else tuple(sorted(replaced_keys(proof.records, ledger)))
    return [facts.KeysFollowed(ledger=ledger, purposes=purposes)]


FOLLOW_KEYS: Final[EntryType[FederationState, FollowKeys]] = EntryType(
    tag=FOLLOW_TAG,
    payload=FollowKeys,
    visibility=Visibility.MEMBERS,
    signers=_signers,
    check=_check,
    effect=_effect,
    evidence=_evidence,
    reasons=("evidence_wrong", "keys_known", "peer_unknown", "log_key_mismatch", "own_side_wrong", "keys_collide"),
)
