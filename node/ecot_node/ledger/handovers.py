# SPDX-License-Identifier: AGPL-3.0-or-later
"""Handovers: when the key of our log is replaced, the checkpoint that has the record is signed by both keys.

The old key says: this is the last head that I sign, and it names my successor. Whoever knows only the old key, a
partner or a member's client, follows from there. All handovers are kept, for those who were away for long.
"""

from collections.abc import Sequence
from typing import Annotated, Final, Protocol

import msgspec

from ecot_protocol.wire.checkpoint import Checkpoint
from ecot_protocol.wire.encoding import Codec, Count, Wire, encode
from ecot_protocol.wire.note import SignedNote

META_KEY: Final = "log_handovers"
MAX_HANDOVERS: Final = 64
"""Kept; the oldest goes. A board replaces this key once in years."""


class Handover(Wire):
    """A checkpoint that an old and a new key of our log have signed.

    Attributes:
        checkpoint: signed note.
        index: of the record that replaced the log's key.
    """

    checkpoint: Annotated[bytes, msgspec.Meta(max_length=8_192)]
    index: Count


_HANDOVERS: Final[Codec[tuple[Handover, ...]]] = Codec(tuple[Handover, ...])


class MetaStore(Protocol):
    """Where small values are kept durably."""

    async def meta_get(self, key: str) -> bytes | None: ...

    async def meta_put(self, key: str, value: bytes | None) -> None: ...


async def read_handovers(store: MetaStore) -> Sequence[Handover]:
    """Return all handovers, oldest first."""
    raw = await store.meta_get(META_KEY)
    return () if raw is None else _HANDOVERS.decode(raw)


async def keep_handover(store: MetaStore, checkpoint: bytes, index: int) -> None:
    """Keep a checkpoint that hands over, once."""
    known = await read_handovers(store)
    if all(one.index != index for one in known):
        kept = (*known, Handover(checkpoint=checkpoint, index=index))[-MAX_HANDOVERS:]
        await store.meta_put(META_KEY, encode(tuple(kept)))


def is_handover(checkpoint: bytes) -> bool:
    """Tell whether two keys of the log have signed a checkpoint."""
    note = SignedNote.parse(checkpoint)
    origin = Checkpoint.parse(note.text).origin
    return len({line.key_id for line in note.signatures if line.name == origin}) > 1
