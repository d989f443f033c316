"""The manifest sensor: what Heap has delivered and has not landed yet becomes one run a dump."""

from collections.abc import Callable
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
from heap_assets.steps.landing import days_that_came, stopped_by_quota

_DUMPS_A_TICK = 20
"""A tick has 60 seconds, and a first look at a bucket may find a year of dumps; the rest comes with the next ticks."""


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
    def heap_manifests(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        there = platform()
        today = clock.today()
        since = date.fromisoformat(context.cursor) if context.cursor else today
        came = [day_landed(day, tables) for day, tables in days_that_came(there, since).items()]
        manifests, waits = _wanted(there)
        records = there.landing.records() if manifests else {}
        return dg.SensorResult(
            skip_reason=waits,
            cursor=today.isoformat(),
            asset_events=came,
            run_requests=[
                dg.RunRequest(
                    # a table that failed before asks again under a key of its own
                    run_key=f"{manifest.dump_id}:{manifest.etag}:{attempts(records.get(manifest.dump_id))}",
                    partition_key=str(manifest.dump_id),
                    tags={"heap/dump_id": str(manifest.dump_id)},
                )
                for manifest in manifests
            ],
            dynamic_partitions_requests=[
                DUMP_PARTITIONS.build_add_request([str(manifest.dump_id) for manifest in manifests])
            ]
            if manifests
            else None,
        )

    return heap_manifests


def _wanted(there: Platform) -> tuple[list[ManifestFile], str | None]:
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
    # with a quota to stop at, the next dump is chosen once this one is counted
    return pending[: 1 if there.settings.heap.quota.stop else _DUMPS_A_TICK], None


def attempts(record: DumpRecord | None) -> int:
    """Count the failed attempts at a dump so far."""
    if record is None:
        return 0
    return record.attempts + sum(table.attempts for table in record.tables.values())
