"""The manifest sensor: requests runs for dumps that Heap has delivered and that have not landed yet."""

import time
from collections.abc import Collection, Sequence
from datetime import date

import dagster as dg

from heap_assets import clock
from heap_assets.errors import SourceError
from heap_assets.orchestration.assets.heap_connect import DUMPS_A_RUN, day_landed
from heap_assets.orchestration.checks import asset_key
from heap_assets.orchestration.code_location import reload_soon
from heap_assets.orchestration.failures import raising_failures
from heap_assets.orchestration.ingest_schedule import ingest_schedule, last_tick, next_tick
from heap_assets.orchestration.rebuild_notices import record_changes
from heap_assets.orchestration.resources import clear_dead_runs, dump_partitions
from heap_assets.pipelines.catalogue import accept_automatically
from heap_assets.pipelines.landing import days_with_early_rows, stopped_by_quota
from heap_assets.project import Names, Project
from heap_assets.sources.heap_connect import DumpRecord, ManifestFile
from heap_assets.tables import DUMPS

_UNFINISHED = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_RECENT_RUNS = 200
_RUNS_A_TICK = 20
_FIRST_WAIT_S, _LONGEST_WAIT_S = 60, 3600
_RANGE_START, _RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"


def dumps_tag(names: Names) -> str:
    """Return the tag of a run that has the dumps which it lands, with commas between them."""
    return f"{names.name('heap')}/dump_ids"


def manifest_sensor(project: Project, *, interval_seconds: int, status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    """Return the sensor that lists manifests and requests those that have not landed with an equal ETag."""

    names = project.names

    @dg.sensor(
        name=names.name("heap_manifests"),
        description="Lists Heap Connect's manifests and lands what is new or was changed, oldest first. Days that rows "
        "came ahead of are built when they have come.",
        asset_selection=dg.AssetSelection.assets(asset_key(DUMPS, names)),
        minimum_interval_seconds=interval_seconds,
        default_status=status,
    )
    @raising_failures
    def heap_manifests(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        clear_dead_runs(context.instance)
        take_changes(context, project)
        today = clock.today()
        since = date.fromisoformat(context.cursor) if context.cursor else today
        events = [day_landed(names, day, tables) for day, tables in days_with_early_rows(project, since).items()]
        runs, waits = _runs(project, context.instance)
        manifests = [manifest for run in runs for manifest in run]
        return dg.SensorResult(
            skip_reason=waits,
            cursor=today.isoformat(),
            asset_events=events,
            run_requests=[_request(project, context.instance, run) for run in runs],
            dynamic_partitions_requests=[
                dump_partitions(names).build_add_request([str(manifest.dump_id) for manifest in manifests])
            ]
            if manifests
            else None,
        )

    return heap_manifests


def manifest_schedule(project: Project, *, status: dg.DefaultScheduleStatus) -> list[dg.ScheduleDefinition]:
    """Return the schedule that lands what was delivered, if the settings name an interval."""

    def requests(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        runs, waits = _runs(project, context.instance)
        dumps = [str(manifest.dump_id) for run in runs for manifest in run]
        if not dumps:
            return dg.SkipReason(waits)
        context.instance.add_dynamic_partitions(str(dump_partitions(project.names).name), dumps)
        return [_request(project, context.instance, run) for run in runs]

    return ingest_schedule(project, DUMPS, requests, status)


def take_changes(context: dg.SensorEvaluationContext, project: Project) -> None:
    """Accept new tables and columns into the catalogue as the settings allow, and record when known columns changed."""
    change = accept_automatically(project)
    if change:
        context.log.info("took %s into %s", change.summary, change.uri)
        reload_soon(project.settings)
    record_changes(context.instance, project)


def _runs(project: Project, instance: dg.DagsterInstance) -> tuple[list[list[ManifestFile]], str | None]:
    """Return what a tick lands as one list of dumps a run, oldest first, or why nothing.

    With an interval in the settings, only what was delivered until its last tick.
    """
    try:
        pending = project.landing.pending(project.source())
    except SourceError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    if not pending:
        return [], "every dump that Heap delivered has landed"
    if ingest := project.settings.heap.ingest:
        later, tick = len(pending), last_tick(ingest)
        pending = [manifest for manifest in pending if manifest.last_modified <= tick]
        if not pending:
            return [], f"{later} dumps have come since and wait for {next_tick(ingest)}, as heap.ingest says"
    if full := stopped_by_quota(project):
        return [], (
            f"{len(pending)} dumps wait for {full.resumes}: {full.rows:,} of the {full.limit:,} rows of "
            f"{full.month} have landed, and heap.quota.stop is set"
        )
    landing, failures = _runs_of_dumps(instance, dumps_tag(project.names))
    ready = [m for m in pending if m.dump_id not in landing and _may_try(failures.get(m.dump_id, []))]
    if not ready:
        return [], f"{len(pending)} dumps are being landed, or their run failed and is tried again after a while"
    if project.settings.heap.quota.stop:
        # with a quota to stop at, the next dump is chosen once this one is counted
        return [ready[:1]], None
    landing_keys = instance.get_dynamic_partitions(str(dump_partitions(project.names).name))
    return _grouped(landing_keys, ready, set(failures)), None


def _runs_of_dumps(instance: dg.DagsterInstance, tag: str) -> tuple[set[int], dict[int, list[float]]]:
    """Return the dumps that a run is landing, and when the newest failed runs of others ended."""
    landing = {dump for run in instance.get_runs(dg.RunsFilter(statuses=_UNFINISHED)) for dump in _dumps_of(run, tag)}
    failures: dict[int, list[float]] = {}
    failed = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE])
    for record in instance.get_run_records(failed, limit=_RECENT_RUNS):
        for dump in _dumps_of(record.dagster_run, tag):
            failures.setdefault(dump, []).append(record.end_time or record.update_timestamp.timestamp())
    return landing, failures


def _dumps_of(run: dg.DagsterRun, tag: str) -> list[int]:
    return [int(dump) for dump in run.tags.get(tag, "").split(",") if dump]


def _may_try(failures: Sequence[float]) -> bool:
    """Return whether the back-off of a dump is over: 1, 2, 4 minutes and so on up to an hour, by the clock of runs."""
    if not failures:
        return True
    wait: float = min(_FIRST_WAIT_S * 2 ** (len(failures) - 1), _LONGEST_WAIT_S)
    return time.time() >= max(failures) + wait


def _grouped(
    existing: Sequence[str], ready: Sequence[ManifestFile], alone: Collection[int]
) -> list[list[ManifestFile]]:
    """Group dumps with adjacent partitions into runs; a dump whose run failed gets a run of its own."""
    position = {dump: index for index, dump in enumerate(existing)}
    added = [str(m.dump_id) for m in ready if str(m.dump_id) not in position]
    position |= {dump: len(existing) + index for index, dump in enumerate(added)}
    runs: list[list[ManifestFile]] = []
    previous = None
    for manifest in sorted(ready, key=lambda m: position[str(m.dump_id)]):
        index = position[str(manifest.dump_id)]
        is_adjacent = previous is not None and index == previous + 1 and len(runs[-1]) < DUMPS_A_RUN
        if is_adjacent and manifest.dump_id not in alone:
            runs[-1].append(manifest)
        else:
            runs.append([manifest])
        previous = None if manifest.dump_id in alone else index
    return sorted(runs, key=lambda run: run[0].dump_id)[:_RUNS_A_TICK]


def _request(project: Project, instance: dg.DagsterInstance, run: Sequence[ManifestFile]) -> dg.RunRequest:
    """Request one run with a new run key, because Dagster ignores a request whose key it has seen before."""
    dumps = [str(manifest.dump_id) for manifest in run]
    tag = dumps_tag(project.names)
    tags = {tag: ",".join(dumps)}
    records = project.landing.records()
    failures = sum(attempts(records.get(manifest.dump_id)) for manifest in run)
    key = f"{tags[tag]}:{failures}:{instance.get_runs_count(dg.RunsFilter(tags=tags))}"
    if len(dumps) == 1:
        return dg.RunRequest(run_key=key, partition_key=dumps[0], tags=tags)
    return dg.RunRequest(run_key=key, tags=tags | {_RANGE_START: dumps[0], _RANGE_END: dumps[-1]})


def attempts(record: DumpRecord | None) -> int:
    """Count the failed attempts at a dump so far."""
    if record is None:
        return 0
    return record.attempts + sum(table.attempts for table in record.tables.values())
