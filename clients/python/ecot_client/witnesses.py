# SPDX-License-Identifier: AGPL-3.0-or-later
"""Who has witnessed a record. *Recorded* is the node's own word; *witnessed* is that of its partners too.

A partner's cosigner key stands in the peering that both cooperatives have signed. A witness's cosignature under a head
that shows the record means: it has seen this log, extending all that it saw before, with this record in it.
"""

from typing import Final

import msgspec

from ecot_client.errors import ProofFailed
from ecot_client.node import NodeClient
from ecot_client.receipts import Receipt
from ecot_protocol.domains.federation.statements import decode_peering
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.wire.entry import leaf_data
from ecot_protocol.wire.note_key import KeyType, NoteVerifier
from ecot_protocol.wire.policy import Policy, PolicyWitness
from ecot_protocol.wire.proof import TlogProof, verify_proof

_NO_QUORUM: Final = "none"


class Witnessing(msgspec.Struct, frozen=True, kw_only=True):
    """A partner has seen a record.

    Attributes:
        domain: of the partner, in the peering.
        ledger: of the partner, 32 bytes.
        seen_at_unix_s: by the partner's clock; 0 if it says no time.
        size: of the log that it has seen.
    """

    domain: str
    ledger: bytes
    seen_at_unix_s: int
    size: int


async def find_witnesses(node: NodeClient, receipt: Receipt) -> tuple[Witnessing, ...]:
    """Ask which partners have cosigned a head that shows the record, and check each cosignature.

    Returns:
        One for each partner, or none if the record is not witnessed yet.

    Raises:
        ProofFailed: ``inclusion_not_proven``, or what is wrong with proof or checkpoint.
    """
    raw = await node.witnessed(receipt.index)
    if raw is None:
        return ()
    partners = await partner_cosigners(node)
    witnesses = tuple(PolicyWitness(ledger.hex(), key) for ledger, (_, key) in partners.items())
    policy = Policy((), witnesses, (), _NO_QUORUM)
    try:
        proof = TlogProof.parse(raw)
        opened = verify_proof(leaf_data(receipt.record), proof, (await node.verifier(),), policy)
        note = proof.checkpoint.decode()
    except (RemoteProtocolError, ValueError) as error:
        code = error.code if isinstance(error, RemoteProtocolError) else "note_malformed"
        raise ProofFailed(code, str(error), index=receipt.index) from None
    if proof.index != receipt.index:
        raise ProofFailed("inclusion_not_proven", f"asked for {receipt.index}", index=receipt.index)
    await node.observe(note)
    times = {one.cosigner: one.timestamp_unix_s for one in opened.cosignatures}
    return tuple(
        Witnessing(domain=domain, ledger=ledger, seen_at_unix_s=times[key], size=opened.checkpoint.size)
        for ledger, (domain, key) in partners.items()
        if key in times
    )


async def partner_cosigners(node: NodeClient) -> dict[bytes, tuple[str, NoteVerifier]]:
    """Return ledger -> (domain, cosigner key) of each partner, from the peerings.

    Raises:
        ProofFailed: ``answer_malformed``.
    """
    own = await node.ledger_id()
    found: dict[bytes, tuple[str, NoteVerifier]] = {}
    async for peer in node.peers():
        try:
            peering = decode_peering(bytes.fromhex(peer.statement))
        except (RemoteProtocolError, ValueError) as error:
            raise ProofFailed("answer_malformed", str(error), path="/v1/peers") from None
        for side in peering.sides:
            if side.ledger != own:
                key = NoteVerifier(side.origin, KeyType.COSIGNATURE, side.cosigner[1:])
                found[side.ledger] = (side.domain, key)
    return found
