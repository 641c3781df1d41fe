# SPDX-License-Identifier: AGPL-3.0-or-later
"""The page of the domains' routes is what the code writes."""

import importlib.util
from pathlib import Path


def test_the_page_of_reads_is_up_to_date() -> None:
    path = Path(__file__).parents[2] / "tools" / "write_http.py"
    spec = importlib.util.spec_from_file_location("write_http", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text(encoding="utf-8") == module.write_page(), "run: python tools/write_http.py"
