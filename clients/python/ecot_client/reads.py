# SPDX-License-Identifier: AGPL-3.0-or-later
"""What can be read of a node, one method a path; lists are async iterators that fetch page after page.

Reads tell what the node says. What must not be believed is proven: entries by receipts, one's own state by
`ecot_client.proofs`, the whole log by `ecot_client.verify`.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from hashlib import sha256
from typing import Final, TypeVar

import msgspec

from ecot_client import models
from ecot_client.errors import ProofFailed
from ecot_client.transport import Request, Transport
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.wire.encoding import encode
from ecot_protocol.wire.entry import Entry, decode_entry, sign_body
from ecot_protocol.wire.keys import Signer

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

    # --- the cooperative and its members ----------------------------------------------------------------------------

    async def statutes(self, version: int | None = None) -> models.StatutesInfo:
        """Return a version of the statutes; the one in force now by default."""
        return await self.get("/v1/statutes" if version is None else f"/v1/statutes/{version}", models.StatutesInfo)

    async def offices(self) -> tuple[models.OfficeInfo, ...]:
        """Return every office that is held."""
        return (await self.get("/v1/offices", models.Offices)).items

    async def person(self, person: str, *, wait_for: int | None = None) -> models.PersonInfo:
        """Return a person."""
        return await self.get(f"/v1/persons/{person}", models.PersonInfo, {"wait_for": wait_for})

    def members(
        self, *, status: str | None = None, college: str | None = None, wait_for: int | None = None
    ) -> AsyncIterator[models.MemberItem]:
        """List members."""
        query: Query = {"status": status, "college": college, "wait_for": wait_for}
        return self.pages("/v1/members", models.MemberItem, query)

    async def member(self, member: str, *, wait_for: int | None = None) -> models.MemberInfo:
        """Return a member."""
        return await self.get(f"/v1/members/{member}", models.MemberInfo, {"wait_for": wait_for})

    async def accounts(self, member: str) -> tuple[models.AccountInfo, ...]:
        """Return the accounts of a member, as of the last durable record."""
        return (await self.get(f"/v1/members/{member}/accounts", models.Accounts)).items

    async def statement(self, member: str, *, unit: str, purpose: str, **limits: int | None) -> "Statement":
        """Return the statement of an account, whole.

        Args:
            member: owner.
            unit: of the account.
            purpose: of the account.
            limits: `from_ms`, `to_ms`, `wait_for`.
        """
        path = f"/v1/members/{member}/statement"
        asked: Query = {"limit": PAGE, "unit": unit, "purpose": purpose, **limits}
        page = await self.get(path, models.StatementPage, asked)
        opening_minor, lines, seen = page.opening_minor, list(page.items), set[str]()
        while page.next is not None:
            if page.next in seen:
                raise ProofFailed("answer_malformed", f"{path}: the same cursor twice", path=path)
            seen.add(page.next)
            page = await self.get(path, models.StatementPage, {**asked, "cursor": page.next})
            lines += page.items
        return Statement(opening_minor=opening_minor, lines=tuple(lines))

    # --- shares, trades, polls --------------------------------------------------------------------------------------

    async def member_shares(self, member: str, *, wait_for: int | None = None) -> models.MemberShares:
        """Return the shares of a member."""
        return await self.get(f"/v1/members/{member}/shares", models.MemberShares, {"wait_for": wait_for})

    def share_movements(
        self, *, member: str | None = None, wait_for: int | None = None
    ) -> AsyncIterator[models.ShareMovement]:
        """List the movements of the register of shares."""
        return self.pages("/v1/shares/movements", models.ShareMovement, {"member": member, "wait_for": wait_for})

    def share_holdings(self, *, wait_for: int | None = None) -> AsyncIterator[models.ShareHolding]:
        """List who holds how many shares."""
        return self.pages("/v1/shares/holdings", models.ShareHolding, {"wait_for": wait_for})

    def trades(
        self, *, member: str | None = None, status: str | None = None, wait_for: int | None = None
    ) -> AsyncIterator[models.TradeItem]:
        """List the trades that the caller may read."""
        query: Query = {"member": member, "status": status, "wait_for": wait_for}
        return self.pages("/v1/trades", models.TradeItem, query)

    async def trade(self, trade: str, *, wait_for: int | None = None) -> models.TradeInfo:
        """Return a trade with its history."""
        return await self.get(f"/v1/trades/{trade}", models.TradeInfo, {"wait_for": wait_for})

    def polls(self, *, status: str | None = None, wait_for: int | None = None) -> AsyncIterator[models.PollItem]:
        """List polls."""
        return self.pages("/v1/polls", models.PollItem, {"status": status, "wait_for": wait_for})

    async def poll(self, poll: str, *, wait_for: int | None = None) -> models.PollInfo:
        """Return a poll."""
        return await self.get(f"/v1/polls/{poll}", models.PollInfo, {"wait_for": wait_for})

    def stances(self, poll: str, *, wait_for: int | None = None) -> AsyncIterator[models.Stance]:
        """List the stances of a poll."""
        return self.pages(f"/v1/polls/{poll}/stances", models.Stance, {"wait_for": wait_for})

    # --- catalogue, royalties, federation ---------------------------------------------------------------------------

    def works(self, *, wait_for: int | None = None) -> AsyncIterator[models.WorkInfo]:
        """List the works of the catalogue."""
        return self.pages("/v1/works", models.WorkInfo, {"wait_for": wait_for})

    async def work(self, work: str, *, wait_for: int | None = None) -> models.WorkInfo:
        """Return a work."""
        return await self.get(f"/v1/works/{work}", models.WorkInfo, {"wait_for": wait_for})

    def subscriptions(self, *, wait_for: int | None = None) -> AsyncIterator[models.SubscriptionInfo]:
        """List the subscriptions of institutions that the caller may read."""
        return self.pages("/v1/subscriptions", models.SubscriptionInfo, {"wait_for": wait_for})

    def periods(self, *, wait_for: int | None = None) -> AsyncIterator[models.PeriodItem]:
        """List the periods of royalties."""
        return self.pages("/v1/periods", models.PeriodItem, {"wait_for": wait_for})

    async def period(self, period: str, *, wait_for: int | None = None) -> models.PeriodInfo:
        """Return a period of royalties."""
        return await self.get(f"/v1/periods/{period}", models.PeriodInfo, {"wait_for": wait_for})

    async def royalty_statement(
        self, period: str, member: str, *, wait_for: int | None = None
    ) -> models.RoyaltyStatementInfo:
        """Return what a rights-holder earned in a period."""
        path = f"/v1/periods/{period}/statements/{member}"
        return await self.get(path, models.RoyaltyStatementInfo, {"wait_for": wait_for})

    async def watched(self) -> tuple[models.WatchedLog, ...]:
        """Return the logs that the node compares with its partners."""
        return (await self.get("/v1/watched", models.WatchedLogs)).items

    def peers(self) -> AsyncIterator[models.PeerInfo]:
        """List the partner ledgers."""
        return self.pages("/v1/peers", models.PeerInfo)

    def destinations(self) -> AsyncIterator[models.DestinationInfo]:
        """List the ledgers whose members can be paid."""
        return self.pages("/v1/destinations", models.DestinationInfo)

    async def quotes(self, payee_ledger: str, amount_minor: int) -> models.QuotesInfo:
        """Ask what it costs to bring an amount to a ledger, named by its id, domain or origin."""
        body = {"payee_ledger": payee_ledger, "amount_minor": amount_minor}
        return await self.send(Request("POST", "/v1/transfers/quote", json=body), models.QuotesInfo)

    async def proposals(self) -> tuple[models.ProposalInfo, ...]:
        """List the peerings that boards propose to each other, for officers."""
        return (await self.get("/v1/proposals", models.Proposals)).items

    async def incidents(self) -> tuple[models.IncidentInfo, ...]:
        """List the incidents with partners, for officers."""
        return (await self.get("/v1/incidents", models.Incidents)).items

    async def evidence(self, incident: str) -> bytes:
        """Return what proves an incident, as the node keeps it."""
        return await self.order(Request("GET", f"/v1/incidents/{incident}/evidence"))

    async def order(self, request: Request) -> bytes:
        """Send any request within the session, and return its answer as it is."""
        return await self._with_token(lambda token: self.transport.ask(request, token))

    def transfers(
        self, *, member: str | None = None, status: str | None = None, wait_for: int | None = None
    ) -> AsyncIterator[models.TransferInfo]:
        """List the transfers to and from other ledgers that the caller may read."""
        query: Query = {"member": member, "status": status, "wait_for": wait_for}
        return self.pages("/v1/transfers", models.TransferInfo, query)

    def obligations(
        self, *, member: str | None = None, status: str | None = None, wait_for: int | None = None
    ) -> AsyncIterator[models.ObligationInfo]:
        """List what members offered for clearing, as far as the caller may read it."""
        query: Query = {"member": member, "status": status, "wait_for": wait_for}
        return self.pages("/v1/obligations", models.ObligationInfo, query)

    def rounds(self) -> AsyncIterator[models.RoundInfo]:
        """List the rounds of clearing that the ledger committed to."""
        return self.pages("/v1/rounds", models.RoundInfo)

    async def kept_round(self, call: str) -> bytes:
        """Return all that a round of clearing consisted of, as the node kept it; to be checked by the caller."""
        request = Request("GET", f"/v1/rounds/{call}", is_repeatable=True)
        return await self._with_token(lambda token: self.transport.ask(request, token))

    # --- drafts -----------------------------------------------------------------------------------------------------

    def drafts(self) -> AsyncIterator[models.DraftItem]:
        """List the drafts that the caller may sign."""
        return self.pages("/v1/drafts", models.DraftItem)

    async def draft(self, draft: str) -> models.DraftInfo:
        """Return a draft, with its entry, to be read before it is signed."""
        return await self.get(f"/v1/drafts/{draft}", models.DraftInfo)

    async def leave_draft(self, entry: Entry) -> models.DraftOutcome:
        """Leave an entry with no or some signatures for the others; leaving it twice changes nothing."""
        request = Request("POST", "/v1/drafts", msgpack=encode(entry))
        return await self.send(request, models.DraftOutcome)

    async def sign_draft(self, draft: str, signer: Signer) -> models.DraftOutcome:
        """Sign a draft; the node records it as soon as enough have signed.

        Raises:
            ProofFailed: ``draft_differs``: the node showed another entry than the one with this hash.
        """
        shown = await self.draft(draft)
        if shown.hash != draft:
            raise ProofFailed("draft_differs", f"asked for {draft}, shown {shown.hash}")
        entry = read_draft(shown)
        signature = sign_body(signer, entry.body)
        body = {"key_id": signature.key_id.hex(), "signature": signature.signature.hex()}
        return await self.send(Request("POST", f"/v1/drafts/{draft}/signatures", json=body), models.DraftOutcome)


def read_draft(shown: models.DraftInfo) -> Entry:
    """Decode the entry of a draft, and check that it is the one that its hash names.

    Raises:
        ProofFailed: ``draft_differs``.
    """
    try:
        entry = decode_entry(bytes.fromhex(shown.entry))
    except (RemoteProtocolError, ValueError) as error:
        raise ProofFailed("draft_differs", str(error)) from None
    if sha256(entry.body).hexdigest() != shown.hash:
        raise ProofFailed("draft_differs", f"expected {shown.hash}")
    return entry


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """All lines of a statement; `opening_minor` is the balance before the first."""

    opening_minor: int
    lines: tuple[models.StatementLine, ...]
