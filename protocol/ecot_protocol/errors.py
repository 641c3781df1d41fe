# SPDX-License-Identifier: AGPL-3.0-or-later
"""The one tree of errors.

Three kinds, never mixed:

- a *refusal* is not an error: `check` answers a `Reason` (see `ecot_protocol.ledger.reasons`);
- `RemoteProtocolError`: what came from outside is malformed or hostile;
- `LocalProtocolError`: our own code called the protocol wrongly.

A broken invariant is an `AssertionError`, which nobody catches.
"""


class EcotError(Exception):
    """Root of every error that Écot raises on purpose."""


class RemoteProtocolError(EcotError):
    """Input from a member, a partner or a file has not the form that the specification asks for.

    Args:
        code: stable lower-case identifier, e.g. ``"not_canonical"``; it is part of the interface.
        detail: what was expected and what came, in English, for logs and developers.
        params: ids and numbers that a translated message needs.
    """

    def __init__(self, code: str, detail: str = "", **params: object) -> None:
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code = code
        self.detail = detail
        self.params = params


class LocalProtocolError(EcotError):
    """Our own code broke the contract of the protocol library."""
