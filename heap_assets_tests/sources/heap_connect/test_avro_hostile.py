"""Files that lie, or are meant to do harm: a refusal with file and block, before the memory is used."""

from __future__ import annotations

import json
import re
from pathlib import Path
from random import Random
from typing import Any

import polars as pl
import pytest
from avro_builders import COMPRESS, NULLABLE_TEXT, avro_file, long, record, text

from heap_assets.sources.heap_connect import Limits, avro
from heap_assets.sources.heap_connect.avro import AvroError, read_batches

SMALL = Limits(block_bytes=1 << 20, file_bytes=3 << 20)
ROW = long(1) + text("some text")


def read(path: Path, limits: Limits | None = None) -> pl.DataFrame:
    return pl.concat([batch.rows for batch in read_batches(path, limits=limits)])


def refused(path: Path, limits: Limits | None = None) -> AvroError:
    with pytest.raises(AvroError) as caught:
        read(path, limits)
    assert str(path) in str(caught.value)
    return caught.value


@pytest.mark.parametrize("codec", COMPRESS)
def test_a_block_is_as_large_as_allowed_and_no_larger(tmp_path: Path, codec: str) -> None:
    rows = SMALL.block_bytes // len(ROW)
    schema = record({"x": NULLABLE_TEXT})
    fits = avro_file(tmp_path / "a.avro", schema, [(rows, COMPRESS[codec](ROW * rows))], codec)
    assert read(fits, SMALL).height == rows
    larger = [(1, COMPRESS[codec](ROW)), (rows + 1, COMPRESS[codec](ROW * (rows + 1)))]
    error = refused(avro_file(tmp_path / "a.avro", schema, larger, codec), SMALL)
    assert (error.block, "larger than 1 MB (heap.limits.block_mb)" in error.reason) == (1, True)


@pytest.mark.parametrize("codec", [codec for codec in COMPRESS if codec not in {"null", "snappy"}])
def test_a_small_block_that_becomes_gigabytes_is_refused(tmp_path: Path, codec: str) -> None:
    bomb = COMPRESS[codec](bytes(48 << 20))
    assert len(bomb) < 100_000
    path = avro_file(tmp_path / "a.avro", record({"x": NULLABLE_TEXT}), [(1, bomb)], codec)
    del bomb
    before = peak()
    assert refused(path, SMALL).block == 0
    assert peak() - before < 24


@pytest.mark.parametrize("codec", COMPRESS)
def test_a_stored_block_beyond_what_is_allowed_is_refused_before_it_is_read(tmp_path: Path, codec: str) -> None:
    path = avro_file(tmp_path / "a.avro", record({"x": NULLABLE_TEXT}), [], codec)
    with path.open("ab") as file:
        file.write(long(1) + long(1 << 30))
        file.truncate(file.tell() + (1 << 30) + 16)  # takes no room on the disk
    before = peak()
    error = refused(path, SMALL)
    assert (error.block, error.reason) == (0, "it becomes larger than 1 MB (heap.limits.block_mb)")
    assert peak() - before < 24


@pytest.mark.parametrize("codec", COMPRESS)
def test_a_block_that_compression_makes_larger_is_as_large_as_allowed(tmp_path: Path, codec: str) -> None:
    value = Random(1).randbytes(SMALL.block_bytes - 8)
    block = text(value).ljust(SMALL.block_bytes, long(0))
    rows = 1 + len(block) - len(text(value))
    path = avro_file(tmp_path / "a.avro", record({"x": "bytes"}), [(rows, COMPRESS[codec](block))], codec)
    assert read(path, SMALL)["x"][0] == value


def peak() -> int:
    """Return the largest memory this process had so far, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) >> 10 for line in lines if line.startswith("VmHWM"))


def test_snappy_that_declares_more_than_it_can_hold_is_refused(tmp_path: Path) -> None:
    data = bytes.fromhex("ffffffff0f") + bytes(40)
    assert refused(avro_file(tmp_path / "a.avro", record({"x": NULLABLE_TEXT}), [(1, data)], "snappy")).block == 0


def test_a_file_of_many_blocks_is_refused_at_the_one_too_many(tmp_path: Path) -> None:
    block = (60_000, COMPRESS["deflate"](ROW * 60_000))
    path = avro_file(tmp_path / "a.avro", record({"x": NULLABLE_TEXT}), [block] * 8, "deflate")
    error = refused(path, SMALL)
    assert error.block == SMALL.file_bytes // (60_000 * len(ROW))
    assert "heap.limits.file_mb" in error.reason


@pytest.mark.parametrize("rows", [-1, 0, 1, 3, 1_000_000, 2**62, -(2**63)])
def test_a_block_that_declares_other_rows_than_it_holds_is_named(tmp_path: Path, rows: int) -> None:
    for kind in (NULLABLE_TEXT, {"type": "array", "items": "string"}):
        value = ROW if kind == NULLABLE_TEXT else long(1) + text("a") + long(0)
        blocks = [(2, value * 2), (rows, value * 2), (2, value * 2)]
        assert refused(avro_file(tmp_path / "a.avro", record({"x": kind}), blocks)).block == 1


def test_rows_without_bytes_are_counted_up_to_a_million(tmp_path: Path) -> None:
    schema = record({"x": "null"})
    assert read(avro_file(tmp_path / "a.avro", schema, [(1_000, b"")])).height == 1_000
    assert refused(avro_file(tmp_path / "a.avro", schema, [(2**40, b"")])).block == 0


def nested(depth: int) -> Any:
    kind: Any = "long"
    for _ in range(depth):
        kind = {"type": "array", "items": kind}
    return record({"x": kind})


def doubling(levels: int) -> Any:
    """Return a schema whose types each hold the one before it twice."""
    kind: Any = "long"
    for level in range(levels):
        kind = {"type": "record", "name": f"r{level}", "fields": [{"name": "a", "type": kind}]}
        kind["fields"].append({"name": "b", "type": f"r{level - 1}" if level else "long"})
    return record({"x": kind})


OWN = {"type": "record", "name": "R", "fields": [{"name": "next", "type": ["null", "R"]}]}


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        (nested(40), "nested more than 32 deep"),
        ("[" * 100_000, "nested too deeply|damaged"),
        ('{"type":' * 5_000 + '"long"' + "}" * 5_000, "nested too deeply|no records"),
        (record({"x": OWN}), "'R' holds itself"),
        (doubling(40), "more than|deep"),
        (record({f"f{i}": "long" for i in range(10_001)}), "10,001 fields"),
        (record({"x": {"type": "array", "items": "null"}}), "take no bytes"),
        (record({"x": {"type": "enum", "name": "E", "symbols": [1, None]}}), "enum without symbols"),
        (record({"x": {"type": "enum", "name": "E"}}), "enum without symbols"),
        (record({"x": {"type": "fixed", "name": "F", "size": -1}}), "fixed without a size"),
        (record({"x": {"type": "fixed", "name": "F", "size": 2**40}}), "fixed without a size"),
        (record({"x": "nowhere"}), "'nowhere', which it does not define"),
        (record({"x": []}), "union of nothing"),
        (record({"x": None}), "none of Avro's"),
        ({"type": "record", "name": "top", "fields": [{"name": "x", "type": "long"}] * 2}, "two fields called 'x'"),
        ({"type": "record", "name": "top", "fields": "x"}, "no list of fields"),
        ({"type": "record", "name": "top", "fields": [{"name": 7, "type": "long"}]}, "no name or no type"),
        ({"type": "record", "fields": []}, "has no name"),
        ('{"type": ' + "9" * 5_000 + "}", "damaged"),
        ("long", "no records|damaged"),
        ('"long"', "no records"),
        ("[]", "no records"),
        ("\udcff".encode("utf-8", "surrogateescape"), "damaged"),
    ],
    ids=lambda value: None if isinstance(value, str) and len(value) < 60 else "schema",
)
def test_a_schema_that_cannot_be_read_is_refused(tmp_path: Path, schema: Any, reason: str) -> None:
    error = refused(avro_file(tmp_path / "a.avro", schema, [(1, b"\0")]))
    assert error.block is None
    assert re.search(reason, error.reason)


def test_a_header_that_never_ends_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.avro"
    path.write_bytes(b"Obj\x01" + long(2**40) + (text("k") + text("v")) * 20_000)
    assert refused(path).block is None
    path.write_bytes(b"Obj\x01" + long(1) + text("avro.schema") + long(2**40) + b"{}")
    assert refused(path).block is None


def test_fields_may_be_called_anything(tmp_path: Path) -> None:
    names = ["", "_day", "\0dump", "\x1fdump_", "a b.c", "é" * 300, "\ud800", "x'; --", "unnamed_9"]
    schema = json.dumps(record(dict.fromkeys(names, "long")))
    path = avro_file(tmp_path / "a.avro", schema, [(1, b"".join(long(i) for i in range(len(names))))])
    rows = read(path)
    assert rows.row(0) == tuple(range(len(names)))
    assert rows.columns == [
        "unnamed_1",
        "_day",
        "\ufffddump",
        "\ufffddump_",
        "a b.c",
        "é" * 300,
        "?",
        "x'; --",
        "unnamed_9",
    ]


@pytest.mark.parametrize(
    "row",
    [
        long(1) + long(-3) + b"secret",
        long(1) + long(2**62) + b"secret",
        long(1) + text(b"secret\xff"),
        long(1) + b"\xff" * 12,
        long(7),
        b"",
    ],
)
@pytest.mark.parametrize("others", [{}, {"y": {"type": "array", "items": "long"}}])
def test_values_that_are_none_are_refused_and_not_quoted(tmp_path: Path, row: bytes, others: dict[str, Any]) -> None:
    tail = b"\0" if others else b""
    good = (3, (ROW + tail) * 3)
    path = avro_file(tmp_path / "a.avro", record({"x": NULLABLE_TEXT, **others}), [good, good, (1, row + tail), good])
    error = refused(path)
    assert error.block == 2
    assert "secret" not in str(error)


def test_symbols_that_an_enum_lacks_are_refused(tmp_path: Path) -> None:
    kind = ["null", {"type": "enum", "name": "E", "symbols": [f"s{i}" for i in range(100_000)]}]
    path = avro_file(tmp_path / "a.avro", record({"x": kind, "y": "long"}), [(1, long(1) + long(99_999) + long(1))])
    assert read(path).row(0) == ("s99999", 1)
    for number in (100_000, -1, 2**30):
        blocks = [(1, long(1) + long(place) + long(1)) for place in (0, number)]
        avro_file(path, record({"x": kind, "y": "long"}), blocks)
        assert refused(path).block == 1


def test_a_row_of_lists_is_read_whole_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(avro, "_ROW_BYTES", 16 << 10)
    schema = record({"x": {"type": "array", "items": "int"}})

    def row(size: int) -> bytes:
        return long(size) + b"\2" * size + long(0)

    fits = [(2, row(9 << 10) * 2), (1, row(3))]
    assert [len(v) for v in read(avro_file(tmp_path / "a.avro", schema, fits))["x"]] == [9 << 10, 9 << 10, 3]
    assert "a row is larger than" in refused(avro_file(tmp_path / "a.avro", schema, [(1, row(17 << 10))])).reason
