"""Group `unified`: the one table of the events of Heap and of the inbox, a partition a day."""

from functools import partial

import dagster as dg

from heap_assets.orchestration.assets.table_step import TableAsset, table_step
from heap_assets.orchestration.automation import due_by_lake
from heap_assets.orchestration.checks import asset_key
from heap_assets.orchestration.schedules import policy_for
from heap_assets.orchestration.ui_metadata import LINEAGE
from heap_assets.pipelines.suites import checks_of, loaded_cadence
from heap_assets.pipelines.unified_events import unbuilt_unified_days, unified_day, unified_sources
from heap_assets.project import Project
from heap_assets.tables import GRAPH, UNIFIED_EVENTS, is_inbox_table

GROUP = "unified"
_ABOUT = (
    "Heap's events and messages of the inbox in one table: the same columns and identifiers for both, each row "
    "with the person it is of by the graph of its day. `identifier_type` and `identifier` are the key of "
    "identity/graph: today's person is one join away."
)
_LINEAGE = {
    "event_id": ("event_id", "message_id"),
    "time": ("time", "time"),
    "received_at": (None, "received_at"),
    "anonymous_id": (None, "anonymous_id"),
    "session_id": ("session_id", None),
    "heap_user_id": ("user_id", None),
    "properties": (None, "body"),
}
"""Column to that of Heap's tables and that of messages which it is taken from."""


def unified_events(project: Project) -> list[dg.AssetsDefinition]:
    """Return the step that builds days of unified events; none unless the settings ask for them."""
    sources, names = unified_sources(project), project.names
    if not sources:
        return []
    lineage = {
        column: [
            dg.TableColumnDep(asset_key(asset, names), name)
            for asset in sources
            if (name := of_messages if is_inbox_table(asset) else of_heap)
        ]
        for column, (of_heap, of_messages) in _LINEAGE.items()
    }
    lineage["profile_id"] = [dg.TableColumnDep(asset_key(GRAPH, names), "profile_id")]
    spec = dg.AssetSpec(
        asset_key(UNIFIED_EVENTS, names),
        deps=[asset_key(asset, names) for asset in (*sources, GRAPH)],
        description=_ABOUT,
        group_name=names.group(GROUP),
        kinds={"polars", "parquet"},
        tags={"table_kind": "event", "personal_data": ""},
        metadata={
            "dagster/table_name": UNIFIED_EVENTS,
            "dagster/uri": project.lake.store.uri(UNIFIED_EVENTS),
            LINEAGE: dg.TableColumnLineage({column: deps for column, deps in lineage.items() if deps}),
        },
        automation_condition=due_by_lake(
            project, partial(unbuilt_unified_days, project), "its tables or its graph are newer than its last build"
        ),
        freshness_policy=policy_for("identity", loaded_cadence(project)),
    )
    table = TableAsset(UNIFIED_EVENTS, unified_day, spec, checks_of(project, UNIFIED_EVENTS))
    about = "Builds days of unified events from the tables of the day and its graph; equal inputs write nothing."
    return [table_step(UNIFIED_EVENTS, [table], project, description=about)]
