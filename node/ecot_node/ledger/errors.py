# SPDX-License-Identifier: AGPL-3.0-or-later
"""Errors of the node's ledger."""

from ecot_protocol.errors import EcotError


class Overloaded(EcotError):
    """The writer's queue is full; nothing was taken, try again later."""


class NotWriting(EcotError):
    """The ledger takes no entries now.

    Args:
        reason: stable code: ``clock_jump``, ``witness_ahead``, ``witness_unasked``, ``log_corrupt``, ``store_failed``,
            ``store_full``, ``rules_unknown``, ``not_founded``, ``stopping``. Each is told in docs/operating.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class LedgerCorrupt(EcotError):
    """The stored log does not verify.

    Args:
        index: first record that is wrong.
        code: what is wrong, a stable code.
    """

    def __init__(self, index: int, code: str, detail: str = "") -> None:
        super().__init__(f"record {index}: {code}{': ' + detail if detail else ''}")
        self.index = index
        self.code = code
        self.detail = detail
