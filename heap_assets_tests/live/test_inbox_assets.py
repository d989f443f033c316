"""What was posted identifies people, gives traits and accounts, and is sent, by the assets of the platform."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from heap_assets.demo.server_process import ServerProcess
from heap_assets.errors import SettingsError
from heap_assets.orchestration.definitions import build_definitions
from heap_assets.pipelines.analytics import analytics_of_day, check_analytics
from heap_assets.pipelines.audiences import AudienceDay
from heap_assets.pipelines.behaviour import check_events
from heap_assets.pipelines.inbox import unbuilt_inbox_days
from heap_assets.pipelines.people import profiles_of_day
from heap_assets.pipelines.readiness import graph_is_due
from heap_assets.pipelines.signals import check_signals, signal_of_day
from heap_assets.quality import result_store
from heap_assets.storage import LakeSql
from heap_assets.tables import inbox_asset
from heap_assets_tests.live.inbox_world import FOLDED, INBOX, INBOX_ASSETS, InboxWorld, build, copy_of
from heap_assets_tests.pipelines.delivery_world import BEFORE, DAY, NOW, at, properties, why

SYNCS = """\
heap_user_properties: {properties: {Plan: plan, Account: account}}
heap_account_properties: {source: inbox/accounts, key: group_id, account_id_configured: true, properties: {Tier: tier}}
heap_events: {source: inbox/track, event_name_column: event, properties: {Total: total}, since: beginning}
"""


ENVIRONMENT = {"HEAP_ASSETS_NOW": NOW, "HEAP_ASSETS_TEST_WRITE_KEY": "wk-inbox-assets-77aa"}


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


def call(kind: str, message_id: str, at: datetime, **more: Any) -> dict[str, Any]:
    return {"type": kind, "messageId": message_id, "timestamp": at.isoformat(), **more}


def posted(world: InboxWorld) -> None:
    """Ann buys as a visitor, identifies herself with her email and joins an account; Bob is known by an alias."""
    moment = at(DAY, 10)
    world.post(
        call("track", "t1", moment, anonymousId="v1", event="Viewed", properties={"total": 1}),
        call(
            "identify",
            "i1",
            moment,
            userId="c-ann",
            anonymousId="v1",
            traits={"email": "ann@x.example", "plan": "gold"},
        ),
        call("track", "t2", moment, userId="c-ann", event="Paid", properties={"total": 20.5, "coupon": "x"}),
        call("track", "t3", moment, userId="c-ann", event="Paid", properties={"total": "much"}),
        call("group", "g1", moment, userId="c-ann", groupId="acme", traits={"tier": "top"}),
        call("alias", "a1", moment, previousId="v2", userId="c-bob"),
        call("track", "t4", at(BEFORE), anonymousId="v2", event="Viewed"),
        received=moment + timedelta(seconds=1),
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> InboxWorld:
    """A world whose messages were posted, built and resolved."""
    patch = pytest.MonkeyPatch()
    for name, value in ENVIRONMENT.items():
        patch.setenv(name, value)
    world = InboxWorld(tmp_path_factory.mktemp("built") / "world", "{}")
    world.write_day(DAY)
    posted(world)
    for assets in (INBOX_ASSETS, FOLDED):
        assert world.run(assets, BEFORE, DAY).success or assets is FOLDED
    assert world.run(FOLDED, DAY).success
    world.resolve(DAY)
    patch.undo()
    return world


def test_messages_identify_people_give_traits_and_accounts_and_are_sent(
    built: InboxWorld, tmp_path: Path, heap: ServerProcess
) -> None:
    world = copy_of(built, tmp_path / "world", SYNCS, heap=heap.base_url)
    people = {}
    for row in world.lake.scan("profiles", str(DAY)).collect().to_dicts():
        values = {
            one["type"]: [v["value"] for v in row["identifiers"] if v["type"] == one["type"]]
            for one in row["identifiers"]
        }
        people[values["crm_id"][0]] = row | {"visitors": values.get("visitor")}
    assert (people["c-ann"]["plan"], people["c-ann"]["account"], people["c-ann"]["visitors"]) == (
        "gold",
        "acme",
        ["v1"],
    )
    assert people["c-ann"]["plan__source"] == "inbox/users.plan"
    assert (people["c-bob"]["plan"], people["c-bob"]["visitors"]) == ("pro", ["v2"])
    for sync in ("heap_user_properties", "heap_account_properties", "heap_events"):
        result = world.run([f"sync/{sync}"], DAY)
        assert result.success, why(result)
    state = heap.state()
    assert properties(heap)["ann@x.example"] == {"Plan": "gold", "Account": "acme"}
    assert state["accounts"] == {"acme": {"Tier": "top"}}
    sent = {(e["identity"], e["event"], float(e["properties"].get("Total", 0))) for e in state["events"].values()}
    assert sent == {
        ("ann@x.example", "Paid", 20.5),
        ("ann@x.example", "Viewed", 1.0),
        ("bob@x.example", "Viewed", 0.0),
    }


def test_checks_tell_of_rejected_rows_and_names_that_no_column_takes(built: InboxWorld) -> None:
    results = {
        name: result_store.read(built.lake.store, inbox_asset("track"), name, str(DAY))
        for name in ("readable", "rejected_rows", "names_declared", "unique_keys")
    }
    passed = {name: result.passed for name, result in results.items() if result}
    assert passed == {"readable": True, "rejected_rows": False, "names_declared": False, "unique_keys": True}
    assert "coupon" in str(results["names_declared"])
    assert "much" not in str(results)


def test_days_are_due_by_what_came_and_late_messages_rebuild_theirs(tmp_path: Path) -> None:
    world = InboxWorld(tmp_path / "world", "{}")
    assert unbuilt_inbox_days(world.project) == {}
    posted(world)
    due = unbuilt_inbox_days(world.project)
    today = DAY + timedelta(days=1)
    assert due == {key: {BEFORE, DAY, today} for key in INBOX_ASSETS}
    assert world.run(INBOX_ASSETS, BEFORE, today).success
    assert unbuilt_inbox_days(world.project) == {key: {DAY, today} for key in FOLDED}
    assert world.run(FOLDED, DAY, today).success
    assert unbuilt_inbox_days(world.project) == {}
    world.post(call("track", "late", at(BEFORE), userId="c-ann", event="Paid"), received=at(DAY, 23))
    assert unbuilt_inbox_days(world.project) == {"inbox/track": {BEFORE, DAY}}
    assert world.run(["inbox/track"], BEFORE, DAY).success
    assert unbuilt_inbox_days(world.project) == {}


def test_a_new_day_of_messages_makes_the_graph_due(built: InboxWorld, tmp_path: Path) -> None:
    world = copy_of(built, tmp_path / "world", "{}")
    assert graph_is_due(world.project) is None
    world.post(call("alias", "a2", at(DAY, 20), previousId="v3", userId="c-cat"), received=at(DAY, 20))
    assert world.run(["inbox/alias"], DAY).success
    assert graph_is_due(world.project) == DAY


def test_an_alias_is_refused_by_a_merge_limit_unless_it_is_authoritative(tmp_path: Path) -> None:
    def people(inbox: str) -> pl.DataFrame:
        class Own(InboxWorld):
            pass

        Own.inbox = inbox
        world = Own(tmp_path / str(len(inbox)), "{}")
        world.write_day(DAY)
        calls = [call("alias", f"a{n}", at(DAY, n), previousId=f"v{n}", userId="c-ann") for n in range(7)]
        world.post(*calls, received=at(DAY, 20))
        build(world)
        graph = world.lake.scan("identity/graph", str(DAY)).filter(pl.col("identifier_type") == "visitor")
        return graph.collect()

    assert people(INBOX)["profile_id"].n_unique() == 3
    proof = INBOX.replace("    group:", "    alias: {authoritative: true}\n    group:")
    assert people(proof)["profile_id"].n_unique() == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("from: [inbox/users.plan", "from: [inbox/users.plna"), "inbox/users has no column 'plna'"),
        (("anonymous_id: visitor", "anonymous_id: vistor"), "inbox.identifiers.anonymous_id is 'vistor'"),
        (("columns: {tier: text}", "columns: {user_id: text}"), "inbox.tables.group.columns"),
        (("    group:", "    groups:"), "tables.groups is no table of the inbox"),
        (("columns: {total: number}", "authoritative: true"), "only alias and identify have two ids"),
    ],
)
def test_mistakes_in_the_settings_are_told_by_their_key(
    tmp_path: Path, change: tuple[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import heap_assets_tests.live.inbox_world as module

    class Own(InboxWorld):
        inbox = INBOX.replace(*change)

    if change[0] not in INBOX:
        plain = module.SETTINGS.replace("[contacts.plan]", "[inbox/users.plna, contacts.plan]")
        monkeypatch.setattr(module, "SETTINGS", plain)
    with pytest.raises(SettingsError, match=message):
        Own(tmp_path / "world", "{}").project.check_heap_columns()


def test_assets_of_the_inbox_are_in_the_graph_of_a_code_location(tmp_path: Path) -> None:
    definitions = build_definitions(InboxWorld(tmp_path / "world", "{}").project)
    graph = definitions.resolve_asset_graph()
    keys = {"/".join(key.path): key for key in graph.get_all_asset_keys()}
    assert {*INBOX_ASSETS, *FOLDED} <= keys.keys()
    links = graph.get(keys["identity/links"]).parent_keys
    assert {keys["inbox/identify"], keys["inbox/alias"], keys["inbox/track"]} <= links
    assert keys["inbox/users"] in graph.get(keys["profiles"]).parent_keys
    assert "inbox_tables_follow_messages" in {sensor.name for sensor in definitions.sensors or ()}


ASKED = """\
  behaviour: {features: {paid: inbox/track/Paid}, messages: [inbox/track]}
  audiences:
    payers: {events: [{type: inbox/track/Paid, properties: {total: {gte: 20}}, within_days: 2}]}
    lookers: {events: [{type: inbox/track, count: {gte: 1}}], exclude_events: [{type: inbox/track/Paid}]}
"""
DERIVED = """\
signals:
  spent: {sequence: {steps: [{type: inbox/track/Paid}], span_hours: 24}, event: Spent}
analytics:
  to_paid: {kind: funnel, steps: [inbox/track/Viewed, inbox/track/Paid], ordered: false, days: 5}
"""


def test_messages_are_events_of_activity_audiences_signals_and_funnels(built: InboxWorld, tmp_path: Path) -> None:
    world = copy_of(built, tmp_path / "world", "{}", profiles=ASKED, more=DERIVED)
    project = world.project
    assert check_events(project) == []
    check_signals(project)
    check_analytics(project)
    profiles = profiles_of_day(project, DAY)
    world.lake.write("profiles", str(DAY), profiles.frame, profiles.inputs, notes=profiles.notes)
    columns = ["plan", "active_days", "last_active", "paid", "payers", "lookers"]
    active = profiles.frame.filter(pl.col("active_days") > 0).select(columns).collect()
    assert sorted(active.rows()) == [
        ("gold", 1, str(DAY), True, True, False),
        ("pro", 2, str(DAY), False, False, True),  # Heap has seen him on the day
    ]
    newest = AudienceDay.newest(project)
    for name in ("payers", "lookers"):
        statement = newest.statement(newest.one(name))
        with LakeSql(project.settings.lake.url) as sql:
            assert sql.sql(statement.text(), statement.parameters).equals(newest.members(newest.one(name)))
        assert "EXCLUDE" not in newest.statement(newest.one(name), "bigquery").text("bigquery")
    fired = signal_of_day(project, "spent", DAY).frame.collect()
    assert fired.select("event", "status").rows() == [("Spent", "fired")]
    assert fired["profile_id"].to_list() == newest.members(newest.one("payers"))["profile_id"].to_list()
    assert analytics_of_day(project, "to_paid", DAY).frame.collect()["reached"].to_list() == [2, 1]


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ("inbox/trakc", "names 'inbox/trakc', which is no table of messages. Tables: inbox/track, "),
        ("inbox/identify/Paid", "messages of inbox/identify have no names: expected inbox/identify"),
        ("inbox/shop", "inbox/shop identifies nobody: map a column in inbox.identifiers"),
    ],
)
def test_an_event_that_messages_cannot_be_is_told(tmp_path: Path, event: str, message: str) -> None:
    asked = f"  audiences: {{payers: {{events: [{{type: {event}}}]}}}}\n"

    class Own(InboxWorld):
        inbox = INBOX.replace("  identifiers: {user_id: crm_id, anonymous_id: visitor, previous_id: visitor}\n", "")

    world = (Own if "shop" in event else InboxWorld)(tmp_path / "world", "{}", profiles=asked)
    with pytest.raises(SettingsError, match=re.escape(message)):
        check_events(world.project)
