# SPDX-License-Identifier: AGPL-3.0-or-later
"""Types of the fields of JSON requests and replies.

One way for bytes: a JSON field that holds an id, a hash or other bytes is a *string of lower-case hex*, declared with
one of the types below, so that what decodes, what is documented and what is checked are the same. (msgspec would write
`bytes` as base64 and ask no hook about it.) Handlers convert with `bytes.fromhex` and `.hex()`.

Amounts are integers in minor units (`*_minor`), times integers in milliseconds since 1970 (`*_ms`).

>>> class Path(Params):
...     member: IdHex
>>> msgspec.convert({"member": "0" * 32}, Path).member[:4]
'0000'
>>> msgspec.convert({"member": "0" * 31 + "G"}, Path)
Traceback (most recent call last):
...
msgspec.ValidationError: Expected `str` matching regex '^[0-9a-f]{32}$' - at `$.member`
"""

import typing
from typing import Annotated, Final, Generic, TypeVar

import msgspec

from ecot_protocol.wire.encoding import MAX_INTEGER, Count, Integer, Positive, UnitCode, Word

__all__ = [
    "CHOSEN_LIMIT",
    "MAX_LIMIT",
    "BytesHex",
    "Count",
    "Cursor",
    "HashHex",
    "IdHex",
    "Integer",
    "JsonBody",
    "JsonReply",
    "KeyIdHex",
    "Listing",
    "Page",
    "Params",
    "Positive",
    "SignatureHex",
    "Tag",
    "TimeMs",
    "TokenHex",
    "UnitCode",
    "Waiting",
    "Word",
    "parse_hex",
    "show_hex",
]

MAX_LIMIT: Final = 200
CHOSEN_LIMIT: Final = 50
"""Items of a page when the caller doesn't say."""
MAX_HEX_LENGTH: Final = 2 * 1024 * 1024

# The length stands beside the pattern, because `$` alone lets a final newline pass.
IdHex = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}$", min_length=32, max_length=32)]
"""16 bytes: a member, a person, an organ, a trade, an entry, ..."""
KeyIdHex = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}$", min_length=32, max_length=32)]
"""16 bytes: see `ecot_protocol.wire.keys.key_id`."""
HashHex = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$", min_length=64, max_length=64)]
"""32 bytes."""
TokenHex = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$", min_length=64, max_length=64)]
"""32 secret bytes."""
SignatureHex = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{128}$", min_length=128, max_length=128)]
"""64 bytes."""
BytesHex = Annotated[str, msgspec.Meta(pattern=r"^(?:[0-9a-f]{2})*$", max_length=MAX_HEX_LENGTH)]
"""Any bytes."""
TimeMs = Annotated[int, msgspec.Meta(ge=0, le=MAX_INTEGER)]
"""Milliseconds since 1970."""
Cursor = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]+$", min_length=1, max_length=512)]
"""Opaque: the `next` of the page before."""
Tag = Annotated[str, msgspec.Meta(pattern=r"^[a-z_]{1,24}\.[a-z_]{1,32}$", max_length=57)]
"""An entry type, e.g. ``trade.accept``."""

T = TypeVar("T")


@typing.dataclass_transform(frozen_default=True, kw_only_default=True)
class Params(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of a route's parameters: a field whose name stands in the path is a path parameter, any other is one of the
    query. A parameter that is not declared is refused.

    A class with a required field below one of `Waiting` or `Page` says ``kw_only=True``, which msgspec doesn't inherit.
    """


class Waiting(Params):
    """Parameters of a read that may wait for the views.

    Attributes:
        wait_for: index of a record; the reply comes when the views show it, or after 10 s as they then are.
    """

    wait_for: Count | None = None


class Page(Waiting):
    """Parameters of a list.

    Attributes:
        limit: most items in the reply.
        cursor: `next` of the page before.
    """

    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_LIMIT)] = CHOSEN_LIMIT
    cursor: Cursor | None = None


@typing.dataclass_transform(frozen_default=True, kw_only_default=True)
class JsonBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of a JSON request body."""


@typing.dataclass_transform(frozen_default=True, kw_only_default=True)
class JsonReply(msgspec.Struct, frozen=True, kw_only=True):
    """Base of a JSON reply and of its parts. Readers ignore fields that they don't know."""


class Listing(JsonReply, Generic[T]):
    """One page of a list.

    Attributes:
        items: in the order of the list.
        next: the cursor of the following page; None at the end. A page may be short and yet have a next one.
        index: how many records the views showed when they answered.
    """

    items: tuple[T, ...]
    next: str | None
    index: Count


def show_hex(value: bytes | None) -> str | None:
    """Return the hex of an id that may be missing."""
    return None if value is None else value.hex()


def parse_hex(value: str | None) -> bytes | None:
    """Return the bytes of an id that may be missing; the inverse of `show_hex`."""
    return None if value is None else bytes.fromhex(value)
