"""What was posted identifies people, gives traits and accounts, and is sent, by the assets of the platform."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from heap_assets.demo.server_process import ServerProcess
from heap_assets.errors import SettingsError
from heap_assets.orchestration.definitions import build_definitions
from heap_assets.pipelines.inbox import unbuilt_inbox_days
from heap_assets.pipelines.readiness import graph_is_due
from heap_assets.quality import result_store
from heap_assets.tables import inbox_asset
from heap_assets_tests.live.inbox_world import FOLDED, INBOX, INBOX_ASSETS, InboxWorld
from heap_assets_tests.pipelines.delivery_world import BEFORE, DAY, NOW, at, properties, why

SYNCS = """\
heap_user_properties: {properties: {Plan: plan, Account: account}}
heap_account_properties: {source: inbox/accounts, key: group_id, account_id_configured: true, properties: {Tier: tier}}
heap_events: {source: inbox/track, event_name_column: event, properties: {Total: total}, since: beginning}
"""


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEAP_ASSETS_NOW", NOW)
    monkeypatch.setenv("HEAP_ASSETS_TEST_WRITE_KEY", "wk-inbox-assets-77aa")


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


def made(folder: Path, heap: str, syncs: str = SYNCS) -> InboxWorld:
    world = InboxWorld(folder, syncs, heap)
    world.write_day(DAY)
    posted(world)
    for assets in (INBOX_ASSETS, FOLDED):
        assert world.run(assets, BEFORE, DAY).success or assets is FOLDED
    assert world.run(FOLDED, DAY).success
    world.resolve(DAY)
    return world


def test_messages_identify_people_give_traits_and_accounts_and_are_sent(tmp_path: Path, heap: ServerProcess) -> None:
    world = made(tmp_path / "world", heap.base_url)
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


def test_checks_tell_of_rejected_rows_and_names_that_no_column_takes(tmp_path: Path) -> None:
    world = made(tmp_path / "world", "http://127.0.0.1:9", "{}")
    results = {
        name: result_store.read(world.lake.store, inbox_asset("track"), name, str(DAY))
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


def test_a_new_day_of_messages_makes_the_graph_due(tmp_path: Path) -> None:
    world = made(tmp_path / "world", "http://127.0.0.1:9", "{}")
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
        assert world.run(["inbox/alias"], DAY).success
        world.resolve(DAY)
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
