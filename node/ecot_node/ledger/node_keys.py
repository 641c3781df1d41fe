# SPDX-License-Identifier: AGPL-3.0-or-later
"""The node's own keys on disk: one file of 32 bytes in hex for each use, readable by their owner alone.

Uses: ``agent`` signs the node's entries and statements, ``log`` its checkpoints, ``cosigner`` those of partners,
``host`` is its libp2p identity, ``cosigner_ml_dsa_44`` cosigns beside ``cosigner``: it is made where the machine can
use it, and a node does without it where its file is missing. The board's and the members' keys are never here.
"""

import os
import stat
from pathlib import Path
from typing import Final

from ecot_protocol.errors import EcotError
from ecot_protocol.wire.cosignature import ml_dsa_public_key
from ecot_protocol.wire.keys import SEED_SIZE_BYTES, Signer

PURPOSES: Final = ("agent", "cosigner", "host", "log")
FURTHER_COSIGNER: Final = "cosigner_ml_dsa_44"
_SUFFIX: Final = ".seed"


class KeyProblem(EcotError):
    """A key file can't be used.

    Args:
        code: ``key_missing``, ``key_readable_by_others``, ``key_malformed`` or ``key_exists``.
        path: the file.
    """

    def __init__(self, code: str, path: Path, advice: str) -> None:
        super().__init__(f"{code}: {path}: {advice}")
        self.code = code
        self.path = path


class NodeKeys:
    """The seeds of a node's keys."""

    def __init__(self, seeds: dict[str, bytes]) -> None:
        self._seeds = seeds

    def seed(self, purpose: str) -> bytes:
        """Return the 32-byte seed for a use."""
        return self._seeds[purpose]

    def public_key(self, purpose: str) -> bytes:
        """Return the 33-byte public key for a use."""
        return Signer(self._seeds[purpose]).public_key

    @property
    def further_cosigner_seed(self) -> bytes | None:
        """The seed of the ML-DSA-44 cosigner key, if this node has one."""
        return self._seeds.get(FURTHER_COSIGNER)

    @property
    def further_cosigner(self) -> bytes | None:
        """The ML-DSA-44 public key as the ledger names it; None if there is none or this machine can't use it."""
        seed = self.further_cosigner_seed
        return ml_dsa_public_key(seed) if seed is not None else None


def create_keys(folder: Path) -> NodeKeys:
    """Make new keys in `folder`, which is made with mode 0700.

    Raises:
        KeyProblem: ``key_exists``: a node's keys are never replaced by accident.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    seeds: dict[str, bytes] = {}
    is_further_possible = ml_dsa_public_key(bytes(SEED_SIZE_BYTES)) is not None
    for purpose in (*PURPOSES, FURTHER_COSIGNER) if is_further_possible else PURPOSES:
        path = folder / (purpose + _SUFFIX)
        seeds[purpose] = os.urandom(SEED_SIZE_BYTES)
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise KeyProblem("key_exists", path, "remove the whole folder to begin anew") from None
        with os.fdopen(handle, "w") as file:
            file.write(seeds[purpose].hex() + "\n")
    return NodeKeys(seeds)


def load_keys(folder: Path) -> NodeKeys:
    """Read the node's keys.

    Raises:
        KeyProblem: a file is missing, malformed, or readable by others.
    """
    seeds = {purpose: _load(folder / (purpose + _SUFFIX)) for purpose in PURPOSES}
    further = folder / (FURTHER_COSIGNER + _SUFFIX)
    return NodeKeys(seeds | ({FURTHER_COSIGNER: _load(further)} if further.exists() else {}))


def _load(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        raise KeyProblem("key_missing", path, "restore it from where you keep the node's keys") from None
    except (OSError, UnicodeDecodeError) as error:
        raise KeyProblem("key_malformed", path, str(error)) from error
    if stat.S_IMODE(mode) & 0o077:
        raise KeyProblem("key_readable_by_others", path, f"run `chmod 600 {path}`")
    try:
        seed = bytes.fromhex(text)
    except ValueError:
        seed = b""
    if len(seed) != SEED_SIZE_BYTES:
        raise KeyProblem("key_malformed", path, "expected 64 hexadecimal digits")
    return seed
