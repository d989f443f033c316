"""Compiled loops run with bounds checks; tests that take longest start first, so that the other worker does the rest.

Numba does not keep code with and without checks apart: that with checks has a folder of its own. Processes that tests
start inherit both.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ["NUMBA_BOUNDSCHECK"] = "1"
os.environ["NUMBA_CACHE_DIR"] = str(Path(__file__).parent.parent / ".numba_cache")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: "end_to_end" not in item.nodeid)
