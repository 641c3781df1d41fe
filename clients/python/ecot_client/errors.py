# SPDX-License-Identifier: AGPL-3.0-or-later
"""What can go wrong for a client. One tree; each error has a stable code.

- `KeyProblem`: the key file, or the lack of a key;
- `JournalProblem`: the client's own state folder;
- `NodeUnreachable`: no answer in time;
- `NodeProblem`: the node answered ``application/problem+json``;
- `NotRecorded`: the rules refused an entry, or nobody knows whether it is recorded;
- `ProofFailed` and below: the node showed something that its own signatures contradict, or that proves nothing.

The texts are in the locale, under ``cli.error.<code>`` or ``reason.<code>``.
"""

from pathlib import Path

from ecot_protocol.errors import EcotError

ParamValue = str | int | bool | None


class ClientError(EcotError):
    """Root of the client's errors.

    Args:
        code: stable lower-case identifier.
        detail: what was expected and what came, in English, for developers.
        params: ids (hex) and numbers that the text needs.
    """

    def __init__(self, code: str, detail: str = "", /, **params: ParamValue) -> None:
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code = code
        self.detail = detail
        self.params = params


class KeyProblem(ClientError):
    """A key file can't be used, or no key at hand fits."""


class JournalProblem(ClientError):
    """The client's own state folder can't be used."""


class NodeUnreachable(ClientError):
    """The node gave no answer in time. What was posted stays in the journal and is sent again."""


class NodeProblem(ClientError):
    """The node answered an error.

    Attributes:
        status: HTTP status.
        title: the node's own text, in the language that was asked for.
        retry_after_s: when the node wants to be asked again; None if it doesn't say.
    """

    def __init__(self, code: str, detail: str = "", /, **params: ParamValue) -> None:
        super().__init__(code, detail, **params)
        self.status = 0
        self.title = ""
        self.retry_after_s: float | None = None


class NotRecorded(ClientError):
    """An entry is not in the log: refused by the rules, or its outcome is not known."""


class ProofFailed(ClientError):
    """What the node showed is not proven by what its log has signed."""


class LedgerChanged(ProofFailed):
    """At this address there is another ledger, or another log key, than at the first contact."""


class NodeRewrotePast(ProofFailed):
    """The log signed two heads of which one does not extend the other.

    Attributes:
        kept: the signed note that this client had kept.
        shown: the signed note that contradicts it.
        evidence: file that holds both; anybody who has the log's key can check it.
    """

    def __init__(self, kept: str, shown: str, evidence: Path) -> None:
        super().__init__("node_rewrote_past", f"see {evidence}", evidence=str(evidence))
        self.kept = kept
        self.shown = shown
        self.evidence = evidence
