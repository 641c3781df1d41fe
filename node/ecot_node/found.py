# SPDX-License-Identifier: AGPL-3.0-or-later
"""The beginning of a node: its folder, its keys, its settings, and a genesis that waits for the board's signatures.

The genesis draft is a file that holds an `Entry` without signatures. Board members sign it with their own clients
(``ecot draft sign genesis.draft``), each in a file of its own or one after the other; ``ecot-node found`` puts the
signatures together. The node makes its own keys and never anybody else's.
"""

import os
from pathlib import Path
from typing import Final

import msgspec

from ecot_node.config import GENESIS_DRAFT, KEYS_FOLDER, ConfigError
from ecot_node.ledger.node_keys import PURPOSES, NodeKeys, create_keys
from ecot_protocol.domains.coop.genesis import GENESIS, Founder, Genesis, Threshold
from ecot_protocol.domains.coop.genesis import NodeKeys as NodePublicKeys
from ecot_protocol.domains.coop.state import Unit
from ecot_protocol.domains.coop.statutes import Statutes
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.ledger.entry_type import BOARD, Act
from ecot_protocol.state import State
from ecot_protocol.wire.encoding import encode
from ecot_protocol.wire.entry import BODY, ENTRY, NO_LEDGER, Body, Entry, decode_entry
from ecot_protocol.wire.ids import uuid7
from ecot_protocol.wire.keys import SEED_SIZE_BYTES

DRAFT_LIFETIME_MS: Final = 30 * 86_400_000


class Foundation(msgspec.Struct, frozen=True, kw_only=True):
    """What the founders decide.

    Attributes:
        name: of the cooperative.
        domain: its internet domain, for ever part of its log's name.
        founders: persons with their offices and public keys.
        thresholds: how many holders of each office sign together.
        units: units of account.
        statutes: the first version.
    """

    name: str
    domain: str
    founders: tuple[Founder, ...]
    thresholds: tuple[Threshold, ...]
    units: tuple[Unit, ...]
    statutes: Statutes


def make_node(folder: Path, foundation: Foundation, settings_text: str, now_ms: int) -> Path:
    """Make a node's folder: keys, ``node.toml``, genesis draft.

    Args:
        folder: missing or empty.
        foundation: what the founders decided.
        settings_text: content of node.toml.
        now_ms: milliseconds since 1970.

    Returns:
        The path of the genesis draft.

    Raises:
        ConfigError: the folder holds something, or the rules would refuse the genesis; nothing was made then.
        KeyProblem: a key exists there.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty: expected a new folder")
    _require_sound(foundation, now_ms)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    keys = create_keys(folder / KEYS_FOLDER)
    (folder / "node.toml").write_text(settings_text, encoding="utf-8")
    draft = genesis_draft(foundation, keys, now_ms)
    return write_draft(folder / GENESIS_DRAFT, draft)


def _require_sound(foundation: Foundation, now_ms: int) -> None:
    """Judge the genesis before anything is made: the board would sign in vain what the rules refuse."""
    stand_in = NodeKeys({purpose: os.urandom(SEED_SIZE_BYTES) for purpose in PURPOSES})
    try:
        payload = GENESIS.codec.decode(encode(_genesis(foundation, stand_in)))
    except RemoteProtocolError as error:
        raise ConfigError(f"the genesis is malformed: {error.detail}") from error
    act = Act(id=bytes(16), author=BOARD, payload=payload, signers=(), index=0, body_hash=bytes(32))
    reason = GENESIS.check(State(), act, now_ms)
    if reason is not None:
        params = ", ".join(f"{name} {value}" for name, value in reason.params)
        raise ConfigError(f"the rules refuse the genesis: {reason.code} {params}".rstrip())


def _genesis(foundation: Foundation, keys: NodeKeys) -> Genesis:
    return Genesis(
        domain=foundation.domain,
        founders=foundation.founders,
        name=foundation.name,
        node_keys=NodePublicKeys(
            agent=keys.public_key("agent"),
            cosigner=keys.public_key("cosigner"),
            cosigner_ml_dsa_44=keys.further_cosigner,
            host=keys.public_key("host"),
            log=keys.public_key("log"),
        ),
        predecessors=(),
        rules=1,
        statutes=foundation.statutes,
        thresholds=foundation.thresholds,
        units=foundation.units,
    )


def genesis_draft(foundation: Foundation, keys: NodeKeys, now_ms: int) -> Entry:
    """Return the unsigned genesis."""
    body = Body(
        author=BOARD,
        expires_at=now_ms + DRAFT_LIFETIME_MS,
        id=uuid7(now_ms, os.urandom(10)),
        ledger=NO_LEDGER,
        payload=msgspec.Raw(encode(_genesis(foundation, keys))),
        type="coop.genesis",
    )
    return Entry(BODY.encode(body), (), ())


def write_draft(path: Path, draft: Entry) -> Path:
    """Write a draft, replacing an older one at once."""
    partial = path.with_suffix(".partial")
    partial.write_bytes(ENTRY.encode(draft))
    partial.replace(path)
    return path


def join_signatures(path: Path, others: tuple[Path, ...]) -> Entry:
    """Add to the draft at `path` the signatures that other copies of the same draft carry.

    Raises:
        ConfigError: a copy is of another draft.
        RemoteProtocolError: a file is not a draft.
    """
    draft = decode_entry(path.read_bytes())
    signatures = {one.key_id: one for one in draft.signatures}
    for other in others:
        copy = decode_entry(other.read_bytes())
        if copy.body != draft.body:
            raise ConfigError(f"{other} signs another draft than {path}")
        signatures |= {one.key_id: one for one in copy.signatures}
    joined = Entry(draft.body, tuple(signatures[key] for key in sorted(signatures)), draft.attachments)
    write_draft(path, joined)
    return joined
