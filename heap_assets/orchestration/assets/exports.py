"""Group `heap_connect` for Heap's export in a warehouse: looks for changes, and reports the days that they touch."""

from collections.abc import Iterator
from datetime import date
from typing import Any

import dagster as dg

from heap_assets import clock
from heap_assets.errors import HeapAssetsError
from heap_assets.orchestration.assets.heap_connect import day_landed
from heap_assets.orchestration.checks import LAKE, asset_key, lake_of
from heap_assets.orchestration.failures import raising_failures
from heap_assets.orchestration.ingest_schedule import ingest_schedule, next_tick
from heap_assets.orchestration.rebuild_notices import record_changes
from heap_assets.pipelines.exports import ExportChanges, changed_days, engine_of_export, version_and_state
from heap_assets.project import Project, remember_environment
from heap_assets.tables import EXPORTS

GROUP = "heap_connect"
TABLES_SEEN = "every_table_seen"


class ExportsConfig(dg.Config):
    """Options of one comparison: the first day compared, by default the last sync less `heap.source.overlap_days`."""

    since: str = ""


def exports(project: Project) -> dg.AssetsDefinition:
    """Return the asset that compares fingerprints of the export's days with those stored, and reports changed days."""

    names = project.names

    @dg.asset(
        key=asset_key(EXPORTS, names),
        group_name=names.group(GROUP),
        kinds={engine_of_export(project)},
        pool=names.name("heap_landing"),
        required_resource_keys={names.name(LAKE)},
        check_specs=[
            dg.AssetCheckSpec(
                TABLES_SEEN,
                asset=asset_key(EXPORTS, names),
                description="Every selected table of the export could be looked at. One that could not is tried again.",
            )
        ],
    )
    @raising_failures
    def heap_connect_exports(context: dg.AssetExecutionContext, config: ExportsConfig) -> Iterator[Any]:
        """Heap Connect's export: fingerprints of its days, three columns of each view behind a filter on time."""
        since = date.fromisoformat(config.since) if config.since else None
        opened = project.with_lake(lake_of(context, names))
        remember_environment(opened)
        changes = changed_days(opened, since)
        for day, tables in sorted(changes.days.items()):
            context.log_event(day_landed(names, day, tables))
        yield dg.MaterializeResult(metadata=_metadata(changes))
        failed = {table.table: dg.MetadataValue.text(table.failure) for table in changes.tables if table.failure}
        yield dg.AssetCheckResult(
            check_name=TABLES_SEEN, passed=not failed, metadata={"failed_tables": len(failed), **failed}
        )

    return heap_connect_exports


def exports_sensor(project: Project, *, interval_seconds: int, status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    """Return the sensor that requests a comparison of the export when its `_sync_info` has changed."""

    @dg.sensor(
        name=project.names.name("heap_exports"),
        description="Asks whether Heap has synced its export again, by its metadata, and has it looked at.",
        asset_selection=dg.AssetSelection.assets(asset_key(EXPORTS, project.names)),
        minimum_interval_seconds=interval_seconds,
        default_status=status,
    )
    @raising_failures
    def heap_exports(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        record_changes(context.instance, project)
        try:
            version, state = version_and_state(project)
        except HeapAssetsError as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        if version == state.version:
            return dg.SkipReason("Heap has not synced since the last look")
        if not state.may_try(clock.now()):
            return dg.SkipReason(f"the last {state.failed_looks} looks failed; the next one waits")
        ingest = project.settings.heap.ingest
        if ingest and state.version and not state.failed_looks:
            return dg.SkipReason(f"Heap has synced; it is looked at {next_tick(ingest)}, as heap.ingest says")
        return dg.RunRequest(run_key=f"{version}:{state.failed_looks}")

    return heap_exports


def exports_schedule(project: Project, *, status: dg.DefaultScheduleStatus) -> list[dg.ScheduleDefinition]:
    """Return the schedule that has a changed export looked at, if the settings name an interval."""

    def requests(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        version, state = version_and_state(project)
        if version == state.version:
            return dg.SkipReason("Heap has not synced since the last look")
        return [dg.RunRequest(run_key=f"{version}:{context.scheduled_execution_time.isoformat()}")]

    return ingest_schedule(project, EXPORTS, requests, status)


def _metadata(changes: ExportChanges) -> dict[str, Any]:
    records = [
        dg.TableRecord(
            {
                "table": table.table,
                "looked from": str(table.since or "not synced since"),
                "days changed": len(table.changed),
                "rows": table.rows,
                "bytes billed": table.bytes_billed,
            }
        )
        for table in changes.tables
    ]
    columns = ("table", "looked from", "days changed", "rows", "bytes billed")
    return {
        "days": len(changes.days),
        "days_changed": len({day for table in changes.tables for day in table.changed}),
        "rows": sum(table.rows for table in changes.tables),
        "bytes_billed": sum(table.bytes_billed for table in changes.tables),
        "tables": dg.MetadataValue.table(records, schema=dg.TableSchema([dg.TableColumn(name) for name in columns])),
    }
