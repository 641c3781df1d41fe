# SPDX-License-Identifier: AGPL-3.0-or-later
"""Proof of one's own state: a row of the ledger's state, led to a seal, led to the log.

1. The record of the seal is in the log: its leaf is proven under a head that the log signed and that extends what this
   client has kept.
2. The record says which digest the state had after `size` records.
3. The siblings lead from the row to that digest.

So a member proves a balance, a limit or a share to anybody who knows the log's key, without showing any other row.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec

from ecot_client.errors import ProofFailed
from ecot_client.models import RowProof, RowProofs
from ecot_client.node import NodeClient
from ecot_client.transport import Request
from ecot_protocol.domains.coop.acts import SealState
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.ledger.accounts import Account, AccountKey
from ecot_protocol.ledger.digest import position, verify_row
from ecot_protocol.wire.encoding import Codec, encode
from ecot_protocol.wire.entry import BODY, decode_record, leaf_data
from ecot_protocol.wire.note_key import NoteVerifier
from ecot_protocol.wire.policy import Policy, parse_policy
from ecot_protocol.wire.proof import TlogProof, verify_proof

ACCOUNTS: Final = "accounts.rows"
_SEAL: Final = Codec(SealState)
_ACCOUNT: Final = Codec(Account)
_NO_QUORUM: Final[Policy] = parse_policy(b"quorum none\n")


class ProvenRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the state that a seal in the log proves.

    Attributes:
        table: its name.
        key: canonical bytes.
        value: canonical bytes.
        size: how many records the state had then.
        sealed_at_ms: time of the seal's record.
        seal_index: of the seal's record.
    """

    table: str
    key: bytes
    value: bytes
    size: int
    sealed_at_ms: int
    seal_index: int


class ProvenBalance(msgspec.Struct, frozen=True, kw_only=True):
    """An account as a seal proves it."""

    unit: str
    purpose: str
    account: Account
    proof: ProvenRow


async def prove_rows(node: NodeClient, rows: Sequence[tuple[str, bytes]]) -> tuple[ProvenRow, ...]:
    """Ask for rows of one's own and check their proofs.

    Args:
        node: of the ledger.
        rows: (table, canonical bytes of the key).

    Raises:
        ProofFailed: ``row_missing``, ``row_not_proven``, ``seal_not_proven``.
    """
    body = {"rows": [{"table": table, "key": key.hex()} for table, key in rows]}
    # Asking twice gives two proofs, perhaps against two seals; either is good.
    found = await node.send(Request("POST", "/v1/proofs", json=body), RowProofs)
    try:
        note = TlogProof.parse(found.seal_proof.encode()).checkpoint.decode()
    except (RemoteProtocolError, ValueError) as error:
        raise ProofFailed("seal_not_proven", str(error)) from None
    pin = await node.pinned()
    proven = await asyncio.to_thread(check_row_proofs, found, rows, pin.ledger, await node.verifier())
    await node.observe(note)
    return proven


def check_row_proofs(
    found: RowProofs, rows: Sequence[tuple[str, bytes]], ledger: bytes, verifier: NoteVerifier
) -> tuple[ProvenRow, ...]:
    """Check proofs of rows offline; see `prove_rows`."""
    if len(found.proofs) != len(rows):
        raise ProofFailed("row_not_proven", f"expected {len(rows)} rows, got {len(found.proofs)}")
    try:
        record = bytes.fromhex(found.seal)
        proof = TlogProof.parse(found.seal_proof.encode())
        verify_proof(leaf_data(record), proof, (verifier,), _NO_QUORUM)
        seal, sealed_at_ms = _read_seal(record, ledger)
        return tuple(
            _check_row(one, wanted, seal, sealed_at_ms, proof.index)
            for one, wanted in zip(found.proofs, rows, strict=True)
        )
    except (RemoteProtocolError, ValueError) as error:
        raise ProofFailed("seal_not_proven", str(error)) from None


def _read_seal(record: bytes, ledger: bytes) -> tuple[SealState, int]:
    read = decode_record(record)
    body = BODY.decode(read.body)
    if body.type != "coop.seal" or body.ledger != ledger:
        raise ProofFailed("seal_not_proven", f"the record is a {body.type}")
    return _SEAL.decode(bytes(body.payload)), read.received_at_ms


def _check_row(
    proof: RowProof, wanted: tuple[str, bytes], seal: SealState, sealed_at_ms: int, seal_index: int
) -> ProvenRow:
    table, key = wanted
    if proof.value is None:
        raise ProofFailed("row_missing", f"{table} had no such row at the seal {seal_index}", table=table)
    value = bytes.fromhex(proof.value)
    siblings = [bytes.fromhex(one) for one in proof.siblings]
    is_proven = (proof.table, proof.key) == (table, key.hex()) and proof.seal_index == seal_index
    if not is_proven or not verify_row(position(table, key), value, siblings, seal.digest):
        raise ProofFailed("row_not_proven", f"{table} {key.hex()}", table=table)
    return ProvenRow(
        table=table, key=key, value=value, size=seal.size, sealed_at_ms=sealed_at_ms, seal_index=seal_index
    )


async def prove_balances(
    node: NodeClient, member: bytes, accounts: Sequence[tuple[str, str]]
) -> tuple[ProvenBalance, ...]:
    """Prove balances and limits of a member's accounts.

    Args:
        node: of the ledger.
        member: owner, whom the session's person acts for.
        accounts: (unit, purpose).

    Raises:
        ProofFailed: as `prove_rows`.
    """
    rows = [(ACCOUNTS, encode(AccountKey(member, unit, purpose))) for unit, purpose in accounts]
    proven = await prove_rows(node, rows)
    try:
        return tuple(
            ProvenBalance(unit=unit, purpose=purpose, account=_ACCOUNT.decode(row.value), proof=row)
            for (unit, purpose), row in zip(accounts, proven, strict=True)
        )
    except RemoteProtocolError as error:
        raise ProofFailed("row_not_proven", str(error)) from None
