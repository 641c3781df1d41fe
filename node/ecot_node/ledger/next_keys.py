# SPDX-License-Identifier: AGPL-3.0-or-later
"""Keys that are to replace those of the node: ``keys/<purpose>.next.seed``, made before the board replaces a key.

    make  ->  the board records ``coop.replace_node_key`` (the new key signs too)  ->  the node takes the new key

The log's key is taken at once, because the record's own checkpoint hands over. The others are taken at the next start.
The old seed is then gone from the disk; what it signed stays good.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ecot_node.ledger.node_keys import PURPOSES, KeyProblem
from ecot_protocol.wire.keys import SEED_SIZE_BYTES, Signer

_NEXT: Final = ".next.seed"
_SUFFIX: Final = ".seed"


class NextKeys:
    """The coming keys of a node.

    Args:
        folder: of its keys.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def make(self, purpose: str) -> Signer:
        """Return the coming key for a use, made if there is none.

        Raises:
            KeyProblem: the folder can't be written.
        """
        assert purpose in PURPOSES
        found = self._read(purpose + _NEXT)
        if found is not None:
            return Signer(found)
        path, seed = self._folder / (purpose + _NEXT), os.urandom(SEED_SIZE_BYTES)
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w") as file:
                file.write(seed.hex() + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise KeyProblem("key_malformed", path, str(error)) from error
        return Signer(seed)

    def find_seed(self, purpose: str, public_key: bytes) -> bytes | None:
        """Return the seed of a key of ours, be it in use or to come; None if we don't have it."""
        for suffix in (_NEXT, _SUFFIX):
            seed = self._read(purpose + suffix)
            if seed is not None and Signer(seed).public_key == public_key:
                return seed
        return None

    def settle(self, named: Mapping[str, bytes]) -> tuple[str, ...]:
        """Put keys that the ledger names by now in the place of the old ones.

        Args:
            named: purpose -> public key.

        Returns:
            The purposes whose key was replaced.
        """
        replaced = []
        for purpose in PURPOSES:
            coming = self._read(purpose + _NEXT)
            if coming is not None and named.get(purpose) == Signer(coming).public_key:
                os.replace(self._folder / (purpose + _NEXT), self._folder / (purpose + _SUFFIX))
                replaced.append(purpose)
        return tuple(replaced)

    def _read(self, name: str) -> bytes | None:
        try:
            seed = bytes.fromhex((self._folder / name).read_text(encoding="ascii").strip())
        except (OSError, ValueError):
            return None
        return seed if len(seed) == SEED_SIZE_BYTES else None
