# SPDX-License-Identifier: AGPL-3.0-or-later
r"""Trust policies: which logs, which witnesses, and how many of these make a checkpoint count.

    log barter.example/ecot/0123456789abcdef+5a9e6bd1+AW3/PSJ...
    witness culture culture.example/ecot/fedcba9876543210+2f1c0d3e+BKk...   https://culture.example/witness
    witness collective collective.example/ecot/00112233+77ab0c12+BPz...
    # both partners
    group partners all culture collective
    quorum partners

Rules:

- Lines end with a newline; words are separated by spaces and tabs only; empty lines and lines beginning with `#` mean
  nothing. The file is octets: a name is equal to another only octet for octet (here: UTF-8, other octets as surrogate
  escapes, which keeps them apart).
- Witnesses and groups share one space of names; `none` is taken. A group names what stands above it, each name is a
  member of one group at most, and so is each key used by one witness at most: nobody counts twice.
- Exactly one `quorum`, a name defined above it or `none`.
- Logs sign with 0x01 or 0x06, witnesses with 0x04 or 0x06.
- Limits: 1 MiB, 128 logs, 128 witnesses, 128 groups (the specification asks for 32).

>>> from ecot_protocol.wire.note_key import KeyType, vkey
>>> keys = [vkey(f"w{n}.example", bytes([n]) * 32, KeyType.COSIGNATURE) for n in (1, 2, 3)]
>>> lines = [f"witness W{n} {key}" for n, key in enumerate(keys, start=1)]
>>> policy = parse_policy("\n".join([*lines, "group two 2 W1 W2 W3", "quorum two", ""]).encode())
>>> is_satisfied(policy, ["W1", "W3"]), is_satisfied(policy, ["W1", "W1"])
(True, False)
>>> parse_policy(format_policy(policy)) == policy
True

Source: C2SP tlog-policy.md.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ecot_protocol.errors import LocalProtocolError, RemoteProtocolError
from ecot_protocol.wire.lines import parse_decimal, shown
from ecot_protocol.wire.note_key import KeyType, NoteVerifier

MAX_POLICY_BYTES: Final = 1 << 20
MAX_LOGS: Final = 128
MAX_WITNESSES: Final = 128
MAX_GROUPS: Final = 128
NO_QUORUM: Final = "none"
_MALFORMED: Final = "policy_malformed"
_LOG_TYPES: Final = frozenset({KeyType.ED25519, KeyType.COSIGNATURE_ML_DSA_44})


@dataclass(frozen=True, slots=True)
class PolicyLog:
    """An accepted log: its key, named like its origin, and where to reach it, if said."""

    key: NoteVerifier
    url: str | None = None


@dataclass(frozen=True, slots=True)
class PolicyWitness:
    """A known witness: its name within this policy, its key, and where to reach it, if said."""

    name: str
    key: NoteVerifier
    url: str | None = None


@dataclass(frozen=True, slots=True)
class PolicyGroup:
    """A group that witnesses as soon as `threshold` (1..n) of its n members, witnesses or groups, do."""

    name: str
    threshold: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy as `parse_policy` has checked it.

    Attributes:
        logs: in the order of the lines.
        witnesses: in the order of the lines.
        groups: in the order of the lines, so that each stands after its members.
        quorum: name of a witness or group, or `none`.
    """

    logs: tuple[PolicyLog, ...]
    witnesses: tuple[PolicyWitness, ...]
    groups: tuple[PolicyGroup, ...]
    quorum: str

    @property
    def log_keys(self) -> tuple[NoteVerifier, ...]:
        """The keys of the accepted logs."""
        return tuple(log.key for log in self.logs)

    @property
    def witness_keys(self) -> tuple[NoteVerifier, ...]:
        """The keys of the known witnesses."""
        return tuple(witness.key for witness in self.witnesses)

    def names_of(self, cosigners: Iterable[NoteVerifier]) -> frozenset[str]:
        """Return the names, within this policy, of the witnesses that have these keys."""
        keys = set(cosigners)
        return frozenset(witness.name for witness in self.witnesses if witness.key in keys)


def is_satisfied(policy: Policy, cosigner_names: Iterable[str]) -> bool:
    """Tell whether these witnesses, by their names within the policy, make its quorum."""
    asserted = set(cosigner_names)
    witnessed = {witness.name for witness in policy.witnesses if witness.name in asserted}
    for group in policy.groups:  # each stands after its members
        if len(witnessed.intersection(group.members)) >= group.threshold:
            witnessed.add(group.name)
    return policy.quorum == NO_QUORUM or policy.quorum in witnessed


def parse_policy(raw: bytes) -> Policy:
    """Read a policy.

    Raises:
        RemoteProtocolError: `policy_malformed` with the line's number as parameter `line`; `policy_too_large`.
    """
    if len(raw) > MAX_POLICY_BYTES:
        raise RemoteProtocolError("policy_too_large", f"expected at most {MAX_POLICY_BYTES} bytes, got {len(raw)}")
    if raw and not raw.endswith(b"\n"):
        raise RemoteProtocolError(_MALFORMED, "the last line has no newline", line=raw.count(b"\n") + 1)
    reader = _Reader()
    for number, line in enumerate(raw.split(b"\n")[:-1], start=1):
        try:
            reader.read(line)
        except RemoteProtocolError as error:
            detail = f"line {number}: {error.detail or error.code}"
            raise RemoteProtocolError(_MALFORMED, detail, line=number) from None
    return reader.finish()


def format_policy(policy: Policy) -> bytes:
    """Write a policy so that `parse_policy` reads it again: logs, witnesses, groups, quorum.

    Raises:
        LocalProtocolError: it was put together by hand and is not one that could be read.
    """
    lines: list[tuple[str, ...]] = [("log", log.key.vkey, log.url or "") for log in policy.logs]
    lines += [("witness", witness.name, witness.key.vkey, witness.url or "") for witness in policy.witnesses]
    lines += [("group", group.name, str(group.threshold), *group.members) for group in policy.groups]
    lines.append(("quorum", policy.quorum))
    raw = "".join(" ".join(filter(None, words)) + "\n" for words in lines).encode("utf-8", "surrogateescape")
    try:
        if parse_policy(raw) == policy:
            return raw
    except RemoteProtocolError as error:
        raise LocalProtocolError(str(error)) from None
    raise LocalProtocolError("the policy would not be read as it was meant")


def _refuse(detail: str) -> RemoteProtocolError:
    return RemoteProtocolError(_MALFORMED, detail)


class _Reader:
    """What the lines so far have defined."""

    def __init__(self) -> None:
        self.logs: list[PolicyLog] = []
        self.witnesses: list[PolicyWitness] = []
        self.groups: list[PolicyGroup] = []
        self.quorum: str | None = None
        self.names: set[str] = set()
        self.members: set[str] = set()

    def read(self, line: bytes) -> None:
        """Take in one line, given without its newline."""
        if any((octet < 0x20 and octet != 0x09) or octet == 0x7F for octet in set(line)):
            raise _refuse("a control character other than tab")
        words = line.decode("utf-8", "surrogateescape").replace("\t", " ").split(" ")
        match [word for word in words if word]:
            case []:
                pass
            case [comment, *_] if comment.startswith("#"):
                pass
            case ["log", key] | ["log", key, _] as words:
                self._log(key, _optional(words, 2))
            case ["witness", name, key] | ["witness", name, key, _] as words:
                self._witness(name, key, _optional(words, 3))
            case ["group", name, threshold, *members]:
                self._group(name, threshold, tuple(members))
            case ["quorum", name]:
                self._quorum(name)
            case [keyword, *_]:
                raise _refuse(f"unknown line, or a wrong number of words: {shown(keyword)}")

    def _log(self, key: str, url: str | None) -> None:
        verifier = NoteVerifier.from_vkey(key)
        if verifier.key_type not in _LOG_TYPES:
            raise _refuse(f"key type {verifier.key_type:#04x} is not for logs")
        if any(log.key.public_key == verifier.public_key for log in self.logs):
            raise _refuse("a second log with the same key")
        if len(self.logs) == MAX_LOGS:
            raise _refuse(f"expected at most {MAX_LOGS} logs")
        self.logs.append(PolicyLog(verifier, url))

    def _witness(self, name: str, key: str, url: str | None) -> None:
        verifier = NoteVerifier.from_vkey(key)
        if not verifier.is_cosigner:
            raise _refuse(f"key type {verifier.key_type:#04x} is not for witnesses")
        if any(witness.key.public_key == verifier.public_key for witness in self.witnesses):
            raise _refuse("a second witness with the same key")
        if len(self.witnesses) == MAX_WITNESSES:
            raise _refuse(f"expected at most {MAX_WITNESSES} witnesses")
        self._define(name)
        self.witnesses.append(PolicyWitness(name, verifier, url))

    def _group(self, name: str, threshold: str, members: tuple[str, ...]) -> None:
        if not members or len(self.groups) == MAX_GROUPS:
            raise _refuse(f"expected one member or more, and at most {MAX_GROUPS} groups")
        for member in members:
            if member not in self.names:
                raise _refuse(f"member {shown(member)} is not defined above")
            if member in self.members:
                raise _refuse(f"member {shown(member)} is named a second time")
            self.members.add(member)
        keywords = {"any": 1, "all": len(members)}
        count = keywords.get(threshold) or parse_decimal(threshold, _MALFORMED, len(members))
        if count == 0:
            raise _refuse(f"threshold: expected 1..{len(members)}, any or all")
        self._define(name)
        self.groups.append(PolicyGroup(name, count, members))

    def _define(self, name: str) -> None:
        if name == NO_QUORUM or name in self.names:
            raise _refuse(f"name {shown(name)} is already taken")
        self.names.add(name)

    def _quorum(self, name: str) -> None:
        if self.quorum is not None:
            raise _refuse("a second quorum")
        if name != NO_QUORUM and name not in self.names:
            raise _refuse(f"quorum {shown(name)} is not defined above")
        self.quorum = name

    def finish(self) -> Policy:
        """Return what all lines have defined."""
        if self.quorum is None:
            raise _refuse("no quorum line")
        return Policy(tuple(self.logs), tuple(self.witnesses), tuple(self.groups), self.quorum)


def _optional(words: list[str], place: int) -> str | None:
    return words[place] if place < len(words) else None
