# SPDX-License-Identifier: AGPL-3.0-or-later
"""`make bench`: measure, print, write build/bench.json. Every name is explained in docs/benchmarks.md.

    python tests/benchmarks/run.py                 everything; 20 minutes at most
    BENCH_SHORT=1 python tests/benchmarks/run.py   a tenth of it
    python tests/benchmarks/run.py bound node      only these parts, e.g. while mending one

Parts: classical, memory, bound, node, federation, ledger, beancount. No time is asserted: a slow machine gives small
figures. What is asserted is that what was measured was done: that every entry counted was recorded.
"""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "kit"))

import bound
import federation
import ledger_alone
import node_http
import peers
import quiet
import state_memory
import structlog
import wrk
from figures import JSON_PATH, Figures
from population import Population

PARTS: Final = ("classical", "memory", "bound", "node", "federation", "ledger", "beancount")
TARGETS: Final = (
    ("single_c64_to_bound", "single_c64", "ed25519_verify_1_core", 0.32),
    ("batch_c8_to_bound", "batch_c8", "ed25519_verify_1_core", 0.55),
    ("batch_2_cores_to_bound", "batch_c8_2_cores", "ed25519_verify_2_cores", 0.45),
    ("single_to_classical", "single_c64_2_cores", "classical_c64", 2.0),
    ("batch_to_classical", "batch_c8_2_cores", "classical_c64", 5.0),
    ("single_to_classical_1_core", "single_c64", "classical_c64_1_core", None),
    ("single_to_classical_function", "single_c64_2_cores", "classical_function_c64", None),
    ("beancount_to_replay", "beancount_balances", "replay_verified_time", 2.5),
    ("transfers_to_local", "fed_transfers", "fed_local", 0.5),
    ("hop_to_floor", "fed_1_hops_p50", "fed_floor", None),
)


class Size:
    """How much is measured.

    Args:
        is_short: a tenth.
    """

    def __init__(self, *, is_short: bool) -> None:
        self.big_log = 100_000 if is_short else 1_000_000
        self.signed = 150_000 if is_short else 400_000
        self.writer = 20_000 if is_short else 60_000
        self.members = 1_000 if is_short else 5_000
        self.load_s = 2.0 if is_short else 8.0
        self.rounds = 1 if is_short else 3
        self.bound_s = 0.25 if is_short else 1.0


def main(parts: list[str]) -> int:
    """Measure the parts (all, if none is named); return the exit code."""
    unknown = set(parts) - set(PARTS)
    if unknown:
        print(f"unknown: {', '.join(sorted(unknown))}; expected some of {', '.join(PARTS)}", file=sys.stderr)
        return 2
    _quieten_logs()
    is_short = os.environ.get("BENCH_SHORT") == "1"
    figures = Figures()
    _measure(figures, Size(is_short=is_short), parts or list(PARTS))
    for name, above, below, target in TARGETS:
        figures.compare(name, above, below, target)
    figures.print()
    figures.write(is_short=is_short)
    figures.console.print(f"{time.time() - figures.started:.0f} s; written to {JSON_PATH}", highlight=False)
    undocumented = figures.undocumented()
    if undocumented:
        print(f"docs/benchmarks.md lacks: {', '.join(undocumented)}", file=sys.stderr)
    return 1 if undocumented else 0


def _quieten_logs() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))


def _measure(figures: Figures, size: Size, parts: list[str]) -> None:
    if len(quiet.cores()) < 2:
        figures.notes.append("One core only: what is said of two cores holds for one, and wrk shares it with the node.")
    if "classical" in parts:
        with _part(figures, "peer: aiohttp and PostgreSQL"):
            if _has_wrk(figures, "classical_c64"):
                peers.measure_classical(figures, seconds=size.load_s, rounds=size.rounds)
    if "memory" in parts:
        with _part(figures, "state in memory"):
            state_memory.measure_memory(figures, size.members)
    if "bound" in parts:
        with _part(figures, "bound: Ed25519"):
            bound.measure_bound(figures, seconds=size.bound_s)
    if "federation" in parts:
        with _part(figures, "transfers between ledgers"), wrk.scratch() as place:
            federation.measure_federation(figures, Path(place), seconds=size.load_s, rounds=min(size.rounds, 2))
    if "ledger" in parts or "node" in parts:
        _measure_ours(figures, size, parts)
    elif "beancount" in parts:
        with _part(figures, "peer: beancount"):
            peers.measure_beancount(figures, size.big_log)


def _measure_ours(figures: Figures, size: Size, parts: list[str]) -> None:
    with wrk.scratch() as name:
        scratch = Path(name)
        with _part(figures, "members and signed entries"):
            people = Population()
            # The newest entry's id must not be older than 31 days, and none expires within a day.
            signed = people.sign(max(size.big_log if "ledger" in parts else 0, size.signed))
        if "node" in parts and _has_wrk(figures, "single_c64"):
            with _part(figures, "the node over HTTP"):
                _measure_node(figures, size, people, signed, scratch)
        if "ledger" in parts:
            with _part(figures, "the ledger alone"):
                _measure_ledger(figures, size, people, signed, scratch)
            if "beancount" in parts:
                with _part(figures, "peer: beancount"):
                    _compare_beancount(figures, size, people, scratch)


def _measure_node(figures: Figures, size: Size, people: Population, signed: list[bytes], scratch: Path) -> None:
    founded = scratch / "founded"
    people.make_folder(founded)
    ledger_alone.run(people.fill(founded))
    bodies = node_http.Bodies(scratch, signed[: size.signed])
    node_http.measure_http(figures, people, founded, bodies, size.load_s, size.rounds)


def _measure_ledger(figures: Figures, size: Size, people: Population, signed: list[bytes], scratch: Path) -> None:
    ledger_alone.measure_writer(figures, people, signed[: size.writer], scratch)
    ledger_alone.measure_views_lag(figures, people, signed[: size.writer], scratch)
    big = scratch / "big"
    ledger_alone.run(ledger_alone.write_big_log(people, big, signed[: size.big_log]))
    ledger_alone.measure_start(figures, people, big)
    ledger_alone.measure_proofs(figures, people, big)
    ledger_alone.measure_replay(figures, big)
    node_http.measure_start(figures, big, size.big_log)


def _compare_beancount(figures: Figures, size: Size, people: Population, scratch: Path) -> None:
    theirs = peers.measure_beancount(figures, size.big_log)
    if theirs is None:
        return
    ours = ledger_alone.run(ledger_alone.balances(scratch / "big"))
    expected = {number: ours[actor.member] for number, actor in enumerate(people.members)}
    touched = {number: balance for number, balance in expected.items() if number in theirs}
    assert touched == theirs, "beancount and the replay agree on every balance"
    figures.notes.append(f"beancount and the replay agree on the balances of {len(theirs):,} members.")


def _has_wrk(figures: Figures, name: str) -> bool:
    if not wrk.is_here():
        figures.skip(name, wrk.HOW_TO_GET)
    return wrk.is_here()


@contextlib.contextmanager
def _part(figures: Figures, title: str) -> Iterator[None]:
    started = time.time()
    figures.console.print(f"[bold]{title}[/bold]")
    yield
    figures.console.print(f"  [dim]{time.time() - started:.0f} s[/dim]", highlight=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
