# SPDX-License-Identifier: AGPL-3.0-or-later
"""Reasons: why a well-formed entry is refused. The same answer on every node that has the same records.

A reason is a stable code and typed parameters; the texts are in `ecot_protocol.locale` under ``reason.<code>``. Each
entry type lists its reasons in order of precedence; those that `machine` gives to any type are `COMMON_REASONS`.

>>> Reason.of("credit_limit_exceeded", lower_minor=-5_000, balance_minor=-4_900)
Reason(code='credit_limit_exceeded', params=(('balance_minor', -4900), ('lower_minor', -5000)))
"""

from typing import Final

import msgspec

ReasonValue = int | str


class Reason(msgspec.Struct, frozen=True, gc=False):
    """A refusal.

    Attributes:
        code: lower-case fact, never renamed or reused.
        params: (name, value) pairs in ascending order of names; names carry their unit (``_minor``, ``_ms``);
            an id or a hash is its lower-case hex.
    """

    code: str
    params: tuple[tuple[str, ReasonValue], ...] = ()

    @staticmethod
    def of(code: str, **params: ReasonValue) -> "Reason":
        """Make a reason from named parameters."""
        return Reason(code, tuple(sorted(params.items())))


COMMON_REASONS: Final = (
    "wrong_ledger",
    "ledger_not_founded",
    "ledger_closed",
    "type_unknown",
    "id_malformed",
    "id_time_out_of_range",
    "expired",
    "expiry_too_late",
    "id_used",
    "key_not_usable",
    "key_unknown",
    "key_revoked",
    "signature_withdrawn",
    "signature_missing",
    "signature_not_needed",
)
"""Reasons of the machine itself, checked in this order before a type's own."""
