# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the rules remember of the catalogue: works, their rights-holders, and which identifiers are taken.

Retirement: a withdrawn work stays while a period of royalties that has not been closed may still pay for its use, and
goes with the closing of that period (`royalty.close_period`); its identifiers are free at once.
"""

from typing import Annotated, Final, Literal, Protocol

import msgspec

from ecot_protocol.domains.catalogue.identifiers import Identifier
from ecot_protocol.domains.coop.state import CoopSlice
from ecot_protocol.domains.membership.state import MembershipSlice
from ecot_protocol.ledger.accounts import Accounts
from ecot_protocol.ledger.table import Table
from ecot_protocol.wire.encoding import Count, Id, Wire, WireArray

SHARE_TOTAL_BP: Final = 10_000
MAX_HOLDERS: Final = 32
"""Rights-holders of one work: old and new ones together fit the signatures of one entry."""
MAX_IDENTIFIERS: Final = 8
CATALOGUE_SCOPE: Final = "catalogue"
"""Scope of a mandate to register works and to agree to splits for a member."""

Kind = Literal["book", "comic", "game", "music"]


class Holder(WireArray):
    """A rights-holder of a work and its share of what the work earns, in basis points."""

    member: Id
    share_bp: Annotated[int, msgspec.Meta(ge=1, le=SHARE_TOTAL_BP)]


Holders = Annotated[tuple[Holder, ...], msgspec.Meta(min_length=1, max_length=MAX_HOLDERS)]
Identifiers = Annotated[tuple[Identifier, ...], msgspec.Meta(max_length=MAX_IDENTIFIERS)]


class Work(Wire):
    """A work in the catalogue since `since_ms`, and until `withdrawn_ms` (None: still)."""

    holders: tuple[Holder, ...]
    identifiers: tuple[Identifier, ...]
    kind: Kind
    since_ms: Count
    withdrawn_ms: Count | None


class CatalogueSlice:
    """State of the domain."""

    __slots__ = ("identifiers", "works")

    def __init__(self) -> None:
        self.works: Table[bytes, Work] = Table("catalogue.works", bytes, Work)
        self.identifiers: Table[Identifier, Id] = Table("catalogue.identifiers", Identifier, Id)

    def tables(self) -> tuple[Table[object, object], ...]:
        """Return the tables that the state digest covers."""
        return (self.works, self.identifiers)  # type: ignore[return-value]

    def is_active(self, work_id: bytes) -> bool:
        """Tell whether the work is in the catalogue."""
        work = self.works.get(work_id)
        return work is not None and work.withdrawn_ms is None

    def retire(self, until_ms: int) -> None:
        """Forget the works withdrawn at or before `until_ms`."""
        for work_id in [
            one for one, work in self.works.items() if work.withdrawn_ms is not None and work.withdrawn_ms <= until_ms
        ]:
            del self.works[work_id]


class CatalogueState(Protocol):
    """What the acts of this domain read and change."""

    coop: CoopSlice
    membership: MembershipSlice
    accounts: Accounts
    catalogue: CatalogueSlice
