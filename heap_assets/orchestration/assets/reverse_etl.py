"""Group `reverse_etl`: syncs of Hightouch and Census, started when what they read was built, and waited for."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
from pydantic import Field

from heap_assets.activation import ToolRun
from heap_assets.orchestration.automation import REVERSE_ETL_DUE
from heap_assets.orchestration.checks import LAKE, asset_key, lake_of
from heap_assets.orchestration.failures import raising_failures
from heap_assets.orchestration.schedules import policy_for
from heap_assets.pipelines.reverse_etl import check_reverse_etl, failure_of, start_and_wait
from heap_assets.pipelines.suites import loaded_cadence
from heap_assets.project import Project
from heap_assets.tables import reverse_etl_asset

GROUP = "reverse_etl"


class ReverseEtlConfig(dg.Config):
    """Options of one run."""

    full_resync: bool = Field(default=False, description="Have all rows sent there, not only those that changed")


def reverse_etl(project: Project) -> Iterator[dg.AssetsDefinition]:
    """Yield an asset for each sync of another tool."""
    check_reverse_etl(project)
    for name in project.settings.reverse_etl:
        yield _sync(project, name)


def _sync(project: Project, name: str) -> dg.AssetsDefinition:
    names, settings = project.names, project.settings.reverse_etl[name]
    path = reverse_etl_asset(name)
    tool = settings.kind.capitalize()

    @dg.asset(
        key=asset_key(path, names),
        deps=[asset_key(asset, names) for asset in settings.reads],
        group_name=names.group(GROUP),
        kinds={settings.kind},
        tags={"destination": settings.kind},
        automation_condition=None if settings.schedule else REVERSE_ETL_DUE,
        freshness_policy=policy_for("sync", loaded_cadence(project)),
        pool=names.name(f"reverse_etl_{name}"),
        required_resource_keys={names.name(LAKE)},
        description=f"{settings.description or f'Sync {settings.sync} of {tool}'}\n\nIt is started at {tool} and "
        f"waited for; it reads {', '.join(settings.reads)}. After a kill, the next run goes on waiting for it.",
    )
    @raising_failures
    def wait(context: dg.AssetExecutionContext, config: ReverseEtlConfig) -> dg.MaterializeResult[Any]:
        opened = project.with_lake(lake_of(context, names))

        def report(run: ToolRun) -> None:
            context.log.info("%s: run %s at %s is %s", path, run.id, tool, run.status)

        run = start_and_wait(opened, name, full_resync=config.full_resync, report=report)
        metadata = _metadata(run)
        if failure := failure_of(opened, name, run):
            raise dg.Failure(f"{path}: run {run.id} at {tool}: {failure}", metadata=metadata, allow_retries=False)
        if run.rejected or run.invalid:
            lost = (run.rejected or 0) + (run.invalid or 0)
            context.log.warning("%s: %s rows were rejected or invalid: %s lists them", path, f"{lost:,}", tool)
        return dg.MaterializeResult(metadata=metadata)

    return wait


def _metadata(run: ToolRun) -> dict[str, Any]:
    counts = {"planned": run.planned, "sent": run.sent, "rejected": run.rejected, "invalid": run.invalid}
    return {"status": run.status, "run": run.id} | {key: rows for key, rows in counts.items() if rows is not None}
