"""Jobs: what people do by hand with syncs, and keeping the lake small; everything else is a button on the assets."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from pydantic import Field

from heap_assets.assets.sync import GROUP, step_name
from heap_assets.checks.partition_check import asset_key
from heap_assets.io import LakeResource
from heap_assets.platform import Platform
from heap_assets.steps.retention import expired, forget, forget_verdicts, old_verdicts
from heap_assets.steps.suites import hourly_checks


def sync_jobs(loaded: Platform) -> list[UnresolvedAssetJobDefinition]:
    """Return the jobs over all syncs; none if there is no sync."""
    if not loaded.settings.sync:
        return []
    return [
        _job(
            loaded,
            "dry_run_of_all_syncs",
            {"dry_run": True},
            "Shows what every sync would send of a day: counts, new property names, a sample with hashed keys. "
            "Sends nothing and materializes nothing; look at the observations of the assets.",
        ),
        _job(
            loaded,
            "retry_rejected_rows",
            {"retry_rejected": True},
            "Sends a day by every sync and tries rejected rows at once, however often they failed: after an outage, or "
            "when the destination was taught to take them.",
        ),
    ]


def rebuilding_jobs(loaded: Platform) -> list[UnresolvedAssetJobDefinition]:
    """Return the jobs that build days again by hand; equal inputs write nothing, so asking twice costs little."""
    found = [
        dg.define_asset_job(
            "rebuild_heap_days",
            selection=_without_hourly_checks(loaded, "heap", "heap_events"),
            description="Builds days of Heap's tables again from what has landed; choose days by a backfill. After "
            "the catalogue took in a column, or when a check says that a table cannot be read.",
        ),
        dg.define_asset_job(
            "rebuild_identities",
            selection=_without_hourly_checks(loaded, "identity", "profiles"),
            description="Resolves who is who and makes the profiles of a day again: after a change of `identity:` or "
            "`profiles:` in the settings. Older days follow on request only; nothing is sent.",
        ),
    ]
    if loaded.settings.warehouse and loaded.settings.warehouse.tables:
        found.append(
            dg.define_asset_job(
                "read_the_warehouse_again",
                selection=_without_hourly_checks(loaded, "warehouse"),
                description="Reads the warehouse's tables for the newest complete day: after a correction there.",
            )
        )
    return found


def _job(
    loaded: Platform,
    name: str,
    config: Mapping[str, Any],
    description: str,
) -> UnresolvedAssetJobDefinition:
    return dg.define_asset_job(
        name,
        selection=_without_hourly_checks(loaded, GROUP),
        config={"ops": {step_name(sync): {"config": dict(config)} for sync in loaded.settings.sync}},
        description=description,
    )


def _without_hourly_checks(loaded: Platform, *groups: str) -> dg.AssetSelection:
    """The hourly checks of recency belong to the assets too, but not to a run that builds or sends them."""
    hourly = [dg.AssetCheckKey(asset_key(check.asset), check.name) for check in hourly_checks(loaded)]
    return dg.AssetSelection.groups(*groups) - dg.AssetSelection.checks(*hourly)


class RetentionConfig(dg.Config):
    """What one run of `retention` does."""

    dry_run: bool = Field(default=False, description="Say what would go, and delete nothing")


def retention_job(platform: Callable[[LakeResource], Platform]) -> dg.JobDefinition:
    """Return the job that deletes the days which `keep` in the settings no longer asks for."""

    @dg.op(name="forget_expired_days", pool="retention")
    def forget_expired_days(context: dg.OpExecutionContext, config: RetentionConfig, lake: LakeResource) -> None:
        there = platform(lake)
        days = expired(there)
        results = old_verdicts(there)
        if not config.dry_run:
            forget(there, days)
            forget_verdicts(there, results)
        counts = Counter(day.asset for day in days)
        word = "would go" if config.dry_run else "gone"
        context.log.info("%s days are %s: %s", len(days), word, dict(counts))
        context.add_output_metadata(
            {"days": len(days), "check_results": len(results), "dry_run": config.dry_run} | dict(counts)
        )

    @dg.job(
        name="retention",
        description="Deletes days of snapshot-sized tables (users, warehouse, identity, profiles) that are older than "
        "`keep.snapshot_days` and no month ends. Events stay. Set dry_run to see what would go.",
    )
    def retention() -> None:
        forget_expired_days()

    return retention


def retention_schedule(job: dg.JobDefinition, status: dg.DefaultScheduleStatus) -> dg.ScheduleDefinition:
    """Return the schedule of `retention`: once a day, when the night's work is done."""
    return dg.ScheduleDefinition(
        name="keep_the_lake_small",
        job=job,
        cron_schedule="40 5 * * *",
        execution_timezone="UTC",
        default_status=status,
        description="Deletes days of snapshot-sized tables that `keep` no longer asks for.",
    )
