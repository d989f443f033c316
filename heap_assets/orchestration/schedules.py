"""Schedules of sources and of syncs, all in UTC; freshness policies, and the hourly job of recency checks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from heap_assets import clock
from heap_assets.orchestration.checks import asset_key, check_step
from heap_assets.orchestration.failures import raising_failures
from heap_assets.pipelines.publishing import open_publisher, published_tables, unpublished_days
from heap_assets.pipelines.suites import hourly_checks
from heap_assets.pipelines.sync_gate import (
    confirmation_hint,
    due_days,
    has_news,
    is_first_of_hour,
    waits_for_confirmation,
    was_shown,
)
from heap_assets.project import PLAIN_NAMES, Names, Project
from heap_assets.quality import Cadence, Check
from heap_assets.tables import reverse_etl_asset, source_title, sync_asset

Kind = Literal["heap", "warehouse", "identity", "sync"]

_BEHIND = {
    "heap": timedelta(0),
    "warehouse": timedelta(0),
    "identity": timedelta(hours=2),
    "sync": timedelta(hours=4),
}
"""Hours that a stage is behind its inputs in normal operation."""


def policy_for(kind: Kind, cadence: Cadence) -> dg.FreshnessPolicy:
    """Return the policy of an asset of a kind: warned when a run is late, failed when one was missed."""
    behind = _BEHIND[kind]
    warn = max(cadence.every * 1.25 + behind, timedelta(minutes=5))
    return dg.FreshnessPolicy.time_window(
        fail_window=max(cadence.every * 2.25 + behind, warn + timedelta(minutes=5)), warn_window=warn
    )


NAME = "recency"


@dataclass(frozen=True)
class RecencyJob:
    """The step that evaluates the recency checks, with its job and its hourly schedule."""

    step: dg.AssetChecksDefinition
    job: UnresolvedAssetJobDefinition
    schedule: dg.ScheduleDefinition


def recency_job(
    checks: Sequence[Check],
    *,
    names: Names = PLAIN_NAMES,
    cron: str = "7 * * * *",
    status: dg.DefaultScheduleStatus = dg.DefaultScheduleStatus.RUNNING,
) -> RecencyJob:
    """Return the step that evaluates `checks` (of whole assets, not of days), and the job and schedule that run it."""
    about = "How new the newest row of every table is, read from the lake."
    step = check_step(NAME, checks, None, description=about, names=names)
    job = dg.define_asset_job(
        names.name(f"{NAME}_job"),
        selection=dg.AssetSelection.checks(step),
        description="Ask every table for its newest row, and every sync for its newest delivered day.",
    )
    schedule = dg.ScheduleDefinition(
        name=names.name(f"{NAME}_hourly"),
        job=job,
        cron_schedule=cron,
        execution_timezone="UTC",
        default_status=status,
        description="Hourly: is the newest row recent? Backfilling an old day cannot fool it.",
    )
    return RecencyJob(step, job, schedule)


def hourly_check_keys(project: Project) -> list[dg.AssetCheckKey]:
    """Return the checks of recency, which belong to assets but not to the runs that build or send them."""
    return [dg.AssetCheckKey(asset_key(check.asset, project.names), check.name) for check in hourly_checks(project)]


def schedules(project: Project, status: dg.DefaultScheduleStatus) -> Iterator[dg.ScheduleDefinition]:
    """Yield a schedule for each source that has tables, and one for each sync that has a cron, there or here."""
    for source, settings in project.settings.all_sources.items():
        if tables := [name for name, table in settings.tables.items() if not table.upstream]:
            keys = [asset_key(f"{source}/{name}", project.names) for name in tables]
            yield _source(project, source, keys, status)
    for name, sync in project.settings.sync.items():
        if sync.scheduled:
            yield _sync(name, str(project.settings.sync_schedule(name)), project, status)
    for target, chosen in project.settings.publish.items():
        if chosen.schedule is not None:
            yield _publish(target, chosen.schedule, project, status)
        if chosen.full:
            yield _publish(target, chosen.full_schedule, project, status, is_full=True)
    for name, sync_there in project.settings.reverse_etl.items():
        if sync_there.schedule is not None:
            yield dg.ScheduleDefinition(
                name=project.names.name(f"start_{name}"),
                target=dg.AssetSelection.assets(asset_key(reverse_etl_asset(name), project.names)),
                cron_schedule=sync_there.schedule,
                execution_timezone="UTC",
                default_status=status,
                description=f"Starts the sync {sync_there.sync} of {sync_there.kind}, and waits for its end.",
            )


def _source(
    project: Project, source: str, keys: Sequence[dg.AssetKey], status: dg.DefaultScheduleStatus
) -> dg.ScheduleDefinition:
    @dg.schedule(
        name=project.names.name(f"read_{source}"),
        description=f"Reads the tables of {source_title(source)} as of the newest complete day.",
        cron_schedule=project.settings.read_schedule(source),
        target=dg.AssetSelection.assets(*keys) - dg.AssetSelection.checks(*hourly_check_keys(project)),
        execution_timezone="UTC",
        default_status=status,
    )
    @raising_failures
    def read(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        return dg.RunRequest(partition_key=clock.newest_complete_day().isoformat())

    return read


def _publish(
    target: str, cron: str, project: Project, status: dg.DefaultScheduleStatus, *, is_full: bool = False
) -> dg.ScheduleDefinition:
    tables = [table for table in published_tables(project, target) if (table.of is not None) == is_full]
    subject = "whole tables with new or rebuilt days" if is_full else "days that are new or were built anew"

    @dg.schedule(
        name=project.names.name(f"publish_{'whole_' if is_full else ''}to_{target}"),
        description=f"Publishes to {target} the {subject}.",
        cron_schedule=cron,
        target=dg.AssetSelection.assets(*(asset_key(table.asset, project.names) for table in tables)),
        execution_timezone="UTC",
        default_status=status,
    )
    @raising_failures
    def publish(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        publisher = open_publisher(project, target)
        days = sorted({day for table in tables for day in unpublished_days(project, publisher, table)})
        if not days:
            return dg.SkipReason("every day that was built is published")
        at = clock.now().isoformat()
        newest = days[-project.settings.run.days_per_run :]
        return [dg.RunRequest(run_key=f"{day} {at}", partition_key=day.isoformat()) for day in newest]

    return publish


def _sync(name: str, cron: str, project: Project, status: dg.DefaultScheduleStatus) -> dg.ScheduleDefinition:
    @dg.schedule(
        name=project.names.name(f"send_{name}"),
        description=f"Sends what is new or changed in the newest day by sync/{name}.",
        cron_schedule=cron,
        target=dg.AssetSelection.assets(asset_key(sync_asset(name), project.names))
        - dg.AssetSelection.checks(*hourly_check_keys(project)),
        execution_timezone="UTC",
        default_status=status,
    )
    @raising_failures
    def send(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        if waits_for_confirmation(project, name) and was_shown(project, name):
            return dg.SkipReason(f"nothing was ever sent to this destination: {confirmation_hint(name)}")
        days = due_days(project, name)
        if not days:
            return dg.SkipReason("nothing that it reads is new, or has been built yet")
        if not is_first_of_hour(cron, context.scheduled_execution_time) and not has_news(project, name, days[-1]):
            return dg.SkipReason(
                "nothing that it reads is new since its last run; the first tick of an hour tries the rest"
            )
        # a key of its own for each tick: a day is asked for again as long as it is due
        at = clock.now().isoformat()
        return [dg.RunRequest(run_key=f"{day} {at}", partition_key=day.isoformat()) for day in days]

    return send
