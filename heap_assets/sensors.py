"""The manifest sensor: what Heap has delivered and has not landed yet becomes one run a dump."""

from collections.abc import Callable

import dagster as dg

from heap_assets.checks.partition_check import asset_key
from heap_assets.errors import SourceError
from heap_assets.heap_connect.records import DumpRecord
from heap_assets.names import DUMPS
from heap_assets.partitions import DUMPS as DUMP_PARTITIONS
from heap_assets.platform import Platform

_DUMPS_A_TICK = 20
"""A tick has 60 seconds, and a first look at a bucket may find a year of dumps; the rest comes with the next ticks."""


def manifest_sensor(
    platform: Callable[[], Platform], *, interval_seconds: int, status: dg.DefaultSensorStatus
) -> dg.SensorDefinition:
    """Return the sensor that lists manifests and requests what is wanted: listed, less landed with equal ETags."""

    @dg.sensor(
        name="heap_manifests",
        description="Lists Heap Connect's manifests and lands what is new or was changed, oldest first.",
        asset_selection=dg.AssetSelection.assets(asset_key(DUMPS)),
        minimum_interval_seconds=interval_seconds,
        default_status=status,
    )
    def heap_manifests(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        there = platform()
        try:
            pending = there.landing.pending(there.source())
        except SourceError as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        if not pending:
            return dg.SkipReason("every dump that Heap delivered has landed")
        chosen = pending[:_DUMPS_A_TICK]
        records = there.landing.records()
        return dg.SensorResult(
            run_requests=[
                dg.RunRequest(
                    # a table that failed before asks again under a key of its own
                    run_key=f"{manifest.dump_id}:{manifest.etag}:{attempts(records.get(manifest.dump_id))}",
                    partition_key=str(manifest.dump_id),
                    tags={"heap/dump_id": str(manifest.dump_id)},
                )
                for manifest in chosen
            ],
            dynamic_partitions_requests=[
                DUMP_PARTITIONS.build_add_request([str(manifest.dump_id) for manifest in chosen])
            ],
        )

    return heap_manifests


def attempts(record: DumpRecord | None) -> int:
    """Count the failed attempts at a dump so far."""
    if record is None:
        return 0
    return record.attempts + sum(table.attempts for table in record.tables.values())
