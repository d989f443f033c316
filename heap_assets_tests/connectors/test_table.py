"""The table of connectors and cases in the docs."""

from __future__ import annotations

from heap_assets_tests.connectors import table


def test_the_table_of_connectors_and_cases_is_current() -> None:
    assert table.PAGE.read_text() == table.page(), "python -m heap_assets_tests.connectors.table writes it"
