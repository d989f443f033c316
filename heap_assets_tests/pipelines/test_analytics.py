"""Results of a resolved lake: as assets with a chart, in the report, from the command line and from Python."""

from __future__ import annotations

import json

import polars as pl
import pytest
from click.testing import CliRunner

from heap_assets import Project as Notebook
from heap_assets import clock
from heap_assets.analytics import QUERIES
from heap_assets.cli.main import _group as commands
from heap_assets.errors import HeapAssetsError, SettingsError
from heap_assets.pipelines.analytics import check_analytics, query_of, result_of, statement_of
from heap_assets.pipelines.people import profiles_of_day
from heap_assets.project import parse_settings
from heap_assets.project.project import Project
from heap_assets.report import status_page
from heap_assets.storage import LakeSql
from heap_assets.tables import PROFILES
from heap_assets_tests.pipelines.delivery_world import BEFORE, DAY, NOW, SETTINGS, World, events

_ANALYTICS = """
analytics:
  activation: {kind: funnel, steps: [Signup, pageviews], days: 20}
  stages: {kind: lifecycle}
"""


@pytest.fixture(scope="module")
def world(base: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(clock.VARIABLE, NOW)
        world = base.copy(tmp_path_factory.mktemp("analytics") / "world", "{}", "http://127.0.0.1:9")
        path = world.folder / "heap_assets.yaml"
        text = SETTINGS.replace("profiles:\n", "profiles:\n  behaviour: {{days: 10}}\n")
        path.write_text(text.format(heap=world.heap) + "  {}" + _ANALYTICS)
        world.project.catalogue.save(world.folder / "heap_catalogue.yaml")
        world.project = Project(parse_settings(path.read_text(), path), world.project.catalogue, world.lake)
        world.write("heap/pageviews", DAY, events(DAY, "pageviews", (901, 1), (902, 900)))
        for day in (BEFORE, DAY):
            built = profiles_of_day(world.project, day)
            world.lake.write(PROFILES, str(day), built.frame, built.inputs, notes=built.notes)
        assert world.run(["analytics/activation", "analytics/stages"], DAY).success
    return world


def test_an_asset_holds_what_the_query_answers_with_a_chart(world: World) -> None:
    stored = world.lake.scan("analytics/activation", str(DAY)).collect()
    assert stored.equals(result_of(world.project, query_of(world.project, "activation"), DAY))
    assert stored["reached"].to_list()[0] >= stored["reached"].to_list()[1] > 0
    partition = world.lake.find("analytics/activation", str(DAY))
    assert partition is not None
    assert list(partition.notes["chart"]["bars"]) == ["1. signup", "2. pageviews"]
    stages = world.lake.scan("analytics/stages", str(DAY)).collect()
    assert stages["people"].sum() == world.lake.scan(PROFILES, str(DAY)).collect().height


def test_the_report_draws_the_results(world: World) -> None:
    page, status = status_page(world.lake)
    assert set(status.results) == {"activation", "stages"}
    assert "activation: funnel" in page
    assert "2. pageviews" in page


@pytest.mark.parametrize("kind", sorted(QUERIES))
def test_every_kind_answers_over_the_lake(world: World, kind: str) -> None:
    parameters = {
        "funnel": {"steps": "signup,pageviews"}, "paths": {"goal": "pageviews"}, "accounts": {"account": "plan"},
        "attribution": {"conversion": "signup", "channel": "path"},
        "experiment": {"exposure": "pageviews", "variant": "path", "conversion": "signup"},
    }  # fmt: skip
    query = query_of(world.project, kind, parameters.get(kind))
    frame = result_of(world.project, query, DAY)
    assert frame.columns
    assert "@" in statement_of(world.project, query, DAY, "bigquery").text("bigquery")


def test_a_bi_tool_reads_the_result_as_a_table(world: World) -> None:
    with LakeSql(str(world.lake.store.url)) as lake:
        rows = lake.sql("SELECT step, reached FROM latest.analytics_activation ORDER BY step")
    assert rows["step"].to_list() == [1, 2]


def test_from_the_command_line_and_from_a_notebook(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    file = world.folder / "heap_assets.yaml"
    monkeypatch.setenv("HEAP_ASSETS_SETTINGS", str(file))

    def typed(*arguments: str) -> str:
        result = CliRunner().invoke(commands, ["query", *arguments], catch_exceptions=False)
        return result.stdout

    assert "activation" in typed()
    rows = json.loads(typed("activation", "--param", "per=session", "--json"))
    assert [row["event"] for row in rows] == ["signup", "pageviews"]
    assert "segment" in typed("activation").splitlines()[0]
    [statement] = json.loads(typed("activation", "--sql", "--dialect", "bigquery", "--json"))
    assert statement["parameters"]["step_1"] == "signup"
    assert "`identity_graph`" in statement["sql"]
    assert "$step_1" in typed("activation", "--sql")
    table = Notebook.open(file).query("funnel", steps=["signup", "pageviews"], days=20)
    assert isinstance(table, pl.DataFrame)
    with pytest.raises(HeapAssetsError):
        typed("no_such")


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        ("{kind: funnel, steps: [signup, no_such]}", r"analytics.x.steps names the event 'no_such', which no table"),
        ("{kind: adoption, by: no_such}", "analytics.x reads the trait 'no_such': there is no trait"),
        ("{kind: attribution, conversion: signup, channel: no_such}", "pageviews has no column 'no_such'"),
    ],
)
def test_a_mistake_is_told_when_the_project_loads(world: World, definition: str, message: str) -> None:
    path = world.folder / "heap_assets.yaml"
    settings = parse_settings(path.read_text() + f"  x: {definition}\n", path)
    with pytest.raises(SettingsError, match=message):
        check_analytics(Project(settings, world.project.catalogue, world.lake))
