"""Profiles say what people did, and who is in which audience; events that we sent ourselves say nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from heap_assets.errors import SettingsError
from heap_assets.orchestration.definitions import build_definitions
from heap_assets.pipelines.behaviour import check_events, heap_stream, window
from heap_assets.pipelines.events import event_frames
from heap_assets.pipelines.readiness import identity_inputs
from heap_assets.project import parse_settings
from heap_assets.project.project import Project
from heap_assets.quality import checks_for_audiences, result_store
from heap_assets.quality.engine import CheckContext
from heap_assets.sources.heap_connect import Catalogue, without_own
from heap_assets.tables import AUDIENCES, GRAPH, PROFILES, event_asset
from heap_assets_tests.pipelines.delivery_world import BEFORE, DAY, LONG_AGO, SETTINGS, World, events, next_day

_ASKED = """profiles:
  behaviour: {{days: 10, features: {{signed_up: signup}}}}
  audiences:
    lookers: {{events: [{{type: Pageviews, properties: {{path: /pricing}}, within_days: 2}}]}}
    idle_payers: {{user_properties: {{plan: pro}}, exclude_events: [{{type: signup, within_days: 5}}]}}
"""


def asking(world: World, text: str = _ASKED) -> World:
    """Return the world with behaviour and audiences in its settings."""
    path = world.folder / "heap_assets.yaml"
    settings = parse_settings((SETTINGS.replace("profiles:\n", text)).format(heap=world.heap) + "  {}", path)
    world.project = Project(settings, world.project.catalogue, world.lake)
    return world


@pytest.fixture
def world(base: World, tmp_path: Path) -> World:
    return asking(base.copy(tmp_path / "world", "{}", "http://127.0.0.1:9"))


def test_profiles_say_what_people_did(world: World) -> None:
    ann_and_visitor = events(DAY, "pageviews", (901, 1), (902, 900), path="/pricing")
    world.write("heap/pageviews", DAY, ann_and_visitor)
    world.resolve(DAY)
    assert world.run([AUDIENCES], DAY).success

    rows = world.lake.scan(PROFILES, str(DAY)).collect()
    of = {row["heap_identity"]: row for row in rows.iter_rows(named=True)}
    ann, cat = of["ann@x.example"], of["cat@x.example"]
    # signups and pageviews of two days; the one of 5 November is out of the window of ten days
    assert (ann["active_days"], ann["session_count"], ann["signed_up"]) == (2, 1, True)
    assert ann["engagement_score"] == 2 * 5 + 1 * 2 + 2 * 10
    assert ann["lifecycle_stage"] == "Dormant"
    assert (cat["active_days"], cat["engagement_score"], cat["signed_up"]) == (0, 0, False)
    assert ann["lookers"]
    assert not cat["lookers"]
    assert cat["idle_payers"]
    assert not ann["idle_payers"]
    members = world.lake.scan(AUDIENCES, str(DAY)).collect()
    assert set(members.select("audience", "profile_id").rows()) == {
        (name, row["profile_id"]) for row in of.values() for name in ("lookers", "idle_payers") if row[name]
    }


def test_a_property_whose_type_differs_by_day_is_compared_exactly(world: World) -> None:
    more = "    buyers: {{events: [{{type: signup, properties: {{plan: 9007199254740993}}}}]}}\n"
    asking(world, _ASKED + more)
    plans = pl.Series("plan", [2**53 + 1, 2**53], dtype=pl.Int64)
    world.write("heap/events/signup", DAY, events(DAY, "signup", (77, 3), (78, 1), plan=plans))
    world.write("heap/events/signup", BEFORE, events(BEFORE, "signup", (79, 1)))
    world.resolve(DAY)
    rows = world.lake.scan(PROFILES, str(DAY)).collect()
    assert rows.filter("buyers")["heap_identity"].to_list() == ["cat@x.example"]


def test_a_property_that_gains_fields_by_day_ends_no_profiles(world: World) -> None:
    more = '    norwegians: {{events: [{{type: signup, properties: {{plan: \'{{"city":"Oslo"}}\'}}}}]}}\n'
    asking(world, _ASKED + more)
    old, new = [{"city": "Oslo"}], [{"city": "Oslo", "zip": "0150"}]
    world.write("heap/events/signup", BEFORE, events(BEFORE, "signup", (79, 1), plan=pl.Series(old)))
    world.write("heap/events/signup", DAY, events(DAY, "signup", (77, 3), plan=pl.Series(new)))
    world.resolve(DAY)
    rows = world.lake.scan(PROFILES, str(DAY)).collect()
    assert rows.filter("norwegians")["heap_identity"].to_list() == ["ann@x.example"]


def test_new_events_make_new_profiles(world: World) -> None:
    world.resolve(DAY)
    before = world.lake.versions(PROFILES)[str(DAY)]
    world.resolve(DAY)
    assert world.lake.versions(PROFILES)[str(DAY)] == before
    world.write("heap/events/signup", BEFORE, events(BEFORE, "signup", (77, 3)))
    world.resolve(DAY)
    cat = world.lake.scan(PROFILES, str(DAY)).collect().filter(heap_identity="cat@x.example")
    assert cat["signed_up"].to_list() == [True]


def test_a_plan_has_one_node_for_all_days_of_all_tables(world: World) -> None:
    for number in range(1, 10):
        day = DAY - timedelta(days=number)
        for table in ("signup", "pageviews"):
            ours = {"sent_by": "heap_assets"} if number % 2 else {}
            world.lake.write(event_asset(table), str(day), events(day, table, (number, 1), **ours))
    graph = world.lake.scan(GRAPH, str(DAY))
    asked = window(world.project, DAY)
    stream = heap_stream(world.project, asked, asked.days, graph)
    assert sum(map(len, asked.days.values())) > 15
    assert stream.explain().count("Parquet SCAN") == 2  # the events, and the graph
    rows = event_frames(world.project, ["signup"], graph, asked)["signup"]
    assert rows.explain().count("Parquet SCAN") == 2
    apart = [
        without_own(world.lake.scan(event_asset(table), day)).select("user_id", "time", event_type=pl.lit(table))
        for table, days in asked.days.items()
        for day in days
    ]
    of_ann = pl.concat(apart).filter(pl.col("user_id").is_in([1, 900])).collect().drop("user_id")
    ann = graph.filter(identifier="1", identifier_type="heap_user_id").collect()["profile_id"].item()
    found = stream.filter(pl.col("profile_id") == ann).select(of_ann.columns).collect()
    assert found.sort(pl.all()).equals(of_ann.sort(pl.all()))


def test_events_that_we_sent_prove_nothing(world: World) -> None:
    ours = events(DAY, "signup", (911, 3), sent_by="heap_assets")
    world.write("heap/events/signup", DAY, ours)
    world.resolve(DAY)
    cat = world.lake.scan(PROFILES, str(DAY)).collect().filter(heap_identity="cat@x.example")
    assert cat["signed_up"].to_list() == [False]
    read = {
        (given.table.name, str(given.day)): given.rows().collect().height
        for given in identity_inputs(world.project, DAY).inputs
        if given.table.kind == "event"
    }
    assert read["heap/events/signup", str(DAY)] == 0
    assert read["heap/events/signup", str(LONG_AGO)] == 3


def test_an_audience_that_empties_over_night_is_told(world: World) -> None:
    crowd = [f"profile-{n}" for n in range(60)]
    for day, size in ((BEFORE, 60), (DAY, 10)):
        frame = pl.DataFrame({"audience": ["lookers"] * size, "profile_id": crowd[:size]})
        world.lake.write(AUDIENCES, str(day), frame)
    [check] = checks_for_audiences()
    assert check.evaluate
    result = check.evaluate(CheckContext(world.lake, AUDIENCES, str(DAY)))
    assert (result.passed, result.notes, result.numbers) == (False, {"changed": "lookers"}, {"members_lookers": 10})
    assert check.evaluate(CheckContext(world.lake, AUDIENCES, str(BEFORE))).passed


def test_the_day_after_has_a_window_of_its_own(world: World) -> None:
    tomorrow = next_day()
    world.write_day(tomorrow)
    world.resolve(tomorrow)
    rows = world.lake.scan(PROFILES, str(tomorrow)).collect().filter(heap_identity="ann@x.example")
    assert rows["active_days"].to_list() == [3]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("profiles:\n  behaviour: {{features: {{plan: signup}}}}\n", "already"),
        ("profiles:\n  audiences: {{a: {{user_properties: {{plam: pro}}}}}}\n", "no trait 'plam'"),
        (
            "profiles:\n  audiences: {{a: {{events: [{{type: signup, often: 3}}]}}}}\n",
            r"profiles.audiences.a.events\[0\]",
        ),
    ],
)
def test_a_mistake_in_the_settings_names_its_path(world: World, text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        asking(world, text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("profiles:\n  audiences: {{a: {{events: [{{type: Sing Up}}]}}}}\n", "'Sing Up', which no table holds"),
        ("profiles:\n  behaviour: {{features: {{new: sing_up}}}}\n", r"profiles.behaviour.features.new names"),
        (
            "profiles:\n  audiences: {{a: {{events: [{{type: signup, properties: {{plam: pro}}}}]}}}}\n",
            "signup has no column 'plam'",
        ),
    ],
)
def test_an_event_that_heap_does_not_have_is_an_error_at_load(world: World, text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        build_definitions(asking(world, text).project)


def test_a_new_lake_loads_and_builds_before_any_event_table_is_known(world: World) -> None:
    asked = _ASKED.replace("Pageviews", "Pricing Page Viewed")
    asking(world, asked)
    world.project = replace(world.project, catalogue=Catalogue())
    assert check_events(world.project) == [
        "no event table is known yet: whether Heap has what is asked for (Pricing Page Viewed, signup) shows with the "
        "first dump"
    ]
    world.resolve(DAY)
    assert world.run([AUDIENCES], DAY).success
    rows = world.lake.scan(PROFILES, str(DAY)).collect()
    assert not rows["signed_up"].any()
    assert not rows["lookers"].any()
    assert rows.filter("idle_payers")["plan"].unique().to_list() == ["pro"]


def test_once_tables_are_known_an_event_that_is_none_of_them_is_refused(world: World) -> None:
    asking(world, _ASKED.replace("Pageviews", "Pricing Page Viewed"))
    with pytest.raises(SettingsError, match=r"'Pricing Page Viewed', which no table holds\. Tables: pageviews, signup"):
        check_events(world.project)


def test_an_audience_that_cannot_be_judged_stops_itself_and_the_syncs_that_send_it(world: World) -> None:
    asking(world, _ASKED + "    odd: {{user_properties: {{conflicts: true}}}}\n")
    world.resolve(DAY)
    rows = world.lake.scan(PROFILES, str(DAY)).collect()
    assert rows["odd"].null_count() == rows.height
    assert rows["idle_payers"].any()
    told = result_store.read(world.lake.store, PROFILES, "traits_made", str(DAY))
    assert told is not None
    assert told.failed
    assert "cannot be compared with a column of type Int64" in str(told.notes)
