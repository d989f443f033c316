"""Partitions know what they were built from; what has seen more is never overwritten."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from heap_assets.errors import MissingInputError, StaleWriterError
from heap_assets.lake import Inputs, Lake, Status, Store

ROWS = pl.DataFrame({"a": [1, 2]})


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake.open(str(tmp_path))


def test_equal_inputs_write_nothing(lake: Lake) -> None:
    inputs = Inputs({"dump 1": "x"}, frozenset({"dump 1"}))
    first = lake.write("heap/users", "2026-01-01", ROWS, inputs)
    again = lake.write("heap/users", "2026-01-01", ROWS.head(1), inputs)
    assert (first.status, again.status) == (Status.WRITTEN, Status.UNCHANGED)
    assert again.partition.version == first.partition.version
    assert lake.scan("heap/users", "2026-01-01").collect().height == 2


def test_a_writer_that_has_seen_less_is_refused(lake: Lake) -> None:
    lake.write("heap/users", "2026-01-01", ROWS, Inputs({"dump 2": "y"}, frozenset({"dump 1", "dump 2"})))
    with pytest.raises(StaleWriterError, match="dump 2"):
        lake.write("heap/users", "2026-01-01", ROWS, Inputs({"dump 1": "x"}, frozenset({"dump 1"})))


def test_a_missing_partition_is_not_an_empty_one(lake: Lake) -> None:
    lake.write("heap/users", "2026-01-01", ROWS.clear())
    assert lake.scan("heap/users", "2026-01-01").collect().schema == ROWS.schema
    with pytest.raises(MissingInputError, match="2026-01-02"):
        lake.scan("heap/users", ["2026-01-01", "2026-01-02"])


def test_partitions_of_different_columns_are_one_frame(lake: Lake) -> None:
    lake.write("t", "2026-01-01", ROWS)
    lake.write("t", "2026-01-02", ROWS.with_columns(b=pl.lit("x")))
    both = lake.scan("t", ["2026-01-01", "2026-01-02"]).collect()
    assert both["b"].to_list() == [None, None, "x", "x"]


def test_nothing_half_written_is_visible(lake: Lake) -> None:
    broken = ROWS.lazy().with_columns(pl.lit("x").str.to_integer())
    with pytest.raises(pl.exceptions.PolarsError):
        lake.write("t", "2026-01-01", broken)
    assert lake.partitions("t") == []
    assert lake.store.list() == []


def test_only_the_first_creates(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    assert store.create("lease", b"a")
    assert not store.create("lease", b"b")
    assert store.read("lease") == b"a"
