# SPDX-License-Identifier: AGPL-3.0-or-later
"""The two peers of the same run: the classical way, and beancount."""

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

import classical
import msgspec
import plaintext
import population
import postgres_server
import quiet
import server_process
import wrk
from figures import Figures
from ledger_kit import seed

from ecot_protocol.wire.keys import Signer

PROGRAM: Final = Path(classical.__file__)
CONNECTIONS: Final = 64
MAX_PER_S: Final = 12_000
"""More than the classical way has ever done here, so that the bodies suffice."""


def measure_classical(figures: Figures, *, seconds: float, rounds: int) -> None:
    """Measure `classical_c64` (both cores), `classical_c64_1_core` and `classical_function_c64` (both cores)."""
    cores = quiet.cores()
    plans = (
        ("classical_c64", "statements", cores, cores),
        ("classical_c64_1_core", "statements", cores[:1], cores[-1:]),
        ("classical_function_c64", "function", cores, cores),
    )
    signers = [Signer(seed(f"classical {number}")) for number in range(population.MEMBER_COUNT)]
    with wrk.scratch() as folder:
        bodies = Path(folder) / "bodies"
        wrk.write_bodies(bodies, _bodies(signers, int(MAX_PER_S * seconds)))
        for name, form, server_cores, load_cores in plans:
            try:
                once = partial(_run, bodies, signers, form, server_cores, load_cores, seconds)
                samples = [quiet.measure(once) for _ in range(rounds)]
            except postgres_server.PostgresMissing as error:
                figures.skip(name, str(error))
                continue
            figures.add(name, "1/s", samples)


def _bodies(signers: Sequence[Signer], count: int) -> "list[bytes]":
    bodies = []
    for payer, payee, amount_minor in population.transfers(count):
        body = msgspec.msgpack.encode([os.urandom(16), payer, payee, amount_minor])
        bodies.append(msgspec.msgpack.encode([body, signers[payer].sign(body)]))
    return bodies


def _run(
    bodies: Path,
    signers: Sequence[Signer],
    form: str,
    server_cores: Sequence[int],
    load_cores: Sequence[int],
    seconds: float,
) -> float:
    port = server_process.free_port()
    with postgres_server.running(server_cores) as host:
        asyncio.run(classical.make_schema(host, postgres_server.USER, [one.public_key[1:] for one in signers]))
        environment = {**os.environ, "PG_HOST": host, "PG_USER": postgres_server.USER, "FORM": form}
        errors = bodies.with_name("classical.log")
        with server_process.running(
            [sys.executable, PROGRAM, port],
            port=port,
            ready="/count",
            cores=server_cores,
            env=environment,
            errors=errors,
        ):
            url = f"http://127.0.0.1:{port}"
            load = wrk.run(url, "/transfers", bodies, connections=CONNECTIONS, seconds=seconds, cores=load_cores)
            stored = json.loads(server_process.get(port, "/count")[1])
    if stored["count"] < load.requests or stored["sum_minor"] != 0:
        raise wrk.LoadFailed(f"{load.requests} answered, but the database holds {stored}")
    return load.per_s


def measure_beancount(figures: Figures, count: int) -> dict[int, int] | None:
    """Measure `beancount_balances` over `count` transfers; return its balances, to compare with ours."""
    if not plaintext.is_here():
        figures.skip("beancount_balances", "run `pip install beancount beanquery`")
        return None
    with wrk.scratch() as folder:
        journal = Path(folder) / "transfers.beancount"
        plaintext.write_journal(journal, population.MEMBER_COUNT, population.transfers(count))
        sample = quiet.measure(lambda: plaintext.compute_balances(journal), tries=1)
    seconds, balances = sample.value
    figures.add(
        "beancount_balances", "s", [quiet.Sample(seconds, sample.others_cores)], f"{count:,} transfers, one run"
    )
    return balances
