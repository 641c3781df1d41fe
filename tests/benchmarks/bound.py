# SPDX-License-Identifier: AGPL-3.0-or-later
"""The bound: Ed25519 verifications a second, by the library that the node uses, on one core and on two."""

import multiprocessing
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from statistics import median

import quiet
from figures import Figures
from nacl.bindings import crypto_sign_open, crypto_sign_seed_keypair

from ecot_protocol.wire.keys import Signer

MESSAGE_SIZE_BYTES = 200
ITEMS = 500
START_DELAY_S = 0.3
ROUNDS = 5


def measure_bound(figures: Figures, *, seconds: float) -> None:
    """Measure `ed25519_verify_1_core` and `ed25519_verify_2_cores`."""
    cores = quiet.cores()
    count = int(4_000 * seconds)
    for name, used in (("ed25519_verify_1_core", cores[:1]), ("ed25519_verify_2_cores", cores[:2])):
        samples = [quiet.measure(partial(_rate, used, count)) for _ in range(ROUNDS)]
        figures.add(name, "1/s", samples)


def _rate(cores: Sequence[int], count: int) -> float:
    """Verify `count` signatures on each of the cores at the same time; return verifications a second, in all."""
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(len(cores), mp_context=context) as pool:
        # Each begins when the others are ready; the rates of what they did together add up.
        start_at = time.monotonic() + START_DELAY_S
        return sum(pool.map(_verify, cores, [count] * len(cores), [start_at] * len(cores)))


def _verify(core: int, count: int, start_at: float) -> float:
    os.sched_setaffinity(0, (core,))
    items = _signed(ITEMS)
    time.sleep(max(0.0, start_at - time.monotonic()))
    rates = []
    for _ in range(max(1, count // ITEMS)):
        started = time.perf_counter()
        for signed, public_key in items:
            crypto_sign_open(signed, public_key)
        rates.append(ITEMS / (time.perf_counter() - started))
    return median(rates)


def _signed(count: int) -> list[tuple[bytes, bytes]]:
    """Return signed messages (signature first), each with its own key's public part."""
    items = []
    for number in range(count):
        seed = number.to_bytes(32, "big")
        message = os.urandom(MESSAGE_SIZE_BYTES)
        items.append((Signer(seed).sign(message) + message, crypto_sign_seed_keypair(seed)[0]))
    return items
