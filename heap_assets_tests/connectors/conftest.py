"""Fixtures of the connectors' tests."""

from collections.abc import Iterator

import pytest

from heap_assets_tests.connectors import kit


@pytest.fixture(scope="session")
def senders() -> Iterator[kit.Senders]:
    with kit.senders() as processes:
        yield processes
