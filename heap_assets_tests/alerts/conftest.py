"""Instances of these tests live for seconds: SQLite need not wait for the disk at each of their events."""

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy


def _do_not_wait_for_the_disk(connection: Any, _: object) -> None:
    connection.execute("PRAGMA synchronous=OFF")


@pytest.fixture(autouse=True, scope="session")
def hasty_sqlite() -> Iterator[None]:
    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", _do_not_wait_for_the_disk)
    yield
    sqlalchemy.event.remove(sqlalchemy.Engine, "connect", _do_not_wait_for_the_disk)
