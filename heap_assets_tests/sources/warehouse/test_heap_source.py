"""Heap's export in BigQuery as the source of the same assets: equal to the dumps, read only where it changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import dagster as dg
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from heap_assets.demo import Company, write_company
from heap_assets.orchestration.assets.exports import exports_sensor
from heap_assets.orchestration.checks import asset_key
from heap_assets.orchestration.definitions import build_definitions
from heap_assets.pipelines import exports
from heap_assets.pipelines.readiness import unbuilt_days
from heap_assets.pipelines.table import Task
from heap_assets.project import parse_settings
from heap_assets.project.project import Project
from heap_assets.sources.heap_connect import Catalogue
from heap_assets.sources.heap_connect.catalogue import CatalogueColumn, CatalogueTable
from heap_assets.sources.warehouse.bigquery.client import BigQueryAccount
from heap_assets.storage import Inputs, Lake
from heap_assets.tables import heap_asset
from heap_assets_tests.orchestration.company_platform import QUIET, ROOT, World, why, yesterday
from heap_assets_tests.sources.warehouse.heap_in_bigquery import ExportedCompany, export_company

PEOPLE = ["heap/users", "heap/user_migrations"]


@dataclass(frozen=True)
class Both:
    """The same truth from dumps and from BigQuery."""

    dumps: World
    bigquery: World
    exported: ExportedCompany

    @property
    def days(self) -> list[str]:
        return [str(day) for day in self.dumps.company.days]


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Company:
    return write_company(tmp_path_factory.mktemp("c"), people=40, days=4, seed=7, until=yesterday(), faults=False)


@pytest.fixture(scope="module")
def both(company: Company, bigquery_emulator: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    rest, grpc = bigquery_emulator.rest, bigquery_emulator.grpc  # type: ignore[attr-defined]
    with BigQueryAccount("demo", endpoint=rest).client() as client:
        exported = export_company(client, company)
        source = f"kind: bigquery, project: demo, dataset: {exported.dataset}, endpoint: '{rest}'"
        source = f"{{{source}, storage_endpoint: '{grpc}'}}"
        made = Both(
            world_of(company, tmp_path_factory.mktemp("dumps"), f"{{kind: folder, path: '{company.bucket}'}}"),
            world_of(company, tmp_path_factory.mktemp("bigquery"), source),
            exported,
        )
        for dump in company.dump_ids.values():
            assert made.dumps.land(dump).success
        result = look(made.bigquery)
        assert result.success, why(result)
        for world in (made.dumps, made.bigquery):
            assert world.run(world.event_assets, made.days[0], made.days[-1]).success
            assert world.run(PEOPLE, made.days[-1]).success
        yield made
        client.delete_dataset(exported.dataset, delete_contents=True)


def world_of(company: Company, folder: Path, source: str) -> World:
    text = (ROOT / "heap_assets.yaml").read_text().replace("2026-01-01", str(company.first_day), 1)
    text = text.replace('{kind: folder, path: "${HEAP_ASSETS_DEMO:-./data/demo}/bucket"}', source)
    text = text.replace("${HEAP_ASSETS_DEMO:-./data/demo}", str(company.folder))
    settings = parse_settings(text, folder / "heap_assets.yaml")
    settings = settings.model_copy(update={"lake": settings.lake.model_copy(update={"url": str(folder / "lake")})})
    catalogue = Catalogue.load(ROOT / "heap_catalogue.yaml")
    project = Project(settings, catalogue, Lake.open(settings.lake.url))
    return World(company, project, build_definitions(project))


def look(world: World, since: str = "") -> dg.ExecuteInProcessResult:
    job = world.definitions.resolve_implicit_global_asset_job_def()
    chosen = job.get_subset(asset_selection={asset_key("heap_connect/exports")})
    config = {"ops": {"heap_connect__exports": {"config": {"since": since}}}, **QUIET}
    return chosen.execute_in_process(instance=world.instance, raise_on_error=False, run_config=config)


def landed_by(result: dg.ExecuteInProcessResult) -> set[str | None]:
    return {
        event.partition
        for event in result.get_asset_materialization_events()
        if event.asset_key == asset_key("heap_connect/landed")
    }


def numbers(result: dg.ExecuteInProcessResult) -> dict[str, object]:
    [event] = [e for e in result.get_asset_materialization_events() if e.asset_key == asset_key("heap_connect/exports")]
    found = event.step_materialization_data.materialization.metadata
    return {name: value.value for name, value in found.items()}


def today_users(world: World, asset: str, day: str) -> pl.DataFrame:
    """Rows of a day with user_id through user_migrations, one for each event and user, everything as text.

    Some tables' dumps tell times in seconds, BigQuery always in microseconds.
    """
    lake, newest = world.project.lake, str(world.company.until)
    moves = lake.scan("heap/user_migrations", newest).select(pl.col("from_user_id").alias("user_id"), "resolved_to")
    rows = lake.scan(asset, day).join(moves, on="user_id", how="left")
    rows = rows.with_columns(pl.coalesce("resolved_to", "user_id").alias("user_id"), pl.col("time").dt.truncate("1s"))
    found = rows.drop("resolved_to").unique(["event_id", "user_id"]).sort("event_id", "user_id").collect()
    return found.with_columns(pl.all().cast(pl.String))


def test_the_same_truth_gives_equal_rows_once_user_ids_go_through_migrations(both: Both) -> None:
    rows = 0
    for asset in both.dumps.event_assets:
        for day in both.days:
            from_dumps, from_bigquery = (today_users(world, asset, day) for world in (both.dumps, both.bigquery))
            assert set(from_dumps.columns) == set(from_bigquery.columns)
            assert_frame_equal(from_bigquery.select(from_dumps.columns), from_dumps)
            rows += from_dumps.height
    assert rows > 50
    for asset in PEOPLE:
        frames = [
            world.project.lake.scan(asset, both.days[-1]).collect().with_columns(pl.all().cast(pl.String))
            for world in (both.dumps, both.bigquery)
        ]
        keys = [name for name in ("user_id", "from_user_id") if name in frames[0].columns]
        assert_frame_equal(frames[1].select(frames[0].columns).sort(keys), frames[0].sort(keys))


def test_ids_and_times_have_the_types_they_have_from_dumps(both: Both) -> None:
    keys = ("event_id", "user_id", "session_id", "time", "joindate", "last_modified", "from_user_id", "resolved_to")
    for asset in [*both.dumps.event_assets, *PEOPLE]:
        found = []
        for world in (both.dumps, both.bigquery):
            schema = world.project.lake.scan(asset, both.days[-1]).collect_schema()
            found.append({name: schema[name] for name in keys if name in schema})
        assert found[0] == found[1]


def test_a_second_look_with_nothing_changed_reads_no_rows_and_builds_nothing(both: Both) -> None:
    world = both.bigquery
    before = world.project.lake.versions("heap/pageviews")
    result = look(world)
    assert result.success
    assert (numbers(result)["days_changed"], numbers(result)["rows"]) == (0, 0)
    jobs = both.exported.jobs()
    built = world.run(world.event_assets, both.days[0], both.days[-1])
    assert built.success
    assert both.exported.jobs() == jobs, "no query was run"
    assert world.project.lake.versions("heap/pageviews") == before


def test_the_sensor_asks_only_after_a_sync_and_runs_no_query(both: Both) -> None:
    world = both.bigquery
    look(world)
    sensor = exports_sensor(world.project, interval_seconds=60, status=dg.DefaultSensorStatus.STOPPED)
    jobs = both.exported.jobs()
    assert isinstance(sensor(dg.build_sensor_context(instance=world.instance)), dg.SkipReason)
    both.exported.synced("sign_up", f"{both.days[-1]} 23:59:59+00")
    jobs += 1
    asked = sensor(dg.build_sensor_context(instance=world.instance))
    assert isinstance(asked, dg.RunRequest)
    assert both.exported.jobs() == jobs
    assert look(world).success
    assert isinstance(sensor(dg.build_sensor_context(instance=world.instance)), dg.SkipReason)


def test_late_rows_and_users_that_changed_rebuild_their_own_days_only(both: Both) -> None:
    world, exported = both.bigquery, both.exported
    late, changed = both.days[1], both.days[2]
    [(event, user)] = exported.query(
        "SELECT event_id, user_id FROM {d}.pageviews_raw "
        f"WHERE DATE(time) = DATE '{changed}' ORDER BY event_id LIMIT 1"
    )
    columns = "event_id, user_id, session_id, time, dump_number"
    exported.query(
        f"INSERT INTO {{d}}.pageviews_raw ({columns}) VALUES (77, {user}, 1, TIMESTAMP '{late} 12:00:00+00', 9)"
    )
    exported.query(f"UPDATE {{d}}.pageviews_raw SET user_id = 4242 WHERE event_id = {event}")
    exported.synced("pageviews", (datetime.now(UTC) - timedelta(hours=1)).isoformat())

    result = look(world)

    assert numbers(result)["days_changed"] == 2
    today = datetime.now(UTC).date()
    assert landed_by(result) == {late, changed, str(today), str(today - timedelta(days=1))}
    assert unbuilt_days(world.project)["heap/pageviews"] >= {date.fromisoformat(late), date.fromisoformat(changed)}
    before = world.project.lake.versions("heap/pageviews")
    assert world.run(["heap/pageviews"], both.days[0], both.days[-1]).success
    after = world.project.lake.versions("heap/pageviews")
    assert {day for day in after if before.get(day) != after[day]} == {late, changed}
    rows = world.project.lake.scan("heap/pageviews", [late, changed]).collect()
    assert rows.filter(pl.col("event_id") == 77).height == 1
    assert rows.filter(pl.col("event_id") == event)["user_id"].to_list() == [4242]


def test_one_view_that_is_gone_stops_no_other_and_is_named(both: Both) -> None:
    world = both.bigquery
    [(definition,)] = both.exported.query(
        "SELECT view_definition FROM {d}.INFORMATION_SCHEMA.VIEWS WHERE table_name = 'sign_up'"
    )
    both.exported.query("DROP VIEW {d}.sign_up")
    both.exported.synced("sign_up", datetime.now(UTC).isoformat())
    try:
        result = look(world, since=both.days[0])
        assert result.success
        assert world.checked(result, "heap_connect/exports", "every_table_seen") == {None: False}
        assert "sign_up" in str(exports.export_log(world.project).table("sign_up").failure)
        built = world.run(["heap/events/sign_up", "heap/sessions"], both.days[-1])
        assert world.checked(built, "heap/events/sign_up", "readable") == {both.days[-1]: False}
        assert world.checked(built, "heap/sessions", "readable") == {both.days[-1]: True}
        assert not exports.missing(world.project), "the raw table of a view that is gone is no new event"
    finally:
        both.exported.query(f"CREATE VIEW {{d}}.sign_up AS {definition}")


def test_the_catalogue_is_held_against_the_views(both: Both) -> None:
    empty = Project(both.bigquery.project.settings, Catalogue(), both.bigquery.project.lake)
    found = exports.missing(empty)
    assert {"pageviews", "sign_up", "users", "user_migrations"} <= set(found.tables)
    assert "dump_number" not in found.tables["pageviews"]
    assert "_key_events__export_data_" in found.tables
    assert not {name for name in found.tables if name.endswith("_raw") or name == "_sync_info"}


def people_of(both: Both, tmp_path: Path, statements: str) -> Project:
    """Return a platform on a lake of its own whose export has users and migrations made by statements."""
    dataset = f"{both.exported.dataset}_{uuid4().hex[:6]}"
    both.exported.client.create_dataset(dataset)
    for statement in statements.format(d=dataset).split(";"):
        both.exported.client.query(statement).result()
    settings = both.bigquery.project.settings
    source = settings.heap.source.model_copy(update={"dataset": dataset})
    settings = settings.model_copy(update={"heap": settings.heap.model_copy(update={"source": source})})
    column = CatalogueColumn()
    users = CatalogueTable("Users", {"plan": column, "migrated_to": column})
    return Project(settings, Catalogue({"users": users}), Lake.open(str(tmp_path / "lake")))


PROPERTY_CALLED_LIKE_OURS = """
CREATE TABLE {d}.users AS SELECT 1 AS user_id, 'pro' AS plan, 'Berlin' AS migrated_to UNION ALL SELECT 2, NULL, NULL;
CREATE TABLE {d}.user_migrations AS SELECT 1 AS from_user_id, 2 AS to_user_id
"""


def test_a_property_called_like_a_column_of_ours_gets_another_name(both: Both, tmp_path: Path) -> None:
    project = people_of(both, tmp_path, PROPERTY_CALLED_LIKE_OURS)
    made = exports.users_of_day(Task(project, yesterday(), tmp_path))
    assert made is not None
    rows = made.frame.select("user_id", "plan", "migrated_to", "property_migrated_to").collect()
    assert rows.rows() == [(1, "pro", 2, "Berlin"), (2, None, None, None)]


def test_users_are_written_once_more_when_their_version_was_computed_in_an_older_way(
    both: Both, tmp_path: Path
) -> None:
    project, day = people_of(both, tmp_path, PROPERTY_CALLED_LIKE_OURS), yesterday()

    def build() -> tuple[str, object]:
        made = exports.users_of_day(Task(project, day, tmp_path))
        assert made is not None
        written = project.lake.write("heap/users", str(day), made.frame, made.inputs, notes=made.notes)
        return str(written.status), made.notes.get("rewritten")

    assert build() == ("written", None)
    assert build() == ("unchanged", None)
    stored = project.lake.find("heap/users", str(day))
    assert stored is not None
    older = {name: "2-6fd1" if name.endswith("users") else version for name, version in stored.inputs.versions.items()}
    rows = project.lake.scan("heap/users", str(day)).collect().lazy()
    project.lake.write("heap/users", str(day), rows, Inputs(older))
    status, said = build()
    assert status == "written"
    assert "in a new way" in str(said)
    assert build() == ("unchanged", None)


def test_preflight_names_what_the_dataset_lacks(both: Both) -> None:
    assert all(permission.passed for permission in exports.open_export(both.bigquery.project).preflight())


def test_the_graph_is_resolved_from_the_export_as_from_dumps(both: Both) -> None:
    definitions = both.bigquery.definitions.resolve_asset_graph().get_all_asset_keys()
    names = {key.to_user_string() for key in definitions}
    assert "heap_connect/exports" in names
    assert "heap_connect/dumps" not in names
    assert heap_asset("pageviews") in names


def test_the_version_of_columns_is_spelled_here_and_not_by_polars() -> None:
    time = pl.Datetime("us", "UTC")
    schema = {"event_id": pl.Int64(), "user_id": pl.Int64(), "session_id": pl.Int64(), "time": time}
    assert exports.columns_version({**schema, "plan": pl.String(), "it's": pl.String()}) == "773f0f48cf88cfe2"
