# SPDX-License-Identifier: AGPL-3.0-or-later
"""Routes: one value each. What decodes a request is what documents it; the lists of routes are explicit.

A domain writes, in ``node/ecot_node/domains/<domain>/routes.py``:

    class MemberParams(Waiting, kw_only=True):
        member: IdHex                                     # stands in the path, so it is a path parameter

    class MemberReply(JsonReply):
        member: IdHex
        handle: str

    async def get_member(request: Request[MemberParams, None]) -> MemberReply:
        found = await request.context.ledger.read(lambda state: ...)
        if found is None:
            raise Problem("not_found")
        return MemberReply(...)

    MEMBERSHIP_ROUTES: Final[tuple[AnyRoute, ...]] = (
        Route(method="GET", path="/v1/members/{member}", summary="Read a member", tag="members", access="members",
              handler=get_member, params=MemberParams, response=MemberReply, errors=("not_found",)),
    )

and `bootstrap` hands all lists to `app.make_app`. For a list, the parameters extend `Page`, the reply is
``Listing[Item]`` and the cursor comes from `paging`. A reply that is not JSON is a `Media`; its handler returns a
`Content`.

Access: ``public`` (a session is welcome and then `request.caller` is set), ``session`` (any person whose key is in
force), ``members`` (and a mandate of an admitted member, or an office). What is finer stands in the handler, by
`callers.may_read` or `Caller.acts_for`.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Literal, TypeVar

from aiohttp import web

from ecot_node.http.callers import Caller
from ecot_node.http.context import Context
from ecot_node.http.errors import Problem
from ecot_node.http.services import Services

P = TypeVar("P")
B = TypeVar("B")
R = TypeVar("R")

Access = Literal["public", "session", "members"]
JSON_MAX_BYTES: Final = 64 * 1024
"""Longest JSON body."""
IMMUTABLE: Final = "public, max-age=31536000, immutable"
NOT_STORED: Final = "no-store"


@dataclass(frozen=True, slots=True)
class Media:
    """A body that is not JSON.

    Attributes:
        content_type: the only one that is taken or given.
        description: what it holds.
        max_size_bytes: of a request's body.
        is_text: whether it is text rather than bytes.
    """

    content_type: str
    description: str
    max_size_bytes: int = JSON_MAX_BYTES
    is_text: bool = False


@dataclass(frozen=True, slots=True)
class Content:
    """What a route answers that is not JSON, or JSON with a status or headers of its own."""

    body: bytes
    content_type: str
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Request(Generic[P, B]):
    """One request, decoded.

    Attributes:
        context: the ports.
        services: sessions, limits, event streams of this application.
        caller: who has an open session; None without one.
        client: what limits count: an address, or the /64 of one.
        locale: language of the texts in the answer: ``fr`` or ``en``.
        params: from path and query; None if the route has none.
        body: decoded JSON, bytes of a `Media`, or None.
        http: the underlying request, for streams.
    """

    context: Context
    services: Services
    caller: Caller | None
    client: str
    locale: str
    params: P
    body: B
    http: web.Request

    @property
    def signed_in(self) -> Caller:
        """The caller of a route that needs one."""
        if self.caller is None:
            raise Problem("session_missing")
        return self.caller


@dataclass(frozen=True, slots=True, kw_only=True)
class Route(Generic[P, B, R]):
    """One operation.

    Attributes:
        method: HTTP method; a GET answers HEAD too.
        path: with ``{name}`` for each path parameter.
        summary: imperative, English, one line.
        tag: group in the documentation.
        handler: awaited with the decoded request.
        access: see the module.
        params: path and query parameters, a `Params`.
        body: a `JsonBody`, or a `Media`.
        response: a `JsonReply` type (or another msgspec type), a `Media`, or None for 204.
        errors: codes of `errors.STATUS` that the handler raises, beyond those that any route can answer.
        also: statuses that the handler answers by itself with a `Media`, where another specification rules.
        is_stream: the handler answers by itself on `request.http` and returns its `web.StreamResponse`.
        is_limited: whether rate limits count it.
    """

    method: Literal["DELETE", "GET", "POST", "PUT"]
    path: str
    summary: str
    tag: str
    handler: Callable[[Request[P, B]], Awaitable[R]]
    access: Access = "session"
    params: type[P] | None = None
    body: type[B] | Media | None = None
    response: type[R] | Media | None = None
    errors: tuple[str, ...] = ()
    also: tuple[tuple[int, Media], ...] = ()
    is_stream: bool = False
    is_limited: bool = True


AnyRoute = Route[Any, Any, Any]
"""A route whose types are its own affair."""
