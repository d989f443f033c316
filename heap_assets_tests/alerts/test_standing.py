"""What no run tells: failed ticks, sensors that stand still, silent daemons; and where failed runs are told."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from alert_receivers import http_receiver
from alert_toys import LakeResource, Toy

from heap_assets.alerts.channels import WebhookChannel
from heap_assets.alerts.message import Kind
from heap_assets.orchestration.alert_sensors import ticking_alarms
from heap_assets.orchestration.in_process import silence_daemon, tick_manifests

DAY = "2026-11-01"


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as instance:
        yield instance


def failing_definitions() -> dg.Definitions:
    @dg.sensor(name="heap_manifests")
    def heap_manifests(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        raise dg.Failure("the bucket cannot be listed")

    return dg.Definitions(sensors=[heap_manifests])


def wrong(instance: dg.DagsterInstance, now: datetime) -> list[tuple[str, str]]:
    alarms = ticking_alarms(instance, now, {"heap_manifests"})
    return [(alarm.subject, alarm.about) for alarm in alarms if not alarm.recovered]


def test_a_failed_tick_is_told_until_one_succeeds(instance: dg.DagsterInstance) -> None:
    assert not tick_manifests(instance, failing_definitions())
    now = datetime.now(UTC)
    assert wrong(instance, now) == [("heap_manifests", "tick_failed")]
    assert wrong(instance, now + timedelta(hours=1)) == [
        ("heap_manifests", "tick_failed"),
        ("heap_manifests", "silent"),
    ]
    assert not list(ticking_alarms(instance, now, set())), "sensors of older definitions are nobody's business"


def test_a_silent_daemon_is_told(instance: dg.DagsterInstance) -> None:
    silence_daemon(instance, "SCHEDULER")
    assert ("scheduler daemon", "no_heartbeat") in wrong(instance, datetime.now(UTC))


def test_a_failed_run_of_one_group_is_told_to_who_is_routed_to_it(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    with http_receiver() as warehouse, http_receiver() as sync:
        toy = Toy(tmp_path / "toy")
        channels = [
            WebhookChannel(url=warehouse.url, name="warehouse", groups=("warehouse",)),
            WebhookChannel(url=sync.url, name="sync", groups=("sync",)),
        ]
        definitions = toy.definitions(channels, str(tmp_path / "lake"))  # type: ignore[arg-type]
        toy.break_it("step", DAY)
        job = definitions.resolve_implicit_global_asset_job_def().get_subset(
            asset_selection={dg.AssetKey(["crm", "contacts"])}
        )
        assert not job.execute_in_process(instance=instance, partition_key=DAY, raise_on_error=False).success
        repository = definitions.get_repository_def()
        with dg.build_sensor_context(
            instance=instance, repository_def=repository, resources={"lake": LakeResource(url=str(tmp_path / "lake"))}
        ) as context:
            repository.get_sensor_def("run_alerts")(context)
        told = [alarm["kind"] for message in warehouse.json() for alarm in message["alarms"]]  # type: ignore[attr-defined]
        assert told == [Kind.RUN_FAILED]
        assert sync.bodies == []
