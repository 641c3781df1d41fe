# SPDX-License-Identifier: AGPL-3.0-or-later
"""From the bytes of a request to typed values. Everything that is not declared is refused, and no input answers 500."""

import asyncio
import re
from collections.abc import Callable, Iterable
from typing import Any, Final, Generic, TypeVar

import msgspec
from aiohttp import ClientPayloadError, web

from ecot_node.http.errors import Problem
from ecot_node.http.fields import Params
from ecot_node.http.routes import JSON_MAX_BYTES, Media

B = TypeVar("B")
P = TypeVar("P")

JSON_CONTENT_TYPE: Final = "application/json"
ANY_CONTENT_TYPE: Final = "*/*"
TOKEN_PATTERN: Final = re.compile(r"Bearer ([0-9a-f]{64})")
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,18})")
_LANGUAGE: Final = re.compile(
    r"\s*(fr|en)(?:-[A-Za-z0-9-]{1,35})?\s*(?:;\s*q=([01](?:\.[0-9]{0,3})?))?\s*", re.IGNORECASE
)
_MAX_LANGUAGES: Final = 16


class ParamsDecoder(Generic[P]):
    """Reads the path and query parameters of one route.

    Args:
        params: a `Params`; None: the route takes none, and a query is refused.
    """

    def __init__(self, params: type[P] | None) -> None:
        self._params = params
        self._are_numbers = frozenset(_numbers(params))

    def decode(self, path: Iterable[tuple[str, str]], query: Iterable[tuple[str, str]]) -> P | None:
        """Return the parameters.

        Raises:
            Problem: ``request_malformed``, with the parameter's name.
        """
        given: dict[str, object] = {}
        for name, value in (*path, *query):
            if name in given:
                raise Problem("request_malformed", "a parameter is given twice", field=name)
            given[name] = self._read(name, value)
        if self._params is None:
            if given:
                raise Problem("request_malformed", "this operation takes no parameter", field=next(iter(given)))
            return None
        try:
            return msgspec.convert(given, self._params)
        except msgspec.ValidationError as error:
            raise _malformed(error) from None

    def _read(self, name: str, value: str) -> object:
        if any(character < " " for character in value):  # NUL, which no database takes; and `$` lets a newline pass
            raise Problem("request_malformed", "a control character", field=name)
        # Not msgspec's lax mode: that takes "null" and "05", which no two clients would read alike.
        return int(value) if name in self._are_numbers and _NUMBER.fullmatch(value) else value


def _numbers(params: type[Any] | None) -> Iterable[str]:
    if params is None:
        return
    assert issubclass(params, Params), f"{params} is no Params"
    for field in msgspec.structs.fields(params):
        kinds = msgspec.inspect.type_info(field.type)
        choices = kinds.types if isinstance(kinds, msgspec.inspect.UnionType) else (kinds,)
        if any(isinstance(choice, msgspec.inspect.IntType) for choice in choices):
            yield field.name


def _malformed(error: msgspec.MsgspecError) -> Problem:
    detail, _, where = str(error).partition(" - at `$")
    return Problem("request_malformed", detail, field=where.strip("`.") or "")


class BodyDecoder(Generic[B]):
    """Reads the body of one route's requests.

    Args:
        body: a JSON type, a `Media`, or None: what comes is not read.
        timeout_s: to receive it.
    """

    def __init__(self, body: type[B] | Media | None, timeout_s: float) -> None:
        self._content_type = body.content_type if isinstance(body, Media) else JSON_CONTENT_TYPE
        self._limit = body.max_size_bytes if isinstance(body, Media) else JSON_MAX_BYTES
        self._timeout_s = timeout_s
        self._is_read = body is not None
        self._decode: Callable[[bytes], Any] = bytes
        if body is not None and not isinstance(body, Media):
            self._decode = msgspec.json.Decoder(body).decode

    async def decode(self, http: web.Request, hold: Callable[[int], None]) -> B | None:
        """Return the body.

        Args:
            http: the request.
            hold: told of each piece of the body, by its size in bytes; raises where there is no room for it.

        Raises:
            Problem: ``media_type_unknown``, ``body_too_large``, ``request_timeout``, ``request_malformed``.
        """
        if not self._is_read:
            return None
        if http.headers.get("Content-Encoding", "identity") != "identity":  # nothing here unpacks: no bomb
            raise Problem("media_type_unknown", "a body is sent without Content-Encoding")
        if self._content_type not in (ANY_CONTENT_TYPE, http.content_type):
            raise Problem("media_type_unknown", f"expected {self._content_type}", expected=self._content_type)
        raw = await self._receive(http, hold)
        try:
            decoded: B = self._decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _malformed(msgspec.DecodeError(str(error))) from None
        return decoded

    async def _receive(self, http: web.Request, hold: Callable[[int], None]) -> bytes:
        if (http.content_length or 0) > self._limit:
            raise Problem("body_too_large", limit_bytes=self._limit)
        body = bytearray()
        try:
            if http.content.is_eof():  # all of it came with the headers, as small bodies do: no clock is needed
                return self._held(http.content.read_nowait(), hold)
            async with asyncio.timeout(self._timeout_s):
                async for chunk in http.content.iter_any():
                    body += chunk
                    hold(len(chunk))
                    if len(body) > self._limit:
                        raise Problem("body_too_large", limit_bytes=self._limit)
        except TimeoutError:
            raise Problem("request_timeout") from None
        except (ClientPayloadError, web.RequestPayloadError) as error:
            raise Problem("request_malformed", str(error)) from None
        return bytes(body)

    def _held(self, body: bytes, hold: Callable[[int], None]) -> bytes:
        hold(len(body))
        if len(body) > self._limit:
            raise Problem("body_too_large", limit_bytes=self._limit)
        return body


def read_token(authorization: str | None) -> bytes | None:
    """Return the session token of an ``Authorization`` header; None if there is none.

    Raises:
        Problem: ``session_ended``: there is one, of another form.
    """
    if authorization is None:
        return None
    match = TOKEN_PATTERN.fullmatch(authorization)
    if match is None:
        raise Problem("session_ended", "expected: Bearer and 64 hex digits")
    return bytes.fromhex(match[1])


def negotiate_locale(accept_language: str | None) -> str:
    """Return the language of ours that the client likes best.

    >>> negotiate_locale("de, en;q=0.4, fr-BE;q=0.8"), negotiate_locale(None), negotiate_locale("x" * 9)
    ('fr', 'en', 'en')
    """
    best, best_quality = "en", 0.0
    for part in (accept_language or "").split(",")[:_MAX_LANGUAGES]:
        match = _LANGUAGE.fullmatch(part)
        quality = float(match[2] or 1) if match else 0.0
        if match and quality > best_quality:
            best, best_quality = match[1].lower(), quality
    return best
