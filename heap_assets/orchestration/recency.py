"""The hourly look at how new every table is: one step over all tables, its job and its schedule."""

from collections.abc import Sequence
from dataclasses import dataclass

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from heap_assets.orchestration.checks import check_step
from heap_assets.quality import Check

NAME = "recency"


@dataclass(frozen=True)
class RecencyJob:
    """What goes into the definitions."""

    step: dg.AssetChecksDefinition
    job: UnresolvedAssetJobDefinition
    schedule: dg.ScheduleDefinition


def recency_job(
    checks: Sequence[Check],
    *,
    cron: str = "7 * * * *",
    status: dg.DefaultScheduleStatus = dg.DefaultScheduleStatus.RUNNING,
) -> RecencyJob:
    """Return the step that judges `checks` (of whole assets, not of days), and the job and schedule that run it."""
    step = check_step(NAME, checks, None, description="How new the newest row of every table is, read from the lake.")
    job = dg.define_asset_job(
        f"{NAME}_job",
        selection=dg.AssetSelection.checks(step),
        description="Ask every table for its newest row, and every sync for its newest delivered day.",
    )
    schedule = dg.ScheduleDefinition(
        name=f"{NAME}_hourly",
        job=job,
        cron_schedule=cron,
        execution_timezone="UTC",
        default_status=status,
        description="Hourly: is the newest row recent? Backfilling an old day cannot fool it.",
    )
    return RecencyJob(step, job, schedule)
