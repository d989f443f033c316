"""Fixtures of the connectors' tests."""

from collections.abc import Iterator

import pytest

pytest.register_assert_rewrite("heap_assets_tests.connectors.kit", "heap_assets_tests.connectors.suite")

from heap_assets_tests.connectors import kit  # noqa: E402  after its asserts are to be rewritten


@pytest.fixture(scope="session")
def senders() -> Iterator[kit.Senders]:
    with kit.senders() as processes:
        yield processes
