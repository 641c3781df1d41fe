# SPDX-License-Identifier: AGPL-3.0-or-later
r"""Whose cosignatures a member asks for: C2SP tlog-policy files, and the one that follows from the node's peerings.

    log troc.example/ecot/0123456789abcdef+5a9e6bd1+AW3/PSJ...
    witness culture.example culture.example/ecot/fedcba9876543210+2f1c0d3e+BKk...
    witness collective.example/1 collective.example/ecot/00112233+77ab0c12+BPz...
    witness collective.example/2 collective.example/ecot/00112233+9d01e3aa+Bvk...
    group collective.example any collective.example/1 collective.example/2
    group partners 2 culture.example collective.example
    quorum partners

The derived policy asks for more than half of the partners, whose cosigner keys stand in the peerings that both boards
signed; with one partner for that one; with none for nobody, and then nothing is ever witnessed. Each partner counts
once, whichever of its keys it cosigned with. Who wants others writes a file.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Final

import msgspec

from ecot_client.errors import ProofFailed
from ecot_client.node import NodeClient
from ecot_protocol.domains.federation.statements import LogKey, Side, decode_peering
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.wire.note_key import NoteVerifier
from ecot_protocol.wire.policy import NO_QUORUM, Policy, PolicyGroup, PolicyLog, PolicyWitness, parse_policy

GROUP: Final = "partners"
_SHORT_ID_DIGITS: Final = 8


class Partner(msgspec.Struct, frozen=True, kw_only=True):
    """A partner of the node, as the peering names it.

    Attributes:
        side: its side of the peering.
        status: ``active``, ``suspended`` or ``ended``.
    """

    side: Side
    status: str

    @property
    def log_key(self) -> NoteVerifier:
        """The key of its log."""
        return LogKey(origin=self.side.origin, public_key=self.side.log).verifier


async def find_partners(node: NodeClient) -> tuple[Partner, ...]:
    """Return the node's partners, by ledger.

    Raises:
        ProofFailed: ``answer_malformed``.
        NodeProblem: partners are shown to members alone.
    """
    own = await node.ledger_id()
    found: dict[bytes, Partner] = {}
    async for peer in node.peers():
        try:
            peering = decode_peering(bytes.fromhex(peer.statement))
        except (RemoteProtocolError, ValueError) as error:
            raise ProofFailed("answer_malformed", str(error), path="/v1/peers") from None
        if own in (side.ledger for side in peering.sides):
            side = peering.other_side(own)
            found[side.ledger] = Partner(side=side, status=peer.status)
    return tuple(found[ledger] for ledger in sorted(found))


def derive_policy(log_key: NoteVerifier, sides: Sequence[Side]) -> Policy:
    """Return the policy that follows from peerings; see the module.

    Args:
        log_key: of the node's own log.
        sides: of the partners whose peerings have not ended.
    """
    witnesses: list[PolicyWitness] = []
    groups: list[PolicyGroup] = []
    names = _names(sides)
    for side, name in zip(sides, names, strict=True):
        keys = side.cosigners
        if len(keys) == 1:
            witnesses.append(PolicyWitness(name, keys[0]))
            continue
        members = tuple(f"{name}/{number}" for number in range(1, len(keys) + 1))
        witnesses += [PolicyWitness(*pair) for pair in zip(members, keys, strict=True)]
        groups.append(PolicyGroup(name, 1, members))
    quorum = NO_QUORUM if not names else names[0]
    if len(names) > 1:
        groups.append(PolicyGroup(GROUP, len(names) // 2 + 1, names))
        quorum = GROUP
    return Policy((PolicyLog(log_key),), tuple(witnesses), tuple(groups), quorum)


def _names(sides: Sequence[Side]) -> tuple[str, ...]:
    """Name each partner by its domain; where two share one, or it is taken, by its ledger too."""
    counts = Counter(side.domain for side in sides)
    is_taken = {GROUP, NO_QUORUM}
    return tuple(
        side.domain
        if counts[side.domain] == 1 and side.domain not in is_taken
        else f"{side.domain}#{side.ledger.hex()[:_SHORT_ID_DIGITS]}"
        for side in sides
    )


async def partner_policy(node: NodeClient) -> Policy:
    """Return the policy that follows from the node's peerings that have not ended."""
    partners = await find_partners(node)
    return derive_policy(await node.verifier(), [one.side for one in partners if one.status != "ended"])


def read_policy(raw: bytes) -> Policy:
    """Read a policy file.

    Raises:
        ProofFailed: ``policy_malformed``, ``policy_too_large``.
    """
    try:
        return parse_policy(raw)
    except RemoteProtocolError as error:
        raise ProofFailed(error.code, error.detail) from None
