"""Group `reports`: results of statements by day, as files and as mail; each by a schedule of its own."""

from collections.abc import Iterator
from datetime import date
from functools import partial
from typing import Any

import dagster as dg

from heap_assets import clock
from heap_assets.errors import DeliveryError, MissingInputError, SourceError
from heap_assets.orchestration.assets.table_step import Days
from heap_assets.orchestration.checks import LAKE, asset_key, lake_of
from heap_assets.orchestration.column_types import table_schema
from heap_assets.orchestration.failures import raising_failures
from heap_assets.orchestration.resources import days, partition_metadata
from heap_assets.pipelines.reports import inputs_of_report, report_day
from heap_assets.project import Project
from heap_assets.tables import report_asset

GROUP = "reports"
_LATER = dg.RetryPolicy(max_retries=3, delay=60, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)
"""For a mail server or an API that is away; outputs that have got their file are not given it again."""


def reports(project: Project) -> Iterator[dg.AssetsDefinition]:
    """Yield an asset for each report."""
    for name in project.settings.reports:
        yield _report(project, name)


def report_schedules(project: Project, status: dg.DefaultScheduleStatus) -> Iterator[dg.ScheduleDefinition]:
    """Yield the schedule of each report, which asks for the newest complete day."""
    for name in project.settings.reports:
        yield _schedule(project, name, status)


def _report(project: Project, name: str) -> dg.AssetsDefinition:
    names, report, path = project.names, project.settings.reports[name], report_asset(name)
    key = asset_key(path, names)
    goes_to = ", ".join(output.kind for output in report.outputs) or "the lake alone"
    about = report.description or "A result of SQL as of the end of the day"

    @dg.asset(
        key=key,
        deps=[asset_key(asset, names) for asset in inputs_of_report(project, name)],
        group_name=names.group(GROUP),
        kinds={"sql", "report"},
        tags={"source": report.source},
        owners=[report.owner] if report.owner else None,
        metadata={"dagster/table_name": path.replace("/", "."), "dagster/uri": project.lake.store.uri(path)},
        partitions_def=days(project.settings.first_day),
        backfill_policy=dg.BackfillPolicy.multi_run(project.settings.run.days_per_run),
        retry_policy=_LATER,
        pool=names.name(path.replace("/", "_")),
        required_resource_keys={names.name(LAKE)},
        output_required=False,
        description=f"{about}.\n\nGoes to {goes_to}; an output gets each version of a day once.",
    )
    @partial(raising_failures, retried=True)
    def report_days(context: dg.AssetExecutionContext) -> Iterator[Any]:
        opened, step_days = project.with_lake(lake_of(context, names)), Days(context, path, key)
        for day in context.partition_keys:
            step_days.build(day, partial(_build, opened, name, day))
        yield from step_days.results()

    return report_days


def _build(project: Project, name: str, day: str) -> dict[str, Any]:
    try:
        reported = report_day(project, name, date.fromisoformat(day))
    except (DeliveryError, SourceError) as error:
        raise dg.Failure(str(error), allow_retries=True) from None
    path = report_asset(name)
    stored = project.lake.find(path, day)
    if stored is None:
        raise MissingInputError(f"{path} {day} vanished while it was reported")
    return partition_metadata(stored) | {
        "status": str(reported.status),
        "sent": ", ".join(reported.sent) or "nothing: all outputs have this version",
        "dagster/column_schema": table_schema(project.lake.scan(path, day).collect_schema()),
    }


def _schedule(project: Project, name: str, status: dg.DefaultScheduleStatus) -> dg.ScheduleDefinition:
    @dg.schedule(
        name=project.names.name(f"report_{name}"),
        description=f"Makes the report {name} of the newest complete day.",
        cron_schedule=project.settings.reports[name].schedule,
        target=dg.AssetSelection.assets(asset_key(report_asset(name), project.names)),
        execution_timezone="UTC",
        default_status=status,
    )
    @raising_failures
    def make_report(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        return dg.RunRequest(partition_key=clock.newest_complete_day().isoformat())

    return make_report
