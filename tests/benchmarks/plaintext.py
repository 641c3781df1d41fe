# SPDX-License-Identifier: AGPL-3.0-or-later
"""beancount, to compare with: run as a program, never imported, computing the balances of the same transfers.

It reads a text file of the transfers, one transaction each, checks that each balances, and answers one query for the
balances of all accounts. It checks no signature and no hash, and has one thread.
"""

import csv
import io
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Final

QUERY: Final = "SELECT account, number(only('BART', sum(position))) GROUP BY account"
PROGRAM: Final = Path(sys.executable).with_name("bean-query")


def is_here() -> bool:
    """Tell whether the program is installed."""
    return PROGRAM.exists()


def write_journal(path: Path, member_count: int, transfers: Iterable[tuple[int, int, int]]) -> None:
    """Write transfers (payer, payee, amount in minor units), members numbered from 0, in beancount's syntax."""
    with path.open("w", encoding="ascii") as file:
        for number in range(member_count):
            file.write(f"2026-01-01 open Equity:M{number:05d} BART\n")
        for payer, payee, amount_minor in transfers:
            amount = f"{amount_minor // 100}.{amount_minor % 100:02d}"
            file.write(f'2026-01-02 * "transfer"\n  Equity:M{payer:05d} -{amount} BART\n')
            file.write(f"  Equity:M{payee:05d} {amount} BART\n")


def compute_balances(journal: Path) -> tuple[float, dict[int, int]]:
    """Run the program; return (seconds, member -> balance in minor units)."""
    # Without its cache, which would hold what a first run had parsed.
    environment = {**os.environ, "BEANCOUNT_DISABLE_LOAD_CACHE": "1"}
    started = time.perf_counter()
    done = subprocess.run(
        [PROGRAM, "-q", "-f", "csv", journal, QUERY], env=environment, check=True, capture_output=True, text=True
    )
    seconds = time.perf_counter() - started
    rows = list(csv.reader(io.StringIO(done.stdout)))[1:]
    return seconds, {int(row[0].rpartition("M")[2]): int(Decimal(row[1] or 0) * 100) for row in rows}
