"""Models over a resolved lake: SQL as of a day, functions, their mistakes, and rows that are sent."""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from types import ModuleType

import polars as pl
import pytest
from click.testing import CliRunner

from heap_assets import clock
from heap_assets.activation import connector_of
from heap_assets.cli.main import _group as commands
from heap_assets.errors import HeapAssetsError, MissingInputError, SettingsError
from heap_assets.pipelines.models import check_models, inputs_of, model_of_day
from heap_assets.project import parse_settings
from heap_assets.project.project import Project
from heap_assets.tables import PROFILES
from heap_assets_tests.pipelines.delivery_world import BEFORE, DAY, NOW, SETTINGS, World

_MODELS = """
models:
  plans: {key: plan, sql: "SELECT coalesce(plan, 'none') AS plan, count(*) AS people FROM profiles GROUP BY 1"}
  rich: {sql: "WITH own AS (SELECT * FROM models.plans) SELECT * FROM own WHERE people >= 1"}
  visits: {sql: "SELECT partition_key AS day, count(*) AS n FROM heap.pageviews AS p GROUP BY 1 ORDER BY 1"}
  named: {python: "own_models:named", inputs: [profiles], key: heap_identity}
models_folder: sql
"""


def named(frames: dict[str, pl.LazyFrame]) -> pl.LazyFrame:
    return frames[PROFILES].select("heap_identity", "plan").drop_nulls("heap_identity")


@pytest.fixture(scope="module")
def world(base: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    module = ModuleType("own_models")
    module.named = named  # type: ignore[attr-defined]
    sys.modules["own_models"] = module
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(clock.VARIABLE, NOW)
        world = base.copy(tmp_path_factory.mktemp("models") / "world", "{}", "http://127.0.0.1:9")
        (world.folder / "sql").mkdir()
        (world.folder / "sql" / "contact_ids.sql").write_text(
            "-- key: contact_id\n-- description: Ids of contacts.\nSELECT contact_id FROM warehouse.contacts;\n"
        )
        path = world.folder / "heap_assets.yaml"
        sync = '{it: {kind: webhook, url: "http://127.0.0.1:9/x", source: models/plans, properties: {people: people}}}'
        path.write_text(SETTINGS.format(heap=world.heap) + f"  {sync}{_MODELS}")
        world.project.catalogue.save(world.folder / "heap_catalogue.yaml")
        world.project = Project(parse_settings(path.read_text(), path), world.project.catalogue, world.lake)
        assert world.run(["models/plans", "models/rich", "models/named", "models/contact_ids"], DAY).success
    return world


def test_a_model_reads_the_lake_as_of_the_day(world: World) -> None:
    profiles = world.lake.scan(PROFILES, str(DAY)).collect()
    plans = world.lake.scan("models/plans", str(DAY)).collect()
    assert plans["people"].sum() == profiles.height
    assert world.lake.scan("models/rich", str(DAY)).collect().sort("plan").equals(plans.sort("plan"))
    for day in (BEFORE, DAY):
        days = model_of_day(world.project, "visits", day).frame.collect()["day"].to_list()
        assert days == [key for key in world.lake.partitions("heap/pageviews") if key <= str(day)]
    assert world.lake.scan("models/contact_ids", str(DAY)).collect().columns == ["contact_id"]
    assert inputs_of(world.project, "rich") == ["models/plans"]


def test_a_function_makes_a_frame_of_frames(world: World) -> None:
    stored = world.lake.scan("models/named", str(DAY)).collect()
    assert set(stored["heap_identity"]) == set(
        named({PROFILES: world.lake.scan(PROFILES, str(DAY))}).collect()["heap_identity"]
    )


def test_a_sync_sends_the_rows_of_a_model(world: World) -> None:
    rows = connector_of(world.project, "it").rows(DAY)
    keys = rows.rows.collect()["key"].to_list()  # type: ignore[union-attr]
    assert sorted(keys) == sorted(world.lake.scan("models/plans", str(DAY)).collect()["plan"])


def test_a_replay_lives_as_long_as_it_is_kept(world: World) -> None:
    path = world.folder / "heap_assets.yaml"
    sql = '{sql: "SELECT replay_lives(p.time) AS lives, count(*) AS n FROM heap.pageviews AS p GROUP BY 1"}'
    versions, lives = [], []
    for keep in ("", "keep: {replay_days: 2}\n"):
        text = path.read_text().replace("models_folder: sql\n", f"  x: {sql}\nmodels_folder: sql\n{keep}")
        project = Project(parse_settings(text, path), world.project.catalogue, world.lake)
        table = model_of_day(project, "x", DAY)
        lives.append(dict(table.frame.collect().iter_rows()))
        versions.append(table.inputs.versions["settings"] if table.inputs else "")
    days = len([key for key in world.lake.partitions("heap/pageviews") if key <= str(DAY)])
    assert [sorted(one) for one in lives] == [[True], [False, True]]
    assert lives[1][True] * days == lives[0][True] * 2, "of the day itself and the day before"
    assert versions[0] != versions[1]


def test_the_command_lists_models_and_shows_a_sample(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEAP_ASSETS_SETTINGS", str(world.folder / "heap_assets.yaml"))
    listed = json.loads(CliRunner().invoke(commands, ["model", "--json"], catch_exceptions=False).stdout)
    assert {row["model"] for row in listed} == {"plans", "rich", "visits", "named", "contact_ids"}
    sample = CliRunner().invoke(commands, ["model", "plans", "--day", str(DAY), "--rows", "1", "--json"])
    assert len(json.loads(sample.stdout)) == 1


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ('{sql: "SELECT a FROM\\n  profile"}', r"models.x, line 2: there is no table main.profile. Did you mean"),
        ('{sql: "SELECT FROM WHERE"}', r"models.x: line 1, column"),
        ('{sql: "DROP TABLE profiles"}', "models.x: expected one SELECT"),
        ('{sql: "SELECT * FROM models.x"}', "models.x depends on itself: models/x > models/x"),
        ('{file: none.sql}', "models.x.file is .*none.sql', which does not exist"),
        ('{python: "a:b", inputs: [profile]}', "models.x.inputs names 'profile', which is no table"),
        ('{python: "a:b"}', "inputs: the assets that a function reads"),
        ("{key: a}", "one of sql, file and python, not none of them"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_when_the_project_loads(world: World, model: str, message: str) -> None:
    path = world.folder / "heap_assets.yaml"
    text = path.read_text().replace("models_folder: sql\n", f"  x: {model}\nmodels_folder: sql\n")
    with pytest.raises(SettingsError, match=message):
        check_models(Project(parse_settings(text, path), world.project.catalogue, world.lake))


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        ('{sql: "SELECT no_such FROM profiles"}', HeapAssetsError, "no_such"),
        ('{sql: "SELECT 1 AS a FROM profiles", key: a}', HeapAssetsError, "rows have no a of their own"),
        ('{sql: "SELECT 1 AS a FROM profiles", key: b}', SettingsError, "models.x.key is 'b', which the model has not"),
        ('{python: "no_module:x", inputs: [profiles]}', SettingsError, "models.x.python is no_module:x"),
        ('{sql: "SELECT * FROM models.visits"}', MissingInputError, "models/visits has no day up to"),
    ],
)  # fmt: skip
def test_what_cannot_be_computed_says_why(world: World, model: str, error: type[Exception], message: str) -> None:
    path = world.folder / "heap_assets.yaml"
    text = path.read_text().replace("models_folder: sql\n", f"  x: {model}\nmodels_folder: sql\n")
    project = Project(parse_settings(text, path), world.project.catalogue, world.lake)
    with pytest.raises(error, match=message):
        model_of_day(project, "x", DAY + timedelta(days=0))
