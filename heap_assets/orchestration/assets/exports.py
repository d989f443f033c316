"""Group `heap_connect` where Heap exports to BigQuery: what has changed there, and the days that it touches."""

from collections.abc import Iterator
from datetime import date
from typing import Any

import dagster as dg

from heap_assets import clock
from heap_assets.errors import HeapAssetsError
from heap_assets.orchestration.assets.heap_connect import day_landed
from heap_assets.orchestration.checks import asset_key
from heap_assets.orchestration.resources import LakeResource
from heap_assets.pipelines.exports import Looked, look, news
from heap_assets.project import Project
from heap_assets.redaction import redacting
from heap_assets.tables import EXPORTS

GROUP = "heap_connect"
TABLES_SEEN = "every_table_seen"


class LookConfig(dg.Config):
    """How far to look back; by default from the last sync less the overlap of the settings."""

    since: str = ""


def exports(project: Project) -> dg.AssetsDefinition:
    """Return the asset that looks for what has changed in Heap's export."""

    @dg.asset(
        key=asset_key(EXPORTS),
        group_name=GROUP,
        kinds={"bigquery"},
        owners=[project.settings.run.owner],
        pool="heap_landing",
        check_specs=[
            dg.AssetCheckSpec(
                TABLES_SEEN,
                asset=asset_key(EXPORTS),
                description="Every selected table of the export could be looked at. One that could not is tried again.",
            )
        ],
    )
    @redacting
    def heap_connect_exports(
        context: dg.AssetExecutionContext, lake: LakeResource, config: LookConfig
    ) -> Iterator[Any]:
        """Heap Connect's export: fingerprints of its days, three columns of each view behind a filter on time."""
        found = look(project.with_lake(lake.open()), date.fromisoformat(config.since) if config.since else None)
        for day, tables in sorted(found.days.items()):
            context.log_event(day_landed(day, tables))
        yield dg.MaterializeResult(metadata=_metadata(found))
        failed = {one.table: dg.MetadataValue.text(one.failure) for one in found.tables if one.failure}
        yield dg.AssetCheckResult(
            check_name=TABLES_SEEN, passed=not failed, metadata={"failed_tables": len(failed), **failed}
        )

    return heap_connect_exports


def exports_sensor(project: Project, *, interval_seconds: int, status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    """Return the sensor that asks for a look when `_sync_info` has changed."""

    @dg.sensor(
        name="heap_exports",
        description="Asks whether Heap has synced its export again, by its metadata, and has it looked at.",
        asset_selection=dg.AssetSelection.assets(asset_key(EXPORTS)),
        minimum_interval_seconds=interval_seconds,
        default_status=status,
    )
    @redacting
    def heap_exports(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        try:
            version, seen = news(project)
        except HeapAssetsError as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        if version == seen.version:
            return dg.SkipReason("Heap has not synced since the last look")
        if not seen.may_try(clock.now()):
            return dg.SkipReason(f"the last {seen.failed_looks} looks failed; the next one waits")
        return dg.RunRequest(run_key=f"{version}:{seen.failed_looks}")

    return heap_exports


def _metadata(found: Looked) -> dict[str, Any]:
    records = [
        dg.TableRecord(
            {
                "table": one.table,
                "looked from": str(one.since or "not synced since"),
                "days changed": len(one.changed),
                "rows": one.rows,
                "bytes billed": one.bytes_billed,
            }
        )
        for one in found.tables
    ]
    columns = ("table", "looked from", "days changed", "rows", "bytes billed")
    return {
        "days": len(found.days),
        "days_changed": len({day for one in found.tables for day in one.changed}),
        "rows": sum(one.rows for one in found.tables),
        "bytes_billed": sum(one.bytes_billed for one in found.tables),
        "tables": dg.MetadataValue.table(records, schema=dg.TableSchema([dg.TableColumn(name) for name in columns])),
    }
