"""Audiences of a resolved lake: entered, stayed and left; size, why, what-if and SQL before they are used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner, Result

from heap_assets import clock
from heap_assets.activation import connector_of
from heap_assets.activation.engine.addressing import Addressed
from heap_assets.cli.main import _group as commands
from heap_assets.errors import HeapAssetsError, SettingsError
from heap_assets.pipelines.audiences import AudienceDay
from heap_assets.pipelines.people import audiences_of_day, profiles_of_day
from heap_assets.project import parse_settings
from heap_assets.project.project import Project
from heap_assets.storage import LakeSql
from heap_assets.tables import AUDIENCES, PROFILES
from heap_assets_tests.pipelines.delivery_world import BEFORE, DAY, NOW, SETTINGS, World, events

_PROFILES = """profiles:
  behaviour: {{days: 10}}
  audience_files: [audiences]
  audiences:
    lookers: {{events: [{{type: Pageviews, properties: {{path: {{starts_with: /pri}}}}, within_days: 2}}]}}
    planned:
      any:
        - {{user_properties: {{plan: pro}}}}
        - {{sequences: [{{steps: [{{type: signup}}, {{type: pageviews, count: 2}}], span_days: 30}}]}}
      none: [{{audiences: [lookers]}}]
"""
CARTS = {"name": "Cart Abandoners!", "definition": {"events": [{"type": "Sign Up", "count": {"gte": 1}}]}}


def with_audiences(world: World, text: str = _PROFILES, syncs: str = "{}") -> World:
    folder = world.folder / "audiences"
    folder.mkdir(exist_ok=True)
    (folder / "carts.json").write_text(json.dumps(CARTS).replace("Sign Up", "signup"))
    path = world.folder / "heap_assets.yaml"
    raw = (SETTINGS.replace("profiles:\n", text)).format(heap=world.heap) + f"  {syncs}"
    path.write_text(raw)
    world.project = Project(parse_settings(raw, path), world.project.catalogue, world.lake)
    return world


def built_world(base: World, folder: Path) -> World:
    world = with_audiences(base.copy(folder, "{}", "http://127.0.0.1:9"))
    for day in (BEFORE, DAY):
        world.write(
            "heap/pageviews",
            day,
            events(day, "pageviews", (901, 1), (902, 78), (903, 900), path="/pricing", profile_id="theirs"),
        )
        build(world, day)
    return world


@pytest.fixture(scope="module")
def world(base: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(clock.VARIABLE, NOW)
        return built_world(base, tmp_path_factory.mktemp("audiences") / "world")


def build(world: World, day: Any) -> pl.DataFrame:
    for path, builder in ((PROFILES, profiles_of_day), (AUDIENCES, audiences_of_day)):
        built = builder(world.project, day)
        world.lake.write(path, str(day), built.frame, built.inputs, notes=built.notes)
    return world.lake.scan(AUDIENCES, str(day)).collect()


def test_a_file_of_the_guide_is_an_audience_under_its_spelled_name(world: World) -> None:
    assert list(world.project.settings.profiles.audiences) == ["lookers", "planned", "cart_abandoners"]
    assert [audience.title for audience in world.project.audiences] == ["lookers", "planned", "Cart Abandoners!"]
    assert world.lake.scan(AUDIENCES, str(DAY)).filter(audience="cart_abandoners").collect().height


def test_who_stays_is_a_member_since_the_day_it_began(world: World) -> None:
    first, second = (world.lake.scan(AUDIENCES, str(day)).collect() for day in (BEFORE, DAY))
    assert set(first["change"]) == {"entered"}
    stayed = second.filter(change="stayed")
    assert stayed.height
    assert set(stayed["since"]) == {BEFORE}
    notes = world.lake.find(AUDIENCES, str(DAY))
    assert notes is not None
    assert notes.notes["left_lookers"] == 0


def test_who_does_not_look_any_more_has_left(base: World, tmp_path: Path) -> None:
    world = built_world(base, tmp_path / "world")
    with_audiences(world, _PROFILES.replace("/pri", "/nothing"))
    table = build(world, DAY).filter(audience="lookers")
    assert table.height
    assert set(table["change"]) == {"left"}
    assert set(table["since"]) == {DAY}


def test_the_sql_over_the_lake_gives_the_same_members(world: World) -> None:
    asked = AudienceDay.newest(world.project)
    with LakeSql(str(world.lake.store.url)) as lake:
        for name, audience in asked.audiences.items():
            statement = asked.statement(audience)
            rows = lake.sql(statement.text(), statement.parameters)
            assert rows["profile_id"].to_list() == asked.members(audience)["profile_id"].to_list(), name
            assert rows.height, name
            assert "/pri" not in statement.text("bigquery")


def test_each_condition_says_how_many_it_leaves_over(world: World) -> None:
    asked = AudienceDay.newest(world.project)
    table = asked.explained(asked.one("planned"))
    assert table["condition"].to_list()[-1].startswith("any of: plan eq pro or signup, then pageviews")
    assert table["left"][-1] == asked.members(asked.one("planned")).height
    person = asked.explained_person(asked.one("lookers"), "heap_identity:ann@x.example")
    assert person.rows() == [("Pageviews (path starts_with /pri) gte 1 times in the last 2 days", True, "4")]
    with pytest.raises(SettingsError, match="no profile of 2026-11-20 has this identifier of the type 'email'"):
        asked.explained_person(asked.one("lookers"), "email:nobody@x.example")


def test_another_number_says_who_would_enter_and_leave(world: World) -> None:
    asked = AudienceDay.newest(world.project)
    now = asked.members(asked.one("lookers")).height
    assert asked.changed("lookers", "events[0].within_days", 2) == {
        "value": 2, "members": now, "enter": 0, "leave": 0
    }  # fmt: skip
    assert asked.changed("lookers", "events[0].count", 99)["leave"] == now
    with pytest.raises(SettingsError, match=r"events\[7\].count leads nowhere"):
        asked.changed("lookers", "events[7].count", 1)


def typed(world: World, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Result:
    monkeypatch.setenv("HEAP_ASSETS_SETTINGS", str(world.folder / "heap_assets.yaml"))
    return CliRunner().invoke(commands, ["audience", *arguments], catch_exceptions=True)


def test_the_commands_print_tables_and_json(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    printed = typed(world, monkeypatch, "size").stdout.splitlines()
    assert printed[0].split() == ["audience", "members", "share", "enter", "leave"]
    assert len(printed) == 4
    [row] = json.loads(typed(world, monkeypatch, "size", "lookers", "--json").stdout)
    assert row["enter"] == row["leave"] == 0
    assert row["members"] > 0
    proposed = tmp_path / "proposed.json"
    proposed.write_text(json.dumps({"name": "New One", "definition": {"audiences": ["lookers"]}}))
    [row] = json.loads(typed(world, monkeypatch, "size", "--file", str(proposed), "--json").stdout)
    assert (row["audience"], row["enter"]) == ("new_one", None)
    [query] = json.loads(
        typed(world, monkeypatch, "size", "lookers", "--sql", "--dialect", "bigquery", "--json").stdout
    )
    assert "@p1" in query["sql"]
    assert query["parameters"]["day"] == str(DAY)
    assert "meet" in typed(world, monkeypatch, "explain", "planned").stdout
    assert len(json.loads(typed(world, monkeypatch, "what-if", "lookers", "events[0].count=1,5", "--json").stdout)) == 2
    failed = typed(world, monkeypatch, "size", "no_such")
    assert isinstance(failed.exception, HeapAssetsError)


def test_people_without_identity_are_told_to_segment_by_anonymous_id(
    base: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = built_world(base, tmp_path / "world")
    monkeypatch.setenv("SEGMENT_KEY", "wk-secret-4711")
    syncs = '{it: {kind: segment_audience, write_key: "${SEGMENT_KEY}", audience: lookers, anonymous: true}}'
    with_audiences(world, syncs=syncs)
    profiles, is_cat = world.lake.scan(PROFILES, str(DAY)).collect(), pl.col("heap_identity") == "cat@x.example"
    no_identities = pl.lit([], pl.List(pl.String))
    nameless = profiles.with_columns(
        heap_identities=pl.when(is_cat.fill_null(value=False)).then(no_identities).otherwise("heap_identities"),
        heap_identity=pl.when(~is_cat).then("heap_identity"),
    )
    world.lake.write(PROFILES, str(DAY), nameless)
    rows = connector_of(world.project, "it").rows(DAY)
    assert isinstance(rows, Addressed)
    keys = dict(rows.rows.select("key", "member").collect().rows())
    assert keys["ann@x.example"] is True
    assert {key for key in keys if key.startswith("heap|")} == {
        f"heap|11|{user}" for user in profiles.filter(is_cat)["heap_user_ids"].item()
    }


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("{", "carts.json, line 1: no JSON"),
        ('{"definition": {}}', 'carts.json: expected {"name"'),
        ('{"name": "lookers", "definition": {}}', "there is an audience 'lookers' already"),
        (
            '{"name": "x", "definition": {"events": [{"type": "signup", "when": 1}]}}',
            r"profiles.audiences.x.definition",
        ),
    ],
)
def test_a_mistake_in_a_file_names_it(base: World, tmp_path: Path, file: str, message: str) -> None:
    world = with_audiences(base.copy(tmp_path / "world", "{}", "http://127.0.0.1:9"))
    (world.folder / "audiences" / "carts.json").write_text(file)
    path = world.folder / "heap_assets.yaml"
    with pytest.raises(SettingsError, match=message):
        parse_settings(path.read_text(), path)
