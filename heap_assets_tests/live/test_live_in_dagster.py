"""Dagster sees what comes live: micro-batches without the service, hourly checks, observations."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from heap_assets.live import LiveService
from heap_assets.orchestration.checks import asset_key
from heap_assets.orchestration.definitions import build_definitions
from heap_assets.orchestration.live import live_reporter, micro_batch_job, micro_batch_sensor
from heap_assets.pipelines.suites import hourly_checks
from heap_assets.quality.engine import CheckContext
from heap_assets.quality.inbox import followed, messages_keep_coming
from heap_assets.sources.inbox import LIVE, write_status
from heap_assets_tests.live.inbox_world import InboxWorld, identify
from heap_assets_tests.live.receiver import Receiver
from heap_assets_tests.pipelines.delivery_world import DAY, LONG_AGO, at

pytestmark = pytest.mark.usefixtures("now")
MOMENT = datetime(2026, 11, 21, 3, tzinfo=UTC)


def test_a_micro_batch_sends_what_messages_changed_without_the_service(
    world: InboxWorld,
    receiver: Receiver,
) -> None:
    definitions = build_definitions(world.project)
    job = micro_batch_job(world.project)
    assert job is not None
    sensor = micro_batch_sensor(world.project, job, status=dg.DefaultSensorStatus.RUNNING)
    context = dg.build_sensor_context(world.instance)
    assert sensor.evaluate_tick(context).skip_message == "no message came since the last micro-batch"
    world.post(identify(1, "c-ann", plan="gold"), received=at(DAY, 22))
    tick = sensor.evaluate_tick(dg.build_sensor_context(world.instance))
    assert tick.run_requests
    assert len(tick.run_requests) == 1
    result = definitions.resolve_job_def("follow_messages").execute_in_process(instance=world.instance)
    assert result.success
    assert receiver.state["c-ann"] == {"Plan": "gold"}
    observed = world.instance.fetch_observations(asset_key("sync/crm"), limit=1).records[0].asset_observation
    assert observed is not None
    assert observed.metadata["sent"].value == 1
    again = sensor.evaluate_tick(dg.build_sensor_context(world.instance, cursor=tick.cursor))
    assert not again.run_requests


def test_a_micro_batch_that_could_not_send_is_requested_again_without_a_new_message(
    world: InboxWorld, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = micro_batch_job(world.project)
    assert job is not None
    definitions = build_definitions(world.project)
    sensor = micro_batch_sensor(world.project, job, status=dg.DefaultSensorStatus.RUNNING)
    cursor = None

    def tick() -> dg.SensorExecutionData:
        nonlocal cursor
        result = sensor.evaluate_tick(dg.build_sensor_context(world.instance, cursor=cursor))
        cursor = result.cursor or cursor
        return result

    def run() -> None:
        (request,) = tick().run_requests or ()
        of_definitions = definitions.resolve_job_def("follow_messages")
        assert of_definitions.execute_in_process(instance=world.instance, tags=dict(request.tags)).success

    late = identify(1, "c-ann", plan="gold") | {"timestamp": at(LONG_AGO).isoformat()}
    world.post(late, received=at(DAY, 22))
    receiver.status = 401
    run()
    assert receiver.state["c-ann"] == {"Plan": "pro"}
    assert "for one 60 s later" in str(tick().skip_message)
    monkeypatch.setattr("heap_assets.orchestration.live._RETRY_SECONDS", 0.0)
    run()
    receiver.status = 200
    run()
    assert receiver.state["c-ann"] == {"Plan": "gold"}
    assert tick().skip_message == "no message came since the last micro-batch"


def test_messages_that_stop_coming_are_told_where_they_used_to_come() -> None:
    hours = {MOMENT - timedelta(hours=n): 5 for n in range(1, 24 * 9)}
    assert messages_keep_coming(hours, MOMENT).passed
    silent = {hour: count for hour, count in hours.items() if hour < MOMENT - timedelta(hours=2)}
    assert not messages_keep_coming(silent, MOMENT + timedelta(minutes=30)).passed
    by_day = {hour: count for hour, count in silent.items() if 8 <= hour.hour < 20}
    assert messages_keep_coming(by_day, MOMENT).passed
    assert messages_keep_coming({}, MOMENT).passed


def test_services_that_are_silent_behind_or_slow_are_told() -> None:
    alive = {"at": MOMENT.isoformat(), "queue_length": 3.0, "latency_seconds_p95": 1.0}
    assert followed([alive], MOMENT, 1000, 60).passed
    assert followed([], MOMENT, 1000, 60).passed
    assert not followed([alive], MOMENT + timedelta(minutes=6), 1000, 60).passed
    assert not followed([alive | {"queue_length": 1001}], MOMENT, 1000, 60).passed
    assert not followed([alive | {"latency_seconds_p95": 61}], MOMENT, 1000, 60).passed


def test_hourly_checks_read_what_came_and_what_services_say(world: InboxWorld) -> None:
    checks = {(check.asset, check.name): check for check in hourly_checks(world.project)}
    coming, follows = checks["inbox/track", "messages_keep_coming"], checks["sync/crm", "live_follows"]
    store = world.lake.store
    write_status(store, "a", MOMENT, {"queue_length": 5000.0})
    result = follows.evaluate(CheckContext(world.lake, "sync/crm", "all", "live_follows"))  # type: ignore[misc]
    assert (result.passed, result.numbers["people_waiting"]) == (False, 5000.0)
    rows = pl.DataFrame({"received_at": [MOMENT]}, schema={"received_at": pl.Datetime("us", "UTC")})
    world.lake.write("inbox/track", str(MOMENT.date()), rows)
    assert coming.evaluate(CheckContext(world.lake, "inbox/track", "all", "x")).passed  # type: ignore[misc]


def test_a_service_says_how_it_does_and_dagster_is_told(
    world: InboxWorld,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    live_reporter(world.project)({"messages": 12, "queue_length": 0.0})
    with dg.DagsterInstance.get() as instance:
        for path in ("inbox/track", "sync/crm"):
            observed = instance.fetch_observations(asset_key(path), limit=1).records[0].asset_observation
            assert observed is not None
            assert observed.metadata["messages"].value == 12.0
    service = LiveService(world.project)
    write_status(world.lake.store, service.writer.name, MOMENT, {"accepted": 3})
    stored = world.lake.store.list(LIVE)
    assert [json.loads(world.lake.store.read(info.key))["accepted"] for info in stored] == [3]
