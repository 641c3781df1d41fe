# SPDX-License-Identifier: AGPL-3.0-or-later
"""The demo's cooperatives and their members: each member has a key of its own, and signs only with that."""

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Final

from ecot_cli.demo.processes import NodeProcess
from ecot_client.entries import build_entry, new_entry_id
from ecot_client.node import NodeClient
from ecot_client.posting import PostResult, Refusal, require_recorded
from ecot_client.receipts import Receipt
from ecot_protocol.domains.coop.statutes import Statutes
from ecot_protocol.domains.membership.acts import Admit, Apply, AttestPayment, NewPerson
from ecot_protocol.domains.shares.acts import AttestSharePayment, Subscribe
from ecot_protocol.domains.trade.transfers import Pay
from ecot_protocol.ledger.entry_type import BOARD, TREASURER
from ecot_protocol.wire.encoding import Wire
from ecot_protocol.wire.entry import BODY, Entry
from ecot_protocol.wire.ids import object_id
from ecot_protocol.wire.keys import SEED_SIZE_BYTES, Signer

BATCH: Final = 500
CLOCK_MARGIN_MS: Final = 20
FOUNDERS: Final = {"alba": "board,treasurer", "brune": "board", "celse": "board"}
"""Handle -> offices; the same three pseudonyms found each of the demo's cooperatives."""


@dataclass(frozen=True)
class Actor:
    """A member and the person who signs for it."""

    name: str
    kind: str
    college: str
    signer: Signer
    member: bytes
    person: bytes

    @property
    def signs(self) -> dict[str, Any]:
        """The options of an entry that the person signs for the member."""
        return {"author": self.member, "signers": (self.signer,)}


def new_signer() -> Signer:
    """Return a new key."""
    return Signer(os.urandom(SEED_SIZE_BYTES))


@dataclass
class Coop:
    """A cooperative of the demo, seen from outside: its node's process, and a client of it."""

    name: str
    title: str
    domain: str
    template: str
    node: NodeProcess
    client: NodeClient
    statutes: Statutes
    statutes_version: int = 1
    board: dict[str, Signer] = field(default_factory=lambda: {handle: new_signer() for handle in FOUNDERS})
    actors: list[Actor] = field(default_factory=list)
    posted: int = 0
    newest: int = -1

    @property
    def two_of_board(self) -> tuple[Signer, Signer]:
        """Enough of the board to decide."""
        first, second, *_ = self.board.values()
        return first, second

    @property
    def as_board(self) -> dict[str, Any]:
        """The options of an entry of the board."""
        return {"author": BOARD, "signers": self.two_of_board}

    @property
    def as_treasurer(self) -> dict[str, Any]:
        """The options of an entry of the treasurer."""
        return {"author": TREASURER, "signers": self.two_of_board[:1]}

    async def build(self, tag: str, payload: Wire, **options: Any) -> Entry:
        """Build and sign an entry."""
        return await self.client.build(tag, payload, **options)

    async def post(self, entries: list[Entry]) -> list[PostResult]:
        """Post entries in batches; every answer is checked by the client library."""
        results: list[PostResult] = []
        for start in range(0, len(entries), BATCH):
            results += await self.client.post(entries[start : start + BATCH])
        self.posted += len(entries)
        return results

    async def must(self, entries: list[Entry]) -> list[Receipt]:
        """Post entries that are all recorded.

        Raises:
            NotRecorded: one is not.
        """
        receipts = [require_recorded(one) for one in await self.post(entries)]
        self.newest = max([self.newest, *(one.index for one in receipts)])
        return receipts

    async def get(self, path: str) -> dict[str, Any]:
        """Read a path once the node's lists show all that we have recorded."""
        return await self.client.get(path, dict[str, Any], self._waiting)

    def pages(self, path: str, **query: str | int | None) -> AsyncIterator[dict[str, Any]]:
        """Read a list to its end, once it shows all that we have recorded."""
        return self.client.pages(path, dict[str, Any], {**self._waiting, **query})

    @property
    def _waiting(self) -> dict[str, str | int | None]:
        return {"wait_for": self.newest} if self.newest >= 0 else {}

    async def act(self, tag: str, payload: Wire, **options: Any) -> Receipt:
        """Build, post, and require one entry."""
        return (await self.must([await self.build(tag, payload, **options)]))[0]

    async def refusal(self, entry: Entry) -> str:
        """Post an entry and return the code of its refusal, or ``recorded``."""
        (result,) = await self.post([entry])
        return result.code if isinstance(result, Refusal) else "recorded"

    async def wait_until(self, at_ms: int) -> None:
        """Wait until the clock has passed an instant by a little, so that the node's has too."""
        await asyncio.sleep(max(at_ms - self.client.clock_ms() + CLOCK_MARGIN_MS, 0) / 1_000)

    def new_id(self) -> bytes:
        """Return the id of an entry that is about to be built, where its payload or its objects need it."""
        return new_entry_id(self.client.clock_ms())

    @staticmethod
    def id_of(body: bytes) -> bytes:
        """Return the id in an encoded body."""
        return BODY.decode(body).id

    async def foreign_entry(self, tag: str, payer: Actor, payee: bytes) -> Entry:
        """Return an entry that is right but for its ledger: what somebody would replay from another cooperative."""
        pay = Pay(amount_minor=100, memo=None, payee=payee, statutes_version=self.statutes_version, total_minor=100)
        return build_entry(os.urandom(32), tag, pay, now_ms=self.client.clock_ms(), **payer.signs)

    async def underpaid(self, payer: Actor, payee: bytes) -> Entry:
        """Return a transfer whose total is not what it costs."""
        pay = Pay(amount_minor=100, memo=None, payee=payee, statutes_version=self.statutes_version, total_minor=99)
        return await self.build("trade.pay", pay, **payer.signs)

    async def join(self, names: list[tuple[str, str, str]]) -> list[Actor]:
        """Let new members apply and the board admit them.

        Args:
            names: (name, kind, college) of each.
        """
        applicants = []
        entries = []
        for name, kind, college in names:
            signer = new_signer()
            apply = Apply(
                college=college,
                handle=name,
                identity=None,
                kind=kind,  # type: ignore[arg-type]
                new_person=NewPerson(handle=f"{name}.owner", public_key=signer.public_key),
                person=None,
            )
            entry = await self.build(
                "membership.apply",
                apply,
                author=b"own id",
                signers=(signer,),
                contents={"identity": f"Dossier: {name}"},
            )
            applicants.append((name, kind, college, signer))
            entries.append(entry)
        receipts = await self.must(entries)
        joined = [
            Actor(name, kind, college, signer, receipt.entry_id, object_id(receipt.entry_id, 1))
            for (name, kind, college, signer), receipt in zip(applicants, receipts, strict=True)
        ]
        await self.must(
            [
                await self.build("membership.admit", Admit(college=one.college, member=one.member), **self.as_board)
                for one in joined
            ]
        )
        self.actors += joined
        return joined

    async def pay_entry(self, actors: list[Actor], fee_minor: int) -> None:
        """Each member buys a share; the treasurer attests the fee and the share, which is then issued."""
        price = self.statutes.shares.nominal_minor
        subscribe = Subscribe(count=1, statutes_version=self.statutes_version, total_minor=price)
        receipts = await self.must([await self.build("shares.subscribe", subscribe, **one.signs) for one in actors])
        entries = [
            await self.build(
                "shares.attest_payment",
                AttestSharePayment(reference=None, subscription=receipt.entry_id),
                **self.as_treasurer,
            )
            for receipt in receipts
        ]
        if fee_minor:
            entries += [
                await self.build(
                    "membership.attest_payment",
                    AttestPayment(
                        amount_minor=fee_minor, direction="in", member=one.member, reference=None, unit="EUR"
                    ),
                    **self.as_treasurer,
                )
                for one in actors
            ]
        await self.must(entries)
