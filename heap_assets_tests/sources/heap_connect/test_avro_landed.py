"""Values of every Avro type, through landing and building: exact, or text, or null and counted (docs/values.md)."""

from __future__ import annotations

import math
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import polars as pl
from dump_builders import BUCKET, Bucket, event, land_all, landing_in, write_avro
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heap_assets.sources.heap_connect import build_event_day

DAY = date(2026, 3, 1)
EPOCH, MICRO = datetime(1970, 1, 1), timedelta(microseconds=1)
FIRST, LAST = ((moment - EPOCH) // MICRO for moment in (datetime.min, datetime.max))
DAY_MICROS = 86_400_000_000
INTS = st.integers(-(2**31), 2**31 - 1)
LONGS = st.integers(-(2**63), 2**63 - 1)


@dataclass(frozen=True)
class Kind:
    """An Avro type (of a name for its named types), what fastavro is handed, and what the lake is to hold of it."""

    avro: Callable[[str], Any]
    raw: st.SearchStrategy[Any]
    kept: Callable[[Any], Any] = lambda raw: raw


def moments(name: str, micros: int, zone: Any) -> Kind:
    def kept(raw: int) -> datetime | None:
        inside = FIRST <= raw * micros <= LAST
        return (EPOCH + raw * micros * MICRO).replace(tzinfo=zone) if inside else None

    return Kind(logical("long", name), LONGS | st.integers(FIRST // micros, LAST // micros), kept)


def clock(name: str, base: str, micros: int) -> Kind:
    def kept(raw: int) -> time | None:
        return (EPOCH + raw * micros * MICRO).time() if 0 <= raw * micros < DAY_MICROS else None

    return Kind(
        logical(base, name),
        INTS | st.integers(0, DAY_MICROS // micros) if base == "int" else LONGS | st.integers(0, DAY_MICROS),
        kept,
    )


def logical(base: str, name: str, **more: Any) -> Callable[[str], Any]:
    return lambda _: {"type": base, "logicalType": name, **more}


def decimals(precision: int, scale: int, size: int | None = None) -> Kind:
    most = 10 ** (precision + 1)
    kind = {"logicalType": "decimal", "precision": precision, "scale": scale}

    def raw(number: int) -> bytes:
        return number.to_bytes(size or number.bit_length() // 8 + 1, "big", signed=True)

    def kept(data: bytes) -> Any:
        number = int.from_bytes(data, "big", signed=True)
        exact = Decimal(f"{number}E-{scale}")
        return format(exact, "f") if precision > 38 else exact if abs(number) < 10**precision else None

    def avro(name: str) -> Any:
        return {"type": "bytes", **kind} if size is None else {"type": "fixed", "name": name, "size": size, **kind}

    return Kind(avro, st.integers(-most, most).map(raw), kept)


def a_date(raw: int) -> date | None:
    day = raw + EPOCH.toordinal()
    return date.fromordinal(day) if 1 <= day <= date.max.toordinal() else None


def iso_duration(raw: bytes) -> str:
    months, days, milliseconds = struct.unpack("<III", raw)
    return f"P{months}M{days}DT{milliseconds // 1000}.{milliseconds % 1000:03d}S"


def in_text(raw: Any) -> str:
    return str(raw).lower() if isinstance(raw, bool) else str(raw)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
KINDS: dict[str, Kind] = {
    "boolean": Kind(lambda _: "boolean", st.booleans()),
    "int": Kind(lambda _: "int", INTS),
    "long": Kind(lambda _: "long", LONGS),
    "float": Kind(lambda _: "float", st.floats(width=32)),
    "double": Kind(lambda _: "double", st.floats()),
    "bytes": Kind(lambda _: "bytes", st.binary(max_size=8)),
    "string": Kind(lambda _: "string", TEXT),
    "fixed": Kind(lambda name: {"type": "fixed", "name": name, "size": 3}, st.binary(min_size=3, max_size=3)),
    "enum": Kind(lambda name: {"type": "enum", "name": name, "symbols": ["a", "b"]}, st.sampled_from("ab")),
    "uuid": Kind(logical("string", "uuid"), st.uuids().map(str)),
    "uuid16": Kind(
        lambda name: {"type": "fixed", "name": name, "size": 16, "logicalType": "uuid"},
        st.uuids().map(lambda uuid: uuid.bytes),
        lambda raw: str(UUID(bytes=raw)),
    ),
    "duration": Kind(
        lambda name: {"type": "fixed", "name": name, "size": 12, "logicalType": "duration"},
        st.binary(min_size=12, max_size=12),
        iso_duration,
    ),
    "decimal9": decimals(9, 2),
    "decimal38": decimals(38, 19),
    "decimal76": decimals(76, 38),
    "decimal_fixed": decimals(18, 4, 9),
    "date": Kind(logical("int", "date"), INTS | st.integers(-700_000, 2_900_000), a_date),
    "time_ms": clock("time-millis", "int", 1_000),
    "time_us": clock("time-micros", "long", 1),
    "timestamp_ms": moments("timestamp-millis", 1_000, UTC),
    "timestamp_us": moments("timestamp-micros", 1, UTC),
    "local_ms": moments("local-timestamp-millis", 1_000, None),
    "local_us": moments("local-timestamp-micros", 1, None),
    "timestamp_ns": Kind(logical("long", "timestamp-nanos"), LONGS),
    "local_ns": Kind(logical("long", "local-timestamp-nanos"), LONGS),
    "union": Kind(lambda _: ["boolean", "long", "string"], st.booleans() | LONGS | TEXT, in_text),
}


def same(shown: Any, kept: Any) -> bool:
    if isinstance(kept, float):
        return (
            math.isnan(shown)
            if math.isnan(kept)
            else (shown, math.copysign(1, shown)) == (kept, math.copysign(1, kept))
        )
    return type(shown) is type(kept) and bool(shown == kept)


def landed(folder: Path, rows: list[dict[str, Any]], kinds: dict[str, Any]) -> tuple[pl.DataFrame, dict[str, int]]:
    """Land two files of a table, build its day, and return the rows and what was counted as lost."""
    bucket, keys = Bucket(folder / "bucket"), []
    for number, part in enumerate((rows[::2], rows[1::2])):
        keys.append(f"sync_1/t/part-{number:05d}-c000.avro")
        write_avro(folder / "bucket" / keys[-1], part, kinds=kinds)
    files = [f"s3://{BUCKET}/{key}" for key in keys]
    table = {"name": "t", "files": files, "columns": list(kinds), "incremental": True}
    bucket.manifest(1, "2026-03-02T02:00:00", {"dump_id": 1, "tables": [table]})
    landing = landing_in(folder / "lake")
    land_all(landing, bucket)
    built = build_event_day(landing, "t", DAY)
    return built.frame.sort("event_id").collect(), dict(built.notes.get("values_lost_in", {}))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data(), count=st.integers(2, 4))
def test_every_type_plain_in_records_arrays_and_maps(data: st.DataObject, count: int) -> None:
    raw = {name: data.draw(st.lists(kind.raw, min_size=count, max_size=count)) for name, kind in KINDS.items()}
    keys = ("event_id", "user_id", "session_id")
    kinds: dict[str, Any] = {key: ["null", "long"] for key in keys} | {"time": ["null", "string"]}
    for name, kind in KINDS.items():
        own = kind.avro(f"F{name}")
        nullable = ["null", *(own if isinstance(own, list) else [own])]
        # a named type is spelled out once, and named after that
        again = [f"F{name}" if isinstance(one, dict) and "name" in one else one for one in nullable]
        field = {"name": "v", "type": again}
        kinds |= {
            name: nullable,
            f"r_{name}": ["null", {"type": "record", "name": f"R{name}", "fields": [field]}],
            f"a_{name}": ["null", {"type": "array", "items": again}],
            f"m_{name}": ["null", {"type": "map", "values": again}],
        }
    rows = []
    for at in range(count):
        row = event(at, "2026-03-01 10:00:00")
        for name, values in raw.items():
            row |= {name: values[at], f"r_{name}": {"v": values[at]}}
            row |= {f"a_{name}": [values[at], None], f"m_{name}": {"k": values[at]}}
        rows.append(row)
    with tempfile.TemporaryDirectory() as folder:
        frame, counted = landed(Path(folder), rows, kinds)
    expected: dict[str, int] = {}
    for name, kind in KINDS.items():
        shown = {
            name: frame[name],
            f"r_{name}": frame[f"r_{name}"].struct.field("v"),
            f"a_{name}": frame[f"a_{name}"].list.first(),
            f"m_{name}": frame[f"m_{name}"].list.first().struct.field("value"),
        }
        assert frame[f"a_{name}"].list.len().to_list() == [2] * count
        for column, values in shown.items():
            plain = values.to_physical() if name.endswith("_ns") else values
            kept = [kind.kept(each) for each in raw[name]]
            assert all(same(one, other) for one, other in zip(plain.to_list(), kept, strict=True)), column
            if lost := kept.count(None):
                expected[column] = lost
    assert counted == expected


NESTED = {
    "type": "record",
    "name": "Odd",
    "fields": [
        {"name": "raw", "type": "bytes"},
        {"name": "size", "type": "double"},
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
    ],
}


def test_a_record_in_a_column_of_heap_is_json_and_one_in_a_row_that_is_set_aside_too(tmp_path: Path) -> None:
    odd = {"raw": b"\xff", "size": math.inf, "price": Decimal("1.10")}
    kinds = {key: ["null", "string"] for key in ("event_id", "user_id", "session_id", "time")}
    kinds |= {
        "city": ["null", NESTED],
        "other": ["null", "Odd"],
        "region": ["null", {"type": "array", "items": "double"}],
    }
    rows = [
        event(number, "2026-03-01 10:00:00", city=odd, other=odd, region=[0.5, math.nan])
        | {"event_id": number, "user_id": "1", "session_id": None}
        for number in ("7", "no number")
    ]
    frame, _ = landed(tmp_path, rows, kinds)  # type: ignore[arg-type]
    assert frame.select("event_id", "city", "region", "other").rows() == [
        (7, '{"raw":"/w==","size":"inf","price":1.10}', '[0.5,"nan"]', odd)
    ]
    [aside] = (tmp_path / "lake").rglob("rejected-*.parquet")
    content = pl.read_parquet(aside)["content"].item()
    assert '"other":{"raw":"/w==","size":"inf","price":"1.10"}' in content
    assert '"region":[0.5,"nan"]' in content
