# SPDX-License-Identifier: AGPL-3.0-or-later
"""What one client can take from the others over HTTP: its share, and no more."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

from http_kit import MSGPACK, NO_LIMITS, http_node, problem_of
from ledger_kit import LedgerKit, seed

from ecot_node.http.context import Rate
from ecot_node.http.draft_routes import DRAFT_UNIT_BYTES
from ecot_protocol.domains.coop.acts import Appoint
from ecot_protocol.domains.membership.acts import Exclude, Leave
from ecot_protocol.ledger.accounts import AccountKey
from ecot_protocol.ledger.entry_type import BOARD
from ecot_protocol.wire.encoding import encode
from ecot_protocol.wire.entry import Attachment, Entry, Signature, commitment
from ecot_protocol.wire.keys import Signer


def _with_signatures(entry: Entry, count: int) -> Entry:
    return Entry(entry.body, tuple(Signature(bytes([n]) * 16, bytes(64)) for n in range(count)), ())


async def test_an_entry_counts_as_often_as_it_has_signatures() -> None:
    kit = LedgerKit()
    ada = kit.join("ada")
    entry = _with_signatures(kit.entry("membership.leave", Leave(), **kit.by(ada)), 10)
    settings = replace(NO_LIMITS, entries_rate=Rate(per_second=0.001, burst=15))
    async with http_node(kit, settings=settings) as node:
        assert (await node.post_entries(encode([entry]))).status == 200
        assert await problem_of(await node.post_entries(encode([entry])), 429) == "rate_limited"


async def test_strangers_of_one_address_do_not_take_every_place() -> None:
    kit = LedgerKit()
    ada = kit.join("ada")
    stranger = Signer(seed("stranger"))
    unknown = kit.entry("membership.leave", Leave(), author=ada.member, signers=(stranger,))
    unsigned = kit.entry("membership.leave", Leave(), author=ada.member, signers=())
    known = kit.entry("membership.leave", Leave(), **kit.by(ada))
    settings = replace(NO_LIMITS, strangers_rate=Rate(per_second=0.001, burst=2))
    async with http_node(kit, settings=settings) as node:
        assert (await node.post_entries(encode([unknown, unsigned]))).status == 200
        for one in (unknown, unsigned):
            assert await problem_of(await node.post_entries(encode([one])), 429) == "rate_limited"
        assert (await node.post_entries(encode([known]))).status == 200


async def test_bodies_on_their_way_have_a_bound() -> None:
    settings = replace(NO_LIMITS, bodies_bytes=1_000)
    async with http_node(settings=settings) as node:
        answer = await node.post_entries(bytes(1_001))
        assert await problem_of(answer, 503) == "overloaded"
        assert answer.headers["Retry-After"] == "1"
        assert (await node.post_entries(bytes(999))).status == 400
        assert len(node.services.bodies) == 0


async def test_a_body_that_is_given_up_holds_nothing() -> None:
    async with http_node() as node:

        async def half() -> AsyncIterator[bytes]:
            yield bytes(100)
            await asyncio.Event().wait()

        sending = asyncio.create_task(node.client.post("/v1/entries", data=half(), headers=MSGPACK))
        async with asyncio.timeout(20):
            while not len(node.services.bodies):  # noqa: ASYNC110  no event tells
                await asyncio.sleep(0.01)
            sending.cancel()
            while len(node.services.bodies):  # noqa: ASYNC110  no event tells
                await asyncio.sleep(0.01)


async def test_one_client_fills_only_its_share_of_the_queue() -> None:
    kit = LedgerKit()
    entry = kit.entry("membership.leave", Leave(), author=bytes(16), signers=())
    async with http_node(kit, settings=replace(NO_LIMITS, entries_waiting_each=3)) as node:
        assert await problem_of(await node.post_entries(encode([entry] * 4)), 503) == "overloaded"
        assert (await node.post_entries(encode([entry] * 3))).status == 200
        assert len(node.services.waiting) == 0


async def test_a_member_does_not_make_the_log_grow_by_asking_for_proofs() -> None:
    kit = LedgerKit()
    ada = kit.join("ada")
    rows = {"rows": [{"table": "accounts.rows", "key": encode(AccountKey(ada.member, "EUR", "claims")).hex()}]}
    settings = replace(NO_LIMITS, proof_rate=Rate(per_second=0.001, burst=1))
    async with http_node(kit, settings=settings) as node:
        assert (await node.post("/v1/proofs", ada.signer, json=rows)).status == 200
        size = node.writer.status().size
        assert await problem_of(await node.post("/v1/proofs", ada.signer, json=rows), 429) == "rate_limited"
        assert node.writer.status().size == size


async def test_a_large_draft_counts_as_several() -> None:
    kit = LedgerKit()
    claire, denis = kit.founders["claire"], kit.founders["denis"]
    content, salt = bytes(2 * DRAFT_UNIT_BYTES), bytes(32)
    why = Attachment("reason", salt, content)
    exclude = Exclude(member=bytes(16), reason=commitment(salt, content))
    large = kit.entry("membership.exclude", exclude, author=BOARD, signers=(), attachments=(why,))
    small = kit.entry("coop.appoint", Appoint(office="treasurer", persons=(), threshold=1), author=BOARD, signers=())
    settings = replace(NO_LIMITS, draft_rate=Rate(per_second=0.001, burst=3))
    async with http_node(kit, settings=settings) as node:
        answer = await node.post("/v1/drafts", claire, data=encode(large), headers=MSGPACK)
        assert answer.status == 200, await answer.text()
        answer = await node.post("/v1/drafts", claire, data=encode(small), headers=MSGPACK)
        assert await problem_of(answer, 429) == "rate_limited"
        assert (await node.post("/v1/drafts", denis, data=encode(small), headers=MSGPACK)).status == 200
