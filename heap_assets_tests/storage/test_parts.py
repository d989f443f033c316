"""A table of several files is the same table: through every reader, while it is replaced, and when parts are gone."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from heap_assets.errors import DamagedFileError, StaleWriterError
from heap_assets.quality.engine import CheckContext
from heap_assets.storage import Inputs, Lake, LakeSql, OverlayStore, Parts, Status, parts_folder, table_of_part

SCHEMA = pl.Schema({"key": pl.String(), "at": pl.Datetime("us", "UTC"), "n": pl.Int64(), "shared": pl.Boolean()})
ASSET, DAYS = "identity/graph", ("2026-11-01", "2026-11-02", "2026-11-03")


def write_parts(lake: Lake, day: str, frames: Sequence[pl.DataFrame], run: str = "run", **options: object) -> Parts:
    """Store frames as the parts of a partition, and its marker."""
    keys = [f"{parts_folder(ASSET, day, run)}/piece={number}/part.parquet" for number, _ in enumerate(frames)]
    for key, frame in zip(keys, frames, strict=True):
        lake.store.sink(key, frame)
    parts = Parts(SCHEMA, tuple(keys), sum(frame.height for frame in frames))
    lake.write(ASSET, day, parts, **options)  # type: ignore[arg-type]
    return parts


rows = st.tuples(
    st.one_of(st.none(), st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=4)),
    st.one_of(st.none(), st.datetimes(datetime(2020, 1, 1), datetime(2026, 1, 1), timezones=st.just(UTC))),
    st.one_of(st.none(), st.integers(-5, 5)),
    st.one_of(st.none(), st.booleans()),
)


@st.composite
def tables(draw: st.DrawFn) -> list[list[pl.DataFrame]]:
    """Draw three days of a table, each cut into any number of files."""
    days = []
    for _ in DAYS:
        frame = pl.DataFrame(draw(st.lists(rows, max_size=12)), schema=SCHEMA, orient="row")
        cuts = sorted(draw(st.lists(st.integers(0, frame.height), max_size=3)))
        edges = [0, *cuts, frame.height]
        days.append([frame.slice(start, end - start) for start, end in pairwise(edges)])
    return days


@settings(max_examples=25, deadline=None)
@given(tables(), st.sets(st.sampled_from(DAYS)))
def test_a_table_of_several_files_reads_as_the_same_table_of_one(days: list[list[pl.DataFrame]], cut: set[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        whole, parted = Lake.open(f"{folder}/whole"), Lake.open(f"{folder}/parted")
        options = {"inputs": Inputs({"a": "1"}, frozenset("a")), "notes": {"why": "test"}}
        for day, frames in zip(DAYS, days, strict=True):
            table = pl.concat(frames)
            whole.write(ASSET, day, table, **options)  # type: ignore[arg-type]
            if day in cut:
                write_parts(parted, day, frames, **options)
            else:
                parted.write(ASSET, day, table, **options)  # type: ignore[arg-type]
        overlay = Lake(OverlayStore(parted.store, Path(folder, "overlay")))
        for lake in (parted, overlay):
            assert lake.partitions(ASSET) == [*DAYS]
            for asked in (*DAYS, list(DAYS)):
                assert_frame_equal(lake.scan(ASSET, asked).collect(), whole.scan(ASSET, asked).collect())
            some = SCHEMA_OF_SOME
            assert_frame_equal(
                lake.scan(ASSET, DAYS, schema=some).collect(), whole.scan(ASSET, DAYS, schema=some).collect()
            )
            named = [
                pl.concat(one.scan_tables({"t": (ASSET, DAYS)}, ["key", "n"], "table"), how="diagonal").collect()
                for one in (lake, whole)
            ]
            assert_frame_equal(named[0], named[1], check_row_order=False)
            for day in DAYS:
                found, expected = lake.find(ASSET, day), whole.find(ASSET, day)
                assert found is not None
                assert expected is not None
                assert (found.rows, found.inputs, found.notes) == (expected.rows, expected.inputs, expected.notes)
                checked = [CheckContext(one, ASSET, day).rows().collect() for one in (lake, whole)]
                assert_frame_equal(*checked)
        with LakeSql(f"{folder}/whole") as one, LakeSql(f"{folder}/parted") as other:
            for view in ("identity.graph", "latest.identity_graph"):
                statement = f"SELECT * FROM {view} ORDER BY ALL"
                assert_frame_equal(other.sql(statement), one.sql(statement))
            assert other.tables() == one.tables()


SCHEMA_OF_SOME = pl.Schema({"n": pl.Int64(), "key": pl.String(), "new": pl.Int8()})
FRAMES = [
    pl.DataFrame({"key": [letter], "n": [1]}, schema_overrides=SCHEMA).select(
        pl.col(name) if name in ("key", "n") else pl.lit(None, dtype).alias(name) for name, dtype in SCHEMA.items()
    )
    for letter in "abc"
]
DAY = DAYS[0]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake.open(str(tmp_path))


def keys_of(lake: Lake) -> list[str]:
    return lake.scan(ASSET, DAY).collect()["key"].to_list()


def test_parts_without_a_marker_are_read_by_nobody(lake: Lake) -> None:
    lake.write(ASSET, DAY, FRAMES[0])
    lake.store.sink(f"{parts_folder(ASSET, DAY, 'killed')}/part.parquet", FRAMES[1])
    assert keys_of(lake) == ["a"]
    with LakeSql(lake.store.url) as sql:
        assert sql.sql("SELECT key FROM identity.graph")["key"].to_list() == ["a"]


def test_equal_inputs_leave_the_marker_and_a_stale_writer_is_refused(lake: Lake) -> None:
    inputs = Inputs({"dump 1": "x"}, frozenset({"dump 1"}))
    write_parts(lake, DAY, FRAMES[:2], inputs=inputs)
    version = lake.versions(ASSET)[DAY]
    parts = write_parts(lake, DAY, FRAMES, run="second", inputs=inputs)
    assert lake.versions(ASSET)[DAY] == version
    assert keys_of(lake) == ["a", "b"]
    assert lake.write(ASSET, DAY, parts, Inputs({"dump 1": "y"}, frozenset({"dump 1"}))).status is Status.WRITTEN
    assert keys_of(lake) == ["a", "b", "c"]
    with pytest.raises(StaleWriterError):
        lake.write(ASSET, DAY, parts, Inputs({"dump 2": "y"}))


def test_no_parts_are_an_empty_table(lake: Lake) -> None:
    write_parts(lake, DAY, [])
    assert lake.scan(ASSET, DAY).collect_schema() == SCHEMA
    assert keys_of(lake) == []


def test_a_part_that_is_gone_or_damaged_is_named_and_not_taken_for_no_rows(lake: Lake) -> None:
    parts = write_parts(lake, DAY, FRAMES)
    path = lake.store.local_path(parts.keys[1])
    assert path is not None
    data = path.read_bytes()
    path.write_bytes(data[:40] + bytes([data[40] ^ 1]) + data[41:])
    with pytest.raises(DamagedFileError, match=r"piece=1/part\.parquet is damaged"):
        lake.scan(ASSET, DAY)
    path.unlink()
    for read in (lake.scan, lake.find):
        with pytest.raises(DamagedFileError, match=r"piece=1/part\.parquet is gone, which .*2026-11-01\.parquet names"):
            read(ASSET, DAY)
    lake.write("profiles", DAY, FRAMES[0])
    with LakeSql(lake.store.url) as sql:
        assert sql.tables() == ["latest.profiles", "main.profiles"]
        assert "is gone" in sql.unreadable[ASSET]


def test_what_no_marker_names_is_tidied_after_a_day_and_a_job_that_goes_on_is_left(lake: Lake) -> None:
    old = write_parts(lake, DAY, FRAMES[:1], run="first")
    new = write_parts(lake, DAY, FRAMES[:2], run="second")
    running = [f"{parts_folder(ASSET, DAY, 'running')}/{name}" for name in ("a.parquet", "b.parquet")]
    for key in running:
        lake.store.sink(key, FRAMES[0])
    lake.store.write(f"{parts_folder(ASSET, DAY, 'first')}/_SUCCESS", b"")
    assert lake.tidy_parts() == 0
    long_ago = time.time() - 25 * 3600
    for info in lake.store.list("_parts"):
        path = lake.store.local_path(info.key)
        assert path is not None
        if info.key != running[1]:
            os.utime(path, (long_ago, long_ago))
    assert lake.tidy_parts() == 2
    assert not lake.store.exists(old.keys[0])
    assert {info.key for info in lake.store.list("_parts")} == {*new.keys, *running}
    assert keys_of(lake) == ["a", "b"]
    lake.delete(ASSET, DAY)
    assert lake.store.list("_parts") == []
    assert lake.find(ASSET, DAY) is None


@pytest.mark.parametrize(
    ("key", "table"),
    [
        ("_parts/identity/graph/2026-11-01/r1/part.parquet", ("identity/graph", "2026-11-01")),
        ("_parts/profiles/2026-11-01/r1/piece=1/x=2/part.parquet", ("profiles", "2026-11-01")),
        ("_parts/heap/events/a=b/2026-11-01/r1/part.parquet", ("heap/events/a=b", "2026-11-01")),
        ("_parts/part.parquet", None),
        ("identity/graph/2026-11-01.parquet", None),
    ],
)
def test_a_part_says_of_which_partition_it_is(key: str, table: tuple[str, str] | None) -> None:
    assert table_of_part(key) == table
