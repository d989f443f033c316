"""Jobs that people start by hand on syncs and tables, and the retention job."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from pydantic import Field

from heap_assets.orchestration.assets.sync import step_name
from heap_assets.orchestration.checks import LAKE, asset_key, lake_of
from heap_assets.orchestration.failures import raising_failures
from heap_assets.orchestration.groups import Groups
from heap_assets.orchestration.schedules import hourly_check_keys
from heap_assets.pipelines.retention import retain
from heap_assets.project import Names, Project
from heap_assets.tables import WAREHOUSE_SOURCE, source_title, sync_asset

_AT_ONCE = (
    "and tries rejected rows at once, however often they failed: after an outage, or when the destination was taught "
    "to take them. `rejected_since` in the launchpad leaves older ones alone."
)


def sync_jobs(project: Project) -> list[UnresolvedAssetJobDefinition]:
    """Return the jobs over the syncs; none if there is no sync. Forgetting a key is for the command line.

    A key names a person, and Dagster keeps the configuration of every run.
    """
    syncs = project.settings.sync
    if not syncs:
        return []
    retry = {"retry_rejected": True}
    vendors = sorted({sync.vendor for sync in syncs.values()})
    by_vendor = {vendor: [name for name, sync in syncs.items() if sync.vendor == vendor] for vendor in vendors}
    upserts = [name for name, sync in syncs.items() if sync.is_upsert]
    jobs = [
        _job(
            project,
            "dry_run_of_all_syncs",
            list(syncs),
            {"dry_run": True},
            "Shows what every sync would send of a day: counts, new property names, a sample with hashed keys. "
            "Sends nothing and materializes nothing; look at the observations of the assets.",
        ),
        _job(project, "retry_rejected_rows", list(syncs), retry, f"Sends a day by every sync {_AT_ONCE}"),
        *(
            _job(project, f"retry_rejected_rows_at_{vendor}", names, retry, f"Sends a day to {vendor} alone {_AT_ONCE}")
            for vendor, names in by_vendor.items()
            if len(by_vendor) > 1
        ),
    ]
    if upserts:
        description = (
            "Sends every known key of a day again by every sync that keeps keys up to date: when the destination has "
            "lost what it had. Events are sent once and are not among them."
        )
        jobs.append(_job(project, "full_resend", upserts, {"full_resend": True}, description))
    return jobs


def rebuilding_jobs(project: Project, by_group: Groups) -> list[UnresolvedAssetJobDefinition]:
    """Return the jobs that build days again by hand; equal inputs write nothing, so asking twice costs little."""
    jobs = [
        dg.define_asset_job(
            project.names.name("rebuild_heap_days"),
            selection=_without_hourly_checks(project, by_group, "heap_events", "heap_users"),
            description="Builds days of Heap's tables again from what has landed; choose days by a backfill. After "
            "the catalogue took in a column, or when a check says that a table cannot be read.",
        ),
        dg.define_asset_job(
            project.names.name("rebuild_identities"),
            selection=_without_hourly_checks(project, by_group, "identity", "profiles"),
            description="Resolves who is who and makes the profiles of a day again: after a change of `identity:` or "
            "`profiles:` in the settings. Older days follow on request only; nothing is sent.",
        ),
    ]
    for source, settings in project.settings.all_sources.items():
        if settings.tables:
            jobs.append(
                dg.define_asset_job(
                    project.names.name(f"read_{'the_' * (source == WAREHOUSE_SOURCE)}{source}_again"),
                    selection=_without_hourly_checks(project, by_group, source),
                    description=f"Reads the tables of {source_title(source)} for the newest complete day: "
                    "after a correction there.",
                )
            )
    return jobs


def _job(
    project: Project, name: str, syncs: Sequence[str], config: Mapping[str, Any], description: str
) -> UnresolvedAssetJobDefinition:
    selection = dg.AssetSelection.assets(*(asset_key(sync_asset(sync), project.names) for sync in syncs))
    return dg.define_asset_job(
        project.names.name(name),
        selection=selection - dg.AssetSelection.checks(*hourly_check_keys(project)),
        config={"ops": {step_name(sync, project.names): {"config": dict(config)} for sync in syncs}},
        description=description,
    )


def _without_hourly_checks(project: Project, by_group: Groups, *groups: str) -> dg.AssetSelection:
    """The hourly checks of recency belong to the assets too, but not to a run that builds or sends them."""
    return by_group.selection(*groups) - dg.AssetSelection.checks(*hourly_check_keys(project))


class RetentionConfig(dg.Config):
    """Options of one run of `retention`."""

    dry_run: bool = Field(default=False, description="Say what would go, and delete nothing")


def retention_job(project: Project) -> dg.JobDefinition:
    """Return the job that deletes the days which `keep` in the settings no longer asks for."""
    names = project.names

    @dg.op(
        name=names.name("forget_expired_days"),
        pool=names.name("retention"),
        required_resource_keys={names.name(LAKE)},
    )
    @raising_failures
    def forget_expired_days(context: dg.OpExecutionContext, config: RetentionConfig) -> None:
        retained = retain(project.with_lake(lake_of(context, names)), dry_run=config.dry_run)
        days, counts = len(retained.days), dict(retained.counts)
        word = "would go" if config.dry_run else "gone"
        context.log.info("%s days are %s: %s", days, word, counts)
        leftovers = retained.leftovers or 0
        context.add_output_metadata(
            {"days": days, "check_results": retained.results, "leftovers": leftovers, "dry_run": config.dry_run}
            | counts
            | {f"sources of {asset}": count for asset, count in retained.sources.items()}
        )

    @dg.job(
        name=names.name("retention"),
        description="Deletes days of snapshot-sized tables (users, warehouse, identity, profiles) that are older than "
        "`keep.snapshot_days` and no month ends, and days of events that are older than `keep.event_years`, with what "
        "they would be built from again. Set dry_run to see what would go.",
    )
    def retention() -> None:
        forget_expired_days()

    return retention


def retention_schedule(names: Names, job: dg.JobDefinition, status: dg.DefaultScheduleStatus) -> dg.ScheduleDefinition:
    """Return the schedule of `retention`: once a day, when the night's work is done."""
    return dg.ScheduleDefinition(
        name=names.name("keep_the_lake_small"),
        job=job,
        cron_schedule="40 5 * * *",
        execution_timezone="UTC",
        default_status=status,
        description="Deletes days of snapshots and of events that `keep` no longer asks for.",
    )
