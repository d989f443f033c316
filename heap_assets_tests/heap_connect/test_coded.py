"""Parquet written from numbers of texts: what every reader reads is what Polars would have written."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import fastavro
import polars as pl
import pyarrow.parquet as pq
import pytest
from dump_builders import Bucket, event, land_all, landing_in
from hypothesis import given, settings
from hypothesis import strategies as st

from heap_assets.heap_connect import build_event_day, staging, text_table
from heap_assets.heap_connect.avro import read_numbered
from heap_assets.heap_connect.avro_compiled import Reading
from heap_assets.heap_connect.parquet_columns import Pool, TextColumn
from heap_assets.heap_connect.parquet_file import FOR_LATER, TO_KEEP, edges_of, write_file
from heap_assets.heap_connect.text_table import TextTable
from heap_assets.heap_connect.values import read_times
from heap_assets.lake import Lake

SCHEMA = pl.Schema(
    {
        "text": pl.String(),
        "whole": pl.Int64(),
        "real": pl.Float64(),
        "yes": pl.Boolean(),
        "day": pl.Date(),
        "moment": pl.Datetime("us", "UTC"),
        "local": pl.Datetime("us"),
    }
)
MOMENTS = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31))
ROW = st.fixed_dictionaries(
    {
        "text": st.none() | st.text(max_size=30) | st.sampled_from(["", "a", "a text of some length", "éé\x00"]),
        "whole": st.none() | st.integers(-(2**63), 2**63 - 1),
        "real": st.none() | st.floats(allow_nan=False),
        "yes": st.none() | st.booleans(),
        "day": st.none() | st.dates(),
        "moment": st.none() | MOMENTS.map(lambda moment: moment.replace(tzinfo=UTC)),
        "local": st.none() | MOMENTS,
    }
)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("coded")


@settings(deadline=None, max_examples=80)
@given(rows=st.lists(ROW, max_size=50), group=st.integers(1, 60), keep=st.booleans())
def test_every_reader_reads_what_was_written(scratch: Path, rows: list[dict[str, Any]], group: int, keep: bool) -> None:
    frame = pl.DataFrame(rows, schema=SCHEMA)
    path = scratch / "file.parquet"

    def column(name: str) -> TextColumn | pl.Series:
        return TextColumn.of(frame[name]) if name == "text" else frame[name]

    edges = edges_of([frame.height] if rows else [], group)
    write_file(path, SCHEMA, column, edges, TO_KEEP if keep else FOR_LATER, {"about": "us"})
    assert pl.read_parquet(path).equals(frame)
    assert pl.read_parquet_schema(path) == SCHEMA
    assert pl.scan_parquet(path).filter(pl.col("whole") > 0).collect().equals(frame.filter(pl.col("whole") > 0))
    assert pl.read_parquet_metadata(path)["about"] == "us"
    table = pq.read_table(path)
    table.validate(full=True)
    assert pl.DataFrame(table).equals(frame)
    told = duckdb.sql(f"select count(*), count(text), sum(whole), max(real), min(day) from '{path}'").fetchall()[0]
    real, day = frame["real"].max(), frame["day"].min()
    whole = sum(row["whole"] or 0 for row in rows) if frame["whole"].count() else None
    assert told == (frame.height, frame["text"].count(), whole, real, day)


def test_groups_are_equal_parts_that_keep_to_the_days() -> None:
    assert edges_of([5, 0, 3], 2) == [0, 1, 3, 5, 6, 8]
    assert edges_of([], 2) == [0]


def shaped(event_id: int, user_id: int, second: int, text: str | None, shape: int) -> dict[str, Any]:
    """Return an event with custom columns that come, go, and change their type from dump to dump."""
    moment = datetime(2026, 3, 1) + timedelta(seconds=second)
    more: dict[str, Any] = {"title": text, "plan": user_id if shape == 3 else text}
    if shape == 1:
        del more["title"]
    if shape == 2:
        more |= {"paid": None if user_id else event_id % 2 == 0, "price": event_id / 2}
    return event(event_id, f"{moment:%Y-%m-%d %H:%M:%S.%f}", user_id, **more)


EVENTS = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.integers(0, 200_000),
        st.none() | st.sampled_from(["x", "longer text", ""]) | st.text(max_size=20),
        st.integers(0, 200),
    ),
    min_size=1,
    max_size=40,
)


@settings(deadline=None, max_examples=30)
@given(
    dumps=st.lists(EVENTS, min_size=1, max_size=3),
    shapes=st.lists(st.integers(0, 3), min_size=3, max_size=3),
    repeated=st.booleans(),
    small_parts=st.booleans(),
    little_repeats=st.booleans(),
)
def test_a_day_written_from_numbers_is_the_frame_of_that_day(
    tmp_path_factory: pytest.TempPathFactory,
    dumps: list[list[tuple[int, int, str | None, int]]],
    shapes: list[int],
    repeated: bool,
    small_parts: bool,
    little_repeats: bool,
) -> None:
    bucket = Bucket(tmp_path_factory.mktemp("bucket"))
    for number, (events, shape) in enumerate(zip(dumps, shapes, strict=False), start=1):
        ids = [again if repeated else number * 1_000 + place for place, (_, _, _, again) in enumerate(events)]
        rows = [shaped(i, user, second, text, shape) for i, (user, second, text, _) in zip(ids, events, strict=True)]
        bucket.dump(number, f"2026-03-0{3 + number} 05:00:00", signup=[rows[:20], rows[20:]] if rows[20:] else rows)
    landed = landing_in(tmp_path_factory.mktemp("lake"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(staging, "_PART_BYTES", 1 if small_parts else 80 << 20)
        patch.setattr(text_table, "_MANY", 4 if little_repeats else 1_000)
        assert not any(report.failed for report in land_all(landed, bucket))
    lake = Lake(landed.store)
    for day in landed.days("signup"):
        for columns in (None, ["plan", "title", "never_seen"]):
            built = build_event_day(landed, "signup", day, columns)
            lake.write("signup", str(day), built.writer)
            assert lake.scan("signup", str(day)).collect().equals(built.frame.collect())
            assert built.write_fast() is not None or repeated or len(set(shapes)) > 1


def test_text_that_was_said_before_has_one_number_in_every_table(tmp_path: Path) -> None:
    pool, tables = Pool(), [TextTable(1), TextTable(1)]
    for table, known in zip(tables, (["a", "b"], ["b", "c", "a"]), strict=True):
        for text in known:
            _add(table, text)
    pool.take(tables)
    first, second = pool.numbers(tables[0]).tolist(), pool.numbers(tables[1]).tolist()
    assert first[0] == second[0] == 0
    assert first[1:] == [second[3], second[1]]
    _add(tables[0], "c")
    pool.take(tables)
    assert pool.numbers(tables[0]).tolist() == [*first, second[2]]
    pool.take(tables[1:])
    assert pool.numbers(tables[1]).tolist() == [0, 1, 2, 3]


def _add(table: TextTable, text: str) -> None:
    data = text.encode()
    table.make_room(1, len(data))
    count = int(table.count[0])
    end = int(table.ends[count])
    table.arena[end : end + len(data)] = list(data)
    table.ends[count + 1] = end + len(data)
    table.count[0] = count + 1


SPELLINGS = st.one_of(
    st.datetimes().map(lambda moment: f"{moment:%H:%M:%S.%f}".join([f"{moment.year:04}-{moment:%m-%d} ", ""])),
    st.datetimes().map(lambda moment: f"{moment.year:04}-{moment:%m-%d %H:%M:%S}"),
    st.tuples(st.datetimes(), st.integers(0, 6)).map(
        lambda pair: f"{pair[0].year:04}-{pair[0]:%m-%d %H:%M:%S}.{f'{pair[0]:%f}'[: pair[1]]}"
    ),
    st.from_regex(r"[0-9]{4}-[0-3][0-9]-[0-3][0-9] [0-2][0-9]:[0-6][0-9]:[0-6][0-9](\.[0-9]{0,9})?", fullmatch=True),
    st.sampled_from(["2024-02-29 00:00:00", "2023-02-29 00:00:00", "1900-02-29 00:00:00", "2000-02-29 23:59:59.5"]),
    st.text(max_size=27),
)


@settings(deadline=None, max_examples=200)
@given(spelled=st.lists(st.none() | SPELLINGS, min_size=1, max_size=3))
def test_times_are_read_as_the_slow_way_reads_them(scratch: Path, spelled: list[str | None]) -> None:
    path = scratch / "times.avro"
    fields = [{"name": "time", "type": ["null", "string"]}, {"name": "other", "type": ["null", "string"]}]
    with path.open("wb") as file:
        rows = [{"time": text, "other": text} for text in spelled]
        fastavro.writer(file, {"type": "record", "name": "top", "fields": fields}, rows, sync_interval=1)
    batches = list(read_numbered(path, Reading(times=("time",))))
    expected = read_times(pl.Series("time", spelled, dtype=pl.String)).values
    assert read_times(pl.concat([batch.rows["time"] for batch in batches])).values.equals(expected)
    for batch in batches:
        assert batch.original is not None
        assert batch.original()["time"].to_list() == spelled


def test_what_is_set_aside_is_told_as_the_file_spells_it(tmp_path: Path) -> None:
    bucket = Bucket(tmp_path / "bucket")
    bad = {"event_id": None, "user_id": 2, "session_id": None, "time": "2026-03-01 12:30:00.5", "plan": "pro"}
    bucket.dump(1, "2026-03-02 05:00:00", signup=[event(1, "2026-03-01 12:00:00", plan="free"), bad])
    landed = landing_in(tmp_path / "lake")
    assert land_all(landed, bucket)[0].tables[0].counts.rejected == 1
    keys = landed.records()[1].tables["signup"].rejected_keys
    content = landed.store.scan(keys[0]).collect()["content"].to_list()
    assert [json.loads(text) for text in content] == [bad]
