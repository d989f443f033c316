"""Live profiles in Dagster: the micro-batch that follows messages without the service, and what the service reports."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import dagster as dg

from heap_assets import clock
from heap_assets.orchestration.checks import LAKE, asset_key, lake_of
from heap_assets.orchestration.failures import raising_failures
from heap_assets.orchestration.resources import names_on
from heap_assets.pipelines.inbox import newest_messages
from heap_assets.pipelines.live_delivery import follow_once
from heap_assets.project import Names, Project
from heap_assets.tables import inbox_asset, sync_asset

_SECONDS = 15
_UNDER_WAY = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]
_RETRY_SECONDS = 60.0
_LONGEST_RETRY_SECONDS = 600.0
_WAITING = "heap_assets/waiting"
"""Tag of a micro-batch that could not send everything."""
_ATTEMPT = "heap_assets/attempt"
"""Tag of a micro-batch: the how manieth in a row that follows one that could not."""


def micro_batch_job(project: Project) -> dg.JobDefinition | None:
    """Return the job that sends what messages changed since the newest day, None without live syncs."""
    names = project.names
    if not any(sync.live for sync in project.settings.sync.values()):
        return None

    @dg.op(
        name=names.name("send_what_messages_changed"),
        description="Applies the messages that the newest day does not have, and sends the profiles that they changed.",
        required_resource_keys={names.name(LAKE)},
        out=dg.Out(dg.Nothing),
        pool=names.name("follow_messages"),
    )
    @raising_failures
    def send_what_messages_changed(context: dg.OpExecutionContext) -> Iterator[Any]:
        followed = follow_once(project.with_lake(lake_of(context, names)))
        for sync, figures in followed.items():
            context.log_event(dg.AssetObservation(asset_key(sync_asset(sync), names), metadata=dict(figures)))
        if any(figures["waiting"] for figures in followed.values()):
            context.instance.add_run_tags(context.run_id, {_WAITING: "true"})
        yield dg.Output(None)

    @dg.job(
        name=names.name("follow_messages"),
        description="Sends profiles that messages changed, without `heap-assets live`: the same steps, once.",
    )
    def follow_messages() -> None:
        send_what_messages_changed()

    return follow_messages


def micro_batch_sensor(
    project: Project, job: dg.JobDefinition, *, status: dg.DefaultSensorStatus
) -> dg.SensorDefinition:
    """Return the sensor that requests a micro-batch when messages came since the last one."""

    @dg.sensor(
        name=project.names.name("messages_to_follow"),
        job=job,
        description="Requests a micro-batch for messages that came since the last one (live.follow: dagster).",
        minimum_interval_seconds=_SECONDS,
        default_status=status,
    )
    @raising_failures
    def messages_to_follow(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        newest = newest_messages(project)
        if context.instance.get_runs_count(dg.RunsFilter(job_name=job.name, statuses=_UNDER_WAY)):
            return dg.SensorResult(skip_reason="a micro-batch is running: what came since is taken by the next")
        records = context.instance.get_run_records(dg.RunsFilter(job_name=job.name), limit=1)
        attempt = _attempt_after(records[0].dagster_run) if records else 0
        if newest == (context.cursor or ""):
            if not attempt:
                return dg.SensorResult(skip_reason="no message came since the last micro-batch")
            wait = min(_RETRY_SECONDS * 2 ** (attempt - 1), _LONGEST_RETRY_SECONDS)
            if time.time() - (records[0].end_time or 0.0) < wait:
                return dg.SensorResult(skip_reason=f"the last micro-batch left something, for one {wait:.0f} s later")
        key = f"{newest}-{records[0].dagster_run.run_id}" if records else newest
        tags = {_ATTEMPT: str(attempt)} if attempt else {}
        return dg.SensorResult(run_requests=[dg.RunRequest(run_key=key, tags=tags)], cursor=newest)

    return messages_to_follow


def _attempt_after(last: dg.DagsterRun) -> int:
    """Return the how manieth attempt in a row the next micro-batch is; 0 if the last one sent everything."""
    is_left = last.status is not dg.DagsterRunStatus.SUCCESS or _WAITING in last.tags
    return int(last.tags.get(_ATTEMPT, "0")) + 1 if is_left else 0


def live_reporter(project: Project) -> Callable[[Mapping[str, Any]], None]:
    """Return what tells Dagster what a service did: observations on the inbox and on the syncs that are live."""

    def report(figures: Mapping[str, Any]) -> None:
        with dg.DagsterInstance.get() as instance:
            names = names_on(instance, project.lake)
            day = clock.today().isoformat()
            for asset in _reported(project, names):
                instance.report_runless_asset_event(
                    dg.AssetObservation(asset, partition=day, metadata={k: float(v) for k, v in figures.items()})
                )

    return report


def _reported(project: Project, names: Names) -> Iterator[dg.AssetKey]:
    yield asset_key(inbox_asset("track"), names)
    yield from (asset_key(sync_asset(name), names) for name, sync in project.settings.sync.items() if sync.live)
