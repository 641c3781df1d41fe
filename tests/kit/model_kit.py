# SPDX-License-Identifier: AGPL-3.0-or-later
"""Run spin on the model of the decision (docs/specification/model): what holds, and what each defect breaks.

``python tests/kit/model_kit.py [long]`` runs what holds and prints the rows of the table in the model's README.
"""

import re
import resource
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MODEL: Final = Path(__file__).parents[2] / "docs" / "specification" / "model" / "transfer.pml"
INSTALL: Final = "apt-get install -y --no-install-recommends spin gcc libc6-dev"
MISSING: Final = [tool for tool in ("spin", "gcc") if shutil.which(tool) is None]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of spin.

    Attributes:
        name: what is modelled.
        options: of the model (README.md lists them).
        breaks: the property that must be found broken; nil if all hold.
        ends: what must have become of the deal in some history.
        is_large: worth the optimizer's time.
    """

    name: str
    options: tuple[str, ...]
    breaks: str | None = None
    ends: frozenset[str] = frozenset()
    is_large: bool = False

    @property
    def is_fair(self) -> bool:
        """Tell whether cycles are looked for, rather than states."""
        return "FAIR" in self.options


@dataclass(frozen=True)
class Result:
    """What spin found, and the processor's time that it took.

    `broken` names the property of the first error; `is_complete`: nothing was left out.
    """

    broken: str | None
    ends: frozenset[str]
    is_complete: bool
    state_count: int
    depth: int
    seconds: float
    memory_mb: float


def run_spin(run: Run, folder: Path) -> Result:
    """Make a checker of the model with the run's options, and run it to its end or its first error."""
    source = folder / MODEL.name
    shutil.copy(MODEL, source)
    _call(["spin", *(f"-D{option}" for option in run.options), "-a", source.name], folder)
    # Compressed states, and `printf` heard, which only the end of a history uses.
    flags = ["-DNFAIR=4"] if run.is_fair else ["-DSAFETY"]
    level = "-O2" if run.is_large else "-O0"
    _call(["gcc", level, "-w", "-DCOLLAPSE", "-DPRINTF", *flags, "-o", "pan", "pan.c"], folder)
    before_s = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    searched = _call(["./pan", "-m200000", "-w22", *(["-a", "-f"] if run.is_fair else [])], folder)
    return _read(searched, resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before_s)


def _call(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=3_500, check=False)
    assert done.returncode == 0, f"{command[0]}: {done.stdout[-2_000:]}{done.stderr[-2_000:]}"
    return done.stdout


def _read(searched: str, seconds: float) -> Result:
    errors = re.search(r"errors: (\d+)", searched)
    assert errors, searched[-2_000:]
    broken = re.search(r"assertion violated (\w+)|(acceptance cycle)", searched)
    assert bool(broken) == (errors[1] != "0"), searched[-2_000:]
    cut = "Search not completed" in searched or "search depth too small" in searched
    return Result(
        broken=(broken[1] or broken[2]) if broken else None,
        ends=frozenset(re.findall(r"end: (.+)", searched)),
        is_complete=not broken and not cut,
        state_count=int(float(_find(r"(\S+) states, stored", searched))),
        depth=int(_find(r"depth reached (\d+)", searched)),
        seconds=seconds,
        memory_mb=float(_find(r"(\S+)\s+total actual memory usage", searched)),
    )


def _find(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    assert found, text[-2_000:]
    return found[1]


# ------------------------------------------------------------------------------------------------------ what holds

COMMITTED: Final = "committed"
ABORTED: Final = "aborted"
EARLY: Final = "aborted early"
BY_BOTH: Final = "committed by both logs"
BY_SUCCESSOR: Final = "aborted by the successor"
NEVER_COUNTED: Final = "aborted by the successor, as the commit never counted"
GIVEN_UP: Final = "committed after it was given up"
_ENDS: Final = frozenset({COMMITTED, ABORTED, BY_BOTH, BY_SUCCESSOR, NEVER_COUNTED})

_TWO: Final = ("LEDGERS=2", "DECIDER=1", "WITNESSES=2", "SUCCESSORS=0", "LEDGERS_ARE_WITNESSES")
_LYING: Final = ("LYING_DECIDER", "IMMORTAL")
_FOUR: Final = ("WITNESSES=4", "QUORUM=3")
_SMALL: Final = ("LEDGERS=2", "IMMORTAL", "SEALERS=3")
_PROMPT: Final = ("SUCCESSORS=0", "IMMORTAL", "NEVER_LATE")

HOLDS: Final = (
    Run(name="a path of three ledgers, a decider that is not on it", options=(), ends=_ENDS, is_large=True),
    Run(name="without a successor", options=("SUCCESSORS=0",), ends=frozenset({COMMITTED, ABORTED})),
    Run(
        name="two ledgers are each other's witnesses, one is lost, the other gives up",
        options=(*_TWO, "DEATHS=2", "GIVING_UP"),
        ends=frozenset({COMMITTED, ABORTED, GIVEN_UP}),
    ),
    Run(name="a hop refuses; the earliest abort never comes", options=_PROMPT, ends=frozenset({COMMITTED, EARLY})),
    Run(name="the ledger in between lies", options=(*_SMALL[1:], "LYING_LEDGER=1")),
    Run(name="a decider that lies to every witness", options=(*_SMALL, "LYING_DECIDER")),
    Run(
        name="a witness of four lies, the quorum is three",
        options=("LEDGERS=2", "IMMORTAL", *_FOUR, "SEALERS=4", "LYING_WITNESSES=1"),
    ),
    Run(
        name="every fair run ends: two ledgers, the payee's decides",
        options=("FAIR", "LEDGERS=2", "DECIDER=1", "SUCCESSORS=0"),
    ),
)

HOLDS_LONG: Final = (
    Run(name="the payee's ledger decides", options=("DECIDER=2",), ends=_ENDS, is_large=True),
    Run(name="the payer's ledger decides", options=("DECIDER=0",), ends=_ENDS, is_large=True),
    Run(name="the ledger in between decides", options=("DECIDER=1",), ends=_ENDS, is_large=True),
    Run(name="a clearing round of three", options=("ROUND",), ends=_ENDS, is_large=True),
    Run(
        name="a clearing round, decided by one who takes part",
        options=("ROUND", "DECIDER=2"),
        ends=_ENDS,
        is_large=True,
    ),
    Run(name="with a leaf of another deal in the log", options=("OTHERS=1",), is_large=True),
    Run(name="a witness or a ledger may die too", options=("DEATHS=1",), ends=_ENDS, is_large=True),
    Run(name="the same, the payee's ledger decides", options=("DECIDER=2", "DEATHS=1"), ends=_ENDS, is_large=True),
    Run(
        name="a witness or a ledger may die too, no successor, boards give up",
        options=("SUCCESSORS=0", "DECIDER=2", "DEATHS=1", "GIVING_UP"),
        ends=frozenset({COMMITTED, ABORTED, GIVEN_UP}),
        is_large=True,
    ),
    Run(
        name="a decider that lies to every witness, with a leaf of another deal",
        options=(*_LYING, "OTHERS=1", "SEALERS=3"),
        is_large=True,
    ),
    Run(
        name="a decider and a witness of four lie together, the quorum is three",
        options=(*_LYING, *_FOUR, "SEALERS=4", "LYING_WITNESSES=1"),
        is_large=True,
    ),
    Run(
        name="boards give up, and a successor decides",
        options=("LEDGERS=2", "GIVING_UP"),
        ends=frozenset({COMMITTED, ABORTED, BY_BOTH, GIVEN_UP}),
        is_large=True,
    ),
    Run(name="the payer's ledger lies", options=("LYING_LEDGER=0",), is_large=True),
    Run(name="the payee's ledger lies", options=("LYING_LEDGER=2",), is_large=True),
    Run(name="a ledger and the decider lie together", options=(*_LYING, "LYING_LEDGER=1"), is_large=True),
    Run(name="a path of four ledgers", options=("LEDGERS=4",), ends=_ENDS, is_large=True),
    Run(
        name="two successors in a chain",
        options=("SUCCESSORS=2", "IMMORTAL", "SEALERS=3"),
        is_large=True,
    ),
    Run(name="every fair run ends: a path of three ledgers", options=("FAIR",), is_large=True),
)

# --------------------------------------------------------------------------------------------------- what breaks it

DEFECTS: Final = (
    Run(name="time-outs by own clock", options=("OWN_CLOCK",), breaks="agreement"),
    Run(name="a successor acts without seals", options=(*_SMALL, "NO_SEALS"), breaks="no_contradiction"),
    Run(name="a successor takes the shortest seal", options=(*_SMALL, "SMALLEST_SEAL"), breaks="no_contradiction"),
    Run(name="a quorum of one of three", options=(*_SMALL, "QUORUM=1"), breaks="no_contradiction"),
    Run(name="a witness cosigns after its seal", options=(*_SMALL, "LYING_WITNESSES=1"), breaks="no_contradiction"),
    Run(
        name="abort after commit: the witnesses refuse it, and the deal hangs",
        options=("ABORT_AFTER_COMMIT",),
        breaks="settled",
    ),
    Run(
        name="abort after commit, witnesses blind to the leaves",
        options=("ABORT_AFTER_COMMIT", "WITNESS_BLIND"),
        breaks="no_contradiction",
    ),
    Run(name="a promise leaves before it is durable", options=("PROMISE_BEFORE_DURABLE",), breaks="full_reservation"),
    Run(name="a decision leaves before it is durable", options=("DECISION_BEFORE_DURABLE",), breaks="one_history"),
    Run(
        name="a seal is shown before it is durable",
        options=(*_SMALL, "SEAL_BEFORE_DURABLE"),
        breaks="no_contradiction",
    ),
    Run(name="a ledger forgets what it has resolved", options=("FORGETS_RESOLVED",), breaks="single_resolution"),
    Run(
        name="a quorum of another policy counts too",
        options=("NEWER_POLICY", "WITNESSES=4", "LEDGERS=2", "IMMORTAL", "SEALERS=4"),
        breaks="agreement",
    ),
    Run(
        name="two successors, each with seals of its choice",  # unsorted, it is found sooner
        options=(*_SMALL, "SUCCESSORS=2", "SECOND_AT_ONCE", "UNSORTED"),
        breaks="no_contradiction",
    ),
    Run(
        name="a lying decider, and seals of a log that forked",
        options=(*_LYING, "FORKED_SEALS"),
        breaks="no_contradiction",
    ),
    Run(
        name="a lying decider, and witnesses that begin behind leaves they are not shown",
        options=(*_SMALL, "LYING_DECIDER", "STARTS_LATE"),
        breaks="no_contradiction",
    ),
    Run(
        name="a lying decider, and a commit believed without the promises",
        options=(*_LYING, "PROMISES_UNSEEN"),
        breaks="full_reservation",
    ),
    Run(
        name="a lying decider and a lying witness of three",
        options=(*_LYING, "LYING_WITNESSES=1"),
        breaks="no_contradiction",
    ),
    Run(
        name="a hop that gives up frees its other partner",
        options=("SUCCESSORS=0", "DECIDER=2", "DEATHS=2", "GIVING_UP", "HOP_FREES_PARTNER"),
        breaks="hop_neutrality",
    ),
    Run(
        name="a late proof charges the member that was freed",
        options=(*_TWO, "GIVING_UP", "LATE_PROOF_MEETS_MEMBER"),
        breaks="member_left_alone",
    ),
    Run(name="a hop refuses, and nobody may abort early", options=(*_PROMPT, "NO_EARLY_ABORT"), breaks="settled"),
    Run(
        name="the same, found as a run without end",
        options=("FAIR", "LEDGERS=2", *_PROMPT, "NO_EARLY_ABORT"),
        breaks="acceptance cycle",
    ),
)


def main() -> None:
    """Print the rows of the README's table."""
    runs = HOLDS_LONG if sys.argv[1:] == ["long"] else HOLDS
    for run in runs:
        with tempfile.TemporaryDirectory() as folder:
            result = run_spin(run, Path(folder))
        assert result.broken is None, result.broken
        assert result.is_complete
        options = " ".join(f"`{option}`" for option in run.options)
        found = f"{result.state_count:,} | {result.depth:,} | {result.seconds:.1f} | {result.memory_mb:.0f}"
        print(f"| {run.name} | {options or 'none'} | {found} |", flush=True)


if __name__ == "__main__":
    main()
