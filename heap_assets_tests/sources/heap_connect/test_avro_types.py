"""Logical types: the exact value, or text, or null and counted; never another value (docs/values.md)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from avro_builders import avro_file, long, record
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heap_assets.sources.heap_connect.avro import read_batches

INTS = st.integers(-(2**31), 2**31 - 1)
EPOCH, FIRST, LAST = datetime(1970, 1, 1), datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999999)
MICRO = timedelta(microseconds=1)
LOW, HIGH = (FIRST - EPOCH) // MICRO, (LAST - EPOCH) // MICRO
NEAR = [0, 1, -1, LOW, LOW - 1, HIGH, HIGH + 1, LOW // 1000, HIGH // 1000, HIGH // 1000 + 1, 86_399_999, 86_400_000]
LONGS = (
    st.sampled_from(NEAR) | st.integers(-(2**63), 2**63 - 1) | st.integers(LOW, HIGH) | st.integers(0, 86_400_000_000)
)


def read(path: Path) -> tuple[pl.DataFrame, dict[str, int]]:
    batches = list(read_batches(path))
    lost: dict[str, int] = {}
    for batch in batches:
        for name, count in batch.lost.items():
            lost[name] = lost.get(name, 0) + count
    return pl.concat([batch.rows for batch in batches]), lost


def both(folder: Path, kind: Any, values: list[bytes]) -> tuple[list[Any], int]:
    """Read values as a column, in a list and in a record: the three must agree."""
    count = len(values)
    flat, lost = read(
        avro_file(
            folder / "flat.avro", record({"k": "long", "x": kind}), [(count, b"".join(b"\0" + v for v in values))]
        )
    )
    inner = {"type": "record", "name": "R", "fields": [{"name": "v", "type": ["null", kind]}]}
    items = {"type": "array", "items": ["null", "R"]}
    rows = b"".join(long(1) + v + long(1) + long(1) + long(1) + v + long(0) for v in values)
    nested, lost_nested = read(avro_file(folder / "nested.avro", record({"r": inner, "l": items}), [(count, rows)]))
    column = flat["x"]
    assert nested["r"].struct.field("v").equals(column)
    assert nested["l"].list.first().struct.field("v").equals(column)
    missing = column.null_count()
    assert lost == ({"x": missing} if missing else {})
    assert lost_nested == ({"r": missing, "l": missing} if missing else {})
    assert nested["r"].struct.field("v").dtype == column.dtype
    return column.to_list(), missing


def within(moment: Callable[[], Any], number: int, low: int, high: int) -> Any:
    return moment() if low <= number <= high else None


TEMPORAL: dict[str, tuple[str, pl.DataType, Callable[[int], Any]]] = {
    "time-micros": ("long", pl.Time(), lambda n: within(lambda: (FIRST + n * MICRO).time(), n, 0, 86_399_999_999)),
    "timestamp-millis": (
        "long",
        pl.Datetime("us", "UTC"),
        lambda n: within(lambda: (EPOCH + n * 1000 * MICRO).replace(tzinfo=UTC), n, LOW // 1000, HIGH // 1000),
    ),
    "timestamp-micros": (
        "long",
        pl.Datetime("us", "UTC"),
        lambda n: within(lambda: (EPOCH + n * MICRO).replace(tzinfo=UTC), n, LOW, HIGH),
    ),
    "local-timestamp-millis": (
        "long",
        pl.Datetime("us"),
        lambda n: within(lambda: EPOCH + n * 1000 * MICRO, n, LOW // 1000, HIGH // 1000),
    ),
    "local-timestamp-micros": ("long", pl.Datetime("us"), lambda n: within(lambda: EPOCH + n * MICRO, n, LOW, HIGH)),
    "date": (
        "int",
        pl.Date(),
        lambda n: within(
            lambda: date.fromordinal(n + EPOCH.toordinal()),
            n,
            1 - EPOCH.toordinal(),
            LAST.toordinal() - EPOCH.toordinal(),
        ),
    ),
    "time-millis": ("int", pl.Time(), lambda n: within(lambda: (FIRST + n * 1000 * MICRO).time(), n, 0, 86_399_999)),
}
QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("name", TEMPORAL)
@QUICK
@given(st.data())
def test_dates_and_times_are_exact_or_null_and_counted(tmp_path: Path, name: str, data: st.DataObject) -> None:
    base, dtype, expected = TEMPORAL[name]
    numbers = data.draw(
        st.lists(LONGS if base == "long" else INTS | st.sampled_from(NEAR[-2:]), min_size=1, max_size=8)
    )
    found, _ = both(tmp_path, {"type": base, "logicalType": name}, [long(n) for n in numbers])
    assert found == [expected(n) for n in numbers]
    assert dtype == read(tmp_path / "flat.avro")[0].schema["x"]


@pytest.mark.parametrize(("name", "zone"), [("timestamp-nanos", "UTC"), ("local-timestamp-nanos", None)])
@QUICK
@given(st.lists(LONGS, min_size=1, max_size=8))
def test_nanoseconds_are_exact(tmp_path: Path, name: str, zone: str | None, numbers: list[int]) -> None:
    _, missing = both(tmp_path, {"type": "long", "logicalType": name}, [long(n) for n in numbers])
    column = read(tmp_path / "flat.avro")[0]["x"]
    assert missing == 0
    assert column.dtype == pl.Datetime("ns", zone)
    assert column.to_physical().to_list() == numbers


def twos_complement(number: int, size: int | None = None) -> bytes:
    return number.to_bytes(size or number.bit_length() // 8 + 1, "big", signed=True)


@QUICK
@given(st.data(), st.integers(1, 80))
def test_decimals_keep_every_digit(tmp_path: Path, data: st.DataObject, precision: int) -> None:
    scale = data.draw(st.integers(0, precision))
    most = 10 ** (precision + 2)
    numbers = data.draw(st.lists(st.integers(-most, most), min_size=1, max_size=6))
    kind = {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale}
    encoded = [(d := twos_complement(n)) and long(len(d)) + d for n in numbers]
    found, _ = both(tmp_path, kind, encoded)
    for number, value in zip(numbers, found, strict=True):
        exact = Decimal(number).scaleb(-scale) if precision < 20 else Decimal(f"{number}E-{scale}")
        if precision > 38:
            assert (type(value), Decimal(value)) == (str, exact)
            assert "E" not in value
        else:
            assert value == (exact if abs(number) < 10**precision else None)


def test_decimals_of_fixed_size_and_of_invalid_precision(tmp_path: Path) -> None:
    kind: dict[str, Any] = {
        "type": "fixed",
        "name": "F",
        "size": 6,
        "logicalType": "decimal",
        "precision": 9,
        "scale": 3,
    }
    assert both(tmp_path, kind, [twos_complement(n, 6) for n in (-1, 12_345)])[0] == [
        Decimal("-0.001"),
        Decimal("12.345"),
    ]
    for wrong in ({"precision": 0}, {"scale": 10}, {"scale": -1}, {"precision": "9"}, {"precision": None}):
        assert both(tmp_path, kind | wrong, [b"abcdef"])[0] == [b"abcdef"]
    long_kind = {"type": "bytes", "logicalType": "decimal", "precision": 5_000, "scale": 1}
    assert both(tmp_path, long_kind, [long(2_000) + b"\1" * 2_000, long(1) + b"\7"]) == ([None, "0.7"], 1)


def test_other_logical_types_are_text(tmp_path: Path) -> None:
    duration = {"type": "fixed", "name": "D", "size": 12, "logicalType": "duration"}
    assert both(tmp_path, duration, [struct.pack("<III", 14, 3, 86_400_001)])[0] == ["P14M3DT86400.001S"]
    some = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
    fixed = {"type": "fixed", "name": "U", "size": 16, "logicalType": "uuid"}
    assert both(tmp_path, fixed, [bytes.fromhex(some.replace("-", ""))])[0] == [some]
    spelled = long(len(some)) + some.encode()
    assert both(tmp_path, {"type": "string", "logicalType": "uuid"}, [spelled])[0] == [some]
    assert both(tmp_path, {"type": "long", "logicalType": "made-up"}, [long(2**62)])[0] == [2**62]
    assert both(tmp_path, {"type": "string"}, [long(3) + b"a\0b"])[0] == ["a\0b"]


def test_a_union_says_in_text_what_each_of_its_types_says(tmp_path: Path) -> None:
    kinds: list[tuple[Any, bytes, str | None]] = [
        ("null", b"", None),
        ("string", long(1) + b"x", "x"),
        ("long", long(2**53 + 1), "9007199254740993"),
        ("boolean", b"\1", "true"),
        ("double", struct.pack("<d", 1e300), "1e+300"),
        ({"type": "bytes", "logicalType": "decimal", "precision": 40, "scale": 2}, long(1) + b"\x85", "-1.23"),
        ({"type": "int", "logicalType": "date"}, long(-1), "1969-12-31"),
        ({"type": "int", "logicalType": "time-millis"}, long(1), "00:00:00.001000"),
        ({"type": "fixed", "name": "N", "size": 2}, b"\0\xff", "00ff"),
        ({"type": "enum", "name": "E", "symbols": ["a", "b"]}, long(1), "b"),
        (
            {"type": "map", "values": "double"},
            long(1) + long(1) + b"k" + struct.pack("<d", float("nan")) + b"\0",
            '{"k": "NaN"}',
        ),
        (
            {"type": "array", "items": {"type": "long", "logicalType": "timestamp-nanos"}},
            long(1) + long(1) + b"\0",
            '["1970-01-01T00:00:00.000000001Z"]',
        ),
    ]
    data = b"".join(long(branch) + value for branch, (_, value, _) in enumerate(kinds))
    path = avro_file(tmp_path / "a.avro", record({"x": [kind for kind, _, _ in kinds]}), [(len(kinds), data)])
    assert read(path)[0]["x"].to_list() == [said for _, _, said in kinds]


def test_unions_of_one_type_or_none(tmp_path: Path) -> None:
    schema = record({"x": ["long"], "y": ["null"], "z": "null", "d": [{"type": "int", "logicalType": "date"}]})
    rows, lost = read(
        avro_file(tmp_path / "a.avro", schema, [(2, (b"\0" + long(7) + b"\0" + b"\0" + long(2**30)) * 2)])
    )
    assert rows.rows() == [(7, None, None, None)] * 2
    assert lost == {"d": 2}
    assert rows.schema == {"x": pl.Int64(), "y": pl.Null(), "z": pl.Null(), "d": pl.Date()}


def test_names_are_found_in_their_namespace(tmp_path: Path) -> None:
    inner = {
        "type": "record",
        "name": "a.b.R",
        "fields": [{"name": "e", "type": {"type": "enum", "name": "E", "symbols": ["one", "two"]}}],
    }
    schema = record({"x": inner, "y": "a.b.R", "z": "a.b.E"})
    assert read(avro_file(tmp_path / "a.avro", schema, [(1, long(1) + long(0) + long(1))]))[0].row(0) == (
        {"e": "two"},
        {"e": "one"},
        "two",
    )


def test_midnight_is_a_time_and_the_end_of_a_day_is_none(tmp_path: Path) -> None:
    found = both(tmp_path, {"type": "int", "logicalType": "time-millis"}, [long(0), long(86_400_000)])
    assert found == ([time(0), None], 1)
