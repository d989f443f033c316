"""Publishing as part of the platform: an asset for each table and target, from the settings to rows in a warehouse."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg
import polars as pl
import pytest
import servers
from adbc_driver_postgresql import dbapi
from click.testing import CliRunner

from heap_assets.cli.publish import publish as publish_command
from heap_assets.cli.sources import preflight as preflight_command
from heap_assets.demo import Company, write_company
from heap_assets.errors import SettingsError
from heap_assets.orchestration.checks import asset_key
from heap_assets.orchestration.definitions import build_definitions
from heap_assets.pipelines.publishing import due_days, open_publisher, published_tables
from heap_assets.project import parse_settings
from heap_assets.project.environment import ENVIRONMENT_KEY
from heap_assets.project.project import Project
from heap_assets.sources.heap_connect import Catalogue
from heap_assets.sources.warehouse import AccessError
from heap_assets.sources.warehouse.bigquery.client import BigQueryAccount
from heap_assets.sources.warehouse.postgres.reader import PostgresWarehouse
from heap_assets.storage import Lake
from heap_assets_tests.orchestration.company_platform import ROOT, World, why, yesterday

ASSETS = ["heap/pageviews", "heap/users", "heap/user_migrations", "identity/graph", "profiles", "events"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A company whose newest two days are built up to profiles."""
    company = write_company(tmp_path_factory.mktemp("c"), people=40, days=4, seed=7, until=yesterday(), faults=False)
    folder = tmp_path_factory.mktemp("w")
    world = world_of(company, folder, str(folder / "lake"))
    for dump in company.dump_ids.values():
        assert world.land(dump).success
    newest, touched = str(company.until), sorted(world.materialized("heap_connect/landed"))
    assert world.run(world.event_assets, touched[0], touched[-1]).success
    assert world.run(["heap/users", "heap/user_migrations"], newest).success
    tables = [f"warehouse/{name}" for name in world.project.settings.warehouse.tables]  # type: ignore[union-attr]
    assert world.run(tables, newest).success
    identity = [f"identity/{name}" for name in ("links", "graph", "conflicts", "shared", "changes")]
    result = world.run([*identity, "profiles"], newest)
    assert result.success, why(result)
    return world


@dataclass(frozen=True)
class Published:
    world: World
    query: Callable[[str], list[tuple[Any, ...]]]
    prefix: str


@pytest.fixture(params=["postgres", "bigquery"])
def published(request: pytest.FixtureRequest, built: World, tmp_path: Path) -> Iterator[Published]:
    lists = f"assets: [{', '.join(ASSETS)}]"
    if request.param == "postgres":
        uri = request.getfixturevalue("postgres")
        world = with_publish(built, f"  there: {{kind: postgres, dsn: '{uri}', schema: pub, {lists}}}")
        with dbapi.connect(uri, autocommit=True) as connection, connection.cursor() as cursor:

            def ask(text: str) -> list[tuple[Any, ...]]:
                cursor.execute(text)
                return [tuple(row) for row in cursor.fetchall()]

            yield Published(world, ask, "pub")
    else:
        emulator = request.getfixturevalue("bigquery_emulator")
        dataset = f"pub_{uuid4().hex[:8]}"
        target = f"{{kind: bigquery, project: demo, dataset: {dataset}, endpoint: '{emulator.rest}', {lists}}}"
        world = with_publish(built, f"  there: {target}")
        with BigQueryAccount("demo", endpoint=emulator.rest).client() as client:
            client.create_dataset(dataset)
            yield Published(world, lambda text: [tuple(row.values()) for row in client.query(text).result()], dataset)
            client.delete_dataset(dataset, delete_contents=True)
            client.delete_dataset("heap_resolved", delete_contents=True, not_found_ok=True)
    for info in built.project.lake.store.list("_published"):
        built.project.lake.store.delete(info.key)


def with_publish(built: World, section: str) -> World:
    lake = built.project.settings.lake.url
    Lake.open(lake).store.delete(ENVIRONMENT_KEY)  # each test has another place under the same name
    return world_of(built.company, Path(lake).parent, lake, f"\npublish:\n{section}\n")


def world_of(company: Company, folder: Path, lake: str, more: str = "") -> World:
    """The demo's settings over a company that begins with its first day of use: few days to build."""
    text = (ROOT / "heap_assets.yaml").read_text().replace("2026-01-01", str(company.first_day), 1)
    text = text.replace("${HEAP_ASSETS_DEMO:-./data/demo}", str(company.folder)) + more
    settings = parse_settings(text, folder / "heap_assets.yaml")
    settings = settings.model_copy(update={"lake": settings.lake.model_copy(update={"url": lake})})
    project = Project(settings, Catalogue.load(ROOT / "heap_catalogue.yaml"), Lake.open(lake))
    return World(company, project, build_definitions(project))


def statuses(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    return {
        event.asset_key.to_user_string(): str(event.step_materialization_data.materialization.metadata["status"].value)
        for event in result.get_asset_materialization_events()
        if event.asset_key is not None
    }


def test_a_range_publishes_the_days_that_are_built_and_names_the_others(published: Published) -> None:
    world, newest = published.world, str(published.world.company.until)
    older = str(published.world.company.days[-2])
    result = world.run(["publish/there/profiles"], older, newest)
    assert result.success, why(result)
    assert world.materialized("publish/there/profiles") == {newest}
    seen = [e.asset_observation_data.asset_observation for e in result.all_events if e.is_asset_observation]
    assert [(one.partition, "has no partition" in str(one.metadata["waits"].value)) for one in seen] == [(older, True)]
    assert published.query(f"SELECT count(DISTINCT partition_day) FROM {published.prefix}.profiles") == [(1,)]


def test_a_day_is_published_and_a_second_run_loads_nothing(published: Published) -> None:
    world, day = published.world, str(published.world.company.until)
    tables = [table.asset for table in published_tables(world.project, "there")]
    assert tables[-1] == "publish/there/events"

    views = world.definitions.resolve_implicit_global_asset_job_def().get_subset(
        asset_selection={asset_key("publish/there/heap_resolved")}
    )
    before = views.execute_in_process(instance=world.instance).get_asset_materialization_events()
    assert "nothing to resolve with" in str(before[0].materialization.metadata["views"].value)
    first = world.run(tables, day)

    assert first.success, why(first)
    assert statuses(first) == dict.fromkeys(tables, "loaded")
    rows = world.project.lake.scan("heap/pageviews", day).collect().height
    count = f"SELECT count(*) FROM {published.prefix}.heap_pageviews"
    assert published.query(count) == [(rows,)]
    again = world.run(tables, day)
    again_unchanged = dict.fromkeys(tables, "unchanged")
    assert statuses(again) == again_unchanged
    assert published.query(count) == [(rows,)]

    assert views.execute_in_process(instance=world.instance).success
    [(resolved, people)] = published.query("SELECT count(*), count(profile_id) FROM heap_resolved.heap_pageviews")
    assert (resolved, people) == (rows, rows)

    returning = "RETURNING 1" if published.prefix == "pub" else ""
    published.query(f"DELETE FROM {published.prefix}.identity_graph WHERE partition_day = DATE '{day}' {returning}")
    lost = views.execute_in_process(instance=world.instance, raise_on_error=False)
    assert f"identity_graph of {day} was published" in why(lost)
    assert statuses(world.run(tables, day)) == {**again_unchanged, "publish/there/identity_graph": "loaded"}


@pytest.mark.parametrize("published", ["postgres"], indirect=True)
def test_a_range_of_days_is_published_in_one_run_with_a_result_for_each(published: Published) -> None:
    world = published.world
    days = [str(day) for day in world.company.days[-3:]]
    assert world.run(["publish/there/events"], days[0], days[-1]).success
    assert set(days) <= world.materialized("publish/there/events")
    wanted = [
        sum(world.project.lake.find(asset, day).rows for asset in world.event_assets)  # type: ignore[union-attr]
        for day in days
    ]
    counted = published.query(
        f"SELECT partition_day, count(*) FROM {published.prefix}.events GROUP BY partition_day ORDER BY partition_day"
    )
    assert counted == [(world.company.days[-3 + at], rows) for at, rows in enumerate(wanted)]


@pytest.mark.parametrize("published", ["postgres"], indirect=True)
def test_one_table_that_is_refused_does_not_keep_the_others_back(published: Published) -> None:
    world, day = published.world, str(published.world.company.until)
    assert world.run(["publish/there/heap_pageviews"], day).success
    lake = world.project.lake
    before = lake.scan("heap/pageviews", day).collect()
    try:
        lake.write("heap/pageviews", day, before.with_columns(pl.lit("none").alias("session_id")))
        result = world.run(["publish/there/heap_pageviews", "publish/there/heap_users"], day)
        assert not result.success
        assert "'session_id'" in why(result)
        assert day in world.materialized("publish/there/heap_users")
    finally:
        lake.write("heap/pageviews", day, before)
    assert published.query(f"SELECT count(*) FROM {published.prefix}.heap_pageviews") == [(before.height,)]


@pytest.mark.parametrize("published", ["bigquery"], indirect=True)
def test_the_command_line_publishes_what_is_due(published: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    world = published.world
    monkeypatch.setattr("heap_assets.cli.publish.open_project", lambda: world.project)
    run = CliRunner().invoke
    dry = run(publish_command, ["--asset", "heap/pageviews", "--dry-run"])
    assert "days would be loaded" in dry.output, dry.output
    assert "the table would be made" in dry.output
    done = run(publish_command, ["--asset", "heap/pageviews", "--asset", "events"])
    assert done.exit_code == 0, done.output
    assert done.output.count("days loaded") == 2
    again = run(publish_command, ["--asset", "heap/pageviews", "--asset", "events"])
    assert again.output.count("unchanged") == 2
    publisher = open_publisher(world.project, "there")
    assert not any(
        due_days(world.project, publisher, table)
        for table in published_tables(world.project, "there")
        if table.publication.table in ("heap_pageviews", "events")
    )
    lost = run(publish_command, ["--asset", "profiles", "--day", "2026-01-05"])
    assert (lost.exit_code, "profiles has no partition 2026-01-05" in lost.output) == (1, True)


@pytest.mark.parametrize(
    ("dsn", "more", "retries"),
    [
        ("postgresql://127.0.0.1:1/db", "", 2),
        ("postgresql://{address}/nodb", "", 0),
        ("postgresql://bi.example/db", "allowed_hosts: [other.example]\n", 0),
        ("host=bi port=x", "", 0),
    ],
    ids=["away", "refused by the server", "a host that is not allowed", "unreadable"],
)
def test_only_a_target_that_is_away_is_tried_again(
    built: World, postgres_cluster: str, monkeypatch: pytest.MonkeyPatch, dsn: str, more: str, retries: int
) -> None:
    monkeypatch.setattr("heap_assets.orchestration.assets.publish._LATER", dg.RetryPolicy(max_retries=2, delay=0))
    target = f"  there: {{kind: postgres, dsn: '{dsn.format(address=postgres_cluster)}', assets: [heap/users]}}\n{more}"
    world = with_publish(built, target)
    result = world.run(["publish/there/heap_users"], str(world.company.until))
    assert not result.success
    assert sum(event.is_step_up_for_retry for event in result.all_events) == retries, why(result)


def test_a_server_that_is_away_is_never_unchanged(built: World, monkeypatch: pytest.MonkeyPatch) -> None:
    run, day = CliRunner().invoke, str(built.company.until)
    only = ["--asset", "heap/users", "--day", day]
    with servers.postgres_cluster() as address:
        uri = f"postgresql://{address}/postgres"
        target = f"  there: {{kind: postgres, dsn: '{uri}', schema: pub, assets: [heap/users], resolved_views: null}}"
        world = with_publish(built, target)
        monkeypatch.setattr("heap_assets.cli.publish.open_project", lambda: world.project)
        monkeypatch.setattr("heap_assets.cli.sources.open_project", lambda: world.project)
        done = run(publish_command, only)
        assert (done.exit_code, "1 days loaded" in done.output) == (0, True), done.output
        assert "unchanged" in run(publish_command, only).output
        with dbapi.connect(uri, autocommit=True) as connection, connection.cursor() as cursor:
            cursor.execute("DROP TABLE pub.heap_users")
        assert "days loaded" in run(publish_command, ["--asset", "heap/users"]).output, "the table was gone"
        assert "unchanged" in run(publish_command, ["--asset", "heap/users"]).output
    for command in (only, ["--asset", "heap/users"], ["--asset", "heap/users", "--dry-run"]):
        away = run(publish_command, command)
        assert away.exit_code == 1, away.output
        assert "cannot be reached" in away.output
        assert "unchanged" not in away.output
    assert run(preflight_command, []).exit_code == 1
    source = PostgresWarehouse(uri)
    for ask in (source.tables, lambda: source.version("pub.t"), lambda: source.columns("pub.t")):
        with pytest.raises(AccessError, match="cannot be reached"):
            ask()


@pytest.mark.parametrize(
    ("section", "complaint"),
    [
        ("  a: {kind: postgres, dsn: 'postgresql://u:hunter2@h/d'}", "publish.a.dsn holds a password"),
        ('  a: {kind: bigquery, project: p, dataset: d, credentials: \'{"private_key": "hunter2"}\'}', "holds a key"),
        ("  a: {kind: bigquery, project: p, dataset: d, credentials: {private_key: hunter2}}", "holds a key"),
        ("  a: {kind: bigquery, project: p, dataset: d, staging: 's3://b'}", "staging is 's3://b'; expected: gs://"),
        ("  a: {kind: postgres, dsn: 'postgresql://h/d', assets: [heap/uses]}", r"assets\[0\] is 'heap/uses'"),
        ("  a: {kind: postgres, dsn: 'postgresql://h/d', scema: x}", "Did you mean 'schema'"),
        ("  a: {kind: postgres, dsn: 'postgresql://h/d', resolved_views: profiles}", "the name of the table profiles"),
        (
            "  a: {kind: postgres, dsn: 'postgresql://h/d', schema: x, resolved_views: X}",
            "the name of where its tables",
        ),
        ("  a: {kind: snowflake}", "publish.a"),
    ],
)
def test_mistakes_in_the_section_are_named_and_no_secret_is_repeated(
    built: World, section: str, complaint: str
) -> None:
    with pytest.raises(SettingsError, match=complaint) as caught:
        with_publish(built, section)
    assert "hunter2" not in str(caught.value)


def test_nothing_is_published_unless_it_is_asked_for(built: World) -> None:
    assert not [key for key in built.definitions.resolve_asset_graph().get_all_asset_keys() if key.path[0] == "publish"]


def test_each_published_table_is_an_asset_with_its_inputs_pool_and_trigger(built: World) -> None:
    world = with_publish(built, "  dwh: {kind: postgres, dsn: 'postgresql://h/d', exclude: [heap/events/*]}")
    specs = {spec.key.to_user_string(): spec for spec in world.definitions.resolve_all_asset_specs()}
    graph = specs["publish/dwh/identity_graph"]
    assert [dep.asset_key.to_user_string() for dep in graph.deps] == ["identity/graph"]
    assert graph.group_name == "publish"
    assert graph.automation_condition is not None
    assert "publish/dwh/heap_events_sign_up" not in specs
    events = {dep.asset_key.to_user_string() for dep in specs["publish/dwh/events"].deps}
    assert {"heap/events/sign_up", "heap/pageviews", "heap/users"} <= events
    assert "publish/dwh/heap_resolved" in specs
    ops = world.definitions.resolve_implicit_global_asset_job_def().nodes
    assert {node.definition.pool for node in ops if node.name == "publish_dwh"} == {"publish_dwh"}
