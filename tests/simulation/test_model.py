# SPDX-License-Identifier: AGPL-3.0-or-later
"""The model of the decision (docs/specification/model), checked by spin in every order in which things can happen."""

from pathlib import Path

import pytest
from model_kit import DEFECTS, HOLDS, HOLDS_LONG, INSTALL, MISSING, Run, run_spin

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"{' and '.join(MISSING)} missing; as root, run: {INSTALL}")


def name_of(run: Run) -> str:
    return run.name


@pytest.mark.parametrize("run", HOLDS, ids=name_of)
def test_every_property_holds(run: Run, tmp_path: Path) -> None:
    verify(run, tmp_path)


@pytest.mark.long
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("run", HOLDS_LONG, ids=name_of)
def test_every_property_holds_in_the_large(run: Run, tmp_path: Path) -> None:
    verify(run, tmp_path)


def verify(run: Run, folder: Path) -> None:
    result = run_spin(run, folder)
    assert result.broken is None
    assert result.is_complete
    assert run.ends <= result.ends


@pytest.mark.parametrize("run", DEFECTS, ids=name_of)
def test_the_defect_is_found(run: Run, tmp_path: Path) -> None:
    """What the protocol forbids does break it: so the properties can fail, and the model can find it."""
    assert run.breaks is not None
    assert run_spin(run, tmp_path).broken == run.breaks
