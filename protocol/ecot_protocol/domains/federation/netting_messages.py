# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the board of a round of clearing and those who are called say to each other, until there are deals."""

from typing import Annotated, Final

import msgspec

from ecot_protocol.domains.federation.deals import DealBytes, SignatureBytes
from ecot_protocol.wire.encoding import Count, Hash, Id, WireArray

MAX_PART_BYTES: Final = 200_000
PartBytes = Annotated[bytes, msgspec.Meta(max_length=MAX_PART_BYTES)]


class Root(WireArray):
    """The root to which the ledger at `place` committed, signed by its agent (`caller.root_statement`)."""

    place: Count
    root: Hash
    signature: SignatureBytes


class CallShown(msgspec.Struct, frozen=True, array_like=True, tag=50, forbid_unknown_fields=True, gc=False):
    """To the decider: keep the board of this round. From it: take part."""

    call: DealBytes


class Committed(msgspec.Struct, frozen=True, array_like=True, tag=51, forbid_unknown_fields=True, gc=False):
    """To the board: our commitment is recorded; the agent's signature over `caller.root_statement`."""

    call: Id
    root: Hash
    signature: SignatureBytes


class AskBoard(msgspec.Struct, frozen=True, array_like=True, tag=52, forbid_unknown_fields=True, gc=False):
    """To the board: how does the round stand?"""

    call: Id


class Board(msgspec.Struct, frozen=True, array_like=True, tag=53, forbid_unknown_fields=True, gc=False):
    """The board: who committed to what, whether commits are closed, whose reveals count once these are closed, and
    whether solutions are.
    """

    call: Id
    roots: Annotated[tuple[Root, ...], msgspec.Meta(max_length=64)]
    is_closed: bool
    counted: Annotated[tuple[Count, ...], msgspec.Meta(max_length=64)] | None
    is_over: bool


class Revealed(msgspec.Struct, frozen=True, array_like=True, tag=54, forbid_unknown_fields=True, gc=False):
    """What the ledger at `place` offers (`netting.Reveal`): to the board, and from it."""

    call: Id
    place: Count
    reveal: PartBytes


class AskReveal(msgspec.Struct, frozen=True, array_like=True, tag=55, forbid_unknown_fields=True, gc=False):
    """To the board: what was revealed there?"""

    call: Id
    place: Count


class Solved(msgspec.Struct, frozen=True, array_like=True, tag=56, forbid_unknown_fields=True, gc=False):
    """A solution (`netting.Solution`): to the board a proposal, from it the one that won."""

    call: Id
    solution: PartBytes


class AskBest(msgspec.Struct, frozen=True, array_like=True, tag=57, forbid_unknown_fields=True, gc=False):
    """To the board: which solution won?"""

    call: Id


NettingMessage = AskBest | AskBoard | AskReveal | Board | CallShown | Committed | Revealed | Solved
