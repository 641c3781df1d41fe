# SPDX-License-Identifier: AGPL-3.0-or-later
"""Simulated nodes say what they do to nobody: thousands of them would fill the log, and rendering it takes longer."""

from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True, scope="session")
def _silence() -> Iterator[None]:
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    yield
    structlog.configure(**before)
