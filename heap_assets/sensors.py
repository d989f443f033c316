"""The manifest sensor: what Heap has delivered and has not landed yet becomes one run a dump."""

import time
from collections.abc import Callable, Sequence
from datetime import date

import dagster as dg

from heap_assets import clock
from heap_assets.assets.heap_connect import day_landed
from heap_assets.checks.partition_check import asset_key
from heap_assets.errors import SourceError
from heap_assets.heap_connect import ManifestFile
from heap_assets.heap_connect.records import DumpRecord
from heap_assets.names import DUMPS
from heap_assets.partitions import DUMPS as DUMP_PARTITIONS
from heap_assets.platform import Platform
from heap_assets.redaction import redacting
from heap_assets.steps.landing import days_that_came, stopped_by_quota

_DUMPS_A_TICK = 20
"""A tick has 60 seconds, and a first look at a bucket may find a year of dumps; the rest comes with the next ticks."""

DUMP_TAG = "heap/dump_id"
_UNFINISHED = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_RUNS_LOOKED_AT = 200
_FIRST_WAIT_S, _LONGEST_WAIT_S = 60, 3600


def manifest_sensor(
    platform: Callable[[], Platform], *, interval_seconds: int, status: dg.DefaultSensorStatus
) -> dg.SensorDefinition:
    """Return the sensor that lists manifests and requests what is wanted: listed, less landed with equal ETags."""

    @dg.sensor(
        name="heap_manifests",
        description="Lists Heap Connect's manifests and lands what is new or was changed, oldest first. Days that rows "
        "came ahead of are built when they have come.",
        asset_selection=dg.AssetSelection.assets(asset_key(DUMPS)),
        minimum_interval_seconds=interval_seconds,
        default_status=status,
    )
    @redacting
    def heap_manifests(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        there = platform()
        today = clock.today()
        since = date.fromisoformat(context.cursor) if context.cursor else today
        came = [day_landed(day, tables) for day, tables in days_that_came(there, since).items()]
        manifests, waits = _wanted(there, context.instance)
        return dg.SensorResult(
            skip_reason=waits,
            cursor=today.isoformat(),
            asset_events=came,
            run_requests=[_request(there, context.instance, manifest) for manifest in manifests],
            dynamic_partitions_requests=[
                DUMP_PARTITIONS.build_add_request([str(manifest.dump_id) for manifest in manifests])
            ]
            if manifests
            else None,
        )

    return heap_manifests


def _wanted(there: Platform, instance: dg.DagsterInstance) -> tuple[list[ManifestFile], str | None]:
    """Return what this tick lands, oldest first, or why nothing."""
    try:
        pending = there.landing.pending(there.source())
    except SourceError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    if not pending:
        return [], "every dump that Heap delivered has landed"
    if full := stopped_by_quota(there):
        return [], (
            f"{len(pending)} dumps wait for {full.resumes}: {full.rows:,} of the {full.limit:,} rows of "
            f"{full.month} have landed, and heap.quota.stop is set"
        )
    ready = _without_runs(instance, pending)
    if not ready:
        return [], f"{len(pending)} dumps are being landed, or their run failed and is tried again after a while"
    # with a quota to stop at, the next dump is chosen once this one is counted
    return ready[: 1 if there.settings.heap.quota.stop else _DUMPS_A_TICK], None


def _without_runs(instance: dg.DagsterInstance, pending: Sequence[ManifestFile]) -> list[ManifestFile]:
    """Leave out dumps that a run is landing, and those whose newest run failed a moment ago.

    The waits are 1, 2, 4 minutes and so on up to an hour, by the clock that runs are kept by.
    """
    wanted = {str(manifest.dump_id) for manifest in pending}
    busy = {run.tags.get(DUMP_TAG) for run in instance.get_runs(dg.RunsFilter(statuses=_UNFINISHED))}
    failures: dict[str, list[float]] = {}
    failed = dg.RunsFilter(tags={DUMP_TAG: sorted(wanted)}, statuses=[dg.DagsterRunStatus.FAILURE])
    for record in instance.get_run_records(failed, limit=_RUNS_LOOKED_AT):
        times = failures.setdefault(record.dagster_run.tags[DUMP_TAG], [])
        times.append(record.end_time or record.update_timestamp.timestamp())
    waiting = {
        dump
        for dump, times in failures.items()
        if time.time() < max(times) + min(_FIRST_WAIT_S * 2 ** (len(times) - 1), _LONGEST_WAIT_S)
    }
    return [manifest for manifest in pending if str(manifest.dump_id) not in busy | waiting]


def _request(there: Platform, instance: dg.DagsterInstance, manifest: ManifestFile) -> dg.RunRequest:
    """Ask for a dump under a key of its own: one that is wanted again must not pass for the run that it had before."""
    tags = {DUMP_TAG: str(manifest.dump_id)}
    runs = instance.get_runs_count(dg.RunsFilter(tags=tags))
    failures = attempts(there.landing.records().get(manifest.dump_id))
    return dg.RunRequest(
        run_key=f"{manifest.dump_id}:{manifest.etag}:{failures}:{runs}",
        partition_key=str(manifest.dump_id),
        tags=tags,
    )


def attempts(record: DumpRecord | None) -> int:
    """Count the failed attempts at a dump so far."""
    if record is None:
        return 0
    return record.attempts + sum(table.attempts for table in record.tables.values())
