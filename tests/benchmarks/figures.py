# SPDX-License-Identifier: AGPL-3.0-or-later
"""What was measured: figures by name, ratios of figures with what they should reach, as a table and as JSON.

The names are documented in docs/benchmarks.md and never change their meaning; `run.py` fails on one that is not there.
"""

import json
import os
import platform
import sqlite3
import time
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, Final

import quiet
from rich.console import Console
from rich.table import Table

ROOT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = ROOT / "docs" / "benchmarks.md"
JSON_PATH: Final = ROOT / "build" / "bench.json"
LIBRARIES: Final = ("aiohttp", "asyncpg", "beancount", "msgspec", "pynacl", "uvloop")


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured number.

    Attributes:
        value: the median of `samples`.
        unit: e.g. ``1/s``, ``ms``, ``bytes``.
        samples: every value kept.
        others_cores: most that others used in a sample kept.
        is_quiet: no sample was disturbed.
        note: what a reader should know.
    """

    value: float
    unit: str
    samples: tuple[float, ...]
    others_cores: float
    is_quiet: bool
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """`value` = `above` / `below`, which should be at least `target` (None: told for itself)."""

    above: str
    below: str
    value: float
    target: float | None
    is_reached: bool | None


@dataclass
class Figures:
    """Collects figures and ratios; shows each as it comes."""

    console: Console = field(default_factory=Console)
    figures: dict[str, Figure] = field(default_factory=dict)
    ratios: dict[str, Ratio] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    breakdowns: dict[str, dict[str, float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.time)

    def add(self, name: str, unit: str, samples: "list[quiet.Sample[float]]", note: str = "") -> float:
        """Add a figure made of samples; return its value."""
        value = median(sample.value for sample in samples)
        figure = Figure(
            value=value,
            unit=unit,
            samples=tuple(sample.value for sample in samples),
            others_cores=round(max(sample.others_cores for sample in samples), 3),
            is_quiet=all(sample.is_quiet for sample in samples),
            note=note,
        )
        self.figures[name] = figure
        mark = "" if figure.is_quiet else f"  (disturbed: others used {figure.others_cores:.2f} core)"
        self.console.print(f"  {name:<34} {show(value):>12} {unit}{mark}", highlight=False)
        return value

    def add_plain(self, name: str, unit: str, value: float, note: str = "") -> float:
        """Add a figure that others can't disturb: a size, a count, a time of CPU."""
        return self.add(name, unit, [quiet.Sample(value, 0.0)], note)

    def skip(self, name: str, why: str) -> None:
        """Say that a part could not be measured, and why."""
        self.missing[name] = why
        self.console.print(f"  [yellow]{name} is missing: {why}[/yellow]", highlight=False)

    def compare(self, name: str, above: str, below: str, target: float | None = None) -> None:
        """Add the ratio of two figures, if both were measured."""
        if above in self.figures and below in self.figures and self.figures[below].value:
            value = self.figures[above].value / self.figures[below].value
            self.ratios[name] = Ratio(
                above=above,
                below=below,
                value=value,
                target=target,
                is_reached=None if target is None else value >= target,
            )

    def value(self, name: str) -> float | None:
        """Return a figure's value, if it was measured."""
        figure = self.figures.get(name)
        return None if figure is None else figure.value

    def print(self) -> None:
        """Print the tables."""
        table = Table(title="Écot: figures of this run", title_justify="left")
        for column in ("figure", "value", "unit", "samples", ""):
            table.add_column(column, justify="right" if column in ("value", "samples") else "left")
        for name, figure in self.figures.items():
            table.add_row(
                name,
                show(figure.value),
                figure.unit,
                str(len(figure.samples)),
                figure.note if figure.is_quiet else f"disturbed ({figure.others_cores:.2f} core) {figure.note}",
            )
        self.console.print(table)
        for name, breakdown in self.breakdowns.items():
            self._print_breakdown(name, breakdown)
        self._print_ratios()
        for name, why in self.missing.items():
            self.console.print(f"missing: {name}: {why}", highlight=False)
        for note in self.notes:
            self.console.print(note, highlight=False)

    def _print_breakdown(self, name: str, breakdown: dict[str, float]) -> None:
        table = Table(title=f"{name}: CPU µs per entry", title_justify="left")
        table.add_column("where")
        table.add_column("µs", justify="right")
        for where, value in breakdown.items():
            table.add_row(where, f"{value:.1f}")
        self.console.print(table)

    def _print_ratios(self) -> None:
        table = Table(title="Ratios", title_justify="left")
        for column in ("ratio", "value", "to reach", ""):
            table.add_column(column, justify="left" if column == "ratio" else "right")
        for name, ratio in self.ratios.items():
            goal = "" if ratio.target is None else f"{ratio.target:.2f}"
            table.add_row(name, f"{ratio.value:.2f}", goal, _verdict(ratio))
        self.console.print(table)

    def write(self, *, is_short: bool) -> None:
        """Write everything to `JSON_PATH`."""
        content = {
            "format": 1,
            "is_short": is_short,
            "started_unix_s": int(self.started),
            "took_s": round(time.time() - self.started, 1),
            "machine": describe_machine(),
            "figures": {name: asdict(figure) for name, figure in self.figures.items()},
            "ratios": {name: asdict(ratio) for name, ratio in self.ratios.items()},
            "breakdowns_us": self.breakdowns,
            "missing": self.missing,
            "notes": self.notes,
        }
        JSON_PATH.parent.mkdir(exist_ok=True)
        JSON_PATH.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    def undocumented(self) -> list[str]:
        """Return the names that docs/benchmarks.md does not explain."""
        page = PAGE.read_text(encoding="utf-8")
        return [name for name in (*self.figures, *self.ratios, *self.breakdowns) if f"`{name}`" not in page]


def show(value: float) -> str:
    """Return a number with as many digits as it deserves."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _verdict(ratio: Ratio) -> str:
    if ratio.target is None:
        return ""
    if ratio.is_reached:
        return "[green]reached[/green]"
    return f"[red]missed by {100 * (1 - ratio.value / ratio.target):.0f} %[/red]"


def describe_machine() -> dict[str, Any]:
    """Return what the figures depend on besides the code."""
    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    memory_kib = int(Path("/proc/meminfo").read_text().split()[1])
    return {
        "cpu": model[0].partition(":")[2].strip() if model else platform.processor(),
        "cores": len(quiet.cores()),
        "cores_of_machine": os.cpu_count(),
        "memory_gib": round(memory_kib / 2**20, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "libraries": {name: version(name) for name in LIBRARIES},
    }
