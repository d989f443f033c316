"""Runs, sensors and jobs of a code location executed in this process: for the demo, the fault table and tests."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.events import RunFailureReason
from dagster._core.execution.plan.objects import ErrorSource
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

from heap_assets.orchestration.checks import asset_key
from heap_assets.orchestration.definitions import build_definitions
from heap_assets.orchestration.resources import DUMPS
from heap_assets.orchestration.schedules import NAME as RECENCY
from heap_assets.project import Project

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
RECENCY_JOB = f"{RECENCY}_job"
MANIFEST_SENSOR = "heap_manifests"
_RANGE = "dagster/asset_partition_range_"
_LONG_AGO = 3600.0


@dataclass(frozen=True)
class RunResult:
    """A finished run: its id, whether it succeeded, and one line for each step that failed."""

    run_id: str
    success: bool
    failures: tuple[str, ...]


class CodeLocation:
    """The definitions of a project and a Dagster instance to execute them on."""

    def __init__(self, project: Project, instance: dg.DagsterInstance) -> None:
        if not sqlalchemy.event.contains(sqlalchemy.Engine, "connect", _do_not_wait_for_the_disk):
            sqlalchemy.event.listen(sqlalchemy.Engine, "connect", _do_not_wait_for_the_disk)
        self._instance = instance
        self._definitions = build_definitions(project)
        self._job = self._definitions.resolve_implicit_global_asset_job_def()

    def materialize(self, assets: Sequence[str], partition: str | tuple[str, str]) -> RunResult:
        """Materialize assets for one partition, or for all partitions from the first to the last of a pair."""
        chosen = self._job.get_subset(asset_selection={asset_key(asset) for asset in assets})
        where: dict[str, Any] = {"partition_key": partition}
        if isinstance(partition, tuple):
            where = {"tags": {f"{_RANGE}start": partition[0], f"{_RANGE}end": partition[1]}}
        return self._executed(chosen, **where)

    def add_dump(self, key: str) -> None:
        """Add a dump to the dynamic partitions, as the manifest sensor does."""
        self._instance.add_dynamic_partitions(DUMPS.name or "", [key])

    def evaluate_recency(self) -> RunResult:
        """Run the hourly job that evaluates the age of every table's newest row."""
        return self._executed(self._definitions.resolve_job_def(RECENCY_JOB))

    def evaluate_checks(self, asset: str, partition: str, *, except_for: Iterable[str] = ()) -> RunResult:
        """Run the checks of one partition of an asset without materializing it, as the button in the UI does."""
        keys = self._definitions.get_repository_def().asset_graph.asset_check_keys
        chosen = {key for key in keys if key.asset_key == asset_key(asset) and key.name not in set(except_for)}
        job = self._job.get_subset(asset_selection=set(), asset_check_selection=chosen)
        return self._executed(job, tags={"dagster/partition": partition})

    def tick(self, sensor: str, cursor: str | None = None) -> str | None:
        """Evaluate a sensor as the daemon does, and return its cursor."""
        repository = self._definitions.get_repository_def()
        lake = repository.get_top_level_resources()["lake"]
        with dg.build_sensor_context(
            instance=self._instance, cursor=cursor, repository_def=repository, resources={"lake": lake}
        ) as context:
            repository.get_sensor_def(sensor)(context)
            return context.cursor

    def tick_manifests(self) -> bool:
        """Evaluate the manifest sensor; if it raises, record its failed tick as the daemon does and return False."""
        return tick_manifests(self._instance, self._definitions)

    def silence_daemon(self, kind: str) -> None:
        """Let the last heartbeat of a daemon be an hour old."""
        silence_daemon(self._instance, kind)

    def _executed(self, job: dg.JobDefinition, **where: Any) -> RunResult:
        result = job.execute_in_process(instance=self._instance, raise_on_error=False, run_config=QUIET, **where)
        if any(map(_is_interrupt, result.all_events)):
            # Dagster turns it into a failure of the run; Ctrl-C is meant for the whole process
            raise KeyboardInterrupt
        failures = [
            _failure(event.step_key or "", event.step_failure_data.error)
            for event in result.all_events
            if event.is_step_failure and event.step_failure_data.error is not None
        ]
        return RunResult(result.run_id, result.success, tuple(failures))


def instance_of(home: Path) -> dg.DagsterInstance:
    """Open the Dagster instance whose `dagster.yaml` lies in a folder; use it as a context manager."""
    return dg.DagsterInstance.from_config(str(home))


def default_instance() -> dg.DagsterInstance:
    """Open the Dagster instance of `DAGSTER_HOME`."""
    return dg.DagsterInstance.get()


def tick_manifests(instance: dg.DagsterInstance, definitions: dg.Definitions) -> bool:
    """Evaluate the manifest sensor; if it raises, write its failed tick down as the daemon does, and return False."""
    repository = definitions.get_repository_def()
    try:
        with dg.build_sensor_context(instance=instance, repository_def=repository) as context:
            repository.get_sensor_def(MANIFEST_SENSOR)(context)
    except dg.Failure:
        _write_failed_tick(instance)
        return False
    return True


def silence_daemon(instance: dg.DagsterInstance, kind: str) -> None:
    """Let the last heartbeat of a daemon be an hour old."""
    instance.add_daemon_heartbeat(DaemonHeartbeat(time.time() - _LONG_AGO, kind, "silent", []))


def _is_interrupt(event: dg.DagsterEvent) -> bool:
    if event.is_step_failure:
        return event.step_failure_data.error_source is ErrorSource.INTERRUPT
    if event.event_type is not dg.DagsterEventType.RUN_FAILURE:
        return False
    return event.job_failure_data.failure_reason is RunFailureReason.UNEXPECTED_TERMINATION


def _failure(step: str, error: SerializableErrorInfo) -> str:
    """Say in one line what stopped a step; a blocking check that failed did its work."""
    cause = error.cause or error
    message = cause.message.strip()
    if cause.cls_name == "DagsterAssetCheckFailedError":
        failed = ", ".join(line.strip() for line in message.splitlines()[1:])
        return f"blocking checks failed, as they should: {failed}"
    return f"{step} failed: {message[:300]}"


def _do_not_wait_for_the_disk(connection: Any, _record: object) -> None:
    """Every event of a run is a commit: on SQLite they would wait for the disk longer than all else takes together.

    A killed process loses nothing by this; a power cut may cost the demo's history, which `--fresh` writes again.
    """
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous=OFF")


def _write_failed_tick(instance: dg.DagsterInstance) -> None:
    repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("heap_assets"), "__repository__")
    origin = RemoteInstigatorOrigin(repository, MANIFEST_SENSOR)
    data = SensorInstigatorData(last_tick_timestamp=time.time(), min_interval=30)
    state = InstigatorState(origin, InstigatorType.SENSOR, InstigatorStatus.RUNNING, data)
    instance.add_instigator_state(state)
    selector = origin.get_selector().get_id()
    instance.create_tick(
        TickData(
            state.instigator_origin_id, MANIFEST_SENSOR, InstigatorType.SENSOR, TickStatus.FAILURE, time.time(),
            selector_id=selector, error=SerializableErrorInfo("the sensor raised", [], "Failure"),
        )
    )  # fmt: skip
