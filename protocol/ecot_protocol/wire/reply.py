# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a node answers to posted entries: one outcome each, and one proof for all that it has just recorded.

Request: canonical array of 1 to 1,000 entries. Reply: ``[outcomes, start, hashes, checkpoint]``, an outcome for each
entry in order:

- ``[0, index, received_at_ms]``: recorded now, covered by the reply's range proof;
- ``[1, index, received_at_ms, proof]``: the same body was recorded before; with its own inclusion proof;
- ``[2, code, params]``: refused, malformed or not recorded; nothing changed;
- ``[3, code]``: the node cannot tell (``outcome_unknown``): sending the same body again is safe.

``start`` is the index of the first entry recorded now (None if there is none); those entries follow each other in the
log. ``hashes`` is the range proof of `ecot_protocol.wire.merkle` for them in the tree of ``checkpoint``, a signed note.

>>> reply = Reply((Recorded(7, 1_700_000_000_000), Refused("id_used", ())), 7, (), "")
>>> REPLY.decode(REPLY.encode(reply)) == reply
True
"""

from typing import Annotated, Final

import msgspec

from ecot_protocol.wire.encoding import Codec, Count, Hash, Integer
from ecot_protocol.wire.entry import MAX_ENTRIES_PER_BATCH

MAX_PROOF_HASHES: Final = 128
"""A range proof has at most two hashes a level, and a tree at most 63 levels."""

ParamValue = Integer | str
Hashes = Annotated[tuple[Hash, ...], msgspec.Meta(max_length=MAX_PROOF_HASHES)]


class Recorded(msgspec.Struct, frozen=True, array_like=True, tag=0, forbid_unknown_fields=True, gc=False):
    """The entry is durable at `index`."""

    index: Count
    received_at_ms: Count


class RecordedBefore(msgspec.Struct, frozen=True, array_like=True, tag=1, forbid_unknown_fields=True, gc=False):
    """The same body was recorded earlier, at `index`."""

    index: Count
    received_at_ms: Count
    proof: Hashes


class Refused(msgspec.Struct, frozen=True, array_like=True, tag=2, forbid_unknown_fields=True, gc=False):
    """The entry is not in the log; `code` says why, `params` are (name, value) in ascending order of names."""

    code: str
    params: tuple[tuple[str, ParamValue], ...]


class Unknown(msgspec.Struct, frozen=True, array_like=True, tag=3, forbid_unknown_fields=True, gc=False):
    """The node's store could not say whether the entry is durable."""

    code: str


Outcome = Recorded | RecordedBefore | Refused | Unknown


class Reply(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """The answer to one POST of entries."""

    outcomes: Annotated[tuple[Outcome, ...], msgspec.Meta(max_length=MAX_ENTRIES_PER_BATCH)]
    start: Count | None
    hashes: Hashes
    checkpoint: str


REPLY: Final = Codec(Reply)
