# SPDX-License-Identifier: AGPL-3.0-or-later
"""Callers made up for tests of who may read what."""

from collections.abc import Mapping

from ecot_node.http.callers import Caller, CallerMember
from ecot_protocol.domains.membership.state import Status


def caller_of(
    *, members: Mapping[bytes, Status] | None = None, offices: tuple[str, ...] = (), person: bytes = b"p" * 16
) -> Caller:
    """Return a caller with an owner's mandate of each member, and these offices."""
    mandated = tuple(
        CallerMember(member, member.hex()[:8], status, ("owner",)) for member, status in (members or {}).items()
    )
    return Caller(session=bytes(32), person=person, key_id=bytes(16), members=mandated, offices=offices)
