"""Functions of the inbox's tables: days, live profiles, and what an edit builds again."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner

from heap_assets.cli.functions import function
from heap_assets.cli.status import status
from heap_assets.errors import SettingsError
from heap_assets.orchestration.checks import asset_key
from heap_assets.orchestration.rebuild_notices import record_changes
from heap_assets.pipelines.function_rebuilds import function_rebuilds
from heap_assets.pipelines.functions import check_functions
from heap_assets.pipelines.inbox import unbuilt_inbox_days
from heap_assets.pipelines.live_profiles import LiveProfiles
from heap_assets.pipelines.suites import inbox_checks
from heap_assets.quality import CheckContext, result_store
from heap_assets.quality.results import CheckResult, Severity
from heap_assets_tests.live.inbox_world import InboxWorld
from heap_assets_tests.live.test_live_profiles import build, parts_since
from heap_assets_tests.pipelines.delivery_world import BEFORE, DAY, NOW, at, next_day

TODAY = next_day()
FUNCTIONS = """
functions:
  transform:
    inbox/identify: {file: identify.js, columns: {tier: text}}
    inbox/tr*: {file: track.js}
"""
IDENTIFY = """
export default function (row, context) {
  if (row.email === "bot@x.example") return context.drop("robot");
  const tier = JSON.parse(row.body).traits.tier ?? "none";
  return { plan: row.plan && row.plan.toUpperCase(), email: row.email, tier };
}
"""
TRACK = "export default (row) => row.event === 'Two' ? [row, { ...row, event: 'Second' }] : row;"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InboxWorld:
    monkeypatch.setenv("HEAP_ASSETS_NOW", NOW)
    monkeypatch.setenv("HEAP_ASSETS_TEST_WRITE_KEY", "wk-functions-of-inbox-5c2")
    made = InboxWorld(tmp_path / "world", "{}")
    made.more = FUNCTIONS
    for name in ("functions", "scratch"):
        (made.folder / name).mkdir()
    (made.folder / "functions" / "identify.js").write_text(IDENTIFY)
    (made.folder / "functions" / "track.js").write_text(TRACK)
    made.choose("{}")
    for day in (BEFORE, DAY):
        made.write_day(day)
    record_changes(made.instance, made.project)
    return made


def identified(number: int, **traits: Any) -> dict[str, Any]:
    stamp = (at(DAY, 10) + timedelta(minutes=number)).isoformat()
    return {"type": "identify", "messageId": f"i{number}", "timestamp": stamp, "userId": "c-ann", "traits": traits}


def tracked(number: int, event: str) -> dict[str, Any]:
    stamp = (at(DAY, 11) + timedelta(minutes=number)).isoformat()
    return {"type": "track", "messageId": f"t{number}", "timestamp": stamp, "userId": "c-ann", "event": event}


def plans(world: InboxWorld) -> list[Any]:
    return world.lake.scan("inbox/identify", str(DAY)).collect()["plan"].to_list()


def test_rows_are_changed_dropped_and_split_and_live_profiles_have_the_same(world: InboxWorld) -> None:
    world.post(identified(1, plan="gold", email="ann@x.example", tier="top"), received=at(DAY, 12))
    world.post(identified(2, email="bot@x.example"), tracked(1, "Two"), tracked(2, "One"), received=at(DAY, 12))
    build(world)
    rows = world.lake.scan("inbox/identify", str(DAY)).collect()
    assert rows.columns == list(world.project.message_tables["inbox/identify"].schema)
    assert rows.select("message_id", "user_id", "plan", "tier").rows() == [("i1", "c-ann", "GOLD", "top")]
    tracks = world.lake.scan("inbox/track", str(DAY)).select("message_id", "event").collect().rows()
    assert sorted(tracks) == [("t1", "Two"), ("t1-1", "Second"), ("t2", "One")]
    assert world.lake.scan("inbox/users", str(DAY)).collect()["tier"].to_list() == ["top"]
    notes = world.lake.find("inbox/identify", str(DAY)).notes  # type: ignore[union-attr]
    assert notes["function_dropped_by"] == {"robot": 1}
    context = CheckContext(world.lake, "inbox/identify", str(DAY))
    results = {
        one.name: one.evaluate(context).passed
        for one in inbox_checks(world.project, "inbox/identify")
        if one.evaluate and one.partitioned
    }
    assert results["function_rejected_rows"]
    assert results["function_columns_declared"]

    live = LiveProfiles(world.project)
    parts_since(world, taken := set())
    world.post(identified(3, plan="silver", tier="low"), received=at(DAY, 13))
    live.apply(parts_since(world, taken))
    followed = live.profiles.filter(live.profiles["plan"].is_not_null()).select("heap_identity", "plan").sort("plan")
    assert "SILVER" in followed["plan"].to_list()
    build(world)
    batch = world.lake.scan("profiles", str(DAY)).collect()
    assert followed.rows() == batch.filter(batch["plan"].is_not_null()).select(followed.columns).sort("plan").rows()


def test_an_edit_says_which_days_it_builds_again_and_builds_those(
    world: InboxWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    early = identified(1, plan="gold") | {"timestamp": at(BEFORE, 10).isoformat()}
    world.post(early, identified(2, plan="free"), tracked(1, "One"), received=at(DAY, 12))
    build(world)
    for asset in ("inbox/identify", "inbox/track", "inbox/users"):
        for day in (BEFORE, DAY):  # as the step that builds a day does; the running one rests after that
            result_store.record(
                world.lake.store, CheckResult(passed=True), asset=asset, check="readable", partition=str(day),
                version=None, severity=Severity.ERROR, blocking=True,
            )  # fmt: skip
    assert plans(world) == ["FREE"]
    assert function_rebuilds(world.project) == []

    (world.folder / "functions" / "identify.js").write_text(IDENTIFY.replace("toUpperCase", "toLowerCase"))
    (rebuild,) = function_rebuilds(world.project)
    assert (rebuild.asset, rebuild.file, rebuild.days) == ("inbox/identify", "identify.js", (BEFORE, DAY, TODAY))
    monkeypatch.chdir(world.folder)
    shown = CliRunner().invoke(status, ["--json"]).output
    assert "inbox/identify: 3 days will be built again (2026-11-19 to 2026-11-21)" in shown

    record_changes(world.instance, world.project)
    observed = world.instance.fetch_observations(asset_key("inbox/identify", world.project.names), limit=1).records
    observation = observed[0].asset_observation
    assert observation is not None
    assert observation.metadata["days_built_again"] == dg.MetadataValue.int(3)
    assert unbuilt_inbox_days(world.project)["inbox/identify"] == {BEFORE, DAY, TODAY}
    assert "inbox/track" not in unbuilt_inbox_days(world.project)
    build(world)
    assert plans(world) == ["free"]
    assert function_rebuilds(world.project) == []


def test_a_function_of_messages_is_tried_and_a_pattern_of_none_refused(
    world: InboxWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.post(identified(1, plan="gold", tier="top"), received=at(DAY, 12))
    monkeypatch.chdir(world.folder)
    tried = CliRunner().invoke(function, ["test", "identify.js", "--table", "inbox/identify", "--day", str(DAY)])
    assert tried.exit_code == 0, tried.output
    assert '"plan": "GOLD"' in tried.output
    assert world.lake.partitions("inbox/identify") == []
    world.more = FUNCTIONS.replace("inbox/tr*", "inbox/tz*")
    with pytest.raises(SettingsError, match=r"functions.transform.inbox/tz\* matches no table of messages"):
        check_functions(world.choose("{}").project)
