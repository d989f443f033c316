"""A value of the lake is in PostgreSQL exactly, or as text that says the same, or left out and counted."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from adbc_driver_postgresql import dbapi
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from heap_assets.sources.heap_bigquery.events_table import events_table
from heap_assets.sources.warehouse import PublishError, WarehouseBusyError
from heap_assets.sources.warehouse.postgres.publisher import PostgresPublisher
from heap_assets.sources.warehouse.postgres.reader import PostgresWarehouse
from heap_assets.sources.warehouse.publish import Publication
from heap_assets.sources.warehouse.resolved_views import ResolvedOn
from heap_assets.storage import Store

MONDAY = date(2026, 11, 2)
MOMENTS = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999999))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.sampled_from(["a\x00b", "\\u0000", "\\\x00"])
DTYPES: dict[str, tuple[pl.DataType, st.SearchStrategy[Any]]] = {
    "i8": (pl.Int8(), st.integers(-128, 127)),
    "i64": (pl.Int64(), st.integers(-(2**63), 2**63 - 1)),
    "u32": (pl.UInt32(), st.integers(0, 2**32 - 1)),
    "u64": (pl.UInt64(), st.integers(0, 2**64 - 1)),
    "i128": (pl.Int128(), st.integers(-(2**127), 2**127 - 1)),
    "f32": (pl.Float32(), st.floats(width=32)),
    "f64": (pl.Float64(), st.floats()),
    "flag": (pl.Boolean(), st.booleans()),
    "text": (pl.String(), TEXTS),
    "blob": (pl.Binary(), st.binary(max_size=5)),
    "day": (pl.Date(), st.dates()),
    "at": (pl.Datetime("us", "UTC"), MOMENTS.map(lambda m: m.replace(tzinfo=UTC))),
    "local": (pl.Datetime("ms"), MOMENTS.map(lambda m: m.replace(microsecond=m.microsecond // 1000 * 1000))),
    "clock": (pl.Time(), st.times()),
    "money": (pl.Decimal(38, 9), st.integers(-(10**38) + 1, 10**38 - 1).map(lambda n: Decimal(f"{n}e-9"))),
}  # fmt: skip


def wanted(value: Any) -> Any:
    """A text without NUL; everything else as it is."""
    return value.replace("\x00", "") if isinstance(value, str) else value


def same(found: Any, value: Any) -> bool:
    if isinstance(found, Decimal | str | int) and isinstance(value, int):
        return Decimal(found) == value
    if isinstance(value, float) and isinstance(found, float):
        return (math.isnan(found) and math.isnan(value)) or found == value
    return type(found) is type(wanted(value)) and bool(found == wanted(value))


def in_json(name: str, value: Any) -> Any:
    """What a value of a struct is in jsonb."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if name == "f32" and value is not None:
        return value
    if isinstance(value, bytes):
        import base64

        return base64.b64encode(value).decode()
    if isinstance(value, datetime):
        text = pl.Series([value]).dt.strftime("%Y-%m-%dT%H:%M:%S%.f").item()
        return text + ("Z" if value.tzinfo else "")
    if isinstance(value, date | time):
        return (
            value.isoformat() if isinstance(value, date) or not value.microsecond else value.isoformat("microseconds")
        )
    return format(value, "f") if isinstance(value, Decimal) else wanted(value)


def frames() -> st.SearchStrategy[dict[str, list[Any]]]:
    return st.fixed_dictionaries(
        {name: st.lists(st.none() | values, min_size=2, max_size=2) for name, (_, values) in DTYPES.items()}
    )


@settings(
    max_examples=8, deadline=None, phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck)
)
@given(columns=frames())
@example(columns={name: [None, None] for name in DTYPES} | {"text": ["a\x00b", "\\\x00\x00\\u0000"]})
def test_every_type_alone_in_lists_and_in_structs(
    postgres: str, columns: dict[str, list[Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("published")
    series = [pl.Series(name, values, DTYPES[name][0], strict=False) for name, values in columns.items()]
    flat = pl.DataFrame(series)
    rows = flat.with_columns(
        *(pl.concat_list(pl.col(name), pl.col(name)).alias(f"l_{name}") for name in columns),
        pl.struct(pl.all()).alias("s"),
    ).with_row_index("n")
    publisher = PostgresPublisher(postgres, "pub", Store(str(folder / "lake")))
    table = f"t{folder.name.rpartition('published')[2]}"
    published = publisher.publish(Publication(table, by_day=False), None, rows.lazy(), "v1")
    with PostgresWarehouse(postgres).snapshot(f"pub.{table}") as snapshot:
        found = snapshot.frame.collect().sort("n")
        assert snapshot.reading.lost == {}
    for name, values in columns.items():
        assert all(map(same, found[name].to_list(), values)), name
        for pair, value in zip(found[f"l_{name}"].to_list(), values, strict=True):
            ours = json.loads(pair) if isinstance(pair, str) else pair  # numbers beyond 38 digits are read as JSON
            assert all(same(one, value) for one in ours), f"list of {name}"
    for text, row in zip(found["s"].to_list(), flat.iter_rows(named=True), strict=True):
        held = json.loads(text, parse_float=Decimal)
        for name, value in row.items():
            told = in_json(name, value)
            if isinstance(told, float):
                number = pl.Series([float(held[name])], dtype=pl.Float32 if name == "f32" else pl.Float64)
                assert number.item() == told, f"{name} in a struct"
            else:
                assert held[name] == told, f"{name} in a struct"
    nul = sum("\x00" in (value or "") for value in columns["text"])
    endless = sum(not math.isfinite(value) for name in ("f32", "f64") for value in columns[name] if value is not None)
    lost = {"text": nul, "l_text": 2 * nul, "s": nul + endless}
    assert published.lost == {name: count for name, count in lost.items() if count}


def test_what_postgres_has_no_type_for_is_text_or_left_out(postgres: str, tmp_path: Path) -> None:
    values = {"ns": [1], "fine": [86_399_999_999_999], "far": [3_000_000], "long": [2**62], "deep": [[[1, 2], [3]]]}
    rows = pl.LazyFrame(values | {"span": [timedelta(days=2, microseconds=3)]}).with_columns(
        pl.col("ns").cast(pl.Datetime("ns", "UTC")),
        pl.col("fine").cast(pl.Time),
        pl.col("far").cast(pl.Int32).cast(pl.Date),
        pl.col("long").cast(pl.Datetime("us")),
        fixed=pl.col("deep").list.first().list.to_array(2),
    )
    publisher = PostgresPublisher(postgres, "pub", Store(str(tmp_path)))
    published = publisher.publish(Publication("t", by_day=False), None, rows, "v1")
    with dbapi.connect(postgres) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT ns, span::text, fine, far, long, deep::text, fixed FROM pub.t")
        assert cursor.fetchall() == [
            ("1970-01-01 00:00:00.000000001+00", "48:00:00.000003", None, None, None, "[[1, 2], [3]]", [1, 2])
        ]
    assert published.lost == {"fine": 1, "far": 1, "long": 1}


def test_any_name_is_published_and_stays_what_it_was(postgres: str, tmp_path: Path) -> None:
    publisher = PostgresPublisher(postgres, "pub", Store(str(tmp_path)))
    table = Publication(
        "t", descriptions={"cart value": "In euros"}, cluster_by=("цена",), reserved=frozenset({"profile_id"})
    )
    rows = pl.LazyFrame({"cart value": [1], "цена": [2], "profile_id": [3], "partition_day": [4], "ctid": [5]})
    assert publisher.preview(table, rows, MONDAY).renamed["cart value"] == "cart_value"
    published = publisher.publish(table, MONDAY, rows, "v1")
    assert published.renamed == {
        "cart value": "cart_value", "цена": "u0446u0435u043du0430", "profile_id": "property_profile_id",
        "partition_day": "property_partition_day", "ctid": "property_ctid",
    }  # fmt: skip
    later = publisher.publish(table, MONDAY, pl.LazyFrame({"cart_value": [6], "cart value": [7]}), "v2")
    assert later.renamed == {"cart value": "cart_value", "cart_value": later.added_columns[0]}
    with dbapi.connect(postgres) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT cart_value FROM pub.t")
        assert cursor.fetchall() == [(7,)], "the column keeps to its property"
        cursor.execute("SELECT col_description('pub.t'::regclass, 2)")
        assert cursor.fetchall() == [("cart value: In euros",)]


def test_one_view_that_cannot_be_made_keeps_no_other_back(postgres: str, tmp_path: Path) -> None:
    publisher = PostgresPublisher(postgres, "pub", Store(str(tmp_path)))
    users = {"user_id": [1], "from_user_id": [1], "resolved_to": [1]}
    graph = {"identifier": ["1"], "profile_id": ["p"], "identifier_type": ["heap_user_id"]}
    publisher.publish(Publication("heap_user_migrations"), MONDAY, pl.LazyFrame(users), "v1")
    publisher.publish(Publication("identity_graph"), MONDAY, pl.LazyFrame(graph), "v1")
    publisher.publish(Publication("old"), MONDAY, pl.LazyFrame({"user_id": [1], "profile_id": ["mine"]}), "v1")
    publisher.publish(Publication("new"), MONDAY, pl.LazyFrame({"user_id": [1]}), "v1")
    with pytest.raises(PublishError, match=r"views.old: .*specified more than once.*made: views.new"):
        publisher.resolve_views(["old", "new"], into="views", on=ResolvedOn(MONDAY, MONDAY))
    assert publisher.view_origin("new", "views")


def test_publishers_that_make_one_table_at_once_all_succeed(postgres: str, tmp_path: Path) -> None:
    script = """
import sys
from datetime import date
import polars as pl
from heap_assets.storage import Store
from heap_assets.sources.heap_bigquery.events_table import events_table
from heap_assets.sources.warehouse.postgres.publisher import PostgresPublisher
from heap_assets.sources.warehouse.publish import Publication

publisher = PostgresPublisher(sys.argv[1], "fresh", Store(sys.argv[2]))
print("ready", flush=True)
sys.stdin.readline()
for table in ("a", "b", "c"):
    publisher.publish(Publication(table), date.fromisoformat(sys.argv[3]), pl.LazyFrame({"id": [1]}), "v1")
"""
    days = ["2026-11-01", "2026-11-02", "2026-11-03"]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", script, postgres, str(tmp_path / f"lake{day}"), day],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for day in days
    ]  # fmt: skip
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in running:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    assert [(process.communicate()[1], process.returncode) for process in running] == [("", 0)] * 3
    with dbapi.connect(postgres) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM fresh.a")
        assert cursor.fetchall() == [(3,)]


def test_what_was_published_elsewhere_is_not_unchanged_here(postgres: str, tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    here = PostgresPublisher(postgres, "pub", store)
    here.publish(Publication("t"), MONDAY, pl.LazyFrame({"id": [1]}), "v1")
    gone = PostgresPublisher("postgresql://heap@127.0.0.1:1/" + postgres.rpartition("/")[2], "pub", store)
    assert gone.target != here.target
    with pytest.raises(WarehouseBusyError):
        gone.publish(Publication("t"), MONDAY, pl.LazyFrame({"id": [1]}), "v1")


def test_properties_of_any_type_are_exact_in_the_wide_events_table() -> None:
    ids = {"event_id": [1], "user_id": [1], "session_id": [1], "time": [datetime(2026, 11, 2, tzinfo=UTC)]}
    values = {"raw": [b"\x00\xff"], "clock": [time(1, 2, 3, 4)], "price": [Decimal("12345678901234567.890")]}
    frame = events_table({"order": pl.LazyFrame(ids | values | {"big": [2**63 - 1], "none": [None]})}).collect()
    told = '{"raw":"AP8=","clock":"01:02:03.000004","price":"12345678901234567.890","big":9223372036854775807}'
    assert frame["event_properties"].to_list() == [told]
