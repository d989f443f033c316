"""Says which days an edited function makes anew, and then lets them be built."""

import dagster as dg

from heap_assets.orchestration.checks import asset_key
from heap_assets.pipelines.catalogue import note_changes
from heap_assets.pipelines.function_rebuilds import edited_functions, function_rebuilds
from heap_assets.project import Project


def record_changes(instance: dg.DagsterInstance, project: Project) -> None:
    """Record which tables have other columns or another function than before: days built before are due then.

    Each table whose function was edited is observed first, with the days that will be built again.
    """
    if edited_functions(project):
        for rebuild in function_rebuilds(project):
            metadata: dict[str, int | str] = {
                "days_built_again": len(rebuild.days),
                "first_day": str(rebuild.days[0]),
                "last_day": str(rebuild.days[-1]),
            }
            key = asset_key(rebuild.asset, project.names)
            instance.report_runless_asset_event(dg.AssetObservation(key, description=rebuild.text, metadata=metadata))
    note_changes(project)
