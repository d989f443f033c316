"""Statements that BigQuery refuses are found, and none of ours is one."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest
from google.cloud import bigquery

from heap_assets.sources.warehouse import Newer
from heap_assets.sources.warehouse.bigquery.names import relation_of
from heap_assets.sources.warehouse.bigquery.publisher import (
    add_column_statement,
    delete_statement,
    rounded_query,
    swap_statement,
    view_statement,
    widen_column_statement,
)
from heap_assets.sources.warehouse.bigquery.sql import condition, select, tally_query
from heap_assets.sources.warehouse.resolved_views import ResolvedOn
from heap_assets_tests.sources.warehouse.bigquery_rules import refusals

MONDAY = date(2026, 11, 2)
NAME, SHARDS = relation_of("p.d.t", "p"), relation_of("example.com:p.d.t_*", "p")
TABLE = bigquery.Table(
    "p.d.t",
    [
        bigquery.SchemaField("at", "TIMESTAMP"),
        bigquery.SchemaField("day", "DATE"),
        bigquery.SchemaField("l", "DATETIME"),
        bigquery.SchemaField("lasted", "INTERVAL"),
        bigquery.SchemaField("breaks", "INTERVAL", "REPEATED"),
    ],
)
SINCE = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("SELEC 1", "dialect"),
        ("SELECT a::STRING FROM `p.d.t`", "::"),
        ("SELECT 1 FROM t WHERE TIMESTAMP '2026-01-01 00:00:00+00' >= DATE '2026-01-01'", "compares DATE with"),
        ("SELECT event_properties, COUNT(*) FROM t GROUP BY event_properties", "groups by JSON"),
        ("DELETE FROM `p.d.t`", "without WHERE"),
        ("SELECT * FROM `p.d.t$20261101`", "partition's address"),
        ("SELECT hash(a) FROM t", "DuckDB"),
        ("CREATE TABLE t (_PARTITIONTIME2 DATE)", "_PARTITION"),
    ],
)
def test_known_refusals_are_found(statement: str, reason: str) -> None:
    assert any(reason in found for found in refusals(statement)), refusals(statement)


@pytest.mark.parametrize(
    "statement",
    [
        *(
            select(name, TABLE.schema, condition(name, TABLE, Newer(column, SINCE, SINCE)))
            for column in ("at", "day", "l")
            for name in (NAME, SHARDS)
        ),
        tally_query(NAME, "at", ""),
        add_column_statement("p.d.t", bigquery.SchemaField("city", "STRING", description='Where "now"')),
        widen_column_statement("p.d.t", bigquery.SchemaField("a", "NUMERIC", "REPEATED")),
        rounded_query("p.d.t", bigquery.SchemaField("a", "INT64"), by_day=True),
        rounded_query("p.d.t", bigquery.SchemaField("a", "INT64", "REPEATED"), by_day=True),
        delete_statement("p.d.t", MONDAY),
        delete_statement("p.d.t", None),
        swap_statement("p.d.t", "p.d.t__1", MONDAY, ["id"]),
        view_statement("p", "d", "heap_events_signup", "heap_resolved", ResolvedOn(MONDAY, MONDAY), "x"),
        view_statement("p", "d", "events", "heap_resolved", ResolvedOn(MONDAY, MONDAY), "x", user_is_text=True),
    ],
)
def test_our_statements_are_not_among_them(statement: str) -> None:
    assert refusals(statement) == []
