# SPDX-License-Identifier: AGPL-3.0-or-later
"""The entry types of the federation."""

from typing import Final

from ecot_protocol.domains.federation.calls import CLEAR_COMMIT
from ecot_protocol.domains.federation.decisions import DECIDE, RESOLVE
from ecot_protocol.domains.federation.keys import FOLLOW_KEYS
from ecot_protocol.domains.federation.obligations import CLAIM, OWE, WITHDRAW_OBLIGATION
from ecot_protocol.domains.federation.peering import END_PEERING, GIVE_UP, PEER, RESUME_PEERING, SUSPEND_PEERING
from ecot_protocol.domains.federation.rounds import CLEAR_ACCEPT
from ecot_protocol.domains.federation.transfers import FORWARD, PROMISE, SEND
from ecot_protocol.ledger.entry_type import AnyEntryType

FEDERATION_TYPES: Final[tuple[AnyEntryType, ...]] = (
    PEER,
    END_PEERING,
    SUSPEND_PEERING,
    RESUME_PEERING,
    FOLLOW_KEYS,
    GIVE_UP,
    SEND,
    FORWARD,
    PROMISE,
    OWE,
    CLAIM,
    WITHDRAW_OBLIGATION,
    CLEAR_COMMIT,
    CLEAR_ACCEPT,
    DECIDE,
    RESOLVE,
)
