"""Groups `heap_events` and `heap_users`: Heap's tables, one partition a day, built from what was landed."""

from functools import partial

import dagster as dg

from heap_assets.orchestration.assets.table_step import TableAsset, table_step
from heap_assets.orchestration.automation import newest_touched_day, touched_days
from heap_assets.orchestration.checks import asset_key
from heap_assets.orchestration.schedules import policy_for
from heap_assets.pipelines.heap_tables import event_day, migrations_of_day, users_of_day
from heap_assets.pipelines.suites import checks_of, loaded_cadence
from heap_assets.project import Project
from heap_assets.tables import LANDED, MIGRATIONS, SNAPSHOT_TABLES, USERS, heap_asset

_ABOUT_USERS = (
    "Heap's users as they stood at the end of the day: all dumps up to then folded, the newest `last_modified` wins. "
    "`migrated_to` names the user that a user has become."
)
_ABOUT_MIGRATIONS = (
    "Which anonymous user became which identified one. `resolved_to` is the end of the chain; a cycle is marked and "
    "resolved to its smallest id."
)


def event_tables(project: Project) -> dg.AssetsDefinition:
    """Return the step that builds every event table of the catalogue; late days are rebuilt by themselves."""
    tables, condition = [], touched_days(project)
    for table in project.event_tables:
        path = heap_asset(table)
        entry = project.catalogue.tables[table]
        tables.append(
            TableAsset(
                path,
                partial(event_day, table=table),
                _spec(project, path, f"Heap's `{entry.display_name}` events.", condition),
                checks_of(project, path),
            )
        )
    return table_step(
        "heap_event_tables",
        tables,
        project,
        description="Builds days of Heap's event tables from landed dumps; any subset of tables in one step.",
    )


def people(project: Project) -> dg.AssetsDefinition:
    """Return the step that builds `heap/users` and `heap/user_migrations`."""
    condition = newest_touched_day(project)
    tables = [
        TableAsset(path, build, _spec(project, path, about, condition), checks_of(project, path))
        for path, build, about in (
            (USERS, users_of_day, _ABOUT_USERS),
            (MIGRATIONS, migrations_of_day, _ABOUT_MIGRATIONS),
        )
    ]
    return table_step(
        "heap_people",
        tables,
        project,
        description="Folds dumps into users and user migrations as they stood at the end of each day.",
    )


def _spec(
    project: Project, path: str, description: str, condition: dg.AutomationCondition[dg.AssetKey]
) -> dg.AssetSpec:
    table = project.heap_tables[path]
    return dg.AssetSpec(
        asset_key(path, project.names),
        deps=[asset_key(LANDED, project.names)],
        description=description,
        group_name=project.names.group("heap_users" if table in SNAPSHOT_TABLES else "heap_events"),
        kinds={"polars", "parquet"},
        tags={"source": "heap", "table_kind": "snapshot" if table in SNAPSHOT_TABLES else "event"},
        metadata={
            "dagster/table_name": path.replace("/", "."),
            "dagster/uri": project.lake.store.uri(path),
        },
        automation_condition=condition,
        freshness_policy=policy_for("heap", loaded_cadence(project)),
    )
