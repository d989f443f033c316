"""Schedules: reading the warehouse, and sending to each destination at its own pace. All in UTC."""

from collections.abc import Iterator

import dagster as dg

from heap_assets import clock
from heap_assets.orchestration.checks import asset_key
from heap_assets.pipelines.sync_schedule import due_days, how_to_confirm, waits_for_confirmation, was_shown
from heap_assets.project import Project
from heap_assets.redaction import redacting
from heap_assets.tables import sync_asset, warehouse_asset


def schedules(project: Project, status: dg.DefaultScheduleStatus) -> Iterator[dg.ScheduleDefinition]:
    """Yield the warehouse's schedule and one for each sync that has a cron."""
    if project.settings.warehouse and project.settings.warehouse.tables:
        yield _warehouse(project, status)
    for name, sync in project.settings.sync.items():
        if sync.scheduled:
            yield _sync(name, str(sync.schedule), project, status)


def _warehouse(project: Project, status: dg.DefaultScheduleStatus) -> dg.ScheduleDefinition:
    tables = project.settings.warehouse.tables if project.settings.warehouse else {}
    keys = [asset_key(warehouse_asset(name)) for name in tables]

    @dg.schedule(
        name="read_warehouse",
        description="Reads the warehouse's tables as of the newest complete day.",
        cron_schedule=project.settings.run.warehouse_schedule,
        target=dg.AssetSelection.assets(*keys),
        execution_timezone="UTC",
        default_status=status,
    )
    @redacting
    def read_warehouse(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        return dg.RunRequest(partition_key=clock.newest_complete_day().isoformat())

    return read_warehouse


def _sync(name: str, cron: str, project: Project, status: dg.DefaultScheduleStatus) -> dg.ScheduleDefinition:
    @dg.schedule(
        name=f"send_{name}",
        description=f"Sends what is new or changed in the newest day by sync/{name}.",
        cron_schedule=cron,
        target=dg.AssetSelection.assets(asset_key(sync_asset(name))),
        execution_timezone="UTC",
        default_status=status,
    )
    @redacting
    def send(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        if waits_for_confirmation(project, name) and was_shown(project, name):
            return dg.SkipReason(f"nothing was ever sent to this destination: {how_to_confirm(name)}")
        days = due_days(project, name)
        if not days:
            return dg.SkipReason("nothing that it reads is new, or has been built yet")
        # a key of its own for each tick: a day is asked for again as long as it is due
        at = clock.now().isoformat()
        return [dg.RunRequest(run_key=f"{day} {at}", partition_key=day.isoformat()) for day in days]

    return send
