# SPDX-License-Identifier: AGPL-3.0-or-later
"""Every error of the HTTP interface and its status: the one mapping. RFC 9457, ``application/problem+json``.

    {"type": "/docs#problem-rate_limited", "title": "Trop de demandes.", "status": 429, "code": "rate_limited",
     "params": {"retry_after_s": 2}}

- `code` is stable; `title` is its text in the caller's language (``reason.<code>`` in `ecot_protocol.locale`); `params`
  are those of the text; `detail` is for developers, in English, and may be missing.
- A `RemoteProtocolError` keeps its own code and answers 400.
- What nobody expected answers 500 ``internal``, tells nothing else, and is logged with the request's id.

>>> describe(Problem("rate_limited", retry_after_s=2), "en").status
429
>>> describe(RemoteProtocolError("not_canonical", "Body"), "en").code
'not_canonical'
"""

from collections.abc import Mapping
from typing import Final

import msgspec
from aiohttp import web

from ecot_node.ledger.errors import NotWriting, Overloaded
from ecot_node.store.errors import StoreError, StoreLimit
from ecot_protocol.errors import EcotError, RemoteProtocolError
from ecot_protocol.locale import translate

PROBLEM_CONTENT_TYPE: Final = "application/problem+json"
RETRY_SOON_S: Final = 1
RETRY_LATER_S: Final = 30
SOON_OVER: Final = frozenset(("stopping", "witness_unasked"))
"""Reasons for not writing that end by themselves: a node that starts, or is started again."""

STATUS: Final[Mapping[str, int]] = {
    "request_malformed": 400,
    "clearing_unsound": 422,
    "federation_disabled": 409,
    "peering_unsound": 422,
    "agent_key_mismatch": 409,
    "incident_unknown": 404,
    "node_key_wrong": 422,
    "own_side_wrong": 422,
    "peering_sequence_stale": 409,
    "proposal_accepted": 409,
    "proposal_unknown": 404,
    "proposal_unreachable": 422,
    "proposal_waits": 409,
    "proposals_full": 503,
    "cursor_malformed": 400,
    "entries_malformed": 400,
    "session_missing": 401,
    "session_ended": 401,
    "challenge_refused": 401,
    "not_allowed": 403,
    "not_found": 404,
    "record_unknown": 404,
    "not_witnessed_yet": 404,
    "method_not_allowed": 405,
    "request_timeout": 408,
    "draft_refused": 409,
    "body_too_large": 413,
    "media_type_unknown": 415,
    "rate_limited": 429,
    "headers_too_large": 431,
    "internal": 500,
    "overloaded": 503,
    "not_writing": 503,
    "store_unavailable": 503,
    "answer_timeout": 503,
}
"""Code -> status of the problems that this floor and the routes raise."""

EVERYWHERE: Final = ("request_malformed", "rate_limited", "internal", "answer_timeout")
"""Problems that any route can answer."""
WITH_SESSION: Final = ("session_missing", "session_ended")
"""Problems of a route that needs a session."""
WITH_BODY: Final = ("body_too_large", "media_type_unknown", "request_timeout", "overloaded")
"""Problems of a route that reads a body."""

ParamValue = str | int | bool | None


class ProblemReply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The body of every error.

    Attributes:
        type: where the code is explained, relative to the node.
        title: the code's text in the caller's language.
        status: of the answer.
        code: stable.
        params: ids and numbers that the text needs.
        detail: for developers, in English.
    """

    type: str
    title: str
    status: int
    code: str
    params: dict[str, str | int | bool | None] = msgspec.field(default_factory=dict)
    detail: str = ""


class Problem(EcotError):
    """An answer that is an error; routes raise it.

    Args:
        code: one of `STATUS`.
        detail: for developers, in English.
        headers: of the answer.
        params: ids (hex) and numbers that the text needs.
    """

    def __init__(
        self, code: str, detail: str = "", *, headers: Mapping[str, str] | None = None, **params: ParamValue
    ) -> None:
        assert code in STATUS, f"{code} has no status"
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})
        self.params = params

    @property
    def status(self) -> int:
        """The HTTP status."""
        return STATUS[self.code]


def is_expected(error: BaseException) -> bool:
    """Tell whether the error is an answer rather than a fault of ours."""
    return isinstance(
        error, Problem | RemoteProtocolError | Overloaded | NotWriting | StoreError | web.HTTPException | TimeoutError
    )


def problem_of(error: BaseException) -> Problem | RemoteProtocolError:
    """Return what an error looks like from outside."""
    match error:
        case Problem() | RemoteProtocolError():
            return error
        case Overloaded():
            return Problem("overloaded", headers={"Retry-After": str(RETRY_SOON_S)})
        case NotWriting():
            wait_s = RETRY_SOON_S if error.reason in SOON_OVER else RETRY_LATER_S
            return Problem("not_writing", headers={"Retry-After": str(wait_s)}, why=error.reason)
        case StoreLimit():
            return Problem("store_unavailable", str(error), headers={"Retry-After": str(RETRY_LATER_S)})
        case StoreError():
            return Problem("store_unavailable", headers={"Retry-After": str(RETRY_LATER_S)})
        case TimeoutError():
            return Problem("answer_timeout", headers={"Retry-After": str(RETRY_SOON_S)})
        case web.HTTPException():
            return _of_aiohttp(error)
        case _:
            return Problem("internal")


def _of_aiohttp(error: web.HTTPException) -> Problem:
    match error.status:
        case 404:
            return Problem("not_found")
        case 405:
            return Problem("method_not_allowed", headers={"Allow": error.headers.get("Allow", "")})
        case 413:
            return Problem("body_too_large")
        case 431:
            return Problem("headers_too_large")
        case status if status < 500:
            return Problem("request_malformed", error.reason or "")
        case _:
            return Problem("internal")


def describe(error: BaseException, locale: str) -> ProblemReply:
    """Return the body of the answer to an error.

    Args:
        error: any.
        locale: language of the title.
    """
    problem = problem_of(error)
    params = {name: _plain(value) for name, value in problem.params.items()}
    return ProblemReply(
        type=f"/docs#problem-{problem.code}",
        title=translate(f"reason.{problem.code}", locale, **params),
        status=problem.status if isinstance(problem, Problem) else 400,
        code=problem.code,
        params=params,
        detail=problem.detail,
    )


def _plain(value: object) -> ParamValue:
    if isinstance(value, bytes):
        return value.hex()
    return value if isinstance(value, str | int | bool | None) else str(value)


def headers_of(error: BaseException) -> dict[str, str]:
    """Return the headers that the answer to an error needs."""
    problem = problem_of(error)
    headers = dict(problem.headers) if isinstance(problem, Problem) else {}
    if isinstance(problem, Problem) and problem.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return headers
