"""Signals of a resolved lake: built by their assets, rebuilt, read by audiences, and sent to Segment once."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner

from heap_assets.activation import connector_of, deliver
from heap_assets.cli.main import _group as commands
from heap_assets.demo.server_process import ServerProcess, running_server
from heap_assets.errors import HeapAssetsError, SettingsError
from heap_assets.pipelines.audiences import AudienceDay
from heap_assets.pipelines.behaviour import audience_facts, windows_of
from heap_assets.pipelines.people import profiles_of_day
from heap_assets.pipelines.signals import preview, signal_figures, signal_of_day, statement_of_signal
from heap_assets.profiles import members, parse_audience
from heap_assets.project import parse_settings
from heap_assets.project.project import Project
from heap_assets.storage import LakeSql
from heap_assets.tables import GRAPH, PROFILES
from heap_assets_tests.pipelines.delivery_world import BEFORE, DAY, SETTINGS, World, events

_PROFILES = """profiles:
  behaviour: {{days: 10}}
  scores: {{interest: {{weights: {{pageviews: 2, signup: 5}}, most: 3}}}}
"""
_SIGNALS = """
signals:
  looking:
    sequence: {steps: [{type: pageviews, count: 2}], span_hours: 24}
    event: Is Looking
    properties: {plan: plan, score: interest}
  reading: {threshold: {type: pageviews, count: {gte: 3}, within_days: 1}, properties: {level: interest}}
"""
_SYNC = (
    '{it: {kind: segment_events, write_key: "${SEGMENT_KEY}", url: %s, source: signals/looking, '
    "event_name_column: event, key: heap_identity, anonymous_user: user_id, properties: {plan: plan, score: score}}}"
)


@pytest.fixture(scope="module")
def segment(tmp_path_factory: pytest.TempPathFactory) -> object:
    folder = tmp_path_factory.mktemp("segment")
    with running_server("segment", folder, arguments=["--write-key", "wk-secret-4711"]) as server:
        yield server


@pytest.fixture
def world(base: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, segment: ServerProcess) -> World:
    monkeypatch.setenv("SEGMENT_KEY", "wk-secret-4711")
    segment.reset()
    world = base.copy(tmp_path / "world", "{}", "http://127.0.0.1:9")
    path = world.folder / "heap_assets.yaml"
    raw = SETTINGS.replace("profiles:\n", _PROFILES).format(heap=world.heap) + f"  {_SYNC % segment.base_url}{_SIGNALS}"
    path.write_text(raw)
    world.project = Project(parse_settings(raw, path), world.project.catalogue, world.lake)
    visit(world, DAY, 901)
    for day in (BEFORE, DAY):
        built = profiles_of_day(world.project, day)
        world.lake.write(PROFILES, str(day), built.frame, built.inputs, notes=built.notes)
    return world


def visit(world: World, day: object, first: int) -> None:
    world.write("heap/pageviews", day, events(day, "pageviews", (first, 1), (first + 1, 900), (first + 2, 1)))  # type: ignore[arg-type]


def build(world: World, name: str, day: object) -> pl.DataFrame:
    built = signal_of_day(world.project, name, day)  # type: ignore[arg-type]
    world.lake.write(f"signals/{name}", str(day), built.frame, built.inputs, notes=built.notes)
    return world.lake.scan(f"signals/{name}", str(day)).collect()


def test_an_asset_makes_the_firings_of_a_day_with_their_traits(world: World) -> None:
    assert world.run(["signals/looking", "signals/reading"], DAY).success
    [row] = world.lake.scan("signals/looking", str(DAY)).collect().to_dicts()
    assert (row["event"], row["heap_identity"], row["status"], row["live"]) == (
        "Is Looking",
        "ann@x.example",
        "fired",
        True,
    )
    assert row["plan"] == "pro"
    assert row["score"] == 3 * 2 + 3 * 5
    assert world.lake.scan("signals/reading", str(DAY)).collect()["heap_identity"].to_list() == ["ann@x.example"]
    [looking, _] = signal_figures(world.project, DAY)
    assert (looking["fired"], looking["live"], looking["cancelled"]) == (1, 1, 0)


def test_rebuilding_a_day_gives_the_same_firings_whatever_landed_since(world: World) -> None:
    first = build(world, "looking", DAY)
    visit(world, DAY, 950)
    assert build(world, "looking", DAY).equals(first)


def test_firings_are_sent_to_segment_once(world: World, segment: ServerProcess) -> None:
    build(world, "looking", DAY)
    connector = connector_of(world.project, "it")

    def send(run: str) -> int:
        connector.remember_enabled()
        rows = connector.rows_to_send(DAY)
        spec = connector.spec(day=DAY)
        return deliver(spec, connector.destination(), rows, world.lake.store, DAY, run, confirmed=True).sent

    assert send("r1") == 0, "fired on the day before the sync was enabled"
    path = world.folder / "heap_assets.yaml"
    path.write_text(path.read_text().replace("source: signals/looking,", "source: signals/looking, since: beginning,"))
    world.project = Project(parse_settings(path.read_text(), path), world.project.catalogue, world.lake)
    connector = connector_of(world.project, "it")
    assert send("r2") == 1
    visit(world, DAY, 950)
    build(world, "looking", DAY)
    assert send("r3") == 0
    [call] = segment.state()["events"].values()
    assert (call["type"], call["event"], call["userId"]) == ("track", "Is Looking", "ann@x.example")
    assert call["properties"] == {"plan": "pro", "score": 21.0}


def test_a_backfill_fires_nothing_to_a_destination(world: World) -> None:
    visit(world, BEFORE, 801)
    early = BEFORE.replace(day=5)
    visit(world, early, 701)
    built = profiles_of_day(world.project, early)
    world.lake.write(PROFILES, str(early), built.frame, built.inputs, notes=built.notes)
    old = build(world, "looking", early)
    assert old["live"].to_list() == [False]
    build(world, "looking", DAY)
    rows = connector_of(world.project, "it").rows(DAY)
    assert rows.rows.collect().filter(pl.col("key") == "ann@x.example").height <= 1  # type: ignore[union-attr]


def test_an_audience_asks_for_signals_that_fired_before_the_day(world: World) -> None:
    visit(world, BEFORE, 801)
    build(world, "looking", BEFORE)
    audience = parse_audience("lookers", {"events": [{"signal": "looking", "within_days": 3}]})
    graph = world.lake.scan(GRAPH, str(DAY))
    facts = audience_facts(world.project, [audience], graph, windows_of(world.project, DAY, [audience]))
    profiles = world.lake.scan(PROFILES, str(DAY))
    inside = members(audience, profiles, facts.events, facts.as_of).collect()
    assert profiles.collect().join(inside, on="profile_id")["heap_identity"].to_list() == ["ann@x.example"]


def test_the_sql_over_the_lake_gives_who_would_fire_and_who_has_fired(world: World) -> None:
    with LakeSql(str(world.lake.store.url)) as lake:
        for name in ("looking", "reading"):
            statement = statement_of_signal(world.project, name, DAY)
            fired = preview(world.project, name, DAY).select("profile_id", "time").sort("profile_id", "time")
            met = lake.sql(statement.text(), statement.parameters)
            rows = met.group_by("profile_id").agg(pl.col("time").min()).sort("profile_id")  # others cool down
            assert rows.cast({"time": fired.schema["time"]}).equals(fired), name
            assert fired.height, name
    visit(world, BEFORE, 801)
    build(world, "looking", BEFORE)
    lookers: dict[str, object] = {"events": [{"signal": "looking", "within_days": 3}]}
    others: dict[str, object] = {"none": [{"audiences": ["lookers"]}], "user_properties": {"plan": "pro"}}
    asked = AudienceDay.newest(world.project, DAY, {"lookers": lookers, "others": others})
    with LakeSql(str(world.lake.store.url)) as lake:
        for name in ("lookers", "others"):
            statement = asked.statement(asked.one(name))
            inside = asked.members(asked.one(name))["profile_id"].to_list()
            assert lake.sql(statement.text(), statement.parameters)["profile_id"].to_list() == inside != [], name


def test_the_commands_list_and_try_signals(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEAP_ASSETS_SETTINGS", str(world.folder / "heap_assets.yaml"))
    build(world, "looking", DAY)
    listed = json.loads(CliRunner().invoke(commands, ["signal", "list", "--json"]).stdout)
    assert [(row["signal"], row["fired"]) for row in listed] == [("looking", 1), ("reading", None)]
    [shown] = json.loads(CliRunner().invoke(commands, ["signal", "preview", "looking", "--json"]).stdout)
    assert shown["plan"] == "pro"
    [query] = json.loads(
        CliRunner()
        .invoke(commands, ["signal", "preview", "reading", "--sql", "--dialect", "bigquery", "--json"])
        .stdout
    )
    assert "@day" in query["sql"]
    assert "1 firings of 1 people" in CliRunner().invoke(commands, ["signal", "preview", "reading"]).stdout
    assert "trial_expiring" in CliRunner().invoke(commands, ["signal", "template"]).stdout
    assert isinstance(CliRunner().invoke(commands, ["signal", "preview", "no_such"]).exception, HeapAssetsError)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("score: interest}", "score: no_such}", "reads the trait 'no_such': there is no trait"),
        ("level: interest", "level: no_such", "there is no trait of this name"),
        ("{type: pageviews, count: 2}", "{signal: none}", r"steps\[0\].signal is 'none', and there is no such signal"),
        ("source: signals/looking", "source: signals/other", "which is no warehouse table"),
    ],
)
def test_a_mistake_is_told_when_the_settings_load(world: World, old: str, new: str, message: str) -> None:
    path = world.folder / "heap_assets.yaml"
    with pytest.raises(SettingsError, match=message):
        parse_settings(path.read_text().replace(old, new), path)
