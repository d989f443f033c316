"""What Dagster's instance says of assets at the moment, for `heap-assets status`: read, never written."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import dagster as dg

from heap_assets.orchestration.checks import asset_key
from heap_assets.pipelines.status import Activity

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


def activity_of(home: Path, assets: Iterable[str]) -> Mapping[str, Activity] | None:
    """Return asset to its newest run, if that is queued, running or failed; None if nothing ever ran in this home.

    A run that failed after it had materialized the asset is no failure of the asset.
    """
    if not (home / "dagster.yaml").is_file() or not any((home / name).is_dir() for name in _STORED):
        return None
    keys = {asset_key(asset): asset for asset in assets}
    with dg.DagsterInstance.from_config(str(home)) as instance:
        records = {record.asset_entry.asset_key: record for record in instance.get_asset_records(list(keys))}
        newest = {key: record.asset_entry.last_run_id for key, record in records.items()}
        run_ids = sorted({run for run in newest.values() if run})
        runs = {run.run_id: run for run in instance.get_runs(dg.RunsFilter(run_ids=run_ids))} if run_ids else {}
    activities = {}
    for key, run_id in newest.items():
        run = runs.get(run_id or "")
        state = _STATES.get(run.status) if run else None
        done = records[key].asset_entry.last_materialization_record
        if run is None or state is None or (done is not None and done.run_id == run.run_id and state == "failed"):
            continue
        activities[keys[key]] = Activity(state, run.run_id)
    return activities
