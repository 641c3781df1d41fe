# SPDX-License-Identifier: AGPL-3.0-or-later
"""The library that programs use to act in a cooperative's ledger: keys, entries, receipts, reads, proofs.

keys = KeyFile.open(Path("keys"), passphrase)
async with NodeClient("https://troc.example", Path("state"), keys.signers(), locale="fr") as node:
entry = await node.build("trade.pay", payload, author=member, contents={"memo": "merci"})
receipt = require_recorded(await node.post_one(entry))
"""

from ecot_client.entries import OWN_ID, build_entry, new_entry_id, sign_entry
from ecot_client.errors import (
    ClientError,
    JournalProblem,
    KeyProblem,
    LedgerChanged,
    NodeProblem,
    NodeRewrotePast,
    NodeUnreachable,
    NotRecorded,
    ProofFailed,
)
from ecot_client.key_file import KeyFile, StoredKey
from ecot_client.node import NodeClient
from ecot_client.posting import PostResult, Refusal, Uncertain, require_recorded
from ecot_client.receipts import Receipt, parse_receipt, verify_receipt
from ecot_client.transport import Patience

__all__ = [
    "OWN_ID",
    "ClientError",
    "JournalProblem",
    "KeyFile",
    "KeyProblem",
    "LedgerChanged",
    "NodeClient",
    "NodeProblem",
    "NodeRewrotePast",
    "NodeUnreachable",
    "NotRecorded",
    "Patience",
    "PostResult",
    "ProofFailed",
    "Receipt",
    "Refusal",
    "StoredKey",
    "Uncertain",
    "build_entry",
    "new_entry_id",
    "parse_receipt",
    "require_recorded",
    "sign_entry",
    "verify_receipt",
]
