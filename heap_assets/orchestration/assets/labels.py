"""Group `labels`: Heap's labels of each environment, held against the reviewed file. Reads only: people apply."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from heap_assets.errors import HeapAssetsError
from heap_assets.orchestration.checks import asset_key
from heap_assets.orchestration.failures import raising_failures
from heap_assets.pipelines.labels import drift_of_labels
from heap_assets.project import Project
from heap_assets.tables import labels_asset

GROUP = "labels"
IN_SYNC = "labels_in_sync"
_SHOWN = 50


def labels(project: Project) -> Iterator[dg.AssetsDefinition]:
    """Yield an asset for each environment of `labels:`."""
    if project.settings.labels is not None:
        for environment in project.settings.labels.environments:
            yield _environment(project, environment)


def labels_schedules(project: Project, status: dg.DefaultScheduleStatus) -> Iterator[dg.ScheduleDefinition]:
    """Yield the schedule that looks at every environment."""
    settings = project.settings.labels
    if settings is not None:
        keys = [asset_key(labels_asset(name), project.names) for name in settings.environments]
        yield dg.ScheduleDefinition(
            name=project.names.name("look_at_labels"),
            target=dg.AssetSelection.assets(*keys),
            cron_schedule=settings.schedule,
            execution_timezone="UTC",
            default_status=status,
            description="Holds the labels of each environment against the reviewed file.",
        )


def _environment(project: Project, environment: str) -> dg.AssetsDefinition:
    names, path = project.names, labels_asset(environment)
    key = asset_key(path, names)

    @dg.asset(
        key=key,
        group_name=names.group(GROUP),
        kinds={"heap"},
        description=f"Labels of the environment {environment}: looked at, never changed, by runs. Nobody has verified "
        "the API that they are read by.",
        check_specs=[
            dg.AssetCheckSpec(
                IN_SYNC,
                asset=key,
                description="The environment has the labels of the file, as the file has them, and no others.",
                metadata={"mend": f"`heap-assets labels plan {environment}`, then apply, or pull and review the file."},
            )
        ],
    )
    @raising_failures
    def look(context: dg.AssetExecutionContext) -> Iterator[Any]:
        try:
            drift = drift_of_labels(project, environment)
        except HeapAssetsError as error:
            raise dg.Failure(str(error), allow_retries=False) from None
        counts = {"labels": drift.labels, "changed": len(drift.changes), "unknown": len(drift.unknown)}
        yield dg.MaterializeResult(metadata=dict(counts))
        shown = {
            "to_apply": "\n".join(map(str, drift.changes[:_SHOWN])),
            "not_in_the_file": ", ".join(drift.unknown[:_SHOWN]),
        }
        yield dg.AssetCheckResult(
            check_name=IN_SYNC,
            passed=drift.in_sync,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={**counts, **{name: text for name, text in shown.items() if text}},
        )

    return look
