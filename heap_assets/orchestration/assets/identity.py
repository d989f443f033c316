"""Group `identity`: identity resolution as of the end of each day."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any

import dagster as dg

from heap_assets.errors import MissingInputError
from heap_assets.orchestration.assets.table_step import materializations, note_wait
from heap_assets.orchestration.automation import resolvable_graph
from heap_assets.orchestration.checks import LAKE, asset_key, lake_of
from heap_assets.orchestration.column_types import table_schema
from heap_assets.orchestration.failures import raising_failures
from heap_assets.orchestration.resources import days, partition_metadata
from heap_assets.orchestration.schedules import policy_for
from heap_assets.orchestration.spark.launch import engine_of_run
from heap_assets.pipelines.people import REFUSED, figures, identity_of_day
from heap_assets.pipelines.suites import loaded_cadence
from heap_assets.pipelines.table import BuiltTable
from heap_assets.project import Project
from heap_assets.tables import CHANGES, CONFLICTS, GRAPH, LINKS, SHARED, warehouse_asset

GROUP = "identity"
_ABOUT = {
    LINKS: "Identifiers seen on one record: the day's events, and the snapshot tables as they stand.\n\n"
    "One row per link and source, with first and last sight. A sighting is an identifier seen alone.",
    GRAPH: "Every identifier and the profile it belongs to.\n\n"
    "Links are taken in one total order under merge limits, so neither arrival nor partitioning changes the answer; "
    "the graph of a day computed from the day before equals the one computed at once.",
    CONFLICTS: "Links that a merge limit or a decision refused: which one, both profiles and both counts.",
    SHARED: "Identifiers that belong to several people, such as a kiosk's device: they merge nobody.",
    CHANGES: "What became of yesterday's profiles: merged, split, moved, renamed, created, removed.",
}


def identity(project: Project) -> dg.AssetsDefinition:
    """Return the step that resolves identities; the newest day runs automatically once its inputs are complete."""
    names, condition = project.names, resolvable_graph(project)
    read = [path for path, table in project.sources.items() if table.mappings]
    if (table_of_decisions := project.settings.identity.decisions_table) is not None:
        read.append(warehouse_asset(table_of_decisions))
    sources = [asset_key(path, names) for path in dict.fromkeys(read)]

    def spec(path: str) -> dg.AssetSpec:
        return dg.AssetSpec(
            asset_key(path, names),
            deps=sources if path == LINKS else [asset_key(LINKS if path == GRAPH else GRAPH, names)],
            description=_ABOUT[path],
            group_name=names.group(GROUP),
            kinds={"polars", "parquet"},
            tags={"personal_data": ""} if path in (LINKS, GRAPH, CONFLICTS, SHARED) else {},
            metadata={"dagster/table_name": path.replace("/", "."), "dagster/uri": project.lake.store.uri(path)},
            automation_condition=condition,
            freshness_policy=policy_for("identity", loaded_cadence(project)),
            code_version="1",
            skippable=True,  # a day whose inputs are not there yet is named and left out, and the others go on
        )

    @dg.multi_asset(
        name=names.name("identity"),
        specs=[spec(path) for path in _ABOUT],
        partitions_def=days(project.settings.first_day),
        backfill_policy=dg.BackfillPolicy.multi_run(project.settings.run.days_per_run),
        pool=names.name("identity"),
        required_resource_keys={names.name(LAKE)},
        description="Resolves identities: links, order, limits, shared values, stable ids.",
    )
    @raising_failures
    def resolve_identities(context: dg.AssetExecutionContext) -> Iterator[Any]:
        opened = project.with_lake(lake_of(context, names))
        resolved: dict[str, dict[str, dict[str, Any]]] = {}
        for key in context.partition_keys:
            day = date.fromisoformat(key)
            try:
                with engine_of_run(opened, context, key) as engine:
                    tables = identity_of_day(opened, day, engine)
                    resolved[key] = {path: _store(opened, path, day, table) for path, table in tables.items()}
            except MissingInputError as error:
                note_wait(context, asset_key(GRAPH, names), key, str(error))
        for path in _ABOUT:
            yield from materializations(
                context, asset_key(path, names), {day: stored[path] for day, stored in resolved.items()}
            )

    return resolve_identities


def _store(project: Project, path: str, day: date, table_day: BuiltTable) -> dict[str, Any]:
    written = project.lake.write(
        path, str(day), table_day.parts or table_day.writer or table_day.frame, table_day.inputs, notes=table_day.notes
    )
    schema = table_schema(project.lake.scan(path, str(day)).collect_schema())
    plain = {name: value for name, value in table_day.notes.items() if isinstance(value, int | float | str)}
    plain.pop("inputs", None)  # counted with the partition
    return {
        **partition_metadata(written.partition),
        **figures(project, path, day),
        **(plain if path == GRAPH else {}),
        **_refused(written.partition.notes.get(REFUSED, ())),
        "status": str(written.status),
        "dagster/column_schema": schema,
    }


def _refused(refused: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the counts of refused values as a table: source, column, type, reason and rows; never the values."""
    rows = [dg.TableRecord({name: "" if value is None else value for name, value in row.items()}) for row in refused]
    return {"no_identifiers": dg.MetadataValue.table(rows)} if rows else {}
