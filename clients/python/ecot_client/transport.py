# SPDX-License-Identifier: AGPL-3.0-or-later
"""HTTP with one node: bounded answers, deadlines, problems as errors, retries where asking twice is safe.

A request is sent again only if its caller says that it may be: reads, and entries whose very bytes are sent again. A
node that says ``Retry-After`` is asked again no sooner.
"""

import datetime as dt
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

import aiohttp
import msgspec
import stamina

from ecot_client.errors import NodeProblem, NodeUnreachable, ProofFailed

T = TypeVar("T")
MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024
MAX_EVENT_BYTES: Final = 1 << 20
LONGEST_PAUSE_S: Final = 60.0
_MALFORMED: Final = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)
"""What the decoder raises at any bytes."""
_SECONDS: Final = re.compile(r"[0-9]{1,9}", re.ASCII)
_ASK_AGAIN: Final = frozenset((429, 502, 503, 504))
_MSGPACK: Final = "application/msgpack"
_TEXT: Final = "text/plain"


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for a node.

    Attributes:
        request_s: deadline of one request.
        total_s: of a request with all its repetitions.
        attempts: at most.
        pause_s: before the first repetition; then it doubles.
    """

    request_s: float = 30.0
    total_s: float = 90.0
    attempts: int = 6
    pause_s: float = 0.2


@dataclass(frozen=True, slots=True)
class Request:
    """One request.

    Attributes:
        method: HTTP method.
        path: absolute, without the node's address.
        query: parameters; None values are left out.
        json: body, encoded as JSON.
        msgpack: body, as it stands.
        text: body, plain text.
        is_repeatable: whether sending it twice does what sending it once does.
    """

    method: str
    path: str
    query: Mapping[str, str | int | None] | None = None
    json: object = None
    msgpack: bytes | None = None
    text: str | None = None
    is_repeatable: bool = True


class _Problem(msgspec.Struct, frozen=True, kw_only=True):
    code: str
    title: str = ""
    detail: str = ""
    params: dict[str, str | int | bool | None] = {}


class Transport:
    """Requests to one node. Use it as an async context manager.

    Args:
        url: address of the node, without a path.
        locale: language of the node's texts.
        patience: deadlines and repetitions.
    """

    def __init__(self, url: str, *, locale: str = "en", patience: Patience | None = None) -> None:
        self.url = url.rstrip("/")
        self.locale = locale
        self.patience = patience or Patience()
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "Transport":
        headers = {"Accept-Language": self.locale, "User-Agent": "ecot-client"}
        self._http = aiohttp.ClientSession(
            headers=headers, cookie_jar=aiohttp.DummyCookieJar(), connector=aiohttp.TCPConnector(limit=32)
        )
        return self

    async def __aexit__(self, *_exc: object) -> None:
        if self._http is not None:
            await self._http.close()
            self._http = None

    async def ask(self, request: Request, token: str | None = None) -> bytes:
        """Send a request and return the body of its answer.

        Raises:
            NodeUnreachable: no answer in time, whatever was tried.
            NodeProblem: the node's error.
        """
        patience = self.patience
        attempts = patience.attempts if request.is_repeatable else 1
        async for attempt in stamina.retry_context(
            on=_may_ask_again, attempts=attempts, timeout=patience.total_s, wait_initial=patience.pause_s
        ):
            with attempt:
                return await self._ask_once(request, token)
        raise AssertionError("the last attempt returns or raises")

    async def ask_json(self, request: Request, answer: type[T], token: str | None = None) -> T:
        """Send a request and decode its JSON answer.

        Raises:
            ProofFailed: ``answer_malformed``.
            NodeUnreachable, NodeProblem: as `ask`.
        """
        raw = await self.ask(request, token)
        try:
            return msgspec.json.decode(raw, type=answer)
        except _MALFORMED as error:
            raise ProofFailed("answer_malformed", f"{request.path}: {error}", path=request.path) from None

    async def _ask_once(self, request: Request, token: str | None) -> bytes:
        timeout = aiohttp.ClientTimeout(total=self.patience.request_s)
        try:
            async with self._open(request, token, timeout) as response:
                raw = await _read(response, MAX_ANSWER_BYTES)
                if response.status >= 300:
                    raise _problem_of(response, raw)
                return raw
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise NodeUnreachable("node_unreachable", repr(error), url=self.url) from error

    def _open(
        self, request: Request, token: str | None, timeout: aiohttp.ClientTimeout
    ) -> "aiohttp.client._RequestContextManager":
        assert self._http is not None, "use it as an async context manager"
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        data: bytes | None = None
        if request.msgpack is not None:
            headers["Content-Type"], data = _MSGPACK, request.msgpack
        elif request.text is not None:
            headers["Content-Type"], data = _TEXT, request.text.encode("utf-8", "surrogateescape")
        elif request.json is not None:
            headers["Content-Type"], data = "application/json", msgspec.json.encode(request.json)
        query = {name: str(value) for name, value in (request.query or {}).items() if value is not None}
        # A node never redirects; following would let it hand our token to somebody else.
        return self._http.request(
            request.method,
            self.url + request.path,
            params=query,
            data=data,
            headers=headers,
            timeout=timeout,
            allow_redirects=False,
        )

    async def stream_lines(self, request: Request, token: str | None, last_event_id: str | None) -> AsyncIterator[str]:
        """Yield the lines of an event stream until the node ends it.

        Raises:
            NodeUnreachable: the connection broke.
            NodeProblem: the node's error.
        """
        assert self._http is not None, "use it as an async context manager"
        headers = {"Accept": "text/event-stream"}
        headers |= {"Authorization": f"Bearer {token}"} if token else {}
        headers |= {"Last-Event-ID": last_event_id} if last_event_id is not None else {}
        # The node sends a comment at least every few seconds; silence for longer than a request's deadline is an end.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self.patience.request_s, sock_read=2 * 60)
        try:
            async with self._http.get(
                self.url + request.path, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                if response.status != 200:
                    raise _problem_of(response, await _read(response, MAX_EVENT_BYTES))
                async for line in response.content:
                    yield line.decode("utf-8", "replace").rstrip("\r\n")
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise NodeUnreachable("node_unreachable", repr(error), url=self.url) from error


def _may_ask_again(error: Exception) -> bool | float | dt.timedelta:
    if isinstance(error, NodeUnreachable):
        return True
    if not isinstance(error, NodeProblem) or error.status not in _ASK_AGAIN:
        return False
    return True if error.retry_after_s is None else min(error.retry_after_s, LONGEST_PAUSE_S)


async def _read(response: aiohttp.ClientResponse, most_bytes: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in response.content.iter_chunked(1 << 16):
        size += len(part)
        if size > most_bytes:
            response.close()
            raise ProofFailed("answer_malformed", f"longer than {most_bytes} bytes", path=response.url.path)
        parts.append(part)
    return b"".join(parts)


def _problem_of(response: aiohttp.ClientResponse, raw: bytes) -> NodeProblem:
    try:
        read = msgspec.json.decode(raw, type=_Problem)
    except _MALFORMED:
        read = _Problem(code=f"http_{response.status}")
    params = {name: value for name, value in read.params.items() if name not in ("code", "detail")}
    problem = NodeProblem(read.code, read.detail, **params)
    problem.status, problem.title = response.status, read.title
    after = response.headers.get("Retry-After", "")
    problem.retry_after_s = float(after) if _SECONDS.fullmatch(after) else None
    return problem
