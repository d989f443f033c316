"""Schedules: reading the sources, and sending to each destination at its own pace. All in UTC."""

from collections.abc import Iterator, Sequence

import dagster as dg

from heap_assets import clock
from heap_assets.orchestration.checks import asset_key
from heap_assets.pipelines.sync_schedule import due_days, how_to_confirm, waits_for_confirmation, was_shown
from heap_assets.project import Project
from heap_assets.redaction import redacting
from heap_assets.tables import source_title, sync_asset


def schedules(project: Project, status: dg.DefaultScheduleStatus) -> Iterator[dg.ScheduleDefinition]:
    """Yield a schedule for each source that has tables, and one for each sync that has a cron."""
    for source, chosen in project.settings.all_sources.items():
        if chosen.tables:
            keys = [asset_key(f"{source}/{name}") for name in chosen.tables]
            yield _source(source, project.settings.read_schedule(source), keys, status)
    for name, sync in project.settings.sync.items():
        if sync.scheduled:
            yield _sync(name, str(sync.schedule), project, status)


def _source(
    source: str, cron: str, keys: Sequence[dg.AssetKey], status: dg.DefaultScheduleStatus
) -> dg.ScheduleDefinition:
    @dg.schedule(
        name=f"read_{source}",
        description=f"Reads the tables of {source_title(source)} as of the newest complete day.",
        cron_schedule=cron,
        target=dg.AssetSelection.assets(*keys),
        execution_timezone="UTC",
        default_status=status,
    )
    @redacting
    def read(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        return dg.RunRequest(partition_key=clock.newest_complete_day().isoformat())

    return read


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
