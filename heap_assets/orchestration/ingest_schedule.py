"""The schedule `ingest_heap`: what Heap delivered is landed at the times of `heap.ingest`, instead of as it comes.

Its times are of a time zone of its own, and days of tables stay those of UTC. Dagster's schedules know about changed
clocks: a time of day that a change skips comes right after it, one that it repeats comes the second time only. An
interval of an hour is an hour whatever the clocks do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import dagster as dg

# the iterator that the daemon's own ticks come from; it has no public name
from dagster._utils.schedules import schedule_execution_time_iterator

from heap_assets import clock
from heap_assets.config import IngestSchedule
from heap_assets.orchestration.checks import asset_key
from heap_assets.orchestration.failures import raising_failures
from heap_assets.project import Project


def ingest_schedule(
    project: Project,
    asset: str,
    requests: Callable[[dg.ScheduleEvaluationContext], Sequence[dg.RunRequest] | dg.SkipReason],
    status: dg.DefaultScheduleStatus,
) -> list[dg.ScheduleDefinition]:
    """Return the schedule that asks for runs of `asset`; none unless the settings name an interval."""
    ingest = project.settings.heap.ingest
    if ingest is None:
        return []

    @dg.schedule(
        name=project.names.name("ingest_heap"),
        description="Lands what Heap has delivered, at the times of heap.ingest. The sensor goes on with what was "
        "begun, and lands nothing that came later.",
        cron_schedule=ingest.cron,
        execution_timezone=ingest.time_zone,
        target=dg.AssetSelection.assets(asset_key(asset, project.names)),
        default_status=status,
    )
    @raising_failures
    def ingest_heap(context: dg.ScheduleEvaluationContext) -> Sequence[dg.RunRequest] | dg.SkipReason:
        return requests(context)

    return [ingest_heap]


def last_tick(ingest: IngestSchedule, now: datetime | None = None) -> datetime:
    """Return when the schedule ticked last, in UTC: what was delivered until then is to be landed."""
    return _tick(ingest, now, ascending=False)


def next_tick(ingest: IngestSchedule, now: datetime | None = None) -> str:
    """Return when the schedule ticks next, in words: `2026-11-30 13:30 UTC`."""
    return f"{_tick(ingest, now, ascending=True):%Y-%m-%d %H:%M} UTC"


def _tick(ingest: IngestSchedule, now: datetime | None, *, ascending: bool) -> datetime:
    moment = (now or clock.now()).timestamp()
    ticks = schedule_execution_time_iterator(moment, ingest.cron, ingest.time_zone, ascending=ascending)
    return next(ticks).astimezone(UTC)
