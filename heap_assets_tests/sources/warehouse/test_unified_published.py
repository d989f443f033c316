"""The table of unified events, published to each engine: its columns, JSON as JSON, a day replaced whole."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from heap_assets.pipelines.publishing import published_tables
from heap_assets.profiles import UNIFIED_SCHEMA, heap_events_unified
from heap_assets.project import Project, parse_settings
from heap_assets.sources.heap_bigquery.events_table import events_table
from heap_assets.sources.heap_connect import Catalogue
from heap_assets.sources.warehouse import PublishStatus
from heap_assets.storage import Lake
from heap_assets_tests.pipelines.delivery_world import CATALOGUE, events
from heap_assets_tests.sources.warehouse.publish_target import MONDAY, TUESDAY, Target

_SETTINGS = """
start_date: 2026-11-01
lake: ./lake
catalogue: ./catalogue.yaml
heap: {app_id: "1", source: {kind: folder, path: ./bucket}}
identity: {identifiers: [{type: heap_user_id}]}
unified_events: {}
publish: {there: {kind: postgres, dsn: "postgresql://nobody@127.0.0.1:1/none"}}
"""


def test_a_day_is_published_with_the_columns_of_the_contract(target: Target, tmp_path: Path) -> None:
    (tmp_path / "catalogue.yaml").write_text(CATALOGUE)
    settings = parse_settings(_SETTINGS, tmp_path / "heap_assets.yaml")
    project = Project(settings, Catalogue.load(settings.catalogue), Lake.open(str(tmp_path / "lake")))
    [publication] = [
        table.publication for table in published_tables(project, "there") if table.sources == ("unified_events",)
    ]
    assert publication.table == "unified_events"
    graph = pl.LazyFrame(
        {"identifier_type": ["heap_user_id"], "identifier": ["1"], "profile_id": ["p1"], "shared": [False]}
    )
    for day in (MONDAY, TUESDAY):
        rows = heap_events_unified(events_table({"signup": events(day, "signup", (1, 1), (2, 7)).lazy()}), graph)
        assert target.publisher.publish(publication, day, rows, f"v {day}").status is PublishStatus.LOADED
    again = heap_events_unified(events_table({"signup": events(MONDAY, "signup", (9, 1)).lazy()}), graph)
    target.publisher.publish(publication, MONDAY, again, "v2")
    table = f"{target.prefix}.unified_events"
    stored = target.query(f"SELECT event_id, profile_id, heap_user_id FROM {table} ORDER BY 1")
    assert stored == [("1", "p1", 1), ("2", None, 7), ("9", "p1", 1)]
    names = target.publisher.column_names(publication, again)
    assert {name.lower() for name in names.values()} == set(UNIFIED_SCHEMA)
    plan = {
        "pub": "properties ->> 'plan'",  # PostgreSQL
    }.get(target.prefix, "JSON_VALUE(properties, '$.plan')")
    if "Snowflake" in target.spelled:
        plan = "properties:plan::text"
    assert target.query(f"SELECT DISTINCT {plan} FROM {table}") == [("pro",)]
