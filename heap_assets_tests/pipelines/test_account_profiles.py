"""Profiles of accounts: what all their people did, held against a count by hand, and sent like any table."""

from __future__ import annotations

import json
from datetime import timedelta

import polars as pl
import pytest
from click.testing import CliRunner

from heap_assets import clock
from heap_assets.activation import connector_of
from heap_assets.cli.main import _group as commands
from heap_assets.errors import SettingsError
from heap_assets.pipelines.account_audiences import AccountAudienceDay
from heap_assets.pipelines.account_profiles import check_accounts
from heap_assets.project import parse_settings
from heap_assets.project.project import Project
from heap_assets.storage import LakeSql
from heap_assets.tables import ACCOUNT_AUDIENCES, ACCOUNT_PROFILES, PROFILES
from heap_assets_tests.pipelines.delivery_world import BEFORE, DAY, NOW, SETTINGS, World, at, events, why

_ACCOUNTS = """
accounts:
  table: accounts
  key: account_id
  member_of: account
  behaviour: {days: 10, features: {signs: signup}, trends: true, top_pages: path}
  scores: {interest: {weights: {pageviews: 2, signup: 5}, within_days: 10}}
  audiences:
    lively: {events: [{type: pageviews, count: {gte: 3}, within_days: 10}]}
    large_and_lively: {audiences: [lively], account_properties: {size: {gte: 10}}}
    cold: {user_properties: {active_people: 0}, none: [{audiences: [lively]}]}
"""
_SYNC = (
    "{it: {kind: heap_account_properties, source: accounts/profiles, "
    "properties: {Stage: lifecycle_stage, Lively: lively}}}"
)


@pytest.fixture(scope="module")
def world(base: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(clock.VARIABLE, NOW)
        world = base.copy(tmp_path_factory.mktemp("accounts") / "world", "{}", "http://127.0.0.1:9")
        path = world.folder / "heap_assets.yaml"
        path.write_text(f"{SETTINGS.format(heap=world.heap)}  {_SYNC}{_ACCOUNTS}")
        world.project = Project(parse_settings(path.read_text(), path), world.project.catalogue, world.lake)
        world.write("heap/pageviews", DAY, events(DAY, "pageviews", (901, 1), (902, 1), (903, 3)))
        world.resolve(DAY)
        result = world.run([ACCOUNT_PROFILES], DAY)
        assert result.success, why(result)
    return world


def test_the_people_of_an_account_count_together(world: World) -> None:
    table = {row["account"]: row for row in world.lake.scan(ACCOUNT_PROFILES, str(DAY)).collect().to_dicts()}
    profiles = world.lake.scan(PROFILES, str(DAY)).select("account", "heap_user_ids").collect()
    account_of = {user: row["account"] for row in profiles.to_dicts() for user in row["heap_user_ids"]}
    assert set(table) == {"acme", "globex", "nobody"}
    since = at(DAY, 0) - timedelta(days=9)
    counted: dict[str, dict[str, list[int]]] = {account: {"pageviews": [], "signup": []} for account in table}
    for name, asset in (("pageviews", "heap/pageviews"), ("signup", "heap/events/signup")):
        for day in world.lake.partitions(asset):
            for row in world.lake.scan(asset, day).collect().to_dicts():
                if row["time"] >= since and (account := account_of.get(row["user_id"])):
                    counted[account][name].append(row["user_id"])
    owners = {user: profile for profile, row in enumerate(profiles.to_dicts()) for user in row["heap_user_ids"]}
    for account, row in table.items():
        views, signups = counted[account]["pageviews"], counted[account]["signup"]
        assert row["people"] == profiles.filter(account=account).height
        assert row["active_people"] == len({owners[user] for user in views + signups})
        assert row["interest"] == 2 * len(views) + 5 * len(signups)
        assert row["signs"] is (len(signups) > 0)
        assert row["signs_people"] == len({owners[user] for user in signups})
        assert row["lively"] is (len(views) >= 3)
        assert row["cold"] is (not views + signups and not row["lively"])
        assert row["features_used"] == int(row["signs"])
        assert row["top_pages"] == (["/"] if views else None)
    assert table["acme"]["lively"]
    assert table["acme"]["large_and_lively"]
    assert table["nobody"]["lifecycle_stage"] == "Unclassified"
    assert table["acme"]["lifecycle_stage"] != "Unclassified"


def test_accounts_enter_stay_in_and_leave_audiences(world: World) -> None:
    result = world.run([PROFILES, ACCOUNT_PROFILES, ACCOUNT_AUDIENCES], BEFORE)
    assert result.success, why(result)
    result = world.run([ACCOUNT_AUDIENCES], DAY)
    assert result.success, why(result)
    columns = ["lively", "large_and_lively", "cold"]
    inside = {
        day: {
            (name, row["account"])
            for row in world.lake.scan(ACCOUNT_PROFILES, str(day)).collect().to_dicts()
            for name in columns
            if row[name]
        }
        for day in (BEFORE, DAY)
    }
    rows = world.lake.scan(ACCOUNT_AUDIENCES, str(DAY)).collect().to_dicts()
    changes = {(row["audience"], row["account"]): (row["change"], row["since"]) for row in rows}
    assert changes == (
        dict.fromkeys(inside[DAY] - inside[BEFORE], ("entered", DAY))
        | dict.fromkeys(inside[DAY] & inside[BEFORE], ("stayed", BEFORE))
        | dict.fromkeys(inside[BEFORE] - inside[DAY], ("left", DAY))
    )
    assert {"stayed", "left"} <= {change for change, _ in changes.values()}
    first = world.lake.scan(ACCOUNT_AUDIENCES, str(BEFORE)).collect()
    assert {*first.select("audience", "account").rows()} == inside[BEFORE]
    assert {*first.select("change", "since").rows()} == {("entered", BEFORE)}
    figures = world.lake.find(ACCOUNT_AUDIENCES, str(DAY))
    assert figures is not None
    assert figures.notes["entered_lively"] == sum(name == "lively" for name, _ in inside[DAY] - inside[BEFORE])


def test_definitions_and_their_sql_give_the_members_that_are_stored(world: World) -> None:
    asked = AccountAudienceDay.newest(world.project, DAY)
    stored = world.lake.scan(ACCOUNT_PROFILES, str(DAY)).collect()
    with LakeSql(str(world.lake.store.url)) as lake:
        for name, audience in asked.audiences.items():
            members = stored.filter(name)["account"].to_list()
            assert asked.members(audience)["profile_id"].to_list() == members, name
            statement = asked.statement(audience)
            assert lake.sql(statement.text(), statement.parameters)["profile_id"].to_list() == members, name
            assert "EXCLUDE" not in statement.text("bigquery")
    assert asked.explained(asked.one("large_and_lively"))["left"][-1] == stored["large_and_lively"].sum()
    [views] = [row for row in asked.explained_person(asked.one("lively"), "acme").to_dicts() if row["met"]]
    assert int(views["value"]) >= 3
    lively = int(stored["lively"].sum())
    assert asked.changed("lively", "events[0].count.gte", 999) == {
        "value": 999, "members": 0, "enter": 0, "leave": lively
    }  # fmt: skip
    with pytest.raises(SettingsError, match="has no such account"):
        asked.explained_person(asked.one("lively"), "no-such")


def test_the_command_takes_accounts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEAP_ASSETS_SETTINGS", str(world.folder / "heap_assets.yaml"))
    said = CliRunner().invoke(commands, ["audience", "size", "--accounts", "--day", str(DAY), "--json"])
    assert [row["audience"] for row in json.loads(said.stdout)] == ["lively", "large_and_lively", "cold"]


def test_a_sync_sends_their_columns(world: World) -> None:
    rows = connector_of(world.project, "it").rows(DAY)
    frame = (rows if isinstance(rows, pl.LazyFrame) else rows.rows).collect()  # type: ignore[union-attr]
    assert set(frame["key"]) == {"acme", "globex", "nobody"}
    assert {"lifecycle_stage", "lively"} <= set(frame.columns) or {"Stage", "Lively"} <= set(frame.columns)


def test_a_merge_or_an_earlier_day_is_computed_from_its_own_graph(world: World) -> None:
    result = world.run([PROFILES, ACCOUNT_PROFILES], BEFORE)
    assert result.success, why(result)
    stored = world.lake.find(ACCOUNT_PROFILES, str(BEFORE))
    assert stored is not None
    assert f"{PROFILES}@{BEFORE}" in stored.inputs.versions


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("active_people: 0", "no_such: 0", "accounts.audiences.cold.*: accounts have no column 'no_such'"),
        ("signs: signup", "signs: no_such", "accounts.behaviour.features.signs names the event 'no_such'"),
        ("signs: signup", "people: signup", "accounts have a column 'people' already"),
        ("{type: pageviews,", "{type: no_such,", "names the event 'no_such', which no table holds"),
    ],
)
def test_a_mistake_names_its_key(world: World, old: str, new: str, message: str) -> None:
    path = world.folder / "heap_assets.yaml"

    def load() -> None:
        settings = parse_settings(path.read_text().replace(old, new), path)
        check_accounts(Project(settings, world.project.catalogue, world.lake))

    with pytest.raises(SettingsError, match=message):
        load()
