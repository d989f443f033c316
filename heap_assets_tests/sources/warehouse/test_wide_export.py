"""The wide events table as a source gives the rows that it was published from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from uuid import uuid4

import polars as pl
import pytest

from heap_assets.sources.heap_bigquery.events_table import PUBLICATION, events_table, values_lost
from heap_assets.sources.heap_bigquery.wide_export import WideExport, _member, _with_members
from heap_assets.sources.warehouse.bigquery.client import BigQueryAccount
from heap_assets.sources.warehouse.bigquery.publisher import BigQueryPublisher
from heap_assets.sources.warehouse.bigquery.reader import BigQueryWarehouse
from heap_assets.storage import Store

MONDAY, TUESDAY = date(2026, 11, 2), date(2026, 11, 3)
AT = datetime(2026, 11, 2, 10, 0, 0, 123456, tzinfo=UTC)
KEYS = {"event_id": [2**60, 2], "user_id": [5, 6], "session_id": [1, None], "time": [AT, AT]}
SIGNUP = pl.LazyFrame({**KEYS, "plan": ['x":null,"', None], "seats": ["3", "4"], "country": ["Chile", None]})
VIEWS = pl.LazyFrame(
    {
        **KEYS,
        "domain": ["a.com", None],
        "path": ["/x", None],
        "query": ["?q=1", None],
        "hash": [None, None],
        "title": ["T", "U"],
    },
    schema_overrides={"hash": pl.String},
)
USERS = pl.LazyFrame({"user_id": [5], "identity": ["ann"], "email": ["ann@acme.io"]})
TABLE = events_table({"signup": SIGNUP, "pageviews": VIEWS}, USERS, {"signup": "Signed Up"})


@pytest.fixture
def export(bigquery_emulator: object, tmp_path: Path) -> Iterator[WideExport]:
    rest, grpc = bigquery_emulator.rest, bigquery_emulator.grpc  # type: ignore[attr-defined]
    account = BigQueryAccount("demo", endpoint=rest, storage_endpoint=grpc)
    dataset = f"wide_{uuid4().hex[:6]}"
    with account.client() as client:
        client.create_dataset(dataset)
        publisher = BigQueryPublisher(account, dataset, Store(str(tmp_path / "lake")))
        publisher.publish(PUBLICATION, MONDAY, TABLE, "v1")
        yield WideExport(BigQueryWarehouse(account, (dataset,)), dataset)
        client.delete_dataset(dataset, delete_contents=True)


def test_event_types_are_tables_with_their_properties_as_columns(export: WideExport) -> None:
    assert export.tables() == ["pageviews", "signup"]
    assert {"plan", "seats", "country", "event_id"} <= set(export.columns("signup"))
    assert "plan" not in export.columns("pageviews")
    assert set(export.columns("users")) == {"user_id", "identity", "email"}
    assert all(permission.passed for permission in export.preflight())


def test_a_day_of_a_type_is_what_was_published(export: WideExport, tmp_path: Path) -> None:
    for name, rows in (("signup", SIGNUP), ("pageviews", VIEWS)):
        columns = rows.collect_schema().names()
        found, _ = export.read_day(name, MONDAY, columns, tmp_path / f"{name}.parquet")
        assert found.frame.select(columns).sort("event_id").collect().rows() == rows.sort("event_id").collect().rows()
    empty, reading = export.read_day("signup", TUESDAY, ["plan"], tmp_path / "tuesday.parquet")
    assert (empty.frame.collect().height, reading.rows) == (0, 0)


def test_days_have_fingerprints_by_type(export: WideExport) -> None:
    days = export.fingerprints("signup", MONDAY).days
    assert days.select("day", "rows").rows() == [(MONDAY, 2)]


def test_users_are_the_newest_properties_that_events_carry(export: WideExport, tmp_path: Path) -> None:
    users, _ = export.read_users(["identity", "email", "gone"], tmp_path / "users.parquet")
    assert users.frame.collect().rows() == [(5, "ann", "ann@acme.io", None)]
    assert export.read_user_migrations(tmp_path / "none.parquet")[0].frame.collect().height == 0


def test_properties_of_any_name_are_read_and_numbers_keep_their_digits() -> None:
    text = r"""{"a\"b": "x", "c\\d": true, "$[0]": null, "n": 12345678901234567890.123, "m": {"k": [1.10]}}"""
    names = ['a"b', "c\\d", "$[0]", "n", "m", "gone"]
    rows = pl.LazyFrame({"event_properties": [text, None, "no object"]})
    found = _with_members(rows, "event_properties", names).select(map(_member, names)).collect()
    assert found.row(0) == ("x", "true", None, "12345678901234567890.123", '{"k":[1.10]}', None)
    assert found.rows()[1:] == [(None,) * 6] * 2


def test_numbers_that_json_lacks_are_null_and_counted_with_every_row_that_repeats_them() -> None:
    signup = SIGNUP.with_columns(ratio=pl.Series([float("nan"), 0.5]), waits=pl.Series([[1.0, float("inf")], None]))
    users = USERS.with_columns(score=pl.lit(float("-inf")))
    assert values_lost({"signup": signup, "pageviews": VIEWS}, users) == {"event_properties": 2, "user_properties": 2}
    assert values_lost({"signup": SIGNUP, "pageviews": VIEWS}, USERS) == {}
    wide = events_table({"signup": signup}, users).collect()
    first = json.loads(wide["event_properties"][0])
    assert (first["ratio"], first["waits"]) == (None, [1.0, None])
