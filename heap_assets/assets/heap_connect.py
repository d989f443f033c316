"""Group `heap_connect`: dumps as Heap delivers them, and the days that each of them touched."""

from collections.abc import Callable, Iterator
from datetime import date
from typing import Any

import dagster as dg

from heap_assets import clock
from heap_assets.checks.partition_check import asset_key
from heap_assets.heap_connect import DumpReport
from heap_assets.io import LakeResource
from heap_assets.names import DUMPS, LANDED
from heap_assets.partitions import DUMPS as DUMP_PARTITIONS
from heap_assets.platform import Platform

GROUP = "heap_connect"
TABLES_LANDED = "every_table_landed"


def landed(partitions_def: dg.PartitionsDefinition[str], owner: str) -> dg.AssetSpec:
    """Return the external asset of days that dumps touched: what the tables' automation listens to."""
    return dg.AssetSpec(
        asset_key(LANDED),
        description="Days of Heap's tables that dumps brought rows for.\n\n"
        "Landing a dump reports one materialization for every day it touched, late days included, and after a full "
        "resync every day the table ever had. Tables are then rebuilt for exactly those days.",
        group_name=GROUP,
        kinds={"parquet"},
        owners=[owner],
        partitions_def=partitions_def,
        deps=[asset_key(DUMPS)],
    )


def dumps(
    platform: Callable[[LakeResource], Platform], partitions_def: dg.DailyPartitionsDefinition, owner: str
) -> dg.AssetsDefinition:
    """Return the asset that lands one dump a partition."""

    @dg.asset(
        key=asset_key(DUMPS),
        partitions_def=DUMP_PARTITIONS,
        group_name=GROUP,
        kinds={"avro", "s3"},
        owners=[owner],
        pool="heap_landing",
        check_specs=[
            dg.AssetCheckSpec(
                TABLES_LANDED,
                asset=asset_key(DUMPS),
                description="Every selected table of the dump was read whole. A table that was not is tried again.",
            )
        ],
    )
    def heap_connect_dumps(context: dg.AssetExecutionContext, lake: LakeResource) -> Iterator[Any]:
        """Heap Connect's dumps, landed as Parquet: one partition a dump, a table whole or not at all."""
        there = platform(lake)
        report = there.landing.land(there.source(), int(context.partition_key))
        for day, tables in sorted(_days(report, there.settings.start_date).items()):
            context.log_event(
                dg.AssetMaterialization(
                    asset_key(LANDED),
                    partition=day.isoformat(),
                    metadata={"dump": report.dump_id, "tables": len(tables), "names": ", ".join(sorted(tables))},
                )
            )
        yield dg.MaterializeResult(metadata=_metadata(report))
        yield dg.AssetCheckResult(
            check_name=TABLES_LANDED,
            passed=not report.failed,
            metadata={"failed_tables": len(report.failed)}
            | {
                table.table: dg.MetadataValue.text(table.failure.reason if table.failure else "")
                for table in report.failed
            },
        )

    return heap_connect_dumps


def _days(report: DumpReport, start: date) -> dict[date, set[str]]:
    """Return the days to rebuild; the dump's own day always, so that quiet tables get their empty partition."""
    days: dict[date, set[str]] = {report.day: set()}
    for table, touched in report.touched.items():
        for day in touched:
            days.setdefault(day, set()).add(table)
    return {day: tables for day, tables in days.items() if start <= day <= clock.today()}


def _metadata(report: DumpReport) -> dict[str, Any]:
    columns = ("table", "state", "incremental", "files", "bytes", "rows", "rejected", "seconds")
    records = [
        dg.TableRecord(
            {
                "table": table.table,
                "state": str(table.state),
                "incremental": table.incremental,
                "files": table.files,
                "bytes": table.bytes,
                "rows": table.counts.landed,
                "rejected": table.counts.rejected,
                "seconds": round(table.seconds, 3),
            }
        )
        for table in report.tables
    ]
    schema = dg.TableSchema([dg.TableColumn(name) for name in columns])
    return {
        "as_of": dg.MetadataValue.timestamp(report.as_of),
        "day": report.day.isoformat(),
        "rows": report.rows,
        "rejected": sum(table.counts.rejected for table in report.tables),
        "bytes": sum(table.bytes for table in report.tables),
        "tables": dg.MetadataValue.table(records, schema=schema),
    }
