# SPDX-License-Identifier: AGPL-3.0-or-later
"""What every test has: the same generated cases in each run, and no way out of this machine.

Hypothesis profiles, chosen by ``HYPOTHESIS_PROFILE``:

- ``ci`` (default): the same cases every time, so that a failure is always the change's own;
- ``long``: new cases each time, twenty times as many (``make test-long``).
"""

import ipaddress
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "ci", derandomize=True, database=None, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("long", parent=settings.get_profile("ci"), derandomize=False, max_examples=2_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def _is_on_this_machine(address: Any) -> bool:
    if not isinstance(address, tuple):  # a Unix socket
        return True
    try:
        host = ipaddress.ip_address(str(address[0]).partition("%")[0])
    except ValueError:
        return address[0] in {"localhost", ""}
    return host.is_loopback or host.is_unspecified


@pytest.fixture(autouse=True, scope="session")
def _stay_on_this_machine() -> Iterator[None]:
    """Refuse any connection that would leave loopback, whichever library asks for it."""

    def guard(method: str) -> Any:
        original = getattr(socket.socket, method)

        def connect(self: socket.socket, address: Any) -> Any:
            assert _is_on_this_machine(address), f"a test tried to reach {address}"
            return original(self, address)

        return connect

    with pytest.MonkeyPatch.context() as patch:
        for method in ("connect", "connect_ex"):
            patch.setattr(socket.socket, method, guard(method))
        yield
