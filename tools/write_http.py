#!/usr/bin/env python3
# SPDX-License-Identifier: AGPL-3.0-or-later
"""Write docs/specification/http-reads.md from the routes of the domains: what documents them is what decodes them.

Run it after a change of a domain's routes; a test fails until the page is up to date.
"""

import typing
from pathlib import Path

import msgspec

from ecot_node.domains.federation.routes import federation_routes
from ecot_node.domains.routes import DOMAIN_ROUTES
from ecot_node.http.fields import Listing
from ecot_node.http.routes import AnyRoute
from ecot_protocol.wire.keys import Signer

PAGE = Path(__file__).resolve().parents[1] / "docs/specification/http-reads.md"
HEAD = """\
<!-- SPDX-License-Identifier: AGPL-3.0-or-later -->
# HTTP: what the domains offer

Written from the code by `tools/write_http.py`; see [http](http.md) for sessions, lists, errors and everything that is
not of one domain. Every operation, with the types of its fields, is also in `/v1/openapi.json` of a running node.

- Ids and hashes are lower-case hex, amounts integers in minor units (`*_minor`), times ms since 1970 (`*_ms`).
- A list takes `limit` and `cursor` and answers `items`, `next`, `index`. `wait_for` waits for a record to be shown.
- *Access*: `public`; `session`: any person whose key is in force, finer rules in the text; `members`: of an admitted
  member, or an officer.
"""


def write_page() -> str:
    """Return the page."""
    routes = (*DOMAIN_ROUTES, *federation_routes(None, Signer(bytes(32))))
    tags = dict.fromkeys(route.tag for route in routes)
    parts = [HEAD]
    for tag in tags:
        parts.append(f"\n## {tag}\n")
        parts += [_write_route(route) for route in routes if route.tag == tag]
    return "".join(parts)


def _write_route(route: AnyRoute) -> str:
    lines = [f"\n### `{route.method} {route.path}`\n", f"{route.summary}. Access: `{route.access}`.\n"]
    lines += _write_type("Parameters", route.params)
    lines += _write_type("Body", route.body)
    lines += _write_type("Answer", route.response)
    if route.errors:
        lines.append(f"Problems of its own: {', '.join(f'`{code}`' for code in route.errors)}.\n")
    return "\n".join(lines)


def _write_type(title: str, shown: object) -> list[str]:
    is_list = typing.get_origin(shown) is Listing
    item = typing.get_args(shown)[0] if is_list else shown
    if not isinstance(item, type) or not issubclass(item, msgspec.Struct):
        return []
    names = [f"`{field.encode_name}`" for field in msgspec.structs.fields(item)]
    told = f"{title}{' (a list)' if is_list else ''}: {', '.join(names)}." if names else ""
    meaning = " ".join((item.__doc__ or "").split("Attributes:")[0].split())
    return [f"{told} {meaning}\n"] if told else []


if __name__ == "__main__":
    PAGE.write_text(write_page(), encoding="utf-8")
