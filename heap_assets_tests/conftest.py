"""Compiled loops run with bounds checks; tests that wait longest start first, beside all others.

Numba does not keep code with and without checks apart: that with checks has a folder of its own. Processes that tests
start inherit both.

SQLite does not wait for the disk at each event: instances of tests live for seconds.

Secrets that the tests of one module register are blanked in that module only: "secret" is a secret of some.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from heap_assets import redaction

pytest.register_assert_rewrite("heap_assets_tests.connectors.kit", "heap_assets_tests.connectors.suite")
os.environ["NUMBA_BOUNDSCHECK"] = "1"
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else hundreds of processes would each compile the package
os.environ["NUMBA_CACHE_DIR"] = str(Path(__file__).parent.parent / ".numba_cache")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    longest = (
        *("/end_to_end/", "/foreign/", "/dbt/", "/machines/", "/torture/", "test_tutorial", "test_wheel"),
        *("test_timeline", "test_spark", "test_against_retentioneering", "test_upgrade", "/live/", "test_queries"),
    )
    items.sort(key=lambda item: not any(name in item.nodeid for name in longest))


def _do_not_wait_for_the_disk(connection: Any, _: object) -> None:
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous=OFF")


@pytest.fixture(autouse=True, scope="session")
def hasty_sqlite() -> Iterator[None]:
    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", _do_not_wait_for_the_disk)
    yield
    sqlalchemy.event.remove(sqlalchemy.Engine, "connect", _do_not_wait_for_the_disk)


@pytest.fixture(autouse=True, scope="module")
def secrets_of_one_module() -> Iterator[None]:
    before = redaction._secrets
    redaction._secrets = type(before)()
    redaction._secrets.add(before._forms)
    yield
    redaction._secrets = before
