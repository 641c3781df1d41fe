# SPDX-License-Identifier: AGPL-3.0-or-later
"""The OpenAPI 3.1 document, made from the routes: the types that decode a request are those that document it.

Schemas come from msgspec. Every problem that an operation can answer is listed with its text, under its status.
"""

import inspect
import re
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from typing import Any, Final

import msgspec

from ecot_node.http.errors import EVERYWHERE, PROBLEM_CONTENT_TYPE, STATUS, WITH_BODY, WITH_SESSION, ProblemReply
from ecot_node.http.routes import AnyRoute, Media
from ecot_protocol.locale import translate

OPENAPI_VERSION: Final = "3.1.0"
DISTRIBUTION: Final = "ecot"
_REFERENCE: Final = "#/components/schemas/{name}"
_NAME: Final = re.compile(r"\{([a-z_]+)(?::[^}]*)?\}")
_MORE: Final = ("title", "description", "default")

Json = dict[str, Any]
"""A part of the document; JSON has no narrower type here."""


def write_openapi(routes: Sequence[AnyRoute], locale: str) -> bytes:
    """Return the document of these routes as JSON, with the texts of problems in one language."""
    _require_distinct(routes)
    types = list(dict.fromkeys(_types(routes)))
    schemas, components = msgspec.json.schema_components(types, ref_template=_REFERENCE)
    schema_of = {one: _tidy(schema) for one, schema in zip(types, schemas, strict=True)}
    named: Json = {name: _tidy(component) for name, component in components.items()}
    parameters = {route.params: _properties(route.params, named, schema_of) for route in routes if route.params}
    used = {name for name in named if not any(_reference(name) == schema_of.get(one) for one in parameters)}
    paths: Json = {}
    for route in routes:
        params = parameters[route.params] if route.params else {}
        operation = _operation(route, schema_of, params, locale)
        paths.setdefault(_NAME.sub(r"{\1}", route.path), {})[route.method.lower()] = operation
    return msgspec.json.encode(
        {
            "openapi": OPENAPI_VERSION,
            "info": {"title": "Écot", "version": _version(), "license": {"name": "AGPL-3.0-or-later"}},
            "tags": [{"name": tag} for tag in dict.fromkeys(route.tag for route in routes)],
            "paths": paths,
            "components": {
                "schemas": {name: named[name] for name in sorted(used)},
                "securitySchemes": {"session": {"type": "http", "scheme": "bearer"}},
            },
        }
    )


def _require_distinct(routes: Iterable[AnyRoute]) -> None:
    seen: set[tuple[str, str]] = set()
    for route in routes:
        place = (route.method, _NAME.sub("{}", route.path))
        assert place not in seen, f"{place} is routed twice"
        seen.add(place)
        unknown = [code for code in route.errors if code not in STATUS]
        assert not unknown, f"{place} names errors without a status: {unknown}"
        names = {field.name for field in msgspec.structs.fields(route.params)} if route.params else set()
        missing = set(_NAME.findall(route.path)) - names
        assert not missing, f"{place} does not declare {missing}"


def _types(routes: Iterable[AnyRoute]) -> Iterator[Any]:
    yield ProblemReply
    for route in routes:
        for one in (route.params, route.body, route.response):
            if one is not None and not isinstance(one, Media):
                yield one


def _reference(name: str) -> Json:
    return {"$ref": _REFERENCE.format(name=name)}


def _tidy(schema: Any) -> Any:
    """Undo the layout of docstrings, which are descriptions here."""
    if isinstance(schema, dict):
        return {
            key: inspect.cleandoc(value) if key == "description" and isinstance(value, str) else _tidy(value)
            for key, value in schema.items()
        }
    return [_tidy(one) for one in schema] if isinstance(schema, list) else schema


def _properties(params: Any, named: Json, schema_of: dict[Any, Any]) -> Json:
    schema = schema_of[params]
    found: Json = named[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    return found


def _operation(route: AnyRoute, schema_of: dict[Any, Any], params: Json, locale: str) -> Json:
    operation: Json = {
        "operationId": f"{route.method.lower()}{re.sub('[^a-z0-9]+', '_', route.path.lower()).rstrip('_')}",
        "summary": route.summary,
        "tags": [route.tag],
        "responses": {**_success(route, schema_of), **_failures(route, locale)},
    }
    description = inspect.getdoc(route.handler)
    if description:
        operation["description"] = description
    if params:
        operation["parameters"] = list(_parameters(route, params))
    if route.body is not None:
        operation["requestBody"] = {"required": True, "content": _content(route.body, schema_of)}
    security: list[Json] = [{"session": []}]
    operation["security"] = [{}, *security] if route.access == "public" else security
    return operation


def _parameters(route: AnyRoute, params: Json) -> Iterator[Json]:
    in_path = set(_NAME.findall(route.path))
    for name, schema in params["properties"].items():
        required = name in in_path or name in params.get("required", ())
        yield {
            "name": name,
            "in": "path" if name in in_path else "query",
            "required": required,
            "schema": _without_null(schema),
        }


def _without_null(schema: Json) -> Json:
    """Leave out null, which a query can't say, and the default that stands for it."""
    choices = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
    if len(choices) == 1 and len(schema["anyOf"]) > 1:
        return {**{key: schema[key] for key in _MORE if schema.get(key) is not None}, **choices[0]}
    return schema


def _content(body: Any, schema_of: dict[Any, Any]) -> Json:
    if isinstance(body, Media):
        schema: Json = {"type": "string", "description": body.description}
        return {body.content_type: {"schema": schema if body.is_text else {**schema, "format": "binary"}}}
    return {"application/json": {"schema": schema_of[body]}}


def _success(route: AnyRoute, schema_of: dict[Any, Any]) -> Json:
    if route.response is None:
        return {"204": {"description": "Done."}}
    text = route.response.description if isinstance(route.response, Media) else "As asked."
    return {"200": {"description": text, "content": _content(route.response, schema_of)}}


def _failures(route: AnyRoute, locale: str) -> Json:
    codes = [*EVERYWHERE, *route.errors]
    codes += (*WITH_SESSION, "not_allowed") if route.access == "members" else WITH_SESSION
    codes += WITH_BODY if route.body is not None else ()
    codes += ("record_unknown",) if route.params and "wait_for" in route.params.__struct_fields__ else ()
    by_status: dict[int, list[str]] = {}
    for code in dict.fromkeys(codes):
        by_status.setdefault(STATUS[code], []).append(code)
    content = {PROBLEM_CONTENT_TYPE: {"schema": _reference(ProblemReply.__name__)}}
    found: Json = {
        str(status): {
            "description": "\n".join(_told(code, locale) for code in by_status[status]),
            "content": {**content},
        }
        for status in sorted(by_status)
    }
    for status, media in route.also:
        answer = found.setdefault(str(status), {"description": media.description, "content": {}})
        answer["content"] |= _content(media, {})
    return found


def _told(code: str, locale: str) -> str:
    return f"- `{code}`: {translate(f'reason.{code}', locale)}"


def _version() -> str:
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:  # run from the tree
        return "0"
