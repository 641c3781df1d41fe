# SPDX-License-Identifier: AGPL-3.0-or-later
"""What members offer for clearing: one statement, whose two sides each open to their own ledger alone."""

import os
from typing import Final

from ecot_client.entries import new_entry_id
from ecot_protocol.domains.federation.deals import commit_member
from ecot_protocol.domains.federation.obligations import (
    Claim,
    Obligation,
    Owe,
    decode_obligation,
    encode_obligation,
)
from ecot_protocol.wire.encoding import Codec, Hash, Wire
from ecot_protocol.wire.entry import SALT_SIZE_BYTES


class ObligationFile(Wire):
    """An obligation on its way from the debtor to the creditor: the statement, and the salt that opens the creditor."""

    creditor_salt: Hash
    statement: bytes


OBLIGATION_FILE: Final = Codec(ObligationFile)


def build_owe(
    *,
    debtor: tuple[bytes, bytes],
    creditor: tuple[bytes, bytes],
    amount_minor: int,
    unit: str,
    now_ms: int,
    due_ms: int | None = None,
) -> tuple[bytes, Owe, ObligationFile]:
    """Build what a debtor offers.

    Args:
        debtor: ledger id (32 bytes) and member (16 bytes).
        creditor: likewise.
        amount_minor: in minor units of `unit`.
        unit: of both ledgers.
        now_ms: milliseconds since 1970.
        due_ms: when it is due; None: at once.

    Returns:
        the id that the entry must have, its payload, and the file for the creditor.
    """
    entry_id = new_entry_id(now_ms)
    salts = os.urandom(SALT_SIZE_BYTES), os.urandom(SALT_SIZE_BYTES)
    statement = encode_obligation(
        Obligation(
            amount_minor=amount_minor,
            creditor=commit_member(salts[1], *creditor),
            creditor_ledger=creditor[0],
            debtor=commit_member(salts[0], *debtor),
            debtor_ledger=debtor[0],
            due_ms=due_ms,
            entry=entry_id,
            invoice=None,
            unit=unit,
        )
    )
    payload = Owe(memo=None, obligation=statement, salt=salts[0])
    return entry_id, payload, ObligationFile(creditor_salt=salts[1], statement=statement)


def build_claim(file: ObligationFile) -> tuple[Obligation, Claim]:
    """Build what a creditor offers, from the debtor's file; return what it says, to be read first.

    Raises:
        RemoteProtocolError: the statement is not sound.
    """
    _, obligation = decode_obligation(file.statement)
    return obligation, Claim(memo=None, obligation=file.statement, salt=file.creditor_salt)
