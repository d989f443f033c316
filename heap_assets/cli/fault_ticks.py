"""What the daemon would write down of a sensor's failed tick and of a daemon's silence, for the fault table."""

from __future__ import annotations

import time

import dagster as dg
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteInstigatorOrigin, RemoteRepositoryOrigin
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    SensorInstigatorData,
    TickData,
    TickStatus,
)
from dagster._daemon.types import DaemonHeartbeat
from dagster_shared.error import SerializableErrorInfo

_SENSOR = "heap_manifests"
_LONG_AGO = 3600.0


def tick_manifests(instance: dg.DagsterInstance, definitions: dg.Definitions) -> bool:
    """Evaluate the manifest sensor; if it raises, write its failed tick down as the daemon does, and return False."""
    repository = definitions.get_repository_def()
    try:
        with dg.build_sensor_context(instance=instance, repository_def=repository) as context:
            repository.get_sensor_def(_SENSOR)(context)
    except dg.Failure:
        _write_failed_tick(instance)
        return False
    return True


def break_daemon(instance: dg.DagsterInstance, kind: str) -> None:
    """Let the last sign of life of a daemon be an hour old."""
    instance.add_daemon_heartbeat(DaemonHeartbeat(time.time() - _LONG_AGO, kind, "silent", []))


def _write_failed_tick(instance: dg.DagsterInstance) -> None:
    repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("heap_assets"), "__repository__")
    origin = RemoteInstigatorOrigin(repository, _SENSOR)
    data = SensorInstigatorData(last_tick_timestamp=time.time(), min_interval=30)
    state = InstigatorState(origin, InstigatorType.SENSOR, InstigatorStatus.RUNNING, data)
    instance.add_instigator_state(state)
    selector = origin.get_selector().get_id()
    instance.create_tick(
        TickData(
            state.instigator_origin_id, _SENSOR, InstigatorType.SENSOR, TickStatus.FAILURE, time.time(),
            selector_id=selector, error=SerializableErrorInfo("the sensor raised", [], "Failure"),
        )
    )  # fmt: skip
