# SPDX-License-Identifier: AGPL-3.0-or-later
"""Reads of the cooperative itself: statutes, offices, persons."""

from typing import Annotated, Any, Final

import msgspec
import sqlalchemy as sa

from ecot_node.domains.coop.views import offices, person_keys, persons, statutes
from ecot_node.domains.membership.views import recoveries
from ecot_node.domains.projector import split_ids
from ecot_node.domains.reading import Row
from ecot_node.domains.records.queries import views_size
from ecot_node.http.errors import Problem
from ecot_node.http.fields import Count, IdHex, JsonReply, KeyIdHex, Positive, TimeMs, Waiting
from ecot_node.http.routes import AnyRoute, Request, Route
from ecot_protocol.domains.coop.statutes import Statutes


class StatutesParams(Waiting, kw_only=True):
    """A version of the statutes."""

    version: Annotated[int, msgspec.Meta(ge=1, le=2**31)]


class StatutesReply(JsonReply):
    """One version of the statutes.

    Attributes:
        version: from 1.
        in_force_from_ms: it is in force from then on, until the next version is.
        adopted_by: the poll that adopted it, or the board.
        index: of the record.
        recorded_at_ms: time of the record.
        statutes: the whole of them.
    """

    version: Positive
    in_force_from_ms: TimeMs
    adopted_by: IdHex
    index: Count
    recorded_at_ms: TimeMs
    statutes: Statutes


class InForceReply(StatutesReply, kw_only=True):
    """The statutes in force now; `newest_version` may only take force later."""

    newest_version: Positive


class OfficeReply(JsonReply):
    """An office: `threshold` of `persons` act for it together."""

    office: str
    persons: tuple[IdHex, ...]
    threshold: Positive
    since_ms: TimeMs


class OfficesReply(JsonReply):
    """Every office that is held."""

    items: tuple[OfficeReply, ...]
    index: Count


class PersonParams(Waiting, kw_only=True):
    """A person."""

    person: IdHex


class PersonKeyReply(JsonReply):
    """A key of a person; it no longer signs once `revoked_at_ms` is set."""

    key_id: KeyIdHex
    purpose: str
    since_ms: TimeMs
    revoked_at_ms: TimeMs | None


class RecoveryReply(JsonReply):
    """The board wants to give the person the key `key_id`; any old key can veto until `ends_at_ms`."""

    key_id: KeyIdHex
    opened_at_ms: TimeMs
    ends_at_ms: TimeMs


class PersonReply(JsonReply):
    """A person who can sign. `handle` is a pseudonym."""

    person: IdHex
    handle: str
    since_ms: TimeMs
    keys: tuple[PersonKeyReply, ...]
    recovery: RecoveryReply | None
    index: Count


_STATUTES: Final = sa.select(
    statutes.c.version,
    statutes.c.in_force_from_ms,
    statutes.c.adopted_by,
    statutes.c.recorded_idx,
    statutes.c.recorded_at_ms,
    statutes.c.statutes,
)


def _statutes_reply(row: Row) -> StatutesReply:
    return StatutesReply(**_statutes_fields(row))


def _statutes_fields(row: Row) -> dict[str, Any]:
    return {
        "version": row.version,
        "in_force_from_ms": row.in_force_from_ms,
        "adopted_by": row.adopted_by.hex(),
        "index": row.recorded_idx,
        "recorded_at_ms": row.recorded_at_ms,
        "statutes": msgspec.json.decode(row.statutes, type=Statutes),
    }


async def get_statutes_in_force(request: Request[Waiting, None]) -> InForceReply:
    """Read the statutes in force now: the newest version that has taken force."""
    taken = _STATUTES.where(statutes.c.in_force_from_ms <= request.context.clock_ms())
    async with request.context.views.connect() as connection:
        row = (await connection.execute(taken.order_by(statutes.c.version.desc()).limit(1))).one_or_none()
        newest = (await connection.execute(sa.select(sa.func.max(statutes.c.version)))).scalar_one()
    if row is None:
        raise Problem("not_found")
    return InForceReply(**_statutes_fields(row), newest_version=newest)


async def get_statutes(request: Request[StatutesParams, None]) -> StatutesReply:
    """Read a version of the statutes."""
    query = _STATUTES.where(statutes.c.version == request.params.version)
    async with request.context.views.connect() as connection:
        row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise Problem("not_found")
    return _statutes_reply(row)


async def list_offices(request: Request[Waiting, None]) -> OfficesReply:
    """List the offices that are held; there are few."""
    async with request.context.views.connect() as connection:
        rows = (await connection.execute(sa.select(offices).order_by(offices.c.office))).all()
        index = await views_size(connection)
    items = (
        OfficeReply(
            office=row.office,
            persons=tuple(one.hex() for one in split_ids(row.persons)),
            threshold=row.threshold,
            since_ms=row.since_ms,
        )
        for row in rows
    )
    return OfficesReply(items=tuple(items), index=index)


async def get_person(request: Request[PersonParams, None]) -> PersonReply:
    """Read a person and its keys."""
    person = bytes.fromhex(request.params.person)
    of_person = sa.select(person_keys).where(person_keys.c.person == person)
    async with request.context.views.connect() as connection:
        row = (await connection.execute(sa.select(persons).where(persons.c.person == person))).one_or_none()
        keys = (await connection.execute(of_person.order_by(person_keys.c.since_ms, person_keys.c.key_id))).all()
        recovery = (await connection.execute(sa.select(recoveries).where(recoveries.c.person == person))).one_or_none()
        index = await views_size(connection)
    if row is None:
        raise Problem("not_found")
    return PersonReply(
        person=person.hex(),
        handle=row.handle,
        since_ms=row.since_ms,
        keys=tuple(map(_key_reply, keys)),
        recovery=None if recovery is None else _recovery_reply(recovery),
        index=index,
    )


def _key_reply(row: Row) -> PersonKeyReply:
    return PersonKeyReply(
        key_id=row.key_id.hex(), purpose=row.purpose, since_ms=row.since_ms, revoked_at_ms=row.revoked_at_ms
    )


def _recovery_reply(row: Row) -> RecoveryReply:
    return RecoveryReply(key_id=row.key_id.hex(), opened_at_ms=row.opened_at_ms, ends_at_ms=row.ends_at_ms)


COOP_ROUTES: Final[tuple[AnyRoute, ...]] = (
    Route(
        method="GET",
        path="/v1/statutes",
        summary="Read the statutes in force",
        tag="coop",
        access="members",
        handler=get_statutes_in_force,
        params=Waiting,
        response=InForceReply,
        errors=("not_found",),
    ),
    Route(
        method="GET",
        path="/v1/statutes/{version}",
        summary="Read a version of the statutes",
        tag="coop",
        access="members",
        handler=get_statutes,
        params=StatutesParams,
        response=StatutesReply,
        errors=("not_found",),
    ),
    Route(
        method="GET",
        path="/v1/offices",
        summary="List the offices",
        tag="coop",
        access="members",
        handler=list_offices,
        params=Waiting,
        response=OfficesReply,
    ),
    Route(
        method="GET",
        path="/v1/persons/{person}",
        summary="Read a person and its keys",
        tag="coop",
        access="members",
        handler=get_person,
        params=PersonParams,
        response=PersonReply,
        errors=("not_found",),
    ),
)
