"""Published tables hold what the lake holds: replaced whole by day, never loaded twice, refused with the reason."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from uuid import uuid4

import httpx
import polars as pl
import pytest
from adbc_driver_postgresql import dbapi
from google.cloud import bigquery as gcp

from heap_assets.sources.heap_bigquery.events_table import COLUMNS, PUBLICATION, events_table
from heap_assets.sources.warehouse.bigquery.client import BigQueryAccount
from heap_assets.sources.warehouse.bigquery.evolution import evolved
from heap_assets.sources.warehouse.bigquery.publisher import BigQueryPublisher, destination, load_config, new_table
from heap_assets.sources.warehouse.bigquery.types import schema_of
from heap_assets.sources.warehouse.postgres.publisher import PostgresPublisher
from heap_assets.sources.warehouse.publish import (
    Preview,
    Publication,
    PublishError,
    PublishStatus,
    table_name,
)
from heap_assets.sources.warehouse.snowflake.publisher import SnowflakePublisher
from heap_assets.storage import Store
from heap_assets_tests.sources.warehouse.publish_target import MONDAY, PEOPLE, TUESDAY, Target, people
from heap_assets_tests.storage.test_object_stores import gcs_server


def test_a_day_is_replaced_whole_and_others_stay(target: Target) -> None:
    target.publisher.publish(PEOPLE, MONDAY, people(1, 2), "v1")
    target.publisher.publish(PEOPLE, TUESDAY, people(3), "v1")
    published = target.publisher.publish(PEOPLE, MONDAY, people(4), "v2")
    assert (published.status, published.rows) == (PublishStatus.LOADED, 1)
    rows = target.query(f"SELECT partition_day, id FROM {target.prefix}.people ORDER BY id")
    assert rows == [(TUESDAY, 3), (MONDAY, 4)]


def test_an_equal_version_is_not_loaded_again(target: Target) -> None:
    target.publisher.publish(PEOPLE, MONDAY, people(1, 2), "v1")
    again = target.publisher.publish(PEOPLE, MONDAY, people(99), "v1")
    assert (again.status, again.rows) == (PublishStatus.UNCHANGED, 2)
    forced = target.publisher.publish(PEOPLE, MONDAY, people(1, 2), "v1", force=True)
    assert forced.status is PublishStatus.LOADED
    assert target.query(f"SELECT count(*) FROM {target.prefix}.people") == [(2,)]


def test_unchanged_is_said_of_a_target_that_holds_the_rows(target: Target) -> None:
    table, publish = f"{target.prefix}.people", target.publisher.publish
    for day in (MONDAY, TUESDAY):
        publish(PEOPLE, day, people(1, 2), "v1")
    for condition, a_row_is_there in (("AND id = 2", True), ("", False)):
        target.change(f"DELETE FROM {table} WHERE partition_day = DATE '2026-11-02' {condition}")
        looks_at_one_row = isinstance(target.publisher, PostgresPublisher)
        assert (MONDAY in target.publisher.intact_days("people")) == (a_row_is_there and looks_at_one_row)
        assert publish(PEOPLE, TUESDAY, people(1, 2), "v1").status is PublishStatus.UNCHANGED
        assert publish(PEOPLE, MONDAY, people(1, 2), "v1").status is PublishStatus.LOADED
        assert target.query(f"SELECT count(*) FROM {table}") == [(4,)]
        assert target.publisher.intact_days("people") == {MONDAY, TUESDAY}
    target.change(f"DROP TABLE {table}")
    assert target.publisher.intact_days("people") == set()
    assert target.publisher.newest_intact("people") is None
    assert publish(PEOPLE, MONDAY, people(1, 2), "v1").status is PublishStatus.LOADED
    assert target.publisher.newest_intact("people") == MONDAY
    assert target.publisher.newest_published("people") == TUESDAY


def test_what_a_postgres_was_restored_to_is_not_unchanged(postgres: str, tmp_path: Path) -> None:
    publisher = PostgresPublisher(postgres, "pub", Store(str(tmp_path / "lake")))
    publisher.publish(PEOPLE, MONDAY, people(1, 2), "v1")
    publisher.publish(PEOPLE, TUESDAY, people(), "v1")
    assert publisher.intact_days("people") == {MONDAY, TUESDAY}
    with dbapi.connect(postgres, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TEMP TABLE backup AS SELECT * FROM pub.people")
        publisher.publish(PEOPLE, MONDAY, people(3, 4), "v2")
        cursor.execute("VACUUM (FULL, FREEZE) pub.people")
        assert publisher.publish(PEOPLE, MONDAY, people(3, 4), "v2").status is PublishStatus.UNCHANGED
        cursor.execute("TRUNCATE pub.people")
        cursor.execute("INSERT INTO pub.people SELECT * FROM backup")
        assert publisher.intact_days("people") == {TUESDAY}
        assert publisher.publish(PEOPLE, MONDAY, people(3, 4), "v2").status is PublishStatus.LOADED
        cursor.execute("SELECT id FROM pub.people ORDER BY id")
        assert cursor.fetchall() == [(3,), (4,)]


def test_days_that_a_wider_column_rewrote_are_unchanged(target: Target) -> None:
    publish = target.publisher.publish
    publish(PEOPLE, MONDAY, people(1, plan=7), "v1")
    publish(PEOPLE, TUESDAY, people(2, plan=2.5), "v1")
    assert target.publisher.intact_days("people") == {MONDAY, TUESDAY}
    # Snowflake documents that 7 and 7.0 have one hash; the DuckDB behind its stand-in has two
    differs = isinstance(target.publisher, SnowflakePublisher)
    expected = PublishStatus.LOADED if differs else PublishStatus.UNCHANGED
    assert publish(PEOPLE, MONDAY, people(1, plan=7), "v1").status is expected
    assert publish(PEOPLE, TUESDAY, people(2, plan=2.5), "v1").status is PublishStatus.UNCHANGED


def test_a_load_of_a_release_that_kept_no_transaction_is_told_by_its_rows(target: Target, tmp_path: Path) -> None:
    target.publisher.publish(PEOPLE, MONDAY, people(1), "v1")
    [record] = (tmp_path / "lake" / "_published").rglob("2026-11-02.json")
    record.write_text(json.dumps({"version": "v1", "rows": 1, "at": "2026-11-03T06:00:00+00:00"}))
    assert target.publisher.publish(PEOPLE, MONDAY, people(1), "v1").status is PublishStatus.UNCHANGED
    record.write_text(json.dumps({"version": "v1", "rows": 2, "at": "2026-11-03T06:00:00+00:00"}))
    assert target.publisher.publish(PEOPLE, MONDAY, people(1), "v1").status is PublishStatus.LOADED


def test_an_empty_day_is_published_and_makes_the_table(target: Target) -> None:
    assert target.publisher.publish(PEOPLE, MONDAY, people(), "v1").rows == 0
    assert target.query(f"SELECT count(*) FROM {target.prefix}.people") == [(0,)]


def test_a_day_of_events_that_has_become_empty_is_emptied(target: Target) -> None:
    event = {"event_id": [1], "user_id": [1], "session_id": [1], "time": [datetime(2026, 11, 2, tzinfo=UTC)]}
    events = events_table({"signup": pl.LazyFrame(event)})
    target.publisher.publish(PUBLICATION, MONDAY, events, "v1")
    target.publisher.publish(PUBLICATION, TUESDAY, events, "v1")
    assert target.publisher.publish(PUBLICATION, MONDAY, events.head(0), "v2").rows == 0
    assert target.query(f"SELECT DISTINCT partition_day FROM {target.prefix}.events") == [(TUESDAY,)]


def test_a_table_without_days_is_replaced(target: Target) -> None:
    whole = Publication("whole", by_day=False)
    target.publisher.publish(whole, None, people(1, 2), "v1")
    target.publisher.publish(whole, None, people(3), "v2")
    assert target.query(f"SELECT id FROM {target.prefix}.whole") == [(3,)]


def test_a_new_column_is_added_and_a_missing_one_is_null(target: Target) -> None:
    target.publisher.publish(PEOPLE, MONDAY, people(1, plan="pro", seats=3), "v1")
    added = target.publisher.publish(PEOPLE, TUESDAY, people(2, city="Berlin", plan="team"), "v1")
    assert added.added_columns == ("city",)
    rows = target.query(f"SELECT id, plan, seats, city FROM {target.prefix}.people ORDER BY id")
    assert rows == [(1, "pro", 3, None), (2, "team", None, "Berlin")]


def test_a_type_that_narrows_is_refused_and_nothing_changes(target: Target) -> None:
    target.publisher.publish(PEOPLE, MONDAY, people(1, plan=7), "v1")
    with pytest.raises(PublishError, match=r"'plan'.*can only be widened"):
        target.publisher.publish(PEOPLE, MONDAY, people(2, plan="pro", other=1), "v2")
    assert target.query(f"SELECT id, plan FROM {target.prefix}.people") == [(1, 7)]
    assert target.publisher.publish(PEOPLE, MONDAY, people(1, plan=7), "v1").status is PublishStatus.UNCHANGED


def test_names_that_warehouses_refuse_become_names_that_they_take(target: Target) -> None:
    columns = {"Deal Stage": "x", "Plan": "y", "plan": "z", "partition_day": "w"}
    published = target.publisher.publish(PEOPLE, MONDAY, people(1, **columns), "v1")
    assert published.renamed == {
        "Deal Stage": "Deal_Stage",
        "plan": "plan_64879f",
        "partition_day": "property_partition_day",
    }
    names = "partition_day, Deal_Stage, plan_64879f, property_partition_day"
    if target.prefix == "pub":
        names = names.replace("Deal_Stage", '"Deal_Stage"')
    assert target.query(f"SELECT {names} FROM {target.prefix}.people") == [(MONDAY, "x", "z", "w")]


def test_values_arrive_as_they_are(target: Target) -> None:
    at = datetime(2026, 11, 2, 10, 0, 0, 123456, tzinfo=UTC)
    frame = pl.LazyFrame(
        {
            "text": ['a "quote"\nline, \\ and ü'],
            "moment": [at],
            "day": [MONDAY],
            "flag": [True],
            "amount": [Decimal("1.25")],
            "ratio": [0.1],
            "raw": [b"\x00\xff"],
            "tags": [["a", "b"]],
        },
        schema_overrides={"amount": pl.Decimal(12, 2), "moment": pl.Datetime("us", "UTC")},
    )
    target.publisher.publish(Publication("t"), MONDAY, frame, "v1")
    [row] = target.query(f"SELECT text, moment, day, flag, amount, ratio, raw, tags FROM {target.prefix}.t")
    assert (*row[:7], list(row[7])) == (*frame.collect().row(0)[:7], ["a", "b"]) or str(row[4]) == "1.25"
    assert row[1] == at


def test_structs_are_published(target: Target) -> None:
    frame = pl.LazyFrame({"id": [1, 2], "identifiers": [[{"type": "email", "value": "a"}], []]})
    target.publisher.publish(Publication("profiles"), MONDAY, frame, "v1")
    rows = target.query(f"SELECT identifiers FROM {target.prefix}.profiles ORDER BY id")
    values = [json.loads(value) if isinstance(value, str) else value for (value,) in rows]
    assert values == [[{"type": "email", "value": "a"}], []]


def test_the_wide_events_table_has_the_columns_of_the_guides_and_json(target: Target) -> None:
    at = pl.lit(datetime(2026, 11, 2, 10, tzinfo=UTC))
    keys = {"event_id": 2**60, "user_id": 5, "session_id": 6, "time": at}
    tables = {
        "signup": pl.LazyFrame({"plan": ['x":null,"\n{'], "none": [None]}, schema_overrides={"none": pl.String}),
        "pageviews": pl.LazyFrame({"domain": ["a.com"], "path": ["/x"], "query": ["?q=1"], "title": ["T"]}),
    }
    frame = events_table(
        {name: rows.with_columns(**{k: v if isinstance(v, pl.Expr) else pl.lit(v, pl.Int64) for k, v in keys.items()})
         for name, rows in tables.items()},
        users=pl.LazyFrame({"user_id": [5], "email": ["a@x"], "gone": [None]}),
    )  # fmt: skip
    assert list(frame.collect_schema()) == list(COLUMNS)
    target.publisher.publish(PUBLICATION, MONDAY, frame, "v1")
    path = "JSON_VALUE({}, '$.{}')" if target.publisher.target.startswith("bigquery") else "{}::jsonb->>'{}'"
    plan, email = path.format("event_properties", "plan"), path.format("user_properties", "email")
    rows = target.query(
        f"SELECT event_id, event_type, page_url, page_title, {plan}, {email} FROM {target.prefix}.events ORDER BY 2"
    )
    assert rows == [
        (str(2**60), "pageviews", "a.com/x?q=1", "T", None, "a@x"),
        (str(2**60), "signup", None, None, 'x":null,"\n{', "a@x"),
    ]


def test_a_preview_says_what_would_happen_and_does_nothing(target: Target) -> None:
    assert target.publisher.preview(PEOPLE, people(1), MONDAY) == Preview(creates=True)
    assert not target.publisher.exists("people")
    target.publisher.publish(PEOPLE, MONDAY, people(1), "v1")
    assert target.publisher.preview(PEOPLE, people(1, city="x"), MONDAY) == Preview(False, ("city",))
    with pytest.raises(PublishError, match="'id'"):
        target.publisher.preview(PEOPLE, pl.LazyFrame({"id": ["text"]}), MONDAY)


def test_what_was_done_is_told(target: Target) -> None:
    published = target.publisher.publish(PEOPLE, MONDAY, people(1, 2), "v1")
    assert published.bytes > 100
    assert published.jobs


def test_preflight_tries_to_write(target: Target) -> None:
    assert all(permission.passed for permission in target.publisher.preflight())


def test_a_cell_that_cannot_be_converted_is_not_quoted(target: Target) -> None:
    frame = pl.LazyFrame({"id": ["ann@example.com"]}).with_columns(pl.col("id").str.to_integer(strict=True))
    with pytest.raises(PublishError, match="people 2026-11-02: its rows cannot be made") as caught:
        target.publisher.publish(PEOPLE, MONDAY, frame, "v1")
    assert "ann@example.com" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_day_goes_through_gs_and_nothing_stays_there(bigquery_emulator: object, tmp_path: Path) -> None:
    emulator = bigquery_emulator
    account = BigQueryAccount("demo", endpoint=emulator.rest)  # type: ignore[attr-defined]
    dataset = f"pub_{uuid4().hex[:8]}"
    with gcs_server(emulator.buckets) as options, account.client() as client:  # type: ignore[attr-defined]
        url = options.pop("_url")
        httpx.post(f"{url}/storage/v1/b?project=t", json={"name": "staging"}, trust_env=False).raise_for_status()
        client.create_dataset(dataset)
        staging = Store("gs://staging/heap", options)
        publisher = BigQueryPublisher(account, dataset, Store(str(tmp_path / "lake")), staging)
        publisher.publish(PEOPLE, MONDAY, people(1, 2), "v1")
        publisher.publish(PEOPLE, MONDAY, people(3), "v2")
        assert [row["id"] for row in client.query(f"SELECT id FROM {dataset}.people").result()] == [3]
        assert staging.list() == []
        assert any(job.source_uris for job in client.list_jobs(max_results=5) if isinstance(job, gcp.LoadJob))
        client.delete_dataset(dataset, delete_contents=True)


class TestWhatTheEmulatorCannotRun:
    """Addresses, configurations and statements for Google's own service."""

    def test_a_day_is_loaded_into_its_partition_by_one_replacing_job(self) -> None:
        assert destination("p.d.people", MONDAY) == "p.d.people$20261102"
        config = load_config(PEOPLE, [gcp.SchemaField("id", "INT64")])
        assert (config.write_disposition, config.source_format, config.max_bad_records) == (
            "WRITE_TRUNCATE",
            "PARQUET",
            0,
        )
        assert load_config(PUBLICATION, []).source_format == "NEWLINE_DELIMITED_JSON"

    def test_tables_have_an_explicit_schema_partitions_and_clusters(self) -> None:
        schema = pl.Schema({"partition_day": pl.Date(), "id": pl.Int64(), "tags": pl.List(pl.String)})
        table = new_table("p.d.people", PEOPLE, schema_of(PEOPLE, schema))
        assert (table.time_partitioning.field, table.clustering_fields) == ("partition_day", ["id"])
        assert [(f.name, f.field_type, f.mode, f.description) for f in table.schema] == [
            ("partition_day", "DATE", "NULLABLE", None),
            ("id", "INT64", "NULLABLE", "Key"),
            ("tags", "STRING", "REPEATED", None),
        ]

    def test_types_widen_only_where_bigquery_can(self) -> None:
        old = [gcp.SchemaField("a", "INTEGER"), gcp.SchemaField("b", "STRING"), gcp.SchemaField("c", "DATE")]
        assert evolved("t", old, [gcp.SchemaField("a", "NUMERIC")]).widened == [gcp.SchemaField("a", "NUMERIC")]
        with pytest.raises(PublishError, match="'c' is DATE in BigQuery and would become INT64"):
            evolved("t", old, [gcp.SchemaField("c", "INT64")])
        with pytest.raises(PublishError, match="'a' is INT64 in BigQuery and would become STRING"):
            evolved("t", old, [gcp.SchemaField("a", "STRING")])
        with pytest.raises(PublishError, match="REPEATED STRING"):
            evolved("t", old, [gcp.SchemaField("b", "STRING", "REPEATED")])


def test_assets_get_table_names() -> None:
    assert table_name("heap/events/signup") == "heap_events_signup"
