"""Group `status`: the status page, written every morning; and the newest runs of assets for `heap-assets status`."""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from heap_assets.orchestration.automation import REPORT_DUE
from heap_assets.orchestration.checks import LAKE, asset_key, lake_of
from heap_assets.orchestration.failures import raising_failures
from heap_assets.orchestration.resources import names_on
from heap_assets.pipelines.next_steps import next_steps
from heap_assets.pipelines.status import Activity
from heap_assets.project import Names, Project
from heap_assets.report import Status, outcome, status_page
from heap_assets.storage import Lake, state_keys
from heap_assets.tables import AUDIT, PROFILES, STATUS_REPORT, sync_asset

PAGE = f"{state_keys.STATUS}/report.html"
_SCHEDULE = "40 5 * * *"
_SHOWN = 12
_ABOUT = """Begin here: how things stand, and what to do next (`next_steps` below, renewed with profiles and syncs).

The data flows from group to group: `heap_connect` lands Heap's dumps, `heap_events` and `heap_users` are its tables by
day, `warehouse` and other sources your own, `identity` says who is who, `profiles` has one row per person, `sync` sends
to Heap and others, `publish` to a warehouse. Sensors and schedules do all of it by themselves (Automation).

The page itself is one HTML file that opens without a network and holds no personal value; `heap-assets report` writes
the same. A day that is *missing* has not been built: the source had nothing for it, or could not tell it any more.
"""
_TWO_HOURS = timedelta(hours=2)


def status_report(project: Project) -> dg.AssetsDefinition:
    """Return the asset of the status page, without partitions: the page shows the current state."""
    names = project.names
    reported = [PROFILES, AUDIT, *(sync_asset(name) for name in project.settings.sync)]

    @dg.asset(
        key=asset_key(STATUS_REPORT, names),
        deps=[asset_key(path, names) for path in reported],
        group_name=names.group("status"),
        required_resource_keys={names.name(LAKE)},
        kinds={"html"},
        description=_ABOUT,
        automation_condition=REPORT_DUE,
        metadata={"dagster/uri": f"{project.lake.store.url.rstrip('/')}/{PAGE}"},
        freshness_policy=dg.FreshnessPolicy.cron(deadline_cron="0 7 * * *", lower_bound_delta=_TWO_HOURS),
    )
    @raising_failures
    def report(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        opened = project.with_lake(lake_of(context, names))
        page, status = status_page(opened.lake, remember=True)
        opened.lake.store.write(PAGE, page.encode())
        return dg.MaterializeResult(metadata=_metadata(opened, page, status))

    return report


def status_schedule(names: Names, status: dg.DefaultScheduleStatus) -> dg.ScheduleDefinition:
    """Return the schedule that writes the page before people come to work."""
    return dg.ScheduleDefinition(
        name=names.name("write_status_report"),
        target=dg.AssetSelection.assets(asset_key(STATUS_REPORT, names)),
        cron_schedule=_SCHEDULE,
        execution_timezone="UTC",
        default_status=status,
        description="Writes the status page every morning, whatever has happened since.",
    )


def _metadata(project: Project, page: str, status: Status) -> dict[str, Any]:
    outcomes = [outcome(result) for result in status.newest]
    uri = f"{project.lake.store.url.rstrip('/')}/{PAGE}"
    steps = next_steps(project) or ["Nothing: all is set up, and no check fails."]
    return {
        "next_steps": dg.MetadataValue.md("\n".join(f"{number}. {step}" for number, step in enumerate(steps, 1))),
        "page": dg.MetadataValue.path(uri) if "://" not in uri else dg.MetadataValue.url(uri),
        "bytes": len(page.encode()),
        "checks": len(outcomes),
        "failing": outcomes.count("error"),
        "warning": outcomes.count("warn"),
        "not_judged": outcomes.count("unjudged"),
        "assets_behind": sum(result.failed for result in status.freshness),
        **status.figures,
        "needs_a_look": dg.MetadataValue.md(_attention(status)),
    }


def _attention(status: Status) -> str:
    lines = [
        f"- `{result.asset}` {result.check}{'' if result.partition == 'all' else f', {result.partition}'}: "
        f"{result.rule}"
        for result in status.failing[:_SHOWN]
    ]
    more = [f"- and {len(status.failing) - _SHOWN} more"] if len(status.failing) > _SHOWN else []
    return "\n".join([*lines, *more]) or "Every check passes."


_STATES = {
    dg.DagsterRunStatus.NOT_STARTED: "queued",
    dg.DagsterRunStatus.QUEUED: "queued",
    dg.DagsterRunStatus.STARTING: "running",
    dg.DagsterRunStatus.STARTED: "running",
    dg.DagsterRunStatus.CANCELING: "running",
    dg.DagsterRunStatus.FAILURE: "failed",
}
_STORED = ("history", "storage", "schedules")
"""Folders of an instance on SQLite, made when it is first used."""


def activity_of(home: Path, lake: Lake, assets: Iterable[str]) -> Mapping[str, Activity] | None:
    """Return asset to its newest run, if that is queued, running or failed; None if nothing ever ran in this home.

    A run that failed after it had materialized the asset is no failure of the asset.
    """
    if not (home / "dagster.yaml").is_file() or not any((home / name).is_dir() for name in _STORED):
        return None
    with dg.DagsterInstance.from_config(str(home)) as instance:
        names = names_on(instance, lake)
        keys = {asset_key(asset, names): asset for asset in assets}
        records = {record.asset_entry.asset_key: record for record in instance.get_asset_records(list(keys))}
        newest = {key: record.asset_entry.last_run_id for key, record in records.items()}
        run_ids = sorted({run for run in newest.values() if run})
        runs = {run.run_id: run for run in instance.get_runs(dg.RunsFilter(run_ids=run_ids))} if run_ids else {}
    activities = {}
    for key, run_id in newest.items():
        run = runs.get(run_id or "")
        state = _STATES.get(run.status) if run else None
        materialization = records[key].asset_entry.last_materialization_record
        if (
            run is None
            or state is None
            or (materialization is not None and materialization.run_id == run.run_id and state == "failed")
        ):
            continue
        activities[keys[key]] = Activity(state, run.run_id)
    return activities
