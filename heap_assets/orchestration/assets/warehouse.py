"""A group for each source (`warehouse`, `crm`): CRM, billing, product and support tables, as they stood each day."""

from functools import partial

import dagster as dg

from heap_assets.config import WarehouseTable
from heap_assets.orchestration.assets.table_step import TableAsset, table_step
from heap_assets.orchestration.automation import follows_upstream, unread_day
from heap_assets.orchestration.checks import asset_key
from heap_assets.orchestration.schedules import policy_for
from heap_assets.pipelines.snapshots import snapshot_of_day
from heap_assets.pipelines.suites import checks_of, table_cadence
from heap_assets.project import Project
from heap_assets.tables import source_of, warehouse_asset


def warehouse_tables(project: Project) -> list[dg.AssetsDefinition]:
    """Return a step for each source that reads it; only the newest days are read, older ones are kept as they were."""
    by_clock, by_upstream = unread_day(project), follows_upstream(project)
    by_source: dict[str, list[TableAsset]] = {}
    for name, table in project.settings.read_tables.items():
        path = warehouse_asset(name)
        spec = _spec(project, path, table, by_upstream if table.upstream else by_clock)
        asset = TableAsset(path, partial(snapshot_of_day, name=name), spec, checks_of(project, path))
        by_source.setdefault(source_of(path), []).append(asset)
    return [
        table_step(
            f"{source}_tables",
            tables,
            project,
            description=f"Reads the mapped {source} tables. A live source has no past: old days are never read again.",
        )
        for source, tables in by_source.items()
    ]


def _spec(
    project: Project, path: str, table: WarehouseTable, condition: dg.AutomationCondition[dg.AssetKey]
) -> dg.AssetSpec:
    source = source_of(path)
    kind = project.settings.all_sources[source].kind
    mapped = ", ".join(f"`{column}` is {types}" for column, types in table.identifiers.items())
    about = table.description or f"`{table.relation}`, one row per `{table.key}`."
    return dg.AssetSpec(
        asset_key(path, project.names),
        deps=[dg.AssetKey(table.upstream)] if table.upstream else None,
        description=f"{about}\n\nIdentifiers: {mapped or 'none'}.",
        group_name=project.names.group(source),
        kinds={kind, "parquet"},
        owners=[table.owner] if table.owner else None,
        tags={"source": kind, "table_kind": "snapshot"},
        metadata={"dagster/table_name": table.relation, "dagster/uri": project.lake.store.uri(path)},
        automation_condition=condition,
        freshness_policy=policy_for("warehouse", table_cadence(table)),
    )
