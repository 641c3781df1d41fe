# SPDX-License-Identifier: AGPL-3.0-or-later
"""What nodes tell one another of the logs that both know: canonical arrays whose first element is the kind, 30 to 33.

They go beside the messages of deals and are decoded apart, for they concern no deal.

>>> decode_sighting(encode_sighting(AskGrowth("coop.example/ecot", 5, 9)))
AskGrowth(origin='coop.example/ecot', old_size=5, new_size=9)
>>> is_sighting(encode_sighting(AskGrowth("coop.example/ecot", 5, 9)))
True
"""

from typing import Annotated, Final

import msgspec

from ecot_protocol.domains.federation.proofs import CheckpointBytes, ProofHashes
from ecot_protocol.domains.federation.statements import KeyName
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.wire.encoding import Codec, Count, Hash
from ecot_protocol.wire.fork import MAX_FORK_BYTES

MAX_SIGHTINGS: Final = 16
MAX_SIGHTING_BYTES: Final = 147_456
FIRST_KIND: Final = 30
LAST_KIND: Final = 39
_SHORTEST: Final = 2


class Seen(msgspec.Struct, frozen=True, array_like=True, tag=30, forbid_unknown_fields=True, gc=False):
    """The newest checkpoints that the sender knows of third logs, each signed by its log."""

    checkpoints: Annotated[tuple[CheckpointBytes, ...], msgspec.Meta(min_length=1, max_length=MAX_SIGHTINGS)]


class AskGrowth(msgspec.Struct, frozen=True, array_like=True, tag=31, forbid_unknown_fields=True, gc=False):
    """To the node of a log: prove that the log of the new size, which we saw, begins with that of the old one."""

    origin: KeyName
    old_size: Count
    new_size: Count


class Growth(msgspec.Struct, frozen=True, array_like=True, tag=32, forbid_unknown_fields=True, gc=False):
    """The node of a log: its root at the old size, and the consistency proof from there; nil if it is not so long."""

    origin: KeyName
    old_size: Count
    new_size: Count
    root: Hash | None
    hashes: ProofHashes


class ForkShown(msgspec.Struct, frozen=True, array_like=True, tag=33, forbid_unknown_fields=True, gc=False):
    """A proof that a log forked, in the form of `ecot_protocol.wire.fork`."""

    proof: Annotated[bytes, msgspec.Meta(max_length=MAX_FORK_BYTES)]


Sighting = Seen | AskGrowth | Growth | ForkShown

_codec: Final[Codec[Sighting]] = Codec(Sighting)  # type: ignore[arg-type]


def is_sighting(raw: bytes) -> bool:
    """Tell whether an encoded message is of these kinds, by its first two bytes."""
    return len(raw) >= _SHORTEST and FIRST_KIND <= raw[1] <= LAST_KIND


def encode_sighting(message: Sighting) -> bytes:
    """Encode a message; its fields are bounded, so that it always fits."""
    return _codec.encode(message)


def decode_sighting(raw: bytes) -> Sighting:
    """Decode a message.

    Raises:
        RemoteProtocolError: ``too_large``, ``malformed``, ``not_canonical``.
    """
    if len(raw) > MAX_SIGHTING_BYTES:
        raise RemoteProtocolError("too_large", f"at most {MAX_SIGHTING_BYTES} bytes")
    return _codec.decode(raw)
