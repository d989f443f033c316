"""Group `warehouse`: CRM, billing, product and support tables, as they stood each day."""

from collections.abc import Callable
from functools import partial

import dagster as dg

from heap_assets.config import WarehouseTable
from heap_assets.orchestration.assets.table_step import TableAsset, table_step
from heap_assets.orchestration.automation import unread_day
from heap_assets.orchestration.checks import asset_key
from heap_assets.orchestration.freshness import policy_for
from heap_assets.orchestration.resources import LakeResource
from heap_assets.pipelines.snapshots import snapshot_of_day
from heap_assets.pipelines.suites import checks_of, table_cadence
from heap_assets.project import Project
from heap_assets.tables import warehouse_asset


def warehouse_tables(
    loaded: Project,
    project: Callable[[LakeResource], Project],
    partitions_def: dg.DailyPartitionsDefinition,
) -> dg.AssetsDefinition:
    """Return the step that reads the warehouse; only the newest days are read, older ones are kept as they were."""
    settings, condition = loaded.settings.warehouse, unread_day(lambda: loaded)
    tables = [
        TableAsset(
            warehouse_asset(name),
            partial(snapshot_of_day, name=name),
            _spec(loaded, name, table, condition),
            checks_of(loaded, warehouse_asset(name)),
        )
        for name, table in (settings.tables if settings else {}).items()
    ]
    return table_step(
        "warehouse_tables",
        tables,
        project,
        partitions_def,
        days_per_run=loaded.settings.run.days_per_run,
        description="Reads the mapped warehouse tables. A live source has no past: older days are never read again.",
    )


def _spec(
    loaded: Project, name: str, table: WarehouseTable, condition: dg.AutomationCondition[dg.AssetKey]
) -> dg.AssetSpec:
    path = warehouse_asset(name)
    kind = loaded.settings.warehouse.kind if loaded.settings.warehouse else "duckdb"
    mapped = ", ".join(f"`{column}` is {types}" for column, types in table.identifiers.items())
    about = table.description or f"`{table.relation}`, one row per `{table.key}`."
    return dg.AssetSpec(
        asset_key(path),
        description=f"{about}\n\nIdentifiers: {mapped or 'none'}.",
        group_name="warehouse",
        kinds={kind, "parquet"},
        owners=[table.owner or loaded.settings.run.owner],
        tags={"source": kind, "table_kind": "snapshot"},
        metadata={"dagster/table_name": table.relation, "dagster/uri": loaded.lake.store.uri(path)},
        automation_condition=condition,
        freshness_policy=policy_for("warehouse", table_cadence(table)),
    )
