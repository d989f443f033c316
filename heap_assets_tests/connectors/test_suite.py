"""The suite itself: its table in the docs."""

from __future__ import annotations

from heap_assets_tests.connectors import suite


def test_the_table_of_connectors_and_cases_is_current() -> None:
    assert suite.PAGE.read_text() == suite.page(), "python -m heap_assets_tests.connectors.suite writes it"
