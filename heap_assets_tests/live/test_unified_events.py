"""Unified events: Heap's events and messages in the same columns, each with its person; built when inputs changed."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from heap_assets.errors import MissingInputError, SettingsError
from heap_assets.orchestration.checks import asset_key
from heap_assets.pipelines.suites import checks_of
from heap_assets.pipelines.table import Task
from heap_assets.pipelines.unified_events import unbuilt_unified_days, unified_day, unified_sources
from heap_assets.profiles import UNIFIED, UNIFIED_SCHEMA
from heap_assets.quality import result_store
from heap_assets.quality.measures import table_facts
from heap_assets.quality.unified import contract_holds
from heap_assets.storage import Inputs, LakeSql
from heap_assets.tables import UNIFIED_EVENTS
from heap_assets_tests.live.inbox_world import FOLDED, INBOX_ASSETS, InboxWorld, copy_of
from heap_assets_tests.live.test_inbox_assets import ENVIRONMENT, call
from heap_assets_tests.pipelines.delivery_world import BEFORE, DAY, at, events, why

MORE = "unified_events: {}\nmodels: {counts: {sql: 'select source, count(*) as n from main.unified_events group by 1'}}"


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> InboxWorld:
    """A world with events of both kinds, resolved: Ann is Heap's user 1, customer c-ann, and the visitor v1."""
    patch = pytest.MonkeyPatch()
    for name, value in ENVIRONMENT.items():
        patch.setenv(name, value)
    world = InboxWorld(tmp_path_factory.mktemp("built") / "world", "{}", more=MORE)
    world.write_day(DAY)
    heap = events(DAY, "signup", (5001, 1), (5002, 77), plan="gold")
    world.lake.write("heap/events/signup", str(DAY), heap, Inputs({"dump": "1"}))
    moment = at(DAY, 10)
    page = {"context": {"page": {"url": "https://x.example/a", "title": "A"}, "location": {"city": "Oslo"}}}
    world.post(
        call("track", "t1", moment, anonymousId="v1", event="Viewed", properties={"total": 1, "b": {"c": [1, 2]}}),
        call("identify", "i1", moment, userId="c-ann", anonymousId="v1", traits={"email": "ann@x.example"}),
        call("page", "p1", moment, anonymousId="v9", name="Home", properties={}, **page),
        call("page", "p2", moment, anonymousId="v1"),
        received=moment + timedelta(seconds=1),
    )
    for assets in (INBOX_ASSETS, FOLDED):
        assert world.run(assets, BEFORE, DAY).success or assets is FOLDED
    assert world.run(FOLDED, DAY).success
    world.resolve(DAY)
    result = world.run([UNIFIED_EVENTS], DAY)
    assert result.success, why(result)
    patch.undo()
    return world


def rows_of(world: InboxWorld) -> dict[str, dict[str, Any]]:
    return {row["event_id"]: row for row in world.lake.scan(UNIFIED_EVENTS, str(DAY)).collect().to_dicts()}


def test_events_of_both_kinds_have_one_schema_and_one_set_of_identifiers(built: InboxWorld) -> None:
    rows = rows_of(built)
    assert built.lake.scan(UNIFIED_EVENTS, str(DAY)).collect_schema() == UNIFIED_SCHEMA
    assert {"5001", "5002", "t1", "p1", "p2"} <= rows.keys()
    assert "i1" not in rows
    heap, message = rows["5001"], rows["t1"]
    assert heap["profile_id"] == message["profile_id"] != None  # noqa: E711
    own = {name: heap[name] for name in ("source", "event_table", "event", "heap_user_id", "identity", "identifier")}
    assert own == {
        "source": "heap",
        "event_table": "signup",
        "event": "Signed Up",
        "heap_user_id": 1,
        "identity": "ann@x.example",
        "identifier": "1",
    }
    assert (message["source"], message["event_table"], message["event"]) == ("web", "inbox/track", "Viewed")
    assert (message["anonymous_id"], message["identifier_type"], message["identifier"]) == ("v1", "visitor", "v1")
    # the message has neither: its profile has one identity, and two of Heap's users
    assert (message["identity"], message["heap_user_id"]) == ("ann@x.example", None)
    assert json.loads(message["properties"]) == {"total": 1, "b": {"c": [1, 2]}}
    assert json.loads(heap["properties"])["plan"] == "gold"


def test_visitors_and_pages_keep_what_they_say(built: InboxWorld) -> None:
    rows = rows_of(built)
    assert rows["5002"]["profile_id"] not in (None, rows["5001"]["profile_id"])
    assert (rows["5002"]["heap_user_id"], rows["5002"]["identity"]) == (77, None)
    page = rows["p1"]
    assert (page["event"], page["page_url"], page["page_title"]) == ("Home", "https://x.example/a", "A")
    assert page["city"] == "Oslo"
    assert (rows["p2"]["event"], rows["p2"]["properties"]) == ("inbox/page", "{}")


def test_today_s_person_is_one_join_away(built: InboxWorld) -> None:
    with LakeSql(built.project.settings.lake.url, assets=[UNIFIED_EVENTS, "identity/graph"]) as connection:
        joined = connection.sql(
            "select count(*) n, count(*) filter (g.profile_id = e.profile_id) same from unified_events e "
            "join identity.graph g using (identifier_type, identifier) where e.profile_id is not null"
        )
    assert joined.row(0)[0] == joined.row(0)[1] > 0


def test_a_day_is_due_only_when_its_tables_or_its_graph_changed(built: InboxWorld, tmp_path: Path) -> None:
    world = copy_of(built, tmp_path / "world", "{}", more=MORE)
    due = unbuilt_unified_days(world.project).get(UNIFIED_EVENTS, set())
    assert DAY not in due
    result = world.run([UNIFIED_EVENTS], DAY)
    assert world.lake.find(UNIFIED_EVENTS, str(DAY)).version == built.lake.find(UNIFIED_EVENTS, str(DAY)).version  # type: ignore[union-attr]
    assert result.success
    more = events(DAY, "signup", (5001, 1), (5003, 2), plan="gold")
    world.lake.write("heap/events/signup", str(DAY), more, Inputs({"dump": "2"}))
    # the graph reads these rows too, and is resolved first: a day is not built twice
    assert DAY not in unbuilt_unified_days(world.project).get(UNIFIED_EVENTS, set())
    world.resolve(DAY)
    assert unbuilt_unified_days(world.project)[UNIFIED_EVENTS] >= {DAY}
    assert world.run([UNIFIED_EVENTS], DAY).success
    assert {"5001", "5003"} <= rows_of(world).keys()
    assert DAY not in unbuilt_unified_days(world.project).get(UNIFIED_EVENTS, set())
    # retention deletes graphs; that changes nothing about who a person was
    world.lake.write("identity/graph", str(DAY + timedelta(days=1)), world.lake.scan("identity/graph", str(DAY)))
    world.lake.delete("identity/graph", str(DAY))
    assert DAY not in unbuilt_unified_days(world.project).get(UNIFIED_EVENTS, set())


def test_the_contract_is_a_check(built: InboxWorld, tmp_path: Path) -> None:
    checks = {check.name: check for check in checks_of(built.project, UNIFIED_EVENTS)}
    assert {"readable", "contract_holds", "unique_keys"} == checks.keys()
    for name in checks:
        stored = result_store.read(built.lake.store, UNIFIED_EVENTS, name, str(DAY))
        assert stored is not None
        assert stored.passed, name
    world = copy_of(built, tmp_path / "world", "{}", more=MORE)
    good = world.lake.scan(UNIFIED_EVENTS, str(DAY)).collect()
    contract = {name: str(column.dtype) for name, column in UNIFIED.items()}

    def judged(frame: pl.DataFrame) -> bool:
        return contract_holds(table_facts(frame.lazy(), DAY), contract).passed

    assert judged(good)
    assert not judged(good.drop("city"))
    assert not judged(good.with_columns(more=1))
    assert not judged(good.with_columns(pl.col("heap_user_id").cast(pl.String)))
    assert not judged(good.select(reversed(good.columns)))
    assert not judged(good.with_columns(event=pl.lit(None, pl.String)))
    assert not judged(good.with_columns(pl.col("time") + timedelta(days=1)))


def test_lineage_leads_to_every_table_and_the_graph(built: InboxWorld) -> None:
    from heap_assets.orchestration.definitions import build_definitions

    spec = build_definitions(built.project).resolve_asset_graph().get(asset_key(UNIFIED_EVENTS))
    parents = {"/".join(key.path) for key in spec.parent_keys}
    assert {"heap/events/signup", "heap/pageviews", "inbox/track", "inbox/page", "identity/graph"} <= parents
    assert "inbox/identify" not in parents
    lineage = spec.metadata["dagster/column_lineage"].deps_by_column  # type: ignore[union-attr]
    assert {(dep.asset_key.to_user_string(), dep.column_name) for dep in lineage["profile_id"]} == {
        ("identity/graph", "profile_id")
    }


def test_models_read_it_and_a_day_without_a_graph_waits(built: InboxWorld, tmp_path: Path) -> None:
    assert built.run(["models/counts"], DAY).success
    assert built.lake.scan("models/counts", str(DAY)).collect()["n"].sum() == len(rows_of(built))
    world = InboxWorld(tmp_path / "world", "{}", more=MORE)
    world.write_day(DAY)
    assert unbuilt_unified_days(world.project) == {}
    with pytest.raises(MissingInputError, match="identity/graph has not been built yet"):
        unified_day(Task(world.project, DAY, tmp_path))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("{assets: [heap/signup]}", r"unified_events.assets\[0\] is 'heap/signup', which is no table of events"),
        ("{tables: [x]}", "unified_events.tables"),
    ],
)
def test_a_table_that_there_is_not_is_told(tmp_path: Path, setting: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        unified_sources(InboxWorld(tmp_path / "world", "{}", more=f"unified_events: {setting}").project)
