"""`publish: full: daily`: each table whole beside the one by day, replaced at once, once a day."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from adbc_driver_postgresql import dbapi

from heap_assets.orchestration.checks import asset_key
from heap_assets.orchestration.definitions import build_definitions
from heap_assets.pipelines.publishing import (
    due_days,
    last_published,
    open_publisher,
    publish_day,
    published_tables,
    resolvable,
)
from heap_assets.project import parse_settings
from heap_assets.project.project import Project
from heap_assets.sources.heap_connect import Catalogue
from heap_assets.sources.heap_connect.catalogue import CatalogueTable
from heap_assets.sources.warehouse import PublishStatus
from heap_assets.storage import Lake

DAYS = [date(2026, 11, 19), date(2026, 11, 20)]


@pytest.fixture
def project(postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("HEAP_ASSETS_NOW", "2026-11-21T12:00:00+00:00")
    text = f"""
start_date: 2026-11-01
lake: ./lake
heap: {{app_id: "1", source: {{kind: folder, path: ./bucket}}}}
identity: {{identifiers: [{{type: heap_user_id, shared_above: 1}}]}}
publish:
  there:
    kind: postgres
    dsn: '{postgres}'
    schema: pub
    full: daily
    assets: [heap/events/signup, heap/users, heap/user_migrations, identity/graph, events]
"""
    settings = parse_settings(text, tmp_path / "heap_assets.yaml")
    project = Project(settings, Catalogue({"signup": CatalogueTable("Signed up")}), Lake.open(settings.lake.url))
    for number, day in enumerate(DAYS):
        write_signup(project, day, plan=f"v{number}")
        project.lake.write("heap/users", str(day), pl.DataFrame({"user_id": [*range(number + 1)]}))
    return project


def write_signup(project: Project, day: date, **columns: object) -> None:
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    rows = {"event_id": [day.day], "user_id": [1], "session_id": [1], "time": [noon]}
    project.lake.write("heap/events/signup", str(day), pl.DataFrame({**rows, **{k: [v] for k, v in columns.items()}}))


def publish_all(project: Project) -> dict[str, list[PublishStatus]]:
    publisher = open_publisher(project, "there")
    return {
        table.publication.table: [
            publish_day(project, publisher, table, day).status for day in due_days(project, publisher, table)
        ]
        for table in published_tables(project, "there")
        if set(table.sources) & {"heap/events/signup", "heap/users"}
    }


def ask(uri: str, query: str) -> list[tuple[object, ...]]:
    with dbapi.connect(uri) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        return [tuple(row) for row in cursor.fetchall()]


def test_a_whole_table_has_all_days_of_events_and_the_newest_of_users(project: Project, postgres: str) -> None:
    loaded = publish_all(project)
    assert loaded["heap_events_signup_full"] == [PublishStatus.LOADED]
    whole = ask(postgres, "SELECT partition_day, event_id, plan FROM pub.heap_events_signup_full ORDER BY 1")
    assert whole == [(DAYS[0], 19, "v0"), (DAYS[1], 20, "v1")]
    users = ask(postgres, "SELECT partition_day, user_id FROM pub.heap_users_full ORDER BY 2")
    assert users == [(DAYS[1], 0), (DAYS[1], 1)]
    assert ask(postgres, "SELECT count(*) FROM pub.events_full") == [(2,)]
    assert all(not statuses for statuses in publish_all(project).values()), "twice is once"


def test_a_late_row_and_a_day_that_is_gone_replace_the_whole_at_once(project: Project, postgres: str) -> None:
    publish_all(project)
    write_signup(project, DAYS[0], plan="late", partition_day="theirs")
    project.lake.delete("heap/events/signup", str(DAYS[1]))
    assert publish_all(project)["heap_events_signup_full"] == [PublishStatus.LOADED]
    columns = "partition_day, plan, property_partition_day"
    assert ask(postgres, f"SELECT {columns} FROM pub.heap_events_signup_full") == [(DAYS[0], "late", "theirs")]


def test_a_whole_table_that_somebody_dropped_is_made_anew(project: Project, postgres: str) -> None:
    publish_all(project)
    with dbapi.connect(postgres, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("DROP TABLE pub.heap_users_full")
    assert publish_all(project)["heap_users_full"] == [PublishStatus.LOADED]


def test_whole_tables_are_told_of_and_have_no_views_of_their_own(project: Project) -> None:
    publish_all(project)
    tables = {table.publication.table: table for table in published_tables(project, "there")}
    day, at = last_published(open_publisher(project, "there"), tables["heap_events_signup_full"])
    assert at is not None
    assert day == at.date()
    assert {table.publication.table for table in resolvable(project, "there")} == {"events", "heap_events_signup"}


def test_a_schedule_of_its_own_asks_for_them_once_a_day(project: Project) -> None:
    definitions = build_definitions(project)
    schedule = definitions.resolve_schedule_def("publish_whole_to_there")
    assert schedule.cron_schedule == "0 7 * * *"
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_schedule_context(instance=instance, repository_def=definitions.get_repository_def())
        [request] = schedule.evaluate_tick(context).run_requests or []
        assert request.partition_key == str(DAYS[1])
        publish_all(project)
        tick = schedule.evaluate_tick(context)
        assert (tick.run_requests, tick.skip_message) == ([], "every day that was built is published")
    graph = definitions.resolve_asset_graph()
    by_day, whole = (asset_key(f"publish/there/heap_events_signup{end}") for end in ("", "_full"))
    assert graph.get(by_day).automation_condition is not None
    assert graph.get(whole).automation_condition is None
