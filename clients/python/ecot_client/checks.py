# SPDX-License-Identifier: AGPL-3.0-or-later
r"""What a ``.tlog-proof`` file proves, offline: recorded, witnessed (by whom, when), not enough, or nothing.

The files that `fetch_proof` writes carry in `extra` what the leaf data is the SHA-256 of, and need no other file:

    extra = "ecot/record/v1\n" || record

Nothing authenticates `extra` but its place in the log: another record has another leaf. A record of more than 24,561
bytes has no room there and is kept in a file beside.
"""

from hashlib import sha256
from typing import Final, Literal

import msgspec

from ecot_client.errors import NodeProblem, ProofFailed
from ecot_client.models import RecordInfo
from ecot_client.node import NodeClient
from ecot_client.transport import Request
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.wire.checkpoint import OpenedCheckpoint, open_checkpoint
from ecot_protocol.wire.cosignature import is_from_the_future
from ecot_protocol.wire.entry import BODY, decode_record, leaf_data
from ecot_protocol.wire.merkle_hash import leaf_hash, verify_inclusion
from ecot_protocol.wire.note_key import NoteVerifier
from ecot_protocol.wire.policy import NO_QUORUM, Policy, format_policy, is_satisfied
from ecot_protocol.wire.proof import HEADER, MAX_EXTRA_BYTES, TlogProof

RECORD_CONTEXT: Final = b"ecot/record/v1\n"
Outcome = Literal["not_enough", "recorded", "witnessed"]
_GENESIS: Final = "coop.genesis"


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """A witness of the policy has cosigned.

    Attributes:
        name: of the witness, in the policy.
        at_unix_s: by its clock; 0: it says no time.
    """

    name: str
    at_unix_s: int


class WitnessedHead(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint as a policy judges it.

    Attributes:
        outcome: ``recorded``: the policy asks for nobody; ``witnessed``: its quorum is met; ``not_enough``: it is not.
        origin: of the log.
        size: records that it shows.
        witnesses: of the policy that have cosigned it.
        missing: witnesses of the policy that have not.
    """

    outcome: Outcome
    origin: str
    size: int
    witnesses: tuple[Seen, ...]
    missing: tuple[str, ...]


class ProofCheck(msgspec.Struct, frozen=True, kw_only=True):
    """What a proof file proves; `head` says how far it is witnessed."""

    head: WitnessedHead
    index: int
    ledger: bytes
    entry_id: bytes
    entry_type: str
    received_at_ms: int


def is_proof(raw: bytes) -> bool:
    """Tell whether a file is a ``.tlog-proof``, by its first line."""
    return raw.startswith(HEADER.encode() + b"\n")


def judge_head(opened: OpenedCheckpoint, policy: Policy, now_unix_s: int) -> WitnessedHead:
    """Judge a checkpoint by a policy. A cosignature from the future counts for nothing."""
    names = {witness.key: witness.name for witness in policy.witnesses}
    seen = {
        names[one.cosigner]: one.timestamp_unix_s
        for one in opened.cosignatures
        if one.cosigner in names and not is_from_the_future(one.timestamp_unix_s, now_unix_s)
    }
    is_enough = is_satisfied(policy, seen)
    outcome: Outcome = "recorded" if policy.quorum == NO_QUORUM else "witnessed" if is_enough else "not_enough"
    return WitnessedHead(
        outcome=outcome,
        origin=opened.checkpoint.origin,
        size=opened.checkpoint.size,
        witnesses=tuple(Seen(name=name, at_unix_s=seen[name]) for name in sorted(seen)),
        missing=tuple(one.name for one in policy.witnesses if one.name not in seen),
    )


def check_proof(
    raw: bytes, policy: Policy, log_keys: tuple[NoteVerifier, ...], *, now_unix_s: int, record: bytes | None = None
) -> ProofCheck:
    """Check a proof file offline.

    Args:
        raw: the file.
        policy: whose cosignatures count; its logs are believed too.
        log_keys: further keys of logs that we know.
        now_unix_s: the clock.
        record: where the file carries none.

    Raises:
        ProofFailed: forged: ``proof_malformed``, ``note_signature_wrong``, ``checkpoint_unsigned``, ``note_unsigned``,
            ``proof_inclusion_wrong``, ``proof_of_another_ledger``; or ``record_needed``.
    """
    try:
        proof = TlogProof.parse(raw)
        opened = open_checkpoint(proof.checkpoint, (*log_keys, *policy.log_keys), policy.witness_keys)
        shown = _record_of(proof, record)
        head = opened.checkpoint
        if not verify_inclusion(leaf_hash(leaf_data(shown)), proof.index, head.size, proof.hashes, head.root_hash):
            detail = f"entry {proof.index} not shown in {head.origin} of size {head.size}"
            raise ProofFailed("proof_inclusion_wrong", detail, index=proof.index, size=head.size)
        read = decode_record(shown)
        body = BODY.decode(read.body)
    except RemoteProtocolError as error:
        raise ProofFailed(error.code, error.detail) from None
    ledger = sha256(read.body).digest() if body.type == _GENESIS else body.ledger
    if not head.origin.endswith("/" + ledger[:8].hex()):
        raise ProofFailed("proof_of_another_ledger", f"{ledger.hex()} is not the ledger of {head.origin}")
    return ProofCheck(
        head=judge_head(opened, policy, now_unix_s),
        index=proof.index,
        ledger=ledger,
        entry_id=body.id,
        entry_type=body.type,
        received_at_ms=read.received_at_ms,
    )


def _record_of(proof: TlogProof, record: bytes | None) -> bytes:
    if record is not None:
        return record
    if proof.extra is None or not proof.extra.startswith(RECORD_CONTEXT):
        raise ProofFailed("record_needed", "the file carries no record")
    return proof.extra.removeprefix(RECORD_CONTEXT)


class FetchedProof(msgspec.Struct, frozen=True, kw_only=True):
    """A proof file as it is to be kept; `record` if it has no room for it."""

    raw: bytes
    record: bytes | None
    check: ProofCheck


async def fetch_proof(node: NodeClient, index: int, policy: Policy) -> FetchedProof:
    """Fetch the proof of a record that the caller may read, under a policy, and check it.

    Raises:
        ProofFailed: what is wrong with it; see `check_proof`.
        NodeProblem: ``not_witnessed_yet``: no checkpoint has what the policy asks for.
    """
    shown = await node.get(f"/v1/records/{index}", RecordInfo)
    body = Request("POST", f"/v1/records/{index}/proof", text=format_policy(policy).decode("utf-8", "surrogateescape"))
    raw = await node.transport.ask(body)
    try:
        record = bytes.fromhex(shown.record)
        proof = TlogProof.parse(raw)
        note = proof.checkpoint.decode()
    except (RemoteProtocolError, ValueError) as error:
        raise ProofFailed("receipt_malformed", str(error)) from None
    if proof.index != index:
        raise ProofFailed("inclusion_not_proven", f"asked for {index}, got {proof.index}", index=index)
    extra = RECORD_CONTEXT + record
    is_small = len(extra) <= MAX_EXTRA_BYTES
    whole = TlogProof(proof.index, proof.hashes, proof.checkpoint, extra if is_small else None).format()
    key = await node.verifier()
    check = check_proof(whole, policy, (key,), now_unix_s=node.clock_ms() // 1000, record=None if is_small else record)
    await node.observe(note)
    return FetchedProof(raw=whole, record=None if is_small else record, check=check)


async def fetch_witnessed(node: NodeClient, policy: Policy) -> WitnessedHead | None:
    """Ask for the newest checkpoint that a policy is content with, and judge it; None if there is none yet.

    All records below its `size` are witnessed, if its outcome says so: the log that this client knows extends it.

    Raises:
        ProofFailed: the node shows something else.
    """
    asked = Request("POST", "/v1/witnessed", text=format_policy(policy).decode("utf-8", "surrogateescape"))
    try:
        raw = await node.transport.ask(asked)
    except NodeProblem as problem:
        if problem.code == "not_witnessed_yet":
            return None
        raise
    try:
        opened = open_checkpoint(raw, (await node.verifier(),), policy.witness_keys)
        note = raw.decode()
    except (RemoteProtocolError, ValueError) as error:
        code = error.code if isinstance(error, RemoteProtocolError) else "note_malformed"
        raise ProofFailed(code, str(error)) from None
    await node.observe(note)
    return judge_head(opened, policy, node.clock_ms() // 1000)
