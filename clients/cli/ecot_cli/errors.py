# SPDX-License-Identifier: AGPL-3.0-or-later
"""Exit codes, and which error leads to which. Documented in ``docs/how-to/command-line.md``; a test compares both."""

from enum import IntEnum
from typing import Final

from ecot_client.errors import (
    ClientError,
    JournalProblem,
    KeyProblem,
    NodeProblem,
    NodeUnreachable,
    NotRecorded,
    ProofFailed,
)
from ecot_protocol.errors import EcotError, RemoteProtocolError

_NODE_CANNOT: Final = frozenset((429, 502, 503, 504))
_NOT_KNOWN: Final = frozenset(("outcome_unknown", "not_recorded", "not_writing", "overloaded"))


class ExitCode(IntEnum):
    """How a command ended."""

    DONE = 0
    REFUSED = 1
    USAGE = 2
    UNREACHABLE = 3
    PROOF_FAILED = 4
    KEY_PROBLEM = 5
    STATE_PROBLEM = 6
    INTERRUPTED = 130


class UsageProblem(ClientError):
    """What was typed can't be meant: a name that nobody has, an amount that is no number."""


def exit_code_of(error: BaseException) -> ExitCode:
    """Return the exit code of an error that a command ends with."""
    match error:
        case KeyboardInterrupt():
            return ExitCode.INTERRUPTED
        case UsageProblem():
            return ExitCode.USAGE
        case KeyProblem():
            return ExitCode.KEY_PROBLEM
        case ProofFailed() | RemoteProtocolError():
            return ExitCode.PROOF_FAILED
        case NodeUnreachable():
            return ExitCode.UNREACHABLE
        case NodeProblem(status=status) if status in _NODE_CANNOT:
            return ExitCode.UNREACHABLE
        case NotRecorded(code=code) if code in _NOT_KNOWN:
            return ExitCode.UNREACHABLE
        case JournalProblem() | OSError():
            return ExitCode.STATE_PROBLEM
        case _:
            return ExitCode.REFUSED


def code_of(error: EcotError | OSError) -> str:
    """Return the stable code of an error."""
    return str(getattr(error, "code", "")) or type(error).__name__.lower()
