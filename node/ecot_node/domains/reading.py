# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the routes of every domain need: pages by key, and the attachments that a caller may read.

Pages go by the key of the last row shown, never by a count of rows to skip: what is added meanwhile neither repeats a
row nor hides one.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from ecot_node.domains.projector import split_ids
from ecot_node.domains.records.queries import views_size
from ecot_node.domains.records.views import records
from ecot_node.http.callers import Caller, may_read_attachment
from ecot_node.http.errors import Problem
from ecot_node.http.fields import Page
from ecot_node.http.paging import decode_cursor, encode_cursor, page_of
from ecot_node.http.routes import Request
from ecot_node.store.port import LogReads

RowKey = Annotated[int, msgspec.Meta(ge=-1, le=2**63 - 1)]
"""What SQLite can hold."""
ROW_CURSOR: Final[Any] = tuple[RowKey]
"""Type of a cursor that is one integer."""

Row = sa.Row[*tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Fetched:
    """One page of rows, the cursor of the next, and how many records the views show."""

    rows: tuple[Row, ...]
    next: str | None
    index: int


class Key:
    """The column that a list is sorted by, unique in it.

    Args:
        column: of the query.
        is_bytes: whether it holds ids rather than integers.
        is_newest_first: whether it goes down.
    """

    def __init__(self, column: sa.ColumnElement[Any], *, is_bytes: bool = False, is_newest_first: bool = False) -> None:
        self._column: Final[sa.ColumnElement[Any]] = column
        self._cursor_type: Final[Any] = tuple[bytes] if is_bytes else ROW_CURSOR
        self._is_newest_first: Final = is_newest_first

    def apply(self, query: sa.Select[Any], cursor: str | None, limit: int) -> sa.Select[Any]:
        """Sort the query, and begin after the cursor.

        Raises:
            Problem: ``cursor_malformed``.
        """
        after = decode_cursor(cursor, self._cursor_type)
        if after is not None:
            last = after[0]
            query = query.where(self._column < last if self._is_newest_first else self._column > last)
        return query.order_by(self._column.desc() if self._is_newest_first else self._column).limit(limit)

    def cursor_of(self, row: Row) -> str:
        """Return the cursor of a row, whose first column is the key."""
        return encode_cursor(row[0])


async def fetch_page(connection: AsyncConnection, params: Page, query: sa.Select[Any], key: Key) -> Fetched:
    """Read one page; the first column of `query` is the key."""
    rows = (await connection.execute(key.apply(query, params.cursor, params.limit + 1))).all()
    return Fetched(*page_of(rows, params.limit, index=await views_size(connection), cursor_of=key.cursor_of))


def refuse_unless(is_allowed: bool) -> None:
    """Raise ``not_allowed`` if the caller may not have the answer."""
    if not is_allowed:
        raise Problem("not_allowed")


def may_read_member(caller: Caller, member: bytes) -> bool:
    """Tell whether the caller may read what is between the cooperative and a member: its persons, and the officers."""
    return caller.acts_for(member) or caller.is_officer


def may_read_accounts(caller: Caller, owner: bytes) -> bool:
    """Tell whether the caller may read the postings of an owner: the persons of the member, and the treasurer."""
    return caller.acts_for(owner) or "treasurer" in caller.offices


async def parties_of(connection: AsyncConnection, indexes: Collection[int]) -> dict[int, list[bytes]]:
    """Return index -> parties of some records."""
    query = sa.select(records.c.idx, records.c.parties).where(records.c.idx.in_(sorted(indexes)))
    return {row.idx: split_ids(row.parties) for row in await connection.execute(query)}


async def read_attachments(
    store: LogReads, caller: Caller | None, parties: Mapping[int, Sequence[bytes]], class_name: str
) -> dict[int, bytes]:
    """Return index -> content of the first attachment of a class, where it is left and the caller may read it.

    Args:
        store: where attachments are, and whence erased ones are gone.
        caller: who asks.
        parties: index -> parties, as of `parties_of`.
        class_name: of the attachment.
    """
    found: dict[int, bytes] = {}
    for index, concerned in parties.items():
        if not may_read_attachment(caller, class_name, concerned):
            continue
        for row in await store.attachments(index):
            if row.class_name == class_name:
                found.setdefault(index, row.content)
    return found


async def read_texts(
    request: Request[Any, Any], parties: Mapping[int, Sequence[bytes]], class_name: str
) -> dict[int, str]:
    """Return index -> text of an attachment, as `read_attachments`; what is not UTF-8 is shown as far as it is."""
    found = await read_attachments(request.context.store, request.caller, parties, class_name)
    return {index: content.decode("utf-8", "replace") for index, content in found.items()}
