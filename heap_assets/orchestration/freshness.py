"""Freshness policies of assets, and the hourly job that evaluates the age of every table's newest row."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from heap_assets.orchestration.checks import check_step
from heap_assets.quality import Cadence, Check

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
