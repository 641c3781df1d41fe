# SPDX-License-Identifier: AGPL-3.0-or-later
"""The application: routes joined to aiohttp, with what every answer needs.

    connection -> guard (request id, errors, log, metrics) -> endpoint (limits, session, parameters, body) -> handler

The access log says method, route, status and time; never a path (it holds ids), a query, a token, a name, an address
or a body.
"""

import asyncio
import itertools
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import msgspec
import structlog
from aiohttp import hdrs, web

from ecot_node.http.callers import Caller
from ecot_node.http.context import Context
from ecot_node.http.decode import JSON_CONTENT_TYPE, BodyDecoder, ParamsDecoder, negotiate_locale, read_token
from ecot_node.http.errors import PROBLEM_CONTENT_TYPE, Problem, describe, headers_of, is_expected
from ecot_node.http.fields import Waiting
from ecot_node.http.floor import FLOOR_ROUTES
from ecot_node.http.limits import client_of
from ecot_node.http.metrics import UNKNOWN_ROUTE
from ecot_node.http.openapi import write_openapi
from ecot_node.http.routes import NOT_STORED, AnyRoute, Content, Request
from ecot_node.http.services import Services, build_services
from ecot_protocol.locale import available_locales

log = structlog.get_logger("ecot.http")

SERVER_NAME: Final = "ecot"
WAIT_LIMIT_S: Final = 10.0
"""Longest wait of `?wait_for=`."""
MAX_ENTRIES_BODY_BYTES: Final = 16 * 1024 * 1024
CSP_NOTHING: Final = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
SECURITY_HEADERS: Final = (
    ("Content-Security-Policy", CSP_NOTHING),
    ("Cache-Control", NOT_STORED),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)
"""Given to every answer that doesn't set its own."""
SERVICES: Final = web.AppKey("services", Services)
_ID: Final = web.RequestKey("id", str)
_LOCALE: Final = web.RequestKey("locale", str)
_ROUTE: Final = web.RequestKey("route", str)
_METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE"))
_json: Final = msgspec.json.Encoder()


class Endpoint:
    """One route, with its decoders built once.

    Args:
        route: what it answers.
        context: the ports.
        services: of the application.
    """

    def __init__(self, route: AnyRoute, context: Context, services: Services) -> None:
        self.route = route
        self._context, self._services = context, services
        self._params: ParamsDecoder[Any] = ParamsDecoder(route.params)
        self._body: BodyDecoder[Any] = BodyDecoder(route.body, context.settings.body_timeout_s)
        self._waits = route.params is not None and issubclass(route.params, Waiting)

    async def answer(self, http: web.Request) -> web.StreamResponse:
        """Answer one request."""
        http[_ROUTE] = self.route.path
        client = self._client(http)
        if self.route.is_limited:
            self._services.take(self._services.addresses, client)
        caller = await self._caller(http)
        query = http.rel_url.query.items() if http.rel_url.raw_query_string else ()
        params = self._params.decode(http.match_info.items(), query)
        with self._services.lease(self._services.bodies, client) as lease:
            body = await self._body.decode(http, lease.take)
            return await self._handle(http, caller, client, params, body)

    async def _handle(
        self, http: web.Request, caller: Caller | None, client: str, params: Any, body: Any
    ) -> web.StreamResponse:
        request = Request(self._context, self._services, caller, client, http[_LOCALE], params, body, http)
        if self.route.is_stream:
            return await self.route.handler(request)  # type: ignore[no-any-return]  # a stream answers by itself
        async with asyncio.timeout(self._context.settings.answer_timeout_s):
            if self._waits and (index := getattr(params, "wait_for", None)) is not None:
                await self._wait(index)
            return _respond(await self.route.handler(request))

    def _client(self, http: web.Request) -> str:
        forwarded = http.headers.getall(hdrs.X_FORWARDED_FOR, ())
        return client_of(http.remote, forwarded, self._context.settings.trusted_proxies)

    async def _caller(self, http: web.Request) -> Caller | None:
        token = read_token(http.headers.get(hdrs.AUTHORIZATION))
        if token is None:
            if self.route.access != "public":
                raise Problem("session_missing")
            return None
        caller = await self._services.sessions.caller(token, self._context.ledger, self._context.clock_ms())
        if self.route.is_limited:
            self._services.take(self._services.callers, caller.session)
        if self.route.access == "members" and not caller.is_member:
            raise Problem("not_allowed")
        return caller

    async def _wait(self, index: int) -> None:
        if index >= self._context.ledger.status().size:
            raise Problem("record_unknown", index=index)
        await self._context.ledger.wait_for(index, WAIT_LIMIT_S)


def _respond(result: Any) -> web.Response:
    match result:
        case None:
            return web.Response(status=204)
        case Content():
            headers = {hdrs.CONTENT_TYPE: result.content_type, **result.headers}
            return web.Response(body=result.body, status=result.status, headers=headers)
        case _:
            return web.Response(body=_json.encode(result), headers={hdrs.CONTENT_TYPE: JSON_CONTENT_TYPE})


def _guard(services: Services) -> Callable[..., Awaitable[web.StreamResponse]]:
    prefix, numbers = secrets.token_hex(4), itertools.count()

    @web.middleware
    async def guard(
        http: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        started = time.perf_counter()
        http[_ID] = f"{prefix}{next(numbers) & 0xFFFFFFFF:08x}"
        http[_LOCALE] = negotiate_locale(http.headers.get(hdrs.ACCEPT_LANGUAGE))
        try:
            response = await handler(http)
        except Exception as error:
            if not is_expected(error):
                log.exception("request_failed", request_id=http[_ID], route=http.get(_ROUTE, UNKNOWN_ROUTE))
            response = _respond_problem(error, http[_LOCALE])
        _note(services, http, response.status, time.perf_counter() - started)
        return response

    return guard


def _respond_problem(error: Exception, locale: str) -> web.Response:
    described = describe(error, locale)
    headers = {hdrs.CONTENT_TYPE: PROBLEM_CONTENT_TYPE, hdrs.CONTENT_LANGUAGE: locale, **headers_of(error)}
    response = web.Response(body=_json.encode(described), status=described.status, headers=headers)
    if described.status in (408, 413):  # what is left of the body is not read
        response.force_close()
    return response


async def answer_error(http: web.BaseRequest, error: Exception, request_id: str) -> web.Response:
    """Return the answer to an error of a request that did not reach the application, headers and all."""
    if not is_expected(error):
        log.exception("request_failed", request_id=request_id, route=UNKNOWN_ROUTE, exc_info=error)
    response = _respond_problem(error, negotiate_locale(http.headers.get(hdrs.ACCEPT_LANGUAGE)))
    _set_headers(response, request_id)
    return response


def _note(services: Services, http: web.Request, status: int, seconds: float) -> None:
    method = http.method if http.method in _METHODS else "other"
    note_answer(services, http[_ID], method, http.get(_ROUTE, UNKNOWN_ROUTE), status, seconds)


def note_answer(services: Services, request_id: str, method: str, route: str, status: int, seconds: float) -> None:
    """Count an answer and write it to the access log."""
    services.metrics.answered(method, route, status, seconds)
    log.debug(
        "answer",
        request_id=request_id,
        method=method,
        route=route,
        status=status,
        milliseconds=round(seconds * 1000, 1),
    )


async def _add_headers(http: web.Request, response: web.StreamResponse) -> None:
    _set_headers(response, http.get(_ID, ""))


def _set_headers(response: web.StreamResponse, request_id: str) -> None:
    headers = response.headers
    for name, value in SECURITY_HEADERS:
        if name not in headers:
            headers[name] = value
    headers[hdrs.SERVER] = SERVER_NAME
    headers["X-Request-Id"] = request_id


def make_app(context: Context, routes: Iterable[AnyRoute] = ()) -> web.Application:
    """Make the application of a node.

    Args:
        context: the ports; the ledger has started before the application does.
        routes: of the domains; those of this floor are added.

    Raises:
        AssertionError: two routes have the same method and path, or a route names an error that has no status.
    """
    every = (*FLOOR_ROUTES, *routes)
    services = build_services(context)
    for locale in available_locales():
        services.openapi[locale] = write_openapi(every, locale)
    app = web.Application(middlewares=[_guard(services)], client_max_size=MAX_ENTRIES_BODY_BYTES)
    app[SERVICES] = services
    app.on_response_prepare.append(_add_headers)
    for route in every:
        _add(app, Endpoint(route, context, services))
    _follow(app, context, services)
    return app


def _add(app: web.Application, endpoint: Endpoint) -> None:
    route = endpoint.route
    app.router.add_route(route.method, route.path, endpoint.answer)
    if route.method == "GET" and not route.is_stream:
        app.router.add_route("HEAD", route.path, endpoint.answer)


def _follow(app: web.Application, context: Context, services: Services) -> None:
    """Follow the ledger from the application's start to its end."""
    ledger, hub, mandating = context.ledger, services.hub, services.sessions.mandating

    async def start(_app: web.Application) -> None:
        services.endings.append(ledger.subscribe(hub.publish))
        services.endings.append(ledger.subscribe(mandating.follow))
        await ledger.read(mandating.scan)

    async def end_streams(_app: web.Application) -> None:
        hub.close_all()

    async def stop(_app: web.Application) -> None:
        while services.endings:
            services.endings.pop()()

    app.on_startup.append(start)
    app.on_shutdown.append(end_streams)
    app.on_cleanup.append(stop)
