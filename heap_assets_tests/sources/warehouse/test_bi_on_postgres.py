"""Files for BI tools of what is published to PostgreSQL: their queries are asked there, and multiply no row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lkml
import psycopg2
import pytest
import yaml
from click.testing import CliRunner
from small_lake import ASSETS, PEOPLE, project_of, publish_all

from heap_assets.bi import TOOLS, Layer
from heap_assets.cli.main import _group as commands
from heap_assets.errors import SettingsError
from heap_assets.pipelines.bi import layer_of, target_of
from heap_assets.project.project import Project

Ask = Callable[[str], list[tuple[Any, ...]]]


@pytest.fixture(scope="module")
def project(postgres_cluster: str, tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("bi")
    dsn = f"postgresql://{postgres_cluster}/postgres"
    project = project_of(folder, f"  bi: {{kind: postgres, dsn: '{dsn}', schema: shown, assets: [{ASSETS}]}}")
    publish_all(project, "bi")
    return project


@pytest.fixture(scope="module")
def layer(project: Project) -> Layer:
    layer, unbuilt = layer_of(project, "bi")
    assert unbuilt == []
    return layer


@pytest.fixture
def ask(project: Project) -> Iterator[Ask]:
    connection = psycopg2.connect(project.settings.publish["bi"].dsn.get_secret_value())

    def rows(query: str) -> list[tuple[Any, ...]]:
        with connection.cursor() as cursor:
            cursor.execute(query)
            return list(cursor.fetchall())

    yield rows
    connection.close()


def test_tables_have_the_columns_that_are_published(layer: Layer, ask: Ask) -> None:
    assert len(layer.tables) == 8
    for table in layer.tables:
        columns = ask(
            "SELECT column_name FROM information_schema.columns "
            f"WHERE table_schema = '{table.schema}' AND table_name = '{table.name}' ORDER BY ordinal_position"
        )
        assert {column.name for column in table.columns} == {name for (name,) in columns}, table.name
    pages = layer.table("heap_pageviews")
    assert (pages.schema, pages.key, pages.time) == ("heap_resolved", ("event_id", "user_id"), "time")
    assert pages.column("path").description == "Path"
    assert layer.table("heap_sessions").column("landing_page").personal
    assert layer.table("profiles").column("plan").description.startswith('What they "pay" for; <b>. From contacts.plan')
    joins = {(join.left, join.right): dict(join.on) for join in layer.joins}
    assert joins["heap_pageviews", "heap_users"] == {"resolved_user_id": "user_id"}
    assert joins["heap_pageviews", "heap_sessions"] == {"session_id": "session_id", "user_id": "user_id"}
    assert joins["events", "profiles"] == {"profile_id": "profile_id"}
    assert joins["identity_graph", "profiles"] == {"profile_id": "profile_id"}


def test_queries_of_superset_multiply_no_row(layer: Layer, ask: Ask) -> None:
    texts = {name: yaml.safe_load(text) for name, text in TOOLS["superset"](layer)}
    pages = texts["datasets/bi/heap_pageviews.yaml"]["sql"]
    assert ask(f"SELECT count(*), count(profiles__plan), max(profiles__plan) FROM ({pages}) q") == [(6, 6, "free")]
    [(number,)] = ask(f"SELECT count(*) FROM ({texts['datasets/bi/events.yaml']['sql']}) q")
    assert number == 2 * (3 + 2), "page views and sessions of two days"
    newest = texts["datasets/bi/profiles.yaml"]["sql"]
    assert ask(f"SELECT profile_id, plan FROM ({newest}) q ORDER BY 1") == [(PEOPLE[0], "free"), (PEOPLE[1], "paid 1")]


def test_lookml_and_views_of_metabase_are_asked(layer: Layer, ask: Ask) -> None:
    views = {
        view["name"]: view
        for name, text in TOOLS["lookml"](layer)
        if name.startswith("views/")
        for view in lkml.load(text)["views"]
    }
    key = next(one["sql"] for one in views["heap_pageviews"]["dimensions"] if one["name"] == "row_key")
    table = views["heap_pageviews"]["sql_table_name"]
    assert ask(f"SELECT count(DISTINCT {key.replace('${TABLE}', 't')}) FROM {table} t") == [(6,)]
    statements = dict(TOOLS["metabase"](layer))["latest.sql"]
    assert ask(f"{statements} SELECT count(*) FROM shown.latest_heap_users") == [(3,)]


def test_the_command_writes_each_tools_files(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEAP_ASSETS_SETTINGS", str(project.file))
    for tool in TOOLS:
        done = CliRunner().invoke(commands, ["bi", tool, "--out", str(tmp_path / tool)], catch_exceptions=False)
        assert done.exit_code == 0
        assert "8 tables of bi" in done.output
        texts = "".join(path.read_text() for path in (tmp_path / tool).rglob("*") if path.is_file())
        assert "@" not in texts.replace("ann@", "") or tool == "lookml"
    assert {path.suffix for path in (tmp_path / "tableau").iterdir()} == {".tds"}
    refused = CliRunner().invoke(commands, ["bi", "dbt", "--target", "other"])
    assert isinstance(refused.exception, SettingsError)
    assert "publish has no target 'other'" in str(refused.exception)


def test_a_target_is_named_where_there_are_several(tmp_path: Path) -> None:
    one = "{kind: bigquery, project: acme, dataset: d, assets: [profiles]}"
    project = project_of(tmp_path, f"  a: {one}\n  b: {one.replace('dataset: d', 'dataset: e')}")
    with pytest.raises(SettingsError, match="several targets: a, b; name one with --target"):
        target_of(project, None)
    layer, unbuilt = layer_of(project, "b")
    assert unbuilt == []
    [sql] = [yaml.safe_load(t)["sql"] for n, t in TOOLS["superset"](layer) if n == "datasets/b/profiles.yaml"]
    assert "`acme`.`e`.`profiles`" in sql
