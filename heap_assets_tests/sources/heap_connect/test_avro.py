"""Decoding: polars-avro and fastavro give equal rows, and a damaged file is an error that names its block."""

from __future__ import annotations

import io
import json
import math
import uuid
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import cramjam
import fastavro
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heap_assets.sources.heap_connect import avro
from heap_assets.sources.heap_connect.avro import AvroError, blocks_of, other_batches, read_batches
from heap_assets.sources.heap_connect.avro_container import Limits, read_header
from heap_assets.sources.heap_connect.avro_schema import parse_schema

LONGS = st.integers(-(2**63), 2**63 - 1)
KINDS: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "boolean": ("boolean", st.booleans()),
    "int": ("int", st.integers(-(2**31), 2**31 - 1)),
    "long": ("long", LONGS),
    "float": ("float", st.floats(width=32, allow_nan=False)),
    "double": ("double", st.floats(allow_nan=False)),
    "string": ("string", st.text(max_size=40)),
    "bytes": ("bytes", st.binary(max_size=40)),
    "enum": ({"type": "enum", "name": "E", "symbols": ["a", "b", "c"]}, st.sampled_from("abc")),
    "fixed": ({"type": "fixed", "name": "F", "size": 5}, st.binary(min_size=5, max_size=5)),
    "date": ({"type": "int", "logicalType": "date"}, st.dates(date(1900, 1, 1))),
    "millis": (
        {"type": "long", "logicalType": "timestamp-millis"},
        st.datetimes(datetime(1900, 1, 1)).map(lambda t: t.replace(microsecond=0, tzinfo=UTC)),
    ),
    "micros": (
        {"type": "long", "logicalType": "timestamp-micros"},
        st.datetimes(datetime(1900, 1, 1)).map(lambda t: t.replace(tzinfo=UTC)),
    ),
    "array": ({"type": "array", "items": ["null", "string"]}, st.lists(st.none() | st.text(max_size=5), max_size=3)),
    "record": (
        {"type": "record", "name": "R", "fields": [{"name": "x", "type": ["null", "long"]}]},
        st.fixed_dictionaries({"x": st.none() | LONGS}),
    ),
}
FLAT = [kind for kind in KINDS if kind not in {"array", "record", "float"}]


def write(
    path: Path, fields: dict[str, Any], rows: list[dict[str, Any]], codec: str = "snappy", interval: int = 200
) -> Path:
    schema = {"type": "record", "name": "top", "fields": [{"name": n, "type": k} for n, k in fields.items()]}
    with path.open("wb") as file:
        fastavro.writer(file, schema, rows, codec=codec, sync_interval=interval)
    return path


def read(path: Path, batch_rows: int = 7) -> pl.DataFrame:
    return pl.concat([batch.rows for batch in read_batches(path, batch_rows=batch_rows)])


def read_slowly(path: Path) -> pl.DataFrame:
    header = read_header(path)
    schema = parse_schema(header.schema)
    batches = other_batches(schema, blocks_of(path, header, schema, Limits()), 7)
    frames = [batch.rows for batch in batches]
    return pl.concat(frames) if frames else pl.DataFrame(schema=schema.dtypes)


@st.composite
def files(draw: st.DrawFn, kinds: list[str]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    chosen = draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=6, unique=True))
    fields, values = {}, {}
    for kind in chosen:
        spelled, strategy = KINDS[kind]
        shape = draw(st.sampled_from(["bare", "null first", "null last"]))
        fields[kind] = {"bare": spelled, "null first": ["null", spelled], "null last": [spelled, "null"]}[shape]
        values[kind] = strategy if shape == "bare" else st.none() | strategy
    return fields, draw(st.lists(st.fixed_dictionaries(values), max_size=30))


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files(FLAT), st.sampled_from(["null", "deflate", "snappy"]))
def test_flat_rows_are_the_same_from_both_readers(tmp_path: Path, content: Any, codec: str) -> None:
    fields, rows = content
    path = write(tmp_path / "a.avro", fields, rows, codec)
    fast = read(path)
    assert fast.equals(read_slowly(path))
    assert fast.schema == read_slowly(path).schema
    assert fast.rows(named=True) == rows


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files(list(KINDS)))
def test_nested_rows_come_back_as_they_were(tmp_path: Path, content: Any) -> None:
    fields, rows = content
    assert read(write(tmp_path / "a.avro", fields, rows)).rows(named=True) == rows


@pytest.mark.parametrize("codec", ["null", "deflate", "snappy", "bzip2", "xz"])
def test_every_codec_gives_the_same_rows(tmp_path: Path, codec: str) -> None:
    rows = [{"x": "ä" * (i % 30)} for i in range(500)]
    assert read(write(tmp_path / "a.avro", {"x": "string"}, rows, codec), 100).rows(named=True) == rows


def test_zstandard_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.avro", {"x": "string"}, [{"x": "abc"}], "null")
    header = read_header(path)
    data = bytes(cramjam.zstd.compress(b"\x06abc" * 5))
    file = io.BytesIO()
    meta = {"avro.schema": json.dumps(header.schema), "avro.codec": "zstandard"}
    schema = {"type": "map", "values": "bytes"}
    file.write(b"Obj\x01")
    fastavro.schemaless_writer(file, schema, {k: v.encode() for k, v in meta.items()})
    file.write(header.sync)
    fastavro.schemaless_writer(file, "long", 5)
    fastavro.schemaless_writer(file, "bytes", data)
    file.write(header.sync)
    path.write_bytes(file.getvalue())
    assert read(path)["x"].to_list() == ["abc"] * 5


def test_unions_of_several_types_are_text(tmp_path: Path) -> None:
    rows = [{"x": "7"}, {"x": 2**53 + 1}, {"x": None}, {"x": True}, {"x": 1.5}]
    found = read(write(tmp_path / "a.avro", {"x": ["null", "string", "long", "boolean", "double"]}, rows))
    assert found["x"].to_list() == ["7", "9007199254740993", None, "true", "1.5"]


def test_logical_types(tmp_path: Path) -> None:
    kinds = {
        "d": {"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2},
        "u": {"type": "string", "logicalType": "uuid"},
        "t": {"type": "int", "logicalType": "time-millis"},
        "m": {"type": "map", "values": "long"},
        "n": "null",
        "unknown": {"type": "long", "logicalType": "made-up"},
    }
    some = uuid.uuid4()
    row = {"d": Decimal("1.25"), "u": some, "t": time(1, 2, 3), "m": {"k": 1}, "n": None, "unknown": 4}
    found = read(write(tmp_path / "a.avro", kinds, [row]))
    assert found.row(0) == (Decimal("1.25"), str(some), time(1, 2, 3), [{"key": "k", "value": 1}], None, 4)


def test_floats_keep_their_bits(tmp_path: Path) -> None:
    rows = [{"x": v} for v in (math.inf, -0.0, 5e-324, 1.7976931348623157e308)]
    found = read(write(tmp_path / "a.avro", {"x": "double"}, rows))
    assert [math.copysign(1, v) for v in found["x"]] == [1, -1, 1, 1]
    assert found["x"].to_list() == [r["x"] for r in rows]


def test_a_file_without_rows_has_its_columns(tmp_path: Path) -> None:
    found = read(write(tmp_path / "a.avro", {"x": ["null", "long"]}, []))
    assert found.schema == {"x": pl.Int64()}
    assert found.height == 0


@pytest.mark.parametrize("codec", ["snappy", "deflate", "null"])
@pytest.mark.parametrize("kind", ["string", {"type": "array", "items": "string"}])
def test_a_file_cut_anywhere_is_an_error_and_never_fewer_rows(tmp_path: Path, codec: str, kind: Any) -> None:
    value: Any = "some text" if kind == "string" else ["some", "text"]
    path = write(tmp_path / "a.avro", {"x": kind}, [{"x": value}] * 60, codec, 100)
    whole = path.read_bytes()
    header = read_header(path)
    ends = {header.blocks_at} | {
        i + 16 for i in range(header.blocks_at, len(whole)) if whole[i : i + 16] == header.sync
    }
    for cut in range(0, len(whole), 3):
        path.write_bytes(whole[:cut])
        if cut in ends:
            continue  # whole blocks: no reader can tell this from a shorter file
        with pytest.raises(AvroError):
            read(path)


def test_a_flipped_bit_never_changes_a_row_and_its_block_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.avro", {"x": "string"}, [{"x": f"value {i}"} for i in range(100)], "snappy", 100)
    whole = bytearray(path.read_bytes())
    good, named, reasons = read(path), [], []
    for at in range(read_header(path).blocks_at, len(whole), 5):
        damaged = bytearray(whole)
        damaged[at] ^= 0x10
        path.write_bytes(damaged)
        try:
            assert read(path).equals(good)  # snappy can spell the same text in two ways
        except AvroError as error:
            named.append(error.block)
            reasons.append(error.reason)
    assert not any("value" in reason for reason in reasons)
    assert set(named) == set(range(max(named) + 1))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"<html>not here</html>", "not an Avro file"),
        (b"Obj\x01\x04", "header"),
        (b"PAR1" * 10, "not an Avro file"),
    ],
)
def test_what_is_no_avro_says_so(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "a.avro"
    path.write_bytes(content)
    with pytest.raises(AvroError, match=reason) as caught:
        read(path)
    assert caught.value.block is None


def test_a_wrong_codec_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.avro", {"x": "string"}, [{"x": "a"}])
    path.write_bytes(path.read_bytes().replace(b"snappy", b"brotli"))
    with pytest.raises(AvroError, match="codec 'brotli'"):
        read(path)
    path.write_bytes(path.read_bytes().replace(b"\x0cbrotli", b"\x08null"))
    with pytest.raises(AvroError):
        read(path)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damage_never_crashes_the_process(tmp_path: Path, data: st.DataObject) -> None:
    """Uncompressed blocks have no checksum: whatever is read, it is rows or an AvroError."""
    rows = [{"x": f"v{i}", "y": i, "z": [None, "a"][i % 2]} for i in range(20)]
    path = write(tmp_path / "a.avro", {"x": "string", "y": ["null", "long"], "z": ["null", "string"]}, rows, "null", 50)
    damaged = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(damaged)
    try:
        for batch in read_batches(path):
            for row in batch.rows.iter_rows():
                assert len(row) == batch.rows.width
    except AvroError:
        pass


def test_batches_are_bounded(tmp_path: Path) -> None:
    path = write(tmp_path / "a.avro", {"x": "long"}, [{"x": i} for i in range(5000)], interval=100)
    heights = [batch.rows.height for batch in read_batches(path, batch_rows=500)]
    assert sum(heights) == 5000
    assert max(heights) < 600
    assert avro.BATCH_ROWS > 0
