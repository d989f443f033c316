"""What waits says so by itself: on the asset's page once, in the sensors' ticks, and in `heap-assets status`."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext

from heap_assets import clock
from heap_assets.orchestration.assets import waiting
from heap_assets.orchestration.assets.status import activity_of
from heap_assets.orchestration.pools import sleep_while_waiting
from heap_assets.pipelines.status import Activity, AssetStatus, State, asset_statuses, backlog
from heap_assets.pipelines.waiting import Wait, waits
from heap_assets.project.project import Project
from heap_assets.quality.result_store import record
from heap_assets.quality.results import CheckResult, Severity, could_not_evaluate
from heap_assets.storage import Lake
from heap_assets_tests.orchestration.company_platform import ROOT, World, make_world

ROWS = pl.DataFrame({"contact_id": ["1"]})
EMPTY_RESULT = "Sensor function returned an empty result"


@pytest.fixture
def fresh(world: World, tmp_path: Path) -> World:
    return make_world(world.company, tmp_path)


def ticked(world: World, name: str, cursor: str | None = None) -> Any:
    repository = world.definitions.get_repository_def()
    with dg.build_sensor_context(world.instance, cursor=cursor, repository_def=repository) as context:
        return repository.get_sensor_def(name).evaluate_tick(context)


def by_asset(project: Project) -> dict[str, Wait]:
    return {wait.asset: wait for wait in waits(replace(project))}


def statuses(project: Project, **activity: Activity) -> dict[str, AssetStatus]:
    told = asset_statuses(replace(project), {name.replace("__", "/"): one for name, one in activity.items()})
    return {one.asset: one for one in told}


def test_what_waits_is_written_on_its_page_once_for_each_reason(fresh: World, tmp_path: Path) -> None:
    first = ticked(fresh, "waits")
    told = {event.asset_key.to_user_string(): str(event.metadata["waits"].value) for event in first.asset_events}
    assert told["heap/users"] == "no dump has landed yet"
    assert "heap/users" in told["identity/graph"]
    assert "profiles has not been built" in told["sync/heap_user_properties"]
    assert told["heap/users"] in first.skip_message, "the tick says the same"

    again = ticked(fresh, "waits", first.cursor)
    assert list(again.asset_events) == []
    assert again.skip_message == first.skip_message

    fresh.land(fresh.company.dump_ids[fresh.company.until])
    news = ticked(make_world(fresh.company, tmp_path), "waits", first.cursor)
    changed = {event.asset_key.to_user_string() for event in news.asset_events}
    assert "heap/users" not in changed | set(by_asset(fresh.project))
    assert "identity/graph" in changed, "it waits for other tables now"
    counted_down = [Wait("a", f"b rebuilds {days} days").cause for days in (30, 29)]
    assert counted_down[0] == counted_down[1], "what counts down is no news"


@pytest.mark.parametrize("sensor", ["heap_tables_follow_dumps", "identity_follows_tables", "first_reads_and_sends"])
def test_a_sensor_that_asks_for_nothing_says_why(fresh: World, sensor: str) -> None:
    first = ticked(fresh, sensor)
    tick = first if not first.run_requests else ticked(fresh, sensor, first.cursor)
    if not tick.run_requests:
        assert tick.skip_message
        assert EMPTY_RESULT not in tick.skip_message


def test_a_sensor_whose_evaluation_took_long_rests_and_loses_nothing(
    fresh: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "_LONG_SECONDS", 0.0)
    sensor = fresh.definitions.get_repository_def().get_sensor_def("first_reads_and_sends")
    first = ticked(fresh, sensor.name)
    resting = ticked(fresh, sensor.name, first.cursor)
    assert resting.cursor == first.cursor
    assert not resting.run_requests
    assert "the next one follows in" in resting.skip_message
    sensor._paused_until = 0.0  # type: ignore[attr-defined]
    again = ticked(fresh, sensor.name, resting.cursor)
    assert "the next one follows in" not in (again.skip_message or "")


def test_a_warehouse_table_waits_for_its_schedule_until_it_is_read(
    fresh: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = date(2026, 6, 10)
    asset = "warehouse/crm_contacts"
    project = replace(fresh.project, settings=fresh.project.settings.model_copy(update={"start_date": day}))
    lake = project.lake
    lake.write(asset, str(day - timedelta(days=1)), ROWS)
    monkeypatch.setenv(clock.VARIABLE, "2026-06-11T01:00:00+00:00")
    told = by_asset(project)
    assert told[asset].until == datetime(2026, 6, 11, 2, 30, tzinfo=UTC)
    assert "read_warehouse reads 2026-06-10" in str(told[asset])
    assert str(told[asset]).endswith("until 2026-06-11 02:30 UTC")
    assert told["identity/graph"].until == told[asset].until
    assert statuses(project)[asset].state is State.WAITING
    lake.write(asset, str(day), ROWS)
    assert asset not in by_asset(project)
    assert statuses(project)[asset].next_at == datetime(2026, 6, 11, 2, 30, tzinfo=UTC)


def test_every_asset_has_one_state(fresh: World) -> None:
    lake = fresh.project.lake
    started = statuses(fresh.project)
    assert started["heap/pageviews"].state is State.PENDING
    assert started["heap/users"].state is State.WAITING
    assert started["sync/heap_events"].state is State.WAITING

    newest = str(clock.newest_complete_day())
    lake.write("heap/pageviews", newest, ROWS)
    judged(lake, "heap/pageviews", "unique_keys", newest, CheckResult(passed=True))
    assert statuses(fresh.project)["heap/pageviews"].state is State.OK
    judged(lake, "heap/pageviews", "names_known", newest, could_not_evaluate("there are no sessions yet"))
    told = statuses(fresh.project)["heap/pageviews"]
    assert (told.state, told.newest_day) == (State.NOT_JUDGED, newest)
    assert "there are no sessions yet" in told.reason
    queued = statuses(fresh.project, heap__pageviews=Activity("queued", "0123456789"))["heap/pageviews"]
    assert (queued.state, queued.reason) == (State.PENDING, "run 01234567 is queued")
    judged(lake, "heap/pageviews", "unique_keys", newest, CheckResult(passed=False))
    failed = statuses(fresh.project)["heap/pageviews"]
    assert (failed.state, failed.failed_checks) == (State.FAILED, (f"unique_keys {newest}",))
    runs = statuses(fresh.project, heap__pageviews=Activity("running", "r"), profiles=Activity("failed", "r"))
    assert runs["heap/pageviews"].state is State.RUNNING


def judged(lake: Lake, asset: str, check: str, day: str, result: CheckResult) -> None:
    record(
        lake.store, result, asset=asset, check=check, partition=day, version="v", severity=Severity.ERROR,
        blocking=True,
    )  # fmt: skip


def test_what_dagster_runs_is_told_and_what_it_has_done_is_not(
    fresh: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    assert activity_of(home, fresh.project.lake, ["profiles"]) is None
    home.mkdir()
    (home / "dagster.yaml").write_text((ROOT / "dagster.yaml").read_text())
    assert activity_of(home, fresh.project.lake, ["profiles"]) is None
    assert [path.name for path in home.iterdir()] == ["dagster.yaml"], "asking makes no instance"
    with dg.DagsterInstance.from_config(str(home)) as instance:
        job = fresh.definitions.resolve_implicit_global_asset_job_def()
        states = dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.FAILURE
        for asset, status in zip(("audit", "profiles", "audiences"), states, strict=True):
            keys = frozenset({dg.AssetKey(asset)})
            chosen = job.get_subset(asset_selection=keys)
            instance.create_run_for_job(chosen, status=status, asset_selection=keys)
    found = activity_of(home, fresh.project.lake, ["profiles", "audit", "audiences", "heap/users"])
    assert found is not None
    assert {asset: one.state for asset, one in found.items()} == {
        "audit": "running",
        "profiles": "queued",
        "audiences": "failed",
    }


def test_a_backlog_says_how_long_the_rest_takes_at_the_rate_of_the_last_minutes() -> None:
    now = datetime.now(UTC)
    long_ago = [now - timedelta(hours=3)] * 1000
    lately = [now - timedelta(seconds=10 * number) for number in range(1, 31)]
    work = backlog(60, [*long_ago, *lately])
    assert work.per_minute == pytest.approx(6, rel=0.02)
    assert work.remaining is not None
    assert work.remaining.total_seconds() == pytest.approx(600, rel=0.02)
    assert backlog(60, long_ago).remaining is None, "nothing was done lately"
    assert backlog(0, lately).remaining is None, "nothing is left"


def test_a_run_that_waits_for_a_pool_sleeps_until_it_asks_again() -> None:
    sleep_while_waiting()
    with dg.instance_for_test() as instance:
        slots = instance.event_log_storage
        slots.set_concurrency_slots("only", 1)
        assert slots.claim_concurrency_slot("only", "another run", "step").is_claimed
        with InstanceConcurrencyContext(instance, dg.DagsterRun("job")) as waiting:
            assert waiting.interval_to_next_pending_claim_check() == 0
            assert not waiting.claim("only", "step")
            interval = waiting.interval_to_next_pending_claim_check()
            assert interval > 0.1
            slots.free_concurrency_slots_for_run("another run")
            time.sleep(interval)
            assert waiting.claim("only", "step")
