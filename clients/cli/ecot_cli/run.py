# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a running command has: its output, profile, keys, and a connection to the node."""

import getpass
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ecot_cli.errors import UsageProblem
from ecot_cli.output import Output
from ecot_cli.profile import Profile
from ecot_client.entries import entry_id
from ecot_client.errors import KeyProblem, NodeProblem
from ecot_client.forks import learn_forks
from ecot_client.key_file import KeyFile
from ecot_client.models import LedgerInfo, Mandated
from ecot_client.node import NodeClient
from ecot_client.receipts import Receipt
from ecot_protocol.wire.keys import Signer


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What every command takes.

    Attributes:
        is_json: ``--json``.
        profile: ``--profile``.
        node: ``--node``, address of the node; else the profile's.
        acting_for: ``--as``, handle or id of the member acted for.
        key: ``--key``, label of the key that signs.
        passphrase_file: ``--passphrase-file``.
    """

    is_json: bool = False
    profile: str = "default"
    node: str | None = None
    acting_for: str | None = None
    key: str | None = None
    passphrase_file: Path | None = None


class Run:
    """One command at work."""

    def __init__(self, options: Options, locale: str) -> None:
        self.options = options
        self.locale = locale
        self.out = Output(locale, is_json=options.is_json)

    @cached_property
    def profile(self) -> Profile:
        """The chosen profile."""
        return Profile(self.options.profile)

    @cached_property
    def passphrase(self) -> str:
        """Read the passphrase from its file, from ``ECOT_PASSPHRASE``, or from the terminal.

        Raises:
            KeyProblem: ``passphrase_needed``: there is no terminal to ask.
        """
        if self.options.passphrase_file is not None:
            return self.options.passphrase_file.read_text(encoding="utf-8").rstrip("\r\n")
        given = os.environ.get("ECOT_PASSPHRASE")
        if given is not None:
            return given
        if not sys.stdin.isatty():
            raise KeyProblem("passphrase_needed")
        return getpass.getpass(self.out.text("say.passphrase") + " ")

    @cached_property
    def keys(self) -> KeyFile:
        """The profile's keys, opened once."""
        return KeyFile.open(self.profile.keys_path, self.passphrase)

    @property
    def signers(self) -> list[Signer]:
        """The profile's daily keys, the chosen one first."""
        signers = list(self.keys.signers())
        if self.options.key is None:
            return signers
        chosen = self.keys.find(self.options.key).signer
        return [chosen, *(one for one in signers if one.key_id != chosen.key_id)]

    def url(self) -> str:
        """Return the address of the node.

        Raises:
            UsageProblem: ``node_needed``.
        """
        url = self.options.node or os.environ.get("ECOT_NODE") or self.profile.settings().node
        if url is None:
            raise UsageProblem("node_needed")
        return url

    @asynccontextmanager
    async def node(self, *, needs_keys: bool = True) -> AsyncIterator[NodeClient]:
        """Connect to the node, with the profile's daily keys, the chosen one first.

        Entries whose outcome is not known yet are sent again, and what became of them is told; so is each
        log that is proven to have two histories.
        """
        signers = self.signers if needs_keys else []
        async with NodeClient(self.url(), self.profile.state_dir, signers, locale=self.locale) as client:
            for entry, result in await client.resend_pending():
                is_recorded = isinstance(result, Receipt)
                self.out.note("sent_again" if is_recorded else "sent_again_refused", entry=entry_id(entry).hex())
            for fork in await learn_forks(client):
                self.out.note("log_forked_own" if fork.is_own else "log_forked", partner=fork.name, proof=fork.id[:16])
            yield client

    async def member(self, node: NodeClient) -> Mandated:
        """Return the member acted for: ``--as``, or the profile's, or the only one.

        Raises:
            UsageProblem: ``member_needed``, ``not_mandated``.
        """
        members = (await node.me()).members
        wanted = self.options.acting_for or self.profile.settings().member
        if wanted is not None:
            for one in members:
                if wanted in (one.member, one.handle):
                    return one
            raise UsageProblem("not_mandated", member=wanted)
        live = [one for one in members if one.status in ("admitted", "applied")] or list(members)
        if len(live) != 1:
            raise UsageProblem("member_needed", members=", ".join(one.handle for one in live))
        return live[0]


async def find_member(node: NodeClient, name: str) -> str:
    """Return the id (hex) of the member with this handle or id.

    Raises:
        UsageProblem: ``member_unknown``.
    """
    async for one in node.members():
        if name in (one.handle, one.member):
            return one.member
    raise UsageProblem("member_not_found", member=name)


async def member_names(node: NodeClient) -> dict[str, str]:
    """Return the handle of every member, by id (hex); nothing where the caller may not know."""
    try:
        return {one.member: one.handle async for one in node.members()}
    except NodeProblem as problem:
        if problem.status in (401, 403):
            return {}
        raise


def read_id(text: str) -> bytes:
    """Read an id of 16 bytes in hex.

    Raises:
        UsageProblem: ``id_malformed_hex``.
    """
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    if len(raw) != 16:
        raise UsageProblem("id_malformed_hex", id=text)
    return raw


def barter_unit(info: LedgerInfo) -> str:
    """Return the code of the first barter unit, or of the first unit."""
    return next((one.code for one in info.units if one.kind == "barter"), info.units[0].code)
