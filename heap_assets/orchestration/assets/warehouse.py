"""Group `warehouse`: CRM, billing, product and support tables, as they stood each day."""

from functools import partial

import dagster as dg

from heap_assets.config import WarehouseTable
from heap_assets.orchestration.assets.table_step import TableAsset, table_step
from heap_assets.orchestration.automation import unread_day
from heap_assets.orchestration.checks import asset_key
from heap_assets.orchestration.freshness import policy_for
from heap_assets.pipelines.snapshots import snapshot_of_day
from heap_assets.pipelines.suites import checks_of, table_cadence
from heap_assets.project import Project
from heap_assets.tables import warehouse_asset


def warehouse_tables(project: Project) -> dg.AssetsDefinition:
    """Return the step that reads the warehouse; only the newest days are read, older ones are kept as they were."""
    settings, condition = project.settings.warehouse, unread_day(project)
    tables = [
        TableAsset(
            warehouse_asset(name),
            partial(snapshot_of_day, name=name),
            _spec(project, name, table, condition),
            checks_of(project, warehouse_asset(name)),
        )
        for name, table in (settings.tables if settings else {}).items()
    ]
    return table_step(
        "warehouse_tables",
        tables,
        project,
        description="Reads the mapped warehouse tables. A live source has no past: older days are never read again.",
    )


def _spec(
    project: Project, name: str, table: WarehouseTable, condition: dg.AutomationCondition[dg.AssetKey]
) -> dg.AssetSpec:
    path = warehouse_asset(name)
    kind = project.settings.warehouse.kind if project.settings.warehouse else ""
    mapped = ", ".join(f"`{column}` is {types}" for column, types in table.identifiers.items())
    about = table.description or f"`{table.relation}`, one row per `{table.key}`."
    return dg.AssetSpec(
        asset_key(path),
        description=f"{about}\n\nIdentifiers: {mapped or 'none'}.",
        group_name="warehouse",
        kinds={kind, "parquet"},
        owners=[table.owner or project.settings.run.owner],
        tags={"source": kind, "table_kind": "snapshot"},
        metadata={"dagster/table_name": table.relation, "dagster/uri": project.lake.store.uri(path)},
        automation_condition=condition,
        freshness_policy=policy_for("warehouse", table_cadence(table)),
    )
