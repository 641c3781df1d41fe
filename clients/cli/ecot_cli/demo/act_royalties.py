# SPDX-License-Identifier: AGPL-3.0-or-later
"""Step 4: works with their splits, three libraries' use, and a period's revenue shared to the cent."""

import asyncio
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from ecot_cli.demo.act_members import ARTIST_COUNT
from ecot_cli.demo.cast import Actor, Coop
from ecot_cli.demo.checks import Teller
from ecot_cli.demo.plays import count_plays, generate_plays, read_plays
from ecot_client.errors import NodeProblem
from ecot_protocol.domains.catalogue.acts import BatchWork, RegisterWork, RegisterWorks
from ecot_protocol.domains.catalogue.state import Holder
from ecot_protocol.domains.royalty.acts import ReportUse, Subscribe
from ecot_protocol.domains.royalty.periods import ClosePeriod, OpenPeriod
from ecot_protocol.domains.royalty.sharing import share_revenue
from ecot_protocol.domains.royalty.state import UseCount
from ecot_protocol.wire.ids import object_id

WORKS_PER_ARTIST: Final = 100
FEE_MINOR: Final = 200_000
"""What each library pays for the period, in cents."""
REPORT_ROWS: Final = 2_000
BEST_SHOWN: Final = 5
DAY_MS: Final = 86_400_000


@dataclass
class Shared:
    """What the tables show of the sharing."""

    revenue_minor: int
    heads: list[tuple[str, str, int]]
    best: list[tuple[str, int, int, int]]
    play_count: int


def take_plays(path: Path | None) -> Counter[tuple[str, str]]:
    """Return (artist, track) -> plays of the most played artists, from a file or generated."""
    counts = count_plays(read_plays(path) if path else generate_plays(ARTIST_COUNT))
    by_artist: Counter[str] = Counter()
    for (artist, _), count in counts.items():
        by_artist[artist] += count
    chosen = {artist for artist, _ in by_artist.most_common(ARTIST_COUNT)}
    return Counter({work: count for work, count in counts.items() if work[0] in chosen})


async def share_period(coop: Coop, teller: Teller, path: Path | None) -> Shared:
    """Register works, subscribe, report use, close the period, check every cent."""
    plays = await asyncio.to_thread(take_plays, path)
    artists = [one for one in coop.actors if one.kind == "person"]
    libraries = [one for one in coop.actors if one.kind == "body"]
    works, splits = await _register(coop, artists, plays)
    await _subscribe(coop, libraries)
    now = coop.client.clock_ms()
    ends = now + 1_500
    period = (
        await coop.act(
            "royalty.open_period",
            OpenPeriod(code="2026-t4", ends_ms=ends, starts_ms=now - 90 * DAY_MS),
            **coop.as_treasurer,
        )
    ).entry_id
    uses = await _report(coop, libraries, period, works, plays)
    teller.tell("plays", count=sum(plays.values()), works=len(works))
    await coop.wait_until(ends)
    revenue = FEE_MINOR * len(libraries)
    closed = await coop.act(
        "royalty.close_period",
        ClosePeriod(period=period, revenue_minor=revenue, statutes_version=coop.statutes_version),
        **coop.as_treasurer,
    )
    return await _check(coop, teller, period, closed.index, revenue, splits, uses, artists)


async def _register(
    coop: Coop, artists: list[Actor], plays: Counter[tuple[str, str]]
) -> tuple[dict[tuple[str, str], bytes], dict[bytes, tuple[tuple[bytes, int], ...]]]:
    by_artist: dict[str, list[str]] = {}
    for (artist, track), _ in plays.most_common():
        by_artist.setdefault(artist, []).append(track)
    works: dict[tuple[str, str], bytes] = {}
    splits: dict[bytes, tuple[tuple[bytes, int], ...]] = {}
    entries = []
    for (artist, tracks), actor in zip(sorted(by_artist.items()), artists, strict=False):
        batch = tracks[:WORKS_PER_ARTIST]
        entry_id = coop.new_id()
        payload = RegisterWorks(titles=None, works=tuple(BatchWork(identifiers=(), kind="music") for _ in batch))
        titles = msgspec.msgpack.encode(batch)
        entries.append(
            await coop.build(
                "catalogue.register_works", payload, **actor.signs, entry_id=entry_id, contents={"titles": titles}
            )
        )
        for number, track in enumerate(batch, start=1):
            work = object_id(entry_id, number)
            works[artist, track] = work
            splits[work] = ((actor.member, 10_000),)
    await coop.must(entries)
    return works, splits | await _duets(coop, artists)


async def _duets(coop: Coop, artists: list[Actor]) -> dict[bytes, tuple[tuple[bytes, int], ...]]:
    """Works of two artists: one body that both sign, so nobody splits what is another's."""
    splits = {}
    entries = []
    for first, second in zip(artists[:10:2], artists[1:10:2], strict=True):
        entry_id = coop.new_id()
        holders = (Holder(first.member, 6_667), Holder(second.member, 3_333))
        payload = RegisterWork(holders=holders, identifiers=(), kind="game", title=None)
        entries.append(
            await coop.build(
                "catalogue.register_work",
                payload,
                author=first.member,
                signers=(first.signer, second.signer),
                entry_id=entry_id,
                contents={"title": f"Duo {first.name}"},
            )
        )
        splits[entry_id] = tuple((one.member, one.share_bp) for one in holders)
    await coop.must(entries)
    return splits


async def _subscribe(coop: Coop, libraries: list[Actor]) -> None:
    now = coop.client.clock_ms()
    subscribe = Subscribe(
        from_ms=now, statutes_version=coop.statutes_version, total_minor=FEE_MINOR, unit="EUR", until_ms=None
    )
    await coop.must([await coop.build("royalty.subscribe", subscribe, **one.signs) for one in libraries])


async def _report(
    coop: Coop,
    libraries: list[Actor],
    period: bytes,
    works: dict[tuple[str, str], bytes],
    plays: Counter[tuple[str, str]],
) -> dict[bytes, int]:
    """Each library reports its share of the listening as totals per work."""
    uses: Counter[bytes] = Counter()
    entries = []
    for number, library in enumerate(libraries):
        counts = {
            work: count // len(libraries) + (number < count % len(libraries))
            for key, work in works.items()
            if (count := plays[key])
        }
        rows = sorted((work, count) for work, count in counts.items() if count)
        for part, start in enumerate(range(0, len(rows), REPORT_ROWS), start=1):
            chunk = tuple(UseCount(work, count) for work, count in rows[start : start + REPORT_ROWS])
            report = ReportUse(counts=chunk, institution=library.member, part=part, period=period)
            entries.append(await coop.build("royalty.report_use", report, **library.signs))
        uses.update(dict(rows))
    await coop.must(entries)
    return dict(uses)


async def _check(
    coop: Coop,
    teller: Teller,
    period: bytes,
    index: int,
    revenue: int,
    splits: dict[bytes, tuple[tuple[bytes, int], ...]],
    uses: dict[bytes, int],
    artists: list[Actor],
) -> Shared:
    shown = await coop.get(f"/v1/periods/{period.hex()}")
    shared = shown["shared"]
    heads = [(one["head"], one["kind"], one["amount_minor"]) for one in shared["heads"]]
    teller.check_equal("heads_sum", sum(amount for _, _, amount in heads), revenue)
    royalty = coop.statutes.royalty
    assert royalty is not None
    mine = share_revenue(period, revenue, royalty.heads, splits, uses, referenced=list(splits))
    owed = {member: sum(totals.amounts_minor) for member, totals in mine.holders.items()}
    statements = {one.member: await _statement(coop, period, one) for one in artists}
    expected = {one.member: owed.get(one.member, 0) for one in artists}
    teller.check("statements", statements == expected, count=len(artists))
    kept = sum(amount for _, kind, amount in heads if kind == "own")
    teller.check_equal("to_the_cent", sum(owed.values()) + kept + shared["carried_minor"], revenue)
    earners = sorted((one for one in artists if one.member in owed), key=lambda one: -owed[one.member])
    best = [(one.name, mine.holders[one.member], owed[one.member]) for one in earners[:BEST_SHOWN]]
    rows = [(name, totals.work_count, totals.use_count, earned) for name, totals, earned in best]
    return Shared(revenue, heads, rows, sum(uses.values()))


async def _statement(coop: Coop, period: bytes, artist: Actor) -> int:
    """Return what a rights-holder's statement says; who earned nothing has none."""
    try:
        shown = await coop.get(f"/v1/periods/{period.hex()}/statements/{artist.member.hex()}")
    except NodeProblem as problem:
        if problem.code != "not_found":
            raise
        return 0
    total: int = shown["total_minor"]
    return total
