# SPDX-License-Identifier: AGPL-3.0-or-later
"""What can be read of a node, one method a path; lists are async iterators that fetch page after page.

Reads tell what the node says. What must not be believed is proven: entries by receipts, one's own state by
`ecot_client.proofs`, the whole log by `ecot_client.verify`.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, TypeVar

from ecot_client import models
from ecot_client.errors import ProofFailed
from ecot_client.transport import Request, Transport

T = TypeVar("T")
PAGE: Final = 200
Query = dict[str, str | int | None]


class Reads(ABC):
    """The reads of a `NodeClient`."""

    transport: Transport

    @abstractmethod
    async def _with_token(self, call: Callable[[str | None], Awaitable[T]]) -> T: ...

    async def get(self, path: str, answer: type[T], query: Query | None = None) -> T:
        """Read one path."""
        request = Request("GET", path, query=query)
        return await self._with_token(lambda token: self.transport.ask_json(request, answer, token))

    async def send(self, request: Request, answer: type[T]) -> T:
        """Send any request within the session."""
        return await self._with_token(lambda token: self.transport.ask_json(request, answer, token))

    async def pages(self, path: str, item: type[T], query: Query | None = None) -> AsyncIterator[T]:
        """Read a list to its end.

        Args:
            path: of the list.
            item: type of its items.
            query: parameters, `wait_for` among them.

        Raises:
            ProofFailed: ``answer_malformed``: a node that gives the same cursor twice would never end.
        """
        cursor: str | None = None
        seen: set[str] = set()
        while True:
            asked: Query = {"limit": PAGE, **(query or {}), "cursor": cursor}
            listing = await self.get(path, models.Listing[item], asked)  # type: ignore[valid-type]
            for one in listing.items:
                yield one
            cursor = listing.next
            if cursor is None:
                return
            if cursor in seen:
                raise ProofFailed("answer_malformed", f"{path}: the same cursor twice", path=path)
            seen.add(cursor)

    # --- persons and records ----------------------------------------------------------------------------------------

    async def me(self) -> models.Me:
        """Return who the session belongs to."""
        return await self.get("/v1/me", models.Me)

    async def record(self, index: int) -> models.RecordInfo:
        """Return a record that the caller may read."""
        return await self.get(f"/v1/records/{index}", models.RecordInfo)

    def records(
        self, *, after: int | None = None, type: str | None = None, author: str | None = None
    ) -> AsyncIterator[models.RecordItem]:
        """List the records that the caller may read, in the order of the log."""
        return self.pages("/v1/records", models.RecordItem, {"after": after, "type": type, "author": author})
