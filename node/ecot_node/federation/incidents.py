# SPDX-License-Identifier: AGPL-3.0-or-later
"""Incidents: differences between two mirrors that no delay explains, with the proofs of both sides.

An incident is for the board: it changes nothing in the ledger and stops no trade. It begins ``open``; the board
acknowledges it and closes it, each time with a note; if the mirrors agree again by themselves it is ``explained``. One
that the board has closed does not come back for the same difference; for another one there is a new incident.
"""

from collections.abc import Iterable
from hashlib import sha256
from typing import Annotated, Final, Literal

import msgspec

from ecot_node.federation.notebook import MetaStore, Notes
from ecot_protocol.domains.federation.proofs import RecordProof
from ecot_protocol.errors import EcotError
from ecot_protocol.wire.encoding import Codec, Count, Hash, Id, Integer, UnitCode, Wire, encode

MAX_INCIDENTS: Final = 128
MAX_NAMED: Final = 64
"""Deals that one incident names; the rest are counted."""
MAX_PROOFS: Final = 4
"""Records of each side that one incident holds."""

IncidentKind = Literal["deal_opposed", "deal_unheard", "mirror_differs"]
IncidentStatus = Literal["acknowledged", "closed", "explained", "open"]


class NamedDeal(Wire):
    """A deal that the two ledgers don't post alike: see `mirrors.Difference`; amounts in the partner's unit."""

    expected_minor: Integer
    kind: Literal["amount_differs", "missing_here", "missing_there", "opposed"]
    shown_minor: Integer
    their_index: Count | None
    tid: Id


class Evidence(Wire):
    """What a third person can check.

    Attributes:
        claim, claim_lists, claim_signature: statement ``mirror`` of the partner, its lists, signed by its agent.
        moves: pages of posted deals, each (statement ``moves``, signature).
        our_checkpoint: of our log.
        our_records: resolutions of the named deals here.
        their_agent: key of the partner's agent, 33 bytes.
        their_checkpoint: of the partner's log, the newest that we cosigned; nil if there is none.
        their_records: resolutions of the named deals there.
    """

    claim: bytes
    claim_lists: bytes
    claim_signature: bytes
    moves: tuple[tuple[bytes, bytes], ...]
    our_checkpoint: bytes
    our_records: tuple[RecordProof, ...]
    their_agent: bytes
    their_checkpoint: bytes | None
    their_records: tuple[RecordProof, ...]


class Incident(Wire):
    """One incident.

    Attributes:
        deal_count: how many deals differ; `deals` holds the first of them.
        difference_minor: what the partner's mirror holds beyond what our records say; its unit.
        evidence: see `Evidence`.
        expected_minor: what it should hold.
        fingerprint: of the difference, so that one that was closed doesn't come back.
        noticed_at_ms, seen_at_ms: first, and last.
        note, noted_by: of whoever of the board acknowledged or closed it; empty and nil before.
        partner: ledger id.
        shown_minor: what it holds, as the partner says.
        status: see the module.
        unit: the partner's.
    """

    deal_count: Count
    deals: Annotated[tuple[NamedDeal, ...], msgspec.Meta(max_length=MAX_NAMED)]
    difference_minor: Integer
    evidence: Evidence
    expected_minor: Integer
    fingerprint: Hash
    kind: IncidentKind
    note: Annotated[str, msgspec.Meta(max_length=2_000)]
    noted_by: Id | None
    noticed_at_ms: Count
    partner: Hash
    seen_at_ms: Count
    shown_minor: Integer
    status: IncidentStatus
    unit: UnitCode

    @property
    def is_standing(self) -> bool:
        """Tell whether the difference is there and the board has not closed it."""
        return self.status in ("acknowledged", "open")


INCIDENT: Final = Codec(Incident)
EVIDENCE: Final = Codec(Evidence)


class IncidentUnknown(EcotError):
    """There is no such incident."""


def fingerprint_of(partner: bytes, kind: str, difference_minor: int, tids: Iterable[bytes]) -> bytes:
    """Return what tells one difference from another."""
    return sha256(b"ecot/incident/v1\n" + encode((partner, kind, difference_minor, tuple(sorted(tids))))).digest()


class Incidents:
    """All incidents of a node, by id (32 hex digits).

    Args:
        store: where they are kept.
    """

    def __init__(self, store: MetaStore) -> None:
        self._notes = Notes(store, "incidents", INCIDENT, MAX_INCIDENTS)

    async def all(self) -> dict[str, Incident]:
        """Return id -> incident, oldest first."""
        return dict(await self._notes.all())

    async def of(self, partner: bytes) -> dict[str, Incident]:
        """Return those with one partner."""
        return {name: one for name, one in (await self.all()).items() if one.partner == partner}

    async def standing(self, partner: bytes) -> tuple[str, Incident] | None:
        """Return the one that stands with a partner."""
        return next(((name, one) for name, one in (await self.of(partner)).items() if one.is_standing), None)

    async def notice(self, incident: Incident) -> str | None:
        """Take a difference: into the incident that stands with the partner, or as a new one.

        Returns:
            Its id; None if the board has closed this very difference.
        """
        known = await self.of(incident.partner)
        if any(one.status == "closed" and one.fingerprint == incident.fingerprint for one in known.values()):
            return None
        # One that was explained begins again, or a partner whose word changes every minute would push out all others'.
        standing = next(((name, one) for name, one in known.items() if one.status != "closed"), None)
        if standing is None:
            name = sha256(incident.fingerprint + incident.noticed_at_ms.to_bytes(8, "big")).digest()[:16].hex()
            await self._make_room()
            await self._notes.put(name, incident)
            return name
        name, old = standing
        status = "open" if old.status == "explained" else old.status
        kept = msgspec.structs.replace(
            incident, noticed_at_ms=old.noticed_at_ms, status=status, note=old.note, noted_by=old.noted_by
        )
        await self._notes.put(name, kept)
        return name

    async def is_named(self, partner: bytes, fingerprint: bytes) -> bool:
        """Tell whether this difference is known with its deals, or was closed by the board."""
        known = (one for one in (await self.of(partner)).values() if one.fingerprint == fingerprint)
        return any(one.status == "closed" or (one.is_standing and one.evidence.moves) for one in known)

    async def explain(self, partner: bytes, at_ms: int) -> None:
        """The mirrors agree again."""
        standing = await self.standing(partner)
        if standing is not None:
            name, incident = standing
            await self._notes.put(name, msgspec.structs.replace(incident, status="explained", seen_at_ms=at_ms))

    async def note(self, name: str, status: Literal["acknowledged", "closed"], note: str, person: bytes) -> Incident:
        """Let somebody of the board acknowledge or close an incident.

        Raises:
            IncidentUnknown: there is none of this id, or it is over.
        """
        incident = await self._notes.get(name)
        if incident is None or not incident.is_standing:
            raise IncidentUnknown(name)
        changed: Incident = msgspec.structs.replace(incident, status=status, note=note, noted_by=person)
        await self._notes.put(name, changed)
        return changed

    async def _make_room(self) -> None:
        """Forget the oldest that is over, if there is no room; those that stand are no more than partners."""
        known = await self.all()
        if len(known) >= MAX_INCIDENTS:
            over = next((name for name, one in known.items() if not one.is_standing), next(iter(known)))
            await self._notes.remove(over)
