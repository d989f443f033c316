"""Texts by number: the rows that plain text gives, whatever repeats, and parts that are plain text to every reader."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import fastavro
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heap_assets.heap_connect import text_table
from heap_assets.heap_connect.avro import AvroError, read_batches, read_numbered
from heap_assets.heap_connect.avro_compiled import Reading
from heap_assets.heap_connect.avro_container import read_header
from heap_assets.heap_connect.parts import PendingRows
from heap_assets.heap_connect.text_table import Batch, Texts, TextTable

TEXT = st.none() | st.text(max_size=20) | st.sampled_from(["a", "a longer text that repeats", "éé", "\x00", ""])
SCHEMA = {
    "type": "record",
    "name": "top",
    "fields": [{"name": n, "type": ["null", "string"]} for n in ("x", "y")] + [{"name": "n", "type": "long"}],
}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("wb") as file:
        fastavro.writer(file, SCHEMA, rows, codec="snappy", sync_interval=200)
    return path


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("numbered")


@settings(deadline=None, max_examples=60)
@given(rows=st.lists(st.fixed_dictionaries({"x": TEXT, "y": TEXT, "n": st.integers(0, 9)}), max_size=60))
def test_numbers_stand_for_the_texts_that_a_plain_read_gives(scratch: Path, rows: list[dict[str, Any]]) -> None:
    path = write(scratch / "file.avro", rows)
    texts = Texts()
    batches = list(read_numbered(path, Reading(texts, ("y",)), batch_rows=7))
    assert all(batch.numbered == {"x"} for batch in batches if batch.rows.height)
    spelled = pl.concat([batch.spelled(batch.rows) for batch in batches])
    assert spelled.equals(pl.concat(list(read_batches(path, batch_rows=7))))


@pytest.mark.parametrize("distinct", [3, 400, 20_000], ids=["few", "many", "hardly-any-repeats"])
def test_tables_grow_and_columns_that_do_not_repeat_are_no_longer_looked_up(tmp_path: Path, distinct: int) -> None:
    rows = [{"x": f"text {i * 7919 % distinct}", "y": f"{i % 5}", "n": i} for i in range(20_000)]
    texts = Texts()
    batches = list(read_numbered(write(tmp_path / "f", rows), Reading(texts), batch_rows=3_000))
    spelled = pl.concat([batch.spelled(batch.rows) for batch in batches])
    assert spelled.equals(pl.DataFrame(rows, schema={"x": pl.String, "y": pl.String, "n": pl.Int64}))
    assert texts.table is not None
    looked_up = bool(texts.table.sizes[0])
    assert looked_up is (distinct < 20_000)


def test_a_full_table_is_followed_by_a_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_table, "_MOST_TEXTS", 100)
    rows = [{"x": f"text {i}", "y": "same", "n": i} for i in range(500)]
    batches = list(read_numbered(write(tmp_path / "f", rows), Reading(Texts()), batch_rows=50))
    assert len({id(batch.table) for batch in batches}) > 2
    assert pl.concat([batch.spelled(batch.rows) for batch in batches])["x"].to_list() == [row["x"] for row in rows]


def test_text_that_is_no_text_is_an_error_that_names_the_block(tmp_path: Path) -> None:
    fields = [{"name": n, "type": ["null", "bytes"]} for n in ("x", "y")] + [{"name": "n", "type": "long"}]
    path = tmp_path / "f"
    with path.open("wb") as file:
        fastavro.writer(file, {**SCHEMA, "fields": fields}, [{"x": b"pl\xffin", "y": b"", "n": 1}], codec="null")
    mended = _with_schema(path, SCHEMA)
    with pytest.raises(AvroError, match="block 0: a string in it is not UTF-8"):
        list(read_numbered(mended, Reading(Texts())))


def _with_schema(path: Path, schema: Any) -> Path:
    """Write the file's blocks behind another schema."""
    header = read_header(path)
    blocks = path.read_bytes()[header.blocks_at :]
    other = path.with_name("other.avro")
    with other.open("wb") as file:
        fastavro.writer(file, schema, [], codec="null", sync_marker=header.sync)
    other.write_bytes(other.read_bytes() + blocks)
    return other


EVENTS = st.lists(
    st.fixed_dictionaries(
        {"event_id": st.integers(0, 20), "user_id": st.integers(0, 3), "second": st.integers(0, 30), "plan": TEXT}
    ),
    min_size=1,
    max_size=40,
)


@settings(deadline=None, max_examples=40)
@given(groups=st.lists(EVENTS, min_size=1, max_size=4), numbered=st.lists(st.booleans(), min_size=4, max_size=4))
def test_a_part_holds_the_rows_sorted_as_plain_text(
    scratch: Path, groups: list[list[dict[str, Any]]], numbered: list[bool]
) -> None:
    pending, plain = PendingRows(), []
    for group, by_number in zip(groups, numbered, strict=False):
        begin = datetime(2026, 3, 1, tzinfo=UTC)
        frame = pl.DataFrame(
            [{**row, "time": begin + timedelta(seconds=row["second"])} for row in group],
            schema={"time": pl.Datetime("us", "UTC"), "event_id": pl.Int64, "user_id": pl.Int64, "plan": pl.String},
        ).with_columns(_day=pl.col("time").dt.date())
        plain.append(frame)
        pending.add(_numbered(frame) if by_number else Batch(frame))
    wanted = {**plain[0].schema, "later": pl.Int64()}
    days = pending.write(scratch / "part.parquet", wanted, by_time=True)
    expected = (
        pl.concat(plain)
        .with_columns(later=pl.lit(None, pl.Int64))
        .sort("time", "event_id", "user_id", maintain_order=True)
    )
    assert days == {date(2026, 3, 1): expected.height}
    read = pl.read_parquet(scratch / "part.parquet")
    assert read.schema == wanted
    assert read.equals(expected) or read.sort(pl.all()).equals(expected.sort(pl.all()))
    assert read.select("time", "event_id", "user_id").equals(expected.select("time", "event_id", "user_id"))
    assert str(pq.read_schema(scratch / "part.parquet").field("plan").type) in ("string_view", "large_string", "string")
    assert pending.nbytes == 0


def _numbered(frame: pl.DataFrame) -> Batch:
    table, numbers = TextTable(1), {}
    known: list[str] = []
    for text in frame["plan"].drop_nulls().unique(maintain_order=True):
        known.append(text)
        numbers[text] = len(known)
    data = "".join(known).encode()
    table.make_room(len(known), len(data))
    table.arena[: len(data)] = list(data)
    end = 0
    for number, text in enumerate(known, start=1):
        end += len(text.encode())
        table.ends[number] = end
    table.count[0] = len(known)
    column = pl.Series("plan", [numbers.get(text, 0) for text in frame["plan"]], dtype=pl.UInt32)
    return Batch(frame.with_columns(column), table, frozenset({"plan"}))
