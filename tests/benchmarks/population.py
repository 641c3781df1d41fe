# SPDX-License-Identifier: AGPL-3.0-or-later
"""A cooperative of `MEMBER_COUNT` members, and as many direct transfers among them as a measurement needs.

Transfers are drawn from a fixed seed, so that the same ones can be given to a program that knows no signatures. Each is
a whole `trade.pay` entry, signed by the payer's own key before anything is measured. Limits are checked as ever, but
wide enough that no transfer is refused.
"""

import multiprocessing
import os
import random
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import quiet
from ledger_kit import Actor, LedgerKit, seed, statutes
from writer_kit import entries_of

from ecot_node.ledger.clock import wall_ms
from ecot_node.ledger.writer import Writer, WriterKeys
from ecot_node.store.sqlite import SqliteStore
from ecot_protocol.domains.coop.statutes import AccountDefault
from ecot_protocol.domains.trade.transfers import Pay
from ecot_protocol.machine import Machine
from ecot_protocol.wire.encoding import encode
from ecot_protocol.wire.entry import BODY, ENTRY, Body, Entry, decode_entry, sign_body
from ecot_protocol.wire.ids import uuid7
from ecot_protocol.wire.keys import Signer
from ecot_protocol.wire.reply import Recorded

MEMBER_COUNT: Final = 1_000
LIMIT_MINOR: Final = 10**12
CHUNK: Final = 10_000
DAY_MS: Final = 86_400_000
PURPOSES: Final = ("agent", "cosigner", "host", "log")
SETTINGS: Final = """\
[http]
requests_per_minute = 10000000
entries_per_minute = 100000000
"""
"""As `ecot-node init` writes it, but for the limits of requests, which one client alone would meet."""

Transfer = tuple[int, int, int]
"""Payer, payee (numbers of members from 0), amount in minor units."""


def draw(chunk: int) -> list[Transfer]:
    """Return the transfers of a chunk, `CHUNK` of them, always the same."""
    source = random.Random(chunk)
    return [
        (payer := source.randrange(MEMBER_COUNT), _other(source, payer), source.randrange(1, 5_000))
        for _ in range(CHUNK)
    ]


def _other(source: random.Random, member: int) -> int:
    return (member + source.randrange(1, MEMBER_COUNT)) % MEMBER_COUNT


def transfers(count: int) -> Iterator[Transfer]:
    """Yield the first `count` transfers."""
    for start in range(0, count, CHUNK):
        yield from draw(start // CHUNK)[: count - start]


class Population:
    """The cooperative: its founders, members and keys, and the records that made it."""

    def __init__(self) -> None:
        wide = AccountDefault(lower_minor=-LIMIT_MINOR, purpose="barter", unit="BART", upper_minor=LIMIT_MINOR)
        usual = statutes()
        self.kit = LedgerKit(
            statutes=msgspec.structs.replace(
                usual, membership=msgspec.structs.replace(usual.membership, accounts=(wide,))
            ),
            name="bench",
            now=wall_ms(),
        )
        self.members: list[Actor] = [self.kit.join(f"m{number:05d}") for number in range(MEMBER_COUNT)]
        self.base_size = len(self.kit.records)

    def make_folder(self, folder: Path) -> None:
        """Make a node's folder: keys and settings."""
        folder.mkdir(mode=0o700, parents=True)
        (folder / "node.toml").write_text(SETTINGS, encoding="utf-8")
        keys = folder / "keys"
        keys.mkdir(mode=0o700)
        for purpose in PURPOSES:
            path = keys / f"{purpose}.seed"
            path.touch(mode=0o600)
            path.write_text(self._seed(purpose).hex() + "\n", encoding="ascii")

    def _seed(self, purpose: str) -> bytes:
        return seed(self.kit.name + purpose)

    def make_writer(self, folder: Path, **options: object) -> Writer:
        """Return the writer of a folder, not started; its own clock and keys."""
        keys = WriterKeys(self.kit.agent, self._seed("log"), os.urandom)
        return Writer(SqliteStore(folder), Machine(), keys, **options)  # type: ignore[arg-type]

    async def fill(self, folder: Path) -> None:
        """Record the founding and the members in a folder's log."""
        writer = self.make_writer(folder)
        await writer.start()
        try:
            await require_recorded(writer, entries_of(self.kit))
        finally:
            await writer.stop()

    def sign(self, count: int) -> list[bytes]:
        """Return the first `count` transfers as encoded entries, signed now, on every core."""
        payers = Payers(self.kit.state.ledger or b"", tuple((one.member, one.signer) for one in self.members))
        context = multiprocessing.get_context("fork")
        entries: list[bytes] = []
        with ProcessPoolExecutor(len(quiet.cores()), mp_context=context) as pool:
            for signed in pool.map(payers.sign_chunk, range(-(-count // CHUNK))):
                entries += signed
        return entries[:count]


@dataclass(frozen=True)
class Payers:
    """What the processes that sign need: the ledger id, and each member with its key."""

    ledger: bytes
    members: tuple[tuple[bytes, Signer], ...]

    def sign_chunk(self, chunk: int) -> list[bytes]:
        """Return the entries of a chunk of transfers."""
        return [ENTRY.encode(self.pay(one)) for one in draw(chunk)]

    def pay(self, transfer: Transfer) -> Entry:
        """Return the signed entry of a transfer."""
        (payer, signer), (payee, _), amount_minor = self.members[transfer[0]], self.members[transfer[1]], transfer[2]
        now = wall_ms()
        pay = Pay(amount_minor=amount_minor, memo=None, payee=payee, statutes_version=1, total_minor=amount_minor)
        body = BODY.encode(
            Body(
                author=payer,
                expires_at=now + DAY_MS,
                id=uuid7(now, os.urandom(10)),
                ledger=self.ledger,
                payload=msgspec.Raw(encode(pay)),
                type="trade.pay",
            )
        )
        return Entry(body, (sign_body(signer, body),), ())


async def require_recorded(writer: Writer, entries: list[Entry]) -> None:
    """Submit entries in batches of 1,000; every one must be recorded now."""
    for start in range(0, len(entries), 1_000):
        reply = await writer.submit(entries[start : start + 1_000])
        for outcome in reply.outcomes:
            assert isinstance(outcome, Recorded), f"refused: {outcome}"


def decode_all(raw: list[bytes]) -> list[Entry]:
    """Decode entries, as a node does with what it is sent."""
    return [decode_entry(one) for one in raw]


def as_singles(entries: list[bytes]) -> Iterator[bytes]:
    """Yield a request of one entry for each."""
    return (b"\x91" + entry for entry in entries)


def as_batches(entries: list[bytes], size: int) -> Iterator[bytes]:
    """Yield requests of `size` (16..65,535) entries each; what remains is left out."""
    head = b"\xdc" + size.to_bytes(2, "big")
    for start in range(0, len(entries) - size + 1, size):
        yield head + b"".join(entries[start : start + size])
