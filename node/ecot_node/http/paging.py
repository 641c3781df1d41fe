# SPDX-License-Identifier: AGPL-3.0-or-later
"""Cursors: where the next page begins. Opaque to clients; they carry only what the page before showed.

A cursor is the unpadded base64url of a msgpack array of integers, strings and bytes, the sort key of the last item.
It grants nothing: each page is asked anew with the caller's rights.

>>> encode_cursor(7, b"id")
'kgfEAmlk'
>>> decode_cursor("kgfEAmlk", tuple[int, bytes])
(7, b'id')
>>> decode_cursor(None, tuple[int, bytes]) is None
True
"""

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from ecot_node.http.errors import Problem
from ecot_node.http.fields import Listing

T = TypeVar("T")
K = TypeVar("K")


def encode_cursor(*key: int | str | bytes | None) -> str:
    """Write the sort key of the last item of a page."""
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(key)).rstrip(b"=").decode("ascii")


def decode_cursor(cursor: str | None, key_type: type[K]) -> K | None:
    """Read a cursor.

    Args:
        cursor: from the query; None for the first page.
        key_type: a tuple type, e.g. ``tuple[int, bytes]``.

    Raises:
        Problem: ``cursor_malformed``.
    """
    if cursor is None:
        return None
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        return msgspec.msgpack.decode(raw, type=key_type)
    except (binascii.Error, ValueError, msgspec.MsgspecError) as error:
        raise Problem("cursor_malformed", str(error)) from None


def page_of(
    rows: Sequence[T], limit: int, *, index: int, cursor_of: Callable[[T], str]
) -> tuple[tuple[T, ...], str | None, int]:
    """Cut one page from up to `limit` + 1 rows.

    Args:
        rows: in order; ask the query for one more than the page holds.
        limit: of the page.
        index: how many records the views show.
        cursor_of: makes the cursor of the last row shown.

    Returns:
        (rows of the page, cursor of the next, index).
    """
    kept = tuple(rows[:limit])
    following = cursor_of(kept[-1]) if len(rows) > limit else None
    return kept, following, index


def listing_of(rows: Sequence[T], limit: int, *, index: int, cursor_of: Callable[[T], str]) -> Listing[T]:
    """Make the reply of a list from up to `limit` + 1 items; see `page_of`."""
    items, following, shown = page_of(rows, limit, index=index, cursor_of=cursor_of)
    return Listing(items=items, next=following, index=shown)
