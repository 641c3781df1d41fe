# SPDX-License-Identifier: AGPL-3.0-or-later
"""Recorded or witnessed: what a list shows beside each entry, by the profile's policy.

One question a command: the newest checkpoint that the policy is content with. What stands below its size is witnessed.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec

from ecot_cli.run import Run
from ecot_client.checks import fetch_witnessed
from ecot_client.errors import NodeProblem
from ecot_client.node import NodeClient
from ecot_client.policies import partner_policy, read_policy
from ecot_protocol.wire.policy import Policy, format_policy

Word = Literal["recorded", "witnessed"]


class Placed(Protocol):
    """Something that stands at a place of the log."""

    @property
    def index(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Standing:
    """How far the log is witnessed: all records below `size`."""

    size: int

    def of(self, index: int) -> Word:
        """Return how an entry stands."""
        return "witnessed" if index < self.size else "recorded"

    def shown(self, run: Run, index: int) -> str:
        """Return it in the reader's language."""
        return run.out.word("standing", self.of(index))

    def told(self, items: Iterable[Placed]) -> list[dict[str, Any]]:
        """Return items for JSON, each with ``standing``."""
        return [msgspec.to_builtins(one) | {"standing": self.of(one.index)} for one in items]


def policy_path(run: Run) -> Path:
    """Return where the profile's own policy stands, if the member has set one."""
    return run.profile.folder / "policy"


def derived_path(run: Run) -> Path:
    """Return where the policy that followed last from the node's peerings is kept, for use offline."""
    return run.profile.state_dir / "policy.derived"


def kept_policy(run: Run) -> Policy | None:
    """Return the policy of the profile as it is on disk: the one that was set, else the derived one; None: neither."""
    for path in (policy_path(run), derived_path(run)):
        if path.exists():
            return read_policy(path.read_bytes())
    return None


async def policy_of(run: Run, node: NodeClient) -> Policy:
    """Return the policy that was set, or the one that follows from the node's peerings now, which is kept."""
    path = policy_path(run)
    if path.exists():
        return read_policy(path.read_bytes())
    policy = await partner_policy(node)
    raw = format_policy(policy)
    beside = derived_path(run).with_suffix(".new")
    beside.write_bytes(raw)
    beside.replace(derived_path(run))
    return policy


async def standing_of(run: Run, node: NodeClient) -> Standing:
    """Ask how far the log is witnessed; who may not see the partners is shown all as recorded."""
    try:
        head = await fetch_witnessed(node, await policy_of(run, node))
    except NodeProblem as problem:
        if problem.status in (401, 403, 404):
            return Standing(0)
        raise
    return Standing(head.size if head is not None and head.outcome == "witnessed" else 0)
