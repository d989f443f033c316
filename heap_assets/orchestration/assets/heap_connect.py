"""Group `heap_connect`: dumps as Heap delivers them, and the days that each of them touched."""

from collections.abc import Collection, Iterator, Mapping
from datetime import date
from typing import Any

import dagster as dg

from heap_assets.orchestration.assets.table_step import materializations
from heap_assets.orchestration.checks import LAKE, StepChecks, asset_key, check_specs, lake_of
from heap_assets.orchestration.failures import raising_failures
from heap_assets.orchestration.resources import days, dump_partitions
from heap_assets.pipelines.landing import land
from heap_assets.pipelines.suites import dump_checks
from heap_assets.project import Names, Project, remember_environment
from heap_assets.quality import CheckResult
from heap_assets.sources.heap_connect import DumpReport
from heap_assets.tables import DUMPS, LANDED

GROUP = "heap_connect"
DUMPS_A_RUN = 20
"""A run costs seconds to start, and a first look at a bucket may find a year of dumps."""


def landed(project: Project, reported_by: str, kind: str) -> dg.AssetSpec:
    """Return the external asset of days with new rows, on which the tables' automation depends.

    `reported_by` is the asset that reports them: dumps, or looks at Heap's export.
    """
    return dg.AssetSpec(
        asset_key(LANDED, project.names),
        description="Days of Heap's tables with rows that are new or were changed.\n\n"
        f"`{reported_by}` reports one materialization for every day that it found touched, late days included, and "
        "after a full resync every day the table ever had. Tables are then rebuilt for exactly those days.",
        group_name=project.names.group(GROUP),
        kinds={kind},
        partitions_def=days(project.settings.first_day),
        deps=[asset_key(reported_by, project.names)],
    )


def dumps(project: Project) -> dg.AssetsDefinition:
    """Return the asset that lands one dump a partition."""
    names, checks = project.names, dump_checks(project)
    partitions_def = dump_partitions(names)
    spec = dg.AssetSpec(
        asset_key(DUMPS, names),
        description="Heap Connect's dumps, landed as Parquet: one partition a dump, a table whole or not at all.",
        group_name=project.names.group(GROUP),
        kinds={"avro", "s3"},
        partitions_def=partitions_def,
        skippable=True,  # a dump that is gone from the source is named, and the others land
    )

    @dg.multi_asset(
        name=names.name("heap_connect_dumps"),
        specs=[spec],
        check_specs=check_specs(checks, partitions_def, names),
        can_subset=True,
        backfill_policy=dg.BackfillPolicy.multi_run(DUMPS_A_RUN),
        pool=names.name("heap_landing"),
        required_resource_keys={names.name(LAKE)},
        description="Lands dumps of Heap Connect, one after the other, table by table.",
    )
    @raising_failures
    def heap_connect_dumps(context: dg.AssetExecutionContext) -> Iterator[Any]:
        opened = project.with_lake(lake_of(context, names))
        remember_environment(opened)
        step = StepChecks(context, opened.lake, checks, names)
        results: dict[str, Mapping[str, CheckResult]] = {}
        landed: dict[str, dict[str, Any]] = {}
        delivered = {str(manifest.dump_id) for manifest in opened.source().manifests()}
        missing = [dump for dump in context.partition_keys if dump not in delivered]
        for dump in sorted(set(context.partition_keys) & delivered, key=int):
            outcome = land(opened, int(dump))
            for day, tables in sorted(outcome.days.items()):
                context.log_event(day_landed(names, day, tables, outcome.report.dump_id))
            opened.landing.confirm(outcome.report.dump_id, outcome.report.touched)
            landed[dump] = _metadata(outcome.report)
            results[dump] = outcome.results
        yield from materializations(context, asset_key(DUMPS, names), landed)
        for dump, of_dump in results.items():
            yield from step.evaluate(DUMPS, dump, of_dump)
        yield from step.finish()
        if missing:
            raise dg.Failure(f"{opened.source().describe()} has no dump {', '.join(missing)}", allow_retries=False)

    return heap_connect_dumps


def day_landed(names: Names, day: date, tables: Collection[str], dump_id: int | None = None) -> dg.AssetMaterialization:
    """Return the materialization that reports new rows of a day; a day whose rows came ahead of it has no dump."""
    metadata: dict[str, Any] = {"tables": len(tables), "names": ", ".join(sorted(tables))}
    return dg.AssetMaterialization(
        asset_key(LANDED, names),
        partition=day.isoformat(),
        metadata=metadata if dump_id is None else {"dump": str(dump_id), **metadata},
    )


_COUNTED = ("read", "new", "updated", "unchanged", "rejected", "late", "ahead", "before_start")


def _metadata(report: DumpReport) -> dict[str, Any]:
    rows: list[dict[str, Any]] = [
        {
            "table": table.table,
            "state": str(table.state),
            "incremental": table.incremental,
            "files": len(table.files),
            "bytes": table.bytes,
            # None where there was nothing to compare with
            **{name: getattr(table.counts, name) or 0 for name in _COUNTED},
            "seconds": round(table.seconds, 3),
            "reason": table.failure.summary if table.failure else ", ".join(table.rejected),
        }
        for table in report.tables
    ]
    left_out = {table.table: ", ".join(table.left_out) for table in report.tables if table.left_out}
    texts = {
        "tables": dg.MetadataValue.table([dg.TableRecord(row) for row in rows]) if rows else "nothing was left to land",
        "not_selected": ", ".join(report.unselected),
        "columns_not_selected": "; ".join(f"{table}: {columns}" for table, columns in left_out.items()),
        "values_lost": ", ".join(
            f"{table.table}.{name}: {count}" for table in report.tables for name, count in table.lost.items()
        ),
        "full_resyncs": ", ".join(table.table for table in report.full_resyncs),
    }
    return {
        "as_of": dg.MetadataValue.timestamp(report.as_of),
        "day": report.day.isoformat(),
        "rows": report.rows,
        **{name: sum(int(row[name]) for row in rows) for name in _COUNTED},
        "bytes": sum(table.bytes for table in report.tables),
        "seconds": round(sum(table.seconds for table in report.tables), 3),
        **{name: text for name, text in texts.items() if text},
    }
