"""Rows by number: one per link and source, whatever comes in which order and in how many pieces."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heap_assets.identity import MemoryLimitError
from heap_assets.identity.engine.native import rows as rows_module
from heap_assets.identity.engine.native.kernel import NONE
from heap_assets.identity.engine.native.rows import Rows, RowTable, match_rows
from heap_assets_tests.examples import examples

Row = tuple[int, int, int, int, int, bool]
ENDS = st.integers(0, 4)
ROW = st.tuples(
    ENDS, ENDS | st.just(int(NONE)), st.integers(0, 2), st.integers(-5, 5), st.integers(-5, 5), st.booleans()
)


def added(batches: list[list[Row]]) -> Rows:
    table = RowTable()
    for batch in batches:
        columns = list(zip(*batch, strict=True)) or [()] * 6
        a, b = (np.array(end, np.uint32) for end in columns[:2])
        first, last = (np.array(time, np.int64) for time in columns[3:5])
        tag = (np.array(columns[2], np.uint16) * 2 + np.array(columns[5], np.uint16)).astype(np.uint16)
        table.add(a, b, first, last, tag)
    return table.rows


def told(rows: Rows) -> dict[tuple[int, int, int], tuple[int, int, bool]]:
    found = zip(*(column.tolist() for column in (rows.a, rows.b, rows.first, rows.last, rows.tag)), strict=True)
    listed = [((a, b, tag >> 1), (first, last, bool(tag & 1))) for a, b, first, last, tag in found]
    assert len(dict(listed)) == len(listed)
    return dict(listed)


def expected(rows: list[Row]) -> dict[tuple[int, int, int], tuple[int, int, bool]]:
    found: dict[tuple[int, int, int], tuple[int, int, bool]] = {}
    for a, b, source, first, last, decided in rows:
        before = found.get((a, b, source), (first, last, decided))
        found[a, b, source] = (min(before[0], first), max(before[1], last), before[2] or decided)
    return found


@settings(deadline=None, max_examples=examples(150))
@given(st.lists(st.lists(ROW, max_size=60), max_size=5))
def test_a_row_that_is_there_is_widened(batches: list[list[Row]]) -> None:
    assert told(added(batches)) == expected([row for batch in batches for row in batch])


def test_a_table_that_grows_forgets_nothing() -> None:
    dice = np.random.default_rng(1)
    numbers = dice.integers(0, 3000, (40_000, 2))
    rows = [(int(a), int(b), int(a + b) % 7, n % 11, n % 13, n % 17 == 0) for n, (a, b) in enumerate(numbers)]
    assert told(added([rows[at : at + 1500] for at in range(0, len(rows), 1500)])) == expected(rows)


def test_rows_are_found_by_their_ends_and_source_only() -> None:
    rows = added([[(1, 2, 0, 0, 0, False), (1, 2, 1, 0, 0, True), (2, int(NONE), 0, 0, 0, False)]])
    links = added([[(2, int(NONE), 0, 9, 9, True), (1, 2, 1, 9, 9, False), (2, 1, 0, 9, 9, False)]])
    found = np.full(3, NONE, np.uint32)
    match_rows(
        np.arange(3, dtype=np.uint32), rows.a, rows.b, rows.tag, links.a, links.b, links.tag, links.table(), found
    )
    assert found.tolist() == [int(NONE), 1, 0]


def test_rows_that_32_bits_do_not_number_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "MOST_ROWS", 100)
    table, ends = RowTable(), np.arange(60, dtype=np.uint32)
    seen, tag = np.zeros(60, np.int64), np.zeros(60, np.uint16)
    table.add(ends, ends, seen, seen, tag)
    with pytest.raises(MemoryLimitError, match="numbers 100 at most: resolve them on Spark"):
        table.add(ends, ends, seen, seen, tag)
